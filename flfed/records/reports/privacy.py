"""Privacy of a run, in JSON and in words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Literal

from flfed.records.objects import read, write
from flfed.records.statistics.noised_scores import COMPARISON, COVERS, Released
from flfed.records.statistics.privacy_odds import DRAWN_ONCE, accounts_in_words, odds_in_words
from flfed.records.statistics.verdict import number, shorten
from flfed.records.store.entries import AT_INSTITUTIONS, RunEntry, Runs, SiteEntry
from flfed.records.store.reader import RunReader
from flfed.records.store.visibility import parsed_study
from flfed.study.study import has_analysis, trains
from flfed.study.tables import MODES, in_sums_only

Private = dict[str, Any]

PROMISED = (
    *("mechanism", "unit", "epsilon", "delta", "noise", "sampling", "clip", "steps"),
    *("excludes-encoder", "trusts-server"),
)
ON_BOTH = "epsilon-on-both"
"""Key of a record: what a site's ledger counts of a run whose charges are each on both sides of the holdout."""
NOT_RECORDED = "the record says nothing of privacy: the run ended before it began"

SIMULATED = (
    "This run was a simulation: its noise follows from the study's seed, and whoever has the study can draw it again. "
    "The promise is what the same study keeps in a deployment, where the noise is the system's."
)
ENCODER_CONDITION = ", given the encoder"
"""Condition of an ε where rows move the encoder too."""
ONE_ANSWER = "one-answer"
"""Key that is there, and true, where sites answer once and nothing is trained: in an analysis."""
TRAINED = "trained"
"""Key that is there, and false, where nothing is trained: of a statistic or an analysis."""
SENT_AGAIN = (
    "A site that had answered this very text before, over the same rows, sent the same numbers again: that costs "
    "nothing more, and its ledger has less than the sum above."
)
BOTH_SIDES = (
    "The most that a ledger has counts each charge for people trained on and for people held out. Where nobody changes "
    "sides, it has less."
)
THE_SITES_OWN = (
    "The ε above is this run's. What all studies together have spent stands in each site's own ledger: "
    "`flfed site budget SITE`, at the site."
)
SUMS = "secure-sums"
"""Name of what a run recorded of its sums, and of the key in a report."""
SUMS_IN_WORDS = {
    "masked": "Updates left their sites for sums only: the coordinator has sums of those of {least} sites or more, "
    "and no single one.",
    "encrypted": "Updates left encrypted, and the server has no key; one site that works with it can read all of them.",
    "rehearsed": "Secure aggregation was rehearsed: one process held all updates, and added them up without masks.",
    "rehearsed-encrypted": "Homomorphic encryption was rehearsed: one process held the key and all updates.",
}
NOISE_OF_ALL = (
    "Each site puts its part of the noise on its answer: the parts of all but one of {least} sites are enough, so that "
    "one that works with the coordinator takes nothing away. The ε if a third do is in each site's own ledger."
)
"""Of an analysis in secure sums."""
NAMED_AT_MOST = 8
"""Sites whose spending is told one by one; the page has the table of all."""


@dataclass(frozen=True)
class SiteSpending:
    """What a site spent, over all repeats together.

    Attributes
    ----------
    steps : int or None
        The most of one repeat; more than the run's where rounds were done again.
    epsilon, delta : float or None
        The largest of one repeat; such an `epsilon` is then more than was promised.
    budget : float or None
        The latest repeat's.
    spent_before : float or None
        What its ledger had before the first repeat.
    spent_after : float or None
        The most that its ledger has then: all repeats added, each charge on both sides of the holdout, up to a budget
        that the site enforces; None where it is not known. What a site's ledger has of all studies only the site
        knows (`flfed site budget SITE`).
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
        "masked" where updates left for sums only, of `least` sites or more; "encrypted"; "rehearsed",
        "rehearsed-encrypted"; "off"; or "not begun".
    least : int or None
    """

    kind: str = "off"
    least: int | None = None


