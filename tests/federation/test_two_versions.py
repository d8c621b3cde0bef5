"""A site of the version before codecs, its own code in a process of its own: asked and answering as ever."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
BEFORE = "ab6de8a"
"""The last commit whose sites know of no codec: flfed 0.2.0."""
pytestmark = [pytest.mark.proof, pytest.mark.servers]
CODEC = '\n[codec]\nname = "int8"\ndownload = "int8"\n'


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """The code of that commit, out of the repository's history."""
    made = subprocess.run(["git", "archive", BEFORE], cwd=ROOT, capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"commit {BEFORE} is not in this copy of the repository")
    with tarfile.open(fileobj=io.BytesIO(made.stdout)) as archive:
        archive.extractall(tmp_path / "earlier", filter="data")
    return tmp_path / "earlier"


@pytest.fixture
def conducted(small_sites: Any, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """A function that conducts a run of one version with a site of another, and returns what came of it."""
    small_sites(1)  # the dataset

    def go(server: Path, site: Path, study: str) -> dict[str, Any]:
        (home := tmp_path / f"home-{len(list(tmp_path.iterdir()))}").mkdir()
        out = home / "crossed.json"
        script = ROOT / "tests" / "federation" / "two_versions.py"
        environment = {**os.environ, "FLFED_HOME": str(home), "PYTHONPATH": str(server)}
        subprocess.run([sys.executable, script, site, study, out], env=environment, cwd=server, check=True, timeout=300)
        found: dict[str, Any] = json.loads(out.read_text())
        return found

    return go


def test_either_version_asks_and_answers_the_earlier_one_byte_for_byte_as_it_would_itself(
    conducted: Callable[..., dict[str, Any]], earlier: Path, small_study: str
):
    before = conducted(earlier, earlier, small_study)
    assert before["status"] == "completed" and before["reasons"] == {}
    kinds = [kind for kind, direction, _ in before["crossed"] if direction == "to-site"]
    assert len(kinds) == 9 and kinds.count("train") == 5
    for server, site in ((ROOT, earlier), (earlier, ROOT)):
        found = conducted(server, site, small_study)
        assert (found["status"], found["reasons"], found["sha256"]) == ("completed", {}, before["sha256"])
        differ = [one[:2] for one, other in zip(found["crossed"], before["crossed"], strict=True) if one != other]
        # Who enrols says its version.
        assert differ == ([] if site is earlier else [["query.enrol", "to-server"]])
    # The test would see it: two sites of today's version say other bytes to each other.
    today = conducted(ROOT, ROOT, small_study)
    assert today["sha256"] == before["sha256"]
    lengths = [sum(len(content) for *_, content in one["crossed"]) for one in (today, before)]
    assert lengths[0] < 0.9 * lengths[1]


def test_a_codec_that_is_asked_of_an_earlier_site_is_refused_and_named(
    conducted: Callable[..., dict[str, Any]], earlier: Path, small_study: str
):
    found = conducted(ROOT, earlier, small_study + CODEC)
    said = "it has flfed 0.2.0, which knows no codecs, and the study asks for int8"
    assert found["reasons"] == {"site-02": said}
    assert {kind for kind, *_ in found["crossed"]} == {"query.enrol"}
    assert found["status"] == "completed"
