"""Names of columns and codes read as concepts, by the word list `column_names.toml` in five languages.

A concept is a thing that tables record, such as cholesterol, or a word that distinguishes things, such as maximum.
Series of columns by month, whose names share a stem and differ by a number or a date, are here too.
"""

from __future__ import annotations

import math
import re
import tomllib
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from flfed.rows.data.parsing.fields import plain_name

LANGUAGES = ("en", "de", "fr", "es", "it")
FILLER = "filler"
"""Concept of words that distinguish no columns, such as value, of and patient."""
NAMELESS = {"number", "kind"}
"""Concepts that name no column without others."""
OPTIONAL = {*NAMELESS, "loan", "rate", "share", "gross"}
"""Concepts that a name may have in addition."""
PERSONAL = {"yes", "no", "male", "female"}
"""Concepts whose single letters are codes, and no words of names."""
MOST_WORDS = 6
"""Largest number of words of a name that together are one entry of the list."""
SHORTEST_PIECE = 3
"""Least number of letters of a part of a compound word."""
SHORTEST_STEM = 4
"""Least number of letters of an abbreviation that is not in the list."""
MOST_MEANINGS = 3
"""Largest number of concepts of an abbreviation that is not in the list."""
UNREAD_WEIGHT = 0.5
"""Weight of a word that is not in the list, where the rarest concept has 1."""
LEAST_WEIGHT = 0.15
RECALL = 0.45
"""Part of a likeness that depends on how much of a schema column's meaning the other name has."""
LEAST_RECALL = 0.75
"""Least share of a schema column's meaning in a name that is known."""
_HUMPS = re.compile(r"(?<=[a-zß-ÿ0-9])(?=[A-Z])|(?<=[A-Za-zß-ÿ])(?=\d)|(?<=\d)(?=[A-Za-zß-ÿ])")
_IN_BRACKETS = re.compile(r"[\[(]([^\[\]()]{1,20})[\])]")
_VOWELS = re.compile(r"(?<=.)[aeiou]")
_LINKS = ("", "s", "n", "en", "es", "e", "er")
"""Letters between the parts of a compound word."""

Part = frozenset[str]
"""Concepts of which a part of a name is one."""


@dataclass(frozen=True)
class Reading:
    """A name as concepts.

    Attributes
    ----------
    parts : tuple of Part
        Without fillers.
    rest : tuple of str
        Words that are not in the list.
    exact : bool
        Whether no part was read as an abbreviation that is not in the list.
    unit : str
        Unit of measurement in the name, as schemas write it; "" for none.
    """

    parts: tuple[Part, ...]
    rest: tuple[str, ...] = ()
    exact: bool = True
    unit: str = ""

    @property
    def concepts(self) -> frozenset[str]:
        """All concepts that it may have."""
        return frozenset().union(*self.parts)


@dataclass(frozen=True)
class Likeness:
    """How a column's name resembles a schema column's.

    Attributes
    ----------
    score : float, 0 to 1
    recognised : bool
        Whether all words of the name are in the list, and all mean the schema's column.
    """

    score: float
    recognised: bool


def fold(text: str) -> str:
    """Return a text in lower case without marks on letters; ä, ae and a are the same.

    Examples
    --------
    >>> fold("Größe"), fold("Groesse"), fold("œdème")
    ('grosse', 'grosse', 'odeme')
    """
    plain = text.casefold().replace("ß", "ss").replace("æ", "ae").replace("œ", "oe").replace("ø", "o")
    plain = unicodedata.normalize("NFKD", plain)
    plain = "".join(sign for sign in plain if not unicodedata.combining(sign))
    for pair in ("ae", "oe", "ue"):
        plain = plain.replace(pair, pair[0])
    return plain


def split_words(name: str) -> list[str]:
    """Return the words and numbers of a name, folded.

    Examples
    --------
    >>> split_words("maxPuls_12M"), split_words("Größe (cm)")
    (['max', 'puls', '12', 'm'], ['grosse', 'cm'])
    """
    parted = _HUMPS.sub(" ", unicodedata.normalize("NFC", name))
    return re.findall(r"[a-z]+|\d+|[<>≤≥%+]", fold(parted))


