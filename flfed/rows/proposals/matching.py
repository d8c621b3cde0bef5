"""Proposed mappings of a table to an existing schema: by names, values, units and ranges."""

from __future__ import annotations

import difflib
import math
import re
import secrets
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from flfed.rows.data import datasets
from flfed.rows.data.holdout import Holdout
from flfed.rows.data.mapping import read_column
from flfed.rows.data.parsing.fields import ColumnMapping, Field, plain_name
from flfed.rows.data.policy import Policy
from flfed.rows.data.schema import Column, Schema
from flfed.rows.data.site import Site
from flfed.rows.data.sources import Source
from flfed.rows.proposals import texts
from flfed.rows.proposals.cells import FEW_VALUES, LEAST_ROWS, Cells, Columns, Numbers, name_words, read_numbers
from flfed.rows.proposals.columns import PAIRS, TRUE, flags_by_text, propose_column, unit_of
from flfed.rows.proposals.own_tables import read_named, refuse_lines_above
from flfed.words import render

NAME_WEIGHT = 0.7
"""Weight of the names' likeness in a match; the rest is the fit of the values."""
LEAST_MATCH = 0.6
"""Least score of a proposed pair."""
FITTING = 0.98
"""Least share of fitting rows in a match that is sure."""
UNKNOWN = "?"
"""Mark in a mapping for the schema's value of a code that a person has to name."""
SYNONYMS = (
    {"sex", "gender"}, {"age", "years"}, {"bmi", "body mass index"}, {"sbp", "systolic", "trestbps"},
    {"chol", "cholesterol"}, {"hr", "heart rate", "thalach", "pulse"}, {"diagnosis", "disease", "dx", "outcome"},
    {"id", "patient id", "patient"}, {"income", "annual inc", "salary"}, {"dob", "birth date", "date of birth"},
    {"smoker", "smoking"}, {"died", "death", "mortality"}, {"default", "loan status", "bad"},
)  # fmt: skip
FACTORS = (
    (38.67, "mmol/L", "mg/dL", "cholesterol"), (1 / 38.67, "mg/dL", "mmol/L", "cholesterol"),
    (88.57, "mmol/L", "mg/dL", "triglycerides"), (18.016, "mmol/L", "mg/dL", "glucose"),
    (1 / 18.016, "mg/dL", "mmol/L", "glucose"), (88.42, "mg/dL", "µmol/L", "creatinine"),
    (1 / 88.42, "µmol/L", "mg/dL", "creatinine"), (2.54, "inches", "cm", ""), (100.0, "m", "cm", ""),
    (0.01, "cm", "m", ""), (0.45359237, "lb", "kg", ""), (100.0, "shares", "%", ""), (1 / 365.25, "days", "years", ""),
    (1 / 12, "months", "years", ""), (12.0, "years", "months", ""), (1000.0, "thousands", "", ""),
)  # fmt: skip
"""Conversions of units: factor, unit before, unit after, and substance."""
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
_SYNONYMS = [re.compile(f" ({'|'.join(names)}) ") for names in SYNONYMS]


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
    sure : bool
    """

    column: str
    own: str | None
    field: Field | None
    why: str
    sure: bool

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
    unread: tuple[str, ...] = ()

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
        columns = datasets.load(self.site.dataset).schema.columns
        comments = {}
        for name in self.unnamed:
            comments[name] = render("proposals.file.codes", values=", ".join(columns[name].values))
        if self.target.own is None:
            comments[self.target.column] = render("proposals.file.target")
        return texts.write_new(folder, texts.site_files(self.site, comments))


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
    refuse_lines_above(table, source, name, list(schema.columns), named=False)
    matches = propose_mapping(table, schema)
    used = {match.own for match in matches}
    policy = Policy(disclosure="open", resplit=True) if open_data else Policy()
    site = Site(
        name=name, title=title, dataset=dataset, source=source, mapping=mapping_of(matches),
        holdout=Holdout(salt=secrets.token_hex(8)), policy=policy,
    )  # fmt: skip
    return SiteProposal(site, matches, tuple(own for own in map(str, table.columns) if own not in used))


@dataclass(frozen=True)
class _Fit:
    """Share of a column's rows that fit, and the reading with which they do."""

    share: float
    field: Field
    why: str
    sure: bool = True


