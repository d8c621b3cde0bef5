"""Narrative of a report, in sentences and a table: mean gain, who gains, verdicts and faults; and the glossary."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from flfed.records.objects import FigureReport, figure_of, read_figure, run_of, site_of
from flfed.records.reports import site_verdict as verdicts
from flfed.records.reports.faults import (
    fault_kind,
    missing_in_words,
    name_columns,
    refused_sites,
    some,
    taking_part_in_words,
)
from flfed.records.reports.report import AGAIN, arms_shown, primary_of
from flfed.records.statistics import Report
from flfed.records.statistics.noised_scores import (
    covered_rows,
    released,
    scores_in_words,
    uncompared_in_words,
)
from flfed.records.statistics.odd_sites import odd_sites_in_words
from flfed.records.statistics.own_models import (
    naive_in_words,
    own_models_in_words,
    own_parts_in_words,
    parties_in_words,
    pooled_in_words,
)
from flfed.records.statistics.training_state import (
    WARM_START,
    seen_in_words,
    training_in_words,
    unknown_training,
)
from flfed.records.statistics.verdict import (
    ABSENT,
    ARM_NAMES,
    DO_NOT_USE,
    INCONCLUSIVE,
    NO_CLEAR_GAIN,
    PAYS,
    UNLIKE,
    VERDICTS,
    Difference,
    better_of,
    better_or_worse,
    decimals_of,
    describe_verdict,
    format_as_written,
    gain_in_brackets,
    gain_of,
    has_interval,
    interval,
    may_be_chance,
    metric_name,
    name_interval,
    number,
    sentence_case,
    shown,
    size_and_span,
    why_unclear,
)
from flfed.refusals import read
from flfed.words import counted, render, sentences

GAIN = "gain (+ is better), "
"""How the head of the column of gains begins; the name of their intervals follows."""
SHORT = {"global": "shared", "personalised": "adjusted"}
"""Short names of arms in the cells of a table."""
MARK = " *"
"""Behind the gain of a shared model adjusted to the site, where that is the better one."""
COLUMNS = {"global": "shared model", "local-only": "site model", "personalised": "adjusted to site"}
_OVER_ALL = {"global": "all test rows, shared model", "personalised": "all test rows, adjusted to each site"}
_ADJUSTED = {"global": "personalised", "sites-mean": "personalised-sites-mean"}


def comparison_rows(report: Report, metric: str | None = None) -> tuple[list[str], list[list[str]], list[str]]:
    """Return the comparison as headers, rows and footer lines, in plain text.

    Parameters
    ----------
    report : dict
        From `report`.
    metric : str
        By default the study's primary one.
    """
    metric = metric or primary_of(report)
    # A run that compared nothing has the reason in place of a table.
    if metric is None:
        return [], [], [*missing_in_words(report), *verdict_in_words(report), *odd_sites_in_words(report)]
    if not released(report).is_exact:
        headers, lines = covered_rows(report, metric)
        return *_with_gains(report, metric, headers, lines), _below_table(report, metric)
    arms = arms_shown(report, metric)
    rows = []
    headers = ["site", "test rows", *(COLUMNS[arm] for arm in arms), GAIN + interval_name(report), "verdict"]
    # A site's line has its figures as they are, its gain and its verdict.
    for name, site in run_of(report).sites.items():
        cells = [number(figure_of(site[arm], metric).value) for arm in arms]
        rows.append([name, shown(site_of(site).holdout_rows), *cells, *_gain_and_verdict(site, metric)])
    # The figures of parties stand in the line of the one with the outcome.
    if not run_of(report).is_of_parties:
        rows += _rows_over_all(report, metric, beside="personalised" in arms)
    return headers, rows, _below_table(report, metric)


def _rows_over_all(report: Report, metric: str, *, beside: bool) -> list[list[str]]:
    """Return the figures over all sites, each in its model's column.

    `beside` is whether the adjusted model has a column.
    """
    rows = []
    for arm in ("global", "personalised", "sites-mean", "pooled", "pooled-same", "own-model-everywhere"):
        is_shown_elsewhere = arm == "personalised" and beside
        is_same = arm == "pooled-same" and are_equal(report, metric, arm, "pooled")
        if is_shown_elsewhere or is_same or not (report[arm] or {}).get(metric):
            continue
        label = _OVER_ALL.get(arm) or reference_name(report, arm)
        cells = [label, "", number(figure_of(report[arm], metric).value), ""]
        if beside:
            adjusted = (report.get(_ADJUSTED.get(arm, "")) or {}).get(metric)
            cells.append(number(read_figure(adjusted).value) if adjusted else "")
        rows.append([*cells, "", ""])
    return rows


def are_equal(report: Report, metric: str, one: str, other: str) -> bool:
    """Return whether two models have one figure over all sites, as the best pooled one of many linear studies."""
    return bool((report[one] or {}).get(metric) == (report[other] or {}).get(metric))


def _with_gains(
    report: Report, metric: str, headers: list[str], lines: list[list[str]]
) -> tuple[list[str], list[list[str]]]:
    """Return the table of figures with noise, with each site's gain and verdict where known."""
    if not released(report).is_compared:
        return headers, lines
    added = [_gain_and_verdict(site, metric) for site in run_of(report).sites.values()]
    added += [["", ""]] * (len(lines) - len(added))
    headers = [*headers, GAIN + interval_name(report), "verdict"]
    return headers, [[*line, *more] for line, more in zip(lines, added, strict=True)]


