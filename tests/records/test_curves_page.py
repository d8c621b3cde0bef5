"""The page Curves: it shows what record, JSON and scikit-learn have, to the digit, and why there is nothing to show."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.metrics import average_precision_score, confusion_matrix, roc_auc_score
from statsmodels.stats.proportion import proportion_confint
from streamlit.testing.v1 import AppTest

import flfed
from flfed import Study, run
from flfed.records.reports.report import report
from flfed.records.sections.scores import ranking
from flfed.records.statistics.score_curves import ALL, NOT_COMPARABLE, SITES_DRAWN, ScoreCounts, calibration
from flfed.records.statistics.verdict import interval, number
from flfed.records.store.entries import ComparisonRow, SiteRow
from flfed.records.store.reader import RunReader
from flfed.rows.data.site import Policy
from flfed.summaries.score_bins import ScoreBins
from tests.records.one_answer import words

ROOT = Path(__file__).parents[2]
APP, PAGE = ROOT / "app.py", ROOT / "flfed/records/dashboard/pages/p40_curves.py"
AUC, PRECISION, BRIER = "roc_auc_score", "average_precision_score", "brier_score_loss"
KEY = 'outputs = ["score-histogram"]'
COUNTS = {"0": [[3, 7]], "1": [[9, 8]]}


def curves(name: str, **query: str) -> AppTest:
    page = AppTest.from_file(str(APP), default_timeout=60).run()  # the first run registers the pages
    page.switch_page(str(PAGE))
    for key, value in {"run": name, **query}.items():
        page.query_params[key] = value
    page.run()
    assert not page.exception
    return page


def table(page: AppTest, column: str) -> dict[str, dict[str, str]]:
    """The table with this column, Markdown escapes taken away, by whose rows a line is about."""
    found = next(table.value for table in page.table if column in table.value.columns)
    lines = [{key: cell.replace("\\", "") for key, cell in line.items()} for line in found.to_dict("records")]
    return {line["Rows of"]: line for line in lines}


def drawn(page: AppTest) -> list[tuple[dict, pd.DataFrame]]:
    """Words and rows of each chart, as the browser gets them."""
    protos = [chart.proto for chart in page.get("vega_lite_chart")]
    return [(json.loads(p.spec), pa.ipc.open_stream(io.BytesIO(p.data.data)).read_pandas()) for p in protos]


def summary_of(name: str) -> dict:
    with RunReader.open() as reader:
        return reader.summary(name, "score-histograms")


def counts_of(payload: dict, name: str) -> ScoreCounts:
    return ScoreCounts.read(payload["all"] if name == ALL else payload["sites"][name], ScoreBins.of(payload))


def rows_of(counts: ScoreCounts) -> tuple[np.ndarray, np.ndarray]:
    """Every row again, with the middle of its bin as its score."""
    y = [np.repeat([0, 1], [int(n), int(p)]) for n, p in zip(counts.negative, counts.positive, strict=True)]
    return np.concatenate(y), np.repeat(counts.probability, (counts.negative + counts.positive).astype(int))


def sites_to_draw(page: AppTest) -> list[str]:
    """The sites whose calibration a reader may have drawn."""
    return next(box for box in page.selectbox if box.label.startswith("Draw")).options


def figure_of(entry: dict) -> str:
    return f"{number(entry['value'])} ({interval(entry['low'], entry['high'])})"


@pytest.fixture
def three(small_sites, small_study):
    """A real run of three open sites."""
    return run(Study.parse(small_study), sites=small_sites(3, rows=200)).report


def test_the_figures_are_those_of_the_record_and_of_scikit_learn(three):
    page, payload = curves(three["run"]), summary_of(three["run"])
    assert "repeat" not in words(page)
    ranks, holds = table(page, "AUC, from rows"), table(page, "Predicted, mean")
    assert list(ranks) == list(holds) == [ALL, "site-01", "site-02", "site-03"]
    for name in ranks:
        of_record = three["global"] if name == ALL else three["sites"][name]["global"]
        y, score = rows_of(counts_of(payload, name))
        assert ranks[name]["AUC, from rows"] == figure_of(of_record[AUC])
        assert ranks[name]["Average precision, from rows"] == figure_of(of_record[PRECISION])
        assert holds[name]["Brier score (lower is better)"] == figure_of(of_record[BRIER])
        assert ranks[name]["Test rows"] == str(len(y))
        assert ranks[name]["With the outcome"] == f"{y.sum()} ({100 * y.mean():.0f} %)"
        assert ranks[name]["AUC, of the curve"].split(" ± ")[0] == number(roc_auc_score(y, score))
        of_curve = ranks[name]["Average precision, of the curve"].split(" ± ")
        assert of_curve[0] == number(average_precision_score(y, score))
        assert abs(float(of_curve[0]) - of_record[PRECISION]["value"]) <= float(of_curve[1]) + 0.0005
        assert holds[name]["Predicted, mean"].split(" ± ")[0] == number(score.mean())
        span = proportion_confint(y.sum(), len(y), method="wilson")
        assert holds[name]["Observed share"] == f"{number(y.mean())} ({interval(*span)})"
    assert [float(ranks[site]["Test rows"]) for site in three["sites"]] == [
        site["holdout-rows"] for site in three["sites"].values()
    ]


def test_who_hears_a_chart_hears_its_own_areas(three):
    payload = summary_of(three["run"])
    names = [ALL, *three["sites"]]
    counts = {name: counts_of(payload, name) for name in names}
    roc, precision = (chart.says for chart in ranking(counts, counts, {}, three).charts)
    for name in names:
        rows = rows_of(counts[name])
        assert f"{name}: AUC {number(roc_auc_score(*rows))}" in roc
        assert f"{name}: average precision {number(average_precision_score(*rows))}" in precision


def test_what_is_drawn_has_these_areas_and_groups(three):
    page, payload = curves(three["run"], site="site-02"), summary_of(three["run"])
    (roc, ranked), (both, precise), (_, grouped) = drawn(page)
    for name in (ALL, "site-01", "site-02", "site-03"):
        counts = counts_of(payload, name)
        y, score = rows_of(counts)
        mine = ranked[ranked["of"] == name]
        assert np.trapezoid(mine["y"], mine["x"]) == pytest.approx(roc_auc_score(y, score), abs=1e-4)
        mine = precise[precise["of"] == name]
        assert np.trapezoid(mine["y"], mine["x"]) == pytest.approx(average_precision_score(y, score), abs=1e-3)
        by_chance = {line["of"]: line["y"] for line in both["layer"][0]["data"]["values"]}
        assert by_chance[name] == pytest.approx(y.mean(), abs=1e-5)
    assert roc["layer"][0]["data"]["values"] == [{"x": 0, "y": 0}, {"x": 1, "y": 1}]
    assert set(grouped["of"]) == {ALL, "site-02"}  # one site beside all, the one of the address
    for name in set(grouped["of"]):
        groups, mine = calibration(counts_of(payload, name)), grouped[grouped["of"] == name]
        expected = [(g.predicted, g.observed, g.low, g.high, g.rows) for g in groups]
        np.testing.assert_allclose(mine[["x", "y", "low", "high", "rows"]], expected, atol=1e-5)
        held = sum(group.low <= group.predicted <= group.high for group in groups)
        said = table(page, "Predicted, mean")[name]["Predictions hold in"]
        assert said.startswith(f"{held} of {len(groups)} groups")


def test_a_reader_picks_sites(three):
    page = curves(three["run"])
    assert page.multiselect[0].value == ["site-01", "site-02", "site-03"]
    page.multiselect[0].set_value(["site-03"]).run()
    assert list(table(page, "AUC, from rows")) == [ALL, "site-03"]
    assert set(drawn(page)[0][1]["of"]) == {ALL, "site-03"}
    assert "How to read these curves" in [box.label for box in page.expander]
    assert sites_to_draw(page) == ["site-01", "site-02", "site-03"]  # whichever are drawn above


def test_a_site_that_names_no_histogram_is_named_and_none_is_explained(small_sites, small_study):
    sites = small_sites(3, rows=200)
    sites[0] = replace(sites[0], policy=Policy())
    page = curves(run(Study.parse(small_study), sites=sites).report["run"])
    assert list(table(page, "AUC, from rows")) == ["2 of 3 sites together", "site-02", "site-03"]
    assert f"No curve of site-01, without counts of predictions. The policy.toml has to name {KEY}." in words(page)
    assert "The counts of 2 of 3 sites may be added up." in words(page)
    closed = run(Study.parse(small_study), sites=small_sites(3, rows=200, policy=Policy()))
    page = curves(closed.report["run"])
    assert KEY in page.info[0].value
    assert len(page.get("vega_lite_chart")) == 0


def test_repeats_are_not_added_up(small_sites, small_study):
    result = run(Study.parse(small_study), sites=small_sites(3, rows=200), repeats=2)
    with RunReader.open() as reader:
        names = [entry.run for entry in reader.runs_of(result.report["run"])]
        each = [report(reader, name) for name in names]
    for name, place in ((result.report["run"], 0), (names[1], 1)):
        page = curves(name)
        shown = table(page, "AUC, from rows")
        assert shown[ALL]["AUC, from rows"] == figure_of(each[place]["global"][AUC])
        assert int(shown[ALL]["Test rows"]) == sum(site["holdout-rows"] for site in each[place]["sites"].values())
        alone, several = words(page), place == 0
        assert [f"**in repeat {place + 1} of 2 alone**" in info.value for info in page.info] == [True] * several
        assert ("Overview and Sites show means." in alone) == several
        headings = [block.value for block in page.markdown if block.value.startswith("## ")]
        assert [heading.endswith(", in repeat 1") for heading in headings] == [*[several] * 3, False]
        # The one part that is of all repeats.
        assert headings[-1] == f"## What the shared model goes by{', mean over 2 repeats' if several else ''}"


def test_means_over_repeats_stand_below_the_figures_of_one_and_say_so(small_sites, small_study):
    study = Study.parse(small_study).replace({"compare.calibration": True, "compare.false-positive-rates": [0.3]})
    result = run(study, sites=small_sites(3, rows=200), repeats=2)
    page = curves(result.report["run"])
    headings = [block.value.removeprefix("## ") for block in page.markdown if block.value.startswith("## ")]
    assert headings[-3:] == [
        "Flagged rows at the study's false positive rates, in repeat 1",
        "Calibration at each site, mean over 2 repeats",
        "What the shared model goes by, mean over 2 repeats",
    ]
    slope = result.report["sites"]["site-01"]["calibration"]["slope"]["value"]
    (shown,) = (of.value["Slope (95 % CI)"] for of in page.table if "Test rows of" in of.value)
    assert shown[0].replace("\\", "").startswith(f"{slope:.2f} (")


def test_who_is_flagged_at_a_threshold_or_a_budget_is_that_of_scikit_learn(three):
    page, payload = curves(three["run"]), summary_of(three["run"])
    assert page.radio[0].options == ["a threshold", "an alert budget"]  # a third of the rows has the outcome
    choice = next(box for box in page.selectbox if box.label.startswith("Flag a predicted"))
    picked = choice.options[len(choice.options) // 3]
    choice.set_value(edge_of(payload, picked)).run()
    y, score = rows_of(counts_of(payload, ALL))
    allowed = {}
    for name in (ALL, "site-01", "site-02", "site-03"):
        y, score = rows_of(counts_of(payload, name))
        tn, fp, fn, tp = confusion_matrix(y, score >= edge_of(payload, picked)).ravel()
        shown, shares = table(page, FLAGGED)[name], table(page, "Net benefit")[name]
        assert [int(shown[column]) for column in CELLS] == [tp, fp, fn, tn]
        assert shown["Flagged from"] == picked
        assert shown["Flagged"] == f"{tp + fp} of {len(y)}"
        odds = edge_of(payload, picked) / (1 - edge_of(payload, picked))
        assert shares["Net benefit"] == number(tp / len(y) - fp / len(y) * odds)
        assert (shares["Sensitivity"], shares["PPV"]) == (number(tp / (tp + fn)), number(tp / (tp + fp)))
        allowed[name] = 0.2 * len(y)
    page.radio[0].set_value("an alert budget").run()
    page.number_input[0].set_value(20.0).run()
    for name, most in allowed.items():
        y, score = rows_of(counts_of(payload, name))
        shown = table(page, FLAGGED)[name]
        flagged = int(shown[CELLS[0]]) + int(shown[CELLS[1]])
        lower = score >= np.sort(score)[-flagged - 1]  # the next bin as well
        assert flagged <= most + 1e-9 < lower.sum()
    assert "Of 1,000 rows" in words(page)


CELLS = (
    "of them with the outcome (TP)", "without it (FP)", "Not flagged, with the outcome (FN)", "without it (TN)",
)  # fmt: skip
FLAGGED = CELLS[0]


def edge_of(payload: dict, said: str) -> float:
    """The edge of bins that the page calls so."""
    from flfed.records.statistics.operating_points import edges, probability

    counts = [counts_of(payload, name) for name in (ALL, *payload["sites"])]
    return next(edge for edge in edges(counts) if probability(edge) == said)


def test_the_studys_rates_are_shown_as_the_sites_counted_them(small_sites, small_study):
    text = small_study.replace("[compare]\n", "[compare]\nfalse-positive-rates = [0.4, 0.25]\n")
    sites = small_sites(3, rows=200)
    sites[2] = replace(sites[2], policy=Policy())
    result = run(Study.parse(text), sites=sites).report
    page, counted = curves(result["run"]), result["operating-points"]
    assert "Flagged rows at the study's false positive rates" in words(page)
    for place, percent in enumerate(("40", "25")):
        box = next(box for box in page.selectbox if box.label == "Operating point")
        assert box.options[place] == f"false alarms in {percent} % of training rows without the outcome"
        box.set_value(counted["all"][place]["rate"]).run()
        shown = [table.value for table in page.table if FLAGGED in table.value.columns][-1].to_dict("records")
        lines = {line["Rows of"].replace("\\", ""): line for line in shown}
        assert list(lines) == ["2 of 3 sites together", "site-01", "site-02", "site-03"]
        for site in ("site-01", "site-02"):
            point = counted["sites"][site][place]
            assert [int(lines[site][column]) for column in CELLS] == [point[key] for key in ("tp", "fp", "fn", "tn")]
        assert lines["site-03"]["Flagged"] == "withheld: training rows set the threshold"
        both = [int(lines["2 of 3 sites together"][column]) for column in CELLS]
        assert both == [counted["all"][place][key] for key in ("tp", "fp", "fn", "tn")]
    closed = run(Study.parse(text), sites=small_sites(3, rows=200, policy=Policy()))
    lines = table(curves(closed.report["run"]), FLAGGED)
    assert {line["Flagged"] for line in lines.values()} == {"withheld: training rows set the threshold"}


def test_figures_by_group_are_those_of_the_record_and_say_where_groups_differ(writer):
    run = writer()
    low, high = ({"low": 0.6, "high": 0.7}, {"low": 0.75, "high": 0.95})
    few = {"value": None, "low": None, "high": None, "method": "withheld: fewer than 10 rows of a class"}
    sites = {
        "a": [
            {"group": "female", "value": 0.65, **low, "method": "DeLong"},
            {"group": "male", "value": 0.85, **high, "method": ""},
        ],
        "b": [{"group": "female", "value": 0.85, **high, "method": "DeLong"}, {"group": "male", **few}],
    }
    for site in sites:
        run.sites([SiteRow(site)])
    groups = {site: [{"column": "sex", **of} for of in own] for site, own in sites.items()}
    run.summary("subgroups", {"metric": AUC, "rows": "holdout", "requested-sites": 2, "sites": groups})
    page = curves(compared(run, {"sites": {"a": COUNTS}, "all": None, "combined-sites": 0, "requested-sites": 2}))
    assert "**By sex: AUC of the shared model (95 % CI)**" in words(page)
    shown = table(page, "female")
    assert shown["a"]["female"] == "0.650 (0.600 to 0.700)"
    assert shown["a"]["Clear difference"] == "intervals do not meet"
    assert shown["b"]["male"] == "withheld: fewer than 10 rows of a class"
    assert shown["b"]["Clear difference"] == "n/a"


def test_a_linear_models_coefficients_are_those_of_its_arrays(small_sites, small_study):
    result = run(Study.parse(small_study), sites=small_sites(3, rows=200), repeats=2)
    with RunReader.open() as reader:
        names = [entry.run for entry in reader.runs_of(result.report["run"])]
        found = [reader.summary(name, "coefficients") for name in names]
    for name, of in zip(names, found, strict=True):
        pipeline = flfed.load(name).model.to_sklearn()
        assert of["inputs"] == list(pipeline[0].get_feature_names_out())
        assert of["coefficients"] == pytest.approx(pipeline[-1].coef_[0].tolist())
        assert of["intercept"] == pytest.approx(pipeline[-1].intercept_[0])
    shown = next(one.value for one in curves(result.report["run"]).table if "Input" in one.value.columns)
    lines = {line["Input"].replace("\\", ""): line for line in shown.to_dict("records")}
    assert set(lines) == {"x1", "x2", "flag", "colour=green", "colour=blue"}
    each = [dict(zip(of["inputs"], of["coefficients"], strict=True)) for of in found]
    for name, line in lines.items():
        values = [of[name] for of in each]
        assert line["Coefficient (log-odds)"] == number(np.mean(values), 3, signed=True)
        assert line["Odds ratio"] == number(np.exp(np.mean(values)), 2)
        assert line["In the repeats"] == interval(min(values), max(values))
    sizes = [abs(np.mean([of[name] for of in each])) for name in lines]
    assert sizes == sorted(sizes, reverse=True)


def test_a_network_has_no_coefficients(small_sites, small_study):
    network = small_study.replace('name = "logistic"', 'name = "mlp"\nhidden = [4]')
    with RunReader.open() as reader:
        assert reader.summary(run(Study.parse(network), sites=small_sites(3)).report["run"], "coefficients") is None


@pytest.fixture
def writer(store, url: str, monkeypatch: pytest.MonkeyPatch):
    """A function that begins a run of the test's own store."""
    monkeypatch.setenv("FLFED_STORE", url)

    def begin(task: str = "binary"):
        series = store.begin_series(study="small", study_sha256="", study_text="")
        return store.begin_run(series, engine="inprocess", path="", seed=1, rounds_planned=1, primary=AUC, task=task)

    return begin


