"""Models that a coordinator chooses: with a colluding site it reads patients out of sums, without one no gate trains.

The attack, on `network = ReLU(x·w + b)` of the first layer: each unit is a direction with a threshold so high that few
patients activate it. A unit that one patient alone activates has that patient as the quotient of its summed updates,
`x = Δw / Δb`, whatever all others sent. Of a sum over several patients the quotient is no patient: an indicator is
neither 0 nor 1. Units may be scaled down without another direction or threshold, so that a bound on steps of the model
bounds what a turn of a small unit costs, and not what it reads.

Source: Phong et al. 2018, section III (the quotient); Fowl et al. 2022, "Robbing the Fed" (thresholds).
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from flfed.rows.data.site import Site
from flfed.rows.data.site_discovery import of_dataset
from flfed.rows.features.encode import ColumnArrays, encode
from flfed.rows.session import SiteSession
from flfed.rows.study_model import first_model
from flfed.rows.training.answer import run_client
from flfed.study.study import Study
from flfed.summaries.summary import Arrays, Encoder, Layout, fit_encoder, merge
from flfed.updates.arrays import flattened
from flfed.updates.checkpoints.made import request_sha256
from flfed.updates.masks import pairs
from flfed.updates.masks.pairs import TAG_ENTRIES, Exchange
from flfed.updates.masks.verify import tag_vector
from flfed.updates.messages.secure_sum import Masked
from flfed.updates.messages.train import NO_ENCODER, TRAIN, TrainRequest
from tests.deployment.summing import Colluding, Consortium, Impostor, LyingServer, said, untagged
from tests.deployment.test_lying_server import refused

ROUNDS, UNITS, SITES = 40, 16, 4
CHANGES = {"model.name": "mlp", "model.hidden": [UNITS], "strategy.rounds": ROUNDS, "secure-aggregation": "on"}
COLLUDING = "switzerland"
MOST_ROWS = 999
"""Upper end of the widest band of rows, of which an update's weight is a share."""
LEAST_SIGNAL = 1e-7
"""Of a bias's summed update: below lies what rounding to the ring leaves."""
NEAR = 6e-3
"""Distance from a valid input up to which a quotient has it: a third of a step of cholesterol, the finest one."""


@pytest.fixture
def study(heart: object) -> Study:
    return Study.load("heart-disease").replace(CHANGES)


def valid_inputs(layout: Layout, encoder: Encoder) -> list[np.ndarray]:
    """Return the values that each input can have: by the encoder and the schema, without any row."""
    rows = 10_000
    codes = {of.name: np.resize(np.arange(len(of.cells)), rows) for of in (*layout.features, layout.target)}
    values = {}
    for of in layout.features:
        if of.kind == "number":
            step = 0.1 if of.name == "oldpeak" else 1.0
            numbers = np.arange(of.edges[0], of.edges[-1] + step / 2, step).round(1)
            values[of.name] = np.resize([np.nan, *numbers], rows)
    return [np.unique(column) for column in encode(ColumnArrays(rows, codes, values), layout, encoder).x.T]