def _gain_and_verdict(site: Report, metric: str) -> list[str]:
    return [gain_in_words(site, metric), describe_verdict(verdicts.site_verdict(site, metric)[0], metric)]


def verdict_in_words(report: Report) -> list[str]:
    """Return the verdict on joining, on average and by site; of a run that compared nothing, the reason."""
    run = run_of(report)
    metric = primary_of(report)
    if metric is None:
        return [render("report.run.nothing", status=run.status, rounds=counted(run.rounds, "round"), why=run.why)]
    if not released(report).is_compared:
        return [*_reach(report, metric), uncompared_in_words(report)]
    joining = (joining_in_words(report, metric), tally(report, metric), describe_mean_beside_sites(report, metric))
    return list(filter(None, (*doubts(report, metric), *joining)))


def doubts(report: Report, metric: str) -> list[str]:
    """Return the doubts about any verdict: missing sites, columns that reveal the outcome, too little training.

    A mean gain that is clear stands, whatever more training would add.
    """
    run = run_of(report)
    lines = taking_part_in_words(report)
    figure = figure_of(run.global_, metric).value
    leaking = run.leaking_columns
    if metric == "roc_auc_score" and leaking and figure is not None and number(figure) == number(1.0):
        lines.append(render("report.run.leaks", columns=name_columns(leaking)))
    if not _describe_further_gain(report, metric):
        lines.append(training_in_words(run.training))
    return list(filter(None, lines))


def _describe_further_gain(report: Report, metric: str) -> str:
    """Return that more training may increase a mean gain that is clear already; "" elsewhere."""
    run = run_of(report)
    is_clear = verdicts.code_of_mean(figure_of(run.mean_gain, metric)) == PAYS
    return render("report.training.gains") if is_clear and training_in_words(run.training) else ""


def _below_table(report: Report, metric: str) -> list[str]:
    """Return the sentences below a table of sites and references."""
    run = run_of(report)
    missing = missing_in_words(report)
    lines = [*missing, *_reach(report, metric)[:1], *scores_in_words(report)]
    if stands_out(report, metric):
        lines += _who_gains(report, metric)
    lines += [
        own_parts_in_words(report),
        parties_in_words(report),
        *doubts(report, metric),
        unknown_training(run.training),
    ]
    lines.append(_describe_further_gain(report, metric))
    lines += [own_models_in_words(report), naive_in_words(list(run.sites.values()), metric)]
    between = figure_of(run.mean_gain, metric).between_sites_p
    if between is not None and between < UNLIKE:
        lines.append(verdicts.describe_spread(run.mean_gain[metric], adjusts=released(report).is_exact))
    if run.rule.sites > 1 and is_measured(report, metric):
        lines.append(render("report.run.rule", metric=metric_name(metric), least=least_gain(report, metric)))
    lines += [*odd_sites_in_words(report), *untold_in_words(report, metric), *unadjusted_in_words(report, metric)]
    for arm in ("sites-mean", "own-model-everywhere"):
        if sentence := over_sites(figure_of(report[arm], metric)):
            lines.append(f"{sentence_case(reference_name(report, arm))}: {sentence.strip(' ()')}.")
    # The first sentence names the sites that were refused.
    return list(filter(None, [*lines, course_in_words(report, None, refusals=not missing)]))


