"""Sentences that a site says to the coordinator.

What is none of them is counted, and not written down.

A site tells in words why it gave no answer, and how a figure was made. Who holds a site's key may send any text
instead: a link, a request to call somebody, signs that turn a line around. So each end knows the sentences: the gate
lets no other one out, and the coordinator records no other one. A new sentence is a new line here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

from flfed import registry

SLOTS = {
    "n": r"[0-9][0-9.e+-]{0,23}",
    "word": r"[A-Za-z0-9._+-]{1,60}",
    "sites": r"[a-z0-9-]{1,60}(?:, [a-z0-9-]{1,60}){0,2}",
    "fields": r"[a-z_]{1,40}(?:, [a-z_]{1,40}){0,30}",
    "words": r"(?:none at all|[A-Za-z0-9._+-]{1,60}(?:, [A-Za-z0-9._+-]{1,60}){0,30})",
    "quoted": r"'[a-z0-9.-]{1,60}'(?: and '[a-z0-9.-]{1,60}'){0,9}",
    "column": r"[\w .-]{1,60}",
    "at": r"[0-9TZ:.+ -]{10,32}",
    "day": r"\d{4}-\d\d-\d\d",
    "parts": r"(?:training|holdout|validation)(?: and (?:training|holdout|validation)){0,2}",
    "question": r"(?:train from|evaluate|compare|audit)",
    "disk": r"[A-Za-z -]{1,60}",
    "limit": r"[0-9.,e:TZinf+-]{1,20}",
    "unit": r"[A-Za-z0-9/%^ ]{1,30}",
    "rows": r"(?:a single row|[0-9]+ rows, as in the plan)",
    "noise": r"(?:with the site's clipping and noise|without protection)",
    "how": r"(?:by its loss|by LiRA with [0-9]+ shadow models)",
    "shape": r"\([0-9, ]{0,60}\)",
}
"""What may stand in a sentence: a number, a name of ours, a column's name, a day, parts of the rows."""
MARKS = "\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"
"""Signs that show nothing, and turn around or hide what is beside them; as the inside of a character class."""
CONTROL = re.compile(f"[\x00-\x1f\x7f-\x9f{MARKS}]")
"""Characters that a text for people has none of: a terminal or a page would obey some."""
LONGEST = 2000
"""Characters of a text; no honest one comes near it."""
TITLE = 100
"""Characters of a site's title."""

