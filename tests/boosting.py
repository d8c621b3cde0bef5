"""Boosting over sites in one process, by the functions that sites and server call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from flfed import Study
from flfed.rows.data import datasets, site_discovery
from flfed.rows.features.columns import ColumnArrays, coded, joined
from flfed.rows.session import study_layout, study_table
from flfed.rows.statistics import boosted_trees as half
from flfed.summaries.summary import Layout
from flfed.trees.cut_points import CODES, cut_points, merged_codes
from flfed.trees.forest import Tree, margins
from flfed.trees.growth import GrowingTree, TreeSettings

Forest = list[list[Tree]]
Gradients = Callable[[np.ndarray, np.ndarray, str], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True, eq=False)
class Boosting:
    """Coded rows of all sites, some of which are trained on."""

    task: str
    codes: np.ndarray
    widths: np.ndarray
    y: np.ndarray
    site: np.ndarray
    training: np.ndarray
    outputs: int

    def pooled(self) -> Boosting:
        """Return the same rows at one site."""
        return replace(self, site=np.zeros_like(self.site))

    def grown(
        self,
        settings: TreeSettings,
        rounds: int,
        *,
        sites: Sequence[int] | None = None,
        gradients: Gradients = half.gradients,
        merge: Callable[[list[np.ndarray], list[int]], np.ndarray] = lambda sums, rows: np.sum(sums, axis=0),
    ) -> Forest:
        """Return the trees of some sites, of all in the order of their numbers unless given."""
        places = range(int(self.site.max()) + 1) if sites is None else sites
        rows = [np.flatnonzero(self.training & (self.site == place)) for place in places]
        codes = [self.codes[:, at] for at in rows]
        scores = [np.zeros((len(at), self.outputs)) for at in rows]
        forest: Forest = []
        for _ in range(rounds):
            sums = [gradients(score, self.y[at], self.task) for score, at in zip(scores, rows)]
            forest.append([])
            for output in range(self.outputs):
                growing = GrowingTree(self.widths, settings)
                nodes = [np.zeros(len(at), dtype=np.int64) for at in rows]
                while len(growing.asked):
                    counted = bool(settings.least_rows)
                    found = [
                        half.node_sums(c, self.widths, n, growing.asked, g[:, output], h[:, output], counted=counted)
                        for c, n, (g, h) in zip(codes, nodes, sums)
                    ]
                    growing.grow(merge(found, [len(at) for at in rows]))
                    nodes = [growing.tree.step(n, c, self.widths - 1) for n, c in zip(nodes, codes)]
                forest[-1].append(growing.tree)
                for score, node in zip(scores, nodes):
                    score[:, output] += growing.tree.value[node]
        return forest

    def margins(self, forest: Forest) -> np.ndarray:
        """Return the scores of the rows that are not trained on."""
        return margins(forest, self.codes[:, ~self.training], self.widths - 1)

    def inputs(self) -> np.ndarray:
        """Return the codes as XGBoost takes them: float32 [rows, columns], NaN where missing."""
        found = self.codes.T.astype(np.float32)
        found[self.widths - 1 == self.codes.T] = np.nan
        return found


def tables_of(name: str) -> tuple[Layout, list[ColumnArrays]]:
    """Return the layout of a shipped study, and the rows of its sites; four drawn ones where it has no packages."""
    study = Study.load(name)
    layout = study_layout(study, datasets.load(study.dataset.name).schema)
    if study.dataset.partition:
        rows = coded(datasets.load(study.dataset.name).whole_table(), layout)
        site = np.random.default_rng(9).integers(0, 4, rows.rows)
        return layout, [rows.take(site == place) for place in range(4)]
    tables = [study_table(study, site) for site in site_discovery.of_dataset(study.dataset.name)]
    return layout, [coded(pd.concat([table.training, table.holdout("test")]), layout) for table in tables]


def boosting_of(
    layout: Layout,
    parts: list[ColumnArrays],
    seed: int = 0,
    *,
    most: int = CODES,
    cut: Callable[[np.ndarray, np.ndarray, int], np.ndarray] = cut_points,
    least: int = 0,
    outcomes: bool = True,
    share: float = 0.7,
) -> Boosting:
    """Return the rows of sites as codes, 70 of 100 to train on; with a least number of rows and two outcomes a code."""
    rows = joined(parts)
    site = np.repeat(np.arange(len(parts)), [part.rows for part in parts])
    training = np.random.default_rng(seed).random(rows.rows) < share
    own = [training & (site == place) for place in range(len(parts))]
    if least:
        by_outcome = [half.outcome_counts(rows.take(place), layout) for place in own]
        counts = {name: sum(one[name] for one in by_outcome) for name in by_outcome[0]}
        counts = counts if outcomes else {name: count.sum(axis=1, keepdims=True) for name, count in counts.items()}
        codes, widths = half.merged_rows(
            rows, layout, {name: merged_codes(count, least, most) for name, count in counts.items()}
        )
    else:
        codes, widths = _plain_codes(layout, rows, own, most, cut)
    y = rows.scaled(layout.target) if layout.task == "regression" else rows.codes[layout.target.name].astype(int)
    outputs = len(layout.target.cells) - 1 if layout.task == "multi-class" else 1
    return Boosting(layout.task, codes, widths, y, site, training, outputs)


def _plain_codes(
    layout: Layout,
    rows: ColumnArrays,
    places: list[np.ndarray],
    most: int,
    cut: Callable[[np.ndarray, np.ndarray, int], np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    counts = [half.fine_counts(rows.take(place), layout) for place in places]
    cuts = {
        column.name: cut(half.edges_of(column), sum(count[column.name] for count in counts), most)
        for column in layout.features
        if column.kind == "number"
    }
    return half.coded_rows(rows, layout, cuts)


def arrays_of(forest: Forest) -> dict[str, np.ndarray]:
    """Return a forest's arrays under one name each."""
    return {
        f"{number}/{output}/{name}": value
        for number, trees in enumerate(forest)
        for output, tree in enumerate(trees)
        for name, value in tree.arrays().items()
    }
