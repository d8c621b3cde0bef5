"""What every codec keeps: it reads back what it packed, within the error that it states, and nothing else."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import numpy as np

from flfed.testing.rules import LISTED, Rule, Subject, check, hold
from flfed.testing.strategies import importing_it_brings_no_tables
from flfed.updates.codec import Codec, Shapes, shapes_of
from flfed.updates.messages.fields import Arrays

DRAWS = 4000
OFF = 6.0
"""Standard errors that a mean of draws may be off; of a hundred means, none is by chance."""
DTYPES = ("float64", "float32")


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
    check(CODEC_RULES, Subject(codec, settings or {}))


def it_builds_on_codec(subject: Subject) -> None:
    """Sites and server ask it what `Codec` answers; what it does not change has the answer there."""
    hold(issubclass(subject.kind, Codec), "it is no subclass of flfed.updates.codec.Codec")


def the_docstring_says_what_it_reveals(subject: Subject) -> None:
    """Whoever approves a study reads what of an update can still be seen: fewer bytes are no protection."""
    hold("Reveals:" in (inspect.getdoc(subject.kind) or ""), "its docstring has no paragraph 'Reveals: ...'")


def the_packed_shapes_follow_from_the_model(subject: Subject) -> None:
    """A gate knows what a message must look like before it comes: no value of the arrays has a say in it."""
    for dtype in DTYPES:
        for arrays in (_arrays(dtype), _zeros(dtype), _tiny(dtype)):
            made = subject.make()
            rng = np.random.default_rng(1)
            expected = made.shapes(shapes_of(arrays))
            found = shapes_of(made.encode(arrays, rng))
            hold(found == dict(expected), f"it packs {found} instead of {dict(expected)}")


def it_takes_fewer_bytes_than_the_model(subject: Subject) -> None:
    """Of a model of some hundred parameters in single precision; else nothing is gained by it."""
    model = shapes_of(_arrays("float32"))
    packed = _bytes(subject.make().shapes(model))
    plain = _bytes(model)
    hold(packed < plain, f"it takes {packed} bytes, the model itself {plain}")


def it_reads_back_names_shapes_and_types(subject: Subject) -> None:
    """What is unpacked takes the place of the arrays in everything that follows."""
    for dtype in DTYPES:
        arrays = _arrays(dtype)
        found = shapes_of(_back(subject, arrays))
        expected = shapes_of(arrays)
        hold(found == expected and list(found) == list(expected), f"it reads {found} instead of {expected}")


def it_errs_by_no_more_than_it_says(subject: Subject) -> None:
    """Every entry that is read back lies within `largest_error` of what it was."""
    for dtype in DTYPES:
        for arrays in (_arrays(dtype), _tiny(dtype), _uneven(dtype)):
            stated = subject.make().largest_error(arrays)
            found = _back(subject, arrays)
            for name, value in arrays.items():
                gap = float(np.abs(found[name].astype(np.float64) - value).max())
                hold(gap <= stated[name], f"an entry of {name!r} is {gap:g} off, {stated[name]:g} is stated")


def zeros_come_back_as_zeros(subject: Subject) -> None:
    """A site that learned nothing must not move the model."""
    found = _back(subject, _zeros("float64"))
    hold(all(not value.any() for value in found.values()), "an update of zeros comes back as another one")


def it_is_unbiased_where_it_says_so(subject: Subject) -> None:
    """Over sites and rounds what was rounded away comes back, or a small update would never count."""
    made = subject.make()
    rng = np.random.default_rng(2)
    arrays = _uneven("float64")
    if not made.unbiased:
        return
    model = shapes_of(arrays)
    error = made.largest_error(arrays)
    drawn = [made.decode(made.encode(arrays, rng), model) for _ in range(DRAWS)]
    for name, value in arrays.items():
        mean = np.mean([one[name] for one in drawn], axis=0)
        # No draw is further off than that, so that their deviation is no larger.
        deviation = error[name] / math.sqrt(DRAWS)
        off = float(np.abs(mean - value).max())
        hold(off <= OFF * deviation, f"the mean of {DRAWS} draws of {name!r} is {off:g} off")


def the_same_state_gives_the_same_bytes(subject: Subject) -> None:
    """A round that is done again after a failure sends what it sent before."""
    first, second = (subject.make().encode(_arrays("float64"), np.random.default_rng(3)) for _ in range(2))
    same = {name: value.tobytes() for name, value in first.items()} == {
        name: value.tobytes() for name, value in second.items()
    }
    hold(same, "two generators of the same state gave different bytes")


def the_given_arrays_are_unchanged(subject: Subject) -> None:
    """They are the caller's: the model itself, or what error feedback is reckoned from."""
    made = subject.make()
    arrays = _arrays("float64")
    packed = _packed(subject)
    before = [(name, value.copy()) for name, value in chain(arrays.items(), packed.items())]
    made.encode(arrays, np.random.default_rng(4))
    made.decode(packed, shapes_of(arrays))
    after = list(chain(arrays.items(), packed.items()))
    same = len(before) == len(after) and all(
        one == other and np.array_equal(was, now) for (one, was), (other, now) in zip(before, after, strict=True)
    )
    hold(same, "what it was given became something else")


