"""The coordinator's certificates: whom a real TLS client trusts, and how the server's is renewed."""

import json
import socket
import ssl
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from flfed.deployment.coordinator import certificates
from flfed.deployment.coordinator.certificates import Settings, host_and_port, initialise
from flfed.errors import FlfedError, UsageError
from flfed.paths import CoordinatorFolder
from flfed.signatures import signing_public


@pytest.fixture
def folder(tmp_path: Path) -> CoordinatorFolder:
    """A coordinator at fl.example.org."""
    made = CoordinatorFolder(tmp_path / "coordinator")
    initialise(made, Settings("Heart consortium", "fl.example.org:443"))
    return made


def greeted(folder: CoordinatorFolder, ca: bytes, host: str) -> str:
    """Return what a client that trusts `ca` hears from the server; raise as OpenSSL does, strictly."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder.keys / "server.crt", folder.keys / "server.key")
    client = ssl.create_default_context(cadata=ca.decode("ascii"))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            plain, _ = listener.accept()
            with plain:
                try:
                    with context.wrap_socket(plain, server_side=True) as stream:
                        stream.sendall(b"hello")
                except (ssl.SSLError, OSError):
                    pass  # the client left: it says why

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            with (
                socket.create_connection(listener.getsockname(), timeout=10) as plain,
                client.wrap_socket(plain, server_hostname=host) as stream,
            ):
                return stream.recv(5).decode()
        finally:
            thread.join(60)


@pytest.mark.parametrize("host", ["fl.example.org", "localhost", "127.0.0.1", "::1"])
def test_the_server_is_believed_by_its_public_name_and_on_this_machine(folder, host: str):
    assert greeted(folder, certificates.trusted(folder), host) == "hello"


def test_the_server_is_not_believed_by_another_name_or_authority(folder, tmp_path: Path):
    other = CoordinatorFolder(tmp_path / "other")
    initialise(other, Settings("Heart consortium", "fl.example.org:443"))
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        greeted(folder, certificates.trusted(folder), "example.org")
    with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer|self-signed"):
        greeted(folder, certificates.trusted(other), "fl.example.org")


@pytest.mark.parametrize("address", ["10.1.2.3:8443", "[2001:db8::7]:443"])
def test_an_ip_address_stands_in_the_certificate_as_one(tmp_path: Path, address: str):
    made = CoordinatorFolder(tmp_path / "c")
    initialise(made, Settings("By number", address))
    assert greeted(made, certificates.trusted(made), host_and_port(address)[0]) == "hello"


def test_only_the_owner_may_read_any_of_it(folder):
    files = [file for file in folder.root.rglob("*") if file.is_file()]
    names = {"ca.key", "ca.crt", "server.key", "server.crt", "signing.key", "signing.pub"}
    assert {file.name for file in files} >= names
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    folders = [folder.root, folder.keys, folder.sites, folder.server]
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o700}


def test_a_second_init_changes_nothing_and_says_so(folder):
    before = {file: file.read_bytes() for file in folder.keys.iterdir()}
    with pytest.raises(UsageError, match="has a coordinator already and is not overwritten"):
        initialise(folder, Settings("Other", "other.example.org:443"))
    folder.settings.unlink()  # as after a crash in the middle
    with pytest.raises(UsageError, match="not overwritten"):
        initialise(folder, Settings("Other", "other.example.org:443"))
    assert {file: file.read_bytes() for file in folder.keys.iterdir()} == before


def test_a_key_that_others_may_read_is_not_used(folder):
    key = folder.keys / "signing.key"
    key.chmod(0o640)
    with pytest.raises(FlfedError, match=r"others may read or write it \(mode 640\)"):
        certificates.signing_key(folder)
    key.chmod(0o600)
    real = key.rename(key.with_name("moved"))
    key.symlink_to(real)
    with pytest.raises(UsageError, match="cannot be read"):
        certificates.signing_key(folder)


def test_the_authority_issues_servers_only_and_the_server_nothing(folder):
    ca = certificates.certificates(certificates.trusted(folder))[0]
    server = certificates.certificates((folder.keys / "server.crt").read_bytes())[0]
    limits = ca.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (limits.critical, limits.value.ca, limits.value.path_length) == (True, True, 0)
    assert server.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    assert (ca.not_valid_after_utc - ca.not_valid_before_utc).days == 3650
    assert (folder.keys / "signing.pub").read_text().strip() == signing_public(certificates.signing_key(folder))


def test_days_left_count_down_and_below_zero_when_late(folder):
    now = datetime.now(UTC)
    assert certificates.server_days_left(folder, now=now) == 396
    assert certificates.server_days_left(folder, now=now + timedelta(days=390)) == 6
    assert certificates.server_days_left(folder, now=now + timedelta(days=398)) < 0


def test_a_renewed_server_is_believed_by_sites_that_did_nothing(folder):
    ca, key = certificates.trusted(folder), (folder.keys / "server.key").read_bytes()
    certificates.renew_server(folder)
    assert (folder.keys / "server.key").read_bytes() != key
    assert greeted(folder, ca, "fl.example.org") == "hello"
    assert certificates.trusted(folder) == ca


@pytest.mark.parametrize(
    "address",
    ["fl.example.org", "fl.example.org:0", "fl.example.org:65536", "https://x:443", "*.x.org:443", "1.2.3:443",
     "-x.org:443", "a..b:443", "[::zz]:443", "::1:443", "x y:443", "x:443\n", "[1.2.3:443", "user@x:443"],
)  # fmt: skip
def test_an_address_that_sites_could_not_reach_is_refused(address: str):
    with pytest.raises(UsageError, match="must be host:port"):
        host_and_port(address)


def test_a_title_of_control_characters_or_none_is_refused():
    for title in ("", "  ", "a\nb", "\x1b[31mred", "x" * 101):
        with pytest.raises(UsageError, match="1 to 100 printable"):
            Settings(title, "x:1")
    assert Settings("x" * 100, "x:1").port == 1


def test_a_folder_that_is_no_coordinator_says_what_to_do(tmp_path: Path):
    with pytest.raises(UsageError, match="flfed coordinator init"):
        certificates.settings(CoordinatorFolder(tmp_path / "none"))


def test_every_change_is_in_the_log_with_its_time(folder):
    certificates.renew_server(folder)
    lines = [json.loads(line) for line in folder.log.read_text().splitlines()]
    assert [line["what"] for line in lines] == ["initialised", "server certificate renewed"]
    assert all(abs((datetime.now(UTC) - datetime.fromisoformat(line["at"])).total_seconds()) < 60 for line in lines)
