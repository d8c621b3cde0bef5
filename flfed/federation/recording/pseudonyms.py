"""Pseudonyms of sites, and rules on recording them."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

from flfed.errors import FlfedError
from flfed.paths import home, replace_whole
from flfed.study.tables import Sharing, in_sums_only, strictest
from flfed.words import render

T = TypeVar("T")
DIGITS = 10
"""Hexadecimal digits of a pseudonym, so that two sites very rarely have the same one."""
WITHHELD = "withheld, as the figures of a site that shares none could be worked out from it"


@dataclass(frozen=True)
class SharedAs:
    """Rules by which a run's sites are recorded.

    Attributes
    ----------
    sharing : mapping of site to {"named", "pseudonym", "aggregate-only"}
        A site that is not in it is named.
    series : str
        The series of the pseudonyms: a site has the same one in all repeats, and another in another series.
    """

    sharing: Mapping[str, Sharing] = field(default_factory=dict)
    series: str = ""

    def and_with(self, sharing: Mapping[str, Sharing]) -> SharedAs:
        """Return the rules with further sites; a site's rule changes only to a stricter one, and "named" is not stored.

        Raises
        ------
        FlfedError
            If two sites of the run would have one name.
        """
        both = {site: strictest(self.sharing.get(site, "named"), how) for site, how in sharing.items()}
        both = {site: how for site, how in both.items() if how != "named"}
        rules = SharedAs({**self.sharing, **both}, self.series)
        # Ten digits may collide, which would mix figures of two sites.
        called = [rules.name(site) for site in rules.sharing]
        if len(set(called)) < len(called):
            raise FlfedError("two sites of this run would have one name: run the study anew")
        return rules

    @cached_property
    def in_sums_only(self) -> frozenset[str]:
        """Return the aggregate-only sites."""
        return frozenset(site for site, how in self.sharing.items() if in_sums_only(how))

    @cached_property
    def _pseudonyms(self) -> dict[str, str]:
        hidden = [site for site, how in self.sharing.items() if how == "pseudonym"]
        return pseudonyms(self.series, hidden) if hidden else {}

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
            return render("record.sites.one", site=names)
        return render("record.sites.several", sites=names)

    def name(self, site: str) -> str:
        """Return the recorded name of a site."""
        return self._pseudonyms.get(site, site)

    def under_names(self, by_site: Mapping[str, T]) -> Mapping[str, T]:
        """Return facts under their recorded names, in an order that reveals no name."""
        if not self._pseudonyms:
            return by_site
        # Pseudonyms in the order of the names would reveal them.
        return {name: by_site[site] for name, site in sorted((self.name(site), site) for site in by_site)}

    def named(self, by_site: Mapping[str, T]) -> Mapping[str, T]:
        """Return facts without those of pseudonymous sites, whose size could reveal a site's name."""
        return {site: fact for site, fact in by_site.items() if site not in self._pseudonyms}

    def own(self, by_site: Mapping[str, T]) -> Mapping[str, T]:
        """Return the figures that may be stored, by name, without those of aggregate-only sites."""
        return self.under_names({site: one for site, one in by_site.items() if site not in self.in_sums_only})

    def text(self, sentence: str) -> str:
        """Return a sentence with pseudonyms for names.

        Examples
        --------
        >>> SharedAs().text("hungary: no reply before the deadline")
        'hungary: no reply before the deadline'
        """
        if not self._pseudonyms:
            return sentence
        # Longer names go first, as one name may be part of another.
        names = "|".join(map(re.escape, sorted(self._pseudonyms, key=len, reverse=True)))
        return re.sub(rf"(?<![a-z0-9-])(?:{names})(?![a-z0-9-])", lambda match: self.name(match[0]), sentence)


def pseudonyms(series: str, sites: Iterable[str]) -> dict[str, str]:
    """Return the pseudonyms of sites in a series, which only this machine's secret links to the sites.

    Raises
    ------
    FlfedError
        If the secret cannot be stored.
    """
    secret = _secret()
    words = {site: hmac.new(secret, f"{series}/{site}".encode(), hashlib.sha256).hexdigest() for site in sites}
    return {site: f"site-{word[:DIGITS]}" for site, word in words.items()}


def _secret() -> bytes:
    """Return this machine's secret, which the first call makes, also where two programs make one at once."""
    path = home() / "pseudonyms.key"
    part = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_whole(part, secrets.token_bytes(32))
            # A link fails where the name is taken, so the first secret remains.
            with suppress(FileExistsError):
                os.link(part, path)
        return path.read_bytes()
    except OSError as error:
        raise FlfedError(f"{path}: cannot be stored ({error.strerror}); set FLFED_HOME") from None
    finally:
        part.unlink(missing_ok=True)
