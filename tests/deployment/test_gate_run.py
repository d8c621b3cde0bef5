"""A whole run through the gate: it changes no bit of the result, and writes down everything that leaves."""

import numpy as np
import pytest

from flfed.deployment.gate.message_check import message_defect
from flfed.deployment.gate.message_schema import StudyMessages
from flfed.federation.engines.engine import find_sites
from flfed.rows.data import datasets
from flfed.rows.data.policy import Policy
from flfed.study.study import Study
from flfed.updates.messages.in_memory import count_bytes
from flfed.updates.messages.train import lacks_encoder, with_encoder
from flfed.updates.sections import most_bytes

pytestmark = [pytest.mark.slow, pytest.mark.studies]

FEDPROX = ('name = "fedavg"', 'name = "fedprox"\nmu = 0.1')
VARIANTS = {
    "plain": [], "fedprox": [FEDPROX],
    "validation": [("l2 = 0.01", "l2 = 0.01\nvalidation = 0.3\nschedule = 'plateau'\nplateau-patience = 1")],
    "float32 mlp": [('name = "logistic"', 'name = "mlp"\nhidden = [4, 3]'), ("l2 = 0.01", "precision = 'float32'")],
    "alert budget": [("resamples = 200", "resamples = 200\nalert-budget = 0.3")],
    "missing, best": [("l2 = 0.01", "validation = 0.3\n[encode]\nmissing-indicator = true"),
                      ("rounds = 5", "rounds = 5\nselect = 'best'\npatience = 2")],
    "balanced, unscaled": [("l2 = 0.01", "class-weight = 'balanced'\n[encode]\nscaler = 'none'")],
}  # fmt: skip


CASES = [(variant, ("open", "institution")[number % 2]) for number, variant in enumerate(VARIANTS)]


@pytest.mark.parametrize(("variant", "disclosure"), [("plain", "institution"), *CASES])
def test_an_honest_run_passes_the_gate_whatever_the_study_asks(
    gated, conducted_through, conduct, small_study: str, variant: str, disclosure: str
):
    text = small_study
    for before, after in VARIANTS[variant]:
        text = text.replace(before, after)
    outputs = ("score-histogram",) if variant == "plain" else ()
    site = gated(text, policy=Policy(disclosure=disclosure, outputs=outputs))
    outcome, grid = conducted_through(site)
    assert outcome.status == "completed"
    assert [reply.error.reason for reply in grid.replied if reply.has_error()] == []
    # That rows are released is written down by an institution, once, and is no message.
    lines = [line for line in site.lines() if line.kind != "snapshot"]
    assert (len(site.lines()) > len(lines)) == (disclosure == "institution")
    assert [line.kind for line in lines][:3] == ["enrol", "summarise", "train"]
    assert [line.facts["bytes"] for line in lines] == [count_bytes(reply.content) for reply in grid.replied]
    # Every kind, as often as it was asked: rounds, a last evaluation, the comparison.
    assert len(lines) == len(grid.replied) == outcome.rounds + 4
    # The institution's other sites have open rows too, so the same arrays come of a run without any gate.
    same = conduct([site.site, *site.others], text).outcome
    for name, value in outcome.arrays.items():
        np.testing.assert_array_equal(value, same.arrays[name])


@pytest.mark.parametrize("name", ["diabetes", "wine", "heart-disease"])
def test_every_message_of_shipped_studies_is_as_the_gate_expects(conduct, heart, name: str):
    study = Study.load(name).replace({"strategy.rounds": 2, "compare.resamples": 200})
    ran = conduct(find_sites(study), study.text)
    assert ran.outcome.status == "completed"
    sites = {site.name: site for site in find_sites(study)}
    schema = datasets.load(study.dataset.name).schema
    heard = {(h.kind, h.direction) for h in ran.grid.heard}
    assert len(heard) == 10
    for one in ran.grid.heard:
        expected = StudyMessages(study, schema, sites[one.site])
        sections = expected.incoming(one.kind) if one.direction == "to-site" else expected.leaving(one.kind)
        content = one.message.content
        content = with_encoder(content, ran.outcome.encoder.arrays()) if lacks_encoder(content) else content
        assert message_defect(content, sections) is None, (one.kind, one.direction)
        # What is allowed is not much more than what is sent.
        if one.direction == "to-server" and one.kind == "train":
            assert most_bytes(sections) < count_bytes(one.message.content) + 5000
    assert expected.run_bytes() < 200_000