@dataclass(frozen=True)
class PrivacyReport(Released):
    """Object `privacy` of a report, of a run's record, or of a study that is not run yet.

    Attributes
    ----------
    mechanism : str or None
        None was not recorded, and `reason` says so; "none" promises nothing.
    unit, epsilon, delta, noise, sampling, clip, steps, excludes_encoder, trusts_server
        What one run promises, None where nothing is promised. Of an analysis, `steps`, `sampling` and `clip` are 1.
    noise_from : {"seed", "system"} or None
        "seed" where the noise follows from the study's seed, as in a simulation; "system" in a deployment and of an
        analysis of sites that have tables of their own.
    repeats : int
        Runs of a series that recorded it, each of which spends again.
    epsilon_of_repeats, delta_of_repeats : float or None
        Sums over repeats (basic composition), which bound what all of them tell of a row that is in each. They have
        the larger ε of a site that did rounds again.
    secure_sums : object, or None
        `SumsReport`.
    warnings, uncharged : list of str
    sites : dict of name to object
        `SiteSpending`, by the names of the record; a name that the record does not have is left out. A site that
        shares figures in sums only has None for its budget and ledger.
    one_answer : bool
        Whether this is an analysis: each site answers once, with noise on all numbers of its answer.
    trained : bool
        False of a statistic or an analysis.
    answers, unspent : list of object
        `Charge` of each of its noised answers beside training, and of what is not asked for.
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
    trained: bool = True
    answers: Any = ()
    unspent: Any = ()

    @property
    def is_noised(self) -> bool:
        """Whether all that leaves a site of its rows has noise that is charged."""
        return self.one_answer or not self.is_exact

    @property
    def sent(self) -> str:
        """What a site sends, by the word of a run's page."""
        return "update" if self.trained else "answer"

    def spending(self) -> dict[str, SiteSpending]:
        """Return what each site spent."""
        return {site: read(SiteSpending, line) for site, line in (self.sites or {}).items()}

    def sums(self) -> SumsReport:
        """Return how updates were added up; a study's promise says nothing of it."""
        return read(SumsReport, self.secure_sums or {})


PrivateFacts = PrivacyReport | Mapping[str, Any]
"""An object `privacy`, read or as it was written."""
SpentLine = SiteSpending | Mapping[str, Any]
"""What a site spent, read or as it was written."""
Recording = tuple[PrivacyReport, Mapping[str, SiteEntry]]
"""What a repeat recorded of privacy, and its sites by name."""


def private_of(payload: PrivateFacts) -> PrivacyReport:
    """Return an object `privacy` as one."""
    return read(PrivacyReport, payload)


def privacy_of(reader: RunReader, runs: Runs) -> Private:
    """Return the object `privacy` of a run's report (`PrivacyReport`).

    Guarantee: none of its own; it repeats what the run wrote down. Source of the sum: Dwork and
    Roth 2014, "The algorithmic foundations of differential privacy", theorem 3.16.
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
    kind = without_model(is_trained=trains(study), one_answer=has_analysis(study))
    return {
        **promise,
        "noise-from": source,
        "repeats": len(typed_payloads),
        **_over_repeats(promised, typed_payloads),
        SUMS: write(_secure_sums(reader, [run for run, _ in runs], study)),
        "reason": "" if typed_payloads else NOT_RECORDED,
        "warnings": _once(payload.warnings for payload in payloads),
        "uncharged": _once(payload.uncharged for payload in payloads),
        "sites": _sites(typed_payloads),
        **kind,
        **_charged(first, study),
    }


def _once(sentence_lists: Iterable[Iterable[str] | None]) -> list[str]:
    """Return sentences of several repeats, each once."""
    return list(dict.fromkeys(chain.from_iterable(filter(None, sentence_lists))))


def _over_repeats(promise: PrivacyReport, recordings: Sequence[Recording]) -> Private:
    """Return the sums of ε and δ over several repeats, None of one."""
    if len(recordings) < 2 or promise.epsilon is None:
        return {"epsilon-of-repeats": None, "delta-of-repeats": None}
    largest = []
    for payload, _ in recordings:
        # A site that did rounds again may have spent more than was promised: the larger one counts.
        spent = _most([line.epsilon for line in payload.spending().values()])
        largest.append(max(spent or 0.0, payload.epsilon or 0.0))
    return {"epsilon-of-repeats": math.fsum(largest), "delta-of-repeats": len(recordings) * (promise.delta or 0.0)}


def _secure_sums(reader: RunReader, runs: Sequence[RunEntry], study: Mapping[str, Any]) -> SumsReport:
    """Return whether a run's updates were added up in secret."""
    for run in runs:
        recorded = reader.summary(run.run, SUMS)
        if recorded is not None:
            return read(SumsReport, recorded)
    mode = MODES[study.get("privacy", {}).get("secure-aggregation", "off")]
    # Where "auto" decides, it has done so before the first round; in a simulation it means none.
    open_yet = runs[0].at_institutions and not any(run.rounds for run in runs)
    if mode.sums_updates and (open_yet or not mode.is_optional):
        return SumsReport("not begun")
    return SumsReport()


