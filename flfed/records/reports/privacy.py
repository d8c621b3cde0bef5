"""Privacy of a run, in JSON and in words.

Meaning of an ε for one person, in odds and factors, and in sentences.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

from flfed.records.objects import read, write
from flfed.records.statistics.noised_scores import COVERS, Released
from flfed.records.statistics.own_models import PARTIES
from flfed.records.statistics.verdict import ABSENT, format_as_written
from flfed.records.store.entries import AT_INSTITUTIONS, RunEntry, Runs, SiteEntry
from flfed.records.store.reader import RunsReader
from flfed.study.study import has_analysis, has_parties, trains
from flfed.study.study_text import parsed_study
from flfed.study.tables import MODES
from flfed.words import render, sentences, shorten

Private = dict[str, Any]

PROMISED = (
    *("mechanism", "unit", "epsilon", "delta", "noise", "sampling", "clip", "steps"),
    *("excludes-encoder", "trusts-server"),
)

ENCODER_CONDITION = ", given the encoder"
"""Condition of an ε where rows move the encoder too."""
ONE_ANSWER = "one-answer"
"""Key of an analysis: true, as sites reply once and nothing is trained."""
TRAINED = "trained"
"""Key of a statistic or an analysis: false, as nothing is trained."""
SUMS = "secure-sums"
"""Name of the record of a run's sums, and of the key in a report."""
NAMED_AT_MOST = 8
"""Sites whose spending has a sentence each; the page has the table of all."""


@dataclass(frozen=True)
class SiteSpending:
    """Spending of a site, over all repeats together.

    Attributes
    ----------
    steps : int or None
        The most of one repeat; more than the run's where rounds were repeated.
    epsilon, delta : float or None
        The largest of one repeat; with repeated rounds `epsilon` is more than the promise.
    budget : float or None
        The latest repeat's.
    spent_before : float or None
        Spending in its ledger before the first repeat.
    spent_after : float or None
        The most that its account has then: all repeats added, up to a budget that the site enforces; None where not
        known. Only the site knows its total of all studies (`flfed site budget SITE`).
    """

    steps: int | None = None
    epsilon: float | None = None
    delta: float | None = None
    budget: float | None = None
    spent_before: float | None = None
    spent_after: float | None = None


@dataclass(frozen=True)
class SumsReport:
    """How a run's updates were added up.

    Attributes
    ----------
    kind : str
        "masked" where the server has the sums over all `sites` only; "encrypted"; "rehearsed", "rehearsed-encrypted";
        "off"; or "not begun".
    sites : int or None
    """

    kind: str = "off"
    sites: int | None = None


@dataclass(frozen=True)
class PrivacyReport(Released):
    """Object `privacy` of a report, of a run's record, or of a study before its run.

    Attributes
    ----------
    mechanism : str or None
        None was not recorded, with a `reason`; "none" promises nothing.
    unit, epsilon, delta, noise, sampling, clip, steps, excludes_encoder, trusts_server
        Promise of one run, None without one. Of an analysis, `steps`, `sampling` and `clip` are 1.
    noise_from : {"seed", "system"} or None
        "seed" where the noise follows from the study's seed, as in a simulation; "system" in a deployment and of an
        analysis of sites that have tables of their own.
    repeats : int
        Runs of a series that recorded it; each spends again.
    epsilon_of_repeats, delta_of_repeats : float or None
        Sums over repeats (basic composition), a bound for a row that is in each of them. They have the larger ε of
        a site that repeated rounds.
    secure_sums : object, or None
        `SumsReport`.
    warnings, uncharged : list of str
    sites : dict of name to object
        `SiteSpending`, by the names of the record; a name that the record does not have is left out.
    one_answer : bool
        Whether this is an analysis: each site replies once, with noise on all numbers.
    trained : bool
        False of a statistic or an analysis.
    parties : bool
        Whether the sites have different columns of the same people.
    answers : list of object
        `Charge` of each reply with noise beside training.
    """

    mechanism: str | None = None
    unit: str = ""
    epsilon: float | None = None
    delta: float | None = None
    noise: float | None = None
    sampling: float | None = None
    clip: float | None = None
    steps: int | None = None
    excludes_encoder: bool | None = None
    trusts_server: bool | None = None
    noise_from: str | None = None
    repeats: int = 1
    epsilon_of_repeats: float | None = None
    delta_of_repeats: float | None = None
    secure_sums: Any = None
    reason: str = ""
    warnings: Any = ()
    uncharged: Any = ()
    sites: Any = None
    one_answer: bool = False
    parties: bool = False
    trained: bool = True
    answers: Any = ()

    @property
    def is_noised(self) -> bool:
        """Whether everything that a site releases of its rows is covered by the privacy budget."""
        return self.one_answer or not self.is_exact

    @property
    def sent(self) -> str:
        """Name of a site's reply on a run's page."""
        return "update" if self.trained else "answer"

    def spending(self) -> dict[str, SiteSpending]:
        """Return the spending of each site."""
        return {site: read(SiteSpending, line) for site, line in (self.sites or {}).items()}

    def sums(self) -> SumsReport:
        """Return how updates were added up; a study's promise does not depend on it."""
        return read(SumsReport, self.secure_sums)


