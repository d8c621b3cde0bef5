"""Verdict on joining at one site, by its report or its gate's results, and over all sites."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from flfed.records.objects import FigureReport, VerdictRule, figure_of, read, read_figure, site_of
from flfed.records.statistics import Report, intervals, verdict
from flfed.records.statistics.intervals import mean_of, mean_over_sites, possible, standard_error
from flfed.records.statistics.noised_scores import NOT_COMPARED
from flfed.records.statistics.own_models import family_in_words
from flfed.records.store.entries import DifferenceRow
from flfed.words import render

UNDERTRAINED = "undertrained"
"""Key of a site whose shared model was not trained enough."""

SITE_ARMS = ("global", "local-only", "personalised")
DIFFERENCES = ("difference", "difference-personalised")
"""Keys of a site: shared model, and the one adjusted to the site, each minus the site's own."""


def too_few(site: Report) -> str | None:
    """Return why a site's holdout is too small to compare models, or None."""
    classes = site_of(site).holdout_classes
    if classes is None or min(classes.values()) >= verdict.LEAST_OF_A_CLASS:
        return None
    return render("report.verdict.few", rows=class_words(site), least=verdict.LEAST_OF_A_CLASS)


def no_interval(site: Report, metric: str) -> str | None:
    """Return why a site's difference, of figures that are known, is none or has no interval; or None."""
    here = site_of(site)
    figure = figure_of(here.difference, metric)
    models = (here.global_, here.local_only)
    if figure.value is None and None not in [figure_of(of, metric).value for of in models]:
        return figure.reason or None
    if figure.value is None or figure.low is not None:
        return None
    return figure.method or None


def class_words(site: Report) -> str:
    """Return how many test rows are of the rarer class; a mean where repeats differ.

    Examples
    --------
    >>> class_words({"holdout-classes": {"0": 2, "1": 36}}), class_words({"holdout-classes": {"0": 30, "1": 1}})
    ('2 of the 38 test rows do not have the outcome', '1 of the 31 test rows has the outcome')
    """
    here = site_of(site)
    without = here.holdout_classes["0"]
    with_ = here.holdout_classes["1"]
    rare = min(without, with_)
    rows = f"{rare:,} of the {without + with_:,} test rows"
    if varies(site):
        rows = f"about {rare:,} of about {without + with_:,} test rows"
    verb = "has" if rare == 1 else "have"
    if without < with_:
        verb = "does not have" if rare == 1 else "do not have"
    return f"{rows} {verb} the outcome"


def site_verdict(site: Report, metric: str) -> tuple[str, str]:
    """Return code and sentence of one site's verdict."""
    shared, adjusted = _differences_of(site, metric)
    differences = [figure_of(site[key], metric) for key in DIFFERENCES]
    figures = {arm: figure_of(site[arm], metric) for arm in SITE_ARMS}
    reasons = [site[NOT_COMPARED]] if NOT_COMPARED in site else []
    reasons += [figure.reason for figure in (*differences, *figures.values()) if figure.reason]
    reasons += [figure.method for figure in differences if figure.low is None and figure.method]
    # A holdout with too few rows of a class decides nothing, whatever its figures are.
    if (few := too_few(site)) is not None:
        shared = None
        adjusted = None
        reasons.append(few)
    reasons.append(render("report.verdict.unshared"))
    words = {"reason": reasons[0], "alone": own_in_words(site)}
    if site.get(UNDERTRAINED):
        words["undertrained"] = render("report.training.short")
    values = {arm: figure.value for arm, figure in figures.items()}
    least = worthwhile_at(site, metric)
    better = verdict.better_of(metric)
    return verdict.verdict(shared, adjusted, better, metric=metric, figures=values, worthwhile=least, **words)


def own_in_words(site: Report) -> str:
    """Return the family of a site's own model, where it differs from the shared one's."""
    counted = site_of(site).local_only_families or {}
    return family_in_words(counted, sum(counted.values()))


def worthwhile_at(site: Report, metric: str) -> float:
    """Return the gain that is worthwhile in one entry of `sites`."""
    for key in DIFFERENCES:
        worthwhile = figure_of(site[key], metric).minimum_gain
        if worthwhile is not None:
            return float(worthwhile)
    return verdict.worthwhile_of(metric)


def _differences_of(site: Report, metric: str) -> tuple[verdict.Difference | None, verdict.Difference | None]:
    """Return shared and adjusted model, each minus the site's own."""
    shared, adjusted = (site[key].get(metric) for key in DIFFERENCES)
    return as_difference(shared), as_difference(adjusted)


