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
from flfed.export.monitor import Monitored
from flfed.export.references import recorded_references
from flfed.export.run_folder import export
from flfed.federation.server.run import run
from flfed.records.statistics.verdict import number
from flfed.records.store.reader import RunReader
from flfed.rows.features.encode import codes
from flfed.rows.model_files import INDEX, MONITOR, seal
from flfed.study.study import Study
from flfed.summaries.score_bins import ScoreBins
from flfed.summaries.stability import LEAST_ROWS, Movement
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


def test_the_groups_are_counts_of_the_training_rows_and_of_the_scores_of_test_rows(exported) -> None:
    folder = exported()
    model = SharedModel.read(folder)
    references = model.references
    assert references is not None
    index = json.loads((folder / INDEX).read_text())
    assert index["files"][MONITOR] == hashlib.sha256((folder / MONITOR).read_bytes()).hexdigest()
    every = training_rows()
    rows = references.columns[0].rows
    assert 0.6 * len(every) < rows < len(every)
    for column, reference in zip(model.layout.features, references.columns, strict=True):
        assert not reference.reason
        assert min(group.rows for group in reference.groups) >= LEAST_ROWS
        shares = np.bincount(codes(every[column.name], column), minlength=len(column.cells)) / len(every)
        for group in reference.groups:
            assert group.rows / rows == pytest.approx(shares[list(group.cells)].sum(), abs=0.03)
    assert len(references.columns[0].groups) == 10
    # The tenth of the rows without x2 are a group of their own.
    assert references.columns[1].groups[-1].cells == (64,)
    with RunReader.open() as reader:
        histograms = reader.summary(model.run, "score-histograms")
    assert histograms is not None
    counted = sum(rows for label in ("0", "1") for _, rows in histograms["all"][label])
    assert sum(group.rows for group in references.score.groups) == counted
    assert (references.sites, references.requested) == (3, 3)
    assert references.bins == ScoreBins.of(histograms)
    assert "monitor.json" in (folder / "README.txt").read_text()


def test_a_table_of_the_same_people_is_calm_and_one_that_moved_is_an_alarm(exported, flfed) -> None:
    folder = exported()
    same = small_table(400, seed=77)
    code, out, err = flfed("monitor", folder, written(same, folder), "--json")
    found = json.loads(out)
    assert (code, err, found["alarm"], found["rows"]) == (0, "", False, 400)
    assert set(found["columns"]) == {"x1", "x2", "flag", "colour"}
    assert found["columns"]["x2"]["missing"] == pytest.approx(same["x2"].isna().mean())
    assert found["columns"]["x2"]["missing-in-training"] == pytest.approx(0.1, abs=0.03)
    assert found["score"]["psi"] < 0.1
    assert found["metric-rows"] == 400 and found["metrics"]["roc_auc_score"]["value"] > 0.7
    assert found["calibration"]["few-events"] is False
    code, out, _ = flfed("monitor", folder, written(same, folder))
    assert code == 0 and "No alarm: nothing that is compared moved" in out
    assert "Calibration slope " in out and "  AUC: " in out
    moved = same.assign(x1=(same["x1"] + 8).clip(0, 100)).drop(columns="y")
    code, out, _ = flfed("monitor", folder, written(moved, folder), "--json")
    found = json.loads(out)
    assert (code, found["alarm"], found["metrics"], found["calibration"]) == (1, True, None, None)
    assert [name for name, one in found["columns"].items() if one["alarm"]] == ["x1"]
    assert found["columns"]["x1"]["psi"] > found["columns"]["x1"]["alarm-above"] >= 0.1
    assert found["columns"]["x1"]["moved-most"]["now"] != found["columns"]["x1"]["moved-most"]["training"]
    # All scores rose with x1.
    assert found["score"]["alarm"] is True
    code, out, _ = flfed("monitor", folder, written(moved, folder))
    printed = " ".join(out.split())
    assert code == 1 and "Alarm: the score, x1 moved from the rows of the run" in printed
    assert out.index("x1") < out.index("x2")
    # Training rows have no score: its groups are of test rows.
    [score] = [" ".join(line.split()) for line in out.splitlines() if line.startswith("the score ")]
    assert score.endswith(" of test rows)") and "in training" not in score
    assert "The score is compared with that of test rows at 3 of 3 sites." in printed


def test_an_index_above_its_bound_does_not_read_as_the_bound() -> None:
    def shown(index: float, bound: float) -> list[str]:
        movement = Movement(index, bound, (0,), 0.1, 0.2)
        facts = {"name": "x1", "group": "", "missing": 0.0, "missing_before": None, "is_rare": False, "reason": ""}
        return Monitored(movement=movement, **facts).as_line()[1:4]  # type: ignore[arg-type]

    assert shown(0.10004, 0.1) == ["0.10004", "0.10000", "yes"]
    # Both are 0.101 where rounded, although they are more than half a unit apart.
    assert shown(0.10136, 0.1008) == ["0.1014", "0.1008", "yes"]
    assert shown(0.0523, 0.1) == ["0.052", "0.100", ""]
    assert shown(38.21, 0.1) == ["38.2", "0.100", "yes"]


