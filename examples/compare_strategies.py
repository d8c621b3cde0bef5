"""FedProx against FedAvg, on sites that are far from alike.

Label shares are drawn for each site (Dirichlet, alpha 0.5), so that some sites see hardly any benign mass. Both
strategies have the same sites, seeds and holdouts: what differs is the proximal term alone.
Run it: python examples/compare_strategies.py
"""

from flfed import Study, run

STRATEGIES = {
    "fedavg": {"name": "fedavg", "rounds": 10},
    "fedprox, mu 0.1": {"name": "fedprox", "mu": 0.1, "rounds": 10},
    "fedprox, mu 1": {"name": "fedprox", "mu": 1.0, "rounds": 10},
}


def main() -> None:
    """Run the study once for each strategy, and print the shared model's figure by round."""
    study = Study.load("breast-cancer").replace(
        {
            "dataset.partition": {"by": "dirichlet", "sites": 4, "alpha": 0.5, "seed": 4},
            "plan.steps": 50,
        }
    )
    for words, keys in STRATEGIES.items():
        changes = {f"strategy.{key}": value for key, value in keys.items()}
        result = run(study.replace(changes), repeats=3)
        figure = result.overall.query("arm == 'global' and metric == 'roc_auc_score'").iloc[0]
        loss = result.overall.query("arm == 'global' and metric == 'log_loss'").iloc[0]
        print(f"{words:16} AUC {figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f}), "
              f"log loss {loss['value']:.3f}")  # fmt: skip


if __name__ == "__main__":
    main()
