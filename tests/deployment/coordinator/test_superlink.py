"""The lock before Flower's server: who is known by headers alone, what a body may be, and what is said of each site."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from flwr.superlink import main as application
from starlette.middleware import Middleware

from flfed.deployment.coordinator import superlink
from flfed.deployment.coordinator.admission import revoke
from flfed.deployment.coordinator.certificates import Settings, initialise
from flfed.deployment.coordinator.node_auth import NodeKeys
from flfed.deployment.coordinator.proxy import ROUTES
from flfed.deployment.coordinator.superlink import (
    AT_A_TIME,
    LIMITS,
    ROUTES_OF,
    BodyReader,
    BodyRefused,
    Lock,
    OwnRoutes,
    on_own_routes,
)
from flfed.deployment.flower.link import HEADER, LAST_REQUESTS, NODES
from flfed.files import write_whole
from flfed.paths import CoordinatorFolder
from flfed.signatures import new_node_key
from tests.consortium.strangers import headers
from tests.deployment.coordinator.asgi import Sender, admit, pushed, scope, waiting

PUSH, PULL = "/v1/fleet/push-object", "/v1/fleet/pull-messages"


class Server:
    """Flower in its place: reads the whole body, and waits until it may answer."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        assert message["more_body"] is False
        self.bodies.append(message["body"])
        await self.may_answer.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


@pytest.fixture
def folder(tmp_path: Path) -> CoordinatorFolder:
    made = CoordinatorFolder(tmp_path / "coordinator")
    initialise(made, Settings("Test", "fl.example.org:8443"))
    return made


def ask(lock: Lock, path: str, said: dict[str, str], pieces: Iterable[bytes] = (b"",), **more: str) -> Sender:
    sender = Sender(pieces)
    more = {name.replace("_", "-"): value for name, value in more.items()}
    asyncio.run(lock(scope(path, said, **more), sender.receive, sender.send))
    return sender


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def lock(folder: CoordinatorFolder, server: Server) -> Lock:
    return Lock(server, "word", NodeKeys(folder), waiting(folder.server))


def test_nothing_is_read_of_a_request_whose_headers_do_not_prove_an_admitted_key(folder, server, lock):
    alpha, own, invited = admit(folder, "alpha"), new_node_key(), admit(folder, "beta", "invited")
    good = headers(alpha)
    wrong: dict[str, dict[str, str]] = {
        "no header": {},
        "no key": {name: value for name, value in good.items() if name != "flwr-public-key"},
        "no signature": {name: value for name, value in good.items() if name != "flwr-signature"},
        "a key of one's own": headers(own), "a key that is not admitted yet": headers(invited),
        "another's signature": headers(alpha, signer=own),
        "a signature of another time": {**good, "flwr-timestamp": headers(alpha)["flwr-timestamp"]},
        "no base64": {**good, "flwr-signature": "é".encode().decode("latin-1")},
        "a time of five minutes ago": headers(alpha, age=306), "a time to come": headers(alpha, age=-6),
        "a time without its zone": {**good, "flwr-timestamp": good["flwr-timestamp"].partition("+")[0]},
        "no time": {**good, "flwr-timestamp": "now"},
    }  # fmt: skip
    for route in ROUTES:
        for name, said in wrong.items():
            sender = ask(lock, f"/v1/fleet/{route}", said, [b"x"] * 3, content_length="15900000")
            assert (sender.status, sender.read, sender.sent[1]["body"]) == (401, 0, b""), (route, name)
            assert (b"connection", b"close") in sender.sent[0]["headers"]
    twice = scope(PULL, good)
    twice["headers"] += [(b"flwr-public-key", good["flwr-public-key"].encode())]
    sender = Sender([b""])
    asyncio.run(lock(twice, sender.receive, sender.send))
    assert sender.status == 401 and server.bodies == []
    for age in (0, -4, 300):
        assert ask(lock, PULL, headers(alpha, age=age), [b"a", b"b"]).status == 200
    assert server.bodies == [b"ab"] * 3


