"""Allowed messages of one study, comparisons among them.

They declare what may come in and what may leave; `message_check` checks messages against them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Literal, get_args

import flfed
from flfed.paths import RUN
from flfed.refusals import LONGEST
from flfed.registry import kebab
from flfed.rows.comparison.arms import OWN_SAME, PAIRS, STARTED
from flfed.rows.comparison.incumbent import ARM as INCUMBENT
from flfed.rows.comparison.incumbent import PAIR as INCUMBENT_PAIR
from flfed.rows.comparison.own_columns import ARM as OWN_COLUMNS
from flfed.rows.comparison.subgroups import groupings
from flfed.rows.data.schema import Schema
from flfed.rows.data.site import Site
from flfed.rows.evaluation.bootstrap import Pair
from flfed.rows.evaluation.scoring import list_study_metrics, primary_of
from flfed.rows.statistics.newton import fit_shapes
from flfed.rows.statistics.noised_counts import shapes_of_cells
from flfed.rows.statistics.of_study import statistic_of
from flfed.rows.statistics.statistic import VisitedStatistic
from flfed.rows.study_model import model_shapes, study_layout
from flfed.rows.training.functional import outputs_of
from flfed.study.study import Study
from flfed.study.tables import NAIVE_FAMILIES, OWN_FAMILIES, POINT_KINDS, SHARINGS
from flfed.summaries.score_bins import LEAST_SPREAD, UPDATES, RecalibrationFigure
from flfed.summaries.summary import Layout, schema_encoder
from flfed.updates.arrays import Shapes
from flfed.updates.messages import kinds
from flfed.updates.messages.compare import LEAST_ROWS, MOST_SITES, ROWS_IN_CLEAR, TRAINED, CalibrationName, least_rows
from flfed.updates.messages.train import ENCODER_SHA256
from flfed.updates.parts.every_part import BORDER
from flfed.updates.parts.part import Exchanges, Releases, Wanted, histogram_section
from flfed.updates.sections import (
    FLOAT64,
    HASH,
    SENTENCE,
    WORDS,
    ArrayField,
    ArraySection,
    Columns,
    Field,
    Plain,
    Sections,
    arrays,
    config,
    equal,
    flag,
    float_of,
    number,
    one_of,
    section_bytes,
    text,
    whole,
)

WITH_MODEL = (kinds.TRAIN, kinds.EVALUATE, kinds.SCORES, kinds.COMPARE, kinds.AUDIT)
"""Kinds of requests that bring a model and its encoder."""
REASON = 500
"""Characters of a refusal, at most."""
Way = Literal["to-server", "to-site"]
"""Direction of a message."""
_RUN = text(RUN.pattern, 100)
_HASH = text(HASH, 64)
_SEALING = {
    kinds.SEAL: config({"run": _RUN, "n-known": whole()}),
    kinds.SEALED: config({"run": _RUN, "n": whole(), "head": _HASH, "signature": text(r"[0-9a-f]{128}", 128)}),
}
"""Requests for the ledger's head, and with the coordinator's signature over it."""
_SEALINGS = {
    kinds.SEAL: config({"n": whole(), "head": _HASH, "at-known": text(f"({HASH})?", 64)}),
    kinds.SEALED: config({}),
}
"""The replies to them."""


@dataclass(frozen=True, eq=False)
class StudyMessages:
    """Allowed content of each message of a study.

    They are made for one site; no row and no connection is needed.

    Parameters
    ----------
    study : Study
    schema : Schema
    site : Site
    pinned : int
        Sites that the approval pins, this one counted, where its updates leave in sums only; else 0.
    """

    study: Study
    schema: Schema
    site: Site
    pinned: int = 0

    @property
    def task(self) -> str:
        """Of the dataset."""
        return self.schema.task

    @property
    def outputs(self) -> int:
        """Numbers that the model predicts for a row."""
        return outputs_of(self.schema.task, len(self.schema.classes))

    @property
    def primary(self) -> str:
        """Name of the primary metric."""
        return primary_of(self.schema.task, self.study.compare.primary, self.study.compare.alert_budget)

    @cached_property
    def model(self) -> Shapes:
        """Names, shapes and types of the model's arrays."""
        return model_shapes(self.study, self.schema)

    @cached_property
    def layout(self) -> Layout:
        """The layout of the study's sums."""
        return study_layout(self.study, self.schema)

    @property
    def sums(self) -> Shapes:
        """Names, shapes and types of the sums over rows."""
        return {name: (shape, FLOAT64) for name, shape in self.layout.shapes().items()}

    @property
    def statistic(self) -> Shapes:
        """Names, shapes and types of the statistic's sums."""
        return statistic_of(self.study).shapes(self.schema)

    @property
    def statistic_point(self) -> Shapes:
        """Names, shapes and types of the numbers at which a visit requests sums."""
        statistic = statistic_of(self.study)
        if not isinstance(statistic, VisitedStatistic):
            return {}
        return {name: (values.shape, values.dtype) for name, values in statistic.first(self.schema).items()}

    @property
    def own_fit(self) -> Shapes:
        """Names, shapes and types of a fit to the site's rows alone; none where it does not leave."""
        if self.pinned or not self.site.policy.shares_own_fit(self.study):
            return {}
        return fit_shapes(statistic_of(self.study), self.schema)

    @property
    def statistic_type(self) -> type:
        """Class of the study's statistic, or of its analysis."""
        return type(statistic_of(self.study))

    @property
    def noised_cells(self) -> Shapes:
        """Names, shapes and types of counts by cell, where noise covers everything that leaves."""
        return shapes_of_cells(self.layout)

    @property
    def round_figures(self) -> str:
        """How the figures of rounds leave the site."""
        return self.site.policy.round_figures(summed=bool(self.pinned))

    @property
    def keeps_figures(self) -> bool:
        """Whether the site's figures leave in sums only, as its updates do."""
        return bool(self.pinned) and self.site.policy.shares_in_sums_only(self.study)

    @property
    def has_histogram(self) -> bool:
        """Whether counts of rows by prediction may leave."""
        return self.site.policy.allows("score-histogram")

    @property
    def may_audit(self) -> bool:
        """Whether the site's policy permits audits of a run."""
        return self.site.policy.audits

    @property
    def peers(self) -> tuple[str, ...]:
        """Other sites that the study names."""
        return tuple(name for name in self.study.dataset.sites or () if name != self.site.name)

    @property
    def has_outcome(self) -> bool:
        """Whether the site's rows have the outcome."""
        return self.site.has_outcome

    @property
    def most_identifiers(self) -> int:
        """Most people of a table that the site aligns its own with."""
        return self.site.policy.identifiers

    @cached_property
    def releases(self) -> Releases:
        """The site's releases, in the order in which they leave."""
        releases: Releases = ()
        for part in BORDER:
            releases = part.releases(self, releases)
        return tuple(sorted(releases, key=lambda release: release.place))

    @property
    def guarantee(self) -> str:
        """Key of the sentence on updates without noise, in the table `privacy` of words/approval.toml."""
        guarantee = ""
        for part in BORDER:
            guarantee = part.guarantee(self, guarantee)
        return guarantee

    @cached_property
    def exchanges(self) -> Exchanges:
        """Kinds of messages of a run."""
        exchanges = Exchanges(once=())
        for part in BORDER:
            exchanges = part.exchanges(self, exchanges)
        return exchanges

    def incoming(self, kind: str) -> Sections:
        """Return the allowed sections of a request of this kind."""
        sections = self._request(kind)
        for part in BORDER:
            sections = part.request_sections(self, kind, sections)
        return sections

    def _request(self, kind: str) -> Sections:
        """Return the allowed sections of a request in any study."""
        if kind in _SEALING:
            return {"config": _SEALING[kind]}
        if kind == kinds.ENROL:
            return {"config": config({"dataset": equal(self.study.dataset.name), "schema": text("[0-9a-f]*", 64)})}
        if kind not in WITH_MODEL:
            return {"config": config({})}
        fields: dict[str, Field] = {}
        optional: dict[str, Field] = {}
        if kind == kinds.COMPARE:
            fields, optional = choices(self.study, self.schema)
        if kind in kinds.BRINGING:
            fields = {**fields, ENCODER_SHA256: _HASH}
        plain = config({**fields, **optional}, optional=optional)
        return {"config": plain, "arrays": arrays(self.model), "encoder": self._encoder()}

    def _encoder(self) -> ArraySection:
        """Return the section of the encoder.

        Under the schema's scaler all its values follow from the study.
        """
        values = schema_encoder(self.layout).arrays() if self.study.encode.scaler == "schema" else {}
        array_fields = {}
        for name, shape in self.layout.encoder_shapes().items():
            positive = name in ("scale", "spread", "class_weight")
            array_fields[name] = ArrayField(shape=shape, positive=positive, values=values.get(name))
        return ArraySection(arrays=array_fields)

    def leaving(self, kind: str, **options: bool) -> Sections:
        """Return the allowed sections of a reply of this kind.

        `options` are the rest of a `Wanted`.
        """
        wanted = Wanted(kind=kind, **options)
        sections = self._reply(wanted)
        for part in BORDER:
            sections = part.reply_sections(self, wanted, sections)
        return sections

    def _reply(self, wanted: Wanted) -> Sections:
        """Return the allowed sections of a reply in any study."""
        kind = wanted.kind
        if kind in _SEALINGS:
            return {"config": _SEALINGS[kind]}
        if kind == kinds.ENROL:
            return {"config": _enrolled(self.site)}
        if kind == kinds.SUMMARISE:
            return {"config": config({}), "summary": arrays(self.sums)}
        if kind == kinds.COMPARE:
            return comparison(self) if wanted.score else without_figures()
        return {"config": config({})}

    def run_bytes(self, way: Way = "to-server") -> int:
        """Return the most bytes of a run with one request for each round.

        Parameters
        ----------
        way : {"to-server", "to-site"}
        """
        once = sum(_message_bytes(self._sections(kind, way)) for kind in self.exchanges.once)
        # The first request of training brings the encoder, which crosses once.
        if way == "to-site" and self.exchanges.each_round:
            once += section_bytes(self._encoder())
        return once + self.study.most_rounds * self.round_bytes(way)

    def round_bytes(self, way: Way = "to-server") -> int:
        """Return the most bytes of a round of training, without the encoder's first delivery.

        Parameters are those of `run_bytes`.
        """
        total = 0
        for kind in self.exchanges.each_round:
            sections = self._sections(kind, way)
            size = _message_bytes(sections)
            if kind == kinds.TRAIN:
                for part in BORDER:
                    size = part.round_bytes(self, sections, size)
            total += size
        return total

    def _sections(self, kind: str, way: Way) -> Sections:
        if way == "to-site":
            return self.incoming(kind)
        return self.leaving(kind, score=kind != kinds.COMPARE or not self.keeps_figures)


