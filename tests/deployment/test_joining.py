"""A site joins, is admitted, renews and joins anew: real files on both sides, and what they let in."""

import json
import os
import stat
import tomllib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from flfed.deployment.coordinator import certificates, kits
from flfed.deployment.coordinator.admission import admit, admitted, revoke, revoked_keys
from flfed.deployment.coordinator.certificates import Settings, initialise
from flfed.deployment.operator.join import join, joined, log_file, renew
from flfed.errors import FlfedError, UsageError
from flfed.paths import CoordinatorFolder, SiteFolder
from flfed.signatures import coordinator_signed, public_text, sign_as_coordinator

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
    assert terms["bundle-sha256"] == known["bundle-sha256"]


def test_the_code_stays_in_the_admission_only(kit, tmp_path: Path, home: Path):
    done = join(kit, to=tmp_path, now=NOW)
    code = json.loads(done.admission.read_text())["invitation"]
    holding = [file for file in home.rglob("*") if file.is_file() and code.encode() in file.read_bytes()]
    assert len(code) == 64
    assert holding == [SiteFolder("cleveland").admission]


def test_a_used_kit_is_refused_with_what_to_do(kit, tmp_path: Path, refused: Refused):
    join(kit, to=tmp_path, now=NOW)
    key = SiteFolder("cleveland").node_key.read_bytes()
    for again in (join, renew):
        said = refused(again, kit, to=tmp_path, now=after(1))
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


def test_a_second_kit_needs_renew_and_makes_another_key(folder, kit, tmp_path: Path, refused: Refused):
    first = join(kit, to=tmp_path, now=NOW)
    admit(folder, first.admission, now=NOW)
    revoke(folder, "cleveland", now=after(1))
    second = kits.invite(folder, "cleveland", to=tmp_path, now=after(2)).file
    assert "flfed site join --renew KIT" in refused(join, second, to=tmp_path, now=after(3))
    # The file of the earlier key is the site's own, and no admission any more.
    done = renew(second, to=tmp_path, now=after(3))
    assert (done.site, done.changed) == ("cleveland", ())
    assert done.joined is not None and done.joined.key != first.key
    assert admit(folder, done.joined.admission, now=after(4)).fingerprint == done.joined.key
    assert len(revoked_keys(folder)) == 1
    (tmp_path / "cleveland.admission").unlink()
    assert "is for site 'cleveland', not 'b'" in refused(renew, second, to=tmp_path, site="b", now=after(4))


def test_a_new_kit_after_a_change_of_keys_brings_them_and_keeps_what_is_of_the_site(folder, kit, tmp_path: Path):
    join(kit, to=tmp_path, now=NOW).admission.unlink()
    site = SiteFolder("cleveland")
    secret, key = site.secret.read_bytes(), joined(site)["signing-key"]
    kits.rotate_signing(folder, to=tmp_path, now=after(1))  # the site missed its renewal
    certificates.prepare_authority(folder, now=after(1))
    found = renew(kits.invite(folder, "cleveland", to=tmp_path, now=after(2)).file, to=tmp_path, now=after(3))
    assert found.changed == ("ca-sha256", "signing-key")
    assert joined(site)["earlier-signing-keys"] == [key]
    assert site.secret.read_bytes() == secret  # else a gate that runs would lose its node
    assert len(secret) == 64


def test_a_kit_older_than_what_the_site_has_is_refused(folder, kit, tmp_path: Path, refused: Refused):
    older = kit.rename(tmp_path / "older.zip")
    join(kits.invite(folder, "cleveland", to=tmp_path, now=after(1)).file, to=tmp_path, now=after(1))
    assert "not after what the site has" in refused(renew, older, to=tmp_path, now=after(2))
    assert joined(SiteFolder("cleveland"))["issued"] == after(1).isoformat()


