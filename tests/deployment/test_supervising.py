"""Real child processes: started again with back-off, logged within a limit, ended in order, never left behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flfed.deployment.processes.child_processes import Pulse
from flfed.deployment.processes.supervisor import PAUSES, Child, Life, LimitedLog, Supervisor, stop_on_signals

ROOT = Path(__file__).resolve().parents[2]


def child(folder: Path, code: str, name: str = "child") -> Child:
    return Child(name, (sys.executable, "-u", "-c", code), folder / f"{name}.log")


def alive(pid: int) -> bool:
    """Tell whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(told: Callable[[], bool], seconds: float = 60.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if told():
            return True
        time.sleep(0.02)
    return told()


def said(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def test_a_child_that_ends_is_started_again_and_others_are_left_alone(tmp_path: Path):
    ends, stays = child(tmp_path, "print('up')", "ends"), child(tmp_path, "import time; time.sleep(60)", "stays")
    sentences: list[str] = []
    with Supervisor([ends, stays], notify=sentences.append, pauses=(0.05,)) as supervisor:
        before = supervisor.processes["stays"]
        stop = threading.Event()
        supervisor.supervise(stop, lambda: said(ends.log).count("up") >= 3 and stop.set())
        assert supervisor.processes["stays"] == before
    assert said(ends.log).count("up") >= 3
    assert sentences[0] == f"ends ended (exit code 0), see {ends.log}; started again in 0.05 s"
    assert not alive(before)


@pytest.mark.servers
def test_a_child_that_hangs_is_started_anew_and_one_that_works_for_long_is_not(tmp_path: Path):
    beats = "import time\nfrom pathlib import Path\n"
    beats += "from flfed.deployment.processes.child_processes import Pulse\npulse = Pulse(Path({!r}))\n"
    hangs = beats.format(str(tmp_path / "hangs")) + "for _ in range(5): pulse.beat(); time.sleep(0.2)\ntime.sleep(60)"
    works = beats.format(str(tmp_path / "works")) + "with pulse.busy(): print('at work'); time.sleep(60)"
    sentences: list[str] = []
    children = [
        Child(name, (sys.executable, "-u", "-c", code), tmp_path / f"{name}.log", life=life)
        for name, code, life in (
            ("hangs", hangs, Life(Pulse(tmp_path / "hangs"), 5.0, "has not reached its node")),
            ("works", works, Life(Pulse(tmp_path / "works"), 5.0, "has not reached its node")),
        )
    ]
    with Supervisor(children, notify=sentences.append, pauses=(0.1,)) as supervisor:
        before = dict(supervisor.processes)
        stop = threading.Event()
        supervisor.supervise(stop, lambda: sentences and stop.set())
        assert supervisor.processes["works"] == before["works"]
        assert "at work" in said(children[1].log)
    log = children[0].log
    assert sentences[0] == f"hangs has not reached its node for 5 s, and was ended, see {log}; started again in 0.1 s"
    assert not alive(before["hangs"])


def test_after_a_stand_still_of_the_machine_a_child_has_its_whole_time_again(tmp_path: Path):
    quiet = Child(
        "quiet", (sys.executable, "-c", "import time; time.sleep(60)"), tmp_path / "quiet.log",
        life=Life(Pulse(tmp_path / "quiet"), 60.0, "has not reached its node"),
    )  # fmt: skip
    now, sentences = [0.0], list[str]()
    with Supervisor([quiet], notify=sentences.append, clock=lambda: now[0]) as supervisor:
        for now[0] in (0.2, 4.0, 304.0, 308.0, *range(310, 364, 4)):
            supervisor.look()
        assert sentences == []
        now[0] = 366.0
        supervisor.look()
    assert sentences[0].startswith("quiet has not reached its node for 60 s, and was ended")


def test_a_slow_start_is_no_silence_but_has_an_end(tmp_path: Path):
    pulse = Pulse(tmp_path / "slow")
    slow = Child(
        "slow", (sys.executable, "-c", "import time; time.sleep(60)"), tmp_path / "slow.log",
        life=Life(pulse, 6.0, "has not reached its node", startup=60.0),
    )  # fmt: skip
    now, sentences = [0.0], list[str]()
    with Supervisor([slow], notify=sentences.append, clock=lambda: now[0]) as supervisor:
        for now[0] in range(0, 60, 4):
            supervisor.look()
        assert sentences == []
        pulse.beat()  # its silence counts from here on
        for now[0] in (60.0, 64.0, 66.0):
            assert sentences == []
            supervisor.look()
        assert sentences[0].startswith("slow has not reached its node for 6 s, and was ended")
        for now[0] in range(67, 140, 4):
            supervisor.look()
    assert sentences[1].startswith("slow has not reached its node for 60 s, and was ended")


def test_news_of_a_child_is_told_at_once(tmp_path: Path):
    sentences: list[str] = []
    talks = child(tmp_path, "import time; print('flfed says: it rains'); print('flfed: kept'); time.sleep(60)", "talks")
    with Supervisor([talks], notify=sentences.append):
        assert until(lambda: sentences == ["talks: it rains"])


def test_pauses_grow_and_are_forgotten_after_a_minute_of_doing_well(tmp_path: Path):
    now, sentences = [0.0], list[str]()

    def ended_once(supervisor: Supervisor) -> str:
        told = len(sentences)
        assert until(lambda: supervisor.look() or len(sentences) > told)
        return sentences[-1].rpartition(" in ")[2]

    supervised = Supervisor([child(tmp_path, "")], notify=sentences.append, pauses=(1, 2, 8), clock=lambda: now[0])
    with supervised as supervisor:
        assert ended_once(supervisor) == "1 s"
        assert supervisor.processes == {}
        now[0] += 0.9
        supervisor.look()
        assert supervisor.processes == {}
        now[0] += 0.1
        assert [ended_once(supervisor)] == ["2 s"]
        for pause in ("8 s", "8 s"):
            now[0] += 8
            assert ended_once(supervisor) == pause
        now[0] += 8
        supervisor.look()
        now[0] += 60
        assert ended_once(supervisor) == "1 s"


def test_the_pauses_bring_a_killed_node_past_the_minute_in_which_flower_refuses_it():
    # A refused node needs 2 to 6 s to notice; a try must fall between 60 and 80 s after it was killed.
    for noticing in (2.0, 4.0, 6.0):
        now, tries = 0.0, list[float]()
        for pause in PAUSES:
            now += pause
            tries.append(now)
            now += noticing
        assert any(60 <= at <= 80 for at in tries), (noticing, tries)


def test_children_are_ended_in_order_the_last_one_first_and_a_deaf_one_is_killed(tmp_path: Path):
    order = tmp_path / "order"
    polite = (
        "import signal, sys, time\n"
        f"def leave(*_):\n    open({str(order)!r}, 'a').write(sys.argv[1] if sys.argv[1:] else 'x'); sys.exit()\n"
        "signal.signal(signal.SIGTERM, leave); print('ready'); time.sleep(60)"
    )
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready'); time.sleep(60)"
    children = [child(tmp_path, polite.replace("'x'", f"'{n}'"), n) for n in "ab"] + [child(tmp_path, deaf, "deaf")]
    with Supervisor(children, patience=0.5) as supervisor:
        pids = list(supervisor.processes.values())
        assert until(lambda: all("ready" in said(c.log) for c in children))
        began = time.monotonic()
    assert order.read_text() == "ba"
    assert 0.5 <= time.monotonic() - began < 9  # 10 s are given where nothing else is asked for
    assert [pid for pid in pids if alive(pid)] == []


def test_what_a_child_started_itself_ends_with_it(tmp_path: Path):
    parent = "import subprocess, sys, time; print(subprocess.Popen(['sleep', '60']).pid); time.sleep(60)"
    with Supervisor([child(tmp_path, parent)]):
        assert until(lambda: said(tmp_path / "child.log").strip().isdigit())
        grandchild = int(said(tmp_path / "child.log"))
        assert alive(grandchild)
    assert until(lambda: not alive(grandchild), 60)


def test_a_child_is_renewed_with_another_process(tmp_path: Path):
    with Supervisor([child(tmp_path, "import time; time.sleep(60)")]) as supervisor:
        before = supervisor.processes["child"]
        supervisor.renew("child")
        assert supervisor.processes["child"] != before
        assert not alive(before)


def test_a_log_keeps_its_limit_and_what_came_before_and_nobody_else_reads_it(tmp_path: Path):
    log = LimitedLog(tmp_path / "log", limit=100)
    for number in range(25):
        log.write(b"%09d\n" % number)
    assert (tmp_path / "log").read_text().split() == [f"{n:09d}" for n in range(20, 25)]
    assert (tmp_path / "log.1").read_text().split() == [f"{n:09d}" for n in range(10, 20)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "log.1"]
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_a_log_is_not_written_through_a_link(tmp_path: Path):
    (tmp_path / "log").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        LimitedLog(tmp_path / "log").write(b"x")
    assert len(list(tmp_path.iterdir())) == 1


def test_a_command_that_is_not_there_is_said_in_the_log(tmp_path: Path):
    absent = Child("absent", ("/nowhere/caddy",), tmp_path / "log")
    sentences: list[str] = []
    with Supervisor([absent], notify=sentences.append, pauses=(30,)) as supervisor:
        assert until(lambda: supervisor.look() or bool(sentences))
    assert said(tmp_path / "log") == "/nowhere/caddy: cannot be started (No such file or directory); is it installed?\n"
    assert sentences[0].startswith("absent ended (exit code 1)")


def test_what_a_child_says_last_in_a_sentence_of_ours_is_told_with_its_end(tmp_path: Path):
    program = "import sys; print('flfed: first', flush=True); print('noise'); sys.exit('flfed: the key is unknown')"
    sentences: list[str] = []
    talks = child(tmp_path, program, "talks")
    with Supervisor([talks], notify=sentences.append, pauses=(30,)) as supervisor:
        assert until(lambda: supervisor.look() or bool(sentences))
    assert sentences == [f"talks ended (exit code 1): the key is unknown, see {talks.log}; started again in 30 s"]


PROGRAM = """
import sys
from pathlib import Path
from flfed.deployment.processes.supervisor import Child, Supervisor, stop_on_signals
deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(120)"
folder = Path(sys.argv[1])
children = [Child(name, (sys.executable, "-c", deaf), folder / name) for name in ("one", "two")]
with stop_on_signals() as stop, Supervisor(children, patience=0.2) as supervisor:
    print(*supervisor.processes.values(), flush=True)
    supervisor.supervise(stop)
print("over", flush=True)
"""


@pytest.fixture
def supervising(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A program that supervises two deaf children; its process and theirs."""
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        pids: list[int] = []
        try:
            assert process.stdout is not None
            pids = [int(word) for word in process.stdout.readline().split()]
            # They are the shim at first, which becomes the command.
            assert until(lambda: all(b"supervising" not in Path(f"/proc/{p}/cmdline").read_bytes() for p in pids))
            yield process, pids
        finally:
            process.kill()
            for pid in filter(alive, pids):
                os.kill(pid, signal.SIGKILL)


Supervising = tuple[subprocess.Popen[str], list[int]]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_supervisor_and_its_children_in_peace(supervising: Supervising, number: signal.Signals):
    process, pids = supervising
    assert len(pids) == 2 and all(map(alive, pids))
    process.send_signal(number)
    assert process.wait(60) == 0
    assert process.stdout is not None and process.stdout.read() == "over\n"
    assert [pid for pid in pids if alive(pid)] == []


def test_a_supervisor_that_is_killed_leaves_no_child_behind(supervising: Supervising):
    process, pids = supervising
    assert len(pids) == 2 and all(map(alive, pids))
    process.kill()
    assert process.wait(60) == -signal.SIGKILL
    assert until(lambda: not any(map(alive, pids)), 60)


def test_signals_mean_again_what_they_did_before():
    before = signal.getsignal(signal.SIGTERM)
    with stop_on_signals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(60)
    assert signal.getsignal(signal.SIGTERM) == before
