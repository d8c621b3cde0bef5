"""People who opted out: their rows go first, whatever reads the table, and only counts are told of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sqlalchemy

from flfed.errors import UsageError
from flfed.rows.data.parsing.fields import Field
from flfed.rows.data.site import Site
from flfed.rows.data.sources import Csv, Frame, Parquet, Sql
from flfed.rows.snapshots.opt_outs import ANY, Excluded, Exclusion
from flfed.rows.snapshots.snapshot import freeze, load


def listed(path: Path, text: str) -> Excluded:
    path.write_text(text)
    path.chmod(0o600)
    return Excluded.read(path)


def test_their_rows_go_before_mapping_and_counts_say_so(small_sites, tmp_path):
    site = small_sites(1)[0]
    table = site.source.table
    twice = pd.concat([table, table[3:4]], ignore_index=True)
    # A row that breaks a rule is no matter where it is not to be used.
    twice.loc[7, "x1"] = 999.0
    spoilt = replace(site, source=Frame(twice))
    excluded = listed(tmp_path / "out.csv", "person\nP0-0003\n P0-0007 \nP0-0003\n\nP9-0001\n")
    frozen = freeze(spoilt, tmp_path / "frozen", excluded)
    # Of three identifiers two are in the table: one of them twice.
    assert frozen.excluded == Exclusion(listed=3, found=2, rows=3)
    assert frozen.rows == 58
    left = load(spoilt, tmp_path / "frozen").inspect()[0]
    assert set(table["person"]) - set(left["person"]) == {"P0-0003", "P0-0007"}
    pd.testing.assert_frame_equal(left, site.inspect()[0].drop([3, 7]).reset_index(drop=True), check_exact=True)


def test_a_list_that_nobody_is_found_by_changes_nothing(small_sites, tmp_path):
    site = small_sites(1)[0]
    plain = freeze(site, tmp_path / "a", None)
    for number, text in enumerate(("person\n", "person\nP9-0001\n", "\ufeffperson\r\nP9-0001\r\n")):
        frozen = freeze(site, tmp_path / str(number), replace(listed(tmp_path / "out.csv", text), allowed=ANY))
        assert frozen.sha256 == plain.sha256
        assert frozen.excluded == Exclusion(listed=int("P9" in text), found=0, rows=0)
    assert plain.excluded is None


def test_identifiers_are_read_alike_from_every_kind_of_source(small_sites, tmp_path, monkeypatch):
    site = small_sites(1)[0]
    table = site.source.table.assign(number=np.arange(60))
    table.to_csv(tmp_path / "t.csv", index=False)
    table.to_parquet(tmp_path / "t.parquet")
    url = f"sqlite:///{tmp_path / 't.db'}"
    table.to_sql("t", sqlalchemy.create_engine(url), index=False)
    monkeypatch.setenv("FLFED_SITE_URL", url)
    floats = table.assign(number=table["number"].astype(float))
    files = [Csv(str(tmp_path / "t.csv")), Parquet(str(tmp_path / "t.parquet"))]
    excluded = listed(tmp_path / "out.csv", 'number\n"7"\n8.0\n009\n')
    with pytest.raises(UsageError, match="2 are in column 'number' .* leading zeros, 1 more would be found"):
        freeze(replace(site, source=files[0]), tmp_path / "none", excluded)
    excluded = replace(excluded, allowed=ANY)  # a person says that 009 is no number 9
    hashes = set()
    for number, source in enumerate([*files, Sql("SELECT * FROM t"), Frame(floats)]):
        frozen = freeze(replace(site, source=source), tmp_path / str(number), excluded)
        assert frozen.excluded == Exclusion(listed=3, found=2, rows=2, more=1)
        hashes.add(frozen.sha256)
    assert len(hashes) == 1


def test_the_column_is_the_sites_own_not_the_schemas(small_sites, tmp_path):
    site = small_sites(1)[0]
    own = site.source.table.rename(columns={"person": "patient"})
    renamed = replace(site, source=Frame(own), mapping={"person": Field("patient")})
    frozen = freeze(renamed, tmp_path / "frozen", listed(tmp_path / "out.csv", "patient\nP0-0003\n"))
    assert (frozen.rows, frozen.excluded) == (59, Exclusion(1, 1, 1))
    for text in ("person\nP0-0003\n", "P0-0003\nP0-0007\n"):
        with pytest.raises(UsageError, match="is not the name of one column of its own table") as raised:
            freeze(renamed, tmp_path / "frozen", listed(tmp_path / "out.csv", text))
        # Where the header is forgotten, the first line is a person.
        assert "P0-0003" not in str(raised.value)
    doubled = pd.concat([own, own["patient"]], axis=1)
    with pytest.raises(UsageError, match="is not the name of one column"):
        freeze(replace(renamed, source=Frame(doubled)), tmp_path / "frozen", listed(tmp_path / "out.csv", "patient\n"))


@pytest.mark.parametrize(("text", "reason"), [
    ("", "is empty"), ("\n\n", "is empty"),
    ("person,name\nP0-0003,Jane Roe\n", "2 of its lines have more than one cell"),
    ("person\nRoe, Jane\n", "1 of its lines have more than one cell"),
    ('person\n"Jane', "cannot be read as CSV in UTF-8"), ("person\nJos\xe9\n", "cannot be read as CSV in UTF-8"),
])  # fmt: skip
def test_a_list_that_cannot_be_read_is_refused_without_a_word_of_it(tmp_path, text, reason):
    (tmp_path / "out.csv").write_bytes(text.encode("latin-1"))
    (tmp_path / "out.csv").chmod(0o600)
    with pytest.raises(UsageError, match=f"out.csv: {reason}") as raised:
        Excluded.read(tmp_path / "out.csv")
    assert "Jane" not in str(raised.value)


def test_a_list_that_others_may_read_is_refused(tmp_path):
    path = tmp_path / "out.csv"
    path.write_text("person\nP0-0003\n")
    path.chmod(0o644)
    with pytest.raises(UsageError, match=f"chmod 600 {path}"):
        Excluded.read(path)
    with pytest.raises(UsageError, match="cannot be read"):
        Excluded.read(tmp_path / "absent.csv")
    assert "P0-0003" not in repr(listed(path, "person\nP0-0003\n"))


class OwnWay(Site):
    """A site of an institution's own making, which does not look at its source."""

    def inspect(self):
        table, findings, schema = super().inspect()
        return table, findings, schema


def test_a_site_that_reads_in_a_way_of_its_own_is_refused_where_there_is_a_list(small_sites, tmp_path):
    plain = small_sites(1)[0]
    site = OwnWay(name=plain.name, dataset="small", source=plain.source)
    with pytest.raises(UsageError, match="reads the table with code of its own"):
        freeze(site, tmp_path / "frozen", listed(tmp_path / "out.csv", "person\nP0-0003\n"))
    assert freeze(site, tmp_path / "frozen", None).rows == 60


def test_everybody_out_is_the_error_of_an_empty_table(small_sites, tmp_path):
    site = small_sites(1)[0]
    everybody = "person\n" + "\n".join(site.source.table["person"])
    with pytest.raises(Exception, match="has no rows: the table is empty"):
        freeze(site, tmp_path / "frozen", listed(tmp_path / "out.csv", everybody))
