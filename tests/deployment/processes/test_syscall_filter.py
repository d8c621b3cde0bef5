"""The list of system calls is right on both kinds of machine, and where there is none that is said."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from flfed.deployment.processes.isolation import CONNECT, LOOKED_AT, MACHINES, REFUSED

LIBSECCOMP = Path("/usr/lib/x86_64-linux-gnu/libseccomp.so.2")
ELSEWHERE = (
    "from flfed.deployment.processes.serve import network_left, _describe_isolation; "
    "print(_describe_isolation(*network_left(), root=False))"
)


@pytest.mark.skipif(not LIBSECCOMP.exists(), reason="libseccomp is not installed")
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_numbers_of_the_calls_are_those_of_the_kernel(machine: str):
    known = ctypes.CDLL(str(LIBSECCOMP)).seccomp_syscall_resolve_name_arch
    table = {**REFUSED, **CONNECT, **LOOKED_AT}
    column, audit = MACHINES[machine].column, MACHINES[machine].audit
    assert {name: known(audit, name.encode()) for name in table} == {name: n[column] for name, n in table.items()}
    assert len(table) > 40


def test_on_a_machine_without_a_list_it_is_said_what_is_missing():
    words = ["setarch", "i686", sys.executable, "-c", ELSEWHERE]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    missing = "flfed has no list of system calls for Linux on i686"
    assert said == f"it has no network; WARNING, it could open a Unix socket that its user may: {missing}"
