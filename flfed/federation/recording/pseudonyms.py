"""What of a site's figures may be written down, and under which name."""

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
from flfed.study.tables import Sharing, strictest
from flfed.updates.aggregation.rounds import summable

T = TypeVar("T")
DIGITS = 10
"""Hexadecimal ones of a pseudonym: of 10,000 sites two are called alike in one series of 20,000."""
WITHHELD = "withheld, as the figures of a site that shares none could be worked out from it"


@dataclass(frozen=True)
class SharedAs:
    """How the sites of a run are written down.

    Attributes
    ----------
    sharing : mapping of site to {"named", "pseudonym", "aggregate-only"}
        A site that is not in it is named.
    series : str
        Whose pseudonyms these are: a site has the same one in all repeats, and another in another series.
    """

    sharing: Mapping[str, Sharing] = field(default_factory=dict)
    series: str = ""

    def and_with(self, sharing: Mapping[str, Sharing]) -> SharedAs:
        """Return it with more sites, or more reserve: what a site asked for once stays; a named one is not kept.

        Raises
        ------
        FlfedError
            If two sites of the run would be called alike.
        """
        both = {site: strictest(self.sharing.get(site, "named"), how) for site, how in sharing.items()}
        both = {site: how for site, how in both.items() if how != "named"}
        found = SharedAs({**self.sharing, **both}, self.series)
        called = [found.name(site) for site in found.sharing]
        if len(set(called)) < len(called):
            raise FlfedError("two sites of this run would be called alike: run the study anew")
        return found

    @cached_property
    def in_sums_only(self) -> frozenset[str]:
        """Return the sites whose figures go into sums over sites only."""
        return frozenset(site for site, how in self.sharing.items() if how == "aggregate-only")

    @cached_property
    def _pseudonyms(self) -> dict[str, str]:
        hidden = [site for site, how in self.sharing.items() if how == "pseudonym"]
        return pseudonyms(self.series, hidden) if hidden else {}

    def summable(self, sites: Collection[str]) -> list[str]:
        """Return those of some sites over which a figure may be added up and written down."""
        return summable(sites, self.in_sums_only)

    def are_whole(self, sites: Collection[str]) -> bool:
        """Tell whether a figure over exactly these sites may be written down."""
        return len(self.summable(sites)) == len(sites)

    def reserve(self) -> str:
        """Return what a reader of the record should know of the sites whose figures go into sums only."""
        names = ", ".join(sorted(self.in_sums_only))
        if len(self.in_sums_only) == 1:
            why = "as its own could be worked out from them"
            return f"{names} shares no figures of its own: figures over all sites are without it, or withheld, {why}"
        return f"{names} share no figures of their own: figures over all sites have all of them in, or none"

    def name(self, site: str) -> str:
        """Return the name that a site is written down under."""
        return self._pseudonyms.get(site, site)

    def under_names(self, by_site: Mapping[str, T]) -> Mapping[str, T]:
        """Return facts by site under the names that may be written down, whose order then tells nothing either."""
        if not self._pseudonyms:
            return by_site
        return {name: by_site[site] for name, site in sorted((self.name(site), site) for site in by_site)}

    def named(self, by_site: Mapping[str, T]) -> Mapping[str, T]:
        """Return facts by site without those from whose size a site's name could be told."""
        if not self._pseudonyms:
            return by_site
        return {site: fact for site, fact in by_site.items() if site not in self._pseudonyms}

    def own(self, by_site: Mapping[str, T]) -> Mapping[str, T]:
        """Return figures by site, without those that no store may have, under the names that it may have."""
        if self.in_sums_only:
            by_site = {site: figure for site, figure in by_site.items() if site not in self.in_sums_only}
        return self.under_names(by_site)

    def text(self, sentence: str) -> str:
        """Return a sentence in which no site is named that has a pseudonym.

        Examples
        --------
        >>> SharedAs().text("hungary: no reply before the deadline")
        'hungary: no reply before the deadline'
        """
        if not self._pseudonyms:
            return sentence
        names = "|".join(map(re.escape, sorted(self._pseudonyms, key=len, reverse=True)))
        return re.sub(rf"(?<![a-z0-9-])(?:{names})(?![a-z0-9-])", lambda found: self.name(found[0]), sentence)


def pseudonyms(series: str, sites: Iterable[str]) -> dict[str, str]:
    """Return what sites are called in a series; who has not this machine's secret cannot tell which is whose.

    Raises
    ------
    FlfedError
        If the secret cannot be kept.
    """
    secret = _secret()
    words = {site: hmac.new(secret, f"{series}/{site}".encode(), hashlib.sha256).hexdigest() for site in sites}
    return {site: f"site-{word[:DIGITS]}" for site, word in words.items()}


def _secret() -> bytes:
    """Return this machine's secret, made the first time: of two programs that make it at once, one's counts."""
    path = home() / "pseudonyms.key"
    part = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_whole(part, secrets.token_bytes(32))
            with suppress(FileExistsError):
                os.link(part, path)
        return path.read_bytes()
    except OSError as error:
        raise FlfedError(f"{path}: cannot be kept ({error.strerror}); set FLFED_HOME") from None
    finally:
        part.unlink(missing_ok=True)
