"""Sites that sum in secret, each behind its own gate with its own signing key, in one process without a network."""

import copy
import datetime
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Context, Error, Message
from flwr.serverapp import Grid

from flfed.callbacks import RunObserver, no_observer, no_progress
from flfed.deployment.gate.gate import Gate
from flfed.deployment.operator.secure_sums import has_sums
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
from flfed.records.site_state import state_of
from flfed.records.store.entries import RunEntry
from flfed.records.store.reader import RunReader
from flfed.records.store.writer import RunStore, RunWriter
from flfed.refusals import Refusal
from flfed.rows.data import datasets
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site
from flfed.rows.session import SiteSession
from flfed.rows.snapshots import snapshot
from flfed.rows.study_model import first_model, study_layout
from flfed.signatures import gate_fingerprint, signing_public
from flfed.study.study import Study
from flfed.summaries.summary import fit_encoder, merge
from flfed.updates.aggregation.losses import ENTRIES as LOSSES
from flfed.updates.arrays import Arrays, flattened, unflattened
from flfed.updates.checkpoints.made import Made, request_sha256
from flfed.updates.checkpoints.site_state import StateFiles
from flfed.updates.masks import pairs
from flfed.updates.masks.pairs import TAG_ENTRIES, Exchange, RunKey, SignedKey
from flfed.updates.masks.ring import LARGEST_ENTRY, rings
from flfed.updates.masks.verify import LOW_BITS, compute_tag
from flfed.updates.messages.compare import CompareRequest
from flfed.updates.messages.enrol import ENROL, EnrolReply, EnrolRequest
from flfed.updates.messages.secure_sum import KEYS, KeysReply, KeysRequest, Masked, SharedKey
from flfed.updates.messages.summarise import SUMMARISE, SummariseRequest
from flfed.updates.messages.train import EVALUATE, NO_ENCODER, TRAIN, TrainRequest

TODAY = datetime.date(2026, 11, 20)
SUMS_OVER_ROWS = Exchange(SUMMARISE, 0, request_sha256(SUMMARISE, None))
"""The exchange of a run's first sums."""
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
        """Approve the study at one site, with the keys of all where it has sums."""
        sums = has_sums(self.study, len(self.pins))
        facts = snapshot.read_facts(self.sites[name], self.folders[name].frozen)
        given = {
            "by": "Dr Kim", "co_sites": sorted(self.pins), "rows_sha256": facts.sha256 if facts else "",
            "schema_sha256": datasets.load(self.study.dataset.name).schema.sha256(),
            "sums": sums, "pins": self.pins if sums else {},
        }  # fmt: skip
        approval.approve(self.folders[name], self.study, **{**given, **changes})

    def approved(self, study: Study, sites: Sequence[str] = (), **changes: Any) -> "Consortium":
        """Return the same gates with another study, which these sites approve, or all of them."""
        other = copy.copy(self)
        names = list(sites or self.sites)
        other.study = study
        other.sites = {name: self.sites[name] for name in names}
        other.pins = {name: self.pins[name] for name in names}
        for name in names:
            other.approve(name, **changes)
        return other

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


class Impostor:
    """A gate of the server's under any name, with a key for its runs.

    Parameters
    ----------
    name : str
    signing : Ed25519PrivateKey, optional
    """

    def __init__(self, name: str, signing: Ed25519PrivateKey | None = None) -> None:
        self.name, self.signing = name, signing or Ed25519PrivateKey.generate()
        self.key = RunKey.new()

    @property
    def fingerprint(self) -> str:
        """What the others pin."""
        return gate_fingerprint(signing_public(self.signing))

    def signed(self, study: Study, run: str) -> bytes:
        """Return its key of a run as its gate signs it."""
        about = {"study_sha256": study.sha256(), "run": run, "repeat": 0, "changed": False}
        return SignedKey(site=self.name, public_key=self.key.public.hex(), **about).sign(self.signing).pack()


