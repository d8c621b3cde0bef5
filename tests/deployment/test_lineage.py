"""Which runs had some people's rows in them, and what a model is without these."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pandas as pd
import pytest

from flfed.deployment.site_state.lineage import lineage, unlisted
from flfed.errors import UsageError
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site
from flfed.rows.data.sources import Frame
from flfed.rows.snapshots.opt_outs import ANY, Excluded
from flfed.study.study import Study
from tests.deployment.summing import Consortium, Coordinator
from tests.federation.test_analysis import STUDY as ANALYSIS

Small = Callable[..., list[Site]]


def people(*names: str, column: str = "person") -> Excluded:
    return Excluded(column, frozenset(names))


def test_a_site_names_the_runs_that_had_someones_rows_and_no_others(small_sites: Small, small_study: str):
    gated = Consortium(small_sites(3, rows=120, policy=Policy()), Study.parse(small_study))
    for name in gated.sites:
        gated.approve(name, sums=False, pins={})
    coordinator = Coordinator(gated)
    ended = coordinator.run()
    assert ended.status == "completed", ended.reason
    site = gated.sites["site-01"]
    table = site.read()
    everybody = pd.concat([table.training, table.holdout("test")])
    for side, rows in (("training", table.training), ("test", table.holdout("test"))):
        (found,) = lineage(site, people(*rows["person"].iloc[3:5]))
        assert (found.run, found.repeat, found.study) == (ended.run, 0, gated.study.name)
        assert found.sides == {side: 2}
    assert len(everybody) >= 100
    with pytest.raises(UsageError, match="of 1 identifier on the list of people, 0 are in column .person."):
        lineage(site, people("nobody-here"))
    assert lineage(site, replace(people("nobody-here"), allowed=ANY)) == []
    # Whoever came later was in no run, though a row of theirs is in the table now.
    raw = site.source.read(())
    later = Site(**{**vars(site), "source": Frame(pd.concat([raw, raw.iloc[:1].assign(person="new", x1=1.25)]))})
    assert lineage(later, people("new")) == []
    written = [path for path in gated.folders["site-01"].gate.rglob("*") if path.is_file() and path.suffix != ".csv"]
    kept = b"".join(path.read_bytes() for path in written if "frozen" not in path.parts)
    assert str(everybody["person"].iloc[0]).encode() not in kept


def test_runs_that_keep_no_list_of_people_are_named_as_such(small_sites: Small, small_study: str):
    analysis = Study.parse(ANALYSIS)
    sites = small_sites(3, rows=120, policy=Policy())
    listed = Consortium(sites, Study.parse(small_study))
    for name in listed.sites:
        listed.approve(name, sums=False, pins={})
    ended = Coordinator(listed).run()
    assert unlisted(sites[0]) == {} and lineage(sites[0], people("P0-0001"))[0].run == ended.run
    charged = Consortium(sites, analysis)
    for name in charged.sites:
        charged.approve(name, sums=False, pins={})
    counted = Coordinator(charged).run()
    # Whoever was in the table was counted: no list of them could be kept that follows from no exact rows.
    assert unlisted(sites[0]) == {counted.run: analysis.name}
    assert {one.run for one in lineage(sites[0], people("P0-0001"))} == {ended.run}


def test_of_open_data_no_record_is_kept_and_a_wrong_list_is_refused(small_sites: Small):
    with pytest.raises(UsageError, match="its policy is 'open'"):
        lineage(small_sites(1)[0], people("P0-0001"))
