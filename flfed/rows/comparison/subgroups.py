"""How well a model ranks within groups of one site's holdout.

Groups are the values of a category or flag, or bands of a number.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pandas as pd

from flfed.errors import unknown
from flfed.rows.data.policy import Policy
from flfed.rows.data.schema import Schema
from flfed.rows.evaluation.intervals import NAN, Estimate, estimate
from flfed.rows.evaluation.scoring import metrics_of, three_digits, too_few
from flfed.rows.features.encode import codes
from flfed.rows.features.summarise import layout_of
from flfed.rows.session import SiteSession
from flfed.seeds import generator
from flfed.summaries.score_bins import GroupFigure
from flfed.words import render, usage_error

METRIC = "roc_auc_score"
"""The one figure by group: from areas over a whole and its parts that over another part cannot be worked out."""
CUT = " at "
MOST_COLUMNS = 5
MOST_CUTS = 9


@dataclass(frozen=True)
class Grouping:
    """Groups by one column.

    Attributes
    ----------
    column : str
    labels : tuple of str
        One a group, in the schema's order or from low to high.
    cuts : tuple of float
        Where bands of a number begin, all but the lowest; none for a category or a flag.
    """

    column: str
    labels: tuple[str, ...]
    cuts: tuple[float, ...] = ()

    def of(self, table: pd.DataFrame, schema: Schema) -> np.ndarray:
        """Return each row's group, -1 where the value is missing."""
        if self.cuts:
            values = table[self.column].to_numpy(dtype=float, na_value=np.nan)
            return np.where(np.isnan(values), -1, np.searchsorted(self.cuts, values, side="right"))
        groups = codes(table[self.column], layout_of(schema, [self.column]).features[0])
        return np.where(groups == len(self.labels), -1, groups)


def groupings(by: Sequence[str], schema: Schema) -> list[Grouping]:
    """Return the groupings that `[compare] subgroups` names.

    Parameters
    ----------
    by : sequence of str
        A category's or flag's name, or a number's with where its bands begin: "age at 50, 65".
    schema : Schema

    Raises
    ------
    UsageError
        For a column that is unknown or cannot be grouped by, or cuts that are none.
    """
    if by and schema.task != "binary":
        raise usage_error("study.compare.task", task=schema.task)
    partitions = [_grouping(words, schema) for words in by]
    # Bands that overlap would give small ones between their ends.
    if len({one.column for one in partitions}) < len(partitions) or len(partitions) > MOST_COLUMNS:
        raise usage_error("study.compare.subgroups", by=list(by), most=MOST_COLUMNS)
    return partitions


def _grouping(words: str, schema: Schema) -> Grouping:
    column, cut, ends = words.partition(CUT)
    choices = [name for name, of in schema.columns.items() if of.kind in ("category", "flag", "number")]
    if column not in choices:
        raise unknown("[compare] subgroups: column", column, choices)
    kind = schema.columns[column].kind
    if kind != "number":
        if cut:
            raise usage_error("study.compare.values", by=words, column=column, kind=kind)
        groups = ("0", "1") if kind == "flag" else tuple(schema.columns[column].values)
        return Grouping(column, groups)
    return _bands(column, schema, words, ends)


def _bands(column: str, schema: Schema, words: str, ends: str) -> Grouping:
    """Return the bands of a number, from where they begin."""
    example = f'"{column}{CUT}50, 65"'
    try:
        cuts = tuple(float(end) for end in ends.split(","))
    except ValueError:
        raise usage_error("study.compare.bands", by=words, example=example) from None
    low, high = schema.columns[column].range or (-math.inf, math.inf)
    rising = all(a < b for a, b in zip((low, *cuts), (*cuts, high)))
    if not rising or len(cuts) > MOST_CUTS:
        raise usage_error("study.compare.rising", by=words, low=low, high=high, most=MOST_CUTS, example=example)
    between = [f"{a:g} to below {b:g}" for a, b in zip(cuts, cuts[1:])]
    return Grouping(column, (f"below {cuts[0]:g}", *between, f"{cuts[-1]:g} and above"), cuts)


