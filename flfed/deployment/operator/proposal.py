"""A study that a site's people decide about, and what the site's folder holds about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from flfed.deployment.gate.message_schema import StudyMessages
from flfed.deployment.operator.guarantee import Guarantee, describe_knowledge, guarantee_of
from flfed.deployment.operator.run_budget import describe_study_budget
from flfed.deployment.operator.secure_sums import Agreement, has_sums, sums_cohort
from flfed.deployment.site_state.approval import Approval, approvals
from flfed.deployment.site_state.runs import Runs, read_runs
from flfed.paths import SiteFolder
from flfed.rows.data import datasets
from flfed.rows.data.schema import Schema
from flfed.rows.data.site import Site
from flfed.rows.snapshots import snapshot
from flfed.study.study import Study


@dataclass(frozen=True, eq=False)
class Proposal:
    """A study that a site is asked to take part in.

    Attributes
    ----------
    study : Study
    site : Site
    co_sites : tuple of str
        The other sites that may take part, in name order.
    coordinator : str
        Whom the site has joined; empty where nobody yet.
    agreement : Agreement
        About secure aggregation.
    """

    study: Study
    site: Site
    co_sites: tuple[str, ...]
    coordinator: str
    agreement: Agreement

    @classmethod
    def of(
        cls,
        study: Study,
        site: Site,
        co_sites: Sequence[str],
        coordinator: str = "",
        agreement: Agreement | None = None,
    ) -> Proposal:
        """Return a proposal; where nothing is agreed yet, with what the study asks of so many sites."""
        others = tuple(sorted(set(co_sites) - {site.name}))
        if agreement is None:
            agreement = Agreement(has_sums(study, len(others) + 1))
        return cls(study, site, others, coordinator, agreement)

    @classmethod
    def of_decision(cls, study: Study, site: Site, approval: Approval, coordinator: str) -> Proposal:
        """Return the proposal that a decision was about."""
        agreement = None
        if approval.decision != "refused":
            agreement = Agreement(approval.sums, dict(approval.pins), approval.changed_sites)
        return cls.of(study, site, approval.co_sites, coordinator, agreement)

    @property
    def participants(self) -> int:
        """Sites that may take part, this one included."""
        return len(self.co_sites) + 1

    @property
    def pinned(self) -> int:
        """Sites of secure aggregation, this one included; 0 without it."""
        return self.participants if self.agreement.sums else 0

    @cached_property
    def schema(self) -> Schema:
        """Schema of the study's dataset."""
        return datasets.load(self.study.dataset.name).schema

    @cached_property
    def serving(self) -> Site:
        """The site as it serves the dataset."""
        return self.site.serving(self.study.dataset.name)

    @property
    def features(self) -> tuple[str, ...]:
        """Features of the study that the site reads: those that it maps."""
        mapping = self.serving.mapping
        features = self.schema.features(self.study.dataset.features)
        return tuple(name for name in features if mapping.get(name, name) is not None)

    @cached_property
    def messages(self) -> StudyMessages:
        """Allowed messages: releases are described from what the gate checks, so that no text promises less."""
        return StudyMessages(
            self.study, self.schema, self.serving, sums_cohort(self.site.name, self.co_sites, self.agreement)
        )

    @cached_property
    def guarantee(self) -> Guarantee:
        """Privacy guarantee."""
        return guarantee_of(self.study, self.messages.guarantee, self.pinned)

    def describe_knowledge(self) -> str:
        """Return what a coordinator learns that follows the protocol, asks again, or crafts its models."""
        return describe_knowledge(self.study, self.pinned)


@dataclass(frozen=True)
class SiteFacts:
    """What a site's folder holds about a proposal.

    Attributes
    ----------
    rows : Frozen or None
        The snapshot; None where there is none yet.
    runs : Runs
    budget : tuple of str
        Sentences on what a run would spend.
    earlier : Approval or None
        The last approval of a study of this name, also a withdrawn one.
    approved : tuple of Approval
        All approvals of studies on the dataset.
    single_outcomes : (int, int) or None
        Training rows whose outcome the first sums of trees reveal, and all training rows; None where not counted.
    """

    rows: snapshot.Frozen | None
    runs: Runs
    budget: tuple[str, ...]
    earlier: Approval | None
    approved: tuple[Approval, ...]
    single_outcomes: tuple[int, int] | None = None


def read_site_facts(folder: SiteFolder, proposal: Proposal, runs: int = 1) -> SiteFacts:
    """Return what a site's folder holds about a proposal, and what so many runs spend; no row is read.

    Raises
    ------
    FlfedError
        If the ledger or an approval cannot be read.
    """
    study = proposal.study
    decided = [one for one in approvals(folder) if one.decision != "refused"]
    same_name = [one for one in decided if one.study == study.name]
    return SiteFacts(
        rows=snapshot.read_facts(proposal.serving, folder.frozen),
        runs=read_runs(folder, proposal.site.policy, study.dataset.name),
        budget=tuple(describe_study_budget(folder, proposal.site, study, runs)),
        earlier=same_name[0] if same_name else None,
        approved=tuple(one for one in decided if one.dataset == study.dataset.name),
    )


def count_single_outcomes(folder: SiteFolder, proposal: Proposal, facts: SiteFacts) -> SiteFacts:
    """Return facts with the outcomes that the first sums of trees reveal, counted in the snapshot's rows."""
    if not proposal.study.grows_trees or facts.rows is None:
        return facts
    from flfed.rows.session import SiteSession
    from flfed.rows.site_trees import count_determined_at_start

    least = int(proposal.study.strategy.settings.get("min-rows", 0))
    session = SiteSession(snapshot.load(proposal.serving, folder.frozen), proposal.study)
    return replace(facts, single_outcomes=count_determined_at_start(session, least))
