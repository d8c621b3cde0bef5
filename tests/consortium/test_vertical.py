"""Two institutions with different columns of the same people: real gates, a coordinator that passes parcels on."""

import hashlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from flfed.export.model_folder import SharedModel
from flfed.study.study import Study
from flfed.vertical import column_party, label_party
from tests.consortium.conftest import Consortium
from tests.consortium.memory import Numbers, _memory_of, with_descendants
from tests.consortium.test_breaks import in_mid_round, pids
from tests.consortium.test_packed_bytes import held, sent
from tests.consortium.test_secure_sums import command, newest
from tests.deployment.test_vertical_at_the_gate import SCHEMA, STUDY
from tests.machines import until

pytestmark = [pytest.mark.proof, pytest.mark.slow, pytest.mark.servers, pytest.mark.timeout(900)]

PARTIES = ("alpha", "beta")
COLUMNS = {"alpha": ("a1", "a2"), "beta": ("b1", "b2", "b3", "b4", "b5")}
PEOPLE = 5000
RECORDING = Path(__file__).with_name("recording.py")
POLICY = 'format = 1\ndisclosure = "institution"\noutputs = ["row-aligned"]\ndaily-bytes = 500000000\n'
POLICY += 'exact-sums = ["beta"]\n'
PACKAGE = """
from flfed import Csv, Holdout, Site
site = Site(
    name="{name}", dataset="small", source=Csv("rows.csv"), mapping={mapping}, partial=True,
    holdout=Holdout(share=0.3, salt="{name}"){holds},
)
"""
HELD = """
import os, time
from pathlib import Path
from flfed.vertical.coordinator import Parcels
there, exchange = Path(os.environ["HELD"]), Parcels.exchange

def holding(self, round, number):
    exchange(self, round, number)
    if (round, number) == (4, 2):
        (there / "held").touch()
        while not (there / "over").exists():
            time.sleep(0.05)

Parcels.exchange = holding
"""
"""A coordinator that waits while it has the products of the fourth round."""
KILLED = """
import os, signal
from flfed.vertical.coordinator import Parcels
exchange = Parcels.exchange

def dying(self, round, number):
    exchange(self, round, number)
    if (round, number) == {place}:
        os.kill(os.getpid(), signal.SIGKILL)

Parcels.exchange = dying
"""
"""A coordinator that is killed once it has the replies of an exchange."""


class Parties(Consortium):
    """Two institutions: alpha has the outcome and two columns, beta five others, of 4,980 people in common."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, PARTIES)
        rng = np.random.default_rng(3)
        self.people = np.array([f"q7zw-{rng.bytes(8).hex()}" for _ in range(PEOPLE)])
        names = [name for columns in COLUMNS.values() for name in columns]
        cells = pd.DataFrame(rng.normal(0, 1, (PEOPLE, 7)).clip(-9, 9), columns=names)
        chance = 1 / (1 + np.exp(-cells @ [1.0, -0.5, 1.5, 0.7, -0.8, 0.4, -0.3]))
        self.table = cells.assign(person=self.people, y=np.where(rng.random(PEOPLE) < chance, "yes", "no"))
        schema = SCHEMA + "".join(f'[columns.{name}]\nkind = "number"\nrange = [-10, 10]\n' for name in names)
        (root / "packages/datasets/small/schema.toml").write_text(schema)
        for site, rows in (("alpha", self.table[:4990]), ("beta", self.table[10:].sample(frac=1, random_state=1))):
            absent = [name for name in names if name not in COLUMNS[site]]
            columns, holds = ["person", *COLUMNS[site], "y"], ""
            if site == "beta":
                absent, columns, holds = [*absent, "y"], columns[:-1], ', holds="columns"'
            folder = root / "packages/sites" / site
            mapping = dict.fromkeys(absent)
            (folder / "__init__.py").write_text(PACKAGE.format(name=site, mapping=mapping, holds=holds))
            (folder / "policy.toml").write_text(POLICY)
            rows[columns].to_csv(folder / "rows.csv", index=False)

    def approved(self, number: int) -> str:
        """Return a study that both have approved with the keys of both."""
        changes = {"name": f"parties-{number}", "dataset.sites": list(PARTIES), "strategy.rounds": 6}
        text = Study.parse(STUDY).replace(changes).text
        for name in PARTIES:
            self.approve(name, text, PARTIES, pins=self.pins(PARTIES))
        return text

    def words(self, text: str) -> list[str]:
        return ["coordinator", "run", str(self.file(text)), "--json"]

    def exported(self, run: str) -> dict[str, Path]:
        """Return the folder of each party's part of a run, as the party takes it out."""
        folders = {name: self.root / f"{run}-{name}" for name in PARTIES}
        for name, folder in folders.items():
            self.sites[name].run(f"site model {name} {run} --output {folder}")
        return folders

    def here(self, text: str) -> dict[str, Path]:
        """Return the folder of each party's part of the same study in one process."""
        ran = self.coordinator.json(f"study run {self.file(text)} --site alpha --site beta --one-by-one")
        folder = self.root / f"here-{ran['run']}"
        self.coordinator.run(f"run export {ran['run']} --output {folder}")
        return {path.name: path for path in folder.rglob("*") if path.name in PARTIES}

    def answers(self, run: str) -> dict[tuple[str, str, int, int], set[str]]:
        """Return the hashes of all replies to each exchange of a run, of both ledgers."""
        found: dict[tuple[str, str, int, int], set[str]] = {}
        for name in PARTIES:
            for line in self.sites[name].lines():
                if line.get("run") == run and line["kind"] in ("align", "partial"):
                    place = (name, line["kind"], line.get("round") or 0, line["exchange"])
                    found.setdefault(place, set()).add(line["sha256"])
        return found


