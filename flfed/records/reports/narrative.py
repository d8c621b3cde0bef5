"""Narrative of a report: sentences and a table.

They tell the mean gain, who gains, the verdicts, and what went wrong. The glossary says what the words of pages,
reports and commands mean; docs/glossary.md has the same list, which a test compares.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from flfed.records.objects import FigureReport, figure_of, read_figure, run_of, site_of
from flfed.records.reports.faults import (
    fault_kind,
    missing_in_words,
    refused_sites,
    some,
    taking_part_in_words,
)
from flfed.records.reports.report import AGAIN, arms_shown, primary_of
from flfed.records.reports.site_verdict import (
    apart_in_words,
    best_arm,
    best_gain,
    code_of_mean,
    mean_gain_in_words,
    no_interval,
    site_verdict,
    too_few,
    worthwhile_at,
)
from flfed.records.statistics import Report
from flfed.records.statistics.noised_scores import (
    GAIN_NOT_RELEASED,
    covered_rows,
    own_under_noise,
    released,
    scores_in_words,
)
from flfed.records.statistics.odd_sites import odd_sites_in_words
from flfed.records.statistics.own_models import naive_in_words, own_models_in_words, own_parts_in_words, pooled_in_words
from flfed.records.statistics.score_curves import ranks_in_words
from flfed.records.statistics.training_state import (
    TRAINED_TEST_ROWS,
    trained_rows_in_words,
    training_in_words,
    unknown_training,
)
from flfed.records.statistics.verdict import (
    ABSENT,
    ARM_NAMES,
    DO_NOT_USE,
    INCONCLUSIVE,
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
    metric_name,
    name_interval,
    number,
    sentence_case,
    shown,
    size_and_span,
)
from flfed.refusals import read

MOST_LEAKING = 3
"""Columns that a headline names."""
GAIN = "gain (+ is better), "
"""How the head of the column of gains begins; the name of their intervals follows."""
SHORT = {"global": "shared", "personalised": "adjusted"}
"""Short names of arms in the cells of a table."""
MARK = " *"
"""Behind the gain of a shared model adjusted to the site, which is the better one there."""
ADJUSTED = f"{MARK.strip()}: of the shared model adjusted to the site."
COLUMNS = {"global": "shared model", "local-only": "site model", "personalised": "adjusted to site"}
_OVER_ALL = {"global": "all test rows, shared model", "personalised": "all test rows, adjusted to each site"}
_ADJUSTED = {"global": "personalised", "sites-mean": "personalised-sites-mean"}


def comparison_rows(report: Report, metric: str | None = None) -> tuple[list[str], list[list[str]], list[str]]:
    """Return the comparison as headers, rows and footer lines.

    All of it is plain text without markup.

    Parameters
    ----------
    report : dict
        From `report`.
    metric : str
        Which one; the study's primary unless given.
    """
    metric = metric or primary_of(report)
    # A run that compared nothing says why, in place of a table.
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
    return (
        headers,
        [*rows, *_rows_over_all(report, metric, beside="personalised" in arms)],
        _below_table(report, metric),
    )


def _rows_over_all(report: Report, metric: str, *, beside: bool) -> list[list[str]]:
    """Return figures over all sites, which stand below the sites, each in its model's column.

    `beside` tells whether the adjusted model has a column.
    """
    rows = []
    for arm in ("global", "personalised", "sites-mean", "pooled", "pooled-same", "own-model-everywhere"):
        is_shown_elsewhere = arm == "personalised" and beside
        is_same = arm == "pooled-same" and is_pooled_itself(report, metric)
        if is_shown_elsewhere or is_same or not (report[arm] or {}).get(metric):
            continue
        label = _OVER_ALL.get(arm) or reference_name(report, arm)
        cells = [label, "", number(figure_of(report[arm], metric).value), ""]
        if beside:
            adjusted = (report.get(_ADJUSTED.get(arm, "")) or {}).get(metric)
            cells.append(number(read_figure(adjusted).value) if adjusted else "")
        rows.append([*cells, "", ""])
    return rows


def is_pooled_itself(report: Report, metric: str) -> bool:
    """Tell whether the pooled model of the study's kind is the best one itself, as it often is of a linear study."""
    run = run_of(report)
    return bool((run.pooled_same or {}).get(metric) == (run.pooled or {}).get(metric))


