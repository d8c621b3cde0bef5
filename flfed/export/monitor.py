"""Monitoring of a model in use: how far a table has moved from the training rows, at home."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import expit, logit

from flfed.export.model_folder import SharedModel
from flfed.export.predict import person_codes
from flfed.export.predictions import Predictions
from flfed.export.references import References
from flfed.records.statistics.verdict import decimals_beside, decimals_of, number
from flfed.records.store.tables import finite
from flfed.rows.features.encode import ColumnArrays, coded
from flfed.summaries.stability import LEAST_ROWS, Movement, Reference, measure_movement
from flfed.summaries.summary import ColumnLayout
from flfed.words import render, usage_error

MISSING = "missing"
MEAN = "mean"
LONGEST = 40
"""Characters of a group's name."""


@dataclass(frozen=True, kw_only=True)
class Monitored:
    """Comparison of one column, or of the score, with the training rows.

    Attributes
    ----------
    name : str
        "" is the score.
    movement : Movement or None
        None where nothing is compared.
    group : str
        Name of the group that moved most, "" where nothing is compared.
    missing : float
        Share of rows without a value.
    missing_before : float or None
        That of the training rows; None where it is not known.
    is_rare : bool
        Whether that is only the largest share that it can be.
    reason : str
        Why nothing is compared.
    is_mean : bool
        Whether the mean of a number moved most: `movement` then has the means, of a logarithmic column the geometric
        ones.
    is_about : bool
        Whether a mean of the training rows comes from groups of bins.
    """

    name: str
    movement: Movement | None
    group: str
    missing: float
    missing_before: float | None
    is_rare: bool
    reason: str
    is_mean: bool = False
    is_about: bool = False

    @property
    def is_alarm(self) -> bool:
        """Whether it moved beyond the bound."""
        return self.movement is not None and self.movement.is_alarm

    @property
    def title(self) -> str:
        """Name for people."""
        return self.name or render("export.monitor.score")

    def as_line(self) -> list[str]:
        """Return the cells of a table for people."""
        movement = self.movement
        index = bound = moved = before = ""
        if movement is not None:
            index, bound = _format_index(movement)
            form = number if self.is_mean else format_share
            facts = {"now": form(movement.now), "before": form(movement.before), "group": self.group}
            key = "moved" if self.name else "scored"
            if self.is_mean and self.is_about:
                key = "about"
            moved = render(f"export.monitor.{key}", **facts)
        if self.missing_before is not None:
            before = format_share(self.missing_before)
            if self.is_rare:
                before = render("export.monitor.rare", share=before)
        alarm = "yes" if self.is_alarm else ""
        return [self.title, index, bound, alarm, format_share(self.missing), before, moved]

    def as_object(self) -> dict[str, Any]:
        """Return the entry of `flfed monitor --json`."""
        movement = self.movement
        moved = index = bound = None
        if movement is not None:
            index = finite(movement.index)
            bound = movement.bound
            moved = {"group": self.group, "now": finite(movement.now), "training": movement.before}
        return {
            "psi": index,
            "alarm-above": bound,
            "alarm": self.is_alarm,
            "moved-most": moved,
            "missing": self.missing,
            "missing-in-training": self.missing_before,
            "missing-in-training-at-most": self.is_rare,
            "reason": self.reason or None,
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class Monitoring:
    """Comparison of a table with the training rows of a model.

    Attributes
    ----------
    columns : tuple of Monitored
        In the layout's order.
    score : Monitored
    rows : int
    training_rows : int
    sites, requested : int
        Sites in the groups of the score, and in the comparison.
    predictions : Predictions
        With figures and calibration on rows with an outcome.
    """

    columns: tuple[Monitored, ...]
    score: Monitored
    rows: int
    training_rows: int
    sites: int
    requested: int
    predictions: Predictions

    @property
    def alarms(self) -> list[Monitored]:
        """Score and columns that moved beyond their bounds."""
        return [one for one in (self.score, *self.columns) if one.is_alarm]

    def as_object(self) -> dict[str, Any]:
        """Return the results for `flfed monitor --json`."""
        return {
            "rows": self.rows,
            "training-rows": self.training_rows,
            "alarm": bool(self.alarms),
            "score": self.score.as_object(),
            "columns": {column.name: column.as_object() for column in self.columns},
            **self.predictions.measured(),
            "notes": list(self.predictions.notes),
        }

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return headers and lines of a table for people, alarms first, then as in the schema."""
        headers = ["column", "stability index", "alarm above", "alarm", "missing", "missing before", "largest change"]
        lines = [one.as_line() for one in (self.score, *self.columns)]
        return headers, sorted(lines, key=lambda line: not line[3])

    def describe(self) -> list[str]:
        """Return the result in sentences."""
        sentences = [render("export.monitor.calm")]
        if self.alarms:
            sentences = [render("export.monitor.alarm", named=", ".join(one.title for one in self.alarms))]
        sentences.append(render("export.monitor.rows", **vars(self)))
        for one in (self.score, *self.columns):
            if one.reason:
                sentences.append(render("export.monitor.absent", name=one.title, reason=one.reason))
        if not self.score.reason:
            sentences.append(render("export.monitor.score-rows", **vars(self)))
        return sentences


def monitor(model: SharedModel, predictions: Predictions) -> Monitoring:
    """Return how far the rows of predictions have moved from the model's training rows.

    Parameters
    ----------
    model : SharedModel
    predictions : Predictions
        Of this model.

    Raises
    ------
    UsageError
        If the model's folder has no groups of training rows.
    """
    references = model.references
    if references is None:
        raise usage_error("export.errors.unmonitored")
    table = predictions.table
    if model.study.encode.rows == "complete":
        # The model was trained on such rows alone, and predicts no others.
        table = table[~np.isnan(predictions.values).any(axis=1)]
    rows = coded(table, model.layout)
    tests = max(1, sum(not reference.reason for reference in (*references.columns, references.score)))
    independent = _independent_share(person_codes(model, table))
    columns = []
    for column, reference in zip(model.layout.features, references.columns, strict=True):
        counts = np.bincount(rows.codes[column.name], minlength=len(column.cells))
        mean = _mean(rows, column, reference)
        movement = measure_movement(reference, counts, mean, tests, independent)
        monitored = _monitored(reference, movement, counts, _name_cells(_values(column), movement))
        if movement is not None and reference.mean is not None and movement.cells == reference.groups[0].cells:
            # The mean of a number moved most, so the means stand in place of shares.
            means = np.array([reference.mean, mean])
            if column.transform == "log1p":
                means = np.expm1(means)
            moved = replace(movement, before=float(means[0]), now=float(means[1]))
            monitored = replace(monitored, movement=moved, group=MEAN, is_mean=True)
        columns.append(monitored)
    counts = _count_scores(references, predictions)
    movement = measure_movement(references.score, counts, np.nan, tests, independent)
    score = _monitored(references.score, movement, counts, _name_cells(expit(references.bins.points()[::2]), movement))
    return Monitoring(
        columns=tuple(columns),
        score=score,
        rows=rows.rows,
        training_rows=max((reference.rows for reference in references.columns), default=0),
        sites=references.sites,
        requested=references.requested,
        predictions=predictions,
    )


def _independent_share(persons: np.ndarray | None) -> float:
    """Return the least number of independent rows in a row: a person's rows may all be alike.

    Source: Kish 1965, "Survey sampling", effective sample size of clusters.
    """
    if persons is None:
        return 1.0
    sizes = np.bincount(persons).astype(float)
    return float(sizes.sum() / (sizes**2).sum())


def _mean(rows: ColumnArrays, column: ColumnLayout, reference: Reference) -> float:
    """Return the mean of a number's values after its transform; NaN where it is not compared or has no value."""
    if reference.mean is None:
        return np.nan
    values = rows.scaled(column)
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else np.nan


def _count_scores(references: References, predictions: Predictions) -> np.ndarray:
    """Return the rows with a prediction by bin of the score; the last bin would have those without one."""
    bins = references.bins
    probability = predictions.values[:, 0]
    probability = probability[~np.isnan(probability)]
    places = np.zeros(len(probability), int)
    # Only a target of two classes has groups of its score.
    if not references.score.reason:
        with np.errstate(divide="ignore"):
            places = bins.places(logit(probability))
    return np.bincount(places, minlength=bins.bins + 1)


def _monitored(reference: Reference, movement: Movement | None, counts: np.ndarray, group: str) -> Monitored:
    last = len(counts) - 1
    reason = render(f"export.unmonitored.{reference.reason}") if reference.reason else ""
    before = None
    if last in reference.rare:
        before = LEAST_ROWS / (reference.rows + LEAST_ROWS)
    for one in reference.groups:
        if one.cells == (last,):
            before = one.rows / reference.rows
    return Monitored(
        name=reference.column,
        movement=movement,
        group=group,
        missing=float(counts[last] / counts.sum()),
        missing_before=before,
        is_rare=last in reference.rare,
        reason=reason,
        is_about=reference.about,
    )


def _values(column: ColumnLayout) -> Sequence[str] | np.ndarray:
    """Return the names of a column's cells, or of a number the edges of its bins."""
    if column.kind != "number":
        return column.cells
    edges = np.array(column.edges)
    return np.expm1(edges) if column.transform == "log1p" else edges


def _name_cells(values: Sequence[str] | np.ndarray, movement: Movement | None) -> str:
    """Return the values of a group's cells in words; the last cell is of rows without a value."""
    if movement is None:
        return ""
    last = len(values) - 1
    cells = [cell for cell in movement.cells if cell != last]
    if isinstance(values, np.ndarray):
        names = [f"{_edge(values[low])} to {_edge(values[high + 1])}" for low, high in _runs(cells)]
    else:
        names = [values[cell] for cell in cells]
    if last in movement.cells:
        names.append(MISSING)
    text = ", ".join(names)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _edge(edge: float) -> str:
    return f"{edge:.4g}" if abs(edge) < 10_000 else number(edge)


def _runs(cells: list[int]) -> Iterator[tuple[int, int]]:
    """Yield the first and last of cells that follow each other."""
    start = 0
    for place in range(1, len(cells) + 1):
        if place == len(cells) or cells[place] != cells[place - 1] + 1:
            yield cells[start], cells[place - 1]
            start = place


def _format_index(movement: Movement) -> tuple[str, str]:
    """Return an index and its bound, with decimals that show which of them is larger."""
    index, bound = movement.index, movement.bound
    # Figures that differ by a unit of the last decimal read differently.
    decimals = decimals_beside([(index - bound) / 2], decimals_of(index, bound))
    return number(index, max(decimals, decimals_of(index))), number(bound, max(decimals, decimals_of(bound)))


def format_share(share: float) -> str:
    """Return a share in percent.

    Examples
    --------
    >>> format_share(0.1234), format_share(0.0004), format_share(0.0)
    ('12 %', '0.04 %', '0 %')
    """
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"
