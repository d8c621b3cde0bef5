"""Tables of the run store for SQLAlchemy, and rows into them.

They are portable to PostgreSQL. No table has a column for a row of a site: tables hold names, counts, figures and
bytes. A store is made from here. Many rows go in one statement, as a round of many sites has as many rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    ColumnElement,
    Connection,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    TypeDecorator,
    insert,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}
"""Names of constraints, the same on every database."""

LONG = BigInteger().with_variant(Integer, "sqlite")
"""Primary keys of the long tables; SQLite numbers rows only with INTEGER."""


class Word(TypeDecorator[str]):
    """A text of limited length that every database stores alike.

    PostgreSQL refuses a text that is too long or has a NUL, which SQLite accepts. A site may send either, and must not
    end a run with it: too long a text is cut to end in "…", and a NUL becomes U+FFFD.
    """

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Return the text in its stored form."""
        return self.fitted(value)

    def fitted(self, value: str | None) -> str | None:
        """Return the text in a form that any database stores."""
        if value is None:
            return None
        plain = value.isascii() and "\0" not in value  # nearly every word is, and needs no copy
        text = value if plain else value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
        length = getattr(self.impl_instance, "length", None)
        return text if length is None or len(text) <= length else f"{text[: length - 1]}…"


class Prose(Word):
    """A text of any length, otherwise as `Word`."""

    impl = Text
    # SQLAlchemy caches compiled statements only of types that allow it.
    cache_ok = True


Count = Annotated[int, "of rows or bytes"]
LongText = Annotated[str, "of any length"]
Choice = Annotated[str, 20]
Moment = Annotated[str, 32]
Label = Annotated[str, 40]
Digest = Annotated[str, 64]
Name = Annotated[str, 120]
Number = Annotated[int, mapped_column(LONG, primary_key=True)]
OfRun = Annotated[str, mapped_column(ForeignKey("run.id"), index=True)]
"""Kinds of columns; texts have at most so many characters."""


class Base(DeclarativeBase):
    """Base of all tables, with one metadata."""

    metadata = MetaData(naming_convention=CONVENTION)
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        dict[str, Any]: JSON,
        Count: BigInteger,
        LongText: Prose,
        Choice: Word(20),
        Moment: Word(32),
        Label: Word(40),
        Digest: Word(64),
        Name: Word(120),
    }


VERSION = 1
"""Version of these tables: a change of them gets the next number."""


class Version(Base):
    """The version of the tables, in one row."""

    __tablename__ = "flfed_version"
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


class Series(Base):
    """One study, run once or repeatedly."""

    __tablename__ = "series"
    id: Mapped[Label] = mapped_column(primary_key=True)
    study: Mapped[str] = mapped_column(Word(200), index=True)
    study_sha256: Mapped[Digest]
    study_text: Mapped[LongText]
    repeats: Mapped[int]
    started: Mapped[Moment] = mapped_column(index=True)


class Run(Base):
    """One execution of a study.

    Its `host`, `boot`, `pid` and `process` tell whether a running one still lives.
    """

    __tablename__ = "run"
    id: Mapped[str] = mapped_column(Word(48), primary_key=True)
    series_id: Mapped[str] = mapped_column(ForeignKey("series.id"), index=True)
    repeat: Mapped[int]
    engine: Mapped[Label]
    path: Mapped[Label]
    task: Mapped[Label]
    primary_metric: Mapped[Name]
    seed: Mapped[Count]
    rounds: Mapped[int]
    rounds_planned: Mapped[int]
    best_round: Mapped[int | None]
    status: Mapped[Choice] = mapped_column(index=True)
    reason: Mapped[LongText]
    started: Mapped[Moment] = mapped_column(index=True)
    finished: Mapped[Moment | None]
    seconds: Mapped[float | None]
    arrays_sha256: Mapped[Digest | None]
    versions: Mapped[dict[str, Any]]
    hashes: Mapped[dict[str, Any]]
    host: Mapped[str] = mapped_column(Word(255))
    boot: Mapped[str] = mapped_column(Word(64))
    pid: Mapped[int]
    process: Mapped[Label]


