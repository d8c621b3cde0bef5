"""What a site's policy says of a study, and of who takes part, before any row is read."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence

from flfed.apps.protecting import privacy_refusal
from flfed.errors import FlfedError
from flfed.rows.site import Site
from flfed.rows.workplace import study_refusal
from flfed.study import Study


def study_policy_refusal(study: Study, site: Site) -> str:
    """Return why a site's policy does not let a study in, or an empty text: by its rows, and how it computes."""
    if study.dataset.name not in site.datasets:
        mapped = " and ".join(repr(name) for name in site.datasets)
        return f"its table is mapped to dataset {mapped}, the study asks {study.dataset.name!r}"
    if study.dataset.partition is not None:
        return "the study cuts one table into research sites, which no institution is"
    codec = tomllib.loads(study.text).get("codec", {}).get("name", "none")
    names = {"strategy": study.strategy.name, "model": study.model.name, "mechanism": study.privacy.name}
    refused = site.policy.not_allowed(**names, codec=codec, rounds=study.rounds)
    refused = refused or study_refusal(study, site.serving(study.dataset.name))
    try:
        return refused or privacy_refusal(study, site)
    except FlfedError as error:
        return f"the study's [privacy] cannot be used ({error})"


def cohort_refusal(names: Sequence[str], site: Site, co_sites: Sequence[str] | None) -> str:
    """Return why a site does not compute with just these sites, or an empty text.

    Parameters
    ----------
    names : sequence of str
        All sites that are asked, this one among them.
    site : Site
    co_sites : sequence of str or None
        The others that the approval names; None where there is no approval, and none is needed.
    """
    asked, least = set(names), site.policy.least_cohort()
    if len(asked) < len(names) or site.name not in asked:
        return "the run's list of sites does not name this one, or names one twice"
    if len(asked) < least:
        return f"the run asks {len(asked)} site{'s' * (len(asked) != 1)}, its policy needs at least {least}"
    added = asked - {site.name} - set(asked if co_sites is None else co_sites)
    if added:
        return f"the run adds {', '.join(sorted(added)[:3])}, which the approval does not name"
    foreign = asked - {site.name} - set(site.policy.co_sites or asked)
    return f"its policy does not name {', '.join(sorted(foreign)[:3])} as a co-site" if foreign else ""
