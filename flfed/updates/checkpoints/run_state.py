"""A site's state of a run: the encoder in force, and arrays of its own from round to round.

It is in no message. Institutions keep it in files beside their replies; elsewhere it is in Flower's `Context.state`,
since a site's next message may reach another process, and in the checkpoints of a run in one process.

The last model of a run of which the coordinator lacks all or a part is kept at a site: where the coordinator has
ciphertexts only, and where a part of the model is the site's own. A site writes it down when it compares the run's
models, and forgets the key and its state of the run then: from there on nobody opens what the coordinator has, and a
comparison that is asked again is answered from here.
"""

from __future__ import annotations

import copy
import hashlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from flwr.app import Context, Message, RecordDict
from safetensors import SafetensorError

from flfed.folders import RUN
from flfed.paths import home, private_folder, replace_whole
from flfed.refusals import Refusal
from flfed.summaries.summary import Encoder, arrays_sha256
from flfed.updates.checkpoints.reply_cache import KeptReplies, NotKept, kept_replies
from flfed.updates.checkpoints.tensor_file import file_content, read_file
from flfed.updates.messages.fields import Arrays, ndarrays
from flfed.updates.messages.in_memory import array_record
from flfed.updates.messages.kinds import COMPARE, EVALUATE, TRAIN
from flfed.updates.messages.train import lacks_encoder, named_encoder, with_encoder

LOG = logging.getLogger("flfed.site")
KEPT = 2
"""Rounds whose state stays: a round that is asked again starts from the state before it."""
BRINGING = (TRAIN, EVALUATE, COMPARE)
"""Kinds of requests that bring a model and its encoder, or name the encoder by its hash."""
ENCODER = "encoder"
PREFIX = "state-"
OF_RUN = "sums-"
"""Before the names of what the site has for the run itself, whatever its rows are: keys of secure sums."""


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
        """Keep arrays under a name, whole or not at all; raises NotKept."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove what has this name."""

    @abstractmethod
    def names(self) -> Iterable[str]:
        """Return the names of what is there."""

    def encoder(self, sha256: str) -> Arrays | None:
        """Return the encoder of a hash, None where another one or none is here."""
        found = self.read(ENCODER)
        return found if found is not None and arrays_sha256(found) == sha256 else None

    def before(self, round: int) -> Arrays:
        """Return the arrays that the site had after its last round before this one; none at first."""
        earlier = [number for number in self.rounds() if number < round]
        return (self.read(_name(max(earlier))) or {}) if earlier else {}

    def last(self) -> Arrays:
        """Return the arrays that the site had after its last round of all; none before the first."""
        rounds = self.rounds()
        return (self.read(_name(rounds[-1])) or {}) if rounds else {}

    def keep(self, round: int, arrays: Arrays) -> None:
        """Keep the arrays that the site has after a round, and those of the round before.

        Raises
        ------
        NotKept
            If they cannot be written, such as on a full disk.
        """
        self.write(_name(round), arrays)
        # A round below was asked anew, so what came after it counts no more.
        rounds = self.rounds()
        for number in (*[one for one in rounds if one > round], *[one for one in rounds if one <= round][:-KEPT]):
            self.remove(_name(number))

    def rounds(self) -> list[int]:
        """Return the rounds with arrays, in order."""
        return sorted(int(name.removeprefix(PREFIX)) for name in self.names() if name.startswith(PREFIX))


