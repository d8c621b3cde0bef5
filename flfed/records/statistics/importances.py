"""Importances of columns in a run, by permutation and by gain: over repeats, in tables and in sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flfed.records.objects import figure_of, read, read_all, read_some, write
from flfed.records.section import Section, Table
from flfed.records.statistics import Report
from flfed.records.statistics.verdict import ABSENT, interval, metric_name, number, shown
from flfed.words import counted, render, shorten

LOG_LOSS = "log_loss"
DECIMALS = 4
"""Decimals of an increase of the loss, which may matter from a few thousandths on."""
FEW_SITES = 8
"""Most sites whose reasons have a sentence each."""
TITLE = "Which columns the shared model needs"
GAIN_TITLE = "What the trees split by"
LARGEST_LOG_ODDS = 20.0
"""Up to here odds ratios are shown; larger ones come from a model that diverged."""


@dataclass(frozen=True)
class AtSite:
    """Increase of the loss at one site."""

    site: str
    increase: float


@dataclass(frozen=True)
class OwnIncrease:
    """Increase of the loss without a column's information at one site, or why there is none."""

    column: str
    increase: float | None = None
    why: str = ""


@dataclass(frozen=True)
class Increase:
    """Increase of the loss without a column's information, over sites.

    Attributes
    ----------
    column : str
    increase : float or None
        Mean over the repeats.
    low, high : float or None
        The least and the greatest of the repeats, None of one.
    sites : int
        Number of sites.
    least, greatest : AtSite or None
        Least and greatest increase of a site, None where no site's own is known.
    """

    column: str
    increase: float | None
    low: float | None = None
    high: float | None = None
    sites: int = 0
    least: AtSite | None = None
    greatest: AtSite | None = None


@dataclass(frozen=True)
class Importances:
    """Importances of columns by permutation, of one repeat as recorded or over all.

    Attributes
    ----------
    loss : str
    permutations, rows, requested_sites : int
        How often each column was shuffled, test rows, and sites with a request.
    columns : list of Increase
    sites : dict of site to list of OwnIncrease
    """

    loss: str
    permutations: int
    rows: Any
    requested_sites: int
    columns: list[Increase]
    sites: dict[str, list[OwnIncrease]]


@dataclass(frozen=True)
class Gain:
    """Gain of all splits by a column.

    Attributes
    ----------
    column : str
    gain : float or None
        Sum over all splits, of a run of one repeat.
    share : float or None
        Of the gain of all columns, the mean over repeats, None where no tree has a split.
    low, high : float or None
        The least and the greatest share of the repeats, None of one.
    """

    column: str
    gain: float | None
    share: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Gains:
    """Gains by column, in the study's order; `trees` is their number in each repeat."""

    trees: list[int]
    columns: list[Gain]


@dataclass(frozen=True)
class _RecordedGains:
    """Gains by column of one repeat."""

    trees: int
    columns: list[Gain]


def over_repeats(payloads: Sequence[Mapping[str, Any] | None]) -> Report | None:
    """Return the importances over the repeats of a run as JSON (`Importances`), or None.

    Repeats in which fewer sites released a column do not count for it.

    Parameters
    ----------
    payloads : sequence of dict or None
        The objects "importances" of the repeats.
    """
    repeats = read_some(Importances, payloads)
    if not repeats:
        return None
    by_site: dict[str, list[OwnIncrease]] = {}
    every = []
    for one in repeats:
        every += one.columns
        for site, own in one.sites.items():
            by_site.setdefault(site, []).extend(own)
    sites = {
        site: [_of_site(name, increases) for name in _columns_of(increases)] for site, increases in by_site.items()
    }
    columns = [_of_column(name, every, sites) for name in _columns_of(every)]
    return write(replace(repeats[0], columns=columns, sites=sites))


def _columns_of(increases: Sequence[Increase] | Sequence[OwnIncrease]) -> list[str]:
    """Return the columns of some figures, each once."""
    return list(dict.fromkeys(of.column for of in increases))


def _of_site(name: str, increases: Sequence[OwnIncrease]) -> OwnIncrease:
    """Return a column's increase at one site, the mean of its repeats."""
    entries = [of for of in increases if of.column == name]
    values = [of.increase for of in entries if of.increase is not None]
    why = "" if values else entries[0].why
    return OwnIncrease(name, _mean(values), why)


