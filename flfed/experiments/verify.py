"""Verification of a study: figures of its run beside published ones, with a verdict for each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count, starmap
from typing import Any

from flfed.callbacks import Progress, no_progress
from flfed.errors import FlfedError, RunStopped, UsageError, nearest, unknown
from flfed.federation.engines.engine import find_sites
from flfed.federation.server.preflight import check
from flfed.federation.server.run import run
from flfed.records.reports.report import REFERENCES, report
from flfed.records.reports.site_verdict import SITE_ARMS
from flfed.records.statistics import Report, intervals
from flfed.records.statistics.verdict import decimals_of, format_as_written, number
from flfed.records.store.reader import RunReader
from flfed.rows.evaluation.scoring import metrics_of
from flfed.study.study import Study
from flfed.study.tables import Expectation
from flfed.words import counted, flfed_error, render, usage_error

SITE_PARTS = (*SITE_ARMS, "difference", "difference-personalised")


@dataclass(frozen=True)
class Repeat:
    """Repeat with its published figure.

    Attributes
    ----------
    repeat : int
        From 1.
    seed : int
    published : float
    ours : float or None
    """

    repeat: int
    seed: int
    published: float
    ours: float | None

    @property
    def difference(self) -> float | None:
        """Our figure minus the published one."""
        return None if self.ours is None else self.ours - self.published


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Expected figure beside ours.

    Attributes
    ----------
    expected : Expectation
    ours : float or None
        Mean over the repeats; None if the run did not measure it.
    sd : float or None
        Standard deviation over the repeats, divisor n - 1.
    without : int
        Repeats without the figure, although others have it.
    by_repeat : tuple of Repeat
        If a figure was published for each.
    """

    expected: Expectation
    ours: float | None
    sd: float | None = None
    without: int = 0
    by_repeat: tuple[Repeat, ...] = ()

    @property
    def published(self) -> float:
        """Published figure, or the expected minimum."""
        expected = self.expected
        return expected.minimum if expected.value is None and expected.minimum is not None else expected.value or 0.0

    @property
    def difference(self) -> float | None:
        """Our figure minus the published one."""
        return None if self.ours is None else self.ours - self.published

    @property
    def decimals(self) -> int:
        """Decimals of the figure, at least those of the tolerance."""
        decimals = decimals_of(self.ours, self.published)
        if not self.expected.tolerance:
            return decimals
        return max(decimals, -math.floor(math.log10(self.expected.tolerance)))

    @property
    def holds(self) -> bool:
        """Whether the figure is within its tolerance, or reaches the minimum, and no repeat lacks it.

        A billionth is allowed for rounding: 0.83 must reach a minimum of 0.83.
        """
        if self.difference is None or self.without:
            return False
        if self.expected.minimum is not None:
            return self.difference >= -1e-9
        return abs(self.difference) <= self.expected.tolerance + 1e-9

    def failing(self) -> str:
        """Return a sentence on how the figure fails, or ""."""
        path = self.expected.path
        difference = self.difference
        if self.holds:
            return ""
        if difference is None:
            return render("experiments.verify.unmeasured", figure=path)
        # A mean over the other repeats would hide those that failed.
        if self.without:
            return render("experiments.verify.missing", figure=path, repeats=self.without)
        ours = number(self.ours, self.decimals)
        facts = {"figure": path, "ours": ours, "difference": number(abs(difference), self.decimals)}
        published = format_as_written(self.published)
        if self.expected.minimum is not None:
            return render("experiments.verify.below", least=published, **facts)
        side = "above" if difference > 0 else "below"
        tolerance = format_as_written(self.expected.tolerance)
        return render("experiments.verify.outside", side=side, published=published, tolerance=tolerance, **facts)

    def as_json(self) -> Report:
        """Return the entry of `flfed study verify --json`."""
        expected = self.expected
        tolerance = expected.tolerance if expected.minimum is None else None
        return {
            "figure": expected.path,
            "published": expected.value,
            "tolerance": tolerance,
            "minimum": expected.minimum,
            "ours": self.ours,
            "sd": self.sd,
            "difference": self.difference,
            "holds": self.holds,
            "source": expected.source,
            "by-repeat": [{**vars(r), "difference": r.difference} for r in self.by_repeat],
        }


@dataclass(frozen=True, kw_only=True)
class Verified:
    """Result of verifying a study.

    Attributes
    ----------
    study, run : str
    status, reason : str
        End of the run.
    repeats : int
    figures : tuple of Compared
    """

    study: str
    run: str
    status: str
    reason: str
    repeats: int
    figures: tuple[Compared, ...]

    @property
    def holds(self) -> bool:
        """Whether the run completed and every figure holds."""
        return self.status == "completed" and all(figure.holds for figure in self.figures)

    def as_json(self) -> Report:
        """Return the object of `flfed study verify --json`."""
        figures = [figure.as_json() for figure in self.figures]
        return {"study": self.study, "run": self.run, "holds": self.holds, "figures": figures}

    def error(self) -> FlfedError | None:
        """Return the error of a stopped run or of figures that do not hold; otherwise None."""
        if self.status == "stopped":
            return RunStopped(render("experiments.verify.stopped", reason=self.reason))
        wrong = [figure.failing() for figure in self.figures if not figure.holds]
        if not wrong:
            return None
        failed = "; ".join(wrong)
        return flfed_error("experiments.verify.failed", wrong=len(wrong), of=len(self.figures), figures=failed)


