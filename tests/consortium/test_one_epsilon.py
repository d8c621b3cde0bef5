"""Studies under one epsilon at three real institutions: servers, TLS, a ledger each, a coordinator that is killed."""

from collections.abc import Sequence
from typing import Any

import pytest

from tests.consortium.conftest import table
from tests.consortium.test_packed_bytes import THREE, held, sent
from tests.consortium.test_secure_sums import command, newest, words
from tests.federation.test_compared_privately import COMPARED as COVERED

pytestmark = [pytest.mark.proof, pytest.mark.slow, pytest.mark.servers, pytest.mark.timeout(1800)]

HEAD = """
format = 1
name = "charged"
purpose = "Test"
legal-basis = "none needed"
seed = 7
[dataset]
name = "small"
"""
ANALYSIS = f"""{HEAD}
[statistic]
name = "summary"
columns = ["x1", "colour"]
groups = "y"
[privacy]
name = "record-dp"
epsilon = 1.0
delta = 1e-5
"""
POLICY = 'format = 1\ndisclosure = "institution"\nepsilon = {budget}\n'


def serve_with_budget(consortium: Any, budget: float, studies: Sequence[str] = (ANALYSIS, COVERED)) -> None:
    """Serve institutions of 3,000 rows that have approved studies within a budget."""
    for number, name in enumerate(THREE):
        folder = consortium.root / "packages" / "sites" / name
        table(3000, number).to_csv(folder / "rows.csv", index=False)
        (folder / "policy.toml").write_text(POLICY.format(budget=budget))
        for study in studies:
            consortium.approve(name, study, THREE)
        consortium.sites[name].serve(f"site serve {name}")
    consortium.online(3)


@pytest.fixture(scope="module")
def charged(consortium: Any) -> Any:
    """Institutions whose budget is of one analysis and one run."""
    serve_with_budget(consortium, 8.5)
    return consortium


def spent(consortium: Any, name: str) -> float:
    (found,) = consortium.sites[name].json(f"site budget {name} --dataset small")["datasets"]
    return float(found["spent"])


def test_an_analysis_and_a_compared_model_are_charged_once_and_told_alike(charged: Any):
    first, said = command(charged, words(charged, ANALYSIS, THREE))
    assert (first["status"], first["faults"]) == ("completed", []), said
    figures = first["statistics"]
    assert abs(figures["rows"]["value"] - 9000) < 400 and figures["columns"]["x1"]["mean"] is not None
    assert 0.9 < spent(charged, "alpha") <= 1.0
    # The very text once more: the same numbers, for nothing.
    again, _ = command(charged, words(charged, ANALYSIS, THREE))
    assert again["statistics"] == figures and spent(charged, "alpha") <= 1.0

    ran, said = command(charged, words(charged, COVERED, THREE))
    assert (ran["status"], ran["faults"]) == ("completed", []), said
    assert held(charged, ran["run"]) == sent(charged, ran["run"])
    kinds = {kind for _, kind in held(charged, ran["run"])}
    assert {"statistic", "train", "scores"} <= kinds and not {"summarise", "evaluate", "compare"} & kinds
    for name in THREE:
        told = ran["sites"][name]["difference"]["roc_auc_score"]
        assert told["low"] < told["value"] < told["high"]
        # The analysis is on both accounts, the run on either: together they are less than their sum.
        assert 8.0 <= spent(charged, name) <= 8.5
    # What is left holds no second run, and each site says so before anything is spent.
    before = {name: len(charged.sites[name].lines()) for name in THREE}
    _, said = command(charged, words(charged, COVERED, THREE), code=2)
    assert "a whole run would make it" in said
    for name in THREE:
        assert not any(line["kind"] == "spent" for line in charged.sites[name].lines()[before[name] :])


KILLED = """
import os, signal
from flfed.federation.server import noised_evaluation
asked = noised_evaluation._request_counts

def dying(run, participants, request, shape):
    found = asked(run, participants, request, shape)
    if request.edges is not None:  # once all sites have told their counts by class
        os.kill(os.getpid(), signal.SIGKILL)
    return found

noised_evaluation._request_counts = dying
"""
"""A coordinator that is killed between the counts of scores and the pairs."""


def test_a_coordinator_that_is_killed_after_it_has_counts_gets_the_same_and_charges_nothing_twice(charged: Any):
    study = COVERED.replace("under one budget", "under one budget, once more")
    before = {}
    for name in THREE:
        policy = charged.root / "packages" / "sites" / name / "policy.toml"
        policy.write_text(POLICY.format(budget=40))
        charged.approve(name, study, THREE)
        before[name] = len(charges(charged, name))
    command(charged, words(charged, study, THREE), KILLED, code=-9)
    found = {name: charges(charged, name) for name in THREE}
    ended, said = command(charged, ["study", "resume", newest(charged).run, "--json"])
    assert ended["status"] == "completed", said
    for name in THREE:
        now = charges(charged, name)
        # The own model and the pairs come after; nothing that was charged is charged once more.
        assert now[: len(found[name])] == found[name] and len(now) == len(found[name]) + 2
        assert len(now) == before[name] + 2 + 3 + 2 + 2


def charges(consortium: Any, name: str) -> list[dict[str, Any]]:
    return [line for line in consortium.sites[name].lines() if line["kind"] == "spent"]
