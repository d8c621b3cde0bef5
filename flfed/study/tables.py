"""Tables of a study, as frozen dataclasses.

Each checks its own keys. They include `[dataset.partition]`, by which a dataset's own table becomes research sites.
The statistic "summary" stands in `analysis.py`.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field

from flfed import registry
from flfed.errors import unknown
from flfed.study.plan import Plan
from flfed.study.settings import Settings, are_shares, check_table, read_settings
from flfed.words import usage_error

HOLDOUT_SHARE = 0.3
"""Share of rows that are held out, unless a site's package or a call says otherwise."""


class OrderedHoldout(Settings, where="[dataset] partition: holdout", frozen=True):
    """Holdout of the later rows of each site.

    Attributes
    ----------
    by : str
        A date or number column of the schema, by which a site's rows are in order. Example: `by = "week"`.
    train_share : float in (0, 1) or None
        Share of each site's rows, the earliest ones, that are trained on; rows of one value stay together, on the
        training side. Example: `train-share = 0.5`.
    train_until : str, float or None
        Last value that is trained on, at all sites: a date, or a number. Example: `train-until = "2024-08-31"`.
    same_groups : bool
        Whether a group, such as a device or an engine, may have rows on both sides; else one that is trained on has
        no test rows. Example: `same-groups = true`.
    blocks : str
        Column whose rows of one value are drawn together for intervals; default: the schema's group, else `by`.
        Example: `blocks = "week"`.
    """

    by: str = ""
    train_share: Annotated[float, Field(gt=0, lt=1)] | None = None
    train_until: str | float | None = None
    same_groups: bool = False
    blocks: str = ""

    def __post_init__(self) -> None:
        """Refuse a rule without a column, or without exactly one limit."""
        super().__post_init__()
        if not self.by:
            raise usage_error("study.dataset.by")
        if (self.train_share is None) == (self.train_until is None):
            raise usage_error("study.dataset.train")


class Partition(Settings, where="[dataset] partition", frozen=True):
    """Cut of one table into research sites.

    Attributes
    ----------
    by : str
        A column of the schema, or "iid", "dirichlet" (label shares drawn per site) or
        "quantity" (sizes drawn per site). Example: `by = "dirichlet"`.
    sites : int, >= 2
        How many sites; ignored where `by` is a column, which gives a site per value. Example: `sites = 8`.
    alpha : float, > 0
        Concentration of the Dirichlet draw; small is skewed. Example: `alpha = 0.1`.
    seed : int, >= 0
        The cut's own, so that other seeds of the study keep the sites. Example: `seed = 1`.
    widths : tuple of float in (0, 1]
        Share of the hidden units that each site trains, by order of the sites' names, as `width` of an institution's
        policy. Empty: all of them at every site. Example: `widths = [1.0, 0.5, 0.5, 0.5]`.
    holdout : OrderedHoldout or None
        Hold out the later rows of each site, by time or another order, instead of rows drawn at random. Then no repeat
        draws another holdout. Keys: `by`, a date or number column. `train-share`, the share of each site's rows, the
        earliest, that are trained on, or `train-until`, the last value trained on. `same-groups = true`, where a group
        may stand on both sides. `blocks`, the column whose rows of one value intervals draw together (default: the
        schema's group, else `by`). Example: `holdout = { by = "week", train-share = 0.7 }`.
    min_rows : int, >= 1
        Fewest rows of a site. Example: `min-rows = 3`.
    """

    by: str = "iid"
    sites: Annotated[int, Field(ge=2)] = 4
    alpha: Annotated[float, Field(gt=0)] = 0.5
    seed: Annotated[int, Field(ge=0)] = 0
    widths: tuple[float, ...] = ()
    holdout: OrderedHoldout | None = None
    min_rows: Annotated[int, Field(ge=1)] = 10

    @classmethod
    def parse(cls, settings: Mapping[str, Any]) -> Self:
        """Return the partition of a study's table; raises UsageError."""
        settings = dict(settings)
        ordered = settings.pop("holdout", None)
        holdout = None
        if ordered is not None:
            check_table(ordered, f"{cls.where}: holdout", "{ by = 'week', ... }")
            plain = {key: _date_text(one) for key, one in ordered.items()}
            holdout = OrderedHoldout(**read_settings(OrderedHoldout, plain, OrderedHoldout.where))
        return cls(**{**read_settings(cls, settings, cls.where), "holdout": holdout})

    def __post_init__(self) -> None:
        """Refuse a share that no site can train."""
        super().__post_init__()
        if not all(0 < width <= 1 for width in self.widths):
            raise usage_error("study.dataset.widths", widths=list(self.widths))


