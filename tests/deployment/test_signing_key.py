"""The gate's signing key: made once, for the user with the data alone, and known elsewhere by its fingerprint."""

import json
import os
import stat
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from flfed.cli.commands import app
from flfed.deployment.coordinator import kits
from flfed.deployment.coordinator.admission import admit, members, note_gate_key, readable, revoke
from flfed.deployment.coordinator.certificates import Settings, initialise
from flfed.deployment.operator.join import join
from flfed.deployment.site_state.trusted_files import make_signing_key, own_fingerprint, signing_key
from flfed.errors import FlfedError, UsageError
from flfed.paths import CoordinatorFolder, SiteFolder
from flfed.signatures import canonical, gate_fingerprint, new_node_key, private_text, sign_as_node, signing_public

SITE = SiteFolder("cleveland")


@pytest.fixture
def folder() -> CoordinatorFolder:
    """A coordinator."""
    made = CoordinatorFolder.default()
    initialise(made, Settings("Heart consortium", "fl.example.org:443"))
    return made


@pytest.fixture
def kit(folder: CoordinatorFolder, tmp_path: Path) -> Path:
    """The kit of cleveland."""
    return kits.invite(folder, "cleveland", to=tmp_path).file


def two_users(site: SiteFolder, tmp_path: Path) -> None:
    """Make the folder as systemd-tmpfiles makes that of each user: the link is one to a folder of both."""
    (tmp_path / "link").mkdir(exist_ok=True)
    site.root.mkdir(parents=True)
    site.link.symlink_to(tmp_path / "link")


def test_joining_makes_the_gates_key_and_tells_its_fingerprint(folder: CoordinatorFolder, kit: Path, tmp_path: Path):
    done = join(kit, to=tmp_path)
    assert done.gate_key == own_fingerprint(SITE) == gate_fingerprint(signing_public(signing_key(SITE)))
    assert json.loads(done.admission.read_text())["gate-key"] == done.gate_key
    assert admit(folder, done.admission).gate_key == done.gate_key
    assert admit(folder, done.admission).already
    assert members(folder)["cleveland"].gate_key == done.gate_key
    assert b"PRIVATE" not in done.admission.read_bytes()


def test_the_key_is_for_the_user_with_the_data_alone(kit: Path, tmp_path: Path):
    join(kit, to=tmp_path)
    assert SITE.signing_key.parent == SITE.gate
    assert stat.S_IMODE(SITE.signing_key.stat().st_mode) == 0o600
    assert stat.S_IMODE(SITE.gate.stat().st_mode) == 0o700
    elsewhere = [file for file in (*SITE.network.iterdir(), *SITE.link.iterdir()) if file.is_file()]
    assert len(elsewhere) > 4
    body = SITE.signing_key.read_bytes().splitlines()[1]
    assert not [file for file in elsewhere if body in file.read_bytes()]
    SITE.signing_key.chmod(0o640)
    with pytest.raises(FlfedError, match="others may read or write it"):
        signing_key(SITE)


def test_the_user_with_the_network_makes_no_key_of_the_gate(folder, kit, tmp_path, monkeypatch):
    monkeypatch.setenv("FLFED_HOME", str(tmp_path / "net"))
    two_users(SITE, tmp_path)
    done = join(kit, to=tmp_path)
    assert done.gate_key == "" and not SITE.signing_key.exists()
    with pytest.raises(UsageError, match="as the user with the data: flfed site key cleveland"):
        make_signing_key(SITE)
    monkeypatch.setenv("FLFED_HOME", str(tmp_path / "gate"))
    two_users(SITE, tmp_path)
    said, made = make_signing_key(SITE)
    assert made and said == own_fingerprint(SITE)
    # The coordinator hears of it from a person: no file of the gate's user goes to the network's.
    assert admit(folder, done.admission).gate_key == ""
    assert note_gate_key(folder, "cleveland", said.upper()) == (said, "")
    assert members(folder)["cleveland"].gate_key == said
    assert readable(folder)[1] == ()


def test_a_key_that_is_there_stays(folder: CoordinatorFolder, kit: Path, tmp_path: Path):
    before, made = make_signing_key(SITE)
    assert made
    first = join(kit, to=tmp_path)
    first.admission.unlink()
    revoke(folder, "cleveland")
    second = kits.invite(folder, "cleveland", to=tmp_path).file
    again = join(second, to=tmp_path, replaces=lambda read, coordinator: True)
    assert again.key != first.key  # the node has another
    assert {first.gate_key, again.gate_key, make_signing_key(SITE)[0], own_fingerprint(SITE)} == {before}
    assert make_signing_key(SITE)[1] is False


def test_two_commands_at_once_make_one_key():
    SITE.make()
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(make_signing_key(SITE)[0])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and set(found) == {own_fingerprint(SITE)}


@pytest.mark.parametrize(
    "content", [b"", b"nonsense", private_text(new_node_key())], ids=["empty", "nonsense", "of another kind"]
)
def test_a_damaged_key_is_said_and_not_replaced(content: bytes):
    make_signing_key(SITE)
    SITE.signing_key.write_bytes(content)
    for ask in (signing_key, own_fingerprint, make_signing_key):
        with pytest.raises(FlfedError, match="is damaged; restore it from a backup"):
            ask(SITE)
    assert SITE.signing_key.read_bytes() == content


def test_a_link_in_its_place_is_not_followed(tmp_path: Path):
    SITE.make()
    (tmp_path / "own.key").write_bytes(private_text(Ed25519PrivateKey.generate()))
    SITE.signing_key.symlink_to(tmp_path / "own.key")
    with pytest.raises(UsageError, match="cannot be read"):
        signing_key(SITE)


