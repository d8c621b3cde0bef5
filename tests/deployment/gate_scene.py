"""Real gates before a server that lies and has sites of its own, and all that it can compute of what they answer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Context, Message

from flfed.rows.data import datasets
from flfed.rows.data.site import Site
from flfed.rows.session import SiteSession
from flfed.rows.study_model import first_model, study_layout
from flfed.signatures import gate_fingerprint
from flfed.study.study import Study
from flfed.summaries.summary import fit_encoder, merge
from flfed.updates.aggregation.losses import ENTRIES
from flfed.updates.masking import keys, protocol, rules
from flfed.updates.masking import statement as statements
from flfed.updates.masking.keys import Chain, RunKey
from flfed.updates.masking.question import question_sha256
from flfed.updates.masking.statement import Statement
from flfed.updates.messages.enrol import ENROL, EnrolReply, EnrolRequest
from flfed.updates.messages.secure_sum import (
    KEYS,
    LIST,
    UNMASK,
    KeysReply,
    KeysRequest,
    ListReply,
    ListRequest,
    Masked,
    UnmaskReply,
    UnmaskRequest,
)
from flfed.updates.messages.summarise import SUMMARISE, SummariseReply, SummariseRequest
from flfed.updates.messages.train import TRAIN, TrainReply, TrainRequest
from tests.deployment.summing import Consortium, SummingGrid
from tests.updates.masking.play import PRIME, Exchange, Request, fewest_sites, reduce

MOST_ROWS = 198
_QUESTION = question_sha256
Codes = Callable[[str, str], bytes | None]
"""Returns what a server shows a site in place of what another one sent, None for that."""


@dataclass(eq=False)
class Vector:
    """A vector as a site masked it: what only the site knows of it, and what left.

    Attributes
    ----------
    site : str
    values : array
        The count and the numbers of the ring, without masks.
    masked : array
    links : mapping of site to bytes
    binding : bytes
    own : bytes
        Seed of its self-mask.
    least : int
        Shares that give it.
    sealed : dict of site to bytes
        Those shares.
    """

    site: str
    values: np.ndarray
    masked: np.ndarray
    links: Mapping[str, bytes]
    binding: bytes
    own: bytes
    least: int
    sealed: Mapping[str, bytes]
    question: str = ""
    weight: int = 1


class Impostor:
    """A key of the server, under the name of a site that works for it, or that it made up.

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
        return gate_fingerprint(self.signing.public_key().public_bytes_raw().hex())

    def statement(
        self, study: Study, run: str, repeat: int, pins: Mapping[str, str], lifted: tuple[str, ...] = ()
    ) -> bytes:
        """Return the signed statement of its key."""
        made = Statement(
            study_sha256=study.sha256(), run=run, repeat=repeat, site=self.name, public_key=self.key.public.hex(),
            signing_key=self.signing.public_key().public_bytes_raw().hex(), pins=statements.pins_hash(pins),
            lifted=lifted, flfed="0",
        )  # fmt: skip
        return statements.pack(made, statements.sign(made, self.signing))


