"""What `flfed site purge` removes of a run, and when it refuses; tests/consortium/test_purge.py has real sites."""

from pathlib import Path

import pytest

from flfed.deployment.operator.purge import plan_purge
from flfed.deployment.site_state.approval import pause
from flfed.errors import UsageError
from flfed.paths import SiteFolder
from flfed.records.ledger import ledger_of


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


def test_a_run_whose_name_begins_with_anothers_is_left_alone(folder: SiteFolder):
    purge = plan_purge(folder, "r1")
    assert [path.name for path in purge.paths] == ["r1-0.safetensors"]
    purge.remove()
    assert [path.name for path in (folder.root / "models").iterdir()] == ["r1-2-0.safetensors"]
    assert plan_purge(folder, "wine").runs == ("r1-2",)


def test_a_run_without_an_approval_is_under_way_until_the_site_pauses(folder: SiteFolder):
    (folder.root / "runs" / "r1").mkdir(parents=True)
    with pytest.raises(UsageError, match="flfed site pause cleveland"):
        plan_purge(folder, "heart")
    pause(folder, by="Dr Kim")
    assert folder.root / "runs" / "r1" in plan_purge(folder, "heart").paths


def test_neither_a_run_nor_a_study_is_refused(folder: SiteFolder):
    with pytest.raises(UsageError, match="no run and no study 'absent'"):
        plan_purge(folder, "absent")
