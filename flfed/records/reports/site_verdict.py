"""Verdict on joining at one site, of its entry in a report or of the figures that its gate kept."""

from __future__ import annotations

from dataclasses import replace

from flfed.records.statistics import Report, intervals
from flfed.records.statistics.listed.noised_scores import NOT_COMPARED
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
    classes = site["holdout-classes"]
    if classes is None or min(classes.values()) >= LEAST_OF_A_CLASS:
        return None
    return f"{class_words(site)}; at least {LEAST_OF_A_CLASS} with it and {LEAST_OF_A_CLASS} without are needed"


def no_interval(site: Report, metric: str) -> str | None:
    """Return why a site's difference, which is known, has no interval."""
    entry = site["difference"].get(metric) or {}
    return entry.get("method") if entry.get("value") is not None and entry["low"] is None else None


def class_words(site: Report) -> str:
    """Return the rarer class's rows in a holdout, in words.

    Of repeats that differ it is their mean.

    Examples
    --------
    >>> class_words({"holdout-classes": {"0": 2, "1": 36}}), class_words({"holdout-classes": {"0": 30, "1": 1}})
    ('2 of the 38 test rows do not have the outcome', '1 of the 31 test rows has the outcome')
    """
    without, with_ = site["holdout-classes"]["0"], site["holdout-classes"]["1"]
    rare = min(without, with_)
    some = "has" if rare == 1 else "have"
    if without < with_:
        some = "does not have" if rare == 1 else "do not have"
    about = "about " if varies(site) else ""
    return f"{about}{rare} of {about or 'the '}{without + with_} test rows {some} the outcome"


def site_verdict(site: Report, metric: str) -> tuple[str, str]:
    """Return code and sentence of one site's verdict."""
    shared, adjusted = _differences_of(site, metric)
    entries = [site[key].get(metric) for key in DIFFERENCES]
    reasons = [site[NOT_COMPARED]] if NOT_COMPARED in site else []
    reasons += [entry["reason"] for entry in entries if entry and "reason" in entry]
    reasons += [site[arm][metric]["reason"] for arm in SITE_ARMS if "reason" in site[arm].get(metric, {})]
    reasons += [entry["method"] for entry in entries if entry and entry["low"] is None and entry.get("method")]
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
        figures={arm: site[arm].get(metric, {}).get("value") for arm in SITE_ARMS},
        reason=(reasons or ["this site shares no figures of its own"])[0],
        worthwhile=worthwhile_at(site, metric),
        alone=own_in_words(site),
        undertrained=NOT_ENOUGH if site.get(UNDERTRAINED) else "",
    )


def own_in_words(site: Report) -> str:
    """Return the family of a site's own model, where it differs."""
    counted = site.get("local-only-families") or {}
    return family_in_words(counted, sum(counted.values()))


def worthwhile_at(site: Report, metric: str) -> float:
    """Return the gain that one entry of `sites` calls worthwhile."""
    told = [float(entry["worthwhile"]) for key in DIFFERENCES if "worthwhile" in (entry := site[key].get(metric) or {})]
    return (told or [worthwhile_of(metric)])[0]


def _differences_of(site: Report, metric: str) -> tuple[Difference | None, Difference | None]:
    """Return shared and adjusted model, each minus the site's own."""
    shared, adjusted = (site[key].get(metric) for key in DIFFERENCES)
    return as_difference(shared), as_difference(adjusted)


def as_difference(entry: Report | None) -> Difference | None:
    """Return a difference of a report with both its intervals, None where there is none."""
    if not entry:
        return None
    found = Difference(entry["value"], entry["low"], entry["high"])
    if entry.get("sites", 1) < 2:
        return found
    return replace(found, wide_low=entry["widened-low"], wide_high=entry["widened-high"], sites=entry["sites"])


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
    least, most = site.get("holdout-rows-range") or (0, 0)
    return bool(least < most)


def widened(entry: Report, metric: str, rule: Report) -> Report:
    """Return a difference with its interval widened for the sites."""
    value, bounds = entry["value"], (entry["low"], entry["high"])
    if value is None or None in bounds:
        wide: list[float | None] = [None, None]
    else:
        # Both bounds move by the same factor, and stay within what the metric allows.
        by = intervals.widening(rule["sites"], entry["freedom"])
        wide = [intervals.possible(metric, value + by * (bound - value), difference=True) for bound in bounds]
    worthwhile = rule["worthwhile"][metric]
    return entry | {"widened-low": wide[0], "widened-high": wide[1], "sites": rule["sites"], "worthwhile": worthwhile}
