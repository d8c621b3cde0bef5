"""Folder of an exported run.

Others can read its files: the model, the report, tables, and a text that explains them.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from flfed import registry
from flfed.errors import FlfedError, UsageError, nearest
from flfed.export.model_folder import NOT_EXPORTED, NOT_SHOWN, SharedModel, write_files
from flfed.federation.engines.engine import engine_of
from flfed.paths import RUN
from flfed.records.reports.narrative import story
from flfed.records.reports.report import metrics_of, report
from flfed.records.reports.site_verdict import gain_at
from flfed.records.statistics.noised_scores import is_uncompared, with_verdict
from flfed.records.statistics.recorded_statistic import ANALYSIS, statistic_in_words, statistic_object
from flfed.records.store.entries import EventEntry, MetricRow, RunEntry, SeriesEntry
from flfed.records.store.reader import RunReader
from flfed.rows.data import datasets
from flfed.rows.data.schema import Schema
from flfed.rows.model_files import INDEX
from flfed.signatures import Signer, fingerprint_of, signing_public
from flfed.spreadsheet import csv_text
from flfed.study.study import Study
from flfed.summaries.summary import arrays_sha256
from flfed.updates.arrays import is_encrypted, shapes_of
from flfed.updates.checkpoints import checkpoint as checkpoints
from flfed.updates.checkpoints.site_state import site_model

Payload = Mapping[str, Any]
FILE = "statistics.csv"


class Figure(NamedTuple):
    """Figure of a statistic.

    Attributes
    ----------
    site, group, column : str
        Whose it is; "" means all sites, all groups and no column.
    figure : str
    value, low, high : float or None
        With its 95 % interval; None where it is not told, or has none.
    """

    site: str
    group: str
    column: str
    figure: str
    value: float | None
    low: float | None = None
    high: float | None = None


COMPARISON = ("run", "site", "arm", "against", "metric", "value", "low", "high", "p", "n", "method")
GAINS = ("run", "site", "metric", "model", "gain", "low", "high", "verdict")
ROUNDS = ("run", "round", *MetricRow._fields)
STATISTICS = ("run", *Figure._fields)
EVENTS = tuple(field.name for field in fields(EventEntry))
AS_TRAINED, FLOAT32, INT8 = DTYPES = ("trained", "float32", "int8")
AT_SITES = (
    "the coordinator has the model of run {run} as ciphertexts only; at an institution that took part: flfed site "
    "model SITE {run} --output FOLDER (a rehearsal in one process keeps none)"
)
OWN_AT_SITES = (
    "{arrays} of the model of run {run} are each site's own, and the coordinator has them as they were drawn; at an "
    "institution that took part, its whole model: flfed site model SITE {run} --output FOLDER (a run in one process "
    "keeps none)"
)
WITHOUT_MODEL = ("running", "interrupted", "failed")
"""States of a run that has no final model."""


@dataclass(frozen=True)
class Exported:
    """Files of an export, and their folder.

    Attributes
    ----------
    run : str
    folder : Path
    model : str or None
        Id of the run whose model is in the folder; None where none is.
    reason : str
        Why there is no model.
    files : tuple of str
    signer : Signer or None
        Who signed the model.
    """

    run: str
    folder: Path
    model: str | None
    reason: str
    files: tuple[str, ...]
    signer: Signer | None = None

    def as_object(self) -> dict[str, Any]:
        """Return the object of `flfed run export --json`."""
        return {
            "run": self.run,
            "folder": str(self.folder),
            "model": self.model,
            "reason": self.reason,
            "files": list(self.files),
            "signed-by": self.signer and self.signer.title,
            "signing-key": self.fingerprint,
        }

    @property
    def fingerprint(self) -> str | None:
        """Fingerprint of the signing key.

        People compare it. It is None where nobody signed the model.
        """
        return None if self.signer is None else fingerprint_of(signing_public(self.signer.key))


NO_MODEL = "its study asks for a statistic or an analysis, and trains none"


def export(name: str, folder: Path | None = None, *, dtype: str = AS_TRAINED, store: str | None = None) -> Exported:
    """Export a run, or a series of repeats.

    Parameters
    ----------
    name : str
        Id of a run or a series, or "latest". Of a series with repeats there is no one model: the
        report is of all, and the model is exported by the repeat's own id.
    folder : Path, optional
        New or empty; default: a folder with the run's id, here.
    dtype : {"trained", "float32", "int8"}
        Of the model's weights: as they were trained, float32 (half the bytes of float64), or int8 (a quarter of
        float32's).
    store : str, optional
        Database URL.

    Raises
    ------
    UsageError
        If there is no such run, the folder is not empty, the run has no model on this machine, or it cannot be
        written so.
    """
    if dtype not in DTYPES:
        raise UsageError(f"dtype {dtype!r} is not known{nearest(dtype, DTYPES)} Known: {', '.join(DTYPES)}")
    with RunReader.open(store) as reader:
        runs = reader.runs_of(name)
        series = reader.series(name)
        run_report = report(reader, name)
        reason = _why_no_model(runs, series)
        model = None if reason else shared_model(reader, runs[0], series, run_report)
        signer = engine_of(runs[0].engine).signer() if model else None
        target = folder or Path(run_report["run"])
        if model is not None:
            model = _in_dtype(model, dtype)
        # Refused before anything is written: an export is never mixed with another one.
        _refuse_taken(target)
        files = _tables(reader, runs, run_report)
        files["README.txt"] = _readme(run_report, runs[0].rounds_planned, model, reason)
    write_files(target, {file: content.encode() for file, content in files.items()})
    exported = None
    if model is not None:
        model.write(target, signer)
        exported = model.run
    return Exported(run_report["run"], target, exported, reason, _names(target), signer)


def _in_dtype(model: SharedModel, dtype: str) -> SharedModel:
    """Return a model with its weights in one of `DTYPES`."""
    if dtype == FLOAT32:
        return model.to_float32()
    return model.to_int8() if dtype == INT8 else model


def _names(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(path.name for path in folder.iterdir()))


def _why_no_model(runs: Sequence[RunEntry], series: SeriesEntry) -> str:
    """Return why an export has no model, or ""."""
    if not runs[0].rounds_planned:
        return NO_MODEL
    if len(runs) == 1:
        return _why_at_sites(runs[0].run, series.study_text)
    return f"{len(runs)} repeats have {len(runs)} models: export one, such as {runs[0].run}"


def _tables(reader: RunReader, runs: Sequence[RunEntry], run_report: Mapping[str, Any]) -> dict[str, str]:
    """Return the text of a run's report and tables, by the names of their files."""
    shown = run_report if runs[0].rounds_planned else statistic_object(run_report)
    files = {
        "report.json": json.dumps(shown, indent=2, ensure_ascii=False) + "\n",
        "comparison.csv": csv_text(COMPARISON, _comparison(reader, runs)),
        "gains.csv": csv_text(GAINS, _gains(run_report)),
        "rounds.csv": csv_text(ROUNDS, _rounds(reader, runs)),
        "events.csv": csv_text(EVENTS, map(astuple, reader.events([run.run for run in runs]))),
    }
    if "statistics" in run_report:
        files[FILE] = csv_text(STATISTICS, _statistics(reader, runs))
    return files


