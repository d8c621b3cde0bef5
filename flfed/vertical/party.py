"""A party of a run over different columns of the same people: what both sides of trust have in common.

The label party has the outcome, each column party other columns of its rows. What they send each other is sealed. A
request that comes again gets the stored reply: masks and noise are drawn once for a question, and keys seal one thing.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import pandas as pd

from flfed.refusals import decline, or_refuse, refuse
from flfed.rows.data.site import SiteTable
from flfed.rows.features.encode import input_names
from flfed.rows.session import SiteSession
from flfed.signatures import canonical
from flfed.study.plan import PrivateSteps
from flfed.summaries.summary import Layout, arrays_sha256
from flfed.updates.arrays import Arrays, byte_array, with_prefix, without_prefix
from flfed.updates.checkpoints.site_state import OF_RUN, PART, RunState, part_arrays
from flfed.updates.masks.pairs import RunKey, seal, shared_secrets, unseal
from flfed.updates.mechanism import acting_mechanism
from flfed.updates.messages.vertical import (
    ALIGN,
    ANNOUNCE,
    COLUMN_PARTY,
    LABEL_PARTY,
    MATCH,
    PARTIAL,
    SCORE,
    SUMS,
    AlignReply,
    AlignRequest,
    PartialReply,
    PartialRequest,
    Party,
)  # fmt: skip
from flfed.vertical.alignment import BlindingKey, shuffled
from flfed.vertical.steps import PartyRows, Steps, Weights

SECRETS, PARTIES = f"{OF_RUN}secrets", f"{OF_RUN}parties"
ROWS, REPLY = "vertical-rows", "vertical-reply"
ROWS_EACH = 15
"""Training rows in common for each input of a party, at least: with fewer, sums of steps show outcomes."""
LEAST_INPUTS = 5
"""Inputs of a column party that vary, at least: of fewer, scores of some rounds show the cells."""
Parcels = dict[str, bytes]
Place = tuple[str, int, int]
"""Kind, round and exchange."""


class PartyKeys(Protocol):
    """A site's key of a run, and those of the other parties as its people approved them."""

    def announced(self) -> bytes:
        """Return the party's public key: signed at an institution, bare where one process has all parties."""

    def private(self) -> RunKey:
        """Return the party's own key; raises NotTakingPart where it is lost."""

    def publics(self, keys: Mapping[str, bytes]) -> dict[str, str]:
        """Return each party's public key; raises NotTakingPart unless they are those that the approval pins."""