def sums_in_words(privacy: PrivateFacts) -> list[str]:
    """Return a sentence on secure sums, none where there were none."""
    private = private_of(privacy)
    sums = private.sums()
    if sums.kind not in SUMS_IN_WORDS:
        return []
    sentence = SUMS_IN_WORDS[sums.kind].format(least=sums.least)
    if not private.trained:
        sentence = sentence.replace("Updates", "Answers").replace("updates", "answers")
    lines = [sentence]
    if private.one_answer and sums.kind == "masked":
        lines.append(NOISE_OF_ALL.format(least=sums.least))
    return lines


def noise_from(engine: str, study: Mapping[str, Any]) -> Literal["seed", "system"]:
    """Return where a run's noise came from.

    A site with a table of its own draws noise from its operating system, whatever the engine, where all that leaves is
    charged.

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
    """Tell whether the guarantee of a study with a model is of all that leaves a site."""
    return bool(study.get("privacy", {}).get("covers") == "study")


def _charged(recorded: Mapping[str, Any], study: Mapping[str, Any]) -> Private:
    """Return what an object `privacy` has more where all that leaves a site is charged, in a study with a model."""
    if has_analysis(study) or not covers_study(study):
        return {}
    compared = study["privacy"].get(COMPARISON, "none")
    charge_keys: Private = {COVERS: "study"}
    if compared != "none":
        charge_keys[COMPARISON] = compared
    return charge_keys | {key: recorded.get(key, []) for key in ("answers", "unspent")}


def without_model(*, is_trained: bool, one_answer: bool) -> Private:
    """Return what an object `privacy` has more where nothing is trained."""
    more: Private = {}
    if one_answer:
        more[ONE_ANSWER] = True
    if not is_trained:
        more[TRAINED] = False
    return more


@dataclass(frozen=True)
class _Repeat:
    """What a site spent in one repeat, what that adds to its ledger, and whether it enforces its budget."""

    spent: SiteSpending
    added: float | None
    enforced: bool


def _sites(recordings: Sequence[Recording]) -> dict[str, Private]:
    """Return each site's spending over its repeats."""
    lines: dict[str, list[_Repeat]] = {}
    for payload, sites in recordings:
        for name, spent in (payload.sites or {}).items():
            if name in sites:
                lines.setdefault(name, []).append(_in_repeat(spent, sites[name], exact=payload.is_exact))
    return {name: write(_together(lines[name])) for name in sorted(lines)}


def _in_repeat(recorded: Mapping[str, Any], site: SiteEntry, *, exact: bool) -> _Repeat:
    """Return what a site spent in one repeat; one in sums only tells neither its budget nor its ledger."""
    spent = read(SiteSpending, recorded)
    # A record of an earlier version does not say what such a run is on both sides.
    added = spent.epsilon if exact else None
    if in_sums_only(site.shared_as):
        spent = replace(spent, budget=None, spent_before=None)
    return _Repeat(spent, recorded.get(ON_BOTH, added), site.disclosure == "institution")


def _together(repeats: Sequence[_Repeat]) -> SiteSpending:
    """Return a site's spending over its repeats, each of which adds to what its ledger had before the first."""
    spent = [repeat.spent for repeat in repeats]
    budgets = [line.budget for line in spent if line.budget is not None]
    return SiteSpending(
        steps=_most([line.steps for line in spent]),
        epsilon=_most([line.epsilon for line in spent]),
        delta=_most([line.delta for line in spent]),
        # The latest repeat's: a policy may have changed between two of them.
        budget=next(reversed(budgets), None),
        spent_before=spent[0].spent_before,
        spent_after=_spent_after(repeats, budgets),
    )


