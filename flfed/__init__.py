"""Federated learning for hospitals and banks, on tables: `from flfed import Study, run`.

Names are imported when they are first used, so that `flfed --help` needs neither torch nor pandas.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

__version__ = "0.2.0"

# Before numpy and torch are imported: at these sizes a second thread is a loss, and under load a
# collapse. Whoever sets them has the last word.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

_PUBLIC = {
    "Csv": "flfed.rows.sources",
    "Field": "flfed.rows.fields",
    "Frame": "flfed.rows.sources",
    "Holdout": "flfed.rows.holdout",
    "HoldoutByTime": "flfed.rows.holdout",
    "Mapped": "flfed.rows.site",
    "Parquet": "flfed.rows.sources",
    "Policy": "flfed.rows.policy",
    "Result": "flfed.apps.running",
    "Site": "flfed.rows.site",
    "SimulatedTransactions": "flfed.rows.simulated",
    "Sql": "flfed.rows.sources",
    "Study": "flfed.study",
    "Transactions": "flfed.rows.transactions",
    "audit": "flfed.apps.auditing",
    "resume": "flfed.apps.running",
    "run": "flfed.apps.running",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    """Import a public name from its module on first use."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'flfed' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    """List the public names."""
    return [*__all__, "__version__"]
