"""Answer at one site: should it join, and what that rests on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from flfed.records.objects import figure_of, read, run_of, site_of
from flfed.records.reports import site_verdict as verdicts
from flfed.records.reports.narrative import COLUMNS, gain_in_words, interval_name
from flfed.records.reports.report import STARTED
from flfed.records.statistics import Report, verdict
from flfed.records.statistics.noised_scores import NOT_COMPARED, TRAINED_ON, released, scores_in_words, trained_on
from flfed.records.statistics.own_models import SAME, naive_in_words, own_parts_in_words, rival_in_words
from flfed.records.statistics.training_state import seen_in_words
from flfed.records.store.entries import SiteEntry
from flfed.words import render

FEW_HOLDOUT_ROWS = 100
"""Below so many test rows, of the rarer class where both are counted, an interval is wide."""
MODELS = {arm: verdict.sentence_case(name) for arm, name in COLUMNS.items()}
"""The columns of the table, by arm."""


def should_it_join(report: Report, site: str, metric: str) -> str:
    """Return the answer to whether a site should join."""
    of_site = run_of(report).sites[site]
    key = "not-released"
    if released(report).is_compared:
        key = verdicts.site_verdict(of_site, metric)[0].replace(" ", "-")
    span = _worse_to_better(of_site, metric)
    return render(f"report.answer.{key}", site=site, metric=verdict.metric_name(metric), span=span)


def _worse_to_better(of_site: Report, metric: str) -> str:
    """Return the deciding interval of a gain in words, "" without one."""
    best = verdicts.best_gain(of_site, metric)
    if best is None or not verdict.has_interval(best):
        return ""
    deciding = best.deciding
    digits = verdict.decimals_for(deciding, verdicts.worthwhile_at(of_site, metric))
    return " to ".join(verdict.better_or_worse(bound or 0.0, digits) for bound in (deciding.low, deciding.high))


def own_figures(report: Report) -> list[str]:
    """Return the sites that have figures of their own: none of a study that records one sum."""
    run = run_of(report)
    return [] if run.share == "sum" else sorted(run.sites)


def rests_on(report: Report, site: str, metric: str) -> list[str]:
    """Return the basis of a site's figures, and their limits.

    Parameters
    ----------
    report : dict
        From `reports.report`.
    site, metric : str
    """
    run = run_of(report)
    of_site = run.sites[site]
    how = released(report)
    limits = [render("report.site.costs"), render("report.site.limits")]
    if not how.is_exact:
        # Figures from counts with noise.
        lines = [render("report.site.meaning")] if how.is_compared else []
        lines.append(render("report.site.noise", about=f"{trained_on(of_site)} {run.privacy['unit']}s"))
        if run.repeats > 1:
            lines.append(render("report.site.repeats", repeats=run.repeats))
        return [*lines, *scores_in_words(report, site), *limits]
    lines = []
    if verdicts.best_gain(of_site, metric) is not None:
        lines.append(render("report.site.meaning"))
    lines += _describe_test_rows(of_site, metric, run.repeats)
    lines += [*seen_in_words(run.warm_start), own_parts_in_words(report)]
    lines += [*_own_model(of_site, metric), naive_in_words([of_site], metric)]
    lines += _began_with(of_site, metric)
    if run.repeats > 1:
        best = verdicts.best_arm(of_site, metric)
        key = verdicts.DIFFERENCES[best is not None and best[0] == "personalised"]
        # Degrees of freedom are there only where repeats draw their own holdouts.
        is_fixed = figure_of(of_site[key], metric).freedom is None
        intervals = render("report.site.fixed") if is_fixed else render("report.site.redrawn")
        lines.append(intervals)
    lines.append(verdicts.mean_gain_in_words(run.mean_gain.get(metric), metric))
    if figure_of(run.pooled, metric).value is not None:
        lines.append(render("report.site.pooled", figure=verdict.number(figure_of(run.global_, metric).value)))
    return list(filter(None, (*lines, *limits)))


def _describe_test_rows(of_site: Report, metric: str, repeats: int) -> list[str]:
    """Return the rows on which a site's figures were measured; nothing where their counts are suppressed."""
    here = site_of(of_site)
    if here.holdout_rows is None:
        return []
    count = f"{here.holdout_rows:,} of its {here.rows:,} rows"
    # A holdout that is drawn anew may have another size in each repeat.
    if verdicts.varies(of_site):
        least, most = here.holdout_rows_range
        count = f"about {count} ({least} to {most}, drawn anew)"
    facts = {"rows": count, "better": verdict.better_of(metric), "metric": verdict.metric_name(metric)}
    if repeats > 1:
        return [render("report.site.holdouts", repeats=repeats, **facts), *_few(of_site)]
    return [render("report.site.holdout", **facts), *_few(of_site)]


def started_at(report: Report, metric: str, sites: Sequence[str]) -> list[str]:
    """Return the figures of the run's starting model at each site that has them."""
    of_sites = run_of(report).sites
    return [f"{site}: {line}" for site in sites for line in _began_with(of_sites[site], metric)]


def _began_with(of_site: Report, metric: str) -> list[str]:
    """Return the figures of the run's starting model, as it is and adapted to the site's rows."""
    values = [figure_of(of_site.get(arm), metric).value for arm in STARTED]
    if None in values:
        return []
    as_it_is, tuned = map(verdict.number, values)
    return [render("report.site.started", figure=as_it_is, tuned=tuned)]


