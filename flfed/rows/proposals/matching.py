"""Proposed mappings of a table to an existing schema: by names, values, units and ranges."""

from __future__ import annotations

import difflib
import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import partial
from itertools import combinations, product
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from flfed.rows.data import datasets
from flfed.rows.data.holdout import Holdout
from flfed.rows.data.mapping import read_column
from flfed.rows.data.parsing.fields import ColumnMapping, Entry, Field, plain_name, shown_names
from flfed.rows.data.policy import Policy
from flfed.rows.data.schema import Column, Schema
from flfed.rows.data.site import Site
from flfed.rows.data.sources import Source
from flfed.rows.proposals import texts
from flfed.rows.proposals.cells import FEW_VALUES, MANY_VALUES, name_words
from flfed.rows.proposals.column_words import Series, find_schema_series, find_series, word_list
from flfed.rows.proposals.fits import FITTING, UNKNOWN, Doubt, Fit, OwnColumn, Quantity, describe_quantity, fit_column
from flfed.rows.proposals.own_tables import read_named, refuse_lines_above
from flfed.words import render, shorten

NAME_WEIGHT = 0.7
"""Weight of the names' likeness in a match; the rest is the fit of the values."""
LEAST_MATCH = 0.6
"""Least score of a proposed pair."""
LEAST_CANDIDATE = 0.45
"""Least score of a column that is named as a candidate."""
MOST_CANDIDATES = 3
NEAR = 0.11
"""Largest difference of the scores of two candidates between which a person decides."""
EXCHANGED = 1.3
"""Least factor by which two columns fit better once they are exchanged."""
TELLING = 0.62
"""Score of a column whose values alone show what it is."""
MOST_COMPARED = 50_000
"""Largest number of a table's rows that are compared; more are drawn by lot."""
OUTCOME_NAMES = {
    *("target", "outcome", "label", "class", "y", "response", "result", "event", "endpoint", "status", "diagnosis"),
    *("zielgroesse", "ergebnis", "diagnose", "resultat", "issue"),
}
"""Words in names of targets."""
LEAST_SPAN = 0.3
"""Least share of a target's range that the values of a column with another name must cover."""
FEW_NAMES = 5
"""Largest number of possible targets that are named."""
MOST_ROWS = 0.9
"""Least share of rows with one of the target's classes in such a column."""
_SPLIT = re.compile(r"[^a-z0-9]+")

LEAST_SERIES = 0.5
"""Least fit of the values of two series."""
MISFITS: frozenset[Doubt] = frozenset({"outside", "unit", "kind", "reading"})
"""Doubts about a column's values that a person may have to mend with a factor."""

Standing = Literal["sure", "codes", "likely", "unsure", "series", "absent"]
"""Result for a column: "codes" is a sure column whose codes a person has to name, "series" one of a series of
columns."""


@dataclass(frozen=True)
class Candidate:
    """A column of the table that a schema's column may be.

    Attributes
    ----------
    own : str
    field : Field
        Reading of the column.
    why : str
        Holds no cell.
    fits : bool
        Whether its values fit as they are read.
    """

    own: str
    field: Field
    why: str
    fits: bool


@dataclass(frozen=True)
class Match:
    """Origin of a schema column in a table.

    Attributes
    ----------
    column : str
        Of the schema.
    own : str or None
        The table's; None where none fits.
    field : Field or None
        Reading of the column; None where none fits.
    why : str
        Holds no cell.
    standing : {"sure", "codes", "likely", "unsure", "series", "absent"}
    candidates : tuple of Candidate
        The best first.
    """

    column: str
    own: str | None
    field: Field | None
    why: str
    standing: Standing
    candidates: tuple[Candidate, ...]

    @property
    def sure(self) -> bool:
        """Whether nobody needs to look at it."""
        return self.standing == "sure"

    @property
    def has_unnamed_codes(self) -> bool:
        """Whether a person has to name a code of it."""
        return self.field is not None and UNKNOWN in (self.field.values or {}).values()


