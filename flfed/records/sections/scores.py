"""Sections on the scores of test rows: how well the shared model ranks, and within which groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flfed.records.charts.colours import Looks
from flfed.records.charts.curves import precision_chart, roc_chart
from flfed.records.objects import read
from flfed.records.section import Drawing, Section, Table
from flfed.records.statistics import Report
from flfed.records.statistics.score_curves import (
    LEAST_ROWS,
    ScoreCounts,
    average_precision,
    precision_recall,
    roc,
    roc_auc,
    thinned,
)
from flfed.records.statistics.score_tables import (
    ALL,
    AREAS_READ,
    GROUPS_READ,
    Found,
    Subgroups,
    area_line,
    grouped_columns,
    grouped_lines,
    is_together,
)
from flfed.records.statistics.verdict import number


def ranking(found: Found, shown: Found, looks: Looks, report: Report, *, lead: Sequence[str] = ()) -> Section:
    """Return how well the shared model ranks: curves and the areas below them.

    Parameters
    ----------
    found : dict of name to ScoreCounts
        Those of the table.
    shown : dict of name to ScoreCounts
        Those of the charts, drawn in this order.
    looks : mapping of site to colour and dash
    report : dict
        Of the repeat that the counts are of.
    lead : sequence of str
    """
    areas = "; ".join(f"{name}: AUC {number(roc_auc(counts))}" for name, counts in shown.items())
    means = "; ".join(f"{name}: average precision {number(average_precision(of))}" for name, of in shown.items())

    charts = [
        Drawing(
            title="ROC curve (up and to the left is better)",
            draw=lambda: roc_chart(shown, looks),
            key="roc",
            says=f"ROC curve. {areas}",
            lines=_curve_lines(shown, lambda of: thinned(*roc(of)), "False positive rate", "True positive rate"),
        ),
        Drawing(
            title="Precision and recall (up and right is better)",
            draw=lambda: precision_chart(shown, looks),
            key="precision-recall",
            says=f"Precision and recall. {means}",
            # The table has every threshold, the chart only the points that change its picture.
            lines=_curve_lines(shown, precision_recall, "Recall", "Precision"),
        ),
    ]
    return Section(
        title="How well it ranks",
        lead=tuple(lead),
        charts=tuple(charts) if shown else (),
        tables=(Table(lines=[area_line(name, counts, report) for name, counts in found.items()]),),
        note=(AREAS_READ, *_about_areas(found)),
    )


def _curve_lines(found: Found, curve: Callable[[ScoreCounts], tuple[Any, Any]], x: str, y: str) -> list[dict[str, Any]]:
    """Return the points of curves as lines of a table."""
    lines = []
    for name, counts in found.items():
        for across, up in zip(*curve(counts), strict=True):
            lines.append({"Rows of": name, x: float(across), y: float(up)})
    return lines


def _about_areas(found: Found) -> list[str]:
    """Return which curves are not drawn, are of some sites, or say little."""
    said = []
    one_class = sorted(name for name, counts in found.items() if not counts.has_both)
    if one_class:
        said.append(f"Not drawn, as all rows are of one class: {', '.join(one_class)}.")
    # The record's figure over all sites is of other rows than a curve of some of them.
    part = [name for name in found if is_together(name) and name != ALL]
    if part:
        said.append(
            f"The figures from rows are of all sites together, not of {part[0]}: they do not stand beside these."
        )
    # A curve is as rough as the rows of its rarer class are few.
    rarer = {name: min(counts.events, counts.rows - counts.events) for name, counts in found.items()}
    few = ", ".join(f"{name} ({rows})" for name, rows in rarer.items() if rows < LEAST_ROWS)
    if few:
        said.append(f"Curves that say little, of fewer than {LEAST_ROWS} rows of the rarer class: {few}.")
    return said


def within_groups(
    payload: Mapping[str, Any] | None, *, only: str | None = None, note: Sequence[str] = ()
) -> Section | None:
    """Return how well the shared model ranks within the groups that a study names, None where it names none.

    Parameters
    ----------
    payload : dict or None
        The object "subgroups" of a run.
    only : str, optional
        The one site whose people read it.
    note : sequence of str
        What is said before how to read it.
    """
    if payload is None:
        return None
    found = read(Subgroups, payload)
    if not found.sites:
        return None
    tables = [
        Table(
            title=f"By {column}: AUC of the shared model (95 % CI)",
            lines=grouped_lines(found, column),
            of_groups=True,
        )
        for column in grouped_columns(found)
    ]
    return Section(
        title="How well it ranks within groups",
        tables=tuple(tables),
        note=(*note, *_held_back(found, only), GROUPS_READ),
    )


def _held_back(found: Subgroups, only: str | None) -> list[str]:
    """Return how many figures are held back, and how many sites gave none."""
    held = sum(of.value is None for of in found.every)
    verb = "is" if held == 1 else "are"
    told = [f"Of {len(found.every)} figures {held} {verb} held back or undefined, as the cell says."]
    silent = found.asked - len(found.sites)
    if silent > 0 and only is None:
        told.append(f"Of {found.asked} sites {silent} gave no figures of their own by group.")
    return told
