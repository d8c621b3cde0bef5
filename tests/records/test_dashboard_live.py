"""A page keeps up with a run, and says in words how a run stands that has nothing to compare; by AppTest."""

import csv
import io
import subprocess
from pathlib import Path

import pytest
from sqlalchemy import update
from streamlit.testing.v1 import AppTest

from flfed.records.dashboard.refresh import LOOK_SECONDS, SLOW_SECONDS, course_of, course_of_list, mark_of
from flfed.records.store.database import engine_to_write, store_url
from flfed.records.store.entries import EventRow, MetricRow, SiteRow
from flfed.records.store.reader import RunReader
from flfed.records.store.tables import Run
from tests.records.test_dashboard import listed_rows

pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,  # the app itself, run many times
    pytest.mark.usefixtures("shown"),
]

ROOT = Path(__file__).parents[2]
AUC = "roc_auc_score"


def app() -> AppTest:
    return AppTest.from_file(str(ROOT / "app.py"), default_timeout=60).run()


def overview(run: str, name: str = "p20_overview", **asked: str) -> AppTest:
    page = app()
    page.switch_page(str(ROOT / f"flfed/records/dashboard/pages/{name}.py"))
    for key, value in {"run": run, **asked}.items():
        page.query_params[key] = value
    page.run()
    assert not page.exception
    return page


def words(page: AppTest) -> str:
    blocks = [*page.title, *page.markdown, *page.caption, *page.info, *page.warning, *page.error, *page.text]
    return "\n".join(str(block.value) for block in blocks).replace("\\", "")


def begin(store, *, text: str = "", repeats: int = 1, study: str = "heart-disease", series: str = "", repeat: int = 0):
    series = series or store.begin_series(study=study, study_sha256="", study_text=text, repeats=repeats)
    return store.begin_run(
        series, repeat=repeat, engine="inprocess", path="", seed=1, rounds_planned=40, primary=AUC, task="binary"
    )


