"""What a site refuses over a real SuperLink, Caddy and TLS: the reason is on both sides, and no row is read for it.

The coordinator's machine is in hands that send whatever they like (`asking.py`). The kernel tells how often the
files of the frozen rows are opened.
"""

import datetime
import json
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.servers, pytest.mark.timeout(600)]
HERE = Path(__file__).parent
THREE = ["alpha", "beta", "gamma"]
FEDPROX = ('name = "fedavg"', 'name = "fedprox"\nmu = 0.1')
HOSTILE = """
import glob, os, pathlib
pathlib.Path({marker!r}).write_text("executed")
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
client, server = ClientApp(), ServerApp()

@client.train()
def train(message, context):
    from flwr.app import ConfigRecord, Message, RecordDict
    table = pathlib.Path(glob.glob({rows!r})[0]).read_bytes()
    return Message(RecordDict({{"config": ConfigRecord({{"table": table}})}}), reply_to=message)
"""


class Asking:
    """A coordinator's machine that sends what it is told to."""

    def __init__(self, consortium: Any) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "asking.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=consortium.coordinator.environment, cwd=consortium.coordinator.exchange,
        )  # fmt: skip

    def said(self, **asked: Any) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found

    def __call__(self, study: str, sites: list[str], **more: Any) -> dict[str, str]:
        found = self.said(study=study, sites=sites, **more)
        assert "said" in found, found
        return dict(found["said"])

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()


@pytest.fixture(scope="module")
def serving(consortium: Any) -> Any:
    """Four sites that approved the study "small" with one another, but none with delta, and serve."""
    for name in (*THREE, "delta"):
        consortium.approve(name, consortium.study(), THREE)
    packages = consortium.root / "packages/sites"
    (packages / "delta/policy.toml").write_text('format = 1\ncodecs = ["int8"]\n')
    for name in ("alpha", "beta", "delta"):
        consortium.sites[name].serve(f"site serve {name}")
    gamma = consortium.sites["gamma"]
    gamma.serve("site serve gamma --network-only")
    gamma.start(sys.executable, HERE / "spoilt_gate.py", "gamma")
    consortium.online(4)
    return consortium


@pytest.fixture(scope="module")
def ask(serving: Any) -> Iterator[Asking]:
    made = Asking(serving)
    yield made
    made.close()


@pytest.fixture
def refused(serving: Any, ask: Asking, watch: Callable[..., Any]) -> Callable[..., str]:
    """Ask, and hold one site to its refusal: on both sides, in the log, and without a look into its rows."""

    def go(text: str, sites: list[str] = THREE, *, by: str = "alpha", **more: Any) -> str:
        machine, rows = serving.sites[by], watch([serving.rows(by), serving.root / f"packages/sites/{by}/rows.csv"])
        before = len(machine.lines())
        reason = ask(text, sites, **more)[by]
        (line,) = machine.lines()[before:]
        assert (line["kind"], line["reason"]) == ("refused", reason)
        assert line["bytes"] == len(reason)
        assert rows.count() == 0
        shown = json.loads(machine.run(f"site status {by} --json"))["last"][0]
        assert (shown["kind"], shown["reason"]) == ("refused", reason)
        log = machine.gate / "gate.log"
        assert reason in (log if log.exists() else machine.log_file).read_text()
        return reason

    return go


def test_a_study_that_is_not_approved_or_was_changed(serving: Any, refused: Callable[..., str]):
    other = serving.study(('name = "small"\npurpose', 'name = "another"\npurpose'))
    assert refused(other) == "the study is not approved here"
    changed = refused(serving.study(("seed = 7", "seed = 8")))
    assert changed == "study 'small' was changed since it was decided about here: it needs a new approval"


def test_a_study_that_expired(serving: Any, refused: Callable[..., str]):
    yesterday = (datetime.datetime.now(datetime.UTC).date() - datetime.timedelta(days=1)).isoformat()
    text = serving.study(("seed = 7", f"seed = 7\nexpires = {yesterday}"))
    serving.approve("alpha", text, THREE)
    assert refused(text) == f"the study expired on {yesterday}"


def test_a_strategy_or_a_codec_that_the_policy_does_not_allow(serving: Any, refused: Callable[..., str]):
    text = serving.study(FEDPROX)
    serving.approve("alpha", text, THREE)
    assert refused(text) == "its policy allows strategies fedavg, the study asks for 'fedprox'"
    said = refused(serving.study(), [*THREE, "delta"], by="delta")
    assert said == "its policy allows codecs int8, the study asks for 'none'"


