"""Two real users: the one with data reaches nothing and still answers, the one with the network reads no data."""

import os
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flfed.deployment.processes import units
from flfed.paths import SiteFolder
from tests.another_account import account
from tests.deployment.processes.conftest import Consortium, fresh_consortium

NET, GATE, LINK = 64101, 64102, 64103
NUMBERS = {"flfed-net": NET, "flfed-gate": GATE, "flfed-link": LINK}
HERE = Path(__file__).parent
pytestmark = [
    pytest.mark.slow, pytest.mark.servers, pytest.mark.skipif(os.geteuid() != 0, reason="two users need root"),
]  # fmt: skip


def become(user: int) -> list[str]:
    """Return the start of a command line that runs as a user with nothing of root's."""
    return account(user, "--no-new-privs", groups=(user, LINK))


@pytest.fixture
def consortium() -> Iterator[Consortium]:
    with fresh_consortium() as made:
        yield made


@pytest.fixture
def base(consortium: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folders of both users as `site units` and systemd-tmpfiles make them, the site joined and rows frozen."""
    base = consortium.root / "var"
    text = units.filled("site-a", command=Path("/usr/bin/true"), base=base)["flfed-site-a-tmpfiles.conf"]
    file = consortium.root / "tmpfiles.conf"
    file.write_text(re.sub("(?<= )flfed-(net|gate|link)(?= )", lambda name: str(NUMBERS[name[0]]), text))
    subprocess.run(["systemd-tmpfiles", "--create", str(file)], check=True)
    monkeypatch.setenv("FLFED_HOME", str(base / "net"))
    folder = consortium.joined("site-a")
    for path in (folder.network, *folder.network.iterdir()):
        os.chown(path, NET, NET)
    monkeypatch.setenv("FLFED_HOME", str(base / "gate"))
    rows = SiteFolder("site-a").gate / "rows.parquet"
    rows.parent.mkdir(mode=0o700)
    rows.write_text("rows")
    for path in (rows.parent, rows):
        os.chown(path, GATE, GATE)
    return base


def started(consortium: Any, base: Path) -> tuple[subprocess.Popen[str], subprocess.Popen[str]]:
    node = [*become(NET), sys.executable, "-m", "flfed.deployment.processes.node", "site-a"]
    gate = [*become(GATE), sys.executable, str(HERE / "answering.py"), "site-a"]
    return (
        consortium.start(node, "node.log", FLFED_HOME=str(base / "net"), HOME=str(base / "net")),
        consortium.start(gate, "gate.log", FLFED_HOME=str(base / "gate"), HOME=str(base / "gate")),
    )


def listening(user: int) -> list[int]:
    """Return the loopback ports on which a user's processes listen."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [int(line[1].partition(":")[2], 16) for line in lines if line[3] == "0A" and int(line[7]) == user]


def test_the_folders_have_the_owners_and_modes_that_the_units_need(base: Path):
    found = {
        path: ((base / path).stat().st_uid, (base / path).stat().st_gid, stat.S_IMODE((base / path).stat().st_mode))
        for path in (".", "net", "gate", "link", "link/site-a", "net/sites/site-a", "gate/sites/site-a")
    }
    assert found == {
        ".": (0, 0, 0o711), "net": (NET, NET, 0o700), "gate": (GATE, GATE, 0o700), "link": (0, 0, 0o711),
        "link/site-a": (NET, LINK, 0o2750), "net/sites/site-a": (NET, NET, 0o700),
        "gate/sites/site-a": (GATE, GATE, 0o700),
    }  # fmt: skip
    for user in ("net", "gate"):
        assert (base / user / "sites/site-a/link").resolve() == base / "link/site-a"


def test_the_gate_reaches_nothing_and_answers_and_the_node_reads_no_row(consortium, base, wait_until):
    node, gate = started(consortium, base)
    consortium.do("begin", config={"study": "text"})
    assert len(consortium.do("nodes", count=1)["nodes"]) == 1, (consortium.root / "node.log").read_text()
    wait_until(lambda: len(listening(NET)) == 1)
    with (
        socket.create_server(("127.0.0.1", 0)) as four,
        socket.create_server(("::1", 0), family=socket.AF_INET6) as six,
    ):
        ports = [("127.0.0.1", four), ("::1", six)]
        open_here = [f"{host}|{made.getsockname()[1]}" for host, made in ports]
        open_here += [f"127.0.0.1|{listening(NET)[0]}", f"127.0.0.1|{consortium.port}"]
        for address in open_here:  # the same is open to a process with a network
            host, _, port = address.partition("|")
            socket.create_connection((host, int(port)), 3).close()
        outside = ["192.0.2.1|443", "2001:db8::1|443", "example.org|0"]
        read = [base / "net/sites/site-a/network/node.key", base / "gate/sites/site-a/gate/rows.parquet"]
        asked = {"addresses": [*open_here, *outside], "files": [str(path) for path in read]}
        (reply,) = consortium.do("ask", config=asked)["replies"]
    assert reply["reached"] == ["OSError"] * 6 + ["gaierror"]
    assert reply["read"] == ["PermissionError", "reached"]
    assert (reply["site"], reply["user"], reply["process"]) == ("site-a", GATE, gate.pid)
    assert "has no network" in (consortium.root / "gate.log").read_text()
    assert (base / "link/site-a/gate.sock").stat().st_gid == LINK
    assert stat.S_IMODE((base / "link/site-a/gate.sock").stat().st_mode) == 0o660
    for path in ("gate/sites/site-a/gate/rows.parquet", "gate/sites/site-a"):
        told = subprocess.run([*become(NET), "cat", str(base / path)], capture_output=True, text=True, check=False)
        assert told.returncode == 1
        assert "Permission denied" in told.stderr
    status = Path(f"/proc/{node.pid}/status").read_text()
    assert re.search(rf"^Uid:\t{NET}\t{NET}\t{NET}\t{NET}$", status, re.M)
    assert re.search(rf"^Groups:\t{NET} {LINK} $", status, re.M)
    assert re.search("^CapEff:\t0+$", status, re.M)


def test_another_user_cannot_use_the_socket_or_read_the_secret(consortium, base, wait_until):
    started(consortium, base)
    wait_until(lambda: (base / "link/site-a/gate.sock").exists(), 60)
    stranger = account(LINK + 1)
    for path in ("gate.sock", "executor.secret"):
        told = subprocess.run([*stranger, "cat", str(base / "link/site-a" / path)], capture_output=True, check=False)
        assert told.returncode == 1
        assert b"Permission denied" in told.stderr
    assert stat.S_IMODE((base / "link/site-a/executor.secret").stat().st_mode) == 0o640