def joining_in_words(report: Report, metric: str) -> str:
    """Return the mean gain from joining, in one line that begins with the conclusion where it is clear.

    Examples
    --------
    >>> mean = {"value": 0.008, "low": -0.061, "high": 0.077, "sites": 3, "of": 4, "minimum-gain": 0.005}
    >>> joining_in_words({"mean-gain": {"roc_auc_score": mean}}, "roc_auc_score")
    'Mean gain from joining +0.008 in AUC (95 % CI −0.061 to +0.077; 3 of 4 sites can be judged): the interval \
contains 0, so this may be chance.'
    """
    entry = figure_of(run_of(report).mean_gain, metric)
    if entry.value is None:
        return ""
    gain = Difference.of(entry)
    code = verdicts.code_of_mean(entry)
    if code == INCONCLUSIVE and has_interval(gain):
        return ""
    size, span = size_and_span(gain, entry.minimum_gain or 0.0)
    if entry.sites < entry.of:
        span += f"; {entry.sites} of {entry.of} sites can be judged"
    facts = {"metric": metric_name(metric), "gain": size, "interval": span}
    if code == NO_CLEAR_GAIN:
        return render("report.run.unclear", reason=why_unclear(gain, entry.minimum_gain or 0.0), **facts)
    conclusion = {PAYS: "A clear improvement", DO_NOT_USE: "A clear loss"}.get(code, "No clear improvement")
    return render("report.run.joining", conclusion=conclusion, **facts)


def describe_mean_beside_sites(report: Report, metric: str) -> str:
    """Return why the mean gain is clear where no site's is, or the reverse; "" where mean and sites agree."""
    run = run_of(report)
    mean = figure_of(run.mean_gain, metric)
    gain = Difference.of(mean)
    code = verdicts.code_of_mean(mean)
    if code == INCONCLUSIVE or not is_measured(report, metric) or training_in_words(run.training):
        return ""
    codes = {verdicts.site_verdict(site, metric)[0] for site in run.sites.values()}
    is_clear_at_a_site = bool(codes & {PAYS, DO_NOT_USE})
    is_clear_on_average = not may_be_chance(gain)
    if is_clear_at_a_site == is_clear_on_average:
        return ""
    if is_clear_at_a_site:
        return render("report.mean.wider")
    repeats = f" in {run.repeats} repeats" if run.repeats > 1 else ""
    return render("report.mean.narrower", sites=mean.sites, repeats=repeats, widened=run.rule.sites)


@dataclass(frozen=True)
class ForestLine:
    """One line of a forest plot.

    Attributes
    ----------
    site : str or None
        None of the mean.
    name : str
    value, low, high : float or None
        Gain, above 0 where joining is better, with the interval of the verdict; None where not known.
    verdict : str
    rows, events : int or None
        Test rows, and those of them with the outcome.
    own, shared : float or None
        Figures of the two models.
    model : str
        "global" or "personalised": the arm of the gain.
    """

    site: str | None
    name: str
    value: float | None
    low: float | None
    high: float | None
    verdict: str
    rows: int | None = None
    events: int | None = None
    own: float | None = None
    shared: float | None = None
    model: str = "global"

    @property
    def gain(self) -> Difference:
        """The gain with its interval."""
        return Difference.of(self)


def forest_lines(report: Report, metric: str, sites: Sequence[str]) -> list[ForestLine]:
    """Return the lines of a forest plot: a site each, the mean last."""
    run = run_of(report)
    lines = []
    for name in sites:
        site = run.sites[name]
        here = site_of(site)
        arm, gain = verdicts.best_arm(site, metric) or ("global", Difference(None))
        events = None if here.holdout_classes is None else here.holdout_classes["1"]
        figures = {"own": figure_of(here.local_only, metric).value, "shared": figure_of(site[arm], metric).value}
        ends = (gain.value, gain.deciding.low, gain.deciding.high)
        code = verdicts.site_verdict(site, metric)[0]
        lines.append(ForestLine(name, name, *ends, code, rows=here.holdout_rows, events=events, model=arm, **figures))
    mean = figure_of(run.mean_gain, metric)
    # The mean is of the shared model before adjustment, and of all sites, shown here or not.
    if mean.value is not None:
        verdict = verdicts.code_of_mean(mean)
        lines.append(ForestLine(None, f"Mean of {mean.sites} sites", mean.value, mean.low, mean.high, verdict))
    return lines


FEW_ROWS = "withheld: fewer than"
"""Beginning of the reason of a figure that a policy withholds because of few rows."""


