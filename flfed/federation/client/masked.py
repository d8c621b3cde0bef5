"""Secure sums at a site: its keys of a run, and its replies under masks.

A run has one cohort, all sites that the approval pins, and a sum is over all of them or is none. What is written here
stands in the site's state of the run, and survives the process.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from flfed.refusals import NotTakingPart, Refusal, decline, or_refuse, refuse
from flfed.rows.training.private_noise import NoiseSource, SeededNoise, SystemNoise
from flfed.rows.training.requests import PackRequest
from flfed.seeds import generator, noise_key
from flfed.signatures import canonical
from flfed.study.kinds import LEAST_PARTIES, exchange_number
from flfed.study.study import Study
from flfed.updates.aggregation.losses import Losses, draw_number, encode_losses
from flfed.updates.aggregation.summer import Summer
from flfed.updates.arrays import CIPHERTEXT, Arrays, byte_array, flattened, with_prefix, without_prefix
from flfed.updates.checkpoints.made import Made, SumRequest, request_sha256
from flfed.updates.checkpoints.site_state import ASKED, OF_RUN, RunState
from flfed.updates.masks.ckks import RoundTags, SecretContext, encrypt_update, open_context, open_mean, seal_context
from flfed.updates.masks.figure_sums import FigureLayout
from flfed.updates.masks.pairs import (
    KEY_BYTES,
    LEAST_SITES,
    RUN_KEY,
    Exchange,
    RunKey,
    SignedKey,
    check_cohort,
    keys_hash,
    mask,
    new_key,
    opener_of,
    pair_secrets,
    pins_hash,
    seal,
    unseal,
)
from flfed.updates.masks.ring import LARGEST_ENTRY, Ring, ring_of_counts, rings
from flfed.updates.masks.verify import open_total, tag_vector
from flfed.updates.mechanism import largest_entry, noise_of_site
from flfed.updates.messages.compare import COMPARE, CompareReply, CompareRequest
from flfed.updates.messages.secure_sum import KeysReply, KeysRequest, Masked, OpenRequest, SharedKey
from flfed.updates.messages.summarise import BINS, STATISTIC, SUMMARISE, BinsRequest, StatisticRequest
from flfed.updates.messages.train import EVALUATE, SUMS, TRAIN, TrainReply, TrainRequest

KEY, SIGNED, COHORT, SECRETS, SHARED, ENDED = (
    f"{OF_RUN}{name}" for name in ("key", "signed", "cohort", "secrets", "shared", "ended")
)
"""Names in a site's state of a run, which a false total ends."""
_PEER = "peer/"
REHEARSAL = b"flfed rehearsal"
"""Source of all pair secrets where one process rehearses for all sites: there is no secret."""


@dataclass(frozen=True, kw_only=True)
class SumApproval:
    """Approval of a study's secure sums by people at an institution.

    Attributes
    ----------
    pinned : mapping of site to fingerprint
        The run's sites, this one too.
    changed : bool
        Whether the dataset's sums are over other sites than before, as the signed keys say.
    allows_change : bool
        Whether the people agreed to that in this approval: else a key that says so is refused.
    key : Ed25519PrivateKey
        Of the gate, which signs the keys of runs.
    has_keys : callable (run) → bool
        Whether the site took the keys of a run before, by its ledger.
    trained_elsewhere : callable (model_sha256) → bool
        Whether the site trained from a model with other sites, by its ledger.
    """

    pinned: Mapping[str, str]
    changed: bool
    allows_change: bool
    key: Ed25519PrivateKey = field(repr=False)
    has_keys: Callable[[str], bool]
    trained_elsewhere: Callable[[str], bool] = lambda model: False


