"""Gains that a study could show at its sites, before anybody trains: least, expected, and the chance of a clear one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flfed.federation.engines.engine import find_sites
from flfed.records.objects import write
from flfed.records.sections.prospect import site_rows
from flfed.records.statistics.odd_sites import AUC
from flfed.records.statistics.power import LEAST_EVENTS, Curve, Design, Outlook, Range, mean_outlook, outlook
from flfed.rows.data import datasets
from flfed.rows.data.holdout import Holdout
from flfed.rows.features.encode import input_names
from flfed.rows.features.summarise import outcomes
from flfed.rows.study_model import study_layout
from flfed.study.kinds import is_statistic
from flfed.study.study import Study
from flfed.words import usage_error


@dataclass(frozen=True, kw_only=True)
class StudyPower:
    """Gains that a study could show.

    Attributes
    ----------
    study : str
    inputs : int
        Of the model.
    design : Design
    sites : dict of name to Outlook, or None
        None where a site has too few rows of an outcome.
    rows, events : dict of name to int
    mean : (Range, Range) or None
        Expected mean gain, and the chance that it is clear; None of fewer than three sites of some size.
    """

    study: str
    inputs: int
    design: Design
    sites: dict[str, Outlook | None]
    rows: dict[str, int]
    events: dict[str, int]
    mean: tuple[Range, Range] | None

    def as_object(self) -> dict[str, Any]:
        """Return the object for JSON."""
        sites: dict[str, Any] = {}
        for name, prospect in self.sites.items():
            sites[name] = {"rows": self.rows[name], "events": self.events[name]}
            if prospect is not None:
                sites[name] |= write(prospect)
        design = self.design
        return {
            "study": self.study,
            "inputs": self.inputs,
            "auc": design.auc,
            "minimum-gain": design.worthwhile,
            "repeats": design.repeats,
            "sites": sites,
            "mean": self.mean and {"expected": write(self.mean[0]), "power": write(self.mean[1])},
        }


def study_power(
    study: Study, *, auc: float, counts: Mapping[str, tuple[int, int]] | None = None, repeats: int = 1
) -> StudyPower:
    """Return the gains that a study could show at each site and on average.

    Parameters
    ----------
    study : Study
        Of a binary outcome, judged by AUC.
    auc : float in (0.5, 1)
        AUC that the shared model is assumed to have.
    counts : dict of site to (rows, events), optional
        Default: the training rows of the study's own sites are counted.
    repeats : int, >= 1

    Raises
    ------
    UsageError
        If the study is judged by another metric, a count or `auc` is impossible, or there are no sites.
    """
    schema = datasets.load(study.dataset.name).schema
    if is_statistic(study) or schema.task != "binary" or study.compare.primary not in ("", AUC):
        raise usage_error("experiments.power.metric", study=study.name)
    if not 0.5 < auc < 1:
        raise usage_error("experiments.power.auc", auc=auc)
    if counts is None:
        counts = _count(study)
    _check_counts(study, counts)
    inputs = len(input_names(study_layout(study, schema)))
    share = Holdout().share
    design = Design(
        auc=auc,
        worthwhile=study.compare.least_gain(AUC, AUC),
        sites=len(counts),
        repeats=repeats,
        ratio=share / (1 - share),
    )
    curve = Curve.of_inputs(inputs)
    judged = {
        name: site_rows(rows, events, share)
        for name, (rows, events) in counts.items()
        if min(events, rows - events) >= LEAST_EVENTS
    }
    sites = {name: outlook(judged[name], design, curve) if name in judged else None for name in counts}
    return StudyPower(
        study=study.name,
        inputs=inputs,
        design=design,
        sites=sites,
        rows={name: rows for name, (rows, _) in counts.items()},
        events={name: events for name, (_, events) in counts.items()},
        mean=mean_outlook(list(judged.values()), design, curve),
    )


def _check_counts(study: Study, counts: Mapping[str, tuple[int, int]]) -> None:
    if not counts:
        raise usage_error("experiments.power.sites", study=study.name)
    for name, (rows, events) in counts.items():
        if events > rows:
            raise usage_error("experiments.power.counts", site=name, rows=rows, events=events)


def _count(study: Study) -> dict[str, tuple[int, int]]:
    """Return the rows of each of the study's own sites, and those with the outcome by the share of training rows."""
    counts = {}
    for site in find_sites(study):
        table = site.read()
        rows = len(table.training) + table.holdout_rows
        events = 0.0
        if len(table.training):
            events = rows * float(outcomes(table.training, study_layout(study, table.schema)).mean())
        counts[site.name] = (rows, round(events))
    return counts
