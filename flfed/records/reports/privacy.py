"""Privacy of a run, in JSON and in words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from flfed.records.reports.audit_headlines import (
    BEYOND,
    NOT_KNOWN,
    WITHIN,
    Audit,
    Runs,
    audit_in_words,
    headlines,
    place_of,
    unpromised_in_words,
)
from flfed.records.statistics.listed.noised_scores import COMPARISON, COVERS
from flfed.records.statistics.privacy_odds import DRAWN_ONCE, accounts_in_words, odds_in_words
from flfed.records.statistics.verdict import number
from flfed.records.store.entries import AT_INSTITUTIONS, RunEntry, SiteEntry
from flfed.records.store.reader import RunReader
from flfed.records.store.visibility import parsed_study
from flfed.study.key_rules import has_analysis, has_statistic
from flfed.study.secure_aggregation import MODES
from flfed.study.tables import in_sums_only

Private = dict[str, Any]

PROMISED = (
    *("mechanism", "unit", "epsilon", "delta", "noise", "sampling", "clip", "steps", "given-encoder", "trusts-server"),
)
SPENT = ("steps", "epsilon", "delta", "budget", "spent-before", "spent-after")
ON_BOTH = "epsilon-on-both"
"""Key of a record: what a site's ledger counts of a run whose charges are each on both sides of the holdout."""
OWN = ("budget", "spent-before")
"""What a site's own ledger and policy say: a site in sums only tells none of it."""
NOT_RECORDED = "the record says nothing of privacy: the run ended before it began"

Standing = Literal[
    "not recorded",
    "nothing promised",
    "promised, not measured",
    "measured in part",
    "within, at your site",
    "within the promise",
    "beyond the promise",
]
"""How a promise stands against what was measured; only "within the promise" is shown as green."""

HIDDEN = "The figures of other sites are not shown to you: whether the promise held there, the coordinator can tell."
WHOLE_SITES = (
    "Promised to whole sites, which no attack here measures: `flfed audit RUN` attacks rows, and of a row nothing is "
    "promised."
)
SIMULATED = (
    "This run was a simulation: its noise follows from the study's seed, and whoever has the study can draw it again. "
    "The promise is what the same study keeps in a deployment, where the noise is the system's."
)
GIVEN = ", given the encoder"
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


def privacy_of(reader: RunReader, runs: Runs) -> Private:
    """Return the object `privacy` of a run's report.

    A mechanism that is null was not recorded, and `reason` says so; "none" promises nothing. The
    promise is one run's. Of a series, `repeats` counts the runs that recorded it, and each spends
    again: `epsilon-of-repeats` at `delta-of-repeats` are the sums (basic composition), which bound
    what all repeats tell of a row that is in each. A site's `steps` and `epsilon` are then the
    largest of one repeat, and `spent-before` is the first one's. `spent-after` is the most that its ledger has then:
    all repeats added, each charge on both sides of the holdout, up to a budget that the site enforces; null where it
    is not known. What a site's ledger has of all studies only the site knows (`flfed site budget SITE`).
    A site's `steps` are more than the run's where rounds were done again, and its `epsilon` is then more than was
    promised; the sums over repeats have the larger one. `noise-from` is "seed" where the noise follows from the study's
    seed, as in a simulation, and "system" in a deployment and of an analysis of sites that have tables of their own.
    `one-answer` is there, and true, of an analysis: each site answers once, with noise on all numbers of its answer,
    and `steps`, `sampling` and `clip` are 1. `trained` is there, and
    false, of a statistic or an analysis. `secure-sums` has `kind`: "masked" where updates left for sums only, of
    `least` sites or more; "encrypted"; "rehearsed", "rehearsed-encrypted"; "off"; or "not begun".
    `covers` is there, and "study", of a study with a model where all that leaves a site is charged. `answers` are then
    its noised answers beside training, each with the side of its rows, its noise multiplier and its share of the
    budget, and `kept-back` the shares of what is not asked for.

    Sites stand under the names of the record. One that shares figures in sums only has null for its
    budget and ledger; a name that the record does not have is left out.

    Guarantee: none of its own; it repeats what the run wrote down. Source of the sum: Dwork and
    Roth 2014, "The algorithmic foundations of differential privacy", theorem 3.16.
    """
    told = [(reader.summary(run.run, "privacy"), sites) for run, sites in runs]
    found = [(payload, sites) for payload, sites in told if payload is not None]
    first: Mapping[str, Any] = found[0][0] if found else {}
    promise: Private = {key: first.get(key) for key in PROMISED}
    study = parsed_study(reader.series(runs[0][0].series).study_text)
    several = len(found) > 1 and promise["epsilon"] is not None
    # A site that did rounds again may have spent more than was promised: the larger one counts.
    largest = [max(_most(_of_each(payload, "epsilon")) or 0.0, payload["epsilon"] or 0.0) for payload, _ in found]
    sums = {
        "epsilon-of-repeats": math.fsum(largest) if several else None,
        "delta-of-repeats": len(found) * promise["delta"] if several else None,
    }
    return {
        **promise,
        "noise-from": None if promise["epsilon"] is None else noise_from(runs[0][0].engine, study),
        "repeats": len(found),
        **sums,
        SUMS: _secure_sums(reader, [run for run, _ in runs]),
        "reason": "" if found else NOT_RECORDED,
        "warnings": _all_of(found, "warnings"),
        "uncharged": _all_of(found, "uncharged"),
        "sites": _sites(found),
        **without_model(statistic=has_statistic(study), analysis=has_analysis(study)),
        **_charged(first, study),
    }