def shared_model(reader: RunReader, run: RunEntry, series: SeriesEntry, run_report: Mapping[str, Any]) -> SharedModel:
    """Return the final model of a run.

    It is checked against what the store says of it.

    Raises
    ------
    UsageError
        If the run has none on this machine.
    FlfedError
        If the file on this machine is not the model that the store names.
    """
    # Only a run that ended by its own rules has a model to export.
    if run.status in WITHOUT_MODEL:
        raise UsageError(f"run {run.run} is {run.status}: it has no final model")
    if not run.rounds_planned:
        raise UsageError(f"run {run.run} has no model: {NO_MODEL}; see: flfed run show {run.run}")
    folder = checkpoints.folder_of(run.run)
    if not (folder / f"{checkpoints.FINAL}.safetensors").is_file():
        raise UsageError(
            f"the model of run {run.run} is not in {folder}: it stopped before it had one, or ran on another "
            "machine or under another FLFED_HOME"
        )
    final = checkpoints.final(run.run)
    if why := _why_at_sites(run.run, series.study_text):
        raise UsageError(why)
    # The store says which model it was; a file may have been replaced.
    if run.arrays_sha256 not in (None, arrays_sha256(final.arrays)):
        raise FlfedError(f"the model in {folder} is not the one that the store has of run {run.run}; not exported")
    study = Study.parse_recorded(series.study_text)
    # With another schema than it was trained with, a prediction could mean something else.
    schema = Schema.model_validate(final.facts["schema"])
    if run.hashes.get("schema") != schema.sha256():
        raise FlfedError(f"the schema in {folder} is not the one that the store has of run {run.run}; not exported")
    # Of each site's entry only what describes the model goes along.
    sites = {}
    for site, entry in run_report["sites"].items():
        sites[site] = {key: entry[key] for key in ("rows", "holdout-rows", "global")}
    return SharedModel(
        run=run.run,
        study=study,
        schema=schema,
        arrays=final.arrays,
        encoder=final.encoder,
        figures={"global": run_report["global"], "sites-mean": run_report["sites-mean"], "sites": sites},
    )


