"""Tables larger than memory: the same sums, models and figures as in memory, block by block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.larger_than_memory import SOURCE, STUDY, drawn, schema, write_rows
from flfed.errors import TableError, UsageError
from flfed.federation.client.protection import privacy_refusal
from flfed.federation.server.run import run
from flfed.records.store.reader import RunReader
from flfed.rows import streamed as streamed_module
from flfed.rows.comparison.arms import PAIRS
from flfed.rows.comparison.compare import SiteComparison, compare
from flfed.rows.data.holdout import Holdout, HoldoutByTime
from flfed.rows.data.site import Policy, Site, study_refusal
from flfed.rows.data.sources import Frame, Parquet
from flfed.rows.data.table_check import check_site
from flfed.rows.evaluation.delong import delong
from flfed.rows.evaluation.intervals import compare as compare_scores
from flfed.rows.evaluation.streamed import ScoreSums
from flfed.rows.metrics.roc_auc_score import RocAucScore
from flfed.rows.session import SiteSession
from flfed.rows.streamed import HOLDOUT, TRAINING, StreamedSession
from flfed.rows.study_model import first_model
from flfed.rows.training.answer import run_client
from flfed.seeds import Draws
from flfed.study.study import Study
from flfed.summaries.score_bins import EVEN_ODDS

ROWS = 3000
GROUP = 500
REGRESSION = (
    schema().replace('task = "binary"', 'task = "regression"').replace('target = "died"', 'target = "x0"')
    .replace('[columns.x0]\nkind = "number"', '[columns.x0]\nkind = "target"')
    .replace('kind = "target"\nvalues', 'kind = "category"\nvalues')
)  # fmt: skip


@pytest.fixture
def claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A site that streams two files of three row groups each."""
    folder = tmp_path / "root" / "datasets" / "claims"
    folder.mkdir(parents=True)
    (folder / "schema.toml").write_text(schema())
    (folder / "source.toml").write_text(SOURCE)
    monkeypatch.setenv("FLFED_PATH", str(tmp_path / "root"))
    monkeypatch.setattr("benchmarks.larger_than_memory.GROUPS_A_FILE", 3)
    write_rows(tmp_path / "rows", ROWS, 1, group=GROUP)
    return streamed(tmp_path / "rows")


def streamed(path: Path, **changes: Any) -> Site:
    holdout = Holdout(share=0.2, salt="of a test")
    source = Parquet(str(path), streamed=True)
    return replace(Site("large", "claims", source, holdout=holdout, policy=Policy(disclosure="open")), **changes)


def in_memory(site: Site) -> Site:
    files = site.source.files((Path(),))
    return replace(site, source=Frame(pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)))


def study(**changes: Any) -> Study:
    return Study.parse(STUDY).replace(
        {key.replace("__", ".").replace("_", "-"): value for key, value in changes.items()}
    )


def both(site: Site, asked: Study) -> tuple[SiteSession, StreamedSession]:
    return SiteSession(in_memory(site), asked), StreamedSession(site, asked)


def trained(session: SiteSession, encoder: Any, round: int = 1) -> Any:
    arrays = first_model(session.study, session.schema)
    return run_client(session.train(arrays, encoder, round=round, rounds=5))


def test_sums_are_those_of_all_rows_in_memory(claims):
    memory, blocks = both(claims, study())
    assert len(blocks.table.training) == len(memory.table.training) > 2000
    for name in ("rows", "moments", "cells", "moments_known", "cells_known", "sites"):
        wanted = getattr(memory.exact_summary, name)
        np.testing.assert_allclose(getattr(blocks.exact_summary, name), wanted, rtol=1e-12, err_msg=name)
    np.testing.assert_allclose(blocks.own_encoder().center, memory.own_encoder().center, rtol=1e-12)


