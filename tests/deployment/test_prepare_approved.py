"""What a person reads before an approval of the function that makes the site's table."""

from __future__ import annotations

from pathlib import Path

from flfed.deployment.site_state.freeze import refresh
from flfed.paths import SiteFolder
from flfed.rows.data import site_discovery as sites
from flfed.rows.snapshots.snapshot import freeze
from flfed.study.study import Study
from tests.approval_text import details, ten_lines

OTHERS = ("site-02", "site-03", "site-04")
PACKAGE = '''
import pandas as pd
from flfed import Csv, Holdout, Site


def adults(table):
    """Adults only."""
    return table[pd.to_numeric(table["x1"]) >= 20]


site = Site(
    name="ward-7", dataset="small", source=Csv("rows.csv", prepare=adults), holdout=Holdout(salt="s"),
)
'''


def rows_line(study: Study, folder: Path) -> str:
    (line,) = [line for line in ten_lines(study, sites.of_folder(folder), OTHERS) if line.startswith("Rows: ")]
    return line


def test_an_approval_names_the_function_prints_it_and_says_when_it_changed(small_sites, small_study: str, tmp_path):
    folder = tmp_path / "sites" / "ward_7"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(PACKAGE)
    small_sites(1)[0].source.table.to_csv(folder / "rows.csv", index=False)
    study = Study.parse(small_study)
    assert rows_line(study, folder).endswith("adults of this site's package makes them of its table.")
    frozen = freeze(sites.of_folder(folder), SiteFolder("ward-7").frozen, None)
    day = frozen.code_at[:16].replace("T", " ")
    made = "They were made by adults of this site's package, whose code "
    assert rows_line(study, folder).endswith(f"{made}is as it was at {day}.")
    # Every detail has its text.
    (source,) = [one for one in details(study, sites.of_folder(folder), OTHERS) if one.startswith("Source: ")]
    assert "adults of this site's package" in source
    assert '    def adults(table):\n        """Adults only."""\n' in source and '["x1"]) >= 20]' in source
    (folder / "__init__.py").write_text(PACKAGE.replace(">= 20", ">= 30"))
    assert rows_line(study, folder).endswith(
        f"{made}changed after that: flfed site refresh ward-7 takes a snapshot by the new one."
    )

    # Also where the new code gives the same rows.
    (folder / "__init__.py").write_text(PACKAGE.replace(">= 20", "> 19.999999"))
    assert " changed after that: " in rows_line(study, folder)
    again = refresh(SiteFolder("ward-7"), sites.of_folder(folder))
    assert again.changes and again.voids == () and again.difference.added == 0
    assert again.write().sha256 == frozen.sha256
    assert " is as it was at " in rows_line(study, folder)
    assert not refresh(SiteFolder("ward-7"), sites.of_folder(folder)).changes


def test_a_site_without_a_function_has_no_word_of_one(small_sites, small_study: str):
    site, study = small_sites(1)[0], Study.parse(small_study)
    freeze(site, SiteFolder(site.name).frozen, None)
    shown = " ".join([*ten_lines(study, site, OTHERS), *details(study, site, OTHERS)])
    assert "of this site's package" not in shown
