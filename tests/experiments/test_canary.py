"""Nothing of a cell crosses or is written down: a planted text and a planted number are looked for everywhere.

They stand in id, group, category and number columns and in the path of each table. Whole runs are
made, with sites that fail in every way a table can fail, and every byte that crossed, was logged or
was written down is searched.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.common.serde import message_to_proto

from flfed import registry
from flfed.federation.client.client import SiteClient
from flfed.records.reports.report import report
from flfed.records.store.writer import EventRow, RunStore, RunWriter
from flfed.rows.data.site import Policy, Site
from flfed.rows.data.sources import Csv, Frame
from flfed.study.study import Study
from flfed.study.tables import TREES, VERTICAL
from flfed.summaries.summary import Encoder
from tests.boosting import trees_study

TEXT = "Jane-Roe-7f3a9c"
NUMBER = 73.19084377
"""Within the range of x1, 0 to 100; no sum, mean or share comes near it by chance in nine digits."""

Places = list[tuple[str, bytes]]


@dataclass(frozen=True, eq=False)
class Raising(Frame):
    """A table whose reading fails with its cells in the error's text, as pandas' own errors do."""

    def read(self, folders: tuple[Path, ...]) -> pd.DataFrame:
        cell, number = self.table["person"].iloc[0], self.table["x1"].iloc[0]
        raise ValueError(f"could not convert string to float: {cell!r} ({number!r})")


@dataclass(frozen=True, eq=False)
class Unreadable(Csv):
    """A file that cannot be read: the operating system's error names its path."""

    def read(self, folders: tuple[Path, ...]) -> pd.DataFrame:
        raise OSError(2, "No such file or directory", self.path)


def forms(values: Iterable[float]) -> dict[str, bytes]:
    """Return every way a number may stand in bytes: both precisions, both byte orders, and text."""
    found: dict[str, bytes] = {}
    for value in values:
        for dtype in ("<f8", ">f8", "<f4", ">f4"):
            found[f"{value} as {dtype}"] = np.array(value, dtype=dtype).tobytes()
        # Ten digits, and the seven that single precision keeps; rounding changes the last one only.
        for digits in (10, 7):
            found[f"{value} in {digits} digits"] = f"{value:.{digits}g}"[:-1].encode()
    return found


def needles(encoders: Iterable[Encoder] = ()) -> dict[str, bytes]:
    """Return what is looked for: the text, the number, and the number as each encoder scales it."""
    scaled = [float((NUMBER - encoder.center[0]) / encoder.scale[0]) for encoder in encoders]
    # (x - 50) / 50 is the unit of the moments.
    texts = {f"text as {coding}": TEXT.encode(coding) for coding in ("utf-8", "utf-16-le", "utf-16-be")}
    return texts | forms([NUMBER, (NUMBER - 50) / 50, *scaled])


def found_in(places: Places, wanted: dict[str, bytes]) -> list[str]:
    """Return where each needle was found, in words."""
    return [f"{name} in {place}" for place, content in places for name, needle in wanted.items() if needle in content]


def bytes_of(message: Message) -> bytes:
    """Return a message as Flower puts it on the wire, and its arrays' own values after it."""
    values = b""
    if message.has_content():
        arrays = [array for record in message.content.array_records.values() for array in record.values()]
        values = b"".join(array.data + array.numpy().tobytes() for array in arrays)
    return message_to_proto(message).SerializeToString() + values


def searched(done: Any, home: Path, log: pytest.LogCaptureFixture, out: Any) -> Places:
    """Return everything of a run that is to be searched, with a name for each place."""
    RunStore.open().close()  # folds the write-ahead log into the file
    places = [(f"{h.kind} {h.direction} {h.site}", bytes_of(h.message)) for h in done.grid.heard]
    places += [(str(path.relative_to(home)), path.read_bytes()) for path in home.rglob("*") if path.is_file()]
    said = out.readouterr()
    places += [("log", log.text.encode()), ("stdout", said.out.encode()), ("stderr", said.err.encode())]
    places.append(("report", json.dumps(report(done.reader, done.run)).encode()))
    return [*places, ("failure", str(done.error).encode())]


