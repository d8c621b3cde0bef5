"""Figures of a comparison as numbers that can be added, and the meaning of their sum over all sites.

They are means over rows, as sums over rows, and counts by predicted probability. What compares rows across sites, or is
no mean, cannot be added up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from flfed.refusals import Refusal
from flfed.summaries.score_bins import auc_between
from flfed.summaries.summary import Encoder
from flfed.updates.masks.ring import Ring, ring_of_counts
from flfed.updates.messages.compare import CompareReply

ARMS = ("global", "local-only")
FIGURES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "binary": (
        *(("log_loss", arm) for arm in ARMS),
        *(("brier_score_loss", arm) for arm in ARMS),
        ("accuracy_score", "global"),
    ),
    "multi-class": (*(("log_loss", arm) for arm in ARMS), ("accuracy_score", "global")),
    "regression": (
        *(("mean_absolute_error", arm) for arm in ARMS),
        *(("root_mean_squared_error", arm) for arm in ARMS),
    ),
}
"""By task the means over rows that are added, each of a metric and an arm; an institution has one accuracy."""
SQUARED = "root_mean_squared_error"
"""The metric whose square is a mean."""
LARGEST: Mapping[str, float] = {"log_loss": 2.0**6, "mean_absolute_error": 2.0**6, SQUARED: 2.0**12}
"""Largest mean that is added; of a regression in steps of the outcome's scale. Others are at most 1."""
BINS = 16
"""Bins of predicted probability, by class."""
ROOM = 16
"""Times the most training rows of any site that a site may have of rows to be compared on."""


@dataclass(frozen=True)
class FigureLayout:
    """Which figures of a comparison are added, in their order: rows, means, counts by class.

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
        return cls(task, float(encoder.scale[-1]) if task == "regression" else 1.0)

    @property
    def entries(self) -> int:
        """Numbers of a site."""
        return 1 + len(FIGURES[self.task]) + 2 * BINS * (self.task == "binary")

    def ring(self, sites: int, most_rows: int) -> Ring:
        """Return the ring of a sum over so many sites, none of which has a band of rows beyond `most_rows`."""
        return ring_of_counts(sites, ROOM * most_rows)

    def encode(
        self, reply: CompareReply, ring: Ring, rng: np.random.Generator, *, counts: bool
    ) -> np.ndarray | Refusal:
        """Return a site's figures as numbers of the ring, or why it has none to add.

        Parameters
        ----------
        reply : CompareReply
        ring : Ring
        rng : Generator
            By which numbers are rounded up or down.
        counts : bool
            Whether rows are counted by prediction; else zeros stand there.
        """
        values = {(one.metric, one.arm): one.value for one in reply.arms}
        names = FIGURES[self.task]
        powers = [values.get(name, math.nan) ** (1 + (name[0] == SQUARED)) for name in names]
        means = np.array(powers) / [self._unit(metric) for metric, _ in names]
        # Of a part of its figures the sum would be of the other sites alone.
        if not (np.abs(means) <= 1).all():
            return Refusal("figures-missing")
        if counts and self.task == "binary" and reply.histogram is None:
            return Refusal("figures-missing")
        numbers = np.zeros(self.entries)
        numbers[0] = reply.holdout_rows
        numbers[1 : 1 + len(means)] = reply.holdout_rows * means
        if counts and reply.histogram is not None and self.task == "binary":
            numbers[1 + len(means) :] = reply.histogram.reshape(2, BINS, -1).sum(axis=2).ravel()
        return ring.encode(numbers, rng)

    def _unit(self, metric: str) -> float:
        """Return the largest mean of a metric, or of its square."""
        return LARGEST.get(metric, 1.0) * self.scale ** (1 + (metric == SQUARED))

    def decode(self, total: np.ndarray, ring: Ring, sites: int) -> dict[str, Any]:
        """Return the record of a sum over so many sites.

        Returns
        -------
        dict
            `rows` (which), `sites` and `holdout-rows` (numbers), and `figures` (by metric and arm). The AUC comes from
            counts in bins; that of the rows lies within `auc-bounds`.
        """
        values = ring.decode(total)
        rows = round(float(values[0]))
        names = FIGURES[self.task]
        figures: dict[str, dict[str, float]] = {}
        for (metric, arm), number in zip(names, values[1:], strict=False):
            if rows:
                mean = float(number) / rows * self._unit(metric)
                figures.setdefault(metric, {})[arm] = math.sqrt(max(mean, 0.0)) if metric == SQUARED else mean
        bounds = None
        histogram = values[1 + len(names) :].reshape(-1, BINS)
        # Where some site's policy does not let its rows be counted, none are.
        if len(histogram) and rows and round(float(histogram.sum())) == rows:
            area, low, high = auc_between(histogram)
            if low is not None:
                figures["roc_auc_score"] = {"global": area}
                bounds = [low, high]
        return {"rows": "holdout", "sites": sites, "holdout-rows": rows, "figures": figures, "auc-bounds": bounds}
