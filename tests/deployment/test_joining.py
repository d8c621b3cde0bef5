"""A site joins, is admitted and joins anew: real files on both sides, and what they let in."""

import json
import os
import stat
import tomllib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from flfed.deployment.coordinator import certificates, kits
from flfed.deployment.coordinator.admission import admit, admitted, revoke, revoked_keys
from flfed.deployment.coordinator.certificates import Settings, initialise
from flfed.deployment.operator.join import Read, join, joined, log_file
from flfed.errors import FlfedError, UsageError
from flfed.paths import CoordinatorFolder, SiteFolder
from flfed.signatures import public_text

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
Refused = Callable[..., str]


def after(hours: float) -> datetime:
    return NOW + timedelta(hours=hours)


@pytest.fixture
def folder(tmp_path: Path) -> CoordinatorFolder:
    """A coordinator that was made two hours ago."""
    made = CoordinatorFolder(tmp_path / "coordinator")
    initialise(made, Settings("Heart consortium", "fl.example.org:443"), now=after(-2))
    return made


@pytest.fixture
def kit(folder, tmp_path: Path) -> Path:
    """The kit of cleveland."""
    return kits.invite(folder, "cleveland", to=tmp_path, now=NOW).file


@pytest.fixture
def refused() -> Refused:
    """Call something that must be refused; return the reason, which is in this machine's log too."""

    def call(action: Callable[..., object], *words: object, now: datetime, **more: object) -> str:
        with pytest.raises(FlfedError) as error:
            action(*words, now=now, **more)
        last = logged()[-1]
        assert last["reason"] == str(error.value)
        assert last["at"] == now.isoformat(timespec="seconds")
        return str(error.value)

    return call


def logged() -> list[dict[str, object]]:
    return [json.loads(line) for line in log_file().read_text().splitlines()]


def test_from_a_kit_to_an_admission_that_is_admitted(folder, kit, tmp_path: Path, home: Path):
    done = join(kit, to=tmp_path, now=after(1))
    site = SiteFolder("cleveland")
    assert done.admission == tmp_path / "cleveland.admission"
    assert done.admission.read_bytes() == site.admission.read_bytes()
    found = admit(folder, done.admission, now=after(2))
    assert (found.site, found.fingerprint, found.already) == ("cleveland", done.key, False)
    # The key that the coordinator knows is that of the file which Flower's node reads, as Flower reads it.
    key = serialization.load_ssh_private_key(site.node_key.read_bytes(), None)
    assert key.curve.name == "secp384r1"
    assert admitted(folder)["cleveland"].public_key == public_text(key.public_key())
    assert b"PRIVATE" not in done.admission.read_bytes() + kit.read_bytes()


def test_what_joining_leaves_can_be_read_by_whom_it_is_for(folder, kit, tmp_path: Path):
    join(kit, to=tmp_path, now=NOW)
    site = SiteFolder("cleveland")
    own = dict.fromkeys([site.join, site.authority, site.node_key, site.admission, log_file()], 0o600)
    shared = dict.fromkeys([site.terms, site.secret], 0o640)
    files = {**own, **shared, tmp_path / "cleveland.admission": 0o600}
    assert {file: stat.S_IMODE(file.stat().st_mode) for file in files} == files
    assert stat.S_IMODE(site.network.stat().st_mode) == 0o700
    assert len(bytes.fromhex(site.secret.read_text())) == 32
    assert site.authority.read_bytes() == certificates.trusted(folder)
    known, terms = joined(site), tomllib.loads(site.terms.read_text())
    public = (folder.keys / "signing.pub").read_text().strip()
    assert (known["coordinator"], known["address"], known["flwr"]) == ("Heart consortium", "fl.example.org:443", "1.42")
    assert (terms["site"], terms["coordinator"], terms["signing-key"]) == ("cleveland", "Heart consortium", public)


def test_the_code_stays_in_the_admission_only(kit, tmp_path: Path, home: Path):
    done = join(kit, to=tmp_path, now=NOW)
    code = json.loads(done.admission.read_text())["invitation"]
    holding = [file for file in home.rglob("*") if file.is_file() and code.encode() in file.read_bytes()]
    assert len(code) == 64
    assert holding == [SiteFolder("cleveland").admission]


def test_a_used_kit_is_refused_with_what_to_do(kit, tmp_path: Path, refused: Refused):
    join(kit, to=tmp_path, now=NOW)
    key = SiteFolder("cleveland").node_key.read_bytes()
    said = refused(join, kit, to=tmp_path, replaces=lambda read, coordinator: True, now=after(1))
    assert "this kit was used here on 2026-11-20T12:00:00" in said
    assert f"send {SiteFolder('cleveland').admission} (again)" in said
    assert SiteFolder("cleveland").node_key.read_bytes() == key


