"""Beginning of a run.

It has the participants, the reasons of the other sites, and the first sums. A run's encoder is made of the sums over
training rows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import flfed
from flfed.federation.recording.source_model import UNCOVERED, record_source, source_of
from flfed.federation.server.run_setting import LEAST_SITES, Answers, RunSetting, ask_enrolment, check_ledgers
from flfed.federation.server.secure_sums import check_enrolled
from flfed.federation.server.site_arrays import note_site_arrays
from flfed.refusals import NO_ANSWER, Refusal, path_of
from flfed.summaries.stability import training_groups
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
from flfed.updates.messages.enrol import ENROL, EnrolReply
from flfed.updates.messages.summarise import SUMMARISE, SummariseReply, SummariseRequest
from flfed.words import flfed_error, render, usage_error

if TYPE_CHECKING:
    from flfed.rows.session import SiteSession  # which a coordinator does not load

SAYS_WHERE = ("policy-unreadable", "table-unopened", "rows-changed", "rows-unserved", "opt-outs-changed")
"""Codes of refusals that name the command of their cure themselves."""


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
        Of sites without a reply.
    unnamed : sequence of Refusal
        Of nodes whose site is unknown.
    """

    own: Mapping[str, str]
    refused: Mapping[str, Refusal]
    silent: Mapping[str, Refusal]
    unnamed: Sequence[Refusal]

    @property
    def reasons(self) -> Mapping[str, str]:
        """The reason of each site with a known name."""
        return {**self.own, **self.refused, **self.silent}


def enrol(
    run: RunSetting,
    earlier: Sequence[str] = (),
    cohort: Collection[str] = (),
) -> tuple[dict[str, Participant], Mapping[str, Refusal]]:
    """Enrol the sites; return the participants in name order, and why the gates of others refused a new run.

    Parameters
    ----------
    run : RunSetting
    earlier : sequence of str
        Sites that took part before the run was resumed.
    cohort : collection of str
        Where there is one, no other site takes part, and none of it is dropped.

    Raises
    ------
    UsageError, FlfedError
        If too few sites take part, two nodes report the same site, or a ledger does not continue.
    """
    nodes, answers = ask_enrolment(run.grid, run.study, run.schema)
    _record_crossed(run, answers, nodes)
    replies, participants = _replies(answers, nodes, cohort)
    run.recorder.enrolled(replies, earlier)
    run.privacy.enrolled({site: replies[site] for site in participants})
    absent = _absent(run, answers, replies)
    if not earlier:
        check_enrolled(run, participants, absent.refused)
    reasons = absent.reasons
    gone = [site for site in earlier if site not in participants]
    run.recorder.events("fault", {site: absence(reasons.get(site, ""), stays=bool(cohort)) for site in gone})
    run.recorder.unnamed_faults(absent.unnamed)
    run.recorder.refused({site: why for site, why in absent.refused.items() if site not in earlier})
    not_there = {site: Refusal("not-there", why=why) for site, why in absent.silent.items() if site not in earlier}
    run.recorder.events("fault", not_there)
    # Below their threshold sums stop by themselves, and may continue later.
    if not cohort:
        _check_enough(run, [replies[site] for site in participants], absent)
    check_ledgers(run.grid, [replies[site] for site in participants])
    return participants, {} if earlier else absent.refused


def _record_crossed(run: RunSetting, answers: Answers[EnrolReply], nodes: Mapping[str, int]) -> None:
    """Record the bytes of the enrolments."""
    names = {node: f"node {node}" for node in nodes}
    names |= {node: reply.site for node, reply in answers.replies.items()}
    to_site = {names[node]: size for node, size in answers.to_node.items()}
    to_server = {names[node]: size for node, size in answers.to_server.items()}
    run.recorder.crossed(ENROL, to_site, to_server)


def _replies(
    answers: Answers[EnrolReply], nodes: Mapping[str, int], cohort: Collection[str]
) -> tuple[dict[str, EnrolReply], dict[str, Participant]]:
    """Return the sites' replies, and the participants, in name order.

    Raises FlfedError where two have one name.
    """
    replies: dict[str, EnrolReply] = {}
    participants = {}
    for node, answer in sorted(answers.replies.items(), key=lambda item: item[1].site):
        if answer.site in replies:
            raise flfed_error("run.failures.twins", site=answer.site)
        reply = answer
        if answer.accepted and answer.version != flfed.__version__:
            reason = Refusal("other-version", theirs=answer.version or "none", ours=flfed.__version__)
            reply = replace(answer, accepted=False, reason=str(reason))
        replies[reply.site] = reply
        if reply.accepted and (not cohort or reply.site in cohort):
            participants[reply.site] = Participant.of(nodes[node], reply)
    return replies, participants


def _absent(run: RunSetting, answers: Answers[EnrolReply], replies: Mapping[str, EnrolReply]) -> Absent:
    """Return why sites do not take part.

    Only an engine of institutions knows the site of a silent node.
    """
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


