"""Federated learning in one call: on data frames, by a study, or by a resumed run.

A call imports what it needs, so that `from flfed import federate` returns at once.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flfed.callbacks import READING, Notify, Progress, loading, no_observer, shown_progress
from flfed.errors import UsageError
from flfed.study.study import Study, plain_value
from flfed.study.tables import HOLDOUT_SHARE
from flfed.tasks import read_jobs
from flfed.words import render, usage_error

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from flfed.callbacks import RoundCallback, RunObserver
    from flfed.notebook.own_model import Builder
    from flfed.notebook.result import Result
    from flfed.rows.data.schema import Task
    from flfed.rows.data.site import Site


def federate(
    tables: Mapping[str, pd.DataFrame] | pd.DataFrame,
    target: str,
    *,
    by: str = "",
    model: str | type | torch.nn.Module | Builder = "",
    strategy: str | type | Mapping[str, Any] = "",
    metrics: Sequence[type] = (),
    rounds: int | None = None,
    repeats: int = 1,
    group: str = "",
    time: str = "",
    holdout: float = HOLDOUT_SHARE,
    task: Task | None = None,
    keep: Sequence[str] = (),
    drop: Sequence[str] = (),
    missing: Sequence[str] = (),
    name: str = "",
    resume: str = "",
    store: str | None = None,
    say: Notify = print,
    progress: Progress | None = None,
    callback: RoundCallback | None = None,
    n_jobs: int | None = None,
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
    model : {"logistic", "linear", "mlp"}, a torch.nn.Module, a function, or a model's class, optional
        Default: logistic regression for classes, linear regression for a number. A module maps [rows, inputs] to
        [rows, outputs]: log-odds, logits or a number. Training starts from its present arrays. A function gets the
        numbers of inputs, after encoding, and of outputs, and returns a module; each run calls it under its own seed.
    strategy : name, a strategy's class, or keys such as `{"name": "fedprox", "mu": 0.1}`, optional
    metrics : sequence of classes
        Further metrics, as in docs/extend.md, for this call only. Classes of models and strategies remain listed in
        this process.
    rounds : int, >= 1, optional
        Default: 40.
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
        Columns that are features although they look like identifiers or leaks, with all their numbers in the range;
        and columns to leave out.
    missing : sequence of str
        Values for missing cells, in every column, or in one as `COLUMN=VALUE`.
    name : str
        Name of the dataset and of the study, by which runs are listed. Default: the study is named by target and time.
    resume : str, optional
        Id of a run of `federate` that stopped. It goes on under its own settings, repeats too, and another setting is
        refused; the arguments about tables and columns, and a class or module, are those of the call that stopped.
    store : str, optional
        Database URL of the run store.
    say : callable
        Gets sentences about the columns.
    progress : callable (stage, done, of), optional
        Default: a line on a terminal or in a notebook, once something takes longer than 2 s; elsewhere lines on
        standard error, from 10 s on.
    callback : callable (figures), optional
        Gets the figures of each round. The run ends after a round for which it returns true.
    n_jobs : int, optional
        Processes, as for `run`.
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
    >>> from sklearn.datasets import load_breast_cancer
    >>> rows = load_breast_cancer(as_frame=True).frame
    >>> clinics = {"north": rows[0::3], "south": rows[1::3], "west": rows[2::3]}
    >>> result = federate(clinics, target="target", rounds=2)  # doctest: +SKIP
    3 sites, 569 rows, 30 features (30 number); target 'target': 2 classes; the positive class is '1'
    >>> list(result.gains["site"])  # doctest: +SKIP
    ['north', 'south', 'west']
    """
    columns = {"by": by, "group": group, "time": time}
    for option, word in ({"target": target} | columns).items():
        if not isinstance(word, Hashable):
            raise UsageError(f"{option}={word!r} must be the name of one column")
    jobs = read_jobs(plain_value(n_jobs))
    share = plain_value(holdout)
    if isinstance(share, bool) or not isinstance(share, (int, float)):
        raise UsageError(f"holdout={share!r} must be a number in [0, 1)")
    if not _are_classes(metrics):
        raise usage_error("notebook.federate.metrics", value=repr(metrics))
    chosen = {"holdout": share, "task": task, "keep": keep, "drop": drop, "missing": missing}
    with shown_progress(progress) as show_progress, loading(show_progress):
        from flfed import registry
        from flfed.notebook import frames
        from flfed.notebook.result import with_model
    with shown_progress(progress) as show_progress:
        show_progress(READING, 0, 1)
        workspace = frames.workspace_of(tables, target, name=name, **columns | chosen)
        # The line of progress ends before sentences are printed.
        sentences = frames.describe_columns(workspace)
    for sentence in sentences:
        say(sentence)
    if rounds is not None:
        changes["rounds"] = rounds
    own_keys = frames.keys_of_call(changes, strategy)
    study = frames.study_of(workspace, model, own_keys, name=name)
    if not isinstance(model, str | type | None):
        say(render("notebook.module.time"))
    with registry.lending("metric", metrics):
        study = study.replace(own_keys, "keyword") if own_keys else study
        # Studies find the schema by name; the reading of the data frames is beside it.
        workspace.reading().keep(workspace.name, workspace.files())
        with shown_progress(progress) as show_progress:
            start = frames.starter(study, model, own_keys, plain_value(repeats), resume, store)
            result = start(
                sites=list(workspace.sites), store=store, progress=show_progress, callback=callback, jobs=jobs
            )
    return with_model(result, workspace)