def propose_mapping(table: pd.DataFrame, schema: Schema) -> list[Match]:
    """Return the origin of each column of a schema, one to one.

    Parameters
    ----------
    table : DataFrame
        As a source gives it.
    schema : Schema
    """
    from scipy.optimize import linear_sum_assignment

    own = [str(name) for name in table.columns]
    alike, score, fits = _scores(table, schema)
    rows, columns = linear_sum_assignment(-score)
    pairs: dict[int, int] = dict(zip(rows.tolist(), columns.tolist(), strict=True))
    matches = []
    for i, name in enumerate(schema.columns):
        j = pairs.get(i, -1)
        if j < 0 or score[i, j] < LEAST_MATCH:
            matches.append(Match(name, None, None, render("proposals.match.none"), sure=False))
        else:
            matches.append(_match(name, own[j], fits[i, j], same=bool(alike[i, j] == 1)))
    read = {match.own for match in matches}
    left = {name: table.iloc[:, place] for place, name in enumerate(own) if name not in read}
    for place, match in enumerate(matches):
        if match.column == schema.target and match.own is None:
            matches[place] = _target(left, schema)
    return matches


def _match(name: str, own: str, fit: _Fit, *, same: bool) -> Match:
    """Return the match of a schema's column with an own one, whose name is the `same` or similar."""
    agree = "the names agree" if same else render("proposals.match.similar")
    return Match(name, own, fit.field, "; ".join([agree, fit.why]), same and fit.sure and fit.share >= FITTING)


def _scores(table: pd.DataFrame, schema: Schema) -> tuple[np.ndarray, np.ndarray, dict[tuple[int, int], _Fit]]:
    """Return the likeness of names, the scores [schema's columns, own columns], and the fits."""
    alike = np.zeros((len(schema.columns), table.shape[1]))
    score = np.zeros_like(alike)
    fits = {}
    for i, (name, column) in enumerate(schema.columns.items()):
        for j, own in enumerate(map(str, table.columns)):
            alike[i, j] = name_likeness(name, own)
            if alike[i, j] > 0.3:
                fits[i, j] = _fit(table.iloc[:, j], own, name, column)
                score[i, j] = NAME_WEIGHT * alike[i, j] + (1 - NAME_WEIGHT) * fits[i, j].share
    return alike, score, fits


def _target(left: Columns, schema: Schema) -> Match:
    """Return a possible origin of the target where its name is no evidence; it is never sure.

    It is the only unused column whose values could be the outcome, or the only one of those with an outcome's name.
    """
    target = schema.target
    column = schema.columns[target]
    named = [own for own in left if _is_outcome_name(own, target)]
    fits = {own: _fit(cells, own, target, column) for own, cells in left.items()}
    could = [own for own, fit in fits.items() if _could_be(left[own], column, fit)]
    # Codes without a meaning of their own need an outcome's name, and at least one code for each class.
    coded = [own for own in named if column.values and len(column.values) <= left[own].nunique() <= FEW_VALUES]
    likely = [own for own in could if own in named] or could or coded
    if len(likely) == 1:
        own = likely[0]
        why = render("proposals.match.named") if own in named else render("proposals.match.only")
        return Match(target, own, fits[own].field, "; ".join([why, fits[own].why]), sure=False)
    return Match(target, None, None, _several(likely), sure=False)


def _is_outcome_name(own: str, target: str) -> bool:
    """Return whether a name is one of outcomes, or like the target's."""
    return bool(OUTCOME_NAMES & set(_words(own).split())) or name_likeness(target, own) >= LEAST_MATCH


def _several(likely: list[str]) -> str:
    """Return that no column fits, with those that may be the target."""
    if not likely:
        return render("proposals.match.none")
    names = ", ".join(likely[:FEW_NAMES])
    if len(likely) > FEW_NAMES:
        names += ", …"
    return render("proposals.match.several", columns=names)


