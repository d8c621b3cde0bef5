"""The tables: series, run and all that a run records."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "m0005"
down_revision = None

LONG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the tables."""
    _series()
    _run()
    _run_site()
    _rounds()
    _comparison()
    _objects()
    _audit()


def _text(name: str, length: int, null: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.String(length), nullable=null)


def _long_text(*names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.Text(), nullable=False) for name in names]


def _whole(*names: str, null: bool = False) -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.Integer(), nullable=null) for name in names]


def _big(name: str, null: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.BigInteger(), nullable=null)


def _floats(*names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.Double(), nullable=True) for name in names]


def _json(*names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.JSON(), nullable=False) for name in names]


def _make(name: str, *columns: sa.Column[Any], key: tuple[str, ...] = ("id",)) -> None:
    """Make a table that points at a run.

    It counts its own `id` where that is the key.
    """
    own = [sa.Column("id", LONG, nullable=False)] if key == ("id",) else []
    foreign = sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=f"fk_{name}_run_id")
    op.create_table(
        name, *own, _text("run_id", 48), *columns, foreign, sa.PrimaryKeyConstraint(*key, name=f"pk_{name}")
    )
    # A key that begins with the run's id needs no index of its own; figures and bytes have one of more columns.
    if key == ("id",) and name not in ("metric", "sent"):
        op.create_index(f"ix_{name}_run_id", name, ["run_id"])


def _series() -> None:
    op.create_table(
        "series",
        *(_text("id", 40), _text("study", 200), _text("study_sha256", 64), *_long_text("study_text")),
        *(*_whole("repeats"), _text("started", 32)),
        sa.PrimaryKeyConstraint("id", name="pk_series"),
    )
    op.create_index("ix_series_started", "series", ["started"])
    op.create_index("ix_series_study", "series", ["study"])


def _run() -> None:
    op.create_table(
        "run",
        *(_text("id", 48), _text("series_id", 40), *_whole("repeat")),
        *(_text("engine", 40), _text("path", 40), _text("task", 40), _text("primary_metric", 120)),
        *(_big("seed"), *_whole("rounds", "rounds_planned"), *_whole("best_round", null=True)),
        *(_text("status", 20), *_long_text("reason"), _text("started", 32), _text("finished", 32, True)),
        *(*_floats("seconds"), _text("arrays_sha256", 64, True), *_json("versions", "hashes")),
        *(_text("host", 255), _text("boot", 64), *_whole("pid"), _text("process", 40)),
        sa.ForeignKeyConstraint(["series_id"], ["series.id"], name="fk_run_series_id"),
        sa.PrimaryKeyConstraint("id", name="pk_run"),
    )
    # Lists of runs are searched and sorted by these columns.
    for column in ("series_id", "started", "status"):
        op.create_index(f"ix_run_{column}", "run", [column])


def _run_site() -> None:
    _make(
        "run_site",
        *(_text("site", 120), *_long_text("title"), _text("status", 20), *_long_text("reason")),
        *(_big("rows", True), _big("holdout_rows", True), _text("disclosure", 20), _text("shared_as", 20)),
        sa.Column("resplit", sa.Boolean(), nullable=False),
        key=("run_id", "site"),
    )


def _rounds() -> None:
    _make(
        "metric",
        *(*_whole("round"), _text("site", 120, True), _text("arm", 40), _text("metric", 120)),
        *(*_floats("value", "low", "high", "variance"), _big("n", True)),
    )
    op.create_index("ix_metric_run_id_metric_round", "metric", ["run_id", "metric", "round"])
    _make(
        "sent",
        *(*_whole("round"), _text("site", 120), _text("direction", 20), _text("kind", 40), _big("bytes")),
    )
    # A page reads the newest rounds of a long run.
    op.create_index("ix_sent_run_id_round", "sent", ["run_id", "round"])
    _make(
        "event",
        *(_text("at", 32), *_whole("round", null=True), _text("site", 120, True), _text("kind", 40)),
        *_long_text("reason"),
        sa.Column("code", sa.String(120), nullable=False, server_default=""),
    )


def _comparison() -> None:
    _make(
        "comparison",
        *(_text("site", 120, True), _text("arm", 40), _text("against", 40, True), _text("metric", 120)),
        *(*_floats("value", "low", "high", "p"), _big("n", True), *_long_text("method", "verdict")),
    )


def _objects() -> None:
    _make("summary", _text("name", 120), *_json("payload"), key=("run_id", "name"))


def _audit() -> None:
    _make(
        "audit",
        *(_text("at", 32), _text("attack", 120), _text("site", 120, True), _text("metric", 120)),
        *(*_floats("value", "low", "high"), *_json("payload")),
    )
