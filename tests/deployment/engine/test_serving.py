"""The server that sites reach: what a stranger gets, who is cut off, and what it leaves on the machine."""

import http.client
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from flwr.superlink.routers.control import router as control_routes
from flwr.superlink.routers.fleet.router import router as node_routes

from flfed.deployment.coordinator import proxy
from flfed.deployment.coordinator.certificates import Settings, initialise, renew_server
from flfed.deployment.coordinator.serve import Watch, _prepare, _superlink, serve
from flfed.deployment.coordinator.status import status
from flfed.deployment.flower.control import Control, NotLocked
from flfed.deployment.flower.link import HEADER, Link, word_of
from flfed.deployment.processes.supervisor import Supervisor
from flfed.errors import FlfedError, UsageError
from flfed.paths import CoordinatorFolder

RUNTIME = (
    "acquire-task", "get-nodes", "push-messages", "pull-messages", "push-object", "pull-object", "pull-task-input",
)  # fmt: skip
TRICKS = (
    "/v1/fleet/../control/list-nodes", "/v1/fleet/%2e%2e/control/list-nodes", "/v1/fleet/..%2fcontrol/list-nodes",
    "/v1/fleet/pull-messages/../../control/list-nodes", "//v1/control/list-nodes", "/v1//control/list-nodes",
    "/V1/CONTROL/LIST-NODES", "/v1/control/list-nodes#/v1/fleet/pull-messages",
    "/v1/control/list-nodes?/v1/fleet/pull-messages", "/v1/fleet/pull-messages;/../../control/list-nodes",
)  # fmt: skip


def paths_of(router: Any) -> list[str]:
    return [route.path for route in router.routes]


@pytest.fixture
def stranger(world: Any) -> Iterator[httpx.Client]:
    """Somebody who holds the authority's certificate and reaches the public port."""
    trusted = ssl.create_default_context(cafile=str(world.folder.keys / "ca.crt"))
    headers = {"content-type": "application/protobuf", "accept": "application/protobuf"}
    base = f"https://127.0.0.1:{world.port}"
    with httpx.Client(verify=trusted, base_url=base, headers=headers, trust_env=False) as client:
        yield client


@pytest.mark.servers
def test_a_stranger_gets_403_on_every_route_but_those_of_nodes(world: Any, stranger: httpx.Client):
    control = paths_of(control_routes)
    assert len(control) >= 30 and "/v1/control/start-run" in control
    others = [
        *control, *(f"/v1/runtime/{name}" for name in RUNTIME), "/", "/docs", "/openapi.json", "/health", "/v1/fleet",
    ]  # fmt: skip
    others += ["/v1/fleet/", "/v1/fleet/register-node", "/v1/fleet/unregister-node", "/v1/fleet/unknown"]
    found = {path: stranger.post(path, content=b"") for path in others}
    assert {path: reply.status_code for path, reply in found.items()} == dict.fromkeys(others, 403)
    assert {reply.content for reply in found.values()} == {b""}
    assert [path for path in others if stranger.get(path).status_code != 403] == []


@pytest.mark.servers
@pytest.mark.parametrize("path", TRICKS)
def test_no_spelling_of_a_path_reaches_a_control_route(world: Any, path: str):
    trusted = ssl.create_default_context(cafile=str(world.folder.keys / "ca.crt"))
    connection = http.client.HTTPSConnection("127.0.0.1", world.port, context=trusted, timeout=10)
    try:
        connection.request("POST", path, body=b"", headers={"content-type": "application/protobuf"})
        reply = connection.getresponse()
        said = reply.read()
    finally:
        connection.close()
    # 401 and 404 are of the SuperLink, to what it takes for a route of nodes, or for none.
    assert reply.status in (400, 401, 403, 404)
    assert b"site-1" not in said and len(said) < 200


