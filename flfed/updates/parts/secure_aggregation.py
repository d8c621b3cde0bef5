"""Secure aggregation, by masks or by homomorphic encryption."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from flfed.study.tables import TREES
from flfed.updates.aggregation.losses import ENTRIES as LOSSES
from flfed.updates.arrays import entries_of
from flfed.updates.masking import keys
from flfed.updates.masking.ckks import (
    CONTEXT_BYTES,
    MOST_ENTRIES,
    most_bytes,
    require_tenseal,
    vector_entries,
)
from flfed.updates.masking.figure_sums import FigureLayout
from flfed.updates.masking.protocol import SEALED, SHARE_BYTES
from flfed.updates.masking.question import order_of
from flfed.updates.masking.rules import LEAST
from flfed.updates.masking.statement import LONGEST
from flfed.updates.messages.kinds import BINS, COMPARE, ENROL, EVALUATE, SCORES, STATISTIC, SUMMARISE, TRAIN
from flfed.updates.messages.secure_sum import (
    ENCRYPTED,
    KEYS,
    LIST,
    NAME,
    OPENED,
    SECTION,
    SHARED,
    SIGNED,
    UNMASK,
    KeysReply,
    ListReply,
    Masked,
    SharedKey,
    UnmaskReply,
)
from flfed.updates.messages.train import EXTRA
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
    Field,
    Plain,
    Section,
    Sections,
    byte_string,
    config,
    list_of,
    one_of,
    rows_of_bytes,
    text,
    whole,
    with_fields,
)

_LISTS = 64
"""Lists of one question that a site names; consent alone makes several."""
_LONGEST_NAME = 101
_STATEMENT = byte_string(LONGEST)
"""A signed key."""
_SUMMABLE = {SUMMARISE, BINS, STATISTIC, TRAIN, EVALUATE, COMPARE}
"""Kinds of messages whose answers are added up."""
_ENCRYPTED = {TRAIN, EVALUATE, SCORES, COMPARE}
"""Kinds of requests whose model may stand encrypted."""
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
        """Return what a request about a sum may hold."""
        pinned = border.pinned
        if kind == KEYS:
            signed = Columns(fields={"statements": _STATEMENT}, longest=max(1, pinned))
            return {"config": config({"most-rows": whole(1), "cohort": _names(pinned)}), SIGNED: signed}
        if kind not in (LIST, UNMASK):
            return sections
        kinds = {*border.exchanges.once, *border.exchanges.each_round}
        last = order_of(border.study).last
        fields = {"kind": one_of(kinds & _SUMMABLE), "round": whole(0, last), "listed": _names(pinned)}
        if kind == LIST:
            return {"config": config(fields)}
        sealed = {"shares": rows_of_bytes(LEAST, pinned, SEALED), "codes": rows_of_bytes(LEAST, pinned, keys.BYTES)}
        return {"config": config(fields), "sealed": ArraySection(arrays=sealed)}

    def reply_sections(self, border: Border, wanted: Wanted, sections: Sections) -> Sections:
        """Return what a reply about a sum may hold, and masked numbers in place of a site's own."""
        pinned = border.pinned
        kind = wanted.kind
        if kind == KEYS:
            return {"config": config({"sha256": text(HASH, 64), "least": whole(LEAST, max(LEAST, pinned))})}
        if kind == LIST:
            codes = {"codes": rows_of_bytes(LEAST, pinned, keys.BYTES)}
            return {"config": config({}), "confirmed": ArraySection(arrays=codes)}
        if kind == UNMASK:
            shares = rows_of_bytes(LEAST, pinned, SHARE_BYTES)
            opened = {"shares": shares, "seeds": rows_of_bytes(0, pinned, keys.BYTES)}
            return {"config": config({}), "unmasked": ArraySection(arrays=opened)}
        if pinned:
            return _with_masks(border, wanted, sections)
        return sections

    def exchanges(self, border: Border, without: Exchanges) -> Exchanges:
        """Add the keys of a run, and what opens each sum."""
        if not border.pinned:
            return without
        if not border.study.aggregation.is_masked:
            return replace(without, once=(*without.once, KEYS))
        opening = (LIST, UNMASK)
        once = (*without.once, KEYS, *opening * (without.sums + border.sums_figures))
        return replace(without, once=once, each_round=(*without.each_round, *opening * without.sums_a_round))

    def releases(self, border: Border, without: Releases) -> Releases:
        """Add keys and what opens sums.

        Replace an update by masks, and figures where these stay.
        """
        if not border.pinned:
            return without
        # A study without rounds has one sum.
        if not border.study.rounds:
            return (*without, *_STATISTIC_RELEASES)
        releases = [Release(Place.BEFORE_ROUNDS, Text("keys", {"reveals": KeysReply}), KEYS)]
        for release in without:
            if release.place == Place.ROUND and border.study.aggregation.is_masked:
                releases += _masked_releases(release)
            elif release.place == Place.FIGURES:
                releases += _withhold_figures(border, release)
            else:
                releases.append(release)
        # Keys stand after the sums before the rounds.
        return tuple(sorted(releases, key=lambda release: (release.place, release.kind == KEYS)))

    def guarantee(self, border: Border, without: str) -> str:
        """Return the key of the sentence on sums."""
        return f"{without}-summed" if border.pinned else without


