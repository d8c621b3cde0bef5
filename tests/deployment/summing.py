"""Sites that sum in secret, each behind its own gate with its own signing key, in one process without a network."""

import datetime
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from flwr.app import Context, Error, Message
from flwr.serverapp import Grid

from flfed.callbacks import RunObserver, no_observer, no_progress
from flfed.deployment.gate.gate import Gate
from flfed.deployment.site_state import approval
from flfed.deployment.site_state.trusted_files import make_signing_key
from flfed.errors import FlfedError
from flfed.federation.engines.engine import Engine, RemoteSite
from flfed.federation.engines.inprocess import InProcessGrid
from flfed.federation.recording.recorder import Recorder
from flfed.federation.recording.run_record import Outcome
from flfed.federation.server.preflight import check
from flfed.federation.server.repeats import Series
from flfed.federation.server.server import FederatedRun
from flfed.paths import SiteFolder
from flfed.records.ledger import ledger_of
from flfed.records.ledger_line import Line
from flfed.records.store.entries import RunEntry
from flfed.records.store.reader import RunReader
from flfed.records.store.writer import RunStore, RunWriter
from flfed.refusals import Refusal
from flfed.rows.data import datasets
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site
from flfed.rows.snapshots import snapshot
from flfed.study.study import Study

TODAY = datetime.date(2026, 11, 20)
Fault = Callable[[str, str], bool | str]
"""Tells, of a site and a kind of message, what happens: nothing (False), or the site is not there (True); its process
is killed before it answers ("killed"), once its reply is kept and did not leave ("kept"), or once it left ("left"); or
the coordinator is killed before it asks ("crash")."""
Lie = Callable[[str, str, Message], Message]
"""Returns what a site sends in place of its reply."""


class CoordinatorKilled(FlfedError):
    """The end of a coordinator in the middle of an exchange."""


class Consortium:
    """Sites of one study, with a folder, a gate and an approval each.

    Parameters
    ----------
    sites : list of Site
    study : Study
    others : mapping of site to fingerprint
        That are pinned too, and have no gate here.
    """

    def __init__(self, sites: list[Site], study: Study, others: Mapping[str, str] | None = None) -> None:
        self.study, self.sites = study, {site.name: site for site in sites}
        self.folders = {name: SiteFolder(name) for name in self.sites}
        for name, site in self.sites.items():
            self.folders[name].make()
            snapshot.freeze(site, self.folders[name].frozen, None)
        self.pins = {name: make_signing_key(folder)[0] for name, folder in self.folders.items()} | dict(others or {})
        self.gates: dict[str, Gate] = {}
        for name in self.sites:
            self.approve(name)
            self.restart(name)

    def approve(self, name: str, **changes: Any) -> None:
        """Approve the study at one site, with the keys of all."""
        facts = snapshot.read_facts(self.sites[name], self.folders[name].frozen)
        given = {
            "by": "Dr Kim", "co_sites": sorted(self.pins), "rows_sha256": facts.sha256 if facts else "",
            "schema_sha256": datasets.load("small").schema.sha256(),
            "sums": True, "pins": self.pins,
        }  # fmt: skip
        approval.approve(self.folders[name], self.study, **{**given, **changes})

    def restart(self, name: str) -> None:
        """Stop a site's process, and start another."""
        self.gates[name] = Gate(self.folders[name], self.sites[name], today=lambda: TODAY)

    def lines(self, name: str) -> list[Line]:
        """Return the lines of a site's ledger."""
        return list(ledger_of(self.folders[name]).lines())


def summing(
    small_sites: Callable[..., list[Site]], study: Study, sites: int, institution: str = "", rows: int = 80
) -> Consortium:
    """Return so many sites of a study; the `institution` has no open rows."""
    found = []
    for site in small_sites(sites, rows=rows):
        disclosure: Any = "institution" if site.name == institution else "open"
        found.append(replace(site, policy=Policy(disclosure=disclosure, resplit=disclosure == "open")))
    return Consortium(found, study)


