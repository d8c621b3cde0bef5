"""Federated learning in one call: on data frames, by a study, or by a resumed run."""

from __future__ import annotations

import hashlib
import inspect
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from flfed import registry
from flfed.callbacks import Progress, is_watched, no_progress, progress_line
from flfed.errors import UsageError, count_in_words
from flfed.federation.server import run as server
from flfed.federation.server.checkpoint_writer import RoundCallback, RunObserver, no_observer
from flfed.notebook.own_model import name_of_model
from flfed.notebook.result import Result, is_number, with_model
from flfed.rows.data.schema import Task
from flfed.rows.data.site import Site
from flfed.rows.data.sources import Frame
from flfed.rows.proposals.own_tables import OwnTable
from flfed.rows.proposals.workspace import HOLDOUT_SHARE, Workspace, new_workspace, summary_of
from flfed.study.study import Study, keys_of, plain_value, protects_rows
from flfed.updates.strategies.fedavg import FedAvg
from flfed.words import render

Say = Callable[[str], None]


def federate(
    tables: Mapping[str, pd.DataFrame] | pd.DataFrame,
    target: str,
    *,
    by: str = "",
    model: str | type | torch.nn.Module = "",
    strategy: str | type | Mapping[str, Any] = "",
    metrics: Sequence[type] = (),
    rounds: int = 40,
    repeats: int = 1,
    group: str = "",
    time: str = "",
    holdout: float = HOLDOUT_SHARE,
    task: Task | None = None,
    keep: Sequence[str] = (),
    drop: Sequence[str] = (),
    missing: Sequence[str] = (),
    name: str = "",
    store: str | None = None,
    say: Say = print,
    progress: Progress | None = None,
    callback: RoundCallback | None = None,
    **changes: Any,
) -> Result:
    """Train one model on several tables, as if each were at its owner, and compare.

    Kinds of columns, ranges and codes for missing values are derived from the rows, and reported by `say`.

    Parameters
    ----------
    tables : mapping of site to DataFrame, at least two; or one DataFrame with `by`
    target : str
        Column to predict.
    by : str
        Column of one table whose values are sites; the smallest form one site, "other".
    model : {"logistic", "linear", "mlp"}, a torch.nn.Module or a model's class, optional
        Default: logistic regression for classes, linear regression for a number. A module maps [rows, inputs] to
        [rows, outputs]: log-odds, logits or a number. Training starts from its present arrays.
    strategy : name, a strategy's class, or keys such as `{"name": "fedprox", "mu": 0.1}`, optional
    metrics : sequence of classes
        Further metrics, as in docs/extend.md, for this call only. Classes of models and strategies remain listed in
        this process.
    rounds : int, >= 1
    repeats : int, >= 1
        Runs, each with its own seed and holdout.
    group : str
        Column of the patient or customer, whose rows are all training or all test rows.
    time : str
        Column of dates; the latest rows are held out.
    holdout : float in [0, 1)
        Share of test rows. 0 trains on all rows, and compares nothing.
    task : {"binary", "multi-class", "regression"}, optional
        If the target's values leave it open.
    keep, drop : sequence of str
        Columns that are features although they look like identifiers or leaks, and columns to leave out.
    missing : sequence of str
        Values for missing cells, in every column, or in one as `COLUMN=VALUE`.
    name : str
        Name of the dataset; default: "frames" and a part of its schema's hash.
    store : str, optional
        Database URL of the run store.
    say : callable
        Gets sentences about the columns.
    progress : callable (stage, done, of), optional
        Default: a line on a terminal or in a notebook, once the call takes longer than 10 s.
    callback : callable (figures), optional
        Gets the figures of each round. The run ends after a round for which it returns true.
    **changes
        Keys of the study, such as `lr=0.1`, `hidden=[8]` with `model="mlp"`, `mu=0.1` with `strategy="fedprox"`, or
        `encode={"scaler": "per-site"}`.

    Raises
    ------
    UsageError
        If a column is missing or unusable, or a table breaks a rule; it names column and count.

    Examples
    --------
    >>> from flfed import federate
    >>> result = federate({"north": df1, "south": df2}, target="died", repeats=10)  # doctest: +SKIP
    >>> result.gains  # doctest: +SKIP
    """
    columns = {"by": by, "group": group, "time": time}
    for option, word in ({"target": target} | columns).items():
        if not isinstance(word, Hashable):
            raise UsageError(f"{option}={word!r} must be the name of one column")
    share = plain_value(holdout)
    if not is_number(share):
        raise UsageError(f"holdout={share!r} must be a number in [0, 1)")
    if not _are_classes(metrics):
        raise UsageError(render("notebook.federate.metrics", value=repr(metrics)))
    chosen = {"holdout": share, "task": task, "keep": keep, "drop": drop, "missing": missing}
    workspace = workspace_of(tables, target, name=name, **columns | chosen)
    say_columns(workspace, say)
    choices: dict[str, Any] = {"rounds": plain_value(rounds)}
    if model:
        choices["model"] = name_of_model(model)
    privacy = changes.get("privacy", {})
    mechanism = privacy.get("name") if isinstance(privacy, Mapping) else privacy
    choices["private"] = protects_rows({"name": mechanism})
    study = Study.parse(workspace.study(**choices).text())
    changes = keys_of(changes)
    if strategy:
        changes |= keys_of_strategy(strategy)
    with registry.lending("metric", metrics):
        study = study.replace(changes, "keyword") if changes else study
        # Studies find the schema by name; the reading of the data frames is beside it.
        workspace.reading().keep(workspace.name, workspace.files())
        with _shown(progress) as show_progress:
            result = server.run(
                study, repeats=plain_value(repeats), sites=list(workspace.sites), store=store, progress=show_progress,
                callback=callback,
            )  # fmt: skip
    return with_model(result, workspace)


