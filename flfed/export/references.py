"""Groups of training rows in a model's folder: `monitor.json`, written from a run's record and read without trust."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from flfed.records.store.reader import RunReader
from flfed.records.store.visibility import LEAST_TOGETHER
from flfed.rows.model_files import MONITOR
from flfed.summaries.score_bins import ScoreBins, dense
from flfed.summaries.stability import Reference, make_reference
from flfed.summaries.summary import Layout
from flfed.words import render, usage_error

MOST_BINS = 4096
MOST_ROWS = 2**53
STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


@with_config(STRICT)
@dataclass(frozen=True, kw_only=True)
class References:
    """Training rows by groups of each column, and test rows by groups of the score.

    Attributes
    ----------
    about : str
        For people who open the file.
    columns : tuple of Reference
        In the layout's order.
    score : Reference
        Of the log-odds, in bins; with a reason where the run's record has no counts of them.
    bins : ScoreBins
    sites, requested : int
        Sites in the counts of the score, and in the comparison.
    """

    about: str
    columns: tuple[Reference, ...]
    score: Reference
    bins: ScoreBins
    sites: int
    requested: int

    def as_json(self) -> bytes:
        """Return the file."""
        return (json.dumps(asdict(self), ensure_ascii=False) + "\n").encode()


FILE: TypeAdapter[References] = TypeAdapter(References)
RECORD: TypeAdapter[tuple[Reference, ...]] = TypeAdapter(tuple[Reference, ...])


def references_of(reader: RunReader, run: str) -> References | None:
    """Return the groups of training rows in a run's record, or None."""
    is_open = all(site.disclosure == "open" for site in reader.sites(run) if site.status == "accepted")
    least = 1 if is_open else LEAST_TOGETHER
    histograms = reader.summary(run, "score-histograms")
    return recorded_references(reader.summary(run, "training-groups"), histograms, least)


def recorded_references(
    groups: Mapping[str, Any] | None, histograms: Mapping[str, Any] | None, least_sites: int
) -> References | None:
    """Return the groups of a run's record, or None where it has none.

    Parameters
    ----------
    groups, histograms : dict or None
        Objects "training-groups" and "score-histograms" of the record.
    least_sites : int
        Sites that the groups of the score are of at least: of two, a site could subtract its own rows.
    """
    if groups is None:
        return None
    columns = RECORD.validate_json(json.dumps(groups["columns"]))
    score = Reference(column="", reason="unscored")
    bins = ScoreBins()
    sites = requested = 0
    if histograms is not None and histograms["all"] is not None:
        bins = ScoreBins.of(histograms)
        sites = histograms["combined-sites"]
        requested = histograms["requested-sites"]
        score = Reference(column="", reason="few-sites")
        if sites >= least_sites:
            # Test rows all have a score; the last cell is for rows without one.
            counts = np.append(dense(histograms["all"], bins.bins).sum(axis=0), 0).astype(int)
            score = make_reference("", counts, np.ones(len(counts), dtype=bool), int(counts.sum()))
    about = render("export.notes.monitor")
    return References(about=about, columns=columns, score=score, bins=bins, sites=sites, requested=requested)


def read_references(content: bytes, layout: Layout, folder: Path) -> References:
    """Return the groups in a file.

    Raises
    ------
    UsageError
        If they are no groups of the layout's columns.
    """
    error = usage_error("export.errors.groups", path=folder / MONITOR)
    try:
        references = FILE.validate_json(content)
    except (ValidationError, RecursionError):
        raise error from None
    if not _are_of(references, layout):
        raise error
    return references


def _are_of(references: References, layout: Layout) -> bool:
    """Return whether groups are those of a layout's columns, in its order, and of the bins of a score."""
    if [one.column for one in references.columns] != [column.name for column in layout.features]:
        return False
    for reference, column in zip(references.columns, layout.features, strict=True):
        if not _fits(reference, len(column.cells), has_mean=column.kind == "number"):
            return False
    if layout.task != "binary" and not references.score.reason:
        return False
    return _are_bins(references.bins) and _fits(references.score, references.bins.bins + 1, has_mean=False)


def _are_bins(bins: ScoreBins) -> bool:
    """Return whether bins are few, and have a width."""
    spread = 1.0 if bins.spread is None else bins.spread
    return 1 <= bins.bins <= MOST_BINS and min(bins.limit, spread) > 0


def _fits(reference: Reference, cells: int, *, has_mean: bool) -> bool:
    """Return whether groups share a column's cells without overlap, and have credible numbers."""
    places = [*chain.from_iterable(group.cells for group in reference.groups), *reference.rare]
    # As many cells are left as there should be only where each place is a cell, and none is there twice.
    if len(set(range(cells)) - set(places)) != cells - len(places):
        return False
    if not all(0 < group.rows <= MOST_ROWS for group in reference.groups):
        return False
    moments = (reference.mean, reference.deviation)
    if moments == (None, None):
        return True
    is_spread = None not in moments and (reference.deviation or 0) > 0
    return is_spread and has_mean and bool(reference.groups)
