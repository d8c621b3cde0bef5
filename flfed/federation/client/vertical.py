"""A site's half of a run over different columns of the same people.

The label party has the outcome, each column party other columns of its rows. What they send each other is sealed. A
request that comes again gets the stored reply: masks are drawn once for a question, and keys seal one thing.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from flfed.federation.client.masked import KEY, RunKeys
from flfed.federation.client.outbound_figures import redact_comparison
from flfed.federation.client.site_run import SiteRun
from flfed.federation.client.training import RunKind
from flfed.refusals import decline, or_refuse, refuse
from flfed.rows.comparison.compare import compare
from flfed.rows.data.row_keys import row_keys
from flfed.rows.data.site import SiteTable
from flfed.rows.features.encode import encode, input_names
from flfed.rows.party import QUARTER, PartyRows, Steps, Weights, own_layout, predictions, quarters, residuals
from flfed.rows.session import SiteSession
from flfed.rows.training.requests import ComputeRequest
from flfed.seeds import generator
from flfed.signatures import canonical
from flfed.study.kinds import LARGEST_INPUT, LEAST_PARTIES
from flfed.summaries.summary import Layout, arrays_sha256
from flfed.updates.arrays import Arrays, byte_array, with_prefix, without_prefix
from flfed.updates.checkpoints.site_state import OF_RUN, PART, part_arrays
from flfed.updates.masks.pairs import RunKey, seal, shared_secrets, unseal
from flfed.updates.messages.compare import CompareReply, CompareRequest
from flfed.updates.messages.vertical import (
    ANNOUNCE,
    ANSWER,
    BLIND,
    MATCH,
    PRODUCTS,
    RESIDUALS,
    RUN,
    SCORE,
    SUMS,
    AlignReply,
    AlignRequest,
    PartialReply,
    PartialRequest,
    Party,
)
from flfed.updates.vertical.alignment import BlindingKey, common_rows, shuffled
from flfed.updates.vertical.residuals import (
    DIGEST_BYTES,
    LARGEST_RESIDUAL,
    ResidualKey,
    column_digests,
    draw_offsets,
    multiply,
)

SECRETS, PARTIES, RESIDUAL, PUBLIC, OFFSETS = (
    f"{OF_RUN}{name}" for name in ("secrets", "parties", "residual-key", "public-key", "offsets")
)
ROWS, JOINED, REPLY = "vertical-rows", "vertical-joined", "vertical-reply"
ROWS_EACH = 15
"""Training rows in common for each input of a party, at least: with fewer, sums of steps show outcomes."""
LEAST_INPUTS = 5
"""Inputs of a column party that vary, at least: of fewer, scores of some rounds show the cells."""
POINT_BYTES = 32
"""Of a point of the curve, for which an identifier stands."""
Parcels = dict[str, bytes]
Place = tuple[str, int, int]
"""Kind, round and exchange."""


class Vertical(RunKind):
    """A run over different columns of the same people."""

    def count_rows(self, session: SiteSession) -> int:
        """Return how many people the table has."""
        return session.table.training_rows + session.table.holdout_rows


@dataclass(frozen=True, eq=False)
class PartyRun(ABC):
    """A party's state of a run, which follows from its stored arrays.

    Attributes
    ----------
    session : SiteSession
    own : SiteRun
    """

    session: SiteSession
    own: SiteRun

    # What the party brings.

    @cached_property
    def layout(self) -> Layout:
        """Layout of the party's own columns."""
        # A snapshot has the schema's columns alone: those of other parties are empty in it.
        names = [one.name for one in self.session.layout.features if self.table[one.name].notna().any()]
        return own_layout(self.session.layout, names)

    @cached_property
    def table(self) -> pd.DataFrame:
        """All rows of the party: those for training, then its holdout."""
        parts = [self.session.table.training, self.session.table.holdout("align")]
        return pd.concat(parts, ignore_index=True)

    def identifiers(self) -> list[str]:
        """Return the identifier of each row.

        Raises
        ------
        NotTakingPart
            If a row has none, or two rows are of one person.
        """
        identifiers = self.table[self.session.schema.group]
        if identifiers.isna().any():
            decline("identifier-missing", rows=int(identifiers.isna().sum()))
        if identifiers.duplicated().any():
            decline("identifier-twice", rows=int(identifiers.duplicated().sum()))
        return [str(identifier) for identifier in identifiers]

    # What is stored.

    def stored(self, name: str) -> Arrays:
        """Return stored arrays.

        Raises
        ------
        NotTakingPart
            If there are none: the exchange before it did not happen here.
        """
        arrays = self.own.state.read(name)
        if arrays is None:
            decline("exchange-unfit")
        return arrays

    @cached_property
    def secrets(self) -> Arrays:
        """The factor of the party's points, and the order in which identifiers leave; drawn once."""
        stored = self.own.state.read(SECRETS)
        if stored is None:
            stored = {"blinding": byte_array(BlindingKey.new().scalar), "order": shuffled(len(self.table))}
            self.own.state.write(SECRETS, stored)
        return stored

    @cached_property
    def run_keys(self) -> RunKeys:
        """Key of the run, with the approval that pins those of other parties."""
        own = self.own
        study = self.session.study
        approval = None if own.approving is None else own.approving(study)
        if approval is None and own.approving is not None:
            decline("sums-not-approved")
        return RunKeys(site=own.site, study=study, run=own.run, repeat=own.repeat, state=own.state, approval=approval)

    @cached_property
    def lasting_secret(self) -> bytes:
        """Secret of the site that outlives the run; where one process has all parties it follows from the seed."""
        approval = self.run_keys.approval
        if approval is None:
            return generator(self.session.seed, site=self.own.site, purpose="offsets").bytes(32)
        return approval.lasting_secret()

    def key(self) -> bytes:
        """Return the public key as other parties take it: signed at an institution, bare where one process has all."""
        if signed := self.run_keys.signed():
            return signed
        stored = self.own.state.read(KEY)
        if stored is None:
            stored = {"private": byte_array(RunKey.new().private)}
            self.own.state.write(KEY, stored)
        return RunKey.of_private(stored["private"].tobytes()).public

    def publics(self, parties: Mapping[str, Party]) -> dict[str, str]:
        """Return the public key of each party; raises NotTakingPart unless they are those that the approval pins."""
        if self.run_keys.approval is None:
            return {site: party.key.hex() for site, party in parties.items()}
        signed = self.run_keys.read_signed([party.key for party in parties.values()], least=LEAST_PARTIES)
        if {key.site: key.pack() for key in signed} != {site: party.key for site, party in parties.items()}:
            decline("parties-unfit")
        return {key.site: key.public_key for key in signed}

    @property
    def blinding(self) -> BlindingKey:
        """The factor of the party's points."""
        return BlindingKey(self.secrets["blinding"].tobytes())

    @cached_property
    def parties(self) -> dict[str, Party]:
        """All parties of the run by name."""
        stored = self.stored(PARTIES)
        # A key seals one thing for an exchange: a reply of other rows, or under another policy, would be a second.
        if stored["under"].tobytes() != self._under():
            decline("exchange-changed")
        facts = json.loads(stored["facts"].tobytes())
        return {one["site"]: Party(**{**one, "key": bytes.fromhex(one["key"])}) for one in facts}

    @property
    def label_party(self) -> str:
        """Name of the party with the outcome."""
        return next(site for site, party in self.parties.items() if party.label)

    @property
    def others(self) -> list[str]:
        """Names of the column parties, without this one."""
        return [site for site, party in self.parties.items() if not party.label and site != self.own.site]

    @cached_property
    def links(self) -> dict[str, bytes]:
        """Secret that the party shares with each other one."""
        named = [self.session.study.sha256(), self.own.run, self.own.repeat, _plain(self.parties)]
        message = hashlib.sha256(canonical(["flfed parties", *named])).hexdigest()
        private = RunKey.of_private(self.stored(KEY)["private"].tobytes())
        links: dict[str, bytes] = or_refuse(shared_secrets(self.own.site, private, self.publics(self.parties), message))
        return links

    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the places in the table of the training and holdout rows in common."""
        stored = self.stored(ROWS)
        return stored["training"], stored["holdout"]

    @cached_property
    def rows(self) -> PartyRows:
        """The encoded rows in common."""
        training, holdout = (self.table.iloc[places] for places in self.places())
        return PartyRows.of(self.layout, training, holdout, intercept=self.session.site.has_outcome)

    @cached_property
    def steps(self) -> Steps:
        """The rule of the party's steps."""
        strategy = self.session.study.strategy.build("strategy")
        return Steps(self.rows, len(self.parties), self.session.task, strategy.ridge)

    def weights(self, round: int) -> Weights:
        """Return the weights before a round."""
        stored = self.own.state.before(round)
        return Weights(stored["now"], stored["ahead"]) if stored else self.steps.start()

    def keep_rows(self, training: np.ndarray, holdout: np.ndarray) -> None:
        """Store the rows in common; raises NotTakingPart where they are too few."""
        least = self.session.policy.overlap
        if len(training) + len(holdout) < least:
            decline("overlap-small", least=least)
        inputs = max(party.columns for party in self.parties.values())
        if len(training) < ROWS_EACH * inputs:
            decline("overlap-columns", least=ROWS_EACH, columns=inputs)
        self.own.state.write(ROWS, {"training": training, "holdout": holdout})
        if not self.session.site.has_outcome and len(self.rows.inputs) < LEAST_INPUTS:
            self.own.state.remove(ROWS)
            decline("inputs-few", least=LEAST_INPUTS)

    def over_common(self, training: np.ndarray, holdout: np.ndarray) -> SiteSession:
        """Return a session over the rows in common, by their places in the table."""
        to_train, to_test = [self.table.iloc[places].reset_index(drop=True) for places in (training, holdout)]
        return self.session_over(self.session.table.with_training(to_train, _holdout=to_test, opened=[]))

    def session_over(self, table: SiteTable) -> SiteSession:
        """Return a session of the study over other rows of the party."""
        session = self.session
        return SiteSession(session.site, session.study, session.repeat, table=table, draws=session.draws)

    def keep_part(self, weights: Weights) -> None:
        """Store the party's part of the model: for its people, and where one process has all parties for the run."""
        arrays = self.rows.model(weights.now)
        features = [column.name for column in self.layout.features]
        self.own.state.write(PART, part_arrays(features, arrays, self.rows.encoder))
        study = self.session.study.replace({"dataset.features": features})
        self.own.keep_model(study, arrays, self.rows.encoder, of=arrays_sha256(arrays))

    # What crosses.

    def exchange(self, kind: str, request: AlignRequest | PartialRequest) -> dict[str, np.ndarray]:
        """Return the sealed parcels of a reply; a request that came before gets the stored ones."""
        round = request.round if isinstance(request, PartialRequest) else 0
        place = (kind, round, request.exchange)
        name = f"{REPLY}-{kind.rpartition('.')[2]}-{round:06d}-{request.exchange}"
        digest = _digest(request.sealed)
        stored = self.own.state.read(name)
        if stored is not None:
            if stored["request"].tobytes() != digest:
                decline("exchange-other")
            return without_prefix("to/", stored)
        # A damaged one: what a key sealed is not sealed again with other masks.
        if name in self.own.state.names():
            decline("exchange-changed")
        if isinstance(request, AlignRequest) and request.parties:
            self._keep_parties(request.parties)
        parcels, beside = self.answer(place, self._opened(place, request.sealed))
        sealed: Arrays = {}
        for site, parcel in parcels.items():
            sealed_parcel = seal(_name_of(place), parcel, {site: self.links[site]}, sender=self.own.site)
            sealed[site] = byte_array(sealed_parcel[site])
        stored = {"request": byte_array(digest), **beside, **with_prefix("to/", sealed)}
        self.own.state.write(name, stored)
        return sealed

    def _keep_parties(self, parties: tuple[Party, ...]) -> None:
        by_site = {party.site: party for party in sorted(parties, key=lambda party: party.site)}
        content = byte_array(json.dumps(_plain(by_site)).encode())
        stored = self.own.state.read(PARTIES)
        if stored is None:
            mine = [party for party in parties if party.site == self.own.site]
            if len(mine) != 1 or mine[0] != self.party() or sum(party.label for party in parties) != 1:
                decline("parties-unfit")
            # Before anything is computed: a label party without others would train, and be compared, alone.
            self.publics(by_site)
            self.own.state.write(PARTIES, {"facts": content, "under": byte_array(self._under())})
        elif stored["facts"].tobytes() != content.tobytes():
            decline("parties-unfit")

    def _under(self) -> bytes:
        return hashlib.sha256(self.own.state.under.encode()).digest()

    def party(self) -> Party:
        """Return the party as it announces itself; raises NotTakingPart for one without columns."""
        if not self.layout.features:
            decline("columns-none")
        return Party(
            site=self.own.site,
            label=self.session.site.has_outcome,
            columns=len(input_names(self.layout)) + self.session.site.has_outcome,
            identifiers=len(self.identifiers()),
            key=self.key(),
        )

    def _opened(self, place: Place, sealed: Mapping[str, np.ndarray]) -> Parcels:
        opened = {}
        for sender, parcel in sealed.items():
            if sender not in self.parties:
                decline("parties-unfit")
            name = _name_of(_sent_at(place))
            own = {"sender": sender, "receiver": self.own.site}
            opened[sender] = or_refuse(unseal(name, parcel.tobytes(), self.links[sender], **own))
        return opened

    @abstractmethod
    def answer(self, place: Place, parcels: Parcels) -> tuple[Parcels, Arrays]:
        """Return the parcels of a reply, and arrays to store with it."""


