"""Expected messages of secure sums, where a study was approved with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, RecordDict

from flfed.deployment.gate.message_sections import (
    HEAD,
    Columns,
    Field,
    Plain,
    Section,
    equal,
    names_defect,
    one_of,
    size_defect,
    text,
    whole,
)
from flfed.refusals import Refusal
from flfed.study.exchanges import grows
from flfed.study.statistic import is_statistic
from flfed.study.study import Study
from flfed.updates.aggregation.loss_sums import ENTRIES as LOSSES
from flfed.updates.codec import CIPHERTEXT
from flfed.updates.masking import ckks, keys, shares
from flfed.updates.masking.encrypted_model import vector_entries
from flfed.updates.masking.order import order_of
from flfed.updates.masking.protocol import SEALED
from flfed.updates.masking.rules import LEAST
from flfed.updates.masking.statement import LONGEST
from flfed.updates.messages.compare import COMPARE
from flfed.updates.messages.fields import PROTOCOL, ndarrays
from flfed.updates.messages.secure_sum import (
    KEYS,
    LIST,
    NAME,
    OPENED,
    SECTION,
    SHARED,
    SIGNED,
    UNMASK,
)
from flfed.updates.messages.summarise import BINS, STATISTIC, SUMMARISE
from flfed.updates.messages.train import EVALUATE, TRAIN

SUMS = (KEYS, LIST, UNMASK)
"""Kinds of messages of secure sums."""
HASH = r"[0-9a-f]{64}"
LISTS = 64
"""Lists of one question that a site names; consent alone makes several."""
LONGEST_NAME = 101


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A section of arrays, some with a row for each of several sites.

    Attributes
    ----------
    rows : mapping of name to (least, most, columns)
        Arrays of bytes: how many rows each has, and of how many bytes a row is.
    vectors : mapping of name to (length, dtype)
        Arrays of whole numbers of one dimension.
    shorter : bool
        Whether these may have fewer numbers.
    """

    rows: Mapping[str, tuple[int, int, int]]
    vectors: Mapping[str, tuple[int, np.dtype[Any]]] = field(default_factory=dict)
    needed: bool = True
    shorter: bool = False

    @property
    def most(self) -> int:
        """Most bytes that it may have."""
        return sum(len(name) + most for name, most in self._sizes().items())

    def _sizes(self) -> dict[str, int]:
        """Return the most bytes of each array."""
        rows = {name: HEAD + most * columns for name, (_, most, columns) in self.rows.items()}
        return rows | {name: HEAD + length * kind.itemsize for name, (length, kind) in self.vectors.items()}

    def defect(self, record: RecordDict, name: str) -> Refusal | None:
        """Return why the named section does not fit.

        None where it does. Nothing is decoded before its size is known to fit.
        """
        found = record[name]
        if type(found) is not ArrayRecord:
            return Refusal("other-kind")
        sizes = self._sizes()
        wrong = names_defect(found, sizes, "array") or size_defect(found, sizes)
        if wrong:
            return wrong
        arrays = ndarrays(record, name)
        for key, (length, kind) in self.vectors.items():
            shape = arrays[key].shape
            if shape != (length,) and not (self.shorter and len(shape) == 1 and shape[0] <= length):
                return Refusal("other-shape", key=key, shape=(length,))
            if arrays[key].dtype != kind:
                return Refusal("other-dtype", key=key, dtype=kind)
        for key, (least, most, columns) in self.rows.items():
            value = arrays[key]
            if value.dtype != np.uint8:
                return Refusal("other-dtype", key=key, dtype=np.dtype(np.uint8))
            # Nothing is missing where a whole cohort answered: such an array has no rows, and no columns.
            whole = value.ndim == 2 and least <= len(value) <= most and (value.shape[1] == columns or not len(value))
            if not whole:
                return Refusal("other-shape", key=key, shape=(most, columns))
        return None


@dataclass(frozen=True, kw_only=True)
class Encrypted:
    """A section of a model that stands encrypted.

    Attributes
    ----------
    entries : int
        Of the model.
    plain : Section, optional
        What it may be in place of ciphertexts: the first model of a run follows from the study.
    """

    entries: int
    plain: Section | None = None
    needed: bool = True

    @property
    def most(self) -> int:
        """Most bytes that it may have."""
        encrypted = len(CIPHERTEXT) + HEAD + ckks.most_bytes(vector_entries(self.entries))
        return max(encrypted, 0 if self.plain is None else self.plain.most)

    def defect(self, record: RecordDict, name: str) -> Refusal | None:
        """Return why the named section does not fit.

        None where it does. Whether a ciphertext is one, nobody tells without the key's settings.
        """
        found = record[name]
        if type(found) is not ArrayRecord:
            return Refusal("other-kind")
        if set(found) != {CIPHERTEXT}:
            return Refusal("ciphertexts-unfit") if self.plain is None else self.plain.defect(record, name)
        if wrong := size_defect(found, {CIPHERTEXT: self.most}):
            return wrong
        chunks = ckks.unpacked(ndarrays(record, name)[CIPHERTEXT], vector_entries(self.entries))
        return Refusal("ciphertexts-unfit") if isinstance(chunks, Refusal) else None