def _enrolled(site: Site) -> Plain:
    """Return the section of an enrolment."""
    width = site.policy.width
    more = {"width": equal(width)} if width < 1 else {}
    fields = {
        "site": equal(site.name),
        # A site that refuses before it opens its table has the name alone.
        "title": one_of((site.title or site.name, site.name)),
        "version": equal(flfed.__version__),
        "accepted": flag(),
        "reason": text("[^\x00-\x1f\x7f-\x9f]*", REASON),
        "rows-low": whole(),
        "rows-high": whole(),
        "disclosure": one_of(("open", "institution")),
        "share-metrics": one_of(SHARINGS),
        "resplit": flag(),
        "epsilon-budget": number(0, nan=True),
        "epsilon-spent": number(0, nan=True),
    }
    return config({**fields, **more}, optional=more)


def _message_bytes(sections: Sections) -> int:
    """Return the most bytes of one message, without an encoder."""
    return sum(section_bytes(section) for name, section in sections.items() if name != "encoder")


def choices(study: Study, schema: Schema) -> tuple[dict[str, Field], dict[str, Field]]:
    """Return the fields that a request always has, and the optional ones.

    These are the adjustment of intercepts, and the bins where the task is binary.
    """
    always = {"sites": whole(1, MOST_SITES), "trained": one_of(TRAINED)}
    optional = {"offset-deviation": number(0)} if study.adjusts_intercept() else {}
    if schema.task == "binary":
        optional["odds-centre"] = number()
        optional["odds-spread"] = number(LEAST_SPREAD)
    return always, optional


