"""Pooled reference figures, from all tables together.

They need every table in one place, for research and demonstration only.

An engine that holds all tables adds them beside what the sites said; nobody else can.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from flfed.errors import FlfedError
from flfed.refusals import Refusal
from flfed.rows.baselines import LocalModel, Trainable, first_arrays, local_model, network_predictor
from flfed.rows.comparison.arms import groups_of
from flfed.rows.comparison.arms import personalised_scores as scores_at_site
from flfed.rows.evaluation.bootstrap import Metrics
from flfed.rows.evaluation.intervals import NAN, Estimate, compare
from flfed.rows.features.encode import ColumnArrays, Encoded, codes_apart, encode, input_names, joined, pooled_rows
from flfed.rows.session import SiteSession
from flfed.rows.training.requests import Asking, FitRequest, Fitted, ModelRequest, Predictor, Request, listed, together
from flfed.seeds import generator
from flfed.study.plan import Plan
from flfed.study.tables import OwnFamily, SiteModelKind
from flfed.summaries.summary import Arrays, Encoder, fit_encoder, merge

Figures = Mapping[str, Estimate]
"""Metric to estimate."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Reference:
    """Figures over the union of holdouts.

    Attributes
    ----------
    union : dict of metric to Estimate
        The global model.
    personalised : dict of metric to Estimate
        Each site's personalised model on its own holdout.
    pooled : dict of metric to Estimate
        The model of all training rows together: the best of any kind, the study's own fairly tuned, or by the
        plan `compare.pooled`.
    own_everywhere : dict of metric to Estimate
        Each site's own model on everybody's holdout, the mean over sites that can be judged and whose training rows
        have two classes.
    exact_encoder : Encoder
        What exact sums of all sites would have given.
    rows : int
    pooled_family : str or None
        Of the pooled model; None where it is of the study's own kind.
    pooled_same : dict of metric to Estimate
        The study's own model, fairly tuned, where the pooled one is the best of any kind; else empty.
    """

    union: Figures
    personalised: Figures
    pooled: Figures
    own_everywhere: Figures
    exact_encoder: Encoder
    rows: int
    pooled_family: OwnFamily | None = None
    pooled_same: Figures = field(default_factory=dict)


def reference(
    sessions: Sequence[SiteSession], arrays: Arrays, encoder: Encoder, sd: float | None = None
) -> Asking[Reference]:
    """Yield requests and return the pooled reference.

    It is what all tables in one place show.

    Parameters
    ----------
    sessions : sequence of SiteSession, in site-name order
    arrays : dict of name to array
        The final global model.
    encoder : Encoder
        The one the sites used.
    sd : float, optional
        Prior deviation of a site's own intercept that the sites were sent.
    """
    first = sessions[0]
    # No round follows, and the pooled rows are as many again.
    for session in sessions:
        session.release_rows()
    holdouts = [w.table.holdout("compare") for w in sessions]
    metrics = first.metrics
    y = np.concatenate([w.target(t) for w, t in zip(sessions, holdouts)])
    exact = fit_encoder(first.layout, merge([w.exact_summary for w in sessions]))
    # Asked side by side where rows are few, so that an engine computes for all of them together.
    requests = [
        union_scores(sessions, arrays, encoder),
        personalised_scores(sessions, arrays, encoder, sd),
        _pooled(sessions, exact),
        together([w.local_model() for w in sessions if w.is_judged]),
    ]
    rows = sum(w.table.training_rows for w in sessions)
    scored, personalised, pooled, local = yield from together(requests, rows)
    union = joined([w.coded(t) for w, t in zip(sessions, holdouts)])
    scores = {"global": scored, "personalised": personalised}
    scores |= _predictions_of(pooled, exact, first, union)
    rng = generator(first.seed, site="", purpose="bootstrap")
    # Groups are drawn together: rows of one person are no independent evidence.
    figures, _ = compare(metrics, y, scores, (), rng, draws=first.study.compare.resamples, groups=_groups(sessions))
    return Reference(
        union=_of_arm(figures, "global"),
        personalised=_of_arm(figures, "personalised"),
        pooled=_of_arm(figures, "pooled"),
        own_everywhere=_own_everywhere(sessions, local, union, y, metrics),
        exact_encoder=exact,
        rows=len(y),
        pooled_family=pooled["pooled"].family,
        pooled_same=_of_arm(figures, "pooled-same"),
    )


def _of_arm(figures: Mapping[str, Figures], arm: str) -> Figures:
    """Return a model's estimate in each metric, empty for a model that there is not."""
    return {name: arms[arm] for name, arms in figures.items() if arm in arms}


def _predictions_of(
    models: Mapping[str, LocalModel], encoder: Encoder, session: SiteSession, rows: ColumnArrays
) -> Arrays:
    """Return what models of one encoder predict, by arm; the inputs are encoded once, and gone afterwards."""
    x = encode(rows, session.layout, encoder).x
    return {arm: session.predictions(model.outputs(x), encoder) for arm, model in models.items()}


