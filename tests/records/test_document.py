"""The report of a run as a file: each number is the record's, nothing is loaded, and no text becomes markup."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from flfed import run
from flfed.records.dashboard.panels.overview import how_to_go_on
from flfed.records.document.document import MARK, document
from flfed.records.reports.report import metrics_of, report
from flfed.records.reports.site_verdict import best_arm, site_verdict
from flfed.records.statistics.score_curves import ALL, ScoreCounts, calibration
from flfed.records.statistics.verdict import describe_verdict, metric_name, number
from flfed.records.store.entries import AuditRow, SiteRow
from flfed.records.store.reader import RunReader
from flfed.refusals import Refusal
from flfed.rows.data import datasets
from flfed.rows.data.holdout import Holdout
from flfed.rows.data.policy import Policy
from flfed.study.study import Study
from flfed.summaries.score_bins import ScoreBins
from tests.boosting import trees_study
from tests.conftest import Said
from tests.records.counted_rows import rows_of
from tests.records.documents import (
    Node,
    axes,
    marks,
    moved_by,
    numbers_in,
    paths,
    place,
    read,
    section,
    table,
    tables,
    titles,
    what_it_loads,
)

AUC, BRIER = "roc_auc_score", "brier_score_loss"
FIRST = "Figures with 95 % CI"
FOREST = "Forest plot"


def figures_of(entry: dict[str, Any]) -> list[str]:
    """A figure and its interval as a reader sees them, of a record's own numbers."""
    if entry.get("value") is None:
        return []
    if entry["low"] is None or entry["high"] is None:
        return [number(entry["value"])]
    digits = max(0, 3 if max(abs(entry["low"]), abs(entry["high"])) < 1.5 else 2)
    big = max(abs(entry["low"]), abs(entry["high"]))
    digits = 0 if big >= 100 else 1 if big >= 10 else digits
    # An end that is not 0 does not read as 0: it has up to three digits more.
    hidden = [end for end in (entry["low"], entry["high"]) if end and not float(f"{end:.{digits}f}")]
    if hidden:
        more = [further for further in (1, 2, 3) if all(float(f"{end:.{digits + further}f}") for end in hidden)]
        digits += more[0] if more else 0
    return [number(entry["value"]), number(entry["low"], digits), number(entry["high"], digits)]


def check_figures(found: Node, record: dict[str, Any]) -> int:
    """Hold every cell of the tables of figures against the record; return how many figures were compared."""
    metrics, compared = metrics_of(record), 0
    columns = {"global": "Shared model", "local-only": "Site model", "personalised": "Adjusted to site"}
    by_metric = {metrics[0]: tables(section(found, FIRST))[0]}
    for div in section(found, "Further figures").all("div") if len(metrics) > 1 else []:
        name = next(m for m in metrics if div.all("h3")[0].words().lower().startswith(metric_name(m).lower() + " ("))
        by_metric[name] = table(div.all("table")[0])
    assert set(by_metric) == set(metrics)
    for metric, lines in by_metric.items():
        assert sorted(line["Site"] for line in lines) == sorted(record["sites"])
        for line in lines:
            site = record["sites"][line["Site"]]
            for arm, title in columns.items():
                if title in line:
                    told = [word for word in numbers_in(line[title]) if word]
                    assert told == figures_of(site[arm].get(metric, {})), (metric, line["Site"], arm)
                    compared += len(told)
            rows = [f"{site[key]:,.0f}" if site[key] is not None else "n/a" for key in ("holdout-rows", "rows")]
            assert line["Test / all rows"] == " / ".join(rows)
            assert line["Verdict"] == describe_verdict(site_verdict(site, metric)[0], metric)
            best = best_arm(site, metric)
            gain = line[f"Gain, + is better (95 % CI, widened for {record['verdict-rule']['sites']} sites)"]
            assert (gain == "n/a") == (best is None)
            if best is not None:
                told = [float(word.replace("\u2212", "-")) for word in numbers_in(gain)]
                ends = best[1].value, best[1].deciding.low, best[1].deciding.high
                expected = [v for v in ends if v is not None]
                assert told == pytest.approx(expected, abs=0.006 * max(1.0, max(map(abs, expected))))
                compared += len(told)
    return compared


