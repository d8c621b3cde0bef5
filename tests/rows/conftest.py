"""A site to attack: rows of scikit-learn's, of forty numbers, half of them held out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import make_classification

from flfed.rows.comparison.attack_runner import Attacked, Promised, trained
from flfed.rows.data.holdout import Holdout
from flfed.rows.data.site import Policy, Site
from flfed.rows.data.sources import Frame
from flfed.rows.session import SiteSession
from flfed.rows.training.answer import run_client
from flfed.rows.training.private_noise import Protection
from flfed.study.plan import PrivateSteps
from flfed.study.study import Study
from flfed.summaries.summary import Arrays, fit_encoder

INPUTS = 40
SCHEMA = 'format = 1\nname = "wide"\ntask = "binary"\ntarget = "y"\n' + "".join(
    f'[columns.n{number:02d}]\nkind = "number"\nrange = [-20, 20]\n' for number in range(INPUTS)
)
SCHEMA += '[columns.y]\nkind = "target"\nvalues = ["no", "yes"]\n'
SOURCE = 'format = 1\nlicence = "none"\ncitation = "made for tests"\nsynthetic = true\n'
STUDY = """
format = 1
name = "wide"
purpose = "Test"
legal-basis = "none needed"
seed = 7
[dataset]
name = "wide"
[model]
name = "logistic"
[plan]
lr = 0.5
steps = 10
[strategy]
name = "fedavg"
rounds = 10
"""

Attack = Callable[..., Attacked]


@pytest.fixture
def wide_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Attack:
    """A function that returns a site and its own model under attack: 600 rows, a fifth of the labels turned over.

    Keys change the study. `steps` protects; `model` is what is attacked, else one trained by the plan on
    the site's training rows.
    """
    folder = tmp_path / "root" / "datasets" / "wide"
    folder.mkdir(parents=True)
    (folder / "schema.toml").write_text(SCHEMA)
    (folder / "source.toml").write_text(SOURCE)
    monkeypatch.setenv("FLFED_PATH", str(tmp_path / "root"))

    def make(
        changes: dict[str, object] | None = None,
        *,
        rows: int = 600,
        steps: PrivateSteps | None = None,
        promised: Promised | None = None,
        policy: Policy | None = None,
        model: Arrays | None = None,
        seed: int = 0,
    ) -> Attacked:
        x, y = make_classification(rows, INPUTS, n_informative=10, flip_y=0.2, random_state=3)
        table = pd.DataFrame({f"n{number:02d}": x[:, number].clip(-20, 20) for number in range(INPUTS)})
        table["y"] = np.where(y == 1, "yes", "no")
        site = Site(
            name="wide", dataset="wide", source=Frame(table), holdout=Holdout(share=0.5, salt="s"),
            policy=policy or Policy(disclosure="open"),
        )  # fmt: skip
        protection = None if steps is None else Protection(steps=steps)
        work = SiteSession(site, Study.parse(STUDY).replace(changes or {}), protection=protection)
        encoder = fit_encoder(work.layout, work.exact_summary)
        bare = Attacked(session=work, arrays={}, encoder=encoder, seed=seed, promised=promised)
        arrays = run_client(trained(bare, [bare.members()], "test"))[0] if model is None else model
        return Attacked(session=work, arrays=arrays, encoder=encoder, seed=seed, promised=promised)

    return make
