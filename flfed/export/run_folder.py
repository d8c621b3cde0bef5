"""Folder of an exported run: its model, its report, tables, and a README."""

from __future__ import annotations

import json
import textwrap
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from typing import Any

from flfed import registry
from flfed.errors import UsageError
from flfed.export.model_folder import SharedModel, write_files
from flfed.export.monitor import references_of
from flfed.federation.engines.engine import engine_of
from flfed.records.reports.narrative import story
from flfed.records.reports.report import is_of_model, metrics_of, report
from flfed.records.reports.site_verdict import gain_at
from flfed.records.statistics.noised_scores import is_uncompared
from flfed.records.statistics.recorded_statistic import statistic_in_words, statistic_object
from flfed.records.store.entries import EventEntry, MetricRow, RunEntry, SeriesEntry
from flfed.records.store.reader import RunReader
from flfed.rows.data import datasets
from flfed.rows.data.schema import Schema
from flfed.rows.model_files import ENCODER, INDEX, MODEL, MONITOR, SCHEMA, STUDY, TREES
from flfed.signatures import Signer, fingerprint_of, signing_public
from flfed.spreadsheet import csv_text
from flfed.study.study import Study, has_parties
from flfed.summaries.summary import arrays_sha256
from flfed.updates.arrays import shapes_of
from flfed.updates.checkpoints import checkpoint as checkpoints
from flfed.updates.checkpoints.checkpoint import OF_SITE
from flfed.updates.checkpoints.site_state import read_part, site_model
from flfed.words import flfed_error, render, usage_error

Payload = Mapping[str, Any]
COMPARISON = ("run", "site", "arm", "against", "metric", "value", "low", "high", "p", "n", "method")
GAINS = ("run", "site", "metric", "model", "gain", "low", "high", "verdict")
ROUNDS = ("run", "round", *MetricRow._fields)
EVENTS = tuple(field.name for field in fields(EventEntry))
WITHOUT_MODEL = ("running", "interrupted", "failed")
"""States of a run without a final model."""


