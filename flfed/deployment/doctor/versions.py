"""Checks of versions: Flower as installed here, and flfed as the coordinator has it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

import flfed
from flfed.deployment.bundle import bundle_sha256
from flfed.deployment.coordinator.kits import Terms, flwr_version
from flfed.deployment.doctor.machine import Finding, finding
from flfed.deployment.operator.join import check_versions
from flfed.errors import FlfedError
from flfed.flower_names import FLOWER
from flfed.registry import kebab


def check_flower() -> Iterator[Finding]:
    """Yield a finding where Flower is not the version that this flfed works with."""
    if flwr_version() != FLOWER:
        yield finding("flower", installed=flwr_version(), needed=FLOWER)


def check_terms(facts: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield a finding where the coordinator has other versions than this machine.

    Parameters
    ----------
    facts : mapping
        Of `join.toml`.

    Raises
    ------
    FlfedError, KeyError, TypeError, AttributeError
        If they are no terms.
    """
    other = list(check_flower())
    yield from other
    if other:
        return
    terms = Terms(**{field.name: facts[kebab(field.name)] for field in fields(Terms)})
    try:
        check_versions(terms, "join.toml", own_bundle=bundle_sha256(), own_flfed=flfed.__version__)
    except FlfedError as error:
        yield finding("version", why=error)