Approving = Callable[[Study], SumApproval | None]
"""Returns the approval of a study's secure sums, None where its updates may cross in the clear."""


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """The sites of a run's sums: all of them, in name order.

    `most_rows` is the upper end of the widest band of rows, `sha256` the hash of the whole message with the keys,
    `about` names study and repeat, and `pins` is the hash of the sites and fingerprints that the approval pinned, empty
    in a rehearsal. Rows are counted by prediction where `single_cells` allows it at all sites. `widths` are the shares
    of the model's hidden units that sites train.
    """

    sites: tuple[str, ...]
    most_rows: int
    sha256: str
    about: str
    single_cells: bool = False
    widths: tuple[float, ...] = ()
    pins: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class RunKeys:
    """A site's keys of one run; there are none without an approval, where one process rehearses for all sites."""

    site: str
    study: Study
    run: str
    repeat: int
    state: RunState
    approval: SumApproval | None

    def signed(self, *, single_cells: bool = False, width: float = 1.0, rows_high: int = 1) -> bytes:
        """Return the site's key of the run as its gate signed it, the same each time; b"" in a rehearsal."""
        if self.approval is None:
            return b""
        stored = self.state.read(SIGNED)
        if stored is not None:
            return stored["packed"].tobytes()
        key = RunKey.new()
        unsigned = SignedKey(
            study_sha256=self.study.sha256(),
            run=self.run,
            repeat=self.repeat,
            site=self.site,
            public_key=key.public.hex(),
            changed=self.approval.changed,
            single_cells=single_cells,
            width=float(width),
            rows_high=rows_high,
        )
        packed = unsigned.sign(self.approval.key).pack()
        self.state.write(KEY, {"private": byte_array(key.private)})
        self.state.write(SIGNED, {"packed": byte_array(packed)})
        return packed

    def read_signed(self, packed: Sequence[bytes], *, least: int = LEAST_SITES) -> list[SignedKey]:
        """Return the signed keys of a run's sites; raises NotTakingPart unless they are exactly those approved."""
        approval = self.approval
        if approval is None:
            raise ValueError("a rehearsal has no signed keys")
        about: dict[str, Any] = {"study_sha256": self.study.sha256(), "run": self.run, "repeat": self.repeat}
        keys = [or_refuse(SignedKey.read(one, **about)) for one in packed]
        allowed = approval.allows_change
        refuse(check_cohort(self.site, keys, approval.pinned, changed_allowed=allowed, least=least))
        # A second key in this site's own name would be one that the site has lost, or somebody else's.
        stored = self.state.read(SIGNED)
        if stored is None or stored["packed"].tobytes() not in packed:
            decline("sums-key-lost")
        # Its key was signed under an earlier approval.
        if any(key.site == self.site and key.changed != approval.changed for key in keys):
            decline("cohort-other")
        return keys

    def announced(self) -> bytes:
        """Return the public key as other parties take it: signed at an institution, bare where one process has all."""
        if signed := self.signed():
            return signed
        if self.state.read(KEY) is None:
            self.state.write(KEY, {"private": byte_array(RunKey.new().private)})
        return self.private().public

    def private(self) -> RunKey:
        """Return the site's own key of the run; raises NotTakingPart where it is lost."""
        return RunKey.of_private(self._stored(KEY)["private"].tobytes())

    def publics(self, keys: Mapping[str, bytes]) -> dict[str, str]:
        """Return the public key of each party; raises NotTakingPart unless they are those that the approval pins."""
        if self.approval is None:
            return {site: key.hex() for site, key in keys.items()}
        signed = self.read_signed([*keys.values()], least=LEAST_PARTIES)
        if {key.site: key.pack() for key in signed} != dict(keys):
            decline("parties-unfit")
        return {key.site: key.public_key for key in signed}

    def take(self, request: KeysRequest) -> KeysReply:
        """Take the keys of the run's cohort.

        Raises
        ------
        NotTakingPart
            If the cohort or a key differs from the approval, or the run has another cohort already.
        """
        sites = tuple(request.cohort.split(","))
        keys = [] if self.approval is None else self.read_signed(request.signed)
        if self.approval is not None and sites != tuple(sorted(key.site for key in keys)):
            decline("cohort-unfit")
        # Of other rows than the sites signed, updates would weigh next to nothing, and rounding would take their place.
        if self.approval is not None and request.most_rows != max(key.rows_high for key in keys):
            decline("cohort-unfit")
        message = keys_hash(keys, request.most_rows)
        if self.approval is None:
            message = hashlib.sha256(canonical([request.cohort, request.most_rows])).hexdigest()
        before = self.read_cohort()
        if before is not None and self.approval is not None and before.sha256 != message:
            decline("cohort-other")
        if before is None or self.approval is None:
            self._begin(Cohort(sites=sites, most_rows=request.most_rows, sha256=message, about=self._about), keys)
        # Every secret follows from it; after a crash it may still be here.
        if self.state.read(KEY) is not None:
            self.state.remove(KEY)
        return KeysReply(sha256=message, shared=self._share(request.shared, sites, message))

    def _begin(self, cohort: Cohort, keys: Sequence[SignedKey]) -> None:
        approval = self.approval
        if approval is None:
            secret = hashlib.sha256(REHEARSAL + bytes.fromhex(cohort.sha256)).digest()
            secret_by_peer = {site: secret for site in cohort.sites if site != self.site}
            # One process rehearses a run again with another encoder.
            if self.state.read(ASKED) is not None:
                self.state.remove(ASKED)
        else:
            # After the comparison, or where its state is lost, the site has no second key in a run.
            if approval.has_keys(self.run):
                decline("sums-key-lost")
            secret_by_peer = or_refuse(pair_secrets(self.site, self.private(), keys, cohort.most_rows))
            single_cells = all(key.single_cells for key in keys)
            widths = tuple(key.width for key in keys)
            cohort = replace(cohort, pins=pins_hash(approval.pinned), single_cells=single_cells, widths=widths)
        secrets = with_prefix(_PEER, {site: byte_array(secret) for site, secret in secret_by_peer.items()})
        self.state.write(SECRETS, {"message": byte_array(bytes.fromhex(cohort.sha256)), **secrets})
        self.state.write(COHORT, {"cohort": byte_array(canonical(asdict(cohort)))})

    def read_cohort(self) -> Cohort | None:
        """Return the run's cohort, None before its keys came."""
        stored = self.state.read(COHORT)
        return None if stored is None else _cohort_of(stored)

    def cohort(self) -> Cohort:
        """Return the run's cohort; raises NotTakingPart where its keys are missing, or the pins changed since."""
        cohort = _cohort_of(self._stored(COHORT))
        other_pins = self.approval is not None and cohort.pins != pins_hash(self.approval.pinned)
        if other_pins or cohort.about != self._about:
            decline("cohort-other")
        return cohort

    @property
    def _about(self) -> str:
        """Study and repeat that the keys are for."""
        return f"{self.study.sha256()}/{self.repeat}"

    def secrets(self) -> dict[str, bytes]:
        """Return the secret that the site shares with each other site; raises NotTakingPart where it is missing."""
        stored = self._stored(SECRETS)
        if stored["message"].tobytes().hex() != self.cohort().sha256:
            decline("cohort-other")
        return {site: secret.tobytes() for site, secret in without_prefix(_PEER, stored).items()}

    def rng(self, purpose: str, number: int = 0) -> np.random.Generator:
        """Return a generator of the site's draws for a purpose."""
        return generator(self.study.seed + self.repeat, site=self.site, purpose=purpose, number=number)

    def chance(self, number: int) -> NoiseSource:
        """Return the source of a round's noise: the operating system, except in a rehearsal."""
        if self.approval is not None:
            return SystemNoise()
        return SeededNoise(self.rng(f"site-noise {noise_key(self.study.text)}", number))

    def _stored(self, name: str) -> Arrays:
        stored = self.state.read(name)
        if stored is None:
            decline("sums-key-lost" if self.state.read(ENDED) is None else "total-unverified")
        return stored

    def _share(self, shared_key: SharedKey | None, sites: tuple[str, ...], message: str) -> SharedKey | None:
        """Make the run's shared keys at the first site, or take them at another.

        They are made and taken once: a repeated request gets the same bytes.
        """
        is_encrypted = self.study.aggregation.is_encrypted
        if self.approval is None and not is_encrypted:
            return None
        stored = self.state.read(SHARED)
        first = sites[0]
        if self.site == first:
            if stored is None:
                # A rehearsal rounds in the same way each time.
                key = hashlib.sha256(REHEARSAL + message.encode()).digest() if self.approval is None else new_key()
                sealed = seal(RUN_KEY, key, self.secrets(), sender=first)
                context = SecretContext.new().to_bytes() if is_encrypted else b""
                parts = {
                    "key": key,
                    "keys": b"".join(sealed[site] for site in sites if site != first),
                    "context": context,
                    "sealed": seal_context(key, context, message) if is_encrypted else b"",
                }
                stored = {name: byte_array(part) for name, part in parts.items()}
                self.state.write(SHARED, stored)
            each = stored["keys"].reshape(len(sites) - 1, -1)
            return SharedKey(sealed=stored["sealed"].tobytes(), keys=tuple(one.tobytes() for one in each))
        if stored is None:
            if shared_key is None or len(shared_key.keys) != 1:
                decline("key-unsealed", site=first)
            secret = self.secrets()[first]
            key = or_refuse(unseal(RUN_KEY, shared_key.keys[0], secret, sender=first, receiver=self.site))
            if len(key) != KEY_BYTES:
                decline("key-unsealed", site=first)
            context = or_refuse(open_context(key, shared_key.sealed, message)).to_bytes() if is_encrypted else b""
            self.state.write(SHARED, {"key": byte_array(key), "context": byte_array(context)})
        return None

    def run_key(self) -> bytes:
        """Return the key of the run's tags, which its sites have alone; raises NotTakingPart where it is missing."""
        return self._stored(SHARED)["key"].tobytes()

    def secret_context(self) -> SecretContext:
        """Return the run's key of homomorphic encryption; raises NotTakingPart where it is missing."""
        context: SecretContext = or_refuse(_context_of(self._stored(SHARED)["context"].tobytes()))
        return context

    def destroy_shared(self) -> None:
        """Destroy the run's keys: the site answers nothing more in the run."""
        self.state.write(ENDED, {"ended": np.ones(1, np.uint8)})
        for name in (SHARED, SECRETS):
            if self.state.read(name) is not None:
                self.state.remove(name)
        _context_of.cache_clear()


