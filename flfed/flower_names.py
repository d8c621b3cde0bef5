"""Private names of Flower that flfed uses.

Flower may change them in any version. All of them are here and nowhere else, each with its module and the processes
that use it. Flower is loaded at the first use of a name: `from flfed.flower_names import HttpGrid` loads the module of
that one.

Values that Flower writes on the wire are constants here, and a test compares them with Flower's.

Public, and imported where they are used: `flwr.app`, `flwr.clientapp`, `flwr.serverapp`, `flwr.simulation`.
To check a new version of Flower: CONTRIBUTING.md, *A new version of Flower*.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar, get_type_hints

from flfed.errors import FlfedError

if TYPE_CHECKING:
    # For types only; the table below says which module is loaded.
    from flwr.supercore.control.control_http_client import ControlHttpClient as ControlHttpClient
    from flwr.supercore.protobuf.client import ProtobufClient as ProtobufClient
    from flwr.supercore.runtime import RuntimeHttpClient as RuntimeHttpClient
    from flwr.superlink.grid.http_grid import HttpGrid as HttpGrid

FLOWER = "1.42"
"""Version of Flower with these names."""
INSTALL = f"install flwr {FLOWER}"

User = Literal["simulation", "server", "coordinator", "gate", "node"]
"""A process that uses private names.

- `simulation`: sites of one machine
- `server`: Flower's SuperLink behind the lock
- `coordinator`: conducts a run over the SuperLink
- `gate`: the site's process with the data
- `node`: Flower's SuperNode with the relay
"""
T = TypeVar("T")

COMPLETED = "completed"
FAILED = "failed"
"""Ends of a task."""
STARTING = "starting"
RUNNING = "running"
"""Stages of a task that has not ended."""
UNKNOWN = 0
NODE_UNAVAILABLE = 5
"""Codes of error replies."""
KEY_IN_USE = 23
"""Code of a refusal: the node's public key is registered already."""
HEARTBEAT_SECONDS = 30
"""Longest time between two messages of a node that is online."""
PUBLIC_KEY_HEADER = "flwr-public-key"
TIMESTAMP_HEADER = "flwr-timestamp"
SIGNATURE_HEADER = "flwr-signature"
"""Headers with which a node proves its identity: the time, signed."""
OLDEST_SECONDS = 305
AHEAD_SECONDS = 5
"""Limits of that time: its age, and how far it may be ahead."""


class PrivateName(NamedTuple):
    """Module and users of a private name.

    Attributes
    ----------
    module : str
    attribute : str
    users : tuple of str
        The processes that use it.
    """

    module: str
    attribute: str
    users: tuple[User, ...]


