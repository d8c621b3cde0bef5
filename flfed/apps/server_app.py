"""The server app: one run, from enrolment to the comparison."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Protocol, TypeVar

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from flfed.apps.recording import Recorder
from flfed.errors import FlfedError
from flfed.rows import datasets
from flfed.rows.baselines import first_arrays
from flfed.rows.encode import input_names
from flfed.rows.reference import Reference
from flfed.rows.workplace import study_layout, study_trainable
from flfed.study import Study
from flfed.summary import Encoder, Layout, Summary, arrays_sha256, encoder_moved, fit_encoder, leak_warnings, merge
from flfed.updates.content import Arrays, MalformedMessage, count_bytes
from flfed.updates.guard import comparison_defect, summary_defect
from flfed.updates.messages import (
    COMPARE,
    ENROL,
    SUMMARISE,
    CompareReply,
    CompareRequest,
    EnrolReply,
    EnrolRequest,
    SummariseReply,
    SummariseRequest,
)
from flfed.updates.rounds import Assignment, Enrolled, RoundRecord
from flfed.updates.strategies.fedavg import FedAvg, to_arrays, to_record

LEAST_SITES = 2
FAR = 0.1
"""Standard deviations by which a column's centre may move before the record names it."""
PER_SITE = (
    "every site scaled its rows by its own means (encode.scaler = 'per-site'): "
    "this reproduces others' results and costs accuracy; 'global' is right"
)
Reply = TypeVar("Reply")


@dataclass(frozen=True, eq=False)
class Answers(Generic[Reply]):
    """What came back when every node was asked the same thing, by the nodes' keys.

    Attributes
    ----------
    replies : dict of key to reply, in key order
    faults : dict of key to reason, in key order
        Of the nodes without a usable reply.
    to_node, to_server : dict of key to int
        Bytes of the messages' content; an error has none.
    """

    replies: dict[str, Reply]
    faults: dict[str, str]
    to_node: dict[str, int]
    to_server: dict[str, int] = field(default_factory=dict)


