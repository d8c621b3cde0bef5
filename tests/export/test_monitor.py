"""Monitoring: what an export writes for it, what the command says of a table, and what is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flfed import Policy
from flfed.export.model_folder import SharedModel
from flfed.export.run_folder import export
from flfed.federation.server.run import run
from flfed.records.statistics.verdict import number
from flfed.records.store.reader import RunReader
from flfed.rows.features.encode import codes
from flfed.rows.model_files import INDEX, MONITOR, seal
from flfed.study.study import Study
from flfed.summaries.stability import LEAST_ROWS
from tests.boosting import trees_study
from tests.conftest import small_table


@pytest.fixture
def exported(small_sites, small_study: str, tmp_path: Path) -> Callable[..., Path]:
    """A function that runs the small study at three sites and returns the exported folder."""

    def make(policy: Policy | None = None, **changes: Any) -> Path:
        study = Study.parse(small_study).replace({"rounds": 3, **changes})
        done = run(study, sites=small_sites(3, rows=300, policy=policy))
        return export(done.run, tmp_path / "model").folder

    return make


def written(table: pd.DataFrame, folder: Path) -> Path:
    """Return a table's file."""
    path = folder.parent / "rows.csv"
    table.to_csv(path, index=False)
    return path


def training_rows() -> pd.DataFrame:
    """Return the rows of all three sites, of which four fifths or so are for training."""
    return pd.concat([small_table(300 + 10 * number, seed=number) for number in range(3)])


def groups_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / MONITOR).read_text())


def test_the_groups_are_counts_of_the_training_rows_and_of_the_scores_of_test_rows(exported) -> None:
    folder = exported()
    model = SharedModel.read(folder)
    found = groups_of(folder)
    index = json.loads((folder / INDEX).read_text())
    assert index["files"][MONITOR] == hashlib.sha256((folder / MONITOR).read_bytes()).hexdigest()
    every = training_rows()
    rows = sum(group["rows"] for group in found["columns"]["x1"])
    assert 0.6 * len(every) < rows < len(every)
    for column in model.layout.features:
        shares = np.bincount(codes(every[column.name], column), minlength=len(column.cells)) / len(every)
        for group in found["columns"][column.name]:
            assert group["rows"] >= LEAST_ROWS
            if group["rows"] > LEAST_ROWS:
                assert group["rows"] / rows == pytest.approx(shares[group["cells"]].sum(), abs=0.03)
    # The tenth of the rows without x2 are a group of their own.
    assert [64] in [group["cells"] for group in found["columns"]["x2"]]
    with RunReader.open() as reader:
        histograms = reader.summary(model.run, "score-histograms")
    counted = sum(rows for label in ("0", "1") for _, rows in histograms["all"][label])
    assert sum(group["rows"] for group in found["score"]) == pytest.approx(counted, abs=LEAST_ROWS)
    assert "monitor.json" in (folder / "README.txt").read_text()


def test_a_table_of_the_same_people_has_small_indices_and_one_that_moved_a_large_one(exported, flfed) -> None:
    folder = exported()
    same = small_table(400, seed=77)
    code, out, err = flfed("monitor", folder, written(same, folder), "--json")
    found = json.loads(out)
    assert (code, err, found["rows"], set(found["columns"])) == (0, "", 400, {"x1", "x2", "flag", "colour"})
    assert found["columns"]["x2"]["missing"] == pytest.approx(same["x2"].isna().mean())
    assert max(found["score"], *(column["psi"] for column in found["columns"].values())) < 0.1
    moved = same.assign(x1=(same["x1"] + 8).clip(0, 100)).drop(columns="y")
    changed = json.loads(flfed("monitor", folder, written(moved, folder), "--json")[1])
    indices = {name: column["psi"] for name, column in changed["columns"].items()}
    # All scores rose with x1.
    assert [name for name, index in indices.items() if index > 0.1] == ["x1"] and changed["score"] > 0.1
    code, out, _ = flfed("monitor", folder, written(moved, folder))
    shown = " ".join(out.split())
    assert code == 0 and f"x1 {number(indices['x1'], 3)} 0 %" in shown and "400 rows are compared" in shown


def test_the_index_is_that_of_the_shares_by_group(exported, flfed) -> None:
    folder = exported()
    table = small_table(400, seed=3)
    found = json.loads(flfed("monitor", folder, written(table, folder), "--json")[1])
    column = next(one for one in SharedModel.read(folder).layout.features if one.name == "x1")
    counts = np.bincount(codes(table["x1"], column), minlength=len(column.cells))
    groups = [group for group in groups_of(folder)["columns"]["x1"] if group["rows"] > LEAST_ROWS]
    now = np.array([counts[group["cells"]].sum() for group in groups]) / 400
    before = np.array([group["rows"] for group in groups], dtype=float)
    before /= before.sum()
    assert found["columns"]["x1"]["psi"] == pytest.approx(((now - before) * np.log(now / before)).sum(), abs=0.01)


def test_values_that_stopped_coming_move_a_column(exported, flfed) -> None:
    folder = exported()
    lost = small_table(400, seed=77)
    lost.loc[lost.index % 4 == 0, ["flag", "x1"]] = None
    found = json.loads(flfed("monitor", folder, written(lost.astype(object), folder), "--json")[1])["columns"]
    assert min(found["flag"]["psi"], found["x1"]["psi"]) > 0.25 and found["colour"]["psi"] < 0.1
    assert found["x1"]["missing"] == 0.25


