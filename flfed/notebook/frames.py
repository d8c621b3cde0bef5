"""Dataset, sites and study of data frames: what `federate` needs once it is called."""

from __future__ import annotations

import hashlib
import inspect
import secrets
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch

from flfed import registry
from flfed.callbacks import Now, now_utc
from flfed.errors import UsageError, count_in_words
from flfed.notebook.own_model import Builder, model_sizes, name_of_model
from flfed.rows.data.sources import Frame
from flfed.rows.proposals.own_tables import LONGEST_NAME, OwnTable, name_signs
from flfed.rows.proposals.workspace import Workspace, new_workspace, summary_of
from flfed.study.study import Study, keys_of, protects_rows
from flfed.updates.strategies.fedavg import FedAvg
from flfed.words import render, usage_error

INPUT_KEYS = ("features", "missing-indicator")
"""Keys of a study that say which inputs a model has."""


def keys_of_strategy(strategy: str | type | Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a study for a strategy, and list its class in this process.

    Raises
    ------
    UsageError
        If it is no strategy.
    """
    keys = dict(strategy) if isinstance(strategy, Mapping) else {"name": strategy}
    chosen = keys.get("name", "fedavg")
    if isinstance(chosen, type) and issubclass(chosen, FedAvg):
        chosen = registry.lend("strategy", chosen)
    if not isinstance(chosen, str):
        raise usage_error("notebook.federate.strategy", value=repr(chosen))
    keys["name"] = chosen
    # The proposed study has a quorum, which a class need not have.
    lacks = "quorum" not in inspect.signature(registry.load("strategy", chosen)).parameters
    strategy_keys = keys_of({"strategy": keys})
    return {"strategy.quorum": None} | strategy_keys if lacks else strategy_keys


def study_of(
    workspace: Workspace, model: str | type | torch.nn.Module | Builder, rounds: Any, keys: Mapping[str, Any],
    privacy: Any, *, name: str = "",
) -> Study:  # fmt: skip
    """Return a first study of data frames; `privacy` is the mechanism, by its name or its keys.

    Of the call's `keys`, only those that say how many inputs a module has are used.
    """
    choices: dict[str, Any] = {"rounds": rounds, "name": study_name(workspace, name)}
    mechanism = privacy.get("name") if isinstance(privacy, Mapping) else privacy
    choices["private"] = protects_rows({"name": mechanism})
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
    if isinstance(tables, pd.DataFrame) and options.get("by"):
        tables = {"table": tables}
    if not isinstance(tables, Mapping) or not all(isinstance(table, pd.DataFrame) for table in tables.values()):
        raise UsageError('federate takes a data frame for each site: {"north": df1, "south": df2}')
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
    if workspace.left_out:
        lines.append(render("notebook.columns.siteless", rows=count_in_words(workspace.left_out)))
    left = [column.name for column in proposal.columns.values() if column.kind in ("left-out", "id", "date")]
    if target.unlabelled:
        lines.append(render("notebook.columns.unlabelled", rows=count_in_words(target.unlabelled)))
    if workspace.of_no_class:
        lines.append(render("notebook.columns.classless", rows=count_in_words(workspace.of_no_class)))
    if left:
        lines.append(f"not learnt from: {', '.join(left)}")
    tables = {site.name: site.source.table for site in workspace.sites if isinstance(site.source, Frame)}
    for name, many in infinite(tables.values()).items():
        lines.append(render("notebook.columns.infinite", column=name, cells=count_in_words(many)))
    if twice := at_several(tables.values()):
        lines.append(render("notebook.columns.duplicates", rows=count_in_words(twice)))
    return [*lines, *map("check {}".format, workspace.notes), *_describe_doubts(workspace)]


def _describe_doubts(workspace: Workspace) -> list[str]:
    proposal = workspace.proposal
    lines = []
    for column in proposal.columns.values():
        if not column.sure:
            lines.append(render("notebook.columns.unsure", column=column.name, kind=column.kind, reason=column.why))
    for name, why in proposal.leaks.items():
        lines.append(render("notebook.columns.leak", column=name, reason=why))
    return lines


def infinite(tables: Iterable[pd.DataFrame]) -> dict[str, int]:
    """Return the number of infinite cells of each column that has some."""
    counts: Counter[str] = Counter()
    for table in tables:
        for name in table.columns:
            if table[name].dtype.kind == "f":
                counts[str(name)] += int(np.isinf(table[name].to_numpy(dtype=float, na_value=np.nan)).sum())
    return {name: many for name, many in counts.items() if many}


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
