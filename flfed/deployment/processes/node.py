"""Process of the network, and its connection to the coordinator.

It is Flower's SuperNode of a site with the relay to the gate; it has no data. A broken request is repeated for ever,
and a lost message is requested again. Flower 1.42 gives up at any error whose text has "ssl", "tls" or "certificate".
Its server hands a message out once: where the reply with the message was lost, the message is lost. Here a node that
may have lost a message leaves and comes back at once. The coordinator sees that, and repeats its open requests.

Replaced in Flower's own modules (their names are in `flower_names.py`):

- `time` of the SuperNode's loop: its `sleep(3)` between two requests to the server and its `sleep(0.5)` until
  the gate has answered are its only uses of `time` (`paced`);
- `_pull_and_store_message`; the node's `msg_store` is read, and its entries' `is_retrieved` and `message`: a
  leftover reply is sent (`nothing_left_unsent`);
- `pull_objects`, with `initial_backoff`: parts that come later are requested soon, and a message whose run has ended
  is given up for the gate, too (`parts_soon`);
- `ProtobufClient.__init__`, with `_client`: Flower makes it follow redirects, also to another host, with the
  message in the body, and knows no proxy but the environment's (`stay_with_the_host`);
- `make_simple_http_retry_invoker`, whose retry policy gets other pauses, errors and sentences;
- `http_request_response` as the node's loop names it;
- `exponential`, the pauses between failed heartbeats, and `HeartbeatSender` as the node's connection names it;
- `acquire_task`; it reads `get_tasks` of the node's state.

Of Flower's client of the server, `_client`, `DeactivateNode` and `SendNodeHeartbeat` are used. A missing name ends the
process with a sentence: a new Flower is never used half-guarded.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from flfed import flower_names
from flfed.deployment.flower.pacing import Pace
from flfed.deployment.flower.transport import describe_clock, is_away, retry, seconds_ahead, time_of
from flfed.deployment.operator.outbound_proxy import PASSWORD_REFUSED, OutboundProxy, read_proxy
from flfed.deployment.processes.child_processes import Pulse, free_port, make_secret, node_command, shared_secret
from flfed.deployment.processes.relay import relaying
from flfed.deployment.processes.supervisor import NEWS
from flfed.errors import FlfedError
from flfed.files import SHARED, write_whole
from flfed.flower_names import HEARTBEAT_SECONDS, RUNNING, STARTING, ask, check_names, replace, replace_name
from flfed.paths import SiteFolder
from flfed.words import render

LEAST = 0.15
MOST = 10.0
"""Seconds between two requests to the server: 0.15 while a study runs, 3 after a minute with no message, then 10."""
ANSWERING = 0.02
"""Seconds between two looks for the gate's answer, in this process's own memory."""
PARTS = 0.05
"""Seconds until the second request for a part of a message; each further wait is twice as long, up to 10 s."""
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}


@dataclass(frozen=True)
class PacedTime:
    """Replacement for `time` in the SuperNode's loop.

    It waits at flfed's own pace.

    Attributes
    ----------
    pace : Pace
    wait : callable
        Waits some seconds; tests pass their own.
    """

    pace: Pace
    wait: Callable[[float], None] = time.sleep

    def sleep(self, seconds: float) -> None:
        """Wait at flfed's pace.

        1 s and more is Flower's wait for the next message; less is its wait for the gate's answer.
        """
        if seconds >= 1:
            self.wait(self.pace.seconds())
        else:
            self.pace.came()
            self.wait(min(seconds, ANSWERING))


def paced(pace: Pace) -> None:
    """Apply flfed's pace to this process's SuperNode."""
    replace("node_time", PacedTime(pace))


def nothing_left_unsent() -> None:
    """Send waiting replies also without a new message.

    It changes the SuperNode of this process.

    Flower's loop looks for replies only after a message. A run may end while one of its messages is in transit. Then
    the next message's turn goes to the old reply, and its own reply would wait for the message after.
    """
    pull = flower_names._pull_and_store_message

    def pulled(**arguments: Any) -> int | None:
        run: int | None = pull(**arguments)
        if run is None and _unsent(arguments["state"]):
            return 0  # any run: the loop only checks whether there is one, and then sends the waiting reply
        return run

    replace("_pull_and_store_message", pulled)


def parts_soon() -> None:
    """Request missing parts of a message again soon, and give the message up where its run has ended.

    It changes the SuperNode of this process.

    The server hands a message out some hundredths of a second before all of its parts have come. Flower waits a second
    then, and longer each time. Where the run ends meanwhile, Flower ignores the message but leaves its task to the
    gate, which would wait for the parts.
    """
    from flfed.flower_names import RunNotRunningException

    pull = flower_names.pull_objects

    def pulled(*names: Any, **options: Any) -> dict[str, bytes]:
        try:
            return dict(pull(*names, **options, initial_backoff=PARTS))
        except RunNotRunningException:
            # Not an `Exception`, after which alone Flower's loop removes message and task.
            raise FlfedError(render("processes.node.over")) from None

    replace("pull_objects", pulled)


def _unsent(state: Any) -> bool:
    """Return whether an answer of the gate is unsent.

    The look removes nothing.
    """
    entries = list(state.msg_store.values())
    return any(not entry.is_retrieved and entry.message.metadata.reply_to_message_id for entry in entries)


def stay_with_the_host(opened: Callable[[Any], None], proxy: OutboundProxy | None = None) -> None:
    """Forbid redirects to every Flower client here, and send its requests through the site's proxy, if any.

    `opened` receives each client of this process.

    An impostor at the server's address could else have a site send its messages to any host, within the hospital's
    network too.
    """
    # The class itself is changed, since Flower makes its clients in many places.
    client = flower_names.ProtobufClient
    make = client.__init__

    @functools.wraps(make)
    def made(self: Any, *arguments: Any, **named: Any) -> None:
        make(self, *arguments, **named)
        replace_name(self._client, "follow_redirects", False)
        if proxy is not None:
            self._client.close()
            self._client = _client_through(proxy, named["verify"])
        opened(self)

    replace_name(client, "__init__", made)


def _client_through(proxy: OutboundProxy, verify: Any) -> httpx.Client:
    """Return an HTTP client that reaches every host by CONNECT at the proxy, and checks certificates by `verify`."""
    # Not by HTTPS_PROXY: this account's other processes can read a process's environment.
    auth = (proxy.user, proxy.password) if proxy.user else None
    return httpx.Client(verify=verify, proxy=httpx.Proxy(proxy.url, auth=auth), trust_env=False)


def say(sentence: str) -> None:
    """Report an event to the log and the supervisor."""
    print(f"{NEWS}{sentence}", file=sys.stderr, flush=True)


def end_process(why: str) -> None:
    """Report why this process ends, and end it.

    Flower leaves the server first; the supervisor restarts the process.
    """
    print(f"flfed: {why}", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)


def thread_ended(ended: threading.ExceptHookArgs) -> None:
    """End the process after a thread's error.

    No other thread does its work.
    """
    if ended.exc_type is not SystemExit:
        end_process(render("processes.node.thread", kind=ended.exc_type.__name__))


def work(folder: SiteFolder) -> None:
    """Run the node until this process receives a signal to end."""
    os.environ.update(QUIET, FLWR_HOME=str(folder.network / "flower"))  # read by Flower at its import
    check_names("node")
    port = free_port()  # should another program take it, the supervisor restarts the process
    words = node_command(folder, port)
    proxy = read_proxy(folder)
    if proxy is not None:
        say(render("processes.node.through", proxy=proxy.url))
    make_secret(folder)
    shared_secret(folder)
    # Every change to Flower's code is made before its command begins.
    outage = Outage(say, proxied=proxy is not None)
    connection = Connection(
        folder.node_id, Pulse(folder.node_pulse), outage, Pulse(folder.download_pulse), folder.clock
    )
    stay_with_the_host(connection.opened, proxy)
    connection.install()
    paced(Pace(LEAST, MOST))
    nothing_left_unsent()
    parts_soon()
    notice_lost_messages(end_process)
    threading.excepthook = thread_ended
    sys.argv = words
    # All is imported: from here on silence counts.
    connection.pulse.beat()
    with relaying(folder.socket, port):
        flower_names.flower_supernode()
    # Flower's loop has ended by an error that it only logs; its other threads would remain, and do nothing.
    print(f"flfed: {render('processes.node.ended')}", file=sys.stderr, flush=True)
    os._exit(1)


SECONDS = 15.0
"""For one answer of the server; Flower waits 30."""
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 4.0
"""Seconds before a request is tried again, at first and at most; Flower pauses up to 20."""
REPORT_SECONDS = 60.0
MOST_SECONDS = 3600.0
"""After how long an unreachable server is reported again; each time twice as long, up to an hour."""
NOTHING_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)
"""Errors after which the server cannot have handed out anything."""
REFUSED = frozenset({401, 403, 409, 412, 413, 503})
"""Status codes of the server with a sentence for the reader of the log (`flfed/words/processes.toml`)."""

PULL_OBJECT = "/pull-object"
NOT_YET_BYTES = 8
"""Of an answer that a part is not there yet, at most; every part is longer."""

Say = Callable[[str], None]


@dataclass
class Outage:
    """Reporter of an unreachable server.

    It reports the outage at once, repeats that seldom, and reports the server's return.

    Parameters
    ----------
    say : callable
        Receives the sentences.
    proxied : bool
        Whether requests go through an outbound proxy.
    """

    say: Say
    proxied: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _began: float = 0.0
    _due: float = 0.0
    _pause: float = 0.0
    _reasons: set[str] = field(default_factory=set)

    def failed(self, error: Exception) -> None:
        """Note a request that failed."""
        why = reason_of(error, proxied=self.proxied)
        now = time.monotonic()
        with self._lock:
            # The first failure starts the clock; further ones are reported seldom, unless the reason is new.
            if not self._reasons:
                self._began = now
                self._pause = REPORT_SECONDS
                self._due = now + REPORT_SECONDS
            if why not in self._reasons:
                self._reasons.add(why)
                self.say(why)
            elif now >= self._due:
                self._pause = min(2 * self._pause, MOST_SECONDS)
                self._due = now + self._pause
                self.say(render("processes.node.still", seconds=now - self._began, why=why))

    def over(self) -> None:
        """Note a request that was answered."""
        with self._lock:
            if self._reasons:
                self.say(render("processes.node.back", seconds=time.monotonic() - self._began))
            self._reasons.clear()


def reason_of(error: Exception, *, proxied: bool = False) -> str:
    """Return the sentence about a failed request.

    It has nothing of the error's own text.

    Examples
    --------
    >>> reason_of(httpx.ReadTimeout("hospital"))
    "the coordinator's server does not answer (ReadTimeout); the request is repeated until it does"
    """
    if isinstance(error, httpx.ProxyError):
        return _proxy_reason(error)
    # httpx has no class for it: the text alone distinguishes a wrong certificate from another broken connection.
    if "certificate" in str(error).lower():
        return render("processes.node.certificate")
    response = error.response if isinstance(error, httpx.HTTPStatusError) else httpx.Response(0)
    status = response.status_code
    ahead = seconds_ahead(time_of(response.headers.get("date", "")))
    if status == httpx.codes.UNAUTHORIZED and not -flower_names.OLDEST_SECONDS <= ahead <= 0:
        return describe_clock(ahead)
    if status in REFUSED:
        return render("processes.node.refused", status=status, why=render(f"processes.refused.{status}"))
    what = f"status {status}" if status else type(error).__name__
    if proxied and not status:
        return render("processes.node.through-silent", why=what)
    return render("processes.node.silent", why=what)


def _proxy_reason(error: httpx.ProxyError) -> str:
    # The text is the proxy's own, "407 Proxy Authentication Required": of it only the number is shown.
    status = str(error).partition(" ")[0]
    if not status.isdecimal():
        return render("processes.node.closed", why=type(error).__name__)
    if int(status) in PASSWORD_REFUSED:
        return render("processes.node.password", status=status)
    return render("processes.node.closed", why=status)


@dataclass(frozen=True)
class NotedBody(httpx.SyncByteStream):
    """The body of an answer, each piece of which is noted; that a part is not there yet is none."""

    body: Any
    note: Callable[[], None]

    def __iter__(self) -> Iterator[bytes]:
        """Yield the pieces."""
        for piece in self.body:
            if len(piece) > NOT_YET_BYTES:
                self.note()
            yield piece

    def close(self) -> None:
        """Close the connection."""
        self.body.close()


@dataclass
class Connection:
    """Connection of this process's SuperNode to the server.

    Parameters
    ----------
    node_file : Path
        The file with the node's number at the server. After a kill it frees the previous process's place at once,
        and not after a minute.
    pulse : Pulse
        Touched with each answer of the server.
    outage : Outage
    download : Pulse
        Touched with each piece of a message's part: for the gate, which waits for the parts.
    clock : Path
        Of the seconds by which this machine's clock is off the server's, where it is.
    """

    node_file: Path
    pulse: Pulse
    outage: Outage
    download: Pulse
    clock: Path
    _client: Any = None
    _lost: threading.Event = field(default_factory=threading.Event)
    _freed: bool = False

    def install(self) -> None:
        """Make the SuperNode of this process connect by it."""
        make = flower_names.make_simple_http_retry_invoker
        connect = flower_names.http_request_response
        beats = flower_names.node_heartbeat_pauses
        replace("make_simple_http_retry_invoker", lambda: self.patient(make()))
        replace("http_request_response", functools.partial(self._connected, connect))
        replace("node_heartbeat", self.beating(flower_names.node_heartbeat))
        replace("node_heartbeat_pauses", lambda max_delay: beats(max_delay=min(max_delay, LONGEST_PAUSE)))

    def opened(self, client: Any) -> None:
        """Adopt Flower's client of the server."""
        self._client = client
        client._client.timeout = httpx.Timeout(SECONDS)
        client._client.event_hooks["response"].append(self._answered)

    def patient(self, invoker: Any) -> Any:
        """Return Flower's invoker with unlimited retries.

        It repeats whatever breaks in transit.
        """
        # Flower's own test for giving up still decides on refusals of the server.
        refused = invoker.should_giveup
        retry(invoker, FIRST_PAUSE, LONGEST_PAUSE, lambda error: self._is_final(error, refused))
        invoker.on_backoff = self._failed
        return invoker

    def beating(self, make: Callable[[Callable[[], bool]], Any]) -> Callable[[Callable[[], bool]], Any]:
        """Return a maker of heartbeats that survive outages.

        They go on while the server is away.
        """

        def beaten(beat: Callable[[], bool]) -> bool:
            try:
                return beat()
            except httpx.HTTPStatusError as error:
                if not is_away(error.response.status_code):
                    raise
                self.outage.failed(error)
                return False

        return lambda beat: make(functools.partial(beaten, beat))

    def _is_final(self, error: Exception, refused: Callable[[Exception], bool]) -> bool:
        """Return whether a request is given up.

        The place of a killed process is freed first.
        """
        if not isinstance(error, httpx.HTTPStatusError) or is_away(error.response.status_code):
            return False
        if error.response.status_code == httpx.codes.PRECONDITION_FAILED:
            # Else its key may be registered in a moment, where it has just been admitted.
            self._freed = self._leave_before()
            return False
        from flfed.flower_names import FlowerError

        # A refusal with a reason of Flower's own is of a run that is over, and not of the site.
        if error.response.status_code in REFUSED and FlowerError.from_json(error.response.text) is None:
            self.outage.say(reason_of(error))
        return refused(error)

    def _failed(self, state: Any) -> None:
        """Note a request that is repeated.

        After a failed request for messages, a message may be lost.
        """
        if self._freed:  # the next request is admitted
            self._freed = False
            return
        self.outage.failed(state.exception)
        if state.target.__name__ == "PullMessages" and not isinstance(state.exception, NOTHING_SENT):
            self._lost.set()

    def _answered(self, response: httpx.Response) -> None:
        if response.is_success:
            self.pulse.beat()
            self.outage.over()
        # One that is nearly right again is right: an answer's time has whole seconds.
        at = time_of(response.headers.get("date", ""))
        ahead = seconds_ahead(at, share=0.5 if self.clock.exists() else 1.0)
        if bool(ahead) != self.clock.exists():
            self.clock.unlink(missing_ok=True)
            if ahead:
                self.outage.say(describe_clock(ahead))
                with suppress(FlfedError):  # a full disk
                    write_whole(self.clock, f"{ahead:.0f}".encode(), mode=SHARED)
        if response.request.url.path.endswith(PULL_OBJECT):
            response.stream = NotedBody(response.stream, self.download.beat)

    def _leave_before(self) -> bool:
        """Free the place of the node's previous process, and return whether there was one.

        That process could not leave the server itself.
        """
        try:
            self._leave(int(self.node_file.read_text(encoding="ascii")))
            self.node_file.unlink()
        except (OSError, ValueError, httpx.HTTPError):
            return False  # there was none; or the next request tries again
        self.outage.say(render("processes.node.freed"))
        return True

    def _leave(self, node: int) -> None:
        try:
            ask(self._client.DeactivateNode, node_id=node)
        except httpx.HTTPStatusError as error:
            if is_away(error.response.status_code):
                raise
            # Else it has left already.

    @contextmanager
    def _connected(self, connect: Callable[..., Any], *arguments: Any) -> Iterator[Any]:
        """Connect as Flower does, and note failures."""
        with connect(*arguments) as (node, receive, send, *asks):
            self.outage.say(render("processes.node.connected"))
            with suppress(FlfedError):  # a full disk: the number only shortens a wait after a kill
                write_whole(self.node_file, str(node).encode())
            # Every function for requests that Flower got is wrapped, so that no failure is missed.
            receive = functools.partial(self._received, receive, node)
            send = functools.partial(self._sent, send)
            yield (node, receive, *map(self._noted, [send, *asks]))

    def _received(self, receive: Callable[[], Any], node: int) -> Any:
        """Request a message, and recover a lost one.

        Where none comes and one may be lost, leave the server and come back.
        """
        message = receive()
        if message is None and self._lost.is_set():
            with suppress(httpx.HTTPError):  # else the loss stays noted, and the next request tries again
                # Leaving and returning gives the node a new time online: the coordinator then repeats its requests.
                self._leave(node)
                ask(self._client.SendNodeHeartbeat, node={"node_id": node}, heartbeat_interval=HEARTBEAT_SECONDS)
                self._lost.clear()
                self.outage.say(render("processes.node.lost"))
        return message

    def _sent(self, send: Callable[..., tuple[set[str], str]], *arguments: Any) -> tuple[set[str], str]:
        """Send the beginning of a reply.

        It counts as lost where the server then needs none of its parts.

        The coordinator has taken its beginning already, and the server's answer to that was lost in transit. It would
        wait for parts that no process sends.
        """
        parts, session = send(*arguments)
        if not parts:
            self._lost.set()
        return parts, session

    def _noted(self, ask: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that notes the final failure of a request.

        Where it fails for good, a message counts as lost.
        """
        from flfed.flower_names import ObjectUnavailableError, RunNotRunningException

        @functools.wraps(ask)
        def ask_and_note(*arguments: Any) -> Any:
            try:
                return ask(*arguments)
            except (ObjectUnavailableError, RunNotRunningException):
                raise  # to be repeated, or of a run that is over
            except BaseException:
                self._lost.set()
                raise

        return ask_and_note


def notice_lost_messages(end: Say) -> None:
    """Call `end` when the gate has lost a message.

    It has where it requests a message although one is unanswered.

    A gate answers one message after the other: the process with that message is gone, or the handing over failed.
    Flower would wait a minute, then answer in the site's name, or wait for ever.
    """
    acquire = flower_names.acquire_task

    def acquired(request: Any, state: Any) -> Any:
        if state.get_tasks(statuses=[STARTING, RUNNING]):
            end(render("processes.node.restarted"))
        return acquire(request, state)

    replace("acquire_task", acquired)


if __name__ == "__main__":
    try:
        work(SiteFolder(sys.argv[1]))
    except FlfedError as error:
        sys.exit(f"flfed: {error}")