@pytest.fixture(scope="module")
def parties() -> Iterator[Parties]:
    with tempfile.TemporaryDirectory(prefix="flfed-", ignore_cleanup_errors=True) as folder:
        made = Parties(Path(folder))
        try:
            made.begin(())
            for name in PARTIES:
                made.sites[name].serve(f"site serve {name}")
            made.online(2)
            yield made
        finally:
            made.end()


def parts(folders: dict[str, Path]) -> np.ndarray:
    """Return the numbers of both parts."""
    models = [SharedModel.read(folders[name]) for name in PARTIES]
    return np.concatenate([model.arrays[name].ravel() for model in models for name in sorted(model.arrays)])


def stored(parties: Parties, run: str) -> dict[str, bytes]:
    """Return what both parties have stored of a run, but for the newest weights."""
    found = {}
    for name in PARTIES:
        for path in (parties.sites[name].home / "sites" / name / "runs" / run).glob("*.safetensors"):
            if not path.name.startswith("state-"):
                found[f"{name}/{path.name}"] = path.read_bytes()
    return found


def test_parts_are_those_of_one_process_and_predict_in_two_steps(parties: Parties):
    text = parties.approved(1)
    ran, said = command(parties, parties.words(text))
    assert (ran["status"], ran["faults"]) == ("completed", []), said
    assert held(parties, ran["run"], PARTIES) == sent(parties, ran["run"])
    folders = parties.exported(ran["run"])
    assert np.abs(parts(folders) - parts(parties.here(text))).max() <= 1e-4
    # The coordinator has no part.
    report = parties.root / "report"
    assert "flfed site model SITE" in parties.coordinator.run(f"run export {ran['run']} --output {report}")
    assert not list(report.rglob("*.safetensors"))
    assert not list(parties.coordinator.home.rglob("*part*"))

    fifty = parties.table[100:150]
    for name in PARTIES:
        fifty[["person", *COLUMNS[name]]].to_csv(parties.root / f"{name}.csv", index=False)
    scores, predicted = parties.root / "scores.csv", parties.root / "predicted.csv"
    parties.sites["beta"].run(f"predict {folders['beta']} {parties.root / 'beta.csv'} --partial {scores}")
    alpha = f"predict {folders['alpha']} {parties.root / 'alpha.csv'} --with {scores} --output {predicted}"
    parties.sites["alpha"].run(alpha)
    linear = np.zeros(len(fifty))
    for name in PARTIES:
        model = SharedModel.read(folders[name])
        # Behind the columns' own numbers stand those of the target.
        count = len(COLUMNS[name])
        x = (fifty[list(COLUMNS[name])].to_numpy() - model.encoder.center[:count]) / model.encoder.scale[:count]
        linear += x @ model.arrays["weight"].ravel() + model.arrays["bias"][0]
    made = pd.read_csv(predicted)
    assert list(made["identifier"]) == list(fifty["person"])
    assert np.abs(made["probability"] - 1 / (1 + np.exp(-linear))).max() <= 1e-9


def test_a_run_that_is_killed_at_each_machine_goes_on_with_what_is_stored(parties: Parties):
    text = parties.approved(2)
    command(parties, parties.words(text), KILLED.format(place=(2, 2)), code=-9)
    run = newest(parties).run
    first = stored(parties, run)
    assert len(first) > 10
    resume = ["study", "resume", run, "--json"]
    command(parties, resume, KILLED.format(place=(4, 1)), code=-9)
    second = stored(parties, run)
    assert {name: second[name] for name in first} == first
    assert len(second) > len(first)

    ended, _ = command(parties, resume)
    assert ended["status"] == "completed"
    answers = parties.answers(run)
    assert len(answers) == 2 + 3 + 4 * 6 + 2
    assert {len(hashes) for hashes in answers.values()} == {1}
    asked = [line for line in parties.sites["beta"].lines() if line.get("run") == run and line["kind"] == "partial"]
    assert len(asked) > 13  # the first products crossed again, with the masks of before
    assert np.abs(parts(parties.exported(run)) - parts(parties.here(text))).max() <= 1e-4


