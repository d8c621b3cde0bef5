"""The scripts of examples/ run as they stand, in a home of their own, and show what they say."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def said_by(name: str, home: Path) -> str:
    """Return what an example prints."""
    command = [sys.executable, "-W", "error::FutureWarning", str(ROOT / "examples" / f"{name}.py")]
    done = subprocess.run(
        command, env=os.environ | {"FLFED_HOME": str(home), "FLFED_CHECKPOINT_SECONDS": "1"}, cwd=home,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_are_six_examples_of_at_most_sixty_lines_and_a_client():
    lines = {path.stem: len(path.read_text(encoding="utf-8").splitlines()) for path in EXAMPLES}
    lines.pop("small_client")  # of another kind: tests/test_small_client.py
    assert len(lines) == 6 and max(lines.values()) <= 60


@pytest.mark.studies
def test_a_site_of_ones_own_from_a_file_learns_as_well_as_all_rows_in_one_place(home: Path):
    text = said_by("own_site", home)
    shared, pooled = (float(re.search(rf"{words} (0\.\d+)", text)[1]) for words in ("reaches R²", "would reach"))
    assert shared == pytest.approx(pooled, abs=0.03) and shared > 0.4
    assert re.search(r"hillside +-?0\.\d+", text) and re.search(r"lakeside +-?0\.\d+", text)


@pytest.mark.studies
@pytest.mark.proof
def test_the_median_holds_where_the_mean_is_pulled_away(home: Path):
    mean, median = (float(found) for found in re.findall(r"hospitals: (0\.\d+)", said_by("own_strategy", home)))
    assert mean < 0.5 and median > 0.9


@pytest.mark.proof
@pytest.mark.studies
def test_a_smaller_budget_means_more_noise(home: Path):
    text = said_by("privacy_budget", home)
    noise = [float(found) for found in re.findall(r"noise (\d+\.\d+)", text)]
    promised = [float(found) for found in re.findall(r"\((\d+\.\d+), 0.0005\)-DP", text)]
    assert "nothing" in text and noise == sorted(noise) and len(noise) == 3
    assert promised == pytest.approx([8, 3, 1], rel=0.01)


@pytest.mark.proof
@pytest.mark.studies
def test_a_killed_run_ends_with_the_same_arrays(home: Path):
    text = said_by("resume", home)
    assert "interrupted" in text and "resumed: completed; its arrays differ by 0.0 from" in text


@pytest.mark.proof
@pytest.mark.studies
def test_two_strategies_are_compared_on_the_same_sites(home: Path):
    text = said_by("compare_strategies", home)
    figures = [float(found) for found in re.findall(r"AUC (0\.\d{3})", text)]
    assert len(figures) == 3 and min(figures) > 0.9 and text.startswith("fedavg ")


@pytest.mark.proof
@pytest.mark.studies
def test_three_ways_of_predicting_agree(home: Path):
    gaps = [float(found) for found in re.findall(r"differs by (\S+) at most", said_by("predict", home))]
    assert len(gaps) == 2 and max(gaps) < 1e-6
