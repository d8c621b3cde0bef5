"""How a dataset's files come here: whole and checked, or not at all."""

from __future__ import annotations

import hashlib
import re
import urllib.error
from pathlib import Path

import pytest

from flfed.errors import FlfedError, UsageError
from flfed.packages import strictly
from flfed.rows.data import datasets

CONTENT = b"age,y\n50,no\n"


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> datasets.Dataset:
    """A dataset whose one file is not here."""
    folder = tmp_path / "root" / "datasets" / "remote"
    folder.mkdir(parents=True)
    (folder / "schema.toml").write_text(
        'format = 1\nname = "remote"\ntask = "binary"\ntarget = "y"\n'
        '[columns.age]\nkind = "number"\nrange = [0, 120]\n[columns.y]\nkind = "target"\nvalues = ["no", "yes"]\n'
    )
    digest = hashlib.sha256(CONTENT).hexdigest()
    (folder / "source.toml").write_text(
        f'licence = "none"\ncitation = "none"\n[[files]]\nname = "t.csv"\nsha256 = "{digest}"\nbytes = {len(CONTENT)}\n'
    )
    monkeypatch.setenv("FLFED_PATH", str(tmp_path / "root"))
    return datasets.load("remote")


def test_files_are_found_by_hash_in_any_sub_folder_under_any_name(remote, tmp_path, home):
    deep = tmp_path / "given" / "a" / "b"
    deep.mkdir(parents=True)
    (deep / "renamed.bin").write_bytes(CONTENT)
    (tmp_path / "given" / "t.csv").write_bytes(CONTENT.replace(b"50", b"51"))
    lines: list[str] = []
    assert [file.name for file in remote.absent()] == ["t.csv"]
    (path,) = datasets.get(remote, from_folder=tmp_path / "given", progress=lines.append)
    assert path == home / "data" / "remote" / "t.csv"
    assert path.read_bytes() == CONTENT
    assert lines == ["t.csv: 12 bytes, checked"]
    assert remote.absent() == []


def test_a_file_that_is_here_and_right_is_not_fetched_again(remote, tmp_path, home):
    place = home / "data" / "remote"
    place.mkdir(parents=True)
    (place / "t.csv").write_bytes(CONTENT)
    (tmp_path / "empty").mkdir()
    lines: list[str] = []
    assert datasets.get(remote, from_folder=tmp_path / "empty", progress=lines.append) == [place / "t.csv"]
    assert lines == ["t.csv: already here, 12 bytes, checked"]  # nobody thinks that the folder given was read


def test_a_wrong_file_is_not_taken_and_what_is_here_stays(remote, tmp_path, home):
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "t.csv").write_bytes(CONTENT.replace(b"50", b"51"))
    with pytest.raises(UsageError, match=r"t.csv: no file with its SHA-256 in"):
        datasets.get(remote, from_folder=tmp_path / "given", progress=lambda line: None)
    assert list((home / "data" / "remote").iterdir()) == []
    with pytest.raises(UsageError, match="there is no such folder"):
        datasets.get(remote, from_folder=tmp_path / "nix", progress=lambda line: None)


def test_without_an_address_a_file_is_asked_for_by_folder(remote):
    with pytest.raises(
        UsageError, match="has no public address. datasets/.*/README.md says where it is; then use --from FOLDER"
    ):
        datasets.get(remote, progress=lambda line: None)


@pytest.mark.parametrize(
    ("here", "files", "named"),
    [((), 1, "t0"), ((), 4, "t0, t1, t2 and t3"), ((), 5, "t0, t1, t2 and 2 more"), (("t0",), 3, "t1 and t2")],
)
def test_without_internet_the_files_that_a_folder_must_hold_are_named(remote, home, monkeypatch, here, files, named):
    def no_internet(*_: object, **__: object) -> None:
        raise urllib.error.URLError("name resolution failed")

    monkeypatch.setattr("urllib.request.urlopen", no_internet)
    digest = hashlib.sha256(CONTENT).hexdigest()
    (remote.folder / "source.toml").write_text(
        'licence = "none"\ncitation = "none"\n'
        + "".join(
            f'[[files]]\nname = "t{n}"\nsha256 = "{digest}"\nbytes = {len(CONTENT)}\nurl = "https://a.example/t{n}"\n'
            for n in range(files)
        )
    )
    for name in here:
        (remote.folder / name).write_bytes(CONTENT)
    says = f"flfed data get remote --from FOLDER, a folder that holds {re.escape(named)}$"
    with pytest.raises(FlfedError, match=says):
        datasets.get(datasets.load("remote"), progress=lambda line: None)


def test_the_heart_files_are_taken_from_a_folder(heart):
    assert heart.absent() == []
    assert len(heart.source.files) == 4


def test_an_unknown_dataset_is_answered_with_the_nearest(remote):
    with pytest.raises(UsageError, match="did you mean 'remote'"):
        datasets.load("remot")
    assert {"remote", "wine", "heart-disease"} <= set(datasets.names())


