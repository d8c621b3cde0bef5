"""What a masked answer is bound to, and which question it answers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from flfed.signatures import canonical
from flfed.study.statistic import is_statistic
from flfed.study.study import Study
from flfed.study.tables import Named
from flfed.summaries.summary import arrays_sha256
from flfed.updates.messages.compare import COMPARE, CompareRequest
from flfed.updates.messages.train import ASKED, EVALUATE, TRAIN, TREE, Same, TrainRequest, sha256_of


@dataclass(frozen=True, kw_only=True)
class SumContext:
    """Where a sum stands, and what its sites must have in common.

    Attributes
    ----------
    study_sha256, run : str
    repeat : int
    cohort : tuple of str
        Sites of the run, in name order.
    most_rows : float
        Weight of the site that may have the most rows, which counts one.
    largest_entry : float
    """

    study_sha256: str
    run: str
    repeat: int
    cohort: tuple[str, ...]
    most_rows: float
    largest_entry: float

    def binding(self, kind: str, request: TrainRequest | CompareRequest | None) -> bytes:
        """Return the hash that a sum's seeds, shares and confirmations are made of, of 32 bytes.

        Whoever is sent another request, in whatever it means, has other masks: no sum with the others' comes of it.

        Source: Pasquini et al. 2022, "Eluding secure aggregation in federated learning via model inconsistency".
        """
        # The ring's scale follows from the number of sites and the largest entry.
        asked: dict[str, Any] = {}
        if isinstance(request, TrainRequest):
            asked["round"] = request.round
            if not request.trees_sha256:
                asked["score"] = request.score
        place = {**asdict(self), "kind": kind, **asked}
        return hashlib.sha256(canonical({"what": "sum", **_meaning(request), **place})).digest()


def question_sha256(study: Study, kind: str, request: TrainRequest | CompareRequest | None) -> str:
    """Return the hash of the question by which the lists of a sum are kept, whatever run and round ask it.

    All sums over rows that do not depend on a model are one question of a dataset: Table 1, counts before trees, a
    statistic, and the roots of trees share columns, and of two lists their difference would be one site's. So are all
    comparisons. Features, holdout, plan, model and rows of the day are not in it: who asks for others asks again.
    """
    if kind == COMPARE:
        return _sha256(study.dataset.name, {"kind": COMPARE})
    if request is None or (kind == TRAIN and _is_root(request)):
        return rows_question(study.dataset.name)
    return rounding_sha256(study, kind, request)


def rows_question(dataset: str) -> str:
    """Return the hash of the question of all sums over a dataset's training rows that depend on no model."""
    return _sha256(dataset, {"kind": "over-rows"})


def _is_root(request: TrainRequest | CompareRequest) -> bool:
    """Tell whether the root of a tree is asked for, whatever cuts and trees come with it.

    A first tree of zeros would ask the root of the first one again.
    """
    return isinstance(request, TrainRequest) and bool(request.trees_sha256) and not request.settings["level"]


def rounding_sha256(study: Study, kind: str, request: TrainRequest | CompareRequest | None) -> str:
    """Return the hash of what is asked of the rows, from which the rounding of an answer follows.

    Neither name, seed nor dates of the study are in it, nor what a vector is scaled by, nor whether scores are asked
    for beside it: none of them makes it another question. A comparison has one, whatever its model.
    """
    parts: dict[str, Any] = {} if is_statistic(study) else {
        "features": study.dataset.features,
        "encode": asdict(study.encode),
        "model": _named(study.model),
        "plan": asdict(study.plan),
        "strategy": _named(study.strategy),
        "privacy": _named(study.privacy),
    }  # fmt: skip
    meant = _meaning(request) if isinstance(request, TrainRequest) else {}
    # Losses of one model over two lists would differ by one site's, whether it was trained from or scored only.
    if kind == EVALUATE:
        kind = TRAIN
        meant = {**meant, "fit": True}
    return _sha256(study.dataset.name, {"kind": kind, **meant, **parts})


def _sha256(dataset: str, asked: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical({"what": "question", "dataset": dataset, **asked})).hexdigest()


def _meaning(request: TrainRequest | CompareRequest | None) -> dict[str, Any]:
    """Return what the vector that a request asks for depends on, arrays by their hash."""
    if request is None:
        return {}
    if isinstance(request, CompareRequest):
        return {
            "arrays": _arrays_sha256(Same(request.arrays)),
            "encoder": sha256_of(request.encoder),
            "deviation": request.deviation,
            "bins": [request.bins.centre, request.bins.spread],
        }
    if request.trees_sha256:
        # The same nodes of the same tree are one question, at whatever level and attempt they are asked for.
        asked = arrays_sha256({name: request.extra[name] for name in (TREE, ASKED)})
        return {"arrays": request.trees_sha256, "encoder": sha256_of(request.encoder), "nodes": asked}
    return {
        "arrays": _arrays_sha256(Same(request.arrays)),
        "encoder": sha256_of(request.encoder),
        "settings": dict(request.settings),
        "fit": request.fit,
        "rounds": request.rounds,
        "lr-scale": request.lr_scale,
    }


# In one process all sites are sent the very same arrays.
@lru_cache(maxsize=8)
def _arrays_sha256(same: Same) -> str:
    return arrays_sha256(same.arrays)


def _named(named: Named) -> Mapping[str, object]:
    return {"name": named.name, **named.settings}
