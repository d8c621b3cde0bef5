"""What a masked answer is bound to, which question it answers, and the order of a run's masked questions."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from flfed.signatures import canonical
from flfed.study.kinds import exchange_number, round_and_level
from flfed.study.study import Study
from flfed.study.tables import Named
from flfed.summaries.summary import arrays_sha256
from flfed.updates.checkpoints.site_state import OF_RUN
from flfed.updates.masks.ring import Ring, ring_of_counts, rings
from flfed.updates.messages.compare import CompareRequest
from flfed.updates.messages.kinds import BINS, COMPARE, EVALUATE, STATISTIC, TRAIN
from flfed.updates.messages.summarise import POINT, StatisticRequest
from flfed.updates.messages.train import MARKS, TREE, Same, TrainRequest, sha256_of

SumRequest = TrainRequest | CompareRequest | StatisticRequest | None
"""A request whose answers are added up; None where the study has all of it."""


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

    def rings(self) -> tuple[Ring, Ring]:
        """Return the rings of updates, and of their weights."""
        return rings(len(self.cohort), self.largest_entry)

    def ring_of_counts(self) -> Ring:
        """Return the ring of sums to which a row adds 1 at most."""
        return ring_of_counts(len(self.cohort), self.most_rows)

    def binding(self, kind: str, request: SumRequest) -> bytes:
        """Return the hash that a sum's seeds, shares and confirmations are made of, of 32 bytes.

        Whoever is sent another request, in whatever it means, has other masks: no sum with the others' comes of it.

        Source: Pasquini et al. 2022, "Eluding secure aggregation in federated learning via model inconsistency".
        """
        # The ring's scale follows from the number of sites and the largest entry.
        facts: dict[str, Any] = {}
        if isinstance(request, TrainRequest):
            facts["round"] = request.round
            if not request.trees_sha256:
                facts["score"] = request.score
        elif isinstance(request, StatisticRequest):
            facts["round"] = request.round
        place = {**asdict(self), "kind": kind, **facts}
        return hashlib.sha256(canonical({"what": "sum", **_meaning(request), **place})).digest()


def question_sha256(study: Study, kind: str, request: SumRequest) -> str:
    """Return the hash of the question by which the lists of a sum are kept, whatever run and round ask it.

    All sums over rows that do not depend on a model are one question of a dataset. Table 1, counts before trees, a
    statistic at whatever numbers, and the roots of trees share columns, and of two lists their difference would be one
    site's. So are all comparisons. Features, holdout, plan, model and rows of the day are not in it: who asks for
    others asks again.
    """
    if kind == COMPARE:
        return _sha256(study.dataset.name, {"kind": COMPARE})
    if kind == STATISTIC or request is None:
        return rows_question(study.dataset.name)
    # The root of a tree, whatever cuts and trees come with it: a first tree of zeros would ask it again.
    if kind == TRAIN and isinstance(request, TrainRequest) and request.trees_sha256 and not request.settings["level"]:
        return rows_question(study.dataset.name)
    return rounding_sha256(study, kind, request)


def rows_question(dataset: str) -> str:
    """Return the hash of the question of all sums over a dataset's training rows that depend on no model."""
    return _sha256(dataset, {"kind": "over-rows"})


def rounding_sha256(study: Study, kind: str, request: SumRequest) -> str:
    """Return the hash of a request's content, from which the rounding of a reply follows.

    Neither name, seed nor dates of the study are in it, nor what a vector is scaled by, nor whether scores are asked
    for beside it. None of them makes it another question. A comparison has one, whatever its model.
    """
    parts: dict[str, Any] = {}
    if not study.is_statistic:
        parts = {
            "features": study.dataset.features,
            "encode": asdict(study.encode),
            "model": _named(study.model),
            "plan": asdict(study.plan),
            "strategy": _named(study.strategy),
            "privacy": _named(study.privacy),
        }
    meant = {}
    if isinstance(request, TrainRequest | StatisticRequest):
        meant = _meaning(request)
    # Losses of one model over two lists would differ by one site's, whether it was trained from or scored only.
    if kind == EVALUATE:
        kind = TRAIN
        meant = {**meant, "fit": True}
    return _sha256(study.dataset.name, {"kind": kind, **meant, **parts})


