"""Proposed kinds of columns, from names and cells.

A person confirms a proposal: doubts are stated, and values from rows are marked.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

import numpy as np
import pandas as pd

from flfed.errors import count_in_words
from flfed.rows.data.findings.oddities import rows_in_other_case
from flfed.rows.data.parsing.fields import Field, has_control
from flfed.rows.data.schema import Column
from flfed.rows.proposals.cells import (
    DIGITS,
    FEW_VALUES,
    LEAST_ROWS,
    NO_NUMBER,
    ZEROS_FIRST,
    Cells,
    Numbers,
    breaks,
    field_of,
    find_unknowns,
    is_number_text,
    read_numbers,
)
from flfed.words import render, usage_error

ProposedKind = Literal["number", "category", "flag", "date", "id", "left-out"]
FEATURES = ("number", "category", "flag")
"""Kinds of features."""
SMOOTH = 0.4
"""Least correlation of the counts of neighbouring values in a column of amounts: codes have none."""
SMOOTH_ERRORS = 2.5
"""Least number of standard errors of that correlation."""
MOST_CELLS = 0.8
"""Least share of rows whose cells have the column's form."""
LEAST_COUNTED = 20
"""Least number of rows of a site for which it is tested whether a column counts them."""
NEARLY_ALL = 0.95
FILLED = 0.9
"""Least share of distinct numbers, and of the whole numbers between them, in a column that counts the rows."""
UNLISTED = "other"
"""Value of a category that stands for all values of few rows."""
MOST_VALUES = 50
"""Largest number of values of a category; the least frequent of more are `UNLISTED`."""
FEW_CODES = 5
"""Largest number of different whole numbers that are taken for codes."""
MOST_FILLED = 0.6
"""Largest share of cells with a value in a column whose empty cells are told."""
MOST_DAYS = 0.9
"""Largest share of a column's amounts that are days such as 20240131."""
WORDS = (
    "yes no, true false, y n, t f, ja nein, j n, wahr falsch, oui non, vrai faux, ja nee, waar onwaar, ja nej, ja nei, "
    "kyllä ei, jah ei, sí no, si no, sì no, vero falso, verdadero falso, sim não, sim nao, verdadeiro falso, tak nie, "
    "ano ne, áno nie, da ne, da nu, igen nem, jā nē, taip ne, evet hayır, evet hayir, ναι όχι, да нет, так ні"
)
"""Words for yes and no in lower case."""
FLAGS = tuple(set(pair.split()) for pair in WORDS.split(","))
PAIRS = ({"0", "1"}, *FLAGS)
TRUE = {"1", *(pair.split()[0] for pair in WORDS.split(","))}
COUNTS_ROWS = "it counts the rows"
DAYS = ("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%Y/%m/%d", "%d-%m-%Y", "%m-%d-%Y", "%d %b %Y", "%d-%b-%Y")
DATES = ("", *map("".join, product(DAYS, ("", " %H:%M", " %H:%M:%S"))))
"""Formats to try, ISO 8601 first."""
_AREA_NAME = re.compile(r"zip|postal|postcode|plz|fips")
_UNIT = re.compile(r"[\[(]([^\[\]()]{1,20})[\])]\s*$")
_SHORT_YEAR = re.compile(r"(0?[1-9]|[12]\d|3[01])([-./])(0?[1-9]|[12]\d|3[01]|[A-Za-z]{3})\2\d{2}(\s|$)")
_DAY = re.compile(r"(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])")


@dataclass(frozen=True)
class ColumnProposal:
    """Proposed kind of a column.

    Attributes
    ----------
    name : str
        The table's own.
    kind : {"number", "category", "flag", "date", "id", "left-out"}
        "left-out" is a column that is of use in no schema.
    why : str
        Evidence for the kind; holds no cell.
    sure : bool
        Whether no person needs to check the kind.
    column : Column or None
        For the schema; None for one that is left out.
    field : Field or None
        Reading of its cells; None where they are read unchanged.
    from_rows : bool
        Whether range or values are from rows.
    unlisted : int
        Rows whose value is `UNLISTED`.
    gaps : bool
        Whether some rows have no value.
    feature : ColumnProposal or None
        The proposal of an identifier as a feature, if it may be one; people's names are none.
    """

    name: str
    kind: ProposedKind
    why: str
    sure: bool = True
    column: Column | None = None
    field: Field | None = None
    from_rows: bool = False
    unlisted: int = 0
    gaps: bool = False
    feature: ColumnProposal | None = None


