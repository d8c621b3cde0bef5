"""How far a run is, where no bar can be drawn: a line each tenth or each minute, and how long it will take."""

import io
import subprocess
import sys
import threading
from itertools import count

import pytest
from rich.console import Console

from flfed.callbacks import OWN_MODELS, WARNING, ProgressLines, display_paused, progress_lines, shown_progress
from flfed.cli.progress import _bars, progress
from flfed.federation.server.run import run
from flfed.study.study import Study
from tests.terminal import in_terminal


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def told(steps: list[tuple[float, int]], of: int, stage: str = "rounds") -> list[str]:
    """Return the lines of a stage of which so much is done at these seconds."""
    clock, said = Clock(), list[str]()
    lines = ProgressLines(said.append, clock)
    for at, done in steps:
        clock.now = 100.0 + at
        lines(stage, done, of)
    return said


def test_a_line_comes_at_each_tenth_with_the_time_that_is_left():
    # 100 rounds of 4 s: after 10 rounds 40 s have passed, and 90 rounds of 4 s are left, which is 6 minutes
    said = told([(4.0 * done, done) for done in range(101)], 100)
    assert len(said) == 10
    assert said[0] == "rounds: 10 of 100, 40 s, about 6 min 0 s left"
    assert said[-1] == "rounds: 100 of 100, 6 min 40 s"


def test_of_a_long_run_a_line_comes_each_minute():
    said = told([(20.0 * done, done) for done in range(31)], 3000)
    assert len(said) == 10  # 30 rounds of 20 s are 10 minutes, and not yet a tenth
    assert said[0] == "rounds: 3 of 3000, 1 min 0 s, about 16 h 39 min left"


def test_a_stage_that_stands_still_gets_a_line_after_10_s_and_then_each_tenth_of_the_time_or_minute():
    clock, said = Clock(), list[str]()
    lines = ProgressLines(said.append, clock)
    at = [0]
    lines("rounds", 40, 40)
    lines("compare", 0, 1)
    for second in range(1, 3601):
        clock.now = 100.0 + second
        lines.beat()
        at += [second] * (len(said) >= len(at))
    apart = [after - before for before, after in zip(at, at[1:])]
    assert said[0] == "compare, 10 s" and apart[0] == 10 and apart == sorted(apart) and max(apart) == 60
    assert len(said) < 90


def test_a_stage_that_begins_anew_is_timed_anew():
    # The second run of 40 rounds begins after 100 s, and has 30 rounds of 1 s left.
    assert told([(0, 0), (40, 40), (100, 0), (110, 10)], 40)[-1] == "rounds: 10 of 40, 10 s, about 30 s left"


@pytest.mark.parametrize(
    ("options", "stage"),
    [
        ({}, (OWN_MODELS, 3)),
        ({"jobs": 2}, (OWN_MODELS, 3)),
        ({"repeats": 2}, (OWN_MODELS, 6)),
        ({"stacked": False}, ("compare", 3)),
    ],
)
def test_a_comparison_tells_of_how_many_sites_the_own_models_are_made(small_sites, small_study, options, stage):
    stages = list[tuple[str, int, int]]()
    study = Study.parse(small_study).replace({"site-model": "best", "rounds": 1})
    run(study, sites=small_sites(3, rows=300), progress=lambda *said: stages.append(said), **options)
    name, of = stage
    counted = [done for said, done, whole in stages if said == name and whole == of]
    assert counted[0] == 0 and counted == sorted(counted) and len(counted) >= of
    assert any(said.startswith("pooled reference") for said, _, _ in stages)


def test_where_nobody_watches_a_call_of_python_prints_lines_as_well():
    with shown_progress(None) as show:
        assert isinstance(show, ProgressLines)


@pytest.mark.parametrize("shown", [lambda: _bars(Console(file=io.StringIO(), force_terminal=True)), progress_lines])
def test_while_progress_is_paused_it_has_no_thread(shown):
    threads = threading.active_count()
    with shown() as show_stage:
        for done in range(20):
            show_stage("rounds", done, 20)
            assert threading.active_count() == threads + 1
            with display_paused():
                assert threading.active_count() == threads
    assert threading.active_count() == threads


def test_a_short_run_and_a_fast_one_print_next_to_nothing():
    assert told([(0.05 * done, done) for done in range(101)], 100) == []
    assert len(told([(0.2 * done, done) for done in range(101)], 100)) == 2  # of 20 s, 10 s apart


def test_a_run_that_is_gone_on_with_counts_from_where_it_was():
    said = told([(0.0, 50), (20.0, 60)], 100)
    assert said == ["rounds: 60 of 100, 20 s, about 1 min 20 s left"]


def test_a_stage_that_waits_is_said_at_once_and_one_that_cannot_be_counted_is_not():
    said = list[str]()
    lines = ProgressLines(said.append, Clock())
    lines("Waiting for cleveland", 0, 1)
    lines("compare", 0, 1)
    assert said == ["Waiting for cleveland"]


def test_a_warning_is_said_at_once_in_lines_and_where_it_is_quiet(capsys):
    said: list[str] = []
    ProgressLines(said.append, Clock())(f"{WARNING}3 of 9 test rows", 0, 1)
    with progress(quiet=True) as told:
        told(f"{WARNING}3 of 9 test rows", 0, 1)
    assert said == ["warning: 3 of 9 test rows"] and capsys.readouterr().err == "warning: 3 of 9 test rows\n"


@pytest.mark.studies
def test_a_real_run_tells_its_rounds_and_nothing_is_said_with_json(home, flfed):
    said, seconds = list[str](), count(step=5.0)
    study = Study.load("breast-cancer").replace({"rounds": 20, "resamples": 200})
    run(study, progress=ProgressLines(said.append, lambda: next(seconds)))
    rounds = [line for line in said if line.startswith("rounds: ")]
    assert 5 <= len(rounds) <= 10 and " of 20, " in rounds[0] and rounds[0].endswith(" left")
    assert flfed("study", "run", "breast-cancer", "--set", "rounds=2", "--set", "resamples=200", "--json")[2] == ""


def test_an_import_that_takes_more_than_a_second_is_named_and_a_quick_one_is_not():
    code = "import sys, time\nfrom flfed.cli.progress import loading_line\nsys.stderr.isatty = lambda: {}\n"
    code += "with loading_line(): time.sleep({})"
    lines = [
        subprocess.run([sys.executable, "-c", code.format(*one)], capture_output=True, text=True, check=True).stderr
        for one in ((True, 0), (True, 1.5), (False, 1.5))
    ]
    # A script's standard error has the sentence of an error alone.
    assert lines == ["", "loading PyTorch, pandas and Flower …\n", ""]


def test_a_run_at_institutions_says_at_once_what_it_does(flfed):
    # There is no such study: the first line comes before anything is read.
    code, lines = in_terminal("coordinator", "run", "no-such-study", columns=200)
    assert code == 2 and lines[0].startswith("no-such-study: flfed loads its libraries")
    assert "loads its libraries" not in flfed("coordinator", "run", "no-such-study")[2]
