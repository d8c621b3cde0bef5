"""A site of two users takes part in a run: who has the rows reaches nothing, who has the network reads nothing."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flfed.deployment.coordinator.admission import admit
from flfed.deployment.coordinator.kits import invite
from flfed.deployment.processes import units
from flfed.paths import CoordinatorFolder
from tests.another_account import account

HERE = Path(__file__).parent
NET, GATE, LINK = 64201, 64202, 64203
NUMBERS = {"flfed-net": NET, "flfed-gate": GATE, "flfed-link": LINK}
LATER = ("alpha",)
"""It joins here, as its own user."""
pytestmark = [
    pytest.mark.proof, pytest.mark.slow, pytest.mark.servers, pytest.mark.timeout(600),
    pytest.mark.skipif(os.geteuid() != 0, reason="two users need root"),
]  # fmt: skip
FLFED = [sys.executable, "-c", "from flfed.cli import main; main()"]


def become(user: int) -> list[str]:
    """Return the start of a command line that runs as a user with nothing of root's."""
    return account(user, "--no-new-privs", groups=(user, LINK))


class TwoUsers:
    """Site alpha, installed as `site units` says: two homes, and what both may enter."""

    def __init__(self, consortium: Any) -> None:
        self.consortium, self.base = consortium, consortium.root / "var"
        self.machine = consortium.sites["alpha"]
        for path in (consortium.root, consortium.root / "packages"):
            path.chmod(0o711)
        text = units.filled("alpha", command=Path("/usr/bin/true"), base=self.base)["flfed-alpha-tmpfiles.conf"]
        file = consortium.root / "tmpfiles.conf"
        file.write_text(re.sub("(?<= )flfed-(net|gate|link)(?= )", lambda name: str(NUMBERS[name[0]]), text))
        subprocess.run(["systemd-tmpfiles", "--create", str(file)], check=True)
        self.table = consortium.root / "packages/sites/alpha/rows.csv"
        self.credentials = self.base / "gate/database.url"
        self.credentials.write_text("postgresql://reader:secret@db/hospital")
        for path in (self.table, self.credentials):
            os.chown(path, GATE, GATE)
            path.chmod(0o600)

    def environment(self, which: str) -> dict[str, str]:
        home = str(self.base / which)
        own = {"FLWR_HOME": f"{home}/flower", "FLFED_HOME": home, "HOME": home}
        more = {"FLFED_SITE_URL_FILE": str(self.credentials)} if which == "gate" else {}
        return {**self.machine.environment, **own, **more}

    def run(self, user: int, *command: object) -> subprocess.CompletedProcess[str]:
        which = "net" if user == NET else "gate"
        return subprocess.run(
            [*become(user), *map(str, command)], capture_output=True, text=True, cwd=self.base / which,
            env=self.environment(which), timeout=120, check=False,
        )  # fmt: skip

    def start(self, user: int, *command: object) -> subprocess.Popen[bytes]:
        self.machine.environment = self.environment("net" if user == NET else "gate")
        return self.machine.start(*become(user), *command)

    def join(self) -> None:
        """Join as the user with the network, approve as the one with the rows."""
        coordinator, net = self.consortium.coordinator, self.base / "net"
        with coordinator.here():
            kit = invite(CoordinatorFolder.default(), "alpha", to=self.consortium.root / "exchange").file
        own = net / kit.name
        own.write_bytes(kit.read_bytes())
        done = self.run(NET, *FLFED, "site", "join", own, "--output", net)
        assert done.returncode == 0, done.stderr
        with coordinator.here():
            admit(CoordinatorFolder.default(), net / "alpha.admission")
        study = self.base / "gate/study.toml"
        study.write_text(self.consortium.study())
        study.chmod(0o644)
        words = ("site", "approve", study, "--site", "alpha", "--with", "beta,gamma", "--yes")
        done = self.run(GATE, *FLFED, *words)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def listening() -> Iterator[list[int]]:
    """Ports on which this machine listens, IPv4 and IPv6, and an abstract socket: open to whoever has a network."""
    with (
        socket.create_server(("127.0.0.1", 0)) as four,
        socket.create_server(("::1", four.getsockname()[1]), family=socket.AF_INET6),
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as abstract,
    ):
        abstract.bind("\0flfed-outside")
        abstract.listen()
        yield [four.getsockname()[1]]


