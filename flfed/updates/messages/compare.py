"""Messages by which the final model is compared on the sites' holdouts, and attacked there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
from flwr.app import RecordDict

from flfed.refusals import Refusal
from flfed.registry import kebab
from flfed.study.tables import OWN_FAMILIES, OwnFamily
from flfed.summaries.score_bins import EVEN_ODDS, LEAST_SPREAD, GroupFigure, PointCounts, ScoreBins
from flfed.summaries.summary import Encoder, Summary
from flfed.updates.arrays import Arrays
from flfed.updates.messages import fields, kinds
from flfed.updates.messages.fields import MalformedMessage, MetricName, recorded_note
from flfed.updates.messages.in_memory import array_record, config_record, record_of
from flfed.updates.messages.secure_sum import Masked
from flfed.updates.messages.train import (
    NO_ENCODER,
    hashed_sections,
    read_hashed,
    read_request,
    read_summary,
    read_total,
    request_sections,
    small,
    total_record,
)

COMPARE = kinds.COMPARE
IMPORTANCE = "importance"
"""Section of columns' importances."""


MOST_SITES = 100_000
"""Sites of which a verdict's interval is widened, at most."""
TRAINED_UNKNOWN = "not-known"
TRAINED = ("enough", "not-enough", TRAINED_UNKNOWN)
"""Whether a model was trained enough to be judged, as a request says it."""
CalibrationName = Literal["slope", "intercept"]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure with its interval.

    It is of an arm, or of the difference of two.

    Attributes
    ----------
    metric, arm : str
        Their names; for a difference `arm` is "a - b".
    value, low, high : float
        The figure and its 95 % interval; NaN where undefined.
    extra : float
        Variance of an arm's figure; two-sided p of a difference.
    method : str
        "DeLong", "bootstrap", or why the figure is undefined.
    """

    metric: MetricName
    arm: MetricName
    value: float
    low: float
    high: float
    extra: float
    method: str


@dataclass(frozen=True, kw_only=True)
class ColumnImportance:
    """Permutation importance of one column.

    It crosses only where the study asks for permutations.

    Attributes
    ----------
    column : str
        Its name, which follows from study and schema.
    increase : float
        Mean over the permutations of the loss with this column permuted, less the loss: log loss, or half the squared
        error in steps of the outcome's scale.

    Reveals: how much the shared model's loss over a site's holdout rows grows where the values of each column are
    shuffled among them. Under disclosure "institution", the figure has three digits. It is over at least the cell
    minimum of rows, of as many persons, of each class. It leaves only where each value that the schema names for the
    column has as many rows and persons. Of a number, as many must have other values than the commonest, so that
    permuting it moves many rows. It never leaves beside a histogram of predictions. Figures of a row leave in one run
    alone, for which importances and figures by group count together. No number of rows crosses. A
    withheld column shows that a value of it has few rows or none, and nothing of rows without a value. One extreme
    value of a number may weigh much in the figure, as in a mean. It has no noise: a study that protects rows or sites
    by a mechanism has none.
    """

    column: str
    increase: float


@dataclass(frozen=True, kw_only=True)
class CalibrationFigure:
    """Slope or intercept of the shared model's calibration.

    It crosses only where the study asks for calibration.

    Attributes
    ----------
    name : {"slope", "intercept"}
        The intercept is with the slope fixed at 1, in log-odds.
    value, low, high, variance : float
        The figure with its 95 % interval and its variance; NaN where undefined or withheld.
    method : str
        "Wald", or why the figure is undefined or stays.

    Reveals: how the outcomes of a site's holdout rows relate to the shared model's predictions there, in two numbers
    with intervals. Under disclosure "institution", they have three digits and leave where the area under the ROC curve
    does. The intercept says by how much the number of events differs from the expected one, and the method whether an
    outcome has fewer than 100 rows. They have no noise, and no promise of differential privacy covers them.
    """

    name: CalibrationName
    value: float
    low: float
    high: float
    variance: float
    method: str


@dataclass(frozen=True, kw_only=True)
class WithheldColumn:
    """Reason why there is no importance of one column.

    Attributes
    ----------
    column : str
        Its name, which follows from study and schema.
    method : str
        Why it stays.
    """

    column: str
    method: str


@dataclass(frozen=True, kw_only=True, eq=False)
class CompareRequest:
    """Request to judge the final model on a holdout.

    Attributes
    ----------
    arrays : dict of name to array
        The global model's, of names and shapes that follow from the study.
    encoder : Encoder
    offset_deviation : float, >= 0
        How far the sites' own intercepts differ, as it was estimated over them; NaN where it was not,
        and then it does not cross.
    odds_centre, odds_spread : float
        Where most predictions of all sites lie, in log-odds: rows are counted in bins about it. NaN where that
        is not known, or bins about even odds do, and then neither crosses.
    sites : int, >= 1
        How many sites' figures are looked at: intervals behind verdicts are widened for so many.
    trained : {"enough", "not-enough", "not-known"}
        Whether the model was trained enough to be judged, by the losses that left the sites.
    by_hash : bool
    total : Masked or None
        As in `TrainRequest`.

    Reveals: nothing about rows of the site it goes to. It shows how many sites share figures, and whether the mean
    training loss of all sites still fell at the end. The deviation is of all sites' offsets: see Offset. Centre and
    spread follow, to about a quarter of the spread, from counts by predicted probability. Three or more sites sent
    these with the last round.
    """

    arrays: Arrays
    encoder: Encoder
    offset_deviation: float = math.nan
    odds_centre: float = math.nan
    odds_spread: float = math.nan
    sites: int = 1
    trained: str = TRAINED_UNKNOWN
    by_hash: bool = False
    total: Masked | None = None

    def to_record(self) -> RecordDict:
        """Return the message's content."""
        # Unknown values do not cross.
        chosen = ("offset_deviation", "odds_centre", "odds_spread")
        settings = {name: value for name in chosen if not math.isnan(value := getattr(self, name))}
        if self.total is not None:
            return total_record(self.total, sites=self.sites, trained=self.trained, **settings)
        return record_of(
            hashed_sections(
                self.arrays,
                self.encoder,
                by_hash=self.by_hash,
                sites=self.sites,
                trained=self.trained,
                **settings,
            )
        )

    @classmethod
    def from_record(cls, record: RecordDict) -> CompareRequest:
        """Read the message's content."""
        request = fields.made(cls, read_total(record) if kinds.TOTAL in record else read_hashed(cls, record))
        if not 1 <= request.sites <= MOST_SITES or request.trained not in TRAINED:
            raise fields.MalformedMessage(Refusal("sites-unfit", message="CompareRequest"))
        if request.offset_deviation < 0 or math.isinf(request.offset_deviation):
            raise fields.MalformedMessage(Refusal("deviation-unfit", message="CompareRequest"))
        # Centre and spread cross together or not at all.
        about = (request.odds_centre, request.odds_spread)
        if not all(map(math.isnan, about)) and not (all(map(math.isfinite, about)) and about[1] >= LEAST_SPREAD):
            raise fields.MalformedMessage(Refusal("odds-unfit", message="CompareRequest"))
        return request

    def of_total(self, total: Masked | None) -> CompareRequest:
        """Return the request with a total in place of the model, which sites make of it."""
        return replace(self, arrays={}, encoder=NO_ENCODER, total=total)

    @property
    def deviation(self) -> float | None:
        """Deviation of the sites' intercepts, None where not sent."""
        return None if math.isnan(self.offset_deviation) else self.offset_deviation

    @property
    def bins(self) -> ScoreBins:
        """Bins in which rows are to be counted."""
        if math.isnan(self.odds_centre):
            return EVEN_ODDS
        return ScoreBins(self.odds_centre, self.odds_spread)


