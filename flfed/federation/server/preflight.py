"""Whether a study can be run, and which sites take part: all that is known before a table is read."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

from flfed.errors import UsageError
from flfed.folders import CoordinatorFolder
from flfed.rows.data import datasets
from flfed.rows.data import site as sites_listing
from flfed.rows.data.partition import cut
from flfed.rows.data.site import Site
from flfed.rows.evaluation.scoring import primary_of
from flfed.study.study import Study
from flfed.updates.mechanism import mechanism_of


@dataclass(frozen=True)
class Elsewhere:
    """A site whose table is at its institution: all that a coordinator has of it is the name."""

    name: str


def taking_part(engine: str, study: Study, given: Sequence[str | Site] | None = None) -> list[Site] | list[Elsewhere]:
    """Return the sites that an engine asks: those found here, or in a deployment those admitted; see `find_sites`."""
    return deployed_sites(study, given) if engine == "deployment" else list(find_sites(study, given))


def deployed_sites(study: Study, given: Sequence[str | Site] | None = None) -> list[Elsewhere]:
    """Return the sites of a deployment, in name order: those given, those the study names, or all that are admitted.

    Raises
    ------
    UsageError
        If there are none, one is not admitted, or the study cuts its dataset itself.
    """
    from flfed.deployment.coordinator.admission import admitted  # loads cryptography, which other engines do not need

    if study.dataset.partition is not None:
        raise UsageError("the study cuts its dataset into research sites: it runs on one machine, not in a deployment")
    known = admitted(CoordinatorFolder.default())
    wanted = given if given is not None else study.dataset.sites
    names = sorted({site if isinstance(site, str) else site.name for site in (known if wanted is None else wanted)})
    strangers = [name for name in names if name not in known]
    if strangers:
        raise UsageError(f"not admitted: {', '.join(strangers)}; see: flfed coordinator status")
    if not names:
        raise UsageError("no site is admitted yet: flfed coordinator invite SITE")
    return [Elsewhere(name) for name in names]


def find_sites(study: Study, given: Sequence[str | Site] | None = None) -> list[Site]:
    """Return the sites that take part: those given, those the study names, or all of its dataset.

    Raises
    ------
    UsageError
        If there are none, their dataset's files are to be fetched first, or the study cuts its
        own and others are given.
    """
    if study.dataset.partition is not None:
        if given is not None:
            raise UsageError("the study cuts its dataset into research sites itself; it takes no others")
        return cut(datasets.load(study.dataset.name), study.dataset.partition)
    wanted = given if given is not None else study.dataset.sites
    found = sites_listing.of_dataset(study.dataset.name) if wanted is None else sites_listing.chosen(wanted)
    for site in found:
        if study.dataset.name not in site.datasets:
            served = " and ".join(repr(name) for name in site.datasets)
            raise UsageError(f"site {site.name!r} has dataset {served}, the study asks {study.dataset.name!r}")
    found = [site.serving(study.dataset.name) for site in found]
    if not found:
        raise UsageError(f"no site is found whose dataset is {study.dataset.name!r}; see: flfed site list")
    # Only the files that these sites read: an institution's own table needs no public ones.
    read = {getattr(site.source, "path", "") for site in found}
    absent = [file.name for file in datasets.load(study.dataset.name).absent() if file.name in read]
    if absent:
        name = study.dataset.name
        raise UsageError(f"dataset {name!r} is not here yet ({', '.join(absent)}): flfed data get {name}")
    return found


def check(study: Study) -> dict[str, str]:
    """Check a study against everything that is listed, without reading a table.

    Returns
    -------
    facts : dict with "schema" (its hash), "task" and "primary"

    Raises
    ------
    UsageError
        For the first thing that does not fit.
    """
    dataset = datasets.load(study.dataset.name)
    dataset.schema.features(study.dataset.features)
    model = study.model.build("model")
    if dataset.schema.task not in model.tasks:
        raise UsageError(
            f"[model] {study.model.name}: is for {' and '.join(model.tasks)}, "
            f"the dataset's task is {dataset.schema.task!r}"
        )
    if study.plan.class_weight == "balanced" and dataset.schema.task == "regression":
        raise UsageError("[plan]: class-weight='balanced' needs classes; the dataset's task is 'regression'")
    study.strategy.build("strategy").check(study.plan)
    mechanism = mechanism_of(study)
    if mechanism is not None:
        mechanism.check(study)
    primary = primary_of(dataset.schema.task, study.compare.primary, study.compare.alert_budget)
    if study.expires is not None and datetime.date.today() > study.expires:
        raise UsageError(f"the study expired on {study.expires.isoformat()}; its sites would refuse it")
    return {"schema": dataset.schema.sha256(), "task": dataset.schema.task, "primary": primary}
