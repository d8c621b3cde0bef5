"""Notices on the pages: sites that share sums only, and a column that may reveal the outcome."""

import pytest
from streamlit.testing.v1 import AppTest

from flfed.records.dashboard import page_files
from flfed.records.store.entries import ComparisonRow, SiteRow
from tests.browser import ROOT

pytestmark = pytest.mark.usefixtures("shown")

AUC = "roc_auc_score"


def said(shown: AppTest) -> str:
    parts = (shown.markdown, shown.caption, shown.info, shown.error, shown.warning)
    return "\n".join(part.value for kind in parts for part in kind)


SUMMED = {
    "rows": "holdout", "sites": 3, "holdout-rows": 61, "points": [], "auc-bounds": [0.7213, 0.7291],
    "figures": {"log_loss": {"global": 0.4321}, AUC: {"global": 0.7252}},
}  # fmt: skip


@pytest.mark.parametrize("compared", [True, False])
def test_the_figures_of_sites_in_sums_only_are_one_line(store, compared):
    series = store.begin_series(study="s", study_sha256="", study_text="")
    run = store.begin_run(series, engine="inprocess", path="", seed=1, rounds_planned=1, primary=AUC, task="binary")
    for site in "abcd":
        run.sites([SiteRow(site, rows=100, shared_as="named" if compared and site == "a" else "aggregate-only")])
    run.summary("sums-only", SUMMED)
    # Where all sites share figures in sums only, there is nothing else.
    figures = [ComparisonRow(None, "global", AUC, 0.8), ComparisonRow("a", "global", AUC, 0.7)] if compared else []
    run.comparison(figures, [])
    run.finish(status="completed")
    opened = AppTest.from_file(ROOT / "app.py", default_timeout=60).run()
    opened.switch_page(page_files()["sites"])
    opened.query_params["run"] = run.run
    shown = said(opened.run()).replace("\\", "")
    assert not opened.exception and "3 sites together, which share no figures of their own, on 61 test rows:" in shown
    of_auc = "AUC (from counts, so between 0.721 and 0.729): shared model 0.725. The figures came as one sum"
    assert (of_auc if compared else "log loss: shared model 0.432") in shown


@pytest.mark.parametrize("name", ["p20_overview", "p30_sites"])
def test_that_a_column_may_give_the_answer_away_stands_where_figures_are_read(heart, name):
    opened = AppTest.from_file(ROOT / "app.py", default_timeout=60).run()
    opened.switch_page(page_files()[name.partition("_")[2]])
    opened.query_params["run"] = heart
    opened.run()
    (notice,) = [block.value for block in opened.warning]
    assert "Before you rely on these figures: a column may reveal the outcome (slope)" in notice.replace("\\", "")
