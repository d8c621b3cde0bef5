"""Refusals and faults as values: a code and its facts.

Each code has one template, from which the text is made. The wire, ledgers and records have the text; only `read` turns
it back into code and facts. Both ends thus know all sentences. Anyone with a site's key may send another text, such as
a link or a request to call somebody; its characters are counted here, and it is never recorded.
"""

from __future__ import annotations

import re
import string
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

from flfed.errors import FlfedError, TableError, count_in_words

MARKS = "\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"
"""Invisible characters that reverse or hide their neighbours; the inside of a character class."""
CONTROL = re.compile(f"[\x00-\x1f\x7f-\x9f{MARKS}]")
"""Characters that no text for people may have: a terminal or a page would obey some."""
LONGEST = 2000
"""Most characters of a text; no honest text is nearly as long."""
NAMES = 2
"""Most names of a site before its text."""

_TABLES: dict[str, dict[str, str]] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
SLOTS = _TABLES.pop("slots")
"""Slots of a sentence: a number, a name of ours, a column's name, a day, parts of the rows. `s` is the plural of the
number before it, and `rest` is only for sentences of this side."""
TABLE = _TABLES["table"]
"""Defects of a table: a column, a rule and a count."""
DEFECTS = _TABLES["defects"]
WRONG = _TABLES["wrong"]
"""Defects of a message for a gate, and of a section of it."""
ABOUT = _TABLES["about"]
"""Sentences of the coordinator around a refusal or a fault."""
RULES = _TABLES.pop("rules")["all"]
"""Rules of `flfed.rows` in errors about a table."""

_OF_SITES = ("messages", "policy", "rows", "study", "sums", "errors", "grid", "table")
_HERE = ("defects", "wrong", "server", "noted", "about", "named")
OF_SITES = dict(chain.from_iterable(_TABLES[name].items() for name in _OF_SITES))
"""Templates of texts of a site, or of those recorded here in their place."""
TEMPLATES = dict(chain.from_iterable(table.items() for table in _TABLES.values()))
"""Template of each code, with places `{fact:slot}`, or `{fact!r:slot}` in quotation marks."""
BUDGET = frozenset({"budget-spent", "budget-by-row"})
"""Codes of a site without privacy budget, which gets no further request in the round."""
NO_ANSWER = frozenset({"no-reply", "node-offline", "node-unknown", "reply-lost"})
"""Codes of a missing reply, which no site sends."""
UNTOLD = frozenset({"study-unusable", "model-unmade", "privacy-unusable"})
"""Codes with the text of an error, which is not recorded here."""


class Refusal(str):
    """Refusal or fault: its text, with its code and facts.

    Parameters
    ----------
    code : str
        One of `TEMPLATES`.
    **facts
        Values for the places of its template.

    Examples
    --------
    >>> refusal = Refusal("too-few-sites", asked=1, least=3)
    >>> str(refusal), refusal.code, refusal.facts["least"]
    ('the run asks 1 site, its policy needs at least 3', 'too-few-sites', '3')
    """

    code: str
    facts: dict[str, str]

    def __new__(cls, code: str, /, **facts: object) -> Refusal:
        """Make the text from code and facts."""
        refusal = super().__new__(cls, _TEXT.vformat(TEMPLATES[code], (), facts))
        refusal.code = code
        refusal.facts = {name: _fact_text(fact) for name, fact in facts.items()}
        return refusal

    def __getnewargs_ex__(self) -> tuple[tuple[str], dict[str, str]]:
        """Return the arguments of a copy."""
        return (self.code,), self.facts

    @property
    def path(self) -> str:
        """Its code, followed by the code of the refusal inside it.

        Examples
        --------
        >>> Refusal("no-comparison", why=Refusal("no-reply")).path
        'no-comparison/no-reply'
        """
        return "/".join(refusal.code for refusal in self._nested())

    @property
    def cause(self) -> Refusal:
        """The innermost refusal: the event, without time and place."""
        return list(self._nested())[-1]

    def _nested(self) -> Iterator[Refusal]:
        yield self
        inner = self.facts.get("why")
        if isinstance(inner, Refusal):
            yield from inner._nested()


def _fact_text(fact: object) -> str:
    """Return a fact as a text, or a refusal unchanged."""
    return fact if isinstance(fact, Refusal) else str(fact)


class NotTakingPart(FlfedError):
    """Refusal of a site by its own policy: a fixed sentence of ours, which may leave the site."""


class NotSpent(FlfedError):
    """Refusal of a round by the privacy account: it is not allowed, or cannot be recorded.

    The sentence is a fixed one of ours, which may leave the site. It has the site's budget, its spent part and the
    requested part, as numbers, and nothing about rows.
    """


def decline(code: str, /, **facts: object) -> NoReturn:
    """Raise NotTakingPart with the refusal of this code."""
    raise NotTakingPart(Refusal(code, **facts))


def refuse(why: Refusal | None) -> None:
    """Raise NotTakingPart where there is a refusal."""
    if why:
        raise NotTakingPart(why)


def or_refuse(outcome: Any) -> Any:
    """Return an outcome, or raise NotTakingPart if it is a refusal."""
    if isinstance(outcome, Refusal):
        raise NotTakingPart(outcome)
    return outcome


def refusal_of(error: FlfedError) -> Refusal:
    """Return the refusal of an error; the text of any other error is not passed on."""
    reason = error.args[0] if error.args else ""
    return reason if isinstance(reason, Refusal) else Refusal("error-untold")


class _Text(string.Formatter):
    """Formatter of a template; its slots are not format specifications."""

    def format_field(self, value: Any, format_spec: str) -> str:
        if format_spec == "s":
            return "s" * (int(value) != 1)
        return str(value)


