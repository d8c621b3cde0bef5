"""Test rows in the training of a source's run.

This process must be able to read the tables of both runs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flfed.callbacks import WARNING
from flfed.errors import FlfedError
from flfed.federation.engines.engine import find_sites
from flfed.federation.recording.recorder import Recorder
from flfed.federation.recording.source_model import SEEN, source_of
from flfed.records.statistics.training_state import TRAINED_TEST_ROWS, trained_rows_in_words
from flfed.records.store.reader import RunReader
from flfed.rows.data import datasets
from flfed.rows.data.holdout import canonical_rows
from flfed.rows.data.schema import of_schema
from flfed.rows.data.site import Site, study_table
from flfed.rows.warm_start import SourceRows
from flfed.study.study import Study
from flfed.words import render, usage_error

if TYPE_CHECKING:
    import pandas as pd


EnrolledCheck = Callable[[Mapping[str, int]], None]
"""Receives the nodes by site, once the sites of a run are known."""


def source_rows(study: Study, series: str, sites: Sequence[Site], store: str) -> SourceRows | None:
    """Return the training rows of a series' source.

    It is None where the series begins from random arrays.

    Parameters
    ----------
    study : Study
        That begins with the source.
    series : str
    sites : sequence of Site
        Of that study; none where they are institutions. Where a program passed the sites of the earlier run, those of
        the same names stand for them.
    store : str
        Store of the earlier run.
    """
    source = source_of(study, series)
    if source is None:
        return None
    if not sites:
        return SourceRows(source)
    if study.is_covered:
        return SourceRows(source, why=render("run.source.covered"))
    if not source.run_id:
        return SourceRows(source, why=render("run.source.unnamed"))
    try:
        return SourceRows(source, _training_texts(source.run_id, study, sites, store))
    except FlfedError as error:
        return SourceRows(source, why=str(error))


def counting(
    check: EnrolledCheck, rows: SourceRows | None, study: Study, sites: Sequence[Site], repeat: int, recorder: Recorder
) -> EnrolledCheck:
    """Return a check of enrolled sites that counts test rows, too.

    The rows are in a source's training. The counts are recorded, and shown as a warning where there are some. Where
    they are unknown, a repeat other than the source's own notes that it drew other test rows.

    Parameters
    ----------
    check : callable
        The engine's own.
    rows : SourceRows or None
        None where there is nothing to count: the check stays as it is.
    study : Study
        That begins with the source.
    sites : sequence of Site
        Their tables are on this machine.
    repeat : int
    recorder : Recorder
    """
    if rows is None:
        return check

    def check_and_count(nodes: Mapping[str, int]) -> None:
        check(nodes)
        if rows.texts is None and repeat != rows.source.repeat:
            recorder.note(SEEN)
        if rows.texts is None and not rows.why:
            return
        facts: dict[str, Any] = {"source": rows.source.run, "why": rows.why}
        if rows.texts is not None:
            taking_part = [site for site in sites if site.name in nodes]
            facts |= _counted(rows.texts, study, taking_part, repeat, recorder)
        recorder.summary(TRAINED_TEST_ROWS, facts)
        for sentence in trained_rows_in_words(facts):
            recorder.note(sentence)
            recorder.progress(WARNING + sentence, 0, 1)

    return check_and_count


def _counted(
    texts: Collection[str], study: Study, sites: Sequence[Site], repeat: int, recorder: Recorder
) -> dict[str, Any]:
    """Return the counts of test rows among texts.

    Only counts that may be recorded are in it.
    """
    counts = {}
    for site in sites:
        own = _texts(study_table(study, site, repeat).holdout("warm-start"), study)
        counts[site.name] = {"rows": sum(text in texts for text in own), "of": len(own)}
    shared = recorder.shared_as
    together = [counts[site] for site in shared.summable(counts)]
    over_all = {key: sum(one[key] for one in together) for key in ("rows", "of")}
    return {**over_all, "sites": dict(shared.own(counts))}


def _texts(table: pd.DataFrame, study: Study) -> list[str]:
    return canonical_rows(of_schema(table, datasets.load(study.dataset.name).schema))


def _training_texts(run: str, study: Study, sites: Sequence[Site], store: str | None) -> set[str]:
    """Return the canonical texts of a run's training rows, and of its own source's.

    Raises FlfedError with the reason where they are unknown.
    """
    with RunReader.open(store) as reader:
        entry = reader.runs_of(run)[0]
        series = reader.series(run)
        options = reader.summary(reader.runs_of(series.series)[0].run, "asked") or {}
        entries = reader.sites(entry.run)
    earlier = Study.parse_recorded(series.study_text)
    if earlier.dataset.name != study.dataset.name:
        raise usage_error("run.source.dataset", dataset=earlier.dataset.name)
    if entry.hashes.get("schema") != datasets.load(study.dataset.name).schema.sha256():
        raise usage_error("run.source.schema", dataset=study.dataset.name)
    texts = _training_texts(earlier.warm_start, study, sites, store) if earlier.warm_start else set[str]()
    refused = {one.site for one in entries if one.status == "refused"}
    recorded_rows = _recorded_rows(entries)
    for site in _sites_of(earlier, options, sites):
        if site.name in refused:
            continue
        training = study_table(earlier, site, entry.repeat).training
        if recorded_rows.get(site.name, len(training)) != len(training):
            raise usage_error("run.source.table", site=site.name)
        texts.update(_texts(training, study))
    return texts


def _recorded_rows(entries: Iterable[Any]) -> dict[str, int]:
    """Return the training rows of the sites in a record."""
    whole = [one for one in entries if one.rows is not None and one.holdout_rows is not None]
    return {one.site: one.rows - one.holdout_rows for one in whole}


def _sites_of(earlier: Study, options: Mapping[str, Any], sites: Sequence[Site]) -> list[Site]:
    """Return the sites of an earlier run.

    Raises FlfedError where they are not on this machine.
    """
    names = options.get("names", ())
    if not options.get("given"):
        return [site for site in find_sites(earlier, options.get("sites")) if site.name in names]
    here = {site.name: site for site in sites}
    if absent := [name for name in names if name not in here]:
        raise usage_error("run.source.site", site=absent[0])
    return [here[name] for name in names]