@pytest.mark.parametrize("weight", ["none", "balanced"])
def test_a_step_of_all_rows_is_that_in_memory(claims, weight):
    memory, blocks = both(claims, study(plan__batch=0, plan__epochs=3, plan__class_weight=weight, plan__l2=0.01))
    encoder = memory.own_encoder()
    wanted = trained(memory, encoder)
    got = trained(blocks, encoder)
    assert (got.steps, got.rows, got.scores) == (wanted.steps, wanted.rows, None)
    assert got.loss == pytest.approx(wanted.loss, rel=1e-12)
    for name, value in wanted.delta.items():
        np.testing.assert_allclose(got.delta[name], value, rtol=1e-9, atol=1e-14)
    assert np.abs(wanted.delta["weight"]).max() > 1e-3


@pytest.mark.parametrize(("batch", "steps"), [(64, 0), (700, 0), (64, 50)])
def test_mini_batches_are_as_many_and_drawn_by_the_seed(claims, batch, steps):
    memory, blocks = both(claims, study(plan__batch=batch, plan__steps=steps))
    encoder = memory.own_encoder()
    wanted = trained(memory, encoder)
    got = trained(blocks, encoder)
    assert got.steps == wanted.steps
    assert got.loss == pytest.approx(wanted.loss, abs=0.02)
    again = trained(StreamedSession(claims, blocks.study, draws=Draws(7, "fit")), encoder)
    other = trained(blocks, encoder, round=2)
    assert np.array_equal(got.delta["weight"], again.delta["weight"])
    assert not np.array_equal(got.delta["weight"], other.delta["weight"])


def test_the_own_model_is_that_in_memory(claims):
    memory, blocks = both(claims, study())
    wanted = run_client(memory.local_model())
    got = run_client(blocks.local_model())
    np.testing.assert_allclose(got.outputs.weight, wanted.outputs.weight, atol=1e-7)
    np.testing.assert_allclose(got.outputs.bias, wanted.outputs.bias, atol=1e-7)


def test_a_sample_only_chooses_the_penalty_of_the_own_model(claims, monkeypatch):
    monkeypatch.setattr(streamed_module, "SAMPLE", 600)
    memory, blocks = both(claims, study())
    assert 300 < blocks.rows.sample.rows < 700
    wanted = run_client(memory.local_model())
    got = run_client(blocks.local_model())
    # The sample's own fit is ten times as far away.
    np.testing.assert_allclose(got.outputs.weight, wanted.outputs.weight, atol=0.05)


def sides_by_row(site: Site) -> dict[tuple[Any, ...], int]:
    rows = in_memory(site).source.table
    return dict(zip(rows.itertuples(index=False, name=None), StreamedSession(site, study()).rows.sides.tolist()))


def test_who_is_held_out_does_not_depend_on_the_order_of_the_files(claims, tmp_path):
    rows = in_memory(claims).source.table.fillna(-1)
    first = tmp_path / "first.parquet"
    other = tmp_path / "other.parquet"
    rows.to_parquet(first, row_group_size=700)
    rows.sample(frac=1, random_state=3).to_parquet(other, row_group_size=400)
    sides = sides_by_row(streamed(first))
    assert sides_by_row(streamed(other)) == sides
    assert 0.15 < np.mean([side == HOLDOUT for side in sides.values()]) < 0.25


def compared(session: SiteSession, arrays: Any, encoder: Any) -> SiteComparison:
    comparison: SiteComparison = run_client(compare(session, arrays, encoder))
    return comparison


