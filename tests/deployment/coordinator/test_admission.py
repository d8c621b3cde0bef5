"""Who is admitted: by invitation, signature, name and key; once; until the invitation expires or is revoked."""

import hashlib
import json
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from flfed.deployment.coordinator.admission import (
    admit,
    admitted,
    check_admission,
    members,
    new_invitation,
    note_node,
    readable,
    revoke,
    revoked_keys,
)
from flfed.deployment.coordinator.certificates import Settings, initialise
from flfed.errors import FlfedError, UsageError
from flfed.files import locked
from flfed.paths import CoordinatorFolder
from flfed.signatures import (
    canonical,
    new_node_key,
    node_public_key,
    public_text,
    sign_as_node,
    spoken_fingerprint,
)
from flfed.updates.messages.kinds import PROTOCOL

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)


@pytest.fixture
def folder(tmp_path: Path) -> CoordinatorFolder:
    """A coordinator."""
    made = CoordinatorFolder(tmp_path / "coordinator")
    initialise(made, Settings("Heart consortium", "fl.example.org:443"), now=NOW)
    return made


def admission(tmp_path: Path, site: str, code: str, key=None, /, *, signer=None, **changed: object) -> Path:
    """Write an admission file of a site; `changed` after the signature was made."""
    key = key or new_node_key()
    facts = {"format": 1, "protocol": PROTOCOL, "site": site, "public-key": public_text(key.public_key())}
    facts |= {"invitation": code, "flfed": "1"}
    whole = {**facts, "signature": sign_as_node(facts, signer or key), **changed}
    file = tmp_path / f"{site}.admission"
    file.write_bytes(canonical({name: value for name, value in whole.items() if value is not None}))
    return file


def logged(folder: CoordinatorFolder) -> list[dict[str, object]]:
    return [json.loads(line) for line in folder.log.read_text().splitlines()]


def test_an_invited_site_is_admitted_once_and_a_second_time_said_to_be_done(folder, tmp_path: Path):
    code, expires = new_invitation(folder, "cleveland", days=14, now=NOW)
    assert datetime.fromisoformat(expires) - NOW == timedelta(days=14)
    key = new_node_key()
    file = admission(tmp_path, "cleveland", code, key)
    assert admitted(folder) == {}
    first, second = admit(folder, file, now=LATER), admit(folder, file, now=NOW + timedelta(days=99))
    assert (first.already, second.already) == (False, True)
    assert first.fingerprint == second.fingerprint
    assert admitted(folder) == members(folder)
    assert admitted(folder)["cleveland"].public_key == public_text(key.public_key())
    assert members(folder)["cleveland"].admitted == LATER.isoformat(timespec="seconds")
    assert [line["what"] for line in logged(folder)][-2:] == ["admitted", "already admitted"]


def test_the_fingerprint_is_what_ssh_keygen_shows(folder, tmp_path: Path):
    key = new_node_key()
    file = admission(tmp_path, "a", new_invitation(folder, "a", days=1, now=NOW)[0], key)
    (tmp_path / "key.pub").write_text(public_text(key.public_key()))
    said = subprocess.run(["ssh-keygen", "-lf", tmp_path / "key.pub"], capture_output=True, text=True, check=True)
    size, shown, *_ = said.stdout.split()
    assert (int(size), shown) == (384, admit(folder, file, now=NOW).fingerprint)


def test_the_code_is_not_kept_here_nor_logged(folder, tmp_path: Path):
    code, _ = new_invitation(folder, "a", days=1, now=NOW)
    admit(folder, admission(tmp_path, "a", code), now=NOW)
    kept = b"".join(file.read_bytes() for file in folder.root.rglob("*") if file.is_file())
    assert len(code) == 64
    assert code.encode() not in kept
    assert members(folder)["a"].invitation_sha256 == hashlib.sha256(code.encode()).hexdigest()


def refusal(folder: CoordinatorFolder, file: Path, now: datetime = LATER) -> str:
    """Return why an admission is refused: the same on both the screen and the log, and nothing is changed by it."""
    before = {path: path.read_bytes() for path in folder.sites.glob("*.json")}
    with pytest.raises(UsageError) as error:
        admit(folder, file, now=now)
    assert {path: path.read_bytes() for path in folder.sites.glob("*.json")} == before
    last = logged(folder)[-1]
    assert (last["what"], last["reason"]) == ("admission refused", str(error.value))
    assert last["at"] == now.isoformat(timespec="seconds")
    return str(error.value)


