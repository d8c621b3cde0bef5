"""A study on frozen rows: to the last figure the one on the live sites."""

from pathlib import Path
from typing import Any

import pytest

from flfed import Study, run
from flfed.rows.data import site_discovery as listing
from flfed.rows.data.site import Site
from flfed.rows.snapshots.snapshot import freeze, load

TIMES = ("run", "seconds")


def figures(study: Study, sites: list[Site], **options: Any) -> dict[str, Any]:
    """Return everything that a run showed, but for its name and its seconds."""
    report = run(study, sites=sites, **options).report
    return {key: value for key, value in report.items() if key not in TIMES}


QUICK = {"compare.site-model": "same", "compare.resamples": 200}
"""The comparison is that of one study, the others have a quick one."""


def frozen(sites: list[Site], folder: Path) -> list[Site]:
    for site in sites:
        freeze(site, folder / site.name, None)
    return [load(site, folder / site.name) for site in sites]


def of(dataset: str) -> list[Site]:
    return listing.of_dataset(dataset)


@pytest.mark.studies
@pytest.mark.parametrize(("name", "changes", "options"), [
    ("fed-heart-flamby", QUICK | {"rounds": 3, "split.redraw": True}, {}),
    ("fed-heart-flamby", QUICK | {"rounds": 2}, {}),
    ("heart-disease", {"rounds": 4}, {}),
    ("heart-disease", QUICK | {"rounds": 2, "plan.validation": 0.2}, {"stacked": False}),
    ("heart-disease", QUICK | {"rounds": 2}, {"repeats": 3}), ("preterm-birth", QUICK | {"rounds": 4}, {}),
    pytest.param("loan-default", {"rounds": 2}, {}, marks=pytest.mark.proof),
    pytest.param("card-fraud", {"rounds": 2}, {}, marks=pytest.mark.proof),
])  # fmt: skip
def test_a_study_on_frozen_sites_is_that_on_the_live_ones(heart, tmp_path, name, changes, options):
    study = Study.load(name).replace(changes)
    sites = of(study.dataset.name)
    if study.dataset.sites is not None:
        sites = [site for site in sites if site.name in study.dataset.sites]
    live = figures(study, sites, **options)
    again = figures(study, frozen(sites, tmp_path), **options)
    assert again == live
    assert live["status"] == "completed"
    assert again["arrays-sha256"] == live["arrays-sha256"]
    assert bool(live["arrays-sha256"]) == ("repeats" not in options)


def test_one_changed_row_gives_other_arrays(small_sites, small_study, tmp_path):
    study = Study.parse(small_study)
    live = figures(study, small_sites(2))
    same = figures(study, frozen(small_sites(2), tmp_path / "same"))

    def change(number, table):
        table.loc[5, "x1"] += 0.5 if number else 0.0
        return table

    other = figures(study, frozen(small_sites(2, change=change), tmp_path / "other"))
    assert same["arrays-sha256"] == live["arrays-sha256"] != other["arrays-sha256"]
