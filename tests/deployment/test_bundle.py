"""The bundle: the same bytes always, and nothing in it but two small files."""

import hashlib
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from flfed.deployment.bundle import MODULE, PROJECT, bundle, bundle_sha256


def test_the_bundle_holds_two_files_and_flowers_list_of_them():
    with zipfile.ZipFile(io.BytesIO(bundle())) as archive:
        assert sorted(archive.namelist()) == [".info/CONTENT", "flfed_bundle.py", "pyproject.toml"]
    assert len(bundle()) < 3000


def test_another_process_builds_the_very_same_bytes():
    code = "from flfed.deployment.bundle import bundle_sha256; print(bundle_sha256())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert found == bundle_sha256() == hashlib.sha256(bundle()).hexdigest()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what Flower reads .gitignore with
def test_flower_writes_the_very_same_bytes(tmp_path: Path):
    from flwr.cli.build import build_fab_from_disk

    (tmp_path / "pyproject.toml").write_text(PROJECT, encoding="utf-8")
    (tmp_path / "flfed_bundle.py").write_text(MODULE, encoding="utf-8")
    assert build_fab_from_disk(tmp_path) == bundle()


def test_its_bytes_are_those_of_the_first_version_that_meets_later_ones():
    # A site of flfed 0.2.0 refuses a run with any other: what it reads follows from the version in its enrolment.
    assert bundle_sha256() == "983f031567b6c8c20b7c463ad38695844ce60ffffcb1c12e9ac1bf9113544168"
