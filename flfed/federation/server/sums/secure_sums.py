"""Secure sums at the server: whether a run has them, its cohort, and the keys of its sites."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from flwr.serverapp import Grid

from flfed.errors import FlfedError, UsageError
from flfed.federation.server.fan_out import ask, deadline_of, log_bytes, nodes_of
from flfed.federation.server.preflight import check_losses
from flfed.refusals import Refusal
from flfed.rows.data import datasets
from flfed.rows.study_model import model_shapes
from flfed.study.exchanges import exchanges_of, grows
from flfed.study.study import Study
from flfed.study.tables import in_sums_only
from flfed.summaries.summary import Summary
from flfed.updates.aggregation.cipher_sum import CipherSums
from flfed.updates.aggregation.loss_check import LossCheck
from flfed.updates.aggregation.rounds import Participant
from flfed.updates.aggregation.secure_sum import SecureSums, SumQuestions, Unsummed
from flfed.updates.checkpoints.sum_file import SumFile, keep_cohort
from flfed.updates.codec import entries_of, unflattened
from flfed.updates.masking.ckks import PublicContext, range_refusal
from flfed.updates.masking.figure_sums import FigureLayout, SummedFigures
from flfed.updates.masking.ring import ring_of_counts
from flfed.updates.masking.rules import LEAST, Sites, lifted_sites
from flfed.updates.masking.statement import Statement, read
from flfed.updates.mechanism import largest_entry, noise_of_site
from flfed.updates.messages.compare import COMPARE, CompareReply
from flfed.updates.messages.secure_sum import KEYS, KeysReply, KeysRequest, Masked
from flfed.updates.messages.summarise import (
    BINS,
    STATISTIC,
    SUMMARISE,
    BinsReply,
    BinsRequest,
    StatisticReply,
    StatisticRequest,
    SummariseReply,
    SummariseRequest,
)

if TYPE_CHECKING:
    from flfed.federation.server.server import FederatedRun

KINDS = {
    (False, False): "rehearsed",
    (False, True): "masked",
    (True, False): "rehearsed-encrypted",
    (True, True): "encrypted",
}
"""What a run records of its sums, by whether they are of ciphertexts and its sites institutions."""
NOISED = (
    "in each round every site clips its update to a norm of {clip:g} and adds noise of deviation {deviation:.4g} to "
    "each number itself: that of {least} sites, the fewest in a sum, is the noise that the promise counts"
)
"""What is added by whom where sites add noise before a sum; the part for rounding is left out."""


def whole_cohort(
    cohort: Mapping[str, Participant], back: Mapping[str, Participant], grid: Grid
) -> dict[str, Participant]:
    """Return a run's participants: all of its cohort, or who enrolled now where it has none yet.

    Masks and chains are made for the whole cohort, so that who is not back counts as missing.

    Parameters
    ----------
    cohort : mapping of site to Participant
        Who enrolled at the start of a run that goes on.
    back : mapping of site to Participant
        Who enrolled now.
    grid : Grid
        Which knows the nodes of institutions by name.
    """
    nodes: Mapping[str, int] = getattr(grid, "nodes", {})
    now = {site: replace(one, node_id=nodes.get(site, one.node_id)) for site, one in cohort.items()}
    for site in cohort.keys() & back.keys():
        now[site] = replace(now[site], node_id=back[site].node_id, version=back[site].version)
    return {site: now[site] for site in sorted(now)} or dict(back)


def sums_of(run: FederatedRun, participants: Mapping[str, Participant], back: Collection[str]) -> SecureSums | None:
    """Return a run's secure sums once its sites have each other's keys, None where it has none.

    Parameters
    ----------
    run : FederatedRun
        Where every round is a checkpoint, sites are institutions, of which each decided by its approval.
    participants : mapping of site to Participant
        Who enrolled at the start.
    back : collection of str
        Sites that enrolled now: they are given the keys, once more where the run goes on.

    Raises
    ------
    UsageError, FlfedError
        If there are too few sites for sums, some approved plain updates, or a site does not take the keys at the start
        of the run; one that does not when it goes on is missing.
    """
    study, recorder = run.study, run.recorder
    name, deployed = recorder.writer.run, run.each_round
    signed = {site: one.statement for site, one in participants.items() if one.statement}
    if not _asked_for(study, signed, deployed=deployed):
        return None
    if plain := sorted(participants.keys() - signed.keys()) if deployed else []:
        raise UsageError(
            f"{', '.join(plain)} did not approve sums under keys for this study, the other sites did: its updates may "
            "not cross beside sums; let the site approve again with the keys of the others (flfed site approve --with)"
        )
    if len(participants) < LEAST:
        raise UsageError(f"[privacy]: secure aggregation needs {LEAST} sites, and {len(participants)} take part")
    if study.secure_aggregation == "ckks" and (why := range_refusal(len(participants), study.largest_entry)):
        raise UsageError(f"[privacy]: largest-entry: {why}")
    stated = _stated(run, signed) if deployed else {}
    if study.secure_aggregation == "ckks":
        check_losses(study, [site for site, one in stated.items() if one.keeps_rounds])
    # Who has the keys of a cohort takes no others in this run: it stays this one, however often the run goes on.
    if deployed:
        keep_cohort(name, participants)
    least = _give_keys(run, _keys_request(participants), {s: one for s, one in participants.items() if s in back})
    if noise := noise_of_site(study, least):
        recorder.note(NOISED.format(clip=noise.clip, deviation=noise.deviation, least=least))
    kind = KINDS[study.secure_aggregation == "ckks", deployed]
    recorder.writer.summary("secure-sums", {"kind": kind, "least": least})
    if not deployed:
        return _sums(study, participants, least)
    lifted = lifted_sites({site: one.lifted for site, one in stated.items()})
    reserved = frozenset(site for site, one in stated.items() if in_sums_only(one.share_metrics))
    each: dict[str, Any] = {"lifted": dict.fromkeys(sorted(participants), lifted), "in_sums_only": reserved}
    return _sums(study, participants, least, masked=True, store=SumFile(name), **each)


def _stated(run: FederatedRun, signed: Mapping[str, bytes]) -> dict[str, Statement]:
    """Return what sites state of their keys, of those that can be read."""
    here: dict[str, Any] = {
        "study_sha256": run.study.sha256(),
        "run": run.recorder.writer.run,
        "repeat": run.repeat,
    }
    found = {site: read(packed, **here) for site, packed in signed.items()}
    return {site: one[0] for site, one in found.items() if not isinstance(one, Refusal)}


def rehearsed(grid: Grid, study: Study, participants: Mapping[str, Participant]) -> SecureSums | None:
    """Return the secure sums of a federation in one process of which nothing is recorded; None without them.

    Raises
    ------
    FlfedError
        If a site does not take part in them.
    """
    if not _asked_for(study, {}, deployed=False):
        return None
    request, nodes = _keys_request(participants), nodes_of(participants)
    answers = ask(grid, KEYS, request, nodes, KeysReply.from_record, timeout=deadline_of(study))
    if answers.faults:
        raise FlfedError("; ".join(f"{site}: {why}" for site, why in answers.faults.items()))
    return _sums(study, participants, max(reply.least for reply in answers.replies.values()))


def _asked_for(study: Study, signed: Collection[str], *, deployed: bool) -> bool:
    """Tell whether a run has sums; "auto" leaves it to the approvals of institutions, which are `signed`."""
    asked = study.secure_aggregation
    return asked in ("on", "ckks") or (asked == "auto" and deployed and bool(signed))


def _keys_request(participants: Mapping[str, Participant]) -> KeysRequest:
    sites = sorted(participants)
    statements = tuple(participants[site].statement for site in sites if participants[site].statement)
    most_rows = max(one.rows_high for one in participants.values())
    return KeysRequest(cohort=",".join(sites), most_rows=most_rows, statements=statements)


def _sums(
    study: Study, participants: Mapping[str, Participant], least: int, *, masked: bool = False, **given: Any
) -> SecureSums:
    """Return the server's half for a cohort with a threshold."""
    sites = tuple(sorted(participants))
    if study.secure_aggregation == "ckks":
        return _cipher_sums(study, cohort=sites, least=least, masked=masked)
    most_rows = max(one.rows_high for one in participants.values())
    largest = largest_entry(study, least)
    return SecureSums(
        cohort=sites,
        least=least,
        largest_entry=largest,
        most_rows=most_rows,
        masked=masked,
        exchanges=exchanges_of(study) if grows(study) else 1,
        check=LossCheck(scored="validation" if study.plan.validation else "training"),
        **given,
    )


