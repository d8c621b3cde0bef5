"""A site's one noised answer to a question: charged before the noise is drawn, kept, and sent again as it was."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from flfed.federation.client.protection import RoundCharge, round_charge
from flfed.federation.client.released.accounts import Side
from flfed.files import locked, read_private, write_whole
from flfed.paths import private_folder
from flfed.rows.session import SiteSession
from flfed.rows.snapshots.snapshot import FrozenSite
from flfed.rows.statistics.noised_counts import STEP, GaussianQuery
from flfed.rows.training.private_noise import NoiseSource, SystemNoise
from flfed.seeds import generator
from flfed.updates.accounting import Release
from flfed.updates.arrays import Arrays, Shapes, flattened, unflattened

FOLDER = "answers"
SALT = 16
HASH = 32
"""Bytes before an answer in its file: a salt, and with it the hash of the exact numbers."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """Numbers of an answer that have noise together.

    Attributes
    ----------
    exact : float64 array, of any shape
        Which does not leave.
    query : GaussianQuery
    release : Release
        What it costs.
    """

    exact: np.ndarray
    query: GaussianQuery
    release: Release


@dataclass(frozen=True, kw_only=True, eq=False)
class NoisedAnswer:
    """A site's answer to a question of its study, before and after its noise.

    Attributes
    ----------
    session : SiteSession
    question : str
        Its name, in a word of a file's name.
    request : str
        Hash of what the coordinator chose for it, such as a model; an empty text where it chooses nothing.
    parts : mapping of name to Part
    side : {"training", "holdout", "both"}
        Whose rows are counted.
    facts : mapping
        What the ledger's lines say besides.
    """

    session: SiteSession
    question: str
    request: str = ""
    parts: Mapping[str, Part]
    side: Side = "both"
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def charge(self) -> RoundCharge | None:
        """Where an answer is charged; None of research sites, which have no ledger."""
        return round_charge(self.session.protection)

    @property
    def purpose(self) -> str:
        """What is asked, in a word of a file's name: one that depends on a request names it."""
        return f"{self.question}-{self.request}" if self.request else self.question

    def drawn(self) -> dict[str, np.ndarray]:
        """Return the noised numbers; raises NotSpent where the site's account does not allow it."""
        charge = self.charge
        session = self.session
        # Of a cut of one table the noise follows from the seed, as do its sites; else it is the system's.
        rng = generator(session.seed, site=session.site.name, purpose=self.purpose)
        chance = SystemNoise() if session.protection is None else session.protection.chance(rng)
        if charge is None:
            return self._noised(chance)
        path = kept_path(charge, session, self.purpose)
        private_folder(path.parent)
        # Of two that ask at once the second gets the first one's answer.
        with locked(path.parent):
            before = self.kept(path)
            if before is not None:
                return before
            releases = [part.release for part in self.parts.values()]
            charge.answer(releases, answer=self.question, request=self.request, side=self.side, **self.facts)
            found = self._noised(chance)
            self._file(path).write(b"".join(_bytes(found.values())))
            return found

    def kept(self, path: Path) -> dict[str, np.ndarray] | None:
        """Return the answer that a file has of these rows, None where there is none.

        Of other rows, or damaged, it is drawn, and charged, anew.
        """
        answer = self._file(path).read()
        sizes = [part.exact.size for part in self.parts.values()]
        if answer is None or len(answer) != 8 * sum(sizes):
            return None
        numbers = np.split(np.frombuffer(answer, dtype="<f8").astype(np.float64), np.cumsum(sizes)[:-1])
        shapes = [part.exact.shape for part in self.parts.values()]
        return {name: own.reshape(shape) for name, own, shape in zip(self.parts, numbers, shapes, strict=True)}

    def _noised(self, chance: NoiseSource) -> dict[str, np.ndarray]:
        return {name: part.query.answer(part.exact, chance) for name, part in self.parts.items()}

    def _file(self, path: Path) -> KeptFile:
        return KeptFile(path, b"".join(_bytes(part.exact for part in self.parts.values())))


def noised_holdout_counts(
    session: SiteSession, question: str, request: str, exact: np.ndarray, release: Release
) -> np.ndarray:
    """Return counts of test rows with noise, of which one person moves all together by at most 1; raises NotSpent."""
    query = GaussianQuery(sensitivity=1.0, noise=release.noise, step=STEP)
    parts = {question: Part(exact=exact, query=query, release=release)}
    answer = NoisedAnswer(session=session, question=question, request=request, parts=parts, side="holdout")
    return answer.drawn()[question]


@dataclass(frozen=True)
class KeptFile:
    """File of what left a site once, or was made once under noise, with a salted hash of what it follows from.

    Attributes
    ----------
    path : Path
    basis : bytes
        What it follows from but for the noise: of other rows it is not this file's.
    """

    path: Path
    basis: bytes

    def read(self) -> bytes | None:
        """Return what was kept, None where nothing of this basis was."""
        try:
            content = read_private(self.path, rows=True)
        except FileNotFoundError:
            return None
        salt = content[:SALT]
        of_basis = content[SALT : SALT + HASH]
        return content[SALT + HASH :] if hmac.compare_digest(of_basis, self._hash(salt)) else None

    def write(self, content: bytes) -> None:
        """Keep something of this basis."""
        salt = secrets.token_bytes(SALT)
        write_whole(self.path, salt + self._hash(salt) + content)

    def _hash(self, salt: bytes) -> bytes:
        return hmac.digest(salt, self.basis, "sha256")


@dataclass(frozen=True, kw_only=True, eq=False)
class KeptModel:
    """Place of a model that a site trained under noise for a question of its study, so that it is charged once.

    Attributes
    ----------
    file : KeptFile
    shapes : Shapes
        Of its arrays.
    """

    file: KeptFile
    shapes: Shapes

    def read(self) -> Arrays | None:
        """Return the model that was trained before, None where there is none of its basis."""
        entries = self.file.read()
        if entries is None:
            return None
        return unflattened(np.frombuffer(entries, dtype="<f8").astype(np.float64), self.shapes)

    def write(self, arrays: Arrays) -> None:
        """Keep a trained model."""
        self.file.write(_bytes([flattened(arrays)])[0])


def kept_path(charge: RoundCharge, session: SiteSession, question: str) -> Path:
    """Return the file of an answer to a question of this very text, beside the site's ledger.

    Of rows that were frozen anew it is another one, whatever they are: an answer that came again if they were as before
    would tell that they are.
    """
    name = f"{session.study.sha256()}-{session.seed}-{question}"
    if isinstance(session.site, FrozenSite):
        name += f"-{hashlib.sha256(session.site.snapshot.at.encode()).hexdigest()[:16]}"
    return charge.spending.folder / FOLDER / name


def _bytes(arrays: Any) -> Sequence[bytes]:
    return [np.asarray(array).astype("<f8").tobytes() for array in arrays]
