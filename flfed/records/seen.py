"""Who looks at a run store, and what of it that person may see."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, and_, func, or_, select

from flfed.records.tables import RunSite

Role = Literal["coordinator", "analyst", "site"]
"""`coordinator` sees how the consortium runs, too; `analyst` all results; `site` one institution's own."""
LEAST_SITES = 3
"""Fewest sites over which one of them may see a sum: of two, each has the other's figure by taking off its own."""
ANOTHER = "another site"
TEXTS = ("Characteristic", "All sites")
"""Columns of a Table 1 that are no site's."""


@dataclass(frozen=True)
class Viewer:
    """A person who looks at the pages.

    Attributes
    ----------
    role : {"coordinator", "analyst", "site"}
    site : str or None
        The one site whose figures of its own role "site" sees, beside those of all sites together.
    name : str
        As the login has it; "" where nobody has to log in.
    """

    role: Role = "coordinator"
    site: str | None = None
    name: str = ""


def of_one_site(column: Any, site: str) -> ColumnElement[bool]:
    """Return the condition that a line of a table is of `site`, or of all sites together where these are enough.

    Parameters
    ----------
    column : column `site` of a table with a column `run_id`
    site : str
    """
    many = (
        select(RunSite.run_id)
        .where(RunSite.status != "refused")
        .group_by(RunSite.run_id)
        .having(func.count() >= LEAST_SITES)
    )
    run = column.table.c.run_id if hasattr(column, "table") else column.class_.run_id
    return or_(column == site, and_(column.is_(None), run.in_(many)))


def without_names(names: Iterable[str]) -> Callable[[str], str]:
    """Return what replaces the names of other sites in a sentence.

    Examples
    --------
    >>> without_names(["hungary", "hungary-2"])("hungary-2: no answer; vienna: none; hungary: none")
    'another site: no answer; vienna: none; another site: none'
    """
    words = sorted(filter(None, names), key=len, reverse=True)
    if not words:
        return str
    pattern = re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, words))})(?![\w-])", re.IGNORECASE)
    return lambda text: pattern.sub(ANOTHER, text)


def of_summary(
    name: str, payload: dict[str, Any], site: str, *, enough: bool, plain: Callable[[str], str]
) -> dict[str, Any] | None:
    """Return what one site's people may see of a named object of a run; None of one that is not known here.

    Parameters
    ----------
    name : str
    payload : dict
    site : str
    enough : bool
        Whether the run has `LEAST_SITES` sites, so that sums over all give no other site away.
    plain : callable
        Takes the names of other sites out of a sentence.
    """
    if name == "table-1":
        kept = (*TEXTS[: 1 + enough], site)
        rows = [{key: cell for key, cell in row.items() if key in kept} for row in payload.get("rows", ())]
        return {"rows": rows, "note": plain(str(payload.get("note", "")))}
    if name == "columns":
        if not enough:
            return None  # the others together would be the one other
        columns = [column | {"sites": _own(column["sites"], site)} for column in payload["columns"]]
        return {"columns": columns, "note": plain(str(payload.get("note", "")))}
    if name == "score-histograms":
        together = payload["all"] if enough and payload["in-all"] >= LEAST_SITES else None
        return payload | {"sites": _own(payload["sites"], site), "all": together}
    if name == "privacy":
        texts = {key: [plain(str(line)) for line in payload.get(key, ())] for key in ("warnings", "uncharged")}
        return payload | texts | {"sites": _own(payload.get("sites", {}), site)}
    if name == "leaks":
        return {"warnings": [plain(str(line)) for line in payload.get("warnings", ())]}
    return payload if name == "encoder" else None


def _own(by_site: dict[str, Any], site: str) -> dict[str, Any]:
    return {name: found for name, found in by_site.items() if name == site}