@dataclass(frozen=True)
class SiteProposal:
    """A site with a mapping to an existing schema.

    Attributes
    ----------
    site : Site
    matches : list of Match
        Origin of each column.
    unread : tuple of str
        Columns of the table that are not used.
    """

    site: Site
    matches: list[Match]
    unread: tuple[str, ...]

    @property
    def unnamed(self) -> list[str]:
        """Columns with codes that a person has to name."""
        return [match.column for match in self.matches if match.has_unnamed_codes]

    @property
    def target(self) -> Match:
        """Origin of the column to predict."""
        target = datasets.load(self.site.dataset).schema.target
        return next(match for match in self.matches if match.column == target)

    def write(self, folder: Path) -> list[Path]:
        """Write the package into `sites/` of a folder; nothing is replaced.

        Raises
        ------
        UsageError
            If one of its files is there already.
        """
        return texts.write_new(folder, texts.site_files(self.site, describe_gaps(self.site)))


def propose_site(name: str, dataset: str, source: Source, *, title: str, open_data: bool) -> SiteProposal:
    """Return a site whose table is mapped to a dataset's schema.

    Parameters
    ----------
    name : str
    dataset : str
    source : Csv, Parquet, Excel or Sql
    title : str
    open_data : bool
        Whether its policy releases exact figures.

    Raises
    ------
    UsageError
        If the dataset is not known, or the table cannot be read.
    """
    schema = datasets.load(dataset).schema
    table = read_named(source)
    matches = propose_mapping(table, schema)
    used = {match.own for match in matches}
    refuse_lines_above(table, source, name, list(schema.columns), named=used == {None})
    policy = Policy(disclosure="open", resplit=True) if open_data else Policy()
    site = Site(
        name=name, title=title, dataset=dataset, source=source,
        mapping=mapping_of((match.column, match.field) for match in matches),
        holdout=Holdout(salt=secrets.token_hex(8)), policy=policy,
    )  # fmt: skip
    return SiteProposal(site, matches, tuple(shown_names(table, [o for o in map(str, table.columns) if o not in used])))


def propose_mapping(table: pd.DataFrame, schema: Schema) -> list[Match]:
    """Return the origin of each column of a schema, one to one.

    Parameters
    ----------
    table : DataFrame
        As a source gives it. Of more than 50,000 rows, so many are compared.
    schema : Schema
    """
    return Matching(table, schema).matches