def _table() -> dict[str, PrivateName]:
    """Return the private names by their names here."""
    listed: tuple[tuple[tuple[User, ...], str, str], ...] = (
        (("simulation", "coordinator", "gate"), "flwr.supercore.task_identity", "TaskIdentity"),
        (("simulation",), "flwr.supercore", "telemetry"),
        # Messages as they are on the wire.
        (("coordinator", "gate"), "flwr.common.serde", "message_from_proto recorddict_from_proto recorddict_to_proto"),
        (("coordinator", "gate"), "flwr.proto.recorddict_pb2", "RecordDict"),
        (("coordinator", "gate"), "flwr.supercore.inflatable.inflatable_utils", "inflate_object_from_contents"),
        (("gate",), "flwr.common.serde", "context_from_proto"),
        (("coordinator",), "flwr.common.serde", "run_from_proto user_config_to_proto"),
        # Clients of Flower's servers, and their additions to a request.
        (("coordinator", "gate"), "flwr.supercore.runtime", "RuntimeHttpClient"),
        (
            ("coordinator", "gate"),
            "flwr.supercore.interceptors",
            "RuntimeVersionHttpInterceptor RuntimeTokenHttpInterceptor SuperExecAuthHttpInterceptor",
        ),
        (("coordinator", "server"), "flwr.supercore.control.control_http_client", "ControlHttpClient"),
        (("coordinator", "node"), "flwr.supercore.error", "FlowerError"),
        (("coordinator",), "flwr.superlink.grid.http_grid", "HttpGrid"),
        (("gate",), "flwr.supernode.runtime.run_clientapp", "push_message"),
        (("gate",), "flwr.supercore.inflatable.inflatable_utils", "ObjectPushError"),
        (("gate",), "flwr.supercore.heartbeat", "HeartbeatSender"),
        # The SuperLink: its command, and two functions that are replaced.
        (("server",), "flwr.superlink.cli", "flower_superlink"),
        (("server",), "flwr.superlink.extensions", "get_middleware"),
        (("server",), "flwr.superlink.main", "_get_middleware"),
        # The SuperNode: its command, the errors of its requests, and names that are replaced.
        (("node",), "flwr.supernode.cli.flower_supernode", "flower_supernode"),
        (("node",), "flwr.supercore.inflatable.inflatable_utils", "ObjectUnavailableError"),
        (("node",), "flwr.supercore.run", "RunNotRunningException"),
        (("node",), "flwr.supercore.protobuf.client", "ProtobufClient"),
        (
            ("node",),
            "flwr.supernode.start_client_internal",
            "time=node_time _pull_and_store_message pull_objects http_request_response",
        ),
        (
            ("node",),
            "flwr.supernode.fleet_http_connection",
            "make_simple_http_retry_invoker HeartbeatSender=node_heartbeat",
        ),
        (("node",), "flwr.supercore.heartbeat", "exponential=node_heartbeat_pauses"),
        (("node",), "flwr.supernode.servicer.runtime.runtime_handlers", "acquire_task"),
    )
    private_names: dict[str, PrivateName] = {}
    for users, module, words in listed:
        for word in words.split():
            # A name that two modules have gets another one here, after the "=".
            attribute, _, ours = word.partition("=")
            private_names[ours or attribute] = PrivateName(module, attribute, users)
    return private_names


NAMES = _table()
"""Private names by their names here."""


def __getattr__(name: str) -> Any:
    """Load a private name and return it."""
    if name not in NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    where = NAMES[name]
    if _is_missing(where):
        check_names(*where.users)
    return getattr(importlib.import_module(where.module), where.attribute)


def replace(name: str, value: object) -> None:
    """Replace a private name in Flower's own module.

    Raises
    ------
    FlfedError
        If this Flower has no such name.
    """
    where = NAMES[name]
    if _is_missing(where):
        check_names(*where.users)
    setattr(importlib.import_module(where.module), where.attribute, value)


def replace_name(owner: object, name: str, value: object) -> None:
    """Replace a name in Flower's code.

    Raises
    ------
    FlfedError
        If this Flower has no such name.
    """
    if not hasattr(owner, name):
        raise FlfedError(f"this Flower has no {name!r} where flfed needs it; {INSTALL}")
    setattr(owner, name, value)


def check_names(*users: User) -> None:
    """Check, at the start of a process, that Flower has all names it uses.

    Raises
    ------
    FlfedError
        If some are missing; it names each of them.
    """
    needed = [where for where in NAMES.values() if set(users) & set(where.users)]
    if missing := [f"{where.module}.{where.attribute}" for where in needed if _is_missing(where)]:
        raise FlfedError(f"Flower {version('flwr')} has no {', '.join(missing)}, which flfed needs; {INSTALL}")


def ask(method: Callable[[Any], T], **fields: object) -> T:
    """Call a method of one of Flower's clients.

    The class of the request is the one that the method declares, so that it needs no name here.

    Parameters
    ----------
    method : bound method
        Such as `client.ListNodes`.
    fields : value by name
        Fields of the request.

    Returns
    -------
    protobuf message
        The reply.
    """
    return method(_declared(method, "request")(**fields))


def reply_class(method: Callable[..., T]) -> type[T]:
    """Return the class of a method's reply."""
    message_class: type[T] = _declared(method, "return")
    return message_class


def _declared(method: Callable[..., Any], what: str) -> Any:
    # A bound method is a new object each time; its function is not.
    return _hint(getattr(method, "__func__", method), what)


@cache
def _hint(function: Callable[..., Any], what: str) -> Any:
    hints = get_type_hints(function)
    if what not in hints:
        raise FlfedError(f"Flower {version('flwr')} does not declare the {what} of {function.__name__!r}; {INSTALL}")
    return hints[what]


def _is_missing(where: PrivateName) -> bool:
    try:
        return not hasattr(importlib.import_module(where.module), where.attribute)
    except ImportError:
        return True