def untold_in_words(report: Report, metric: str) -> list[str]:
    """Return why the verdict is inconclusive at some sites: at the first one, and at how many more."""
    if not released(report).trained:
        return []  # a validation has no verdict
    untold = []
    for name, site in run_of(report).sites.items():
        if why := verdicts.too_few(site) or verdicts.no_interval(site, metric):
            untold.append({"site": name, "reason": why})
    lines = [render("report.run.inconclusive", **facts) for facts in untold]
    if len(untold) > 1:
        lines = [render("report.run.others", others=len(untold) - 1, **untold[0])]
    few = [site for site in report["sites"].values() if figure_of(site["global"], metric).reason.startswith(FEW_ROWS)]
    # At institutions nobody has all tables, and each operator decides.
    if few and report["engine"] != "deployment":
        lines.append(render("report.run.withheld", sites=counted(len(few), "site")))
    return lines


def unadjusted_in_words(report: Report, metric: str) -> list[str]:
    """Return why adjusted models have no column, or nothing."""
    if not released(report).is_exact or run_of(report).is_of_parties or "personalised" in arms_shown(report, metric):
        return []
    same = render("report.run.unadjusted", metric=metric_name(metric))
    if are_equal(report, metric, *_OVER_ALL):
        return [same]
    return [f"{same} {render('report.run.reordered')}"]


def reference_name(report: Report, arm: str) -> str:
    """Return the name of a reference, of the pooled model with its family."""
    name = ARM_NAMES[arm]
    if arm == "pooled" and (family := pooled_in_words(report)):
        return f"{name}: {family}"
    return name


GAPS = {"mean-with-gaps": "site that has no such figure", "mean-without-one-class": "model that saw one class"}
"""Gaps in a mean over sites, by the code of its method."""


def over_sites(figure: FigureReport) -> str:
    """Return the sites of a mean, in brackets, where some had no figure; else "".

    Examples
    --------
    >>> over_sites(FigureReport(0.8, method="mean of 3 sites; 1 without this figure left out"))
    ' (mean of 3 sites; 1 without this figure left out)'
    """
    ways = figure.method.split(AGAIN)
    gaps = {method.code for way in ways if (method := read(way)) is not None} & GAPS.keys()
    if not gaps:
        return ""
    if len(ways) == 1:
        return f" ({figure.method})"
    return f" (in some repeats without a {GAPS[max(gaps)]})"


def gain_in_words(site: Report, metric: str) -> str:
    """Return the better arm's gain with interval and arm: "+0.110 (+0.020 to +0.190), adjusted"."""
    best = verdicts.best_arm(site, metric)
    if best is None:
        return ABSENT
    arm, gain = best
    return f"{gain_in_brackets(gain, verdicts.worthwhile_at(site, metric))}, {SHORT[arm]}"


def story(report: Report, *, metric: str | None = None, planned: int | None = None) -> list[str]:
    """Return the story of a run in a few sentences: the figure, who gains, the verdicts and the faults."""
    run = run_of(report)
    metric = metric or primary_of(report)
    missing = missing_in_words(report)
    if metric is None:
        return [*missing, *odd_sites_in_words(report), course_in_words(report, planned)]
    lines = [*missing, *doubts(report, metric), *seen_in_words(report.get(WARM_START))]
    lines += [*_reach(report, metric), *scores_in_words(report)]
    lines += [*_who_gains(report, metric), *headline(report, metric)]
    lines += [
        own_parts_in_words(report),
        parties_in_words(report),
        unknown_training(run.training),
        own_models_in_words(report),
    ]
    lines.append(naive_in_words(list(run.sites.values()), metric))
    lines.append(verdicts.describe_spread(run.mean_gain.get(metric), adjusts=released(report).is_exact))
    return list(filter(None, [*lines, *odd_sites_in_words(report), course_in_words(report, planned)]))


def headline(report: Report, metric: str) -> list[str]:
    """Return the mean gain over sites, and the verdicts' tally."""
    mean = verdicts.mean_gain_in_words(run_of(report).mean_gain.get(metric), metric, adjusts=released(report).is_exact)
    return list(filter(None, (mean, tally(report, metric), describe_mean_beside_sites(report, metric))))