def test_a_revoked_key_is_out_at_once_and_a_damaged_file_changes_nothing(folder: CoordinatorFolder, lock: Lock):
    alpha = admit(folder, "alpha")
    assert ask(lock, PULL, headers(alpha)).status == 200
    beta = admit(folder, "beta")
    assert ask(lock, PULL, headers(beta)).status == 200
    write_whole(folder.sites / "alpha.json", b"{")
    assert [ask(lock, PULL, headers(key)).status for key in (alpha, beta)] == [200, 200]
    revoke(folder, "beta")
    assert [ask(lock, PULL, headers(key)).status for key in (alpha, beta)] == [200, 401]
    other = admit(folder, "alpha")
    assert [ask(lock, PULL, headers(key)).status for key in (alpha, other)] == [401, 200]
    (folder.sites / "alpha.json").unlink()
    assert ask(lock, PULL, headers(other)).status == 401


def test_a_file_that_is_written_in_place_is_seen_within_a_second(folder: CoordinatorFolder):
    now = [0.0]
    keys, alpha = NodeKeys(folder, clock=lambda: now[0]), admit(folder, "alpha")
    said = [(name.encode(), value.encode()) for name, value in headers(alpha).items()]
    assert keys.identify(said) is not None
    path = folder.sites / "alpha.json"
    path.write_text(path.read_text().replace("admitted", "revoked"))
    os.utime(path, ns=(1, 1))
    now[0] = 1.1
    assert keys.identify(said) is None


