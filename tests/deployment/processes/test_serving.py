"""`site serve` as a person starts it: both processes, killed ones come back, and nothing stays behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flfed.deployment.coordinator.superlink import PushedObjects
from flfed.deployment.processes.serve import _describe_isolation, children, serve
from flfed.deployment.site_state.trusted_files import gate_work
from flfed.errors import UsageError
from flfed.paths import SiteFolder

FLFED = [sys.executable, str(Path(__file__).with_name("command.py"))]


def test_the_gate_starts_last_and_so_ends_first(home: Path):
    folder = SiteFolder("site-a")
    both = children(folder, network=True, gate=True)
    assert [child.command[-2:] for child in both] == [
        ("flfed.deployment.processes.node", "site-a"), ("flfed.deployment.processes.executor", "site-a"),
    ]  # fmt: skip
    assert [child.log.parent for child in both] == [folder.network, folder.gate]
    assert [len(children(folder, network=n, gate=not n)) for n in (True, False)] == [1, 1]


def test_a_network_that_could_not_be_left_is_said_plainly(home: Path):
    assert _describe_isolation("", root=False) == "it has no network"
    assert _describe_isolation("", root=True).startswith("it has no network; but root could take it back")
    warning = "WARNING, it has data AND a network: the kernel said no"
    assert [_describe_isolation("the kernel said no", root=root).startswith(warning) for root in (True, False)] == [
        True, True,
    ]  # fmt: skip
    with pytest.raises(UsageError, match="not both"):
        serve(SiteFolder("site-a"), threading.Event(), network=False, gate=False, notify=print)


def test_a_site_that_has_not_joined_is_not_served(flfed: Callable[..., tuple[int, str, str]], home: Path):
    told: list[str] = []
    with pytest.raises(UsageError, match="site 'site-a' has not joined"):
        serve(SiteFolder("site-a"), threading.Event(), notify=told.append)
    assert len(told) == 0


@pytest.mark.parametrize("which", [{}, {"network": False}, {"gate": False}])
def test_a_home_that_is_too_long_for_a_socket_is_refused_before_anything_starts(tmp_path, monkeypatch, which):
    monkeypatch.setenv("FLFED_HOME", str(tmp_path / ("x" * 90)))
    told: list[str] = []
    with pytest.raises(UsageError, match=r"107 bytes at most\); set FLFED_HOME to a shorter folder") as caught:
        serve(SiteFolder("site-a"), threading.Event(), notify=told.append, **which)
    assert (caught.value.exit_code, told) == (2, [])
    assert list(tmp_path.glob("*/sites")) == []


def processes(site: str) -> dict[str, int]:
    """Return the ids of the processes that serve a site of this test's home, by module.

    A process that starts another one is two for a moment, both with its command: the copy is left out.
    """
    own = f"FLFED_HOME={os.environ['FLFED_HOME']}"
    found: dict[int, tuple[str, int]] = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_text().split("\0")
            ours = own in (place / "environ").read_text().split("\0")
            parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if (
            ours
            and words[-2:] == [site, ""]
            and words[1:3] == ["-P", "-m"]
            and words[3].startswith("flfed.deployment.processes.")
        ):
            found[int(place.name)] = (words[3].rpartition(".")[2], parent)
    copies = {pid for pid, (module, parent) in found.items() if found.get(parent, ("",))[0] == module}
    return {module: pid for pid, (module, _) in found.items() if pid not in copies}


@pytest.mark.servers
def test_a_site_serves_refuses_survives_and_ends(consortium: Any, home: Path, wait_until: Callable[..., None]):
    folder = consortium.joined("cleveland")
    serving = consortium.start([*FLFED, "site", "serve", "cleveland"], "serve.log")
    consortium.do("begin", config={"study": "text"})
    assert len(consortium.do("nodes", count=1)["nodes"]) == 1, (folder.network / "node.log").read_text()
    first = consortium.do("ask", config={"n": 1})
    assert len(first["replies"]) == 1
    # No study was approved at this site: the real gate refuses each message, quickly and for the same reason.
    (refused,) = first["replies"]
    assert list(refused) == ["error"]
    assert "see the site's log" not in refused["error"], (folder.gate / "gate.log").read_text()
    seconds = [consortium.do("ask", config={"n": n})["seconds"] for n in range(5)]
    # Flower's own node would sleep 3 s before each.
    assert min(seconds) < 2.8

    before = processes("cleveland")
    assert set(before) == {"node", "executor"}
    os.kill(before["executor"], signal.SIGKILL)
    wait_until(lambda: processes("cleveland").get("executor", before["executor"]) != before["executor"], 60)
    assert consortium.do("ask", config={"n": 9}, seconds=90)["replies"] == [refused]
    assert processes("cleveland")["node"] == before["node"]

    serving.send_signal(signal.SIGTERM)
    assert serving.wait(60) == 0
    assert processes("cleveland") == {}
    assert not folder.socket.exists()
    said = (consortium.root / "serve.log").read_text()
    assert "it has no network" in said
    assert "the gate ended (SIGKILL)" in said
    assert "Traceback" not in said
    assert len((folder.gate / "gate.log").read_text().splitlines()) < 60
    assert len(consortium.do("nodes", count=0)["nodes"]) == 0  # the node said that it leaves


@pytest.mark.servers
def test_a_message_whose_run_ended_halfway_keeps_no_gate_waiting(consortium, home, wait_until):
    """Seen: after `kill -9` of `coordinator run`, one of three sites answered nothing until it was served anew."""
    folder = consortium.joined("cleveland")
    consortium.start([*FLFED, "site", "serve", "cleveland"], "serve.log")
    consortium.do("begin", config={"study": "text"})
    assert len(consortium.do("nodes", count=1)["nodes"]) == 1
    (refused,) = consortium.do("ask", config={"n": 1})["replies"]
    consortium.do("half", config={"n": 2})
    wait_until(lambda: (folder.network / "node.log").read_text().count("Receiving: train") == 2)
    # Meanwhile both sides name the request and its age.
    wait_until(lambda: gate_work(folder)[0] == "has not answered a request (train)")
    assert gate_work(folder)[1] < 60
    asked = PushedObjects(consortium.root / "state.db")
    ((kind, age),) = asked.unanswered().values()
    assert kind == "train" and 0 <= age < 60
    consortium.do("end")  # as `study resume` does with the task of the killed process
    consortium.do("begin", config={"study": "text"})
    assert consortium.do("ask", config={"n": 3}, seconds=45)["replies"] == [refused]
    assert gate_work(folder) == ("", 0) and asked.unanswered() == {}


@pytest.mark.proof
@pytest.mark.servers
def test_a_killed_node_comes_back_within_the_minute_in_which_flower_refuses_it(consortium, home, wait_until):
    consortium.joined("cleveland")
    serving = consortium.start([*FLFED, "site", "serve", "cleveland"], "serve.log")
    consortium.do("begin", config={"study": "text"})
    (known,) = consortium.do("nodes", count=1)["nodes"]
    (refused,) = consortium.do("ask", config={"n": 1})["replies"]
    before, began = processes("cleveland"), time.monotonic()
    os.kill(before["node"], signal.SIGKILL)
    while consortium.do("ask", config={"n": 2}, seconds=5)["replies"] != [refused]:
        assert time.monotonic() - began < 150, (consortium.root / "serve.log").read_text()
    assert consortium.do("nodes", count=1)["nodes"] == [known]
    assert processes("cleveland")["executor"] == before["executor"]
    said = (consortium.root / "serve.log").read_text()
    assert said.count("the node ended") == 1
    assert "the server still held the place of this site's previous node; it was freed" in said
    serving.kill()
    serving.wait()
    wait_until(lambda: processes("cleveland") == {})


@pytest.mark.servers
def test_only_one_of_the_two_is_run_where_that_is_asked(consortium: Any, home: Path, wait_until: Callable[..., None]):
    folder = consortium.joined("cleveland")
    for option, name, log in (
        ("--network-only", "node", folder.network / "node.log"),
        ("--gate-only", "executor", folder.gate / "gate.log"),
    ):
        serving = consortium.start([*FLFED, "site", "serve", "cleveland", option], "one.log")
        wait_until(lambda name=name: list(processes("cleveland")) == [name], 60)
        wait_until(lambda log=log: log.exists() and log.stat().st_size > 0, 60)
        first = processes("cleveland")[name]
        os.utime(folder.join)  # as joining again leaves it: the node reads its certificate and address anew
        if name == "node":
            wait_until(lambda first=first: processes("cleveland").get("node", first) != first, 60)
        else:
            time.sleep(1)
            assert processes("cleveland")[name] == first
        serving.send_signal(signal.SIGINT)
        assert serving.wait(60) == 0
        assert processes("cleveland") == {}
    told = subprocess.run(
        [*FLFED, "site", "serve", "cleveland", "--gate-only", "--network-only"], capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert told.returncode == 2
    assert "not both" in told.stderr
