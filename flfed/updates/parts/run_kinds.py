"""Kinds of run: a model trained in rounds, and a statistic, or an analysis, in its place; and attacks afterwards.

Of a model some layers may stay as they came, and sites may train a part of a model's hidden units.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

from flfed import registry
from flfed.study.study import Study
from flfed.summaries.score_bins import GroupFigure, PointCounts
from flfed.updates.arrays import entries_of
from flfed.updates.messages.compare import (
    AUDIT,
    MOST_FIGURES,
    AuditReply,
    CalibrationFigure,
    ColumnImportance,
    CompareReply,
    Verdict,
)
from flfed.updates.messages.enrol import EnrolReply
from flfed.updates.messages.fields import METRIC
from flfed.updates.messages.kinds import COMPARE, ENROL, STATISTIC, SUMMARISE
from flfed.updates.messages.summarise import FIT, POINT, StatisticReply, SummariseReply
from flfed.updates.messages.train import EVALUATE, OFFSET, TRAIN, Offset, Scores, TrainReply
from flfed.updates.parts.part import (
    Border,
    Exchanges,
    Exclusion,
    Foreign,
    Part,
    Place,
    Release,
    Releases,
    StudyFacts,
    Text,
    Wanted,
    histogram_section,
    left_out,
)
from flfed.updates.sections import (
    SENTENCE,
    WORDS,
    ArrayField,
    ArraySection,
    Columns,
    Field,
    Plain,
    Section,
    Sections,
    arrays,
    config,
    equal,
    flag,
    number,
    numbers,
    one_of,
    text,
    whole,
    with_fields,
)


class Training(Part):
    """Rounds in which sites score and train one model."""

    title = "training"

    def is_in_study(self, facts: StudyFacts) -> bool:
        """Return whether a study trains a model."""
        return _trains(facts.study)

    def request_sections(self, border: Border, kind: str, sections: Sections) -> Sections:
        """Return a request to train or to score, which names its round."""
        if kind not in (TRAIN, EVALUATE):
            return sections
        fields = _round_fields(border, kind)
        optional: dict[str, Field] = {}
        if kind == EVALUATE and border.study.adjusts_intercept():
            optional["offset"] = equal(True)
        return {**sections, "config": with_fields(sections["config"], fields | optional, optional=optional)}

    def reply_sections(self, border: Border, wanted: Wanted, sections: Sections) -> Sections:
        """Return an update, with losses and scores where these leave."""
        if wanted.kind not in (TRAIN, EVALUATE):
            return sections
        update = {"num-examples": number(1), "steps": whole()}
        if not border.pinned:
            update["loss"] = number()
        # A loss that the site keeps is not in it, so that none of these is needed.
        more: dict[str, Section] = {"config": config({"kind": equal("delta")}), "metrics": numbers(update)}
        if wanted.kind == TRAIN:
            more["arrays"] = arrays(border.model)
        if not border.pinned:
            more |= _scores(border, wanted)
        return {**sections, **more}

    def releases(self, border: Border, without: Releases) -> Releases:
        """Return the outputs of rounds, and of the comparison at the end."""
        if not _trains(border.study):
            return without
        rounds = Text("rounds", {"rounds": border.study.rounds})
        own = Text(f"own-{border.study.compare.site_model}")
        update = Text("update", {"rounds": rounds, "step": "round", "reveals": TrainReply})
        return (
            Release(Place.ENROLMENT, Text("enrolment", {"reveals": EnrolReply}), ENROL),
            Release(Place.BEFORE_ROUNDS, Text("sums", {"reveals": SummariseReply}), SUMMARISE),
            Release(Place.ROUND, update, TRAIN),
            *_round_releases(border),
            *_comparison_releases(border, Text("comparison", {"reveals": CompareReply, "own": own})),
        )

    def guarantee(self, border: Border, without: str) -> str:
        """Return that the coordinator's memory has the site's own updates."""
        return "alone" if _trains(border.study) else without

    def exchanges(self, border: Border, without: Exchanges) -> Exchanges:
        """Return the kinds of messages of a run with a comparison at its end."""
        if not _trains(border.study):
            return without
        return Exchanges(once=(ENROL, SUMMARISE, EVALUATE, COMPARE), each_round=(TRAIN,))


def _trains(study: Study) -> bool:
    return study.train and not study.is_statistic and not study.is_vertical


def _round_fields(border: Border, kind: str) -> dict[str, Field]:
    """Return the fields that say which round it is.

    The evaluation after the last round trains nothing.
    """
    study = border.study
    first = 1
    last = study.most_rounds
    if kind == EVALUATE:  # of the final model: before the last round only where a run may end early
        first = 2 if study.strategy.settings.get("patience") else last + 1
        last += 1
    # Only a plateau schedule follows what it sees: there alone the coordinator may choose the scale.
    scale = number(0, 1) if study.plan.schedule == "plateau" else equal(1.0)
    return {
        "round": whole(first, last),
        "rounds": equal(study.rounds),
        "lr-scale": scale,
        "fit": equal(kind == TRAIN),
        "score": flag(),
    }


def _scores(border: Border, wanted: Wanted) -> dict[str, Section]:
    """Return the sections of a round's scores, and of the site's own intercept with the last ones."""
    sections: dict[str, Section] = {}
    if wanted.kind == EVALUATE and wanted.offset and border.study.adjusts_intercept():
        value = ArrayField(shape=(border.outputs,))
        error = ArrayField(shape=(border.outputs,), positive=True)
        sections[OFFSET] = ArraySection(arrays={"value": value, "error": error}, needed=False)
    if not wanted.score:
        return sections
    rows = "validation" if border.study.plan.validation else "training"
    sections["scores"] = Plain(fields={"rows": one_of((rows,)), "num-examples": whole()})
    # Beside the loss only the primary metric leaves in a round: the others wait for the comparison.
    sections["scores-metrics"] = numbers({"loss": number(), border.primary: number()}, needed=False)
    sections["scores-variances"] = numbers({border.primary: number(nan=True)}, needed=False)
    return sections | histogram_section(border, "scores-histogram")


def _round_releases(border: Border) -> Iterator[Release]:
    """Yield the losses and metrics that leave in each round."""
    yield Release(Place.FIGURES, Text("round-figures", {"reveals": Scores}), EVALUATE)
    if border.study.adjusts_intercept():
        yield Release(Place.FIGURES, Text("intercept", {"reveals": Offset}))


def _comparison_releases(border: Border, figures: Text) -> Iterator[Release]:
    """Yield the figures of a comparison in words, and the outputs that a study requests with it."""
    compare = border.study.compare
    yield Release(Place.END, figures, COMPARE)
    beside = []
    if compare.false_positive_rates:
        rates = ", ".join(f"{rate:g}" for rate in compare.false_positive_rates)
        beside.append(Text("points", {"rates": rates, "reveals": PointCounts}))
    if compare.subgroups:
        beside.append(Text("groups", {"columns": Foreign(tuple(compare.subgroups)), "reveals": GroupFigure}))
    if compare.importance:
        beside.append(Text("importance", {"permutations": compare.importance, "reveals": ColumnImportance}))
    if compare.calibration:
        beside.append(Text("calibration", {"reveals": CalibrationFigure}))
    for one in beside:
        yield Release(Place.END, one)


class Validation(Part):
    """A model that sites score, and nobody trains."""

    title = "[model]: train = false"
    # Keys of a study that have no place where nothing is trained.
    exclusions = left_out(
        "validation-without", "[privacy]: name", "[privacy]: secure-aggregation", "[codec]", "[plan]: validation",
        "[split]", "[model]: frozen-layers", "[encode]: scaler", "[compare]: incumbent",
        "[compare]: pooled", "[compare]: false-positive-rates",
    )  # fmt: skip

    def is_in_study(self, facts: StudyFacts) -> bool:
        """Return whether a study validates a model."""
        return not facts.study.train

    def exchanges(self, border: Border, without: Exchanges) -> Exchanges:
        """Return the kinds of messages of a run."""
        if border.study.train:
            return without
        return Exchanges(once=(ENROL, COMPARE))

    def releases(self, border: Border, without: Releases) -> Releases:
        """Return the enrolment, and the figures over all rows."""
        if border.study.train:
            return without
        figures = Text("validation", {"reveals": CompareReply})
        releases = [
            Release(Place.ENROLMENT, Text("enrolment", {"reveals": EnrolReply}), ENROL),
            *_comparison_releases(border, figures),
        ]
        return tuple(releases)

    def guarantee(self, border: Border, without: str) -> str:
        """Return that the coordinator's memory has the site's own figures."""
        return without if border.study.train else "validation"


class FrozenLayers(Part):
    """The first layers of a model, which stay as they came."""

    title = "frozen layers"
    exclusions = (
        Exclusion(
            "frozen-all",
            "all of the model's layers",
            lambda facts: facts.study.frozen_layers >= facts.layers,
        ),
        Exclusion("frozen-noise", "[privacy]: record-dp", lambda facts: facts.protects_rows),
    )

    def is_in_study(self, facts: StudyFacts) -> bool:
        """Return whether a study freezes any."""
        return facts.study.frozen_layers > 0


def _takes_whole_models(facts: StudyFacts) -> bool:
    strategy = registry.load("strategy", facts.study.strategy.name)
    return not getattr(strategy, "parts", True)


class PartOfUnits(Part):
    """Widths of a partition."""

    title = "[dataset] partition: widths"
    exclusions = (
        Exclusion(
            "widths-start",
            "[model]: warm-start",
            lambda facts: bool(facts.study.warm_start),
        ),
        Exclusion("widths-layers", "models without layers", lambda facts: not facts.layers),
        Exclusion("widths-strategy", "whole-model strategies", _takes_whole_models),
    )

    def is_in_study(self, facts: StudyFacts) -> bool:
        """Return whether a site of the partition trains less than all of a network."""
        partition = facts.study.dataset.partition
        if partition is None or facts.model.linear:
            return False
        return any(width != 1 for width in partition.widths)


class Statistic(Part):
    """Sums over the rows of all sites."""

    title = "[statistic]"

    def is_in_study(self, facts: StudyFacts) -> bool:
        """Return whether a study asks for one."""
        return facts.study.is_statistic

    def request_sections(self, border: Border, kind: str, sections: Sections) -> Sections:
        """Return a request that says nothing: the study has all. One of several visits has its numbers."""
        if kind != STATISTIC:
            return sections
        visits = border.study.visits
        if visits < 2:
            return {"config": config({})}
        return {"config": config({"round": whole(0, visits - 1)}), POINT: arrays(border.statistic_point)}

    def reply_sections(self, border: Border, wanted: Wanted, sections: Sections) -> Sections:
        """Return the statistic's sums."""
        if wanted.kind != STATISTIC or not border.study.is_statistic:
            return sections
        left: dict[str, Section] = {"config": config({}), "sums": arrays(border.statistic)}
        if border.own_fit:
            left[FIT] = arrays(border.own_fit, needed=False)
        return left

    def exchanges(self, border: Border, without: Exchanges) -> Exchanges:
        """Return the exchange of each visit, and what opens its sum."""
        if not border.study.is_statistic:
            return without
        visits = border.study.visits
        return Exchanges(once=(ENROL, *(STATISTIC,) * visits))

    def releases(self, border: Border, without: Releases) -> Releases:
        """Return the answer of each visit, and what opens its sum."""
        if not border.study.is_statistic:
            return without
        visits = border.study.visits
        name = border.study.statistic.name
        statistic = border.statistic_type
        if border.study.analysis is not None:
            enrolment = Text("analysis-enrolment")
            answer = Text("analysis", {"reveals": statistic})
        else:
            enrolment = Text("statistic-enrolment", {"reveals": EnrolReply})
            label = registry.load("statistic", name).label
            facts = {"reveals": StatisticReply, "name": name, "label": label, "of_statistic": statistic}
            words = "statistic"
            if visits > 1:
                numbers = entries_of(border.statistic)
                facts |= {"visits": visits, "numbers": numbers, "all_numbers": visits * numbers}
                words = "statistic-visits"
            answer = Text(words, facts)
        released: Releases = (Release(Place.ENROLMENT, enrolment), Release(Place.ROUND, answer, STATISTIC))
        if border.own_fit:
            released += (Release(Place.ROUND, Text("own-fit", {"numbers": entries_of(border.own_fit)})),)
        return released

    def guarantee(self, border: Border, without: str) -> str:
        """Return that the coordinator's memory has the site's own sums."""
        return "statistic" if border.study.is_statistic else without


