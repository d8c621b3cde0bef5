"""Through the gate: which own model a site is compared with is approved, computed inside, and told in fixed words."""

from __future__ import annotations

import copy

import pytest
from flwr.app import ConfigRecord

from flfed.apps.gate.expected import message_defect
from flfed.apps.gate.folder import SiteFolder
from flfed.apps.gate.results import results_of
from flfed.apps.gate.study_messages import StudyMessages
from flfed.apps.gate.words import plain_words
from flfed.rows import datasets
from flfed.rows.policy import Policy
from flfed.updates.content import MalformedMessage
from flfed.updates.messages import COMPARE, CompareReply

MLP = ('name = "logistic"', 'name = "mlp"\nhidden = [4]')
PERSON = "P0-0017"


def messages_of(site) -> StudyMessages:
    return StudyMessages(site.study, datasets.load("small").schema, site.site)


def test_a_site_is_compared_with_the_best_that_it_finds_alone_and_approves_that(gated, conducted_through, small_study):
    site = gated(small_study.replace(*MLP), policy=Policy(disclosure="institution"))
    assert "compared with the best that this site finds alone" in " ".join(plain_words(site.study, site.site, []))
    outcome, grid = conducted_through(site)
    assert outcome.status == "completed"
    (reply,) = [one for one in grid.replied if one.metadata.message_type == COMPARE]
    found = CompareReply.from_record(reply.content)
    assert found.own_family == "logistic-regression"  # fewer than 200 rows: no trees
    figures = {figure.arm: figure.value for figure in found.arms if figure.metric == "roc_auc_score"}
    assert set(figures) == {"global", "local-only", "personalised", "local-only-same"}
    assert figures["local-only"] != figures["local-only-same"]
    (kept,), problems = results_of(SiteFolder(site.folder.site))
    assert (kept.own_family, problems) == ("logistic-regression", [])


@pytest.mark.parametrize("family", [PERSON, "", 3])
def test_a_family_that_is_no_word_of_ours_neither_leaves_nor_is_read(gated, conducted_through, small_study, family):
    site = gated(small_study.replace(*MLP))
    _, grid = conducted_through(site)
    content = copy.copy(grid.replied[-1].content)
    assert "own-model" in content and message_defect(content, messages_of(site).leaving(COMPARE)) == ""
    content["own-model"] = ConfigRecord({"family": family})
    assert "'family' that does not fit" in message_defect(content, messages_of(site).leaving(COMPARE))
    with pytest.raises(MalformedMessage):
        CompareReply.from_record(content)


def test_the_reply_of_a_linear_study_is_as_it_was(gated, conducted_through):
    site = gated()
    assert "compared with one of its kind" in " ".join(plain_words(site.study, site.site, []))
    _, grid = conducted_through(site)
    content = copy.copy(grid.replied[-1].content)
    assert "own-model" not in content and "local-only-same" not in content["arms"]["arm"]
    assert CompareReply.from_record(content).own_family is None
    content["own-model"] = ConfigRecord({"family": "boosted-trees"})
    assert message_defect(content, messages_of(site).leaving(COMPARE)) == "it has 1 section too many"
