"""Snapshots that runs of an institution have used: the people of each, and the one choice of rows of each dataset.

A snapshot is used once the gate opens its rows for a study whose answers are exact. Its people are in the site's state
from then on, also where the ledger is begun anew. So two snapshots that nobody has used yet may be close to each other,
and only one of them is used.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from flfed.callbacks import now_utc, stamp
from flfed.files import read_private, write_whole
from flfed.paths import SiteFolder
from flfed.records.ledger import Ledger
from flfed.records.site_state import SiteState, reading
from flfed.refusals import Refusal
from flfed.rows.data import datasets
from flfed.rows.data.origin import SourceRows
from flfed.rows.data.site import Site
from flfed.rows.snapshots.people import (
    DIGEST,
    PERSON,
    VALUES,
    WHOLE,
    People,
    Used,
    choose_withheld,
    lacking,
    people_of,
    sides_of,
)
from flfed.rows.snapshots.snapshot import Frozen, FrozenSite, Prepared
from flfed.study.study import Study
from flfed.words import usage_error

KEY = "rows.key"
KEY_BYTES = 32
SNAPSHOT = "snapshot"
"""The kind of a ledger's line for a snapshot that a run uses for the first time."""


def row_choice(study: Study, rows: Frozen) -> str:
    """Return which rows of a dataset a study takes, as JSON: one text for each choice."""
    complete: Sequence[str] = ()
    if study.encode.rows == "complete":
        complete = datasets.load(study.dataset.name).schema.features(study.dataset.features)
    made = {"sample": rows.sample, "keep": rows.keep, "prepare": rows.prepare_sha256}
    return json.dumps({"complete": sorted(complete), "split": study.split.fixed, **made})


def choice_refusal(folder: SiteFolder, study: Study, site: Site, rows: Frozen) -> Refusal | None:
    """Return why a study may not take the rows that it asks for beside those of earlier studies; no row is read."""
    if site.policy.is_open or study.is_covered:
        return None
    with reading(folder) as tables:
        return None if tables is None else _other_choice(tables, study, rows)


def use_refusal(folder: SiteFolder, study: Study, site: FrozenSite) -> Refusal | None:
    """Return why a study may not use a snapshot, before it does, or None."""
    if site.policy.is_open or study.is_covered:
        return None
    with reading(folder) as tables:
        if tables is None or not (used := _used(tables)):
            return None
        return _refusal(tables, study, site, used, rows_key(folder.gate))[0]


def use(folder: SiteFolder, study: Study, site: FrozenSite, ledger: Ledger) -> Refusal | None:
    """Note that a study uses a snapshot, in the site's state and its ledger, or return why it may not.

    Raises
    ------
    FlfedError
        If the site's state, ledger or key cannot be read or written.
    """
    if site.policy.is_open or study.is_covered:
        return None
    with SiteState(folder.state, ledger).transaction() as step:
        used = _used(step.tables)
        key = rows_key(folder.gate, make=not used)
        refusal, people = _refusal(step.tables, study, site, used, key)
        if people is None:
            return refusal
        # The line that follows is under the same lock of the ledger: a key without one shows a lost ledger.
        keep_rows_key(folder.gate, key)
        choice = (site.dataset, study.name, row_choice(study, site.snapshot))
        step.tables.execute("INSERT OR IGNORE INTO row_choices VALUES (?, ?, ?)", choice)
        if share := _newcomers(people, site.dataset, used):
            more = (site.dataset, share * site.policy.runs, "newcomers", stamp(now_utc()))
            step.tables.execute("INSERT INTO allowed VALUES (?, ?, ?, ?)", more)
        place = (site.dataset, site.snapshot.sha256, _holdout(site))
        for (side, kind), keys in people.keys.items():
            content = np.sort(keys).tobytes()
            step.tables.execute("INSERT INTO people VALUES (?, ?, ?, ?, ?, ?)", (*place, side, kind, content))
        facts = {"study": study.name, "study_sha256": study.sha256(), "dataset": site.dataset}
        step.append(kind=SNAPSHOT, **facts, rows_sha256=site.snapshot.sha256)
    return None


def _refusal(
    tables: sqlite3.Connection, study: Study, site: FrozenSite, used: Sequence[Used], key: bytes
) -> tuple[Refusal | None, People | None]:
    """Return why a study may not use a snapshot, and its people where it may and is the first to do so."""
    if other := _other_choice(tables, study, site.snapshot):
        return other, None
    known = "SELECT 1 FROM people WHERE (dataset, snapshot, holdout) = (?, ?, ?)"
    if tables.execute(known, (site.dataset, site.snapshot.sha256, _holdout(site))).fetchone():
        return None, None
    table, _, schema = site.inspect()
    sides = sides_of(site, table, schema, json.loads(row_choice(study, site.snapshot))["complete"])
    people = people_of(table, schema, sides, key, digests_of(site.source_rows))
    least = site.policy.cell_minimum
    if lacking(people, site.dataset, used, least):
        return Refusal("too-close", least=least), None
    return None, people