def _spent_after(repeats: Sequence[_Repeat], budgets: Sequence[float]) -> float | None:
    """Return the most that a site's ledger has after all repeats, None where it is not known."""
    before = repeats[0].spent.spent_before
    added = [repeat.added for repeat in repeats if repeat.added is not None]
    if before is None or len(added) < len(repeats):
        return None
    after = before + math.fsum(added)
    if budgets and repeats[-1].enforced:
        # A site that enforces its budget answers nothing beyond it.
        return min(after, max(before, *budgets))
    return after


def _most(values: Sequence[Any]) -> Any:
    return max((value for value in values if value is not None), default=None)


def listed(names: Iterable[str]) -> str:
    """Return a few names, and how many more there are.

    Examples
    --------
    >>> listed(["a", "b"]), listed("abcdefghij")
    ('a, b', 'a, b, c, d, e, f, g, h and 2 more')
    """
    return shorten(list(names), NAMED_AT_MOST)


def epsilon_in_words(value: float | None) -> str:
    """Return an ε with two decimals, rounded up.

    A promise is never shown as better than it is.

    As with what is not known, n/a is written for what is beyond any number.

    Examples
    --------
    >>> epsilon_in_words(0.9972), epsilon_in_words(2.301), epsilon_in_words(8.0), epsilon_in_words(None)
    ('1.00', '2.31', '8.00', 'n/a')
    """
    # What is written with a few more digits than are shown, such as 2.3000000000000003, stays what it is.
    if value is None or not math.isfinite(value):
        return number(None, 2)
    return number(math.ceil(round(value * 100, 6)) / 100, 2)


def power_of_ten(value: float | None) -> str:
    """Return a δ as people write it.

    Examples
    --------
    >>> power_of_ten(1e-5), power_of_ten(2.5e-4), power_of_ten(None)
    ('1e-5', '2.5e-4', 'n/a')
    """
    if value is None:
        return number(None)
    digits, power = f"{value:.2e}".split("e")
    return f"{float(digits):g}e{int(power)}"


def counted(privacy: PrivateFacts) -> str:
    """Return what noise is counted in: answers, steps or rounds."""
    private = private_of(privacy)
    if private.one_answer:
        return "answers"
    return "rounds" if private.unit == "site" else "steps"


def _how_often(privacy: PrivacyReport) -> str:
    """Return over what a guarantee holds."""
    if privacy.one_answer:
        return "for one answer of each site, all numbers of it together"
    if privacy.is_noised:
        return f"for all that leaves a site of its rows: noised counts and all {privacy.steps} steps of training"
    return f"over all {privacy.steps} {counted(privacy)} of the run"


def bound_in_words(privacy: PrivacyReport) -> str:
    """Return ε and δ of a promise, with its condition."""
    condition = ENCODER_CONDITION if privacy.excludes_encoder else ""
    return f"ε = {epsilon_in_words(privacy.epsilon)} at δ = {power_of_ten(privacy.delta)}{condition}"


def describe_encoder_condition(unit: str) -> str:
    """Return what a promise to one `unit` leaves out, given the encoder.

    Examples
    --------
    >>> describe_encoder_condition("site").split(". ")[1]
    'What one site changes through them is not in that ε, and can be more than it'
    """
    return (
        "Given the encoder: the means and deviations by which all rows are scaled are exact sums over the rows. What "
        f"one {unit} changes through them is not in that ε, and can be more than it. A study with [encode] scaler = "
        '"schema" takes them from the schema instead, where no row has a say.'
    )


def promise_in_words(privacy: PrivateFacts) -> list[str]:
    """Return what a run promises, sentence by sentence."""
    private = private_of(privacy)
    if private.mechanism is None:
        return [f"Privacy: not known; {private.reason}."]
    if private.mechanism == "none":
        nothing = "No privacy mechanism: the run promises nothing. Whoever sees a site's"
        learns = "updates can learn about its rows; `flfed audit RUN` measures how much."
        # A statistic has no updates, and no model that could be attacked.
        if not private.trained:
            learns = "sums can learn about its rows."
        return [f"{nothing} {learns}", *sums_in_words(private)]
    # A mechanism without noise has no ε to tell.
    if private.epsilon is None:
        nothing = f"{private.mechanism} promises nothing: there is no noise that an ε would follow from."
        return [nothing, *sums_in_words(private)]
    unit = private.unit
    odds = odds_in_words(
        unit,
        private.epsilon,
        trusts_server=private.trusts_server is not False,
        counts=private.one_answer,
        summed=private.sums().kind != "off",
        covers=not private.is_exact,
    )
    lines = [f"Promised to each {unit} by {private.mechanism}: {bound_in_words(private)}, {_how_often(private)}.", odds]
    if not private.is_exact:
        lines += accounts_in_words(unit, private.unspent)
    return [*lines, *_conditions(private), *sums_in_words(private)]


