"""What every attack of the listing keeps: the rules of `flfed.testing`; and that several run side by side."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from flfed.errors import UsageError
from flfed.registry import load, names
from flfed.rows.attacks.canaries import Canaries
from flfed.rows.comparison.attack_runner import Attacked, attack
from flfed.rows.session import SiteSession
from flfed.rows.training.answer import compute_one_by_one, run_client, stacked_compute
from flfed.rows.training.private_noise import Protection
from flfed.rows.training.requests import run_client_by
from flfed.study.plan import PrivateSteps
from flfed.study.study import Study
from flfed.summaries.summary import fit_encoder
from flfed.testing.at_sites import ATTACK_RULES, AttackSubject, check_attack
from flfed.testing.rules import RuleBroken, keep

ATTACKS = names("attack")
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


def test_there_are_four_attacks():
    assert ATTACKS == ["canaries", "gradient-inversion", "membership-inference", "summary-reconstruction"]


@pytest.mark.parametrize("rule", ATTACK_RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_keeps_every_rule_of_the_contract(name, rule, attacked):
    keep(rule, AttackSubject(kind=load("attack", name), settings=QUICK.get(name, {}), attacked=attacked))


def broken(**parts: Any) -> type[Any]:
    """Return canaries that differ in some parts."""
    return type("Canaries", (Canaries,), {"__doc__": Canaries.__doc__, **parts})


def changed(**fields: Any) -> Any:
    """Return a `findings` whose finding has other fields."""

    def findings(self: Any, given: Attacked) -> Any:
        found = yield from Canaries.findings(self, given)
        return tuple(replace(finding, **fields) for finding in found)

    return findings


def forgetful(self: Any, given: Attacked) -> Any:
    """Find something else each time."""
    found = yield from Canaries.findings(self, given)
    FORGOTTEN.append(len(FORGOTTEN))
    return tuple(replace(finding, rows=finding.rows + len(FORGOTTEN)) for finding in found)


def scribbling(self: Any, given: Attacked) -> Any:
    """Write into the model."""
    given.arrays["bias"][0] += 1
    return (yield from Canaries.findings(self, given))


def careless(self: Any, given: Attacked) -> Any:
    """Tell of few rows, too."""
    found = yield from Canaries.findings(self, given)
    return tuple(replace(finding, rows=finding.rows or 3) for finding in found)


def loose(self: Any, coins: int) -> None:
    """Ask for coins without a default."""


FORGOTTEN: list[int] = []
BROKEN = {
    "the_docstring_names_a_source": broken(__doc__="Reveals: nothing."),
    "the_docstring_says_what_leaves": broken(__doc__="Source: none."),
    "the_signature_is_the_config_schema": broken(__init__=loose), "it_finds_what_it_names": broken(metrics=("other",)),
    "a_value_lies_in_its_interval": broken(findings=changed(low=9.0)),
    "it_is_beyond_a_promise_where_its_interval_is": broken(findings=changed(beyond=True)),
    "the_same_seed_gives_the_same_figures": broken(findings=forgetful),
    "the_model_is_left_as_it_was": broken(findings=scribbling),
    "of_few_rows_no_figure_leaves_an_institution": broken(findings=careless),
}  # fmt: skip


@pytest.mark.parametrize("rule", ATTACK_RULES, ids=lambda rule: rule.__name__)
def test_an_attack_that_breaks_a_rule_is_told_by_that_rule(rule, attacked):
    with pytest.raises(RuleBroken, match=rule.__name__.replace("_", " ")):
        check_attack(BROKEN[rule.__name__], attacked, {"coins": 40})


def test_attacks_side_by_side_find_what_each_finds_alone(attacked):
    several = run_client(attack(attacked.session, attacked.arrays, attacked.encoder, ATTACKS, seed=5, settings=QUICK))
    alone = [load("attack", name)(**QUICK.get(name, {})).findings(attacked) for name in ATTACKS]
    assert repr(several) == repr(tuple(finding for one in alone for finding in run_client(one)))
    assert len(several) == 6 + 2 + 1 + 1 and several[0].rows == 40


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
