"""A site's one noised answer to a question.

It is charged before the noise is drawn, stored, and sent again unchanged.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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
from flfed.rows.statistics.noised_counts import STEP, GaussianQuery, cell_queries, training_cells
from flfed.rows.training.private_noise import NoiseSource, SystemNoise, UnitCounts
from flfed.seeds import generator
from flfed.study.study import Study
from flfed.summaries.private_scaling import HISTOGRAMS, VALUES, NoisedCells, noised_rows
from flfed.summaries.summary import Layout
from flfed.updates.accounting import Release
from flfed.updates.mechanism import acting_mechanism

FOLDER = "answers"
SALT = 16
HASH = 32
"""Bytes before an answer in its file: a salt, and with it the hash of the exact numbers."""
CELLS = "cells"
"""Question of the encoder's counts, in a file's name."""
FAR = 10.0
"""Deviations of the noise within which a noised number of rows lies: the chance of more is one in 10^23."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """Numbers of an answer that have noise together.

    Attributes
    ----------
    exact : float64 array, of any shape
        Never released.
    query : GaussianQuery
    release : Release
        Its cost.
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
        Hash of the coordinator's choice for it, such as a model; an empty text without a choice.
    parts : mapping of name to Part
    side : {"training", "holdout", "both"}
        Side of the counted rows.
    facts : mapping
        Further facts of the ledger's lines.
    """

    session: SiteSession
    question: str
    request: str = ""
    parts: Mapping[str, Part]
    side: Side = "both"
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def charge(self) -> RoundCharge | None:
        """Charge of an answer; None for research sites, which have no ledger."""
        return round_charge(self.session.protection)

    @property
    def purpose(self) -> str:
        """The question in a word of a file's name.

        One that depends on a request names it.
        """
        return f"{self.question}-{self.request}" if self.request else self.question

    def drawn(self) -> dict[str, np.ndarray]:
        """Return the noised numbers.

        Raises NotSpent where the site's account does not allow it.
        """
        charge = self.charge
        session = self.session
        # For a cut of one table the noise follows from the seed, as do its sites; else it is the system's.
        rng = generator(session.seed, site=session.site.name, purpose=self.purpose)
        chance = SystemNoise() if session.protection is None else session.protection.chance(rng)
        if charge is None:
            return self._noised(chance)
        path = answer_path(charge, session, self.purpose)
        # Of two requests at once the second gets the first one's answer.
        with self._file(path).locked():
            before = self.read_stored(path)
            if before is not None:
                return before
            releases = [part.release for part in self.parts.values()]
            charge.answer(releases, answer=self.question, request=self.request, side=self.side, **self.facts)
            numbers = self._noised(chance)
            self._file(path).write(numbers.values())
            return numbers

    def read_stored(self, path: Path) -> dict[str, np.ndarray] | None:
        """Return the answer in a file, or None.

        It is None where the file has none of these rows.
        """
        sizes = [part.exact.size for part in self.parts.values()]
        answer = self._file(path).read(sum(sizes))
        if answer is None:
            return None
        numbers = np.split(answer, np.cumsum(sizes)[:-1])
        return {
            name: own.reshape(part.exact.shape) for (name, part), own in zip(self.parts.items(), numbers, strict=True)
        }

    def _noised(self, chance: NoiseSource) -> dict[str, np.ndarray]:
        return {name: part.query.answer(part.exact, chance) for name, part in self.parts.items()}

    def _file(self, path: Path) -> AnswerFile:
        return AnswerFile(path, [part.exact for part in self.parts.values()])


def noised_holdout_counts(
    session: SiteSession, question: str, request: str, exact: np.ndarray, release: Release
) -> np.ndarray:
    """Return counts of test rows with noise.

    One person moves all of them together by at most 1. Raises NotSpent.
    """
    query = GaussianQuery(sensitivity=1.0, noise=release.noise, step=STEP)
    parts = {question: Part(exact=exact, query=query, release=release)}
    answer = NoisedAnswer(session=session, question=question, request=request, parts=parts, side="holdout")
    return answer.drawn()[question]


@dataclass(frozen=True, eq=False)
class AnswerFile:
    """A file with charged numbers, and a salted hash of their basis.

    They are valid for that basis alone.

    Attributes
    ----------
    path : Path
    basis : sequence of arrays
        The exact numbers behind them.
    """

    path: Path
    basis: Sequence[np.ndarray]

    @contextmanager
    def locked(self, name: str = ".lock") -> Iterator[None]:
        """Lock the file's folder while the block runs, by a file of a name."""
        private_folder(self.path.parent)
        with locked(self.path.parent, name):
            yield

    def read(self, entries: int) -> np.ndarray | None:
        """Return so many numbers, None where there are none of this basis."""
        try:
            content = read_private(self.path, rows=True)
        except FileNotFoundError:
            return None
        salt = content[:SALT]
        numbers = content[SALT + HASH :]
        matches = hmac.compare_digest(content[SALT : SALT + HASH], self._hash(salt)) and len(numbers) == 8 * entries
        return np.frombuffer(numbers, dtype="<f8").astype(np.float64) if matches else None

    def write(self, arrays: Iterable[np.ndarray]) -> None:
        """Write numbers in place of the earlier ones."""
        salt = secrets.token_bytes(SALT)
        write_whole(self.path, salt + self._hash(salt) + _bytes(arrays))

    def _hash(self, salt: bytes) -> bytes:
        return hmac.digest(salt, _bytes(self.basis), "sha256")