DEFECTS = (
    "it has {n} section too many", "it has {n} sections too many", "it has no section '{column}'",
    "it has {n} bytes, where {n} are enough", "it accepts, and gives a reason", "its reason is no sentence of ours",
    *(
        f"its section '{{column}}' {wrong}"
        for wrong in (
            "cannot be read", "is of another kind", "has a value '{column}' that does not fit",
            "has a value in '{column}' that does not fit", "has a value that is no list",
            "has lists of a wrong length", "has an array '{column}' of another shape than {shape}",
            "has an array '{column}' that is too large ({n} bytes, where {n} are enough)",
            "has an array '{column}' of another type than {word}",
            "has an array '{column}' with values that are not finite",
            "has an array '{column}' with values that are not above 0",
            *(f"has {{n}} {word} too many" for word in ("value", "values", "list", "lists", "array", "arrays")),
            *(f"has no {word} '{{column}}'" for word in ("value", "list", "array")),
        )
    ),
)  # fmt: skip
"""What a gate finds wrong with a message, on its way in or out."""
MALFORMED = (
    "the message has no '{column}'", "the message has no arrays '{column}'", "the arrays '{column}' cannot be read",
    "the arrays '{column}' are not as long as they say", "the numbers in '{column}' are too many, or have no fit names",
    "the settings in '{column}' are not numbers", "'{column}' does not count in 2 x {n} bins",
    "'{column}' has counts that are negative or not finite", "the message is no {word}: {fields} is missing",
    "the message is no {word}: {fields} is of a wrong type or value",
    "the message is no {word}: it has a field that is not known",
    "the message is no {word}: it counts what no site has",
    "the message is no {word}: it counts fewer than no lines",
    "the message is no {word}: its deviation is not a number of at least 0",
    "the message is no {word}: its odds-centre and odds-spread are not two numbers that bins have",
    "protocol {n} is not {n}: the other side runs another version of flfed",
    "protocol of no number is not {n}: the other side runs another version of flfed",
    "the message has no text '{column}' that is fit to be shown", "the message has no whole number '{column}'",
    "the columns of '{column}' differ in length, or are too long", "the settings have no '{word}'",
    "the reply has no {fields}", "the message asks for an attack that is not known here", "the message cannot be read",
    "the message names a family of models that is not known",
    "the message holds something else than a message", "the message has more than {n} parts, which are not read",
    "the message is not the one that its envelope announces", "the message has another {word} than its envelope",
    "the message does not say how long it is, or is packed",
    "the message is larger than {n} bytes, which this site reads",
    "the message comes with a bundle that is not the one it claims to be",
    "the message and its settings are of two runs",
)  # fmt: skip
"""What is wrong with a message that cannot be read: it came from the other side, and holds nothing of a table."""
POLICY = (
    "its table is mapped to dataset {quoted}, the study asks '{word}'",
    "its policy allows {word} {words}, the study asks for '{word}'",
    "its policy allows {n} rounds, the study has {n}",
    "its policy allows studies with record-level differential privacy only, for it has a budget of it; "
    "the study has mechanism '{word}'",
    "its policy allows delta up to {n}, the study asks for {n}",
    "its policy allows unit 'person' only, for its privacy budget is of persons; the study has unit 'row'",
    "its policy keeps the site's own holdout (resplit = false), and the study asks for a published split",
    "its policy does not let a study leave out rows with a missing feature (outputs: 'complete-rows')",
    "its policy does not let a model be attacked with its rows (audits)",
    "its policy lets {n} runs have sums over one set of rows, and {n} had them",
    "its policy lets {n} run of a study have answers, and {n} had them",
    "its policy lets {n} runs of a study have answers, and {n} had them",
    "its policy lets {n} bytes leave in a day, and {n} have left: it answers again after midnight UTC",
    "its policy does not name {sites} as a co-site",
    "its policy was changed while this was computed; the next message is held to it",
    "its policy cannot be read; at the site: flfed site check {word}",
    "its transactions are held out by time, and the study asks for a published split",
    "the run asks {n} site, its policy needs at least {n}", "the run asks {n} sites, its policy needs at least {n}",
)  # fmt: skip
"""What a site's policy says of a study, a run or a message."""
ROWS = (
    "it has fewer than {n} {parts} rows", "it has fewer than {n} people in its {parts} rows",
    "its rows differ by fewer than {n} people from rows whose sums left before: "
    "together such sums would give these people away",
    "its record of the rows that it released cannot be read, so nothing leaves the site: see its log",
    "privacy budget: epsilon {n} of {n} is spent at delta {n}, and one more round would make it {n}",
    "privacy budget: epsilon {n} of {n} is spent at delta {n}, and one more round would make it beyond any number",
    "privacy budget: epsilon beyond any number of {n} is spent at delta {n}, "
    "and one more round would make it beyond any number",
    "privacy budget: an earlier study of unit 'row' protected each row by itself, and a person may have several, so "
    "that no epsilon bounds what is spent of the budget, which is of persons",
    "the study's delta={n} is not below one over the training rows here: "
    "it would allow to give one of them away whole",
    "its ledger cannot be written, so nothing leaves the site: see its log",
    "its ledger is lost or was cut, so nothing leaves the site; at the site: put it back, "
    "or flfed site ledger {word} --restart WHY",
    "its ledger has a run of this name with another study",
    "line {n} of its ledger is of {at}, later than its clock, so nothing leaves the site; "
    "at the site: set the clock right, or flfed site ledger {word} --restart WHY",
    "sums left before over rows of dataset '{word}', of which it cannot tell whether they are of the same people",
    "it needs more memory than the site gives its gate; at the site: flfed site serve NAME --memory SIZE",
    "it cannot keep its reply on its own disk ({disk})", "it cannot keep what it is asked on its own disk ({disk})",
    "it cannot open its table for this study; at the site: flfed site check {word}",
    "its frozen rows changed after the approval: the study needs a new one",
    "its frozen rows cannot be served; at the site: flfed site status {word}", "it has no frozen rows of '{word}'",
    "its list of people who opted out changed after the rows were frozen; at the site: flfed site refresh {word}",
)  # fmt: skip
"""What keeps a site's rows, ledger or budget from an answer."""
STUDY = (
    "the study expired on {day}", "its schema of '{word}' differs from the coordinator's",
    "its schema of '{word}' changed after the approval", "its schema of '{word}' changed after the rows were frozen",
    "the study was refused here on {day}", "the study was withdrawn here on {day}", "the study is not approved here",
    "the study was approved under another version of flfed: it needs a new approval",
    "the study was approved for another coordinator: it needs a new approval",
    "study '{column}' was changed since it was decided about here: it needs a new approval",
    "its approvals cannot be read safely; at the site: flfed site status {word}",
    "the study cuts one table into research sites, which no institution is",
    "the study cannot be read", "the study's model is too large for this site", "the run brings no study",
    "the run's repeat must be a whole number from 0 to {n}", "the run has no name of letters, digits and hyphens",
    "the run does not name the sites that it asks",
    "the run's list of sites does not name this one, or names one twice",
    "the run adds {sites}, which the approval does not name",
    "the run came with another bundle than that of flfed {word}, which this site installed; "
    "no code of a bundle is ever executed here",
    "a message of kind '{word}' is not known; known: {words}", "this is site '{word}', and its node has another name",
    "the message has no content", "the site is paused by its operator",
    "it was asked to {question} another model in this run",
    "it was asked to {question} another model in round {n} of this run",
    "it was asked to compare by another deviation of the sites' intercepts in this run",
    "it was asked to count rows in other bins of predictions in this run",
    "it did not compare this model in this run: only such a model is attacked here",
    "it is the reply to a message that was not let in", "the message was not answered: the site ended its gate",
    *(f"the {{word}} message does not fit the study: {defect}" for defect in DEFECTS),
    *(f"its {{word}} reply is held back: {defect}" for defect in DEFECTS),
)  # fmt: skip
"""What a gate says of the study, the run and the message that it is asked."""
ERRORS = ("{word}: see the site's log", "an error whose text may not leave the site: see its ledger and log")
"""What is said in place of an error's own text."""
HEADS = ("the study cannot be used", "the study's model cannot be made", "the study's [privacy] cannot be used")
"""Sentences with an error of ours in brackets behind them, whose text is not written down."""
OF_THE_GRID = (
    "no reply before the deadline", "its node is not online", "its node is not online: it never was, or was revoked",
    "its reply was lost on the way", "its reply is larger than {n} bytes, which are read", "error code {n}",
    "its node says it is site '{word}', and was admitted as '{word}'", "said something else ({n} characters)",
    "the process at this node failed: see Ray's logs", *(f"{head}: see the site's log" for head in HEADS),
)  # fmt: skip
"""What is said here in place of a site."""
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
    "is neither '{word}' nor '{word}' as the windows' file declares it",
    "is outside the schema's range {limit} to {limit}", "is outside the schema's range {limit} to {limit} {unit}",
)  # fmt: skip
"""Every rule that `flfed.rows` names in an error about a table."""
WITHHELD = (
    "fewer than {n} rows", "fewer than {n} rows of a class", "fewer than {n} rows behind it",
    "it would say how many rows two models call differently",
)  # fmt: skip
METHODS = (
    "", "DeLong", "Hanley-McNeil", "Hanley-McNeil over people", "Wilson", "Agresti-Min", "bootstrap",
    "bootstrap over groups", "identical scores", "order statistics", "Steinke, Nasr and Jagielski 2023",
    "the scores are not finite", "undefined in most draws of rows", "every draw of rows gives the same value",
    "no rows", "fewer than two rows", "only one class in the holdout", "no positive in the holdout",
    "the target is the same in every row", "a small count, withheld", *(f"withheld: {why}" for why in WITHHELD),
)  # fmt: skip
"""How a figure was made, or why there is none."""
NOTES = (
    "rows left out because a feature is missing: {n}",
    "rows left out because a feature is missing: fewer than {n}",
)
"""What was left out of a comparison; why figures stay is said behind it."""
_STEP = (
    "From the update of one step on {rows} from the global model, {noise}, an attacker guesses the inputs of a row. "
)
_BLIND = "A blind guess has cosines of about {n} either way."
_MEMBER = (
    "A member of the site's training rows has a higher score than one of its holdout rows, {how}, with this "
    "probability; .5 is chance."
)
SAYS = (
    "No figure: fewer than {n} {parts} rows.", "No figure: the model has no inputs.",
    "No figure: the outputs of a model are not finite.",
    "No figure: the model's first layer is not known to be x @ weight + bias.",
    "{n} of {n} guesses were right, of {n} coins: with 95 % confidence an implementation with a smaller ε than {n} is "
    "not what was trained here. This is a loose detector of bugs, and not the ε of the run.",
    f"{_STEP}This share it has exactly.",
    f"{_STEP}For this share the guess has a cosine over {{n}} with the row. {_BLIND}",
    f"{_STEP}The median cosine of guess and row; 1 is the row's own direction. {_BLIND}",
    _MEMBER,
    f"{_MEMBER} The holdout is later than the training rows: the difference in time is in this figure, too, so that no "
    "promise bounds it.",
    f"{_MEMBER} The promise is made to each row alone, and people enter training with all of their several rows: no "
    "promise bounds this figure. A promise to each person would.",
    "Of this share of the site's training rows the sums that it sends before training give a cell away exactly. "
    "The site's policy promises that there is none.",
    "Of this share of the site's training rows the sums that it sends before training give a cell away exactly. "
    "The site's policy is 'open'.",
)  # fmt: skip
"""What an attack's figure means."""
OF_ANOTHER_PACKAGE = re.compile(r"[A-Za-z0-9 .,:;()<>='%+-]{0,500}")
"""What an attack or a metric of another package may say, which is not known here: no address fits in."""
_NAME = r"(?:[a-z0-9]+(?:-[a-z0-9]+)*|node [0-9]{1,20})"


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


