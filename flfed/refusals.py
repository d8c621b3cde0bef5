"""Refusals and faults as values: a code and its facts.

Each code has one template, from which the text is made. On the wire, in a ledger and in a record stands that text;
`read` makes code and facts of it again, and nobody else looks at a text. So each end knows the sentences: who holds a
site's key may send any text, a link or a request to call somebody, which is counted here and never written down.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
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

MESSAGES = {
    "no-section": "the message has no {section!r:column}",
    "no-arrays": "the message has no arrays {section!r:column}",
    "arrays-unreadable": "the arrays {section!r:column} cannot be read",
    "arrays-cut": "the arrays {section!r:column} are not as long as they say",
    "numbers-unfit": "the numbers in {section!r:column} are too many, or have no fit names",
    "settings-unfit": "the settings in {section!r:column} are not numbers",
    "setting-missing": "the settings have no {setting!r:word}",
    "bins-unfit": "{section!r:column} does not count in 2 x {bins:n} bins",
    "counts-unfit": "{section!r:column} has counts that are negative or not finite",
    "columns-uneven": "the columns of {section!r:column} differ in length, or are too long",
    "fields-missing": "the message is no {message:word}: {fields:fields} is missing",
    "fields-unfit": "the message is no {message:word}: {fields:fields} is of a wrong type or value",
    "field-unknown": "the message is no {message:word}: it has a field that is not known",
    "counts-impossible": "the message is no {message:word}: it counts what no site has",
    "lines-negative": "the message is no {message:word}: it counts fewer than no lines",
    "deviation-unfit": "the message is no {message:word}: its deviation is not a number of at least 0",
    "odds-unfit": (
        "the message is no {message:word}: its odds-centre and odds-spread are not two numbers that bins have"
    ),
    "protocol-differs": "protocol {theirs:protocol} is not {ours:n}: the other side runs another version of flfed",
    "text-unfit": "the message has no text {key!r:column} that is fit to be shown",
    "number-missing": "the message has no whole number {key!r:column}",
    "reply-incomplete": "the reply has no {fields:fields}",
    "attack-unknown": "the message asks for an attack that is not known here",
    "family-unknown": "the message names a family of models that is not known",
    "message-unreadable": "the message cannot be read",
    "no-message": "the message holds something else than a message",
    "too-many-parts": "the message has more than {most:n} parts, which are not read",
    "other-message": "the message is not the one that its envelope announces",
    "other-envelope": "the message has another {field:word} than its envelope",
    "length-untold": "the message does not say how long it is, or is packed",
    "message-too-large": "the message is larger than {most:n} bytes, which this site reads",
    "false-bundle": "the message comes with a bundle that is not the one it claims to be",
    "two-runs": "the message and its settings are of two runs",
}
"""Defects of a message that cannot be read: it came from the other side, and holds nothing of a table."""
POLICY = {
    "other-dataset": "its table is mapped to dataset {mapped:quoted}, the study asks {asked!r:word}",
    "not-allowed": "its policy allows {kind:word} {allowed:words}, the study asks for {asked!r:word}",
    "too-many-rounds": "its policy allows {most:n} rounds, the study has {rounds:n}",
    "privacy-needed": (
        "its policy allows studies with record-level differential privacy only, for it has a budget of it; "
        "the study has mechanism {mechanism!r:word}"
    ),
    "delta-too-large": "its policy allows delta up to {most:n}, the study asks for {delta:n}",
    "unit-person-needed": (
        "its policy allows unit 'person' only, for its privacy budget is of persons; the study has unit 'row'"
    ),
    "own-holdout": (
        "its policy keeps the site's own holdout (resplit = false), and the study asks for a published split"
    ),
    "complete-rows": "its policy does not let a study leave out rows with a missing feature (outputs: 'complete-rows')",
    "no-audits": "its policy does not let a model be attacked with its rows (audits)",
    "too-many-queries": "its policy lets {most:n} runs have sums over one set of rows, and {had:n} had them",
    "too-many-runs": "its policy lets {most:n} run{most:s} of a study have answers, and {had:n} had them",
    "too-many-bytes": (
        "its policy lets {most:n} bytes leave in a day, and {used:n} have left: it answers again after midnight UTC"
    ),
    "no-co-site": "its policy does not name {sites:sites} as a co-site",
    "policy-changed": "its policy was changed while this was computed; the next message is held to it",
    "policy-unreadable": "its policy cannot be read; at the site: flfed site check {site:word}",
    "split-by-time": "its transactions are held out by time, and the study asks for a published split",
    "too-few-sites": "the run asks {asked:n} site{asked:s}, its policy needs at least {least:n}",
}
"""What a site's policy says of a study, a run or a message."""
ROWS = {
    "too-few-rows": "it has fewer than {least:n} {parts:parts} rows",
    "too-few-people": "it has fewer than {least:n} people in its {parts:parts} rows",
    "too-close": (
        "its rows differ by fewer than {least:n} people from rows whose sums left before: "
        "together such sums would give these people away"
    ),
    "releases-unreadable": (
        "its record of the rows that it released cannot be read, so nothing leaves the site: see its log"
    ),
    "budget-spent": (
        "privacy budget: epsilon {spent:epsilon} of {budget:n} is spent at delta {delta:n}, "
        "and one more round would make it {after:epsilon}"
    ),
    "budget-by-row": (
        "privacy budget: an earlier study of unit 'row' protected each row by itself, and a person may have several, "
        "so that no epsilon bounds what is spent of the budget, which is of persons"
    ),
    "delta-gives-away": (
        "the study's delta={delta:n} is not below one over the training rows here: "
        "it would allow to give one of them away whole"
    ),
    "ledger-unwritable": "its ledger cannot be written, so nothing leaves the site: see its log",
    "ledger-lost": (
        "its ledger is lost or was cut, so nothing leaves the site; at the site: put it back, "
        "or flfed site ledger {site:word} --restart WHY"
    ),
    "ledger-other-study": "its ledger has a run of this name with another study",
    "ledger-ahead": (
        "line {line:n} of its ledger is of {at:at}, later than its clock, so nothing leaves the site; "
        "at the site: set the clock right, or flfed site ledger {site:word} --restart WHY"
    ),
    "other-people-untold": (
        "sums left before over rows of dataset {dataset!r:word}, of which it cannot tell whether they are of the same "
        "people"
    ),
    "no-memory": "it needs more memory than the site gives its gate; at the site: flfed site serve NAME --memory SIZE",
    "reply-not-kept": "it cannot keep its reply on its own disk ({error:disk})",
    "request-not-kept": "it cannot keep what it is asked on its own disk ({error:disk})",
    "table-unopened": "it cannot open its table for this study; at the site: flfed site check {site:word}",
    "rows-changed": "its frozen rows changed after the approval: the study needs a new one",
    "rows-unserved": "its frozen rows cannot be served; at the site: flfed site status {site:word}",
    "no-frozen-rows": "it has no frozen rows of {dataset!r:word}",
    "opt-outs-changed": (
        "its list of people who opted out changed after the rows were frozen; at the site: flfed site refresh "
        "{site:word}"
    ),
}
"""What keeps a site's rows, ledger or budget from an answer."""
STUDY = {
    "expired": "the study expired on {day:day}",
    "other-schema": "its schema of {dataset!r:word} differs from the coordinator's",
    "schema-changed-after-approval": "its schema of {dataset!r:word} changed after the approval",
    "schema-changed-after-freeze": "its schema of {dataset!r:word} changed after the rows were frozen",
    "decided-against": "the study was {decision:decision} here on {day:day}",
    "not-approved": "the study is not approved here",
    "approved-other-version": "the study was approved under another version of flfed: it needs a new approval",
    "approved-other-coordinator": "the study was approved for another coordinator: it needs a new approval",
    "study-changed": "study {study!r:column} was changed since it was decided about here: it needs a new approval",
    "approvals-unsafe": "its approvals cannot be read safely; at the site: flfed site status {site:word}",
    "research-sites": "the study cuts one table into research sites, which no institution is",
    "study-unreadable": "the study cannot be read",
    "study-unusable": "the study cannot be used ({error:rest})",
    "model-unmade": "the study's model cannot be made ({error:rest})",
    "privacy-unusable": "the study's [privacy] cannot be used ({error:rest})",
    "model-too-large": "the study's model is too large for this site",
    "no-study": "the run brings no study",
    "repeat-unfit": "the run's repeat must be a whole number from 0 to {most:n}",
    "run-unnamed": "the run has no name of letters, digits and hyphens",
    "sites-unnamed": "the run does not name the sites that it asks",
    "site-unlisted": "the run's list of sites does not name this one, or names one twice",
    "sites-added": "the run adds {sites:sites}, which the approval does not name",
    "other-bundle": (
        "the run came with another bundle than that of flfed {version:word}, which this site installed; "
        "no code of a bundle is ever executed here"
    ),
    "kind-unknown": "a message of kind {kind!r:word} is not known; known: {known:words}",
    "other-site": "this is site {site!r:word}, and its node has another name",
    "no-content": "the message has no content",
    "paused": "the site is paused by its operator",
    "other-model": "it was asked to {question:question} another model in this run",
    "other-model-in-round": "it was asked to {question:question} another model in round {round:n} of this run",
    "other-deviation": "it was asked to compare by another deviation of the sites' intercepts in this run",
    "other-bins": "it was asked to count rows in other bins of predictions in this run",
    "not-compared": "it did not compare this model in this run: only such a model is attacked here",
    "not-let-in": "it is the reply to a message that was not let in",
    "gate-ended": "the message was not answered: the site ended its gate",
    "message-unfit": "the {kind:word} message does not fit the study: {defect:defect}",
    "reply-unfit": "its {kind:word} reply is held back: {defect:defect}",
}
"""What a gate says of the study, the run and the message that it is asked."""
DEFECTS = {
    "extra-sections": "it has {many:n} section{many:s} too many",
    "section-missing": "it has no section {section!r:column}",
    "section-unfit": "its section {section!r:column} {wrong:wrong}",
    "too-large": "it has {size:n} bytes, where {most:n} are enough",
    "accepted-with-reason": "it accepts, and gives a reason",
    "reason-unknown": "its reason is no sentence of ours",
}
"""What a gate finds wrong with a message, on its way in or out."""
WRONG = {
    "unreadable": "cannot be read",
    "other-kind": "is of another kind",
    "value-unfit": "has a value {key!r:column} that does not fit",
    "list-unfit": "has a value in {key!r:column} that does not fit",
    "no-list": "has a value that is no list",
    "lengths-unfit": "has lists of a wrong length",
    "extra-items": "has {many:n} {item:item}{many:s} too many",
    "item-missing": "has no {item:item} {key!r:column}",
    "array-too-large": "has an array {key!r:column} that is too large ({size:n} bytes, where {most:n} are enough)",
    "other-shape": "has an array {key!r:column} of another shape than {shape:shape}",
    "other-dtype": "has an array {key!r:column} of another type than {dtype:word}",
    "infinite": "has an array {key!r:column} with values that are not finite",
    "not-positive": "has an array {key!r:column} with values that are not above 0",
    "other-values": "has an array {key!r:column} that is not the one that follows from the study",
}
"""What is wrong with one section of it."""
ERRORS = {
    "error": "{type:word}: see the site's log",
    "error-untold": "an error whose text may not leave the site: see its ledger and log",
}
"""What is said in place of an error's own text."""
GRID = {
    "no-reply": "no reply before the deadline",
    "node-offline": "its node is not online",
    "node-unknown": "its node is not online: it never was, or was revoked",
    "reply-lost": "its reply was lost on the way",
    "reply-too-large": "its reply is larger than {most:n} bytes, which are read",
    "error-code": "error code {number:n}",
    "other-node": "its node says it is site {says!r:word}, and was admitted as {admitted!r:word}",
    "something-else": "said something else ({characters:n} characters)",
    "process-failed": "the process at this node failed: see Ray's logs",
    "study-unusable-untold": "the study cannot be used: see the site's log",
    "model-unmade-untold": "the study's model cannot be made: see the site's log",
    "privacy-unusable-untold": "the study's [privacy] cannot be used: see the site's log",
}
"""What is said here in place of a site."""
SERVER = {
    "not-a-delta": "kind is not 'delta'",
    "examples-unfit": "num-examples is not a positive whole number",
    "examples-above-band": "num-examples is above the declared band (at most {most:n})",
    "loss-infinite": "training loss is not finite",
    "no-step": "no step of training was taken",
    "array-names-differ": "names of arrays differ from the model's",
    "array-shape-differs": "array {array!r:rest} has shape {shape:shape}, not {expected:shape}",
    "array-dtype-differs": "array {array!r:rest} has dtype {dtype:word}, not {expected:word}",
    "array-infinite": "array {array!r:rest} has values that are not finite",
    "norm-infinite": "norm of the update is not finite",
    "norm-refused": "norm of the update is {times:n} times the cohort's median (limit {limit:n})",
    "norm-flagged": "norm of the update is {times:n} times the cohort's median",
    "norm-not-zero": "update is not zero, most of the cohort's are",
    "scores-other-rows": "{scores:word} are not over {parts:parts} rows",
    "scores-outside-band": "{scores:word} count rows outside the declared band",
    "scores-infinite": "{scores:word} are not finite",
    "offset-outputs": "its offset is not of {outputs:n} outputs",
    "offset-infinite": "its offset is not finite, or its standard error not above 0",
    "sums-layout": "its sums have another layout ({parts:words})",
    "sums-infinite": "its sums are not finite",
    "sums-negative": "its counts are negative",
    "sums-above-band": "its rows are above the declared band (at most {most:n})",
    "sums-disagree": "its sums do not go together",
    "counts-disagree": "its counts do not add up to its rows",
    "sums-of-several": "it is not the sum of one site",
    "leak-sums-disagree": "its leak sums do not go together",
    "rows-impossible": "its numbers of rows are impossible",
    "figure-twice": "a figure stands in it twice",
    "interval-impossible": "{metric:word} has an impossible interval",
    "metric-out-of-range": "{metric:word} is outside 0 to 1",
}
"""What the coordinator finds wrong with a reply."""
ABOUT = {
    "not-there": "not there: {why:rest}",
    "no-comparison": "no comparison: {why:rest}",
    "holdout-sums": "holdout rows: {why:rest}",
    "left": "did not come back after the run was resumed",
    "left-because": "did not come back after the run was resumed: {why:rest}",
    "node-not-enrolled": "a node did not enrol: {why:rest}",
    "ledger-unsigned": "its ledger is not signed: {why:rest}",
    "ledger-without-receipt": "it has no receipt of its ledger: {why:rest}",
    "no-table-1": "no Table 1: {why:rest}",
    "no-learning-curve": "no learning curve: {why:rest}",
    "no-pooled-reference": "no pooled reference: {why:rest}",
    "resumed": "resumed after round {round:n}; before: {why:rest}",
    "none-left": "privacy budget: none left at {sites:words}; {why:rest}",
    "in-repeat": "repeat {number:n}: {why:rest}",
    "refused": "refused: {why:rest}",
    "first-attempt": "{why:rest} (first attempt)",
}
"""What the coordinator says of a refusal or a fault, which stands in it."""
NOTED = {
    "more-spent": "More than planned may have been spent{how:rest}",
    "close-delta": "A delta close to one over the training rows{how:rest}",
    "merged-histograms": "merged score histograms{how:rest}",
    "mean-with-gaps": "mean of {sites:n} sites; {left:n} without this figure left out",
    "mean-without-one-class": "mean of {sites:n} sites; {left:n} whose model saw one class left out",
}
"""What the coordinator notes of a guarantee and of a figure."""
RULES = (
    "has no date", "has no value", "has no rows: the table is empty", "has no value, but rows are grouped by it",
    "has no value (rows without an outcome cannot be used)", "is mapped but the schema has no such column",
    "is not in the table", "is not in the table (map it to None if the site does not have it)",
    "stands in the table more than once", "has a '.' although its decimal mark is '.'",
    "has a '.' although its decimal mark is ','", "has a code that the mapping does not know",
    "has limits such as '<' or '>' (set censored)", "has values that are no text (see its mapping)",
    "has a value that the schema does not allow", "is not a number", "is not a flag (0 or 1, yes or no)",
    "is not a date such as 2026-01-31", "is not a date such as 2026-01-31 14:05:00",
    "is not in the table, and neither is any other column of the schema", "is yes or no where a number is meant",
    "is not a date as its mapping says", "is midnight of another time zone (have the source give local dates)",
    "has identifiers that a spreadsheet rounded or made dates of (export them as text)",
    "has signs that were lost in another encoding (export it anew)",
    "has words for 'not known' such as NULL (name them in missing)",
    "has three digits after every mark: a decimal or a thousand (set thousands)",
    "has marks between thousands at other places",
    "is neither {yes!r:word} nor {no!r:word} as the windows' file declares it",
    "is outside the schema's range {low:limit} to {high:limit}",
    "is outside the schema's range {low:limit} to {high:limit} {unit:unit}",
)  # fmt: skip
"""Every rule that `flfed.rows` names in an error about a table."""
TABLE = {
    "column-unfit": "column {column!r:column} {rule:rule}",
    "column-unfit-in-rows": "column {column!r:column} {rule:rule} in {rows:rows} rows",
}
"""What is wrong with a table: a column, a rule and a count."""