class Matching:
    """Comparison of a table's columns with a schema's.

    Parameters
    ----------
    table : DataFrame
        As a source gives it.
    schema : Schema
    """

    def __init__(self, table: pd.DataFrame, schema: Schema) -> None:
        from scipy.optimize import linear_sum_assignment

        self._schema = schema
        self._words = word_list()
        descriptions = {name: column.description for name, column in schema.columns.items()}
        self._meanings = self._words.read_schema(descriptions)
        some = table if len(table) <= MOST_COMPARED else table.sample(MOST_COMPARED, random_state=0)
        self._own = [
            OwnColumn(str(name), some.iloc[:, place], table.iloc[:, place], self._words.read(str(name)))
            for place, name in enumerate(table.columns)
        ]
        self._fits: dict[tuple[int, int], Fit] = {}
        self._score = np.zeros((len(self._names), len(self._own)))
        self._same = np.zeros(self._score.shape, dtype=bool)
        self._recognised = np.zeros(self._score.shape, dtype=bool)
        self._compare()
        self.series = self._match_series(descriptions)
        self._take_series()
        rows, columns = linear_sum_assignment(-self._score)
        self._pairs = {int(i): int(j) for i, j in zip(rows, columns, strict=True) if self._score[i, j] >= LEAST_MATCH}
        exchanged = self._exchanged()
        self._doubles = self._interchangeable()
        self.matches = [self._match(i, name, exchanged.get(i)) for i, name in enumerate(self._names)]
        self._add_series()
        self._add_target()

    @property
    def _names(self) -> list[str]:
        return list(self._schema.columns)

    @property
    def _columns(self) -> list[Column]:
        return list(self._schema.columns.values())

    def column(self, own: str) -> OwnColumn:
        """Return a column of the table."""
        return next(one for one in self._own if one.name == own)

    def fit(self, column: str, own: str) -> Fit:
        """Return the fit of a column of the table to one of the schema."""
        return self._fit(self._names.index(column), self._own.index(self.column(own)))

    def _compare(self) -> None:
        """Compare all names, and the values where names are alike or values may be telling."""
        for i, name in enumerate(self._names):
            column = self._schema.columns[name]
            for j, own in enumerate(self._own):
                likeness = self._meanings.compare(own.reading, name)
                alike = name_likeness(name, own.name)
                self._same[i, j] = alike == 1
                self._recognised[i, j] = alike == 1 or likeness.recognised
                best = max(alike, likeness.score)
                if best > 0.3:
                    self._score[i, j] = NAME_WEIGHT * best + (1 - NAME_WEIGHT) * self._fit(i, j).quality
                elif own.may_name(column) and self._fit(i, j).telling:
                    self._score[i, j] = TELLING

    def _fit(self, i: int, j: int) -> Fit:
        if (i, j) not in self._fits:
            self._fits[i, j] = fit_column(self._own[j], self._columns[i], self._quantity(i), self._words)
        return self._fits[i, j]

    def _quantity(self, i: int) -> Quantity | None:
        """Return what is known of a column of numbers."""
        column = self._columns[i]
        return describe_quantity(column, self._meanings.concepts(self._names[i])) if column.is_number() else None

    def _match_series(self, descriptions: Mapping[str, str]) -> list[tuple[Series, Series]]:
        """Return the series of the schema, each with the table's whose name and values fit best."""
        from scipy.optimize import linear_sum_assignment

        wanted = find_schema_series(descriptions, self._words.months)
        wanted = [one for one in wanted if not self._same[[self._names.index(name) for name in one.columns]].any()]
        own = self._own_series()
        alike = np.zeros((len(wanted), len(own)))
        fits = np.zeros(alike.shape)
        for place, one in enumerate(wanted):
            for other, series in enumerate(own):
                if len(one.columns) == len(series.columns):
                    reading = self._words.read(series.stem)
                    alike[place, other] = self._meanings.compare(reading, one.columns[0]).score
                    pairs = zip(one.columns, series.columns, strict=True)
                    fits[place, other] = sum(self.fit(*pair).quality for pair in pairs) / len(one.columns)
        rows, columns = linear_sum_assignment(-(NAME_WEIGHT * alike + (1 - NAME_WEIGHT) * fits))
        matched = zip(rows, columns, strict=True)
        return [(wanted[place], own[other]) for place, other in matched if fits[place, other] >= LEAST_SERIES]

    def _own_series(self) -> list[Series]:
        """Return the table's series."""
        return find_series([column.name for column in self._own], self._words.months)

    def series_of(self, length: int, taken: AbstractSet[str]) -> list[tuple[str, ...]]:
        """Return the table's series of a length, without those that are taken, each in both orders."""
        free = [
            one.columns for one in self._own_series() if len(one.columns) == length and not taken & set(one.columns)
        ]
        orders = []
        for columns in free:
            orders += [columns, columns[::-1]]
        return orders

    def _take_series(self) -> None:
        """Take the columns of series from those that are compared one by one."""
        for wanted, own in self.series:
            self._score[[self._names.index(name) for name in wanted.columns]] = 0.0
            self._score[:, [self._own.index(self.column(name)) for name in own.columns]] = 0.0

    def _add_series(self) -> None:
        """Propose series; of those whose order in time the names do not state, both orders, and none is guessed."""
        for wanted, own in self.series:
            is_dated = wanted.is_dated and own.is_dated
            for name, first, last in zip(wanted.columns, own.columns, reversed(own.columns), strict=True):
                place = self._names.index(name)
                ends = [self._candidate(place, self._own.index(self.column(end))) for end in (first, last)]
                why = render("proposals.match.order")
                self.matches[place] = Match(name, None, None, why, "series", tuple(ends))
                if is_dated:
                    why = render("proposals.match.months")
                    self.matches[place] = Match(name, first, ends[0].field, why, "series", (ends[0],))

    def _interchangeable(self) -> dict[int, int]:
        """Return, for numbers and flags, a column of the table whose values would fit as well once exchanged."""
        columns = enumerate(self._columns)
        compared = [i for i, column in columns if column.is_number() or column.kind == "flag"]
        paired = [i for i in compared if i in self._pairs]
        doubles = self._paired_doubles(paired)
        absent = [i for i in compared if i not in self._pairs]
        for one in paired:
            if one in doubles or self._same[one, self._pairs[one]] or not absent:
                continue
            free = self._free_double(one, absent)
            if free is not None:
                doubles[one] = free
        return doubles

    def _paired_doubles(self, paired: Sequence[int]) -> dict[int, int]:
        """Return, for two pairs whose values could be exchanged, each one's column of the other pair."""
        doubles: dict[int, int] = {}
        for one, other in combinations(paired, 2):
            own = self._pairs[one]
            their = self._pairs[other]
            same = self._same[one, own] and self._same[other, their]
            if not same and self._could_stand(one, their, own) and self._could_stand(other, own, their):
                doubles |= {one: their, other: own}
        return doubles

    def _free_double(self, one: int, absent: Sequence[int]) -> int | None:
        """Return a column without a pair that a pair's could be exchanged with, by schema columns without one."""
        own = self._pairs[one]
        free = set(range(len(self._own))) - set(self._pairs.values())
        fitting = [j for j in sorted(free, reverse=True) if self._could_stand(one, j, own)]
        # The unit of a column that was not found is unknown.
        for other, j in product(reversed(absent), fitting):
            if self._could_stand(other, own, j, MISFITS - {"unit"}):
                return j
        return None

    def _could_stand(self, i: int, j: int, named: int, doubts: frozenset[Doubt] = MISFITS) -> bool:
        """Return whether the values of the table's column `j` would fit under the name of its column `named`."""
        unit = self._own[named].reading.unit
        fit = fit_column(self._own[j], self._columns[i], self._quantity(i), self._words, unit)
        return fit.share >= FITTING and fit.doubt not in doubts

    def _exchanged(self) -> dict[int, int]:
        """Return, for columns of the schema whose values fit better once exchanged, the other one's column."""
        exchanged = {}
        numbers = [i for i in self._pairs if self._columns[i].is_number()]
        for one, other in combinations(numbers, 2):
            straight = self._quality(one, one) * self._quality(other, other)
            crossed = self._quality(one, other) * self._quality(other, one)
            if crossed > EXCHANGED * straight:
                exchanged[one] = self._pairs[other]
                exchanged[other] = self._pairs[one]
        return exchanged

    def _quality(self, i: int, other: int) -> float:
        """Return the fit of the values proposed for another column."""
        return self._fit(i, self._pairs[other]).quality

    def _match(self, i: int, name: str, exchanged: int | None) -> Match:
        candidates = self._candidates(i, exchanged)
        j = self._pairs.get(i)
        if j is None:
            standing: Standing = "unsure" if candidates else "absent"
            return Match(name, None, None, render("proposals.match.none"), standing, candidates)
        fit = self._fit(i, j)
        standing, why = self._judge(i, j, fit)
        if exchanged is not None:
            standing = "unsure"
            why = render("proposals.match.exchanged", other=self._own[exchanged].name)
        return Match(name, self._own[j].name, fit.field, why, standing, candidates)

    def _judge(self, i: int, j: int, fit: Fit) -> tuple[Standing, str]:
        """Return the standing of a pair, and its reason."""
        is_near = self._has_rival(i, j)
        why = self._reason(i, j, fit, is_near=is_near)
        same = bool(self._same[i, j])
        if is_near or fit.doubt in MISFITS or (fit.doubt == "scale" and not same):
            return "unsure", why
        # The outcome has the greatest weight, and an identifier may be of anything.
        name = self._names[i]
        is_special = name == self._schema.target or self._schema.columns[name].kind == "id"
        # The word list knows the name, and the values are not those of another column too.
        has_meaning = bool(self._recognised[i, j]) and i not in self._doubles
        if fit.doubt == "codes" and not is_special:
            standing: Standing = "codes" if has_meaning else "likely"
            return standing, why
        if fit.share < FITTING:
            return "unsure", why
        sure = has_meaning and fit.doubt in ("", "scale") and (same or not is_special)
        standing = "sure" if sure else "likely"
        return standing, why

    def _reason(self, i: int, j: int, fit: Fit, *, is_near: bool) -> str:
        """Return why a column of the schema may be read from one of the table."""
        same = bool(self._same[i, j])
        agree = render("proposals.match.known") if self._recognised[i, j] else render("proposals.match.similar")
        if same:
            agree = render("proposals.match.same")
        reasons = [agree, fit.why]
        if fit.doubt == "scale" and not same:
            reasons.append(render("proposals.match.scale"))
        if is_near:
            reasons.append(render("proposals.match.near"))
        if i in self._doubles:
            reasons.append(render("proposals.match.double", other=self._own[self._doubles[i]].name))
        return "; ".join(reasons)

    def _has_rival(self, i: int, j: int) -> bool:
        """Return whether another column of either side fits nearly as well."""
        if self._same[i, j]:
            return bool(self._same[i].sum() + self._same[:, j].sum() > 2)
        least = self._score[i, j] - NEAR
        row = np.delete(self._score[i], j)
        column = np.delete(self._score[:, j], i)
        return bool((row >= least).any() or (column >= least).any())

    def _candidates(self, i: int, exchanged: int | None) -> tuple[Candidate, ...]:
        """Return the columns of the table that a schema's column may be, without those of other names."""
        taken = {j for other, j in self._pairs.items() if other != i}
        order = [int(j) for j in np.argsort(-self._score[i], kind="stable")]
        listed = [j for j in order if self._score[i, j] >= LEAST_CANDIDATE and j not in taken]
        if i in self._pairs:
            listed = [self._pairs[i], *(j for j in listed if j != self._pairs[i])]
        if exchanged is not None:
            listed.insert(1, exchanged)
        return tuple(self._candidate(i, j) for j in listed[:MOST_CANDIDATES])

    def _candidate(self, i: int, j: int) -> Candidate:
        fit = self._fit(i, j)
        return Candidate(self._own[j].name, fit.field, fit.why, fit.doubt not in MISFITS)

    def _add_target(self) -> None:
        """Propose an origin of the target where its name is no evidence; it is never sure."""
        target = self._schema.target
        place = self._names.index(target)
        if place in self._pairs:
            return
        used = set(self._pairs.values())
        left = {own.name: j for j, own in enumerate(self._own) if j not in used}
        likely = self._possible_targets(place, left)
        candidates = tuple(self._candidate(place, left[own]) for own in likely[:MOST_CANDIDATES])
        if len(likely) != 1:
            standing: Standing = "unsure" if candidates else "absent"
            self.matches[place] = Match(target, None, None, _several(likely), standing, candidates)
            return
        own = likely[0]
        named = _is_outcome_name(own, target)
        reason = render("proposals.match.named") if named else render("proposals.match.only")
        why = "; ".join([reason, candidates[0].why])
        self.matches[place] = Match(target, own, candidates[0].field, why, "unsure", candidates)

    def _possible_targets(self, place: int, left: Mapping[str, int]) -> list[str]:
        """Return the unused columns whose values could be the outcome; of those with an outcome's name only these."""
        column = self._columns[place]
        named = [own for own in left if _is_outcome_name(own, self._schema.target)]
        possible = [own for own, j in left.items() if _could_be(self._own[j], column, partial(self._fit, place, j))]
        if possible:
            return [own for own in possible if own in named] or possible
        # Codes without a meaning of their own need an outcome's name, and at least one code for each class.
        codes = {own: len(self._own[left[own]].entries.texts) for own in named}
        return [own for own in named if column.values and len(column.values) <= codes[own] <= FEW_VALUES]


