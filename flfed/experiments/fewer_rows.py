"""A study run with fewer rows: without some people's, or with growing shares of one site's training rows.

The first tells how far model and figures move, the second what joining is worth by how many rows a site has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pandas as pd

from flfed.callbacks import Progress, no_progress
from flfed.errors import UsageError, nearest
from flfed.federation.engines.engine import find_sites
from flfed.federation.server.run import Result, run
from flfed.records.reports.report import primary_of
from flfed.records.reports.site_verdict import gain_at
from flfed.rows.data import datasets
from flfed.rows.data.holdout import PublishedSplit
from flfed.rows.data.mapping import plain_text
from flfed.rows.data.site import Site, SiteTable
from flfed.rows.snapshots.opt_outs import Excluded
from flfed.seeds import generator
from flfed.study.study import Study
from flfed.updates.checkpoints import checkpoint as checkpoints

SHARES = (0.125, 0.25, 0.5, 1.0)
"""Of a site's training rows."""


@dataclass(frozen=True)
class Without:
    """What a study is without some people.

    Attributes
    ----------
    rows, people : int
        Rows that were left out, and people on the list whom they are of.
    whole, left : Result
        The run on all rows, and the one without theirs.
    largest, root_mean_square : float
        Change of the model's numbers.
    figures : dict of metric to (float, float)
        Over all sites' test rows, of the run on all rows and of the other one; their test rows may differ.
    """

    rows: int
    people: int
    whole: Result
    left: Result
    largest: float
    root_mean_square: float
    figures: dict[str, tuple[float, float]]

    def as_object(self) -> dict[str, Any]:
        """Return it as an object of JSON."""
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
    """A dataset of one table, some people's rows left out.

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
    """Run a study on all rows, and on those that are not these people's.

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
        If a site's policy is not open, the list fits no table, or nobody on it has a row.
    """
    sites_argument = sites
    sites = find_sites(study, sites)
    if closed := _closed(sites):
        raise UsageError(
            f"--without shows what single rows change in a model, and the policy of {closed} is not 'open': "
            "in a consortium a site leaves people out itself (excluded.csv, flfed site refresh, a new approval)"
        )
    whole = run(study, sites=sites_argument, progress=progress)
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
    largest, root = _moved(*(checkpoints.final(result.report["run"]).arrays for result in (whole, left)))
    figures = {
        metric: (of["value"], left.report["global"][metric]["value"]) for metric, of in whole.report["global"].items()
    }
    return Without(*counts, whole=whole, left=left, largest=largest, root_mean_square=root, figures=figures)


def _closed(sites: Iterable[Site]) -> str:
    """Return the sites whose policy is not open, in a row."""
    return ", ".join(site.name for site in sites if site.policy.disclosure != "open")


def _check_people_have_rows(rows: int, people: int) -> None:
    if not rows:
        raise UsageError(f"{people} people on the list have a row here: nothing would change")


def _theirs(table: pd.DataFrame, people: Excluded, name: str) -> np.ndarray:
    """Return which rows are these people's."""
    if people.column not in table:
        # It is not quoted: where the name is forgotten, it is a person's identifier.
        raise UsageError(f"the first line of the list is not the name of a column of dataset {name!r}")
    return plain_text(table[people.column]).isin(people.identifiers).to_numpy(dtype=bool)


def _moved(before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]) -> tuple[float, float]:
    """Return the largest and the root mean square change of a model's numbers."""
    change = np.concatenate([(np.asarray(after[name], float) - values).ravel() for name, values in before.items()])
    return float(np.abs(change).max()), float(np.sqrt(np.mean(change**2)))


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """What joining is worth to a site with some of its training rows.

    Attributes
    ----------
    share : float in (0, 1]
        Of the site's training rows.
    rows : int or None
        How many these are; None where the site was refused for having too few.
    run, metric : str
        `metric` is the study's primary one.
    gain : dict
        `value`, `low`, `high`, `model` and `verdict`, as a run's report has them.
    """

    share: float
    rows: int | None
    run: str
    metric: str
    gain: dict[str, Any]

    def as_object(self) -> dict[str, Any]:
        """Return it as an object of JSON."""
        return {"share": self.share, "rows": self.rows, "run": self.run, **self.gain}


