"""A terminal of a given size for a command: what a person sees of it, line by line."""

import atexit
import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO

STYLE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
"""What sets a colour or moves the cursor."""
_TIME = r"\d+ (s|min \d+ s|h \d+ min)"
PROGRESS = re.compile(rf"[^:,]+(, [^:,]+)*(: \d+ of \d+)?, {_TIME}(, about {_TIME} left)?")
"""A line that says how far a run is, where a machine is slow."""
COMMANDS = """
import gc, json, os, sys
import flfed.federation.server.run, flfed.rows.models.linear, sklearn.linear_model
asked, said = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
gc.freeze()
for line in asked:
    terminal, folder, environment, words = json.loads(line)
    child = os.fork()
    if not child:
        break
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=said, flush=True)
else:
    sys.exit()
place = os.open(terminal, os.O_RDWR | os.O_NOCTTY)
for number in range(3):
    os.dup2(place, number)
print("begun", file=said, flush=True)
os.close(place), asked.close(), said.close()
sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w", buffering=1), open(2, "w", buffering=1)
os.environ.clear()
os.environ.update(environment)
os.chdir(folder)
sys.argv = ["flfed", *words]
from flfed.cli import main
try:
    main()
except SystemExit as end:
    sys.stdout.flush(), sys.stderr.flush()
    os._exit(int(end.code or 0))
"""
"""Runs each command in a process of its own, forked from one that has loaded what takes a second of each.

It ends without taking apart what was loaded, which is a third of a second more.
"""


@cache
def _commands() -> tuple[IO[str], IO[str]]:
    """Start what runs the commands, until this process ends; return where it is asked, and where it answers."""
    started = subprocess.Popen(
        [sys.executable, "-c", COMMANDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert started.stdin is not None and started.stdout is not None
    atexit.register(started.communicate)
    return started.stdin, started.stdout


def in_terminal(*words: str, columns: int = 80, lines: int = 40, typed: str = "") -> tuple[int, list[str]]:
    """Run a command in a terminal, answering it; return its exit code and the lines as the terminal breaks them."""
    asking, answers = _commands()
    here, there = pty.openpty()
    fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
    asked = [os.ttyname(there), os.getcwd(), environment | {"TERM": "xterm"}, words]
    print(json.dumps(asked), file=asking, flush=True)
    assert answers.readline() == "begun\n"
    os.close(there)
    os.write(here, typed.encode())
    said = b""
    with suppress(OSError):  # the other end is closed once the command has ended
        while part := os.read(here, 65536):
            said += part
    os.close(here)
    shown = []
    for line in STYLE.sub("", said.decode()).replace("\r\n", "\n").rstrip("\n").split("\n"):
        shown += [line[start : start + columns] for start in range(0, len(line.rstrip()), columns)] or [""]
    return int(answers.readline()), shown


class Dialogue:
    """A command in a terminal, as a process of its own: a person reads, types, and may kill it."""

    def __init__(self, *words: str, environment: Mapping[str, str], folder: Path) -> None:
        self._here, there = pty.openpty()
        fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 200, 0, 0))
        command = [sys.executable, "-c", "from flfed.cli import main; main()", *words]
        ends = {"stdin": there, "stdout": there, "stderr": there}
        self.process = subprocess.Popen(
            command, env={**environment, "TERM": "xterm"}, cwd=folder, start_new_session=True, **ends
        )
        os.close(there)
        self._shown = b""

    def shown(self) -> str:
        """Return all that was printed so far, with each run of blanks as one: lines break anywhere."""
        return " ".join(STYLE.sub("", self._shown.decode(errors="replace")).split())

    def wait_for(self, words: str, seconds: float = 120) -> str:
        """Return all that was printed, once these words are among it."""
        end = time.monotonic() + seconds
        while words not in self.shown():
            assert time.monotonic() < end, f"{words!r} was not printed: {self.shown()[-2000:]}"
            assert self._read(), f"ended without {words!r}: {self.shown()[-2000:]}"
        return self.shown()

    def type(self, line: str) -> None:
        os.write(self._here, f"{line}\n".encode())

    def ended(self, seconds: float = 120) -> int:
        """Wait until the command ends; return its exit code."""
        end = time.monotonic() + seconds
        while self._read():
            assert time.monotonic() < end, f"it does not end: {self.shown()[-2000:]}"
        return self.process.wait(10)

    def kill(self) -> None:
        """Kill the command where it is; the kernel kills what it had started."""
        self.process.kill()
        self.process.wait(60)
        with suppress(OSError):
            os.close(self._here)

    def _read(self) -> bool:
        """Read what was printed within a moment; return whether the command may print more."""
        ready, _, _ = select.select([self._here], [], [], 0.5)
        if not ready:
            return True
        try:
            part = os.read(self._here, 65536)
        except OSError:  # the other end is closed once the command has ended
            return False
        self._shown += part
        return bool(part)
