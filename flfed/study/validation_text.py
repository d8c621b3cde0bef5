"""Text of a new study that validates a model which somebody brought along."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tomli_w

from flfed.study.study import Study
from flfed.words import render


def validation_text(
    of_model: Study, folder: Path, start_sha256: str, *, name: str, dataset: str, purpose: str, task: str, is_cut: bool
) -> str:
    """Return the text of a study without rounds.

    Parameters
    ----------
    of_model : Study
        As the folder of the model has it: inputs and size of the model follow from it.
    folder : Path
        Of the model.
    start_sha256 : str
        SHA-256 of arrays, encoder and layout, which sites approve.
    name, dataset, purpose : str
        Of the new study.
    task : {"binary", "multi-class", "regression"}
        Calibration is of two classes.
    is_cut : bool
        Whether the dataset has no sites of its own, so that one process cuts its table into some.
    """
    of_dataset: dict[str, Any] = {"name": dataset}
    if of_model.dataset.features is not None:
        of_dataset["features"] = list(of_model.dataset.features)
    if is_cut:
        of_dataset["partition"] = {"by": "iid", "sites": 3}
    encode: dict[str, Any] = {}
    if of_model.encode.missing_indicator:
        encode["missing-indicator"] = True
    if of_model.encode.rows == "complete":
        encode["rows"] = "complete"
    grown = of_model.model.name == "boosted-trees"
    strategy: dict[str, Any] = {"name": "fedavg"}
    if grown:
        strategy = {"name": of_model.strategy.name, "rounds": of_model.rounds}
    tables = {
        "format": 1,
        "name": name,
        "purpose": purpose or render("study.template.validation"),
        "legal-basis": render("study.template.basis"),
        "dataset": of_dataset,
        "encode": encode,
        "model": {
            "name": of_model.model.name,
            **of_model.model.settings,
            "warm-start": str(folder),
            "start-sha256": start_sha256,
            "train": False,
        },
        "plan": {"precision": of_model.plan.precision} if not grown else {},
        "strategy": strategy,
        "compare": {"calibration": True} if task == "binary" else {},
    }
    written = {key: value for key, value in tables.items() if value}
    return f"# {render('study.template.scored')}\n{tomli_w.dumps(written)}"
