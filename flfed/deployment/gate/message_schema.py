"""Allowed messages of one study; the sections of a comparison are in a file of their own.

They declare what may come in and what may leave; `message_check` checks messages against them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from flwr.app import RecordDict

import flfed
from flfed.deployment.gate.comparison_sections import choices, comparison, without_figures
from flfed.deployment.site_state.cohorts import COHORT
from flfed.refusals import Refusal
from flfed.rows.data.schema import Schema
from flfed.rows.data.site import Site
from flfed.rows.evaluation.scoring import primary_of
from flfed.rows.statistics.newton import fit_shapes
from flfed.rows.statistics.of_study import statistic_of
from flfed.rows.statistics.statistic import VisitedStatistic
from flfed.rows.study_model import first_sha256, model_shapes, study_layout
from flfed.rows.training.functional import outputs_of
from flfed.rows.warm_start import model_sha256
from flfed.study.study import Study
from flfed.summaries.summary import Layout, schema_encoder
from flfed.updates.arrays import Shapes
from flfed.updates.messages import kinds
from flfed.updates.messages.compare import CompareRequest
from flfed.updates.messages.train import ENCODER_SHA256
from flfed.updates.parts.every_part import BORDER
from flfed.updates.parts.part import Exchanges, Releases, Wanted
from flfed.updates.sections import (
    FLOAT64,
    HASH,
    ArrayField,
    ArraySection,
    Field,
    Plain,
    Sections,
    arrays,
    config,
    equal,
    flag,
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
_HASH = text(HASH, 64)


@dataclass(frozen=True, eq=False)
class StudyMessages:
    """Allowed content of each message of a study.

    They are made for one site; no row and no connection is needed.

    Parameters
    ----------
    study : Study
    schema : Schema
    site : Site
    cohort : mapping
        The ledger's facts of the sites that the approval pins, where its updates leave in sums only; else empty.
    """

    study: Study
    schema: Schema
    site: Site
    cohort: Mapping[str, Any] = field(default_factory=dict)

    @property
    def pinned(self) -> int:
        """Sites that the approval pins, this one counted, where its updates leave in sums only; else 0."""
        return len(str(self.cohort[COHORT]).split(",")) if COHORT in self.cohort else 0

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

    def first_sha256(self, repeat: int) -> str:
        """Return what tells the first model of a repeat from others."""
        return first_sha256(self.study, self.schema, repeat)

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
        if self.pinned or not self.site.policy.is_open:
            return {}
        return fit_shapes(statistic_of(self.study), self.schema)

    @property
    def statistic_type(self) -> type:
        """Class of the study's statistic, or of its analysis."""
        return type(statistic_of(self.study))

    @property
    def sums_figures(self) -> bool:
        """Whether figures of the comparison leave in sums only, as updates do."""
        return bool(self.pinned) and self.study.compare.is_summed

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
        if kind == kinds.ENROL:
            asked = {"dataset": equal(self.study.dataset.name), "schema": text("[0-9a-f]*", 64), "known-line": whole()}
            return {"config": config(asked)}
        if kind not in WITH_MODEL:
            return {"config": config({})}
        fields: dict[str, Field] = {}
        optional: dict[str, Field] = {}
        if kind == kinds.COMPARE:
            fields, optional = choices(self.study, self.task)
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

    def brought_refusal(self, kind: str, content: RecordDict) -> Refusal | None:
        """Return why a validation brings another model than the approved one, or None."""
        if self.study.train or kind != kinds.COMPARE:
            return None
        request = CompareRequest.from_record(content)
        if model_sha256(self.study, self.schema, request.arrays, request.encoder) == self.study.start_sha256:
            return None
        return Refusal("other-brought-model")

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
        if kind == kinds.ENROL:
            return {"config": _enrolled(self.site)}
        if kind == kinds.SUMMARISE:
            return {"config": config({}), "summary": arrays(self.sums)}
        if kind == kinds.COMPARE:
            if self.sums_figures:
                return without_figures()
            return comparison(self, self.schema, self.site.policy.least_rows())
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
        return self.leaving(kind)


def _enrolled(site: Site) -> Plain:
    """Return the section of an enrolment."""
    policy = site.policy
    more: dict[str, Field] = {"width": equal(policy.width)} if policy.width < 1 else {}
    if policy.minimum_cohort:
        more["minimum-cohort"] = equal(policy.minimum_cohort)
    more |= {"ledger-lines": whole(), "ledger-head": _HASH, "known-hash": text(f"({HASH})?", 64)}
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
        "resplit": flag(),
        "epsilon-budget": number(0, nan=True),
        "epsilon-spent": number(0, nan=True),
    }
    return config({**fields, **more}, optional=more)


def _message_bytes(sections: Sections) -> int:
    """Return the most bytes of one message, without an encoder."""
    return sum(section_bytes(section) for name, section in sections.items() if name != "encoder")