def _of_column(name: str, every: Sequence[Increase], sites: Mapping[str, Sequence[OwnIncrease]]) -> Increase:
    """Return a column's increase over sites and repeats."""
    entries = [of for of in every if of.column == name]
    most = max(of.sites for of in entries)
    # An institution releases it in one repeat only: a mean over other sites would be another figure.
    values = [of.increase for of in entries if of.sites == most and of.increase is not None]
    increase = Increase(column=name, increase=_mean(values), sites=most)
    if len(values) > 1:
        increase = replace(increase, low=min(values), high=max(values))
    own = []
    for site, columns in sites.items():
        own += [AtSite(site, of.increase) for of in columns if of.column == name and of.increase is not None]
    ranked = sorted(own, key=lambda of: of.increase)
    if ranked:
        increase = replace(increase, least=ranked[0], greatest=ranked[-1])
    return increase


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


@dataclass(frozen=True, kw_only=True)
class Influence:
    """Influence of columns in a report, with its figures over all sites."""

    importances: Importances | None = None
    gains: Gains | None = None
    global_: Any = None


def needed_columns(report: Mapping[str, Any]) -> Section | None:
    """Return the increase of a run's loss without each column's information, None where not requested."""
    influence = read(Influence, report)
    if influence.importances is None:
        return None
    sentences = importance_in_words(influence.importances, influence.global_)
    return Section(title=TITLE, tables=(Table(lines=importance_lines(influence.importances)),), note=sentences)


def split_columns(report: Mapping[str, Any]) -> Section | None:
    """Return the columns by which the trees of a run split, None where no tree grew."""
    influence = read(Influence, report)
    if influence.gains is None:
        return None
    sentence = gains_in_words(influence.gains, permuted=influence.importances is not None)
    return Section(title=GAIN_TITLE, tables=(Table(lines=gain_lines(influence.gains)),), note=(sentence,))


@dataclass(frozen=True)
class _Coefficients:
    """Coefficients of a linear model in log-odds, of one repeat."""

    inputs: list[str]
    coefficients: list[float]


def coefficients(payloads: Sequence[Mapping[str, Any]]) -> Section:
    """Return the coefficients of a linear model in log-odds, by input.

    Parameters
    ----------
    payloads : sequence of dict
        The objects "coefficients" of the repeats, one or more.
    """
    repeats = read_all(_Coefficients, payloads)
    by_input = {name: [of.coefficients[place] for of in repeats] for place, name in enumerate(repeats[0].inputs)}
    ranked = sorted(by_input.items(), key=lambda item: -abs(sum(item[1])))
    lines = []
    for name, values in ranked:
        mean = sum(values) / len(values)
        line = {"Input": name, "Coefficient (log-odds)": number(mean, 3, signed=True), "Odds ratio": ABSENT}
        if abs(mean) < LARGEST_LOG_ODDS:
            line |= {"Odds ratio": number(math.exp(mean), 2)}
        if len(values) > 1:
            line |= {"In the repeats": interval(min(values), max(values))}
        lines.append(line)
    note = render("report.importance.coefficients")
    return Section(title="What the shared model goes by", tables=(Table(lines=lines),), note=(note,))


def importance_lines(importances: Importances) -> list[dict[str, str]]:
    """Return the lines of a table, the most important column first."""
    grows = f"{importances.loss.capitalize()} grows by"
    several = any(of.low is not None for of in importances.columns)
    lines = []
    for of in sorted(importances.columns, key=_rank):
        line = {"Column": of.column, grows: _increase(of.increase)}
        line |= {"Least, at": _at(of.least), "Most, at": _at(of.greatest)}
        if several:
            line["In the repeats"] = interval(of.low, of.high, DECIMALS)
        lines.append(line | {"Sites": f"{of.sites} of {importances.requested_sites}"})
    return lines


def _rank(of: Increase) -> float:
    return float("inf") if of.increase is None else -of.increase


def _increase(value: float | None) -> str:
    return number(value, DECIMALS)


def _at(of: AtSite | None) -> str:
    return shown(of, lambda at: f"{_increase(at.increase)} ({at.site})")


