"""Tables of a run's privacy: mechanisms in force, ε spent, and the bytes that left each site."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from flfed.records.reports.privacy import (
    ONE_ANSWER,
    SUMS,
    TRAINED,
    Private,
    bound_in_words,
    counted,
    epsilon_in_words,
    of_all_studies,
    power_of_ten,
)
from flfed.records.statistics.listed.noised_scores import COVERS
from flfed.records.statistics.privacy_odds import KEPT_FOR, SIDES
from flfed.records.statistics.verdict import ABSENT, number
from flfed.records.store.entries import CrossedEntry, RunEntry, SiteEntry

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


def mechanism_lines(privacy: Private, sites: Sequence[SiteEntry], *, only: str | None = None) -> list[dict[str, str]]:
    """Return which mechanisms are in force, and which are not, a line each.

    `only` is the one site whose people read it.
    """
    taking_part = [site for site in sites if site.status != "refused"]
    small = SMALL_IN_NOISE if privacy.get(ONE_ANSWER) or COVERS in privacy else None
    return [_noise(privacy), *_of_sites(taking_part, only, small, _sent(privacy)), _sums(privacy)]


def _sent(privacy: Private) -> str:
    """Return what a site sends, by the word of a run's page."""
    return "answer" if privacy.get(TRAINED) is False else "update"


def _noise(privacy: Private) -> dict[str, str]:
    name = "not recorded" if privacy["mechanism"] is None else str(privacy["mechanism"])
    said = f"nothing is added to {_sent(privacy)}s"
    if privacy["mechanism"] is None:
        said = "not known"
    elif privacy.get(ONE_ANSWER):
        said = f"one answer, all numbers of it together with noise multiplier {number(privacy['noise'], 3)}"
    elif privacy["mechanism"] != "none":
        known = {
            "noise multiplier": number(privacy["noise"], 3) if privacy["noise"] is not None else "",
            "sampling": number(privacy["sampling"]) if privacy["sampling"] is not None else "",
            "clip": f"{privacy['clip']:g}" if privacy["clip"] is not None else "",
            counted(privacy): f"{privacy['steps']}" if privacy["steps"] is not None else "",
        }
        said = ", ".join(f"{key} {value}" for key, value in known.items() if value)
        said = f"in training {said}; noised counts beside it" if COVERS in privacy else said
    bound = "not known" if privacy["mechanism"] is None else "nothing"
    if privacy["epsilon"] is not None:
        bound = f"each {privacy['unit']}: {bound_in_words(privacy)}"
    return {"Mechanism": "differential privacy", "Is": name, "How": said, "Promises": bound}


def _of_sites(
    sites: Sequence[SiteEntry], only: str | None, small_cells: dict[str, str] | None, sent: str
) -> list[dict[str, str]]:
    """Return lines on the sites' policies; `small_cells` stands in place of that on suppression, where given."""
    closed = sum(site.disclosure == "institution" for site in sites)
    shared = {how: sum(site.shared_as == how for site in sites) for how in ("named", "pseudonym", "aggregate-only")}
    ways = ", ".join(f"{how} at {count if only is None else 'your site'}" for how, count in shared.items() if count)
    small = f"no small count leaves there, but for what {sent}s tell" if closed else "nothing: exact sums leave"
    at = f"at {closed} of {len(sites)} sites"
    if only is not None:
        at = f"{'on' if closed else 'off'}, at your site"
    lines = (
        ("suppression of small cells", at, "where the site's policy says disclosure institution", small),
        (
            "how sites' figures are written down",
            ways or ABSENT,
            "the stricter of policy and study",
            f"nothing of {sent}s" if small_cells is None else "nothing",
        ),
    )
    told = [{"Mechanism": what, "Is": is_, "How": how, "Promises": bound} for what, is_, how, bound in lines]
    return told if small_cells is None else [small_cells, *told[1:]]


