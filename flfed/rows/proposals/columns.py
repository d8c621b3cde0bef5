"""Proposed kinds of columns, from names and cells.

A proposal is for a person to confirm: what is not sure says so, and what was read off rows is marked.
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

from flfed.errors import UsageError
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

ProposedKind = Literal["number", "category", "flag", "date", "id", "left-out"]
FEATURES = ("number", "category", "flag")
"""Kinds that are learnt from."""
SMOOTH = 0.4
"""Correlation of the counts of neighbouring values from which on they are amounts: codes have none."""
SMOOTH_ERRORS = 2.5
"""It is so many standard errors from none, too."""
MOST_CELLS = 0.8
"""Of the rows: so many cells of one form make it the column's."""
LEAST_COUNTED = 20
"""Rows of a site from which on it is looked whether a column counts them."""
UNLISTED = "other"
"""Value of a category that stands for all values of few rows."""
MOST_VALUES = 50
"""Values of a category at most; the least frequent of more are `UNLISTED`."""
FEW_CODES = 5
"""Whole numbers of so few values are taken for codes."""
MOST_DAYS = 0.9
"""Of a column's whole numbers that are days such as 20240131: more are no amounts."""
FLAGS = ({"yes", "no"}, {"true", "false"}, {"y", "n"}, {"t", "f"}, {"ja", "nein"}, {"oui", "non"})
PAIRS = ({"0", "1"}, *FLAGS)
TRUE = {"1", "yes", "true", "y", "t", "ja", "oui"}
CASE = (
    "{} rows have a value that differs from a more frequent one in case or blanks alone: write it in one way, or map "
    "it in the site's package, as Field(..., values={{...}})"
)
COUNTS_ROWS = "it counts the rows"
OWNER = "its name and how its values repeat say that it names what rows belong to"
DAYS = ("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%Y/%m/%d", "%d-%m-%Y", "%m-%d-%Y", "%d %b %Y", "%d-%b-%Y")
DATES = ("", *map("".join, product(DAYS, ("", " %H:%M", " %H:%M:%S"))))
"""Formats that are tried, ISO 8601 first."""
_AREA_NAME = re.compile(r"zip|postal|postcode|plz|fips")
_UNIT = re.compile(r"[\[(]([^\[\]()]{1,20})[\])]\s*$")
_SHORT_YEAR = re.compile(r"(0?[1-9]|[12]\d|3[01])([-./])(0?[1-9]|[12]\d|3[01]|[A-Za-z]{3})\2\d{2}(\s|$)")
_DAY = re.compile(r"(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])")


