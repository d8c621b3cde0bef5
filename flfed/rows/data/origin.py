"""Origin of a site's rows: hashes of the table that do not depend on the dataset.

The same table may fill several schemas, with the same people. So the people of used snapshots are recorded by the
table and not by the dataset's name. Hashes here have no key: they are stored beside the site's snapshot, and are keyed
before the site's state has them (`flfed.deployment.site_state.used_people`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np

from flfed.errors import UsageError
from flfed.rows.data import datasets
from flfed.rows.data.holdout import row_texts
from flfed.rows.data.mapping import plain_text
from flfed.rows.data.parsing.fields import own_name
from flfed.rows.data.parsing.queries import server_of, tables_of
from flfed.rows.data.schema import Schema
from flfed.rows.data.site import Site
from flfed.rows.data.sources import Csv, Excel, Folders, Frame, Parquet, Part, Source, Sql, find_file

if TYPE_CHECKING:
    import pandas as pd

BYTES = 16
"""Bytes of a row's hash, keyed or not; equal hashes of different rows are practically impossible."""
BY_IDENTIFIER = "identifier"
"""Key of people where the schema names a group."""


@dataclass(frozen=True)
class Origin:
    """Hashes that identify a site's table.

    Attributes
    ----------
    content : str
        Where the schema names a group, of the identifiers in the source. Else of the source: of a file its
        content, of a database its server and the tables that the query names. Empty where these are unknown: then
        no line of the ledger counts as one of other rows.
    places : tuple of str
        Of the place of each file or table, since a table that changes there is the same table; and of a file's
        content, since a copy elsewhere is the same one, whichever of its rows are read.
    columns : str
        Of the key of people: the names of the source's columns, or `BY_IDENTIFIER`.
    sha256 : str
        Of the rows' hashes, in their order.
    """

    content: str
    places: tuple[str, ...]
    columns: str
    sha256: str

    @property
    def file(self) -> str:
        """The name of the file of the rows' hashes, beside the snapshot."""
        return f"source-{self.sha256[:16]}.bin"


@dataclass(frozen=True, eq=False)
class SourceRows:
    """A site's rows as the source has them, in the order of its mapped table.

    Attributes
    ----------
    origin : Origin
    digests : array of 16 bytes each [rows]
        Of the whole row of the source; where the schema names a group, of the row's identifier.
    """

    origin: Origin
    digests: np.ndarray

    @classmethod
    def of_file(cls, origin: Origin, content: bytes) -> Self:
        """Read the rows from the file beside a snapshot; none if its hash is another."""
        if _sha256(content) != origin.sha256:
            content = b""
        return cls(origin, np.frombuffer(content, np.dtype(f"S{BYTES}")))

    def take(self, selection: np.ndarray) -> SourceRows:
        """Return the hashes of the rows in `selection`, bool [rows]."""
        digests = self.digests[selection]
        return SourceRows(replace(self.origin, sha256=_sha256(digests.tobytes())), digests)


def one_by_one(digests: np.ndarray) -> list[bytes]:
    """Return a list of single hashes."""
    content = digests.tobytes()  # NumPy's `tolist` would cut zeros off their ends
    return [content[start : start + BYTES] for start in range(0, len(content), BYTES)]


def is_plain(site: Site) -> bool:
    """Return whether a site's table comes from its source, and not from a package's own code."""
    return type(site).inspect is Site.inspect


def as_rows(site: Site) -> Site:
    """Return a site with its source's table in memory, if its table comes from its source."""
    if isinstance(site.source, Part) or not is_plain(site):
        return site
    sampled = site.sampled()
    if sampled is not None:
        if sampled.findings:
            raise sampled.findings[0].error()
        # Another sample of it is the same: each row's key decides.
        return replace(site, source=site.source.in_memory(sampled.rows, prepare=None))
    if isinstance(site.source, Frame):
        return site
    # Only of CSV files it is sure that Arrow's texts are those of objects: Parquet's may have a NUL.
    return replace(site, source=site.source.in_memory(site.source_table(compact=isinstance(site.source, Csv))))