PrivateFacts = PrivacyReport | Mapping[str, Any]
"""An object `privacy`, read or as it was written."""
SpentLine = SiteSpending | Mapping[str, Any]
"""Spending of a site, read or as it was written."""
Recording = tuple[PrivacyReport, Mapping[str, SiteEntry]]
"""Privacy of a repeat, and its sites by name."""


def private_of(payload: PrivateFacts) -> PrivacyReport:
    """Return an object `privacy` as one."""
    return read(PrivacyReport, payload)


def privacy_of(reader: RunsReader, runs: Runs) -> Private:
    """Return the object `privacy` of a run's report (`PrivacyReport`).

    Guarantee: none of its own; it repeats the run's record. Source of the sum: Dwork and Roth 2014, "The algorithmic
    foundations of differential privacy", theorem 3.16.
    """
    summaries = [(reader.summary(run.run, "privacy"), sites) for run, sites in runs]
    recorded = [(payload, sites) for payload, sites in summaries if payload is not None]
    typed_payloads = [(private_of(payload), sites) for payload, sites in recorded]
    first, _ = recorded[0] if recorded else ({}, None)
    promise: Private = {key: first.get(key) for key in PROMISED}
    promised = private_of(promise)
    run, _ = runs[0]
    study = parsed_study(reader.series(run.series).study_text)
    payloads = [payload for payload, _ in typed_payloads]
    source = None if promised.epsilon is None else noise_from(run.engine, study)
    reason = "" if typed_payloads else render("privacy.promise.unrecorded")
    return {
        **promise,
        "noise-from": source,
        "repeats": len(typed_payloads),
        **_over_repeats(promised, typed_payloads),
        SUMS: write(_secure_sums(reader, [run for run, _ in runs], study)),
        "reason": reason,
        "warnings": _once(payload.warnings for payload in payloads),
        "uncharged": _once(payload.uncharged for payload in payloads),
        "sites": _sites(typed_payloads),
        **without_model(is_trained=trains(study), one_answer=has_analysis(study), parties=has_parties(study)),
        **_charged(first, study),
    }


def _once(sentence_lists: Iterable[Iterable[str] | None]) -> list[str]:
    """Return sentences of several repeats, each once."""
    return list(dict.fromkeys(chain.from_iterable(filter(None, sentence_lists))))


def _over_repeats(promise: PrivacyReport, recordings: Sequence[Recording]) -> Private:
    """Return the sums of ε and δ over several repeats, None for one."""
    if len(recordings) < 2 or promise.epsilon is None:
        return {"epsilon-of-repeats": None, "delta-of-repeats": None}
    largest = []
    for payload, _ in recordings:
        # A site that repeated rounds may have spent more than the promise: the larger one counts.
        spent = _most([line.epsilon for line in payload.spending().values()])
        largest.append(max(spent or 0.0, payload.epsilon or 0.0))
    return {"epsilon-of-repeats": math.fsum(largest), "delta-of-repeats": len(recordings) * (promise.delta or 0.0)}


