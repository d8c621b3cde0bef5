"""What every codec and every privacy mechanism keeps: what they do to updates, without a row.

A codec reads back what it packed, within the error that it states, and nothing else. A mechanism promises no more than
its noise gives, on tables that differ by one row.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from flfed.rows.features.encode import Encoded
from flfed.rows.models.logistic import Logistic
from flfed.rows.training.private_fit import private_fit
from flfed.rows.training.private_noise import SeededNoise
from flfed.rows.training.requests import FitRequest
from flfed.study.plan import Plan, PrivateSteps
from flfed.study.study import Study
from flfed.study.template import StudyTemplate
from flfed.testing.rules import LISTED, Rule, Subject, are_same, check, hold, hold_paragraph
from flfed.testing.strategies import importing_it_brings_no_tables
from flfed.updates.accounting import Release, epsilon
from flfed.updates.arrays import Arrays, Shapes, shapes_of
from flfed.updates.codec import Codec
from flfed.updates.mechanism import Mechanism, uncharged_outputs
from flfed.words import render

DTYPES = ("float64", "float32")
ROUNDS = 3
STEPS = 4
SITES = 12
ROWS = 20
CLOSE = 1e-9
PLAN = Plan(steps=STEPS)


def check_codec(codec: type[Any], settings: Mapping[str, Any] | None = None) -> None:
    """Check a codec against its contract.

    Parameters
    ----------
    codec : class
        A subclass of `flfed.updates.codec.Codec`.
    settings : mapping of parameter to value, optional
        For its constructor.

    Raises
    ------
    RuleBroken
        For the first rule that does not hold.

    Examples
    --------
    >>> from flfed.updates.codecs.int8 import Int8
    >>> check_codec(Int8)
    """
    check(CODEC_RULES, Subject(codec, settings))


def it_builds_on_codec(subject: Subject) -> None:
    """Sites and server ask it what `Codec` answers.

    What it does not change has the answer there.
    """
    hold(issubclass(subject.kind, Codec), "base", base="flfed.updates.codec.Codec")


def the_docstring_says_what_it_reveals(subject: Subject) -> None:
    """Whoever approves a study reads what of an update can still be seen: fewer bytes are no protection."""
    hold_paragraph(subject, "Reveals", "paragraph")


def the_packed_shapes_follow_from_the_model(subject: Subject) -> None:
    """A gate knows what a message must look like before it comes: no value of the arrays has a say in it."""
    for arrays in _updates():
        made = subject.make()
        expected = made.shapes(shapes_of(arrays))
        shapes = shapes_of(made.encode(arrays, np.random.default_rng(1)))
        hold(shapes == dict(expected), "packed-shapes", shapes=shapes, expected=dict(expected))


def it_takes_fewer_bytes_than_the_model(subject: Subject) -> None:
    """Of a model of some hundred parameters in single precision.

    Else nothing is gained by it.
    """
    model = shapes_of(_arrays("float32"))
    packed = _bytes(subject.make().shapes(model))
    plain = _bytes(model)
    hold(packed < plain, "bytes", packed=packed, plain=plain)


def it_reads_back_names_shapes_and_types(subject: Subject) -> None:
    """Unpacked arrays replace the originals in everything that follows."""
    for dtype in DTYPES:
        arrays = _arrays(dtype)
        decoded_shapes = shapes_of(_back(subject, arrays))
        expected = shapes_of(arrays)
        same = decoded_shapes == expected and list(decoded_shapes) == list(expected)
        hold(same, "decoded-shapes", shapes=decoded_shapes, expected=expected)


def zeros_come_back_as_zeros(subject: Subject) -> None:
    """A site that learned nothing must not move the model."""
    hold(not any(value.any() for value in _back(subject, _zeros("float64")).values()), "zeros")


def the_same_state_gives_the_same_bytes(subject: Subject) -> None:
    """A round that is done again after a failure sends what it sent before."""
    first, second = (_packed(subject) for _ in range(2))
    same = list(first) == list(second) and all(first[name].tobytes() == second[name].tobytes() for name in first)
    hold(same, "draws-differ")


def the_given_arrays_are_unchanged(subject: Subject) -> None:
    """They are the caller's: the model itself, or what error feedback is reckoned from."""
    made = subject.make()
    arrays = _arrays("float64")
    packed = _packed(subject)
    before = {name: value.copy() for name, value in packed.items()}
    made.encode(arrays, np.random.default_rng(4))
    made.decode(packed, shapes_of(arrays))
    same = are_same(arrays, _arrays("float64")) and are_same(packed, before)
    hold(same, "arguments")