@pytest.fixture
def planted(small_sites, tmp_path: Path) -> Callable[..., list[Site]]:
    """Nine sites that hold the text and the number; the first three are sound, the others fail in their own ways."""
    schema = tmp_path / "root" / "datasets" / "small" / "schema.toml"
    schema.write_text(schema.read_text().replace('target = "y"', 'target = "y"\ngroup = "person"', 1))
    folder = tmp_path / f"ward-of-{TEXT}"
    folder.mkdir()

    def plant(number: int, table: pd.DataFrame) -> pd.DataFrame:
        table.loc[:5, "person"] = [f"{TEXT}-{row // 2}" for row in range(6)]  # three persons with two rows each
        table.loc[:5, "x1"] = NUMBER
        table = table.astype({"x1": object})
        if number == 3:
            table.loc[7, "x1"] = TEXT  # a number that is none
        if number == 4:
            table.loc[7, "colour"] = TEXT  # a value that the schema does not allow
        if number == 5:
            table.loc[7, "x1"] = NUMBER * 1e4  # out of range
        return table

    def make(policy: Policy) -> list[Site]:
        stored = []
        for number, site in enumerate(small_sites(9, rows=90, policy=policy, change=plant)):
            path = folder / f"{site.name}.csv"
            if number != 8:
                site.source.table.to_csv(path, index=False)
            source = {6: Raising(site.source.table), 7: Unreadable(str(path))}.get(number, Csv(str(path)))
            stored.append(replace(site, source=source))
        return stored

    return make


# Sites that keep small counts back grow no trees.
KINDS = [
    (strategy, disclosure)
    for strategy in registry.names("strategy")
    for disclosure in ("open", "institution")
    # Of parties with different columns the search is in tests/consortium/test_vertical.py.
    if (strategy, disclosure) != (TREES, "institution") and strategy != VERTICAL
]


@pytest.mark.studies
@pytest.mark.parametrize(("strategy", "disclosure"), KINDS)
def test_nothing_of_a_cell_crosses_or_is_written_down(
    planted,
    small_study: str,
    conduct: Callable[..., Any],
    home: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    strategy: str,
    disclosure: str,
):
    text = (
        trees_study(small_study)
        if strategy == TREES
        else small_study.replace('name = "fedavg"', f'name = "{strategy}"')
    )
    text = Study.parse(text).replace({"strategy.rounds": 2}).text
    with caplog.at_level(logging.DEBUG):
        done = conduct(planted(Policy(disclosure=disclosure)), text, tables=True)
    assert done.outcome.status == "completed"
    sound = done.sessions()
    assert [work.site.name for work in sound] == ["site-01", "site-02", "site-03"]
    rows = [table["x1"].eq(NUMBER).sum() for w in sound for table in (w.table.training, w.table.holdout("test"))]
    assert sum(rows) == 3 * 6 and rows[0] + rows[2] + rows[4] > 0

    places = searched(done, home, caplog, capfd)
    assert {place for place, _ in places} >= {"log", "report", "runs.db", "train to-server site-01"}
    assert sum(len(content) for _, content in places) > 100_000
    encoders = [done.outcome.encoder, *(work.own_encoder() for work in sound)]
    assert found_in(places, needles(encoders)) == []

    assert done.reasons("refused") == {
        "site-04": "column 'x1' is not a number in fewer than 10 rows",
        "site-05": "column 'colour' has a value that the schema does not allow in fewer than 10 rows",
        "site-06": "column 'x1' is outside the schema's range 0 to 100 mm in fewer than 10 rows",
        "site-09": "it cannot open its table for this study; at the site: flfed site check site-09",
    }
    faults = [event.reason for event in done.reader.events([done.run]) if event.kind == "fault"]
    assert faults == [
        "a node did not enrol: site-07: ValueError: see the site's log",
        "a node did not enrol: site-08: FileNotFoundError: see the site's log",
    ]
    assert "FileNotFoundError while answering query.enrol" in caplog.text