@dataclass
class ChosenUnits:
    """Who chooses the first layer of each round, and reads the sums of the updates that come of it."""

    arrays: Arrays
    valid: list[np.ndarray]
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    patients: dict[bytes, np.ndarray] = field(default_factory=dict)
    reached: bool = False

    def __post_init__(self) -> None:
        parts = self.arrays["weight-0"], self.arrays["bias-0"], self.arrays["weight-1"].T
        self.units = np.vstack(parts)  # in a column each: weights, bias and outgoing weight
        self.outgoing = 0.1 * np.sign(self.units[-1])
        self.directions = np.stack([self.direction() for _ in range(UNITS)], axis=1)
        self.thresholds = np.full(UNITS, 2.8)
        self.low, self.high = np.zeros(UNITS), np.full(UNITS, np.inf)
        self.of_patients = [2.8]

    def direction(self) -> np.ndarray:
        drawn = self.rng.normal(size=len(self.valid))
        return drawn / np.linalg.norm(drawn)

    def choose(self, step: float) -> Arrays:
        """Return a model at most `step` from the last one: nearer to small units with the directions and thresholds."""
        bands = np.vstack([self.directions, -self.thresholds])
        # About as large as can turn within one step.
        scale = 4 / 3 * step / np.linalg.norm(bands)
        way = np.vstack([scale * bands, self.outgoing]) - self.units
        share = min(1.0, step / float(np.linalg.norm(way)))
        self.units = self.units + share * way
        self.reached |= share == 1
        first, bias, last = np.split(self.units, [len(self.valid), len(self.valid) + 1])
        self.arrays = {**self.arrays, "weight-0": first, "bias-0": bias[0], "weight-1": last.T}
        return self.arrays

    def read(self, summed: Arrays) -> None:
        """Read patients out of a sum of updates, and move thresholds to where one patient activates a unit."""
        for unit in range(UNITS if self.reached else 0):
            signal, patient = float(summed["bias-0"][unit]), None
            if silent := abs(signal) < LEAST_SIGNAL:
                self.high[unit] = self.thresholds[unit]
            else:
                self.low[unit] = self.thresholds[unit]
                patient = self.recognised(summed["weight-0"][:, unit] / signal)
            if patient is not None:
                self.patients[patient.tobytes()] = patient
                self.of_patients.append(float(self.thresholds[unit]))
            if patient is not None or self.high[unit] - self.low[unit] < 0.03:
                self.directions[:, unit] = self.direction()
                self.thresholds[unit] = np.median(self.of_patients[-20:])
                self.low[unit], self.high[unit] = 0, np.inf
            elif self.low[unit] > 0 and self.high[unit] < np.inf:
                self.thresholds[unit] = (self.low[unit] + self.high[unit]) / 2
            else:
                self.thresholds[unit] *= 0.85 if silent else 1.2

    def recognised(self, quotient: np.ndarray) -> np.ndarray | None:
        """Return the valid row that a quotient is, but for a scale near 1 that the penalty's decay leaves."""
        for _ in range(2):
            nearest = np.array([of[np.abs(of - x).argmin()] for of, x in zip(self.valid, quotient, strict=True)])
            scale = float(nearest @ quotient / (quotient @ quotient))
            if not 0.97 < scale < 1.03:
                return None
            quotient = scale * quotient
        return nearest if np.abs(nearest - quotient).max() < NEAR else None


class Hospitals:
    """The hospitals' rows, and an honest run of theirs."""

    def __init__(self, study: Study, sites: list[Site]) -> None:
        self.study = study
        self.sessions = {site.name: SiteSession(site, study) for site in sites}
        self.layout = self.sessions[sites[0].name].layout
        summary = merge([one.summary() for one in self.sessions.values()])
        self.encoder = fit_encoder(self.layout, summary, study.encode.scaler)
        self.rows = {name: one.fitted(self.encoder).x for name, one in self.sessions.items()}

    def honest_steps(self, arrays: Arrays) -> list[float]:
        """Return how far each round of an honest run moves the model."""
        steps, shares = [], {name: len(x) / sum(map(len, self.rows.values())) for name, x in self.rows.items()}
        for round in range(1, ROUNDS + 1):
            deltas = {
                name: run_client(one.train(arrays, self.encoder, round=round, rounds=ROUNDS)).delta
                for name, one in self.sessions.items()
            }
            mean = {name: sum(shares[site] * deltas[site][name] for site in deltas) for name in arrays}
            arrays = {name: arrays[name] + of for name, of in mean.items()}
            steps.append(float(np.linalg.norm(flattened(mean))))
        return steps

    def without_decay(self, summed: Arrays, weights: np.ndarray, round: int) -> Arrays:
        """Return a sum without what the penalty alone does to the weights: plan and numbers of rows say how much."""
        plan = self.study.plan
        kept = 1 - plan.lr * plan.factor(round, ROUNDS) * plan.l2
        counts = [len(x) for x in self.rows.values()]
        decay = sum(count / MOST_ROWS * (1 - kept ** plan.steps_a_round(count)) for count in counts)
        return {**summed, "weight-0": summed["weight-0"] + decay * weights}


