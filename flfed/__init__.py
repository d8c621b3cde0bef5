"""Federated learning on tables for hospitals and banks.

The usual entry is `from flfed import Study, run`.

Names are imported when they are first used, so that `flfed --help` needs neither torch nor pandas.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

__version__ = "0.4.0"

# Before numpy and torch are imported: at these sizes a second thread is a loss, and under load a
# collapse. Whoever sets them has the last word.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

_PUBLIC = {
    "Arrays": "flfed.updates.arrays",
    "Codec": "flfed.updates.codec",
    "Csv": "flfed.rows.data.sources",
    "Excel": "flfed.rows.data.sources",
    "FedAvg": "flfed.updates.strategies.fedavg",
    "FederatedClassifier": "flfed.notebook.classifier",
    "Field": "flfed.rows.data.parsing.fields",
    "Frame": "flfed.rows.data.sources",
    "Holdout": "flfed.rows.data.holdout",
    "HoldoutByTime": "flfed.rows.data.holdout",
    "Limits": "flfed.rows.data.parsing.limits",
    "Mapped": "flfed.rows.data.site",
    "Mechanism": "flfed.updates.mechanism",
    "Model": "flfed.notebook.result",
    "OwnColumn": "flfed.rows.data.schema",
    "Parquet": "flfed.rows.data.sources",
    "Policy": "flfed.rows.data.policy",
    "Result": "flfed.notebook.result",
    "Site": "flfed.rows.data.site",
    "SimulatedTransactions": "flfed.rows.data.simulated_transactions",
    "Sql": "flfed.rows.data.sources",
    "Study": "flfed.study.study",
    "Transactions": "flfed.rows.data.transactions",
    "UsageError": "flfed.errors",
    "audit": "flfed.experiments.audit",
    "federate": "flfed.notebook.federate",
    "layered_outputs": "flfed.rows.training.functional",
    "load": "flfed.notebook.result",
    "resume": "flfed.notebook.federate",
    "run": "flfed.notebook.federate",
    "runs": "flfed.notebook.result",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    """Import a public name from its module on first use."""
    # An unknown name must fail as it would in any module, so that hasattr and import work.
    if name not in _PUBLIC:
        raise AttributeError(f"module 'flfed' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    """List the public names."""
    return [*__all__, "__version__"]
