"""Through the gate: which own model a site is compared with is approved, computed inside, and told in fixed words."""

import ast
import copy
import subprocess
import sys

import pytest
from flwr.app import ConfigRecord

from flfed.deployment.gate.local_results import results_of
from flfed.deployment.gate.message_check import message_defect
from flfed.deployment.gate.message_schema import StudyMessages
from flfed.paths import SiteFolder
from flfed.rows.data import datasets
from flfed.rows.data.policy import Policy
from flfed.updates.messages.compare import COMPARE, CompareReply
from flfed.updates.messages.fields import MalformedMessage
from tests.approval_text import details

MLP = ('name = "logistic"', 'name = "mlp"\nhidden = [4]')
PERSON = "P0-0017"


@pytest.fixture
def small_study(small_study: str) -> str:
    """A study that holds the shared model against the best that each site finds alone."""
    return small_study.replace('site-model = "same"', 'site-model = "best"')


def messages_of(site) -> StudyMessages:
    return StudyMessages(site.study, datasets.load("small").schema, site.site)


def test_a_site_is_compared_with_the_best_that_it_finds_alone_and_approves_that(gated, conducted_through, small_study):
    site = gated(small_study.replace(*MLP), policy=Policy(disclosure="institution", cell_minimum=5))
    assert "compared with the best model that this site fits alone, inside the gate" in " ".join(
        details(site.study, site.site, [])
    )
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
    assert "own-model" in content and message_defect(content, messages_of(site).leaving(COMPARE)) is None
    content["own-model"] = ConfigRecord({"family": family})
    assert "'family' that does not fit" in message_defect(content, messages_of(site).leaving(COMPARE))
    with pytest.raises(MalformedMessage):
        CompareReply.from_record(content)


def test_a_study_may_hold_the_shared_model_against_its_own_kind_alone(gated, conducted_through, small_study):
    site = gated(small_study.replace('site-model = "best"', 'site-model = "same"'))
    assert "compared with one of its kind" in " ".join(details(site.study, site.site, []))
    _, grid = conducted_through(site)
    content = copy.copy(grid.replied[-1].content)
    assert "own-model" not in content and "local-only-same" not in content["arms"]["arm"]
    assert CompareReply.from_record(content).own_family is None
    content["own-model"] = ConfigRecord({"family": "boosted-trees"})
    assert message_defect(content, messages_of(site).leaving(COMPARE)) == "it has 1 section too many"


IN_THE_ROOM = """
from flfed.deployment.processes.isolation import drop_capabilities, hide_memory, leave_network
from flfed.deployment.processes.child_processes import limit_process
from flfed.deployment.processes.isolation import refuse_calls

left = leave_network()
drop_capabilities()
limit_process()
hide_memory()
unfiltered = refuse_calls()

import numpy as np

from flfed.rows.features.encode import Encoded
from flfed.rows.training.requests import RivalRequest
from flfed.rows.training.best_model import best_alone

x = np.random.default_rng(1).normal(size=(400, 4))
rows = Encoded(x, (x[:, 0] * x[:, 1] > 0).astype(np.int64), np.ones(400))
found = best_alone(RivalRequest(rows=rows, task="binary", classes=2, rng=np.random.default_rng(0)))
print([left, unfiltered, found.family, float(((found.outputs(x)[:, 0] > 0) == rows.y).mean())])
"""


@pytest.mark.studies
def test_trees_are_grown_in_the_gates_room_without_its_network_and_its_calls():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", IN_THE_ROOM], capture_output=True, text=True, timeout=240
    )
    assert done.stderr == ""
    left, unfiltered, family, right = ast.literal_eval(done.stdout)
    assert (left, unfiltered, family) == ("", "", "boosted-trees")
    assert right > 0.9
