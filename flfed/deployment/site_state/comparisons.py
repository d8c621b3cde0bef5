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

from flfed.deployment.site_state.ledger_loss import Continuity
from flfed.errors import FlfedError
from flfed.paths import SiteFolder, give
from flfed.records.ledger import Ledger, LockedLedger, ledger_of
from flfed.records.ledger_line import ADDED, CARRIED, COMPARED_HASH, START_HASH, STAYED, Line
from flfed.refusals import NO_LEDGER, Refusal
from flfed.rows.data.policy import Policy
from flfed.study.study import Study
from flfed.updates.messages.kinds import COMPARE
from flfed.words import usage_error

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


class ComparedLines:
    """Lines of a ledger about compared models."""

    def __init__(self) -> None:
        self._models: dict[str, set[tuple[str, bool]]] = defaultdict(set)
        self._added: dict[tuple[str, bool], int] = defaultdict(int)
        self._after_loss = False

    def add(self, line: Line) -> None:
        """Count one more line."""
        dataset = line.text("dataset")
        carried = CARRIED in line.facts
        if line.follows_loss:
            self._after_loss = True
        elif line.kind == ADDED:
            self._added[dataset, carried] += int(line.facts["number"])
        elif line.kind == _COMPARED and STAYED not in line.facts:
            self._models[dataset].add((line.text(COMPARED_HASH) + line.text(START_HASH), carried))

    def of(self, dataset: str, policy: Policy) -> Compared:
        """Return the compared models of a dataset.

        After a loss the ledger does not show how many there were: the earlier allowance counts as used up.
        """
        models = frozenset(model for model, _ in self._models[dataset])
        if self._after_loss:
            most = len({model for model, carried in self._models[dataset] if carried})
        else:
            most = policy.compared_runs + self._added[dataset, True]
        return Compared(models, most + self._added[dataset, False])


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
        if ledger_file is not None:
            for line in ledger_file.backwards():
                compared_lines.add(line)
    return compared_lines


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
        raise usage_error("gate.ledger.unadded", why=lost)
    ledger.append(kind=ADDED, study=study.name, dataset=study.dataset.name, number=number, by=by)
    give(folder.ledger, folder.gate)  # the gate's user continues it, whichever user runs this


@dataclass
class Comparisons:
    """Comparisons of a site, limited by how many models had figures before.

    Parameters
    ----------
    policy : Policy
    ledger : Ledger
    lines_of : callable (held ledger) → ComparedLines
    """

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
        compared = self.lines_of(locked_ledger).of(dataset, self.policy)
        if compared.left:
            return None
        from flfed.updates.messages.train import model_sha256

        return compared.refusal(model_sha256(message) + str(facts.get("start_sha256", "")))
