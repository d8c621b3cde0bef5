"""Arrays of a strategy beside the model: sent to sites, sent back, and kept at a site."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from flfed import registry
from flfed.study.plan import Plan
from flfed.study.study import Study
from flfed.updates.arrays import Arrays, Shapes, arrays_defect, without_prefix
from flfed.updates.messages.fields import MalformedMessage

STATE_PREFIX = "kept/"
"""Before the names of a strategy's arrays in a site's state of the run."""
OWN = "own/"
"""Before the names of a site's own part of the model, there too."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ExtraShapes:
    """Shape and type of each array that a strategy has beside the model.

    They follow from the model alone, so that a gate knows them before a message comes, and refuses any other.

    Attributes
    ----------
    sent : mapping of name to (shape, dtype)
        With each request to train.
    returned : mapping of name to (shape, dtype)
        With each update. Neither noise, nor masks, nor a codec is put on them: a study that asks for one is refused.
    kept : mapping of name to (shape, dtype)
        At the site, from one of its rounds to the next; in no message.
    own_part : mapping of name to (shape, dtype)
        Arrays of the model of which each site has values of its own. It trains and predicts with these, and in its
        update they are zero. They stay at the site.
    own_model : mapping of name to (shape, dtype)
        The model's arrays, where each site trains a model of its own beside the shared one. They stay at the site.
    """

    sent: Shapes = field(default_factory=dict)
    returned: Shapes = field(default_factory=dict)
    kept: Shapes = field(default_factory=dict)
    own_part: Shapes = field(default_factory=dict)
    own_model: Shapes = field(default_factory=dict)

    @property
    def own(self) -> Shapes:
        """A site's own part of the model, or its own model beside the shared one."""
        return {**self.own_part, **self.own_model}

    @property
    def stay(self) -> bool:
        """Whether a site keeps arrays from round to round."""
        return bool(self.kept or self.own)


@dataclass(frozen=True, kw_only=True, eq=False)
class SiteArrays:
    """Arrays of a strategy that a site has when it trains.

    Nobody may write into them.

    Attributes
    ----------
    received : dict of name to array
        What came with the request.
    kept : dict of name to array
        What the site kept in its last round; empty at first, and where it is lost.
    """

    received: Arrays = field(default_factory=dict)
    kept: Arrays = field(default_factory=dict)


NO_ARRAYS = SiteArrays()
"""Of a strategy without any, and of one that has not begun."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ExtraArrays:
    """Arrays that a strategy makes at a site of an update.

    Attributes
    ----------
    returned : dict of name to array
        For the server, with the update.
    kept : dict of name to array
        For the site's next round.
    """

    returned: Arrays = field(default_factory=dict)
    kept: Arrays = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class LocalUpdate:
    """What training at a site came to, before its update is packed.

    Attributes
    ----------
    delta : dict of name to array
        Local minus global.
    steps : int
        Of the optimiser.
    lr : float
        Learning rate of the round, after schedule and plateau.
    plan : Plan
    """

    delta: Arrays
    steps: int
    lr: float
    plan: Plan


def extra_shapes(study: Study, model: Shapes) -> ExtraShapes:
    """Return the arrays that a study's strategy has beside a model."""
    shapes: ExtraShapes = registry.load("strategy", study.strategy.name).extra_shapes(model)
    return shapes


def own_facts(shapes: ExtraShapes) -> dict[str, Any]:
    """Return what a run's record says of sites' own parts of the model: which arrays, and whether they stand beside."""
    return {"arrays": list(shapes.own), "beside": bool(shapes.own_model)} if shapes.own else {}


def site_arrays(received: Arrays, state: Arrays, shapes: ExtraShapes) -> SiteArrays:
    """Return a strategy's arrays at a site, of a request and of the site's state.

    Raises
    ------
    MalformedMessage
        If what came is not what the strategy sends: the site would take part in another algorithm.
    """
    if defect := arrays_defect(received, shapes.sent):
        raise MalformedMessage(defect)
    state_arrays = without_prefix(STATE_PREFIX, state)
    if arrays_defect(state_arrays, shapes.kept):
        state_arrays = {}
    return SiteArrays(received=received, kept=state_arrays)


def own_arrays(state: Arrays, shapes: ExtraShapes) -> Arrays:
    """Return what a site has of its own of the model.

    None before it trained, and where it is lost.
    """
    arrays = without_prefix(OWN, state)
    return {} if arrays_defect(arrays, shapes.own) else arrays


def client_terms(strategy: type[Any], settings: Mapping[str, float], arrays: SiteArrays) -> tuple[Any, Arrays]:
    """Return the gradients that a strategy adds at a site: functions, and the sum of constant ones by array name."""
    terms = strategy.client_terms
    return _parted(terms(settings, arrays)) if _takes_arrays(terms) else _parted(terms(settings))


def own_terms(
    strategy: type[Any], settings: Mapping[str, float], start: Arrays, incoming: Arrays
) -> tuple[Any, Arrays]:
    """Return the gradients that a strategy adds to those of a site's own model, as `client_terms` does."""
    return _parted(strategy.own_terms(settings, start, incoming))


def _parted(terms: tuple[Any, ...]) -> tuple[Any, Arrays]:
    """Return the terms that are functions, and the sum of those that are constant in a round."""
    constant: Arrays = {}
    for term in terms:
        if not isinstance(term, Mapping):
            continue
        for name, value in term.items():
            constant[name] = constant[name] + value if name in constant else value
    return tuple(term for term in terms if not isinstance(term, Mapping)), constant


@cache
def _takes_arrays(terms: Any) -> bool:
    """Return whether a strategy's terms are made of arrays too: one without any takes the settings alone."""
    return len(inspect.signature(terms).parameters) > 1