def _cipher_sums(study: Study, **given: Any) -> CipherSums:
    """Return what adds up ciphertexts of a study's model."""
    entries = entries_of(model_shapes(study, datasets.load(study.dataset.name).schema))
    return CipherSums(largest_entry=study.largest_entry, entries=entries, context=PublicContext.new(), **given)


def _give_keys(run: FederatedRun, request: KeysRequest, back: Mapping[str, Participant]) -> int:
    """Give sites the keys of the cohort, and return the threshold of those that they pin.

    The checkpoint of a run that goes on has it too: after the comparison no site has keys any more.
    """
    requests, replies = dict.fromkeys(back, request), dict[str, KeysReply]()
    # The first site makes the key of homomorphic encryption, which the others are sent sealed; later they have it.
    if run.study.secure_aggregation == "ckks" and run.checkpoint is None:
        first = request.cohort.split(",")[0]
        replies = _told_keys(run, {first: request}, back)
        requests = _with_key(request, replies[first])
    replies |= _told_keys(run, requests, back)
    told = {(reply.sha256, reply.least) for reply in replies.values()}
    if len(told) > 1:
        raise FlfedError("the sites of the run do not have the same keys of each other; begin it anew")
    return max((least for _, least in told), default=LEAST)


def _told_keys(
    run: FederatedRun, requests: Mapping[str, KeysRequest], back: Mapping[str, Participant]
) -> dict[str, KeysReply]:
    """Return the replies of sites that have each other's keys; at the start of a run each of them must."""
    if away := sorted(requests.keys() - back.keys()):
        raise FlfedError(
            run.recorder.shared_as.text(f"{', '.join(away)} did not enrol, and the run needs all its sites")
        )
    nodes = {site: node for site, node in nodes_of(back).items() if site in requests}
    answers = ask(run.grid, KEYS, requests, nodes, KeysReply.from_record, timeout=deadline_of(run.study))
    log_bytes(run.recorder, KEYS, answers)
    run.recorder.events("fault", answers.faults)
    if answers.faults and run.checkpoint is None:
        whys = "; ".join(f"{site}: {why}" for site, why in answers.faults.items())
        said = f"the sites of the run do not all have each other's keys ({whys})"
        raise FlfedError(run.recorder.shared_as.text(said))
    return dict(answers.replies)