def test_an_expired_invitation_admits_nobody(folder, tmp_path: Path):
    code, expires = new_invitation(folder, "a", days=14, now=NOW)
    file = admission(tmp_path, "a", code)
    assert f"expired on {expires}" in refusal(folder, file, NOW + timedelta(days=14))
    assert admit(folder, file, now=NOW + timedelta(days=14, seconds=-1)).already is False


def test_inviting_again_makes_the_earlier_code_worthless(folder, tmp_path: Path):
    first, _ = new_invitation(folder, "a", days=14, now=NOW)
    second, _ = new_invitation(folder, "a", days=14, now=NOW)
    assert "does not answer the last invitation" in refusal(folder, admission(tmp_path, "a", first))
    assert admit(folder, admission(tmp_path, "a", second), now=NOW).site == "a"


def test_an_invitation_of_one_site_admits_no_other_name(folder, tmp_path: Path):
    code, _ = new_invitation(folder, "a", days=14, now=NOW)
    new_invitation(folder, "b", days=14, now=NOW)
    assert "does not answer the last invitation of site 'b'" in refusal(folder, admission(tmp_path, "b", code))
    assert "'c' was not invited" in refusal(folder, admission(tmp_path, "c", code))
    assert len(admitted(folder)) == 0


def test_a_right_file_replaces_a_wrong_one_of_the_same_invitation_and_of_no_other(folder, tmp_path: Path):
    first, _ = new_invitation(folder, "a", days=14, now=NOW)
    code, _ = new_invitation(folder, "a", days=14, now=NOW)
    wrong, right = new_node_key(), new_node_key()
    admit(folder, admission(tmp_path, "a", code, wrong), now=NOW)
    note_node(folder, "a", 7)
    file = admission(tmp_path, "a", code, right)
    assert "admit FILE --replace" in refusal(folder, file)
    with pytest.raises(UsageError, match="with another key or invitation"):
        admit(folder, admission(tmp_path, "a", first, right), replacing=True, now=LATER)
    file = admission(tmp_path, "a", code, right)
    with pytest.raises(UsageError, match="coordinator revoke a, then"):
        admit(folder, file, replacing=True, now=NOW + timedelta(days=14))
    assert revoked_keys(folder) == ()
    # A check alone changes nothing.
    assert check_admission(folder, file, replacing=True, now=LATER).already is False
    assert members(folder)["a"].public_key == public_text(wrong.public_key())
    done = admit(folder, file, replacing=True, now=LATER)
    assert done.matches(done.fingerprint) and done.matches(spoken_fingerprint(done.fingerprint))
    member = admitted(folder)["a"]
    assert (member.public_key, member.node_id, member.revoked) == (public_text(right.public_key()), None, "")
    assert revoked_keys(folder) == (public_text(wrong.public_key()),)
    assert member.earlier_keys[0]["node-id"] == 7
    assert logged(folder)[-1]["what"] == "admitted by replacement"
    again = admission(tmp_path, "a", code, wrong)
    with pytest.raises(UsageError, match="belongs, or belonged, to site 'a'"):
        admit(folder, again, replacing=True, now=LATER)


def test_a_used_code_admits_no_second_key(folder, tmp_path: Path):
    code, _ = new_invitation(folder, "a", days=14, now=NOW)
    admit(folder, admission(tmp_path, "a", code), now=NOW)
    assert "was admitted on" in refusal(folder, admission(tmp_path, "a", code))
    assert "flfed coordinator revoke a" in refusal(folder, admission(tmp_path, "a", "0" * 64))


