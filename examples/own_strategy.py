"""A strategy of one's own, beside FedAvg, with a site that has its outcomes swapped.

The coordinate-wise median of what the sites sent (Yin et al. 2018) needs no package: `federate` takes the class.
Between institutions it has to be one that everybody installs: docs/extend.md.
Run it: python examples/own_strategy.py
"""

from collections.abc import Mapping

import numpy as np
from sklearn.datasets import load_breast_cancer

from flfed import Arrays, FedAvg, federate


class MedianOfSites(FedAvg):
    """Coordinate-wise median of the sites' updates.

    Source: Yin, Chen, Ramchandran and Bartlett 2018, "Byzantine-robust distributed learning", definition 1.
    """

    def combine(self, incoming: Arrays, deltas: Mapping[str, Arrays], weights: Mapping[str, float]) -> Arrays:
        """Return `incoming` plus the median of the deltas."""
        found = {}
        for name, value in incoming.items():
            middle = np.median(np.stack([delta[name] for delta in deltas.values()]), axis=0)
            found[name] = (value + middle).astype(value.dtype)
        return found


def tables() -> dict:
    """Return five hospitals; at the largest somebody swapped the two outcomes."""
    frame = load_breast_cancer(as_frame=True).frame[["mean radius", "mean texture", "mean smoothness", "target"]]
    frame["target"] = frame["target"].map({0: "malignant", 1: "benign"})
    parts = {f"hospital-{place + 1}": frame[place:280:4] for place in range(4)}
    swapped = {"malignant": "benign", "benign": "malignant"}
    return parts | {"large": frame[280:].assign(target=frame["target"].map(swapped))}


if __name__ == "__main__":
    for strategy in ("fedavg", MedianOfSites):
        result = federate(tables(), target="target", strategy=strategy, rounds=20, say=lambda line: None)
        honest = result.sites.query("arm == 'global' and metric == 'roc_auc_score' and site != 'large'")
        name = strategy if isinstance(strategy, str) else strategy.__name__
        print(f"{name:14} AUC at the four honest hospitals: {honest['value'].mean():.3f}")
