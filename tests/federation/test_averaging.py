"""What averaging the sites' own fits would have said: against lifelines' fits, and where no own fit leaves a site."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.meta_analysis import combine_effects

from flfed import Study, run
from flfed.cli.run_tables import print_report
from flfed.deployment.gate.message_schema import StudyMessages
from flfed.deployment.site_state.cohorts import cohort_facts
from flfed.federation.server.row_sums import fit_defect
from flfed.records.statistics.regression import Estimate, average_fits
from flfed.rows.data.datasets import load
from flfed.rows.data.schema import Schema
from flfed.rows.data.site import Policy, Site
from flfed.rows.statistics.listed.cox import Cox
from flfed.rows.statistics.listed.glm import Glm
from flfed.rows.statistics.newton import COEFFICIENTS, VARIANCES, fit_shapes, own_fit
from flfed.updates.messages.kinds import STATISTIC
from tests.approval_text import details
from tests.federation.test_estimates import COX, GLM, SECURE
from tests.fitting import fitted
from tests.rows.test_cox import TO_THE_END, gbsg

Small = Callable[..., list[Site]]
OWN_INTERCEPTS = GLM + 'intercept = "site"\n'


@pytest.mark.parametrize(("sites", "own_fits", "distance"), [(3, 3, 0.244), (6, 5, 1.319), (12, 8, 2.431)])
def test_averages_of_own_cox_fits_are_off_by_as_much_as_those_of_lifelines(sites: int, own_fits: int, distance: float):
    case = gbsg(sites)
    model = Cox(time="time", of=case.of)
    figures, _ = fitted(model, case.sites, case.schema)
    names = list(figures["coefficients"])
    fits = {}
    for place, rows in enumerate(case.sites):
        own = own_fit(model, rows, case.schema)
        if not own:
            continue
        part = case.table[case.table["site"] == place][["time", "event", *case.of]]
        alone = type(case.reference())().fit(part, "time", "event", fit_options=TO_THE_END)
        assert own[COEFFICIENTS] == pytest.approx(alone.params_[names].to_numpy(), abs=1e-6)
        assert own[VARIANCES] == pytest.approx(alone.standard_errors_[names].to_numpy() ** 2, rel=1e-6)
        errors = np.sqrt(own[VARIANCES]).tolist()
        named = zip(names, own[COEFFICIENTS].tolist(), errors, strict=True)
        fits[str(place)] = {name: Estimate(value, error) for name, value, error in named}
    of_all = {name: Estimate(one["value"], one["standard-error"]) for name, one in figures["coefficients"].items()}
    averaging = average_fits(fits, sites, of_all)
    assert (averaging.own_fits, averaging.sites_without_fit) == (own_fits, sites - own_fits)
    farthest = averaging.coefficients[averaging.farthest]
    assert abs(farthest.distance) == pytest.approx(distance, abs=0.001)
    for name, average in averaging.coefficients.items():
        values = np.array([own[name].value for own in fits.values()])
        variances = np.array([own[name].standard_error for own in fits.values()]) ** 2
        reference = combine_effects(values, variances, method_re="iterated", use_t=True)
        assert average.value == pytest.approx(reference.mean_effect_fe, abs=1e-12)
        assert average.standard_error == pytest.approx(reference.sd_eff_w_fe, rel=1e-12)
        assert average.random_effects.value == pytest.approx(reference.mean_effect_re, abs=1e-4)
        assert average.random_effects.i2 == pytest.approx(max(0.0, reference.i2), abs=1e-12)
        # The mean of equal weights is another one.
        assert abs(values.mean() - average.value) > 1e-6


@pytest.mark.parametrize("text", [COX, OWN_INTERCEPTS])
def test_own_fits_and_their_average_are_in_record_table_and_file(
    text: str, small_sites: Small, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    done = run(Study.parse(text), sites=small_sites(3, rows=200))
    statistics = done.report["statistics"]
    averaging = statistics["averaging"]
    assert (averaging["own-fits"], averaging["sites-without-fit"]) == (3, 0)
    assert list(averaging["coefficients"]) == list(statistics["coefficients"])
    by_site = statistics["by-site"]
    assert list(by_site) == ["site-01", "site-02", "site-03"]
    for name, average in averaging["coefficients"].items():
        own = [one["coefficients"][name] for one in by_site.values()]
        weights = [1 / one["standard-error"] ** 2 for one in own]
        mean = np.average([one["value"] for one in own], weights=weights)
        assert average["value"] == pytest.approx(mean, abs=1e-12)
        of_all = statistics["coefficients"][name]
        assert average["distance"] == pytest.approx((mean - of_all["value"]) / of_all["standard-error"], abs=1e-12)
    print_report(done.report)
    shown = " ".join(capsys.readouterr().out.split())
    assert "Average of the sites' own fits" in shown and "I²" in shown
    assert "Averaging the own fits of 3 of 3 sites would have given" in shown


OPEN = Policy(disclosure="open")


@pytest.mark.parametrize(("text", "why"), [
    (OWN_INTERCEPTS + SECURE, "in secure aggregation no site's own coefficients leave it"),
    (GLM, "with one intercept for all sites it would estimate something else"),
])  # fmt: skip
def test_without_own_fits_the_record_says_why(text: str, why: str, small_sites: Small):
    statistics = run(Study.parse(text), sites=small_sites(3, rows=120, policy=OPEN)).report["statistics"]
    assert why in statistics["averaging"]["why"]
    assert statistics["averaging"]["coefficients"] == {} and statistics["by-site"] == {}


def test_a_site_whose_rows_have_one_value_of_a_column_has_no_own_fit(small_sites: Small):
    def one_value(number: int, table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(flag=1) if number == 0 else table

    statistics = run(Study.parse(OWN_INTERCEPTS), sites=small_sites(3, rows=200, change=one_value)).report["statistics"]
    assert statistics["averaging"]["sites-without-fit"] == 1
    assert list(statistics["by-site"]) == ["site-02", "site-03"]


def test_the_gate_lets_an_own_fit_leave_an_open_site_outside_secure_sums(small_sites: Small):
    site, *_ = small_sites(3)

    def allows_fit(policy: Policy, text: str = OWN_INTERCEPTS, pins: tuple[str, ...] = ()) -> bool:
        cohort = cohort_facts(dict.fromkeys(pins, "ab" * 32), changed=False) if pins else {}
        messages = StudyMessages(Study.parse(text), load("small").schema, replace(site, policy=policy), cohort)
        return "fit" in messages.leaving(STATISTIC)

    assert allows_fit(OPEN)
    assert not allows_fit(OPEN, GLM)
    assert not allows_fit(OPEN, OWN_INTERCEPTS + SECURE, ("site-01", "site-02", "site-03"))
    assert not allows_fit(Policy(disclosure="institution"))
    words = " ".join(details(Study.parse(OWN_INTERCEPTS), site, ["site-02", "site-03"]))
    # Four coefficients and four variances.
    assert "coefficients and variances of a fit to its own rows, 8 numbers" in words


def test_a_server_refuses_a_fit_of_another_shape_or_without_variance():
    case = gbsg()
    model = Cox(time="time", of=case.of)
    shapes = fit_shapes(model, case.schema)
    good = own_fit(model, case.sites[0], case.schema)
    assert fit_defect(good, shapes) is None and fit_defect({}, shapes) is None
    coefficients, variances = good[COEFFICIENTS], good[VARIANCES]
    for wrong in (
        {COEFFICIENTS: coefficients},
        {COEFFICIENTS: coefficients, VARIANCES: -variances},
        {COEFFICIENTS: coefficients[:2], VARIANCES: variances[:2]},
        {COEFFICIENTS: coefficients * np.nan, VARIANCES: variances},
    ):
        assert fit_defect(wrong, shapes) is not None


@pytest.mark.parametrize("counts", [[1, 1], [1, 2, 1, 2], [3, 5], [4, 4]])
def test_rows_that_a_robust_model_fits_exactly_have_no_own_fit(counts: list[int]):
    columns = {
        "n": {"kind": "number", "range": (0, 9)},
        "f": {"kind": "flag"},
        "y": {"kind": "target", "values": ["a", "b"]},
    }
    schema = Schema.model_validate({"name": "made", "task": "binary", "target": "y", "columns": columns})
    table = pd.DataFrame({"n": np.array(counts, dtype=float), "f": np.arange(len(counts)) % 2.0, "y": "a"})
    model = Glm(family="poisson", of=["f"], outcome="n", intercept="site", robust=True)
    assert own_fit(model, table, schema) == {}
