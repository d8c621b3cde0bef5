"""Headlines of an audit, how each is written, and how a run's promise stands against them.

What attacks reached outside any guarantee is told here as well.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from flfed.records.reports.privacy import (
    PrivacyReport,
    PrivateFacts,
    listed,
    private_of,
    promise_in_words,
    spending_in_words,
)
from flfed.records.statistics.odd_sites import CHANCE
from flfed.records.statistics.verdict import metric_name, number, with_interval
from flfed.records.store.entries import Runs
from flfed.records.store.reader import RunReader
from flfed.study.tables import in_sums_only

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
        What is promised at most.
    verdict : str
    says : str
        What it means.
    method : str
    rows : int or None
    run, at : str
        Which repeat's model was attacked, and when it was written down.
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
    "summary-reconstruction": "share-given-away",
}
"""The one figure of an attack that is told first: chosen beforehand, for the larger of two would be too large.

Of an attack that is not listed it is the first by name."""
WITHIN = "within the promise"
BEYOND = "beyond the promise"
UNKNOWN_VERDICT = "not known"
NO_PROMISE = "no promise"
FIRST = (BEYOND, UNKNOWN_VERDICT, NO_PROMISE, WITHIN)
"""Verdicts, those that need a look first."""
VERDICTS = (BEYOND, UNKNOWN_VERDICT, WITHIN, NO_PROMISE)
"""In the order in which it is counted at how many sites each is so."""
GAPS = {"promise": None, "method": "", "rows": None, "verdict": NO_PROMISE, "says": ""}
"""What stands for what an attack did not tell."""
ALWAYS = FIRST[:2]
"""Verdicts of which every figure is told, headline or not."""
AT_BATCH = "-at-plan-batch"
FIGURE_NAMES = {
    "auc-of-lira": "training rows told from others (AUC)",
    "auc-of-loss": "training rows told by their loss (AUC)",
    "least-epsilon": "ε that the attack shows",
    "median-cosine": "median likeness (cosine)",
    "share-close": "share nearly recovered",
}
"""What people call the figures of attacks, where the name of the record says little."""
HIDDEN = "The figures of other sites are not shown to you: whether the promise held there, the coordinator can tell."
WHOLE_SITES = (
    "Promised to whole sites, which no attack here measures: `flfed audit RUN` attacks rows, and of a row nothing is "
    "promised."
)
VERDICTS_READ = (
    "A verdict goes by the interval's lower end: a figure is beyond the promise only where that end is, for a "
    "point over the promise may be chance. What an attack reached is a lower bound of what can be learned: a "
    "better attack may reach more, and being within the promise is no proof of it."
)
UNCOVERED = {
    "share-given-away": "the sums gave cells of {share} of the rows away exactly",
    "share-recovered": "the update of one step on a single row gave {share} of the rows tried away exactly",
    "least-epsilon": "what was trained has an ε of at least {value}",
}
"""What it means that an attack reached a figure, where no promise covers it."""


def headlines(audit: Audit) -> list[AuditFigure]:
    """Return the figures of an audit to tell first.

    Of each attack these are its headline, and all that are beyond a promise or not known.

    What needs a look stands first; of the same attack and figure the worst site.

    Examples
    --------
    >>> two = [AuditFigure("canaries", metric, 0.5, "no promise", "a", 0.5) for metric in ("coins", "least-epsilon")]
    >>> [line.metric for line in headlines(two)]
    ['least-epsilon']
    """
    metrics_by_attack: dict[str, set[str]] = {}
    for line in audit:
        metrics_by_attack.setdefault(line.attack, set()).add(line.metric)
    first = {attack: HEADLINES.get(attack, min(names)) for attack, names in metrics_by_attack.items()}
    return ordered([line for line in audit if line.metric == first[line.attack] or line.verdict in ALWAYS])


def ordered(lines: Audit) -> list[AuditFigure]:
    """Return figures in the order in which they need a look.

    They go by verdict, attack and figure, the worst site first.
    """
    return sorted(
        lines,
        key=lambda line: (
            FIRST.index(line.verdict),
            line.attack,
            line.metric,
            -_size(line),
            line.site or "",
        ),
    )


def _size(line: AuditFigure) -> float:
    """Return how far an attack got, for the order of sites.

    Without a figure, the most that it may be counts.
    """
    figures = (figure for figure in (line.value, line.high, line.low) if figure is not None)
    return next(figures, float("-inf"))


def by_figure(lines: Audit) -> list[list[AuditFigure]]:
    """Return figures grouped by attack, figure and verdict.

    The order of the figures is kept.
    """
    groups: dict[tuple[str, str, str], list[AuditFigure]] = {}
    for line in lines:
        groups.setdefault((line.attack, line.metric, line.verdict), []).append(line)
    return list(groups.values())


def figure_name(metric: str) -> str:
    """Return the plain name of an attack's figure.

    Examples
    --------
    >>> figure_name("auc-of-lira"), figure_name("median-cosine-at-plan-batch"), figure_name("roc_auc_score")
    ('training rows told from others (AUC)', "median likeness (cosine), in the plan's batches", 'AUC')
    """
    name, batch, _ = metric.partition(AT_BATCH)
    plain = FIGURE_NAMES.get(name) or re.sub(r"\bauc\b", "AUC", metric_name(name).replace("-", " "))
    if batch:
        plain += ", in the plan's batches"
    return plain


def place_of(line: AuditFigure) -> str:
    """Return which attack a figure is of, and where."""
    return " at ".join(filter(None, (line.attack, line.site)))


def audit_in_words(audit: Audit) -> list[str]:
    """Return what attacks reached, a line for each figure."""
    groups: dict[tuple[str, str], list[AuditFigure]] = {}
    for line in audit:
        groups.setdefault((line.attack, line.metric), []).append(line)
    return [_attack_in_words(lines) for lines in groups.values()]


def _attack_in_words(lines: Audit) -> str:
    """Return one figure of an attack, at one site or several."""
    first, values = lines[0], [line.value for line in lines if line.value is not None]
    bounds = [line.promise for line in lines if line.promise is not None]
    bound = "nothing is promised"
    if bounds:
        bound = f"promised: at most {number(max(bounds))}"
    if len(lines) == 1:
        return f"{place_of(first)}: {figure_name(first.metric)} {reached(first)}; {bound}: {first.verdict}."
    # Several sites get the range of their figures, as their intervals differ.
    got = range_of(values) if len(values) > 1 else reached(first)
    verdicts = Counter(line.verdict for line in lines)
    counted = ", ".join(f"{verdict} at {verdicts[verdict]}" for verdict in VERDICTS if verdicts[verdict])
    return f"{first.attack}: {figure_name(first.metric)} {got} at {len(lines)} sites; {bound}: {counted}."


def is_bound(line: AuditFigure) -> bool:
    """Tell whether a figure is a lower bound.

    A bound has no interval around it.
    """
    return line.value is not None and line.low == line.value and line.high is None


def reached(line: AuditFigure) -> str:
    """Return how far an attack got, in words.

    It is a figure with its 95 % interval, or a bound.

    Examples
    --------
    >>> reached(AuditFigure("a", "b", 0.6493, NO_PROMISE, low=0.6493))
    'at least 0.649'
    >>> [reached(AuditFigure("a", "b", *of)) for of in ((1.0, WITHIN, "c", 0.96, 1.0), (0.11, WITHIN))]
    ['1.000 (0.960 to 1.000)', '0.110']
    """
    if is_bound(line):
        return f"at least {number(line.value)}"
    return with_interval(line.value, line.low, line.high)


def range_of(values: Sequence[float]) -> str:
    """Return the smallest and the largest of some figures.

    One is written where both read alike.

    Examples
    --------
    >>> range_of([0.394, 0.627]), range_of([1.0, 1.0]), range_of([0.00001, 0.0])
    ('0.394 to 0.627', '1.000', '0.000')
    """
    ends = list(dict.fromkeys((number(min(values)), number(max(values)))))
    return " to ".join(ends)


def scale_of(metric: str) -> tuple[float, float] | None:
    """Return the range of a figure's possible values.

    It is None where there is no upper end.

    Examples
    --------
    >>> scale_of("share-given-away"), scale_of("roc_auc_score"), scale_of("median-cosine"), scale_of("least-epsilon")
    ((0.0, 1.0), (0.0, 1.0), (-1.0, 1.0), None)
    """
    words = set(re.split(r"[-_]", metric))
    if "cosine" in words:
        return -1.0, 1.0
    return (0.0, 1.0) if words & {"share", "auc"} else None


def gave_away(line: AuditFigure) -> bool:
    """Tell whether an attack succeeded outside any guarantee.

    It did so certainly, by the interval's lower end.

    A share is somewhere above none, an AUC above chance, and a bound of ε above 0.
    """
    if line.verdict != "no promise" or line.low is None:
        return False
    # Shares and bounds succeed above 0, an AUC above chance; others have no such mark.
    words = set(re.split(r"[-_]", line.metric))
    if words & {"share", "epsilon"}:
        return bool(line.low > 0)
    return "auc" in words and bool(line.low > CHANCE)


def share_in_words(value: float) -> str:
    """Return a share in percent, as people say it.

    Only all of it is 100 %.

    Examples
    --------
    >>> share_in_words(1.0), share_in_words(0.9996), share_in_words(0.02), share_in_words(0.0)
    ('100 %', '99.9 %', '2 %', '0 %')
    """
    percent = 100 * value
    if value != 1:
        percent = min(percent, 99.9)
    return f"{percent:.3g} %"


def not_promised(audit: Audit, *, only: str | None = None) -> list[str]:
    """Return sentences on attacks that no guarantee bounds.

    There is one for each headline where an attack got somewhere.

    `only` is the one site whose people read it, if so.
    """
    groups = by_figure([line for line in headlines(audit) if gave_away(line)])
    return [_uncovered(lines, audit, only) for lines in groups]


def _uncovered(lines: Audit, audit: Audit, only: str | None) -> str:
    worst, metric = lines[0], lines[0].metric
    # A site whose value is withheld still counts among those at which the attack succeeded.
    values = [line.value for line in lines if line.value is not None]
    tried = {line.site for line in audit if (line.attack, line.metric) == (worst.attack, metric)}
    sites = {line.site for line in lines}
    # A figure over all sites together has no number of sites.
    where = f"at {len(sites)} of {len(tried)} sites"
    if None in sites:
        where = "over all sites"
    if only is not None:
        where = "at your site"
    if not values:
        return f"{worst.attack} got somewhere {where}; the figure is withheld: no promise covers it."
    shares = [share_in_words(value) for value in (min(values), max(values))]
    share = " to ".join(dict.fromkeys(shares)).replace(" % to ", " to ")
    template = f"{figure_name(metric)} {{value}}"
    if "auc" in metric:
        template += ", where 0.5 is chance"
    reach = UNCOVERED.get(metric, template).format(share=share, value=range_of(values))
    what = "them" if metric.endswith("away") else "it"
    return f"{worst.attack}: {reach}, {where}: no promise covers {what}."


def unpromised_in_words(uncharged: int, audit: Audit, *, only: str | None = None, trained: bool = True) -> list[str]:
    """Return what no guarantee covers, and what attacks reached.

    There is always at least one sentence.

    Parameters
    ----------
    uncharged : int
        How many things leave the sites, or steer the run, outside the promise.
    audit : sequence of Line
    only : str, optional
        The one site whose people read it, and see the figures of no other.
    trained : bool
        Whether the run has a model that could be attacked, or can come to one.
    """
    sentences = not_promised(audit, only=only)
    # That no attack succeeded is told apart from no attack having been tried.
    if sentences:
        return sentences
    few = {0: "what else leaves the sites", 1: "one thing that leaves the sites, or steers the run"}
    things = few.get(uncharged, f"{uncharged} things that leave the sites, or steer the run")
    if not trained:
        return [f"No promise covers {things}."]
    tried = any(line.verdict == "no promise" and line.value is not None for line in audit)
    attack_outcome = (
        "no attack that was tried certainly got anywhere with them" if tried else "no attack was tried on them"
    )
    where = "" if only is None else " at your site"
    return [f"No promise covers {things}; {attack_outcome}{where}."]


def standing(
    privacy: PrivateFacts, audit: Audit, *, attackable: bool = True, only: str | None = None
) -> tuple[Standing, str]:
    """Return how the promise stands against measurements, with a sentence.

    A promise is not good because it was made: "within the promise" needs a figure of every site that
    spent, in every repeat, none beyond the promise, and none of which nothing is known. `attackable` is
    whether the run has come to a model. What is read by the people of `only` one site is never
    "within the promise": they do not see what was measured at others.
    """
    private = private_of(privacy)
    # An attack that beat the promise goes before all else, even where the record has no promise.
    beyond = [line for line in audit if line.verdict == BEYOND]
    if beyond:
        places = listed(dict.fromkeys(place_of(line) for line in beyond))
        return "beyond the promise", f"Attacks got further than was promised: {places}. Do not rely on the promise."
    if private.mechanism is None:
        return "not recorded", f"Nothing is known of a promise: {private.reason}."
    if private.epsilon is None:
        return "nothing promised", _nothing_promised(audit, is_advised=attackable and only is None)
    if private.unit == "site":
        return "promised, not measured", WHOLE_SITES
    return _measured(private, audit, attackable, only)


def _measured(privacy: PrivacyReport, audit: Audit, attackable: bool, only: str | None) -> tuple[Standing, str]:
    """Return how a promise to rows stands of which no attack got beyond."""
    others = "" if only is None else f" {HIDDEN}"
    within = [line for line in audit if line.verdict == WITHIN and line.value is not None]
    if not within:
        return "promised, not measured", _not_measured(privacy, attackable, only) + others
    part = _measured_in_part(privacy, within, audit)
    if part:
        return "measured in part", part + others
    # People of one site cannot know whether the promise held at the others.
    if only is not None:
        return "within, at your site", f"No attack that was tried at your site got beyond the promise.{others}"
    return "within the promise", "Promised, and no attack that was tried got beyond it; that is no proof."


def _nothing_promised(audit: Audit, *, is_advised: bool) -> str:
    if audit:
        return "No privacy was promised: what attacks reached is covered by nothing."
    advice = " `flfed audit RUN` measures what attacks reach." if is_advised else ""
    return f"No privacy was promised.{advice}"


def _not_measured(privacy: PrivacyReport, attackable: bool, only: str | None) -> str:
    """Return that no attack was measured against a promise, and how one can be."""
    if only is not None:
        return "Promised, but not measured at your site."
    how = "attack this run's model with `flfed audit RUN`" if attackable else "the run has no model to attack"
    if not privacy.is_exact:
        how = "what an attack reaches would leave beside what is charged"
    return f"Promised, but not measured: {how}."


def _measured_in_part(privacy: PrivacyReport, within: Audit, audit: Audit) -> str:
    """Return where nothing is known of a promise of which no attack got beyond, "" where all is known."""
    runs = {line.run for line in within}
    sites = {line.site for line in within}
    # A figure over all sites, of no site by name, stands for every one of them.
    missing = [] if None in sites else [site for site in privacy.sites if site not in sites]
    if missing:
        return f"No attack got beyond the promise, but none was tried at {listed(missing)}."
    if len(runs) < privacy.repeats:
        repeats = privacy.repeats - len(runs)
        return f"No attack got beyond the promise, but none was tried in {repeats} of the repeats."
    unknown = listed(dict.fromkeys(place_of(line) for line in audit if line.verdict == UNKNOWN_VERDICT))
    return f"No attack is known to be beyond the promise, but nothing is known of {unknown}." if unknown else ""


def in_words(privacy: PrivateFacts, audit: Audit, *, attackable: bool = True) -> list[str]:
    """Return the privacy part of `flfed run show`."""
    private = private_of(privacy)
    lines = [*promise_in_words(private), *spending_in_words(private)]
    lines += [f"Warning: {warning}" for warning in private.warnings]
    # Where nothing was promised nor measured, the first sentence has said so.
    if not audit and private.epsilon is None:
        return lines
    first = headlines(audit)
    lines += audit_in_words(first)
    more = len(audit) - len(first)
    if more:
        lines.append(f"{more} more figures: see `--json`, or the page Privacy.")
    lines.append(standing(private, audit, attackable=attackable)[1])
    return [*lines, *unpromised_in_words(len(private.uncharged), audit)]


def audit_of(reader: RunReader, runs: Runs) -> list[dict[str, Any]]:
    """Return the array `audit` of a run's report.

    It has the last figure of each attack, by run, attack, site and metric.

    Each has the keys of `flfed audit --json` (attack, site, metric, value, low, high, promise, method,
    rows, verdict, says, at), and `run`. A figure of a site that shares figures in sums only, or of a
    name that the record does not have, is left out.
    """
    rows = []
    for run, sites in runs:
        named_sites = {site for site, entry in sites.items() if not in_sums_only(entry.shared_as)}
        for entry in reader.audits(run.run):
            if entry.site is None or entry.site in named_sites:
                line = GAPS | entry.as_object() | {"run": run.run}
                # Without a lower limit a verdict is unknown.
                if line["verdict"] == WITHIN and entry.low is None:
                    line |= {"verdict": UNKNOWN_VERDICT}
                rows.append(line)
    return rows
