"""Rules of secure aggregation: which sites may be summed, and what a site opens for it.

They are functions of names alone, so that a test can play them against a server that lies. A *list* has the sites
whose vectors one sum adds up; a *question* is the request for rows, whatever run sends it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import chain

from flfed.refusals import Refusal

LEAST = 3
"""Sites of a sum: of two, each would know the other's vector."""
PERCENT = 67
"""Share of the pinned sites that any sum needs more of. Two lists of so many have honest sites in common as long as
at most a third of the pinned sites work for the server."""

Sites = frozenset[str]


def threshold(pinned: int) -> int:
    """Return the sites that a cohort, a list and a set of shares need, of those that are pinned.

    Parameters
    ----------
    pinned : int
        Sites whose keys an approval pins, the site itself counted. Of the pinned and not of the cohort, since the
        server chooses the cohort.

    Examples
    --------
    >>> [threshold(pinned) for pinned in (3, 4, 5, 7, 10, 20, 100)]
    [3, 3, 4, 5, 7, 14, 68]
    """
    return max(LEAST, PERCENT * pinned // 100 + 1)


def have_honest_opener(pinned: Collection[str], before: Collection[str]) -> bool:
    """Return whether one honest site at least opens any two lists, of the pinned sites of two approvals.

    Each list needs its threshold of them, and at most a third of either is taken to work for the server.

    Parameters
    ----------
    pinned, before : collection of str
        Sites whose keys an approval pins.

    Examples
    --------
    >>> have_honest_opener("abcd", "abcde"), have_honest_opener("abcd", "abce")
    (True, False)
    """
    everybody = len({*pinned, *before})
    openers_of_both = threshold(len(pinned)) + threshold(len(before)) - everybody
    return openers_of_both > min(len(pinned), len(before)) // 3


def cohort_refusal(site: str, cohort: Collection[str], pinned: Collection[str]) -> Refusal | None:
    """Return why a site makes no keys with a cohort, None where it does.

    Parameters
    ----------
    site : str
    cohort : collection of str
        Sites that enrolled at the start of the run, this one too.
    pinned : collection of str
        Sites whose keys the approval pins, this one too.
    """
    if site not in cohort:
        return Refusal("cohort-without-site")
    if stranger := min(set(cohort) - set(pinned), default=""):
        return Refusal("cohort-not-pinned", site=stranger)
    least = threshold(len(pinned))
    if len(cohort) >= least:
        return None
    return Refusal("cohort-small", had=len(cohort), least=least)


def answer_refusal(
    *,
    cohort: Collection[str],
    pinned: Collection[str],
    earlier_lists: Iterable[Collection[str]],
    opened: Collection[Sites],
) -> Refusal | None:
    """Return why a site masks no answer to a question, None where it does.

    Lists of two runs may have no honest opener in common where their approvals pin other sites. Where a question comes
    from such others, the site's list must be there already, and stay within the run.

    Parameters
    ----------
    cohort : collection of str
        Of the run.
    pinned : collection of str
        Sites whose keys the approval pins.
    earlier_lists : iterable of collection of str
        The pinned sites of each run in which this site answered the question.
    opened : collection of frozenset of str
        Lists that the site has confirmed or opened for the question.
    """
    if all(have_honest_opener(pinned, before) for before in earlier_lists):
        return None
    within = opened and all(before <= set(cohort) for before in opened)
    if within:
        return None
    return Refusal("question-of-others")


def lifted_sites(allowed: Mapping[str, Collection[str]]) -> Sites:
    """Return by which sites the lists of a question may differ.

    Parameters
    ----------
    allowed : mapping of site to collection of str
        By which sites each of the cohort lets lists differ, by its statement. A site that names itself consents; who
        does not is lifted where every other site names it. One alone cannot: the server may show it the first list,
        and the second to those who know of none.

    Examples
    --------
    >>> sorted(lifted_sites({"a": ["a", "b"], "b": [], "c": ["b", "d"]}))
    ['a', 'b']
    """
    named = set[str]().union(*allowed.values())
    return frozenset(name for name in named if _lifts(name, allowed))


def _lifts(name: str, allowed: Mapping[str, Collection[str]]) -> bool:
    """Return whether a site allows itself, or all others allow it."""
    return name in allowed.get(name, ()) or all(name in theirs for site, theirs in allowed.items() if site != name)


def may_open(listed: Sites, opened: Iterable[Sites], lifted: Collection[str]) -> bool:
    """Return whether a list goes with those that a site opened for the same question.

    Two sums of one question give away who is in one of them only, unless this was allowed. Of two lists one has the
    other within it. Else three of them could take all lifted sites out of a sum, and leave fewer others than it needs.

    Parameters
    ----------
    listed : frozenset of str
    opened : iterable of frozenset of str
        For the same question, in whatever run.
    lifted : collection of str
        As `lifted_sites` returns them.

    Examples
    --------
    >>> abc, abcd = frozenset("abc"), frozenset("abcd")
    >>> may_open(abc, [abc], ""), may_open(abcd, [abc], ""), may_open(abcd, [abc], "d")
    (True, False, True)
    >>> may_open(abc, [frozenset("abd")], "cd")
    False
    """
    return all(before ^ listed <= set(lifted) and (before <= listed or listed <= before) for before in opened)


def list_refusal(
    site: str,
    listed: Sites,
    *,
    cohort: Collection[str],
    least: int,
    opened: Collection[Sites],
    lifted: Collection[str] = (),
    newest: bool = True,
    after_loss: bool = False,
) -> Refusal | None:
    """Return why a site neither confirms nor opens a list, None where it does.

    Parameters
    ----------
    site : str
    listed : frozenset of str
        Sites that are to be summed.
    cohort : collection of str
        Of the run.
    least : int
        The threshold of the pinned sites.
    opened : collection of frozenset of str
        Lists that the site has confirmed or opened for the question.
    lifted : collection of str
        As in `may_open`; none where lists of the pinned sites that it answered with need no honest opener in common.
    newest : bool
        Whether no later run has the site's answer to the question. In that answer the site said which lists it has
        opened, and the later run's server counts on it. So the run is noted before these lists are read. Later is what
        began later, repeats and rounds of one run too: by the order in which a site was asked, two runs at once could
        bind two sites to two lists for ever. A run that has its keys at one site before another one enrols there is at
        no site the later of the two by this order. All had enrolled for it by then.
    after_loss : bool
        Whether the site has lost a ledger, so that it does not know all lists that it opened, and the list is not of
        all pinned sites. Each of these that is honest and knows its lists keeps to them.
    """
    if site not in listed:
        return Refusal("list-without-site")
    if not listed <= set(cohort):
        return Refusal("list-outside-cohort")
    if len(listed) < least:
        return Refusal("list-small", had=len(listed), least=least)
    if listed in opened:
        return None
    if not may_open(listed, opened, lifted):
        return Refusal("list-differs")
    if after_loss:
        return Refusal("list-after-loss")
    if newest:
        return None
    return Refusal("list-of-earlier-run")


def opening_refusal(
    site: str, listed: Sites, *, cohort: Collection[str], least: int, confirmed: Collection[str]
) -> Refusal | None:
    """Return why a site gives neither shares nor seeds for a list that it may open, None where it does.

    The whole cohort needs no confirmation: its sum needs no seed of anybody.

    Parameters
    ----------
    site : str
    listed : frozenset of str
        One that `list_refusal` does not refuse.
    cohort : collection of str
    least : int
    confirmed : collection of str
        Sites whose confirmation of this very list is right; the site's own counts without.
    """
    if listed == set(cohort):
        return None
    had = len(listed & {site, *confirmed})
    if had >= least:
        return None
    return Refusal("list-unconfirmed", had=had, least=least)


def choose_list(
    answered: Mapping[str, Collection[Sites]],
    *,
    cohort: Collection[str],
    least: int,
    lifted: Mapping[str, Collection[str]] | None = None,
) -> Sites | Refusal:
    """Return the list that a server has opened, or why there is none.

    Parameters
    ----------
    answered : mapping of site to collection of frozenset of str
        Sites whose vectors came, with the lists that each has opened for the question.
    cohort : collection of str
    least : int
    lifted : mapping of site to collection of str, optional
        As `lifted_sites` returns them to each site.

    Notes
    -----
    All that answered go first: so a site that consents joins. A list that was opened before is next, without the sites
    that are missing where they are lifted. Of all lists that servers chose by this rule for a question, the last one
    can be opened as soon as its sites answer. None of them can be bound to another by then.
    """
    lifts = lifted or {}
    # The larger list first, and one order for all servers.
    lists = list(chain.from_iterable(answered.values()))
    members = frozenset(chain.from_iterable(lists))
    named = sorted({one.intersection(answered) for one in lists}, key=lambda one: (-len(one), sorted(one)))
    unbound = frozenset(site for site, lists in answered.items() if not lists)
    for listed in (frozenset(answered), *named, unbound):
        if len(listed) >= least and all(may_open(listed, answered[site], lifts.get(site, ())) for site in listed):
            return listed
    return _why_none(members, answered, cohort, least)


def _why_none(
    members: Sites, answered: Mapping[str, Collection[Sites]], cohort: Collection[str], least: int
) -> Refusal:
    """Return why a server has opened none of the lists that sites know.

    `members` are the sites of these.
    """
    if gone := sorted(members - set(cohort)):
        return Refusal("list-site-gone", sites=", ".join(gone[:3]))
    silent = sorted(set(cohort) - answered.keys())
    if not silent:
        return Refusal("lists-apart", had=len(answered))
    away = sorted(members & set(silent))
    if away and len(answered) >= least:
        return Refusal("list-site-away", sites=", ".join(away[:3]))
    return Refusal("list-site-silent", sites=", ".join(silent[:3]), had=len(answered), least=least)
