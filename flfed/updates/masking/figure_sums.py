"""Figures of a comparison as numbers that can be added, and the meaning of their sum over several sites.

Of sites that share figures in sums only. Means over rows are added as sums over rows, counts by predicted
probability as they are. What compares rows across sites, or is no mean, cannot be added up.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from flfed.refusals import Refusal
from flfed.summaries.score_bins import BINS, auc_between
from flfed.summaries.summary import Encoder
from flfed.updates.messages.compare import CompareReply
from flfed.updates.ring import Ring, ring_of_counts

MEANS: Mapping[str, tuple[str, ...]] = {
    "binary": ("log_loss", "brier_score_loss", "accuracy_score"),
    "multi-class": ("log_loss", "accuracy_score"),
    "regression": ("mean_absolute_error", "root_mean_squared_error"),
}
"""By task the metrics that are means over rows; of the last one the square is."""
ARMS = ("global", "local-only", "personalised")
SQUARED = "root_mean_squared_error"
LARGEST: Mapping[str, float] = {"log_loss": 2.0**6, "mean_absolute_error": 2.0**6, SQUARED: 2.0**12}
"""Largest mean that is added up; of a regression in steps of the outcome's scale. Others are at most 1."""
ROOM = 16
"""Times the most training rows of any site that a site may have of rows to be compared on."""
Entropy = Callable[[int], bytes]
Name = tuple[Any, ...]


class Block(NamedTuple):
    """Numbers that a site gives together or not at all.

    `name` is of one part for rows and counts by prediction, else metric and arm. Each number is divided by `unit`
    before it is added up.
    """

    name: Name
    size: int = 1
    unit: float = 1.0


ROWS = Block(("rows",))
HISTOGRAM = Block(("score-histogram",), 2 * BINS)


@dataclass(frozen=True, kw_only=True)
class SummedFigures:
    """Figures over the rows of several sites together.

    Attributes
    ----------
    sites, rows : int
    means : dict of (metric, arm) to float
    histogram : float64 array [2, bins] or None
        Rows by class and predicted probability of the shared model.
    """

    sites: int
    rows: int
    means: dict[tuple[str, str], float]
    histogram: np.ndarray | None

    def as_record(self) -> dict[str, Any]:
        """Return the record of the figures over all aggregate-only sites.

        Returns
        -------
        dict
            `rows` (which), `sites` and `holdout-rows` (numbers), and `figures` (by metric and arm). The AUC comes from
            counts in bins; that of the rows lies within `auc-bounds`.
        """
        figures: dict[str, dict[str, float]] = {}
        for (metric, arm), value in self.means.items():
            figures.setdefault(metric, {})[arm] = value
        bounds = None
        if self.histogram is not None:
            area, low, high = auc_between(self.histogram)
            if low is not None:
                figures["roc_auc_score"] = {"global": area}
                bounds = [low, high]
        head = {"rows": "holdout", "sites": self.sites, "holdout-rows": self.rows}
        return {**head, "figures": figures, "auc-bounds": bounds}


