"""Files whose bytes are spoiled at random are refused or read: no other end, and no cell in what is said."""

import gzip
import random
from pathlib import Path

import pytest

from flfed.errors import FlfedError
from flfed.rows.data.holdout import Holdout
from flfed.rows.data.site import Policy, Site
from flfed.rows.data.sources import Csv, Parquet
from flfed.rows.data.table_check import check_site
from tests.damage.files import zipped
from tests.damage.tables import as_parquet, typed, write_dataset
from tests.test_every_damage import SECRET, SOUND

SIGNS = (b",", b'"', b"\n", b"\r", b"\0", b"\x1a", b"\xff", b";", b"\t", b"E+", b".", b"-", b" ", b"#", b"<", b"{")
FILES = {
    "rows.csv": SOUND.encode(), "rows.csv.gz": gzip.compress(SOUND.encode(), mtime=0),
    "rows.zip": zipped("rows.csv")(SOUND), "rows.parquet": as_parquet(typed(SOUND)),
    "plain.parquet": as_parquet(typed(SOUND), compression=None),  # a spoiled byte is one of a cell
}  # fmt: skip


def spoiled(data: bytes, chance: random.Random) -> bytes:
    """Return bytes with something put in, taken out, changed, cut, doubled or replaced throughout."""
    place, sign = chance.randrange(len(data)), chance.choice(SIGNS)
    way = chance.randrange(12)
    if way < 2:
        return data[:place] + sign + data[place:]
    if way < 4:
        return data[:place] + data[place + chance.choice((1, 2, 10, 200)) :]
    if way < 7:
        return data[:place] + bytes([chance.randrange(256)]) + data[place + 1 :]
    if way < 8:
        return data[:place]
    if way < 10:
        return data[:place] + data[max(0, place - chance.randrange(300)) :]
    return data.replace(chance.choice((b",", b"-", b"male", b".", b"\n")), sign, chance.choice((1, 3, -1)))


@pytest.mark.studies
@pytest.mark.parametrize("name", FILES)
def test_spoiled_bytes_end_in_a_sentence_without_a_cell_or_in_a_table(tmp_path: Path, monkeypatch, name):
    write_dataset(tmp_path)
    monkeypatch.setenv("FLFED_PATH", str(tmp_path))
    chance, said, ends = random.Random(f"spoiled {name}"), [], []
    file = tmp_path / name
    for _ in range(120):
        data = FILES[name]
        for _ in range(chance.choice((1, 1, 2, 6))):
            data = spoiled(data, chance) if data else data
        file.write_bytes(data)
        source = Parquet(str(file)) if name.endswith("parquet") else Csv(str(file))
        site = Site("clinic-a", "clinic", source, holdout=Holdout(salt="clinic-a"), policy=Policy(disclosure="open"))
        try:
            checked = check_site(site)
        except FlfedError as error:
            ends.append("refused")
            said.append(str(error))
        else:
            ends.append("passed" if checked.passed else "failed")
            said += [line.detail for line in checked.lines]
    assert {cell for cell in SECRET for text in said if cell in text} == set()
    assert ends.count("refused") + ends.count("failed") >= 40, ends
