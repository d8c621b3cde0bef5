"""What a site withheld follows from nothing else that is written down."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from flfed import Study, run
from flfed.federation.recording.recorder import RANKINGS
from flfed.rows.data.site import Policy


def easy(number, table):
    # The outcome follows x1 almost always: fewer than ten rows are called wrong.
    rng = np.random.default_rng(number)
    right = (table["x1"] > 50) ^ (rng.random(len(table)) < 0.03)
    return table.assign(y=np.where(right, "yes", "no"))


def test_a_withheld_figure_does_not_follow_from_that_of_all_sites(small_sites, small_study):
    sites = small_sites(3, rows=150, change=easy)
    sites[0] = replace(sites[0], policy=Policy())
    report = run(Study.parse(small_study), sites=sites).report
    closed = report["sites"]["site-01"]
    assert closed["global"]["accuracy_score"]["value"] is None
    assert report["sites"]["site-02"]["global"]["accuracy_score"]["value"] > 0.8
    # Rows times accuracy over all sites, less those of the open sites, would be the closed one's.
    assert report["global"]["accuracy_score"]["value"] is None
    assert "withheld" in report["global"]["accuracy_score"]["reason"]
    withheld = {metric for metric, figure in closed["global"].items() if figure["value"] is None}
    assert {m for m, f in report["global"].items() if f["value"] is None} == withheld - set(RANKINGS)


def test_an_institution_gives_one_accuracy_and_no_difference_of_two(small_sites, small_study):
    report = run(Study.parse(small_study), sites=small_sites(2, rows=300, policy=Policy())).report
    for site in report["sites"].values():
        assert 0.5 < site["global"]["accuracy_score"]["value"] < 1
        for other in ("local-only", "personalised", "difference", "difference-personalised"):
            assert site[other]["accuracy_score"]["value"] is None
            assert "withheld" in site[other]["accuracy_score"]["reason"]
        assert site["difference"]["roc_auc_score"]["value"] is not None
