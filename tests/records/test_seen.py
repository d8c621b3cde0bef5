"""What one institution's people see of a store: their own figures, and nothing that others went into."""

import json
import tomllib
from dataclasses import asdict

import pytest

from flfed.records import rounds as by_database
from flfed.records.entries import EventRow, LearningPoint, SentRow
from flfed.records.reading import RunReader
from flfed.records.reports import REFERENCES, primary_of, purpose_of, report, run_list
from flfed.records.seen import NO_OTHERS, of_summary

AUC = "roc_auc_score"
OTHERS = ("cleveland", "long-beach", "switzerland", "basel")
COUNTS = {"0": [[3, 7]], "1": [[9, 8]]}
CLEVELAND = {"cleveland": "303"}
SUMMARIES = {
    "score-histograms": {
        "bins": 256, "limit": 12.0, "sites": {"hungary": COUNTS, "cleveland": {"0": [[1, 77771]], "1": []}},
        "all": COUNTS, "in-all": 4, "asked": 4,
    },
    "columns": {
        "columns": [{"column": "age", "unit": "", "towards": "", "sites": {
            site: {"rows": 10, "missing": place, "difference": 0.1, "chance": 0.2, "reason": ""}
            for place, site in enumerate(("hungary", "cleveland", "long-beach"))
        }}],
        "note": "of Hospital Cleveland training rows only",
    },
    "something-new": {"cleveland": 77772},
}  # fmt: skip


@pytest.fixture
def full(store, heart: str, url, monkeypatch, payload, attacks) -> str:
    """A run with everything that the pages show."""
    monkeypatch.setenv("FLFED_STORE", url)
    run = store.added_to(heart)
    for name, summary in SUMMARIES.items():
        run.summary(name, summary)
    run.summary("privacy", payload | {"warnings": ["long-beach has spent most"]})
    run.summary("table-1", {"rows": [{"Characteristic": "Rows", "All sites": "920", "hungary": "294"} | CLEVELAND]})
    run.events(
        [EventRow(None, None, "note", "cleveland: late; hungary: in time"), EventRow(2, "hungary", "flag", "odd")]
    )
    points = [LearningPoint(site, 10, 20, "global", AUC, 0.7, 0.6, 0.8) for site in ("cleveland", "hungary")]
    run.learning_curve(points)
    store.audit(heart, attacks)
    return heart


def everything(run: str, only: str | None) -> str:
    """All that a reader may read of a run, as text."""
    with RunReader.open(only=only) as reader:
        found = [report(reader, run), run_list(reader), reader.bytes_sent([run]), reader.headlines([run])]
        found += [reader.summary(run, name) for name in ("table-1", "leaks", "privacy", *SUMMARIES)]
        for rows in (
            reader.sites(run), reader.events([run]), reader.crossed([run]), reader.audits(run), reader.figures(run),
            reader.differences(run), reader.learning_curve(run), reader.curves([run], arm="training", metric=AUC),
            by_database.participation(reader, [run], rounds=40, width=5),
        ):  # fmt: skip
            found.append([asdict(row) for row in rows])
        found.append([row._asdict() for row in reader.metrics(run, 5)])
    return json.dumps(found, default=str)


def test_a_site_sees_its_own_and_nothing_of_another(full: str):
    seen, all_of_it = everything(full, "hungary"), everything(full, None)
    for name in OTHERS:
        assert all_of_it.count(name) > 2
        assert name not in seen.lower()
    assert "another site: late; hungary: in time" in seen
    assert "7777" in all_of_it and "7777" not in seen
    assert seen.count("hungary") > 50


def test_its_figures_are_those_of_the_whole_record(full: str):
    with RunReader.open() as reader:
        whole = report(reader, full)
    with RunReader.open(only="hungary") as reader:
        own = report(reader, full)
        assert reader.headlines([full]) == {full: 0.871}
    assert list(own["sites"]) == ["hungary"]
    assert own["sites"]["hungary"] == whole["sites"]["hungary"]
    assert primary_of(own) == primary_of(whole) == AUC


def test_no_figure_is_read_that_others_went_into(full: str):
    # Whoever has a sum takes their own off it: of three sites of which one shares sums only, or of two
    # runs of which one has a site more, what is left is one other site's.
    with RunReader.open(only="hungary") as reader:
        found = report(reader, full)
        assert {arm: found[arm] for arm in REFERENCES if found[arm]} == {}
        read = [reader.figures(full), reader.differences(full), reader.audits(full), reader.metrics(full, 5)]
        read += [reader.curves([full], arm="training", metric=AUC, sites=[])]
        kept = {name: reader.summary(full, name) for name in ("table-1", "columns", "score-histograms")}
    assert [row.site for rows in read for row in rows if row.site != "hungary"] == []
    assert sum(map(len, read)) > 10
    assert kept["table-1"]["rows"] == [{"Characteristic": "Rows", "hungary": "294"}]
    own = {"rows": 10, "missing": 0, "difference": None, "chance": None, "reason": NO_OTHERS}
    assert [column["sites"] for column in kept["columns"]["columns"]] == [{"hungary": own}]
    assert kept["score-histograms"]["all"] is None
    with RunReader.open() as reader:
        everyone = [*reader.figures(full), *reader.curves([full], arm="training", metric=AUC)]
    assert sum(row.site is None for row in everyone) > 40


