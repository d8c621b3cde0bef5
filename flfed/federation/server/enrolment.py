"""Beginning of a run: which sites take part, and why the others do not; and their first sums.

Of the sums over training rows a run's encoder is made.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import flfed
from flfed.errors import FlfedError, UsageError
from flfed.federation.recording.source_model import UNCOVERED, source_facts, source_of
from flfed.federation.server.parts.server_part import ServerPart
from flfed.federation.server.run_setting import Answers, RunSetting, ask, nodes_of
from flfed.federation.server.source_rows import EnrolledCheck
from flfed.refusals import NO_ANSWER, Refusal, path_of
from flfed.summaries.summary import (
    Encoder,
    Summary,
    arrays_sha256,
    fit_encoder,
    leak_warnings,
    one_class,
    sums_sha256,
    untested,
)
from flfed.updates.aggregation.guard import summary_defect
from flfed.updates.aggregation.rounds import Participant, Participants
from flfed.updates.messages.enrol import ENROL, EnrolReply, EnrolRequest, sharing_of
from flfed.updates.messages.summarise import SUMMARISE, SummariseReply, SummariseRequest

SAYS_WHERE = ("policy-unreadable", "table-unopened")
"""Codes of refusals that name `flfed site check` themselves."""


PER_SITE = (
    "every site scaled its rows by its own means (encode.scaler = 'per-site'): "
    "this reproduces others' results and costs accuracy; 'global' is right"
)


@dataclass(frozen=True, kw_only=True)
class Absent:
    """Why sites do not take part.

    Attributes
    ----------
    own : mapping of site to str
        By their own policy.
    refused : mapping of site to Refusal
        By their gate.
    silent : mapping of site to Refusal
        Of those that sent no answer.
    unnamed : sequence of Refusal
        Of nodes whose site is not known.
    """

    own: Mapping[str, str]
    refused: Mapping[str, Refusal]
    silent: Mapping[str, Refusal]
    unnamed: Sequence[Refusal]

    @property
    def reasons(self) -> Mapping[str, str]:
        """The reason of each site that is known by name."""
        return {**self.own, **self.refused, **self.silent}


def enrol(
    run: RunSetting,
    parts: Sequence[ServerPart],
    check: EnrolledCheck,
    earlier: Sequence[str] = (),
    cohort: Collection[str] = (),
) -> dict[str, Participant]:
    """Enrol the sites and return the participants in name order.

    Parameters
    ----------
    run : RunSetting
    parts : sequence of ServerPart
    check : callable (nodes by site)
        Told who takes part; what it raises ends the run.
    earlier : sequence of str
        Sites that took part before the run was resumed.
    cohort : collection of str
        Where there is one, no other site takes part, and nobody of it is dropped.

    Raises
    ------
    UsageError, FlfedError
        If too few sites take part, or two nodes say that they are one site.
    """
    nodes = {str(node): node for node in run.grid.get_node_ids()}
    answers = _answers(run, nodes)
    replies, participants = _replies(answers, nodes, cohort)
    run.recorder.enrolled(replies, earlier)
    run.privacy.enrolled({site: replies[site] for site in participants})
    absent = _absent(run, answers, replies)
    if not earlier:
        for part in parts:
            part.check_enrolled(participants, absent.refused)
    reasons = absent.reasons
    gone = [site for site in earlier if site not in participants]
    run.recorder.events("fault", {site: absence(reasons.get(site, ""), stays=bool(cohort)) for site in gone})
    run.recorder.unnamed_faults(absent.unnamed)
    run.recorder.refused({site: why for site, why in absent.refused.items() if site not in earlier})
    not_there = {site: Refusal("not-there", why=why) for site, why in absent.silent.items() if site not in earlier}
    run.recorder.events("fault", not_there)
    # Below their threshold sums stop by themselves, and may go on later.
    if not cohort:
        _check_enough(run, participants, absent)
    check(nodes_of(participants))
    return participants


def _answers(run: RunSetting, nodes: Mapping[str, int]) -> Answers[EnrolReply]:
    """Return the nodes' enrolments; how figures are shared, and what crossed, is recorded."""
    request = EnrolRequest(dataset=run.study.dataset.name, schema_sha256=run.schema.sha256())
    answers = ask(run.grid, ENROL, request, nodes, EnrolReply.from_record, timeout=run.deadline)
    # Sharing is set before anything is recorded, since it decides under which name.
    run.recorder.share(sharing_of(reply for reply in answers.replies.values() if reply.accepted))
    names = {node: f"node {node}" for node in nodes}
    names |= {node: reply.site for node, reply in answers.replies.items()}
    to_site = {names[node]: size for node, size in answers.to_node.items()}
    to_server = {names[node]: size for node, size in answers.to_server.items()}
    run.recorder.crossed(ENROL, to_site, to_server)
    return answers