def _reach(report: Report, metric: str) -> list[str]:
    """Return the shared model's figure and the references'."""
    run = run_of(report)
    entry, where = _reached(report, metric)
    name = metric_name(metric)
    if entry.value is None:
        return [render("report.reach.unknown", metric=name, reason=entry.reason)]
    figure = number(entry.value)
    remarks = "; ".join(under(entry, run.repeats))
    if remarks:
        figure += f" ({remarks})"
    facts = {"metric": name, "figure": figure, "better": better_of(metric), "where": where}
    key = "shared" if released(report).trained else "validated"
    lines = [render(f"report.reach.{key}", **facts)]
    family = pooled_in_words(report)
    if family:
        family = f"; {family}"
    for arm in ("pooled", "pooled-same", "own-model-everywhere"):
        other = figure_of(report[arm], metric).value
        if other is not None and not (arm == "pooled-same" and are_equal(report, metric, arm, "pooled")):
            distance = apart(other, entry.value, metric)
            lines.append(render(f"report.references.{arm}", figure=number(other), distance=distance, family=family))
    return lines


def _reached(report: Report, metric: str) -> tuple[FigureReport, str]:
    """Return the shared model's figure, and on whose test rows it is; of parties, those of the one with the outcome."""
    if run_of(report).is_of_parties:
        for site, of in run_of(report).sites.items():
            own = figure_of(site_of(of).global_, metric)
            if own.value is not None:
                return own, site
    return figure_of(run_of(report).global_, metric), "all sites together"


def under(entry: Report | FigureReport, repeats: int) -> list[str]:
    """Return the remarks on a model's figure: its interval, or how it came about without one.

    Under repeats the interval is the mean of the repeats' bounds: of one split, not of the mean.

    Examples
    --------
    >>> under({"low": 0.874, "high": 0.944}, 1), under({"low": 0.874, "high": 0.944}, 3)
    (['95 % CI 0.874 to 0.944'], ['mean of 3 repeats', 'of one of them, 95 % CI 0.874 to 0.944'])
    >>> under({"low": None, "high": None, "method": "mean over sites weighted by rows"}, 1)
    ['no interval: mean over sites weighted by rows']
    >>> under({"low": 0.874, "high": 0.944, "bound": 0.0031}, 1)[1]
    "within 0.004 of the rows' own, as scores are counted in bins"
    """
    figure = read_figure(entry)
    parts = [f"mean of {repeats} repeats"] if repeats > 1 else []
    if figure.low is not None and figure.high is not None:
        of = "of one of them, 95 % CI" if parts else "95 % CI"
        parts.append(f"{of} {interval(figure.low, figure.high)}")
    elif figure.method:
        parts.append(f"no interval: {figure.method}")
    if figure.bound is not None:
        parts.append(render("report.reach.binned", bound=bound_of(entry)))
    return parts


def bound_of(entry: Report | FigureReport) -> str:
    """Return the largest error of a binned figure against that of the rows themselves, rounded up.

    Examples
    --------
    >>> bound_of({"value": 0.9, "bound": 0.0031})
    "0.004 of the rows' own"
    """
    bound = read_figure(entry).bound or 0.0
    return f"{number(math.ceil(bound * 1000 - 1e-9) / 1000)} of the rows' own"


def apart(other: float, shared: float, metric: str) -> str:
    """Return how far a reference is from the shared model: "0.004 better than the shared model"."""
    digits = decimals_of(other, shared)  # the difference is that of the two figures as shown
    gain = gain_of(Difference(round(other, digits) - round(shared, digits)), better_of(metric)).value or 0.0
    if not float(f"{gain:.{digits}f}"):
        return "the same as the shared model"
    return f"{better_or_worse(gain, digits)} than the shared model"


def stands_out(report: Report, metric: str) -> tuple[str, Difference] | None:
    """Return the site with the largest clear gain, and the gain with the interval of the verdict, or None."""
    paying = []
    for name, site in run_of(report).sites.items():
        best = verdicts.best_gain(site, metric)
        if best is not None and verdicts.site_verdict(site, metric)[0] == PAYS:
            paying.append((name, best.deciding))
    return max(paying, key=lambda gain: gain[1].value or 0.0, default=None)


def interval_name(report: Report) -> str:
    """Return the name of the intervals of a report's verdicts.

    Examples
    --------
    >>> interval_name({"verdict-rule": {"sites": 4}}), interval_name({"verdict-rule": {"sites": 1}})
    ('95 % CI, widened for 4 sites', '95 % CI')
    """
    return name_interval(run_of(report).rule.sites)


def least_gain(report: Report, metric: str) -> str:
    """Return the gain above which joining is worthwhile, such as "0" or "0.005"."""
    return format_as_written(run_of(report).rule.minimum_gain[metric])


def is_measured(report: Report, metric: str) -> bool:
    """Return whether any site's gain has an interval."""
    return any(has_interval(verdicts.best_gain(site, metric)) for site in run_of(report).sites.values())