OF_SITES = MESSAGES | POLICY | ROWS | STUDY | ERRORS | GRID | TABLE
"""What a site may say, or stands here in its place."""
NAMED = {"of-site": "{site:name}: {why:rest}"}
"""What is said before it is known who speaks."""
TEMPLATES = OF_SITES | DEFECTS | WRONG | SERVER | NOTED | ABOUT | NAMED
"""The one template of each code: `{fact:slot}`, or `{fact!r:slot}` where it stands in quotation marks."""
BUDGET = frozenset({"budget-spent", "budget-by-row"})
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
        found = super().__new__(cls, _TEXT.vformat(TEMPLATES[code], (), facts))
        found.code = code
        found.facts = {name: fact if isinstance(fact, Refusal) else str(fact) for name, fact in facts.items()}
        return found

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


def refusal_of(error: FlfedError) -> Refusal:
    """Return the refusal that an error was raised with.

    Of an error that says something else, the text stays here.
    """
    found = error.args[0] if error.args else ""
    return found if isinstance(found, Refusal) else Refusal("error-untold")


class _Text(string.Formatter):
    """Formatter of a template, whose slots are not format specifications."""

    def format_field(self, value: Any, format_spec: str) -> str:
        if format_spec == "s":
            return "s" * (int(value) != 1)
        return str(value)


