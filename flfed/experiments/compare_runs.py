"""Comparison of two runs: differences of their settings, and of their results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from flfed.errors import FlfedError
from flfed.records.reports.catalogue import comparison_warnings
from flfed.records.reports.recorded_run import Recorded, TrainingSums, paired
from flfed.records.reports.report import REFERENCES, report
from flfed.records.reports.site_verdict import SITE_ARMS
from flfed.records.store.entries import RunEntry
from flfed.records.store.reader import RunReader
from flfed.records.store.tables import plain
from flfed.study.study_text import differing_values
from flfed.updates.checkpoints import checkpoint as checkpoints
from flfed.words import render

HEAD = ("run", "study", "status", "reason", "engine", "rounds", "repeats", "seconds")
HASHES = ("study", "schema", "code", "sums", "encoder", "arrays")


def compare_runs(a: str, b: str, *, store: str | None = None) -> dict[str, Any]:
    """Return the object of `flfed run compare A B --json`.

    Parameters
    ----------
    a, b : str
        Ids of runs or series, or "latest".
    store : str, optional
        Database URL.

    Returns
    -------
    comparison : dict
        "a" and "b" (facts of each run), "primary", "settings" (keys of the study that differ), and "hashes" (each
        with "equal"; null where one is unknown; of repeats that differ, the hash of each, with blanks between).
        "warnings": sentences on other datasets, metrics or rows. Figures of each model over all sites and by
        site, each with "a", "b" and "difference" = b - a. "arrays-max-difference": the largest |b - a| over all entries
        of the final arrays, of all repeats; null with "arrays-reason" where it is unknown. "paired": b - a by metric,
        over all sites, with its 95 % interval over the random splits of both, or the reason why there is none
        (`recorded_run.paired`).

    Raises
    ------
    UsageError
        If one is not in the store.
    """
    with RunReader.open(store) as reader:
        runs = [reader.runs_of(name) for name in (a, b)]
        reports = [report(reader, name) for name in (a, b)]
        texts = [reader.series(name).study_text for name in (a, b)]
        base, other = (Recorded.read(reader, each) for each in runs)
        sums = [TrainingSums.read(reader, each) for each in (base, other)]
        hashes = [_hashes(reader, *pair) for pair in zip(runs, sums, sums[::-1])]
    why = render("experiments.compare.rows") if sums[0].are_of_other_rows(sums[1]) else ""
    first, second = reports
    apart, reason = _arrays_apart(*runs)
    differing = differing_values(dict(zip("ab", texts)))
    sites = (of.runs[0][1].values() for of in (base, other))
    warnings = comparison_warnings(zip("AB", reports, texts, sites))
    hashes_by_name = {name: _equal(hashes[0].get(name), hashes[1].get(name)) for name in HASHES}
    if why:
        warnings = warnings or [render("experiments.compare.chance", why=why)]
    return {
        "a": _head(first),
        "b": _head(second),
        "primary": {"a": base.first.primary, "b": other.first.primary},
        "settings": plain([{"key": key, **values} for key, values in differing.items()]),
        "warnings": warnings,
        "hashes": hashes_by_name,
        **{arm: _figures(first[arm], second[arm]) for arm in REFERENCES},
        "paired": {metric: paired(base, other, (None, "global", metric), why) for metric in first["global"]},
        "sites": _sites(first["sites"], second["sites"]),
        "arrays-max-difference": apart,
        "arrays-reason": reason,
    }


def _head(report: Mapping[str, Any]) -> dict[str, Any]:
    return {key: report[key] for key in HEAD}


def _sites(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the figures of two runs' sites, side by side."""
    sites = {}
    for site in sorted({*first, *second}):
        one = first.get(site) or {}
        two = second.get(site) or {}
        sites[site] = {arm: _figures(one.get(arm), two.get(arm)) for arm in SITE_ARMS}
    return sites


def _hashes(reader: RunReader, runs: Sequence[RunEntry], sums: TrainingSums, others: TrainingSums) -> dict[str, str]:
    """Return the hashes of a run that are known; of a series those of all repeats, or the one in which they agree."""
    hashes_by_name: dict[str, dict[Any, None]] = {name: {} for name in HASHES}
    theirs = set(chain(*others.hashes))
    for run, rounded in zip(runs, sums.hashes, strict=True):
        encoder = (reader.summary(run.run, "encoder") or {}).get("sha256")
        # Sums of the same rows have one of their two hashes in common.
        shared = max(rounded, key=theirs.__contains__, default=None)
        hashes = {**run.hashes, "sums": shared, "encoder": encoder, "arrays": run.arrays_sha256}
        for name, several in hashes_by_name.items():
            several[hashes.get(name)] = None
    return {name: " ".join(several) for name, several in hashes_by_name.items() if None not in several}


def _equal(a: str | None, b: str | None) -> dict[str, Any]:
    equal = None if a is None or b is None else a == b
    return {"a": a, "b": b, "equal": equal}


def _figures(a: dict[str, Any] | None, b: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return both values of each metric and b - a; None if neither run has this model."""
    if not a and not b:
        return None
    figures = {}
    first = a or {}
    second = b or {}
    for metric in first | second:
        one, other = (by_metric.get(metric, {}).get("value") for by_metric in (first, second))
        apart = None if one is None or other is None else other - one
        figures[metric] = {"a": one, "b": other, "difference": apart}
    return figures


def _arrays_apart(a: Sequence[RunEntry], b: Sequence[RunEntry]) -> tuple[float | None, str]:
    """Return the largest difference of two runs' arrays over all repeats, or the reason why there is none."""
    # Repeats are compared in pairs, by their order.
    if len(a) != len(b):
        return None, render("experiments.compare.repeats", a=len(a), b=len(b))
    largest = 0.0
    for one, other in zip(a, b, strict=True):
        try:
            first, second = (checkpoints.final(run.run).arrays for run in (one, other))
        except FlfedError as error:
            return None, str(error)
        # Models of other shapes have no entry-wise difference.
        if _shapes(first) != _shapes(second):
            return None, render("experiments.compare.shapes")
        apart = [float(np.abs(second[name] - first[name]).max(initial=0.0)) for name in first]
        largest = max([largest, *apart])
    return largest, ""


def _shapes(arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    return {name: value.shape for name, value in arrays.items()}