def _secure_sums(reader: RunsReader, runs: Sequence[RunEntry], study: Mapping[str, Any]) -> SumsReport:
    """Return how a run's updates were added up."""
    for run in runs:
        recorded = reader.summary(run.run, SUMS)
        if recorded is not None:
            return read(SumsReport, recorded)
    mode = MODES[study.get("privacy", {}).get("secure-aggregation", "off")]
    # "auto" decides before the first round; in a simulation it means none.
    open_yet = runs[0].at_institutions and not any(run.rounds for run in runs)
    if mode.sums_updates and (open_yet or not mode.is_optional):
        return SumsReport("not begun")
    return SumsReport()


def sums_in_words(privacy: PrivateFacts) -> list[str]:
    """Return sentences on secure aggregation, none without it."""
    private = private_of(privacy)
    sums = private.sums()
    if sums.kind not in sentences("privacy", "sums"):
        return []
    lines = [render(f"privacy.sums.{sums.kind}", sent=private.sent, sites=sums.sites)]
    if private.one_answer and sums.kind == "masked":
        lines.append(render("privacy.promise.parts", sites=sums.sites))
    return lines


def noise_from(engine: str, study: Mapping[str, Any]) -> Literal["seed", "system"]:
    """Return where a run's noise came from.

    Where the privacy budget covers all releases, a site with a table of its own draws noise from its operating system,
    on any engine.

    Examples
    --------
    >>> summary = {"statistic": {"name": "summary"}}
    >>> noise_from("inprocess", {}), noise_from("inprocess", summary), noise_from("deployment", {})
    ('seed', 'system', 'system')
    >>> noise_from("inprocess", {**summary, "dataset": {"partition": {"sites": 3}}})
    'seed'
    """
    covered = has_analysis(study) or covers_study(study)
    if engine in AT_INSTITUTIONS or (covered and "partition" not in study.get("dataset", {})):
        return "system"
    return "seed"


def covers_study(study: Mapping[str, Any]) -> bool:
    """Return whether the guarantee of a study with a model covers all releases of a site."""
    return bool(study.get("privacy", {}).get("covers") == "study")


def _charged(recorded: Mapping[str, Any], study: Mapping[str, Any]) -> Private:
    """Return the further keys of `privacy` where the budget covers all releases of a study with a model."""
    if has_analysis(study) or not covers_study(study):
        return {}
    return {COVERS: "study", "answers": recorded.get("answers", [])}


def without_model(*, is_trained: bool, one_answer: bool, parties: bool = False) -> Private:
    """Return the further keys of `privacy` where nothing is trained, or each party has a part of the model."""
    more = {}
    if parties:
        more[PARTIES] = True
    if one_answer:
        more[ONE_ANSWER] = True
    if not is_trained:
        more[TRAINED] = False
    return more


def _sites(recordings: Sequence[Recording]) -> dict[str, Private]:
    """Return each site's spending over its repeats."""
    lines: dict[str, list[tuple[SiteSpending, bool]]] = {}
    for payload, sites in recordings:
        for name, spent in (payload.sites or {}).items():
            if name in sites:
                enforced = sites[name].disclosure == "institution"
                lines.setdefault(name, []).append((read(SiteSpending, spent), enforced))
    return {name: write(_together(lines[name])) for name in sorted(lines)}


def _together(repeats: Sequence[tuple[SiteSpending, bool]]) -> SiteSpending:
    """Return a site's spending over its repeats, each of which adds to its ledger."""
    spent = [line for line, _ in repeats]
    budgets = [line.budget for line in spent if line.budget is not None]
    return SiteSpending(
        steps=_most([line.steps for line in spent]),
        epsilon=_most([line.epsilon for line in spent]),
        delta=_most([line.delta for line in spent]),
        # The latest repeat's: a policy may have changed between two of them.
        budget=next(reversed(budgets), None),
        spent_before=spent[0].spent_before,
        spent_after=_spent_after(spent, budgets, enforced=repeats[-1][1]),
    )


