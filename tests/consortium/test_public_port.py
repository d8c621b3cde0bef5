"""A stranger who holds the authority's certificate, and whoever is not admitted: what they get at the public port."""

import json
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from flwr.proto import control_pb2
from flwr.superlink.main import create_app

from flfed.deployment.coordinator import proxy
from flfed.deployment.coordinator.certificates import Settings, initialise
from flfed.deployment.flower.control import Control
from flfed.deployment.flower.link import HEADER, Link
from flfed.errors import FlfedError
from flfed.files import write_whole
from flfed.paths import CoordinatorFolder
from flfed.signatures import new_node_key, private_text

pytestmark = [pytest.mark.slow, pytest.mark.servers, pytest.mark.timeout(600)]
ROUTE = "/v1/control/list-nodes"
PATHS = (
    f"/{ROUTE}", "/v1/fleet/../control/list-nodes", "/v1/fleet/%2e%2e/control/list-nodes",
    "/v1/fleet/%252e%252e/control/list-nodes", "/v1/fleet/..%2fcontrol%2flist-nodes",
    "/v1/fleet/pull-messages/../../control/list-nodes", "/v1/fleet/pull-messages/%2e%2e/%2e%2e/control/list-nodes",
    "/v1/fleet/pull-messages/..;/..;/control/list-nodes", "/v1/fleet/pull-messages%00/../../control/list-nodes",
    "/v1/fleet/pull-messages\\..\\..\\control\\list-nodes", "/v1//control/list-nodes", "/./v1/control/list-nodes",
    "/v1/control/list-nodes/", "/V1/control/list-nodes", "/v1/CONTROL/list-nodes", "/%76%31/control/list-nodes",
    f"{ROUTE}?/v1/fleet/pull-messages", f"{ROUTE}#/v1/fleet/pull-messages",
)  # fmt: skip
HEADERS = {
    "another host": "Host: 127.0.0.1", "another name": "Host: control.example.org", "no host": "",
    "two hosts": "Host: localhost\r\nHost: 127.0.0.1",
    "rewritten": f"Host: localhost\r\nX-Original-URL: {ROUTE}\r\nX-Rewrite-URL: {ROUTE}\r\n"
    "X-Forwarded-Prefix: /v1/control",
    "overridden": "Host: localhost\r\nX-HTTP-Method-Override: GET\r\nX-Forwarded-For: 127.0.0.1\r\n"
    "Forwarded: for=127.0.0.1",
    "guessed": f"Host: localhost\r\n{HEADER}: {'0' * 64}",
    "hop by hop": f"Host: localhost\r\nConnection: {HEADER}, close",
    "h2c": "Host: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
    "websocket": "Host: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
}  # fmt: skip
REFUSED = {400, 401, 403, 404, 421}
"""401 and 404 are of the SuperLink, to what it takes for a route of nodes without a key, or for none."""


