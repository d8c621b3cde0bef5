"""Figures of a model on all rows of a site that had no part in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from flfed.rows.comparison.arms import groups_of
from flfed.rows.comparison.subgroups import METRIC as AUC
from flfed.rows.evaluation.calibration import calibrate
from flfed.rows.evaluation.intervals import Estimate, estimate, logit_with_error
from flfed.rows.features.encode import encode
from flfed.rows.session import SiteSession
from flfed.seeds import generator
from flfed.summaries.summary import Encoder
from flfed.words import render


def measure_all_rows(
    session: SiteSession, encoder: Encoder, predict: Callable[[np.ndarray], np.ndarray]
) -> dict[str, Any]:
    """Return AUC and calibration of predicted probabilities on training and test rows of a site together.

    Parameters
    ----------
    session : SiteSession
        Of a yes/no outcome.
    encoder : Encoder
        Of the other sites.
    predict : callable
        Returns the probability of each of the encoded rows [n, inputs].

    Returns
    -------
    figures : dict
        "rows", "roc_auc_score" (with "logit" and its "standard-error"), and "calibration" with "slope" and "intercept"
        (each with "standard-error") and "few-events". Without a value: "reason".
    """
    table = pd.concat([session.table.training, session.table.holdout("left-out")], ignore_index=True)
    y = session.target(table)
    score = predict(encode(table, session.layout, encoder).x)
    groups = groups_of(session, table)
    rng = generator(session.seed, site=session.site.name, purpose="bootstrap")
    area = estimate(session.metrics[AUC], y, score, rng, session.study.compare.resamples, groups)
    calibration = calibrate(y, score, groups)
    # Their own reason names test rows.
    reason = ""
    if len(np.unique(y)) < 2:
        reason = render("experiments.left-out.one-outcome")
    value, error = logit_with_error(area, y)
    figures: dict[str, Any] = {"few-events": calibration.few}
    for name, of in (("slope", calibration.slope), ("intercept", calibration.intercept)):
        figures[name] = _figure(of, reason) | {"standard-error": float(np.sqrt(of.variance))}
    return {
        "rows": len(y),
        AUC: _figure(area, reason) | {"logit": value, "standard-error": error},
        "calibration": figures,
    }


def _figure(of: Estimate, reason: str) -> dict[str, Any]:
    """Return an estimate as a report has it; one without a value has its reason."""
    figure = {"value": of.value, "low": of.low, "high": of.high}
    if np.isnan(of.value):
        return figure | {"reason": reason or of.method}
    return figure
