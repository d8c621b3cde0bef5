"""Runs at institutions whose processes are killed: nothing is lost or counted twice, and nobody waits for ever.

Real processes on loopback: SuperLink, Caddy, TLS, three sites with homes and keys of their own.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import text

from flfed.deployment.flower.control import Control
from flfed.deployment.flower.link import Link
from flfed.paths import CoordinatorFolder
from flfed.records.store.database import engine_to_read, store_url
from flfed.records.store.entries import RunEntry
from flfed.records.store.reader import RunReader
from flfed.updates.messages.train import ENCODER_MISSING
from tests.machines import COORDINATOR, SITE, Machine, begin, take_in, until, wait_online

SITES = ("cleveland", "hungary", "long-beach")
ROUNDS = 7
SLOW_LINE = """
import os, sys, time
from pathlib import Path

if "flfed.deployment.processes.node" in sys.orig_argv:
    import httpx

    there, sends, passed = Path(os.environ["SLOW_LINE"]), httpx.Client.send, []

    def send(self, request, **given):
        hold = there / "hold"
        if request.url.path.endswith("/confirm-message-received") and hold.exists():
            passed.append(request)
            if len(passed) >= int(hold.read_text()):
                (there / "held").touch()
                while hold.exists():
                    time.sleep(0.02)
        return sends(self, request, **given)

    httpx.Client.send = send
"""
"""Of one site's node: what it tells the server of a message waits, between the message and its reply, as long as a
test says; `hold` has the number of that message. A run that ended just then left its reply at the node, and the next
run hung."""
FOURTH_ROUND = "7"
"""The message of the fourth round: three come before that of the first."""

PASSED_ON = "from flfed.deployment.processes import child_processes as c; c.PREFIXES += ('PYTHONPATH', 'SLOW_LINE'); "
"""What the node of this test is given besides: else only a fixed list of its caller's environment reaches it."""


CODEC = ""
"""A table of the study: set by the test."""
TOP_K = '[codec]\nname = "top-k"\nshare = 0.3\n'


def with_file(words: list[str], machine: Machine) -> list[str]:
    """Return a command with the study's file in place of its name: few rounds, and two sites are enough for one."""
    path = machine.study("heart-disease", rounds=ROUNDS, quorum=0.5)
    with open(path, "a", encoding="utf-8") as stream:
        stream.write(CODEC)
    return [path if word == "heart-disease" else word for word in words]


def serve(machine: Machine, line: Path) -> subprocess.Popen[bytes]:
    """Start a site, whose node has the slow line."""
    path = os.pathsep.join(filter(None, (str(line), os.environ.get("PYTHONPATH"))))
    return machine.start(SITE["site serve"], before=PASSED_ON, PYTHONPATH=path, SLOW_LINE=str(line))


@pytest.mark.proof
@pytest.mark.servers
@pytest.mark.timeout(900)
@pytest.mark.parametrize("codec", ["", TOP_K], ids=["plain", "top-k"])
def test_what_is_killed_goes_on_as_if_nothing_had_happened(machines, test_data, tmp_path, monkeypatch, codec: str):
    monkeypatch.setattr(sys.modules[__name__], "CODEC", codec)
    coordinator = machines["coordinator"]
    (tmp_path / "sitecustomize.py").write_text(SLOW_LINE)
    served = begin(machines, test_data)
    serving = {}
    for site in SITES:
        take_in(coordinator, machines[site])
        machines[site].run(with_file(SITE["site approve"], machines[site]))
        (line := tmp_path / site).mkdir()
        (line / "sitecustomize.py").symlink_to(tmp_path / "sitecustomize.py")
        serving[site] = serve(machines[site], line)
    wait_online(machines, 3)

    run = killed_between_a_message_and_its_reply(coordinator, tmp_path / "hungary")
    here = ["study", "run", "heart-disease", *(word for site in SITES for word in ("--site", site))]
    here += ["--one-by-one", "--json"]
    undisturbed = json.loads(coordinator.run(with_file(here, coordinator)))
    compared = json.loads(coordinator.run(["run", "compare", run, undisturbed["run"], "--json"]))
    assert compared["arrays-max-difference"] == 0
    nothing_is_counted_twice(machines, run)

    served.kill()
    served.wait()
    served = coordinator.start(COORDINATOR["coordinator serve"])
    said = coordinator.log
    until("the server", lambda: said().count("sites can connect") == 2, process=served, said=said)
    a_site_that_is_killed_comes_back(machines, serving["long-beach"], tmp_path / "long-beach")


