"""Partition of a dataset's own table into research sites, as a study asks for it."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Field

from flfed.errors import UsageError
from flfed.study.settings import Settings, read_settings


class OrderedHoldout(Settings, where="[dataset] partition: holdout", frozen=True):
    """Holdout of the later rows of each site.

    Attributes
    ----------
    by : str
        A date or number column of the schema, by which a site's rows are in order. Example: `by = "week"`.
    train_share : float in (0, 1) or None
        Share of each site's rows, the earliest ones, that are trained on; rows of one value stay together, on the
        training side. Example: `train-share = 0.5`.
    train_until : str, float or None
        Last value that is trained on, at all sites: a date, or a number. Example: `train-until = "2024-08-31"`.
    same_groups : bool
        Whether a group, such as a device or an engine, may have rows on both sides; else one that is trained on has
        no test rows. Example: `same-groups = true`.
    blocks : str
        Column whose rows of one value are drawn together for intervals; default: the schema's group, else `by`.
        Example: `blocks = "week"`.
    """

    by: str = ""
    train_share: Annotated[float, Field(gt=0, lt=1)] | None = None
    train_until: str | float | None = None
    same_groups: bool = False
    blocks: str = ""

    def __post_init__(self) -> None:
        """Refuse a rule without a column, or without exactly one limit."""
        super().__post_init__()
        if not self.by:
            raise UsageError(f"{self.where}: by is missing: name a date or number column")
        if (self.train_share is None) == (self.train_until is None):
            raise UsageError(f"{self.where}: give train-share or train-until: one of them, and not both")


class Partition(Settings, where="[dataset] partition", frozen=True):
    """Cut of one table into research sites.

    Attributes
    ----------
    by : str
        A column of the schema, or "iid", "dirichlet" (label shares drawn per site) or
        "quantity" (sizes drawn per site). Example: `by = "dirichlet"`.
    sites : int, >= 2
        How many sites; ignored where `by` is a column, which gives a site per value. Example: `sites = 8`.
    alpha : float, > 0
        Concentration of the Dirichlet draw; small is skewed. Example: `alpha = 0.1`.
    seed : int, >= 0
        The cut's own, so that other seeds of the study keep the sites. Example: `seed = 1`.
    widths : tuple of float in (0, 1]
        Share of the hidden units that each site trains, by order of the sites' names, as `width` of an institution's
        policy; empty: all of them at every site. Example: `widths = [1.0, 0.5, 0.5, 0.5]`.
    holdout : OrderedHoldout or None
        Hold out the later rows of each site, by time or another order, instead of rows drawn at random: then no repeat
        draws another holdout. Keys: `by`, a date or number column; `train-share`, the share of each site's rows, the
        earliest, that are trained on, or `train-until`, the last value trained on; `same-groups = true`, where a group
        may stand on both sides; `blocks`, the column whose rows of one value intervals draw together (default: the
        schema's group, else `by`). Example: `holdout = { by = "week", train-share = 0.7 }`.
    least_rows : int, >= 1
        Fewest rows of a site. Example: `least-rows = 3`.
    """

    by: str = "iid"
    sites: Annotated[int, Field(ge=2), "at least 2"] = 4
    alpha: Annotated[float, Field(gt=0)] = 0.5
    seed: Annotated[int, Field(ge=0)] = 0
    widths: tuple[float, ...] = ()
    holdout: OrderedHoldout | None = None
    least_rows: Annotated[int, Field(ge=1)] = 10

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Self:
        """Return the partition of a study's table; raises UsageError."""
        given = dict(given)
        ordered, holdout = given.pop("holdout", None), None
        if ordered is not None:
            if not isinstance(ordered, dict):
                raise UsageError(f"{cls.where}: holdout={ordered!r} must be a table, such as {{ by = 'week', ... }}")
            # A date of TOML is one, and so is its text.
            plain = {key: one.isoformat() if isinstance(one, datetime.date) else one for key, one in ordered.items()}
            holdout = OrderedHoldout(**read_settings(OrderedHoldout, plain, OrderedHoldout.where))
        return cls(**{**read_settings(cls, given, cls.where), "holdout": holdout})

    def __post_init__(self) -> None:
        """Refuse a share that no site can train."""
        super().__post_init__()
        if not all(0 < width <= 1 for width in self.widths):
            raise UsageError(f"[dataset] partition: widths={list(self.widths)} must be above 0 and at most 1")
