"""Models, strategies and metrics that a program gives as such, and callbacks."""

import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score

import flfed
from flfed import registry
from flfed.callbacks import progress_line
from flfed.errors import UsageError
from flfed.rows.baselines import first_arrays
from flfed.rows.study_model import study_trainable
from flfed.updates.codec import Shapes, entries_of, flattened, unflattened
from tests.notebook.test_federate import FRAMES, federate

INPUTS = 10
"""Of the frames: five columns, and of each that it is missing."""


def federated(**more: Any) -> flfed.Result:
    return federate(FRAMES, "died", **({"say": lambda line: None, "rounds": 4} | more))


class Net(torch.nn.Module):
    """Two layers, as the listed mlp has them."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.first, self.last = torch.nn.Linear(inputs, 8), torch.nn.Linear(8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.first(x)))


class Drawing(Net):
    """Draws with each call, without a layer that says so."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.dropout(super().forward(x) + 1)


class Pair(Net):
    """Gives more than its outputs, as recurrent layers do."""

    def forward(self, x: torch.Tensor) -> Any:
        return super().forward(x), x


class Bent(Net):
    """As Net in layers and shapes, and not in its code."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.tanh(self.first(x)))


@pytest.mark.studies
def test_a_module_started_from_the_same_arrays_ends_as_the_listed_mlp():
    listed = federated(model="mlp", hidden=[8])
    shared = listed.model.shared
    inputs = len(shared.arrays["weight-0"])
    trainable = study_trainable(shared.study, shared.schema, shared.study.model.build("model"), seed=shared.study.seed)
    first = {name: torch.tensor(value) for name, value in first_arrays(trainable, inputs).items()}
    net = Net(inputs).double()
    with torch.no_grad():
        for layer, number in ((net.first, 0), (net.last, 1)):
            layer.weight.copy_(first[f"weight-{number}"].T)
            layer.bias.copy_(first[f"bias-{number}"])
    before = net.first.weight.detach().clone()
    lines: list[str] = []
    own = federated(model=net, say=lines.append)
    assert lines[-1].startswith("model: a module is trained at one site after another")
    assert torch.equal(net.first.weight, before)  # the module that was given stays as it is
    for name, place in (("first.weight", "weight-0"), ("last.weight", "weight-1")):
        np.testing.assert_allclose(own.model.arrays[name].T, listed.model.arrays[place], rtol=0, atol=1e-10)
    rows = FRAMES["north"]
    np.testing.assert_allclose(own.model.predict_proba(rows), listed.model.predict_proba(rows), rtol=0, atol=1e-10)


@pytest.mark.studies
@pytest.mark.parametrize(("layers", "words"), [
    ([torch.nn.Linear(INPUTS, 4), torch.nn.BatchNorm1d(4, momentum=None), torch.nn.Linear(4, 1)], "counts batches"),
    ([torch.nn.Linear(3, 1)], "takes no input"), ([torch.nn.Linear(INPUTS, 2)], "returns .2, 2. for 2 rows"),
    ([torch.nn.ReLU()], "no parameters"), ([], "no parameters"),
    ([torch.nn.Linear(INPUTS, 1), torch.nn.Sigmoid()], "ends with Sigmoid"),
    ([torch.nn.Linear(INPUTS, 4).requires_grad_(False), torch.nn.Linear(4, 1)], "not trained .0.weight, 0.bias."),
    ([Drawing(INPUTS)], "draws at random, or remembers"), ([Pair(INPUTS)], "returns a tuple"),
])  # fmt: skip
def test_a_module_that_cannot_be_averaged_is_refused(layers: list, words: str):
    with pytest.raises(UsageError, match=words):
        federated(model=torch.nn.Sequential(*layers))
    with pytest.raises(UsageError, match="give an object of Net"):
        federated(model=Net)


class HalfStep(flfed.FedAvg):
    """FedAvg that goes half the way. Source: McMahan et al. 2017, with a server learning rate."""

    def __init__(self, *, quorum: float = 0.75) -> None:
        super().__init__(quorum=quorum, server_lr=0.5)


class BalancedAccuracyScore:
    """Mean of the recalls of both classes. Source: `sklearn.metrics.balanced_accuracy_score`."""

    tasks, better, unit, label = ("binary",), "higher", "", "balanced accuracy"

    def defined(self, y: np.ndarray) -> str:
        return "" if 0 < np.sum(y) < len(y) else "one class only"

    def weighted(self, y: np.ndarray, score: np.ndarray, weights: np.ndarray) -> np.ndarray:
        right = weights * ((score > 0.5) == y)
        recalls = [right[:, y == k].sum(axis=1) / weights[:, y == k].sum(axis=1) for k in (0, 1)]
        return np.asarray(np.mean(recalls, axis=0))

    def value(self, y: np.ndarray, score: np.ndarray) -> float:
        return float(self.weighted(y, score, np.ones((1, len(y))))[0])


@pytest.mark.studies
def test_the_run_of_a_module_is_opened_with_that_module_and_with_no_other(monkeypatch: pytest.MonkeyPatch):
    result = federated(model=Net(INPUTS))
    theirs = result.model.predict_proba(FRAMES["north"])
    with pytest.raises(UsageError, match="has another model than module"):
        flfed.load(result.run, model=Bent(INPUTS))
    monkeypatch.setattr(registry, "_LENT", {})  # another process
    federated(model=Bent(INPUTS), rounds=1)
    with pytest.raises(UsageError, match=r"a program gave this model as a module"):
        _ = flfed.load(result.run).model
    with pytest.raises(UsageError, match="a program gave this model as a module"):
        _ = flfed.load(result.run, model=Bent(INPUTS)).model
    again = flfed.load(result.run, model=Net(INPUTS))
    np.testing.assert_array_equal(again.model.predict_proba(FRAMES["north"]), theirs)


def test_what_no_file_can_hold_is_not_saved(tmp_path: Path):
    with pytest.raises(UsageError, match="is defined in this program and cannot be saved"):
        federated(model=Net(INPUTS), rounds=1).save(tmp_path / "a")
    with pytest.raises(UsageError, match="strategy 'half-step' is defined in this program"):
        federated(strategy=HalfStep, rounds=1).save(tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_a_metric_class_is_computed_also_in_the_second_run_of_a_process():
    listed = federated()  # which looks up all metrics that are there
    own = federated(metrics=[BalancedAccuracyScore])
    name = "balanced_accuracy_score"
    assert name not in set(listed.overall["metric"])
    found = own.overall.query("arm == 'global'").set_index("metric")["value"]
    y, score, draw = np.array([0, 1, 1, 0]), np.array([0.2, 0.7, 0.4, 0.9]), np.array([1.0, 2.0, 3.0, 4.0])
    expected = balanced_accuracy_score(y, score > 0.5, sample_weight=draw)
    assert BalancedAccuracyScore().weighted(y, score, draw[np.newaxis])[0] == pytest.approx(expected, abs=1e-12)
    assert 0.5 < found[name] < 0.9 and found["roc_auc_score"] == listed.overall.set_index("metric")["value"].iloc[0]


class Faulty(BalancedAccuracyScore):
    """A metric that fails where it is computed. Source: none, as it is wrong."""

    def weighted(self, y: np.ndarray, score: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return weights @ self.absent


class Whole(Faulty):
    """A metric with one figure for all draws. Source: none, as it is wrong."""

    def value(self, y: np.ndarray, score: np.ndarray) -> float:
        return 1.0

    def weighted(self, y: np.ndarray, score: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return np.ones(1)


class Filled(Whole):
    """A metric that numpy cannot broadcast. Source: none, as it is wrong."""

    def weighted(self, y: np.ndarray, score: np.ndarray, weights: np.ndarray) -> np.ndarray:
        figures = np.empty(len(weights))
        figures[:] = score
        return figures


class OfNumbers(Faulty):
    """A metric of another task. Source: none, as it is wrong."""

    tasks = ("regression",)


class OfAlerts(BalancedAccuracyScore):
    """A metric of a share of rows. Source: none, as it is wrong."""

    def __init__(self, *, alert_budget: float) -> None:
        self.alert_budget = alert_budget


class OfNothing:
    """No metric. Source: none, as it is wrong."""


@pytest.mark.parametrize(("metric", "words"), [
    (Faulty, "metric 'faulty' fails on example rows .AttributeError: .* no attribute 'absent'"),
    (Whole, "metric 'whole' fails on example rows .weighted.. returned shape .1,."),
    (Filled, "metric 'filled' fails on example rows .ValueError: could not broadcast .* into shape .2,."),
    (OfNumbers, "metric OfNumbers is for regression; the dataset's task is binary"),
    (OfAlerts, "metric 'OfAlerts' needs alert-budget"),
    (OfNothing, "metric 'of_nothing': tasks must name what the metric is for"),
])  # fmt: skip
def test_a_metric_that_fails_or_is_of_another_task_is_named_before_any_training(metric: type, words: str):
    rounds: list[Any] = []
    with pytest.raises(UsageError, match=words):
        federated(metrics=[metric], callback=rounds.append)
    assert rounds == []


def test_a_strategy_class_is_used_as_it_is_given():
    own, listed = federated(strategy=HalfStep), federated(server_lr=0.5)
    assert own.study.strategy.name == "half-step"
    for name, value in listed.model.arrays.items():
        np.testing.assert_array_equal(own.model.arrays[name], value)


class Rounded(flfed.Codec):
    """Entries as float32. Reveals: all entries. It protects nothing. Source: IEEE 754."""

    def shapes(self, model: Shapes) -> Shapes:
        return {"entries": ((entries_of(model),), np.dtype(np.float32))}

    def encode(self, arrays: flfed.Arrays, rng: np.random.Generator) -> flfed.Arrays:
        return {"entries": flattened(arrays).astype(np.float32)}

    def decode(self, packed: flfed.Arrays, model: Shapes) -> flfed.Arrays:
        return unflattened(packed["entries"], model)


class Nothing(flfed.Mechanism):
    """No noise. Source: none."""


@pytest.mark.parametrize(("table", "own"), [("codec", Rounded), ("privacy", Nothing)])
def test_a_codec_and_a_mechanism_are_used_as_they_are_given_and_not_saved(table: str, own: type, tmp_path: Path):
    for value in (own, {"name": own}):
        result = federated(**{table: value})
        assert getattr(result.study, table).name == own.__name__.lower() and result.status == "completed"
    listed = flfed.run("wine", rounds=1, **{table: own})
    assert getattr(listed.study, table).name == own.__name__.lower() and listed.status == "completed"
    with pytest.raises(UsageError, match="is defined in this program and cannot be saved"):
        result.save(tmp_path)
    with pytest.raises(UsageError, match=f"{table}=<class 'dict'> must be a name, a class that inherits flfed"):
        federated(**{table: {"name": dict}})


def test_a_callback_hears_the_figures_of_each_round_and_may_end_the_run():
    heard: list[dict[str, Any]] = []

    def callback(figures: dict[str, Any]) -> bool:
        heard.append(figures)
        return figures["round"] == 3

    result = federated(rounds=20, repeats=2, callback=callback)
    assert [figures["round"] for figures in heard] == [1, 1, 2, 2, 3, 3]
    assert result.status == "completed" and result.report["rounds"] == 3
    assert "its callback ended it after round 3 of 20" in repr(result).splitlines()[0]
    assert set(heard[0]["sites"]) == set(FRAMES) and heard[0]["rounds"] == 20
    # They are the figures that the record has, of the model that came into the round.
    assert heard[-1]["scored-model"] == 2
    run = heard[-1]["run"]
    recorded = flfed.load(run).rounds.query("round == 2 and site == ''").set_index("metric")["value"]
    for metric, value in heard[-1]["all"].items():
        assert value == pytest.approx(recorded[metric], rel=1e-12)


def test_a_class_cannot_take_a_name_that_is_listed():
    class Fedprox(flfed.FedAvg):
        """Takes a name of ours."""

    with pytest.raises(UsageError, match="'fedprox' is listed already"):
        federated(strategy=Fedprox)


def test_a_module_is_refused_where_each_row_is_protected():
    draw = np.random.default_rng(5)
    # Of columns that are true or false nothing was read off rows, which would be refused before.
    frames = {
        site: pd.DataFrame({name: draw.random(80) < 0.4 for name in ("smokes", "drinks", "died")}) for site in "ab"
    }
    given = {"model": torch.nn.Linear(2, 1), "rounds": 2, "steps": 5, "say": lambda line: None}
    with pytest.raises(UsageError, match="a model in which no row affects another, and a torch.nn.Module"):
        federate(frames, "died", privacy={"name": "record-dp", "epsilon": 8.0, "delta": 1e-3}, **given)


class Scaled(flfed.FedAvg):
    """FedAvg with a factor and no quorum. Source: McMahan et al. 2017, with a server learning rate."""

    def __init__(self, *, factor: float = 1.0) -> None:
        super().__init__(server_lr=factor)


@pytest.mark.parametrize(
    "given", [{"strategy": Scaled, "factor": 0.5}, {"strategy": {"name": Scaled, "factor": np.float64(0.5)}}]
)
def test_settings_of_an_own_strategy_are_keywords_or_stand_beside_its_class(given: dict[str, Any]):
    own, listed = federated(**given), federated(server_lr=0.5)
    assert own.study.strategy.name == "scaled" and own.study.strategy.settings == {"factor": 0.5}
    for name, value in listed.model.arrays.items():
        np.testing.assert_array_equal(own.model.arrays[name], value)


def test_settings_of_a_listed_strategy_are_keywords_too():
    study = federated(strategy="fedprox", mu=0.1, rounds=np.int64(1), repeats=np.int64(1)).study
    assert study.strategy.name == "fedprox" and study.strategy.settings["mu"] == 0.1


@pytest.mark.parametrize(("given", "words"), [
    ({"strategy": Scaled()}, "strategy=.* must be a name, a class that inherits flfed.FedAvg"),
    ({"strategy": 3}, "strategy=3 must be a name"), ({"strategy": dict}, "must be a name, a class that inherits"),
    ({"metrics": ["f1_score"]}, "metrics=.'f1_score'. must be a list of classes of metrics"),
    ({"metrics": BalancedAccuracyScore}, "metrics=.* must be a list of classes of metrics"),
    ({"repeats": 2.0}, "repeats=2.0 must be a whole number >= 1"),
    ({"holdout": "0.3"}, "holdout='0.3' must be a number in"), ({"by": ["died"]}, "by=.'died'. must be the name"),
    ({"rounds": 2.5}, "rounds=2.5 must be a whole number"),
])  # fmt: skip
def test_what_is_no_class_or_number_is_refused_in_one_sentence(given: dict[str, Any], words: str):
    with pytest.raises(UsageError, match=words) as refused:
        federated(**given)
    assert "\n" not in str(refused.value)


@pytest.mark.studies
def test_a_metric_of_one_call_is_in_no_later_one():
    own, later = federated(metrics=[BalancedAccuracyScore]), federated()
    assert "balanced_accuracy_score" in set(own.overall["metric"])
    assert "balanced_accuracy_score" not in set(later.overall["metric"])
    chosen = federated(metrics=[BalancedAccuracyScore], compare={"primary": "balanced_accuracy_score"})
    assert chosen.primary == "balanced_accuracy_score" and "balanced" in repr(chosen)
    assert flfed.load(chosen.run).gains.equals(chosen.gains) and chosen.study.compare.primary == chosen.primary


class NoNumbers(flfed.FedAvg):
    """FedAvg whose second model is no number. Source: none, as it is wrong."""

    def combine(self, incoming: Any, deltas: Any, weights: Any) -> Any:
        made = super().combine(incoming, deltas, weights)
        return made if self.rounds_done < 1 else {name: value * np.nan for name, value in made.items()}


class OtherShapes(flfed.FedAvg):
    """FedAvg that cuts arrays. Source: none, as it is wrong."""

    def combine(self, incoming: Any, deltas: Any, weights: Any) -> Any:
        return {name: np.ravel(value)[:0] for name, value in incoming.items()}


class OtherNames(flfed.FedAvg):
    """FedAvg that loses arrays. Source: none, as it is wrong."""

    def combine(self, incoming: Any, deltas: Any, weights: Any) -> Any:
        return {"other": np.zeros(1)}


class OtherType(flfed.FedAvg):
    """FedAvg that rounds the model. Source: none, as it is wrong."""

    def combine(self, incoming: Any, deltas: Any, weights: Any) -> Any:
        return {name: value.astype(int) for name, value in super().combine(incoming, deltas, weights).items()}


@pytest.mark.parametrize(("strategy", "rounds", "words"), [
    (OtherType, 0, "round 1: strategy OtherType returned array .* of dtype int64, which must be float64"),
    (NoNumbers, 1, "round 2: strategy NoNumbers returned values of .* that are not finite numbers"),
    (OtherShapes, 0, "round 1: strategy OtherShapes returned array .* of shape .0,., which must be"),
    (OtherNames, 0, "round 1: strategy OtherNames returned no arrays under the names of the model .*weight"),
])  # fmt: skip
def test_a_strategy_that_combines_wrongly_is_named_and_no_site_is(strategy: type, rounds: int, words: str):
    found = federated(strategy=strategy)
    assert (found.status, found.report["rounds"]) == ("stopped", rounds)
    assert re.search(words, repr(found)) and re.search(words, found._repr_html_())
    assert not any(site in found.report["reason"] for site in FRAMES) and found.report["faults"] == []
    assert found.overall.query("arm == 'global'").columns[:3].tolist() == ["arm", "metric", "value"]
    assert {"site", "arm", "metric", "value", "low", "high"} <= {*found.sites}
    assert all(np.isfinite(value).all() for value in found.model.arrays.values())


class FlatMoments(flfed.FedAvg):
    """FedAvg that keeps arrays where moments belong. Source: none, as it is wrong."""

    def combine(self, incoming: Any, deltas: Any, weights: Any) -> Any:
        self.moments |= super().combine(incoming, deltas, weights)
        return incoming


def test_arrays_in_place_of_moments_are_refused_by_the_strategys_name():
    with pytest.raises(flfed.UsageError, match="strategy FlatMoments: moments.* must be arrays by name"):
        federated(strategy=FlatMoments)


class MeanPull(flfed.FedAvg):
    """FedAvg with a pull by one number. Source: none, as it is wrong."""

    @classmethod
    def client_terms(cls, settings: Any) -> Any:
        return (lambda w, anchor: (w - anchor).mean(),)


class ShortPull(flfed.FedAvg):
    """FedAvg with a constant gradient of one number. Source: none, as it is wrong."""

    @classmethod
    def client_terms(cls, settings: Any) -> Any:
        return ({"weight": np.ones(1)},)


class StrangePull(flfed.FedAvg):
    """FedAvg with a gradient of no array of the model. Source: none, as it is wrong."""

    @classmethod
    def client_terms(cls, settings: Any) -> Any:
        return ({"other": np.ones(1)},)


@pytest.mark.parametrize(("strategy", "words"), [
    (MeanPull, r"array 'weight' of shape \(\), which must be \(10, 1\)"),
    (ShortPull, r"array 'weight' of shape \(1,\), which must be \(10, 1\)"),
    (StrangePull, "no arrays under the names of the model .weight, bias."),
])  # fmt: skip
def test_a_gradient_that_sites_would_broadcast_is_refused_by_the_strategys_name(strategy: type, words: str):
    with pytest.raises(flfed.UsageError, match=f"strategy {strategy.__name__}: client_terms gave {words}") as refused:
        federated(strategy=strategy)
    assert not any(site in str(refused.value) for site in FRAMES)


class MedianOfSites(flfed.FedAvg):
    """Median of the updates, of which one, the mean, would be the mean. Source: Yin et al. 2018, definition 1."""

    def combine(self, incoming: Any, deltas: Any, weights: Any) -> Any:
        stack = {name: np.stack([delta[name] for delta in deltas.values()]) for name in incoming}
        return {name: value + np.median(stack[name], axis=0) for name, value in incoming.items()}


class Momentum(MedianOfSites):
    """FedAvg in other words: it takes the mean. Source: none."""

    sums = True
    combine = flfed.FedAvg.combine


def test_a_rule_that_does_not_say_that_a_mean_will_do_is_refused_under_secure_sums():
    sums = {"secure-aggregation": "on"}
    with pytest.raises(flfed.UsageError, match="median-of-sites: needs the sites. single updates"):
        federated(strategy=MedianOfSites, privacy=sums)
    assert federated(strategy=MedianOfSites).status == federated(strategy=Momentum, privacy=sums).status == "completed"


def test_a_stage_that_takes_long_is_shown_on_one_line_and_a_short_call_shows_none(capsys: pytest.CaptureFixture[str]):
    with progress_line(after=0.05) as told:
        told("compare", 0, 1)
        time.sleep(0.3)  # the stage itself tells nothing
        assert "\rcompare …" in capsys.readouterr().err
        told("rounds", 2, 5)
    shown = capsys.readouterr().err
    assert "\rrounds: 2 of 5" in shown and shown.endswith(" \r") and "\n" not in shown
    with progress_line() as told:
        told("rounds", 1, 5)
    assert capsys.readouterr().err == ""