def test_a_run_that_the_site_was_not_asked_in_is_not_there(full: str):
    with RunReader.open(only="vienna") as reader:
        assert reader.runs() == []
        with pytest.raises(Exception, match="is not in the store"):
            reader.runs_of(full)
    with RunReader.open(only="hungary") as reader:
        assert [run.run for run in reader.runs()] == [full]
        assert [run.run for run in reader.runs(search="heart")] == [full]


def test_what_is_not_known_here_is_kept_back():
    assert of_summary("something-new", {"x": 1}, "a", plain=str) is None
    assert of_summary("encoder", {"sha256": "of sums over all sites"}, "a", plain=str) is None
    new = {"at-cleveland": 77773, "column-sums": [77774]}
    for name, payload in {**SUMMARIES, "privacy": {"sites": {}}, "leaks": {}, "table-1": {"rows": []}}.items():
        seen = of_summary(name, payload | new, "hungary", plain=str)
        assert "7777" not in json.dumps(seen), name
    assert of_summary("privacy", {"epsilon": 2.5} | new, "hungary", plain=str) == {"epsilon": 2.5, "sites": {}}


def test_why_a_run_stopped_names_no_other_site(store, url, monkeypatch):
    monkeypatch.setenv("FLFED_STORE", url)
    series = store.begin_series(study="s", study_sha256="", study_text="")
    run = store.begin_run(series, engine="inprocess", path="", seed=1, rounds_planned=9, primary=AUC, task="binary")
    for site in ("a-1", "a-2", "a-3"):
        run.site(site)
    run.finish(status="stopped", reason="round 1 had 0 good updates of 3 (a-1: not finite; a-2: not finite)")
    with RunReader.open(only="a-2") as reader:
        (seen,) = reader.runs()
    assert seen.reason == "round 1 had 0 good updates of 3 (another site: not finite; a-2: not finite)"
    assert (seen.rounds, seen.rounds_planned) == (0, 9)


STUDY = """
# Geneva has 77775 rows
name = "s"
purpose = "To see what Vienna and a-2 gain"
[dataset]
name = "cohort"  # of basel too
sites = ["a-1", "a-2", "basel", "vienna"]
[compare.curve]
rows = [10, 20]
draws = 20
[expected]
global = 0.77776
"""


def test_no_text_names_a_site_that_never_came(store, url, monkeypatch):
    monkeypatch.setenv("FLFED_STORE", url)
    series = store.begin_series(study="s", study_sha256="", study_text=STUDY, repeats=2)
    runs = []
    for repeat in range(2):
        run = store.begin_run(
            series, repeat=repeat, engine="deployment", path="", seed=1, rounds_planned=9, primary=AUC, task="binary"
        )
        runs.append(run)
        run.site("a-2", reason="its rows are those of Vienna")
    runs[0].summary("asked", {"names": ["a-2", "geneva"], "sites": None, "given": False})
    runs[0].sent(0, [SentRow("jena", "to-site", "enrol", 10)])
    runs[1].events([EventRow(2, "lyon", "fault", "late"), EventRow(None, None, "note", "without Geneva, a-2, oslo")])
    runs[1].site("oslo", title="University Hospital")
    reason = "only one site takes part (basel, jena, LYON, geneva: not online; University Hospital: left; a-2: there)"
    for run in runs:
        run.finish(status="failed", reason=reason)
    with RunReader.open(only="a-2") as reader:
        whole = report(reader, series)
        text = reader.series(series).study_text
        said = json.dumps([whole, text, [asdict(event) for event in reader.events([run.run for run in runs])]])
    for name in ("a-1", "basel", "vienna", "geneva", "jena", "lyon", "oslo", "university", "7777"):
        assert name not in said.lower(), name
    assert whole["reason"].count("another site") == 5
    assert "a-2: there" in whole["reason"]
    assert purpose_of(text) == "To see what another site and a-2 gain"
    assert tomllib.loads(text)["compare"] == {"curve": {"rows": [10, 20], "draws": 20}}
    assert tomllib.loads(text)["dataset"] == {"name": "cohort"}
    with RunReader.open() as reader:
        assert reader.series(series).study_text == STUDY
