"""Context of a run for strategies, and round records."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from flfed.refusals import BUDGET, Refusal
from flfed.seeds import generator
from flfed.study.plan import Plan
from flfed.summaries.summary import Encoder
from flfed.updates.mechanism import Mechanism, Normals
from flfed.updates.messages.fields import Arrays
from flfed.updates.messages.train import Scores


@dataclass(frozen=True, kw_only=True)
class Participant:
    """A site that takes part in a run.

    Attributes
    ----------
    node_id : int
    rows_high : int
        Upper end of the band of rows it declared.
    version : str
        Of its flfed, as it said; what is new in a message goes to those alone that read it.
    """

    node_id: int
    rows_high: int
    version: str = ""


@dataclass(frozen=True, kw_only=True)
class RoundRecord:
    """Record of one round, for observers.

    No arrays of any site are in it.

    Attributes
    ----------
    round : int
        From 1; `rounds + 1` is the last evaluation, without training.
    model_round : int
        After how many rounds of training the model that was scored came: `round - 1`.
    arrays : dict of name to array
        The global model after the round.
    scores, holdout : dict of site to Scores
        Of the model that came into the round, on validation (or training) and on holdout rows.
    losses : dict of site to float or None
        Mean training loss over the steps of each site that trained; None where the site keeps it.
    refused, flagged : dict of site to Refusal
    asked : tuple of str
    bytes_to_site, bytes_to_server : dict of site to int
    seconds : float
    fit : bool
        Whether the sites were asked to train, not only to score.
    """

    round: int
    model_round: int
    arrays: Arrays
    scores: Mapping[str, Scores]
    holdout: Mapping[str, Scores]
    losses: Mapping[str, float | None]
    refused: Mapping[str, Refusal]
    flagged: Mapping[str, Refusal]
    asked: tuple[str, ...]
    bytes_to_site: Mapping[str, int]
    bytes_to_server: Mapping[str, int]
    seconds: float
    fit: bool = True


Observer = Callable[[RoundRecord], None]


def ignore(record: RoundRecord) -> None:
    """Observe nothing."""


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """Context that a run gives its strategy.

    Attributes
    ----------
    participants : dict of site name to Participant
    encoder : Encoder
    plan : Plan
    rounds : int
    seed : int
    observer : callable
        Told each round once it is complete.
    in_sums_only : frozenset of str
        Sites of the run whose figures go into sums over sites only, as `summable` says.
    mechanism : Mechanism
        What is done to a round's updates before the strategy sees them; one that changes nothing by default.
    chance : callable (round) → Normals, optional
        Where the server's own noise comes from; by default it follows from the seed and the round.
    outputs : int
        Of the model, where sites are asked for their offsets after the last round; 0 where they are not.
    """

    participants: Mapping[str, Participant]
    encoder: Encoder
    plan: Plan
    rounds: int
    seed: int
    observer: Observer = field(default=ignore)
    in_sums_only: frozenset[str] = frozenset()
    mechanism: Mechanism = field(default_factory=Mechanism)
    chance: Callable[[int], Normals] | None = None
    outputs: int = 0

    def normals(self, round: int) -> Normals:
        """Return the server's noise source for a round."""
        # Institutions draw noise of their system's own, which nobody can draw again.
        if self.chance is not None:
            return self.chance(round)
        return generator(self.seed, site="", purpose="server-noise", number=round).standard_normal


def why_stopped(number: int, good: int, asked: int, needed: int, refused: Mapping[str, Refusal]) -> str:
    """Return why a run ends below its quorum.

    Sites that have no privacy budget left are named first.

    Parameters
    ----------
    number : int
        The round.
    good, asked, needed : int
        Updates.
    refused : mapping of site to Refusal

    Examples
    --------
    >>> why_stopped(3, 1, 2, 2, {"a": Refusal("no-reply")})
    'round 3 had 1 good updates of 2 asked, 2 are needed (a: no reply before the deadline)'
    """
    # A spent budget goes before all else, since no further attempt can help.
    reasons = "; ".join(f"{site}: {reason}" for site, reason in refused.items())
    said = f"round {number} had {good} good updates of {asked} asked, {needed} are needed ({reasons})"
    spent = [site for site, reason in refused.items() if reason.code in BUDGET]
    return Refusal("none-left", sites=", ".join(spent), why=said) if spent else said


def summable(sites: Collection[str], in_sums_only: frozenset[str]) -> list[str]:
    """Return the sites whose figures may be added up.

    They are some of `sites`, in their order.

    Parameters
    ----------
    sites : collection of str
        That have the figure.
    in_sums_only : frozenset of str
        All sites of the run whose own figures nobody may know.

    Notes
    -----
    Such sites count all together or not at all, and only where they are at least two: of one, the
    figure would be the sum less that of the others; of some of them, two sums over the same model
    that differ by one site would tell it.

    Examples
    --------
    >>> summable("abc", frozenset("bc")), summable("ab", frozenset("bc")), summable("ab", frozenset("b"))
    (['a', 'b', 'c'], ['a'], ['a'])
    """
    # Sites in sums only count together or not at all: a difference of two sums would tell of one.
    if len(in_sums_only) > 1 and in_sums_only.issubset(sites):
        return list(sites)
    return [site for site in sites if site not in in_sums_only]
