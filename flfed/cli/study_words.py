"""What a study asks for, in sentences for `flfed study check` and `show`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flfed.study.analysis import Analysis
    from flfed.study.study import Study


def can_be_run(study: Study, facts: Mapping[str, Any]) -> list[str]:
    """Return that a study can be run, and what it asks for; `facts` are those of its check."""
    from flfed.study.kinds import is_statistic

    kind = f"statistic {study.statistic.name}" if study.analysis is None else "an analysis: no model"
    judged = kind if is_statistic(study) else f"judged by {facts['primary']}"
    noise = [] if study.analysis is None else [noise_in_words(study)]
    return [f"{study.name}: can be run ({facts['task']}, {judged}).", *analysis_in_words(study), *noise]


def trees_in_words(study: Study) -> str:
    """Return how many exchanges a run of trees takes, at most."""
    from flfed.study.kinds import exchanges_of, exchanges_of_run, most_rounds, refits
    from flfed.words import render

    anew = render("study.check.trees-anew") if refits(study) else ""
    opened = render("study.check.trees-opened") if study.aggregation.sums_updates else ""
    return render(
        "study.check.trees",
        exchanges=exchanges_of_run(study),
        rounds=most_rounds(study),
        anew=anew,
        levels=exchanges_of(study),
        opened=opened,
    )


def analysis_in_words(study: Study) -> list[str]:
    """Return what an analysis counts, of whom and under which guarantee; of another study nothing.

    It is told by the study alone, without its dataset's schema.
    """
    from flfed.records.reports.privacy import epsilon_in_words, power_of_ten
    from flfed.updates.mechanism import mechanism_of

    analysis = study.analysis
    mechanism = mechanism_of(study)
    if analysis is None or mechanism is None:
        return []
    lines = [_analysed(analysis, study.dataset.name)]
    promise = mechanism.promise(study.plan, study.rounds)
    if promise is not None:
        spent = f"epsilon {epsilon_in_words(promise.epsilon)} at delta {power_of_ten(promise.delta)}"
        lines.append(f"Each site answers once, with noise: {spent} for a {promise.unit}.")
    return lines


def _analysed(analysis: Analysis, dataset: str) -> str:
    """Return what an analysis counts, and by what."""
    columns = [name for name in analysis.columns or () if name != analysis.groups]
    columns_text = f"every column of {dataset}"
    if analysis.columns:
        columns_text = ", ".join(columns) or "no column"
    by = f", over all and for each value of {analysis.groups}" if analysis.groups else ""
    pairs = ", ".join(" by ".join(pair) for pair in analysis.cross)
    together = f"; counted together: {pairs}" if pairs else ""
    return f"Analysed: {columns_text}{by}{together}."


def noise_in_words(study: Study) -> str:
    """Return how much noise each number of an analysis gets, at a site or in the sum of all."""
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
    of = " of a group" if study.analysis.groups else ""
    reach = f"95 % of the time it is within {number(NORMAL_95 * query.deviation)} of the exact one"
    if not study.aggregation.sums_updates:
        return f"Noise: at a site each count{of} gets noise of deviation {number(query.deviation)}, so that {reach}."
    return f"Noise: the sites together put noise of deviation {number(query.deviation)} or more on each count{of}."


def sums_in_words(study: Study) -> list[str]:
    """Return what a study asks of secure sums, and what such a run lacks of its rounds."""
    from flfed.study.kinds import is_statistic
    from flfed.study.study import covers_model
    from flfed.words import render

    if not study.aggregation.sums_updates:
        return []
    sentence = render(f"study.check.sums-{study.secure_aggregation}")
    if is_statistic(study) or covers_model(study):
        return [sentence if study.analysis is None else sentence.replace("updates", "answers")]
    offsets = render("study.check.rounds-offsets") if study.adjusts_intercept() else ""
    instead = render("study.check.of-sum")
    if study.aggregation.is_encrypted:
        instead = render("study.check.of-none")
    return [sentence, render("study.check.rounds", offsets=offsets, instead=instead)]
