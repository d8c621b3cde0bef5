"""Approvals of studies at a site, and the models that they begin from.

An approval records which study a person approved, and the facts that it was shown with. A model to begin from comes as
a folder that a person adds to the approval; the coordinator sends none. It is stored under the hash that the study's
text names, and that hash is checked at each reading.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict, TypeAdapter

from flfed.callbacks import now_utc
from flfed.files import read_private, write_whole
from flfed.paths import SiteFolder, make_for_owner
from flfed.refusals import NotTakingPart, Refusal
from flfed.registry import kebab, kebab_keys
from flfed.study.study import Study
from flfed.words import flfed_error, usage_error

if TYPE_CHECKING:
    from flfed.rows.warm_start import Source


Decision = Literal["approved", "refused", "withdrawn"]
PAUSED = "paused"


@dataclass(frozen=True, kw_only=True)
class Approval:
    """One decision about one study at one site.

    The last decision counts.

    Attributes
    ----------
    study, study_sha256, text, dataset : str
        The study of the decision, word for word.
    decision : {"approved", "refused", "withdrawn"}
    by, at : str
        Who decided, and when (UTC, ISO 8601).
    co_sites : tuple of str
        The other sites that may take part, in name order.
    rows_sha256, schema_sha256 : str
        Of the frozen rows, and of the columns' schema.
    coordinator : str
        The coordinator that the site had joined; empty where it had joined none.
    earlier : tuple of str
        Earlier decisions with person and time, the first one first.
    sums : bool
        Whether this site's updates leave in secure sums only: then no plain update of the study may leave.
    pins : dict of site to fingerprint
        Fingerprints of the gates of the participating sites, this one's too where there are sums.
    changed_sites : bool
        Whether the dataset's sums may be over other sites than before.
    """

    # A file may have been changed: each value must have its type, or the whole is invalid.
    __pydantic_config__ = ConfigDict(alias_generator=kebab, extra="forbid", strict=True)

    study: str
    study_sha256: str
    text: str
    dataset: str
    decision: Decision
    by: str
    at: str
    co_sites: tuple[str, ...] = ()
    rows_sha256: str = ""
    schema_sha256: str = ""
    coordinator: str = ""
    earlier: tuple[str, ...] = ()
    sums: bool = False
    pins: dict[str, str] = field(default_factory=dict)
    changed_sites: bool = False

    def facts(self) -> dict[str, Any]:
        """Return a decision for JSON, without the study's text."""
        facts: dict[str, Any] = json.loads(json.dumps(kebab_keys(asdict(self))))
        del facts["text"]
        return facts

    def to_json(self) -> str:
        """Return the text of its file."""
        return json.dumps(kebab_keys(asdict(self)), indent=2, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: bytes) -> Approval:
        """Read the text of its file.

        Raises
        ------
        ValueError
            If the text is no valid approval.
        """
        approval: Approval = _READER.validate_json(text)
        return approval


_READER = TypeAdapter(Approval)


def approval_of(folder: SiteFolder, study_sha256: str) -> Approval | None:
    """Return the decision about a study, by its hash.

    None where there was no decision.

    Raises
    ------
    FlfedError
        If the file is damaged, of another study, or others can read or write it.
    """
    path = _path(folder, study_sha256)
    if not path.is_file():
        return None
    approval = _read(path)
    # The file's name is its hash: a renamed file would approve a study that nobody saw.
    if approval.study_sha256 != study_sha256:
        raise flfed_error("gate.approval.other", file=path)
    return approval


def approvals(folder: SiteFolder) -> list[Approval]:
    """Return every decision of a site, the latest first.

    Raises
    ------
    FlfedError
        As for `approval_of`.
    """
    decisions = [_read(path) for path in folder.approvals.glob("*.json")]
    return sorted(decisions, key=lambda approval: approval.at, reverse=True)


def approve(
    folder: SiteFolder,
    study: Study,
    *,
    by: str,
    co_sites: Sequence[str],
    rows_sha256: str,
    schema_sha256: str,
    coordinator: str = "",
    sums: bool = False,
    pins: Mapping[str, str] | None = None,
    changed_sites: bool = False,
    at: datetime | None = None,
) -> Approval:
    """Write and return a person's approval of a study.

    It is valid for these rows, columns, sites and this coordinator.

    Raises
    ------
    ValueError
        If sums are approved, and a participating site is not pinned.
    """
    if changed_sites:
        for one in approvals(folder):
            same = (one.sums, one.pins if one.sums else {}) == (sums, dict(pins or {}) if sums else {})
            if one.decision == "approved" and one.dataset == study.dataset.name and not same:
                withdraw(folder, one.study_sha256, by=by)
    names = tuple(sorted(set(co_sites) - {folder.site}))
    if sums and {folder.site, *names} != (pins or {}).keys():
        raise ValueError("sums need a fingerprint of each site that takes part, this one too")
    return _decide(
        folder,
        study,
        "approved",
        by,
        at,
        co_sites=names,
        rows_sha256=rows_sha256,
        schema_sha256=schema_sha256,
        coordinator=coordinator,
        sums=sums,
        pins=dict(pins or {}),
        changed_sites=changed_sites,
    )


def refuse(folder: SiteFolder, study: Study, *, by: str) -> Approval:
    """Write and return a person's refusal of a study."""
    return _decide(folder, study, "refused", by)


