"""Link to this machine's SuperLink.

It has the server's address and the certificate to trust. Requests to flfed's own routes are here. Requests to Flower's
routes are in `control`, and load Flower.

Removal of finished messages from Flower's database.

Updates must not outlive their run there.

Tables of Flower 1.42 that are written to: `message_ins`, `message_res`, `objects`, `object_children`,
`run_objects`, `object_push_sessions`.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import sqlite3
import ssl
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import quote

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from flfed.errors import UsageError
from flfed.files import read_private
from flfed.paths import CoordinatorFolder
from flfed.signatures import node_public_key
from flfed.words import flfed_error

if TYPE_CHECKING:
    import httpx

    from flfed.flower_names import ControlHttpClient, ProtobufClient, RuntimeHttpClient

HEADER = "x-flfed-coordinator"
LAST_REQUESTS = "/flfed/last-requests"
NODES = "/flfed/nodes"
"""flfed's own routes at the server, see `superlink`."""
TIMEOUT_SECONDS = 30.0
ANSWER_SECONDS = 5.0
"""How long to wait for the server where no run depends on it."""

Client = TypeVar("Client", bound="ProtobufClient")


def serving_file(folder: CoordinatorFolder) -> Path:
    """Return the file with the running server's port."""
    return folder.server / "serving.json"


def database(folder: CoordinatorFolder) -> Path:
    """Return Flower's database."""
    return folder.server / "flower.db"


def secret_file(folder: CoordinatorFolder) -> Path:
    """Return the file with the server's secret.

    It authenticates the server and the coordinator's commands to each other.
    """
    return folder.server / "executor.secret"


def certificate_file(folder: CoordinatorFolder) -> Path:
    """Return the server's loopback certificate file.

    This machine's commands and Caddy alone trust it.
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

    def intercept(self, context: Any, call_next: Callable[[Any], httpx.Response]) -> httpx.Response:
        """Add the header to one request."""
        context.request.headers[HEADER] = word_of(self.secret)
        return call_next(context)


@dataclass(frozen=True)
class Link:
    """Address and secrets of this machine's SuperLink.

    Attributes
    ----------
    address : str
        Host and port, on loopback.
    certificate : str
        The only one that is trusted there, PEM.
    secret : bytes
        Needed by every caller.
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
            raise flfed_error("coordinator.server.silent") from None
        except (ValueError, KeyError, TypeError):
            # A damaged file is distinguished from a missing one: starting the server is not enough to mend it.
            raise flfed_error("coordinator.server.record", file=serving_file(folder)) from None

    def control(self, *, timeout: float = TIMEOUT_SECONDS, with_secret: bool = True) -> ControlHttpClient:
        """Return a client of the control interface.

        Without the secret it can show that the server refuses it.
        """
        from flfed.flower_names import ControlHttpClient, RuntimeVersionHttpInterceptor

        interceptors: list[Any] = [RuntimeVersionHttpInterceptor("flwr CLI")]
        if with_secret:
            interceptors.append(Word(self.secret))
        return self._client(ControlHttpClient, interceptors, timeout)

    def runtime(self, name: str, *more: Any) -> RuntimeHttpClient:
        """Return a client of the runtime interface.

        It is a client of the component `name`, with `more` interceptors.
        """
        from flfed.flower_names import RuntimeHttpClient, RuntimeVersionHttpInterceptor

        interceptors: list[Any] = [RuntimeVersionHttpInterceptor(name), Word(self.secret), *more]
        return self._client(RuntimeHttpClient, interceptors, TIMEOUT_SECONDS)

    def acquiring(self) -> RuntimeHttpClient:
        """Return a runtime client that may acquire tasks."""
        from flfed.flower_names import SuperExecAuthHttpInterceptor

        signed = frozenset({"/flwr.proto.Runtime/AcquireTask"})
        signing = SuperExecAuthHttpInterceptor(master_secret=self.secret, protected_methods=signed)
        return self.runtime("SuperExec", signing)

    def _client(self, kind: type[Client], interceptors: Sequence[Any], timeout: float) -> Client:
        """Return a Flower client connected directly to loopback.

        It uses no proxy and follows no redirect.
        """
        import httpx

        # Flower's own HTTP client is replaced by one that trusts this certificate alone and obeys no environment.
        client = kind(f"https://{self.address}", interceptors=interceptors)
        client._client.close()
        client._client = httpx.Client(verify=self._trusted(), timeout=timeout, follow_redirects=False, trust_env=False)
        return client

    def ask(self, route: str) -> Any:
        """Return the JSON answer of one of flfed's own routes.

        No part of Flower is needed for it.

        Raises
        ------
        FlfedError
            If the server does not answer, or refuses.
        """
        connection = http.client.HTTPSConnection(self.address, timeout=ANSWER_SECONDS, context=self._trusted())
        try:
            connection.request("GET", route, headers={HEADER: word_of(self.secret)})
            reply = connection.getresponse()
            content = reply.read()
        except (OSError, http.client.HTTPException):
            raise flfed_error("coordinator.server.silent") from None
        finally:
            connection.close()
        if reply.status == http.HTTPStatus.FORBIDDEN:
            raise flfed_error("coordinator.server.stranger")
        if reply.status != http.HTTPStatus.OK:
            raise flfed_error("coordinator.server.routeless", route=route)
        return json.loads(content)

    def _trusted(self) -> ssl.SSLContext:
        """Return a context that trusts the server's certificate alone."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            context.load_verify_locations(cadata=self.certificate)
        except (ssl.SSLError, ValueError):  # a damaged file: no server can be reached by it
            raise flfed_error("coordinator.server.silent") from None
        return context


@dataclass(frozen=True)
class Node:
    """A node that is registered in Flower.

    Attributes
    ----------
    node_id : int
    public_key : bytes
        PEM.
    status : str
        "registered" (never seen yet), "online", "offline" or "unregistered".
    online_since : str
        ISO 8601; empty where it is not online.
    unanswered : str
        The kind of its oldest request without an answer; empty without one, and where it was not looked up.
    unanswered_seconds : float
    """

    node_id: int
    public_key: bytes
    status: str
    online_since: str
    unanswered: str = ""
    unanswered_seconds: float = 0.0

    @classmethod
    def of(cls, info: Any, *unanswered: Any) -> Self:
        """Return the node that Flower's message describes."""
        since = info.last_activated_at if info.status == "online" else ""
        return cls(info.node_id, info.public_key, info.status, since, *unanswered)

    def as_json(self) -> dict[str, Any]:
        """Return it for the server's own route."""
        return vars(self) | {"public_key": self.public_key.decode("ascii")}

    @classmethod
    def from_json(cls, facts: dict[str, Any]) -> Self:
        """Parse it from that route's answer."""
        return cls(**{**facts, "public_key": facts["public_key"].encode("ascii")})


