"""Result of a run for notebooks: tables, charts, a model and a verdict; runs of the store."""

from __future__ import annotations

import html
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd

from flfed import registry
from flfed.errors import unknown
from flfed.federation.server import run as server
from flfed.records.reports.faults import missing_in_words
from flfed.records.reports.narrative import COLUMNS, interval_name, story, verdict_in_words
from flfed.records.reports.report import primary_of, report
from flfed.records.reports.site_verdict import gain_at
from flfed.records.statistics.left_out import VALIDATION
from flfed.records.statistics.noised_scores import is_uncompared
from flfed.records.statistics.recorded_statistic import statistic_in_words
from flfed.records.statistics.verdict import Difference, decimals_for, describe_verdict, metric_name, number
from flfed.records.store.reader import CURVE_ARMS, RunReader
from flfed.rows.proposals.own_tables import FrameReading
from flfed.rows.proposals.workspace import Workspace
from flfed.study.study import KINDS, Study
from flfed.words import render, usage_error

if TYPE_CHECKING:
    import altair as alt
    import torch
    from sklearn.pipeline import Pipeline

    from flfed.export.model_folder import SharedModel
    from flfed.notebook.own_model import Builder


class CallableReport(dict[str, Any]):
    """Report of a run: a mapping, which can also be called to write it to a file.

    Parameters
    ----------
    run_report : mapping
        The object of `flfed run show --json`.
    store : str or None
        URL of the run store; None for the default.
    """

    def __init__(self, run_report: Mapping[str, Any], store: str | None = None) -> None:
        super().__init__(run_report)
        self._store = store

    def __call__(self, file: str | Path) -> Path:
        """Write the run's report as one HTML file, and return its path.

        Parameters
        ----------
        file : str or Path
            A new file, or an earlier report of a run, which is replaced.

        Raises
        ------
        UsageError
            If the run is not in the store, or the file cannot be written.
        """
        from flfed.records.document.document import write_document

        path = Path(file)
        write_document(path, self["run"], store=self._store)
        return path


def labels_array(labels: Sequence[Any]) -> np.ndarray:
    """Return the labels of a target as an array; texts become objects."""
    dtype = object if any(isinstance(label, str) for label in labels) else None
    return np.array(list(labels), dtype=dtype)


GAINS = ("site", "gain", "low", "high", "verdict", "model")
OTHERS = 3
"""Most sentences of `repr` after the verdict."""


