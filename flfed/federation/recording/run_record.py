"""Begin and end of a run in the store, with versions and the hash of the code, for every engine.

The record also has whether the shared model was trained enough for a verdict.
"""

from __future__ import annotations

import hashlib
import platform
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import flfed
from flfed.callbacks import Clock
from flfed.errors import FlfedError, RunStopped, interruption
from flfed.records.statistics.training_state import loss_fall, training_state
from flfed.records.store.tables import finite
from flfed.records.store.writer import RunStore, RunWriter
from flfed.rows.comparison.pooled import Reference
from flfed.study.study import Study
from flfed.summaries.summary import Encoder, arrays_sha256
from flfed.updates.arrays import Arrays


@cache
def code_sha256() -> str:
    """Return the hash of flfed's own code and its tables, over each file's path and bytes, in path order."""
    package = Path(flfed.__file__).parent
    digest = hashlib.sha256()
    for file in sorted([*package.rglob("*.py"), *package.rglob("*.toml")]):
        digest.update(f"{file.relative_to(package).as_posix()}\x1e".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


@cache
def versions() -> Mapping[str, str]:
    """Return the versions that a run depends on."""
    packages = ("flwr", "torch", "numpy", "pandas", "scikit-learn")
    return {"flfed": flfed.__version__, "python": platform.python_version(), **{p: version(p) for p in packages}}


def recorded_training(
    writer: RunWriter, primary: str, study: Study, reference: Reference | None = None
) -> dict[str, Any] | None:
    """Return whether the shared model was trained enough, by a pooled reference or else by the recorded losses.

    Losses are those of validation rows where the study has some. They do not count for trees, whose training loss
    always falls, for a run whose best round was chosen, or for a changing cohort of which only sums are known. The
    result is None under noise, where a shortfall is the price of protection.
    """
    if study.privacy.name != "none":
        return None
    beside = []
    # A model may rank rows well while its probabilities are wrong.
    for metric in dict.fromkeys([primary, "log_loss"]):
        if reference is not None and metric in reference.union:
            one = reference.union[metric]
            kind = reference.pooled_same or reference.pooled
            ends = {"value": finite(one.value), "low": finite(one.low), "high": finite(one.high)}
            beside.append((metric, ends, finite(kind[metric].value)))
    model = study.model.build("model")
    trees = bool(getattr(model, "plain", False))
    arm = "validation" if study.plan.validation else "fit"
    points = writer.curves(arm, "loss")
    summed = any(point.site is None for point in points) and float(study.strategy.settings.get("fraction", 1.0)) < 1
    chosen = study.strategy.settings.get("select") == "best" or bool(study.strategy.settings.get("patience"))
    fall = None if trees or summed or chosen else loss_fall(points)
    margin = study.compare.minimum_gain
    least = {} if margin is None else {primary: margin}
    return training_state(fall, beside, by_rounds=not (model.linear or trees), least=least)


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """Outcome of a run.

    Attributes
    ----------
    status : {"completed", "stopped"}
    reason : str
    arrays : dict of name to array
        The final model, or the last good one.
    encoder : Encoder
    rounds, best_round : int
    sites : tuple of str
        The participants.
    seconds : float
        Time of the run itself, over all its processes where it was resumed. Parallel repeats each have their share, so
        that those of a series sum to its time.
    """

    status: str
    reason: str = ""
    arrays: Arrays
    encoder: Encoder
    rounds: int = 0
    best_round: int = 0
    sites: tuple[str, ...] = ()
    seconds: float = 0.0

    def arrays_sha256(self) -> str | None:
        """Return the hash of the final arrays; None where the coordinator has no model."""
        return arrays_sha256(self.arrays) if self.arrays else None

    def write_end(self, writer: RunWriter) -> None:
        """Record how the run ended."""
        if self.arrays:
            writer.summary("encoder", {"sha256": self.encoder.sha256()}, durable=False)
        writer.finish(
            status=self.status,
            reason=self.reason,
            seconds=self.seconds,
            arrays_sha256=self.arrays_sha256(),
            best_round=self.best_round,
        )


def begin(
    store: RunStore, series: str, study: Study, facts: Mapping[str, str], *, engine: str, path: str, repeat: int = 0
) -> RunWriter:
    """Record the start of a run, with all that a repetition needs, and return its writer.

    Parameters
    ----------
    store : RunStore
    series : str
    study : Study
    facts : mapping
        From `preflight.check`.
    engine, path : str
        From the engine and `engines.engine.path_of`.
    repeat : int, >= 0
    """
    accountants = {} if study.privacy.name == "none" else {"dp-accounting": version("dp-accounting")}
    return store.begin_run(
        series,
        repeat=repeat,
        engine=engine,
        path=path,
        seed=study.seed + repeat,
        rounds_planned=study.most_rounds,
        versions={**versions(), **accountants},
        hashes={"study": study.sha256(), "schema": facts["schema"], "code": code_sha256()},
        primary=facts["primary"],
        task=facts["task"],
    )


@contextmanager
def bad_end_written(
    writer: RunWriter, began: float, *, resume_hint: str, clock: Clock = time.monotonic
) -> Iterator[None]:
    """Record an early end and raise its error.

    Parameters
    ----------
    writer : RunWriter
    began : float
        On the clock.
    resume_hint : str
        Message on the progress so far for a person who interrupts it.
    clock : callable
        Seconds of the run itself.

    Raises
    ------
    FlfedError
        The error that ended it, with the run's id; `RunStopped` where it was interrupted.
    """

    def close(status: str, reason: str) -> None:
        # If even that cannot be written, the first error is raised.
        with suppress(FlfedError):
            writer.finish(status=status, reason=reason, seconds=clock() - began)

    try:
        yield
    except RunStopped as error:
        close("stopped", str(error))
        error.run = writer.run
        raise
    except FlfedError as error:
        close("failed", str(error))
        error.run = writer.run
        raise
    # Ctrl-C is a person's choice and no failure.
    except KeyboardInterrupt as error:
        # An interrupted transaction is open, and the store locked, for as long as its frame is there.
        traceback.clear_frames(error.__traceback__)
        close("stopped", interruption(error))
        stopped = RunStopped(f"{interruption(error)}; {resume_hint}")
        stopped.by = interruption(error)
        stopped.run = writer.run
        raise stopped from None
    except Exception as error:
        # Only the type is recorded: another error's text may quote a table.
        close("failed", f"{type(error).__name__}: see the log")
        raise