def _cohort_of(stored: Arrays) -> Cohort:
    facts = json.loads(stored["cohort"].tobytes())
    return Cohort(**{**facts, "sites": tuple(facts["sites"])})


# Every question of a run needs it, and reading it takes a few milliseconds.
@lru_cache(maxsize=2)
def _context_of(data: bytes) -> SecretContext | Refusal:
    return SecretContext.of_bytes(data)


@dataclass(frozen=True, eq=False)
class SiteSums:
    """A site's half of the secure sums of one run.

    A rehearsal has no keys: vectors are rounded and added as under masks, but without masks.
    """

    keys: RunKeys

    def masked(self, request: TrainRequest, reply: TrainReply, losses: Losses) -> Masking:
        """Return the reply of a round with its update, or the sums of a tree's level, under masks.

        `losses` are added up beside it. Under homomorphic encryption the update stands as ciphertexts, and its weight
        and losses are masked.

        Raises
        ------
        NotTakingPart
            If an entry is too large for a sum, or the site has no keys of the run.
        """
        exchange = self.exchange(request)
        if self.keys.study.grows_trees:
            return self._masked_level(exchange, request, reply, losses)
        cohort = self.keys.cohort()
        least = len(cohort.sites)
        strategy = self.keys.study.strategy.build("strategy")
        weight = strategy.relative_weight(reply, float(cohort.most_rows))
        entries = flattened(reply.delta)
        noise = noise_of_site(self.keys.study, least)
        # With noise every site counts the same, whatever the strategy says.
        if noise is not None:
            weight = 1.0
            entries = noise.clipped(entries)
        updates, sums = self.rings()
        rng = self.rng(exchange)
        if self.keys.study.aggregation.is_encrypted:
            vector = np.empty(0, np.uint32)
            reply = replace(reply, encrypted=self._encrypt(exchange, weight * entries))
        else:
            vector = or_refuse((yield PackRequest(updates.pack, weight * entries, rng=rng)))
        if noise is not None:
            vector = noise.added(vector, updates, self.keys.chance(exchange.step).normal)
        weights = or_refuse(sums.encode(np.array([weight]), rng))
        beside = np.concatenate([weights, self._losses(losses, rng)])
        return replace(reply, delta={}, masked=self._mask(exchange, vector, beside))

    def _encrypt(self, exchange: Exchange, values: np.ndarray) -> np.ndarray:
        asked = {"round": np.array([exchange.step]), "request": byte_array(bytes.fromhex(exchange.request_sha256))}
        self.keys.state.write(ASKED, asked)
        part: np.ndarray = or_refuse(
            encrypt_update(self._round_tags(exchange), self.keys.site, values, largest=LARGEST_ENTRY)
        )
        return part

    def _round_tags(self, exchange: Exchange) -> RoundTags:
        return RoundTags(
            self.keys.secret_context(), self.keys.run_key(), self.bound(exchange), self.keys.cohort().sites
        )

    def open_round(self, request: OpenRequest, entries: int) -> Masked:
        """Return the total of the last round that the site answered, with its update opened and rounded.

        It is as sums under masks give it, with a tag of the run key where sites make the models: so the other sites
        take it, and the coordinator reads the mean.

        Raises
        ------
        NotTakingPart
            If it is another round, opened for another request already, or no sum of one part of each site.
        """
        stored = self.keys.state.read(ASKED)
        is_turn = self.keys.site == opener_of(self.keys.cohort().sites, request.round)
        if stored is None or not is_turn or request.round != int(stored["round"][0]):
            decline("sum-not-opened", round=request.round)
        asked = Exchange(TRAIN, request.round, stored["request"].tobytes().hex())
        exchange = self.bound(asked)
        # The site has made another model since.
        if self.keys.approval is not None and exchange == asked:
            decline("sum-not-opened", round=request.round)
        return self._opened(exchange, request, entries)

    def _opened(self, exchange: Exchange, request: OpenRequest, entries: int) -> Masked:
        sites = self.keys.cohort().sites
        beside = request.total.sums[1:]
        if self.keys.approval is not None:
            beside = self.open_total(exchange, request.total)[1]
        updates, sums = self.rings()
        weight = float(sums.decode(beside[:1])[0])
        mean = open_mean(self._round_tags(exchange), request.encrypted[CIPHERTEXT], entries, weight)
        if isinstance(mean, Refusal):
            self.keys.destroy_shared()
            raise NotTakingPart(mean)
        vector = updates.encode_total(weight * mean)
        if self.keys.approval is None:
            return Masked(vector=_counted(vector, len(sites)), sums=_counted(beside, len(sites)))
        vector, tagged = tag_vector(self.keys.run_key(), exchange, sites, vector, beside)
        return Masked(vector=vector, sums=tagged)

    def _masked_level(self, exchange: Exchange, request: TrainRequest, reply: TrainReply, losses: Losses) -> TrainReply:
        # Modulo 2^64 a sum of whole numbers with signs is that of the same bits without.
        numbers = reply.extra[SUMS].ravel().view(np.uint64)
        if not request.settings["level"]:
            numbers = np.concatenate([numbers, self._losses(losses, self.rng(exchange))])
        return replace(reply, extra={}, masked=self._masked(exchange, numbers))

    def masked_counts(self, numbers: np.ndarray, kind: str, request: StatisticRequest | None = None) -> Masked:
        """Return sums over rows under masks, to which a row adds 1 at most; the same for each request."""
        exchange = self.exchange(request, kind)
        cohort = self.keys.cohort()
        ring = ring_of_counts(len(cohort.sites), cohort.most_rows)
        masked = self._masked(exchange, ring.encode(numbers, self.rng(exchange)))
        if kind == STATISTIC and self.keys.study.visits <= 1:
            self._end()
        return masked

    def _end(self) -> None:
        """Delete the secrets of a run whose last numbers are masked; a repeated request gets the stored ones."""
        if self.keys.approval is not None and self.keys.state.read(SECRETS) is not None:
            self.keys.state.remove(SECRETS)

    def masked_cells(self, request: BinsRequest, counts: Arrays) -> Masked:
        """Return rows by cell under masks, the same for each request."""
        numbers = np.concatenate([values.ravel() for values in counts.values()])
        return self._masked(self.exchange(request), numbers.astype(np.uint64))

    def masked_losses(self, request: TrainRequest, losses: Losses) -> Masked | None:
        """Return the losses of a model that is only scored, under masks; None where there are none.

        There are none where the run is over at the site.
        """
        if self.keys.read_cohort() is None:
            return None
        exchange = self.exchange(request)
        return self._masked(exchange, self._losses(losses, self.rng(exchange)))

    def masked_figures(self, request: CompareRequest, reply: CompareReply, layout: FigureLayout) -> Masked:
        """Return the figures of a comparison under masks; raises NotTakingPart where one of them is missing.

        The run ends with them: their masked numbers stay with the run, and the secrets of the pairs go.
        """
        exchange = self.exchange(request)
        cohort = self.keys.cohort()
        ring = layout.ring(len(cohort.sites), cohort.most_rows)
        masked = self._masked(exchange, layout.encode(reply, ring, self.rng(exchange), counts=cohort.single_cells))
        self._end()
        return masked

    def _losses(self, losses: Losses, rng: np.random.Generator) -> np.ndarray:
        cohort = self.keys.cohort()

        def seeded(low: int, high: int) -> int:
            return int(rng.integers(low, high, endpoint=True))

        # One process that rehearses draws by its seed.
        draw = draw_number if self.keys.approval else seeded
        numbers: np.ndarray = or_refuse(
            encode_losses(losses, sites=len(cohort.sites), most_rows=cohort.most_rows, rng=rng, draw=draw)
        )
        return numbers

    def _masked(self, exchange: Exchange, numbers: np.ndarray | Refusal) -> Masked:
        """Return numbers of 64 bits under masks; raises NotTakingPart in place of a refusal."""
        return self._mask(exchange, np.empty(0, np.uint32), or_refuse(numbers))

    def exchange(self, request: SumRequest, kind: str = SUMMARISE) -> Exchange:
        """Return the place of a request among those of the run; `kind` is that of one without content."""
        number = 0
        if isinstance(request, TrainRequest):
            kind = TRAIN if request.fit else EVALUATE
            level = int(request.settings["level"]) if request.fit and self.keys.study.grows_trees else 0
            number = exchange_number(request.round, level, self._exchanges)
        elif isinstance(request, StatisticRequest):
            kind = STATISTIC
            number = max(request.round, 0)
        elif isinstance(request, BinsRequest):
            kind = BINS
        elif request is not None:
            kind = COMPARE
        return Exchange(kind, number, request_sha256(kind, request))

    @cached_property
    def _exchanges(self) -> int:
        """Exchanges of a round: one, or one a level of a tree."""
        return self.keys.study.exchanges_of_round if self.keys.study.grows_trees else 1

    def rings(self) -> tuple[Ring, Ring]:
        """Return the rings of the run's updates, and of their weights."""
        sites = len(self.keys.cohort().sites)
        return rings(sites, largest_entry(self.keys.study, sites))

    def rng(self, exchange: Exchange) -> np.random.Generator:
        """Return the generator for rounding numbers to a ring, the same on every engine and for a repeated request."""
        return self.keys.rng(f"sum {exchange.kind}", exchange.step)

    def _mask(self, exchange: Exchange, vector: np.ndarray, sums: np.ndarray) -> Masked:
        """Return numbers behind a 1 that counts the sites; at institutions with their tag, under masks."""
        if self.keys.approval is None:
            return Masked(vector=_counted(vector), sums=_counted(sums))
        exchange = self.bound(exchange)
        vector, sums = tag_vector(self.keys.run_key(), exchange, [self.keys.site], vector, sums)
        masks = mask(self.keys.site, self.keys.secrets(), exchange, vector.size, sums.size)
        np.add(vector, masks[0], out=vector)
        np.add(sums, masks[1], out=sums)
        return Masked(vector=vector, sums=sums)

    def bound(self, exchange: Exchange) -> Exchange:
        """Return an exchange with the hash of what the site itself made for it of the totals before."""
        made = Made.read(self.keys.state)
        if made is None or replace(made.exchange, state_sha256="") != exchange:
            return exchange
        return made.exchange

    def open_total(self, exchange: Exchange, total: Masked | None) -> tuple[np.ndarray, np.ndarray]:
        """Return the sums of all sites' numbers of 32 and of 64 bits; raises NotTakingPart where a total is not theirs.

        A site that was shown a false total answers nothing more in the run, so that each false one is one try.
        """
        if total is None:
            decline("total-missing")
        opened = open_total(self.keys.run_key(), exchange, self.keys.cohort().sites, total.vector, total.sums)
        if isinstance(opened, Refusal):
            self.keys.destroy_shared()
            raise NotTakingPart(opened)
        return opened

    @property
    def summer(self) -> Summer:
        """A reader of totals: the coordinator has checked norms and losses, by those of the rounds before."""
        cohort = self.keys.cohort()
        return Summer.of_study(self.keys.study, cohort.sites, cohort.most_rows, norm=math.inf)


Masking = Generator[PackRequest, Any, TrainReply]
"""A reply under masks; rounding is requested on the way."""


def _counted(numbers: np.ndarray, sites: int = 1) -> np.ndarray:
    """Return a new array of numbers behind the number of their sites; of none, none."""
    return np.concatenate([np.full(1, sites, numbers.dtype), numbers]) if numbers.size else numbers.copy()
