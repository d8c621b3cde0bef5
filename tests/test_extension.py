"""A strategy in a wheel of its own: what docs/extend.md shows is built, installed, listed, checked and run."""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats.mstats import winsorize

from flfed import Study, registry, run
from flfed.testing import check_strategy
from flfed.updates.checkpoints import checkpoint

SOURCE = Path(__file__).parent / "extension"
PACKAGE = ("flfed_winsorised.py", "pyproject.toml")
GUIDE = Path(__file__).parents[1] / "docs" / "extend.md"
FLFED = Path(sys.executable).parent / "flfed"


@pytest.fixture
def winsorised(monkeypatch: pytest.MonkeyPatch) -> type:
    monkeypatch.syspath_prepend(SOURCE)
    found: type = importlib.import_module("flfed_winsorised").WinsorisedMean
    return found


def test_the_guide_shows_what_is_tested_here_and_the_strategy_has_forty_lines():
    guide = GUIDE.read_text(encoding="utf-8")
    for name in PACKAGE:
        text = (SOURCE / name).read_text(encoding="utf-8")
        assert f"```{'python' if name.endswith('py') else 'toml'}\n{text}```" in guide, name
    assert len((SOURCE / "flfed_winsorised.py").read_text().splitlines()) <= 40
    for name in ("flfed_signs.py", "flfed_variates.py"):
        assert f"```python\n{(SOURCE / name).read_text(encoding='utf-8')}```" in guide, name


def test_every_python_block_of_the_guide_runs(winsorised):
    blocks = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 3
    for block in blocks:
        exec(compile(block, str(GUIDE), "exec"), {"__name__": "guide"})


@pytest.mark.parametrize("trim", [0.0, 0.2, 0.34, 0.45])
def test_the_example_is_the_winsorised_mean_of_scipy(winsorised, trim):
    rng = np.random.default_rng(2)
    incoming = {"w": rng.normal(size=(4, 3)), "b": rng.normal(size=2)}
    deltas = {f"site-{k}": {name: rng.normal(size=value.shape) for name, value in incoming.items()} for k in range(7)}
    found = winsorised(trim=trim).combine(incoming, deltas, dict.fromkeys(deltas, 1.0))
    for name, value in incoming.items():
        stack = np.stack([delta[name] for delta in deltas.values()])
        expected = value + winsorize(stack, limits=(trim, trim), axis=0).mean(axis=0)
        np.testing.assert_allclose(found[name], expected, atol=1e-14)


def test_the_example_keeps_the_contract_also_with_other_settings(winsorised):
    check_strategy(winsorised)
    check_strategy(winsorised, {"trim": 0.4, "quorum": 0.5})


