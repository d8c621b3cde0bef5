"""Score counts of a run in tables and sentences.

They say how well the shared model ranks, whether its probabilities hold, and why there is no curve.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flfed.records.statistics import Report
from flfed.records.statistics.listed.noised_scores import is_covered
from flfed.records.statistics.score_curves import (
    LEAST_ROWS,
    Group,
    ScoreCounts,
    average_precision,
    average_precision_hidden,
    calibration,
    roc_auc,
    roc_auc_hidden,
    wilson,
)
from flfed.records.statistics.verdict import ABSENT, interval, number
from flfed.records.store.entries import RunEntry, SiteEntry
from flfed.study.tables import in_sums_only
from flfed.summaries.score_bins import ScoreBins

TOGETHER = "sites together"
ALL = f"all {TOGETHER}"
SITES_DRAWN = 6
"""Sites drawn unless the reader picks others, beside all together."""
ONE_CLASS = "not defined: one class only"
NOT_COMPARABLE = "– (not comparable)"
KEY = 'outputs = ["score-histogram"]'
Found = dict[str, ScoreCounts]
NOT_SHOWN = (
    "Whether acting on a prediction helps anybody, where to draw the line between yes and no, and how the model will "
    "do next year or elsewhere. With few rows of a class a curve has few, large steps, and would look different with "
    "other rows: see the 95 % CIs."
)
"""What no curve shows."""
AREAS_READ = "Higher is better for both. In brackets: the 95 % CI. Behind ±: what the counting can hide."
CALIBRATION_READ = (
    "On the dashed line the predictions hold; above it the model says too little, below it too much. "
    f"Each point is a group of at least {LEAST_ROWS} rows, and a larger one of more rows."
)
STRETCHED = " Both axes are stretched towards 0 (by the cube root), where most predictions lie."
APART = "intervals do not meet"
GROUPS_READ = (
    "Within a group the AUC compares its rows with one another only. Small groups have wide intervals: of many "
    "groups some differ by chance. A group that a site's policy holds back has its reason in place of the figure."
)


NOT_SCORED_YET = "Test rows are counted by score after the last round, with noise."
NOT_SCORED = "This run ended before its test rows were counted by score."
"""Where all that leaves is charged."""


def is_together(name: str) -> bool:
    """Tell whether a curve is of several sites.

    No site has a name of several words.

    Examples
    --------
    >>> is_together("2 of 4 sites together"), is_together("long-beach")
    (True, False)
    """
    return name.endswith(f" {TOGETHER}")


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


def drawn_first(found: Found) -> list[str]:
    """Return the sites to draw, those of most rows, by name."""
    sites = [name for name in found if not is_together(name)]
    return sorted(sorted(sites, key=lambda site: -found[site].rows)[:SITES_DRAWN])


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
    hidden = [site.site for site in without if in_sums_only(site.shared_as)]
    silent = [site.site for site in without if not in_sums_only(site.shared_as)]
    if silent:
        lines.append(f"No curve of {_names(silent)}: no counts of predictions came. Its policy.toml has to name {KEY}.")
    if hidden:
        lines.append(f"No curve of {_names(hidden)}, as figures of its own are not shared.")
    return lines


def _names(sites: Sequence[str]) -> str:
    return ", ".join(sites) if len(sites) <= SITES_DRAWN else f"{len(sites)} sites"


def one_repeat_alone(repeat: int, repeats: int) -> str:
    """Return which repeat curves are of, and why they are of one alone."""
    return (
        f"**Repeat {repeat} of {repeats} alone**: the holdouts of repeats have rows in common, so their curves are not "
        "added up."
    )


def says_which_repeat(repeat: int, repeats: int) -> str:
    """Return which repeat the page's figures are of.

    The record has several, and the sentence says why one alone is shown.
    """
    return f"**Repeat {repeat} of {repeats} alone**; others: in the margin. Overview and Sites show means."


def area_line(name: str, counts: ScoreCounts, report: Report) -> dict[str, str]:
    """Return the areas under the curves of some rows, for a table."""
    return {
        "Rows of": name,
        "Test rows": f"{counts.rows}",
        "With the outcome": f"{counts.events} ({percent_of(counts.events, counts.rows)} %)",
        "AUC, from rows": _of_rows(name, report, "roc_auc_score"),
        "AUC, of the curve": _of_curve(counts, roc_auc, roc_auc_hidden),
        "Average precision, from rows": _of_rows(name, report, "average_precision_score"),
        "Average precision, of the curve": _of_curve(counts, average_precision, average_precision_hidden),
    }


def percent_of(events: int, rows: int) -> str:
    """Return a share in percent.

    It has a decimal where it is small, and is "under 0.1" where even that says nothing.

    Examples
    --------
    >>> percent_of(14, 3675), percent_of(85, 156), percent_of(1, 3675), percent_of(0, 40)
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


