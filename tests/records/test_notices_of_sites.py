"""Notices on the pages: one sum over all sites, and a column that may reveal the outcome."""

import pytest
from streamlit.testing.v1 import AppTest

from flfed.records.dashboard import page_files
from flfed.records.store.entries import SiteRow
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


def test_the_sum_of_all_sites_is_one_line(store):
    series = store.begin_series(study="s", study_sha256="", study_text='[compare]\nshare = "sum"\n')
    run = store.begin_run(series, engine="inprocess", path="", seed=1, rounds_planned=1, primary=AUC, task="binary")
    for site in "abcd":
        run.sites([SiteRow(site, rows=100)])
    run.summary("summed-figures", SUMMED)
    run.finish(status="completed")
    opened = AppTest.from_file(ROOT / "app.py", default_timeout=60).run()
    opened.switch_page(page_files()["sites"])
    opened.query_params["run"] = run.run
    shown = said(opened.run()).replace("\\", "")
    assert not opened.exception and "3 sites together, on 61 test rows:" in shown
    assert "log loss: shared model 0.432" in shown


@pytest.mark.parametrize("name", ["p20_overview", "p30_sites"])
def test_that_a_column_may_give_the_answer_away_stands_where_figures_are_read(heart, name):
    opened = AppTest.from_file(ROOT / "app.py", default_timeout=60).run()
    opened.switch_page(page_files()[name.partition("_")[2]])
    opened.query_params["run"] = heart
    opened.run()
    (notice,) = [block.value for block in opened.warning]
    assert "Before you rely on these figures: a column may reveal the outcome (slope)" in notice.replace("\\", "")
