"""`flfed site proxy`: what it stores, and what it refuses without showing a password."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flfed.deployment.operator.outbound_proxy import OutboundProxy, proxy_address, read_proxy, set_proxy
from flfed.errors import FlfedError, UsageError
from flfed.paths import SiteFolder

SECRET = "s3cr3t"
REFUSED = {
    f"http://ann:{SECRET}@proxy.example:3128": "--password-file FILE",
    f"ann:{SECRET}@proxy.example:3128": "--password-file FILE",
    "https://proxy.example:3128": "https:// is not supported",
    "socks5://proxy.example:1080": "socks5:// is not supported",
    "proxy.example:3128": "not a URL",
    "http://proxy.example": "not a URL",
    "http://proxy.example:0": "not a URL",
    "http://proxy.example:70000": "not a URL",
    "http://proxy.example:3128/path": "not a URL",
    "http://proxy example:3128": "not a URL",
    "": "not a URL",
    "None": "not a URL",
}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SiteFolder:
    monkeypatch.setenv("FLFED_HOME", str(tmp_path / "home"))
    folder = SiteFolder("site-a")
    folder.make()
    folder.join.write_text('site = "site-a"\naddress = "192.0.2.7:443"\n')
    return folder


@pytest.fixture
def password_file(tmp_path: Path) -> Callable[..., Path]:
    def write(content: bytes, mode: int = 0o600) -> Path:
        file = tmp_path / "proxy.password"
        file.write_bytes(content)
        file.chmod(mode)
        return file

    return write


def test_a_proxy_is_stored_privately_until_it_is_removed(site: SiteFolder, password_file: Callable[..., Path]):
    assert read_proxy(site) is None
    assert set_proxy(site, "http://[2001:db8::1]:3128/") == OutboundProxy("[2001:db8::1]:3128")
    set_proxy(site, "http://proxy.example:3128", password_file("änn:a b:c\r\n".encode()))
    assert read_proxy(site) == OutboundProxy("proxy.example:3128", "änn", "a b:c")
    assert site.proxy.stat().st_mode & 0o777 == 0o600
    # Each call sets both: the password of one proxy never reaches another.
    set_proxy(site, "http://other.example:3128")
    assert read_proxy(site) == OutboundProxy("other.example:3128")
    assert set_proxy(site, "none") is None
    assert read_proxy(site) is None
    assert set_proxy(site, "none") is None


@pytest.mark.parametrize("url", REFUSED)
def test_what_is_no_proxy_is_refused_and_no_password_is_repeated(site: SiteFolder, url: str):
    with pytest.raises(UsageError, match=REFUSED[url]) as refused:
        proxy_address(url)
    assert SECRET not in str(refused.value)
    set_proxy(site, "http://proxy.example:3128")
    with pytest.raises(UsageError):
        set_proxy(site, url)
    assert read_proxy(site) == OutboundProxy("proxy.example:3128")


@pytest.mark.parametrize("content", [b"", b"s3cr3t", b":s3cr3t", b"ann:s3cr3t\nmore", b"ann:\xff", b"ann:s3\x00cr3t"])
def test_a_password_file_has_one_line(site: SiteFolder, password_file: Callable[..., Path], content: bytes):
    with pytest.raises(UsageError, match="must have one line USER:PASSWORD") as refused:
        set_proxy(site, "http://proxy.example:3128", password_file(content))
    assert SECRET not in str(refused.value)
    assert read_proxy(site) is None


def test_files_that_others_may_read_are_refused(site: SiteFolder, password_file: Callable[..., Path], tmp_path: Path):
    for mode in (0o640, 0o604, 0o620):
        with pytest.raises(FlfedError, match="others may read or write it"):
            set_proxy(site, "http://proxy.example:3128", password_file(b"ann:x", mode))
    with pytest.raises(UsageError, match="cannot be read"):
        set_proxy(site, "http://proxy.example:3128", tmp_path / "absent")
    with pytest.raises(UsageError, match="without a proxy there is no password"):
        set_proxy(site, "none", password_file(b"ann:x"))
    set_proxy(site, "http://proxy.example:3128", password_file(b"ann:x"))
    site.proxy.chmod(0o644)
    with pytest.raises(FlfedError, match="others may read or write it"):
        read_proxy(site)
    site.proxy.chmod(0o600)
    for damage in ("address = 3", f'address = "{SECRET}"', f"password = {SECRET}", 'address = "a.b:1"\nport = 1'):
        site.proxy.write_text(damage)
        with pytest.raises(FlfedError, match="set the proxy again") as refused:
            read_proxy(site)
        assert SECRET not in str(refused.value)


def test_the_command_shows_its_example_and_no_password(
    site: SiteFolder, password_file: Callable[..., Path], flfed: Callable[..., Any]
):
    file = password_file(b"ann:s3cr3t")
    code, out, err = flfed("site", "proxy", "site-a", "http://192.0.2.9:3128", "--password-file", file)
    assert code == 0 and "through http://192.0.2.9:3128" in out and SECRET not in out + err
    assert "Example: flfed site proxy cleveland http://" in " ".join(flfed("site", "proxy", "--help")[1].split())
    code, _, err = flfed("site", "proxy", "site-b", "none")
    assert code == 2 and "has not joined" in err


def test_no_unit_is_written_while_the_proxy_cannot_be_read(site: SiteFolder, flfed: Callable[..., Any], tmp_path: Path):
    """Its egress rule would be for the coordinator, or there would be none."""
    set_proxy(site, "http://192.0.2.9:3128")
    site.proxy.write_text(f"password = {SECRET}")
    code, out, err = flfed("site", "units", "site-a", "--output", tmp_path / "units")
    assert code != 0 and "set the proxy again" in err and SECRET not in out + err
    assert not (tmp_path / "units").exists()