def die(url: str, run: str) -> None:
    """Let it look as if the process that writes `run` were gone."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    engine = engine_to_write(store_url(url))
    with engine.begin() as connection:
        connection.execute(update(Run).where(Run.id == run).values(pid=gone.pid, process="1"))
    engine.dispose()


def runs_of(name: str):
    with RunReader.open() as reader:
        return reader.runs_of(name)


def test_a_page_looks_often_while_a_run_runs_and_not_at_all_once_it_ended(store, url):
    run = begin(store)
    assert course_of(runs_of(run.run)) == (LOOK_SECONDS, (run.run,))
    assert LOOK_SECONDS < 2
    die(url, run.run)
    assert course_of(runs_of(run.run)) == (SLOW_SECONDS, (run.run,))
    for status, seconds in (("stopped", None), ("failed", None), ("completed", None)):
        run.finish(status=status)
        assert course_of(runs_of(run.run)) == (seconds, (run.run,))


def test_a_page_waits_for_the_next_repeat_of_a_series(store):
    first = begin(store, repeats=2)
    series = runs_of(first.run)[0].series
    first.finish(status="completed")
    assert course_of(runs_of(series)) == (SLOW_SECONDS, (first.run,))
    second = begin(store, series=series, repeat=1)
    assert course_of(runs_of(series)) == (LOOK_SECONDS, (first.run, second.run))
    second.finish(status="completed")
    assert course_of(runs_of(series)) == (None, (first.run, second.run))


def test_the_list_looks_for_new_runs_at_times_and_often_while_one_runs(store, heart):
    with RunReader.open() as reader:
        assert course_of_list(reader) == (SLOW_SECONDS, (heart,))
    run = begin(store)
    with RunReader.open() as reader:
        assert course_of_list(reader) == (LOOK_SECONDS, (run.run, run.run))


def test_a_mark_changes_with_each_round_and_with_the_end(store):
    run = begin(store)
    marks = [mark_of(runs_of(run.run))]
    for number in (1, 2):
        run.round(number)
        marks.append(mark_of(runs_of(run.run)))
    run.finish(status="completed")
    marks.append(mark_of(runs_of(run.run)))
    assert [mark[0][1:3] for mark in marks] == [(0, "running"), (1, "running"), (2, "running"), (2, "completed")]
    assert len(set(marks)) == 4


def test_what_was_read_is_kept_until_the_next_round(store):
    run = begin(store)
    run.round(1)
    page = overview(run.run)
    run.events([EventRow(1, "cleveland", "flag", "an odd thing")])
    page.run()
    assert "an odd thing" not in str([table.value for table in page.table])
    run.round(2)
    page.run()
    assert "an odd thing" in str([table.value for table in page.table])


def test_a_running_run_shows_how_far_it_is(store):
    run = begin(store, repeats=2)
    series = runs_of(run.run)[0].series
    page = overview(series)
    for number, share in ((10, 25), (20, 50)):
        run.round(number)
        page.run()
        bar = page.get("progress")[0].proto
        assert (bar.text, bar.value) == (f"Repeat 1 of 2. Round {number} of 40", share)
    run.finish(status="completed")
    begin(store, series=series, repeat=1).round(10)
    page = overview(series)
    assert page.get("progress")[0].proto.value == 37  # (20 + 10) of 80 rounds, as whole percents
    assert "compared after the last round" in words(page)


def test_the_list_shows_running_runs_first_with_their_rounds(store, write):
    run = begin(store, study="long-one")
    series = store.begin_series(study="newer", study_sha256="", study_text="")
    write(store, series, rounds=40)
    page = app()
    for number in (3, 4):
        run.round(number)
        page.run()
        first, second = [row["cells"]["status"] for row in listed_rows(page)]
        assert (first["text"], first["below"]) == ("running", [f"{number} of 40 rounds"])
        assert second["text"] == "completed"


def test_an_interrupted_run_says_so_with_the_command_to_go_on(store, url):
    run = begin(store)
    run.round(7)
    die(url, run.run)
    for page in (overview(run.run), app()):
        assert f"`flfed study resume {run.run}`" in words(page)
    (row,) = listed_rows(app())
    assert row["cells"]["status"]["text"] == "interrupted: its program ended"
    assert "Nothing was compared yet" in words(overview(run.run))


def test_of_several_repeats_the_interrupted_one_is_resumed(store, url):
    first = begin(store, repeats=2)
    series = runs_of(first.run)[0].series
    first.finish(status="completed")
    second = begin(store, series=series, repeat=1)
    die(url, second.run)
    assert f"`flfed study resume {series}-r02`" in words(overview(series))


@pytest.mark.parametrize(("study", "status", "reason", "says", "never"), [
    ("s", "stopped", "2 of 4 sites answered, the quorum is 3", "the quorum is 3. Once the cause", "drawn"),
    ("s", "failed", "the disk is full", "Nothing was compared: the run failed first.", "drawn"),
    ("s-sweep", "completed", "", "This run has no comparison with site models.", "flfed study resume"),
    ("s-sweep", "stopped", "1 of 4 sites answered", "Why it is stopped: 1 of 4", "flfed study resume"),
])  # fmt: skip
def test_a_run_without_comparison_says_why_and_draws_nothing_empty(store, study, status, reason, says, never):
    run = begin(store, study=study)
    run.sites([SiteRow("cleveland", rows=303)])
    run.finish(status=status, reason=reason)
    for page in (overview(run.run), overview(run.run, "p30_sites")):
        said = words(page)
        assert says in said
        assert never not in said
        for empty in ("No figures yet", "Round by round", "own rows?"):
            assert empty not in said
        assert len(page.get("vega_lite_chart")) == 0


def test_a_figure_that_only_sites_have_is_drawn_alone(store):
    run = begin(store)
    run.round(1, metrics=[MetricRow("cleveland", "training", AUC, 0.8)])
    run.sites([SiteRow("cleveland")])
    page = overview(run.run, "p50_rounds")
    assert "**Each site**" in words(page)
    assert len(page.get("vega_lite_chart")) >= 1
    assert not any("all sites together" in chart.proto.alt for chart in page.get("vega_lite_chart"))
    assert "no figure over all sites together by round" in words(overview(run.run))


def test_a_download_holds_no_formula():
    from flfed.records.dashboard.sections import csv_of

    text = csv_of([{"site": "=cmd|' /C calc'!A0", "value": -0.1}])
    lines = list(csv.reader(io.StringIO(text)))
    assert lines[0] == ["site", "value"] and lines[1][0].startswith("'=cmd")
    assert float(lines[1][1]) == -0.1  # a negative number stays a number
