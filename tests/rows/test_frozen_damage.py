"""Frozen rows that are damaged, open to others, another site's, or half written: refused, and never lost."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flfed.errors import FlfedError, UsageError
from flfed.files import folder_locked, write_whole
from flfed.rows.data.site import Site
from flfed.rows.data.sources import Frame
from flfed.rows.snapshots import snapshot
from flfed.rows.snapshots.snapshot import freeze, load, read_facts


@pytest.fixture
def site(small_sites) -> Site:
    return small_sites(1)[0]


@pytest.fixture
def own(site: Site, tmp_path: Path) -> Path:
    """The folder of a snapshot that is whole."""
    freeze(site, tmp_path / "frozen", None)
    return tmp_path / "frozen" / "small"


def rows_file(own: Path) -> Path:
    (path,) = own.glob("rows-*.parquet")
    return path


def refusal(site: Site, own: Path) -> str:
    with pytest.raises(UsageError) as raised:
        load(site, own.parent)
    return str(raised.value)


def test_a_flipped_bit_anywhere_is_found(site, own):
    path = rows_file(own)
    whole = path.read_bytes()
    for place in np.linspace(0, len(whole) - 1, 60).astype(int):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert "is damaged: its file is not the one that was written" in refusal(site, own)
    path.write_bytes(whole)
    assert len(load(site, own.parent).inspect()[0]) == 60


@pytest.mark.parametrize("left", [0, 1, 4, 1000, -1])
def test_a_file_that_was_cut_short_is_refused(site, own, left):
    path = rows_file(own)
    path.write_bytes(path.read_bytes()[:left])
    assert refusal(site, own) == (
        "site 'site-01': its snapshot of dataset 'small' is damaged: its file is not the one that was written; "
        "it is not served until a new one is taken: flfed site refresh site-01 --dataset small"
    )


def changed(own: Path, **facts: object) -> None:
    path = own / "frozen.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key.replace("_", "-"): v for key, v in facts.items()}))


@pytest.mark.parametrize(("facts", "expected"), [
    ({"sha256": "0" * 64}, "is damaged: its rows are not those that were written"),
    ({"rows": 59}, "is damaged: its rows are not those that were written"),
    ({"rows": "60"}, "is damaged: frozen.json cannot be read"),
    ({"rows": True}, "is damaged: frozen.json cannot be read"),
    ({"format": 2}, "is damaged: frozen.json cannot be read"),
    ({"file_sha256": "0" * 64}, "is damaged: frozen.json cannot be read"),
    ({"file": "../../other.parquet"}, "is damaged: frozen.json cannot be read"),
    ({"excluded": {"listed": 1}}, "is damaged: frozen.json cannot be read"),
    ({"excluded": 3}, "is damaged: frozen.json cannot be read"),
    ({"excluded": {"listed": 1, "found": 1, "rows": 1, "people": 1}}, "is damaged: frozen.json cannot be read"),
    ({"resting": {"persons": 9, "rows": 9, "more": 1}}, "is damaged: frozen.json cannot be read"),
    ({"schema_sha256": "0" * 64}, "was taken under another schema"),
    ({"site": "site-02"}, "is of another site or dataset"), ({"dataset": "wine"}, "is of another site or dataset"),
])  # fmt: skip
def test_facts_that_do_not_fit_are_refused(site, own, facts, expected):
    changed(own, **facts)
    assert f"its snapshot of dataset 'small' {expected};" in refusal(site, own)


@pytest.mark.parametrize("text", ["", "[]", "null", '"x"', "{", "\xff"])
def test_facts_that_are_none_are_refused(site, own, text):
    (own / "frozen.json").write_bytes(text.encode("latin-1"))
    assert "is damaged: frozen.json cannot be read" in refusal(site, own)


def test_rows_of_another_schema_are_refused_also_where_the_facts_say_otherwise(site, own, tmp_path):
    table = site.inspect()[0]
    for spoilt in (table.rename(columns={"x1": "x3"}), table[["x2", "x1", *table.columns[:1], *table.columns[3:]]]):
        whole = snapshot._as_parquet(spoilt)
        digest = hashlib.sha256(whole).hexdigest()
        write_whole(own / f"rows-{digest[:16]}.parquet", whole)
        changed(own, file_sha256=digest, file=f"rows-{digest[:16]}.parquet", sha256=snapshot.rows_sha256(spoilt))
        assert "cannot be read as Parquet of its schema" in refusal(site, own)


def test_a_schema_that_changed_since_is_refused_also_while_it_is_served(site, own, tmp_path):
    served = load(site, own.parent)
    schema = tmp_path / "root" / "datasets" / "small" / "schema.toml"
    schema.write_text(schema.read_text().replace("range = [0, 100]", "range = [0, 101]"))
    assert "was taken under another schema" in refusal(site, own)
    with pytest.raises(UsageError, match="was taken under another schema"):
        served.read()


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o602, 0o620, 0o610, 0o601])
@pytest.mark.parametrize("name", ["frozen.json", "rows"])
def test_a_file_that_others_may_open_is_refused(site, own, name, mode):
    path = rows_file(own) if name == "rows" else own / name
    path.chmod(mode)
    assert refusal(site, own) == (
        f"{path}: other accounts may use it (mode {mode:04o}), and it concerns patients or customers; "
        f"find out who did, then: chmod 600 {path}"
    )
    path.chmod(0o600)
    assert load(site, own.parent).snapshot.rows == 60


@pytest.mark.parametrize("mode", [0o750, 0o705, 0o711])
def test_a_folder_that_others_may_enter_is_refused_and_freezing_closes_it(site, own, mode):
    own.chmod(mode)
    assert f"chmod 700 {own}" in refusal(site, own)
    with pytest.raises(UsageError, match="other accounts may use it"):
        read_facts(site, own.parent)
    freeze(site, own.parent, None)
    assert own.stat().st_mode & 0o777 == 0o700


def test_links_and_what_is_no_file_are_refused(site, own, tmp_path):
    path = rows_file(own)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert "cannot be read (Too many levels of symbolic links)" in refusal(site, own)
    path.unlink()
    assert "cannot be read (No such file or directory)" in refusal(site, own)
    os.mkfifo(path, 0o600)
    assert f"{path}: is no plain file" in refusal(site, own)
    path.unlink()
    path.mkdir(mode=0o700)
    assert "cannot be read (Is a directory)" in refusal(site, own)
    own.rename(tmp_path / "moved")
    own.symlink_to(tmp_path / "moved")
    assert f"{own}: this user cannot use it" in refusal(site, own)


def test_nothing_frozen_yet_is_said_with_the_command(site, tmp_path):
    command = "flfed site snapshot site-01 --dataset small"
    expected = f"site 'site-01': there is no snapshot yet of dataset 'small': {command}"
    assert read_facts(site, tmp_path) is None
    assert refusal(site, tmp_path / "small") == expected
    (tmp_path / "small").mkdir(mode=0o700)
    assert read_facts(site, tmp_path) is None
    assert refusal(site, tmp_path / "small") == expected


def test_a_full_disk_leaves_the_snapshot_before(site, own):
    before = load(site, own.parent)
    files = sorted(path.name for path in own.iterdir())
    larger = replace(site, source=Frame(site.source.table.sample(frac=1, random_state=0)))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    told = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(FlfedError, match=r"cannot be written \(File too large\); the earlier content remains"):
            freeze(larger, own.parent, None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, told)
    assert sorted(path.name for path in own.iterdir()) == files
    assert load(site, own.parent).snapshot == before.snapshot


def test_nobody_reads_while_one_writes_and_readers_do_not_wait_for_each_other(site, own):
    read: list[int] = []
    for writing, expected in ((True, []), (False, [60])):
        read.clear()
        thread = threading.Thread(target=lambda: read.append(load(site, own.parent).snapshot.rows))
        with folder_locked(own, writing=writing):
            thread.start()
            thread.join(0.5 if writing else 60)
            assert read == expected
        thread.join()
        assert read == [60]


FREEZING = """
import sys
from pathlib import Path
from flfed.rows.snapshots.snapshot import Prepared
from flfed.rows.data.site import Site
from flfed.rows.data.sources import Csv
folder = Path(sys.argv[1])
both = [Prepared.of(Site(name="site-01", dataset="small", source=Csv(path)), None) for path in sys.argv[2:]]
print("ready", flush=True)
while True:
    for prepared in both:
        prepared.write(folder)