def _with_gains(
    report: Report, metric: str, headers: list[str], lines: list[list[str]]
) -> tuple[list[str], list[list[str]]]:
    """Return the table of noised figures with each site's gain and verdict, where these are known."""
    run = run_of(report)
    if not released(report).is_compared:
        return headers, lines
    gains_and_verdicts = [_gain_and_verdict(site, metric) for site in run.sites.values()]
    gains_and_verdicts += [["", ""]] * (len(lines) - len(gains_and_verdicts))
    headers = [*headers, GAIN + interval_name(report), "verdict"]
    return headers, [[*line, *more] for line, more in zip(lines, gains_and_verdicts, strict=True)]


def _gain_and_verdict(site: Report, metric: str) -> list[str]:
    return [gain_in_words(site, metric), describe_verdict(site_verdict(site, metric)[0], metric)]


def verdict_in_words(report: Report) -> list[str]:
    """Return the verdict on joining: on average, and at how many sites which.

    Of a run that compared nothing it is one sentence, with the reason.
    """
    run = run_of(report)
    metric = primary_of(report)
    if metric is not None and not released(report).is_compared:
        return [*_reach(report, metric), GAIN_NOT_RELEASED]
    if metric is not None:
        joining = (joining_in_words(report, metric), tally(report, metric))
        sentences = (*doubts(report, metric), *joining, *own_under_noise(report))
        return [sentence for sentence in sentences if sentence]
    verb = "ran" if run.status == "completed" else "kept"
    return [f"Nothing was compared: the run is {run.status}, with {_rounds(run.rounds)} {verb}{run.why}."]


def doubts(report: Report, metric: str) -> list[str]:
    """Return what goes before any verdict: few sites, columns that give the answer away, and too little training."""
    run = run_of(report)
    lines = taking_part_in_words(report)
    figure = figure_of(run.global_, metric).value
    leaking = run.leaking_columns
    if metric == "roc_auc_score" and leaking and figure is not None and number(figure) == number(1.0):
        columns = ", ".join(leaking[:MOST_LEAKING])
        if len(leaking) > MOST_LEAKING:
            columns += " and others"
        lines.append(f"The AUC is 1.000 because of columns that may give the answer away: {columns}.")
    if sentence := training_in_words(run.training):
        lines.append(sentence)
    return lines


def _below_table(report: Report, metric: str) -> list[str]:
    """Return what a table of sites and references does not say, each thing once."""
    run = run_of(report)
    best = []
    if stands_out(report, metric):
        best = _who_gains(report, metric)
    lines = [*missing_in_words(report), *_reach(report, metric)[:1], *scores_in_words(report), *best]
    between = figure_of(run.mean_gain, metric).between_sites_p
    own = (own_models_in_words(report), naive_in_words(list(run.sites.values()), metric), *own_under_noise(report))
    differing = ""
    if between is not None and between < UNLIKE:
        differing = apart_in_words(run.mean_gain[metric], adjusts=released(report).is_exact)
    sentences = (own_parts_in_words(report), *doubts(report, metric), unknown_training(run.training), *own, differing)
    lines += [sentence for sentence in sentences if sentence]
    if run.rule.sites > 1 and is_measured(report, metric):
        lines.append(
            f"Joining improves {metric_name(metric)} where the interval of the gain lies above "
            f"{least_gain(report, metric)}."
        )
    lines += [*odd_sites_in_words(report), *untold_in_words(report, metric), *unadjusted_in_words(report, metric)]
    for arm in ("sites-mean", "own-model-everywhere"):
        if sentence := over_sites(figure_of(report[arm], metric)):
            lines.append(f"{sentence_case(reference_name(report, arm))}: {sentence.strip(' ()')}.")
    # Who was refused stands in the first sentence.
    return [*lines, _course(report, None, refusals=not missing_in_words(report))]


