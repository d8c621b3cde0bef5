"""What a part of a study is: a feature that a study may have, and what it does not go with.

`Border` is what lies between a site and the coordinator, as a part sees it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from typing import Any, ClassVar, Protocol

import numpy as np

from flfed.errors import UsageError
from flfed.study.study import Study
from flfed.summaries.score_bins import BINS
from flfed.summaries.summary import Layout
from flfed.updates.arrays import Shapes, entries_of
from flfed.updates.extra import ExtraShapes, extra_shapes
from flfed.updates.mechanism import Mechanism, acting_mechanism
from flfed.updates.messages.fields import COUNTS
from flfed.updates.sections import ArrayField, ArraySection, Sections
from flfed.updates.strategies.fedavg import FedAvg, needs_updates
from flfed.words import counted, render


@dataclass(frozen=True, kw_only=True, eq=False)
class StudyFacts:
    """Facts of a study before a table is read.

    Attributes
    ----------
    study : Study
    task : str
        Of its dataset.
    model : Model
        As the study builds it.
    layers : int
        How many layers the model names; 0 where it names none.
    shapes : mapping of name to (shape, dtype)
        Of the model's arrays.
    """

    study: Study
    task: str
    model: Any
    layers: int
    shapes: Shapes

    @cached_property
    def strategy(self) -> FedAvg:
        """The strategy."""
        strategy: FedAvg = self.study.strategy.build("strategy")
        return strategy

    @cached_property
    def mechanism(self) -> Mechanism:
        """The privacy mechanism, one that promises nothing where the study has none."""
        return acting_mechanism(self.study)

    @cached_property
    def extra(self) -> ExtraShapes:
        """The strategy's arrays beside the model."""
        return extra_shapes(self.study, self.shapes)

    @property
    def protects_rows(self) -> bool:
        """Whether noise protects rows while they are trained on."""
        return self.mechanism.protects_rows

    @property
    def packs(self) -> bool:
        """Whether updates are packed."""
        return self.study.codec.name != "none"

    @property
    def changes_updates(self) -> bool:
        """Whether the mechanism changes the sites' own updates at the server."""
        return type(self.mechanism).merged is not Mechanism.merged

    @property
    def adds_site_noise(self) -> bool:
        """Whether sites can add the mechanism's noise to their own updates."""
        return type(self.mechanism).site_noise is not Mechanism.site_noise

    @property
    def needs_updates(self) -> bool:
        """Whether the strategy looks at the sites' own updates."""
        return needs_updates(self.strategy)

    @property
    def words(self) -> Mapping[str, object]:
        """What stands in sentences."""
        partition = self.study.dataset.partition
        widths = list(partition.widths) if partition else []
        return {
            "task": repr(self.task),
            "model": self.study.model.name,
            "strategy": self.study.strategy.name,
            "mechanism": self.study.privacy.name,
            "frozen": self.study.frozen_layers,
            "layers": counted(self.layers, "layer"),
            "widths": widths,
            "entries": entries_of(self.shapes),
        }


@dataclass(frozen=True)
class Exclusion:
    """Something that a part does not go with.

    Attributes
    ----------
    key : str
        Of the sentence in `flfed/words/study.toml`, which says why and what to do.
    other : str
        The key of a study, or the feature, that is excluded.
    applies : callable (StudyFacts) → bool
        Whether a study that has the part has this, too.
    alone : bool
        Whether no further exclusion of the part is reported where this one applies.
    """

    key: str
    other: str
    applies: Callable[[StudyFacts], bool]
    alone: bool = False

    def sentence(self, words: Mapping[str, object]) -> str:
        """Return why a study is refused, given the words of the study."""
        return render(f"study.exclusions.{self.key}", other=self.other, **words)


_IS_SET: dict[str, Callable[[StudyFacts], bool]] = {
    "[privacy]: name": lambda facts: facts.study.privacy.name != "none",
    "[privacy]: secure-aggregation": lambda facts: facts.study.aggregation.sums_updates,
    "[plan]: validation": lambda facts: bool(facts.study.plan.validation),
    "[codec]": lambda facts: facts.packs,
    "[dataset]: partition": lambda facts: facts.study.dataset.partition is not None,
    "[split]": lambda facts: bool(facts.study.split.fixed),
    "[model]: warm-start": lambda facts: bool(facts.study.warm_start),
    "[model]: frozen-layers": lambda facts: facts.study.frozen_layers > 0,
    "[encode]: scaler": lambda facts: facts.study.encode.scaler != "global",
    "[encode]: rows": lambda facts: facts.study.encode.rows != "all",
    "[compare]: incumbent": lambda facts: facts.study.compare.incumbent is not None,
    "[compare]: pooled": lambda facts: facts.study.compare.pooled is not None,
    "[compare]: importance": lambda facts: bool(facts.study.compare.importance),
    "[compare]: false-positive-rates": lambda facts: bool(facts.study.compare.false_positive_rates),
}
"""Whether a study sets a key, by the key."""


def left_out(key: str, *others: str) -> tuple[Exclusion, ...]:
    """Return the exclusions of keys of a study, with one sentence for all of them."""
    return tuple(Exclusion(key, other, _IS_SET[other]) for other in others)


