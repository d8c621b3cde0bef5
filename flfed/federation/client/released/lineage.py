"""Runs in which some people's rows took part, by the keyed hashes that a site keeps of what it released."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from flfed.errors import UsageError
from flfed.federation.client.released.run_draws import SPENT
from flfed.federation.client.released.sets import RELEASED, RowSets
from flfed.folders import SiteFolder
from flfed.records.ledger.ledger import ledger_of
from flfed.rows.data.site import Site
from flfed.rows.snapshots.differencing import RowSet
from flfed.rows.snapshots.opt_outs import Excluded


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """One run, or repeat of it, that had rows of the people in it.

    Attributes
    ----------
    run, study, dataset : str
    repeat : int
    parts : dict of str to int
        Parts of the rows, "fitted" or "training", "validation" and "holdout", with how many of the people are in each.
    """

    run: str
    repeat: int
    study: str
    dataset: str
    parts: dict[str, int]

    def as_object(self) -> dict[str, Any]:
        """Return the run as an object of JSON."""
        return dict(vars(self))


def lineage(site: Site, people: Excluded) -> list[Lineage]:
    """Return the runs that had rows of these people in them, the oldest first.

    Where the schema names a group, people are known by their identifier, also where their rows have changed since;
    else by their rows as they stand in the table now.

    Raises
    ------
    UsageError
        If the site keeps no record of rows, the list does not fit its table, or what it keeps cannot be read.
    """
    if site.policy.disclosure == "open":
        raise UsageError(
            f"site {site.name!r}: its policy is 'open', and of open data no record is kept of whose rows a run had"
        )
    return [found for dataset in site.datasets for found in _of_dataset(site.serving(dataset), people)]


def unlisted(site: Site) -> dict[str, str]:
    """Return the runs that spent of people's privacy and keep no list of whose rows they had, with their studies.

    They are those of which all that leaves is charged: whoever had rows in the table then took part.
    """
    lines = list(ledger_of(SiteFolder(site.name)).lines())
    listed = {str(line.facts.get("run", "")) for line in lines if line.kind == RELEASED}
    spent = {str(line.facts.get("run", "")): str(line.facts.get("study", "")) for line in lines if line.kind == SPENT}
    return {run: study for run, study in spent.items() if run not in listed}


def _of_dataset(site: Site, people: Excluded) -> Iterator[Lineage]:
    kept = RowSets(SiteFolder(site.name), site.dataset)
    lines = [
        line for line in kept.ledger.lines() if line.kind == RELEASED and line.facts.get("dataset") == site.dataset
    ]
    if not lines:
        return
    key = kept.key()
    table, _, schema = people.only(site).inspect()
    wanted = RowSet.of(table, schema, key)
    released = kept.all(lines, key)
    runs: dict[tuple[str, int], dict[str, Any]] = {}
    for line in lines:
        facts = line.facts
        count = _in_both(wanted, released[str(facts["rows-sha256"])])
        if count:
            place = (str(facts["run"]), int(facts["repeat"]))
            of = runs.setdefault(place, {"study": str(facts["study"]), "parts": {}})
            of["parts"][str(facts["chosen"]["part"])] = count
    for (run, repeat), of in runs.items():
        yield Lineage(run=run, repeat=repeat, dataset=site.dataset, **of)


def _in_both(wanted: RowSet, released: RowSet) -> int:
    """Return how many of the wanted people are in a released set."""
    by_name = len(wanted.people) and len(released.people)
    mine, others = (wanted.people, released.people) if by_name else (wanted.digests, released.digests)
    return len(np.intersect1d(mine, others, assume_unique=True))