def _secure_sums(reader: RunReader, runs: Sequence[RunEntry]) -> Private:
    """Return whether a run's updates were added up in secret."""
    for run in runs:
        if (recorded := reader.summary(run.run, SUMS)) is not None:
            return {"kind": recorded["kind"], "least": recorded["least"]}
    first = runs[0]
    table = parsed_study(reader.series(first.series).study_text).get("privacy", {})
    asked = table.get("secure-aggregation", "off")
    # Where "auto" decides, it has done so before the first round; in a simulation it means none.
    open_yet = first.engine in AT_INSTITUTIONS and not any(run.rounds for run in runs)
    mode = MODES[asked]
    begun = not mode.sums_updates or (mode.is_optional and not open_yet)
    return {"kind": "off" if begun else "not begun", "least": None}


def sums_in_words(privacy: Private) -> list[str]:
    """Return a sentence on secure sums, none where there were none."""
    # A study's promise says nothing of it.
    found = privacy.get(SUMS) or {"kind": "off", "least": None}
    said = [SUMS_IN_WORDS[kind].format(least=found["least"]) for kind in (found["kind"],) if kind in SUMS_IN_WORDS]
    if privacy.get(TRAINED) is False:
        said = [line.replace("Updates", "Answers").replace("updates", "answers") for line in said]
    if privacy.get(ONE_ANSWER) and found["kind"] == "masked":
        said += [NOISE_OF_ALL.format(least=found["least"])]
    return said


def noise_from(engine: str, study: Mapping[str, Any]) -> Literal["seed", "system"]:
    """Return where a run's noise came from.

    A site with a table of its own draws noise from its operating system, whatever the engine, where all that leaves is
    charged.

    Examples
    --------
    >>> noise_from("inprocess", {}), noise_from("inprocess", {"analysis": {}}), noise_from("deployment", {})
    ('seed', 'system', 'system')
    >>> noise_from("inprocess", {"analysis": {}, "dataset": {"partition": {"sites": 3}}})
    'seed'
    """
    covered = has_analysis(study) or covers_study(study)
    own = covered and "partition" not in study.get("dataset", {})
    return "system" if engine in AT_INSTITUTIONS or own else "seed"


def covers_study(study: Mapping[str, Any]) -> bool:
    """Tell whether the guarantee of a study with a model is of all that leaves a site."""
    return bool(study.get("privacy", {}).get("covers") == "study")


def _charged(recorded: Mapping[str, Any], study: Mapping[str, Any]) -> Private:
    """Return what an object `privacy` has more where all that leaves a site is charged, in a study with a model."""
    if has_analysis(study) or not covers_study(study):
        return {}
    compared = study["privacy"].get(COMPARISON, "none")
    return {
        COVERS: "study",
        **({} if compared == "none" else {COMPARISON: compared}),
        **{key: recorded.get(key, []) for key in ("answers", "kept-back")},
    }