def _is_outcome_name(own: str, target: str) -> bool:
    """Return whether a name is one of outcomes, or like the target's."""
    return bool(OUTCOME_NAMES & set(_words(own).split())) or name_likeness(target, own) >= LEAST_MATCH


def _several(likely: list[str]) -> str:
    """Return that no column fits, with those that may be the target."""
    if not likely:
        return render("proposals.match.none")
    return render("proposals.match.several", columns=shorten(likely, FEW_NAMES))


def _could_be(own: OwnColumn, column: Column, fit_of: Callable[[], Fit]) -> bool:
    """Return whether a column's values could be a target's; the fit is only looked for where it is needed."""
    kind = own.proposal.kind
    if column.range is not None:
        fit = fit_of()
        if kind != "number" or fit.share < FITTING or own.numbers is None:
            return False
        spread = float(np.ptp(own.numbers.values)) * abs(fit.field.multiply)
        return spread >= LEAST_SPAN * (column.range[1] - column.range[0])
    entries = own.entries
    if kind not in ("flag", "category", "number") or len(entries.texts) > MANY_VALUES:
        return False
    read, _ = read_column(pd.Series(entries.texts, dtype=object), entries.name, column, fit_of().field)
    of_schema = np.isin(read.astype(str), column.values)
    most = entries.counts[of_schema].sum() >= MOST_ROWS * entries.n_present
    return bool(most and len(set(read[of_schema])) >= max(2, len(column.values) / 2))


