"""Exact counts in a run: those of the histogram at its bins' edges, once for a site's rows, and of no hidden site."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Message
from sklearn.metrics import confusion_matrix, recall_score

import flfed
from flfed import Study, run
from flfed.errors import UsageError
from flfed.federation.recording.pooled_figures import exact_counts
from flfed.federation.recording.pseudonyms import SharedAs
from flfed.paths import SiteFolder
from flfed.records.ledger import ledger_of
from flfed.records.reports.report import report
from flfed.records.statistics.operating_points import OperatingPoint, at_threshold, edges
from flfed.records.statistics.score_curves import ScoreCounts
from flfed.records.store.reader import RunReader
from flfed.rows.data.site import Policy
from flfed.rows.data.site_discovery import of_dataset
from flfed.rows.data.sources import Frame
from flfed.rows.session import SiteSession
from flfed.summaries.score_bins import ScoreBins
from flfed.updates.messages.compare import COMPARE, CompareReply, PointCounts

CELLS = ("tp", "fp", "fn", "tn")
ASKED = "[compare]\nthresholds = [0.7]\n"


def summary(result, name: str, only: str | None = None):
    with RunReader.open(only=only) as reader:
        return reader.summary(result.report["run"], name)


@pytest.fixture
def asking(small_study: str) -> str:
    return small_study.replace("[compare]\n", ASKED)


def test_at_an_edge_of_a_bin_they_are_those_of_the_histogram(small_sites, small_study):
    sites = small_sites(3, rows=300)
    counted = summary(run(Study.parse(small_study), sites=sites), "score-histograms")
    histograms = {site: ScoreCounts.read(of, ScoreBins.of(counted)) for site, of in counted["sites"].items()}
    at = edges(histograms.values())[5:-5:20]
    assert len(at) >= 5
    text = small_study.replace("[compare]\n", f"[compare]\nthresholds = {at}\n")
    found = summary(run(Study.parse(text), sites=sites), "operating-points")
    assert (found["rows"], found["requested-sites"], sorted(found["sites"])) == ("holdout", 3, sorted(histograms))
    for site, points in found["sites"].items():
        for point, threshold in zip(points, at, strict=True):
            expected = at_threshold(histograms[site], threshold)
            assert [point[cell] for cell in CELLS] == [expected.tp, expected.fp, expected.fn, expected.tn]
    together = ScoreCounts.read(counted["all"], ScoreBins.of(counted))
    for point in found["all"]:
        expected = at_threshold(together, point["at"])
        assert [point[cell] for cell in CELLS] == [expected.tp, expected.fp, expected.fn, expected.tn]
        assert point["sites"] == 3


@pytest.mark.studies
@pytest.mark.proof
def test_on_real_loans_they_and_their_net_benefit_are_those_of_scikit_learn():
    study = Study.load("loan-default").replace({"compare.thresholds": [0.05, 0.1], "compare.alert-budgets": [0.02]})
    result = run(study)
    model, found = flfed.load(result.run).model, result.report["operating-points"]
    sites = {site.name: SiteSession(site, study) for site in of_dataset("loan-default")}
    assert set(found["sites"]) == set(sites)
    for name, session in sites.items():
        rows = session.table.holdout("test")
        y, score = session.target(rows), model.predict_proba(rows)[:, 1]
        for point in found["sites"][name]:
            cut = point["at"] if point["by"] == "threshold" else np.sort(score)[::-1][int(0.02 * len(y)) - 1]
            tn, fp, fn, tp = confusion_matrix(y, score >= cut).ravel()
            assert [point[cell] for cell in CELLS] == [tp, fp, fn, tn]
            benefit = recall_score(y, score >= cut) * y.mean()
            benefit -= (1 - recall_score(1 - y, score < cut)) * (1 - y.mean()) * point["at"] / (1 - point["at"])
            known = OperatingPoint(point["at"], tp=tp, fp=fp, fn=fn, tn=tn)
            assert known.net_benefit == pytest.approx(benefit)
    assert [point["sites"] for point in found["all"]] == [4, 4, 4]


def test_a_plain_study_has_no_such_key_and_one_that_asks_has_it(small_sites, small_study, asking):
    plain, asked = (run(Study.parse(text), sites=small_sites(3, rows=100)).report for text in (small_study, asking))
    assert "operating-points" not in plain
    with RunReader.open() as reader:
        assert report(reader, asked["run"])["operating-points"]["sites"].keys() == asked["sites"].keys()
    assert set(asked) - set(plain) == {"operating-points"}


def told(result) -> list[str]:
    return [point["why"] for points in summary(result, "operating-points")["sites"].values() for point in points]


LEFT = "withheld: exact counts, importances or figures by group of these rows left in another run"


@pytest.mark.studies
def test_an_institution_gives_them_in_one_run_alone(small_sites, asking):
    sites = small_sites(3, rows=1500, policy=Policy())
    first = run(Study.parse(asking), sites=sites)
    assert told(first) == [""] * 3
    counts = summary(first, "operating-points")["all"]
    # Nor which counts of another model are small.
    assert told(run(Study.parse(asking.replace("[0.7]", "[0.999]")), sites=sites)) == [LEFT] * 3
    # Another run, another model, other rows of which most are the same: nothing more.
    assert told(run(Study.parse(asking), sites=sites)) == [LEFT] * 3
    assert told(run(Study.parse(asking.replace("rounds = 5", "rounds = 6")), sites=sites)) == [LEFT] * 3
    fewer = [replace(site, source=Frame(site.source.table.iloc[60:])) for site in sites]
    assert told(run(Study.parse(asking), sites=fewer)) == [LEFT] * 3
    assert counts[0]["sites"] == 3 and min(counts[0][cell] for cell in CELLS) >= 30
    kept = [line.facts for line in ledger_of(SiteFolder("site-01")).lines() if line.facts.get("exact-counts")]
    assert [(line["run"], line["chosen"]["part"]) for line in kept] == [(first.report["run"], "holdout")]
    # Open rows are known anyway.
    assert told(run(Study.parse(asking), sites=small_sites(3, rows=1500))) == [""] * 3


def test_repeats_over_the_same_rows_have_one_of_them(small_sites, asking):
    result = run(Study.parse(asking), sites=small_sites(3, rows=1500, policy=Policy()), repeats=2)
    with RunReader.open() as reader:
        names = [entry.run for entry in reader.runs_of(result.report["run"])]
        found = [reader.summary(name, "operating-points")["sites"]["site-01"][0]["why"] for name in names]
        assert report(reader, result.report["run"])["operating-points"]["sites"]["site-01"][0]["why"] == ""
    assert found == ["", LEFT]


def test_what_was_kept_back_anyway_claims_nothing(small_sites, asking):
    sites = small_sites(3, rows=1500, policy=Policy())
    near = asking.replace("[0.7]", "[0.999]")
    assert told(run(Study.parse(near), sites=sites)) == ["withheld: a count of fewer than 10 rows would follow"] * 3
    assert told(run(Study.parse(asking), sites=sites)) == [""] * 3


@pytest.mark.parametrize("hidden", [1, 2])
def test_a_site_in_sums_only_has_no_counts_and_they_follow_from_no_sum(small_sites, asking, hidden):
    sites = small_sites(4, rows=200)
    shy = Policy(disclosure="open", share_metrics="aggregate-only")
    sites[:hidden] = [replace(site, policy=shy) for site in sites[:hidden]]
    found = summary(run(Study.parse(asking), sites=sites), "operating-points")
    assert set(found["sites"]) == {site.name for site in sites[hidden:]}
    assert found["all"][0]["sites"] == (3 if hidden == 1 else 4)
    assert not any(site.name in json.dumps(found) for site in sites[:hidden])


def reply(*points: tuple[float, int]) -> CompareReply:
    """A site's counts of 40 rows at thresholds, -1 where they stay."""
    counts = [(at, *((tp, 10, 20 - tp, 10) if tp >= 0 else (-1,) * 4)) for at, tp in points]
    made = tuple(
        PointCounts(by="threshold", at=at, tp=tp, fp=fp, fn=fn, tn=tn, method="" if tp >= 0 else LEFT)
        for at, tp, fp, fn, tn in counts
    )
    return CompareReply(num_examples=100, holdout_rows=40, arms=(), differences=(), points=made)


