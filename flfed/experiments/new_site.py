"""A site that has no model yet: the shared model trained without its rows, beside a single other site's model."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import numpy as np

from flfed.callbacks import Progress, no_progress
from flfed.experiments.left_out import find_participants, open_sites, run_sites, run_without_sites
from flfed.records.objects import write
from flfed.records.statistics.intervals import ClassGain, WeightedGain, class_gain, weigh_auc
from flfed.records.statistics.odd_sites import AUC
from flfed.records.statistics.verdict import Difference, better_of, gain_of
from flfed.rows.comparison.pooled import has_one_class, union_scores
from flfed.rows.data.site import Site
from flfed.rows.session import SiteSession
from flfed.rows.training.answer import stacked_compute
from flfed.rows.training.requests import run_client_by, together
from flfed.seeds import generator
from flfed.study.study import Study
from flfed.updates.checkpoints import checkpoint as checkpoints
from flfed.words import usage_error

FOLDS = 10
"""Most groups of sites, each of which is left out together."""
MOST_OTHERS = 20
"""Most other sites whose models are tried at a site; of more they are drawn at random."""
KEYS = ("without", "single", "with_rows")


@dataclass(frozen=True)
class SiteFigures:
    """Figures at a site, each a mean over repeats weighted by test rows.

    Attributes
    ----------
    weight : float
        Of an AUC, test rows with the outcome times those without, over all of them.
    without, single, with_rows : float
        The shared model trained without the site's rows; the mean of other single sites' models; the shared model
        trained with the site's rows.
    """

    weight: float
    without: float
    single: float
    with_rows: float


@dataclass(frozen=True, kw_only=True)
class NewSite:
    """Gains of a site without a model, over all sites.

    Attributes
    ----------
    study, metric, run : str
        The run of all sites.
    repeats, groups : int
    sites : dict of name to SiteFigures
        Sites with a figure.
    mean : SiteFigures
        Over sites, by their weights.
    gain : ClassGain
        Above 0 where the shared model without the site's rows is better there than a single other site's.
    gain_of_rows : ClassGain
        Gain of training with the site's rows beside that.
    """

    study: str
    metric: str
    run: str
    repeats: int
    groups: int
    sites: dict[str, SiteFigures]
    mean: SiteFigures
    gain: ClassGain
    gain_of_rows: ClassGain

    def as_object(self) -> dict[str, Any]:
        """Return the object for JSON."""
        return write(self)


def run_new_site(
    study: Study, *, sites: Sequence[Site] | None = None, repeats: int = 1, progress: Progress = no_progress
) -> NewSite:
    """Train a study without each group of sites in turn, and measure its model there.

    Parameters
    ----------
    study : Study
    sites : sequence of Site, optional
        As `run` takes them.
    repeats : int, >= 1
    progress : callable (stage, done, of)

    Raises
    ------
    UsageError
        As `open_sites`, or if the study compares nothing.
    RunStopped
        If a run ended before its last round.
    """
    study, sites = open_sites(study, sites, "--new-site")
    groups = min(FOLDS, len(sites))
    without = []
    for group in range(groups):
        names = {site.name for site in sites[group::groups]}
        without.append((names, run_without_sites(study, sites, names, "--new-site", repeats, progress)))
    # The run of all sites comes last: it is then the latest one.
    everybody = run_sites(study, sites, repeats, progress)
    measured = []
    for repeat, entry in enumerate(everybody):
        present = find_participants(entry.run)
        measured.append(_Measured(study, [site for site in sites if site.name in present], repeat))
        measured[repeat].score("with_rows", entry.run, present)
    for names, runs in without:
        for repeat, entry in enumerate(runs):
            measured[repeat].score("without", entry.run, names)
    for one in measured:
        one.score_single()
    figures = _figures_by_site(measured)
    metric = measured[0].metric
    return NewSite(
        study=study.name,
        metric=metric,
        run=everybody[0].series,
        repeats=repeats,
        groups=groups,
        sites=figures,
        mean=_mean(list(figures.values())),
        gain=_gain(figures, "without", "single", metric),
        gain_of_rows=_gain(figures, "with_rows", "without", metric),
    )


class _Measured:
    """Figures of one repeat by site: of shared models, and of other sites' own."""

    def __init__(self, study: Study, sites: Sequence[Site], repeat: int) -> None:
        self.sessions = {site.name: SiteSession(site, study, repeat) for site in sites}
        self.answer = stacked_compute()
        self.figures: dict[str, dict[str, float]] = {key: {} for key in KEYS}
        session = next(iter(self.sessions.values()))
        self.metric = session.primary
        self.seed = session.seed

    def score(self, key: str, run: str, names: Collection[str]) -> None:
        """Measure the model of a run at those of some sites that took part."""
        final = checkpoints.final(run)
        for name in self.sessions.keys() & names:
            session = self.sessions[name]
            scores = run_client_by(union_scores([session], final.arrays, final.encoder), self.answer)
            self._note(key, name, [scores])

    def score_single(self) -> None:
        """Measure other sites' own models at each site."""
        able = [name for name, session in self.sessions.items() if not has_one_class(session)]
        models = run_client_by(together([self.sessions[name].local_model() for name in able]), self.answer)
        own = dict(zip(able, models, strict=True))
        for name, session in self.sessions.items():
            others = [other for other in able if other != name]
            rng = generator(self.seed, site=name, purpose="new-site")
            drawn = rng.permutation(len(others))[:MOST_OTHERS]
            holdout = session.table.holdout("compare")
            scores = []
            for place in drawn:
                model = own[others[place]]
                outputs = model.outputs(session.encode(holdout, model.encoder).x)
                scores.append(session.predictions(outputs, model.encoder))
            self._note("single", name, scores)

    def _note(self, key: str, name: str, scores: Sequence[np.ndarray]) -> None:
        """Note the mean figure of some predictions at a site, where its test rows define one."""
        session = self.sessions[name]
        y = session.target(session.table.holdout("compare"))
        metric = session.metrics[self.metric]
        if scores and not metric.defined(y):
            self.figures[key][name] = fmean(metric.value(y, each) for each in scores)

    def weight(self, name: str) -> float:
        """Return a site's weight, 0 where one of the figures is not defined."""
        if any(name not in figures for figures in self.figures.values()):
            return 0.0
        session = self.sessions[name]
        y = session.target(session.table.holdout("compare"))
        if self.metric != AUC:
            return float(len(y))
        events = int((y == 1).sum())
        return weigh_auc(len(y) - events, events)


