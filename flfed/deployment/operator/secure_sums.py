"""Secure sums at a site: what an approval decides about them, and the words that are shown before.

A site decides by the sites that it pins, so that no run can turn a study's sums into updates of single sites.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flfed.deployment.cards import is_list, pins_of_cards
from flfed.deployment.site_state.cohorts import COHORT_SHA256, cohort_facts, cohort_refusal
from flfed.deployment.site_state.trusted_files import own_fingerprint
from flfed.errors import UsageError
from flfed.paths import NAME, SiteFolder
from flfed.records.site_state import reading
from flfed.signatures import read_gate_fingerprint
from flfed.study.kinds import LEAST_PARTIES
from flfed.study.study import Study
from flfed.updates.masks.pairs import LEAST_SITES
from flfed.updates.messages.kinds import TRAIN, asks
from flfed.words import render, usage_error


@dataclass(frozen=True)
class Agreement:
    """What a site's approval of a study says of secure sums.

    Attributes
    ----------
    sums : bool
        Whether the site's updates leave for sums only.
    pins : dict of site to fingerprint
        Of the sites that take part, this one too where there are sums; without sums, of those that were named.
    changed_sites : bool
        Whether the dataset's sums may be over other sites than before.
    """

    sums: bool = False
    pins: dict[str, str] = field(default_factory=dict)
    changed_sites: bool = False


def has_sums(study: Study, taking_part: int) -> bool:
    """Tell whether a study's updates are added up in secret where so many institutions take part.

    Parameters
    ----------
    study : Study
    taking_part : int
        Sites that an approval names, the site itself counted.
    """
    mode = study.aggregation
    return mode.is_required or (mode.is_optional and taking_part >= LEAST_SITES)


def pins_sites(study: Study, taking_part: int) -> bool:
    """Tell whether an approval pins the gates of all sites: for secure sums, and for parties with other columns."""
    return study.is_vertical or has_sums(study, taking_part)


def read_sites(text: str) -> dict[str, str]:
    """Return sites with the fingerprints of their gates, empty texts where none is named.

    Raises
    ------
    UsageError
        If a name or a fingerprint is not of its form, or a site has two.

    Examples
    --------
    >>> read_sites("basel, lyon")
    {'basel': '', 'lyon': ''}
    """
    pins: dict[str, str] = {}
    for part in text.split(","):
        name, named, digits = (word.strip() for word in part.partition("="))
        if not NAME.fullmatch(name):
            raise usage_error("operator.with.name", name=name)
        try:
            fingerprint = read_gate_fingerprint(digits) if named else ""
        except UsageError as error:
            raise usage_error("operator.with.fingerprint", name=name, why=error) from None
        if pins.get(name, fingerprint) != fingerprint:
            raise usage_error("operator.with.twice", name=name)
        pins[name] = fingerprint
    return pins


def named_sites(folder: SiteFolder, study: Study, text: str) -> dict[str, str]:
    """Return the sites of an approval with their fingerprints: by --with, by a list of cards, or else the study's.

    Parameters
    ----------
    folder : SiteFolder
    study : Study
    text : str
        Names, names with fingerprints, or the path of a list of cards; may be empty.

    Raises
    ------
    UsageError
        As `read_sites`; as `pins_of_cards` for a list.
    """
    if is_list(text):
        return pins_of_cards(folder, Path(text), study.dataset.sites or ())
    if text:
        return read_sites(text)
    return dict.fromkeys(study.dataset.sites or (), "")


def agreed(folder: SiteFolder, study: Study, sites: Mapping[str, str], *, changed_sites: bool = False) -> Agreement:
    """Return what an approval with these sites says of secure sums.

    Parameters
    ----------
    folder : SiteFolder
    study : Study
    sites : mapping of site to fingerprint
        Those that take part, of `read_sites`; the site itself may be among them.
    changed_sites : bool
        Whether the dataset's sums may be over other sites than before, or leave another way.

    Raises
    ------
    UsageError
        If the study would have sums that this approval gives no right to; what to do is said.
    """
    own = own_fingerprint(folder)
    if sites.get(folder.site) not in (None, "", own):
        raise usage_error("operator.with.own", name=folder.site, own=own or "not made yet")
    others = {name: sites[name] for name in sorted(sites) if name != folder.site}
    if study.is_vertical:
        return Agreement(pins=_pinned(folder, others, own, LEAST_PARTIES))
    sums = has_sums(study, len(others) + 1)
    pins = {name: fingerprint for name, fingerprint in others.items() if fingerprint}
    if sums:
        pins = _pinned(folder, others, own, LEAST_SITES)
    facts = cohort_facts(pins, changed=changed_sites) if sums else {}
    dataset = study.dataset.name
    if asks(study, TRAIN) or study.is_statistic:
        with reading(folder) as tables:
            cohort = str(facts.get(COHORT_SHA256, ""))
            why = None if tables is None else cohort_refusal(tables, dataset, cohort, changed=changed_sites)
        if why:
            raise usage_error("operator.with.other-cohort", why=why, site=folder.site)
    return Agreement(sums, pins, changed_sites)


def sums_cohort(site: str, co_sites: Sequence[str], agreement: Agreement) -> dict[str, Any]:
    """Return the ledger's facts of the cohort of an agreement, empty without sums; names stand for missing pins."""
    if not agreement.sums:
        return {}
    return cohort_facts(agreement.pins or dict.fromkeys([site, *co_sites], ""), changed=agreement.changed_sites)