def _are_classes(metrics: object) -> bool:
    return isinstance(metrics, (list, tuple)) and all(isinstance(metric, type) for metric in metrics)


def _shown(progress: Progress | None) -> AbstractContextManager[Progress]:
    """Return the progress of a run; a line by default, where a person watches."""
    if progress is None and is_watched():
        return progress_line()
    return nullcontext(progress or no_progress)


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
        raise UsageError(render("notebook.federate.strategy", value=repr(chosen)))
    keys["name"] = chosen
    # The proposed study has a quorum, which a class need not have.
    lacks = "quorum" not in inspect.signature(registry.load("strategy", chosen)).parameters
    strategy_keys = keys_of({"strategy": keys})
    return {"strategy.quorum": None} | strategy_keys if lacks else strategy_keys


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


def say_columns(workspace: Workspace, say: Say) -> None:
    """Report the kinds of columns, and those that a person should check."""
    proposal = workspace.proposal
    target = proposal.target
    say(f"{summary_of(workspace)}; target {proposal.schema.target!r}: {target.why}")
    if workspace.left_out:
        say(render("notebook.columns.siteless", rows=count_in_words(workspace.left_out)))
    left = [column.name for column in proposal.columns.values() if column.kind in ("left-out", "id", "date")]
    if target.unlabelled:
        say(render("notebook.columns.unlabelled", rows=count_in_words(target.unlabelled)))
    if workspace.of_no_class:
        say(render("notebook.columns.classless", rows=count_in_words(workspace.of_no_class)))
    if left:
        say(f"not learnt from: {', '.join(left)}")
    tables = {site.name: site.source.table for site in workspace.sites if isinstance(site.source, Frame)}
    for name, many in infinite(tables.values()).items():
        say(render("notebook.columns.infinite", column=name, cells=count_in_words(many)))
    if twice := at_several(tables.values()):
        say(render("notebook.columns.duplicates", rows=count_in_words(twice)))
    _say_doubts(workspace, say)


def _say_doubts(workspace: Workspace, say: Say) -> None:
    proposal = workspace.proposal
    for column in proposal.columns.values():
        if not column.sure:
            say(render("notebook.columns.unsure", column=column.name, kind=column.kind, reason=column.why))
    for name, why in proposal.leaks.items():
        say(render("notebook.columns.leak", column=name, reason=why))


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


def run(
    study: Study | str | Path,
    *,
    engine: str = "inprocess",
    repeats: int = 1,
    sites: Sequence[str | Site] | None = None,
    store: str | None = None,
    stacked: bool = True,
    progress: Progress = no_progress,
    observer: RunObserver = no_observer,
    callback: RoundCallback | None = None,
    **changes: Any,
) -> Result:
    """Run a study and return its result.

    Parameters as for `flfed.federation.server.run.run`, and these.

    Parameters
    ----------
    **changes
        Keys of the study, as for `--set`: `rounds=5`, or `encode={"scaler": "per-site"}`.

    Raises
    ------
    UsageError
        If study, sites or options are wrong; nothing was run.
    FlfedError
        If a run failed; the store has it, with the reason.

    Examples
    --------
    >>> from flfed import run
    >>> result = run("wine", rounds=5)  # doctest: +SKIP
    """
    chosen = study if isinstance(study, Study) else Study.load(study)
    chosen = chosen.replace(keys_of(changes), "keyword") if changes else chosen
    return with_model(
        server.run(
            chosen, engine=engine, repeats=plain_value(repeats), sites=sites, store=store, stacked=stacked,
            progress=progress, observer=observer, callback=callback,
        )
    )  # fmt: skip


def resume(
    run: str,
    *,
    sites: Sequence[str | Site] | None = None,
    store: str | None = None,
    progress: Progress = no_progress,
    observer: RunObserver = no_observer,
) -> Result:
    """Resume a run that died, stopped or failed.

    Parameters and errors as for `flfed.federation.server.run.resume`.
    """
    return with_model(server.resume(run, sites=sites, store=store, progress=progress, observer=observer))