def _spent_after(spent: Sequence[SiteSpending], budgets: Sequence[float], *, enforced: bool) -> float | None:
    """Return the most that a site's account has after all repeats, None where not known."""
    before = spent[0].spent_before
    added = [line.epsilon for line in spent if line.epsilon is not None]
    if before is None or len(added) < len(spent):
        return None
    after = before + math.fsum(added)
    # A site that enforces its budget sends nothing beyond it.
    return min(after, max(before, *budgets)) if budgets and enforced else after


def _most(values: Sequence[Any]) -> Any:
    return max((value for value in values if value is not None), default=None)


def listed(names: Iterable[str]) -> str:
    """Return a few names, and the number of others.

    Examples
    --------
    >>> listed(["a", "b"]), listed("abcdefghij")
    ('a, b', 'a, b, c, d, e, f, g, h and 2 more')
    """
    return shorten(list(names), NAMED_AT_MOST)


def epsilon_in_words(value: float | None) -> str:
    """Return an ε with two decimals at most, rounded up, so that no promise looks better than it is.

    A whole one has none, as on the pages of sites. An ε that is not known or not finite is "n/a".

    Examples
    --------
    >>> epsilon_in_words(0.9972), epsilon_in_words(2.301), epsilon_in_words(8.0), epsilon_in_words(None)
    ('1', '2.31', '8', 'n/a')
    """
    # The inner rounding keeps 2.3000000000000003 at 2.3.
    if value is None or not math.isfinite(value):
        return ABSENT
    return format_as_written(math.ceil(round(value * 100, 6)) / 100)


def name_mechanism(mechanism: str | None, epsilon: float | None) -> str:
    """Return a mechanism with its ε, for a cell.

    Examples
    --------
    >>> name_mechanism("record-dp", 0.9972), name_mechanism("none", None), name_mechanism(None, None)
    ('record-dp, ε 1', 'none', 'not recorded')
    """
    if epsilon is None:
        return mechanism or "not recorded"
    return f"{mechanism}, ε {epsilon_in_words(epsilon)}"


def power_of_ten(value: float | None) -> str:
    """Return a δ as a power of ten.

    Examples
    --------
    >>> power_of_ten(1e-5), power_of_ten(2.5e-4), power_of_ten(None)
    ('1e-5', '2.5e-4', 'n/a')
    """
    if value is None:
        return ABSENT
    digits, power = f"{value:.2e}".split("e")
    return f"{float(digits):g}e{int(power)}"


def counted(privacy: PrivateFacts) -> str:
    """Return the unit in which noise is counted: answers, steps or rounds."""
    private = private_of(privacy)
    if private.one_answer:
        return "answers"
    return "rounds" if private.unit == "site" else "steps"


def _describe_scope(privacy: PrivacyReport) -> str:
    """Return the scope of a guarantee."""
    if privacy.one_answer:
        return render("privacy.promise.answer")
    if privacy.is_noised:
        return render("privacy.promise.releases", steps=privacy.steps)
    return render("privacy.promise.run", steps=privacy.steps, unit=counted(privacy))


def bound_in_words(privacy: PrivacyReport) -> str:
    """Return ε and δ of a promise, with its condition."""
    condition = ENCODER_CONDITION if privacy.excludes_encoder else ""
    return f"ε = {epsilon_in_words(privacy.epsilon)} at δ = {power_of_ten(privacy.delta)}{condition}"


def describe_encoder_condition(unit: str) -> str:
    """Return the gap in a promise to one `unit`, given the encoder.

    Examples
    --------
    >>> describe_encoder_condition("site").split(". ")[1]
    'The effect of one site through them is not in that ε, and can be larger'
    """
    return render("privacy.promise.encoder", unit=unit)