@dataclass(frozen=True)
class FigureLayout:
    """Which figures of a comparison are added up, in their order.

    Attributes
    ----------
    task : {"binary", "multi-class", "regression"}
    scale : float, > 0
        Of the outcome of a regression, as the encoder has it.
    """

    task: str
    scale: float = 1.0

    @classmethod
    def of(cls, task: str, encoder: Encoder) -> FigureLayout:
        """Return the layout of a comparison whose rows are encoded so: the outcome is an encoder's last column."""
        return cls(task, float(encoder.scale[-1]))

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """Blocks in their order.

        Before the numbers of each stands how many sites gave them.
        """
        step = self.scale if self.task == "regression" else 1.0
        means = []
        for metric, arm in product(MEANS[self.task], ARMS):
            unit = step**2 if metric == SQUARED else step
            means.append(Block((metric, arm), unit=LARGEST.get(metric, 1.0) * unit))
        if self.task != "binary":
            return (ROWS, *means)
        return (ROWS, *means, HISTOGRAM)

    @property
    def entries(self) -> int:
        """Numbers of a site."""
        return sum(1 + block.size for block in self.blocks)

    def ring(self, sites: int, most_rows: int) -> Ring:
        """Return the ring of a sum over so many sites, none of which has a band of rows beyond `most_rows`."""
        return ring_of_counts(sites, ROOM * most_rows)

    def encode(
        self, reply: CompareReply, ring: Ring, rng: np.random.Generator, entropy: Entropy = secrets.token_bytes
    ) -> np.ndarray | Refusal:
        """Return a site's figures as numbers of the ring, or why there are none.

        A block that the site's policy suppresses has random numbers in it. Without them its sum would be of the other
        sites alone, perhaps of two.

        Parameters
        ----------
        reply : CompareReply
            With all figures that the site's policy lets leave in whatever way.
        ring : Ring
        rng : Generator
            By which numbers are rounded up or down.
        entropy : callable number → bytes
            The operating system's randomness; tests pass another.
        """
        parts = list[np.ndarray]()
        random = list[bool]()
        for block, values in zip(self.blocks, self._values(reply), strict=True):
            divided = values / block.unit
            fits = bool((np.abs(divided) <= ring.largest).all())
            numbers = divided if fits else np.zeros(block.size)
            parts += [np.array([float(fits)]), numbers]
            random += [False, *[not fits] * block.size]
        encoded = ring.encode(np.concatenate(parts), rng)
        if isinstance(encoded, Refusal):
            return encoded
        hidden = np.flatnonzero(random)
        encoded[hidden] = np.frombuffer(entropy(8 * len(hidden)), ring.dtype)
        return encoded

    def decode(self, total: np.ndarray, ring: Ring, sites: int) -> SummedFigures:
        """Return the figures of a sum over so many sites.

        There are none of a block that one of them suppressed.
        """
        values = ring.decode(total)
        place = 0
        numbers_by_block = dict[Name, np.ndarray]()
        for block in self.blocks:
            count = values[place]
            numbers = values[place + 1 : place + 1 + block.size] * block.unit
            place += 1 + block.size
            if count == sites:
                numbers_by_block[block.name] = numbers
        rows = float(numbers_by_block[ROWS.name][0]) if ROWS.name in numbers_by_block else 0.0
        histogram = numbers_by_block.get(HISTOGRAM.name)
        if histogram is not None:
            histogram = histogram.reshape(2, BINS)
        return SummedFigures(
            sites=sites,
            rows=round(rows),
            means=dict(self._means(numbers_by_block, rows)),
            histogram=histogram,
        )

    def _values(self, reply: CompareReply) -> Iterator[np.ndarray]:
        """Yield the numbers of each block.

        NaN where the site keeps them back.
        """
        rows = float(reply.holdout_rows)
        value_by_name: dict[Name, float] = {(one.metric, one.arm): one.value for one in reply.arms}
        for block in self.blocks:
            if block == ROWS:
                yield np.array([rows])
            elif block == HISTOGRAM:
                counted = reply.histogram
                yield np.full(block.size, math.nan) if counted is None else np.ravel(counted).astype(float)
            else:
                value = value_by_name.get(block.name, math.nan)
                entry = value**2 if block.name[0] == SQUARED else value
                yield np.array([rows * entry])

    def _means(
        self, numbers_by_block: Mapping[Name, np.ndarray], rows: float
    ) -> Iterator[tuple[tuple[str, str], float]]:
        for metric in MEANS[self.task]:
            for arm in ARMS:
                if (metric, arm) in numbers_by_block and rows > 0:
                    mean = float(numbers_by_block[metric, arm][0]) / rows
                    value = math.sqrt(max(mean, 0.0)) if metric == SQUARED else mean
                    yield (metric, arm), value
