"""Codecs cost no AUC: paired over ten splits of real studies; without what keeps the mean right they do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from flfed import registry
from flfed.federation.server.run import run
from flfed.records.reports.report import report
from flfed.records.store.reader import RunReader
from flfed.seeds import generator
from flfed.study.study import Study
from flfed.updates.arrays import Arrays, Shapes, shapes_of
from flfed.updates.codecs.int8 import Int8
from flfed.updates.codecs.top_k import TopK
from flfed.updates.strategies.fedavg import FedAvg

Changes = dict[str, Any]
SPLITS = 10
MLP: Changes = {"model.name": "mlp", "model.hidden": [16]}
BOTH_WAYS: Changes = {"codec.name": "int8", "download": "int8"}
CODECS: dict[str, tuple[Changes, float]] = {
    "int8 both ways": (BOTH_WAYS, 0.002), "int4 up": ({"codec.name": "int4"}, 0.003),
    "top-k up": ({"codec.name": "top-k", "share": 0.1}, 0.005),
}  # fmt: skip
"""What each may move the mean AUC by."""


def aucs(study: Study, changes: Changes, splits: int = SPLITS) -> np.ndarray:
    """Return the shared model's AUC over all sites' holdouts in each of some splits [splits]."""
    result = run(study.replace({"compare.resamples": 200, **changes}), repeats=splits)
    with RunReader.open() as reader:
        reports = [report(reader, entry.run) for entry in reader.runs_of(result.run)]
    assert [told["status"] for told in reports] == ["completed"] * splits
    assert [told["faults"] for told in reports] == [[]] * splits
    return np.array([told["global"]["roc_auc_score"]["value"] for told in reports])


@pytest.mark.usefixtures("heart", "taiwan")
@pytest.mark.parametrize(("name", "model", "splits"), [
    pytest.param("heart-disease", {}, 1, id="one"),
    *(
        pytest.param(name, model, SPLITS, id=f"{name}{'-mlp' * bool(model)}", marks=pytest.mark.proof)
        for name, model in (
            ("heart-disease", {}), ("heart-disease", MLP), ("preterm-birth", {}), ("taiwan-credit", {}),
        )
    ),
])  # fmt: skip
@pytest.mark.proof
def test_a_codec_moves_the_mean_auc_by_less_than_its_bar(name: str, model: Changes, splits: int):
    study = Study.load(name).replace(model)
    plain = aucs(study, {}, splits)
    assert plain.mean() > 0.6
    for codec, (changes, bar) in CODECS.items():
        moved = aucs(study, changes, splits) - plain
        assert splits == 1 or moved.any()  # a single AUC may stay, as ranks do
        assert abs(moved.mean()) <= bar, (codec, moved)


# The wrong ones, shown once, on the study that catches them.


class Forgetful(TopK):
    """Top-k whose sites forget what they left out."""

    feedback = False


class Nearest(Int8):
    """Int8 that rounds to the nearest: what an update moves a weight by less than half a multiple is never heard of."""

    def encode_all(self, arrays: Sequence[Arrays], rngs: Sequence[Any]) -> list[Arrays]:
        return super().encode_all(arrays, [Halves()] * len(rngs))  # type: ignore[list-item]  # - it has what is asked


class Halves:
    """Draws a half again and again."""

    def random(self, count: int) -> np.ndarray:
        return np.full(count, 0.5)


class ForgetsFloats(FedAvg):
    """FedAvg whose server goes on from the model as the sites read it."""

    def combine(self, incoming: Arrays, deltas: Any, weights: Any) -> Arrays:
        shapes: Shapes = shapes_of(incoming)
        rng = generator(self.run.seed, site="", purpose="download-codec", number=self.rounds_done + 1)
        assert self.run.download is not None
        read = self.run.download.decode(self.run.download.encode(incoming, rng), shapes)
        return super().combine(read, deltas, weights)


@pytest.mark.proof
def test_what_forgets_or_rounds_to_the_nearest_moves_the_auc_of_a_study_with_many_columns(monkeypatch):
    study = Study.load("preterm-birth")
    plain = aucs(study, {})
    with registry.lending("codec", [Forgetful]), registry.lending("strategy", [ForgetsFloats]):
        unfed = aucs(study, {"codec.name": "forgetful", "share": 0.1}) - plain
        assert unfed.mean() < -0.03
        kept = aucs(study, BOTH_WAYS) - plain
        lost = aucs(study, {**BOTH_WAYS, "strategy.name": "forgets-floats"}) - plain
        # Its errors add up at random: to nothing on the mean, and to much in a split.
        assert kept.std(ddof=1) < 0.001 < lost.std(ddof=1)
        assert np.abs(kept).max() < 0.002 < np.abs(lost).max()
        monkeypatch.setitem(registry._LENT, ("codec", "int8"), Nearest)
        nearest = aucs(study, {**BOTH_WAYS, "strategy.name": "forgets-floats"}) - plain
        assert np.abs(nearest).max() > 0.002 and nearest.std(ddof=1) > 2 * kept.std(ddof=1)
