"""Cells of a CSV file that stands by itself, or in a zip file or wheel."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flfed.errors import TableError, UsageError

if TYPE_CHECKING:
    import pandas as pd


def cells_of(path: Path, member: str = "") -> pd.DataFrame:
    """Return the cells of a CSV file as texts.

    Parameters
    ----------
    path : Path
    member : str
        Where `path` is a zip file or a wheel: the file in it, which may be compressed by gzip (`.gz`).

    Raises
    ------
    UsageError
        If `path` is no such file.
    """
    import pandas as pd

    options: dict[str, Any] = {"dtype": str, "keep_default_na": False}
    found: pd.DataFrame
    if not member:
        found = pd.read_csv(path, encoding="utf-8-sig", **options)
        return found
    try:
        with zipfile.ZipFile(path) as archive:
            content = archive.read(member)
    except (zipfile.BadZipFile, KeyError):
        raise UsageError(f"{path}: is no zip file with {member}") from None
    options["compression"] = "gzip" if member.endswith(".gz") else None
    found = pd.read_csv(io.BytesIO(content), **options)
    return found


def numbers_of(cells: pd.DataFrame, name: str) -> pd.Series:
    """Return a column as numbers; an empty cell is missing, any other that is no number raises TableError."""
    import pandas as pd

    found = pd.to_numeric(cells[name], errors="coerce")
    if bad := int((found.isna() & (cells[name].str.strip() != "")).sum()):
        raise TableError(name, "is not a number", bad)
    return found