def importance_in_words(importances: Importances, over_all: Mapping[str, Any] | None = None) -> list[str]:
    """Return the meaning of the figures, their limits, and the columns without one.

    Parameters
    ----------
    importances : Importances
    over_all : dict of metric to figure, optional
        Of the shared model over all sites: its loss shows which size matters.
    """
    times = "once" if importances.permutations == 1 else f"{importances.permutations} times"
    loss = figure_of(over_all, LOG_LOSS).value
    lines = [render("report.importance.shuffled", times=times, loss=importances.loss)]
    if importances.loss == metric_name(LOG_LOSS) and loss is not None:
        lines.append(render("report.importance.loss", figure=number(loss)))
    return [*lines, render("report.importance.limits"), *_without(importances)]


def _without(importances: Importances) -> list[str]:
    """Return the columns without a figure, by site, and why."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for site, columns in importances.sites.items():
        for of in columns:
            if of.why:
                reasons.setdefault((site, of.why), []).append(of.column)
    silent = len({site for site, _ in reasons})
    if silent > FEW_SITES:
        return [render("report.importance.many", sites=silent)]
    lines = []
    for (site, why), names in reasons.items():
        which = "any column" if len(names) == len(importances.sites[site]) else ", ".join(names)
        lines.append(render("report.importance.without", site=site, columns=which, reason=why))
    return lines


def gains_over_repeats(payloads: Sequence[Mapping[str, Any] | None]) -> Report | None:
    """Return the gains by column over the repeats of a run as JSON (`Gains`), or None.

    Parameters
    ----------
    payloads : sequence of dict or None
        The objects "gains" of the repeats.
    """
    repeats = read_some(_RecordedGains, payloads)
    if not repeats:
        return None
    columns = [_gain(repeats, place) for place in range(len(repeats[0].columns))]
    return write(Gains([one.trees for one in repeats], columns))


def _gain(repeats: Sequence[_RecordedGains], place: int) -> Gain:
    """Return the gain of one column over the repeats."""
    shares = [share for one in repeats if (share := _share(one.columns, place)) is not None]
    gain = replace(repeats[0].columns[place], share=_mean(shares))
    if len(repeats) > 1:
        gain = replace(gain, gain=None)
    if len(shares) > 1:
        gain = replace(gain, low=min(shares), high=max(shares))
    return gain


def _share(columns: Sequence[Gain], place: int) -> float | None:
    whole = sum(of.gain or 0 for of in columns)
    return (columns[place].gain or 0) / whole if whole else None


def gain_lines(gains: Gains) -> list[dict[str, str]]:
    """Return the lines of a table of gains, the column with most first."""
    lines = []
    for of in sorted(gains.columns, key=lambda of: -(of.share or 0)):
        line = {"Column": of.column, "Share of the gain": _percent(of.share)}
        if of.low is not None:
            line["In the repeats"] = f"{_percent(of.low)} to {_percent(of.high)}"
        lines.append(line)
    return lines


def largest_gains(payload: Mapping[str, Any], most: int | None = 5) -> str:
    """Return the columns with most of the gain, in one line, or that no tree has a split.

    Parameters
    ----------
    payload : dict
        From `gains_over_repeats`.
    most : int, optional
        Columns that are named; all by default.
    """
    gains = read(Gains, payload)
    ranked = sorted(gains.columns, key=lambda of: -(of.share or 0))
    none = (ABSENT, _percent(0.0))
    shares = [f"{of.column} {_percent(of.share)}" for of in ranked if _percent(of.share) not in none]
    if not shares:
        return render("report.importance.unsplit")
    return render("report.importance.largest", trees=_trees(gains), columns=shorten(shares, most or len(shares)))


def _percent(share: float | None) -> str:
    return shown(share, lambda part: f"{number(100 * part, 1)} %")


def gains_in_words(gains: Gains, *, permuted: bool) -> str:
    """Return the meaning of gains and its limits; `permuted` is whether importances by permutation are shown, too."""
    if permuted:
        return render("report.importance.gains", trees=_trees(gains))
    return render("report.importance.alone", trees=_trees(gains))


def _trees(gains: Gains) -> str:
    least = min(gains.trees)
    most = counted(max(gains.trees), "tree")
    return most if least == max(gains.trees) else f"{least:,} to {most}"
