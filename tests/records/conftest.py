"""Runs for the tests of records, written with the writer itself and with figures like real ones; a browser."""

import fcntl
import math
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flfed import Study, run
from flfed.records.store.entries import AuditRow, SiteRow
from flfed.records.store.reader import RunReader
from flfed.records.store.writer import ComparisonRow, DifferenceRow, EventRow, MetricRow, RunStore, RunWriter, SentRow
from tests.browser import Window, opened, served
from tests.records.real_runs import Runs, make

AUC, BRIER = "roc_auc_score", "brier_score_loss"
HOSPITALS = {  # rows, test rows, AUC of global, local-only, personalised (TARGETS.md section 1, rounded)
    "cleveland": (303, 91, 0.882, 0.883, 0.886), "hungary": (294, 88, 0.871, 0.874, 0.873),
    "long-beach": (200, 60, 0.662, 0.600, 0.711), "switzerland": (123, 37, None, None, None),
}  # fmt: skip
PERSONAL_GAIN = {"cleveland": (-0.021, 0.027), "hungary": (-0.026, 0.024), "long-beach": (0.022, 0.199)}
ONE_CLASS = "the holdout has one class only"


class Ticking:
    """A clock that goes one second ahead at each look."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 20, 15, 30, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


@pytest.fixture(scope="session")
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """A store with a real run of every kind, which all workers share: whoever needs it first makes it."""
    data = Path(os.environ.get("FLFED_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
    proof = any(item.get_closest_marker("proof") for item in request.session.items)
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    folder /= "real-runs"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = folder / "made.pickle"
        if not made.exists():
            made.write_bytes(pickle.dumps(make(folder, data if proof and data.is_dir() else None)))
        found: Runs = pickle.loads(made.read_bytes())
    return found


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/runs.db"


@pytest.fixture
def shown(url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The store of the test, which pages and commands read."""
    monkeypatch.setenv("FLFED_STORE", url)
    return url


@pytest.fixture
def three(small_sites, small_study) -> dict[str, Any]:
    """A real run of three open sites."""
    return run(Study.parse(small_study), sites=small_sites(3, rows=200)).report


