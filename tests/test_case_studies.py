"""Studies of the article's fields: each figure, its rival, and the fault that must miss it (FIGURES.md §H)."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from flfed import Study, run
from flfed.errors import UsageError
from flfed.federation.server.preflight import check
from flfed.records.reports.narrative import comparison_rows
from flfed.records.statistics.recorded_statistic import statistic_in_words
from flfed.records.statistics.score_curves import ranks_in_words
from flfed.rows.data import datasets
from flfed.rows.data.partition import cut

pytestmark = [pytest.mark.slow, pytest.mark.studies]
ERROR, AUC = "mean_absolute_error", "roc_auc_score"


@pytest.mark.proof
def test_devices_at_home_share_slopes_and_keep_their_own_intercept(telemonitoring):
    study = Study.load("telemonitoring").replace({"compare.resamples": 200})
    done = run(study).report
    assert done["global"][ERROR]["value"] <= 3.40
    assert study.dataset.partition is not None
    sites = cut(datasets.load("telemonitoring"), study.dataset.partition)
    missed = []
    for site in sites:
        table = site.read()
        missed.append(np.abs(table.holdout("test")["total_UPDRS"] - table.training["total_UPDRS"].mean()))
    mean = float(np.concatenate(missed).mean())
    assert (len(sites), mean) == (42, pytest.approx(3.68, abs=0.005))
    assert done["global"][ERROR]["value"] <= mean - 0.2
    # Days of a device are so alike that none has a verdict, and its last score is the better forecast.
    assert {of["verdict"] for of in done["sites"].values()} == {"cannot be told"}
    (naive,) = [line for line in comparison_rows(done)[2] if line.startswith("Without a model")]
    assert "2.60 by the last training value" in naive and "3.68 by the mean of the training rows" in naive


@pytest.mark.proof
def test_the_voice_adds_nothing_to_the_time(telemonitoring):
    alone = Study.load("telemonitoring").replace({"dataset.features": ["test_time"], "compare.resamples": 200})
    assert run(alone).report["global"][ERROR]["value"] == pytest.approx(3.28, abs=0.01)


@pytest.mark.proof
def test_an_intercept_added_afterwards_is_worse_and_without_one_all_are_far_off(telemonitoring):
    changes = {"strategy.name": "fedavg", "compare.resamples": 200}
    done = run(Study.load("telemonitoring").replace(changes)).report
    assert done["global"][ERROR]["value"] > 7
    assert done["personalised"][ERROR]["value"] > 3.40  # found 3.56


FEW = {"compare.resamples": 200}


@pytest.mark.proof
def test_buildings_learn_their_heating_load_together(building_heat):
    assert run(Study.load("building-heat").replace(FEW)).report["global"][ERROR]["value"] <= 1.6
    assert run(Study.load("building-heat-trees").replace(FEW)).report["global"][ERROR]["value"] <= 0.5


@pytest.mark.proof
def test_a_line_is_not_enough_for_the_heating_load(building_heat):
    linear = {"model.name": "linear", "model.hidden": None, "plan.lr": 0.05, **FEW}
    assert 1.9 < run(Study.load("building-heat").replace(linear)).report["global"][ERROR]["value"] < 2.4


@pytest.mark.proof
def test_three_product_lines_learn_together_when_a_machine_fails(machine_faults):
    assert run(Study.load("machine-faults").replace(FEW)).report["global"][AUC]["value"] >= 0.94
    assert run(Study.load("machine-faults-trees").replace(FEW)).report["global"][AUC]["value"] >= 0.96


@pytest.mark.parametrize("leak", ["TWF", "HDF", "PWF", "OSF", "RNF"])
def test_a_study_that_names_how_a_machine_failed_is_refused(leak: str):
    study = Study.load("machine-faults").replace({"dataset.features": ["Torque [Nm]", leak]})
    with pytest.raises(UsageError, match=f"{leak}.*leak|leak.*{leak}"):
        check(study)


@pytest.mark.proof
def test_three_zones_learn_their_power_together_but_for_one(zone_power):
    study = Study.load("zone-power").replace(FEW)
    done = run(study).report
    assert 0.6 < done["global"][ERROR]["value"] <= 0.88
    assert done["global"][ERROR]["value"] < np.abs(held_out(study, "load") - held_out(study, "day_before")).mean() - 0.1
    error = {
        name: (of["global"][ERROR]["value"], of["local-only"][ERROR]["value"]) for name, of in done["sites"].items()
    }
    assert [shared < own for shared, own in error.values()] == [True, True, False]


@pytest.mark.proof
def test_a_zones_name_spoils_the_model_and_the_hours_own_mean_is_refused(zone_power):
    study = Study.load("zone-power").replace(FEW)
    named = study.replace({"dataset.features": ["zone", *study.dataset.features]})
    assert run(named).report["global"][ERROR]["value"] > 0.88
    with pytest.raises(UsageError, match="power"):
        check(study.replace({"dataset.features": ["power", *study.dataset.features]}))


@pytest.mark.proof
def test_states_forecast_next_weeks_admissions_better_than_this_week_does(influenza):
    study = Study.load("influenza").replace(FEW)
    done = run(study).report
    persistence = np.abs(held_out(study, "next") - held_out(study, "now")).mean()
    assert persistence == pytest.approx(0.409, abs=0.0005)
    assert 0.33 < done["global"][ERROR]["value"] <= min(0.403, persistence - 0.005)


@pytest.mark.proof
def test_next_week_among_the_inputs_would_be_seen(influenza):
    dataset = datasets.load("influenza")
    table = dataset.source.table
    assert table is not None
    derived = {**table.derive, "before_3": table.derive["next"] + " + 0"}
    leaking = dataset.source.model_copy(update={"table": table.model_copy(update={"derive": derived})})
    with datasets.in_memory(replace(dataset, source=leaking)):
        assert run(Study.load("influenza").replace(FEW)).report["global"][ERROR]["value"] < 0.33


@pytest.mark.proof
def test_an_alarm_whose_threshold_training_weeks_set_finds_most_high_weeks(influenza):
    study = Study.load("influenza-alarm").replace(FEW)
    done = run(study).report
    (found,) = done["operating-points"]["all"]
    assert (found["by"], found["at"], found["sites"]) == ("false-positive-rate", 0.05, 52)
    assert found["tp"] + found["fn"] == 56
    assert found["tp"] / 56 >= 0.70
    assert found["fp"] / (found["fp"] + found["tn"]) <= 0.06
    # A rule without a model is nearly as good: the page says so.
    rule = roc_auc_score(held_out(study, "alarm") == "yes", -held_out(study, "distance"))
    assert rule > 0.96
    assert done["global"][AUC]["value"] > rule


@pytest.mark.proof
def test_severe_side_effects_go_with_what_a_drug_did(drug_reviews):
    done = run(Study.load("drug-reviews").replace(FEW), repeats=5).report
    assert 0.70 <= done["global"][AUC]["value"] <= 0.80


@pytest.mark.proof
def test_the_rating_leaks(drug_reviews):
    study = Study.load("drug-reviews").replace({**FEW, "dataset.features": ["effectiveness", "condition", "rating"]})
    with pytest.raises(UsageError, match="rating"):
        check(study)
    dataset = datasets.load("drug-reviews")
    columns = {**dataset.schema.columns, "rating": dataset.schema.columns["rating"].model_copy(update={"leak": ""})}
    with datasets.in_memory(replace(dataset, schema=dataset.schema.model_copy(update={"columns": columns}))):
        assert run(study).report["global"][AUC]["value"] > 0.85


@pytest.mark.proof
def test_a_small_network_learns_late_deliveries_better_than_a_line(deliveries):
    # On shipments that nobody trained on; a prototype with lines dealt at random and more columns had 0.823.
    mlp, line = (
        run(Study.load(name).replace(FEW), repeats=5).report for name in ("scms-delivery-mlp", "scms-delivery")
    )
    assert 0.78 <= mlp["global"][AUC]["value"] <= 0.82
    assert mlp["global"][AUC]["value"] > line["global"][AUC]["value"] + 0.03


@pytest.mark.proof
def test_by_time_joining_brings_nothing_on_late_deliveries(deliveries):
    later = {"by": "Scheduled Delivery Date", "train-share": 0.7}
    study = Study.load("scms-delivery-mlp").replace({**FEW, "dataset.partition": {"by": "Country", "holdout": later}})
    done = run(study).report
    assert done["mean-gain"][AUC]["low"] < 0 < done["mean-gain"][AUC]["high"]
    both = [
        [site[arm][AUC]["value"] for arm in ("global", "local-only")]
        for site in done["sites"].values()
        if site["global"].get(AUC, {}).get("value") is not None
    ]
    shared, own = np.mean(both, axis=0)
    assert own > shared - 0.02
    assert done["global"][AUC]["value"] > shared + 0.1  # over all rows it tells countries apart


def test_no_model_forecasts_demand_better_than_the_mean_of_twelve_months(demand):
    study = Study.load("scms-demand").replace(FEW)
    error = run(study).report["global"][ERROR]["value"]
    missed = held_out(study, "next") - held_out(study, "mean_of_12")
    assert float(np.abs(missed).mean()) == pytest.approx(1.908, abs=0.001)
    assert 1.95 < error < 2.15  # the rival is the better one, and the dataset's page says so


def test_stocks_by_the_errors_of_all_countries_miss_as_much_as_by_a_countrys_own(demand):
    found = run(Study.load("scms-safety-stock")).report["statistics"]
    # The whole of it again, from one table.
    table, column = demand.whole_table(), "Delivered to Client Date"
    error = (table["next"] - table["mean_of_12"]).rename("error")
    late = pd.to_datetime(table[column]) > "2013-06-30"
    deviation = np.sqrt((error[~late] ** 2).mean())
    assert found["deviation"]["value"] == pytest.approx(deviation, rel=1e-12)
    assert found["error"]["value"] == pytest.approx(error[late].abs().mean(), rel=1e-12)
    missed: dict[str, list[float]] = {"all-sites": [], "own-last-12": [], "own-last-24": [], "own": []}
    for _, of_country in pd.concat([table["Country"], table[column], error], axis=1).groupby("Country"):
        errors = of_country.sort_values(column)["error"].to_numpy()
        after = pd.to_datetime(of_country.sort_values(column)[column]).to_numpy() > np.datetime64("2013-06-30")
        own = {"own-last-12": errors[~after][-12:], "own-last-24": errors[~after][-24:], "own": errors[~after]}
        for name in missed:
            root = np.sqrt((own[name] ** 2).mean()) if name in own else deviation
            stock = 0.05 * np.ceil(norm.ppf(0.9) * root / 0.05)
            missed[name].append(abs(float((errors[after] <= stock).mean()) - 0.9))
    assert {name: of["miss"]["value"] for name, of in found["stocks"].items()} == pytest.approx(
        {name: float(np.mean(values)) for name, values in missed.items()}
    )
    assert found["stocks"]["all-sites"]["miss"]["value"] <= 0.11
    # A mean of the countries' own deviations is another: a country with few rows would count as one with many.
    assert abs(np.mean([of["deviation"]["value"] for of in found["by-site"].values()]) - deviation) > 0.05
    assert "No difference is shown." in statistic_in_words(found)[0]


def held_out(study: Study, column: str) -> np.ndarray:
    """Return a column's values in all sites' test rows."""
    assert study.dataset.partition is not None
    sites = cut(datasets.load(study.dataset.name), study.dataset.partition)
    return np.concatenate([site.read().holdout("test")[column].to_numpy() for site in sites])


def least_variance(covariance: np.ndarray) -> np.ndarray:
    """Return the weights of least variance, none below 0, that add up to 1."""
    count = len(covariance)
    whole = {"type": "eq", "fun": lambda weights: weights.sum() - 1}
    found = minimize(
        lambda weights: 1e4 * weights @ covariance @ weights, np.full(count, 1 / count),
        jac=lambda weights: 2e4 * covariance @ weights, bounds=[(0, 1)] * count, constraints=[whole], method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 500},
    )  # fmt: skip
    assert found.success
    return found.x


@pytest.mark.proof
def test_custodians_have_the_covariance_of_one_table_and_managers_of_five_stocks_do_not(portfolio):
    found = run(Study.load("portfolio")).report["statistics"]
    covariance, stocks = np.array(found["covariance"]), found["columns"]
    table = datasets.load("portfolio").whole_table()
    np.testing.assert_allclose(covariance, np.cov(table[stocks].T), atol=1e-12, rtol=0)
    own = np.mean([of["covariance"] for of in found["by-site"].values()], axis=0)
    assert np.abs(own - covariance).max() > 1e-6
    # What the weights of 2010 to 2018 did in the four years after, a year's standard deviation.
    source = portfolio.source.table
    assert source is not None
    after = replace(portfolio, source=portfolio.source.model_copy(
        update={"table": source.model_copy(update={"where": "year(Date) >= 2019"})}
    ))  # fmt: skip
    later = after.whole_table()[stocks].to_numpy()

    def volatility(weights: np.ndarray) -> float:
        return float((later @ weights).std(ddof=1) * np.sqrt(252))

    joint = volatility(least_variance(covariance))
    assert joint == pytest.approx(0.185, abs=0.001)
    managers = [np.arange(first, first + 5) for first in range(0, 20, 5)]
    alone, without_cross_terms = [], np.zeros((20, 20))
    for held in managers:
        part = np.ix_(held, held)
        without_cross_terms[part] = covariance[part]
        weights = np.zeros(20)
        weights[held] = least_variance(covariance[part])
        alone.append(volatility(weights))
    assert min(alone) > joint + 0.005
    assert volatility(least_variance(without_cross_terms)) > joint + 0.003


@pytest.mark.proof
def test_no_skill_is_shown_in_the_order_of_stocks_within_a_month(portfolio):
    done = run(Study.load("portfolio-returns").replace(FEW)).report
    found = done["global"]["rank_correlation"]
    assert abs(found["value"]) <= 0.15
    assert found["low"] < 0 < found["high"]
    # Over the twenty stocks of all managers, month by month, and not within each manager.
    within = [site["global"]["rank_correlation"]["value"] for site in done["sites"].values()]
    assert found["value"] != pytest.approx(np.mean(within), abs=1e-6)
    assert "no skill is shown" in " ".join(ranks_in_words(done))


@pytest.mark.proof
def test_next_month_among_the_inputs_would_be_seen(portfolio):
    dataset = datasets.load("portfolio-returns")
    table = dataset.source.table
    assert table is not None
    derived = {**table.derive, "gained_12": table.derive["next"]}
    leaking = dataset.source.model_copy(update={"table": table.model_copy(update={"derive": derived})})
    with datasets.in_memory(replace(dataset, source=leaking)):
        found = run(Study.load("portfolio-returns").replace(FEW)).report["global"]["rank_correlation"]
    assert found["value"] > 0.9


@pytest.mark.proof
def test_recordings_dealt_at_random_lie_between_those_that_were_trained_on(telemonitoring):
    text = Study.load("telemonitoring").text
    later = text[text.index("partition") : text.index("[model]")]
    trees = """
