"""The strategy of a study, with the arrays that it sends beside the model."""

from __future__ import annotations

import inspect

from flfed import registry
from flfed.updates.extra import extra_shapes
from flfed.updates.messages.train import EVALUATE, EXTRA, TRAIN
from flfed.updates.parts.part import (
    Border,
    Exclusion,
    Foreign,
    Part,
    Place,
    Release,
    Releases,
    StudyFacts,
    Text,
    Wanted,
)
from flfed.updates.sections import Field, Plain, Sections, arrays, equal, number


def _sends_arrays(facts: StudyFacts) -> bool:
    return bool(facts.extra.sent or facts.extra.returned)


class Strategy(Part):
    """The strategy's own check of the plan."""

    title = "a strategy"

    def is_in_study(self, facts: StudyFacts) -> bool:
        """Return True: every study has one."""
        return True

    def check(self, facts: StudyFacts) -> None:
        """Refuse a plan that the strategy cannot run; raises UsageError."""
        facts.strategy.check(facts.study.plan)

    def request_sections(self, border: Border, kind: str, sections: Sections) -> Sections:
        """Add the strategy's numbers.

        One that the study itself sets must have exactly that value.
        """
        if kind not in (TRAIN, EVALUATE):
            return sections
        strategy = border.study.strategy.build("strategy")
        parameters = set(inspect.signature(type(strategy)).parameters)
        fields: dict[str, Field] = {}
        for name, value in strategy.client_settings().items():
            # Flower's records have kebab-case keys wherever ours are made.
            fields[name.replace("_", "-")] = equal(float(value)) if name in parameters else number()
        return {**sections, "settings": Plain(fields=fields)} if fields else sections


class ArraysBesideModel(Part):
    """Arrays of a strategy, on which neither noise, nor masks, nor a codec is put."""

    title = "a strategy with further arrays"
    exclusions = (
        Exclusion(
            "own-model-noise",
            "[privacy]: record-dp",
            lambda facts: facts.protects_rows and bool(facts.extra.own_model),
        ),
        Exclusion(
            "arrays-noise",
            "[privacy]: name",
            lambda facts: _sends_arrays(facts) and facts.study.privacy.name != "none",
        ),
        Exclusion(
            "arrays-sums",
            "[privacy]: secure-aggregation",
            lambda facts: _sends_arrays(facts) and facts.study.aggregation.sums_updates,
        ),
        Exclusion("arrays-codec", "[codec]", lambda facts: _sends_arrays(facts) and facts.packs),
    )

    def is_in_study(self, facts: StudyFacts) -> bool:
        """Return whether the strategy has any."""
        return _sends_arrays(facts) or bool(facts.extra.own_model)

    def request_sections(self, border: Border, kind: str, sections: Sections) -> Sections:
        """Add the arrays that the strategy sends with a model that is trained."""
        sent = extra_shapes(border.study, border.model).sent
        if kind != TRAIN or not sent:
            return sections
        return {**sections, EXTRA: arrays(sent)}

    def reply_sections(self, border: Border, wanted: Wanted, sections: Sections) -> Sections:
        """Add the arrays that come back with an update."""
        returned = extra_shapes(border.study, border.model).returned
        if wanted.kind != TRAIN or not returned:
            return sections
        return {**sections, EXTRA: arrays(returned)}

    def releases(self, border: Border, without: Releases) -> Releases:
        """Add the arrays that leave with an update, and those that stay."""
        name = border.study.strategy.name
        shapes = extra_shapes(border.study, border.model)
        texts = []
        if shapes.returned:
            revealed = Foreign(registry.load("strategy", name))
            sent = {"arrays": ", ".join(shapes.returned), "name": name, "reveals": revealed}
            texts.append(Text("arrays-sent", sent))
        if shapes.kept:
            texts.append(Text("arrays-kept", {"name": name}))
        if shapes.own_part:
            texts.append(Text("own-part", {"arrays": ", ".join(shapes.own_part)}))
        if shapes.own_model:
            texts.append(Text("own-model"))
        return (*without, *(Release(Place.WITH_UPDATE, text) for text in texts))
