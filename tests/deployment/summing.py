"""Sites that sum in secret, each behind its own gate with its own signing key, in one process without a network."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

from flwr.app import Context, Error, Message

from flfed.deployment.gate.gate import Gate
from flfed.deployment.site_state import approval
from flfed.deployment.site_state.signing_key import make_signing_key
from flfed.federation.engines.inprocess import InProcessGrid
from flfed.federation.recording.recorder import Recorder
from flfed.federation.recording.run_record import Outcome
from flfed.federation.server.server import FederatedRun
from flfed.folders import SiteFolder
from flfed.records.ledger.ledger import ledger_of
from flfed.records.ledger.line import Line
from flfed.records.store.writer import RunStore, RunWriter
from flfed.rows.data import datasets
from flfed.rows.data.site import Site
from flfed.rows.snapshots import snapshot
from flfed.study.study import Study

BUNDLE = "ab" * 32
TODAY = datetime.date(2026, 11, 20)
Fault = Callable[[str, str], bool]
"""Tells, of a site and a kind of message, whether the site is not there."""


class Consortium:
    """Sites of one study, with a folder, a gate and an approval each.

    Parameters
    ----------
    sites : list of Site
    study : Study
    """

    def __init__(self, sites: list[Site], study: Study) -> None:
        self.study, self.sites = study, {site.name: site for site in sites}
        self.folders = {name: SiteFolder(name) for name in self.sites}
        for name, site in self.sites.items():
            self.folders[name].make()
            snapshot.freeze(site, self.folders[name].frozen, None)
        self.pins = {name: make_signing_key(folder)[0] for name, folder in self.folders.items()}
        self.gates: dict[str, Gate] = {}
        for name in self.sites:
            self.approve(name)
            self.restart(name)

    def approve(self, name: str, **changes: Any) -> None:
        """Approve the study at one site, with the keys of all."""
        facts = snapshot.known(self.sites[name], self.folders[name].frozen)
        given = {
            "by": "Dr Kim", "co_sites": sorted(self.sites), "rows_sha256": facts.sha256 if facts else "",
            "schema_sha256": datasets.load("small").schema.sha256(), "bundle_sha256": BUNDLE,
            "sums": True, "pins": self.pins,
        }  # fmt: skip
        approval.approve(self.folders[name], self.study, **{**given, **changes})

    def restart(self, name: str) -> None:
        """Stop a site's process, and start another."""
        self.gates[name] = Gate(self.folders[name], self.sites[name], today=lambda: TODAY, expected_bundle=BUNDLE)

    def lines(self, name: str) -> list[Line]:
        """Return the lines of a site's ledger."""
        return list(ledger_of(self.folders[name]).lines())


class SummingGrid(InProcessGrid):
    """A grid of gated sites, of which some may not be there; all that crossed is kept.

    Parameters
    ----------
    consortium : Consortium
    absent : callable (site, kind) → bool
    """

    sites_keep_state = True

    def __init__(self, consortium: Consortium, absent: Fault = lambda site, kind: False) -> None:
        self.sent: list[tuple[str, Message, Message]] = []
        self.absent = absent
        sites = sorted(consortium.sites)

        def answer(message: Message, context: Context) -> Message:
            site, kind = str(context.node_config["site"]), message.metadata.message_type
            if self.absent(site, kind):
                return Message(Error(code=5, reason="node offline"), reply_to=message)
            reply = consortium.gates[site].answer(message, context, BUNDLE)
            self.sent.append((site, message, reply))
            return reply

        config = {"study": consortium.study.text, "repeat": 0, "run": "", "sites": ",".join(sites)}
        super().__init__(answer, sites, config)  # type: ignore[arg-type]

    def kinds(self) -> dict[str, int]:
        """Return how many messages of each kind were answered."""
        found: dict[str, int] = {}
        for _, message, _ in self.sent:
            kind = message.metadata.message_type
            found[kind] = found.get(kind, 0) + 1
        return found


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
