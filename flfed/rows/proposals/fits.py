"""Fit of one column of a table to a column of a schema: by kind, range, unit and values; no cell is in its words.

Units, conversions and usual medians of quantities are in `quantities.toml`: public knowledge, never from rows.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import compress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from flfed.rows.data.mapping import read_column
from flfed.rows.data.parsing.fields import Field, plain_name
from flfed.rows.data.schema import Column
from flfed.rows.proposals.cells import (
    DIGITS,
    LEAST_ROWS,
    MANY_VALUES,
    Cells,
    Numbers,
    add_doubt,
    find_unknowns,
    read_numbers,
)
from flfed.rows.proposals.column_words import Reading, WordList
from flfed.rows.proposals.columns import PAIRS, ColumnProposal, flags_by_text, propose_column, unit_of
from flfed.words import render


@dataclass(frozen=True)
class Conversion:
    """A conversion of values to a schema column's unit: `value * multiply + add`.

    Attributes
    ----------
    unit : str
        Of the values before; "" for that of the schema.
    multiply, add : float
    """

    unit: str = ""
    multiply: float = 1.0
    add: float = 0.0

    def is_decimal_shift(self) -> bool:
        """Return whether it moves the decimal mark only, as a mistake of a factor of 10 does."""
        digits = f"{self.multiply:.6e}".partition("e")[0]
        return self.add == 0 and self.multiply != 1 and float(digits) == 1


@dataclass(frozen=True)
class Quantity:
    """Public knowledge of what a schema's column measures.

    Attributes
    ----------
    conversions : tuple of Conversion
        From other units to the schema's.
    median : (low, high) or None
        Where the median of an institution's values other than 0 lies, in the schema's unit.
    counts : bool
        Whether it counts things.
    whole : bool
        Whether its values are whole numbers, as those of counts are.
    money : bool
        Whether its unit is a currency.
    """

    conversions: tuple[Conversion, ...]
    median: tuple[float, float] | None
    counts: bool
    whole: bool
    money: bool


def describe_quantity(column: Column, concepts: AbstractSet[str]) -> Quantity:
    """Return what is known of a schema's column of numbers, by its unit and its concepts."""
    content = _content()
    unit = plain_name(column.unit)
    named = []
    free = []
    others = []
    for entry in content["units"]:
        conversion = _conversion(entry, unit)
        # A unit without letters, such as %, has the plain name of none at all.
        if conversion is None or not column.unit:
            continue
        substance = entry.get("of")
        if substance is None:
            free.append(conversion)
        elif substance in concepts:
            named.append(conversion)
        else:
            others.append(conversion)
    # Of an unknown substance, every conversion to its unit is possible.
    conversions = [*named, *free] if named else [*others, *free]
    counts = unit in map(plain_name, content["count-units"])
    return Quantity(
        conversions=tuple(conversions),
        median=column.typical or _median(content["medians"], unit, concepts),
        counts=counts,
        whole=counts or unit in map(plain_name, content["whole-units"]),
        money=is_currency(column.unit),
    )


def is_currency(unit: str) -> bool:
    """Return whether a unit is a currency."""
    return plain_name(unit) in map(plain_name, _content()["currencies"])


def _conversion(entry: dict[str, Any], unit: str) -> Conversion | None:
    """Return the conversion of an entry to a unit, in either direction; None where it has another unit."""
    targets = _content()["currencies"] if entry["to"] == "currency" else [entry["to"]]
    multiply = float(entry["multiply"])
    add = float(entry.get("add", 0.0))
    if unit in map(plain_name, targets):
        return Conversion(entry["from"], multiply, add)
    if unit == plain_name(entry["from"]) and entry["to"] != "currency":
        return Conversion(entry["to"], 1 / multiply, -add / multiply)
    return None


def _median(entries: list[dict[str, Any]], unit: str, concepts: AbstractSet[str]) -> tuple[float, float] | None:
    """Return the usual median of the entry with most of the concepts."""
    fitting = [
        entry for entry in entries if set(entry["concepts"]) <= concepts and unit in map(plain_name, _units_of(entry))
    ]
    if not fitting:
        return None
    low, high = max(fitting, key=lambda entry: len(entry["concepts"]))["median"]
    return float(low), float(high)


def _units_of(entry: dict[str, Any]) -> list[str]:
    """Return the units of an entry's median."""
    units: list[str] = _content()["currencies"] if entry["unit"] == "currency" else [entry["unit"]]
    return units


@cache
def _content() -> dict[str, Any]:
    """Return the tables of the package's file."""
    return tomllib.loads(Path(__file__).with_name("quantities.toml").read_text("utf-8"))