class WordList:
    """The entries of `column_names.toml`, for reading names.

    Parameters
    ----------
    content : mapping
        Its tables: concepts, columns, units, numbers, spans.
    """

    def __init__(self, content: Mapping[str, Any]) -> None:
        self.columns: dict[str, list[list[str]]] = content["columns"]
        self._units: dict[str, str] = {}
        for unit, spellings in content["units"].items():
            for spelling in (unit, *spellings):
                self._units["".join(split_words(spelling))] = unit
        self._numbers: dict[str, str] = content["numbers"]
        self._spans: dict[str, int] = content["spans"]
        self.months: dict[str, int] = {}
        for month, names in content["months"].items():
            self.months |= dict.fromkeys(map(fold, names), int(month))
        self._readings: dict[tuple[str, bool], Reading] = {}
        self._phrases: dict[str, frozenset[str]] = {}
        self._stems: dict[str, frozenset[str]] = {}
        self.by_language: dict[str, dict[str, frozenset[str]]] = {language: {} for language in LANGUAGES}
        for concept, entry in content["concepts"].items():
            for language in LANGUAGES:
                for phrase in entry.get(language, ()):
                    self._add(concept, language, phrase)

    def _add(self, concept: str, language: str, phrase: str) -> None:
        joined = "".join(split_words(phrase))
        table = self._stems if phrase.endswith("*") else self._phrases
        for words, meant in ((table, {concept}), (self.by_language[language], {concept} - {FILLER})):
            words[joined] = words.get(joined, frozenset()) | meant

    def read(self, name: str, *, windows: bool = True) -> Reading:
        """Return a name as concepts, with the unit that it names.

        With `windows`, a number of months or years is one concept, a span of time.
        """
        key = name, windows
        if key not in self._readings:
            self._readings[key] = self._read(name, windows=windows)
        return self._readings[key]

    def _read(self, name: str, *, windows: bool) -> Reading:
        name, unit = self._take_unit(name)
        words = split_words(name)
        parts = []
        rest = []
        exact = True
        place = 0
        while place < len(words):
            length, concepts = self._number(words[place:], windows=windows)
            if not length:
                length, concepts = self._longest(words[place:])
            if not length:
                length, named_unit = self._unit(words[place:])
                unit = unit or named_unit
            if not length:
                pieces, is_exact = self._pieces(words[place])
                exact = exact and is_exact
                rest += [] if pieces else [words[place]]
                parts += pieces
            elif concepts:
                parts.append(concepts)
            place += max(length, 1)
        return Reading(tuple(part for part in parts if part != {FILLER}), tuple(rest), exact, unit)

    def _pieces(self, word: str) -> tuple[list[Part], bool]:
        """Return the parts of a word that is no entry, and whether they are no guess."""
        pieces = self._compound(word)
        if pieces:
            return pieces, True
        pieces = self._abbreviation(word)
        return pieces, not pieces

    def _take_unit(self, name: str) -> tuple[str, str]:
        """Return a name without a unit in brackets, and the unit."""
        for bracket in _IN_BRACKETS.findall(name):
            unit = self._units.get("".join(split_words(bracket)), "")
            if unit:
                return name.replace(bracket, " "), unit
        return name, ""

    def _longest(self, words: Sequence[str]) -> tuple[int, Part]:
        """Return the number of first words that are an entry together, and its concepts."""
        for length in range(min(MOST_WORDS, len(words)), 0, -1):
            joined = "".join(words[:length])
            concepts = self._phrases.get(joined, frozenset())
            if len(joined) == 1:
                concepts = concepts - PERSONAL
            if concepts:
                return length, concepts
        for stem, concepts in self._stems.items():
            if words[0].startswith(stem):
                return 1, concepts
        return 0, frozenset()

    def _number(self, words: Sequence[str], *, windows: bool) -> tuple[int, Part]:
        """Return the number of first words that are a number or a span of time, and its concept."""
        text = self._numbers.get(words[0], words[0])
        if not text.isdigit():
            return 0, frozenset()
        after = words[1] if windows and len(words) > 1 else ""
        months = self._spans.get(after, 0)
        if months:
            return 2, frozenset({f"#{int(text) * months} months"})
        return 1, frozenset({f"#{int(text)}"})

    def _unit(self, words: Sequence[str]) -> tuple[int, str]:
        """Return the number of first words that are a unit, and the unit as schemas write it."""
        for length in range(min(3, len(words)), 0, -1):
            joined = "".join(words[:length])
            unit = self._units.get(joined, "")
            # A single letter is a unit in brackets only, but for the German J.
            if unit and (len(joined) > 1 or not joined.isalpha() or joined == "j"):
                return length, unit
        return 0, ""

    def _compound(self, word: str) -> list[Part]:
        """Return the parts of a compound word, none where it has other letters too."""
        if len(word) < 2 * SHORTEST_PIECE:
            return []
        for end in range(len(word) - SHORTEST_PIECE, SHORTEST_PIECE - 1, -1):
            first = self._phrases.get(word[:end])
            if first is None:
                continue
            for link in _LINKS:
                tail = word[end:].removeprefix(link) if word[end:].startswith(link) else ""
                if len(tail) < SHORTEST_PIECE:
                    continue
                _, last = self._longest([tail])
                others = [last] if last else self._compound(tail)
                if others:
                    return [first, *others]
        return []

    def _abbreviation(self, word: str) -> list[Part]:
        """Return the concepts, at most three, of entries that a word begins or writes without vowels."""
        if len(word) < SHORTEST_PIECE:
            return []
        begun = frozenset[str]()
        is_bare = not _VOWELS.search(word)
        for phrase, concepts in self._phrases.items():
            is_begun = len(word) >= SHORTEST_STEM and phrase.startswith(word)
            if is_begun or (is_bare and _VOWELS.sub("", phrase) == word):
                begun |= concepts - {FILLER}
        return [begun] if 0 < len(begun) <= MOST_MEANINGS else []

    def name_values(self, codes: Sequence[str], values: Sequence[str]) -> dict[str, str]:
        """Return the schema's value of each code whose meaning is plain.

        Parameters
        ----------
        codes : sequence of str
            Distinct cells of a column.
        values : sequence of str
            Of the schema.

        Returns
        -------
        dict of str to str
            By the language in which most codes mean a value, no two the same; empty where two languages disagree.
        """
        distinct = _drop_shared([self.read(value, windows=False).concepts for value in values])
        meanings = dict(zip(values, distinct, strict=True))
        readings = [_name_by_letters(codes, values)]
        in_words = [("".join(split_words(code)), self._read_code(code)) for code in codes]
        for language in LANGUAGES:
            entries = self.by_language[language]
            concepts = _drop_shared([entries.get(whole, parts) for whole, parts in in_words])
            possible = {}
            for code, of_code in zip(codes, concepts, strict=True):
                possible[code] = _match_values(of_code, meanings)
            readings.append(_name_once(possible, values))
        best = max(readings, key=len)
        others = [reading for reading in readings if len(reading) == len(best)]
        if others.count(best) < len(others):
            return {}
        return best if len(best) == len(codes) else _drop_short(best)

    def _read_code(self, code: str) -> frozenset[str]:
        """Return the concepts of a code's words in any language; none where it has other words too."""
        reading = self.read(code, windows=False)
        letters = sum(map(str.isalpha, code))
        # One or two letters mean different things in different languages.
        if reading.rest or not reading.exact or 0 < letters < SHORTEST_PIECE:
            return frozenset()
        return reading.concepts

    def read_schema(self, columns: Mapping[str, str]) -> SchemaWords:
        """Return the meanings of a schema's columns, of their names and descriptions."""
        meanings = {}
        for name, description in columns.items():
            first = re.split(r"[;:.]", description, maxsplit=1)[0]
            alternatives = [self.read(name), self.read(first)]
            plain = plain_name(name)
            stem = plain.rstrip("0123456789")
            for concepts in self.columns.get(plain) or self.columns.get(stem, []):
                alternatives.append(Reading(tuple(frozenset({concept}) for concept in concepts)))
            meanings[name] = _Meaning(tuple(alternatives), self.read(description).concepts)
        return SchemaWords(meanings)