def _decide(
    folder: SiteFolder, study: Study, decision: Decision, by: str, at: datetime | None = None, **facts: Any
) -> Approval:
    """Write and return a person's decision about a study."""
    approval = Approval(
        study=study.name,
        study_sha256=study.sha256(),
        text=study.text,
        dataset=study.dataset.name,
        decision=decision,
        by=by,
        at=_moment(at),
        **facts,
    )
    return _write(folder, approval)


def withdraw(folder: SiteFolder, study: str, *, by: str) -> list[Approval]:
    """Withdraw every approval of a study.

    Return the withdrawn approvals as they are now.

    Parameters
    ----------
    folder : SiteFolder
    study : str
        Its name, or at least 8 characters of its SHA-256.

    Raises
    ------
    UsageError
        If no valid approval has that name or hash.
    """
    standing = [approval for approval in approvals(folder) if approval.decision == "approved"]
    # Part of a hash is enough, but not so short that it could be a name or another study.
    meant = [a for a in standing if a.study == study or (len(study) >= 8 and a.study_sha256.startswith(study))]
    if not meant:
        names = ", ".join(sorted({a.study for a in standing})) or "none"
        raise usage_error("gate.approval.none", site=folder.site, study=study, approved=names)
    return [_write(folder, replace(approval, decision="withdrawn", by=by, at=_moment())) for approval in meant]


def pause(folder: SiteFolder, *, by: str) -> None:
    """Answer no message of any study until `resume`."""
    folder.make()
    write_whole(folder.gate / PAUSED, json.dumps({"by": by, "at": _moment()}).encode())


def resume(folder: SiteFolder) -> bool:
    """Answer again; return whether the site was paused."""
    paused = is_paused(folder)
    (folder.gate / PAUSED).unlink(missing_ok=True)
    return paused


def is_paused(folder: SiteFolder) -> bool:
    """Return whether the site answers no message.

    Anything at the marker's place counts as a pause, also a link or a folder.
    """
    return os.path.lexists(folder.gate / PAUSED)


def _moment(at: datetime | None = None) -> str:
    return (at or now_utc()).isoformat(timespec="seconds")


def _path(folder: SiteFolder, study_sha256: str) -> Path:
    return folder.approvals / f"{study_sha256}.json"


def _read(path: Path) -> Approval:
    try:
        return Approval.from_json(read_private(path))
    except ValueError:
        raise flfed_error("gate.approval.damaged", file=path) from None


def _write(folder: SiteFolder, approval: Approval) -> Approval:
    """Write a decision in place of the earlier one.

    The new decision names the earlier one.

    """
    # Earlier decisions are copied, so that the file alone has the whole history.
    before = approval_of(folder, approval.study_sha256)
    if before is not None:
        history_entry = f"{before.decision} by {before.by} at {before.at}"
        approval = replace(approval, earlier=(*before.earlier, history_entry))
    folder.make()
    make_for_owner(folder.approvals)
    write_whole(_path(folder, approval.study_sha256), approval.to_json().encode())
    return approval


MODEL = "model/"
ENCODER = "encoder/"
"""Prefixes of the names of a file's arrays."""


def has_start(folder: SiteFolder, study: Study) -> bool:
    """Return whether a site has a study's start model, which is not read; a request brings that of a validation."""
    return not (study.warm_start and study.train) or _start_path(folder, study).is_file()


def read_start_folder(folder: SiteFolder, study: Study, model_folder: Path | None) -> Source | None:
    """Return the start model that a person adds to an approval, or None.

    None where the study needs none, or the site has it.

    Parameters
    ----------
    folder : SiteFolder
    study : Study
    model_folder : Path, optional
        Folder of an exported model.

    Raises
    ------
    UsageError
        If it is not the one that the study's text names, or a needed one is missing.
    """
    if model_folder is None:
        if not has_start(folder, study):
            raise usage_error("gate.approval.start", model=study.warm_start)
        return None
    if not study.warm_start:
        raise usage_error("gate.approval.startless", folder=model_folder, study=study.name)
    from flfed.rows.data import datasets  # its models need torch, which a site's status does not
    from flfed.rows.warm_start import read_source

    source = read_source(model_folder, f"--start {model_folder}")
    source.check(study, datasets.load(study.dataset.name).schema, f"--start {model_folder}")
    return source


def keep_start(folder: SiteFolder, study: Study, source: Source) -> None:
    """Store a study's start model, whole or not at all.

    Raises FlfedError where it cannot be written.
    """
    from flfed.updates.arrays import file_content, with_prefix

    parts = with_prefix(MODEL, source.arrays) | with_prefix(ENCODER, source.encoder.arrays())
    folder.make()
    make_for_owner(folder.starts)
    write_whole(_start_path(folder, study), file_content(parts, {"facts": json.dumps(source.facts())}))


def load_start(folder: SiteFolder, study: Study) -> Source:
    """Return the site's own copy of a study's start model.

    Raises
    ------
    NotTakingPart
        If it is absent or damaged, or is another model than the study's text names.
    """
    from safetensors import SafetensorError

    from flfed.rows.warm_start import Source
    from flfed.summaries.summary import Encoder
    from flfed.updates.arrays import read_file, without_prefix

    absent = NotTakingPart(Refusal("start-absent"))
    try:
        arrays, metadata = read_file(_start_path(folder, study))
        encoder = Encoder(**without_prefix(ENCODER, arrays))
        source = Source.of_facts(json.loads(metadata["facts"]), without_prefix(MODEL, arrays), encoder)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        raise absent from None
    if source.sha256() != study.start_sha256:
        raise absent
    return source


def _start_path(folder: SiteFolder, study: Study) -> Path:
    return folder.starts / f"{study.start_sha256}.safetensors"