def it_finds_no_defect_in_what_it_packed(subject: Subject) -> None:
    """An honest site is never set aside."""
    for arrays in _updates():
        made = subject.make()
        defect = made.defect(made.encode(arrays, np.random.default_rng(5)), shapes_of(arrays))
        hold(defect is None, "own-defect", defect=defect)


def it_refuses_arrays_of_another_form(subject: Subject) -> None:
    """Names, lengths and types are looked at before anything is read by them."""
    made = subject.make()
    model = shapes_of(_arrays("float64"))
    for name, value in _packed(subject).items():
        rest = {key: other for key, other in _packed(subject).items() if key != name}
        wrong = {
            "missing": rest,
            "cut short": rest | {name: value[:-1]},
            "of more dimensions": rest | {name: value[None]},
            "of another type": rest | {name: value.astype(np.complex128)},
            "given twice": rest | {name: value, "more": value},
        }
        for change, packed in wrong.items():
            hold(made.defect(packed, model) is not None, "wrong-form", name=name, change=change)


def it_refuses_what_is_not_finite(subject: Subject) -> None:
    """One site must not make everybody's model NaN, whether by its update or by what it says of it."""
    made = subject.make()
    model = shapes_of(_arrays("float64"))
    for bad in (math.nan, math.inf, -math.inf):
        for name in model:
            arrays = _arrays("float64")
            arrays[name].flat[0] = bad
            packed = made.encode(arrays, np.random.default_rng(6))
            hold(made.defect(packed, model) is not None, "update-infinite", bad=bad, name=name)
        for name, packed in _spoilt(subject, bad):
            hold(made.defect(packed, model) is not None, "packed-infinite", bad=bad, name=name)
    model = shapes_of(_arrays("float32"))
    # Values that are finite as they cross must be finite as they are read.
    for name, packed in _spoilt(subject, 3e38):
        refused = made.defect(packed, model) is not None
        decoded = {} if refused else made.decode(packed, model)
        hold(all(np.isfinite(value).all() for value in decoded.values()), "decoded-infinite", name=name)


CODEC_RULES: tuple[Rule, ...] = (
    it_builds_on_codec,
    *LISTED,
    the_docstring_says_what_it_reveals,
    importing_it_brings_no_tables,
    the_packed_shapes_follow_from_the_model,
    it_takes_fewer_bytes_than_the_model,
    it_reads_back_names_shapes_and_types,
    zeros_come_back_as_zeros,
    the_same_state_gives_the_same_bytes,
    the_given_arrays_are_unchanged,
    it_finds_no_defect_in_what_it_packed,
    it_refuses_arrays_of_another_form,
    it_refuses_what_is_not_finite,
)


def _arrays(dtype: str) -> Arrays:
    """Return an update whose names are in no order, with an odd number of entries and one array in Fortran's order."""
    rng = np.random.default_rng(7)
    shapes = {"weight-1": (8, 1), "bias-0": (8,), "weight-0": (30, 8), "bias-1": (1,)}
    made = {name: rng.normal(size=shape).astype(dtype) for name, shape in shapes.items()}
    return made | {"weight-0": np.asfortranarray(made["weight-0"])}


def _zeros(dtype: str) -> Arrays:
    return {name: np.zeros_like(value) for name, value in _arrays(dtype).items()}


def _uneven(dtype: str) -> Arrays:
    """Return an update whose entries differ by five powers of ten, some of them zeros, in arrays of unlike sizes."""
    scales = np.array([1.0, 1e-5, 0.0, -1e-3, 1e-2, 1e-5, -1e-4, 1e-5])
    arrays = {"b": np.outer(scales, [3.0, 0.7, -0.2]), "a": 1e-3 * scales, "c": 1e-4 * scales[::-1]}
    return {name: value.astype(dtype) for name, value in arrays.items()}


def _updates() -> Iterator[Arrays]:
    """Yield an update of each kind, in both precisions."""
    for dtype in DTYPES:
        one_entry = {"mean": np.array([0.3], dtype)}
        yield from (_arrays(dtype), _zeros(dtype), one_entry, _uneven(dtype))


def _packed(subject: Subject) -> Arrays:
    packed: Arrays = subject.make().encode(_arrays("float64"), np.random.default_rng(8))
    return {name: value.copy() for name, value in packed.items()}


