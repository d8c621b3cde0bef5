"""The pages of a run of which all that leaves is charged: its figures, reasons for what it lacks, and who sees what."""

import io
import json
import re
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from streamlit.testing.v1 import AppTest

from flfed.records.charts.chart import picture
from flfed.records.charts.curves import scores_chart
from flfed.records.reports.privacy_tables import charged_lines
from flfed.records.statistics.intervals import NORMAL_95
from flfed.records.statistics.noised_scores import NOISE, figure_lines
from flfed.records.statistics.verdict import number
from flfed.words import render
from tests.records.covered_runs import AUC, NAMES, Found, in_store
from tests.records.one_answer import page, words

GAIN_NOT_RELEASED = render("report.noised.gain")
NO_CURVES = render("report.noised.curves")
NO_ROUNDS = render("report.noised.rounds")
NO_SUMS = render("report.noised.sums")
LETTER = 5.5
"""Pixels of a digit of an axis, at least."""
PAGES = ("p20_overview", "p30_sites", "p40_curves", "p50_rounds", "p60_data", "p70_privacy")
OF_JOINING = re.compile(
    r"[Jj]oining improves AUC at \d|[Ii]nconclusive|Largest clear gain|not checked for leaks|needs the counts"
)
"""What only pages of a run say whose models were compared."""

pytestmark = pytest.mark.usefixtures("shown")


def cells(opened: AppTest) -> list[dict[str, str]]:
    """Each line of all tables, as it reads."""
    tables = [one.value.to_dict("records") for one in (*opened.table, *opened.dataframe)]
    return [{plain(key): plain(cell) for key, cell in line.items()} for lines in tables for line in lines]


def plain(text: Any) -> str:
    return str(text).replace("\\", "").replace("\u00a0", " ")


def drawn(opened: AppTest, place: int = -1) -> tuple[Found, Any]:
    chart = opened.get("vega_lite_chart")[place]
    return json.loads(chart.proto.spec), pa.ipc.open_stream(io.BytesIO(chart.proto.data.data)).read_pandas()


@pytest.fixture
def found(store, url) -> Found:
    return in_store(store, url)


def test_the_overview_begins_with_the_figure_and_says_why_joining_is_not_told(found):
    opened = page("p20_overview", found["run"])
    said = words(opened)
    assert f"## AUC {number(found['global'][AUC]['value'])} over all sites" in said
    assert said.count(GAIN_NOT_RELEASED) == 1 and not OF_JOINING.search(said)
    slope = number(found["noised-scores"]["all"]["slope"]["value"])
    assert any(slope in line.get("Calibration slope", "") for line in cells(opened))
    (rounds,) = [line["In this run"] for line in cells(opened) if line.get("Basis") == "Rounds"]
    assert rounds.startswith(f"{found['rounds']} of ")
    lines = [{plain(key): plain(cell) for key, cell in line.items()} for line in figure_lines(found)]
    assert [line["Rows of"] for line in lines] == ["all 4 sites", *NAMES]
    assert all(line in cells(opened) for line in lines)
    assert "No figure of geneva: the smaller class is lost in the noise." in said


def test_the_page_of_a_site_has_its_figures_and_no_verdict(found):
    opened = page("p30_sites", found["run"], site="bern")
    said = words(opened)
    assert "### Whether joining improves AUC at bern is not released." in said and not OF_JOINING.search(said)
    chart = next(
        chart.proto.alt for chart in opened.get("vega_lite_chart") if chart.proto.alt.startswith("Shared model")
    )
    assert chart == f"Shared model {number(found['sites']['bern']['global'][AUC]['value'])}"
    others = {line["Figure"]: line["Shared model"] for line in cells(opened) if "Figure" in line}
    of_bern = next(line for line in figure_lines(found) if line["Rows of"] == "bern")
    of_bern = {plain(name): plain(cell) for name, cell in of_bern.items()}
    assert others["Brier score"] == of_bern["Brier score"] and others["Log loss"] == of_bern["log loss"]
    assert others["Calibration slope"] == of_bern["Calibration slope"] and "AUC" not in others
    line = next(line for line in cells(opened) if line.get("Site") == "geneva")
    assert line == {"Site": "geneva", "Trained on, about": "3,003", "Shared model": "n/a"}


