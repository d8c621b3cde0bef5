"""Tables that are made of time series: steps, windows over a series' own past, and what is refused."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flfed.errors import TableError, UsageError
from flfed.rows.data.readers.series import Series

DAYS = {"file": "days.csv", "time": "day", "step": "day", "by": "shop", "sum": ["sold"]}


def written(folder: Path, rows: list[tuple[str, str, object]]) -> tuple[Path, ...]:
    lines = [f"{shop},{day},{sold}" for shop, day, sold in rows]
    (folder / "days.csv").write_text("shop,day,sold\n" + "\n".join(lines) + "\n")
    return (folder,)


def test_windows_are_those_of_a_loop_over_each_series(tmp_path: Path):
    rng = np.random.default_rng(3)
    days = [str(day)[:10] for day in pd.date_range("2024-02-25", periods=12)]
    sold = {shop: rng.integers(0, 100, 12) for shop in ("a", "b")}
    folders = written(
        tmp_path, [(shop, day, n) for shop in "ba" for day, n in zip(days, sold[shop], strict=True)][::-1]
    )
    windows: dict[str, dict[str, Any]] = {
        "ago_{steps}": {"what": "lag", "of": "sold", "steps": [1, 3]},
        "mean": {"what": "mean", "of": "sold", "steps": 3}, "added": {"what": "sum", "of": "sold", "steps": 2},
        "next": {"what": "lead", "of": "sold"},
        "half": {"what": "quantile", "of": "sold", "q": 0.5, "until": days[5]},
    }  # fmt: skip
    table = Series(**DAYS, windows=windows).read(folders)
    expected = [
        (shop, days[at], n[at], n[at - 1], n[at - 3], n[at - 2 : at + 1].mean(), n[at - 1] + n[at], n[at + 1])
        + (np.median(n[:6]),)
        for shop, n in sold.items()
        for at in range(3, 11)
    ]
    names = ["shop", "day", "sold", "ago_1", "ago_3", "mean", "added", "next", "half"]
    pd.testing.assert_frame_equal(table[names], pd.DataFrame(expected, columns=names), check_dtype=False)


def test_a_lag_does_not_jump_over_a_step_that_is_missing(tmp_path: Path):
    # Of 4 March there is nothing, of 6 March a line without a number.
    rows = [("a", f"2024-03-0{day}", "" if day == 6 else day) for day in (1, 2, 3, 5, 6, 7, 8)]
    table = Series(**DAYS, windows={"ago": {"what": "lag", "of": "sold"}}).read(written(tmp_path, rows))
    assert table[["day", "ago"]].to_numpy().tolist() == [["2024-03-02", 1], ["2024-03-03", 2], ["2024-03-08", 7]]


def test_a_step_without_a_value_counts_as_0_where_the_source_says_so(tmp_path: Path):
    rows = [("a", f"2024-03-0{day}", day) for day in (1, 2, 5)] + [("b", "2024-03-04", 9)]
    windows = {"mean": {"what": "mean", "of": "sold", "steps": 2}}
    table = Series(**DAYS, zero=["sold"], logarithm=["sold"], windows=windows).read(written(tmp_path, rows))
    # Not before a series' first value and not after its last; logarithms first, and means of these.
    logs = np.log1p([1, 2, 0, 0, 5])
    assert table["shop"].tolist() == ["a"] * 4
    np.testing.assert_allclose(table["sold"], logs[1:])
    np.testing.assert_allclose(table["mean"], (logs[1:] + logs[:-1]) / 2)


def test_a_column_that_becomes_a_series_is_0_between_its_own_first_and_last_value_alone(tmp_path: Path):
    (tmp_path / "days.csv").write_text("day,a,b\n2024-03-01,1,\n2024-03-02,2,5\n2024-03-03,3,\n2024-03-04,4,6\n")
    wide = {**DAYS, "sum": ["n"], "value": "n", "wide": {"a": "a", "b": "b"}, "zero": ["n"]}
    table = Series(**wide).read((tmp_path,))
    assert table.loc[table["shop"] == "b", ["day", "n"]].to_numpy().tolist() == [
        ["2024-03-02", 5], ["2024-03-03", 0], ["2024-03-04", 6],
    ]  # fmt: skip


def test_readings_become_means_or_sums_of_their_step_and_wide_columns_series(tmp_path: Path):
    lines = ["at,north,south,warm"]
    lines += [f"1/{day}/17 {hour}:{minute:02d},{hour},{2 * hour},{minute}" for day in (1, 2) for hour in (0, 23)
              for minute in (0, 30)]  # fmt: skip
    (tmp_path / "wide.csv").write_text("\n".join(lines))
    asked = {"file": "wide.csv", "time": "at", "format": "%m/%d/%y %H:%M", "by": "zone", "value": "load"}
    wide = {"N": "north", "S": "south"}
    hours = Series(**asked, step="hour", wide=wide, mean=["load", "warm"], calendar=["hour", "weekday"]).read(
        (tmp_path,)
    )
    assert hours[hours.zone == "S"].load.tolist() == [0, 46, 0, 46]
    assert set(hours.warm) == {15}
    # The first of January 2017 was a Sunday.
    assert hours[hours.zone == "N"][["at", "hour", "weekday"]].to_numpy().tolist() == [
        ["2017-01-01", 0, 6], ["2017-01-01", 23, 6], ["2017-01-02", 0, 0], ["2017-01-02", 23, 0],
    ]  # fmt: skip
    months = Series(**asked, step="month", wide=wide, sum=["load"]).read((tmp_path,))
    assert months.to_numpy().tolist() == [["2017-01-01", "N", 92.0], ["2017-01-01", "S", 184.0]]


def test_a_week_ends_on_saturday_and_the_year_is_a_circle(tmp_path: Path):
    folders = written(tmp_path, [("a", "2024-06-26", 3), ("a", "2024-06-29", 4), ("a", "2024-06-30", 5)])
    weeks = Series(**{**DAYS, "step": "week"}, calendar=["year_sine", "year_cosine"]).read(folders)
    assert weeks[["day", "sold"]].to_numpy().tolist() == [["2024-06-29", 7], ["2024-07-06", 5]]
    assert (weeks.year_sine**2 + weeks.year_cosine**2).to_numpy() == pytest.approx(1, abs=1e-12)
    assert weeks.year_cosine.max() < -0.99


def test_a_file_in_a_wheel_is_read_where_it_is(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as archive:
        archive.writestr("a/days.csv.gz", gzip.compress(b"shop,day,sold\na,2024-01-01,7\n"))
    asked = {**DAYS, "file": "a.whl"}
    assert Series(**asked, member="a/days.csv.gz").read((tmp_path,)).sold.tolist() == [7]
    with pytest.raises(UsageError, match="no zip file with a/other.csv"):
        Series(**asked, member="a/other.csv").read((tmp_path,))


def test_what_is_no_time_or_number_is_counted_and_never_quoted(tmp_path: Path):
    folders = written(tmp_path, [("a", f"2024-01-{day:02d}", "secret" if day > 3 else 1) for day in range(1, 10)])
    with pytest.raises(TableError) as error:
        Series(**DAYS).read(folders)
    assert str(error.value) == "column 'sold' is not a number in 6 rows"
    with pytest.raises(TableError) as error:
        Series(**{**DAYS, "format": "%d.%m.%Y"}).read(folders)
    assert "column 'day' times are not all written as %d.%m.%Y" in str(error.value)
    below = written(tmp_path, [("a", "2024-01-01", -2), ("a", "2024-01-02", 1)])
    with pytest.raises(TableError, match="steps whose value is below 0"):
        Series(**DAYS, logarithm=["sold"]).read(below)
    with pytest.raises(UsageError, match="has no column 'town'"):
        Series(**{**DAYS, "by": "town"}).read(folders)


@pytest.mark.parametrize(("changed", "said"), [
    ({"step": "year"}, "step='year' must be one of hour, day, week, month"),
    ({"zero": ["bought"]}, "zero, logarithm: 'bought' must be a column of mean, sum or last (sold)"),
    ({"calendar": ["moon"]}, "calendar: 'moon' must be one of"),
    (
        {"windows": {"a": {"what": "guess", "of": "sold"}}}, "'a': what must be one of lag, mean, sum, lead, quantile",
    ),
    ({"windows": {"a": {"what": "lag", "of": "day"}}}, "of a column of mean, sum or last"),
    ({"windows": {"a": {"what": "lag", "of": "sold", "steps": [0]}}}, "whole numbers, at least 1"),
    ({"windows": {"a": {"what": "lag", "of": "sold", "steps": [1, 2]}}}, "needs {steps} in its name"),
    ({"windows": {"a": {"of": "sold"}}}, "needs what and of"),
])  # fmt: skip
def test_a_setting_that_is_none_is_refused_before_a_file_is_read(changed: dict[str, Any], said: str):
    with pytest.raises(UsageError) as error:
        Series(**{**DAYS, **changed})
    assert said in str(error.value)
