"""Order of the masked questions of a run."""

from __future__ import annotations

from dataclasses import dataclass

from flfed.study.exchanges import exchange_number, exchanges_of, grows, round_and_level
from flfed.study.study import Study
from flfed.updates.checkpoints.run_state import OF_RUN
from flfed.updates.masking.keys import KEPT
from flfed.updates.messages.kinds import BINS, COMPARE, EVALUATE, TRAIN
from flfed.updates.messages.train import TrainRequest

FACTS = f"{OF_RUN}of-"
"""Before kind and round, of the facts of a masked answer, in a site's state of a run."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A question whose answer is masked, and where it stands in its run.

    Attributes
    ----------
    kind : str
    number : int
        Of its round; where trees grow, of the exchange.
    step : int
        Its number among the masked questions of the run.
    question : str
        Hash of the question by which its lists are kept, as hex.
    rounding : str
        Hash of what its rounding follows from.
    binding : bytes, 32
    """

    kind: str
    number: int
    step: int
    question: str
    rounding: str
    binding: bytes

    @property
    def name(self) -> str:
        """Its name in a site's state."""
        return sum_name(self.kind, self.number)


@dataclass(frozen=True)
class QuestionOrder:
    """Order of the masked questions of a run, by which the links between its sites move.

    Sums over training rows come first, then rows by cell where trees grow, the rounds, the losses of the last model,
    and the comparison.

    Attributes
    ----------
    rounds : int
    exchanges : int
        Of a round: one, or one a level of a tree.
    cells : {0, 1}
        Questions between the sums over training rows and the first round.
    """

    rounds: int
    exchanges: int = 1
    cells: int = 0

    @property
    def asked_again(self) -> int:
        """Questions that may be asked again, the newest counted: a run that was killed begins its round anew."""
        return max(KEPT, self.exchanges + 1)

    def number(self, request: TrainRequest) -> int:
        """Return the number of a question of a round, that of the round unless trees grow."""
        level = int(request.settings.get("level", 0)) if self.cells else 0
        return exchange_number(request.round, level, self.exchanges)

    @property
    def last(self) -> int:
        """The largest number of a question: after the last round its model is scored."""
        return self.rounds * self.exchanges + 1

    def place(self, number: int) -> tuple[int, int]:
        """Return round and level of a question by its number; 0 is of what is asked once."""
        return round_and_level(number, self.exchanges) if number else (0, 0)

    def step(self, kind: str, number: int) -> int:
        """Return a question's place among all masked ones of the run, from 0.

        Examples
        --------
        >>> trees = QuestionOrder(rounds=10, exchanges=4, cells=1)
        >>> [trees.step(kind, 1) for kind in ("query.summarise", "query.bins", "train", "query.compare")]
        [0, 1, 2, 43]
        """
        if kind in (TRAIN, EVALUATE):
            return self.cells + number
        if kind == COMPARE:
            return self.cells + self.last + 1
        return self.cells if kind == BINS else 0


def order_of(study: Study) -> QuestionOrder:
    """Return the order of a study's masked questions."""
    if not grows(study):
        return QuestionOrder(study.rounds)
    return QuestionOrder(study.rounds, exchanges_of(study), cells=1)


def sum_name(kind: str, number: int) -> str:
    """Return the name of a masked answer's facts in a site's state."""
    return f"{FACTS}{kind}-{number:06d}"
