"""The site's half of an audit.

The run's model is attacked here, with the site's own rows, and figures leave.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import Any

from flfed import registry
from flfed.federation.client.outbound_figures import count_rows
from flfed.federation.client.site_run import SiteRun
from flfed.refusals import Refusal, decline
from flfed.rows.comparison.attack_runner import Finding, Promised, attack
from flfed.rows.session import SiteSession
from flfed.rows.training.requests import ComputeRequest
from flfed.study.study import Study
from flfed.updates.checkpoints.site_state import site_model
from flfed.updates.mechanism import Promise, acting_mechanism
from flfed.updates.messages.compare import AuditFigure, AuditReply, AuditRequest, Verdict
from flfed.updates.messages.fields import MalformedMessage


def promise_of(study: Study) -> Promise | None:
    """Return the guarantee of a study's planned run.

    It is None without a guarantee.
    """
    return acting_mechanism(study).promise(study.plan, study.rounds)


def promised_to_rows(study: Study) -> Promised | None:
    """Return the ε and δ guaranteed to each row.

    They may be each person's. A guarantee for whole sites is none for their rows.
    """
    promise = promise_of(study)
    if promise is None or promise.unit == "site":
        return None
    return promise.epsilon, promise.delta


def attacked(request: AuditRequest, session: SiteSession, own: SiteRun) -> Generator[ComputeRequest, Any, AuditReply]:
    """Attack a model with the site's own rows.

    Return the attack's results.

    Raises
    ------
    NotTakingPart
        Where the site's policy does not permit this use of its rows.
    MalformedMessage
        If there is no such attack here.
    """
    if not session.site.policy.audits:
        decline("no-audits")
    if request.attack not in registry.names("attack"):
        raise MalformedMessage(Refusal("attack-unknown"))
    model, encoder = request.arrays, request.encoder
    if session.study.makes_models_at_sites and not model:
        compared = site_model(own.site, own.run, own.repeat)
        if compared is None:
            decline("not-compared")
        model, encoder = compared.arrays, compared.encoder
    promised = promised_to_rows(session.study)
    results = yield from attack(session, model, encoder, (request.attack,), seed=session.seed, promised=promised)
    # These counts show the coordinator whether the rows are those of the run.
    return AuditReply(**count_rows(session), figures=tuple(map(_figure, results)))


def verdict_of(finding: Finding) -> Verdict:
    """Return the verdict of a figure on the guarantee.

    Without a guarantee, or without a figure, there is none.

    A figure without a lower limit may have any value: whether it is within the promise is unknown.
    """
    if math.isnan(finding.promise):
        return "no promise"
    if not math.isfinite(finding.low):
        return "not known"
    return "beyond the promise" if finding.beyond else "within the promise"


def _figure(finding: Finding) -> AuditFigure:
    return AuditFigure(
        metric=finding.metric,
        value=float(finding.value),
        low=float(finding.low),
        high=float(finding.high),
        promise=float(finding.promise),
        verdict=verdict_of(finding),
        rows=int(finding.rows),
        method=finding.method,
        says=finding.says,
    )