def test_other_outcomes_and_runs_without_counts_have_none(writer, heart: str):
    other = writer("regression")
    other.finish(status="completed")
    assert "that of this study is a number" in curves(other.run).info[0].value
    page = curves(heart)
    assert "No site released the counts of its predictions by class" in page.info[0].value
    assert len(page.get("vega_lite_chart")) == 0


def test_before_its_comparison_a_run_has_none(writer):
    going = writer()
    assert "come with the comparison" in curves(going.run).info[0].value
    going.finish(status="stopped", reason="no quorum")
    assert "ended before its model was compared" in curves(going.run).info[0].value
    assert len(curves(going.run).get("vega_lite_chart")) == 0


OF_A = ComparisonRow("a", "global", AUC, 0.9, 0.8, 0.97, 15)


def compared(run, payload: dict, *figures: ComparisonRow) -> str:
    run.comparison([ComparisonRow(None, "global", AUC, 0.75, 0.7, 0.8, 100), *figures], [])
    run.summary("score-histograms", {"bins": 256, "limit": 12.0} | payload)
    run.finish(status="completed")
    return str(run.run)


def test_a_mean_prediction_outside_the_interval_of_the_observed_share_is_said_to_be_off(writer):
    # Predictions of 0.50 to 0.59 (log-odds 0 to 0.375) in four bins of 10 rows each. Wilson's 95 % CI of 4 in 40 is
    # 0.040 to 0.231, of 36 in 40 0.769 to 0.960, of 20 in 40 0.352 to 0.648.
    few = [[bin, 9] for bin in range(128, 132)], [[bin, 1] for bin in range(128, 132)]
    half = [[bin, 5] for bin in range(128, 132)]
    run = writer()
    sites = {"a": {"0": few[0], "1": few[1]}, "b": {"0": few[1], "1": few[0]}, "c": {"0": half, "1": half}}
    for site in sites:
        run.sites([SiteRow(site)])
    holds = table(
        curves(compared(run, {"sites": sites, "all": COUNTS, "combined-sites": 3, "requested-sites": 3})),
        "Predicted, mean",
    )
    said = [holds[site]["Predicted, mean"].partition(", ")[2] for site in sites]
    assert said == ["too high", "too low", ""]
    assert holds["a"]["Observed share"] == f"0.100 ({interval(*proportion_confint(4, 40, method='wilson'))})"