@dataclass(frozen=True)
class ColumnProposal:
    """What a column is taken for.

    Attributes
    ----------
    name : str
        The table's own.
    kind : {"number", "category", "flag", "date", "id", "left-out"}
        "left-out" is a column that no schema has use for.
    why : str
        What it was told by; holds no cell.
    sure : bool
        Whether no person needs to look at the kind.
    column : Column or None
        For the schema; None for one that is left out.
    field : Field or None
        How it is read; None where its cells are read as they stand.
    from_rows : bool
        Whether range or values were read off rows.
    unlisted : int
        Rows whose value is `UNLISTED`.
    gaps : bool
        Whether some rows have no value.
    feature : ColumnProposal or None
        What an identifier is as a feature, where it may well be one: people's names are none.
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
"""What columns are taken for, by name."""


def propose_column(name: str, cells: pd.Series, *, codes: Sequence[str] = (), keep: bool = False) -> ColumnProposal:
    """Return what a column is taken for.

    Parameters
    ----------
    name : str
    cells : Series
        As a source gives them: texts of a CSV file, or values of a data frame.
    codes : sequence of str
        What a person named as "not known".
    keep : bool
        Whether a person wants it as a feature, also where it looks like an identifier.

    Raises
    ------
    UsageError
        If nothing can be learnt from a column to be kept.
    """
    entries = Cells.of(name, cells, codes)
    proposal = _proposal(entries, cells)
    other = _as_feature(entries, proposal) if proposal.kind in ("id", "left-out") else None
    if keep and proposal.kind not in FEATURES:
        if other is None:
            raise UsageError(f"keep: nothing can be learnt from column {name!r}: {proposal.why}")
        proposal = replace(other, why=f"it is kept as was wished, though {other.why}", sure=False)
    elif other is not None and proposal.why != COUNTS_ROWS and not are_people(entries):
        proposal = replace(proposal, feature=other)
    return replace(proposal, gaps=entries.n_present < entries.rows or bool(proposal.field and proposal.field.missing))


def _as_feature(entries: Cells, proposal: ColumnProposal) -> ColumnProposal | None:
    """Return an identifier as a feature, which nobody would take it for; None where nothing can be learnt from it."""
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
        return ColumnProposal(name, "left-out", "has the same value in every row that has one")
    if splits_rows(entries):
        return ColumnProposal(name, "left-out", "its name says that it splits the rows, which is no measurement", False)
    # What a data frame or a database says of its columns is believed.
    if cells.dtype.kind == "M":
        return _date(entries, "")
    if cells.dtype.kind == "b" or _is_flag(entries):
        return _flag(entries)
    if isinstance(cells.dtype, pd.CategoricalDtype):
        return _category(entries, "it is declared as categorical", sure=True)
    for propose in (_as_number, _as_date, _as_words):
        proposal = propose(entries)
        if proposal is not None:
            return proposal
    return _identifier(entries, "its texts are nearly all different, or long", sure=entries.share_distinct > 0.9)


def unit_of(name: str) -> str:
    """Return the unit that stands in brackets at a name's end.

    Examples
    --------
    >>> unit_of("Torque [Nm]"), unit_of("weight (kg)"), unit_of("age")
    ('Nm', 'kg', '')
    """
    match = _UNIT.search(name.strip())
    return match[1].strip() if match else ""


def round_outward(low: float, high: float) -> tuple[float, float]:
    """Return a range of round numbers around another one.

    Its ends lie up to a fifth of the span further out, which is less than a row's value.

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
    """Tell whether texts are those of a flag, or of several: 1 and 0 at one site and oui and non at another."""
    texts = {text.casefold() for text in entries.texts}
    pairs = [pair for pair in PAIRS if pair <= texts]
    return bool(pairs) and set().union(*pairs) == texts


def _flag(entries: Cells) -> ColumnProposal:
    words = {text.casefold() for text in entries.texts}
    field = field_of(entries)
    if not words <= {"0", "1", "yes", "no", "true", "false"}:
        field = Field(entries.name, missing=entries.missing, values=flags_by_text(entries))
    sure = len(words) == 2
    why = "has two values, yes and no" if sure else "has yes and no, written in several ways"
    return ColumnProposal(entries.name, "flag", why, sure, Column(kind="flag"), field)


def flags_by_text(entries: Cells) -> dict[str, str]:
    """Return 1 or 0 for each text of a flag."""
    return {text: str(int(text.casefold() in TRUE)) for text in entries.texts}


def _as_number(entries: Cells) -> ColumnProposal | None:
    """Return what a column of numbers is, None for other cells."""
    read = read_numbers(entries)
    if read is None:
        return None
    if read.other and read.reading.thousands:
        return _number(read, "its values are numbers", sure=False)
    return _as_plain_number(read)


def _as_plain_number(read: Numbers) -> ColumnProposal:
    entries = read.cells
    values = read.values
    whole = bool((values == np.rint(values)).all())
    if whole and any(map(ZEROS_FIRST.fullmatch, entries.texts)):
        return _codes(entries, "its numbers begin with zeros")
    days = sum(map(bool, map(_DAY.fullmatch, entries.texts))) / len(entries.texts)
    if whole and (proposal := _whole_numbers(entries, values, all_days=days == 1)):
        return proposal
    sure = len(values) > FEW_VALUES or not whole
    why = "its values are numbers" if sure else f"it has {len(values)} whole numbers: if they are codes, a category"
    if days > MOST_DAYS:
        sure = False
        why = f"{why}; most of them could be dates such as 20240131"
    return _number(read, why, sure=sure and not _AREA_NAME.search(entries.words))


