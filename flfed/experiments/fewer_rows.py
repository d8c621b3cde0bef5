"""Runs of a study with fewer rows: without some people's, or with growing shares of a site's training rows.

The first shows the change of model and figures, the second the gain from joining by a site's number of rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas as pd

from flfed.callbacks import Progress, no_progress
from flfed.errors import unknown
from flfed.experiments.left_out import closed_names, note_runs
from flfed.federation.engines.engine import find_sites
from flfed.federation.server.run import Result, run
from flfed.records.reports.report import primary_of
from flfed.records.reports.site_verdict import gain_at
from flfed.rows.data import datasets
from flfed.rows.data.mapping import plain_text
from flfed.rows.data.site import Site, SiteTable
from flfed.rows.snapshots.opt_outs import Excluded
from flfed.seeds import generator
from flfed.study.study import Study
from flfed.updates.checkpoints import checkpoint as checkpoints
from flfed.words import people_in_words, usage_error

SHARES = (0.125, 0.25, 0.5, 1.0)
"""Shares of a site's training rows in a learning curve."""


@dataclass(frozen=True)
class Without:
    """Effect of some people's rows on a study.

    Attributes
    ----------
    rows, people : int
        Removed rows, and people on the list with such rows.
    whole, left : Result
        The run on all rows, and the one without these.
    largest, root_mean_square : float
        Change of the model's parameters.
    figures : dict of metric to (float, float)
        Figures over all sites' test rows, of both runs; their test rows may differ.
    """

    rows: int
    people: int
    whole: Result
    left: Result
    largest: float
    root_mean_square: float
    figures: dict[str, tuple[float, float]]

    def as_object(self) -> dict[str, Any]:
        """Return the object for JSON."""
        return {
            "rows": self.rows,
            "people": self.people,
            "run": self.whole.report["run"],
            "run-without": self.left.report["run"],
            "largest-change": self.largest,
            "root-mean-square-change": self.root_mean_square,
            "figures": {name: {"all": one, "without": other} for name, (one, other) in self.figures.items()},
        }


@dataclass(frozen=True)
class Remaining(datasets.Dataset):
    """A dataset of one table, without some people's rows.

    Attributes
    ----------
    out : Excluded
    """

    out: Excluded

    def whole_table(self) -> pd.DataFrame:
        """Return the table without these people's rows."""
        table = super().whole_table()
        return table[~_theirs(table, self.out, self.name)].reset_index(drop=True)


def run_without(
    study: Study, people: Excluded, *, sites: Sequence[Site] | None = None, progress: Progress = no_progress
) -> Without:
    """Run a study on all rows, and without these people's rows.

    Parameters
    ----------
    study : Study
    people : Excluded
    sites : sequence of Site, optional
        As `run` takes them.
    progress : callable (stage, done, of)

    Raises
    ------
    UsageError
        If a site's policy is not open, the list fits no table, or no person on it has a row.
    """
    sites_argument = sites
    sites = find_sites(study, sites)
    if closed := closed_names(sites):
        raise usage_error("experiments.subset.open", sites=closed)
    if study.dataset.partition is not None:
        dataset = datasets.load(study.dataset.name)
        table = dataset.whole_table()
        out = _theirs(table, people, dataset.name)
        counts = int(out.sum()), int(plain_text(table[people.column][out]).nunique())
        _check_people_have_rows(*counts)
        remaining = Remaining(dataset.name, dataset.folder, dataset.schema, dataset.source, people)
        with datasets.in_memory(remaining):
            left = run(study, progress=progress)
    else:
        trimmed_sites = [people.applied(site) for site in sites]
        counts = sum(of.rows for _, of in trimmed_sites), sum(of.found for _, of in trimmed_sites)
        _check_people_have_rows(*counts)
        left = run(study, sites=[site for site, _ in trimmed_sites], progress=progress)
    note_runs(left.run, "--without", f"without the rows of {people_in_words(counts[1])}")
    # The study's own run comes last: it is then the latest one.
    whole = run(study, sites=sites_argument, progress=progress)
    largest, root = _moved(*(checkpoints.final(result.report["run"]).arrays for result in (whole, left)))
    figures = {
        metric: (of["value"], left.report["global"][metric]["value"]) for metric, of in whole.report["global"].items()
    }
    return Without(*counts, whole=whole, left=left, largest=largest, root_mean_square=root, figures=figures)


def _check_people_have_rows(rows: int, people: int) -> None:
    if not rows:
        raise usage_error("experiments.subset.nobody", people=people)


def _theirs(table: pd.DataFrame, people: Excluded, name: str) -> np.ndarray:
    """Return a mask of these people's rows."""
    if people.column not in table:
        # Not quoted: without a header, the line is a person's identifier.
        raise usage_error("experiments.subset.column", dataset=name)
    return plain_text(table[people.column]).isin(people.identifiers).to_numpy(dtype=bool)


