"""Gain that a study could show at a site of a given size, in words and as lines of a chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from flfed.records.charts.by_site import EXPECTED, LEAST
from flfed.records.objects import figure_of, run_of, site_of
from flfed.records.reports.size_classes import rows_in_words
from flfed.records.statistics import verdict
from flfed.records.statistics.odd_sites import AUC
from flfed.records.statistics.power import STUDIES, Curve, Design, Outlook, Range, of_one_study, outlook, site_rows
from flfed.words import render

CHANCE = "chance of a clear gain"
NEEDED = "test rows for twice the minimum"
number = partial(verdict.number, decimals=3)

SIZES = (10, 20, 50, 100, 200, 300, 500, 700, 1000, 1500, 2000, 3000, 5000, 10_000, 20_000, 50_000)
"""Rows of a site of which the chart has a point."""
LEAST_AUC = 0.55
MOST_AUC = 0.95
"""AUC of the shared model, as the page offers it."""


def in_words(rows: float, share: float, design: Design, curve: Curve) -> list[str]:
    """Return the gains that a study could show at a site, in sentences."""
    prospect = _outlook_at(rows, share, design, curve)
    shown = render("pages.prospect.none")
    if prospect.least is not None:
        shown = render("pages.prospect.least", **_facts(prospect.least))
    return [
        shown,
        render("pages.prospect.expected", chance=_percent(prospect.power.value), **_facts(prospect.expected)),
    ]


def _outlook_at(rows: float, share: float, design: Design, curve: Curve) -> Outlook:
    """Return the gains that a study of sites with so many rows each could show at one of them."""
    alike = of_one_study([site_rows(rows, share * rows)] * design.sites)
    return outlook(alike[0], design, curve)


def prospect_line(prospect: Outlook | None) -> dict[str, str]:
    """Return the cells of a site in a table; dashes where its events are too few."""
    if prospect is None:
        return dict.fromkeys((EXPECTED, LEAST, CHANCE, NEEDED), "–")
    least = "none"
    if prospect.least is not None:
        least = f"{number(prospect.least.value)} ({_span(prospect.least)})"
    return {
        EXPECTED: f"{number(prospect.expected.value)} ({_span(prospect.expected)})",
        LEAST: least,
        CHANCE: _chance(prospect.power),
        NEEDED: f"{prospect.test_rows:,}",
    }


def mean_in_words(mean: tuple[Range, Range] | None) -> str:
    """Return the expected mean gain over sites, and the chance that it is clear."""
    if mean is None:
        return render("experiments.power.fewer", least=verdict.LEAST_SITES, rows=verdict.LEAST_OF_A_CLASS)
    gain, clear = mean
    return render("experiments.power.mean", chance=_chance(clear), **_facts(gain))


def limits_in_words() -> str:
    """Return on how many studies the curve rests, where no run of the study's own makes it."""
    return render("experiments.power.limits", studies=STUDIES)


def class_in_words(of: tuple[Sequence[int | None], int, tuple[Range, Range] | None]) -> str:
    """Return the expected gain over the sites of a size class, and the chance that it is clear."""
    rows, sites, outlook_of_class = of
    facts = {"sites": sites, "rows": rows_in_words(rows)}
    if outlook_of_class is None:
        return render("experiments.power.class-few", **facts)
    gain, clear = outlook_of_class
    return render("experiments.power.class", chance=_chance(clear), **facts, **_facts(gain))


def prospect_of_site(report: Mapping[str, Any], site: str) -> dict[str, str]:
    """Return a site's numbers as the page *Before you join* takes and limits them; nothing where none are counted."""
    of = site_of(report["sites"][site])
    shared = figure_of(of.global_, AUC).value
    classes = of.holdout_classes
    if not classes or not of.rows or not sum(classes.values()) or shared is None:
        return {}
    share = min(classes.values()) / sum(classes.values())
    run = run_of(report)
    return {
        "rows": str(of.rows),
        "share": f"{100 * share:.0f}",
        "auc": f"{shared:.2f}",
        "sites": str(len(run.sites)),
        "repeats": str(run.repeats),
    }


def _facts(gain: Range) -> dict[str, str]:
    """Return a gain and its interval, as sentences name them."""
    return {"gain": number(gain.value), "interval": _span(gain)}


def _span(values: Range) -> str:
    return verdict.interval(values.low, values.high, 3)


def _percent(chance: float) -> str:
    return f"{100 * chance:.0f} %"


def _chance(chance: Range) -> str:
    return f"{_percent(chance.value)} ({_percent(chance.low)} to {_percent(chance.high)})"


def curve_lines(share: float, design: Design, curve: Curve) -> list[dict[str, Any]]:
    """Return expected gain and least gain shown by a site's number of rows."""
    lines = []
    for rows in SIZES:
        prospect = _outlook_at(rows, share, design, curve)
        least = prospect.least.value if prospect.least else None
        lines.append({"Rows": rows, EXPECTED: prospect.expected.value, LEAST: least})
    return lines