def it_finds_no_defect_in_what_it_packed(subject: Subject) -> None:
    """An honest site is never set aside."""
    for dtype in DTYPES:
        for arrays in (_arrays(dtype), _zeros(dtype), _tiny(dtype), _uneven(dtype)):
            made = subject.make()
            found = made.defect(made.encode(arrays, np.random.default_rng(5)), shapes_of(arrays))
            hold(found is None, f"it finds in what it packed itself: {found}")


def it_refuses_arrays_of_another_form(subject: Subject) -> None:
    """Names, lengths and types are looked at before anything is read by them."""
    made = subject.make()
    model = shapes_of(_arrays("float64"))
    for name, value in _packed(subject).items():
        rest = {key: other for key, other in _packed(subject).items() if key != name}
        wrong = {
            f"without {name!r}": rest,
            f"with {name!r} of another length": rest | {name: value[:-1]},
            f"with {name!r} of more dimensions": rest | {name: value[None]},
            f"with {name!r} of another type": rest | {name: value.astype(np.complex128)},
            "with one more array": rest | {name: value, "more": value},
        }
        for what, packed in wrong.items():
            hold(made.defect(packed, model) is not None, f"packed arrays {what} have no defect")


def it_refuses_what_is_not_finite(subject: Subject) -> None:
    """One site must not make everybody's model NaN, whether by its update or by what it says of it."""
    made = subject.make()
    model = shapes_of(_arrays("float64"))
    for bad in (math.nan, math.inf, -math.inf):
        for name in model:
            arrays = _arrays("float64")
            arrays[name].flat[0] = bad
            packed = made.encode(arrays, np.random.default_rng(6))
            hold(made.defect(packed, model) is not None, f"an update with {bad} in {name!r} has no defect")
        for name, packed in _spoilt(subject, bad):
            hold(made.defect(packed, model) is not None, f"packed arrays with {bad} in {name!r} have no defect")
    model = shapes_of(_arrays("float32"))
    # What is finite as it crosses must be so as it is read.
    for name, packed in _spoilt(subject, 3e38):
        refused = made.defect(packed, model) is not None
        found = {} if refused else made.decode(packed, model)
        hold(
            all(np.isfinite(value).all() for value in found.values()), f"with 3e38 in {name!r} it reads infinite values"
        )


CODEC_RULES: tuple[Rule, ...] = (
    it_builds_on_codec,
    *LISTED,
    the_docstring_says_what_it_reveals,
    importing_it_brings_no_tables,
    the_packed_shapes_follow_from_the_model,
    it_takes_fewer_bytes_than_the_model,
    it_reads_back_names_shapes_and_types,
    it_errs_by_no_more_than_it_says,
    zeros_come_back_as_zeros,
    it_is_unbiased_where_it_says_so,
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


def _tiny(dtype: str) -> Arrays:
    """Return an update of one entry, the fewest that there are."""
    return {"mean": np.array([0.3], dtype)}


def _uneven(dtype: str) -> Arrays:
    """Return an update whose entries differ by five powers of ten, some of them zeros, in arrays of unlike sizes."""
    scales = np.array([1.0, 1e-5, 0.0, -1e-3, 1e-2, 1e-5, -1e-4, 1e-5])
    arrays = {"b": np.outer(scales, [3.0, 0.7, -0.2]), "a": 1e-3 * scales, "c": 1e-4 * scales[::-1]}
    return {name: value.astype(dtype) for name, value in arrays.items()}


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
    found: Arrays = subject.make().decode(packed, shapes_of(arrays))
    return found


def _bytes(shapes: Shapes) -> int:
    return sum(math.prod(shape) * dtype.itemsize for shape, dtype in shapes.values())