@pytest.mark.parametrize("name", ["alpha", "beta"])
def test_a_run_whose_gate_is_killed_while_it_answers_goes_on_with_what_is_stored(parties: Parties, name: str):
    text = parties.approved({"alpha": 4, "beta": 5}[name])
    machine = parties.sites[name]
    going = start(parties, parties.words(text))
    lines = len(machine.lines())
    # Past the alignment, in a round.
    until("a round", lambda: sum(line["kind"] == "partial" for line in machine.lines()[lines:]) > 3, process=going)
    until("a message", lambda: in_mid_round(machine), every=0.001, process=going)
    for pid in pids(machine, "flfed.deployment.processes.executor"):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    first = stored(parties, newest(parties).run)
    out, err = going.communicate(timeout=300)
    assert going.returncode in (0, 1), err
    run = newest(parties).run
    if going.returncode:
        until("a gate", lambda: pids(machine, "flfed.deployment.processes.executor"))
        parties.online(2)
        assert command(parties, ["study", "resume", run, "--json"])[0]["status"] == "completed"
    assert machine.log().count("the gate ended (SIGKILL)") == 1
    # Replies of before the kill that are still there are the same bytes, and no exchange has two.
    second = stored(parties, run)
    assert {one: second[one] for one in first if one in second} == {one: first[one] for one in first if one in second}
    assert {len(hashes) for hashes in parties.answers(run).values()} == {1}
    assert np.abs(parts(parties.exported(run)) - parts(parties.here(text))).max() <= 1e-4


def start(parties: Parties, words: list[str], before: str = "", **more: str) -> subprocess.Popen[str]:
    machine = parties.coordinator
    return subprocess.Popen(
        [sys.executable, "-c", f"{before}\nfrom flfed.cli import main; main()", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**machine.environment, **more}, cwd=machine.exchange,
    )  # fmt: skip


class Canaries:
    """What may stand nowhere but at its party: in some bytes, in files, in the memory of processes."""

    def __init__(self, people: np.ndarray, cells: np.ndarray, scores: list[np.ndarray], residual: np.ndarray) -> None:
        digests = [hashlib.sha256(str(one).encode()) for one in people]
        heads = np.frombuffer(b"".join(one.digest()[:8] for one in digests), np.uint64)
        some = [cells[:20], scores[1][:20], residual[:20]]
        self.numbers = Numbers({"hash": heads, "cell": some[0], "score": some[1], "residual": some[2]})
        self.texts = {b"q7zw-": "identifier", (scores[1][:40] * 4).round().astype("<i4").tobytes(): "quarters"}
        self.texts |= {one.hexdigest()[:16].encode(): "hash as text" for one in digests[:20]}

    def found(self, content: bytes) -> set[str]:
        return self.numbers.found(content) | {name for text, name in self.texts.items() if text in content}

    def in_processes(self, started: list[int]) -> set[str]:
        every = {pid for one in started for pid in with_descendants(one)}
        return set().union(*(self.found(chunk) for pid in every for chunk in _memory_of(pid)))


def test_nothing_of_a_row_is_in_a_message_a_log_or_at_the_coordinator(
    parties: Parties, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    text = parties.approved(3)
    scores, residuals = list[np.ndarray](), list[np.ndarray]()
    quarters, residual = column_party.quarters, label_party.residuals
    monkeypatch.setattr(column_party, "quarters", lambda value: scores.append(value) or quarters(value))
    monkeypatch.setattr(label_party, "residuals", lambda *of: residuals.append(residual(*of)) or residuals[-1])
    parties.here(text)
    names = [name for columns in COLUMNS.values() for name in columns]
    canaries = Canaries(parties.people[10:4990], parties.table[names][100:104].to_numpy().ravel(), scores, residuals[1])

    folder = tmp_path / "crossed"
    folder.mkdir()
    listening = f"{HELD}\nimport runpy, sys\nrunpy.run_path({str(RECORDING)!r}, run_name='__main__')"
    going = start(parties, [str(folder), *parties.words(text)], listening, HELD=str(tmp_path))
    until("the products of a round", (tmp_path / "held").exists, 300.0, process=going)
    try:
        coordinator = [going.pid, *(one.pid for one in parties.coordinator.started)]
        assert canaries.in_processes(coordinator) == set()
        gates = {name: pids(parties.sites[name], "flfed.deployment.processes.executor") for name in PARTIES}
        assert {"identifier", "cell"} <= canaries.in_processes(gates["alpha"]) & canaries.in_processes(gates["beta"])
    finally:
        (tmp_path / "over").touch()
        out, err = going.communicate(timeout=300)
    assert going.returncode == 0, err
    crossed = [path.read_bytes() for path in folder.glob("[rs]e*")]
    assert sum(map(len, crossed)) > 1_000_000
    assert [one for one in crossed if canaries.found(one)] == []
    kept = [path for path in parties.coordinator.home.rglob("*") if path.is_file()]
    logs = [*parties.root.glob("*.log"), *(log for name in PARTIES for log in parties.sites[name].home.rglob("*.log"))]
    assert len(kept) > 5 and len(logs) > 4
    for path in (*kept, *logs):
        assert canaries.found(path.read_bytes()) == set(), path
    assert canaries.found((out + err).encode()) == set()