def _own_model(of_site: Report, metric: str) -> list[str]:
    """Return the kind of the site model, and the figure of one of the shared model's kind where these differ."""
    here = site_of(of_site)
    same = figure_of(here.local_only_same, metric).value
    if here.local_only_family == SAME:
        return []
    rival = ": ".join(filter(None, (rival_in_words([of_site]), verdicts.own_in_words(of_site))))
    lines = [render("report.site.own", model=rival)]
    if same is not None:
        lines.append(render("report.site.same", figure=verdict.number(same)))
    return lines


def _few(of_site: Report) -> list[str]:
    """Return how many test rows have the outcome, where counted, and whether they are few."""
    here = site_of(of_site)
    holdout = here.holdout_rows
    classes = here.holdout_classes
    # Without counts of the classes only the rows can be judged.
    if classes is None:
        few = holdout is not None and holdout < FEW_HOLDOUT_ROWS
        return [render("report.site.few", rows=holdout)] if few else []
    text = verdict.sentence_case(verdicts.class_words(of_site))
    if min(classes.values()) < FEW_HOLDOUT_ROWS:
        return [render("report.site.rare", rows=text)]
    return [f"{text}."]


def left_out(sites: Sequence[SiteEntry]) -> list[str]:
    """Return the sites that refused, and why."""
    refused = [f"{site.site}: {site.reason.rstrip('.')}" for site in sites if site.status == "refused"]
    return [render("report.site.refusals", sites="; ".join(refused))] if refused else []


@dataclass(frozen=True)
class SummedFigures:
    """Figures over all sites, of a study that records their sum, by metric and arm."""

    sites: int = 0
    holdout_rows: int | None = None
    figures: dict[str, dict[str, float | None]] = field(default_factory=dict)
    auc_bounds: Any = None


def together(report: Report, metric: str) -> list[str]:
    """Return the figures of a sum over all sites; none without one."""
    run = run_of(report)
    summed = read(SummedFigures, run.summed_figures)
    if not summed.figures:
        return []
    # A metric that cannot be added up has another one in its place.
    shown_metric = metric if metric in summed.figures else next(iter(summed.figures))
    models = {"global": "shared model", "local-only": "each site's own model"}
    values = ", ".join(f"{models[arm]} {verdict.number(value)}" for arm, value in summed.figures[shown_metric].items())
    name = verdict.metric_name(shown_metric)
    if shown_metric == "roc_auc_score" and summed.auc_bounds:
        low, high = summed.auc_bounds
        name = render("report.site.bounds", metric=name, low=verdict.number(low), high=verdict.number(high))
    facts = {"sites": summed.sites, "rows": summed.holdout_rows, "metric": name, "values": values}
    if run.repeats > 1:
        return [render("report.site.first", **facts)]
    return [render("report.site.summed", **facts)]


def site_line(report: Report, name: str, metric: str, arms: Sequence[str] = verdicts.SITE_ARMS) -> dict[str, str]:
    """Return a site's line in the table of all sites."""
    site = run_of(report).sites[name]
    here = site_of(site)
    how = released(report)
    rows = f"{verdict.shown(here.holdout_rows)} / {verdict.shown(here.rows)}"
    start = {"Site": name, "Test / all rows": rows}
    if not how.is_exact:
        start = {"Site": name, TRAINED_ON.capitalize(): trained_on(site)}
    cells = {}
    for arm in arms:
        cells[MODELS[arm]] = _unbroken(verdict.with_interval(figure_of(site[arm], metric)))
    if not how.is_compared:
        return start | cells
    gain = {f"Gain, + is better ({interval_name(report)})": _unbroken(gain_in_words(site, metric))}
    return start | cells | gain | {"Verdict": verdict.describe_verdict(verdicts.site_verdict(site, metric)[0], metric)}


def shared_with_verdict(of_site: Report, metric: str) -> str:
    """Return the shared model's figure at a site with the verdict, or why there is none."""
    figure = figure_of(site_of(of_site).global_, metric)
    if figure.value is None and not site_of(of_site).difference:
        return render("pages.runs.uncompared")
    shown = verdict.with_interval(figure)
    if NOT_COMPARED in of_site:
        return f"{shown}: not compared"
    return f"{shown}: {verdict.describe_verdict(verdicts.site_verdict(of_site, metric)[0], metric)}"


def untold_at(report: Report, metric: str, sites: Sequence[str]) -> list[str]:
    """Return why the verdict is inconclusive at some of these sites, a sentence each."""
    if not released(report).is_compared:
        return []  # one sentence for all sites is enough
    codes_and_reasons = {site: verdicts.site_verdict(run_of(report).sites[site], metric) for site in sites}
    return [f"{site}: {why}" for site, (code, why) in codes_and_reasons.items() if code == verdict.INCONCLUSIVE]


def _unbroken(text: str) -> str:
    """Return text whose part in brackets stays on one line of a table."""
    before, bracket, after = text.partition(" (")
    return before + bracket + after.replace(" ", "\u00a0")


def order_of_sites(report: Report, metric: str) -> list[str]:
    """Return the sites by gain, the largest first and sites without figures last."""
    run = run_of(report)
    if not released(report).is_compared:
        return sorted(run.sites)
    places = {}
    for name, site in run.sites.items():
        gain = verdicts.best_gain(site, metric) or verdict.Difference(-math.inf)
        places[name] = -(gain.value or 0.0)
    return sorted(places, key=places.__getitem__)