_STATISTIC_RELEASES = (
    Release(Place.BEFORE_ROUNDS, Text("statistic-keys", {"reveals": KeysReply})),
    Release(Place.WITH_UPDATE, Text("statistic-opened", {"reveals": UnmaskReply})),
    Release(Place.WITH_UPDATE, Text("statistic-missing", {"reveals": ListReply})),
)
"""Outputs beside a statistic whose sums are added up."""


def _masked_releases(update: Release) -> list[Release]:
    """Return the outputs of an update under masks, and those that open its sum."""
    facts = update.text.facts
    masked = {"rounds": facts["rounds"], "reveals": Masked, "of_sum": facts["reveals"]}
    opened = {"step": facts["step"], "reveals": UnmaskReply}
    missing = {"step": facts["step"], "reveals": ListReply}
    return [
        Release(Place.ROUND, Text(f"{update.text.key}-masked", masked), TRAIN),
        Release(Place.ROUND, Text("opened", opened), UNMASK),
        Release(Place.ROUND, Text("missing", missing), LIST),
    ]


def _withhold_figures(border: Border, figures: Release) -> list[Release]:
    """Return what stands in the place of a round's figures, once."""
    if figures.text.key != "round-figures":
        return []
    key = "losses-in-sum" if border.study.aggregation.is_masked else "losses-stay"
    return [Release(Place.FIGURES, Text("rounds-stay", {"instead": Text(key)}), figures.kind)]


def _with_masks(border: Border, wanted: Wanted, sections: Sections) -> Sections:
    """Return a reply's sections with masked numbers in place of those that the server learns in sums only."""
    kind = wanted.kind
    pinned = border.pinned
    if kind == ENROL:
        # The site's signed key, which it has once it has one.
        signed = with_fields(sections["config"], {"statement": _STATEMENT}, optional=("statement",))
        return {**sections, "config": signed}
    if kind in _SUMMED and border.study.aggregation.is_masked:
        name = _SUMMED[kind]
        left = {other: section for other, section in sections.items() if other != name}
        return {**left, **_masked(pinned, sums=1 + _entries(sections[name]))}
    if kind == COMPARE and not border.sums_figures and border.study.aggregation.is_masked:
        return {name: section for name, section in sections.items() if name != "summary"}
    if kind == COMPARE and border.sums_figures:
        entries = FigureLayout(border.task).entries
        return {**sections, **_masked(pinned, sums=1 + entries, needed=False)}
    if border.study.aggregation.is_masked:
        return _with_masked_update(border, kind, sections)
    return sections


def _with_masked_update(border: Border, kind: str, sections: Sections) -> Sections:
    """Return an update's sections with masks, with the site's weight and losses.

    Of trees the sums of one level.
    """
    # A model that is only scored has losses alone; a site whose run is over sends none.
    if kind == EVALUATE:
        return {**sections, **_masked(border.pinned, sums=1 + LOSSES, needed=False)}
    if kind != TRAIN:
        return sections
    left = {name: section for name, section in sections.items() if name not in ("arrays", EXTRA)}
    if "arrays" in sections:
        return {**left, **_masked(border.pinned, vector=1 + entries_of(border.model), sums=2 + LOSSES)}
    return {**left, **_masked(border.pinned, sums=1 + _entries(sections[EXTRA]) + LOSSES, shorter=True)}


def _entries(section: Section) -> int:
    if not isinstance(section, ArraySection):
        raise TypeError("only arrays are masked")
    return section.entries


