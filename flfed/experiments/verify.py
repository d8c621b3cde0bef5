"""Verification of a study against published figures.

Its run stands beside them, with a verdict for each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count, starmap
from typing import Any

from flfed.callbacks import Progress, no_progress
from flfed.errors import FlfedError, RunStopped, UsageError, nearest
from flfed.federation.engines.engine import find_sites
from flfed.federation.server.preflight import check
from flfed.federation.server.run import run
from flfed.records.reports.report import REFERENCES, report
from flfed.records.reports.site_verdict import SITE_ARMS
from flfed.records.statistics import Report, intervals
from flfed.records.statistics.verdict import decimals_of, number
from flfed.records.store.reader import RunReader
from flfed.rows.evaluation.scoring import list_study_metrics
from flfed.study.study import Study
from flfed.study.tables import Expectation

SITE_PARTS = (*SITE_ARMS, "difference", "difference-personalised")


@dataclass(frozen=True)
class Repeat:
    """One repeat and its published figure.

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
    """One expected figure beside ours.

    Attributes
    ----------
    expected : Expectation
    ours : float or None
        Mean over the repeats; None where the run did not give it.
    sd : float or None
        Over the repeats, divisor n - 1.
    without : int
        Repeats that did not give the figure although others did.
    by_repeat : tuple of Repeat
        Where something was published for each.
    """

    expected: Expectation
    ours: float | None
    sd: float | None = None
    without: int = 0
    by_repeat: tuple[Repeat, ...] = ()

    @property
    def published(self) -> float:
        """Published figure, or the minimum that was asked."""
        expected = self.expected
        return expected.minimum if expected.value is None and expected.minimum is not None else expected.value or 0.0

    @property
    def difference(self) -> float | None:
        """Our figure minus the published one."""
        return None if self.ours is None else self.ours - self.published

    @property
    def decimals(self) -> int:
        """Decimals that the figure deserves, and at least those of the tolerance."""
        decimals = decimals_of(self.ours, self.published)
        if not self.expected.tolerance:
            return decimals
        return max(decimals, -math.floor(math.log10(self.expected.tolerance)))

    @property
    def holds(self) -> bool:
        """Tell whether the figure holds in all repeats.

        It is within the tolerance, or reaches the minimum.

        A billionth is allowed for rounding: 0.83 must reach a minimum of 0.83.
        """
        if self.difference is None or self.without:
            return False
        if self.expected.minimum is not None:
            return self.difference >= -1e-9
        return abs(self.difference) <= self.expected.tolerance + 1e-9

    def failing(self) -> str:
        """Describe by how much the figure fails.

        An empty text where it holds.
        """
        path = self.expected.path
        difference = self.difference
        if self.holds:
            return ""
        if difference is None:
            return f"{path} was not measured"
        # A mean over the repeats that have the figure would hide those that failed.
        if self.without:
            return f"{path} is missing in {self.without} of the repeats"
        measured = f"{path} is {number(self.ours, self.decimals)}, {number(abs(difference), self.decimals)}"
        if self.expected.minimum is not None:
            return f"{measured} below the minimum of {self.expected.minimum:g}"
        side = "above" if difference > 0 else "below"
        return f"{measured} {side} {self.published:g} where {self.expected.tolerance:g} is allowed"

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
        How the run ended.
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
        """Tell whether the whole study is verified.

        The run completed, and every figure holds.
        """
        return self.status == "completed" and all(figure.holds for figure in self.figures)

    def as_json(self) -> Report:
        """Return the object of `flfed study verify --json`."""
        figures = [figure.as_json() for figure in self.figures]
        return {"study": self.study, "run": self.run, "holds": self.holds, "figures": figures}

    def error(self) -> FlfedError | None:
        """Return the error of a failed verification.

        The run stopped, or figures do not hold. None where all is well.
        """
        if self.status == "stopped":
            return RunStopped(f"the run stopped, so nothing is verified: {self.reason}")
        wrong = [figure.failing() for figure in self.figures if not figure.holds]
        if not wrong:
            return None
        return FlfedError(f"{len(wrong)} of {len(self.figures)} expected figures do not hold: {'; '.join(wrong)}")


