"""Refusals that may leave a site.

They are those that flfed itself says, with nothing of a table in them.

The client app redacts what goes wrong. This is the second look: a text that is no refusal
stays at the site, whatever made it.
"""

from __future__ import annotations

from flfed.federation.client.redaction import CROSSING
from flfed.refusals import CONTROL, TABLE, Refusal, read_of_site
from flfed.rows.data import datasets
from flfed.rows.data.parsing.fields import Field
from flfed.rows.data.site import Site

LONGEST = 500


def may_leave(text: str, site: Site) -> Refusal | None:
    """Return the refusal that a text says, None where it may not leave.

    Parameters
    ----------
    text : str
        The site's own name may stand before it.
    site : Site
        Its columns may be named, no others.
    """
    plain = text.removeprefix(f"{site.name}: ")
    if len(plain) > LONGEST or CONTROL.search(plain):
        return None
    found = read_of_site(plain)
    if found is None:
        return None
    # A column is named only where it is of the schema, with enough rows behind its count.
    rows = found.facts.get("rows", "")
    if found.code in TABLE and (found.facts["column"] not in _columns(site) or 0 <= _count(rows) < CROSSING):
        return None
    return found if plain == text else Refusal("of-site", site=site.name, why=found)


def _count(rows: str) -> int:
    """Return the number in a count of rows, -1 where there is none."""
    return int(rows.rpartition(" ")[2]) if rows else -1


def _columns(site: Site) -> set[str]:
    """Return the column names that this site's errors may have.

    They are those of its schema, and of its own table.
    """
    found = {str(getattr(site.holdout, "column", "") or "")}
    # The data owner knows a column by its own table's name, the study by the schema's: either may be said.
    for dataset in site.datasets:
        found |= set(datasets.load(dataset).schema.columns)
        for own in site.serving(dataset).mapping.values():
            found.add(own.column if isinstance(own, Field) else str(own or ""))
    return found - {""}
