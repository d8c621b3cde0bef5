"""Which runs of a site had some people's rows: those on each used snapshot that has these people."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from flfed.deployment.site_state.used_people import digests_of, rows_key
from flfed.federation.client.account import SPENT
from flfed.paths import SiteFolder
from flfed.records.ledger import ledger_of
from flfed.records.ledger_line import ERROR, REFUSED, WITHHELD, Line
from flfed.records.site_state import reading
from flfed.rows.data.origin import as_rows, source_rows
from flfed.rows.data.site import Site
from flfed.rows.snapshots.opt_outs import Excluded
from flfed.rows.snapshots.people import DIGEST, PERSON, VALUES, WHOLE, is_among, people_of
from flfed.updates.messages.kinds import ENROL, KEYS
from flfed.words import usage_error

ROWLESS = tuple(kind.rpartition(".")[2] for kind in (ENROL, KEYS))
"""Kinds of lines of a run without anything of rows."""


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """One run, or repeat of it, with rows of the people.

    Attributes
    ----------
    run, study, dataset : str
    repeat : int
    sides : dict of str to int
        How many of these people are on each side of the holdout.
    """

    run: str
    repeat: int
    study: str
    dataset: str
    sides: dict[str, int]


def lineage(site: Site, people: Excluded) -> list[Lineage]:
    """Return the runs with rows of these people, the oldest first: those on each snapshot that has some of them.

    Where the schema names a group, people are identified by it, also where their rows have changed since. Else they are
    identified by their rows as they are in the table now.

    Raises
    ------
    UsageError
        If the site keeps no record of rows, the list does not fit its table, or the record cannot be read.
    """
    if site.policy.is_open:
        raise usage_error("gate.rows.open", site=site.name)
    folder = SiteFolder(site.name)
    found: list[Lineage] = []
    for dataset in site.datasets:
        counts = _sides_with(folder, site.serving(dataset), people)
        runs: dict[tuple[str, int], Lineage] = {}
        for line in ledger_of(folder).lines():
            sides = counts.get(line.text("rows-sha256"))
            if sides and line.text("dataset") == dataset and _is_answer(line):
                run, repeat = line.text("run"), int(line.facts["repeat"])
                one = Lineage(run=run, repeat=repeat, study=line.text("study"), dataset=dataset, sides=sides)
                runs.setdefault((run, repeat), one)
        found += runs.values()
    return found


def unlisted(site: Site) -> dict[str, str]:
    """Return the runs without a list of their rows, with their studies.

    They are those under covering noise, which spent privacy: everyone with rows in the table then took part.
    """
    lines = list(ledger_of(SiteFolder(site.name)).lines())
    listed = {line.text("run") for line in lines if line.text("rows-sha256") and _is_answer(line)}
    spent = {line.text("run"): line.text("study") for line in lines if line.kind == SPENT}
    return {run: study for run, study in spent.items() if run not in listed}


def _is_answer(line: Line) -> bool:
    """Return whether a line is of a reply of a run that rows may be in."""
    return bool(line.text("run")) and line.kind not in (SPENT, REFUSED, ERROR, WITHHELD, *ROWLESS)


def _sides_with(folder: SiteFolder, site: Site, people: Excluded) -> dict[str, dict[str, int]]:
    """Return how many of these people are on each side of the snapshots that have some of them."""
    with reading(folder) as tables:
        stored = (
            []
            if tables is None
            else list(
                tables.execute("SELECT snapshot, side, kind, keys FROM people WHERE dataset = ?", (site.dataset,))
            )
        )
    if not stored:
        return {}
    served = people.only(site)
    table, _, schema = served.inspect()
    source = digests_of(source_rows(site, as_rows(site), served, table, schema))
    wanted = people_of(table, schema, {"training": np.arange(len(table))}, rows_key(folder.gate), source)
    kind = PERSON if len(wanted.of(WHOLE, PERSON)) else VALUES
    counts: dict[str, dict[str, int]] = defaultdict(dict)
    for snapshot, side, of, content in stored:
        if of == kind and (many := int(is_among(wanted.of(WHOLE, kind), np.frombuffer(content, DIGEST)).sum())):
            counts[snapshot][side] = many
    return counts
