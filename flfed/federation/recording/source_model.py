"""Models of earlier runs that a study begins from (`[model] warm-start`)."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from flfed.callbacks import WARNING
from flfed.errors import FlfedError, UsageError
from flfed.federation.recording.recorder import Recorder
from flfed.records.statistics.training_state import WARM_START, seen_in_words
from flfed.records.store.reader import RunReader
from flfed.rows.data import datasets
from flfed.rows.data.schema import Schema
from flfed.rows.own_parts import nested_start
from flfed.rows.study_model import first_model, study_layout
from flfed.rows.warm_start import Source, fitting_columns, read_source, rewritten
from flfed.study.study import Study
from flfed.summaries.summary import Encoder, Layout, arrays_sha256
from flfed.updates.arrays import Arrays, shapes_of
from flfed.updates.checkpoints import checkpoint as checkpoints
from flfed.updates.checkpoints.checkpoint import Checkpoint
from flfed.updates.extra import extra_shapes

UNCOVERED = "The privacy promise of this run does not cover that model's earlier training."
SOURCE_NAME = "source"
"""Name of a series' copy of the model that it begins from, among its checkpoints."""


def source_model(study: Study, *, series: str = "", store: str | None = None) -> Source:
    """Return the model that a study begins from.

    Parameters
    ----------
    study : Study
    series : str
        A series of the study, whose copy of the model is used where there is one.
    store : str, optional
        The store with the run of that name; as for `flfed.run`.

    Raises
    ------
    UsageError
        If there is none of that name, it is another than the study's text names, or the study's model cannot begin from
        it.
    """
    name = study.warm_start
    where = f"[model]: warm-start={study.warm_start!r}"
    source = load_source(series) if series else None
    if source is None:
        source = read_source(Path(name), where) if Path(name).is_dir() else _of_run(name, where, store)
    source.check(study, datasets.load(study.dataset.name).schema, where)
    return source


def source_of(study: Study, series: str = "") -> Source | None:
    """Return the model that a study begins from; None where it begins from drawn arrays."""
    return source_model(study, series=series) if study.warm_start else None


def keep_source(study: Study, series: str, store: str | None) -> None:
    """Copy the model that a series begins from, unless it has a copy: it can then resume without the source.

    Raises as `source_model` does.
    """
    if not study.warm_start or load_source(series) is not None:
        return
    source = source_model(study, store=store)
    checkpoint = Checkpoint(round=0, arrays=source.arrays, encoder=source.encoder, facts=source.facts())
    checkpoints.write(series, checkpoint, final=True, name=SOURCE_NAME)


def load_source(series: str) -> Source | None:
    """Return a series' copy of its model; None where it is absent or damaged."""
    try:
        checkpoint = checkpoints.read(_source_path(series))
    except FlfedError:
        return None
    return Source.of_facts(checkpoint.facts, checkpoint.arrays, checkpoint.encoder)


def forget_source(series: str) -> None:
    """Remove a completed series' copy of the model that it began from."""
    _source_path(series).unlink(missing_ok=True)
    with suppress(OSError):  # the folder of a run has its model; that of a series of several runs is empty now
        checkpoints.folder_of(series).rmdir()


def _source_path(series: str) -> Path:
    return checkpoints.folder_of(series) / f"{SOURCE_NAME}{checkpoints.SUFFIX}"


def named_start(study: Study, *, approved: bool, store: str | None = None) -> Study:
    """Return the study with the hash of the model that it begins from, after checking that it can.

    Raises as `source_model` does; a text that sites `approved` must have the hash itself.
    """
    if not study.warm_start:
        return study
    if approved:
        required_hash(study)
    source = source_model(study, store=store)
    return study if study.start_sha256 else study.replace({"model.start-sha256": source.sha256()})


def required_hash(study: Study) -> None:
    """Refuse a study for institutions whose text lacks the hash of the model that it begins from.

    Raises
    ------
    UsageError
        With the line that is missing, where the model is on this machine.
    """
    if study.warm_start and not study.start_sha256:
        raise UsageError(
            f"[model]: warm-start={study.warm_start!r} needs start-sha256, the hash of that model, as sites approve "
            "the model they start from. flfed study check shows it"
        )