def test_one_class_and_few_rows_are_said(writer):
    run, sites = writer(), {"a": COUNTS, "b": {"0": [], "1": [[5, 12]]}, "c": {"0": [[5, 4]], "1": [[6, 2]]}}
    for site in sites:
        run.sites([SiteRow(site)])
    page = curves(compared(run, {"sites": sites, "all": COUNTS, "combined-sites": 3, "requested-sites": 3}))
    ranks, holds = table(page, "AUC, from rows"), table(page, "Predicted, mean")
    assert ranks["b"]["AUC, of the curve"] == "not defined: one class only"
    assert (ranks["a"]["AUC, of the curve"], ranks["a"]["AUC, from rows"]) == ("1.000 ± 0.000", "n/a")
    assert ranks[ALL]["AUC, from rows"] == "0.750 (0.700 to 0.800)"
    assert "Not drawn, as all rows are of one class: b." in words(page)
    assert "a (7), b (0), c (2)." in words(page)
    assert holds["c"]["Predictions hold in"] == "fewer than 10 rows"
    assert sites_to_draw(page) == ["a", "b"]


def test_counts_of_some_sites_stand_beside_no_figure_of_all(writer):
    run, sites = writer(), {"a": COUNTS, "b": {"0": [[3, 5]], "1": [[9, 9]]}}
    for site in (*sites, "c", "d"):
        run.sites([SiteRow(site)])
    together = {"0": [[3, 12]], "1": [[9, 17]]}
    page = curves(compared(run, {"sites": sites, "all": together, "combined-sites": 2, "requested-sites": 4}, OF_A))
    part = "2 of 4 sites together"
    # A validation scores all rows, so the page calls them test rows in no sentence of its head.
    assert "The model on the rows that score it. The counts of 2 of 4" in page.caption[1].value
    ranks, holds = table(page, "AUC, from rows"), table(page, "Predicted, mean")
    assert list(ranks) == list(holds) == [part, "a", "b"]
    assert ranks[part]["Test rows"] == "29"
    for cell in (
        ranks[part]["AUC, from rows"], ranks[part]["Average precision, from rows"],
        holds[part]["Brier score (lower is better)"],
    ):  # fmt: skip
        assert cell == NOT_COMPARABLE
    assert ranks["a"]["AUC, from rows"] == "0.900 (0.800 to 0.970)"
    assert "0.750" not in str(page.table)  # that of all four sites
    for spec, rows in drawn(page):
        assert ALL not in str(spec)
        assert part in set(rows["of"])
    assert sites_to_draw(page) == ["a", "b"]
    assert f"The figures from rows cover all sites together, not {part}" in words(page)