def test_sites_in_sums_only_are_in_the_sums_at_all_points_or_at_none():
    # b and c are in sums only. At 0.5 both gave theirs, at 0.6 b alone: with c's at 0.5 alone in a sum, another sum
    # over other sites in sums only would give one of them away.
    replies = {"a": reply((0.5, 12), (0.6, 11)), "b": reply((0.5, 13), (0.6, 12)), "c": reply((0.5, 14), (0.6, -1))}
    hidden = SharedAs({"b": "aggregate-only", "c": "aggregate-only"})
    found = exact_counts(replies, hidden)
    assert [(point["sites"], point["tp"]) for point in found["all"]] == [(1, 12), (1, 11)]
    assert set(found["sites"]) == {"a"}
    replies["c"] = reply((0.5, 14), (0.6, 13))
    assert [(point["sites"], point["tp"]) for point in exact_counts(replies, hidden)["all"]] == [(3, 39), (3, 36)]
    # Without one of them being hidden, each point has the sites that gave it.
    replies["c"] = reply((0.5, 14), (0.6, -1))
    assert [point["sites"] for point in exact_counts(replies, SharedAs())["all"]] == [3, 2]
    assert exact_counts({"a": replace(replies["a"], points=())}, SharedAs()) is None


def test_the_people_of_one_site_see_its_own_alone(small_sites, asking):
    result = run(Study.parse(asking), sites=small_sites(3, rows=100))
    found = summary(result, "operating-points", only="site-02")
    assert (list(found["sites"]), found["all"]) == (["site-02"], [])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("thresholds = [0.5, 1.0]", "thresholds=[0.5, 1.0] must be different numbers in (0, 1)"),
        ("alert-budgets = [0.1, 0.1]", "alert-budgets=[0.1, 0.1] must be different numbers in (0, 1)"),
        (f"thresholds = {[round(0.01 * k, 2) for k in range(1, 12)]}", "thresholds has 11 numbers; at most 10"),
        ('thresholds = "half"', "thresholds='half' must be a list"),
        (
            'thresholds = [0.5]\n[privacy]\nname = "record-dp"\nepsilon = 3.0',
            "request exact counts of rows without noise, and [privacy] name='record-dp'",
        ),
        ("importance = -1", "importance=-1 must be in [0, 100]"),
        ("importance = 101", "importance=101 must be in [0, 100]"),
        ("importance = 2.5", "importance=2.5 must be a whole number"),
        (
            'importance = 5\n[privacy]\nname = "record-dp"\nepsilon = 3.0\nclip = 1.0',
            "importance requests exact figures of single columns without noise",
        ),
    ],
)
def test_what_cannot_be_asked_for_is_refused_in_one_sentence(small_study, line, said):
    with pytest.raises(UsageError) as error:
        Study.parse(small_study.replace("[compare]\n", "").replace("resamples = 200", f"[compare]\n{line}"))
    assert said in str(error.value)


def test_an_outcome_that_is_no_yes_or_no_has_none():
    study = Study.load("wine").replace({"compare.thresholds": [0.5]})
    with pytest.raises(UsageError, match="are for binary outcomes"):
        run(study)


def test_counts_that_no_study_asks_for_are_not_written_down(conduct, small_sites, small_study):
    point = PointCounts(by="threshold", at=0.25, tp=5, fp=5, fn=5, tn=5, method="")

    def with_counts(reply: Message) -> Message:
        if reply.metadata.message_type == COMPARE:
            found = CompareReply.from_record(reply.content)
            counts = replace(point, tn=found.holdout_rows - 15)
            reply.content = replace(found, points=(counts,)).to_record()
        return reply

    done = conduct(small_sites(3, rows=100), small_study, change=with_counts)
    assert done.outcome.status == "completed" and done.reasons("fault") == {}
    assert done.reader.summary(done.run, "operating-points") is None
