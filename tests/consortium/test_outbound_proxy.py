"""A site to which nothing but a proxy with a password is open: an empty network, and tinyproxy at its only address."""

import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from flfed.deployment.operator.outbound_proxy import OutboundProxy, read_proxy
from flfed.deployment.processes.node import _client_through, reason_of
from flfed.paths import SiteFolder
from tests.machines import is_listening

pytestmark = [
    pytest.mark.slow, pytest.mark.servers, pytest.mark.timeout(600),
    pytest.mark.skipif(os.geteuid() != 0, reason="a network for one site needs root"),
    pytest.mark.skipif(shutil.which("tinyproxy") is None, reason="tinyproxy is not installed"),
]  # fmt: skip
MEMBERS = ("alpha", "beta", "gamma")
HOST, SITE = "203.0.113.1", "203.0.113.2"
"""The two ends of the cable (RFC 5737)."""
PASSWORD = "pass-4711.secret"
FLFED = [sys.executable, "-c", "from flfed.cli import main; main()"]


@pytest.fixture(scope="module")
def network() -> Iterator[str]:
    """A network of its own for a site, with a cable to this machine and no other way."""
    name = f"flfed{os.getpid()}"
    own = ["ip", "-n", name]
    # A killed test's network, with its cable.
    for left in Path("/run/netns").glob("flfed*"):
        if not Path(f"/proc/{left.name.removeprefix('flfed')}").exists():
            subprocess.run(["ip", "netns", "delete", left.name], check=True)
    # A machine may have such addresses itself: its own network would be cut off by this cable.
    assert "203.0.113." not in subprocess.run(["ip", "address"], check=True, capture_output=True, text=True).stdout
    commands = [
        ["ip", "netns", "add", name],
        ["ip", "link", "add", f"v{os.getpid()}", "type", "veth", "peer", "name", "eth0", "netns", name],
        ["ip", "address", "add", f"{HOST}/30", "dev", f"v{os.getpid()}"],
        ["ip", "link", "set", f"v{os.getpid()}", "up"],
        [*own, "address", "add", f"{SITE}/30", "dev", "eth0"],
        [*own, "link", "set", "eth0", "up"],
        [*own, "link", "set", "lo", "up"],
    ]
    try:
        for command in commands:
            subprocess.run(command, check=True, capture_output=True)
        yield name
    finally:
        # The cable goes with the network.
        subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


@pytest.fixture(scope="module")
def tinyproxy(network: str, tmp_path_factory: pytest.TempPathFactory, wait_until: Callable[..., None]) -> Iterator[str]:
    """The URL of a real proxy that wants a password."""
    folder = tmp_path_factory.mktemp("tinyproxy")
    with socket.create_server((HOST, 0)) as probe:
        port = probe.getsockname()[1]
    lines = [f"Listen {HOST}", f"Port {port}", "Timeout 600", "MaxClients 50", f"Allow {SITE}", f"Allow {HOST}"]
    lines += [f'LogFile "{folder}/log"', "LogLevel Connect", f"BasicAuth ann {PASSWORD}"]
    (folder / "conf").write_text("\n".join(lines) + "\n")
    process = subprocess.Popen(["tinyproxy", "-d", "-c", str(folder / "conf")], stdout=subprocess.DEVNULL)
    try:
        wait_until("tinyproxy", lambda: is_listening(HOST, port), process=process)
        yield f"http://{HOST}:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    file = tmp_path / "proxy.password"
    file.write_text(f"ann:{PASSWORD}\n")
    file.chmod(0o600)
    return file


def run_of(consortium: Any, file: Path) -> dict[str, Any]:
    found = consortium.coordinator.json(f"coordinator run {file} --site alpha --site beta --site gamma")
    assert found["status"] == "completed"
    return found


def doctor_in(network: str, alpha: Any) -> list[str]:
    """Return what the doctor finds about the way from a site in a network."""
    command = ["ip", "netns", "exec", network, *FLFED, "doctor", "alpha", "--json"]
    done = subprocess.run(command, env=alpha.environment, capture_output=True, text=True, check=False)
    assert "other-word" not in done.stdout + done.stderr and PASSWORD not in done.stdout + done.stderr
    return [finding["name"] for finding in json.loads(done.stdout)["findings"]]


@contextmanager
def served(consortium: Any, *before: str) -> Iterator[Any]:
    alpha = consortium.sites["alpha"]
    process = alpha.start(*before, *FLFED, "site", "serve", "alpha")
    try:
        yield alpha
    finally:
        process.terminate()
        process.wait(60)


