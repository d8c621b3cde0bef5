"""Federated classification as a scikit-learn estimator."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d, validate_data

from flfed.callbacks import no_progress
from flfed.errors import FlfedError, UsageError
from flfed.export.model_folder import SharedModel
from flfed.federation.engines.engine import RunConfig, RunResources, answer_of, path_of
from flfed.federation.engines.inprocess import InProcess
from flfed.federation.server.run_setting import Answers, Reply, ask, ask_enrolment, deadline_of
from flfed.notebook.result import is_number
from flfed.rows.baselines import first_arrays
from flfed.rows.data import datasets
from flfed.rows.data.datasets import Dataset, SourceDescription
from flfed.rows.data.holdout import Holdout
from flfed.rows.data.policy import Policy
from flfed.rows.data.schema import Column, Schema, Task
from flfed.rows.data.site import Site
from flfed.rows.data.sources import Part
from flfed.rows.features.encode import encode, input_names
from flfed.rows.proposals.own_tables import slug
from flfed.rows.study_model import study_layout, study_trainable
from flfed.study.study import Study, plain_value
from flfed.study.template import StudyTemplate
from flfed.summaries.summary import Encoder, fit_encoder, merge
from flfed.updates.aggregation.rounds import Participant, RunContext
from flfed.updates.codec import codec_of
from flfed.updates.messages.summarise import SUMMARISE, SummariseReply, SummariseRequest
from flfed.updates.strategies.fedavg import FedAvg, to_arrays, to_record
from flfed.words import render

TARGET = "target"


class FitError(FlfedError, ValueError):
    """Error of a fit, also a ValueError, for scikit-learn's own tools."""


class FederatedClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # - scikit-learn has no types
    """Classifier that several sites train together by federated averaging.

    All rows train: nothing is held out, compared or recorded. Missing values may be NaN.

    Parameters
    ----------
    model : {"logistic", "mlp"}
    rounds : int, >= 1
    lr : float, > 0
        Learning rate of the sites' steps.
    epochs : int, >= 1
        Epochs of each site in a round.
    batch : int, >= 0
        Rows of a step; 0 means all.
    l2 : float, >= 0
        Penalty on the weights.
    hidden : tuple of int
        Units of the layers of an mlp.
    random_state : int, >= 0
        Seed of all random draws.

    Attributes
    ----------
    classes_ : array of the classes
    arrays_ : dict of name to array
        Arrays of the trained model.
    sites_ : list of str
        Participants.
    n_features_in_ : int

    Examples
    --------
    >>> from flfed import FederatedClassifier
    >>> from sklearn.datasets import load_breast_cancer
    >>> X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    >>> hospital = [f"hospital {row % 3}" for row in range(len(y))]
    >>> model = FederatedClassifier(rounds=2).fit(X, y, sites=hospital)  # doctest: +SKIP
    >>> model.predict_proba(X).shape  # doctest: +SKIP
    (569, 2)
    """

    def __init__(
        self,
        model: str = "logistic",
        *,
        rounds: int = 40,
        lr: float = 0.05,
        epochs: int = 2,
        batch: int = 32,
        l2: float = 0.01,
        hidden: tuple[int, ...] = (16,),
        random_state: int = 42,
    ) -> None:
        self.model = model
        self.rounds = rounds
        self.lr = lr
        self.epochs = epochs
        self.batch = batch
        self.l2 = l2
        self.hidden = hidden
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sites: Any = None) -> Self:
        """Train on all rows.

        Parameters
        ----------
        X : array or DataFrame of numbers [rows, features]
        y : array [rows]
        sites : array [rows], optional
            Site of each row, at least two in all; without it, rows are split in two by their hash.

        Raises
        ------
        FitError
            A ValueError, if X or y cannot be used, or a parameter is out of its range.
        """
        chosen = self._chosen()
        X, y = validate_data(self, X, y, dtype=np.float64, ensure_all_finite="allow-nan")
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise FitError(render("notebook.classifier.classes"))
        labels = _halves(X) if sites is None else column_or_1d(sites)
        check_consistent_length(X, labels)
        table = _table(X)
        dataset = self._dataset(table)
        table[TARGET] = _class_names(len(self.classes_))[codes]
        try:
            with datasets.in_memory(dataset):
                made = _sites(table, labels, dataset.name)
                template = StudyTemplate(name="fit", dataset=dataset.name, model=self.model)
                study = Study.parse(template.text()).replace(chosen)
                self.arrays_, encoder = train(study, made)
        except FlfedError as error:
            raise FitError(str(error)) from None
        self.sites_ = [site.name for site in made]
        self._fitted = SharedModel(
            run="", study=study, schema=dataset.schema, arrays=self.arrays_, encoder=encoder, figures={}
        )
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return probabilities, float64 [rows, classes], in the order of `classes_`."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan", reset=False)
        model = self._fitted
        probabilities = model.predictions(encode(_table(X).assign(**{TARGET: None}), model.layout, model.encoder).x)
        return np.column_stack([1 - probabilities, probabilities]) if len(self.classes_) == 2 else probabilities

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class of each row [rows]."""
        best = self.predict_proba(X).argmax(axis=1)
        return np.asarray(self.classes_[best])

    def __sklearn_tags__(self) -> Any:
        """Return scikit-learn's tags: missing values are allowed."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def _dataset(self, x: pd.DataFrame) -> Dataset:
        """Return a dataset of numbers for this fit alone."""
        columns = {str(name): Column(kind="number", range=_range(x[name].to_numpy())) for name in x}
        classes = tuple(_class_names(len(self.classes_)))
        columns[TARGET] = Column(kind="target", values=classes)
        task: Task = "binary" if len(classes) == 2 else "multi-class"
        schema = Schema(name=f"fit-{uuid4().hex[:12]}", task=task, target=TARGET, columns=columns)
        return Dataset(schema.name, Path(), schema, SourceDescription(licence="", citation=""))

    def _chosen(self) -> dict[str, Any]:
        """Return the keys of a study for the parameters, or refuse a wrong value."""
        parameters = {name: plain_value(value) for name, value in self.get_params(deep=False).items()}
        if parameters["model"] not in ("logistic", "mlp"):
            raise FitError(f"model={parameters['model']!r} must be 'logistic' or 'mlp'")
        if not isinstance(parameters["hidden"], (list, tuple)):
            raise FitError(render("notebook.classifier.hidden", value=repr(parameters["hidden"])))
        for name in ("rounds", "lr", "epochs", "batch", "l2", "random_state"):
            if not is_number(parameters[name]) and not (name == "random_state" and parameters[name] is None):
                raise FitError(f"{name}={parameters[name]!r} must be a number")
        keys = {"strategy.rounds": parameters["rounds"], "seed": parameters["random_state"], "strategy.quorum": 1.0}
        keys |= {f"plan.{name}": parameters[name] for name in ("lr", "epochs", "batch", "l2")}
        if parameters["model"] == "mlp":
            keys["model.hidden"] = list(parameters["hidden"])
        return keys


