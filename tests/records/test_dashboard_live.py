"""A page keeps up with a run, and says in words how a run stands that has nothing to compare; by AppTest."""

import csv
import io
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import update
from streamlit.testing.v1 import AppTest

from flfed.records.dashboard.refresh import LOOK_SECONDS, SLOW_SECONDS, course_of, course_of_list, mark_of
from flfed.records.store.database import engine_to_write, store_url
from flfed.records.store.entries import EventRow, LearningPoint, MetricRow
from flfed.records.store.reader import RunReader
from flfed.records.store.tables import Run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,  # the app itself, run many times
    pytest.mark.usefixtures("shown"),
]

ROOT = Path(__file__).parents[2]
AUC, LOSS = "roc_auc_score", "log_loss"
CHANGE = "personalised - local-only"
GAIN = "Gain, + is better (95 % CI, widened for 4 sites)"


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


def at_site(run: str, site: str = "long-beach") -> AppTest:
    """The page Sites, at one site."""
    return overview(run, "p30_sites", site=site)


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
        texts = [text.value for text in page.text]
        assert texts.index(f"{number} of 40") < texts.index("40 of 40")
        assert texts.count("running") == 1


def test_an_interrupted_run_says_so_with_the_command_to_go_on(store, url):
    run = begin(store)
    run.round(7)
    die(url, run.run)
    for page in (overview(run.run), app()):
        assert f"`flfed study resume {run.run}`" in words(page)
    assert [text.value for text in app().text].count("interrupted: its program ended") == 1
    assert "Nothing was compared yet" in words(overview(run.run))


def test_of_several_repeats_the_interrupted_one_is_resumed(store, url):
    first = begin(store, repeats=2)
    series = runs_of(first.run)[0].series
    first.finish(status="completed")
    second = begin(store, series=series, repeat=1)
    die(url, second.run)
    assert f"`flfed study resume {series}-r02`" in words(overview(series))


@pytest.mark.parametrize(
    ("study", "status", "reason", "says", "never"),
    [
        ("s", "stopped", "2 of 4 sites answered, the quorum is 3", "the quorum is 3. Once the cause", "drawn"),
        ("s", "failed", "the disk is full", "Nothing was compared: the run failed before that.", "drawn"),
        ("s-sweep", "completed", "", "This run was not compared with the sites' own models.", "flfed study resume"),
        ("s-sweep", "stopped", "1 of 4 sites answered", "Why it is stopped: 1 of 4", "flfed study resume"),
    ],
)
def test_a_run_without_comparison_says_why_and_draws_nothing_empty(store, study, status, reason, says, never):
    run = begin(store, study=study)
    run.site("cleveland", rows=303)
    run.finish(status=status, reason=reason)
    for page in (overview(run.run), overview(run.run, "p30_sites")):
        said = words(page)
        assert says in said
        assert never not in said
        for empty in ("No figures to draw", "Round by round", "own rows?"):
            assert empty not in said
        assert len(page.get("vega_lite_chart")) == 0


def test_a_figure_that_only_sites_have_is_drawn_alone(store):
    run = begin(store)
    run.round(1, metrics=[MetricRow("cleveland", "training", AUC, 0.8)])
    run.site("cleveland")
    page = overview(run.run, "p50_rounds")
    assert "**Each site**" in words(page)
    assert len(page.get("vega_lite_chart")) >= 1
    assert not any("all sites together" in chart.proto.alt for chart in page.get("vega_lite_chart"))
    assert "no figure over all sites together by round" in words(overview(run.run))


def points(site: str, metric: str, figures: dict[int, tuple[float, float, float]]) -> list[LearningPoint]:
    """Own model and joined one by own rows, and the difference with an interval of +- `reach`."""
    found = []
    for rows, (alone, joined, reach) in figures.items():
        found.append(LearningPoint(site, rows, 10, "local-only", metric, alone, alone - 0.05, alone + 0.05))
        found.append(LearningPoint(site, rows, 10, "personalised", metric, joined, joined - 0.05, joined + 0.05))
        gap = joined - alone
        found.append(LearningPoint(site, rows, 10, CHANGE, metric, gap, gap - reach, gap + reach, 9))
    return found


def table_of(page: AppTest) -> dict[str, dict[str, str]]:
    lines = next(table.value for table in page.table if "Own rows" in table.value.columns).to_dict("records")
    return {line["Own rows"].replace("\\", ""): {k: v.replace("\\", "") for k, v in line.items()} for line in lines}


