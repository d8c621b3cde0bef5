"""Federated learning on data frames: six lines, and the same arrays by the files that `save` writes."""

import html
import json
import pickle
import re
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import flfed
from flfed.errors import RunStopped, UsageError
from flfed.notebook.frames import study_name, workspace_of
from flfed.notebook.result import Result
from flfed.records.reports.narrative import verdict_in_words
from flfed.records.reports.report import report
from flfed.records.statistics.verdict import describe_verdict
from flfed.records.store.reader import RunReader
from flfed.study.study import Study
from flfed.study.template import StudyTemplate


def frame(rows: int, seed: int) -> pd.DataFrame:
    """Return patients with numbers, booleans, texts, dates and missing values."""
    rng = np.random.default_rng(seed)
    age = rng.normal(60, 12, rows)
    smoker = rng.random(rows) < 0.3
    lab = np.where(rng.random(rows) < 0.2, np.nan, rng.lognormal(1, 0.5, rows))
    risk = 1 / (1 + np.exp(-(0.09 * (age - 60) + 1.2 * smoker - 0.8)))
    days = pd.to_timedelta(rng.integers(0, 700, rows), unit="D")
    return pd.DataFrame({
        "patient": [f"P{seed}-{number}" for number in range(rows)], "age": age.round(1), "smoker": smoker,
        "sex": rng.choice(["F", "M"], rows), "admitted": pd.Timestamp("2024-01-01") + days, "lab": lab,
        "ward": rng.choice(["A", "B", None], rows), "died": rng.random(rows) < risk,
    })  # fmt: skip


FRAMES = {"north": frame(300, 1), "south": frame(200, 2), "east": frame(150, 3), "west": frame(250, 4)}


def federate(*given: Any, **keys: Any) -> Result:
    """Federate beside a model of each site that is quickly trained, and with few draws."""
    return flfed.federate(*given, **{"site_model": "same", "resamples": 200} | keys)


@pytest.fixture
def result() -> Result:
    return federate(FRAMES, target="died", model="logistic", rounds=4, repeats=2, say=lambda line: None)


def test_six_lines_give_figures_gains_rounds_charts_and_a_model(result: Result):
    assert result.status == "completed" and result.primary == "roc_auc_score"
    shared = result.overall.query("arm == 'global' and metric == 'roc_auc_score'").iloc[0]
    assert 0.6 < shared["value"] < 0.9
    assert sorted(result.gains["site"]) == sorted(FRAMES)
    # The gains are those of `flfed run show`, and so are the verdicts.
    told = result.sites.query("arm == 'gain' and metric == 'roc_auc_score'").set_index("site")
    for line in result.gains.itertuples():
        assert line.gain == told.loc[line.site, "value"]
        assert line.verdict == describe_verdict(told.loc[line.site, "verdict"], "roc_auc_score")
    assert set(result.rounds["round"]) == set(range(5))
    probabilities = result.model.predict_proba(FRAMES["north"].drop(columns="died"))
    assert probabilities.shape == (300, 2) and np.allclose(probabilities.sum(axis=1), 1)
    assert set(result.model.predict(FRAMES["north"])) == {False, True}
    for chart in (result.plot.gains(), result.plot.rounds(), result.plot.rounds(sites=["north", "south"])):
        assert chart.to_dict()["layer"]
    assert len(repr(result).splitlines()) <= 6
    shown = ("north", "verdict", "AUC", f"low to high: 95 % CI, widened for {len(FRAMES)} sites.")
    assert all(word in result._repr_html_() for word in shown)


def test_what_columns_are_taken_for_is_said():
    said: list[str] = []
    flfed.federate(FRAMES, target="died", rounds=1, say=said.append)
    assert "4 sites, 900 rows, 5 features" in said[0] and "'died'" in said[0]
    assert said[1] == "not learnt from: patient, admitted"


