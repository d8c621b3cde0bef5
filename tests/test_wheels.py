"""`make wheels`: flfed installs and runs without a network, and a wheel with a byte more is refused."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.wheels import ROOT, SBOM, pinned


def test_each_wheel_is_pinned_by_its_hash(tmp_path: Path):
    (tmp_path / "et_xmlfile-2.0.0-py3-none-any.whl").write_bytes(b"abc")
    sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # of "abc", by FIPS 180-2
    lock = f"et-xmlfile==2.0.0 --hash=sha256:{sha256}\n"
    assert pinned(tmp_path, lock) == lock
    with pytest.raises(SystemExit, match="its hash is not in requirements.lock"):
        pinned(tmp_path, lock.replace("ba78", "ba79"))
    (tmp_path / "odd-1.0.tar.gz").touch()
    with pytest.raises(SystemExit, match=r"odd-1\.0\.tar\.gz: no wheel for"):
        pinned(tmp_path, lock)


def offline(*words: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in an empty network namespace, with no settings of this machine."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "FLFED_HOME": str(home / "flfed")}
    return subprocess.run(["unshare", "--net", *words], env=environment, cwd=home, capture_output=True, text=True)


@pytest.mark.proof
@pytest.mark.timeout(1800)
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="it needs root and unshare")
def test_the_wheels_install_without_a_network_and_none_may_have_a_byte_more(tmp_path: Path):
    folder = tmp_path / "wheels"
    subprocess.run([sys.executable, "-m", "tests.wheels", str(folder), "--extras", ""], cwd=ROOT, check=True)
    installed = offline("sh", f"{folder}/install.sh", "env", home=tmp_path)
    assert installed.returncode == 0, installed.stderr[-3000:]
    ran = offline(f"{tmp_path}/env/bin/flfed", "study", "run", "breast-cancer", "--json", home=tmp_path)
    assert json.loads(ran.stdout)["status"] == "completed", ran.stderr[-3000:]
    listed = {one["name"] for one in json.loads((folder / SBOM).read_text())["components"]}
    pins = {line.partition("==")[0] for line in (folder / "requirements.txt").read_text().splitlines()}
    assert listed == pins and {"flfed", "flwr", "torch"} <= pins
    assert not [name for name in pins if name.startswith("nvidia")]
    with next((folder / "wheels").glob("tomli_w-*.whl")).open("ab") as wheel:
        wheel.write(b"\0")
    refused = offline("sh", f"{folder}/install.sh", "other", home=tmp_path)
    assert refused.returncode != 0 and "DO NOT MATCH THE HASHES" in refused.stderr