def _could_be(cells: pd.Series, column: Column, fit: _Fit) -> bool:
    """Return whether a column's values could be a target's."""
    kind = propose_column(fit.field.column, cells).kind
    entries = Cells.of(fit.field.column, cells)
    if column.range is not None:
        numbers = read_numbers(entries)
        if kind != "number" or fit.share < FITTING or numbers is None:
            return False
        spread = float(np.ptp(numbers.values)) * abs(fit.field.multiply)
        return spread >= LEAST_SPAN * (column.range[1] - column.range[0])
    if kind not in ("flag", "category", "number"):
        return False
    read, _ = read_column(pd.Series(entries.texts, dtype=object), entries.name, column, fit.field)
    of_schema = np.isin(read.astype(str), column.values)
    most = entries.counts[of_schema].sum() >= MOST_ROWS * entries.n_present
    return bool(most and len(set(read[of_schema])) >= max(2, len(column.values) / 2))


def mapping_of(matches: list[Match]) -> ColumnMapping:
    """Return the mapping of a site, without columns that are read under the schema's own name."""
    mapping: dict[str, str | Field | None] = {}
    for match in matches:
        if match.own is None or match.field is None:
            mapping[match.column] = None
        elif match.field != Field(match.own):
            mapping[match.column] = match.field
        elif match.own != match.column:
            mapping[match.column] = match.own
    return mapping


def name_likeness(one: str, other: str) -> float:
    """Return the likeness of two names, from 0 to 1.

    Examples
    --------
    >>> name_likeness("age", "AGE"), name_likeness("sex", "Gender"), name_likeness("chol", "ward")
    (1.0, 0.9, 0.0)
    """
    plain = [plain_name(re.sub(r"[\[(].*", "", name) or name) for name in (one, other)]
    if plain[0] == plain[1] and plain[0]:
        return 1.0
    words = [_words(name) for name in (one, other)]
    for names in _SYNONYMS:
        if all(names.search(f" {word} ") for word in words):
            return 0.9
    parts = [set(word.split()) for word in words]
    likeness = 0.85 * len(parts[0] & parts[1]) / max(1, min(map(len, parts)))
    ratio = difflib.SequenceMatcher(None, plain[0], plain[1]).ratio()
    if ratio >= 0.75:
        likeness = max(likeness, ratio)
    return round(likeness, 3)


def _words(name: str) -> str:
    return " ".join(_SPLIT.split(name_words(name))).strip()


def _fit(cells: pd.Series, own: str, name: str, column: Column) -> _Fit:
    """Return the fit of one column's cells to a schema column."""
    entries = Cells.of(own, cells)
    plain = Field(own, missing=entries.missing)
    if not entries.n_present:
        return _Fit(0.0, plain, "it is empty")
    if column.is_number():
        return _number(entries, plain, name, column)
    if column.values or column.kind == "flag":
        return _codes(entries, plain, column)
    proposal = propose_column(own, cells)
    field = replace(proposal.field or plain, column=own)
    share = 1.0 if proposal.kind == column.kind else 0.3
    return _Fit(share, field, render("proposals.match.kind", kind=proposal.kind))


def _number(entries: Cells, plain: Field, name: str, column: Column) -> _Fit:
    numbers = read_numbers(entries)
    if numbers is None or column.range is None:
        return _Fit(0.0, plain, render("proposals.match.numbers"))
    fit = _as_numbers(numbers, name, column)
    other = _as_numbers(numbers.other, name, column) if numbers.other else None
    # The range may distinguish decimals from thousands.
    if other and fit.share < FITTING <= other.share:
        fit = other
    if not numbers.doubt:
        return fit
    return replace(fit, why="; ".join([fit.why, numbers.doubt]), sure=False)