class RunSite(Base):
    """One site of a run, and what it shows of itself."""

    __tablename__ = "run_site"
    run_id: Mapped[str] = mapped_column(ForeignKey("run.id"), primary_key=True)
    site: Mapped[Name] = mapped_column(primary_key=True)
    title: Mapped[LongText]
    status: Mapped[Choice]
    reason: Mapped[LongText]
    rows: Mapped[Count | None]
    holdout_rows: Mapped[Count | None]
    disclosure: Mapped[Choice]
    resplit: Mapped[bool]


class Metric(Base):
    """One figure of one round, with site NULL for all."""

    __tablename__ = "metric"
    # They are read by run and metric, over all rounds.
    __table_args__ = (Index(None, "run_id", "metric", "round"),)
    id: Mapped[Number]
    run_id: Mapped[str] = mapped_column(ForeignKey("run.id"))
    round: Mapped[int]
    site: Mapped[Name | None]
    arm: Mapped[Label]
    metric: Mapped[Name]
    value: Mapped[float | None]
    low: Mapped[float | None]
    high: Mapped[float | None]
    variance: Mapped[float | None]
    n: Mapped[Count | None]


class Comparison(Base):
    """Figure of one arm, or difference between two arms.

    It is an arm's figure on a holdout where `against` is NULL, else the difference `arm` - `against`.
    """

    __tablename__ = "comparison"
    id: Mapped[Number]
    run_id: Mapped[OfRun]
    site: Mapped[Name | None]
    arm: Mapped[Label]
    against: Mapped[Label | None]
    metric: Mapped[Name]
    value: Mapped[float | None]
    low: Mapped[float | None]
    high: Mapped[float | None]
    p: Mapped[float | None]
    n: Mapped[Count | None]
    method: Mapped[LongText]
    verdict: Mapped[LongText]


class Summary(Base):
    """A named object of a run: `table-1`, `encoder`, `leaks`."""

    __tablename__ = "summary"
    run_id: Mapped[str] = mapped_column(ForeignKey("run.id"), primary_key=True)
    name: Mapped[Name] = mapped_column(primary_key=True)
    payload: Mapped[dict[str, Any]]


class Event(Base):
    """Fault, flag, refusal, leak or note of a run."""

    __tablename__ = "event"
    id: Mapped[Number]
    run_id: Mapped[OfRun]
    at: Mapped[Moment]
    round: Mapped[int | None]
    site: Mapped[Name | None]
    kind: Mapped[Label]
    reason: Mapped[LongText]
    code: Mapped[Name] = mapped_column(server_default="")


class Sent(Base):
    """Bytes of one kind sent in a round, by site and direction."""

    __tablename__ = "sent"
    # A page reads the newest rounds of a long run.
    __table_args__ = (Index(None, "run_id", "round"),)
    id: Mapped[Number]
    run_id: Mapped[str] = mapped_column(ForeignKey("run.id"))
    round: Mapped[int]
    site: Mapped[Name]
    direction: Mapped[Choice]
    kind: Mapped[Label]
    bytes: Mapped[Count]


class Audit(Base):
    """Figure of an attack on the run's own model (`flfed audit`)."""

    __tablename__ = "audit"
    id: Mapped[Number]
    run_id: Mapped[OfRun]
    at: Mapped[Moment]
    attack: Mapped[Name]
    site: Mapped[Name | None]
    metric: Mapped[Name]
    value: Mapped[float | None]
    low: Mapped[float | None]
    high: Mapped[float | None]
    payload: Mapped[dict[str, Any]]


AS_THEY_ARE = {type(None), bool, int, str}
"""Types that every database takes unchanged."""
VALUES = 999
"""Values of one statement, as many as any build of SQLite allows: many rows at once take half the time."""


