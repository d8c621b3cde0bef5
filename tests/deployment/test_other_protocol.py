"""Kits and admissions of another protocol: refused where a site joins or is admitted, with both and what to do.

`protocol_1` has a kit and an admission that flfed 0.5.0 made, whose messages were of protocol 1.
"""

import json
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import tomli_w

import flfed as package
from flfed.deployment.coordinator import admission, kits
from flfed.deployment.coordinator.certificates import Settings, initialise
from flfed.deployment.operator import join as joining
from flfed.deployment.operator.join import unpacked
from flfed.paths import CoordinatorFolder, SiteFolder

EARLIER = Path(__file__).parent / "protocol_1"
KIT, ADMISSION = EARLIER / "cleveland.kit.zip", EARLIER / "cleveland.admission"
SITE = "cleveland"
OWN = package.__version__
Flfed = Callable[..., tuple[int, str, str]]


@pytest.fixture
def folder(home: Path, heart: object) -> CoordinatorFolder:
    made = CoordinatorFolder.default()
    initialise(made, Settings("Heart consortium", "fl.example.org:443"))
    return made


def refused_by_site(flfed: Flfed, kit: Path) -> set[str]:
    """Return what `site join` and `site setup` say of a kit, which leave no trace of a membership."""
    said = set()
    for words in (("join", kit), ("setup", "--kit", kit), ("setup", SITE, "--kit", kit)):
        code, out, err = flfed("site", *words)
        assert (code, out, err.count("\n")) == (2, "", 1), err
        said.add(err.strip())
    assert not SiteFolder(SITE).join.exists() and not SiteFolder(SITE).node_key.exists()
    return said


def kit_sentence(theirs: int, made_by: str) -> set[str]:
    return {
        f"flfed: kit: it is of protocol {theirs} (flfed {made_by}), and flfed {OWN} here has protocol 2; install the "
        "coordinator's version of flfed here, or ask for a new kit once the coordinator has yours"
    }


def test_a_kit_that_an_earlier_flfed_made_is_refused(flfed: Flfed, folder: CoordinatorFolder):
    assert refused_by_site(flfed, KIT) == kit_sentence(1, "0.5.0")


@pytest.mark.parametrize("version", ["0.3.0", "0.4.2", "0.6", "1.0"])
def test_a_kit_without_a_protocol_is_refused_whatever_version_it_names(
    flfed: Flfed, folder: CoordinatorFolder, tmp_path: Path, version: str
):
    members = unpacked(KIT.read_bytes())
    facts = tomllib.loads(members["kit.toml"].decode()) | {"flfed": version}
    marked = tmp_path / "marked.zip"
    marked.write_bytes(kits.packed(tomli_w.dumps(facts).encode(), members["ca.crt"]))
    assert refused_by_site(flfed, marked) == kit_sentence(1, version)


def test_a_kit_of_a_later_protocol_is_refused(
    flfed: Flfed, folder: CoordinatorFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as later:
        later.setattr(package, "__version__", "3.1.4")
        later.setattr(kits, "PROTOCOL", 3)
        kit = kits.invite(folder, SITE, to=tmp_path).file
    assert refused_by_site(flfed, kit) == kit_sentence(3, "3.1.4")
    # Of this protocol the same coordinator's kit is taken, whatever version it names.
    with monkeypatch.context() as later:
        later.setattr(package, "__version__", "2.9")
        kit = kits.invite(folder, SITE, to=tmp_path).file
    assert flfed("site", "join", kit, "--output", tmp_path)[0] == 0


@pytest.mark.parametrize("protocol", [True, "2", 2.0, "\x1b[2J"])
def test_a_protocol_that_is_no_number_is_refused(
    flfed: Flfed, folder: CoordinatorFolder, tmp_path: Path, protocol: object
):
    members = unpacked(kits.invite(folder, SITE, to=tmp_path).file.read_bytes())
    facts = tomllib.loads(members["kit.toml"].decode()) | {"protocol": protocol}
    odd = tmp_path / "odd.zip"
    odd.write_bytes(kits.packed(tomli_w.dumps(facts).encode(), members["ca.crt"]))
    (said,) = refused_by_site(flfed, odd)
    assert f"of protocol {protocol!r} (flfed {OWN})" in said


def test_an_admission_of_another_protocol_is_refused(
    flfed: Flfed, folder: CoordinatorFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    kit = kits.invite(folder, SITE, to=tmp_path).file
    with monkeypatch.context() as later:
        later.setattr(joining, "PROTOCOL", 3)
        file = joining.join(kit, to=tmp_path).admission
    assert json.loads(file.read_bytes())["protocol"] == 3
    for path, theirs, made_by in ((ADMISSION, 1, "0.5.0"), (file, 3, OWN)):
        code, _, err = flfed("coordinator", "admit", path, "--fingerprint", f"{SITE}=any")
        said = f"flfed: {path}: the admission is of protocol {theirs} (flfed {made_by}), "
        assert code == 2 and err.startswith(f"{said}and flfed {OWN} here has protocol 2; "), err
        assert err.endswith("has this version of flfed, invite it again: flfed coordinator invite SITE\n")
    assert admission.members(folder)[SITE].status == "invited"
    refusals = [json.loads(line) for line in folder.log.read_text().splitlines()]
    assert [line["what"] for line in refusals][-2:] == ["admission refused"] * 2


def test_after_an_update_of_both_a_site_joins_again_with_a_new_kit(
    flfed: Flfed, folder: CoordinatorFolder, tmp_path: Path
):
    shutil.copy(kits.invite(folder, SITE, to=tmp_path).file, tmp_path / "new.zip")
    assert flfed("site", "join", tmp_path / "new.zip", "--output", tmp_path)[0] == 0
    made = json.loads((tmp_path / f"{SITE}.admission").read_bytes())
    assert (made["protocol"], made["flfed"]) == (2, OWN)
    assert admission.admit(folder, tmp_path / f"{SITE}.admission").site == SITE
