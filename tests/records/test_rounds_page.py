"""The page Rounds: its tables are those of the record, cell by cell, and its charts can be read."""

import io
import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from streamlit.testing.v1 import AppTest

from flfed.records.charts.colours import BLUE, FAINT
from flfed.records.dashboard import page_files
from flfed.records.reports.faults import folded
from flfed.records.statistics.verdict import number
from flfed.records.store.entries import EventRow, MetricRow, SentRow, SiteRow
from tests.records.test_dashboard import APP, words

pytestmark = pytest.mark.usefixtures("shown")

AUC = "roc_auc_score"
SITES = ("a", "b", "c")
ROUNDS = 6
TABLES = ("rounds-all-sites", "rounds-each-site")


def auc(number: int, site: str | None) -> float:
    return 0.5 if number == 0 else 0.7 + 0.01 * number + 0.02 * [None, *SITES].index(site)


def variance(number: int, site: str) -> float:
    return 0.0001 * (number + 1) * (1 + SITES.index(site))


def crossed(number: int) -> list[SentRow]:
    """`c` does not answer in round 5."""
    out = [SentRow(site, "to-site", "train", 1000 * number + place) for place, site in enumerate(SITES)]
    back = [SentRow(site, "to-server", "train", 500 * number + place) for place, site in enumerate(SITES)]
    return [*out, *(row for row in back if (row.site, number) != ("c", 5))]


def begin(store, *, series: str = "", repeat: int = 0, rounds: int = ROUNDS):
    series = series or store.begin_series(study="s", study_sha256="", study_text="")
    return store.begin_run(
        series, repeat=repeat, engine="inprocess", path="", seed=1, rounds_planned=rounds, primary=AUC, task="binary"
    )


def write(run, *, rounds: int = ROUNDS, shift: float = 0.0, band: tuple[float, ...] = ()) -> str:
    """Write rounds of three sites; `a` has an update rejected in round 3."""
    for site in SITES:
        run.sites([SiteRow(site)])
    for last in range(1, rounds + 1):
        before = last - 1  # what a round measures is the model it began with
        rows = [MetricRow(None, "training", AUC, auc(before, None) + shift, *band)]
        for site in SITES:
            value = auc(before, site) + shift
            rows.append(MetricRow(site, "training", AUC, value, variance=variance(before, site)))
        events = [EventRow(3, "a", "fault", "not finite")] if last == 3 else []
        run.round(last, scores=rows, seconds=last / 10, sent=crossed(last), events=events)
    return str(run.run)


def rounds_page(run: str, **query: str) -> AppTest:
    """The page with all its tables unfolded."""
    page = AppTest.from_file(str(APP), default_timeout=60).run()
    page.switch_page(str(page_files()["rounds"]))
    for key, value in {"run": run, **query}.items():
        page.query_params[key] = value
    for key in TABLES:
        page.session_state[f"{key}-table"] = True
    page.run()
    assert not page.exception
    return page


def tables(page: AppTest) -> list[list[dict[str, str]]]:
    """The cells of each table as they are read, in order."""
    return [
        [{key: str(cell).replace("\\", "") for key, cell in line.items()} for line in found.value.to_dict("records")]
        for found in page.table
    ]


def drawn(page: AppTest) -> dict[str, tuple[dict, pd.DataFrame, str]]:
    """Words, rows and alternative text of each chart, as the browser gets them, by the title of its figure axis."""
    found = {}
    for chart in page.get("vega_lite_chart"):
        rows = pa.ipc.open_stream(io.BytesIO(chart.proto.data.data)).read_pandas()
        kind = "each" if rows["site"].notna().any() else "all"
        found[kind] = (json.loads(chart.proto.spec), rows, chart.proto.alt)
    return found


def test_each_cell_of_the_tables_is_that_of_the_record(store):
    run = begin(store)
    name = write(run)
    run.finish(status="completed", seconds=3.0)
    together, each, part, *_ = tables(rounds_page(name))
    measured = range(ROUNDS)  # the model that the last round gave is measured by no other
    nothing = {"At least": "", "At most": ""}
    assert together == [{"After round": str(n), "AUC": number(auc(n, None)), **nothing} for n in measured]
    expected = []
    for n in measured:
        for site in SITES:
            reach = 1.959964 * math.sqrt(variance(n, site))
            low, high = number(auc(n, site) - reach), number(min(auc(n, site) + reach, 1.0))
            line = {"After round": str(n), "Site": site, "AUC": number(auc(n, site)), "95 % low": low}
            expected.append(line | {"95 % high": high})
    assert each == expected
    names = ("Rounds asked", "No reply", "Rejected updates", "Valid updates", "Valid, %")
    counts = {"a": (6, 0, 1, 5, 83), "b": (6, 0, 0, 6, 100), "c": (6, 1, 0, 5, 83)}
    assert part == [{"Site": site, **dict(zip(names, map(str, of), strict=True))} for site, of in counts.items()]


