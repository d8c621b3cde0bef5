"""Different columns of the same people: rows are aligned, and partial scores and residuals cross between parties."""

from __future__ import annotations

import numpy as np

from flfed.study.kinds import MOST_PARTIES
from flfed.updates.messages.compare import CompareReply
from flfed.updates.messages.enrol import EnrolReply
from flfed.updates.messages.kinds import ALIGN, COMPARE, ENROL, PARTIAL
from flfed.updates.messages.secure_sum import NAME
from flfed.updates.messages.vertical import EXCHANGES, PARTIES, RUN, AlignReply, PartialReply
from flfed.updates.messages.vertical import SEALED as PARCELS
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
    left_out,
)
from flfed.updates.sections import (
    ArrayField,
    ArraySection,
    Columns,
    Section,
    Sections,
    byte_string,
    config,
    flag,
    some_bytes,
    text,
    whole,
)
from flfed.vertical import alignment, residuals

MODELS = ("logistic", "linear")
NOISE = ("none", "label-dp")
BESIDE = 1024
"""Bytes of a sealed parcel beside its content, at most."""
STATEMENT = 4096
"""Bytes of a party's key, at most."""


def _protects_numbers(facts: StudyFacts) -> bool:
    """Return whether a study has label privacy of an outcome that is no class, whose residuals have no bound."""
    return facts.task == "regression" and facts.study.privacy.name != "none"


class Vertical(Part):
    """A linear model whose columns stand at several parties."""

    title = "strategy 'vertical'"
    # Keys of a study that have no place where parties have different columns come first.
    exclusions = (
        *left_out(
            "vertical-without", "[privacy]: secure-aggregation", "[codec]", "[dataset]: partition",
            "[split]", "[model]: warm-start", "[model]: frozen-layers", "[encode]: scaler", "[encode]: rows",
            "[compare]: incumbent", "[compare]: pooled", "[compare]: importance",
            "[compare]: false-positive-rates",
        ),
        Exclusion("vertical-noise", "another [privacy]: name", lambda facts: facts.study.privacy.name not in NOISE),
        Exclusion("vertical-labels", "[privacy]: label-epsilon of a number", _protects_numbers),
        Exclusion("vertical-model", "another model", lambda facts: facts.study.model.name not in MODELS),
        Exclusion("vertical-task", "several classes", lambda facts: facts.task == "multi-class"),
    )  # fmt: skip

    def is_in_study(self, facts: StudyFacts) -> bool:
        """Return whether the strategy is of parties with different columns."""
        return facts.study.is_vertical

    def request_sections(self, border: Border, kind: str, sections: Sections) -> Sections:
        """Return an exchange with its parcels, and a comparison that brings no model."""
        if not border.study.is_vertical:
            return sections
        if kind == ALIGN:
            plain = config({"exchange": whole(0, EXCHANGES - 1)})
            return {"config": plain, PARTIES: _parties(), PARCELS: _parcels(border, kind)}
        if kind == PARTIAL:
            plain = config({"round": whole(1, border.study.rounds + 1), "exchange": whole(0, EXCHANGES - 1)})
            return {"config": plain, PARCELS: _parcels(border, kind)}
        if kind == COMPARE:
            run = ArrayField(shape=(alignment.BYTES,), dtype=np.dtype(np.uint8))
            return {**sections, "arrays": ArraySection(arrays={RUN: run})}
        return sections

    def reply_sections(self, border: Border, wanted: Wanted, sections: Sections) -> Sections:
        """Return a reply with its parcels."""
        if not border.study.is_vertical or wanted.kind not in (ALIGN, PARTIAL):
            return sections
        replied: dict[str, Section] = {"config": config({}), PARCELS: _parcels(border, wanted.kind)}
        if wanted.kind == ALIGN:
            replied[PARTIES] = _parties()
        return replied

    def exchanges(self, border: Border, without: Exchanges) -> Exchanges:
        """Return the kinds of messages of a run."""
        if not border.study.is_vertical:
            return without
        aligned = (ALIGN, ALIGN)
        compared = (COMPARE,) if border.has_outcome else ()
        once = (ENROL, *aligned, PARTIAL, *compared)
        return Exchanges(once=once, each_round=(PARTIAL,))

    def releases(self, border: Border, without: Releases) -> Releases:
        """Return the alignment, the parcels of each round, and the figures of the party with the outcome."""
        if not border.study.is_vertical:
            return without
        rounds = Text("rounds", {"rounds": border.study.rounds})
        releases = [
            Release(Place.ENROLMENT, Text("enrolment", {"reveals": EnrolReply}), ENROL),
            Release(Place.BEFORE_ROUNDS, Text("align", {"reveals": AlignReply}), ALIGN),
            Release(Place.ROUND, Text("partial", {"rounds": rounds, "reveals": PartialReply}), PARTIAL),
        ]
        if border.has_outcome:
            own = Text(f"own-{border.study.compare.site_model}")
            figures = Text("comparison", {"reveals": CompareReply, "own": own})
            releases.append(Release(Place.END, figures, COMPARE))
        return tuple(releases)

    def guarantee(self, border: Border, without: str) -> str:
        """Return what the other parties have of the site's rows."""
        return "vertical" if border.study.is_vertical else without


def _parties() -> Columns:
    """Return the section of the parties of a run."""
    fields = {
        "site": text(NAME, 100),
        "label": flag(),
        "columns": whole(1),
        "identifiers": whole(1),
        "key": byte_string(STATEMENT),
    }
    return Columns(fields=fields, longest=MOST_PARTIES, distinct="site")


def _parcels(border: Border, kind: str) -> ArraySection:
    """Return the section of sealed parcels, from or to some of the study's sites."""
    most = border.most_identifiers
    if kind == ALIGN:
        # Two lists of points, or the rows in common with a key.
        size = 2 * most * alignment.BYTES + residuals.KEY_BYTES
    else:
        # Residuals of all rows, or as many products as there are inputs; and scores, which are the other parcel of a
        # round and far smaller.
        layout = border.layout
        categories = [column for column in layout.features if column.kind == "category"]
        inputs = len(layout.features) * (1 + layout.missing_indicator) + sum(len(one.cells) for one in categories)
        chunks = max(residuals.ciphertexts_out(most), inputs)
        size = chunks * residuals.CIPHERTEXT_BYTES + 4 * most
    parcel = some_bytes(size + BESIDE)
    return ArraySection(arrays=dict.fromkeys(border.peers, parcel), needed=False, all_arrays=False)
