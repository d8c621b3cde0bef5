"""Boosted trees, grown from the sites' sums of gradients."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Annotated, Any, ClassVar

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from pydantic import Field

from flfed.refusals import Refusal
from flfed.study.plan import Plan
from flfed.summaries.summary import Arrays, arrays_sha256
from flfed.trees.cut_points import widths_of
from flfed.trees.forest import UNIT, GrowingRound, Tree, TreeSettings, depth_of, round_of, tree_arrays, with_round
from flfed.updates.aggregation.guard import GuardResult, judged, reply_defect
from flfed.updates.aggregation.losses import ENTRIES
from flfed.updates.aggregation.rounds import why_unsummed
from flfed.updates.aggregation.summer import Unsummed
from flfed.updates.messages.in_memory import immutable
from flfed.updates.messages.train import LAST, MARKS, NO_ENCODER, SUMS, TREE, Replies, TrainReply, TrainRequest
from flfed.updates.strategies.fedavg import FedAvg, mean_loss, to_arrays, to_record
from flfed.words import usage_error

Grown = tuple[list[Tree] | None, dict[str, Refusal]]
"""A round's trees, or None, and the faults of its sites."""
USED = ("validation", "precision")
"""Keys of a plan that trees use; the others are of gradient descent."""


# roots ──► best splits ──► the smaller child of each ──► best splits ──► ... ──► a round's trees are whole
#   │                          │ of the same sites
#   │                          └─ one is lost: again from the roots, without it
#   └─ with the scores of the trees before
@dataclass(kw_only=True, eq=False, repr=False)
class BoostedTrees(FedAvg):
    """Boosted trees of the sites' summed gradients, the same as of one table of all rows.

    A round is a tree (of several classes a tree each), and an exchange one level of it.

    Parameters
    ----------
    learning_rate : float in (0, 1]
        What the value of a leaf is multiplied by. Example: `learning-rate = 0.05`.
    l2 : float, >= 0
        Ridge penalty of a leaf's value. Example: `l2 = 2.0`.
    min_child_weight : float, >= 0
        Least sum of Hessians in a child. Example: `min-child-weight = 5.0`.
    min_rows : int, >= 0
        Fewest rows of each code of a column and of each leaf; each code has two outcomes then. Sites send counts of
        rows besides. 0 asks for none. Example: `min-rows = 10`.
    fraction, quorum, deadline, wait, select, patience : as in FedAvg
        The other parameters as for `FedAvg`; rows count as they are, so that there are no weights.

    Notes
    -----
    Gradients are rounded to whole units before they are added up, so that the order of sites changes no bit. A site
    that is lost within a tree would leave its rows in the sibling of a node. The tree is grown again from its root
    without it. Under secure sums it is waited for instead, since the difference of two sums of one node would be its
    own. If it does not come back, the run stops with the last whole tree.

    Reveals: sums of gradients and of Hessians (with `min_rows` counts of rows, too) over the site's training rows,
    exact, in each exchange. They are by node of a tree, column and code. The number of these rows is revealed, too. In
    the first tree a row's gradient is its outcome. So the sums reveal the outcome of a row that is alone in a code of a
    column, or among rows that all have one outcome. `min_rows` prevents that at the root of a tree, over all sites
    together, and not below it, nor in the sums of one site. Who chooses the splits freely, instead of by the sums,
    makes nodes of ever fewer rows, and reads the outcome of each of them, and its columns' codes. Under secure sums all
    these are of all sites together, and do not show whose row it is.

    Source: Friedman 2001, "Greedy function approximation: a gradient boosting machine"; Chen and Guestrin 2016,
    "XGBoost: a scalable tree boosting system".
    """

    learning_rate: Annotated[float, Field(gt=0, le=1)] = 0.1
    l2: Annotated[float, Field(ge=0)] = 1.0
    min_child_weight: Annotated[float, Field(ge=0)] = 1.0
    min_rows: Annotated[int, Field(ge=0)] = 0
    sums: ClassVar[bool] = False  # of updates; its own sums are another vector
    parts: ClassVar[bool] = False
    growing: GrowingRound = field(init=False)
    attempt: int = field(default=0, init=False)
    begun_with: tuple[int, Any] = field(default=(0, None), init=False)

    def __post_init__(self) -> None:
        """Refuse settings out of their range, and weights."""
        super().__post_init__()
        if (self.weights, self.server_lr) != ("rows", 1.0):
            raise usage_error("study.strategies.averages")

    def check(self, plan: Plan) -> None:
        """Refuse a plan of gradient descent."""
        super().check(plan)
        changes = [own.name for own in fields(Plan) if getattr(plan, own.name) != getattr(Plan(), own.name)]
        if unused := [name.replace("_", "-") for name in changes if name not in USED]:
            raise usage_error("study.strategies.descent", keys=", ".join(unused))
        if plan.precision != "float64":
            raise usage_error("study.strategies.precision", precision=plan.precision)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return a message for each cohort site, which asks for the sums of the roots."""
        now = self.round
        now.incoming = to_arrays(arrays)
        # A tree that is grown again is another question than the one before; a secure sum has only one.
        self.attempt = max(1, self.attempt) if now.earlier and self.run.sums is None else 0
        if self.run.sums is not None:
            # Grown again, a tree begins with the total that it began with.
            if self.begun_with[0] != server_round:
                self.begun_with = (server_round, self.run.sums.total)
            self.run.sums.total = self.begun_with[1]
        self.begin_growing()
        return self._messages(server_round, self.cohort(server_round), score=True)

    def begin_growing(self) -> None:
        """Begin the trees of a round, before their first split."""
        incoming = self.round.incoming
        settings = TreeSettings(
            depth=depth_of(incoming["value"].shape[2]),
            learning_rate=self.learning_rate,
            l2=self.l2,
            min_child_weight=self.min_child_weight,
            least_rows=self.min_rows,
        )
        self.growing = GrowingRound(widths_of(incoming), settings, incoming["value"].shape[1])

    def level(self, server_round: int) -> dict[str, Any]:
        """Return what a site needs for the sums of the next level, by the names of a request's fields."""
        incoming = self.round.incoming
        nodes = incoming["value"].shape[2]
        node_marks = np.zeros((len(self.growing.requested_nodes), nodes))
        for own, wanted in zip(node_marks, self.growing.requested_nodes, strict=True):
            own[wanted] = 1.0
        tree = tree_arrays(self.growing.trees, nodes)
        last = round_of(incoming, server_round - 2) if server_round > 1 else np.zeros_like(tree)
        return {
            "arrays": immutable(incoming),
            "extra": immutable({LAST: last, TREE: tree, MARKS: node_marks}),
            "trees_sha256": arrays_sha256(incoming),
        }

    def grown_forest(self, server_round: int) -> Arrays:
        """Return the arrays with the trees of a round, once they are grown."""
        incoming = self.round.incoming
        stacked = tree_arrays(self.growing.trees, incoming["value"].shape[2])
        return with_round(incoming, server_round - 1, stacked)

    def _messages(
        self, server_round: int, sites: Iterable[str], *, level: int = 0, score: bool = False
    ) -> list[Message]:
        """Return a message to each of some sites, which asks for the sums of the next level."""
        run = self.run
        now = self.round
        now.asked = {site: run.participants[site].node_id for site in sites}
        plain: dict[str, Any] = {"round": server_round, "rounds": run.rounds, "score": score}
        plain["settings"] = {"level": float(level), "attempt": float(self.attempt)}
        if run.sums is not None and run.sums.verified:
            return now.messages(TrainRequest(arrays={}, encoder=NO_ENCODER, total=run.sums.total, **plain), run)
        return now.messages(TrainRequest(encoder=run.encoder, **plain, **self.level(server_round)), run)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the arrays with the round's trees, None without enough good sums.

        Given the replies of the roots, it asks for all other levels.
        """
        now = self.round
        participants = dict(now.asked)
        roots = now.receive(replies, partial(self._judge, level=0))
        if self.run.sums is None:
            trees, faults = self._grown_again(roots)
        else:
            trees, faults = self._grown_of_sums(roots)
        now.asked = participants
        good = {site: reply for site, reply in roots.items() if site not in faults}
        now.result = GuardResult(accepted=good)
        now.note(faults)
        if trees is None:
            return None, None
        self.see_scores(server_round, good)
        return to_record(self.grown_forest(server_round)), mean_loss(
            good, {site: reply.num_examples for site, reply in good.items()}
        )

    def _grown_again(self, roots: Replies) -> Grown:
        """Return the round's trees, grown again without a site that is lost, and the sites' faults."""
        trees = None
        faults = dict(self.round.result.refused)
        sites = sorted(roots)
        least = self.needed(len(self.round.asked))
        while trees is None and len(sites) >= least:
            trees, lost = self._grown({site: roots[site] for site in sites})
            faults |= lost
            sites = [site for site in sites if site not in lost]
            self.attempt += 1
        return trees, faults

    def _grown_of_sums(self, roots: Replies) -> Grown:
        """Return the round's trees where the server sees only sums, and the sites' faults.

        A lost site is waited for in the round's second attempt: a tree without it would reveal its sums.
        """
        now = self.round
        trees = None
        faults = dict(now.result.refused)
        try:
            trees, lost = self._grown(roots)
            if trees is None:
                raise Unsummed(Refusal("tree-site-lost", sites=", ".join(lost)))
        except Unsummed as error:
            lost = dict(now.result.refused)
            now.lack_sum(error)
            self.stopped = why_unsummed(now.number, error.why, lost) if error.final else ""
        return trees, faults | lost

    def _grown(self, roots: Replies) -> Grown:
        """Return the round's trees of some sites, or None and whom of them was lost."""
        now = self.round
        self.begin_growing()
        replies = dict(roots)
        level = 0
        while True:
            self.growing.grow(self._summed(level, replies))
            if not any(map(len, self.growing.requested_nodes)):
                return self.growing.trees, {}
            level += 1
            sites = sorted(replies)
            messages = self._messages(now.number, sites, level=level)
            replies = now.receive(
                now.exchange(now.send, messages, now.timeout, self.clock), partial(self._judge, level=level)
            )
            # Without one of its sites a node less one of its children would not be the other child.
            if len(replies) < len(sites):
                return None, dict(now.result.refused)

    def _summed(self, level: int, replies: Replies) -> np.ndarray:
        """Return the sums of one level; raises Unsummed."""
        secure = self.run.sums
        if secure is None:
            return np.asarray(sum(replies[site].extra[SUMS] for site in sorted(replies)))
        now = self.round
        shape = self.shape_of_level()
        _, total = secure.add({site: reply.masked for site, reply in replies.items()})
        numbers, beside = np.split(total, [math.prod(shape)])
        if not level:
            now.losses = secure.losses(beside, now.incoming)
        sums = numbers.view(np.int64).reshape(shape)
        rows = sum(reply.num_examples for reply in replies.values())
        if defect := total_defect(sums, rows, self._starts()):
            raise Unsummed(defect, final=True)
        return sums

    def shape_of_level(self) -> tuple[int, int, int]:
        """Return the shape of the next level's sums: nodes, cells, and gradients, Hessians and perhaps rows."""
        cells = int(widths_of(self.round.incoming).sum())
        sums = 3 if self.min_rows else 2
        return sum(map(len, self.growing.requested_nodes)), cells, sums

    def _starts(self) -> np.ndarray:
        return np.concatenate([[0], np.cumsum(widths_of(self.round.incoming))[:-1]])

    def _judge(self, replies: Replies, level: int) -> GuardResult:
        """Sort replies into those whose sums can be, and the others."""
        rows = self.run.rows_high()
        shape = self.shape_of_level()
        if self.run.sums is not None:
            # Beside the sums of the roots stand losses.
            beside = 0 if level else ENTRIES
            return self.run.sums.guard(replies, rows, updates=0, sums=math.prod(shape) + beside)
        defect = partial(sums_defect, shape=shape, starts=self._starts())
        return judged(replies, {site: reply_defect(one, rows[site]) or defect(one) for site, one in replies.items()})


def sums_defect(reply: TrainReply, *, shape: tuple[int, int, int], starts: np.ndarray) -> Refusal | None:
    """Return why a site's sums cannot be those of its rows, None where they can.

    Parameters
    ----------
    reply : TrainReply
    shape : (nodes, cells, 2 or 3)
        Of the sums that were asked for.
    starts : int array [columns]
        Where the cells of each column begin.
    """
    sums = reply.extra.get(SUMS)
    if reply.delta or len(reply.extra) != 1 or sums is None or sums.dtype != np.int64 or sums.shape != shape:
        return Refusal("trees-shape")
    return total_defect(sums, reply.num_examples, starts)


def total_defect(sums: np.ndarray, rows: float, starts: np.ndarray) -> Refusal | None:
    """Return why sums cannot be those of so many rows, None where they can; parameters are those of `sums_defect`."""
    most = rows * np.array([1 / UNIT, 1 / UNIT, 1.0][: sums.shape[2]])
    if ((sums > most) | (sums < -most)).any() or (sums[..., 1:] < 0).any():
        return Refusal("trees-sums")
    # Each row of a node is in one cell of each column.
    totals = np.add.reduceat(sums, starts, axis=1)
    return Refusal("trees-totals") if (totals != totals[:, :1]).any() else None
