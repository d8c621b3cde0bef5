"""Settings of tables and listed classes: keys, types and ranges, by the signature alone."""

import inspect
import math
from typing import Annotated, Literal

import pytest
from pydantic import Field

from flfed import registry
from flfed.errors import UsageError
from flfed.study.plan import Plan
from flfed.study.settings import Settings, hints_of, read_settings
from flfed.study.tables import Compare, Encode, Partition
from flfed.updates.privacy.record_dp import RecordDp
from flfed.updates.strategies.fedavg import FedAvg


def thing(
    *,
    rate: float = 0.1,
    batch_rows: int = 32,
    name: str = "x",
    on: bool = False,
    kind: Literal["a", "b"] = "a",
    level: Literal[1, 2] = 1,
    widths: tuple[int, ...] = (3,),
    cap: int | None = None,
) -> None:
    """A signature of every type that a setting may have."""


def test_every_type_of_setting_comes_through():
    given_ = {
        "rate": 0.5, "batch-rows": 8, "name": "y", "on": True, "kind": "b", "level": 2, "widths": [4, 5], "cap": 7,
    }  # fmt: skip
    assert read_settings(thing, given_, "[x]") == {
        "rate": 0.5, "batch_rows": 8, "name": "y", "on": True, "kind": "b", "level": 2, "widths": (4, 5), "cap": 7,
    }  # fmt: skip
    assert read_settings(thing, {}, "[x]") == {}


def test_a_whole_number_may_stand_for_a_number_and_nothing_else_for_anything():
    found = read_settings(thing, {"rate": 1}, "[x]")["rate"]
    assert found == 1.0 and type(found) is float
    for key, value, said in (
        ("rate", True, "a number"), ("rate", "0.1", "a number"), ("batch-rows", 8.0, "a whole number"),
        ("batch-rows", True, "a whole number"), ("name", 3, "a text"), ("on", 1, "true or false"),
        ("on", "yes", "true or false"), ("kind", "c", "one of 'a', 'b'"), ("kind", 1, "one of 'a', 'b'"),
        ("level", True, "one of 1, 2"), ("level", 3, "one of 1, 2"), ("widths", 4, "a list"),
        ("widths", "45", "a list"), ("cap", "7", "a whole number"), ("kind", ["a"], "one of 'a', 'b'"),
    ):  # fmt: skip
        with pytest.raises(UsageError) as caught:
            read_settings(thing, {key: value}, "[x]")
        assert str(caught.value) == f"[x]: {key}={value!r} must be {said}"
    with pytest.raises(UsageError) as caught:
        read_settings(thing, {"widths": [3, 4.5]}, "[x]")
    assert str(caught.value) == "[x]: widths=4.5 must be a whole number"


def test_an_unknown_key_is_answered_with_the_nearest_and_all_that_are_allowed():
    with pytest.raises(UsageError) as caught:
        read_settings(thing, {"batch-row": 8}, "[plan]")
    text = str(caught.value)
    assert "[plan]: key 'batch-row' is not known; did you mean 'batch-rows'?" in text
    assert "rate, batch-rows, name, on, kind, level, widths, cap" in text


def test_python_names_are_no_keys():
    """One spelling: what a study says is what a record says."""
    with pytest.raises(UsageError, match="did you mean 'batch-rows'"):
        read_settings(thing, {"batch_rows": 8}, "[plan]")


