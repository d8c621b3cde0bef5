"""What tests of runs share: a grid that listens, and a run conducted over it into a real store."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import pytest
from flwr.app import Message, RecordDict
from sqlalchemy import text

from flfed.errors import FlfedError
from flfed.federation.client.client import SiteClient
from flfed.federation.engines.inprocess import InProcessGrid
from flfed.federation.engines.pooled_reference import PooledReference
from flfed.federation.recording.recorder import Recorder
from flfed.federation.recording.run_record import Outcome
from flfed.federation.server.preflight import check
from flfed.federation.server.server import FederatedRun
from flfed.records.store.database import engine_to_read, store_url
from flfed.records.store.reader import RunReader
from flfed.records.store.writer import RunStore
from flfed.rows.data.site import Policy, Site
from flfed.rows.session import SiteSession
from flfed.rows.training.answer import compute_one_by_one
from flfed.study.study import Study
from flfed.summaries.summary import Encoder
from flfed.updates.messages.compare import COMPARE
from flfed.updates.messages.train import EVALUATE, TRAIN, lacks_encoder, with_encoder

Change = Callable[[Message], Message | None]


@dataclass(frozen=True)
class Heard:
    """One message that crossed, and between whom."""

    site: str
    direction: str
    kind: str
    message: Message


@dataclass
class ListeningGrid(InProcessGrid):
    """The in-process grid, with everything that crosses written down, and replies changed on demand."""

    app: Any
    sites: Sequence[str]
    config: dict[str, Any]
    change: Change | None = None
    before_training: Callable[[], None] | None = None
    heard: list[Heard] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(self.app, self.sites, self.config)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        asked = list(messages)
        if self.before_training is not None and asked[0].metadata.message_type == TRAIN:
            self.before_training()
            self.before_training = None
        for message in asked:
            self._note(message, message.metadata.dst_node_id, "to-site")
        replies = super().send_and_receive(asked, timeout=timeout)
        changed = [reply if self.change is None else self.change(reply) for reply in replies]
        kept = [reply for reply in changed if reply is not None]
        for reply in kept:
            self._note(reply, reply.metadata.src_node_id, "to-server")
        return kept

    def _note(self, message: Message, node: int, direction: str) -> None:
        site = self.sites[node - 1]
        self.heard.append(Heard(site, direction, message.metadata.message_type, message))


@dataclass
class Conducted:
    """A run that was conducted: what came of it, what crossed, and its record."""

    run: str
    grid: ListeningGrid
    side: SiteClient
    reader: RunReader
    outcome: Outcome | None
    error: FlfedError | None
    study: Study

    def sessions(self) -> list[SiteSession]:
        """Return the open workplaces in site-name order."""
        return [self.side.sessions[key] for key in sorted(self.side.sessions)]

    def sent(self, kind: str, direction: str) -> list[Heard]:
        """Return the messages of a kind in one direction."""
        return [h for h in self.grid.heard if (h.kind, h.direction) == (kind, direction)]

    def reasons(self, kind: str) -> dict[str | None, str]:
        """Return the reason of the events of one kind by site."""
        return {event.site: event.reason for event in self.reader.events([self.run]) if event.kind == kind}


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the grid know whose each node is, as that of a deployment does."""
    nodes = property(lambda grid: {site: number for number, site in enumerate(grid.sites, start=1)})
    monkeypatch.setattr(ListeningGrid, "nodes", nodes, raising=False)


@pytest.fixture
def conduct() -> Iterator[Callable[..., Conducted]]:
    """A function that conducts one run over a listening grid, with the record in this test's home."""
    opened: list[RunReader] = []

    def go(
        sites: Sequence[Site],
        text: str,
        *,
        change: Change | None = None,
        before_training: Callable[[SiteClient], None] | None = None,
        tables: bool = False,
        repeat: int = 0,
    ) -> Conducted:
        study = Study.parse(text)
        facts = check(study)
        by_name = {site.name: site for site in sites}
        side = SiteClient(lambda name, _: by_name[name])
        grid = ListeningGrid(side.app(), list(by_name), {"study": study.text, "repeat": repeat}, change)
        if before_training is not None:
            grid.before_training = lambda: before_training(side)
        outcome, failure = None, None
        with RunStore.open() as store:
            series = store.begin_series(study=study.name, study_sha256=study.sha256(), study_text=text, repeats=1)
            writer = store.begin_run(
                series, engine="inprocess", path="one-by-one", seed=study.seed, rounds_planned=study.rounds,
                primary=facts["primary"], task=facts["task"], hashes={"schema": facts["schema"]},
            )  # fmt: skip
            recorder = Recorder(writer, facts["primary"], study.rounds)
            held = PooledReference(side, (study.text, repeat), compute_one_by_one) if tables else None
            try:
                outcome = FederatedRun(grid, study, recorder, repeat=repeat, tables=held).conduct()
            except FlfedError as error:
                failure = error
            if outcome is not None and outcome.status == "stopped":
                writer.finish(status=outcome.status, reason=outcome.reason)
        opened.append(RunReader.open())
        return Conducted(writer.run, grid, side, opened[-1], outcome, failure, study)

    yield go
    for reader in opened:
        reader.close()


