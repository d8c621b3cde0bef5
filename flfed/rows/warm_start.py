"""Warm starts: a model of an earlier run, rewritten for the encoder of this one.

Columns go by name. A weight of the source is a weight of its own inputs, whose centre, scale and shares are those of
the source's sites. Here it is changed so that the output stays the same for the same row.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from flfed.errors import UsageError
from flfed.refusals import Refusal
from flfed.rows.data.schema import Schema
from flfed.rows.features.encode import input_names, input_slices
from flfed.rows.model_files import read_model_files
from flfed.rows.study_model import first_model, model_shapes, study_layout
from flfed.rows.training.functional import layers_of
from flfed.study.study import Study
from flfed.summaries.summary import Arrays, ColumnLayout, Encoder, Layout, arrays_sha256
from flfed.words import render, usage_error

MISSING = None
SLOPE = ""
"""What stands for a column's being missing, and for the number that it is, in place of a value of it."""
REPEAT = re.compile(r".*-r(\d+)")
"""How the id of a run of several repeats ends."""
RUN_ID = re.compile(r"\d{8}-\d{6}-[0-9a-f]{4}(-r\d+)?")
"""What a run is named; a model from elsewhere has the name of its file in place of it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """Model that a run begins from.

    Attributes
    ----------
    run : str
        What a person called it: a run's id, or the folder of an exported model.
    layout : Layout
        Of its inputs.
    encoder : Encoder
    layers : tuple of (str, str)
        Names of each layer's weights and intercepts.
    arrays : dict of name to array
    repeat : int
        Of its series, whose test rows it did not learn from.
    test_rows : str
        What its run's test rows followed from, beside the repeat; "" where that is not known.
    """

    run: str
    layout: Layout
    encoder: Encoder
    layers: tuple[tuple[str, str], ...]
    arrays: Arrays
    repeat: int = 0
    test_rows: str = ""

    @classmethod
    def of_study(cls, name: str, study: Study, schema: Schema, arrays: Arrays, encoder: Encoder) -> Source:
        """Return the model of a study that was run, by the schema that it was run with.

        Raises
        ------
        UsageError
            If the arrays are of other inputs than the schema's, or each site scaled its rows by itself.
        """
        if study.encode.scaler == "per-site":
            raise usage_error("models.start.refused", name=name, why=Refusal("source-per-site"))
        layout = study_layout(study, schema)
        layers = _layers(study)
        if layers and len(arrays[layers[0][0]]) != len(input_names(layout)):
            raise usage_error("models.start.schema", name=name)
        # A model that began with another one has learned from that one's training rows too.
        test_rows = "" if study.warm_start else _test_rows(study)
        return cls(run=name, layout=layout, encoder=encoder, layers=layers, arrays=arrays, test_rows=test_rows)

    def may_have_seen(self, study: Study, repeat: int) -> bool:
        """Return whether test rows of a study's repeat may be among the rows that it was trained on."""
        redrawn = study.split.redraw or not study.split.fixed
        return self.test_rows != _test_rows(study) or (redrawn and self.repeat != repeat)

    def facts(self) -> dict[str, Any]:
        """Return for JSON what it is besides its numbers."""
        of_run = {"run": self.run, "repeat": self.repeat, "test-rows": self.test_rows}
        return {**of_run, "layout": asdict(self.layout), "layers": self.layers}

    @classmethod
    def of_facts(cls, facts: Mapping[str, Any], arrays: Arrays, encoder: Encoder) -> Source:
        """Return a source from its numbers and what `facts` returned.

        Raises ValueError, TypeError or KeyError.
        """
        layout = TypeAdapter(Layout).validate_python(facts["layout"])
        layers = tuple((weight, bias) for weight, bias in facts["layers"])
        of_run = {"run": facts["run"], "repeat": facts["repeat"], "test_rows": facts["test-rows"]}
        return cls(layout=layout, encoder=encoder, layers=layers, arrays=arrays, **of_run)

    def sha256(self) -> str:
        """Return the SHA-256 of all that a run takes of it: layout, encoder, layers and arrays."""
        return _sha256(self.layout, self.layers, self.encoder, self.arrays)

    def check(self, study: Study, schema: Schema, where: str) -> None:
        """Refuse to begin a study with it.

        `where` says in an error which source it is.

        Raises
        ------
        UsageError
            If the study's text names another model, or the study's model cannot begin from it.
        """
        if study.start_sha256 not in ("", sha256 := self.sha256()):
            raise usage_error("models.start.hash", where=where, sha256=sha256, expected=study.start_sha256)
        if study.train:
            why = defect(self, study.model.build("model"), first_model(study, schema), study_layout(study, schema))
        else:
            why = _changed(self, study, schema)
        if why:
            raise UsageError(f"{where}: {why}")


