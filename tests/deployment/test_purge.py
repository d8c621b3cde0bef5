"""What `flfed site purge` removes of a run, and when it refuses; tests/consortium/test_purge.py has real sites."""

import json
import os
import shutil
import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from flfed.deployment.gate.outbound import Leaving
from flfed.deployment.operator.purge import erase, plan_purge
from flfed.deployment.site_state.approval import pause, refuse, withdraw
from flfed.errors import UsageError
from flfed.paths import SiteFolder
from flfed.records.ledger import ledger_of
from flfed.records.site_state import state_of
from flfed.study.study import Study

RUN = "20261120-abcd"
"""Of the messages of `Gated`."""


@pytest.fixture
def folder(home: Path) -> SiteFolder:
    """A site whose policy needs no approval, with models of runs whose names begin alike."""
    folder = SiteFolder("cleveland")
    folder.make()
    for run, study in (("r1", "heart"), ("r1-2", "wine")):
        ledger_of(folder).append(kind="train", study=study, study_sha256=study[0] * 64, run=run, repeat=0, bytes=1)
        path = folder.root / "models" / f"{run}-0.safetensors"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"model")
    return folder


@pytest.fixture
def trained(gated: Callable[..., Any]) -> Any:
    """A site that answered a round of its approved study."""
    site = gated()
    assert not answered(site).has_error()
    return site


def answered(site: Any, **changes: Any) -> Any:
    """Return the gate's answer to a round."""
    return site.gate.answer(site.trained(), site.context(**changes))


def files_of(folder: SiteFolder, run: str = RUN) -> list[Path]:
    """Return the run's files, and those that a crash left unfinished."""
    every = [path for path in folder.root.rglob("*") if path.is_file()]
    return [path for path in every if run in str(path) or path.name.startswith(".part-")]


def test_a_run_whose_name_begins_with_anothers_is_left_alone(folder: SiteFolder):
    purge = erase(folder, "r1")
    assert [path.name for path in purge.paths] == ["r1-0.safetensors"]
    assert [path.name for path in (folder.root / "models").iterdir()] == ["r1-2-0.safetensors"]
    assert plan_purge(folder, "wine").runs == ("r1-2",)


def test_a_series_stands_for_all_its_runs(folder: SiteFolder):
    for run in ("20261129-101112-ab12-r01", "20261129-101112-ab12-r02", "20261129-101112-ab1"):
        ledger_of(folder).append(kind="train", study="tea", study_sha256="t" * 64, run=run, repeat=0, bytes=1)
    assert plan_purge(folder, "20261129-101112-ab12").runs == ("20261129-101112-ab12-r01", "20261129-101112-ab12-r02")
    assert plan_purge(folder, "20261129-101112-ab12-r02").runs == ("20261129-101112-ab12-r02",)
    assert plan_purge(folder, "20261129-101112-ab1").runs == ("20261129-101112-ab1",)


def test_a_run_without_an_approval_is_under_way_until_the_site_pauses(folder: SiteFolder):
    (folder.root / "runs" / "r1").mkdir(parents=True)
    with pytest.raises(UsageError, match="flfed site pause cleveland"):
        plan_purge(folder, "heart")
    pause(folder, by="Dr Kim")
    assert folder.root / "runs" / "r1" in plan_purge(folder, "heart").paths


@pytest.mark.parametrize("target", ["absent", "", ".", "..", "../cleveland", "r1/..", "/", "r", "r1-"])
def test_neither_a_run_nor_a_study_is_refused(folder: SiteFolder, target: str):
    # A refused message may name no study and any run.
    for run in ("", "../cleveland", "r1/.."):
        ledger_of(folder).append(kind="refused", study="", study_sha256="h" * 64, run=run)
    with pytest.raises(UsageError, match="no run and no study"):
        plan_purge(folder, target)


def test_an_answer_under_way_is_erased_too(gated: Callable[..., Any], monkeypatch: pytest.MonkeyPatch):
    site = gated()
    ledger_of(site.folder).append(kind="enrol", study="small", study_sha256=site.study.sha256(), run=RUN)
    checked, go_on = threading.Event(), threading.Event()
    used_up = Leaving.used_up

    def waiting(*args: Any) -> Any:
        over = used_up(*args)
        checked.set()
        go_on.wait(60)
        return over

    # The gate has checked the approval, and has written nothing of the round yet.
    monkeypatch.setattr(Leaving, "used_up", waiting)
    gate = threading.Thread(target=answered, args=(site,))
    gate.start()
    assert checked.wait(60)
    withdraw(site.folder, site.study.name, by="Dr Kim")
    erasure = threading.Thread(target=erase, args=(site.folder, RUN))
    erasure.start()
    erasure.join(0.5)
    go_on.set()
    gate.join(60)
    erasure.join(60)
    assert site.lines()[-1].kind == "withheld" and files_of(site.folder) == []