def test_too_small_a_cohort_and_an_added_co_site(serving: Any, refused: Callable[..., str]):
    assert refused(serving.study(), ["alpha", "beta"]) == "the run asks 2 sites, its policy needs at least 3"
    assert refused(serving.study(), ["alpha"]) == "the run asks 1 site, its policy needs at least 3"
    assert refused(serving.study(), [*THREE, "delta"]) == "the run adds delta, which the approval does not name"


@pytest.mark.parametrize(("spoil", "end"), [
    ("large", "too large (12000128 bytes, where 280 are enough)"), ("shape", "of another shape than"),
    ("type", "of another type than float64"), ("nan", "with values that are not finite"),
    ("extra", "has 1 array too many"),
])  # fmt: skip
def test_an_incoming_model_that_is_not_the_studys(serving: Any, refused: Callable[..., str], spoil: str, end: str):
    said = refused(serving.study(), spoil=spoil)
    start = "the train message does not fit the study: its section 'arrays' "
    assert said.startswith(start) and end in said[len(start) :]


def hostile(folder: Path, marker: Path, rows: str) -> Path:
    """Build a bundle that says at once that it ran, and whose client sends the table."""
    from flwr.cli.build import build_fab_from_disk

    folder.mkdir()
    project = 'name = "flfed-study"\nversion = "1"\nlicense = "Apache-2.0"'
    parts = 'publisher = "flfed"\n[tool.flwr.app.components]\nserverapp = "flfed_bundle:server"'
    config = '[tool.flwr.app.config]\nstudy = ""\nrepeat = 0\nrun = ""\nsites = ""\n'
    whole = f'[project]\n{project}\n[tool.flwr.app]\n{parts}\nclientapp = "flfed_bundle:client"\n{config}'
    (folder / "pyproject.toml").write_text(whole)
    (folder / "flfed_bundle.py").write_text(HOSTILE.format(marker=str(marker), rows=rows))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        content = build_fab_from_disk(folder)
    assert b"flfed_bundle.py" in content
    file = folder / "hostile.fab"
    file.write_bytes(content)
    return file


def test_a_bundle_with_hostile_code_is_never_executed(serving, ask, watch, tmp_path):
    rows = {name: watch([serving.rows(name)]) for name in ("alpha", "gamma")}
    marker = serving.root / "exchange/executed"
    file = hostile(tmp_path / "app", marker, str(serving.rows("alpha")))
    # Whatever code a run brings, the sites answer with what they installed.
    answers = ask.said(study=serving.study(), sites=THREE, bundle=str(file))["said"]
    assert (answers["alpha"], answers["beta"]) == ("answered", "answered")
    assert not marker.exists()
    # The watch of other tests sees what it is for: the first answers read the rows.
    assert rows["alpha"].count() > 0 and rows["gamma"].count() > 0
    # Nowhere among what the processes of sites and coordinator have on the disk was it installed.
    assert list(serving.root.rglob("flfed_bundle.py")) == []
    # The code does what it says, where somebody runs it.
    run = subprocess.run(
        [sys.executable, "-c", "import flfed_bundle"], cwd=file.parent, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert marker.read_text() == "executed"


def test_a_reply_with_one_array_too_many_stays_and_an_honest_one_leaves(serving, ask):
    alpha, gamma = serving.sites["alpha"], serving.sites["gamma"]
    found = ask(serving.study(), THREE, run="run-2")
    assert found["alpha"] == found["beta"] == "answered"
    assert found["gamma"] == "its train reply is held back: its section 'arrays' has 1 array too many"
    line = gamma.lines()[-1]
    assert (line["kind"], line["reason"], line["asked"]) == ("withheld", found["gamma"], "train")
    assert alpha.lines()[-1]["kind"] == "train"


def test_the_coordinators_record_and_status_say_why(serving: Any):
    study = serving.file(serving.study(("seed = 7", "seed = 9")))
    said = serving.coordinator.run(f"coordinator run {study} --site alpha --site beta --site gamma", code=2)
    assert said.count("was changed since it was decided about here: it needs a new approval") == 3
    for site in serving.coordinator.json("coordinator status")["sites"]:
        if site["site"] in THREE:
            assert site["last-run"]["answer"] == "refused"
            assert site["last-run"]["reason"].startswith("study 'small' was changed since it was decided")


def test_rows_that_changed_after_the_approval(serving: Any, refused: Callable[..., str]):
    beta, file = serving.sites["beta"], serving.root / "packages/sites/beta/rows.csv"
    lines = file.read_text().splitlines()
    # Of one patient fewer there is no new snapshot: the old one is served on.
    file.write_text("\n".join(lines[: len(lines) // 2]) + "\n")
    assert "small" in beta.run("site refresh beta --yes")
    said = refused(serving.study(), by="beta")
    assert said == "its frozen rows changed after the approval; for a new one, at the site: flfed site approve STUDY"