def _date_text(value: object) -> object:
    """Return a date of TOML as its text, which is one as well.

    Anything else as it is.
    """
    return value.isoformat() if isinstance(value, datetime.date) else value


LEAST_COHORT = {"open": 2, "institution": 3}
"""Fewest sites of a run by the disclosure of a policy, where it names no number itself."""
Share = Literal["named", "sum"]
"""How a study records figures: each site's under its name, or one sum over all sites."""
SecureAggregation = Literal["off", "auto", "on", "ckks"]
"""Whether the server gets sums of the sites' updates only; "auto" where three institutions or more take part."""
TABLE_OF = {"mechanism": "privacy"}
"""The study's table that names a listed kind, where it is not the kind's own name."""
TREES = "boosted-trees"
"""Name of the model and of the strategy that grow trees."""
VERTICAL = "vertical"
"""Name of the strategy over different columns of the same people."""
SiteModelKind = Literal["best", "same"]
"""What joining is held against: the best model that a site finds alone, or one of the shared model's own kind."""
OwnFamily = Literal[
    "logistic-regression", "ridge-regression", "boosted-trees", "site-mean", "last-value", "named-column"
]
"""Families that the best model of some rows may have."""
OWN_FAMILIES: tuple[OwnFamily, ...] = get_args(OwnFamily)
LINEAR_FAMILIES: tuple[OwnFamily, ...] = ("logistic-regression", "ridge-regression")
NAIVE_FAMILIES: tuple[OwnFamily, ...] = ("site-mean", "last-value", "named-column")
"""Forecasts without a model, of a regression by time: the site's mean, its last training value, a named column."""
WORTHWHILE = {"roc_auc_score": 0.005}
"""Gain that is worth joining for, by metric; 0 of any other. A study's `[compare] minimum-gain` goes before it."""
MOST_POINTS = 10
"""False positive rates, and size classes, that a study may name."""


class Dataset(Settings, where="[dataset]", frozen=True):
    """Dataset of a study, its features and sites.

    Attributes
    ----------
    name : str
        Name of its folder `datasets/NAME`; it must be given. Example: `name = "heart-disease"`.
    features : tuple of str or None
        Narrows the schema's allowed features; None means all. Example: `features = ["age", "sex", "chol"]`.
    sites : tuple of str or None
        Names of the sites asked; None means every site found whose dataset it is.
        Example: `sites = ["cleveland", "hungary"]`.
    partition : Partition or None
        Cut the dataset's own table into research sites instead. Example: `partition = { by = "iid", sites = 4 }`.
    """

    name: str = ""
    features: tuple[str, ...] | None = None
    sites: tuple[str, ...] | None = None
    partition: Partition | None = None

    def __post_init__(self) -> None:
        """Refuse a choice of no columns.

        No model can learn from none.
        """
        super().__post_init__()
        if self.features is not None and not self.features:
            raise usage_error("study.dataset.features")


class Encode(Settings, where="[encode]", frozen=True):
    """Encoding of mapped rows.

    Missing cells become the mean over all sites' training rows; under scaler "schema" the centre of the column's
    typical span.

    Attributes
    ----------
    scaler : {"global", "per-site", "none", "schema"}
        `schema` takes centre and scale from the schema, in which no row has a say: the default under
        `record-dp`. `per-site` exists to reproduce others' results: it costs accuracy, the run warns, and it
        does not go with `warm-start`.
    missing_indicator : bool
        Whether a column's being missing is an input of its own, for every column. Look at the
        leak warnings first: a value may be missing because of the outcome.
    rows : {"all", "complete"}
        `complete` leaves out rows with a missing feature, before anything else, as many published
        tables do.
    """

    scaler: Literal["global", "per-site", "none", "schema"] = "global"
    missing_indicator: bool = False
    rows: Literal["all", "complete"] = "all"


class Split(Settings, where="[split]", frozen=True):
    """A published split in place of sites' own holdouts.

    It needs policies that allow a re-split.

    Attributes
    ----------
    fixed : str
        Name in the listing of splits. Example: `fixed = "flamby-43"`.
    redraw : bool
        Whether repeats draw anew by the same rule; false keeps the published rows in each.
    """

    fixed: str = ""
    redraw: bool = False

    def __post_init__(self) -> None:
        """Refuse a split that is not listed."""
        super().__post_init__()
        choices = registry.names("split")
        if self.fixed and self.fixed not in choices:
            raise unknown("[split]: fixed", self.fixed, choices)
        if self.redraw and not self.fixed:
            raise usage_error("study.dataset.redraw")


