"""Figures of the shared model at each site of a study when that site took no part."""

from __future__ import annotations

from collections.abc import Sequence

from flfed import registry
from flfed.callbacks import Progress, no_progress
from flfed.experiments.left_out import find_participants, open_sites, run_sites, run_without_sites
from flfed.export.run_folder import model_of
from flfed.records.statistics.left_out import KEY, describe_left_out
from flfed.records.store.reader import RunReader
from flfed.records.store.writer import RunStore
from flfed.rows.comparison.all_rows import measure_all_rows
from flfed.rows.data import datasets
from flfed.rows.data.site import Site
from flfed.rows.session import SiteSession
from flfed.rows.study_model import model_shapes
from flfed.study.study import Study
from flfed.words import usage_error


def leave_one_site_out(study: Study, *, sites: Sequence[Site] | None = None, progress: Progress = no_progress) -> str:
    """Run a study with all sites and without each in turn, and return the run of all sites.

    Its report then has the figures of each other run's model at the site that this run left out: on all rows of the
    site, which is neither in the model nor in the encoder.

    Parameters
    ----------
    study : Study
    sites : sequence of Site, optional
        As `run` takes them.
    progress : callable (stage, done, of)

    Raises
    ------
    UsageError
        As `open_sites`; or if the study has no model of a yes/no outcome that another site can use, or its settings
        hide the difference of two runs.
    RunStopped
        If a run ended before its last round.
    """
    _check_study(study)
    study, there = open_sites(study, sites, "--leave-one-site-out")
    without = {}
    for site in there:
        without[site.name] = run_without_sites(study, there, {site.name}, "--leave-one-site-out", 1, progress)[0]
    # The run of all sites comes last: it is then the latest one.
    everybody = run_sites(study, there, 1, progress)[0].run
    participants = find_participants(everybody)
    measured = {}
    for site in there:
        if site.name not in participants:
            continue
        left_out = without[site.name]
        # Its predictions are those of `flfed predict`.
        with RunReader.open() as reader:
            model = model_of(reader, left_out)
        figures = measure_all_rows(SiteSession(site, study), model.encoder, model.predictions)
        measured[site.name] = {"run": left_out.run, **figures}
    with RunStore.open() as store:
        store.added_to(everybody).summary(KEY, describe_left_out(measured))
    return everybody


def _check_study(study: Study) -> None:
    """Refuse a study whose runs may not be compared, or whose model no other site can use."""
    schema = datasets.load(study.dataset.name).schema
    if study.is_statistic or not study.train or schema.task != "binary":
        raise usage_error("experiments.left-out.outcome", study=study.name)
    if study.aggregation.is_required:
        raise usage_error("experiments.left-out.sums")
    if study.covers_model:
        raise usage_error("experiments.left-out.covers")
    if study.encode.scaler == "per-site":
        raise usage_error("experiments.left-out.scaler")
    strategy = registry.load("strategy", study.strategy.name)
    if own := strategy.extra_shapes(model_shapes(study, schema)).own_part:
        raise usage_error("experiments.left-out.own", arrays=", ".join(own))