def model_of(reader: RunReader, run: RunEntry) -> SharedModel:
    """Return the final model of a run; raises as `shared_model` does."""
    return shared_model(reader, run, reader.series(run.run), report(reader, run.run))


def export_at_site(site: str, run: str, repeat: int, folder: Path) -> Exported:
    """Write the last model of a run that the coordinator lacks, or lacks a part of, at one of its sites.

    Where a part of the model is the site's own, or it has a model of its own beside the shared one, it is with that.

    Parameters
    ----------
    site, run : str
    repeat : int
    folder : Path
        New or empty.

    Raises
    ------
    UsageError
        If the site has no such model, or the folder is not empty.
    """
    last_model = site_model(site, run, repeat) if RUN.fullmatch(run) else None
    if last_model is None:
        raise UsageError(
            f"site {site!r} has no model of run {run!r}, repeat {repeat}: sites keep the model of a run under "
            "secure-aggregation = 'ckks', and one of which a part is their own, once they have compared it"
        )
    _refuse_taken(folder)
    study = Study.parse_recorded(last_model.study)
    model = SharedModel(
        run=run,
        study=study,
        schema=datasets.load(study.dataset.name).schema,
        arrays={**last_model.arrays, **last_model.own},
        encoder=last_model.encoder,
        figures={"global": {}, "sites-mean": {}, "sites": {}},
    )
    model.write(folder)
    return Exported(run, folder, run, "", _names(folder))


def _why_at_sites(run: str, text: str) -> str:
    """Return why a run's last model is at its sites only, "" where it is here or was never written."""
    path = checkpoints.folder_of(run) / f"{checkpoints.FINAL}.safetensors"
    if not path.is_file():
        return ""
    arrays = checkpoints.final(run).arrays
    if is_encrypted(arrays):
        return AT_SITES.format(run=run)
    name = tomllib.loads(text).get("strategy", {}).get("name", "fedavg")
    # Without the package of another strategy nobody knows what it keeps, as before.
    is_registered = name in registry.names("strategy")
    own = registry.load("strategy", name).extra_shapes(shapes_of(arrays)).own_part if is_registered else {}
    return OWN_AT_SITES.format(run=run, arrays=", ".join(own)) if own else ""


def _refuse_taken(folder: Path) -> None:
    if folder.is_dir() and any(folder.iterdir()):
        raise UsageError(f"{folder}: is not empty, and nothing in it is replaced: choose another folder with --output")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file: choose another folder with --output")


def _comparison(reader: RunReader, runs: Sequence[RunEntry]) -> Iterable[tuple[object, ...]]:
    for run in runs:
        for f in reader.figures(run.run):
            yield (run.run, f.site, f.arm, None, f.metric, f.value, f.low, f.high, None, f.n, f.method)
        for d in reader.differences(run.run):
            yield (run.run, d.site, d.a, d.b, d.metric, d.value, d.low, d.high, d.p, None, d.method)


def _gains(run_report: Mapping[str, Any]) -> Iterable[tuple[object, ...]]:
    if is_uncompared(run_report):
        return
    for site, figures in run_report["sites"].items():
        for metric in with_verdict(run_report, metrics_of(dict(run_report))):
            gain = gain_at(figures, metric)
            cells = [gain[key] for key in ("model", "value", "low", "high", "verdict")]
            yield (run_report["run"], site, metric, *cells)


def _rounds(reader: RunReader, runs: Sequence[RunEntry]) -> Iterable[tuple[object, ...]]:
    for run in runs:
        # From the first arrays, which are round 0, to the round that a run stopped at.
        for number in range(run.rounds + 2):
            for row in reader.metrics(run.run, number):
                yield (run.run, number, *row)


