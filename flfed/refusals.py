"""Refusals and faults as values: a code and its facts.

Each code has one template, from which the text is made. On the wire, in a ledger and in a record stands that text;
`read` makes code and facts of it again, and nobody else looks at a text. So each end knows the sentences: who holds a
site's key may send any text, a link or a request to call somebody, which is counted here and never written down.
"""

from __future__ import annotations

import re
import string
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

from flfed.errors import FlfedError, TableError, count_in_words

MARKS = "\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"
"""Signs that show nothing, and turn around or hide what is beside them; as the inside of a character class."""
CONTROL = re.compile(f"[\x00-\x1f\x7f-\x9f{MARKS}]")
"""Characters that a text for people has none of: a terminal or a page would obey some."""
LONGEST = 2000
"""Characters of a text; no honest one comes near it."""
NAMES = 2
"""Times that a site's name may stand before what it says."""

SLOTS = {
    "n": r"[0-9][0-9.e+-]{0,23}",
    "s": "s?",
    "word": r"[A-Za-z0-9._+-]{1,60}",
    "sites": r"[a-z0-9-]{1,60}(?:, [a-z0-9-]{1,60}){0,2}",
    "members": r"[a-z0-9-]{1,100}(?:, [a-z0-9-]{1,100}){1,98}",
    "fields": r"[a-z_]{1,40}(?:, [a-z_]{1,40}){0,30}",
    "words": r"(?:none at all|[A-Za-z0-9._+-]{1,60}(?:, [A-Za-z0-9._+-]{1,60}){0,30})",
    "quoted": r"'[a-z0-9.-]{1,60}'(?: and '[a-z0-9.-]{1,60}'){0,9}",
    "column": r"[\w .-]{1,60}",
    "at": r"[0-9TZ:.+ -]{10,32}",
    "day": r"\d{4}-\d\d-\d\d",
    "parts": r"(?:training|holdout|validation)(?: (?:and|or) (?:training|holdout|validation)){0,2}",
    "question": r"(?:train from|evaluate|compare|audit)",
    "disk": r"[A-Za-z -]{1,60}",
    "decision": r"(?:refused|withdrawn)",
    "epsilon": r"(?:[0-9][0-9.e+-]{0,23}|beyond any number)",
    "protocol": r"(?:[0-9][0-9.e+-]{0,23}|of no number)",
    "item": r"(?:value|list|array)",
    "shape": r"\([0-9, ]{0,60}\)",
    "name": r"(?:[a-z0-9]+(?:-[a-z0-9]+)*|node [0-9]{1,20})",
    "limit": r"[0-9.,e:TZinf+-]{1,20}",
    "unit": r"[A-Za-z0-9/%^ ]{1,30}",
    "rows": r"(?:fewer than )?[0-9]{1,16}",
    "rest": r"(?s:.*)",
}
"""What may stand in a sentence: a number, a name of ours, a column's name, a day, parts of the rows; `s` is the plural
of the number before it, and `rest` is for sentences of this side alone."""

_TABLES: dict[str, dict[str, str]] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
TABLE = _TABLES["table"]
"""What is wrong with a table: a column, a rule and a count."""
DEFECTS = _TABLES["defects"]
WRONG = _TABLES["wrong"]
"""What a gate finds wrong with a message, and with one section of it."""
ABOUT = _TABLES["about"]
"""What the coordinator says of a refusal or a fault, which stands in it."""
RULES = _TABLES.pop("rules")["all"]
"""Every rule that `flfed.rows` names in an error about a table."""

_OF_SITES = ("messages", "policy", "rows", "study", "sums", "errors", "grid", "table")
_HERE = ("defects", "wrong", "server", "noted", "about", "named")
OF_SITES = dict(chain.from_iterable(_TABLES[name].items() for name in _OF_SITES))
"""What a site may say, or stands here in its place."""
TEMPLATES = dict(chain.from_iterable(table.items() for table in _TABLES.values()))
"""The one template of each code: `{fact:slot}`, or `{fact!r:slot}` where it stands in quotation marks."""
BUDGET = frozenset({"budget-spent", "budget-of-run", "budget-by-row"})
"""Codes of a site without privacy budget left: it is not asked again in the round."""
NO_ANSWER = frozenset({"no-reply", "node-offline", "node-unknown", "reply-lost"})
"""Codes of what no site said: there was no answer."""
UNTOLD = frozenset({"study-unusable", "model-unmade", "privacy-unusable"})
"""Codes with the text of an error, which is not written down here."""


