"""Answering loop of a site's gate: one message after the other, once the node has written their secret."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from flfed.deployment.flower.pacing import Backoff, Pace
from flfed.deployment.processes.child_processes import Pulse, shared_secret
from flfed.paths import SiteFolder
from flfed.refusals import Refusal
from flfed.words import render

if TYPE_CHECKING:
    from flwr.app import Context, Message

    from flfed.deployment.flower.site_client import Task, Tasks

    Compute = Callable[[Message, Context], Message]

LOG = logging.getLogger("flfed.gate")
LEAST = 0.05
MOST = 1.0
"""Seconds between two requests to the node, which is on this machine: 0.05 while a study runs, 1 when idle."""
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0
"""Seconds after which a broken link is tried again, at first and at most."""
ENDED = Refusal("gate-ended")


class Executor:
    """Answering loop of a site's gate.

    Parameters
    ----------
    tasks : Tasks
        Source of the messages.
    answer : callable (message, context) → Message
        The gate's decisions around the installed client app. An exception becomes an error reply that names its
        type; only flfed's own sentences cross (`redaction.redact`).
    pulse : Pulse
        Touched whenever the node was reached, and where it is absent; busy while a message is answered. It names the
        message without an answer.
    """

    def __init__(self, tasks: Tasks, answer: Compute, pulse: Pulse) -> None:
        # Here, and not with the first message: torch takes seconds to load.
        from flfed.federation.client.redaction import redact

        self._redact = redact
        self._tasks = tasks
        self._answer = answer
        self._pulse = pulse
        self._pace = Pace(LEAST, MOST)
        self._backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        self._linked = False

    def run(self, ended: threading.Event) -> None:
        """Answer until `ended` is set.

        It waits for a node that goes away.
        """
        from flfed.deployment.flower.site_client import LinkLost
        from flfed.updates.messages.fields import MalformedMessage

        while not ended.is_set():
            try:
                pause = self.step()
            except LinkLost as error:
                # A lost link is reported once, and tried again with growing pauses.
                if self._linked:
                    # Its text alone: a log record with the error would hold on to what was open when it was raised.
                    LOG.warning(render("processes.gate.unlinked", why=error))
                self._linked = False
                self._pulse.note(render("processes.gate.nodeless"))
                pause = self._backoff.seconds()
            except MalformedMessage as error:
                LOG.warning("refused: %s", str(error))
                self._pulse.note("")
                pause = 0.0
            ended.wait(pause)

    def step(self) -> float:
        """Answer the waiting message, if there is one.

        Return the seconds until the next request.
        """
        task = self._tasks.next()
        self._pulse.beat()
        self._backoff.reset()
        if not self._linked:
            LOG.info(render("processes.gate.linked"))
            self._linked = True
        if task is None:
            self._pulse.note("")
            return self._pace.seconds()
        try:
            # While a message is answered the pulse says busy: a fit may take any time.
            with self._pulse.busy():
                self._reply(task)
        finally:
            task.close()
            self._pulse.note("")
            self._pace.came()
        return 0.0

    def _reply(self, task: Task) -> None:
        # The answer is stored, to distinguish a reply of the gate from an error raised around it.
        answered: list[Message] = []

        def ask(*_: object) -> Message:
            answered.append(self._answer(task.message, task.context))
            return answered[0]

        try:
            reply = self._redact(task.envelope, task.context, ask)
        except (SystemExit, KeyboardInterrupt):
            # An end in the middle of a fit is reported at once, so that no deadline has to pass.
            task.refuse(ENDED)
            raise
        if reply.has_error():
            kind = task.envelope.metadata.message_type
            LOG.warning(render("processes.gate.error", kind=kind, reason=reply.error.reason))
        # The gate has passed its own answers; an error raised instead passes it now.
        if not answered:
            reply = task.seen(reply)
        task.reply(reply)


def wait_for_secret(folder: SiteFolder, waits: Callable[[], None]) -> bytes:
    """Return the shared secret, once the node has written it.

    A secret that others may read raises `UsageError` or `FlfedError`.

    `waits` is called before each second, or less, in which the secret is absent.
    """
    waiting = threading.Event()
    backoff = Backoff(FIRST_PAUSE, 1.0)
    while not os.path.lexists(folder.secret):  # a folder that may not be entered counts as absent too
        waits()
        waiting.wait(backoff.seconds())
    return shared_secret(folder)
