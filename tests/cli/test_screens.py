"""What a person sees of four sites and of a hundred, in a terminal of 80 columns and 40 lines."""

from pathlib import Path

import pytest

from flfed import Study, run
from flfed.records.reports.report import report
from flfed.records.statistics.verdict import describe_verdict
from flfed.records.store.reader import RunReader
from tests.conftest import small_table
from tests.terminal import in_terminal

pytestmark = [pytest.mark.slow, pytest.mark.studies]  # runs of a hundred sites

SCREEN = 40


@pytest.fixture(scope="module")
def homes() -> dict[int, tuple[Path, str]]:
    """A home and a run in it by number of sites."""
    return {}


@pytest.fixture(params=[4, 100])
def shown(request, homes, tmp_path_factory, small_sites, small_study, monkeypatch) -> tuple[int, str]:
    """How many sites the run of this test's home has, and its id."""
    count = request.param
    if count not in homes:
        home = tmp_path_factory.mktemp(f"of-{count}")
        monkeypatch.setenv("FLFED_HOME", str(home))
        sites = small_sites(count, change=lambda number, _: small_table(150, seed=number))
        # As long as the names of the shipped sites.
        named = [type(site)(**{**vars(site), "name": f"mississippi-{n:03d}"}) for n, site in enumerate(sites, 1)]
        study = Study.parse(small_study).replace({"rounds": 2, "name": "heart-disease"})
        homes[count] = home, run(study, sites=named).run
    monkeypatch.setenv("FLFED_HOME", str(homes[count][0]))
    return count, homes[count][1]


def table_of(lines: list[str], header: str) -> list[str]:
    """Return the lines of a table below its rule."""
    start = next(number for number, line in enumerate(lines) if line.startswith(header))
    rule = next(number for number in range(start, len(lines)) if set(lines[number].strip()) == {"─"})
    rows = []
    for line in lines[rule + 1 :]:
        if not line.startswith("mississippi-") and not line.startswith(" "):
            break
        rows.append(line)
    return rows


def test_a_run_is_one_screen_with_a_line_a_site_and_all_sites_are_there_with_all(shown):
    count, name = shown
    code, lines = in_terminal("run", "show", name)
    assert code == 0 and len(lines) <= SCREEN and max(map(len, lines)) <= 80
    rows = table_of(lines, "site ")
    with RunReader.open() as reader:
        sites = report(reader, name)["sites"]
    read = {site: describe_verdict(of["verdict"], "roc_auc_score") for site, of in sites.items()}
    assert all(row.split()[0] in sites and row.rstrip().endswith(read[row.split()[0]]) for row in rows)
    assert len({row.split()[0] for row in rows}) == len(rows) == (4 if count == 4 else 8)
    assert (f"… and 92 more sites: flfed run show {name} --all" in lines) == (count == 100)
    _, every = in_terminal("run", "show", name, "--all")
    assert [row.split()[0] for row in table_of(every, "site ")] == sorted(sites) and len(sites) == count


def test_the_sites_that_are_shown_of_many_are_those_that_gain_or_lose_most(shown):
    count, name = shown
    if count == 4:
        return
    rows = table_of(in_terminal("run", "show", name)[1], "site ")
    with RunReader.open() as reader:
        sites = report(reader, name)["sites"]
    verdicts = [sites[row.split()[0]]["verdict"] for row in rows]
    clear = sum(site["verdict"] in ("joining pays", "do not use it here") for site in sites.values())
    assert sum(v in ("joining pays", "do not use it here") for v in verdicts) == min(clear, 8)


def test_lists_checks_and_comparisons_break_no_row_and_fold(shown):
    count, name = shown
    code, lines = in_terminal("run", "list")
    # A head and a rule, then a few lines a run: one more where it was not trained enough.
    assert code == 0 and lines[2].startswith(name) and max(map(len, lines)) <= 80
    assert len(lines) == 6 + ("trained enough" in " ".join(line[:45] for line in lines))
    code, lines = in_terminal("run", "compare", name, name)
    assert code == 0 and len(lines) <= SCREEN and max(map(len, lines)) <= 80
    assert all(len(row.split()) >= 5 for row in table_of(lines, "site "))
    assert any(line.startswith("… and ") and line.endswith("more lines: --all") for line in lines) == (count == 100)
