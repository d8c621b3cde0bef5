"""What a site made itself of a run's verified totals, as it stands in its state of the run.

Under secure aggregation no model crosses. A request brings the total of the step before, and the site computes from it
what the coordinator computes: with the same functions, to the same bits. The masks of the step are bound to the hash of
what it made (`Exchange.state_sha256`), so that sites which made something else have no sum.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field, fields, replace
from functools import lru_cache
from typing import Any

import numpy as np

from flfed.signatures import canonical
from flfed.summaries.summary import Encoder, arrays_sha256
from flfed.updates.arrays import Arrays, byte_array, with_prefix, without_prefix
from flfed.updates.checkpoints.site_state import OF_RUN, RunState
from flfed.updates.masks.pairs import Exchange
from flfed.updates.messages.compare import CompareRequest
from flfed.updates.messages.summarise import BinsRequest, StatisticRequest
from flfed.updates.messages.train import NO_ENCODER, Same, TrainRequest, sha256_of

SumRequest = TrainRequest | CompareRequest | StatisticRequest | BinsRequest | None
"""A request whose answers are added up; None where the study has all of it."""
MADE = f"{OF_RUN}made"
"""Name in a site's state of what it made for the step that it answers, or answered last."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Made:
    """What a site made for one exchange.

    Attributes
    ----------
    exchange : Exchange
        With the hash of what was made.
    round : int
        After how many rounds of training the model came, or how many visits a statistic had.
    encoder : Encoder
    model : dict of name to array
        The numbers of a statistic's visit, where there is no model.
    state : mapping of name to dict of name to array
        What the strategy keeps from round to round, the best model among it.
    facts : mapping
        The strategy's counters.
    levels : tuple of uint64 array
        Sums of the levels of the trees that grow, with losses behind those of the first.
    visits : tuple of (dict of name to array, dict of name to array)
        Numbers and sums of a statistic's visits before the one that was made.
    """

    exchange: Exchange
    round: int = 0
    encoder: Encoder = NO_ENCODER
    model: Arrays = field(default_factory=dict)
    state: Mapping[str, Arrays] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    levels: tuple[np.ndarray, ...] = ()
    visits: tuple[tuple[Arrays, Arrays], ...] = ()

    @classmethod
    def read(cls, state: RunState) -> Made | None:
        """Return what a site made last in its run, None where it made nothing yet."""
        stored = state.read(MADE)
        if stored is None:
            return None
        facts = json.loads(stored["facts"].tobytes())

        def parts(name: str) -> list[Arrays]:
            return [without_prefix(f"{name}-{number}/", stored) for number in range(facts[name])]

        return cls(
            exchange=Exchange(*facts["exchange"]),
            round=facts["round"],
            encoder=Encoder(**without_prefix("encoder/", stored)),
            model=without_prefix("model/", stored),
            state=dict(zip(facts["names"], parts("state"), strict=True)),
            facts=facts["strategy"],
            levels=tuple(part["sums"] for part in parts("levels")),
            visits=tuple(zip(parts("points"), parts("sums"), strict=True)),
        )

    def write(self, state: RunState) -> None:
        """Write it into the site's state of the run; raises StorageError."""
        facts = {
            "exchange": astuple(self.exchange),
            "round": self.round,
            "names": list(self.state),
            "strategy": self.facts,
        }
        arrays = with_prefix("encoder/", self.encoder.arrays()) | with_prefix("model/", self.model)
        for name, parts in self._parts().items():
            facts[name] = len(parts)
            for number, part in enumerate(parts):
                arrays |= with_prefix(f"{name}-{number}/", part)
        state.write(MADE, {"facts": byte_array(json.dumps(facts).encode()), **arrays})

    def _parts(self) -> dict[str, list[Arrays]]:
        """Return all arrays besides encoder and model."""
        return {
            "state": list(self.state.values()),
            "levels": [{"sums": sums} for sums in self.levels],
            "points": [point for point, _ in self.visits],
            "sums": [sums for _, sums in self.visits],
        }

    def is_for(self, exchange: Exchange) -> bool:
        """Return whether it was made for this very request."""
        return replace(self.exchange, state_sha256="") == exchange

    def with_hash(self) -> Made:
        """Return it with the hash of all that was made in its exchange."""
        parts = {name: [arrays_sha256(part) for part in parts] for name, parts in self._parts().items()}
        made = [self.round, self.encoder.sha256(), arrays_sha256(self.model), parts, dict(self.facts)]
        sha256 = hashlib.sha256(canonical(made)).hexdigest()
        return replace(self, exchange=replace(self.exchange, state_sha256=sha256))


_MADE_HERE = ("arrays", "encoder", "extra", "by_hash", "total")
"""Fields of a request with a total that do not cross, and the total."""


def request_sha256(kind: str, request: SumRequest) -> str:
    """Return the hash of the whole request that a reply answers.

    Whoever is sent another request has other masks: no sum with the others' comes of it.

    Source: Pasquini et al. 2022, "Eluding secure aggregation in federated learning via model inconsistency".
    """
    meaning: dict[str, Any] = {"kind": kind}
    if isinstance(request, TrainRequest | CompareRequest) and request.total is not None:
        crossing = {one.name: getattr(request, one.name) for one in fields(request) if one.name not in _MADE_HERE}
        meaning |= crossing | {"total": arrays_sha256(request.total.arrays())}
        if isinstance(request, TrainRequest):
            meaning["settings"] = sorted(request.settings.items())
    elif isinstance(request, TrainRequest | CompareRequest):
        plain = {one.name: getattr(request, one.name) for one in fields(request)}
        # By hash or whole, an encoder is the same one; and so are trees, whose hash is another field.
        del plain["by_hash"], plain["total"]
        meaning |= plain | {"arrays": _arrays_sha256(Same(request.arrays)), "encoder": sha256_of(request.encoder)}
        if isinstance(request, TrainRequest):
            meaning |= {"extra": arrays_sha256(request.extra), "settings": sorted(request.settings.items())}
            if request.trees_sha256:
                del meaning["arrays"]
    elif isinstance(request, StatisticRequest):
        meaning |= {"round": request.round, "point": arrays_sha256(request.point)}
    if isinstance(request, StatisticRequest | BinsRequest) and request.total is not None:
        meaning |= {"total": arrays_sha256(request.total.arrays())}
    # NaN is no JSON.
    texts = {name: value.hex() if isinstance(value, float) else value for name, value in meaning.items()}
    return hashlib.sha256(canonical(texts)).hexdigest()


# In one process all sites are sent the very same arrays.
@lru_cache(maxsize=8)
def _arrays_sha256(same: Same) -> str:
    return arrays_sha256(same.arrays)