class SummingGrid(InProcessGrid):
    """A grid of gated sites, of which some may not be there; all that crossed is kept.

    Parameters
    ----------
    consortium : Consortium
    absent : callable (site, kind) → bool
    """

    sites_keep_state = True

    def __init__(
        self,
        consortium: Consortium,
        absent: Fault = lambda site, kind: False,
        *,
        lie: Lie = lambda site, kind, reply: reply,
        run: str = "",
        sites: Sequence[str] = (),
    ) -> None:
        self.sent: list[tuple[str, Message, Message]] = []
        self.absent, self.waiting = absent, False
        names = sorted(sites or consortium.sites)

        def answer(message: Message, context: Context) -> Message:
            site, kind = str(context.node_config["site"]), message.metadata.message_type
            fault, offline = self.absent(site, kind), Error(code=5, reason=str(Refusal("node-offline")))
            if fault == "crash":
                raise CoordinatorKilled(f"killed at {kind}")
            if fault == "kept":
                consortium.gates[site]._side(context).app()(message, context)
            elif fault == "left":
                consortium.gates[site].answer(message, context)
            if fault:
                consortium.restart(site)
                return Message(offline, reply_to=message)
            reply = consortium.gates[site].answer(message, context)
            reply = reply if reply.has_error() else lie(site, kind, reply)
            self.sent.append((site, message, reply))
            return reply

        config = {"study": consortium.study.text, "repeat": 0, "run": run, "sites": ",".join(names)}
        super().__init__(answer, names, config)  # type: ignore[arg-type]

    @property
    def nodes(self) -> dict[str, int]:
        """The node of each site."""
        return {str(context.node_config["site"]): node for node, context in self._contexts.items()}

    def send_and_wait(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Return replies, of sites too that are back by now."""
        self.waiting = True
        try:
            return self.send_and_receive(messages, timeout=timeout)
        finally:
            self.waiting = False

    def kinds(self) -> dict[str, int]:
        """Return how many messages of each kind were answered."""
        found: dict[str, int] = {}
        for _, message, _ in self.sent:
            kind = message.metadata.message_type
            found[kind] = found.get(kind, 0) + 1
        return found


class Coordinator(Engine):
    """A coordinator whose runs are begun and gone on with as `coordinator run` and `study resume` do.

    Parameters
    ----------
    consortium : Consortium
    """

    name = audited_by = "deployment"
    remote = True

    def __init__(self, consortium: Consortium) -> None:
        self.consortium = consortium
        self._given: dict[str, Any] = {}
        self._now = datetime.datetime.now(datetime.UTC)
        self.grid = SummingGrid(consortium)

    @contextmanager
    def started(self, sites: Any, run_config: Any, resources: Any) -> Iterator[tuple[Grid, None]]:
        """Give the grid of one part of a run."""
        self.grid = SummingGrid(self.consortium, run=str(run_config["run"]), **self._given)
        yield self.grid, None

    def run(self, run: str = "", *, observer: RunObserver = no_observer, **given: Any) -> RunEntry:
        """Begin a run, or go on with one, until it ends or the coordinator is killed; returns its record."""
        self._given, study = given, self.consortium.study
        # Runs are named by the second in which they begin.
        self._now += datetime.timedelta(minutes=1)
        with RunStore.open(clock=lambda: self._now) as store, suppress(CoordinatorKilled):
            with RunReader.open() as reader:
                entries = {entry.repeat: entry for entry in reader.runs_of(run)} if run else {}
            series = entries[0].series if run else store.begin_series(
                study=study.name, study_sha256=study.sha256(), study_text=study.text, repeats=1
            )  # fmt: skip
            sites = [RemoteSite(name) for name in self.consortium.sites]
            Series(
                store, series, 1, study, check(study), self, "one-by-one", sites, {}, no_progress, observer
            ).go_on(entries)  # fmt: skip
        with RunReader.open() as reader:
            return reader.runs_of(run)[0] if run else next(iter(reader.runs()))


def begun(store: RunStore, study: Study, engine: str = "deployment") -> RunWriter:
    """Begin a run of a study in a store."""
    series = store.begin_series(study=study.name, study_sha256=study.sha256(), study_text=study.text, repeats=1)
    return store.begin_run(
        series, engine=engine, path="one-by-one", seed=study.seed, rounds_planned=study.rounds,
        primary="roc_auc_score", task="binary", hashes={"schema": datasets.load("small").schema.sha256()},
    )  # fmt: skip


def conduct(consortium: Consortium, grid: SummingGrid, **given: Any) -> Outcome:
    """Conduct a run as a coordinator does, and return its outcome."""
    study = consortium.study
    with RunStore.open() as store:
        writer = begun(store, study)
        for context in grid._contexts.values():
            context.run_config["run"] = writer.run
        recorder = Recorder(writer, "roc_auc_score", study.rounds)
        return FederatedRun(grid, study, recorder, each_round=True, **given).conduct()
