"""Secure sums at the server.

This file decides whether a run has them, has its cohort and the keys of its sites, and asks for a sum.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from flfed.errors import FlfedError, UsageError
from flfed.federation.server.run_setting import RunSetting, ask, nodes_of
from flfed.refusals import Refusal
from flfed.updates.aggregation.losses import LossCheck
from flfed.updates.aggregation.rounds import Participants, keep_cohort
from flfed.updates.aggregation.secure_sum import CipherSums, SecureSums, SumQuestions, Unsummed
from flfed.updates.checkpoints.sum_file import SumFile
from flfed.updates.masking.ckks import PublicContext, range_refusal
from flfed.updates.masking.rules import LEAST, lifted_sites
from flfed.updates.masking.statement import Statement, read
from flfed.updates.masks.ring import LARGEST_ENTRY
from flfed.updates.mechanism import largest_entry, noise_of_site
from flfed.updates.messages.secure_sum import KEYS, KeysReply, KeysRequest, Masked
from flfed.words import flfed_error, render, usage_error

KINDS = {
    (False, False): "rehearsed",
    (False, True): "masked",
    (True, False): "rehearsed-encrypted",
    (True, True): "encrypted",
}
"""Kinds of sums in a run's record: whether they are of ciphertexts, and whether the sites are institutions."""


def exchange_keys(run: RunSetting, participants: Participants, back: Collection[str]) -> SecureSums | None:
    """Exchange the keys of a run's sites, and return its secure sums, or None.

    It is None where it has none.

    Parameters
    ----------
    run : RunSetting
        Where every round is a checkpoint, sites are institutions, and each approval decided.
    participants : mapping of site to Participant
        Sites that enrolled at the start.
    back : collection of str
        Sites that enrolled now: they get the keys, once more where the run is resumed.

    Raises
    ------
    UsageError, FlfedError
        If there are too few sites for sums, some approved plain updates, or a site refuses the keys at the start of
        the run. A site that refuses them when the run is resumed counts as missing.
    """
    study = run.study
    deployed = run.each_round
    signed = {site: one.statement for site, one in participants.items() if one.statement}
    if not _adds_up(run, signed):
        return None
    _check_cohort(run, participants, signed)
    statements = _read_statements(run, signed) if deployed else {}
    # A site that has the keys of a cohort takes no others in this run: the cohort stays the same at each resumption.
    if deployed:
        keep_cohort(run.name, participants)
    least = _give_keys(run, _keys_request(participants), {s: one for s, one in participants.items() if s in back})
    noise = noise_of_site(study, least)
    if noise:
        facts = {"clip": noise.clip, "deviation": noise.deviation, "least": least}
        run.recorder.note(render("run.notes.noise", **facts))
    kind = KINDS[study.aggregation.is_encrypted, deployed]
    run.recorder.writer.summary("secure-sums", {"kind": kind, "least": least})
    if not deployed:
        return _sums(run, participants, least)
    lifted = dict.fromkeys(sorted(participants), lifted_sites({site: one.lifted for site, one in statements.items()}))
    return _sums(run, participants, least, masked=True, store=SumFile(run.name), lifted=lifted)


def check_enrolled(run: RunSetting, sites: Collection[str], refused: Mapping[str, Refusal]) -> None:
    """Refuse a run with sums in which too few sites take part.

    Parameters
    ----------
    run : RunSetting
    sites : collection of str
        Sites that enrolled.
    refused : mapping of site to Refusal
        By their gates.

    Raises
    ------
    UsageError
        With the sites and the remedy.
    """
    if not run.study.aggregation.is_required or not refused or len(sites) >= LEAST:
        return
    reasons = "; ".join(f"{site}: {refused[site]}" for site in sorted(refused))
    raise usage_error("run.sums.refused", least=LEAST, sites=len(sites), reasons=reasons)


def _check_cohort(run: RunSetting, participants: Participants, signed: Collection[str]) -> None:
    """Refuse a cohort without sums, or of a wrong size.

    Some of its sites approved no sums, or it is too small or too large. Raises UsageError.
    """
    plain = sorted(set(participants) - set(signed))
    if run.each_round and plain:
        raise usage_error("run.sums.plain", sites=", ".join(plain))
    if len(participants) < LEAST:
        raise usage_error("run.sums.few", least=LEAST, sites=len(participants))
    if run.study.aggregation.is_encrypted:
        if refused := range_refusal(len(participants), LARGEST_ENTRY):
            raise UsageError(f"[privacy] secure-aggregation: {refused}")


def _read_statements(run: RunSetting, signed: Mapping[str, bytes]) -> dict[str, Statement]:
    """Return the readable statements of sites about their keys."""
    study_sha256 = run.study.sha256()
    statements = {}
    for site, packed in signed.items():
        statement = read(packed, study_sha256=study_sha256, run=run.name, repeat=run.repeat)
        if not isinstance(statement, Refusal):
            statements[site] = statement[0]
    return statements


