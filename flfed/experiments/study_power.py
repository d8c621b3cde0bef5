"""Least gain that a study could show at each of its sites, before anybody trains."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from flfed.federation.engines.engine import find_sites
from flfed.records.statistics.odd_sites import AUC
from flfed.records.statistics.power import Design, LeastGain, least_gain
from flfed.rows.data.site import redraws
from flfed.rows.features.summarise import outcomes
from flfed.rows.study_model import study_layout, study_schema
from flfed.study.study import Study
from flfed.words import usage_error


@dataclass(frozen=True)
class SitePower:
    """Rows and events of a site, and the least gain that its test rows show; None where they show none."""

    rows: int
    events: int
    least: LeastGain | None


@dataclass(frozen=True, kw_only=True)
class StudyPower:
    """Least gain that a study could show at each site, and what it rests on."""

    study: str
    design: Design
    sites: dict[str, SitePower]

    def as_object(self) -> dict[str, Any]:
        """Return the object for JSON."""
        return {
            "study": self.study,
            "auc": self.design.auc,
            "minimum-gain": self.design.worthwhile,
            "repeats": self.design.repeats,
            "sites": {name: asdict(site) for name, site in self.sites.items()},
        }


def study_power(study: Study, *, auc: float, repeats: int, own: tuple[int, int] | None = None) -> StudyPower:
    """Return the least gain that a study of a binary outcome, judged by AUC, could show at each site.

    `own` are rows and events of a site of one's own; without it the study's own tables are counted, of which only the
    outcomes of training rows are read.
    """
    if study.is_statistic or not study.train or study_schema(study).task != "binary":
        raise usage_error("experiments.power.metric", study=study.name)
    if study.compare.primary not in ("", AUC):
        raise usage_error("experiments.power.metric", study=study.name)
    if not 0.5 < auc < 1:
        raise usage_error("experiments.power.auc", auc=auc)
    if own is not None and own[1] > own[0]:
        raise usage_error("experiments.power.counts", rows=own[0], events=own[1])
    counts = {"your site": own} if own else _count(study)
    # Repeats hold out the same rows where a site's policy, or its day, keeps them.
    if own is None and not all(redraws(study, site) for site in find_sites(study)):
        repeats = 1
    if not counts:
        raise usage_error("experiments.power.sites", study=study.name)
    worthwhile = study.compare.least_gain(AUC, AUC)
    design = Design(auc=auc, worthwhile=worthwhile, sites=len(counts), repeats=repeats)
    sites = {name: SitePower(*of, least_gain(*of, design)) for name, of in counts.items()}
    return StudyPower(study=study.name, design=design, sites=sites)


def _count(study: Study) -> dict[str, tuple[int, int]]:
    """Return the rows of each of the study's own sites, and those with the outcome by the share of training rows."""
    counts = {}
    for site in find_sites(study):
        table = site.read()
        rows = table.training_rows + table.holdout_rows
        events = 0.0
        if table.training_rows:
            events = rows * float(outcomes(table.training, study_layout(study, table.schema)).mean())
        counts[site.name] = (rows, round(events))
    return counts