def insert_all(
    connection: Connection,
    table: type[Base],
    names: Sequence[str],
    rows: Iterable[Sequence[Any]],
    same: Mapping[str, Any],
) -> None:
    """Insert many rows in one statement.

    Numbers that are not finite become NULL.

    Parameters
    ----------
    connection : Connection
        In a transaction of the caller's.
    table : a declared table
    names : sequence of str
        Columns that the rows have; of text or numbers.
    rows : iterable of sequences
        In the order of `names`.
    same : mapping of column to value
        What all rows have as well.
    """
    insert_columns(connection, table, dict(zip(names, zip(*rows, strict=True), strict=False)), same)


def insert_columns(
    connection: Connection, table: type[Base], columns: Mapping[str, Sequence[Any]], same: Mapping[str, Any]
) -> None:
    """Insert many rows, given by column, as `insert_all` does.

    Notes
    -----
    Columns are looked at whole: a word that stands in thousands of rows is looked at once, and one
    without any value is left out. SQLite's driver is handed the values as they are, which takes a
    quarter of the time of SQLAlchemy's own way.
    """
    into = table.__table__
    cells = {name: stored(into.c[name], values) for name, values in columns.items()}
    rows = len(next(iter(cells.values()), ()))
    if not rows:
        return
    cells = {name: values for name, values in cells.items() if values.count(None) < rows}
    if connection.dialect.name != "sqlite":
        lines = zip(*cells.values(), strict=True)
        connection.execute(insert(table), [{**same, **dict(zip(cells, line, strict=True))} for line in lines])
        return
    quoted = '", "'.join((*same, *cells))
    # What all rows have is handed over once a statement, under a number of its own.
    places = ", ".join((*(f"?{number}" for number in range(1, len(same) + 1)), *"?" * len(cells)))
    for together, flat in _statements(list(cells.values()), tuple(same.values())):
        values = ", ".join([f"({places})"] * together)
        connection.exec_driver_sql(f'INSERT INTO {table.__tablename__} ("{quoted}") VALUES {values}', flat)


def _statements(columns: Sequence[Sequence[Any]], same: tuple[Any, ...]) -> Iterator[tuple[int, list[tuple[Any, ...]]]]:
    """Yield the statements of an insertion.

    Each is how many rows go into it and the values: for each time it is executed, `same`, then row after row.
    """
    width, rows = len(columns), len(columns[0])
    # All values lie in one list, row after row, so that a statement's share is a slice.
    flat: list[Any] = [None] * (width * rows)
    for place, column in enumerate(columns):
        flat[place::width] = column
    start = 0
    # Full statements come first, and what remains goes in one row at a time.
    for together in ((VALUES - len(same)) // width, 1):
        size = together * width
        stop = start + (len(flat) - start) // size * size
        if start < stop:
            yield together, [(*same, *flat[first : first + size]) for first in range(start, stop, size)]
        start = stop


def stored(column: ColumnElement[Any], values: Sequence[Any]) -> Sequence[Any]:
    """Return a column's texts or numbers as the database holds them.

    Examples
    --------
    >>> from flfed.records.store.tables import Metric
    >>> stored(Metric.__table__.c.value, (0.5, float("nan"), None))
    [0.5, None, None]
    >>> stored(Metric.__table__.c.arm, ("training", "a" * 50))[1][-3:]
    'aa…'
    """
    # Each distinct text is shortened once, however many rows have it.
    if isinstance(column.type, Word):
        words = {word: column.type.fitted(word) for word in set(values)}
        return [words[word] for word in values]
    kinds = set(map(type, values))
    if kinds <= AS_THEY_ARE:
        return values
    if kinds <= AS_THEY_ARE | {float}:
        return [value if value is None or math.isfinite(value) else None for value in values]
    return [plain(value) for value in values]


def finite(value: float | None) -> float | None:
    """Return a finite number as a float, anything else as None.

    Examples
    --------
    >>> finite(3), finite(float("nan")), finite(None)
    (3.0, None, None)
    """
    return None if value is None or not math.isfinite(value) else float(value)


def plain(value: Any) -> Any:
    """Return `value` as JSON can hold it, None for NaN.

    Examples
    --------
    >>> plain({1: (0.5, float("inf"))})
    {'1': [0.5, None]}
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return finite(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # a numpy scalar or array
        return plain(value.tolist())
    return str(value)