class Incumbent(Settings, where="[compare] incumbent", frozen=True):
    """Score in use, which the shared model is compared with.

    Attributes
    ----------
    column : str
        A number, a category in the order of its values, or a flag of the schema; no feature of the study.
        Example: `column = "sub_grade"`.
    riskier : {"high", "low"}
        Which values, or later values of a category, stand for more risk of the outcome.
    """

    column: str = ""
    riskier: Literal["high", "low"] = "high"


class Compare(Settings, where="[compare]", frozen=True):
    """Rules by which a study's result is judged.

    Attributes
    ----------
    primary : str
        The metric of the verdict; empty means the task's first. Example: `primary = "roc_auc_score"`.
    share : {"named", "sum"}
        Whether each site's figures are recorded under its name, or all sites' in one sum of which nobody sees a part.
        `sum` needs three institutions and `secure-aggregation = "on"`. Example: `share = "sum"`.
    resamples : int, 200 to 100,000
        Bootstrap resamples; of 200 the ends of a 95 % interval are the fifth from either end.
        Example: `resamples = 1000`.
    pooled : Plan or None
        How the model of all rows together is trained, to repeat a published table; None takes what
        `site-model` says. Example: `pooled = { optimiser = "adam", epochs = 50 }`.
    union_scaler : {"same", "global"}
        Which scaler rows go through where all holdouts are scored together. `global` under `encode.scaler = "per-site"`
        repeats tables that mixed the two.
    alert_budget : float in (0, 1) or None
        Share of rows that people can look at; None shows no `recall_at_alert_budget`. Example: `alert-budget = 0.05`.
    false_positive_rates : tuple of float in (0, 1)
        Shares of false alarms. Each site takes the least threshold that flags at most this share of its own training
        rows without the outcome, and counts its test rows at it. An institution withholds these counts: its training
        rows set the threshold. Example: `false-positive-rates = [0.05]`.
    subgroups : tuple of str
        Columns whose groups the shared model is evaluated in, at each site: a category or flag by its name, a number
        with the beginnings of its bands, as "age at 50, 65". An institution releases figures of large groups only, and
        of any row in one run alone.
        Example: `subgroups = ["sex", "age at 50, 65"]`.
    importance : int, 0 to 100
        Permutations of each column. Sites shuffle its values among their own test rows, and say by how much the shared
        model's loss grows. 0 asks for nothing. An institution gives it only as its policy allows, and of any row in one
        run alone. Example: `importance = 10`.
    calibration : bool
        Whether each site measures the shared model's calibration on its test rows: slope, and intercept with the slope
        fixed at 1. No verdict uses them. Example: `calibration = true`.
    minimum_gain : float or None, >= 0
        Gain in the primary metric from which on joining is worth it: a smaller one is no clear
        improvement. None means 0.005 for an AUC and 0 for any other. Example: `minimum-gain = 0.01`.
    site_model : {"best", "same"}
        The kind of a site's own model, and of the model of all rows together. `best` is the better, by cross-validation
        on training rows, of a tuned ridge (logistic) regression and boosted trees. The study's own model stands beside
        it. `same` is the study's own model alone, fairly tuned. Where a site holds out its later rows, all choices are
        made on its latest training rows. A regression's own model may then also be the site's mean, its last training
        value or a column of `naive-forecasts`. Example: `site-model = "same"`.
    naive_forecasts : tuple of str
        Features whose value is itself a forecast of the target, in its unit, such as the value a day before. They are
        shown beside the models where a site holds out its later rows, and are its own model where none does better. No
        column is guessed. Example: `naive-forecasts = ["day_before"]`.
    incumbent : Incumbent or None
        The score in use, such as a lender's grade. Each site compares the shared model with it by AUC and average
        precision, on the test rows that have it. Keys: `column`, of the schema and no feature of the study; `riskier`,
        "high" or "low". Example: `incumbent = { column = "sub_grade", riskier = "high" }`.
    size_classes : tuple of int
        Numbers of rows at which a class of sites begins. The gain from joining is given over all sites of a
        class together, where single sites are too small. Named before the run; nothing more is asked of a site.
        Example: `size-classes = [20, 50, 200]`.
    """

    primary: str = ""
    share: Share = "named"
    resamples: Annotated[int, Field(ge=200, le=100_000)] = (
        2000  # the ends of a 95 % interval are then the fifth from either
    )
    pooled: Plan | None = None
    union_scaler: Literal["same", "global"] = "same"
    alert_budget: Annotated[float | None, Field(gt=0, lt=1)] = None
    false_positive_rates: tuple[float, ...] = ()
    subgroups: tuple[str, ...] = ()
    importance: Annotated[int, Field(ge=0, le=100)] = 0
    calibration: bool = False
    minimum_gain: Annotated[float | None, Field(ge=0)] = None
    site_model: SiteModelKind = "best"
    naive_forecasts: tuple[str, ...] = ()
    incumbent: Incumbent | None = None
    size_classes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other."""
        super().__post_init__()
        sizes = list(self.size_classes)
        if sizes != sorted(set(sizes)) or len(sizes) > MOST_POINTS or min(sizes, default=2) < 2:
            raise usage_error("study.compare.size-classes", sizes=sizes, most=MOST_POINTS)
        rates = self.false_positive_rates
        if not are_shares(rates):
            raise usage_error("study.compare.shares", values=list(rates))
        if len(rates) > MOST_POINTS:
            raise usage_error("study.compare.most", count=len(rates), most=MOST_POINTS)
        # A pooled fit has no rounds that a schedule or a validation loss could steer.
        if self.pooled is not None and (self.pooled.schedule != "constant" or self.pooled.validation):
            raise usage_error("study.compare.pooled")

    @property
    def is_summed(self) -> bool:
        """Whether figures leave sites in one sum over all of them only."""
        return self.share == "sum"

    def check_privacy(self, mechanism: str) -> None:
        """Refuse exact figures beside a mechanism that protects rows or sites."""
        if mechanism == "none":
            return
        if self.false_positive_rates:
            raise usage_error("study.compare.rates", mechanism=mechanism)
        if self.importance:
            raise usage_error("study.compare.importance", mechanism=mechanism)

    def least_gain(self, metric: str, primary: str) -> float:
        """Return the gain in a metric from which on joining is worth it."""
        if metric == primary and self.minimum_gain is not None:
            return self.minimum_gain
        return WORTHWHILE.get(metric, 0.0)


MODULE_NAME = re.compile("module[0-9a-f]{12}")
"""Name under which a program's module is listed in its process."""


