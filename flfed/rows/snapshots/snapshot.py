"""Snapshots of a site's rows.

They are mapped and checked once, stored privately, and served instead of the source. A study is approved for
these rows: the database may change meanwhile, but the rows that are served change only with a person's new snapshot.
"""

from __future__ import annotations

import datetime
import hashlib
import inspect
import json
from collections.abc import Collection
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import TypeAdapter

from flfed.callbacks import now_utc
from flfed.errors import TableError, UsageError
from flfed.files import folder_locked, read_private, write_whole
from flfed.rows.data import datasets
from flfed.rows.data.holdout import row_texts
from flfed.rows.data.mapping import empty_cells
from flfed.rows.data.origin import Origin, SourceRows, as_rows, source_rows
from flfed.rows.data.parsing.cells import table_of
from flfed.rows.data.parsing.fields import Finding
from flfed.rows.data.sampling import sample_in_words
from flfed.rows.data.schema import Schema
from flfed.rows.data.site import Site
from flfed.rows.data.sources import Part
from flfed.rows.snapshots.opt_outs import Excluded, Exclusion, Resting
from flfed.words import flfed_error, render, usage_error

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

FACTS = "frozen.json"
"""File with a snapshot's facts and the name of its file: replaced last, so that there is always a whole one."""


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """Facts about a snapshot, read without any row.

    Attributes
    ----------
    site, dataset : str
    rows : int
    sha256 : str
        Of the canonical rows: independent of their order and of Parquet's encoding.
    schema_sha256 : str
    at : str
        Time of the snapshot, in UTC, as ISO 8601.
    excluded : Exclusion or None
        Effect of the list of people who opted out; None where there is none.
    resting : Resting or None
        Rows withheld with those of people who opted out; None where there are none.
    file, file_sha256 : str
        The Parquet file beside it, and the hash of its bytes.
    prepare, prepare_sha256 : str
        Name of the package's function that made the table, and the hash of its text; empty without.
    code_sha256 : str
        Of the package's Python files; empty where the site has no folder.
    code_at : str
        Time of the first snapshot by this code, as `at`.
    origin : Origin or None
        Hashes that do not depend on the dataset's name; None where the site's package has
        code of its own.
    withheld_sha256 : str
        Hash of the file of the withheld rows, which an analysis under noise counts too; empty without.
    sample, keep
        Share of the source's rows or persons that these are, and the outcome all of whose rows are there, as `Source`
        has them.
    """

    site: str
    dataset: str
    rows: int
    sha256: str
    schema_sha256: str
    at: str
    excluded: Exclusion | None
    file: str
    file_sha256: str
    prepare: str = ""
    prepare_sha256: str = ""
    code_sha256: str = ""
    code_at: str = ""
    resting: Resting | None = None
    origin: Origin | None = None
    withheld_sha256: str = ""
    sample: float = 1.0
    keep: tuple[str, str] | None = None

    @property
    def of_sample(self) -> str:
        """What the rows are a sample of, as a sentence that follows others; "" where they are all rows."""
        return f" They are a {sample_in_words(self.sample, self.keep)}." if self.sample < 1 else ""

    def as_json(self) -> dict[str, Any]:
        """Return the facts under their names in `frozen.json`."""
        facts = {name.replace("_", "-"): value for name, value in asdict(self).items()}
        return {"format": 1, **facts}

    @classmethod
    def from_json(cls, record: Any) -> Frozen:
        """Parse `frozen.json`, or raise KeyError, TypeError or ValueError."""
        facts = {one.name: record[one.name.replace("_", "-")] for one in fields(cls)}
        frozen = _READER.validate_json(json.dumps(facts), strict=True)
        if record["format"] != 1 or frozen.file != _file_name(frozen.file_sha256):
            raise ValueError
        return frozen


_READER = TypeAdapter(Frozen)