_TEXT = _Text()


def path_of(reason: str) -> str:
    """Return the path of codes of a reason; "" for a plain text."""
    return reason.path if isinstance(reason, Refusal) else ""


CROSSING = 10
"""Counts of rows below this leave a site as "fewer than 10", whatever its policy."""


def of_table(error: TableError, least: int) -> Refusal:
    """Return the refusal of a table that breaks a rule, with counts below `least` as "fewer than".

    Examples
    --------
    >>> str(of_table(TableError("age", "is not a number", bad=7), 10))
    "column 'age' is not a number in fewer than 10 rows"
    """
    if error.bad is None:
        return Refusal("column-unfit", column=error.column, rule=error.rule)
    rows = count_in_words(error.bad, least)
    return Refusal("column-unfit-in-rows", column=error.column, rule=error.rule, rows=rows)


def unmarked(text: str) -> str:
    r"""Return a text without characters that hide or reverse it.

    Examples
    --------
    >>> unmarked("its\u202e node is\u200f not online")
    'its node is not online'
    """
    return re.sub(f"[{MARKS}]", "", text)


def plain(text: str) -> str:
    """Return a text as one line without hidden characters."""
    return CONTROL.sub(" ", unmarked(text)).strip()


def read(text: str) -> Refusal | None:
    """Return the refusal of a text, or None; a refusal inside another one is read, too.

    Examples
    --------
    >>> read("no comparison: no reply before the deadline").path
    'no-comparison/no-reply'
    """
    # Templates around another refusal come last, since they may contain any text.
    groups = (_OF_SITES, *((name,) for name in _HERE))
    return next((refusal for tables in groups if (refusal := _read(text, tables)) is not None), None)


def read_of_site(text: str) -> Refusal | None:
    """Return the refusal of a site's text, without its name before it; None for any other text.

    The sentences that are recorded in place of a site's text are accepted, too.

    Examples
    --------
    >>> read_of_site("column 'age' is not a number in 12 rows").facts["column"]
    'age'
    >>> read_of_site("call +49 30 1234567 at once") is None
    True
    """
    return _read(text, _OF_SITES)


def recorded(reason: str, site: str = "") -> Refusal:
    """Return the record of a site's reason: the refusal, or the length of another text.

    Parameters
    ----------
    reason : str
    site : str
        Name that may precede the sentence, as during enrolment; "" if it is not known yet.

    Examples
    --------
    >>> str(recorded("clinic: the study is not approved here")), recorded("see https://evil.example").path
    ('clinic: the study is not approved here', 'something-else')
    """
    # Only the beginning of a long text is read: no honest one is as long.
    text = plain(reason[:LONGEST])
    before = list[str]()
    name_first = re.compile(f"({re.escape(site) or SLOTS['name']}): ")
    # The whole text may be a sentence of ours, before a name is removed from it.
    while (refusal := read_of_site(text)) is None and len(before) < NAMES and (named := name_first.match(text)):
        before.append(named[1])
        text = text[named.end() :]
    if refusal is None:
        return Refusal("something-else", characters=len(reason))
    if refusal.code in UNTOLD:
        refusal = Refusal(f"{refusal.code}-untold")
    for name in reversed(before):
        refusal = Refusal("of-site", site=name, why=refusal)
    return refusal


def pattern(template: str, slots: Mapping[str, str], *, named: bool = False) -> str:
    """Return the regular expression of a template, with its facts as groups where `named`."""
    expression = ""
    seen = set[str]()
    for words, fact, slot, quoted in string.Formatter().parse(template):
        expression += re.escape(words)
        if fact is None:
            continue
        inner = slots[slot or fact]
        # A fact that occurs twice, as a number and its plural, is read at its first place.
        inner = f"(?P<{fact}>{inner})" if named and fact not in seen else f"(?:{inner})"
        seen.add(fact)
        part = f"'{inner}'" if quoted else inner
        expression += part
    return expression


def any_of(templates: Iterable[str], slots: Mapping[str, str]) -> str:
    """Return the regular expression of any of these templates."""
    return "|".join(pattern(template, slots) for template in templates)


def _read(text: str, tables: tuple[str, ...]) -> Refusal | None:
    """Return the refusal of a text by the templates of some tables, or None."""
    match = _any(tables).fullmatch(text)
    if match is None or match.lastgroup is None:
        return None
    code = match.lastgroup.replace("_", "-")
    parts = _one(code).fullmatch(text)
    if parts is None:
        return None
    facts: dict[str, Any] = parts.groupdict()
    # A sentence of ours within a sentence is read by itself.
    if "why" in facts:
        facts["why"] = read(facts["why"]) or facts["why"]
    made = Refusal(code, **facts)
    return made if made == text else None


# Made at the first use, which most runs never need.
@cache
def _any(tables: tuple[str, ...]) -> re.Pattern[str]:
    slots = _slots()
    templates = chain.from_iterable(_TABLES[name].items() for name in tables)
    return re.compile("|".join(f"(?P<{code.replace('-', '_')}>{pattern(of, slots)})" for code, of in templates))


@cache
def _one(code: str) -> re.Pattern[str]:
    return re.compile(pattern(TEMPLATES[code], _slots(), named=True))


@cache
def _slots() -> dict[str, str]:
    slots = {"wrong": any_of(WRONG.values(), SLOTS), "rule": any_of(RULES, SLOTS)}
    return SLOTS | slots | {"defect": any_of(DEFECTS.values(), SLOTS | slots)}


NO_LEDGER = Refusal("ledger-unwritable")
"""A site's reply where its ledger is torn, changed, or unreachable.

The one sentence that leaves without a line: it reveals nothing, and silence would delay every site's round.
"""
