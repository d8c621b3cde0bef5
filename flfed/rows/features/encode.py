"""Encoding of mapped rows as the model's inputs.

Columns are read out of pandas once, as arrays, for several sums and inputs. The encoder is shared by all sites.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from flfed.summaries.summary import Arrays, ColumnLayout, Encoder, Layout

# number    age      ──►  (x - center) / scale, 0 where missing  │ 1 where missing  (if any site lacks one)
# category  colour   ──►  one column a value that a site has     │ 1 where missing
# target    outcome  ──►  class codes, or a number divided by its unit
#
# center, scale and the values come from the merged sums of all sites (or from the schema), so that column j means the
# same at every site; which columns there are is the layout, known before any row is read.

LARGE = 10_000
"""Rows from which on codes are computed for distinct values, and bins by a division."""
AT_ONCE = 4096
"""Rows that are encoded at a time: their inputs stay in the processor's cache."""
LATEST = 0.25
"""Share of a site's training rows, the latest, by which models are chosen under a holdout by time."""
MOST_ROWS = 20_000
"""Rows of a site on which settings of a model are chosen, at most; the model is fitted on all."""
SIDE_BY_SIDE = 100_000
"""Most training rows whose models are fitted side by side; with more, the inputs of each would be held at once."""
LEAST_OF_A_CLASS = 9
"""Rows of each class that a sample has at least, or all: three for each of three folds."""


def codes(cells: pd.Series, layout: ColumnLayout) -> np.ndarray:
    """Return the code of each row's cell.

    It is the index into `layout.cells`; int [rows].
    """
    missing = len(layout.cells) - 1
    if layout.kind == "number":
        # The highest bin includes its upper edge; what lies outside of the range goes into the nearest bin.
        values = _scaled(cells.to_numpy(dtype=float), layout)
        return np.where(np.isnan(values), missing, _bins(values, np.array(layout.edges)))
    if layout.kind == "flag":
        values = cells.to_numpy() if cells.dtype == float else cells.to_numpy(dtype=float, na_value=np.nan)
        return np.where(np.isnan(values), missing, values).astype(int)
    # A dictionary: in small tables an index of pandas costs five times as much.
    place = {value: code for code, value in enumerate(layout.cells[:-1])}
    if len(cells) < LARGE:
        return np.array([place.get(cell, missing) for cell in cells.tolist()], dtype=int)
    places, texts = pd.factorize(cells)
    return np.array([*(place.get(text, missing) for text in texts), missing], dtype=int)[places]


