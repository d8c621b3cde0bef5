"""A process that left the network has no way back, as root and as anybody else."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.another_account import account

TRY = """
import ctypes, os, signal, socket, sys
from pathlib import Path
from flfed.deployment.processes.isolation import interfaces, leave_network
ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
before = os.readlink("/proc/self/ns/net")
print(leave_network() or "left", os.readlink("/proc/self/ns/net") != before, interfaces(), os.getuid())
for port in map(int, sys.argv[1:]):
    try:
        socket.create_connection(("127.0.0.1", port), 2)
        print("reached")
    except OSError as error:
        print(error.strerror)
kept = ctypes.c_int()
ctypes.CDLL(None).prctl(2, ctypes.byref(kept), 0, 0, 0)
status = Path("/proc/self/status").read_text()
print(kept.value, "NoNewPrivs:\\t1" in status)
"""


@pytest.mark.parametrize("user", [0, 64102])
def test_the_loopback_of_the_machine_is_gone_and_the_name_stays(user: int):
    if os.geteuid() != 0:
        pytest.skip("another user needs root")
    become = account(user) if user else []
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        socket.create_connection(("127.0.0.1", port), 2).close()
        words = [*become, sys.executable, "-c", TRY, str(port)]
        said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == [f"left True ['lo'] {user}", "Network is unreachable", "9 True"]


def test_where_a_thread_runs_already_it_says_why_not(tmp_path: Path):
    late = "import threading, time; threading.Thread(target=time.sleep, args=(1,), daemon=True).start()\n"
    said = subprocess.run([sys.executable, "-c", late + TRY], capture_output=True, text=True, check=True).stdout
    has_more = len(socket.if_nameindex()) > 1
    assert said.splitlines()[0].startswith("a thread was started before False" if has_more else "left False")