def test_rows_without_a_site_infinite_cells_and_rows_at_two_sites_are_said():
    one = pd.concat(FRAMES.values()).reset_index(drop=True)
    one["clinic"] = np.where(one.index < 30, "small", np.where(one.index % 2 == 0, "even", "odd"))
    one.loc[100:119, "age"] = np.inf
    one.loc[one.index[-40:], "clinic"] = None
    said: list[str] = []
    federate(one, "died", by="clinic", rounds=1, say=said.append)
    assert said[0].startswith("2 sites, 830 rows") and said[1].startswith("70 rows belong to no site")
    told = "check 'age': taken for number (its values are numbers; 20 cells are infinite: they count as 'not known')"
    assert told in said
    assert not any("another site" in line for line in said)
    twice: list[str] = []
    # Of 330 rows at each of two sites, 270 are there once.
    again = pd.concat([FRAMES["north"], FRAMES["north"][:30]])
    federate(FRAMES | {"north": again, "west": again}, "died", rounds=1, say=twice.append)
    alike = "check the sites: 540 rows are the same at another site; rows that repeat within a site are not counted"
    assert alike in twice


def test_the_files_that_save_writes_give_the_same_arrays(result, tmp_path, monkeypatch, flfed):
    written = result.save(tmp_path / "own")
    study = next(path for path in written if path.suffix == ".toml" and path.parent == tmp_path / "own")
    monkeypatch.chdir(tmp_path / "own")
    code, out, err = flfed("study", "run", study.name, "--repeats", "2", "--json")
    assert code == 0, err
    frames, files = (hashes(run) for run in (result.run, json.loads(out)["run"]))
    assert frames == files and len(set(frames)) == 2
    with pytest.raises(UsageError, match="exists already"):
        result.save(tmp_path / "own")


def hashes(series: str) -> list[str]:
    with RunReader.open() as reader:
        return [str(report(reader, run.run)["arrays-sha256"]) for run in reader.runs_of(series)]


def test_calls_are_named_by_target_and_time_or_as_asked_and_the_name_changes_no_array():
    def call(**keys: Any) -> Result:
        return federate(FRAMES, "died", model="logistic", rounds=2, say=lambda line: None, **keys)

    results = [call(), call(), call(name="Without smokers")]
    names = [one.report["study"] for one in results]
    assert len(set(names)) == 3 and names[2] == "without-smokers"
    assert all(re.fullmatch(r"died-\d{8}-\d{6}-[0-9a-f]{4}", name) for name in names[:2])
    assert set(names) <= set(flfed.runs()["study"])
    assert len({digest for one in results for digest in hashes(one.run)}) == 1


def test_two_calls_with_noise_have_the_same_arrays_under_their_two_names():
    private = {"name": "site-dp", "epsilon": 8.0, "delta": 1e-2}
    runs = [federate(FRAMES, "died", rounds=2, privacy=private, say=lambda line: None) for _ in range(2)]
    assert runs[0].report["study"] != runs[1].report["study"]
    assert hashes(runs[0].run) == hashes(runs[1].run)
    assert hashes(runs[0].run) != hashes(federate(FRAMES, "died", rounds=2, say=lambda line: None).run)


def test_two_calls_of_one_second_have_two_names_and_a_target_without_latin_letters_has_one():
    day = datetime(2026, 11, 26, 20, 14, 15, tzinfo=UTC)
    for target, begins in (("died", "died-20261126-201415-"), ("死亡", "20261126-201415-")):
        workspace = workspace_of(
            {name: frame.rename(columns={"died": target}) for name, frame in FRAMES.items()}, target
        )
        names = {study_name(workspace, now=lambda: day) for _ in range(3)}
        assert len(names) > 1 and all(name.startswith(begins) for name in names)