FITTING = 0.98
"""Least share of fitting rows in a match that is sure."""
UNKNOWN = "?"
"""Mark in a mapping for the schema's value of a code that a person has to name."""
LEAST_FOR_MEDIAN = 20
"""Least number of rows with a value other than 0 whose median is compared."""
SHIFTS = (0.1, 10.0)
"""Factors by which a decimal mark may be at the wrong place."""
LARGEST_STEP = 10
"""Least common step of counts that are not counts as they stand: a factor of 10."""
Doubt = Literal["", "unit", "outside", "scale", "currency", "codes", "reading", "kind"]
"""Reason why a person has to look at a fit: "scale" is a factor of 10 that nothing would show."""


@dataclass(frozen=True)
class Fit:
    """Fit of a column's rows, and the reading with which they fit.

    Attributes
    ----------
    share : float, 0 to 1
        Of the rows with a value.
    field : Field
    why : str
        Holds no cell.
    doubt : str
    likely : float, 0 to 1
        How near the median is to the quantity's usual one.
    telling : bool
        Whether the values alone show which column of the schema it is.
    """

    share: float
    field: Field
    why: str
    doubt: Doubt = ""
    likely: float = 1.0
    telling: bool = False

    @property
    def sure(self) -> bool:
        """Whether values, range and kind agree and no doubt is left."""
        return self.share >= FITTING and not self.doubt

    @property
    def quality(self) -> float:
        """The share, weighted by the nearness of the median."""
        return self.share * self.likely


class OwnColumn:
    """A column of a table, whose cells are counted once.

    Parameters
    ----------
    name : str
    cells : Series
        Some of its rows.
    whole : Series
        All of its rows.
    reading : Reading
        Of its name.
    """

    def __init__(self, name: str, cells: pd.Series, whole: pd.Series, reading: Reading) -> None:
        self.name = name
        self.reading = reading
        self._cells = cells
        self._whole = whole

    @cached_property
    def entries(self) -> Cells:
        """Its distinct texts, of all rows where they are few."""
        entries = Cells.of(self.name, self._cells)
        if len(self._cells) == len(self._whole) or len(entries.texts) > MANY_VALUES:
            return entries
        return Cells.of(self.name, self._whole)

    @cached_property
    def numbers(self) -> Numbers | None:
        """The same as numbers, None where they are none."""
        return read_numbers(self.entries)

    @cached_property
    def proposal(self) -> ColumnProposal:
        """Its kind."""
        return propose_column(self.name, self._cells)

    def may_name(self, column: Column) -> bool:
        """Return whether its texts may show by themselves that it is a category."""
        return len(column.values) > 2 and len(self.entries.texts) <= MANY_VALUES

    @property
    def unit(self) -> str:
        """Unit in its name, as the word list has it, else as it stands in brackets."""
        return self.reading.unit or unit_of(self.name)


def fit_column(
    own: OwnColumn, column: Column, quantity: Quantity | None, words: WordList, unit: str | None = None
) -> Fit:
    """Return the fit of a table's column to a schema's.

    Parameters
    ----------
    own : OwnColumn
    column : Column
    quantity : Quantity or None
        Of a column of numbers.
    words : WordList
    unit : str or None
        Of its values; None for that in its name.
    """
    plain = Field(own.name, missing=own.entries.missing)
    if not own.entries.n_present:
        return Fit(0.0, plain, render("proposals.match.empty"), "kind")
    if quantity is not None:
        return _fit_numbers(own, own.unit if unit is None else unit, plain, column, quantity)
    if column.values or column.kind == "flag":
        return _fit_codes(own.entries, plain, column, words)
    proposal = own.proposal
    field = replace(proposal.field or plain, column=own.name) if proposal.kind == column.kind else plain
    why = render("proposals.match.kind", kind=proposal.kind)
    if proposal.kind == column.kind:
        return Fit(1.0, field, why)
    return Fit(0.3, field, why, "kind")


def _fit_numbers(own: OwnColumn, unit: str, plain: Field, column: Column, quantity: Quantity) -> Fit:
    numbers = own.numbers
    if numbers is None or column.range is None:
        return Fit(0.0, plain, render("proposals.match.numbers"), "kind")
    numbers = _without_codes(numbers, column, column.range)
    fit = _fit_reading(numbers, unit, column, quantity)
    # The range may distinguish decimals from thousands.
    if numbers.other:
        other = _fit_reading(numbers.other, unit, column, quantity)
        if fit.share < FITTING <= other.share:
            fit = other
        elif fit.share >= FITTING <= other.share:
            # Where it allows both, the check of the site asks.
            mark = (fit if fit.field.thousands == "" else other).field.decimal
            fit = replace(fit, field=replace(fit.field, decimal=mark, thousands=None))
    if not numbers.doubt:
        return fit
    doubt = "reading" if fit.doubt in ("", "scale") else fit.doubt
    return replace(fit, why="; ".join([fit.why, numbers.doubt]), doubt=doubt)


