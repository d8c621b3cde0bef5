"""Reading a kit: what `invite` packs is read, and every other zip, honest or hostile, is refused with its reason."""

import io
import stat
import struct
import tomllib
import warnings
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from flfed.deployment.coordinator.certificates import Settings, certificate_text, initialise, new_authority
from flfed.deployment.coordinator.kits import flwr_version, invite, packed
from flfed.deployment.operator.join import check_authority, read_kit, unpacked
from flfed.errors import UsageError
from flfed.paths import CoordinatorFolder

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
TOML, CA = b"a = 1\n", b"-----BEGIN CERTIFICATE-----\n"
Member = tuple[zipfile.ZipInfo, bytes]


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kit of a real coordinator."""
    folder = CoordinatorFolder(tmp_path_factory.mktemp("made") / "coordinator")
    initialise(folder, Settings("Heart consortium", "fl.example.org:443"), now=NOW)
    return invite(folder, "cleveland", to=tmp_path_factory.mktemp("kits"), now=NOW).file


def member(name: str, content: bytes = b"", *, mode: int = 0o100600, method: int = zipfile.ZIP_STORED) -> Member:
    entry = zipfile.ZipInfo("x")
    entry.filename = entry.orig_filename = name  # as a hostile packer would: nothing is tidied
    entry.external_attr, entry.compress_type = mode << 16, method
    return entry, content


def zipped(*members: Member) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for entry, content in members:
            archive.writestr(entry, content)
    return stream.getvalue()


def refusal(content: bytes) -> str:
    with pytest.raises(UsageError) as error:
        unpacked(content)
    said = str(error.value)
    assert said.startswith("kit: ") and "; " in said and len(said) < 500
    return said


def test_a_kit_is_read_as_it_was_packed(kit: Path):
    read = read_kit(kit, now=NOW)
    assert (read.kit.site, read.kit.terms.address, read.kit.terms.flwr) == ("cleveland", "fl.example.org:443", "1.42")
    assert datetime.fromisoformat(read.kit.expires) - NOW == timedelta(days=14)
    assert packed(read.kit.as_toml().encode(), read.ca) == kit.read_bytes()
    assert stat.S_IMODE(kit.stat().st_mode) == 0o600
    with zipfile.ZipFile(kit) as archive:
        assert archive.namelist() == ["kit.toml", "ca.crt"]


@settings(max_examples=200)
@given(toml=some.binary(max_size=200), ca=some.binary(max_size=200), stored=some.booleans())
def test_two_plain_members_are_unpacked_whole(toml: bytes, ca: bytes, stored: bool):
    method = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
    found = unpacked(zipped(member("ca.crt", ca, method=method), member("kit.toml", toml)))
    assert found == {"kit.toml": toml, "ca.crt": ca}
    assert unpacked(packed(toml, ca)) == found


@pytest.mark.studies
@settings(max_examples=300)
@given(names=some.lists(some.one_of(some.sampled_from(["kit.toml", "ca.crt"]), some.text(max_size=12)), max_size=5))
def test_members_of_any_other_names_are_refused(names: list[str]):
    members = [member(name.encode("utf-8", "ignore").decode(), TOML) for name in names]
    if sorted(entry.filename for entry, _ in members) == ["ca.crt", "kit.toml"]:
        assert len(unpacked(zipped(*members))) == 2
    else:
        refusal(_quietly_zipped(members))


def _quietly_zipped(members: list[Member]) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of two members of one name
        return zipped(*members)


@pytest.mark.parametrize(("third", "reason"), [
    (member("../kit.toml"), "'../kit.toml' leads to another folder"),
    (member("a/../../kit.toml"), "leads to another folder"), (member("/etc/cron.d/x"), "leads to another folder"),
    (member("..\\kit.toml"), "leads to another folder"), (member("C:kit.toml"), "leads to another folder"),
    (member("node.key", b"/etc/passwd", mode=stat.S_IFLNK | 0o777), "'node.key' is a link"),
    (member("d/", mode=stat.S_IFDIR | 0o755), "'d/' is a folder"),
    (member("pipe", mode=stat.S_IFIFO | 0o644), "is not a plain file"),
    (member("device", mode=stat.S_IFBLK | 0o644), "is not a plain file"),
    (member("x.py", b"import os"), "has 3 members, and must have exactly kit.toml and ca.crt"),
], ids=lambda value: value if isinstance(value, str) else value[0].filename)  # fmt: skip
def test_a_member_too_many_is_refused_with_what_it_is(third: Member, reason: str):
    assert reason in refusal(zipped(member("kit.toml", TOML), member("ca.crt", CA), third))


@pytest.mark.parametrize(("mode", "reason"), [(stat.S_IFLNK, "is a link"), (stat.S_IFDIR, "is a folder")])
def test_a_link_or_folder_under_the_right_name_is_refused(mode: int, reason: str):
    content = zipped(member("kit.toml", TOML), member("ca.crt", b"../../node.key", mode=mode | 0o777))
    assert f"'ca.crt' {reason}" in refusal(content)
    assert len(unpacked(zipped(member("kit.toml", TOML), member("ca.crt", CA)))) == 2


def test_a_name_that_only_seems_right_is_refused():
    # Python's zip reader ends a name at a NUL, others do not: both must see the same file.
    content = zipped(member("kit.toml\0.exe", TOML), member("ca.crt", CA))
    assert "'kit.toml\\x00.exe' has an odd name" in refusal(content)
    assert len(zipfile.ZipFile(io.BytesIO(content)).namelist()) == 2


def test_twice_the_same_name_is_not_two_members():
    assert "'kit.toml', 'kit.toml'" in refusal(_quietly_zipped([member("kit.toml", TOML), member("kit.toml", CA)]))
    assert "has 1 members" in refusal(zipped(member("kit.toml", TOML)))
    assert "has 0 members" in refusal(zipped())


def with_flags(content: bytes, flags: int) -> bytes:
    """Set flags of the first member, in both of its headers."""
    changed = bytearray(content)
    central = changed.index(b"PK\x01\x02")
    for place in (6, central + 8):
        struct.pack_into("<H", changed, place, struct.unpack_from("<H", changed, place)[0] | flags)
    return bytes(changed)


@pytest.mark.parametrize("flags", [0x1, 0x40, 0x2000])
def test_an_encrypted_member_is_refused(flags: int):
    content = with_flags(zipped(member("kit.toml", TOML), member("ca.crt", CA)), flags)
    assert "'kit.toml' is encrypted" in refusal(content)


def test_a_member_that_unpacks_to_too_much_is_refused_unread():
    bomb = zipped(member("kit.toml", TOML), member("ca.crt", b"0" * 50_000_000, method=zipfile.ZIP_DEFLATED))
    assert len(bomb) < 65_536
    assert "'ca.crt' is too large" in refusal(bomb)
    assert len(unpacked(zipped(member("kit.toml", b"#" * 16_384), member("ca.crt", CA)))["kit.toml"]) == 16_384
    assert "'kit.toml' is too large" in refusal(zipped(member("kit.toml", b"#" * 16_385), member("ca.crt", CA)))


def test_a_bomb_that_lies_about_its_size_is_refused():
    honest = zipped(member("kit.toml", TOML), member("ca.crt", b"0" * 60_000, method=zipfile.ZIP_DEFLATED))
    lying = bytearray(honest)
    place = honest.rindex(b"PK\x01\x02") + 24
    assert struct.unpack_from("<I", lying, place) == (60_000,)
    struct.pack_into("<I", lying, place, 100)
    assert "not a zip, or a damaged one" in refusal(bytes(lying))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_member_packed_in_another_way_is_refused(method: int):
    content = zipped(member("kit.toml", TOML, method=method), member("ca.crt", CA))
    assert "is packed in a way that no kit is" in refusal(content)
    assert method > zipfile.ZIP_DEFLATED


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=some.integers(0, 10_000), change=some.binary(min_size=1, max_size=6), cut=some.booleans())
def test_a_damaged_kit_is_read_the_same_or_refused(kit: Path, place: int, change: bytes, cut: bool):
    whole = kit.read_bytes()
    place %= len(whole)
    spoilt = whole[:place] if cut else whole[:place] + change + whole[place + len(change) :]
    try:
        found = unpacked(spoilt)
    except UsageError as error:
        assert len(str(error)) > 30
    else:
        # Dates and attributes may differ; what is read is what was packed.
        assert found == unpacked(whole)


@settings(max_examples=200)
@given(content=some.one_of(some.binary(max_size=400), some.binary(max_size=200).map(lambda x: b"PK\x03\x04" + x)))
def test_any_bytes_are_refused(content: bytes):
    assert len(refusal(content)) > 30


def spoilt(kit: Path, tmp_path: Path, /, *, ca: bytes | None = None, **changed: object) -> Path:
    """Write a kit with other values under some keys (`None` leaves one out), or other certificates."""
    read = read_kit(kit, now=NOW)
    facts = {**tomllib.loads(read.kit.as_toml()), **{k.replace("_", "-"): v for k, v in changed.items()}}
    file = tmp_path / "x.zip"
    left = {name: value for name, value in facts.items() if value is not None}
    file.write_bytes(packed(tomli_w.dumps(left).encode(), read.ca if ca is None else ca))
    return file


@pytest.mark.parametrize(("changed", "reason"), [
    ({"format": 2}, "its format is unknown to this version"),
    ({"format": True}, "its format is unknown to this version"), ({"site": None}, "'site' is missing or unknown"),
    ({"command": "x"}, "'command' is missing or unknown"), ({"site": "../x"}, "site='../x' is malformed"),
    ({"site": 3}, "a value in it is not a text"), ({"invitation": "x"}, "its invitation is malformed"),
    ({"address": "x"}, "must be host:port"), ({"coordinator": "\x1b[2J"}, "printable characters"),
    ({"signing_key": "00"}, "signing_key='00' is malformed"),
    ({"expires": "2026-12-01"}, "must be a time with its zone"),
    ({"expires": "soon"}, "must be a time with its zone"), ({"flwr": "1"}, "flwr='1' is malformed"),
])  # fmt: skip
def test_a_kit_that_says_something_odd_is_refused(kit: Path, tmp_path: Path, changed, reason: str):
    with pytest.raises(UsageError) as error:
        read_kit(spoilt(kit, tmp_path, **changed), now=NOW)
    assert reason in str(error.value)


def test_certificates_other_than_those_named_are_refused(kit: Path, tmp_path: Path):
    other = certificate_text(new_authority("Other", NOW)[1])
    with pytest.raises(UsageError, match="its ca.crt is not the one that kit.toml names"):
        read_kit(spoilt(kit, tmp_path, ca=other), now=NOW)
    assert len(read_kit(spoilt(kit, tmp_path), now=NOW).ca) > 500


def test_an_expired_kit_is_refused_from_its_second_on(kit: Path):
    end = NOW + timedelta(days=14)
    assert read_kit(kit, now=end - timedelta(seconds=1)).kit.site == "cleveland"
    with pytest.raises(UsageError, match="expired on 2026-12-04"):
        read_kit(kit, now=end)


def test_certificates_that_no_site_should_trust_are_refused(tmp_path: Path):
    folder = CoordinatorFolder(tmp_path / "c")
    initialise(folder, Settings("x", "x.org:443"), now=NOW)
    own, server = ((folder.keys / name).read_bytes() for name in ("ca.crt", "server.crt"))
    check_authority(own, now=NOW)
    damaged = b"-----BEGIN CERTIFICATE-----\nAAAA\n"
    for odd in (b"", b"text", own * 2, own + server, own + b"more", b"# " + own, damaged):
        with pytest.raises(UsageError, match="must hold one certificate"):
            check_authority(odd, now=NOW)
    with pytest.raises(UsageError, match="no authority's"):
        check_authority(server, now=NOW)
    with pytest.raises(UsageError, match="expired on 2036"):
        check_authority(own, now=NOW + timedelta(days=3650))
    with pytest.raises(UsageError, match="is this machine's clock right"):
        check_authority(own, now=NOW - timedelta(hours=2))


def test_a_kit_of_another_flower_is_refused(kit: Path, tmp_path: Path):
    major, minor = map(int, flwr_version().split("."))
    for other in (f"{major}.{minor + 1}", f"{major + 1}.{minor}"):
        with pytest.raises(UsageError, match=f"has Flower {other}, here is {flwr_version()}.*install flfed=="):
            read_kit(spoilt(kit, tmp_path, flwr=other), now=NOW)


def test_what_is_no_small_file_is_refused(kit: Path, tmp_path: Path):
    large = tmp_path / "large.zip"
    large.write_bytes(kit.read_bytes() + b"\0" * 65_536)
    with pytest.raises(UsageError, match="more than 65536 bytes"):
        read_kit(large, now=NOW)
    for path in (tmp_path, tmp_path / "absent", Path("/dev/zero")):
        with pytest.raises(UsageError, match="is not a file"):
            read_kit(path, now=NOW)