@pytest.mark.studies
def test_one_wild_cell_is_missing_and_ruins_no_shared_model():
    wild = {site: table.assign(stay=3 + table["died"] + np.arange(len(table)) % 5) for site, table in FRAMES.items()}
    wild["south"].loc[3, "age"] = 1e6
    wild["west"].loc[5, "stay"] = -1e9
    wild["east"]["lab"] /= 100
    said: list[str] = []
    found = federate(wild, target="died", rounds=10, say=said.append)
    shared, pooled = (
        found.overall.query(f"arm == '{arm}' and metric == 'roc_auc_score'").iloc[0]["value"]
        for arm in ("global", "pooled")
    )
    assert pooled - shared < 0.03 and found.report["faults"] == []
    cell = "fewer than 5 cells of {!r} lie far from all others and count as 'not known' (keep reads those of a feature)"
    assert {f"check south: {cell.format('age')}", f"check west: {cell.format('stay')}"} < set(said)
    assert any(line.startswith("check east: the values of 'lab' are about 1/100 of those") for line in said)
    left: list[str] = []
    federate(wild, target="stay", rounds=1, keep=["age"], drop=["died"], say=left.append)
    assert "fewer than 5 rows have no outcome and are left out" in left
    assert any("count as" in line and "'stay'" in line for line in left)
    assert not any("count as" in line and "'age'" in line for line in left)


