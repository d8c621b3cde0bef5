"""Rules on recording the figures of a run's sites."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

from flfed.study.tables import Sharing, in_sums_only, strictest

T = TypeVar("T")
WITHHELD = "withheld, as the figures of a site that shares none could be worked out from it"


@dataclass(frozen=True)
class SharedAs:
    """Rules by which a run's sites are recorded.

    Attributes
    ----------
    sharing : mapping of site to {"named", "aggregate-only"}
        A site that is not in it is named.
    """

    sharing: Mapping[str, Sharing] = field(default_factory=dict)

    def and_with(self, sharing: Mapping[str, Sharing]) -> SharedAs:
        """Return the rules with further sites, where a site's rule changes only to a stricter one."""
        both = {site: strictest(self.sharing.get(site, "named"), how) for site, how in sharing.items()}
        return SharedAs({**self.sharing, **{site: how for site, how in both.items() if how != "named"}})

    @cached_property
    def in_sums_only(self) -> frozenset[str]:
        """Return the aggregate-only sites."""
        return frozenset(site for site, how in self.sharing.items() if in_sums_only(how))

    def summable(self, sites: Collection[str]) -> list[str]:
        """Return the sites whose sum may be recorded."""
        from flfed.updates.aggregation.rounds import summable  # loads Flower, which the coordinator's status avoids

        return summable(sites, self.in_sums_only)

    def are_whole(self, sites: Collection[str]) -> bool:
        """Return whether a figure over exactly these sites may be recorded."""
        return len(self.summable(sites)) == len(sites)

    def reserve(self) -> str:
        """Return a sentence on the aggregate-only sites."""
        names = ", ".join(sorted(self.in_sums_only))
        if len(self.in_sums_only) == 1:
            why = "figures over all sites are without it, or withheld, as its own would follow from them"
            return f"{names} shares no figures of its own: {why}"
        return f"{names} share no figures of their own: figures over all sites have all of them in, or none"

    def own(self, by_site: Mapping[str, T]) -> Mapping[str, T]:
        """Return the figures that may be stored, without those of aggregate-only sites."""
        return {site: one for site, one in by_site.items() if site not in self.in_sums_only}
