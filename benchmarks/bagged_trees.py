"""Shared trees beside each site's own, their average, and XGBoost's of all rows: `python -m benchmarks.bagged_trees`.

It splits `sba-loans-trees` ten times as its run does, and prints the table of docs/boosted-trees.md. Needs the table:
`flfed data get sba-loans`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np
import xgboost
from sklearn.metrics import roc_auc_score

from flfed import Study
from flfed.records.statistics.intervals import resplit_interval
from flfed.trees.forest import TreeSettings
from tests.boosting import Boosting, repeat_of

SPLITS = 10
SHARED, XGBOOST, BAGGED, EVERYWHERE = "shared", "XGBoost, all rows", "own, averaged", "own, at all sites"
SHARED_HERE, OWN_HERE = "shared, at each site", "own, at its site"
AGAINST = {XGBOOST: SHARED, BAGGED: SHARED, EVERYWHERE: SHARED, OWN_HERE: SHARED_HERE}
"""Rivals of each."""


@dataclass(frozen=True)
class Figures:
    """AUC of each kind of trees, a value a split, and the test rows to a row that is trained on."""

    aucs: Mapping[str, Sequence[float]]
    ratio: float

    def difference(self, kind: str) -> tuple[float, float, float]:
        """Return how much better the shared trees are, with an interval of 95 % over splits."""
        pairs = zip(self.aucs[AGAINST[kind]], self.aucs[kind], strict=True)
        mean, low, high, _ = resplit_interval([shared - other for shared, other in pairs], self.ratio)
        return mean, low, high


def measure(name: str = "sba-loans-trees", splits: int = SPLITS) -> Figures:
    """Return the figures of a study over its first splits."""
    study = Study.load(name)
    depth, rate = study.model.build("model").depth, study.strategy.build("strategy").learning_rate
    settings = TreeSettings(depth=depth, learning_rate=rate)
    aucs: dict[str, list[float]] = {}
    for repeat in range(splits):
        rows, inputs = repeat_of(name, repeat)
        for kind, auc in split_figures(rows, inputs, settings, study.rounds).items():
            aucs.setdefault(kind, []).append(auc)
    return Figures(aucs, float((~rows.training).sum() / rows.training.sum()))


def split_figures(rows: Boosting, inputs: np.ndarray, settings: TreeSettings, trees: int) -> dict[str, float]:
    """Return the AUC of each kind of trees on one split.

    An average weighs the sites' scores by their training rows. Means over sites are of those whose test rows have both
    outcomes.
    """
    places = np.unique(rows.site)
    shared = rows.margins(rows.grown(settings, trees))[:, 0]
    own = [rows.margins(rows.grown(settings, trees, sites=[place]))[:, 0] for place in places]
    weights = np.bincount(rows.site[rows.training])
    y, site = rows.y[~rows.training], rows.site[~rows.training]
    told = [place for place in places if np.ptp(y[site == place])]
    here = {place: site == place for place in told}
    taught = [place for place in places if np.ptp(rows.y[rows.training & (rows.site == place)])]
    return {
        SHARED: roc_auc_score(y, shared),
        XGBOOST: roc_auc_score(y, xgboost_scores(rows, inputs, settings, trees)),
        BAGGED: roc_auc_score(y, np.average(own, axis=0, weights=weights)),
        EVERYWHERE: fmean(roc_auc_score(y, own[place]) for place in taught),
        SHARED_HERE: fmean(roc_auc_score(y[at], shared[at]) for at in here.values()),
        OWN_HERE: fmean(roc_auc_score(y[at], own[place][at]) for place, at in here.items()),
    }


def xgboost_scores(rows: Boosting, inputs: np.ndarray, settings: TreeSettings, trees: int) -> np.ndarray:
    """Return the scores that as many trees of XGBoost, with bins of its own, give the test rows of all sites."""
    given = {
        "tree_method": "hist", "max_depth": settings.depth, "eta": settings.learning_rate, "reg_lambda": settings.l2,
        "min_child_weight": settings.min_child_weight, "max_bin": 256, "nthread": 1, "objective": "binary:logistic",
        "base_score": 0.5,
    }  # fmt: skip
    train = xgboost.DMatrix(inputs[rows.training], rows.y[rows.training], nthread=1)
    test = xgboost.DMatrix(inputs[~rows.training], nthread=1)
    return np.asarray(xgboost.train(given, train, trees).predict(test, output_margin=True), dtype=float)


def table(found: Figures) -> str:
    """Return the table of the page on trees."""
    lines = ["| trees | AUC | shared minus these (95 % CI) |", "|---|---|---|"]
    for kind, aucs in found.aucs.items():
        beside = ""
        if kind in AGAINST:
            mean, low, high = found.difference(kind)
            beside = f"{mean:+.3f} ({low:+.3f} to {high:+.3f})"
        lines.append(f"| {kind} | {fmean(aucs):.3f} ± {stdev(aucs):.3f} | {beside} |")
    return "\n".join(lines).replace("-0.", "−0.").replace("0.", ".")


if __name__ == "__main__":
    print(table(measure(*sys.argv[1:])))