def _pinned(folder: SiteFolder, others: Mapping[str, str], own: str, least: int) -> dict[str, str]:
    """Return the fingerprints of all sites, this one's too; raises UsageError where one is missing or twice there."""
    _check_named(others, least)
    if not own:
        raise usage_error("operator.with.keyless", site=folder.site)
    pins = {**others, folder.site: own}
    if same := [name for name, fingerprint in pins.items() if list(pins.values()).count(fingerprint) > 1]:
        raise usage_error("operator.with.same", names=" and ".join(same))
    return dict(sorted(pins.items()))


def _check_named(others: Mapping[str, str], least: int) -> None:
    """Raise where too few other sites are named, or one without the fingerprint of its gate."""
    if not others and least == LEAST_PARTIES:
        raise usage_error("operator.with.few-parties")
    if len(others) + 1 < least:
        raise usage_error("operator.with.few", least=least)
    if missing := [name for name, fingerprint in others.items() if not fingerprint]:
        named = ",".join(f"{name}={fingerprint or 'FINGERPRINT'}" for name, fingerprint in others.items())
        raise usage_error("operator.with.missing", names=", ".join(missing), sites=named)


def describe_sums(study: Study, site: str, co_sites: Sequence[str], agreement: Agreement) -> list[str]:
    """Return what to know of secure aggregation before an approval, a paragraph each; nothing where there is none."""
    others = sorted(set(co_sites) - {site})
    n = len(others) + 1
    if not agreement.sums:
        if study.aggregation.is_optional and n < LEAST_SITES:
            return [render("approval.sums.too-few", least=LEAST_SITES, n=n)]
        return []
    paragraphs = [_describe_sum(study, site, others)]
    if agreement.pins:
        pins = ", ".join(f"{name} ({agreement.pins[name]})" for name in others)
        paragraphs.append(render("approval.sums.pinned", pins=pins, own=agreement.pins[site]))
    paragraphs.append(render("approval.sums.cohort", dataset=study.dataset.name))
    if agreement.changed_sites:
        paragraphs.append(render("approval.sums.changed", dataset=study.dataset.name))
    return paragraphs


def describe_parties(study: Study, co_sites: Sequence[str], agreement: Agreement) -> list[str]:
    """Return what to know of the parties of a run over different columns, a paragraph each; nothing of another."""
    pinned = [name for name in sorted(co_sites) if name in agreement.pins]
    if not study.is_vertical or not pinned:
        return []
    pins = ", ".join(f"{name} ({agreement.pins[name]})" for name in pinned)
    return [render("approval.vertical.sealed"), render("approval.vertical.pinned", pins=pins)]


def _describe_sum(study: Study, site: str, others: Sequence[str]) -> str:
    """Return how updates are added up, and who could open one."""
    n = len(others) + 1
    if study.aggregation.is_encrypted:
        first = min([site, *others])
        if first == site:
            first = "this site"
        return render("approval.sums.encrypted", n=n, first=first)
    if study.is_statistic:
        return render("approval.sums.summed-once", n=n)
    return render("approval.sums.summed", n=n)
