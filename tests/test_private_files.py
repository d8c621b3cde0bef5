"""Private files: whole or not at all, their owner's alone, and the service's where root wrote them for it."""

import json
import os
import stat
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flfed.errors import FlfedError, UsageError
from flfed.files import SHARED, locked, note, read_private, write_whole

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


def test_a_file_is_replaced_whole_and_for_its_owner_alone(tmp_path: Path):
    file = tmp_path / "key"
    file.write_text("old, readable by all")
    file.chmod(0o644)
    write_whole(file, b"new")
    assert (read_private(file), stat.S_IMODE(file.stat().st_mode)) == (b"new", 0o600)
    write_whole(file, b"shared", mode=SHARED)
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_writing_through_a_link_replaces_the_link(tmp_path: Path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("of somebody")
    link.symlink_to(target)
    write_whole(link, b"new")
    assert (target.read_text(), link.is_symlink(), link.read_bytes()) == ("of somebody", False, b"new")
    assert len(list(tmp_path.iterdir())) == 2


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(FlfedError, match="cannot be written"):
        write_whole(tmp_path / "folder", b"x")
    with pytest.raises(FlfedError, match="cannot be written"):
        write_whole(tmp_path / "absent" / "x", b"x")
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o644, 0o666])
def test_what_others_may_read_or_write_is_not_read(tmp_path: Path, mode: int):
    file = tmp_path / "key"
    file.write_bytes(b"x")
    file.chmod(mode)
    with pytest.raises(FlfedError, match=f"mode {mode:o}.*chmod 600"):
        read_private(file)


def test_pipes_links_and_folders_are_no_private_files(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    (tmp_path / "folder").mkdir(mode=0o700)
    for name in ("pipe", "link", "folder", "absent"):
        with pytest.raises(FlfedError, match=f"{name}: (must be a plain file|cannot be read)"):
            read_private(tmp_path / name)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_log_has_a_line_an_event_and_is_private(tmp_path: Path):
    log = tmp_path / "log.jsonl"
    note(log, NOW, "refused", reason="a\nb \x1b[2J ä")
    note(log, NOW, "done", n=3)
    lines = log.read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"at": "2026-11-20T12:00:00+00:00", "what": "refused", "reason": "a\nb \x1b[2J ä"},
        {"at": "2026-11-20T12:00:00+00:00", "what": "done", "n": 3},
    ]
    assert "\x1b" not in lines[0]
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_one_process_at_a_time_adds_to_a_number(tmp_path: Path):
    number = tmp_path / "number"
    write_whole(number, b"0")
    program = (
        "import sys; from pathlib import Path; from flfed.files import *; n = Path(sys.argv[1])\n"
        "for _ in range(50):\n with locked(n.parent): write_whole(n, str(int(read_private(n)) + 1).encode())"
    )
    running = [subprocess.Popen([sys.executable, "-c", program, str(number)]) for _ in range(4)]
    assert [process.wait(60) for process in running] == [0] * 4
    assert int(read_private(number)) == 200


def test_a_folder_that_is_not_there_cannot_be_locked(tmp_path: Path):
    with pytest.raises(UsageError, match="cannot be used"), locked(tmp_path / "absent"):
        pass
    assert len(list(tmp_path.iterdir())) == 0


def test_who_comes_second_to_a_lock_is_told_and_no_lock_of_another_name_is_in_the_way(tmp_path: Path):
    with locked(tmp_path, "serving.lock", taken="it is served already"):
        with (
            pytest.raises(UsageError, match="^it is served already$"),
            locked(tmp_path, "serving.lock", taken="it is served already"),
        ):
            pass
        with locked(tmp_path):
            assert {path.name for path in tmp_path.iterdir()} == {"serving.lock", ".lock"}
    with locked(tmp_path, "serving.lock", taken="it is served already"):
        assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o602])
def test_rows_that_others_may_use_are_refused_as_rows_and_absent_ones_are_for_their_reader(tmp_path: Path, mode: int):
    file = tmp_path / "rows"
    file.write_bytes(b"x")
    file.chmod(mode)
    with pytest.raises(UsageError, match=f"mode {mode:04o}.*it concerns patients"):
        read_private(file, rows=True)
    file.chmod(0o600)
    assert read_private(file, rows=True) == read_private(file) == b"x"
    with pytest.raises(FileNotFoundError):
        read_private(tmp_path / "absent", rows=True)
    with pytest.raises(UsageError, match="absent: cannot be read"):
        read_private(tmp_path / "absent")


def test_what_root_writes_into_a_services_folder_is_the_services(tmp_path: Path):
    if os.geteuid() != 0:
        pytest.skip("needs root")
    folder = tmp_path / "of-a-service"
    folder.mkdir(mode=0o700)
    os.chown(folder, 12345, 23456)
    write_whole(folder / "file", b"x")
    note(folder / "log", NOW, "x")
    with locked(folder):
        pass
    owners = {file.name: (file.stat().st_uid, file.stat().st_gid) for file in folder.iterdir()}
    assert owners == dict.fromkeys(["file", "log", ".lock"], (12345, 23456))
