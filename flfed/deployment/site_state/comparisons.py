"""How many models of a dataset were compared at a site, by its ledger, and more of them by a person's decision.

A comparison tells of single rows where the coordinator made the model for it. So models are counted, over all
coordinators, studies and runs together.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from flfed.deployment.site_state.ledger_loss import Continuity
from flfed.errors import FlfedError, UsageError
from flfed.federation.client.released.sets import RELEASED, NewPeople, RowSets
from flfed.paths import SiteFolder, give
from flfed.records.ledger import ledger_of
from flfed.records.ledger_line import ADDED, ASKED, CARRIED, STAYED, Line, Run, run_of
from flfed.refusals import Refusal
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site
from flfed.study.study import Study
from flfed.updates.messages.kinds import COMPARE

LOG = logging.getLogger("flfed.site")
_COMPARED = COMPARE.rpartition(".")[2]
TELLS = (
    "A model that the coordinator made for it tells by one comparison whether a person is among the test rows, and "
    "with which outcome, or more: a figure has three digits, which are ten bits."
)
ANEW = (
    "A model compared before does not count for a run on another snapshot where at least half of the people in the "
    "run's test rows were in no test rows that were compared before."
)


@dataclass(frozen=True)
class Compared:
    """Models whose figures left, of one dataset.

    Attributes
    ----------
    models : frozenset of str
        Hashes of arrays and encoder.
    most : int
        By the policy and by what people added.
    """

    models: frozenset[str]
    most: int

    @property
    def left(self) -> int:
        """How many further models are compared."""
        return max(self.most - len(self.models), 0)

    def refusal(self, asked: str) -> Refusal | None:
        """Return why no figure of a model leaves, by its hash; None where it is one more, or the same again."""
        if asked in self.models or self.left:
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
        Hash of arrays and encoder.
    rows : str
        Hash of the snapshot; empty where the line has none.
    run : Run
    carried : bool
        Whether the line came over from a ledger before.
    """

    n: int
    model: str
    rows: str
    run: Run
    carried: bool


class ComparedLines:
    """Lines of a ledger about compared models, and about whose rows they were compared on."""

    def __init__(self) -> None:
        self._comparisons: dict[str, list[Comparison]] = defaultdict(list)
        self._holdouts: dict[tuple[str, Run], set[str]] = defaultdict(set)
        self._added: dict[tuple[str, bool], int] = defaultdict(int)
        self._after_loss = False

    def add(self, line: Line) -> None:
        """Count one line more."""
        dataset = str(line.facts.get("dataset", ""))
        carried = CARRIED in line.facts
        if line.follows_loss:
            self._after_loss = True
        elif line.kind == ADDED:
            self._added[dataset, carried] += int(line.facts["number"])
        elif line.kind == _COMPARED and STAYED not in line.facts:
            model, rows = (str(line.facts.get(key, "")) for key in (ASKED, "rows-sha256"))
            self._comparisons[dataset].append(Comparison(line.n, model, rows, run_of(line.facts), carried))
        elif line.kind == RELEASED and _part(line) == "holdout":
            self._holdouts[dataset, run_of(line.facts)].add(str(line.facts.get("rows-sha256", "")))

    def of(self, dataset: str, policy: Policy) -> Compared:
        """Return the compared models of a dataset.

        After a loss the ledger does not tell how many there were: all that was allowed before counts as used.
        """
        models = frozenset(one.model for one in self._comparisons[dataset])
        if self._after_loss:
            most = len({one.model for one in self._comparisons[dataset] if one.carried})
        else:
            most = policy.compared_runs + self._added[dataset, True]
        return Compared(models, most + self._added[dataset, False])

    def counted(self, kept: RowSets, policy: Policy, run: Run, rows: str) -> Compared:
        """Return the compared models that count for a run on a snapshot.

        One that was compared on another snapshot does not where at least half of the people in the run's test rows
        were in no test rows up to then. What cannot be told counts: of a ledger that was lost, of test rows that are
        not kept. A model counts where it does by any run in which it was compared.

        Parameters
        ----------
        kept : RowSets
            Sets of the dataset.
        policy : Policy
        run : Run
        rows : str
            Hash of the snapshot.
        """
        dataset = kept.dataset
        found = self.of(dataset, policy)
        now = self._holdouts[dataset, run]
        if self._after_loss or not rows or len(now) != 1:
            return found
        try:
            new = NewPeople(kept, *now)
        except FlfedError as error:
            LOG.error("%s", error)
            return found
        counted = set()
        for one in sorted(self._comparisons[dataset], key=lambda one: one.n):
            half = new.are_half_without(self._holdouts[dataset, one.run])
            if not (half and one.rows and one.rows != rows):
                counted.add(one.model)
        return Compared(frozenset(counted), found.most)


def _part(line: Line) -> str:
    """Return the part of the rows that a line of released rows is of."""
    chosen = line.facts.get("chosen")
    return str(chosen.get("part")) if isinstance(chosen, dict) else ""


def compared_models(folder: SiteFolder, site: Site, dataset: str) -> Compared:
    """Return the models of a dataset whose figures left, by the site's ledger."""
    return _read(folder).of(dataset, site.policy)


def comparisons_left(folder: SiteFolder, site: Site) -> list[dict[str, Any]]:
    """Return how many models of each dataset may have figures yet, for JSON; nothing of an open site."""
    if site.policy.disclosure == "open":
        return []
    lines = _read(folder)
    found = {dataset: lines.of(dataset, site.policy) for dataset in site.datasets}
    return [{"dataset": dataset, "left": one.left, "most": one.most} for dataset, one in found.items()]


def _read(folder: SiteFolder) -> ComparedLines:
    """Return what the site's ledger has of compared models."""
    found = ComparedLines()
    with ledger_of(folder).reading() as held:
        if held is not None:
            for line in held.backwards():
                found.add(line)
    return found


def add_comparisons(folder: SiteFolder, study: Study, number: int, *, by: str) -> None:
    """Add comparisons of a study's dataset, on the site's ledger.

    Raises
    ------
    UsageError
        If the ledger is lost or cut, or later than the clock.
    """
    folder.make()
    ledger = ledger_of(folder)
    lost = Continuity(folder, ledger).refusal()
    if lost:
        raise UsageError(f"no comparisons are added: {lost}")
    ledger.append(kind=ADDED, study=study.name, dataset=study.dataset.name, number=number, by=by)
    give(folder.ledger, folder.gate)  # the gate's user goes on with it, whoever runs this
