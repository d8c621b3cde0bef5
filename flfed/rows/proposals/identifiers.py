"""Columns that name rows or people, by their heading and by how their values repeat."""

from __future__ import annotations

import re

import numpy as np

from flfed.rows.proposals.cells import FEW_VALUES, Cells

SMOOTH = 0.4
"""Correlation of the counts of neighbouring values from which on they are amounts: codes have none."""
SMOOTH_ERRORS = 2.5
"""It is so many standard errors from none, too."""
MOST_CELLS = 0.8
"""Of the rows: so many cells of one form make it the column's."""

_HUMPS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_ID_WORD = re.compile(r"(^|[^a-z])(id|ids|uid|udi|uuid|guid|mrn|ssn|iban|rowid|identifier)($|[^a-z])|#$")
_ID_END = re.compile(r"[a-z]{2}id$")
_NO_ID = re.compile(
    r"([ps]aid|laid|acid|fluid|liquid|lipid|covid|rapid|solid|grid|void|valid|hybrid|humid|bid|mid|otid|oid|recid)$"
)
_NUMBER_WORD = re.compile(r"(^|[^a-z])index($|[^a-z])|[a-z].*[^a-z](nr|nbr|no|number|key)$|[a-z]{3}num$")
_AMOUNT_WORD = re.compile(
    r"(^|[^a-z])(age|year|weight|height|length|day|hour|month|amount|score|rate|price)s?($|[^a-z])"
)
_PERSON_WORD = re.compile(r"^(subject|patient|customer|client|person|member|account)s?[^a-z]*$")
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


def name_words(name: str) -> str:
    """Return a name as words in lower case.

    Examples
    --------
    >>> name_words("PatientID"), name_words("admission_type_id")
    ('patient id', 'admission type id')
    """
    return _HUMPS.sub(" ", name).replace("_", " ").casefold()


def is_code_name(words: str) -> bool:
    """Tell whether a heading speaks of codes that mean something, such as "admission type"."""
    return bool(_CODE_WORD.search(words))


def is_person_word(words: str) -> bool:
    """Tell whether a heading is that of people, such as "patient"."""
    return bool(_PERSON_WORD.search(words))


def names_owner(words: str) -> bool:
    """Tell whether a heading is of identifiers, such as "hospitalid", and not of codes.

    Examples
    --------
    >>> names_owner("hospitalid"), names_owner("amount paid"), names_owner("admission type id")
    (True, False, False)
    """
    ends = bool(_ID_END.search(words)) and not _NO_ID.search(words)
    return (bool(_ID_WORD.search(words)) or ends) and not is_code_name(words)


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
    ends = bool(_ID_END.search(words)) and not _NO_ID.search(words)
    return not amounts and (ends or bool(_NUMBER_WORD.search(words)) or is_person_word(words))


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


LEAST_COUNTED = 20
"""Rows of a site from which on it is looked whether a column counts them."""


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


def are_people(found: Cells) -> str:
    """Return why a column of texts holds names or addresses of people, empty where it does not."""
    words = name_words(found.name)
    if _share(found, _MAIL) >= MOST_CELLS:
        return "its texts are e-mail addresses"
    if _share(found, _WORDS) < MOST_CELLS:
        return ""
    if _share(found, _TITLE) >= MOST_CELLS:
        return "its texts are names of people"
    return "its heading and its texts are those of people's names" if _are_names(found, words) else ""


def _are_names(found: Cells, words: str) -> bool:
    """Tell whether heading and words of a column are those of people's names."""
    many = len(found.texts) > FEW_VALUES
    listed = is_name_heading(words) and many
    whole_names = _share(found, _TWO_WORDS) >= MOST_CELLS
    # Of one word each they may be of a ward or a field, unless there are many and each begins with a capital.
    surnames = many and _share(found, _CAPITAL) >= MOST_CELLS
    who = bool(_WHO_WORD.search(words)) and (whole_names or surnames)
    return listed or who or (bool(_ANY_NAME.fullmatch(words)) and whole_names)


def is_name_heading(words: str) -> bool:
    """Tell whether a heading is that of people's names, in one of several languages.

    Examples
    --------
    >>> is_name_heading("pasient etternavn"), is_name_heading("last name"), is_name_heading("drug name")
    (True, True, False)
    """
    return bool(_NAME_WORD.fullmatch(words)) or bool(_SURNAME.search(words))


def holds_whole_names(found: Cells) -> bool:
    """Tell whether a column has first and last names of people, or their addresses, which tell people apart."""
    if _share(found, _MAIL) >= MOST_CELLS:
        return True
    words = name_words(found.name)
    return (is_name_heading(words) or bool(_ANY_NAME.fullmatch(words))) and _share(found, _TWO_WORDS) >= MOST_CELLS


def splits_rows(found: Cells) -> bool:
    """Tell whether a column says which rows somebody else trained on, which is no measurement."""
    return len(found.texts) <= FEW_VALUES and bool(_SPLIT_WORD.fullmatch(name_words(found.name)))


def _share(found: Cells, form: re.Pattern[str]) -> float:
    """Return the share of rows whose text is of a form."""
    fits = [bool(form.fullmatch(text)) for text in found.texts]
    return float(found.counts[fits].sum() / max(found.known, 1))