def _moved(before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]) -> tuple[float, float]:
    """Return the largest and the root mean square change of a model's parameters."""
    change = np.concatenate([(np.asarray(after[name], float) - values).ravel() for name, values in before.items()])
    return float(np.abs(change).max()), float(np.sqrt(np.mean(change**2)))


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """Gain of a site from joining with a share of its training rows.

    Attributes
    ----------
    share : float in (0, 1]
        Share of the site's training rows.
    rows : int or None
        Their number; None if the site was refused for having too few.
    run, metric : str
        `metric` is the study's primary one.
    gain : dict
        `value`, `low`, `high`, `model` and `verdict`, as in a run's report.
    """

    share: float
    rows: int | None
    run: str
    metric: str
    gain: dict[str, Any]

    def as_object(self) -> dict[str, Any]:
        """Return the object for JSON."""
        return {"share": self.share, "rows": self.rows, "run": self.run, **self.gain}


@dataclass(frozen=True, kw_only=True)
class FewerRows(Site):
    """A site that trains on a share of its training rows; its test rows are the same.

    A larger share contains the rows of a smaller one. If rows have groups (patients, customers), few rows are those of
    few groups, the last of which may be partial.

    Attributes
    ----------
    share : float in (0, 1]
    seed : int
        Seed, with the repeat, of the order of rows.
    """

    share: float
    seed: int

    @classmethod
    def of(cls, site: Site, share: float, seed: int) -> FewerRows:
        """Return a site with a share of its training rows."""
        return cls(
            **{attribute.name: getattr(site, attribute.name) for attribute in fields(Site)}, share=share, seed=seed
        )

    def read(self, repeat: int = 0, **options: Any) -> SiteTable:
        """Read the table, and reduce it to a share of its training rows."""
        table = super().read(repeat, **options)
        rng = generator(self.seed + repeat, site=self.name, purpose="learning-curve")
        order = _random_order(table.training, table.schema.group, rng)
        # In their old order, so that batches are those of a table that never had other rows.
        sample = np.sort(order[: max(1, round(self.share * len(order)))])
        return table.with_training(table.training.iloc[sample].reset_index(drop=True))


def run_curve(
    study: Study, site: str, *, sites: Sequence[Site] | None = None, repeats: int = 1, progress: Progress = no_progress
) -> tuple[CurvePoint, ...]:
    """Run a study with growing shares of one site's training rows, and all rows of the others.

    Parameters
    ----------
    study : Study
    site : str
    sites : sequence of Site, optional
        As `run` takes them.
    repeats : int, >= 1
        Repeats of each run.
    progress : callable (stage, done, of)

    Raises
    ------
    UsageError
        If there is no such site, a site's policy is not open, or the study compares nothing.
    """
    site_by_name = {one.name: one for one in find_sites(study, sites)}
    if site not in site_by_name:
        raise unknown("--curve: site", site, list(site_by_name))
    if closed := closed_names(site_by_name.values()):
        raise usage_error("experiments.subset.curve", sites=closed)
    # Research sites are made here, so that one of them can have fewer rows.
    if study.dataset.partition is not None:
        study = study.replace({"dataset.partition": None})
    points = []
    for share in SHARES:
        cut = site_by_name | {site: FewerRows.of(site_by_name[site], share, study.seed)} if share < 1 else site_by_name
        result = run(study, sites=list(cut.values()), repeats=repeats, progress=progress)
        report = result.report
        primary = primary_of(report)
        own = report["sites"].get(site, {})
        if primary is None:
            raise usage_error("experiments.subset.uncompared", study=study.name)
        gain = gain_at(own, primary)
        rows = _training_rows(own)
        if share < 1:
            note_runs(result.run, "--curve", f"{100 * share:g} % of the training rows of {site}")
        points.append(CurvePoint(share=share, rows=rows, run=report["run"], metric=primary, gain=gain))
    return tuple(points)


def _random_order(rows: pd.DataFrame, group: str | None, rng: np.random.Generator) -> np.ndarray:
    """Return the order of rows at random, those of one group together."""
    if not group:
        return rng.permutation(len(rows))
    groups = pd.factorize(rows[group])[0]
    return np.argsort(rng.permutation(int(groups.max()) + 1)[groups], kind="stable")


def _training_rows(figures: Mapping[str, Any]) -> int | None:
    """Return the number of training rows in a site's entry of a report, None if it is suppressed."""
    rows = figures.get("rows")
    test_rows = figures.get("holdout-rows")
    return rows - test_rows if rows and test_rows else None
