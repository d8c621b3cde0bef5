"""Replies that a site keeps on its own disk, so that it answers a round once and sends that again."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, MetricRecord, RecordDict
from safetensors import SafetensorError
from safetensors.numpy import load, save

from flfed.home import home
from flfed.summary import arrays_sha256
from flfed.updates.content import Arrays, array_record, ndarrays
from flfed.updates.messages import TrainRequest

KEPT = 2
"""Rounds whose replies stay."""
_KINDS: dict[str, Any] = {"config": ConfigRecord, "metrics": MetricRecord}


@dataclass(frozen=True)
class KeptReplies:
    """The replies of one site in one run, of the last two rounds, as files that only it can read.

    Parameters
    ----------
    site, run : str
        Names; the run's as the server gave it, so it is taken only if it is a plain word.
    """

    site: str
    run: str

    @property
    def folder(self) -> Path:
        """Where the replies are."""
        return home() / "sites" / self.site / "runs" / self.run

    def reply_to(self, request: TrainRequest) -> RecordDict | None:
        """Return what was answered to this very request, or None; a damaged file counts as none."""
        try:
            content = (self.folder / _name(request.round)).read_bytes()
            arrays, metadata = load(content), _metadata(content)
        except (OSError, SafetensorError, ValueError):
            return None
        if metadata.get("request") != digest_of(request) or metadata.get("sha256") != arrays_sha256(arrays):
            return None
        return _record(arrays, json.loads(metadata["plain"]))

    def keep(self, request: TrainRequest, reply: RecordDict) -> None:
        """Keep the answer to a request, whole or not at all; those before the last two rounds go."""
        arrays = {
            f"{section}/{name}": value
            for section in reply.array_records
            for name, value in ndarrays(reply, section).items()
        }
        plain = {
            kind: {name: dict(part) for name, part in getattr(reply, f"{word}_records").items()}
            for kind, word in (("config", "config"), ("metrics", "metric"))
        }
        metadata = {"request": digest_of(request), "plain": json.dumps(plain), "sha256": arrays_sha256(arrays)}
        folder = self.folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        part = folder / "reply.part"
        with open(part, "wb", opener=_private) as stream:
            stream.write(save(arrays, metadata=metadata))
        part.replace(folder / _name(request.round))
        (folder / _name(request.round - KEPT)).unlink(missing_ok=True)

    def forget(self) -> None:
        """Remove the replies of a run that is over."""
        shutil.rmtree(self.folder, ignore_errors=True)


def kept_replies(site: str, run: object) -> KeptReplies | None:
    """Return where a site keeps its replies in a run; None where the run has no name fit for a folder."""
    plain = isinstance(run, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]{0,99}", run)
    return KeptReplies(site, str(run)) if plain else None


def _name(round: int) -> str:
    return f"round-{round:06d}.safetensors"


def digest_of(request: TrainRequest) -> str:
    """Return the hash of everything a reply depends on besides the site's own rows and study."""
    plain = (
        request.round,
        request.rounds,
        request.lr_scale,
        request.fit,
        request.score,
        sorted(request.settings.items()),
    )
    arrays = arrays_sha256({**request.arrays, **{f"encoder/{k}": v for k, v in request.encoder.arrays().items()}})
    return f"{arrays}/{json.dumps(plain)}"


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _metadata(content: bytes) -> dict[str, str]:
    """Return the metadata of a safetensors file: 8 bytes of length, then a JSON header."""
    length = int.from_bytes(content[:8], "little")
    return dict(json.loads(content[8 : 8 + length]).get("__metadata__", {}))


def _record(arrays: Arrays, plain: dict[str, dict[str, dict[str, object]]]) -> RecordDict:
    """Return the message's content as it was."""
    sections: dict[str, Arrays] = {}
    for key, value in arrays.items():
        section, _, name = key.partition("/")
        sections.setdefault(section, {})[name] = np.array(value)
    records: dict[str, Any] = {section: array_record(found) for section, found in sections.items()}
    for kind, parts in plain.items():
        records |= {name: _KINDS[kind](part) for name, part in parts.items()}
    return RecordDict(records)
