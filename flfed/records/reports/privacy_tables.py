"""Tables of a run's privacy: mechanisms in force, ε spent, and the bytes that left each site."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flfed.records.objects import read, read_all
from flfed.records.reports.privacy import (
    PrivacyReport,
    PrivateFacts,
    SiteSpending,
    SpentLine,
    bound_in_words,
    counted,
    epsilon_in_words,
    power_of_ten,
    private_of,
)
from flfed.records.statistics.privacy_odds import RESERVED_FOR, SIDES, Charge
from flfed.records.statistics.verdict import ABSENT, number, shown
from flfed.records.store.entries import CrossedEntry, RunEntry, SiteEntry
from flfed.study.tables import SHARINGS

CELLS = "query.bins"
"""Kind of the messages that only a run of trees has."""
COUNTED, SCORED = "query.statistic", "query.scores"
"""Kinds of noised counts: before training, and of test rows by score, which only a run has whose study is charged."""
KINDS = {
    "train": "updates of training",
    "query.compare": "comparison on test rows",
    "query.summarise": "sums over rows",
    CELLS: "rows by bin, for the cut points of trees",
    "evaluate": "figures of a round",
    COUNTED: "what a study without a model asks for",
    SCORED: "noised counts of test rows by score",
    "query.enrol": "enrolment",
    "query.audit": "figures of an audit",
    "query.unmask": "what opens secure sums",
    "query.list": "confirmed lists of secure sums",
    "query.keys": "keys of secure sums",
}
"""What people call a kind of message."""

TREES_SENT = (
    "About {share:.0f} % of the bytes are of the rounds, in each of which a tree grew: {number} from a site, of about "
    "{size} each. They are sums of gradients over the site's training rows by node, column and code, a message a level "
    "of the tree, and figures of how the trees before did on the site's rows. Their size follows from the columns and "
    "the depth, not from how many rows a site has. They tell the outcomes of single rows to whoever reads them."
)


NOISED_UPDATES = (
    "About {share:.0f} % of the bytes are updates of training, one a round: {number} from a site, of about {size} "
    "each. Such an update holds what training changed in the model, of which each step has noise, and no figure. Its "
    "size follows from the model, not from how many rows a site has."
)
"""Of a run of which all that leaves is charged."""
ANSWERS = {
    "histograms": "counts of numbers by cell, for the model's inputs",
    "values": "counts of other columns and of the outcome, by value",
    "first": "counts by score, from which the bins follow",
    "scores": "counts by class and bin of scores",
    "own-model": "training of the site's own model",
    "pairs": "pairs won by the shared model over the own one",
}
"""What a noised answer is, by its name in the record."""
SHARES_READ = (
    "Shares are of μ², the square of sensitivity over noise, which adds up over noised answers. Training has the noise "
    "that the accountant leaves for its share."
)

SUMS_TABLE = {
    "off": ("off", "the server sees each site's own {own}", "nothing"),
    "not begun": ("not begun", "the run ended before its sites had each other's keys", "nothing"),
    "rehearsed": ("rehearsed", "added up as under masks, in one process that holds all updates", "nothing"),
    "rehearsed-encrypted": ("rehearsed", "ciphertexts are added up, in one process that has the key", "nothing"),
    "encrypted": (
        "on",
        "the server adds ciphertexts and has no key",
        "nothing, where one site works with the server: all have the key",
    ),
    "masked": (
        "on",
        "the server gets sums of the updates of {least} sites or more",
        "one sum tells no single update; differences of sums may",
    ),
}
"""Whether updates are added up in secret, how, and what that promises, by what a run recorded of it."""
SMALL_IN_NOISE = {
    "Mechanism": "suppression of small cells",
    "Is": "not used",
    "How": "it would read exact counts: noise and charge stand in its place",
    "Promises": "nothing of its own",
}
"""Where all that leaves is charged: no number leaves without noise."""


def has_model(run: RunEntry) -> bool:
    """Tell whether a run has an attackable model."""
    return run.status in ("completed", "stopped") and run.rounds > 0


def mechanism_lines(
    privacy: PrivateFacts, sites: Sequence[SiteEntry], *, only: str | None = None
) -> list[dict[str, str]]:
    """Return which mechanisms are in force, and which are not, a line each.

    `only` is the one site whose people read it.
    """
    private = private_of(privacy)
    taking_part = [site for site in sites if site.status != "refused"]
    small_cells = SMALL_IN_NOISE
    promises = "nothing"
    if not private.is_noised:
        small_cells = _small_cells(taking_part, only, private.sent)
        promises = f"nothing of {private.sent}s"
    return [_noise(private), small_cells, _how_shared(taking_part, only, promises), _sums(private)]


def _line(what: str, stands: str, how: str, promises: str) -> dict[str, str]:
    """Return a mechanism's line."""
    return {"Mechanism": what, "Is": stands, "How": how, "Promises": promises}


