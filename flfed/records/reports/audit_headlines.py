"""Headlines of an audit, in words, and how a run's promise compares with them; also attacks outside any guarantee."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from flfed.records.reports import privacy as promises
from flfed.records.section import group
from flfed.records.statistics.odd_sites import CHANCE
from flfed.records.statistics.verdict import decimals_beside, metric_name, number, with_interval
from flfed.records.store.entries import Runs
from flfed.records.store.reader import RunReader
from flfed.words import render, sentences

Standing = Literal[
    "not recorded",
    "nothing promised",
    "promised, not measured",
    "measured in part",
    "within the promise",
    "beyond the promise",
]
"""How a promise compares with measurements; only "within the promise" is shown as green."""


@dataclass(frozen=True)
class AuditFigure:
    """One figure of an attack, as `flfed audit --json` has it.

    Attributes
    ----------
    attack, metric : str
    site : str or None
        None where the attack is not on one site.
    value, low, high : float or None
        The figure with its 95 % interval; a bound has no upper end.
    promise : float or None
        Largest value that the promise allows.
    verdict : str
    says : str
        Its meaning.
    method : str
    rows : int or None
    run, at : str
        The repeat whose model was attacked, and when it was recorded.
    """

    attack: str
    metric: str
    value: float | None
    verdict: str
    site: str | None = None
    low: float | None = None
    high: float | None = None
    promise: float | None = None
    says: str = ""
    method: str = ""
    rows: int | None = None
    run: str = ""
    at: str = ""


Audit = Sequence[AuditFigure]


HEADLINES = {
    "canaries": "least-epsilon",
    "gradient-inversion": "share-recovered",
    "membership-inference": "auc-of-lira",
}
"""The one figure of an attack that is shown first, chosen beforehand: the larger of two would be too large.

