"""A client of the messages that has nothing of flfed: NumPy, Flower and Python's own library.

It is one site of a study: it enrols, sums its training rows, takes the encoder, trains a logistic model in each round,
scores the shared model, and compares it on its holdout. Its updates are those of flfed's own client to the last digits,
and are averaged like any other site's (tests/test_small_client.py). It shows that docs/messages.md and tests/vectors
are enough for a second implementation, of which this is the beginning:

- tables of numbers without gaps, a target of two classes, a model "logistic", plain SGD
- no gate, no ledger, no policy: a real site has all three, and a coordinator admits it by a key (docs/threat-model.md)

`client_app(site, version, schema, training, holdout)` returns a Flower ClientApp. Flower's own SuperNode runs it.
"""

from __future__ import annotations

import csv
import hashlib
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

PROTOCOL = 2
BINS = 64
"""Cells of a number in a summary, evenly wide over the schema's range; the last cell of a column is "missing"."""
FAILED = 1
"""Code of a reply that is an error."""
Arrays = dict[str, np.ndarray]


class UnfitError(Exception):
    """A study, a table or a message that this client cannot do with."""


@dataclass
class Table:
    """Rows of one site: x [rows, features] in the schema's order of columns, and class codes y [rows]."""

    x: np.ndarray
    y: np.ndarray


@dataclass
class Schema:
    """What a dataset's `schema.toml` says: the range of each feature in the file's order, the target, its values."""

    ranges: dict[str, tuple[float, float]]
    target: str
    classes: list[str]

    @classmethod
    def read(cls, path: Path) -> Schema:
        """Read the file."""
        found = tomllib.loads(path.read_text(encoding="utf-8"))
        ranges = {}
        for name, column in found["columns"].items():
            if name == found["target"]:
                continue
            if column["kind"] != "number" or column.get("transform", "none") != "none":
                raise UnfitError(f"column {name!r} is no plain number")
            low, high = column["range"]
            ranges[name] = float(low), float(high)
        return cls(ranges, found["target"], list(found["columns"][found["target"]]["values"]))

    def table(self, path: Path) -> Table:
        """Read rows from a CSV file whose header has the schema's names."""
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        x = np.array([[float(row[name]) for name in self.ranges] for row in rows])
        y = np.array([self.classes.index(row[self.target]) for row in rows])
        if not np.isfinite(x).all():
            raise UnfitError("a value is missing")
        return Table(x, y)


@dataclass
class Study:
    """What this client reads of a study's text."""

    seed: int
    lr: float
    l2: float
    batch: int
    steps: int
    epochs: int

    @classmethod
    def parse(cls, text: str, repeat: int) -> Study:
        """Read the text that the run's settings bring."""
        found = tomllib.loads(text)
        plan = {"optimiser": "sgd", "lr": 0.05, "l2": 0.0, "batch": 32, "steps": 0, "epochs": 1} | found["plan"]
        known = {"optimiser", "lr", "l2", "batch", "steps", "epochs"}
        others = {"privacy", "codec", "statistic"} & found.keys()
        if found["model"] != {"name": "logistic"} or plan.keys() != known or plan["optimiser"] != "sgd" or others:
            raise UnfitError("this study asks for more than this client can do")
        read = {key: plan[key] for key in known - {"optimiser"}}
        return cls(seed=found.get("seed", 42) + repeat, **read)


def generator(seed: int, site: str, purpose: str, number: int) -> np.random.Generator:
    """Return the generator that every client has for a site, a purpose and a round."""
    words = np.frombuffer(hashlib.sha256(f"{site}/{purpose}".encode()).digest(), dtype="<u4").tolist()
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *words, number])))