def _without_codes(numbers: Numbers, column: Column, ends: tuple[float, float]) -> Numbers:
    """Return numbers without those outside the range that stand for "not known", with a doubt about these."""
    values = numbers.values
    amounts = ((values >= ends[0]) & (values <= ends[1])) | _are_codes(values, column)
    if not amounts.all():
        amounts |= find_unknowns(values, numbers.cells.counts).genuine
    if amounts.all():
        return numbers
    cells = numbers.cells.with_missing(list(compress(numbers.cells.texts, ~amounts)))
    return add_doubt(replace(numbers, cells=cells, values=values[amounts]), render("proposals.match.missing"))


def _are_codes(values: np.ndarray, column: Column) -> np.ndarray:
    """Return which numbers are the schema's own codes for "not known" [values]."""
    return np.isin(values, [code for code in column.missing if isinstance(code, float)])


@dataclass(frozen=True)
class _Values:
    """Distinct numbers of a column without codes, and their rows, before a schema's range and usual median."""

    values: np.ndarray
    counts: np.ndarray
    ends: tuple[float, float]
    median: tuple[float, float] | None

    def convert(self, conversion: Conversion) -> _Values:
        """Return the numbers after a conversion."""
        return replace(self, values=self.values * conversion.multiply + conversion.add)

    def inside(self) -> float:
        """Return the share of rows in the range."""
        within = (self.values >= self.ends[0]) & (self.values <= self.ends[1])
        return float(self.counts[within].sum() / max(self.counts.sum(), 1))

    def likely(self) -> float:
        """Return how near the median is to the usual one: 1 at its middle, 0.6 at its ends, 0 far outside."""
        other = self.values != 0
        rows = self.counts[other]
        if self.median is None or rows.sum() < LEAST_FOR_MEDIAN:
            return 1.0
        order = np.argsort(self.values[other])
        place = np.searchsorted(np.cumsum(rows[order]), rows.sum() / 2)
        median = float(self.values[other][order][place])
        low, high = self.median
        if low > 0:
            if median <= 0:
                return 0.0
            low, median, high = math.log(low), math.log(median), math.log(high)
        distance = (median - (low + high) / 2) / ((high - low) / 2)
        return math.exp(-distance * distance / 2)

    def fits(self) -> bool:
        """Return whether nearly all rows are in the range and the median is usual."""
        return self.inside() >= FITTING and self.likely() >= AT_THE_ENDS

    def fits_shifted(self) -> bool:
        """Return whether the numbers fit with their decimal mark at another place too."""
        return any(self.convert(Conversion(multiply=factor)).fits() for factor in SHIFTS)


AT_THE_ENDS = math.exp(-0.5) * (1 - 1e-9)
"""Nearness of a median at the ends of its usual interval."""


def _fit_reading(numbers: Numbers, unit: str, column: Column, quantity: Quantity) -> Fit:
    """Return the fit of numbers to a column with a range."""
    field = replace(numbers.reading, column=numbers.cells.name, missing=numbers.cells.missing)
    is_code = _are_codes(numbers.values, column)
    ends = column.range or (-math.inf, math.inf)
    values = _Values(numbers.values[~is_code], numbers.cells.counts[~is_code], ends, quantity.median)
    stated = [one for one in quantity.conversions if plain_name(one.unit) == plain_name(unit)]
    if unit and plain_name(unit) != plain_name(column.unit) and stated:
        return _convert(values, stated[0], field, column, stated=True)
    if values.fits():
        return _fit_unchanged(values, unit, field, column, quantity)
    # A unit is proposed only where it brings nearly all values into the range, and no other unit does.
    fitting = [one for one in quantity.conversions if values.convert(one).fits()]
    if len(fitting) == 1:
        return _convert(values, fitting[0], field, column, stated=False)
    inside = values.inside()
    if inside >= FITTING:
        return Fit(inside, field, render("proposals.match.unusual"), "unit", likely=values.likely())
    why = render("proposals.match.outside", percent=round(100 * inside))
    return Fit(inside, field, why, "outside", likely=values.likely())


def _fit_unchanged(values: _Values, unit: str, field: Field, column: Column, quantity: Quantity) -> Fit:
    """Return the fit of numbers that lie in the range as they are."""
    if unit and column.unit and plain_name(unit) != plain_name(column.unit):
        why = render("proposals.match.unit", unit=unit, other=column.unit)
        doubt: Doubt = "currency" if quantity.money and is_currency(unit) else "unit"
        return Fit(values.inside(), field, why, doubt, likely=values.likely())
    return _fit_stated(values, unit, field, quantity)


