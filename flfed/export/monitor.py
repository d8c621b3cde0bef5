"""Training rows by groups in a model's folder, `monitor.json`, and how far a table has moved from them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

import numpy as np
from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from scipy.special import logit

from flfed.export.model_folder import SharedModel
from flfed.export.predictions import Predictions
from flfed.records.store.reader import RunReader
from flfed.rows.features.encode import coded
from flfed.rows.model_files import MONITOR
from flfed.summaries.score_bins import ScoreBins, dense
from flfed.summaries.stability import Group, group_cells, stability_index
from flfed.words import render, usage_error

MOST_BINS = 4096
MOST_ROWS = 2**53


@with_config(ConfigDict(strict=True, extra="forbid", allow_inf_nan=False))
@dataclass(frozen=True, kw_only=True)
class References:
    """Training rows by groups of each column, and test rows by groups of the score, in bins of the log-odds.

    `about` is for people who open the file. Without counts of scores `score` is empty.
    """

    about: str
    columns: dict[str, tuple[Group, ...]]
    score: tuple[Group, ...]
    bins: ScoreBins


FILE: TypeAdapter[References] = TypeAdapter(References)


def references_of(reader: RunReader, run: str) -> bytes | None:
    """Return `monitor.json` of a run's record, None where it has no groups of training rows.

    The groups of the score are of three sites or more, unless all are open: of two, one could subtract its own rows.
    """
    groups = reader.summary(run, "training-groups")
    if groups is None:
        return None
    is_open = all(site.disclosure == "open" for site in reader.sites(run) if site.status == "accepted")
    histograms = reader.summary(run, "score-histograms")
    bins = ScoreBins()
    score: tuple[Group, ...] = ()
    if histograms is not None and histograms["all"] is not None:
        # Of two sites, each could take its own part from the sum.
        if histograms["combined-sites"] >= (1 if is_open else 3):
            bins = ScoreBins.of(histograms)
            # Test rows all have a score; the last cell is for rows without one.
            counts = np.append(dense(histograms["all"], bins.bins).sum(axis=0), 0).astype(int)
            score = group_cells(counts, np.ones(len(counts), dtype=bool), int(counts.sum()), is_ordered=True)
    columns = TypeAdapter(dict[str, tuple[Group, ...]]).validate_python(groups)
    made = References(about=render("export.notes.monitor"), columns=columns, score=score, bins=bins)
    return (json.dumps(asdict(made), ensure_ascii=False) + "\n").encode()


def monitor(model: SharedModel, predictions: Predictions) -> dict[str, Any]:
    """Return the index of the score, and index and missing share of each column, on the rows of predictions.

    Raises
    ------
    UsageError
        If the model's folder has no groups of training rows, or none of its columns.
    """
    if model.monitor is None:
        raise usage_error("export.errors.unmonitored")
    references = _read(model.monitor, model)
    table = predictions.table
    if model.study.encode.rows == "complete":
        # The model was trained on such rows alone, and predicts no others.
        table = table[~np.isnan(predictions.values).any(axis=1)]
    rows = coded(table, model.layout)
    score = None
    if references.score:
        probability = predictions.values[:, 0]
        with np.errstate(divide="ignore"):
            places = references.bins.places(logit(probability[~np.isnan(probability)]))
        counts = np.bincount(places, minlength=references.bins.bins + 1)
        score = stability_index(references.score, counts)
    columns = {}
    for column in model.layout.features:
        counts = np.bincount(rows.codes[column.name], minlength=len(column.cells))
        index = stability_index(references.columns[column.name], counts)
        columns[column.name] = {"psi": index, "missing": float(counts[-1] / counts.sum())}
    return {"rows": rows.rows, "score": score, "columns": columns}


def _read(content: bytes, model: SharedModel) -> References:
    """Return the groups in a file, which are those of all cells of the model's columns and score."""
    error = usage_error("export.errors.groups", path=MONITOR)
    try:
        references = FILE.validate_json(content)
    except (ValidationError, RecursionError):
        raise error from None
    cells = {column.name: len(column.cells) for column in model.layout.features}
    bins = references.bins
    spread = 1.0 if bins.spread is None else bins.spread
    are_bins = 1 <= bins.bins <= MOST_BINS and min(bins.limit, spread) > 0
    if not are_bins or references.columns.keys() != cells.keys() or not _are_whole(references.columns, cells):
        raise error
    if references.score:
        if model.layout.task != "binary" or not _are_whole({"": references.score}, {"": bins.bins + 1}):
            raise error
    return references


def _are_whole(columns: Mapping[str, tuple[Group, ...]], cells: Mapping[str, int]) -> bool:
    """Return whether each cell of each column is in one of its groups, all of which have rows."""
    for name, groups in columns.items():
        if sorted(chain.from_iterable(group.cells for group in groups)) != list(range(cells[name])):
            return False
        if not all(0 < group.rows <= MOST_ROWS for group in groups):
            return False
    return True