def comparison(messages: StudyMessages) -> Sections:
    """Return the sections of a comparison."""
    study = messages.study
    schema = messages.schema
    metrics = sorted(list_study_metrics(schema.task, study.compare))
    family: Sections = {}
    if study.compare.site_model == "best":
        family = {"own-model": Plain(fields={"family": one_of(OWN_FAMILIES)}, needed=False)}
    return {
        "config": config({**_numbers_of_rows(LEAST_ROWS, trained=study.train), "note": text(WORDS, LONGEST)}),
        "arms": _figures(metrics, sorted(_arms(study, schema))),
        **_differences(metrics, study),
        "summary": arrays(messages.sums, needed=False),
        **histogram_section(messages, "histogram"),
        **family,
        **points(messages),
        **groups(study, schema),
        **importance(study, messages.layout),
        **calibration(study),
        **recalibration(study),
    }


def without_figures() -> Sections:
    """Return the sections of a comparison without figures of its own.

    They do not leave, or leave only in a sum over several sites.
    """
    return {"config": config({**_numbers_of_rows(ROWS_IN_CLEAR), "note": equal("")})}


def _numbers_of_rows(in_clear: Collection[str], *, trained: bool = True) -> dict[str, Field]:
    """Return the fields of the numbers of rows.

    A number that is not `in_clear` is 0.
    """
    fields: dict[str, Field] = {}
    for name, least in least_rows(trained=trained).items():
        fields[name.replace("_", "-")] = whole(least) if name in in_clear else equal(0)
    return fields