def model_sha256(study: Study, schema: Schema, arrays: Arrays, encoder: Encoder) -> str:
    """Return the hash of a message's model as `Source.sha256` does: with the study's own layout and layers."""
    return _sha256(study_layout(study, schema), _layers(study), encoder, arrays)


def _test_rows(study: Study) -> str:
    """Return what a study's test rows follow from, beside the repeat."""
    return repr((study.dataset.name, study.dataset.partition, study.split))


def _layers(study: Study) -> tuple[tuple[str, str], ...]:
    """Return the names of a study's layers; none of trees."""
    model = study.model.build("model")
    return () if getattr(model, "plain", False) else layers_of(model)


def _sha256(layout: Layout, layers: Sequence[tuple[str, str]], encoder: Encoder, arrays: Arrays) -> str:
    facts = {
        "layout": asdict(layout),
        "layers": layers,
        "encoder-sha256": encoder.sha256(),
        "arrays-sha256": arrays_sha256(arrays),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _changed(source: Source, study: Study, schema: Schema) -> str:
    """Return why a study cannot score a source as it is, "" where it can: nothing is rewritten for it."""
    layout = study_layout(study, schema)
    if _outcome(source.layout) != _outcome(layout):
        return render("models.start.target", source=source.layout.target.name, target=layout.target.name)
    own = {column.name: column for column in source.layout.features}
    asked = {column.name: column for column in layout.features}
    differing = sorted(name for name in own.keys() | asked.keys() if own.get(name) != asked.get(name))
    if differing:
        return render("models.start.differ", columns=", ".join(differing))
    if source.layout != layout or source.layers != _layers(study):
        return render("models.start.widths")
    shapes = {name: (value.shape, value.dtype) for name, value in source.arrays.items()}
    if shapes != model_shapes(study, schema):
        return render("models.start.widths")
    return ""


FindSource = Callable[[Study], Source | None]
"""Returns the model of an earlier run that a study begins from: no message brings it."""


def no_source(study: Study) -> Source | None:
    """Return None: what answers here has no model of an earlier run."""
    return None


def read_source(folder: Path, where: str) -> Source:
    """Return the model of an exported folder, none of whose files is believed.

    `where` says in an error what names the folder.

    Raises
    ------
    UsageError
        If it is no folder of a model.
    """
    try:
        files = read_model_files(folder)
    except UsageError as error:
        # Who names the folder in `where` need not read it twice.
        raise UsageError(f"{where}: {str(error).removeprefix(f'{folder}: ')}") from None
    repeat = REPEAT.fullmatch(files.facts.run)
    source = Source.of_study(str(folder), files.study, files.schema, files.arrays, files.encoder)
    number = int(repeat[1]) - 1 if repeat else 0
    if not RUN_ID.fullmatch(files.facts.run):
        return replace(source, repeat=number, test_rows="")
    return replace(source, repeat=number)


def fitting_columns(source: Layout, layout: Layout) -> list[str]:
    """Return the names of the columns that two layouts have in common: of one kind, with one transform."""
    by_name = {column.name: column for column in source.features}
    return [c.name for c in layout.features if c.name in by_name and _alike(by_name[c.name], c)]


def _alike(a: ColumnLayout, b: ColumnLayout) -> bool:
    return (a.kind == "number") == (b.kind == "number") and a.transform == b.transform


def rewritten(source: Source, first: Arrays, layout: Layout, encoder: Encoder) -> Arrays:
    """Return the source's arrays for other inputs.

    On rows without a missing cell the outputs are the source's, where it knows all columns.

    Parameters
    ----------
    source : Source
    first : mapping of name to array
        As drawn for a run without a warm start: what columns that the source lacks begin with, and in which types.
    layout : Layout
        Of the new run's inputs.
    encoder : Encoder
        Of the new run's sites.

    Notes
    -----
    A value that the source's category does not name adds nothing, and neither does being missing where the source has
    no input for it. What a missing cell is taken for is the new encoder's.
    """
    (weight, bias), *_ = source.layers
    arrays = {name: value.astype(float) for name, value in source.arrays.items()}
    w = first[weight].astype(float)
    taken = fitting_columns(source.layout, layout)
    adds, more = _contributions(source, arrays[weight], taken)
    constant = arrays[bias] + more
    nothing = np.zeros_like(constant)
    places = input_slices(layout)
    inputs = _inputs(layout, encoder)
    for column in layout.features:
        if column.name not in taken:
            continue
        base = adds.get((column.name, column.cells[0]), nothing)
        constant = constant + base
        rows = []
        for value, shift, unit in inputs[column.name]:
            own = adds.get((column.name, value), nothing)
            if value is not MISSING:
                own = own - base
            rows.append(own * unit)
            constant = constant + own * shift
        w[places[column.name]] = np.stack(rows)
    arrays[weight] = w
    arrays[bias] = constant
    if layout.task == "regression":
        # The last layer changes so that predictions in the outcome's unit stay the same.
        weight, bias = source.layers[-1]
        factor = source.encoder.scale[-1] / encoder.scale[-1]
        arrays[weight] = arrays[weight] * factor
        arrays[bias] = arrays[bias] * factor + (source.encoder.center[-1] - encoder.center[-1]) / encoder.scale[-1]
    return {name: arrays[name].astype(value.dtype) for name, value in first.items()}


def _inputs(layout: Layout, encoder: Encoder) -> dict[str, list[tuple[str | None, float, float]]]:
    """Return by column each input's value, and the numbers that it is shifted and divided by."""
    inputs_by_column = {}
    for number, column, place in layout.places():
        shares = encoder.frequency[place]
        spread = encoder.spread[place]
        own: list[tuple[str | None, float, float]] = [(SLOPE, encoder.center[number], encoder.scale[number])]
        if column.kind != "number":
            own = list(zip(column.cells[1:-1], shares[1:-1], spread[1:-1]))
        if layout.missing_indicator:
            own.append((MISSING, shares[-1], spread[-1]))
        inputs_by_column[column.name] = own
    return inputs_by_column


def _contributions(
    source: Source, w: np.ndarray, taken: Collection[str]
) -> tuple[dict[tuple[str, str | None], np.ndarray], np.ndarray]:
    """Return what each value of the columns taken adds to each output, and the constant that their centres leave.

    `w` is the source's first weight, float64. A number adds so much a unit of its scale, as value `SLOPE`.
    """
    inputs = _inputs(source.layout, source.encoder)
    adds: dict[tuple[str, str | None], np.ndarray] = {}
    constant = np.zeros(w.shape[1])
    for name, place in input_slices(source.layout).items():
        if name not in taken:
            continue
        # Being missing comes first.
        rows = sorted(zip(inputs[name], w[place]), key=lambda row: row[0][0] is not MISSING)
        for (value, shift, unit), row in rows:
            adds[name, value] = row / unit
            constant = constant - adds[name, value] * shift
    return adds, constant


def defect(source: Source, model: Any, first: Arrays, layout: Layout) -> str:
    """Return why a model cannot begin from a source, "" where it can.

    Parameters
    ----------
    source : Source
    model : a listed model
    first : mapping of name to array
        As drawn for the model.
    layout : Layout
        Of the model's inputs.
    """
    layers = layers_of(model)
    if not layers or not source.layers:
        return render("models.start.layers")
    if _outcome(source.layout) != _outcome(layout):
        return render("models.start.target", source=source.layout.target.name, target=layout.target.name)
    of_source = {name: value.shape for name, value in source.arrays.items()}
    of_study = {name: value.shape for name, value in first.items()}
    for shapes, names in ((of_source, source.layers), (of_study, layers)):
        shapes[names[0][0]] = shapes[names[0][0]][1:]
    if source.layers != layers or of_source != of_study:
        return render("models.start.widths")
    if not fitting_columns(source.layout, layout):
        return render("models.start.columns")
    return ""


def _outcome(layout: Layout) -> tuple[object, ...]:
    """Return what a layout predicts.

    The cells of a number are bins of its range, which may be another.
    """
    target = layout.target
    cells = () if layout.task == "regression" else target.cells
    return layout.task, target.name, target.transform, cells