def _noise(privacy: PrivacyReport) -> dict[str, str]:
    what = "differential privacy"
    if privacy.mechanism is None:
        return _line(what, "not recorded", "not known", "not known")
    bound = "nothing"
    if privacy.epsilon is not None:
        bound = f"each {privacy.unit}: {bound_in_words(privacy)}"
    return _line(what, str(privacy.mechanism), _how_noised(privacy), bound)


def _how_noised(privacy: PrivacyReport) -> str:
    """Return what noise is added to what, by a run whose mechanism was recorded."""
    if privacy.one_answer:
        return f"one answer, all numbers of it together with noise multiplier {number(privacy.noise, 3)}"
    if privacy.mechanism == "none":
        return f"nothing is added to {privacy.sent}s"
    parameters = {
        "noise multiplier": number(privacy.noise, 3),
        "sampling": number(privacy.sampling),
        "clip": shown(privacy.clip, "{:g}".format),
        counted(privacy): shown(privacy.steps),
    }
    text = ", ".join(f"{what} {value}" for what, value in parameters.items() if value != ABSENT)
    if not privacy.is_exact:
        return f"in training {text}; noised counts beside it"
    return text


def _small_cells(sites: Sequence[SiteEntry], only: str | None, sent: str) -> dict[str, str]:
    """Return the line on the suppression of small cells, by the sites' policies."""
    closed = sum(site.disclosure == "institution" for site in sites)
    at = f"at {closed} of {len(sites)} sites"
    bound = "nothing: exact sums leave"
    is_on = "off"
    if closed:
        bound = f"no small count leaves there, but for what {sent}s tell"
        is_on = "on"
    if only is not None:
        at = f"{is_on}, at your site"
    return _line("suppression of small cells", at, "where the site's policy says disclosure institution", bound)


def _how_shared(sites: Sequence[SiteEntry], only: str | None, promises: str) -> dict[str, str]:
    """Return the line on how sites' figures are written down."""
    ways = []
    counts = Counter(site.shared_as for site in sites)
    for how in SHARINGS:
        where = "your site" if only is not None else str(counts[how])
        if counts[how]:
            ways.append(f"{how} at {where}")
    listed = ", ".join(ways) or ABSENT
    return _line("how sites' figures are written down", listed, "the stricter of policy and study", promises)


def _sums(privacy: PrivacyReport) -> dict[str, str]:
    sums = privacy.sums()
    own = "update"
    if privacy.one_answer:
        own = "update, with the noise on it"
    if not privacy.is_exact:
        own = "updates and counts, with the noise on them"
    stands, how, bound = SUMS_TABLE[sums.kind]
    how = how.format(own=own, least=sums.least)
    how, bound = (phrase.replace("update", privacy.sent) for phrase in (how, bound))
    return _line("secure aggregation", stands, how, bound)


def charged_lines(privacy: PrivateFacts) -> list[dict[str, str]]:
    """Return what was charged for what, where all that leaves is; a line for each noised answer and for training.

    It is empty of another run, and of a record that does not tell it.
    """
    private = private_of(privacy)
    answers = read_all(Charge, private.answers or [])
    reserves = read_all(Charge, private.unspent or [])
    lines: list[dict[str, str]] = []
    if not answers:
        return lines
    for side, word in SIDES.items():
        of_whom = f"{private.unit}s {word}"
        side_answers = [of for of in answers if of.side == side]
        side_reserves = [of for of in reserves if of.side == side]
        lines += [_charged_line(ANSWERS.get(of.name, of.name), of_whom, of.noise, of.share) for of in side_answers]
        if side == "training":
            how = f"training, {private.steps} steps with sampling {number(private.sampling)}"
            left = 1 - math.fsum(of.share for of in [*side_answers, *side_reserves])
            lines.append(_charged_line(how, of_whom, private.noise, left))
        for of in side_reserves:
            what = f"kept back for {RESERVED_FOR.get(of.name, of.name)}"
            lines.append(_charged_line(what, of_whom, None, of.share))
    return lines