@pytest.mark.proof
@pytest.mark.servers
@pytest.mark.timeout(900)
def test_ctrl_c_and_sigterm_end_a_coordinators_run_which_is_resumed_to_the_same_arrays(machines, test_data):
    coordinator, rounds = machines["coordinator"], 30
    begin(machines, test_data)
    path = str(coordinator.study("heart-disease", rounds=rounds))
    for site in SITES:
        take_in(coordinator, machines[site])
        approve = [machines[site].study("heart-disease", rounds=rounds) if w == "heart-disease" else w
                   for w in SITE["site approve"]]  # fmt: skip
        machines[site].run(approve)
        machines[site].start(SITE["site serve"])
    wait_online(machines, 3)

    run, done = "", 0
    for words, by, said in (
        (["coordinator", "run", path], signal.SIGINT, "interrupted from the keyboard"),
        (["study", "resume", "latest"], signal.SIGTERM, "stopped by SIGTERM"),
    ):
        run, done = stopped_after_some_rounds(coordinator, words, by, said, done)
    coordinator.run(["study", "resume", "latest"])
    with RunReader.open(store_of(coordinator)) as reader:
        (ended,) = reader.runs()
        assert (ended.run, ended.status, ended.rounds) == (run, "completed", rounds)
        assert [event.reason for event in reader.events([run]) if event.kind == "fault"] == []
    # Each round of each site is counted once, and the model is that of a run that nobody stopped.
    assert Counter((site, kind) for site, _, kind in arrived(coordinator, run)) == {
        (site, kind): count for site in SITES for kind, count in (("train", rounds), ("evaluate", 1))
    }
    here = ["study", "run", path, *(word for site in SITES for word in ("--site", site)), "--one-by-one", "--json"]
    undisturbed = json.loads(coordinator.run(here))
    compared = json.loads(coordinator.run(["run", "compare", run, undisturbed["run"], "--json"]))
    assert compared["arrays-max-difference"] == 0


def stopped_after_some_rounds(
    coordinator: Machine, words: list[str], by: signal.Signals, said: str, done: int
) -> tuple[str, int]:
    """Stop a run of the consortium after more rounds than were `done`; return its id and its rounds."""

    def newest() -> RunEntry | None:
        with RunReader.open(store_of(coordinator)) as reader:
            return next(iter(reader.runs()), None)

    def goes_on() -> bool:
        return (run := newest()) is not None and run.status == "running" and run.rounds > done + 1

    before = len(coordinator.log())
    process = coordinator.start(words)
    until("some rounds", goes_on, process=process, said=coordinator.log)
    process.send_signal(by)
    assert process.wait(30) == 3, coordinator.log()
    run, log = newest(), coordinator.log()[before:]
    assert run is not None and (run.status, run.reason) == ("stopped", said)
    assert f"flfed: {said}; all results so far are stored: flfed study resume {run.series}\n" in log
    assert "Traceback" not in log
    return run.run, run.rounds


def killed_between_a_message_and_its_reply(coordinator: Machine, line: Path) -> str:
    """Kill a run while a site has a message that it did not confirm; resume it, and return its id."""
    conducting = held_in_the_fourth_round(coordinator, line)
    conducting.kill()
    conducting.wait()
    with Control(Link.of(CoordinatorFolder(coordinator.home / "coordinator"))) as control:
        (left,) = control.unfinished()
        resuming = coordinator.start(["study", "resume", "latest"])
        said = coordinator.log
        until("the end of what was left", lambda: left not in control.unfinished(), process=resuming, said=said)
    (line / "hold").unlink()
    assert resuming.wait(150) == 0, coordinator.log()
    with RunReader.open(store_of(coordinator)) as reader:
        (run,) = reader.runs()
        events = [event.reason for event in reader.events([run.run]) if event.kind == "fault"]
    assert (run.status, run.rounds, events) == ("completed", ROUNDS, [])
    return run.run


