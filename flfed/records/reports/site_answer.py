"""Answer at one site: should it join, and what that rests on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from flfed.records.objects import figure_of, read, run_of, site_of
from flfed.records.reports.narrative import gain_in_words, interval_name
from flfed.records.reports.report import OWN_COLUMNS, STARTED
from flfed.records.reports.site_verdict import (
    DIFFERENCES,
    SITE_ARMS,
    best_arm,
    best_gain,
    class_words,
    mean_gain_in_words,
    own_in_words,
    site_verdict,
    varies,
    worthwhile_at,
)
from flfed.records.statistics import Report
from flfed.records.statistics.noised_scores import (
    TRAINED_ON,
    released,
    scores_in_words,
    trained_on,
)
from flfed.records.statistics.own_models import SAME, naive_in_words, own_parts_in_words, rival_in_words
from flfed.records.statistics.training_state import trained_at_site
from flfed.records.statistics.verdict import (
    ABSENT,
    DO_NOT_USE,
    INCONCLUSIVE,
    NO_CLEAR_GAIN,
    PAYS,
    Difference,
    better_of,
    better_or_worse,
    decimals_for,
    describe_verdict,
    has_interval,
    interval,
    metric_name,
    number,
    sentence_case,
    shown,
)
from flfed.records.store.entries import SiteEntry
from flfed.study.tables import in_sums_only

FEW_HOLDOUT_ROWS = 100
"""Below so many test rows, of the rarer class where both are counted, an interval is wide: of 100 rows a share of
one half is known to within 0.10."""
SHOULD = {
    PAYS: "Yes: joining improves {name} at {site}.",
    NO_CLEAR_GAIN: "No clear improvement at {site}: these rows leave open anything from {span}.",
    DO_NOT_USE: "No: do not use the shared model at {site}.",
}
"""The answer to "should this site join?" by its verdict."""
MODELS = {"global": "Shared model", "local-only": "Site model", "personalised": "Adjusted to site"}
"""The columns of the table, by arm."""
MEANING = (
    "A 95 % CI is the range that these test rows leave open; that of the gain is widened for the number of sites "
    "looked at. Where it contains 0, joining may as well bring nothing."
)
COSTS = (
    "Whether it is worth it depends on what joining costs as well: page Privacy says what this run promises about a "
    "person's rows, and what left."
)
TOGETHER = (
    "Over all test rows together a model is credited for telling the sites apart, too; what a site gains by joining is "
    "measured within each site."
)
NO_MORE = (
    "It does not show what the model would do next year, at a site that took no part, or to care: only how well each "
    "model ranks or predicts the outcomes of these test rows."
)


def should_it_join(report: Report, site: str, metric: str) -> str:
    """Return the answer to whether a site should join."""
    of_site = run_of(report).sites[site]
    if not released(report).is_compared:
        return f"Whether joining improves {metric_name(metric)} at {site} is not released."
    code, _ = site_verdict(of_site, metric)
    answer = SHOULD.get(code, "Inconclusive at {site}.")
    return answer.format(site=site, name=metric_name(metric), span=_worse_to_better(of_site, metric))


def _worse_to_better(of_site: Report, metric: str) -> str:
    """Return the deciding interval of a gain in words.

    An empty text without one.
    """
    best = best_gain(of_site, metric)
    if best is None or not has_interval(best):
        return ""
    deciding = best.deciding
    digits = decimals_for(deciding, worthwhile_at(of_site, metric))
    return " to ".join(better_or_worse(bound or 0.0, digits) for bound in (deciding.low, deciding.high))


def describe_missing_figures(report: Report, sites: Sequence[SiteEntry], site: str) -> str:
    """Return why one site's people see no figures.

    The text is "" where it is as for all sites.
    """
    # A site may have refused, or share sums only; else it is as for all sites.
    entry = next((entry for entry in sites if entry.site == site), None)
    if entry is not None and entry.status == "refused":
        return f"{site} did not take part in this run: {entry.reason.rstrip('.')}."
    if entry is not None and in_sums_only(entry.shared_as) and run_of(report).status == "completed":
        return f"{site} shares its figures in sums over all sites only: the record has none of its own."
    return ""


def own_figures(report: Report, sites: Sequence[SiteEntry]) -> list[str]:
    """Return the sites that have figures of their own.

    Sites that share sums only have none.
    """
    hidden = {site.site for site in sites if in_sums_only(site.shared_as)}
    return sorted(set(run_of(report).sites) - hidden)


def rests_on(report: Report, site: str, metric: str) -> list[str]:
    """Return what a site's figures rest on.

    It also says what they do not show.

    Parameters
    ----------
    report : dict
        From `reports.report`.
    site, metric : str
    """
    run = run_of(report)
    of_site = run.sites[site]
    how = released(report)
    if not how.is_exact:
        compared = [MEANING] if how.is_compared else []
        return [*compared, *_of_noise(report, site), COSTS, NO_MORE]
    lines = []
    if best_gain(of_site, metric) is not None:
        lines.append(MEANING)
    lines += _test_rows(of_site, metric, run.repeats)
    before = run.trained_test_rows or {}
    lines += [*trained_at_site(run.trained_test_rows, site), own_parts_in_words(report)]
    lines += [*_own_model(of_site, metric), naive_in_words([of_site], metric)]
    lines += _began_with(of_site, metric, unknown=site not in before.get("sites", {}))
    if run.repeats > 1:
        lines.append(_two_intervals(of_site, metric))
    lines.append(mean_gain_in_words(run.mean_gain.get(metric), metric))
    # The two are measured on other rows, so that a comparison of them would mislead.
    if figure_of(run.pooled, metric).value is not None:
        lines.append(
            "A model of all rows in one place (pooled) is measured on all test rows together, not at one site: compare "
            f"it with the shared model's {number(figure_of(run.global_, metric).value)} there, not with this site's."
        )
    return [sentence for sentence in (*lines, COSTS, NO_MORE) if sentence]


def _test_rows(of_site: Report, metric: str, repeats: int) -> list[str]:
    """Return on which rows a site's figures were measured; of a site that keeps its counts back nothing is said."""
    here = site_of(of_site)
    if here.holdout_rows is None:
        return []
    count = f"{here.holdout_rows} of its {here.rows} rows"
    # A holdout that is drawn anew may have another size in each repeat.
    if varies(of_site):
        least, most = here.holdout_rows_range
        count = f"about {count} ({least} to {most}, drawn anew)"
    over = ""
    if repeats > 1:
        over = f", in each of {repeats} repeats, of which every figure is the mean"
    measured = (
        f"Measured on the site's own test rows: {count}, on which this run trained no model{over}. "
        f"A {better_of(metric)} {metric_name(metric)} is better."
    )
    return [measured, *_few(of_site)]


