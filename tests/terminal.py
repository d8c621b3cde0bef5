"""A terminal of a given size for a command: what a person sees of it, line by line."""

from __future__ import annotations

import atexit
import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from functools import cache
from typing import IO

STYLE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
"""What sets a colour or moves the cursor."""
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
