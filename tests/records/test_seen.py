"""What one institution's people see of a store: their own, and sums over enough sites; nothing of another."""

import json
from dataclasses import asdict

import pytest

from flfed.records import rounds as by_database
from flfed.records.entries import ComparisonRow, EventRow, LearningPoint, MetricRow
from flfed.records.reading import RunReader
from flfed.records.reports import report, run_list
from flfed.records.seen import of_summary

AUC = "roc_auc_score"
OTHERS = ("cleveland", "long-beach", "switzerland", "basel")
COUNTS = {"0": [[3, 7]], "1": [[9, 8]]}
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


def test_a_site_sees_its_own_and_sums_and_nothing_of_another(full: str):
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
    assert list(own["sites"]) == ["hungary"]
    assert own["sites"]["hungary"] == whole["sites"]["hungary"]
    assert own["global"] == whole["global"]
    assert own["global"][AUC]["value"] == 0.896


def test_of_two_sites_no_sum_is_shown_as_each_would_have_the_other(store, url, monkeypatch):
    monkeypatch.setenv("FLFED_STORE", url)
    series = store.begin_series(study="pair", study_sha256="", study_text="")
    run = store.begin_run(series, engine="inprocess", path="", seed=1, rounds_planned=1, primary=AUC, task="binary")
    for site in ("a", "b"):
        run.site(site, rows=100, holdout_rows=30)
    run.site("c", status="refused", reason="no")
    run.round(1, metrics=[MetricRow(None, "training", AUC, 0.8), MetricRow("a", "training", AUC, 0.7)])
    run.comparison([ComparisonRow(None, "global", AUC, 0.8), ComparisonRow("a", "global", AUC, 0.7)], [])
    run.summary("columns", SUMMARIES["columns"])
    run.summary(
        "table-1", {"rows": [{"Characteristic": "Rows", "All sites": "200", "a": "100", "b": "100"}], "note": ""}
    )
    with RunReader.open(only="a") as reader:
        assert [row.value for row in reader.figures(run.run)] == [0.7]
        assert [point.value for point in reader.curves([run.run], arm="training", metric=AUC)] == [0.7]
        assert reader.headlines([run.run]) == {}
        assert reader.summary(run.run, "columns") is None
        assert reader.summary(run.run, "table-1")["rows"] == [{"Characteristic": "Rows", "a": "100"}]
    with RunReader.open() as reader:
        assert len(reader.figures(run.run)) == 2


def test_a_run_that_the_site_was_not_asked_in_is_not_there(full: str):
    with RunReader.open(only="vienna") as reader:
        assert reader.runs() == []
        with pytest.raises(Exception, match="is not in the store"):
            reader.runs_of(full)
    with RunReader.open(only="hungary") as reader:
        assert [run.run for run in reader.runs()] == [full]
        assert [run.run for run in reader.runs(search="heart")] == [full]


def test_what_is_not_known_here_is_kept_back():
    assert of_summary("something-new", {"x": 1}, "a", enough=True, plain=str) is None
    assert of_summary("encoder", {"sha256": "ab"}, "a", enough=True, plain=str) == {"sha256": "ab"}


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
