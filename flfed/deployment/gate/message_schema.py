"""Expected messages of one study.

They say what may come in and what may leave; `message_sections` checks messages against them.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal, get_args

import numpy as np

import flfed
from flfed.deployment.gate.comparison_schema import groups, importance, points
from flfed.deployment.gate.message_sections import (
    HASH,
    SEALING,
    SEALINGS,
    SENTENCE,
    WORDS,
    Columns,
    Field,
    Held,
    Plain,
    Section,
    Sections,
    attacks,
    equal,
    flag,
    most_bytes,
    number,
    numbers,
    one_of,
    section_bytes,
    text,
    whole,
)
from flfed.deployment.gate.score_schema import ScoreTable, edges_of_bins
from flfed.deployment.gate.sum_schema import (
    SUMS,
    Encrypted,
    masked,
    masked_figures,
    masked_losses,
    masked_summary,
    statement,
    summed_in,
    summed_out,
)
from flfed.deployment.gate.tree_schema import counted, forest, hashes, level_answered, level_asked, tree_round_bytes
from flfed.refusals import LONGEST
from flfed.rows.comparison.compare import OWN_SAME, PAIRS, STARTED
from flfed.rows.comparison.own_columns import ARM as OWN_COLUMNS
from flfed.rows.data.policy import RoundFigures
from flfed.rows.data.schema import Schema
from flfed.rows.data.site import Site
from flfed.rows.evaluation.scoring import metrics_asked, primary_of
from flfed.rows.statistics.of_study import statistic_of
from flfed.rows.statistics.private.model_counts import shapes_of_cells
from flfed.rows.study_model import model_shapes, study_layout
from flfed.rows.training.functional import outputs_of
from flfed.study.coverage import compares_privately, covers_model
from flfed.study.exchanges import exchanges_of, grows, most_rounds, refits
from flfed.study.statistic import is_statistic
from flfed.study.study import Study
from flfed.study.tables import NAIVE_FAMILIES, OWN_FAMILIES
from flfed.summaries.score_bins import BINS, LEAST_SPREAD
from flfed.summaries.summary import Layout, schema_encoder
from flfed.updates.codec import Codec, Shapes, codec_of, download_of, entries_of
from flfed.updates.extra import extra_shapes
from flfed.updates.masking.figure_sums import FigureLayout
from flfed.updates.messages import kinds
from flfed.updates.messages.audit import AUDIT, MOST_FIGURES, Verdict
from flfed.updates.messages.compare import COMPARE, MOST_SITES, TRAINED
from flfed.updates.messages.countersign import SEAL, SEALED
from flfed.updates.messages.enrol import ENROL
from flfed.updates.messages.fields import COUNTS, METRIC, PROTOCOL
from flfed.updates.messages.offset import SECTION as OFFSET
from flfed.updates.messages.secure_sum import ENCRYPTED, KEYS, LIST, UNMASK
from flfed.updates.messages.summarise import SUMMARISE
from flfed.updates.messages.train import ENCODER_SHA256, EVALUATE, EXTRA, TRAIN

KINDS = (
    ENROL, SUMMARISE, kinds.BINS, kinds.STATISTIC, TRAIN, EVALUATE, kinds.SCORES, KEYS, LIST, UNMASK, COMPARE, AUDIT,
    SEAL, SEALED,
)  # fmt: skip
"""Kinds of messages that a site answers."""
FLOAT64 = np.dtype(np.float64)
REASON = 500
Way = Literal["to-server", "to-site"]
"""Which way a message goes."""


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
        Sites that the approval pins, this one counted, where its updates leave for sums only; else 0.
    """

    study: Study
    schema: Schema
    site: Site
    pinned: int = 0

    @cached_property
    def model(self) -> Shapes:
        """Names, shapes and types of the model's arrays."""
        return model_shapes(self.study, self.schema)

    @cached_property
    def layout(self) -> Layout:
        """The layout of the study's sums."""
        return study_layout(self.study, self.schema)

    @cached_property
    def encoder(self) -> Shapes:
        """Names, shapes and types of the encoder's arrays."""
        return {name: (shape, FLOAT64) for name, shape in self.layout.encoder_shapes().items()}

    @property
    def round_figures(self) -> RoundFigures:
        """How figures of rounds leave the site."""
        return self.site.policy.round_figures(summed=bool(self.pinned))

    def incoming(self, kind: str) -> Sections:
        """Return what a request of this kind may hold."""
        if kind == ENROL:
            asked = {"dataset": equal(self.study.dataset.name), "schema": text("[0-9a-f]*", 64)}
            return {"config": _config(asked)}
        if kind in SEALING:
            return {"config": _config(SEALING[kind])}
        if kind in (SUMMARISE, kinds.BINS, kinds.STATISTIC):
            return {"config": _config({})}
        if kind in SUMS:
            return summed_in(kind, self.pinned, self.study)
        # Scales and weights are above zero; under the schema's scaler every value follows from the study alone.
        positive = frozenset({"scale", "spread", "class_weight"})
        values = schema_encoder(self.layout).arrays() if self.study.encode.scaler == "schema" else {}
        encoder = Held(shapes=self.encoder, positive=positive, values=values)
        sections: Sections = {"arrays": _model(self, kind), "encoder": encoder}
        # The hash asks for the compact form, which earlier versions of the coordinator do not know.
        compact = {ENCODER_SHA256: text(HASH, 64)}
        # A comparison may also name the adjustment of intercepts, and the bins where the task is binary.
        if kind == COMPARE:
            known = {"offset-deviation": number(0)} if self.study.adjusts_intercept() else {}
            if self.schema.task == "binary":
                known |= {"odds-centre": number(), "odds-spread": number(LEAST_SPREAD)}
            known |= compact
            always = {"sites": whole(1, MOST_SITES), "trained": one_of(TRAINED)}
            return {"config": _config(known | always, optional=known), **sections}
        if kind == AUDIT:
            return {"config": _config({"attack": one_of(attacks())}), **sections}
        if kind == kinds.SCORES:
            pairs = {"pairs": equal(True)} if compares_privately(self.study) else {}
            return {"config": _config(pairs, optional=pairs), **sections, "edges": edges_of_bins()}
        if kind == TRAIN and grows(self.study):
            place = {**self._round(kind), **hashes(self.pinned), **compact}
            level = level_asked(self.study, self.model, self.pinned)
            return {"config": _config(place, optional=compact), **sections, **level}
        # Left are training and evaluation: each names its round and the strategy's numbers.
        settings = self._settings()
        more: dict[str, Section] = {"settings": Plain(fields=settings)} if settings else {}
        more |= _extra(extra_shapes(self.study, self.model).sent if kind == TRAIN else {})
        asked = compact | ({"offset": equal(True)} if kind == EVALUATE and self.study.adjusts_intercept() else {})
        return {"config": _config({**self._round(kind), **asked}, optional=asked), **sections, **more}

    def _round(self, kind: str) -> dict[str, Field]:
        """Return the fields that say which round it is.

        The evaluation after the last round trains nothing.
        """
        # Only a plateau schedule follows what it sees: there alone the coordinator may choose the scale.
        plateau = self.study.plan.schedule == "plateau"
        first, last = 1, most_rounds(self.study)
        if kind == EVALUATE:  # of the final model: before the last round only where a run may end early
            early = self.study.strategy.settings.get("patience") or refits(self.study)
            first, last = 2 if early else last + 1, last + 1
        return {
            "round": whole(first, last),
            "rounds": equal(self.study.rounds),
            "lr-scale": number(0, 1) if plateau else equal(1.0),
            "fit": equal(kind == TRAIN),
            "score": flag(),
        }

    def _settings(self) -> dict[str, Field]:
        """Return the fields of the strategy's numbers.

        A number that the study itself sets must have exactly that value.
        """
        strategy = self.study.strategy.build("strategy")
        given = {name: float(value) for name, value in strategy.client_settings().items()}
        own = set(inspect.signature(type(strategy)).parameters)
        # Flower's records have kebab-case keys wherever ours are made.
        return {name.replace("_", "-"): equal(value) if name in own else number() for name, value in given.items()}

    def leaving(self, kind: str, *, score: bool = True, offset: bool = True, masked_sums: bool = False) -> Sections:
        """Return what a reply of this kind may hold.

        Parameters
        ----------
        kind : str
        score, offset, masked_sums : bool
            Whether scores were asked for, of a site that shares its own; the site's own offset was; and the sums over
            rows are masked.
        """
        if kind == ENROL:
            more = {"statement": statement()} if self.pinned else {}
            if (width := self.site.policy.width) < 1:
                more["width"] = equal(width)
            return {"config": _config({**_enrolled(self.site), **more}, optional=more)}
        if kind in SUMS:
            return summed_out(kind, self.pinned, self.study)
        if kind in SEALINGS:
            return {"config": _config(SEALINGS[kind])}
        if kind == SUMMARISE:
            sums = self._summary()
            masks = masked_summary(entries_of(sums.shapes), self.pinned)
            return {"config": _config({}), **(masks if masked_sums else {"summary": sums})}
        if kind == kinds.STATISTIC:
            return {"config": _config({}), **_statistic(self)}
        if kind == kinds.BINS:
            return {"config": _config({}), **counted(self.study, self.layout, self.pinned)}
        if kind == kinds.SCORES:
            return {"config": _config({}), "scores": ScoreTable()}
        if kind == COMPARE:
            return _comparison(self) if score else _rows_compared(self)
        if kind == AUDIT:
            return {"config": _config({"num-examples": whole(1), "holdout-rows": whole()}), "figures": _audited()}
        stays = covers_model(self.study) or self.round_figures == "none"
        update = {"num-examples": number(1), "steps": whole()} | ({} if stays else {"loss": number()})
        sections: dict[str, Section] = {
            "config": _config({"kind": equal("delta")}),
            "metrics": numbers(update, all_fields=False),  # a loss that the site keeps is not in it
        }
        if kind == TRAIN and grows(self.study):
            sections |= level_answered(self.study, self.model, self.layout, self.pinned)
        elif kind == TRAIN:
            sections |= _update(self)
        elif self.pinned and self.study.secure_aggregation != "ckks":
            sections |= masked_losses(self.pinned)
        if kind == EVALUATE and offset and not stays and self.study.adjusts_intercept():
            shape = ((outputs_of(self.schema.task, len(self.schema.classes)),), FLOAT64)
            shapes = {"value": shape, "error": shape}
            sections[OFFSET] = Held(shapes=shapes, needed=False, positive=frozenset({"error"}))
        if score and not stays:
            rows = equal("validation" if self.study.plan.validation else "training")
            sections |= self._scores("scores", one_of(("training", "validation")) if refits(self.study) else rows)
        return sections

    def _summary(self, *, needed: bool = True) -> Held:
        return Held(shapes={name: (shape, FLOAT64) for name, shape in self.layout.shapes().items()}, needed=needed)

    def _scores(self, name: str, rows: Field) -> dict[str, Section]:
        # Beside the loss only the primary metric leaves in a round: the others wait for the comparison.
        primary = primary_of(self.schema.task, self.study.compare.primary, self.study.compare.alert_budget)
        figures = {"loss": number(), primary: number()}
        variances = {primary: number(nan=True)}
        return {
            name: Plain(fields={"rows": rows, "num-examples": whole()}),
            f"{name}-metrics": numbers(figures, needed=False, all_fields=False),
            f"{name}-variances": numbers(variances, needed=False, all_fields=False),
            **self._histogram(f"{name}-histogram"),
        }

    def _histogram(self, name: str) -> dict[str, Section]:
        """Return a histogram's section.

        The sections are empty where none may leave.
        """
        if self.schema.task != "binary" or not self.site.policy.allows("score-histogram"):
            return {}
        return {name: Held(shapes={"counts": ((2, BINS), FLOAT64)}, needed=False, dtypes={"counts": COUNTS})}

    def run_bytes(self, way: Way = "to-server", *, compact: bool = False) -> int:
        """Return the most bytes that a run may take.

        Every round is asked once.

        Parameters
        ----------
        way : {"to-server", "to-site"}
        compact : bool
            Whether coordinator and site both have this version, so that counts cross as whole numbers, and the
            encoder once; else of any version.
        """
        if is_statistic(self.study):
            opened = (KEYS, LIST, UNMASK) if self.pinned else ()
            asked = (ENROL, SEAL, *opened, kinds.STATISTIC, SEAL, SEALED)
            return sum(_most(self, kind, way, compact=compact) for kind in asked)
        beside = (KEYS, *((UNMASK,) if _keeps_figures(self) else ())) if self.pinned else ()
        beside += (kinds.BINS, *((LIST, UNMASK) if self.pinned else ())) if grows(self.study) else ()
        judged = (SUMMARISE, *beside, EVALUATE, COMPARE)
        if covers_model(self.study):
            judged = (kinds.STATISTIC, *[kinds.SCORES] * (3 if compares_privately(self.study) else 2))
        asked = (ENROL, SEAL, *judged, SEAL, SEALED)
        once = sum(_most(self, kind, way, compact=compact) for kind in asked)
        # The compact form brings the encoder with the first request of training.
        encoder = section_bytes(self.incoming(TRAIN)["encoder"]) if compact and way == "to-site" else 0
        return once + encoder + most_rounds(self.study) * self.round_bytes(way, compact=compact)

    def round_bytes(self, way: Way = "to-server", *, compact: bool = False) -> int:
        """Return the most bytes of a round of training, the encoder's first delivery not counted.

        Parameters are those of `run_bytes`.
        """
        if is_statistic(self.study):
            return 0
        beside = (LIST, UNMASK) if self.pinned and self.study.secure_aggregation != "ckks" else ()
        once = _most(self, TRAIN, way, compact=compact)
        opened = sum(_most(self, kind, way, compact=compact) for kind in beside)
        if not grows(self.study):
            return once + opened
        sections = self.incoming(TRAIN) if way == "to-site" else self.leaving(TRAIN)
        levels = exchanges_of(self.study)
        return tree_round_bytes(self.study, self.model, self.layout, once, sections) + levels * opened