LEAST_ROWS = {"num_examples": 1, "holdout_rows": 0}
"""Numbers of rows in a comparison, each with its least value: the gate and the coordinator both go by it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CompareReply:
    """Comparison of all arms at a site, with holdout sums.

    Attributes
    ----------
    num_examples : int
        Training rows; 0 of a validation.
    holdout_rows : int
        Rows that the comparison is over: in a validation all rows of the site.
    arms, differences : tuple of Figure
    summary : Summary or None
        Over holdout rows: with the training rows' it gives Table 1. None where too few.
    histogram : array [classes, bins] or None
        Holdout rows by class and predicted probability; where policy allows.
    note : str
        Rows or figures left out and why, in fixed words.
    own_family : str or None
        Of the site's own model, where that is the best of several families; a section of its own.
    points : tuple of PointCounts
        Of the global model.
    groups : tuple of GroupFigure
        Of the global model.
    importance : tuple of ColumnImportance
        Of the global model, of the columns of which it leaves.
    withheld : tuple of WithheldColumn
        The other columns, where the study asks for importance.
    calibration : tuple of CalibrationFigure
        Of the global model.
    masked : Masked or None
        In place of all figures, where the study records their sum.

    Reveals: the exact number of holdout rows, and averages over them with intervals. Under disclosure "institution", an
    average has at least the cell minimum of rows of each class behind it. No smaller count follows from it. Averages
    have three digits where a gate stands before an "institution", or where record-level differential privacy protects
    rows there. Behind a gate a run has them for one model, and a dataset for as many runs as the site's policy says
    (`runs`). Sums over
    holdout rows leave under the rules of SummariseReply; training and holdout rows are disjoint, so that neither
    narrows the other. A validation scores all rows, so that it has no such sums. Where the site's policy names it, the
    reply counts holdout rows by class and predicted probability. There are 256 bins about a centre that the coordinator
    chooses. They are 0.003 log-odds wide or wider: with few rows most hold one. Where the site's own model is the best
    of several families, the reply names that family. It did best on training rows kept apart. The reply does not where
    record-level differential privacy protects these rows of an "institution", unless its policy names
    "training-figures". Of a regression, a site that holds out its later rows also sends figures of forecasts without a
    model. The mean outcome of the training rows follows from them, and that of the latest ones. At an "institution"
    these are over at least the cell minimum of rows and persons. Where the study requests columns of a site's own,
    figures of their model show that the site has values of one. Where the study names a score in use, the reply has
    figures of that column, over the rows that have it; the note counts the others. At an institution both have at least
    the cell minimum of rows and people of each class, or there are no others. Where there are some, these figures leave
    in one run alone. Of a study that records one sum of figures, only masked numbers leave: rows, means over them, and,
    where the policies of all sites let single cells into sums, rows in 16 bins of predicted probability by class. See
    `Masked`.
    """

    num_examples: int
    holdout_rows: int
    arms: tuple[Figure, ...]
    differences: tuple[Figure, ...]
    summary: Summary | None = None
    histogram: np.ndarray | None = None
    note: str = ""
    own_family: OwnFamily | None = None
    points: tuple[PointCounts, ...] = ()
    groups: tuple[GroupFigure, ...] = ()
    importance: tuple[ColumnImportance, ...] = ()
    withheld: tuple[WithheldColumn, ...] = ()
    calibration: tuple[CalibrationFigure, ...] = ()
    masked: Masked | None = None

    @property
    def is_final(self) -> bool:
        """Whether the figures stand in the reply, and not in a sum."""
        return self.masked is None

    def to_record(self) -> RecordDict:
        """Return the message's content."""
        records = fields.rows_records(self, "arms", "differences")
        if self.summary is not None:
            records["summary"] = array_record(self.summary.arrays())
        if self.histogram is not None:
            records["histogram"] = array_record({"counts": small(self.histogram)})
        if self.own_family is not None:
            records["own-model"] = config_record({"family": self.own_family})
        records |= fields.rows_records(self, "points", "groups", IMPORTANCE, "withheld", "calibration")
        if self.masked is not None:
            self.masked.into(records)
        plain = {name: getattr(self, name) for name in (*LEAST_ROWS, "note")}
        return fields.message_record(records, **plain)

    @classmethod
    def from_record(cls, record: RecordDict) -> CompareReply:
        """Read the message's content."""
        config = fields.config_of(record)
        rows: dict[str, Any] = {name: fields.whole(config, kebab(name)) for name in LEAST_ROWS}
        return cls(
            **rows,
            arms=fields.read_figures(record, "arms", Figure),
            differences=fields.read_figures(record, "differences", Figure),
            summary=read_summary(record),
            histogram=fields.read_histogram(record, "histogram"),
            note=recorded_note(fields.text(config, "note")),
            own_family=_family(record),
            points=fields.read_figures(record, "points", PointCounts),
            groups=fields.read_figures(record, "groups", GroupFigure),
            importance=fields.read_figures(record, IMPORTANCE, ColumnImportance),
            withheld=fields.read_figures(record, "withheld", WithheldColumn),
            calibration=fields.read_figures(record, "calibration", CalibrationFigure),
            masked=Masked.out_of(record),
        )


