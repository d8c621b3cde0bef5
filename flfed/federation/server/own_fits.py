"""Fits of sites to their own rows, beside the coefficients of all rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from flfed.errors import counted
from flfed.federation.server.run_setting import RunSetting
from flfed.records.objects import write
from flfed.records.statistics.averaging import Averaging, Estimate, average_fits
from flfed.rows.statistics.newton import COEFFICIENTS, VARIANCES, NewtonStatistic, has_own_fits
from flfed.rows.statistics.of_study import statistic_of
from flfed.updates.arrays import Arrays
from flfed.words import render

Figures = dict[str, Any]


def describe_fits(
    run: RunSetting, fits: Mapping[str, Arrays], sites: Collection[str], figures: Figures
) -> tuple[Figures, dict[str, Figures]]:
    """Return the averages of own fits, or why there are none, and each site's own fit, for the record.

    Parameters
    ----------
    run : RunSetting
    fits : mapping of site to dict of name to array
        Coefficients and variances, where a site sent them.
    sites : collection of str
        All sites of the estimate.
    figures : dict
        The estimate of all rows.
    """
    # A statistic of another package may have no coefficients.
    names = figures.get(COEFFICIENTS, {})
    own = {}
    for site, fit in fits.items():
        errors = np.sqrt(fit[VARIANCES]).tolist()
        own[site] = dict(zip(names, map(Estimate, fit[COEFFICIENTS].tolist(), errors), strict=True))
    why = _without_average(run, sites)
    if why:
        # Beside the fits of the others, the estimate of all rows would nearly give that of a site without a name.
        return write(Averaging(why=why)), {}
    of_all = {name: Estimate(one["value"], one["standard-error"]) for name, one in names.items()}
    averaging = average_fits(own, len(sites), of_all)
    by_site = {}
    for site, estimates in own.items():
        by_site[site] = {COEFFICIENTS: {name: write(one) for name, one in estimates.items()}}
    return write(averaging), by_site


def _without_average(run: RunSetting, sites: Collection[str]) -> str:
    """Return why own fits are not averaged, or ""."""
    if run.study.aggregation.sums_updates:
        return render("report.averaging.summed")
    statistic = statistic_of(run.study)
    if isinstance(statistic, NewtonStatistic) and not statistic.has_own_fits:
        return render("report.averaging.intercept")
    if not has_own_fits(statistic):
        return render("report.averaging.unlike")
    sharing = run.recorder.shared_as.sharing
    unnamed = sum(sharing.get(site, "named") != "named" for site in sites)
    if unnamed:
        return render("report.averaging.unnamed", sites=counted(unnamed, "site"))
    return ""