@dataclass(frozen=True)
class Result(server.Result):
    """Result of a run or of a series of repeats.

    `report` is the object of `flfed run show --json`, and `report("run.html")` writes it as an HTML file. `overall` and
    `sites` are its figures as data frames.

    Examples
    --------
    >>> from flfed import run
    >>> result = run("wine", rounds=2)  # doctest: +SKIP
    >>> result.status, result.study.rounds  # doctest: +SKIP
    ('completed', 2)
    """

    report: CallableReport
    workspace: Workspace | None = None

    @property
    def primary(self) -> str | None:
        """Metric of the verdict; None without a comparison."""
        return primary_of(self.report)

    @cached_property
    def study(self) -> Study:
        """Study of the run."""
        with RunReader.open(self.store) as reader:
            return Study.parse(reader.series(self.run).study_text)

    @cached_property
    def gains(self) -> pd.DataFrame:
        """Table of the gain from joining at each site, in the primary metric.

        One row a site: `gain` (above 0 where joining is better), `low` and `high`, `verdict`, and the `model` of the
        gain, as in the app and in `flfed run show`. The interval is that of the verdict: a 95 % CI, widened for the
        number of sites. The plain interval and the verdict's code are in `report`. A validation, or a statistic, has
        no row.
        """
        lines = []
        metric = self.primary or ""
        sites = self.report["sites"] if metric and VALIDATION not in self.report else {}
        for site, figures in sites.items():
            gain = gain_at(figures, metric)
            verdict = describe_verdict(gain["verdict"], metric)
            ends = [gain[key] for key in ("value", "low", "high")]
            lines.append([site, *ends, verdict, COLUMNS.get(gain["model"])])
        return pd.DataFrame(lines, columns=list(GAINS))

    @cached_property
    def rounds(self) -> pd.DataFrame:
        """Table of figures by round: round, site ("" for all together), arm, metric and value.

        They are means over repeats, on the rows on which rounds are scored.
        """
        lines = []
        with RunReader.open(self.store) as reader:
            runs = [entry.run for entry in reader.runs_of(self.run)]
            for arm, metrics in reader.curve_names(runs).items():
                for metric in metrics:
                    points = reader.curves(runs, arm=arm, metric=metric)
                    lines += [[point.round, point.site or "", arm, metric, point.value] for point in points]
        return pd.DataFrame(lines, columns=["round", "site", "arm", "metric", "value"])

    @cached_property
    def model(self) -> Model:
        """Shared model, for predictions; of a series, the model of the first repeat.

        Raises
        ------
        UsageError
            If the run has no model on this machine.
        """
        from flfed.export.run_folder import model_of

        with RunReader.open(self.store) as reader:
            shared = model_of(reader, reader.runs_of(self.run)[0])
        # A later dataset of the same name may be read in another way.
        if self.workspace is not None:
            return Model(shared, self.workspace.reading())
        return Model(shared, FrameReading.load(shared.schema.name))

    @property
    def plot(self) -> Plots:
        """Charts of the result: `plot.gains()` and `plot.rounds()`."""
        return Plots(self)

    def save(self, folder: str | Path, *, institutions: bool = False) -> list[Path]:
        """Write dataset, sites and study of a `federate` call, for use with commands.

        Afterwards `cd FOLDER && flfed study run NAME.toml` repeats this result, array by array. For this the sites'
        policies are open: every figure may leave, and holdouts follow from the rows. With `institutions`, policies
        withhold small counts, and each holdout has a secret salt. Use it for tables that are not public, before a site
        serves them.

        Parameters
        ----------
        folder : str or Path
        institutions : bool
            Whether policies are those of institutions; figures then differ from those of this result.

        Raises
        ------
        UsageError
            If the result is not of data frames, a file is already there, a table cannot be stored, or model, strategy,
            codec or mechanism belong to this program: they need a package (docs/extend.md). Nothing is written then.
        """
        if self.workspace is None:
            raise usage_error("notebook.result.frames")
        for table in ("model", "strategy", "codec", "privacy"):
            named = getattr(self.study, table)
            if named.name not in {"none", *registry.installed(KINDS[table])}:
                raise usage_error("notebook.result.own", kind=KINDS[table], name=named.title)
        return self.workspace.save(Path(folder), self.study, institutions=institutions)

    def __repr__(self) -> str:
        """Return the result in a few lines."""
        why = self.report["reason"] if self.status == "completed" else ""  # otherwise part of the verdict
        end = f"; {why}" if why else ""
        first = f"{self.report['study']}: {self.status} ({self.run}){end}"
        return "\n".join([first, *self._sentences()])

    def _repr_html_(self) -> str:
        """Return the result for a notebook: the verdict, then the gain of each site from joining."""
        first, *others = self._sentences()
        lines = [f"<b>{html.escape(first)}</b>", *map(html.escape, others)]
        table = ""
        if len(self.gains) and not is_uncompared(self.report):
            lines.append(render("notebook.result.gain", interval=interval_name(self.report)))
            table = self._gain_cells().to_html(index=False, border=0)
        return "".join(f"<p>{line}</p>" for line in lines) + table

    def _gain_cells(self) -> pd.DataFrame:
        """Return the gain of each site with the decimals that app, report and terminal show."""
        metric = self.primary or ""
        least = self.report["verdict-rule"]["minimum-gain"][metric]
        lines = []
        for site, figures in self.report["sites"].items():
            gain = gain_at(figures, metric)
            ends = [gain[key] for key in ("value", "low", "high")]
            digits = decimals_for(Difference(*ends), least)
            cells = [number(end, digits, signed=True) for end in ends]
            lines.append([site, *cells, describe_verdict(gain["verdict"], metric)])
        return pd.DataFrame(lines, columns=["site", "gain", "low", "high", "verdict"])

    def _sentences(self) -> list[str]:
        """Return the verdict and the first findings; without a model, the figure and its notes."""
        if (statistic := self.report.get("statistics")) is not None:
            figure, *notes = statistic_in_words(statistic, self.report["repeats"])
            return [figure, *missing_in_words(self.report), *notes[:OTHERS]]
        first = verdict_in_words(self.report)
        return [*first, *[line for line in story(self.report) if line not in first][:OTHERS]]