def _names(pinned: int) -> Field:
    return text(rf"{NAME}(,{NAME})*", max(1, pinned) * _LONGEST_NAME)


def _masked(
    pinned: int, *, sums: int, vector: int = 0, needed: bool = True, shorter: bool = False
) -> dict[str, Section]:
    """Return the sections of masked numbers.

    Parameters
    ----------
    pinned : int
    sums, vector : int
        Masked numbers of 64 bits, and of 32.
    needed : bool
    shorter : bool
        Whether there may be fewer.
    """
    # Of a level there are few lists: lists of one question lie within each other.
    longest = min(pinned, _LISTS) if shorter else _LISTS
    masked = {
        "shares": rows_of_bytes(LEAST, pinned, SEALED),
        "vector": _vector(vector, np.uint32, shorter=shorter),
        "sums": _vector(sums, np.uint64, shorter=shorter),
    }
    return {
        SECTION: ArraySection(arrays=masked, needed=needed),
        OPENED: Columns(fields={"lists": _names(pinned)}, longest=longest),
    }


def _vector(length: int, dtype: type[np.unsignedinteger[Any]], *, shorter: bool) -> ArrayField:
    others = (((0,), (length,)),) if shorter else ()
    return ArrayField(shape=(length,), dtype=np.dtype(dtype), others=others)


class EncryptedModels(Part):
    """Models that stand encrypted at the server."""

    title = "[privacy] secure-aggregation = 'ckks'"
    exclusions = (
        Exclusion("ckks-strategy", "strategies beyond averaging", lambda facts: not facts.averages),
        Exclusion("ckks-losses", "choices by losses", lambda facts: bool(facts.study.loss_choices)),
        Exclusion(
            "ckks-entries",
            "more than 199,999 parameters",
            lambda facts: vector_entries(entries_of(facts.shapes)) > MOST_ENTRIES,
        ),
    )

    def is_in_study(self, facts: StudyFacts) -> bool:
        """Return whether a study asks for it.

        Trees have no model that could be encrypted.
        """
        return facts.study.aggregation.is_encrypted and facts.study.strategy.name != TREES

    def check(self, facts: StudyFacts) -> None:
        """Refuse what a server cannot do with encrypted models.

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
        """Return a request whose model may stand encrypted, and that for keys with the run's own."""
        if not _encrypts(border):
            return sections
        if kind == KEYS:
            return {**sections, SHARED: _shared_key(1)}
        plain = sections.get("arrays")
        if kind not in _ENCRYPTED or not isinstance(plain, ArraySection):
            return sections
        return {**sections, "arrays": _encrypted(border, plain)}

    def reply_sections(self, border: Border, wanted: Wanted, sections: Sections) -> Sections:
        """Return an update as ciphertexts."""
        if not _encrypts(border):
            return sections
        if wanted.kind == KEYS:
            return {**sections, SHARED: _shared_key(border.pinned)}
        if wanted.kind != TRAIN:
            return sections
        left = {name: section for name, section in sections.items() if name != "arrays"}
        return {**left, ENCRYPTED: _encrypted(border)}

    def releases(self, border: Border, without: Releases) -> Releases:
        """Replace an update by ciphertexts."""
        if not _encrypts(border) or not border.pinned:
            return without
        releases: list[Release] = []
        for release in without:
            if release.place == Place.ROUND:
                releases.append(Release(Place.BEFORE_ROUNDS, Text("shared-key", {"reveals": SharedKey})))
                release = Release(Place.ROUND, Text("update-encrypted", release.text.facts), TRAIN)
            releases.append(release)
        return tuple(releases)

    def guarantee(self, border: Border, without: str) -> str:
        """Return the key of the sentence on updates that leave encrypted."""
        return "alone-encrypted" if _encrypts(border) and without == "alone-summed" else without


def _encrypts(border: Border) -> bool:
    return border.study.aggregation.is_encrypted


def _encrypted(border: Border, plain: ArraySection | None = None) -> Encrypted:
    entries = vector_entries(entries_of(border.model))
    return Encrypted(entries=entries, longest=most_bytes(entries), plain=plain)


def _shared_key(receivers: int) -> Plain:
    """Return the section of a run's sealed key of homomorphic encryption, with its key for so many sites."""
    sealed = byte_string(SEALED, SEALED)
    fields = {"sealed": byte_string(CONTEXT_BYTES), "keys": list_of(sealed, receivers)}
    return Plain(fields=fields, needed=False)
