"""The kit that another package is checked with: what breaks a rule is told so, by that rule and by no other."""

import importlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flfed.errors import FlfedError
from flfed.rows.data.holdout import Holdout, HoldoutByTime
from flfed.rows.data.site import Site
from flfed.rows.data.sources import Frame
from flfed.rows.metrics.brier_score_loss import BrierScoreLoss
from flfed.rows.models.linear import Linear
from flfed.rows.models.mlp import Mlp
from flfed.testing import RuleBroken, check_metric, check_model, check_site, check_strategy
from flfed.updates.extra import ExtraArrays
from flfed.updates.strategies.fedavg import FedAvg

EXTENSION = Path(__file__).parent / "extension"
BROKEN_STRATEGIES = {
    "it_builds_on_fedavg": "Unbased", "the_docstring_names_a_source": "Unsourced",
    "the_signature_is_the_config_schema": "Loose",
    "replies_equal_to_what_was_sent_change_nothing": "Drifting", "updates_change_the_model": "Deaf",
    "the_order_of_replies_does_not_change_a_bit": "Hurried", "only_the_ratio_of_weights_counts": "Logarithmic",
    "no_replies_give_no_update": "Inventive",
    "arrays_beside_the_model_are_as_declared": "Undeclared",
    "a_resumed_run_goes_on_as_if_nothing_had_happened": "Forgetful",
}  # fmt: skip


def broken_by(check: Any, broken: dict[str, Any]) -> None:
    """Check that each thing breaks the rule it is listed under, first."""
    for rule, thing in broken.items():
        with pytest.raises(RuleBroken) as told:
            check(thing)
        assert rule.replace("_", " ") in str(told.value), (rule, str(told.value))
        assert isinstance(told.value, FlfedError) and isinstance(told.value, AssertionError)


def test_every_rule_of_strategies_is_broken_by_one_that_breaks_only_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(EXTENSION)
    modules = [importlib.import_module(name) for name in ("broken_strategies",)]
    found = {rule: next(vars(m)[name] for m in modules if name in vars(m)) for rule, name in BROKEN_STRATEGIES.items()}
    broken_by(check_strategy, found)


class Unsourced(Linear):
    """Says nothing of where it is from."""


class Positional(Linear):
    """Source: none."""

    def __init__(self, start: str = "zeros") -> None:
        super().__init__()


class Surviving(Linear):
    """Source: none."""

    tasks = ("survival",)


class Shrinking(Linear):
    """Source: none."""

    penalised = ("weight", "bias")


class Unseeded(Linear):
    """Source: none."""

    def first_arrays(self, inputs, outputs, rng):
        return {
            k: np.random.default_rng().normal(size=v.shape)
            for k, v in super().first_arrays(inputs, outputs, rng).items()
        }


class Unstacked(Linear):
    """Source: none."""

    def outputs(self, arrays, x):
        return super().outputs({k: v[0] if v.dim() > (2 if k == "weight" else 1) else v for k, v in arrays.items()}, x)


class Doubling(Linear):
    """Source: none."""

    def outputs(self, arrays, x):
        return super().outputs({**arrays, "bias": 2 * arrays["bias"]}, x)


class Constant(Linear):
    """Source: none."""

    def outputs(self, arrays, x):
        return super().outputs(arrays, 1e-9 * x)


class Relative(Linear):
    """Source: none."""

    def outputs(self, arrays, x):
        return super().outputs(arrays, x - x.mean(dim=-2, keepdim=True))


def test_every_rule_of_models_is_broken_by_one_that_breaks_only_it():
    broken_by(check_model, {
        "the_docstring_names_a_source": Unsourced, "the_signature_is_the_config_schema": Positional,
        "it_says_what_it_is": Surviving, "its_intercept_and_its_penalised_arrays_are_among_its_arrays": Shrinking,
        "first_arrays_follow_from_the_generator_alone": Unseeded,
        "a_stack_of_sites_gives_each_its_own_outputs": Unstacked,
        "the_intercept_moves_every_output_alike": Doubling, "training_lowers_the_loss": Constant,
        "no_row_depends_on_another": Relative,
    })  # fmt: skip


class Silent(BrierScoreLoss):
    """Says nothing of where it is from."""


class Untyped(BrierScoreLoss):
    """Source: none.

    rate : float
    """

    def __init__(self, *, rate=0.1) -> None:
        pass


class Sideways(BrierScoreLoss):
    """Source: none."""

    better = "sideways"


class Changed(BrierScoreLoss):
    """Source: none."""

    def weighted(self, y, score, weights):
        return self.changed(y, score, weights.astype(float))

    def changed(self, y, score, weights):
        return super().weighted(y, score, weights)