def test_a_folder_and_its_schema_must_agree_on_the_name(remote):
    remote.folder.rename(remote.folder.with_name("other"))
    with pytest.raises(UsageError, match="name='remote' must be the folder's, 'other'"):
        datasets.load("other")


@pytest.mark.parametrize(("old", "new", "says"), [
    ('name = "t.csv"', 'name = "../t.csv"', "files value 1.name='../t.csv' must be a file's name, without a folder"),
    ('sha256 = "', 'sha256 = "x', " must be 64 digits of 0-9 and a-f"),
    ("bytes =", "byte =", "files value 1.byte: this key is not known; did you mean 'bytes'?"),
    ('citation = "none"', "", "source.toml: citation is missing"),
])  # fmt: skip
def test_what_is_wrong_in_a_source_is_told_in_a_sentence(remote, old, new, says):
    source = remote.folder / "source.toml"
    source.write_text(source.read_text().replace(old, new))
    with pytest.raises(UsageError) as error:
        datasets.load("remote")
    assert says in str(error.value)


def test_a_dataset_of_several_sites_has_no_table_to_cut(remote):
    with pytest.raises(UsageError, match="is not one table"):
        remote.whole_table()


def test_tables_that_ship_with_scikit_learn_are_in_their_own_units():
    # Published: 442 patients, ages 19 to 79; 178 wines, 59 / 71 / 48 of the three cultivars.
    diabetes = datasets.load("diabetes").whole_table()
    assert (len(diabetes), diabetes["age"].min(), diabetes["age"].max()) == (442, 19, 79)
    wine = datasets.load("wine").whole_table()
    assert wine["cultivar"].value_counts().to_dict() == {"grignolino": 71, "barolo": 59, "barbera": 48}


READ = """
from pathlib import Path

import pandas as pd

Path(__file__).with_name("was-imported").touch()


def read(folder):
    return pd.read_csv(folder / "t.csv", dtype=str)
"""


def fetched(remote, folder: Path) -> datasets.Dataset:
    (folder / "here").mkdir()
    (folder / "here" / "any-name").write_bytes(CONTENT)
    datasets.get(datasets.load("remote"), from_folder=folder / "here", progress=lambda line: None)
    return datasets.load("remote")


def test_code_of_the_dataset_reads_its_table_once_its_files_are_here(remote, tmp_path):
    (remote.folder / "table.py").write_text(READ)
    with pytest.raises(UsageError, match=r"dataset 'remote' is not here yet \(t.csv\): flfed data get remote"):
        datasets.load("remote").whole_table()
    assert fetched(remote, tmp_path).whole_table().to_dict("list") == {"age": ["50"], "y": ["no"]}


def test_no_code_of_a_dataset_is_imported_where_a_consortium_is_served_or_run(remote, tmp_path, monkeypatch):
    (remote.folder / "table.py").write_text(READ)
    monkeypatch.setenv("FLFED_PATH", str(remote.folder.parents[1]))
    found = fetched(remote, tmp_path)
    with (
        strictly(),
        pytest.raises(UsageError, match="its table.py runs in no process that serves or runs a consortium"),
    ):
        datasets.load("remote").whole_table()
    assert not (remote.folder / "was-imported").exists()
    # The schema alone is what a coordinator or a joined site takes from it.
    with strictly():
        assert datasets.load("remote").schema.name == "remote"
    assert len(found.whole_table()) == 1 and (remote.folder / "was-imported").exists()


def test_an_error_of_a_dataset_s_code_is_its_type_file_and_line(remote, tmp_path):
    text = "def read(folder):\n    cell = (folder / 't.csv').read_text().split()[1]\n    raise RuntimeError(cell)\n"
    (remote.folder / "table.py").write_text(text)
    with pytest.raises(UsageError) as refused:
        fetched(remote, tmp_path).whole_table()
    assert str(refused.value) == "dataset 'remote': its code failed (RuntimeError in line 3 of table.py)"
    assert refused.value.__cause__ is None and refused.value.__suppress_context__


def test_a_table_that_is_no_data_frame_and_files_of_two_folders_are_refused(remote, tmp_path):
    (remote.folder / "table.py").write_text("def read(folder):\n    return [1]\n")
    with pytest.raises(UsageError, match="read of its table.py must return a DataFrame"):
        fetched(remote, tmp_path).whole_table()
    # One file is among the downloads, the other in the dataset's own folder.
    with (remote.folder / "source.toml").open("a") as stream:
        stream.write(f'[[files]]\nname = "u.csv"\nsha256 = "{"0" * 64}"\nbytes = 1\n')
    (remote.folder / "u.csv").write_bytes(b"u")
    with pytest.raises(UsageError, match="its files must be in one folder, such as "):
        datasets.load("remote").whole_table()