def is_known(sentence: str) -> bool:
    """Tell whether a site may say a sentence.

    What stands in a site's place here may say it as well. The site's name does not stand before it.

    Examples
    --------
    >>> is_known("column 'age' is not a number in 12 rows"), is_known("call +49 30 1234567 at once")
    (True, False)
    """
    return _sentences().fullmatch(sentence) is not None or column_rule(sentence) is not None


def column_rule(sentence: str) -> tuple[str, int | None] | None:
    """Return the column and count of a table's sentence.

    It is None where it is no sentence about a table.
    """
    found = _columns().fullmatch(sentence)
    return None if found is None else (found[1], None if found[2] is None else int(found[2]))


def recorded(said: str, site: str = "") -> str:
    """Return what is recorded of a site's reason.

    It is the text, or how long it was.

    Parameters
    ----------
    said : str
    site : str
        Whose name may stand before the sentence, as while it enrols; "" where nobody knows yet who it is.

    Examples
    --------
    >>> recorded("clinic: the study is not approved here"), recorded("see https://evil.example")
    ('clinic: the study is not approved here', 'said something else (24 characters)')
    """
    # Only the beginning of a long text is looked at: no honest one is as long.
    text = plain(said[:LONGEST])
    named = re.match(f"(?:{re.escape(site) or _NAME}: ){{0,2}}", text)
    # A name may stand before a sentence, and is not part of what is known.
    # The whole text may be known by itself, before a name is taken off it.
    for name in ("", named[0] if named is not None else ""):
        sentence = text[len(name) :]
        if is_known(sentence):
            return text
        # The brackets behind such a head hold another error's text, which is left out.
        head = next((head for head in HEADS if sentence.startswith(f"{head} (")), "")
        if head:
            return f"{name}{head}: see the site's log"
    return _else(said)