def _fit_stated(values: _Values, unit: str, field: Field, quantity: Quantity) -> Fit:
    """Return the fit of numbers in the schema's unit, with a doubt where a factor of 10 would not show."""
    inside = values.inside()
    likely = values.likely()
    why = render("proposals.match.inside")
    fractions = quantity.whole and (values.values != np.rint(values.values)).any()
    if fractions or (quantity.counts and _have_large_step(values.values)):
        return Fit(inside, field, render("proposals.match.uncounted"), "unit", likely=likely)
    stated = bool(unit) and quantity.median is None
    if not quantity.counts and not stated and values.fits_shifted():
        return Fit(inside, field, why, "scale", likely=likely)
    return Fit(inside, field, why, likely=likely)


def _convert(values: _Values, conversion: Conversion, field: Field, column: Column, *, stated: bool) -> Fit:
    """Return the fit of numbers in another unit, which the name has stated or their values suggest."""
    after = values.convert(conversion)
    field = replace(field, multiply=round(conversion.multiply, 8), add=round(conversion.add, 8))
    why = render("proposals.match.converted", before=conversion.unit, after=column.unit)
    doubt: Doubt = ""
    if not after.fits():
        why = render("proposals.match.outside", percent=round(100 * after.inside()))
        doubt = "outside"
    elif not stated and (conversion.is_decimal_shift() or values.fits_shifted()):
        doubt = "unit"
    return Fit(min(after.inside(), 0.99), field, why, doubt, likely=after.likely())


def _have_large_step(values: np.ndarray) -> bool:
    """Return whether all counts are multiples of ten."""
    other = np.abs(values[values != 0]).astype(int)
    return bool(len(other)) and int(np.gcd.reduce(other)) % LARGEST_STEP == 0


def _fit_codes(entries: Cells, plain: Field, column: Column, words: WordList) -> Fit:
    """Return the fit of codes to a schema's values."""
    read, broken = read_column(pd.Series(entries.texts, dtype=object), entries.name, column, plain)
    if not broken and len(read):
        return Fit(1.0, plain, render("proposals.match.values"), telling=_are_telling(list(set(read))))
    named = name_codes(entries, column, words)
    named_rows = sum(count for text, count in entries.rows_by_text.items() if text in named)
    share = named_rows / max(entries.n_present, 1)
    if share >= FITTING:
        telling = _are_telling(list(named.values()))
        return Fit(share, replace(plain, values=named), render("proposals.match.codes"), telling=telling)
    # Other codes are listed for a person to name; those of few rows are not written down.
    listed = {text: named.get(text, UNKNOWN) for text, count in entries.rows_by_text.items() if count >= LEAST_ROWS}
    values = max(len(column.values), 2)
    fits_in_number = values / 2 <= len(entries.texts) <= values
    likely = 0.6 if fits_in_number else 0.2 * share
    doubt: Doubt = "codes" if fits_in_number else "kind"
    return Fit(likely, replace(plain, values=listed), render("proposals.match.unnamed"), doubt)


def _are_telling(values: Sequence[object]) -> bool:
    """Return whether values are words, such as those of chest pain, and not yes and no or numbered."""
    return len(values) > 2 and not any(map(DIGITS.search, map(str, values)))


def name_codes(entries: Cells, column: Column, words: WordList) -> dict[str, str]:
    """Return the schema's value of each code whose meaning is plain by the word list."""
    flags = ("0", "1") if column.kind == "flag" else read_flags(column.values, words)
    if flags:
        named = _name_flags(entries, flags, words)
        if named or column.kind == "flag":
            return named
    if len(entries.texts) > 2 * max(len(column.values), 5):
        return {}
    return words.name_values(entries.texts, column.values)


def read_flags(values: Sequence[str], words: WordList) -> tuple[str, str] | None:
    """Return the values for no and for yes, such as absent and present; None where two values are not these."""
    if len(values) != 2:
        return None
    if set(values) == {"0", "1"}:
        return "0", "1"
    by_flag = words.name_values(values, ["no", "yes"])
    no = [value for value, flag in by_flag.items() if flag == "no"]
    yes = [value for value, flag in by_flag.items() if flag == "yes"]
    return (no[0], yes[0]) if no and yes else None


def _name_flags(entries: Cells, flags: tuple[str, str], words: WordList) -> dict[str, str]:
    """Return the value of each code, where all are 0 and 1, or yes and no in some words."""
    texts = {text.casefold() for text in entries.texts}
    if any(map(texts.issubset, PAIRS)):
        return {text: flags[int(flag)] for text, flag in flags_by_text(entries).items()}
    named = words.name_values(entries.texts, ["no", "yes"])
    return {text: flags[int(value == "yes")] for text, value in named.items()}