def _with_key(request: KeysRequest, reply: KeysReply) -> dict[str, KeysRequest]:
    """Return what the other sites are sent, with the key of homomorphic encryption that the first one sealed."""
    others, shared = request.cohort.split(",")[1:], reply.shared
    if shared is None or len(shared.keys) != len(others):
        raise FlfedError("the site that makes the key of homomorphic encryption sent none; begin the run anew")
    one_key = {site: replace(shared, keys=(key,)) for site, key in zip(others, shared.keys, strict=True)}
    return {site: replace(request, shared=one) for site, one in one_key.items()}


def summed_summary(run: FederatedRun, participants: Mapping[str, Participant]) -> Summary:
    """Return the sums over the training rows of all sites of a list, of which no site's cross by themselves.

    Raises
    ------
    FlfedError
        If there is no such sum.
    """
    sums = run.sums
    if sums is None:
        raise UsageError("a run without secure sums has no summed summary")
    shapes = {name: (shape, np.dtype(np.float64)) for name, shape in run.layout.shapes().items()}
    totals, _ = _summed(run, sums, participants, SummariseRequest(), SummariseReply, entries_of(shapes))
    values = unflattened(ring_of_counts(len(sums.cohort), sums.most_rows).decode(totals), shapes)
    return Summary(**values)


def summed_cells(
    run: FederatedRun, sums: SecureSums, participants: Mapping[str, Participant], shapes: Mapping[str, tuple[int, int]]
) -> dict[str, np.ndarray]:
    """Return the rows by cell and outcome of all sites of a list, of columns of these shapes.

    Raises
    ------
    FlfedError
        If there is no such sum.
    """
    # Whole numbers as they are: no ring divides them.
    sizes = [math.prod(shape) for shape in shapes.values()]
    totals, _ = _summed(run, sums, participants, BinsRequest(), BinsReply, sum(sizes))
    parts = np.split(totals, np.cumsum(sizes)[:-1])
    return {name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}