def test_a_handler_that_fails_on_a_cell_in_the_middle_of_a_run_gives_nothing_away(
    small_sites,
    small_study: str,
    conduct: Callable[..., Any],
    home: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
):
    def spoil(side: SiteClient) -> None:
        side.sessions["site-02", small_study, 0].table.training["x1"] = TEXT

    with caplog.at_level(logging.DEBUG):
        done = conduct(small_sites(4), small_study, before_training=spoil, tables=True)
    assert done.outcome.status == "completed"
    faults = [(e.round, e.site, e.reason) for e in done.reader.events([done.run]) if e.kind == "fault"]
    said = "ValueError: see the site's log"
    rounds = [(number, "site-02", said) for number in range(1, 7)]
    assert faults == [*rounds, (6, "site-02", f"no comparison: {said}")]
    assert "ValueError while answering train" in caplog.text
    assert found_in(searched(done, home, caplog, capfd), needles([done.outcome.encoder])) == []


def test_the_search_finds_what_is_planted_in_a_message_a_log_or_the_record(
    small_sites,
    small_study: str,
    conduct: Callable[..., Any],
    home: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
):
    def leak(reply: Message) -> Message:
        if reply.metadata.message_type == "query.summarise":
            reply.content["more"] = ConfigRecord({"row": TEXT})
        return reply

    done = conduct(small_sites(2), small_study.replace("rounds = 5", "rounds = 1"), change=leak)
    with RunStore.open() as store:
        writer = RunWriter(store._engine, store._url, done.run)
        writer.events([EventRow(None, None, "fault", f"age {NUMBER}")])
    logging.getLogger("flfed.site").warning("%r", np.float32(NUMBER))
    print(TEXT.upper(), TEXT)
    found = found_in(searched(done, home, caplog, capfd), needles())
    assert sorted(found) == sorted([
        *(f"text as utf-8 in query.summarise to-server site-0{number}" for number in (1, 2)),
        "text as utf-8 in stdout", f"{NUMBER} in 7 digits in log",
        *(f"{NUMBER} in {digits} digits in {place}" for digits in (7, 10) for place in ("runs.db", "report")),
    ])  # fmt: skip


ENCODER = Encoder(
    center=np.array([50.0]), scale=np.array([7.0]), frequency=np.zeros(0), spread=np.zeros(0), class_weight=np.ones(2)
)
SCALED = (NUMBER - 50) / 7


@pytest.mark.parametrize("content", [
    {"a": ConfigRecord({"person": TEXT})}, {"a": ConfigRecord({TEXT: 1})},
    {"a": ConfigRecord({"persons": ["somebody", TEXT]})}, {"a": ConfigRecord({"raw": TEXT.encode("utf-16-le")})},
    {"a": MetricRecord({"x1": NUMBER})}, {"a": MetricRecord({"x1": [1.0, NUMBER]})},
    {"a": ConfigRecord({"x1": f"mean {NUMBER:.4f}"})},
    *(
        {"a": ArrayRecord({"w": Array(np.array([0.1, v], dtype=d))})}
        for v in (NUMBER, SCALED)
        for d in ("<f4", "<f8")
    ),
    *(
        {"a": ConfigRecord({"w": np.array([v], dtype=d).tobytes()})}
        for v in (NUMBER, SCALED)
        for d in (">f4", ">f8")
    ),
    {"a": ArrayRecord({"z": Array(np.array([[(NUMBER - 50) / 50]]))})},
    {"a": ConfigRecord({"x1": repr(SCALED)})},
])  # fmt: skip
def test_the_search_finds_each_form_in_a_message(content: dict[str, Any]):
    message = Message(RecordDict(content), dst_node_id=1, message_type="train")
    assert len(found_in([("message", bytes_of(message))], needles([ENCODER]))) >= 1
    clean = Message(RecordDict({"a": MetricRecord({"x1": 73.19}), "b": ConfigRecord({"person": "Jane"})}), 1, "train")
    assert found_in([("message", bytes_of(clean))], needles([ENCODER])) == []


def test_the_search_finds_the_text_of_an_error(small_sites):
    request = Message(RecordDict({}), dst_node_id=1, message_type="train")
    request.metadata.__dict__["_message_id"] = "1"
    reply = Message(Error(code=1, reason=f"could not convert {TEXT!r}"), reply_to=request)
    assert found_in([("reply", bytes_of(reply))], needles()) == ["text as utf-8 in reply"]