def check_over_all(found: Node, record: dict[str, Any]) -> int:
    """Hold the references and the further metrics over all sites against the record."""
    metrics, compared = metrics_of(record), 0
    arms = [arm for arm in ("global", "sites-mean", "personalised", "personalised-sites-mean", "pooled", "pooled-same",
                            "own-model-everywhere") if (record[arm] or {}).get(metrics[0])]  # fmt: skip
    lines = tables(section(found, FIRST))[1]
    assert len(lines) == len(arms)
    for arm, line in zip(arms, lines, strict=True):
        entry = record[arm][metrics[0]]
        assert line[metric_name(metrics[0])] == number(entry["value"])
        span = next(cell for name, cell in line.items() if name.startswith("95 % CI"))
        assert numbers_in(span) == figures_of(entry)[1:]
        compared += 1
    for metric, line in zip(
        metrics[1:], tables(section(found, "Further figures"))[0] if metrics[1:] else [], strict=True
    ):
        for arm, title in (("global", "Shared model"), ("sites-mean", "Mean of the sites"), ("pooled", "Pooled model")):
            entry = (record[arm] or {}).get(metric)
            assert numbers_in(line.get(title, "")) == (figures_of(entry) if entry else [])
            compared += 1
    return compared


def check_forest(found: Node, record: dict[str, Any]) -> int:
    """Hold the words and the places of the marks of the forest plot against the record."""
    metric = metrics_of(record)[0]
    plot, narrow = section(found, FOREST).all("svg")
    columns = forest_columns(plot)
    mean = record["mean-gain"][metric]
    last = 0 if mean["value"] is None else 1
    # A wide plot cuts long names, a narrow one has room for them.
    sites = forest_columns(narrow)["site"]
    below = column_texts(narrow)[-1]
    names = sites[: len(sites) - last]
    assert sorted(names) == sorted(record["sites"])
    spans, points = marks(narrow, "rule")[1:], marks(narrow, "symbol")
    drawn = []
    for row, name in enumerate(names):
        site = record["sites"][name]
        best = best_arm(site, metric)
        own, shared = (site[arm].get(metric, {}).get("value") for arm in ("local-only", best[0] if best else "global"))
        assert columns["site model"][row] == ("" if own is None else number(own))
        assert columns["shared"][row] == ("" if shared is None else number(shared))
        rows = next(texts for title, texts in columns.items() if "rows" in title)[row]
        # A phone has no columns: their figures stand in one line under the site's name.
        assert numbers_in(below[row]) == numbers_in(f"{rows} {columns['site model'][row]} {columns['shared'][row]}")
        assert numbers_in(below[row]) or below[row] == columns["verdict"][row]
        assert rows.split(" (")[0] == ("" if site["holdout-rows"] is None else f"{site['holdout-rows']:,}")
        assert columns["verdict"][row] == describe_verdict(site_verdict(site, metric)[0], metric)
        if best is not None and best[1].low is not None:
            deciding = best[1].deciding
            assert deciding.low < best[1].low and best[1].high < deciding.high
            drawn.append((best[1].value, deciding.low, deciding.high))
    if last:
        assert columns["site"][-1] == f"Mean of {mean['sites']} sites"
        gain = next(texts for title, texts in columns.items() if title.startswith("gain"))[-1]
        told = [float(word.replace("\u2212", "-")) for word in numbers_in(gain)]
        assert told == pytest.approx([mean["value"], mean["low"], mean["high"]], abs=6e-4)
        drawn.append((mean["value"], mean["low"], mean["high"]))
    for expected, span, point in zip(drawn, spans, points, strict=True):
        left = moved_by(span)[0]
        at = [moved_by(point)[0], left, left + float(span.attributes["x2"])]
        # A line that goes beyond the plot ends at its edge.
        seen = np.clip(expected, *axes(narrow)[0])
        np.testing.assert_allclose([place(narrow, x, 0)[0] for x in at], seen, atol=2e-4)
    return len(columns["site"])


def forest_columns(plot: Node) -> dict[str, list[str]]:
    """The texts of a forest plot by the titles above them."""
    groups = column_texts(plot)[:-1]
    return {title: texts for texts, (title,) in zip(groups[::2], groups[1::2], strict=True)}


def column_texts(plot: Node) -> list[list[str]]:
    """The texts of a forest plot: of each column and its title, and last of the lines that replace them on a phone."""
    return [
        [text.words() for text in group.all("text")]
        for group in plot.all("g")
        if group.attributes.get("class", "").startswith("mark-text role-mark")
    ]