Of an attack that is not listed it is the first by name."""
WITHIN = "within the promise"
BEYOND = "beyond the promise"
UNKNOWN_VERDICT = "not known"
NO_PROMISE = "no promise"
FIRST = (BEYOND, UNKNOWN_VERDICT, NO_PROMISE, WITHIN)
"""Verdicts, those that need a look first."""
VERDICTS = (BEYOND, UNKNOWN_VERDICT, WITHIN, NO_PROMISE)
"""Verdicts, in the order in which their sites are counted."""
GAPS = {"promise": None, "method": "", "rows": None, "verdict": NO_PROMISE, "says": ""}
"""Values in place of the facts that an attack lacks."""
ALWAYS = FIRST[:2]
"""Verdicts of which every figure is shown, headline or not."""
AT_BATCH = "-at-plan-batch"


def headlines(audit: Audit) -> list[AuditFigure]:
    """Return the figures of an audit to show first.

    Of each attack these are its headline, and all that are beyond a promise or not known. Figures that need a look come
    first; of the same attack and figure the worst site.

    Examples
    --------
    >>> two = [AuditFigure("canaries", metric, 0.5, "no promise", "a", 0.5) for metric in ("coins", "least-epsilon")]
    >>> [line.metric for line in headlines(two)]
    ['least-epsilon']
    """
    metrics_by_attack = group((line.attack, line.metric) for line in audit)
    first = {attack: HEADLINES.get(attack, min(names)) for attack, names in metrics_by_attack.items()}
    return ordered([line for line in audit if line.metric == first[line.attack] or line.verdict in ALWAYS])


def ordered(lines: Audit) -> list[AuditFigure]:
    """Return figures in the order in which they need a look: by verdict, attack and figure, the worst site first."""

    def order(line: AuditFigure) -> tuple[Any, ...]:
        return FIRST.index(line.verdict), line.attack, line.metric, -_size(line), line.site or ""

    return sorted(lines, key=order)


def _size(line: AuditFigure) -> float:
    """Return how far an attack got, for the order of sites; without a figure, its largest bound."""
    figures = (figure for figure in (line.value, line.high, line.low) if figure is not None)
    return next(figures, float("-inf"))


def by_figure(lines: Audit) -> list[list[AuditFigure]]:
    """Return figures grouped by attack, figure and verdict, in their order."""
    return list(group(((line.attack, line.metric, line.verdict), line) for line in lines).values())


def figure_name(metric: str) -> str:
    """Return the name of an attack's figure.

    Examples
    --------
    >>> figure_name("auc-of-lira"), figure_name("median-cosine-at-plan-batch"), figure_name("roc_auc_score")
    ('training rows distinguished from others (AUC)', "median likeness (cosine), in the plan's batches", 'AUC')
    """
    name, batch, _ = metric.partition(AT_BATCH)
    plain = sentences("names", "attacks").get(name) or re.sub(r"\bauc\b", "AUC", metric_name(name).replace("-", " "))
    if batch:
        plain += ", in the plan's batches"
    return plain


def place_of(line: AuditFigure) -> str:
    """Return the attack of a figure, and its site."""
    return " at ".join(filter(None, (line.attack, line.site)))


def audit_in_words(audit: Audit) -> list[str]:
    """Return the results of attacks, a line for each figure."""
    groups = group(((line.attack, line.metric), line) for line in audit)
    return list(map(_attack_in_words, groups.values()))


def _attack_in_words(lines: Audit) -> str:
    """Return one figure of an attack, at one site or several."""
    first = lines[0]
    values = [line.value for line in lines if line.value is not None]
    bounded = [line for line in lines if line.promise is not None]
    bound = "nothing is promised"
    if bounded:
        bound = f"promised: at most {limit_in_words(max(bounded, key=lambda line: line.promise or 0.0))}"
    name = figure_name(first.metric)
    if len(lines) == 1:
        return f"{place_of(first)}: {name} {reached(first)}; {bound}: {first.verdict}."
    # Several sites get the range of their figures, as their intervals differ.
    got = range_of(values) if len(values) > 1 else reached(first)
    verdicts = Counter(line.verdict for line in lines)
    counted = ", ".join(f"{verdict} at {verdicts[verdict]}" for verdict in VERDICTS if verdicts[verdict])
    return f"{first.attack}: {name} {got} at {len(lines)} sites; {bound}: {counted}."


def reached(line: AuditFigure) -> str:
    """Return how far an attack got: a figure with its 95 % interval, or a bound.

    Examples
    --------
    >>> reached(AuditFigure("a", "b", 0.6493, NO_PROMISE, low=0.6493))
    'at least 0.649'
    >>> [reached(AuditFigure("a", "b", *of)) for of in ((1.0, WITHIN, "c", 0.96, 1.0), (0.11, WITHIN))]
    ['1.000 (0.960 to 1.000)', '0.110']
    """
    # A lower bound has no interval around it.
    if line.value is not None and line.low == line.value and line.high is None:
        return f"at least {number(line.value)}"
    return with_interval(line)


def limit_in_words(line: AuditFigure) -> str:
    """Return the largest value that the promise allows, an ε rounded up, or "nothing".

    Examples
    --------
    >>> figures = [AuditFigure("a", metric, 0.1, WITHIN, promise=2.3012) for metric in ("least-epsilon", "loss")]
    >>> [limit_in_words(line) for line in figures], limit_in_words(AuditFigure("a", "b", 0.1, NO_PROMISE))
    (['2.31', '2.30'], 'nothing')
    """
    if line.promise is None:
        return "nothing"
    return promises.epsilon_in_words(line.promise) if "epsilon" in line.metric else number(line.promise)


def range_of(values: Sequence[float]) -> str:
    """Return the smallest and the largest of some figures, one where both read alike.

    Examples
    --------
    >>> range_of([0.394, 0.627]), range_of([1.0, 1.0]), range_of([0.00001, 0.0])
    ('0.394 to 0.627', '1.000', '0.000')
    """
    return " to ".join(dict.fromkeys((number(min(values)), number(max(values)))))


def scale_of(metric: str) -> tuple[float, float] | None:
    """Return the range of a figure's possible values, None without an upper end.

    Examples
    --------
    >>> scale_of("share-recovered"), scale_of("roc_auc_score"), scale_of("median-cosine"), scale_of("least-epsilon")
    ((0.0, 1.0), (0.0, 1.0), (-1.0, 1.0), None)
    """
    words = set(re.split(r"[-_]", metric))
    if "cosine" in words:
        return -1.0, 1.0
    return (0.0, 1.0) if words & {"share", "auc"} else None


def gave_away(line: AuditFigure) -> bool:
    """Return whether an attack succeeded outside any guarantee, by the interval's lower end.

    Shares and bounds of ε are then above 0, an AUC above chance.
    """
    if line.verdict != "no promise" or line.low is None:
        return False
    words = set(re.split(r"[-_]", line.metric))
    if words & {"share", "epsilon"}:
        return bool(line.low > 0)
    return "auc" in words and bool(line.low > CHANCE)


def share_in_words(value: float) -> str:
    """Return a share in percent; only a whole is 100 %.

    Examples
    --------
    >>> share_in_words(1.0), share_in_words(0.9996), share_in_words(0.02), share_in_words(0.0002)
    ('100.0 %', '99.9 %', '2.0 %', '0.02 %')
    """
    percent = 100 * value
    if value != 1:
        percent = min(percent, 99.9)
    return f"{number(percent, decimals_beside((percent,), 1))} %"


def not_promised(audit: Audit) -> list[str]:
    """Return a sentence for each headline of an attack that succeeded and that no guarantee covers."""
    groups = by_figure([line for line in headlines(audit) if gave_away(line)])
    return [_uncovered(lines, audit) for lines in groups]


def _uncovered(lines: Audit, audit: Audit) -> str:
    worst = lines[0]
    metric = worst.metric
    # A site whose value is withheld still counts among those at which the attack succeeded.
    values = [line.value for line in lines if line.value is not None]
    tried = {line.site for line in audit if (line.attack, line.metric) == (worst.attack, metric)}
    sites = {line.site for line in lines}
    # A figure over all sites together has no number of sites.
    where = f"at {len(sites)} of {len(tried)} sites"
    if None in sites:
        where = "over all sites"
    if not values:
        return render("privacy.audit.withheld", attack=worst.attack, where=where)
    key = "of-chance" if "auc" in metric else "other"
    if metric in sentences("privacy", "uncovered"):
        key = metric
    shares = [share_in_words(value) for value in (min(values), max(values))]
    share = " to ".join(dict.fromkeys(shares)).replace(" % to ", " to ")
    facts = {"name": figure_name(metric), "value": range_of(values), "share": share}
    return render(f"privacy.uncovered.{key}", attack=worst.attack, where=where, **facts)


def unpromised_in_words(uncharged: int, audit: Audit, *, trained: bool = True) -> list[str]:
    """Return the releases that no guarantee covers, and the results of attacks, in one sentence or more.

    Parameters
    ----------
    uncharged : int
        Number of releases, or steps of the run, outside the promise.
    audit : sequence of Line
    trained : bool
        Whether the run has or can get a model that could be attacked.
    """
    lines = not_promised(audit)
    if lines:
        return lines
    few = {0: "other releases", 1: "one release or choice of the run"}
    releases = few.get(uncharged, f"{uncharged} releases or choices of the run")
    if not trained:
        return [render("privacy.audit.uncovered", releases=releases)]
    # An attack without success is not the same as no attack.
    if any(line.verdict == NO_PROMISE and line.value is not None for line in audit):
        return [render("privacy.audit.tried", releases=releases)]
    return [render("privacy.audit.untried", releases=releases)]


def standing(privacy: promises.PrivateFacts, audit: Audit, *, attackable: bool = True) -> tuple[Standing, str]:
    """Return how the promise compares with measurements, with a sentence.

    "within the promise" needs a figure of every site that spent, in every repeat, with none beyond the promise and none
    unknown. `attackable` is whether the run has a model.
    """
    private = promises.private_of(privacy)
    attackable = attackable and not private.parties
    # An attack that beat the promise goes before all else, even where the record has no promise.
    beyond = [line for line in audit if line.verdict == BEYOND]
    if beyond:
        places = promises.listed(dict.fromkeys(place_of(line) for line in beyond))
        return "beyond the promise", render("privacy.audit.beyond", places=places)
    if private.mechanism is None:
        return "not recorded", render("privacy.audit.unrecorded", reason=private.reason)
    if private.epsilon is None:
        key = "none"
        if audit:
            key = "none-measured"
        elif attackable:
            key = "none-advised"
        return "nothing promised", render(f"privacy.no-promise.{key}")
    if private.unit == "site":
        return "promised, not measured", render("privacy.audit.whole")
    return _measured(private, audit, attackable)


def _measured(privacy: promises.PrivacyReport, audit: Audit, attackable: bool) -> tuple[Standing, str]:
    """Return how a promise to rows compares with attacks, none of which got beyond it."""
    within = [line for line in audit if line.verdict == WITHIN and line.value is not None]
    if not within:
        key = "attackable" if attackable else "no-model"
        if not privacy.is_exact:
            key = "covered"
        return "promised, not measured", render(f"privacy.not-measured.{key}")
    part = _measured_in_part(privacy, within, audit)
    if part:
        return "measured in part", part
    return "within the promise", render("privacy.audit.within")


def _measured_in_part(privacy: promises.PrivacyReport, within: Audit, audit: Audit) -> str:
    """Return where a promise has no measurement, though no attack got beyond it; "" where all is measured."""
    runs = {line.run for line in within}
    sites = {line.site for line in within}
    # A figure over all sites, of no site by name, stands for every one of them.
    missing = [site for site in privacy.sites if site not in sites]
    if missing and None not in sites:
        return render("privacy.audit.sites", sites=promises.listed(missing))
    if len(runs) < privacy.repeats:
        return render("privacy.audit.repeats", repeats=privacy.repeats - len(runs))
    unknown = promises.listed(dict.fromkeys(place_of(line) for line in audit if line.verdict == UNKNOWN_VERDICT))
    return render("privacy.audit.unknown", places=unknown) if unknown else ""


def in_words(privacy: promises.PrivateFacts, audit: Audit, *, attackable: bool = True) -> list[str]:
    """Return the privacy part of `flfed run show`."""
    private = promises.private_of(privacy)
    lines = [*promises.promise_in_words(private), *promises.spending_in_words(private)]
    lines += [f"Warning: {warning}" for warning in private.warnings]
    # Without promise and measurement the first sentence is enough.
    if not audit and private.epsilon is None:
        return lines
    first = headlines(audit)
    lines += audit_in_words(first)
    more = len(audit) - len(first)
    if more:
        lines.append(render("privacy.audit.more", figures=more))
    lines.append(standing(private, audit, attackable=attackable)[1])
    return [*lines, *unpromised_in_words(len(private.uncharged), audit)]


def audit_of(reader: RunReader, runs: Runs) -> list[dict[str, Any]]:
    """Return the array `audit` of a run's report: the last figure of each attack, by run, site and metric.

    Each has the keys of `flfed audit --json` (attack, site, metric, value, low, high, promise, method, rows, verdict,
    says, at), and `run`. A figure of a name that the record does not have, is left out.
    """
    rows = []
    for run, sites in runs:
        for entry in reader.audits(run.run):
            if entry.site is None or entry.site in sites:
                line = GAPS | entry.as_object() | {"run": run.run}
                # Without a lower limit a verdict is unknown.
                if line["verdict"] == WITHIN and entry.low is None:
                    line |= {"verdict": UNKNOWN_VERDICT}
                rows.append(line)
    return rows
