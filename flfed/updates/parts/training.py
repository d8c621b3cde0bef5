"""Training of a model in rounds: the kind of run of every study without a statistic."""

from __future__ import annotations

from collections.abc import Iterator

from flfed.study.exchanges import most_rounds
from flfed.study.statistic import is_statistic
from flfed.updates.messages.compare import ColumnImportance, CompareReply, GroupFigure, PointCounts
from flfed.updates.messages.countersign import SEAL, SEALED, SealReply
from flfed.updates.messages.enrol import EnrolReply
from flfed.updates.messages.kinds import COMPARE, ENROL, SUMMARISE
from flfed.updates.messages.offset import SECTION as OFFSET
from flfed.updates.messages.offset import Offset
from flfed.updates.messages.summarise import SummariseReply
from flfed.updates.messages.train import EVALUATE, TRAIN, Scores, TrainReply
from flfed.updates.parts.border import (
    Border,
    Exchanges,
    Foreign,
    Place,
    Release,
    Releases,
    Text,
    Wanted,
    histogram_section,
)
from flfed.updates.parts.part import Part, StudyFacts
from flfed.updates.sections import (
    ArrayField,
    ArraySection,
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
    whole,
    with_fields,
)


class Training(Part):
    """Rounds in which sites score and train one model."""

    title = "training"

    def is_asked(self, facts: StudyFacts) -> bool:
        """Tell whether a study trains a model."""
        return not is_statistic(facts.study)

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
        if border.round_figures != "none":
            update["loss"] = number()
        # A loss that the site keeps is not in it, so that none of these is needed.
        more: dict[str, Section] = {"config": config({"kind": equal("delta")}), "metrics": numbers(update)}
        if wanted.kind == TRAIN:
            more["arrays"] = arrays(border.model)
        if border.round_figures != "none":
            more |= _scores(border, wanted)
        return {**sections, **more}

    def releases(self, border: Border, without: Releases) -> Releases:
        """Return what leaves in rounds, and in the comparison at the end."""
        if is_statistic(border.study):
            return without
        rounds = Text("rounds", {"rounds": border.study.rounds})
        update = Text("update", {"rounds": rounds, "step": "round", "reveals": TrainReply})
        return (
            Release(place=Place.ENROLMENT, text=Text("enrolment", {"reveals": EnrolReply}), kind=ENROL),
            Release(place=Place.BEFORE_ROUNDS, text=Text("sums", {"reveals": SummariseReply}), kind=SUMMARISE),
            Release(place=Place.ROUND, text=update, kind=TRAIN),
            *_round_releases(border),
            *_comparison_releases(border),
            Release(place=Place.SEAL, text=Text("seal", {"reveals": SealReply}), kind=SEAL),
        )

    def guarantee(self, border: Border, without: str) -> str:
        """Return that the coordinator's memory has the site's own updates."""
        return without if is_statistic(border.study) else "alone"

    def exchanges(self, border: Border, without: Exchanges) -> Exchanges:
        """Return the kinds of messages of a run with a comparison at its end."""
        if is_statistic(border.study):
            return without
        return Exchanges(
            once=(ENROL, SEAL, SUMMARISE, EVALUATE, COMPARE, SEAL, SEALED), each_round=(TRAIN,), sums_a_round=1
        )


def _round_fields(border: Border, kind: str) -> dict[str, Field]:
    """Return the fields that say which round it is; the evaluation after the last round trains nothing."""
    study = border.study
    first = 1
    last = most_rounds(study)
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
    found: dict[str, Section] = {}
    if wanted.kind == EVALUATE and wanted.offset and border.study.adjusts_intercept():
        value = ArrayField(shape=(border.outputs,))
        error = ArrayField(shape=(border.outputs,), positive=True)
        found[OFFSET] = ArraySection(arrays={"value": value, "error": error}, needed=False)
    if not wanted.score:
        return found
    rows = "validation" if border.study.plan.validation else "training"
    found["scores"] = Plain(fields={"rows": one_of((rows,)), "num-examples": whole()})
    # Beside the loss only the primary metric leaves in a round: the others wait for the comparison.
    found["scores-metrics"] = numbers({"loss": number(), border.primary: number()}, needed=False)
    found["scores-variances"] = numbers({border.primary: number(nan=True)}, needed=False)
    return found | histogram_section(border, "scores-histogram")


def _round_releases(border: Border) -> Iterator[Release]:
    """Yield what leaves of losses and metrics in each round."""
    digits = Text("three-digits") if border.round_figures == "rounded" else ""
    scores = Text("round-figures", {"reveals": Scores, "digits": digits})
    yield Release(place=Place.FIGURES, text=scores, kind=EVALUATE)
    if border.study.adjusts_intercept():
        yield Release(place=Place.FIGURES, text=Text("intercept", {"reveals": Offset, "digits": digits}))


def _comparison_releases(border: Border) -> Iterator[Release]:
    """Yield what leaves of the comparison, and what a study asks for with it."""
    compare = border.study.compare
    own = Text(f"own-{compare.own}")
    compared = Text("comparison", {"reveals": CompareReply, "own": own})
    yield Release(place=Place.END, text=compared, kind=COMPARE)
    beside = []
    if compare.points:
        beside.append(Text("points", {"points": _points(border), "reveals": PointCounts}))
    if compare.by:
        beside.append(Text("groups", {"columns": Foreign(tuple(compare.by)), "reveals": GroupFigure}))
    if compare.importance:
        beside.append(Text("importance", {"permutations": compare.importance, "reveals": ColumnImportance}))
    for text in beside:
        yield Release(place=Place.END, text=text)


def _points(border: Border) -> tuple[Text, ...]:
    """Return the thresholds and alert budgets at which a study has rows counted."""
    compare = border.study.compare
    asked = {
        "by-threshold": compare.thresholds,
        "by-alert-budget": compare.alert_budgets,
        "by-false-positive-rate": compare.false_positive_rates,
    }
    found = []
    for key, values in asked.items():
        if values:
            found.append(Text(key, {"values": ", ".join(f"{at:g}" for at in values)}))
    return tuple(found)