def _who_gains(report: Report, metric: str) -> list[str]:
    """Return the site with the largest clear gain, or that there is none."""
    run = run_of(report)
    best = stands_out(report, metric)
    if best is not None:
        sentence = verdicts.site_verdict(run.sites[best[0]], metric)[1]
        if run_of(report).is_of_parties:
            return [f"{best[0]}: {sentence}"]
        return [render("report.run.largest", site=best[0], verdict=sentence)]
    if len(run.sites) < 2 or not is_measured(report, metric):
        return []  # the verdict is enough
    name = metric_name(metric)
    return [render("report.run.nowhere", metric=name, name=interval_name(report), least=least_gain(report, metric))]


def tally(report: Report, metric: str) -> str:
    """Return the number of sites with each verdict, with their names where they are few.

    Where no comparison is released, the sentence is that.
    """
    run = run_of(report)
    if not released(report).is_compared:
        return uncompared_in_words(report)
    by_code: dict[str, list[str]] = {code: [] for code in VERDICTS}
    for name, site in run.sites.items():
        verdict = verdicts.site_verdict(site, metric)[0]
        by_code[verdict].append(name)
        if run_of(report).is_of_parties:
            return f"{sentence_case(describe_verdict(verdict, metric).removesuffix(' here'))} at {name}."
    # The number of sites that gain is shown even where it is 0; but where most are inconclusive, or the mean gain is
    # clear, "0" would read as no.
    first = PAYS
    is_clear = verdicts.code_of_mean(figure_of(run.mean_gain, metric)) == PAYS
    if not by_code[PAYS] and (is_clear or 2 * len(by_code[INCONCLUSIVE]) > len(run.sites)):
        first = max(by_code, key=lambda code: len(by_code[code]))
    parts = []
    for code in sorted(by_code, key=lambda code: code != first):
        names = by_code[code]
        if names or code == first:
            part = f"{describe_verdict(code, metric).removesuffix(' here')} at {len(names)}"
            if code == first:
                part += f" of {len(run.sites)} sites"
            if 0 < len(names) <= 6:
                part += f" ({', '.join(names)})"
            parts.append(part)
    return f"{sentence_case('; '.join(parts))}."


def course_in_words(report: Report, planned: int | None, *, refusals: bool = True) -> str:
    """Return how many rounds ran, and how many updates were rejected and sites refused."""
    run = run_of(report)
    # Faults that are no update and no refusal are counted apart.
    kinds = Counter(map(fault_kind, run.faults))
    refused = refused_sites(report)
    rounds = counted(planned or run.rounds, "round")
    if planned:
        rounds = f"{run.rounds} of {rounds}"
    rounds += " ran"
    if run_of(report).is_validation:
        rounds = render("report.validation.course")
    if run.repeats > 1:
        rounds += " in every repeat"
    parts = [rounds, f"rejected updates: {kinds['update rejected']}"]
    if refusals:
        names = f" ({some(refused)})" if refused else ""
        parts.append(f"sites refused: {len(refused)}{names}")
    if kinds["fault"]:
        parts.append(f"other faults: {kinds['fault']}")
    return f"{'; '.join(parts)}."


OF_EXACT_COUNTS = ("adjusted to the site", "pooled", "net benefit")
"""Terms of studies whose models are compared on exact counts."""
OF_COMPARISON = (
    "site model", "gain", "widened", "joining improves AUC", "no clear improvement", "do not use it here",
    "inconclusive",
)  # fmt: skip
WITHOUT_MODEL = ("site", "row", "refused", "repeat", "ε (epsilon)", "policy")
"""Terms of studies that train nothing."""


def glossary_under_noise() -> dict[str, str]:
    """Return the glossary of a study in which noise covers all releases.

    Examples
    --------
    >>> "AUC" in glossary_under_noise(), "gain" in glossary_under_noise()
    (True, False)
    """
    left_out = {*OF_EXACT_COUNTS, *OF_COMPARISON}
    terms = dict(sentences("glossary", "terms"))
    # A term keeps its place where it has another meaning under noise.
    terms |= sentences("glossary", "under-noise")
    return {term: meaning for term, meaning in terms.items() if term not in left_out}


def glossary_of(report: Report, *, trains: bool) -> dict[str, str]:
    """Return the glossary of a run, by term in reading order; `trains` is whether its study has a model."""
    releases = released(report)
    if not releases.is_exact:
        return glossary_under_noise()
    terms = dict(sentences("glossary", "terms"))
    return terms if trains else {term: terms[term] for term in WITHOUT_MODEL}
