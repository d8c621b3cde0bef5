"""What one institution's people see of a store: their own figures, and nothing that others went into."""

import json
import tomllib
from dataclasses import asdict

import numpy as np
import pytest

from flfed.records.reports import round_totals as by_database
from flfed.records.reports.catalogue import run_list
from flfed.records.reports.report import REFERENCES, primary_of, purpose_of, report
from flfed.records.store.entries import EventEntry, EventRow, SentRow, SiteRow
from flfed.records.store.reader import RunReader
from flfed.records.store.visibility import LARGER, TRAINING_ONLY, of_event, of_summary
from flfed.updates.aggregation.guard import guard
from flfed.updates.messages.train import TrainReply
from flfed.words import render

MORE_SPENT = "More than planned may have been spent"
NO_TABLE_1 = "no Table 1"

AUC = "roc_auc_score"
OTHERS = ("cleveland", "long-beach", "switzerland", "basel")
COUNTS = {"0": [[3, 7]], "1": [[9, 8]]}
CLEVELAND = {"cleveland": "303"}
FOLLOWS = ["Who has several rows has less: the promise is for one row."]  # from the study alone
SUMMARIES = {
    "score-histograms": {
        "bins": 256, "limit": 12.0, "sites": {"hungary": COUNTS, "cleveland": {"0": [[1, 77771]], "1": []}},
        "all": COUNTS, "combined-sites": 4, "requested-sites": 4,
    },
    "columns": {
        "columns": [{"column": "age", "unit": "", "towards": "", "sites": {
            site: {"rows": 10, "missing": place, "difference": 0.1, "chance": 0.2, "reason": ""}
            for place, site in enumerate(("hungary", "cleveland", "long-beach"))
        }}],
        "note": f"{TRAINING_ONLY}: cleveland, hungary. cleveland shares none of its 77776 rows.",
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
    run.summary("privacy", payload | {"warnings": [*FOLLOWS, f"{MORE_SPENT}: at 1 of 3 sites, 1.77773"]})
    run.summary("table-1", {"rows": [{"Characteristic": "Rows", "All sites": "920", "hungary": "294"} | CLEVELAND]})
    run.summary("leaks", {"warnings": ["slope: AUC 0.77774 over all rows"]})
    run.events([EventRow(None, None, kind, "moved by 0.77775 over all holdouts") for kind in ("note", "fault", "leak")])
    run.events([EventRow(2, "hungary", "flag", "cleveland: late; hungary: in time")])
    store.audit(heart, attacks)
    return heart


def everything(run: str, only: str | None) -> str:
    """All that a reader may read of a run, as text."""
    with RunReader.open(only=only) as reader:
        found = [report(reader, run), run_list(reader), reader.bytes_sent([run]), reader.headlines([run])]
        found += [reader.summary(run, name) for name in ("table-1", "leaks", "privacy", *SUMMARIES)]
        for rows in (
            reader.sites(run), reader.events([run]), reader.crossed([run]), reader.audits(run), reader.figures(run),
            reader.differences(run), reader.curves([run], arm="training", metric=AUC),
            by_database.participation(reader, [run]),
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
    for number in range(1, 7):
        assert f"7777{number}" in all_of_it
    assert "7777" not in seen
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
        kept = {name: reader.summary(full, name) for name in ("table-1", "columns", "score-histograms", "privacy")}
    assert [row.site for rows in read for row in rows if row.site != "hungary"] == []
    assert sum(map(len, read)) > 10
    assert kept["table-1"]["rows"] == [{"Characteristic": "Rows", "hungary": "294"}]
    assert kept["columns"]["note"] == f"{TRAINING_ONLY}."
    own = {"rows": 10, "missing": 0, "difference": None, "chance": None, "reason": render("store.hidden.others")}
    assert [column["sites"] for column in kept["columns"]["columns"]] == [{"hungary": own}]
    assert kept["score-histograms"]["all"] is None
    assert kept["privacy"]["warnings"] == FOLLOWS
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


def test_a_line_that_is_there_for_others_missing_values_is_not():
    lines = ({"Characteristic": f"{name}: missing", "a": cell} for name, cell in (("x", "0 (0 %)"), ("y", "2 (5 %)")))
    seen = of_summary("table-1", {"rows": [{"Characteristic": "Rows", "a": "40"}, *lines]}, "a", plain=str)
    assert [row["a"] for row in seen["rows"]] == ["40", "2 (5 %)"]


def test_what_is_not_known_here_is_kept_back():
    assert of_summary("something-new", {"x": 1}, "a", plain=str) is None
    assert of_summary("leaks", {"warnings": ["slope"], "found": []}, "a", plain=str) is None
    assert of_summary("encoder", {"sha256": "of sums over all sites"}, "a", plain=str) is None
    new = {"at-cleveland": 77773, "column-sums": [77774]}
    for name, payload in {**SUMMARIES, "privacy": {"sites": {}}, "table-1": {"rows": []}}.items():
        seen = of_summary(name, payload | new, "hungary", plain=str)
        assert "7777" not in json.dumps(seen), name
    assert of_summary("privacy", {"epsilon": 2.5} | new, "hungary", plain=str) == {
        "epsilon": 2.5, "sites": {}, "warnings": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    "note", ["", f"{TRAINING_ONLY}: b, c.", "a is late.", "b shares no figures of its own: a does."]
)
def test_a_note_on_the_rows_of_others_is_not_told(note):
    assert of_summary("table-1", {"rows": [], "note": note}, "a", plain=str) == {"rows": [], "note": ""}


@pytest.mark.parametrize("status", ["stopped", "failed", "running", "completed"])
def test_why_a_run_stopped_tells_no_fault_of_another_site(store, url, monkeypatch, status):
    # Of two sites "another site" is that one: the words of the record are not told, whatever they name.
    monkeypatch.setenv("FLFED_STORE", url)
    series = store.begin_series(study="s", study_sha256="", study_text="")
    run = store.begin_run(series, engine="inprocess", path="", seed=1, rounds_planned=9, primary=AUC, task="binary")
    for site in ("a-1", "a-2"):
        run.sites([SiteRow(site)])
    reason = "privacy budget: none left at a-1; round 3 had 1 good updates of 3"
    run.events([EventRow(3, None, "note", f"resumed after round 3; before: {reason}")])
    if status != "running":
        run.finish(status=status, reason=reason)
    with RunReader.open(only="a-2") as reader:
        (seen,) = reader.runs()
        assert reader.events([run.run]) == []
    assert seen.reason == {"stopped": render("store.ended.stopped"), "failed": render("store.ended.failed")}.get(
        status, ""
    )
    assert (seen.status, seen.rounds, seen.rounds_planned) == (status, 0, 9)
    with RunReader.open() as reader:
        assert [run.reason for run in reader.runs()] == [reason if status != "running" else ""]


def test_what_the_guard_says_beside_the_other_sites_is_cut():
    incoming = {"w": np.zeros(4, dtype=np.float32)}

    def said(*sizes: float) -> list[str]:
        replies = {
            f"s{place}": TrainReply(
                kind="delta", delta={"w": np.full(4, size, dtype=np.float32)}, num_examples=10, steps=1, loss=0.1
            )
            for place, size in enumerate(sizes)
        }
        found = guard(replies, incoming, dict.fromkeys(replies, 100), flag=3.0, refuse=10.0)
        return [*found.flagged.values(), *found.refused.values()]

    reasons = [*said(1, 1, 4.7), *said(1, 1, 47), *said(0, 0, 1)]
    assert [["4.7" in text, "47.0" in text, "zero" in text] for text in reasons] == np.eye(3, dtype=bool).tolist()
    for reason in [*reasons, f"{reasons[0]} of b"]:
        event = EventEntry("r", "", 3, "s2", "flag", reason)
        assert of_event(event, plain=str).reason == LARGER
    for reason in ("norm of the update is not finite", "the delta has 3 values", "its ledger begins anew"):
        assert of_event(EventEntry("r", "", 3, "s2", "fault", reason), plain=str).reason == reason


@pytest.mark.parametrize("kind", ["note", "fault", "leak", "refused", "flag", "holdout-opened"])
def test_of_the_whole_run_only_that_something_is_missing_is_told(kind):
    seen = of_event(EventEntry("r", "", 3, None, kind, f"{NO_TABLE_1}: site b has 7 rows", "no-table-1"), plain=str)
    assert (seen and seen.reason) == (f"{NO_TABLE_1}: ask the coordinator why" if kind == "note" else None)
    for other in ("no pooled reference: b", "moved AUC by +0.0123", "no Table 1", "b: no Table 1: c"):
        assert of_event(EventEntry("r", "", 3, None, kind, other), plain=str) is None


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
        run.sites([SiteRow("a-2", reason="its rows are those of Vienna")])
    runs[0].summary("asked", {"names": ["a-2", "geneva"], "sites": None, "given": False})
    runs[0].sent(0, [SentRow("jena", "to-site", "enrol", 10)])
    others = "basel, jena, LYON, geneva: not online; University Hospital: left; a-2: there"
    runs[1].events([EventRow(2, "lyon", "fault", "late"), EventRow(2, "a-2", "fault", others)])
    runs[1].sites([SiteRow("oslo", title="University Hospital")])
    for run in runs:
        run.finish(status="failed", reason=others)
    with RunReader.open(only="a-2") as reader:
        whole = report(reader, series)
        text = reader.series(series).study_text
        said = json.dumps([whole, text, [asdict(event) for event in reader.events([run.run for run in runs])]])
    for name in ("a-1", "basel", "vienna", "geneva", "jena", "lyon", "oslo", "university", "7777"):
        assert name not in said.lower(), name
    assert whole["reason"] == f"repeat 1: {render('store.ended.failed')}"
    assert said.count("another site, another site, another site, another site: not online; another site: left") == 2
    assert "a-2: there" in said
    assert purpose_of(text) == "To see what another site and a-2 gain"
    assert tomllib.loads(text)["compare"] == {"curve": {"rows": [10, 20], "draws": 20}}
    assert tomllib.loads(text)["dataset"] == {"name": "cohort"}
    with RunReader.open() as reader:
        assert reader.series(series).study_text == STUDY