def test_a_comparison_has_the_figures_of_rows_in_memory(claims):
    memory, blocks = both(claims, study())
    encoder = memory.own_encoder()
    arrays = trained(memory, encoder).delta
    wanted = compared(memory, arrays, encoder)
    got = compared(blocks, arrays, encoder)
    assert got.arms.keys() == wanted.arms.keys()
    for name in ("accuracy_score", "brier_score_loss", "log_loss", "calibration_in_the_large_error"):
        for arm, one in wanted.arms[name].items():
            assert got.arms[name][arm].value == pytest.approx(one.value, rel=1e-6), (name, arm)
            width = one.high - one.low
            assert got.arms[name][arm].high - got.arms[name][arm].low == pytest.approx(width, rel=0.1)
    pair = PAIRS[0]
    log_loss = wanted.differences["log_loss"][pair]
    assert got.differences["log_loss"][pair].value == pytest.approx(log_loss.value, rel=1e-5)
    area = got.differences["roc_auc_score"]
    assert area["personalised", "global"].method == "identical scores"
    assert area[pair].value == pytest.approx(wanted.differences["roc_auc_score"][pair].value, abs=1e-3)
    # What needs each row's rank has no figure, and says so.
    assert got.arms["average_precision_score"]["global"].method == "needs all rows at once, which are streamed"
    assert got.note.startswith("streamed: rows are not sorted")
    assert (got.training_rows, got.holdout_rows) == (wanted.training_rows, wanted.holdout_rows)


def added(y: np.ndarray, odds: dict[str, np.ndarray]) -> ScoreSums:
    """Return the sums of scores that come in blocks of 1,000 rows, in two passes."""
    sums = ScoreSums({"roc_auc_score": RocAucScore()}, list(odds), EVEN_ODDS, 0.0, np.random.default_rng(1))
    for paired in (False, True):
        placements = sums.placements()
        for start in range(0, len(y), 1000):
            place = slice(start, start + 1000)
            places = sums.bin_places([one[place, None] for one in odds.values()])
            if paired:
                sums.add_pairs(y[place], places, placements)
            else:
                sums.add(y[place], {}, places)
    return sums


@pytest.mark.parametrize(("scale", "beyond"), [(1.0, False), (40.0, True)])
def test_an_area_is_within_its_bound_of_that_of_the_rows(scale, beyond):
    chance = np.random.default_rng(5)
    y = chance.integers(0, 2, 20_000)
    odds = {"a": scale * (chance.normal(0, 1, len(y)) + y), "b": scale * (chance.normal(0, 1, len(y)) + 0.9 * y)}
    sums = added(y, odds)
    scores = {arm: np.full(200, place) for place, arm in enumerate(odds)}
    metrics = sums.metrics(binary=True)
    estimates, differences = compare_scores(metrics, np.arange(200), scores, [("a", "b")], chance)
    exact, covariance = delong(y, np.stack(list(odds.values())))
    area = metrics["roc_auc_score"]
    for place, arm in enumerate(odds):
        error = abs(area.value[arm] - exact[place])
        assert error <= area.bound[arm]
        # Of a nearly sure model most rows lie in the last bins: no fixed bound of 3e-4 holds.
        assert (error > 3e-4) == beyond
        assert (area.bound[arm] > 3e-4) == beyond
        one = estimates["roc_auc_score"][arm]
        assert one.low <= exact[place] <= one.high
        assert one.high - one.low >= 2 * area.bound[arm]
        assert f"within {area.bound[arm]:.3f}"[:-1] in one.method
    # The paired interval, which two histograms do not give.
    spread = float(np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]))
    if not beyond:
        difference = differences["roc_auc_score"]["a", "b"]
        half = (difference.high - difference.low) / 2 - area.bound["a"] - area.bound["b"]
        assert half == pytest.approx(1.96 * spread, rel=0.01)
        assert difference.value == pytest.approx(exact[0] - exact[1], abs=area.bound["a"] + area.bound["b"])


def test_a_linear_model_has_the_figures_of_rows_in_memory(claims, tmp_path):
    (tmp_path / "root" / "datasets" / "claims" / "schema.toml").write_text(REGRESSION)
    # Folds of blocks are other rows than folds in memory; by this seed both choose the same penalty.
    asked = study(model__name="linear", plan__batch=0, seed=4)
    memory, blocks = both(claims, asked)
    encoder = memory.own_encoder()
    arrays = trained(memory, encoder).delta
    wanted = compared(memory, arrays, encoder)
    got = compared(blocks, arrays, encoder)
    for name in ("r2_score", "root_mean_squared_error", "mean_absolute_error"):
        for arm, one in wanted.arms[name].items():
            assert got.arms[name][arm].value == pytest.approx(one.value, rel=1e-6, abs=1e-9), (name, arm)
    gain = wanted.differences["r2_score"]["global", "local-only"]
    mine = got.differences["r2_score"]["global", "local-only"]
    assert mine.value == pytest.approx(gain.value, rel=1e-5)
    assert mine.high - mine.low == pytest.approx(gain.high - gain.low, rel=0.1)