def promise_in_words(privacy: PrivateFacts) -> list[str]:
    """Return the promise of a run, sentence by sentence."""
    private = private_of(privacy)
    sums = sums_in_words(private)
    if private.mechanism is None:
        return [render("privacy.promise.unknown", reason=private.reason)]
    if private.parties and private.epsilon is None:
        return [render("privacy.promise.vertical")]
    if private.parties:
        promised = render("privacy.promise.labels", bound=bound_in_words(private), steps=private.steps)
        return [promised, *_conditions(private)]
    if private.mechanism == "none" and private.trained:
        return [render("privacy.promise.none"), *sums]
    # A statistic has no updates, and no model that could be attacked.
    if private.mechanism == "none":
        return [render("privacy.promise.statistic"), *sums]
    if private.epsilon is None:
        return [render("privacy.promise.noiseless", mechanism=private.mechanism), *sums]
    unit = private.unit
    odds = odds_in_words(
        unit,
        private.epsilon,
        trusts_server=private.trusts_server is not False,
        counts=private.one_answer,
        summed=private.sums().kind != "off",
        of_all=not private.is_exact,
    )
    facts = {"unit": unit, "mechanism": private.mechanism, "bound": bound_in_words(private)}
    lines = [render("privacy.promise.promised", scope=_describe_scope(private), **facts), odds]
    if not private.is_exact:
        lines.append(render("privacy.spent.accounts", unit=unit))
    return [*lines, *_conditions(private), *sums]


def _conditions(privacy: PrivacyReport) -> list[str]:
    """Return the conditions of a promise: the encoder, the source of the noise, and the repeats."""
    unit = privacy.unit
    lines = []
    if privacy.excludes_encoder:
        lines.append(describe_encoder_condition(unit))
    if privacy.noise_from == "seed":
        lines.append(render("privacy.promise.simulated"))
    elif unit not in ("site", "outcome") and not privacy.one_answer:
        lines.append(DRAWN_ONCE)
    if privacy.repeats > 1:
        epsilon = epsilon_in_words(privacy.epsilon_of_repeats)
        facts = {"epsilon": epsilon, "delta": power_of_ten(privacy.delta_of_repeats), "unit": unit}
        lines.append(render("privacy.promise.repeats", repeats=privacy.repeats, **facts))
    return lines


def spending_in_words(privacy: PrivateFacts) -> list[str]:
    """Return the spending of the sites, in one line where alike."""
    private = private_of(privacy)
    spent = {site: line for site, line in private.spending().items() if line.epsilon is not None}
    if not spent:
        return []
    total = _ledgers_in_words(private, spent.values())
    if len({(line.steps, line.epsilon, line.budget, line.spent_after) for line in spent.values()}) == 1:
        where = "its one site"
        if len(spent) > 1:
            where = f"each of {len(spent)} sites"
        return [f"At {where}: {_spending(next(iter(spent.values())), private)}.", *total]
    lines = [f"At {site}: {_spending(line, private)}." for site, line in list(spent.items())[:NAMED_AT_MOST]]
    more = len(spent) - len(lines)
    if more:
        lines.append(render("privacy.spent.more", sites=more))
    return [*lines, *total]


def _ledgers_in_words(privacy: PrivacyReport, spent: Iterable[SiteSpending]) -> list[str]:
    """Return how the sum relates to the sites' ledgers, nothing where no site has one.

    Research sites that a study cuts out of a table have no ledger. No ledger has a promise to whole sites.
    """
    if all(line.spent_before is None for line in spent):
        return []
    return [render("privacy.spent.total")]


def of_all_studies(line: SpentLine) -> tuple[float | None, str]:
    """Return a bound on the ε in a site's ledger after a run, as a number and in words; None where not known.

    The bound adds the run's charge to the ledger before it. With the same δ the accountant's total is smaller, and only
    the site knows it.
    """
    total = read(SiteSpending, line).spent_after
    if total is None:
        return None, "not known"
    return total, f"at most {epsilon_in_words(total)}"