def verify(study: Study, *, engine: str = "inprocess", progress: Progress = no_progress) -> Verified:
    """Run a study and compare its expected figures.

    It runs as often as its table [expected] says.

    Parameters
    ----------
    study : Study
    engine : str
        As `run` takes it.
    progress : callable (stage, done, of)

    Raises
    ------
    UsageError
        If the study expects nothing, or a figure that a run of it cannot have; before anything runs
        where that is known then.
    FlfedError
        If the run failed.
    """
    # Known before anything runs, a misspelt path costs no hours.
    check_expected(study)
    try:
        overall_report = run(study, engine=engine, repeats=study.expected.repeats, progress=progress).report
    except RunStopped as error:
        if error.by:
            error.args = (f"{error} (which verifies nothing: flfed study verify begins anew)",)
        raise
    with RunReader.open() as reader:
        runs = reader.runs_of(overall_report["run"])
        each = [report(reader, entry.run) for entry in runs]
    # A run that stopped may lack any figure, which its status explains.
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
    """Return one expected figure beside ours.

    Parameters
    ----------
    expected : Expectation
    whole : dict
        The report of the series.
    each : sequence of dict
        The report of each repeat.
    seeds : sequence of int
        Of the repeats.
    strict : bool
        Whether a path that leads nowhere is an error; a run that stopped may lack any figure.

    Raises
    ------
    UsageError
        If `expected.path` does not exist in `whole`.
    """
    entry = entry_at(whole, expected.path, strict=strict) or {}
    values = [(entry_at(repeat_report, expected.path, strict=False) or {}).get("value") for repeat_report in each]
    there = [value for value in values if value is not None]
    # The report's own spread counts, where it has one.
    sd = entry.get("sd")
    if sd is None:
        sd = intervals.sd_of(values)
    pairs = zip(count(1), seeds, expected.by_repeat, values, strict=False)
    without = len(values) - len(there) if there else 0
    return Compared(
        expected=expected,
        ours=entry.get("value"),
        sd=sd,
        without=without,
        by_repeat=tuple(starmap(Repeat, pairs)),
    )


def entry_at(run_report: Report, path: str, *, strict: bool = True) -> Report | None:
    """Return the figure at a path of a report.

    An example of a path is "global.roc_auc_score".

    Returns
    -------
    entry : dict with "value", or None where it is not there and `strict` is off

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
            # Where the path must exist, the error names the nearest part that does.
            names = f" There: {', '.join(keys)}" if keys else ""
            raise UsageError(f"[expected] {path!r}: the run's report has no {part!r}{nearest(part, keys)}{names}")
        else:
            return None
    if isinstance(place, Mapping) and "value" in place:
        return dict(place)
    if strict:
        raise UsageError(f"[expected] {path!r}: is no figure of the run's report; one is 'global.roc_auc_score'")
    return None


def check_expected(study: Study) -> None:
    """Refuse expectations that no run can meet.

    Also refused is a study that expects nothing. No table is read.

    Raises
    ------
    UsageError
        For the first expectation that does not fit.
    """
    expected = study.expected
    task = check(study)["task"]
    metrics = list(list_study_metrics(task, study.compare))
    sites = [site.name for site in find_sites(study)]
    if not expected.figures:
        raise UsageError(
            f"study {study.name!r} has no [expected] to verify: write one, such as "
            '"global.roc_auc_score" = { value = 0.89, tolerance = 0.02, source = "..." }'
        )
    for figure in expected.figures:
        where = f"[expected] {figure.path!r}"
        parts = figure.path.split(".")
        # Each published repeat needs one of ours beside it.
        if figure.by_repeat and len(figure.by_repeat) != expected.repeats:
            figure_count = len(figure.by_repeat)
            raise UsageError(
                f"{where}: by-repeat has {figure_count} figures, the study's repeats are {expected.repeats}"
            )
        if parts[0] == "sites":
            _check_listed(where, "site", parts[1:2], sites)
            _check_listed(where, "arm", parts[2:3], SITE_PARTS)
            _check_listed(where, "metric", parts[3:], metrics)
        elif parts[0] in REFERENCES:
            _check_listed(where, "metric", parts[1:], metrics)


def _check_listed(where: str, what: str, parts: Sequence[str], names: Sequence[str]) -> None:
    """Refuse an unknown part of a path.

    It must be exactly one of what is known.
    """
    if len(parts) == 1 and parts[0] in names:
        return
    word = ".".join(parts)
    raise UsageError(f"{where}: {what} {word!r} is not known{nearest(word, tuple(names))} Known: {', '.join(names)}")
