"""Own parts of the model at three real institutions: each site has its own, and the coordinator's machine none."""

from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.consortium.test_packed_bytes import THREE
from tests.consortium.test_secure_sums import command, difference, words
from tests.experiments.test_canary import forms, found_in

pytestmark = [pytest.mark.proof, pytest.mark.slow, pytest.mark.servers, pytest.mark.timeout(900)]


def test_what_is_a_sites_own_is_at_that_site_alone(consortium: Any):
    network = ('name = "logistic"', 'name = "mlp"\nhidden = [8]')
    studies = {
        name: consortium.study(('name = "fedavg"', f'name = "{name}"'), network, ("lr = 0.1", f"lr = {lr}"))
        for name, lr in (("ditto", 0.1), ("fedper", 0.2))
    }
    for name in THREE:
        consortium.allow_every_strategy(name)
        for study in studies.values():
            consortium.approve(name, study, THREE)
        consortium.sites[name].serve(f"site serve {name}")
    consortium.online(3)
    for strategy, study in studies.items():
        ran, said = command(consortium, words(consortium, study, THREE))
        assert (ran["status"], ran["faults"]) == ("completed", []), (strategy, said)
        assert difference(consortium, ran["run"], study, THREE) < 1e-9, strategy
        own = {}
        for name in THREE:
            (path,) = consortium.sites[name].home.rglob(f"models/{ran['run']}-0.safetensors")
            own[name] = {key: value for key, value in load_file(path).items() if key.startswith("own/")}
            assert path.stat().st_mode & 0o077 == 0
        kept = {"own/weight-1", "own/bias-1"} | ({"own/weight-0", "own/bias-0"} if strategy == "ditto" else set())
        assert all(set(arrays) == kept for arrays in own.values())
        first, second, _ = own.values()
        assert all(np.abs(first[key] - second[key]).max() > 1e-4 for key in kept)
        (path,) = consortium.sites[THREE[0]].home.rglob(f"models/{ran['run']}-0.safetensors")
        # What no row moved, as behind a unit that is off for all of them, is in both models as it was drawn.
        shared = {float(v) for key, a in load_file(path).items() if key.startswith("model/") for v in a.ravel()}
        found = {float(v) for arrays in own.values() for array in arrays.values() for v in array.ravel()}
        values = sorted(found - shared)
        assert len(values) > len(found) / 2
        needles = {name: needle for name, needle in forms(values).items() if not name.endswith("digits")}
        of_coordinator = [(str(p), p.read_bytes()) for p in consortium.coordinator.home.rglob("*") if p.is_file()]
        assert len(of_coordinator) > 5 and found_in(of_coordinator, needles) == []
        # What is looked for can be found: at the site whose it is, and of the shared model at the coordinator.
        assert len(found_in([("site", path.read_bytes())], needles)) >= len(values) / 3
        assert found_in(of_coordinator, forms([max(shared)]))