def without_model(*, statistic: bool, analysis: bool) -> Private:
    """Return what an object `privacy` has more where nothing is trained."""
    if analysis:
        return {ONE_ANSWER: True, TRAINED: False}
    return {TRAINED: False} if statistic else {}


def _of_each(payload: Mapping[str, Any], key: str) -> list[Any]:
    """Return one figure of every site in a run's record."""
    return [line.get(key) for line in (payload.get("sites") or {}).values()]


def _all_of(found: Sequence[tuple[Mapping[str, Any], Any]], key: str) -> list[str]:
    """Return the sentences of all repeats, each once."""
    return list(dict.fromkeys(str(said) for payload, _ in found for said in payload.get(key) or ()))


def _sites(found: Sequence[tuple[Mapping[str, Any], Mapping[str, SiteEntry]]]) -> dict[str, Private]:
    """Return each site's spending over its repeats."""
    lines: dict[str, list[Private]] = {}
    for payload, sites in found:
        for name, spent in (payload.get("sites") or {}).items():
            if name in sites:
                hidden = OWN if in_sums_only(sites[name].shared_as) else ()
                line = {key: None if key in hidden else spent.get(key) for key in SPENT}
                # A record of an earlier version does not say what such a run is on both sides.
                added = None if COVERS in payload else line["epsilon"]
                line["added"] = spent.get(ON_BOTH, added)
                line["enforced"] = sites[name].disclosure == "institution"
                lines.setdefault(name, []).append(line)
    return {name: _together(lines[name]) for name in sorted(lines)}


def _together(lines: Sequence[Private]) -> Private:
    """Return a site's spending over its repeats, each of which adds to what its ledger had before the first."""
    largest = {key: _most([line[key] for line in lines]) for key in ("steps", "epsilon", "delta")}
    known = [line["budget"] for line in lines if line["budget"] is not None]
    # The latest repeat's: a policy may have changed between two of them.
    before, added = lines[0]["spent-before"], [line["added"] for line in lines]
    after = None
    if before is not None and None not in added:
        after = before + math.fsum(added)
        # A site that enforces its budget answers nothing beyond it.
        after = min(after, max(before, *known)) if known and lines[-1]["enforced"] else after
    rest = {"budget": known[-1] if known else None, "spent-before": before, "spent-after": after}
    return {key: (largest | rest)[key] for key in SPENT}


def _most(values: Sequence[Any]) -> Any:
    return max((value for value in values if value is not None), default=None)


def standing(
    privacy: Private, audit: Audit, *, attackable: bool = True, only: str | None = None
) -> tuple[Standing, str]:
    """Return how the promise stands against measurements, with a sentence.

    A promise is not good because it was made: "within the promise" needs a figure of every site that
    spent, in every repeat, none beyond the promise, and none of which nothing is known. `attackable` is
    whether the run has come to a model. What is read by the people of `only` one site is never
    "within the promise": they do not see what was measured at others.
    """
    # An attack that beat the promise goes before all else, even where the record has no promise.
    beyond = [line for line in audit if line.verdict == BEYOND]
    if beyond:
        places = listed(dict.fromkeys(place_of(line) for line in beyond))
        return "beyond the promise", f"Attacks got further than was promised: {places}. Do not rely on the promise."
    if privacy["mechanism"] is None:
        return "not recorded", f"Nothing is known of a promise: {privacy['reason']}."
    if privacy["epsilon"] is None:
        measured = ": what attacks reached is covered by nothing" if audit else ""
        advice = " `flfed audit RUN` measures what attacks reach." if attackable and not audit and only is None else ""
        return "nothing promised", f"No privacy was promised{measured}.{advice}"
    if privacy["unit"] == "site":
        return "promised, not measured", WHOLE_SITES
    others = "" if only is None else f" {HIDDEN}"
    within = [line for line in audit if line.verdict == WITHIN and line.value is not None]
    if not within:
        how = "attack this run's model with `flfed audit RUN`" if attackable else "the run has no model to attack"
        if COVERS in privacy:
            how = "what an attack reaches would leave beside what is charged"
        said = f"Promised, but not measured: {how}." if only is None else "Promised, but not measured at your site."
        return "promised, not measured", said + others
    # A figure over all sites, of no site by name, stands for every one of them.
    runs, sites = {line.run for line in within}, {line.site for line in within}
    missing = [] if None in sites else [site for site in privacy["sites"] if site not in sites]
    if missing or len(runs) < privacy["repeats"]:
        where = f"at {listed(missing)}" if missing else f"in {privacy['repeats'] - len(runs)} of the repeats"
        return "measured in part", f"No attack got beyond the promise, but none was tried {where}.{others}"
    unknown = listed(dict.fromkeys(place_of(line) for line in audit if line.verdict == NOT_KNOWN))
    if unknown:
        said = f"No attack is known to be beyond the promise, but nothing is known of {unknown}."
        return "measured in part", said + others
    # People of one site cannot know whether the promise held at the others.
    if only is not None:
        return "within, at your site", f"No attack that was tried at your site got beyond the promise.{others}"
    return "within the promise", "Promised, and no attack that was tried got beyond it; that is no proof."