def shared_key(receivers: int) -> Plain:
    """Return the section of a run's sealed key of homomorphic encryption, with its key for so many sites."""

    def fits(value: object) -> bool:
        return isinstance(value, list) and len(value) <= receivers and all(map(_is_sealed, value))

    longest = ckks.CONTEXT_BYTES
    sealed = Field(fits=lambda value: type(value) is bytes and len(value) <= longest, most=longest)
    return Plain(fields={"sealed": sealed, "keys": Field(fits=fits, most=receivers * SEALED)}, needed=False)


def _is_sealed(value: object) -> bool:
    return type(value) is bytes and len(value) == SEALED


def summed_in(kind: str, pinned: int, study: Study) -> dict[str, Section]:
    """Return what a request about a sum may hold.

    Parameters
    ----------
    kind : str
        One of `SUMS`.
    pinned : int
        Sites that the approval pins, this one counted.
    study : Study
    """
    if kind == KEYS:
        signed = Columns(fields={"statements": statement()}, longest=max(1, pinned))
        config = _config({"most-rows": whole(1), "cohort": _names(pinned)})
        return {"config": config, SIGNED: signed, **({SHARED: shared_key(1)} if _is_encrypted(study) else {})}
    summed = [SUMMARISE, TRAIN, EVALUATE, COMPARE]
    if is_statistic(study):
        summed = [STATISTIC]
    if grows(study):
        summed = [*summed, BINS]
    config = _config({"kind": one_of(summed), "round": whole(0, order_of(study).last), "listed": _names(pinned)})
    if kind == LIST:
        return {"config": config}
    rows = {"shares": (LEAST, pinned, SEALED), "codes": (LEAST, pinned, keys.BYTES)}
    return {"config": config, "sealed": Parts(rows=rows)}


def _is_encrypted(study: Study) -> bool:
    return study.secure_aggregation == "ckks"


def summed_out(kind: str, pinned: int, study: Study) -> dict[str, Section]:
    """Return what a reply about a sum may hold; parameters are those of `summed_in`."""
    if kind == KEYS:
        config = _config({"sha256": text(HASH, 64), "least": whole(LEAST, max(LEAST, pinned))})
        return {"config": config, **({SHARED: shared_key(pinned)} if _is_encrypted(study) else {})}
    if kind == LIST:
        return {"config": _config({}), "confirmed": Parts(rows={"codes": (LEAST, pinned, keys.BYTES)})}
    rows = {"shares": (LEAST, pinned, shares.BYTES), "seeds": (0, pinned, keys.BYTES)}
    return {"config": _config({}), "unmasked": Parts(rows=rows)}


def masked(entries: int, pinned: int) -> dict[str, Section]:
    """Return the sections of a masked update, in place of its arrays, with the site's weight and losses."""
    return _masked(pinned, vector=1 + entries, sums=2 + LOSSES)


def masked_losses(pinned: int) -> dict[str, Section]:
    """Return the sections of masked losses of a model that is only scored; a site whose run is over sends none."""
    return _masked(pinned, vector=0, sums=1 + LOSSES, needed=False)


def masked_summary(entries: int, pinned: int) -> dict[str, Section]:
    """Return the sections of masked sums over rows, in place of the sums."""
    return _masked(pinned, vector=0, sums=1 + entries)


def masked_figures(entries: int, pinned: int) -> dict[str, Section]:
    """Return the sections of masked figures, in place of the figures of a site that shares them in sums only."""
    return _masked(pinned, vector=0, sums=1 + entries, needed=False)


def masked_level(most: int, pinned: int) -> dict[str, Section]:
    """Return the sections of the masked sums of one level of a tree, of at most so many numbers, and of losses."""
    return _masked(pinned, vector=0, sums=1 + most + LOSSES, shorter=True)


def _masked(pinned: int, *, vector: int, sums: int, needed: bool = True, shorter: bool = False) -> dict[str, Section]:
    vectors: dict[str, tuple[int, np.dtype[Any]]] = {
        "vector": (vector, np.dtype(np.uint32)),
        "sums": (sums, np.dtype(np.uint64)),
    }
    # Of a level there are few: lists of one question lie within each other.
    lists = Columns(fields={"lists": _names(pinned)}, longest=min(pinned, LISTS) if shorter else LISTS)
    shares = {"shares": (LEAST, pinned, SEALED)}
    return {SECTION: Parts(rows=shares, vectors=vectors, needed=needed, shorter=shorter), OPENED: lists}


def statement() -> Field:
    """Return the field of a signed key."""
    return Field(fits=lambda value: type(value) is bytes and len(value) <= LONGEST, most=LONGEST)


def _names(pinned: int) -> Field:
    return text(rf"{NAME}(,{NAME})*", max(1, pinned) * LONGEST_NAME)


def _config(fields: Mapping[str, Field]) -> Plain:
    return Plain(fields={"protocol": equal(PROTOCOL), **fields})