@dataclass(frozen=True)
class _Meaning:
    """Concepts of a schema's column, in several ways; `more` are those of its whole description."""

    alternatives: tuple[Reading, ...]
    more: frozenset[str]

    @property
    def concepts(self) -> frozenset[str]:
        return self.more.union(*(reading.concepts for reading in self.alternatives))


class SchemaWords:
    """The meanings of a schema's columns.

    Parameters
    ----------
    meanings : mapping of column to meaning
    """

    def __init__(self, meanings: Mapping[str, _Meaning]) -> None:
        self._meanings = meanings
        counts: Counter[str] = Counter()
        for meaning in meanings.values():
            counts.update(meaning.concepts)
        whole = math.log(1 + len(meanings))
        self._weights = {
            concept: max(LEAST_WEIGHT, math.log((1 + len(meanings)) / count) / whole)
            for concept, count in counts.items()
        }

    def concepts(self, column: str) -> frozenset[str]:
        """Return all concepts of a column."""
        return self._meanings[column].concepts

    def compare(self, reading: Reading, column: str) -> Likeness:
        """Return the likeness of a name to a column of the schema, by concepts."""
        meaning = self._meanings[column]
        every = meaning.concepts
        matched = [part for part in reading.parts if part & every]
        counted = [part for part in reading.parts if part & every or not part & OPTIONAL]
        precision = self._share(matched, counted, reading.rest)
        best = Likeness(0.0, recognised=False)
        for alternative in meaning.alternatives:
            recall = self._recall(matched, alternative)
            recognised = precision == 1 and recall >= LEAST_RECALL and reading.exact
            score = precision * (1 - RECALL + RECALL * recall) if recall else 0.0
            best = Likeness(max(score, best.score), recognised or best.recognised)
        return best

    def _recall(self, matched: Sequence[Part], alternative: Reading) -> float:
        """Return the share of a meaning that matched parts have; 0 where it names no column."""
        concepts = frozenset[str]().union(*matched)
        met = [part for part in alternative.parts if part & concepts]
        # A number, or a word such as type, names no column.
        if all(part & NAMELESS or next(iter(part)).startswith("#") for part in met):
            return 0.0
        return self._share(met, alternative.parts, alternative.rest)

    def _share(self, some: Sequence[Part], parts: Sequence[Part], rest: Sequence[str]) -> float:
        """Return the weight of some parts as a share of that of all parts and of words that are not in the list."""
        total = sum(map(self._weigh, parts)) + UNREAD_WEIGHT * len(rest)
        return sum(map(self._weigh, some)) / total if total else 0.0

    def _weigh(self, part: Part) -> float:
        return max(self._weights.get(concept, 1.0) for concept in part)