def calibration_line(name: str, counts: ScoreCounts, report: Report) -> dict[str, str]:
    """Return how far predictions hold on some rows, for a table."""
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
        "Predictions hold in": held_in_words(groups) if groups else few,
        "Brier score (lower is better)": _of_rows(name, report, "brier_score_loss"),
    }


def held_in_words(groups: Sequence[Group]) -> str:
    """Return in how many groups predictions hold.

    They hold where the prediction may be within the interval of what happened.
    """
    high, low = sum(group.too_high for group in groups), sum(group.too_low for group in groups)
    held = f"{len(groups) - high - low} of {len(groups)} groups"
    off = [f"too {how} in {many}" for how, many in (("high", high), ("low", low)) if many]
    return "; ".join([held, *off])


def group_lines(groups: Mapping[str, Sequence[Group]]) -> list[dict[str, Any]]:
    """Return the calibration groups of a chart, a line each."""
    return [
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


def no_curves_in_words(run: RunEntry, found: Report, sites: Sequence[SiteEntry]) -> str:
    """Return why a run has no curves, and what to do.

    Parameters
    ----------
    run : RunEntry
        The first repeat.
    found : dict
        The report as the reader may see it: of all sites together, or of one site.
    sites : sequence of SiteEntry
        Of the run.
    """
    if run.task != "binary":
        kind = {"regression": "a number", "multi-class": "one of several classes"}
        return (
            "Curves of this kind are for outcomes that are yes or no; that of this study is "
            f"{kind.get(run.task, run.task.replace('-', ' '))}."
        )
    if is_covered(found):
        return NOT_SCORED_YET if run.status == "running" else NOT_SCORED
    if not (found["global"] or any(site["global"] for site in found["sites"].values())):
        if run.status == "running":
            return "The curves come with the comparison on test rows, after the last round."
        return "This run ended before its model was compared on test rows, so there are no curves."
    return (
        "No site gave the counts of its predictions by class, from which curves are drawn. A site that agrees to "
        f"give them says so in its policy.toml: `{KEY}`; then run the study again."
    )


@dataclass(frozen=True)
class GroupFigure:
    """Area under the ROC curve within a group; None where it is undefined or withheld, as `method` says."""

    column: str
    group: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    method: str | None = ""


@dataclass(frozen=True)
class Subgroups:
    """The object "subgroups" of a run: the figures of each site, and how many sites were asked."""

    sites: dict[str, list[GroupFigure]]
    asked: int = 0

    @property
    def every(self) -> list[GroupFigure]:
        """The figures of all sites."""
        return [of for groups in self.sites.values() for of in groups]


def grouped_columns(found: Subgroups) -> list[str]:
    """Return the columns by which a run was looked at group by group."""
    return list(dict.fromkeys(of.column for of in found.every))


def grouped_lines(found: Subgroups, column: str) -> list[dict[str, str]]:
    """Return the AUC within the groups of a column, a line a site.

    Parameters
    ----------
    found : Subgroups
    column : str
        One of `grouped_columns`.
    """
    return [_grouped_line(site, column, found.sites[site]) for site in sorted(found.sites)]


def _grouped_line(site: str, column: str, groups: Sequence[GroupFigure]) -> dict[str, str]:
    own = [of for of in groups if of.column == column]
    known = [of for of in own if of.low is not None]
    lowest = min((of.high for of in known if of.high is not None), default=None)
    apart = [of for of in known if lowest is not None and of.low is not None and of.low > lowest]
    line = {"Rows of": site} | {of.group: _of_group(of) for of in own}
    # Said in words, since a reader compares many cells otherwise.
    clear = "none" if len(known) > 1 else ABSENT
    return line | {"Clear difference": APART if apart else clear}


def _of_group(of: GroupFigure) -> str:
    if of.value is None:
        return of.method or ABSENT
    span = f" ({interval(of.low, of.high)})" if of.low is not None else ""
    return number(of.value) + span


def ranks_in_words(found: Report) -> list[str]:
    """Return how well the shared model puts rows of one date in order, where the study asks for it.

    Examples
    --------
    >>> [said] = ranks_in_words({"global": {"rank_correlation": {"value": 0.02, "low": -0.06, "high": 0.11}}})
    >>> said.endswith(f" .020 with what came (95 % CI {chr(8722)}.060 to +.110): no skill is shown.")
    True
    >>> ranks_in_words({"global": {}})
    []
    """
    entry = found["global"].get("rank_correlation")
    if entry is None or entry["value"] is None:
        return []
    low, high = entry["low"], entry["high"]
    start = f"Among rows of one date its order has a mean rank correlation of {number(entry['value'])} with what came"
    if low is None or high is None:
        return [f"{start}."]
    said = "better than chance would" if low > 0 else "worse than chance would" if high < 0 else "no skill is shown"
    return [f"{start} (95 % CI {interval(low, high, signed=True)}): {said}."]