def rare(rows: int) -> dict:
    """Counts of a site at which the outcome is rare: most predictions below 1 in 100, a few of about 0.5."""
    return {"0": [[20, rows], [28, rows], [35, rows], [128, 6]], "1": [[28, 2], [35, 6], [128, 6]]}


def test_the_calibration_of_a_rare_outcome_is_no_blot(writer):
    for site, counts in (("a", rare(2000)), ("b", {"0": [[110, 30]], "1": [[146, 20]]})):
        run = writer()
        run.sites([SiteRow(site)])
        page = curves(compared(run, {"sites": {site: counts}, "all": None, "combined-sites": 0, "requested-sites": 1}))
        spec, rows = drawn(page)[2]
        top = {axis["scale"]["domain"][1] for layer in spec["layer"][1:] for axis in ends(layer)}
        assert len(top) == 1  # the same on both axes, and the diagonal ends there
        assert spec["layer"][0]["data"]["values"][-1] == {"x": min(top), "y": min(top)}
        assert rows[["x", "y", "high"]].max().max() <= min(top) <= 1.0
        kinds = {axis["scale"].get("type", "linear") for layer in spec["layer"][1:] for axis in ends(layer)}
        assert kinds == ({"pow"} if site == "a" else {"linear"})
        assert ("stretched towards 0" in words(page)) == (site == "a")
        if site == "a":
            assert rows["x"].iloc[-2] < 0.01 * min(top)  # all but the last group, on an even axis
            assert (rows["x"].iloc[:-1] / min(top)).pow(1 / 3).min() > 0.05