def _comparison(messages: StudyMessages) -> Sections:
    """Return the sections of a comparison."""
    metrics = sorted(metrics_asked(messages.schema.task, messages.study.compare))
    best = messages.study.compare.own == "best"
    arms = {arm for pair in PAIRS for arm in pair} | ({OWN_SAME} if best else set()) | _more_arms(messages)
    family = {"own-model": Plain(fields={"family": one_of(OWN_FAMILIES)}, needed=False)} if best else {}
    pairs = [f"{a} - {b}" for a, b in PAIRS]
    plain = {"num-examples": whole(1), "holdout-rows": whole(), "note": text(WORDS, LONGEST)}
    return {
        "config": _config(plain),
        "arms": _figures(metrics, sorted(arms)),
        "differences": _figures(metrics, pairs),
        "summary": messages._summary(needed=False),
        **messages._histogram("histogram"),
        **family,
        **points(messages.study, messages.schema, messages.site.policy),
        **groups(messages.study, messages.schema),
        **importance(messages.study, messages.layout),
    }


def _statistic(messages: StudyMessages) -> Sections:
    """Return the sections of a statistic's sums, masked where an approval pins sites."""
    if covers_model(messages.study):
        return {"sums": Held(shapes=shapes_of_cells(messages.layout))}
    shapes = statistic_of(messages.study).shapes(messages.schema)
    if messages.pinned:
        return masked_summary(entries_of(shapes), messages.pinned)
    return {"sums": Held(shapes=shapes)}


