"""Listing of the datasets: schema, source, places of files, and the check of downloads."""

from __future__ import annotations

import hashlib
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field as PydanticField

from flfed.errors import UsageError
from flfed.packages import check_package, import_file, is_strict, own_code, roots, unknown_name_error
from flfed.paths import NAME, home
from flfed.rows.data.schema import Schema, Strict, parse_settings, read_schema
from flfed.rows.data.sources import Folders
from flfed.words import flfed_error, render, usage_error

if TYPE_CHECKING:
    import pandas as pd

TABLE = "table.py"
"""File of a dataset with the code that reads its table."""
NAMED = 4
"""Largest number of files named in an error."""


class SourceFile(Strict):
    """One file of a dataset, with the hash and size that identify it.

    Attributes
    ----------
    name : str
        File name. Example: `name = "processed.va.data"`.
    sha256 : str
        Its hash, as 64 hexadecimal digits.
        Example: `sha256 = "e7c93d8d0d2acdadfa4c5e8de768e2191e7f618b952e29623f1f0d5949ff6b8f"`.
    bytes : int
        Its size. Example: `bytes = 6737`.
    url : str
        Address from which `flfed data get` fetches it, https only; empty where people bring it with `--from`.
        Example: `url = "https://example.org/processed.va.data"`.
    """

    name: str = PydanticField(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$")
    sha256: str = PydanticField(pattern=r"^[0-9a-f]{64}$")
    bytes: int
    url: str = ""


class SourceDescription(Strict):
    """Content of `source.toml`: licence, citation, files.

    Attributes
    ----------
    format : {1}
        Version of the file's format.
    licence : str
        Licence of the data. Example: `licence = "CC BY 4.0"`.
    citation : str
        Work to cite, with a DOI where there is one. Example: `citation = "Own records of the ward, 2024"`.
    homepage : str
        Address of the data's own page. Example: `homepage = "https://archive.ics.uci.edu/dataset/45/heart+disease"`.
    synthetic : bool
        Whether the rows are invented.
    embedded : bool
        Whether the rows come with the folder, or with a package that flfed needs.
    files : tuple of SourceFile
        A table `[[files]]` for each file that is fetched.
        Example: `files = []`.
    files_of : str
        Name of the dataset whose files these are, where two schemas describe the same files. They are fetched
        once for both. Example: `files-of = "heart-disease"`.
    """

    format: Literal[1] = 1
    licence: str
    citation: str
    homepage: str = ""
    synthetic: bool = False
    embedded: bool = False
    files: tuple[SourceFile, ...] = ()
    files_of: str = ""


@dataclass(frozen=True)
class Dataset:
    """A dataset: its folder, its schema and its source.

    Attributes
    ----------
    name : str
    folder : Path
    schema : Schema
    source : SourceDescription
    """

    name: str
    folder: Path
    schema: Schema
    source: SourceDescription

    def downloads(self) -> Path:
        """Return the folder of its downloads."""
        return home() / "data" / (self.source.files_of or self.name)

    def folders(self, site: Path | None = None) -> Folders:
        """Return the folders of its files: a site's, then its own, then its downloads."""
        return tuple(filter(None, (site, self.folder, self.downloads())))

    def absent(self) -> list[SourceFile]:
        """Return the files that are not on this machine yet."""
        absent = []
        for file in self.source.files:
            if not any((folder / file.name).is_file() for folder in self.folders()):
                absent.append(file)
        return absent

    @property
    def has_table(self) -> bool:
        """Whether it has one table, which a study may cut by `partition`."""
        return (self.folder / TABLE).is_file()

    def whole_table(self) -> pd.DataFrame:
        """Return what `read(folder)` of the dataset's `table.py` makes of its files, before mapping.

        Raises UsageError where there is no such code, a file is still to be fetched, or this process serves or runs a
        consortium, where no code of a dataset runs.
        """
        if not self.has_table:
            raise UsageError(f"dataset {self.name!r} is not one table: a study on it uses its sites, not a partition")
        if is_strict():
            raise UsageError(f"dataset {self.name!r}: its {TABLE} runs in no process that serves or runs a consortium")
        if absent := self.absent():
            raise usage_error("rows.dataset.absent", name=self.name, file=absent[0].name)
        names = [file.name for file in self.source.files]
        whole = [folder for folder in self.folders() if all((folder / name).is_file() for name in names)]
        if not whole:
            raise UsageError(f"dataset {self.name!r}: its files must be in one folder, such as {self.downloads()}")
        with own_code(f"dataset {self.name!r}"):
            table: pd.DataFrame = import_file(self.folder / TABLE, f"_flfed_datasets.{self.name}").read(whole[0])
        import pandas as pd

        if not isinstance(table, pd.DataFrame):
            raise UsageError(f"dataset {self.name!r}: read of its {TABLE} must return a DataFrame")
        return table


def names() -> list[str]:
    """Return the sorted names of all datasets."""
    dataset_names = set[str]()
    for root in roots():
        dataset_names.update(path.parent.name for path in root.glob("datasets/*/schema.toml"))
    return sorted(dataset_names)


def load(name: str) -> Dataset:
    """Return the dataset of this name.

    Raises
    ------
    UsageError
        If there is none, its files break a rule, or `check_package` refuses it.
    """
    # A name is looked up only as the name of a folder.
    places = roots() if NAME.fullmatch(name) else ()
    for root in places:
        folder = root / "datasets" / name
        path = folder / "schema.toml"
        if path.is_file():
            check_package(folder)
            schema = read_schema(path)
            if schema.name != name:
                raise usage_error("rows.dataset.name", path=path, name=schema.name, folder=name)
            return Dataset(name, folder, schema, _source(folder / "source.toml"))
    raise unknown_name_error("dataset", name, names())


def _source(path: Path) -> SourceDescription:
    """Read a `source.toml`, with the files and hashes of the dataset that `files-of` names."""
    source = parse_settings(SourceDescription, path)
    if not source.files_of:
        return source
    if source.files:
        raise usage_error("rows.dataset.both", path=path)
    if source.files_of not in names():
        raise usage_error("rows.dataset.unknown", path=path, name=source.files_of)
    folders = (root / "datasets" / source.files_of for root in roots())
    folder = next(folder for folder in folders if (folder / "schema.toml").is_file())
    check_package(folder)
    # Not followed further: two datasets that name each other would never end.
    other = parse_settings(SourceDescription, folder / "source.toml")
    if other.files_of or other.embedded or not other.files:
        raise usage_error("rows.dataset.fileless", path=path, name=source.files_of)
    return source.model_copy(update={"files": other.files})


def get(dataset: Dataset, *, from_folder: Path | None = None, progress: Callable[[str], None] = print) -> list[Path]:
    """Fetch a dataset's files, check their hashes, and return their paths.

    Parameters
    ----------
    dataset : Dataset
    from_folder : Path, optional
        Take the files from this folder and its sub-folders instead of the internet. Files are
        identified by hash, whatever their names.
    progress : callable
        Receives one line for each file.

    Raises
    ------
    FlfedError
        If a file cannot be fetched, or its hash is another; nothing is replaced.
    """
    target = dataset.downloads()
    target.mkdir(parents=True, exist_ok=True)
    local = _by_hash(from_folder, dataset) if from_folder else {}
    done = []
    for file in dataset.source.files:
        # A file in any of the folders is not fetched again.
        here = _here(dataset, file)
        if here is None:
            _place(dataset, file, local, from_folder)
        state = "already here, " if here else ""
        progress(render("rows.dataset.checked", file=file.name, state=state, bytes=file.bytes))
        done.append(here or target / file.name)
    return done


def _here(dataset: Dataset, file: SourceFile) -> Path | None:
    """Return the path of a file with the right hash in the dataset's folders, or None."""
    return next((f / file.name for f in dataset.folders() if _is_right(f / file.name, file)), None)


def _place(dataset: Dataset, file: SourceFile, local: dict[str, Path], from_folder: Path | None) -> None:
    """Place one file, whole and checked, among the dataset's downloads."""
    path = dataset.downloads() / file.name
    part = path.with_name(path.name + ".part")
    if from_folder is not None:
        if file.sha256 not in local:
            raise usage_error("rows.dataset.missing", file=file.name, folder=from_folder)
        shutil.copyfile(local[file.sha256], part)
    else:
        _download(dataset, file, part)
    # Only a file with the right hash gets its final name.
    if not _is_right(part, file):
        part.unlink()
        raise usage_error("rows.dataset.hash", file=file.name)
    part.replace(path)


def _download(dataset: Dataset, file: SourceFile, part: Path) -> None:
    if not file.url.startswith("https://"):
        raise usage_error("rows.dataset.address", file=file.name, name=dataset.name)
    try:
        with urllib.request.urlopen(file.url, timeout=60) as answer, part.open("wb") as out:
            shutil.copyfileobj(answer, out)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        part.unlink(missing_ok=True)
        kind = type(error).__name__
        missing = _still_to_come(dataset)
        raise flfed_error(
            "rows.dataset.unfetched", file=file.name, url=file.url, error=kind, name=dataset.name, files=missing
        ) from None


def _still_to_come(dataset: Dataset) -> str:
    """Name the files that a folder must hold: up to four, or the first three of more."""
    names = [file.name for file in dataset.source.files if _here(dataset, file) is None]
    if len(names) > NAMED:
        more = len(names) - NAMED + 1
        names = [*names[: NAMED - 1], f"{more} more"]
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def _is_right(path: Path, file: SourceFile) -> bool:
    return path.is_file() and path.stat().st_size == file.bytes and _sha256(path) == file.sha256


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _by_hash(folder: Path, dataset: Dataset) -> dict[str, Path]:
    if not folder.is_dir():
        raise usage_error("rows.dataset.folder", folder=folder)
    sizes = {file.bytes for file in dataset.source.files}
    return {_sha256(p): p for p in sorted(folder.rglob("*")) if p.is_file() and p.stat().st_size in sizes}