def _whole_numbers(entries: Cells, values: np.ndarray, *, all_days: bool) -> ColumnProposal | None:
    """Return what whole numbers are where they are no amounts; `all_days` where each could be a date."""
    if all_days and next(_formats(entries.texts), None) == "":
        return _date(
            entries, "", "its whole numbers are dates such as 20240131: if they are amounts, a number", sure=False
        )
    if proposal := _numbers_by_name(entries, values):
        return proposal
    if are_spread_codes(values, entries.counts):
        return _category(entries, "its few whole numbers lie far apart, as codes do")
    distinct = len(values)
    span = _span(values)
    if distinct <= FEW_VALUES and distinct < span <= 100 and values.min() >= 0 and span > 1.5 * distinct:
        return _category(entries, "its few whole numbers have gaps")
    if distinct <= FEW_CODES:
        return _category(entries, f"it has {distinct} whole numbers: if they are amounts, a number")
    return None


def _numbers_by_name(entries: Cells, values: np.ndarray) -> ColumnProposal | None:
    """Return what whole numbers are by the column's name and by how they repeat."""
    amounts = repeat_as_amounts(values, entries.counts)
    words = entries.words
    named = is_identifier_name(words, amounts=amounts)
    if proposal := _numbers_of_rows(entries, values, named=named):
        return proposal
    distinct = len(values)
    if _AREA_NAME.search(words) or (entries.share_distinct > 0.99 and entries.n_present > 100 and values.min() > 1e5):
        return _codes(entries, "its numbers name something")
    if 2 < distinct <= MOST_VALUES:
        if names_owner(words) and not amounts:
            return _identifier(entries, OWNER)
        if named or _CODE_WORD.search(words):
            return _category(entries, "its name speaks of codes")
    return None


def _span(values: np.ndarray) -> float:
    """Return how many whole numbers there are from the least to the greatest."""
    return float(values.max() - values.min()) + 1


def _numbers_of_rows(entries: Cells, values: np.ndarray, *, named: bool) -> ColumnProposal | None:
    """Return an identifier where whole numbers tell rows or persons apart."""
    distinct = len(values)
    span = _span(values)
    if distinct == entries.n_present >= LEAST_ROWS * 2 and distinct >= 0.9 * span:
        return _identifier(entries, COUNTS_ROWS, sure=values.min() in (0, 1) or named)
    # Of so many amounts drawn from this range two or more pairs would be equal.
    if distinct == entries.n_present and distinct * (distinct - 1) > 4 * span:
        return _identifier(entries, "each row has another whole number: if they are amounts, a number")
    if not named:
        return None
    if entries.share_distinct > 0.9:
        return _identifier(entries, "its name and its distinct numbers say so", sure=True)
    most = FEW_VALUES if PERSON_WORD.search(entries.words) else MOST_VALUES
    if distinct > most:
        return _identifier(entries, "its name says so, and rows of one number may belong together")
    return None


def _codes(entries: Cells, why: str) -> ColumnProposal:
    if len(entries.texts) <= MOST_VALUES and entries.share_distinct < 0.2:
        return _category(entries, why)
    return _identifier(entries, why)


def _number(read: Numbers, why: str, *, sure: bool) -> ColumnProposal:
    entries = read.cells
    unknown = find_unknowns(read.values, entries.counts)
    doubts = [*unknown.doubts, *filter(None, [read.doubt])]
    values = read.values[unknown.genuine]
    low = float(values.min())
    high = float(values.max())
    column = Column(kind="number", unit=unit_of(entries.name), range=round_outward(low, high), missing=unknown.codes)
    field = field_of(entries, read.reading)
    why = "; ".join([why, *entries.named, *doubts])
    return ColumnProposal(entries.name, "number", why, sure and not doubts, column, field, from_rows=True)


def _as_date(entries: Cells) -> ColumnProposal | None:
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
    exchanged = "" if len(forms) == 1 else "; day and month could be exchanged"
    why = "; ".join([f"its values are dates{exchanged}", *entries.named])
    return _date(entries, forms[0], why, sure=not exchanged)


def _formats(texts: Sequence[str]) -> Iterator[str]:
    """Yield the formats by which all texts are dates."""
    column = Column(kind="date")
    for form in DATES:
        field = Field("", date=form)
        if not breaks(texts[:MOST_VALUES], column, field) and not breaks(texts, column, field):
            yield form


