"""Reference figures that need every table in one place: research and demonstration only.

An engine that holds all tables adds them beside what the sites said; nobody else can.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from flfed.plan import Plan
from flfed.rows.baselines import Trainable, first_arrays
from flfed.rows.compare import groups_of
from flfed.rows.encode import Encoded
from flfed.rows.intervals import NAN, Estimate, estimates
from flfed.rows.summarise import summarise
from flfed.rows.training.requests import Asked, FitRequest, Fitted, ScoreRequest
from flfed.rows.training.tuned_linear import Predictor
from flfed.rows.workplace import Arrays, Workplace, network_predictor, tuned
from flfed.seeds import generator
from flfed.summary import Encoder, fit_encoder, merge

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
        The model of all training rows together: fairly tuned, or by the plan `compare.pooled`.
    own_everywhere : dict of metric to Estimate
        Each site's own model on everybody's holdout, the mean over sites.
    exact_encoder : Encoder
        What exact sums of all sites would have given.
    rows : int
    """

    union: Figures
    personalised: Figures
    pooled: Figures
    own_everywhere: Figures
    exact_encoder: Encoder
    rows: int


def reference(workplaces: Sequence[Workplace], arrays: Arrays, encoder: Encoder) -> Generator[Asked, Any, Reference]:
    """Yield requests; return what all tables in one place show.

    Parameters
    ----------
    workplaces : sequence of Workplace, in site-name order
    arrays : dict of name to array
        The final global model.
    encoder : Encoder
        The one the sites used.
    """
    first = workplaces[0]
    holdouts = [w.table.holdout("compare") for w in workplaces]
    y = np.concatenate([w.target(t) for w, t in zip(workplaces, holdouts, strict=True)])
    scores = {
        "global": (yield from union_scores(workplaces, arrays, encoder)),
        "personalised": (yield from personalised_scores(workplaces, arrays, encoder)),
    }
    exact = fit_encoder(first.layout, merge([summarise(w.table.training, w.layout) for w in workplaces]))
    all_rows = pooled_rows([w.encode(w.table.training, exact) for w in workplaces])
    given = replace(first.trainable(), site="")
    plan = first.study.compare.pooled
    pooled = yield from tuned(all_rows, given) if plan is None else by_plan(all_rows, given, plan)
    x = np.concatenate([w.encode(t, exact).x for w, t in zip(workplaces, holdouts, strict=True)])
    scores["pooled"] = first.predictions(pooled(x), exact)
    metrics = first.metrics
    # Their spread over rows is not an interval of anything, so they are not bootstrapped.
    own: dict[str, list[float]] = {name: [] for name in metrics}
    for workplace in workplaces:
        local = yield from workplace.local_model()
        own_x = np.concatenate([workplace.encode(t, local.encoder).x for t in holdouts])
        score = workplace.predictions(local.outputs(own_x), local.encoder)
        for name, metric in metrics.items():
            own[name].append(NAN if metric.defined(y) else metric.value(y, score))
    rng = generator(first.seed, site="", purpose="bootstrap")
    found = estimates(metrics, y, scores, rng, draws=first.study.compare.draws, groups=_groups(workplaces))
    return Reference(
        union={name: arms["global"] for name, arms in found.items()},
        personalised={name: arms["personalised"] for name, arms in found.items()},
        pooled={name: arms["pooled"] for name, arms in found.items()},
        own_everywhere={
            name: Estimate(float(np.mean(values)), NAN, NAN, NAN, "mean over sites") for name, values in own.items()
        },
        exact_encoder=exact,
        rows=len(y),
    )


def union_scores(
    workplaces: Sequence[Workplace], arrays: Arrays, encoder: Encoder
) -> Generator[Asked, Any, np.ndarray]:
    """Yield requests; return the global model's predictions on every site's holdout, in site order.

    Under `compare.union-scaler = "global"` all rows go through the encoder of all sites, whatever
    each site used for its own figures.
    """
    parts = []
    for workplace in workplaces:
        mixed = workplace.study.compare.union_scaler == "global"
        x = workplace.encode(workplace.table.holdout("compare"), encoder if mixed else workplace.in_use(encoder)).x
        outputs = yield ScoreRequest(model=workplace.model, arrays=arrays, x=x)
        parts.append(workplace.predictions(outputs, encoder))
    return np.concatenate(parts)


def personalised_scores(
    workplaces: Sequence[Workplace], arrays: Arrays, encoder: Encoder
) -> Generator[Asked, Any, np.ndarray]:
    """Yield requests; return each site's personalised model's predictions on its own holdout, in site order."""
    parts = []
    for workplace in workplaces:
        outputs = yield from workplace.personalised(arrays, encoder)
        x = workplace.encode(workplace.table.holdout("compare"), workplace.in_use(encoder)).x
        parts.append(workplace.predictions(outputs(x), encoder))
    return np.concatenate(parts)


def by_plan(rows: Encoded, given: Trainable, plan: Plan) -> Generator[Asked, Any, Predictor]:
    """Yield one request that trains on `rows` by `plan` from the study's start; return its outputs' function."""
    planned = replace(given, plan=plan)
    fitted: Fitted = yield FitRequest(
        model=given.model,
        task=given.task,
        arrays=first_arrays(planned, rows.x.shape[1]),
        rows=rows,
        plan=plan,
        lr=plan.lr,
        rng=generator(given.seed, site=given.site, purpose="pooled"),
    )
    return network_predictor(given.model, fitted.arrays)


def pooled_rows(parts: Sequence[Encoded]) -> Encoded:
    """Return the rows of all parts as one; two parts' groups are never one."""
    x, y, weight = (np.concatenate([getattr(part, name) for part in parts]) for name in ("x", "y", "weight"))
    return Encoded(x, y, weight, _apart([part.group for part in parts], [len(part) for part in parts]))


def _groups(workplaces: Sequence[Workplace]) -> np.ndarray | None:
    """Return group codes over all holdouts; two sites' groups are never one."""
    holdouts = [w.table.holdout("compare") for w in workplaces]
    return _apart([groups_of(w, t) for w, t in zip(workplaces, holdouts, strict=True)], [len(t) for t in holdouts])


def _apart(codes: Sequence[np.ndarray | None], rows: Sequence[int]) -> np.ndarray | None:
    """Return the codes of all parts, none in two of them; None where each row of each part is its own."""
    if all(code is None for code in codes):
        return None
    found, start = [], 0
    for code, count in zip(codes, rows, strict=True):
        own = np.arange(count) if code is None else code
        found.append(own + start)
        start += int(own.max(initial=-1)) + 1
    return np.concatenate(found)
