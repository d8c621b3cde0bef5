"""Replay of a round at a site.

It tests whether the frozen rows give, bit for bit, the update that the ledger says left.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flwr.app import Message

import flfed
from flfed.deployment.site_state.request_archive import ArchivedRequest, content_sha256, list_rounds, read_requests
from flfed.errors import FlfedError
from flfed.federation.client.client import SiteClient
from flfed.federation.client.site_run import extra_shapes_of, study_of
from flfed.federation.engines.inprocess import InProcessGrid
from flfed.paths import SiteFolder
from flfed.records.ledger import Ledger
from flfed.records.ledger_line import QUESTION, Line
from flfed.rows.data.site import Site
from flfed.rows.snapshots.snapshot import FrozenSite, load
from flfed.updates.codec import codec_of
from flfed.updates.messages.fields import reason_of
from flfed.updates.messages.train import TRAIN
from flfed.words import flfed_error, render, usage_error

LEFT = "train"
"""The kind of a ledger's line for an update."""
LATEST = "latest"


@dataclass(frozen=True)
class Replayed:
    """Result of computing an update again.

    Attributes
    ----------
    site, run : str
    round : int
    ledger_hashes : tuple of str
        Hashes of the different updates that left in that round, as the ledger has them: one, unless
        the round was asked again with another model.
    again : tuple of str
        Hashes of what was computed again, one for each message that is kept.
    rows_then, rows_now : str
        Hashes of the rows, as the ledger has it and of the snapshot.
    refused : str
        What the site said instead of an update, or an empty text.
    other_versions : tuple of str
        Versions of flfed that answered then, but for the one that is installed.
    """

    site: str
    run: str
    round: int
    ledger_hashes: tuple[str, ...]
    again: tuple[str, ...]
    rows_then: str
    rows_now: str
    refused: str = ""
    other_versions: tuple[str, ...] = ()

    @property
    def matches(self) -> bool:
        """Tell whether every update was reproduced exactly.

        Updates must be the same bit for bit, and from the very same rows.
        """
        return self.rows_then == self.rows_now and set(self.ledger_hashes) <= set(self.again)

    def error(self) -> FlfedError | None:
        """Return why it does not match, None where it does."""
        if self.matches:
            return None
        place = {"site": self.site, "round": self.round, "run": self.run}
        return flfed_error("operator.replay.differs", why=self._why(), **place)

    def _why(self) -> str:
        # The first reason that explains a difference is told: rows, then a refusal, then a version.
        if self.rows_then != self.rows_now:
            which = "same" if set(self.ledger_hashes) <= set(self.again) else "other"
            return render(f"operator.replay.rows-{which}-update", then=self.rows_then, now=self.rows_now)
        if self.refused:
            return render("operator.replay.refused", why=self.refused)
        if len(self.again) < len(self.ledger_hashes):
            return render("operator.replay.fewer", left=len(self.ledger_hashes), again=len(self.again))
        if self.other_versions:
            versions = ", ".join(self.other_versions)
            return render("operator.replay.other-version", versions=versions, own=flfed.__version__)
        return render("operator.replay.changed")

    def as_json(self) -> dict[str, Any]:
        """Return the facts for a program."""
        rows = {"rows-sha256": self.rows_then, "current-rows-sha256": self.rows_now}
        hashes = {"sha256": list(self.ledger_hashes), "recomputed-sha256": list(self.again)}
        reason = "" if self.matches else self._why()
        place = {"site": self.site, "run": self.run, "round": self.round}
        return {**place, "matches": self.matches, **hashes, **rows, "reason": reason}


