"""Units, conversions and usual medians of quantities, by `quantities.toml`: public knowledge, never from rows."""

from __future__ import annotations

import tomllib
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from flfed.rows.data.parsing.fields import plain_name
from flfed.rows.data.schema import Column


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
        if conversion is None:
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