def test_a_refused_kit_leaves_no_site_behind(folder, kit, tmp_path: Path, home: Path, refused: Refused):
    assert "expired" in refused(join, kit, to=tmp_path, now=after(24 * 14))
    assert [path.name for path in (home / "sites").iterdir()] == ["joining.jsonl"]
    kit.write_bytes(b"PK nonsense")
    assert "not a zip" in refused(join, kit, to=tmp_path, now=NOW)
    assert [line["what"] for line in logged()] == ["kit refused", "kit refused"]


def test_an_admission_that_lies_there_is_not_replaced(kit, tmp_path: Path, refused: Refused):
    lying = tmp_path / "cleveland.admission"
    lying.write_text("of somebody")
    assert "is there already and not replaced" in refused(join, kit, to=tmp_path, now=NOW)
    assert lying.read_text() == "of somebody"
    assert not SiteFolder("cleveland").join.exists()
    assert "not a folder" in refused(join, kit, to=tmp_path / "none", now=NOW)
    lying.unlink()
    assert join(kit, to=tmp_path, now=NOW).site == "cleveland"


def test_a_second_kit_is_taken_once_somebody_agrees_and_makes_another_key(
    folder, kit, tmp_path: Path, refused: Refused
):
    first = join(kit, to=tmp_path, now=NOW)
    admit(folder, first.admission, now=NOW)
    revoke(folder, "cleveland", now=after(1))
    second = kits.invite(folder, "cleveland", to=tmp_path, now=after(2)).file
    assert f"flfed site join {second} --yes" in refused(join, second, to=tmp_path, now=after(3))
    asked = []

    def answer(read: Read, coordinator: str) -> bool:
        asked.append((read.kit.site, coordinator))
        return len(asked) > 1

    assert "keeps the kit" in refused(join, second, to=tmp_path, replaces=answer, now=after(3))
    assert joined(SiteFolder("cleveland"))["node-key"] == first.key
    # The file of the earlier key is the site's own, and no admission any more.
    done = join(second, to=tmp_path, replaces=answer, now=after(3))
    assert asked == [("cleveland", "Heart consortium")] * 2 and done.key != first.key
    assert admit(folder, done.admission, now=after(4)).fingerprint == done.key
    assert len(revoked_keys(folder)) == 1


def test_after_a_theft_a_site_joins_the_coordinator_that_was_set_up_anew(kit, tmp_path: Path):
    join(kit, to=tmp_path, now=NOW).admission.unlink()
    site = SiteFolder("cleveland")
    before, secret = joined(site), site.secret.read_bytes()
    other = CoordinatorFolder(tmp_path / "other")
    initialise(other, Settings("Heart consortium", "fl.example.org:443"), now=after(1))
    file = kits.invite(other, "cleveland", to=tmp_path, now=after(2)).file
    done = join(file, to=tmp_path, replaces=lambda read, coordinator: True, now=after(3))
    assert admit(other, done.admission, now=after(4)).site == "cleveland"
    changed = {name for name, value in joined(site).items() if value != before[name]}
    assert changed == {"ca-sha256", "signing-key", "invitation-sha256", "node-key", "expires", "joined"}
    assert site.authority.read_bytes() == certificates.trusted(other)
    assert site.secret.read_bytes() == secret  # else a gate that runs would lose its node
    assert len(secret) == 64


def test_a_folder_that_others_may_enter_is_not_used(kit, tmp_path: Path, refused: Refused):
    site = SiteFolder("cleveland")
    site.make()
    site.network.chmod(0o755)
    assert f"chmod 700 {site.network}" in refused(join, kit, to=tmp_path, now=NOW)
    assert len(list(site.network.iterdir())) == 0


def test_files_written_by_root_belong_to_the_user_of_their_folder(kit, tmp_path: Path):
    if os.geteuid() != 0:
        pytest.skip("needs root")
    site = SiteFolder("cleveland")
    site.make()
    os.chown(site.network, 12345, 12345)
    os.chown(site.link, 12345, 23456)
    join(kit, to=tmp_path, now=NOW)
    owners = [(file.stat().st_uid, file.stat().st_gid) for file in (site.node_key, site.join, site.secret, site.terms)]
    assert owners == [(12345, 12345), (12345, 12345), (12345, 23456), (12345, 23456)]


def test_a_site_that_has_not_joined_says_what_to_do():
    with pytest.raises(UsageError, match="flfed site join KIT"):
        joined(SiteFolder("cleveland"))