class LabelParty(PartyRun):
    """The party with the outcome."""

    def answer(self, place: Place, parcels: Parcels) -> tuple[Parcels, Arrays]:
        """Return the parcels of a reply."""
        _, round, exchange = place
        if round == 0:
            return (self._blinded() if exchange == BLIND else self._matched(parcels)), {}
        if set(parcels) != set(self.others):
            decline("exchange-unfit")
        if exchange == RESIDUALS:
            return self._residuals(round, parcels), {}
        return self._masked_sums(parcels), {}

    def _blinded(self) -> Parcels:
        identifiers = self.identifiers()
        points = self.blinding.blind([identifiers[place] for place in self.secrets["order"]])
        return dict.fromkeys(self.others, points.tobytes())

    def _matched(self, parcels: Parcels) -> Parcels:
        """Return to each party the places in its list of the rows in common, in the order of their identifiers."""
        if set(parcels) != set(self.others):
            decline("exchange-unfit")
        order = self.secrets["order"]
        other_places = {}
        common = np.arange(len(order))
        for site, parcel in parcels.items():
            points = np.frombuffer(parcel, np.uint8)
            count = len(order) * POINT_BYTES
            if points.size != count + self.parties[site].identifiers * POINT_BYTES:
                decline("exchange-unfit")
            twice = points[:count].reshape(-1, POINT_BYTES)
            theirs = or_refuse(self.blinding.blind_again(points[count:].reshape(-1, POINT_BYTES)))
            mine, places = common_rows(twice, theirs)
            of_row = np.full(len(order), -1, dtype=np.int64)
            of_row[order[mine]] = places
            other_places[site] = of_row
            common = np.intersect1d(common, order[mine])
        # In the order of identifiers, which all parties know: the table's own follows from its cells.
        common = common[np.argsort(np.array(self.identifiers())[common], kind="stable")]
        is_trained = common < self.session.table.training_rows
        training, holdout = common[is_trained], common[~is_trained]
        self.keep_rows(training, holdout)
        refuse(self.over_common(training, holdout).too_small())
        if self.session.task != "regression" and len(np.unique(self.outcome)) < 2:
            decline("overlap-one-class")
        counts = np.array([len(training), len(holdout)], dtype="<i8").tobytes()
        places = np.concatenate([training, holdout])
        public = self.residual_key.public()
        lists = {site: counts + of_row[places].astype("<i8").tobytes() for site, of_row in other_places.items()}
        return {site: _framed(public, one) for site, one in lists.items()}

    @cached_property
    def outcome(self) -> np.ndarray:
        """Outcome of the training rows in common, as the model has it."""
        return encode(self.table.iloc[self.places()[0]], self.layout, self.rows.encoder).y

    def _residuals(self, round: int, parcels: Parcels) -> Parcels:
        """Take a step, and return the encrypted residuals; after the last round keep the scores of the holdout."""
        weights = self.weights(round)
        if round > self.session.study.rounds:
            scores = self.rows.holdout @ weights.now + self._partial(parcels, len(self.rows.holdout))
            self.own.state.write(JOINED, {"scores": scores})
            self.keep_part(weights)
            return {}
        scores = self.rows.training @ weights.ahead + self._partial(parcels, len(self.rows.training))
        residual = residuals(scores, self.outcome, self.session.task)
        following = self.steps.stepped(weights, self.rows.training.T @ residual, round)
        self.own.state.keep(round, following.arrays())
        # The key under which column parties encrypt their masks goes once.
        return dict.fromkeys(self.others, _framed(*self.residual_key.encrypt(residual)))

    def _partial(self, parcels: Parcels, rows: int) -> np.ndarray:
        """Return the sum of the other parties' scores; float64 array [rows]."""
        total = np.zeros(rows)
        for parcel in parcels.values():
            if len(parcel) != 4 * rows:
                decline("exchange-unfit")
            total += np.frombuffer(parcel, "<i4") * QUARTER
        return total

    @cached_property
    def residual_key(self) -> ResidualKey:
        """Key of the residuals, drawn once."""
        stored = self.own.state.read(RESIDUAL)
        if stored is not None:
            return ResidualKey(stored["secret"].tobytes())
        key = ResidualKey.new()
        self.own.state.write(RESIDUAL, {"secret": byte_array(key.secret)})
        return key

    def _masked_sums(self, parcels: Parcels) -> Parcels:
        sums = {}
        for site, parcel in parcels.items():
            digests, *products = _parted(parcel)
            offsets = self._offsets(site, digests)
            opened = or_refuse(self.residual_key.open(products, len(self.rows.training), offsets))
            sums[site] = opened.astype("<f8").tobytes()
        return sums

    def _offsets(self, site: str, digests: bytes) -> np.ndarray:
        """Return the offset of each sum of a party: those of the first round in all of them."""
        name = f"{OFFSETS}-{site}"
        columns, rest = divmod(len(digests), DIGEST_BYTES)
        if rest or not 0 < columns <= self.parties[site].columns:
            decline("exchange-unfit")
        stored = self.own.state.read(name)
        if stored is None:
            each = [digests[start : start + DIGEST_BYTES] for start in range(0, len(digests), DIGEST_BYTES)]
            # Of all cells of the rows, whatever the study takes of them: where one differs, sums would show it.
            rows = row_keys(self.table.iloc[self.places()[0]])
            secret = hmac.digest(self.lasting_secret, rows.tobytes(), "sha256")
            stored = {"offsets": draw_offsets(secret, each, self.outcome)}
            self.own.state.write(name, stored)
        if len(stored["offsets"]) != columns:
            decline("exchange-unfit")
        return stored["offsets"]

    def compared(self) -> SiteSession:
        """Return a session over the holdout rows in common, with the joined model's predictions."""
        session = self.session
        over_common = self.over_common(*self.places())
        joint = predictions(self.stored(JOINED)["scores"].copy(), session.task, self.layout, self.rows.encoder)
        # The party's own model is fitted to all of its training rows: it has them without the others.
        table = over_common.table.with_training(session.table.training, joined=joint)
        return self.session_over(table)