def _newcomers(people: People, dataset: str, used: Sequence[Used]) -> float:
    """Return the share of people who were in no snapshot of a dataset that was used before; 0 of the first one."""
    before = [one.people for one in used if one.dataset == dataset]
    kind = PERSON if len(people.of(WHOLE, PERSON)) else VALUES
    present = people.of(WHOLE, kind)
    known = np.concatenate([np.empty(0, DIGEST), *(one.of(WHOLE, kind) for one in before)])
    return float(np.mean(~np.isin(present, known))) if before and len(present) else 0.0


def _other_choice(tables: sqlite3.Connection, study: Study, rows: Frozen) -> Refusal | None:
    first = tables.execute("SELECT study, choice FROM row_choices WHERE dataset = ?", (study.dataset.name,)).fetchone()
    if first is None or first[1] == row_choice(study, rows):
        return None
    return Refusal("other-rows-before", dataset=study.dataset.name, study=first[0])


def _holdout(site: Site) -> str:
    """Return the hash of a site's holdout, by which its people are on their sides."""
    return hashlib.sha256(repr(site.holdout).encode()).hexdigest()


def _used(tables: sqlite3.Connection) -> list[Used]:
    """Return the people of each snapshot that was used."""
    keys: dict[tuple[str, ...], dict[tuple[str, str], np.ndarray]] = defaultdict(dict)
    for *place, side, kind, content in tables.execute("SELECT * FROM people ORDER BY rowid"):
        keys[tuple(place)][side, kind] = np.frombuffer(content, DIGEST)
    return [Used(place[0], People(parts)) for place, parts in keys.items()]


def digests_of(source: SourceRows | None) -> np.ndarray | None:
    """Return the hashes of a source's rows; None where they are unknown."""
    return None if source is None else source.digests


def fit_to_used(folder: SiteFolder, prepared: Prepared, *, withholds: bool) -> tuple[Prepared, dict[str, int]]:
    """Return rows for a new snapshot, and how many people are missing on which side until it may be used.

    Parameters
    ----------
    folder : SiteFolder
    prepared : Prepared
        The present rows, without people who opted out.
    withholds : bool
        Whether somebody opted out, so that others are withheld.

    Raises
    ------
    FlfedError
        If the site's state or key cannot be read; or if too few are left to be withheld.
    """
    with reading(folder) as tables:
        used = [] if tables is None else _used(tables)
        if tables is None or not used:
            return prepared, {}
        own = (prepared.site.dataset,)
        choice = tables.execute("SELECT choice FROM row_choices WHERE dataset = ?", own).fetchone()
    site, table, schema = prepared.site, prepared.table, prepared.schema
    sides = sides_of(site, table, schema, json.loads(choice[0])["complete"] if choice else ())
    rows = (table, schema, sides, rows_key(folder.gate), digests_of(prepared.source))
    least = site.policy.cell_minimum
    missing = lacking(people_of(*rows), site.dataset, used, least)
    if not missing or not withholds:
        return prepared, missing
    rest = choose_withheld(*rows, used, least)
    if rest is None:
        raise usage_error("gate.files.too-few", site=site.name, dataset=site.dataset, least=least)
    return prepared.without(rest), {}


def rows_key(gate: Path, *, make: bool = False) -> bytes:
    """Return a site's key of people's hashes, which never leaves the site; with `make` a new one where there is none.

    Raises
    ------
    UsageError
        If it cannot be read, others may read it, or it is gone although there are hashes.
    """
    path = gate / KEY
    try:
        key = read_private(path, rows=True)
    except FileNotFoundError:
        # A new key would not match the old hashes, so that all would seem unreleased.
        if not make:
            raise usage_error("gate.rows.key", file=path) from None
        key = secrets.token_bytes(KEY_BYTES)
    except OSError as error:
        raise usage_error("gate.rows.unread", file=path, why=error.strerror) from None
    if len(key) != KEY_BYTES:
        raise usage_error("gate.rows.damaged", file=path)
    return key


def keep_rows_key(gate: Path, key: bytes) -> None:
    """Write a site's key of people's hashes where there is none."""
    if not (gate / KEY).exists():
        write_whole(gate / KEY, key)
