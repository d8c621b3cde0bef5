"""The report of a run on acting by the model, and on groups: each line and figure is the record's."""

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from flfed import Study, run
from flfed.records.charts.curves import cut_below
from flfed.records.dashboard import page_files
from flfed.records.document.document import document
from flfed.records.statistics.operating_points import ahead_of_both, decision_curve, probability
from flfed.records.statistics.score_curves import ALL, ScoreCounts
from flfed.records.statistics.verdict import number
from flfed.records.store.entries import ComparisonRow, SiteRow
from flfed.records.store.reader import RunReader
from flfed.rows.data.site import Policy
from flfed.summaries.score_bins import ScoreBins
from tests.records.counted_rows import counted, rows_of
from tests.records.documents import Node, axes, numbers_in, paths, read, section, tables, titles

AUC = "roc_auc_score"
DECISION, GROUPS = "Net benefit of acting on the model", "Discrimination within groups"
ASKED = "[compare]\nfalse-positive-rates = [0.1]\nsubgroups = ['colour', 'x1 at 20, 40, 60, 80']\n"


@pytest.fixture
def asked(small_sites, small_study) -> dict[str, Any]:
    """The record of three open sites whose study names a false positive rate and columns."""
    return run(Study.parse(small_study.replace("[compare]\n", ASKED)), sites=small_sites(3, rows=200)).report


def net_benefit(y: np.ndarray, flagged: np.ndarray, threshold: float) -> float:
    """Net benefit by the cells of scikit-learn (Vickers & Elkin 2006)."""
    tn, fp, fn, tp = confusion_matrix(y, flagged, labels=[0, 1]).ravel()
    return float((tp - fp * threshold / (1 - threshold)) / (tn + fp + fn + tp))


def scores_of(name: str) -> dict[str, ScoreCounts]:
    """The stored score counts of all sites together and of each."""
    with RunReader.open() as reader:
        payload = reader.summary(name, "score-histograms")
    bins = ScoreBins.of(payload)
    return {ALL: ScoreCounts.read(payload["all"], bins)} | {
        site: ScoreCounts.read(of, bins) for site, of in payload["sites"].items()
    }


def drawn_lines(figure: Node) -> list[np.ndarray]:
    """Points of each line of a chart, as its axes count."""
    return [np.array(line) for line in paths(figure.all("svg")[0])]


