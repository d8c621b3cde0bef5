"""Runs under homomorphic encryption in one process: the server's half has ciphertexts, and the model is FedAvg's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from flfed.federation.client.client import SiteClient
from flfed.federation.engines.inprocess import InProcessGrid
from flfed.federation.recording.recorder import Recorder
from flfed.federation.recording.run_record import Outcome
from flfed.federation.server.server import FederatedRun
from flfed.records.store.writer import RunStore
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site
from flfed.study.study import Study
from flfed.updates.checkpoints.run_state import NodeState
from flfed.updates.codec import shapes_of
from flfed.updates.masking.ckks import SecretContext
from flfed.updates.masking.encrypted_model import decrypt_model
from flfed.updates.messages.secure_sum import CIPHERTEXT
from tests.deployment.summing import begun


class Rehearsal:
    """A run of a study in one process, of which every message is kept."""

    def __init__(self, sites: list[Site], study: Study, **given: Any) -> None:
        by_name = {site.name: site for site in sites}
        side = SiteClient(lambda name, _: by_name[name]).app()
        self.sent: list[tuple[str, Any, Any]] = []

        def answer(message: Any, context: Any) -> Any:
            reply = side(message, context)
            self.sent.append((str(context.node_config["site"]), message, reply))
            return reply

        config = {"study": study.text, "repeat": 0, "run": "", "sites": ",".join(by_name)}
        self.grid = InProcessGrid(answer, sorted(by_name), config)  # type: ignore[arg-type]
        with RunStore.open() as store:
            writer = begun(store, study, "inprocess")
            self.run = FederatedRun(self.grid, study, Recorder(writer, "roc_auc_score", study.rounds), **given)
            self.outcome: Outcome = self.run.conduct()

    def secret(self) -> SecretContext:
        """Return the key, which one of the sites has."""
        kept = NodeState(next(iter(self.grid._contexts.values())).state).read("sums-ckks")
        return SecretContext.of_bytes(kept["context"].tobytes())

    def model(self) -> dict[str, np.ndarray]:
        """Return the last model, as a site opens it."""
        shapes = shapes_of(self.run.first_arrays())
        ciphertext, sites = self.outcome.arrays[CIPHERTEXT], len(self.grid._contexts)
        return decrypt_model(self.secret(), ciphertext, shapes, least=3, sites=sites)


@pytest.fixture
def rehearse(small_sites: Callable[..., list[Site]], small_study: str) -> Callable[..., Rehearsal]:
    found = small_sites(4, rows=80, policy=Policy(disclosure="open", resplit=True))

    def make(asked: str = "ckks", **changes: Any) -> Rehearsal:
        study = Study.parse(small_study).replace({"secure-aggregation": asked, "strategy.rounds": 3, **changes})
        return Rehearsal(found, study)

    return make


def max_difference(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
    assert a.keys() == b.keys()
    return max(float(np.abs(a[name] - b[name]).max()) for name in a)


def test_the_model_is_that_of_plain_sums(rehearse: Callable[..., Rehearsal]):
    found, plain = rehearse(), rehearse("off")
    assert (found.outcome.status, found.outcome.reason) == ("completed", "")
    assert max_difference(found.model(), plain.outcome.arrays) < 1e-6
