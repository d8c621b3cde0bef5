"""A site's state of a run: its keys, the encoder in force, and arrays of its own from round to round.

At an institution it stands in files, elsewhere in Flower's `Context.state`, since a site's next message may reach
another process. In a run in one process it is in the checkpoints.

A site keeps the last model of a run where no message brought all of it: under secure sums it made the model itself,
and a part may be its own. It writes the model down when it compares the run's models, and then deletes its keys and its
state of the run: a repeated comparison is answered from here.
"""

from __future__ import annotations

import copy
import json
import logging
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from safetensors import SafetensorError

from flfed.errors import FlfedError
from flfed.paths import RUN, SiteFolder, private_folder, replace_whole
from flfed.refusals import Refusal
from flfed.summaries.summary import Encoder, arrays_sha256
from flfed.updates.arrays import (
    Arrays,
    byte_array,
    facts_sha256,
    file_content,
    read_content,
    read_file,
    with_prefix,
    without_prefix,
)
from flfed.updates.messages.fields import ndarrays
from flfed.updates.messages.in_memory import array_record
from flfed.updates.messages.kinds import BRINGING
from flfed.updates.messages.train import ENCODER_MISSING, lacks_encoder, named_encoder, with_encoder

RUNS = 32
"""Runs of a site whose state stays, for a run that never compares would keep it for ever: the latest ones."""
GONE = ".gone"
"""Ending of the folder of a run that is being removed."""
STOPPED_SECONDS = 30 * 86_400
"""Seconds that a stopped run's keys and arrays stay: after that it cannot be resumed."""
_KINDS: dict[str, Any] = {"config": ConfigRecord, "metrics": MetricRecord}


class StorageError(FlfedError):
    """Error for state that the site cannot keep.

    Its text is a fixed sentence of ours, so that it may cross.
    """


def forget_stopped(states: Path) -> None:
    """Remove the keys and arrays of a site's runs that nobody resumed in 30 days."""
    for folder in states.glob("*"):
        with suppress(OSError):  # another process of this site may have removed it
            if time.time() - folder.stat().st_mtime > STOPPED_SECONDS or folder.suffix == GONE:
                _remove(folder)


def _remove(folder: Path) -> None:
    """Remove a run's folder, at once."""
    gone = folder if folder.suffix == GONE else folder.with_name(f"{folder.name}-{time.time_ns()}{GONE}")
    with suppress(OSError):
        folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def _last_written(folders: Iterable[Path]) -> list[Path]:
    """Return folders, the last written first."""
    times = {}
    for folder in folders:
        with suppress(OSError):  # another process of this site may have removed it
            times[folder] = folder.stat().st_mtime_ns
    return sorted(times, key=lambda folder: times[folder], reverse=True)


def record_bytes(record: RecordDict) -> bytes:
    """Return a message's content as bytes, arrays and plain values."""
    arrays: Arrays = {}
    for section in record.array_records:
        arrays |= with_prefix(f"{section}/", ndarrays(record, section))
    config = {name: dict(part) for name, part in record.config_records.items()}
    metrics = {name: dict(part) for name, part in record.metric_records.items()}
    plain = {"config": config, "metrics": metrics, "empty": [name for name in record.array_records if not record[name]]}
    arrays = dict(sorted(arrays.items()))  # in one order, so that equal contents are equal bytes
    return b"".join(
        bytes(part) for part in file_content(arrays, {"plain": json.dumps(plain, default=_as_hex, sort_keys=True)})
    )


def record_of_bytes(content: bytes) -> RecordDict:
    """Return a message's content as it was."""
    arrays, metadata = read_content(content)
    plain = json.loads(metadata["plain"], object_hook=_of_hex)
    # Arrays are kept under "section/name", and sorted back into sections.
    sections: dict[str, Arrays] = {name: {} for name in plain["empty"]}
    for key, value in arrays.items():
        section, _, name = key.partition("/")
        sections.setdefault(section, {})[name] = np.array(value)
    records: dict[str, Any] = {section: array_record(section_arrays) for section, section_arrays in sections.items()}
    for kind, part_class in _KINDS.items():
        records |= {name: part_class(part) for name, part in plain[kind].items()}
    return RecordDict(records)


def _as_hex(value: bytes) -> dict[str, str]:
    return {"hex": value.hex()}


def _of_hex(value: dict[str, Any]) -> Any:
    return bytes.fromhex(value["hex"]) if set(value) == {"hex"} else value


LOG = logging.getLogger("flfed.site")
STORED_ROUNDS = 2
"""Rounds whose state stays: a round that is asked again starts from the state before it."""
ENCODER = "encoder"
PREFIX = "state-"
PART = "vertical-part"
"""Name of a site's part of a model whose columns stand at several sites."""
OF_RUN = "sums-"
"""Before the names of what the site has for the run itself, whatever its rows are: keys of secure sums."""
ASKED = f"{OF_RUN}asked"
"""Name of the round that was encrypted last, with the hash of its request."""