def few_people(y: np.ndarray, person: np.ndarray, policy: Policy) -> str:
    """Return why no figure over some rows may leave, "" where rows and people of each class are enough.

    Parameters
    ----------
    y : int array [rows]
        Class codes.
    person : int array [rows]
        Whose each row is.
    policy : Policy
    """
    why = too_few(y, "binary", 2, policy)
    people = min(len(np.unique(person[y == label])) for label in (0, 1))
    if not why and not policy.is_open and people < policy.cell_minimum:
        return render("figures.withheld.class", n=policy.cell_minimum)
    return why


@dataclass(frozen=True, eq=False)
class GroupScores:
    """Scores of one model on a site's holdout, by group.

    Attributes
    ----------
    y : int array [rows]
        Class codes.
    score : array [rows]
    person : int array [rows]
        Whose each row is.
    policy : Policy
    draws : int
        Bootstrap resamples, where several rows are one person's.

    Guarantee: under disclosure "institution" a figure is over at least the cell minimum of rows, of as many persons, of
    each class. The site's rows outside all groups of a column whose figures leave, if there are any, are as many. No
    number of rows leaves with it, and it has three digits. Of any row such figures leave in one run alone, as exact
    counts do, which is not decided here.
    """

    y: np.ndarray
    score: np.ndarray
    person: np.ndarray
    policy: Policy
    draws: int

    def figures(self, grouping: Grouping, group: np.ndarray, rng: np.random.Generator) -> Iterator[GroupFigure]:
        """Yield each group's figure, as it may leave; `group` is each row's."""
        releasable = self._leaving(group, len(grouping.labels))
        for number, label in enumerate(grouping.labels):
            figure = self._estimate(group == number, rng) if number in releasable else self._withheld(group == number)
            numbers = (figure.value, figure.low, figure.high)
            value, low, high = numbers if self.policy.is_open else map(three_digits, numbers)
            yield GroupFigure(
                column=grouping.column, group=label, value=value, low=low, high=high, method=figure.method
            )

    def _leaving(self, group: np.ndarray, groups: int) -> set[int]:
        """Return the groups whose figures may leave."""
        releasable = {number for number in range(groups) if not self._small(group == number)}
        rest = ~np.isin(group, list(releasable))
        # The rest together must be large, too: else the smallest of the others stays with it.
        while releasable and rest.any() and self._small(rest):
            releasable.remove(min(releasable, key=lambda number: int((group == number).sum())))
            rest = ~np.isin(group, list(releasable))
        return releasable

    def _small(self, rows: np.ndarray) -> str:
        """Return why no figure over these rows may leave, or ""."""
        return few_people(self.y[rows], self.person[rows], self.policy)

    def _withheld(self, rows: np.ndarray) -> Estimate:
        why = self._small(rows) or render("figures.withheld.rest", n=self.policy.cell_minimum)
        return Estimate(NAN, NAN, NAN, NAN, f"withheld: {why}")

    def _estimate(self, rows: np.ndarray, rng: np.random.Generator) -> Estimate:
        person = self.person[rows]
        several = person if len(np.unique(person)) < len(person) else None
        metric = metrics_of("binary")[METRIC]
        return estimate(metric, self.y[rows], self.score[rows], rng, self.draws, groups=several)


def figures_by_group(
    session: SiteSession, table: pd.DataFrame, score: np.ndarray, person: np.ndarray
) -> list[GroupFigure]:
    """Return the figures by the columns that the study names, as they may leave; `person` is whose each row is."""
    study = session.study
    schema = session.schema
    if not study.compare.subgroups:
        return []
    scores = GroupScores(
        y=session.target(table),
        score=score,
        person=person,
        policy=session.policy,
        draws=study.compare.resamples,
    )
    rng = generator(session.seed, site=session.site.name, purpose="bootstrap")
    partitions = groupings(study.compare.subgroups, schema)
    return list(chain.from_iterable(scores.figures(one, one.of(table, schema), rng) for one in partitions))
