"""Many sites that were refused for one reason are one sentence, with a count and three names."""

from dataclasses import replace
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from flfed import Study, run
from flfed.errors import UsageError
from flfed.rows.data.site import Policy
from flfed.rows.data.sources import Frame

ROOT = Path(__file__).resolve().parents[1]
REASON = "column 'x1' is not a number in fewer than 10 rows"


def refused(sites, count: int):
    """Return `count` further sites, whose first column is text."""
    spoiled = Frame(sites[0].source.read(()).head(8).astype({"x1": object}).assign(x1="a text"))
    return [replace(sites[0], name=f"ward-{number:03d}", source=spoiled) for number in range(count)]


@pytest.mark.studies
def test_186_refused_sites_are_one_sentence_wherever_a_run_is_told(small_sites, small_study, flfed):
    two = small_sites(2)
    run(Study.parse(small_study), sites=[*two, *refused(two, 186)])
    code, out, _ = flfed("run", "show", "latest")
    assert code == 0
    names = "ward-000, ward-001, ward-002 and 183 more"
    assert f"186 of 188 sites took no part: {names} ({REASON})." in " ".join(out.split())
    assert out.count("ward-") == 3 and out.count(REASON) == 1  # said once, and not again below
    every = flfed("run", "show", "latest", "--all")[1]
    lines = [line for line in every.splitlines() if line.startswith("Refused: ")]
    assert lines == [f"Refused: 186 sites ({names}): {REASON}"]
    page = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60).run()
    page.switch_page(str(ROOT / "flfed" / "records" / "dashboard" / "pages" / "p20_overview.py")).run()
    assert not page.exception
    cells = [str(cell).replace("\\", "") for table in page.table for cell in table.value.to_numpy().ravel()]
    assert f"186 sites ({names})" in cells
    assert REASON in [cell.replace("\u2060", "") for cell in cells]


def test_a_run_that_nobody_takes_part_in_names_three_sites_and_counts_the_others(small_sites, small_study):
    with pytest.raises(UsageError) as caught:
        run(Study.parse(small_study), sites=refused(small_sites(1), 20))
    said = str(caught.value)
    assert "no site takes part, at least 2 are needed" in said
    assert said.count("ward-") == 3 and "; 17 more)" in said


STATISTIC = """
format = 1
name = "two"
purpose = "Test"
legal-basis = "made"
dataset = { name = "small" }
statistic = { name = "covariance", columns = ["x1", "x2"] }
"""


def test_sites_whose_policy_lacks_an_output_are_told_the_line(small_sites, small_study):
    sites = small_sites(2, policy=Policy())
    complete = Study.parse(small_study).replace({"encode.rows": "complete"})
    for study, output in ((complete, "complete-rows"), (Study.parse(STATISTIC), "single-cells-in-sums")):
        with pytest.raises(UsageError, match="no site takes part") as caught:
            run(study, sites=sites)
        assert f'; a site agrees by a line in its policy.toml: outputs = ["{output}"]' in str(caught.value)
        assert "site check" not in str(caught.value)


def test_five_refused_sites_are_all_named(small_sites, small_study, flfed):
    two = small_sites(2)
    run(Study.parse(small_study), sites=[*two, *refused(two, 5)])
    out = flfed("run", "show", "latest")[1]
    named = ", ".join(f"ward-{number:03d} ({REASON})" for number in range(5))
    assert f"5 of 7 sites took no part: {named}." in out and out.count(REASON) == 5