class ColumnParty(PartyRun):
    """A party with columns, and without the outcome."""

    def answer(self, place: Place, parcels: Parcels) -> tuple[Parcels, Arrays]:
        """Return the parcels of a reply, and the masks that stay."""
        _, round, exchange = place
        if set(parcels) != {self.label_party}:
            decline("exchange-unfit")
        parcel = parcels[self.label_party]
        if round == 0:
            return {self.label_party: self._answered(parcel)}, {}
        if exchange == SCORE:
            return {self.label_party: self._scores(round, parcel)}, {}
        public = self.stored(PUBLIC)["key"].tobytes()
        products = or_refuse(multiply(_parted(parcel), self.rows.training, public))
        digests = b"".join(column_digests(self.lasting_secret, self.rows.training))
        return {self.label_party: _framed(digests, *products.ciphertexts)}, {"masks": products.masks}

    def _answered(self, parcel: bytes) -> bytes:
        """Return the label party's points times this party's factor, and this party's own."""
        points = np.frombuffer(parcel, np.uint8)
        if points.size != self.parties[self.label_party].identifiers * POINT_BYTES:
            decline("exchange-unfit")
        twice: np.ndarray = or_refuse(self.blinding.blind_again(points.reshape(-1, POINT_BYTES)))
        identifiers = self.identifiers()
        own = self.blinding.blind([identifiers[place] for place in self.secrets["order"]])
        return twice.tobytes() + own.tobytes()

    def _scores(self, round: int, parcel: bytes) -> bytes:
        """Return partial scores, after the rows in common or the sums of the round before came."""
        if round == 1:
            self._keep_common(parcel)
            weights = self.weights(1)
        else:
            masks = self.stored(f"{REPLY}-partial-{round - 1:06d}-{PRODUCTS}")["masks"]
            if len(parcel) != 8 * len(masks):
                decline("exchange-unfit")
            sums = np.frombuffer(parcel, "<f8") - masks
            # No honest sum is larger, and no number of it is none.
            if not (np.abs(sums) <= len(self.rows.training) * LARGEST_INPUT * LARGEST_RESIDUAL).all():
                decline("exchange-unfit")
            weights = self.steps.stepped(self.weights(round - 1), sums, round - 1)
            self.own.state.keep(round - 1, weights.arrays())
        if round <= self.session.study.rounds:
            return quarters(self.rows.training @ weights.ahead).astype("<i4").tobytes()
        self.keep_part(weights)
        return quarters(self.rows.holdout @ weights.now).astype("<i4").tobytes()

    def _keep_common(self, parcel: bytes) -> None:
        """Store the label party's public key, and the rows in common as it lists them."""
        parts = _parted(parcel)
        if len(parts) != 2 or len(parts[1]) % 8 or len(parts[1]) < 16:
            decline("exchange-unfit")
        public, listed = parts
        numbers = np.frombuffer(listed, "<i8")
        order = self.secrets["order"]
        (training, holdout), places = numbers[:2], numbers[2:]
        are_distinct = len(np.unique(places)) == len(places) == training + holdout
        if min(training, holdout) < 0 or not are_distinct or not ((places >= 0) & (places < len(order))).all():
            decline("exchange-unfit")
        rows = order[places]
        self.own.state.write(PUBLIC, {"key": byte_array(public)})
        self.keep_rows(rows[:training], rows[training:])


