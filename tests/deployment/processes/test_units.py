"""The units that `site units` writes are ones systemd takes, and say what they must of the two users."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from flfed.deployment.processes import units
from flfed.errors import UsageError

COMMAND = [sys.executable, str(Path(__file__).with_name("command.py"))]
STRING_MAP = {"type": "object", "additionalProperties": {"type": "string"}}
STRINGS = {"type": "array", "items": {"type": "string"}, "uniqueItems": True}
SERVICE = {
    "image": {"type": "string"}, "command": STRINGS, "user": {"type": "string"}, "network_mode": {"type": "string"},
    "environment": STRING_MAP, "volumes": STRINGS, "read_only": {"type": "boolean"}, "tmpfs": STRINGS,
    "cap_drop": STRINGS, "security_opt": STRINGS, "restart": {"type": "string"},
    "stop_grace_period": {"type": "string"}, "mem_limit": {"type": ["number", "string"]},
    "pids_limit": {"type": ["number", "string"]},
    "ulimits": {"type": "object", "additionalProperties": {"type": "integer"}},
}  # fmt: skip
COMPOSE: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "services": {
            "type": "object",
            "patternProperties": {
                "^[a-zA-Z0-9._-]+$": {"type": "object", "properties": SERVICE, "additionalProperties": False}
            },
            "additionalProperties": False,
        },
    },
    "additionalProperties": False,
}
"""What the Compose Specification (compose-spec.json) says of the keys that our file has, at its strictest."""


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """The units of site-a, by what they are, in a folder."""
    made = units.filled("site-a", command=Path("/usr/bin/true"), base=Path("/var/lib/flfed"), address="192.0.2.7:443")
    return {path.name.removeprefix("flfed-site-a-"): path for path in units.write(tmp_path / "units", made)}


def settings(path: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith(("#", "[")):
            found.setdefault(name, []).append(value)
    return found


def test_every_place_is_filled(files: dict[str, Path]):
    assert len(files) == 5
    for path in files.values():
        assert re.findall("@[A-Z_]+@", path.read_text()) == []
        assert "site-a" in path.read_text() or path.name.endswith("sysusers.conf")


def test_the_gate_has_no_network_and_the_node_no_data(files: dict[str, Path]):
    gate, node = settings(files["gate.service"]), settings(files["network.service"])
    assert (gate["User"], node["User"]) == (["flfed-gate"], ["flfed-net"])
    assert (gate["PrivateNetwork"], gate["RestrictAddressFamilies"]) == (["yes"], ["AF_UNIX"])
    assert gate["IPAddressDeny"] == ["any"]
    assert gate["ReadWritePaths"] == ["/var/lib/flfed/gate"]
    assert (gate["InaccessiblePaths"], node["InaccessiblePaths"]) == (["/var/lib/flfed/net"], ["/var/lib/flfed/gate"])
    assert node["ReadWritePaths"] == ["/var/lib/flfed/net /var/lib/flfed/link/site-a"]
    assert (node["IPAddressDeny"], node["IPAddressAllow"]) == (["any"], ["localhost 192.0.2.7"])
    assert (gate["MemoryMax"], gate["MemorySwapMax"], gate["LimitNOFILE"]) == (["60%"], ["0"], ["1024"])
    for unit in (gate, node):
        # One process of a unit that takes too much is ended alone, and started anew by its supervisor.
        assert (unit["OOMPolicy"], unit["TasksMax"], len(unit["MemoryMax"])) == (["continue"], ["256"], 1)
        assert {unit[key][0] for key in ("NoNewPrivileges", "RestrictNamespaces", "PrivateTmp")} == {"yes"}
        assert (unit["ProtectSystem"], unit["CapabilityBoundingSet"], unit["UMask"]) == (["strict"], [""], ["0077"])


def test_an_egress_rule_needs_a_number_and_a_program_at_home_is_readable():
    def node(**given: Any) -> str:
        return units.filled("a", **{"command": Path("/usr/bin/flfed"), **given})["flfed-a-network.service"]

    assert "IPAddressAllow=localhost 2001:db8::7\n" in node(address="[2001:db8::7]:443")
    for address in ("fl.example.org:443", ""):
        assert sum(line.startswith("IPAddress") for line in node(address=address).splitlines()) == 0
    through = node(address="192.0.2.9:3128", peer="outbound proxy")
    assert "the outbound proxy (192.0.2.9).\n" in through and "IPAddressAllow=localhost 192.0.2.9\n" in through
    assert "the outbound proxy is named" in node(address="proxy.example.org:3128", peer="outbound proxy")
    # Else the node could go anywhere, and its administrator would believe that it cannot.
    for wrong in ("192.0.2.999:443", "2001:db8::7", "http://192.0.2.9:3128", "192.0.2.9", "192.0.2.0/24:443"):
        with pytest.raises(UsageError, match="must be host:port"):
            node(address=wrong)
    assert "ProtectHome=yes\n" in node()
    assert "ProtectHome=read-only\n" in node(command=Path("/home/ann/.venv/bin/flfed"))


@pytest.mark.parametrize(
    "path", ["relative/flfed", "/opt/a b/flfed", "/opt/%n/flfed", '/opt/"x', "/opt/x\nUser=root", "/$x"]
)
def test_a_path_that_a_unit_would_read_otherwise_is_refused(path: str):
    for given in ({"command": Path(path)}, {"command": Path("/usr/bin/true"), "base": Path(path)}):
        with pytest.raises(UsageError, match="absolute path"):
            units.filled("site-a", **given)
    with pytest.raises(UsageError, match="site name"):
        units.filled("../x", command=Path("/usr/bin/true"))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize("name", ["network.service", "gate.service"])
def test_systemd_takes_them_and_finds_little_exposed(files: dict[str, Path], name: str):
    told = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(files[name])], capture_output=True, text=True, check=False
    )
    about = [line for line in told.stderr.splitlines() if "flfed" in line]
    assert (told.returncode, about) == (0, [])
    told = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--json=short", str(files[name])],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stdout + told.stderr
    exposed = {line["name"]: float(line["exposure"]) for line in json.loads(told.stdout) if line["exposure"]}
    assert sum(exposed.values()) < 2.0
    assert ("PrivateNetwork=" in exposed) == (name == "network.service")


@pytest.mark.skipif(shutil.which("systemd-sysusers") is None, reason="systemd is not installed")
def test_the_users_and_their_group_are_made(files: dict[str, Path], tmp_path: Path):
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    subprocess.run(["systemd-sysusers", f"--root={root}", str(files["sysusers.conf"])], check=True, capture_output=True)
    groups = {line.split(":")[0]: line.split(":")[3] for line in (root / "etc/group").read_text().splitlines()}
    assert sorted(groups["flfed-link"].split(",")) == ["flfed-gate", "flfed-net"]
    users = [line.split(":") for line in (root / "etc/passwd").read_text().splitlines()]
    assert {user[0]: user[5] for user in users} == {
        "flfed-net": "/var/lib/flfed/net", "flfed-gate": "/var/lib/flfed/gate",
    }  # fmt: skip
    assert len({user[2] for user in users}) == 2


def test_the_compose_file_keeps_to_the_specification(files: dict[str, Path]):
    jsonschema = pytest.importorskip("jsonschema")
    found = yaml.safe_load(files["compose.yaml"].read_text())
    jsonschema.validate(found, COMPOSE)
    node, gate = found["services"]["node"], found["services"]["gate"]
    assert (gate["network_mode"], "network_mode" in node) == ("none", False)
    link = "/var/lib/flfed/link/site-a:/var/lib/flfed/link/site-a"
    assert node["volumes"] == ["/var/lib/flfed/net:/var/lib/flfed/net", link]
    assert gate["volumes"] == ["/var/lib/flfed/gate:/var/lib/flfed/gate", f"{link}:ro"]
    for service in (node, gate):
        assert (service["read_only"], service["cap_drop"], service["pids_limit"]) == (True, ["ALL"], 256)
        assert service["mem_limit"].endswith("g}")
        assert not {"privileged", "ports", "cap_add", "devices", "pid", "ipc"} & set(service)
    spoilt = {**found, "services": {"gate": {**gate, "networkmode": "none"}}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(spoilt, COMPOSE)


def test_the_command_writes_them_and_says_what_to_do(flfed: Callable[..., Any], tmp_path: Path, home: Path):
    words = ["site", "units", "site-a", "--output", str(tmp_path / "u"), "--command", "/opt/flfed/bin/flfed"]
    told = subprocess.run([*COMMAND, *words, "--json"], capture_output=True, text=True, check=True)
    written = json.loads(told.stdout)
    assert written["site"] == "site-a"
    assert sorted(map(Path, written["files"])) == sorted((tmp_path / "u").iterdir())
    assert (
        "ExecStart=/opt/flfed/bin/flfed site serve site-a --gate-only"
        in (tmp_path / "u/flfed-site-a-gate.service").read_text()
    )
    told = subprocess.run([*COMMAND, *words], capture_output=True, text=True, check=True)
    assert "systemctl enable --now flfed-site-a-network flfed-site-a-gate" in told.stdout
    told = subprocess.run([*COMMAND, *words[:4], "/proc/x"], capture_output=True, text=True, check=False)
    assert (told.returncode, "cannot be written" in told.stderr) == (1, True)
