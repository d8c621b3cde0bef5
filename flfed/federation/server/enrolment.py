"""Beginning of a run: which sites take part, and why the others do not; and their first sums.

Of the sums over training rows a run's encoder is made.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from flwr.serverapp import Grid

from flfed.errors import FlfedError, UsageError
from flfed.federation.recording.source_model import UNCOVERED, source_facts, source_of
from flfed.federation.server.parts.server_part import ServerPart
from flfed.federation.server.preflight import of_own_version
from flfed.federation.server.run_setting import Answers, RunSetting, ask, check_enough, log_bytes, nodes_of, unenrolled
from flfed.federation.server.source_rows import EnrolledCheck
from flfed.refusals import Refusal, path_of
from flfed.summaries.summary import (
    Encoder,
    Layout,
    Summary,
    arrays_sha256,
    fit_encoder,
    leak_warnings,
    one_class,
    sums_sha256,
    untested,
)
from flfed.updates.aggregation.guard import summary_defect
from flfed.updates.aggregation.rounds import Participant
from flfed.updates.messages.enrol import ENROL, EnrolReply, EnrolRequest
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
    refused, silent, unnamed = unenrolled(run.grid, answers.faults)
    if not earlier:
        for part in parts:
            part.check_enrolled(participants, refused)
    own = {reply.site: reply.reason for reply in replies.values() if not reply.accepted}
    absent = Absent(own=own, refused=refused, silent=silent, unnamed=unnamed)
    _record_absent(run, absent, [site for site in earlier if site not in participants], stays=bool(cohort))
    _record_others(run, absent, earlier)
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
    sharing = {reply.site: reply.share_metrics for reply in answers.replies.values() if reply.accepted}
    run.recorder.share(sharing)
    names = {node: reply.site for node, reply in answers.replies.items()}
    log_bytes(run.recorder, ENROL, answers, {node: names.get(node, f"node {node}") for node in nodes})
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
        reply = of_own_version(answer)
        replies[reply.site] = reply
        if reply.accepted and (not cohort or reply.site in cohort):
            participants[reply.site] = Participant.of(nodes[node], reply)
    return replies, participants


def _record_absent(run: RunSetting, absent: Absent, gone: Sequence[str], *, stays: bool) -> None:
    """Record why sites that took part before are `gone`, whether they stay in the run or not."""
    reasons = absent.reasons
    faults = {site: absence(reasons.get(site, ""), stays=stays) for site in gone}
    run.recorder.events("fault", faults)


def _record_others(run: RunSetting, absent: Absent, earlier: Collection[str]) -> None:
    """Record why sites do not take part that did not before."""
    run.recorder.unnamed_faults(absent.unnamed)
    run.recorder.refused({site: why for site, why in absent.refused.items() if site not in earlier})
    not_there = {site: why for site, why in absent.silent.items() if site not in earlier}
    run.recorder.events("fault", {site: Refusal("not-there", why=why) for site, why in not_there.items()})


def _check_enough(run: RunSetting, participants: Mapping[str, Participant], absent: Absent) -> None:
    """Refuse a run with too few sites; raises UsageError where sites refused, else FlfedError."""
    reasons = [f"{site}: {why}" for site, why in absent.reasons.items()]
    says_where = any(path_of(reason) in SAYS_WHERE for reason in absent.own.values())
    check_enough(
        participants,
        [*reasons, *absent.unnamed],
        run.recorder.shared_as,
        refused=bool(absent.own or absent.refused),
        at_site=bool(absent.own) and not says_where,
    )


def absence(why: str, *, stays: bool) -> Refusal:
    """Return the fault of a site that took part before a run was resumed, whether it `stays` in the run or not."""
    if stays:
        return Refusal("away-because", why=why) if why else Refusal("away")
    return Refusal("left-because", why=why) if why else Refusal("left")


def whole_cohort(
    cohort: Mapping[str, Participant], back: Mapping[str, Participant], grid: Grid
) -> dict[str, Participant]:
    """Return a run's participants: all of its cohort, or who enrolled now where it has none.

    Who is not back counts as missing.

    Parameters
    ----------
    cohort : mapping of site to Participant
        Who enrolled at the start of a run that stays with these sites.
    back : mapping of site to Participant
        Who enrolled now.
    grid : Grid
        Which knows the nodes of institutions by name.
    """
    if not cohort:
        return dict(back)
    nodes: Mapping[str, int] = getattr(grid, "nodes", {})
    found = {}
    for site in sorted(cohort):
        if site in back:
            found[site] = replace(cohort[site], node_id=back[site].node_id, version=back[site].version)
        else:
            found[site] = replace(cohort[site], node_id=nodes.get(site, cohort[site].node_id))
    return found


def summarise(run: RunSetting, participants: Mapping[str, Participant]) -> dict[str, Summary]:
    """Return the sums of the sites that can give them; raises FlfedError where they are too few."""
    answers = run.ask(SUMMARISE, SummariseRequest(), participants, SummariseReply.from_record)
    faults = answers.faults
    found = {}
    for site, reply in answers.replies.items():
        why = summary_defect(reply.summary, run.layout, participants[site].rows_high)
        if why:
            faults[site] = why
        elif reply.summary is not None:
            found[site] = reply.summary
    run.recorder.events("fault", faults)
    check_enough(found, [f"{site}: {reason}" for site, reason in faults.items()], run.recorder.shared_as)
    return found


def record_sums(run: RunSetting, merged: Summary) -> None:
    """Record the sums over all sites by their hashes, and columns that may give the answer away."""
    run.recorder.leaks(leak_warnings(run.layout, merged), untested(run.layout, merged))
    sums = {"sha256": arrays_sha256(merged.arrays()), "rounded": sums_sha256(merged)}
    run.recorder.writer.summary("training-sums", sums, durable=False)


def note_beginnings(run: RunSetting, participants: Mapping[str, Participant]) -> None:
    """Record which sites train a part of the model, how rows are scaled, and which earlier model comes first."""
    _note_widths(run, participants)
    if run.study.encode.scaler == "per-site":
        run.recorder.note(PER_SITE)
    source = source_of(run.study, run.recorder.shared_as.series)
    if source is not None:
        run.recorder.writer.summary("warm-start", source_facts(source, run.layout), durable=False)
        if run.study.privacy.name != "none":
            run.recorder.note(UNCOVERED)


def _note_widths(run: RunSetting, participants: Mapping[str, Participant]) -> None:
    """Note which sites train a part of the model, of those whose figures may be told."""
    widths = {site: one.width for site, one in participants.items() if one.width < 1}
    told = [f"{site} ({width:g} of each hidden layer)" for site, width in run.recorder.shared_as.own(widths).items()]
    if told:
        run.recorder.note(
            f"trained in part by {', '.join(told)}: for its other units such a site counts as having changed nothing"
        )


def fitted_encoder(run: RunSetting, merged: Summary) -> Encoder:
    """Return the encoder of all sites; raises UsageError where no model can be learned."""
    encoder = fit_encoder(run.layout, merged, run.study.encode.scaler)
    check_classes(run.layout, merged)
    return encoder


def check_classes(layout: Layout, merged: Summary) -> None:
    """Refuse a run whose training rows have one class only; raises UsageError."""
    if one_class(layout, merged):
        raise UsageError(
            f"column {layout.target.name!r} has one class only in the training rows of all sites: "
            "no model can be learned from it; ask sites that have another class, or check their mappings"
        )