def _sums(privacy: Private) -> dict[str, str]:
    found = privacy[SUMS]
    own = "update, with the noise on it" if privacy.get(ONE_ANSWER) else "update"
    own = "updates and counts, with the noise on them" if COVERS in privacy else own
    is_, how, bound = {
        "off": ("off", f"the server sees each site's own {own}", "nothing"),
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
            f"the server gets sums of the updates of {found['least']} sites or more",
            "one sum tells no single update; differences of sums may",
        ),
    }[found["kind"]]
    if privacy.get(TRAINED) is False:
        how, bound = how.replace("update", "answer"), bound.replace("update", "answer")
    return {"Mechanism": "secure aggregation", "Is": is_, "How": how, "Promises": bound}


def charged_lines(privacy: Private) -> list[dict[str, str]]:
    """Return what was charged for what, where all that leaves is; a line for each noised answer and for training.

    It is empty of another run, and of a record that does not tell it.
    """
    answers, kept = privacy.get("answers") or [], privacy.get("kept-back") or []
    unit, lines = privacy["unit"], list[dict[str, str]]()
    if not answers:
        return lines
    left = {side: 1 - math.fsum(of["share"] for of in [*answers, *kept] if of["side"] == side) for side in SIDES}
    for side, word in SIDES.items():
        lines += [
            _charged_line(ANSWERS.get(of["name"], of["name"]), f"{unit}s {word}", of["noise"], of["share"])
            for of in answers
            if of["side"] == side
        ]
        if side == "training":
            how = f"training, {privacy['steps']} steps with sampling {number(privacy['sampling'])}"
            lines.append(_charged_line(how, f"{unit}s {word}", privacy["noise"], left[side]))
        for of in kept:
            if of["side"] == side:
                what = f"kept back for {KEPT_FOR.get(of['name'], of['name'])}"
                lines.append(_charged_line(what, f"{unit}s {word}", None, of["share"]))
    return lines


def told_from(privacy: Private) -> str:
    """Return how many test rows of the rarer class a site needs so that noised counts tell of its scores; "" of others.

    Examples
    --------
    >>> told_from({"unit": "person", "answers": [{"name": "scores", "noise": 2.358}]}).partition(":")[0]
    "A site's figures are told where about 57 or more of its test persons are of the rarer class"
    """
    from flfed.summaries.noised_counts import LEAST_SIZE
    from flfed.summaries.noised_scores import BINS

    noises = [of["noise"] for of in privacy.get("answers") or [] if of["name"] == "scores"]
    if not noises:
        return ""
    least = math.ceil(LEAST_SIZE * noises[0] * math.sqrt(BINS))
    return (
        f"A site's figures are told where about {least} or more of its test {privacy['unit']}s are of the rarer class: "
        "fewer are lost in the noise, and the budget is spent all the same."
    )


def _charged_line(what: str, of_whom: str, noise: float | None, share: float) -> dict[str, str]:
    multiplier = "not sent" if noise is None else number(noise, 2)
    return {"Charged for": what, "Account of": of_whom, "Noise multiplier": multiplier, "Share": number(share, 2)}


def why_nothing_spent(privacy: Private) -> str:
    """Return why no ε is counted and what would be."""
    if privacy["mechanism"] is None:
        return f"Not known: {privacy['reason']}."
    if privacy["epsilon"] is not None:
        whose = "is the whole run's, not a site's own" if privacy["unit"] == "site" else "was not spent at any site yet"
        return f"The promise of ε = {epsilon_in_words(privacy['epsilon'])} {whose}: no site's ledger counts it."
    if privacy.get(TRAINED) is False:
        return "No ε is counted: nothing was promised. An [analysis] has noise, and each site counts what it spends."
    return (
        'No ε is counted: nothing was promised. With [privacy] name = "record-dp", and [plan] steps, in the study '
        "each site counts what it spends."
    )


def share_of_budget(line: Private) -> float:
    """Return the consumed share of a budget, else infinity."""
    total = of_all_studies(line)[0] or line["epsilon"]
    return float("inf") if line["budget"] is None else total / max(line["budget"], 1e-12)


def left_of_budget(line: Private) -> float | None:
    """Return about how much ε is left of a budget.

    It is below 0 where the budget is overdrawn, and None where it is not known.
    """
    total = of_all_studies(line)[0]
    return None if total is None or line["budget"] is None else line["budget"] - total


