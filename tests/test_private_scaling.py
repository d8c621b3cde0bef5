"""The encoder from noised counts: what it is made of, what noise does to it, and what models lose by it."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from flfed.federation.engines.engine import find_sites
from flfed.rows.features.encode import coded
from flfed.rows.session import SiteSession
from flfed.rows.statistics.noised_counts import STEP, GaussianQuery, clipped, person_weights
from flfed.rows.study_model import first_model
from flfed.rows.training.private_fit import private_fit
from flfed.rows.training.private_noise import NoiseSource, SeededNoise
from flfed.rows.training.requests import FitRequest
from flfed.study.plan import PrivateSteps
from flfed.study.study import Study
from flfed.summaries.private_scaling import (
    CELLS,
    NoisedCells,
    cell_edges,
    center_and_scale,
    counted_columns,
    number_cells,
    private_encoder,
    sensitivities,
    shares_of,
)
from flfed.summaries.summary import ColumnLayout, Encoder, Layout, fit_encoder, merge, schema_encoder
from flfed.updates.accounting import TrainingReleases, TrainingShares, noise_for, training_releases

NO_NOISE = 1e-9
HEART = {
    "encode.scaler": "schema", "rounds": 10, "plan.steps": 10, "plan.schedule": "constant", "plan.l2": 0.0,
    "privacy.name": "record-dp", "privacy.delta": 4e-4, "privacy.clip": 1.0, "privacy.sampling": 0.25,
}  # fmt: skip
"""What heart-disease has of breast-cancer-dp in place of its own; δ by the rows of the largest hospital."""
BANKS = {
    "encode.scaler": "schema", "plan.batch": None, "strategy.flag-norm": 100.0, "strategy.refuse-norm": 100.0,
    "privacy.name": "record-dp", "privacy.delta": 1e-5, "privacy.clip": 4.0, "privacy.sampling": 0.1,
}  # fmt: skip
"""What taiwan-credit has in place of its own; of 330 rows an update is mostly noise, far above ten medians."""
RATES = {
    ("breast-cancer", 3.0): 0.3, ("breast-cancer", 1.0): 0.1,
    ("taiwan-credit", 3.0): 0.5, ("taiwan-credit", 1.0): 0.25,
}  # fmt: skip
"""Learning rates at each ε, chosen on training rows kept apart."""
Made = Callable[[list[SiteSession], TrainingReleases, NoiseSource], Encoder]


def number(low: float, high: float, **others: object) -> ColumnLayout:
    return ColumnLayout(name="x", kind="number", cells=("missing",), edges=(low, high), **others)  # type: ignore[arg-type]


AREA = number(0.0, 32000.0)
KINDS: dict[str, tuple[ColumnLayout, Callable[[np.random.Generator, int], np.ndarray]]] = {
    "area": (AREA, lambda rng, rows: np.exp(rng.normal(np.log(550), 0.5, rows))),
    "radius": (number(0.0, 100.0), lambda rng, rows: rng.normal(14, 3.5, rows)),
    "age": (number(15.0, 110.0), lambda rng, rows: rng.normal(55, 9, rows)),
    "bill": (number(-1e8, 1e8), lambda rng, rows: 4e4 + 3e4 * rng.standard_t(2.5, rows)),
    "error": (number(0.0, 1.0), lambda rng, rows: rng.exponential(0.003, rows)),
    "delay": (
        number(-2.0, 9.0),
        lambda rng, rows: rng.choice(np.arange(-2.0, 5), rows, p=(0.1, 0.2, 0.48, 0.1, 0.08, 0.02, 0.02)),
    ),
}
"""Columns with a range from a definition, and how values lie in it."""


# Cells


def test_cells_are_even_in_asinh_about_0_and_follow_from_the_range_alone():
    edges = cell_edges(number(-100.0, 100.0))
    # The unit is 0.2: asinh(100 / 0.2) = 6.9078, a sixteenth of which is 0.43173; 0.2 sinh(0.43173) = 0.08906.
    assert edges[[0, 16, 17, 32]] == pytest.approx([-100, 0, 0.08906, 100], abs=1e-5)
    assert np.diff(np.arcsinh(edges / 0.2)) == pytest.approx(np.full(CELLS, 0.43173), abs=1e-5)
    # Far from 0 a narrow range is cut evenly: asinh is a logarithm there, of 1,990 to 2,020.
    assert np.ptp(np.diff(cell_edges(number(1990.0, 2020.0)))) < 0.02
    assert np.ptp(np.diff(cell_edges(number(0.0, 18.4, transform="log1p")))) < 1e-9


def about_the_middle(column: ColumnLayout) -> np.ndarray:
    """Return edges of a wrong encoder: even in asinh about the middle of the range."""
    unit = (column.edges[-1] - column.edges[0]) / 1000
    return column.middle + unit * np.sinh(np.linspace(-math.asinh(500), math.asinh(500), CELLS + 1))


def test_areas_lie_in_many_cells_about_0_and_in_two_about_the_middle_of_their_range():
    values = KINDS["area"][1](np.random.default_rng(1), 1000)
    assert np.count_nonzero(number_cells(AREA, values, np.ones(1000)) > 20) >= 8
    assert np.count_nonzero(np.histogram(values, about_the_middle(AREA))[0] > 20) <= 2
    # What the schema takes the logarithm of has no unit of a thousandth of its logarithms: nearly all in two cells.
    limits = np.log1p(np.exp(np.random.default_rng(1).normal(np.log(150_000), 0.8, 1000)))
    even, curved = (number_cells(number(0.0, 18.42, transform=scale), limits, np.ones(1000)) for scale in ("log1p", ""))
    assert np.count_nonzero(even > 20) >= 7 > 4 > np.count_nonzero(curved > 20)


def test_values_beyond_the_range_are_in_the_nearest_cell_and_missing_ones_in_their_own():
    values = np.array([-5.0, 0.0, 32000.0, 1e9, np.nan, np.nan])
    weights = np.array([1.0, 0.5, 1.0, 1.0, 0.25, 1.0])
    counts = number_cells(AREA, values, weights)
    assert (counts[0], counts[CELLS - 1], counts[CELLS], counts.sum()) == (1.5, 2.0, 1.25, 4.75)


def exact_cells(session: SiteSession, gone: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return a site's exact counts, as it noises them: of numbers, of all else."""
    rows = coded(session.table.training, session.layout)
    rows = rows if gone is None else rows.take(~gone)
    numbers, others = counted_columns(session.layout)
    weights = np.ones(rows.rows)
    return (
        np.array([number_cells(column, rows.scaled(column), weights) for column in numbers]),
        np.concatenate([np.bincount(rows.codes[c.name], weights, minlength=len(c.cells)) for c in others]),
    )


