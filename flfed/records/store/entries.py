"""Rows of the run store as frozen dataclasses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, NamedTuple

from flfed.records.store.tables import finite, plain

EventKind = Literal["fault", "flag", "refused", "leak", "holdout-opened", "note"]
"""`fault`: a rejected update; `flag`: suspicious but accepted; `refused`: a site that did not enrol; `leak`: a column
that may leak the target; `holdout-opened`: the holdout was read."""


Status = Literal["running", "interrupted", "completed", "stopped", "failed"]
"""Status of a run. `interrupted` is never written: it is a running run whose process is gone."""


class MetricRow(NamedTuple):
    """One figure of a round, of which 10,000 sites have 30,000.

    Parameters
    ----------
    site : str or None
        The site it was measured at; None for all sites together.
    arm : str
        The rows scored: "training" or "validation" for the curves by round.
    metric : str
        The exact name in `sklearn.metrics`, or of the project's own listing.
    value, low, high : float or None
        The figure and its 95 % interval; None where undefined or unknown. Of an AUC over all sites, which comes from
        counts by bin: the bounds of that of the rows.
    variance : float or None
        Of `value`, as the site reported it.
    n : int or None
        Rows behind the figure.
    """

    site: str | None
    arm: str
    metric: str
    value: float | None
    low: float | None = None
    high: float | None = None
    variance: float | None = None
    n: int | None = None


class SentRow(NamedTuple):
    """Bytes of one kind of message that one site sent or received."""

    site: str
    direction: Literal["to-site", "to-server"]
    kind: str
    bytes: int


@dataclass(frozen=True)
class SiteRow:
    """One site of a run, to be written; a field that is None keeps its value, or gets its default.

    Parameters
    ----------
    name : str
        The site's name.
    title : str
        Its name for people; by default `name`.
    status : str
        "accepted" (by default) or "refused", with `reason`.
    rows, holdout_rows : int
        All rows of the site, and how many of them are holdout.
    disclosure : str
        "open" (by default) or "institution".
    resplit : bool
        Whether the repeats of a series drew a new holdout here, which changes the meaning of their spread.
    """

    name: str
    title: str | None = None
    status: str | None = None
    reason: str | None = None
    rows: int | None = None
    holdout_rows: int | None = None
    disclosure: str | None = None
    resplit: bool | None = None


@dataclass(frozen=True)
class EventRow:
    """Event that a reader of the record must know.

    `round` and `site` are None where it has none; `code` is "" where the reason is no refusal (`Refusal.path`).
    """

    round: int | None
    site: str | None
    kind: EventKind
    reason: str
    code: str = ""


@dataclass(frozen=True)
class ComparisonRow:
    """One arm's figure on a holdout, or on all holdouts together where `site` is None.

    Arms of a site: `global`, `local-only`, `personalised`. Arms of site None: `global` and `personalised` (union of
    holdouts), `sites-mean`, `personalised-sites-mean`, `pooled`, `own-model-everywhere`. Where `value` is None,
    `method` is the reason in words ("the holdout has one class only").
    """

    site: str | None
    arm: str
    metric: str
    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    method: str = ""


@dataclass(frozen=True)
class DifferenceRow:
    """Difference of arm `a` minus arm `b` on the same holdout, with a paired 95 % interval and p value.

    Where `value` is None, `method` is the reason in words.
    """

    site: str | None
    a: str
    b: str
    metric: str
    value: float | None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    method: str = ""
    verdict: str = ""


FIGURES = tuple(field.name for field in fields(ComparisonRow))
"""Columns of the store that hold a `ComparisonRow`, in its order."""
DIFFERENCES = ("site", "arm", "against", *(field.name for field in fields(DifferenceRow)[3:]))
"""Columns of the store that hold a `DifferenceRow`, in its order."""


@dataclass(frozen=True)
class SeriesEntry:
    """A study that is run once or repeatedly."""

    series: str
    study: str
    study_sha256: str
    study_text: str
    repeats: int
    started: str


AT_INSTITUTIONS = {"deployment"}
"""Engines of stored runs whose sites were institutions: with a gate, and noise of their systems' own."""


@dataclass(frozen=True)
class RunEntry:
    """One run; `rounds` is the number committed so far."""

    run: str
    series: str
    study: str
    repeat: int
    repeats: int
    status: Status
    reason: str
    engine: str
    path: str
    task: str
    primary: str
    seed: int
    rounds: int
    rounds_planned: int
    best_round: int | None
    started: str
    finished: str | None
    seconds: float | None
    arrays_sha256: str | None
    versions: Mapping[str, Any] = field(default_factory=dict)
    hashes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def at_institutions(self) -> bool:
        """Whether the run's sites were institutions."""
        return self.engine in AT_INSTITUTIONS


@dataclass(frozen=True)
class SiteEntry:
    """One site of a run in the store, with all of its `rows`, and `holdout_rows` that were never trained on."""

    site: str
    title: str
    status: str
    reason: str
    rows: int | None
    holdout_rows: int | None
    disclosure: str
    resplit: bool


Runs = Sequence[tuple[RunEntry, Mapping[str, SiteEntry]]]
"""The repeats of a run, each with its sites by name."""


@dataclass(frozen=True)
class CrossedEntry:
    """Bytes of one kind of message between the server and a site, over all rounds of some runs.

    Attributes
    ----------
    site, direction, kind : str
    bytes : int
        Of all messages together.
    messages : int
        Number of messages: at most one a round.
    """

    site: str
    direction: str
    kind: str
    bytes: int
    messages: int


@dataclass(frozen=True)
class CurvePoint:
    """A figure of one round with its interval and variance, averaged over repeats.

    Of several consecutive rounds it is their mean: `first` is the first of them and `round` the last, `least` and
    `most` are the smallest and the largest figure.
    """

    round: int
    site: str | None
    arm: str
    value: float | None
    low: float | None
    high: float | None
    variance: float | None = None
    first: int | None = None
    least: float | None = None
    most: float | None = None


@dataclass(frozen=True)
class EventEntry:
    """An event with its run and time of writing."""

    run: str
    at: str
    round: int | None
    site: str | None
    kind: str
    reason: str
    code: str = ""


@dataclass(frozen=True)
class AuditRow:
    """One figure of an attack on the run's own model.

    Parameters
    ----------
    attack, metric : str
        The attack's name, and the name of its figure, such as "roc_auc_score".
    site : str or None
        The recorded name of the attacked site; None where the attack is not on one site.
    value, low, high : float or None
        The figure and its interval; None where there is none.
    payload : mapping
        "promise" (float or None), "method", "rows", "verdict" ("within the promise", "beyond the promise", "not known",
        "no promise"), "says" (a sentence), and further facts of an attack.
    """

    attack: str
    site: str | None
    metric: str
    value: float | None
    low: float | None = None
    high: float | None = None
    payload: Mapping[str, Any] = field(default_factory=dict)

    def as_object(self) -> dict[str, Any]:
        """Return the figure as `flfed audit --json` shows it."""
        # JSON has no NaN and no infinity: both become null.
        figures = {name: finite(getattr(self, name)) for name in ("value", "low", "high")}
        plain_ones: dict[str, Any] = plain(dict(self.payload))
        return {"attack": self.attack, "site": self.site, "metric": self.metric} | figures | plain_ones


@dataclass(frozen=True)
class AuditEntry(AuditRow):
    """Figure of an attack with its time of writing (UTC)."""

    at: str = ""

    def as_object(self) -> dict[str, Any]:
        """Return the figure as JSON, with the time."""
        return super().as_object() | {"at": self.at}
