"""The gate's room: once it is isolated, a gate of a real `site serve` finds no way out, and no way into its parent."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flfed.deployment.processes import units
from flfed.paths import SiteFolder

HERE = Path(__file__).parent
FLFED = [sys.executable, str(HERE / "command.py")]
REFUSED = ("EPERM", "EACCES", "EAFNOSUPPORT", "ENOSYS")
FAMILIES = ("inet", "inet6", "netlink", "packet", "vsock")
SITE = """

import json as _json
from pathlib import Path as _Path
from flfed import Csv, Site
site = Site(name="probe", dataset="heart-disease", source=Csv("none.csv"), mapping={{}})
if "executor" in sys.argv[0]:
    _found = ways_out(os.getppid(), {stream!r}, {datagram!r})
    _file = _Path({found!r})
    _file.with_suffix(".new").write_text(_json.dumps(_found))
    _file.with_suffix(".new").rename(_file)
"""


@pytest.fixture
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Two sockets of somebody else, a stream's and a datagram's, that everybody may open."""
    folder = tmp_path_factory.mktemp("f")
    with socket.socket(socket.AF_UNIX) as stream, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagram:
        paths = (str(folder / "s"), str(folder / "d"))
        for made, path in zip((stream, datagram), paths):
            made.bind(path)
            os.chmod(path, 0o777)
        stream.listen()
        yield paths


@pytest.mark.servers
@pytest.mark.skipif(os.geteuid() != 0, reason="the unit's network and the other user need root")
@pytest.mark.parametrize("how", ["plain", "unit"])
def test_a_gate_finds_no_way_out_of_its_room(how, foreign, home, tmp_path, wait_until):
    package, found = tmp_path / "sites" / "probe", tmp_path / "found.json"
    package.mkdir(parents=True)
    site = SITE.format(stream=foreign[0], datagram=foreign[1], found=str(found))
    (package / "__init__.py").write_text((HERE / "ways_out.py").read_text().partition("\nif __name__")[0] + site)
    folder = SiteFolder("probe")
    folder.make()
    folder.secret.write_bytes(b"s" * 64)
    folder.secret.chmod(0o640)
    words = [*FLFED, "site", "serve", "probe", "--gate-only"]
    if how == "unit":
        if shutil.which("systemd-analyze") is None:
            pytest.skip("systemd is not installed")
        unit = units.write(tmp_path, units.filled("probe", command=Path("/usr/bin/true")))[1]
        assert unit.name == "flfed-probe-gate.service"
        words = [sys.executable, str(HERE / "restricted.py"), str(unit), *words]
    environment = {**os.environ, "FLFED_PATH": str(tmp_path)}
    serving = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        wait_until(lambda: found.exists() or serving.poll() is not None, 90)
    finally:
        serving.send_signal(signal.SIGTERM)
        said = serving.communicate(timeout=60)[1]
    log = (folder.gate / "gate.log").read_text()
    assert serving.returncode == 0, said + log
    got = json.loads(found.read_text())
    assert [way for way, answer in got.items() if answer not in REFUSED] == []
    assert {name: got.pop(name) for name in FAMILIES} == dict.fromkeys(FAMILIES, "EAFNOSUPPORT")
    absent = {name: got.pop(name) for name in ("clone3", "x32", "a call of tomorrow")}
    assert absent == dict.fromkeys(absent, "ENOSYS")
    assert [got.pop(f"memory of {whose}") for whose in ("the parent", "children")] == ["EACCES"] * 2
    assert got == dict.fromkeys(got, "EPERM")
    assert len(got) == 15
    assert "this process has no network" in log
    assert "COULD OPEN" not in log
    assert "WARNING" not in said
