"""Comparison of a run's last model with the site's own, exact, for the site's people alone.

Where all that leaves a site is charged to one ε, no exact figure of its own model does: what a site's people may know
of their own rows they compute here, from the frozen rows and the model that came to be scored.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from flfed.paths import SiteFolder
from flfed.records.statistics.verdict import Difference, better_of, verdict, worthwhile_of
from flfed.rows.comparison.compare import SiteComparison, compare
from flfed.rows.data.site import Site
from flfed.rows.evaluation.intervals import Estimate
from flfed.rows.session import SiteSession
from flfed.rows.snapshots.snapshot import load
from flfed.rows.training.answer import run_client
from flfed.study.study import Study
from flfed.updates.checkpoints.site_state import site_model
from flfed.words import usage_error

ARMS = ("global", "local-only", "personalised")
AGAINST = "local-only"
GAINING = ("global", "personalised")


@dataclass(frozen=True, kw_only=True, eq=False)
class ExactComparison:
    """A site's own figures of a run, without noise.

    Attributes
    ----------
    site, run : str
    study : Study
    repeat : int
    comparison : SiteComparison
        Exact figures and differences, with the intervals of chance alone.
    frozen : str
        When the rows were frozen: where that was after the run, the model may have been trained on some test rows.
    """

    site: str
    run: str
    study: Study
    repeat: int
    comparison: SiteComparison
    frozen: str

    def verdict(self, metric: str) -> tuple[str, str]:
        """Return code and sentence of the verdict on joining here, by one metric."""
        pairs = self.comparison.differences.get(metric, {})
        shared, adjusted = (_difference(pairs.get((arm, AGAINST))) for arm in GAINING)
        values = {arm: estimate.value for arm, estimate in self.comparison.arms[metric].items()}
        reason = self.comparison.arms[metric]["global"].method

        facts: dict[str, Any] = {"figures": values, "reason": reason, "worthwhile": worthwhile_of(metric)}
        return verdict(shared, adjusted, better_of(metric), metric=metric, **facts)

    def as_json(self) -> dict[str, Any]:
        """Return the figures for a program."""
        arms = {}
        for metric, of in self.comparison.arms.items():
            arms[metric] = {arm: _plain(of[arm]) for arm in ARMS if arm in of}
        gains = {}
        for metric, pairs in self.comparison.differences.items():
            gains[metric] = {arm: _plain(pairs[arm, AGAINST]) for arm in GAINING if (arm, AGAINST) in pairs}
        verdicts = {metric: self.verdict(metric)[0] for metric in arms}
        facts = {"site": self.site, "run": self.run, "repeat": self.repeat, "study": self.study.name}
        rows = {"training-rows": self.comparison.training_rows, "holdout-rows": self.comparison.holdout_rows}
        facts |= {"snapshot-at": self.frozen, **rows, "local-only-family": self.comparison.own_family or "same"}
        return {**facts, "figures": arms, "differences": gains, "verdicts": verdicts}


def exact_comparison(folder: SiteFolder, site: Site, run: str, repeat: int = 0) -> ExactComparison:
    """Compare a run's last model with the site's own, trained without noise, on the site's test rows.

    Nothing of it leaves, and nothing is charged.

    Parameters
    ----------
    folder : SiteFolder
    site : Site
    run : str
        As the ledger has it.
    repeat : int

    Raises
    ------
    UsageError
        If the site has no model of the run, or no frozen rows of its dataset.
    """
    final_model = site_model(site.name, run, repeat)
    if final_model is None:
        raise usage_error("operator.exact.modelless", site=site.name, run=run, repeat=repeat)
    study = Study.parse_recorded(final_model.study)
    frozen = load(site.serving(study.dataset.name), folder.frozen).with_withheld()
    # Cell minima are of what leaves; all else of the policy stays, as the split of each repeat follows from it.
    policy = frozen.policy.model_copy(update={"disclosure": "open"})
    session = SiteSession(replace(frozen, policy=policy), study, repeat)
    comparison: SiteComparison = run_client(compare(session, final_model.arrays, final_model.encoder))
    at = frozen.snapshot.at
    return ExactComparison(site=site.name, run=run, study=study, repeat=repeat, comparison=comparison, frozen=at)


def _difference(estimate: Any) -> Difference | None:
    return None if estimate is None else Difference.of(estimate)


def _plain(estimate: Estimate | Any) -> dict[str, float | None]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high}
