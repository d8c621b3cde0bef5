"""Panels of the page Curves.

They show how well the shared model ranks, and whether its probabilities hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import streamlit as st

from flfed.records.dashboard import run_page
from flfed.records.dashboard.components.colours import MOST_COLOURED, Looks, one_in_colour
from flfed.records.dashboard.components.curve_charts import (
    ALL,
    TOGETHER,
    Points,
    by_chance,
    calibration_chart,
    diagonal,
    is_stretched,
    is_together,
    unit_square,
)
from flfed.records.dashboard.components.figure import figure
from flfed.records.dashboard.components.tables import table
from flfed.records.dashboard.components.text import escape
from flfed.records.statistics import Report
from flfed.records.statistics.score_curves import (
    LEAST_ROWS,
    Group,
    ScoreCounts,
    average_precision,
    average_precision_hidden,
    calibration,
    precision_recall,
    roc,
    roc_auc,
    roc_auc_hidden,
    steps,
    thinned,
    wilson,
)
from flfed.records.statistics.verdict import ABSENT, interval, number
from flfed.records.store.entries import SiteEntry
from flfed.summaries.score_bins import ScoreBins

SITES_DRAWN = 6
"""Sites drawn unless the reader picks others, beside all together."""
MOST_DRAWN = 12
"""Sites that a reader can pick: more colours and dashes are not told apart."""
ONE_CLASS = "not defined: one class only"
NOT_COMPARABLE = "– (not comparable)"
STRETCHED = " Both axes are stretched towards 0 (by the cube root), where most predictions lie."
KEY = 'outputs = ["score-histogram"]'
Found = dict[str, ScoreCounts]

HOW_TO_READ = f"""
**ROC and AUC.** Take one row with the outcome and one without. AUC is how often the model gives the one with the
outcome the higher probability: .5 is the toss of a coin (the dashed line), 1 is always. Each point of the curve is one
place to draw the line between yes and no: how many of those with the outcome are found (up), at the price of how many
false alarms among those without it (to the right).

**Precision and recall.** Of all alarms, how many are right (up), when so many of the outcomes are found (to the right).
The thin dashed line in a site's colour is what chance alone would reach: the share of its rows with the outcome. Sites
can be compared by these curves only where these shares are alike. Average precision is the area below.

**Calibration.** Rows are put into groups of like predictions, of {LEAST_ROWS} or more. On the dashed line a prediction
holds: of rows with a predicted probability of .3, three in ten have the outcome. A point above it means that the model
says too little, below it too much. Where an interval misses the line, chance is no likely reason; but of twenty groups
of a model that holds, about one misses it by chance. A miss that the width of the bins (below) may explain is not
counted. Few rows make wide intervals, in which a prediction holds easily: so the mean over all rows is held against the
share of all that have the outcome, too.

**Why two figures of each kind.** Sites do not send the predictions of their rows, only how many rows of each class
fall into each of 256 bins of predictions. The curves are drawn from these counts, in which two rows of one bin cannot
be told apart: what that can change at most stands behind the figure as ±. The figure "from rows" was computed by the
site itself, before anything left it; that over all sites is computed from rows where one machine holds all tables, and
from these same counts where the sites are apart.

