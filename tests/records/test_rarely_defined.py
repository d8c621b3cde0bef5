"""A difference that few repeats have, because few holdouts have both classes, gives no verdict."""

import pytest

from flfed.records.reports.report import report
from flfed.records.statistics.verdict import INCONCLUSIVE, PAYS
from flfed.records.store.entries import ComparisonRow, DifferenceRow, SiteRow
from flfed.records.store.reader import RunReader

AUC = "roc_auc_score"
ONE_CLASS = "the holdout has one class only"


@pytest.mark.parametrize(("defined", "verdict"), [(1, INCONCLUSIVE), (2, INCONCLUSIVE), (3, PAYS), (6, PAYS)])
def test_a_gain_that_less_than_half_of_the_repeats_have_is_not_told(store, url, defined, verdict):
    # One patient without the disease among 46: AUC 0.9 against 0.5 whenever he is held out, by chance or not.
    series = store.begin_series(study="s", study_sha256="", study_text="", repeats=6)
    for repeat in range(6):
        run = store.begin_run(
            series, repeat=repeat, engine="e", path="p", seed=repeat, rounds_planned=1, primary=AUC, task="binary"
        )
        run.sites([SiteRow("zurich", title="Zurich", rows=460, holdout_rows=160, resplit=True)])
        value = 0.4 + 0.001 * repeat if repeat < defined else None
        why = "" if value is not None else ONE_CLASS
        pairs = [(arm, value) for arm in ("global", "personalised")]
        rows = [DifferenceRow("zurich", a, "local-only", AUC, v, 0.1, 0.7, 0.01, why) for a, v in pairs]
        run.comparison([ComparisonRow(None, "global", AUC, 0.9)], rows)
        run.finish(status="completed")
    with RunReader.open(url) as reader:
        site = report(reader, series)["sites"]["zurich"]
    entry = site["difference"][AUC]
    assert site["verdict"] == verdict
    if verdict == PAYS:
        assert entry["value"] == pytest.approx(0.4 + 0.001 * (defined - 1) / 2, abs=1e-12)
        assert "reason" not in entry and entry["low"] > 0.3
        return
    assert (entry["value"], entry["low"], entry["high"], entry["p"]) == (None, None, None, None)
    assert entry["reason"] == f"defined in {defined} of 6 repeats only (in others: {ONE_CLASS})"
