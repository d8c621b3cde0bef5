"""The bundle that Flower asks of a run.

It has two small files that nobody executes.

A site runs the client app that it installed, the coordinator the server app that it installed.
The bundle says which version they are, so that another one, or one with code in it, has another hash.

Private name of Flower: `flwr.cli.build.build_fab_from_disk`, which fixes that hash.
"""

from __future__ import annotations

import hashlib
import tempfile
import warnings
from functools import cache
from pathlib import Path

import flfed

PROJECT = """\
[project]
name = "flfed-study"
version = "{version}"
license = "Apache-2.0"

[tool.flwr.app]
publisher = "flfed"

[tool.flwr.app.components]
serverapp = "flfed_bundle:server"
clientapp = "flfed_bundle:client"

[tool.flwr.app.config]
study = ""
repeat = 0
run = ""
sites = ""
"""
MODULE = '"""Nothing: every institution runs what it installed."""\n'


@cache
def bundle() -> bytes:
    """Return the bundle of this version of flfed.

    Its bytes are the same at every institution.
    """
    # Imported here: Flower's command line is slow to load, and most commands need no bundle.
    from flwr.cli.build import build_fab_from_disk

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "pyproject.toml").write_text(PROJECT.format(version=flfed.__version__), encoding="utf-8")
        (Path(folder) / "flfed_bundle.py").write_text(MODULE, encoding="utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of what Flower reads .gitignore with
            return build_fab_from_disk(Path(folder))


def bundle_sha256() -> str:
    """Return the hash by which sites know the bundle."""
    return hashlib.sha256(bundle()).hexdigest()
