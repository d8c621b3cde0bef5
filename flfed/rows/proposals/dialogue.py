"""The mapping of a table as questions to a person: what is sure is filled in, the rest is asked; no cell is shown."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import pandas as pd

from flfed.errors import SMALL, count_in_words
from flfed.rows.data.mapping import OUTSIDE, map_table, plain_text
from flfed.rows.data.parsing.fields import ColumnMapping, Entry, Field, shown_names
from flfed.rows.data.schema import Column, Schema
from flfed.rows.proposals.answers import MISSING_CODE, Answers, Factor
from flfed.rows.proposals.cells import LEAST_ROWS
from flfed.rows.proposals.fits import UNKNOWN
from flfed.rows.proposals.matching import Candidate, Match, Matching, mapping_of
from flfed.rows.proposals.tables import likeliest_marks
from flfed.words import render, usage_error

NOT_HERE = "-"
OPEN = "?"
"""Answer that leaves the codes of a column open."""
PAIR = 2
"""Number of values of columns whose codes are asked in one question."""
MOST_COUNTS = 12
"""Largest number of counts of codes that are shown."""
_BETWEEN = re.compile(r';(?=(?:[^"]*"[^"]*")*[^"]*$)')
"""Sign between the codes of two columns; within quotation marks it is part of a code."""
_FACTOR = re.compile(r"(?P<column>.*?)\s*\*\s*(?P<multiply>[-+\d.eE]+)(?:\s*\+\s*(?P<add>[-+\d.eE]+))?\s*")
FLAGS = {"no": "0", "yes": "1"}
Origin = Literal["sure", "answered", "not-here", "undecided"]


@dataclass(frozen=True)
class Decision:
    """The state of one column of the schema.

    Attributes
    ----------
    origin : {"sure", "answered", "not-here", "undecided"}
        "not-here" where no column fits and nobody was asked.
    own : str or None
        None where the site does not have it.
    field : Field or None
    why : str
    open_values : tuple of str
        Values of the schema for which a person has to type codes.
    """

    origin: Origin
    own: str | None
    field: Field | None
    why: str
    open_values: tuple[str, ...] = ()


@dataclass(frozen=True)
class Question:
    """A question about one or several columns.

    Attributes
    ----------
    kind : {"series", "several", "column", "codes"}
    columns : tuple of str
        Of the schema.
    lines : tuple of str
        The question, line by line.
    """

    kind: Literal["series", "several", "column", "codes"]
    columns: tuple[str, ...]
    lines: tuple[str, ...]


class MappingDialogue:
    """Questions about the mapping of a table, one after the other.

    Parameters
    ----------
    table : DataFrame
        As the source gives it.
    schema : Schema
    answers : Answers
        Those given so far; further ones are added.
    present : mapping
        The site's mapping until now: its codes hold for columns read from the same own column.

    Raises
    ------
    UsageError
        If an answer names a column, value or code that is not there.
    """

    def __init__(
        self, table: pd.DataFrame, schema: Schema, answers: Answers, present: ColumnMapping | None = None
    ) -> None:
        self._table = table
        self._present = present or {}
        self._schema = schema
        self._matching = Matching(table, schema)
        self._names = [str(name) for name in table.columns]
        self._one_by_one: set[str] = set()
        self.answers = answers
        self._check()

    def decisions(self) -> dict[str, Decision]:
        """Return the state of each column of the schema."""
        taken = set(self.answers.columns.values())
        return {match.column: self._decide(match, taken) for match in self._matching.matches}

    def next_question(self) -> Question | None:
        """Return the next question, None where all is decided."""
        decisions = self.decisions()
        # The outcome first.
        matches = sorted(self._matching.matches, key=lambda match: match.column != self._schema.target)
        undecided = [match for match in matches if decisions[match.column].origin == "undecided"]
        if undecided:
            return self._ask_together(undecided) or self._ask_rest(undecided[0])
        unnamed = {match.column: decisions[match.column] for match in matches if decisions[match.column].open_values}
        return self._ask_unnamed(unnamed) if unnamed else None

    def _ask_together(self, undecided: Sequence[Match]) -> Question | None:
        """Return the joint question about series or columns, None where each has to be asked alone."""
        together = [match for match in undecided if match.column not in self._one_by_one]
        series = [match.column for match in together if match.standing == "series"]
        if series:
            return Question("series", tuple(series), _describe_series(self._matching, self._schema))
        proposed = self._proposals(together)
        return self._ask_several(proposed) if len(proposed) > 1 else None

    def _ask_unnamed(self, unnamed: Mapping[str, Decision]) -> Question:
        """Return the question about codes: one for all columns with two values, else for the first column."""
        described = self._schema.columns
        pairs = [column for column in unnamed if len(_value_words(described[column])) == PAIR]
        if len(pairs) < 2:
            column = next(iter(unnamed))
            return self._ask_codes(column, unnamed[column])
        lines: list[str] = []
        for column in pairs:
            lines += self._ask_codes(column, unnamed[column]).lines[:-1]
        lines.append(render("proposals.dialogue.typing-pairs", columns=len(pairs)))
        return Question("codes", tuple(pairs), tuple(lines))

    def proposal(self, column: str) -> Candidate | None:
        """Return the candidate of a column for a joint question, None where a person has to choose or to convert."""
        match = self._match(column)
        candidates = self._candidates(match)
        is_first = bool(candidates) and candidates[0].own == match.own
        if (match.standing == "likely" and is_first) or (len(candidates) == 1 and candidates[0].fits):
            return candidates[0]
        return None

    def answer(self, question: Question, text: str) -> None:
        """Take an answer to a question; raises UsageError where it is none."""
        text = text.strip()
        if question.kind == "series":
            self._take_series(question.columns, text)
        elif question.kind == "several":
            self._take_several(question.columns, text)
        elif question.kind == "column":
            self._take_column(question.columns[0], text)
        else:
            self._take_codes(question.columns, text)

    def correct(self, text: str) -> None:
        """Take COLUMN=OWN, or "-" for OWN; raises UsageError where there is none, or it is taken."""
        column, own = (part.strip() for part in text.split("=", 1))
        if column not in self._schema.columns:
            raise usage_error("proposals.answers.column", column=column, dataset=self._schema.name)
        self._take_column(column, own)
        # Its codes are asked about again.
        self.answers.codes.pop(column, None)
        self._present = {name: entry for name, entry in self._present.items() if name != column}

    def mapping(self) -> ColumnMapping:
        """Return the mapping as decided so far, without columns that are read under the schema's own name."""
        return mapping_of((name, decision.field) for name, decision in self.decisions().items())

    def unread(self) -> list[str]:
        """Return the columns of the table that are not used."""
        used = {decision.own for decision in self.decisions().values()}
        return shown_names(self._table, [name for name in self._names if name not in used])

    def _decide(self, match: Match, taken: set[str]) -> Decision:
        column = match.column
        if column in self.answers.columns:
            own = self.answers.columns[column]
            if not own:
                return Decision("answered", None, None, render("proposals.dialogue.absent"))
            fit = self._matching.fit(column, own)
            return self._with_codes(column, Decision("answered", own, fit.field, fit.why))
        is_free = match.own is not None and match.own not in taken
        if match.standing in ("sure", "codes") and is_free:
            return self._with_codes(column, Decision("sure", match.own, match.field, match.why))
        if self._candidates(match):
            return Decision("undecided", None, None, match.why)
        return Decision("not-here", None, None, match.why)

    def _candidates(self, match: Match) -> tuple[Candidate, ...]:
        """Return the candidates of a column that no answer has given to another one."""
        taken = set(self.answers.columns.values())
        return tuple(one for one in match.candidates if one.own not in taken)

    def _with_codes(self, column: str, decision: Decision) -> Decision:
        """Return a decision with the units and codes that a person typed, and the values that still have no code."""
        field = decision.field
        if field is None:
            return decision
        described = self._schema.columns[column]
        units = self.answers.units.get(column)
        if units is not None:
            field = replace(field, multiply=units.get("multiply", 1.0), add=units.get("add", 0.0))
            # The guess of the mark belongs to the factor that was guessed.
            field = likeliest_marks(self._table[field.column], column, described, field)
            decision = replace(decision, why=render("proposals.dialogue.converted"))
        carried = _add_present(field, self._present.get(column), _value_words(described))
        why = decision.why if carried == field else render("proposals.dialogue.present")
        decision = replace(decision, field=carried, why=why)
        codes = {} if carried.values is None else self._codes(carried.column)
        return _name_codes(decision, described, self.answers.codes.get(column), codes)

    def _match(self, column: str) -> Match:
        return next(match for match in self._matching.matches if match.column == column)

    def _proposals(self, matches: Sequence[Match]) -> dict[str, Candidate]:
        """Return the columns for one joint question, no column of the table twice."""
        proposed = {}
        taken = set()
        for match in matches:
            candidate = self.proposal(match.column)
            if candidate is not None and candidate.own not in taken:
                proposed[match.column] = candidate
                taken.add(candidate.own)
        return proposed

    def _ask_rest(self, match: Match) -> Question:
        """Return the question about one column, or about a series that is none of those proposed."""
        taken = set(self.answers.columns.values())
        for wanted, _ in self._matching.series:
            if match.column in wanted.columns:
                free = self._matching.series_of(len(wanted.columns), taken)
                return Question("series", wanted.columns, _describe_whole(wanted.columns, free))
        described = self._schema.columns[match.column]
        return Question("column", (match.column,), _describe_choice(match, described, self._candidates(match)))

    def _ask_several(self, proposed: Mapping[str, Candidate]) -> Question:
        lines = [render("proposals.dialogue.several")]
        for number, (column, candidate) in enumerate(proposed.items(), start=1):
            match = self._match(column)
            why = match.why if match.own is not None else candidate.why
            line = render("proposals.dialogue.pair", number=number, column=column, own=candidate.own, why=why)
            lines.append(f"  {line}")
        lines.append(render("proposals.dialogue.confirm"))
        return Question("several", tuple(proposed), tuple(lines))

    def _ask_codes(self, column: str, decision: Decision) -> Question:
        """Return the question about a column's codes, with their numbers of rows."""
        codes = self._codes(decision.own or "")
        numbers = sorted(codes.values(), reverse=True)
        shown = ", ".join(suppress_small(numbers)[:MOST_COUNTS])
        if len(numbers) > MOST_COUNTS:
            shown += ", …"
        facts = {"codes": len(numbers), "unnamed": len(_list_unnamed(decision.field, codes)), "counts": shown}
        lines = (
            render("proposals.dialogue.codes", column=column, own=decision.own, **facts),
            "  " + render("proposals.dialogue.values", values="; ".join(decision.open_values)),
            render("proposals.dialogue.typing"),
        )
        return Question("codes", (column,), lines)

    def _codes(self, own: str) -> dict[str, int]:
        """Return the distinct codes of a column, with their numbers of rows."""
        return self._matching.column(own).entries.rows_by_text

    def _take_series(self, columns: Sequence[str], text: str) -> None:
        numbers = [int(number) for number in re.findall(r"\d+", text)]
        if columns[0] in self._one_by_one:
            self._take_whole(columns, numbers, text)
            return
        pairs = self._matching.series
        is_none = text.casefold() in ("n", "no")
        if not is_none and (not numbers or numbers[0] not in (1, 2) or max(numbers[1:], default=1) > len(pairs)):
            raise usage_error("proposals.dialogue.unordered", series=len(pairs))
        for number, (wanted, own) in enumerate(pairs, start=1):
            if is_none or number in numbers[1:]:
                self._one_by_one |= set(wanted.columns)
                continue
            names = own.columns if numbers[0] == 1 else own.columns[::-1]
            self.answers.columns |= dict(zip(wanted.columns, names, strict=True))

    def _take_whole(self, columns: Sequence[str], numbers: Sequence[int], text: str) -> None:
        """Take the answer about one series."""
        free = self._matching.series_of(len(columns), set(self.answers.columns.values()))
        if text == NOT_HERE:
            self.answers.columns |= dict.fromkeys(columns, "")
            return
        if len(numbers) != 1 or not 1 <= numbers[0] <= len(free):
            raise usage_error("proposals.dialogue.unclear", numbers=len(free))
        self.answers.columns |= dict(zip(columns, free[numbers[0] - 1], strict=True))

    def _take_several(self, columns: Sequence[str], text: str) -> None:
        wrong = _read_wrong(columns, text)
        for column in columns:
            proposed = self.proposal(column)
            if column in wrong or proposed is None:
                self._one_by_one.add(column)
            else:
                self.answers.columns[column] = proposed.own

    def _take_column(self, column: str, text: str) -> None:
        if text == NOT_HERE:
            self.answers.columns[column] = ""
            return
        match = self._match(column)
        parsed = _FACTOR.fullmatch(text)
        typed = str(parsed["column"]) if parsed and text not in self._names else text
        candidates = self._candidates(match)
        own = typed if typed in self._names else _read_number(typed, candidates)
        self._check_own(column, own)
        can_be_named = _can_be_named(self._schema.columns[column], self._codes(own))
        if not can_be_named and self._matching.fit(column, own).doubt == "kind":
            raise usage_error("proposals.dialogue.kind", own=own, column=column)
        # A factor for another column would not hold for this one.
        self.answers.units.pop(column, None)
        if parsed is not None and text not in self._names:
            self.answers.units[column] = _read_factor(parsed["multiply"], parsed["add"])
        self.answers.columns[column] = own

    def _take_codes(self, columns: Sequence[str], text: str) -> None:
        texts = _BETWEEN.split(text) if len(columns) > 1 else [text]
        if len(texts) != len(columns):
            raise usage_error("proposals.dialogue.parts", parts=len(texts), columns=len(columns))
        decisions = self.decisions()
        taken = {}
        for column, part in zip(columns, texts, strict=True):
            decision = decisions[column]
            codes = self._codes(decision.own or "")
            described = self._schema.columns[column]
            taken[column] = _read_answer(column, described, decision, part.strip(), codes)
        self.answers.codes |= taken

    def _check(self) -> None:
        """Refuse answers that do not fit the table or the schema."""
        for table in (self.answers.columns, self.answers.units, self.answers.codes):
            for column in table:
                if column not in self._schema.columns:
                    raise usage_error("proposals.answers.column", column=column, dataset=self._schema.name)
        for column, own in self.answers.columns.items():
            if own:
                self._check_own(column, own)
        self._check_all_codes()

    def _check_all_codes(self) -> None:
        """Refuse codes in answers, and write those of flags in one way."""
        decisions = self.decisions()
        for column, codes in self.answers.codes.items():
            if self._schema.columns[column].kind == "flag":
                plain = {"true": "yes", "1": "yes", "false": "no", "0": "no"}
                codes = {code: plain.get(value.casefold(), value.casefold()) for code, value in codes.items()}
            field = decisions[column].field
            if field is not None:
                of_own = self._codes(field.column)
                _refuse_codes(column, field.column, codes, _value_words(self._schema.columns[column]), of_own)
                if codes:
                    _refuse_partial(field, of_own)
            self.answers.codes[column] = {code: FLAGS.get(value, value) for code, value in codes.items()}

    def _check_own(self, column: str, own: str) -> None:
        """Refuse a column that the table does not have, or that is read for another one."""
        if self._names.count(own) != 1:
            raise usage_error("proposals.dialogue.unnamed", column=column, own=own[:60])
        for other, taken in self.answers.columns.items():
            if taken == own and other != column:
                raise usage_error("proposals.dialogue.taken", own=own, column=other)