def held_in_the_fourth_round(coordinator: Machine, line: Path) -> subprocess.Popen[bytes]:
    """Begin a run, and return its process once a site has the message of the fourth round, and did not confirm it."""
    (line / "hold").write_text(FOURTH_ROUND)
    conducting = coordinator.start(with_file(COORDINATOR["coordinator run"], coordinator))
    until("the fourth round", (line / "held").exists, every=0.05, process=conducting, said=coordinator.log)
    with RunReader.open(store_of(coordinator)) as reader:
        assert 2 <= reader.runs()[0].rounds < ROUNDS
    return conducting


def store_of(machine: Machine) -> str:
    return f"sqlite:///{machine.home / 'runs.db'}"


def nothing_is_counted_twice(machines: dict[str, Machine], run: str) -> None:
    """The store has each round of each site once, with the bytes that the site's own ledger has of it."""
    stored = arrived(machines["coordinator"], run)
    counts = {"train": ROUNDS, "evaluate": 1}
    assert Counter((site, kind) for site, _, kind in stored) == {
        (site, kind): count for site in SITES for kind, count in counts.items()
    }
    again: set[int] = set()
    for site in SITES:
        left = Counter[tuple[int, str]]()
        for line in machines[site].ledger_lines():
            if line.get("run") == run and line["kind"] in ("train", "evaluate"):
                left[line["round"], line["kind"]] += 1
                # What was computed twice left twice: the same bytes both times.
                assert line["bytes"] == stored[site, line["round"], line["kind"]]
        assert left.keys() == {(round, kind) for _, round, kind in stored}
        again.update(round for (round, _), count in left.items() if count > 1)
        assert "Every line is as it was written." in machines[site].run(["site", "ledger", "SITE", "--verify"])
    assert len(again) == 1  # the round that was killed


def arrived(coordinator: Machine, run: str) -> dict[tuple[str, int, str], int]:
    """Return the bytes of each site's updates and scores in the coordinator's store."""
    engine = engine_to_read(store_url(store_of(coordinator)))
    asked = text(
        "SELECT site, round, kind, bytes FROM sent WHERE direction = 'to-server' AND run_id = :run"
        " AND kind IN ('train', 'evaluate')"
    )
    with engine.connect() as connection:
        rows = [((site, round, kind), size) for site, round, kind, size in connection.execute(asked, {"run": run})]
    engine.dispose()
    assert len(dict(rows)) == len(rows)
    return dict(rows)


def a_site_that_is_killed_comes_back(
    machines: dict[str, Machine], serving: subprocess.Popen[bytes], line: Path
) -> None:
    """Kill a site in the middle of a run: the run ends with the others, and the site takes part in the next one."""
    coordinator = machines["coordinator"]
    conducting = held_in_the_fourth_round(coordinator, line)
    serving.kill()
    serving.wait()
    (line / "hold").unlink()
    # Its encoder goes with what it kept of the run: it is sent it again in the round that it comes back in.
    (folder,) = (machines["long-beach"].home / "sites" / "long-beach" / "runs").iterdir()
    assert (folder / "encoder.safetensors").is_file() and bool(list(folder.glob("state-*"))) == bool(CODEC)
    shutil.rmtree(folder)
    serve(machines["long-beach"], line)
    assert conducting.wait(240) == 0, coordinator.log()
    with RunReader.open(store_of(coordinator)) as reader:
        run = reader.runs()[0].run
    trained = Counter(site for site, _, kind in arrived(coordinator, run) if kind == "train")
    said = [line for line in machines["long-beach"].ledger_lines() if line.get("reason") == str(ENCODER_MISSING)]
    assert {line.get("run") for line in said} == ({run} if trained["long-beach"] > 3 else set())
    # It may be back, and asked again, before a round ends without it.
    assert 2 <= trained["long-beach"] <= trained["cleveland"] == trained["hungary"] == ROUNDS
    again = json.loads(coordinator.run([*with_file(COORDINATOR["coordinator run"], coordinator), "--json"]))
    assert (again["status"], again["faults"]) == ("completed", [])
    assert Counter(site for site, _, kind in arrived(coordinator, again["run"]) if kind == "train") == dict.fromkeys(
        SITES, ROUNDS
    )
