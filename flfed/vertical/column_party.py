"""A column party, which has columns of the label party's people and not their outcome."""

from __future__ import annotations

import numpy as np

from flfed.refusals import decline, or_refuse
from flfed.study.kinds import LARGEST_INPUT
from flfed.updates.arrays import Arrays, byte_array
from flfed.updates.checkpoints.site_state import OF_RUN
from flfed.updates.messages.vertical import PRODUCTS, SCORE
from flfed.vertical.alignment import BYTES
from flfed.vertical.party import REPLY, Parcels, PartyRun, Place, framed, parted
from flfed.vertical.residuals import LARGEST_RESIDUAL, multiply
from flfed.vertical.steps import quarters

PUBLIC = f"{OF_RUN}public-key"


class ColumnParty(PartyRun):
    """A party with columns, and without the outcome."""

    def answer(self, place: Place, parcels: Parcels) -> tuple[Parcels, Arrays]:
        """Return the parcels of a reply, and the masks that stay."""
        _, round, exchange = place
        label_party = next(site for site, party in self.parties.items() if party.label)
        if set(parcels) != {label_party}:
            decline("exchange-unfit")
        parcel = parcels[label_party]
        if round == 0:
            return {label_party: self._answered(parcel, self.parties[label_party].identifiers)}, {}
        if exchange == SCORE:
            return {label_party: self._scores(round, parcel)}, {}
        public = self.stored(PUBLIC)["key"].tobytes()
        x = self.rows.summed
        products = or_refuse(multiply(parted(parcel), x, public))
        columns = x.shape[1].to_bytes(4, "big")
        return {label_party: framed(columns, *products.ciphertexts)}, {"masks": products.masks}

    def _answered(self, parcel: bytes, identifiers: int) -> bytes:
        """Return the label party's points times this party's factor, and this party's own."""
        points = np.frombuffer(parcel, np.uint8)
        if points.size != identifiers * BYTES:
            decline("exchange-unfit")
        twice: np.ndarray = or_refuse(self.blinding.blind_again(points.reshape(-1, BYTES)))
        return twice.tobytes() + self.points()

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
            # No honest sum is larger, and each is a number.
            if not (np.abs(sums) <= len(self.rows.training) * LARGEST_INPUT * LARGEST_RESIDUAL).all():
                decline("exchange-unfit")
            weights = self.steps.stepped(self.weights(round - 1), sums, round - 1)
            self.state.keep(round - 1, weights.arrays())
        if round <= self.session.study.rounds:
            return quarters(self.rows.training @ weights.ahead).astype("<i4").tobytes()
        self.keep_part(weights)
        return quarters(self.rows.holdout @ weights.now).astype("<i4").tobytes()

    def _keep_common(self, parcel: bytes) -> None:
        """Store the label party's public key, and the rows in common as it lists them."""
        parts = parted(parcel)
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
        self.state.write(PUBLIC, {"key": byte_array(public)})
        self.keep_rows(rows[:training], rows[training:])
