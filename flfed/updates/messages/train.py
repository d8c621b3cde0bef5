"""Messages of a round: the global model goes out, an update and scores come back.

The model's two sections, arrays and encoder, are written once and read once for all sites. A request always names the
encoder's hash, and a site that has the encoder is sent this alone. Counts of rows come back in small whole numbers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

from flfed.refusals import Refusal
from flfed.summaries.score_bins import RowScores
from flfed.summaries.summary import Encoder, Summary, arrays_sha256
from flfed.updates.arrays import CIPHERTEXT, Arrays
from flfed.updates.messages import fields, kinds
from flfed.updates.messages.in_memory import (
    InMemoryRecord,
    array_record,
    config_record,
    immutable,
    kebab_record,
    metric_record,
    record_of,
)
from flfed.updates.messages.kinds import PROTOCOL, TOTAL
from flfed.updates.messages.secure_sum import ENCRYPTED, Masked, read_encrypted

TRAIN = kinds.TRAIN
EVALUATE = kinds.EVALUATE
ENCODER_SHA256 = "encoder-sha256"
"""Key of the encoder's hash in a request."""
MOST_ATTEMPTS = 1000
"""Times that a tree may begin anew, whatever the sites; a run may at most as often as it has sites."""
EXTRA = "extra"
"""Section of the strategy's own arrays; there only where it has some."""
TREES_SHA256 = "trees-sha256"
"""Key of the hash of the trees before a round; there only where trees grow."""
LAST = "last"
TREE = "tree"
MARKS = "asked"
"""Arrays of a request of trees: of the round before, of this round so far, and which nodes' sums are wanted."""
SUMS = "sums"
"""Array of the reply: the sums of these nodes."""
ENCODER_MISSING = Refusal("encoder-missing")
TREES_MISSING = Refusal("trees-missing")
LOST = (ENCODER_MISSING, TREES_MISSING)
"""What a site says that has lost the encoder, or trees: it is asked again in the same round, and gets them whole."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainRequest:
    """Request to score the global arrays, train, or both.

    Attributes
    ----------
    arrays : dict of name to array
        The global model's, of names and shapes that follow from the study.
    encoder : Encoder
    round, rounds : int
        This round, from 1, and how many are planned.
    lr_scale : float
        What the server's plateau rule multiplies the learning rate by.
    fit, score : bool
        Whether the site is to train, and to score the model.
    offset : bool
        Whether the site's own offset is asked for; crosses only where it is.
    settings : dict of name to float
        The strategy's numbers for its client half.
    extra : dict of name to array
        The strategy's arrays for its client half, of names and shapes that follow from the study.
    by_hash : bool
        Whether the encoder crosses as its hash alone, since the site has it; and the trees before the round likewise.
    trees_sha256 : str
        Where trees grow, the hash of `arrays`: of those before the round. "" for other models.
    total : Masked or None
        In place of model, encoder and the strategy's numbers, under secure aggregation at institutions: the total of
        the step before, of which each site makes them itself.

    Reveals: nothing about rows; it goes to the site.
    """

    arrays: Arrays
    encoder: Encoder
    round: int
    rounds: int
    lr_scale: float = 1.0
    fit: bool = True
    score: bool = True
    offset: bool = False
    settings: Mapping[str, float] = field(default_factory=dict)
    extra: Arrays = field(default_factory=dict)
    by_hash: bool = False
    trees_sha256: str = ""
    total: Masked | None = None

    def to_record(self) -> RecordDict:
        """Return the message's content."""
        if self.total is not None:
            whole = {name: getattr(self, name) for name in ("round", "rounds", "fit", "score")}
            record = total_record(self.total, **whole)
            if self.settings:
                record["settings"] = kebab_record(**self.settings)
            return record
        plain = {name: getattr(self, name) for name in ("round", "rounds", "lr_scale", "fit", "score")}
        # Options that are off do not cross.
        options = {name: value for name in ("offset", "trees_sha256") if (value := getattr(self, name))}
        records = hashed_sections(self.arrays, self.encoder, by_hash=self.by_hash, **plain, **options)
        if self.trees_sha256 and self.by_hash:
            del records["arrays"]
        if self.settings:
            records["settings"] = kebab_record(**self.settings)
        if self.extra:
            records[EXTRA] = array_record(immutable(self.extra))
        return record_of(records)

    @classmethod
    def from_record(cls, record: RecordDict) -> TrainRequest:
        """Read the message's content."""
        if TOTAL in record:
            return fields.made(cls, {**read_total(record), "settings": fields.read_settings(record, "settings")})
        keywords = {**read_hashed(cls, record), "settings": fields.read_settings(record, "settings")}
        return fields.made(cls, {**keywords, "extra": fields.arrays_if_there(record, EXTRA)})


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores(RowScores):
    """Scores of the incoming global model at one site.

    Attributes
    ----------
    rows : str
        "training" or "validation".
    num_examples : int
        Rows scored.
    metrics, variances : dict of name to float
        Exact, or of three digits (see Reveals). A metric that is undefined at the site is left out.
    histogram : array [classes, bins] or None
        Rows by class and predicted probability; where policy allows.

    Reveals: averages over the rows scored. Under disclosure "institution", only averages over at least the cell minimum
    of them, of each class. No metric leaves from which a smaller count follows. Whoever chooses the model that is
    scored can make an average reveal the loss of one row. Where record-level differential privacy protects rows of an
    "institution", no figure over trained rows leaves, unless its policy names "training-figures". Averages over other
    rows then have three digits. That is enough for a coordinator that chooses the models to read outcomes of single
    rows one by one. Under secure aggregation no site sends any of these figures. The histogram leaves where the site's
    policy names it, and counts rows by class and predicted probability. With the model at hand, a cell of one row shows
    that row's predicted probability.
    """

    def into(self, records: dict[str, Any], prefix: str) -> None:
        """Add these scores to the records of a message."""
        records[prefix] = config_record({"rows": self.rows, "num-examples": self.num_examples})
        for name, values in (("metrics", self.metrics), ("variances", self.variances)):
            if values:
                records[f"{prefix}-{name}"] = metric_record({key: float(value) for key, value in values.items()})
        if self.histogram is not None:
            records[f"{prefix}-histogram"] = array_record({"counts": small(self.histogram)})

    @classmethod
    def out_of(cls, record: RecordDict, prefix: str) -> Scores | None:
        """Read a message's scores, None where it has none."""
        if prefix not in record:
            return None
        config = fields.section(record, prefix)
        return cls(
            rows=fields.text(config, "rows"),
            num_examples=fields.whole(config, "num-examples"),
            metrics=fields.numbers(record, f"{prefix}-metrics"),
            variances=fields.numbers(record, f"{prefix}-variances"),
            histogram=fields.read_histogram(record, f"{prefix}-histogram"),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainReply:
    """Update of a site, with the incoming model's scores.

    Attributes
    ----------
    delta : dict of name to array
        Local minus global, or empty when nothing was trained.
    kind : {"delta"}
        What the arrays are.
    num_examples : float
        Rows trained on; a whole number from an honest site.
    loss : float or None
        Mean training loss over the steps; None where it stays (see Reveals).
    steps : int
        Steps of the optimiser.
    scores : Scores or None
        On validation rows, or on training rows where the plan keeps none.
    offset : Offset or None
        Of the site's own intercept, after the last round, where it was asked for and may leave.
    masked : Masked or None
        The update in place of `delta`, which is empty then, where the study has secure sums.
    encrypted : uint8 array or None
        In place of `delta` under homomorphic encryption: ciphertexts of the weighted update. Weight and losses are
        masked.
    extra : dict of name to array
        What the strategy sends back beside the update, of names and shapes that follow from the study.

    Reveals: a function of the site's training rows as large as the model. Without further protection an update gives
    rows away: after one step on one row, exactly. A coordinator that chooses the models it sends, instead of averaging,
    computes all rows and outcomes from some hundred replies. It can, since the order of the batches is known.
    Disclosure "institution" does not change this: suppressed sums may be read off an update. The exact number of rows
    trained on crosses with it. Under secure aggregation the update is masked: see `Masked`.
    Under homomorphic encryption it is a ciphertext, which reveals nothing without the key that all sites of the run
    have. Whoever obtains the key from one of them reads the updates of all. The loss has no noise, even where the
    update has. An "institution" then withholds it, unless its policy names "training-figures"; it has three digits in
    that case. Arrays that a strategy sends back beside the update are a function of the training rows too. They cross
    unchanged: the strategy states what they reveal. Where trees grow there is no update. The reply has sums of
    gradients by node, column and code, exact. Those of the first tree reveal the outcome of a row alone in a cell, or
    among rows of one outcome. Whoever chooses splits freely reads all outcomes. Under secure aggregation these sums are
    masked too, and of all sites together.
    """

    delta: Arrays
    num_examples: float
    loss: float | None = None
    steps: int
    scores: Scores | None = None
    offset: Offset | None = None
    kind: str = "delta"
    masked: Masked | None = None
    encrypted: np.ndarray | None = None
    extra: Arrays = field(default_factory=dict)

    def to_record(self) -> RecordDict:
        """Return the message's content."""
        metrics = {"num-examples": self.num_examples, "steps": self.steps}
        # A loss that stays at the site is left out.
        if self.loss is not None:
            metrics["loss"] = float(self.loss)
        config = config_record({"protocol": PROTOCOL, "kind": self.kind})
        records: dict[str, Any] = {"metrics": metric_record(metrics), "config": config}
        if self.delta:
            records["arrays"] = array_record(self.delta)
        if self.scores is not None:
            self.scores.into(records, "scores")
        if self.offset is not None:
            self.offset.into(records)
        if self.masked is not None:
            self.masked.into(records)
        if self.encrypted is not None:
            records[ENCRYPTED] = array_record({CIPHERTEXT: self.encrypted})
        if self.extra:
            records[EXTRA] = array_record(self.extra)
        return record_of(records)

    @classmethod
    def from_record(cls, record: RecordDict) -> TrainReply:
        """Read the message's content."""
        # Values are taken as they came: the guard judges them.
        config = fields.config_of(record)
        values = fields.numbers(record, "metrics")
        # A value that is no number counts as missing; only a loss need not be there.
        if missing := {"num-examples", "steps", *record.get("metrics", ())} - values.keys():
            raise fields.MalformedMessage(Refusal("reply-incomplete", fields=", ".join(sorted(missing))))
        steps = int(values["steps"]) if math.isfinite(values["steps"]) else 0
        return cls(
            delta=fields.arrays_if_there(record, "arrays"),
            kind=fields.text(config, "kind"),
            num_examples=values["num-examples"],
            loss=values.get("loss"),
            steps=steps,
            scores=Scores.out_of(record, "scores"),
            offset=Offset.out_of(record),
            masked=Masked.out_of(record),
            encrypted=read_encrypted(record),
            extra=fields.arrays_if_there(record, EXTRA),
        )


Replies = Mapping[str, TrainReply]
"""Replies by site."""


def read_summary(record: RecordDict) -> Summary | None:
    """Read a message's sums over rows, None where it has none."""
    return fields.made(Summary, fields.ndarrays(record, "summary")) if "summary" in record else None


NO_ENCODER = Encoder(**dict.fromkeys(("center", "scale", "frequency", "spread", "class_weight"), np.zeros(0)))
"""Of a request that brings a total: the site makes the encoder itself."""


def total_record(total: Masked, **plain: Any) -> RecordDict:
    """Return the content of a request that brings the total of the step before, and plain values."""
    records: dict[str, Any] = {"config": kebab_record(protocol=PROTOCOL, **plain)}
    total.into(records, TOTAL)
    return record_of(records)


def read_total(record: RecordDict) -> dict[str, Any]:
    """Return a request's plain values and its total, without model and encoder."""
    return {**fields.config_of(record), "arrays": {}, "encoder": NO_ENCODER, "total": Masked.out_of(record, TOTAL)}


def request_sections(arrays: Arrays, encoder: Encoder, **plain: Any) -> dict[str, Any]:
    """Return the sections of a request that brings a model and plain values.

    Nobody can write into the model's arrays.
    """
    return {
        "arrays": array_record(immutable(arrays)),
        "encoder": encoder_record(encoder).copy(),
        "config": kebab_record(protocol=PROTOCOL, **plain),
    }


def hashed_sections(arrays: Arrays, encoder: Encoder, *, by_hash: bool, **plain: Any) -> dict[str, Any]:
    """Return the sections of a request that names the encoder's hash, and brings the encoder unless `by_hash`."""
    sections = request_sections(arrays, encoder, **plain, encoder_sha256=sha256_of(encoder))
    if by_hash:
        del sections["encoder"]
    return sections


@lru_cache(maxsize=64)
def encoder_record(encoder: Encoder) -> ArrayRecord:
    """Return an encoder's arrays, the same in every round."""
    return array_record(immutable(encoder.arrays()))


def read_request(record: RecordDict) -> dict[str, Any]:
    """Return a request's plain values and its model, or raise MalformedMessage."""
    plain = fields.config_of(record)
    named = "arrays" not in record and plain.get(TREES_SHA256)
    arrays = {} if named else fields.ndarrays(record, "arrays")
    if lacks_encoder(record):
        raise fields.MalformedMessage(ENCODER_MISSING)
    encoder = _encoder_of(Same(fields.ndarrays(record, "encoder")))
    return {**plain, "arrays": arrays, "encoder": encoder}


def read_hashed(kind: type[Any], record: RecordDict) -> dict[str, Any]:
    """Return what `read_request` does of a request that names its encoder's hash.

    Raises MalformedMessage.
    """
    content = read_request(record)
    named = content.pop(ENCODER_SHA256, None)
    if named is None:
        raise fields.MalformedMessage(Refusal("fields-missing", message=kind.__name__, fields="encoder_sha256"))
    if named != sha256_of(content["encoder"]):
        raise fields.MalformedMessage(Refusal("encoder-differs"))
    return content


def lacks_encoder(record: RecordDict) -> str:
    """Return the hash of the encoder that a request names without bringing it, "" where there is none."""
    config = record.get("config")
    named = config.get(ENCODER_SHA256) if isinstance(config, ConfigRecord) and "encoder" not in record else None
    return named if isinstance(named, str) else ""


def formless(record: RecordDict) -> RecordDict:
    """Return a request without its encoder's hash: a question has one hash, whichever way the encoder came."""
    config = {key: value for key, value in record["config"].items() if key != ENCODER_SHA256}
    # Trees before the round are named by their hash, whether they cross or not.
    parts = {name: part for name, part in record.items() if name != "arrays" or TREES_SHA256 not in config}
    return record_of({**parts, "config": config_record(config)})


def with_encoder(record: RecordDict, encoder: Arrays) -> RecordDict:
    """Return a request as if its encoder had crossed whole."""
    return record_of({**record, "encoder": array_record(encoder)})


def named_encoder(record: RecordDict) -> tuple[str, Arrays]:
    """Return the encoder that a request brought with its hash.

    "" and nothing where it brought none.
    """
    # What crossed within a process is not written out for it.
    if type(record) is InMemoryRecord and record.untouched():
        sent = record.message
        if isinstance(sent, TrainRequest) and not sent.by_hash and sent.total is None:
            return sha256_of(sent.encoder), fields.arrays_of(encoder_record(sent.encoder))
        return "", {}
    named = record["config"].get(ENCODER_SHA256)
    if isinstance(named, str) and "encoder" in record:
        return (named, fields.ndarrays(record, "encoder"))
    return ("", {})


@lru_cache(maxsize=64)
def sha256_of(encoder: Encoder) -> str:
    """Return an encoder's hash, computed once for all rounds."""
    return encoder.sha256()


def model_sha256(message: Message) -> str:
    """Return the hash of a request's model and encoder; raises `MalformedMessage` if an array cannot be read."""
    names = ("total",) if TOTAL in message.content else ("arrays", "encoder")
    both = [arrays_sha256(fields.ndarrays(message.content, name)) for name in names]
    return hashlib.sha256("/".join(both).encode()).hexdigest()


def small(counts: np.ndarray) -> np.ndarray:
    """Return counts of rows as whole numbers of 16 bits, or of 32 where there are more than 65,535 rows.

    Not of 8 bits where there are few rows: the size of a reply would reveal that.

    Examples
    --------
    >>> small(np.array([40.0, 59.0])).dtype, small(np.array([0.0, 70_000.0])).dtype
    (dtype('uint16'), dtype('uint32'))
    """
    many = counts.sum() > np.iinfo(np.uint16).max
    kind = np.uint32 if many else np.uint16
    return counts.astype(kind)


class Same:
    """Named arrays, compared by identity.

    They are equal only where every array is the very same object. They are kept, so no other has its id.
    """

    __slots__ = ("_ids", "arrays")

    def __init__(self, arrays: Arrays) -> None:
        self.arrays = arrays
        self._ids = (*arrays, *map(id, arrays.values()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self._ids == other._ids

    def __hash__(self) -> int:
        return hash(self._ids)


@lru_cache(maxsize=64)
def _encoder_of(same: Same) -> Encoder:
    """Return the encoder, one for all sites that hold the very same arrays."""
    return fields.made(Encoder, same.arrays)


OFFSET = "offset"


@dataclass(frozen=True, kw_only=True, eq=False)
class Offset:
    """Offset of a site's intercept from the shared model's.

    It follows from the site's training rows.

    Attributes
    ----------
    value : float64 array [outputs]
        What, added to the outputs of the last round's model, fits these rows best.
    error : float64 array [outputs], > 0
        Its standard error.

    Reveals: two numbers for each output of the model, each over all training rows. One is how far the site's own
    intercept lies from the shared model's, the other its standard error. With the model and the number of rows of each
    class, either is one equation about the site's rows. Under disclosure "institution" they leave only where each class
    has at least the cell minimum of training rows. They never leave where a study protects rows or sites by a
    mechanism, nor of a model that is not linear. The coordinator computes from the offsets of three or more sites how
    far sites differ, and sends that number to the sites. All of these sites but one could together compute the offset
    of the last one.
    """

    value: np.ndarray
    error: np.ndarray

    def into(self, records: dict[str, Any]) -> None:
        """Add these numbers to the records of a message."""
        records[OFFSET] = array_record({"value": self.value, "error": self.error})

    @classmethod
    def out_of(cls, record: RecordDict) -> Offset | None:
        """Read the offset of a message, or None.

        The guard judges it.
        """
        if OFFSET not in record:
            return None
        return fields.made(cls, fields.ndarrays(record, OFFSET))

    def defect(self, outputs: int) -> Refusal | None:
        """Return why an offset cannot be used, else None.

        Parameters
        ----------
        outputs : int
            Of the model.
        """
        if self.value.shape != (outputs,) or self.error.shape != (outputs,):
            return Refusal("offset-outputs", outputs=outputs)
        # One bad offset would spoil the estimate over all sites.
        if not (np.isfinite(self.value).all() and np.isfinite(self.error).all() and (self.error > 0).all()):
            return Refusal("offset-infinite")
        return None
