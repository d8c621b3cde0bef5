"""A column that one of three real institutions declares: it is adjusted by it, and nobody else learns of it."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.consortium.test_packed_bytes import THREE, held, sent
from tests.consortium.test_secure_sums import command, difference, words
from tests.experiments.test_canary import forms, found_in

pytestmark = [pytest.mark.proof, pytest.mark.slow, pytest.mark.servers, pytest.mark.timeout(900)]

OWN = 'own={"troponin": OwnColumn("MARKER", kind="number", range=(0, 1), unit="ng/L")}, '


def declare(consortium: Any, name: str) -> np.ndarray:
    """Let a site declare a column that tells much of the outcome; return its values."""
    folder = consortium.root / "packages" / "sites" / name
    table = pd.read_csv(folder / "rows.csv")
    marker = np.where(table["y"] == "yes", 0.3, 0.0) + np.random.default_rng(5).random(len(table)) * 0.7
    table.assign(MARKER=marker).to_csv(folder / "rows.csv", index=False)
    package = (
        (folder / "__init__.py")
        .read_text()
        .replace("import Csv, Holdout, Site", "import Csv, Holdout, OwnColumn, Site")
    )
    (folder / "__init__.py").write_text(package.replace('source=Csv("rows.csv"), ', f'source=Csv("rows.csv"), {OWN}'))
    return marker


def test_what_a_site_declares_adjusts_it_and_is_nowhere_else(consortium: Any):
    first = THREE[0]
    marker = declare(consortium, first)
    study = consortium.study(("epochs = 1", "epochs = 20"), ("resamples = 200", "resamples = 200\nsite-columns = true"))
    for name in THREE:
        consortium.approve(name, study, THREE)
        consortium.sites[name].serve(f"site serve {name}")
    consortium.online(3)
    ran, said = command(consortium, words(consortium, study, THREE))
    assert (ran["status"], ran["faults"]) == ("completed", []), said
    assert difference(consortium, ran["run"], study, THREE) < 1e-9
    assert held(consortium, ran["run"]) == sent(consortium, ran["run"])
    assert [("local-only-own-columns" in ran["sites"][name]) for name in THREE] == [True, False, False]
    arms = ran["sites"][first]
    assert arms["personalised"]["roc_auc_score"]["value"] > arms["global"]["roc_auc_score"]["value"]
    needles = {name: needle for name, needle in forms(list(marker)).items() if not name.endswith(" 7 digits")}
    needles |= {"name": b"troponin", "column": b"MARKER"}
    elsewhere = [
        (str(path), path.read_bytes())
        for machine in (consortium.coordinator, *(consortium.sites[name] for name in THREE[1:]))
        for path in machine.home.rglob("*")
        if path.is_file()
    ]
    assert len(elsewhere) > 10 and found_in(elsewhere, needles) == []
    folder = consortium.root / "packages" / "sites" / first
    assert (
        len(found_in([(path.name, path.read_bytes()) for path in folder.iterdir() if path.is_file()], needles))
        > len(marker) / 2
    )