@dataclass(frozen=True, kw_only=True)
class Named:
    """A listed thing with its settings.

    `[model]` and `[strategy]` give one.

    Attributes
    ----------
    name : str
        Name in the listing.
    settings : dict of kebab-case key to value
        The constructor's; checked against its signature by `build`.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_module(self) -> bool:
        """Whether it is a program's own module."""
        return MODULE_NAME.fullmatch(self.name) is not None

    @property
    def title(self) -> str:
        """Name for people; that of a program's module is only a hash."""
        return "own module" if self.is_module else self.name

    def build(self, kind: str) -> Any:
        """Return the thing that the settings describe."""
        thing = registry.load(kind, self.name)
        where = f"[{TABLE_OF.get(kind, kind)}] {self.name}"
        # The table holds these keys beside the constructor's own.
        beside = ("name", "rounds") if kind == "strategy" else ("name",)
        return thing(**read_settings(thing, self.settings, where, beside=beside))


@dataclass(frozen=True, kw_only=True)
class Crossing:
    """How updates of a study, and its model, cross.

    Attributes
    ----------
    codec, secure_aggregation
        As `Study` has them.
    """

    codec: Named = Named(name="none")
    secure_aggregation: SecureAggregation = "off"

    @property
    def aggregation(self) -> SecureAggregationMode:
        """How updates of sites are added: what `[privacy] secure-aggregation` asks."""
        return MODES[self.secure_aggregation]