class StateFiles(RunState):
    """State in files beside an institution's replies, which go with them after the comparison.

    Parameters
    ----------
    kept : KeptReplies
    """

    def __init__(self, kept: KeptReplies) -> None:
        self._kept = kept

    def read(self, name: str) -> Arrays | None:
        """Return a file's arrays; a damaged file counts as none."""
        path = self._kept.folder / f"{name}.safetensors"
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
        content = b"".join(file_content(arrays, {"sha256": self._sha256(name, arrays)}))
        try:
            self._kept.make_folder()
            replace_whole(self._kept.folder / f"{name}.safetensors", content)
        except OSError as error:
            raise NotKept(Refusal("state-not-kept", error=error.strerror)) from None

    def _sha256(self, name: str, arrays: Arrays) -> str:
        """Return a file's hash; encoder and keys are the run's, whatever the site's rows are."""
        own = arrays_sha256(arrays)
        return (
            own
            if name == ENCODER or name.startswith(OF_RUN)
            else hashlib.sha256(f"{own}/{self.under}".encode()).hexdigest()
        )

    def remove(self, name: str) -> None:
        """Remove a file."""
        (self._kept.folder / f"{name}.safetensors").unlink(missing_ok=True)

    def names(self) -> Iterable[str]:
        """Return the names of the files."""
        return [path.stem for path in self._kept.folder.glob("*.safetensors")]


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
    kept = kept_replies(site, context.run_config.get("run"))
    return NodeState(context.state) if kept is None else StateFiles(kept)


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
    found = copy.copy(message)
    found.content = with_encoder(message.content, encoder)
    return found


def keep_encoder(message: Message, state: RunState) -> None:
    """Keep the encoder that came with a request; raises NotKept."""
    named, encoder = named_encoder(message.content)
    if named and state.encoder(named) is None:
        state.write(ENCODER, encoder)


def _name(round: int) -> str:
    return f"{PREFIX}{round:06d}"


FACTS = ("study", "of", "sha256")
"""What a file says besides its arrays: the study's text, the hash of what was opened, and that of the arrays."""
_MODEL, _ENCODER, _OWN = "model/", "encoder/", "own/"


@dataclass(frozen=True, kw_only=True, eq=False)
class SiteModel:
    """The last model of a run at a site.

    Attributes
    ----------
    study : str
        The study's text.
    of : str
        Hash of what came: of the ciphertexts that it was opened from, where it was encrypted.
    arrays : dict of name to array
        Of the shared model.
    encoder : Encoder
    own : dict of name to array
        What is the site's own of the model, or its own model beside the shared one.
    """

    study: str
    of: str
    arrays: Arrays
    encoder: Encoder
    own: Arrays = field(default_factory=dict)

    def write(self, site: str, run: str, repeat: int) -> None:
        """Write it whole or not at all, for its owner alone; raises NotKept."""
        parts = {f"{_MODEL}{name}": value for name, value in self.arrays.items()}
        parts |= {f"{_ENCODER}{name}": value for name, value in self.encoder.arrays().items()}
        parts |= {f"{_OWN}{name}": value for name, value in self.own.items()}
        facts = {"study": self.study, "of": self.of, "sha256": arrays_sha256(parts)}
        path = path_of(site, run, repeat)
        try:
            private_folder(path.parent)
            replace_whole(path, b"".join(file_content(parts, facts)))
        except OSError as error:
            raise NotKept(Refusal("state-not-kept", error=error.strerror)) from None


def path_of(site: str, run: str, repeat: int) -> Path:
    """Return the file of a run's last model; raises ValueError for a run without a plain name."""
    if not RUN.fullmatch(run):
        raise ValueError("a run's name is a plain word")
    return home() / "sites" / site / "models" / f"{run}-{repeat}.safetensors"


def site_model(site: str, run: str, repeat: int) -> SiteModel | None:
    """Return the last model of a run at a site, None where it is not here or damaged."""
    with suppress(OSError, SafetensorError, ValueError):
        arrays, facts = read_file(path_of(site, run, repeat))
        if set(facts) == set(FACTS) and facts["sha256"] == arrays_sha256(arrays):
            encoder = Encoder(**_named(arrays, _ENCODER))
            shared, own = _named(arrays, _MODEL), _named(arrays, _OWN)
            return SiteModel(study=facts["study"], of=facts["of"], arrays=shared, encoder=encoder, own=own)
    return None


def _named(arrays: Arrays, prefix: str) -> Arrays:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