def answer_path(charge: RoundCharge, session: SiteSession, question: str) -> Path:
    """Return the file of an answer, beside the site's ledger.

    It is for a question of this exact text. A new snapshot has another file, whatever its rows: an answer that was
    repeated for unchanged rows would reveal that they are unchanged.
    """
    name = f"{session.study.sha256()}-{session.seed}-{question}"
    if isinstance(session.site, FrozenSite):
        name += f"-{hashlib.sha256(session.site.snapshot.at.encode()).hexdigest()[:16]}"
    return charge.spending.folder / FOLDER / name


def _bytes(arrays: Iterable[np.ndarray]) -> bytes:
    return b"".join(np.asarray(array).astype("<f8").tobytes() for array in arrays)


def releases_of(study: Study) -> dict[str, Release]:
    """Return the cost of a study's noised answers beside the updates, by name."""
    answers = acting_mechanism(study).answer_releases(study.plan, study.rounds)
    return {name: answer.release for name, answer in answers.items()}


def _queries(study: Study, layout: Layout) -> tuple[GaussianQuery, GaussianQuery]:
    releases = releases_of(study)
    return cell_queries(layout, (releases[HISTOGRAMS].noise, releases[VALUES].noise))


def noised_cells(session: SiteSession) -> dict[str, np.ndarray]:
    """Return the noised counts for the encoder.

    Raises NotSpent where the account does not allow them.
    """
    return _cells_answer(session).drawn()


def stored_cells(session: SiteSession) -> tuple[str, ...]:
    """Return the names of the encoder's stored counts.

    There are none unless they were drawn of these rows before.
    """
    charge = round_charge(session.protection)
    if charge is not None and session.study.covers_model:
        path = answer_path(charge, session, CELLS)
        # The rows are counted only where there is such a file, to check whether it is of them.
        if path.exists() and _cells_answer(session).read_stored(path) is not None:
            return HISTOGRAMS, VALUES
    return ()


def _cells_answer(session: SiteSession) -> NoisedAnswer:
    releases = releases_of(session.study)
    cells = training_cells(session, by_person=session.study.by_person)
    queries = _queries(session.study, session.layout)
    parts = {}
    for name, exact, query in zip((HISTOGRAMS, VALUES), cells, queries, strict=True):
        parts[name] = Part(exact=exact, query=query, release=releases[name])
    return NoisedAnswer(session=session, question=CELLS, parts=parts, side="training")


def cells_of(study: Study, layout: Layout, numbers: Mapping[str, np.ndarray]) -> NoisedCells:
    """Return one site's noised counts with the deviations of their noise."""
    of_numbers, of_values = _queries(study, layout)
    return NoisedCells(
        numbers=numbers[HISTOGRAMS],
        numbers_deviation=of_numbers.deviation,
        values=numbers[VALUES],
        values_deviation=of_values.deviation,
    )


def trained_units(session: SiteSession) -> UnitCounts:
    """Return how many rows, or persons, training divides by.

    The number has noise. The counts of the encoder show it; where no coordinator requested them, they are charged and
    drawn now.
    """
    rows, deviation = noised_rows(session.layout, cells_of(session.study, session.layout, noised_cells(session)))
    return UnitCounts(units=max(1.0, round(rows)), most=max(1, round(rows + FAR * deviation)))