class LyingServer:
    """A server that sends each gate what it likes, in one run.

    Parameters
    ----------
    consortium : Consortium
    run : str
    sites : sequence of str, optional
        That the run says take part; all of the consortium otherwise.
    """

    def __init__(self, consortium: Consortium, run: str = "20261120-000001-aaaa", sites: Sequence[str] = ()) -> None:
        self.consortium, self.study, self.run = consortium, consortium.study, run
        self.schema = datasets.load(self.study.dataset.name).schema
        names = sorted(sites or consortium.pins)
        self.contexts: dict[str, Context] = {}
        for name in consortium.sites:
            (context,) = SummingGrid(consortium, run=run, sites=[name])._contexts.values()
            context.run_config["sites"] = ",".join(names)
            self.contexts[name] = context
        self.names = names
        self.shared: SharedKey | None = None
        self.shown: dict[str, bytes] = {}
        self.totals: dict[int, Masked] = {}
        self.scored: Masked | None = None

    def ask(self, site: str, kind: str, request: Any) -> Message:
        """Return a gate's reply."""
        context = self.contexts[site]
        message = Message(request.to_record(), dst_node_id=context.node_id, message_type=kind)
        return self.consortium.gates[site].answer(message, context)

    def signed(self, site: str) -> bytes:
        """Return the key that a gate signs at enrolment."""
        request = EnrolRequest(dataset=self.study.dataset.name, schema_sha256=self.schema.sha256())
        reply = self.ask(site, ENROL, request)
        assert not reply.has_error(), reply.error.reason
        enrolled = EnrolReply.from_record(reply.content)
        assert enrolled.accepted, enrolled.reason
        return enrolled.signed_key

    def keys(
        self, sites: Sequence[str] = (), most_rows: int = 0, shown: Mapping[str, bytes] | None = None
    ) -> dict[str, Message]:
        """Give the honest of some sites the keys of them all; `shown` stand in place of what gates sign."""
        names = sorted(sites or self.names)
        found = {name: self.signed(name) for name in names if name not in (shown or {})} | dict(shown or {})
        most = most_rows or max([key.rows_high for key in self.read(found)], default=1)
        request = KeysRequest(cohort=",".join(names), most_rows=most, signed=tuple(found[name] for name in names))
        self.shown = found
        return self.give(dict.fromkeys(names, request))

    def read(self, shown: Mapping[str, bytes]) -> list[SignedKey]:
        """Return those of some signed keys that can be read."""
        about: dict[str, Any] = {"study_sha256": self.study.sha256(), "run": self.run, "repeat": 0}
        return [key for one in shown.values() if isinstance(key := SignedKey.read(one, **about), SignedKey)]

    def secrets_of(self, colluder: Impostor) -> tuple[dict[str, bytes], bytes]:
        """Return what a site of the server's shares with each other site, and the key of the run's tags."""
        keys = self.read(self.shown)
        secrets = pairs.pair_secrets(colluder.name, colluder.key, keys, max(key.rows_high for key in keys))
        first, *others = sorted(self.shown)
        assert isinstance(secrets, dict) and self.shared is not None
        sealed = self.shared.keys[others.index(colluder.name)]
        run_key = pairs.unseal(pairs.RUN_KEY, sealed, secrets[first], sender=first, receiver=colluder.name)
        assert isinstance(run_key, bytes)
        return secrets, run_key

    def crafted(self, colluder: Impostor, total: Masked | None = None, exchange: Exchange = SUMS_OVER_ROWS) -> Masked:
        """Return a total, zeros of the sums over rows by default, with the tag that a site of the server's makes."""
        whole = total or self.no_total(0)
        for part in (whole.vector, whole.sums):
            part[:1] = len(self.shown)
        run_key = self.secrets_of(colluder)[1]
        tag = compute_tag(run_key, exchange, sorted(self.shown), whole.vector, whole.sums[:-TAG_ENTRIES])
        whole.sums[-TAG_ENTRIES:] = [tag % 2**LOW_BITS, tag >> LOW_BITS]
        return whole

    def give(self, requests: Mapping[str, KeysRequest]) -> dict[str, Message]:
        """Give sites their keys messages: first the one that makes the run's shared key, which the others get."""
        first, *others = sorted(requests)
        replies = {first: self.ask(first, KEYS, requests[first])} if first in self.contexts else {}
        if first in replies and not replies[first].has_error():
            self.shared = KeysReply.from_record(replies[first].content).shared
        for place, name in enumerate(others):
            if name in self.contexts:
                own = None if self.shared is None else replace(self.shared, keys=self.shared.keys[place : place + 1])
                replies[name] = self.ask(name, KEYS, replace(requests[name], shared=own))
        return replies

    def total(self, kind: str, request: Any) -> Masked:
        """Return the total of all sites' answers to a request."""
        return added([masked(self.ask(site, kind, request)) for site in self.consortium.sites])

    def last_total(self, rounds: int = 0) -> Masked:
        """Return the total of the step after which so many rounds are done; zeros where a site does not answer."""
        if rounds not in self.totals:
            asked = (SUMMARISE, SummariseRequest()) if rounds == 0 else (TRAIN, self.request(rounds))
            with suppress(AssertionError):
                self.totals[rounds] = self.total(*asked)
        return self.totals.get(rounds) or self.no_total(rounds)

    def no_total(self, rounds: int) -> Masked:
        """Return zeros in the form of a total."""
        layout = study_layout(self.study, self.schema)
        entries = sum(math.prod(shape) for shape in layout.shapes().values())
        size = sum(value.size for value in first_model(self.study, self.schema).values())
        vector, sums = (1 + size, 2 + LOSSES) if rounds else (0, 1 + entries)
        return Masked(vector=np.zeros(vector, np.uint32), sums=np.zeros(sums + TAG_ENTRIES, np.uint64))

    def model(self) -> dict[str, Any]:
        """Return a model and encoder of the server's choice."""
        layout = study_layout(self.study, self.schema)
        sessions = [SiteSession(site, self.study) for site in self.consortium.sites.values()]
        encoder = fit_encoder(layout, merge([one.summary() for one in sessions]), self.study.encode.scaler)
        return {"arrays": first_model(self.study, self.schema), "encoder": encoder}

    def request(self, round: int = 1, **changes: Any) -> TrainRequest:
        """Return a request of a round."""
        given: dict[str, Any] = {"round": round, "rounds": self.study.rounds, "settings": {}, "score": True}
        return TrainRequest(**{**given, **self.crossing(round - 1), **changes})

    def crossing(self, rounds: int = 0) -> dict[str, Any]:
        """Return what a request brings once so many rounds are done: a total, or a model of the server's choice."""
        if self.study.makes_models_at_sites:
            return {"arrays": {}, "encoder": NO_ENCODER, "total": self.last_total(rounds)}
        return self.model()

    def evaluation(self) -> TrainRequest:
        """Return a request to score the last model."""
        rounds = self.study.rounds
        return TrainRequest(round=rounds + 1, rounds=rounds, fit=False, **self.crossing(rounds))

    def comparison(self, *, scored: bool = False) -> CompareRequest:
        """Return a request to compare the model after one round, or the last one once all sites have scored it."""
        if not (scored and self.study.makes_models_at_sites):
            return CompareRequest(**self.crossing(1))
        if self.scored is None:
            self.scored = Masked(vector=np.zeros(0, np.uint32), sums=np.zeros(1 + LOSSES + TAG_ENTRIES, np.uint64))
            with suppress(AssertionError):
                self.scored = self.total(EVALUATE, self.evaluation())
        return CompareRequest(arrays={}, encoder=NO_ENCODER, total=self.scored)

    def train(self, site: str, round: int = 1, **changes: Any) -> Message:
        """Ask a site to train."""
        return self.ask(site, TRAIN, self.request(round, **changes))