class Counting(Changed):
    """Source: none."""

    def changed(self, y, score, weights):
        return super().changed(y, score, (weights > 0).astype(float))


class Smoothed(Changed):
    """Source: none."""

    def changed(self, y, score, weights):
        return super().changed(y, score, weights) + 0.1 * weights.mean()


class Ordered(Changed):
    """Source: none."""

    def changed(self, y, score, weights):
        return super().changed(y, score, weights) + 0.01 * score[-1:].sum()


class Normalising(BrierScoreLoss):
    """Source: none."""

    def weighted(self, y, score, weights):
        if weights.sum(axis=1).all():
            weights /= weights.sum(axis=1, keepdims=True)
        return super().weighted(y, score, weights)


class Certain(BrierScoreLoss):
    """Source: none."""

    def defined(self, y):
        return ""


class Forgiving(Changed):
    """Source: none."""

    def changed(self, y, score, weights):
        return super().changed(y, np.nan_to_num(score), weights)


class Inverted(BrierScoreLoss):
    """Source: none."""

    better = "higher"


def test_every_rule_of_metrics_is_broken_by_one_that_breaks_only_it():
    broken_by(check_metric, {
        "the_docstring_names_a_source": Silent, "the_signature_is_the_config_schema": Untyped,
        "it_says_what_it_is": Sideways, "a_weight_of_two_is_a_row_given_twice": Counting,
        "neither_the_scale_of_weights_nor_the_order_of_rows_counts": Smoothed,
        "its_arguments_are_left_as_they_were": Normalising, "without_rows_it_is_nan_with_a_reason": Certain,
        "a_score_that_is_nan_gives_nan": Forgiving, "a_better_score_moves_it_to_its_better_side": Inverted,
    })  # fmt: skip


@dataclass(frozen=True)
class BothSides(Holdout):
    """Every row is trained on, and held out as well."""

    def split(self, table, schema, repeat=0, texts=None):
        everywhere = np.ones(len(table), dtype=bool)
        return everywhere, everywhere


@dataclass(frozen=True)
class ByOutcome(Holdout):
    """Holds out whoever has the outcome."""

    def split(self, table, schema, repeat=0, texts=None):
        held = (table[schema.target] == "yes").to_numpy()
        return ~held, held


@dataclass(frozen=True, eq=False)
class Growing(Frame):
    """A table that has another number each time it is read."""

    def read(self, folders):
        table = super().read(folders)
        return table.assign(x1=np.random.default_rng().uniform(0, 100, len(table)))


def test_every_rule_of_sites_is_broken_by_one_that_breaks_only_it(small_sites):
    [sound] = small_sites(1, rows=120)
    table = sound.source.table
    spoiled = table.assign(x1=table["x1"].where(table.index != 3, 1e6))
    check_site(sound)
    broken: dict[str, Site] = {
        "its_table_fits_its_schema": replace(sound, source=Frame(spoiled)),
        "every_row_is_on_one_side": replace(sound, holdout=BothSides(salt="x")),
        "two_readings_are_the_same_rows": replace(sound, source=Growing(table)),
        "its_target_has_two_classes_on_both_sides": replace(sound, holdout=ByOutcome(salt="x")),
        "its_holdout_has_a_salt": replace(sound, holdout=Holdout()),
    }
    broken_by(check_site, broken)


@dataclass(frozen=True)
class NoGap(HoldoutByTime):
    """Trains on the gap as well."""

    def split(self, table, schema, repeat=0, texts=None):
        held = super().split(table, schema)[1]
        return ~held, held


def test_the_sides_of_a_holdout_by_time_are_checked_too(small_sites):
    seen = pd.date_range("2026-01-01", periods=60)
    table = pd.DataFrame({"person": range(60), "seen": seen, "y": ["no", "yes"] * 30})
    given = {"train_until": "2026-02-01", "test_from": "2026-02-01", "gap_days": 7}
    [small] = small_sites(1)
    folder = Path(os.environ["FLFED_PATH"]) / "datasets" / small.dataset
    columns = {"person": 'kind = "id"', "seen": 'kind = "date"', "y": 'kind = "target"\nvalues = ["no", "yes"]'}
    lines = [f"[columns.{name}]\n{kind}" for name, kind in columns.items()]
    head = f'name = "{small.dataset}"\ntask = "binary"\ntarget = "y"\ngroup = "person"'
    (folder / "schema.toml").write_text("\n".join([head, *lines]))
    sound = replace(small, source=Frame(table), holdout=HoldoutByTime("seen", **given))
    check_site(sound)
    with pytest.raises(RuleBroken, match="6 holdout rows are earlier than the last training row and the gap of 7 days"):
        check_site(replace(sound, holdout=NoGap("seen", **given)))
    known = HoldoutByTime("seen", **given, same_groups=True)
    check_site(replace(sound, source=Frame(table.assign(person=0)), holdout=known))