class Port:
    """The public port, as a stranger reaches it."""

    def __init__(self, consortium: Any) -> None:
        self.number, self.authority = consortium.port, consortium.coordinator.home / "coordinator/keys/ca.crt"
        self.context = ssl.create_default_context(cafile=str(self.authority))
        self.folder = CoordinatorFolder(consortium.coordinator.home / "coordinator")
        self.inside = int(Link.of(self.folder).address.rpartition(":")[2])

    def said(self, request: str, *, plain: bool = False) -> bytes:
        """Return all that is answered to bytes, as they are, over TLS."""
        found = b""
        with socket.create_connection(("127.0.0.1", self.number), 10) as bare:
            wrapped = bare if plain else self.context.wrap_socket(bare, server_hostname="localhost")
            with wrapped:
                wrapped.sendall(request.encode("latin-1"))
                try:
                    while piece := wrapped.recv(65_536):
                        found += piece
                except (TimeoutError, OSError):
                    pass
        return found

    def post(self, target: str, headers: str = "Host: localhost") -> bytes:
        first = f"POST {target} HTTP/1.1\r\n{headers}\r\n" if headers else f"POST {target} HTTP/1.1\r\n"
        return self.said(f"{first}Content-Type: application/protobuf\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    def nodes(self) -> dict[bytes, Any]:
        with Control(Link.of(self.folder)) as control:
            return control.nodes()


@pytest.fixture(scope="module")
def port(consortium: Any, wait_until: Callable[..., None]) -> Port:
    # Those who are admitted are registered within a second or so; none of them runs.
    def ready() -> bool:
        with suppress(FlfedError):
            return len(Port(consortium).nodes()) == 4
        return False

    wait_until("four registered nodes", ready)
    return Port(consortium)


def status_of(answer: bytes) -> int:
    """Return the status of an answer; 0 where the connection was closed without one."""
    words = answer.split(b" ", 2)
    return int(words[1]) if len(words) > 1 and words[0].startswith(b"HTTP/") else 0


def test_every_route_of_the_installed_flower_but_those_of_nodes_is_refused(port: Port):
    routes = set(create_app().openapi()["paths"])
    published = {f"/v1/fleet/{route}" for route in proxy.ROUTES}
    assert published < routes and len(routes) > 70
    for start, least in (("/v1/control/", 40), ("/v1/runtime/", 20)):
        assert sum(route.startswith(start) for route in routes) >= least
    others = sorted(routes - published) + ["/", "/docs", "/openapi.json", "/v1/fleet", "/v1/fleet/", "/v1/control/"]
    with httpx.Client(verify=port.context, base_url=f"https://localhost:{port.number}", trust_env=False) as client:
        for method in ("POST", "GET", "PUT", "DELETE", "OPTIONS", "HEAD"):
            found = {route: client.request(method, route) for route in others}
            assert {route: reply.status_code for route, reply in found.items()} == dict.fromkeys(others, 403)
            assert {reply.content for reply in found.values()} == {b""}
        assert {client.get(route).status_code for route in published} == {403}
        kind = {"content-type": "application/protobuf", "accept": "application/protobuf"}
        assert {client.post(route, headers=kind).status_code for route in published} == {401}


@pytest.mark.parametrize("path", PATHS)
def test_no_spelling_of_a_path_reaches_a_control_route(port: Port, path: str):
    for target in (path, f"https://localhost:{port.number}{path}", f"https://127.0.0.1:{port.inside}{path}"):
        answer = port.post(target)
        assert status_of(answer) in REFUSED, answer[:300]
        assert b"alpha" not in answer and b"application/protobuf" not in answer
    # HTTP/2 has its own way to say a path, and is not spoken.
    asked = ["curl", "--silent", "--http2", "--path-as-is", "--cacert", str(port.authority), "--data-binary", ""]
    asked += ["--noproxy", "*", "--write-out", "%{http_version} %{http_code}", f"https://localhost:{port.number}{path}"]
    told = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=False)
    version, _, code = told.stdout.rpartition("\n")[2].partition(" ")
    assert version == "1.1" and int(code) in REFUSED, told


@pytest.mark.parametrize("headers", HEADERS.values(), ids=HEADERS)
def test_no_header_opens_a_control_route(port: Port, headers: str):
    for target in (ROUTE, f"https://127.0.0.1:{port.inside}{ROUTE}", "/v1/fleet/pull-messages"):
        answer = port.post(target, headers)
        assert status_of(answer) in REFUSED, answer[:300]
        assert b"101" not in answer[:20] and b"alpha" not in answer


def test_a_request_within_another_is_refused_too(port: Port):
    inner = f"POST {ROUTE} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
    start = "POST /v1/fleet/pull-messages HTTP/1.1\r\nHost: localhost\r\n"
    for headers, body in (
        (f"Content-Length: {len(inner) + 5}\r\nTransfer-Encoding: chunked", f"0\r\n\r\n{inner}"),
        ("Content-Length: 0\r\nContent-Length: 7", inner),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", f"0\r\n\r\n{inner}"),
        ("Content-Length: 0", inner),  # one after the other, as is allowed
    ):
        answer = port.said(f"{start}{headers}\r\n\r\n{body}")
        codes = {int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]}
        assert codes and codes <= REFUSED | {415, 501}, answer[:500]
        assert b"alpha" not in answer
    # Without TLS nothing is said but that there is TLS; HTTP/2 without TLS is not spoken.
    assert b"HTTP/1.1" not in port.said("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", plain=True)
    assert status_of(port.said(f"POST {ROUTE} HTTP/1.1\r\nHost: localhost\r\n\r\n", plain=True)) in {0, 400}


