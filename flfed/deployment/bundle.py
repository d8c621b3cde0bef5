"""The bundle that Flower asks of a run.

It has two small files that nobody executes.

A site runs the client app that it installed, the coordinator the server app that it installed. No site reads the
bundle that a run brings. It is written as Flower's own command writes it (a test compares the bytes).
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from functools import cache

PROJECT = """\
[project]
name = "flfed-study"
version = "0.2.0"
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


WRITTEN = (2024, 10, 1, 0, 0, 0)
"""The time that Flower gives each file, so that the bytes are always the same."""


@cache
def bundle() -> bytes:
    """Return the bundle; its bytes are the same each time."""
    files = {"pyproject.toml": PROJECT, "flfed_bundle.py": MODULE}
    # Flower's list of the files has path, hash, and size in bits.
    listed = [f"{name},{hashlib.sha256(text.encode()).hexdigest()},{8 * len(text)}" for name, text in files.items()]
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name, text in {**files, ".info/CONTENT": "\n".join(listed)}.items():
            archive.writestr(zipfile.ZipInfo(name, WRITTEN), text)
    return written.getvalue()
