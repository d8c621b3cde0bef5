"""Sentences that may leave a site.

They are those that flfed itself says, with nothing of a table in them.

The client app redacts what goes wrong. This is the second look: a sentence that is not known
stays at the site, whatever made it.
"""

from __future__ import annotations

from flfed.federation.client.redaction import CROSSING
from flfed.rows.data import datasets
from flfed.rows.data.parsing.fields import Field
from flfed.rows.data.site import Site
from flfed.updates.messages.sentences import CONTROL, ERRORS, column_rule, is_known

LONGEST = 500
HELD_BACK = ERRORS[1]


def is_ours(sentence: str, site: Site) -> bool:
    """Tell whether a site may send this sentence.

    Parameters
    ----------
    sentence : str
        Without the site's name before it.
    site : Site
        Its columns may be named, no others.
    """
    if len(sentence) > LONGEST or CONTROL.search(sentence):
        return False
    found = column_rule(sentence)
    if found is None:
        return is_known(sentence)
    # A sentence about a column is ours only with a column of the schema, and with enough rows behind it.
    column, rows = found
    return (rows is None or rows >= CROSSING) and column in _columns(site)


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
