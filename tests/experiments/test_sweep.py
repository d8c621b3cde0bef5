"""A sweep: the better settings by validation rows, figures equal to a run's, and no holdout read."""

from __future__ import annotations

import json
import math
import os
import shlex
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from flfed import Study, run
from flfed.cli.arguments import _change, parse_grid, set_options
from flfed.errors import FlfedError, RunStopped, UsageError
from flfed.experiments.sweep import Point, Swept, _comparable, points_of, sweep
from flfed.records.store.reader import RunReader
from flfed.rows.data.holdout import Holdout
from flfed.rows.data.site import Site, SiteTable
from flfed.rows.data.sources import Frame

pytestmark = [pytest.mark.slow, pytest.mark.studies]  # real studies

ROOT = Path(__file__).parents[2]
NOTE = "a point of a sweep: no holdout was read"
CAUTION = (
    "These figures are on validation rows: no holdout was read. The figure of the best point is too good, since it was "
    "the criterion of its choice; flfed study run gives the figure on the holdouts."
)


@dataclass(frozen=True, eq=False)
class Counting(Frame):
    """A frame that counts how often it is read."""

    times: list[int] = field(default_factory=list)

    def read(self, folders: tuple[Path, ...]) -> pd.DataFrame:
        self.times.append(1)
        return super().read(folders)


@dataclass(frozen=True)
class Noting(Site):
    """A site that notes every table that it gives out."""

    given: list[SiteTable] = field(default_factory=list)

    def read(self, repeat=0, *, complete=(), published=None) -> SiteTable:
        self.given.append(super().read(repeat, complete=complete, published=published))
        return self.given[-1]


@pytest.fixture
def study(small_study: str) -> Study:
    """A study of three rounds on "small" that keeps validation rows."""
    return Study.parse(small_study).replace({"rounds": 3, "validation": 0.3, "batch": 0})


def swept(study: Study, sites: list[Site], **grid: tuple) -> Swept:
    """Sweep one key after the other; `plan__lr` stands for plan.lr."""
    return sweep(study, points_of(study, {key.replace("__", "."): v for key, v in grid.items()}), sites=sites)


def validation(name: str, number: int) -> dict[str, float | None]:
    """Return the figures of all sites' validation rows after a round, as the store has them."""
    with RunReader.open() as reader:
        return {m.metric: m.value for m in reader.metrics(name, number) if (m.site, m.arm) == (None, "validation")}


def test_a_sweep_that_is_ended_gives_the_points_that_were_tried_and_leaves_no_checkpoint(small_sites, study, home):
    rounds = list[int]()

    def progress(stage: str, done: int, of: int) -> None:
        rounds.append(done) if stage == "rounds" else None
        if rounds.count(2) == 2:
            raise KeyboardInterrupt

    found = sweep(study, points_of(study, {"plan.lr": [0.1, 0.2]}), sites=small_sites(2), progress=progress)
    assert [point.settings for point in found.points] == [{"plan.lr": 0.1}] and found.best is found.points[0]
    error = found.error()
    assert isinstance(error, RunStopped) and error.exit_code == 3
    assert str(error).startswith("interrupted from the keyboard; 1 of 2 points are done")
    with RunReader.open() as reader:
        assert [run.status for run in reader.runs()] == ["stopped", "completed"]
    assert not list(home.glob("runs/*"))


def test_the_better_of_two_learning_rates_is_found(small_sites, study: Study):
    # A model starts from zeros: with a learning rate of nothing its log loss stays that of even
    # odds, ln 2. The label follows from x1, x2 and colour, so that any real step is better.
    found = swept(study, small_sites(3, rows=120), plan__lr=(1e-9, 0.5))
    still, moved = found.points
    assert still.loss == pytest.approx(math.log(2), abs=1e-6)
    assert moved.loss < 0.65
    assert found.best is moved
    assert found.ranked() == [moved, still]
    assert (moved.settings, moved.rounds, moved.status) == ({"plan.lr": 0.5}, 3, "completed")


def test_a_points_loss_is_that_of_an_ordinary_run_of_the_same_settings(small_sites, study: Study):
    sites = small_sites(2, rows=120)
    found = swept(study, sites, lr=(0.1, 0.4), l2=(0.0, 0.2))
    assert len({point.loss for point in found.points}) == 4
    point = found.points[3]
    ordinary = run(study.replace(point.settings), sites=sites)
    figures = validation(ordinary.run, 3)
    assert point.loss == figures["loss"]
    assert point.primary == figures["roc_auc_score"]
    with RunReader.open() as reader:
        entry = reader.runs_of(point.run)[0]
    assert entry.arrays_sha256 == ordinary.report["arrays-sha256"]
    assert entry.seed == study.seed


