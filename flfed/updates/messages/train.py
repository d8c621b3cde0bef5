"""Messages between a site and the server.

No other file builds a message. The paragraph **Reveals** of each class says what a reader of the
message learns about a row; it is what an auditor reads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

import numpy as np
from flwr.app import RecordDict

from flfed.refusals import Refusal, recorded, unmarked
from flfed.study.tables import OWN_FAMILIES, OwnFamily, Sharing
from flfed.summaries.score_bins import EVEN_ODDS, LEAST_SPREAD, ScoreBins
from flfed.summaries.summary import Encoder, Summary
from flfed.updates.messages import fields
from flfed.updates.messages.compare import Figure
from flfed.updates.messages.fields import PROTOCOL, Arrays
from flfed.updates.messages.in_memory_arrays import array_record, config_record, metric_record, record_of
from flfed.updates.messages.model_sections import model_sections, read_model
from flfed.updates.messages.offset import Offset
from flfed.updates.messages.sentences import TITLE, recorded_note

ENROL = "query.enrol"
SUMMARISE = "query.summarise"
TRAIN = "train"
EVALUATE = "evaluate"
COMPARE = "query.compare"


@dataclass(frozen=True, kw_only=True)
class EnrolRequest:
    """Request for a node's site and its participation.

    The study travels in the run config.

    Reveals: nothing about rows; it goes to the site.
    """

    dataset: str
    schema_sha256: str

    def to_record(self) -> RecordDict:
        """Return the message's content."""
        return record_of(
            {"config": fields.config_record(protocol=PROTOCOL, dataset=self.dataset, schema=self.schema_sha256)}
        )

    @classmethod
    def from_record(cls, record: RecordDict) -> EnrolRequest:
        """Read the message's content."""
        config = fields.config_of(record)
        return cls(dataset=fields.text(config, "dataset"), schema_sha256=fields.text(config, "schema"))


@dataclass(frozen=True, kw_only=True)
class EnrolReply:
    """Reply of a site, accepted or refused by its policy.

    Reveals: the site's name and versions, and its number of training rows as a band of one power
    of ten. No count. A refusal's reason is a fixed phrase of ours: column, rule and a count that
    is "fewer than 5" when small. Where the study asks for record-level differential privacy, the
    site's budget of epsilon for the dataset, and what all studies there have spent of it (NaN: no
    budget, or none counted): how much was computed with the rows, and nothing of what is in them.
    """

    site: fields.SiteName
    title: str
    version: fields.Version
    accepted: bool
    reason: str = ""
    rows_low: int = 0
    rows_high: int = 0
    disclosure: Literal["open", "institution"] = "institution"
    share_metrics: Sharing = "named"
    resplit: bool = False
    epsilon_budget: float = math.nan
    epsilon_spent: float = math.nan

    def to_record(self) -> RecordDict:
        """Return the message's content."""
        return record_of({"config": fields.config_record(protocol=PROTOCOL, **fields.fields_of(self))})

    @classmethod
    def from_record(cls, record: RecordDict) -> EnrolReply:
        """Read the message's content."""
        config = dict(fields.config_of(record).items())
        # The texts are shown to people: marks that turn a line around are removed, and a reason must be known.
        for key in ("title", "reason"):
            if isinstance(said := config.get(key), str):
                config[key] = unmarked(said)
        found = cast(EnrolReply, fields.made(cls, config))
        return replace(found, title=found.title[:TITLE], reason=recorded(found.reason) if found.reason else "")


@dataclass(frozen=True, kw_only=True)
class SummariseRequest:
    """Request for the sums over a site's training rows.

    Reveals: nothing about rows; it goes to the site.
    """

    def to_record(self) -> RecordDict:
        """Return the message's content."""
        return record_of({"config": fields.config_record(protocol=PROTOCOL)})

    @classmethod
    def from_record(cls, record: RecordDict) -> SummariseRequest:
        """Read the message's content."""
        fields.config_of(record)
        return cls()