def test_the_figure_before_training_is_told_and_not_drawn(store):
    name = write(begin(store))
    page = rounds_page(name)
    assert "Before training, AUC over all sites together was 0.500: in the tables, not drawn." in words(page)
    for kind in ("all", "each"):
        _, rows, _ = drawn(page)[kind]
        assert rows["round"].min() == 1
        assert rows["value"].min() > 0.7


def test_only_the_picked_site_has_a_band(store):
    name = write(begin(store))
    page = rounds_page(name, site="b")
    for site in ("b", "c"):
        spec, rows, _ = drawn(page)["each"]
        band = next(layer for layer in spec["layer"] if layer["mark"]["type"] == "area")
        assert {"filter": {"field": "site", "equal": site}} in band["transform"]
        mine = rows[rows["site"] == site]
        reach = [1.959964 * math.sqrt(variance(n, site)) for n in mine["round"]]
        np.testing.assert_allclose(mine["value"] - mine["low"], reach, rtol=1e-6)
        assert f"The band is the 95 % CI of each figure of {site}." in words(page)
        page.selectbox(key="curve-band-b").set_value("c").run()
    assert "There is no 95 % CI: the sites' reports of a round give this figure, but not its interval." in words(page)


@pytest.mark.parametrize(("rounds", "mark"), [(2, "rule"), (3, "rule"), (ROUNDS, "area")])
def test_bands_of_fewer_than_three_rounds_are_lines(store, rounds, mark):
    # The figures of a round are those of the model before it, and none is drawn before training.
    name = write(begin(store, rounds=rounds), rounds=rounds, band=(0.55, 0.91))
    page = rounds_page(name, site="b")
    marks = {kind: [layer["mark"]["type"] for layer in drawn(page)[kind][0]["layer"]] for kind in ("all", "each")}
    assert marks["each"] == [mark, mark, "line"]
    assert marks["all"] == ["rule", "point", "point", mark, "line"]


def test_bands_of_repeats_are_said_to_be_means_of_bounds(store):
    series = store.begin_series(study="s", study_sha256="", study_text="", repeats=3)
    names = [write(begin(store, series=series, repeat=n), shift=n / 100, band=(0.55, 0.91)) for n in range(3)]
    page = rounds_page(series)
    assert words(page).count("the band is the mean of the repeats' bounds") == 1
    counted = "at each point drawn, the AUC of the rows lies within 0.210 of it. Where it may differ by more than"
    assert counted in words(page)
    spec, rows, _ = drawn(page)["all"]
    # The range of each round is a line, which reaches no further than half of the figures' own range beyond them: an
    # area over two or three uncertain rounds would be a parallelogram beside the curve.
    assert spec["layer"][0]["mark"]["type"] == "rule"
    assert (rows["value"] - rows["from"]).max() <= 1.5 * (rows["value"].max() - rows["value"].min()) < 0.2
    assert tables(page)[0][1]["AUC"] == number(auc(1, None) + 0.01)  # of shifts by 0, 0.01 and 0.02
    assert "means over the repeats" not in words(rounds_page(names[0]))


def test_the_bound_is_that_of_the_further_end_where_the_other_was_cut_at_1(store):
    # Measured are rounds before these: from 0.98 on, of which 0.985 + 0.025 would be beyond 1.
    page = rounds_page(write(begin(store, rounds=3), rounds=3, shift=0.27, band=(0.955, 1.0)))
    assert "at each point drawn, the AUC of the rows lies within 0.035 of it. Where" in words(page)


def test_a_run_that_ended_is_not_told_to_wait(store):
    run = begin(store)
    run.sites([SiteRow("a")])
    assert "the first comes with the second round" in words(rounds_page(run.run))
    run.sent(1, [SentRow("a", "to-site", "train", 2000), SentRow("a", "to-server", "train", 1000)])
    run.finish(status="stopped", reason="no quorum")
    page = rounds_page(run.run)
    said = words(page)
    assert "The run ended before a round had a figure." in said
    assert "yet" not in said
    assert tables(page)[0][0]["Valid updates"] == "1"


