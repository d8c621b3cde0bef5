"""Files of data frames: what `Result.save` writes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd

from flfed.errors import UsageError
from flfed.rows.data.mapping import plain_text
from flfed.rows.data.site import Site
from flfed.rows.data.sources import Frame, Parquet
from flfed.rows.proposals.workspace import Workspace
from flfed.study.study import Study


def save(workspace: Workspace, study: Study, folder: Path) -> list[Path]:
    """Write tables, dataset, sites and study into a folder, to go on with commands.

    Raises
    ------
    UsageError
        If a file is there already: nothing is written.
    """
    sites, tables = [], {}
    for site in workspace.sites:
        path = folder / "tables" / f"{site.name}.parquet"
        tables[path] = _storable(site)
        sites.append(replace(site, source=Parquet(str(path.resolve()))))
    written = replace(workspace, sites=tuple(sites)).write(folder, {f"{study.name}.toml": study.text})
    for path, table in tables.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        table.to_parquet(path, index=False)
    return [*written, *tables]


def _storable(site: Site) -> pd.DataFrame:
    """Return a site's table with texts where cells are of several kinds."""
    source = site.source
    if not isinstance(source, Frame):
        raise UsageError(f"site {site.name!r}: its table is no data frame")
    table = source.table
    mixed = [name for name in table.columns if table[name].dtype.kind == "O"]
    return table.assign(**{str(name): plain_text(table[name]) for name in mixed})