def held_against(name: str, flfed: Callable[..., Said]) -> tuple[Node, dict[str, Any]]:
    """Return a run's document and its record, once every figure of the one was found to be the other's."""
    record = json.loads(flfed("run", "show", name, "--json")[1])
    found = read(document(name))
    assert check_figures(found, record) >= 3 * len(record["sites"])
    assert check_over_all(found, record) >= len(metrics_of(record))
    assert check_forest(found, record) >= len(record["sites"])
    return found, record


def test_every_figure_is_that_of_the_record(three, flfed):
    found, record = held_against(three["run"], flfed)
    said = section(found, "Question and answer")
    code, shown, _ = flfed("run", "show", three["run"])
    assert code == 0 and said.all("strong")[0].words() in " ".join(shown.split())
    (row, *_), study = tables(section(found, "Hashes"))[0], record["study"]
    assert (row["What"], len(row["Is"])) == ("study, SHA-256", 64)
    assert record["arrays-sha256"] in section(found, "Hashes").words()
    assert f'name = "{study}"' in section(found, "Hashes").all("pre")[0].words()


@pytest.mark.studies
def test_a_wrong_number_in_the_document_is_found(three, flfed):
    # The proof that the comparison above can fail: each of these is one figure that is not the record's.
    record = json.loads(flfed("run", "show", three["run"], "--json")[1])
    text = document(three["run"])
    site = record["sites"]["site-02"]
    for value in (site["global"][AUC]["value"], site["local-only"][AUC]["low"], record["global"][BRIER]["value"]):
        shown, wrong = number(value, 3), number(value + 0.001, 3)
        assert text.count(shown) > 0
        with pytest.raises(AssertionError):
            found = read(text.replace(shown, wrong))
            check_figures(found, record)
            check_over_all(found, record)
            check_forest(found, record)
    moved = re.sub(r"translate\(([\d.]+),34\)", lambda of: f"translate({float(of[1]) + 9},34)", text)
    with pytest.raises(AssertionError):
        check_forest(read(moved), record)


@pytest.mark.studies
def test_the_curves_and_their_tables_are_of_the_stored_counts(three):
    found = read(document(three["run"]))
    with RunReader.open() as reader:
        payload = reader.summary(three["run"], "score-histograms")
    ranks = {line["Rows of"]: line for line in tables(section(found, "Discrimination"))[0]}
    holds = {line["Rows of"]: line for line in tables(section(found, "Calibration"))[0]}
    roc, precision = (section(found, "Discrimination").all("svg")[0], section(found, "Discrimination").all("figure")[1])
    drawn, calibrated = paths(roc), section(found, "Calibration").all("figure")
    for nth, name in enumerate((ALL, "site-01", "site-02", "site-03")):
        counts = ScoreCounts.read(payload["all"] if name == ALL else payload["sites"][name], ScoreBins.of(payload))
        y, score = rows_of(counts, counts.probability)
        assert ranks[name]["AUC, of the curve"].split(" ± ")[0] == number(roc_auc_score(y, score))
        assert ranks[name]["Average precision, of the curve"].split(" ± ")[0] == number(
            average_precision_score(y, score)
        )
        assert ranks[name]["Test rows"] == str(len(y))
        assert holds[name]["Predicted, mean"].split(" ± ")[0] == number(score.mean())
        false, true = zip(*drawn[nth + 1], strict=True)  # the first line is the diagonal
        assert np.trapezoid(true, false) == pytest.approx(roc_auc_score(y, score), abs=2e-4)
        groups = calibration(counts)
        assert len(marks(calibrated[nth], "symbol")) == len(groups)
        assert f"{name}: AUC {number(roc_auc_score(y, score))}" in roc.attributes["aria-label"]
    # Of each a curve, and its level by chance.
    assert (len(marks(precision, "line")), len(marks(precision, "rule"))) == (4, 4)


@pytest.mark.studies
def test_every_figure_of_repeats_at_real_hospitals_is_the_records(flfed, test_data):
    datasets.get(datasets.load("heart-disease"), from_folder=test_data, progress=lambda line: None)
    name = run("heart-disease", repeats=3).run
    found, record = held_against(name, flfed)
    assert record["repeats"] == 3
    assert "3 of 3 repeats" in found.all("header")[0].words()
    assert "Repeat 1 of 3 alone" in section(found, "Discrimination").words()
    spread = [line["SD over repeats"] for line in tables(section(found, FIRST))[1]]
    assert spread[0] == number(record["global"][AUC]["sd"])
    assert what_it_loads(document(name)) == []