def by_way(figure: Node) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points of flagging nobody, flagging everybody and the model."""
    nobody, everybody, *pieces = drawn_lines(figure)
    return nobody, everybody, np.concatenate(pieces or [np.zeros((0, 2))])


def check_curves(found: Node, name: str) -> int:
    """Hold each decision curve against the stored counts; return how many points were compared."""
    compared = 0
    figures = {f.all("figcaption")[0].words(): f for f in section(found, DECISION).all("figure")}
    for whose, counts in scores_of(name).items():
        y, score = rows_of(counts, counts.low)
        figure = figures["All sites together" if whose == ALL else whose]
        _, (bottom, _) = axes(figure)
        nobody, everybody, model = by_way(figure)
        assert nobody[:, 1] == pytest.approx([0, 0], abs=2e-3)
        share = y.mean()
        for at, value in everybody:
            assert value == pytest.approx(share - (1 - share) * at / (1 - at), abs=0.02)
        for at in sorted({*counts.low, *counts.high}):
            expected = net_benefit(y, score >= at, at) if at < 1 else -np.inf
            if expected < bottom:
                assert not np.any(np.abs(model - [at, expected]).max(axis=1) < 1e-3)
                continue
            assert np.abs(model - [at, expected]).max(axis=1).min() < 3e-3, (whose, at, expected)
            compared += 1
    return compared


@pytest.mark.studies
def test_decision_curves_are_those_of_scikit_learn_on_the_stored_counts(three):
    text = document(three["run"])
    assert check_curves(read(text), three["run"]) > 40
    # The proof that the comparison can fail: lines a hundredth of the axis off are found.
    moved = re.sub(r"(?<=\d,)(\d+\.?\d*)(?=[L\"])", lambda of: f"{float(of[0]) - 2.4:g}", text)
    with pytest.raises(AssertionError):
        check_curves(read(moved), three["run"])


def test_net_benefit_in_figures_is_that_by_hand(asked):
    ahead, lines = tables(section(read(document(asked["run"])), DECISION))
    counts = scores_of(asked["run"])
    y, score = rows_of(counts[ALL], counts[ALL].low)
    assert len(lines) == 3
    assert [float(line["Threshold"]) for line in lines] == sorted(float(line["Threshold"]) for line in lines)
    for line in lines:
        at = next(edge for edge in counts[ALL].low if probability(edge) == line["Threshold"])
        mine, of_all = net_benefit(y, score >= at, at), net_benefit(y, score >= -1, at)
        assert (line["The model"], line["Flagging everybody"]) == (number(mine, 3), number(of_all, 3))
        ways = {"the model": mine, "flagging everybody": of_all, "flagging nobody": 0.0}
        assert line["Best"].split(", ")[0] == max(ways, key=lambda way: ways[way])
    assert [line["Rows of"] for line in ahead] == list(counts)
    for line in ahead:
        y, score = rows_of(counts[line["Rows of"]], counts[line["Rows of"]].low)
        assert line["Test rows"] == f"{len(y)}, {y.sum()} with the outcome"
        ends = [float(end) for end in line["The model is better than both at thresholds of"].split(" to ")]
        edges = [edge for edge in counts[line["Rows of"]].low if ends[0] <= edge <= ends[-1]]
        assert len(edges) > 0
        for at in edges:
            assert net_benefit(y, score >= at, at) > max(0, net_benefit(y, score >= -1, at))


def test_a_curve_knows_every_threshold_outside_bins_with_rows(scored):
    y, score = scored
    curve = decision_curve(counted(y, score))
    assert [point.threshold for point in curve] == sorted({point.threshold for point in curve})
    assert len(curve) > 20 and curve[-1].threshold < 1
    for point in curve:
        assert point.net_benefit == pytest.approx(net_benefit(y, score >= point.threshold, point.threshold))
    widest = ahead_of_both(curve)
    for point in curve if widest else ():
        if widest[0] <= point.threshold <= widest[1]:
            assert point.net_benefit > max(0.0, point.net_benefit_of_all)


def test_a_line_is_cut_where_it_leaves_the_axis_and_where_it_comes_back():
    line = [(0.0, 0.5), (0.4, -0.3), (0.6, -0.3), (0.8, 0.1), (1.0, -0.9)]
    first, second = cut_below(line, -0.1)
    assert np.array(first) == pytest.approx(np.array([(0.0, 0.5), (0.3, -0.1)]))
    assert np.array(second) == pytest.approx(np.array([(0.7, -0.1), (0.8, 0.1), (0.84, -0.1)]))
    assert cut_below([(0.0, -1.0), (1.0, -2.0)], -0.1) == []


def figures_of(groups: list[Mapping[str, Any]]) -> list[list[str]]:
    """Figures of each group as a reader sees them, or the words in their place."""
    return [
        [of["method"]] if of["value"] is None
        else [number(of["value"]), *([number(of["low"], 3), number(of["high"], 3)] if of["low"] is not None else [])]
        for of in groups
    ]  # fmt: skip


def held_groups(found: Node, record: dict[str, Any]) -> int:
    """Hold each cell of the tables of groups against the record; return how many were compared."""
    payload, compared = record["subgroups"], 0
    part = section(found, GROUPS)
    by_site: dict[str, list[str]] = {}
    for lines in tables(part):
        for line in lines:
            cells = [cell for name, cell in line.items() if name not in ("Rows of", "Clear difference")]
            by_site.setdefault(line["Rows of"], []).extend(cells)
    assert sorted(by_site) == sorted(payload["sites"])
    for site, groups in payload["sites"].items():
        shown = [numbers_in(cell) if cell.startswith(("0.", "1.")) else [cell] for cell in by_site[site]]
        assert shown == figures_of(groups)
        compared += len(shown)
    return compared


@pytest.mark.studies
def test_figures_by_group_are_the_records_a_few_groups_a_table(asked):
    found = read(document(asked["run"]))
    assert held_groups(found, asked) == sum(map(len, asked["subgroups"]["sites"].values())) >= 20
    widths = [len(lines[0]) for lines in tables(section(found, GROUPS))]
    assert max(widths) <= 6 and len(widths) == 3  # of colour, and of five bands in two tables
    assert [title.words() for title in section(found, GROUPS).all("h3")] == [
        "By colour: AUC of the shared model (95 % CI)", "By x1: AUC of the shared model (95 % CI)",
    ]  # fmt: skip
    of = asked["subgroups"]["sites"]["site-01"][0]
    with pytest.raises(AssertionError):
        held_groups(read(document(asked["run"]).replace(number(of["value"]), "0.123")), asked)


def test_groups_and_counts_that_a_policy_holds_back_are_said_and_not_drawn(small_sites, small_study):
    closed = small_sites(3, rows=200, policy=Policy())
    record = run(Study.parse(small_study.replace("[compare]\n", ASKED)), sites=closed).report
    found = read(document(record["run"]))
    assert held_groups(found, record) > 0
    groups = [of for one in record["subgroups"]["sites"].values() for of in one]
    held = sum(of["value"] is None for of in groups)
    assert held > 0
    assert f"Of {len(groups)} figures {held} are suppressed or undefined" in section(found, GROUPS).words()
    # No score counts and no counts at rates left these sites.
    assert all(of["tp"] is None for one in record["operating-points"]["sites"].values() for of in one)
    assert DECISION not in " ".join(titles(found))


def test_nobody_asks_for_groups_and_there_is_no_section(three):
    assert GROUPS not in titles(read(document(three["run"])))


def test_the_report_of_many_sites_names_no_page_of_the_app(store, shown):
    series = store.begin_series(study="many", study_sha256="", study_text="")
    made = store.begin_run(series, engine="inprocess", path="", seed=1, rounds_planned=1, primary=AUC, task="binary")
    names = [f"s{n:02d}" for n in range(20)]
    for name in names:
        made.sites([SiteRow(name, title=f"Loans in Taiwan, {name}", rows=100, holdout_rows=30)])
    made.round(1)
    columns = [{"Characteristic": "Rows", "All sites": "2000"} | dict.fromkeys(names, "100")]
    made.summary("table-1", {"rows": columns})
    made.summary("leaks", {"found": [{"column": "slope"}], "warnings": ["slope: its gaps tell the target"]})
    lies = {"difference": -8.2, "about": False, "spread": 1.0}
    made.summary(
        "columns", {"columns": [{"column": "x", "towards": "", "unit": "", "sites": dict.fromkeys(names, lies)}]}
    )
    rows = [ComparisonRow(name, arm, metric, 0.7, 0.6, 0.8, 30)
            for name in names for arm in ("global", "local-only") for metric in (AUC, "brier_score_loss")]  # fmt: skip
    made.comparison([ComparisonRow(None, "global", AUC, 0.8), *rows], [])
    made.finish(status="completed")
    text = read(document(made.run)).words()
    assert "Loans in Taiwan" not in text
    assert "Slope: its gaps tell the target" in text and "more sites that lie apart: s03, s04" in text
    pages = "|".join(name.title() for name in page_files())
    assert re.search(rf"\b[Pp]ages? (the )?({pages})\b", text) is None
    again = store.begin_series(study="many", study_sha256="", study_text="")
    failed = store.begin_run(again, engine="inprocess", path="", seed=1, rounds_planned=1, primary=AUC, task="binary")
    failed.finish(status="failed", reason="the disk is full")
    text = read(document(failed.run)).words()
    assert json.dumps(text).count("are listed under Privacy") == 1 and re.search(rf"\bpages? ({pages})\b", text) is None