@dataclass(frozen=True, eq=False)
class Prepared:
    """A site's current rows, mapped and checked, without opt-outs.

    Attributes
    ----------
    site : Site
    table : DataFrame
        In the source's order, as published splits count.
    schema : Schema
    excluded : Exclusion or None
    resting : Resting or None
    source : SourceRows or None
        The rows as the source has them.
    withheld : DataFrame or None
        The withheld rows.
    """

    site: Site
    table: pd.DataFrame
    schema: Schema
    excluded: Exclusion | None
    resting: Resting | None = None
    source: SourceRows | None = None
    withheld: pd.DataFrame | None = None

    @classmethod
    def of(cls, site: Site, excluded: Excluded | None) -> Prepared:
        """Read a site's table; raise as `Site.inspect` does, and for the first rule that the table breaks."""
        if excluded is not None and site.source.prepare is not None and site.source.sample < 1:
            raise UsageError(
                f"site {site.name!r}: prepare, sample and people who opted out do not go together: leave them out in "
                "what the source reads"
            )
        whole = as_rows(site)
        served, counted = (whole, None) if excluded is None else excluded.applied(whole)
        table, findings, schema = served.inspect()
        if findings:
            raise findings[0].error()
        _refuse_other_than_text(table)
        return cls(site, table, schema, counted, source=source_rows(site, whole, served, table, schema))

    def without(self, rest: np.ndarray) -> Prepared:
        """Return the rows outside `rest`, a bool array [rows] of whole persons."""
        if not rest.any():
            return self
        group = self.schema.group
        rows = int(rest.sum())
        persons = int(self.table[group][rest].nunique()) if group else rows
        source = None if self.source is None else self.source.take(~rest)
        table, withheld = (self.table[rows].reset_index(drop=True) for rows in (~rest, rest))
        return replace(self, table=table, resting=Resting(persons, rows), source=source, withheld=withheld)

    def sha256(self) -> str:
        """Return the hash of the canonical rows."""
        return rows_sha256(self.table)

    def is_made_as(self, before: Frozen) -> bool:
        """Return whether a snapshot is of a sample as these rows are, and by the same function of the same code."""
        source = self.site.source
        if (before.sample, before.keep) != (source.sample, source.keep):
            return False
        function = source.prepare.__qualname__ if source.prepare else ""
        return before.prepare == function and (not function or before.code_sha256 == code_sha256(self.site))

    def _code(self, folder: Path, at: str) -> dict[str, str]:
        """Return the facts about the package's code."""
        function = self.site.source.prepare
        code = {"prepare": "", "prepare_sha256": "", "code_sha256": code_sha256(self.site)}
        if function:
            text = inspect.getsource(function).encode()
            code |= {"prepare": function.__qualname__, "prepare_sha256": _sha256(text)}
        with suppress(UsageError):  # a damaged snapshot is replaced
            before = read_facts(self.site, folder)
            if before is not None and before.code_sha256 == code["code_sha256"]:
                at = before.code_at
        return {**code, "code_at": at}

    def write(self, folder: Path, at: datetime.datetime | None = None) -> Frozen:
        """Write the rows, replacing the old snapshot last."""
        whole = _as_parquet(self.table)
        withheld = b"" if self.withheld is None else _as_parquet(self.withheld)
        moment = (at or now_utc()).astimezone(datetime.UTC).isoformat(timespec="seconds")
        file_sha256 = _sha256(whole)
        origin = None if self.source is None else self.source.origin
        frozen = Frozen(
            site=self.site.name, dataset=self.site.dataset, rows=len(self.table), sha256=self.sha256(),
            schema_sha256=self.schema.sha256(), at=moment,
            excluded=self.excluded, resting=self.resting, **self._code(folder, moment),
            file=_file_name(file_sha256), file_sha256=file_sha256,
            origin=origin, withheld_sha256=_sha256(withheld),
            sample=self.site.source.sample, keep=self.site.source.keep,
        )  # fmt: skip
        # Read back before anything is replaced: Parquet must not change any cell.
        if rows_sha256(_from_parquet(whole, self.schema)) != frozen.sha256:
            raise flfed_error("rows.snapshot.parquet", site=self.site.name)
        own = folder / self.site.dataset
        files = {frozen.file: whole}
        if withheld:
            files[_withheld_file(frozen)] = withheld
        if self.source is not None:
            files[self.source.origin.file] = self.source.digests.tobytes()
        # The facts are written last: until then the snapshot before is served.
        files[FACTS] = json.dumps(frozen.as_json(), indent=2).encode()
        with folder_locked(own, writing=True):
            for name, content in files.items():
                write_whole(own / name, content)
            _remove_others(own, files)
        return frozen


def code_sha256(site: Site) -> str:
    """Return the hash of the Python files of a site's package, "" where it has no folder."""
    if site.folder is None:
        return ""
    digest = hashlib.sha256()
    for path in sorted(site.folder.rglob("*.py")):
        digest.update(f"{path.relative_to(site.folder)}\x1e{path.stat().st_size}\x1e".encode() + path.read_bytes())
    return digest.hexdigest()


def _remove_others(folder: Path, names: Collection[str]) -> None:
    """Remove the files of the snapshot before, or the remains of one after a crash."""
    for path in folder.iterdir():
        if path.name not in names and not path.is_dir():
            path.unlink()


