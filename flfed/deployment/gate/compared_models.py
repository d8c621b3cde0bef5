"""How many models an institution compares on its test rows of a dataset.

A comparison tells of single rows where the coordinator made the model for it. So models are counted, by the site's own
ledger: over all coordinators, studies and runs together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flwr.app import Message

from flfed.errors import FlfedError
from flfed.federation.client.privacy_budget import NO_LEDGER
from flfed.federation.client.redaction import rounded_comparison, withheld_comparison
from flfed.records.ledger.ledger import HeldLedger, Ledger
from flfed.records.ledger.line import ADDED, ASKED, CARRIED, RESTARTED, STAYED, Line
from flfed.refusals import Refusal
from flfed.rows.data.policy import Policy
from flfed.updates.messages.audit import AUDIT
from flfed.updates.messages.compare import COMPARE, CompareReply

Facts = Mapping[str, Any]
_COMPARED = COMPARE.rpartition(".")[2]


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


class ComparedLines:
    """Lines of a ledger about compared models."""

    def __init__(self) -> None:
        self._models: dict[str, set[str]] = defaultdict(set)
        self._carried: dict[str, set[str]] = defaultdict(set)
        self._added: dict[str, int] = defaultdict(int)
        self._restarted = False

    def add(self, line: Line) -> None:
        """Count one line more."""
        dataset, carried = str(line.facts.get("dataset", "")), CARRIED in line.facts
        if line.kind == RESTARTED:
            self._restarted = True
        elif line.kind == ADDED and not carried:
            self._added[dataset] += int(line.facts["number"])
        elif line.kind == _COMPARED and STAYED not in line.facts:
            model = str(line.facts.get(ASKED, ""))
            self._models[dataset].add(model)
            if carried:
                self._carried[dataset].add(model)

    def of(self, dataset: str, policy: Policy) -> Compared:
        """Return the compared models of a dataset.

        A ledger that was begun anew does not tell how many there were: all that the policy allows count as used.
        """
        most = len(self._carried[dataset]) if self._restarted else policy.compared_runs
        return Compared(frozenset(self._models[dataset]), most + self._added[dataset])


class Comparisons:
    """The comparisons of a site, each held to how many models had figures before.

    Parameters
    ----------
    policy : Policy
    ledger : Ledger
    lines_of : callable (held ledger) → ComparedLines
    asked_of : callable (message) → str
        Returns the hash of a request's model.
    """

    def __init__(
        self,
        policy: Policy,
        ledger: Ledger,
        lines_of: Callable[[HeldLedger], ComparedLines],
        asked_of: Callable[[Message], str],
    ) -> None:
        self._policy = policy
        self._ledger = ledger
        self._lines_of = lines_of
        self._asked_of = asked_of

    def leaving(self, message: Message, reply: Message, facts: Facts) -> tuple[Message, Facts]:
        """Return an institution's comparison as it leaves, and what its line says; other replies as they are.

        Figures have three digits, or stay where their model is one too many: the site's own people have them exact.

        Parameters
        ----------
        message : Message
        reply : Message
            One that fits the study.
        facts : mapping
            What the ledger's line says.
        """
        if not self._counts(message, COMPARE):
            return reply, facts
        try:
            with self._ledger.held() as held:
                refused = self._refusal(held, message, facts)
        except FlfedError:
            refused = NO_LEDGER
        found = CompareReply.from_record(reply.content)
        if refused is None:
            return Message(rounded_comparison(found).to_record(), reply_to=message), facts
        return Message(withheld_comparison(found, refused).to_record(), reply_to=message), {**facts, STAYED: True}

    def over(self, held: HeldLedger, message: Message, facts: Facts) -> Refusal | None:
        """Return why a comparison with figures is one too many by now, as by another process; else None."""
        leaves = self._counts(message, COMPARE) and STAYED not in facts
        return self._refusal(held, message, facts) if leaves else None

    def attack_refusal(self, held: HeldLedger, message: Message, facts: Facts) -> Refusal | None:
        """Return why a model is not attacked: none of its figures left, and none does now; else None."""
        return self._refusal(held, message, facts) if self._counts(message, AUDIT) else None

    def _counts(self, message: Message, kind: str) -> bool:
        return message.metadata.message_type == kind and self._policy.disclosure != "open"

    def _refusal(self, held: HeldLedger, message: Message, facts: Facts) -> Refusal | None:
        compared = self._lines_of(held).of(str(facts["dataset"]), self._policy)
        return compared.refusal(self._asked_of(message))
