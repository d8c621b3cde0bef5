"""A sound table of a made-up clinic, and what spoils it."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

Damage = Callable[[str], bytes]
"""From the sound table as CSV to what stands in the file."""
ROWS = 60
SCHEMA = """
format = 1
name = "clinic"
task = "binary"
target = "outcome"
group = "person"

[columns.person]
kind = "id"

[columns.seen]
kind = "date"

[columns.age]
kind = "number"
range = [0, 120]
unit = "years"

[columns.chol]
kind = "number"
range = [50, 1000]
unit = "mg/dL"

[columns.income]
kind = "number"
range = [0, 10000000]
transform = "log1p"

[columns.visits]
kind = "number"
range = [0, 200]

[columns.smokes]
kind = "flag"

[columns.sex]
kind = "category"
values = ["female", "male"]

[columns.ward]
kind = "category"
values = ["north", "south", "west"]

[columns.outcome]
kind = "target"
values = ["no", "yes"]
"""


FOUND = "found"
"""Separator or encoding are found by looking."""


@dataclass(frozen=True)
class Case:
    """One damaged table and what must be said of it.

    Attributes
    ----------
    about : str
        What was done, for the page of the docs.
    damage : callable
    outcome : {"refused", "noted", "read", "sound", "unseen"}
        Exit code 2; or 0 with a note; or 0 without one, where the rows are those of the sound table, are others and
        sound too, or are damaged in a way that nobody can see who has this table alone.
    says : str
        Stands in what the command says.
    file : str
    source, mapping : str
        As the site's package has them.
    predicted : str or None
        What `flfed predict` says of the same file instead; `FOUND` where it reads the sound rows; None where it
        cannot be given that file, or reads it without a mapping.
    base : {"clinic", "patients"}
        The sound table that was damaged, which is the name of its dataset.
    extra : str
        More of the site's package.
    """

    about: str
    damage: Damage
    outcome: Literal["refused", "noted", "read", "sound", "unseen"]
    says: str = ""
    file: str = "rows.csv"
    source: str = ""
    mapping: str = ""
    predicted: str | None = ""
    env: dict[str, str] = field(default_factory=dict)
    base: Literal["clinic", "patients"] = "clinic"
    extra: str = ""

    @property
    def package(self) -> str:
        """Return the source as the site's package names it."""
        return self.source or f'Csv("{self.file}")'


def write_dataset(root: Path, name: str = "clinic", schema: str = SCHEMA) -> None:
    """Write a made-up dataset, the clinic's unless said, into a folder of `FLFED_PATH`."""
    folder = root / "datasets" / name
    folder.mkdir(parents=True)
    (folder / "schema.toml").write_text(schema)
    (folder / "source.toml").write_text('format = 1\nlicence = "none"\ncitation = "made for tests"\nsynthetic = true\n')


def sound() -> str:
    """Return the sound table as CSV; persons, dates and incomes look like nothing that a command says."""
    rng = np.random.default_rng(11)
    people = rng.integers(0, 44, ROWS)
    age, chol = rng.integers(18, 88, ROWS), rng.integers(120, 390, ROWS)
    odds = (age - 50) / 12 + (chol - 250) / 90
    table = pd.DataFrame({
        "person": [f"Röe-{7000 + 13 * number}" for number in people],
        "seen": [f"2024-{month:02d}-{day:02d}" for month, day in zip(rng.integers(1, 13, ROWS), rng.integers(1, 29, ROWS), strict=True)],
        "age": age,
        "chol": chol,
        "income": [f"{value:.2f}" for value in rng.uniform(20100, 89000, ROWS)],
        "visits": rng.integers(0, 10, ROWS), "smokes": rng.integers(0, 2, ROWS),
        "sex": rng.choice(["female", "male"], ROWS), "ward": rng.choice(["north", "south", "west"], ROWS),
        "outcome": np.where(rng.random(ROWS) < 1 / (1 + np.exp(-odds)), "yes", "no"),
    })  # fmt: skip
    return table.to_csv(index=False)


def frame(text: str) -> pd.DataFrame:
    """Return the sound table with all its cells as text."""
    return pd.read_csv(io.StringIO(text), dtype=str)


def typed(text: str) -> pd.DataFrame:
    """Return the sound table as a program would hold it: numbers, dates, text."""
    return pd.read_csv(io.StringIO(text), parse_dates=["seen"])


def as_csv(table: pd.DataFrame, **how: object) -> bytes:
    """Return a table as the bytes of a CSV file."""
    return table.to_csv(index=False, **how).encode()


def as_parquet(table: pd.DataFrame, **how: object) -> bytes:
    """Return a table as the bytes of a Parquet file."""
    out = io.BytesIO()
    table.to_parquet(out, **how)
    return out.getvalue()


def cells(column: str, change: str | Callable[[str], str], rows: int = 12) -> Damage:
    """Return what changes the first cells of a column: to a text, or by a function."""

    def damage(text: str) -> bytes:
        table = frame(text)
        old = table[column].tolist()
        new = [change(cell) if callable(change) else change for cell in old[:rows]]
        return as_csv(table.assign(**{column: [*new, *old[rows:]]}))

    return damage


def table(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Damage:
    """Return what changes the table, all of whose cells are text."""
    return lambda text: as_csv(change(frame(text)))


def parquet(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Damage:
    """Return what writes the table as Parquet after a change."""
    return lambda text: as_parquet(change(typed(text)))


def renamed(names: dict[str, str]) -> Damage:
    """Return what gives columns other names."""
    return table(lambda found: found.rename(columns=names))


def lines(change: Callable[[list[str]], Sequence[str]], end: str = "\n") -> Damage:
    """Return what changes the lines of the file."""
    return lambda text: "".join(line + end for line in change(text.splitlines())).encode()


def line(number: int, change: Callable[[str], str]) -> Damage:
    """Return what changes one line, the names being line 0."""
    return lines(lambda found: [change(one) if place == number else one for place, one in enumerate(found)])


def content(data: bytes) -> Damage:
    """Return what replaces the file."""
    return lambda text: data


def separated(by: str) -> Damage:
    """Return what writes the table with another separator."""

    def damage(text: str) -> bytes:
        out = io.StringIO()
        csv.writer(out, delimiter=by, lineterminator="\n").writerows(csv.reader(io.StringIO(text)))
        return out.getvalue().encode()

    return damage