def _statistics(reader: RunReader, runs: Sequence[RunEntry]) -> Iterable[tuple[object, ...]]:
    for run in runs:
        statistic = reader.summary(run.run, "statistics")
        if statistic is not None:
            yield from ((run.run, *figure) for figure in figures_of(statistic))


def _predicted(schema: Schema) -> str:
    """Return in words what a model of this schema predicts."""
    if schema.task == "binary":
        return f"the probability (0 to 1) of {schema.target} = {schema.classes[-1]}"
    if schema.task == "multi-class":
        return f"a probability (0 to 1) of each value of {schema.target}"
    unit = schema.columns[schema.target].unit
    return f"{schema.target} in {unit}" if unit else schema.target


def _readme(run_report: Mapping[str, Any], planned: int, model: SharedModel | None, reason: str) -> str:
    """Return a plain description of the folder."""
    lines = [
        f"Run {run_report['run']} of the study {run_report['study']!r}, exported by flfed. "
        f"Status: {run_report['status']}."
    ]
    if run_report["reason"]:
        lines.append(run_report["reason"])
    files = [*FILES, ""]
    if "statistics" in run_report:
        words = statistic_in_words(run_report["statistics"], run_report["repeats"])
        lines += ["", "What it showed, and what it does not show", "", *words, ""]
        files = [*STATISTIC_FILES, *files]
    else:
        lines += ["", "What it showed", "", *story(dict(run_report), planned=planned), ""]
        lines += ["What it does not show", "", NOT_SHOWN, ""]
    lines += ["Files", "", *files]
    if model is None:
        return "\n".join([*lines, f"There is no model here: {reason}.", ""])
    schema = model.schema
    lines += ["The model", "", *MODEL_FILES]
    if model.layout.plain:
        lines += TREE_FILES
    lines += ["", f"It predicts {_predicted(schema)}, one line a row:", ""]
    lines += ["  flfed predict THIS_FOLDER TABLE.csv", "", NOT_EXPORTED, ""]
    if model.quantised is not None:
        lines += [model.quantised.in_words(schema.columns[schema.target].unit), ""]
    if model.rounded_of:
        lines += [ROUNDED, ""]
    # Without a unit and the meaning of a value nobody could use the predictions.
    lines += ["The columns it reads, with their units (schema.toml has ranges and allowed values):", ""]
    lines += [f"  {column.name}: {column.unit or column.kind}" for column in model.layout.features]
    return "\n".join([*lines, "", ""])


ROUNDED = (
    "The weights are rounded from float64, in which they were trained, to float32: a prediction moves in its seventh "
    "digit or so. The figures are of the model before."
)
FILES = (
    "report.json     the run's report, as `flfed run show RUN --json` prints it",
    "gains.csv       what joining gains at each site (above 0 it helps), by which model, with the interval that the",
    "                verdict goes by: 95 %, widened for the number of sites looked at",
    "comparison.csv  per site and over all (site empty): each arm's figure with its 95 % interval; where `against` is",
    "                filled in, the difference of the two arms, its interval not widened. Metrics are named as in",
    "                scikit-learn.",
    "rounds.csv      the figures of each round; round 0 is before training; `seconds` are seconds of wall clock",
    "events.csv      faults, refusals, warnings and notes, with the time in UTC",
    "                In all CSV files, a text that a spreadsheet would run has an apostrophe before its first sign",
)
STATISTIC_FILES = (
    f"{FILE}  each figure with its 95 % interval, a line each: per site and over all (site empty), per group",
    "                and over all (group empty); an empty value is one that cannot be told",
)
MODEL_FILES = (
    f"{INDEX}           what the model is, its inputs in order, its figures, and the SHA-256 of each other file;",
    "                     signed by the coordinator where it says so (`flfed predict` tells whose signature it is)",
    "model.safetensors    its arrays",
    "encoder.safetensors  how rows become inputs: means, deviations, shares",
    "schema.toml          the columns: kinds, units, ranges, allowed values",
    "study.toml           the study that it was trained by",
)
TREE_FILES = (
    "xgboost.json, .ubj   the trees as XGBoost's own file: inputs are numbers as they are, the places of values in",
    "                     their order from 0 on (model.json lists both under `columns`), NaN where a value is missing",
)