def _own_everywhere(
    sessions: Sequence[SiteSession],
    local: Sequence[LocalModel],
    union: ColumnArrays,
    y: np.ndarray,
    metrics: Metrics,
) -> Figures:
    """Return the own models' mean over all holdouts.

    The mean is over sites.

    A model that saw one class predicts nothing, and is left out. The spread of the others over rows is
    not an interval of anything, so it is not bootstrapped.
    """
    first = sessions[0]
    by_metric: dict[str, list[float]] = {name: [] for name in metrics}
    judged = [session for session in sessions if session.is_judged]
    # The mean would be dragged to chance by models that are constants.
    for session, model in zip(judged, local, strict=True):
        if has_one_class(session):
            continue
        score = _predictions_of({"": model}, model.encoder, first, union)[""]
        for name, metric in metrics.items():
            value = NAN if metric.defined(y) else metric.value(y, score)
            by_metric[name].append(value)
    # How many were left out stands with the figure.
    method = "mean over sites"
    left = sum(map(has_one_class, judged))
    if len(judged) < len(sessions):
        method = Refusal("mean-with-gaps", sites=len(judged) - left, left=len(sessions) - len(judged) + left)
    elif left:
        method = Refusal("mean-without-one-class", sites=len(local) - left, left=left)
    means = {}
    for name, values in by_metric.items():
        mean = float(np.mean(values)) if values else NAN
        means[name] = Estimate(mean, NAN, NAN, NAN, method)
    return means


def has_one_class(session: SiteSession) -> bool:
    """Return whether training rows have one class.

    They are one site's, and its own model is then a constant.
    """
    if session.task == "regression":
        return False
    place = session.layout.slices()[session.layout.target.name]
    return int(np.count_nonzero(session.exact_summary.cells[place])) < 2


def _pooled(sessions: Sequence[SiteSession], exact: Encoder) -> Asking[dict[str, LocalModel]]:
    """Yield requests and return the pooled models.

    They are trained on the training rows of all, and returned by arm.
    """
    rows = _encode_training(sessions, exact)
    # The pooled model draws as no single site does.
    joint_trainable = replace(sessions[0].trainable(), site="")
    plan = sessions[0].study.compare.pooled
    if plan is not None:
        return {"pooled": LocalModel(exact, (yield from by_plan(rows, joint_trainable, plan)))}
    compare = sessions[0].study.compare
    kinds: dict[str, SiteModelKind] = {"pooled": compare.site_model}
    if compare.site_model != "same":
        kinds["pooled-same"] = "same"
    layout = sessions[0].layout
    requests = list[Request]()
    for own in kinds.values():
        handler = partial(local_model, rows, joint_trainable, layout, exact, own, compare.naive_forecasts)
        requests.append(ModelRequest(rows=rows, kind=own, handler=handler))
    models: list[LocalModel] = yield requests
    return dict(zip(kinds, models, strict=True))


def _encode_training(sessions: Sequence[SiteSession], encoder: Encoder) -> Encoded:
    """Return the training rows of all sites as inputs, each written once."""
    counts = [session.fitted_rows for session in sessions]
    x = np.empty((sum(counts), len(input_names(sessions[0].layout))))
    parts = []
    start = 0
    for session, count in zip(sessions, counts, strict=True):
        parts.append(session.encode_training(encoder, into=x[start : start + count]))
        start += count
    return pooled_rows(parts, x)


def first_searches(sessions: Sequence[SiteSession]) -> list[Request]:
    """Return what own and pooled models request first, before there is a model to compare them with.

    Models whose rows break a rule have their error where they are compared.
    """
    exact = fit_encoder(sessions[0].layout, merge([w.exact_summary for w in sessions]))
    requests = list[Request]()
    for handler in (*[w.local_model() for w in sessions if w.is_judged], _pooled(sessions, exact)):
        with suppress(FlfedError, StopIteration):
            requests += listed(next(handler))
    linear = sessions[0].trainable().model.linear
    return [request for request in requests if not (isinstance(request, ModelRequest) and request.is_quick(linear))]


def union_scores(sessions: Sequence[SiteSession], arrays: Arrays, encoder: Encoder) -> Asking[np.ndarray]:
    """Yield requests and return the global model's predictions.

    They are on every site's holdout, in site order.

    Under `compare.union-scaler = "global"` all rows go through the encoder of all sites, whatever
    each site used for its own figures.
    """
    requests = []
    for session in sessions:
        used = encoder
        if session.study.compare.union_scaler != "global":
            used = session.in_use(encoder)
        x = session.encode(session.table.holdout("compare"), used).x
        requests.append(session.outputs(session.own_arrays.at_site(arrays), x))
    replies = yield from together(requests)
    return np.concatenate([w.predictions(outputs, encoder) for w, outputs in zip(sessions, replies)])


def personalised_scores(
    sessions: Sequence[SiteSession], arrays: Arrays, encoder: Encoder, sd: float | None = None
) -> Asking[np.ndarray]:
    """Yield requests and return personalised predictions.

    They are each site's own model's on its own holdout, in site order.
    """
    requests = [scores_at_site(w, w.table.holdout("compare"), arrays, encoder, sd) for w in sessions]
    return np.concatenate((yield from together(requests)))


def by_plan(rows: Encoded, trainable: Trainable, plan: Plan) -> Asking[Predictor]:
    """Yield one request and return the planned model.

    It trains on `rows` by `plan` from the study's start. The result is its outputs' function.
    """
    planned = replace(trainable, plan=plan)
    fitted: Fitted = yield FitRequest(
        model=trainable.model,
        task=trainable.task,
        arrays=first_arrays(planned, rows.x.shape[1]),
        rows=rows,
        plan=plan,
        lr=plan.lr,
        rng=generator(trainable.seed, site=trainable.site, purpose="pooled"),
    )
    return network_predictor(trainable.model, fitted.arrays)


def _groups(sessions: Sequence[SiteSession]) -> np.ndarray | None:
    """Return group codes over all holdouts.

    Two sites' groups are never one.
    """
    holdouts = [w.table.holdout("compare") for w in sessions]
    return codes_apart([groups_of(w, t) for w, t in zip(sessions, holdouts)], [len(t) for t in holdouts])