def freeze(site: Site, folder: Path, excluded: Excluded | None, *, at: datetime.datetime | None = None) -> Frozen:
    """Take a snapshot of a site's mapped and checked rows for serving.

    Parameters
    ----------
    site : Site
        As it serves the dataset: `site.serving(dataset)`.
    folder : Path
        Of all snapshots of the site, `SiteFolder.frozen`; each dataset has a folder of its own in it.
    excluded : Excluded or None
        People who opted out: their rows are removed first.
    at : datetime, optional
        Now; tests pass their own.

    Raises
    ------
    UsageError, TableError
        As `Site.inspect`, and for the first rule that the table breaks; the snapshot before is kept.
    FlfedError
        If it cannot be written; the snapshot before is kept.

    Guarantee: folder and files are for their owner alone. After a crash at any moment the snapshot
    before or the new one is there, whole.
    """
    return Prepared.of(site, excluded).write(folder, at)


def read_facts(site: Site, folder: Path) -> Frozen | None:
    """Return a snapshot's facts, or None where there is no snapshot.

    Raises
    ------
    UsageError
        If others may read them, or their file is damaged.
    """
    own = folder / site.dataset
    if not own.is_dir():
        return None
    with folder_locked(own, writing=False):
        return _facts(site, own)


@dataclass(frozen=True, kw_only=True)
class FrozenSite(Site):
    """A site served from a snapshot, without its source.

    Attributes
    ----------
    snapshot : Frozen
        Facts about the rows.
    source_rows : SourceRows or None
        The same rows, in the same order, as the source had them.
    withheld : DataFrame or None
        The withheld rows, so that exact sums do not differ by few people.
    """

    snapshot: Frozen
    source_rows: SourceRows | None = field(default=None, repr=False, compare=False)
    withheld: pd.DataFrame | None = field(default=None, repr=False, compare=False)

    def with_withheld(self) -> FrozenSite:
        """Return the site with its withheld rows.

        Noise that hides each person makes withholding needless: nine others would leave the sum with the one who
        opted out.
        """
        import pandas as pd

        if self.withheld is None:
            return self
        served, _, _ = self.inspect()
        whole = pd.concat([served, self.withheld], ignore_index=True)
        return replace(self, source=self.source.in_memory(whole), source_rows=None, withheld=None)

    def inspect(self) -> tuple[pd.DataFrame, list[Finding], Schema]:
        """Return the snapshot's rows in source order, without findings."""
        table, findings, schema = super().inspect()
        if schema.sha256() != self.snapshot.schema_sha256:
            raise _refused(self, render("rows.unserved.schema"))
        return table, findings, schema


def load(site: Site, folder: Path) -> FrozenSite:
    """Return the site, served from its snapshot.

    Parameters
    ----------
    site : Site
        As it serves the dataset. Only its settings are used: name, holdout, policy.
    folder : Path
        As `freeze` takes it.

    Raises
    ------
    UsageError
        If there is no snapshot yet; if it is damaged, cut short, another site's or another
        schema's; or if others than its owner may read it.
    """
    own = folder / site.dataset
    schema = datasets.load(site.dataset).schema
    if not own.is_dir():
        raise _nothing(site)
    with folder_locked(own, writing=False):
        frozen = _facts(site, own)
        if frozen is None:
            raise _nothing(site)
        if frozen.schema_sha256 != schema.sha256():
            raise _refused(site, render("rows.unserved.schema"))
        origin = frozen.origin
        rows = None
        withheld_bytes = b""
        try:
            whole = read_private(own / frozen.file, rows=True)
            if origin is not None:
                rows = SourceRows.of_file(origin, read_private(own / origin.file, rows=True))
            if frozen.withheld_sha256:
                withheld_bytes = read_private(own / _withheld_file(frozen), rows=True)
        except OSError as error:
            raise _refused(site, render("rows.unserved.unreadable", reason=error.strerror)) from None
    table, withheld = _tables(site, frozen, schema, whole, withheld_bytes)
    if rows is not None and len(rows.digests) != len(table):
        raise _refused(site, render("rows.unserved.hashes"))
    # The snapshot has the schema's columns: nothing is left to map.
    settings = {one.name: getattr(site, one.name) for one in fields(Site)}
    settings |= {"source": Part(table, sample=frozen.sample, keep=frozen.keep), "mapping": {}, "also": {}}
    return FrozenSite(**settings, snapshot=frozen, source_rows=rows, withheld=withheld)