def _range(values: np.ndarray) -> tuple[float, float]:
    """Return a range that contains all values."""
    numbers = values[~np.isnan(values)]
    low, high = (float(numbers.min()), float(numbers.max())) if len(numbers) else (0.0, 0.0)
    wider = 0.1 * (high - low) + 1e-6 * max(abs(low), abs(high)) or 1.0
    return low - wider, high + wider


def _class_names(count: int) -> np.ndarray:
    return np.array([f"class-{number:06d}" for number in range(count)], dtype=object)


def _table(x: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(x).add_prefix("x")


def _halves(x: np.ndarray) -> np.ndarray:
    """Return the half of each row, by its hash; alternately if one half would be empty."""
    numbers = np.ascontiguousarray(x + 0.0)
    halves = np.array([hashlib.sha256(row.tobytes()).digest()[0] % 2 for row in numbers])
    return halves if 0 < halves.sum() < len(halves) else np.arange(len(halves)) % 2


def _sites(table: pd.DataFrame, labels: np.ndarray, dataset: str) -> list[Site]:
    """Return a site for each label, all of whose rows train."""
    whose, values = pd.factorize(labels, sort=True, use_na_sentinel=False)
    if len(values) < 2:
        raise FitError(render("notebook.classifier.sites"))
    names = [slug(f"site-{value}") for value in values]
    # Labels that differ in punctuation only are distinguished by their place.
    names = names if len(set(names)) == len(names) else [f"site-{place:06d}" for place in range(len(names))]
    policy = Policy(disclosure="open")
    return [
        Site(
            name=name,
            dataset=dataset,
            source=Part(table[whose == place]),
            holdout=Holdout(0.0, salt=name),
            policy=policy,
        )
        for place, name in enumerate(names)
    ]


def train(study: Study, sites: Sequence[Site]) -> tuple[dict[str, np.ndarray], Encoder]:
    """Return the arrays and the encoder of a study, trained as in a run.

    Parameters
    ----------
    study : Study
        Without a privacy mechanism: no ledger is charged here.
    sites : sequence of Site

    Raises
    ------
    UsageError
        If a site does not take part, or a round fails.
    """
    schema = datasets.load(study.dataset.name).schema
    config: RunConfig = {"study": study.text, "repeat": 0, "run-here": "fit"}
    engine = InProcess()
    resources = RunResources(answer_of(path_of(engine, study, stacked=True)), no_progress)
    layout = study_layout(study, schema)
    with engine.started(sorted(sites, key=lambda site: site.name), config, resources) as (grid, _):
        nodes, enrolment = ask_enrolment(grid, study, schema)
        enrolled = _all_replies(enrolment)
        if refused := [f"{reply.site}: {reply.reason}" for reply in enrolled.values() if not reply.accepted]:
            raise UsageError("; ".join(refused))
        read = SummariseReply.from_record
        sums = _all_replies(ask(grid, SUMMARISE, SummariseRequest(), nodes, read, timeout=deadline_of(study)))
        merged = merge([reply.summary for reply in sums.values() if reply.summary is not None])
        encoder = fit_encoder(layout, merged, study.encode.scaler)
        trainable = study_trainable(study, schema, study.model.build("model"), seed=study.seed)
        strategy: FedAvg = study.strategy.build("strategy")
        strategy.assign(
            RunContext(
                participants={reply.site: Participant.of(nodes[node], reply) for node, reply in enrolled.items()},
                encoder=encoder,
                plan=study.plan,
                rounds=study.rounds,
                seed=study.seed,
                codec=codec_of(study),
            )
        )
        first = first_arrays(trainable, len(input_names(layout)))
        result = strategy.start(grid, to_record(first), study.rounds)
    if strategy.stopped:
        raise UsageError(strategy.stopped)
    return to_arrays(result.arrays), encoder


def _all_replies(answers: Answers[Reply]) -> Mapping[str, Reply]:
    if answers.faults:
        raise UsageError("; ".join(answers.faults.values()))
    return answers.replies