@pytest.fixture(params=[(400, 0.5, 1.0), (2000, 0.05, 2.0), (37, 0.9, 0.5)], ids=["even", "rare", "few"])
def scored(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes and the probabilities that a model gave them."""
    rows, share, gap = request.param
    rng = np.random.default_rng(3)
    y = (rng.random(rows) < share).astype(int)
    y[:2] = [0, 1]
    return y, 1 / (1 + np.exp(-(rng.normal(size=rows) + gap * y - 1)))


@pytest.fixture
def store(url: str):
    with RunStore.open(url, clock=Ticking()) as opened:
        yield opened


@pytest.fixture
def heart(store: RunStore) -> str:
    """The id of a finished run with four hospitals, one refused, one with one class, two faults."""
    series = store.begin_series(study="heart-disease", study_sha256="ab" * 32, study_text='name = "heart-disease"\n')
    return write_heart(store, series).run


@pytest.fixture
def write() -> Callable[..., RunWriter]:
    return write_heart


def begin(store: RunStore, series: str, *, repeat: int = 0, rounds: int = 40, engine: str = "inprocess") -> RunWriter:
    return store.begin_run(
        series, repeat=repeat, engine=engine, path="one-by-one", seed=42 + repeat, rounds_planned=rounds,
        primary=AUC, task="binary", versions={"flfed": "0.1.0", "torch": "2.13.0"}, hashes={"schema": "cd" * 32},
    )  # fmt: skip


def write_heart(
    store: RunStore,
    series: str,
    *,
    repeat: int = 0,
    shift: float = 0.0,
    resplit: bool = False,
    rounds: int = 40,
    engine: str = "inprocess",
) -> RunWriter:
    run = begin(store, series, repeat=repeat, engine=engine)
    for name, (rows, holdout, *_) in HOSPITALS.items():
        run.sites([SiteRow(name, title=f"Hospital {name.title()}", rows=rows, holdout_rows=holdout, resplit=resplit)])
    run.sites([SiteRow("basel", status="refused", reason="its policy does not allow the data set heart-disease")])
    for number in range(1, rounds + 1):
        run.round(number, metrics=_curve(number), seconds=0.2, sent=_sent(), events=_events(number))
    run.summary("table-1", TABLE_1)
    leak = "slope: the target is 17 % where it is missing and 70 % where it is present (hungary)"
    run.summary("leaks", {"warnings": [leak], "found": [{"column": "slope", "reason": "missing", "value": 1e-5}]})
    run.events([EventRow(None, None, "leak", leak)])
    run.comparison(_figures(shift), _differences(shift))
    run.finish(status="completed", seconds=8.4, arrays_sha256="ef" * 32)
    return run


def _curve(number: int) -> list[MetricRow]:
    rows = []
    for place, site in enumerate([None, *HOSPITALS]):
        auc = 0.9 - 0.05 * place - 0.3 * math.exp(-number / 8)
        if site != "switzerland":
            rows.append(MetricRow(site, "training", AUC, auc, auc - 0.03, auc + 0.03, 0.0002, 500))
        rows.append(MetricRow(site, "training", "log_loss", 1 - auc))
    return rows


def _sent() -> list[SentRow]:
    ways = (("to-site", "arrays", 1200), ("to-server", "delta", 1200), ("to-server", "metrics", 300))
    return [SentRow(site, way, kind, size) for site in HOSPITALS for way, kind, size in ways]


def _events(number: int) -> list[EventRow]:
    if number == 3:
        return [EventRow(3, "hungary", "fault", "the delta has 3 values that are not finite")]
    if number == 17:
        return [
            EventRow(17, "long-beach", "fault", "no answer before the deadline of 600 seconds"),
            EventRow(17, "cleveland", "flag", "norm of the delta is 3.1 times the median of the cohort"),
        ]
    return []


def _figures(shift: float) -> list[ComparisonRow]:
    rows = [
        ComparisonRow(None, "global", AUC, 0.896 + shift, 0.871 + shift, 0.919 + shift, 276, "DeLong"),
        ComparisonRow(None, "sites-mean", AUC, 0.805 + shift),
        ComparisonRow(None, "pooled", AUC, 0.901 + shift, 0.877, 0.923, 276, "DeLong"),
        ComparisonRow(None, "own-model-everywhere", AUC, 0.832 + shift),
        ComparisonRow(None, "global", BRIER, 0.131, 0.114, 0.149, 276, "bootstrap"),
        ComparisonRow(None, "pooled", BRIER, 0.129, 0.112, 0.147, 276, "bootstrap"),
    ]
    for site, (_, holdout, *values) in HOSPITALS.items():
        for arm, value in zip(("global", "local-only", "personalised"), values, strict=True):
            if value is None:
                rows.append(ComparisonRow(site, arm, AUC, None, n=holdout, method=ONE_CLASS))
            else:
                reach = 0.9 / math.sqrt(holdout) * math.sqrt(value * (1 - value)) + 0.01
                row = ComparisonRow(site, arm, AUC, value + shift, value - reach, min(value + reach, 1), holdout)
                rows.append(row)
        rows.append(ComparisonRow(site, "global", BRIER, 0.13, 0.11, 0.15, holdout, "bootstrap"))
        rows.append(ComparisonRow(site, "local-only", BRIER, 0.14, 0.12, 0.16, holdout, "bootstrap"))
    return rows


def _differences(shift: float) -> list[DifferenceRow]:
    rows = []
    for site, (_, _, shared, local, personal) in HOSPITALS.items():
        if shared is None:
            rows.append(DifferenceRow(site, "global", "local-only", AUC, None, method=ONE_CLASS))
            rows.append(DifferenceRow(site, "personalised", "local-only", AUC, None, method=ONE_CLASS))
        else:
            low, high = PERSONAL_GAIN[site]
            gap, gain = shared - local + shift, personal - local + shift
            rows.append(DifferenceRow(site, "global", "local-only", AUC, gap, gap - 0.07, gap + 0.07, 0.09))
            rows.append(DifferenceRow(site, "personalised", "local-only", AUC, gain, low + shift, high + shift, 0.01))
        rows.append(DifferenceRow(site, "global", "local-only", BRIER, -0.01, -0.03, 0.01, 0.3, "bootstrap"))
    return rows


SPENT = {  # epsilon of this run, budget, spent before
    "cleveland": (0.9972, 8.0, 2.1), "hungary": (0.9972, 3.0, 1.9), "long-beach": (0.9972, None, None),
    "switzerland": (0.5, 1.5, 1.2),
}  # fmt: skip
PROMISE = {"mechanism": "record-dp", "unit": "person", "epsilon": 0.9972, "delta": 1e-4}
PROMISE |= {"noise": 7.992, "sampling": 0.2, "clip": 1.0, "steps": 150, "excludes-encoder": False}
SPENT_KEYS = ("steps", "epsilon", "delta", "budget", "spent-before")


@pytest.fixture
def payload() -> dict[str, Any]:
    """What a run under record-level differential privacy writes down of it."""
    sites = {
        site: dict(zip(SPENT_KEYS, (150, eps, 1e-4, budget, before), strict=True))
        for site, (eps, budget, before) in SPENT.items()
    }
    uncharged = ["Each site's mean training loss of every round.", "How long each answer took, and its size."]
    return PROMISE | {"warnings": ["delta 1e-4 is large"], "uncharged": uncharged, "sites": sites}


@pytest.fixture
def attacks() -> list[AuditRow]:
    """What an audit found at each site: an attack within its promise, and one at a single site that nothing bounds."""
    told = {"promise": 0.731, "method": "loss", "rows": 200, "verdict": "within the promise", "says": "Like a coin."}
    values = zip(SPENT, (0.512, 0.531, 0.49, 0.58), strict=True)
    rows = [AuditRow("membership", site, AUC, value, value - 0.05, value + 0.06, told) for site, value in values]
    free = {"promise": None, "method": "", "rows": 50, "verdict": "no promise", "says": "Little is seen."}
    return [*rows, AuditRow("inversion", "hungary", "cosine_similarity", 0.11, None, None, free)]


TABLE_1 = {
    "rows": [
        {"column": "rows", "statistic": "count", "all sites": "920", "cleveland": "303", "hungary": "294"},
        {"column": "age (years)", "statistic": "mean (sd)", "all sites": "53.5 (9.4)", "cleveland": "54.4 (9.0)"},
        {"column": "sex", "statistic": "male", "all sites": "79 %", "cleveland": "68 %", "hungary": "72 %"},
        {"column": "disease", "statistic": "yes", "all sites": "55 %", "cleveland": "46 %", "hungary": "36 %"},
    ],
    "note": "Over all rows of the sites, from merged sums.",
}


ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def one_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Where one app is served to all tests, and the link to the folder whose `runs.db` it shows."""
    folder = tmp_path_factory.mktemp("one-app")
    store = f"sqlite:///{folder}/now/runs.db"
    with served({"FLFED_STORE": store, "FLFED_HOME": str(folder)}) as found:
        yield found, folder / "now"


@pytest.fixture
def address(url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """Where the app is served, showing the store of the test."""
    if url == f"sqlite:///{tmp_path}/runs.db":
        found, link = request.getfixturevalue("one_app")
        link.unlink(missing_ok=True)
        link.symlink_to(tmp_path)
        yield found
    else:
        with served({"FLFED_STORE": url}) as found:
            yield found


@pytest.fixture
def window(address: str) -> Iterator[Window]:
    """A browser's window on the list of runs; at its end nothing may have gone wrong, nor left this machine."""
    with opened(address) as found:
        found.page.goto(address)
        found.page.get_by_role("heading", name="Runs").wait_for()
        yield found
        found.is_sound()


LONG_STUDY = """
format = 1
name = "long-study"
purpose = "Test"
legal-basis = "public data that ships with scikit-learn"
seed = 1
[dataset]
name = "diabetes"
partition = { by = "iid", sites = 10, seed = 1 }
[model]
name = "linear"
[plan]
lr = 0.001
[strategy]
name = "fedavg"
rounds = 9000
"""


@pytest.fixture
def going(url: str, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A study of ten sites and 9,000 rounds, run by another process into the store of the test."""
    file = tmp_path / "long-study.toml"
    file.write_text(LONG_STUDY)
    command = ["nice", sys.executable, "-c", "from flfed.cli import main; main()", "study", "run", str(file)]
    environment = os.environ | {"FLFED_STORE": url, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with (tmp_path / "said").open("w+b") as said:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=said, stderr=said)
        yield process
        ended = process.poll()
        process.kill()
        process.wait(60)
        said.seek(0)
        assert ended in (None, -signal.SIGKILL), said.read().decode()


@pytest.fixture
def lags(url: str) -> Callable[[Window], list[float]]:
    """A function that watches store and page for 6 seconds: how long after its commit each round was shown.

    It watches again, eight times at most, where one came too late or few came: another program may have the machine.
    """

    def watch(window: Window) -> list[float]:
        for _ in range(8):
            found = _lags(window, url, time.monotonic() + 6)
            print(f"{len(found)} looks with new rounds, shown after {max(found, default=math.inf):.2f} s at most")
            if len(found) > 3 and max(found) < 2:
                break
        return found

    return watch


def _lags(window: Window, url: str, end: float) -> list[float]:
    stored, seen, looked = [(0.0, 0)], [(0.0, 0)], 0.0  # time, rounds
    while looked < end:
        before, looked = looked, time.monotonic()
        with RunReader.open(url) as reader:
            rounds = reader.runs(limit=1)[0].rounds
        if rounds > stored[-1][1]:
            stored.append((before, rounds))  # it was committed after the look before
        shown = int(window.page.evaluate("document.body.innerText.match(/Round (\\d+) of 9000/)[1]"))
        if shown > seen[-1][1]:
            seen.append((time.monotonic(), shown))
        window.page.wait_for_timeout(30)
    due = [(at, rounds) for at, rounds in stored[2:] if at < end - 2]  # the last ones may be shown later
    return [next((when for when, shown in seen if shown >= rounds), math.inf) - at for at, rounds in due]