def _check_enough(run: RunSetting, replies: Sequence[EnrolReply], absent: Absent) -> None:
    """Refuse fewer sites than a run needs, or than one of those allows that take part.

    Raises UsageError where a person can change that, else FlfedError.
    """
    strictest = _strictest(run, replies)
    paths = {path_of(reason) for reason in absent.own.values()}
    todo = render("run.sites.check") if paths and paths.isdisjoint(SAYS_WHERE) else ""
    if "complete-rows" in paths:
        todo = render("run.sites.complete")
    elif "statistic-exact" in paths:
        todo = render("run.sites.exact")
    run.check_enough(
        len(replies),
        [*(f"{site}: {why}" for site, why in absent.reasons.items()), *absent.unnamed],
        refused=bool(absent.own or absent.refused),
        todo=todo,
        least=strictest or LEAST_SITES,
    )
    if run.study.rounds:
        _check_rounds(run, len(replies), strictest)


def _strictest(run: RunSetting, replies: Sequence[EnrolReply]) -> int:
    """Return the fewest sites of a run by the policies of those that take part, 0 where no gate has one."""
    # Gates know whom a run asks, and only the server who takes part. Parties with other columns send no sums.
    has_gates = hasattr(run.grid, "nodes") and not run.study.is_vertical
    return max((reply.least_sites for reply in replies if has_gates), default=0)


def _check_rounds(run: RunSetting, sites: int, least: int) -> None:
    """Refuse a study whose rounds may be of fewer sites than a policy allows; raises UsageError."""
    strategy = run.study.strategy.build("strategy")
    fewest = strategy.needed(max(1, round(strategy.fraction * sites)))
    if fewest < least:
        raise usage_error("run.failures.rounds", fewest=fewest, sites=sites, least=least)


def absence(why: str, *, stays: bool) -> Refusal:
    """Return the fault of a site that is missing after a resumption.

    With `stays` the site is still in the cohort.
    """
    if stays:
        return Refusal("away-because", why=why) if why else Refusal("away")
    return Refusal("left-because", why=why) if why else Refusal("left")


def summarise(run: RunSetting, participants: Participants) -> dict[str, Summary]:
    """Return the sums of the sites that have them.

    Raises FlfedError where they are too few.
    """

    def defect(site: str, reply: SummariseReply) -> Refusal | None:
        return summary_defect(reply.summary, run.layout, participants[site].rows_high)

    answers = run.ask_checked(SUMMARISE, SummariseRequest(), participants, SummariseReply.from_record, defect)
    run.check_answers(answers)
    return {site: reply.summary for site, reply in answers.replies.items() if reply.summary is not None}


def check_rows(run: RunSetting, before: Mapping[str, Summary], sessions: Iterable[SiteSession]) -> None:
    """Refuse training rows other than those of the rounds before; raises UsageError."""
    for session in sessions:
        site = session.site.name
        # A row of an earlier round must not become a test row.
        if site in before and set(sums_sha256(before[site])).isdisjoint(sums_sha256(session.summary())):
            raise usage_error("run.resume.rows", run=run.name, site=site)


def record_beginnings(run: RunSetting, participants: Participants, merged: Summary) -> None:
    """Record the sums over all sites by their hashes.

    Columns that may reveal the outcome are recorded, too.

    Notes state which sites train a part of the model, how rows are scaled, which earlier model comes first, and which
    arrays stay at sites or are packed.
    """
    run.recorder.leaks(leak_warnings(run.layout, merged), untested(run.layout, merged))
    sums = {"sha256": arrays_sha256(merged.arrays()), "rounded": sums_sha256(merged)}
    run.recorder.summary("training-sums", sums)
    groups = {name: [asdict(group) for group in of] for name, of in training_groups(run.layout, merged).items()}
    run.recorder.summary("training-groups", groups)
    widths = {site: one.width for site, one in participants.items() if one.width < 1}
    sites = [render("run.notes.width", site=site, width=width) for site, width in widths.items()]
    if sites:
        run.recorder.note(render("run.notes.widths", sites=", ".join(sites)))
    if run.study.encode.scaler == "per-site":
        run.recorder.note(render("run.notes.scaler"))
    source = source_of(run.study, run.recorder.series)
    if source is not None:
        record_source(run.recorder, source, run.study, run.layout, run.repeat)
        if run.study.privacy.name != "none":
            run.recorder.note(UNCOVERED)
    note_site_arrays(run)


def fitted_encoder(run: RunSetting, merged: Summary) -> Encoder:
    """Return the encoder of all sites.

    Raises UsageError where no model can be learned.
    """
    if one_class(run.layout, merged):
        raise usage_error("run.failures.class", column=run.layout.target.name)
    return fit_encoder(run.layout, merged, run.study.encode.scaler)