@pytest.mark.parametrize("study", ["breast-cancer", "heart-disease"])
def test_a_person_moves_an_answer_by_as_much_as_is_charged(study: str, request: pytest.FixtureRequest):
    if study == "heart-disease":
        request.getfixturevalue("heart")
    chosen = Study.load(study)
    session = SiteSession(find_sites(chosen)[0], chosen)
    of_numbers, of_others = sensitivities(session.layout)
    assert (of_numbers**2, of_others**2) == pytest.approx({"breast-cancer": (30, 1), "heart-disease": (6, 8)}[study])
    one = np.arange(len(session.table.training)) == 3
    apart = [a - b for a, b in zip(exact_cells(session), exact_cells(session, one), strict=True)]
    # In each column the person is in one cell, also where the value is missing: the bound is met, and not passed.
    assert [np.linalg.norm(difference) for difference in apart] == pytest.approx([of_numbers, of_others])
    # A person of three rows that lie in three cells moves less by weights of a third, and more without them.
    values, weights = np.array([100.0, 900.0, 9000.0]), person_weights(np.zeros(3, dtype=int), 3)
    moved = [np.linalg.norm(number_cells(AREA, values, each)) for each in (weights, np.ones(3))]
    assert moved == pytest.approx([3**-0.5, 3**0.5], abs=4 * STEP)


# Centre and scale


def scaled(counts: np.ndarray, column: ColumnLayout, deviation: float, rows: float) -> tuple[float, float] | None:
    return center_and_scale(
        counts, cell_edges(column), deviation=deviation, rows=rows, most_scale=schema_encoder_scale(column)
    )


def schema_encoder_scale(column: ColumnLayout) -> float:
    return (column.edges[-1] - column.edges[0]) / 4


