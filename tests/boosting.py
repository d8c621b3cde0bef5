"""Boosting over sites in one process, by the functions that sites and server call."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import tomli_w

from flfed import Study
from flfed.rows.data import datasets, site_discovery
from flfed.rows.data.mapping import map_table
from flfed.rows.data.site import study_table
from flfed.rows.features.encode import ColumnArrays, coded, joined, plain_inputs
from flfed.rows.statistics import boosted_trees as half
from flfed.rows.statistics.boosted_trees import CodedRows
from flfed.rows.study_model import study_layout
from flfed.summaries.summary import Layout
from flfed.trees.cut_points import CODES, chosen_cuts, codes_in, widths_of
from flfed.trees.forest import GrowingTree, Tree, TreeSettings, margins

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
        coded_rows = [CodedRows(own, self.widths) for own in codes]
        scores = [np.zeros((len(at), self.outputs)) for at in rows]
        forest: Forest = []
        for _ in range(rounds):
            sums = [gradients(score, self.y[at], self.task) for score, at in zip(scores, rows)]
            forest.append([])
            for output in range(self.outputs):
                growing = GrowingTree(self.widths, settings)
                nodes = [np.zeros(len(at), dtype=np.int64) for at in rows]
                while len(growing.requested_nodes):
                    counted = bool(settings.least_rows)
                    found = [
                        half.node_sums(c, n, growing.requested_nodes, g[:, output] + 1j * h[:, output], counted=counted)
                        for c, n, (g, h) in zip(coded_rows, nodes, sums)
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


TREES = {
    "model": {"name": "boosted-trees", "depth": 3, "max-bins": 16},
    "strategy": {"name": "boosted-trees", "rounds": 8, "learning-rate": 0.3},
    "plan": {"validation": 0.2},
}


def trees_study(small_study: str, **changes: Any) -> str:
    """Return the small study with trees, and further keys as `Study.replace` takes them."""
    return Study.parse(tomli_w.dumps(tomllib.loads(small_study) | TREES)).replace(changes).text


def tables_of(name: str) -> tuple[Layout, list[ColumnArrays]]:
    """Return the layout of a shipped study, and the rows of its sites.

    A study without packages has four drawn sites, or those of its partition where the column that cuts it is a feature.
    """
    study = Study.load(name)
    layout = study_layout(study, datasets.load(study.dataset.name).schema)
    if study.dataset.partition:
        dataset = datasets.load(study.dataset.name)
        rows = coded(map_table(dataset.whole_table(), dataset.schema, {})[0], layout)
        cut = rows.codes.get(study.dataset.partition.by)
        site = np.random.default_rng(9).integers(0, 4, rows.rows) if cut is None else cut
        return layout, [rows.take(site == place) for place in np.unique(site)]
    tables = [study_table(study, site) for site in site_discovery.of_dataset(study.dataset.name)]
    return layout, [coded(pd.concat([table.training, table.holdout("test")]), layout) for table in tables]


def boosting_of(
    layout: Layout,
    parts: list[ColumnArrays],
    seed: int = 0,
    *,
    most: int = CODES,
    least: int = 0,
    outcomes: bool = True,
    share: float = 0.7,
) -> Boosting:
    """Return the rows of sites as codes, 70 of 100 to train on; with a least number of rows and two outcomes a code."""
    training = np.random.default_rng(seed).random(sum(part.rows for part in parts)) < share
    return coded_boosting(layout, parts, training, most=most, least=least, outcomes=outcomes)


def coded_boosting(
    layout: Layout,
    parts: list[ColumnArrays],
    training: np.ndarray,
    *,
    most: int = CODES,
    least: int = 0,
    outcomes: bool = True,
) -> Boosting:
    """Return the rows of sites as codes, `training` telling which are trained on."""
    rows = joined(parts)
    site = np.repeat(np.arange(len(parts)), [part.rows for part in parts])
    own = [training & (site == place) for place in range(len(parts))]
    counts = [half.cell_counts(rows.take(place), layout, least) for place in own]
    merged = {name: np.sum([one[name] for one in counts], axis=0) for name in counts[0]}
    if not outcomes:
        merged = {name: count.sum(axis=1, keepdims=True) for name, count in merged.items()}
    arrays = chosen_cuts(layout, merged, most, least)
    codes, widths = codes_in(plain_inputs(rows, layout), arrays), widths_of(arrays)
    y = rows.scaled(layout.target) if layout.task == "regression" else rows.codes[layout.target.name].astype(int)
    outputs = len(layout.target.cells) - 1 if layout.task == "multi-class" else 1
    return Boosting(layout.task, codes, widths, y, site, training, outputs)


def arrays_of(forest: Forest) -> dict[str, np.ndarray]:
    """Return a forest's arrays under one name each."""
    return {
        f"{number}/{output}/{name}": value
        for number, trees in enumerate(forest)
        for output, tree in enumerate(trees)
        for name, value in tree.arrays().items()
    }
