"""Process of the network, and its connection to the coordinator.

It is Flower's SuperNode of a site with the relay to the gate; it has no data. What breaks is tried
again for ever, and what got lost is asked for again: Flower 1.42 gives up at any error whose text
has "ssl", "tls" or "certificate", and its server hands a message out once: where the answer that
carried it was lost, nobody has it. Here a node that may have lost a message leaves and comes back in
one breath; the coordinator sees that, and asks again what it had not answered.

What is replaced in Flower's own modules (their names are in `flower_names.py`):

- `time` of the SuperNode's loop: its `sleep(3)` between two questions to the server and its `sleep(0.5)` until
  the gate has answered are the only two things it uses `time` for (`paced`);
- `_pull_and_store_message`; of the node's state `msg_store` is looked at, and its entries' `is_retrieved` and
  `message`: a reply that was left is sent (`nothing_left_unsent`);
- `pull_objects`, with `initial_backoff`: parts that come later are asked for soon (`parts_soon`);
- `ProtobufClient.__init__`, with `_client`: made by Flower to follow redirects, also to another host, with the
  message in the body (`stay_with_the_host`);
- `make_simple_http_retry_invoker`, whose retry policy is given other pauses, errors and words;
- `http_request_response` as the node's loop names it;
- `exponential`, the pauses between heart-beats that fail, and `HeartbeatSender` as the node's connection names it;
- `acquire_task`; `get_tasks` of the node's state is asked.

Of Flower's client of the server, `_client`, `DeactivateNode` and `SendNodeHeartbeat` are used. A name that is not there
ends the process with a sentence: a new Flower is not used half-guarded.
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
from flfed.deployment.flower.transport import is_away, retry
from flfed.deployment.processes.child_processes import Pulse, free_port, make_secret, node_command, shared_secret
from flfed.deployment.processes.relay import relaying
from flfed.deployment.processes.supervisor import NEWS
from flfed.errors import FlfedError
from flfed.files import write_whole
from flfed.flower_names import HEARTBEAT_SECONDS, RUNNING, STARTING, ask, check_names, replace, replace_name
from flfed.paths import SiteFolder

LEAST = 0.15
MOST = 10.0
"""Seconds between two questions to the server: 0.15 while a study runs, 3 after a minute with no message, then 10."""
ANSWERING = 0.02
"""Seconds between two looks for the gate's answer, in this process's own memory."""
PARTS = 0.05
"""Seconds until the second question for a part of a message; each further wait is twice as long, up to 10 s."""
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}


@dataclass(frozen=True)
class PacedTime:
    """Replacement for `time` in the SuperNode's loop.

    It waits as long as flfed's own pace says.

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

    Flower's loop looks for replies only after a message. Where a run ended while a message of it was on
    its way, the next message's turn goes to the old reply, and its own would wait for the message after.
    """
    pull = flower_names._pull_and_store_message

    def pulled(**arguments: Any) -> int | None:
        run: int | None = pull(**arguments)
        if run is None and _unsent(arguments["state"]):
            return 0  # any run: the loop only asks whether there is one, and then sends what there is
        return run

    replace("_pull_and_store_message", pulled)


def parts_soon() -> None:
    """Ask soon again for parts of a message that are not at the server yet.

    It changes the SuperNode of this process.

    The server hands a message out before all of its parts have come, some hundredths of a second later. Flower waits
    a second then, and longer each time.
    """
    replace("pull_objects", functools.partial(flower_names.pull_objects, initial_backoff=PARTS))


def _unsent(state: Any) -> bool:
    """Tell whether an answer of the gate is unsent.

    Nothing is taken out by looking.
    """
    entries = list(state.msg_store.values())
    return any(not entry.is_retrieved and entry.message.metadata.reply_to_message_id for entry in entries)


def stay_with_the_host(opened: Callable[[Any], None]) -> None:
    """Forbid redirects to every Flower client here.

    `opened` is given each client of this process.

    Whoever stands at the server's address could else have a site send its messages to any host,
    within the hospital's network too.
    """
    # The class itself is changed, since Flower makes its clients in many places.
    client = flower_names.ProtobufClient
    make = client.__init__

    @functools.wraps(make)
    def made(self: Any, *arguments: Any, **named: Any) -> None:
        make(self, *arguments, **named)
        replace_name(self._client, "follow_redirects", False)
        opened(self)

    replace_name(client, "__init__", made)


def say(sentence: str) -> None:
    """Report an event to the log and the supervisor."""
    print(f"{NEWS}{sentence}", file=sys.stderr, flush=True)


def end_process(why: str) -> None:
    """Report why this process ends, and end it.

    Flower leaves the server first; the supervisor starts the process anew.
    """
    print(f"flfed: {why}", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)


def thread_ended(ended: threading.ExceptHookArgs) -> None:
    """End the process after a thread's error.

    Nobody else does what that thread did.
    """
    if ended.exc_type is not SystemExit:
        end_process(f"a thread of Flower's node ended ({ended.exc_type.__name__})")


def work(folder: SiteFolder) -> None:
    """Run the node until this process is told to end."""
    os.environ.update(QUIET, FLWR_HOME=str(folder.network / "flower"))  # read by Flower at its import
    check_names("node")
    port = free_port()  # should another program take it, the process is started again
    words = node_command(folder, port)
    make_secret(folder)
    shared_secret(folder)
    # Every change to Flower's code is made before its command begins.
    connection = Connection(folder.node_id, Pulse(folder.node_pulse), Outage(say))
    stay_with_the_host(connection.opened)
    connection.install()
    paced(Pace(LEAST, MOST))
    nothing_left_unsent()
    parts_soon()
    notice_a_gate_anew(end_process)
    threading.excepthook = thread_ended
    sys.argv = words
    with relaying(folder.socket, port):
        flower_names.flower_supernode()
    # Flower's loop has ended by an error that it only logs; its other threads would stay, and do nothing.
    print("flfed: Flower's node ended by itself", file=sys.stderr, flush=True)
    os._exit(1)


SECONDS = 15.0
"""For one answer of the server; Flower waits 30."""
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 4.0
"""Seconds before a request is tried again, at first and at most; Flower pauses up to 20."""
REPORT_SECONDS = 60.0
MOST_SECONDS = 3600.0
"""After how long it is said again that the server cannot be reached; each time twice as long, up to an hour."""
NOTHING_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
"""Errors after which the server cannot have handed out anything."""
WRONG_CERTIFICATE = (
    "who answers at the coordinator's address shows a certificate that the coordinator's authority did not sign, or "
    "not for this address or day (CERTIFICATE_VERIFY_FAILED); it is not trusted, and tried again; if it lasts, ask the "
    "coordinator"
)
ASK = "ask the coordinator for: flfed coordinator status"
REFUSED = {
    401: f"its key was never admitted, was revoked, or this machine's clock is five minutes off; {ASK}",
    403: f"it publishes no such route: is it a coordinator of this flfed? {ASK}",
    409: "it waits for no such part of an answer: that has arrived, or its time is over; it asks for the answer again",
    412: f"its key was never admitted or was revoked, or its node was here a minute ago and is tried again; {ASK}",
    413: "what it sends is larger than the server takes, 16 MB a piece; ask the coordinator for a smaller model",
    503: "it takes too long to send, or asks too much at a time: is the line slow? It is tried again",
}
"""What the server's status codes mean for who reads the log."""
GATE_ANEW = "the gate began anew in the middle of a message; the coordinator is asked for it again"

