"""The bundle: the same bytes always, and nothing in it but two small files."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import zipfile

from flfed.deployment.bundle import bundle, bundle_sha256


def test_the_bundle_holds_two_files_and_flowers_list_of_them():
    with zipfile.ZipFile(io.BytesIO(bundle())) as archive:
        assert sorted(archive.namelist()) == [".info/CONTENT", "flfed_bundle.py", "pyproject.toml"]
    assert len(bundle()) < 3000


def test_another_process_builds_the_very_same_bytes():
    code = "from flfed.deployment.bundle import bundle_sha256; print(bundle_sha256())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert found == bundle_sha256() == hashlib.sha256(bundle()).hexdigest()
