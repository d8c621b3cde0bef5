"""Which sentences may leave a site: those that flfed itself says, with nothing of a table in them.

The client app redacts what goes wrong. This is the second look: a sentence that is not known
stays at the site, whatever made it.
"""

from __future__ import annotations

import re

from flfed.apps.client_app import CROSSING
from flfed.apps.spending import NO_LEDGER, ROWS_COUNTED
from flfed.rows import datasets
from flfed.rows.mapping import Field
from flfed.rows.site import Site
from flfed.updates.content import CONTROL
from flfed.updates.rounds import SPENT

LONGEST = 500
HELD_BACK = "an error whose text may not leave the site: see its ledger and log"
_WORD = r"[A-Za-z0-9 _.,:;()<>=/'%-]*"
_NUMBER = r"[0-9.e+-]{1,24}"
_OURS = tuple(
    re.compile(pattern)
    for pattern in (
        r"[A-Za-z]{1,60}: see the site's log",
        # what came from the server, and holds nothing of a table
        rf"(the message|the arrays|the settings|the numbers|the columns|protocol) {_WORD}",
        # a site's own policy: fixed words, and numbers and names of ours
        r"the study expired on \d{4}-\d\d-\d\d",
        rf"its table is mapped to dataset {_WORD}",
        rf"its policy (keeps|does not let|lets|allows) {_WORD}",
        rf"its transactions are held out by time{_WORD}",
        r"it has fewer than \d+ [a-z ]+ rows",
        r"its rows differ by fewer than \d+ people from rows whose sums left before: [a-z ]+",
        r"its record of the rows that it released cannot be read, so nothing leaves the site: see its log",
        # what was spent of a budget follows from studies' settings, and from no row
        rf"{SPENT}epsilon {_NUMBER} of {_NUMBER} is spent at delta {_NUMBER}, and one more round would make it "
        rf"({_NUMBER}|beyond any number)",
        rf"the study's delta={_NUMBER} is not below one over the training rows here{_WORD}",
        re.escape(NO_LEDGER),
        re.escape(ROWS_COUNTED),
        r"its schema of '[a-z0-9-]+' differs from the coordinator's",
        r"it cannot open its table for this study; at the site: flfed site check [a-z0-9-]+",
        r"its frozen rows changed after the approval: the study needs a new one",
        r"it cannot keep [a-z ]+ on its own disk \([A-Za-z ]+\)",
    )
)
_RULES = re.compile(
    "|".join(
        (
            r"has no (date|value|rows: the table is empty)",
            r"has no value, but rows are grouped by it",
            r"has no value \(rows without an outcome cannot be used\)",
            r"is mapped but the schema has no such column",
            r"is not in the table( \(map it to None if the site does not have it\))?",
            r"stands in the table more than once",
            r"has a '\.' although its decimal mark is '.'",
            r"has a code that the mapping does not know",
            r"has limits such as '<' or '>' \(set censored\)",
            r"has values that are no text \(see its mapping\)",
            r"has a value that the schema does not allow",
            r"is not a (number|flag \(0 or 1, yes or no\)|date such as 2026-01-31( 14:05:00)?)",
            r"is outside the schema's range \S{1,20} to \S{1,20}( [A-Za-z0-9/%^ ]{1,30})?",
        )
    )
)
"""Every rule that `flfed.rows` names in an error about a table."""
_COLUMN = re.compile(r"column '([^']{1,200})' (.{1,200}?)(?: in (?:fewer than )?(\d+) rows)?")


def is_ours(sentence: str, site: Site) -> bool:
    """Tell whether a sentence is one that a site may say.

    Parameters
    ----------
    sentence : str
        Without the site's name before it.
    site : Site
        Its columns may be named, no others.
    """
    if len(sentence) > LONGEST or CONTROL.search(sentence):
        return False
    if any(pattern.fullmatch(sentence) for pattern in _OURS):
        return True
    found = _COLUMN.fullmatch(sentence)
    if found is None:
        return False
    enough = found[3] is None or int(found[3]) >= CROSSING
    return enough and found[1] in _columns(site) and _RULES.fullmatch(found[2]) is not None


def _columns(site: Site) -> set[str]:
    """Return the names of columns that an error of this site may name: of its schema, and of its own table."""
    found = {str(getattr(site.holdout, "column", "") or "")}
    for dataset in site.datasets:
        found |= set(datasets.load(dataset).schema.columns)
        for own in site.serving(dataset).mapping.values():
            found.add(own.column if isinstance(own, Field) else str(own or ""))
    return found - {""}