def test_institutions_release_no_small_group_and_a_score_without_counts_is_none(exported, flfed) -> None:
    folder = exported(Policy(disclosure="institution", cell_minimum=10))
    groups = groups_of(folder)
    assert min(group["rows"] for of in groups["columns"].values() for group in of) >= LEAST_ROWS
    assert groups["score"] == []
    found = json.loads(flfed("monitor", folder, written(small_table(400, seed=77), folder), "--json")[1])
    assert found["score"] is None and found["columns"]["colour"]["psi"] < 0.1


def test_wrong_input_is_a_sentence_and_exit_code_2(exported, flfed, tmp_path: Path) -> None:
    folder = exported()
    table = small_table(50, seed=1)
    bare = tmp_path / "bare"
    replace(SharedModel.read(folder), monitor=None).write(bare)
    assert not (bare / MONITOR).exists()
    wrong = [
        (bare, table, "the model folder has no counts of training rows (monitor.json)"),
        (folder, table.drop(columns="x1"), "column 'x1' is not in the table"),
        (folder, table.iloc[:0], "no rows"),
        (folder, table.assign(colour="Jane Roe"), "column 'colour' has a value that the schema does not allow"),
    ]
    for place, rows, says in wrong:
        code, out, err = flfed("monitor", place, written(rows, folder))
        assert (code, out, len(err.splitlines())) == (2, "", 1), err
        assert says in err and "Jane" not in err
    assert flfed("monitor", folder)[0] == 2
    (folder / MONITOR).write_text("{}")
    code, _, err = flfed("monitor", folder, written(table, folder))
    assert code == 2 and "is not the file that was exported" in err


def deep(_: dict[str, Any]) -> bytes:
    """Return a file of too many levels."""
    return b'{"columns":' + b"[" * 100_000


def changed(*path: str | int, to: Any) -> Callable[[dict[str, Any]], bytes]:
    """Return a change of one value of the file."""

    def change(content: dict[str, Any]) -> bytes:
        place: Any = content
        for part in path[:-1]:
            place = place[part]
        place[path[-1]] = to
        return json.dumps(content).encode()

    return change


CRAFTED = [
    changed("columns", "x1", 0, "rows", to=-5),
    changed("columns", "x1", 0, "rows", to=2**70),
    changed("columns", "x1", 0, "cells", to=[3, 3]),
    changed("columns", "x1", 0, "cells", to=[-1]),
    changed("columns", "x1", 0, "more", to=1),
    changed("columns", "x9", to=[]),
    changed("columns", to={}),
    changed("bins", "bins", to=2**40),
    changed("bins", "limit", to=-1.0),
    changed("bins", "limit", to=float("nan")),
    changed("score", 0, "rows", to="many"),
    deep,
]


def test_a_crafted_file_is_refused_in_a_sentence(exported, flfed) -> None:
    folder = exported()
    whole = (folder / MONITOR).read_bytes()
    table = written(small_table(50, seed=1), folder)
    for change in CRAFTED:
        (folder / MONITOR).write_bytes(change(json.loads(whole)))
        index = json.loads((folder / INDEX).read_text())
        index.pop("sha256")
        index["files"][MONITOR] = hashlib.sha256((folder / MONITOR).read_bytes()).hexdigest()
        (folder / INDEX).write_text(json.dumps(index | {"sha256": seal(index)}))
        code, out, err = flfed("monitor", folder, table)
        assert (code, out, len(err.splitlines())) == (2, "", 1), err
        assert "its groups are not those of the model's columns" in err


def test_trees_have_the_groups_of_the_same_rows(exported, small_sites, small_study, tmp_path: Path, flfed) -> None:
    linear = groups_of(exported())
    done = run(Study.parse(trees_study(small_study)), sites=small_sites(3, rows=300))
    folder = export(done.run, tmp_path / "trees").folder
    assert groups_of(folder)["columns"] == linear["columns"]
    code, out, _ = flfed("monitor", folder, written(small_table(400, seed=77), folder), "--json")
    assert code == 0 and json.loads(out)["score"] < 0.1


COVERED = """
[privacy]
name = "record-dp"
epsilon = 3.0
delta = 1e-5
sampling = 0.2
covers = "study"
"""


def test_a_run_whose_counts_all_have_noise_has_no_groups(small_sites, small_study, tmp_path: Path, flfed) -> None:
    without_plan, _, rest = small_study.partition("[plan]")
    strategy = rest.partition("[strategy]")[2]
    plan = '[plan]\noptimiser = "sgd"\nlr = 0.5\nsteps = 4\n'
    study = Study.parse(f"{without_plan}{plan}[strategy]{strategy}{COVERED}")
    done = run(study, sites=small_sites(3, rows=2000, policy=Policy(epsilon=3.2)))
    folder = export(done.run, tmp_path / "model").folder
    assert not (folder / MONITOR).exists()
    assert SharedModel.read(folder).monitor is None
    code, _, err = flfed("monitor", folder, written(small_table(50, seed=1), folder))
    assert code == 2 and "its run recorded none that are free of noise" in err


def test_groups_under_secure_aggregation_are_those_over_all_sites(exported) -> None:
    folder = exported(Policy(disclosure="open"), **{"secure-aggregation": "on"})
    plain = groups_of(folder)["columns"]["x1"]
    assert len(plain) >= 8 and sum(group["rows"] for group in plain) > 0.6 * len(training_rows())