def test_a_renewal_brings_another_authority_and_keeps_the_key(folder, kit, tmp_path: Path):
    join(kit, to=tmp_path, now=NOW)
    site, before = SiteFolder("cleveland"), joined(SiteFolder("cleveland"))
    key, secret = site.node_key.read_bytes(), site.secret.read_bytes()
    certificates.prepare_authority(folder, now=after(1))
    found = renew(kits.renewal(folder, to=tmp_path, now=after(1)), to=tmp_path, now=after(2))
    assert found.changed == ("ca-sha256",)
    assert len(certificates.certificates(site.authority.read_bytes())) == 2
    certificates.finish_authority(folder, now=after(3))
    renew(kits.renewal(folder, to=tmp_path, now=after(3)), to=tmp_path, now=after(4))
    assert site.authority.read_bytes() == certificates.trusted(folder)
    assert (site.node_key.read_bytes(), site.secret.read_bytes()) == (key, secret)
    own = ("site", "expires", "joined", "invitation-sha256", "node-key", "signing-key", "address")
    assert {name: joined(site)[name] for name in own} == {name: before[name] for name in own}
    assert len(own) == 7


def test_a_renewal_with_certificates_that_no_site_should_trust_is_refused_though_it_is_signed(
    folder, kit, tmp_path: Path, refused: Refused
):
    join(kit, to=tmp_path, now=NOW)
    site, before = SiteFolder("cleveland"), SiteFolder("cleveland").authority.read_bytes()
    file = kits.renewal(folder, to=tmp_path, now=after(1))
    assert "the authority's certificate expired on 2036" in refused(renew, file, to=tmp_path, now=after(24 * 3650))
    own, server = (folder.keys / "ca.crt", folder.keys / "server.crt")
    own.write_bytes(own.read_bytes() + server.read_bytes())
    file = kits.renewal(folder, to=tmp_path, now=after(2))
    assert "a certificate that is no authority's" in refused(renew, file, to=tmp_path, now=after(3))
    assert site.authority.read_bytes() == before


def test_a_changed_signing_key_is_believed_for_what_the_old_one_signed(folder, kit, tmp_path: Path, refused: Refused):
    join(kit, to=tmp_path, now=NOW)
    keys = [joined(SiteFolder("cleveland"))["signing-key"]]
    first = kits.rotate_signing(folder, to=tmp_path, now=after(1))
    second = kits.rotate_signing(folder, to=tmp_path, now=after(1) + timedelta(microseconds=1))
    assert "take renewals in the order" in refused(renew, second, to=tmp_path, now=after(3))
    for file in (first, second):
        assert renew(file, to=tmp_path, now=after(3)).changed == ("signing-key",)
        keys.append(joined(SiteFolder("cleveland"))["signing-key"])
    assert len(set(keys)) == 3
    terms = tomllib.loads(SiteFolder("cleveland").terms.read_text())
    assert (terms["earlier-signing-keys"], terms["signing-key"]) == (keys[:2], keys[2])
    signed = sign_as_coordinator({"head": "x"}, certificates.signing_key(folder))
    assert [coordinator_signed({"head": "x"}, signed, key) for key in keys] == [False, False, True]


def test_a_renewal_is_taken_once_and_never_backwards(folder, kit, tmp_path: Path, refused: Refused):
    join(kit, to=tmp_path, now=NOW)
    older = kits.renewal(folder, to=tmp_path, now=after(1))
    newer = kits.renewal(folder, to=tmp_path, now=after(2))
    renew(newer, to=tmp_path, now=after(3))
    for file in (newer, older):
        assert "not after what the site has" in refused(renew, file, to=tmp_path, now=after(3))
    assert joined(SiteFolder("cleveland"))["issued"] == after(2).isoformat()


