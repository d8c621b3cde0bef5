"""Checks of a study against a site's policy.

They come before any row is read.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Sequence

from flfed.errors import FlfedError, UsageError
from flfed.federation.client.protection import privacy_refusal
from flfed.refusals import CONTROL, Refusal
from flfed.rows.data.site import Site
from flfed.rows.session import study_refusal
from flfed.study.study import Study


def study_policy_refusal(study: Study, site: Site) -> Refusal | None:
    """Return why a site's policy refuses a study.

    None where it does not. It looks at the rows, and at how the study computes.
    """
    if study.dataset.name not in site.datasets:
        mapped = " and ".join(repr(name) for name in site.datasets)
        return Refusal("other-dataset", mapped=mapped, asked=study.dataset.name)
    if study.dataset.partition is not None:
        return Refusal("research-sites")
    codec = tomllib.loads(study.text).get("codec", {}).get("name", "none")
    names = {"strategy": study.strategy.name, "model": study.model.name, "mechanism": study.privacy.name}
    refused = site.policy.not_allowed(**names, codec=codec, rounds=study.rounds)
    refused = refused or study_refusal(study, site.serving(study.dataset.name))
    # A mechanism whose settings cannot be used raises here; that is the site's answer, and no crash.
    try:
        return refused or privacy_refusal(study, site)
    except FlfedError as error:
        return Refusal("privacy-unusable", error=error)


def cohort_refusal(names: Sequence[str], site: Site, co_sites: Sequence[str] | None) -> Refusal | None:
    """Return why a site refuses to compute with these sites.

    None where it does not refuse.

    Parameters
    ----------
    names : sequence of str
        All sites that are asked, this one among them.
    site : Site
    co_sites : sequence of str or None
        The others that the approval names; None where there is no approval, and none is needed.
    """
    # A name given twice would make a cohort look larger than it is.
    asked, least = set(names), site.policy.least_cohort()
    if len(asked) < len(names) or site.name not in asked:
        return Refusal("site-unlisted")
    if len(asked) < least:
        return Refusal("too-few-sites", asked=len(asked), least=least)
    # One more site in a second run shows its rows by the difference: only approved sites take part.
    added = asked - {site.name} - set(asked if co_sites is None else co_sites)
    if added:
        return Refusal("sites-added", sites=", ".join(sorted(added)[:3]))
    foreign = asked - {site.name} - set(site.policy.co_sites or asked)
    return Refusal("no-co-site", sites=", ".join(sorted(foreign)[:3])) if foreign else None


LONGEST_STUDY = 100_000
"""Characters of a study's text: it is parsed before anybody approved it."""


class Refused(FlfedError):
    """A refusal of a message by the site.

    The sentence is one of flfed's own and may leave.
    """


def parsed(text: str) -> Study:
    """Return the study, or raise Refused in plain words."""
    try:
        return Study.parse(text)
    except UsageError as error:
        # The parser's sentence may quote the study; it is cut, and control characters go.
        raise Refused(Refusal("study-unusable", error=CONTROL.sub(" ", str(error))[:300])) from None
    except (RecursionError, ValueError, OverflowError):
        raise Refused(Refusal("study-unreadable")) from None


def name_of(text: str) -> str:
    """Return the name in an unapproved study's text.

    An empty text where there is none that can be read.
    """
    try:
        found = tomllib.loads(text).get("name")
    except (RecursionError, ValueError):
        return ""
    return found if isinstance(found, str) else ""


def sha256_of(text: str) -> str:
    """Return the hash of a study's text.

    It has one also where it could not be a file's text.
    """
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
