"""Requests to a site: their archive, and the models that they brought.

They are stored at its gate by run and round, so that `flfed site replay` can answer them again. A run's compared model
is the evaluated one, or one that it was trained from.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Set
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from safetensors import SafetensorError

import flfed
from flfed.paths import RUN, Content, SiteFolder, replace_whole
from flfed.refusals import Refusal
from flfed.study.study import Study
from flfed.summaries.summary import Encoder, arrays_sha256
from flfed.updates.arrays import facts_sha256, file_content, read_file, with_prefix, without_prefix
from flfed.updates.checkpoints.site_state import StorageError
from flfed.updates.messages import fields
from flfed.updates.messages.train import EXTRA, HASHES, TRAIN, TrainRequest, sha256_of

RUNS = 16
"""Runs whose messages are stored, the latest ones."""
BYTES_A_RUN = 256 * 2**20
"""Limit for one run; beyond it the earliest messages are removed."""
_METADATA = {"asked", "sha256", "version", "encoder-sha256"}
_PLAIN = ("round", "rounds", "lr_scale", "fit", "score")


@dataclass(frozen=True, eq=False)
class ArchivedRequest:
    """One archived request of a round.

    Attributes
    ----------
    request : TrainRequest
    study : str
        The study's text, as it came with the run.
    repeat : int
    version : str
        The version of flfed that answered.
    """

    request: TrainRequest
    study: str
    repeat: int
    version: str


def content_sha256(record: RecordDict) -> str:
    """Return the hash of a message's content.

    The ledger has it of each reply, and a replay must give it again.

    It covers sorted sections, each with its kind, its keys and its values; arrays by name, dtype, shape and
    little-endian bytes. The form of the message in bytes does not matter.

    Raises
    ------
    MalformedMessage
        If an array cannot be read.
    """
    digest = hashlib.sha256()
    for name in sorted(record):
        part = record[name]
        # Arrays are hashed by value, all else as JSON with sorted keys: the same content has one hash.
        if isinstance(part, ArrayRecord):
            kind = "arrays"
            content = arrays_sha256(fields.ndarrays(record, name))
        else:
            kind = "config" if isinstance(part, ConfigRecord) else "metrics"
            content = json.dumps(dict(part.items()), sort_keys=True, default=bytes.hex)
        digest.update(json.dumps([name, kind, content]).encode() + b"\n")
    return digest.hexdigest()


def keep(folder: SiteFolder, message: Message, context: Context) -> str:
    """Store a training request before it is answered.

    Return the hash of its content.

    Parameters
    ----------
    folder : SiteFolder
    message : Message
        One that has passed the gate's checks. Only train messages are stored.
    context : Context
        Its run config has the study's text, the repeat and the run's name.
    runs, bytes_a_run : int
        Limits: of the latest runs, and of each the latest messages, at least one.

    Returns
    -------
    sha256 : str
        Empty where nothing is stored: another kind of message, or a run without a name. The same message again is the
        same file.

    Raises
    ------
    StorageError
        If it cannot be written, such as on a full disk, and then nothing of it remains. Or if this round of the run
        was to be trained from another model: each further one would reveal more of the rows. `run_limits` checks the
        same, by the ledger, for requests that are no longer stored.
    MalformedMessage
        If the message is no train request.

    Notes
    -----
    Only their owner may read the files: a message holds nothing of a row, but the shared model is not for everyone.
    """
    run = context.run_config.get("run")
    if message.metadata.message_type != TRAIN or not isinstance(run, str) or not RUN.fullmatch(run):
        return ""
    request = TrainRequest.from_record(message.content)
    digest, whole = _as_file(request, str(context.run_config["study"]), int(context.run_config.get("repeat", 0)))
    name = f"round-{request.round:06d}"
    if request.trees_sha256:  # each level of a tree is its own question, and no replay has the earlier trees
        level, attempt = (int(request.settings.get(key, 0)) for key in ("level", "attempt"))
        name = f"tree-{request.round:06d}-{level}-{attempt}"
    path = folder.incoming / run / f"{name}-{digest[:16]}.safetensors"
    try:
        # A new run makes room: only the folders of the latest runs stay.
        if not path.parent.is_dir():
            folder.incoming.mkdir(parents=True, mode=0o700, exist_ok=True)
            path.parent.mkdir(mode=0o700, exist_ok=True)
            for old in sorted(folder.incoming.iterdir(), key=_written, reverse=True)[RUNS:]:
                shutil.rmtree(old, ignore_errors=True)
        if not path.is_file():
            # Another model in the same round is refused; a message that trains nothing chooses none. Another process
            # may have stored this same message since.
            others = set(path.parent.glob(f"{name}-*.safetensors")) - {path}
            if request.fit and others:
                raise StorageError(Refusal("other-model-in-round", question="train from", round=request.round))
            replace_whole(path, whole)
        _bound(path)
    except OSError as error:
        raise StorageError(Refusal("request-not-kept", error=error.strerror)) from None
    return digest


def read_requests(folder: SiteFolder, run: str, round: int) -> list[ArchivedRequest]:
    """Return the archived requests of a round.

    The first request comes first. A damaged file counts as none.
    """
    # The name becomes a path, so it must be one that the gate itself accepts.
    if not RUN.fullmatch(run):
        return []
    paths = sorted((folder.incoming / run).glob(f"round-{round:06d}-*.safetensors"), key=_written)
    return [request for path in paths if (request := _from_file(path)) is not None]


def list_rounds(folder: SiteFolder, run: str) -> list[int]:
    """Return the rounds of a run with archived requests.

    They are in ascending order.
    """
    paths = (folder.incoming / run).glob("round-*-*.safetensors") if RUN.fullmatch(run) else ()
    return sorted({int(path.name.removeprefix("round-").rpartition("-")[0]) for path in paths})


def _as_file(request: TrainRequest, study: str, repeat: int) -> tuple[str, Content]:
    """Return a request's hash, and the pieces of its safetensors file."""
    model = {} if request.trees_sha256 else request.arrays  # trees are named by their hash
    arrays = with_prefix("arrays/", model) | with_prefix("encoder/", request.encoder.arrays())
    arrays |= with_prefix(f"{EXTRA}/", request.extra)
    plain = {name: getattr(request, name) for name in _PLAIN} | {"settings": dict(request.settings)}
    plain |= {name: getattr(request, name) for name in HASHES if getattr(request, name)}
    # The version is beside the hash and not in it: the same request has the same hash under any version.
    facts = {"request": plain, "study": study, "repeat": repeat}
    digest = facts_sha256(arrays, json.dumps(facts, sort_keys=True))
    metadata = {"asked": json.dumps(facts, sort_keys=True), "sha256": digest, "version": flfed.__version__}
    metadata |= {"encoder-sha256": sha256_of(request.encoder)}
    return digest, file_content(arrays, metadata)