@pytest.mark.parametrize("kind", KINDS)
def test_of_exact_counts_they_are_median_and_spread_within_a_cell(kind: str):
    column, draw = KINDS[kind]
    values = draw(np.random.default_rng(2), 20_000)
    low, median, high = np.quantile(values, [0.05, 0.5, 0.95])
    found = scaled(number_cells(column, values, np.ones(20_000))[:-1], column, NO_NOISE, 20_000)
    assert found is not None
    deviation = (high - low) / 3.2897  # 1.6449 deviations to each side of a normal distribution
    assert abs(found[0] - median) < 0.1 * deviation
    assert found[1] == pytest.approx(deviation, rel=0.5)


def of_positive_counts(counts: np.ndarray, edges: np.ndarray) -> tuple[float, float]:
    """Return what a wrong encoder has: quantiles of all counts that are not below 0."""
    below = np.concatenate([[0.0], np.cumsum(np.maximum(counts, 0.0))])
    low, median, high = np.interp(np.array([0.05, 0.5, 0.95]) * below[-1], below, edges)
    return median, (high - low) / 3.2897


def test_in_noise_few_scales_are_off_by_three_and_wrong_ways_to_read_the_cells_have_many():
    # 650 rows and a deviation of 31 are those of heart-disease at an epsilon of 1, over four hospitals.
    rng, rows, noise = np.random.default_rng(3), 650, 31.0
    off: dict[str, list[tuple[float, float]]] = {way: [] for way in ("ours", "undropped", "two alone", "middle")}
    for _ in range(150):
        for column, draw in KINDS.values():
            values = draw(rng, rows).clip(column.edges[0], column.edges[-1])
            low, median, high = np.quantile(values, [0.05, 0.5, 0.95])
            edges, middle = cell_edges(column), about_the_middle(column)
            added, most = rng.normal(0, noise, CELLS), schema_encoder_scale(column)
            noised = number_cells(column, values, np.ones(rows))[:-1] + added
            found = {
                "ours": center_and_scale(noised, edges, deviation=noise, rows=rows, most_scale=most),
                "undropped": of_positive_counts(noised, edges),
                "two alone": of_positive_counts(np.where(noised < 2 * noise, 0, noised), edges),
                "middle": center_and_scale(
                    np.histogram(values, middle)[0] + added, middle, deviation=noise, rows=rows, most_scale=most
                ),
            }
            deviation = (high - low) / 3.2897
            for way, told in found.items():
                if told is not None:
                    off[way].append((abs(told[0] - median) / deviation, told[1] / deviation))
    far, large, small = (
        {way: float(np.mean(test(np.array(each)))) for way, each in off.items()}
        for test in (lambda a: a[:, 0] > 1, lambda a: a[:, 1] > 3, lambda a: a[:, 1] < 1 / 3)
    )
    assert len(off["ours"]) > 890
    assert far["ours"] < 0.02 and small["ours"] < 0.07 and large["ours"] < 0.13
    assert large["undropped"] > 0.5 and large["two alone"] > 0.15 and large["middle"] > 0.4 and far["middle"] > 0.2


def test_a_cell_below_two_deviations_moves_nothing_and_one_alone_has_to_have_three():
    values = KINDS["area"][1](np.random.default_rng(4), 2000)
    exact = number_cells(AREA, values, np.ones(2000))[:-1]
    without = scaled(exact, AREA, 20.0, 2000)
    assert without is not None
    for deviations, moves in ((1.9, False), (2.9, False), (6.5, True)):
        counts = exact.copy()
        counts[-1] = deviations * 20.0
        found = scaled(counts, AREA, 20.0, 2000)
        # 130 of 2,000 rows at the end of the range are more than 5 %, and are the upper quantile.
        assert (found is not None and found[1] > 3 * without[1]) is moves
        assert found == without or moves


