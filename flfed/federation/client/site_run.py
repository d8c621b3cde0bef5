"""A site's part of one run, and what it answers about secure sums."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

from flwr.app import Context, Message

from flfed.federation.client.redaction import NotTakingPart
from flfed.federation.client.secure_sums import Approving, SiteSums
from flfed.refusals import Refusal
from flfed.rows.session import SiteSession
from flfed.rows.training.requests import ComputeRequest
from flfed.study.study import Study
from flfed.updates.checkpoints.run_state import RunState
from flfed.updates.masking.question import question_sha256
from flfed.updates.messages.in_memory import read
from flfed.updates.messages.secure_sum import (
    LIST,
    UNMASK,
    KeysReply,
    KeysRequest,
    ListReply,
    ListRequest,
    UnmaskReply,
    UnmaskRequest,
    joined,
)
from flfed.updates.messages.train import TRAIN, TrainRequest


@dataclass(frozen=True, kw_only=True, eq=False)
class SiteRun:
    """What a site has of one run: its name there, its state, and what was approved of secure sums.

    Attributes
    ----------
    site, run : str
    repeat : int
    state : RunState
    approving : callable (study) → SumApproval or None, optional
        None where no institution's gate stands before the site.
    """

    site: str
    run: str
    repeat: int
    state: RunState
    approving: Approving | None

    @classmethod
    def of(cls, context: Context, state: RunState, approving: Approving | None) -> SiteRun:
        """Return the run that a message belongs to."""
        config = context.run_config
        run = str(config.get("run") or config.get("run-here", ""))
        site, repeat = str(context.node_config["site"]), int(config.get("repeat", 0))
        return cls(site=site, run=run, repeat=repeat, state=state, approving=approving)

    def sums(self, study: Study) -> SiteSums | None:
        """Return the site's half of a study's secure sums, None where its updates cross as they are."""
        if study.secure_aggregation == "off":
            return None
        approval = None if self.approving is None else self.approving(study)
        # Institutions decide when they approve; one process rehearses where it is asked to.
        if approval is None and (self.approving is not None or study.secure_aggregation == "auto"):
            return None
        return SiteSums(
            site=self.site, study=study, run=self.run, repeat=self.repeat, state=self.state, approval=approval
        )


def keys(
    message: Message, open_session: Callable[[], SiteSession], own: SiteRun
) -> Generator[ComputeRequest, Any, KeysReply]:
    """Take the keys of the run's cohort."""
    request = read(KeysRequest, message.content)
    return _half(open_session, own).take_keys(request)
    yield


def confirm(
    message: Message, open_session: Callable[[], SiteSession], own: SiteRun
) -> Generator[ComputeRequest, Any, ListReply]:
    """Confirm a list to its sites."""
    request = read(ListRequest, message.content)
    return _half(open_session, own).confirm(request)
    yield


def unmask(
    message: Message, open_session: Callable[[], SiteSession], own: SiteRun
) -> Generator[ComputeRequest, Any, UnmaskReply]:
    """Open a sum."""
    request = read(UnmaskRequest, message.content)
    return _half(open_session, own).open(request)
    yield


def _half(open_session: Callable[[], SiteSession], own: SiteRun) -> SiteSums:
    found = own.sums(open_session().study)
    if found is None:
        raise NotTakingPart(Refusal("sums-unknown"))
    return found


def sum_facts(message: Message, own: SiteRun, study: Study) -> dict[str, str]:
    """Return what a ledger's line says of a reply about secure sums: question, pinned sites, and list.

    Without them in a study whose updates cross as they are, and for other kinds of messages.
    """
    kind, sums = message.metadata.message_type, own.sums(study)
    if sums is None or kind not in (TRAIN, LIST, UNMASK):
        return {}
    if kind == TRAIN:
        question = question_sha256(study, TRAIN, read(TrainRequest, message.content))
        pinned = frozenset(() if sums.approval is None else sums.approval.pinned)
        return {"question_sha256": question, "pinned": joined(pinned)}
    asked = read(ListRequest, message.content) if kind == LIST else read(UnmaskRequest, message.content)
    return {"question_sha256": sums.question(asked.kind, asked.round), "listed": asked.listed}
