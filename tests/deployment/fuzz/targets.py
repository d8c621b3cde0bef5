"""What changed messages are sent to: the border alone, whole gates, and a whole coordinator."""

import gc
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flwr.app import Message, RecordDict

from flfed.deployment.gate.message_check import message_defect
from flfed.errors import FlfedError
from flfed.federation.recording.run_record import Outcome
from flfed.refusals import Refusal, read
from flfed.updates.messages import compare, enrol, kinds, secure_sum, summarise, train
from flfed.updates.messages.fields import MalformedMessage
from flfed.updates.sections import Sections
from tests.deployment.fuzz.mutation import Mutator

CLASSES: Mapping[str, tuple[Any, Any]] = {
    kinds.ENROL: (enrol.EnrolRequest, enrol.EnrolReply),
    kinds.SUMMARISE: (summarise.SummariseRequest, summarise.SummariseReply),
    kinds.BINS: (summarise.BinsRequest, summarise.BinsReply),
    kinds.STATISTIC: (summarise.StatisticRequest, summarise.StatisticReply),
    kinds.SCORES: (summarise.ScoresRequest, summarise.ScoresReply),
    kinds.TRAIN: (train.TrainRequest, train.TrainReply),
    kinds.EVALUATE: (train.TrainRequest, train.TrainReply),
    kinds.COMPARE: (compare.CompareRequest, compare.CompareReply),
    kinds.AUDIT: (compare.AuditRequest, compare.AuditReply),
    kinds.KEYS: (secure_sum.KeysRequest, secure_sum.KeysReply),
    kinds.OPEN: (secure_sum.OpenRequest, secure_sum.OpenReply),
}
"""Classes of each kind's request and reply."""
UNLISTED = ("query.rows", "query", "train.all", "evaluate.more", "query.compare_all", "query.__class__")
"""Kinds of messages that no site answers."""

GROWTH = 20_000_000
"""Bytes of resident memory."""


@dataclass
class Found:
    """Result of a target.

    Attributes
    ----------
    messages, refused, accepted : int
        How many were sent, and what became of them.
    faults : list of str
        What must not happen, each with the changes that led to it.
    seconds : float
        Spent in the checks at the border alone.
    """

    messages: int = 0
    refused: int = 0
    accepted: int = 0
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def fault(self, what: str, *facts: object) -> None:
        self.faults.append(f"{what}: {', '.join(map(str, facts))}")

    def compare_memory(self, before: int) -> None:
        """Note a fault where this process has 20 MB more than after the first quarter of the messages."""
        grown = resident_bytes() - before
        if before and grown > GROWTH:
            self.fault("memory grew", f"{grown / 1e6:.0f} MB")


@dataclass(frozen=True)
class Template:
    """A real message, with the sections of its study and its class."""

    kind: str
    record: RecordDict
    sections: Sections
    message_class: Any


def templates_of(gate: Any, study_sha256: str, sent: list[tuple[Message, Message]]) -> Iterator[Template]:
    """Yield the messages of a run that went through a gate, in both directions."""
    messages = gate._studies.messages(study_sha256)
    for request, reply in sent:
        kind = request.metadata.message_type
        yield Template(kind, request.content, messages.incoming(kind), CLASSES[kind][0])
        if reply.has_error():
            continue
        config = request.content.get("config", {})
        options = {"score": config.get("score") is not False, "offset": config.get("offset") is True}
        yield Template(kind, reply.content, messages.leaving(kind, **options), CLASSES[kind][1])


def fuzz_border(templates: list[Template], messages: int, seed: int) -> Found:
    """Check changed messages against their declarations, and read them."""
    found, mutator = Found(), Mutator(seed)
    for _ in range(messages):
        template = mutator.random.choice(templates)
        changed = mutator.mutate(template.record, template.sections)
        about = (template.message_class.__name__, *changed.changes)
        begun = time.perf_counter()
        try:
            defect = message_defect(changed.record, template.sections)
        except Exception as error:  # noqa: BLE001
            found.fault("the border failed", repr(error), *about)
            defect = Refusal("unreadable")
        found.seconds += time.perf_counter() - begun
        found.messages += 1
        found.refused += defect is not None
        found.accepted += defect is None
        if defect is None and changed.is_unfit:
            found.fault("what is unfit was accepted", *about)
        try:
            template.message_class.from_record(changed.record)
        except MalformedMessage:
            pass
        except Exception as error:  # noqa: BLE001
            found.fault("reading failed", repr(error), *about)
    return found


