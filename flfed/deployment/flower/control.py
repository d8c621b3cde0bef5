"""Client of Flower's control interface.

The coordinator manages nodes and runs by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Self

import httpx

from flfed.deployment.bundle import bundle, bundle_sha256
from flfed.deployment.flower.link import NOT_SERVING, REFUSED, TIMEOUT_SECONDS, Link, Node
from flfed.errors import FlfedError, UsageError
from flfed.flower_names import KEY_IN_USE, FlowerError, ask, user_config_to_proto

RUNS_AT_ONCE = 1000
FINISHED = "finished"


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
            ask(stranger.ListNodes)
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
            found = ask(self._flower.ListNodes).nodes_info
        return {info.public_key: Node.of(info) for info in found}

    def register(self, site: str, public_key: bytes) -> int:
        """Register a node's key and return its number.

        The number is returned also where the key is registered already.
        """
        try:
            with in_words():
                return ask(self._flower.RegisterNode, public_key=public_key, name=site[:32]).node_id
        except Refused as error:
            if error.code != KEY_IN_USE:
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
            ask(self._flower.UnregisterNode, node_id=node_id)

    def start_run(self, run_config: Mapping[str, bool | float | int | str]) -> int:
        """Start a run of flfed's bundle.

        Return its number in Flower.
        """
        fab = {"hash_str": bundle_sha256(), "content": bundle()}
        config = user_config_to_proto(dict(run_config))
        with in_words():
            return ask(self._flower.StartRun, fab=fab, override_config=config, federation="", app_spec="").run_id

    def stop_run(self, run: int) -> None:
        """Stop a run that is under way."""
        with in_words():
            ask(self._flower.StopRun, run_id=run)

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
                page = ask(self._flower.ListRuns, limit=RUNS_AT_ONCE, skip=skip).run_dict
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
            found = ask(self._flower.ListRuns, run_id=run).run_dict[run].status
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
            raise FlfedError(REFUSED) from None
        what = said.message if said is not None else f"status {status}"
        raise Refused(f"the coordinator's server refused: {what}", said.code if said is not None else 0) from None
    except httpx.HTTPError:
        raise FlfedError(NOT_SERVING) from None
