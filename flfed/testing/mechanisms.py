"""What every mechanism keeps: it promises no more than its noise gives, on tables that differ by one row."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from flfed.rows.features.encode import Encoded
from flfed.rows.models.logistic import Logistic
from flfed.rows.training.private.noise import SeededNoise
from flfed.rows.training.requests import FitRequest
from flfed.rows.training.stacked.private_fit import private_fit
from flfed.study.plan import Plan, PrivateSteps
from flfed.study.study import Study
from flfed.study.tables import Named
from flfed.testing.rules import LISTED, Rule, Subject, check, hold
from flfed.testing.strategies import importing_it_brings_no_tables
from flfed.updates.accounting import Release, epsilon
from flfed.updates.mechanism import BUDGETS, Mechanism, uncharged_outputs
from flfed.updates.messages.fields import Arrays

ROUNDS = 3
STEPS = 4
SITES = 12
ROWS = 20
CLOSE = 1e-9
STUDY = f"""
format = 1
name = "checked"
purpose = "check a mechanism"
legal-basis = "no data"
[dataset]
name = "none"
[model]
name = "logistic"
[plan]
steps = {STEPS}
[strategy]
name = "fedavg"
rounds = {ROUNDS}
"""


def check_mechanism(mechanism: type[Any], settings: Mapping[str, Any] | None = None) -> None:
    """Check a mechanism against its contract.

    Parameters
    ----------
    mechanism : class
        A subclass of `flfed.updates.mechanism.Mechanism`.
    settings : mapping of parameter to value, optional
        For its constructor.

    Raises
    ------
    RuleBroken
        For the first rule that does not hold.

    Examples
    --------
    >>> from flfed.updates.privacy.site_dp import SiteDp
    >>> check_mechanism(SiteDp)
    """
    check(MECHANISM_RULES, Subject(mechanism, settings or {}))


def it_builds_on_mechanism(subject: Subject) -> None:
    """A run asks it what `Mechanism` answers; what it does not change has the answer there."""
    hold(issubclass(subject.kind, Mechanism), "it is no subclass of flfed.updates.mechanism.Mechanism")


def the_docstring_names_a_guarantee_and_its_neighbours(subject: Subject) -> None:
    """A promise says against whom it holds and which two tables cannot be told apart; none is said too."""
    text = inspect.getdoc(subject.kind) or ""
    hold("Guarantee:" in text, "its docstring has no paragraph 'Guarantee: ...'")
    hold("neighbours" in text.partition("Guarantee:")[2].lower(), "its Guarantee does not name the neighbours")


def its_promise_is_what_its_rounds_spend(subject: Subject) -> None:
    """What all rounds release, by the accountant, is what is promised: never less is spent than is said."""
    made = subject.make()
    plan = _study().plan
    promise = made.promise(plan, ROUNDS)
    release = made.round_release(plan, ROUNDS)
    steps = made.private_steps(plan, ROUNDS)
    if promise is None:
        hold(release is None, "it promises nothing, and has sites write down that they spent something")
        hold(made.spent(plan, ROUNDS, 1) is None, "it promises nothing, and says what a round spends")
        return
    hold(0 < promise.delta < 1 and 0 < promise.epsilon < math.inf, f"it promises {promise.epsilon}, {promise.delta}")
    if release is not None:
        every = epsilon([release] * ROUNDS, promise.delta)
        hold(every <= promise.epsilon + CLOSE, f"its rounds spend {every:g}, it promises {promise.epsilon:g}")
    if steps is not None:
        taken = Release(steps.noise, steps.sampling, plan.steps)
        hold(release is not None, "sites take protected steps, and no ledger would count them")
        hold(release == taken, f"a round takes {taken}, and {release} is counted")
        found = (promise.noise, promise.sampling, promise.unit, promise.steps)
        really = (steps.noise, steps.sampling, steps.unit, plan.steps * ROUNDS)
        hold(found == really, f"it promises steps of {found}, sites take {really}")


def spending_grows_from_nothing_to_the_promise(subject: Subject) -> None:
    """A run that ends early has spent no more than was promised, and no round is free."""
    made = subject.make()
    plan = _study().plan
    promise = made.promise(plan, ROUNDS)
    if promise is None:
        return
    spent = [made.spent(plan, ROUNDS, asked) for asked in range(ROUNDS + 1)]
    hold(spent[0] == 0, f"before the first round {spent[0]} is spent")
    grows = all(a < b for a, b in zip(spent, spent[1:], strict=False))
    hold(grows, f"round by round {spent} is spent, which does not grow")
    hold(abs(spent[-1] - promise.epsilon) <= CLOSE, f"all rounds spend {spent[-1]:g} of {promise.epsilon:g}")
    quick = [made.spent(plan, ROUNDS, asked, quick=True) for asked in range(ROUNDS + 1)]
    low = [asked for asked in range(ROUNDS + 1) if quick[asked] < spent[asked] - CLOSE]
    hold(not low, f"the quick figure of {low} rounds is below what is spent")


def a_row_moves_a_step_by_its_clip_at_most(subject: Subject) -> None:
    """With and without any one row, the summed gradients of a step are within the clip that is promised."""
    made = subject.make()
    plan = _study().plan
    steps = made.private_steps(plan, ROUNDS)
    promise = made.promise(plan, ROUNDS)
    if steps is None:
        return
    clip = steps.clip if promise is None else promise.clip
    whole = _summed(steps, np.arange(ROWS))
    apart = [_apart(whole, _summed(steps, np.delete(np.arange(ROWS), row))) for row in range(ROWS)]
    hold(max(apart) <= clip * (1 + CLOSE), f"a row moves the sum by {max(apart):g}, the clip is {clip:g}")


def a_site_moves_the_mean_by_its_clip_at_most(subject: Subject) -> None:
    """With and without any one site's update, means over the sites asked are within `clip / asked`."""
    made = subject.make()
    deltas = _deltas()
    whole = _merged(made, deltas, 0.0)
    promise = made.promise(_study().plan, ROUNDS)
    if whole is None or promise is None:
        return
    gaps = []
    for site in deltas:
        without = {other: delta for other, delta in deltas.items() if other != site}
        gaps.append(_apart(whole, _merged(made, without, 0.0) or {}))
    most = max(gaps)
    bound = promise.clip / SITES
    hold(most <= bound * (1 + CLOSE), f"a site moves the mean by {most:g}, the clip allows {bound:g}")
    hold(list(whole) == list(_like()), f"its arrays are {list(whole)} instead of {list(_like())}")


