"""Provenance of a run.

It has the versions, and the hash of the code.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path

import flfed
from flfed.study.study import Study


@cache
def code_sha256() -> str:
    """Return the hash of flfed's own code.

    It is over each file's path and bytes, in path order.
    """
    package, digest = Path(flfed.__file__).parent, hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        digest.update(f"{file.relative_to(package).as_posix()}\x1e".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


@cache
def versions() -> Mapping[str, str]:
    """Return the versions that a run depends on."""
    packages = ("flwr", "torch", "numpy", "pandas", "scikit-learn")
    return {"flfed": flfed.__version__, "python": platform.python_version(), **{p: version(p) for p in packages}}


def accountants(study: Study) -> Mapping[str, str]:
    """Return the versions of the privacy accountants.

    There are none for a study without a mechanism.
    """
    return {} if study.privacy.name == "none" else {"dp-accounting": version("dp-accounting")}
