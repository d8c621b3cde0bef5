"""The first run of a fresh consortium, in whatever order its processes begin: nobody waits without a word."""

from __future__ import annotations

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

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

SITES = ["alpha", "beta", "gamma"]
ORDERS = ("at once", "all online", "one later", "coordinator last", "admitted last")
LATER_SECONDS = 8.0
"""How much later what comes last begins: by then the sites' nodes were refused."""
SILENT_SECONDS, STARTS = 45.0, 6.0
"""How long nothing may be said, and nothing be answered by a site: who is waited for is said every half minute. A run
loads its libraries before it can say anything: so many times as long as a short command takes on this machine now."""
WAITING = r"waiting for gamma to come online; online: alpha, beta; given up at \d\d:\d\d:\d\d \(in \d+ s\)"


def first_run(folder: Path, order: str) -> tuple[list[str], float]:
    """Begin a consortium in an order, and run a study at once; return what was said, and how silent it was at most.

    As a share of what may be.
    """
    made = Consortium(folder)
    try:
        made.begin(("delta",), serve=order != "coordinator last", admit_all=order != "admitted last")
        text = made.study(("rounds = 3", "rounds = 2"))
        for name in SITES:
            made.approve(name, text, SITES)
            if (name, order) != ("gamma", "one later"):
                made.sites[name].serve(f"site serve {name}")
        if order == "coordinator last":
            time.sleep(LATER_SECONDS)
            made.serve()
        if order == "admitted last":
            time.sleep(LATER_SECONDS)
            for name in SITES:
                made.admit(folder / "exchange" / f"{name}.admission")
        if order in ("all online", "one later"):
            made.online(3 if order == "all online" else 2)
        said, silence = _run(made, made.file(text), order)
        began = time.monotonic()
        made.coordinator.run("coordinator status")
        return said, silence / (SILENT_SECONDS + STARTS * (time.monotonic() - began))
    finally:
        made.end()


def _run(made: Consortium, file: Path, order: str) -> tuple[list[str], float]:
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
            if order == "one later" and any(line.startswith("waiting for") for line in said):
                order = ""
                made.sites["gamma"].serve("site serve gamma")
        if process.wait() == 0:
            return said, silence
        # The server is not there yet, or does not know the sites yet: that is said, and no run is begun.
        assert "does not answer" in said[-1] or "not registered" in said[-1] or "not admitted" in said[-1], said
    raise AssertionError(said)


def _read(stream: IO[str], said: list[str]) -> None:
    with stream:
        for line in stream:
            said.append(line.strip())  # noqa: PERF401 - each line as it comes


def starts(order: str) -> None:
    # A short path: the name of a Unix socket has 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="flfed-", ignore_cleanup_errors=True) as folder:
        said, silence = first_run(Path(folder), order)
    assert silence < 1, said
    if order == "one later":
        assert any(re.fullmatch(WAITING, line) for line in said), said


@pytest.mark.parametrize("order", ORDERS)
def test_the_first_run_of_a_fresh_consortium_never_waits_silently(order: str):
    starts(order)


@pytest.mark.proof
@pytest.mark.timeout(7200)
def test_fifty_first_runs_of_fresh_consortia_never_wait_silently():
    for number in range(50):
        starts(ORDERS[number % len(ORDERS)])