def _as_numbers(numbers: Numbers, name: str, column: Column) -> _Fit:
    """Return the fit of numbers to a column with a range."""
    entries = numbers.cells
    values = numbers.values
    field = replace(numbers.reading, column=entries.name, missing=entries.missing)
    is_code = np.isin(values, [code for code in column.missing if isinstance(code, float)])
    ends = column.range or (-math.inf, math.inf)
    inside = _inside(values[~is_code], entries.counts[~is_code], ends)
    if inside >= FITTING:
        unit = unit_of(entries.name)
        if unit and column.unit and plain_name(unit) != plain_name(column.unit):
            return _Fit(inside, field, render("proposals.match.unit", unit=unit, other=column.unit))
        return _Fit(inside, field, render("proposals.match.inside"))
    # A unit is proposed only where it brings nearly all values into the range, and no other unit does.
    factors = [
        one
        for one in _factors(entries.name, name, column)
        if _inside(values[~is_code] * one[0], entries.counts[~is_code], ends) >= FITTING
    ]
    if inside < 0.5 and len(factors) == 1:
        factor, before, after, _ = factors[0]
        why = render("proposals.match.converted", before=before, after=after)
        return _Fit(0.9, replace(field, multiply=round(factor, 8)), why)
    return _Fit(inside, field, render("proposals.match.outside", percent=round(100 * inside)))


def _factors(own: str, name: str, column: Column) -> list[tuple[float, str, str, str]]:
    """Return the conversions to a column's unit, of a substance where the names have one."""
    fitting = [one for one in FACTORS if plain_name(one[2]) == plain_name(column.unit)]
    begins = tuple(plain_name(word)[:4] for word in (own, name))
    named = [one for one in fitting if one[3] and one[3].startswith(begins)]
    return named or fitting


def _inside(values: np.ndarray, counts: np.ndarray, ends: tuple[float, float]) -> float:
    within = (values >= ends[0]) & (values <= ends[1])
    return float(counts[within].sum() / max(counts.sum(), 1))


def _codes(entries: Cells, plain: Field, column: Column) -> _Fit:
    """Return the fit of codes to a schema's values."""
    read, broken = read_column(pd.Series(entries.texts, dtype=object), entries.name, column, plain)
    if not broken and len(read):
        return _Fit(1.0, plain, render("proposals.match.values"))
    named = _named_flags(entries) if column.kind == "flag" else _named_values(entries, column)
    named = named or _named_yes_no(entries, column)
    named_rows = sum(count for text, count in entries.rows_by_text.items() if text in named)
    share = named_rows / max(entries.n_present, 1)
    if share >= FITTING:
        return _Fit(share, replace(plain, values=named), render("proposals.match.codes"))
    # Other codes are listed for a person to name; those of few rows are not written down.
    listed = {text: named.get(text, UNKNOWN) for text, count in entries.rows_by_text.items() if count >= LEAST_ROWS}
    fits_in_number = len(entries.texts) <= max(len(column.values), 2)
    likely = 0.6 if fits_in_number else 0.2 * share
    return _Fit(likely, replace(plain, values=listed), render("proposals.match.unnamed"))


def _named_flags(entries: Cells) -> dict[str, str]:
    texts = {text.casefold() for text in entries.texts}
    return flags_by_text(entries) if any(map(texts.issubset, PAIRS)) else {}


def _named_yes_no(entries: Cells, column: Column) -> dict[str, str]:
    """Return the schema's value of each code, where both are yes and no in some words."""
    flags = _named_flags(entries)
    if len(column.values) != 2 or {value.casefold() for value in column.values} not in PAIRS:
        return {}
    by_flag = {str(int(value.casefold() in TRUE)): value for value in column.values}
    return {text: by_flag[flag] for text, flag in flags.items()}


def _named_values(entries: Cells, column: Column) -> dict[str, str]:
    """Return the schema's value of each code that abbreviates only one."""
    same = {plain_name(value): value for value in column.values}
    named = {}
    for text in entries.texts:
        plain = plain_name(text)
        longer = [value for value in column.values if plain and plain_name(value).startswith(plain)]
        if plain in same or len(longer) == 1:
            named[text] = same.get(plain) or longer[0]
    return named