def test_one_key_is_one_site_also_after_it_was_revoked(folder, tmp_path: Path):
    key = new_node_key()
    admit(folder, admission(tmp_path, "a", new_invitation(folder, "a", days=1, now=NOW)[0], key), now=NOW)
    code, _ = new_invitation(folder, "b", days=1, now=NOW)
    assert "belongs, or belonged, to site 'a'" in refusal(folder, admission(tmp_path, "b", code, key))
    revoke(folder, "a", now=NOW)
    assert "belongs, or belonged, to site 'a'" in refusal(folder, admission(tmp_path, "b", code, key))
    again, _ = new_invitation(folder, "a", days=1, now=NOW)
    assert "belongs, or belonged, to site 'a'" in refusal(folder, admission(tmp_path, "a", again, key))
    assert len(admitted(folder)) == 0


def test_a_revoked_name_is_invited_anew_and_its_old_node_stays_out(folder, tmp_path: Path):
    keys = [new_node_key(), new_node_key()]
    code, _ = new_invitation(folder, "a", days=1, now=NOW)
    file = admission(tmp_path, "a", code, keys[0])
    admit(folder, file, now=NOW)
    note_node(folder, "a", 2**64 - 3)
    assert admitted(folder)["a"].node_id == 2**64 - 3
    with pytest.raises(UsageError, match="flfed coordinator revoke a"):
        new_invitation(folder, "a", days=1, now=NOW)
    assert (revoke(folder, "a", now=LATER), revoke(folder, "a", now=LATER)) == (False, True)
    old, later = (public_text(key.public_key()) for key in keys)
    assert (admitted(folder), revoked_keys(folder)) == ({}, (old,))
    assert "was revoked on" in refusal(folder, file)
    code, _ = new_invitation(folder, "a", days=1, now=LATER)
    assert "does not answer the last invitation" in refusal(folder, file)
    admit(folder, admission(tmp_path, "a", code, keys[1]), now=LATER)
    assert (admitted(folder)["a"].public_key, admitted(folder)["a"].node_id) == (later, None)
    assert revoked_keys(folder) == (old,)
    note_node(folder, "a", 7)
    revoke(folder, "a", now=LATER)
    assert revoked_keys(folder) == (old, later)


def test_a_revoked_invitation_admits_nobody_and_left_no_key(folder, tmp_path: Path):
    code, _ = new_invitation(folder, "a", days=1, now=NOW)
    revoke(folder, "a", now=NOW)
    assert "was revoked" in refusal(folder, admission(tmp_path, "a", code))
    assert revoked_keys(folder) == ()
    with pytest.raises(UsageError, match="Known: a"):
        revoke(folder, "b", now=NOW)


@pytest.mark.parametrize(
    "other", [ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate(),
              rsa.generate_private_key(65537, 2048)], ids=["P-256", "Ed25519", "RSA"],
)  # fmt: skip
def test_a_key_of_another_kind_is_refused(folder, tmp_path: Path, other):
    code, _ = new_invitation(folder, "a", days=1, now=NOW)
    text = other.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    file = admission(tmp_path, "a", code, **{"public-key": text.decode()})
    assert "not of the kind EC P-384" in refusal(folder, file)
    assert node_public_key(public_text(new_node_key().public_key())).key_size == 384


def test_a_file_that_was_changed_or_signed_by_another_key_is_refused(folder, tmp_path: Path):
    code, _ = new_invitation(folder, "a", days=1, now=NOW)
    new_invitation(folder, "b", days=1, now=NOW)
    for changed in ({"signer": new_node_key()}, {"flfed": "2"}, {"site": "b"}, {"signature": "00"}, {"signature": "ä"}):
        assert "its signature does not fit its key" in refusal(folder, admission(tmp_path, "a", code, **changed))


def test_what_is_no_admission_file_is_refused_whatever_it_is(folder, tmp_path: Path):
    code, _ = new_invitation(folder, "a", days=1, now=NOW)
    for changed in ({"more": 1}, {"flfed": None}, {"flfed": 3}, {"format": True}, {"site": ["a"]}):
        assert "not an admission file" in refusal(folder, admission(tmp_path, "a", code, **changed))
    assert "format 2 is unknown to this version" in refusal(folder, admission(tmp_path, "a", code, format=2))
    assert "must be of a-z" in refusal(folder, admission(tmp_path, "a", code, site="../a"))
    large = tmp_path / "large"
    large.write_text(" " * 16_385)
    assert "not an admission file" in refusal(folder, large)
    assert "cannot be read" in refusal(folder, tmp_path / "absent")


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=some.one_of(some.binary(max_size=300), some.integers(1, 20_000).map(lambda n: b"[" * n)))
def test_no_bytes_do_more_than_be_refused(folder, tmp_path: Path, content: bytes):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(UsageError, match="not an admission file"):
        admit(folder, tmp_path / "x", now=NOW)
    assert len(members(folder)) == 0


