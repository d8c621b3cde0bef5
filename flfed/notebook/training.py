"""Training of a study in this process without a record: no store, no checkpoint, no comparison."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from flwr.app import RecordDict

from flfed.errors import UsageError
from flfed.federation.client.client import SiteClient
from flfed.federation.engines.engine import RunConfig
from flfed.federation.engines.inprocess import grid_of
from flfed.federation.engines.registry import answer_of, engine_of, path_of
from flfed.federation.server.fan_out import Answers, ask, deadline_of
from flfed.rows.baselines import first_arrays
from flfed.rows.data import datasets
from flfed.rows.data.site import Site
from flfed.rows.features.encode import input_names
from flfed.rows.session import study_layout, study_trainable
from flfed.study.study import Study
from flfed.summaries.summary import Encoder, fit_encoder, merge
from flfed.updates.aggregation.rounds import Participant, RunContext
from flfed.updates.messages.enrol import ENROL, EnrolReply, EnrolRequest
from flfed.updates.messages.fields import Arrays
from flfed.updates.messages.summarise import SUMMARISE, SummariseReply, SummariseRequest
from flfed.updates.strategies.fedavg import FedAvg, to_arrays, to_record

Reply = TypeVar("Reply")


def train(study: Study, sites: Sequence[Site]) -> tuple[Arrays, Encoder]:
    """Return the arrays and the encoder of a study, trained as a run of it would.

    Parameters
    ----------
    study : Study
        Without a privacy mechanism: nothing is charged to a ledger here.
    sites : sequence of Site

    Raises
    ------
    UsageError
        If a site does not take part, or a round fails.
    """
    schema = datasets.load(study.dataset.name).schema
    by_name = {site.name: site for site in sites}
    config: RunConfig = {"study": study.text, "repeat": 0, "run-here": "fit"}
    engine = engine_of("inprocess")
    answer = answer_of(path_of(engine, study, stacked=True))
    grid = grid_of(SiteClient(lambda name, _: by_name[name]), sorted(by_name), config, answer)
    nodes = {str(node): node for node in grid.get_node_ids()}
    seconds = deadline_of(study)

    def answers(kind: str, request: Any, read: Callable[[RecordDict], Reply]) -> Mapping[str, Reply]:
        return _all_of(ask(grid, kind, request, nodes, read, timeout=seconds))

    enrolled = answers(ENROL, EnrolRequest(dataset=schema.name, schema_sha256=schema.sha256()), EnrolReply.from_record)
    refused = [f"{reply.site}: {reply.reason}" for reply in enrolled.values() if not reply.accepted]
    if refused:
        raise UsageError("; ".join(refused))
    participants = {
        reply.site: Participant(node_id=nodes[node], rows_high=reply.rows_high, version=reply.version)
        for node, reply in enrolled.items()
    }
    layout = study_layout(study, schema)
    sums = answers(SUMMARISE, SummariseRequest(), SummariseReply.from_record)
    encoder = fit_encoder(layout, merge([reply.summary for reply in sums.values()]), study.encode.scaler)
    trainable = study_trainable(study, schema, study.model.build("model"), seed=study.seed)
    strategy: FedAvg = study.strategy.build("strategy")
    strategy.assign(
        RunContext(participants=participants, encoder=encoder, plan=study.plan, rounds=study.rounds, seed=study.seed)
    )
    first = first_arrays(trainable, len(input_names(layout)))
    result = strategy.start(grid, to_record(first), study.rounds)
    if strategy.stopped:
        raise UsageError(strategy.stopped)
    return to_arrays(result.arrays), encoder


def _all_of(found: Answers[Reply]) -> Mapping[str, Reply]:
    if found.faults:
        raise UsageError("; ".join(found.faults.values()))
    return found.replies