class Expectation(Settings, where="[expected]", frozen=True):
    """One figure that `flfed study verify` compares with.

    It was published or measured.

    Attributes
    ----------
    path : str
        Where the figure stands in the object of `study run --json`: "global.roc_auc_score".
    value : float or None
        The published figure; None where only `least` is set. Example: `value = 0.896`.
    tolerance : float, >= 0
        How far from `value` ours may be. Example: `tolerance = 0.014`.
    minimum : float or None
        What ours must reach. Example: `minimum = 0.85`.
    source : str
        Where the figure comes from; it must be given. Example: `source = "Table 2 of the paper"`.
    by_repeat : tuple of float
        The published figure of each repeat, in order; listed beside ours. Example: `by-repeat = [0.741, 0.782]`.
    """

    path: str = ""
    value: float | None = None
    tolerance: float = 0.0
    minimum: float | None = None
    source: str = ""
    by_repeat: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Refuse an expectation without a test or a source.

        The test is one that a figure could fail.
        """
        super().__post_init__()
        # With both or neither, it would not be clear what counts as met.
        if (self.value is None) == (self.minimum is None):
            raise usage_error("study.expected.either", path=self.path)
        if self.value is not None and not self.tolerance > 0:
            raise usage_error("study.expected.tolerance", **vars(self))
        if not self.source:
            raise usage_error("study.expected.source", path=self.path)


class Expected(Settings, where="[expected]", frozen=True):
    """Repeats and figures for `flfed study verify`.

    Attributes
    ----------
    repeats : int, >= 1
        Repeats of the study that the figures are means of. Example: `repeats = 10`.
    figures : tuple of Expectation
    """

    repeats: Annotated[int, Field(ge=1)] = 1
    figures: tuple[Expectation, ...] = ()

    @classmethod
    def parse(cls, settings: Mapping[str, Any]) -> Expected:
        """Return the expectations of the table [expected].

        It has `repeats`, and a table for each figure's path.
        """
        figures = []
        # Each key but `repeats` is the path of a figure.
        for path, figure in settings.items():
            if path == "repeats":
                continue
            if not isinstance(figure, dict):
                example = "{ value = 0.89, tolerance = 0.02 }"
                raise usage_error("study.expected.table", path=path, example=example)
            where = f"[expected] {path!r}"
            # The path is the table's key, so that a second one could contradict it.
            if "path" in figure:
                raise usage_error("study.expected.path", path=path)
            figures.append(Expectation(path=path, **read_settings(Expectation, figure, where)))
        return cls(repeats=settings.get("repeats", 1), figures=tuple(figures))


class Sums(Settings, where="[privacy]", frozen=True):
    """Keys of secure aggregation.

    Attributes
    ----------
    secure_aggregation
        As `Study` has them.
    """

    secure_aggregation: SecureAggregation = "off"

    def check(self, tables: Mapping[str, Mapping[str, Any]]) -> None:
        """Refuse tables of a study that cannot be summed, or would be summed over a few sites only."""
        if not MODES[self.secure_aggregation].sums_updates:
            return
        codec = tables["codec"].get("name", "none")
        fraction = tables["strategy"].get("fraction", 1.0)
        if codec != "none":
            raise usage_error("study.sums.codec", codec=codec, mode=self.secure_aggregation)
        if fraction != 1.0:
            raise usage_error("study.sums.fraction", fraction=fraction, mode=self.secure_aggregation)


class WarmStart(Settings, where="[model]", frozen=True):
    """Keys of what a run's model begins from.

    Attributes
    ----------
    warm_start, start_sha256, frozen_layers, train
        As `Study` has them.
    """

    warm_start: str = ""
    start_sha256: Annotated[str, Field(pattern="^([0-9a-f]{64})?$")] = ""
    frozen_layers: Annotated[int, Field(ge=0)] = 0
    train: bool = True

    def check(self) -> None:
        """Refuse keys that need a source, where none is named."""
        needing = [name for name in ("start-sha256", "frozen-layers") if getattr(self, name.replace("-", "_"))]
        if not self.train:
            needing.append("train = false")
        if needing and not self.warm_start:
            raise usage_error("study.sums.start", key=needing[0])


def parse_sweep(settings: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
    """Return the grid of the table [sweep].

    Each key of the study stands with the values to try.
    """
    for key, values in settings.items():
        if not isinstance(values, list) or not values:
            raise usage_error("study.reading.sweep", key=key, values=values)
    return {key: tuple(values) for key, values in settings.items()}


@dataclass(frozen=True)
class SecureAggregationMode:
    """A value of `[privacy] secure-aggregation`: it answers what the rest of flfed asks of it.

    Attributes
    ----------
    sums_updates : bool
        Whether the server may get sums of updates in place of the sites' own.
    is_encrypted : bool
        Whether updates cross as ciphertexts, whose sum a site opens; else under masks that cancel in it.
    is_optional : bool
        Whether institutions decide by their approvals; one process adds nothing up then.
    adds_statistics : bool
        Whether a statistic, or an analysis, may be computed under it.
    """

    sums_updates: bool = True
    is_encrypted: bool = False
    is_optional: bool = False
    adds_statistics: bool = False

    @property
    def is_required(self) -> bool:
        """Whether a run has sums of updates in any case."""
        return self.sums_updates and not self.is_optional

    @property
    def masks_updates(self) -> bool:
        """Whether every update leaves under masks, so that sites may add noise before the sum."""
        return self.is_required and not self.is_encrypted


MODES = {
    "off": SecureAggregationMode(sums_updates=False, adds_statistics=True),
    "auto": SecureAggregationMode(is_optional=True),
    "on": SecureAggregationMode(adds_statistics=True),
    "ckks": SecureAggregationMode(is_encrypted=True),
}
"""Every mode by its name in a study."""
STATISTIC_MODES = tuple(name for name, mode in MODES.items() if mode.adds_statistics)
"""Names of modes under which a statistic may be computed."""
