"""What it costs a model that all that leaves is charged, beside private training alone: real tables, whole runs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from flfed import Study
from flfed.federation.server.run import run
from flfed.records.store.reader import RunReader
from flfed.rows.session import SiteSession
from flfed.updates.checkpoints import checkpoint as checkpoints
from tests.test_private_scaling import find_sites, protected

ALONE = {"privacy.covers": "updates", "encode.scaler": "global", "compare.resamples": 200, "compare.site-model": "same"}
"""Private training alone: updates under the whole ε, of inputs that exact sums scale, and exact figures."""
WHOLE = {"privacy.covers": "study", "encode.scaler": "private"}


def areas(study: Study, repeats: int) -> np.ndarray:
    """The exact AUC over all holdouts of each repeat's model, float64 [repeats]."""
    series = run(study, repeats=repeats).report["run"]
    with RunReader.open() as reader:
        runs = reader.runs_of(series)
    found = []
    for entry in runs:
        model = checkpoints.final(entry.run)
        sessions = [SiteSession(site, study, entry.repeat) for site in find_sites(study)]
        held = [session.encode(session.table.holdout("test"), model.encoder) for session in sessions]
        x, y = np.concatenate([rows.x for rows in held]), np.concatenate([rows.y for rows in held])
        arrays = {name: torch.tensor(array) for name, array in model.arrays.items()}
        found.append(roc_auc_score(y, sessions[0].model.outputs(arrays, torch.tensor(x)).numpy().ravel()))
    return np.array(found)


def loss(name: str, epsilon: float, repeats: int, compared: str) -> float:
    """How far the AUC is below that of private training alone, mean of re-splits."""
    study = protected(name, epsilon)
    whole = areas(study.replace({**WHOLE, "privacy.comparison": compared}), repeats)
    return float((areas(study.replace(ALONE), repeats) - whole).mean())


def test_breast_cancer_loses_a_hundredth_at_most_to_a_guarantee_that_covers_the_study(home):
    # Of 20 re-splits 0.003, with a deviation of 0.005 between them.
    assert loss("breast-cancer", 3.0, 4, "none") <= 0.01


@pytest.mark.studies
@pytest.mark.proof
@pytest.mark.usefixtures("heart", "taiwan")
@pytest.mark.parametrize("compared", ["none", "site-model"])
@pytest.mark.parametrize(("epsilon", "most"), [(3.0, 0.01), (1.0, 0.025)])
@pytest.mark.parametrize(("name", "repeats"), [("breast-cancer", 20), ("heart-disease", 20), ("taiwan-credit", 5)])
def test_whole_studies_lose_little(name: str, repeats: int, epsilon: float, most: float, compared: str):
    # Measured at 3 and 1: breast cancer 0.003 and 0.009, heart disease 0.003 and 0.004, Taiwan 0.004 and 0.004; where
    # own models are compared 0.005 and 0.006, 0.001 and 0.003, 0.004 and 0.007.
    assert loss(name, epsilon, repeats, compared) <= most