Say = Callable[[str], None]


@dataclass
class Outage:
    """Reporter of an unreachable server.

    It reports once, seldom again, and when the server answers.

    Parameters
    ----------
    say : callable
        Told the sentences.
    """

    say: Say
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _began: float = 0.0
    _due: float = 0.0
    _pause: float = 0.0
    _reasons: set[str] = field(default_factory=set)

    def failed(self, error: Exception) -> None:
        """Take note of a request that failed."""
        why = reason_of(error)
        now = time.monotonic()
        with self._lock:
            # The first failure starts the clock; further ones are told seldom, unless the reason is new.
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
                self.say(f"still after {now - self._began:.0f} s: {why}")

    def over(self) -> None:
        """Take note of a request that was answered."""
        with self._lock:
            if self._reasons:
                self.say(f"the coordinator's server answers again, after {time.monotonic() - self._began:.0f} s")
            self._reasons.clear()


def reason_of(error: Exception) -> str:
    """Return in a sentence why a request failed.

    Nothing of the error's own text is in it.

    Examples
    --------
    >>> reason_of(httpx.ReadTimeout("hospital"))
    "the coordinator's server does not answer (ReadTimeout); it is tried again until it does"
    """
    # httpx has no class for it: only the text tells a wrong certificate from another broken connection.
    if "certificate" in str(error).lower():
        return WRONG_CERTIFICATE
    status = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else 0
    if status in REFUSED:
        return f"the coordinator's server refuses this site ({status}): {REFUSED[status]}"
    what = f"status {status}" if status else type(error).__name__
    return f"the coordinator's server does not answer ({what}); it is tried again until it does"