def _conditions(privacy: PrivacyReport) -> list[str]:
    """Return on what a promise rests: the encoder, where the noise comes from, and how often it is given."""
    unit = privacy.unit
    lines = []
    if privacy.excludes_encoder:
        lines.append(describe_encoder_condition(unit))
    if privacy.noise_from == "seed":
        lines.append(SIMULATED)
    elif unit != "site" and not privacy.one_answer:
        lines.append(DRAWN_ONCE)
    if privacy.repeats > 1:
        spent = epsilon_in_words(privacy.epsilon_of_repeats)
        lines.append(
            f"The promise is of one run. Each of the {privacy.repeats} repeats spends again: together at most "
            f"ε = {spent} at δ = {power_of_ten(privacy.delta_of_repeats)} for a {unit} that is in all of them."
        )
    return lines


def spending_in_words(privacy: PrivateFacts) -> list[str]:
    """Return what the sites spent, in one line where alike."""
    private = private_of(privacy)
    spent = {site: line for site, line in private.spending().items() if line.epsilon is not None}
    if not spent:
        return []
    total = _ledgers_in_words(private, spent.values())
    alike = {(line.steps, line.epsilon, line.budget, line.spent_after) for line in spent.values()}
    if len(alike) == 1:
        where = "At its one site"
        if len(spent) > 1:
            where = f"At each of {len(spent)} sites"
        return [f"{where}: {_spending(next(iter(spent.values())), private)}.", *total]
    lines = [f"At {site}: {_spending(line, private)}." for site, line in list(spent.items())[:NAMED_AT_MOST]]
    more = len(spent) - len(lines)
    if more:
        lines.append(f"And at {more} more sites: see `--json`, or the page Privacy.")
    return [*lines, *total]


def _ledgers_in_words(privacy: PrivacyReport, spent: Iterable[SiteSpending]) -> list[str]:
    """Return how the sum stands to the sites' ledgers, nothing where no site has one.

    Research sites that a study cuts out of a table have no ledger, and the promise of whole sites is in none.
    """
    if all(line.spent_before is None for line in spent):
        return []
    lines = [THE_SITES_OWN]
    if not privacy.is_exact:
        lines.insert(0, BOTH_SIDES)
    if privacy.one_answer:
        lines.append(SENT_AGAIN)
    return lines


def of_all_studies(line: SpentLine) -> tuple[float | None, str]:
    """Return a bound of a site's ε over all studies.

    It is that of its ledger after the run, as a number and in words. It is None where it is not known.

    What the run adds to the ledger is added to what the site said was spent before: that is more than the accountant
    makes of both, as far as they are of the same δ. The sum itself only the site can tell.
    """
    total = read(SiteSpending, line).spent_after
    if total is None:
        return None, "not known"
    return total, f"at most {epsilon_in_words(total)}"


def _spending(line: SiteSpending, privacy: PrivacyReport) -> str:
    text = f"this run ε = {epsilon_in_words(line.epsilon)} for {_times(line, privacy)}"
    # Rounds done again spend again, so a site may have more steps than were planned.
    if privacy.steps is not None and line.steps is not None and line.steps > privacy.steps:
        text += f", more than the {privacy.steps} planned"
        if not privacy.one_answer:
            text += ", since rounds were done again"
    if line.spent_before is not None:
        after = "how much it has with it, ask the site"
        if line.spent_after is not None:
            after = f"has {of_all_studies(line)[1]} with it"
        text += f"; its ledger had ε = {epsilon_in_words(line.spent_before)} before, and {after}"
    if line.budget is None:
        return f"{text}, without a budget"
    return f"{text}, of a budget of {number(line.budget, 2)}"


def _times(line: SiteSpending, privacy: PrivacyReport) -> str:
    """Return how often a site answered with noise."""
    times = f"{line.steps} {counted(privacy)}"
    if times == "1 answers":
        return "one answer"
    if not privacy.is_exact:
        times += " and the noised counts"
    return times