def forget_step(folder: SiteFolder, round: int) -> None:
    """Leave a site as if it had been killed after it computed a round and before it answered."""
    with state_of(folder).transaction() as step:
        step.tables.execute("DELETE FROM steps WHERE round = ?", (round,))


def said(reply: Message) -> str:
    """Return why a gate did not answer, "" where it did."""
    return (reply.error.reason or "") if reply.has_error() else ""


def added(parts: Sequence[Masked]) -> Masked:
    """Return the sum of masked numbers, counts and tags included."""
    return Masked(
        vector=np.add.reduce([one.vector for one in parts], dtype=np.uint32),
        sums=np.add.reduce([one.sums for one in parts], dtype=np.uint64),
    )


def masked(reply: Message) -> Masked:
    """Return the masked numbers of a reply."""
    assert not reply.has_error(), reply.error.reason
    found = Masked.out_of(reply.content)
    assert found is not None, sorted(reply.content)
    return found


def untagged(server: LyingServer, round: int, way: np.ndarray) -> Masked:
    """Return a total of a round of which a gate would make the model that lies such a way from its own."""
    updates, weights = rings(len(server.names), LARGEST_ENTRY)
    whole = server.no_total(round)
    whole.vector[:] = [len(server.names), *updates.encode_total(way)]
    whole.sums[:2] = [len(server.names), *weights.encode_total(np.ones(1))]
    return whole


