"""Tables of the run store for SQLAlchemy.

They are portable to PostgreSQL.

No table has a column for a row of a site: what stands here are names, counts, figures and bytes.
The schema in use is made by `migrations/`, never from here; a test keeps both equal.
"""

from __future__ import annotations

from typing import Any, ClassVar

from sqlalchemy import JSON, BigInteger, Dialect, ForeignKey, Index, Integer, MetaData, String, Text, TypeDecorator
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}
"""Names of constraints, so that a later migration can drop one on every database."""

LONG = BigInteger().with_variant(Integer, "sqlite")
"""Primary keys of the long tables; SQLite counts up by itself only on INTEGER."""


class Word(TypeDecorator[str]):
    """A text of limited length that every database takes alike.

    PostgreSQL refuses a text that is too long or has a NUL, which SQLite keeps. A site may send
    either, and must not end a run with it: too long a text ends in "…", a NUL becomes U+FFFD.
    """

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Return the text as it is stored."""
        return self.fitted(value)

    def fitted(self, value: str | None) -> str | None:
        """Return the text as any database stores it."""
        if value is None:
            return None
        plain = value.isascii() and "\0" not in value  # nearly every word is, and needs no copy
        text = value if plain else value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
        length = getattr(self.impl_instance, "length", None)
        return text if length is None or len(text) <= length else f"{text[: length - 1]}…"


class Prose(Word):
    """A text of any length, otherwise as `Word`."""

    impl = Text
    # SQLAlchemy keeps compiled statements only of types that say they may be kept.
    cache_ok = True


class Base(DeclarativeBase):
    """Base of all tables, with one metadata."""

    metadata = MetaData(naming_convention=CONVENTION)
    # Python's dictionaries are JSON columns in every table.
    type_annotation_map: ClassVar[dict[Any, Any]] = {dict[str, Any]: JSON}


class Series(Base):
    """One study, run once or repeatedly."""

    __tablename__ = "series"
    id: Mapped[str] = mapped_column(Word(40), primary_key=True)
    study: Mapped[str] = mapped_column(Word(200), index=True)
    study_sha256: Mapped[str] = mapped_column(Word(64))
    study_text: Mapped[str] = mapped_column(Prose)
    repeats: Mapped[int]
    started: Mapped[str] = mapped_column(Word(32), index=True)


class Run(Base):
    """One execution of a study.

    Its `host`, `boot`, `pid` and `process` tell whether a running one still lives.
    """

    __tablename__ = "run"
    id: Mapped[str] = mapped_column(Word(48), primary_key=True)
    series_id: Mapped[str] = mapped_column(ForeignKey("series.id"), index=True)
    repeat: Mapped[int]
    engine: Mapped[str] = mapped_column(Word(40))
    path: Mapped[str] = mapped_column(Word(40))
    task: Mapped[str] = mapped_column(Word(40))
    primary_metric: Mapped[str] = mapped_column(Word(120))
    seed: Mapped[int] = mapped_column(BigInteger)
    rounds: Mapped[int]
    rounds_planned: Mapped[int]
    best_round: Mapped[int | None]
    status: Mapped[str] = mapped_column(Word(20), index=True)
    reason: Mapped[str] = mapped_column(Prose)
    started: Mapped[str] = mapped_column(Word(32), index=True)
    finished: Mapped[str | None] = mapped_column(Word(32))
    seconds: Mapped[float | None]
    arrays_sha256: Mapped[str | None] = mapped_column(Word(64))
    versions: Mapped[dict[str, Any]]
    hashes: Mapped[dict[str, Any]]
    host: Mapped[str] = mapped_column(Word(255))
    boot: Mapped[str] = mapped_column(Word(64))
    pid: Mapped[int]
    process: Mapped[str] = mapped_column(Word(40))


class RunSite(Base):
    """One site of a run, and what it shows of itself."""

    __tablename__ = "run_site"
    run_id: Mapped[str] = mapped_column(ForeignKey("run.id"), primary_key=True)
    site: Mapped[str] = mapped_column(Word(120), primary_key=True)
    title: Mapped[str] = mapped_column(Prose)
    status: Mapped[str] = mapped_column(Word(20))
    reason: Mapped[str] = mapped_column(Prose)
    rows: Mapped[int | None] = mapped_column(BigInteger)
    holdout_rows: Mapped[int | None] = mapped_column(BigInteger)
    disclosure: Mapped[str] = mapped_column(Word(20))
    shared_as: Mapped[str] = mapped_column(Word(20))
    resplit: Mapped[bool]


class Metric(Base):
    """One figure of one round, with site NULL for all."""

    __tablename__ = "metric"
    # They are read by run and metric, over all rounds.
    __table_args__ = (Index(None, "run_id", "metric", "round"),)
    id: Mapped[int] = mapped_column(LONG, primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("run.id"))
    round: Mapped[int]
    site: Mapped[str | None] = mapped_column(Word(120))
    arm: Mapped[str] = mapped_column(Word(40))
    metric: Mapped[str] = mapped_column(Word(120))
    value: Mapped[float | None]
    low: Mapped[float | None]
    high: Mapped[float | None]
    variance: Mapped[float | None]
    n: Mapped[int | None] = mapped_column(BigInteger)


class Comparison(Base):
    """Figure of one arm, or difference between two arms.

    It is an arm's figure on a holdout where `against` is NULL, else the difference `arm` - `against`.
    """

    __tablename__ = "comparison"
    id: Mapped[int] = mapped_column(LONG, primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("run.id"), index=True)
    site: Mapped[str | None] = mapped_column(Word(120))
    arm: Mapped[str] = mapped_column(Word(40))
    against: Mapped[str | None] = mapped_column(Word(40))
    metric: Mapped[str] = mapped_column(Word(120))
    value: Mapped[float | None]
    low: Mapped[float | None]
    high: Mapped[float | None]
    p: Mapped[float | None]
    n: Mapped[int | None] = mapped_column(BigInteger)
    method: Mapped[str] = mapped_column(Prose)
    verdict: Mapped[str] = mapped_column(Prose)


class Summary(Base):
    """A named object of a run: `table-1`, `encoder`, `leaks`."""

    __tablename__ = "summary"
    run_id: Mapped[str] = mapped_column(ForeignKey("run.id"), primary_key=True)
    name: Mapped[str] = mapped_column(Word(120), primary_key=True)
    payload: Mapped[dict[str, Any]]


class Event(Base):
    """Fault, flag, refusal, leak or note of a run."""

    __tablename__ = "event"
    id: Mapped[int] = mapped_column(LONG, primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("run.id"), index=True)
    at: Mapped[str] = mapped_column(Word(32))
    round: Mapped[int | None]
    site: Mapped[str | None] = mapped_column(Word(120))
    kind: Mapped[str] = mapped_column(Word(40))
    reason: Mapped[str] = mapped_column(Prose)
    code: Mapped[str] = mapped_column(Word(120), server_default="")


class Sent(Base):
    """Bytes of one kind sent in a round, by site and direction."""

    __tablename__ = "sent"
    # A page reads the newest rounds of a long run.
    __table_args__ = (Index(None, "run_id", "round"),)
    id: Mapped[int] = mapped_column(LONG, primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("run.id"))
    round: Mapped[int]
    site: Mapped[str] = mapped_column(Word(120))
    direction: Mapped[str] = mapped_column(Word(20))
    kind: Mapped[str] = mapped_column(Word(40))
    bytes: Mapped[int] = mapped_column(BigInteger)


class Audit(Base):
    """Figure of an attack on the run's own model (`flfed audit`)."""

    __tablename__ = "audit"
    id: Mapped[int] = mapped_column(LONG, primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("run.id"), index=True)
    at: Mapped[str] = mapped_column(Word(32))
    attack: Mapped[str] = mapped_column(Word(120))
    site: Mapped[str | None] = mapped_column(Word(120))
    metric: Mapped[str] = mapped_column(Word(120))
    value: Mapped[float | None]
    low: Mapped[float | None]
    high: Mapped[float | None]
    payload: Mapped[dict[str, Any]]