def test_a_gate_without_a_key_says_what_to_do():
    assert own_fingerprint(SITE) == ""
    with pytest.raises(UsageError, match="has no signing key; at the site: flfed site key cleveland"):
        signing_key(SITE)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_what_root_makes_is_the_gates_users():
    SITE.root.mkdir(parents=True)
    os.chown(SITE.root, 12345, 12345)
    make_signing_key(SITE)
    for path in (SITE.gate, SITE.signing_key, SITE.network, SITE.link):
        assert (path.stat().st_uid, path.stat().st_gid) == (12345, 12345), path
    # Where the folder of the gate is of a user already, so is the key.
    SITE.signing_key.unlink()
    os.chown(SITE.gate, 23456, 23456)
    make_signing_key(SITE)
    assert SITE.signing_key.stat().st_uid == 23456


def test_an_admission_without_a_fingerprint_is_taken_in_and_one_is_recorded_later(folder, kit, tmp_path):
    done = join(kit, to=tmp_path)
    key = serialization.load_ssh_private_key(SITE.node_key.read_bytes(), None)
    facts = json.loads(done.admission.read_text())
    facts = {name: value for name, value in facts.items() if name not in ("gate-key", "signature")}
    done.admission.write_bytes(canonical({**facts, "signature": sign_as_node(facts, key)}))
    assert admit(folder, done.admission).gate_key == ""
    assert note_gate_key(folder, "cleveland", done.gate_key) == (done.gate_key, "")
    assert note_gate_key(folder, "cleveland", done.gate_key) == (done.gate_key, done.gate_key)
    with pytest.raises(UsageError, match="a character is wrong"):
        note_gate_key(folder, "cleveland", done.gate_key[:-1] + ("a" if done.gate_key[-1] != "a" else "b"))
    with pytest.raises(UsageError, match="'clevland' was never invited; did you mean 'cleveland'"):
        note_gate_key(folder, "clevland", done.gate_key)
    revoke(folder, "cleveland")
    with pytest.raises(UsageError, match="is revoked, not admitted"):
        note_gate_key(folder, "cleveland", done.gate_key)


@pytest.mark.parametrize("said", [7, "", "SHA256:abc", "ABCD"])
def test_an_admission_with_an_odd_fingerprint_is_refused(folder, kit, tmp_path, said):
    done = join(kit, to=tmp_path)
    facts = json.loads(done.admission.read_text())
    done.admission.write_text(json.dumps({**facts, "gate-key": said}))
    with pytest.raises(UsageError):
        admit(folder, done.admission)
    done.admission.write_text(json.dumps({**facts, "gate-key": facts["gate-key"].upper()}))
    with pytest.raises(UsageError, match="the fingerprint of the gate in it is malformed"):
        admit(folder, done.admission)
    assert members(folder)["cleveland"].status == "invited"


def test_a_fingerprint_that_another_put_into_an_admission_is_refused(folder, kit, tmp_path):
    done = join(kit, to=tmp_path)
    other = gate_fingerprint(signing_public(Ed25519PrivateKey.generate()))
    done.admission.write_text(done.admission.read_text().replace(done.gate_key, other))
    with pytest.raises(UsageError, match="its signature does not fit its key"):
        admit(folder, done.admission)


def test_an_admission_with_the_gate_of_another_site_is_refused(folder, kit, tmp_path):
    gate_key = admit(folder, join(kit, to=tmp_path).admission).gate_key
    kits.invite(folder, "hungary", to=tmp_path)
    done = join(tmp_path / "hungary.kit.zip", to=tmp_path)
    key = serialization.load_ssh_private_key(SiteFolder("hungary").node_key.read_bytes(), None)
    facts = {**json.loads(done.admission.read_text()), "gate-key": gate_key}
    del facts["signature"]
    done.admission.write_bytes(canonical({**facts, "signature": sign_as_node(facts, key)}))
    with pytest.raises(UsageError, match="site 'cleveland' has the gate with this fingerprint"):
        admit(folder, done.admission)
    revoke(folder, "cleveland")
    assert admit(folder, done.admission).gate_key == gate_key


def test_both_sides_show_the_fingerprint(folder: CoordinatorFolder, kit: Path, tmp_path: Path):
    def call(*words: str) -> str:
        result = CliRunner().invoke(app, list(words))
        assert result.exit_code == 0, result.output
        return result.stdout

    admit(folder, join(kit, to=tmp_path).admission)
    said = own_fingerprint(SITE)
    assert json.loads(call("site", "key", "cleveland", "--json")) == {
        "site": "cleveland", "gate-key": said, "created": False
    }  # fmt: skip
    assert f"--with cleveland={said}" in call("site", "key", "cleveland")
    assert json.loads(call("site", "status", "cleveland", "--json"))["gate-key"] == said
    assert f"Fingerprint of the gate: {said}" in call("site", "status", "cleveland")
    kits.invite(folder, "hungary", to=tmp_path)
    admit(folder, join(tmp_path / "hungary.kit.zip", to=tmp_path).admission)
    SiteFolder("hungary").signing_key.unlink()
    assert "none yet: flfed site key hungary" in call("site", "status", "hungary")
    made = json.loads(call("site", "key", "hungary", "--json"))
    assert made["created"] is True
    found = json.loads(call("coordinator", "key", "hungary", made["gate-key"], "--json"))
    assert found["gate-key"] == made["gate-key"] and found["before"] not in ("", made["gate-key"])
    shown = {site["site"]: site["gate-key"] for site in json.loads(call("coordinator", "status", "--json"))["sites"]}
    assert shown == {"cleveland": said, "hungary": made["gate-key"]}
    assert f"cleveland: the fingerprint of its gate is {said}" in call("coordinator", "status")