class Colluding(LyingServer):
    """A server with a site of its own at the gates of three hospitals: it has the key of the tags."""

    def __init__(self, found: Consortium, colluder: Impostor) -> None:
        super().__init__(found)
        self.colluder = colluder
        replies = self.keys(shown={colluder.name: colluder.signed(self.study, self.run)})
        assert {said(reply) for reply in replies.values()} == {""}
        self.model = first_model(self.study, self.schema)
        answers = [self.ask(site, SUMMARISE, SummariseRequest()) for site in found.sites]
        self.next = self.crafted(colluder, self.without_own(answers, SUMS_OVER_ROWS))

    def without_own(self, answers: Sequence[Message], exchange: Exchange) -> Masked:
        """Return the sum over the hospitals: of all answers, with the masks of the server's own site."""
        whole = added([masked(one) for one in answers])
        secrets = self.secrets_of(self.colluder)[0]
        masks = pairs.mask(self.colluder.name, secrets, exchange, whole.vector.size, whole.sums.size)
        return Masked(vector=whole.vector + masks[0], sums=whole.sums + masks[1])

    def summed(self, round: int) -> Arrays:
        """Have the gates train from the server's model, and return the sum of their updates."""
        answers = [self.train(site, round, total=self.next) for site in self.consortium.sites]
        # What the masks are bound to follows from what the server knows; it stands in a gate's state, too.
        made = Made.read(StateFiles(self.names[0], self.run))
        assert made is not None and made.round == round - 1
        np.testing.assert_allclose(flattened(made.model), flattened(self.model), atol=1e-12)
        self.exchange = made.exchange
        return self.decoded(self.without_own(answers, made.exchange))

    def decoded(self, total: Masked) -> Arrays:
        shapes = {name: (value.shape, np.dtype(np.float64)) for name, value in self.model.items()}
        return unflattened(rings(len(self.names), LARGEST_ENTRY)[0].decode(total.vector[1:]), shapes)

    def show(self, round: int, chosen: Arrays) -> None:
        """Forge the total of a round, of which each gate makes the chosen model."""
        total = untagged(self, round, flattened(chosen) - flattened(self.model))
        way = self.decoded(total)
        self.model = {name: self.model[name] + way[name] for name in way}
        self.next = self.crafted(self.colluder, total, self.exchange)