def test_few_rows_beside_a_cell_with_nearly_all_are_no_large_inputs():
    # 93 % are 0, the others about 100: the quantiles 5 and 95 % lie in the cell of 0, which is 0.1 wide.
    column = number(0.0, 1000.0)
    values = np.where(np.random.default_rng(5).random(20_000) < 0.93, 0.0, 100.0)
    found = scaled(number_cells(column, values, np.ones(20_000))[:-1], column, 5.0, 20_000)
    assert found is not None and found[1] == pytest.approx(values.std(), rel=0.25)
    assert of_positive_counts(number_cells(column, values, np.ones(20_000))[:-1], cell_edges(column))[1] > 5
    # Where they are lost in the noise nothing is known of them: the schema's scale stands.
    rare = np.zeros(20_000)
    rare[:20] = 100.0
    assert scaled(number_cells(column, rare, np.ones(20_000))[:-1], column, 100.0, 20_000) == (
        pytest.approx(0.07, abs=0.08), 250.0,
    )  # fmt: skip


def test_fewer_rows_than_twelve_deviations_tell_no_scale():
    exact = number_cells(AREA, KINDS["area"][1](np.random.default_rng(6), 400), np.ones(400))[:-1]
    assert scaled(exact, AREA, 400 / 11.9, 400) is None
    assert scaled(exact, AREA, 400 / 12.1, 400) is not None
    assert scaled(np.zeros(CELLS), AREA, 1.0, 400) is None  # all cells dropped


# The encoder

FLAG = ColumnLayout(name="flag", kind="flag", cells=("0", "1", "missing"))
COLOUR = ColumnLayout(name="colour", kind="category", cells=("red", "green", "blue", "missing"))
OUTCOME = ColumnLayout(name="y", kind="category", cells=("no", "yes", "missing"))
SMALL = Layout(features=(replace(AREA, cells=("all", "missing")), FLAG, COLOUR), target=OUTCOME, task="binary")
VALUES = np.array([600.0, 200, 200, 500, 500, 0, 0, 750, 250, 0])
"""Exact counts of 1,000 rows: of the flag, the colour and the outcome."""


def small_cells(numbers_deviation: float = NO_NOISE, values_deviation: float = NO_NOISE) -> NoisedCells:
    values = KINDS["area"][1](np.random.default_rng(7), 1000)
    values[:100] = np.nan
    return NoisedCells(
        numbers=number_cells(AREA, values, np.ones(1000))[None], numbers_deviation=numbers_deviation,
        values=VALUES, values_deviation=values_deviation,
    )  # fmt: skip


def test_of_exact_counts_the_encoder_has_the_shares_of_the_exact_one():
    found, schema = private_encoder(SMALL, small_cells()), schema_encoder(SMALL)
    assert found.center[0] == pytest.approx(550, rel=0.1) and found.scale[0] == pytest.approx(330, rel=0.25)
    # Among rows that have one; of "missing" among all rows. A share of 0 is divided by the floor.
    assert found.frequency[1:] == pytest.approx([0.1, 0.75, 0.25, 0.2, 0.5, 0.5, 0, 0, 0.75, 0.25, 0])
    assert found.spread[1:] == pytest.approx([0.3, 0.433, 0.433, 0.4, 0.5, 0.5, 0.1, 0.1, 0.433, 0.433, 0.1], abs=1e-3)
    assert found.class_weight == pytest.approx([2 / 3, 2.0])  # 1,000 rows / (2 classes × rows of each)
    assert {name: array.shape for name, array in found.arrays().items()} == {
        name: array.shape for name, array in schema.arrays().items()
    }


def test_what_is_lost_in_the_noise_is_as_the_schema_has_it():
    schema, lost = schema_encoder(SMALL), private_encoder(SMALL, small_cells(1000.0, 1000.0))
    for name, array in schema.arrays().items():
        np.testing.assert_allclose(lost.arrays()[name], array, rtol=1e-9, atol=1e-9)
    part = private_encoder(SMALL, small_cells(1000.0, 20.0))
    assert part.center[0] == schema.center[0] and part.frequency[1] == 0 and part.frequency[3] == 0.25


def test_a_share_near_0_is_divided_by_what_it_may_be():
    # 8 of 400, give or take 40: a tenth and more may have it. Divided by 0.1 its indicator would be 9.8.
    shares, spread = shares_of(np.array([392.0, 8.0, -30.0]), 400.0, 40.0)
    assert shares == pytest.approx([0.98, 0.02, 0])
    assert spread == pytest.approx([math.sqrt(0.88 * 0.12), math.sqrt(0.88 * 0.12), 0.3])
    assert shares_of(np.array([180.0]), 400.0, 40.0)[1] == 0.5