class RunState(ABC):
    """State of one site in one run, by name.

    Attributes
    ----------
    under : str
        What the site's own arrays depend on besides the run: seed, rows, policy and study. Those of others count as not
        there, so that nothing of rows that were taken out since goes into a later update.
    """

    under = ""

    @abstractmethod
    def read(self, name: str) -> Arrays | None:
        """Return the arrays of this name, None where there are none."""

    @abstractmethod
    def write(self, name: str, arrays: Arrays) -> None:
        """Keep arrays under a name, whole or not at all; raises StorageError."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove what has this name."""

    @abstractmethod
    def names(self) -> Iterable[str]:
        """Return the names of the stored entries."""

    def encoder(self, sha256: str) -> Arrays | None:
        """Return the encoder of a hash, None where another one or none is here."""
        arrays = self.read(ENCODER)
        if arrays is not None and arrays_sha256(arrays) == sha256:
            return arrays
        return None

    def before(self, round: int) -> Arrays:
        """Return the arrays that the site had after its last round before this one; none at first."""
        return self._last_of([number for number in self.rounds() if number < round])

    def last(self) -> Arrays:
        """Return the arrays that the site had after its last round of all.

        None before the first.
        """
        return self._last_of(self.rounds())

    def _last_of(self, rounds: list[int]) -> Arrays:
        arrays = self.read(_state_name(rounds[-1])) if rounds else None
        return arrays or {}

    def keep(self, round: int, arrays: Arrays) -> None:
        """Keep the arrays that the site has after a round, and those of the round before.

        Raises
        ------
        StorageError
            If they cannot be written, such as on a full disk.
        """
        self.write(_state_name(round), arrays)
        # A round below was asked anew, so what came after it counts no more.
        rounds = self.rounds()
        recent = [number for number in rounds if number <= round][-STORED_ROUNDS:]
        for number in set(rounds).difference(recent):
            self.remove(_state_name(number))

    def rounds(self) -> list[int]:
        """Return the rounds with arrays, in order."""
        return sorted(int(name.removeprefix(PREFIX)) for name in self.names() if name.startswith(PREFIX))


class StateFiles(RunState):
    """State of an institution in files that only the site can read, which go after the comparison.

    Parameters
    ----------
    site, run : str
    """

    def __init__(self, site: str, run: str) -> None:
        self.folder = SiteFolder(site).states / run

    def _make_folder(self) -> None:
        """Make the run's folder, and remove those of the earliest runs; raises OSError."""
        folder = self.folder
        if folder.is_dir():
            return
        private_folder(folder.parent)
        private_folder(folder)
        forget_stopped(folder.parent)
        others = _last_written(path for path in folder.parent.iterdir() if path != folder)
        for other in others[RUNS - 1 :]:
            _remove(other)

    def forget(self) -> None:
        """Remove the state of a finished run."""
        _remove(self.folder)

    def read(self, name: str) -> Arrays | None:
        """Return a file's arrays; a damaged file counts as none."""
        path = self._path(name)
        if not path.is_file():
            return None
        with suppress(OSError, SafetensorError, ValueError):
            arrays, metadata = read_file(path)
            if metadata.get("sha256") == self._sha256(name, arrays):
                return arrays
        LOG.warning("%s is damaged, or of other rows or another policy, and counts as not there", path.name)
        return None

    def write(self, name: str, arrays: Arrays) -> None:
        """Write a file that only its owner may read."""
        content = file_content(arrays, {"sha256": self._sha256(name, arrays)})
        try:
            self._make_folder()
            replace_whole(self._path(name), content)
        except OSError as error:
            raise StorageError(Refusal("state-not-kept", error=error.strerror)) from None

    def _sha256(self, name: str, arrays: Arrays) -> str:
        """Return a file's hash.

        Encoder and keys are the run's, whatever the site's rows are.
        """
        if name == ENCODER or name.startswith(OF_RUN):
            return arrays_sha256(arrays)
        return facts_sha256(arrays, self.under)

    def remove(self, name: str) -> None:
        """Remove a file."""
        self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"

    def names(self) -> Iterable[str]:
        """Return the names of the files."""
        return [path.stem for path in self.folder.glob("*.safetensors")]