def _refuse_codes(
    column: str, own: str, typed: Mapping[str, str], values: Sequence[str], codes: Mapping[str, int]
) -> None:
    """Refuse codes that do not occur, and values that the schema does not have."""
    possible = {*values, MISSING_CODE, *FLAGS.values()}
    wrong = sum(value not in possible for value in typed.values())
    if wrong:
        raise usage_error("proposals.dialogue.value", wrong=wrong, column=column, values=", ".join(values))
    absent = len(set(plain_text(pd.Series(list(typed), dtype=object))) - set(codes))
    if absent:
        raise usage_error("proposals.dialogue.code", absent=absent, typed=len(typed), own=own)


def _describe_series(matching: Matching, schema: Schema) -> tuple[str, ...]:
    """Return the lines of the question about all series."""
    lines = [render("proposals.dialogue.series")]
    for number, (wanted, own) in enumerate(matching.series, start=1):
        first = wanted.columns[0]
        ends = {"first": first, "last": wanted.columns[-1], "about": schema.columns[first].description}
        lines.append("  " + render("proposals.dialogue.pairs", number=number, own=", ".join(own.columns), **ends))
    return (*lines, render("proposals.dialogue.order"))


def _describe_whole(columns: Sequence[str], free: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Return the lines of the question about one series."""
    question = render("proposals.dialogue.whole", first=columns[0], last=columns[-1])
    lines = [f"  {number}: {', '.join(names)}" for number, names in enumerate(free, start=1)]
    return (question, *lines, render("proposals.dialogue.choose-series"))


def _describe_choice(match: Match, column: Column, candidates: Sequence[Candidate]) -> tuple[str, ...]:
    """Return the lines of the question about one column."""
    parts = [column.description or column.kind]
    if column.range is not None:
        low, high = column.range
        parts.append(f"{low:g} to {high:g} {column.unit}".rstrip())
    lines = [render("proposals.dialogue.column", column=match.column, description="; ".join(parts))]
    if match.own is not None and match.standing == "unsure":
        lines.append("  " + render("proposals.dialogue.doubt", **vars(match)))
    for number, candidate in enumerate(candidates, start=1):
        is_converted = (candidate.field.multiply, candidate.field.add) != (1.0, 0.0)
        factor = f" * {candidate.field.multiply:g}" if is_converted else ""
        line = render("proposals.dialogue.candidate", number=number, factor=factor, **vars(candidate))
        lines.append(f"  {line}")
    if column.is_number():
        return (*lines, render("proposals.dialogue.choose-number", unit=column.unit or "the schema's"))
    return (*lines, render("proposals.dialogue.choose"))


def _read_number(typed: str, candidates: Sequence[Candidate]) -> str:
    """Return the candidate that a number names, else the text; another number or factor is refused."""
    if typed.isdigit() and 1 <= int(typed) <= len(candidates):
        return candidates[int(typed) - 1].own
    if typed.isdigit() or "*" in typed:
        raise usage_error("proposals.dialogue.number", numbers=len(candidates))
    return typed


def _can_be_named(column: Column, codes: Mapping[str, int]) -> bool:
    """Return whether a person can name the value of each code, several of one value too; numbers and ids need none."""
    words = len(_value_words(column))
    return column.is_number() or column.kind == "id" or (words > 0 and 0 < len(codes) <= max(MOST_COUNTS, 2 * words))


def _value_words(column: Column) -> tuple[str, ...]:
    """Return the words for a column's values."""
    return tuple(FLAGS) if column.kind == "flag" else column.values


def _name_codes(
    decision: Decision, column: Column, typed: Mapping[str, str] | None, codes: Mapping[str, int]
) -> Decision:
    """Return a decision with the typed codes, else with the values that a person has to name."""
    field = decision.field
    if field is not None and typed:
        return replace(decision, field=_add_typed(column, field, typed))
    if field is None or field.values is None or not _list_unnamed(field, codes):
        return decision
    named = set(field.values.values())
    words = _value_words(column)
    values = tuple(value for value in words if FLAGS.get(value, value) not in named)
    # Where each value has a code, another code is asked about; an empty table leaves it open.
    left = () if typed == {} else values or words
    return replace(decision, open_values=left)


def _list_unnamed(field: Field | None, codes: Mapping[str, int]) -> list[str]:
    """Return the codes of a column that have no value yet, however few rows have them."""
    if field is None:
        return []
    values = field.values or {}
    return [code for code in codes if values.get(code, UNKNOWN) == UNKNOWN and code not in field.missing]


def _refuse_partial(field: Field, codes: Mapping[str, int]) -> None:
    """Refuse codes that leave others without a value; of many, those of few rows are left to the check."""
    unnamed = _list_unnamed(field, codes)
    if len(unnamed) > MOST_COUNTS:
        unnamed = [code for code in unnamed if codes[code] >= LEAST_ROWS]
    if unnamed:
        raise usage_error("proposals.dialogue.partial", left=len(unnamed), codes=len(codes), own=field.column)


def _read_answer(
    column: str, described: Column, decision: Decision, text: str, codes: Mapping[str, int]
) -> dict[str, str]:
    """Return the value of each typed code of a column; none where they are left open."""
    if text == OPEN:
        return {}
    typed = read_codes(text, decision.open_values)
    own = decision.own or ""
    _refuse_codes(column, own, typed, _value_words(described), codes)
    if decision.field is not None:
        plain = dict(zip(plain_text(pd.Series(list(typed), dtype=object)), typed.values(), strict=True))
        _refuse_partial(_add_typed(described, decision.field, plain), codes)
    if described.kind != "flag":
        return typed
    return {code: FLAGS.get(value, value) for code, value in typed.items()}


def _add_present(field: Field, present: Entry, values: Sequence[str]) -> Field:
    """Return a reading with the codes of the present entry, if it reads the same own column."""
    if not isinstance(present, Field) or present.column != field.column or field.values is None:
        return field
    possible = {FLAGS.get(value, value) for value in values}
    codes = {code: value for code, value in (present.values or {}).items() if value in possible}
    missing = tuple(dict.fromkeys((*field.missing, *present.missing)))
    others = {code: value for code, value in field.values.items() if code not in missing}
    return replace(field, values=others | codes, missing=missing)


def _add_typed(column: Column, field: Field, typed: Mapping[str, str]) -> Field:
    """Return a reading with the typed codes, beside those whose meaning is plain."""
    plain = field.values or {value: value for value in column.values}
    values = {code: value for code, value in plain.items() if value != UNKNOWN and code not in typed}
    values |= {code: value for code, value in typed.items() if value != MISSING_CODE}
    missing = [code for code in field.missing if code not in typed]
    missing += [code for code, value in typed.items() if value == MISSING_CODE]
    return replace(field, values=values, missing=tuple(missing))


def _read_wrong(columns: Sequence[str], text: str) -> set[str]:
    """Return the columns that an answer to a list of pairs names as wrong."""
    if text.casefold() in ("y", "yes"):
        return set()
    if text.casefold() in ("n", "no"):
        return set(columns)
    places = [int(number) for number in re.findall(r"\d+", text)]
    if not places or min(places) < 1 or max(places) > len(columns):
        raise usage_error("proposals.dialogue.unclear", numbers=len(columns))
    return {columns[place - 1] for place in places}


def read_codes(text: str, values: Sequence[str]) -> dict[str, str]:
    """Return the value of each typed code.

    Parameters
    ----------
    text : str
        The codes of each value in the order of `values`, with commas between; several codes of one value have "|"
        between them, and one more place is for "not known". Or CODE=VALUE with commas between.
    values : sequence of str

    Raises
    ------
    UsageError
        If there are none, too many places, or one code stands in two.

    Examples
    --------
    >>> read_codes("1|9, 2", ["male", "female"])
    {'1': 'male', '9': 'male', '2': 'female'}
    >>> read_codes("w=female, ?=", ["male", "female"])
    {'w': 'female', '?': ''}
    """
    places = [place.strip() for place in next(csv.reader([text], skipinitialspace=True), [])]
    if places and all("=" in place for place in places):
        pairs = [_read_pair(place) for place in places]
    else:
        pairs = _read_places(places, values)
    typed = dict(pairs)
    if not typed:
        raise usage_error("proposals.dialogue.none")
    if len(typed) < len(pairs):
        raise usage_error("proposals.dialogue.twice")
    return typed


def _read_pair(place: str) -> tuple[str, str]:
    """Return the code and the value of CODE=VALUE."""
    code, _, value = place.rpartition("=")
    return code.strip(), value.strip()


def _read_places(places: Sequence[str], values: Sequence[str]) -> list[tuple[str, str]]:
    """Return each code with the value in whose place it stands."""
    if len(places) > len(values) + 1:
        raise usage_error("proposals.dialogue.places", places=len(places), values=len(values))
    pairs = []
    for place, value in zip(places, [*values, MISSING_CODE], strict=False):
        pairs += [(code.strip(), value) for code in place.split("|") if code.strip()]
    return pairs


def _read_factor(multiply: str, add: str | None) -> Factor:
    """Return a typed conversion."""
    try:
        numbers: Factor = {"multiply": float(multiply), "add": float(add or 0)}
        if not numbers["multiply"] or not all(map(math.isfinite, numbers.values())):
            raise ValueError
    except ValueError:
        raise usage_error("proposals.dialogue.factor") from None
    return numbers


def preview_mapping(
    table: pd.DataFrame, schema: Schema, mapping: ColumnMapping, missing: tuple[str, ...]
) -> Iterator[dict[str, object]]:
    """Yield counts of each column of a mapping: rows read, missing, outside the range, and against another rule.

    No count of 1 to 4 is in them, and none follows from the others.
    """
    mapped, findings = map_table(table, schema, mapping, missing, outcome=False)
    rows = len(mapped)
    for name in schema.columns:
        entry = mapping.get(name, name)
        if entry is None:
            continue
        outside = 0
        unread = 0
        for finding in findings:
            if finding.column == name and finding.rule.startswith(OUTSIDE):
                outside += len(finding.rows)
            elif finding.column == name:
                unread += len(finding.rows)
        read = int(mapped[name].notna().sum())
        parts = {"mapped": read, "missing": max(rows - read - outside - unread, 0)}
        parts |= {"outside": outside, "unread": unread}
        counts = dict(zip(parts, suppress_small(list(parts.values())), strict=True))
        values = _count_values(mapped[name], schema.columns[name])
        yield {"column": name, "own": getattr(entry, "column", entry), **counts, "values": values}


def _count_values(cells: pd.Series, column: Column) -> str:
    """Return how many rows have each value of a category, a flag or an outcome; empty for a number."""
    labels = {value: value for value in column.values}
    if column.kind == "flag":
        labels = {FLAGS["yes"]: "yes", FLAGS["no"]: "no"}
    if column.is_number() or not labels:
        return ""
    frequencies = plain_text(cells).value_counts()
    shown = suppress_small([int(frequencies.get(value, 0)) for value in labels])
    return "; ".join(f"{label} {count}" for label, count in zip(labels.values(), shown, strict=True))


def suppress_small(counts: Sequence[int]) -> list[str]:
    """Return counts as text; beside a small one the largest is rounded, so that no difference shows it.

    Examples
    --------
    >>> suppress_small([3, 300, 0]), suppress_small([20, 13])
    (['fewer than 5', 'about 300', '0'], ['20', '13'])
    """
    shown = list(map(count_in_words, counts))
    if any(0 < count < SMALL for count in counts) and max(counts) >= SMALL:
        largest = counts.index(max(counts))
        shown[largest] = render("proposals.preview.about", rows=round(counts[largest], -1))
    return shown