def party_of(session: SiteSession, own: SiteRun) -> PartyRun:
    """Return a site's half of a run."""
    own.under(session)
    return LabelParty(session, own) if session.site.has_outcome else ColumnParty(session, own)


Aligning = Generator[ComputeRequest, Any, AlignReply]
Exchanging = Generator[ComputeRequest, Any, PartialReply]
Comparing = Generator[ComputeRequest, Any, CompareReply]


def align(request: AlignRequest, session: SiteSession, own: SiteRun) -> Aligning:
    """Return a party's half of an exchange of the alignment."""
    party = party_of(session, own)
    expected = (ANNOUNCE, BLIND, MATCH) if session.site.has_outcome else (ANNOUNCE, ANSWER)
    if request.exchange not in expected:
        decline("exchange-unfit")
    with own.state.answering():
        if request.exchange == ANNOUNCE:
            return AlignReply(parties=(party.party(),))
        return AlignReply(sealed=party.exchange("query.align", request))
    yield  # a handler is a generator, also one without requests


def exchange(request: PartialRequest, session: SiteSession, own: SiteRun) -> Exchanging:
    """Return a party's half of an exchange of a round."""
    party = party_of(session, own)
    expected = (RESIDUALS, SUMS) if session.site.has_outcome else (SCORE, PRODUCTS)
    last = session.study.rounds + 1
    if request.exchange not in expected or not 1 <= request.round <= last:
        decline("exchange-unfit")
    with own.state.answering():
        return PartialReply(sealed=party.exchange("query.partial", request))
    yield  # a handler is a generator, also one without requests


