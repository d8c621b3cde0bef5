"""The learning curve equals ordinary runs over the cut tables, and says what it left out."""

from dataclasses import replace
from statistics import fmean, stdev

import numpy as np
import pytest

from flfed.errors import FlfedError
from flfed.federation.engines.local_sites import find_sites
from flfed.federation.server.learning_curve import FIRST_DRAW, STAGE, learning_curve
from flfed.records.statistics.learning_curve import by_size, curve_object, curve_rows
from flfed.records.store.entries import LearningPoint
from flfed.rows.comparison.learning_curve import order_of_rows
from flfed.rows.data import datasets
from flfed.rows.data.site import Policy, Site
from flfed.rows.data.sources import Frame
from flfed.rows.session import SiteSession
from flfed.rows.training.requests import Failed, TuneRequest
from flfed.rows.training.stacked.answer import compute_stacked, stacked_compute
from flfed.study.study import Study

pytestmark = [pytest.mark.slow, pytest.mark.studies]  # real studies

DRAWS = (0, FIRST_DRAW + 1)
CHANGE = "personalised - local-only"
T_ONE = 12.706204736  # of Student's t with 1 degree of freedom: P(|T| <= 12.706) = .95


def asked(text: str, rows: list[int], draws: int = 2, **changes: object) -> Study:
    """The study with a learning curve."""
    return Study.parse(text).replace({"compare.curve": {"rows": rows, "draws": draws}, **changes})


def curve_of(study: Study, sites: list[Site]) -> dict[tuple[str, int, str], LearningPoint]:
    """The points by site, rows and arm; 0 rows for the largest of a site."""
    points, reason = learning_curve(study, sites)
    assert reason == ""
    most = {site.name: max(point.rows for point in points if point.site == site.name) for site in sites}
    return {(p.site, 0 if p.rows == most[p.site] else p.rows, p.arm): p for p in points}


def figures_of(run, site: str, metric: str) -> dict[str, float]:
    """What an ordinary run says of one site, by arm and for the difference."""
    found = {f.arm: f.value for f in run.reader.figures(run.run) if (f.site, f.metric) == (site, metric)}
    return found | {CHANGE: found["personalised"] - found["local-only"]}


CHOSEN = {"plan.validation": 0.3, "strategy.select": "best", "plan.lr": 8.0}  # so fast that a later round is worse


def corrected_reach(values: list[float], site: Site, study: Study) -> float:
    """t sd sqrt(1 / draws + holdout rows / training rows): Nadeau and Bengio 2003, equation 8."""
    tables = [SiteSession(site, study, repeat).table for repeat in DRAWS]
    ratio = fmean(table.holdout_rows / len(table.training) for table in tables)
    return T_ONE * stdev(values) * np.sqrt(1 / 2 + ratio)


@pytest.mark.parametrize("changes", [{}, CHOSEN], ids=["last round", "best round by validation rows"])
def test_the_point_of_all_rows_is_the_mean_of_ordinary_runs(small_sites, small_study, conduct, changes):
    sites = small_sites(2, rows=80)
    study = Study.parse(small_study).replace({"compare.primary": "log_loss", **changes})
    runs = [conduct(sites, study.text, repeat=repeat) for repeat in DRAWS]
    assert (min(run.outcome.best_round for run in runs) < 5) == bool(changes)
    points = curve_of(asked(study.text, [1000]), sites)
    for site in sites:
        by_run = [figures_of(run, site.name, "log_loss") for run in runs]
        for arm in ("global", "local-only", "personalised", CHANGE):
            values = [figures[arm] for figures in by_run]
            assert points[site.name, 0, arm].value == pytest.approx(fmean(values), abs=1e-12)
            assert points[site.name, 0, arm].draws == 2
        point = points[site.name, 0, CHANGE]
        reach = corrected_reach([figures[CHANGE] for figures in by_run], site, study)
        np.testing.assert_allclose((point.low, point.high), (point.value - reach, point.value + reach), rtol=1e-8)
        assert point.freedom == 1
        assert point.rows == round(fmean(len(SiteSession(site, study, repeat).table.training) for repeat in DRAWS))


def test_its_federations_have_the_sums_of_the_run(small_sites, small_study, conduct):
    sites = small_sites(3, rows=80)
    study = Study.parse(small_study).replace({"compare.primary": "log_loss", "privacy.secure-aggregation": "on"})
    runs = [conduct(sites, study.text, repeat=repeat) for repeat in DRAWS]
    points = curve_of(asked(study.text, [1000]), sites)
    for site in sites:
        figure = fmean(figures_of(run, site.name, "log_loss")["global"] for run in runs)
        # The curve knows the sites' rows, a run their bands only, so that the ring's grids differ.
        assert points[site.name, 0, "global"].value == pytest.approx(figure, abs=1e-8)
        assert points[site.name, 0, "global"].draws == 2