def test_why_there_is_no_figure_over_all_sites_is_said(store):
    run = begin(store)
    for site in SITES:
        run.sites([SiteRow(site)])
    for last in (1, 2, 3):
        rows = [MetricRow(site, "training", AUC, auc(last, site)) for site in SITES]
        rows += [MetricRow(site, "training", "loss", 1.0 - last / 10) for site in (None, *SITES)]
        run.round(last, scores=rows)
    run.finish(status="completed")
    page = rounds_page(run.run)
    assert "There is no AUC over all sites together by round." in words(page)
    assert "No figures yet" not in words(page)
    assert "There are no bands: the uncertainty of this figure is not known." in words(page)
    page.radio(key="curve-metric-training").set_value("loss").run()
    assert "over all sites together by round" not in words(page)
    assert {"all", "each"} <= set(drawn(page))


def test_while_a_run_runs_only_the_rows_of_its_charts_change(store):
    run = begin(store, rounds=40)
    write(run, rounds=6)
    before = drawn(rounds_page(run.run))
    rows = [MetricRow(site, "training", AUC, 0.8, variance=None if site is None else 0.001) for site in (None, *SITES)]
    run.round(7, scores=rows, seconds=1.0, sent=crossed(7))
    after = drawn(rounds_page(run.run))
    assert list(before) == list(after) == ["all", "each"]
    for kind, (spec, rows, alt) in before.items():
        assert after[kind][0] == spec
        assert after[kind][2] == alt
        assert not after[kind][1].equals(rows)


@pytest.mark.browser
def test_of_a_long_run_each_point_is_a_mean_that_stays_and_no_round_is_lost(store):
    run = begin(store, rounds=500)
    run.sites([SiteRow("a")])

    def go_on(first: int, last: int) -> pd.DataFrame:
        for number_ in range(first, last + 1):
            value = 0.2 if number_ == 201 else 0.8 + number_ / 10_000  # one round that went badly
            run.round(number_, metrics=[MetricRow(site, "training", AUC, value) for site in (None, "a")])
        (_, rows, _) = drawn(rounds_page(run.run))["all"]
        return rows.set_index("round")

    few, more, most = go_on(1, 397), go_on(398, 399), go_on(400, 406)
    # two rounds a point up to 400 of them, then four: none before the newest has moved
    pd.testing.assert_frame_equal(few.iloc[:-1], more.iloc[: len(few) - 1])
    assert few.index[0] == more.index[0] == 1.5
    pairs = more["value"].iloc[:-2].to_numpy().reshape(-1, 2).mean(axis=1)
    np.testing.assert_allclose(most["value"].iloc[: len(pairs)], pairs, rtol=1e-12)
    for rows in (few, more, most):
        assert len(rows) <= 200
        assert rows["least"].min() == 0.2
        assert rows["value"].min() > 0.2
    said = words(rounds_page(run.run))
    assert (
        "Each point is the mean of 4 rounds; the band, or the inner one, goes from the smallest to the largest." in said
    )
    assert rounds_page(run.run).dataframe[0].value["After round"][50] == "201 to 204"


def test_of_more_than_eight_sites_one_is_in_colour_and_the_others_grey(store):
    names = [f"site-{place:02d}" for place in range(10)]
    run = begin(store)
    for site in names:
        run.sites([SiteRow(site)])
    for last in (1, 2, 3):
        run.round(last, metrics=[MetricRow(site, "training", AUC, 0.8, variance=1e-4) for site in names])
    page = rounds_page(run.run, site="site-04")
    spec, rows, _ = drawn(page)["each"]
    scale = spec["encoding"]["color"]["scale"]
    assert sorted(scale["domain"]) == names
    assert dict(zip(scale["domain"], scale["range"], strict=True)) == {
        site: BLUE if site == "site-04" else FAINT for site in names
    }
    assert spec["encoding"]["color"]["legend"]["values"] == ["site-04"]
    assert list(rows["site"])[-1] == "site-04"  # above the others
    page.selectbox(key="curve-band-site-04").set_value("site-07").run()
    assert drawn(page)["each"][0]["encoding"]["color"]["legend"]["values"] == ["site-07"]