def _arms(study: Study, schema: Schema) -> set[str]:
    """Return the names of the compared models."""
    if not study.train:
        return {"global"}
    arms = set(chain.from_iterable(PAIRS))
    if study.compare.site_model == "best":
        arms.add(OWN_SAME)
        if schema.task == "regression":
            arms |= set(NAIVE_FAMILIES)
    if study.warm_start:
        arms |= set(STARTED)
    if study.compare.site_columns:
        arms.add(OWN_COLUMNS)
    if study.compare.incumbent is not None:
        arms.add(INCUMBENT)
    return arms


def _pairs(study: Study) -> list[Pair]:
    """Return the pairs of compared models."""
    if not study.train:
        return []
    if study.compare.incumbent is None:
        return [*PAIRS]
    return [*PAIRS, INCUMBENT_PAIR]


def _figures(metrics: Collection[str], arms: Collection[str]) -> Columns:
    plain = {name: number(nan=True) for name in ("value", "low", "high", "extra")}
    fields = {"metric": one_of(metrics), "arm": one_of(arms), **plain, "method": text(WORDS, SENTENCE)}
    return Columns(fields=fields, longest=len(metrics) * len(arms))


def _differences(metrics: Collection[str], study: Study) -> Sections:
    """Return the section of differences between models; none where there is one model."""
    pairs = _pairs(study)
    return {"differences": _figures(metrics, [" - ".join(pair) for pair in pairs])} if pairs else {}


def points(messages: StudyMessages) -> Sections:
    """Return the section of exact counts, none where the study has none.

    A count is large enough for the policy, or is missing.
    """
    points = messages.study.compare.points
    if not points or messages.task != "binary":
        return {}
    least = messages.site.policy.least_rows()
    if least == 1:
        least = 0
    counts = dict.fromkeys(("tp", "fp", "fn", "tn"), whole(least, beside=-1))
    at = float_of({at for _, at in points})
    fields = {"by": one_of(POINT_KINDS), "at": at, **counts, "method": text(WORDS, SENTENCE)}
    return {"points": Columns(fields=fields, longest=len(points))}


def groups(study: Study, schema: Schema) -> Sections:
    """Return the section of figures by group.

    There is none where the study names no column.
    """
    group_columns = groupings(study.compare.subgroups, schema)
    if not group_columns:
        return {}
    labels = list(chain.from_iterable(one.labels for one in group_columns))
    named = {"column": one_of([one.column for one in group_columns]), "group": one_of(labels)}
    figures = {name: number(nan=True) for name in ("value", "low", "high")}
    return {"groups": Columns(fields={**named, **figures, "method": text(WORDS, SENTENCE)}, longest=len(labels))}


def calibration(study: Study) -> Sections:
    """Return the section of slope and intercept.

    There is none where the study does not ask for calibration.
    """
    if not study.compare.calibration:
        return {}
    names = get_args(CalibrationName)
    figures = {name: number(nan=True) for name in ("value", "low", "high", "variance")}
    fields = {"name": one_of(names), **figures, "method": text(WORDS, SENTENCE)}
    return {"calibration": Columns(fields=fields, longest=len(names), distinct="name")}


def recalibration(study: Study) -> Sections:
    """Return the section of a validated model's updates.

    There is none where the study does not ask for calibration.
    """
    if study.train or not study.compare.calibration:
        return {}
    figures = {kebab(one.name): number(nan=True) for one in dataclasses.fields(RecalibrationFigure)}
    names = {"name": one_of(UPDATES), "method": text(WORDS, SENTENCE)}
    return {"recalibration": Columns(fields={**figures, **names}, longest=len(UPDATES), distinct="name")}


def importance(study: Study, layout: Layout) -> Sections:
    """Return the sections of feature importances.

    There are none where the study has no permutations.
    """
    if not study.compare.importance:
        return {}
    names = [column.name for column in layout.features]
    figures = {"column": one_of(names), "increase": number()}
    reasons = {"column": one_of(names), "method": text(WORDS, SENTENCE)}
    return {
        "importance": Columns(fields=figures, longest=len(names), distinct="column"),
        "withheld": Columns(fields=reasons, longest=len(names), distinct="column"),
    }
