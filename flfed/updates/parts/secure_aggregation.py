"""Secure aggregation, by masks or by homomorphic encryption."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from flfed.study.tables import TREES
from flfed.updates.aggregation.losses import ENTRIES as LOSSES
from flfed.updates.arrays import entries_of
from flfed.updates.masks.ckks import (
    CONTEXT_BYTES,
    MOST_ENTRIES,
    most_bytes,
    require_tenseal,
    vector_entries,
)
from flfed.updates.masks.figure_sums import FigureLayout
from flfed.updates.masks.pairs import KEY_BYTES, LONGEST, SEALED_BYTES, TAG_ENTRIES
from flfed.updates.messages.kinds import (
    AUDIT,
    BINS,
    COMPARE,
    ENROL,
    EVALUATE,
    OPEN,
    STATISTIC,
    SUMMARISE,
    TOTAL,
    TRAIN,
)
from flfed.updates.messages.secure_sum import (
    ENCRYPTED,
    KEYS,
    NAME,
    SECTION,
    SHARED,
    SIGNED,
    KeysReply,
    Masked,
    OpenReply,
    SharedKey,
)
from flfed.updates.messages.train import ENCODER_SHA256, EXTRA, TREES_SHA256
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
    Columns,
    Encrypted,
    Plain,
    Section,
    Sections,
    byte_string,
    cell_counts,
    config,
    equal,
    list_of,
    node_sums,
    text,
    whole,
    with_fields,
)

_LONGEST_NAME = 101
_SUMMED = {SUMMARISE: "summary", STATISTIC: "sums", BINS: "counts"}
"""Sections of sums over rows, by the kinds of messages that have them."""


def _noise_of_sites(facts: StudyFacts) -> bool:
    """Return whether the mechanism's noise is added by the sites under secure sums, and by the server else."""
    return facts.changes_updates and facts.adds_site_noise


class SecureAggregation(Part):
    """Sums of updates of which the server sees no single one."""

    title = "[privacy] secure-aggregation"
    exclusions = (
        Exclusion("sums-strategy", "single-update strategies", lambda facts: facts.needs_updates),
        Exclusion(
            "sums-mechanism",
            "single-update mechanisms",
            lambda facts: facts.changes_updates and not facts.adds_site_noise,
        ),
        Exclusion(
            "noise-ckks",
            "'ckks' with site noise",
            lambda facts: _noise_of_sites(facts) and facts.study.aggregation.is_encrypted,
        ),
        Exclusion(
            "noise-auto",
            "'auto' with site noise",
            lambda facts: _noise_of_sites(facts) and facts.study.aggregation.is_optional,
        ),
    )

    def is_in_study(self, facts: StudyFacts) -> bool:
        """Return whether a study has sums of models.

        Trees have sums of their own.
        """
        return facts.study.aggregation.sums_updates and facts.study.strategy.name != TREES

    def request_sections(self, border: Border, kind: str, sections: Sections) -> Sections:
        """Return what the request with a run's keys may hold, and a total in place of the model."""
        if kind == AUDIT and border.pinned and border.study.makes_models_at_sites:
            return {"config": sections["config"]}
        if kind != KEYS:
            return _with_total(border, kind, sections) if border.pinned else sections
        longest = max(1, border.pinned)
        names = text(rf"{NAME}(,{NAME})*", longest * _LONGEST_NAME)
        signed = Columns(fields={"keys": byte_string(LONGEST)}, longest=longest)
        return {
            "config": config({"most-rows": whole(1), "cohort": names}),
            SIGNED: signed,
            SHARED: _shared_key(border, 1),
        }

    def reply_sections(self, border: Border, wanted: Wanted, sections: Sections) -> Sections:
        """Return a confirmation of keys, and masked numbers in place of a site's own."""
        if wanted.kind == KEYS:
            return {"config": config({"sha256": text(HASH, 64)}), SHARED: _shared_key(border, border.pinned)}
        return _with_masks(border, wanted, sections) if border.pinned else sections

    def exchanges(self, border: Border, without: Exchanges) -> Exchanges:
        """Add the keys of a run."""
        return replace(without, once=(*without.once, KEYS)) if border.pinned else without

    def releases(self, border: Border, without: Releases) -> Releases:
        """Add keys; replace an update by masks, and figures where these stay."""
        if not border.pinned:
            return without
        # A study without rounds has one sum.
        if not border.study.rounds:
            return (*without, Release(Place.BEFORE_ROUNDS, Text("statistic-keys", {"reveals": KeysReply})))
        releases = [Release(Place.BEFORE_ROUNDS, Text("keys", {"reveals": KeysReply}), KEYS)]
        for release in without:
            if release.place == Place.ROUND:
                releases.append(_masked_release(release))
            elif release.place == Place.FIGURES:
                releases += _withhold_figures(release)
            else:
                releases.append(release)
        # Keys stand after the sums before the rounds.
        return tuple(sorted(releases, key=lambda release: (release.place, release.kind == KEYS)))

    def guarantee(self, border: Border, without: str) -> str:
        """Return the key of the sentence on sums."""
        return f"{without}-summed" if border.pinned else without