def test_the_choice_of_sites_stands_below_the_chart_that_does_not_go_by_it_and_no_tick_is_moved(store):
    run = begin(store)
    for place in range(10):
        run.sites([SiteRow(f"site-{place}")])
    for last in (1, 2, 3):
        run.round(
            last, metrics=[MetricRow(site, "training", AUC, 0.8) for site in (None, "site-1")], sent=crossed(last)
        )
    page = rounds_page(run.run)
    kinds = [child.type for child in flat(page.main)]
    first, second, *_ = (place for place, kind in enumerate(kinds) if "vega_lite_chart" in kind)
    assert first < kinds.index("multiselect") < second
    charts = drawn(page)
    assert set(charts) == {"all", "each"}
    for spec, _, _ in charts.values():
        axes = [layer["encoding"]["y"]["axis"] for layer in spec["layer"] if "axis" in layer["encoding"].get("y", {})]
        assert axes and all(axis["labelFlush"] is False for axis in axes)


def flat(block: Any) -> list[Any]:
    """The elements of a page in their order."""
    found = []
    for _, child in sorted(block.children.items()):
        found += flat(child) if hasattr(child, "children") else [child]
    return found


def test_what_differs_in_its_numbers_only_is_one_line(store, flfed):
    run = begin(store)
    run.sites([SiteRow("a")])
    for last, times in enumerate((3.3, 12.0, 4.1), start=1):
        events = [EventRow(last, "a", "flag", f"norm of the update is {times} times the cohort's median")]
        run.round(last, events=[*events, EventRow(last, "a", "note", f"site-{last}: late")])
    lines = next(found for found in tables(rounds_page(run.run)) if found and "What" in found[0])
    odd = [line for line in lines if line["What"] == "accepted, but odd"]
    assert odd == [
        {
            "What": "accepted, but odd", "Site": "a", "When": "rounds 1, 2, 3",
            "Why": "norm of the update is 3.3 to 12.0 times the cohort's median",
        }
    ]  # fmt: skip
    assert len(lines) == 1 + 3  # the numbers of a name are no figures
    printed = flfed("run", "show", run.run)[1].splitlines()
    said = "Odd: a: rounds 1, 2, 3: norm of the update is 3.3 to 12.0 times the cohort's median"
    assert [line for line in printed if line.startswith("Odd: ")] == [said]


def test_thousands_and_dates_are_taken_for_what_they_are():
    reasons = ["4,217 rows on 2026-11-20 at 09:30", "900 rows on 2026-11-20 at 09:30"]
    assert list(folded({("note", "a", reason): [1] for reason in reasons})) == [
        ("note", "a", "900 to 4,217 rows on 2026-11-20 at 09:30")
    ]


@pytest.mark.browser
def test_in_a_browser_plots_are_high_and_axes_end_beyond_their_lines(window, store):
    run = begin(store)
    name = write(run)
    run.finish(status="completed")
    window.page.goto(f"{window.address}/rounds?run={name}")
    window.page.get_by_role("heading", name="Rounds: s").wait_for()
    window.drawn(charts=2)
    boxes = window.page.evaluate(
        "[...document.querySelectorAll('[data-testid=stVegaLiteChart]')].map(chart => ({"
        " plot: chart.querySelector('.root path.background').getBoundingClientRect().height,"
        " lines: [...chart.querySelectorAll('.mark-line path')].map(p => p.getBoundingClientRect().top),"
        " labels: [...chart.querySelectorAll('.role-axis-label text')].map(t => {"
        "  const b = t.getBoundingClientRect(); return [t.textContent, (b.top + b.bottom) / 2, b.left]}),"
        "}))"
    )
    for box in boxes:
        assert box["plot"] >= 250
        left = min(x for *_, x in box["labels"])
        upper = min(y for _, y, x in box["labels"] if x < left + 40)
        assert min(box["lines"]) >= upper - 5  # half the height of a label


def test_where_sites_keep_their_figures_of_rounds_the_page_has_those_of_all_together_and_says_why(store):
    run = begin(store)
    for site in SITES:
        run.sites([SiteRow(site)])
    for last in range(1, ROUNDS + 1):
        run.round(last, scores=[MetricRow(None, "validation", "loss", 0.7 / last)], seconds=1.0, sent=[], events=[])
    run.finish(status="completed", seconds=3.0)
    page = rounds_page(run.run)
    assert set(drawn(page)) >= {"all"} and "each" not in drawn(page)
    assert "Under secure aggregation no site sends its own figures of a round" in words(page)