def _date(entries: Cells, form: str, why: str = "its values are dates", *, sure: bool = True) -> ColumnProposal:
    field = field_of(entries, Field("", date=form))
    return ColumnProposal(entries.name, "date", why, sure, Column(kind="date"), field)


def _as_words(entries: Cells) -> ColumnProposal | None:
    """Return a column of words, None where they are nearly all different."""
    distinct = len(entries.texts)
    if people := are_people(entries):
        return _identifier(entries, people, sure=True)
    if all(map(_SHORT_YEAR.match, entries.texts[:MOST_VALUES])):
        return _identifier(entries, "its dates have two digits of the year: have the source give four")
    mixed = sum(map(is_number_text, entries.texts))
    if mixed and distinct > MOST_VALUES and entries.share_distinct > 0.1:
        return _identifier(entries, "its cells are partly numbers, partly texts")
    named = is_identifier_name(entries.words)
    if proposal := _long_or_different(entries, named=named):
        return proposal
    if names_owner(entries.words) and distinct > 2:
        return _identifier(entries, OWNER)
    if (entries.counts >= LEAST_ROWS).any():
        return _category(entries, "it has few texts", sure=distinct <= MOST_VALUES)
    return None


def _long_or_different(entries: Cells, *, named: bool) -> ColumnProposal | None:
    distinct = len(entries.texts)
    long = float(np.average(list(map(len, entries.texts)), weights=entries.counts)) > 60
    if not (long or entries.share_distinct > 0.5 or (named and distinct > MOST_VALUES)):
        return None
    why = "its texts are long" if long else "its texts are nearly all different"
    return _identifier(entries, why, sure=distinct == entries.n_present or long or named)


def _identifier(entries: Cells, why: str, *, sure: bool = False) -> ColumnProposal:
    return ColumnProposal(entries.name, "id", why, sure, Column(kind="id"), field_of(entries))


def _category(entries: Cells, why: str, *, sure: bool = False) -> ColumnProposal:
    """Return a category of the values that enough rows have."""
    order = np.argsort(-entries.counts, kind="stable")[:MOST_VALUES]
    common = [place for place in order if entries.counts[place] >= LEAST_ROWS]
    listed = [place for place in common if not has_control(entries.texts[place])]
    if not listed:
        return _identifier(entries, "no value has ten rows")
    if len(listed) < len(common):
        why = f"{why}; values with a line break in them are {UNLISTED!r}"
        sure = False
    if many := rows_in_other_case(entries.texts, entries.counts):
        why = f"{why}; {CASE.format(many)}"
        sure = False
    unlisted = entries.n_present + entries.strays - int(entries.counts[listed].sum())
    values = sorted((entries.texts[place] for place in listed), key=by_number)
    field = field_of(entries)
    if unlisted:
        values = [*(value for value in values if value != UNLISTED), UNLISTED]
        field = Field(entries.name, missing=entries.missing, other=UNLISTED)
    if len(values) < 2:
        return ColumnProposal(entries.name, "left-out", "has the same value in every row that has one")
    column = Column(kind="category", values=tuple(values))
    return ColumnProposal(entries.name, "category", why, sure, column, field, from_rows=True, unlisted=unlisted)


def by_number(text: str) -> tuple[float, str]:
    """Return a key that sorts numbers by size, and other texts after them."""
    try:
        return float(text), text
    except ValueError:
        return math.inf, text


