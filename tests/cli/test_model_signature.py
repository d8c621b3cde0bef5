"""Whose model it is: weights that were turned around are refused, or said to be nobody's; a signature names its key."""

import hashlib
import io
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from safetensors.numpy import load, save

from flfed.deployment.coordinator.certificates import settings, signing_key
from flfed.export.model_folder import SharedModel
from flfed.federation.engines.engine import engine_of
from flfed.federation.server.run import run
from flfed.paths import CoordinatorFolder
from flfed.rows.model_files import INDEX, MODEL, seal
from flfed.signatures import Signer, fingerprint_of, signing_public
from flfed.study.study import Study
from flfed.summaries.summary import arrays_sha256

pytestmark = [pytest.mark.slow, pytest.mark.studies]  # a real study

TITLE = "Heart consortium"
NOBODY = "Not signed: the hashes in the folder show damage, but not who made it."


@pytest.fixture
def coordinator(flfed, tmp_path: Path, monkeypatch) -> CoordinatorFolder:
    """A coordinator with a home of its own, and the kit of cleveland beside it."""
    monkeypatch.setenv("FLFED_HOME", str(tmp_path / "coordinator-home"))
    code, _, err = flfed("coordinator", "init", "--title", TITLE, "--address", "fl.example.org:443")
    assert code == 0, err
    assert flfed("coordinator", "invite", "cleveland", "--output", tmp_path)[0] == 0
    return CoordinatorFolder.default()


@pytest.fixture
def folders(coordinator, flfed, small_sites, small_study, tmp_path: Path, home: Path, monkeypatch) -> dict[str, Path]:
    """The model of a run, signed by the coordinator and not; from here on the machine is another one."""
    signer = engine_of("deployment").signer()
    assert signer is not None and (signer.title, engine_of("inprocess").signer()) == (TITLE, None)
    monkeypatch.setenv("FLFED_HOME", str(home))
    assert engine_of("deployment").signer() is None
    made = run(Study.parse(small_study).replace({"rounds": 2}), sites=small_sites(2)).run
    assert flfed("run", "export", made, "--output", tmp_path / "bare")[0] == 0
    SharedModel.read(tmp_path / "bare").write(tmp_path / "signed", signer)
    rows = pd.DataFrame([[40, 0.5, 1, "red"], [60, None, 0, "blue"]], columns=["x1", "x2", "flag", "colour"])
    rows.to_csv(tmp_path / "rows.csv", index=False)
    return {"bare": tmp_path / "bare", "signed": tmp_path / "signed", "rows": tmp_path / "rows.csv"}


def turned(folder: Path, to: Path, *, signature: bool = True) -> Path:
    """Return a copy of a model folder with negated weights and every hash made anew, as a stranger can make it."""
    shutil.copytree(folder, to)
    arrays = {name: -value for name, value in load((to / MODEL).read_bytes()).items()}
    (to / MODEL).write_bytes(save(arrays))
    index = json.loads((to / INDEX).read_text())
    index.pop("sha256")
    index["files"][MODEL] = hashlib.sha256((to / MODEL).read_bytes()).hexdigest()
    index["hashes"]["arrays-sha256"] = arrays_sha256(arrays)
    if not signature:
        index.pop("signed", None)
    (to / INDEX).write_text(json.dumps(index | {"sha256": seal(index)}))
    return to


def test_negated_weights_are_refused_where_the_model_was_signed_and_nobodys_where_not(flfed, folders, tmp_path):
    honest = pd.read_csv(io.StringIO(flfed("predict", folders["bare"], folders["rows"])[1]))["probability"]
    code, out, err = flfed("predict", turned(folders["bare"], tmp_path / "a"), folders["rows"])
    wrong = pd.read_csv(io.StringIO(out))["probability"]
    assert (code, err.strip()) == (0, NOBODY)
    assert (wrong + honest).to_list() == pytest.approx([1.0, 1.0], abs=1e-6)  # so they really are turned around
    code, out, err = flfed("predict", turned(folders["signed"], tmp_path / "b"), folders["rows"])
    assert (code, out) == (2, "") and "its signature is invalid" in err and len(err.splitlines()) == 1
    code, _, err = flfed("predict", turned(folders["signed"], tmp_path / "c", signature=False), folders["rows"])
    assert (code, err.strip()) == (0, NOBODY)
    code, _, err = flfed("predict", tmp_path / "c", folders["rows"], "--signed-by", tmp_path / "cleveland.kit.zip")
    assert code == 2 and "is not signed" in err


def test_a_signature_is_told_with_its_key_and_known_where_a_site_has_joined(flfed, folders, coordinator, tmp_path):
    key = fingerprint_of(signing_public(signing_key(coordinator)))
    by = f"Signed by {TITLE}, key {key}"
    assert key.startswith("SHA256:") and len(key) == 50
    code, _, err = flfed("predict", folders["signed"], folders["rows"])
    assert (code, err.strip()) == (0, f"{by} (not known here: compare it by telephone).")
    found = json.loads(flfed("predict", folders["signed"], folders["rows"], "--json")[1])
    assert [found[name] for name in ("signature", "signed-by", "signing-key")] == ["not known here", TITLE, key]
    for proof in (key, tmp_path / "cleveland.kit.zip", coordinator.keys / "signing.pub"):
        code, _, err = flfed("predict", folders["signed"], folders["rows"], "--signed-by", proof)
        assert (code, err.strip()) == (0, f"{by}: the key that --signed-by names.")
    assert flfed("site", "join", tmp_path / "cleveland.kit.zip", "--output", tmp_path)[0] == 0
    out = tmp_path / "p.csv"
    code, said, err = flfed("predict", folders["signed"], folders["rows"], "--output", out)
    assert (code, err) == (0, "") and f"{by}: the coordinator that cleveland has joined." in said
    found = json.loads(flfed("predict", folders["signed"], folders["rows"], "--json")[1])
    assert found["signature"] == "known"
    found = json.loads(flfed("predict", folders["bare"], folders["rows"], "--json")[1])
    assert [found[name] for name in ("signature", "signed-by", "signing-key")] == ["not signed", None, None]


def test_another_key_under_the_same_title_is_not_the_coordinators(flfed, folders, coordinator, tmp_path):
    impostor = Signer(settings(coordinator).title, Ed25519PrivateKey.generate())
    SharedModel.read(folders["bare"]).write(tmp_path / "theirs", impostor)
    assert flfed("site", "join", tmp_path / "cleveland.kit.zip", "--output", tmp_path)[0] == 0
    code, _, err = flfed("predict", tmp_path / "theirs", folders["rows"])
    assert code == 0 and f"Signed by {TITLE}, key SHA256:" in err and "not known here: compare it by telephone" in err
    code, out, err = flfed(
        "predict", tmp_path / "theirs", folders["rows"], "--signed-by", tmp_path / "cleveland.kit.zip"
    )
    assert (code, out) == (2, "") and "not by --signed-by" in err
    (tmp_path / "no.key").write_text("hello")
    code, _, err = flfed("predict", folders["signed"], folders["rows"], "--signed-by", tmp_path / "no.key")
    assert code == 2 and "has no key of a coordinator" in err
    code, _, err = flfed("predict", folders["bare"], folders["rows"], "--signed-by", tmp_path / "absent")
    assert code == 2 and len(err.splitlines()) == 1
