"""Sites of a study with tables on this machine."""

from __future__ import annotations

from collections.abc import Sequence

from flfed.errors import UsageError
from flfed.rows.data import datasets
from flfed.rows.data import site_discovery as sites_listing
from flfed.rows.data.partition import cut
from flfed.rows.data.site import Site
from flfed.study.study import Study


def find_sites(study: Study, given: Sequence[str | Site] | None = None) -> list[Site]:
    """Return the sites that take part.

    They are those given, those the study names, or all of its dataset.

    Raises
    ------
    UsageError
        If there are none, their dataset's files are to be fetched first, or the study cuts its
        own and others are given.
    """
    # Research sites are cut from one public table, so an institution cannot be among them.
    if study.dataset.partition is not None:
        if given is not None:
            raise UsageError("the study cuts its dataset into research sites itself; it takes no others")
        return cut(datasets.load(study.dataset.name), study.dataset.partition)
    wanted = given if given is not None else study.dataset.sites
    found = sites_listing.of_dataset(study.dataset.name) if wanted is None else sites_listing.chosen(wanted)
    # All sites must have the dataset: one without it could only refuse.
    for site in found:
        if study.dataset.name not in site.datasets:
            served = " and ".join(repr(name) for name in site.datasets)
            raise UsageError(f"site {site.name!r} has dataset {served}, the study asks {study.dataset.name!r}")
    found = [site.serving(study.dataset.name) for site in found]
    if not found:
        example = "[dataset] partition = { by = 'iid', sites = 3 }"
        raise UsageError(
            f"no site is found whose dataset is {study.dataset.name!r}; see: flfed site list. "
            f"A dataset of one table is cut into sites by {example}"
        )
    # Only the files that these sites read: an institution's own table needs no public ones.
    read = {getattr(site.source, "path", "") for site in found}
    absent = [file.name for file in datasets.load(study.dataset.name).absent() if file.name in read]
    if absent:
        name = study.dataset.name
        raise UsageError(f"dataset {name!r} is not here yet ({', '.join(absent)}): flfed data get {name}")
    return found