def test_counts_of_sites_add_up_and_so_do_the_squares_of_their_noise():
    merged = NoisedCells.merged([small_cells(3.0, 6.0), small_cells(4.0, 8.0)])
    assert (merged.numbers_deviation, merged.values_deviation) == (5.0, 10.0)
    assert merged.values == pytest.approx(2 * VALUES) and merged.numbers.sum() == 2000
    with pytest.raises(ValueError, match="no counts"):
        NoisedCells.merged([])


def test_a_plain_layout_counts_the_target_alone():
    target = replace(AREA, cells=("all", "missing"))
    plain = Layout(features=(FLAG, COLOUR), target=target, task="regression", plain=True)
    assert sensitivities(plain) == (1.0, 0.0)
    cells = replace(small_cells(), values=np.empty(0))
    found = private_encoder(plain, cells)
    assert (found.center[-1], found.scale[-1]) == (pytest.approx(550, rel=0.1), 32000)
    assert len(found.class_weight) == 0


# What models lose


def noised(sessions: list[SiteSession], releases: TrainingReleases, chance: NoiseSource) -> NoisedCells:
    """Return all sites' counts, each with its own noise."""
    of_numbers, of_others = sensitivities(sessions[0].layout)
    queries = (
        GaussianQuery(sensitivity=of_numbers, noise=releases.histograms.noise),
        GaussianQuery(sensitivity=of_others, noise=releases.sums.noise),
    )
    found = []
    for session in sessions:
        numbers, values = (q.answer(exact, chance) for q, exact in zip(queries, exact_cells(session), strict=True))
        found.append(NoisedCells(
            numbers=numbers, numbers_deviation=queries[0].deviation,
            values=values, values_deviation=queries[1].deviation,
        ))  # fmt: skip
    return NoisedCells.merged(found)


def private(sessions: list[SiteSession], releases: TrainingReleases, chance: NoiseSource) -> Encoder:
    return private_encoder(sessions[0].layout, noised(sessions, releases, chance))


def exact(sessions: list[SiteSession], releases: TrainingReleases, chance: NoiseSource) -> Encoder:
    return fit_encoder(sessions[0].layout, merge([session.summary() for session in sessions]))


def of_ranges(sessions: list[SiteSession], releases: TrainingReleases, chance: NoiseSource) -> Encoder:
    """Return a wrong encoder: the schema's ranges as scale, of bills ± 10^8."""
    layout = sessions[0].layout
    columns = tuple(replace(column, typical=None) for column in layout.features)
    return schema_encoder(replace(layout, features=columns))


def of_moments(sessions: list[SiteSession], releases: TrainingReleases, chance: NoiseSource) -> Encoder:
    """Return a wrong encoder: mean and deviation from sums of values clipped to the range, and of their squares."""
    layout, encoder = sessions[0].layout, schema_encoder(sessions[0].layout)
    numbers = layout.features
    query = GaussianQuery(sensitivity=math.sqrt(3 * len(numbers)), noise=releases.histograms.noise, step=STEP)
    sums = np.zeros((len(numbers), 3))
    for session in sessions:
        rows = coded(session.table.training, layout)
        ones = np.ones(rows.rows)
        scaled_values = [clipped(rows.scaled(c), c.edges[0], c.edges[-1], ones) for c in numbers]
        squares = [np.trunc(z**2 / STEP) * STEP for z in scaled_values]
        exact_sums = [(rows.rows, z.sum(), square.sum()) for z, square in zip(scaled_values, squares, strict=True)]
        sums = sums + query.answer(np.array(exact_sums), chance)
    center, scale = encoder.center.copy(), encoder.scale.copy()
    for place, (column, (count, total, square)) in enumerate(zip(numbers, sums, strict=True)):
        variance = square / count - (total / count) ** 2
        center[place] = column.middle + column.half * np.clip(total / count, -1, 1)
        # Where noise has made it negative nothing is known of it, and the range stands.
        scale[place] = column.half * math.sqrt(variance if variance > 0 else 1)
    return replace(encoder, center=center, scale=scale)