@dataclass(frozen=True)
class GateTarget:
    """A whole gate with real requests of its study.

    Parameters
    ----------
    site : Gated or alike
        With `gate` and `context(run=…)`.
    kinds : frozenset of str
        That its study asks for.
    requests : list of Message
    """

    site: Any
    kinds: frozenset[str]
    requests: list[Message]


def fuzz_gates(targets: list[GateTarget], messages: int, seed: int) -> Found:
    """Send changed requests, in any order and of any kind, to whole gates."""
    found, mutator = Found(), Mutator(seed)
    chance = mutator.random
    memory = 0
    for number in range(messages):
        target = chance.choice(targets)
        request = chance.choice(target.requests)
        kind = request.metadata.message_type
        sections = target.site.gate._studies.messages(target.site.study.sha256()).incoming(kind)
        content, changes, is_unfit = request.content, ["as it was"], False
        if chance.random() < 0.8:
            changed = mutator.mutate(content, sections)
            content, changes = changed.record, changed.changes
            # A gate that has the encoder already needs none.
            is_unfit = changed.is_unfit and not ("encoder" in request.content and "encoder" not in content)
        if chance.random() < 0.2:
            kind = chance.choice([*kinds.KINDS, *UNLISTED])
            is_unfit = kind not in target.kinds
        about = (kind, *changes)
        message = target.site.message(kind, content)
        reply = answered(found, target, message, chance, about)
        if reply is not None:
            found.accepted += not reply.has_error()
            found.refused += reply.has_error()
            if not reply.has_error() and is_unfit:
                found.fault("what is unfit was answered", *about)
            elif reply.has_error() and is_unexpected(reply.error.reason or ""):
                found.fault("an error of the code", reply.error.reason, *about)
        if number == messages // 4:
            memory = resident_bytes()
    found.messages = messages
    found.compare_memory(memory)
    return found


def answered(found: Found, target: GateTarget, message: Message, chance: random.Random, about: Any) -> Message | None:
    try:
        context = target.site.context(run=f"2026-{chance.randrange(4)}")
        return target.site.gate.answer(message, context)
    except Exception as error:  # noqa: BLE001
        found.fault("the gate failed", repr(error), *about)
        return None


def is_unexpected(reason: str) -> bool:
    """Return whether an error is neither one of flfed's own sentences nor one of its own types."""
    refusal = read(reason)
    if refusal is None or refusal.path.endswith("error-untold"):
        return True
    return refusal.path.endswith("error") and refusal.facts.get("type") not in own_errors(FlfedError)


def own_errors(kind: type) -> set[str]:
    """Return the names of an error's class and of all that are derived from it."""
    return {kind.__name__}.union(*map(own_errors, kind.__subclasses__()))


Change = Callable[[str, Message, Sections], None]
"""Changes what a reply of a kind holds, before it arrives."""


def fuzz_coordinator(conduct: Callable[[Change], Outcome], messages: int, seed: int) -> Found:
    """Conduct runs, of each of which another share of the replies is changed, until so many were."""
    found, mutator = Found(), Mutator(seed)
    changes: list[str] = []
    memory = 0
    share = 0.0

    def change(kind: str, reply: Message, sections: Sections) -> None:
        if mutator.random.random() < share:
            changed = mutator.mutate(reply.content, sections)
            reply.content = changed.record
            found.messages += 1
            changes[:] = [kind, *changed.changes]

    while found.messages < messages:
        # What cycles hold until a late collection is no growth.
        if (found.accepted + found.refused) % 20 == 0:
            gc.collect()
        share = mutator.random.uniform(0.05, 0.6)
        try:
            found.accepted += conduct(change).status == "completed"
        except FlfedError:
            found.refused += 1
        except Exception as error:  # noqa: BLE001
            found.fault("the coordinator failed", repr(error), *changes)
        if not memory and found.messages >= messages // 4:
            memory = resident_bytes()
    found.compare_memory(memory)
    return found


def resident_bytes() -> int:
    """Return this process's resident memory."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096