def test_the_best_round_is_judged_where_the_study_selects_it(small_sites, study: Study):
    chosen = study.replace({"select": "best", "rounds": 6})
    point = swept(chosen, small_sites(3, rows=120), plan__lr=(8.0,)).points[0]
    losses = [validation(point.run, number)["loss"] for number in range(7)]
    assert point.loss == min(losses) == losses[point.rounds]
    assert losses[6] > point.loss  # it is not the last


def test_no_cell_of_a_holdout_row_moves_a_figure_and_no_holdout_is_opened(small_sites, study: Study):
    def spoiled(number: int, table: pd.DataFrame) -> pd.DataFrame:
        # By group the person alone decides the side, so that other cells keep their rows there.
        held = Holdout(salt=f"salt-{number}").split(table, schema)[1]
        other = table["y"].map({"yes": "no", "no": "yes"})
        return table.assign(y=np.where(held, other, table["y"]), x1=np.where(held, 0.0, table["x1"]))

    plain = [Noting(**vars(site)) for site in small_sites(2, rows=120)]
    path = Path(os.environ["FLFED_PATH"]) / "datasets" / "small" / "schema.toml"
    path.write_text(path.read_text().replace('target = "y"', 'target = "y"\ngroup = "person"', 1))
    schema = plain[0].inspect()[2]
    others = [Noting(**vars(site)) for site in small_sites(2, rows=120, change=spoiled)]
    best = study.replace({"select": "best"})
    one, two = (swept(best, sites, plan__lr=(0.1, 0.5)) for sites in (plain, others))
    assert [p.loss for p in one.points] == [p.loss for p in two.points]
    for site in (*plain, *others):
        assert [table.opened for table in site.given] == [[], []]
        assert site.given[0].holdout_rows > 20
    assert not plain[0].given[0].holdout("test").equals(others[0].given[0].holdout("test"))
    with RunReader.open() as reader:
        for point in one.points:
            assert not [e for e in reader.events([point.run]) if e.kind == "holdout-opened"]
            assert reader.figures(point.run) == [] and reader.differences(point.run) == []
            assert NOTE in [e.reason for e in reader.events([point.run])]


def test_a_table_is_read_once_however_many_points_are_tried(small_sites, study: Study):
    sites = [Site(**{**vars(site), "source": Counting(site.source.table)}) for site in small_sites(2, rows=80)]
    swept(study, sites, plan__lr=(0.1, 0.2, 0.3), plan__epochs=(1, 2))
    assert [len(site.source.times) for site in sites] == [1, 1]


def test_a_point_whose_rounds_stop_is_listed_last_and_the_sweep_goes_on(small_sites, study: Study):
    found = swept(study, small_sites(2, rows=80), plan__lr=(1e300, 0.1))
    broken, good = found.points
    assert (broken.status, broken.loss) == ("stopped", None)
    assert "good updates of 2 asked" in broken.reason
    assert found.ranked() == [good, broken] and found.best is good
    alone = swept(study, small_sites(2, rows=80), plan__lr=(1e300,))
    assert alone.best is None
    assert isinstance(alone.error(), FlfedError) and alone.as_json()["best"] is None


def test_a_loss_over_fewer_rows_is_not_compared():
    same = {"run": "r", "status": "completed", "reason": "", "rounds": 3, "primary": None}
    points = [Point(settings={"lr": n}, loss=0.5 - n / 10, rows=rows, **same) for n, rows in enumerate((40, 31, 40))]
    kept = _comparable(points)
    assert [point.loss for point in kept] == [0.5, None, pytest.approx(0.3)]
    assert kept[1].reason == "scored on 31 of 40 validation rows only"


