"""The shared model beside the score in use, which a study names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flfed.records.objects import figure_of, run_of
from flfed.records.reports.recorded_run import INCUMBENT
from flfed.records.reports.site_verdict import UNDERTRAINED, as_difference, code_of_mean, too_few
from flfed.records.section import Section, Table
from flfed.records.statistics import verdict
from flfed.words import render

METRICS = ("roc_auc_score", "average_precision_score")


def score_in_use(report: Mapping[str, Any]) -> Section | None:
    """Return the shared model's gain on the score in use at each site and over sites, None where there is none."""
    sites = {site: of for site, of in report["sites"].items() if INCUMBENT in of}
    if not sites:
        return None
    lines = [_line(site, of) for site, of in sites.items()]
    wide = verdict.name_interval(run_of(report).rule.sites)
    mean = figure_of(report.get(INCUMBENT), METRICS[0])
    says = []
    if mean.value is not None:
        gain = verdict.Difference(mean.value, mean.low, mean.high)
        size, span = verdict.size_and_span(gain, mean.minimum_gain or 0.0)
        conclusion = _describe(code_of_mean(mean))
        says.append(render("report.incumbent.mean", sites=mean.sites, gain=size, interval=span, conclusion=conclusion))
    return Section(
        title=render("report.incumbent.title"),
        tables=(Table(lines=lines, spare=(list(lines[0])[3],)),),
        says=says,
        note=(render("report.incumbent.reading", interval=wide),),
    )


def _line(site: str, of: Mapping[str, Any]) -> dict[str, str]:
    differences = of["difference-incumbent"]
    score = figure_of(of[INCUMBENT], METRICS[0])
    auc = verdict.with_interval(score.value, score.low, score.high)
    if score.value is None:
        auc = score.reason
    line = {"Test rows of": site, "AUC of the score in use": auc}
    for metric in METRICS:
        gain = as_difference(differences.get(metric)) or verdict.Difference(None)
        least = figure_of(differences, metric).minimum_gain or 0.0
        line[f"Gain in {verdict.metric_name(metric)}"] = verdict.gain_in_brackets(gain, least)
    return line | {"Verdict": _describe(_code(of))}


def _code(of: Mapping[str, Any]) -> str:
    """Return the verdict by the rule of a site's gain from joining."""
    differences = of["difference-incumbent"]
    gain = as_difference(differences.get(METRICS[0]))
    if gain is None or too_few(dict(of)) is not None:
        return verdict.INCONCLUSIVE
    code = verdict.code_of(gain.deciding, figure_of(differences, METRICS[0]).minimum_gain or 0.0)
    if code == verdict.DO_NOT_USE and of.get(UNDERTRAINED):
        return verdict.INCONCLUSIVE
    return code


def _describe(code: str) -> str:
    return render(f"report.incumbent-verdicts.{code.replace(' ', '-')}")
