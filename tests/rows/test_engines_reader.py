"""Run-to-failure records of engines as a table, and the split that a table brings with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from flfed.errors import TableError, UsageError
from flfed.rows.data import datasets
from flfed.rows.data.readers.engines import COLUMNS, Engines
from flfed.rows.splits.official import Official

RNG = np.random.default_rng(1)
VALUES = {("train", 1): RNG.normal(size=6), ("train", 2): RNG.normal(size=4), ("test", 1): RNG.normal(size=3)} | {
    ("test", 2): RNG.normal(size=2)
}
FILES = {"training": "train.txt", "test": "test.txt", "lives": "lives.txt"}


def line(unit: int, cycle: int, value: object) -> str:
    cells = {**dict.fromkeys(COLUMNS, 0), "unit": unit, "cycle": cycle, "s2": value, "s3": 7}
    return " ".join(str(cells[name]) for name in COLUMNS)


def written(folder: Path, *, lives: tuple[str, ...] = ("40", "3"), bad: str = "") -> tuple[Path, ...]:
    for part in ("train", "test"):
        lines = [line(unit, at + 1, one) for (of, unit), all_ in VALUES.items() if of == part
                 for at, one in enumerate(all_)]  # fmt: skip
        (folder / f"{part}.txt").write_text("  \n".join(lines) + "  \n" + (f"{line(3, 1, bad)}\n" if bad else ""))
    (folder / "lives.txt").write_text("".join(f"{life} \n" for life in lives))
    return (folder,)


def test_lives_means_and_drift_are_those_of_a_loop(tmp_path: Path):
    reader = Engines(**FILES, sensors=["s2"], means=[2, 3], first=2, cap=4)
    table = reader.read(written(tmp_path))
    expected = []
    for (part, unit), all_ in VALUES.items():
        for at in range(len(all_)) if part == "train" else [len(all_) - 1]:
            left = len(all_) - 1 - at if part == "train" else {1: 40, 2: 3}[unit]
            two, three = np.mean(all_[max(0, at - 1) : at + 1]), np.mean(all_[max(0, at - 2) : at + 1])
            expected.append((f"{part}-{unit}", at + 1, two, three, two - np.mean(all_[:2]), min(left, 4)))
    names = ["engine", "cycle", "s2_mean_2", "s2_mean_3", "s2_drift", "life"]
    pd.testing.assert_frame_equal(table[names], pd.DataFrame(expected, columns=names), check_dtype=False)
    assert table["part"].value_counts().to_dict() == {"train": 10, "test": 2}


def test_what_is_no_number_or_too_few_lives_are_counted_and_never_quoted(tmp_path: Path):
    with pytest.raises(TableError) as error:
        Engines(**FILES, sensors=["s2"]).read(written(tmp_path, bad="secret"))
    assert "column 's2' is not a number in" in str(error.value) and "secret" not in str(error.value)
    with pytest.raises(TableError, match="has not one line for each engine of the test file"):
        Engines(**FILES, sensors=["s2"]).read(written(tmp_path, lives=("40",)))


@pytest.mark.parametrize(("changed", "said"), [
    ({"sensors": ["s22"]}, "'s22' must be one of s1 to s21"), ({"means": [0]}, "at least 1"),
    ({"cap": 0}, "at least 1"),
])  # fmt: skip
def test_a_setting_that_is_none_is_refused(changed: dict[str, object], said: str):
    with pytest.raises(UsageError, match=said):
        Engines(**{**FILES, "sensors": ["s2"], **changed})


def test_the_official_split_holds_out_what_the_table_marks_and_no_group_is_on_both_sides():
    schema = datasets.load("engine-life").schema
    table = pd.DataFrame({"engine": ["a", "a", "b"], "part": ["train", "train", "test"]})
    training, held = Official().split(table, schema)
    assert (training.tolist(), held.tolist()) == ([True, True, False], [False, False, True])
    with pytest.raises(UsageError, match="rows on both sides"):
        Official().split(table.assign(engine="a"), schema)
    with pytest.raises(UsageError, match="there is one draw"):
        Official().split(table, schema, 1)
    with pytest.raises(UsageError, match="has no column 'part'"):
        Official().split(table, datasets.load("wine").schema)
