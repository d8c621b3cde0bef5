"""Through the gate: slope and intercept of an institution leave with three digits, and where the AUC does."""

import math
from typing import Any

import pytest

from flfed.rows.data.policy import Policy
from flfed.rows.evaluation.scoring import three_digits
from flfed.updates.messages.compare import COMPARE, CompareReply
from flfed.updates.messages.fields import content_sha256
from flfed.updates.messages.in_memory import count_bytes

CALIBRATION = ("[compare]\n", "[compare]\ncalibration = true\n")


def reply_of(site: Any, compared: Any, run: str = "20261120-one") -> CompareReply:
    site.run_config["run"] = run
    return CompareReply.from_record(compared(site))


@pytest.mark.parametrize(("disclosure", "rounded"), [("institution", True), ("open", False)])
def test_slope_and_intercept_of_an_institution_have_three_digits(
    gated, compared, small_study: str, disclosure: Any, rounded: bool
):
    site = gated(small_study.replace(*CALIBRATION), policy=Policy(disclosure=disclosure), rows=1200)
    reply = reply_of(site, compared)
    assert [one.name for one in reply.calibration] == ["slope", "intercept"]
    for figure in reply.calibration:
        for end in (figure.value, figure.low, figure.high, figure.variance):
            assert (end == three_digits(end)) is rounded


def test_both_stay_where_the_auc_stays(gated, compared, small_study: str):
    site = gated(small_study.replace(*CALIBRATION), policy=Policy(cell_minimum=12), rows=70)
    reply = reply_of(site, compared)
    (auc,) = [one for one in reply.arms if (one.metric, one.arm) == ("roc_auc_score", "global")]
    assert auc.method.startswith("withheld")
    assert [math.isnan(one.value) for one in reply.calibration] == [True, True]
    assert {one.method for one in reply.calibration} == {auc.method}


@pytest.mark.parametrize("asked", [True, False])
def test_the_section_crosses_only_where_the_study_asks(gated, compared, small_study: str, asked: bool):
    text = small_study
    if asked:
        text = small_study.replace(*CALIBRATION)
    record = compared(gated(text, policy=Policy(), rows=1200))
    assert ("calibration" in record) is asked


def test_the_ledger_has_the_bytes_that_crossed(gated, conducted_through, small_study: str):
    site = gated(small_study.replace(*CALIBRATION), policy=Policy(), rows=1200)
    _, grid = conducted_through(site)
    lines = [line for line in site.lines() if line.kind == "compare"]
    replies = [one for one in grid.replied if one.metadata.message_type == COMPARE]
    assert ["calibration" in one.content for one in replies] == [True]
    assert [line.facts["bytes"] for line in lines] == [count_bytes(one.content) for one in replies]
    assert [line.facts["sha256"] for line in lines] == [content_sha256(one.content) for one in replies]