@pytest.mark.servers
def test_nodes_routes_ask_for_a_key_and_nothing_says_what_runs_there(world: Any, stranger: httpx.Client):
    for route in proxy.ROUTES:
        reply = stranger.post(f"/v1/fleet/{route}", content=b"")
        assert reply.status_code == 401, route
        assert stranger.get(f"/v1/fleet/{route}").status_code == 403
        assert {"server", "via"} & set(reply.headers) == set()
    # What Flower's nodes ask is published, but for the two routes that (un)register.
    published = {f"/v1/fleet/{route}" for route in proxy.ROUTES}
    assert set(paths_of(node_routes)) - published == {"/v1/fleet/register-node", "/v1/fleet/unregister-node"}
    assert published <= set(paths_of(node_routes))
    log = (world.folder.server / "caddy.log").read_text()
    assert '"uri":"/v1/fleet/push-object"' in log and '"status":401' in log
    assert '"status":200' not in log
    assert stranger.post("/v1/fleet/push-object", content=bytes(17_000_000)).status_code == 401


@pytest.mark.servers
def test_another_user_of_the_machine_is_refused_on_loopback_too(world: Any):
    link = Link.of(world.folder)
    with httpx.Client(verify=False, base_url=f"https://{link.address}", trust_env=False) as client:
        found = {path: client.post(path, content=b"").status_code for path in paths_of(control_routes)}
        assert set(found.values()) == {403}
        assert client.get("/docs").status_code == 403
        wrong = client.post("/v1/control/list-nodes", headers={HEADER: word_of(b"guess")}, content=b"")
        assert wrong.status_code == 403
    with Control(link) as control:
        control.check_lock()
        assert len(control.nodes()) == 3
    unlocked = Control(Link(link.address, link.certificate, b"another"))
    with unlocked, pytest.raises(FlfedError, match="another coordinator"):
        unlocked.nodes()


@pytest.mark.servers
def test_what_is_served_from_is_for_its_owner_only_and_no_secret_is_on_a_command_line(world: Any):
    server = world.folder.server
    open_to_others = [p for p in [server, *server.rglob("*")] if not p.is_symlink() and p.stat().st_mode & 0o077]
    assert [p for p in open_to_others if p.is_file()] == []
    assert server.stat().st_mode & 0o777 == 0o700
    assert (server / "flower.db").stat().st_mode & 0o777 == 0o600
    secret = (server / "executor.secret").read_bytes()
    lines = [p.read_bytes() for p in Path("/proc").glob("[0-9]*/cmdline") if os.access(p, os.R_OK)]
    assert any(b"flfed.deployment.coordinator.superlink" in line for line in lines)
    assert [line for line in lines if secret in line or word_of(secret).encode() in line] == []
    logs = b"".join(p.read_bytes() for p in server.glob("*.log"))
    assert len(secret) == 64 and secret not in logs and word_of(secret).encode() not in logs
    bound = re.findall(r"127\.0\.0\.1:(\d+)", Link.of(world.folder).address)
    assert len(bound) == 1 and listens_only_on_loopback(int(bound[0]))


def listens_only_on_loopback(port: int) -> bool:
    lines = Path("/proc/net/tcp").read_text().split("\n") + Path("/proc/net/tcp6").read_text().split("\n")
    local = [line.split()[1] for line in lines if len(line.split()) > 3 and line.split()[3] == "0A"]
    return [place for place in local if place.endswith(f":{port:04X}")] == [f"0100007F:{port:04X}"]


@pytest.mark.servers
def test_a_second_server_of_the_same_folder_is_refused(world: Any):
    with pytest.raises(UsageError, match="serves already") as error:
        serve(world.folder, threading.Event(), notify=print)
    assert error.value.exit_code == 2
    assert Link.of(world.folder).address.startswith("127.0.0.1:")


@pytest.mark.servers
def test_the_status_says_who_is_online_since_when(world: Any):
    found = status(world.folder)
    assert (found.serving, found.address) == (True, f"127.0.0.1:{world.port}")
    assert [(site.site, site.status, site.node) for site in found.sites] == [
        (f"site-{number}", "admitted", "online") for number in (1, 2, 3)
    ]
    assert all(re.match(r"20\d\d-\d\d-\d\dT", site.online_since) for site in found.sites)
    # Each asks for a message every few seconds.
    seconds = [site.seconds_since_request for site in found.sites]
    assert len(seconds) == 3 and all(since is not None and 0 <= since < 15 for since in seconds)
    assert found.as_json()["sites"][0]["last-run"] is None
    assert found.as_json()["server-days"] > 30


