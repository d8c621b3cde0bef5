"""Sections of messages where trees grow, and how much of them a round takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Context, Message, RecordDict

from flfed.deployment.gate.message_sections import HEAD, Field, Held, Plain, Section, section_bytes, size_defect, text
from flfed.deployment.gate.sum_schema import masked_level, masked_summary
from flfed.refusals import Refusal
from flfed.study.exchanges import refits
from flfed.study.study import Study
from flfed.summaries.summary import Layout
from flfed.trees.cut_points import are_possible, cells_of, counted_columns
from flfed.trees.forest import NODES, depth_of
from flfed.updates.codec import Shapes
from flfed.updates.messages.fields import ndarrays
from flfed.updates.messages.secure_sum import OPENED, SECTION
from flfed.updates.messages.train import ASKED, CUTS_SHA256, LAST, REFIT, SUMS, TREE, TREES_SHA256

MOST_ATTEMPTS = 1000
"""Times that a tree may begin anew, whatever the sites; a run may at most as often as it has sites."""
FLOAT64 = np.dtype(np.float64)
COUNT, SMALL_COUNT = np.dtype(np.uint32), np.dtype(np.uint16)


@dataclass(frozen=True, kw_only=True)
class NodeSums:
    """A section of sums of gradients, of as many nodes as one level has, and as many codes as the cut points leave.

    Attributes
    ----------
    nodes, cells : int
        Most of each.
    kinds : {2, 3}
        Gradients and Hessians, and rows where they are counted.
    """

    nodes: int
    cells: int
    kinds: int
    needed: bool = True

    @property
    def numbers(self) -> int:
        """Most numbers that it may have."""
        return self.nodes * self.cells * self.kinds

    @property
    def most(self) -> int:
        """Most bytes that it may have."""
        return len(SUMS) + HEAD + 8 * self.numbers

    def defect(self, record: RecordDict, name: str) -> Refusal | None:
        """Return why the named section does not fit, None where it does."""
        found = record[name]
        if type(found) is not ArrayRecord:
            return Refusal("other-kind")
        if set(found) != {SUMS}:
            return Refusal("item-missing", item="array", key=SUMS)
        if wrong := size_defect(found, {SUMS: self.most}):
            return wrong
        sums = ndarrays(record, name)[SUMS]
        most = (self.nodes, self.cells, self.kinds)
        fits = sums.dtype == np.int64 and sums.ndim == 3 and sums.shape[2] == self.kinds
        return None if fits and all(map(int.__le__, sums.shape, most)) else Refusal("other-shape", key=SUMS, shape=most)


def _least(study: Study) -> int:
    return int(study.strategy.settings.get("min-rows", 0))


def counted(study: Study, layout: Layout, pinned: int = 0) -> dict[str, Section]:
    """Return the section of rows by cell, under masks where an approval pins sites."""
    least = _least(study)
    classes = len(layout.target.cells) - 1 if least and layout.task != "regression" else 1
    columns = counted_columns(layout, least)
    shapes = {column.name: ((cells_of(column), classes), COUNT) for column in columns}
    if pinned:
        return masked_summary(sum(cells * outcomes for (cells, outcomes), _ in shapes.values()), pinned)
    return {"counts": Held(shapes=shapes, dtypes=dict.fromkeys(shapes, (COUNT, SMALL_COUNT)))}


@dataclass(frozen=True, kw_only=True)
class Forest(Held):
    """A section of trees whose cut points are some of those that the schema has.

    Attributes
    ----------
    layout : Layout
    codes : int
        Most codes of a number.
    """

    layout: Layout
    codes: int

    def defect(self, record: RecordDict, name: str) -> Refusal | None:
        """Return why the named section does not fit, None where it does."""
        wrong = super().defect(record, name)
        if wrong:
            return wrong
        return None if are_possible(ndarrays(record, name)["cuts"], self.layout, self.codes) else Refusal("cuts-unfit")


def forest(study: Study, model: Shapes, layout: Layout, *, pinned: int, needed: bool) -> Held:
    """Return the section of the trees that a request brings, of any cut points where its sites are not summed."""
    if not pinned:
        return Held(shapes=model, needed=needed)
    return Forest(shapes=model, layout=layout, codes=study.model.build("model").codes, needed=needed)


def level_asked(study: Study, model: Shapes, pinned: int = 0) -> dict[str, Section]:
    """Return the sections of a request of one level beside the trees, of the shapes of the model's arrays.

    Under secure sums, where an approval pins sites, no tree begins anew: two sums of one node tell who is in one only.
    """
    (_, outputs, nodes), _ = model["value"]
    trees = ((len(NODES), outputs, nodes), FLOAT64)
    given = {LAST: trees, TREE: trees, ASKED: ((outputs, nodes), FLOAT64)}
    places = {"level": _whole(depth_of(nodes) - 1), "attempt": _whole(0 if pinned else MOST_ATTEMPTS)}
    if refits(study):
        places[REFIT] = _whole(study.rounds)
    return {"settings": Plain(fields=places), "extra": Held(shapes=given)}


def hashes(pinned: int) -> dict[str, Field]:
    """Return the fields that only requests of trees have."""
    names = (TREES_SHA256, CUTS_SHA256) if pinned else (TREES_SHA256,)
    return dict.fromkeys(names, text("[0-9a-f]{64}", 64))


def _whole(most: int) -> Field:
    return Field(fits=lambda value: type(value) is float and value.is_integer() and 0 <= value <= most)


def level_answered(study: Study, model: Shapes, layout: Layout, pinned: int = 0) -> dict[str, Section]:
    """Return the sections of the sums of one level, of the one with most nodes."""
    sums = _sums(study, model, layout, whole_tree=False)
    return masked_level(sums.numbers, pinned) if pinned else {"extra": sums}


def _sums(study: Study, model: Shapes, layout: Layout, *, whole_tree: bool) -> NodeSums:
    """Return the section of the sums of one level, or of all nodes of a round that are asked for."""
    (_, outputs, nodes), _ = model["value"]
    depth = depth_of(nodes)
    # Of each split the smaller child: 1, 1, 2, 4, ... nodes, together as many as the last level but one has.
    asked = outputs * (2 ** (depth - 1) if whole_tree else max(1, 2 ** (depth - 2)))
    own = study.model.build("model").codes
    cells = sum(own + 1 if column.kind == "number" else len(column.cells) for column in layout.features)
    return NodeSums(nodes=asked, cells=cells, kinds=3 if _least(study) else 2)


def tree_round_bytes(study: Study, model: Shapes, layout: Layout, once: int, sections: Mapping[str, Section]) -> int:
    """Return the most bytes of a round, given those of its one largest exchange and that exchange's sections.

    All exchanges but the first bring neither scores nor, to a site, the trees before.
    """
    (_, _, nodes), _ = model["value"]
    levels = depth_of(nodes)
    if "arrays" in sections:
        return (once - section_bytes(sections["arrays"])) * levels
    level, whole = (8 * _sums(study, model, layout, whole_tree=of_all).numbers for of_all in (False, True))
    # Masks bring shares, and names of lists, with each level.
    beside = sum(sections[name].most for name in ("extra", SECTION, OPENED) if name in sections) - level
    return once - level - beside + whole + levels * (beside + BESIDE)


BESIDE = 512
"""Bytes of a reply's plain values and of an array's head, at most."""


def attempts_refusal(message: Message, context: Context) -> Refusal | None:
    """Return why a tree may not begin anew, None where it may: at most once for each site of the run."""
    names = str(context.run_config.get("sites", "")).split(",")
    more = exchange_of(message).get("attempt", 0) > len(names)
    return Refusal("too-many-attempts", most=len(names)) if more else None


def exchange_of(message: Message) -> dict[str, Any]:
    """Return the level and the attempt of a request of trees, as a ledger's facts; empty of any other request."""
    content = message.content if message.has_content() else {}
    config, settings = content.get("config"), content.get("settings")
    if config is None or settings is None or TREES_SHA256 not in config:
        return {}
    found = {name: settings.get(name) for name in ("level", "attempt", REFIT) if name in settings}
    return {
        name: int(value) for name, value in found.items() if isinstance(value, float) and 0 <= value <= MOST_ATTEMPTS
    }