def rehearse_keys(run: RunSetting, participants: Participants) -> SecureSums | None:
    """Return the unrecorded secure sums of a federation in one process.

    It is None without them.

    Raises
    ------
    FlfedError
        If a site does not take part in them.
    """
    if not _adds_up(run, {}):
        return None
    request = _keys_request(participants)
    nodes = nodes_of(participants)
    answers = ask(run.grid, KEYS, request, nodes, KeysReply.from_record, timeout=run.deadline)
    if answers.faults:
        raise FlfedError("; ".join(f"{site}: {why}" for site, why in answers.faults.items()))
    return _sums(run, participants, max(reply.least for reply in answers.replies.values()))


def _adds_up(run: RunSetting, signed: Collection[str]) -> bool:
    """Return whether a run has sums.

    With "auto" the approvals of institutions decide, which are `signed`.
    """
    if run.study.aggregation.is_optional:
        return run.each_round and bool(signed)
    return run.study.aggregation.is_required


def _keys_request(participants: Participants) -> KeysRequest:
    sites = sorted(participants)
    statements = tuple(participants[site].statement for site in sites if participants[site].statement)
    most_rows = max(one.rows_high for one in participants.values())
    return KeysRequest(cohort=",".join(sites), most_rows=most_rows, statements=statements)


def _sums(
    run: RunSetting, participants: Participants, least: int, *, masked: bool = False, **options: Any
) -> SecureSums:
    """Return the server's half for a cohort with a threshold."""
    study = run.study
    sites = tuple(sorted(participants))
    if study.aggregation.is_encrypted:
        return CipherSums(
            cohort=sites,
            least=least,
            largest_entry=LARGEST_ENTRY,
            masked=masked,
            entries=sum(value.size for value in run.first_arrays().values()),
            context=PublicContext.new(),
        )
    return SecureSums(
        cohort=sites,
        least=least,
        largest_entry=largest_entry(study, least),
        most_rows=max(one.rows_high for one in participants.values()),
        masked=masked,
        exchanges=study.exchanges_of_round if study.grows_trees else 1,
        check=LossCheck(scored="validation" if study.plan.validation else "training"),
        **options,
    )


def _give_keys(run: RunSetting, request: KeysRequest, back: Participants) -> int:
    """Send sites the keys of the cohort.

    Return the threshold of the sites that they pin. The checkpoint of a resumed run has it too: after the comparison no
    site has keys any more.
    """
    requests = dict.fromkeys(back, request)
    replies = dict[str, KeysReply]()
    # The first site makes the key of homomorphic encryption, which the others get sealed; later they have it.
    if run.study.aggregation.is_encrypted and not run.resumed:
        first = request.cohort.split(",")[0]
        replies = _exchange_keys(run, {first: request}, back)
        others = request.cohort.split(",")[1:]
        shared = replies[first].shared
        if shared is None or len(shared.keys) != len(others):
            raise flfed_error("run.sums.keyless")
        for site, key in zip(others, shared.keys, strict=True):
            requests[site] = replace(request, shared=replace(shared, keys=(key,)))
        del requests[first]
    replies |= _exchange_keys(run, requests, back)
    agreements = {(reply.sha256, reply.least) for reply in replies.values()}
    if len(agreements) > 1:
        raise flfed_error("run.sums.differing")
    return max((least for _, least in agreements), default=LEAST)


def _exchange_keys(run: RunSetting, requests: Mapping[str, KeysRequest], back: Participants) -> dict[str, KeysReply]:
    """Return the replies of sites that have each other's keys.

    At the start of a run each of them must.
    """
    if away := sorted(requests.keys() - back.keys()):
        raise FlfedError(render("run.sums.absent", sites=", ".join(away)))
    receivers = {site: one for site, one in back.items() if site in requests}
    answers = run.ask(KEYS, requests, receivers, KeysReply.from_record)
    run.recorder.events("fault", answers.faults)
    if answers.faults and not run.resumed:
        whys = "; ".join(f"{site}: {why}" for site, why in answers.faults.items())
        raise FlfedError(render("run.sums.unkeyed", why=whys))
    return dict(answers.replies)


def questions_of(run: RunSetting, kind: str, participants: Participants, number: int = 0) -> SumQuestions:
    """Return the questions of a sum that a run has once, or once a visit."""
    nodes = nodes_of(participants)
    return SumQuestions.over(run.grid, kind=kind, number=number, nodes=nodes, timeout=run.deadline)


def has_sums(masked: Masked | None, entries: int, cohort: int) -> bool:
    """Return whether a masked answer has the right size.

    It has so many numbers of 64 bits, and a share for each of a cohort.
    """
    sizes = ((0,), (1 + entries,), cohort)
    return masked is not None and (masked.vector.shape, masked.sums.shape, len(masked.shares)) == sizes


def totals_of(
    run: RunSetting, sums: SecureSums, questions: SumQuestions, vectors: Mapping[str, Masked], needed: int = 0
) -> tuple[np.ndarray, frozenset[str]] | Refusal:
    """Return a sum of numbers and its sites, or the refusal.

    The numbers have 64 bits; the bytes for the sum are recorded.
    """
    try:
        totals, listed = sums.summed(questions, vectors, needed)
        return totals.sums, listed
    except Unsummed as error:
        return error.why
    finally:
        record_crossing(run, questions)
        run.recorder.events("fault", questions.faults)


def record_crossing(run: RunSetting, questions: SumQuestions) -> None:
    """Record the bytes that the questions of a sum took."""
    for kind, crossed in questions.crossed.items():
        run.recorder.crossed(kind, *crossed)
