"""Sentences about a study, for `flfed study check` and `show`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flfed.words import render

if TYPE_CHECKING:
    from flfed.study.analysis import Analysis
    from flfed.study.study import Study


def can_be_run(study: Study, facts: Mapping[str, Any]) -> list[str]:
    """Return that a study can be run, and its analysis; `facts` are those of its check."""
    from flfed.study.kinds import is_statistic

    kind = f"primary metric {facts['primary']}"
    if study.analysis is not None:
        kind = "analysis without a model"
    elif is_statistic(study):
        kind = f"statistic {study.statistic.name}"
    noise = [] if study.analysis is None else [noise_in_words(study)]
    valid = render("check.study.valid", study=study.name, task=facts["task"], kind=kind)
    return [valid, *analysis_in_words(study), *noise]


def trees_in_words(study: Study) -> str:
    """Return how many exchanges a run of trees takes, at most."""
    from flfed.study.kinds import exchanges_of, exchanges_of_run, most_rounds, refits

    rounds = most_rounds(study)
    exchanges = exchanges_of_run(study)
    sentences = [render("check.study.trees", exchanges=exchanges, rounds=rounds, levels=exchanges_of(study))]
    if refits(study):
        sentences.append(render("check.study.anew"))
    if study.aggregation.sums_updates:
        sentences.append(render("check.study.opened"))
    return " ".join(sentences)


def analysis_in_words(study: Study) -> list[str]:
    """Return the columns and the guarantee of an analysis, from the study alone; no line for another study."""
    from flfed.records.reports.privacy import epsilon_in_words, power_of_ten
    from flfed.updates.mechanism import mechanism_of

    analysis = study.analysis
    mechanism = mechanism_of(study)
    if analysis is None or mechanism is None:
        return []
    lines = [_analysed(analysis, study.dataset.name)]
    promise = mechanism.promise(study.plan, study.rounds)
    if promise is not None:
        epsilon = epsilon_in_words(promise.epsilon)
        delta = power_of_ten(promise.delta)
        lines.append(render("check.analysis.guarantee", epsilon=epsilon, delta=delta, unit=promise.unit))
    return lines


def _analysed(analysis: Analysis, dataset: str) -> str:
    """Return the columns of an analysis, its groups and its cross-tables."""
    columns = [name for name in analysis.columns or () if name != analysis.groups]
    columns_text = f"every column of {dataset}"
    if analysis.columns:
        columns_text = ", ".join(columns) or "no column"
    sentences = [render("check.analysis.columns", columns=columns_text)]
    if analysis.groups:
        sentences.append(render("check.analysis.groups", column=analysis.groups))
    pairs = ", ".join(" by ".join(pair) for pair in analysis.cross)
    if pairs:
        sentences.append(render("check.analysis.cross", pairs=pairs))
    return " ".join(sentences)


def noise_in_words(study: Study) -> str:
    """Return the noise of each count of an analysis, at a site or in the sum over all sites."""
    from flfed.records.statistics.intervals import NORMAL_95
    from flfed.records.statistics.verdict import number
    from flfed.rows.data import datasets
    from flfed.rows.statistics.analysis import NoisedAnalysis
    from flfed.updates.mechanism import mechanism_of

    mechanism = mechanism_of(study)
    promise = None if mechanism is None else mechanism.promise(study.plan, study.rounds)
    if promise is None or study.analysis is None:
        return ""
    query = NoisedAnalysis.of_study(study, promise.noise).query(datasets.load(study.dataset.name).schema)
    count = "count of a group" if study.analysis.groups else "count"
    deviation = number(query.deviation)
    if study.aggregation.sums_updates:
        return render("check.analysis.summed", count=count, deviation=deviation)
    reach = number(NORMAL_95 * query.deviation)
    return render("check.analysis.noise", count=count, deviation=deviation, reach=reach)


def sums_in_words(study: Study) -> list[str]:
    """Return the secure aggregation of a study, and the figures by round that it suppresses."""
    from flfed.study.kinds import is_statistic
    from flfed.study.study import covers_model

    if not study.aggregation.sums_updates:
        return []
    messages = "updates" if study.analysis is None else "replies"
    sentence = render(f"check.sums.{study.secure_aggregation}", messages=messages)
    if is_statistic(study) or covers_model(study):
        return [sentence]
    rounds = [render("check.study.rounds")]
    if study.adjusts_intercept():
        rounds.append(render("check.study.offsets"))
    losses = "none" if study.aggregation.is_encrypted else "summed"
    return [sentence, " ".join([*rounds, render(f"check.losses.{losses}")])]
