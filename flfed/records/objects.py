"""Objects of a record as dataclasses, read and written by cattrs.

A field's key is its name with hyphens, without an underscore at its end. Values without a JSON type do not change. This
module has the run, a site and a figure of a report. Each is read by itself, so that a report of many sites costs no
more to open than one of three.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from typing import Any, TypeVar

from cattrs import Converter
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

T = TypeVar("T")


def read(kind: type[T], payload: Any) -> T:
    """Return an object of a record as a dataclass, without keys that it does not name.

    An object of this class is returned unchanged, and None is an object without keys.
    """
    if isinstance(payload, kind):
        return payload
    return _converter().structure(payload or {}, kind)


def read_all(kind: type[T], payloads: Sequence[Any]) -> list[T]:
    """Return a list of objects of a record as dataclasses."""
    return [read(kind, one) for one in payloads]


def read_some(kind: type[T], payloads: Sequence[Any]) -> list[T]:
    """Return those objects of a list that are not None as dataclasses."""
    return [read(kind, one) for one in payloads if one is not None]


def write(value: Any) -> dict[str, Any]:
    """Return a dataclass as JSON, keys in the order of its fields."""
    written: dict[str, Any] = _converter().unstructure(value)
    return written


@cache
def _converter() -> Converter:
    converter = Converter()
    # Figures do not change: 5 does not become 5.0.
    for kind in (float, int, str, bool):
        converter.register_structure_hook(kind, _as_it_is)
    # Mappings by site are not copied, which would take long for many sites.
    converter.register_structure_hook_func(lambda kind: kind in (dict[str, Any], dict[str, str]), _as_it_is)
    converter.register_structure_hook_factory(
        is_dataclass, lambda kind: make_dict_structure_fn(kind, converter, **_keys(kind))
    )
    converter.register_unstructure_hook_factory(
        is_dataclass, lambda kind: make_dict_unstructure_fn(kind, converter, **_keys(kind))
    )
    return converter


def _as_it_is(value: Any, _kind: object) -> Any:
    return value


def _keys(kind: Any) -> Mapping[str, Any]:
    """Return the key of each field in JSON."""
    return {field.name: override(rename=field.name.rstrip("_").replace("_", "-")) for field in fields(kind)}


@dataclass(frozen=True)
class RunReport:
    """Report of a run or series (`reports.report.report`), with its sites and figures as they were written.

    Attributes
    ----------
    sites : dict of name to object
        `SiteReport` reads one.
    global_, sites_mean, pooled, pooled_same : dict of metric to object, or None
        Figures over all sites, the primary metric first; `FigureReport` reads one.
    run, status, rounds, seconds
        Of repeats, the series, the worst status, the fewest rounds and the sum of seconds.
    repeats : int
        Of several, a figure's `value` is the mean and `sd` their standard deviation; `low` and `high` are the means of
        the repeats' bounds. A difference's interval comes from their spread (`intervals.resplit_interval`) where each
        repeat drew a holdout; one that less than half of them have is null.
    verdict_rule : object
        `VerdictRule`.
    training : object or None
        Whether the shared model was trained enough to be judged (`training_state.training_state`).
    mean_gain : dict of metric to object
        The shared model's gain over the site models, over sites.
    faults : list
        Rejected updates and, with round null, refused sites and other faults.
    privacy : object
        `reports.privacy.PrivacyReport`.
    share : {"named", "sum"}
        Whether the study records each site's figures, or one sum of all sites'.
    summed_figures : object or None
        That sum.
    parties : object or None
        What each party has, of a run over different columns of the same people.
    round_bytes : object or None
        Bytes sent in a round of training (`round_totals.round_bytes`).
    validation : object or None
        A brought model at each site, and updates of it (`left_out.LeftOut`).
    left_out : object or None
        The model of the other sites at each site, which took no part in it (`left_out.LeftOut`).
    warm_start : object or None
        The earlier model that it began with, and whether that may have been trained on test rows.
    """

    run: str = ""
    study: str = ""
    status: str = ""
    reason: str = ""
    engine: str = ""
    rounds: int = 0
    seconds: float | None = None
    repeats: int = 1
    global_: Any = None
    sites_mean: Any = None
    pooled: Any = None
    pooled_same: Any = None
    pooled_families: Any = None
    sites: dict[str, Any] = field(default_factory=dict)
    verdict_rule: Any = None
    training: Any = None
    leaking_columns: Any = ()
    mean_gain: Any = None
    faults: Any = ()
    privacy: Any = None
    statistics: Any = None
    share: str = "named"
    summed_figures: Any = None
    own_parts: Any = None
    parties: Any = None
    noised_scores: Any = None
    round_bytes: Any = None
    warm_start: Any = None
    validation: Any = None
    left_out: Any = None

    @property
    def is_statistic(self) -> bool:
        """Whether it has no model, but the figures of a statistic."""
        return self.statistics is not None

    @property
    def is_validation(self) -> bool:
        """Whether its model was trained before and elsewhere."""
        return self.validation is not None

    @property
    def is_of_parties(self) -> bool:
        """Whether parties have different columns of the same people, of whom one has the outcome."""
        return self.parties is not None

    @property
    def why(self) -> str:
        """Reason for its status, in brackets."""
        return f" ({self.reason.rstrip('.')})" if self.reason else ""

    @property
    def rule(self) -> VerdictRule:
        """The rule of every verdict."""
        return read(VerdictRule, self.verdict_rule)


@dataclass(frozen=True)
class VerdictRule:
    """Rule of every verdict: sites looked at, level of intervals, minimum gain by metric."""

    sites: int = 1
    level: float = 0.95
    minimum_gain: Any = None


@dataclass(frozen=True)
class SiteReport:
    """Part of a report on one site; `FigureReport` reads its figures by metric."""

    rows: int | None = None
    holdout_rows: int | None = None
    holdout_rows_range: Any = None
    holdout_classes: Any = None
    global_: Any = None
    local_only: Any = None
    local_only_same: Any = None
    local_only_family: str | None = None
    local_only_families: Any = None
    difference: Any = None
    undertrained: bool = False


@dataclass(frozen=True)
class FigureReport:
    """A figure of a report, a difference of two, or a mean over sites.

    Attributes
    ----------
    value, low, high : float or None
        None where not known; `reason` is why there is no value, `method` why there is no interval.
    widened_low, widened_high, sites, minimum_gain
        Of a difference: the interval widened for so many sites, and the minimum gain.
    sites, of, between_sites_p, between_sites_sd, i2
        Of a mean: the number of sites in it and of all, the spread between them, and I².
    bound : float or None
        Largest distance of an AUC from counts by bin to that of the rows.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    sd: float | None = None
    p: float | None = None
    freedom: int | None = None
    reason: str = ""
    method: str = ""
    bound: float | None = None
    widened_low: float | None = None
    widened_high: float | None = None
    sites: int = 1
    of: int = 1
    minimum_gain: float | None = None
    between_sites_p: float | None = None
    between_sites_sd: float | None = None
    i2: float | None = None
    undertrained: bool = False


@dataclass(frozen=True)
class CalibrationReport:
    """Slope and intercept of calibration at a site, or their means over sites; `FigureReport` reads each.

    `few_events` is whether an outcome has fewer than 100 rows there.
    """

    slope: Any = None
    intercept: Any = None
    few_events: bool = False


def figure_of(figures: Mapping[str, Any] | None, metric: str) -> FigureReport:
    """Return one metric's figure, without a value where there is none.

    Examples
    --------
    >>> figure_of({"roc_auc_score": {"value": 0.8}}, "roc_auc_score").value, figure_of(None, "log_loss").value
    (0.8, None)
    """
    return read_figure((figures or {}).get(metric))


def run_of(report: Any) -> RunReport:
    """Return a run's report as a dataclass."""
    return read(RunReport, report)


def read_figure(entry: Any) -> FigureReport:
    """Return a figure of a report as a dataclass, without a value where there is none."""
    return read(FigureReport, entry)


def site_of(entry: Any) -> SiteReport:
    """Return a site's part of a report as a dataclass."""
    return read(SiteReport, entry)
