"""Partition of one table into research sites: by a column, evenly, by skewed labels, or by skewed sizes."""

from __future__ import annotations

import numpy as np
import pandas as pd

from flfed.rows.data.datasets import Dataset
from flfed.rows.data.holdout import Holdout, HoldoutByOrder
from flfed.rows.data.mapping import map_table
from flfed.rows.data.parsing.fields import site_name
from flfed.rows.data.policy import Policy
from flfed.rows.data.row_keys import order_keys, row_keys
from flfed.rows.data.site import Site
from flfed.rows.data.sources import Part
from flfed.seeds import generator
from flfed.study.tables import Partition
from flfed.words import usage_error


def cut(dataset: Dataset, partition: Partition) -> list[Site]:
    """Cut a dataset into research sites, in the order of their names.

    They share the dataset's table.

    Parameters
    ----------
    dataset : Dataset
        Dataset with a table of its own.
    partition : Partition

    Raises
    ------
    UsageError
        If a site would have fewer rows than the partition's least, `by` is no column and no known word, two of
        its values give one name, or `widths` has not one for each site.

    Notes
    -----
    Rows are sorted canonically first, so that the cut does not depend on the file's order.
    "dirichlet" draws each site's share of every class (of five equally large groups of a numeric
    target): Hsu et al. 2019, "Measuring the effects of non-identical data distribution".
    """
    table = _mapped(dataset.whole_table(), dataset)
    table = table.take(order_keys(row_keys(table)))
    owner, names = _owners(table, dataset, partition)
    counts = np.bincount(owner, minlength=len(names))
    # A site without any row has too few as well.
    if counts.min() < partition.min_rows:
        if partition.by in ("dirichlet", "quantity"):
            raise usage_error("rows.partition.alpha", by=partition.by, least=partition.min_rows)
        raise usage_error("rows.partition.few", by=partition.by, least=partition.min_rows)
    # Mapped twice, as if each site read its own: a number of 17 digits may change in the last bits. Sites hold slices.
    ordered = partition.holdout and HoldoutByOrder(partition.holdout)
    if ordered:
        ordered.check(dataset.schema)
    rows = _mapped(table.take(np.argsort(owner, kind="stable")), dataset)
    ends = np.cumsum(counts)
    policy = Policy(disclosure="open", resplit=True)
    widths = dict(zip(sorted(names), partition.widths or [1.0] * len(names), strict=False))
    if len(partition.widths) not in (0, len(names)):
        raise usage_error("rows.partition.widths", widths=list(partition.widths), sites=len(names))
    sites = [
        Site(
            name=name,
            dataset=dataset.name,
            source=Part(rows.iloc[end - count : end]),
            holdout=ordered or Holdout(salt=name),
            title=f"{dataset.schema.title or dataset.name}, {name}",
            policy=policy.model_copy(update={"width": widths[name]}),
        )
        for name, count, end in zip(names, counts, ends, strict=True)
    ]
    return sorted(sites, key=lambda site: site.name)


def _mapped(raw: pd.DataFrame, dataset: Dataset) -> pd.DataFrame:
    table, findings = map_table(raw, dataset.schema, {})
    if findings:
        raise findings[0].error()
    return table


def _owners(table: pd.DataFrame, dataset: Dataset, partition: Partition) -> tuple[np.ndarray, list[str]]:
    """Return the number of each row's site [rows], and the sites' names by number."""
    # A column of the schema is a natural partition: each value is a site.
    if partition.by in dataset.schema.columns:
        owner, values = pd.factorize(table[partition.by], use_na_sentinel=False)
        names = [site_name(f"{dataset.name}-{value}") for value in values]
        if len(set(names)) < len(names):
            raise usage_error("rows.partition.name", by=partition.by)
        return owner, names
    rng = generator(partition.seed, site=dataset.name, purpose=f"partition/{partition.by}")
    rows = len(table)
    if partition.by == "iid":
        owner = rng.permutation(rows) % partition.sites
    elif partition.by == "quantity":
        shares = rng.dirichlet(np.full(partition.sites, partition.alpha))
        owner = _by_shares(rng.permutation(rows), shares, rows)
    elif partition.by == "dirichlet":
        # Each class is dealt by shares of its own, which skews the labels.
        owner = np.zeros(rows, dtype=int)
        labels = _labels(table, dataset)
        for label in np.unique(labels):
            own = rng.permutation(np.flatnonzero(labels == label))
            shares = rng.dirichlet(np.full(partition.sites, partition.alpha))
            owner[own] = _by_shares(np.arange(len(own)), shares, len(own))
    else:
        raise usage_error("rows.partition.by", by=partition.by, dataset=dataset.name)
    # Zeros before the numbers make their order the order of names.
    width = len(str(partition.sites))
    return owner, [f"{dataset.name}-{number + 1:0{width}d}" for number in range(partition.sites)]


def _by_shares(place: np.ndarray, shares: np.ndarray, rows: int) -> np.ndarray:
    """Deal consecutive places to sites by shares, and return the site of each place 0..rows-1."""
    bounds = np.floor(np.cumsum(shares)[:-1] * rows)
    return np.searchsorted(bounds, place, side="right")


def _labels(table: pd.DataFrame, dataset: Dataset) -> np.ndarray:
    target = table[dataset.schema.target]
    # A numeric target has no classes: five groups of equal size replace them.
    if dataset.schema.task == "regression":
        return np.asarray(pd.qcut(target, 5, labels=False, duplicates="drop"))
    return pd.Index(dataset.schema.classes).get_indexer(pd.Index(target))