def as_difference(entry: Report | None) -> verdict.Difference | None:
    """Return a difference of a report with both its intervals, None where there is none."""
    if not entry:
        return None
    figure = read_figure(entry)
    difference = verdict.Difference.of(figure)
    if figure.sites < 2:
        return difference
    return replace(difference, wide_low=figure.widened_low, wide_high=figure.widened_high, sites=figure.sites)


def best_arm(site: Report, metric: str) -> tuple[str, verdict.Difference] | None:
    """Return the better arm at a site, of which the verdict is, and its gain.

    A gain above 0 is an improvement. None where none was measured, or the models cannot be compared.
    """
    return None if too_few(site) else verdict.best_of(*_differences_of(site, metric), verdict.better_of(metric))


def best_gain(site: Report, metric: str) -> verdict.Difference | None:
    """Return the better arm's gain at a site, or None."""
    best = best_arm(site, metric)
    return best[1] if best else None


def gain_at(site: Report, metric: str) -> Report:
    """Return the gain of the better model at a site, with its verdict and the interval of the verdict.

    A gain above 0 is an improvement.
    """
    code, _ = site_verdict(site, metric)
    best = best_arm(site, metric)
    if best is None:
        return {"value": None, "low": None, "high": None, "model": None, "verdict": code}
    gain = best[1].deciding
    return {"value": gain.value, "low": gain.low, "high": gain.high, "model": best[0], "verdict": code}


def varies(site: Report) -> bool:
    """Return whether a site's holdout has another size in other repeats."""
    least, most = site_of(site).holdout_rows_range or (0, 0)
    return bool(least < most)


def widened(entry: Report, metric: str, rule: Report) -> Report:
    """Return a difference with its interval widened for the number of sites."""
    figure = read_figure(entry)
    of = read(VerdictRule, rule)
    wide: list[float | None] = [None, None]
    if figure.value is not None and figure.low is not None and figure.high is not None:
        # Both bounds move by the same factor, and stay within what the metric allows.
        by = intervals.widening(of.sites, figure.freedom)
        ends = [figure.value + by * (bound - figure.value) for bound in (figure.low, figure.high)]
        wide = [intervals.possible(metric, end, difference=True) for end in ends]
    widened_interval = {"widened-low": wide[0], "widened-high": wide[1], "sites": of.sites}
    return entry | widened_interval | {"minimum-gain": of.minimum_gain[metric]}


Pairs = Sequence[tuple[DifferenceRow, float | None]]
"""Differences at a site, one a repeat, each with its holdout rows per training row where the repeat drew a holdout."""


def mean_gain(rows: Mapping[str, Pairs], metric: str, of: int) -> Report:
    """Return the mean over sites of the shared model's gain on the site model, as report keys.

    Above 0 is better.

    Parameters
    ----------
    rows : mapping of site to pairs
        The shared model minus the site's own, one a repeat, and its holdout rows per training row.
    metric : str
    of : int
        Sites that took part.

    Returns
    -------
    dict
        `value`, `low`, `high`, `between-sites-sd` (of the sites' gains about the mean, beyond their own
        uncertainty), `between-sites-p` (of Cochran's test that all gain the same), `sites` (in the mean), `of`, `arm`,
        `method`, `coverage` (how often the interval holds). Where fewer than `LEAST_SITES` have figures with an error,
        all are null, with a `reason`.
    """
    gain_by_site = {site: gain for site, pairs in rows.items() if (gain := _gain(pairs, metric)) is not None}
    facts: Report = {"arm": "global", "sites": len(gain_by_site), "of": of}
    facts |= {"method": render("report.mean.method"), "coverage": render("report.mean.coverage")}
    names = ("value", "low", "high", "between-sites-sd", "between-sites-p")
    if len(gain_by_site) < verdict.LEAST_SITES:
        why = render("report.mean.minimum", sites=len(gain_by_site), of=of, least=verdict.LEAST_SITES)
        return dict.fromkeys(names) | {"reason": why} | facts
    # Sites whose error is unknown have no weight in the mean and are left out.
    mean = mean_over_sites(*zip(*gain_by_site.values(), strict=True))
    figures = (mean.value, mean.low, mean.high, mean.between, mean.alike)
    summary: Report = dict(zip(names, figures, strict=True))
    return summary | {key: possible(metric, summary[key], difference=True) for key in ("low", "high")} | facts


