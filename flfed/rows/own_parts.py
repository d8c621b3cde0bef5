"""What is a site's own of a study's model: a part of it, or one that it trains beside the shared one."""

from __future__ import annotations

from collections.abc import Collection, Generator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from flfed.rows.training.requests import ComputeRequest, FitRequest, Term
from flfed.rows.training.submodel import widened

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
    epochs : int
        Passes over the rows by which the own part is trained before the rest; 0 where both are trained together.
    """

    names: Collection[str] = ()
    part: Arrays = field(default_factory=dict)
    model: Arrays | None = None
    epochs: int = 0

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
        return {name: np.zeros_like(value) if name in self.names else value for name, value in delta.items()}, own


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


def own_part_first(
    request: FitRequest, own: OwnArrays, whole: Arrays
) -> Generator[ComputeRequest, Any, tuple[FitRequest, Arrays]]:
    """Yield the fit of an own part that is trained before the rest.

    Returns the request of the rest, beside the own part as it is then, and what the fit changed of the own part. Where
    both are trained together nothing is yielded, and the request is returned as it came.

    Parameters
    ----------
    request : FitRequest
        Of both, of the part of the hidden units that the site trains.
    own : OwnArrays
    whole : dict of name to array
        The model of all units.
    """
    if not own.epochs:
        return request, {}
    plan = replace(request.plan, epochs=own.epochs, steps=0)
    shared = tuple(name for name in request.arrays if name not in own.names)
    (found,) = yield [replace(request, plan=plan, frozen=shared)]
    moved = {name: found.arrays[name] for name in own.names}
    arrays = {name: value + moved[name] if name in moved else value for name, value in request.arrays.items()}
    # The order of rows goes on from where the first fit left the generator.
    rest = replace(request, arrays=arrays, frozen=(*request.frozen, *own.names))
    return rest, widened(moved, whole)