def describe_rows_needed(privacy: PrivateFacts) -> str:
    """Return how many test rows of the rarer class a site needs so that noised counts tell of its scores; "" of others.

    Examples
    --------
    >>> describe_rows_needed({"unit": "person", "answers": [{"name": "scores", "noise": 2.358}]}).partition(":")[0]
    "A site's figures are told where about 57 or more of its test persons are of the rarer class"
    """
    from flfed.summaries.noised_counts import LEAST_SIZE
    from flfed.summaries.noised_scores import BINS

    private = private_of(privacy)
    noise = next((of.noise for of in read_all(Charge, private.answers or []) if of.name == "scores"), None)
    if noise is None:
        return ""
    least = math.ceil(LEAST_SIZE * noise * math.sqrt(BINS))
    return (
        f"A site's figures are told where about {least} or more of its test {private.unit}s are of the rarer class: "
        "fewer are lost in the noise, and the budget is spent all the same."
    )


def _charged_line(what: str, of_whom: str, noise: float | None, share: float) -> dict[str, str]:
    multiplier = shown(noise, _two_decimals, "not sent")
    return {"Charged for": what, "Account of": of_whom, "Noise multiplier": multiplier, "Share": number(share, 2)}


def _two_decimals(value: float) -> str:
    return number(value, 2)


def why_nothing_spent(privacy: PrivateFacts) -> str:
    """Return why no ε is counted and what would be."""
    private = private_of(privacy)
    if private.mechanism is None:
        return f"Not known: {private.reason}."
    if private.epsilon is not None:
        whose = "was not spent at any site yet"
        if private.unit == "site":
            whose = "is the whole run's, not a site's own"
        return f"The promise of ε = {epsilon_in_words(private.epsilon)} {whose}: no site's ledger counts it."
    if not private.trained:
        return (
            "No ε is counted: nothing was promised. The statistic 'summary' has noise, and each site counts what it "
            "spends."
        )
    return (
        'No ε is counted: nothing was promised. With [privacy] name = "record-dp", and [plan] steps, in the study '
        "each site counts what it spends."
    )


def share_of_budget(line: SpentLine) -> float:
    """Return the consumed share of a budget, else infinity."""
    spent = read(SiteSpending, line)
    if spent.budget is None:
        return float("inf")
    return (spent.spent_after or spent.epsilon or 0.0) / max(spent.budget, 1e-12)


def left_of_budget(line: SpentLine) -> float | None:
    """Return about how much ε is left of a budget.

    It is below 0 where the budget is overdrawn, and None where it is not known.
    """
    spent = read(SiteSpending, line)
    if spent.spent_after is None or spent.budget is None:
        return None
    return spent.budget - spent.spent_after


def spent_line(site: str, line: SpentLine, privacy: PrivateFacts) -> dict[str, Any]:
    """Return one site's line of the table.

    The consumed ε is rounded up, what is left is rounded down.
    """
    spent = read(SiteSpending, line)
    private = private_of(privacy)
    left = left_of_budget(spent)
    if left is not None:
        left = math.floor(round(left * 100, 6)) / 100
    unit = counted(private).capitalize()
    return {
        "Site": site,
        f"{unit} asked": spent.steps,
        f"{unit} planned": private.steps,
        "ε of this run": epsilon_in_words(spent.epsilon),
        "δ": power_of_ten(spent.delta),
        "ε in its ledger before": shown(spent.spent_before, epsilon_in_words, "not known"),
        "ε of all its studies, about": shown(spent.spent_after, epsilon_in_words, "not known"),
        "Budget (ε)": shown(spent.budget, _two_decimals, "none"),
        "Left of it, about": left,
    }


def kinds_of(out: Iterable[CrossedEntry]) -> list[str]:
    """Return the kinds of message, known ones first."""
    kinds = dict.fromkeys(entry.kind for entry in out)
    return [kind for kind in KINDS if kind in kinds] + sorted(kind for kind in kinds if kind not in KINDS)


