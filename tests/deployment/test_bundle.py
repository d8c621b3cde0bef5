"""The bundle: nothing in it but two small files, and as Flower writes it."""

import io
import zipfile
from pathlib import Path

import pytest

from flfed.deployment.bundle import MODULE, PROJECT, bundle


def test_the_bundle_holds_two_files_and_flowers_list_of_them():
    with zipfile.ZipFile(io.BytesIO(bundle())) as archive:
        assert sorted(archive.namelist()) == [".info/CONTENT", "flfed_bundle.py", "pyproject.toml"]
    assert len(bundle()) < 3000


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what Flower reads .gitignore with
def test_flower_writes_the_very_same_bytes(tmp_path: Path):
    from flwr.cli.build import build_fab_from_disk

    (tmp_path / "pyproject.toml").write_text(PROJECT, encoding="utf-8")
    (tmp_path / "flfed_bundle.py").write_text(MODULE, encoding="utf-8")
    assert build_fab_from_disk(tmp_path) == bundle()
