"""Pseudonyms of sites, and what may be recorded."""

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

T = TypeVar("T")
DIGITS = 10
"""Hexadecimal ones of a pseudonym: of 10,000 sites two are called alike in one series of 20,000."""
WITHHELD = "withheld, as the figures of a site that shares none could be worked out from it"


@dataclass(frozen=True)
class SharedAs:
    """Rules by which a run's sites are recorded.

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
        """Return the rules with further sites added.

        What a site asked for once stays, unless it asks for more reserve. A named site is not stored.

        Raises
        ------
        FlfedError
            If two sites of the run would be called alike.
        """
        both = {site: strictest(self.sharing.get(site, "named"), how) for site, how in sharing.items()}
        both = {site: how for site, how in both.items() if how != "named"}
        rules = SharedAs({**self.sharing, **both}, self.series)
        # Ten digits may collide, and figures of two sites would run into one.
        called = [rules.name(site) for site in rules.sharing]
        if len(set(called)) < len(called):
            raise FlfedError("two sites of this run would be called alike: run the study anew")
        return rules

    @cached_property
    def in_sums_only(self) -> frozenset[str]:
        """Return the sites that share figures in sums only."""
        return frozenset(site for site, how in self.sharing.items() if in_sums_only(how))

    @cached_property
    def _pseudonyms(self) -> dict[str, str]:
        hidden = [site for site, how in self.sharing.items() if how == "pseudonym"]
        return pseudonyms(self.series, hidden) if hidden else {}

    def summable(self, sites: Collection[str]) -> list[str]:
        """Return the sites whose sum may be recorded."""
        from flfed.updates.aggregation.rounds import summable  # Flower, which the coordinator's status has no need of

        return summable(sites, self.in_sums_only)

    def are_whole(self, sites: Collection[str]) -> bool:
        """Tell whether a figure over these sites is allowed.

        It is over exactly these sites, and is to be recorded.
        """
        return len(self.summable(sites)) == len(sites)

    def reserve(self) -> str:
        """Explain the sites that share in sums only."""
        names = ", ".join(sorted(self.in_sums_only))
        if len(self.in_sums_only) == 1:
            why = "as its own could be worked out from them"
            return f"{names} shares no figures of its own: figures over all sites are without it, or withheld, {why}"
        return f"{names} share no figures of their own: figures over all sites have all of them in, or none"

    def name(self, site: str) -> str:
        """Return the recorded name of a site."""
        return self._pseudonyms.get(site, site)

    def under_names(self, by_site: Mapping[str, T]) -> Mapping[str, T]:
        """Return facts under their recorded names.

        The order of the names then tells nothing either.
        """
        if not self._pseudonyms:
            return by_site
        # Sorted by pseudonym, since the order of the names would give them away.
        return {name: by_site[site] for name, site in sorted((self.name(site), site) for site in by_site)}

    def named(self, by_site: Mapping[str, T]) -> Mapping[str, T]:
        """Return facts without those of pseudonymous sites.

        Their size could tell a site's name.
        """
        if not self._pseudonyms:
            return by_site
        return {site: fact for site, fact in by_site.items() if site not in self._pseudonyms}

    def own(self, by_site: Mapping[str, T]) -> Mapping[str, T]:
        """Return the figures that may be stored, by name.

        Those of sites in sums only are left out.
        """
        if self.in_sums_only:
            by_site = {site: figure for site, figure in by_site.items() if site not in self.in_sums_only}
        return self.under_names(by_site)

    def text(self, sentence: str) -> str:
        """Return a sentence with pseudonyms for names.

        Examples
        --------
        >>> SharedAs().text("hungary: no reply before the deadline")
        'hungary: no reply before the deadline'
        """
        if not self._pseudonyms:
            return sentence
        # The longest name first, so that no name is replaced within another.
        names = "|".join(map(re.escape, sorted(self._pseudonyms, key=len, reverse=True)))
        return re.sub(rf"(?<![a-z0-9-])(?:{names})(?![a-z0-9-])", lambda match: self.name(match[0]), sentence)


def pseudonyms(series: str, sites: Iterable[str]) -> dict[str, str]:
    """Return the pseudonyms of sites in a series.

    Without this machine's secret nobody can tell which is whose.

    Raises
    ------
    FlfedError
        If the secret cannot be kept.
    """
    secret = _secret()
    words = {site: hmac.new(secret, f"{series}/{site}".encode(), hashlib.sha256).hexdigest() for site in sites}
    return {site: f"site-{word[:DIGITS]}" for site, word in words.items()}


def _secret() -> bytes:
    """Return this machine's secret.

    It is made the first time. Of two programs that make it at once, one's counts.
    """
    path = home() / "pseudonyms.key"
    part = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_whole(part, secrets.token_bytes(32))
            # A link fails where the name is taken, so that the first secret stays.
            with suppress(FileExistsError):
                os.link(part, path)
        return path.read_bytes()
    except OSError as error:
        raise FlfedError(f"{path}: cannot be kept ({error.strerror}); set FLFED_HOME") from None
    finally:
        part.unlink(missing_ok=True)