def ports_of(user: int) -> list[int]:
    """Return the loopback ports on which a user's processes listen."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [int(line[1].partition(":")[2], 16) for line in lines if line[3] == "0A" and int(line[7]) == user]


def test_a_site_of_two_users_trains_and_neither_gets_what_is_the_others(consortium, listening, wait_until):
    alpha = TwoUsers(consortium)
    alpha.join()
    for name in ("beta", "gamma"):
        consortium.approve(name, consortium.study(), ("alpha", "beta", "gamma"))
        consortium.sites[name].serve(f"site serve {name}")
    node = alpha.start(NET, sys.executable, "-m", "flfed.deployment.processes.node", "alpha")
    wait_until("the node", lambda: ports_of(NET))
    told = alpha.base / "gate/told.jsonl"
    ports = [*listening, consortium.port, ports_of(NET)[0]]
    gate = alpha.start(GATE, sys.executable, HERE / "probing_gate.py", "alpha", *ports, told)
    consortium.online(3)
    study = consortium.file(consortium.study())
    said = consortium.coordinator.json(f"coordinator run {study} --site alpha --site beta --site gamma")
    # Training works: every round has alpha's update.
    assert said["status"] == "completed"
    folder = alpha.base / "gate/sites/alpha/gate"
    kinds = [json.loads(line)["kind"] for line in (folder / "ledger.jsonl").read_text().splitlines()]
    assert kinds.count("train") == said["rounds"] == 3
    # Each user's doctor examines its own part, and finds it healthy.
    for user in (NET, GATE):
        done = alpha.run(user, *FLFED, "doctor", "alpha")
        assert (done.returncode, done.stdout) == (0, "alpha: nothing is wrong.\n"), done.stdout + done.stderr
    # In that very process, at each message, every way out failed; with a network the same ways are open.
    tries = [json.loads(line) for line in told.read_text().splitlines()]
    assert [one.pop("asked") for one in tries].count("train") == 3
    assert {way: outcome for one in tries for way, outcome in one.items() if outcome == "reached"} == {}
    assert len(tries[0]) == 2 * len(ports) + 8
    sys.path.insert(0, str(HERE))
    try:
        import probing_gate
    finally:
        sys.path.remove(str(HERE))
    here = {way: probing_gate.tried(attempt) for way, attempt in probing_gate.attempts(listening).items()}
    open_ways = {way for way, outcome in here.items() if outcome == "reached"}
    assert open_ways >= {f"IPv4 {listening[0]}", f"IPv6 {listening[0]}", "UDP here", "abstract"}
    # The user with the network reads no table, no frozen rows, no ledger, no credentials, nor the gate's memory.
    (frozen,) = (folder / "frozen/small").glob("*.parquet")
    gates = [alpha.table, alpha.credentials, frozen, folder / "ledger.jsonl"]
    gates += [Path(f"/proc/{gate.pid}/environ"), Path(f"/proc/{gate.pid}/mem")]
    nodes = [alpha.base / "net/sites/alpha/network/node.key", Path(f"/proc/{node.pid}/environ")]
    for user, files in ((NET, gates), (GATE, nodes)):
        for path in files:
            done = alpha.run(user, "head", "-c", "1", path)
            assert (done.returncode, done.stdout) == (1, ""), path
            assert "Permission denied" in done.stderr, done.stderr
    assert alpha.run(GATE, "head", "-c", "1", frozen).returncode == 0
    assert alpha.run(GATE, "head", "-c", "1", alpha.credentials).stdout == "p"
    assert b"SITE_URL" not in Path(f"/proc/{node.pid}/environ").read_bytes()
    for process, user in ((node, NET), (gate, GATE)):
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert re.search(rf"^Uid:\t{user}\t{user}\t{user}\t{user}$", status, re.M)
        assert re.search("^NoNewPrivs:\t1$", status, re.M)
    assert re.search("^CapEff:\t0+$", Path(f"/proc/{node.pid}/status").read_text(), re.M)
    # What the gate's process may do it may do in namespaces of its own alone.
    for kind, inside in (("net", gate), ("user", gate)):
        assert os.readlink(f"/proc/{inside.pid}/ns/{kind}") != os.readlink(f"/proc/{node.pid}/ns/{kind}")
