"""Compared models of a dataset at a site, by its ledger.

A person may decide to add some. A comparison reveals single rows where the coordinator made the model for the purpose.
So models are counted, over all coordinators, studies and runs together.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flfed.errors import FlfedError
from flfed.federation.client.released.sets import RELEASED, NewPeople, RowSets
from flfed.paths import SiteFolder, give
from flfed.records.ledger import Ledger, LockedLedger, ledger_of
from flfed.records.ledger_line import ADDED, COMPARED_HASH, RESTARTED, START_HASH, STAYED, Line, Run, run_of, run_of_new
from flfed.refusals import NO_LEDGER, Refusal
from flfed.rows.data.policy import Policy
from flfed.rows.snapshots.withholding import TESTED
from flfed.study.study import Study
from flfed.updates.messages.kinds import COMPARE

if TYPE_CHECKING:
    from flwr.app import Message

LOG = logging.getLogger("flfed.site")
_COMPARED = COMPARE.rpartition(".")[2]
Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Compared:
    """Models whose figures left, of one dataset.

    Attributes
    ----------
    models : frozenset of str
        Hashes of arrays and encoder.
    most : int
        By the policy and by people's additions.
    """

    models: frozenset[str]
    most: int

    @property
    def left(self) -> int:
        """How many further models may be compared."""
        return max(self.most - len(self.models), 0)

    def refusal(self, model_sha256: str) -> Refusal | None:
        """Return why no figure of a model leaves, by its hash.

        It is None for one more model, or a repeated one.
        """
        if model_sha256 in self.models or self.left:
            return None
        return Refusal("too-many-compared", most=self.most, had=len(self.models))


@dataclass(frozen=True)
class Comparison:
    """A comparison whose figures left.

    Attributes
    ----------
    n : int
        Number of its line.
    model : str
        Hash of arrays and encoder; of a validated model with its columns, too.
    rows : str
        Hash of the snapshot; empty where the line has none.
    run : Run
    """

    n: int
    model: str
    rows: str
    run: Run


class ComparedLines:
    """Lines of a ledger about compared models, and about the rows of each comparison."""

    def __init__(self) -> None:
        self._comparisons: dict[str, list[Comparison]] = defaultdict(list)
        self._holdouts: dict[tuple[str, Run], set[str]] = defaultdict(set)
        self._whole: set[Run] = set()
        self._added: dict[str, int] = defaultdict(int)
        self._after_loss = False

    def add(self, line: Line) -> None:
        """Count one more line."""
        dataset = line.text("dataset")
        if line.kind == RESTARTED:
            self._after_loss = True
        elif line.kind == ADDED:
            self._added[dataset] += int(line.facts["number"])
        elif line.kind == _COMPARED and STAYED not in line.facts:
            model, start, rows = (line.text(key) for key in (COMPARED_HASH, START_HASH, "rows-sha256"))
            model += start
            self._comparisons[dataset].append(Comparison(line.n, model, rows, run_of(line.facts)))
        elif line.kind == RELEASED and _part(line) in TESTED:
            self._holdouts[dataset, run_of(line.facts)].add(line.text("rows-sha256"))
            if _part(line) == "whole":
                self._whole.add(run_of(line.facts))

    def of(self, dataset: str, policy: Policy) -> Compared:
        """Return the compared models of a dataset.

        After a loss the ledger does not show how many there were: the earlier allowance counts as used up.
        """
        models = frozenset(one.model for one in self._comparisons[dataset])
        most = 0 if self._after_loss else policy.compared_runs
        return Compared(models, most + self._added[dataset])

    def counted(self, row_sets: RowSets, policy: Policy, run: Run, rows: str) -> Compared:
        """Return the compared models that count for a run on a snapshot.

        A model that was compared on another snapshot may not count. It does not where at least half of the people in
        the run's test rows were in no test rows up to then. An unknown case counts: of a lost ledger, or of test rows
        without a stored set. A model counts where it does by any run that compared it.

        Parameters
        ----------
        row_sets : RowSets
            Sets of the dataset.
        policy : Policy
        run : Run
        rows : str
            Hash of the snapshot.
        """
        dataset = row_sets.dataset
        all_models = self.of(dataset, policy)
        now = self._holdouts[dataset, run]
        if self._after_loss or not rows or len(now) != 1:
            return all_models
        try:
            new = NewPeople(row_sets, *now)
        except FlfedError as error:
            LOG.error("%s", error)
            return all_models
        counted = set()
        for one in sorted(self._comparisons[dataset], key=lambda one: one.n):
            half = new.are_half_without(self._holdouts[dataset, one.run])
            # Of all people most were in no test rows, and are not new for that.
            half = half and (run not in self._whole or one.run in self._whole)
            if not (half and one.rows and one.rows != rows):
                counted.add(one.model)
        return Compared(frozenset(counted), all_models.most)


def _part(line: Line) -> str:
    """Return the part of the rows that a line of released rows is about."""
    chosen = line.facts.get("chosen")
    return str(chosen.get("part")) if isinstance(chosen, dict) else ""


def compared_models(folder: SiteFolder, policy: Policy, dataset: str) -> Compared:
    """Return the models of a dataset whose figures left, by the site's ledger."""
    return _read(folder).of(dataset, policy)


