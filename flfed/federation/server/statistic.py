"""A run of a statistic: one visit to the sites, or several."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from flfed.errors import RunStopped
from flfed.federation.client.statistic import protection_of
from flfed.federation.recording.run_record import Outcome
from flfed.federation.server.row_sums import NumbersRefused, StatisticSums, row_sums
from flfed.federation.server.run_setting import RunSetting
from flfed.federation.server.server import FederatedRun
from flfed.records.objects import write
from flfed.records.statistics.regression import Averaging, Estimate, average_fits
from flfed.rows.statistics.newton import COEFFICIENTS, VARIANCES, NewtonStatistic, has_own_fits
from flfed.rows.statistics.statistic import ROWS_EACH, Statistic, Visit, VisitedStatistic, added
from flfed.updates.aggregation.rounds import Participants
from flfed.updates.arrays import Arrays
from flfed.updates.messages.summarise import StatisticRequest
from flfed.words import render, usage_error


def conduct_statistic(run: FederatedRun) -> Outcome:
    """Request and record a statistic, and return the outcome.

    The sites send the sums of the study's statistic. There is no model: the outcome has no arrays, and no encoder was
    fitted to rows.
    """
    # A resumed run asks the sites that had each other's keys: over others the sum would be another one.
    participants, _ = run.enrol_cohort()
    protection = protection_of(run.study)
    statistic = protection.statistic
    several: dict[str, Any] = {}
    with run.privacy.during(participants):
        if isinstance(statistic, VisitedStatistic):
            statistic, sums, visits = _visit(run, participants, statistic)
            several = {"visits": visits}
        else:
            sums = row_sums(run).statistic(participants, statistic, StatisticRequest())
        run.privacy.answered(sums.sites)
        if run.study.analysis is not None:
            # The noised count is all that the server knows of a site's rows.
            rows = {site: statistic.figures([own], run.schema, own)["rows"] for site, own in sums.by_site.items()}
            run.privacy.counted({site: count["value"] for site, count in rows.items()})
    if sums.summed and not several:
        # One answer is of all sites, with the noise of each.
        statistic = protection.statistic_of_sum(len(sums.sites))
    of_all = added(sums.parts)
    figures = statistic.figures(sums.parts, run.schema, of_all)
    by_site: dict[str, Any] = {}
    if several:
        several["averaging"], by_site = describe_fits(run, protection.statistic, sums.fits, sums.sites, figures)
    else:
        by_site = {site: statistic.figures([own], run.schema, of_all) for site, own in sums.by_site.items()}
    record = {
        "name": run.study.statistic_name,
        "sites": len(sums.sites),
        **several,
        **figures,
        "by-site": by_site,
    }
    run.recorder.summary("statistics", record)
    return Outcome(
        status="completed",
        arrays={},
        encoder=run.schema_encoder(),
        sites=sums.sites,
        seconds=run.writer.seconds(),
    )


def _visit(
    run: FederatedRun, participants: Participants, statistic: VisitedStatistic
) -> tuple[Statistic, StatisticSums, int]:
    """Ask the sites until the statistic has its answer; return it at its last numbers, their sums, and the visits.

    Raises
    ------
    UsageError
        Where there is no answer.
    RunStopped
        Where a site of the first visit is missing in a later one.
    """
    point = statistic.first(run.schema)
    coefficients = sum(values.size for values in point.values())
    if run.study.aggregation.sums_updates:
        _check_coefficients(participants, coefficients)
    visits: list[Visit] = []
    sites: tuple[str, ...] = ()
    fits: dict[str, Arrays] = {}
    while True:
        now = statistic.at(point)
        request = StatisticRequest(round=len(visits), point=point)
        listed = {site: participants[site] for site in sites or participants}
        try:
            sums = row_sums(run).statistic(listed, now, request, len(sites))
        except NumbersRefused:
            visits.append(Visit(point, {}))
        else:
            _check_sites(run, sites, sums.sites, len(visits) + 1)
            sites = sums.sites
            fits.update(sums.fits)
            visits.append(Visit(point, added(sums.parts)))
        following = statistic.next(visits, run.schema)
        if following is None:
            return now, replace(sums, fits=fits), len(visits)
        point = following


def _check_sites(run: FederatedRun, before: Collection[str], now: Collection[str], visit: int) -> None:
    """Stop a run in which a site of the first visit is missing in a later one."""
    missing = sorted(set(before) - set(now))
    if missing:
        raise RunStopped(render("run.stops.visit", visit=visit, sites=", ".join(missing)))


def _check_coefficients(participants: Participants, coefficients: int) -> None:
    """Refuse more than one coefficient for ten rows, by the low ends of the bands.

    Raises
    ------
    UsageError
        With both numbers.
    """
    # A band is a power of ten.
    rows = sum((one.rows_high + 1) // 10 for one in participants.values())
    needed = ROWS_EACH * coefficients
    if rows < needed:
        raise usage_error("run.stops.coefficients", coefficients=coefficients, needed=needed, rows=rows)


Figures = dict[str, Any]


def describe_fits(
    run: RunSetting, statistic: Statistic, fits: Mapping[str, Arrays], sites: Collection[str], figures: Figures
) -> tuple[Figures, dict[str, Figures]]:
    """Return the averages of own fits, or why there are none, and each site's own fit, for the record.

    Parameters
    ----------
    run : RunSetting
    statistic : Statistic
        Of the study.
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
    why = _without_average(run, statistic)
    if why:
        # Beside the fits of the others, the estimate of all rows would nearly give that of a site without a name.
        return write(Averaging(why=why)), {}
    of_all = {name: Estimate(one["value"], one["standard-error"]) for name, one in names.items()}
    averaging = average_fits(own, len(sites), of_all)
    by_site = {}
    for site, estimates in own.items():
        by_site[site] = {COEFFICIENTS: {name: write(one) for name, one in estimates.items()}}
    return write(averaging), by_site


def _without_average(run: RunSetting, statistic: Statistic) -> str:
    """Return why own fits are not averaged, or ""."""
    if run.study.aggregation.sums_updates:
        return render("report.averaging.summed")
    if isinstance(statistic, NewtonStatistic) and not statistic.has_own_fits:
        return render("report.averaging.intercept")
    if not has_own_fits(statistic):
        return render("report.averaging.unlike")
    return ""