LONGEST = 1000
"""Characters of a sentence about an attack."""


class Audit(Part):
    """Attacks after a run, one a request."""

    title = "audits"

    def is_in_study(self, facts: StudyFacts) -> bool:
        """Return True: every study may be audited; a site's policy decides."""
        return True

    def request_sections(self, border: Border, kind: str, sections: Sections) -> Sections:
        """Add the attack: one that flfed brings.

        Another package's is not run when asked.
        """
        if kind != AUDIT:
            return sections
        others = registry.others("attack")
        attacks = [name for name in registry.names("attack") if name not in others]
        return {**sections, "config": with_fields(sections["config"], {"attack": one_of(attacks)})}

    def reply_sections(self, border: Border, wanted: Wanted, sections: Sections) -> Sections:
        """Return one attack's figures: numbers, and sentences of flfed with nothing but numbers in them."""
        if wanted.kind != AUDIT:
            return sections
        plain = {name: number(nan=True) for name in ("value", "low", "high", "promise")}
        # These sentences may also have an ε, which no other text of ours has.
        says = text(f"[ε{WORDS[1:]}", LONGEST)
        words = {"metric": text(METRIC, 80), "method": text(WORDS, SENTENCE), "says": says}
        fields = {**words, **plain, "verdict": one_of(get_args(Verdict)), "rows": whole()}
        figures = Columns(fields=fields, longest=MOST_FIGURES)
        return {"config": config({"num-examples": whole(1), "holdout-rows": whole()}), "figures": figures}

    def releases(self, border: Border, without: Releases) -> Releases:
        """Add the figures of attacks, where the site's policy lets a run be audited."""
        if not border.may_audit or not _trains(border.study):
            return without
        return (*without, Release(Place.AUDIT, Text("audit", {"reveals": AuditReply}), AUDIT))