def test_curves_are_noised_counts_with_their_noise_of_whom_the_reader_picks(found):
    opened = page("p40_curves", found["run"])
    assert NO_CURVES in words(opened)
    for whose, one, deviation in (
        ("all 4 sites", found["noised-scores"]["all"], 2 * 3.111),
        ("chur", found["noised-scores"]["sites"]["chur"], 3.111),
    ):
        opened.selectbox(key="noised-of").select(whose).run()
        assert not opened.exception
        spec, bars = drawn(opened)
        there = bars[bars["class"] == "With the outcome"]
        np.testing.assert_allclose(there["recorded"], one["counts"][1], atol=0.06)
        np.testing.assert_allclose(there["high"] - there["recorded"], NORMAL_95 * deviation, atol=0.11)
        assert spec["layer"][0]["encoding"]["x"]["axis"]["labelExpr"].startswith("['0', ")
        slope = one["slope"]
        assert f"Calibration slope {number(slope['value'])} (95 % CI {number(slope['low'])} to" in words(opened)


def test_probabilities_of_many_digits_do_not_overlap_on_a_phone():
    small = [0, 0.00032, 0.000421, 0.000689, 0.0012, 0.00259, 0.0032, 0.00457, 0.0211]
    ends = [*small, 0.0871, 0.2, 0.525, 0.9, 0.999989, 1]
    lines = [
        {"Predicted, from": low, "Predicted, to": high, "Without the outcome": 9.0, "With the outcome": 5.0, NOISE: 2.0}
        for low, high in zip(ends, ends[1:])
    ]  # fmt: skip
    svg = picture(scores_chart(lines, "rows"), 300)
    axis = re.search(r'role-axis-label">(.*?)</g>', svg)[1]
    # One that is left out has an opacity of 0 behind its colour.
    labels = re.findall(r'translate\(([\d.]+),\d+\)"[^>]* fill="#\w+">([\d.]+)<', axis)
    assert len(labels) >= 4
    for (left, text), (right, other) in pairwise(labels):
        assert float(right) - float(left) > LETTER * (len(text) + len(other)) / 2, (text, other)


def test_a_count_below_nobody_is_drawn_as_its_noise_alone():
    line = {"Predicted, from": 0.0, "Predicted, to": 1.0, "Without the outcome": 30.0, "With the outcome": -3.0}
    chart = scores_chart([line | {"Noise on a count, 95 % (±)": 5.0}], "persons")
    assert chart is not None and scores_chart([], "persons") is None
    without, with_ = chart.rows.to_dict("records")
    assert (without["count"], without["low"], without["high"]) == (30.0, 25.0, 35.0)
    assert (with_["count"], with_["low"], with_["high"], with_["recorded"]) == (0.0, 0.0, 2.0, -3.0)
    # Side by side: one bar ends where the other begins.
    assert without["end"] == pytest.approx(with_["start"]) and without["start"] == pytest.approx(1 - with_["end"])


def test_rounds_data_and_privacy_say_why_something_is_not_there(found):
    assert NO_ROUNDS in words(page("p50_rounds", found["run"]))
    data = page("p60_data", found["run"])
    assert NO_SUMS in words(data) and not OF_JOINING.search(words(data))
    assert {line["Trained on, about"] for line in cells(data)} == {"3000", "3001", "3002", "3003"}
    private = page("p70_privacy", found["run"])
    assert "for everything that a site releases of its rows" in words(private)
    told = [line for line in cells(private) if "Charged for" in line]
    assert told == charged_lines(found["privacy"]) and len(told) == 3
    assert "of all its planned steps and of all counts with noise" in words(private)


@pytest.mark.studies
@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("how", [{"lost": True}, {"end": "failed"}, {"repeats": 2, "hidden": ("bern",)}])
def test_each_page_stands_whatever_there_is(store, url, name: str, how: dict[str, Any]):
    opened = page(name, in_store(store, url, **how)["run"])
    assert not OF_JOINING.search(words(opened))


def test_a_run_that_goes_on_promises_no_comparison(store, url):
    found = in_store(store, url, end="running")
    for name in ("p20_overview", "p40_curves", "p50_rounds"):
        said = words(page(name, found["run"]))
        assert "Joining is compared" not in said and "comes with the second round" not in said, name
    assert "scored after the last round, by counts with noise" in words(page("p20_overview", found["run"]))
    assert ["with noise" in one.text for one in page("p20_overview", found["run"]).get("progress")] == [False]


def test_two_runs_side_by_side_have_no_verdict(store, url):
    names = [in_store(store, url)["run"] for _ in range(2)]

    def script(names: list[str]) -> None:
        from flfed.records.dashboard.panels.compare import side_by_side

        side_by_side(names)

    shown = AppTest.from_function(script, args=(names,), default_timeout=60).run()
    assert not shown.exception
    line = next(line for line in cells(shown) if line.get("Site") == "basel")
    assert all(cell.endswith(": not compared") for key, cell in line.items() if key != "Site")
    assert not OF_JOINING.search(words(shown))