def test_a_point_of_few_rows_is_the_mean_of_runs_over_tables_that_have_no_others(small_sites, small_study, conduct):
    sites = small_sites(2, rows=80)
    study, found = Study.parse(small_study).replace({"compare.primary": "log_loss", "strategy.fraction": 0.5}), []
    points = curve_of(asked(study.text, [20]), sites)
    for repeat in DRAWS:
        place = SiteSession(sites[1], study, repeat)
        kept = place.table.training.iloc[order_of_rows(place)[:20]]
        left = {*kept["person"], *place.table.holdout("compare")["person"]}
        table = sites[1].source.table
        cut = replace(sites[1], source=Frame(table[table["person"].isin(left)]))
        assert len(left) < len(table)
        found.append(figures_of(conduct([sites[0], cut], study.text, repeat=repeat), cut.name, "log_loss"))
    for arm in ("global", "local-only", "personalised", CHANGE):
        mean = fmean(figures[arm] for figures in found)
        assert points["site-02", 20, arm].value == pytest.approx(mean, abs=1e-12)
        assert points["site-02", 20, arm].value != points["site-02", 0, arm].value
    # the draws' holdouts share as many rows at every size, so the correction is that of all rows
    reach = corrected_reach([figures[CHANGE] for figures in found], sites[1], study)
    point = points["site-02", 20, CHANGE]
    np.testing.assert_allclose((point.low, point.high), (point.value - reach, point.value + reach), rtol=1e-8)


def test_draws_whose_holdout_has_one_class_are_left_out_and_counted(small_sites, small_study):
    def one_ill(number, table):
        table["y"] = np.where(table.index == 3, "yes", "no") if number == 0 else table["y"]
        return table

    sites = small_sites(2, rows=60, change=one_ill)
    study = asked(small_study, [15], draws=4, rounds=1)
    repeats = [0, *(FIRST_DRAW + number for number in range(1, 4))]
    both = [SiteSession(sites[0], study, repeat).table.holdout("compare")["y"].nunique() == 2 for repeat in repeats]
    points = curve_of(study, sites)
    assert 1 < sum(both) < 4
    for rows in (0, 15):
        assert points["site-01", rows, CHANGE].draws == sum(both)
        assert points["site-02", rows, CHANGE].draws == 4
        # the draws that have a figure share the one ill row: their spread is no interval
        assert points["site-01", rows, CHANGE].low is None
        assert points["site-02", rows, CHANGE].low < points["site-02", rows, CHANGE].high
    # the site's training rows are of one class wherever the figure is defined: alone it knows nothing
    assert points["site-01", 0, "local-only"].value == 0.5


def test_a_site_whose_holdout_stays_gets_the_mean_of_the_draws_own_intervals(small_sites, small_study, conduct):
    sites = small_sites(2, rows=200, policy=Policy(outputs=("learning-curve",)))
    points = curve_of(asked(small_study, [5, 40]), sites)
    runs = [conduct(sites, small_study, repeat=repeat) for repeat in DRAWS]
    for site in sites:
        rows = [d for run in runs for d in run.reader.differences(run.run) if d.site == site.name]
        own = [d for d in rows if (d.a, d.b, d.metric) == ("personalised", "local-only", "roc_auc_score")]
        point = points[site.name, 0, CHANGE]
        assert point.low == pytest.approx(fmean(d.low for d in own), abs=1e-12)
        assert point.high == pytest.approx(fmean(d.high for d in own), abs=1e-12)
        assert point.freedom is None
        # 5 rows are fewer than the policy's cell minimum: with so few the site would not take part
        assert (site.name, 5, CHANGE) not in points
        assert points[site.name, 40, CHANGE].draws == 2


def test_an_institution_that_does_not_name_the_output_has_no_curve_and_no_row_read(small_sites, small_study):
    closed = replace(small_sites(1, policy=Policy())[0], name="closed", source=Frame(None))  # reading it would fail
    points, reason = learning_curve(asked(small_study, [10]), [*small_sites(2), closed])
    assert points == []
    assert reason == "no learning curve: the policy of closed does not name the output 'learning-curve'"


def test_without_the_table_there_is_no_curve_and_no_reason(small_sites, small_study):
    assert learning_curve(Study.parse(small_study), small_sites(2)) == ([], "")