def _spoilt(subject: Subject, value: float) -> Iterator[tuple[str, Arrays]]:
    """Yield packed arrays with a value at the end of one of them, for each that has numbers."""
    for name, array in _packed(subject).items():
        if array.dtype.kind == "f":
            array.flat[-1] = min(value, float(np.finfo(array.dtype).max)) if math.isfinite(value) else value
            yield name, _packed(subject) | {name: array}


def _back(subject: Subject, arrays: Arrays) -> Arrays:
    """Return arrays as a reader has them who knows only the model's shapes."""
    packed = subject.make().encode(arrays, np.random.default_rng(9))
    decoded_arrays: Arrays = subject.make().decode(packed, shapes_of(arrays))
    return decoded_arrays


def _bytes(shapes: Shapes) -> int:
    return sum(math.prod(shape) * dtype.itemsize for shape, dtype in shapes.values())


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
    check(MECHANISM_RULES, Subject(mechanism, settings))


def it_builds_on_mechanism(subject: Subject) -> None:
    """A run asks it what `Mechanism` answers.

    What it does not change has the answer there.
    """
    hold(issubclass(subject.kind, Mechanism), "base", base="flfed.updates.mechanism.Mechanism")


def the_docstring_names_a_guarantee_and_its_neighbours(subject: Subject) -> None:
    """A promise says against whom it holds and which two tables look alike.

    So does the lack of one.
    """
    text = inspect.getdoc(subject.kind) or ""
    hold_paragraph(subject, "Guarantee", "paragraph")
    hold("neighbours" in text.partition("Guarantee:")[2].lower(), "neighbours")


def its_promise_is_what_its_rounds_spend(subject: Subject) -> None:
    """The accountant's ε of all rounds is the promised one: a run never spends more than it says."""
    made = subject.make()
    promise = made.promise(PLAN, ROUNDS)
    release = made.round_release(PLAN, ROUNDS)
    steps = made.private_steps(PLAN, ROUNDS)
    if promise is None:
        hold(release is None, "free-release")
        hold(made.spent(PLAN, ROUNDS, 1) is None, "free-spent")
        return
    possible = 0 < promise.delta < 1 and 0 < promise.epsilon < math.inf
    hold(possible, "promise", epsilon=promise.epsilon, delta=promise.delta)
    if release is not None:
        every = epsilon([release] * ROUNDS, promise.delta)
        hold(every <= promise.epsilon + CLOSE, "overspent", spent=every, promised=promise.epsilon)
    if steps is not None:
        taken = Release(steps.noise, steps.sampling, PLAN.steps)
        hold(release is not None, "uncounted")
        hold(release == taken, "miscounted", taken=taken, counted=release)
        promised_steps = (promise.noise, promise.sampling, promise.unit, promise.steps)
        really = (steps.noise, steps.sampling, steps.unit, PLAN.steps * ROUNDS)
        hold(promised_steps == really, "steps", promised=promised_steps, taken=really)


def spending_grows_from_nothing_to_the_promise(subject: Subject) -> None:
    """A run that ends early has spent no more than was promised, and no round is free."""
    made = subject.make()
    promise = made.promise(PLAN, ROUNDS)
    if promise is None:
        return
    spent = [made.spent(PLAN, ROUNDS, number) for number in range(ROUNDS + 1)]
    hold(spent[0] == 0, "spent-first", spent=spent[0])
    hold(all(a < b for a, b in pairwise(spent)), "spent-still", spent=spent)
    hold(abs(spent[-1] - promise.epsilon) <= CLOSE, "spent-last", spent=spent[-1], promised=promise.epsilon)
    quick = [made.spent(PLAN, ROUNDS, number, quick=True) for number in range(ROUNDS + 1)]
    low = [number for number in range(ROUNDS + 1) if quick[number] < spent[number] - CLOSE]
    hold(not low, "spent-quick", rounds=low)


def a_row_moves_a_step_by_its_clip_at_most(subject: Subject) -> None:
    """With and without any one row, the summed gradients of a step are within the clip that is promised."""
    made = subject.make()
    steps = made.private_steps(PLAN, ROUNDS)
    promise = made.promise(PLAN, ROUNDS)
    if steps is None:
        return
    clip = (promise or steps).clip
    whole = _summed(steps, np.arange(ROWS))
    apart = [_apart(whole, _summed(steps, np.delete(np.arange(ROWS), row))) for row in range(ROWS)]
    hold(max(apart) <= clip * (1 + CLOSE), "row-moves", moved=max(apart), clip=clip)