def start_arrays(
    study: Study, schema: Schema, encoder: Encoder, repeat: int, widths: Iterable[float] = (), *, series: str = ""
) -> Arrays:
    """Return the arrays before the first round.

    Parameters
    ----------
    study : Study
    schema : Schema
    encoder : Encoder
        Of the run's sites.
    repeat : int
    widths : iterable of float
        Shares of the hidden units that the sites train.
    series : str
        As for `source_model`.

    Raises
    ------
    UsageError
        If a site trains a part of a source.
    """
    drawn = first_model(study, schema, repeat)
    widths = list(widths)
    source = source_of(study, series)
    if source is None:
        return nested_start(study.model.build("model"), drawn, widths)
    if any(width < 1 for width in widths):
        why = "has all hidden units, and a site trains a part of them (width)"
        raise UsageError(f"[model]: warm-start={study.warm_start!r} {why}")
    return rewritten(source, drawn, study_layout(study, schema), encoder)


def source_facts(source: Source, layout: Layout) -> dict[str, Any]:
    """Return the facts in a run's record on the model that it begins from."""
    taken = fitting_columns(source.layout, layout)
    return {
        "from": source.run,
        "start-sha256": source.sha256(),
        "arrays-sha256": arrays_sha256(source.arrays),
        "columns": taken,
        "as-drawn": [column.name for column in layout.features if column.name not in taken],
        "left-out": [column.name for column in source.layout.features if column.name not in taken],
    }


def record_source(recorder: Recorder, source: Source, study: Study, layout: Layout, repeat: int) -> None:
    """Record the model that a run begins with, and warn where it may have been trained on test rows."""
    facts = source_facts(source, layout) | {"may-have-seen": source.may_have_seen(study, repeat)}
    recorder.summary(WARM_START, facts)
    for sentence in seen_in_words(facts):
        recorder.note(sentence)
        recorder.progress(WARNING + sentence, 0, 1)


def source_in_words(study: Study) -> tuple[str, dict[str, Any]] | None:
    """Return a sentence and facts on the model that a study begins with; None where it begins with none."""
    if not study.warm_start:
        return None
    source = source_model(study)
    facts = source_facts(source, study_layout(study, datasets.load(study.dataset.name).schema))
    named = {"as drawn": facts["as-drawn"], "left out": facts["left-out"]}
    rest = "".join(f"; {what}: {', '.join(columns)}" for what, columns in named.items() if columns)
    columns, source_hash = len(facts["columns"]), facts["start-sha256"]
    if study.train:
        sentences = [f"Begins with the model {source.run}, of which {columns} columns are taken{rest}."]
    else:
        sentences = [f"Validates the model {source.run} over {columns} columns, and trains nothing."]
    if not study.start_sha256:
        sentences.append(f'For institutions write start-sha256 = "{source_hash}".')
    return " ".join(sentences), facts


def _of_run(name: str, where: str, store: str | None) -> Source:
    """Return the final model of a run of a store, of this machine."""
    try:
        with RunReader.open(store) as reader:
            runs = reader.runs_of(name)
            series = reader.series(name)
    except UsageError as error:
        raise UsageError(f"{where} is no folder here, and {error}") from None
    if len(runs) > 1:
        raise UsageError(f"{where} has {len(runs)} repeats, each with a model: name one, such as {runs[0].run}")
    run = runs[0]
    try:
        final = checkpoints.final(run.run)
    except FlfedError as error:
        raise UsageError(f"{where}: {error}") from None
    study = Study.parse(series.study_text)
    if site_arrays := extra_shapes(study, shapes_of(final.arrays)).own_part:
        why = f"where each site has its own {', '.join(site_arrays)}: there is no whole model to begin with"
        raise UsageError(f"{where} was run under {study.strategy.name!r}, {why}")
    schema = Schema.model_validate(final.facts["schema"])
    source = Source.of_study(run.run, study, schema, final.arrays, final.encoder)
    return replace(source, repeat=run.repeat)