def test_a_size_that_a_site_does_not_reach_in_every_draw_is_left_out_and_progress_still_ends_at_all(
    small_sites, small_study
):
    sites, told = small_sites(2, rows=60), []
    study = Study.parse(small_study)
    training = sorted(len(SiteSession(sites[0], study, repeat).table.training) for repeat in DRAWS)
    study = asked(small_study, [training[1] - 1, 1000], rounds=1)
    points, _ = learning_curve(study, sites, progress=lambda *now: told.append(now))
    assert training[0] < training[1]
    assert [point.rows for point in points if point.site == "site-01"] == [round(fmean(training))] * 4
    assert {point.rows for point in points if point.site == "site-02"} >= {training[1] - 1}
    # 2 draws of one federation with all rows and one for each of 2 sites and 2 sizes
    assert told == [(STAGE, done, 10) for done in range(1, 11)]


@pytest.mark.parametrize("model", ["logistic", "mlp"])
def test_reruns_side_by_side_give_the_points_of_one_by_one(small_sites, small_study, model):
    # Sites of unequal size, rows kept for validation, holdouts that stay at one site; groups of three reruns.
    policies = (Policy(disclosure="open"), Policy(outputs=("learning-curve",)))
    sites = [replace(small_sites(2, rows=70 + 50 * n, policy=policy)[n], name=f"site-0{n + 1}")
             for n, policy in enumerate(policies)]  # fmt: skip
    study = asked(small_study, [12, 30], draws=3, rounds=3, **{"model.name": model, "plan.validation": 0.2})
    asked_at_once: list[int] = []

    def answer(requests):
        asked_at_once.append(len(requests))
        return compute_stacked(requests)

    told: dict[str, list] = {"alone": [], "together": []}
    alone, _ = learning_curve(study, sites, progress=lambda *now: told["alone"].append(now))
    together, _ = learning_curve(
        study, sites, answer=answer, at_once=3, progress=lambda *now: told["together"].append(now)
    )
    assert [(p.site, p.rows, p.arm, p.draws, p.metric) for p in together] == [
        (p.site, p.rows, p.arm, p.draws, p.metric) for p in alone
    ]
    figures = [[(p.value, p.low, p.high) for p in points] for points in (together, alone)]
    np.testing.assert_allclose(*(np.array(one, dtype=float) for one in figures), rtol=0, atol=1e-6, equal_nan=True)
    assert np.isfinite(np.array(figures, dtype=float)).sum() > len(figures[0]) * 2
    assert told["together"] == told["alone"]
    assert max(asked_at_once) >= 3 * len(sites)


def test_an_error_in_one_rerun_is_raised_as_one_by_one(small_sites, small_study):
    sites, study = small_sites(2, rows=60), asked(small_study, [15], rounds=1)
    tuned: list[int] = []

    def answer(requests):
        # The first rerun's second model on its own rows cannot be had; all else can.
        results = compute_stacked(requests)
        for place, request in enumerate(requests):
            if isinstance(request, TuneRequest):
                tuned.append(len(request.rows))
                results[place] = Failed(FlfedError("no room")) if len(tuned) == 2 else results[place]
        return results

    with pytest.raises(FlfedError, match="no room"):
        learning_curve(study, sites, answer=answer)
    assert len(tuned) > 2  # the others were not ended by it


def test_on_heart_few_rows_gain_where_published_and_all_rows_gain_at_long_beach_only(heart, test_data):
    dataset = datasets.load("heart-flamby")
    datasets.get(dataset, from_folder=test_data, progress=lambda line: None)
    study = Study.load("fed-heart").replace({"compare.curve": {"rows": [10], "draws": 10}})
    points, _ = learning_curve(study, find_sites(study), answer=stacked_compute())
    curve = curve_object(points)
    gains = {site: {n: arms[CHANGE] for n, arms in sizes.items()} for site, sizes in by_size(curve).items()}
    few = {site: sizes[10]["value"] for site, sizes in gains.items()}
    most = {site: sizes[max(sizes)] for site, sizes in gains.items()}
    # shared/TARGETS.md section 1, twelve re-splits of the 740 rows: +.083, +.192; +.006, -.006, +.110
    assert few["cleveland"] >= 0.03
    assert few["long-beach"] >= 0.08
    assert abs(most["cleveland"]["value"]) <= 0.02
    assert abs(most["hungary"]["value"]) <= 0.02
    assert most["long-beach"]["value"] >= 0.02
    assert {site: max(sizes) for site, sizes in gains.items()} == {
        "cleveland": 199, "hungary": 172, "long-beach": 85, "switzerland": 30,
    }  # fmt: skip
    assert min(point["draws"] for sizes in (gains["cleveland"], gains["hungary"]) for point in sizes.values()) == 10
    words = {sentence.partition(":")[0]: sentence for sentence in curve_rows(curve)[2]}
    for site in ("cleveland", "hungary"):
        assert "with all its" in words[site]
        assert most[site]["low"] < 0 < most[site]["high"]
        assert words[site].partition("with all its")[2].count("no clear gain") == 1