def test_flowers_own_client_can_list_register_start_and_stop_nothing(port: Port):
    public = Link(f"localhost:{port.number}", port.authority.read_text(), b"")
    before, client = set(port.nodes()), public.control(with_secret=False)
    number = next(iter(port.nodes().values())).node_id
    with Control(Link.of(port.folder)) as control:
        runs = control.unfinished()
    key = b"-----BEGIN PUBLIC KEY-----"
    calls: list[Callable[[], object]] = [
        lambda: client.ListNodes(control_pb2.ListNodesRequest()),
        lambda: client.ListRuns(control_pb2.ListRunsRequest()),
        lambda: client.RegisterNode(control_pb2.RegisterNodeRequest(public_key=key)),
        lambda: client.UnregisterNode(control_pb2.UnregisterNodeRequest(node_id=number)),
        lambda: client.StartRun(control_pb2.StartRunRequest()),
        lambda: client.StopRun(control_pb2.StopRunRequest(run_id=1)),
    ]
    try:
        for call in calls:
            with pytest.raises(httpx.HTTPStatusError) as error:
                call()
            assert error.value.response.status_code == 403
    finally:
        client.close()
    assert set(port.nodes()) == before
    with Control(Link.of(port.folder)) as control:
        assert control.unfinished() == runs
    log = (port.folder.server / "caddy.log").read_text()
    assert f'"uri":"{ROUTE}"' in log and '"status":403' in log
    inside = (port.folder.server / "superlink.log").read_text()
    assert "Traceback" not in inside


def said_by_node(machine: Any, words: str, seconds: float = 60) -> str:
    """Return the log of a site's node once it says something."""
    log = machine.home / "sites" / machine.name / "network/node.log"
    end = time.monotonic() + seconds
    while not (log.exists() and words in log.read_text()):
        assert time.monotonic() < end, log.read_text() if log.exists() else machine.log_file.read_text()
        time.sleep(0.2)
    return str(log.read_text())


def test_a_revoked_key_a_key_that_is_not_admitted_and_another_authority(port: Port, consortium: Any, tmp_path: Path):
    alpha, beta, gamma = (consortium.sites[name] for name in ("alpha", "beta", "gamma"))
    other = CoordinatorFolder(tmp_path / "other")
    initialise(other, Settings("Other", f"localhost:{port.number}"))
    shutil.copy(other.keys / "ca.crt", beta.home / "sites/beta/network/ca.crt")
    write_whole(gamma.home / "sites/gamma/network/node.key", private_text(new_node_key()))
    consortium.coordinator.run("coordinator revoke alpha")
    for machine in (alpha, beta, gamma):
        machine.serve(f"site serve {machine.name} --network-only")
    assert "CERTIFICATE_VERIFY_FAILED" in said_by_node(beta, "CERTIFICATE")
    for machine in (alpha, gamma):
        said = said_by_node(machine, "refuses this site")
        assert "its key is not admitted yet" in said and "was revoked" in said
    assert [node.status for node in port.nodes().values()].count("online") == 0
    said = (port.folder.log).read_text()
    assert '"revoked"' in said and "alpha" in said
    log = (port.folder.server / "caddy.log").read_text()
    assert '"status":401' in log and "/v1/fleet/activate-node" in log


def test_a_kit_and_an_invitation_are_used_once(port: Port, consortium: Any):
    delta, alpha = consortium.sites["delta"], consortium.sites["alpha"]
    said = delta.run("site join delta.kit.zip", code=2)
    assert "this kit was used here on" in said and said.count("\n") == 1
    log = [json.loads(line) for line in (delta.home / "sites/joining.jsonl").read_text().splitlines()]
    assert (log[-1]["what"], log[-1]["reason"]) == ("kit refused", said.removeprefix("flfed: ").strip())
    # Somebody else with a copy of the kit makes a key of their own, and sends it.
    (consortium.root / "exchange/delta.admission").unlink()
    alpha.run("site join delta.kit.zip --yes")
    said = consortium.coordinator.run("coordinator admit delta.admission", code=2)
    assert "was admitted on" in said and "with another key" in said and "admit FILE --replace" in said
    last = json.loads(port.folder.log.read_text().splitlines()[-1])
    assert last["reason"] in said and last["what"] == "admission refused"
    before = len(port.nodes())
    assert before == 4
