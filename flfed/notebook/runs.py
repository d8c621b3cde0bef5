"""Runs of studies from Python, with results for notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flfed.callbacks import Progress, no_progress
from flfed.federation.server import run as server
from flfed.federation.server.checkpoint_writer import RoundCallback, RunObserver, no_observer
from flfed.notebook.result import Result, with_model
from flfed.rows.data.site import Site
from flfed.study.study import Study, keys_of, plain_value


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
        Keys of the study, as `--set` has them: `rounds=5`, or `encode={"scaler": "per-site"}`.

    Raises
    ------
    UsageError
        For anything wrong with study, sites or options; nothing was run.
    FlfedError
        If a run failed; it is in the store as failed, with the reason.

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