def describe_gaps(site: Site) -> dict[str, str]:
    """Return comments on the columns of a site's mapping that a person has to complete."""
    schema = datasets.load(site.dataset).schema
    comments = {}
    for name, entry in site.mapping.items():
        if isinstance(entry, Field) and UNKNOWN in (entry.values or {}).values():
            values = ", ".join(schema.columns[name].values or ("no", "yes"))
            comments[name] = render("proposals.file.codes", values=values)
        elif entry is None and name == schema.target:
            comments[name] = render("proposals.file.target")
    return comments


def mapping_of(fields: Iterable[tuple[str, Field | None]]) -> ColumnMapping:
    """Return the mapping of a site, without columns that are read under the schema's own name."""
    entries = {column: field_entry(field) for column, field in fields}
    return {name: entry for name, entry in entries.items() if entry != name}


def field_entry(field: Field | None) -> Entry:
    """Return the entry of a mapping for a reading: a name alone where cells are read unchanged."""
    if field is None or field != Field(field.column):
        return field
    return field.column


def name_likeness(one: str, other: str) -> float:
    """Return the likeness of two names, from 0 to 1.

    Examples
    --------
    >>> name_likeness("age", "AGE"), name_likeness("sex", "Gender"), name_likeness("chol", "ward")
    (1.0, 0.9, 0.0)
    """
    first, second = [plain_name(re.sub(r"[\[(].*", "", name) or name) for name in (one, other)]
    if first == second and first:
        return 1.0
    parts = [set(_words(name).split()) for name in (one, other)]
    likeness = 0.85 * len(parts[0] & parts[1]) / max(1, min(map(len, parts)))
    ratio = difflib.SequenceMatcher(None, first, second).ratio()
    if ratio >= 0.75:
        likeness = max(likeness, ratio)
    reading, another = [word_list().read(name) for name in (one, other)]
    if reading.parts and reading.parts == another.parts and not reading.rest + another.rest:
        likeness = max(likeness, 0.9)
    return round(likeness, 3)


def _words(name: str) -> str:
    return " ".join(_SPLIT.split(name_words(name))).strip()
