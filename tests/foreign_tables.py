"""Exports of other institutions: a table as CSV, and beside it the truth that somebody typed who knows it.

The truth of `NAME.csv` is `NAME.toml`: `dataset`, `separator`, `decimal`, and the tables `columns` (schema column = own
column, "" where the table does not have it), `units.COLUMN` (multiply) and `codes.COLUMN` (own code = schema value).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from flfed.rows.data import datasets
from flfed.rows.data import site_discovery as sites
from flfed.rows.data.sources import Csv
from flfed.rows.proposals.answers import Answers
from flfed.rows.proposals.dialogue import FLAGS, MappingDialogue, Question


@dataclass
class Truth:
    """What a person knows who types the answers."""

    dataset: str
    columns: Mapping[str, str]
    units: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    codes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    separator: str = ";"
    decimal: str = ","

    @classmethod
    def read(cls, path: Path) -> Truth:
        content: dict[str, Any] = tomllib.loads(path.read_text("utf-8"))
        return cls(**{key: content[key] for key in cls.__dataclass_fields__ if key in content})


@dataclass
class Outcome:
    """A dialogue that was answered by the truth."""

    dialogue: MappingDialogue
    asked: list[Question]
    text: str
    """All that was shown, and what was stored."""
    sure: dict[str, str]
    """Columns that were filled in without a question."""
    columns: dict[str, str]
    """Columns at the end, "" for those that are not here."""
    offered: set[str]
    """Columns of which the right one was filled in or offered."""


def answered(table: pd.DataFrame, truth: Truth) -> Outcome:
    """Answer all questions about a table by the truth, and write down what was shown."""
    schema = datasets.load(truth.dataset).schema
    dialogue = MappingDialogue(table, schema, Answers())
    first = dialogue.decisions()
    sure = {name: one.own for name, one in first.items() if one.origin == "sure" and one.own is not None}
    offered = {name for name, own in sure.items() if truth.columns.get(name) == own}
    shown = [f"{name} {one.own} {one.why}" for name, one in first.items()]
    asked = []
    while question := dialogue.next_question():
        asked.append(question)
        shown += question.lines
        for name in question.columns:
            own = truth.columns.get(name, "")
            if question.kind != "codes" and own and any(f" {own}" in line for line in question.lines):
                offered.add(name)
        dialogue.answer(question, answer_of(question, dialogue, truth))
    end = dialogue.decisions()
    return Outcome(dialogue, asked, "\n".join(shown), sure, {name: one.own or "" for name, one in end.items()}, offered)


def answer_of(question: Question, dialogue: MappingDialogue, truth: Truth) -> str:
    """Return what somebody types who knows the truth."""
    if question.kind == "series":
        return order_of(question, dialogue, truth)
    if question.kind == "several":
        right = [dialogue.proposal(name).own == truth.columns.get(name, "") for name in question.columns]
        converted = [name in truth.units and dialogue.proposal(name).field.multiply == 1 for name in question.columns]
        numbers = [str(number) for number, is_right in enumerate(right, 1) if not is_right or converted[number - 1]]
        return " ".join(numbers) or "yes"
    if question.kind == "codes":
        return "; ".join(codes_of(name, dialogue, truth) for name in question.columns)
    name = question.columns[0]
    own = truth.columns.get(name, "")
    factor = truth.units.get(name, {}).get("multiply", 1)
    return f"{own} * {factor}" if own and factor != 1 else own or "-"


def codes_of(name: str, dialogue: MappingDialogue, truth: Truth) -> str:
    """Return the codes of a column in the order of its values that have none."""
    words = {}
    if dialogue._schema.columns[name].kind == "flag":
        words = {number: word for word, number in FLAGS.items()}
    decision = dialogue.decisions()[name]
    occurring = dialogue._codes(decision.own or "")
    codes = {code: words.get(value, value) for code, value in truth.codes.get(name, {}).items() if code in occurring}
    values = [*decision.open_values, ""]
    places = ["|".join(code for code, meant in codes.items() if meant == value) for value in values]
    return ", ".join(f'"{place}"' if "," in place else place for place in places).rstrip(", ") or "?"


def order_of(question: Question, dialogue: MappingDialogue, truth: Truth) -> str:
    """Return the order of series that is right for most and the numbers of the others, or the place of one series."""
    if question.columns[0] in dialogue._one_by_one:
        names = [truth.columns.get(name, "") for name in question.columns]
        listed = [line.strip().split(": ", 1)[-1] for line in question.lines[1:-1]]
        return str(listed.index(", ".join(names)) + 1) if ", ".join(names) in listed else "-"
    wrong: dict[int, list[str]] = {1: [], 2: []}
    for number, (wanted, own) in enumerate(dialogue._matching.series, 1):
        right = [truth.columns.get(name, "") for name in wanted.columns]
        for order, names in ((1, own.columns), (2, own.columns[::-1])):
            if right != list(names):
                wrong[order].append(str(number))
    order = min(wrong, key=lambda order: len(wrong[order]))
    return " ".join([str(order), *wrong[order]])


def read_export(path: Path, truth: Truth) -> pd.DataFrame:
    """Return the table of an export as a site's source reads it."""
    return Csv(str(path), separator=truth.separator).read(())


def rows_of(names: Sequence[str]) -> pd.DataFrame:
    """Return the mapped rows of sites, in the schema's own names and values."""
    return pd.concat([sites.load(name).inspect()[0] for name in names], ignore_index=True)


def write_export(table: pd.DataFrame, truth: Truth, path: Path, more: Mapping[str, Sequence[object]]) -> pd.DataFrame:
    """Write a table of the schema's columns as an export with the truth's names, units, codes and marks."""
    own = {}
    for name, column in truth.columns.items():
        if not column:
            continue
        cells = table[name]
        if name in truth.codes:
            back = {value: code for code, value in truth.codes[name].items()}
            kept = cells.map(lambda value: str(int(value)) if isinstance(value, float) and value == value else value)
            own[column] = kept.map(back)
        elif name in truth.units:
            own[column] = (cells / truth.units[name]["multiply"]).round(2)
        else:
            own[column] = cells
    own |= more
    export = pd.DataFrame(own)
    for name in export.columns:
        if export[name].dtype.kind == "f":
            whole = bool((export[name].dropna() == np.rint(export[name].dropna())).all())
            export[name] = export[name].map(lambda value, whole=whole: written(value, truth.decimal, whole=whole))
    export.to_csv(path, sep=truth.separator, index=False)
    return export


def written(value: float, decimal: str, *, whole: bool) -> str:
    """Return a number as an export has it, "" where it is missing."""
    if value != value:
        return ""
    return str(int(value)) if whole else f"{value:g}".replace(".", decimal)
