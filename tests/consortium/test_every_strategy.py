"""A real run of each strategy at three institutions: arrays as of one process, ledgers that agree with the wire."""

from collections import Counter
from typing import Any

import pytest

from flfed import Study, registry
from flfed.deployment.site_state.approval import keep_start, read_start_folder
from flfed.paths import SiteFolder
from tests.consortium.test_packed_bytes import THREE, held, sent
from tests.consortium.test_secure_sums import command, difference, words

pytestmark = [pytest.mark.proof, pytest.mark.slow, pytest.mark.servers, pytest.mark.timeout(1800)]


def test_each_strategy_gives_at_three_institutions_the_arrays_of_one_process(consortium: Any):
    # Trees and parties that hold columns have plans and tests of their own.
    strategies = [name for name in registry.names("strategy") if name not in ("boosted-trees", "vertical")]
    studies = {name: consortium.study(('name = "fedavg"', f'name = "{name}"')) for name in strategies}
    for name in THREE:
        consortium.allow_every_strategy(name)
        for study in studies.values():
            consortium.approve(name, study, THREE)
        consortium.sites[name].serve(f"site serve {name}")
    consortium.online(3)
    for strategy, study in studies.items():
        ran, said = command(consortium, words(consortium, study, THREE))
        assert (ran["status"], ran["faults"]) == ("completed", []), (strategy, said)
        # Machines sum a product in orders of their own.
        assert difference(consortium, ran["run"], study, THREE) < 1e-9, strategy
        assert held(consortium, ran["run"]) == sent(consortium, ran["run"]), strategy
        left = [path for name in THREE for path in consortium.sites[name].home.rglob(f"runs/{ran['run']}/*")]
        assert Counter(path.name for path in left) == {}, strategy


def test_a_run_at_three_institutions_begins_with_the_model_of_another(consortium: Any):
    first = consortium.study()
    for name in THREE:
        consortium.approve(name, first, THREE)
        consortium.sites[name].serve(f"site serve {name}")
    consortium.online(3)
    earlier, _ = command(consortium, words(consortium, first, THREE))
    start = f'name = "logistic"\nwarm-start = "{earlier["run"]}"\n'
    unnamed = consortium.study(('name = "logistic"\n', start))
    _, said = command(consortium, words(consortium, unnamed, THREE), code=2)
    assert "needs start-sha256" in said
    checked, _ = command(consortium, ["study", "check", str(consortium.file(unnamed)), "--json"])
    line = f'start-sha256 = "{checked["warm-start"]["start-sha256"]}"\n'
    study = consortium.study(('name = "logistic"\n', start + line))
    folder = consortium.coordinator.exchange / "model"
    command(consortium, ["run", "export", earlier["run"], "--output", str(folder), "--json"])
    for name in THREE:
        consortium.approve(name, study, THREE)
    # An approval without a copy of the model is none yet.
    _, said = command(consortium, words(consortium, study, THREE), code=2)
    assert "it has no copy of the model that the study begins from" in said
    for name in THREE:
        with consortium.sites[name].here():
            source = read_start_folder(SiteFolder(name), Study.parse(study), folder)
            keep_start(SiteFolder(name), Study.parse(study), source)
    ran, said = command(consortium, words(consortium, study, THREE))
    assert (ran["status"], ran["faults"]) == ("completed", []), said
    assert difference(consortium, ran["run"], study, THREE) < 1e-9
    for name in THREE:
        assert {"warm-start", "warm-start-tuned"} <= set(ran["sites"][name])
    assert held(consortium, ran["run"]) == sent(consortium, ran["run"])
