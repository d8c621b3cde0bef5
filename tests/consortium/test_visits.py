"""A model over visits at three real institutions, in secure sums: killed between visits, resumed; and one away."""

from typing import Any

import pytest

from tests.consortium.test_one_list import POLICY, approve
from tests.consortium.test_secure_sums import FOUR, command, kill, newest, words

pytestmark = [pytest.mark.proof, pytest.mark.slow, pytest.mark.servers, pytest.mark.timeout(900)]
THREE = FOUR[:3]
GLM = """
format = 1
name = "small-odds"
purpose = "Estimate odds"
legal-basis = "none needed"
[dataset]
name = "small"
[statistic]
name = "glm"
family = "binomial"
of = ["x1", "x2", "colour"]
[privacy]
secure-aggregation = "on"
"""
KILLED = """
import os, signal
from flfed.updates.aggregation.secure_sum import SumQuestions
ask = SumQuestions._ask

def asking(self, send, kind, requests, reply):
    if (kind, self.number) == (%r, 2):
        os.kill(os.getpid(), signal.SIGKILL)
    return ask(self, send, kind, requests, reply)

SumQuestions._ask = asking
"""
"""A coordinator that is killed in the third visit."""
SHORT = """
from flfed.federation.server import run_setting
run_setting.deadline_of = lambda study: 60.0
"""
"""A coordinator that waits a minute, where it would wait ten."""


def test_a_killed_run_goes_on_to_the_same_figures_and_one_without_a_site_stops(consortium: Any):
    for name in FOUR:
        (consortium.root / "packages" / "sites" / name / "policy.toml").write_text(POLICY)
    serving = {name: consortium.sites[name].serve(f"site serve {name}") for name in THREE}
    consortium.online(3)
    approve(consortium, GLM, THREE)
    whole, said = command(consortium, words(consortium, GLM, THREE))
    assert whole["status"] == "completed", said
    figures = whole["statistics"]
    assert (figures["sites"], figures["rows"]) == (3, 390) and "by-site" not in figures
    command(consortium, words(consortium, GLM, THREE), KILLED % "query.unmask", code=-9)
    begun = newest(consortium).run
    resumed, said = command(consortium, ["study", "resume", begun, "--json"])
    assert (resumed["run"], resumed["status"]) == (begun, "completed"), said
    assert resumed["statistics"] == figures
    for name in THREE:
        lines = [line for line in consortium.sites[name].lines() if line["run"] == begun]
        visits = [(line["round"], line["asked-sha256"]) for line in lines if line["kind"] == "statistic"]
        # Visits before the kill are answered again, as they were.
        assert len(visits) > len(set(visits)) == figures["visits"]
    # One is away from the third visit on.
    command(consortium, words(consortium, GLM, THREE), KILLED % "query.statistic", code=-9)
    kill(serving, "gamma")
    consortium.online(2)
    _, said = command(consortium, ["study", "resume", newest(consortium).run, "--json"], SHORT, code=3)
    assert newest(consortium).status == "stopped", said
    assert "gamma" in newest(consortium).reason
