"""`flfed audit` as a person or a program calls it: what it prints, and what it ends with."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from flfed.federation.server.run import run
from flfed.paths import home
from flfed.records.reports.audit_headlines import figure_name
from flfed.records.statistics.verdict import interval, number
from flfed.records.store.writer import RunStore
from flfed.study.study import Study

MEMBERSHIP = "membership-inference"
SITES = ["kentucky-clinic", "minnesota-clinic", "mississippi-clinic", "new-york-clinic"]
ORACLE = '''
"""An attack that is always right, against a promise of chance."""
from flfed.rows.comparison.attack_runner import Finding

class Oracle:
    """Right without a look at anything."""
    metrics = ("share-right",)
    def findings(self, attacked):
        yield []
        return (Finding(attack="oracle", metric="share-right", value=1.0, low=0.96, high=1.0, method="Wilson", rows=90,
                        promise=0.5, beyond=True, says="Always right."),)
'''


@pytest.fixture
def ended() -> str:
    """The id of a finished run of a shipped study, two rounds of it."""
    return run(Study.load("preterm-birth").replace({"rounds": 2})).run


@pytest.fixture
def refused(flfed) -> Callable[..., str]:
    def call(*words: object) -> str:
        code, out, err = flfed("audit", *words)
        assert (code, out) == (2, ""), (code, out, err)
        assert err.startswith("flfed: ") and err.count("\n") == 1, err
        return err

    return call


def test_the_object_is_as_documented_and_the_report_has_the_figures_too(flfed, ended):
    code, out, err = flfed("audit", ended, "--attack", MEMBERSHIP, "--json")
    found = json.loads(out)
    assert (code, err, found["run"], found["study"]) == (0, "", ended, "preterm-birth")
    assert set(found) == {"run", "study", "repeat", "repeats", "promise", "findings", "faults"}
    assert found["promise"] is None
    assert [(line["site"], line["metric"]) for line in found["findings"]] == [
        (site, metric) for site in SITES for metric in ("auc-of-loss", "auc-of-lira")
    ]
    for line in found["findings"]:
        assert 0 <= line["low"] < line["value"] < line["high"] <= 1
        assert (line["attack"], line["promise"], line["verdict"]) == (MEMBERSHIP, None, "no promise")
        assert line["rows"] > 100 and line["says"].endswith(".")
    shown = json.loads(flfed("run", "show", ended, "--json")[1])["audit"]
    wanted = {(line["site"], line["metric"]): line["value"] for line in found["findings"]}
    assert {(line["site"], line["metric"]): line["value"] for line in shown} == wanted


def test_a_person_reads_a_table_and_what_it_means_once(flfed, ended):
    code, out, _ = flfed("audit", "--attack", MEMBERSHIP, "--site", SITES[0], "--site", SITES[2])
    assert code == 0 and f"preterm-birth ({ended}) gives no privacy guarantee" in out
    lines = [line for line in out.splitlines() if line.strip().startswith(MEMBERSHIP)]
    assert sum("no promise" in line for line in lines) == 2
    assert all(any(name in line for line in lines) for name in (SITES[0], SITES[2]))
    assert SITES[1] not in out and out.count(", by LiRA with") == 1
    assert "2 more figures: --all prints them" in out and ", by its loss," not in out
    assert "A verdict uses the lower end of the interval: a figure above the guarantee may be chance." in " ".join(
        out.split()
    )


@pytest.mark.studies
def test_all_figures_are_printed_on_request_and_read_as_those_of_the_json(flfed, ended):
    words = ("audit", ended, "--attack", MEMBERSHIP, "--site", SITES[0])
    found = json.loads(flfed(*words, "--json")[1])["findings"]
    code, out, _ = flfed(*words, "--all")
    assert code == 0 and len(found) == 2 and "more figures" not in out
    for line in found:
        said = f"{number(line['value'])} ({interval(line['low'], line['high'])})"
        assert said in out and figure_name(line["metric"]) in out


@pytest.mark.studies
def test_a_figure_beyond_what_was_promised_ends_with_1_after_all_was_shown(flfed, ended, tmp_path: Path, monkeypatch):
    (tmp_path / "flfed_oracle.py").write_text(ORACLE)
    about = tmp_path / "flfed_oracle-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: flfed-oracle\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[flfed.attack]\noracle = flfed_oracle:Oracle\n")
    monkeypatch.syspath_prepend(tmp_path)
    code, out, err = flfed("audit", ended, "--attack", "oracle", "--json")
    assert (code, err) == (1, "")
    assert [line["verdict"] for line in json.loads(out)["findings"]] == ["beyond the promise"] * 4
    code, out, _ = flfed("audit", ended, "--attack", "oracle")
    assert code == 1 and out.count("1.000 (0.960 to 1.000)") == 4 and "oracle: Always right." in out


def test_wrong_use_is_one_sentence_and_2(refused, ended):
    assert "attack 'membership' is not known; did you mean 'membership-inference'?" in refused("--attack", "membership")
    assert "'kentucky' took no part in the run" in refused("--site", "kentucky")
    assert "'20990101-000000-0000' is not in the store" in refused("20990101-000000-0000")
    shutil.rmtree(home() / "runs" / ended)
    assert f"the model of run {ended} is not in" in refused(ended)


def test_without_runs_or_with_a_failed_one_there_is_nothing_to_attack(refused):
    assert "there are no runs yet" in refused("latest")
    study = Study.load("preterm-birth")
    with RunStore.open() as store:
        series = store.begin_series(study=study.name, study_sha256=study.sha256(), study_text=study.text)
        facts = {"engine": "inprocess", "path": "stacked", "primary": "roc_auc_score", "task": "binary"}
        writer = store.begin_run(series, seed=1, rounds_planned=40, **facts)
        assert "is running: it has no final model" in refused("latest")
        writer.finish(status="failed", reason="too few sites")
    assert f"run {writer.run} is failed: it has no final model; flfed run list" in refused(writer.run)


def test_help_shows_an_example_and_the_exit_codes(flfed):
    code, out, _ = flfed("audit", "--help")
    said = " ".join(out.split())
    assert code == 0 and "Example: flfed audit latest --json" in said
    assert "0 done, 1 failed or an attack exceeded the guarantee, 2 wrong use" in said
