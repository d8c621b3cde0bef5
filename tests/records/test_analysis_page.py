"""An analysis on the pages of the app: its tables and histogram, and what was charged for its one answer."""

import io
import json
import re
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from streamlit.testing.v1 import AppTest

from flfed import Study, run
from flfed.records.charts.curves import histogram_chart, histogram_lines
from flfed.records.objects import read as read_object
from flfed.records.reports.privacy import noise_from, promise_in_words, spending_in_words
from flfed.records.reports.privacy_tables import mechanism_lines, spent_line
from flfed.records.statistics.analysis import Analysis, Number
from flfed.records.statistics.intervals import NORMAL_95
from flfed.records.statistics.recorded_statistic import statistic_in_words
from flfed.records.store.reader import RunReader
from tests.records.analyses import CUT, SHAPES, STUDY, in_store, is_shown, told
from tests.records.one_answer import page, words


@pytest.mark.parametrize(("engine", "text", "expected"), [
    ("inprocess", STUDY, "system"), ("ray", STUDY, "system"), ("deployment", STUDY, "system"),
    ("inprocess", CUT, "seed"), ("inprocess", STUDY.replace('"summary"', '"covariance"'), "seed"),
])  # fmt: skip
def test_noise_of_tables_of_their_own_is_the_systems_and_of_a_cut_the_seeds(store, url, engine, text, expected):
    private = in_store(store, url, SHAPES["one number"], text=text, engine=engine)["privacy"]
    assert private["noise-from"] == expected
    assert ("simulation" in " ".join(promise_in_words(private))) == (expected == "seed")
    assert private.get("one-answer", False) == ('"summary"' in text)
    # The fault: by the engine alone each run in one process would be called a simulation.
    assert noise_from(engine, {}) == ("system" if engine == "deployment" else "seed")


def test_what_was_charged_is_one_answer_and_no_step_of_training(store, url):
    private = in_store(store, url, SHAPES["one number"])["privacy"]
    lines = promise_in_words(private)
    assert lines[0] == (
        "Promised to each person by record-dp: ε = 7.99 at δ = 1e-4, for one answer of each site, all its numbers "
        "together."
    )
    assert lines[1].startswith(
        "Anyone who sees the answer of a site may learn something about whether any one person's rows"
    )
    # e^7.9824 is 2,928.9.
    assert "were counted: the odds can change by at most e^ε, 2,930 times" in lines[1]
    spent = spending_in_words(private)
    # 1.19 before and 7.9824 of this run are 9.1724, rounded up.
    assert spent[0] == (
        "At each of 2 sites: this run ε = 7.99 for one answer; its ledger had ε = 1.19 before, and has at most 9.18 "
        "with it, of a budget of 10."
    )
    line = spent_line("site-1", next(iter(private["sites"].values())), private)
    assert (line["Answers requested"], line["Answers planned"], line["ε of this run"]) == (1, 1, "7.99")
    with RunReader.open(url) as reader:
        sites = reader.sites(reader.runs()[0].run)
    mechanisms = {line["Mechanism"]: line for line in mechanism_lines(private, sites)}
    how = mechanisms["differential privacy"]["How"]
    assert how == "one answer, all its numbers together with noise multiplier 0.545"
    assert mechanisms["suppression of small cells"]["Is"] == "not used"
    assert mechanisms["secure aggregation"]["How"] == "the server sees each site's own answer, with its noise"
    everything = " ".join([*lines, *spent, *line, *(cell for of in mechanisms.values() for cell in of.values())])
    assert not re.search(r"\b(steps?|rounds?|updates?|training|clip|sampling)\b", everything, re.IGNORECASE)
    # Of a run that trains the words are the old ones.
    trained = {key: value for key, value in private.items() if key != "one-answer"} | {"steps": 150}
    assert "over all 150 steps of the run" in promise_in_words(trained)[0]


@pytest.mark.parametrize(("kind", "sites"), [("masked", 3), ("rehearsed", None)])
def test_in_secret_sums_it_is_the_sum_of_the_answers_that_is_seen(store, url, kind, sites):
    text = STUDY + 'secure-aggregation = "on"\n'
    private = in_store(store, url, SHAPES["one number"], text=text, sums={"kind": kind, "sites": sites})["privacy"]
    lines = promise_in_words(private)
    assert lines[1].startswith("Anyone who sees the sum of the answers may learn something about")
    assert ("the parts of all but one of 3 sites are enough" in lines[-1]) == (kind == "masked")
    (line,) = [of for of in mechanism_lines(private, []) if of["Mechanism"] == "secure aggregation"]
    assert "answers" in line["How"] and not re.search("update", " ".join([*lines, *line.values()]), re.IGNORECASE)


