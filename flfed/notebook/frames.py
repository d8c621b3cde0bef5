"""Dataset, sites and study of data frames: what `federate` needs once it is called."""

from __future__ import annotations

import hashlib
import inspect
import secrets
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import pandas as pd
import torch

from flfed import registry
from flfed.callbacks import Now, now_utc
from flfed.errors import count_in_words
from flfed.federation.server import run as server
from flfed.notebook.own_model import Builder, model_sizes, name_of_model
from flfed.records.store.reader import RunReader
from flfed.rows.data.sources import Frame
from flfed.rows.proposals.own_tables import LONGEST_NAME, OwnTable, name_signs
from flfed.rows.proposals.workspace import Workspace, new_workspace, summary_of
from flfed.study.study import KINDS, Study, keys_of, protects_rows
from flfed.study.study_text import differing_values
from flfed.updates.codec import Codec
from flfed.updates.mechanism import Mechanism
from flfed.updates.strategies.fedavg import FedAvg
from flfed.words import render, usage_error

INPUT_KEYS = ("features", "missing-indicator")
"""Keys of a study that say which inputs a model has."""
BASES = {"strategy": FedAvg, "codec": Codec, "privacy": Mechanism}
"""Tables of a study that may name a class of the program, with the class that it inherits."""


def keys_of_call(changes: Mapping[str, Any], strategy: str | type | Mapping[str, Any]) -> dict[str, Any]:
    """Return a call's strategy and other keywords as keys of a study, as `named_keys` does."""
    keys = named_keys({**changes, "strategy": strategy or {}})
    # The proposed study has a quorum, which a class need not have.
    rule = registry.load("strategy", keys.get("strategy.name", "fedavg"))
    return keys if "quorum" in inspect.signature(rule).parameters else {"strategy.quorum": None} | keys


def named_keys(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return keywords as keys of a study, and list their classes in this process.

    Raises
    ------
    UsageError
        If strategy, codec or mechanism is neither a name nor a class of its kind.
    """
    keys = keys_of(changes)
    for table, base in BASES.items():
        chosen = keys.get(f"{table}.name", "fedavg")
        if isinstance(chosen, type) and issubclass(chosen, base):
            keys[f"{table}.name"] = registry.lend(KINDS[table], chosen)
        elif not isinstance(chosen, str):
            raise usage_error("notebook.federate.listed", table=table, value=repr(chosen), base=base.__name__)
    return keys


def starter(
    study: Study, model: object, keys: Mapping[str, Any], repeats: Any, resume: str, store: str | None
) -> Callable[..., server.Result]:
    """Return what runs a study, or resumes a run whose id `resume` is.

    Raises
    ------
    UsageError
        If a setting of the call that resumes has another value than the run.
    """
    if not resume:
        return partial(server.run, study, repeats=repeats)
    with RunReader.open(store) as reader:
        series = reader.series(resume)
    recorded = Study.parse(series.study_text)
    own_model = {"model.name": study.model.name} if model else {}
    wanted = recorded.replace({**keys, **own_model}, "keyword")
    differing = [*differing_values({"run": recorded.text, "call": wanted.text})]
    if repeats not in (1, series.repeats):
        differing.append("repeats")
    if differing:
        raise usage_error("notebook.federate.resumed", run=resume, settings=", ".join(differing))
    return partial(server.resume, resume)


def study_of(
    workspace: Workspace, model: str | type | torch.nn.Module | Builder, keys: Mapping[str, Any], *, name: str = ""
) -> Study:
    """Return a first study of data frames.

    Of the call's `keys`, only the mechanism and those that say how many inputs a module has are used.
    """
    choices: dict[str, Any] = {"name": study_name(workspace, name)}
    choices["private"] = protects_rows({"name": keys.get("privacy.name")})
    if model is not None and model != "":
        plain = Study.parse(workspace.study(**choices).text())
        encoding = {key: value for key, value in keys.items() if key.rpartition(".")[2] in INPUT_KEYS}
        if not isinstance(model, str) and encoding:
            plain = plain.replace(encoding, "keyword")
        choices["model"] = name_of_model(model, partial(model_sizes, plain, workspace.proposal.schema))
    return Study.parse(workspace.study(**choices).text())


def study_name(workspace: Workspace, name: str = "", now: Now = now_utc) -> str:
    """Return the name of a call's study: `name` itself, or target and time in UTC with four digits by chance.

    Nothing else depends on it: no seed has a part of it.
    """
    if name:
        return workspace.name
    target = name_signs(workspace.proposal.schema.target)[:LONGEST_NAME]
    # The digits separate two calls of one second.
    return f"{target}-{now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}".strip("-")


def workspace_of(
    tables: Mapping[str, pd.DataFrame] | pd.DataFrame, target: str, *, name: str = "", **options: Any
) -> Workspace:
    """Return the dataset and the sites of data frames."""
    if options.get("by"):
        if isinstance(tables, Mapping):
            raise usage_error("notebook.federate.by", by=options["by"])
        tables = {"table": tables}
    if not isinstance(tables, Mapping) or not all(isinstance(table, pd.DataFrame) for table in tables.values()):
        raise usage_error("notebook.federate.tables")
    own = [OwnTable(str(site), Frame(table), table) for site, table in tables.items()]
    made = new_workspace(own, target, name=name or "frames", open_data=True, salted=False, **options)
    if name:
        return made
    # Tables with the same columns and ranges are always the same dataset.
    digest = hashlib.sha256(made.files()["datasets/frames/schema.toml"].encode()).hexdigest()[:8]
    return made.named(f"frames-{digest}")


def describe_columns(workspace: Workspace) -> list[str]:
    """Return sentences on the kinds of columns, and on those that a person should check."""
    proposal = workspace.proposal
    target = proposal.target
    lines = [f"{summary_of(workspace)}; target {proposal.schema.target!r}: {target.why}"]
    tables = {site.name: site.source.table for site in workspace.sites if isinstance(site.source, Frame)}
    counts = {
        "siteless": workspace.left_out, "unlabelled": target.unlabelled, "classless": workspace.of_no_class,
        "duplicates": at_several(tables.values()),
    }  # fmt: skip
    for key, rows in counts.items():
        if rows:
            lines.append(render(f"notebook.rows.{key}", rows=count_in_words(rows)))
    left = [column.name for column in proposal.columns.values() if column.kind in ("left-out", "id", "date")]
    if left:
        lines.append(f"not learnt from: {', '.join(left)}")
    lines += map("check {}".format, workspace.notes)
    for column in proposal.columns.values():
        if not column.sure:
            lines.append(render("notebook.columns.unsure", column=column.name, kind=column.kind, reason=column.why))
    for name, why in proposal.leaks.items():
        lines.append(render("notebook.columns.leak", column=name, reason=why))
    return lines


def at_several(tables: Iterable[pd.DataFrame]) -> int:
    """Return the number of rows that sites share with others, without sites that share less than half of theirs.

    Rows that are alike within one site, as with few categories, do not count.
    """
    hashes = []
    for table in tables:
        texts = table.assign(**{str(name): table[name].astype(str) for name in table if table[name].dtype.kind == "O"})
        hashes.append(pd.util.hash_pandas_object(texts, index=False).drop_duplicates(keep=False))
    sites = pd.concat(hashes).value_counts()
    shared = [int(own.isin(sites.index[sites > 1]).sum()) for own in hashes]
    return sum(many for many, own in zip(shared, hashes, strict=True) if 2 * many >= len(own))