def _replies(
    answers: Answers[EnrolReply], nodes: Mapping[str, int], cohort: Collection[str]
) -> tuple[dict[str, EnrolReply], dict[str, Participant]]:
    """Return the sites' replies, and the participants, in name order; raises FlfedError where two have one name."""
    replies: dict[str, EnrolReply] = {}
    participants = {}
    for node, answer in sorted(answers.replies.items(), key=lambda item: item[1].site):
        if answer.site in replies:
            raise FlfedError(f"two nodes say they are site {answer.site!r}; a site's name must be unique")
        reply = answer
        if answer.accepted and answer.version != flfed.__version__:
            reason = Refusal("other-version", theirs=answer.version or "none", ours=flfed.__version__)
            reply = replace(answer, accepted=False, reason=str(reason))
        replies[reply.site] = reply
        if reply.accepted and (not cohort or reply.site in cohort):
            participants[reply.site] = Participant.of(nodes[node], reply)
    return replies, participants


def _absent(run: RunSetting, answers: Answers[EnrolReply], replies: Mapping[str, EnrolReply]) -> Absent:
    """Return why sites do not take part; whose a silent node is only an engine of institutions knows beforehand."""
    site_by_node = {str(node): site for site, node in getattr(run.grid, "nodes", {}).items()}
    whys = {site_by_node[node]: why.cause for node, why in answers.faults.items() if node in site_by_node}
    return Absent(
        own={reply.site: reply.reason for reply in replies.values() if not reply.accepted},
        refused={site: why for site, why in whys.items() if why.code not in NO_ANSWER},
        silent={site: why for site, why in whys.items() if why.code in NO_ANSWER},
        unnamed=[
            Refusal("node-not-enrolled", why=why) for node, why in answers.faults.items() if node not in site_by_node
        ],
    )


def _check_enough(run: RunSetting, participants: Participants, absent: Absent) -> None:
    """Refuse too few sites; raises UsageError where a person can do something about it, else FlfedError."""
    says_where = any(path_of(reason) in SAYS_WHERE for reason in absent.own.values())
    run.check_enough(
        participants,
        [*(f"{site}: {why}" for site, why in absent.reasons.items()), *absent.unnamed],
        refused=bool(absent.own or absent.refused),
        at_site=bool(absent.own) and not says_where,
    )


def absence(why: str, *, stays: bool) -> Refusal:
    """Return the fault of a site that took part before a run was resumed, whether it `stays` in the run or not."""
    if stays:
        return Refusal("away-because", why=why) if why else Refusal("away")
    return Refusal("left-because", why=why) if why else Refusal("left")


def summarise(run: RunSetting, participants: Participants) -> dict[str, Summary]:
    """Return the sums of the sites that can give them; raises FlfedError where they are too few."""

    def defect(site: str, reply: SummariseReply) -> Refusal | None:
        return summary_defect(reply.summary, run.layout, participants[site].rows_high)

    answers = run.ask_checked(SUMMARISE, SummariseRequest(), participants, SummariseReply.from_record, defect)
    run.check_answers(answers)
    return {site: reply.summary for site, reply in answers.replies.items() if reply.summary is not None}


def record_beginnings(run: RunSetting, participants: Participants, merged: Summary) -> None:
    """Record the sums over all sites by their hashes, and columns that may give the answer away.

    Noted are sites that train a part of the model, how rows are scaled, and which earlier model comes first.
    """
    run.recorder.leaks(leak_warnings(run.layout, merged), untested(run.layout, merged))
    sums = {"sha256": arrays_sha256(merged.arrays()), "rounded": sums_sha256(merged)}
    run.recorder.summary("training-sums", sums)
    widths = {site: one.width for site, one in participants.items() if one.width < 1}
    sites = [f"{site} ({width:g} of each hidden layer)" for site, width in run.recorder.shared_as.own(widths).items()]
    if sites:
        run.recorder.note(
            f"trained in part by {', '.join(sites)}: for its other units such a site counts as having changed nothing"
        )
    if run.study.encode.scaler == "per-site":
        run.recorder.note(PER_SITE)
    source = source_of(run.study, run.recorder.shared_as.series)
    if source is not None:
        run.recorder.summary("warm-start", source_facts(source, run.layout))
        if run.study.privacy.name != "none":
            run.recorder.note(UNCOVERED)


def fitted_encoder(run: RunSetting, merged: Summary) -> Encoder:
    """Return the encoder of all sites; raises UsageError where no model can be learned."""
    encoder = fit_encoder(run.layout, merged, run.study.encode.scaler)
    if one_class(run.layout, merged):
        raise UsageError(
            f"column {run.layout.target.name!r} has one class only in the training rows of all sites: "
            "no model can be learned from it; ask sites that have another class, or check their mappings"
        )
    return encoder