def _gain(pairs: Pairs, metric: str) -> tuple[float, float] | None:
    """Return a site's gain, the mean of its repeats, and its standard error; None where one is unknown.

    Where each of R repeats drew a holdout, with `ratio` holdout rows per training row, two of them
    correlate by `ratio / (1 + ratio)`, and the error of their mean follows from that of one.

    Source: Nadeau and Bengio 2003, equations 7 and 8.
    """
    rows = [row for row, _ in pairs if row.value is not None]
    errors = [standard_error(metric, row.value, row.low, row.high) for row in rows]
    error = mean_of(errors)
    # Less than half of the repeats would no longer stand for the site.
    if error is None or 2 * len(rows) < len(pairs) or 2 * errors.count(None) > len(rows):
        return None
    ratios = [ratio for _, ratio in pairs]
    ratio = mean_of(ratios)
    # Repeats that keep their holdout share its error in full: more of them do not make it smaller.
    if ratio is not None and None not in ratios:
        shared = ratio / (1 + ratio)
        error *= math.sqrt(shared + (1 - shared) / len(rows))
    gain = verdict.gain_of(verdict.Difference(mean_of([row.value for row in rows])), verdict.better_of(metric)).value
    return None if gain is None else (gain, error)


def code_of_mean(mean: FigureReport, worthwhile: float | None = None) -> str:
    """Return the verdict on a mean gain; a loss is inconclusive where the model was not trained enough.

    `worthwhile` is the minimum gain; None means the one beside the mean, else 0.
    """
    if worthwhile is None:
        worthwhile = mean.minimum_gain or 0.0
    code = verdict.code_of(verdict.Difference.of(mean), worthwhile)
    if code == verdict.DO_NOT_USE and mean.undertrained:
        return verdict.INCONCLUSIVE
    return code


def mean_gain_in_words(entry: Report | None, metric: str, *, adjusts: bool = True) -> str:
    """Return the mean gain over sites as a sentence with its assumption; "" where not known.

    `adjusts` is whether the run also has models that are adjusted to a site.

    Examples
    --------
    >>> known = {"value": 0.024, "low": 0.017, "high": 0.031, "sites": 9, "of": 10}
    >>> mean_gain_in_words(known, "roc_auc_score").partition(": ")[0]
    "On average over 9 of 10 sites, the shared model before adjustment against each site's own"
    >>> mean_gain_in_words(known, "roc_auc_score").partition(": ")[2]
    'gain +0.024 in AUC (95 % CI +0.017 to +0.031 for sites like these that train it together), which is clear.'
    >>> few = {"value": 0.02, "low": -0.04, "high": 0.08, "sites": 3, "of": 3}
    >>> mean_gain_in_words(few, "roc_auc_score").rpartition("together), ")[2]
    'which may be chance; with 3 sites, such a mean is hardly ever clear.'
    """
    mean = read_figure(entry)
    if mean.value is None:
        return ""
    gain = verdict.Difference.of(mean)
    least = verdict.worthwhile_of(metric) if mean.minimum_gain is None else mean.minimum_gain
    size, span = verdict.size_and_span(gain, least)
    sites = f"{mean.sites} sites"
    if mean.sites != mean.of:
        sites = f"{mean.sites} of {mean.of} sites"
    model = "shared model before adjustment" if adjusts else "shared model"
    conclusion = _describe_conclusion(gain, code_of_mean(mean, least), least, mean.sites)
    facts = {"gain": size, "interval": span, "metric": verdict.metric_name(metric)}
    return render("report.mean.gain", sites=sites, model=model, conclusion=conclusion, **facts)


def _describe_conclusion(gain: verdict.Difference, code: str, worthwhile: float, sites: int) -> str:
    """Return whether a mean gain is clear, by the rule of a site's gain; few sites are named as the reason."""
    if code == verdict.PAYS:
        return render("report.mean.clear")
    if code == verdict.DO_NOT_USE:
        return render("report.mean.loss")
    if code == verdict.INCONCLUSIVE and verdict.has_interval(gain):
        return render("report.mean.undertrained")
    # A gain may be beyond chance and yet not worth joining for.
    if not verdict.may_be_chance(gain):
        side, may = verdict.beyond_chance(gain, worthwhile)
        return render("report.mean.small", side=side, may=may)
    if sites <= verdict.FEW_SITES:
        return render("report.mean.few", sites=sites)
    return render("report.mean.chance")


def describe_spread(entry: Report | None, *, adjusts: bool = True) -> str:
    """Return how far the sites' gains differ, and whether beyond chance; "" where not known."""
    mean = read_figure(entry)
    if mean.between_sites_sd is None or mean.between_sites_p is None:
        return ""
    gains = "gains before adjustment" if adjusts else "gains"
    if mean.between_sites_p < verdict.UNLIKE:
        decimals = verdict.decimals_for(verdict.Difference(mean.between_sites_sd, mean.between_sites_sd))
        return render("report.mean.differ", gains=gains, size=verdict.number(mean.between_sites_sd, decimals))
    return render("report.mean.alike", gains=gains, sites=mean.sites)
