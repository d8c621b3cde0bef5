"""Calibration in a report: by site, over repeats and over sites, and what one site's people see."""

from __future__ import annotations

import math

import pytest

from flfed import Study, run
from flfed.deployment.gate.message_check import message_defect
from flfed.deployment.gate.message_schema import StudyMessages
from flfed.errors import UsageError
from flfed.records.reports.calibration import calibration_of_sites, over_repeats
from flfed.records.statistics.intervals import mean_over_sites
from flfed.rows.data import datasets
from flfed.rows.data.policy import Policy
from flfed.updates.messages.compare import COMPARE, CalibrationFigure, CompareReply
from tests.approval_text import details


@pytest.fixture
def asking(small_study: str) -> str:
    return small_study.replace("[compare]\n", "[compare]\ncalibration = true\n")


def test_report_has_calibration_by_site_and_over_sites(small_sites, asking, small_study):
    sites = small_sites(4, rows=400)
    report = run(Study.parse(asking), sites=sites).report
    by_site = {site: of["calibration"] for site, of in report["sites"].items() if "calibration" in of}
    assert sorted(by_site) == ["site-01", "site-02", "site-03", "site-04"]
    slopes = [of["slope"] for of in by_site.values()]
    errors = [(of["high"] - of["low"]) / 2 / 1.959963984540054 for of in slopes]
    expected = mean_over_sites([of["value"] for of in slopes], errors)
    mean = report["calibration"]["slope"]
    assert (mean["value"], mean["low"], mean["i2"]) == pytest.approx((expected.value, expected.low, expected.i2))
    assert mean["sites"] == 4
    assert {of["method"] for of in slopes} <= {"Wald", "Wald, few events"}
    section = calibration_of_sites(report)
    assert [line["Test rows of"] for line in section.tables[0].lines] == [*sorted(by_site), "mean over sites"]
    without = run(Study.parse(small_study), sites=small_sites(3)).report
    assert "calibration" not in without
    assert calibration_of_sites(without) is None


def test_figures_of_repeats_are_means_and_rest_on_half_of_them():
    def repeat(value: float | None) -> dict:
        ends = {"value": value, "low": None, "high": None, "variance": None, "method": "the reason"}
        if value is not None:
            ends |= {"low": value - 0.1, "high": value + 0.1, "variance": 0.01, "method": "Wald"}
        return {"sites": {"a": {"slope": ends, "intercept": ends}}}

    sites, means = over_repeats([repeat(0.8), repeat(1.0), None])
    assert sites["a"]["slope"]["value"] == pytest.approx(0.9)
    assert sites["a"]["slope"]["low"] == pytest.approx(0.8)
    assert means["slope"]["value"] is None
    assert "1 of 1 sites" in means["slope"]["reason"]
    sites, _ = over_repeats([repeat(0.8), repeat(None), repeat(None)])
    assert sites["a"]["slope"] == {"value": None, "low": None, "high": None, "reason": "the reason"}
    assert over_repeats([None]) == ({}, None)


def test_an_end_near_a_calibrated_figure_shows_on_which_side_it_lies():
    slope = {"value": 0.9, "low": 0.801, "high": 0.9996}
    figures = {"slope": slope, "intercept": {"value": 0.47, "low": 0.0046, "high": 0.94}, "few-events": False}
    (line,) = calibration_of_sites({"sites": {"a": {"calibration": figures}}}).tables[0].lines
    assert line["Slope (95 % CI)"] == "0.9000 (0.8010 to 0.9996)"
    assert line["Intercept (95 % CI)"] == "+0.470 (+0.005 to +0.940)"
    assert line["Finding"] == "predicted risk too low; too extreme"


def test_gate_lets_only_slope_and_intercept_out(small_sites, asking):
    site = small_sites(1, rows=100, policy=Policy())[0]
    study = Study.parse(asking)
    leaving = StudyMessages(study, datasets.load("small").schema, site).leaving(COMPARE)
    first = {"name": "slope", "value": 1.1, "low": 0.9, "high": 1.3, "variance": 0.01, "method": "Wald"}
    for changes, named in (
        ({}, ""), ({"name": "P0_0017"}, "'name'"), ({"value": math.inf}, "'value'"),
        ({"method": "P0_0017"}, "'method'"),
    ):  # fmt: skip
        figure = CalibrationFigure(**{**first, **changes})
        reply = CompareReply(num_examples=9, holdout_rows=40, arms=(), differences=(), calibration=(figure,))
        defect = str(message_defect(reply.to_record(), leaving) or "")
        assert ("calibration" in defect and named in defect) if named else defect == ""
    assert "With it: how the outcomes of a site's holdout rows relate" in " ".join(details(study, site, []))


def test_calibration_of_a_number_is_refused(small_sites, asking):
    text = asking.replace('name = "logistic"', 'name = "linear"')
    with pytest.raises(UsageError, match="calibration is for outcomes that are yes or no"):
        run(Study.parse(text.replace('name = "small"\n[model]', 'name = "diabetes"\n[model]')))