def test_values_that_stopped_coming_are_an_alarm(exported, flfed) -> None:
    folder = exported()
    lost = small_table(400, seed=77)
    lost.loc[lost.index % 4 == 0, ["flag", "x1"]] = None
    code, out, _ = flfed("monitor", folder, written(lost.astype(object), folder), "--json")
    found = json.loads(out)["columns"]
    assert code == 1 and found["flag"]["alarm"] and found["x1"]["alarm"] and not found["colour"]["alarm"]
    assert found["x1"]["moved-most"]["group"] == "missing" and found["x1"]["missing"] == 0.25
    assert found["x1"]["missing-in-training-at-most"] is True


def test_institutions_release_no_small_group_and_a_score_without_counts_says_so(exported, flfed) -> None:
    folder = exported(Policy(disclosure="institution", cell_minimum=10))
    references = SharedModel.read(folder).references
    assert references is not None
    groups = [group for one in references.columns for group in one.groups]
    assert min(group.rows for group in groups) >= LEAST_ROWS
    # Many bins are suppressed at such sites: the mean of their groups of bins is compared.
    x1 = references.columns[0]
    every = training_rows()["x1"]
    assert x1.about and x1.mean == pytest.approx(every.mean(), abs=0.25 * every.std())
    table = small_table(400, seed=77)
    code, out, _ = flfed("monitor", folder, written(table, folder), "--json")
    found = json.loads(out)
    assert code == 0 and found["score"]["psi"] is None
    assert found["score"]["reason"] == "the run's record has no counts of scores"
    assert found["columns"]["x1"]["psi"] < 0.05
    moved = table.assign(x1=(table["x1"] + 8).clip(0, 100))
    code, out, _ = flfed("monitor", folder, written(moved, folder), "--json")
    found = json.loads(out)["columns"]
    assert code == 1 and [name for name, one in found.items() if one["alarm"]] == ["x1"]
    means = found["x1"]["moved-most"]
    assert means["group"] == "mean" and means["now"] == pytest.approx(moved["x1"].mean())
    assert means["training"] == x1.mean
    said = flfed("monitor", folder, written(moved, folder))[1]
    assert "x1" in said.partition("Alarm: ")[2]
    # A mean from groups of bins is no measured one.
    assert f"(about {number(x1.mean)} in training)" in " ".join(said.split())


def test_wrong_input_is_a_sentence_and_exit_code_2(exported, flfed, tmp_path: Path) -> None:
    folder = exported()
    table = small_table(50, seed=1)
    bare = tmp_path / "bare"
    model = SharedModel.read(folder)
    replace(model, references=None).write(bare)
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
    changed("columns", 0, "groups", 0, "rows", to=-5),
    changed("columns", 0, "groups", 0, "rows", to=2**70),
    changed("columns", 0, "groups", 0, "cells", to=[3, 3]),
    changed("columns", 0, "groups", 0, "cells", to=[-1]),
    changed("columns", 0, "groups", 0, "cells", to=[65]),
    changed("columns", 0, "rare", to=[0]),
    changed("columns", 0, "column", to="x9"),
    changed("columns", 0, "reason", to="\x1b[2J"),
    changed("columns", 0, "mean", to=1.0),
    changed("columns", 0, "more", to=1),
    changed("columns", 3, "mean", to=float("nan")),
    changed("columns", to=[]),
    changed("bins", "bins", to=2**40),
    changed("bins", "limit", to=-1.0),
    changed("score", "groups", 0, "rows", to="many"),
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
    linear = SharedModel.read(exported()).references
    done = run(Study.parse(trees_study(small_study)), sites=small_sites(3, rows=300))
    folder = export(done.run, tmp_path / "trees").folder
    trees = SharedModel.read(folder).references
    assert linear is not None and trees is not None and trees.columns == linear.columns
    code, out, _ = flfed("monitor", folder, written(small_table(400, seed=77), folder), "--json")
    assert code == 0 and json.loads(out)["score"]["psi"] < 0.1


def test_scores_of_two_institutions_are_no_groups() -> None:
    counts = {"0": [[place, 20] for place in range(100)], "1": [[place, 10] for place in range(50, 150)]}
    histograms = {"bins": 256, "limit": 12.0, "all": counts, "combined-sites": 2, "requested-sites": 3}
    two = recorded_references({"columns": []}, histograms, 3)
    assert two is not None and (two.score.reason, two.score.groups) == ("few-sites", ())
    three = recorded_references({"columns": []}, histograms | {"combined-sites": 3}, 3)
    assert three is not None
    sizes = [group.rows for group in three.score.groups]
    assert len(sizes) == 10 and sum(sizes) == 3000 and max(sizes) <= 330


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
    assert SharedModel.read(folder).references is None
    code, _, err = flfed("monitor", folder, written(small_table(50, seed=1), folder))
    assert code == 2 and "its run recorded none that are free of noise" in err


def test_groups_under_secure_aggregation_are_those_over_all_sites(exported) -> None:
    folder = exported(Policy(disclosure="open", share_metrics="aggregate-only"), **{"secure-aggregation": "on"})
    references = SharedModel.read(folder).references
    assert references is not None
    plain = references.columns[0]
    assert len(plain.groups) == 10 and plain.rows > 0.6 * len(training_rows())