def least_rows(*, trained: bool) -> dict[str, int]:
    """Return the least value of each number of rows; a validation has no training rows."""
    return LEAST_ROWS if trained else dict.fromkeys(LEAST_ROWS, 0)


CompareReplies = Mapping[str, CompareReply]
"""Comparisons of a run, by site."""


def _family(record: RecordDict) -> OwnFamily | None:
    """Return the family of a site's own model, None where the reply has none."""
    if "own-model" not in record:
        return None
    family = fields.text(fields.section(record, "own-model"), "family")
    # The name is written down, so that only known families are taken.
    if family not in OWN_FAMILIES:
        raise fields.MalformedMessage(Refusal("family-unknown"))
    return family


AUDIT = kinds.AUDIT
Verdict = Literal["within the promise", "beyond the promise", "not known", "no promise"]
AttackName = Annotated[str, r"[a-z0-9]+(-[a-z0-9]+)*"]
MOST_FIGURES = 16
"""Figures of one attack at one site."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AuditRequest:
    """Request to attack the final model at a site.

    The site's own rows are used.

    Attributes
    ----------
    arrays : dict of name to array
        The global model's, of names and shapes that follow from the study. None where sites made the model themselves:
        they attack the one that they compared.
    encoder : Encoder
    attack : str
        Its name. What the run promises is not sent: it follows from the study, which the site has.

    Reveals: nothing about rows; it goes to the site.
    """

    arrays: Arrays
    encoder: Encoder
    attack: AttackName

    def to_record(self) -> RecordDict:
        """Return the message's content."""
        if not self.arrays:
            return fields.message_record(attack=self.attack)
        return record_of(request_sections(self.arrays, self.encoder, attack=self.attack))

    @classmethod
    def from_record(cls, record: RecordDict) -> AuditRequest:
        """Read the message's content."""
        if "arrays" not in record:
            return fields.made(cls, {**fields.config_of(record), "arrays": {}, "encoder": NO_ENCODER})
        return fields.made(cls, read_request(record))


