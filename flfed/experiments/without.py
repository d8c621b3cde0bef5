"""A study run with and without some people's rows: how far model and figures move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from flfed.callbacks import Progress, no_progress
from flfed.errors import UsageError
from flfed.federation.engines.local_sites import find_sites
from flfed.federation.server.run import Result, run
from flfed.rows.data import datasets
from flfed.rows.data.mapping import plain_text
from flfed.rows.data.site import Site
from flfed.rows.snapshots.opt_outs import Excluded
from flfed.study.study import Study
from flfed.updates.checkpoints import checkpoint as checkpoints


@dataclass(frozen=True, kw_only=True)
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
    given = sites
    sites = find_sites(study, sites)
    if closed := [site.name for site in sites if site.policy.disclosure != "open"]:
        raise UsageError(
            f"--without shows what single rows change in a model, and the policy of {', '.join(closed)} is not 'open': "
            "in a consortium a site leaves people out itself (excluded.csv, flfed site refresh, a new approval)"
        )
    whole = run(study, sites=given, progress=progress)
    if study.dataset.partition is not None:
        dataset = datasets.load(study.dataset.name)
        table = dataset.whole_table()
        out = _theirs(table, people, dataset.name)
        counts = int(out.sum()), int(plain_text(table[people.column][out]).nunique())
        _check_found(*counts)
        remaining = Remaining(dataset.name, dataset.folder, dataset.schema, dataset.source, people)
        with datasets.in_memory(remaining):
            left = run(study, progress=progress)
    else:
        found = [people.applied(site) for site in sites]
        counts = sum(of.rows for _, of in found), sum(of.found for _, of in found)
        _check_found(*counts)
        left = run(study, sites=[site for site, _ in found], progress=progress)
    largest, root = _moved(*(checkpoints.final(result.report["run"]).arrays for result in (whole, left)))
    figures = {
        metric: (of["value"], left.report["global"][metric]["value"]) for metric, of in whole.report["global"].items()
    }
    return Without(
        rows=counts[0],
        people=counts[1],
        whole=whole,
        left=left,
        largest=largest,
        root_mean_square=root,
        figures=figures,
    )


def _check_found(rows: int, people: int) -> None:
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