def _of_noise(report: Report, site: str) -> list[str]:
    """Return what figures of noised counts rest on."""
    run = run_of(report)
    over = ""
    if run.repeats > 1:
        over = f" Every figure is the mean of {run.repeats} repeats, each with noise of its own."
    about = f"{trained_on(run.sites[site])} {run.privacy['unit']}s"
    return [
        "Measured on the site's own test rows, on which this run trained no model, by noised counts: how many these "
        f"are does not leave the site. It trained on about {about}, by a noised count.{over}",
        *scores_in_words(report, site),
    ]


def _began_with(of_site: Report, metric: str, *, unknown: bool) -> list[str]:
    """Return how the model does that the run began with, as it is and fitted to the site's own rows.

    `unknown` tells that nobody has counted the test rows that it was trained on.
    """
    values = [figure_of(of_site.get(arm), metric).value for arm in STARTED]
    if None in values:
        return []
    as_it_is, tuned = map(number, values)
    line = (
        f"The model that the run began with reaches {as_it_is} here as it is, and {tuned} where the site draws it to "
        "its own rows without the others."
    )
    if unknown:
        line += " If this site took part in that earlier run with other test rows, they are too good."
    return [line]


def _own_model(of_site: Report, metric: str) -> list[str]:
    """Return the kind of the site's own model.

    Where it differs from the shared one's, it also says how one of that kind does.
    """
    here = site_of(of_site)
    same = figure_of(here.local_only_same, metric).value
    if here.local_only_family == SAME:
        return _own_columns(of_site, metric)
    line = ": ".join(filter(None, (f"The site's own model is {rival_in_words([of_site])}", own_in_words(of_site))))
    line += "."
    if same is not None:
        line += f" One of the shared model's own kind, trained here, reaches {number(same)}."
    return [line, *_own_columns(of_site, metric)]


def _own_columns(of_site: Report, metric: str) -> list[str]:
    """Return what a site's own columns are for, where it has some."""
    if (of_site.get(OWN_COLUMNS) or {}).get(metric) is None:
        return []
    value = figure_of(of_site[OWN_COLUMNS], metric).value
    line = (
        "The model adjusted to this site is the shared model's score and, beside it, columns that only this site uses: "
        "they stay at the site."
    )
    if value is not None:
        line += f" Its own model with the same columns reaches {number(value)}."
    return [line]


def _two_intervals(of_site: Report, metric: str) -> str:
    """Return the meaning of the intervals under repeats."""
    best = best_arm(of_site, metric)
    key = DIFFERENCES[best is not None and best[0] == "personalised"]
    # Degrees of freedom are there only where repeats draw their own holdouts.
    if figure_of(of_site[key], metric).freedom is None:
        return (
            "Every interval is that of one typical repeat: on the same test rows, repeats tell nothing more about it."
        )
    return (
        "Behind a model's figure is the interval of one typical repeat. Behind the gain is that of the mean of all "
        "repeats, with room for the rows that their test rows have in common (Nadeau and Bengio)."
    )