def source_rows(site: Site, whole: Site, served: Site, table: pd.DataFrame, schema: Schema) -> SourceRows | None:
    """Return a site's rows as its source has them; None where code of its package stands between them.

    Parameters
    ----------
    site : Site
    whole : Site
        The same, as `as_rows` gives it.
    served : Site
        Without people who opted out.
    table : DataFrame
        Mapped table of `served`.
    schema : Schema
    """
    # Without a group, a row that `prepare` made is of nobody who is known.
    if not isinstance(served.source, Frame) or (site.source.prepare is not None and not schema.group):
        return None
    named, files = _places(site.source, datasets.load(site.dataset).folders(site.folder))
    places = sorted({*map(_sha256, named), *files})
    # With a group, the identifier alone defines a person.
    if schema.group:
        digests = _digests(row_texts(table[[schema.group]]))
        columns = BY_IDENTIFIER
        content = _of_identifiers(whole, schema, table)
    else:
        cells, columns = _own_cells(served.source.table)
        digests = _digests(row_texts(cells))
        if isinstance(site.source, Sql):
            content = _sha256(*named)
        else:
            # Independent of the columns that are read.
            content = "".join(files) or _sha256(*sorted(one.hex() for one in one_by_one(digests)))
    # A query without known tables does not identify its rows.
    if not places and isinstance(site.source, Sql):
        content = ""
    return SourceRows(Origin(content, tuple(places), _sha256(columns), _sha256(digests.tobytes())), digests)


def _own_cells(raw: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Return the cells of a source as text, and its columns.

    Columns are in the order of their names, so that another order gives the same hashes.
    """
    import pandas as pd

    names = sorted(range(raw.shape[1]), key=lambda at: str(raw.columns[at]))
    cells = {str(at): plain_text(raw.iloc[:, at]) for at in names}
    return pd.DataFrame(cells, index=raw.index), json.dumps([str(raw.columns[at]) for at in names])


def _of_identifiers(whole: Site, schema: Schema, table: pd.DataFrame) -> str:
    """Return the hash of all identifiers in a source's column; of one that `prepare` makes, of those in `table`."""
    column = own_name(whole.mapping.get(schema.group, schema.group))
    cells = table[schema.group]
    if isinstance(whole.source, Frame) and column is not None and column in whole.source.table:
        cells = whole.source.table[column]
    return _sha256(*sorted(set(map(str, plain_text(cells).dropna()))))


def _places(source: Source, folders: Folders) -> tuple[list[str], list[str]]:
    """Return the place of each file or table, and the hash of a file's bytes."""
    if isinstance(source, (Csv, Parquet, Excel)):
        path = find_file(source.path, folders)
        with path.open("rb") as stream:
            return [str(path.resolve())], [hashlib.file_digest(stream, "sha256").hexdigest()]
    if isinstance(source, Sql):
        server = server_of(source._url())
        return [f"{server} {table}" for table in tables_of(source.query)], []
    return [], []


def is_changed(site: Site, origin: Origin | None) -> bool:
    """Return whether the file of a site's table has another content than that of these rows.

    It is False where the table is in a database, out of reach, or made by the package's own code.
    """
    with suppress(UsageError, OSError):
        _, files = _places(site.source, datasets.load(site.dataset).folders(site.folder))
        return origin is not None and not {*files} <= {*origin.places}
    return False


def as_bytes(text: str | bytes) -> bytes:
    """Return the bytes of a text with any signs."""
    return text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text


def _digests(texts: Iterable[str]) -> np.ndarray:
    hashes = (hashlib.sha256(as_bytes(text)).digest()[:BYTES] for text in texts)
    return np.frombuffer(b"".join(hashes), np.dtype(f"S{BYTES}"))


def _sha256(*texts: str | bytes) -> str:
    digest = hashlib.sha256()
    for content in map(as_bytes, texts):
        digest.update(len(content).to_bytes(8) + content)
    return digest.hexdigest()
