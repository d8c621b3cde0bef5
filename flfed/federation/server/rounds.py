"""Rounds of a run: the strategy, its inputs, and the first model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from flfed.federation.recording.source_model import start_arrays
from flfed.federation.server.checkpoint_writer import OF_SITE, CheckpointWriter
from flfed.federation.server.parts.server_part import ServerPart
from flfed.federation.server.row_sums import SiteSums
from flfed.federation.server.run_setting import RunSetting
from flfed.seeds import noise_key
from flfed.summaries.summary import Encoder
from flfed.updates.aggregation.rounds import Observer, Participants, RunContext, ignore
from flfed.updates.arrays import Arrays
from flfed.updates.checkpoints.checkpoint import Checkpoint
from flfed.updates.strategies.fedavg import FedAvg, to_arrays, to_record


def conduct_rounds(
    run: RunSetting,
    parts: Sequence[ServerPart],
    writer: CheckpointWriter,
    participants: Participants,
    common: Checkpoint,
    after: Checkpoint | None,
) -> tuple[FedAvg, Arrays]:
    """Run and record the rounds, and return the strategy and the final arrays.

    Parameters
    ----------
    run : RunSetting
    parts : sequence of ServerPart
    writer : CheckpointWriter
    participants : mapping of site to Participant
    common : Checkpoint
        Shared by all checkpoints of the run.
    after : Checkpoint or None
        The checkpoint from which the run continues.
    """
    strategy: FedAvg = run.study.strategy.build("strategy")
    observer = partial(writer.observe, strategy=strategy, common=common)
    _assign(run, parts, strategy, participants, common.encoder, observer)
    if after is None:
        first = first_arrays(run, parts, common.encoder, participants)
    else:
        first = after.arrays
        _restore(run, parts, strategy, after)
    with run.privacy.during(participants):
        if after is None:
            writer.begin(first, strategy, common)
        return strategy, _train(run, strategy, first)


def rehearse_rounds(
    run: RunSetting, parts: Sequence[ServerPart], participants: Participants, encoder: Encoder
) -> tuple[FedAvg, Arrays]:
    """Run the rounds once more with another encoder, without a record."""
    strategy: FedAvg = run.study.strategy.build("strategy")
    _assign(run, parts, strategy, participants, encoder, None)
    return strategy, _train(run, strategy, first_arrays(run, parts, encoder, participants))


def site_sums(run: RunSetting, parts: Sequence[ServerPart]) -> SiteSums:
    """Return the sums over the sites' rows, as the server receives them."""
    sums = SiteSums(run)
    for part in parts:
        sums = part.row_sums(sums)
    return sums


def first_arrays(run: RunSetting, parts: Sequence[ServerPart], encoder: Encoder, participants: Participants) -> Arrays:
    """Return the arrays of a run's first round.

    Raises FlfedError where there are none.
    """
    for part in parts:
        arrays = part.first_arrays(participants, site_sums(run, parts))
        if arrays is not None:
            return arrays
    widths = [one.width for one in participants.values()]
    return start_arrays(run.study, run.schema, encoder, run.repeat, widths, series=run.recorder.shared_as.series)


def _assign(
    run: RunSetting,
    parts: Sequence[ServerPart],
    strategy: FedAvg,
    participants: Participants,
    encoder: Encoder,
    observer: Observer | None,
) -> None:
    """Set the strategy's facts of the run.

    Without an observer the rounds are a rehearsal.
    """
    context = RunContext(
        participants=participants,
        encoder=encoder,
        plan=run.study.plan,
        rounds=run.study.rounds,
        seed=run.study.seed + run.repeat,
        observer=observer or ignore,
        in_sums_only=run.recorder.shared_as.in_sums_only,
        mechanism=run.privacy.mechanism,
        chance=run.privacy.chance,
        study=noise_key(run.study.text),
    )
    for part in parts:
        context = part.context(context, is_recorded=observer is not None)
    strategy.clock = run.clock
    strategy.assign(context)


def _restore(run: RunSetting, parts: Sequence[ServerPart], strategy: FedAvg, after: Checkpoint) -> None:
    """Restore strategy, parts and sites as at a checkpoint, and note losses."""
    of_parts: set[str] = set()
    for part in parts:
        part.restore(after.facts, after.state)
        of_parts.update(part.state_names)
    of_strategy = {}
    of_sites = {}
    for name, arrays in after.state.items():
        if name.startswith(OF_SITE):
            of_sites[name.removeprefix(OF_SITE)] = arrays
        elif name not in of_parts:
            of_strategy[name] = arrays
    strategy.restore(after.round, of_strategy, after.facts["strategy"])
    # In one process the state is in the checkpoint; institutions have it on their own disks.
    restore = getattr(run.grid, "restore_states", None)
    if restore is not None:
        restore(after.round, of_sites)
    elif not getattr(run.grid, "sites_keep_state", False):
        lost = [sentence for part in parts if (sentence := part.lost_at_sites())]
        for sentence in lost[:1]:
            run.recorder.note(sentence)


def _train(run: RunSetting, strategy: FedAvg, first: Arrays) -> Arrays:
    return to_arrays(strategy.start(run.grid, to_record(first), run.study.most_rounds).arrays)