@pytest.mark.parametrize("path", LIMITS)
def test_a_body_has_a_size_by_route_whether_it_says_so_or_not(folder, server, lock, path):
    said = headers(admit(folder, "alpha"))
    most = {PUSH: 16_000_000, "/v1/fleet/push-messages": 1_000_000}.get(path, 64_000)
    body = pushed(most) if path == PUSH else bytes(most)
    whole = ask(lock, path, said, [body], content_length=str(most))
    assert (whole.status, len(server.bodies[-1])) == (200, most)
    announced = ask(lock, path, said, [body, b"x"], content_length=str(most + 1))
    assert (announced.status, announced.read) == (413, 0)
    pieces = [body[start : start + most // 4] for start in range(0, most, most // 4)]
    assert ask(lock, path, said, [*pieces, b""]).status == 200
    chunked = ask(lock, path, said, [*pieces, b"x", *pieces])
    assert (chunked.status, chunked.read) == (413, 5)
    assert len(server.bodies) == 2


def test_a_node_has_so_many_requests_at_a_time_and_another_is_not_in_its_way(folder, server, lock):
    alpha, beta = admit(folder, "alpha"), admit(folder, "beta")

    async def go() -> tuple[list[int], int, int]:
        server.may_answer.clear()
        senders = [Sender([b"x"]) for _ in range(AT_A_TIME)]
        tasks = [asyncio.create_task(lock(scope(PULL, headers(alpha)), s.receive, s.send)) for s in senders]
        while len(server.bodies) < AT_A_TIME:
            await asyncio.sleep(0)
        late = Sender([b"x"])
        await lock(scope(PULL, headers(alpha)), late.receive, late.send)
        server.may_answer.set()
        other = Sender([b"x"])
        await lock(scope(PULL, headers(beta)), other.receive, other.send)
        await asyncio.gather(*tasks)
        again = Sender([b"x"])
        await lock(scope(PULL, headers(alpha)), again.receive, again.send)
        assert late.read == 0 and again.status == 200
        return [s.status for s in senders], late.status, other.status

    assert asyncio.run(go()) == ([200] * AT_A_TIME, 503, 200)
    # The signature is over the time alone: who has seen one may use it again for five minutes, as one of the eight.
    assert [ask(lock, PULL, said).status for said in [headers(alpha)] * 2] == [200, 200]


async def silence() -> Any:
    await asyncio.Event().wait()


async def gone() -> Any:
    return {"type": "http.disconnect"}


async def drop() -> Any:
    await asyncio.sleep(0.01)
    return {"type": "http.request", "body": b"x", "more_body": True}


@pytest.mark.parametrize(
    ("receive", "seconds", "silent", "status"),
    [(silence, 60.0, 0.05, 503), (silence, 0.05, 60.0, 503), (drop, 0.2, 0.1, 503), (gone, 60.0, 60.0, 0)],
)
def test_a_body_that_stands_still_or_drips_or_is_given_up_is_not_waited_for(
    receive: Callable[[], Any], seconds: float, silent: float, status: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(superlink, "BODY_SECONDS", seconds)
    monkeypatch.setattr(superlink, "SILENT_SECONDS", silent)

    async def go() -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await BodyReader(receive, 1000).rest()

    with pytest.raises(BodyRefused) as error:
        asyncio.run(go())
    assert error.value.status == status


def test_who_knows_the_word_is_asked_for_nothing_else_and_hears_of_each_sites_last_request(folder, server, lock):
    alpha, word = admit(folder, "alpha"), {HEADER: "word"}
    beta = admit(folder, "beta")
    for path in ("/v1/control/list-nodes", NODES, LAST_REQUESTS, "/v1/fleet/register-node", "/docs"):
        for said in ({}, headers(alpha), {HEADER: "guess"}):
            refused = ask(lock, path, said, [b"x"])
            assert (refused.status, refused.read) == (403, 0)
    assert ask(lock, "/v1/runtime/push-object", word, [bytes(20_000_000)]).status == 200
    assert json.loads(ask(lock, LAST_REQUESTS, word).sent[1]["body"]) == {}
    assert json.loads(ask(lock, NODES, word).sent[1]["body"]) == []  # Flower's list, which knows no node here
    ask(lock, PULL, headers(new_node_key()))
    ask(lock, PULL, headers(alpha))
    ask(lock, PULL, headers(beta))
    found = json.loads(ask(lock, LAST_REQUESTS, word).sent[1]["body"])
    assert found.keys() == {"alpha", "beta"} and 0 <= found["alpha"] < 5
    revoke(folder, "alpha")
    assert json.loads(ask(lock, LAST_REQUESTS, word).sent[1]["body"]).keys() == {"beta"}


@pytest.mark.servers
def test_the_server_may_open_as_many_files_as_the_system_lets_it():
    code = (
        "import resource as r; from flfed.deployment.coordinator.superlink import _raise_open_files as go; "
        "hard = r.getrlimit(r.RLIMIT_NOFILE)[1]; r.setrlimit(r.RLIMIT_NOFILE, (200, hard)); "
        "go(); print(r.getrlimit(r.RLIMIT_NOFILE) == (hard, hard))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split()[-1] == "True"


def test_flowers_middleware_is_on_its_own_routes_and_what_reads_and_translates_on_all():
    found = on_own_routes(application._get_middleware())
    on_all = [each.cls.__name__ for each in found if each.cls is not OwnRoutes]
    assert on_all == ["BaseHTTPMiddleware", "ProtobufTranslationMiddleware"]
    assert len(found) - len(on_all) == len(ROUTES_OF)


@pytest.mark.parametrize(
    ("path", "through"),
    [("/v1/fleet/pull-object", True), ("/v1/control/list-nodes", False), ("/v1/fleetly", False), (None, True)],
)
def test_a_middleware_is_passed_by_on_other_routes_alone(path: str | None, through: bool):
    went: list[str] = []

    class Noting:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            went.append("middleware")
            await self.app(scope, receive, send)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        went.append("application")

    scope = {"type": "lifespan"} if path is None else {"type": "http", "path": path}
    asyncio.run(OwnRoutes(app, "/v1/fleet/", Middleware(Noting))(scope, None, None))
    assert went == ["middleware"] * through + ["application"]