def places(root: Path) -> Iterator[tuple[Path, bytes]]:
    """Yield the command line and the environment of every process, and every file below a folder."""
    for process in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            try:
                yield process / name, (process / name).read_bytes()
            except OSError:
                continue
    for path in root.rglob("*"):
        if path.is_file():
            yield path, path.read_bytes()


@pytest.mark.proof
def test_a_site_behind_a_proxy_trains_the_arrays_of_a_direct_run(
    consortium: Any, network: str, tinyproxy: str, password_file: Path, wait_until: Callable[..., None]
):
    alpha, text = consortium.sites["alpha"], consortium.study()
    file = consortium.file(text)
    for name in MEMBERS:
        consortium.approve(name, text, MEMBERS)
    for name in MEMBERS[1:]:
        consortium.sites[name].serve(f"site serve {name}")
    with served(consortium):
        consortium.online(3)
        direct = run_of(consortium, file)
    log = alpha.home / "sites/alpha/network/node.log"
    with served(consortium, "ip", "netns", "exec", network):
        # The site's network is closed: without the proxy there is no way.
        wait_until("the outage", lambda: "does not answer (ConnectError)" in log.read_text())
        assert "port" in doctor_in(network, alpha) or "name" in doctor_in(network, alpha)
        wrong = password_file.with_name("wrong")
        wrong.write_text("ann:other-word")
        wrong.chmod(0o600)
        alpha.run(f"site proxy alpha {tinyproxy} --password-file {wrong}")
        refused = "the outbound proxy refuses this site's user or password (401)"
        wait_until("the refusal", lambda: refused in alpha.log(), said=log.read_text)
        assert "proxy-password" in doctor_in(network, alpha)
        said = alpha.json(f"site proxy alpha {tinyproxy} --password-file {password_file}")
        assert said == {"site": "alpha", "proxy": tinyproxy, "password": True}
        consortium.online(3)
        assert doctor_in(network, alpha) == []
        run = run_of(consortium, file)
        secrets = [PASSWORD.encode(), b"other-word"]
        shown = {path for path, content in places(consortium.root) if any(one in content for one in secrets)}
        assert shown == {log.with_name("proxy.toml")}
        said = subprocess.run([*FLFED, "site", "units", "alpha", "--output", str(consortium.root / "units")],
            env=alpha.environment, capture_output=True, text=True, check=True)  # fmt: skip
        unit = (consortium.root / "units/flfed-alpha-network.service").read_text()
        assert f"IPAddressDeny=any\nIPAddressAllow=localhost {HOST}\n" in unit and "outbound proxy" in unit
        assert PASSWORD not in unit + said.stdout
    assert run["run"] != direct["run"]
    assert run["arrays-sha256"] == direct["arrays-sha256"]
    ledger = [json.loads(line) for line in (alpha.gate / "ledger.jsonl").read_text().splitlines()]
    assert {direct["run"], run["run"]} <= {line.get("run") for line in ledger}
    with alpha.here():
        proxy = read_proxy(SiteFolder("alpha"))
        assert proxy is not None and (proxy.password, PASSWORD in repr(proxy)) == (PASSWORD, False)
        assert SiteFolder("alpha").proxy.stat().st_mode & 0o777 == 0o600


def test_the_proxy_changes_no_check_of_name_and_certificate(
    consortium: Any, tinyproxy: str, wait_until: Callable[..., None]
):
    wait_until("the coordinator's server", lambda: is_listening("127.0.0.1", consortium.port))
    proxy = OutboundProxy(tinyproxy.removeprefix("http://"), "ann", PASSWORD)
    trusted = ssl.create_default_context(cafile=str(consortium.coordinator.home / "coordinator/keys/ca.crt"))
    with _client_through(proxy, trusted) as client:
        assert client.get(f"https://localhost:{consortium.port}/").status_code == 403
        # Another name of the same machine, and after it another authority.
        with pytest.raises(httpx.ConnectError) as name:
            client.get(f"https://127.1:{consortium.port}/")
    with _client_through(proxy, ssl.create_default_context()) as client, pytest.raises(httpx.ConnectError) as authority:
        client.get(f"https://localhost:{consortium.port}/")
    for refused in (name, authority):
        assert "CERTIFICATE_VERIFY_FAILED" in reason_of(refused.value)
    for user, address, status in (("", "localhost", 407), ("ann", "nowhere.invalid", 500)):
        closed = OutboundProxy(proxy.address, user, PASSWORD)
        with _client_through(closed, trusted) as client, pytest.raises(httpx.ProxyError) as refused:
            client.get(f"https://{address}:{consortium.port}/")
        sentence = "refuses this site's user or password" if status == 407 else "opens no way to the coordinator"
        assert sentence in reason_of(refused.value) and str(status) in reason_of(refused.value)
