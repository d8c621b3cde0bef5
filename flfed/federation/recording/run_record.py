"""Begin and end of a run in the store.

It does not matter what runs it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from flfed.callbacks import Clock
from flfed.errors import FlfedError, RunStopped, interruption
from flfed.federation.recording.provenance import accountants, code_sha256, versions
from flfed.records.store.writer import RunStore, RunWriter
from flfed.study.exchanges import most_rounds
from flfed.study.study import Study
from flfed.summaries.summary import Encoder, arrays_sha256
from flfed.updates.messages.fields import Arrays


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
        Those that took part.
    seconds : float
        Of the run's own, over all its processes where it was resumed. Of repeats side by side each has
        its share, so that those of a series add up to the time it took.
    """

    status: str
    reason: str
    arrays: Arrays
    encoder: Encoder
    rounds: int
    best_round: int
    sites: tuple[str, ...] = ()
    seconds: float = 0.0

    def arrays_sha256(self) -> str:
        """Return the hash of the final arrays."""
        return arrays_sha256(self.arrays)


def begin(
    store: RunStore,
    series: str,
    study: Study,
    facts: Mapping[str, str],
    *,
    engine: str,
    path: str,
    repeat: int = 0,
) -> RunWriter:
    """Record the start of a run and return its writer.

    What the run can be repeated with is recorded, too.

    Parameters
    ----------
    store : RunStore
    series : str
    study : Study
    facts : mapping
        From `preflight.check`.
    engine, path : str
        From the engine and `engines.registry.path_of`.
    repeat : int, >= 0
    """
    return store.begin_run(
        series,
        repeat=repeat,
        engine=engine,
        path=path,
        seed=study.seed + repeat,
        rounds_planned=most_rounds(study),
        versions={**versions(), **accountants(study)},
        hashes={"study": study.sha256(), "schema": facts["schema"], "code": code_sha256()},
        primary=facts["primary"],
        task=facts["task"],
    )


@contextmanager
def bad_end_written(writer: RunWriter, began: float, *, kept: str, clock: Clock = time.monotonic) -> Iterator[None]:
    """Record an early end and raise its error.

    Parameters
    ----------
    writer : RunWriter
    began : float
        On the clock.
    kept : str
        What a person who interrupts it is told of what was done so far.
    clock : callable
        Seconds that are the run's own.

    Raises
    ------
    FlfedError
        What ended it, with the run's id; `RunStopped` where it was interrupted.
    """

    def close(status: str, reason: str) -> None:
        # Where even that cannot be written, the first error is what counts.
        with suppress(FlfedError):
            writer.finish(status=status, reason=reason, seconds=clock() - began)

    try:
        yield
    except RunStopped as error:
        # The record may have to name a site otherwise than the sentence does.
        close("stopped", error.recorded or str(error))
        error.run = writer.run
        raise
    except FlfedError as error:
        close("failed", str(error))
        error.run = writer.run
        raise
    # Ctrl-C is the wish of a person, and no failure.
    except KeyboardInterrupt as error:
        close("stopped", interruption(error))
        stopped = RunStopped(f"{interruption(error)}; {kept}")
        stopped.by = interruption(error)
        stopped.run = writer.run
        raise stopped from None
    except Exception as error:
        # Only the type is recorded: another error's text may quote a table.
        close("failed", f"{type(error).__name__}: see the log")
        raise