def test_a_clock_that_was_wrong_once_shuts_nobody_out(folder, kit, tmp_path: Path, refused: Refused):
    join(kit, to=tmp_path, now=NOW)
    years = timedelta(days=5 * 365)
    future = kits.renewal(folder, to=tmp_path, now=NOW + years)
    assert "set the clock that is wrong" in refused(renew, future, to=tmp_path, now=after(1))
    renew(kits.renewal(folder, to=tmp_path, now=after(2)), to=tmp_path, now=after(2))
    assert joined(SiteFolder("cleveland"))["issued"] == after(2).isoformat()
    future = kits.renewal(folder, to=tmp_path, now=NOW + years)
    renew(future, to=tmp_path, now=NOW + years)  # the clock here was wrong as well
    renew(kits.renewal(folder, to=tmp_path, now=after(3)), to=tmp_path, now=after(3))
    assert joined(SiteFolder("cleveland"))["issued"] == after(3).isoformat()


def test_a_renewal_of_another_coordinator_is_refused(kit, tmp_path: Path, refused: Refused):
    join(kit, to=tmp_path, now=NOW)
    other = CoordinatorFolder(tmp_path / "other")
    initialise(other, Settings("Heart consortium", "fl.example.org:443"), now=NOW)
    before = SiteFolder("cleveland").authority.read_bytes()
    file = kits.renewal(other, to=tmp_path, now=after(1))
    assert "not signed by the key of 'Heart consortium'" in refused(renew, file, to=tmp_path, now=after(2))
    assert SiteFolder("cleveland").authority.read_bytes() == before
    assert len(before) > 500


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=some.sampled_from([*kits.Terms.__dataclass_fields__, "ca", "kind", "format"]), end=some.text(max_size=3))
def test_no_word_of_a_renewal_can_be_changed(folder, kit, tmp_path: Path, name: str, end: str):
    site = SiteFolder("cleveland")
    if not site.join.exists():
        join(kit, to=tmp_path, now=NOW)
        kits.renewal(folder, to=tmp_path, now=after(1)).rename(tmp_path / "renewal.json")
    key, before = name.replace("_", "-"), site.join.read_bytes()
    facts = json.loads((tmp_path / "renewal.json").read_text())
    (tmp_path / "changed.json").write_text(json.dumps({**facts, key: f"{facts[key]}{end}!"}))
    with pytest.raises(UsageError):
        renew(tmp_path / "changed.json", to=tmp_path, now=after(2))
    assert site.join.read_bytes() == before
    assert len(before) > 100


def test_which_site_renews_is_asked_where_there_are_several(folder, kit, tmp_path: Path, refused: Refused):
    file = kits.renewal(folder, to=tmp_path, now=after(1))
    assert "no site has joined here" in refused(renew, file, to=tmp_path, now=after(2))
    for name in ("cleveland", "zurich"):
        join(kits.invite(folder, name, to=tmp_path, now=NOW).file, to=tmp_path, now=NOW)
    said = refused(renew, file, to=tmp_path, now=after(2))
    assert "2 sites have joined here (cleveland, zurich)" in said and "--site" in said
    assert renew(file, to=tmp_path, site="zurich", now=after(2)).site == "zurich"
    assert "'basel' has not joined" in refused(renew, file, to=tmp_path, site="basel", now=after(2))


def test_a_renewal_for_another_flfed_waits_until_it_is_installed(folder, kit, tmp_path: Path, refused: Refused):
    join(kit, to=tmp_path, now=NOW)
    made = json.loads(kits.renewal(folder, to=tmp_path, now=after(1)).read_text())
    for odd in ({"ca": f"{made['ca']} "}, {"kind": "receipt"}):
        with pytest.raises(UsageError, match="do not belong together"):
            kits.renewal_of({**made, **odd})
    del made["signature"]
    made |= {"flfed": "9.0", "bundle-sha256": "0" * 64}
    signature = sign_as_coordinator(made, certificates.signing_key(folder))
    (tmp_path / "newer.json").write_text(json.dumps({**made, "signature": signature}))
    assert "install flfed==9.0" in refused(renew, tmp_path / "newer.json", to=tmp_path, now=after(2))
    assert joined(SiteFolder("cleveland"))["issued"] == NOW.isoformat()


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
