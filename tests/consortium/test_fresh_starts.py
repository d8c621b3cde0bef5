"""The first run of a fresh consortium, in whatever order its processes begin: nobody waits without a word."""

import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import IO

import pytest

from tests.consortium.conftest import Consortium
from tests.machines import until

pytestmark = [pytest.mark.proof, pytest.mark.slow, pytest.mark.servers, pytest.mark.timeout(1200)]

SITES = ["alpha", "beta", "gamma"]
ORDERS = {
    "at once": set[str](), "all online": {"run"}, "one later": {"gamma"}, "coordinator last": {"coordinator"},
    "admitted last": {"admissions"},
}  # fmt: skip
"""What begins only once the sites' nodes were refused, or, of a site, once the run says that it waits for it."""
SILENT_SECONDS, STARTS = 45.0, 6.0
"""How long nothing may be said, and nothing be answered by a site: who is waited for is said every half minute. A run
loads its libraries before it can say anything: so many times as long as a short command takes on this machine now."""
UNTIL = r"The coordinator waits \d+ s more, until \d\d:\d\d:\d\d\."
WAITING = rf"Waiting for gamma to come online\. Already online: alpha, beta\. {UNTIL}"


def first_run(folder: Path, late: set[str]) -> tuple[list[str], float]:
    """Begin a consortium in an order, and run a study at once; return what was said, and how silent it was at most.

    As a share of what may be.
    """
    made = Consortium(folder)
    try:
        made.begin(("delta",), serve="coordinator" not in late, admit_all="admissions" not in late)
        text = made.study(("rounds = 3", "rounds = 2"))
        for name in SITES:
            made.approve(name, text, SITES)
            if name not in late:
                made.sites[name].serve(f"site serve {name}")
        if "coordinator" in late:
            told(made, "the coordinator's server does not answer")
            made.serve()
        if "admissions" in late:
            told(made, "the coordinator's server refuses this site")
            for name in SITES:
                made.admit(folder / "exchange" / f"{name}.admission")
        if "run" in late:
            made.online(3)
        if "gamma" in late:
            made.online(2)
        said, silence = _run(made, made.file(text))
        began = time.monotonic()
        made.coordinator.serve("coordinator status").wait()
        return said, silence / (SILENT_SECONDS + STARTS * (time.monotonic() - began))
    finally:
        made.end()


def told(made: Consortium, what: str) -> None:
    """Wait until the nodes that were started have said it."""
    for machine in made.sites.values():
        if machine.started:
            until(what, lambda log=machine.log: what in log(), process=machine.started[0], said=machine.log)


def _run(made: Consortium, file: Path) -> tuple[list[str], float]:
    flfed = [sys.executable, "-c", "from flfed.cli import main; main()"]
    said, silence, end = list[str](), 0.0, time.monotonic() + 300
    while time.monotonic() < end:
        process = subprocess.Popen(
            [*flfed, "coordinator", "run", str(file)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            env=made.coordinator.environment, cwd=made.coordinator.exchange,
        )  # fmt: skip
        made.coordinator.started.append(process)
        reading = threading.Thread(target=_read, args=(process.stderr, said))
        reading.start()
        heard, before = time.monotonic(), -1
        while reading.is_alive():
            reading.join(0.2)
            # What was said, and what the sites have answered: where either goes on, nobody waits in silence.
            now = len(said) + sum(len(made.sites[name].lines()) for name in SITES)
            if now != before:
                heard, before = time.monotonic(), now
            silence = max(silence, time.monotonic() - heard)
            gamma = made.sites["gamma"]
            if not gamma.started and any(line.startswith("Waiting for") for line in said):
                gamma.serve("site serve gamma")
        if process.wait() == 0:
            return said, silence
        # The server is not there yet, or does not know the sites yet: that is said, and no run is begun.
        assert "does not answer" in said[-1] or "not registered" in said[-1] or "not admitted" in said[-1], said
    raise AssertionError(said)


def _read(stream: IO[str], said: list[str]) -> None:
    with stream:
        for line in stream:
            said.append(line.strip())


def starts(late: set[str]) -> None:
    # A short path: the name of a Unix socket has 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="flfed-", ignore_cleanup_errors=True) as folder:
        said, silence = first_run(Path(folder), late)
    assert silence < 1, said
    if "gamma" in late:
        assert any(re.fullmatch(WAITING, line) for line in said), said


def test_the_first_run_of_a_fresh_consortium_never_waits_silently():
    starts(set().union(*ORDERS.values()) - {"run"})  # the sites' nodes, the coordinator, admissions, run, one site


@pytest.mark.parametrize("order", ORDERS)
def test_the_first_run_in_any_order_never_waits_silently(order: str):
    starts(ORDERS[order])


@pytest.mark.timeout(7200)
def test_fifty_first_runs_of_fresh_consortia_never_wait_silently():
    for number in range(50):
        starts(list(ORDERS.values())[number % len(ORDERS)])
