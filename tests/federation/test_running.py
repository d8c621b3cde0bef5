"""A whole run from its study to its record: the same twice, whatever the order, and every way it can end."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pytest

import flfed
from flfed import Study, run
from flfed.errors import RunStopped, UsageError
from flfed.federation.engines.engine import find_sites
from flfed.federation.server.preflight import check
from flfed.federation.server.run import Result
from flfed.records.reports.narrative import SHORT, comparison_rows
from flfed.records.reports.report import REFERENCES
from flfed.records.reports.site_verdict import site_verdict
from flfed.records.statistics.verdict import Difference, describe_verdict, gain_in_brackets
from flfed.records.store.reader import RunReader
from flfed.rows.data.sources import Csv, Frame


@dataclass(frozen=True, eq=False)
class Breaking(Frame):
    """A frame whose reading is an error of the program, not of the table."""

    def read(self, folders: tuple[Path, ...]) -> pd.DataFrame:
        raise KeyboardInterrupt


def sha(result: Result) -> str:
    return str(result.report["arrays-sha256"])


@pytest.fixture
def study(small_study: str) -> Study:
    """A study of two rounds on "small"."""
    return Study.parse(small_study.replace("rounds = 5", "rounds = 2"))


def entry(name: str = "latest"):
    """Return the run as the store has it."""
    with RunReader.open() as reader:
        return reader.runs_of(name)[0]


def test_a_run_repeated_from_its_record_gives_the_same_arrays_and_another_seed_does_not(small_sites, study: Study):
    sites = small_sites(2)
    first = run(study.replace({"lr": 0.3}), sites=sites)
    with RunReader.open() as reader:
        study = Study.parse(reader.series(first.run).study_text)
        assert reader.runs_of(first.run)[0].hashes["study"] == study.sha256()
    second = run(study, sites=sites)
    assert sha(first) == sha(second)
    assert len(sha(first)) == 64
    assert sha(run(study.replace({"seed": 8}), sites=sites)) != sha(first)
    same = ("global", "sites-mean", "pooled", "own-model-everywhere", "sites")
    assert [first.report[key] for key in same] == [second.report[key] for key in same]


def test_another_order_of_sites_gives_the_same_arrays_and_figures(small_sites, study: Study):
    sites = small_sites(3)
    results = [run(study, sites=[sites[k] for k in order]) for order in ([0, 1, 2], [2, 0, 1])]
    assert sha(results[0]) == sha(results[1])
    assert results[0].report["global"] == results[1].report["global"]
    assert results[0].report["pooled"] == results[1].report["pooled"]


def test_another_order_of_nodes_gives_the_same_arrays(small_sites, small_study, conduct: Callable):
    # Node ids follow the order of the grid's sites, and two of the three are drawn each round.
    sites = small_sites(3)
    text = small_study.replace("rounds = 5", "rounds = 3\nfraction = 0.67")
    outcomes = [conduct(order, text).outcome.arrays_sha256() for order in (sites, sites[::-1])]
    assert outcomes[0] == outcomes[1]


def test_repeats_draw_other_holdouts_and_the_report_is_their_mean(small_sites, study: Study):
    result = run(study, sites=small_sites(2), repeats=2)
    assert (result.report["repeats"], result.report["arrays-sha256"]) == (2, None)
    with RunReader.open() as reader:
        runs = reader.runs_of(result.run)
        values = [
            figure.value
            for of in runs
            for figure in reader.figures(of.run)
            if (figure.site, figure.arm, figure.metric) == (None, "global", "roc_auc_score")
        ]
    assert [of.seed for of in runs] == [7, 8]
    assert runs[0].arrays_sha256 != runs[1].arrays_sha256
    assert values[0] != values[1]
    assert result.report["global"]["roc_auc_score"]["value"] == pytest.approx(sum(values) / 2, abs=1e-12)


def test_results_are_data_frames_and_progress_counts_rounds_and_repeats(small_sites, study: Study):
    steps: list[tuple[str, int, int]] = []
    result = run(
        study.replace({"compare.site-model": "best"}), sites=small_sites(2), progress=lambda *step: steps.append(step)
    )
    reference = [("pooled reference", 0, 1), ("pooled reference", 1, 1)]
    compared = [("compare", 0, 1), *reference, ("compare", 1, 1)]
    assert steps == [("rounds", 1, 2), ("rounds", 2, 2), *compared, ("repeats", 1, 1)]
    assert result.status == "completed"
    assert set(result.sites["site"]) == {"site-01", "site-02"}
    assert set(result.sites["arm"]) == {"global", "local-only", "personalised", "difference", "gain"}
    assert list(result.overall["arm"].unique()) == list(REFERENCES)
    assert REFERENCES[:3] == ("global", "sites-mean", "personalised")
    auc = result.sites[result.sites["metric"] == "roc_auc_score"].pivot(index="site", columns="arm", values="value")
    assert auc["difference"].tolist() == pytest.approx((auc["global"] - auc["local-only"]).tolist(), abs=1e-12)


def test_gains_of_a_result_have_the_sign_the_model_and_the_verdict_that_are_told_elsewhere(small_sites, study: Study):
    result = run(study, sites=small_sites(3, rows=200))
    gains = result.sites[result.sites["arm"] == "gain"].set_index(["site", "metric"])
    assert {metric for _, metric in gains.index} == set(result.report["global"])
    least = result.report["verdict-rule"]["minimum-gain"]
    for metric in result.report["global"]:
        _, rows, _ = comparison_rows(result.report, metric)
        for name, *_, told, read in rows[:3]:
            line = gains.loc[(name, metric)]
            assert line["verdict"] == site_verdict(result.report["sites"][name], metric)[0]
            assert read == describe_verdict(line["verdict"], metric)
            if told != "n/a":
                size = Difference(line["value"], line["low"], line["high"])
                assert told == f"{gain_in_brackets(size, least[metric])}, {SHORT[line['model']]}"
    loss = gains.xs("log_loss", level="metric")
    site = result.report["sites"]["site-01"]
    both = [site[key]["log_loss"]["value"] for key in ("difference", "difference-personalised")]
    assert loss.loc["site-01", "value"] == pytest.approx(-min(both), abs=1e-12)  # a lower loss is a gain


def test_a_refused_site_does_not_stop_the_others(small_sites, study: Study):
    def spoil(number: int, table: pd.DataFrame) -> pd.DataFrame:
        if number == 2:
            table.loc[0, "x1"] = 1e6
        return table

    result = run(study, sites=small_sites(3, change=spoil))
    reason = "refused: column 'x1' is outside the schema's range 0 to 100 mm in fewer than 10 rows"
    assert result.report["faults"] == [{"round": None, "site": "site-03", "reason": reason}]
    assert sorted(result.report["sites"]) == ["site-01", "site-02"]


def test_too_few_sites_fail_the_run_and_the_store_says_why(small_sites, study: Study, tmp_path: Path):
    sites = small_sites(2)
    sites[0] = replace(sites[0], source=Csv(str(tmp_path / "absent.csv")))
    with pytest.raises(UsageError, match="only one site takes part, at least 2 are needed") as failed:
        run(study, sites=sites)
    assert failed.value.exit_code == 2  # a site's file is not there: wrong input
    assert (entry().status, entry().reason) == ("failed", str(failed.value))
    assert entry().rounds == 0


def test_an_expired_study_is_refused_before_anything_is_written(small_sites, small_study, home: Path):
    expired = Study.parse(small_study.replace("seed = 7", "seed = 7\nexpires = 2020-01-31"))
    with pytest.raises(UsageError, match="the study expired on 2020-01-31"):
        run(expired, sites=small_sites(2))
    assert not (home / "runs.db").exists()


def test_a_keyboard_interrupt_stops_the_run_and_keeps_what_was_done(small_sites, small_study):
    def progress(stage: str, done: int, of: int) -> None:
        if (stage, done) == ("rounds", 3):
            raise KeyboardInterrupt

    with pytest.raises(RunStopped, match="interrupted from the keyboard") as stopped:
        run(Study.parse(small_study), sites=small_sites(2), progress=progress)
    assert stopped.value.exit_code == 3
    assert (entry().status, entry().rounds, entry().rounds_planned) == ("stopped", 3, 5)
    assert entry().arrays_sha256 is None


def test_an_interrupt_keeps_rounds_that_were_not_written_yet_and_the_run_goes_on(small_sites, small_study, monkeypatch):
    study, sites = Study.parse(small_study), small_sites(2)
    whole = run(study, sites=sites)
    monkeypatch.setenv("FLFED_CHECKPOINT_SECONDS", "1000")  # after the first round, and no more: others may wait

    def progress(stage: str, done: int, of: int) -> None:
        if (stage, done) == ("rounds", 4):
            raise KeyboardInterrupt

    with pytest.raises(RunStopped):
        run(study, sites=sites, progress=progress)
    assert (entry().status, entry().rounds) == ("stopped", 4)
    assert sha(flfed.resume("latest", sites=sites)) == sha(whole)


def test_who_observes_a_run_finds_each_round_in_the_store_when_told(small_sites, small_study, monkeypatch):
    monkeypatch.setenv("FLFED_CHECKPOINT_SECONDS", "1000")
    seen = []
    run(
        Study.parse(small_study), sites=small_sites(2),
        observer=lambda stage, round: seen.append((stage, round, entry().rounds)),
    )  # fmt: skip
    assert [(round, rounds) for stage, round, rounds in seen if stage == "round"] == [(n, n) for n in range(1, 6)]
    assert ("checkpoint", 5, 4) in seen


def test_an_interrupt_while_a_site_works_is_no_fault_of_the_site(small_sites, study: Study):
    sites = small_sites(2)
    sites[0] = replace(sites[0], source=Breaking(sites[0].source.table))
    with pytest.raises(RunStopped):
        run(study, sites=sites)
    assert entry().status == "stopped"


def test_an_error_of_the_program_is_in_the_store_as_failed_without_its_text(small_sites, study: Study):
    def progress(stage: str, done: int, of: int) -> None:
        raise ZeroDivisionError("P0-0001")

    with pytest.raises(ZeroDivisionError):
        run(study, sites=small_sites(2), progress=progress)
    assert (entry().status, entry().reason) == ("failed", "ZeroDivisionError: see the log")


@pytest.mark.parametrize(("options", "said"), [
    (
        {"engine": "deployment"},
        "not admitted: site-01, site-02; admitted: none (see: flfed coordinator status); of several sites: "
        "--site A --site B",
    ),
    (
        {"engine": "inproces"},
        "engine 'inproces' is not known; did you mean 'inprocess'? Known: inprocess, ray, deployment",
    ),
    ({"repeats": 0}, "repeats=0 must be a whole number >= 1"),
])  # fmt: skip
def test_wrong_options_are_refused_before_anything_is_written(small_sites, study, home, options, said):
    with pytest.raises(UsageError) as refused:
        run(study, sites=small_sites(2), **options)
    assert str(refused.value) == said
    assert refused.value.exit_code == 2
    assert not (home / "runs.db").exists()


@pytest.mark.parametrize(("old", "new", "said"), [
    ('name = "logistic"', 'name = "linear"', "[model] linear: is for regression, the dataset's task is 'binary'"),
    (
        "resamples = 200", "resamples = 200\nprimary = 'r2_score'",
        "[compare]: primary='r2_score' is not a metric for task",
    ),
    ("rounds = 5", "rounds = 5\npatience = 3", "set [plan] validation = 0.2"),
    ("rounds = 5", "rounds = 5\nselect = 'best'", "set [plan] validation = 0.2"),
    ("rounds = 5", "rounds = 5\nquorun = 1.0", "key 'quorun' is not known; did you mean 'quorum'?"),
    ('name = "small"\n[model]', 'name = "smal"\n[model]', "dataset 'smal' is not known; did you mean 'small'?"),
    ('name = "small"\n[model]', 'name = "small"\nfeatures = ["x3"]\n[model]', "has no column 'x3'"),
])  # fmt: skip
def test_a_study_that_fits_nothing_listed_is_refused_before_anything_is_written(
    small_sites, small_study, home: Path, old: str, new: str, said: str
):
    assert small_study.count(old) == 1
    with pytest.raises(UsageError) as refused:
        run(Study.parse(small_study.replace(old, new)), sites=small_sites(2))
    assert said in str(refused.value)
    assert not (home / "runs.db").exists()


def test_class_weights_need_classes(home: Path):
    study = Study.load("diabetes").replace({"class-weight": "balanced"})
    with pytest.raises(UsageError, match="class-weight='balanced' needs classes"):
        check(study)


def test_absent_downloads_are_named_with_the_command_that_fetches_them(home: Path):
    with pytest.raises(UsageError, match="is not here yet .*flfed data get heart-disease"):
        run("heart-disease")
    assert not (home / "runs.db").exists()


def test_a_study_is_checked_where_no_table_is(home: Path, flfed):
    code, out, _ = flfed("study", "check", "heart-disease")
    assert code == 0 and "Sites on this machine: cleveland, hungary, long-beach, switzerland" in out
    assert "is not here yet (processed.cleveland.data," in out


def test_sites_of_another_dataset_and_sites_of_one_name_are_refused(small_sites, study: Study, home: Path):
    sites = small_sites(2)
    with pytest.raises(UsageError, match="site 'site-02' has dataset 'wine', the study needs 'small'"):
        run(study, sites=[sites[0], replace(sites[1], dataset="wine")])
    with pytest.raises(UsageError, match="a site's name must be unique"):
        run(study, sites=[sites[0], sites[0]])
    with pytest.raises(UsageError, match="no site on this machine has dataset 'small'"):
        run(study)
    assert not (home / "runs.db").exists()


def test_a_study_that_cuts_its_own_sites_takes_no_others(small_sites):
    with pytest.raises(UsageError, match="takes no others"):
        find_sites(Study.load("wine"), small_sites(2))
    assert [site.name for site in find_sites(Study.load("wine"))] == ["wine-1", "wine-2", "wine-3"]


def test_sites_are_those_given_else_those_named_else_all_of_the_dataset(small_study):
    named = Study.load("loan-default").replace({"dataset.sites": ["west-lender", "south-lender"]})
    assert [site.name for site in find_sites(named)] == ["south-lender", "west-lender"]
    assert [site.name for site in find_sites(named, ["midwest-lender"])] == ["midwest-lender"]
    assert len(find_sites(Study.load("loan-default"))) == 4


def test_checking_a_study_gives_task_primary_and_the_hash_of_the_schema(small_sites, study: Study):
    small_sites(1)
    facts = check(study)
    assert (facts["task"], facts["primary"], len(facts["schema"])) == ("binary", "roc_auc_score", 64)


def test_a_run_writes_to_the_store_it_is_given(small_sites, study: Study, tmp_path: Path, home: Path):
    url = f"sqlite:///{tmp_path / 'other.db'}"
    assert run(study, sites=small_sites(2), store=url).store == url
    with sqlite3.connect(tmp_path / "other.db") as connection:
        assert connection.execute("SELECT status, rounds FROM run").fetchall() == [("completed", 2)]
    connection.close()
    assert not (home / "runs.db").exists()


def test_the_record_names_the_code_it_was_made_with(tmp_path: Path):
    import shutil

    from flfed.federation.recording.run_record import code_sha256

    package = Path(flfed.__file__).parent
    copy = tmp_path / "flfed"
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__", "_bundled"))
    program = "from flfed.federation.recording.run_record import code_sha256; print(code_sha256())"

    def hashed() -> str:
        env = {**os.environ, "PYTHONPATH": str(tmp_path)}
        done = subprocess.run([sys.executable, "-c", program], env=env, cwd=tmp_path, capture_output=True, text=True)
        return done.stdout.strip()

    assert hashed() == code_sha256()
    (copy / "study" / "plan.py").write_text((copy / "study" / "plan.py").read_text() + "# one more line\n")
    changed = hashed()
    assert changed != code_sha256()
    assert len(changed) == 64
    # What a table decides is code, too.
    table = copy / "refusals.toml"
    table.write_text(table.read_text() + "# one more line\n")
    assert hashed() not in (changed, code_sha256())