def _masked_release(update: Release) -> Release:
    """Return the output of an update under masks."""
    facts = update.text.facts
    masked = {"rounds": facts["rounds"], "reveals": Masked, "of_sum": facts["reveals"]}
    return Release(Place.ROUND, Text(f"{update.text.key}-masked", masked), TRAIN)


def _withhold_figures(figures: Release) -> list[Release]:
    """Return what stands in the place of a round's figures, once."""
    if figures.text.key != "round-figures":
        return []
    return [Release(Place.FIGURES, Text("rounds-stay", {"instead": Text("losses-in-sum")}), figures.kind)]


def _with_total(border: Border, kind: str, sections: Sections) -> Sections:
    """Return a request's sections with the total of the step before, of which the site makes the rest itself."""
    plain = sections["config"]
    totals = _totals(border).get(kind)
    if totals is None or not isinstance(plain, Plain) or not border.study.makes_models_at_sites:
        return sections
    crossing = {name: one for name, one in plain.fields.items() if name not in _MADE_AT_SITES}
    # Whoever chooses which models are scored chooses the best one; of a tree its first level is (`verified_steps`).
    if "score" in crossing and not (border.study.grows_trees and kind == TRAIN):
        crossing["score"] = equal(True)
    vectors = tuple(updates + (updates > 0) for updates, _ in totals)
    sums = tuple(1 + others + TAG_ENTRIES for _, others in totals)
    total = {
        "vector": _one_of_lengths(vectors, np.uint32),
        "sums": _one_of_lengths(sums, np.uint64, shorter=border.study.grows_trees),
    }
    # The first visit of a statistic follows no other, and one that a site refuses gives no total.
    made: Sections = {
        "config": replace(plain, fields=crossing, optional=plain.optional & crossing.keys()),
        TOTAL: ArraySection(arrays=total, needed=kind != STATISTIC),
    }
    return {**made, "settings": sections["settings"]} if border.study.grows_trees and kind == TRAIN else made


_MADE_AT_SITES = (
    ENCODER_SHA256, TREES_SHA256, "lr-scale", "offset", "offset-deviation", "odds-centre", "odds-spread"
)  # fmt: skip
"""Plain values of a request that sites know themselves where they make the model."""


def _totals(border: Border) -> dict[str, list[tuple[int, int]]]:
    """Return the numbers of 32 and of 64 bits that a total may have without count and tag, by kind of request."""
    if border.study.is_statistic:
        return {STATISTIC: [(0, entries_of(border.statistic))]}
    rows, losses = (0, entries_of(border.sums)), (0, LOSSES)
    if border.study.grows_trees:
        cells = (0, cell_counts(border.study, border.layout).entries)
        level = (0, node_sums(border.study, border.layout, border.model, whole_tree=False).entries + LOSSES)
        return {BINS: [rows], TRAIN: [cells, level], EVALUATE: [level], COMPARE: [level, losses]}
    update = (entries_of(border.model), 1 + LOSSES)
    return {TRAIN: [rows, update], EVALUATE: [update], COMPARE: [update, losses]}


def _one_of_lengths(
    lengths: tuple[int, ...], dtype: type[np.unsignedinteger[Any]], *, shorter: bool = False
) -> ArrayField:
    others = tuple(((1 if shorter else length,), (length,)) for length in lengths)
    return ArrayField(shape=(max(lengths),), dtype=np.dtype(dtype), others=others)


def _with_masks(border: Border, wanted: Wanted, sections: Sections) -> Sections:
    """Return a reply's sections with masked numbers in place of those that the server learns in sums only."""
    kind = wanted.kind
    if kind == ENROL:
        # The site's signed key, which it has once it has one.
        signed = with_fields(sections["config"], {"signed-key": byte_string(LONGEST)}, optional=("signed-key",))
        return {**sections, "config": signed}
    if kind in _SUMMED:
        name = _SUMMED[kind]
        left = {other: section for other, section in sections.items() if other != name}
        return {**left, **_masked(sums=1 + _entries(sections[name]))}
    if kind == COMPARE and not border.sums_figures:
        return {name: section for name, section in sections.items() if name != "summary"}
    if kind == COMPARE and border.sums_figures:
        entries = FigureLayout(border.task).entries
        return {**sections, **_masked(sums=1 + entries, needed=False)}
    return _with_masked_update(border, kind, sections)


def _with_masked_update(border: Border, kind: str, sections: Sections) -> Sections:
    """Return an update's sections with masks, with the site's weight and losses.

    Of trees the sums of one level.
    """
    # A model that is only scored has losses alone; a site whose run is over sends none.
    if kind == EVALUATE:
        return {**sections, **_masked(sums=1 + LOSSES, needed=False)}
    if kind != TRAIN:
        return sections
    left = {name: section for name, section in sections.items() if name not in ("arrays", EXTRA)}
    if "arrays" in sections:
        return {**left, **_masked(vector=1 + entries_of(border.model), sums=2 + LOSSES)}
    return {**left, **_masked(sums=1 + _entries(sections[EXTRA]) + LOSSES, shorter=True)}