@dataclass
class Connection:
    """Keeps the connection of this process's SuperNode.

    Parameters
    ----------
    node_file : Path
        The file with the number that the server knows this node by: after a kill, what it holds of the process
        before is let go of by it, and not after a minute.
    pulse : Pulse
        Touched with each answer of the server.
    say : callable
        Told in sentences what happens.
    """

    node_file: Path
    pulse: Pulse
    outage: Outage
    _client: Any = None
    _lost: threading.Event = field(default_factory=threading.Event)
    _freed: bool = False

    def install(self) -> None:
        """Have the SuperNode of this process connect by it."""
        make = flower_names.make_simple_http_retry_invoker
        connect = flower_names.http_request_response
        beats = flower_names.node_heartbeat_pauses
        replace("make_simple_http_retry_invoker", lambda: self.patient(make()))
        replace("http_request_response", functools.partial(self._connected, connect))
        replace("node_heartbeat", self.beating(flower_names.node_heartbeat))
        replace("node_heartbeat_pauses", lambda max_delay: beats(max_delay=min(max_delay, LONGEST_PAUSE)))

    def opened(self, client: Any) -> None:
        """Take the client that Flower made for the server."""
        self._client = client
        client._client.timeout = httpx.Timeout(SECONDS)
        client._client.event_hooks["response"].append(self._answered)

    def patient(self, invoker: Any) -> Any:
        """Return Flower's invoker with unlimited retries.

        It tries again whatever breaks on the way.
        """
        # Flower's own test for giving up is kept for what the server refuses.
        refused = invoker.should_giveup
        retry(invoker, FIRST_PAUSE, LONGEST_PAUSE, lambda error: self._is_final(error, refused))
        invoker.on_backoff = self._failed
        return invoker

    def beating(self, make: Callable[[Callable[[], bool]], Any]) -> Callable[[Callable[[], bool]], Any]:
        """Return a maker of heart-beats that survive outages.

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
        """Tell whether a request is given up.

        A place that a killed process still holds is freed first.
        """
        if not isinstance(error, httpx.HTTPStatusError) or is_away(error.response.status_code):
            return False
        if error.response.status_code == httpx.codes.PRECONDITION_FAILED:
            # Else its key may be registered in a moment, where it has just been admitted.
            self._freed = self._leave_before()
            return False
        from flfed.flower_names import FlowerError

        # With a reason of its own Flower refuses a run that is over, and not the site.
        if error.response.status_code in REFUSED and FlowerError.from_json(error.response.text) is None:
            self.outage.say(reason_of(error))
        return refused(error)

    def _failed(self, state: Any) -> None:
        """Note a request that is tried again.

        After a failed question for messages, a message may be lost.
        """
        if self._freed:  # the next one is let in
            self._freed = False
            return
        self.outage.failed(state.exception)
        if state.target.__name__ == "PullMessages" and not isinstance(state.exception, NOTHING_SENT):
            self._lost.set()

    def _answered(self, response: httpx.Response) -> None:
        if response.is_success:
            self.pulse.beat()
            self.outage.over()

    def _leave_before(self) -> bool:
        """Free the place of the node's previous process.

        That process could not leave the server itself. Tell whether there was one.
        """
        try:
            self._leave(int(self.node_file.read_text(encoding="ascii")))
            self.node_file.unlink()
        except (OSError, ValueError, httpx.HTTPError):
            return False  # there was none; or it is tried again with the next request
        self.outage.say("the server still held the place of the node that was here before; it was freed")
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
        """Connect as Flower does, noting failures."""
        with connect(*arguments) as (node, receive, send, *asks):
            with suppress(FlfedError):  # a full disk: the number only shortens a wait after a kill
                write_whole(self.node_file, str(node).encode())
            # Every function that Flower got for asking the server is wrapped, so that no failure is missed.
            receive = functools.partial(self._received, receive, node)
            send = functools.partial(self._sent, send)
            yield (node, receive, *map(self._noted, [send, *asks]))

    def _received(self, receive: Callable[[], Any], node: int) -> Any:
        """Ask for a message, and recover a lost one.

        Where none comes and one may be lost, leave the server and come back.
        """
        message = receive()
        if message is None and self._lost.is_set():
            with suppress(httpx.HTTPError):  # else it stays as it is, and the next question is followed by it
                # Leaving and returning gives the node a new time online: the coordinator then asks again.
                self._leave(node)
                ask(self._client.SendNodeHeartbeat, node={"node_id": node}, heartbeat_interval=HEARTBEAT_SECONDS)
                self._lost.clear()
                self.outage.say("a message may have been lost on the way; the coordinator is asked for it again")
        return message

    def _sent(self, send: Callable[..., tuple[set[str], str]], *arguments: Any) -> tuple[set[str], str]:
        """Send the beginning of a reply.

        It counts as lost where the server then wants none of its parts.

        The coordinator has taken the beginning of it already: the server's answer to that was lost on the way. It would
        wait for parts that nobody sends.
        """
        parts, session = send(*arguments)
        if not parts:
            self._lost.set()
        return parts, session

    def _noted(self, ask: Callable[..., Any]) -> Callable[..., Any]:
        """Return a question that notes its final failure.

        Where it fails for good, a message counts as lost.
        """
        from flfed.flower_names import ObjectUnavailableError, RunNotRunningException

        @functools.wraps(ask)
        def ask_and_note(*arguments: Any) -> Any:
            try:
                return ask(*arguments)
            except (ObjectUnavailableError, RunNotRunningException):
                raise  # to be asked again, or of a run that is over
            except BaseException:
                self._lost.set()
                raise

        return ask_and_note


def notice_a_gate_anew(end: Say) -> None:
    """Call `end` when the gate has forgotten a message.

    It has where it asks for a message although one is not answered.

    A gate answers one message after the other, so the process that had it is gone, or the handing over failed.
    Flower would wait a minute, then answer in the site's name, or wait for ever.
    """
    acquire = flower_names.acquire_task

    def acquired(request: Any, state: Any) -> Any:
        if state.get_tasks(statuses=[STARTING, RUNNING]):
            end(GATE_ANEW)
        return acquire(request, state)

    replace("acquire_task", acquired)


if __name__ == "__main__":
    try:
        work(SiteFolder(sys.argv[1]))
    except FlfedError as error:
        sys.exit(f"flfed: {error}")
