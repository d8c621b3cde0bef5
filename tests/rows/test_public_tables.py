"""Two public tables that studies under differential privacy are cut from: their counts, codes and ranges."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer, load_wine

from flfed.errors import UsageError
from flfed.rows.data import datasets
from flfed.rows.data.mapping import map_table
from flfed.rows.data.parsing.fields import looks_like_row
from flfed.rows.data.partition import cut
from flfed.rows.proposals.own_tables import source_of
from flfed.study.study import Study
from flfed.study.tables import Partition

DATASETS = Path(__file__).parents[2] / "datasets"


def mapped(dataset: datasets.Dataset) -> pd.DataFrame:
    """Return the dataset's table in its schema, which it must fit."""
    table, findings = map_table(dataset.whole_table(), dataset.schema, {})
    assert findings == []
    return table


def test_classes_go_by_their_names_where_the_package_has_another_order():
    # scikit-learn's 0 is malignant; the positive class of ours, the last one, is malignant.
    dataset = datasets.load("breast-cancer")
    table, raw = mapped(dataset), load_breast_cancer(as_frame=True).frame
    assert dataset.schema.classes == ("benign", "malignant")
    assert table["diagnosis"].value_counts().to_dict() == {"benign": 357, "malignant": 212}
    assert table.loc[table["diagnosis"] == "malignant", "mean radius"].mean() == pytest.approx(17.463, abs=5e-4)
    assert ((table["diagnosis"] == "malignant") == (raw["target"] == 0)).all()
    # Where it has no names of ours, by their numbers: its first cultivar is barolo.
    assert (datasets.load("wine").whole_table()["cultivar"].eq("barolo") == (load_wine().target == 0)).all()


def test_four_equal_parts():
    study = Study.load("breast-cancer")
    sites = cut(datasets.load("breast-cancer"), study.dataset.partition)
    assert sorted(len(site.source.read(())) for site in sites) == [142, 142, 142, 143]


@pytest.mark.studies
def test_four_banks_by_education_and_the_codes_that_nobody_describes_are_others(taiwan):
    banks = {site.name: site.source.read(()) for site in cut(taiwan, Study.load("taiwan-credit").dataset.partition)}
    assert {name.removeprefix("taiwan-credit-"): len(rows) for name, rows in banks.items()} == {
        "graduate-school": 10585, "university": 14030, "high-school": 4917, "other": 14 + 123 + 280 + 51,
    }  # fmt: skip
    defaults = {name: int((rows[taiwan.schema.target] == "1").sum()) for name, rows in banks.items()}
    assert (sum(defaults.values()), defaults["taiwan-credit-other"]) == (6636, 33)
    assert mapped(taiwan)["MARRIAGE"].value_counts().to_dict() == {"single": 15964, "married": 13659, "other": 377}


def test_no_study_lends_by_sex_age_or_marriage(taiwan):
    for name in ("taiwan-credit", "taiwan-credit-trees"):
        features = Study.load(name).dataset.features
        assert len(features) == 19
        assert not {"SEX", "AGE", "MARRIAGE", "EDUCATION"} & set(features)
        assert set(features) < set(taiwan.schema.features())


@pytest.mark.parametrize("name", ["breast-cancer", "taiwan-credit"])
def test_ranges_are_not_the_rows_own(name, request):
    dataset = datasets.load(name) if name == "breast-cancer" else request.getfixturevalue("taiwan")
    table = mapped(dataset)
    amounts = [column for column in dataset.schema.columns if column.split("_")[0] not in ("PAY", "AGE")]
    amounts += [column for column in dataset.schema.columns if column.startswith("PAY_AMT")]
    for column in amounts:
        if dataset.schema.columns[column].kind == "number":
            low, high = dataset.schema.columns[column].range
            assert table[column].max() < 0.9 * high, column
            assert low == 0 or table[column].min() > 0.9 * low, column


@pytest.mark.studies
def test_eight_countries_and_their_late_lines_are_the_file_s(deliveries):
    table = mapped(deliveries)
    counts = table.groupby("Country")["late"].agg(["size", lambda late: int((late == "late").sum())])
    assert {country: tuple(row) for country, row in zip(counts.index, counts.to_numpy().tolist(), strict=True)} == {
        "South Africa": (1406, 115), "Nigeria": (1194, 142), "Cote d'Ivoire": (1083, 134), "Uganda": (779, 98),
        "Vietnam": (688, 6), "Zambia": (683, 108), "Haiti": (655, 62), "Mozambique": (631, 116),
    }  # fmt: skip
    # By pandas' own reading of the file, without flfed.
    raw = pd.read_csv(deliveries.downloads() / deliveries.source.files[0].name, encoding="utf-8-sig", dtype=str)
    raw = raw[
        raw["Country"].isin(
            ["South Africa", "Nigeria", "Côte d'Ivoire", "Uganda", "Vietnam", "Zambia", "Haiti", "Mozambique"]
        )
    ]
    due, came = (
        pd.to_datetime(raw[f"{name} Date"], format="%d-%b-%y") for name in ("Scheduled Delivery", "Delivered to Client")
    )
    assert ((table["late"] == "late").to_numpy() == (came > due).to_numpy()).all()
    assert (table["Scheduled Delivery Date"].to_numpy() == due.to_numpy()).all()
    assert due.dt.year.min() == 2006 and due.dt.year.max() == 2015


@pytest.mark.studies
def test_no_shipment_is_on_both_sides_of_a_holdout(deliveries):
    sites = cut(deliveries, Partition(by="Country"))
    assert len(sites) == 8
    for site in sites:
        found = site.read()
        held = found.holdout("compare")
        assert len(held) and not set(found.training["ASN/DN #"]) & set(held["ASN/DN #"])
    # Of one line in 20 the shipment would be on both sides if lines were dealt by themselves.
    table = mapped(deliveries)
    dealt = np.random.default_rng(0).random(len(table)) < 0.3
    assert len(set(table["ASN/DN #"][dealt]) & set(table["ASN/DN #"][~dealt])) > 236


@pytest.mark.parametrize("column", ["Delivered to Client Date", "Delivery Recorded Date", "Line Item Insurance (USD)"])
def test_what_is_known_after_a_delivery_is_no_feature(column):
    schema = datasets.load("scms-delivery").schema
    with pytest.raises(UsageError, match="leaks the target"):
        schema.features(["Shipment Mode", column])
    assert column not in schema.features()


def test_names_of_real_files_are_no_rows_and_their_rows_are_no_names(test_data):
    files = [
        *test_data.rglob("*.csv"),
        *test_data.rglob("*.tsv"),
        *DATASETS.rglob("*.csv"),
        *DATASETS.rglob("*.csv.gz"),
    ]
    # One of them has no line of names, as its first line shows.
    taken = {path.name for path in files if looks_like_row(source_of(path).read(()))}
    assert len(files) > 30 and taken <= {"balanced_984.csv"}
    for path in files:
        table = source_of(path).read(()).head(300)
        for place in range(0, 30, 3):
            rows = table.drop(index=place).set_axis([*table.iloc[place].fillna("").map(str)], axis=1)
            assert looks_like_row(rows), (path.name, place)
