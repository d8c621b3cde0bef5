"""Private names of Flower: one file has all of them, and a process that lacks one says which."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

from flfed import flower_names
from flfed.errors import FlfedError
from flfed.flower_names import NAMES, User, ask, check_names, reply_class
from tests.test_architecture import imported

ROOT = Path(__file__).resolve().parents[1]
PUBLIC = ("flwr.app", "flwr.clientapp", "flwr.serverapp", "flwr.simulation")
MOST = 40
CODES = {"/flwr.proto.Runtime/AcquireTask"}
"""Names on the wire that stand where they are signed."""


def private(source: str) -> list[str]:
    """Return the names of Flower beyond its public modules that a file imports, or has as the text of a module."""
    if "flwr" not in source:
        return []
    texts = [node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)]
    modules = [text for text in texts if isinstance(text, str) and re.fullmatch(r"flwr(\.\w+)+", text)]
    names = [name for name in (*imported(source), *modules) if name.split(".")[0] == "flwr"]
    return [name for name in names if not _is_public(name)]


def _is_public(name: str) -> bool:
    # A public module and what it lists, and the strategies; a module within them is Flower's own affair.
    inside = name.split(".", 2)
    return ".".join(inside[:2]) in PUBLIC and (
        len(inside) == 2 or "." not in inside[2] or inside[2].startswith("strategy.") and inside[2].count(".") == 1
    )


def test_one_file_has_all_private_names_and_at_most_forty():
    files = [*(ROOT / "flfed").rglob("*.py"), ROOT / "app.py", *(ROOT / "sites").rglob("*.py")]
    found = {str(file.relative_to(ROOT)): private(file.read_text()) for file in files}
    assert [file for file, names in found.items() if names] == ["flfed/flower_names.py"]
    assert 20 < len(NAMES) <= MOST
    # What only types need is in the table too.
    for name in set(imported((ROOT / "flfed/flower_names.py").read_text())) & {n for n in found if n}:
        assert name.rpartition(".")[2] in NAMES


@pytest.mark.parametrize(("source", "expected"), [
    ("from flwr.app import Message", []), ("from flwr.serverapp.strategy import FedAvg", []),
    ("from flwr.serverapp.strategy.fedavg import FedAvg", ["flwr.serverapp.strategy.fedavg.FedAvg"]),
    ("def f():\n    from flwr.supercore.run import Run", ["flwr.supercore.run", "flwr.supercore.run.Run"]),
    ("load('flwr.superlink.main')", ["flwr.superlink.main"]),
])  # fmt: skip
def test_a_private_name_elsewhere_would_be_found(source: str, expected: list[str]):
    assert private(source) == expected


@pytest.mark.parametrize("user", get_args(User))
def test_this_flower_has_all_of_them(user: User):
    check_names(user)
    assert any(user in where.users for where in NAMES.values())


def test_each_name_is_asked_for_somewhere():
    files = [file for file in (ROOT / "flfed").rglob("*.py") if file.name != "flower_names.py"]
    words = {word for file in files for word in re.findall(r"\w+", file.read_text())}
    assert [name for name in NAMES if name not in words] == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_values_on_the_wire_are_flowers():
    from flwr.common import constant
    from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
    from flwr.supercore.error import ApiErrorCode

    ours = flower_names
    assert (ours.COMPLETED, ours.FAILED) == (constant.SubStatus.COMPLETED, constant.SubStatus.FAILED)
    assert (ours.STARTING, ours.RUNNING) == (constant.Status.STARTING, constant.Status.RUNNING)
    codes = constant.ErrorCode
    assert (ours.UNKNOWN, ours.NODE_UNAVAILABLE) == (codes.UNKNOWN, codes.NODE_UNAVAILABLE)
    assert ours.KEY_IN_USE == ApiErrorCode.PUBLIC_KEY_ALREADY_IN_USE
    assert ours.HEARTBEAT_SECONDS == constant.HEARTBEAT_DEFAULT_INTERVAL
    assert ours.TIMESTAMP_HEADER == constant.TIMESTAMP_HEADER
    assert ours.PUBLIC_KEY_HEADER == FLEET_HTTP_PUBLIC_KEY_HEADER
    assert ours.SIGNATURE_HEADER == FLEET_HTTP_SIGNATURE_HEADER
    assert ours.OLDEST_SECONDS == constant.TIMESTAMP_TOLERANCE + constant.SYSTEM_TIME_TOLERANCE
    assert ours.AHEAD_SECONDS == constant.SYSTEM_TIME_TOLERANCE


def test_a_request_is_of_the_class_that_the_method_declares():
    class Client:
        def Double(self, request: int) -> str:
            return str(2 * request)

        def Undeclared(self, request):
            return request

    assert ask(Client().Double) == "0"
    assert reply_class(Client.Double) is str
    with pytest.raises(FlfedError, match="does not declare the request of 'Undeclared'"):
        ask(Client().Undeclared)


def test_the_module_is_light_and_a_name_that_is_not_listed_is_none():
    code = "import sys, flfed.flower_names; print([name for name in sys.modules if name.startswith('flwr')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
    with pytest.raises(AttributeError, match="has no attribute 'Sprinkler'"):
        flower_names.Sprinkler  # noqa: B018


AT_A_START: dict[str, tuple[dict[str, str], str]] = {
    "server": (
        {"flwr.superlink.extensions": "get_middleware", "flwr.superlink.main": "_get_middleware"},
        "import runpy; runpy.run_module('flfed.deployment.coordinator.superlink', run_name='__main__')",
    ),
    "node": (
        {
            "flwr.supernode.start_client_internal": "_pull_and_store_message",
            "flwr.supercore.protobuf.client": "ProtobufClient",
        },
        "import runpy; runpy.run_module('flfed.deployment.processes.node', run_name='__main__')",
    ),
    "gate": (
        {"flwr.supernode.runtime.run_clientapp": "push_message", "flwr.common.serde": "context_from_proto"},
        "from flfed.deployment.processes import executor; from flfed.errors import FlfedError\n"
        "try: executor._loaded(None, None, None, b'', None)\n"
        "except FlfedError as error: sys.exit(f'flfed: {error}')",
    ),
    "coordinator": (
        {"flwr.superlink.grid.http_grid": "HttpGrid", "flwr.supercore.error": "FlowerError"},
        "from flfed.errors import FlfedError\n"
        "try: import flfed.deployment.engine\n"
        "except FlfedError as error: sys.exit(f'flfed: {error}')",
    ),
}
"""What is taken from Flower, by module, and what then starts."""


@pytest.mark.servers
@pytest.mark.parametrize("user", AT_A_START)
def test_a_process_that_lacks_names_says_which_and_does_not_start(user: str, tmp_path: Path):
    taken, start = AT_A_START[user]
    code = "import importlib, sys\n"
    code += "".join(f"delattr(importlib.import_module({module!r}), {name!r})\n" for module, name in taken.items())
    done: Any = subprocess.run(
        [sys.executable, "-c", f"{code}{start}", "site-a"], capture_output=True, text=True, timeout=120, cwd=tmp_path,
        env=os.environ | {"FLFED_HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 1
    said = done.stderr.strip().splitlines()[-1]
    assert said.startswith("flfed: Flower 1.42") and said.endswith(", which flfed needs; install flwr 1.42")
    assert all(f"{module}.{name}" in said for module, name in taken.items())