[model]
name = "boosted-trees"
depth = 6

[strategy]
name = "boosted-trees"
rounds = 200
learning-rate = 0.2

[compare]
primary = "mean_absolute_error"
resamples = 200
site-model = "same"
"""
    head = text[: text.index("partition")]
    at_random, by_time = (
        run(Study.parse(f"{head}{cut}{trees}")).report["global"][ERROR]["value"]
        for cut in ('partition = { by = "subject#" }\n', later)
    )
    assert (at_random < 1.4, by_time > 3.2) == (True, True)


RMSE = "root_mean_squared_error"


@pytest.mark.proof
def test_operators_tell_together_how_long_an_engine_lasts(engine_life):
    study = Study.load("engine-life").replace(FEW)
    done = run(study).report
    assert 5 < done["global"][RMSE]["value"] <= 13.5
    assert done["global"][RMSE]["value"] <= done["own-model-everywhere"][RMSE]["value"] - 1
    assert done["global"][RMSE]["value"] < held_out(study, "life").std() / 2


@pytest.mark.proof
def test_flights_of_one_engine_on_both_sides_and_lives_that_are_not_capped_are_other_numbers(engine_life):
    source = engine_life.source.table
    assert source is not None
    # The test engines are left out, and flights dealt at random.
    flights = source.model_copy(update={"where": "part == 'train'"})
    at_random = replace(
        engine_life, schema=engine_life.schema.model_copy(update={"group": ""}),
        source=engine_life.source.model_copy(update={"table": flights}),
    )  # fmt: skip
    trees = Study.load("engine-life-trees").replace({**FEW, "compare.site-model": "same", "strategy.rounds": 200})
    with datasets.in_memory(at_random):
        found = run(trees.replace({"split.fixed": None, "model.depth": 8})).report
        assert found["global"][RMSE]["value"] < 8
    columns = dict(engine_life.schema.columns)
    columns["life"] = columns["life"].model_copy(update={"range": (0.0, 500.0)})
    uncapped = replace(
        engine_life, schema=engine_life.schema.model_copy(update={"columns": columns}),
        source=engine_life.source.model_copy(
            update={"table": source.model_copy(update={"reader": {**source.reader, "cap": 500}})}
        ),
    )  # fmt: skip
    with datasets.in_memory(uncapped):
        more = {**FEW, "compare.site-model": "same"}
        assert run(Study.load("engine-life").replace(more)).report["global"][RMSE]["value"] > 13.5
