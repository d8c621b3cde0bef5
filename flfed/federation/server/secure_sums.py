"""Secure sums at the server: whether a run has them, and the keys of its sites."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from flfed.errors import FlfedError, RunStopped, UsageError
from flfed.federation.server.run_setting import RunSetting, ask, nodes_of
from flfed.refusals import Refusal
from flfed.summaries.summary import Encoder
from flfed.updates.aggregation.rounds import Participants, keep_cohort
from flfed.updates.aggregation.summer import CipherSummer, Summer, Unsummed
from flfed.updates.masks.ckks import PublicContext, range_refusal
from flfed.updates.masks.figure_sums import FigureLayout
from flfed.updates.masks.pairs import LEAST_SITES
from flfed.updates.mechanism import largest_entry, noise_of_site
from flfed.updates.messages.compare import CompareReplies
from flfed.updates.messages.secure_sum import KEYS, OPEN, KeysReply, KeysRequest, OpenReply, OpenRequest
from flfed.words import flfed_error, render, usage_error

KINDS = {
    (False, False): "rehearsed",
    (False, True): "masked",
    (True, False): "rehearsed-encrypted",
    (True, True): "encrypted",
}
"""Kinds of sums in a run's record: whether they are of ciphertexts, and whether the sites are institutions."""


def exchange_keys(
    run: RunSetting, participants: Participants, back: Collection[str], refused: Mapping[str, Refusal]
) -> Summer | None:
    """Exchange the keys of a run's sites, and return its half of the secure sums, or None where it has none.

    Parameters
    ----------
    run : RunSetting
        Where every round is a checkpoint, sites are institutions, and each approval decided.
    participants : mapping of site to Participant
        Sites that enrolled at the start.
    back : collection of str
        Sites that enrolled now: they get the keys, once more where the run is resumed.
    refused : mapping of site to Refusal
        Why others did not enrol: without them the gates of those that did take no part.

    Raises
    ------
    UsageError, FlfedError
        If there are too few sites for sums, some approved plain updates, or a site refuses the keys; RunStopped if one
        that had enrolled before a restart is away.
    """
    study = run.study
    deployed = run.each_round
    plain = sorted(site for site, one in participants.items() if not one.signed_key)
    if not study.aggregation.sums_updates:
        return None
    if study.aggregation.is_optional and (not deployed or len(plain) == len(participants)):
        return None
    if deployed and plain:
        raise usage_error("run.sums.plain", sites=", ".join(plain))
    sites = len(participants)
    if sites < LEAST_SITES:
        raise usage_error("run.sums.few", least=LEAST_SITES, sites=sites)
    if study.aggregation.is_encrypted and (wraps := range_refusal(sites, largest_entry(study, sites))):
        raise UsageError(f"[privacy] secure-aggregation: {wraps}")
    # A site that has the keys of a cohort takes no others in this run: the cohort stays the same at each resumption.
    if deployed:
        keep_cohort(run.name, participants)
    request = _keys_request(participants)
    _give_keys(run, request, {site: one for site, one in participants.items() if site in back}, refused)
    noise = noise_of_site(study, sites)
    if noise:
        run.recorder.note(render("run.notes.noise", clip=noise.clip, deviation=noise.deviation, sites=sites))
    kind = KINDS[study.aggregation.is_encrypted, deployed]
    run.recorder.writer.summary("secure-sums", {"kind": kind, "sites": sites})
    return _summer(run, participants)


def check_enrolled(run: RunSetting, sites: Collection[str], refused: Mapping[str, Refusal]) -> None:
    """Refuse a run with sums in which too few sites take part.

    `sites` enrolled, and `refused` are the refusals of others, by their gates. Raises UsageError with the remedy.
    """
    if not run.study.aggregation.is_required or not refused or len(sites) >= LEAST_SITES:
        return
    reasons = "; ".join(f"{site}: {refused[site]}" for site in sorted(refused))
    raise usage_error("run.sums.refused", least=LEAST_SITES, sites=len(sites), reasons=reasons)


def rehearse_keys(run: RunSetting, participants: Participants) -> Summer | None:
    """Return the unrecorded secure sums of a federation in one process, None without them.

    Raises FlfedError where a site does not take part in them.
    """
    if not run.study.aggregation.is_required:
        return None
    request = _keys_request(participants)
    answers = ask(run.grid, KEYS, request, nodes_of(participants), KeysReply.from_record, timeout=run.deadline)
    if answers.faults:
        raise FlfedError("; ".join(f"{site}: {why}" for site, why in answers.faults.items()))
    return _summer(run, participants, is_recorded=False)


