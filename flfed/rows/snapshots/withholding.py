"""Withholding of rows against differencing: an earlier and a later release must never differ by few people.

Somebody opts out after sums were released: the next sums, without this person, would reveal the person's values.
So further people's rows are withheld too, until at least k are missing from every released set,
and rows that are new (or come back) wait until there are k of them. The site's key chooses: the same
people each time, as long as their rows do not change or the schema names a group.

Guarantee: as long as enough rows are left to choose from, no set of `chosen` parts differs from the released set
of that part by 1 to k - 1 persons, on either side: neither by the values of their rows
nor, where the schema names a group, by the groups' identifiers. Whether a row that lacks an outcome or a feature is
in a part depends on this row alone, so that withholding moves no other row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import numpy as np

from flfed.rows.data import datasets
from flfed.rows.data.holdout import SortedRows, for_validation
from flfed.rows.data.origin import BYTES
from flfed.rows.data.site import Site
from flfed.rows.snapshots.differencing import (
    OF_PEOPLE,
    OF_ROWS,
    Persons,
    RowSet,
    group_texts,
    keyed,
    value_texts,
    whose_rows,
)

if TYPE_CHECKING:
    import pandas as pd

PARTS = ("further", "validation", "fitted", "training", "holdout", "whole")
"""Parts of the rows with sums: `fitted` are the training rows without those for validation. Of the `whole` there are
figures alone, of a model that nobody trained here. `further` rows are in no sum: models are fitted on them."""
TESTED = ("holdout", "whole")
"""Parts of which models have figures."""
BY_ROWS = "rows"
BY_NAME = "name"
"""Keys of a person: the values of the rows, and the identifier of the group."""


@dataclass(frozen=True)
class Chosen:
    """A study's choice of one part of a site's rows, with all settings to repeat it for other rows.

    Attributes
    ----------
    part : str
        One of `PARTS`.
    complete : tuple of str
        Columns in which rows with a gap were left out.
    validation : float
        Share of the training rows for validation; 0 unless the part depends on it.
    seed : int
        Of the run, which draws them; 0 unless the part depends on it.
    """

    part: str
    complete: tuple[str, ...] = ()
    validation: float = 0.0
    seed: int = 0

    def facts(self) -> dict[str, Any]:
        """Return the facts for a line of the ledger."""
        facts: dict[str, Any] = {"part": self.part, "complete": list(self.complete)}
        if self.validation:
            facts |= {"validation": self.validation, "seed": self.seed}
        return facts

    @classmethod
    def of_facts(cls, facts: Mapping[str, Any]) -> Self:
        """Parse the facts of a ledger's line; KeyError, TypeError or ValueError for other content."""
        complete = tuple(map(str, facts["complete"]))
        part = str(facts["part"])
        share = float(facts.get("validation", 0))
        if part not in PARTS:
            raise ValueError(part)
        return cls(part, complete, share, int(facts.get("seed", 0)))

    def rows(self, site: Site, table: pd.DataFrame) -> np.ndarray:
        """Return the positions of the part's rows in a mapped table of the site.

        Parameters
        ----------
        site : Site
            Serving the dataset. Its own holdout splits the rows: under `institution` no study brings another.
        table : DataFrame
        """
        schema = datasets.load(site.dataset).schema
        complete_rows = np.flatnonzero(table[[schema.target, *self.complete]].notna().all(axis=1).to_numpy(dtype=bool))
        rows = site.with_draws(SortedRows.of(table, schema, self.complete))
        training, holdout = rows.sides(site.holdout, 0)
        plain = np.ones(len(training), bool) if rows.drawn is None else rows.drawn
        validation = np.zeros(len(training), bool)
        if self.validation:
            validation = for_validation(rows.keys, site.holdout, site.name, self.seed, self.validation)
        parts = {"further": training & ~plain, "holdout": holdout & plain, "whole": plain}
        parts |= {"validation": training & plain & validation}
        return np.asarray(complete_rows[parts.get(self.part, training & plain & ~validation)])


_Set: TypeAlias = tuple[Chosen, str]
_Members: TypeAlias = dict[bytes, tuple[str, list[int]]]