Proposals = Mapping[str, ColumnProposal]
"""Proposed kinds of columns, by name."""


def propose_column(
    name: str, cells: pd.Series, *, codes: Sequence[str] = (), keep: bool = False, copies: np.ndarray | None = None
) -> ColumnProposal:
    """Return the proposed kind of a column.

    Parameters
    ----------
    name : str
    cells : Series
        As a source gives them: texts of a CSV file, or values of a data frame.
    codes : sequence of str
        A person's codes for "not known".
    keep : bool
        Whether a person wants it as a feature, even if it looks like an identifier, and all its numbers in its range.
    copies : bool array [rows], optional
        Which rows are copies of an earlier one as a whole: an identifier is distinct among the others.

    Raises
    ------
    UsageError
        If a column to keep is unusable as a feature.
    """
    repeated = 0 if copies is None else Cells.of(name, cells[copies], codes).n_present
    entries = replace(Cells.of(name, cells, codes), keep=keep, copies=repeated)
    proposal = _proposal(entries, cells)
    other = _as_feature(entries, proposal) if proposal.kind in ("id", "left-out") else None
    if keep and proposal.kind not in FEATURES:
        if other is None:
            raise usage_error("proposals.table.unusable", column=name, why=proposal.why)
        proposal = replace(other, why=render("proposals.why.kept", why=other.why), sure=False)
    elif other is not None and proposal.why != COUNTS_ROWS and not are_people(entries):
        proposal = replace(proposal, feature=other)
    if proposal.kind in FEATURES and entries.n_present <= MOST_FILLED * entries.rows:
        why = render("proposals.why.gaping", why=proposal.why, percent=100 - 100 * entries.n_present // entries.rows)
        proposal = replace(proposal, why=why, sure=False)
    return replace(proposal, gaps=entries.n_present < entries.rows or bool(proposal.field and proposal.field.missing))


def _as_feature(entries: Cells, proposal: ColumnProposal) -> ColumnProposal | None:
    """Return the proposal of an identifier as a feature, or None where it is unusable as one."""
    read = read_numbers(entries)
    repeats = len(entries.texts) > 1 and entries.share_distinct < 0.5
    why = proposal.why
    if read is not None and len(read.values) > MOST_VALUES:
        return _number(read, why, sure=False)
    if repeats:
        proposal = _category(entries, why)
    return proposal if proposal.kind in FEATURES else None


def _proposal(entries: Cells, cells: pd.Series) -> ColumnProposal:
    name = entries.name
    if not entries.n_present:
        return ColumnProposal(name, "left-out", "is empty")
    if len(entries.texts) == 1:
        return ColumnProposal(name, "left-out", render("proposals.why.constant"))
    if splits_rows(entries):
        return ColumnProposal(name, "left-out", render("proposals.why.split"), False)
    # The types of a data frame or a database are trusted.
    if cells.dtype.kind == "M":
        return _date(entries, "", render("proposals.why.dates"))
    if cells.dtype.kind == "b" or _is_flag(entries):
        return _flag(entries)
    if isinstance(cells.dtype, pd.CategoricalDtype):
        return _category(entries, render("proposals.why.declared"), sure=True)
    for propose in (_as_number, propose_dates, _as_words):
        proposal = propose(entries)
        if proposal is not None:
            return proposal
    return _identifier(entries, render("proposals.why.varied"), sure=entries.share_distinct > 0.9)


def unit_of(name: str) -> str:
    """Return the unit in brackets at a name's end.

    Examples
    --------
    >>> unit_of("Torque [Nm]"), unit_of("weight (kg)"), unit_of("age")
    ('Nm', 'kg', '')
    """
    match = _UNIT.search(name.strip())
    return match[1].strip() if match else ""


def round_outward(low: float, high: float) -> tuple[float, float]:
    """Return a range of round numbers around another one.

    Its ends lie up to a fifth of the span further out, and so hide the values of single rows.

    Examples
    --------
    >>> round_outward(29, 77), round_outward(0.02, 0.97), round_outward(0, 4)
    ((25.0, 80.0), (0.0, 1.0), (0.0, 4.0))
    """
    size = (high - low) / 5 * (1 + 1e-9)
    power = 10.0 ** math.floor(math.log10(size))
    # The next of 1, 2, 5, 10 times a power of ten from below.
    step = max(part * power for part in (1, 2, 5) if part * power <= size)
    start = math.floor(low / step) * step
    end = math.ceil(high / step) * step
    digits = max(0, 2 - math.floor(math.log10(step)))
    return round(start, digits), round(end, digits)


def _is_flag(entries: Cells) -> bool:
    """Return whether texts are those of one or several flags: 1 and 0 here, oui and non there."""
    texts = {text.casefold() for text in entries.texts}
    pairs = [pair for pair in PAIRS if pair <= texts]
    return bool(pairs) and set().union(*pairs) == texts


def _flag(entries: Cells) -> ColumnProposal:
    words = {text.casefold() for text in entries.texts}
    field = field_of(entries)
    if not words <= {"0", "1", "yes", "no", "true", "false"}:
        field = Field(entries.name, missing=entries.missing, values=flags_by_text(entries))
    sure = len(words) == 2
    in_words = entries.n_present - sum(entries.rows_by_text.get(digit, 0) for digit in "01")
    why = render("proposals.why.flag") if sure else render("proposals.why.flags", cells=count_in_words(in_words))
    return ColumnProposal(entries.name, "flag", why, sure, Column(kind="flag"), field)


def flags_by_text(entries: Cells) -> dict[str, str]:
    """Return 1 or 0 for each text of a flag."""
    return {text: str(int(text.casefold() in TRUE)) for text in entries.texts}


def _as_number(entries: Cells) -> ColumnProposal | None:
    """Return the proposal of a column of numbers, None for other cells."""
    read = read_numbers(entries)
    if read is None:
        return None
    if read.other and read.reading.thousands:
        return _number(read, render("proposals.why.numbers"), sure=False)
    return _as_plain_number(read)


def _as_plain_number(read: Numbers) -> ColumnProposal:
    entries = read.cells
    values = read.values
    whole = bool((values == np.rint(values)).all())
    if whole and any(map(ZEROS_FIRST.fullmatch, entries.texts)):
        return _codes(entries, render("proposals.why.zeros"))
    days = sum(map(bool, map(_DAY.fullmatch, entries.texts))) / len(entries.texts)
    coded = whole and not _SCHOOL_YEARS.match(entries.words)
    if coded and (proposal := _whole_numbers(entries, values, all_days=days == 1)):
        if read.doubt and proposal.kind == "category":
            return replace(proposal, why=f"{proposal.why}; {read.doubt}", sure=False)
        return proposal
    sure = len(values) > FEW_VALUES or not whole
    why = render("proposals.why.numbers")
    if not sure:
        why = render("proposals.why.codes", values=len(values))
    if days > MOST_DAYS:
        sure = False
        why = render("proposals.why.days", why=why)
    return _number(read, why, sure=sure and not _AREA_NAME.search(entries.words))


def _whole_numbers(entries: Cells, values: np.ndarray, *, all_days: bool) -> ColumnProposal | None:
    """Return the proposal of whole numbers that are no amounts, or None; `all_days` where each could be a date."""
    if all_days and next(_formats(entries.texts), None) == "":
        return _date(entries, "", render("proposals.why.calendar"), sure=False)
    if proposal := _numbers_by_name(entries, values):
        return proposal
    if are_spread_codes(values, entries.counts):
        return _category(entries, render("proposals.why.spread"))
    distinct = len(values)
    span = _span(values)
    if distinct <= FEW_VALUES and distinct < span <= 100 and values.min() >= 0 and span > 1.5 * distinct:
        return _category(entries, render("proposals.why.gaps"))
    if distinct <= FEW_CODES:
        return _category(entries, render("proposals.why.amounts", values=distinct))
    return None


def _numbers_by_name(entries: Cells, values: np.ndarray) -> ColumnProposal | None:
    """Return the proposal of whole numbers by the column's name and their repetition, or None."""
    amounts = repeat_as_amounts(values, entries.counts)
    words = entries.words
    named = is_identifier_name(words, amounts=amounts)
    if proposal := _numbers_of_rows(entries, values, named=named):
        return proposal
    distinct = len(values)
    if _AREA_NAME.search(words) or (entries.share_distinct > 0.99 and entries.n_present > 100 and values.min() > 1e5):
        return _codes(entries, render("proposals.why.identifying"))
    if 2 < distinct <= MOST_VALUES:
        if names_owner(words) and not amounts:
            return _identifier(entries, render("proposals.why.shared"))
        if named or _CODE_WORD.search(words):
            return _category(entries, render("proposals.why.coded"))
    return None


def _span(values: np.ndarray) -> float:
    """Return the number of whole numbers from the least to the greatest."""
    return float(values.max() - values.min()) + 1


def _numbers_of_rows(entries: Cells, values: np.ndarray, *, named: bool) -> ColumnProposal | None:
    """Return an identifier where whole numbers identify rows or persons, or None."""
    distinct = len(values)
    span = _span(values)
    if entries.n_present >= LEAST_ROWS * 2 and entries.share_distinct >= NEARLY_ALL and distinct >= FILLED * span:
        return _identifier(entries, COUNTS_ROWS, sure=values.min() in (0, 1) or named)
    # Among so many amounts from this range, two or more pairs would be equal.
    if entries.share_distinct == 1 and distinct * (distinct - 1) > 4 * span:
        return _identifier(entries, render("proposals.why.distinct"))
    if not named:
        return None
    if entries.share_distinct > 0.9:
        return _identifier(entries, render("proposals.why.identifier"), sure=True)
    most = FEW_VALUES if PERSON_WORD.search(entries.words) else MOST_VALUES
    return _identifier(entries, render("proposals.why.grouped")) if distinct > most else None


def _codes(entries: Cells, why: str) -> ColumnProposal:
    if len(entries.texts) <= MOST_VALUES and entries.share_distinct < 0.2:
        return _category(entries, why)
    return _identifier(entries, why)


def _number(read: Numbers, why: str, *, sure: bool) -> ColumnProposal:
    entries = read.cells
    column, doubts = describe_amounts(read, "number")
    field = field_of(entries, read.reading)
    why = "; ".join([why, *entries.named, *doubts])
    return ColumnProposal(entries.name, "number", why, sure and not doubts, column, field, from_rows=True)


def describe_amounts(read: Numbers, kind: Literal["number", "target"]) -> tuple[Column, list[str]]:
    """Return numbers as a column of a schema, and why a person should check them."""
    unknown = find_unknowns(read.values, read.cells.counts, keep=read.cells.keep)
    values = read.values[unknown.genuine & ~unknown.far]
    limits = round_outward(float(values.min()), float(values.max()))
    column = Column(kind=kind, unit=unit_of(read.cells.name), range=limits, missing=unknown.codes)
    return column, [*unknown.doubts, *filter(None, [read.doubt])]


def propose_dates(entries: Cells) -> ColumnProposal | None:
    """Return a column of dates, None for other cells."""
    words = [text for text in entries.texts if text.casefold() in NO_NUMBER]
    entries = entries.without(words)
    texts = entries.texts
    if not texts or not all(map(DIGITS.search, texts[:MOST_VALUES])):
        return None
    forms = list(_formats(texts))
    if not forms:
        return None
    # 3.4.2026 may be March or April, where no day is above 12.
    reasons = [render("proposals.why.dates")]
    if len(forms) > 1:
        reasons.append(render("proposals.why.exchanged"))
    return _date(entries, forms[0], "; ".join([*reasons, *entries.named]), sure=len(forms) == 1)


def _formats(texts: Sequence[str]) -> Iterator[str]:
    """Yield the formats by which all texts are dates."""
    column = Column(kind="date")
    for form in DATES:
        field = Field("", date=form)
        if not breaks(texts[:MOST_VALUES], column, field) and not breaks(texts, column, field):
            yield form


def _date(entries: Cells, form: str, why: str, *, sure: bool = True) -> ColumnProposal:
    field = field_of(entries, Field("", date=form))
    return ColumnProposal(entries.name, "date", why, sure, Column(kind="date"), field)


def _as_words(entries: Cells) -> ColumnProposal | None:
    """Return a column of words, None where they are nearly all different."""
    distinct = len(entries.texts)
    if people := are_people(entries):
        return _identifier(entries, people, sure=True)
    if all(map(_SHORT_YEAR.match, entries.texts[:MOST_VALUES])):
        return _identifier(entries, render("proposals.why.year"))
    mixed = sum(map(is_number_text, entries.texts))
    if mixed and distinct > MOST_VALUES and entries.share_distinct > 0.1:
        return _identifier(entries, render("proposals.why.mixed"))
    if proposal := _long_or_different(entries, named=is_identifier_name(entries.words)):
        return proposal
    if names_owner(entries.words) and distinct > 2:
        return _identifier(entries, render("proposals.why.shared"))
    if (entries.counts >= LEAST_ROWS).any():
        return _category(entries, render("proposals.why.few"), sure=distinct <= MOST_VALUES)
    return None


def _long_or_different(entries: Cells, *, named: bool) -> ColumnProposal | None:
    distinct = len(entries.texts)
    long = float(np.average(list(map(len, entries.texts)), weights=entries.counts)) > 60
    if not (long or entries.share_distinct > 0.5 or (named and distinct > MOST_VALUES)):
        return None
    why = render("proposals.why.long") if long else render("proposals.why.different")
    return _identifier(entries, why, sure=distinct == entries.n_present or long or named)


def _identifier(entries: Cells, why: str, *, sure: bool = False) -> ColumnProposal:
    return ColumnProposal(entries.name, "id", why, sure, Column(kind="id"), field_of(entries))


def _category(entries: Cells, why: str, *, sure: bool = False) -> ColumnProposal:
    """Return a category of the values that enough rows have."""
    order = np.argsort(-entries.counts, kind="stable")[:MOST_VALUES]
    common = [place for place in order if entries.counts[place] >= LEAST_ROWS]
    listed = [place for place in common if not has_control(entries.texts[place])]
    if not listed:
        return _identifier(entries, render("proposals.why.rare"))
    if len(listed) < len(common):
        why = render("proposals.why.broken", why=why, other=UNLISTED)
        sure = False
    if many := rows_in_other_case(entries.texts, entries.counts):
        why = "; ".join([why, render("proposals.cells.cases", rows=many)])
        sure = False
    unlisted = entries.n_present + entries.strays - int(entries.counts[listed].sum())
    values = sorted((entries.texts[place] for place in listed), key=by_number)
    field = field_of(entries)
    if unlisted:
        values = [*(value for value in values if value != UNLISTED), UNLISTED]
        field = Field(entries.name, missing=entries.missing, other=UNLISTED)
    if len(values) < 2:
        return ColumnProposal(entries.name, "left-out", render("proposals.why.constant"))
    column = Column(kind="category", values=tuple(values))
    return ColumnProposal(entries.name, "category", why, sure, column, field, from_rows=True, unlisted=unlisted)


def by_number(text: str) -> tuple[float, str]:
    """Return a sort key that puts numbers in order of size, and other texts after them."""
    try:
        return float(text), text
    except ValueError:
        return math.inf, text


_ID_WORD = re.compile(
    r"(^|[^a-z])(id|ids|uid|udi|uuid|guid|pid|patid|mrn|kvnr|svnr|ahv|bsn|nhs|pesel|ssn|iban|rowid|identifier)($|[^a-z])|#$"
)
_ID_END = re.compile(r"[a-z]{2}id$")
_NO_ID = re.compile(
    r"([ps]aid|laid|acid|fluid|liquid|lipid|covid|rapid|solid|grid|void|valid|hybrid|humid|bid|mid|otid|oid|recid)$"
)
_NUMBER_WORD = re.compile(r"(^|[^a-z])index($|[^a-z])|[a-z].*[^a-z](nr|nbr|no|number|key)$|[a-z]{3}(num|nummer|nr)$")
_AMOUNT_WORD = re.compile(
    r"(^|[^a-z])(age|year|weight|height|length|day|hour|month|amount|score|rate|price)s?($|[^a-z])"
)
PERSON_WORD = re.compile(r"^(subject|patient|customer|client|person|member|account)s?[^a-z]*$")
_CODE_WORD = re.compile(
    r"code|type|class|category|group|status|sex|gender|race|ethnic|region|education|marri|marital|source|reason"
    r"|disposition|level|kind|naics|icd"
)
_SCHOOL_YEARS = re.compile(
    r"(?=.*(edu|school|bildung|schul|scol|istruz|estud))(?=.*(years?|yrs?|jahre?|ann[eé]es?|anni|años))"
)
_NAME_WORD = re.compile(
    r"((first|last|middle|given|family|full|maiden|pat|patient|customer|client|person|employee|doctor|physician) ?"
    r"names?|(patienten|kunden) ?name|names?|navn|namn|nimi|naam|nome|nombre|first|last|initials|nom|prénom|prenom"
    r"|(name|nom|nome|nombre) (of|des|der|du|del|della) \w+)"
)
"""Headings of names as a whole: parts of them may be of anything."""
_OTHER_MEANING = re.compile("first|last|initials|nom")
"""Such headings that may be of anything where a few texts repeat."""
_SURNAME = re.compile(
    r"(?<![^\W\d_])(sur ?name|fore ?name|vor ?name|nach ?name|familien ?name|geburts ?name|etter ?navn|for ?navn"
    r"|mellom ?navn|efter ?namn|för ?namn|fornamn|efter ?navn|suku ?nimi|etu ?nimi|achter ?naam|voor ?naam|roep ?naam"
    r"|nom de (famille|naissance|jeune fille)|prénoms?|prenoms?|cognome|apellidos?)(?![^\W\d_])"
)
"""Words that occur only in headings of people's names."""
_WHO_WORD = re.compile(
    r"(?<![^\W\d_])(doctor|physician|surgeon|nurse|clinician|therapist|midwife|anaesthetist|anesthetist|officer|judge"
    r"|teacher|arzt|ärztin|hausarzt|chirurg|chirurgin|pfleger|pflegerin|krankenschwester|hebamme|médecin|medecin|chirurgien"
    r"|infirmier|infirmière|lege|fastlege|kirurg|sykepleier|jordmor|läkare|sjuksköterska|læge|sygeplejerske|lääkäri|kirurgi"
    r"|sairaanhoitaja|arts|huisarts|verpleegkundige)s?( ?names?)?$"
)
_TITLE = re.compile(r"(mr|mrs|ms|miss|dr|prof|herr|frau|mme|sr|sra)\b\.? *[^\W\d].*", re.IGNORECASE)
_MAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_WORDS = re.compile(r"[^\W\d_]+\.?([-', ]+[^\W\d_]+\.?)*")
_CAPITAL = re.compile(r"[^\W\d_a-zà-öø-ÿ][^\W\d_]+\.?([-' ][^\W\d_]+\.?)*")
"""A name that begins with a capital letter, such as Roe or Roe-Lee."""
_TWO_WORDS = re.compile(r"[^\W\d_]+\.?[-', ]+[^\W\d_].*")
_SPLIT_WORD = re.compile(r"(is |in )?(selected|fold|folds|split|partition|holdout|hold out|train ?test|training set)")


def names_owner(words: str) -> bool:
    """Return whether a heading is of identifiers, such as "hospitalid", and not of codes.

    Examples
    --------
    >>> names_owner("hospitalid"), names_owner("amount paid"), names_owner("admission type id")
    (True, False, False)
    """
    return _is_id(words) and not _CODE_WORD.search(words)


def _is_id(words: str) -> bool:
    return bool(_ID_WORD.search(words) or (_ID_END.search(words) and not _NO_ID.search(words)))


def is_identifier_name(words: str, *, amounts: bool = False) -> bool:
    """Return whether a heading is one of identifiers.

    Parameters
    ----------
    words : str
        See `name_words`.
    amounts : bool
        Whether its values repeat as amounts do: then only a plain "id" means identifiers.

    Examples
    --------
    >>> is_identifier_name("place at index"), is_identifier_name("place at index", amounts=True)
    (True, False)
    >>> is_identifier_name("age at index"), is_identifier_name("age id"), is_identifier_name("patientennummer")
    (False, True, True)
    """
    if _ID_WORD.search(words):
        return True
    if _AMOUNT_WORD.search(words):
        return False
    return not amounts and bool(_is_id(words) or _NUMBER_WORD.search(words) or PERSON_WORD.search(words))


def repeat_as_amounts(values: np.ndarray, counts: np.ndarray) -> bool:
    """Return whether neighbouring values are about as frequent, which codes are only by chance.

    Parameters
    ----------
    values, counts : array [values]
        Distinct numbers, and their numbers of rows.

    Examples
    --------
    >>> repeat_as_amounts(np.arange(20, 80), np.r_[1:31, 30:0:-1])
    True
    >>> repeat_as_amounts(np.arange(60), np.resize([3, 50, 9], 60))
    False
    """
    if len(values) < FEW_VALUES or len(values) == counts.sum():
        return False
    # Square roots of counts have about the same noise, whether large or small.
    roots = np.sqrt(counts[np.argsort(values)].astype(float))
    before = roots[:-1]
    after = roots[1:]
    if np.ptp(before) == 0 or np.ptp(after) == 0:
        return False
    likeness = float(np.corrcoef(before, after)[0, 1])
    return bool(likeness > max(SMOOTH, SMOOTH_ERRORS / np.sqrt(len(roots))))


def count_rows(numbers: np.ndarray) -> bool:
    """Return whether whole numbers count the rows, some of them missing or twice.

    Parameters
    ----------
    numbers : float array [rows]
        NaN where missing.

    Examples
    --------
    >>> count_rows(np.arange(1.0, 31)), count_rows(np.arange(1.0, 31) ** 2)
    (True, False)
    """
    own = numbers[np.isfinite(numbers)]
    if len(own) < LEAST_COUNTED or not (own == np.rint(own)).all():
        return False
    distinct = len(np.unique(own))
    return bool(distinct >= NEARLY_ALL * len(own) and distinct >= FILLED * (np.ptp(own) + 1))


def are_spread_codes(values: np.ndarray, counts: np.ndarray) -> bool:
    """Return whether a few large whole numbers far apart are codes, such as those of industries."""
    large = len(values) > 2 and float(values.min()) >= 1000
    if not large or len(values) > FEW_VALUES * 4 or repeat_as_amounts(values, counts):
        return False
    # Amounts of few values are round: multiples of one step.
    steps = np.diff(np.sort(values))
    return float(steps.sum()) > 10 * len(values) * float(np.gcd.reduce(steps.astype(np.int64)))


def are_people(entries: Cells) -> str:
    """Return why a column of texts holds names or addresses of people, or ""."""
    if _are_mostly(entries, _MAIL):
        return render("proposals.why.mail")
    if not _are_mostly(entries, _WORDS):
        return ""
    if _are_mostly(entries, _TITLE):
        return render("proposals.why.people")
    return render("proposals.why.heading") if _are_names(entries) else ""


def _are_names(entries: Cells) -> bool:
    """Return whether heading and words of a column are those of people's names."""
    many = len(entries.texts) > FEW_VALUES
    if is_name_heading(entries.words) and (many or not _OTHER_MEANING.fullmatch(entries.words)):
        return True
    # Single words may be of a ward or a field, unless there are many and each begins with a capital.
    surnames = _are_mostly(entries, _TWO_WORDS) or (many and _are_mostly(entries, _CAPITAL))
    return bool(surnames and _WHO_WORD.search(entries.words))


def is_name_heading(words: str) -> bool:
    """Return whether a heading is that of people's names, in one of several languages.

    Examples
    --------
    >>> is_name_heading("pasient etternavn"), is_name_heading("last name"), is_name_heading("drug name")
    (True, True, False)
    """
    return bool(_NAME_WORD.fullmatch(words)) or bool(_SURNAME.search(words))


def holds_whole_names(entries: Cells) -> bool:
    """Return whether a column has first and last names of people, or their addresses, which identify people."""
    named = is_name_heading(entries.words)
    return _are_mostly(entries, _MAIL) or (named and _are_mostly(entries, _TWO_WORDS))


def splits_rows(entries: Cells) -> bool:
    """Return whether a column marks a split of the rows, such as somebody's training rows."""
    return len(entries.texts) <= FEW_VALUES and bool(_SPLIT_WORD.fullmatch(entries.words))


def _are_mostly(entries: Cells, form: re.Pattern[str]) -> bool:
    """Return whether the texts of most rows are of a form."""
    fits = [bool(form.fullmatch(text)) for text in entries.texts]
    return bool(entries.counts[fits].sum() >= MOST_CELLS * max(entries.n_present, 1))
