"""Columns of a site's own, at its gate: no message before the comparison is another one, and its figures alone are."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flfed import OwnColumn, Study
from flfed.rows.data.site import Site
from flfed.rows.data.sources import Frame
from flfed.updates.messages.compare import COMPARE, CompareReply
from flfed.updates.messages.fields import content_sha256
from tests.approval_text import details

FEWER = {"dataset.features": ["x1", "colour"]}
DECLARED = {**FEWER, "compare.site-columns": True}


@pytest.fixture
def small_sites(small_sites: Callable[..., list[Site]]) -> Callable[..., list[Site]]:
    """Sites as elsewhere, of which the first declares a column that its dataset does not have."""

    def make(count: int, **given: Any) -> list[Site]:
        first, *others = small_sites(count, **given)
        table = first.source.table  # type: ignore[union-attr]
        marker = (table["y"] == "yes") * 0.4 + np.random.default_rng(0).random(len(table)) * 0.6
        own = {"marker": OwnColumn("MARKER", kind="number", range=(0, 1), unit="ng/L")}
        return [replace(first, source=Frame(table.assign(MARKER=marker)), own=own), *others]

    return make


def test_nothing_but_two_arms_of_the_comparison_tells_of_own_columns(
    gated: Any, conducted_through: Any, small_study: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The column's values decide the adjusted model's figures, so that they would show wherever they went."""
    grids = {}
    for name, changes in (("with", DECLARED), ("without", FEWER)):
        monkeypatch.setenv("FLFED_HOME", str(tmp_path / name))  # two machines that know nothing of each other
        outcome, grids[name] = conducted_through(gated(Study.parse(small_study).replace(changes).text))
        assert outcome.status == "completed"
    for asked, other in zip(grids["with"].asked, grids["without"].asked, strict=True):
        assert asked.metadata.message_type == other.metadata.message_type
        assert content_sha256(asked.content) == content_sha256(other.content)
    differing = [
        one.metadata.message_type
        for one, other in zip(grids["with"].replied, grids["without"].replied, strict=True)
        if content_sha256(one.content) != content_sha256(other.content)
    ]
    assert differing == [COMPARE]
    found, plain = (
        next(CompareReply.from_record(one.content) for one in grid.replied if one.metadata.message_type == COMPARE)
        for grid in grids.values()
    )
    figures, known = ({(f.arm, f.metric): f.value for f in reply.arms} for reply in (found, plain))
    changed = {arm for arm, metric in figures if figures[arm, metric] != known.get((arm, metric))}
    assert changed == {"personalised", "local-only-own-columns"}
    assert found.summary is not None and plain.summary is not None
    assert all((value == plain.summary.arrays()[name]).all() for name, value in found.summary.arrays().items())


def test_the_approval_names_them(gated: Any, small_study: str):
    site = gated(Study.parse(small_study).replace(FEWER).text)
    assert "marker" not in " ".join(details(site.study, site.site, []))
    words = " ".join(details(Study.parse(small_study).replace(DECLARED), site.site, []))
    stays = "marker (not for the shared model, only for adjusting it to this site; it is released in no form"
    assert f"{stays}: number, ng/L)" in words
