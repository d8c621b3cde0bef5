"""Tables of a run's privacy: mechanisms in force, ε spent, and the bytes that each site sent."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flfed.records.objects import read, read_all
from flfed.records.reports.privacy import (
    Charge,
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
from flfed.records.statistics.verdict import ABSENT, format_as_written, number, shown
from flfed.records.store.entries import CrossedEntry, RunEntry, SiteEntry
from flfed.records.text import size_in_words
from flfed.words import render, sentences

CELLS = "query.bins"
"""Kind of the messages that only a run of trees has."""
COUNTED = "query.statistic"
"""Kind of counts before training."""
SCORED = "query.scores"
"""Kind of counts of test rows by score, only under a budget that covers all releases."""
KINDS = sentences("names", "messages")
"""Names of the kinds of message."""


def has_model(run: RunEntry) -> bool:
    """Return whether a run has a model that can be attacked."""
    return run.status in ("completed", "stopped") and run.rounds > 0


def mechanism_lines(privacy: PrivateFacts, sites: Sequence[SiteEntry]) -> list[dict[str, str]]:
    """Return the mechanisms in force, and those that are not, a line each."""
    private = private_of(privacy)
    taking_part = [site for site in sites if site.status != "refused"]
    return [_noise(private), _small_cells(private, taking_part), _sums(private)]


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
    """Return where noise is added, in a run whose mechanism was recorded."""
    if privacy.one_answer:
        return render("privacy.mechanisms.answer", noise=number(privacy.noise, 3))
    if privacy.mechanism == "none":
        return render("privacy.mechanisms.noiseless", sent=privacy.sent)
    parameters = {
        "noise multiplier": number(privacy.noise, 3),
        "sampling": number(privacy.sampling),
        "clip": shown(privacy.clip, format_as_written),
        counted(privacy): shown(privacy.steps),
    }
    text = ", ".join(f"{what} {value}" for what, value in parameters.items() if value != ABSENT)
    if not privacy.is_exact:
        return render("privacy.mechanisms.counts", training=text)
    return text


def _small_cells(privacy: PrivacyReport, sites: Sequence[SiteEntry]) -> dict[str, str]:
    """Return the line on the suppression of small cells, by the sites' policies."""
    name = "suppression of small cells"
    # Under a budget that covers all releases, no number leaves without noise.
    if privacy.is_noised:
        return _line(name, "not used", render("privacy.mechanisms.noised"), "nothing of its own")
    closed = sum(site.disclosure == "institution" for site in sites)
    at = f"at {closed} of {len(sites)} sites"
    bound = "nothing: sums are exact"
    if closed:
        bound = render("privacy.mechanisms.suppressed", sent=privacy.sent)
    return _line(name, at, render("privacy.mechanisms.cells"), bound)


def _sums(privacy: PrivacyReport) -> dict[str, str]:
    if privacy.parties:
        how = render("privacy.mechanisms.sealed")
        bound = render("privacy.mechanisms.sealed-promise")
        return _line("homomorphic encryption", "on", how, bound)
    sums = privacy.sums()
    own = privacy.sent
    if privacy.one_answer:
        own += ", with its noise"
    if not privacy.is_exact:
        own = "updates and counts, with their noise"
    key = sums.kind.replace(" ", "-")
    stands = sums.kind.removesuffix("-encrypted")
    bound = "nothing"
    if sums.kind in ("encrypted", "masked"):
        stands = "on"
        bound = render(f"privacy.secure-sums-promise.{key}", sent=privacy.sent)
    how = render(f"privacy.secure-sums.{key}", own=own, sent=privacy.sent, sites=sums.sites)
    return _line("secure aggregation", stands, how, bound)


def charged_lines(privacy: PrivateFacts) -> list[dict[str, str]]:
    """Return the charges of a budget that covers all releases, a line for each reply and for training.

    There is no line for another run, or where the record has none.
    """
    private = private_of(privacy)
    answers = read_all(Charge, private.answers or [])
    if not answers:
        return []
    names = sentences("names", "answers")
    how = render("privacy.mechanisms.training", steps=private.steps, sampling=number(private.sampling))
    lines = [(names.get(of.name, of.name), of.noise) for of in answers] + [(how, private.noise)]
    return [{"Charged for": purpose, "Noise multiplier": number(noise, 2)} for purpose, noise in lines]


def describe_rows_needed(privacy: PrivateFacts) -> str:
    """Return how many test rows of the rarer class a site needs for figures from counts with noise, or "".

    Examples
    --------
    >>> describe_rows_needed({"unit": "person", "answers": [{"name": "scores", "noise": 2.358}]}).partition(":")[0]
    "A site's figures are released where about 57 or more of its test persons are of the rarer class"
    """
    from flfed.summaries.noised_counts import LEAST_SIZE
    from flfed.summaries.noised_scores import BINS

    private = private_of(privacy)
    noise = next((of.noise for of in read_all(Charge, private.answers or []) if of.name == "scores"), None)
    if noise is None:
        return ""
    least = math.ceil(LEAST_SIZE * noise * math.sqrt(BINS))
    return render("privacy.spent.needed", least=least, unit=private.unit)


