"""What privacy costs: one study at four budgets, and what each run spent.

Every patient is protected (record-level differential privacy): the smaller epsilon, the more noise in each step.
Ranges and scales come from the schema, in which no row has a say. docs/protection.md says what is promised, and what
is not. Run it: python examples/privacy_budget.py
"""

from flfed import Study, run

BUDGETS = (None, 8.0, 3.0, 1.0)


def study_with(epsilon: float | None) -> Study:
    """Return the shipped study at a budget; None protects nobody."""
    if epsilon is None:
        return Study.load("breast-cancer")
    return Study.load("breast-cancer-dp-3").replace({"privacy.epsilon": epsilon})


def main() -> None:
    """Run each study three times, and print figure, promise and noise."""
    print("budget   AUC    promised")
    for epsilon in BUDGETS:
        result = run(study_with(epsilon), repeats=3)
        auc = result.overall.query("arm == 'global' and metric == 'roc_auc_score'").iloc[0]["value"]
        told = result.report["privacy"]
        promise = "nothing"
        if told["epsilon"] is not None:
            promise = f"({told['epsilon']:.2f}, {told['delta']:g})-DP of a {told['unit']}, by noise {told['noise']:.2f}"
        print(f"{'none' if epsilon is None else f'{epsilon:g}':8} {auc:.3f}  {promise}")


if __name__ == "__main__":
    main()
