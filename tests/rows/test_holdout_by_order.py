"""Holdouts of the later rows of each site, as a study's partition asks for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from flfed import Study, run
from flfed.errors import TableError, UsageError
from flfed.rows.comparison.arms import groups_of
from flfed.rows.data import datasets
from flfed.rows.data.holdout import HoldoutByOrder
from flfed.rows.data.partition import cut
from flfed.rows.data.schema import Schema
from flfed.rows.session import SiteSession
from flfed.study.tables import OrderedHoldout, Partition

SCHEMA = Schema.model_validate({
    "format": 1, "name": "visits", "task": "binary", "target": "y", "group": "person",
    "columns": {
        "day": {"kind": "date"}, "hour": {"kind": "number", "range": [0, 500]}, "person": {"kind": "id"},
        "ward": {"kind": "category", "values": ["a", "b"]}, "y": {"kind": "target", "values": ["no", "yes"]},
    },
})  # fmt: skip


def visits(rows: int = 20) -> pd.DataFrame:
    number = np.arange(rows)
    return pd.DataFrame({
        "day": pd.to_datetime("2024-01-01") + pd.to_timedelta(number // 2, unit="D"), "hour": number // 3 * 1.0,
        "person": [f"p{n % 4}" for n in number], "ward": ["a", "b"] * (rows // 2), "y": ["no", "yes"] * (rows // 2),
    }).sample(frac=1, random_state=1)  # fmt: skip


def sides(**rule: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    table = visits()
    train, held = HoldoutByOrder(OrderedHoldout(**rule)).split(table, SCHEMA, repeat=3)
    return table[train], table[held]


@pytest.mark.parametrize(("share", "last", "rows"), [(0.5, 3.0, 12), (0.6, 3.0, 12), (0.61, 4.0, 15), (0.05, 0.0, 3)])
def test_the_earliest_rows_train_and_rows_of_one_value_stay_together(share: float, last: float, rows: int):
    train, held = sides(by="hour", train_share=share, same_groups=True)
    assert (train["hour"].max(), len(train), len(train) + len(held)) == (last, rows, 20)
    assert held["hour"].min() == last + 1


def test_a_date_is_the_last_that_is_trained_on():
    train, held = sides(by="day", train_until="2024-01-04", same_groups=True)
    assert (len(train), len(held)) == (8, 12)
    assert str(held["day"].min().date()) == "2024-01-05"


def test_who_is_trained_on_has_no_test_rows_unless_the_study_says_so():
    train, held = sides(by="hour", train_share=0.5)
    assert len(train) == 12 and not len(held)
    assert set(sides(by="hour", train_share=0.1)[1]["person"]) == {"p3"}


@pytest.mark.parametrize(("rule", "words"), [
    ({"by": "ward", "train-share": 0.5}, "by='ward' is of kind 'category'"),
    ({"by": "week", "train-share": 0.5}, "by='week' is no column of dataset 'visits'"),
    ({"by": "hour", "train-until": "2024-01-01"}, "must be a number, as column 'hour' is"),
    ({"by": "day", "train-until": 7}, "must be a date, as column 'day' is"),
    ({"by": "hour", "train-share": 0.5, "blocks": "week"}, "blocks='week' is no column"),
    ({"by": "hour"}, "set train-share or train-until, and not both"),
    ({"by": "hour", "train-share": 0.5, "train-until": 3.0}, "set train-share or train-until, and not both"),
    ({"train-share": 0.5}, "by is missing"), ({"by": "hour", "train-share": 1.0}, "train-share"),
    ({"by": "hour", "share": 0.5}, "key 'share' is not known"), ("hour", "holdout='hour' must be a table"),
])  # fmt: skip
def test_a_rule_that_cannot_be_kept_is_refused_in_a_sentence(rule: Any, words: str):
    with pytest.raises(UsageError, match=words):
        partition = Partition.parse({"by": "iid", "holdout": rule})
        assert partition.holdout is not None
        HoldoutByOrder(partition.holdout).check(SCHEMA)


def test_a_row_without_its_place_in_the_order_is_refused_with_the_count():
    table = visits()
    table.loc[table.index[:7], "hour"] = np.nan
    with pytest.raises(TableError, match="'hour' has no value, by which rows are held out in 7 rows"):
        HoldoutByOrder(OrderedHoldout(by="hour", train_share=0.5)).split(table, SCHEMA)


ORDERED = {"by": "iid", "sites": 3, "holdout": {"by": "age", "train-share": 0.6, "blocks": "sex"}}


def test_a_study_holds_out_the_later_rows_of_each_site_and_draws_blocks_for_intervals():
    study = Study(dataset="diabetes", model="linear", rounds=3, partition=ORDERED, compare={"resamples": 200})
    assert study.dataset.partition is not None
    for site in cut(datasets.load("diabetes"), study.dataset.partition):
        table = site.read(repeat=1)
        held = table.holdout("test")
        assert table.training["age"].max() < held["age"].min()
        assert 0.55 < len(table.training) / (len(table.training) + len(held)) < 0.75
        blocks = groups_of(SiteSession(site, study), held)
        assert blocks is not None and len(np.unique(blocks)) == 2
    done = run(study, repeats=2)
    assert done.status == "completed"
    for site in done.report["sites"].values():
        assert len(set(site["holdout-rows-range"])) == 1


def test_sites_may_have_as_few_rows_as_the_partition_says():
    few = {"by": "quantity", "sites": 10, "alpha": 1.0, "seed": 6}
    with pytest.raises(UsageError, match="fewer than 10 rows"):
        cut(datasets.load("wine"), Partition.parse(few))
    sites = cut(datasets.load("wine"), Partition.parse({**few, "min-rows": 1}))
    assert sorted(len(site.read().training) + len(site.read().holdout("test")) for site in sites)[:3] == [1, 1, 4]