def _entries(section: Section) -> int:
    if not isinstance(section, ArraySection):
        raise TypeError("only arrays are masked")
    return section.entries


def _masked(*, sums: int, vector: int = 0, needed: bool = True, shorter: bool = False) -> dict[str, Section]:
    """Return the section of masked numbers.

    Parameters
    ----------
    sums, vector : int
        Masked numbers of 64 bits without their tag, and of 32.
    needed : bool
    shorter : bool
        Whether there may be none.
    """
    masked = {
        "vector": _vector(vector, np.uint32, shorter=shorter),
        "sums": _vector(sums + TAG_ENTRIES, np.uint64, shorter=shorter),
    }
    return {SECTION: ArraySection(arrays=masked, needed=needed)}


def _vector(length: int, dtype: type[np.unsignedinteger[Any]], *, shorter: bool) -> ArrayField:
    others = (((0,), (length,)),) if shorter else ()
    return ArrayField(shape=(length,), dtype=np.dtype(dtype), others=others)


class HomomorphicEncryption(Part):
    """Updates that leave encrypted, and sums that the sites open in turn."""

    title = "[privacy] secure-aggregation = 'ckks'"
    exclusions = (
        Exclusion(
            "ckks-entries",
            "more than 200,000 parameters",
            lambda facts: vector_entries(entries_of(facts.shapes)) > MOST_ENTRIES,
        ),
    )

    def is_in_study(self, facts: StudyFacts) -> bool:
        """Return whether a study asks for it.

        Trees have no updates that could be encrypted.
        """
        return facts.study.aggregation.is_encrypted and facts.study.strategy.name != TREES

    def check(self, facts: StudyFacts) -> None:
        """Refuse what cannot be encrypted.

        Raises
        ------
        UsageError
            For the first such thing, or where the package for it is not installed.
        """
        if not self.is_in_study(facts):
            return
        require_tenseal()
        super().check(facts)

    def request_sections(self, border: Border, kind: str, sections: Sections) -> Sections:
        """Return what the request to open a sum may hold."""
        if not _encrypts(border) or kind != OPEN:
            return sections
        beside = _masked(sums=2 + LOSSES)[SECTION]
        rounds = whole(1, border.study.most_rounds)
        return {"config": config({"round": rounds}), ENCRYPTED: _encrypted(border), TOTAL: beside}

    def reply_sections(self, border: Border, wanted: Wanted, sections: Sections) -> Sections:
        """Return an update as ciphertexts beside its masked weight and losses, and an opened sum."""
        if not _encrypts(border):
            return sections
        if wanted.kind == OPEN:
            total = _masked(vector=1 + entries_of(border.model), sums=2 + LOSSES)[SECTION]
            return {"config": sections["config"], TOTAL: total}
        if wanted.kind != TRAIN:
            return sections
        return {**sections, **_masked(sums=2 + LOSSES), ENCRYPTED: _encrypted(border)}

    def exchanges(self, border: Border, without: Exchanges) -> Exchanges:
        """Add the rounds whose sums a site opens: its share of them, rounded up."""
        if not _encrypts(border):
            return without
        turns = -(-border.study.most_rounds // border.pinned)
        return replace(without, once=(*without.once, *[OPEN] * turns))

    def releases(self, border: Border, without: Releases) -> Releases:
        """Replace an update by ciphertexts, and add the opened sums."""
        if not _encrypts(border):
            return without
        releases: list[Release] = []
        for release in without:
            if release.place == Place.ROUND:
                releases.append(Release(Place.BEFORE_ROUNDS, Text("shared-key", {"reveals": SharedKey})))
                release = Release(Place.ROUND, Text("update-encrypted", release.text.facts), TRAIN)
                releases.append(release)
                releases.append(Release(Place.ROUND, Text("opened", {"reveals": OpenReply}), OPEN))
            else:
                releases.append(release)
        return tuple(releases)

    def guarantee(self, border: Border, without: str) -> str:
        """Return the key of the sentence on updates that leave encrypted."""
        return "alone-encrypted" if _encrypts(border) and without == "alone-summed" else without


def _encrypts(border: Border) -> bool:
    return border.study.aggregation.is_encrypted and bool(border.pinned)


def _encrypted(border: Border) -> Encrypted:
    entries = vector_entries(entries_of(border.model))
    return Encrypted(entries=entries, longest=most_bytes(entries))


def _shared_key(border: Border, receivers: int) -> Plain:
    """Return the section of a run's shared keys: that of tags sealed to so many sites, and under "ckks" one more."""
    sealed = byte_string(KEY_BYTES + SEALED_BYTES, KEY_BYTES + SEALED_BYTES)
    fields = {"sealed": byte_string(CONTEXT_BYTES if _encrypts(border) else 0), "keys": list_of(sealed, receivers)}
    return Plain(fields=fields, needed=False)