@pytest.mark.studies
@pytest.mark.proof
def test_every_figure_of_a_bank_is_the_records(taiwan, flfed):
    found, record = held_against(run("taiwan-credit", rounds=5).run, flfed)
    assert len(forest_columns(section(found, FOREST).all("svg")[0])["site"]) == len(record["sites"]) + 1


def test_several_classes_have_their_figures_and_no_curves(flfed):
    found, record = held_against(run("wine", rounds=5).run, flfed)
    assert "one of several classes" in section(found, "Not in this run").words()
    assert len(tables(section(found, "Further figures"))) == len(metrics_of(record))


def test_a_predicted_number_has_its_figures_and_no_curves(flfed):
    found, record = held_against(run("diabetes", rounds=4).run, flfed)
    assert "outcomes that are yes or no; that of this study is a number." in section(found, "Not in this run").words()
    assert metrics_of(record)[0] == "root_mean_squared_error" or len(metrics_of(record)) > 1


def test_importances_are_the_records_where_the_study_asks(small_sites, small_study, three):
    text = small_study.replace("[compare]\n", "[compare]\nimportance = 2\n")
    result = run(Study.parse(text), sites=small_sites(3, rows=100)).report
    found = section(read(document(result["run"])), "Which columns the shared model needs")
    (lines,) = tables(found)
    ranked = sorted(result["importances"]["columns"], key=lambda of: -of["increase"])
    assert [(line["Column"], line["Log loss grows by"]) for line in lines] == [
        (of["column"], number(of["increase"], 4)) for of in ranked
    ]
    assert "nothing about the cause of the outcome" in found.words()
    assert "Which columns the shared model needs" not in titles(read(document(three["run"])))


def test_a_figure_that_a_site_withholds_has_the_reason_below_its_table(small_sites, small_study):
    sites = small_sites(3, rows=200, policy=Policy(disclosure="institution"))
    few = Holdout(share=0.04, salt="few")
    sites[1:] = [replace(site, holdout=few) for site in sites[1:]]
    result = run(Study.parse(small_study).replace({"rounds": 2}), sites=sites).report
    assert [result["sites"]["site-01"][arm]["accuracy_score"]["value"] is None for arm in ("global", "local-only")] == [
        False, True,
    ]  # fmt: skip
    found = section(read(document(result["run"])), "Further figures")
    by_title = {div.all("h3")[0].words(): div for div in found.all("div")}
    why = "site-01: This site withholds accuracy: it would say how many rows two models call differently."
    assert why in by_title["Accuracy (higher is better)"].all("ul")[0].words()
    assert result["global"]["accuracy_score"]["value"] is None
    lines = {line["Over all sites"]: line for line in tables(found)[0]}
    assert lines["Accuracy (higher is better)"]["Shared model"] == result["global"]["accuracy_score"]["reason"]


@pytest.mark.studies
def test_the_gains_of_trees_are_the_records(small_sites, small_study, three):
    result = run(Study.parse(trees_study(small_study)), sites=small_sites(3, rows=100)).report
    (lines,) = tables(section(read(document(result["run"])), "What the trees split by"))
    ranked = sorted(result["gains"]["columns"], key=lambda of: -of["share"])
    assert [(line["Column"], line["Share of the gain"]) for line in lines] == [
        (of["column"], f"{100 * of['share']:.1f} %") for of in ranked
    ]
    assert "What the trees split by" not in titles(read(document(three["run"])))


@pytest.mark.studies
def test_it_loads_nothing_and_runs_nothing(three):
    text = document(three["run"])
    assert text.startswith(MARK)
    assert what_it_loads(text) == []
    assert not re.search(r"https?://|//[a-z]", text.replace("http-equiv", ""))
    policies = [m.attributes["content"] for m in read(text).all("meta") if "http-equiv" in m.attributes]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'"]
    assert len(text.encode()) < 300_000
    for loads in ('<img src="a.png">', "<script>x()</script>", '<style>@import "a"</style>', '<p onclick="x()">a</p>'):
        assert len(what_it_loads(text.replace("</main>", f"{loads}</main>"))) > 0


