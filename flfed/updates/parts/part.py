"""What a part of a study is: a feature that a study may have, and what it does not go with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from flfed.errors import UsageError
from flfed.study.study import Study
from flfed.updates.codec import Shapes, entries_of
from flfed.updates.extra import ExtraShapes, extra_shapes
from flfed.updates.mechanism import Mechanism, mechanism_of
from flfed.updates.parts.border import Border, Exchanges, Releases, Wanted
from flfed.updates.sections import Sections
from flfed.updates.strategies.fedavg import FedAvg


@dataclass(frozen=True, kw_only=True, eq=False)
class StudyFacts:
    """What is known of a study before a table is read.

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
        found: FedAvg = self.study.strategy.build("strategy")
        return found

    @cached_property
    def mechanism(self) -> Mechanism | None:
        """The privacy mechanism, None where nothing is promised."""
        return mechanism_of(self.study)

    @cached_property
    def extra(self) -> ExtraShapes:
        """The strategy's arrays beside the model."""
        return extra_shapes(self.study, self.shapes)

    @property
    def protects_rows(self) -> bool:
        """Whether noise protects rows while they are trained on."""
        if self.mechanism is None:
            return False
        return type(self.mechanism).private_steps is not Mechanism.private_steps

    @property
    def words(self) -> Mapping[str, object]:
        """What stands in sentences."""
        partition = self.study.dataset.partition
        return {
            "task": repr(self.task),
            "model": self.study.model.name,
            "strategy": self.study.strategy.name,
            "mechanism": self.study.privacy.name,
            "frozen": self.study.frozen,
            "layers": self.layers or "none that it names",
            "widths": [] if partition is None else list(partition.widths),
            "entries": entries_of(self.shapes),
        }


@dataclass(frozen=True, kw_only=True)
class Exclusion:
    """Something that a part does not go with.

    Attributes
    ----------
    other : str
        What it is, by its key in a study.
    applies : callable (StudyFacts) → bool
        Whether a study that has the part has this, too.
    sentence : str
        Says so and what to do, with names in braces for what is the study's own.
    alone : bool
        Whether nothing further is told of the part where this applies.
    """

    other: str
    applies: Callable[[StudyFacts], bool]
    sentence: str
    alone: bool = False


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
    def is_asked(self, facts: StudyFacts) -> bool:
        """Tell whether a study has the part."""

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
        """Return what leaves a site, as a person is told before an approval, given what leaves without the part."""
        return without

    def guarantee(self, border: Border, without: str) -> str:
        """Return the key of what is said of updates without noise, given that without the part."""
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
        if not self.is_asked(facts):
            return
        found = []
        for exclusion in self.exclusions:
            if exclusion.applies(facts):
                found.append(exclusion.sentence.format(**facts.words))
                if exclusion.alone:
                    break
        refuse_all(found)


ALSO = ". Also: "
"""Between two things that do not fit."""


def refuse_all(sentences: Sequence[str]) -> None:
    """Refuse a study for all that does not fit, each sentence once; raises UsageError unless there is none."""
    if sentences:
        raise UsageError(ALSO.join(dict.fromkeys(sentences)))


def check_each(checks: Iterable[Callable[[], object]]) -> None:
    """Do all checks in their order; raises UsageError with what each of them refuses."""
    found = []
    for check in checks:
        try:
            check()
        except UsageError as error:
            found.append(str(error))
    refuse_all(found)