def test_the_grid_is_the_product_in_order_and_options_can_be_copied():
    base = Study.load("wine").replace({"validation": 0.2})
    points = points_of(
        base, parse_grid(["lr=0.1,0.3", "strategy.select=last,best", "encode.missing-indicator=true,false"])
    )
    assert len(points) == 8
    keys = ["plan.lr", "strategy.select", "encode.missing-indicator"]
    assert [tuple(settings) for settings, _ in points] == [tuple(keys)] * 8
    assert [tuple(settings.values()) for settings, _ in points[:3]] == [
        (0.1, "last", True), (0.1, "last", False), (0.1, "best", True),
    ]  # fmt: skip
    assert {study.seed for _, study in points} == {42}
    for settings, study in points:
        point = Point(settings=settings, run="r", status="", reason="", rounds=0, loss=None, primary=None, rows=0)
        words = [word for word in shlex.split(set_options(point.settings)) if word != "--set"]
        assert base.replace(dict(_change(word) for word in words)) == study


@pytest.mark.parametrize(("grid", "why"), [
    ([], "has no \\[sweep\\]"), (["lr"], "write it as KEY=V1,V2"), (["lr="], "write it as KEY=V1,V2"),
    (["lr=0.1,,0.2"], "write it as KEY=V1,V2, without an empty value"), (["=1,2"], "write it as KEY=V1,V2"),
    (["lr=0.1", "lr=0.2"], "the key is there twice"), (["lr=0.1", "plan.lr=0.2"], "is there twice, as table.key"),
    (["lr=0.1,0.1"], "a value is there twice"), (["lrr=0.1"], "did you mean 'lr'"),
    (["plan.lrr=0.1"], "did you mean 'lr'"), (["lr=fast,slow"], "lr='fast' must be a number"),
    (["lr=0.1,-1"], "lr=-1.0 must be > 0"), (["seed=1,2"], "seed: cannot be swept"),
    (["validation=0.1,0.2"], "plan.validation: cannot be swept"),
    (["compare.resamples=200,300"], "compare.resamples: cannot be swept"),
    (["model.name=logistic,linear"], "is for regression"),
    (["strategy.name=fedavg,fedvag"], "did you mean 'fedavg'"),
])  # fmt: skip
def test_a_grid_that_cannot_be_swept_is_refused_before_anything_runs(grid, why):
    base = Study.load("wine").replace({"validation": 0.2})
    with pytest.raises(UsageError, match=why):
        points_of(base, parse_grid(grid))


def test_a_study_without_validation_rows_cannot_be_swept():
    with pytest.raises(UsageError, match="validation=0 reserves no rows .* --set plan.validation=0.2"):
        points_of(Study.load("wine"), {"plan.lr": (0.1,)})


def test_the_command_sweeps_the_studys_own_grid_and_says_what_the_figures_are(flfed, tmp_path):
    text = Study.load("diabetes").replace({"validation": 0.2, "rounds": 3}).text
    file = tmp_path / "s.toml"
    file.write_text(f'{text}\n[sweep]\n"plan.lr" = [1e-6, 0.05]\n"plan.l2" = [0.0]\n')
    code, out, err = flfed("study", "sweep", str(file), "--grid", "plan.l2=0.02")
    assert code == 0
    assert err == "" and out.startswith("diabetes: 2 points to run, with 3 rounds each")
    assert "Best: --set plan.lr=0.05 --set plan.l2=0.02" in out and CAUTION in out
    code, out, err = flfed("study", "sweep", str(file), "--json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    best, other = found["points"]
    assert best["validation-loss"] < other["validation-loss"]
    assert best["set"] == {"plan.lr": 0.05, "plan.l2": 0.0} == found["best"]["set"]
    assert (found["study"], found["note"]) == ("diabetes", CAUTION)
    listed = json.loads(flfed("run", "list", "--json")[1])["runs"]
    assert [(r["study"], r["status"], r["rounds"]) for r in listed] == [("diabetes-sweep", "completed", 3)] * 4
    code, out, _ = flfed("run", "show", best["run"])
    assert code == 0 and f"Note: {NOTE}" in out


def test_the_pages_show_a_point_although_it_has_no_comparison(flfed):
    words = ("--set", "validation=0.2", "--set", "rounds=3", "--grid", "plan.lr=0.05", "--json")
    name = json.loads(flfed("study", "sweep", "diabetes", *words)[1])["best"]["run"]
    page = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60).run()
    assert not page.exception
    page.switch_page(str(ROOT / "flfed/records/dashboard/pages/p20_overview.py"))
    page.query_params["run"] = name
    page.run()
    assert not page.exception
    said = "\n".join(str(block.value) for block in [*page.title, *page.markdown, *page.info, *page.warning])
    assert "diabetes-sweep" in said.replace("\\", "")
