"""Sums over training rows, of which a run's encoder is made, and what is recorded of a run before its rounds."""

from __future__ import annotations

from collections.abc import Mapping

from flfed.errors import UsageError
from flfed.federation.recording.source_model import UNCOVERED, source_facts, source_of
from flfed.federation.server.fan_out import check_enough
from flfed.federation.server.run_setting import RunSetting
from flfed.summaries.leaks import leak_warnings, untested
from flfed.summaries.summary import Encoder, Layout, Summary, arrays_sha256, fit_encoder, one_class, sums_sha256
from flfed.updates.aggregation.guard import summary_defect
from flfed.updates.aggregation.rounds import Participant
from flfed.updates.messages.summarise import SUMMARISE, SummariseReply, SummariseRequest

PER_SITE = (
    "every site scaled its rows by its own means (encode.scaler = 'per-site'): "
    "this reproduces others' results and costs accuracy; 'global' is right"
)


def summarise(run: RunSetting, participants: Mapping[str, Participant]) -> dict[str, Summary]:
    """Return the sums of the sites that can give them; raises FlfedError where they are too few."""
    answers = run.ask(SUMMARISE, SummariseRequest(), participants, SummariseReply.from_record)
    faults = answers.faults
    found = {}
    for site, reply in answers.replies.items():
        why = summary_defect(reply.summary, run.layout, participants[site].rows_high)
        if why:
            faults[site] = why
        elif reply.summary is not None:
            found[site] = reply.summary
    run.recorder.events("fault", faults)
    check_enough(found, [f"{site}: {reason}" for site, reason in faults.items()], run.recorder.shared_as)
    return found


def record_sums(run: RunSetting, merged: Summary) -> None:
    """Record the sums over all sites by their hashes, and columns that may give the answer away."""
    run.recorder.leaks(leak_warnings(run.layout, merged), untested(run.layout, merged))
    sums = {"sha256": arrays_sha256(merged.arrays()), "rounded": sums_sha256(merged)}
    run.recorder.writer.summary("training-sums", sums, durable=False)


def note_beginnings(run: RunSetting, participants: Mapping[str, Participant]) -> None:
    """Record which sites train a part of the model, how rows are scaled, and which earlier model comes first."""
    _note_widths(run, participants)
    if run.study.encode.scaler == "per-site":
        run.recorder.note(PER_SITE)
    source = source_of(run.study, run.recorder.shared_as.series)
    if source is not None:
        run.recorder.writer.summary("warm-start", source_facts(source, run.layout), durable=False)
        if run.study.privacy.name != "none":
            run.recorder.note(UNCOVERED)


def _note_widths(run: RunSetting, participants: Mapping[str, Participant]) -> None:
    """Note which sites train a part of the model, of those whose figures may be told."""
    widths = {site: one.width for site, one in participants.items() if one.width < 1}
    told = [f"{site} ({width:g} of each hidden layer)" for site, width in run.recorder.shared_as.own(widths).items()]
    if told:
        run.recorder.note(
            f"trained in part by {', '.join(told)}: for its other units such a site counts as having changed nothing"
        )


def fitted_encoder(run: RunSetting, merged: Summary) -> Encoder:
    """Return the encoder of all sites; raises UsageError where no model can be learned."""
    encoder = fit_encoder(run.layout, merged, run.study.encode.scaler)
    check_classes(run.layout, merged)
    return encoder


def check_classes(layout: Layout, merged: Summary) -> None:
    """Refuse a run whose training rows have one class only; raises UsageError."""
    if one_class(layout, merged):
        raise UsageError(
            f"column {layout.target.name!r} has one class only in the training rows of all sites: "
            "no model can be learned from it; ask sites that have another class, or check their mappings"
        )