def comparisons_left(folder: SiteFolder, policy: Policy, datasets: Iterable[str]) -> list[dict[str, Any]]:
    """Return how many models may still have figures, for JSON.

    There is one entry a dataset, and none for an open site.
    """
    if policy.is_open:
        return []
    lines = _read(folder)
    models_by_dataset = {dataset: lines.of(dataset, policy) for dataset in datasets}
    return [{"dataset": dataset, "remaining": one.left, "most": one.most} for dataset, one in models_by_dataset.items()]


def _read(folder: SiteFolder) -> ComparedLines:
    """Return the site's ledger lines about compared models."""
    compared_lines = ComparedLines()
    with ledger_of(folder).reading() as ledger_file:
        for line in ledger_file.backwards():
            compared_lines.add(line)
    return compared_lines


def add_comparisons(folder: SiteFolder, study: Study, number: int, *, by: str) -> None:
    """Add comparisons of a study's dataset, on the site's ledger.

    Raises
    ------
    LedgerError
        If the ledger is lost or cut, or later than the clock.
    """
    folder.make()
    ledger_of(folder).append(kind=ADDED, study=study.name, dataset=study.dataset.name, number=number, by=by)
    give(folder.ledger, folder.gate)  # the gate's user continues it, whichever user runs this


@dataclass
class Comparisons:
    """Comparisons of a site, limited by how many models had figures before.

    Parameters
    ----------
    folder : SiteFolder
    policy : Policy
    ledger : Ledger
    lines_of : callable (held ledger) → ComparedLines
    """

    folder: SiteFolder
    policy: Policy
    ledger: Ledger
    lines_of: Callable[[LockedLedger], ComparedLines]

    def leaving(self, message: Message, reply: Message, facts: Facts) -> tuple[Message, Facts]:
        """Return an institution's outbound reply, and the facts for its line.

        Figures of a comparison have three digits, or do not leave where their model is one too many. The site's own
        people have them exact.

        Parameters
        ----------
        message : Message
        reply : Message
            One that fits the study.
        facts : mapping
            Of the ledger's line.
        """
        if not self._counts(message, COMPARE):
            return reply, facts
        try:
            with self.ledger.lock() as locked_ledger:
                refused = self._refusal(locked_ledger, message, facts)
        except FlfedError:
            refused = NO_LEDGER
        # Flower is loaded only where a message is answered, and not where lines are counted.
        from flwr.app import Message as Reply

        from flfed.federation.client import outbound_figures
        from flfed.updates.messages.compare import CompareReply

        comparison = CompareReply.from_record(reply.content)
        if refused is None:
            return Reply(outbound_figures.rounded_comparison(comparison).to_record(), reply_to=message), facts
        withheld = outbound_figures.withheld_comparison(comparison, refused)
        return Reply(withheld.to_record(), reply_to=message), {**facts, STAYED: True}

    def over(self, locked_ledger: LockedLedger, message: Message, facts: Facts, kind: str) -> Refusal | None:
        """Return why a message of this kind reads one model too many by now, or None.

        Another process may have used the last comparison. A model of whose figures none left is not attacked either.
        """
        leaves = self._counts(message, kind) and STAYED not in facts
        return self._refusal(locked_ledger, message, facts) if leaves else None

    def _counts(self, message: Message, kind: str) -> bool:
        return message.metadata.message_type == kind and not self.policy.is_open

    def _refusal(self, locked_ledger: LockedLedger, message: Message, facts: Facts) -> Refusal | None:
        dataset = str(facts["dataset"])
        lines = self.lines_of(locked_ledger)
        if lines.of(dataset, self.policy).left:
            return None
        row_sets = RowSets(self.folder, dataset, self.ledger)
        counted = lines.counted(row_sets, self.policy, run_of_new(facts), str(facts["rows_sha256"]))
        from flfed.updates.messages.train import model_sha256

        return counted.refusal(model_sha256(message) + str(facts.get("start_sha256", "")))