def test_the_learning_curve_says_and_tabulates_what_joining_is_worth_by_own_rows(store, write):
    series = store.begin_series(study="heart-disease", study_sha256="", study_text="")
    few = {10: (0.56, 0.75, 0.10), 40: (0.64, 0.75, 0.08), 140: (0.70, 0.74, 0.08)}
    run = write(store, series)
    run.learning_curve([*points("long-beach", AUC, few), *points("cleveland", AUC, {10: (0.8, 0.81, 0.05)})])
    page = at_site(series, "cleveland")
    assert "with 10 rows of its own" not in words(page)
    page.selectbox(key="site-cleveland").set_value("long-beach").run()
    assert not page.exception
    assert page.query_params["site"] == "long-beach"
    said = words(page)
    widened = "(95 % CI, widened for 4 sites: +.052 to +.328)"
    assert f"with 10 rows of its own, joining gains +.190 AUC {widened}" in said
    # With 40 rows +.110, and widened as those of 10 by 1.38: from -.000.
    assert "The gain is clear with 10 rows, not with the other sizes." in said
    lines = table_of(page)
    assert list(lines) == ["10", "40", "all (140)"]
    assert lines["40"]["Site model"] == ".640 (.590 to .690)"
    assert lines["40"][GAIN] == "+.11000 (\u2212.00002 to +.22002)"
    assert [line["In words"] for line in lines.values()] == ["clear gain", "no clear gain", "no clear gain"]
    told = [chart.proto.alt for chart in page.get("vega_lite_chart")]
    assert any("10: .560 (.510 to .610) alone, .750 (.700 to .800) joined" in text for text in told)


def test_a_lower_loss_is_a_gain_and_a_clear_loss_is_said(store, write):
    series = store.begin_series(study="heart-disease", study_sha256="", study_text="")
    run = write(store, series)
    run.learning_curve(points("long-beach", LOSS, {10: (0.9, 0.5, 0.1), 20: (0.6, 0.6, 0.1), 80: (0.4, 0.5, 0.05)}))
    lines = table_of(at_site(series))
    assert lines["10"][GAIN] == "+.400 (+.262 to +.538)"
    assert [line["In words"] for line in lines.values()] == ["clear gain", "no clear gain", "clear loss"]


def test_a_site_without_a_figure_at_any_size_is_a_sentence_and_no_empty_chart(store, write):
    series = store.begin_series(study="heart-disease", study_sha256="", study_text="")
    nothing = [
        LearningPoint("long-beach", n, 0, arm, AUC, None, None, None)
        for n in (10, 86)
        for arm in ("local-only", CHANGE)
    ]
    write(store, series).learning_curve(nothing)
    page = at_site(series)
    assert "AUC was not defined in any draw" in words(page)
    assert table_of(page)["10"]["In words"] == "not defined"
    assert "AUC at long-beach" not in words(page)


def test_a_gain_without_an_interval_cannot_be_told_in_table_chart_and_words(store, write):
    series = store.begin_series(study="heart-disease", study_sha256="", study_text="")
    found = points("long-beach", AUC, {10: (0.56, 0.75, 0.10), 86: (0.64, 0.75, 0.08)})
    write(store, series).learning_curve([replace(p, low=None, high=None) if p.rows == 86 else p for p in found])
    page = at_site(series)
    assert "with all its 86 rows, it cannot be told: AUC was defined in too few draws" in words(page)
    assert table_of(page)["all (86)"]["In words"] == "cannot be told"
    drawn = [chart.proto.spec for chart in page.get("vega_lite_chart") if "gain in AUC" in chart.proto.spec]
    assert any('"cannot be told"' in spec for spec in drawn)


@pytest.mark.parametrize(
    ("text", "status", "note", "says"),
    [
        ("", "completed", "", "The study asks for no learning curve. With `curve = {"),
        ("[compare]\ncurve = { rows = [10] }", "running", "", "It is drawn when the comparison is made."),
        ("[compare]\ncurve = { rows = [10] }", "failed", "", "The run ended before it could be drawn."),
        ("[compare]\ncurve = {}", "completed", "no learning curve: the policy of a", "There is no learning curve: the"),
    ],
)
def test_where_there_is_no_learning_curve_one_sentence_says_why(store, write, text, status, note, says):
    series = store.begin_series(study="heart-disease", study_sha256="", study_text=text)
    run = write(store, series) if status == "completed" else begin(store, series=series)
    if note:
        run.events([EventRow(None, None, "note", note, "no-learning-curve")])
    if status == "failed":
        run.finish(status="failed", reason="it")
    assert says in words(at_site(series))


def test_the_download_holds_every_point_and_no_formula(store, write):
    from flfed.records.dashboard.components.figure import csv_of
    from flfed.records.dashboard.panels.learning_curve import COLUMNS

    given = points("=cmd|' /C calc'!A0", AUC, {10: (0.8, 0.7, 0.05)})
    text = csv_of([{name: getattr(point, name) for name in COLUMNS} for point in given])
    lines = list(csv.reader(io.StringIO(text)))
    assert lines[0] == ["site", "rows", "draws", "arm", "metric", "value", "low", "high"]
    assert len(lines) == 4
    assert all(line[0].startswith("'=cmd") for line in lines[1:])
    value = float(lines[3][5])
    assert value == pytest.approx(-0.1)  # a negative number stays a number