def _sha256(dataset: str, facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical({"what": "question", "dataset": dataset, **facts})).hexdigest()


def _meaning(request: SumRequest) -> dict[str, Any]:
    """Return what the vector that a request asks for depends on, arrays by their hash."""
    if request is None:
        return {}
    if isinstance(request, StatisticRequest):
        return {POINT: arrays_sha256(request.point)}
    encoder = sha256_of(request.encoder)
    if isinstance(request, CompareRequest):
        return {
            "arrays": _arrays_sha256(Same(request.arrays)),
            "encoder": encoder,
            "deviation": request.deviation,
            "bins": [request.bins.centre, request.bins.spread],
        }
    if request.trees_sha256:
        # The same nodes of the same tree are one question, at whatever level and attempt they are asked for.
        nodes_sha256 = arrays_sha256({name: request.extra[name] for name in (TREE, MARKS)})
        return {"arrays": request.trees_sha256, "encoder": encoder, "nodes": nodes_sha256}
    return {
        "arrays": _arrays_sha256(Same(request.arrays)),
        "encoder": encoder,
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


FACTS = f"{OF_RUN}of-"
"""Before kind and round, of the facts of a masked answer, in a site's state of a run."""


@dataclass(frozen=True, kw_only=True)
class RunQuestion:
    """A question whose answer is masked, and where it stands in its run.

    Attributes
    ----------
    kind : str
    number : int
        Of its round; where trees grow, of the exchange.
    step : int
        Its number among the masked questions of the run.
    question : str
        Hash of the question by which its lists are kept, as hex.
    rounding : str
        Hash of what its rounding follows from.
    binding : bytes, 32
    """

    kind: str
    number: int
    step: int
    question: str
    rounding: str
    binding: bytes

    @property
    def name(self) -> str:
        """Its name in a site's state."""
        return sum_name(self.kind, self.number)


@dataclass(frozen=True)
class QuestionOrder:
    """Order of the masked questions of a run, by which the links between its sites move.

    Sums over training rows come first, then rows by cell where trees grow, the rounds, the losses of the last model,
    and the comparison. A statistic has its visits.

    Attributes
    ----------
    rounds : int
    exchanges : int
        Of a round: one, or one a level of a tree.
    cells : {0, 1}
        Questions between the sums over training rows and the first round.
    visits : int
        Of a statistic, each a question.
    """

    rounds: int
    exchanges: int = 1
    cells: int = 0
    visits: int = 0

    @property
    def repeatable_requests(self) -> int:
        """Questions that may be asked again, the newest counted: a run that was killed begins its round anew.

        One of a statistic begins with the first visit.
        """
        return max(self.exchanges + 1, self.visits)

    def number(self, request: TrainRequest) -> int:
        """Return the number of a question of a round, that of the round unless trees grow."""
        level = int(request.settings.get("level", 0)) if self.cells else 0
        return exchange_number(request.round, level, self.exchanges)

    @property
    def last(self) -> int:
        """The largest number of a question: after the last round its model is scored."""
        return max(self.rounds * self.exchanges + 1, self.visits - 1)

    def place(self, number: int) -> tuple[int, int]:
        """Return round and level of a question by its number.

        0 is of requests that are sent once.
        """
        if number:
            return round_and_level(number, self.exchanges)
        return (0, 0)

    def step(self, kind: str, number: int) -> int:
        """Return a question's place among all masked ones of the run, from 0.

        Examples
        --------
        >>> trees = QuestionOrder(rounds=10, exchanges=4, cells=1)
        >>> [trees.step(kind, 1) for kind in ("query.summarise", "query.bins", "train", "query.compare")]
        [0, 1, 2, 43]
        """
        if kind in (TRAIN, EVALUATE):
            return self.cells + number
        if kind == COMPARE:
            return self.cells + self.last + 1
        if kind == BINS:
            return self.cells
        return number if kind == STATISTIC else 0


def order_of(study: Study) -> QuestionOrder:
    """Return the order of a study's masked questions."""
    if not study.grows_trees:
        return QuestionOrder(study.rounds, visits=study.visits)
    return QuestionOrder(study.rounds, study.exchanges_of_round, cells=1)


def sum_name(kind: str, number: int) -> str:
    """Return the name of a masked answer's facts in a site's state."""
    return f"{FACTS}{kind}-{number:06d}"