_ID_WORD = re.compile(r"(^|[^a-z])(id|ids|uid|udi|uuid|guid|mrn|ssn|iban|rowid|identifier)($|[^a-z])|#$")
_ID_END = re.compile(r"[a-z]{2}id$")
_NO_ID = re.compile(
    r"([ps]aid|laid|acid|fluid|liquid|lipid|covid|rapid|solid|grid|void|valid|hybrid|humid|bid|mid|otid|oid|recid)$"
)
_NUMBER_WORD = re.compile(r"(^|[^a-z])index($|[^a-z])|[a-z].*[^a-z](nr|nbr|no|number|key)$|[a-z]{3}num$")
_AMOUNT_WORD = re.compile(
    r"(^|[^a-z])(age|year|weight|height|length|day|hour|month|amount|score|rate|price)s?($|[^a-z])"
)
PERSON_WORD = re.compile(r"^(subject|patient|customer|client|person|member|account)s?[^a-z]*$")
_CODE_WORD = re.compile(
    r"code|type|class|category|group|status|sex|gender|race|ethnic|region|education|marri|marital|source|reason"
    r"|disposition|level|kind|naics|icd"
)
_NAME_WORD = re.compile(
    r"((first|last|middle|given|family|full|maiden|patient|customer|client|person|employee|doctor|physician) ?names?"
    r"|first|last|initials|nom|prénom|prenom)"
)
"""Headings of names as a whole: parts of them may be of anything."""
_SURNAME = re.compile(
    r"(?<![^\W\d_])(sur ?name|fore ?name|vor ?name|nach ?name|familien ?name|geburts ?name|etter ?navn|for ?navn"
    r"|mellom ?navn|efter ?namn|för ?namn|fornamn|efter ?navn|suku ?nimi|etu ?nimi|achter ?naam|voor ?naam|roep ?naam"
    r"|nom de (famille|naissance|jeune fille)|prénoms?|prenoms?|cognome|apellidos?)(?![^\W\d_])"
)
"""Words that stand in headings of people's names alone."""
_WHO_WORD = re.compile(
    r"(?<![^\W\d_])(doctor|physician|surgeon|nurse|clinician|therapist|midwife|anaesthetist|anesthetist|officer|judge"
    r"|teacher|arzt|ärztin|hausarzt|chirurg|chirurgin|pfleger|pflegerin|krankenschwester|hebamme|médecin|medecin|chirurgien"
    r"|infirmier|infirmière|lege|fastlege|kirurg|sykepleier|jordmor|läkare|sjuksköterska|læge|sygeplejerske|lääkäri|kirurgi"
    r"|sairaanhoitaja|arts|huisarts|verpleegkundige)s?( ?names?)?$"
)
_ANY_NAME = re.compile(r"name|navn|namn|nimi|naam|nome|nombre")
"""Headings of names of anything: of people where there are first and last ones."""
_TITLE = re.compile(r"(mr|mrs|ms|miss|dr|prof|herr|frau|mme|sr|sra)\b\.? *[^\W\d].*", re.IGNORECASE)
_MAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_WORDS = re.compile(r"[^\W\d_]+\.?([-', ]+[^\W\d_]+\.?)*")
_CAPITAL = re.compile(r"[^\W\d_a-zà-öø-ÿ][^\W\d_]+\.?([-' ][^\W\d_]+\.?)*")
"""A name that begins with a capital letter, such as Roe or Roe-Lee."""
_TWO_WORDS = re.compile(r"[^\W\d_]+\.?[-', ]+[^\W\d_].*")
_SPLIT_WORD = re.compile(r"(is |in )?(selected|fold|folds|split|partition|holdout|hold out|train ?test|training set)")


def names_owner(words: str) -> bool:
    """Tell whether a heading is of identifiers, such as "hospitalid", and not of codes.

    Examples
    --------
    >>> names_owner("hospitalid"), names_owner("amount paid"), names_owner("admission type id")
    (True, False, False)
    """
    return _is_id(words) and not _CODE_WORD.search(words)


def _is_id(words: str) -> bool:
    return bool(_ID_WORD.search(words) or (_ID_END.search(words) and not _NO_ID.search(words)))


def is_identifier_name(words: str, *, amounts: bool = False) -> bool:
    """Tell whether a heading is one of identifiers.

    Parameters
    ----------
    words : str
        See `name_words`.
    amounts : bool
        Whether its values repeat as amounts do: then only a plain "id" makes identifiers of them.

    Examples
    --------
    >>> is_identifier_name("place at index"), is_identifier_name("place at index", amounts=True)
    (True, False)
    >>> is_identifier_name("age at index"), is_identifier_name("age id")
    (False, True)
    """
    if _ID_WORD.search(words):
        return True
    if _AMOUNT_WORD.search(words):
        return False
    return not amounts and bool(_is_id(words) or _NUMBER_WORD.search(words) or PERSON_WORD.search(words))


