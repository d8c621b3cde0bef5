"""Client of Flower's control interface.

The coordinator manages nodes and runs by it.

Private names of Flower: `ControlHttpClient`, `RuntimeHttpClient` and their `_client`; the interceptors
`RuntimeVersionHttpInterceptor` and `SuperExecAuthHttpInterceptor` with `ProtobufClientInterceptor`;
`control_pb2`; `FlowerError` and the code `PUBLIC_KEY_ALREADY_IN_USE`; `fab_to_proto`, `user_config_to_proto`, `Fab`.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

import httpx
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flwr.common.serde import fab_to_proto, user_config_to_proto
from flwr.proto import control_pb2
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor, SuperExecAuthHttpInterceptor
from flwr.supercore.protobuf.client import (
    ProtobufCall,
    ProtobufClient,
    ProtobufClientInterceptor,
    ProtobufRequestContext,
)
from flwr.supercore.runtime import RuntimeHttpClient

from flfed.deployment.bundle import bundle, bundle_sha256
from flfed.errors import FlfedError, UsageError
from flfed.files import read_private
from flfed.folders import CoordinatorFolder
from flfed.signatures import node_public_key

NOT_SERVING = "the coordinator's server does not answer; start it and leave it running: flfed coordinator serve"
HEADER = "x-flfed-coordinator"
LAST_REQUESTS = "/flfed/last-requests"
"""Route of our own at the server, see `superlink`."""
TIMEOUT_SECONDS = 30.0
ANSWER_SECONDS = 5.0
"""How long the server is waited for where nobody waits for a run."""
RUNS_AT_ONCE = 1000
FINISHED = "finished"

Client = TypeVar("Client", bound=ProtobufClient)


def serving_file(folder: CoordinatorFolder) -> Path:
    """Return the file with the running server's port."""
    return folder.server / "serving.json"


def database(folder: CoordinatorFolder) -> Path:
    """Return Flower's database."""
    return folder.server / "flower.db"


def secret_file(folder: CoordinatorFolder) -> Path:
    """Return the file with the server's secret.

    The server and the coordinator's commands know each other by it.
    """
    return folder.server / "executor.secret"


def certificate_file(folder: CoordinatorFolder) -> Path:
    """Return the server's loopback certificate file.

    Only this machine's commands and Caddy trust it.
    """
    return folder.server / "loopback.crt"


def word_of(secret: bytes) -> str:
    """Return the header's word for a secret.

    It is not the secret itself, which signs other things.

    Examples
    --------
    >>> word_of(b"a") == word_of(b"b"), len(word_of(b"a"))
    (False, 64)
    """
    return hmac.new(secret, b"flfed coordinator", hashlib.sha256).hexdigest()


@dataclass(frozen=True)
class Word:
    """Interceptor that authenticates the coordinator's commands.

    The header shows that the caller may read the coordinator's folder.

    Attributes
    ----------
    secret : bytes
    """

    secret: bytes

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        """Add the header to one request."""
        context.request.headers[HEADER] = word_of(self.secret)
        return call_next(context)