@cache
def word_list() -> WordList:
    """Return the word list of the package."""
    path = Path(__file__).with_name("column_names.toml")
    return WordList(tomllib.loads(path.read_text("utf-8")))


def _drop_shared(meanings: Sequence[frozenset[str]]) -> list[frozenset[str]]:
    """Return the concepts of values without those that all of them have."""
    shared = frozenset.intersection(*meanings) if len(meanings) > 1 else frozenset()
    return [meaning - shared for meaning in meanings]


def _match_values(concepts: frozenset[str], meanings: Mapping[str, frozenset[str]]) -> set[str]:
    """Return the values that a code with these concepts may mean."""
    if not concepts:
        return set()
    same = {value for value, meaning in meanings.items() if meaning == concepts}
    if same:
        return same
    return {value for value, meaning in meanings.items() if meaning and (concepts < meaning or meaning < concepts)}


def _name_once(possible: Mapping[str, set[str]], values: Sequence[str]) -> dict[str, str]:
    """Return the value of each code; none where two codes mean the same and a value has no code."""
    named = {code: next(iter(meant)) for code, meant in possible.items() if len(meant) == 1}
    taken = set(named.values())
    for code, meant in possible.items():
        left = meant - taken
        if code not in named and len(left) == 1:
            named[code] = next(iter(left))
    distinct = set(named.values())
    if len(distinct) < len(named) and len(distinct) < len(values):
        return {}
    return named


def _drop_short(named: Mapping[str, str]) -> dict[str, str]:
    """Return codes with their values but for those of one or two letters, which may begin another word."""
    plain = {code for code, value in named.items() if plain_name(code) == plain_name(value)}
    return {code: value for code, value in named.items() if code in plain or len(code) >= SHORTEST_PIECE}


