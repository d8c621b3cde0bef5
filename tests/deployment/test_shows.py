"""What `flfed site join` says of a kit that was made to break out, and how the day's bytes are counted on."""

import io
import json
import os
import stat
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flfed.deployment.coordinator.certificates import Settings, initialise
from flfed.deployment.coordinator.kits import invite
from flfed.deployment.site_state.trusted_files import read_terms
from flfed.errors import UsageError
from flfed.paths import CoordinatorFolder

Members = dict[str, bytes]


@pytest.fixture
def members(tmp_path: Path) -> Members:
    """What is in the kit of a real coordinator, for site "cleveland"."""
    folder = CoordinatorFolder(tmp_path / "coordinator")
    initialise(folder, Settings("Test", "fl.example.org:443"))
    with zipfile.ZipFile(invite(folder, "cleveland", to=tmp_path).file) as archive:
        return {entry.filename: archive.read(entry) for entry in archive.infolist()}


def entry(name: str, mode: int = stat.S_IFREG | 0o600) -> zipfile.ZipInfo:
    made = zipfile.ZipInfo("x")
    made.filename = made.orig_filename = name
    made.external_attr, made.compress_type = mode << 16, zipfile.ZIP_DEFLATED
    return made


def as_is(members: Members) -> list[tuple[zipfile.ZipInfo, bytes]]:
    return [(entry(name), content) for name, content in members.items()]


HOSTILE: dict[str, tuple[Callable[[Members], list[tuple[zipfile.ZipInfo, bytes]]], str]] = {
    "a way out": (lambda kit: [*as_is(kit), (entry("../../node.key"), b"x")], "leads to another folder"),
    "a way out by name": (lambda kit: [(entry(f"../{name}"), c) for name, c in kit.items()], "leads to another folder"),
    "an absolute path": (lambda kit: [*as_is(kit), (entry("/tmp/flfed-out"), b"x")], "leads to another folder"),
    "a drive": (lambda kit: [*as_is(kit), (entry("C:\\flfed-out"), b"x")], "leads to another folder"),
    "a link": (
        lambda kit: [(entry("kit.toml", stat.S_IFLNK | 0o777), b"/etc/passwd"), (entry("ca.crt"), kit["ca.crt"])],
        "is a link",
    ),
    "a folder": (lambda kit: [*as_is(kit), (entry("more/", stat.S_IFDIR | 0o700), b"")], "is a folder"),
    "a device": (lambda kit: [*as_is(kit), (entry("null", stat.S_IFCHR | 0o600), b"")], "is not a plain file"),
    "twice": (lambda kit: [*as_is(kit), (entry("kit.toml"), kit["kit.toml"])], "has 3 members"),
    "twice, one gone": (lambda kit: [(entry("kit.toml"), kit["kit.toml"])] * 2, "and must have exactly"),
    "a bomb": (lambda kit: [(entry("kit.toml"), bytes(50_000_000)), (entry("ca.crt"), kit["ca.crt"])], "is too large"),
    "many": (lambda kit: [(entry(f"{number}"), b"") for number in range(300)], "has 300 members"),
}


@pytest.mark.parametrize(("make", "reason"), HOSTILE.values(), ids=HOSTILE)
def test_a_kit_that_was_made_to_break_out_is_refused_logged_and_explained(flfed, home, tmp_path, members, make, reason):
    exchange = tmp_path / "exchange"
    exchange.mkdir()
    file, before = exchange / "cleveland.kit.zip", sorted(tmp_path.rglob("*"))
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w") as archive:
        warnings.simplefilter("ignore", UserWarning)  # of a name that is there twice
        for info, content in make(members):
            archive.writestr(info, content)
    code, out, err = flfed("site", "join", file, "--output", exchange)
    assert (code, out) == (2, "")
    assert err.startswith("flfed: kit: ") and err.count("\n") == 1 and reason in err
    assert "do not use it" in err or "ask the coordinator" in err
    (line,) = [json.loads(line) for line in (home / "sites/joining.jsonl").read_text().splitlines()]
    assert (line["what"], line["reason"]) == ("kit refused", err.removeprefix("flfed: ").strip())
    # Nothing but the log was written, here or where the kit pointed to.
    assert sorted(path.name for path in home.rglob("*")) == ["joining.jsonl", "sites"]
    assert sorted(set(tmp_path.rglob("*")) - set(before)) == [file]
    assert not Path("/tmp/flfed-out").exists()


def test_a_honest_kit_of_the_same_make_is_taken(flfed, home, tmp_path, members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for info, content in as_is(members):
            archive.writestr(info, content)
    (tmp_path / "kit.zip").write_bytes(stream.getvalue())
    code, _, err = flfed("site", "join", tmp_path / "kit.zip", "--output", tmp_path)
    assert (code, err) == (0, "")
    assert (home / "sites/cleveland/network/node.key").stat().st_mode & 0o777 == 0o600


def terms(folder: Any, text: bytes = b"") -> Path:
    path: Path = folder.terms
    path.unlink(missing_ok=True)
    if text:
        path.write_bytes(text)
        path.chmod(0o640)
    return path


def test_what_the_network_user_wrote_for_the_gate_is_read_as_anybodys(gated: Callable[..., Any], tmp_path: Path):
    """It may point elsewhere, never end, or fill the memory: each is one sentence, and nothing of a file is said."""
    folder, key = gated().folder, "ab" * 32
    good = f'signing-key = "{key}"\n'.encode()
    terms(folder, good)
    assert read_terms(folder)["signing-key"] == key
    secret = tmp_path / "secret.toml"
    secret.write_bytes(good.replace(b"ab", b"cd"))
    terms(folder).symlink_to(secret)
    with pytest.raises(UsageError, match="site join") as error:
        read_terms(folder)
    assert "cd" * 8 not in str(error.value)
    os.mkfifo(terms(folder), 0o600)
    with pytest.raises(UsageError, match="site join"):
        read_terms(folder)
    terms(folder, good + b"#" * 70_000)
    with pytest.raises(UsageError, match="site join"):
        read_terms(folder)
    terms(folder, good).chmod(0o642)
    with pytest.raises(UsageError, match="others may change it"):
        read_terms(folder)