def joining_in_words(report: Report, metric: str) -> str:
    """Return whether joining improves a metric on average, in one line.

    Examples
    --------
    >>> mean = {"value": 0.008, "low": -0.061, "high": 0.077, "sites": 3, "of": 4, "minimum-gain": 0.005}
    >>> joining_in_words({"mean-gain": {"roc_auc_score": mean}}, "roc_auc_score")
    'No clear improvement from joining: AUC +0.008 on average (95 % CI −0.061 to +0.077; 3 of 4 sites can be judged).'
    """
    entry = figure_of(run_of(report).mean_gain, metric)
    if entry.value is None:
        return ""
    gain = Difference(entry.value, entry.low, entry.high)
    code = code_of_mean(entry, entry.minimum_gain or 0.0)
    if code == INCONCLUSIVE and has_interval(gain):
        return ""
    says = {PAYS: "A clear improvement", DO_NOT_USE: "A clear loss"}.get(code, "No clear improvement")
    size, span = size_and_span(gain, entry.minimum_gain or 0.0)
    start = f"{says} from joining: {metric_name(metric)} {size} on average"
    if entry.sites < entry.of:
        span += f"; {entry.sites} of {entry.of} sites can be judged"
    return f"{start} (95 % CI {span})."


def ends_of(order: Sequence[str], most: int) -> list[str]:
    """Return the sites at both ends of an order, at most `most`."""
    if len(order) <= most:
        return [*order]
    half = most // 2
    return [*order[:half], *order[-half:]]


@dataclass(frozen=True)
class ForestLine:
    """One line of a forest plot.

    Attributes
    ----------
    site : str or None
        None of the mean.
    name : str
    value, low, high : float or None
        Gain, above 0 where joining is better, with the interval that the verdict goes by; None where not known.
    verdict : str
    rows, events : int or None
        Test rows, and those of them with the outcome.
    own, shared : float or None
        Figures of the two models.
    model : str
        "global" or "personalised": of which of them the gain is.
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
        return Difference(self.value, self.low, self.high)


def forest_lines(report: Report, metric: str, sites: Sequence[str]) -> list[ForestLine]:
    """Return the lines of a forest plot: a site each, the mean last."""
    run = run_of(report)
    lines = [_forest_line(name, run.sites[name], metric) for name in sites]
    mean = figure_of(run.mean_gain, metric)
    # The mean is of the shared model before adjustment, and of all sites, shown here or not.
    if mean.value is not None:
        verdict = code_of_mean(mean, mean.minimum_gain or 0.0)
        lines.append(ForestLine(None, f"Mean of {mean.sites} sites", mean.value, mean.low, mean.high, verdict))
    return lines


def _forest_line(name: str, site: Report, metric: str) -> ForestLine:
    """Return the line of one site."""
    here = site_of(site)
    arm, gain = best_arm(site, metric) or ("global", Difference(None))
    events = None if here.holdout_classes is None else here.holdout_classes["1"]
    return ForestLine(
        site=name,
        name=name,
        value=gain.value,
        low=gain.deciding.low,
        high=gain.deciding.high,
        verdict=site_verdict(site, metric)[0],
        rows=here.holdout_rows,
        events=events,
        own=figure_of(here.local_only, metric).value,
        shared=figure_of(site[arm], metric).value,
        model=arm,
    )


def untold_in_words(report: Report, metric: str) -> list[str]:
    """Return why the verdict is inconclusive at some sites: at the first one, and at how many more."""
    reasons = {name: too_few(site) or no_interval(site, metric) for name, site in run_of(report).sites.items()}
    untold = [(name, why) for name, why in reasons.items() if why]
    if not untold:
        return []
    (name, why), *others = untold
    more = f" The same holds at {len(others)} more." if others else ""
    return [f"Inconclusive at {name}: {why}.{more}"]


def unadjusted_in_words(report: Report, metric: str) -> list[str]:
    """Return why adjusted models have no column.

    There is no sentence where they have one.
    """
    if not released(report).is_exact or "personalised" in arms_shown(report, metric):
        return []
    same = f"Adjusted to a site, the shared model has the same {metric_name(metric)} there: it is not shown apart."
    return [f"{same} Over all test rows, ranked together, it may differ."]


def reference_name(report: Report, arm: str) -> str:
    """Return the plain name of a reference.

    The model of all rows together is named with its family.
    """
    name = ARM_NAMES[arm]
    if arm == "pooled" and (family := pooled_in_words(report)):
        return f"{name}: {family}"
    return name


GAPS = {"mean-with-gaps": "site that has no such figure", "mean-without-one-class": "model that saw one class"}
"""What a mean over sites may lack, by the code of its method."""


def over_sites(figure: FigureReport) -> str:
    """Return over which sites a mean was taken.

    It goes behind the mean's name, where some sites had no figure.

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
    """Return the better arm's gain in words.

    It has its interval, and which arm it is: "+0.110 (+0.020 to +0.190), adjusted".
    """
    best = best_arm(site, metric)
    if best is None:
        return ABSENT
    arm, gain = best
    return f"{gain_in_brackets(gain, worthwhile_at(site, metric))}, {SHORT[arm]}"


