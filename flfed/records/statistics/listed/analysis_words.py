"""Sentences of a recorded analysis: what it says, the figure first, and what it does not show."""

from __future__ import annotations

from collections.abc import Mapping

from flfed.errors import counted
from flfed.records.statistics.intervals import NORMAL_95
from flfed.records.statistics.listed.analysis import (
    NO_DIFFERENCE,
    NOT_TOLD,
    PERSON,
    Found,
    column_label,
    count_in_words,
    difference_of,
    differences,
    end_in_words,
    noise_of,
    parts_of,
    shows_of,
)
from flfed.records.statistics.verdict import number

MOST_RANGES = 6
"""Numbers whose ranges are named in the sentence; those of more stand in the table alone."""
FEW = 8
"""From so many differences on a reader is told that some exclude 0 by chance."""
MORE = "more than noise and chance would make"
LOST = "n/a: {figures} lost in the noise and not told. That is no 0: what is behind it is too little for this noise."
NOISE = (
    "Noise: each count has normal noise of deviation {deviation}, so that 95 % of the time it is within {reach} of the "
    "exact one{of_all}. A 95 % CI holds this noise and chance, what other people of the same kind would have given; "
    "that of a number of {unit}s, and ±, hold the noise alone."
)
CLIPPED = (
    "Mean, SD and quantiles are of values within the range that is named; farther ones are counted as its ends"
    "{ranges}. A quantile is read from the histogram: its interval has whole bins, and values are taken as spread "
    "evenly within one for the figure alone."
)
PERSONS = "Each person weighs one, shared over their rows; SD and quantiles are of rows so weighted."
IN_GROUP = (
    "Someone with one of five rows in a group counts there as a fifth, so this is not how many people ever were in it."
)
WITH_VALUE = (
    "Someone who has a value in one of five rows counts there as a fifth, so this is not how many people ever had it."
)
DISPLAYED = (
    "A share is of {unit}s whose value is known, of missing ones of all; each has noise of its own, so that they need "
    "not add up to 100 %. Counts in histograms and cross-tables are for display: none below 0, and adding up. Means, "
    "shares and tests are made of the counts as they came."
)
COMPARED = (
    "Groups are compared as they are: where people were not put into them by lot, they may differ otherwise, too."
)
NOT_SHOWN = (
    "All rows are counted, also those that other studies hold out: nothing was trained and nothing is predicted. Exact "
    "counts stay at the sites: outside they are known no closer than the noise allows, and to ask again with the same "
    "text gives the same numbers.{crossed}"
)
CROSSED = " Each site's own numbers crossed to the coordinator, with the noise on them."


def analysis_in_words(found: Found) -> list[str]:
    """Return what an analysis says, the figure first, and what it does not show."""
    unit, columns = found["counts-each"], found["columns"]
    by = f", also by {found['groups']['by']}" if "groups" in found else ""
    number_of, span = count_in_words(found["rows"]).split(" ", 1)
    sites = counted(found["sites"], "site")
    told = f"described by {counted(len(columns), 'column')}{by}; each figure has noise"
    first = f"{number_of} {unit}s {span} at {sites}, {told}."
    lost, ranges = _lost(found), _ranges(columns)
    figures = f"{lost} figure is" if lost == 1 else f"{lost} figures are"
    numbers = any("within" in of for of in columns.values())
    return [
        first,
        *_clear(found),
        *(_independence(of) for of in found["cross"]),
        *([LOST.format(figures=figures)] if lost else []),
        _noise(found),
        *([CLIPPED.format(ranges=ranges)] if numbers else []),
        *(_persons(found) if unit == PERSON else []),
        *([DISPLAYED.format(unit=unit)] if columns or found["cross"] else []),
        *([COMPARED] if "groups" in found else []),
        NOT_SHOWN.format(crossed=CROSSED if found["by-site"] else ""),
    ]


def _persons(found: Found) -> list[str]:
    """Return how a person with several rows is counted."""
    by_value = found["cross"] or any("shares" in of for of in found["columns"].values())
    return [PERSONS, *([IN_GROUP] if "groups" in found else [WITH_VALUE] if by_value else [])]


