"""A coordinator that shows another total than it added: no site makes cut points, trees or coefficients of it."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from flfed.errors import FlfedError
from flfed.rows.data.site import Site
from flfed.study.study import Study
from flfed.updates.aggregation.summer import Summer
from flfed.updates.masks import verify
from tests.boosting import trees_study
from tests.deployment.summing import Consortium, Coordinator
from tests.deployment.test_visits_at_the_gate import institutions

UNVERIFIED = "what came as the last sum is not that of one answer of each site"


@pytest.fixture
def consortium(small_sites: Callable[..., list[Site]], small_study: str) -> Callable[[str], Consortium]:
    """A function that returns sites that approved a study of trees, or of a statistic, with sums."""

    def make(kind: str) -> Consortium:
        if kind == "visit":
            return institutions(small_sites(3, rows=200))
        asked = {"secure-aggregation": "on", "strategy.rounds": 2, "model.depth": 2}
        return Consortium(small_sites(4, rows=70), Study.parse(trees_study(small_study, **asked)))

    return make


def change(patch: pytest.MonkeyPatch, number: int) -> None:
    """Show the sum of that number with one of its numbers changed, and its sum of tags."""
    add, added = Summer.add, list[int]()

    def shown(summer: Summer, vectors: Any) -> Any:
        totals = add(summer, vectors)
        added.append(1)
        if len(added) == number and summer.total is not None:
            sums = summer.total.sums.copy()
            sums[2] += np.uint64(1)
            summer.total = replace(summer.total, sums=sums)
        return totals

    patch.setattr(Summer, "add", shown)


PLAYS = {
    "sums over rows": ("trees", 1), "rows by cell": ("trees", 2), "roots": ("trees", 3), "a level": ("trees", 4),
    "a visit": ("visit", 1), "a later visit": ("visit", 2),
}  # fmt: skip
"""Which sum is shown otherwise, and in which study."""


@pytest.mark.parametrize("play", PLAYS)
def test_nothing_is_made_of_another_total(consortium: Any, play: str, monkeypatch: pytest.MonkeyPatch):
    kind, number = PLAYS[play]
    found = consortium(kind)
    change(monkeypatch, number)
    coordinator = Coordinator(found)
    with suppress(FlfedError):
        assert coordinator.run().status == "stopped"
    refused = {site: reply.error.reason for site, _, reply in coordinator.grid.sent if reply.has_error()}
    assert refused.keys() == found.sites.keys()
    assert all(UNVERIFIED in why or "this site's part of the run is over" in why for why in refused.values()), refused


@pytest.mark.parametrize("play", ["rows by cell", "a visit"])
def test_where_no_tag_is_checked_it_is_made(consortium: Any, play: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(verify, "compute_tag", lambda *given: 0)
    kind, number = PLAYS[play]
    found = consortium(kind)
    change(monkeypatch, number)
    assert Coordinator(found).run().status == "completed"