def _few(of_site: Report) -> list[str]:
    """Return how many test rows have the outcome.

    It says so where that is counted, and whether these are few.
    """
    here = site_of(of_site)
    unseen = "a gain that matters may stay unseen"
    holdout = here.holdout_rows
    classes = here.holdout_classes
    # Without counts of the classes only the rows can be judged.
    if classes is None:
        few = holdout is not None and holdout < FEW_HOLDOUT_ROWS
        return [f"{holdout} test rows are few: {unseen}."] if few else []
    text = sentence_case(class_words(of_site))
    if min(classes.values()) < FEW_HOLDOUT_ROWS:
        text += f": few, so {unseen}"
    return [f"{text}."]


def left_out(sites: Sequence[SiteEntry]) -> list[str]:
    """Return which sites have no line, and why."""
    refused = [f"{site.site}: {site.reason.rstrip('.')}" for site in sites if site.status == "refused"]
    # A site in sums only took part, and so is not named among those that refused.
    hidden = [site.site for site in sites if site.status != "refused" and in_sums_only(site.shared_as)]
    lines = []
    if refused:
        lines.append(f"Refused to take part: {'; '.join(refused)}.")
    if hidden:
        lines.append(f"In sums over all sites only, as they share no figures of their own: {', '.join(hidden)}.")
    return lines


@dataclass(frozen=True)
class SummedFigures:
    """Figures of sites that share none of their own, over all of these sites: by metric and arm."""

    sites: int = 0
    holdout_rows: int | None = None
    figures: dict[str, dict[str, float | None]] = field(default_factory=dict)
    auc_bounds: Any = None


def together(report: Report, metric: str) -> list[str]:
    """Return the figures of sites that share none of their own, over all of these sites; none without a sum."""
    run = run_of(report)
    summed = read(SummedFigures, run.sums_only or {})
    if not summed.figures:
        return []
    # A metric that cannot be added up has another one in its place.
    shown_metric = metric if metric in summed.figures else next(iter(summed.figures))
    models = {"global": "shared model", "local-only": "each site's own model", "personalised": "adjusted to each site"}
    values = ", ".join(f"{models[arm]} {number(value)}" for arm, value in summed.figures[shown_metric].items())
    name = metric_name(shown_metric)
    if shown_metric == "roc_auc_score" and summed.auc_bounds:
        low, high = summed.auc_bounds
        name += f" (from counts, so between {number(low)} and {number(high)})"
    alone = ""
    if run.repeats > 1:
        alone = " in the first repeat that has it"
    return [
        f"{summed.sites} sites together, which share no figures of their own, on {summed.holdout_rows} test "
        f"rows{alone}: {name}: {values}. It came as one sum, and tells of none of them by itself."
    ]


def site_line(report: Report, name: str, metric: str, arms: Sequence[str] = SITE_ARMS) -> dict[str, str]:
    """Return a site's line in the table of all sites."""
    site = run_of(report).sites[name]
    here = site_of(site)
    how = released(report)
    rows = f"{shown(here.holdout_rows)} / {shown(here.rows)}"
    start = {"Site": name, "Test / all rows": rows}
    if not how.is_exact:
        start = {"Site": name, TRAINED_ON.capitalize(): trained_on(site)}
    cells = {}
    for arm in arms:
        figure = figure_of(site[arm], metric)
        span = f" ({interval(figure.low, figure.high)})"
        cells[MODELS[arm]] = ABSENT
        if figure.value is not None:
            cells[MODELS[arm]] = number(figure.value) + _unbroken(span)
    if not how.is_compared:
        return start | cells
    gain = {f"Gain, + is better ({interval_name(report)})": _unbroken(gain_in_words(site, metric))}
    return start | cells | gain | {"Verdict": describe_verdict(site_verdict(site, metric)[0], metric)}


def untold_at(report: Report, metric: str, sites: Sequence[str]) -> list[str]:
    """Return why the verdict is inconclusive at some of these sites, a sentence each."""
    if not released(report).is_compared:
        return []  # it is so at every site, and told once
    verdicts = {site: site_verdict(run_of(report).sites[site], metric) for site in sites}
    return [f"{site}: {why}" for site, (code, why) in verdicts.items() if code == INCONCLUSIVE]


def _unbroken(text: str) -> str:
    """Return text with unbroken brackets.

    The part in brackets stays on one line of a table.
    """
    before, bracket, after = text.partition(" (")
    return before + bracket + after.replace(" ", "\u00a0")


def order_of_sites(report: Report, metric: str) -> list[str]:
    """Return the sites by gain.

    The largest gain comes first. Sites without figures come last.
    """
    run = run_of(report)
    if not released(report).is_compared:
        return sorted(run.sites)
    places = {}
    for name, site in run.sites.items():
        gain = best_gain(site, metric) or Difference(-math.inf)
        places[name] = -(gain.value or 0.0)
    return sorted(places, key=places.__getitem__)