def listed(names: Iterable[str]) -> str:
    """Return a few names, and how many more there are.

    Examples
    --------
    >>> listed(["a", "b"]), listed("abcdefghij")
    ('a, b', 'a, b, c, d, e, f, g, h and 2 more')
    """
    found = list(names)
    more = f" and {len(found) - NAMED_AT_MOST} more" if len(found) > NAMED_AT_MOST else ""
    return ", ".join(found[:NAMED_AT_MOST]) + more


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
    known = value is not None and math.isfinite(value)
    return number(math.ceil(round(value * 100, 6)) / 100 if known and value is not None else None, 2)


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


def counted(privacy: Private) -> str:
    """Return what noise is counted in: answers, steps or rounds."""
    return "answers" if privacy.get(ONE_ANSWER) else "rounds" if privacy["unit"] == "site" else "steps"


def how_often(privacy: Private) -> str:
    """Return over what a guarantee holds."""
    if privacy.get(ONE_ANSWER):
        return "for one answer of each site, all numbers of it together"
    if COVERS in privacy:
        return f"for all that leaves a site of its rows: noised counts and all {privacy['steps']} steps of training"
    return f"over all {privacy['steps']} {counted(privacy)} of the run"


def bound_in_words(privacy: Private) -> str:
    """Return ε and δ of a promise, with its condition."""
    given = GIVEN if privacy["given-encoder"] else ""
    return f"ε = {epsilon_in_words(privacy['epsilon'])} at δ = {power_of_ten(privacy['delta'])}{given}"


def given_the_encoder(unit: str) -> str:
    """Return what a promise to one `unit` leaves out, given the encoder.

    Examples
    --------
    >>> given_the_encoder("site").split(". ")[1]
    'What one site changes through them is not in that ε, and can be more than it'
    """
    return (
        "Given the encoder: the means and deviations by which all rows are scaled are exact sums over the rows. What "
        f"one {unit} changes through them is not in that ε, and can be more than it. A study with [encode] scaler = "
        '"schema" takes them from the schema instead, where no row has a say.'
    )


def promise_in_words(privacy: Private) -> list[str]:
    """Return what a run promises, sentence by sentence."""
    if privacy["mechanism"] is None:
        return [f"Privacy: not known; {privacy['reason']}."]
    if privacy["mechanism"] == "none":
        nothing = "No privacy mechanism: the run promises nothing. Whoever sees a site's"
        learns = "updates can learn about its rows; `flfed audit RUN` measures how much."
        # A statistic has no updates, and no model that could be attacked.
        if privacy.get(TRAINED) is False:
            learns = "sums can learn about its rows."
        return [f"{nothing} {learns}", *sums_in_words(privacy)]
    # A mechanism without noise has no ε to tell.
    if privacy["epsilon"] is None:
        nothing = f"{privacy['mechanism']} promises nothing: there is no noise that an ε would follow from."
        return [nothing, *sums_in_words(privacy)]
    unit = privacy["unit"]
    lines = [
        f"Promised to each {unit} by {privacy['mechanism']}: {bound_in_words(privacy)}, {how_often(privacy)}.",
        odds_in_words(
            unit,
            privacy["epsilon"],
            trusts_server=privacy.get("trusts-server") is not False,
            counts=bool(privacy.get(ONE_ANSWER)),
            summed=(privacy.get(SUMS) or {}).get("kind", "off") != "off",
            covers=COVERS in privacy,
        ),
        *(accounts_in_words(unit, privacy["kept-back"]) if COVERS in privacy else []),
    ]
    if privacy["given-encoder"]:
        lines.append(given_the_encoder(unit))
    if privacy["noise-from"] == "seed":
        lines.append(SIMULATED)
    elif unit != "site" and not privacy.get(ONE_ANSWER):
        lines.append(DRAWN_ONCE)
    if privacy["repeats"] > 1:
        spent = epsilon_in_words(privacy["epsilon-of-repeats"])
        lines.append(
            f"The promise is of one run. Each of the {privacy['repeats']} repeats spends again: together at most "
            f"ε = {spent} at δ = {power_of_ten(privacy['delta-of-repeats'])} for a {unit} that is in all of them."
        )
    return lines + sums_in_words(privacy)