def _bins(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return the bin of each number [rows]; any bin of NaN.

    Bins are evenly wide and include their lower edge.
    """
    last = len(edges) - 2
    if len(values) < LARGE:
        return np.asarray(np.clip(np.searchsorted(edges, values, side="right") - 1, 0, last))
    # The division may be off by one beside an edge.
    inside = np.clip(np.nan_to_num(values), edges[0], edges[-1])
    share = (inside - edges[0]) / (edges[-1] - edges[0])
    near = np.minimum((share * (last + 1)).astype(np.int64), last)
    near -= inside < edges[near]
    near += inside >= edges[near + 1]
    return np.asarray(np.clip(near, 0, last))


def _scaled(values: np.ndarray, column: ColumnLayout) -> np.ndarray:
    return np.log1p(values) if column.transform == "log1p" else values


@dataclass(frozen=True, eq=False)
class ColumnArrays:
    """Columns of a table as arrays.

    Cells are by code in a layout, numbers as they are.

    Attributes
    ----------
    rows : int
    codes : dict of column to uint8 or wider array [rows]
        Index of each row's cell in the column's `cells`; the last is "missing".
    values : dict of column to float64 array [rows]
        Of number columns, before the transform; NaN where missing.
    """

    rows: int
    codes: Arrays
    values: Arrays

    def take(self, rows: np.ndarray) -> ColumnArrays:
        """Return the rows of a mask or of indices."""
        # A mask would be counted anew for each column.
        if isinstance(rows, np.ndarray) and rows.dtype == bool:
            rows = np.flatnonzero(rows)
        codes = {name: of[rows] for name, of in self.codes.items()}
        values = {name: of[rows] for name, of in self.values.items()}
        return ColumnArrays(len(np.arange(self.rows)[rows]), codes, values)

    def scaled(self, column: ColumnLayout) -> np.ndarray:
        """Return a number column after its transform.

        It is float64 [rows], NaN where missing.
        """
        return _scaled(self.values[column.name], column)


def coded(table: pd.DataFrame | ColumnArrays, layout: Layout, *, binned: bool = True) -> ColumnArrays:
    """Extract a layout's columns from a table.

    `ColumnArrays` are returned as they are. Rows that are not `binned` are for inputs alone, which need no bins.
    """
    if isinstance(table, ColumnArrays):
        return table
    # pandas keeps a Series of each column that is asked for, as much memory as the rows: with a copy, it goes.
    table = table.copy(deep=False)
    values = {c.name: table[c.name].to_numpy(dtype=float) for c in layout.columns if c.kind == "number"}
    cell_codes = {}
    for column in layout.columns:
        if binned or column.kind != "number":
            own = codes(table[column.name], column)
        elif layout.missing_indicator:
            own = np.where(np.isnan(values[column.name]), len(column.cells) - 1, 0)
        else:
            continue
        # Small codes: they may be kept beside the table of each of many sites.
        cell_codes[column.name] = own.astype(np.min_scalar_type(len(column.cells)))
    return ColumnArrays(len(table), cell_codes, values)


def joined(parts: Sequence[ColumnArrays]) -> ColumnArrays:
    """Return the rows of all parts as one."""
    codes = {}
    for name in parts[0].codes:
        codes[name] = np.concatenate([part.codes[name] for part in parts])
    values = {}
    for name in parts[0].values:
        values[name] = np.concatenate([part.values[name] for part in parts])
    return ColumnArrays(sum(part.rows for part in parts), codes, values)


@dataclass(frozen=True, eq=False)
class Encoded:
    """Rows ready for a model.

    Attributes
    ----------
    x : float64 array [rows, inputs]
    y : array [rows]
        Class codes (int64), or the encoded target of a regression (float64).
    weight : float64 array [rows]
        What each row counts in the training loss; ones without class weights.
    group : int array [rows] or None
        Code of each row's patient or customer; None where each row is its own.
    elapsed : float array [rows] or None
        Share of the site's training rows that are of earlier blocks of time, in [0, 1); None where the site holds out
        rows at random.
    sites : int
        Whose rows these are together.
    counts : float array [rows] or float
        How many rows of the source each stands for when models are chosen between: more than 1 of a sample beside
        which others are there for their outcome.
    """

    x: np.ndarray
    y: np.ndarray
    weight: np.ndarray
    group: np.ndarray | None = None
    elapsed: np.ndarray | None = None
    sites: int = 1
    counts: np.ndarray | float = 1.0

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.y)

    def take(self, rows: np.ndarray | slice) -> Encoded:
        """Return the rows of a mask or of indices."""
        group = None if self.group is None else self.group[rows]
        elapsed = None if self.elapsed is None else self.elapsed[rows]
        counts = self.counts[rows] if isinstance(self.counts, np.ndarray) else self.counts
        return Encoded(self.x[rows], self.y[rows], self.weight[rows], group, elapsed, self.sites, counts)

    def split(self, apart: np.ndarray) -> tuple[Encoded, Encoded]:
        """Return the rows outside a mask and those inside; the first have the memory of all, which are no more."""
        inside = self.take(apart)
        outside = replace(self, x=np.empty((len(self), 0))).take(~apart)
        filled = 0
        for start in range(0, len(self), AT_ONCE):
            stop = start + AT_ONCE
            block = self.x[start:stop][~apart[start:stop]]
            self.x[filled : filled + len(block)] = block
            filled += len(block)
        return replace(outside, x=self.x[:filled]), inside

    def sample(self, most: int, rng: np.random.Generator) -> np.ndarray | slice:
        """Return the places of `most` rows drawn at random, in their order; all where there are no more.

        Classes keep their shares, the rarest `LEAST_OF_A_CLASS` rows. Fewer rows are among those of a larger sample by
        the same generator.
        """
        if len(self) <= most:
            return slice(None)
        order = rng.permutation(len(self))
        if self.y.dtype.kind == "f":  # a regression
            return np.sort(order[:most])
        count = np.bincount(self.y)
        least = np.minimum(count, LEAST_OF_A_CLASS)
        share = max(most - least.sum(), 0) / (count - least).sum()
        wanted = least + np.floor(share * (count - least)).astype(np.intp)
        places = [order[self.y[order] == code][:rows] for code, rows in enumerate(wanted)]
        return np.sort(np.concatenate(places))

    def times(self, basis: np.ndarray | None) -> Encoded:
        """Return the rows with inputs multiplied by a basis, `one_hot_basis`."""
        return self if basis is None else replace(self, x=self.x @ basis)

    def latest(self) -> np.ndarray | None:
        """Return a mask of the latest quarter of the rows, in whole blocks, by which models are chosen.

        It is the last block where no block begins in that quarter, no row of a single block, and None of rows without
        order.
        """
        if self.elapsed is None:
            return None
        return (self.elapsed > 0) & (self.elapsed >= min(1 - LATEST, float(self.elapsed.max(initial=0))))


def pooled_rows(parts: Sequence[Encoded], x: np.ndarray | None = None) -> Encoded:
    """Return the rows of all parts.

    Two parts' groups are never one. `x` has the inputs of all parts, where these were written into it.
    """
    if x is None:
        x = np.concatenate([part.x for part in parts])
    y = np.concatenate([part.y for part in parts])
    weight = np.concatenate([part.weight for part in parts])
    group = codes_apart([part.group for part in parts], [len(part) for part in parts])
    elapsed = None
    # Each site's latest rows are among the latest of all.
    if all(part.elapsed is not None for part in parts):
        elapsed = np.concatenate([part.elapsed for part in parts])
    counts: np.ndarray | float = 1.0
    if any(isinstance(part.counts, np.ndarray) for part in parts):
        counts = np.concatenate([np.broadcast_to(part.counts, len(part)) for part in parts])
    return Encoded(x, y, weight, group, elapsed, len(parts), counts)


def codes_apart(codes: Sequence[np.ndarray | None], rows: Sequence[int]) -> np.ndarray | None:
    """Return the parts' codes without overlap.

    No code is in two parts. None where each row of each part is its own.
    """
    if all(code is None for code in codes):
        return None
    disjoint_codes = []
    start = 0
    for code, count in zip(codes, rows):
        own = np.arange(count) if code is None else code
        disjoint_codes.append(own + start)
        start += int(own.max(initial=-1)) + 1
    return np.concatenate(disjoint_codes)


def input_names(layout: Layout) -> tuple[str, ...]:
    """Return the names of the inputs.

    They read `age`, `cp=asymptomatic`, `chol missing`.

    A category's first value is the reference and has no input.
    """
    if layout.plain:
        return tuple(column.name for column in layout.features)
    names: list[str] = []
    for column in layout.features:
        if column.kind == "category":
            names += [f"{column.name}={value}" for value in column.cells[1:-1]]
        else:
            names.append(column.name)
        if layout.missing_indicator:
            names.append(f"{column.name} missing")
    return tuple(names)


def input_slices(layout: Layout) -> dict[str, slice]:
    """Return each column's inputs, its being missing among them."""
    slices = {}
    start = 0
    for column in layout.features:
        width = len(column.cells) - 2 if column.kind == "category" and not layout.plain else 1
        end = start + width + int(layout.missing_indicator and not layout.plain)
        slices[column.name] = slice(start, end)
        start = end
    return slices


def encode(
    table: pd.DataFrame | ColumnArrays,
    layout: Layout,
    encoder: Encoder,
    *,
    weighted: bool = False,
    into: np.ndarray | None = None,
) -> Encoded:
    """Return mapped rows as the model's inputs and targets.

    Parameters
    ----------
    table : DataFrame or ColumnArrays
        Mapped rows.
    layout : Layout
    encoder : Encoder
    weighted : bool
        Whether rows count by the encoder's class weights.
    into : float64 array [rows, inputs], optional
        Where the inputs are written; a new array by default.
    """
    rows = coded(table, layout, binned=False)
    x = into
    if x is None:
        x = np.empty((rows.rows, len(input_names(layout))))
    if layout.plain:
        _write_plain_inputs(x, rows, layout)
    else:
        _write_scaled_inputs(x, rows, layout, encoder)
    if layout.task == "regression":
        values = rows.scaled(layout.target)
        return Encoded(x, (values - encoder.center[-1]) / encoder.scale[-1], np.ones(rows.rows))
    y = rows.codes[layout.target.name].astype(np.int64)
    weight = encoder.class_weight[y] if weighted else np.ones(rows.rows)
    return Encoded(x, y, weight)


def _write_scaled_inputs(x: np.ndarray, rows: ColumnArrays, layout: Layout, encoder: Encoder) -> None:
    places = input_slices(layout)
    by_code = _inputs_by_code(layout, encoder)
    # Few rows at a time, one input after the other: written into all rows, each value costs a line of memory.
    block = np.empty((x.shape[1], min(AT_ONCE, rows.rows)))
    for start in range(0, rows.rows, AT_ONCE):
        some = slice(start, min(start + AT_ONCE, rows.rows))
        inputs = block[:, : some.stop - start]
        for number, column in enumerate(layout.features):
            own = inputs[places[column.name]]
            if column.kind == "number":
                # A missing number becomes 0, the centre, so that it moves no output by itself.
                values = _scaled(rows.values[column.name][some], column) - encoder.center[number]
                values /= encoder.scale[number]
                values[np.isnan(values)] = 0.0
                own[0] = values
                own = own[1:]
            if len(own):
                np.take(by_code[number], rows.codes[column.name][some], axis=1, out=own, mode="clip")
        x[some] = inputs.T


def _inputs_by_code(layout: Layout, encoder: Encoder) -> list[np.ndarray]:
    """Return each column's inputs by the code of a cell, [inputs, cells]; of a number that of being missing alone."""
    places = layout.slices()
    width = int(layout.missing_indicator)
    tables = []
    for column in layout.features:
        missing = len(column.cells) - 1
        shares = encoder.frequency[places[column.name]]
        spread = encoder.spread[places[column.name]]
        if column.kind == "number":
            inputs = np.zeros((width, missing + 1))
        else:
            # A missing value has 0 in all of them but the last.
            inputs = np.zeros((missing - 1 + width, missing + 1))
            inputs[: missing - 1, :missing] = ((np.eye(missing) - shares[:-1]) / spread[:-1]).T[1:]
        if width:
            inputs[-1] = ((np.arange(missing + 1) == missing) - shares[-1]) / spread[-1]
        tables.append(inputs)
    return tables


def one_hot_basis(layout: Layout, encoder: Encoder) -> np.ndarray | None:
    """Return the change of inputs by which a ridge penalty treats all values of a category alike.

    float64 [inputs, inputs]; None where every input is a number.

    Notes
    -----
    Inputs leave out a category's first value, and are divided by their spread. A ridge penalty on their weights then
    depends on which value is first, and penalises rare values least. Multiplied by this basis they have the penalty of
    an indicator for every value, the first among them, each divided by 1/2, as numbers are by their deviation
    (Gelman 2008, Statistics in Medicine 27). With `mix` from inputs to indicators, the least sum of squares of
    indicators' weights that amounts to weights w of inputs is w' (mix mix')⁻¹ w; a Cholesky factor of mix mix' has the
    same, with as few inputs.
    """
    layout = replace(layout, plain=False)
    inputs = input_slices(layout)
    cells = layout.slices()
    basis = np.eye(len(input_names(layout)))
    for column in layout.features:
        spread = encoder.spread[cells[column.name]]
        place = inputs[column.name]
        if column.kind == "category":
            values = len(column.cells) - 2
            # The first value's indicator falls by as much as the others rise.
            factor = np.linalg.cholesky(np.eye(values) + 1.0)
            start = place.start
            basis[start : start + values, start : start + values] = 2 * spread[1:-1, None] * factor
        elif column.kind == "flag":
            basis[place.start, place.start] = 2 * spread[1]
        if layout.missing_indicator:
            basis[place.stop - 1, place.stop - 1] = 2 * spread[-1]
    return None if np.array_equal(basis, np.eye(len(basis))) else basis


def plain_inputs(rows: ColumnArrays, layout: Layout) -> np.ndarray:
    """Return the columns as they are, float64 [rows, columns]: numbers, places of values, NaN where missing."""
    x = np.empty((rows.rows, len(layout.features)))
    _write_plain_inputs(x, rows, layout)
    return x


def _write_plain_inputs(x: np.ndarray, rows: ColumnArrays, layout: Layout) -> None:
    for number, column in enumerate(layout.features):
        if column.kind == "number":
            x[:, number] = rows.values[column.name]
        else:
            codes = rows.codes[column.name]
            x[:, number] = np.where(codes == len(column.cells) - 1, np.nan, codes)


def scaled_of(x: np.ndarray, layout: Layout, encoder: Encoder) -> np.ndarray:
    """Return a layout's inputs, [rows, inputs], as models that scale take them: as they are, unless they are plain."""
    if not layout.plain:
        return x
    codes = {}
    values = {}
    for column, inputs in zip(layout.features, x.T):
        missing = len(column.cells) - 1
        plain = 0 if column.kind == "number" else inputs
        codes[column.name] = np.where(np.isnan(inputs), missing, plain).astype(int)
        values[column.name] = inputs
    scaling = replace(layout, plain=False)
    inputs = np.empty((len(x), len(input_names(scaling))))
    _write_scaled_inputs(inputs, ColumnArrays(len(x), codes, values), scaling, encoder)
    return inputs


def decode_target(values: np.ndarray, layout: Layout, encoder: Encoder) -> np.ndarray:
    """Convert encoded regression targets to their own unit.

    The array may be of any shape.
    """
    scaled_back = values * encoder.scale[-1] + encoder.center[-1]
    if layout.target.transform == "log1p":
        scaled_back = np.expm1(scaled_back)
    return np.asarray(scaled_back)