def summary_of(table: Table, schema: Schema) -> Arrays:
    """Return the sums over rows, in the schema's layout: features, then the target."""
    features, rows = len(schema.ranges), len(table.y)
    moments, cells = np.zeros((features + 1, 3)), []
    for place, ((low, high), values) in enumerate(zip(schema.ranges.values(), table.x.T, strict=True)):
        z = (values - (low + high) / 2) / ((high - low) / 2)
        moments[place] = rows, z.sum(), np.square(z).sum()
        # A cell includes its lower edge; what lies outside of the range goes into the nearest cell.
        codes = np.searchsorted(np.linspace(low, high, BINS + 1), values, side="right") - 1
        cells.append(np.bincount(np.clip(codes, 0, BINS - 1), minlength=BINS + 1))
    cells.append(np.bincount(table.y, minlength=len(schema.classes) + 1))
    counts = np.concatenate(cells).astype(float)
    return {
        "rows": np.array([float(rows)]),
        "moments": moments,
        "moments_known": np.ones(features + 1),
        "cells": counts,
        "cells_known": np.ones(len(counts)),
        "lower": np.zeros(len(counts)),
        "left": np.zeros(features + 1),
        # How well a single column tells the outcome is not looked for here, and said to be not known.
        "leaks": np.zeros((features, 1, 4)),
        "leaks_known": np.zeros((features, 1, 2)),
        "sites": np.ones(1),
    }


def probabilities(x: np.ndarray, arrays: Arrays) -> np.ndarray:
    """Return P(last class) of each row."""
    return 1 / (1 + np.exp(-(x @ arrays["weight"] + arrays["bias"])[:, 0]))


def log_loss(p: np.ndarray, y: np.ndarray) -> float:
    """Return the mean loss, in nats."""
    kept = np.clip(p, np.finfo(float).eps, 1 - np.finfo(float).eps)
    return float(-np.mean(np.log(np.where(y == 1, kept, 1 - kept))))


def roc_auc(p: np.ndarray, y: np.ndarray) -> float:
    """Return the share of pairs that are in the right order, half of those that are even."""
    higher = np.sign(p[y == 1][:, None] - p[y == 0][None, :])
    return float(((higher + 1) / 2).mean()) if higher.size else float("nan")