def _tables(
    site: Site, frozen: Frozen, schema: Schema, whole: bytes, withheld_bytes: bytes
) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Return the served and the withheld rows, or refuse files that are not those that were written."""
    import pyarrow as pa

    if (_sha256(whole), _sha256(withheld_bytes)) != (frozen.file_sha256, frozen.withheld_sha256):
        raise _refused(site, render("rows.unserved.file"))
    try:
        table = _from_parquet(whole, schema)
        withheld = _from_parquet(withheld_bytes, schema) if withheld_bytes else None
    except (pa.ArrowException, OSError, ValueError):
        raise _refused(site, render("rows.unserved.parquet")) from None
    if len(table) != frozen.rows or rows_sha256(table) != frozen.sha256:
        raise _refused(site, render("rows.unserved.rows"))
    return table, withheld


def _facts(site: Site, own: Path) -> Frozen | None:
    try:
        frozen = Frozen.from_json(json.loads(read_private(own / FACTS, rows=True)))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _refused(site, render("rows.unserved.unreadable", reason=error.strerror)) from None
    except (AttributeError, KeyError, TypeError, ValueError):
        raise _refused(site, render("rows.unserved.facts", file=FACTS)) from None
    if (frozen.site, frozen.dataset) != (site.name, site.dataset):
        raise _refused(site, render("rows.unserved.site"))
    return frozen


def _nothing(site: Site) -> UsageError:
    return usage_error("rows.snapshot.none", site=site.name, dataset=site.dataset)


def _refused(site: Site, why: str) -> UsageError:
    return usage_error("rows.snapshot.unserved", site=site.name, dataset=site.dataset, reason=why)


def _sha256(content: bytes) -> str:
    """Return the hash of a file, "" for none."""
    return hashlib.sha256(content).hexdigest() if content else ""


def _file_name(file_sha256: str) -> str:
    return f"rows-{file_sha256[:16]}.parquet"


def _withheld_file(frozen: Frozen) -> str:
    return f"withheld-{frozen.withheld_sha256[:16]}.parquet"


def rows_sha256(table: pd.DataFrame) -> str:
    """Return the hash of a mapped table, independent of the order of its rows."""
    digest = hashlib.sha256(json.dumps(list(table.columns)).encode())
    for text in sorted(row_texts(table)):
        digest.update(b"\x1e" + text.encode())
    return digest.hexdigest()


def _as_parquet(table: pd.DataFrame) -> bytes:
    """Write a table as Parquet bytes, with NaN distinct from null."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {}
    for name, cells in table.items():
        columns[str(name)] = pa.array(cells.to_numpy(), type=_types()[cells.dtype.kind], from_pandas=False)
    out = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), out, compression="zstd", write_statistics=False)
    return bytes(out.getvalue())


def _types() -> dict[str, pa.DataType]:
    """Return Parquet's type of each of NumPy's kind letters."""
    import pyarrow as pa

    return {"f": pa.float64(), "M": pa.timestamp("ns"), "O": pa.large_string()}


def _refuse_other_than_text(table: pd.DataFrame) -> None:
    """Refuse cells that Parquet would not return unchanged."""
    # A mapping may give anything to an id's column, and no codec preserves all text.
    for name, cells in table.items():
        if cells.dtype.kind == "O" and (bad := sum(cell is not None and not _is_text(cell) for cell in cells)):
            raise TableError(str(name), "has values that are no text (see its mapping)", bad)


def _is_text(cell: object) -> bool:
    return isinstance(cell, str) and (cell.isascii() or cell.encode("utf-8", "replace").decode() == cell)


def _from_parquet(whole: bytes, schema: Schema) -> pd.DataFrame:
    """Read a mapped table from Parquet; ValueError for another schema."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(pa.BufferReader(whole), use_threads=False)
    types = _types()
    kinds = {name: empty_cells(column, 0).dtype.kind for name, column in schema.columns.items()}
    if [(field.name, field.type) for field in table.schema] != [(name, types[kind]) for name, kind in kinds.items()]:
        raise ValueError("another schema")
    return table_of({name: _cells(table.column(name), kind) for name, kind in kinds.items()})


def _cells(column: pa.ChunkedArray, kind: str) -> np.ndarray:
    if kind != "O":
        return np.asarray(column.to_numpy())
    words = column.combine_chunks().dictionary_encode()
    # Each text once, as from the mapping.
    values = np.array([*words.dictionary.to_pylist(), None], dtype=object)
    return np.asarray(values[words.indices.fill_null(len(values) - 1).to_numpy()])