def test_a_value_outside_an_unconfirmed_range_is_scored_at_its_end_with_a_warning(result: Result):
    schema = result.model.shared.schema
    low, high = schema.columns["age"].range
    rows = FRAMES["north"].head(3)
    with pytest.warns(UserWarning, match="column 'age': fewer than 5 rows are outside"):
        far = result.model.predict_proba(rows.assign(age=[high + 100, low - 100, 60]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ends = result.model.predict_proba(rows.assign(age=[high, low, 60.0]))
    np.testing.assert_array_equal(far, ends)


def test_differential_privacy_of_rows_is_refused_while_ranges_come_from_rows():
    private = {"name": "record-dp", "epsilon": 3, "delta": 1e-5}
    with pytest.raises(UsageError, match="nobody has confirmed the ranges or values of age, sex, lab, ward"):
        federate(FRAMES, target="died", rounds=2, steps=5, privacy=private, say=lambda line: None)


def test_keys_of_a_study_are_keywords():
    found = flfed.run("wine", rounds=2, encode={"scaler": "per-site"})
    assert found.study.rounds == 2 and found.study.encode.scaler == "per-site"
    assert flfed.load(found.run).report == found.report
    assert flfed.runs()["run"].tolist() == [found.run] and flfed.runs()["figure"].notna().all()
    with pytest.raises(UsageError, match="the key is not known"):
        flfed.run("wine", round=2)


@pytest.mark.parametrize(("change", "words"), [
    ({"target": "dead"}, "no column 'dead'"), ({"group": "pat"}, "no column 'pat'"),
    ({"time": "age"}, "holds no dates"), ({"tables": {"north": FRAMES["north"]}}, "at least two sites"),
    ({"tables": {"north": 3}}, "a data frame for each site"), ({"target": "patient"}, "too many for classes"),
    ({"task": "regression", "target": "ward"}, "a number cannot be predicted"),
])  # fmt: skip
def test_what_cannot_be_learnt_is_refused_in_one_sentence(change: dict[str, Any], words: str):
    given = {"tables": FRAMES, "target": "died", "rounds": 1, "say": lambda line: None} | change
    with pytest.raises(UsageError, match=words):
        federate(given.pop("tables"), given.pop("target"), **given)


@pytest.mark.studies
def test_a_group_stays_on_one_side_and_dates_hold_out_the_latest_rows():
    twice = {site: pd.concat([table, table.assign(age=table["age"] + 1)]) for site, table in FRAMES.items()}
    found = federate(twice, target="died", group="patient", rounds=2, say=lambda line: None)
    assert found.model.shared.schema.group == "patient"
    late = federate(FRAMES, target="died", time="admitted", rounds=2, say=lambda line: None)
    holdout = sum(site["holdout-rows"] for site in late.report["sites"].values())
    assert 0.2 < holdout / 900 < 0.4


def test_a_number_is_predicted_in_its_own_unit():
    tables = {
        site: table.assign(cost=100 + 20 * table["age"] + 5 * table["lab"].fillna(0)) for site, table in FRAMES.items()
    }
    found = federate(tables, target="cost", rounds=30, keep=["age"], say=lambda line: None)
    predicted = found.model.predict(tables["north"])
    assert np.corrcoef(predicted, tables["north"]["cost"])[0, 1] > 0.95
    assert abs(predicted.mean() - tables["north"]["cost"].mean()) < 60
    with pytest.raises(UsageError, match="use predict"):
        found.model.predict_proba(tables["north"])


@pytest.mark.studies
@pytest.mark.parametrize(
    ("labels", "task"), [([0, 1], None), ([False, True], None), (["ja", "nein"], None), ([1, 2, 3], "multi-class")]
)
def test_a_model_predicts_the_targets_own_values_also_when_it_is_loaded_later(labels: list[Any], task: Any):
    tables = {}
    for site, table in FRAMES.items():
        place = (table["age"].rank(method="first") * len(labels) // (len(table) + 1)).astype(int)
        answer = table["smoker"].map({True: "ja", False: "nein"})
        tables[site] = table.assign(died=np.array(labels, dtype=object)[place], smoker=answer).infer_objects()
    result = federate(tables, "died", rounds=10, task=task, keep=["age"], say=lambda line: None)
    rows = tables["north"]
    found = result.model.predict(rows)
    assert set(found) <= set(labels) and (found == rows["died"]).mean() > 0.5
    assert result.model.classes_ == tuple(labels)
    later = flfed.load(result.run).model
    np.testing.assert_array_equal(later.predict(rows), found)
    pipeline = pickle.loads(pickle.dumps(later.to_sklearn()))
    assert list(pipeline.predict(rows)) == list(found) and list(pipeline.classes_) == labels


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_a_share_of_the_latest_rows_is_held_out(share: float):
    result = federate(FRAMES, "died", time="admitted", holdout=share, rounds=1, say=lambda line: None)
    held = sum(site.read().holdout_rows for site in result.workspace.sites)
    assert abs(held / 900 - share) < 0.02


def test_saving_keeps_rows_private_and_loses_nothing(tmp_path: Path, result: Result):
    (tmp_path / "sv" / "tables").mkdir(parents=True)
    mine = tmp_path / "sv" / "tables" / "north.parquet"
    mine.write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        result.save(tmp_path / "sv")
    assert mine.read_text() == "mine" and [*(tmp_path / "sv").rglob("*.toml")] == []
    odd = {site: table.assign(odd=1j * table["age"]) for site, table in FRAMES.items()}
    strange = federate(odd, "died", rounds=1, say=lambda line: None)
    with pytest.raises(UsageError, match="site 'north': its table cannot be stored as Parquet"):
        strange.save(tmp_path / "other")
    assert not (tmp_path / "other").exists()
    written = result.save(tmp_path / "kept")
    assert {path.stat().st_mode & 0o777 for path in written} == {0o600}
    policy = (tmp_path / "kept" / "sites" / "north" / "policy.toml").read_text()
    assert 'disclosure = "open"' in policy and "Serve only public tables with this policy" in policy


def test_what_is_saved_for_institutions_holds_small_counts_back(tmp_path: Path, result: Result):
    result.save(tmp_path, institutions=True)
    package = (tmp_path / "sites" / "north" / "__init__.py").read_text()
    assert 'salt="north"' not in package and "salt=" in package
    assert 'disclosure = "institution"' in (tmp_path / "sites" / "north" / "policy.toml").read_text()


def test_frames_of_an_array_have_whole_numbers_for_names():
    rng = np.random.default_rng(5)
    frames = {name: pd.DataFrame(rng.normal(size=(200, 3))) for name in ("north", "south")}
    frames = {name: table.assign(y=(table[0] + rng.normal(size=200) > 0).astype(int)) for name, table in frames.items()}
    named = {name: table.rename(columns=str) for name, table in frames.items()}
    found, same = (federate(of, "y", rounds=3, say=lambda line: None) for of in (frames, named))
    assert found.model.arrays["weight"].shape == (3, 1)
    np.testing.assert_array_equal(found.model.arrays["weight"], same.model.arrays["weight"])
    own = frames["north"].drop(columns="y")
    np.testing.assert_array_equal(found.model.predict_proba(own), same.model.predict_proba(named["north"]))
    np.testing.assert_allclose(found.model.to_sklearn().predict_proba(own), found.model.predict_proba(own), atol=1e-9)
    assert list(own.columns) == [0, 1, 2]


@pytest.mark.studies
@pytest.mark.parametrize("model", ["logistic", "mlp"])
def test_the_verdict_comes_first_also_where_a_site_took_no_part(model: str):
    # One row trains nothing.
    tables = FRAMES | {"tiny": FRAMES["north"].iloc[[2]]}
    found = federate(tables, "died", model=model, rounds=2, say=lambda line: None)
    # Two rounds are too few to judge the shared model: after who took part that stands before all.
    verdict = verdict_in_words(found.report)
    assert verdict[0] == "4 of 5 sites took part."
    assert verdict[1].startswith("The shared model was not trained enough to be judged")
    assert repr(found).splitlines()[1 : 1 + len(verdict)] == verdict and "took no part" in repr(found)
    shown = found._repr_html_()
    assert shown.startswith(f"<p><b>{html.escape(verdict[0])}") and f"<p>{html.escape(verdict[1])}</p>" in shown


@pytest.mark.studies
def test_the_verdicts_of_gains_follow_from_their_intervals_which_are_the_widened_ones():
    draw = np.random.default_rng(8)
    tables = {
        site: pd.DataFrame({"score": draw.normal(size=rows)}).assign(
            other=lambda table: draw.normal(size=len(table)),
            died=lambda table: draw.random(len(table)) < 1 / (1 + np.exp(-2 * table["score"])),
        )
        for site, rows in (("north", 200), ("south", 900), ("east", 900))
    }
    found = federate(tables, "died", rounds=8, repeats=3, say=lambda line: None)
    for line in found.gains.itertuples():
        expected = "joining improves AUC" if line.low > 0.005 else "no clear improvement"
        assert line.verdict == ("do not use it here" if line.high < -0.005 else expected)
        key = {"shared model": "difference", "adjusted to site": "difference-personalised"}[line.model]
        told = found.report["sites"][line.site][key]["roc_auc_score"]
        assert (line.low, line.high) == (told["widened-low"], told["widened-high"])
        assert line.low < told["low"] and line.high > told["high"]


def test_a_column_that_one_site_lacks_is_not_known_there():
    tables = {"north": FRAMES["north"].drop(columns=["age", "smoker"]), "south": FRAMES["south"]}
    tables["east"] = FRAMES["east"].assign(extra=np.arange(150) * 1.5)
    lines: list[str] = []
    found = federate(tables, "died", rounds=2, say=lines.append)
    assert "check north has no column age, smoker, extra: every row there is missing it" in "\n".join(lines)
    sites = {site.name: site for site in found.workspace.sites}
    assert [sites["north"].mapping[name] for name in ("age", "smoker", "extra")] == [None] * 3
    assert sites["south"].mapping["extra"] is None and "age" not in sites["south"].mapping
    schema = found.workspace.proposal.schema
    assert [schema.columns[name].kind for name in ("age", "smoker", "extra")] == ["number", "flag", "number"]
    assert schema.columns["age"].range == pytest.approx((20, 100), abs=12)
    assert sites["north"].read().training["age"].isna().all()
    assert sites["south"].read().training["age"].between(20, 110).all()
    with pytest.warns(UserWarning, match="the table has no column extra: all rows"):
        assert found.model.predict_proba(FRAMES["north"]).shape == (300, 2)


@pytest.mark.parametrize(("option", "column"), [("target", "died"), ("group", "patient"), ("time", "admitted")])
def test_a_site_without_a_column_that_every_site_needs_is_named(option: str, column: str):
    tables = FRAMES | {"south": FRAMES["south"].drop(columns=column)}
    with pytest.raises(UsageError, match=f"^{option}: no column '{column}' at 'south': add it, or leave"):
        federate(tables, **({"target": "died", "say": lambda line: None} | {option: column}))


def test_a_column_that_tells_the_outcome_is_found_where_a_site_lacks_another():
    tables = {site: table.assign(code=table["died"] * 3.0) for site, table in FRAMES.items()}
    tables["north"] = tables["north"].drop(columns="code")
    said: list[str] = []
    federate(tables, "died", rounds=1, say=said.append)
    assert any(line.startswith("left out, possible leak: 'code'") for line in said)


def of_classes(count: int) -> dict[str, pd.DataFrame]:
    """Return three sites of 600 rows whose class follows a softmax of five numbers."""
    weights = np.random.default_rng(9).normal(size=(5, count))
    tables = {}
    for number in range(3):
        draw = np.random.default_rng(number)
        x = draw.normal(size=(600, 5))
        classes = (x @ weights + draw.gumbel(size=(600, count))).argmax(axis=1)
        tables[f"s{number}"] = pd.DataFrame(x, columns=list("abcde")).assign(y=[f"c{one:02d}" for one in classes])
    return tables


@pytest.mark.studies
@pytest.mark.proof
def test_the_proposed_plan_brings_twelve_classes_to_the_pooled_model():
    tables = of_classes(12)
    found = flfed.federate(tables, "y", say=lambda line: None)
    losses = found.overall.query("metric == 'log_loss'").set_index("arm")["value"]
    assert losses["global"] < losses["pooled"] + 0.02
    assert "do not use it here" not in set(found.gains["verdict"]) and "not trained enough" not in repr(found)
    # Steps and penalty of a study of two classes end far from it, and the result says so.
    gentle = flfed.federate(tables, "y", lr=0.05, l2=0.01, rounds=10, say=lambda line: None)
    losses = gentle.overall.query("metric == 'log_loss'").set_index("arm")["value"]
    assert losses["global"] > losses["pooled"] + 0.1
    assert "was not trained enough to be judged: try more rounds or a higher learning rate" in repr(gentle)


@pytest.mark.studies
def test_the_studies_of_the_docstring_run_and_a_dataset_without_sites_is_told_to_be_cut():
    for study in (
        flfed.Study(dataset="preterm-birth", model="mlp", rounds=np.int64(1)),
        flfed.Study(dataset="wine", rounds=1, partition={"by": "iid", "sites": 3}),
    ):
        told = "".join(part for part in (flfed.Study.__doc__ or "").split("`") if study.dataset.name in part)
        assert told.startswith("Study(dataset=")
        assert flfed.run(study, repeats=np.int64(1)).status == "completed"
    with pytest.raises(
        UsageError, match="no site on this machine has dataset 'wine'.*cut into sites by .dataset. partition = "
    ):
        flfed.run(flfed.Study(dataset="wine", model="mlp", rounds=1))
    assert flfed.run("wine", model="mlp", rounds=1).study.model.name == "mlp"


def test_a_plan_is_proposed_by_the_task():
    plans = {
        task: Study.parse(StudyTemplate(name="x", dataset="wine", task=task).text()).plan
        for task in ("binary", "multi-class", "regression")
    }
    assert {task: (plan.lr, plan.l2, plan.clip) for task, plan in plans.items()} == {
        "binary": (0.05, 0.01, 1.0), "multi-class": (0.2, 0.001, 1.0), "regression": (0.05, 0.01, 1.0)
    }  # fmt: skip


@pytest.mark.parametrize(("change", "words"), [
    ({"tables": {"north": FRAMES["north"]}}, "give two tables, or the column that names them .by."),
    ({"tables": {"A": FRAMES["north"], "a": FRAMES["south"]}}, "two sites would have the name 'a' .'A' and 'a'.:"),
    ({"by": "ward"}, "by='ward' cuts one data frame into sites, and a mapping names the site of each"),
    ({"tables": FRAMES | {"": FRAMES["north"]}}, "site '': its name must have 1 to 60 letters"),
    ({"tables": FRAMES | {"x" * 200: FRAMES["north"]}}, "site 'x{40}': its name must have 1 to 60 letters"),
    ({"privacy": "record-dp"}, "nobody has confirmed the ranges"),
    ({"learning_rate": 0.1}, "learning-rate: the key is not known; did you mean 'lr'."),
    ({"hidden": [8]}, "hidden: the key is not known.* such as hidden with model.name = 'mlp'"),
    ({"strategy": "fedavgm", "momentum": 0.5}, r'.plan, strategy.. .* strategy=dict.name=..., momentum=....'),
])  # fmt: skip
def test_errors_of_python_speak_of_python(change: dict[str, Any], words: str):
    given = {"tables": FRAMES, "rounds": 1, "say": lambda line: None} | change
    with pytest.raises(UsageError, match=words) as refused:
        federate(given.pop("tables"), "died", **given)
    assert "--" not in str(refused.value)


def test_a_site_that_is_not_there_and_what_is_no_table_are_named():
    found = federate(FRAMES | {"tiny": FRAMES["north"].iloc[[2]]}, "died", rounds=1, say=lambda line: None)
    assert "tiny (it has no training rows)" in repr(found)
    with pytest.raises(UsageError, match="site 'nort' .*; did you mean 'north'"):
        found.plot.rounds(sites=["nort"])
    assert found.plot.rounds(sites="north").to_dict() == found.plot.rounds(sites=["north"]).to_dict()
    for table in (FRAMES["north"].to_numpy(), FRAMES["north"].iloc[0], [1, 2]):
        with pytest.raises(UsageError, match=f"needs a DataFrame .* not {type(table).__name__}"):
            found.model.predict_proba(table)


def test_a_stopped_call_names_the_call_that_resumes_it_to_the_same_arrays():
    def stop(figures: dict[str, Any]) -> None:
        if figures["round"] == 3:
            raise KeyboardInterrupt

    given = {"target": "died", "rounds": 6, "say": lambda line: None}
    with pytest.raises(RunStopped, match=r"resume it from Python, by federate\(..., resume=") as stopped:
        federate(FRAMES, callback=stop, **given)
    run = re.search("resume='(.*?)'", str(stopped.value))[1]
    assert "flfed study resume" not in str(stopped.value)
    for sites in (None, FRAMES):
        with pytest.raises(UsageError, match=rf"federate\(..., resume='{run}'\) with the same arguments"):
            flfed.resume(run, sites=sites)
    other = ({"rounds": 8}, {"lr": 0.5}, {"strategy": "fedprox"}, {"repeats": 2}, {"model": "mlp"}, {"codec": "int8"})
    for change, key in zip(
        other, ("strategy.rounds", "plan.lr", "strategy.name", "repeats", "model.name", "codec.name")
    ):
        with pytest.raises(UsageError, match=rf"{run} goes on under its own settings, .* has others \({key}\)"):
            federate(FRAMES, resume=run, **(given | change))
    # Rows of the rounds before would be test rows.
    with pytest.raises(UsageError, match=f"{run}: the training rows of .* are not those of its earlier rounds"):
        federate(FRAMES, resume=run, holdout=0.5, **given)
    heard = []
    resumed = federate(FRAMES, resume=run, callback=lambda figures: heard.append(figures["round"]), **given)
    assert (resumed.run, resumed.status, set(heard)) == (run, "completed", {4, 5, 6})
    whole = federate(FRAMES, **given)
    for name, value in whole.model.arrays.items():
        np.testing.assert_array_equal(resumed.model.arrays[name], value)