@dataclass(frozen=True)
class Exported:
    """Files of an export, and their folder.

    Attributes
    ----------
    run : str
    folder : Path
    model : str or None
        Id of the run whose model is in the folder; None without a model.
    reason : str
        Why there is no model.
    files : tuple of str
    signer : Signer or None
        Signer of the model.
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
        """Fingerprint of the signing key, for comparison by people; None without a signature."""
        return None if self.signer is None else fingerprint_of(signing_public(self.signer.key))


def export(name: str, folder: Path | None = None, *, store: str | None = None) -> Exported:
    """Export a run, or a series of repeats.

    Parameters
    ----------
    name : str
        Id of a run or a series, or "latest". A series with repeats has several models: its report covers all
        repeats, and a model is exported by the repeat's own id.
    folder : Path, optional
        New or empty; default: a folder with the run's id, here.
    store : str, optional
        Database URL.

    Raises
    ------
    UsageError
        If there is no such run, or the folder is not empty.
    """
    with RunReader.open(store) as reader:
        runs = reader.runs_of(name)
        series = reader.series(name)
        run_report = report(reader, name)
        reason = _why_no_model(runs, series)
        model = None if reason else shared_model(runs[0], series, run_report)
        signer = engine_of(runs[0].engine).signer() if model else None
        target = folder or Path(run_report["run"])
        if model is not None:
            model = replace(model, monitor=references_of(reader, model.run))
        # Refused before anything is written: two exports are never mixed.
        _refuse_taken(target)
        files = _tables(reader, runs, run_report)
        files["README.txt"] = _readme(run_report, runs[0].rounds_planned, list(files), model, reason)
    write_files(target, {file: content.encode() for file, content in files.items()})
    exported = None
    if model is not None:
        model.write(target, signer)
        exported = model.run
    for site, part in _parts(runs[0], series).items():
        part.write(target / site)
    return Exported(run_report["run"], target, exported, reason, _names(target), signer)


def _names(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(path.name for path in folder.iterdir()))


def _why_no_model(runs: Sequence[RunEntry], series: SeriesEntry) -> str:
    """Return why an export has no model, or ""."""
    if not runs[0].rounds_planned:
        return _why_untrained(series.study_text)
    if len(runs) == 1 and runs[0].status not in WITHOUT_MODEL:
        return _why_at_sites(runs[0].run, series.study_text)
    if len(runs) == 1:
        return ""
    return render("export.absent.repeats", repeats=len(runs), run=runs[0].run)


def _why_untrained(study_text: str) -> str:
    """Return why a run without rounds has no model of its own."""
    study = Study.parse(study_text)
    if study.train:
        return render("export.absent.statistic")
    return render("export.absent.validation", model=study.warm_start)


def _tables(reader: RunReader, runs: Sequence[RunEntry], run_report: Mapping[str, Any]) -> dict[str, str]:
    """Return the report and the tables of a run, by file name."""
    shown = run_report if is_of_model(run_report, runs) else statistic_object(run_report)
    return {
        "report.json": json.dumps(shown, indent=2, ensure_ascii=False) + "\n",
        "comparison.csv": csv_text(COMPARISON, _comparison(reader, runs)),
        "gains.csv": csv_text(GAINS, _gains(run_report)),
        "rounds.csv": csv_text(ROUNDS, _rounds(reader, runs)),
        "events.csv": csv_text(EVENTS, map(astuple, reader.events([run.run for run in runs]))),
    }


def shared_model(run: RunEntry, series: SeriesEntry, run_report: Mapping[str, Any]) -> SharedModel:
    """Return the final model of a run, checked against its hashes in the store.

    Raises
    ------
    UsageError
        If the run has none on this machine.
    FlfedError
        If the file on this machine does not have the hash in the store.
    """
    # Only a run that ended by its own rules has a final model.
    if run.status in WITHOUT_MODEL:
        raise usage_error("export.absent.unfinished", **vars(run))
    if not run.rounds_planned:
        raise usage_error("export.absent.untrained", run=run.run, reason=_why_untrained(series.study_text))
    if why := _why_at_sites(run.run, series.study_text):
        raise UsageError(why)
    folder = checkpoints.folder_of(run.run)
    if not (folder / f"{checkpoints.FINAL}.safetensors").is_file():
        raise usage_error("export.absent.file", run=run.run, folder=folder)
    final = checkpoints.final(run.run)
    # The store has the hash of the model; a file may have been replaced.
    if run.arrays_sha256 not in (None, arrays_sha256(final.arrays)):
        raise flfed_error("export.errors.changed", what="model", folder=folder, run=run.run)
    study = Study.parse(series.study_text)
    # With a schema other than that of training, a prediction could mean something else.
    schema = Schema.model_validate(final.facts["schema"])
    if run.hashes.get("schema") != schema.sha256():
        raise flfed_error("export.errors.changed", what="schema", folder=folder, run=run.run)
    # Only those parts of a site's entry that describe the model.
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


def _parts(run: RunEntry, series: SeriesEntry) -> dict[str, SharedModel]:
    """Return each party's part of a run's model, where one process had all parties; none of any other model."""
    path = checkpoints.folder_of(run.run) / f"{checkpoints.FINAL}.safetensors"
    if not has_parties(tomllib.loads(series.study_text)) or not path.is_file():
        return {}
    study = Study.parse(series.study_text)
    final = checkpoints.final(run.run)
    schema = Schema.model_validate(final.facts["schema"])
    parts = {}
    for name, stored in final.state.items():
        features, arrays, encoder = read_part(dict(stored))
        site = name.removeprefix(OF_SITE)
        parts[site] = SharedModel(
            run=run.run,
            study=study.replace({"dataset.features": features}),
            schema=schema,
            arrays=arrays,
            encoder=encoder,
            figures={"global": {}, "sites-mean": {}, "sites": {}, "party": site},
        )
    return parts


def model_of(reader: RunReader, run: RunEntry) -> SharedModel:
    """Return the final model of a run; raises as `shared_model` does."""
    return shared_model(run, reader.series(run.run), report(reader, run.run))


def export_at_site(site: str, run: str, repeat: int, folder: Path) -> Exported:
    """Export the last model of a run at one of its sites, where the coordinator lacks it or a part of it.

    The model includes the site's own part, or its own model beside the shared one.

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
    last_model = site_model(site, run, repeat)
    if last_model is None:
        raise usage_error("export.absent.site", site=site, run=run, repeat=repeat)
    _refuse_taken(folder)
    study = Study.parse(last_model.study)
    model = SharedModel(
        run=run,
        study=study,
        schema=datasets.load(study.dataset.name).schema,
        arrays={**last_model.arrays, **last_model.own},
        encoder=last_model.encoder,
        figures={"global": {}, "sites-mean": {}, "sites": {}, "party": site},
    )
    model.write(folder)
    return Exported(run, folder, run, "", _names(folder))


