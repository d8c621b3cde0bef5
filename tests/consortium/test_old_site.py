"""A site that still has flfed 0.2, with gate and node of its own, among machines that have today's."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import flfed
from tests.federation.test_two_versions import earlier  # noqa: F401 - a fixture
from tests.test_consortium_resumed import PASSED_ON

pytestmark = [pytest.mark.proof, pytest.mark.slow, pytest.mark.servers, pytest.mark.timeout(600)]
THREE = ("alpha", "beta", "gamma")
OLD = "gamma"
REFUSED = (
    "refused: the study cannot be used: see the site's log "
    "(the study asks for codec int8; flfed before 0.3 knows no codecs)"
)
SUMS = ("[compare]", '[privacy]\nsecure-aggregation = "on"\n[compare]')
CODEC = ("[compare]", '[codec]\nname = "int8"\ndownload = "int8"\n[compare]')


def ran(consortium: Any, study: str) -> tuple[int, dict[str, Any] | None, str]:
    """Return how a run ended: exit code, its JSON, and what was said."""
    machine = consortium.coordinator
    chosen = [word for name in THREE for word in ("--site", name)]
    done = subprocess.run(
        [sys.executable, "-c", "from flfed.cli import main; main()", "coordinator", "run",
         str(consortium.file(study)), *chosen, "--json"],
        capture_output=True, text=True, env=machine.environment, cwd=machine.exchange, timeout=300, check=False,
    )  # fmt: skip
    return done.returncode, json.loads(done.stdout) if done.stdout.strip() else None, done.stderr


def test_a_site_of_flfed_0_2_takes_part_as_before_and_is_named_where_a_codec_is_asked(consortium: Any, earlier: Path):  # noqa: F811

    plain, packed = consortium.study(), consortium.study(CODEC)
    summed, pins = consortium.study(SUMS), consortium.pins(THREE)
    for name in THREE:
        consortium.approve(name, summed, THREE, sums=True, pins=pins)
        for study in (plain, packed):
            consortium.approve(name, study, THREE)
    consortium.sites[OLD].environment["PYTHONPATH"] = str(earlier)
    for name in THREE:
        words = shlex.split(f"site serve {name}")
        code = f"{PASSED_ON if name == OLD else ''}from flfed.cli import main; main()"
        consortium.sites[name].start(sys.executable, "-c", code, *words)
    consortium.online(3)

    code, found, said = ran(consortium, plain)
    assert code == 0 and (found["status"], found["faults"]) == ("completed", []), said
    kept = {name: list(consortium.sites[name].gate.rglob("incoming/*/*.safetensors")) for name in THREE}
    versions = {name: {version_of(path) for path in paths} for name, paths in kept.items()}
    assert versions == {"alpha": {flfed.__version__}, "beta": {flfed.__version__}, "gamma": {"0.2.0"}}

    code, found, said = ran(consortium, packed)
    assert code == 0 and found["status"] == "completed" and set(found["sites"]) == {"alpha", "beta"}, said
    assert [(fault["site"], fault["reason"]) for fault in found["faults"]] == [(OLD, REFUSED)]
    trained = {line["run"] for line in consortium.sites[OLD].lines() if line["kind"] == "train"}
    assert len(trained) == 1 and found["run"] not in trained

    # Sums of fewer than were approved would be of another cohort: the run is refused, and says what to do.
    code, _, said = ran(consortium, summed)
    assert code == 2 and "gamma: " in said and "flfed before 0.4 knows no sums: install today's there" in said


def version_of(path: Path) -> str:
    """Return the version of flfed that kept a request."""
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return str(header["__metadata__"]["version"])