def repeat_as_amounts(values: np.ndarray, counts: np.ndarray) -> bool:
    """Tell whether values next to each other are about as frequent, which codes are only by chance.

    Parameters
    ----------
    values, counts : array [values]
        Distinct numbers, and how many rows have each.

    Examples
    --------
    >>> repeat_as_amounts(np.arange(20, 80), np.r_[1:31, 30:0:-1])
    True
    >>> repeat_as_amounts(np.arange(60), np.resize([3, 50, 9], 60))
    False
    """
    if len(values) < FEW_VALUES or len(values) == counts.sum():
        return False
    # Square roots have about the same noise, be they large or small.
    roots = np.sqrt(counts[np.argsort(values)].astype(float))
    before = roots[:-1]
    after = roots[1:]
    if np.ptp(before) == 0 or np.ptp(after) == 0:
        return False
    likeness = float(np.corrcoef(before, after)[0, 1])
    return bool(likeness > max(SMOOTH, SMOOTH_ERRORS / np.sqrt(len(roots))))


def count_rows(numbers: np.ndarray) -> bool:
    """Tell whether whole numbers count the rows, some of them missing.

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
    return bool(len(np.unique(own)) == len(own) and len(own) >= 0.9 * (np.ptp(own) + 1))


def are_spread_codes(values: np.ndarray, counts: np.ndarray) -> bool:
    """Tell whether a few large whole numbers far apart are codes, such as those of industries."""
    large = len(values) > 2 and float(values.min()) >= 1000
    if not large or len(values) > FEW_VALUES * 4 or repeat_as_amounts(values, counts):
        return False
    # Amounts of few values are round: multiples of one step.
    steps = np.diff(np.sort(values))
    return float(steps.sum()) > 10 * len(values) * float(np.gcd.reduce(steps.astype(np.int64)))


def are_people(entries: Cells) -> str:
    """Return why a column of texts holds names or addresses of people, empty where it does not."""
    if _are_mostly(entries, _MAIL):
        return "its texts are e-mail addresses"
    if not _are_mostly(entries, _WORDS):
        return ""
    if _are_mostly(entries, _TITLE):
        return "its texts are names of people"
    return "its heading and its texts are those of people's names" if _are_names(entries) else ""


def _are_names(entries: Cells) -> bool:
    """Tell whether heading and words of a column are those of people's names."""
    words = entries.words
    many = len(entries.texts) > FEW_VALUES
    if many and is_name_heading(words):
        return True
    whole_names = _are_mostly(entries, _TWO_WORDS)
    if whole_names and _ANY_NAME.fullmatch(words):
        return True
    # Of one word each they may be of a ward or a field, unless there are many and each begins with a capital.
    surnames = whole_names or (many and _are_mostly(entries, _CAPITAL))
    return bool(surnames and _WHO_WORD.search(words))


def is_name_heading(words: str) -> bool:
    """Tell whether a heading is that of people's names, in one of several languages.

    Examples
    --------
    >>> is_name_heading("pasient etternavn"), is_name_heading("last name"), is_name_heading("drug name")
    (True, True, False)
    """
    return bool(_NAME_WORD.fullmatch(words)) or bool(_SURNAME.search(words))


def holds_whole_names(entries: Cells) -> bool:
    """Tell whether a column has first and last names of people, or their addresses, which tell people apart."""
    named = is_name_heading(entries.words) or bool(_ANY_NAME.fullmatch(entries.words))
    return _are_mostly(entries, _MAIL) or (named and _are_mostly(entries, _TWO_WORDS))


def splits_rows(entries: Cells) -> bool:
    """Tell whether a column says which rows somebody else trained on, which is no measurement."""
    return len(entries.texts) <= FEW_VALUES and bool(_SPLIT_WORD.fullmatch(entries.words))


def _are_mostly(entries: Cells, form: re.Pattern[str]) -> bool:
    """Tell whether the texts of most rows are of a form."""
    fits = [bool(form.fullmatch(text)) for text in entries.texts]
    return bool(entries.counts[fits].sum() >= MOST_CELLS * max(entries.n_present, 1))
