"""The wheel carries what a user without a checkout needs, and nothing that is not meant to travel."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DATASETS, SITES = [*ROOT.glob("datasets/*/schema.toml")], [*ROOT.glob("sites/*/policy.toml")]
STUDIES = [*ROOT.glob("flfed/studies/*.toml")]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of what git tracks and what it does not ignore."""
    folder = tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    for name in listed.stdout.split():
        target = folder / "source" / name
        if (ROOT / name).is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*command, "-w", str(folder), str(folder / "source")], check=True, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.mark.servers
def test_the_wheel_carries_sites_datasets_studies_and_the_app(wheel: Path):
    names = zipfile.ZipFile(wheel).namelist()
    bundled = [name for name in names if name.startswith("flfed/_bundled/")]
    assert sum(name.endswith("schema.toml") for name in bundled) == len(DATASETS) >= 8
    assert sum(name.endswith("policy.toml") for name in bundled) == len(SITES) >= 17
    assert sum(name.startswith("flfed/studies/") for name in names) == len(STUDIES) >= 10
    assert {"flfed/_bundled/app.py", "flfed/records/document/style.css"} <= set(names)
    assert not [name for name in names if name.endswith((".pyc", ".db")) or "tests" in name]


@pytest.mark.servers
def test_an_unpacked_wheel_finds_its_bundle_from_any_folder(wheel: Path, tmp_path: Path):
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    code = (
        "import flfed; from flfed.rows.data import datasets, site_discovery as site;"
        "from flfed.study.study import names;"
        "print(flfed.__file__); print(len(site.names()), len(datasets.names()), len(names()));"
        "print(len(site.load('kentucky-clinic').read().training))"
    )
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    out = subprocess.run([sys.executable, "-c", code], cwd=elsewhere, env=env, capture_output=True, text=True)
    where, counts, rows = out.stdout.split("\n")[:3]
    assert str(tmp_path / "installed") in where
    assert counts == f"{len(SITES)} {len(DATASETS)} {len(STUDIES)}"
    assert 100 < int(rows) < 208