class AllTables(Protocol):
    """What an engine that holds every site's table can add; see `flfed.rows.reference`."""

    def reference(self, sites: list[str], arrays: Arrays, encoder: Encoder) -> Reference:
        """Return the figures over all rows."""
        ...

    def primary_moved(self, sites: list[str], arrays: Arrays, encoder: Encoder, other: Arrays, exact: Encoder) -> float:
        """Return how much the primary metric of `other` differs from that of `arrays`."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """How a run ended.

    Attributes
    ----------
    status : {"completed", "stopped"}
    reason : str
    arrays : dict of name to array
        The final model, or the last good one.
    encoder : Encoder
    rounds, best_round : int
    """

    status: str
    reason: str
    arrays: Arrays
    encoder: Encoder
    rounds: int
    best_round: int

    def arrays_sha256(self) -> str:
        """Return the hash of the final arrays."""
        return arrays_sha256(self.arrays)


class Conductor:
    """Conducts one run over a grid.

    Parameters
    ----------
    grid : Grid
    study : Study
    recorder : Recorder
    repeat : int
    tables : AllTables, optional
        Of an engine that holds every site's table.
    """

    def __init__(
        self, grid: Grid, study: Study, recorder: Recorder, *, repeat: int = 0, tables: AllTables | None = None
    ) -> None:
        self.grid, self.study, self.recorder, self.tables = grid, study, recorder, tables
        self.seed = study.seed + repeat
        self.schema = datasets.load(study.dataset.name).schema
        self.layout: Layout = study_layout(study, self.schema)
        self.model = study.model.build("model")

    def conduct(self) -> Outcome:
        """Run every step of the study and return how it ended.

        Raises
        ------
        FlfedError
            If too few sites take part.
        """
        roster = self.enrol()
        summaries = self.summarise(roster)
        roster = {site: roster[site] for site in summaries}
        merged = merge(list(summaries.values()))
        self.recorder.leaks(leak_warnings(self.layout, merged))
        if self.study.encode.scaler == "per-site":
            self.recorder.note(PER_SITE)
        encoder = fit_encoder(self.layout, merged, self.study.encode.scaler)
        strategy, arrays = self.rounds(roster, encoder)
        outcome = Outcome(
            status="stopped" if strategy.stopped else "completed",
            reason=strategy.stopped,
            arrays=arrays,
            encoder=encoder,
            rounds=strategy.rounds_done,
            best_round=strategy.best_round,
        )
        if not strategy.stopped:
            self.compare(roster, outcome, summaries)
        return outcome

    def enrol(self) -> dict[str, Enrolled]:
        """Ask every node; return those that take part, in name order."""
        request = EnrolRequest(dataset=self.study.dataset.name, schema_sha256=self.schema.sha256())
        nodes = {str(node): node for node in self.grid.get_node_ids()}
        answers = self._ask(ENROL, request, nodes, EnrolReply.from_record)
        names = {node: reply.site for node, reply in answers.replies.items()}
        self._crossed(ENROL, answers, {node: names.get(node, f"node {node}") for node in nodes})
        replies: dict[str, EnrolReply] = {}
        roster = {}
        for node, reply in sorted(answers.replies.items(), key=lambda item: item[1].site):
            if reply.site in replies:
                raise FlfedError(f"two nodes say they are site {reply.site!r}; a site's name must be unique")
            replies[reply.site] = reply
            if reply.accepted:
                roster[reply.site] = Enrolled(node_id=nodes[node], rows_high=reply.rows_high)
        self.recorder.enrolled(replies)
        faults = [f"a node did not enrol: {reason}" for reason in answers.faults.values()]
        self.recorder.unnamed_faults(faults)
        refusals = [f"{reply.site}: {reply.reason}" for reply in replies.values() if not reply.accepted]
        self._enough(roster, refusals + faults)
        return roster

    def summarise(self, roster: Mapping[str, Enrolled]) -> dict[str, Summary]:
        """Ask for sums over training rows; a site that cannot give them is left out."""
        answers = self._ask(SUMMARISE, SummariseRequest(), _nodes(roster), SummariseReply.from_record)
        self._crossed(SUMMARISE, answers)
        faults, found = answers.faults, {}
        for site, reply in answers.replies.items():
            why = summary_defect(reply.summary, self.layout, roster[site].rows_high)
            if why:
                faults[site] = why
            else:
                found[site] = reply.summary
        self.recorder.events("fault", faults)
        self._enough(found, [f"{site}: {reason}" for site, reason in faults.items()])
        return found

    def rounds(
        self, roster: Mapping[str, Enrolled], encoder: Encoder, *, recorded: bool = True
    ) -> tuple[FedAvg, Arrays]:
        """Run the strategy's rounds; return it and the final arrays."""
        strategy: FedAvg = self.study.strategy.build("strategy")

        def observer(record: RoundRecord) -> None:
            if recorded:
                self.recorder.round(record, trained=len(record.losses) >= strategy.needed(len(record.asked)))

        strategy.assign(
            Assignment(
                roster=roster,
                encoder=encoder,
                plan=self.study.plan,
                rounds=self.study.rounds,
                seed=self.seed,
                observer=observer,
            )
        )
        result = strategy.start(self.grid, to_record(self.first_arrays()), self.study.rounds)
        return strategy, to_arrays(result.arrays)

    def first_arrays(self) -> Arrays:
        """Return the arrays that the run starts from, in the plan's precision."""
        given = study_trainable(self.study, self.schema, self.model, seed=self.seed)
        return first_arrays(given, len(input_names(self.layout)))

    def compare(self, roster: Mapping[str, Enrolled], outcome: Outcome, summaries: Mapping[str, Summary]) -> None:
        """Have every site judge, add what only all tables show, and write it down."""
        self.recorder.progress("compare", 0, 1)
        request = CompareRequest(arrays=outcome.arrays, encoder=outcome.encoder)
        answers = self._ask(COMPARE, request, _nodes(roster), CompareReply.from_record)
        self._crossed(COMPARE, answers)
        self.recorder.events("fault", {site: f"no comparison: {reason}" for site, reason in answers.faults.items()})
        replies = self._usable(answers.replies)
        if not replies:
            raise FlfedError("no site could compare the models: see the faults in the run record")
        reference = None
        if self.tables is not None and len(replies) == len(roster):
            reference = self.tables.reference(list(roster), outcome.arrays, outcome.encoder)
            self._disclosure_cost(roster, outcome, reference)
        elif self.tables is not None:
            # Without a site's holdout it would compare with something else; and what fails there fails here.
            self.recorder.note("no pooled reference: not every site could be compared")
        self.recorder.comparison(replies, reference)
        self.recorder.table_one(self.layout, summaries, replies)
        self.recorder.progress("compare", 1, 1)

    def _usable(self, replies: Mapping[str, CompareReply]) -> dict[str, CompareReply]:
        """Return the comparisons that can be believed, without sums that cannot be added to others'."""
        usable = {}
        for site, reply in replies.items():
            why = comparison_defect(reply)
            sums = summary_defect(reply.summary, self.layout) if reply.summary is not None else ""
            if why:
                self.recorder.events("fault", {site: f"no comparison: {why}"})
                continue
            if sums:
                self.recorder.events("fault", {site: f"holdout rows: {sums}"})
            usable[site] = replace(reply, summary=None) if sums else reply
        return usable

    def _disclosure_cost(self, roster: Mapping[str, Enrolled], outcome: Outcome, reference: Reference) -> None:
        """Say how far suppression and coarse sums moved the encoder and the result."""
        exact, used = reference.exact_encoder, outcome.encoder
        if self.tables is None or exact.sha256() == used.sha256() or self.study.encode.scaler != "global":
            return
        columns = encoder_moved(self.layout, used, exact)
        far = sorted((name for name, by in columns.items() if by > FAR), key=lambda name: -columns[name])
        _, other = self.rounds(roster, exact, recorded=False)
        moved = self.tables.primary_moved(list(roster), outcome.arrays, used, other, exact)
        self.recorder.writer.summary("disclosure", {"columns-moved": columns, "primary-moved": moved})
        figure = f"by {moved:+.4f}" if math.isfinite(moved) else "(not defined there)"
        most = f" (most: {', '.join(far[:3])})" if far else ""
        self.recorder.note(
            f"disclosure 'institution', against exact sums, moved {self.recorder.primary} over all holdouts {figure}; "
            f"in the encoder {len(far)} of {len(columns)} columns moved by more than {FAR:g} standard deviations{most}"
        )

    def _ask(
        self, kind: str, request: Any, nodes: Mapping[str, int], read: Callable[[RecordDict], Reply]
    ) -> Answers[Reply]:
        """Send one message a node and return what came back."""
        messages = [Message(request.to_record(), dst_node_id=node, message_type=kind) for node in nodes.values()]
        keys = {node: key for key, node in nodes.items()}
        found: dict[str, Reply] = {}
        faults = dict.fromkeys(nodes, "no reply before the deadline")
        answers = Answers(found, faults, {keys[m.metadata.dst_node_id]: count_bytes(m.content) for m in messages})
        for message in self.grid.send_and_receive(messages, timeout=self._deadline()):
            key = keys.get(message.metadata.src_node_id)
            if key is None:
                continue
            if message.has_error():
                faults[key] = message.error.reason or f"error code {message.error.code}"
                continue
            answers.to_server[key] = count_bytes(message.content)
            try:
                found[key] = read(message.content)
                faults.pop(key, None)
            except MalformedMessage as error:
                faults[key] = str(error)
        return replace(answers, replies=dict(sorted(found.items())), faults=dict(sorted(faults.items())))

    def _crossed(self, kind: str, answers: Answers[Any], names: Mapping[str, str] | None = None) -> None:
        """Write down how many bytes crossed, under the sites' names where keys are not names yet."""
        to_site, to_server = (
            {names[key] if names else key: size for key, size in sizes.items()}
            for sizes in (answers.to_node, answers.to_server)
        )
        self.recorder.crossed(kind, to_site, to_server)

    def _deadline(self) -> float:
        return float(self.study.strategy.settings.get("deadline", 600.0))

    def _enough(self, found: Mapping[str, object], reasons: list[str]) -> None:
        if len(found) < LEAST_SITES:
            why = f" ({'; '.join(reasons)})" if reasons else ""
            few = "no site takes part" if not found else "only one site takes part"
            raise FlfedError(f"{few}, at least {LEAST_SITES} are needed{why}")


def _nodes(roster: Mapping[str, Enrolled]) -> dict[str, int]:
    return {site: enrolled.node_id for site, enrolled in roster.items()}