def pem_of(public_key_openssh: str) -> bytes:
    """Return a node's public key as Flower stores it.

    Raises
    ------
    FlfedError
        If it is damaged.
    """
    key = node_public_key(public_key_openssh)
    if key is None:
        raise flfed_error("coordinator.admission.keyless")
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


BUSY_SECONDS = 30.0
"""How long Flower's own work may keep the database busy."""
BY_RUN = ("message_res", "message_ins", "run_objects", "object_push_sessions")


def remove_bodies(
    database: Path, *, over: Collection[int], seconds: float = BUSY_SECONDS, only_if_any: bool = False
) -> int:
    """Remove every message of runs that are over.

    Return how many stored objects were removed.

    SQLite leaves deleted bytes in its file until they are overwritten, and in its log until that is truncated. So the
    file is rewritten (VACUUM), and the log truncated.

    Parameters
    ----------
    database : Path
        Of a SuperLink that may be running.
    over : collection of int
        Flower's numbers of these runs; those of all others, such as one begun meanwhile, remain.
    seconds : float
        How long to wait for Flower's own work on the database.
    only_if_any : bool
        Whether to leave the file as it is where there is nothing to remove. An unfinished removal is always
        finished.

    Raises
    ------
    FlfedError
        If it fails, so that the bytes may still be in the file.
    """
    if not database.exists():
        return 0
    # The marker survives a crash, so that the next call finishes an unfinished removal.
    begun = database.with_name(f"{database.name}.removing")
    try:
        where = f"file:{quote(str(database))}?mode=rw"
        with closing(sqlite3.connect(where, uri=True, timeout=seconds, isolation_level=None)) as connection:
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA secure_delete = ON")
            # With nothing to remove, rewriting the file would only cost time.
            if only_if_any and not begun.exists() and not _any(connection, over):
                return 0
            begun.touch(mode=0o600)
            removed = _delete(connection, over)
            _rewrite(connection, time.monotonic() + seconds)
            begun.unlink()
    except (sqlite3.Error, OSError) as error:
        raise flfed_error("coordinator.server.unpurged", database=database, why=error) from None
    return removed


def _any(connection: sqlite3.Connection, over: Collection[int]) -> bool:
    """Return whether the database has anything of these runs."""
    of = f"WHERE run_id IN ({_list(over)})"
    return any(connection.execute(f"SELECT 1 FROM {table} {of} LIMIT 1").fetchone() for table in BY_RUN)


def _delete(connection: sqlite3.Connection, over: Collection[int]) -> int:
    """Delete rows and correct the reference counts.

    Flower counts the parents of an object, so the counts of the remaining objects are computed again.
    """
    connection.execute("BEGIN IMMEDIATE")
    for table in BY_RUN:
        connection.execute(f"DELETE FROM {table} WHERE run_id IN ({_list(over)})")
    # An object may belong to several runs: it is deleted where no run has it any more.
    removed = connection.execute("DELETE FROM objects WHERE object_id NOT IN (SELECT object_id FROM run_objects)")
    count = removed.rowcount
    parents = "SELECT count(*) FROM object_children WHERE child_id = objects.object_id"
    connection.execute(f"UPDATE objects SET ref_count = ({parents})")
    connection.execute("COMMIT")
    return count


def _rewrite(connection: sqlite3.Connection, end: float) -> None:
    """Rewrite the file and truncate its log.

    The log can be truncated when no process reads from it.
    """
    connection.execute("VACUUM")
    while True:
        busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if not busy:
            return
        if time.monotonic() > end:
            raise sqlite3.OperationalError("its log is in use")
        time.sleep(0.05)


def _list(runs: Collection[int]) -> str:
    return ",".join(str(signed_number(number)) for number in runs)


def signed_number(number: int) -> int:
    """Return a number as the database stores it.

    Flower's numbers have 64 bits without a sign; SQLite's have one.

    Examples
    --------
    >>> signed_number(2**64 - 1), signed_number(7)
    (-1, 7)
    """
    return number - 2**64 if number >= 2**63 else number