def test_a_run_that_failed_or_goes_on_says_so(store, shown):
    for status, words in (("failed", "failed"), ("running", "running")):
        series = store.begin_series(study="s", study_sha256="", study_text="")
        made = store.begin_run(
            series, engine="inprocess", path="", seed=1, rounds_planned=9, primary=AUC, task="binary"
        )
        made.sites([SiteRow("a", rows=100, holdout_rows=30)])
        made.round(1)
        if status != "running":
            made.finish(status="failed", reason="the disk is full")
        found = read(document(made.run))
        assert f": {words}, 1 of 9 rounds" in found.all("header")[0].words()
        assert f"Nothing was compared: the run is {status}" in section(found, "Question and answer").words()
        assert "later report may differ" in found.all("footer")[0].words()
        assert FIRST not in titles(found) and FOREST not in " ".join(titles(found))
        advice = f"Resume it: flfed study resume {made.run}" in section(found, "Question and answer").words()
        assert advice == (status == "failed")


def test_a_run_that_would_end_the_same_way_again_is_not_to_be_resumed(store, shown):
    series = store.begin_series(study="s", study_sha256="", study_text="")
    run = store.begin_run(series, engine="inprocess", path="", seed=1, rounds_planned=9, primary=AUC, task="binary")
    run.sites([SiteRow("a", rows=100, holdout_rows=30)])
    reason = Refusal("diverged", why="round 7 had 0 good updates of 1 asked, 1 is needed")
    run.finish(status="stopped", reason=reason)
    told = section(read(document(run.run)), "Question and answer").words()
    assert "a new run needs a smaller lr" in told and "study resume" not in told
    with RunReader.open() as reader:
        assert how_to_go_on(reader.runs_of(run.run)) == ""


@pytest.mark.studies
def test_the_record_of_one_repeat_and_of_all_are_told_apart(store, shown, write):
    series = store.begin_series(study="again", study_sha256="", study_text="", repeats=3)
    runs = [write(store, series, repeat=place, shift=0.01 * place, resplit=True).run for place in range(3)]
    together, one = read(document(series)), read(document(runs[1]))
    assert "3 of 3 repeats" in together.all("header")[0].words() and "repeat 2 of 3" in one.all("header")[0].words()
    with RunReader.open() as reader:
        both = [report(reader, name) for name in (series, runs[1])]
    for found, record in zip((together, one), both, strict=True):
        lines = tables(section(found, FIRST))[1]
        assert lines[0]["AUC"] == number(record["global"][AUC]["value"])
    assert both[0]["global"][AUC]["value"] == pytest.approx(0.906)
    assert sum(f"repeat {n}: arrays, SHA-256" == line["What"] for n in (1, 2, 3)
               for line in tables(section(together, "Hashes"))[0]) == 3  # fmt: skip


def test_an_audit_is_told_with_what_it_was_held_against(store, shown, heart):
    rows = [AuditRow("membership-inference", site, "auc-of-lira", 0.531 + place / 10, 0.48, 0.7,
                     {"promise": 0.6, "verdict": "within the promise", "says": "told rows apart", "rows": 100})
            for place, site in enumerate(("cleveland", "hungary"))]  # fmt: skip
    store.audit(heart, rows)
    lines = tables(section(read(document(heart)), "Privacy"))
    audited = next(found for found in lines if "Its verdict" in found[0])
    assert [(line["Site"], line["Reached (95 %)"], line["Promised, at most"]) for line in audited] == [
        ("hungary", "0.631 (0.480 to 0.700)", "0.600"), ("cleveland", "0.531 (0.480 to 0.700)", "0.600"),
    ]  # fmt: skip


def test_a_written_run_has_its_faults_bytes_and_warnings(heart, shown):
    found = read(document(heart))
    said = section(found, "Question and answer").words()
    assert "basel (its policy does not allow the data set heart-disease)" in said
    assert "a column may reveal the outcome (slope)" in said
    sites = section(found, "Sites")
    whys = [line["Why"] for line in tables(sites)[1]]
    assert "the delta has 3 values that are not finite" in whys
    # Of each of 40 rounds a site sent 1,500 bytes.
    assert {line["Sent"] for line in tables(sites)[0] if line["Site"] != "basel"} == {"60.0 kB"}
    assert "Hospital Cleveland" in tables(sites)[0][1]["Site"]