def story(report: Report, *, metric: str | None = None, planned: int | None = None) -> list[str]:
    """Return the story of a run in a few sentences.

    They tell the figure, who gains, the verdicts, and what went wrong.
    """
    run = run_of(report)
    metric = metric or primary_of(report)
    if metric is None:
        return [*missing_in_words(report), *odd_sites_in_words(report), _course(report, planned)]
    lines = [*missing_in_words(report), *doubts(report, metric)]
    lines += [*trained_rows_in_words(report.get(TRAINED_TEST_ROWS)), *_reach(report, metric)]
    lines += [*scores_in_words(report), *ranks_in_words(report)]
    lines += [*_who_gains(report, metric), *headline(report, metric)]
    lines += own_under_noise(report)
    naive = naive_in_words(list(run.sites.values()), metric)
    differing = apart_in_words(run.mean_gain.get(metric), adjusts=released(report).is_exact)
    sentences = (
        own_parts_in_words(report),
        unknown_training(run.training),
        own_models_in_words(report),
        naive,
        differing,
    )
    lines += [sentence for sentence in sentences if sentence]
    return [*lines, *odd_sites_in_words(report), _course(report, planned)]


def headline(report: Report, metric: str) -> list[str]:
    """Return the mean gain over sites, and the verdicts' tally."""
    mean = mean_gain_in_words(run_of(report).mean_gain.get(metric), metric, adjusts=released(report).is_exact)
    return [sentence for sentence in (mean, tally(report, metric)) if sentence]


def _reach(report: Report, metric: str) -> list[str]:
    """Return the shared model's figure and the references'."""
    run = run_of(report)
    entry = figure_of(run.global_, metric)
    name = metric_name(metric)
    if entry.value is None:
        return [f"The shared model's {name} over all sites is not known: {entry.reason}."]
    remarks = "; ".join(under(entry, run.repeats))
    line = f"The shared model reaches {name} {number(entry.value)}"
    if remarks:
        line += f" ({remarks})"
    lines = [f"{line}, on the test rows of all sites together ({better_of(metric)} is better)."]
    pooled = pooled_in_words(report)
    if pooled:
        pooled = f"; {pooled}"
    # Each reference is told by how far it is from the shared model.
    for arm, start in (
        ("pooled", f"Training on all rows in one place (pooled, for reference only{pooled}) would reach"),
        ("pooled-same", "A model of the shared one's own kind, trained there, would reach"),
        ("own-model-everywhere", "A site's model used at all sites would reach, on average over sites,"),
    ):
        other = figure_of(report[arm], metric).value
        if other is not None and not (arm == "pooled-same" and is_pooled_itself(report, metric)):
            lines.append(f"{start} {number(other)}: {apart(other, entry.value, metric)}.")
    return lines