def _keys_request(participants: Participants) -> KeysRequest:
    sites = sorted(participants)
    signed = tuple(participants[site].signed_key for site in sites if participants[site].signed_key)
    most_rows = max(one.rows_high for one in participants.values())
    return KeysRequest(cohort=",".join(sites), most_rows=most_rows, signed=signed)


def _summer(run: RunSetting, participants: Participants, *, is_recorded: bool = True) -> Summer:
    """Return the server's half for a cohort; what a rehearsal asks for is not recorded."""
    study = run.study
    cohort = tuple(sorted(participants))
    most_rows = max(one.rows_high for one in participants.values())
    facts: dict[str, Any] = {
        "tagged": run.each_round,
        "verified": run.each_round and study.makes_models_at_sites,
    }
    if not study.aggregation.is_encrypted:
        return Summer.of_study(study, cohort, most_rows, **facts)

    def ask_opener(site: str, request: OpenRequest) -> OpenReply | Refusal:
        opener = {site: participants[site]}
        if is_recorded:
            answers = run.ask(OPEN, request, opener, OpenReply.from_record, wait=True)
        else:
            answers = ask(run.grid, OPEN, request, nodes_of(opener), OpenReply.from_record, timeout=run.deadline)
        return answers.replies.get(site) or answers.faults[site]

    entries = sum(value.size for value in run.first_arrays().values())
    facts |= {"entries": entries, "context": PublicContext.new(), "ask_opener": ask_opener}
    return CipherSummer.of_study(study, cohort, most_rows, **facts)


def _give_keys(run: RunSetting, request: KeysRequest, back: Participants, refused: Mapping[str, Refusal]) -> None:
    """Send sites the keys of the cohort, with the shared key that the first site made."""
    requests = dict.fromkeys(back, request)
    replies = dict[str, KeysReply]()
    # The first site makes the run's shared keys, which the others get sealed; institutions have them later.
    have_keys = run.each_round and run.resumed
    if not have_keys and (run.each_round or run.study.aggregation.is_encrypted):
        first, *others = request.cohort.split(",")
        if away := sorted({first, *others} - back.keys()):
            raise RunStopped(render("run.sums.absent", sites=", ".join(away)))
        replies = _exchange_keys(run, {first: request}, back, refused)
        shared = replies[first].shared
        if shared is None or len(shared.keys) != len(others):
            raise flfed_error("run.sums.keyless")
        for site, key in zip(others, shared.keys, strict=True):
            requests[site] = replace(request, shared=replace(shared, keys=(key,)))
        del requests[first]
    replies |= _exchange_keys(run, requests, back, refused)
    if len({reply.sha256 for reply in replies.values()}) > 1:
        raise flfed_error("run.sums.differing")


def _exchange_keys(
    run: RunSetting, requests: Mapping[str, KeysRequest], back: Participants, refused: Mapping[str, Refusal]
) -> dict[str, KeysReply]:
    """Return the replies of sites that have each other's keys; at the start of a run each of them must."""
    receivers = {site: one for site, one in back.items() if site in requests}
    answers = run.ask(KEYS, requests, receivers, KeysReply.from_record)
    run.recorder.events("fault", answers.faults)
    if answers.faults and not run.resumed:
        whys = "; ".join(f"{site}: {why}" for site, why in {**refused, **answers.faults}.items())
        raise FlfedError(render("run.sums.unkeyed", why=whys))
    return dict(answers.replies)


def add_figures(run: RunSetting, sums: Summer, replies: CompareReplies, encoder: Encoder) -> None:
    """Record the sum of the sites' figures of the model with this encoder, or why there is none."""
    layout = FigureLayout.of(run.layout.task, encoder)
    vectors = {site: reply.masked for site, reply in replies.items() if sums.fits(reply.masked, sums=layout.entries)}
    try:
        _, total = sums.add(vectors)
    except Unsummed as error:
        run.recorder.note(Refusal("figures-unsummed", why=error.why))
        return
    sites = len(sums.cohort)
    run.recorder.summary("summed-figures", layout.decode(total, layout.ring(sites, sums.most_rows), sites))