class Model:
    """Shared model of a run.

    Parameters
    ----------
    shared : SharedModel
        Arrays, encoder, schema and study.
    reading : FrameReading, optional
        Reading of data frames, for a run on data frames.

    Examples
    --------
    >>> from flfed import run
    >>> model = run("wine", rounds=2).model  # doctest: +SKIP
    >>> sorted(model.arrays)  # doctest: +SKIP
    ['bias', 'weight']
    """

    def __init__(self, shared: SharedModel, reading: FrameReading | None = None) -> None:
        self.shared = shared
        self._reading = reading

    @classmethod
    def read(cls, folder: str | Path) -> Self:
        """Return the model of a folder from `flfed run export`.

        Raises
        ------
        UsageError
            If it is no such folder, or one of its files was changed.
        """
        from flfed.export.model_folder import SharedModel

        return cls(SharedModel.read(Path(folder)))

    @property
    def classes_(self) -> tuple[Any, ...]:
        """Classes of the target, in the order of `predict_proba`; none for a regression.

        For data frames they are the target's own values, otherwise those of the schema.
        """
        return self.shared.schema.classes if self._reading is None else self._reading.labels

    @property
    def arrays(self) -> Mapping[str, np.ndarray]:
        """Trained arrays by name."""
        return self.shared.arrays

    def predict_proba(self, table: pd.DataFrame) -> np.ndarray:
        """Return probabilities, float64 [rows, classes].

        Parameters
        ----------
        table : DataFrame
            Columns as in training; the outcome may be missing.

        Raises
        ------
        UsageError
            If the model predicts a number, or the table does not fit it.
        """
        if not self.classes_:
            raise usage_error("notebook.result.number")
        values = self._values(table)
        return np.column_stack([1 - values[:, 0], values[:, 0]]) if len(self.classes_) == 2 else values

    def predict(self, table: pd.DataFrame) -> np.ndarray:
        """Return the most probable class of each row, or a number in the target's unit."""
        if not self.classes_:
            return self._values(table)[:, 0]
        best = self.predict_proba(table).argmax(axis=1)
        return np.asarray(labels_array(self.classes_)[best])

    def to_sklearn(self) -> Pipeline:
        """Return a linear model as a fitted scikit-learn pipeline, from the schema's columns.

        Raises
        ------
        UsageError
            If the model is not linear, or its target is logarithmic.
        """
        from flfed.export.other_tools import to_sklearn

        fields = None if self._reading is None else self._reading.fields
        return to_sklearn(self.shared, fields, labels_array(self.classes_))

    def to_onnx(self, path: str | Path, *, int8: bool = False) -> None:
        """Write the model's network as an ONNX file, from the encoder's inputs.

        Its scores are compared with the model's first, and may differ by 1e-6. With `int8`, weights are whole numbers
        of eight bits, and scores may differ by 0.05.

        Raises
        ------
        UsageError
            If the extra `flfed[onnx]` is not installed, the model has trees, or the scores differ; nothing is written.
        """
        from flfed.export.other_tools import write_onnx

        write_onnx(self.shared, Path(path), int8=int8)

    def inputs(self, table: pd.DataFrame) -> np.ndarray:
        """Return a table as the encoder's inputs, float64 [rows, inputs], for an ONNX file."""
        from flfed.export.predict import inputs_of

        return inputs_of(self.shared, table, self._mapping(table))

    def _mapping(self, table: pd.DataFrame) -> Mapping[str, Any]:
        """Return the mapping of a data frame, as in training."""
        if not isinstance(table, pd.DataFrame):
            raise usage_error("notebook.result.table", kind=type(table).__name__)
        return {} if self._reading is None else self._reading.mapping(list(table.columns))

    def _values(self, table: pd.DataFrame) -> np.ndarray:
        from flfed.export.predict import predict_frame

        mapping = self._mapping(table)
        predictions = predict_frame(self.shared, table, mapping)
        for sentence in predictions.clipped:
            warnings.warn(sentence, stacklevel=3)
        if absent := [name for name in self.shared.schema.features() if mapping.get(name, "") is None]:
            warnings.warn(render("notebook.result.absent", columns=", ".join(absent)), stacklevel=3)
        return predictions.values

    def __repr__(self) -> str:
        """Return kind, target and run of the model."""
        schema = self.shared.schema
        return f"{self.shared.study.model.title} model for {schema.target!r} ({schema.task}), run {self.shared.run}"