def _name_by_letters(codes: Sequence[str], values: Sequence[str]) -> dict[str, str]:
    """Return the value of each code that is equal to it, or abbreviates only this one."""
    same = {plain_name(value): value for value in values}
    named = {}
    for code in codes:
        plain = plain_name(code)
        longer = [value for value in values if plain and plain_name(value).startswith(plain)]
        if plain in same or len(longer) == 1:
            named[code] = same.get(plain) or longer[0]
    return named


LEAST_COLUMNS = 3
_YEAR = r"(?:19|20)\d\d"
_MONTH = r"0[1-9]|1[0-2]"
_PATTERNS = (
    re.compile(rf"\b(?P<year>{_YEAR}) ?(?P<month>{_MONTH})\b"),
    re.compile(rf"\b(?P<month>{_MONTH}|[1-9]) ?(?P<year>{_YEAR})\b"),
)
_INDEX = re.compile(r"\b\d{1,2}\b(?!.*\b\d{1,2}\b)")
Time = Literal["date", "month", "index"]


@dataclass(frozen=True)
class Series:
    """Columns of one stem, in the order of their numbers or months.

    Attributes
    ----------
    stem : str
        Their name without what differs.
    columns : tuple of str
    is_dated : bool
        Whether their order in time is stated, the first one being the oldest.
    """

    stem: str
    columns: tuple[str, ...]
    is_dated: bool


def find_series(names: Sequence[str], months: Mapping[str, int]) -> list[Series]:
    """Return the series among the names of columns.

    Parameters
    ----------
    names : sequence of str
    months : mapping of str to int
        Number of a month by its folded name.

    Examples
    --------
    >>> [series.columns for series in find_series(["MT_M2", "age", "MT_M1", "MT_M3"], {})]
    [('MT_M1', 'MT_M2', 'MT_M3')]
    """
    groups: dict[tuple[str, Time], dict[int, str]] = {}
    for name in names:
        time = _read_time(name, months)
        if time is not None:
            stem, kind, place = time
            groups.setdefault((stem, kind), {}).setdefault(place, name)
    return [
        Series(stem, _put_in_order(columns, kind), kind != "index")
        for (stem, kind), columns in groups.items()
        if len(columns) >= LEAST_COLUMNS and (kind != "index" or max(columns) - min(columns) <= len(columns))
    ]


def find_schema_series(descriptions: Mapping[str, str], months: Mapping[str, int]) -> list[Series]:
    """Return the series among a schema's columns: their descriptions differ by number or month only.

    Where these state months, they are in the order of time.
    """
    series_of_names = []
    for series in find_series(list(descriptions), months):
        times = {name: _read_time(descriptions[name], months) for name in series.columns}
        stems = {descriptions[name] if time is None else time[0] for name, time in times.items()}
        if len(stems) > 1:
            continue
        by_place = {time[2]: name for name, time in times.items() if time and time[1] == "date"}
        if len(by_place) == len(series.columns):
            series = Series(series.stem, _put_in_order(by_place, "date"), is_dated=True)
        series_of_names.append(series)
    return series_of_names


def _read_time(name: str, months: Mapping[str, int]) -> tuple[str, Time, int] | None:
    """Return a name's stem, the kind of its month or number, and its place; None where it has none."""
    text = " ".join(split_words(name))
    for pattern in _PATTERNS:
        if match := pattern.search(text):
            return _cut(text, match), "date", 12 * int(match["year"]) + int(match["month"])
    for match in re.finditer(rf"\b(?P<name>[a-z]+)(?: (?P<year>{_YEAR}|\d\d)\b)?", text):
        month = months.get(match["name"])
        if month is not None and match["year"]:
            return _cut(text, match), "date", 12 * (int(match["year"]) % 100) + month
        if month is not None:
            return _cut(text, match), "month", month
    if match := _INDEX.search(text):
        return _cut(text, match), "index", int(match[0])
    return None


def _cut(text: str, match: re.Match[str]) -> str:
    """Return a text without a match."""
    return " ".join(f"{text[: match.start()]} {text[match.end() :]}".split())


def _put_in_order(columns: Mapping[int, str], kind: Time) -> tuple[str, ...]:
    """Return columns in their order; months without a year begin behind the longest gap."""
    places = sorted(columns)
    if kind == "month":
        gaps = [(place - places[number - 1]) % 12 for number, place in enumerate(places)]
        first = gaps.index(max(gaps))
        places = places[first:] + places[:first]
    return tuple(columns[place] for place in places)
