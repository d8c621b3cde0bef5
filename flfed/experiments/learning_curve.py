"""A study run with growing shares of one site's training rows: what joining is worth by how many rows a site has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pandas as pd

from flfed.callbacks import Progress, no_progress
from flfed.errors import UsageError, nearest
from flfed.federation.engines.local_sites import find_sites
from flfed.federation.server.run import run
from flfed.records.reports.report import primary_of
from flfed.records.reports.site_verdict import gain_at
from flfed.rows.data.holdout import PublishedSplit
from flfed.rows.data.site import Site, SiteTable
from flfed.seeds import generator
from flfed.study.study import Study

SHARES = (0.125, 0.25, 0.5, 1.0)
"""Of a site's training rows."""


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """What joining is worth to a site with some of its training rows.

    Attributes
    ----------
    share : float in (0, 1]
        Of the site's training rows.
    rows : int or None
        How many these are; None where the site was refused for having too few.
    run : str
    gain : dict
        `value`, `low`, `high`, `model` and `verdict` of the study's primary metric, as a run's report has them.
    """

    share: float
    rows: int | None
    run: str
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
        return cls(**{given.name: getattr(site, given.name) for given in fields(Site)}, share=share, seed=seed)

    def read(
        self, repeat: int = 0, *, complete: Sequence[str] = (), published: PublishedSplit | None = None
    ) -> SiteTable:
        """Read the table as any site does, and keep a share of its training rows."""
        table = super().read(repeat, complete=complete, published=published)
        rng = generator(self.seed + repeat, site=self.name, purpose="learning-curve")
        order = _random_order(table.training, table.schema.group, rng)
        # Sorted as they were, so that batches are those of a table that never had others.
        kept = np.sort(order[: max(1, round(self.share * len(order)))])
        return replace(table, training=table.training.iloc[kept].reset_index(drop=True))


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
    found = {one.name: one for one in find_sites(study, sites)}
    if site not in found:
        known = ", ".join(found)
        raise UsageError(f"--curve {site}: no site of the study{nearest(site, list(found))} Known: {known}")
    if closed := [one.name for one in found.values() if one.policy.disclosure != "open"]:
        raise UsageError(
            f"--curve compares models of some of a site's rows, and the policy of {', '.join(closed)} is not 'open'"
        )
    # Research sites are cut here, so that one of them can be given fewer rows.
    whole = study.replace({"dataset.partition": None}) if study.dataset.partition is not None else study
    points = []
    for share in SHARES:
        cut: dict[str, Site] = dict(found)
        if share < 1:
            cut[site] = FewerRows.of(found[site], share, study.seed)
        report = run(whole, sites=list(cut.values()), repeats=repeats, progress=progress).report
        primary = primary_of(report)
        own = report["sites"].get(site, {})
        if primary is None:
            raise UsageError(f"--curve: study {study.name!r} compares no models")
        points.append(CurvePoint(share=share, rows=_training_rows(own), run=report["run"], gain=gain_at(own, primary)))
    return tuple(points)


def _random_order(rows: pd.DataFrame, group: str | None, rng: np.random.Generator) -> np.ndarray:
    """Return rows in random order, those of one group together."""
    if not group:
        return rng.permutation(len(rows))
    groups = pd.factorize(rows[group])[0]
    return np.argsort(rng.permutation(int(groups.max()) + 1)[groups], kind="stable")


def _training_rows(figures: Mapping[str, Any]) -> int | None:
    """Return the training rows of a site's entry in a report, None where it keeps them back."""
    if not figures.get("rows") or not figures.get("holdout-rows"):
        return None
    return int(figures["rows"] - figures["holdout-rows"])