def _most(messages: StudyMessages, kind: str, way: Way, *, compact: bool) -> int:
    """Return the most bytes of one message; parameters are those of `run_bytes`."""
    shares = kind != COMPARE or not _keeps_figures(messages)
    sections = messages.leaving(kind, score=shares) if way == "to-server" else messages.incoming(kind)
    if not compact:
        return most_bytes(sections)
    return sum(section_bytes(section) for name, section in sections.items() if name != "encoder")


def _keeps_figures(messages: StudyMessages) -> bool:
    """Tell whether the site's figures leave in sums only, of updates too."""
    asked = messages.study.compare.share_metrics
    return bool(messages.pinned) and messages.site.policy.shares_in_sums_only(asked)


def _enrolled(site: Site) -> dict[str, Field]:
    """Return the fields of an enrolment."""
    return {
        "site": equal(site.name),
        # Who refuses before a table is open has the name alone.
        "title": one_of((site.title or site.name, site.name)),
        "version": equal(flfed.__version__),
        "accepted": flag(),
        "reason": text("[^\x00-\x1f\x7f-\x9f]*", REASON),
        "rows-low": whole(),
        "rows-high": whole(),
        "disclosure": one_of(("open", "institution")),
        "share-metrics": one_of(("named", "pseudonym", "aggregate-only")),
        "resplit": flag(),
        "epsilon-budget": number(0, nan=True),
        "epsilon-spent": number(0, nan=True),
    }