def under(entry: Report | FigureReport, repeats: int) -> list[str]:
    """Return what goes with a model's figure.

    That is its interval, and of what, or how the figure came about without one.

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
        of = "of one of them, " if parts else ""
        parts.append(f"{of}95 % CI {interval(figure.low, figure.high)}")
    elif figure.method:
        parts.append(f"no interval: {figure.method}")
    if figure.bound is not None:
        parts.append(f"within {bound_of(entry)}, as scores are counted in bins")
    return parts


def bound_of(entry: Report | FigureReport) -> str:
    """Return a binned figure's largest error, rounded up.

    The error is against the figure of the rows themselves.

    Examples
    --------
    >>> bound_of({"value": 0.9, "bound": 0.0031})
    "0.004 of the rows' own"
    """
    bound = read_figure(entry).bound or 0.0
    return f"{number(math.ceil(bound * 1000 - 1e-9) / 1000)} of the rows' own"


def apart(other: float, shared: float, metric: str) -> str:
    """Return how far a reference is from the shared model.

    It is text, such as "0.004 better than the shared model".
    """
    digits = decimals_of(other, shared)  # the two as they are shown: their difference must be that of what is read
    gain = gain_of(Difference(round(other, digits) - round(shared, digits)), better_of(metric)).value or 0.0
    if not float(f"{gain:.{digits}f}"):
        return "the same as the shared model"
    return f"{better_or_worse(gain, digits)} than the shared model"


def stands_out(report: Report, metric: str) -> tuple[str, Difference] | None:
    """Return the site with the largest clear gain, and the gain.

    Only sites with a clear gain count; None where there is none.

    Its interval is the one that the verdict goes by.
    """
    paying = []
    for name, site in run_of(report).sites.items():
        best = best_gain(site, metric)
        if best is not None and site_verdict(site, metric)[0] == PAYS:
            paying.append((name, best.deciding))
    return max(paying, key=lambda gain: gain[1].value or 0.0, default=None)


def interval_name(report: Report) -> str:
    """Return the name of the intervals behind a report's verdicts.

    Examples
    --------
    >>> interval_name({"verdict-rule": {"sites": 4}}), interval_name({"verdict-rule": {"sites": 1}})
    ('95 % CI, widened for 4 sites', '95 % CI')
    """
    return name_interval(run_of(report).rule.sites)


def least_gain(report: Report, metric: str) -> str:
    """Return the gain above which joining is worthwhile.

    It is text, such as "0" or "0.005".
    """
    return format_as_written(run_of(report).rule.minimum_gain[metric])


def is_measured(report: Report, metric: str) -> bool:
    """Tell whether any site's gain has an interval."""
    return any(has_interval(best_gain(site, metric)) for site in run_of(report).sites.values())


def _who_gains(report: Report, metric: str) -> list[str]:
    """Return the site with the largest clear gain, or that there is none."""
    run = run_of(report)
    best = stands_out(report, metric)
    if best is not None:
        sentence = site_verdict(run.sites[best[0]], metric)[1]
        return [f"{best[0]} has the largest clear gain: {sentence}"]
    if len(run.sites) < 2 or not is_measured(report, metric):
        return []  # the verdict says it already
    least = least_gain(report, metric)
    name = metric_name(metric)
    return [f"At no site does joining improve {name}: no interval ({interval_name(report)}) lies above {least}."]


def tally(report: Report, metric: str) -> str:
    """Return how many sites got which verdict.

    Sites are named where they are few. Where no comparison leaves a site, that is said instead.
    """
    run = run_of(report)
    if not released(report).is_compared:
        return GAIN_NOT_RELEASED
    by_code: dict[str, list[str]] = {code: [] for code in VERDICTS}
    for name, site in run.sites.items():
        by_code[site_verdict(site, metric)[0]].append(name)
    parts = []
    for code, names in by_code.items():
        # The number of sites that gain is shown even where it is 0.
        if names or code == PAYS:
            part = f"{describe_verdict(code, metric).removesuffix(' here')} at {len(names)}"
            if code == PAYS:
                part += f" of {len(run.sites)} sites"
            if 0 < len(names) <= 6:
                part += f" ({', '.join(names)})"
            parts.append(part)
    return f"{sentence_case('; '.join(parts))}."


def _course(report: Report, planned: int | None, *, refusals: bool = True) -> str:
    """Return how many rounds ran and what was set aside."""
    run = run_of(report)
    # Faults that are no update and no refusal are counted apart.
    kinds = Counter(map(fault_kind, run.faults))
    refused = refused_sites(report)
    line = f"{_rounds(planned or run.rounds)} ran"
    if planned:
        line = f"{run.rounds} of {line}"
    if run.repeats > 1:
        line += " in every repeat"
    line += f"; rejected updates: {kinds['update rejected']}"
    if refusals:
        line += f"; sites refused: {len(refused)}"
    if refusals and refused:
        line += f" ({some(refused)})"
    if kinds["fault"]:
        line += f"; other faults: {kinds['fault']}"
    return f"{line}."


def _rounds(count: int) -> str:
    return "1 round" if count == 1 else f"{count} rounds"