def fit(
    x: np.ndarray, y: np.ndarray, start: Arrays, study: Study, rng: np.random.Generator
) -> tuple[Arrays, list[float]]:
    """Return the change of the arrays, and the loss of each step.

    Rows are put in a new order each epoch, and a step takes the next `batch` of them.
    """
    rows = len(y)
    size = min(study.batch, rows) if study.batch else rows
    steps = study.steps or study.epochs * -(-rows // size)
    weight, bias = start["weight"].astype(np.float64), start["bias"].astype(np.float64)
    losses: list[float] = []
    while len(losses) < steps:
        order = rng.permutation(rows) if size < rows else np.arange(rows)
        for begin in range(0, rows, size):
            if len(losses) == steps:
                break
            batch = order[begin : begin + size]
            p = probabilities(x[batch], {"weight": weight, "bias": bias})
            losses.append(log_loss(p, y[batch]))
            error = ((p - y[batch]) / len(batch))[:, None]
            # The penalty is on weights alone.
            gradient = x[batch].T @ error + study.l2 * weight
            weight, bias = weight - study.lr * gradient, bias - study.lr * error.sum(axis=0)
    return {"weight": weight - start["weight"], "bias": bias - start["bias"]}, losses


@dataclass
class SmallClient:
    """One site's answers; no row is both in `training` and in `holdout`."""

    site: str
    version: str
    schema: Schema
    training: Table
    holdout: Table
    encoder: Arrays = field(default_factory=dict)
    """The last one that crossed: a later request may name it by its hash alone."""

    def enrol(self, content: RecordDict, context: Context) -> RecordDict:
        """Say who the site is, and whether it takes part."""
        low = 10 ** (len(str(len(self.training.y))) - 1)
        reply: dict[str, Any] = {
            "site": self.site,
            "title": self.site,
            "version": self.version,
            "accepted": True,
            "reason": "",
        }
        reply |= {"rows-low": low, "rows-high": 10 * low - 1}
        reply |= {"disclosure": "open", "resplit": False}
        reply |= {"epsilon-budget": float("nan"), "epsilon-spent": float("nan")}
        try:
            self.study(context)
        except UnfitError as error:
            reply |= {"accepted": False, "reason": str(error)}
        return RecordDict({"config": ConfigRecord({"protocol": PROTOCOL} | reply)})

    def summarise(self, content: RecordDict, context: Context) -> RecordDict:
        """Send the sums of the training rows, of which all sites' encoder is made."""
        summary = written(summary_of(self.training, self.schema))
        return RecordDict({"config": ConfigRecord({"protocol": PROTOCOL}), "summary": summary})

    def train(self, content: RecordDict, context: Context) -> RecordDict:
        """Score the model that came, and train from it."""
        config, arrays, study = content["config"], read(content["arrays"]), self.study(context)
        x, y = self.inputs(content, self.training), self.training.y
        delta, losses = {}, []
        if config["fit"]:
            study.lr *= float(config["lr-scale"])
            delta, losses = fit(x, y, arrays, study, generator(study.seed, self.site, "fit", int(config["round"])))
        loss = float(np.mean(losses)) if losses else 0.0
        metrics = {"num-examples": float(len(y)), "steps": len(losses), "loss": loss}
        reply = RecordDict({"metrics": MetricRecord(metrics)})
        reply["config"] = ConfigRecord({"protocol": PROTOCOL, "kind": "delta"})
        if delta:
            reply["arrays"] = written(delta)
        if config["score"]:
            p = probabilities(x, arrays)
            reply["scores"] = ConfigRecord({"rows": "training", "num-examples": len(y)})
            reply["scores-metrics"] = MetricRecord({"loss": log_loss(p, y), "roc_auc_score": roc_auc(p, y)})
        return reply

    def compare(self, content: RecordDict, context: Context) -> RecordDict:
        """Send figures of the final model on the holdout; a model of the site's own is not made here."""
        p, y = probabilities(self.inputs(content, self.holdout), read(content["arrays"])), self.holdout.y
        figures = {"roc_auc_score": roc_auc(p, y), "log_loss": log_loss(p, y)}
        none = [float("nan")] * len(figures)
        config = {"protocol": PROTOCOL, "num-examples": len(self.training.y), "holdout-rows": len(y), "note": ""}
        arms = {"metric": list(figures), "arm": ["global"] * len(figures), "value": list(figures.values())}
        arms |= {"low": none, "high": none, "extra": none, "method": [""] * len(figures)}
        return RecordDict({"config": ConfigRecord(config), "arms": ConfigRecord(arms)})

    def inputs(self, content: RecordDict, table: Table) -> np.ndarray:
        """Return rows through the encoder that came, or came before."""
        if "encoder" in content:
            self.encoder = read(content["encoder"])
        features = len(self.schema.ranges)
        return (table.x - self.encoder["center"][:features]) / self.encoder["scale"][:features]

    def study(self, context: Context) -> Study:
        """Return what the run's settings ask for."""
        return Study.parse(str(context.run_config["study"]), int(context.run_config.get("repeat", 0)))


def written(arrays: Arrays) -> ArrayRecord:
    """Return arrays as a section of a message."""
    return ArrayRecord({name: Array(np.ascontiguousarray(value)) for name, value in arrays.items()})


def read(section: ArrayRecord) -> Arrays:
    """Return the arrays of a section."""
    return {name: array.numpy() for name, array in section.items()}


def client_app(site: str, version: str, schema: Path, training: Path, holdout: Path) -> ClientApp:
    """Return the app of a site whose rows are in two CSV files.

    `version` is that of flfed at the coordinator, whose messages these are: it takes no site of another one.
    """
    found = Schema.read(schema)
    client = SmallClient(site, version, found, found.table(training), found.table(holdout))
    app = ClientApp()

    def answering(handler: Any) -> Any:
        def answer(message: Message, context: Context) -> Message:
            try:
                return Message(handler(message.content, context), reply_to=message)
            except (UnfitError, KeyError, ValueError, TypeError) as error:
                # The type alone: an error's text may hold a cell's value.
                return Message(Error(code=FAILED, reason=type(error).__name__), reply_to=message)

        return answer

    app.query("enrol")(answering(client.enrol))
    app.query("summarise")(answering(client.summarise))
    app.train()(answering(client.train))
    app.evaluate()(answering(client.train))
    app.query("compare")(answering(client.compare))
    return app
