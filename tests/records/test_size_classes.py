"""The gain over all sites of a size: its interval by simulation and statsmodels, and from the run to the page."""

from itertools import product

import numpy as np
import pytest
from scipy import stats
from statsmodels.api import WLS

import flfed
from flfed.errors import UsageError
from flfed.records.reports.report import report
from flfed.records.reports.site_verdict import too_few
from flfed.records.reports.size_classes import class_lines, classes_in_words
from flfed.records.sections.gains import by_size
from flfed.records.statistics.intervals import LEAST_CLASS_SITES, WeightedGain, class_gain, weigh_auc
from flfed.records.store.reader import RunReader
from flfed.study.study import Study
from flfed.words import render

AUC, LOSS = "roc_auc_score", "log_loss"
STUDY = """
format = 1
name = "small-clinics"
purpose = "Tell malignant from benign breast masses, at many small clinics"
legal-basis = "public data"
seed = 3
[dataset]
name = "breast-cancer"
partition = { by = "quantity", sites = 24, alpha = 1.0, min-rows = 1 }
features = ["mean texture", "mean smoothness"]
[model]
name = "logistic"
[plan]
optimiser = "sgd"
lr = 0.3
batch = 16
[strategy]
name = "fedavg"
rounds = 4
quorum = 0.5
[compare]
site-model = "same"
size-classes = [20]
"""


def test_the_mean_of_a_class_is_the_weighted_one_of_statsmodels_with_its_robust_error():
    rng = np.random.default_rng(0)
    weights, gains = rng.uniform(1, 9, 12), rng.normal(0.03, 0.1, 12)
    found = class_gain([WeightedGain(w, w * g) for w, g in zip(weights, gains, strict=True)], 1)
    theirs = WLS(gains, np.ones(12), weights=weights).fit(cov_type="HC0")
    effective = weights.sum() ** 2 / (weights**2).sum()
    error = theirs.bse[0] * np.sqrt(effective / (effective - 1))
    assert found.value == pytest.approx(theirs.params[0], rel=1e-12)
    assert found.freedom == pytest.approx(effective - 1)
    assert found.high - found.value == pytest.approx(stats.t.ppf(0.975, effective - 1) * error, rel=1e-9)
    wider = class_gain([WeightedGain(w, w * g) for w, g in zip(weights, gains, strict=True)], 3)
    assert wider.high - wider.value == pytest.approx(stats.t.ppf(1 - 0.025 / 3, effective - 1) * error, rel=1e-9)


def test_a_site_without_a_pair_changes_nothing_and_few_sites_or_one_large_one_tell_nothing():
    sites = [WeightedGain(2.0, 0.2 * number) for number in range(LEAST_CLASS_SITES)]
    assert class_gain([*sites, WeightedGain(0.0, 0.0)], 1) == class_gain(sites, 1)
    assert class_gain(sites[1:], 1).value is None
    heavy = class_gain([*sites, WeightedGain(100.0, 1.0)], 1)
    assert heavy.value is None and heavy.freedom < 4 and heavy.sites == LEAST_CLASS_SITES + 1


def drawn_sites(rng, gain, spread):
    """Return 20 sites of 40 to 400 test rows whose scores are normal within a class, a third with the outcome."""
    sites = []
    errors = []
    for rows in rng.integers(40, 400, 20):
        events = max(rng.binomial(rows, 1 / 3), 1)
        own = np.sqrt(2) * stats.norm.ppf(0.78 - gain - spread * rng.normal())
        scores = rng.multivariate_normal([0, 0], [[1, 0.7], [0.7, 1]], rows)
        scores[:events] += (np.sqrt(2) * stats.norm.ppf(0.78), own)
        aucs = [
            stats.mannwhitneyu(column[:events], column[events:]).statistic / (events * (rows - events))
            for column in scores.T
        ]
        weight = events * (rows - events) / rows
        sites.append(WeightedGain(weight, weight * (aucs[0] - aucs[1])))
        errors.append(0.03 / weight)
    return sites, errors


