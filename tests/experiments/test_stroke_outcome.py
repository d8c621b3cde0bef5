"""Gains by size of hospitals and countries, by scikit-learn's pipeline on the same splits."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from threadpoolctl import threadpool_limits

from flfed import run
from flfed.federation.engines.engine import find_sites
from flfed.records.reports.site_verdict import too_few
from flfed.records.statistics.intervals import LEAST_CLASS_SITES
from flfed.rows.data.site import Site
from flfed.rows.session import SiteSession
from flfed.rows.training.best_model import LEAST_ROWS
from flfed.rows.training.tuned_linear import PENALTIES
from flfed.study.study import Study

pytestmark = [
    pytest.mark.slow, pytest.mark.studies, pytest.mark.proof, pytest.mark.timeout(7200),
    pytest.mark.filterwarnings("ignore:Found unknown categories", "ignore:(?s).*resort to lbfgs"),
]  # fmt: skip

AUC = "roc_auc_score"
GRID = {"max_leaf_nodes": [4, 16], "max_iter": [60, 180], "learning_rate": [0.05]}
REPEATS = 10
NEAR = 0.01
GAINS = {
    "stroke-outcome-by-hospital": [(0.219, 0.05), (0.087, 0.02), (0.049, 0.02), (0.017, 0.02)],
    "stroke-outcome": [None, (0.043, 0.02), (0.009, 0.02), None],
}
"""Gains found by others on ten re-splits of their own, with how far ours may be, by class of sites.

They have 0.053 for countries below 100 rows. Ours is 0.077, scikit-learn's 0.082, and the mean of ten re-splits
varies by 0.009 (SD). Of 1,000 rows and more there are three countries, too few for a figure.
"""
Scores = Callable[[pd.DataFrame], np.ndarray]


@dataclass(frozen=True, eq=False)
class Member:
    """Rows of a hospital or country, as one split has them."""

    session: SiteSession
    rows: pd.DataFrame
    y: np.ndarray
    test_rows: pd.DataFrame
    test_y: np.ndarray

    @property
    def weight(self) -> float:
        """Test rows with the outcome times those without, over all of them."""
        events = int(self.test_y.sum())
        return events * (len(self.test_y) - events) / len(self.test_y)

    def area(self, scores: Scores) -> float:
        return float(roc_auc_score(self.test_y, scores(self.test_rows)))


def members_of(study: Study, sites: Sequence[Site], repeat: int) -> dict[str, Member]:
    """Return the sites with rows on both sides of a split."""
    features = list(study.dataset.features)
    found = {}
    for site in sites:
        session = SiteSession(site, study, repeat)
        sides = session.table.training, session.table.holdout("test")
        if all(len(side) for side in sides):
            (rows, y), (test_rows, test_y) = ((side[features], session.target(side).astype(int)) for side in sides)
            found[site.name] = Member(session, rows, y, test_rows, test_y)
    return found


def twice(indicators):
    return 2 * indicators


def pipeline(session: SiteSession) -> ColumnTransformer:
    """Return scikit-learn's inputs: numbers by their deviation, an indicator of 0 or 2 for each value and gap."""
    names = {
        kind: [column.name for column in session.layout.features if column.kind == kind]
        for kind in ("number", "flag", "category")
    }
    filled = SimpleImputer(keep_empty_features=True)
    marked = SimpleImputer(keep_empty_features=True, add_indicator=True)
    values = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    return ColumnTransformer([
        ("number", make_pipeline(filled, StandardScaler()), names["number"]),
        ("flag", make_pipeline(marked, FunctionTransformer(twice)), names["flag"]),
        ("category", make_pipeline(values, FunctionTransformer(twice)), names["category"]),
    ])  # fmt: skip


def tuned(member: Member, *, trees: bool) -> Scores:
    """Return the scores of a site's own model: linear, or the better of that and boosted trees; or a constant."""
    y = member.y
    fewest = np.bincount(y, minlength=2).min()
    if fewest < 2:
        return lambda rows: np.zeros(len(rows))
    inputs = pipeline(member.session)
    x = inputs.fit_transform(member.rows)
    folds = StratifiedKFold(min(5, fewest), shuffle=True, random_state=0)
    grid = 1 / (len(y) * PENALTIES)
    line = LogisticRegressionCV(Cs=grid, cv=folds, scoring="neg_log_loss", l1_ratios=(0,), solver="newton-cholesky",
                                use_legacy_attributes=False).fit(x, y)  # fmt: skip
    best = line
    if trees and len(y) >= LEAST_ROWS:
        folds = StratifiedKFold(3, shuffle=True, random_state=0)
        boosted = HistGradientBoostingClassifier(early_stopping=False)
        search = GridSearchCV(boosted, GRID, cv=folds, scoring="neg_log_loss")
        plain = LogisticRegression(C=line.C_, solver="newton-cholesky")
        shares = cross_val_predict(plain, x, y, cv=folds, method="predict_proba")
        if -search.fit(x, y).best_score_ < log_loss(y, shares):
            best = search
    return lambda rows: best.decision_function(inputs.transform(rows))


def shared(members: Sequence[Member], l2: float) -> Scores:
    """Return the scores of one logistic regression of all their training rows."""
    inputs = pipeline(members[0].session)
    y = np.concatenate([each.y for each in members])
    x = inputs.fit_transform(pd.concat([each.rows for each in members]))
    line = LogisticRegression(C=1 / (l2 * len(y)), solver="newton-cholesky").fit(x, y)
    return lambda rows: line.decision_function(inputs.transform(rows))


@pytest.mark.parametrize("name", list(GAINS))
def test_gains_by_size_are_scikit_learns(name):
    study = Study.load(name)
    found = run(study, repeats=REPEATS).report
    sites = find_sites(study)
    lines = []
    for repeat in range(REPEATS):
        members = members_of(study, sites, repeat)
        everybody = shared(list(members.values()), study.plan.l2)
        with threadpool_limits(1):
            for each in members.values():
                gain = each.area(everybody) - each.area(tuned(each, trees=True)) if each.weight else 0.0
                lines.append((len(each.rows) + len(each.test_rows), each.weight, gain))
    sizes, weights, gains = np.array(lines).T
    for each, other in zip(found["size-classes"], GAINS[name], strict=True):
        least, most = each["rows"]
        within = (sizes >= least) & (sizes <= (most or np.inf))
        value = each["gains"][AUC]["value"]
        assert (value is None) == (each["sites"] < LEAST_CLASS_SITES)
        if value is not None:
            assert value == pytest.approx(np.average(gains[within], weights=weights[within]), abs=NEAR)
        if other is not None:
            assert value == pytest.approx(other[0], abs=other[1])
    # A random-effects mean needs each site's error, which no site below 20 rows has.
    small = [site for site in found["sites"].values() if site["rows"] < 20]
    assert all(too_few(site) is not None for site in small)
    assert found["mean-gain"][AUC]["sites"] == sum(too_few(site) is None for site in found["sites"].values())