@pytest.fixture(scope="session")
def conducted() -> dict[str, Conducted]:
    """Runs that several tests look at; none changes them."""
    return {}


@pytest.fixture
def plain(small_sites, small_study: str, conduct: Callable[..., Conducted], conducted: dict[str, Conducted]):
    """A run of three open sites and five rounds, with all that only all tables show."""
    if "plain" not in conducted:
        conducted["plain"] = conduct(small_sites(3, rows=200), small_study, tables=True)
    return conducted["plain"]


@pytest.fixture
def closed(small_sites, small_study: str, conduct: Callable[..., Conducted], conducted: dict[str, Conducted]):
    """The like of it with three institutions that keep small cells back."""
    if "closed" not in conducted:
        conducted["closed"] = conduct(small_sites(3, rows=80, policy=Policy()), small_study, tables=True)
    return conducted["closed"]


@pytest.fixture
def ask() -> Callable[..., Message]:
    """A function that sends one request to one site and returns its reply."""

    def go(side: SiteClient, site: str, kind: str, request: Any, study: str, repeat: int = 0, run: str = "") -> Message:
        grid = InProcessGrid(side.app(), [site], {"study": study, "repeat": repeat, "run": run})
        content = request.to_record() if hasattr(request, "to_record") else request
        return grid.send_and_receive([Message(content, dst_node_id=1, message_type=kind)])[0]

    return go


BRINGING = {TRAIN, EVALUATE, COMPARE}
"""Kinds of requests that bring a model."""


def request_of(kind: type[Any], content: RecordDict, encoder: Encoder) -> Any:
    """Return the request of a message whose encoder may have crossed as its hash."""
    return kind.from_record(with_encoder(content, encoder.arrays()) if lacks_encoder(content) else content)


@pytest.fixture
def record() -> Callable[[str], dict[str, Any]]:
    """A function that returns all that the store has of a run, but for times, ids and notes of a resume."""

    def read(run: str) -> dict[str, Any]:
        engine = engine_to_read(store_url())
        with engine.connect() as connection:

            def rows(table: str, *leave: str) -> list[tuple[Any, ...]]:
                found = connection.execute(text(f"SELECT * FROM {table} WHERE run_id = :run"), {"run": run}).mappings()
                kept = [{k: v for k, v in row.items() if k not in ("id", "run_id", "at", *leave)} for row in found]
                return sorted((tuple(row.values()) for row in kept), key=repr)

            parts = {name: rows(name) for name in ("comparison", "sent", "run_site", "summary")}
            # A resumed run enrols once more, and says so.
            parts["sent"] = [row for row in parts["sent"] if row[0] == 0 or "query.enrol" not in row]
            # After each enrolment the encoder crosses whole once more: test_encoder_once counts these bytes.
            parts["sent"] = [(*row[:-1], 0) if BRINGING.intersection(row) else row for row in parts["sent"]]
            parts["metric"] = [row for row in rows("metric") if "clock" not in row]
            parts["event"] = [row for row in rows("event") if row[-1] != "resumed"]
            columns = "status, rounds, best_round, arrays_sha256, seed, rounds_planned"
            parts["run"] = [*connection.execute(text(f"SELECT {columns} FROM run WHERE id = :run"), {"run": run})]
        engine.dispose()
        return parts

    return read


def tables(sites: list[Site]) -> pd.DataFrame:
    """All rows of all sites, held-out ones too."""
    read = [site.read() for site in sites]
    return pd.concat([part for of in read for part in (of.training, of.holdout("test"))], ignore_index=True)