class Part(ABC):
    """A feature of a study.

    Attributes
    ----------
    title : str
        Its name in tables.
    exclusions : tuple of Exclusion
        What it does not go with.
    """

    title: ClassVar[str]
    exclusions: ClassVar[tuple[Exclusion, ...]] = ()

    @abstractmethod
    def is_in_study(self, facts: StudyFacts) -> bool:
        """Return whether a study has the part."""

    def request_sections(self, border: Border, kind: str, sections: Sections) -> Sections:
        """Return what a request of a kind may hold, given what it may hold without the part."""
        return sections

    def reply_sections(self, border: Border, wanted: Wanted, sections: Sections) -> Sections:
        """Return what a reply may hold, given what it may hold without the part."""
        return sections

    def exchanges(self, border: Border, without: Exchanges) -> Exchanges:
        """Return the kinds of messages of a run, given those without the part."""
        return without

    def releases(self, border: Border, without: Releases) -> Releases:
        """Return the outputs of a site, as an approval states them, given those without the part."""
        return without

    def guarantee(self, border: Border, without: str) -> str:
        """Return the key of the sentence on updates without noise, given that without the part."""
        return without

    def round_bytes(self, border: Border, sections: Sections, once: int) -> int:
        """Return the most bytes of training in a round, given those of one exchange and its sections."""
        return once

    def check(self, facts: StudyFacts) -> None:
        """Refuse a study with what the part does not go with.

        Raises
        ------
        UsageError
            For all such things.
        """
        if not self.is_in_study(facts):
            return
        refusals = []
        for exclusion in self.exclusions:
            if exclusion.applies(facts):
                refusals.append(exclusion.sentence(facts.words))
                if exclusion.alone:
                    break
        refuse_all(refusals)


ALSO = ". Also: "
"""Between two things that do not fit."""


def refuse_all(sentences: Sequence[str]) -> None:
    """Refuse a study for all that does not fit, each sentence once.

    Raises UsageError unless there is none.
    """
    if sentences:
        raise UsageError(ALSO.join(dict.fromkeys(sentences)))


def check_each(checks: Iterable[Callable[[], object]]) -> None:
    """Do all checks in their order.

    Raises UsageError with what each of them refuses.
    """
    refusals = []
    for check in checks:
        try:
            check()
        except UsageError as error:
            refusals.append(str(error))
    refuse_all(refusals)


class Border(Protocol):
    """What the messages of a study follow from at one site: plain values, no row and no connection."""

    @property
    def study(self) -> Study:
        """The study."""

    @property
    def task(self) -> str:
        """Of its dataset."""

    @property
    def outputs(self) -> int:
        """Numbers that the model predicts of a row."""

    @property
    def primary(self) -> str:
        """Name of the primary metric."""

    @property
    def model(self) -> Shapes:
        """Names, shapes and types of the model's arrays."""

    @property
    def layout(self) -> Layout:
        """Of the sums over rows."""

    @property
    def sums(self) -> Shapes:
        """Names, shapes and types of the sums over rows."""

    @property
    def statistic(self) -> Shapes:
        """Names, shapes and types of the statistic's sums."""

    @property
    def statistic_point(self) -> Shapes:
        """The same of the numbers at which a visit requests sums; none of a statistic with one visit."""

    @property
    def own_fit(self) -> Shapes:
        """The same of a fit to the site's rows alone; none where it does not leave."""

    @property
    def statistic_type(self) -> type:
        """Class of the study's statistic, or of its analysis."""

    @property
    def pinned(self) -> int:
        """Sites that the approval pins, this one counted, where its updates leave for sums only; else 0."""

    @property
    def sums_figures(self) -> bool:
        """Whether figures of the comparison leave in sums only."""

    @property
    def has_histogram(self) -> bool:
        """Whether counts of rows by prediction may leave."""

    @property
    def may_audit(self) -> bool:
        """Whether the site's policy lets a run be audited."""

    @property
    def peers(self) -> tuple[str, ...]:
        """Other sites that the study names."""

    @property
    def has_outcome(self) -> bool:
        """Whether the site's rows have the outcome."""

    @property
    def most_identifiers(self) -> int:
        """Most people of a table that the site aligns its own with."""

    @property
    def exchanges(self) -> Exchanges:
        """Kinds of messages of a run."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a reply was asked for.

    Attributes
    ----------
    kind : str
        Of the request.
    score : bool
        Whether scores, or figures of a comparison, were asked for.
    offset : bool
        Whether the site's own intercept was asked for.
    """

    kind: str
    score: bool = True
    offset: bool = True


@dataclass(frozen=True, kw_only=True)
class Exchanges:
    """Kinds of messages of a run, each round asked once.

    Attributes
    ----------
    once : tuple of str
        Kinds that are asked once in a run, one that is asked twice standing twice.
    each_round : tuple of str
        Kinds that are asked in each round.
    """

    once: tuple[str, ...]
    each_round: tuple[str, ...] = ()


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
    """When something leaves a site; in this order an approval states it."""

    ENROLMENT = 0
    BEFORE_ROUNDS = 1
    ROUND = 2
    WITH_UPDATE = 3
    FIGURES = 4
    END = 5
    AUDIT = 6


@dataclass(frozen=True)
class Release:
    """An output of a site, or something that stays there, as an approval states it.

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
