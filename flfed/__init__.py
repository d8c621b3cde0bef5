"""Federated learning on tables for hospitals and banks.

The usual entry is `from flfed import Study, run`.

Names are imported when they are first used, so that `flfed --help` needs neither torch nor pandas.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

__version__ = "0.5.0"

# Set before numpy and torch are imported: at these sizes a second thread is a loss, and under load a
# collapse. Settings of the user have precedence.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

_MODULES = {
    "errors": "UsageError",
    "experiments.audit": "audit",
    "notebook.federate": "federate resume run",
    "notebook.result": "Model Result load runs",
    "rows.data.holdout": "Holdout HoldoutByTime",
    "rows.data.parsing.fields": "Field",
    "rows.data.parsing.limits": "Limits",
    "rows.data.policy": "Policy",
    "rows.data.site": "Mapped Site",
    "rows.data.sources": "Csv Excel Frame Parquet Sql",
    "rows.training.functional": "layered_outputs",
    "study.study": "Study",
    "updates.arrays": "Arrays",
    "updates.codec": "Codec",
    "updates.mechanism": "Mechanism",
    "updates.strategies.fedavg": "FedAvg",
}
_PUBLIC: dict[str, str] = {}
for _module, _names in _MODULES.items():
    _PUBLIC |= dict.fromkeys(_names.split(), f"flfed.{_module}")

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    """Import a public name from its module on first use."""
    # An unknown name must fail as in any module, so that hasattr and import work.
    if name not in _PUBLIC:
        raise AttributeError(f"module 'flfed' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    """List the public names."""
    return [*__all__, "__version__"]