def shown_tables(opened: AppTest) -> list[list[dict[str, str]]]:
    return [
        [{key.replace("\\", ""): cell.replace("\\", "") for key, cell in line.items()} for line in lines]
        for lines in (one.value.to_dict("records") for one in (*opened.table, *opened.dataframe))
    ]


def drawn(opened: AppTest) -> tuple[dict[str, Any], Any]:
    (chart,) = opened.get("vega_lite_chart")
    return json.loads(chart.proto.spec), pa.ipc.open_stream(io.BytesIO(chart.proto.data.data)).read_pandas()


def test_a_run_is_shown_on_its_page_with_the_histogram_of_the_chosen_number_group_and_site(small_sites):
    done = run(Study.parse(STUDY), sites=small_sites(3, rows=200)).report
    found = done["statistics"]
    opened = page("p20_overview", done["run"])
    shown = shown_tables(opened)
    for table in told(found):
        assert [dict(line) for line in table.lines] in shown, table.title
    said = words(opened)
    assert all(line in said for line in statistic_in_words(found))
    assert "Joining" not in said and "Rounds run" not in said and "update" not in said
    spec, bars = drawn(opened)
    x1 = found["columns"]["x1"]
    np.testing.assert_allclose(bars["count"], x1["counts"], atol=0.06)
    np.testing.assert_allclose(bars["high"] - bars["count"], NORMAL_95 * read_object(Analysis, found).noise, atol=0.11)
    assert (bars["from"].iloc[0], bars["to"].iloc[-1]) == tuple(x1["within"]) == (0.0, 100.0)
    assert spec["layer"][0]["encoding"]["x"]["axis"]["title"] == "x1, mm"
    assert opened.selectbox(key="analysis-number").options == ["x1", "x2"]
    opened.selectbox(key="analysis-number").select("x2").run()
    opened.selectbox(key="analysis-group").select("colour: red").run()
    opened.selectbox(key="analysis-rows").select("site-02").run()
    assert not opened.exception
    own = found["by-site"]["site-02"]
    np.testing.assert_allclose(
        drawn(opened)[1]["count"], own["groups"]["of"]["red"]["columns"]["x2"]["counts"], atol=0.06
    )
    mean = next(lines for lines in shown_tables(opened) if "Mean" in lines[0])[0]["Mean"]
    assert is_shown(mean, own["columns"]["x1"]["mean"]) and not is_shown(mean, x1["mean"])


@pytest.mark.studies
@pytest.mark.parametrize("name", SHAPES)
def test_the_page_stands_whatever_the_figures_are(name: str, store, url, shown):
    page("p20_overview", in_store(store, url, SHAPES[name])["run"])


def test_the_page_privacy_says_what_an_answer_cost(store, url, shown):
    said = words(page("p70_privacy", in_store(store, url, SHAPES["one number"])["run"]))
    assert "for one answer of each site" in said and "ε of this run covers one reply" in said
    assert not re.search(r"\b(steps|rounds|updates)\b", said)


def test_a_run_without_figures_is_not_told_of_joining(store, url, shown):
    failed = in_store(store, url, None)
    assert "There are no figures: the run failed first." in words(page("p20_overview", failed["run"]))
    done = in_store(store, url, SHAPES["one number"])
    said = words(page("p30_sites", done["run"]))
    assert "The study trains no model" in said and "own models" not in said


def test_bins_that_grow_are_drawn_equally_wide_and_evenly_wide_ones_as_they_are():
    numbers = read_object(Analysis, SHAPES["all"]).numbers
    cost = numbers["cost"]
    assert cost.edges == [0.0, 99.0, 9999.0]
    chart = histogram_chart(histogram_lines(cost, 5.0), "cost", "rows")
    assert chart is not None
    # log(1 + x): the middle of 0 and 99 lies at 9, of 99 and 9,999 at 999.
    np.testing.assert_allclose(chart.rows["middle"], [9.0, 999.0], rtol=1e-9)
    x = chart.spec["layer"][0]["encoding"]["x"]
    assert (x["scale"]["type"], x["axis"]["values"][0], x["axis"]["values"][-1]) == ("symlog", 0.0, 5000.0)
    even = histogram_chart(histogram_lines(numbers["age"], 5.0), "age", "rows")
    assert even is not None and "type" not in even.spec["layer"][0]["encoding"]["x"]["scale"]
    assert even.rows["middle"].tolist() == [12.5, 37.5, 62.5, 87.5]
    # No noise reaches below nobody.
    few = Number(within=[0.0, 1.0], edges=[0.0, 1.0], counts=[3.0])
    assert min(line["95 % low (noise)"] for line in histogram_lines(few, 5.0)) == 0.0
    assert histogram_chart([], "age", "rows") is None
