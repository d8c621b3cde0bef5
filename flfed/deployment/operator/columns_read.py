"""Columns and rows of a site that a study reads, for the person who decides about it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from flfed.deployment.operator.proposal import Proposal
from flfed.rows.comparison.subgroups import groupings
from flfed.rows.data.schema import Column, Schema
from flfed.rows.data.site import Site
from flfed.rows.snapshots.snapshot import Frozen, code_sha256
from flfed.rows.statistics.of_study import statistic_of
from flfed.study.study import Study
from flfed.words import render


def describe_source(site: Site) -> list[str]:
    """Return the function of the site's package that makes its table, with its text, where it has one."""
    function = site.source.prepare
    if function is None:
        return []
    text = "\n".join(f"    {line}" for line in inspect.getsource(function).rstrip().splitlines())
    return [f"Source: the table is what {function.__qualname__} of this site's package makes of its own:\n{text}"]


def describe_code(site: Site, rows: Frozen) -> str:
    """Return that a snapshot is of a sample, that a function made its rows, and when the package's code changed."""
    if not rows.prepare:
        return rows.of_sample
    changed = f", whose code is as it was at {rows.code_at[:16].replace('T', ' ')}"
    if code_sha256(site) != rows.code_sha256:
        changed = f", whose code changed after that: flfed site refresh {site.name} takes a snapshot by the new one"
    return f"{rows.of_sample} They were made by {rows.prepare} of this site's package{changed}."


def describe_columns(proposal: Proposal) -> Iterator[str]:
    """Yield the columns that are read, with their kinds."""
    study, schema = proposal.study, proposal.schema
    if study.is_statistic:
        for name in statistic_of(study).columns(schema):
            yield f"{name} ({_kind(schema.columns[name])})"
        if schema.group and study.by_person:
            yield render("approval.study.group-of-statistic", column=schema.group)
        return
    for name in proposal.features:
        yield f"{name} ({_kind(schema.columns[name])})"
    for name in grouped_columns(study, schema):
        yield render("approval.study.looked-at", column=name, kind=_kind(schema.columns[name]))
    incumbent = study.compare.incumbent
    if incumbent is not None:
        kind = _kind(schema.columns[incumbent.column])
        yield render("approval.study.incumbent", column=incumbent.column, kind=kind)
    yield render("approval.study.target", column=schema.target, kind=_kind(schema.columns[schema.target]))
    if schema.group:
        yield _describe_group(study, schema)


def _describe_group(study: Study, schema: Schema) -> str:
    """Return what the identifiers are for."""
    if study.is_vertical:
        return render("approval.study.matched", column=schema.group)
    return render("approval.study.group", column=schema.group)


def grouped_columns(study: Study, schema: Schema) -> list[str]:
    """Return the columns that are read for results by group only."""
    features = schema.features(study.dataset.features)
    return [one.column for one in groupings(study.compare.subgroups, schema) if one.column not in features]


def _kind(column: Column) -> str:
    values = ", ".join(column.values[:8])
    if len(column.values) > 8:
        values += ", …"
    kind: str = column.kind
    if kind == "target":
        kind = "" if values else "number"
    return ", ".join(filter(None, (kind, column.unit, values)))