def why_so_many(out: Sequence[CrossedEntry]) -> str:
    """Return how many of the bytes are updates.

    It says in how many messages of what size. An empty text where nothing was trained.

    Parameters
    ----------
    out : sequence of CrossedEntry
        What left sites.

    Examples
    --------
    >>> sent = [("train", 75_000, 15), ("evaluate", 25_000, 1)]
    >>> why_so_many([CrossedEntry("a", "to-server", *of) for of in sent]).partition(".")[0]
    'About 75 % of the bytes are updates of training, one a round: 15 from a site, of about 5'
    >>> why_so_many([CrossedEntry("a", "to-server", *of) for of in [*sent, ("query.bins", 1_000, 1)]])[:72]
    'About 74 % of the bytes are of the rounds, in each of which a tree grew:'
    """
    trained = [entry for entry in out if entry.kind == "train"]
    if not trained:
        return ""
    share = 100 * sum(entry.bytes for entry in trained) / sum(entry.bytes for entry in out)
    number = _span([entry.messages for entry in trained], str)
    size = _span([round(entry.bytes / entry.messages) for entry in trained], size_in_words)
    kinds = {entry.kind for entry in out}
    if kinds & {CELLS, SCORED}:
        template = TREES_SENT if CELLS in kinds else NOISED_UPDATES
        return template.format(share=share, number=number, size=size)
    return (
        f"About {share:.0f} % of the bytes are {kind_in_words('train')}, one a round: {number} from a site, of "
        f"about {size} each. Such an update holds what training changed in the model, and figures of how the model did "
        "on the site's rows; where the site allows it, counts of predictions, too. Its size follows from the model and "
        "these figures, not from how many rows a site has: more bytes than the site's file do not mean that the file "
        "left, nor few bytes that little can be learnt from them."
    )


def _span(values: Sequence[int], format_number: Callable[[int], str]) -> str:
    """Return the range of figures, or their one value."""
    ends = dict.fromkeys((format_number(min(values)), format_number(max(values))))
    return " to ".join(ends)


def kind_in_words(kind: str, kinds: Collection[str] = ()) -> str:
    """Return what people call a kind of message, among the `kinds` of its run.

    Examples
    --------
    >>> kind_in_words("train"), kind_in_words("train", ["train", "query.bins"]), kind_in_words("query.new")
    ('updates of training', 'sums of trees', 'query.new')
    >>> kind_in_words("query.statistic", ["train", "query.statistic"])
    'noised counts before training'
    """
    if kind == "train" and CELLS in kinds:
        return "sums of trees"
    if kind == COUNTED and "train" in kinds:
        return "noised counts before training"
    return KINDS.get(kind, kind)


def size_in_words(count: int) -> str:
    """Return bytes in words with three significant digits.

    Examples
    --------
    >>> size_in_words(0), size_in_words(999), size_in_words(48_000), size_in_words(1_234_567)
    ('0 B', '999 B', '48.0 kB', '1.23 MB')
    """
    for by, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= by:
            return f"{_three_digits(count / by)} {unit}"
    return f"{count} B"


def _three_digits(size: float) -> str:
    decimals = 2 - (size >= 10) - (size >= 100)
    return f"{size:.{decimals}f}"


def left_lines(crossed: Sequence[CrossedEntry]) -> list[dict[str, Any]]:
    """Return each site's bytes sent by kind and received."""
    kinds = kinds_of(entry for entry in crossed if entry.direction == "to-server")
    left: dict[str, Counter[str]] = {entry.site: Counter() for entry in crossed}
    back: Counter[str] = Counter()
    for entry in crossed:
        if entry.direction == "to-server":
            left[entry.site][entry.kind] = entry.bytes
        else:
            back[entry.site] += entry.bytes
    lines = []
    for site, sizes in left.items():
        line: dict[str, Any] = {"Site": site}
        line |= {f"{kind_in_words(kind, kinds).capitalize()}, bytes": sizes[kind] for kind in kinds}
        lines.append(line | {"Left in all, bytes": sizes.total(), "Came to the site, bytes": back[site]})
    return lines


@dataclass(frozen=True)
class _OutcomeDisclosure:
    """Of how many of `rows` the sums of the first tree tell the outcome, and those of its root alone."""

    tree: int = 0
    root: int = 0
    rows: int = 0


def describe_outcome_disclosure(payload: Mapping[str, Any]) -> list[str]:
    """Return how many outcomes the sums of a run's first trees tell, a sentence for all sites and one for each site."""
    sentences = []
    if payload.get("together"):
        together = read(_OutcomeDisclosure, payload["together"])
        sentences.append(
            f"Single outcomes, counted in the rows: the sums of the first tree over all sites tell the outcomes of "
            f"{together.tree:,} of {together.rows:,} training rows, those of its root alone {together.root:,}."
        )
    each = []
    for site, of in sorted(payload.get("sites", {}).items()):
        own = read(_OutcomeDisclosure, of)
        each.append(f"{site} {own.tree:,} of {own.rows:,}")
    if each:
        sentences.append(f"By a site's own sums, which it sends unless they are added up in secret: {'; '.join(each)}.")
    return sentences