_TEXT = _Text()


def path_of(reason: str) -> str:
    """Return the path of codes of a reason, an empty text where it is a text alone."""
    return reason.path if isinstance(reason, Refusal) else ""


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
    groups = (OF_SITES, DEFECTS, WRONG, SERVER, NOTED, ABOUT, NAMED)
    return next((found for group in groups if (found := _read(text, group)) is not None), None)


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
    return _read(text, OF_SITES)


def recorded(said: str, site: str = "") -> Refusal:
    """Return what is recorded of a site's reason.

    It is the refusal, or how long the text was.

    Parameters
    ----------
    said : str
    site : str
        Whose name may stand before the sentence, as while it enrols; "" where nobody knows yet who it is.

    Examples
    --------
    >>> str(recorded("clinic: the study is not approved here")), recorded("see https://evil.example").path
    ('clinic: the study is not approved here', 'something-else')
    """
    # Only the beginning of a long text is looked at: no honest one is as long.
    text, before = plain(said[:LONGEST]), list[str]()
    # The whole text may be known by itself, before a name is taken off it.
    while (found := read_of_site(text)) is None and len(before) < NAMES:
        named = re.match(f"({re.escape(site) or SLOTS['name']}): ", text)
        if named is None:
            return Refusal("something-else", characters=len(said))
        before.append(named[1])
        text = text[named.end() :]
    if found is None:
        return Refusal("something-else", characters=len(said))
    if found.code in UNTOLD:
        found = Refusal(f"{found.code}-untold")
    for name in reversed(before):
        found = Refusal("of-site", site=name, why=found)
    return found


