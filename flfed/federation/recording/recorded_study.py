"""Study of a recorded run, as it was trained."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable
from contextlib import suppress

from flfed.errors import FlfedError, UsageError
from flfed.records.store.entries import RunEntry
from flfed.rows.data import datasets
from flfed.rows.data.schema import Schema
from flfed.rows.study_model import study_layout
from flfed.study.study import Study
from flfed.summaries.summary import Encoder, schema_encoder
from flfed.updates.checkpoints import checkpoint as checkpoints


def study_of(text: str, encoder_of: Callable[[], Encoder | None], schema: Schema | None, *, refuse: str = "") -> Study:
    """Return the study of a recorded run.

    One of an earlier version gets the scaler that was the default then.

    Under `record-dp` a text that names no scaler meant "global" before it meant "schema". Which of them a run
    had is told by its encoder.

    Parameters
    ----------
    text : str
        As the sites approved it.
    encoder_of : callable
        Returns the run's encoder, None where it has none yet; called only where it decides.
    schema : Schema or None
        The run's; None for the one that the dataset has here.
    refuse : str
        Name of the run, where its text goes to sites that approved it as it stands: no other text can.

    Raises
    ------
    UsageError
        If another text would have to go to those sites.
    """
    import tomli_w

    table = tomllib.loads(text)
    encode = table.get("encode", {})
    encoder = None
    # Only such a text is ambiguous, and only then are the checkpoints read; none is of before `covers`.
    privacy = table.get("privacy", {})
    if privacy.get("name") == "record-dp" and privacy.get("covers") != "study" and "scaler" not in encode:
        encoder = encoder_of()
    if encoder is None:
        return Study.parse(text)
    before = Study.parse(tomli_w.dumps({**table, "encode": {**encode, "scaler": "global"}}))
    own = schema_encoder(study_layout(before, schema or datasets.load(before.dataset.name).schema))
    # Its encoder is that of the schema, so the text meant then what it means now.
    if encoder.is_close(own):
        return Study.parse(text)
    if refuse:
        raise UsageError(
            f"run {refuse} is of an earlier version: its study names no [encode] scaler, which meant 'global' then and "
            "means 'schema' now, and its sites approved no other text; run the study anew"
        )
    return before


def encoder_of(runs: Iterable[RunEntry]) -> Encoder | None:
    """Return the first encoder of a series.

    It is that of the first run with one on this machine, and None where there is none.
    """
    for run in runs:
        with suppress(FlfedError):  # whoever needs the file itself says what is wrong with it
            newest = checkpoints.newest(run.run, run.rounds) or checkpoints.final(run.run)
            return newest.encoder
    return None