@dataclass(frozen=True, kw_only=True)
class FewerRows(Site):
    """A site that trains on a share of its training rows; its test rows stay.

    The rows of a smaller share are among those of a larger one. Where rows have groups (patients, customers), few rows
    are those of few groups, the last of which may be kept in part.

    Attributes
    ----------
    share : float in (0, 1]
    seed : int
        With the repeat, of the order in which rows are kept.
    """

    share: float
    seed: int

    @classmethod
    def of(cls, site: Site, share: float, seed: int) -> FewerRows:
        """Return a site with a share of its training rows."""
        return cls(
            **{attribute.name: getattr(site, attribute.name) for attribute in fields(Site)}, share=share, seed=seed
        )

    def read(
        self, repeat: int = 0, *, complete: Sequence[str] = (), published: PublishedSplit | None = None
    ) -> SiteTable:
        """Read the table as any site does, and keep a share of its training rows."""
        table = super().read(repeat, complete=complete, published=published)
        rng = generator(self.seed + repeat, site=self.name, purpose="learning-curve")
        order = _random_order(table.training, table.schema.group, rng)
        # Sorted as they were, so that batches are those of a table that never had others.
        sample = np.sort(order[: max(1, round(self.share * len(order)))])
        return replace(table, training=table.training.iloc[sample].reset_index(drop=True))


def run_curve(
    study: Study,
    site: str,
    *,
    sites: Sequence[Site] | None = None,
    repeats: int = 1,
    progress: Progress = no_progress,
) -> tuple[CurvePoint, ...]:
    """Run a study with growing shares of one site's training rows, the other sites with all of theirs.

    Parameters
    ----------
    study : Study
    site : str
    sites : sequence of Site, optional
        As `run` takes them.
    repeats : int, >= 1
        Of each run.
    progress : callable (stage, done, of)

    Raises
    ------
    UsageError
        If there is no such site, a site's policy is not open, or the study compares nothing.
    """
    site_by_name = {one.name: one for one in find_sites(study, sites)}
    if site not in site_by_name:
        names = ", ".join(site_by_name)
        raise UsageError(f"--curve {site}: no site of the study{nearest(site, list(site_by_name))} Known: {names}")
    if closed := _closed(site_by_name.values()):
        raise UsageError(f"--curve compares models of some of a site's rows, and the policy of {closed} is not 'open'")
    # Research sites are cut here, so that one of them can be given fewer rows.
    if study.dataset.partition is not None:
        study = study.replace({"dataset.partition": None})
    points = []
    for share in SHARES:
        cut = site_by_name | {site: FewerRows.of(site_by_name[site], share, study.seed)} if share < 1 else site_by_name
        report = run(study, sites=list(cut.values()), repeats=repeats, progress=progress).report
        primary = primary_of(report)
        own = report["sites"].get(site, {})
        if primary is None:
            raise UsageError(f"--curve: study {study.name!r} compares no models")
        gain = gain_at(own, primary)
        rows = _training_rows(own)
        points.append(CurvePoint(share=share, rows=rows, run=report["run"], metric=primary, gain=gain))
    return tuple(points)


def _random_order(rows: pd.DataFrame, group: str | None, rng: np.random.Generator) -> np.ndarray:
    """Return rows in random order, those of one group together."""
    if not group:
        return rng.permutation(len(rows))
    groups = pd.factorize(rows[group])[0]
    return np.argsort(rng.permutation(int(groups.max()) + 1)[groups], kind="stable")


def _training_rows(figures: Mapping[str, Any]) -> int | None:
    """Return the training rows of a site's entry in a report, None where it keeps them back."""
    rows = figures.get("rows")
    test_rows = figures.get("holdout-rows")
    return rows - test_rows if rows and test_rows else None
