"""What four readers get of eight runs, in the list, on Overview and side by side: what `visibility` gives them."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from flfed.records.dashboard import page_files
from flfed.records.dashboard.panels import run_table
from flfed.records.reports.catalogue import run_list
from flfed.records.store.entries import ComparisonRow, DifferenceRow, EventRow, SiteRow
from flfed.records.store.reader import RunReader
from flfed.records.store.writer import RunStore
from tests.browser import ROOT
from tests.records.test_dashboard import listed_rows, words

AUC = "roc_auc_score"
ROLES = """
[people]
"chief@a.example" = "coordinator"
"ana@a.example" = "analyst"
"it@alder.example" = { site = "alder" }
"it@birch.example" = { site = "birch" }
"""
CLINICS = ("alder", "birch", "cedar", "dogwood")
"""Names that stand nowhere else on a page."""
STUDY = """
name = "{name}"
purpose = "To see what Cedar and birch gain"
[dataset]
name = "{dataset}"
sites = ["alder", "birch", "cedar", "dogwood"]
[expected]
global = 0.7777
"""
RUNS = ("plain", "thrice", "pair", "failed", "refused", "named-data", "noted", "elsewhere")
"""What the eight runs are: the last one is of other sites."""


GAINS = {"alder": 0.1, "birch": 0.2, "cedar": 0.3, "dogwood": 0.06}
OWN, ALL, REACH, STEP = 0.4, 0.8, 0.004, 0.003
"""AUC of each site's own model, that of the shared model over all sites, half an interval, and from run to run."""


def gain_of(run: str, site: str) -> float:
    """Return the gain at a site: no two sites have figures near one another."""
    return GAINS[site] + STEP * RUNS.index(run)


def is_of(figure: float, site: str) -> bool:
    """Return whether a figure can only be the gain or the AUC of a site, or a bound of one."""
    return any(-0.0065 <= figure - start <= 0.0065 + STEP * len(RUNS) for start in (GAINS[site], OWN + GAINS[site]))


def is_over_all(figure: float) -> bool:
    """Return whether a figure can only be the AUC over all sites, or their mean gain."""
    means = sum(GAINS.values()) / 4
    return 0 <= figure - ALL <= STEP * len(RUNS) or -0.001 <= figure - means <= STEP * len(RUNS)


def comparison(run: str, sites: Sequence[str]) -> tuple[list[ComparisonRow], list[DifferenceRow]]:
    over_all = ALL + STEP * RUNS.index(run)
    figures, differences = [ComparisonRow(None, "global", AUC, over_all, over_all, over_all)], []
    for site in sites:
        gain = gain_of(run, site)
        for arm, value in (("global", OWN + gain), ("local-only", OWN)):
            figures.append(ComparisonRow(site, arm, AUC, value, value - REACH, value + REACH, 100))
        differences.append(DifferenceRow(site, "global", "local-only", AUC, gain, gain - REACH, gain + REACH, 0.01))
    return figures, differences


def write(store: RunStore, name: str) -> str:
    """Write one of the eight runs and return its id."""
    sites = {"pair": CLINICS[:2], "elsewhere": CLINICS[2:]}.get(name, CLINICS)
    repeats = 3 if name == "thrice" else 1
    data = "cedar" if name == "named-data" else "trees"
    series = store.begin_series(
        study=f"study-{name}", study_sha256="", study_text=STUDY.format(name=name, dataset=data), repeats=repeats
    )
    begun: dict[str, Any] = {"engine": "inprocess", "path": "p", "rounds_planned": 2, "primary": AUC, "task": "binary"}
    for repeat in range(repeats):
        run = store.begin_run(series, repeat=repeat, seed=repeat, **begun)
        for place, site in enumerate(sites):
            refused = name == "refused" and site == "birch"
            row = SiteRow(site, title=f"Clinic {site.title()}", rows=1001 * (place + 1), holdout_rows=100)
            run.sites([replace(row, status="refused", reason="birch has 7 rows") if refused else row])
        for number in (1, 2):
            run.round(number, events=[EventRow(number, None, "note", "cedar and birch were late")])
        if name == "failed":
            run.finish(status="failed", reason="cedar: no answer; birch: 3 good updates of 4")
        else:
            compared = [site for site in sites if not (name == "refused" and site == "birch")]
            run.comparison(*comparison(name, compared))
            run.finish(status="completed", seconds=1.0)
        if name == "noted":
            store.note([run.run], "#birch as cedar wanted it", by="chief")
    return series


@pytest.fixture
def ids(shown: str, store: RunStore, tmp_path, monkeypatch) -> dict[str, str]:
    """The ids of the eight runs, in a store whose app lets four readers in."""
    roles = tmp_path / "roles.toml"
    roles.write_text(ROLES)
    monkeypatch.setenv("FLFED_ROLES", str(roles))
    return {name: write(store, name) for name in RUNS}