class Plots:
    """Charts of a result, as in the app (Altair)."""

    def __init__(self, result: Result) -> None:
        self._result = result

    def gains(self) -> alt.LayerChart:
        """Return the gain of each site with its intervals."""
        from flfed.records.sections.gains import at_the_ends, gains

        run_report = self._result.report
        metric = self._metric()
        sites = len(run_report["sites"])
        section = gains(run_report, metric, at_the_ends(run_report, metric, sites), sites)
        drawn = section.charts[0].draw()
        if drawn is None:
            raise usage_error("notebook.plots.gains")
        layers: alt.LayerChart = drawn.altair()
        return layers

    def rounds(self, metric: str = "", sites: Sequence[str] = ()) -> alt.LayerChart:
        """Return a figure by round, over all sites or for the named ones.

        Raises
        ------
        UsageError
            If the run has no such figure or site.
        """
        from flfed.records.charts import by_round, colours

        sites = [sites] if isinstance(sites, str) else list(sites)
        all_sites = list(self._result.report["sites"])
        if other := [site for site in sites if site not in all_sites]:
            raise unknown("site", other[0], all_sites)
        with RunReader.open(self._result.store) as reader:
            runs = [entry.run for entry in reader.runs_of(self._result.run)]
            names = reader.curve_names(runs)
            arm = next((arm for arm in CURVE_ARMS if names.get(arm)), None)
            if arm is None:
                raise usage_error("notebook.plots.rounds")
            chosen = metric or self._metric()
            if not metric and chosen not in names[arm]:
                chosen = names[arm][0]
            points = reader.curves(runs, arm=arm, metric=chosen, sites=sites or None)
        if sites:
            drawn = by_round.of_each_site(points, chosen, colours.site_looks(sites))
        else:
            drawn = by_round.of_all_sites(points, chosen)
        if drawn is None:
            raise usage_error("notebook.plots.metric", metric=metric_name(chosen), known=", ".join(names[arm]))
        return drawn.altair()

    def _metric(self) -> str:
        metric = self._result.primary
        if metric is None:
            raise usage_error("notebook.plots.nothing")
        return metric


def with_model(result: server.Result, workspace: Workspace | None = None) -> Result:
    """Return a run's result for notebooks."""
    return Result(CallableReport(result.report, result.store), result.store, workspace)


def load(
    run: str = "latest", *, model: type | torch.nn.Module | Builder | None = None, store: str | None = None
) -> Result:
    """Return the result of a run that is in the store.

    Parameters
    ----------
    run : str
        Id of a run or a series, or "latest".
    model : torch.nn.Module, a function of (inputs, outputs), or a model's class, optional
        The model of the run, if another program defined it; its present arrays do not matter.
    store : str, optional
        Database URL; default `FLFED_STORE`, else `runs.db` under `FLFED_HOME`.

    Raises
    ------
    UsageError
        If there is no such run, or `model` is not its model.

    Examples
    --------
    >>> from flfed import load, run
    >>> result = run("wine", rounds=2)  # doctest: +SKIP
    >>> load("latest").study.rounds  # doctest: +SKIP
    2
    """
    with RunReader.open(store) as reader:
        if model is not None:
            from flfed.notebook.own_model import name_of_model, recorded_sizes

            first = reader.runs_of(run)[0].run
            text = reader.series(first).study_text
            name = name_of_model(model, partial(recorded_sizes, first, text))
            # The run's own model may be listed already, so that only the name shows another one.
            if name != Study.parse(text).model.name:
                raise usage_error("notebook.result.another", name=name, run=first)
        return Result(CallableReport(report(reader, run), store), store)


def runs(*, search: str = "", store: str | None = None) -> pd.DataFrame:
    """Return the runs of the store, the newest first.

    One row a run: its id, study, status, engine, start, rounds, and the shared model's primary metric.

    Examples
    --------
    >>> from flfed import run, runs
    >>> result = run("wine", rounds=2)  # doctest: +SKIP
    >>> runs().loc[0, ["study", "status"]].tolist()  # doctest: +SKIP
    ['wine', 'completed']
    """
    keys = ("run", "series", "study", "status", "engine", "started", "rounds")
    with RunReader.open(store) as reader:
        entries = reader.runs(search=search)
        figures = reader.headlines([entry.run for entry in entries])
    lines = []
    for entry in entries:
        line = {key: getattr(entry, key) for key in keys}
        lines.append(line | {"figure": figures.get(entry.run)})
    return pd.DataFrame(lines, columns=[*keys, "figure"])
