"""A site's replies to each kind of message."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import flfed
from flfed.errors import TableError, UsageError
from flfed.federation.client.audit import attacked
from flfed.federation.client.masked import SiteSums
from flfed.federation.client.outbound_figures import redact_comparison
from flfed.federation.client.protection import rows_band
from flfed.federation.client.released.model_answers import count_scores
from flfed.federation.client.site_parts import leave_alone
from flfed.federation.client.site_run import SiteRun, compared_model, model_shapes_of
from flfed.federation.client.statistic import account_of, count_statistic
from flfed.federation.client.training import Round, RunKind, StatisticKind, Training, Validation
from flfed.federation.client.trees import Trees, count_cells
from flfed.federation.client.vertical import Vertical, align, compare_joined, exchange
from flfed.refusals import CROSSING, NotSpent, NotTakingPart, Refusal, decline, of_table, refusal_of
from flfed.rows.comparison.compare import compare
from flfed.rows.data.site import redraws
from flfed.rows.session import SiteSession
from flfed.rows.training.requests import ComputeRequest
from flfed.study.study import Study
from flfed.updates.arrays import entries_of
from flfed.updates.messages.compare import AUDIT, COMPARE, AuditReply, AuditRequest, CompareReply, CompareRequest
from flfed.updates.messages.enrol import EnrolReply, EnrolRequest
from flfed.updates.messages.secure_sum import OPEN, KeysReply, KeysRequest, OpenReply, OpenRequest
from flfed.updates.messages.summarise import (
    BINS,
    SCORES,
    STATISTIC,
    SUMMARISE,
    BinsReply,
    BinsRequest,
    ScoresReply,
    ScoresRequest,
    StatisticReply,
    StatisticRequest,
    SummariseReply,
    SummariseRequest,
)
from flfed.updates.messages.train import EVALUATE, TRAIN, TrainReply, TrainRequest
from flfed.updates.messages.vertical import ALIGN, PARTIAL, AlignReply, AlignRequest, PartialReply, PartialRequest

Sums = SummariseReply | BinsReply | StatisticReply | ScoresReply
Reply = EnrolReply | Sums | TrainReply | KeysReply | OpenReply | AlignReply | PartialReply | CompareReply | AuditReply
Replying = Generator[ComputeRequest, Any, Reply]
Handler = Callable[[Any, SiteSession, SiteRun], Replying]
ROUNDS = (TRAIN, EVALUATE)
"""Kinds of a round."""


def run_kind(study: Study) -> RunKind:
    """Return the kind of a study's runs."""
    if study.is_statistic:
        return StatisticKind()
    if not study.train:
        return Validation()
    if study.is_vertical:
        return Vertical()
    return Trees() if study.grows_trees else Training()


def enrol(request: EnrolRequest, open_session: Callable[[], SiteSession], own: SiteRun) -> Replying:
    """Return the site's enrolment.

    It has the site's name, and whether it takes part by its own policy.
    """
    site = own.site
    try:
        session = open_session()
        budget, spent = account_of(session)
    except (NotTakingPart, NotSpent) as error:
        return _refusal(site, refusal_of(error))
    except TableError as error:
        return _refusal(site, of_table(error, CROSSING))
    except UsageError:
        # Its text may have the path or the address of the site's table.
        return _refusal(site, Refusal("table-unopened", site=site))
    if session.schema.sha256() != request.schema_sha256:
        return _refusal(site, Refusal("other-schema", dataset=request.dataset))
    policy = session.site.policy
    low, high = rows_band(session.study, run_kind(session.study).count_rows(session))
    sums = own.sums(session.study)
    return EnrolReply(
        site=site,
        title=session.site.title or site,
        version=flfed.__version__,
        accepted=True,
        rows_low=low,
        rows_high=high,
        disclosure=policy.disclosure,
        resplit=redraws(session.study, session.site),
        epsilon_budget=budget,
        epsilon_spent=spent,
        signed_key=b"" if sums is None else _signed_key(sums, session, high),
        width=session.width,
        minimum_cohort=policy.minimum_cohort or 0,
    )
    yield  # a handler is a generator, also one without requests


def _signed_key(sums: SiteSums, session: SiteSession, rows_high: int) -> bytes:
    single_cells = session.site.policy.allows("single-cells-in-sums")
    return sums.keys.signed(single_cells=single_cells, width=session.width, rows_high=rows_high)


def _refusal(site: str, reason: Refusal) -> EnrolReply:
    return EnrolReply(site=site, title=site, version=flfed.__version__, accepted=False, reason=str(reason))


def summarise(request: SummariseRequest, session: SiteSession, own: SiteRun) -> Replying:
    """Return the sums over training rows that may leave."""
    return (yield from leave_alone(request, session, own, SummariseReply(summary=session.summary())))


def train(request: TrainRequest, session: SiteSession, own: SiteRun) -> Round:
    """Score the incoming model, train from it, or both."""
    return run_kind(session.study).answer(request, session, own)


def judge(request: CompareRequest, session: SiteSession, own: SiteRun) -> Replying:
    """Compare all arms on the site's holdout."""
    if session.study.is_vertical:
        return (yield from compare_joined(request, session, own))
    whole = compared_model(request, session, own)
    arrays, encoder = whole.arrays, whole.encoder
    # A model that is only validated is compared with no earlier one, and none is let through as a beginning.
    start = own.start(session, encoder) if session.study.train else None
    comparison = yield from compare(session, arrays, encoder, request.deviation, request.bins, start=start)
    reply = redact_comparison(session, comparison)
    return (yield from leave_alone(request, session, own, reply, encoder))


def take_keys(request: KeysRequest, study: Study, own: SiteRun) -> KeysReply:
    """Take the keys of a run's cohort; no row is read for that."""
    sums = own.sums(study)
    if sums is None:
        decline("sums-unknown")
    # Of two processes of the site with other keys, the second one finds those of the first.
    with own.state.answering():
        return sums.keys.take(request)


def open_round(request: OpenRequest, session: SiteSession, own: SiteRun) -> Replying:
    """Return the sum of a round under homomorphic encryption, opened and rounded."""
    sums = own.sums(session.study)
    if sums is None:
        decline("sums-unknown")
    return OpenReply(total=sums.open_round(request, entries_of(model_shapes_of(session.study.text))))
    yield  # a handler is a generator, also one without requests


HANDLERS: dict[str, tuple[type[Any], Handler]] = {
    SUMMARISE: (SummariseRequest, summarise),
    BINS: (BinsRequest, count_cells),
    STATISTIC: (StatisticRequest, count_statistic),
    SCORES: (ScoresRequest, count_scores),
    ALIGN: (AlignRequest, align),
    PARTIAL: (PartialRequest, exchange),
    **dict.fromkeys(ROUNDS, (TrainRequest, train)),
    OPEN: (OpenRequest, open_round),
    COMPARE: (CompareRequest, judge),
    AUDIT: (AuditRequest, attacked),
}
"""Handler of each kind of message once its session is open; enrolment opens it itself, and keys need none."""