def test_a_run_that_goes_on_before_the_removal_is_refused(trained: Any):
    (state,) = trained.folder.states.iterdir()
    aside = state.rename(trained.folder.root / "aside")
    plan_purge(trained.folder, RUN)
    aside.rename(state)
    with pytest.raises(UsageError, match="under way"):
        erase(trained.folder, RUN)
    assert files_of(trained.folder)


def test_a_refused_message_under_the_runs_name_gives_away_no_other_study(trained: Any):
    other = Study.parse(trained.study.text.replace('name = "small"', 'name = "other"', 1))
    refuse(trained.folder, other, by="Dr Kim")
    assert answered(trained, study=other.text).has_error()
    assert trained.lines()[-1].facts["run"] == RUN
    before = files_of(trained.folder)
    erase(trained.folder, other.sha256()[:8])
    assert files_of(trained.folder) == before


@pytest.mark.parametrize("dataset", ["..", "../..", "."])
def test_a_refused_study_whose_dataset_is_a_path_removes_nothing(trained: Any, dataset: str):
    text = trained.study.text.replace('name = "small"', 'name = "other"', 1)
    other = Study.parse(text.replace('name = "small"', f'name = "{dataset}"'))
    assert (other.name, other.dataset.name) == ("other", dataset)
    refuse(trained.folder, other, by="Dr Kim")
    assert erase(trained.folder, "other").paths == ()
    assert trained.folder.ledger.exists() and files_of(trained.folder)


def test_an_erasure_that_is_killed_is_repeated(trained: Any, monkeypatch: pytest.MonkeyPatch):
    withdraw(trained.folder, trained.study.name, by="Dr Kim")
    paths = plan_purge(trained.folder, RUN).paths
    assert len(paths) == 2
    for left in range(len(paths) - 1, 0, -1):
        if not (child := os.fork()):
            monkeypatch.setattr(shutil, "rmtree", partial(_remove_and_die, shutil.rmtree))
            erase(trained.folder, RUN)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
        assert len(plan_purge(trained.folder, RUN).paths) == left
    erase(trained.folder, trained.study.name)
    assert files_of(trained.folder) == [] and not (trained.folder.frozen / "small").exists()
    assert trained.folder.ledger.exists() and ledger_of(trained.folder).problems() == []
    assert erase(trained.folder, RUN).paths == ()


def _remove_and_die(remove: Callable[[Path], None], path: Path) -> None:
    remove(path)
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_crash_leaves_no_part_of_an_array(trained: Any):
    for name in ("models", "gate/results", "gate/starts"):
        part = trained.folder.root / name / ".part-x1"
        part.parent.mkdir(exist_ok=True)
        part.write_bytes(b"array")
    withdraw(trained.folder, trained.study.name, by="Dr Kim")
    with state_of(trained.folder).transaction() as step:
        assert step.tables.execute("SELECT count(*) FROM steps WHERE reply IS NOT NULL").fetchone()[0] > 0
    erase(trained.folder, RUN)
    assert files_of(trained.folder) == []
    with state_of(trained.folder).transaction() as step:
        assert step.tables.execute("SELECT count(*), count(reply) FROM steps").fetchone() == (1, 0)


def test_files_that_a_lost_ledger_lacks_are_erased(trained: Any):
    trained.folder.ledger.unlink()
    trained.folder.models.mkdir()
    model = trained.folder.models / f"{RUN}-0.safetensors"
    save_file({"w": np.ones(3)}, model, metadata={"study": trained.study.text})
    trained.folder.results.mkdir()
    (trained.folder.results / "old.json").write_text(json.dumps({"study-sha256": trained.study.sha256()}))
    withdraw(trained.folder, trained.study.name, by="Dr Kim")
    assert plan_purge(trained.folder, RUN).runs == (RUN,)
    assert erase(trained.folder, trained.study.name).runs == (RUN, "old")
    assert files_of(trained.folder) == files_of(trained.folder, "old") == []