def test_of_a_rare_outcome_the_alert_budget_comes_first(writer):
    run = writer()
    run.sites([SiteRow("a")])
    page = curves(compared(run, {"sites": {"a": rare(2000)}, "all": None, "combined-sites": 0, "requested-sites": 1}))
    assert page.radio[0].options == ["an alert budget", "a threshold"]
    # 6,020 rows, 14 of them with the outcome; one hundredth is 60: the 12 rows of the highest bin, not the next 2,006.
    assert table(page, FLAGGED)["a"]["Flagged"] == "12 of 6020"
    assert "a: Of 1,000 rows, 2 would be flagged; 1 of them has the outcome." in words(page)
    page.radio[0].set_value("a threshold").run()
    assert table(page, FLAGGED)["a"]["Flagged from"] == "0.00259"  # of the edges the nearest to 14 of 6,020


def ends(layer: dict) -> list[dict]:
    """The axes of a layer."""
    return [layer["encoding"][name] for name in ("x", "y")]


def test_of_many_sites_those_of_most_rows_are_drawn_at_first(writer):
    run = writer()
    sites = {f"site-{n:03d}": {"0": [[3, 20 + n]], "1": [[9, 30]]} for n in range(40)}
    for site in sites:
        run.sites([SiteRow(site)])
    page = curves(compared(run, {"sites": sites, "all": COUNTS, "combined-sites": 40, "requested-sites": 40}))
    assert page.multiselect[0].value == [f"site-{n:03d}" for n in range(40 - SITES_DRAWN, 40)]
    assert len(table(page, "AUC, from rows")) == 1 + SITES_DRAWN
    assert len(page.multiselect[0].options) == len(sites_to_draw(page)) == 40