def the_mean_has_the_noise_of_the_promise(subject: Subject) -> None:
    """Draws of one are what a deviation of `noise * clip / asked` makes of them, in every coordinate."""
    made = subject.make()
    still, noisy = (_merged(made, _deltas(), draw) for draw in (0.0, 1.0))
    promise = made.promise(_study().plan, ROUNDS)
    if still is None or noisy is None or promise is None:
        return
    expected = promise.noise * promise.clip / SITES
    gap = max(float(np.abs(noisy[name] - still[name] - expected).max()) for name in still)
    hold(gap <= CLOSE * expected, f"its noise is not of {promise.noise:g} times the clip over the sites: {gap:g} off")


def one_site_is_not_judged_by_the_others(subject: Subject) -> None:
    """Where a site is hidden, an update set aside for the others' norms would tell of it, by more than its clip."""
    made = subject.make()
    promise = made.promise(_study().plan, ROUNDS)
    if promise is not None and promise.unit == "site":
        hold(made.refuses_by_norm is False, "the guard sets updates aside by the others' norms: refuses_by_norm")


def it_says_what_is_not_in_its_promise(subject: Subject) -> None:
    """Whoever believes the promise reads beside it all that leaves a site without noise."""
    study = _study()
    made = subject.make()
    found = made.uncharged(study)
    told = (BUDGETS,) if made.round_release(study.plan, study.rounds) is not None else ()
    lacking = [sentence for sentence in (*uncharged_outputs(study), *told) if sentence not in found]
    hold(not lacking, f"it leaves out: {lacking[:1]}")
    said = [*found, *subject.make().warnings(study, SITES)]
    hold(all(isinstance(text, str) and text.strip().endswith(".") for text in said), "not all of it are sentences")


MECHANISM_RULES: tuple[Rule, ...] = (
    it_builds_on_mechanism,
    *LISTED,
    the_docstring_names_a_guarantee_and_its_neighbours,
    importing_it_brings_no_tables,
    its_promise_is_what_its_rounds_spend,
    spending_grows_from_nothing_to_the_promise,
    a_row_moves_a_step_by_its_clip_at_most,
    a_site_moves_the_mean_by_its_clip_at_most,
    the_mean_has_the_noise_of_the_promise,
    one_site_is_not_judged_by_the_others,
    it_says_what_is_not_in_its_promise,
)


def _study() -> Study:
    """Return a study that every mechanism should take; it names none, as another package's may not be installed."""
    return replace(Study.parse(STUDY), privacy=Named(name="checked"))


def _rows(kept: np.ndarray) -> Encoded:
    """Return rows of a real task, some of them far out, without those that are left out."""
    rng = np.random.default_rng(8)
    x = rng.normal(size=(ROWS, 4)) * rng.choice([0.1, 1.0, 50.0], size=(ROWS, 1))
    y = rng.integers(0, 2, ROWS)
    return Encoded(x=x[kept], y=y[kept].astype(float), weight=np.ones(len(kept)))


def _summed(steps: PrivateSteps, kept: np.ndarray) -> Arrays:
    """Return the summed gradient of one step over all of some rows, without its noise."""
    bare = replace(steps, noise=0.0, sampling=1.0)
    plan = Plan(steps=1, lr=1.0)
    rng = np.random.default_rng(9)
    arrays = {"weight": rng.normal(size=(4, 1)), "bias": rng.normal(size=1)}
    request = FitRequest(
        model=Logistic(), task="binary", arrays=arrays, rows=_rows(kept), plan=plan, lr=1.0,
        rng=rng, private=bare, chance=SeededNoise(rng), delta=True,
    )  # fmt: skip
    return {name: -len(kept) * value for name, value in private_fit(request).arrays.items()}


def _like() -> Arrays:
    return {"weight": np.zeros((4, 2)), "bias": np.zeros(2)}


def _deltas() -> dict[str, Arrays]:
    """Return updates of which some are far longer than any bound, and one is nothing."""
    rng = np.random.default_rng(10)
    scales = [0.0, 1e-3, *rng.lognormal(0, 3, SITES - 2)]
    deltas = {}
    for n, scale in enumerate(scales):
        deltas[f"site-{n:02d}"] = {name: scale * rng.normal(size=value.shape) for name, value in _like().items()}
    return deltas


def _merged(made: Any, deltas: Mapping[str, Arrays], draw: float) -> Arrays | None:
    found: Arrays | None = made.merged(
        deltas, plan=_study().plan, rounds=ROUNDS, asked=SITES, normals=lambda count: np.full(count, draw)
    )
    return found


def _apart(a: Arrays, b: Arrays) -> float:
    """Return the L2 norm of the difference over all arrays together."""
    return math.sqrt(sum(float(np.square(a[name] - b[name]).sum()) for name in a))