def test_two_sites_run_and_the_record_says_streamed(claims, tmp_path, monkeypatch):
    monkeypatch.setenv("FLFED_HOME", str(tmp_path / "home"))
    write_rows(tmp_path / "few", 600, 99, group=600)
    small = Site(
        "small", "claims", Parquet(str(tmp_path / "few" / "part-0.parquet")),
        holdout=Holdout(share=0.2, salt="s"), policy=Policy(disclosure="open"),
    )  # fmt: skip
    asked = study(strategy__rounds=2, plan__batch=0, compare__resamples=200)
    reports = [run(asked, sites=[site, small]).report for site in (claims, in_memory(claims))]
    mine, wanted = (report["sites"]["large"] for report in reports)
    for arm in ("global", "local-only", "personalised"):
        for name, near in (("roc_auc_score", 3e-3), ("log_loss", 5e-4)):
            assert mine[arm][name]["value"] == pytest.approx(wanted[arm][name]["value"], abs=near), (arm, name)
    assert mine["verdict"] == wanted["verdict"]
    with RunReader.open(None) as reader:
        events = reader.events([one.run for one in reader.runs_of(reports[0]["run"])])
    notes = {event.site: event.reason for event in events if event.kind == "note"}
    assert notes == {
        "large": "streamed: rows are not sorted, and the own model is linear",
        None: "no pooled reference: a site's table is streamed",
    }


NEEDS: list[tuple[dict[str, Any], str]] = [
    ({"model__name": "mlp"}, "a network"),
    ({"plan__validation": 0.2}, "a set of validation rows"),
    ({"encode__rows": "complete"}, "a choice of rows without gaps"),
    ({"compare__primary": "average_precision_score"}, "metric average_precision_score"),
    ({"compare__thresholds": [0.5]}, "a figure at a threshold"),
    ({"compare__subgroups": ["flag"]}, "a figure by subgroup"),
    ({"compare__importance": 2}, "the importance of columns"),
    ({"compare__own_rows": 100}, "a cap on the rows of an own model"),
    ({"compare__site_columns": True}, "a column of the site alone"),
]


@pytest.mark.parametrize(("changes", "part"), NEEDS, ids=[part for _, part in NEEDS])
def test_a_study_that_needs_all_rows_is_refused_in_a_sentence(claims, changes, part):
    asked = study(**changes)
    said = f"its table is streamed from files, and {part} needs all of its rows at once"
    assert str(study_refusal(asked, claims)) == said
    assert study_refusal(asked, in_memory(claims)) is None


def test_a_site_is_refused_by_its_holdout_and_its_policy(claims):
    by_time = replace(claims, holdout=HoldoutByTime("x0", train_until="2024-01-01", test_from="2024-01-02"))
    assert "a holdout in the order of time needs all" in str(study_refusal(study(), by_time))
    private = replace(claims, policy=Policy())
    assert "a comparison with earlier releases needs all" in str(study_refusal(study(), private))
    assert study_refusal(study(), claims) is None


def test_noise_on_each_row_is_refused_and_noise_on_the_sum_is_not(claims):
    noise = {"privacy__name": "record-dp", "privacy__epsilon": 8.0, "privacy__delta": 1e-6, "privacy__sampling": 0.1}
    protected = study(plan__steps=5, **noise)
    refused = privacy_refusal(protected, claims, noise=False)
    assert str(refused).endswith("differential privacy of rows needs all of its rows at once")
    assert privacy_refusal(study(), claims) is None