@dataclass(frozen=True, eq=False, kw_only=True)
class PartyRun(ABC):
    """A party's state of a run, which follows from its stored arrays.

    `keep_model` stores a model of the run for the site's people.
    """

    session: SiteSession
    site: str
    run: str
    repeat: int
    state: RunState
    keys: PartyKeys
    keep_model: Callable[..., None]

    # What the party brings.

    @cached_property
    def layout(self) -> Layout:
        """Layout of the party's own columns."""
        # A snapshot has the schema's columns alone: those of other parties are empty in it.
        layout = self.session.layout
        return replace(layout, features=tuple(one for one in layout.features if self.table[one.name].notna().any()))

    @cached_property
    def table(self) -> pd.DataFrame:
        """All rows of the party: those for training, then its holdout."""
        parts = [self.session.table.training, self.session.table.holdout("align")]
        return pd.concat(parts, ignore_index=True)

    def identifiers(self) -> list[str]:
        """Return the identifier of each row; raises NotTakingPart where a row has none, or two rows have the same."""
        identifiers = self.table[self.session.schema.group]
        if identifiers.isna().any():
            decline("identifier-missing", rows=int(identifiers.isna().sum()))
        if identifiers.duplicated().any():
            decline("identifier-twice", rows=int(identifiers.duplicated().sum()))
        return [str(identifier) for identifier in identifiers]

    @cached_property
    def private(self) -> PrivateSteps | None:
        """Largest norm of rows in sums, and their noise multiplier; None where sums are exact."""
        study = self.session.study
        return acting_mechanism(study).private_steps(study.plan, study.rounds)

    # What is stored.

    def stored(self, name: str) -> Arrays:
        """Return stored arrays; raises NotTakingPart without them: the exchange before did not happen here."""
        arrays = self.state.read(name)
        if arrays is None:
            decline("exchange-unfit")
        return arrays

    @cached_property
    def secrets(self) -> Arrays:
        """The factor of the party's points, and the order in which identifiers leave; drawn once."""
        stored = self.state.read(SECRETS)
        if stored is None:
            stored = {"blinding": byte_array(BlindingKey.new().scalar), "order": shuffled(len(self.table))}
            self.state.write(SECRETS, stored)
        return stored

    def points(self) -> bytes:
        """Return the points of the party's identifiers, in their own order."""
        named = self.identifiers()
        return self.blinding.blind([named[place] for place in self.secrets["order"]]).tobytes()

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

    @cached_property
    def links(self) -> dict[str, bytes]:
        """Secret that the party shares with each other one."""
        named = [self.session.study.sha256(), self.run, self.repeat, _plain(self.parties)]
        message = hashlib.sha256(canonical(["flfed parties", *named])).hexdigest()
        publics = self.keys.publics({site: party.key for site, party in self.parties.items()})
        links: dict[str, bytes] = or_refuse(shared_secrets(self.site, self.keys.private(), publics, message))
        return links

    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the places in the table of the training and holdout rows in common."""
        stored = self.stored(ROWS)
        return stored["training"], stored["holdout"]

    @cached_property
    def rows(self) -> PartyRows:
        """The encoded rows in common."""
        training, holdout = (self.table.iloc[places] for places in self.places())
        rows = PartyRows.of(self.layout, training, holdout, intercept=self.session.site.has_outcome)
        return replace(rows, norm=self.private.clip) if self.private else rows

    @cached_property
    def steps(self) -> Steps:
        """The rule of the party's steps."""
        strategy = self.session.study.strategy.build("strategy")
        return Steps(self.rows, len(self.parties), self.session.task, strategy.ridge)

    def weights(self, round: int) -> Weights:
        """Return the weights before a round."""
        stored = self.state.before(round)
        return Weights(stored["now"], stored["ahead"]) if stored else self.steps.start()

    def keep_rows(self, training: np.ndarray, holdout: np.ndarray) -> None:
        """Store the rows in common; raises NotTakingPart where they are too few."""
        least = self.session.policy.overlap
        if len(training) + len(holdout) < least:
            decline("overlap-small", least=least)
        inputs = max(party.columns for party in self.parties.values())
        if len(training) < ROWS_EACH * inputs:
            decline("overlap-columns", least=ROWS_EACH, columns=inputs)
        self.state.write(ROWS, {"training": training, "holdout": holdout})
        if not self.session.site.has_outcome and len(self.rows.inputs) < LEAST_INPUTS:
            self.state.remove(ROWS)
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
        self.state.write(PART, part_arrays(features, arrays, self.rows.encoder))
        study = self.session.study.replace({"dataset.features": features})
        self.keep_model(study, arrays, self.rows.encoder, of=arrays_sha256(arrays))

    # What crosses.

    def party(self) -> Party:
        """Return the party as it announces itself; raises NotTakingPart for one without columns."""
        if not self.layout.features:
            decline("columns-none")
        has_outcome = self.session.site.has_outcome
        return Party(
            site=self.site, label=has_outcome, columns=len(input_names(self.layout)) + has_outcome,
            identifiers=len(self.identifiers()), key=self.keys.announced(),
        )  # fmt: skip

    def align(self, request: AlignRequest) -> AlignReply:
        """Return the party's half of an exchange of the alignment."""
        if request.exchange == ANNOUNCE:
            return AlignReply(parties=(self.party(),))
        return AlignReply(sealed=self._exchange(ALIGN, request))

    def train(self, request: PartialRequest) -> PartialReply:
        """Return the party's half of an exchange of a round."""
        if not 1 <= request.round <= self.session.study.rounds + 1:
            decline("exchange-unfit")
        return PartialReply(sealed=self._exchange(PARTIAL, request))

    def _exchange(self, kind: str, request: AlignRequest | PartialRequest) -> dict[str, np.ndarray]:
        """Return the sealed parcels of a reply; a request that came before gets the stored ones."""
        if request.exchange not in (LABEL_PARTY if self.session.site.has_outcome else COLUMN_PARTY)[kind]:
            decline("exchange-unfit")
        round = request.round if isinstance(request, PartialRequest) else 0
        place = (kind, round, request.exchange)
        name = f"{REPLY}-{kind.rpartition('.')[2]}-{round:06d}-{request.exchange}"
        digest = bytes.fromhex(arrays_sha256(request.sealed))
        stored = self.state.read(name)
        if stored is not None:
            if stored["request"].tobytes() != digest:
                decline("exchange-other")
            return without_prefix("to/", stored)
        # A damaged one: what a key sealed is not sealed again with other masks.
        if name in self.state.names():
            decline("exchange-changed")
        if isinstance(request, AlignRequest) and request.parties:
            self._keep_parties(request.parties)
        parcels, beside = self.answer(place, self._opened(place, request.sealed))
        sealed: Arrays = {}
        for site, parcel in parcels.items():
            sealed_parcel = seal(_name_of(place), parcel, {site: self.links[site]}, sender=self.site)
            sealed[site] = byte_array(sealed_parcel[site])
        self.state.write(name, {"request": byte_array(digest), **beside, **with_prefix("to/", sealed)})
        return sealed

    @abstractmethod
    def answer(self, place: Place, parcels: Parcels) -> tuple[Parcels, Arrays]:
        """Return the parcels of a reply, and arrays to store with it."""

    def _keep_parties(self, parties: tuple[Party, ...]) -> None:
        by_site = {party.site: party for party in sorted(parties, key=lambda party: party.site)}
        content = byte_array(json.dumps(_plain(by_site)).encode())
        stored = self.state.read(PARTIES)
        if stored is None:
            mine = [party for party in parties if party.site == self.site]
            if mine != [self.party()] or sum(party.label for party in parties) != 1:
                decline("parties-unfit")
            # Before anything is computed: a label party without others would train, and be compared, alone.
            self.keys.publics({site: party.key for site, party in by_site.items()})
            if self.session.site.has_outcome:
                refuse(self.session.policy.parties_refusal(self.session.study, {*by_site} - {self.site}))
            self.state.write(PARTIES, {"facts": content, "under": byte_array(self._under())})
        elif stored["facts"].tobytes() != content.tobytes():
            decline("parties-unfit")

    def _under(self) -> bytes:
        return hashlib.sha256(self.state.under.encode()).digest()

    def _opened(self, place: Place, sealed: Mapping[str, np.ndarray]) -> Parcels:
        opened = {}
        for sender, parcel in sealed.items():
            if sender not in self.parties:
                decline("parties-unfit")
            name = _name_of(_sent_at(place))
            ends = {"sender": sender, "receiver": self.site}
            opened[sender] = or_refuse(unseal(name, parcel.tobytes(), self.links[sender], **ends))
        return opened


def framed(*parts: bytes) -> bytes:
    """Return parts as one parcel, each after its length in four bytes."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def parted(data: bytes) -> list[bytes]:
    """Return the parts of what `framed` made; raises NotTakingPart for other bytes."""
    parts: list[bytes] = []
    while data or not parts:
        end = 4 + int.from_bytes(data[:4], "big")
        if len(data) < end:
            decline("exchange-unfit")
        parts.append(data[4:end])
        data = data[end:]
    return parts


def _sent_at(place: Place) -> Place:
    """Return the exchange in which the other party sealed what comes in this one."""
    kind, round, exchange = place
    if kind == ALIGN:
        return kind, 0, exchange - 1
    if exchange > SCORE:
        return kind, round, exchange - 1
    return (ALIGN, 0, MATCH) if round == 1 else (kind, round - 1, SUMS)


def _name_of(place: Place) -> str:
    """Return the name under which parcels of an exchange are sealed."""
    return "/".join(map(str, place))


def _plain(parties: Mapping[str, Party]) -> list[dict[str, Any]]:
    return [{**vars(party), "key": party.key.hex()} for _, party in sorted(parties.items())]