def area_under_curve(sessions: list[SiteSession], encoder: Encoder, noise: float, seed: int) -> float:
    """Return the AUC over all holdouts of a model that sites train with this noise, and average by rows."""
    study, model, rng = sessions[0].study, sessions[0].model, np.random.default_rng(seed)
    steps = study.privacy.settings
    protected = PrivateSteps(clip=steps["clip"], noise=noise, sampling=steps["sampling"])
    arrays = first_model(study, sessions[0].schema)
    rows = [session.encode_training(encoder) for session in sessions]
    weights = np.array([len(site) for site in rows]) / sum(len(site) for site in rows)
    for number in range(1, study.rounds + 1):
        fits = [
            private_fit(FitRequest(
                model=model, task="binary", arrays=arrays, rows=site, plan=study.plan, rng=rng,
                lr=study.plan.lr * study.plan.factor(number, study.rounds), private=protected, chance=SeededNoise(rng),
            )).arrays
            for site in rows
        ]  # fmt: skip
        arrays = {name: sum(w * fit[name] for w, fit in zip(weights, fits, strict=True)) for name in arrays}
    held = [session.encode(session.table.holdout("test"), encoder) for session in sessions]
    x, y = np.concatenate([site.x for site in held]), np.concatenate([site.y for site in held])
    outputs = model.outputs({name: torch.tensor(array) for name, array in arrays.items()}, torch.tensor(x))
    return float(roc_auc_score(y, outputs.numpy().ravel()))


def loss(study: Study, repeats: int, made: Made, shares: TrainingShares | None = None) -> float:
    """Return how far the AUC is below that of private training with the exact encoder, mean of re-splits."""
    steps, count = study.privacy.settings, study.plan.steps * study.rounds
    budget = (steps["epsilon"], steps["delta"])
    releases = training_releases(shares or TrainingShares(), *budget, sampling=steps["sampling"], steps=count)
    alone, found = noise_for(*budget, steps["sampling"], count), []
    for repeat in range(1, repeats + 1):
        sessions = [SiteSession(site, study, repeat) for site in find_sites(study)]
        chance = SeededNoise(np.random.default_rng(repeat))
        ways = ((exact, alone), (made, releases.training.noise))
        of_exact, of_made = (
            area_under_curve(sessions, way(sessions, releases, chance), noise, repeat) for way, noise in ways
        )
        found.append(of_exact - of_made)
    return float(np.mean(found))


def protected(name: str, epsilon: float) -> Study:
    """Return a study of one dataset at this ε."""
    settings = {"plan.lr": RATES[name.replace("heart-disease", "breast-cancer"), epsilon], "privacy.epsilon": epsilon}
    if name == "breast-cancer":
        return Study.load("breast-cancer-dp-3").replace(settings)
    return Study.load(name).replace({**(HEART if name == "heart-disease" else BANKS), **settings})


def test_breast_cancer_loses_a_hundredth_at_most_and_more_by_moments_of_clipped_sums():
    study = protected("breast-cancer", 3.0)
    assert loss(study, 8, private) <= 0.01
    # Of the ranges 0.2 % is the spread of an area's error: its moments are lost in noise. In 20 re-splits 0.021.
    assert loss(study, 8, of_moments) > 0.015


@pytest.mark.studies
@pytest.mark.proof
@pytest.mark.usefixtures("heart")
@pytest.mark.parametrize("shares", [TrainingShares(), TrainingShares.with_own()], ids=["", "own model charged"])
@pytest.mark.parametrize(("epsilon", "most"), [(3.0, 0.01), (1.0, 0.025)])
@pytest.mark.parametrize("name", ["breast-cancer", "heart-disease"])
def test_twenty_re_splits_lose_little_to_the_encoder_and_its_share(name, epsilon, most, shares):
    # Measured at 3 and 1: breast cancer 0.002 and 0.008, heart disease 0.002 and 0.002; own charged at most 0.009.
    assert loss(protected(name, epsilon), 20, private, shares) <= most


@pytest.mark.studies
@pytest.mark.proof
@pytest.mark.usefixtures("taiwan")
@pytest.mark.parametrize(("epsilon", "most"), [(3.0, 0.01), (1.0, 0.025)])
def test_banks_lose_little_and_more_by_ranges_of_a_hundred_million_as_scale(epsilon: float, most: float):
    study = protected("taiwan-credit", epsilon)
    # Measured at 3 and 1: 0.001 and 0.004.
    assert loss(study, 5, private) <= most
    if epsilon == 3.0:
        assert loss(study, 5, of_ranges) > most