def compare_joined(request: CompareRequest, session: SiteSession, own: SiteRun) -> Comparing:
    """Compare the joined model with the label party's own, on its holdout rows in common."""
    party = party_of(session, own)
    if not isinstance(party, LabelParty):
        decline("columns-only")
    # The hash names the run's model: under another name two models would count as one.
    if request.arrays[RUN].tobytes() != hashlib.sha256(own.run.encode()).digest():
        decline("exchange-unfit")
    over_common = party.compared()
    refuse(over_common.too_small())
    comparison = yield from compare(over_common, {}, request.encoder, bins=request.bins)
    return redact_comparison(over_common, comparison)


def _sent_at(place: Place) -> Place:
    """Return the exchange in which the other party sealed what comes in this one."""
    kind, round, exchange = place
    if kind == "query.align":
        return kind, 0, exchange - 1
    if exchange > SCORE:
        return kind, round, exchange - 1
    return ("query.align", 0, MATCH) if round == 1 else (kind, round - 1, SUMS)


def _name_of(place: Place) -> str:
    """Return the name under which parcels of an exchange are sealed."""
    return "/".join(map(str, place))


def _framed(*parts: bytes) -> bytes:
    """Return parts as one parcel, each after its length in four bytes."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def _digest(sealed: Mapping[str, np.ndarray]) -> bytes:
    parts = []
    for site, parcel in sorted(sealed.items()):
        parts += [site.encode(), hashlib.sha256(parcel.tobytes()).digest()]
    return hashlib.sha256(_framed(*parts)).digest()


def _parted(data: bytes) -> list[bytes]:
    """Return the parts of what `joined` made."""
    parts = []
    place = 0
    while place < len(data):
        begin = place + 4
        end = begin + int.from_bytes(data[place:begin], "big")
        parts.append(data[begin:end])
        place = end
    if place != len(data) or not parts:
        decline("exchange-unfit")
    return parts


def _plain(parties: Mapping[str, Party]) -> list[dict[str, Any]]:
    return [{**vars(party), "key": party.key.hex()} for _, party in sorted(parties.items())]