def figures_of(statistic: Payload) -> Iterator[Figure]:
    """Yield the figures of a recorded statistic, over all sites first.

    `statistic` is the object "statistics" of a run.
    """
    lines = _of_analysis if statistic["name"] == ANALYSIS else _of_statistic
    for site, own in {"": statistic, **statistic["by-site"]}.items():
        yield from (one._replace(site=site) for one in lines(own))


def _figure(group: str, column: str, figure: str, one: object) -> Figure:
    """Return a figure of the record, which is a number or has a value and its interval."""
    ends: Payload = one if isinstance(one, Mapping) else {"value": one}
    return Figure("", group, column, figure, ends.get("value"), ends.get("low"), ends.get("high"))


def _of_analysis(statistic: Payload) -> Iterator[Figure]:
    yield from _of_rows(statistic, "", statistic["counts-each"])
    groups = statistic.get("groups", {"of": {}, "compared": {}})
    for group, of in groups["of"].items():
        yield _figure(group, "", f"share of {statistic['counts-each']}s", of["share"])
        yield from _of_rows(of, group, statistic["counts-each"])
    for column, compared in groups["compared"].items():
        for what, pairs in compared.items():
            of_what = what if what == "mean" else f"share of {what}"
            yield from (_figure(pair, column, f"difference of {of_what}", one) for pair, one in pairs.items())
    for crossed in statistic["cross"]:
        yield from _of_crossed(crossed)


def _of_crossed(crossed: Payload) -> Iterator[Figure]:
    """Yield the numbers of a cross-table."""
    column = " by ".join(crossed["columns"])
    rows, across = crossed["values"]
    for row, counts in zip(rows, crossed["counts"], strict=True):
        yield from (_figure("", column, f"count of {row}, {at}", n) for at, n in zip(across, counts, strict=True))
    test = crossed["independence"] or dict.fromkeys(("chi2", "degrees-of-freedom", "p"))
    yield from (_figure("", column, name, one) for name, one in test.items())


def _of_rows(statistic: Payload, group: str, unit: str) -> Iterator[Figure]:
    """Yield the figures of all rows, or of those of a group."""
    yield _figure(group, "", f"{unit}s", statistic["rows"])
    for column, of in statistic["columns"].items():
        named = {name: of[name] for name in ("missing", "mean", "sd") if name in of}
        named |= {f"quantile {at}": one for at, one in of.get("quantiles", {}).items()}
        named |= {f"share of {value}": one for value, one in of.get("shares", {}).items()}
        counts = of["counts"]
        if edges := of.get("edges"):
            bins = [f"{low:.12g} to {high:.12g}" for low, high in pairwise(edges)]
            counts = dict(zip(bins, counts, strict=False))
        named |= {f"count of {value}": one for value, one in counts.items()}
        yield from (_figure(group, column, name, one) for name, one in named.items())


def _of_statistic(statistic: Payload, before: str = "") -> Iterator[Figure]:
    """Yield the numbers of another statistic, each by the name that it has in the record."""
    columns = statistic.get("columns", [])
    for name, one in statistic.items():
        figure = f"{before}{name}"
        if name in ("by-site", "sites", "columns") or isinstance(one, str):
            continue
        if isinstance(one, list):
            yield from _of_list(one, figure, columns)
        # A column may be called "value", too.
        elif isinstance(one, Mapping) and (isinstance(one.get("value"), Mapping) or "value" not in one):
            yield from _of_parts(one, figure, columns)
        elif one is not None:
            yield _figure("", "", figure, one)


def _of_parts(parts: Payload, figure: str, columns: list[str]) -> Iterator[Figure]:
    """Yield figures by column, or by another part, which is then in their name."""
    for part, one in parts.items():
        if part in columns:
            yield _figure("", part, figure, one)
        else:
            yield from _of_statistic(one, f"{figure} {part} ")


def _of_list(listed: list[Any], figure: str, columns: list[str]) -> Iterator[Figure]:
    """Yield figures of groups, of columns, or of pairs of columns."""
    for place, one in enumerate(listed):
        if isinstance(one, Mapping):
            own = {name: of for name, of in one.items() if name != "group"}
            yield from (line._replace(group=one["group"]) for line in _of_statistic(own))
        elif isinstance(one, list):
            pairs = zip(columns, one, strict=True)
            yield from (_figure("", columns[place], f"{figure} with {other}", value) for other, value in pairs)
        else:
            yield _figure("", columns[place], figure, one)
