"""`flfed demo`: two studies in order, lines of progress while they run, and three lines at the end."""

import re
import time

import pytest

from flfed.callbacks import progress_lines
from flfed.cli import dashboard
from flfed.cli import progress as progress_module
from flfed.cli.progress import progress
from flfed.records.reports.narrative import joining_in_words
from flfed.records.reports.report import report
from flfed.records.store.reader import RunReader


@pytest.mark.studies
def test_the_demo_shows_the_mean_gain_of_lenders_first_and_ends_with_three_lines(flfed, monkeypatch):
    monkeypatch.setattr(dashboard, "REPEATS", 1)
    monkeypatch.setattr(progress_module, "STEADY", 0.5)
    code, out, err = flfed("demo")
    assert code == 0, err
    lines = [line for line in out.splitlines() if line.strip()]
    with RunReader.open() as reader:
        by_study = {run.study: run.run for run in reader.runs()}
        found = report(reader, by_study["loan-default"])
    headline = joining_in_words(found, "roc_auc_score")
    # The first verdict is a figure with its interval.
    assert lines[0].startswith("loan-default: ") and lines[1] == headline
    assert re.match(r"Mean gain from joining [+−]0\.\d{3} in AUC \(95 % CI [+−]0\.\d{3} to \+0\.\d{3}\): ", headline)
    assert "Joining improves AUC at 0 of 4 sites; no clear improvement at 4" in lines[2]
    first, second, third = lines[-3:]
    assert first == f"Four lenders, loan-default: {headline}"
    assert re.match(r"Four clinics, preterm-birth: nothing can be concluded on joining\. .*at least 10 with it", second)
    assert third.endswith("flfed app (in a checkout activate its environment first, or: make app)")
    assert err.index("Running study loan-default") < err.index("Running study preterm-birth")
    assert len(re.findall(r"^(sites' own models|compare|pooled reference)\b.*, \d+ s", err, flags=re.MULTILINE)) >= 2


@pytest.mark.parametrize("steady", [True, False])
def test_a_stage_that_stands_still_is_printed_again_and_again_on_a_pipe(capsys, monkeypatch, steady):
    monkeypatch.setattr(progress_module, "STEADY", 0.02)
    with progress(steady=True) if steady else progress_lines(0.02) as show_stage:
        show_stage("rounds", 3, 20)
        time.sleep(0.3)
        rounds = capsys.readouterr().err.splitlines()
        show_stage("compare", 0, 1)
        time.sleep(0.3)
    compare = capsys.readouterr().err.splitlines()
    assert len(rounds) >= 3 and all(re.fullmatch(r"rounds: 3 of 20, \d+ s", line) for line in rounds)
    assert len(compare) >= 3 and all(re.fullmatch(r"compare, \d+ s", line) for line in compare)
    time.sleep(0.1)
    assert capsys.readouterr().err == ""