def a_site_moves_the_mean_by_its_clip_at_most(subject: Subject) -> None:
    """With and without any one site's update, means over the sites asked are within `clip / asked`."""
    made = subject.make()
    deltas = _deltas()
    whole = _merged(made, deltas, 0.0)
    promise = made.promise(PLAN, ROUNDS)
    if whole is None or promise is None:
        return
    most = 0.0
    for site in deltas:
        without = {other: delta for other, delta in deltas.items() if other != site}
        most = max(most, _apart(whole, _merged(made, without, 0.0) or {}))
    bound = promise.clip / SITES
    hold(most <= bound * (1 + CLOSE), "site-moves", moved=most, bound=bound)
    hold(list(whole) == list(_like()), "names", names=list(whole), expected=list(_like()))


def the_mean_has_the_noise_of_the_promise(subject: Subject) -> None:
    """Draws of one are what a deviation of `noise * clip / asked` makes of them, in every coordinate."""
    made = subject.make()
    still, noisy = (_merged(made, _deltas(), draw) for draw in (0.0, 1.0))
    promise = made.promise(PLAN, ROUNDS)
    if still is None or noisy is None or promise is None:
        return
    expected = promise.noise * promise.clip / SITES
    gap = max(float(np.abs(noisy[name] - still[name] - expected).max()) for name in still)
    hold(gap <= CLOSE * expected, "noise", gap=gap, noise=promise.noise)


def one_site_is_not_judged_by_the_others(subject: Subject) -> None:
    """Where a site is hidden, an update set aside for the others' norms would reveal it, by more than its clip."""
    made = subject.make()
    promise = made.promise(PLAN, ROUNDS)
    if promise is not None and promise.unit == "site":
        hold(made.refuses_by_norm is False, "by-norm")


def it_says_what_is_not_in_its_promise(subject: Subject) -> None:
    """Whoever believes the promise reads beside it every release without noise."""
    study = _study()
    made = subject.make()
    uncharged_sentences = made.uncharged(study)
    needed = list(uncharged_outputs(study))
    if made.round_release(study.plan, study.rounds) is not None:
        needed.append(render("mechanisms.uncharged.budgets"))
    lacking = [sentence for sentence in needed if sentence not in uncharged_sentences]
    hold(not lacking, "left-out", lacking=lacking[:1])
    texts = [*uncharged_sentences, *subject.make().warnings(study, SITES)]
    hold(all(isinstance(text, str) and text.strip().endswith(".") for text in texts), "sentences")


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
    """Return a study that every mechanism should take.

    It names none, as another package's may not be installed.
    """
    study = Study.parse(StudyTemplate(name="checked", dataset="none", rounds=ROUNDS).text())
    return replace(study.replace({"plan.steps": STEPS}), privacy=replace(study.privacy, name="checked"))


def _rows(selection: np.ndarray) -> Encoded:
    """Return rows of a real task, some of them far out, without those that are left out."""
    rng = np.random.default_rng(8)
    x = rng.normal(size=(ROWS, 4)) * rng.choice([0.1, 1.0, 50.0], size=(ROWS, 1))
    y = rng.integers(0, 2, ROWS)
    return Encoded(x=x[selection], y=y[selection].astype(float), weight=np.ones(len(selection)))


def _summed(steps: PrivateSteps, selection: np.ndarray) -> Arrays:
    """Return the summed gradient of one step over all of some rows, without its noise."""
    bare = replace(steps, noise=0.0, sampling=1.0)
    plan = Plan(steps=1, lr=1.0)
    rng = np.random.default_rng(9)
    arrays = {"weight": rng.normal(size=(4, 1)), "bias": rng.normal(size=1)}
    request = FitRequest(
        model=Logistic(), task="binary", arrays=arrays, rows=_rows(selection), plan=plan, lr=1.0,
        rng=rng, private=bare, chance=SeededNoise(rng), delta=True,
    )  # fmt: skip
    return {name: -len(selection) * value for name, value in private_fit(request).arrays.items()}


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
    merged: Arrays | None = made.merged(
        deltas, plan=PLAN, rounds=ROUNDS, asked=SITES, normals=lambda count: np.full(count, draw)
    )
    return merged


def _apart(a: Arrays, b: Arrays) -> float:
    """Return the L2 norm of the difference over all arrays together."""
    return math.sqrt(sum(float(np.square(a[name] - b[name]).sum()) for name in a))
