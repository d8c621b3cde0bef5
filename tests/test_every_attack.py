"""What every attack of the listing keeps, and that several run side by side."""

import inspect
import math
import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from flfed.errors import UsageError
from flfed.registry import load, names
from flfed.rows.comparison.attack_runner import Attacked, Finding, attack
from flfed.rows.data.policy import Policy
from flfed.rows.session import SiteSession
from flfed.rows.training.answer import compute_one_by_one, run_client, stacked_compute
from flfed.rows.training.private_noise import Protection
from flfed.rows.training.requests import run_client_by
from flfed.study.plan import PrivateSteps
from flfed.study.study import Study
from flfed.summaries.summary import fit_encoder
from flfed.testing.rules import Subject, are_same, the_docstring_names_a_source, the_signature_is_the_config_schema

ATTACKS = names("attack")
MANY = 10**6
"""A cell minimum that no test table has."""
QUICK: dict[str, dict[str, Any]] = {
    "canaries": {"coins": 40}, "gradient-inversion": {"records": 12}, "membership-inference": {"shadows": 4},
}  # fmt: skip


@pytest.fixture
def attacked(small_sites, small_study) -> Attacked:
    """An open site and a model of it."""
    work = SiteSession(small_sites(1, rows=90)[0], Study.parse(small_study))
    encoder = fit_encoder(work.layout, work.exact_summary)
    inputs = work.training(encoder).x.shape[1]
    arrays = {"weight": np.linspace(-1, 1, inputs)[:, None], "bias": np.array([0.1])}
    return Attacked(session=work, arrays=arrays, encoder=encoder, seed=5)


def test_there_are_three_attacks():
    assert ATTACKS == ["canaries", "gradient-inversion", "membership-inference"]


@dataclass(frozen=True, kw_only=True)
class AttackSubject(Subject):
    """An attack, with an open site and a model of it."""

    attacked: Attacked

    def findings(self, attacked: Attacked | None = None) -> tuple[Finding, ...]:
        """Return what a new one finds."""
        return run_client(self.make().findings(attacked or self.attacked))


@pytest.fixture(params=ATTACKS)
def subject(request: pytest.FixtureRequest, attacked: Attacked) -> AttackSubject:
    name = request.param
    return AttackSubject(kind=load("attack", name), settings=QUICK.get(name, {}), attacked=attacked)


def test_an_attack_says_its_source_and_takes_what_a_study_may_set(subject: Subject) -> None:
    the_docstring_names_a_source(subject)
    the_signature_is_the_config_schema(subject)


def test_the_docstring_says_what_leaves(subject: Subject) -> None:
    """An attack's figures leave the site: whoever allows it reads what they reveal."""
    assert "Reveals:" in (inspect.getdoc(subject.kind) or "")


def test_it_finds_what_it_names(subject: AttackSubject) -> None:
    """A reader looks a figure up by the attack's name and its metrics."""
    name = re.sub(r"(?<!^)(?=[A-Z])", "-", subject.kind.__name__).lower()
    findings = subject.findings()
    assert findings
    for finding in findings:
        assert finding.attack == name
        assert finding.metric in subject.kind.metrics
    assert len({finding.metric for finding in findings}) == len(findings)


def test_a_value_lies_in_its_interval(subject: AttackSubject) -> None:
    """A figure without an interval says more than is known.

    That of a bound ends where the bound is.
    """
    for finding in subject.findings():
        right = finding.low <= finding.value and (math.isnan(finding.high) or finding.value <= finding.high)
        assert right
        assert finding.method and finding.rows > 0
        assert finding.says.endswith(".")


def test_it_is_beyond_a_promise_where_its_interval_is(subject: AttackSubject) -> None:
    """The verdict is the lower limit against the promise, and without a promise there is none."""
    for promised in (None, (1e-6, 0.0), (50.0, 0.0)):
        for finding in subject.findings(replace(subject.attacked, promised=promised)):
            right = finding.beyond == (finding.low > finding.promise)
            assert right
            silent = promised is not None or math.isnan(finding.promise)
            assert silent


def test_the_same_seed_gives_the_same_figures(subject: AttackSubject) -> None:
    """An audit can be repeated, and a repetition reveals no more."""
    one = subject.findings()
    other = subject.findings()
    assert repr(one) == repr(other)


def test_the_model_is_left_as_it_was(subject: AttackSubject) -> None:
    """The arrays are the caller's, who attacks them again or sends them on."""
    before = {name: value.copy() for name, value in subject.attacked.arrays.items()}
    subject.findings()
    assert are_same(before, subject.attacked.arrays)


def test_of_few_rows_no_figure_leaves_an_institution(subject: AttackSubject) -> None:
    """A figure of fewer rows than the cell minimum reveals people.

    The finding says why there is none.
    """
    work = subject.attacked.session
    site = replace(work.site, policy=Policy(disclosure="institution", cell_minimum=MANY))
    strict = SiteSession(site, work.study, table=work.table, protection=work.protection)
    for finding in subject.findings(replace(subject.attacked, session=strict)):
        figures = finding.value, finding.low, finding.high
        nothing = all(map(math.isnan, figures)) and not finding.rows
        assert nothing
        assert finding.says.startswith("No figure: ")


def test_attacks_side_by_side_find_what_each_finds_alone(attacked):
    several = run_client(attack(attacked.session, attacked.arrays, attacked.encoder, ATTACKS, seed=5, settings=QUICK))
    alone = [load("attack", name)(**QUICK.get(name, {})).findings(attacked) for name in ATTACKS]
    assert repr(several) == repr(tuple(finding for one in alone for finding in run_client(one)))
    assert len(several) == 6 + 2 + 1 and several[0].rows == 40


def test_shadow_models_are_asked_for_together_so_that_an_engine_can_stack_them(attacked):
    asked = []

    def answer(requests):
        asked.append(requests)
        return compute_one_by_one(requests)

    handler = attack(
        attacked.session, attacked.arrays, attacked.encoder, ["membership-inference"], settings=QUICK, seed=5
    )
    run_client_by(handler, answer)
    shadows, scores = asked
    # One stack of four shadows through all rounds, which may train in a process of its own; then they and the model.
    assert [[len(fits) for fits in request.rounds] for request in shadows] == [[4] * attacked.session.study.rounds]
    assert len(scores) == 5


@pytest.mark.parametrize("noise", [None, 1.0])
def test_models_trained_in_a_stack_give_the_same_figures(attacked, noise):
    work = attacked.session
    if noise:
        protection = Protection(steps=PrivateSteps(clip=1.0, noise=noise, sampling=0.2))
        work = SiteSession(work.site, work.study.replace({"plan.steps": 5}), table=work.table, protection=protection)
    several = [
        run_client_by(attack(work, attacked.arrays, attacked.encoder, settings=QUICK, seed=5), answer)
        for answer in (compute_one_by_one, stacked_compute())
    ]
    values = [[finding.value for finding in found] for found in several]
    np.testing.assert_allclose(*values, atol=1e-2)  # of cosines hundredths leave


def test_an_unknown_attack_or_setting_is_refused_with_what_is_allowed(attacked):
    given = attacked.session, attacked.arrays, attacked.encoder
    with pytest.raises(UsageError, match="canaries"):
        run_client(attack(*given, ["canary"]))
    with pytest.raises(UsageError, match="coins"):
        run_client(attack(*given, ["canaries"], settings={"canaries": {"coin": 3}}))
    with pytest.raises(UsageError, match="must be >= 20"):
        run_client(attack(*given, ["canaries"], settings={"canaries": {"coins": 3}}))
