"""The border between a site and the coordinator, as a part of a study sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

import numpy as np

from flfed.study.study import Study
from flfed.summaries.score_bins import BINS
from flfed.summaries.summary import Layout
from flfed.updates.codec import Shapes
from flfed.updates.messages.fields import COUNTS
from flfed.updates.sections import ArrayField, ArraySection


class Border(Protocol):
    """What the messages of a study follow from at one site: plain values, no row and no connection."""

    @property
    def study(self) -> Study:
        """The study."""
        ...

    @property
    def task(self) -> str:
        """Of its dataset."""
        ...

    @property
    def outputs(self) -> int:
        """Numbers that the model predicts of a row."""
        ...

    @property
    def primary(self) -> str:
        """Name of the primary metric."""
        ...

    @property
    def model(self) -> Shapes:
        """Names, shapes and types of the model's arrays."""
        ...

    @property
    def layout(self) -> Layout:
        """Of the sums over rows."""
        ...

    @property
    def statistic(self) -> Shapes:
        """Names, shapes and types of the statistic's sums."""
        ...

    @property
    def statistic_type(self) -> type:
        """Class of the study's statistic, or of its analysis."""
        ...

    @property
    def noised_cells(self) -> Shapes:
        """The same of counts of rows by cell, where noise covers all that leaves."""
        ...

    @property
    def pinned(self) -> int:
        """Sites that the approval pins, this one counted, where its updates leave for sums only; else 0."""
        ...

    @property
    def keeps_figures(self) -> bool:
        """Whether the site's figures leave in sums only."""
        ...

    @property
    def round_figures(self) -> str:
        """How losses and scores of rounds may leave the site by themselves: "exact", "rounded" or "none"."""
        ...

    @property
    def has_histogram(self) -> bool:
        """Whether counts of rows by prediction may leave."""
        ...

    @property
    def may_audit(self) -> bool:
        """Whether the site's policy lets a run be audited."""
        ...

    @property
    def exchanges(self) -> Exchanges:
        """Kinds of messages of a run."""
        ...


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a reply was asked for.

    Attributes
    ----------
    kind : str
        Of the request.
    score : bool
        Whether scores, or figures of a comparison, were asked for, of a site that shares its own.
    offset : bool
        Whether the site's own intercept was asked for.
    masked_sums : bool
        Whether sums over rows leave masked, since another site of the run shares figures in sums only.
    """

    kind: str
    score: bool = True
    offset: bool = True
    masked_sums: bool = False


@dataclass(frozen=True, kw_only=True)
class Exchanges:
    """Kinds of messages of a run, each round asked once.

    Attributes
    ----------
    once : tuple of str
        Kinds that are asked once in a run, one that is asked twice standing twice.
    each_round : tuple of str
        Kinds that are asked in each round.
    sums, sums_a_round : int
        Sums over the sites' replies among them: once in a run, and in each round.
    """

    once: tuple[str, ...]
    each_round: tuple[str, ...] = ()
    sums: int = 0
    sums_a_round: int = 0


def histogram_section(border: Border, name: str) -> dict[str, ArraySection]:
    """Return the section of rows by class and prediction, none where it may not leave."""
    if border.task != "binary" or not border.has_histogram:
        return {}
    counts = ArrayField(shape=(2, BINS), dtype=np.dtype(np.uint32), dtypes=COUNTS)
    return {name: ArraySection(arrays={"counts": counts}, needed=False)}


@dataclass(frozen=True)
class Text:
    """A sentence for people, by its key in `flfed/words/approval.toml`, with the facts that stand in it.

    A fact is a number, a text of flfed, another `Text`, a class whose docstring says what it reveals, or `Foreign`.
    """

    key: str
    facts: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Foreign:
    """Words of a study's author, or a class of another package, which are shown as one safe line each."""

    of: tuple[str, ...] | type


class Place(IntEnum):
    """When something leaves a site; in this order it is told."""

    ENROLMENT = 0
    BEFORE_ROUNDS = 1
    ROUND = 2
    WITH_UPDATE = 3
    FIGURES = 4
    END = 5
    AUDIT = 6
    SEAL = 7


@dataclass(frozen=True, kw_only=True)
class Release:
    """Something that leaves a site, or stays there, as it is told before an approval.

    Attributes
    ----------
    place : Place
    text : Text
    kind : str
        Of the messages whose size stands in the text; "" where none does.
    """

    place: Place
    text: Text
    kind: str = ""


Releases = tuple[Release, ...]
"""All that leaves a site for a study."""