def _why_at_sites(run: str, text: str) -> str:
    """Return why a run's last model is only at its sites; "" where it is here or was never written."""
    tables = tomllib.loads(text)
    # No part of it was ever here, nor a file that says so.
    if has_parties(tables):
        return render("export.absent.parties", run=run)
    if not (checkpoints.folder_of(run) / f"{checkpoints.FINAL}.safetensors").is_file():
        return ""
    arrays = checkpoints.final(run).arrays
    name = tables.get("strategy", {}).get("name", "fedavg")
    # Without the package of a strategy, its own parts are unknown.
    is_registered = name in registry.names("strategy")
    own = registry.load("strategy", name).extra_shapes(shapes_of(arrays)).own_part if is_registered else {}
    return render("export.absent.own", run=run, arrays=", ".join(own)) if own else ""


def _refuse_taken(folder: Path) -> None:
    if folder.is_dir() and any(folder.iterdir()):
        raise usage_error("export.errors.taken", folder=folder)
    if folder.exists() and not folder.is_dir():
        raise usage_error("export.errors.file", folder=folder)


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
        for metric in metrics_of(dict(run_report)):
            gain = gain_at(figures, metric)
            cells = [gain[key] for key in ("model", "value", "low", "high", "verdict")]
            yield (run_report["run"], site, metric, *cells)


def _rounds(reader: RunReader, runs: Sequence[RunEntry]) -> Iterable[tuple[object, ...]]:
    for run in runs:
        # From the first arrays (round 0) to the round at which a run stopped.
        for number in range(run.rounds + 2):
            for row in reader.metrics(run.run, number):
                yield (run.run, number, *row)


def _predicted(schema: Schema) -> str:
    """Return the prediction of a model with this schema, in words."""
    if schema.task == "binary":
        return render("export.predicts.binary", target=schema.target, value=schema.classes[-1])
    if schema.task == "multi-class":
        return render("export.predicts.classes", target=schema.target)
    unit = schema.columns[schema.target].unit
    return f"{schema.target} in {unit}" if unit else schema.target


def _readme(
    run_report: Mapping[str, Any], planned: int, files: Sequence[str], model: SharedModel | None, reason: str
) -> str:
    """Return the README of the folder, with its report and tables in `files`."""
    study = run_report["study"]
    lines = [render("export.readme.run", run=run_report["run"], study=study, status=run_report["status"])]
    if run_report["reason"]:
        lines.append(run_report["reason"])
    if "statistics" in run_report:
        words = statistic_in_words(run_report["statistics"], run_report["repeats"])
        lines += ["", "Results and limits", "", *words, ""]
    else:
        lines += ["", "Results", "", *story(dict(run_report), planned=planned), ""]
        lines += ["Limits", "", render("export.notes.limits"), ""]
    lines += ["Files", "", *_described(files), render("export.readme.csv"), ""]
    if model is None:
        return "\n".join([*lines, render("export.readme.absent", reason=reason), ""])
    schema = model.schema
    names = [INDEX, MODEL, ENCODER, SCHEMA, STUDY]
    if model.monitor is not None:
        names.append(MONITOR)
    if model.layout.plain:
        names.append(TREES)
    lines += ["The model", "", *_described(names)]
    lines += ["", render("export.readme.predicts", prediction=_predicted(schema)), ""]
    lines += ["  flfed predict THIS_FOLDER TABLE.csv", "", render("export.notes.adjustments"), ""]
    # Predictions are of no use without units and the meaning of values.
    lines += [render("export.readme.columns"), ""]
    for column in model.layout.features:
        lines.append(f"  {column.name}: {column.unit or column.kind}")
    return "\n".join([*lines, "", ""])


def _described(files: Sequence[str]) -> list[str]:
    """Return the lines that describe some files, the names in one column."""
    width = max(map(len, files)) + 2
    lines = []
    for name in files:
        text = render(f"export.files.{name.replace('.', '-')}")
        lines += textwrap.wrap(f"{name:<{width}}{text}", 110, subsequent_indent=" " * width)
    return lines
