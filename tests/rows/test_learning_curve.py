"""Few rows of a site: which they are, and that nothing of them is scored but at the end."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from flfed.federation.server.learning_curve import federate
from flfed.rows.comparison.learning_curve import cut, order_of_rows
from flfed.rows.data.site import Site
from flfed.rows.data.sources import Frame
from flfed.rows.features.encode import encode
from flfed.rows.session import SiteSession
from flfed.study.study import Study


@pytest.fixture
def place(small_sites, small_study) -> SiteSession:
    """A site of 60 rows at work."""
    return SiteSession(small_sites(1)[0], Study.parse(small_study))


def test_sizes_of_a_draw_are_nested_and_keep_order_and_holdout(place):
    order, whole = order_of_rows(place), place.table.training
    few, more = (cut(place, order, rows).table for rows in (10, 20))
    assert (len(few.training), len(more.training)) == (10, 20)
    assert set(few.training["person"]) < set(more.training["person"]) < set(whole["person"])
    positions = whole.reset_index().set_index("person").loc[more.training["person"], "index"]
    assert positions.is_monotonic_increasing
    pd.testing.assert_frame_equal(few.holdout("compare"), place.table.holdout("compare"))
    # what a cut site knows of its columns is what its table says, row by row
    site = cut(place, order, 20)
    direct = encode(more.training, place.layout, place.own_encoder())
    np.testing.assert_array_equal(site.encode(site.table.training, place.own_encoder()).x, direct.x)


def test_every_row_is_as_likely_to_be_kept_as_any_other(small_sites, small_study):
    site, study = small_sites(1)[0], Study.parse(small_study)
    table = site.read()
    rows, times = len(table.training), 600
    kept = np.zeros(rows)
    for draw in range(times):
        kept[order_of_rows(SiteSession(site, study, draw, table=table))[:10]] += 1
    # Each row is kept in 10 / rows of the draws; 5 standard deviations of a binomial count
    share = 10 / rows
    assert np.abs(kept - times * share).max() < 5 * np.sqrt(times * share * (1 - share))


def test_few_rows_of_patients_with_several_are_those_of_few_patients(place):
    visits = place.table.training.assign(person=[f"P{n // 4:02d}" for n in range(len(place.table.training))])
    grouped = SiteSession(place.site, place.study, table=replace(place.table, training=visits))
    grouped.schema = place.schema.model_copy(update={"group": "person"})
    order = order_of_rows(grouped)
    kept = visits.iloc[order[:12]]
    assert sorted(order) == list(range(len(visits)))
    assert kept["person"].nunique() == 3  # of four visits each


def test_a_rerun_opens_no_holdout_by_round(small_sites, small_study):
    study = Study.parse(small_study).replace({"compare.holdout-curve": True, "rounds": 2})
    opened = {}
    for rerun in (False, True):
        places = {site.name: SiteSession(site, study, validation_only=rerun) for site in small_sites(2)}
        summaries = {site: place.summary() for site, place in places.items()}
        arrays, *_ = federate(study, 0, places, summaries)
        opened[rerun] = ([place.table.opened for place in places.values()], arrays)
    # the ordinary site scores its holdout in both rounds and at the end
    assert opened[False][0] == [["holdout-curve"] * 3] * 2
    assert opened[True][0] == [[], []]
    for name, value in opened[False][1].items():
        np.testing.assert_array_equal(value, opened[True][1][name])


def test_one_site_alone_is_no_federation(small_sites, small_study):
    site: Site = small_sites(1)[0]
    study = Study.parse(small_study)
    place = SiteSession(replace(site, source=Frame(site.source.table)), study, validation_only=True)
    assert federate(study, 0, {site.name: place}, {site.name: place.summary()}) is None