def verify(study: Study, *, engine: str = "inprocess", progress: Progress = no_progress, jobs: int = 1) -> Verified:
    """Run a study with the repeats of its table [expected], and compare its expected figures.

    Parameters
    ----------
    study : Study
    engine : str
        As `run` takes it.
    progress : callable (stage, done, of)
    jobs : int or Cluster
        Processes, as for `run`.

    Raises
    ------
    UsageError
        If the study expects no figure, or one that its run cannot have; before anything runs where that can be known.
    FlfedError
        If the run failed.
    """
    # Checked before anything runs: a misspelt path should not cost hours.
    check_expected(study)
    try:
        outcome = run(study, engine=engine, repeats=study.expected.repeats, progress=progress, jobs=jobs)
    except RunStopped as error:
        if error.by:
            error.args = (render("experiments.verify.interrupted", reason=error),)
        raise
    overall_report = outcome.report
    with RunReader.open() as reader:
        runs = reader.runs_of(overall_report["run"])
        each = [report(reader, entry.run) for entry in runs]
    # A stopped run may lack any figure.
    strict = overall_report["status"] == "completed"
    seeds = [entry.seed for entry in runs]
    figures = [compared(expected, overall_report, each, seeds, strict=strict) for expected in study.expected.figures]
    return Verified(
        study=study.name,
        run=overall_report["run"],
        status=overall_report["status"],
        reason=overall_report["reason"],
        repeats=len(runs),
        figures=tuple(figures),
    )


def compared(
    expected: Expectation, whole: Report, each: Sequence[Report], seeds: Sequence[int], *, strict: bool = True
) -> Compared:
    """Return an expected figure beside ours.

    Parameters
    ----------
    expected : Expectation
    whole : dict
        Report of the series.
    each : sequence of dict
        Report of each repeat.
    seeds : sequence of int
        Seeds of the repeats.
    strict : bool
        Whether a wrong path is an error; a stopped run may lack any figure.

    Raises
    ------
    UsageError
        If `expected.path` does not exist in `whole`.
    """
    entry = entry_at(whole, expected.path, strict=strict) or {}
    values = [(entry_at(repeat_report, expected.path, strict=False) or {}).get("value") for repeat_report in each]
    there = [value for value in values if value is not None]
    # The spread of the report has precedence.
    sd = entry.get("sd")
    if sd is None:
        sd = intervals.sd_of(values)
    pairs = zip(count(1), seeds, expected.by_repeat, values, strict=False)
    without = len(values) - len(there) if there else 0
    return Compared(
        expected=expected, ours=entry.get("value"), sd=sd, without=without, by_repeat=tuple(starmap(Repeat, pairs))
    )


def entry_at(run_report: Report, path: str, *, strict: bool = True) -> Report | None:
    """Return the figure at a path of a report, such as "global.roc_auc_score".

    Returns
    -------
    entry : dict with "value", or None if there is none and `strict` is off

    Raises
    ------
    UsageError
        If there is nothing, or no figure, at `path`.
    """
    place: Any = run_report
    for part in path.split("."):
        keys = list(place) if isinstance(place, Mapping) else []
        if part in keys:
            place = place[part]
        elif strict:
            # The error names the most similar part.
            names = f" There: {', '.join(keys)}" if keys else ""
            raise UsageError(f"[expected] {path!r}: the run's report has no {part!r}{nearest(part, keys)}{names}")
        else:
            return None
    if isinstance(place, Mapping) and "value" in place:
        return dict(place)
    # Of a statistic some figures are plain numbers; whole numbers are counts.
    if isinstance(place, float):
        return {"value": place}
    if strict:
        raise usage_error("experiments.verify.path", path=path)
    return None


def check_expected(study: Study) -> None:
    """Refuse a study without expected figures, or with one that no run can have; no table is read.

    Raises
    ------
    UsageError
        For the first expectation that does not fit.
    """
    expected = study.expected
    metrics = list(metrics_of(check(study)["task"], study.compare.alert_budget))
    sites = [site.name for site in find_sites(study)]
    if not expected.figures:
        raise usage_error("experiments.verify.empty", study=study.name)
    for figure in expected.figures:
        where = f"[expected] {figure.path!r}"
        parts = figure.path.split(".")
        # Each published repeat needs one of ours beside it.
        if figure.by_repeat and len(figure.by_repeat) != expected.repeats:
            count_of_figures = counted(len(figure.by_repeat), "figure")
            raise UsageError(f"{where}: by-repeat has {count_of_figures}, and the study has {expected.repeats} repeats")
        if parts[0] == "sites":
            _check_listed(where, "site", parts[1:2], sites)
            _check_listed(where, "arm", parts[2:3], SITE_PARTS)
            _check_listed(where, "metric", parts[3:], metrics)
        elif parts[0] in REFERENCES:
            _check_listed(where, "metric", parts[1:], metrics)


def _check_listed(where: str, what: str, parts: Sequence[str], names: Sequence[str]) -> None:
    """Refuse a part of a path that is not exactly one of some names."""
    if len(parts) != 1 or parts[0] not in names:
        raise unknown(f"{where}: {what}", ".".join(parts), names)