def pattern(template: str, slots: Mapping[str, str], *, named: bool = False) -> str:
    """Return the expression of one template, its facts as groups where `named`."""
    found, seen = "", set[str]()
    for words, fact, slot, quoted in string.Formatter().parse(template):
        found += re.escape(words)
        if fact is None:
            continue
        inner = slots[slot or fact]
        # A fact that stands twice, as a number and its plural, is read where it stands first.
        inner = f"(?P<{fact}>{inner})" if named and fact not in seen else f"(?:{inner})"
        seen.add(fact)
        found += f"'{inner}'" if quoted else inner
    return found


def any_of(templates: Iterable[str], slots: Mapping[str, str]) -> str:
    """Return the expression of any one of these templates."""
    return "|".join(pattern(template, slots) for template in templates)


def _read(text: str, group: Mapping[str, str]) -> Refusal | None:
    """Return the refusal of one group that a text says."""
    found = _group(tuple(group.items())).fullmatch(text)
    if found is None or found.lastgroup is None:
        return None
    code = found.lastgroup.replace("_", "-")
    parts = _one(code).fullmatch(text)
    if parts is None:
        return None
    facts: dict[str, Any] = parts.groupdict()
    # What stands within a sentence is read by itself, where it is one of ours.
    if "why" in facts:
        facts["why"] = read(facts["why"]) or facts["why"]
    made = Refusal(code, **facts)
    return made if made == text else None


# Made at the first look, which most runs never take.
@cache
def _group(templates: tuple[tuple[str, str], ...]) -> re.Pattern[str]:
    slots = _slots()
    return re.compile("|".join(f"(?P<{code.replace('-', '_')}>{pattern(of, slots)})" for code, of in templates))


@cache
def _one(code: str) -> re.Pattern[str]:
    return re.compile(pattern(TEMPLATES[code], _slots(), named=True))


@cache
def _slots() -> dict[str, str]:
    found = {"wrong": any_of(WRONG.values(), SLOTS), "rule": any_of(RULES, SLOTS)}
    return SLOTS | found | {"defect": any_of(DEFECTS.values(), SLOTS | found)}