def replay(folder: SiteFolder, site: Site, run: str, round: int) -> Replayed:
    """Compute a round's update again.

    It is computed from the site's frozen rows and compared with the ledger.

    Parameters
    ----------
    folder : SiteFolder
    site : Site
    run : str
        As the ledger has it; "latest" is the last one of which an update left.
    round : int

    Raises
    ------
    UsageError
        If the ledger has no update of that round; if what the site was asked is no longer kept; if the
        update held noise; if nothing that can be served is frozen.
    LedgerError
        If the ledger is not as it was written.
    """
    if run == LATEST:
        sent = [str(line.facts.get("run")) for line in Ledger(folder.ledger).lines() if line.kind == LEFT]
        run = next(reversed(sent), run)
    left = _left(folder, run, round)
    messages = read_requests(folder, run, round)
    if not messages:
        rounds = list_rounds(folder, run)
        rest = render("operator.replay.no-other-round")
        if rounds:
            rest = render("operator.replay.other-rounds", first=rounds[0], last=rounds[-1])
        raise usage_error("operator.replay.unkept", site=folder.site, round=round, run=run, rest=rest)
    text = messages[0].study
    if round > 1:
        _check_keeps_nothing(folder.site, text, round)
    frozen = load(site.serving(study_of(text).dataset.name), folder.frozen)
    # With the day of then: a study that has expired since could not be answered otherwise.
    again, refused = _again(frozen, messages, datetime.datetime.fromisoformat(left[0].at).date())
    others = {message.version for message in messages} - {flfed.__version__}
    # Rows may have been frozen anew between two answers of one round.
    rows = {line.text("rows-sha256") for line in left}
    rows_then = rows.pop() if len(rows) == 1 else "several"
    return Replayed(
        site=site.name,
        run=run,
        round=round,
        ledger_hashes=tuple(dict.fromkeys(line.text("sha256") for line in left)),
        again=again,
        rows_then=rows_then,
        rows_now=frozen.snapshot.sha256,
        refused=refused,
        other_versions=tuple(sorted(others)),
    )


def _check_keeps_nothing(site: str, text: str, round: int) -> None:
    """Raise where the update of a later round followed from what a site keeps of the rounds before."""
    study = study_of(text)
    codec = codec_of(study)
    if codec is not None and codec.feedback:
        raise usage_error("operator.replay.feedback", site=site, round=round, codec=study.codec.name)
    shapes = extra_shapes_of(text)
    # A model beside the shared one changes no update.
    if shapes.kept or shapes.own_part:
        raise usage_error("operator.replay.own-state", site=site, round=round, strategy=study.strategy.name)


def _left(folder: SiteFolder, run: str, round: int) -> list[Line]:
    """Return the ledger's lines for a round's updates.

    There is at least one; else `UsageError` is raised.
    """
    of_run = [line for line in Ledger(folder.ledger).lines() if line.facts.get("run") == run]
    left = [line for line in of_run if line.kind == LEFT and line.facts.get("round") == round]
    if not left:
        absent = "update" if of_run else "line"
        raise usage_error(f"operator.replay.no-{absent}", site=folder.site)
    _check_drawn_nothing(folder, left, round)
    return left


def _check_drawn_nothing(folder: SiteFolder, left: list[Line], round: int) -> None:
    """Raise where what left followed from masks, noise or trees that are kept nowhere."""
    if any(QUESTION in line.facts for line in left):
        raise usage_error("operator.replay.masked", site=folder.site, round=round)
    if any("level" in line.facts for line in left):
        raise usage_error("operator.replay.tree", site=folder.site, round=round)
    if any(line.facts.get("charged-bytes") or "epsilon" in line.facts for line in left):
        raise usage_error("operator.replay.noised", site=folder.site, round=round)


def _again(site: FrozenSite, messages: Sequence[ArchivedRequest], today: datetime.date) -> tuple[tuple[str, ...], str]:
    """Return the hash of each computed reply.

    Return also what the site said in place of a reply.
    """
    hashes = []
    refused = ""
    side = SiteClient(lambda name, study: site, today=lambda: today, releasing=False)
    for message in messages:
        # Without the run's name: else a reply that was kept might be sent again.
        grid = InProcessGrid(side.app(), [site.name], {"study": message.study, "repeat": message.repeat})
        (reply,) = grid.send_and_receive([Message(message.request.to_record(), dst_node_id=1, message_type=TRAIN)])
        if reply.has_error():
            refused = reason_of(reply)
        else:
            hashes.append(content_sha256(reply.content))
    return tuple(hashes), refused
