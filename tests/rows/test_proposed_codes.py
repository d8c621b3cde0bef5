"""Codes, identifiers and odd cells of proposed columns: told by where values lie and how often they stand."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest

from flfed.rows.data import datasets, site_discovery
from flfed.rows.data.findings.columns import odd_units
from flfed.rows.data.mapping import read_column
from flfed.rows.data.parsing.fields import Field
from flfed.rows.data.partition import cut
from flfed.rows.proposals.cells import find_far, marks_of
from flfed.rows.proposals.columns import propose_column
from flfed.rows.proposals.targets import propose_target
from flfed.study.study import Study

RNG = np.random.default_rng(0)
AGES = RNG.normal(60, 12, 900).round().astype(int)
FIRST = ["Ann", "Bob", "Cleo", "Dan", "Eve", "Finn", "Gus", "Hal", "Ida", "Jon", "Kim", "Leo", "Mia", "Ned"]


def codes_of(count: int, rows: int) -> np.ndarray:
    """Return codes from 100 on, each as frequent as chance has it."""
    return RNG.choice(count, rows, p=RNG.dirichlet(np.ones(count))) + 100


INDUSTRIES = np.array([531110, 531120, 531130, 531190, 531210, 531311, 532111, 532230, 533110])


@pytest.mark.parametrize(("name", "cells", "kind"), [
    # Neighbours are about as frequent: amounts, though the name speaks of an index or a number.
    ("age_at_index", AGES, "number"), ("age_at_index", AGES[:300], "number"),
    ("customers", RNG.normal(600, 100, 5000).round(), "number"),
    ("amount_paid", RNG.lognormal(7, 1, 900) // 10 * 10, "number"),
    # They are not, or all are alike: the name says the rest.
    ("hospitalid", codes_of(15, 900), "id"), ("hospitalid", codes_of(180, 2500), "id"),
    ("wardid", [f"W{code}" for code in codes_of(6, 900)], "id"), ("patient_no", np.repeat(np.arange(450), 2), "id"),
    ("admission_type_id", codes_of(6, 900), "category"),
    ("industry", INDUSTRIES[codes_of(9, 900) - 100], "category"),
    # Names of people stand under any heading with titles, and under headings of people.
    ("doctor", [f"Dr. {name}" for name in RNG.choice(FIRST, 900)], "id"), ("first", RNG.choice(FIRST, 900), "id"),
    ("nurse", [f"{name} Roe" for name in RNG.choice(FIRST[:5], 900)], "id"),
    ("contact", [f"{name}@ward.org" for name in RNG.choice(FIRST, 900)], "id"),
    ("product_name", RNG.choice(["Green Tea", "Black Tea", "Ice Coffee"], 900), "category"),
    ("first", RNG.integers(0, 100, 900) / 4, "number"), ("selected", RNG.choice([0, 1], 900), "left-out"),
])  # fmt: skip
def test_how_values_repeat_tells_codes_from_amounts(name: str, cells: object, kind: str):
    assert propose_column(name, pd.Series(cells)).kind == kind


@pytest.mark.parametrize(
    ("code", "rows", "missing"),
    [(-1, 30, (-1.0,)), (-1, 9, ()), (-200, 30, (-200.0,)), (99, 40, (99.0,)), (999, 12, (999.0,)), (97, 40, ())],
)
def test_a_code_in_ages_is_proposed_as_missing(code: int, rows: int, missing: tuple[float, ...]):
    found = propose_column("age", pd.Series(np.r_[AGES.clip(20, 96), np.full(rows, code)]).astype(str))
    assert found.column is not None and (found.kind, found.column.missing) == ("number", missing)
    assert not missing or (not found.sure and f"{code} ({rows} rows) counts as" in found.why)
    assert missing or str(code) not in found.why


FAR, BELOW = "rows lie far from all others", "rows lie below 0"


@pytest.mark.parametrize(("errors", "hints"), [
    ([240], [FAR]), ([240, 260], [FAR]), ([-4], [BELOW]), ([240, -4], [FAR, BELOW]), ([999] * 9, [FAR]),
    ([-9999], [FAR]), ([97], []), ([], []),
])  # fmt: skip
def test_a_few_impossible_ages_are_counted_and_no_cell_is_named(errors: list[int], hints: list[str]):
    found = propose_column("age", pd.Series(np.r_[AGES.clip(20, 96), errors].astype(int)).astype(str))
    assert found.kind == "number" and found.sure is (not hints)
    assert [hint for hint in (FAR, BELOW) if hint in found.why] == hints
    assert not any(str(abs(error)) in found.why for error in errors if error != -4)
    assert len(errors) == 9 or not hints or "fewer than 5 rows lie" in found.why


@pytest.mark.parametrize("amounts", [
    RNG.lognormal(7, 2, 5000), RNG.standard_t(2, 5000) + 1e4, RNG.pareto(1, 900), RNG.normal(0, 1, 900),
    np.r_[np.zeros(800), RNG.exponential(1e4, 100)], np.repeat([10.0, 20.0, 30.0, 100.0], [300, 300, 290, 10]),
])  # fmt: skip
def test_amounts_with_a_long_tail_are_not_doubted(amounts: np.ndarray):
    why = propose_column("amount", pd.Series(amounts)).why
    assert FAR not in why and BELOW not in why


HONEST = {
    "lab": lambda rng, rows: rng.lognormal(1, 1, rows).round(1), "money": lambda rng, rows: rng.lognormal(7, 2, rows),
    "claims": lambda rng, rows: rng.pareto(1.2, rows), "days": lambda rng, rows: np.ceil(rng.lognormal(1, 1, rows)),
    "visits": lambda rng, rows: rng.negative_binomial(0.1, 0.1, rows),
    "paid": lambda rng, rows: np.where(rng.random(rows) < 0.9, 0, rng.lognormal(6, 1.5, rows).round()),
}  # fmt: skip


@pytest.mark.parametrize("rows", [60, 600, 5000])
@pytest.mark.parametrize("name", HONEST)
def test_honest_columns_lose_no_row_and_a_wild_cell_is_outside(name: str, rows: int):
    for seed in range(40):
        amounts = HONEST[name](np.random.default_rng(seed), rows).astype(float)
        assert not find_far(*np.unique(amounts, return_counts=True)).any(), seed
        # Typing errors of so many digits.
        for wild in ([1e18], [-1e18, 3e18], [1e18] * 2):
            values, counts = np.unique(np.r_[amounts, wild], return_counts=True)
            if rows > 60 and name not in ("claims", "paid"):
                assert set(values[find_far(values, counts)]) == set(wild), seed


@pytest.mark.parametrize("rows", [600, 5000])
@pytest.mark.parametrize("ill", [3, 8])
def test_a_few_infarcts_are_in_the_range_of_troponin(rows: int, ill: int):
    drawn = np.random.default_rng(ill)
    troponin = drawn.normal(0.012, 0.004, rows).clip(0.003, 0.03).round(4)
    troponin[:ill] = drawn.lognormal(2, 0.7, ill).round(2)
    assert propose_column("troponin", pd.Series(troponin)).column.range[1] >= troponin.max()


def test_a_drafted_range_comes_from_the_mass_unless_a_person_keeps_the_column():
    cells = pd.Series(np.r_[RNG.normal(0, 1, 600).round(3), 1000])
    found, kept = propose_column("a", cells), propose_column("a", cells, keep=True)
    assert found.column.range[1] < 6 and kept.column.range[1] == 1000 and not found.sure and not kept.sure
    assert "fewer than 5 rows lie far from all others, and outside of the range" in found.why
    read, findings = read_column(cells, "a", found.column, Field("a"))
    assert [finding.rows.tolist() for finding in findings] == [[600]] and np.isnan(read[-1])
    target = propose_target("a", cells, None, codes=())
    assert target.column.range == found.column.range and not target.sure


def numbers_of(study: str) -> Iterator[dict[str, np.ndarray]]:
    """Yield the numbers of each site for each column of a shipped study."""
    dataset = datasets.load(Study.load(study).dataset.name)
    partition_of = Study.load(study).dataset.partition
    sites = cut(dataset, partition_of) if partition_of else site_discovery.of_dataset(dataset.name)
    tables = {site.name: site.inspect()[0] for site in sites}
    for name, column in dataset.schema.columns.items():
        if column.is_number():
            yield {site: table[name].to_numpy(dtype=float) for site, table in tables.items()}


def test_no_column_of_a_shipped_dataset_is_in_another_unit_at_one_site_until_one_is(heart: datasets.Dataset):
    found = {factor: [] for factor in (1, 0.001, 0.1, 10, 1000)}
    for study in ("heart-disease", "card-fraud", "loan-default", "preterm-birth", "wine", "diabetes", "breast-cancer"):
        for numbers in numbers_of(study):
            last = max(numbers)
            for factor, powers in found.items():
                planted = numbers | {last: numbers[last] * factor}
                if factor == 1 or (np.unique(numbers[last]).size > 20 and np.count_nonzero(numbers[last]) > 40):
                    powers.append(odd_units(planted).get(last, 0) if factor != 1 else odd_units(planted))
    assert len(found[1]) > 100 and not any(found.pop(1))
    for factor, powers in found.items():
        share = np.mean(np.array(powers) == np.log10(factor))
        assert len(powers) > 40 and share > 0.7, (factor, share)


ODD = ["35000 kr", "60+", "#DIV/0!", "1e400", "\uff14\uff12\uff10\uff10\uff10"]


def test_a_column_of_which_nine_of_ten_cells_are_numbers_is_one_of_numbers():
    amounts = [str(round(amount)) for amount in RNG.lognormal(10, 0.3, 900)]
    cells = pd.Series([ODD[place % 5] for place in range(40)] + amounts[40:])
    found = propose_column("income", cells)
    assert (found.kind, found.sure) == ("number", False) and "cells are no numbers" in found.why
    assert found.column is not None and found.field is not None and found.field.missing == ("#DIV/0!", "1e400")
    read, findings = read_column(cells, "income", found.column, found.field)
    assert sum(len(finding.rows) for finding in findings) == 24 and int(np.isfinite(read).sum()) == 860
    assert propose_column("income", pd.Series([ODD[1]] * 100 + amounts[100:])).kind != "number"
    # Codes of diagnoses are no amounts, though most of them are figures.
    codes = [f"{code}" for code in RNG.integers(200, 500, 860)] + [f"V{code}" for code in RNG.integers(10, 80, 40)]
    assert propose_column("diagnosis", pd.Series(codes)).kind != "number"


def test_a_code_that_is_written_in_two_ways_is_one():
    cells = [f"{amount / 10:.1f}".replace(".", ",") for amount in AGES] + ["-200"] * 20 + ["-200,0"] * 20
    found = propose_column("carbon", pd.Series(cells))
    assert found.column is not None and found.column.missing == (-200.0,)
    read, findings = read_column(pd.Series(cells), "carbon", found.column, found.field or Field("carbon"))
    assert findings == [] and int(np.isnan(read).sum()) == 40


@pytest.mark.parametrize(("size", "thousands"), [(2, None), (2000, "."), (20_000, ".")])
def test_whole_numbers_show_thousands_only_where_they_are_as_large(size: int, thousands: str | None):
    amounts = np.random.default_rng(4).lognormal(np.log(size), 1.3, 600).clip(1, size * 40)
    written = [f"{amount:,.0f}".replace(",", ".") if thousands else f"{amount:.3f}" for amount in amounts]
    written[::50] = [f"{amount:.0f}" if thousands is None else "900" for amount in amounts[::50]]
    assert marks_of(pd.DataFrame({"amount": written}), {})["amount"].thousands == thousands