@pytest.mark.proof
def test_with_a_colluding_site_chosen_models_read_patients_out_of_sums(study: Study):
    sites = [site for site in of_dataset("heart-disease") if site.name != COLLUDING]
    hospitals, colluder = Hospitals(study, sites), Impostor(COLLUDING)
    server = Colluding(Consortium(sites, study, {COLLUDING: colluder.fingerprint}), colluder)
    attacker = ChosenUnits(server.model, valid_inputs(hospitals.layout, hospitals.encoder))
    # The first model is the study's; each other one is at most twice an honest step of that round away.
    for round, step in enumerate(hospitals.honest_steps(server.model), start=1):
        summed = server.summed(round)
        attacker.read(hospitals.without_decay(summed, server.model["weight-0"], round))
        chosen = attacker.choose(2 * step)
        assert np.linalg.norm(flattened(chosen) - flattened(server.model)) <= 2 * step + 1e-6
        server.show(round, chosen)
    rows = np.vstack(list(hospitals.rows.values()))
    whole = [one for one in attacker.patients.values() if np.abs(rows - one).max(axis=1).min() < 1e-9]
    # It finds 37 of 570, and two rows that are nobody's.
    assert len(whole) >= 10 and len(attacker.patients) - len(whole) <= 5


def beside(request: Any, arrays: Arrays) -> SimpleNamespace:
    """Return a request with a model beside its total, which `TrainRequest` itself would leave out."""
    record = request.to_record()
    record["arrays"] = replace(request, total=None, arrays=arrays, encoder=NO_ENCODER).to_record()["arrays"]
    return SimpleNamespace(to_record=lambda: record)


def retagged(whole: Masked, tags: np.ndarray) -> Masked:
    """Return a total with the tag at the end of other sums."""
    return replace(whole, sums=np.concatenate([whole.sums[:-TAG_ENTRIES], tags[-TAG_ENTRIES:]]))


def of_own_key(server: LyingServer, whole: Masked) -> Masked:
    """Return a total with a tag of a key that the server drew itself."""
    exchange = Exchange(TRAIN, 1, request_sha256(TRAIN, server.request()))
    numbers = whole.vector[1:], whole.sums[1:-TAG_ENTRIES]
    vector, sums = tag_vector(pairs.new_key(), exchange, server.names, *numbers)
    return Masked(vector=vector, sums=sums)


def of_other_run(server: LyingServer) -> Masked:
    """Return the true total of the first round of another run."""
    other = LyingServer(server.consortium, "20261120-000002-aaaa")
    other.keys()
    return other.last_total(1)


def second(server: LyingServer, total: Masked) -> TrainRequest:
    return server.request(2, total=total)


LIES: dict[str, Callable[[LyingServer, Arrays, Masked], Any]] = {
    "a model": lambda server, chosen, forged: server.request(total=None, **{**server.model(), "arrays": chosen}),
    "a model beside the total": lambda server, chosen, forged: beside(server.request(), chosen),
    "a model in a later round": lambda server, chosen, forged: beside(server.request(2), chosen),
    "a total without a tag": lambda server, chosen, forged: second(server, forged),
    "a total with the true one's tag": lambda server, chosen, forged: second(
        server, retagged(forged, server.last_total(1).sums)
    ),
    "a total with an own key's tag": lambda server, chosen, forged: second(server, of_own_key(server, forged)),
    "the total of the step before": lambda server, chosen, forged: second(server, server.last_total()),
    "the total of the round before": lambda server, chosen, forged: server.request(3, total=server.last_total(1)),
    "the total of another run": lambda server, chosen, forged: second(server, of_other_run(server)),
}
"""What a server asks gates, to have them train from the model of its choice."""


@pytest.mark.proof
@pytest.mark.parametrize("lie", LIES)
def test_without_a_colluding_site_no_gate_trains_from_a_chosen_model(study: Study, lie: str):
    server = LyingServer(Consortium(of_dataset("heart-disease"), study))
    assert {said(reply) for reply in server.keys().values()} == {""}
    first = first_model(study, server.schema)
    chosen = ChosenUnits(first, [np.zeros(2)] * len(first["weight-0"])).choose(0.3)
    request = LIES[lie](server, chosen, untagged(server, 1, flattened(chosen) - flattened(first)))
    server.last_total(request.round - 1 if isinstance(request, TrainRequest) else 1)
    # Each reply is an error without content: there is no sum to read patients out of.
    why = [refused(partial(server.ask, site, TRAIN, request)) for site in server.names]
    assert len(why) == SITES
    assert all("does not fit the study" in one or "not that of one answer of each site" in one for one in why), why
