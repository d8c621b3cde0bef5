"""Gradient-boosted trees, whose sums are of gradients by cell and not of models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from flfed.study.tables import TREES
from flfed.trees.forest import NODES, depth_of
from flfed.updates.messages.kinds import BINS, TRAIN
from flfed.updates.messages.summarise import BinsReply
from flfed.updates.messages.train import EXTRA, LAST, MARKS, MOST_ATTEMPTS, TREE, TREES_SHA256
from flfed.updates.parts.part import (
    Border,
    Exchanges,
    Exclusion,
    Part,
    Place,
    Release,
    Releases,
    StudyFacts,
    Text,
    Wanted,
)
from flfed.updates.sections import (
    HASH,
    ArrayField,
    ArraySection,
    Plain,
    Section,
    Sections,
    arrays,
    cell_counts,
    config,
    node_sums,
    section_bytes,
    text,
    whole_float,
    with_fields,
)

_BESIDE = 512
"""Bytes of a reply's plain values and of an array's head, at most."""


def _are_trees(model: Any) -> bool:
    return bool(getattr(model, "plain", False))


_LEFT_OUT: dict[str, Callable[[StudyFacts], bool]] = {
    "[model]: warm-start": lambda facts: bool(facts.study.warm_start) and facts.study.train,
    "[codec]: name": lambda facts: facts.study.codec.name != "none",
    "[encode]: missing-indicator": lambda facts: facts.study.encode.missing_indicator,
    "[compare]: pooled": lambda facts: facts.study.compare.pooled is not None,
}
"""Keys of a study that trees have no use for."""


class Trees(Part):
    """Trees, which are a model and a strategy."""

    title = "trees"
    exclusions = (
        Exclusion(
            "trees-and-others",
            "another model or strategy",
            lambda facts: _are_trees(facts.model) != (facts.study.strategy.name == TREES),
            alone=True,
        ),
        *(Exclusion("trees-without", other, applies) for other, applies in _LEFT_OUT.items()),
        Exclusion(
            "trees-privacy",
            "[privacy]: name",
            lambda facts: facts.study.privacy.name != "none",
        ),
        Exclusion(
            "trees-ckks",
            "secure-aggregation = 'ckks'",
            lambda facts: facts.study.aggregation.is_encrypted,
        ),
    )

    def is_in_study(self, facts: StudyFacts) -> bool:
        """Return whether the model or the strategy is of trees."""
        return _are_trees(facts.model) or facts.study.strategy.name == TREES

    def request_sections(self, border: Border, kind: str, sections: Sections) -> Sections:
        """Return a request with trees, and of one level where a tree grows."""
        if kind == BINS:
            return {"config": config({})}
        if not border.study.grows_trees:
            return sections
        tree_sections = dict(sections)
        if "arrays" in sections:
            tree_sections["arrays"] = arrays(border.model, needed=kind != TRAIN)
        if kind == TRAIN:
            tree_sections["config"] = with_fields(sections["config"], {TREES_SHA256: text(HASH, 64)})
            tree_sections |= _level(border)
        return tree_sections

    def reply_sections(self, border: Border, wanted: Wanted, sections: Sections) -> Sections:
        """Return counts for cut points, and sums of one level in place of an update."""
        study = border.study
        if wanted.kind == BINS:
            return {"config": config({}), "counts": cell_counts(border.study, border.layout)}
        if not study.grows_trees:
            return sections
        tree_sections = {name: section for name, section in sections.items() if name != "arrays"}
        if wanted.kind == TRAIN:
            tree_sections[EXTRA] = node_sums(border.study, border.layout, border.model, whole_tree=False)
        return tree_sections

    def exchanges(self, border: Border, without: Exchanges) -> Exchanges:
        """Add the counts for cut points."""
        if not border.study.grows_trees:
            return without
        return replace(without, once=(*without.once, BINS))

    def releases(self, border: Border, without: Releases) -> Releases:
        """Add the counts for cut points, and replace the update by sums of gradients."""
        study = border.study
        if not study.grows_trees:
            return without
        releases = [release for release in without if release.text.key != "update"]
        grown = {"rounds": study.rounds, "exchanges": study.exchanges_of_round}
        rounds = Text("rounds-of-trees", grown)
        facts = {"rounds": rounds, "step": "level of a tree", "reveals": type(study.strategy.build("strategy"))}
        releases.append(Release(Place.BEFORE_ROUNDS, Text("cut-points", {"reveals": BinsReply}), BINS))
        releases.append(Release(Place.ROUND, Text("trees", facts), TRAIN))
        return tuple(releases)

    def guarantee(self, border: Border, without: str) -> str:
        """Return what the coordinator's memory has of trees."""
        return "trees" if border.study.grows_trees else without

    def round_bytes(self, border: Border, sections: Sections, once: int) -> int:
        """Return the most bytes of a round.

        All exchanges but the first bring neither scores nor the trees before.
        """
        if not border.study.grows_trees:
            return once
        levels = border.study.exchanges_of_round
        if "arrays" in sections:
            return (once - section_bytes(sections["arrays"])) * levels
        level = 8 * node_sums(border.study, border.layout, border.model, whole_tree=False).entries
        of_all_nodes = 8 * node_sums(border.study, border.layout, border.model, whole_tree=True).entries
        # Masks bring shares, and names of lists, with each level.
        beside = sum(section.most for name, section in sections.items() if name not in _ONCE) - level
        return once - level - beside + of_all_nodes + levels * (beside + _BESIDE)


_ONCE = ("config", "metrics", "scores", "scores-metrics", "scores-variances", "scores-histogram")
"""Sections of a reply that stand in the first one of a round only."""


def _level(border: Border) -> dict[str, Section]:
    """Return the sections of a request of one level beside the trees, of the shapes of the model's arrays.

    Under secure sums no tree begins anew: two sums of one node reveal who is in one only.
    """
    (_, outputs, nodes), _ = border.model["value"]
    trees = ArrayField(shape=(len(NODES), outputs, nodes))
    attempts = 0 if border.pinned else MOST_ATTEMPTS
    places = {"level": whole_float(depth_of(nodes) - 1), "attempt": whole_float(attempts)}
    level_arrays = {LAST: trees, TREE: trees, MARKS: ArrayField(shape=(outputs, nodes))}
    return {"settings": Plain(fields=places), EXTRA: ArraySection(arrays=level_arrays)}