@pytest.mark.servers
def test_the_status_of_a_running_server_loads_no_flower(world: Any):
    code = (
        "import json, sys; from pathlib import Path; from flfed.paths import CoordinatorFolder; "
        "from flfed.deployment.coordinator.status import status; found = status(CoordinatorFolder(Path(sys.argv[1]))); "
        "print(json.dumps([[site.node for site in found.sites], [m for m in ('flwr', 'torch') if m in sys.modules]]))"
    )
    done = subprocess.run([sys.executable, "-c", code, world.folder.root], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [["online", "online", "online"], []]


@pytest.mark.servers
def test_a_renewed_certificate_is_shown_to_sites_without_a_restart(world: Any):
    def shown() -> str:
        try:
            return ssl.get_server_certificate(("127.0.0.1", world.port), timeout=5).strip()
        except OSError:  # caddy is started again
            return ""

    before = shown()
    assert before == (world.folder.keys / "server.crt").read_text().strip()
    renew_server(world.folder)
    assert world.until(lambda: shown() not in ("", before), 60)
    assert shown() == (world.folder.keys / "server.crt").read_text().strip()
    assert world.log("serve").count("certificate has changed") == 1


@pytest.mark.servers
def test_a_key_that_is_not_admitted_or_revoked_and_another_authority_are_refused(world: Any, tmp_path: Path):
    """Real nodes: each ends with Flower's code for a refused connection."""
    world.key("stranger")
    other = CoordinatorFolder(tmp_path / "other")
    initialise(other, Settings("Other", f"127.0.0.1:{world.port}"))
    secret = world.root / "site-1.secret"
    runs = {
        "stranger": world.start("stranger", *world.node_command("stranger", 0, secret)),
        "site-1b": world.start(
            "site-1b", *world.node_command("site-1", 0, secret, other.keys / "ca.crt"), home="site-1b"
        ),
    }
    codes = {name: process.wait(120) for name, process in runs.items()}
    assert set(codes.values()) <= set(range(1, 400)) and len(codes) == 2
    assert "401" in (world.folder.server / "caddy.log").read_text()
    with Control(Link.of(world.folder)) as control:
        assert len([n for n in control.nodes().values() if n.status != "unregistered"]) == 3


@pytest.mark.servers
def test_a_killed_server_leaves_nothing_and_serves_again_with_the_same_nodes(own_world: Any):
    own_world.site("site-1", runs=False)
    own_world.serve()
    with Control(Link.of(own_world.folder)) as control:
        before = control.nodes()
    pids = own_world.server_children()
    assert len(pids) == 2
    own_world.server.kill()
    own_world.server.wait(60)
    assert own_world.until(lambda: not any(own_world.alive(pid) for pid in pids), 60)
    own_world.serve()
    with Control(Link.of(own_world.folder)) as control:
        assert {key: node.node_id for key, node in control.nodes().items()} == {
            key: node.node_id for key, node in before.items()
        }
        assert len(before) == 1
    pids = own_world.server_children()
    own_world.server.send_signal(signal.SIGTERM)
    assert own_world.server.wait(60) == 0
    assert [pid for pid in pids if own_world.alive(pid)] == []
    with pytest.raises(FlfedError, match="flfed coordinator serve"):
        Link.of(own_world.folder)


@pytest.mark.servers
def test_a_superlink_that_anybody_may_command_is_not_served(own_world: Any):
    """Flower's own program, as it is: what a version of Flower would be that passes the lock by."""
    folder, told = own_world.folder, list[str]()
    own_world.site("site-1", runs=False)
    words = _superlink(folder, _prepare(folder, "127.0.0.1", 0))
    own_world.start("bare", Path(sys.executable).with_name("flower-superlink"), *words[words.index("--host") :])
    watch = Watch(folder, Supervisor([]), told.append)

    def refused() -> bool:
        try:
            watch.look()
        except NotLocked as error:
            told.append(str(error))
        return bool(told)

    assert own_world.until(refused, 150)
    assert told == ["the control routes of this version of Flower are not locked by flfed: it must not be used"]
    with Control(Link.of(folder)) as control:
        assert len(control.nodes()) == 0