GLOSSARY = {
    "site": "An institution that takes part with rows of its own, such as a hospital or a bank.",
    "row": "One case in a site's table: a patient, a loan, a payment.",
    "test rows": "Rows of a site that no model was trained on. Every figure here is measured on them.",
    "shared model": "The model that all sites train together. No row leaves a site for it.",
    "site model": "What a site reaches with its own rows alone: the best model that it can tune on them.",
    "adjusted to the site": "The shared model, corrected with the site's own training rows.",
    "pooled": "A model of all rows in one place, for reference only: rows would have to leave the sites.",
    "gain": "The better of shared and adjusted model minus the site model. Above 0, joining helps.",
    "AUC": "How often the model ranks a row with the outcome above one without it: 0.5 is chance, 1 is always.",
    "95 % CI": "Confidence interval: the range that the test rows leave open for a figure, 95 times of 100.",
    "widened": "The interval of a gain is made wider where several sites are looked at: some gain by chance alone.",
    "joining improves AUC": "The interval of the gain lies above what is worthwhile; so for any other metric.",
    "no clear improvement": "The interval leaves open that joining brings nothing, or less than what is worthwhile.",
    "do not use it here": "The interval lies below 0, beyond what is worthwhile: the site model is better.",
    "inconclusive": "Too few test rows, or too few with the outcome, to compare models at this site.",
    "calibration": "Whether predicted probabilities hold: of rows given 0.3, three in ten have the outcome.",
    "net benefit": "True alarms minus false ones, weighed by the threshold, for each row: what acting on alarms gains.",
    "round": "Every site trains on its rows, and the updates are averaged; of boosted trees, one tree grows from sums.",
    "update": "How a site's training changed the model. It leaves the site; rows do not.",
    "rejected update": "An update that was not averaged, as it was damaged, out of bounds or late.",
    "refused": "A site that did not take part, as its policy or its table did not allow it.",
    "secure aggregation": "Updates are masked and added up: the coordinator gets their sum, and no single update.",
    "pinned": "A site whose gate's fingerprint was read to another's people, who named it when they approved.",
    "list": "The sites that one secure sum adds up. A site opens one list for one question.",
    "repeat": "The same study once more with another seed and, on open data, other test rows.",
    "ε (epsilon)": "How much a run may tell about one person's row at most; less is more private.",
    "policy": "A site's rules on what may leave it, such as the smallest count that it gives.",
}
"""Meaning by term, in the order in which a reader meets them."""
OF_EXACT_COUNTS = ("adjusted to the site", "pooled", "net benefit")
"""Terms that only a study has whose models are compared on exact counts."""
OF_COMPARISON = (
    "site model", "gain", "widened", "joining improves AUC", "no clear improvement", "do not use it here",
    "inconclusive",
)  # fmt: skip
UNDER_NOISE = {
    "site model": "What a site reaches with its own rows alone, trained under the same ε as the shared model.",
    "gain": "The shared model minus the site model. Above 0, joining helps.",
    "inconclusive": "The noise, or too few test rows, leave open more than a difference of 0.1 at this site.",
}
"""What terms mean where the comparison has noise."""
WITHOUT_MODEL = ("site", "row", "refused", "repeat", "ε (epsilon)", "policy")
"""Terms that say something of a study which trains nothing."""


def of_noised_scores(*, compared: bool) -> dict[str, str]:
    """Return the glossary of a study of which all that leaves is charged; `compared` with own models, or not.

    Examples
    --------
    >>> "AUC" in of_noised_scores(compared=False), "gain" in of_noised_scores(compared=False)
    (True, False)
    >>> of_noised_scores(compared=True)["gain"]
    'The shared model minus the site model. Above 0, joining helps.'
    """
    left_out = {*OF_EXACT_COUNTS}
    if not compared:
        left_out.update(OF_COMPARISON)
    return {term: UNDER_NOISE.get(term, meaning) for term, meaning in GLOSSARY.items() if term not in left_out}


def of_no_model() -> dict[str, str]:
    """Return the glossary of a study without a model.

    Examples
    --------
    >>> of_no_model()["row"]
    "One case in a site's table: a patient, a loan, a payment."
    """
    return {term: GLOSSARY[term] for term in WITHOUT_MODEL}


def glossary_of(report: Report, *, trains: bool) -> dict[str, str]:
    """Return the glossary of a run; `trains` tells whether its study has a model."""
    leaves = released(report)
    if not leaves.is_exact:
        return of_noised_scores(compared=leaves.is_compared)
    return GLOSSARY if trains else of_no_model()