def why_nothing_spent(privacy: PrivateFacts) -> str:
    """Return why no ε is counted, and how one would be."""
    private = private_of(privacy)
    if private.mechanism is None:
        return f"Not known: {private.reason}."
    if private.epsilon is not None:
        key = "run" if private.unit == "site" else "yet"
        return render(f"privacy.unspent.{key}", epsilon=epsilon_in_words(private.epsilon))
    if not private.trained:
        return render("privacy.spent.statistic")
    return render("privacy.spent.none")


def share_of_budget(line: SpentLine) -> float:
    """Return the consumed share of a budget, else infinity."""
    spent = read(SiteSpending, line)
    if spent.budget is None:
        return float("inf")
    return (spent.spent_after or spent.epsilon or 0.0) / max(spent.budget, 1e-12)


def left_of_budget(line: SpentLine) -> float | None:
    """Return about how much ε is left of a budget, below 0 where it is overdrawn; None where not known."""
    spent = read(SiteSpending, line)
    if spent.spent_after is None or spent.budget is None:
        return None
    return spent.budget - spent.spent_after


def spent_line(site: str, line: SpentLine, privacy: PrivateFacts) -> dict[str, Any]:
    """Return one site's line of the table: the consumed ε rounded up, the rest rounded down."""
    spent = read(SiteSpending, line)
    private = private_of(privacy)
    left = left_of_budget(spent)
    if left is not None:
        left = math.floor(round(left * 100, 6)) / 100
    unit = counted(private).capitalize()
    return {
        "Site": site,
        f"{unit} requested": spent.steps,
        f"{unit} planned": private.steps,
        "ε of this run": epsilon_in_words(spent.epsilon),
        "δ": power_of_ten(spent.delta),
        "ε in its ledger before": shown(spent.spent_before, epsilon_in_words, "not known"),
        "ε of all its studies, about": shown(spent.spent_after, epsilon_in_words, "not known"),
        "Budget (ε)": shown(spent.budget, format_as_written, "none"),
        "Left of it, about": left,
    }


def kinds_of(out: Iterable[CrossedEntry]) -> list[str]:
    """Return the kinds of message, in the order of `KINDS`."""
    kinds = dict.fromkeys(entry.kind for entry in out)
    return [kind for kind in KINDS if kind in kinds] + sorted(kind for kind in kinds if kind not in KINDS)


def why_so_many(out: Sequence[CrossedEntry]) -> str:
    """Return how many of the bytes are updates, with their number and size; "" where nothing was trained.

    Parameters
    ----------
    out : sequence of CrossedEntry
        Messages of sites.

    Examples
    --------
    >>> sent = [("train", 75_000, 15), ("evaluate", 25_000, 1)]
    >>> why_so_many([CrossedEntry("a", "to-server", *of) for of in sent]).partition(".")[0]
    'About 75 % of the bytes are updates of training, one a round: 15 from a site, of about 5'
    >>> why_so_many([CrossedEntry("a", "to-server", *of) for of in [*sent, ("query.bins", 1_000, 1)]])[:59]
    'About 74 % of the bytes are of rounds, each of which grew a'
    """
    trained = [entry for entry in out if entry.kind == "train"]
    if not trained:
        return ""
    share = 100 * sum(entry.bytes for entry in trained) / sum(entry.bytes for entry in out)
    kinds = {entry.kind for entry in out}
    key = "updates"
    if SCORED in kinds:
        key = "noised-updates"
    if CELLS in kinds:
        key = "trees"
    return render(
        f"privacy.bytes.{key}",
        share=number(share, 0),
        messages=_span([entry.messages for entry in trained], str),
        size=_span([round(entry.bytes / entry.messages) for entry in trained], size_in_words),
    )


def _span(values: Sequence[int], format_number: Callable[[int], str]) -> str:
    """Return the range of figures, or their one value."""
    return " to ".join(dict.fromkeys((format_number(min(values)), format_number(max(values)))))


def kind_in_words(kind: str, kinds: Collection[str] = ()) -> str:
    """Return the name of a kind of message, among the `kinds` of its run.

    Examples
    --------
    >>> kind_in_words("train"), kind_in_words("train", ["train", "query.bins"]), kind_in_words("query.new")
    ('updates of training', 'sums of trees', 'query.new')
    >>> kind_in_words("query.statistic", ["train", "query.statistic"])
    'counts before training, with noise'
    """
    if kind == "train" and CELLS in kinds:
        return "sums of trees"
    if kind == COUNTED and "train" in kinds:
        return "counts before training, with noise"
    return KINDS.get(kind, kind)


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
    """Number of `rows` whose outcome the sums of the first tree reveal, and those of its root alone."""

    tree: int = 0
    root: int = 0
    rows: int = 0


def describe_outcome_disclosure(payload: Mapping[str, Any]) -> list[str]:
    """Return how many outcomes the sums of a run's first trees reveal, over all sites and by site."""
    lines = []
    if payload.get("together"):
        together = read(_OutcomeDisclosure, payload["together"])
        facts = {"tree": together.tree, "rows": together.rows, "root": together.root}
        lines.append(render("privacy.outcomes.together", **facts))
    each = []
    for site, of in sorted(payload.get("sites", {}).items()):
        own = read(_OutcomeDisclosure, of)
        each.append(f"{site} {own.tree:,} of {own.rows:,}")
    if each:
        lines.append(render("privacy.outcomes.sites", sites="; ".join(each)))
    return lines