@dataclass(eq=False)
class _Table:
    """A table whose rows are withheld step by step."""

    texts: list[str]
    person: np.ndarray
    names: list[str] | None
    dataset: str
    key: bytes
    awake: np.ndarray

    def __post_init__(self) -> None:
        self._hashes: dict[tuple[str, str], bytes] = {}

    def members(self, chosen: Chosen, part: np.ndarray) -> dict[_Set, _Members]:
        """Return the text and the rows of a part's persons who are not withheld, by digests of either kind."""
        persons = Persons.of(self.texts, self.person, part[self.awake[part]])
        by_rows: _Members = {}
        by_name: _Members = {}
        for text, rows in zip(persons.texts, persons.rows, strict=True):
            by_rows[self._keyed(OF_ROWS, text)[:BYTES]] = (text, rows)
            if self.names is not None:
                by_name[self._keyed(OF_PEOPLE, self.names[rows[0]])[:BYTES]] = (text, rows)
        return {(chosen, BY_ROWS): by_rows, (chosen, BY_NAME): by_name}

    def rest(self, rows: Sequence[int]) -> None:
        """Withhold rows and all others of the same persons."""
        self.awake &= ~np.isin(self.person, self.person[list(rows)])

    def _keyed(self, purpose: str, text: str) -> bytes:
        """Return the keyed hash of a text of this dataset, computed once."""
        if (purpose, text) not in self._hashes:
            self._hashes[purpose, text] = keyed(self.key, f"{purpose} {self.dataset}", text)
        return self._hashes[purpose, text]

    def order(self, text: str, row: int) -> tuple[bytes, int]:
        """Return the sort key in which people are withheld; of several with equal rows, the last counted first.

        It is of the group's identifier if there is one, which is stable where values of rows drift.
        """
        # The running number before a text is split off, so that it alone orders equal texts.
        numbered = text if self.names is None else f"0\x1e{self.names[row]}"
        seen, _, identity = numbered.partition("\x1e")
        return self._keyed("rest of", identity), -int(seen)


def resting(
    site: Site, table: pd.DataFrame, released: Sequence[tuple[Chosen, RowSet]], key: bytes, minimum: int
) -> np.ndarray:
    """Return which rows of a mapped table are withheld [rows].

    Parameters
    ----------
    site : Site
        Serving the dataset.
    table : DataFrame
        Without the rows of people who opted out.
    released : sequence of (Chosen, RowSet)
        Sets with released sums.
    key : bytes
        The site's own: it chooses whose rows are withheld.
    minimum : int
        k.

    Notes
    -----
    Where too few rows are left to choose from, fewer are withheld, and the site refuses studies over them.
    """
    schema = datasets.load(site.dataset).schema
    persons = _Table(
        value_texts(table, schema), whose_rows(table, schema), group_texts(table, schema), schema.name, key,
        np.ones(len(table), bool),
    )  # fmt: skip
    parts = {chosen: chosen.rows(site, table) for chosen, _ in released}
    # Each released set is compared with its part of the present rows, by texts and by identifiers.
    # Each once a part, small parts first: people withheld from these are missing in the larger ones too.
    once = {(chosen, one.id): (chosen, one) for chosen, one in released}
    by_part = sorted(once.values(), key=lambda item: (PARTS.index(item[0].part), item[1].id))
    before = [((chosen, BY_ROWS), one.members()) for chosen, one in by_part]
    if persons.names is not None:  # a set from a time without a group has none
        before += [((chosen, BY_NAME), one.people_one_by_one()) for chosen, one in by_part if len(one.people)]
    while _one_step(persons, parts, before, minimum):
        pass
    return ~persons.awake


def _one_step(
    table: _Table, parts: Mapping[Chosen, np.ndarray], before: Sequence[tuple[_Set, set[bytes]]], minimum: int
) -> bool:
    """Withhold some rows, and return whether to go on."""
    members: dict[_Set, _Members] = {}
    for chosen, rows in parts.items():
        members |= table.members(chosen, rows)
    # New people wait until there are enough of them.
    for which, one in before:
        new = members[which].keys() - one
        if 0 < len(new) < minimum:
            table.rest(list(chain.from_iterable(members[which][member][1] for member in new)))
            return True
    # Where too few are missing, further people are withheld until `minimum` are.
    missing = [len(one - members[which].keys()) for which, one in before]
    for (which, one), gone in zip(before, missing, strict=True):
        shown = members[which]
        candidates = one & shown.keys()
        if not candidates or not 0 < gone < minimum:
            continue
        gains = _gains(members, before, missing, minimum)
        first = _ranked(table, candidates, shown, gains)[: minimum - gone]
        table.rest(list(chain.from_iterable(shown[member][1] for member in first)))
        return True
    return False


def _ranked(table: _Table, candidates: set[bytes], shown: _Members, gains: Mapping[int, int]) -> list[bytes]:
    """Return people in the order of withholding: by the gaps that they cover, then by the key."""
    ranked = []
    for member in candidates:
        text, rows = shown[member]
        ranked.append((-gains.get(rows[0], 0), *table.order(text, rows[0]), member))
    return [member for *_, member in sorted(ranked)]


def _gains(
    members: Mapping[_Set, _Members],
    before: Sequence[tuple[_Set, set[bytes]]],
    missing: Sequence[int],
    minimum: int,
) -> dict[int, int]:
    """Score people, by their first row, by the gaps that withholding them would cover.

    The score is the number of a person's sets that lack somebody, minus the number of those that lack nobody.
    Whoever is in the same sets as a person who left hides this one in all of them at once.
    """
    gain_by_row: dict[int, int] = {}
    for (which, one), gone in zip(before, missing, strict=True):
        if gone >= minimum:
            continue
        gain = 1 if gone else -1
        for member in one & members[which].keys():
            first = members[which][member][1][0]
            gain_by_row[first] = gain_by_row.get(first, 0) + gain
    return gain_by_row
