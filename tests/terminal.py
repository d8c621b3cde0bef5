"""A terminal of a given size for a command: what a person sees of it, line by line."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from contextlib import suppress

STYLE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
"""What sets a colour or moves the cursor."""


def in_terminal(*words: str, columns: int = 80, lines: int = 40, typed: str = "") -> tuple[int, list[str]]:
    """Run a command in a terminal, answering it; return its exit code and the lines as the terminal breaks them."""
    here, there = pty.openpty()
    fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(
        [sys.executable, "-c", "from flfed.cli import main; main()", *words],
        stdin=there, stdout=there, stderr=there, env=environment | {"TERM": "xterm"},
    )  # fmt: skip
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
    return process.wait(timeout=120), shown