def _arrays(model: Shapes, codec: Codec | None) -> Held:
    """Return the section of a model's arrays, or an update's, as a codec packs them."""
    if codec is None:
        return Held(shapes=model)
    return Held(shapes=codec.shapes(model), check=partial(codec.defect, model=model))


def _more_arms(messages: StudyMessages) -> set[str]:
    """Return the arms that a comparison may have beside the usual ones."""
    study = messages.study
    arms = set(STARTED) if study.warm_start else set()
    if study.compare.declared_columns:
        arms.add(OWN_COLUMNS)
    if messages.schema.task == "regression" and study.compare.own == "best":
        arms |= set(NAIVE_FAMILIES)
    return arms


def _model(messages: StudyMessages, kind: str) -> Section:
    """Return the section of a request's model, which may stand encrypted where the study asks for it."""
    study = messages.study
    if grows(study):
        return forest(study, messages.model, messages.layout, pinned=messages.pinned, needed=kind != TRAIN)
    # The model that a site trains from may be packed; the one that is scored and compared at the end is whole.
    plain = _arrays(messages.model, download_of(study) if kind == TRAIN else None)
    if study.secure_aggregation != "ckks" or kind == AUDIT:
        return plain
    return Encrypted(entries=entries_of(messages.model), plain=plain)