def _figures_by_site(measured: Sequence[_Measured]) -> dict[str, SiteFigures]:
    """Return the means of each site over the repeats, by its test rows in each."""
    by_site: dict[str, list[SiteFigures]] = {}
    for one in measured:
        for name in one.sessions:
            weight = one.weight(name)
            if weight:
                figures = {key: values[name] for key, values in one.figures.items()}
                by_site.setdefault(name, []).append(SiteFigures(weight=weight, **figures))
    means = {name: _mean(figures) for name, figures in by_site.items()}
    return {name: replace(mean, weight=mean.weight / len(measured)) for name, mean in means.items()}


def _mean(figures: Sequence[SiteFigures]) -> SiteFigures:
    """Return the means by weight, with the sum of the weights."""
    if not figures:
        raise usage_error("experiments.new-site.none")
    weights = [each.weight for each in figures]
    means = {}
    for key in KEYS:
        means[key] = float(np.average([getattr(each, key) for each in figures], weights=weights))
    return SiteFigures(weight=math.fsum(weights), **means)


def _gain(figures: Mapping[str, SiteFigures], key: str, against: str, metric: str) -> ClassGain:
    """Return the mean gain over sites of one figure on another."""
    gains = []
    for site in figures.values():
        difference = Difference(getattr(site, key) - getattr(site, against))
        gain = gain_of(difference, better_of(metric)).value or 0.0
        gains.append(WeightedGain(site.weight, site.weight * gain))
    return class_gain(gains, 1)
