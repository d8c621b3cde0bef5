"""The label party, which has the outcome: it finds the rows in common, and adds noise to the sums of residuals."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from flfed.refusals import decline, or_refuse, refuse
from flfed.rows.features.encode import encode
from flfed.rows.session import SiteSession
from flfed.seeds import generator
from flfed.updates.arrays import Arrays, byte_array
from flfed.updates.checkpoints.site_state import OF_RUN
from flfed.updates.messages.vertical import BLIND, RESIDUALS
from flfed.vertical.alignment import BYTES, common_rows
from flfed.vertical.party import Parcels, PartyRun, Place, framed, parted
from flfed.vertical.residuals import ResidualKey
from flfed.vertical.steps import QUARTER, predictions, residuals

RESIDUAL, CHARGED, JOINED = f"{OF_RUN}residual-key", f"{OF_RUN}charged", "vertical-joined"


class LabelParty(PartyRun):
    """The party with the outcome."""

    @property
    def others(self) -> list[str]:
        """Names of the column parties."""
        return [site for site, party in self.parties.items() if not party.label]

    def answer(self, place: Place, parcels: Parcels) -> tuple[Parcels, Arrays]:
        """Return the parcels of a reply."""
        _, round, exchange = place
        if round == 0 and exchange == BLIND:
            return dict.fromkeys(self.others, self.points()), {}
        if set(parcels) != set(self.others):
            decline("exchange-unfit")
        if round == 0:
            return self._matched(parcels), {}
        if exchange == RESIDUALS:
            return self._residuals(round, parcels), {}
        return self._masked_sums(round, parcels), {}

    def _matched(self, parcels: Parcels) -> Parcels:
        """Return to each party the places in its list of the rows in common, in the order of their identifiers."""
        order = self.secrets["order"]
        other_places = {}
        common = np.arange(len(order))
        for site, parcel in parcels.items():
            points = np.frombuffer(parcel, np.uint8)
            count = len(order) * BYTES
            if points.size != count + self.parties[site].identifiers * BYTES:
                decline("exchange-unfit")
            twice = points[:count].reshape(-1, BYTES)
            theirs = or_refuse(self.blinding.blind_again(points[count:].reshape(-1, BYTES)))
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
        lists = {site: counts + of_row[places].astype("<i8").tobytes() for site, of_row in other_places.items()}
        # The key under which column parties encrypt their masks goes once.
        return {site: framed(self.residual_key.public(), listed) for site, listed in lists.items()}

    @cached_property
    def outcome(self) -> np.ndarray:
        """Outcome of the training rows in common, as the model has it."""
        return encode(self.table.iloc[self.places()[0]], self.layout, self.rows.encoder).y

    def _residuals(self, round: int, parcels: Parcels) -> Parcels:
        """Take a step, and return the encrypted residuals; after the last round keep the scores of the holdout."""
        weights = self.weights(round)
        if round > self.session.study.rounds:
            scores = self.rows.holdout @ weights.now + _partial(parcels, len(self.rows.holdout))
            self.state.write(JOINED, {"scores": scores})
            self.keep_part(weights)
            return {}
        scores = self.rows.training @ weights.ahead + _partial(parcels, len(self.rows.training))
        residual = residuals(scores, self.outcome, self.session.task)
        sums = self.rows.summed.T @ residual
        # Later residuals follow from the party's own weights, so that these need the noise, too.
        following = self.steps.stepped(weights, sums + self._noise(self.site, round, len(sums)), round)
        self.state.keep(round, following.arrays())
        return dict.fromkeys(self.others, framed(*self.residual_key.encrypt(residual)))

    @cached_property
    def residual_key(self) -> ResidualKey:
        """Key of the residuals, drawn once."""
        stored = self.state.read(RESIDUAL)
        if stored is not None:
            return ResidualKey(stored["secret"].tobytes())
        key = ResidualKey.new()
        self.state.write(RESIDUAL, {"secret": byte_array(key.secret)})
        return key

    def _masked_sums(self, round: int, parcels: Parcels) -> Parcels:
        """Return each party's masked sums with their noise."""
        sums = {}
        for site, parcel in parcels.items():
            count, *products = parted(parcel)
            columns = int.from_bytes(count, "big")
            if not 0 < columns <= self.parties[site].columns:
                decline("exchange-unfit")
            noise = self._noise(site, round, columns)
            opened = or_refuse(self.residual_key.open(products, len(self.rows.training), noise))
            sums[site] = opened.astype("<f8").tobytes()
        return sums

    def _noise(self, site: str, round: int, count: int) -> np.ndarray:
        """Return the noise of a party's sums in a round, after the whole run is charged; zeros where sums are exact."""
        private = self.private
        if private is None:
            return np.zeros(count)
        protection = self.session.protection
        if protection is None:
            decline("exchange-unfit")
        if self.state.read(CHARGED) is None:
            protection.spend(round)
            self.state.write(CHARGED, {"round": np.array([round])})
        rng = generator(self.session.seed, site=site, purpose="label-dp", number=round)
        # One changed outcome moves the sums of all parties together by the norm of a joined row.
        deviation = private.noise * private.clip * np.sqrt(len(self.parties))
        return np.asarray(deviation * protection.chance(rng).normal(count))

    def compared(self) -> SiteSession:
        """Return a session over the holdout rows in common, with the joined model's predictions."""
        session = self.session
        over_common = self.over_common(*self.places())
        joint = predictions(self.stored(JOINED)["scores"].copy(), session.task, self.layout, self.rows.encoder)
        # The party's own model is fitted to all of its training rows: it has them without the others.
        compared = self.session_over(over_common.table.with_training(session.table.training, joined=joint))
        refuse(over_common.too_small())
        return compared


def _partial(parcels: Parcels, rows: int) -> np.ndarray:
    """Return the sum of the column parties' scores; float64 [rows]."""
    total = np.zeros(rows)
    for parcel in parcels.values():
        if len(parcel) != 4 * rows:
            decline("exchange-unfit")
        total += np.frombuffer(parcel, "<i4") * QUARTER
    return total