def _are_classes(metrics: object) -> bool:
    return isinstance(metrics, (list, tuple)) and all(isinstance(metric, type) for metric in metrics)


def run(
    study: Study | str | Path,
    *,
    engine: str = "inprocess",
    repeats: int = 1,
    sites: Sequence[str | Site] | None = None,
    store: str | None = None,
    stacked: bool = True,
    progress: Progress | None = None,
    observer: RunObserver | None = None,
    callback: RoundCallback | None = None,
    n_jobs: int | None = None,
    **changes: Any,
) -> Result:
    """Run a study and return its result.

    Parameters as for `flfed.federation.server.run.run`, and these.

    Parameters
    ----------
    progress : callable (stage, done, of), optional
        Default: a line on a terminal or in a notebook, once something takes longer than 2 s; elsewhere lines on
        standard error, from 10 s on.
    n_jobs : int, optional
        Processes; default one, and -1 all cores that may be used. It replaces `jobs`.
    **changes
        Keys of the study, as for `--set`: `rounds=5`, or `encode={"scaler": "per-site"}`. A strategy, codec or
        mechanism may be a class, as for `federate`.

    Raises
    ------
    UsageError
        If study, sites or options are wrong; nothing was run.
    FlfedError
        If a run failed; the store has it, with the reason.

    Examples
    --------
    >>> from flfed import run
    >>> result = run("wine", rounds=2)  # doctest: +SKIP
    >>> list(result.gains["site"])  # doctest: +SKIP
    ['wine-1', 'wine-2', 'wine-3']
    """
    with shown_progress(progress) as show_progress, loading(show_progress):
        from flfed.federation.server import run as server
        from flfed.notebook import frames
        from flfed.notebook.result import with_model
    chosen = study if isinstance(study, Study) else Study.load(study)
    chosen = chosen.replace(frames.named_keys(changes), "keyword") if changes else chosen
    jobs = read_jobs(n_jobs)
    with shown_progress(progress) as show_progress:
        result = server.run(
            chosen, engine=engine, repeats=plain_value(repeats), sites=sites, store=store, stacked=stacked,
            progress=show_progress, observer=observer or no_observer, callback=callback, jobs=jobs,
        )  # fmt: skip
    return with_model(result)


def resume(
    run: str,
    *,
    sites: Sequence[str | Site] | None = None,
    store: str | None = None,
    progress: Progress | None = None,
    observer: RunObserver | None = None,
    n_jobs: int | None = None,
) -> Result:
    """Resume a run that died, stopped or failed.

    Parameters and errors as for `flfed.federation.server.run.resume`; `progress` and `n_jobs` as for
    `run`.

    Examples
    --------
    >>> from flfed import resume, run
    >>> def stop(*_):
    ...     raise KeyboardInterrupt
    >>> run("wine", rounds=2, observer=stop)  # doctest: +SKIP +ELLIPSIS
    Traceback (most recent call last):
    flfed.errors.RunStopped: interrupted from the keyboard; all results so far are stored: ...
    >>> result = resume("latest")  # doctest: +SKIP
    >>> result.status  # doctest: +SKIP
    'completed'
    """
    with shown_progress(progress) as show_progress, loading(show_progress):
        from flfed.federation.server import run as server
        from flfed.notebook.result import with_model
    jobs = read_jobs(n_jobs)
    with shown_progress(progress) as show_progress:
        result = server.resume(
            run, sites=sites, store=store, progress=show_progress, observer=observer or no_observer,
            jobs=jobs,
        )  # fmt: skip
    return with_model(result)
