"""Cox's partial likelihood over the rows of one site, with Efron's ties."""

from __future__ import annotations

import numpy as np

from flfed.rows.statistics.newton import triangle
from flfed.rows.statistics.statistic import Sums


def event_risks(times: np.ndarray, events: np.ndarray, predictor: np.ndarray) -> np.ndarray:
    """Return each row's part in the risk sets of all events [rows], by time; without a number where risks vanish.

    Of tied events each has the whole risk set.
    """
    order = np.argsort(times, kind="stable")
    times = times[order]
    risks = np.exp(predictor[order] - predictor.max())
    at_risk = np.cumsum(risks[::-1])[::-1][np.searchsorted(times, times)]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        until = np.cumsum(events[order] / at_risk)[np.searchsorted(times, times, side="right") - 1]
        return np.asarray(risks * until)


def partial_likelihood(design: np.ndarray, times: np.ndarray, events: np.ndarray, coefficients: np.ndarray) -> Sums:
    """Return gradient, Hessian's upper triangle and deviance of the log partial likelihood.

    Parameters
    ----------
    design : float64 array [rows, coefficients]
    times : float64 array [rows]
    events : bool array [rows]
        Of at least one row.
    coefficients : float64 array [coefficients]

    Source: B. Efron 1977, "The efficiency of Cox's likelihood function for censored data".
    """
    order = np.argsort(times, kind="stable")
    design = design[order]
    times = times[order]
    events = events[order]
    predictor = design @ coefficients
    # The hazards' unit falls out of every quotient.
    largest = predictor.max()
    risks = np.exp(predictor - largest)
    weighted = design * risks[:, np.newaxis]
    at_risk = np.cumsum(risks[::-1])[::-1]
    weighted_at_risk = np.cumsum(weighted[::-1], axis=0)[::-1]
    moments, first, moment_of_row = np.unique(times, return_index=True, return_inverse=True)
    count = len(moments)
    moment = moment_of_row[events]
    tied = np.bincount(moment, minlength=count)
    tied_risks = np.bincount(moment, weights=risks[events], minlength=count)
    tied_weighted = np.zeros((count, design.shape[1]))
    np.add.at(tied_weighted, moment, weighted[events])
    # Of d events at once the risks of all d count in full for the first, and by a d-th less for each further one.
    place = np.arange(len(moment)) - (np.cumsum(tied) - tied)[moment]
    share = place / tied[moment]
    total = at_risk[first[moment]] - share * tied_risks[moment]
    means = weighted_at_risk[first[moment]] - share[:, np.newaxis] * tied_weighted[moment]
    means /= total[:, np.newaxis]
    # Each row's part in all second moments: over the events until its time, less its own ties.
    until = np.cumsum(np.bincount(moment, weights=1 / total, minlength=count))[moment_of_row]
    own = np.bincount(moment, weights=share / total, minlength=count)[moment_of_row]
    part = risks * (until - np.where(events, own, 0.0))
    hessian = design.T @ (design * part[:, np.newaxis]) - means.T @ means
    log_likelihood = predictor[events].sum() - (np.log(total) + largest).sum()
    return {
        "gradient": design[events].sum(axis=0) - means.sum(axis=0),
        "hessian": triangle(hessian),
        "deviance": np.array([-2 * log_likelihood]),
    }
