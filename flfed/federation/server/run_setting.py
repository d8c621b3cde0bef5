"""What every step of a run needs at the server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from flwr.app import RecordDict
from flwr.serverapp import Grid

from flfed.callbacks import Clock
from flfed.federation.recording.privacy_recorder import PrivacyRecord
from flfed.federation.recording.recorder import Recorder
from flfed.federation.server.fan_out import Answers, Reply, ask, deadline_of, log_bytes, nodes_of
from flfed.rows.data import datasets
from flfed.rows.data.schema import Schema
from flfed.rows.study_model import first_model, study_layout
from flfed.study.study import Study
from flfed.summaries.summary import Layout
from flfed.updates.aggregation.rounds import Participant
from flfed.updates.messages.fields import Arrays


@dataclass(kw_only=True, eq=False, repr=False)
class RunSetting:
    """What every step of a run needs at the server.

    Attributes
    ----------
    grid : Grid
    study : Study
    recorder : Recorder
    privacy : PrivacyRecord
    clock : callable
        Seconds that are the run's own.
    repeat : int
    each_round : bool
        Whether every round is a checkpoint, since the sites are institutions.
    resumed : bool
        Whether the run goes on after a checkpoint.
    """

    grid: Grid
    study: Study
    recorder: Recorder
    privacy: PrivacyRecord
    clock: Clock
    repeat: int = 0
    each_round: bool = False
    resumed: bool = False

    @cached_property
    def schema(self) -> Schema:
        """The schema of the study's dataset."""
        return datasets.load(self.study.dataset.name).schema

    @cached_property
    def layout(self) -> Layout:
        """The layout of the sites' sums."""
        return study_layout(self.study, self.schema)

    @property
    def name(self) -> str:
        """The run's id."""
        return self.recorder.writer.run

    @property
    def deadline(self) -> float:
        """Seconds that sites have for an answer."""
        return deadline_of(self.study)

    def first_arrays(self) -> Arrays:
        """Return the initial arrays in the plan's precision."""
        return first_model(self.study, self.schema, self.repeat)

    def ask(
        self, kind: str, request: Any, participants: Mapping[str, Participant], read: Callable[[RecordDict], Reply]
    ) -> Answers[Reply]:
        """Send sites a message, collect their replies, and record the bytes that crossed.

        Parameters
        ----------
        kind : str
            The message's type.
        request : a message of `flfed.updates.messages`, or a mapping of site to one
        participants : mapping of site to Participant
        read : callable
            Turns a reply's content into the reply, or raises MalformedMessage.
        """
        answers = ask(self.grid, kind, request, nodes_of(participants), read, timeout=self.deadline)
        log_bytes(self.recorder, kind, answers)
        return answers