@dataclass(frozen=True, kw_only=True, eq=False)
class SummariseReply:
    """Sums over a site's training rows, in the schema's layout.

    Reveals: the exact number of training rows. Under disclosure "open" also every count, sum and
    sum of squares of a column. Under "institution" only counts of groups of at least the site's
    cell minimum, none of which lets a smaller one be computed; that a value has all rows but fewer
    than the minimum; means and deviations that follow from these; whether missing goes with the
    outcome only where each cell of that table is large, in steps where a person has several rows; and
    one bit a column, whether it alone tells the outcome.
    """

    summary: Summary

    def to_record(self) -> RecordDict:
        """Return the message's content."""
        return record_of(
            {"config": fields.config_record(protocol=PROTOCOL), "summary": array_record(self.summary.arrays())}
        )

    @classmethod
    def from_record(cls, record: RecordDict) -> SummariseReply:
        """Read the message's content."""
        fields.config_of(record)
        return cls(summary=fields.made(Summary, fields.ndarrays(record, "summary")))


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainRequest:
    """Request to score the global arrays, train, or both.

    Attributes
    ----------
    arrays : dict of name to array
    encoder : Encoder
    round, rounds : int
        This round, from 1, and how many are planned.
    lr_scale : float
        What the server's plateau rule multiplies the learning rate by.
    fit, score : bool
    offset : bool
        Whether the site's own offset is asked for; crosses only where it is, for earlier versions do not know it.
    settings : dict of name to float
        The strategy's numbers for its client half.

    Reveals: nothing about rows; it goes to the site.
    """

    arrays: Arrays
    encoder: Encoder
    round: int
    rounds: int
    lr_scale: float = 1.0
    fit: bool = True
    score: bool = True
    offset: bool = False
    settings: Mapping[str, float] = field(default_factory=dict)

    def to_record(self) -> RecordDict:
        """Return the message's content."""
        plain = {name: getattr(self, name) for name in ("round", "rounds", "lr_scale", "fit", "score")}
        # An earlier version refuses a field that it does not know: this one crosses only where it is true.
        asked = {"offset": True} if self.offset else {}
        config = fields.config_record(protocol=PROTOCOL, **plain, **asked)
        records = model_sections(self.arrays, self.encoder) | {"config": config}
        if self.settings:
            records["settings"] = fields.config_record(**self.settings)
        return record_of(records)

    @classmethod
    def from_record(cls, record: RecordDict) -> TrainRequest:
        """Read the message's content."""
        config = fields.config_of(record)
        given = {**dict(config.items()), **read_model(record), "settings": fields.read_settings(record, "settings")}
        return cast(TrainRequest, fields.made(cls, given))


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """Scores of the incoming global model at one site.

    Attributes
    ----------
    rows : str
        "training", "validation" or "holdout".
    num_examples : int
    metrics, variances : dict of name to float
        Exact, or of three digits (see Reveals); a metric that is undefined at the site is left out.
    histogram : array [classes, bins] or None
        Rows by class and predicted probability; where policy allows.

    Reveals: averages over the rows scored, and under disclosure "institution" only over at least
    the cell minimum of them, of each class; no metric from which a smaller count follows. Who
    chooses the model that is scored makes an average tell one row's loss. Where record-level
    differential privacy protects rows of an "institution", nothing over rows that are trained on is
    in it (unless its policy names "training-figures"), and averages over others have three digits. The
    histogram, where the site's policy names it, counts rows by class and predicted probability:
    with the model at hand, a cell of one row tells that row's predicted probability.
    """

    rows: str
    num_examples: int
    metrics: dict[str, float]
    variances: dict[str, float] = field(default_factory=dict)
    histogram: np.ndarray | None = None

    def into(self, records: dict[str, Any], prefix: str) -> None:
        """Add these scores to the records of a message."""
        records[prefix] = config_record({"rows": self.rows, "num-examples": self.num_examples})
        if self.metrics:
            records[f"{prefix}-metrics"] = metric_record({k: float(v) for k, v in self.metrics.items()})
        if self.variances:
            records[f"{prefix}-variances"] = metric_record({k: float(v) for k, v in self.variances.items()})
        if self.histogram is not None:
            records[f"{prefix}-histogram"] = array_record({"counts": self.histogram})

    @classmethod
    def out_of(cls, record: RecordDict, prefix: str) -> Scores | None:
        """Read a message's scores, None where it has none."""
        if prefix not in record:
            return None
        config = fields.section(record, prefix)
        return cls(
            rows=fields.text(config, "rows"),
            num_examples=fields.whole(config, "num-examples"),
            metrics=fields.numbers(record, f"{prefix}-metrics"),
            variances=fields.numbers(record, f"{prefix}-variances"),
            histogram=fields.read_histogram(record, f"{prefix}-histogram"),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainReply:
    """Update of a site, with the incoming model's scores.

    Attributes
    ----------
    delta : dict of name to array
        Local minus global, or empty when nothing was trained.
    kind : {"delta"}
    num_examples : float
        Rows trained on; a whole number from an honest site.
    loss : float or None
        Mean training loss over the steps; None where it stays (see Reveals).
    steps : int
    scores : Scores or None
        On validation rows, or on training rows where the plan keeps none.
    holdout : Scores or None
        On holdout rows, where the study asks for the holdout curve; nothing is selected by it.
    offset : Offset or None
        Of the site's own intercept, after the last round, where it was asked for and may leave.

    Reveals: a function of the site's training rows as large as the model. Without further
    protection deltas give rows away: after one step on one row exactly; and who chooses the models
    that are sent, instead of averaging, computes all rows and outcomes from some hundred replies,
    since the order of the batches is known. Disclosure "institution" does not change it: sums that
    were held back may be read off an update. The exact number of rows trained on crosses with it.
    The loss has no noise on it, also where the update has: then it stays at an "institution", unless
    its policy names "training-figures", and has three digits where it does.
    """

    delta: Arrays
    num_examples: float
    loss: float | None = None
    steps: int
    scores: Scores | None = None
    holdout: Scores | None = None
    offset: Offset | None = None
    kind: str = "delta"

    def to_record(self) -> RecordDict:
        """Return the message's content."""
        # A loss that stays at the site is left out.
        records: dict[str, Any] = {
            "metrics": metric_record(
                {"num-examples": self.num_examples, "steps": self.steps}
                | ({} if self.loss is None else {"loss": float(self.loss)})
            ),
            "config": config_record({"protocol": PROTOCOL, "kind": self.kind}),
        }
        if self.delta:
            records["arrays"] = array_record(self.delta)
        for prefix, scores in (("scores", self.scores), ("holdout", self.holdout)):
            if scores is not None:
                scores.into(records, prefix)
        if self.offset is not None:
            self.offset.into(records)
        return record_of(records)

    @classmethod
    def from_record(cls, record: RecordDict) -> TrainReply:
        """Read the message's content."""
        # Values are taken as they came: the guard judges them.
        config = fields.config_of(record)
        values = fields.numbers(record, "metrics")
        # What is there and is no number counts as missing; only a loss need not be there.
        missing = {"num-examples", "steps", *record.get("metrics", ())} - values.keys()
        if missing:
            raise fields.MalformedMessage(Refusal("reply-incomplete", fields=", ".join(sorted(missing))))
        return cls(
            delta=fields.ndarrays(record, "arrays") if "arrays" in record else {},
            kind=fields.text(config, "kind"),
            num_examples=values["num-examples"],
            loss=values.get("loss"),
            steps=int(values["steps"]) if math.isfinite(values["steps"]) else 0,
            scores=Scores.out_of(record, "scores"),
            holdout=Scores.out_of(record, "holdout"),
            offset=Offset.out_of(record),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class CompareRequest:
    """Request to judge the final model on a holdout.

    Attributes
    ----------
    arrays : dict of name to array
    encoder : Encoder
    offset_deviation : float, >= 0
        How far the sites' own intercepts differ, as it was estimated over them; NaN where it was not,
        and then it does not cross.
    odds_centre, odds_spread : float
        Where most predictions of all sites lie, in log-odds: rows are counted in bins about it. NaN where that
        is not known, or bins about even odds do, and then neither crosses.

    Reveals: nothing about rows of the site it goes to. The deviation is of all sites' offsets: see Offset. Centre
    and spread are of the counts by predicted probability that three or more sites sent with the last round, to
    about a quarter of the spread.
    """

    arrays: Arrays
    encoder: Encoder
    offset_deviation: float = math.nan
    odds_centre: float = math.nan
    odds_spread: float = math.nan

    def to_record(self) -> RecordDict:
        """Return the message's content."""
        # What is not known does not cross, as earlier versions would refuse the field.
        chosen = ("offset_deviation", "odds_centre", "odds_spread")
        known = {name: value for name in chosen if not math.isnan(value := getattr(self, name))}
        config = fields.config_record(protocol=PROTOCOL, **known)
        return record_of(model_sections(self.arrays, self.encoder) | {"config": config})

    @classmethod
    def from_record(cls, record: RecordDict) -> CompareRequest:
        """Read the message's content."""
        config = fields.config_of(record)
        found = cast(CompareRequest, fields.made(cls, {**dict(config.items()), **read_model(record)}))
        if found.offset_deviation < 0 or math.isinf(found.offset_deviation):
            raise fields.MalformedMessage(Refusal("deviation-unfit", message="CompareRequest"))
        # Centre and spread cross together or not at all.
        about = (found.odds_centre, found.odds_spread)
        if not all(map(math.isnan, about)) and not (all(map(math.isfinite, about)) and about[1] >= LEAST_SPREAD):
            raise fields.MalformedMessage(Refusal("odds-unfit", message="CompareRequest"))
        return found

    @property
    def deviation(self) -> float | None:
        """Deviation of the sites' intercepts, None where not sent."""
        return None if math.isnan(self.offset_deviation) else self.offset_deviation

    @property
    def bins(self) -> ScoreBins:
        """Bins in which rows are to be counted."""
        return EVEN_ODDS if math.isnan(self.odds_centre) else ScoreBins(self.odds_centre, self.odds_spread)


@dataclass(frozen=True, kw_only=True, eq=False)
class CompareReply:
    """Comparison of all arms at a site, with holdout sums.

    Attributes
    ----------
    num_examples : int
        Training rows.
    holdout_rows : int
    arms, differences : tuple of Figure
    summary : Summary or None
        Over holdout rows: with the training rows' it gives Table 1. None where too few.
    histogram : array [classes, bins] or None
    note : str
        What was left out and why, in fixed words.
    own_family : str or None
        Of the site's own model, where that is the best of several families. A section of its own, which earlier
        versions do not read.

    Reveals: the exact number of holdout rows; averages over them with intervals, under
    disclosure "institution" only where at least the cell minimum of rows of each class stands
    behind them and no smaller count follows, of three digits where record-level differential
    privacy protects rows there; sums over holdout rows under the same rules as
    SummariseReply (training and holdout rows are disjoint, so neither narrows the other); where the site's policy
    names it, holdout rows by class and predicted probability, in 256 bins about a centre that the coordinator
    chooses, .003 log-odds wide or wider: with few rows most hold one; and where the site's own
    model is the better of two families, which one did better in cross-validation on its training rows (not where
    record-level differential privacy protects these of an "institution", unless its policy names "training-figures").
    """

    num_examples: int
    holdout_rows: int
    arms: tuple[Figure, ...]
    differences: tuple[Figure, ...]
    summary: Summary | None = None
    histogram: np.ndarray | None = None
    note: str = ""
    own_family: OwnFamily | None = None

    def to_record(self) -> RecordDict:
        """Return the message's content."""
        plain = {name: getattr(self, name) for name in ("num_examples", "holdout_rows", "note")}
        records: dict[str, Any] = {"config": fields.config_record(protocol=PROTOCOL, **plain)}
        for name, figures in (("arms", self.arms), ("differences", self.differences)):
            if figures:
                records[name] = fields.rows_record(figures)
        if self.summary is not None:
            records["summary"] = array_record(self.summary.arrays())
        if self.histogram is not None:
            records["histogram"] = array_record({"counts": self.histogram})
        if self.own_family is not None:
            records["own-model"] = config_record({"family": self.own_family})
        return record_of(records)

    @classmethod
    def from_record(cls, record: RecordDict) -> CompareReply:
        """Read the message's content."""
        config = fields.config_of(record)
        return cls(
            num_examples=fields.whole(config, "num-examples"),
            holdout_rows=fields.whole(config, "holdout-rows"),
            arms=fields.read_figures(record, "arms", Figure, kind_of="metric"),
            differences=fields.read_figures(record, "differences", Figure, kind_of="metric"),
            summary=fields.made(Summary, fields.ndarrays(record, "summary")) if "summary" in record else None,
            histogram=fields.read_histogram(record, "histogram"),
            note=recorded_note(fields.text(config, "note")),
            own_family=_family(record),
        )


def _family(record: RecordDict) -> OwnFamily | None:
    """Return the family of a site's own model, if told."""
    if "own-model" not in record:
        return None
    found = fields.text(fields.section(record, "own-model"), "family")
    # The name is written down, so that only known families are taken.
    if found not in OWN_FAMILIES:
        raise fields.MalformedMessage(Refusal("family-unknown"))
    return found