def _clear(found: Found) -> list[str]:
    """Return how many differences between groups are more than chance and noise would make, and how many are lost.

    Examples
    --------
    >>> none, clear = {"value": 0.0, "low": -1.0, "high": 1.0}, {"value": 2.0, "low": 1.0, "high": 3.0}
    >>> of = lambda *ones: _clear({"groups": {"compared": {"age": {"mean": dict(enumerate(ones))}}}})[0]
    >>> of(None, None, none)
    'Of 3 differences between groups 2 cannot be told; the other is not more than noise and chance would make.'
    >>> of(None, none, clear)
    'Of 3 differences between groups 1 cannot be told; of the other 2, 1 is more than noise and chance would make.'
    >>> of(None, None), of(None)
    ('None of the 2 differences between groups can be told.', 'The difference between groups cannot be told.')
    """
    if "groups" not in found:
        return []
    every = [shows_of(difference_of(one)) for *_, one in differences(found)]
    told = [shows for shows in every if shows != NOT_TOLD]
    clear, lost = sum(shows != NO_DIFFERENCE for shows in told), len(every) - len(told)
    if len(every) <= 1:
        end = "cannot be told" if lost else f"is {'' if clear else 'not '}{MORE}"
        return [f"The difference between groups {end}." for _ in every]
    if not told:
        return [f"None of the {len(every)} differences between groups can be told."]
    first = f"Of {len(every)} differences between groups"
    of_many = f"{clear} {'is' if clear == 1 else 'are'} {MORE}"
    many = " About one in twenty is so by chance alone." if len(told) >= FEW else ""
    if not lost:
        return [f"{first}, {of_many}.{many}"]
    rest = f"the other is {'' if clear else 'not '}{MORE}" if len(told) == 1 else f"of the other {len(told)}, {of_many}"
    return [f"{first} {lost} cannot be told; {rest}.{many}"]


def _independence(of: Found) -> str:
    """Return whether two columns have to do with each other."""
    first, second = of["columns"]
    test = of["independence"]
    if test is None:
        return f"Whether {first} and {second} go together cannot be told: too few of some value, for this noise."
    p = test["p"]
    clear = f"they go together {MORE}" if p < 0.05 else "no connection is shown"
    # Of what is too small for a number the next larger one is told.
    value = f"p = {p:.2g}" if p > 0 else "p < 1e-300"
    freedom = counted(test["degrees-of-freedom"], "degree") + " of freedom"
    return f"{first} and {second}: {clear} (χ² = {number(test['chi2'])}, {freedom}, {value})."


def _noise(found: Found) -> str:
    own, whole = found["deviation"], noise_of(found)
    of_all = ""
    if "groups" in found:
        of_all = (
            f"; of all {found['counts-each']}s, which are added up from the groups, {number(whole)} and "
            f"{number(NORMAL_95 * whole)}"
        )
    return NOISE.format(deviation=number(own), reach=number(NORMAL_95 * own), of_all=of_all, unit=found["counts-each"])


def _ranges(columns: Mapping[str, Found]) -> str:
    """Return the ranges of a few numbers, in brackets."""
    found = [
        f"{column_label(name, column)}: {' to '.join(map(end_in_words, column['within']))}"
        for name, column in columns.items()
        if "within" in column
    ]
    return f" ({'; '.join(found)})" if len(found) <= MOST_RANGES else ""


def _lost(found: Found) -> int:
    """Return how many figures of all sites are lost in the noise."""
    lost = 0
    for of, _ in parts_of(found).values():
        lost += "share" in of and of["share"] is None
        for column in of["columns"].values():
            single = [column["missing"], *(column[key] for key in ("mean", "sd") if key in column)]
            listed = [*column.get("shares", {}).values(), *column.get("quantiles", {}).values()]
            lost += sum(one is None for one in (*single, *listed))
    if "groups" in found:
        lost += sum(one is None for *_, one in differences(found))
    return lost