class Refusal(str):
    """A refusal or a fault: its text, with the code and the facts that it is made of.

    Parameters
    ----------
    code : str
        One of `TEMPLATES`.
    **facts
        What its template has places for.

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
        """Return what a copy is made from."""
        return (self.code,), self.facts

    @property
    def path(self) -> str:
        """Its code, and behind it the code of the refusal that stands in it.

        Examples
        --------
        >>> Refusal("no-comparison", why=Refusal("no-reply")).path
        'no-comparison/no-reply'
        """
        return "/".join(refusal.code for refusal in self._nested())

    @property
    def cause(self) -> Refusal:
        """The innermost refusal: what happened, without when or where."""
        return list(self._nested())[-1]

    def _nested(self) -> Iterator[Refusal]:
        yield self
        inner = self.facts.get("why")
        if isinstance(inner, Refusal):
            yield from inner._nested()


def _fact_text(fact: object) -> str:
    """Return a fact as a text; a refusal stays one."""
    if isinstance(fact, Refusal):
        return fact
    return str(fact)


class NotTakingPart(FlfedError):
    """Refusal of a site by its own policy.

    It is a fixed sentence of ours, so it may cross.
    """


class NotSpent(FlfedError):
    """Refusal of a round by the privacy account.

    It is not allowed, or cannot be recorded. The sentence is a fixed one of ours, so it may cross.

    It has the site's budget, what is spent of it and what was asked, as numbers; nothing of rows.
    """


def refuse(why: Refusal | None) -> None:
    """Raise NotTakingPart with a refusal, where there is one."""
    if why:
        raise NotTakingPart(why)


def or_refuse(outcome: Any) -> Any:
    """Return what was found, or raise NotTakingPart with the refusal that it is."""
    if isinstance(outcome, Refusal):
        raise NotTakingPart(outcome)
    return outcome


def refusal_of(error: FlfedError) -> Refusal:
    """Return the refusal that an error was raised with.

    Of an error that says something else, the text stays here.
    """
    reason = error.args[0] if error.args else ""
    if isinstance(reason, Refusal):
        return reason
    return Refusal("error-untold")


class _Text(string.Formatter):
    """Formatter of a template, whose slots are not format specifications."""

    def format_field(self, value: Any, format_spec: str) -> str:
        if format_spec == "s":
            return "s" * (int(value) != 1)
        return str(value)


_TEXT = _Text()


def path_of(reason: str) -> str:
    """Return the path of codes of a reason, an empty text where it is a text alone."""
    if isinstance(reason, Refusal):
        return reason.path
    return ""


def of_table(error: TableError, least: int) -> Refusal:
    """Return the refusal of a table that breaks a rule.

    Counts below `least` are written as "fewer than".

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
    r"""Return a text without marks that hide or reverse it.

    Examples
    --------
    >>> unmarked("its\u202e node is\u200f not online")
    'its node is not online'
    """
    return re.sub(f"[{MARKS}]", "", text)


def plain(text: str) -> str:
    """Return a text as one line that hides nothing."""
    return CONTROL.sub(" ", unmarked(text)).strip()


def read(text: str) -> Refusal | None:
    """Return the refusal that a text says, None where it is none.

    A refusal that stands in another one is read as well.

    Examples
    --------
    >>> read("no comparison: no reply before the deadline").path
    'no-comparison/no-reply'
    """
    # What stands around another refusal comes last, since anything may stand in it.
    groups = (_OF_SITES, *((name,) for name in _HERE))
    return next((refusal for tables in groups if (refusal := _read(text, tables)) is not None), None)


def read_of_site(text: str) -> Refusal | None:
    """Return the refusal that a site may say, None for any other text.

    What stands in a site's place may be said by it as well. The site's name does not stand before it.

    Examples
    --------
    >>> read_of_site("column 'age' is not a number in 12 rows").facts["column"]
    'age'
    >>> read_of_site("call +49 30 1234567 at once") is None
    True
    """
    return _read(text, _OF_SITES)


def recorded(reason: str, site: str = "") -> Refusal:
    """Return what is recorded of a site's reason.

    It is the refusal, or how long the text was.

    Parameters
    ----------
    reason : str
    site : str
        Whose name may stand before the sentence, as while it enrols; "" where nobody knows yet who it is.

    Examples
    --------
    >>> str(recorded("clinic: the study is not approved here")), recorded("see https://evil.example").path
    ('clinic: the study is not approved here', 'something-else')
    """
    # Only the beginning of a long text is looked at: no honest one is as long.
    text = plain(reason[:LONGEST])
    before = list[str]()
    name_first = re.compile(f"({re.escape(site) or SLOTS['name']}): ")
    # The whole text may be known by itself, before a name is taken off it.
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
    """Return the expression of one template, its facts as groups where `named`."""
    expression = ""
    seen = set[str]()
    for words, fact, slot, quoted in string.Formatter().parse(template):
        expression += re.escape(words)
        if fact is None:
            continue
        inner = slots[slot or fact]
        # A fact that stands twice, as a number and its plural, is read where it stands first.
        inner = f"(?P<{fact}>{inner})" if named and fact not in seen else f"(?:{inner})"
        seen.add(fact)
        part = f"'{inner}'" if quoted else inner
        expression += part
    return expression


def any_of(templates: Iterable[str], slots: Mapping[str, str]) -> str:
    """Return the expression of any one of these templates."""
    return "|".join(pattern(template, slots) for template in templates)


def _read(text: str, tables: tuple[str, ...]) -> Refusal | None:
    """Return the refusal of some tables that a text says."""
    match = _any(tables).fullmatch(text)
    if match is None or match.lastgroup is None:
        return None
    code = match.lastgroup.replace("_", "-")
    parts = _one(code).fullmatch(text)
    if parts is None:
        return None
    facts: dict[str, Any] = parts.groupdict()
    # What stands within a sentence is read by itself, where it is one of ours.
    if "why" in facts:
        facts["why"] = read(facts["why"]) or facts["why"]
    made = Refusal(code, **facts)
    if made == text:
        return made
    return None


# Made at the first look, which most runs never take.
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