class GateScene:
    """Gates of honest sites before a server that does as a test says; it has the interface of the play in symbols.

    What the server computes is decided by linear algebra over what it has: vectors, shares and seeds that sites
    opened, and all that its own sites have. Each equation is held to the numbers.

    Parameters
    ----------
    sites : list of Site
        The honest ones, with their rows.
    study : Study
    monkeypatch : MonkeyPatch
        Notes what sites mask.
    colluders : int
    silent : int
        Honest sites that are pinned and sign keys, and that nobody asks for more.

    Attributes
    ----------
    guess : bytes
        Seed of a self-mask that the server knows where a fault gives it away.
    """

    guess = b""

    def __init__(
        self, sites: list[Site], study: Study, monkeypatch: pytest.MonkeyPatch, colluders: int, silent: int = 0
    ) -> None:
        self.study, self.schema = study, datasets.load("small").schema
        self.impostors = {name: Impostor(name) for name in (f"x-{number:02d}" for number in range(colluders))}
        self.silent = {name: Impostor(name) for name in (f"s-{number:02d}" for number in range(silent))}
        others = {one.name: one.fingerprint for one in (*self.impostors.values(), *self.silent.values())}
        self.gated = Consortium(sites, study, others)
        self.all, self.honest = sorted(self.gated.pins), sorted(self.gated.sites)
        self.pinned = {"study": frozenset(self.all)}
        self.colluders = frozenset(self.impostors)
        self.least, self.said = rules.threshold(len(self.all)), list[str]()
        self._contexts = {str(one.node_config["site"]): one for one in SummingGrid(self.gated)._contexts.values()}
        self._signed: dict[tuple[int, int, str], bytes] = {}
        self._told: dict[tuple[int, str], tuple[KeysRequest, bytes]] = {}
        self._made: dict[bytes, Vector] = {}
        self.vectors: dict[tuple[int, int, int, str], Vector] = {}
        self.kinds: dict[tuple[int, int, int, str], tuple[str, int]] = {}
        self.codes: dict[tuple[Any, ...], bytes] = {}
        self.counted, self.lifting = set[int](), ()
        self.seeds, self.opened = set[bytes](), dict[bytes, bytes]()
        self._watch(monkeypatch)
        layout, summary = study_layout(study, self.schema), merge([SiteSession(one, study).summary() for one in sites])
        self._arrays, self.encoder = first_model(study, self.schema), fit_encoder(layout, summary, study.encode.scaler)

    @property
    def server(self) -> GateScene:
        """Itself, as attacks of the play ask it for the server's own sites."""
        return self

    def _watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        mask, draw, drawn = protocol.mask_vector, protocol.draw_secret, list[bytes]()

        def noted(*given: Any) -> bytes:
            drawn.append(draw(*given))
            return drawn[-1]

        def masked(site: str, updates: np.ndarray, sums: np.ndarray, **given: Any) -> Any:
            made = mask(site, updates, sums, **given)
            values, left = (updates, made.updates) if updates.size else (sums, made.sums)
            self._made[left.tobytes()] = Vector(
                site, np.append(values.dtype.type(1), values), left, dict(given["links"]), given["binding"],
                drawn[-1], given["least"], dict(made.sealed),
            )  # fmt: skip
            return made

        monkeypatch.setattr(protocol, "draw_secret", noted)
        monkeypatch.setattr(protocol, "mask_vector", masked)

    def ask(self, run: int, repeat: int, site: str, kind: str, request: Any) -> Message:
        """Return a gate's reply, and note why there is none."""
        context: Context = self._contexts[site]
        context.run_config |= {"run": self.run(run), "repeat": repeat, "sites": ",".join(self.all)}
        message = Message(request.to_record(), dst_node_id=context.node_id, message_type=kind)
        reply = self.gated.gates[site].answer(message, context)
        if reply.has_error():
            self.said.append(f"{site}: {reply.error.reason}")
        return reply

    @staticmethod
    def step(kind: str, round: int) -> int:
        """Return the step of the chain at a question."""
        return round

    def run(self, number: int) -> str:
        """Return a run's name."""
        return f"20261120-{number:06d}-aaaa"

    def statements(self, run: int, repeat: int, cohort: Iterable[str]) -> dict[str, bytes]:
        """Return the statement of each of a cohort."""
        request, found = EnrolRequest(dataset="small", schema_sha256=self.schema.sha256()), dict[str, bytes]()
        for name in cohort:
            if name in self.gated.sites and (run, repeat, name) in self._signed:
                found[name] = self._signed[run, repeat, name]
            elif name in self.gated.sites:
                found[name] = self._signed[run, repeat, name] = EnrolReply.from_record(
                    self.ask(run, repeat, name, ENROL, request).content
                ).statement
            else:
                one = (self.impostors | self.silent)[name]
                found[name] = one.statement(self.study, self.run(run), repeat, self.gated.pins, self.lifting)
        return found

    def forget(self, site: str) -> None:
        """Have a site asked for its statement anew."""
        self._signed = {place: signed for place, signed in self._signed.items() if place[2] != site}

    def enter(
        self,
        run: int,
        cohort: Iterable[str],
        sites: Iterable[str] | None = None,
        study: str = "study",
        *,
        repeat: int = 0,
        most_rows: int = MOST_ROWS,
        shown: Mapping[str, bytes] | None = None,
    ) -> int:
        """Begin a run, and return how many honest sites take the keys; `shown` are statements in others' place."""
        self.counted.add(run)
        names = sorted(cohort)
        signed = self.statements(run, repeat, names) | dict(shown or {})
        request = KeysRequest(
            cohort=",".join(names), most_rows=most_rows, statements=tuple(signed[name] for name in names)
        )
        took = 0
        for site in self._asked(names if sites is None else sites):
            reply = self.ask(run, repeat, site, KEYS, request)
            if not reply.has_error():
                sha256 = bytes.fromhex(KeysReply.from_record(reply.content).sha256)
                self._told[run, site] = (request, sha256)
                took += 1
        return took

    def train(self, where: Exchange, request: Request, sites: Iterable[str] | None = None, **changes: Any) -> int:
        """Ask for masked vectors, and return how many come."""
        if where.run not in self.counted:
            self.enter(where.run, self.all)
        return sum(self._train(where, request, site, changes) for site in self._asked(sites))

    def request(self, round: int, request: Request, **changes: Any) -> TrainRequest:
        """Return the message of a play's request; what is blank has no learning rate."""
        shift = 0.0 if request.model == "model" else 0.1 * sum(map(ord, request.model))
        arrays = {name: value + np.float32(shift) for name, value in self._arrays.items()}
        given: dict[str, Any] = {"arrays": arrays, "encoder": self.encoder, "lr_scale": 0.0 if request.blank else 1.0}
        return TrainRequest(
            **{**given, "round": round, "rounds": self.study.rounds, "settings": {}, "score": False, **changes}
        )

    def _train(self, where: Exchange, asked: Request, site: str, changes: Mapping[str, Any]) -> bool:
        kind = SUMMARISE if asked.kind == "summarise" else TRAIN
        message = self.request(where.round, asked, **changes) if kind == TRAIN else None
        reply = self.ask(where.run, where.repeat, site, kind, message or SummariseRequest())
        if reply.has_error():
            return False
        of_kind: Any = TrainReply if kind == TRAIN else SummariseReply
        masked: Masked | None = of_kind.from_record(reply.content).masked
        assert masked is not None, "a plain answer left"
        made = self._made[(masked.vector if masked.vector.size else masked.sums).tobytes()]
        made.question = _QUESTION(self.study, kind, message)
        made.weight = MOST_ROWS // self._told[where.run, site][0].most_rows
        place = (where.run, where.repeat, where.round, site)
        self.vectors[place], self.kinds[place] = made, (kind, where.round if kind == TRAIN else 0)
        return True

    def confirm(self, where: Exchange, listed: Iterable[str], sites: Iterable[str] | None = None) -> int:
        """Ask sites to confirm a list, and return how many do."""
        members, done = sorted(listed), 0
        for site in self._asked(members if sites is None else sites):
            place = (where.run, where.repeat, where.round, site)
            kind, round = self.kinds.get(place, (TRAIN, where.round))
            request = ListRequest(kind=kind, round=round, listed=",".join(members))
            reply = self.ask(where.run, where.repeat, site, LIST, request)
            if not reply.has_error():
                made = ListReply.from_record(reply.content).codes
                self.codes |= {
                    (*place, frozenset(members), to): code.tobytes() for to, code in zip(members, made, strict=True)
                }
                done += 1
        return done

    def unmask(
        self,
        where: Exchange,
        listed: Iterable[str],
        sites: Iterable[str] | None = None,
        *,
        codes: Codes = lambda site, sender: None,
        sealed: Codes = lambda site, sender: None,
        spoilt: Collection[str] = (),
    ) -> int:
        """Ask sites to open a list with all confirmations that there are, and return how many do.

        The shares of `spoilt` sites are none for them.
        """
        members = sorted(listed)
        if spoilt:
            sealed = lambda site, sender: bytes(48) if sender in spoilt else None  # noqa: E731 - one rule of many
        return sum(
            self._unmask(where, members, site, codes, sealed)
            for site in self._asked(members if sites is None else sites)
        )

    def _unmask(self, where: Exchange, members: list[str], site: str, codes: Codes, sealed: Codes) -> bool:
        place = (where.run, where.repeat, where.round)
        own, (kind, round) = self.vectors.get((*place, site)), self.kinds.get((*place, site), (TRAIN, where.round))
        given, confirmed = list[bytes](), list[bytes]()
        for sender in members:
            link = self.link(where, sender, site)
            binding = own.binding if own else bytes(32)
            theirs = self.vectors.get((*place, sender))
            if link:
                share = keys.seal(link, binding, bytes(32), sender=sender, receiver=site)
                code = keys.confirmation(link, binding, frozenset(members), sender=sender, receiver=site)
            else:
                share = theirs.sealed.get(site, bytes(48)) if theirs else bytes(48)
                code = self.codes.get((*place, sender, frozenset(members), site), bytes(32))
            given.append(sealed(site, sender) or share)
            confirmed.append(codes(site, sender) or code)
        request = UnmaskRequest(
            kind=kind, round=round, listed=",".join(members), shares=_rows(given), codes=_rows(confirmed)
        )
        reply = self.ask(where.run, where.repeat, site, UNMASK, request)
        if reply.has_error():
            return False
        opened = UnmaskReply.from_record(reply.content)
        self.opened |= {one: share.tobytes() for one, share in zip(given, opened.shares, strict=True)}
        self.seeds |= {seed.tobytes() for seed in opened.seeds}
        return True

    def add_up(self, where: Exchange, listed: Iterable[str], sites: Iterable[str] | None = None, **given: Any) -> int:
        """Ask sites to confirm and to open a list, and return how many open it."""
        members = list(listed)
        self.confirm(where, members, sites)
        return self.unmask(where, members, sites, **given)

    def _asked(self, sites: Iterable[str] | None) -> list[str]:
        return [name for name in sorted(self.honest if sites is None else sites) if name in self.gated.sites]

    def link(self, where: Exchange, sender: str, site: str) -> bytes | None:
        """Return the link of a key of the server with a site, None where the sender's key is its own."""
        told = self._told.get((where.run, site))
        if sender not in self.impostors or told is None or sender not in told[0].cohort.split(","):
            return None
        kind, round = self.kinds.get((where.run, where.repeat, where.round, site), (TRAIN, where.round))
        public = self._public(told[0], site)
        found = keys.pair_secrets(sender, self.impostors[sender].key, {site: public}, told[1])
        assert isinstance(found, dict)
        step = self.step(kind, round)
        return Chain.start(found).moved(step).links[-1][site]

    def _public(self, request: KeysRequest, site: str) -> bytes:
        """Return the public key that a site has been told as its own."""
        return request.statements[request.cohort.split(",").index(site)][:32]

    def equations(self) -> list[tuple[Vector, dict[Any, int]]]:
        """Return each vector as what is left of it without the masks that the server knows: updates and masks."""
        found = []
        for (run, repeat, round, site), vector in self.vectors.items():
            where, row, bare = Exchange(run, repeat, "any", round), dict[Any, int](), vector.masked.copy()
            left = vector.values.copy()
            if vector.values[1:].any():
                row["update", site, vector.question] = vector.weight
            for peer in vector.links.keys() - {site}:
                seed, sign = keys.mask_seed(vector.links[peer], vector.binding), 1 if site < peer else -1
                if seed in self.seeds or self.link(where, peer, site) == vector.links[peer]:
                    _add(bare, seed, -sign)
                else:
                    row["seed", seed] = row.get(("seed", seed), 0) + sign
                    _add(left, seed, sign)
            if self._self_mask(where, vector):
                _add(bare, vector.own, -1)
            else:
                row["mask", vector.masked.tobytes()] = 1
                _add(left, vector.own, 1)
            np.testing.assert_array_equal(bare, left)
            found.append((vector, row))
        return found

    def _self_mask(self, where: Exchange, vector: Vector) -> bool:
        """Tell whether the server has the seed of a vector's self-mask."""
        parts = {}
        for x, peer in enumerate(sorted(vector.links), start=1):
            link, sealed = self.link(where, peer, vector.site), vector.sealed[peer]
            if link and link == vector.links[peer]:
                own = keys.unseal(link, vector.binding, sealed, sender=vector.site, receiver=peer)
                assert isinstance(own, bytes)
                parts[x] = own
            elif sealed in self.opened:
                parts[x] = self.opened[sealed]
        known = self.guess or (protocol.recover_secret(parts, vector.least) if len(parts) >= vector.least else b"")
        assert known in (b"", vector.own)
        return known != b""

    def _reduced(self, last: str = "") -> tuple[list[Vector], list[Any], np.ndarray]:
        """Return vectors, updates, and what the server can make of them: updates and vectors of a combination a row.

        Of a site that stands last, the combinations that have nothing of others are rows of their own.
        """
        both = [(vector, row) for vector, row in self.equations() if not any(name[0] == "mask" for name in row)]
        seeds = sorted({name for _, row in both for name in row if name[0] == "seed"})
        updates = sorted({name for _, row in both for name in row if name[0] == "update"})
        updates.sort(key=lambda name: name[1] == last)
        symbols = [*seeds, *updates]
        matrix = np.zeros((len(both), len(symbols) + len(both)), dtype=np.int64)
        for number, (_, row) in enumerate(both):
            matrix[number, [symbols.index(name) for name in row]] = list(row.values())
            matrix[number, len(symbols) + number] = 1
        reduced, pivots = reduce(matrix)
        rows = [number for number, pivot in enumerate(pivots) if len(seeds) <= pivot < len(symbols)]
        return [vector for vector, _ in both], updates, reduced[rows][:, len(seeds) :]

    def fewest(self, below: int = 10**6) -> int | None:
        """Return the fewest honest sites of a sum that the server can compute, None where none has so few."""
        _, updates, rows = self._reduced()
        sums = [{name: int(value) for name, value in zip(updates, row) if value} for row in rows]
        return fewest_sites(sums, below)

    @property
    def promised(self) -> int:
        """The fewest honest sites that any sum may have."""
        return self.least - len(self.colluders)

    @property
    def lost(self) -> bool:
        """Whether the server can compute a sum of fewer honest sites than promised."""
        return self.fewest(self.promised) is not None

    def bare(self) -> dict[str, float]:
        """Compute what can be computed of single sites; by site, how far it is off, over its largest entry."""
        left = {vector.masked.tobytes(): _without(vector, row) for vector, row in self.equations()}
        return {site: off for site in self.honest if (off := self._bare(site, left)) is not None}

    def _bare(self, site: str, left: Mapping[bytes, np.ndarray]) -> float | None:
        vectors, updates, rows = self._reduced(last=site)
        of_site = [
            row for row in rows if {updates[place][1] for place in np.flatnonzero(row[: len(updates)])} == {site}
        ]
        if not of_site:
            return None
        of_updates, of_vectors = (
            [_signed(int(value)) for value in part] for part in np.split(of_site[0], [len(updates)])
        )
        dtype = vectors[0].values.dtype
        parts = [left[vector.masked.tobytes()][1:] * dtype.type(times % 2 ** (8 * dtype.itemsize))
                 for vector, times in zip(vectors, of_vectors, strict=True)]  # fmt: skip
        true = {("update", one.site, one.question): _numbers(one.values[1:]) / one.weight for one in vectors}
        wanted = np.sum([times * true[name] for name, times in zip(updates, of_updates, strict=True) if times], axis=0)
        seen = _numbers(np.sum(parts, axis=0, dtype=dtype))
        return float(np.abs(seen - wanted).max() / np.abs(wanted).max())


def _without(vector: Vector, row: Mapping[Any, int]) -> np.ndarray:
    """Return a vector with those masks alone that the server does not know."""
    left = vector.values.copy()
    for name, times in row.items():
        if name[0] == "seed":
            _add(left, name[1], times)
    return left


def _signed(value: int) -> int:
    return value if value < PRIME // 2 else value - PRIME


def _numbers(values: np.ndarray) -> np.ndarray:
    return values.view(np.int32 if values.dtype == np.uint32 else np.int64).astype(float)


def _add(numbers: np.ndarray, seed: bytes, times: int) -> None:
    """Add the mask of a seed in place, so many times."""
    wide = numbers.dtype == np.uint64
    # An update's weight and losses stand beside it, with a count: numbers of 64 bits, of which the key stream is first.
    mask = keys.stream(seed, 0 if wide else numbers.size, numbers.size if wide else 2 + ENTRIES)[wide]
    for _ in range(abs(times)):
        (np.add if times > 0 else np.subtract)(numbers, mask, out=numbers)


def _rows(parts: Collection[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(parts), np.uint8).reshape(len(parts), -1)
