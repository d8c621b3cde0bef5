"""Flagged rows at false positive rates in a run: of each site and together, and of no hidden site."""

from __future__ import annotations

from dataclasses import replace

import pytest
from flwr.app import Message

from flfed import Study, run
from flfed.errors import UsageError
from flfed.federation.recording.pooled_figures import flagged_at_rates
from flfed.records.reports.report import report
from flfed.records.store.reader import RunReader
from flfed.updates.messages.compare import COMPARE, CompareReply, PointCounts

CELLS = ("tp", "fp", "fn", "tn")
ASKED = "[compare]\nfalse-positive-rates = [0.1]\n"
WITHHELD = "withheld: training rows set the threshold"


def summary(result, name: str):
    with RunReader.open() as reader:
        return reader.summary(result.report["run"], name)


@pytest.fixture
def asking(small_study: str) -> str:
    return small_study.replace("[compare]\n", ASKED)


def test_a_study_that_names_rates_has_counts_by_site_and_their_sum(small_sites, small_study, asking):
    plain, asked = (run(Study.parse(text), sites=small_sites(3, rows=100)).report for text in (small_study, asking))
    assert set(asked) - set(plain) == {"operating-points"}
    with RunReader.open() as reader:
        found = report(reader, asked["run"])["operating-points"]
    assert (found["rows"], found["requested-sites"], found["sites"].keys()) == ("holdout", 3, asked["sites"].keys())
    (together,) = found["all"]
    assert (together["rate"], together["sites"]) == (0.1, 3)
    for cell in CELLS:
        assert together[cell] == sum(points[0][cell] for points in found["sites"].values())


def reply(*points: tuple[float, int]) -> CompareReply:
    """A site's counts of 40 rows at rates, -1 where they stay."""
    counts = [(rate, *((tp, 10, 20 - tp, 10) if tp >= 0 else (-1,) * 4)) for rate, tp in points]
    made = tuple(
        PointCounts(rate=rate, tp=tp, fp=fp, fn=fn, tn=tn, method="" if tp >= 0 else WITHHELD)
        for rate, tp, fp, fn, tn in counts
    )
    return CompareReply(num_examples=100, holdout_rows=40, arms=(), differences=(), points=made)


def test_a_point_is_of_the_sites_that_gave_it():
    replies = {"a": reply((0.5, 12), (0.6, 11)), "b": reply((0.5, 13), (0.6, 12)), "c": reply((0.5, 14), (0.6, -1))}
    found = flagged_at_rates(replies)["all"]
    assert [(point["sites"], point["tp"]) for point in found] == [(3, 39), (2, 23)]
    assert flagged_at_rates({"a": replace(replies["a"], points=())}) is None


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("false-positive-rates = [0.5, 1.0]", "false-positive-rates=[0.5, 1.0] must be different numbers in (0, 1)"),
        ("false-positive-rates = [0.1, 0.1]", "false-positive-rates=[0.1, 0.1] must be different numbers in (0, 1)"),
        (f"false-positive-rates = {[round(0.01 * k, 2) for k in range(1, 12)]}", "has 11 numbers; at most 10"),
        ('false-positive-rates = "half"', "false-positive-rates='half' must be a list"),
        (
            'false-positive-rates = [0.5]\n[privacy]\nname = "record-dp"\nepsilon = 3.0',
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
    study = Study.load("wine").replace({"compare.false-positive-rates": [0.5]})
    with pytest.raises(UsageError, match="are for binary outcomes"):
        run(study)


def test_counts_that_no_study_asks_for_are_not_written_down(conduct, small_sites, small_study):
    point = PointCounts(rate=0.25, tp=5, fp=5, fn=5, tn=5, method="")

    def with_counts(reply: Message) -> Message:
        if reply.metadata.message_type == COMPARE:
            found = CompareReply.from_record(reply.content)
            counts = replace(point, tn=found.holdout_rows - 15)
            reply.content = replace(found, points=(counts,)).to_record()
        return reply

    done = conduct(small_sites(3, rows=100), small_study, change=with_counts)
    assert done.outcome.status == "completed" and done.reasons("fault") == {}
    assert done.reader.summary(done.run, "operating-points") is None