def _from_file(path: Path) -> ArchivedRequest | None:
    """Return a file's request, or None where the file was changed."""
    try:
        arrays, metadata = read_file(path)
        # Only a file whose content still has its hash is answered again.
        if metadata["sha256"] != facts_sha256(arrays, metadata["asked"]) or metadata.keys() - _METADATA:
            return None
        facts = json.loads(metadata["asked"])
    except (OSError, SafetensorError, KeyError, ValueError):
        return None
    encoder = fields.made(Encoder, without_prefix("encoder/", arrays))
    if metadata.get("encoder-sha256") != sha256_of(encoder):
        return None
    model = without_prefix("arrays/", arrays)
    extra = without_prefix(f"{EXTRA}/", arrays)
    request = TrainRequest(arrays=model, encoder=encoder, extra=extra, **facts["request"])
    return ArchivedRequest(request, facts["study"], facts["repeat"], metadata.get("version", ""))


def _bound(newest: Path) -> None:
    """Remove a run's earliest requests beyond its limit.

    The limit is in bytes; the newest request stays.
    """
    sizes = {}
    for path in newest.parent.glob("*.safetensors"):
        with suppress(FileNotFoundError):  # another process of this site may have removed it
            sizes[path] = path.stat().st_size
    over = sum(sizes.values()) - BYTES_A_RUN
    sizes.pop(newest, None)
    for path in sorted(sizes, key=_written):
        if over <= 0:
            break
        path.unlink(missing_ok=True)
        over -= sizes[path]


def _written(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_mtime_ns
    return 0


FROM = "trained-from-sha256"
"""Key of a line: hash of the model that a round was trained from, empty where the model crossed in another form."""


def model_sha256(message: Message) -> str:
    """Return the hash of a request's model and encoder.

    Raises MalformedMessage if an array cannot be read.
    """
    both = [arrays_sha256(fields.ndarrays(message.content, name)) for name in ("arrays", "encoder")]
    return hashlib.sha256("/".join(both).encode()).hexdigest()


def trained_from(message: Message, study: Study) -> dict[str, str]:
    """Return the model's entry for the line of a round.

    It is empty for other messages.
    """
    if message.metadata.message_type != TRAIN:
        return {}
    # A packed, encrypted or hashed model has other bytes than at its comparison.
    as_it_is = study.download == "none" and not study.aggregation.is_encrypted and not study.grows_trees
    sha256 = model_sha256(message) if as_it_is else ""
    return {FROM: sha256}


def other_model_refusal(evaluated: Set[str], compared: Set[str], trained_from: Set[str]) -> Refusal | None:
    """Return why a run may not have these models, or None.

    They are hashes of evaluated and of compared models. A run gets figures of validation rows by the one and of test
    rows by the other. Both are of one model, or the compared one is that of an earlier round.
    """
    earlier_models = evaluated | trained_from
    # A model that crossed in another form cannot be identified, and a site may have missed the evaluation.
    if "" in earlier_models or not evaluated or compared <= earlier_models:
        return None
    return Refusal("other-model-compared")