def summed_statistic(
    run: FederatedRun, sums: SecureSums, participants: Mapping[str, Participant], entries: int
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the added entries of the study's statistic, and the sites that are in them.

    Raises
    ------
    FlfedError
        If there is no such sum.
    """
    totals, listed = _summed(run, sums, participants, StatisticRequest(), StatisticReply, entries)
    return ring_of_counts(len(sums.cohort), sums.most_rows).decode(totals), tuple(sorted(listed))


def _summed(
    run: FederatedRun,
    sums: SecureSums,
    participants: Mapping[str, Participant],
    request: SummariseRequest | BinsRequest | StatisticRequest,
    reply: type[SummariseReply] | type[BinsReply] | type[StatisticReply],
    entries: int,
) -> tuple[np.ndarray, Sites]:
    """Return the sum of what sites answer once, and whose it is; raises FlfedError where there is none."""
    kind = BINS if reply is BinsReply else STATISTIC if reply is StatisticReply else SUMMARISE
    cohort = len(sums.cohort) if sums.masked else 0
    asked = _asked(run, kind, participants)
    replies = asked.answers(
        kind,
        dict.fromkeys(participants, request),
        reply,
        lambda one: _has_sums(one.masked, entries, cohort),
        sums.least,
    )
    vectors = {site: one.masked for site, one in replies.items() if one.masked is not None}
    totals = _totals(run, sums, asked, vectors)
    if isinstance(totals, Refusal):
        rows = "rows" if kind == STATISTIC else "training rows"
        why = f"there is no sum over the {rows} of the sites ({totals})"
        raise FlfedError(run.recorder.shared_as.text(why)) from None
    return totals


def summed_figures(
    run: FederatedRun,
    participants: Mapping[str, Participant],
    replies: Mapping[str, CompareReply],
    layout: FigureLayout,
) -> SummedFigures | Refusal | None:
    """Return the figures of all sites that share them in sums only, together.

    Parameters
    ----------
    run : FederatedRun
    participants : mapping of site to Participant
    replies : mapping of site to CompareReply
    layout : FigureLayout

    Returns
    -------
    SummedFigures, Refusal or None
        None where these sites are too few, so that none of them sent any; a refusal where there is no sum all the same.
    """
    cohort = tuple(sorted(() if run.sums is None else run.sums.in_sums_only))
    given = {site: replies[site].masked for site in cohort if site in replies}
    if run.sums is None or not any(given.values()):
        return None
    vectors = {
        site: one for site, one in given.items() if one is not None and _has_sums(one, layout.entries, len(cohort))
    }
    # The sum is over all of them, and each of them opens it.
    among = replace(run.sums, cohort=cohort, least=len(cohort), lifted={})
    totals = _totals(run, among, _asked(run, COMPARE, participants), vectors)
    if isinstance(totals, Refusal):
        return totals
    return layout.decode(totals[0], layout.ring(len(cohort), run.sums.most_rows), len(cohort))


def _asked(run: FederatedRun, kind: str, participants: Mapping[str, Participant]) -> SumQuestions:
    """Return what is asked for a sum that a run has once."""
    return SumQuestions.over(run.grid, kind=kind, nodes=nodes_of(participants), timeout=deadline_of(run.study))


def _has_sums(masked: Masked | None, entries: int, cohort: int) -> bool:
    """Tell whether a masked answer has so many numbers of 64 bits, and a share for each of a cohort."""
    sizes = ((0,), (1 + entries,), cohort)
    return masked is not None and (masked.vector.shape, masked.sums.shape, len(masked.shares)) == sizes


def _totals(
    run: FederatedRun, sums: SecureSums, asked: SumQuestions, vectors: Mapping[str, Masked]
) -> tuple[np.ndarray, Sites] | Refusal:
    """Return the sum of numbers of 64 bits and whose it is, or why there is none; what crossed for it is recorded."""
    try:
        totals, listed = sums.summed(asked, vectors)
        return totals.sums, listed
    except Unsummed as error:
        return error.why
    finally:
        for kind, crossed in asked.crossed.items():
            run.recorder.crossed(kind, *crossed)
        run.recorder.events("fault", asked.faults)
