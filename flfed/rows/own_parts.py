"""What is a site's own of a study's model: a part of it, or one that it trains beside the shared one."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np

from flfed.rows.training.requests import Term

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True, eq=False)
class OwnArrays:
    """What a site has of its own of a study's model; it is in no message.

    Attributes
    ----------
    names : collection of str
        Arrays of the model that are the site's own, also before it has values of them.
    part : dict of name to array
        Its values of them, with which it trains and predicts, whatever comes under the names.
    model : dict of name to array, or None
        A model of its own, trained beside the shared one; it is the site's personalised model then.
    """

    names: Collection[str] = ()
    part: Arrays = field(default_factory=dict)
    model: Arrays | None = None

    def at_site(self, arrays: Arrays) -> Arrays:
        """Return a shared model as it is at the site: with the site's own part in place of what came."""
        return {**arrays, **self.part} if self.part else arrays

    def parted(self, start: Arrays, delta: Arrays, beside: Arrays) -> tuple[Arrays, Arrays]:
        """Return an update in which the own part is zero, and what is the site's own after the round.

        Parameters
        ----------
        start, delta : dict of name to array
            Where training began, and what it changed.
        beside : dict of name to array
            What it changed of the site's own model; empty without one.
        """
        own = {name: start[name] + delta[name] for name in self.names}
        own |= {name: value + beside[name] for name, value in (self.model or {}).items()}
        return delta | {name: np.zeros_like(delta[name]) for name in self.names}, own


@dataclass(frozen=True, kw_only=True, eq=False)
class AddedGradients:
    """Gradients that a strategy adds in each step of a fit.

    Attributes
    ----------
    terms : tuple of Term
    correction : dict of name to array
        A constant one; empty where there is none.
    """

    terms: tuple[Term, ...] = ()
    correction: Arrays = field(default_factory=dict)


NOTHING_ADDED = AddedGradients()
