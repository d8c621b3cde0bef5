"""Words of a site about its figures.

A site tells in words how a figure was made, why there is none, and what was left out. Who holds a site's key may send
any text instead: what is none of these is counted, and not written down. A new sentence is a new line here.
"""

from __future__ import annotations

import re
from functools import cache

from flfed import registry
from flfed.refusals import LONGEST, OF_SITES, SLOTS, Refusal, any_of, plain

SLOTS_HERE = SLOTS | {
    "rows": r"(?:a single row|[0-9]+ rows, as in the plan)",
    "noise": r"(?:with the site's clipping and noise|without protection)",
    "how": r"(?:by its loss|by LiRA with [0-9]+ shadow models)",
}
TITLE = 100
"""Characters of a site's title."""
WITHHELD = (
    "fewer than {n} rows", "fewer than {n} rows of a class", "fewer than {n} rows behind it",
    "its steps may have few rows",
    "it would say how many rows two models call differently",
    "a count of fewer than {n} rows would follow", "the histogram of predictions leaves",
    "another count of these rows leaves",
    "enough counts of these rows leave", "what is left has fewer than {n} rows of a class",
    "exact counts, importances or figures by group of these rows left in another run",
    "fewer than {n} rows with one of its values",
    "fewer than {n} rows with other values than the commonest", OF_SITES["too-many-compared"],
)  # fmt: skip
METHODS = (
    "", "DeLong", "Hanley-McNeil", "Hanley-McNeil over people", "Wilson", "Agresti-Min", "bootstrap",
    "bootstrap over groups", "noised score counts", "identical scores", "order statistics",
    "Steinke, Nasr and Jagielski 2023",
    "the scores are not finite", "undefined in most draws of rows", "every draw of rows gives the same value",
    "too few independent blocks of time", "{n} independent blocks of time",
    "no rows", "fewer than two rows", "only one class in the holdout", "no positive in the holdout",
    "the target is the same in every row", "a small count, withheld", *(f"withheld: {why}" for why in WITHHELD),
)  # fmt: skip
"""How a figure was made, or why there is none."""
NOTES = (
    "rows left out because a feature is missing: {n}",
    "rows left out because a feature is missing: fewer than {n}",
    str(Refusal("model-single-rows")),
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
    "No figure: trees grow from the sums of all sites, so that none can be trained beside them on other rows.",
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


@cache
def _notes() -> re.Pattern[str]:
    why = rf"(?:{any_of(WITHHELD, SLOTS)})"
    # A note has what was left out, why figures stay, or both.
    withheld = rf"withheld by the site's policy: {why}(?:; {why})*"
    return re.compile(rf"(?:{any_of(NOTES, SLOTS)})(?:; {withheld})?|{withheld}")


@cache
def _words() -> re.Pattern[str]:
    return re.compile(any_of((*METHODS, *SAYS), SLOTS_HERE))
