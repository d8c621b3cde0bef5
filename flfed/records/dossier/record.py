"""Record of a run as a dossier reads it, and findings in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Self

from flfed.records.document.content import Content
from flfed.records.objects import RunReport, SiteReport, read, site_of
from flfed.records.reports.audit_headlines import Audit
from flfed.records.reports.faults import some
from flfed.records.reports.privacy import PrivacyReport, private_of
from flfed.records.sections.data import TableOne
from flfed.records.statistics.odd_sites import Columns
from flfed.records.statistics.verdict import number, sentence_case
from flfed.records.store.entries import RunEntry, SiteEntry
from flfed.records.store.reader import RunReader
from flfed.study.study_text import parsed_study
from flfed.words import render

HASHES = "document.evidence.title"
"""Template of the title of the report's section with hashes, versions and the study."""


@dataclass(frozen=True)
class Member:
    """Membership of an institution, from the coordinator's list.

    Attributes
    ----------
    site, status, invited, admitted, revoked : str
    gate_key : str
        Fingerprint of the key of its gate; empty where the coordinator does not have it.
    """

    site: str
    status: str
    invited: str
    admitted: str
    revoked: str
    gate_key: str


@dataclass(frozen=True)
class _Encoder:
    """The object "encoder" of a run."""

    sha256: str = ""


@dataclass(frozen=True)
class _Hashes:
    """The hashes of a run."""

    code: str = ""


@dataclass(frozen=True)
class _Versions:
    """The versions of a run."""

    flfed: str = ""


@dataclass(frozen=True)
class RunRecord:
    """Record of a run, as the coordinator sees it.

    Attributes
    ----------
    content : Content
        Content of the report.
    columns : Columns
    leaks, encoder : dict or None
        These objects of the first repeat.
    members : sequence of Member
        The coordinator's list of institutions, empty where it has none.
    """

    content: Content
    columns: Columns
    leaks: dict[str, Any] | None
    encoder: dict[str, Any] | None
    members: Sequence[Member] = ()

    @classmethod
    def read(cls, reader: RunReader, name: str, members: Sequence[Member] = ()) -> Self:
        """Return the record of a run or series.

        Raises
        ------
        UsageError
            If there is no such run.
        """
        content = Content.read(reader, name)
        first = content.shown.names[0]
        columns = read(Columns, reader.summary(first, "columns"))
        return cls(content, columns, content.shown.leaks, reader.summary(first, "encoder"), members)

    @property
    def run(self) -> RunReport:
        """The report."""
        return self.content.shown.run

    @property
    def entry(self) -> RunEntry:
        """The first repeat."""
        return self.content.shown.runs[0]

    @property
    def privacy(self) -> PrivacyReport:
        """The privacy of the run."""
        return private_of(self.run.privacy)

    @property
    def audit(self) -> Audit:
        """Figures of attacks."""
        return self.content.audit

    @property
    def at_institutions(self) -> bool:
        """Whether institutions decided on the run: not in a simulation, and not in a rehearsal on one machine."""
        rehearsed = any(event.code == "rehearsal" for event in self.content.shown.events)
        return self.entry.at_institutions and not rehearsed

    @property
    def validates(self) -> bool:
        """Whether sites scored a model that somebody brought along, and trained none."""
        return self.content.shown.run.is_validation

    @cached_property
    def sites(self) -> list[SiteEntry]:
        """The sites that took part, by name."""
        return [site for site in self.content.shown.sites if site.status != "refused"]

    @cached_property
    def site_reports(self) -> dict[str, SiteReport]:
        """Each site's part of the report, by name."""
        return {name: site_of(entry) for name, entry in self.run.sites.items()}

    @cached_property
    def own_members(self) -> list[Member]:
        """The memberships of the run's sites, empty where one of them is unknown or the run was a simulation."""
        member_by_site = {member.site: member for member in self.members}
        names = [site.site for site in self.sites]
        if not self.at_institutions or not set(names) <= set(member_by_site):
            return []
        return [member_by_site[name] for name in names]

    @cached_property
    def encoder_sha256(self) -> str:
        """Hash of the encoder, empty where the run has none."""
        return read(_Encoder, self.encoder).sha256

    @cached_property
    def code_sha256(self) -> str:
        """Hash of flfed's code, empty where the run does not have it."""
        return read(_Hashes, self.entry.hashes).code

    @cached_property
    def version(self) -> str:
        """Version of flfed."""
        return read(_Versions, self.entry.versions).flfed

    @cached_property
    def table_lines(self) -> int:
        """Number of lines of Table 1."""
        return len(read(TableOne, self.content.table_1).rows)

    def setting(self, path: str) -> Any:
        """Return a key of the study by its path, such as "plan.l2"; None where the study does not set it."""
        value: Any = parsed_study(self.content.shown.study_text)
        for part in path.split("."):
            if not isinstance(value, Mapping):
                return None
            value = value.get(part)
        return value

    def as_object(self) -> dict[str, Any]:
        """Return the record as JSON; a finding names its keys."""
        shown = self.content.shown
        return {
            "report": shown.report,
            "runs": [asdict(run) for run in shown.runs],
            "sites": [asdict(site) for site in shown.sites],
            "members": [asdict(member) for member in self.own_members],
            "events": [asdict(event) for event in shown.events],
            "sent": [asdict(crossed) for crossed in self.content.crossed],
            "columns": [asdict(column) for column in self.columns.columns],
            "table-1": self.content.table_1,
            "leaks": self.leaks,
            "encoder": self.encoder,
            "study": shown.study_text,
            "study-sha256": self.content.study_sha256,
        }


@dataclass(frozen=True)
class Finding:
    """Fact of the record that an item of a sheet may rest on.

    Attributes
    ----------
    key : str
        Its sentence in `words/dossier.toml`.
    facts : mapping of str to str, int, float or list of str
        Figures and texts of the record that the sentence has.
    section : str
        Title of the section of the report that has them, empty where the report has none.
    record : sequence of str
        Their keys in `record.json`.
    met : bool
        False where the fact shows that the item is not fulfilled.
    """

    key: str
    facts: Mapping[str, Any]
    section: str
    record: Sequence[str]
    met: bool = True

    def sentence(self) -> str:
        """Return the fact for readers."""
        facts = {name: shown(fact) for name, fact in self.facts.items()}
        return sentence_case(render(f"dossier.evidence.{self.key}", **facts))

    def unmet(self, key: str) -> Finding:
        """Return the same facts as a finding against the item, in another sentence."""
        return replace(self, key=key, met=False)


def shown(fact: str | int | float | Sequence[str]) -> str:
    """Return a fact as a sentence has it.

    Examples
    --------
    >>> shown(9857), shown(0.8939850035575505), shown(["cleveland", "hungary"]), shown("fedavg")
    ('9,857', '0.894', 'cleveland, hungary', 'fedavg')
    """
    if isinstance(fact, str):
        return fact
    if isinstance(fact, int):
        return f"{fact:,}"
    if isinstance(fact, float):
        return number(fact)
    return some(fact)


def count_all(values: Sequence[int | None]) -> int | None:
    """Return the sum of some counts, None where one is not known.

    Examples
    --------
    >>> count_all([80, 84]), count_all([80, None]), count_all([])
    (164, None, None)
    """
    counts = [value for value in values if value is not None]
    if not counts or len(counts) < len(values):
        return None
    return sum(counts)