@pytest.mark.proof
@pytest.mark.parametrize(("spread", "by_rows"), [(0.0, True), (0.08, False)])
def test_the_interval_holds_where_sites_differ_and_one_by_rows_does_not(spread, by_rows):
    rng = np.random.default_rng(5)
    covered, pays, plain = [], [], []
    for _ in range(250):
        sites, errors = drawn_sites(rng, 0.0, spread)
        found = class_gain(sites, 1)
        covered.append(found.low <= 0 <= found.high)
        pays.append(found.low > 0.005)
        # The wrong one: rows are independent draws, whatever their site.
        total = sum(site.weight for site in sites)
        error = np.sqrt(sum(site.weight**2 * each for site, each in zip(sites, errors, strict=True))) / total
        plain.append(abs(found.value) <= 1.96 * error)
    assert np.mean(covered) >= 0.92
    assert np.mean(pays) <= 0.04
    assert bool(np.mean(plain) >= 0.9) is by_rows


@pytest.fixture(scope="module")
def small_clinics(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLFED_HOME", str(tmp_path_factory.mktemp("home")))
        run = flfed.run(Study.parse(STUDY), repeats=2)
        with RunReader.open() as reader:
            yield (
                report(reader, run.report["run"]),
                [report(reader, one.run) for one in reader.runs_of(run.report["run"])],
            )


def test_the_classes_of_a_run_are_those_of_its_sites_with_pairs_within_a_site_only(small_clinics):
    found, repeats = small_clinics
    small, large = found["size-classes"]
    assert (small["rows"], large["rows"]) == ([0, 19], [20, None])
    sites = {name: site for name, site in found["sites"].items() if site["rows"] >= 20}
    assert large["sites"] == len(sites) >= LEAST_CLASS_SITES
    weights = {name: [] for name in sites}
    products = {name: [] for name in sites}
    for repeat in repeats:
        for name in sites:
            classes = repeat["sites"][name]["holdout-classes"]
            weight = classes["0"] * classes["1"] / (classes["0"] + classes["1"])
            gain = repeat["sites"][name]["difference"][AUC]["value"]
            assert (gain is None) == (weight == 0)
            weights[name].append(weight)
            products[name].append(weight * (gain or 0.0))
    w = np.array([np.mean(weights[name]) for name in sites])
    wg = np.array([np.mean(products[name]) for name in sites])
    value = wg.sum() / w.sum()
    error = np.sqrt(((wg - value * w) ** 2).sum()) / w.sum()
    effective = w.sum() ** 2 / (w**2).sum()
    reach = stats.t.ppf(1 - 0.025 / 2, effective - 1) * error * np.sqrt(effective / (effective - 1))
    gain = large["gains"][AUC]
    assert gain["value"] == pytest.approx(value, rel=1e-9)
    assert gain["high"] - gain["value"] == pytest.approx(reach, rel=1e-9)
    assert gain["sites"] == (w > 0).sum()
    assert large["gains"][LOSS]["sites"] == len(sites) and large["not-shared"] == 0


def test_a_mean_of_random_effects_would_leave_the_small_sites_out(small_clinics):
    found, _ = small_clinics
    small, large = found["size-classes"]
    # It needs each site's error, and so five test rows of each outcome.
    kept = {name for name, site in found["sites"].items() if too_few(site) is None}
    assert small["gains"][AUC]["sites"] >= 5
    assert all(found["sites"][name]["rows"] >= 20 for name in kept)
    assert found["mean-gain"][AUC]["sites"] == len(kept) < large["gains"][AUC]["sites"]


def test_a_page_has_a_line_and_a_sentence_a_class(small_clinics):
    found, _ = small_clinics
    lines = class_lines(found, AUC)
    assert [line["Sites with"] for line in lines] == ["fewer than 20 rows", "20 rows or more"]
    assert by_size(found, AUC).title == render("report.size-classes.title")
    assert by_size(found, "brier_score_loss") is None
    absent, told = classes_in_words(found, AUC)[:2]
    assert absent.startswith("For sites with fewer than 20 rows there is no gain in AUC: ")
    assert told.startswith(f"For the {found['size-classes'][1]['gains'][AUC]['sites']} sites with 20 rows or more")
    assert by_size({**found, "size-classes": None}, AUC) is None


@pytest.mark.parametrize("sizes", [[50, 20], [20, 20], [1, 20], list(range(2, 13))])
def test_classes_that_do_not_rise_are_refused(sizes):
    with pytest.raises(UsageError, match="size-classes="):
        Study.parse(STUDY.replace("[20]", str(sizes)))


def test_a_site_that_sends_no_counts_is_counted_and_in_no_gain(small_clinics):
    found, _ = small_clinics
    hidden = {**found, "size-classes": [{**found["size-classes"][1], "not-shared": 2}]}
    assert "2 sites sent no figures" in " ".join(classes_in_words(hidden, AUC))
    # One whose rows are not known, is in no class.
    unknown = {**hidden, "sites": found["sites"] | {"hidden": {"rows": None}}}
    assert "3 sites sent no figures" in " ".join(classes_in_words(unknown, AUC))


def test_five_sums_over_three_sites_would_give_each_sites_gain_away():
    """Why gains of a class are not summed under masks: test rows are known, and events are whole numbers."""
    rng = np.random.default_rng(1)
    rows = [24, 37, 45]
    weights = np.array([events * (n - events) / n for n, events in zip(rows, (7, 10, 17))])
    gains = rng.normal(0.08, 0.06, 3)
    sums = [(weights**power * gains**of).sum() for power, of in ((1, 0), (1, 1), (2, 0), (2, 1), (2, 2))]
    possible = [[events * (n - events) / n for events in range(1, n // 2 + 1)] for n in rows]
    fitting = [
        np.array(guess) for guess in product(*possible)
        if abs(sum(guess) - sums[0]) < 1e-9 and abs(np.square(guess).sum() - sums[2]) < 1e-8
    ]  # fmt: skip
    (found,) = fitting
    assert found == pytest.approx(weights)
    # Two linear equations leave a line, and the quadratic one has two points on it.
    system = np.array([found, found**2])
    point = np.linalg.lstsq(system, np.array([sums[1], sums[3]]))[0]
    along = np.linalg.svd(system)[2][-1]
    roots = np.roots([(found**2 * along**2).sum(), 2 * (found**2 * point * along).sum(), found**2 @ point**2 - sums[4]])
    assert min(np.abs(point + root * along - gains).max() for root in roots) < 1e-9


def test_over_eight_sites_two_of_the_five_sums_still_give_away_the_events_of_each():
    """Half of the sites' possible weights are matched to the other half's, so that a laptop needs a second."""
    rows = (24, 25, 26, 32, 34, 39, 43, 48)
    weights = np.array([weigh_auc(n - events, events) for n, events in zip(rows, (9, 3, 11, 14, 6, 17, 20, 22))])
    total, squares = weights.sum(), np.square(weights).sum()
    halves = []
    for half in (rows[::2], rows[1::2]):
        axes = np.meshgrid(*([weigh_auc(n - events, events) for events in range(1, n // 2 + 1)] for n in half))
        halves.append(np.stack([axis.ravel() for axis in axes]))
    first, second = halves
    second = second[:, np.argsort(second.sum(axis=0))]
    rest = total - first.sum(axis=0)
    starts, ends = (np.searchsorted(second.sum(axis=0), rest + reach) for reach in (-1e-9, 1e-9))
    found = []
    for i in np.flatnonzero(ends > starts):
        for j in range(starts[i], ends[i]):
            guess = [*first[:, i], *second[:, j]]
            if abs(np.square(guess).sum() - squares) < 1e-7:
                found.append(guess)
    (guess,) = found
    assert guess == pytest.approx([*weights[::2], *weights[1::2]])