def _spending(line: SiteSpending, privacy: PrivacyReport) -> str:
    text = render("privacy.spent.run", epsilon=epsilon_in_words(line.epsilon), times=_times(line, privacy))
    # Repeated rounds spend again, so a site may have more steps than planned.
    if privacy.steps is not None and line.steps is not None and line.steps > privacy.steps:
        key = "more-answers" if privacy.one_answer else "more-rounds"
        text += render(f"privacy.over-plan.{key}", steps=privacy.steps)
    if line.spent_before is not None:
        before = epsilon_in_words(line.spent_before)
        if line.spent_after is None:
            text += render("privacy.spent.before", before=before)
        else:
            text += render("privacy.spent.ledger", before=before, after=of_all_studies(line)[1])
    if line.budget is None:
        return f"{text}, without a budget"
    return f"{text}, of a budget of {format_as_written(line.budget)}"


def _times(line: SiteSpending, privacy: PrivacyReport) -> str:
    """Return how often a site replied with noise."""
    times = f"{line.steps} {counted(privacy)}"
    if times == "1 answers":
        return "one answer"
    if not privacy.is_exact:
        times += " and the counts with noise"
    return times


SMALL_EPSILON = 0.1
"""Up to this ε the odds hardly change."""
LARGEST_FACTOR = 1e6
"""A guarantee that allows a larger factor hardly protects."""
DRAWN_ONCE = (
    "An institution draws a round's noise once: a repeated request gets the same reply, or none. Only a crash or an "
    "error of its own makes it draw a round once more, which its ledger counts."
)
"""Basis of a promise, shown before and after a run."""


def odds_in_words(
    unit: str,
    epsilon: float,
    *,
    trusts_server: bool = True,
    counts: bool = False,
    summed: bool = False,
    of_all: bool = False,
) -> str:
    """Return by how much a guarantee lets odds change, without δ.

    By Bayes' rule the odds with and without sight of the results differ by a factor of at most e^ε, but
    for results that come about with a chance of about δ. Source: Dwork and Roth 2014, "The algorithmic
    foundations of differential privacy", definition 2.4.

    Parameters
    ----------
    unit : {"row", "person", "site"}
    epsilon : float, >= 0
    trusts_server : bool
        Whether a promise to sites assumes a server that is trusted.
    counts : bool
        Whether rows are counted once and nothing is trained.
    summed : bool
        Whether such counts leave in sums over sites alone.
    of_all : bool
        Whether the guarantee is for all releases of a site, and not updates alone.

    Examples
    --------
    >>> odds_in_words("site", 1.0).partition(": ")[2]
    'the odds can change by at most e^ε, 2.72 times, but for rare results (δ).'
    """
    event = render(f"privacy.protected.{unit}")
    seen = "sums-or-models"
    if trusts_server:
        seen = "models" if unit == "site" else "updates"
    if counts:
        event = render(f"privacy.counted.{unit}")
        seen = "sum-of-answers" if summed else "answer"
    if of_all:
        event = render(f"privacy.in-table.{unit}")
        seen = "releases"
    facts = {"seen": render(f"privacy.seen.{seen}"), "event": event, "factor": factor_in_words(epsilon)}
    if epsilon <= SMALL_EPSILON:
        return render("privacy.odds.small", **facts)
    return render("privacy.odds.large", **facts)


def factor_in_words(epsilon: float) -> str:
    """Return e^ε with three significant digits, rounded up, so that no guarantee looks better than it is.

    Examples
    --------
    >>> factor_in_words(0.05), factor_in_words(1.0), factor_in_words(3.0), factor_in_words(8.0)
    ('1.06 times', '2.72 times', '20.1 times', '2,990 times')
    >>> factor_in_words(14.0)
    'more than a million times: it hardly protects'
    """
    if epsilon > math.log(LARGEST_FACTOR):
        return render("privacy.odds.beyond")
    factor = math.exp(epsilon)
    # The step is the third digit; the inner rounding keeps 2.0 from becoming 2.01 by float error.
    step = 10.0 ** (math.floor(math.log10(factor)) - 2)
    least = math.ceil(round(factor / step, 9)) * step
    return f"{least:,.{max(0, -round(math.log10(step)))}f} times"


@dataclass(frozen=True)
class Charge:
    """A reply with noise beside training, and its noise multiplier."""

    name: str = ""
    noise: float | None = None
