"""Cache of a site's replies on its own disk.

With it a site answers a round once, and sends that reply again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, MetricRecord, RecordDict
from safetensors import SafetensorError
from safetensors.numpy import save

from flfed.errors import FlfedError
from flfed.files import locked
from flfed.folders import RUN
from flfed.paths import home, private_folder
from flfed.refusals import Refusal
from flfed.summaries.summary import arrays_sha256
from flfed.updates.checkpoints.tensor_file import read_file
from flfed.updates.messages.fields import Arrays, ndarrays
from flfed.updates.messages.in_memory import array_record
from flfed.updates.messages.train import TrainRequest

KEPT = 2
"""Rounds whose replies stay."""
RUNS = 32
"""Runs of a site whose replies stay, for a run that never compares would keep them for ever: the latest ones."""
_KINDS: dict[str, Any] = {"config": ConfigRecord, "metrics": MetricRecord}


class NotKept(FlfedError):
    """Error for a reply that the site cannot keep.

    Its text is a fixed sentence of ours, so that it may cross.
    """


@dataclass(frozen=True)
class KeptReplies:
    """Replies of one site in one run.

    They are of the last two rounds, as files that only the site can read.

    Parameters
    ----------
    site, run : str
        Names; the run's as the server gave it, so it is taken only if it is a plain word.
    """

    site: str
    run: str

    @property
    def folder(self) -> Path:
        """Folder of the replies."""
        return home() / "sites" / self.site / "runs" / self.run

    def reply_to(self, request: TrainRequest, *, under: str) -> RecordDict | None:
        """Return the earlier reply to this very request.

        It is None where there is none; a damaged file counts as none.

        Parameters
        ----------
        request : TrainRequest
        under : str
            What else a reply depends on: the study, the repeat and the site's policy, as one text. A
            reply under a wider policy, or of another study that a server gives the same run, is not sent.
        """
        try:
            arrays, metadata = read_file(self.folder / _name(request.round))
        except (OSError, SafetensorError, ValueError):
            return None
        # Another request for the same round, or one under another policy, is answered anew.
        if metadata.get("request") != digest_of(request, under=under):
            return None
        if metadata.get("sha256") != _sha256(arrays, metadata.get("plain", "")):
            return None
        return _record(arrays, json.loads(metadata["plain"]))

    def has_reply(self, round: int) -> bool:
        """Tell whether there is a reply to any request of a round."""
        return (self.folder / _name(round)).exists()

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Lock the replies while one is looked up or computed: of two requests at once the second one waits.

        Raises
        ------
        NotKept
            If the folder cannot be made.
        """
        try:
            self.make_folder()
        except OSError as error:
            raise NotKept(Refusal("reply-not-kept", error=error.strerror)) from None
        with locked(self.folder):
            yield

    def keep(self, request: TrainRequest, reply: RecordDict, *, under: str) -> None:
        """Keep the reply to a request, whole or not at all.

        Replies before the last two rounds are removed.

        Raises
        ------
        NotKept
            If it cannot be written, such as on a full disk.
        """
        arrays = {
            f"{section}/{name}": value
            for section in reply.array_records
            for name, value in ndarrays(reply, section).items()
        }
        plain = json.dumps(
            {
                kind: {name: dict(part) for name, part in getattr(reply, f"{word}_records").items()}
                for kind, word in (("config", "config"), ("metrics", "metric"))
            }
        )
        metadata = {"request": digest_of(request, under=under), "plain": plain, "sha256": _sha256(arrays, plain)}
        folder = self.folder
        try:
            self.make_folder()
            part = folder / "reply.part"
            with open(part, "wb", opener=_private) as stream:
                stream.write(save(arrays, metadata=metadata))
            part.replace(folder / _name(request.round))
            # By distance: a server may name any round, and each must not leave a file for ever.
            rounds = sorted(_rounds(folder), key=lambda round: abs(round - request.round))
            for round in rounds[KEPT:]:
                (folder / _name(round)).unlink(missing_ok=True)
        except OSError as error:
            raise NotKept(Refusal("reply-not-kept", error=error.strerror)) from None

    def make_folder(self) -> None:
        """Make the run's folder, and remove those of the earliest runs; raises OSError."""
        folder = self.folder
        if folder.is_dir():
            return
        private_folder(folder.parent)
        private_folder(folder)
        # A run that never compares would keep its replies for ever, so the oldest runs go.
        others = _last_written(path for path in folder.parent.iterdir() if path != folder)
        for other in others[RUNS - 1 :]:
            shutil.rmtree(other, ignore_errors=True)

    def forget(self) -> None:
        """Remove the replies of a finished run, and its state."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _last_written(folders: Iterable[Path]) -> list[Path]:
    """Return folders, the last written first."""
    times = {}
    for folder in folders:
        with suppress(OSError):  # another process of this site may have removed it
            times[folder] = folder.stat().st_mtime_ns
    return sorted(times, key=lambda folder: times[folder], reverse=True)


def kept_replies(site: str, run: object) -> KeptReplies | None:
    """Return a site's reply cache for a run.

    It is None where the run has no name fit for a folder.
    """
    plain = isinstance(run, str) and RUN.fullmatch(run)
    return KeptReplies(site, str(run)) if plain else None


def _name(round: int) -> str:
    return f"round-{round:06d}.safetensors"


def _rounds(folder: Path) -> list[int]:
    return [int(path.stem.removeprefix("round-")) for path in folder.glob("round-*.safetensors")]


def digest_of(request: TrainRequest, *, under: str) -> str:
    """Return the hash of what a reply depends on.

    The site's own rows are not in it.
    """
    plain = (
        hashlib.sha256(under.encode()).hexdigest(),
        request.round,
        request.rounds,
        request.lr_scale,
        request.fit,
        request.score,
        sorted(request.settings.items()),
    )
    parts = {"encoder": request.encoder.arrays(), "extra": request.extra}
    named = {f"{part}/{name}": value for part, arrays in parts.items() for name, value in arrays.items()}
    arrays = arrays_sha256({**request.arrays, **named})
    return f"{arrays}/{json.dumps(plain)}"


def _sha256(arrays: Arrays, plain: str) -> str:
    """Return the hash of a reply's arrays, numbers and texts."""
    return hashlib.sha256(f"{arrays_sha256(arrays)}/{plain}".encode()).hexdigest()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _record(arrays: Arrays, plain: dict[str, dict[str, dict[str, object]]]) -> RecordDict:
    """Return a message's content as it was."""
    # Arrays are kept under "section/name", and sorted back into sections.
    sections: dict[str, Arrays] = {}
    for key, value in arrays.items():
        section, _, name = key.partition("/")
        sections.setdefault(section, {})[name] = np.array(value)
    records: dict[str, Any] = {section: array_record(found) for section, found in sections.items()}
    for kind, parts in plain.items():
        records |= {name: _KINDS[kind](part) for name, part in parts.items()}
    return RecordDict(records)