**What is not shown.** Whether acting on a prediction helps anybody, where to draw the line between yes and no, and how
the model will do next year or elsewhere. With few rows of a class a curve has few, large steps, and would look
different with other rows: see the 95 % CIs.
"""


def found_in(payload: Mapping[str, Any]) -> Found:
    """Return the score counts of a record.

    All sites together come first where these are several, then each site by name.
    """
    inside, asked = payload["in-all"], payload["asked"]
    name = ALL if inside >= asked else f"{inside} of {asked} {TOGETHER}"
    # One site's counts alone would be drawn twice: as its own and as those of all together.
    given = {name: payload["all"]} if payload["all"] and inside > 1 else {}
    given |= {site: payload["sites"][site] for site in sorted(payload["sites"])}
    bins = ScoreBins.of(payload)
    return {name: ScoreCounts.read(of, bins) for name, of in given.items()}


def choose(found: Found) -> Found:
    """Return the score counts to draw.

    They are all sites together, and the sites that the reader picks, at first those of most rows.
    """
    sites = [name for name in found if not is_together(name)]
    if len(sites) < 2:
        return found
    first = sorted(sorted(sites, key=lambda site: -found[site].rows)[:SITES_DRAWN])
    more = f" (of {len(sites)}; at first those with most test rows)" if len(sites) > SITES_DRAWN else ""
    chosen = st.multiselect(
        f"Sites{more}", sites, default=first, max_selections=MOST_DRAWN, key=f"curves-sites-{'-'.join(first)}"
    )
    return {name: counts for name, counts in found.items() if is_together(name) or name in chosen}


def says_whose(payload: Mapping[str, Any], sites: Sequence[SiteEntry], *, only: str | None = None) -> list[str]:
    """Return whose rows the curves are of.

    It also says why a site has none.

    Parameters
    ----------
    payload : dict
        The object "score-histograms" of a run.
    sites : sequence of SiteEntry
        Of the run; those that refused are passed over.
    only : str, optional
        The one site that the reader sees.
    """
    lines = ["The shared model on test rows, which nobody trained on."]
    if only:
        lines[0] += " Those of your site."
    elif not payload["all"]:
        lines[0] += " Over all sites together no curve may be shown."
    elif payload["in-all"] < payload["asked"]:
        lines[0] += f" The counts of {payload['in-all']} of {payload['asked']} sites may be added up."
    without = [site for site in sites if site.status != "refused" and site.site not in payload["sites"]]
    # A site in sums only would get no curve of its own by naming the key.
    hidden = [site.site for site in without if site.shared_as == "aggregate-only"]
    silent = [site.site for site in without if site.shared_as != "aggregate-only"]
    if silent:
        lines.append(f"No curve of {_names(silent)}: no counts of predictions came. Its policy.toml has to name {KEY}.")
    if hidden:
        lines.append(f"No curve of {_names(hidden)}, as figures of its own are not shared.")
    return lines


def _names(sites: Sequence[str]) -> str:
    return ", ".join(sites) if len(sites) <= SITES_DRAWN else f"{len(sites)} sites"


def says_which_repeat(repeat: int, repeats: int) -> str:
    """Return which repeat the page's figures are of.

    The record has several, and the sentence says why one alone is shown.
    """
    return f"**Repeat {repeat} of {repeats} alone**; others: in the margin. Overview and Sites show means."


def _heading(said: str, repeat: int | None) -> str:
    """Return a heading with its repeat.

    The repeat is that of the figures below it, and None where there is only one.
    """
    return f"## {said}" + ("" if repeat is None else f", in repeat {repeat}")


def areas(found: Found, report: Report) -> None:
    """Show the area under each curve.

    It stands beside the figure that the site computed from its rows. `repeat` is the one of several that is shown.
    """
    table([_area(name, counts, report) for name, counts in found.items()])
    st.caption("Higher is better for both. In brackets: the 95 % CI. Behind ±: what the counting can hide.")
    # The record's figure over all sites is of other rows than a curve of some of them.
    part = [name for name in found if is_together(name) and name != ALL]
    if part:
        st.caption(
            f"The figures from rows are of all sites together, not of {part[0]}, so they are not shown beside these: "
            "they stand on the page Overview."
        )
    # A curve is as rough as the rows of its rarer class are few.
    rarer = {name: min(counts.events, counts.rows - counts.events) for name, counts in found.items()}
    few = ", ".join(f"{name} ({rows})" for name, rows in rarer.items() if rows < LEAST_ROWS)
    if few:
        said = f"Curves that say little, as fewer than {LEAST_ROWS} rows of the rarer class are behind them: {few}."
        st.caption(escape(said))


def _area(name: str, counts: ScoreCounts, report: Report) -> dict[str, str]:
    return {
        "Rows of": name,
        "Test rows": f"{counts.rows}",
        "With the outcome": f"{counts.events} ({_percent(counts.events, counts.rows)} %)",
        "AUC, from rows": _of_rows(name, report, "roc_auc_score"),
        "AUC, of the curve": _of_curve(counts, roc_auc, roc_auc_hidden),
        "Average precision, from rows": _of_rows(name, report, "average_precision_score"),
        "Average precision, of the curve": _of_curve(counts, average_precision, average_precision_hidden),
    }


def _percent(events: int, rows: int) -> str:
    """Return a share in percent.

    It has a decimal where it is small, and is "under 0.1" where even that says nothing.

    Examples
    --------
    >>> _percent(14, 3675), _percent(85, 156), _percent(1, 3675), _percent(0, 40)
    ('0.4', '54', 'under 0.1', '0')
    """
    share = 100 * events / max(rows, 1)
    if 0 < share < 0.05:
        return "under 0.1"
    return f"{share:.1f}" if 0 < share < 10 else f"{share:.0f}"


def _of_rows(name: str, report: Report, metric: str) -> str:
    """Return the figure computed from rows.

    They are the rows of whom a line is about. The figure comes with its interval.

    There is none of some of the sites together: that of the record is of all.
    """
    if is_together(name) and name != ALL:
        return NOT_COMPARABLE
    arm = report["global"] if name == ALL else report["sites"].get(name, {}).get("global", {})
    figure = arm.get(metric, {})
    span = f" ({interval(figure['low'], figure['high'])})" if figure.get("low") is not None else ""
    return number(figure.get("value")) + span


def _of_curve(
    counts: ScoreCounts, value: Callable[[ScoreCounts], float], hidden: Callable[[ScoreCounts], float]
) -> str:
    """Return a curve's figure with its largest error.

    The error is how far the figure of the rows may lie from it, rounded up.
    """
    if not counts.has_both:
        return ONE_CLASS
    return f"{number(value(counts))} ± {_rounded_up(hidden(counts))}"


def _rounded_up(reach: float) -> str:
    return number(math.ceil(reach * 1000 - 1e-9) / 1000)


def ranking(found: Found, looks: Looks, repeat: int | None = None) -> None:
    """Show the ROC and precision-recall curves.

    They are of those that have rows of both classes.
    """
    st.markdown(_heading("How well it ranks", repeat))
    there, looks = _in_colour({name: counts for name, counts in found.items() if counts.has_both}, looks)
    left, right = st.columns(2)
    points = _points({name: thinned(*roc(counts)) for name, counts in there.items()})
    lines = [{"Rows of": name, "False positive rate": x, "True positive rate": y} for name, x, y in points]
    titles = ("false positive rate (1 − specificity)", "true positive rate (sensitivity)")
    says = "; ".join(f"{name}: AUC {number(roc_auc(counts))}" for name, counts in there.items())
    drawn = unit_square(points, titles, list(there), looks, [diagonal()])
    figure(left, "ROC curve (up and to the left is better)", drawn, lines, key="roc", says=f"ROC curve. {says}")
    curves = {name: precision_recall(counts) for name, counts in there.items()}
    # The table has every threshold, the chart only the points that change its picture.
    lines = [{"Rows of": name, "Recall": x, "Precision": y} for name, x, y in _points(curves)]
    points = _points({name: thinned(*steps(*curve)) for name, curve in curves.items()})
    titles = ("recall (share of outcomes found)", "precision (share of alarms that are right)")
    says = "; ".join(f"{name}: average precision {number(average_precision(c))}" for name, c in there.items())
    drawn = unit_square(points, titles, list(there), looks, [by_chance(there, looks)])
    title = "Precision and recall"
    figure(right, f"{title} (up and right is better)", drawn, lines, key="precision-recall", says=f"{title}. {says}")
    if len(there) < len(found):
        st.caption(escape(f"Not drawn, as all rows are of one class: {', '.join(sorted(set(found) - set(there)))}."))


def _in_colour(found: Found, looks: Looks) -> tuple[Found, Looks]:
    """Return curves and their looks.

    Of more sites than colours, one that the reader picks is last and in colour.
    """
    sites = [name for name in found if not is_together(name)]
    if len(sites) <= MOST_COLOURED:
        return found, looks
    asked = run_page.of_address("site")
    first = sites.index(asked) if asked in sites else 0
    label = f"Show in colour, with the other {len(sites) - 1} sites in grey"
    chosen = str(st.selectbox(label, sites, index=first, key=f"curves-colour-{sites[first]}", width=320))
    # What comes last is drawn above all others.
    order = sorted(found, key=lambda name: (is_together(name), name == chosen))
    return {name: found[name] for name in order}, looks | one_in_colour(sites, chosen)


def _points(curves: Mapping[str, tuple[Any, Any]]) -> Points:
    return [(name, float(x), float(y)) for name, axes in curves.items() for x, y in zip(*axes, strict=True)]


def calibrated(found: Found, chosen: Found, report: Report, looks: Looks, repeat: int | None = None) -> None:
    """Show what was predicted against what happened.

    The chosen ones are told in words, and one site is drawn with intervals.
    """
    st.markdown(_heading("Whether its probabilities hold", repeat))
    table([_holds(name, counts, report) for name, counts in chosen.items()])
    sites = [name for name, counts in found.items() if not is_together(name) and counts.rows >= LEAST_ROWS]
    together = [name for name in found if is_together(name)]
    label = f"Draw {together[0]}, and this site" if together else "Draw this site"
    picked = [run_page.choose_site(sites, label=label)] if sites else []
    groups = {name: of for name in [*together, *picked] if (of := calibration(found[name]))}
    lines = [
        {
            "Rows of": name,
            "Predicted, mean": group.predicted,
            "Predicted, at least": group.least,
            "Predicted, at most": group.most,
            "Observed share": group.observed,
            "95 % low": group.low,
            "95 % high": group.high,
            "Rows": group.rows,
        }
        for name, of in groups.items()
        for group in of
    ]
    title, said = (
        "Observed share against predicted probability, with 95 % CI",
        "; ".join(f"{name}: predictions hold in {_held(of)}" for name, of in groups.items()),
    )
    drawn = calibration_chart(lines, list(groups), looks)
    figure(st, title, drawn, lines, key="calibration", says=f"Calibration. {said}")
    st.caption(
        "On the dashed line the predictions hold; above it the model says too little, below it too much. "
        f"Each point is a group of at least {LEAST_ROWS} rows, and a larger one of more rows."
        + (STRETCHED if lines and is_stretched(lines) else "")
    )


def _holds(name: str, counts: ScoreCounts, report: Report) -> dict[str, str]:
    groups = calibration(counts)
    predicted = observed = ABSENT
    if counts.rows:
        (mean, least, most), (low, high) = counts.predicted, wilson(counts.events, counts.rows)
        # Groups of few rows each may hide what all rows together show.
        off = ", too high" if least > high else ", too low" if most < low else ""
        predicted = f"{number(mean)} ± {_rounded_up(max(mean - least, most - mean))}{off}"
        observed = f"{number(counts.events / counts.rows)} ({interval(low, high)})"
    few = f"fewer than {LEAST_ROWS} rows"
    return {
        "Rows of": name,
        "Predicted, mean": predicted,
        "Observed share": observed,
        "Predictions hold in": _held(groups) if groups else few,
        "Brier score (lower is better)": _of_rows(name, report, "brier_score_loss"),
    }


def _held(groups: Sequence[Group]) -> str:
    """Return in how many groups predictions hold.

    They hold where the prediction may be within the interval of what happened.
    """
    high, low = sum(group.too_high for group in groups), sum(group.too_low for group in groups)
    held = f"{len(groups) - high - low} of {len(groups)} groups"
    off = [f"too {how} in {many}" for how, many in (("high", high), ("low", low)) if many]
    return "; ".join([held, *off])


def how_to_read() -> None:
    """Explain the curves in plain words, folded away."""
    with st.expander("How to read these curves"):
        st.markdown(HOW_TO_READ)