"""


@pytest.mark.studies
def test_a_killed_freeze_leaves_one_of_the_two_whole(small_sites, tmp_path):
    paths, hashes = [], set()
    for number, site in enumerate(small_sites(2, rows=400)):
        paths.append(str(tmp_path / f"{number}.csv"))
        site.source.table.to_csv(paths[-1], index=False)
        hashes.add(snapshot.rows_sha256(site.inspect()[0]))
    site = small_sites(1)[0]
    for wait in (0.0, 0.013, 0.031, 0.052):
        command = [sys.executable, "-c", FREEZING, str(tmp_path / "frozen"), *paths]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None and child.stdout.readline() == b"ready\n"
            while read_facts(site, tmp_path / "frozen") is None:
                time.sleep(0.001)
            seen, looks, end = set[str](), 0, time.monotonic() + 60
            while (looks := looks + 1) <= 20 or (len(seen) < 2 and time.monotonic() < end):
                seen.add(load(site, tmp_path / "frozen").snapshot.sha256)  # beside a writer
            time.sleep(wait)
            child.kill()
        assert {load(site, tmp_path / "frozen").snapshot.sha256} | seen <= hashes
    assert len(seen) == 2
    last = freeze(site, tmp_path / "frozen", None)
    assert sorted(path.name for path in (tmp_path / "frozen" / "small").iterdir()) == sorted(
        ["frozen.json", last.file, last.origin.file]
    )
