"""Secure sums at a site: what an approval decides about them, and the words that are shown before.

A site decides by the sites that it pins, so that no run can turn a study's sums into updates of single sites.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flfed.deployment.cards import is_list, pins_of_cards
from flfed.deployment.site_state.approval import approvals
from flfed.deployment.site_state.trusted_files import own_fingerprint
from flfed.errors import UsageError
from flfed.paths import NAME, SiteFolder
from flfed.records.ledger import ledger_of
from flfed.signatures import read_gate_fingerprint
from flfed.study.kinds import LEAST_PARTIES
from flfed.study.study import Study
from flfed.updates.masking.rules import LEAST, threshold
from flfed.updates.messages.kinds import SUMMARISE, TRAIN
from flfed.words import render, usage_error

LEAVING = tuple(kind.rpartition(".")[2] for kind in (TRAIN, SUMMARISE))
"""Kinds of ledger lines whose messages had updates, or sums of rows."""


@dataclass(frozen=True)
class Agreement:
    """What a site's approval of a study says of secure sums.

    Attributes
    ----------
    sums : bool
        Whether the site's updates leave for sums only.
    pins : dict of site to fingerprint
        Of the sites that take part, this one too where there are sums; without sums, of those that were named.
    lifted : tuple of str
        Sites by which lists may differ, in name order; the site's own name is its own consent.
    """

    sums: bool = False
    pins: dict[str, str] = field(default_factory=dict)
    lifted: tuple[str, ...] = ()


def has_sums(study: Study, taking_part: int) -> bool:
    """Tell whether a study's updates are added up in secret where so many institutions take part.

    Parameters
    ----------
    study : Study
    taking_part : int
        Sites that an approval names, the site itself counted.
    """
    mode = study.aggregation
    return mode.is_required or (mode.is_optional and taking_part >= LEAST)


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


def agreed(folder: SiteFolder, study: Study, sites: Mapping[str, str], without: Collection[str] = ()) -> Agreement:
    """Return what an approval with these sites says of secure sums.

    Parameters
    ----------
    folder : SiteFolder
    study : Study
    sites : mapping of site to fingerprint
        Those that take part, of `read_sites`; the site itself may be among them.
    without : collection of str
        Sites by which lists may differ.

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
    if has_sums(study, len(others) + 1):
        return _agreed_sums(folder, study, others, own, without)
    if without:
        raise usage_error("operator.with.without-sums")
    return Agreement(pins={name: fingerprint for name, fingerprint in others.items() if fingerprint})


def _agreed_sums(
    folder: SiteFolder, study: Study, others: Mapping[str, str], own: str, without: Collection[str]
) -> Agreement:
    """Return what an approval says of sums that a study has, by the fingerprints of the other sites and its own."""
    if without and study.is_covered:
        raise usage_error("operator.with.without-covered")
    pins = _pinned(folder, others, own, LEAST)
    if unknown := sorted(set(without) - pins.keys()):
        raise usage_error("operator.with.without-stranger", name=unknown[0], known=", ".join(sorted(pins)))
    return Agreement(True, pins, tuple(sorted(set(without))))


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
        if study.aggregation.is_optional and n < LEAST:
            return [render("approval.sums.too-few", least=LEAST, n=n)]
        return []
    paragraphs = [_describe_sum(study, site, others)]
    if agreement.pins:
        pins = ", ".join(f"{name} ({agreement.pins[name]})" for name in others)
        paragraphs.append(render("approval.sums.pinned", pins=pins, own=agreement.pins[site]))
    # Where nobody opens a sum to the coordinator, it does not matter by whom two of them differ.
    if study.aggregation.is_encrypted:
        return paragraphs
    paragraphs.append(render("approval.sums.one-list", dataset=study.dataset.name))
    lifted = [name for name in agreement.lifted if name != site]
    if lifted:
        it = lifted[0] if len(lifted) == 1 else "each of them"
        paragraphs.append(render("approval.sums.lifted", sites=", ".join(lifted), it=it))
    if site in agreement.lifted:
        paragraphs.append(render("approval.sums.own-consent", site=site))
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
    least = threshold(n)
    if study.aggregation.is_encrypted:
        first = min([site, *others])
        if first == site:
            first = "this site"
        return render("approval.sums.encrypted", n=n, first=first)
    if study.is_statistic:
        return render("approval.sums.summed-once", n=n, least=least, rest=least - 1)
    return render("approval.sums.summed", n=n, least=least, rest=least - 1)


@dataclass(frozen=True)
class OtherStudy:
    """A study on the same dataset whose updates or sums have left a site.

    Attributes
    ----------
    study : str
    co_sites : tuple of str or None
        The other sites that its approval names; None where there is no approval.
    sums : bool
        Whether its updates left for sums only.
    """

    study: str
    co_sites: tuple[str, ...] | None
    sums: bool


def other_studies(folder: SiteFolder, study: Study, co_sites: Sequence[str], agreement: Agreement) -> list[OtherStudy]:
    """Return the studies whose updates or sums, beside this study's sums, give single updates away.

    They are on the same dataset and left the site with other sites, or not for sums; of the same study too, where it
    was approved otherwise before. Of studies without sums nothing needs to be taken off anything.

    Raises
    ------
    FlfedError
        If the ledger or an approval cannot be read.
    """
    decided = {one.study_sha256: one for one in approvals(folder)}
    now = tuple(sorted(set(co_sites) - {folder.site}))
    # Without sums of any study the ledger is not read: it may be long, and nothing in it could say more.
    if not agreement.sums and not any(one.sums for one in decided.values()):
        return []
    others = []
    for sha256, name in _studies_left(folder, study.dataset.name).items():
        other = OtherStudy(name, None, False)
        if sha256 in decided:
            other = OtherStudy(name, decided[sha256].co_sites, decided[sha256].sums)
        if (other.sums or agreement.sums) and (other.co_sites, other.sums) != (now, agreement.sums):
            others.append(other)
    return sorted(others, key=lambda other: (other.study, other.co_sites or ()))


def _studies_left(folder: SiteFolder, dataset: str) -> dict[str, str]:
    """Return the names of the studies on a dataset of which something left, by their hashes."""
    names_by_hash = {}
    for line in ledger_of(folder).lines():
        if line.kind in LEAVING and line.facts.get("dataset") == dataset:
            name = line.text("study")
            names_by_hash[str(line.facts.get("study-sha256", name))] = name
    return names_by_hash


def describe_others(dataset: str, others: Sequence[OtherStudy]) -> list[str]:
    """Return the paragraph about studies that released something, nothing where there are none.

    Examples
    --------
    >>> describe_others("heart-disease", [OtherStudy("risk", ("basel",), False)])[0].partition(". ")[0]
    'Other studies on heart-disease: risk with basel (each update by itself)'
    """
    if not others:
        return []
    studies = []
    for other in others:
        names = "sites that no approval names"
        if other.co_sites is not None:
            names = ", ".join(other.co_sites) or "no other site"
        how = "sums" if other.sums else "each update by itself"
        studies.append(f"{other.study} with {names} ({how})")
    return [render("approval.sums.other-studies", dataset=dataset, studies="; ".join(studies))]
