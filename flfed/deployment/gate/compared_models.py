"""Comparisons of an institution as they leave: with three digits, and of few models of a dataset."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flwr.app import Message

from flfed.deployment.site_state.comparisons import ComparedLines
from flfed.errors import FlfedError
from flfed.federation.client.privacy_budget import NO_LEDGER
from flfed.federation.client.redaction import (
    rounded_comparison,
    with_later_figures,
    withheld_comparison,
)
from flfed.federation.client.released.sets import RowSets
from flfed.folders import SiteFolder
from flfed.records.ledger.ledger import HeldLedger, Ledger
from flfed.records.ledger.line import STAYED, run_of_new
from flfed.refusals import Refusal
from flfed.rows.data.policy import Policy
from flfed.updates.messages.audit import AUDIT
from flfed.updates.messages.compare import COMPARE, CompareReply, Figure

Facts = Mapping[str, Any]
Later = Callable[[], tuple[Figure, ...]]


def no_later_figures() -> tuple[Figure, ...]:
    """Return no figures: of a message that compares nothing."""
    return ()


class Comparisons:
    """The comparisons of a site, each held to how many models had figures before.

    Parameters
    ----------
    folder : SiteFolder
    policy : Policy
    ledger : Ledger
    lines_of : callable (held ledger) → ComparedLines
    asked_of : callable (message) → str
        Returns the hash of a request's model.
    """

    def __init__(
        self,
        folder: SiteFolder,
        policy: Policy,
        ledger: Ledger,
        lines_of: Callable[[HeldLedger], ComparedLines],
        asked_of: Callable[[Message], str],
    ) -> None:
        self._folder = folder
        self._policy = policy
        self._ledger = ledger
        self._lines_of = lines_of
        self._asked_of = asked_of

    def leaving(self, message: Message, reply: Message, facts: Facts, later: Later) -> tuple[Message, Facts]:
        """Return an institution's reply as it leaves, and what its line says.

        Figures of a comparison have three digits, or stay where their model is one too many: the site's own people
        have them exact.

        Parameters
        ----------
        message : Message
        reply : Message
            One that fits the study.
        facts : mapping
            What the ledger's line says.
        later : callable () → tuple of Figure
            Returns figures with noise of the model that was compared.
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
        withheld = withheld_comparison(found, refused)
        if found.arms and self._policy.later_figures == "noised" and refused is not NO_LEDGER:
            withheld = with_later_figures(withheld, later())
        return Message(withheld.to_record(), reply_to=message), {**facts, STAYED: True}

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
        dataset, lines = str(facts["dataset"]), self._lines_of(held)
        if lines.of(dataset, self._policy).left:
            return None
        kept = RowSets(self._folder, dataset, self._ledger)
        counted = lines.counted(kept, self._policy, run_of_new(facts), str(facts["rows_sha256"]))
        return counted.refusal(self._asked_of(message))