@dataclass(frozen=True, kw_only=True)
class AuditFigure:
    """One figure of an attack, against the promise.

    Attributes
    ----------
    metric : str
        Its name.
    value, low, high : float
        The figure and its interval; NaN where it could not be had.
    promise : float
        The most that the promise lets `value` be; NaN where nothing is promised.
    verdict : {"within the promise", "beyond the promise", "not known", "no promise"}
        Not known: nothing is, of how low the figure may be.
    rows : int
        Rows that the figure is over; 0 where it is over none.
    method, says : str
        How it was had, and what it means, in fixed words and these numbers.
    """

    metric: MetricName
    value: float
    low: float
    high: float
    promise: float
    verdict: Verdict
    rows: int
    method: str
    says: str


@dataclass(frozen=True, kw_only=True)
class AuditReply:
    """Result of one attack at one site.

    Attributes
    ----------
    num_examples, holdout_rows : int
        Training rows and holdout rows, so that it is seen whether they are as many as in the run.
    figures : tuple of AuditFigure

    Reveals: the exact numbers of training and holdout rows. The figures show how well an attacker who has the model
    distinguishes the site's rows from others. Or they show how many of some it rebuilds. Under disclosure
    "institution", they are over at least the cell minimum of rows, with intervals. No row crosses, nor which rows an
    attack was right about. The figures follow from rows without noise: no promise of differential privacy covers them.
    The model attacked is one that the site judged in the run's comparison; behind a gate, another one is refused. The
    same attack gives the same figures again, so that a repetition reveals no more.
    """

    num_examples: int
    holdout_rows: int
    figures: tuple[AuditFigure, ...]

    def to_record(self) -> RecordDict:
        """Return the message's content."""
        figures = fields.rows_records(self, "figures")
        return fields.message_record(figures, num_examples=self.num_examples, holdout_rows=self.holdout_rows)

    @classmethod
    def from_record(cls, record: RecordDict) -> AuditReply:
        """Read the message's content."""
        config = fields.config_of(record)
        reply = cls(
            num_examples=fields.whole(config, "num-examples"),
            holdout_rows=fields.whole(config, "holdout-rows"),
            figures=fields.read_figures(record, "figures", AuditFigure, of="attack"),
        )
        # The message came from outside, so that what no site can have is refused.
        if len(reply.figures) > MOST_FIGURES or min(reply.num_examples, reply.holdout_rows) < 0:
            raise MalformedMessage(Refusal("counts-impossible", message="AuditReply"))
        return reply
