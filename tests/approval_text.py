"""Texts before an approval, as tests read them: every detail, and the ten lines."""

from collections.abc import Sequence

from flfed.deployment.operator.approval_summary import summarise
from flfed.deployment.operator.proposal import Proposal, read_site_facts
from flfed.deployment.operator.secure_sums import Agreement
from flfed.deployment.operator.study_description import describe_details
from flfed.paths import SiteFolder
from flfed.rows.data.site import Site
from flfed.study.study import Study


def details(
    study: Study, site: Site, co_sites: Sequence[str], coordinator: str = "", *, agreement: Agreement | None = None
) -> list[str]:
    """Every detail, a paragraph each."""
    return describe_details(Proposal.of(study, site, co_sites, coordinator, agreement))


def ten_lines(
    study: Study,
    site: Site,
    co_sites: Sequence[str],
    coordinator: str = "Heart consortium",
    *,
    agreement: Agreement | None = None,
) -> list[str]:
    """The ten lines, and what follows them without --all."""
    proposal = Proposal.of(study, site, co_sites, coordinator, agreement)
    return summarise(proposal, read_site_facts(SiteFolder(site.name), proposal))
