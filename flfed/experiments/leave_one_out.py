"""Figures of the shared model at each site of a study when that site took no part."""

from __future__ import annotations

from collections.abc import Sequence

from flfed import registry
from flfed.callbacks import Progress, no_progress
from flfed.errors import RunStopped
from flfed.export.run_folder import model_of
from flfed.federation.engines.engine import find_sites
from flfed.federation.server.run import run
from flfed.records.statistics.left_out import KEY, describe_left_out
from flfed.records.store.entries import RunEntry
from flfed.records.store.reader import RunReader
from flfed.records.store.writer import RunStore
from flfed.rows.comparison.all_rows import measure_all_rows
from flfed.rows.data import datasets
from flfed.rows.data.site import Site
from flfed.rows.session import SiteSession
from flfed.rows.study_model import model_shapes
from flfed.study.study import Study
from flfed.words import render, usage_error

LEAST_SITES = 3


def leave_one_site_out(study: Study, *, sites: Sequence[Site] | None = None, progress: Progress = no_progress) -> str:
    """Run a study with all sites and without each in turn, and return the run of all sites.

    Its report then has the figures of each other run's model at the site that this run left out: on all rows of the
    site, which is neither in the model nor in the encoder. `sites` are as `run` takes them.

    Raises
    ------
    UsageError
        If the study has no model of a yes/no outcome that another site can use, its settings hide the difference of
        two runs, a site's policy is not open (two runs that differ by a site give its update away), or there are fewer
        than three sites.
    RunStopped
        If a run ended before its last round.
    """
    _check_study(study)
    there = find_sites(study, sites)
    if closed := ", ".join(site.name for site in there if not site.policy.is_open):
        raise usage_error("experiments.left-out.open", sites=closed)
    if len(there) < LEAST_SITES:
        raise usage_error("experiments.left-out.few", sites=len(there), least=LEAST_SITES)
    # The sites are made here: a partition would be cut anew for the rest of them.
    if study.dataset.partition is not None:
        study = study.replace({"dataset.partition": None})
    without = {}
    for site in there:
        without[site.name] = _run_once(study, [other for other in there if other is not site], progress)
    # The run of all sites comes last: it is then the latest one.
    everybody = _run_once(study, there, progress).run
    with RunReader.open() as reader:
        participants = {site.site for site in reader.sites(everybody) if site.status != "refused"}
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


def _run_once(study: Study, sites: Sequence[Site], progress: Progress) -> RunEntry:
    """Run a study once at some sites, to its last round."""
    result = run(study, sites=sites, progress=progress)
    if result.status != "completed":
        reason = result.report["reason"].rstrip(".")
        raise RunStopped(render("experiments.left-out.stopped", run=result.run, reason=reason))
    with RunReader.open() as reader:
        return reader.runs_of(result.run)[0]


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
