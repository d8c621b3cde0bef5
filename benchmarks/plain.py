"""Plain Flower at the three institutions: SuperLink and SuperNodes as Flower starts them, with TLS and keys."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks import plain_flower
from benchmarks.bare import Job
from benchmarks.institutions import SITES, Missing, Processes, Ran, followed, free_name, free_port, listening, until
from flfed.signatures import new_node_key, private_text, public_text

BIN = Path(sys.executable).parent
PROJECT = """\
[project]
name = "plain"
version = "1.0.0"
license = "Apache-2.0"

[tool.flwr.app]
publisher = "bench"

[tool.flwr.app.components]
serverapp = "plain_flower:server"
clientapp = "plain_flower:client"

[tool.flwr.app.config]
out = ""
rounds = 1
sites = {sites}
features = {features}
batch = {batch}
lr = {lr}
l2 = {l2}
epochs = {epochs}
"""


@contextmanager
def plain(folder: Path, job: Job, plan: Mapping[str, float], rounds: int) -> Iterator[Callable[[], Ran]]:
    """Start a SuperLink and SuperNodes in subprocess isolation, Flower's default; give what runs its FedAvg there.

    Parameters
    ----------
    folder : Path
    job : Job
        The rows of each site, as flfed encodes them.
    plan : mapping of str to number
        `batch`, `lr`, `l2` and `epochs`.
    rounds : int
    """
    side, port = Processes(folder), free_port()

    def at(name: str) -> dict[str, str]:
        paths = f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"  # Flower starts its own commands by their names
        return {"PATH": paths, "FLWR_HOME": str(folder / name)}

    try:
        certificate, key = _certificate(side)
        _bundle(folder, job, plan)
        _profile(folder / "command", port, certificate)
        server = ["--host", "127.0.0.1", "--port", str(port), "--ssl-certfile", certificate, "--ssl-keyfile", key]
        server += ["--ssl-ca-certfile", certificate, "--database", str(folder / "state.db")]
        server += ["--enable-supernode-auth", "--disable-runtime-dependency-installation"]
        side.start("superlink", [str(BIN / "flower-superlink"), *server], at("superlink"))
        until("the SuperLink", lambda: listening(port), side)
        for site in SITES:
            np.savez(folder / f"{site}.npz", x=job.x[site], y=job.y[site])
            public, private = _node_key(folder, site)
            side.run([str(BIN / "flwr"), "supernode", "register", public, "bench"], at("command"))
            node = ["--superlink", f"127.0.0.1:{port}", "--root-certificates", certificate]
            node += ["--auth-supernode-private-key", private, "--port", str(free_port())]
            node += ["--node-config", f'rows="{folder / site}.npz"']
            side.start(site, [str(BIN / "flower-supernode"), *node], at(site))
        yield lambda: _run(side, at("command"), rounds)
    finally:
        side.end()


def _run(side: Processes, environment: Mapping[str, str], rounds: int) -> Ran:
    out = free_name(side.folder, "plain")
    given = ["--run-config", f'out="{out}" rounds={rounds}', "--format", "json"]
    said = side.run([str(BIN / "flwr"), "run", str(side.folder / "bundle"), "bench", *given], environment)
    if not json.loads(said).get("success"):
        raise Missing(f"flwr run: {said[-300:]}")
    return followed(out, rounds, side)


def _certificate(side: Processes) -> tuple[str, str]:
    """Make a certificate of loopback, which is its own authority; return it and its key."""
    certificate, key = side.folder / "server.crt", side.folder / "server.key"
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    words += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    side.run([*words, "-keyout", str(key), "-out", str(certificate)], {})
    return str(certificate), str(key)


def _bundle(folder: Path, job: Job, plan: Mapping[str, float]) -> None:
    """Write what `flwr run` packs: the app, and the settings of the study."""
    (folder / "bundle").mkdir()
    shutil.copy(plain_flower.__file__, folder / "bundle" / "plain_flower.py")
    features = next(iter(job.x.values())).shape[1]
    project = PROJECT.format(sites=len(SITES), features=features, **plan)
    (folder / "bundle" / "pyproject.toml").write_text(project, encoding="utf-8")


def _profile(home: Path, port: int, certificate: str) -> None:
    """Give the `flwr` command the address of the server."""
    home.mkdir()
    known = f'address = "127.0.0.1:{port}"\nroot-certificates = "{certificate}"\n'
    (home / "config.toml").write_text(f'[superlink]\ndefault = "bench"\n\n[superlink.bench]\n{known}', encoding="utf-8")


def _node_key(folder: Path, site: str) -> tuple[str, str]:
    """Make a site's key; return the files of its public and its private part."""
    key, private, public = new_node_key(), folder / f"{site}.key", folder / f"{site}.key.pub"
    private.write_bytes(private_text(key))
    private.chmod(0o600)
    public.write_text(public_text(key.public_key()), encoding="ascii")
    return str(public), str(private)
