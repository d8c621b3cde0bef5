"""The federated Table 1, from merged sums.

It describes the people in the data. Suppressed cells are marked.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain

import numpy as np

from flfed.summaries.summary import ColumnLayout, Layout, Summary, merge

SUPPRESSED = "suppressed"
ALL = "All sites"
ABOUT = "about"
NO_DEVIATION = "–"
CONSTANT = 1e-12
"""Share of the second moment up to which a variance is rounding, as the encoder takes it: every value is the same."""
EXPLAINED = {
    "suppressed": (
        "*suppressed*: not released under the site's policy. It, or another cell that it would give away, is small; it "
        "may itself be large, and it does not stand for 0."
    ),
    "at least": "*at least*: some of it is not released.",
    "SD": "*SD*: standard deviation, how far rows usually lie from their mean.",
    "± –": "± –: a single row has no deviation.",
    "geometric mean": "*geometric mean*: an average of amounts that a few large ones do not distort.",
    "%)": "A share is that of the rows with a value; of missing rows, of all rows.",
    "about ": (
        "*about*: from groups of bins, which stand in for the values that the site's policy does not release; as a "
        "share: a few of the rows may have no value."
    ),
}
"""Words of Table 1 that are explained below it, each with its sentence."""


def table_one(layout: Layout, sites: Mapping[str, Sequence[Summary]]) -> list[dict[str, str]]:
    """Return Table 1 as lines of text.

    Each has a characteristic, all sites together, and each site.

    Parameters
    ----------
    layout : Layout
    sites : dict of site to its summaries
        Over disjoint rows, such as training and holdout; they are added.

    Notes
    -----
    A number is given as mean ± standard deviation (its divisor is one less than the rows) of the rows
    that have one: three digits of the deviation, and the mean to its last digit. One row has no
    deviation, "–". An amount with transform "log1p" is given as
    geometric mean (of the amount plus one, minus one), to four digits. "about" stands before a mean
    that comes from groups of bins, as where a site's disclosure is "institution"; it has two digits
    of the deviation, or two of a geometric mean. A mean that lacks sites says over how
    many it is; one that lacks some summary of a site, "not all rows". A count of a value has its
    share of the rows with a value ("about", where their number is suppressed), one of
    missing rows that of all rows. A count of which a site kept its part back is "at least"; where
    all that is not 0 was suppressed, "suppressed".
    """
    merged = {site: merge(parts) for site, parts in sites.items()}
    columns = {ALL: merge(list(chain.from_iterable(sites.values()))), **merged}
    lines = [{"Characteristic": "Rows"} | {name: f"{summary.rows[0]:,.0f}" for name, summary in columns.items()}]
    for number, column, place in layout.places():
        label = ", ".join(filter(None, (column.name, column.unit)))
        if column.kind == "number":
            cells = _means(column, number, place, sites, columns)
            what = "geometric mean" if column.transform == "log1p" else "mean ± SD"
            lines.append({"Characteristic": f"{label} ({what})"} | cells)
        else:
            last = None if column is layout.target else place.stop - 1
            lines += _values(column, label, place.start, last, columns)
        if column is layout.target:
            continue  # A row without an outcome is refused, so none is missing.
        missing = {name: _count(summary, place.stop - 1) for name, summary in columns.items()}
        # A line of missing values stands only where some site has any, or keeps the count back.
        if set(missing.values()) != {"0 (0 %)"}:
            lines.append({"Characteristic": f"{label}: missing"} | missing)
    return lines


def _values(
    column: ColumnLayout, label: str, start: int, last: int | None, columns: Mapping[str, Summary]
) -> Iterator[dict[str, str]]:
    """Yield a line for each value of a category, with its rows."""
    for offset, value in enumerate(column.cells[:-1]):
        cells = {name: _count(summary, start + offset, last) for name, summary in columns.items()}
        yield {"Characteristic": f"{label}: {value}"} | cells


def _means(
    column: ColumnLayout,
    number: int,
    place: slice,
    sites: Mapping[str, Sequence[Summary]],
    columns: Mapping[str, Summary],
) -> dict[str, str]:
    """Return the mean of a number at all sites and at each, and how many sites or rows it lacks."""
    grouped = {site: in_groups(column, parts, number, place) for site, parts in sites.items()}
    grouped[ALL] = any(grouped.values())
    cells = {name: _mean(column, summary, number, grouped[name]) for name, summary in columns.items()}
    # The number of missing sites stands with the mean of all sites, missing rows of a site with that site.
    giving = sum(columns[site].moments_known[number] > 0 for site in sites)
    lacking = 0 < giving < len(sites)
    if lacking:
        cells[ALL] += f" ({giving} of {len(sites)} sites)"
    for name, summary in columns.items():
        partly = 0 < summary.moments_known[number] < summary.sites[0]
        if partly and (name != ALL or not lacking):
            cells[name] += " (not all rows)"
    return cells


def in_groups(column: ColumnLayout, summaries: Sequence[Summary], number: int, place: slice) -> bool:
    """Return whether a number's mean comes from groups of bins.

    The mean and deviation of a site come from groups of bins, or from its rows.

    Parameters
    ----------
    column : ColumnLayout
    summaries : sequence of Summary
        Of one site.
    number, place : int, slice
        The column's place among the moments and among the cells.

    Notes
    -----
    A site that groups bins keeps some cell back: 0 counts as small. Only where each bin has
    many rows does it give them all; its sums are then those of the middles of the bins.
    """
    # Bins have their middles at even distances, in the units of the moments.
    middles = np.linspace(-1, 1, 2 * len(column.cells) - 1)[1::2]
    for summary in summaries:
        counts = summary.cells[place]
        sums = summary.moments[number]
        if summary.moments_known[number] and (summary.cells_known[place] < summary.sites[0]).any():
            return True
        if counts.all() and np.allclose(sums[1:], [counts[:-1] @ middles, counts[:-1] @ middles**2], rtol=1e-9):
            return True
    return False


def _geometric_mean(center: float, grouped: bool) -> str:
    amount = math.expm1(center)
    return f"{ABOUT} {digits(amount, 2)}" if grouped else digits(amount, 4)


def _mean(column: ColumnLayout, summary: Summary, number: int, grouped: bool) -> str:
    count, total, squares = summary.moments[number]
    if not summary.moments_known[number]:
        return SUPPRESSED
    if count <= 0:
        return "none"
    mean = total / count
    center = column.middle + column.half * mean
    if column.transform == "log1p":
        return _geometric_mean(center, grouped)
    variance = squares / count - mean**2
    # A variance within rounding of 0 would have digits that mean nothing.
    if count == 1 or variance <= CONSTANT * squares / count:
        if abs(center) <= CONSTANT * column.half:
            center = 0.0
        spread = NO_DEVIATION if count == 1 else "0"
        text = f"{digits(center, 4)} ± {spread}"
    else:
        deviation = math.sqrt(variance * count / (count - 1)) * column.half
        figures = 2 if grouped else 3
        place = _place(deviation, figures)
        text = f"{_to_place(center, place)} ± {_to_place(deviation, place)}"
    return f"{ABOUT} {text}" if grouped else text


def _count(summary: Summary, cell: int, missing: int | None = None) -> str:
    """Return a count and its share, or a bound.

    The share is of the rows with a value, or of all rows if `missing` is None.

    `missing` is the cell of the rows without a value.
    """
    count = summary.cells[cell] + summary.lower[cell]
    if summary.cells_known[cell] < summary.sites[0]:
        return f"at least {count:,.0f}" if count else SUPPRESSED
    rows = summary.rows[0]
    if missing is not None:
        rows = rows - summary.cells[missing]
    about = f"{ABOUT} " if missing is not None and summary.cells_known[missing] < summary.sites[0] else ""
    return f"{count:,.0f} ({about}{percent(count, rows)} %)"


def percent(count: float, rows: float) -> str:
    """Return a share in whole percent.

    One that is neither none nor all is never shown as 0 or 100.

    Examples
    --------
    >>> percent(5, 48), percent(2, 30000), percent(29998, 30000), percent(0, 7), percent(0, 0)
    ('10', '<1', '>99', '0', '0')
    """
    text = f"{100 * count / rows:.0f}" if rows else "0"
    return {"0": "<1", "100": ">99"}.get(text, text) if 0 < count < rows else text


def digits(value: float, significant: int) -> str:
    """Return a figure to so many digits.

    It has no power of ten, and each digit is shown, be it 0.

    Examples
    --------
    >>> digits(12921.3, 4), digits(0.00264, 2), digits(50.0, 4), digits(0.0, 3), digits(-1.26, 2)
    ('12,920', '0.0026', '50.00', '0', '-1.3')
    """
    return _to_place(value, _place(value, significant))


def _place(value: float, significant: int) -> int:
    """Return the decimals that so many digits have.

    They are of `value`, and below 0 for tens, hundreds and so on.
    """
    # The power of ten once it is rounded: 9.996 to three digits is 10.0.
    if value:
        return significant - 1 - int(f"{value:.{significant - 1}e}".partition("e")[2])
    return 0


def _to_place(value: float, place: int) -> str:
    return f"{round(float(value), place) + 0.0:,.{max(place, 0)}f}"  # not -0


def explained(cells: Iterable[str]) -> list[str]:
    """Return the meanings of the words in the cells of a Table 1.

    What stands between asterisks is the word itself.

    Examples
    --------
    >>> explained(["at least 5"]), explained(["5", "none"])
    (['*at least*: some of it is not released.'], [])
    """
    text = "\n".join(cells)
    return [sentence for word, sentence in EXPLAINED.items() if word in text]
