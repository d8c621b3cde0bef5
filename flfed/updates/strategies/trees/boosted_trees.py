"""Boosted trees, grown from the sites' sums of gradients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Annotated, ClassVar

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from pydantic import Field

from flfed.errors import UsageError
from flfed.refusals import Refusal
from flfed.study.plan import Plan
from flfed.summaries.summary import arrays_sha256
from flfed.trees.cut_points import widths_of
from flfed.trees.forest import UNIT, Tree, depth_of, round_of, tree_arrays, with_round
from flfed.trees.growth import GrowingRound, TreeSettings
from flfed.updates.aggregation.guard import GuardResult, judged, reply_defect
from flfed.updates.messages.in_memory import immutable
from flfed.updates.messages.train import ASKED, LAST, SUMS, TREE, TrainReply, TrainRequest
from flfed.updates.strategies.fedavg import FedAvg, mean_loss, to_arrays, to_record

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
    least_hessian : float, >= 0
        Least sum of Hessians in a child. Example: `least-hessian = 5.0`.
    least_gain : float, >= 0
        Least gain of a split. Example: `least-gain = 0.1`.
    min_rows : int, >= 0
        Fewest rows of each code of a column and of each leaf; each code has two outcomes then. Sites send counts of
        rows besides. 0 asks for none. Example: `min-rows = 10`.
    fraction, quorum, deadline, select, patience : as in FedAvg
        The other parameters as for `FedAvg`; rows count as they are, so that there are no weights.

    Notes
    -----
    Gradients are rounded to whole units before they are added up, so that the order of sites changes no bit. A site
    that is lost within a tree would leave its rows in the sibling of a node: the tree is grown again from its root
    without it.

    Reveals: sums of gradients and of Hessians (with `min_rows` counts of rows, too) over the site's training rows by
    node of a tree, column and code, exact, in each exchange; and how many rows these are. In the first tree a row's
    gradient is its outcome: a row that is alone in a code of a column, or among rows that all have one outcome, has its
    outcome told. `min_rows` prevents that at the root of a tree, over all sites together, and not below it, nor in the
    sums of one site. Who chooses the splits freely, instead of by the sums, makes nodes of ever fewer rows, and reads
    the outcome of each of them, and its columns' codes.

    Source: Friedman 2001, "Greedy function approximation: a gradient boosting machine"; Chen and Guestrin 2016,
    "XGBoost: a scalable tree boosting system".
    """

    learning_rate: Annotated[float, Field(gt=0, le=1)] = 0.1
    l2: Annotated[float, Field(ge=0)] = 1.0
    least_hessian: Annotated[float, Field(ge=0)] = 1.0
    least_gain: Annotated[float, Field(ge=0)] = 0.0
    min_rows: Annotated[int, Field(ge=0)] = 0
    sums: ClassVar[bool] = False  # of updates; its own sums are another vector
    parts: ClassVar[bool] = False
    growing: GrowingRound = field(init=False)
    attempt: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        """Refuse settings out of their range, and weights."""
        super().__post_init__()
        if (self.weights, self.server_lr) != ("rows", 1.0):
            raise UsageError("[strategy] boosted-trees: weights and server-lr are of averages; rows count as they are")

    def check(self, plan: Plan) -> None:
        """Refuse a plan of gradient descent."""
        super().check(plan)
        given = [own.name for own in fields(Plan) if getattr(plan, own.name) != getattr(Plan(), own.name)]
        if unused := [name.replace("_", "-") for name in given if name not in USED]:
            raise UsageError(
                f"[plan]: {', '.join(unused)}: trees are grown, not trained by gradient descent: leave it out; "
                "learning-rate and l2 of trees stand under [strategy]"
            )
        if plan.precision != "float64":
            raise UsageError(f"[plan]: precision={plan.precision!r}: trees are of float64")

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return a message for each cohort site, which asks for the sums of the roots."""
        now = self.round
        now.incoming = to_arrays(arrays)
        # A tree that is grown again is another question than the one before.
        self.attempt = max(1, self.attempt) if now.earlier else 0
        self.growing = self._begun()
        return self._messages(server_round, self.cohort(server_round), score=True)

    def _begun(self) -> GrowingRound:
        """Return the trees of a round before their first split."""
        incoming = self.round.incoming
        settings = TreeSettings(
            depth=depth_of(incoming["value"].shape[2]),
            learning_rate=self.learning_rate,
            l2=self.l2,
            least_hessian=self.least_hessian,
            least_gain=self.least_gain,
            least_rows=self.min_rows,
        )
        return GrowingRound(widths_of(incoming), settings, incoming["value"].shape[1])

    def _messages(
        self, server_round: int, sites: Iterable[str], *, level: int = 0, score: bool = False
    ) -> list[Message]:
        """Return a message to each of some sites, which asks for the sums of the next level."""
        run, now = self.run, self.round
        now.asked = {site: run.participants[site].node_id for site in sites}
        nodes = now.incoming["value"].shape[2]
        asked = np.zeros((len(self.growing.asked), nodes))
        for own, wanted in zip(asked, self.growing.asked, strict=True):
            own[wanted] = 1.0
        tree = tree_arrays(self.growing.trees, nodes)
        last = round_of(now.incoming, server_round - 2) if server_round > 1 else np.zeros_like(tree)
        request = TrainRequest(
            arrays=immutable(now.incoming),
            encoder=run.encoder,
            round=server_round,
            rounds=run.rounds,
            score=score,
            settings={"level": float(level), "attempt": float(self.attempt)},
            extra=immutable({LAST: last, TREE: tree, ASKED: asked}),
            trees_sha256=arrays_sha256(now.incoming),
        )
        return now.messages(request, run)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the arrays with the round's trees, None without enough good sums.

        Given the replies of the roots, it asks for all other levels.
        """
        now = self.round
        asked = dict(now.asked)
        roots = now.receive(replies, self._judge)
        faults, sites = dict(now.result.refused), sorted(roots)
        trees: list[Tree] | None = None
        while trees is None and len(sites) >= self.needed(len(asked)):
            trees, lost = self._grown(server_round, {site: roots[site] for site in sites})
            faults |= lost
            sites = [site for site in sites if site not in lost]
            self.attempt += 1
        now.asked = asked
        good = {site: roots[site] for site in sites}
        now.result = GuardResult(accepted=good, refused=dict(sorted(faults.items())))
        if trees is None:
            return None, None
        self._select(server_round, good)
        incoming = now.incoming
        whole = with_round(incoming, server_round - 1, tree_arrays(trees, incoming["value"].shape[2]))
        return to_record(whole), mean_loss(good, {site: reply.num_examples for site, reply in good.items()})

    def _grown(
        self, server_round: int, roots: Mapping[str, TrainReply]
    ) -> tuple[list[Tree] | None, dict[str, Refusal]]:
        """Return the round's trees of some sites, or None and whom of them was lost."""
        now, self.growing = self.round, self._begun()
        send = now.further.wait if now.earlier else now.further.send
        replies, level = dict(roots), 0
        while True:
            self.growing.grow(np.asarray(sum(replies[site].extra[SUMS] for site in sorted(replies))))
            if not any(map(len, self.growing.asked)):
                return self.growing.trees, {}
            level += 1
            messages = self._messages(server_round, sorted(roots), level=level)
            replies = now.receive(now.exchange(send, messages, self.deadline, self.clock), self._judge)
            if len(replies) < len(roots):
                return None, dict(now.result.refused)

    def _judge(self, replies: Mapping[str, TrainReply]) -> GuardResult:
        """Sort replies into those whose sums can be, and the others."""
        cells = int(widths_of(self.round.incoming).sum())
        shape = (sum(map(len, self.growing.asked)), cells, 3 if self.min_rows else 2)
        rows, ends = self.run.rows_high(), np.cumsum(widths_of(self.round.incoming))[:-1]
        defect = partial(sums_defect, shape=shape, starts=np.concatenate([[0], ends]))
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
    most = reply.num_examples * np.array([1 / UNIT, 1 / UNIT, 1.0][: shape[2]])
    if ((sums > most) | (sums < -most)).any() or (sums[..., 1:] < 0).any():
        return Refusal("trees-sums")
    # Each row of a node is in one cell of each column.
    totals = np.add.reduceat(sums, starts, axis=1)
    return Refusal("trees-totals") if (totals != totals[:, :1]).any() else None