def test_names_and_days_that_cannot_be_are_refused(folder):
    for name in ("", "A", "a_b", "../a", "a--b", "a/b", "x" * 101, "a\n"):
        with pytest.raises(UsageError, match="must be of a-z"):
            new_invitation(folder, name, days=14)
    for days in (0, -1, 91):
        with pytest.raises(UsageError, match="must be 1 to 90"):
            new_invitation(folder, "a", days=days)
    assert len(members(folder)) == 0


def test_a_node_is_noted_for_admitted_sites_only(folder):
    new_invitation(folder, "a", days=1, now=NOW)
    for name in ("a", "b"):
        with pytest.raises(FlfedError, match="is not admitted|was never invited"):
            note_node(folder, name, 1)
    assert members(folder)["a"].node_id is None


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"site": "a", "status": "admittd"}', '{"site": "b", "status": "admitted"}', '{"x": 1}', "\udcff"]
    + ['{"site": "a", "status": "admitted"}', '{"site": "a", "status": "admitted", "public-key": "ssh-rsa AAAA"}']
    + [
        '{"site": "a", "status": "admitted", "public-key": 7}',
        '{"site": "a", "status": "revoked", "earlier-keys": [1]}',
    ],
)
def test_a_damaged_file_is_named_and_the_others_are_read(folder, text: str):
    new_invitation(folder, "a", days=1, now=NOW)
    new_invitation(folder, "b", days=1, now=NOW)
    (folder.sites / "a.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    said = f"{folder.sites / 'a.json'}: is damaged; restore it from a backup, or remove it and invite the site again"
    found, damaged = readable(folder)
    assert (list(found), damaged, admitted(folder), revoked_keys(folder)) == (["b"], (said,), {}, ())
    # Its key may be revoked: nobody is let in before that is known, and whoever is known can be cut off.
    for refused in (lambda: new_invitation(folder, "c", days=1, now=NOW), lambda: revoke(folder, "a", now=NOW)):
        with pytest.raises(FlfedError, match=r"a\.json: is damaged"):
            refused()
    assert revoke(folder, "b", now=NOW) is False
    with pytest.raises(UsageError, match="'c' was never invited. Known: a, b"):
        revoke(folder, "c", now=NOW)


@pytest.mark.parametrize("action", ["invite", "admit", "revoke", "note_node"])
def test_who_changes_a_membership_waits_for_whoever_does(folder, tmp_path: Path, action: str):
    file = admission(tmp_path, "a", new_invitation(folder, "a", days=1)[0])
    if action == "note_node":
        admit(folder, file)
    actions = {
        "invite": lambda: new_invitation(folder, "a", days=2), "admit": lambda: admit(folder, file),
        "revoke": lambda: revoke(folder, "a"), "note_node": lambda: note_node(folder, "a", 7),
    }  # fmt: skip
    with locked(folder.sites):
        waiting, before = threading.Thread(target=actions[action]), members(folder)["a"]
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
        assert members(folder)["a"] == before
    waiting.join(60)
    assert not waiting.is_alive()
    assert members(folder)["a"] != before


def test_processes_that_write_at_once_lose_nothing(folder):
    # Four processes invite eight sites each and note what is there: every file is whole at any time.
    program = (
        "import sys; from pathlib import Path; from flfed.deployment.coordinator.admission import *;"
        "from flfed.paths import CoordinatorFolder as F; f = F(Path(sys.argv[1]));"
        "[(new_invitation(f, f's{i}', days=1), members(f)) for i in range(8)]"
    )
    running = [subprocess.Popen([sys.executable, "-c", program, str(folder.root)]) for _ in range(4)]
    assert [process.wait(60) for process in running] == [0, 0, 0, 0]
    assert len(members(folder)) == 8