def test_what_is_seen_is_a_number_and_no_cell_of_a_table(small_sites):
    [sound] = small_sites(1, rows=120)
    table = sound.source.table.astype({"x1": object})
    table.loc[3, "x1"] = "Jane Roe"
    with pytest.raises(RuleBroken, match="site-01: its table fits its schema: column 'x1' is not a number") as told:
        check_site(replace(sound, source=Frame(table)))
    assert "fewer than 5 rows" in str(told.value) and "Jane" not in str(told.value)
    said = "with scores half way to the targets it changes by -0.1085, and higher is better"
    with pytest.raises(RuleBroken, match=said):
        check_metric(Inverted)


def test_settings_are_what_the_thing_is_made_with():
    check_model(Mlp, {"hidden": (3, 2)})
    with pytest.raises(RuleBroken, match=r"Mlp: .*hidden=\[0\] must be widths of at least 1"):
        check_model(Mlp, {"hidden": (0,)})


SIGNATURES = {
    "is not keyword-only": "def __init__(self, rate: float = 0.1): ...",
    "is no bool, int, float, str, Literal": "def __init__(self, *, rate: dict = None): ...",
    "has no default": "def __init__(self, *, rate: float): ...",
    "is not in the docstring's Parameters": "def __init__(self, *, rates: float = 0.1): ...",
    "must be a whole number": "def __init__(self, *, rate: int = 0.5): ...",
}


@pytest.mark.parametrize("said", SIGNATURES)
def test_a_signature_that_no_study_could_fill_is_told_by_parameter(said: str):
    place: dict[str, Any] = {}
    exec(SIGNATURES[said], {"__name__": "theirs"}, place)
    text = "Source: none.\n\n    rate : float\n    "
    metric = type("Theirs", (BrierScoreLoss,), {"__doc__": text, "__init__": place["__init__"]})
    with pytest.raises(RuleBroken, match=f"the signature is the config schema: .*{said}"):
        check_metric(metric)


def variates(**changed: Any) -> type[FedAvg]:
    """Return the strategy of docs/extend.md that has arrays, with some methods replaced."""
    kind = importlib.import_module("flfed_variates").EqualVariates
    return type("Changed", (kind,), {"__doc__": kind.__doc__, "__module__": kind.__module__, **changed})


def scribbled(cls: Any, settings: Any, arrays: Any, update: Any) -> ExtraArrays:
    for value in arrays.kept.values():
        value += 1.0
    return ExtraArrays(returned=update.delta, kept=update.delta)


ONE = np.ones(1)
WRONG_ARRAYS: dict[str, tuple[dict[str, Any], str]] = {
    "keeps more": (
        {"client_extra": classmethod(lambda c, s, a, u: ExtraArrays(returned=u.delta, kept=u.delta | {"n": ONE}))},
        "client_extra().kept: names of arrays differ",
    ),
    "writes into what was kept": ({"client_extra": classmethod(scribbled)}, "ValueError: output array is read-only"),
    "returns less": (
        {"client_extra": classmethod(lambda c, s, a, u: ExtraArrays(kept=u.delta))},
        "client_extra().returned: names of arrays differ",
    ),
    "another type": (
        {"client_arrays": lambda self: {n: v.astype(np.float32) for n, v in self.round.incoming.items()}},
        "client_arrays(): array 'weight' has dtype float32",
    ),
    "no array of the model": (
        {"client_terms": classmethod(lambda c, s, a: ({"w": np.ones(2)},))}, "constant gradient: names of arrays",
    ),
    "silent": (
        {"__doc__": "Says nothing of what it reveals. Source: none.\n\nReveal: nothing."},
        "its docstring has no paragraph 'Reveals:'",
    ),
    "forgets after a resume": (
        {"state": lambda self: ({}, {}), "restore": lambda self, round, arrays, facts: None},
        "client_arrays() differs after a resumption",
    ),
}  # fmt: skip


@pytest.mark.parametrize("why", WRONG_ARRAYS)
def test_a_strategy_whose_arrays_are_not_as_declared_is_told(why: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(EXTENSION)
    changed, said = WRONG_ARRAYS[why]
    check_strategy(variates())
    with pytest.raises(RuleBroken) as told:
        check_strategy(variates(**changed))
    assert said in str(told.value)