def spent_line(site: str, line: Private, privacy: Private) -> dict[str, Any]:
    """Return one site's line of the table.

    The consumed ε is rounded up, what is left is rounded down.
    """
    before = line["spent-before"]
    budget = line["budget"]
    left = left_of_budget(line)
    total = of_all_studies(line)[0]
    unit = counted(privacy).capitalize()
    return {
        "Site": site,
        f"{unit} asked": line["steps"],
        f"{unit} planned": privacy["steps"],
        "ε of this run": epsilon_in_words(line["epsilon"]),
        "δ": power_of_ten(line["delta"]),
        "ε in its ledger before": epsilon_in_words(before) if before is not None else "not known",
        "ε of all its studies, about": epsilon_in_words(total) if total is not None else "not known",
        "Budget (ε)": number(budget, 2) if budget is not None else "none",
        "Left of it, about": None if left is None else math.floor(round(left * 100, 6)) / 100,
    }


def kinds_of(out: Iterable[CrossedEntry]) -> list[str]:
    """Return the kinds of message, known ones first."""
    found = dict.fromkeys(entry.kind for entry in out)
    return [kind for kind in KINDS if kind in found] + sorted(kind for kind in found if kind not in KINDS)


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
    share = sum(entry.bytes for entry in trained) / sum(entry.bytes for entry in out)
    number = _span([entry.messages for entry in trained], str)
    size = _span([round(entry.bytes / entry.messages) for entry in trained], size_in_words)
    kinds = {entry.kind for entry in out}
    if kinds & {CELLS, SCORED}:
        told = TREES_SENT if CELLS in kinds else NOISED_UPDATES
        return told.format(share=100 * share, number=number, size=size)
    return (
        f"About {100 * share:.0f} % of the bytes are {kind_in_words('train')}, one a round: {number} from a site, of "
        f"about {size} each. Such an update holds what training changed in the model, and figures of how the model did "
        "on the site's rows; where the site allows it, counts of predictions, too. Its size follows from the model and "
        "these figures, not from how many rows a site has: more bytes than the site's file do not mean that the file "
        "left, nor few bytes that little can be learnt from them."
    )


def _span(values: Sequence[int], said: Callable[[int], str]) -> str:
    """Return the range of figures, or their one value."""
    ends = dict.fromkeys((said(min(values)), said(max(values))))
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
    size, unit = next(
        ((count / by, name) for by, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if count >= by), (0, "")
    )
    return f"{size:.{2 if size < 10 else 1 if size < 100 else 0}f} {unit}" if unit else f"{count} B"


def left_lines(crossed: Sequence[CrossedEntry]) -> list[dict[str, Any]]:
    """Return each site's bytes sent by kind and received."""
    kinds = kinds_of(entry for entry in crossed if entry.direction == "to-server")
    by_place: dict[tuple[str, str], int] = {}
    back: dict[str, int] = {}
    for entry in crossed:
        if entry.direction == "to-server":
            by_place[entry.site, entry.kind] = entry.bytes
        else:
            back[entry.site] = back.get(entry.site, 0) + entry.bytes
    lines = []
    for site in dict.fromkeys(entry.site for entry in crossed):
        sizes = {kind: by_place.get((site, kind), 0) for kind in kinds}
        cells: dict[str, Any] = {
            f"{kind_in_words(kind, kinds).capitalize()}, bytes": size for kind, size in sizes.items()
        }
        ends: dict[str, Any] = {"Left in all, bytes": sum(sizes.values()), "Came to the site, bytes": back.get(site, 0)}
        lines.append({"Site": site} | cells | ends)
    return lines


def told_in_words(told: Mapping[str, Any]) -> list[str]:
    """Return how many outcomes the sums of a run's first trees tell, a sentence for all sites and one for each site."""
    found, together = [], told.get("together")
    if together:
        found.append(
            f"Single outcomes, counted in the rows: the sums of the first tree over all sites tell the outcomes of "
            f"{together['tree']:,} of {together['rows']:,} training rows, those of its root alone {together['root']:,}."
        )
    each = [f"{site} {of['tree']:,} of {of['rows']:,}" for site, of in sorted(told.get("sites", {}).items())]
    if each:
        found.append(f"By a site's own sums, which it sends unless they are added up in secret: {'; '.join(each)}.")
    return found