@pytest.mark.parametrize(("kind", "given", "said"), [
    (Plan, {"lr": "fast"}, "[plan]: lr='fast' must be a number"),
    (Plan, {"optimiser": "lion"}, "[plan]: optimiser='lion' must be one of 'sgd', 'adam', 'adamw'"),
    (Encode, {"rows": "some"}, "[encode]: rows='some' must be one of 'all', 'complete'"),
    (Encode, {"missing_indicator": 1}, "[encode]: missing-indicator=1 must be true or false"),
    (Partition, {"sites": 2.5}, "[dataset] partition: sites=2.5 must be a whole number"),
    (Partition, {"alpha": float("inf")}, "[dataset] partition: alpha=inf must be a finite number"),
    (Compare, {"minimum_gain": float("nan")}, "[compare]: minimum-gain=nan must be a finite number"),
    (FedAvg, {"deadline": float("inf")}, "[strategy]: deadline=inf must be a finite number"),
    (FedAvg, {"deadline": 1e10}, "[strategy]: deadline=10000000000.0 must be in (0, 2592000] seconds"),
    (FedAvg, {"refuse_norm": float("inf")}, "[strategy]: refuse-norm=inf must be a finite number"),
    (RecordDp, {"unit": "site"}, "[privacy]: unit='site' must be one of 'person', 'row'"),
    (RecordDp, {"sampling": 0.0}, "[privacy]: sampling=0.0 must be in (0, 1]"),
])  # fmt: skip
def test_what_is_made_in_python_is_checked_as_what_a_study_says(kind, given, said):
    with pytest.raises(UsageError) as caught:
        kind(**given)
    assert str(caught.value) == said


class Mild(RecordDp):
    """A mechanism of another package, with a constructor of its own."""

    def __init__(self, *, strength: float = 2.0) -> None:
        super().__init__(epsilon=strength, clip=0.5)
        self.strength = strength


def test_a_class_of_another_package_may_write_its_constructor_itself():
    assert hints_of(Mild) == {"strength": float}
    assert (Mild(strength=4.0).epsilon, Mild().clip, Mild().strength) == (4.0, 0.5, 2.0)
    with pytest.raises(UsageError, match=r"\[privacy\]: epsilon=200.0 must be in"):
        Mild(strength=200.0)
    with pytest.raises(UsageError, match="key 'epsilon' is not known"):
        read_settings(Mild, {"epsilon": 1.0}, "[privacy] mild")


class Wide(Settings, where="[wide]", frozen=True):
    """Settings with ranges of every kind."""

    above: Annotated[float, Field(gt=1)] = 2.0
    least: Annotated[int, Field(ge=3)] = 3
    closed: Annotated[float, Field(ge=0, le=1)] = 0.0
    half: Annotated[float | None, Field(gt=0, lt=1)] = None
    worded: Annotated[int, Field(ge=0), ">= 0; 0 means none"] = 0


@pytest.mark.parametrize(("key", "value", "said"), [
    ("above", 1.0, "> 1"), ("least", 2, ">= 3"), ("closed", 1.5, "in [0, 1]"), ("half", 0.0, "in (0, 1)"),
    ("worded", -1, ">= 0; 0 means none"),
])  # fmt: skip
def test_a_range_is_told_as_it_stands_beside_the_type_or_in_the_words_after_it(key, value, said):
    with pytest.raises(UsageError) as caught:
        Wide(**{key: value})
    assert str(caught.value) == f"[wide]: {key}={value} must be {said}"
    assert Wide(half=0.5) == Wide(half=0.5) != Wide()


KINDS = ["strategy", "model", "metric", "mechanism", "codec", "attack", "split"]


@pytest.mark.parametrize("endless", [math.inf, -math.inf, math.nan])
def test_no_number_of_a_listed_class_may_be_endless(endless):
    for made in (registry.load(kind, name) for kind in KINDS for name in registry.names(kind)):
        for key in (registry.kebab(name) for name, hint in hints_of(made).items() if hint in (float, float | None)):
            with pytest.raises(UsageError, match=f"{key}={endless} must be a finite number"):
                read_settings(made, {key: endless}, "[x]")


@pytest.mark.parametrize("kind", KINDS)
def test_the_defaults_of_every_listed_class_are_what_a_study_may_say(kind):
    for name in registry.names(kind):
        made = registry.load(kind, name)
        defaults = {key: one.default for key, one in inspect.signature(made).parameters.items()}
        assert read_settings(made, {registry.kebab(key): value for key, value in defaults.items()}, name) == defaults