@dataclass(frozen=True)
class Link:
    """How this machine's SuperLink is reached.

    Attributes
    ----------
    address : str
        Host and port, on loopback.
    certificate : str
        The only one that is trusted there, PEM.
    secret : bytes
        What a caller must know.
    """

    address: str
    certificate: str
    secret: bytes

    @classmethod
    def of(cls, folder: CoordinatorFolder) -> Self:
        """Return the link to the running server.

        Raises
        ------
        FlfedError
            If there is none.
        """
        try:
            port = int(json.loads(serving_file(folder).read_text(encoding="utf-8"))["port"])
            certificate = certificate_file(folder).read_text(encoding="ascii")
            return cls(f"127.0.0.1:{port}", certificate, read_private(secret_file(folder)))
        except (OSError, UsageError):
            raise FlfedError(NOT_SERVING) from None
        except (ValueError, KeyError, TypeError):
            # A damaged file is told apart from a missing one: starting the server is not enough to mend it.
            raise FlfedError(f"{serving_file(folder)}: is damaged; stop the server and start it again") from None

    def control(self, *, timeout: float = TIMEOUT_SECONDS, known: bool = True) -> ControlHttpClient:
        """Return a client of the control interface.

        One that is not `known` sends no word, and shows that it is refused.
        """
        given: list[ProtobufClientInterceptor] = [RuntimeVersionHttpInterceptor("flwr CLI")]
        if known:
            given.append(Word(self.secret))
        return self._client(ControlHttpClient, given, timeout)

    def runtime(self, name: str, *more: ProtobufClientInterceptor) -> RuntimeHttpClient:
        """Return a client of the runtime interface.

        It speaks for the component `name`, with `more` interceptors.
        """
        given: list[ProtobufClientInterceptor] = [RuntimeVersionHttpInterceptor(name), Word(self.secret), *more]
        return self._client(RuntimeHttpClient, given, TIMEOUT_SECONDS)

    def acquiring(self) -> RuntimeHttpClient:
        """Return a runtime client that may acquire tasks."""
        signed = frozenset({"/flwr.proto.Runtime/AcquireTask"})
        signing = SuperExecAuthHttpInterceptor(master_secret=self.secret, protected_methods=signed)
        return self.runtime("SuperExec", signing)

    def _client(self, kind: type[Client], given: Sequence[ProtobufClientInterceptor], timeout: float) -> Client:
        """Return a Flower client connected directly to loopback.

        It uses no proxy and follows no redirect.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=self.certificate)
        # Flower's own HTTP client is replaced by one that trusts this certificate alone and obeys no environment.
        client = kind(f"https://{self.address}", interceptors=given)
        client._client.close()
        client._client = httpx.Client(verify=context, timeout=timeout, follow_redirects=False, trust_env=False)
        return client


@dataclass(frozen=True)
class Node:
    """A node that Flower knows.

    Attributes
    ----------
    node_id : int
    public_key : bytes
        PEM.
    status : str
        "registered" (never seen yet), "online", "offline" or "unregistered".
    online_since : str
        ISO 8601; empty where it is not online.
    """

    node_id: int
    public_key: bytes
    status: str
    online_since: str


class Control:
    """What the coordinator asks of the running SuperLink.

    Parameters
    ----------
    link : Link
    timeout : float, seconds
        For one answer.

    Raises
    ------
    FlfedError
        From every method: if the server does not answer, or refuses.
    """

    def __init__(self, link: Link, *, timeout: float = TIMEOUT_SECONDS) -> None:
        self._link, self._timeout = link, timeout
        self._flower = link.control(timeout=timeout)

    def __enter__(self) -> Self:
        """Return the control, to be closed after the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the connection."""
        self._flower.close()

    def check_lock(self) -> None:
        """Refuse a server without its lock.

        A server without it answers whoever does not know the secret: see `superlink`.

        Raises
        ------
        NotLocked
            If it does.
        """
        # Asked as a stranger would: only a refusal proves that the lock is there.
        stranger = self._link.control(timeout=self._timeout, known=False)
        try:
            stranger.ListNodes(control_pb2.ListNodesRequest())
        except httpx.HTTPStatusError as error:
            if error.response.status_code == httpx.codes.FORBIDDEN:
                return
            raise FlfedError(NOT_SERVING) from None
        except httpx.HTTPError:
            raise FlfedError(NOT_SERVING) from None
        finally:
            stranger.close()
        raise NotLocked("the control routes of this version of Flower are not locked by flfed: it must not be used")

    def nodes(self) -> dict[bytes, Node]:
        """Return every node ever registered, by its key."""
        with in_words():
            found = self._flower.ListNodes(control_pb2.ListNodesRequest()).nodes_info
        nodes = (
            Node(node.node_id, node.public_key, node.status, node.last_activated_at if node.status == "online" else "")
            for node in found
        )
        return {node.public_key: node for node in nodes}

    def seconds_since_request(self) -> dict[str, float]:
        """Return each site's seconds since its last request.

        A site without a request since the server began is left out.
        """
        with in_words():
            url, headers = f"https://{self._link.address}{LAST_REQUESTS}", {HEADER: word_of(self._link.secret)}
            reply = self._flower._client.get(url, headers=headers).raise_for_status()
        return {str(site): float(seconds) for site, seconds in reply.json().items()}

    def register(self, site: str, public_key: bytes) -> int:
        """Register a node's key and return its number.

        The number is returned also where the key is registered already.
        """
        try:
            with in_words():
                request = control_pb2.RegisterNodeRequest(public_key=public_key, name=site[:32])
                return int(self._flower.RegisterNode(request).node_id)
        except Refused as error:
            if error.code != ApiErrorCode.PUBLIC_KEY_ALREADY_IN_USE:
                raise
        # The key is known already: it may be in use, which is fine, or have been cut off for good.
        node = self.nodes().get(public_key)
        if node is None or node.status == "unregistered":
            raise UsageError(
                f"site {site!r}: its key was revoked before and never holds again; "
                f"revoke it, invite it anew, and let it join with another key: flfed coordinator revoke {site}"
            )
        return node.node_id

    def unregister(self, node_id: int) -> None:
        """Cut a node off for good.

        Its key is refused from now on.
        """
        with in_words():
            self._flower.UnregisterNode(control_pb2.UnregisterNodeRequest(node_id=node_id))

    def start_run(self, run_config: Mapping[str, bool | float | int | str]) -> int:
        """Start a run of flfed's bundle.

        Return its number in Flower.
        """
        fab = fab_to_proto(Fab(bundle_sha256(), bundle(), {}))
        config = user_config_to_proto(dict(run_config))
        with in_words():
            request = control_pb2.StartRunRequest(fab=fab, override_config=config, federation="", app_spec="")
            return int(self._flower.StartRun(request).run_id)

    def stop_run(self, run: int) -> None:
        """Stop a run that is under way."""
        with in_words():
            self._flower.StopRun(control_pb2.StopRunRequest(run_id=run))

    def unfinished(self) -> set[int]:
        """Return the numbers of the unfinished runs."""
        return {number for number, status in self._runs().items() if status != FINISHED}

    def over(self) -> set[int]:
        """Return the numbers of the runs that are over."""
        return {number for number, status in self._runs().items() if status == FINISHED}

    def _runs(self) -> dict[int, str]:
        found: dict[int, str] = {}
        for skip in range(0, 100 * RUNS_AT_ONCE, RUNS_AT_ONCE):
            with in_words():
                page = self._flower.ListRuns(control_pb2.ListRunsRequest(limit=RUNS_AT_ONCE, skip=skip)).run_dict
            found |= {number: run.status.status for number, run in page.items()}
            # A page that is not full is the last one.
            if len(page) < RUNS_AT_ONCE:
                return found
        raise FlfedError("Flower's database has too many runs; make a new one: move its folder away and serve again")

    def status_of(self, run: int) -> tuple[str, str]:
        """Return the status and sub-status of a run.

        They are words such as ("finished", "completed").
        """
        with in_words():
            found = self._flower.ListRuns(control_pb2.ListRunsRequest(run_id=run)).run_dict[run].status
        return found.status, found.sub_status


class NotLocked(FlfedError):
    """A SuperLink that anybody who reaches it may command."""


class Refused(FlfedError):
    """An error answer of the SuperLink.

    `code` is Flower's own.
    """

    def __init__(self, sentence: str, code: int) -> None:
        super().__init__(sentence)
        self.code = code


@contextmanager
def in_words() -> Iterator[None]:
    """Turn errors of Flower's client into sentences."""
    try:
        yield
    except httpx.HTTPStatusError as error:
        status, said = error.response.status_code, FlowerError.from_json(error.response.text)
        # A refusal without Flower's own error comes from a lock that knows another secret.
        if status in (httpx.codes.FORBIDDEN, httpx.codes.UNAUTHORIZED) and said is None:
            raise FlfedError("the server refuses this command: another coordinator uses its port") from None
        what = said.message if said is not None else f"status {status}"
        raise Refused(f"the coordinator's server refused: {what}", said.code if said is not None else 0) from None
    except httpx.HTTPError:
        raise FlfedError(NOT_SERVING) from None


def pem_of(public_key_openssh: str) -> bytes:
    """Return a node's public key as Flower keeps it.

    Raises
    ------
    FlfedError
        If it is none.
    """
    key = node_public_key(public_key_openssh)
    if key is None:
        raise FlfedError("a site's public key is damaged; bring its file back from a backup, or invite it anew")
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