def _update(messages: StudyMessages) -> Sections:
    """Return the sections of a site's update: as ciphertexts, under masks, or as a codec packs it with extra arrays."""
    entries = entries_of(messages.model)
    if messages.study.secure_aggregation == "ckks":
        return {ENCRYPTED: Encrypted(entries=entries)}
    if messages.pinned:
        return masked(entries, messages.pinned)
    extra = extra_shapes(messages.study, messages.model).returned
    return {"arrays": _arrays(messages.model, codec_of(messages.study)), **_extra(extra)}


def _extra(shapes: Shapes) -> dict[str, Section]:
    """Return the section of the strategy's own arrays, where it has some."""
    return {EXTRA: Held(shapes=shapes)} if shapes else {}


def _config(fields: Mapping[str, Field], *, optional: Collection[str] = ()) -> Plain:
    return Plain(fields={"protocol": equal(PROTOCOL), **fields}, optional=frozenset(optional))


def _rows_compared(messages: StudyMessages) -> Sections:
    """Return the sections of a comparison whose figures stay, or leave in a sum over several sites only."""
    plain = {"num-examples": whole(1), "holdout-rows": whole(), "note": equal("")}
    entries = FigureLayout(messages.schema.task, messages.study.compare.points).entries
    return {"config": _config(plain), **masked_figures(entries, messages.pinned)}


def _audited() -> Columns:
    """Return the section of one attack's figures.

    It has numbers, and sentences of flfed with nothing but numbers in them.
    """
    plain = {name: number(nan=True) for name in ("value", "low", "high", "promise")}
    # These sentences may also have an ε, which no other text of ours has.
    sentences = text(f"[ε{WORDS[1:]}", 2 * REASON)
    words = {"metric": text(METRIC, 80), "method": text(WORDS, SENTENCE), "says": sentences}
    fields = {**words, **plain, "verdict": one_of(get_args(Verdict)), "rows": whole()}
    return Columns(fields=fields, longest=MOST_FIGURES)


def _figures(metrics: list[str], arms: list[str]) -> Columns:
    plain = {name: number(nan=True) for name in ("value", "low", "high", "extra")}
    fields = {"metric": one_of(metrics), "arm": one_of(arms), **plain, "method": text(WORDS, SENTENCE)}
    return Columns(fields=fields, longest=len(metrics) * len(arms))