def recorded_note(said: str) -> str:
    """Return what is recorded of a comparison's note."""
    text = plain(said[:LONGEST])
    return text if not text or _notes().fullmatch(text) else _else(said)


def recorded_words(said: str, kind: str) -> str:
    """Return what is recorded of a figure's words.

    They say how it was made, or what it means.

    Parameters
    ----------
    said : str
    kind : {"attack", "metric"}
        What makes such figures. Where another package brings some here, words of its own are taken, too.
    """
    text = plain(said[:LONGEST])
    # Words of another package cannot be known here: only their characters are checked.
    if _words().fullmatch(text) or (registry.others(kind) and OF_ANOTHER_PACKAGE.fullmatch(text)):
        return text
    return _else(said)


def _else(said: str) -> str:
    return f"said something else ({len(said)} characters)"


def _patterns(sentences: Iterable[str]) -> str:
    """Return the expression of these sentences alone.

    In them, `{slot}` stands for what SLOTS says.
    """

    def pattern(sentence: str) -> str:
        # The parts of a sentence are its own words and, between them, the names of its slots.
        parts = re.split(r"\{(\w+)\}", sentence)
        return "".join(SLOTS[part] if number % 2 else re.escape(part) for number, part in enumerate(parts))

    return "|".join(map(pattern, sentences))


# Made at the first look, which most runs never take.
@cache
def _sentences() -> re.Pattern[str]:
    return re.compile(_patterns((*MALFORMED, *POLICY, *ROWS, *STUDY, *ERRORS, *OF_THE_GRID)))


@cache
def _columns() -> re.Pattern[str]:
    return re.compile(rf"column '({SLOTS['column']})' (?:{_patterns(RULES)})(?: in (?:fewer than )?(\d{{1,16}}) rows)?")


@cache
def _notes() -> re.Pattern[str]:
    why = rf"(?:{_patterns(WITHHELD)})"
    # A note has what was left out, why figures stay, or both.
    withheld = rf"withheld by the site's policy: {why}(?:; {why})*"
    return re.compile(rf"(?:{_patterns(NOTES)})(?:; {withheld})?|{withheld}")


@cache
def _words() -> re.Pattern[str]:
    return re.compile(_patterns((*METHODS, *SAYS)))
