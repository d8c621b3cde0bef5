"""What an engine that holds every site's table adds to a run: reference figures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flfed.federation.client.client import ClientSide
from flfed.rows.comparison.pooled import Reference, reference, union_scores
from flfed.rows.session import Workplace
from flfed.rows.training.requests import Answer, drive
from flfed.summaries.summary import Encoder
from flfed.updates.messages.fields import Arrays


class HeldTables:
    """What an engine that holds every table adds to a run.

    Parameters
    ----------
    side : ClientSide
        Whose workplaces are open.
    key : (study text, repeat)
    answer : callable
        Answers what is asked, alone or together.
    """

    def __init__(self, side: ClientSide, key: tuple[str, int], answer: Answer) -> None:
        self._side, self._key, self._answer = side, key, answer

    def workplaces(self, sites: Sequence[str]) -> list[Workplace]:
        """Return the open workplaces of these sites, in the given order."""
        return [self._side.workplaces[(site, *self._key)] for site in sites]

    def reference(
        self, sites: list[str], arrays: Arrays, encoder: Encoder, deviation: float | None = None
    ) -> Reference:
        """Return the figures over all rows; `deviation` is that of the sites' own intercepts, as it was sent."""
        found: Reference = drive(reference(self.workplaces(sites), arrays, encoder, deviation), self._answer)
        return found

    def primary_moved(self, sites: list[str], arrays: Arrays, encoder: Encoder, other: Arrays, exact: Encoder) -> float:
        """Return the primary metric of `arrays` minus that of `other`, over the union of holdouts; or NaN."""
        workplaces = self.workplaces(sites)
        first = workplaces[0]
        y = np.concatenate([w.target(w.table.holdout("compare")) for w in workplaces])
        metric = first.metrics[first.primary]
        if metric.defined(y):
            return float("nan")
        used = metric.value(y, drive(union_scores(workplaces, arrays, encoder), self._answer))
        return float(used - metric.value(y, drive(union_scores(workplaces, other, exact), self._answer)))