def changed(change: Callable[[pd.DataFrame], object], path: Path) -> Path:
    rows = pd.DataFrame(drawn(1500, 4))
    change(rows)
    pq.write_table(pa.Table.from_pandas(rows, preserve_index=False), path, row_group_size=GROUP)
    return path


def test_a_broken_rule_is_counted_over_all_blocks(claims, tmp_path):
    path = changed(lambda rows: rows.__setitem__("x3", rows["x3"].mask(rows.index % 100 == 0, 99.0)), tmp_path / "a")
    with pytest.raises(TableError, match=r"'x3' is outside the schema's range -10 to 10 in 15 rows"):
        StreamedSession(streamed(path), study())


def test_texts_of_numbers_are_refused(claims, tmp_path):
    path = changed(lambda rows: rows.__setitem__("x3", rows["x3"].astype(str)), tmp_path / "a")
    with pytest.raises(UsageError, match=r"a: column 'x3' holds text, and a streamed table needs numbers and dates"):
        StreamedSession(streamed(path), study())


def test_large_row_groups_are_refused_with_the_remedy(claims, tmp_path, monkeypatch):
    monkeypatch.setattr("flfed.rows.data.parquet_blocks.LARGEST_GROUP", 400)
    with pytest.raises(UsageError, match=r"part-0.parquet: a row group has 500 rows, more than 400; write the file"):
        StreamedSession(claims, study())


def test_rows_without_an_outcome_are_left_out_or_refused(claims, tmp_path):
    path = changed(lambda rows: rows.__setitem__("died", rows["died"].mask(rows.index % 10 == 0)), tmp_path / "a")
    with pytest.raises(TableError, match="'died' has no value"):
        StreamedSession(streamed(path), study())
    schema_file = tmp_path / "root" / "datasets" / "claims" / "schema.toml"
    schema_file.write_text(schema().replace('task = "binary"', 'task = "binary"\nunlabelled = "leave-out"'))
    rows = StreamedSession(streamed(path), study()).rows
    assert rows.count(TRAINING) + rows.count(HOLDOUT) == 1350


def test_what_needs_all_rows_says_so(claims):
    with pytest.raises(UsageError, match="this needs all rows at once, and the table is streamed"):
        claims.read()
    with pytest.raises(UsageError, match="derive, where and dates do not go with streamed"):
        Parquet("rows", streamed=True, where="x0 > 1")


def test_a_check_reads_all_blocks(claims, tmp_path, monkeypatch):
    memory, mine = check_site(in_memory(claims)), check_site(claims)
    for name in ("passed", "rows", "training_rows", "holdout_rows", "features", "mapped"):
        assert getattr(mine, name) == getattr(memory, name), name
    assert {line.column: line.detail for line in mine.lines}["x1"].startswith("number; missing in ")
    notes = [line.detail for line in mine.lines if line.note]
    assert notes == ["streamed: 0 rows are copies of another row; other oddities are not looked for"]
    # The last block is that of the first again.
    path = changed(lambda rows: rows.iloc.__setitem__(slice(1000, None), rows.iloc[:500].to_numpy()), tmp_path / "a")
    assert "streamed: 500 rows are copies" in check_site(streamed(path)).lines[-1].detail
    monkeypatch.setattr("flfed.rows.data.table_check.MOST_COMPARED", 1000)
    assert "copies are looked for up to 1,000 rows" in check_site(streamed(path)).lines[-1].detail


def test_a_check_counts_broken_rules_over_all_blocks(claims, tmp_path):
    path = changed(lambda rows: rows.__setitem__("x3", rows["x3"].mask(rows.index % 100 == 0, 99.0)), tmp_path / "a")
    checked = check_site(streamed(path))
    assert not checked.passed
    line = next(line for line in checked.lines if line.column == "x3")
    assert line.detail == "is outside the schema's range -10 to 10 in 15 rows"
    assert checked.findings[0].rows.tolist() == list(range(0, 1500, 100))