def opened(person: str, **address: str) -> AppTest:
    """Return the list of runs as a person sees it who logged in."""
    page = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    page.user = {"is_logged_in": True, "email": person, "email_verified": True, "name": person}
    page.query_params.update(address)
    return page.run()


def seen_by(person: str, ids: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yield each place and all that a person reads there."""
    page = opened(person)
    assert not page.exception
    rows = listed_rows(page)
    yield "list", words(page) + json.dumps([page_data(page), rows])
    page.switch_page(str(page_files()["overview"]))
    for row in rows:
        page.query_params["run"] = row["id"]
        page.run()
        assert not page.exception
        yield f"overview {row['cells']['study']['text']}", words(page) + " ".join(map(str, page.get("vega_lite_chart")))
    for pair in (("plain", "thrice"), ("pair", "refused"), ("noted", "elsewhere")):
        page = opened(person, compare=",".join(ids[name] for name in pair))
        assert not page.exception
        yield f"comparison {pair}", words(page)


def page_data(page: AppTest) -> list[str]:
    """Return the titles and filters that the browser gets with the rows."""
    tables = [json.loads(element.proto.json) for element in page.main if element.type == "bidi_component"]
    return [json.dumps([table["columns"], table["filters"], table["compared"]]) for table in tables]


def leaks(site: str, text: str) -> set[str]:
    """Return what of other sites is in a text: names, numbers of rows, gains and AUCs with their bounds."""
    others = [name for name in CLINICS if name != site]
    found = {name for name in others if name in text.lower()} | set(re.findall(r"0\.7777|\b10,?010\b", text))
    for digits in re.findall(r"\b0\.\d{3,}", text):
        figure = float(digits)
        found |= {f"{digits} of {name}" for name in others if is_of(figure, name)}
        if is_over_all(figure):
            found.add(f"{digits} over all")
    for place, name in enumerate(CLINICS):
        if name != site and re.search(rf"\b{place + 1},?{place + 1:03d}\b", text):
            found.add(f"rows of {name}")
    return found


@pytest.mark.parametrize("site", ["alder", "birch"])
def test_people_of_one_site_read_nothing_of_another_in_list_overview_and_comparison(ids, site):
    texts = dict(seen_by(f"it@{site}.example", ids))
    assert {place: found for place, text in texts.items() if (found := leaks(site, text))} == {}
    assert sorted(place for place in texts if place.startswith("overview")) == sorted(
        f"overview study-{name}" for name in RUNS[:-1]
    )
    own = texts["list"] + texts["comparison ('plain', 'thrice')"]
    for run in ("plain", "thrice", "pair", "named-data", "noted"):
        assert f"+{gain_of(run, site):.3f}" in own, run
    assert f"{OWN + gain_of('plain', site):.3f}" in own
    assert f"Gain at {site}" in own


@pytest.mark.parametrize("person", ["chief", "ana"])
def test_coordinator_and_analyst_read_all_of_it(ids, person):
    texts = dict(seen_by(f"{person}@a.example", ids))
    assert len([place for place in texts if place.startswith("overview")]) == len(RUNS)
    for name in CLINICS[1:]:
        assert name in texts["overview study-plain"]
    assert "birch" in texts["list"] and "cedar" in texts["list"]
    rows = {row["cells"]["study"]["text"]: row for row in listed_rows(opened(f"{person}@a.example"))}
    assert rows["study-noted"]["tags"] == ["birch"]
    assert rows["study-plain"]["cells"]["rows"]["text"] == "10,010"
    # The sites' errors are alike, so that the mean over sites is their plain mean.
    assert rows["study-plain"]["cells"]["gain"]["value"] == pytest.approx(sum(GAINS.values()) / 4, abs=1e-3)
    verdicts = [rows[f"study-{name}"]["cells"]["verdict"]["text"] for name in ("plain", "failed", "pair")]
    assert verdicts == ["no clear improvement", "not compared", "inconclusive"]


def test_the_search_for_leaks_finds_a_planted_name_and_a_planted_gain(ids, monkeypatch):
    # As if the list were read for everybody and only then shown to one site's people.
    with RunReader.open() as reader:
        whole = {line["run"]: line for line in run_list(reader)["series"]}
    shown = run_table.row_of
    for key, expected in (("note", "cedar"), ("gain", "of cedar")):

        def planted(line: dict[str, Any], key: str = key) -> dict[str, Any]:
            if key == "gain":
                leak = {"gain": line["gain"] | {"value": gain_of("plain", "cedar")}}
            else:
                leak = {key: whole[line["run"]][key]}
            return shown(line | leak)

        monkeypatch.setattr(run_table, "row_of", planted)
        found = leaks("alder", dict(seen_by_list("it@alder.example"))["list"])
        assert any(expected in leak for leak in found), key


def seen_by_list(person: str) -> Iterator[tuple[str, str]]:
    """Yield the list alone, as `seen_by` does."""
    page = opened(person)
    yield "list", words(page) + json.dumps(listed_rows(page))