class NodeState(RunState):
    """State in a node's `Context.state`.

    Parameters
    ----------
    record : RecordDict
        Flower keeps it from message to message.
    """

    def __init__(self, record: RecordDict) -> None:
        self._record = record

    def read(self, name: str) -> Arrays | None:
        """Return one section's arrays."""
        return ndarrays(self._record, name) if name in self._record else None

    def write(self, name: str, arrays: Arrays) -> None:
        """Keep arrays as a section."""
        self._record[name] = array_record(arrays)

    def remove(self, name: str) -> None:
        """Remove a section."""
        del self._record[name]

    def names(self) -> Iterable[str]:
        """Return the names of the sections."""
        return list(self._record)


def run_state(site: str, context: Context) -> RunState:
    """Return a site's state of the run that a message belongs to."""
    run = context.run_config.get("run")
    is_plain = isinstance(run, str) and RUN.fullmatch(run)
    return StateFiles(site, str(run)) if is_plain else NodeState(context.state)


def whole_message(message: Message, state: RunState) -> Message:
    """Return a message as if its encoder had crossed whole.

    It stays as it is where it names no encoder by its hash alone, or where that is not here.
    """
    if not message.has_content() or message.metadata.message_type not in BRINGING:
        return message
    named = lacks_encoder(message.content)
    encoder = state.encoder(named) if named else None
    if encoder is None:
        return message
    whole = copy.copy(message)
    whole.content = with_encoder(message.content, encoder)
    return whole


def encoder_refusal(message: Message) -> Refusal | None:
    """Return why a request cannot be read that names an encoder which is not here, or None."""
    if message.metadata.message_type in BRINGING and lacks_encoder(message.content):
        return ENCODER_MISSING
    return None


def keep_encoder(message: Message, state: RunState) -> None:
    """Keep the encoder that came with a request; raises StorageError."""
    named, encoder = named_encoder(message.content)
    if named and state.encoder(named) is None:
        state.write(ENCODER, encoder)


def part_arrays(features: list[str], model: Arrays, encoder: Encoder) -> Arrays:
    """Return a party's part of a model as arrays, with the names of its columns."""
    return (
        {"features": byte_array(json.dumps(features).encode())}
        | with_prefix(_MODEL, model)
        | with_prefix(_ENCODER, encoder.arrays())
    )


def read_part(arrays: Arrays) -> tuple[list[str], Arrays, Encoder]:
    """Return what `part_arrays` was given."""
    features = json.loads(arrays["features"].tobytes())
    return features, without_prefix(_MODEL, arrays), Encoder(**without_prefix(_ENCODER, arrays))


def _state_name(round: int) -> str:
    return f"{PREFIX}{round:06d}"


FACTS = ("study", "of", "sha256")
"""Facts of a file beside its arrays: the study's text, the hash of the opened sum, and that of the arrays."""
_MODEL = "model/"
_ENCODER = "encoder/"
_OWN = "own/"


@dataclass(frozen=True, kw_only=True, eq=False)
class SiteModel:
    """The last model of a run at a site.

    Attributes
    ----------
    study : str
        The study's text.
    of : str
        Hash of what came: of the model, or of the last total.
    arrays : dict of name to array
        Of the shared model.
    encoder : Encoder
    own : dict of name to array
        The site's own part of the model, or its own model beside the shared one.
    """

    study: str
    of: str
    arrays: Arrays
    encoder: Encoder
    own: Arrays

    def write(self, site: str, run: str, repeat: int) -> None:
        """Write it whole or not at all, for its owner alone.

        Raises StorageError.
        """
        parts = with_prefix(_MODEL, self.arrays) | with_prefix(_ENCODER, self.encoder.arrays())
        parts |= with_prefix(_OWN, self.own)
        facts = {"study": self.study, "of": self.of, "sha256": arrays_sha256(parts)}
        path = path_of(site, run, repeat)
        try:
            private_folder(path.parent)
            replace_whole(path, file_content(parts, facts))
        except OSError as error:
            raise StorageError(Refusal("state-not-kept", error=error.strerror)) from None


def path_of(site: str, run: str, repeat: int) -> Path:
    """Return the file of a run's last model.

    Raises ValueError for a run without a plain name.
    """
    if not RUN.fullmatch(run):
        raise ValueError("a run's name is a plain word")
    return SiteFolder(site).models / f"{run}-{repeat}.safetensors"


def site_model(site: str, run: str, repeat: int) -> SiteModel | None:
    """Return the last model of a run at a site, None where it is not here or damaged."""
    with suppress(OSError, SafetensorError, ValueError):
        arrays, facts = read_file(path_of(site, run, repeat))
        if set(facts) == set(FACTS) and facts["sha256"] == arrays_sha256(arrays):
            return SiteModel(
                study=facts["study"],
                of=facts["of"],
                arrays=without_prefix(_MODEL, arrays),
                encoder=Encoder(**without_prefix(_ENCODER, arrays)),
                own=without_prefix(_OWN, arrays),
            )
    return None