def test_the_guides_strategy_with_arrays_ends_at_the_optimum_of_sites_that_count_the_same(
    winsorised, small_sites, small_study
):
    kind = importlib.import_module("flfed_variates").EqualVariates
    check_strategy(kind)
    changes = {"plan.batch": 0, "plan.steps": 10, "plan.lr": 0.5, "plan.l2": 0.1, "plan.schedule": "constant"}
    ends = {}
    with registry.lending("strategy", [kind]):
        for name, steps in (("equal-variates", 10), ("fedavg", 10), ("fedavg", 1)):
            # Averaging with one step a round has no drift: it is gradient descent on the mean loss of the sites.
            rounds = {"strategy.name": name, "strategy.rounds": 400 // steps, "plan.steps": steps}
            weights = {"strategy.weights": "equal"} if name == "fedavg" else {}
            done = run(Study.parse(small_study).replace({**changes, **rounds, **weights}), sites=small_sites(3))
            ends[name, steps] = checkpoint.final(done.run).arrays["weight"]
    assert np.abs(ends["equal-variates", 10] - ends["fedavg", 1]).max() < 1e-6
    assert np.abs(ends["fedavg", 10] - ends["fedavg", 1]).max() > 1e-4


def test_the_codec_of_the_guide_sends_signs_and_their_mean_size(winsorised):
    signs = importlib.import_module("flfed_signs").Signs()
    update = {"b": np.array([-4.0]), "a": np.array([1.0, -2.0, 5.0])}
    packed = signs.encode(update, np.random.default_rng(1))
    # In the order of names + - + -, in the upper bits of one byte; the mean of 1, 2, 5 and 4 is 3.
    assert (packed["signs"].tolist(), packed["size"].tolist()) == ([0b10100000], [3.0])
    model = {name: (value.shape, value.dtype) for name, value in update.items()}
    found = signs.decode(packed, model)
    assert (found["a"].tolist(), found["b"].tolist()) == ([3.0, -3.0, 3.0], [-3.0])


def test_what_the_guide_names_is_public():
    import flfed

    assert {"Arrays", "Codec", "FedAvg", "Mechanism", "UsageError", "layered_outputs"} <= set(flfed.__all__)
    assert all(getattr(flfed, name) is not None for name in flfed.__all__)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the example's wheel is installed; nothing is fetched from anywhere."""
    folder = tmp_path_factory.mktemp("extension")
    for name in PACKAGE:
        (folder / "source").mkdir(exist_ok=True)
        shutil.copy(SOURCE / name, folder / "source")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-index", "--no-build-isolation", "-w", str(folder), str(folder / "source")]
    subprocess.run([*pip, *build], check=True, capture_output=True)
    [wheel] = folder.glob("*.whl")
    target = ["install", "--no-deps", "--no-index", "--target", str(folder / "installed"), str(wheel)]
    subprocess.run([*pip, *target], check=True, capture_output=True)
    return folder / "installed"


def said(installed: Path, *command: str | Path) -> str:
    """Run a command where the example is installed, from a folder that is not ours; return its standard output."""
    env = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(command, cwd=installed.parent, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.servers
@pytest.mark.proof
def test_a_wheel_of_another_package_is_listed_checked_and_run(installed: Path):
    assert "winsorised-mean (flfed-winsorised 1.0)" in said(installed, FLFED, "study", "list")
    listed = json.loads(said(installed, FLFED, "study", "list", "--json"))
    assert {"fedavg", "fedprox", "winsorised-mean"} <= set(listed["strategies"])
    assert len(listed["models"]) >= 3 and len(listed["metrics"]) >= 10
    check = "from flfed.registry import load; from flfed.testing import check_strategy; "
    check += "check_strategy(load('strategy', 'winsorised-mean')); print('kept')"
    assert said(installed, sys.executable, "-c", check).strip() == "kept"
    quick = ("--set", "resamples=200", "--json")
    ways = {"fedavg": (), "winsorised-mean": ("--set", "strategy.trim=0.25")}
    found = {}
    for name, more in ways.items():
        words = ("study", "run", "preterm-birth", "--set", f"strategy.name={name}", *more, *quick)
        found[name] = json.loads(said(installed, FLFED, *words))
    assert {report["status"] for report in found.values()} == {"completed"}
    assert (found["winsorised-mean"]["rounds"], len(found["winsorised-mean"]["sites"])) == (40, 4)
    assert found["winsorised-mean"]["arrays-sha256"] != found["fedavg"]["arrays-sha256"]
    # It looks at the sites' own updates, of which there are none under secure sums.
    asked = ("--set", "strategy.name=winsorised-mean", "--set", "secure-aggregation=on")
    env = {**os.environ, "PYTHONPATH": str(installed)}
    summed = subprocess.run([FLFED, "study", "check", "preterm-birth", *asked], env=env, capture_output=True, text=True)
    assert summed.returncode == 2 and "winsorised-mean: needs the sites' single updates" in summed.stderr
    # Of four sites the extremes are cut off: another model, about as good. (After three rounds it is 0.107 behind.)
    aucs = [found[name]["global"]["roc_auc_score"]["value"] for name in ways]
    assert 0 < abs(aucs[0] - aucs[1]) < 0.1


def test_without_the_package_the_name_is_answered_with_what_there_is():
    env = {**os.environ, "PYTHONPATH": ""}
    words = ("study", "check", "preterm-birth", "--set", "strategy.name=winsorised-mean")
    done = subprocess.run([FLFED, *words], env=env, capture_output=True, text=True)
    assert done.returncode == 2
    assert "name='winsorised-mean' is not known" in done.stderr and "fedavg" in done.stderr
