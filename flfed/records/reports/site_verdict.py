"""Verdict on joining at one site, of its entry in a report or of the figures that its gate kept."""

from __future__ import annotations

from dataclasses import replace

from flfed.records.objects import VerdictRule, figure_of, read, read_figure, site_of
from flfed.records.statistics import Report, intervals
from flfed.records.statistics.noised_scores import NOT_COMPARED
from flfed.records.statistics.own_models import family_in_words
from flfed.records.statistics.training_state import NOT_ENOUGH
from flfed.records.statistics.verdict import Difference, best_of, better_of, verdict, worthwhile_of

UNDERTRAINED = "undertrained"
"""Key of a site where the shared model is known not to be trained enough."""

SITE_ARMS = ("global", "local-only", "personalised")
DIFFERENCES = ("difference", "difference-personalised")
"""Keys of a site of what is shown of the shared model, and of the one adjusted to it, minus the site's own."""
LEAST_OF_A_CLASS = 10
"""Fewest test rows of each class from which models are told apart: of fewer no 95 % CI holds (simulated)."""


def too_few(site: Report) -> str | None:
    """Return why a site's holdout is too small to tell models apart."""
    classes = site_of(site).holdout_classes
    if classes is None or min(classes.values()) >= LEAST_OF_A_CLASS:
        return None
    return f"{class_words(site)}; at least {LEAST_OF_A_CLASS} with it and {LEAST_OF_A_CLASS} without are needed"


def no_interval(site: Report, metric: str) -> str | None:
    """Return why a site's difference, which is known, has no interval."""
    figure = figure_of(site_of(site).difference, metric)
    return figure.method if figure.method and figure.value is not None and figure.low is None else None


def class_words(site: Report) -> str:
    """Return the rarer class's rows in a holdout, in words.

    Of repeats that differ it is their mean.

    Examples
    --------
    >>> class_words({"holdout-classes": {"0": 2, "1": 36}}), class_words({"holdout-classes": {"0": 30, "1": 1}})
    ('2 of the 38 test rows do not have the outcome', '1 of the 31 test rows has the outcome')
    """
    here = site_of(site)
    without = here.holdout_classes["0"]
    with_ = here.holdout_classes["1"]
    rare = min(without, with_)
    some = "has" if rare == 1 else "have"
    if without < with_:
        some = "does not have" if rare == 1 else "do not have"
    about = "about " if varies(site) else ""
    return f"{about}{rare} of {about or 'the '}{without + with_} test rows {some} the outcome"


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
        reasons = [*reasons, few]
    return verdict(
        shared,
        adjusted,
        better_of(metric),
        metric=metric,
        figures={arm: figure.value for arm, figure in figures.items()},
        reason=(reasons or ["this site shares no figures of its own"])[0],
        worthwhile=worthwhile_at(site, metric),
        alone=own_in_words(site),
        undertrained=NOT_ENOUGH if site.get(UNDERTRAINED) else "",
    )


def own_in_words(site: Report) -> str:
    """Return the family of a site's own model, where it differs."""
    counted = site_of(site).local_only_families or {}
    return family_in_words(counted, sum(counted.values()))


def worthwhile_at(site: Report, metric: str) -> float:
    """Return the gain that one entry of `sites` calls worthwhile."""
    for key in DIFFERENCES:
        worthwhile = figure_of(site[key], metric).worthwhile
        if worthwhile is not None:
            return float(worthwhile)
    return worthwhile_of(metric)


def _differences_of(site: Report, metric: str) -> tuple[Difference | None, Difference | None]:
    """Return shared and adjusted model, each minus the site's own."""
    shared, adjusted = (site[key].get(metric) for key in DIFFERENCES)
    return as_difference(shared), as_difference(adjusted)


def as_difference(entry: Report | None) -> Difference | None:
    """Return a difference of a report with both its intervals, None where there is none."""
    if not entry:
        return None
    figure = read_figure(entry)
    found = Difference(figure.value, figure.low, figure.high)
    if figure.sites < 2:
        return found
    return replace(found, wide_low=figure.widened_low, wide_high=figure.widened_high, sites=figure.sites)


def best_arm(site: Report, metric: str) -> tuple[str, Difference] | None:
    """Return the better arm at a site and its gain.

    Above 0 is an improvement. The verdict is about this arm.

    None where none was measured, or the models cannot be told apart.
    """
    return None if too_few(site) else best_of(*_differences_of(site, metric), better_of(metric))


def best_gain(site: Report, metric: str) -> Difference | None:
    """Return the better arm's gain at a site, or None."""
    best = best_arm(site, metric)
    return best[1] if best else None


def gain_at(site: Report, metric: str) -> Report:
    """Return the gain at a site, with its verdict.

    It is that of the better model, above 0 where joining is better, with the interval that the verdict goes by, as it
    is told everywhere.
    """
    code, _ = site_verdict(site, metric)
    best = best_arm(site, metric)
    if best is None:
        return {"value": None, "low": None, "high": None, "model": None, "verdict": code}
    gain = best[1].deciding
    return {"value": gain.value, "low": gain.low, "high": gain.high, "model": best[0], "verdict": code}


def varies(site: Report) -> bool:
    """Tell whether a site's holdout has different sizes between repeats."""
    least, most = site_of(site).holdout_rows_range or (0, 0)
    return bool(least < most)


def widened(entry: Report, metric: str, rule: Report) -> Report:
    """Return a difference with its interval widened for the sites."""
    figure = read_figure(entry)
    of = read(VerdictRule, rule)
    wide: list[float | None] = [None, None]
    if figure.value is not None and figure.low is not None and figure.high is not None:
        # Both bounds move by the same factor, and stay within what the metric allows.
        by = intervals.widening(of.sites, figure.freedom)
        ends = [figure.value + by * (bound - figure.value) for bound in (figure.low, figure.high)]
        wide = [intervals.possible(metric, end, difference=True) for end in ends]
    told = {"widened-low": wide[0], "widened-high": wide[1], "sites": of.sites}
    return entry | told | {"worthwhile": of.worthwhile[metric]}