def spending_in_words(privacy: Private) -> list[str]:
    """Return what the sites spent, in one line where alike."""
    spent = {site: line for site, line in privacy["sites"].items() if line["epsilon"] is not None}
    alike = {(line["steps"], line["epsilon"], line["budget"], of_all_studies(line)) for line in spent.values()}
    # Research sites that a study cuts out of a table have no ledger, and the promise of whole sites is in none.
    both = [BOTH_SIDES] if COVERS in privacy else []
    total = [*both, THE_SITES_OWN, *([SENT_AGAIN] if privacy.get(ONE_ANSWER) else [])]
    total = total if any(line["spent-before"] is not None for line in spent.values()) else []
    if not spent:
        return []
    if len(alike) == 1:
        where = "At its one site" if len(spent) == 1 else f"At each of {len(spent)} sites"
        return [f"{where}: {_spending(next(iter(spent.values())), privacy)}.", *total]
    lines = [f"At {site}: {_spending(line, privacy)}." for site, line in list(spent.items())[:NAMED_AT_MOST]]
    more = len(spent) - len(lines)
    return [*lines, *([f"And at {more} more sites: see `--json`, or the page Privacy."] if more else []), *total]


def of_all_studies(line: Private) -> tuple[float | None, str]:
    """Return a bound of a site's ε over all studies.

    It is that of its ledger after the run, as a number and in words. It is None where it is not known.

    What the run adds to the ledger is added to what the site said was spent before: that is more than the accountant
    makes of both, as far as they are of the same δ. The sum itself only the site can tell.
    """
    total = line["spent-after"]
    return total, "not known" if total is None else f"at most {epsilon_in_words(total)}"


def _spending(line: Private, privacy: Private) -> str:
    planned = privacy["steps"]
    times = f"{line['steps']} {counted(privacy)}"
    times = "one answer" if times == "1 answers" else f"{times} and the noised counts" if COVERS in privacy else times
    said = f"this run ε = {epsilon_in_words(line['epsilon'])} for {times}"
    # Rounds done again spend again, so a site may have more steps than were planned.
    if planned is not None and line["steps"] > planned:
        why = "" if privacy.get(ONE_ANSWER) else ", since rounds were done again"
        said += f", more than the {planned} planned{why}"
    total, in_all = of_all_studies(line)
    if line["spent-before"] is not None:
        before = epsilon_in_words(line["spent-before"])
        after = "how much it has with it, ask the site" if total is None else f"has {in_all} with it"
        said += f"; its ledger had ε = {before} before, and {after}"
    return said + (
        f", of a budget of {number(line['budget'], 2)}" if line["budget"] is not None else ", without a budget"
    )


def in_words(privacy: Private, audit: Audit, *, attackable: bool = True) -> list[str]:
    """Return the privacy part of `flfed run show`."""
    lines = [*promise_in_words(privacy), *spending_in_words(privacy)]
    lines += [f"Warning: {said}" for said in privacy["warnings"]]
    first = headlines(audit)
    more = len(audit) - len(first)
    told = [*audit_in_words(first), *([f"{more} more figures: see `--json`, or the page Privacy."] if more else [])]
    told.append(standing(privacy, audit, attackable=attackable)[1])
    measured = [*told, *unpromised_in_words(len(privacy["uncharged"]), audit)]
    # Where nothing was promised nor measured, the first sentence has said so.
    return [*lines, *measured] if audit or privacy["epsilon"] is not None else lines


def not_covered(privacy: Private) -> list[str]:
    """Return what left or steered the run outside any promise."""
    return list(privacy["uncharged"])
