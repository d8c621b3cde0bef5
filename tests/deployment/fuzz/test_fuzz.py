"""Changed messages at the border, at whole gates and at a whole coordinator: no crash, and nothing unfit is answered.

`make fuzz N=…` sends N messages; FLFED_FUZZ and FLFED_FUZZ_SEED say how many, and from which seed.
"""

import logging
import os
from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle
from typing import Any

import pytest
from flwr.app import Context, Message

from flfed.deployment.gate import message_check
from flfed.deployment.gate.message_schema import StudyMessages
from flfed.federation.client.client import SiteClient
from flfed.federation.engines.inprocess import InProcessGrid
from flfed.federation.recording.recorder import Recorder
from flfed.federation.recording.run_record import Outcome
from flfed.federation.server.server import FederatedRun
from flfed.records.store.writer import RunStore
from flfed.rows.data import datasets
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import CachedSite, Site
from flfed.study.study import Study
from flfed.updates.messages.enrol import EnrolRequest
from flfed.updates.messages.kinds import ENROL, KINDS, asks
from tests.deployment.fuzz.targets import (
    Change,
    Found,
    GateTarget,
    Template,
    fuzz_border,
    fuzz_coordinator,
    fuzz_gates,
    templates_of,
)
from tests.deployment.summing import Consortium, SummingGrid, begun, conduct

pytestmark = [pytest.mark.studies, pytest.mark.timeout(7200)]

SEED = int(os.environ.get("FLFED_FUZZ_SEED", "20261128"))
MESSAGES = int(os.environ.get("FLFED_FUZZ", "0"))
SUITE, PROOF = 1_000, 100_000
"""Messages at the border: in the suite, and as a proof. At whole gates it is a fiftieth."""


@pytest.fixture(autouse=True)
def unlogged() -> Iterator[None]:
    """Log nothing: pytest keeps each record with its frames, which would count as memory."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def count(messages: int, share: int = 1) -> int:
    return max((MESSAGES or messages) // share, 20)


class Summing:
    """One site of secure sums, as a gate's target."""

    def __init__(self, found: Consortium, name: str) -> None:
        self.found, self.name, self.study = found, name, found.study
        self.folder = found.folders[name]

    @property
    def gate(self) -> Any:
        return self.found.gates[self.name]

    def message(self, kind: str, content: Any) -> Any:
        grid = InProcessGrid(None, [self.name], {})  # type: ignore[arg-type]
        return grid.numbered(Message(content, dst_node_id=1, message_type=kind))

    def context(self, **changes: Any) -> Any:
        names = ",".join(sorted(self.found.sites))
        config = {"study": self.study.text, "repeat": 0, "run": "", "sites": names, **changes}
        return InProcessGrid(None, [self.name], config)._contexts[1]  # type: ignore[arg-type]


@pytest.fixture
def real(gated: Any, conducted_through: Any, small_sites: Any, small_study: str) -> Any:
    """Gates of an institution and of a site in secure sums, with the messages of a real run of each."""
    policy = Policy(outputs=("score-histogram",), daily_bytes=10**9, runs=50)
    site = gated(small_study, policy=policy)
    outcome, grid = conducted_through(site)
    assert outcome.status == "completed"
    # The first site may not begin again with the model that it trained from alone.
    network = {"model.name": "mlp", "model.hidden": [4]}
    study = Study.parse(small_study).replace({"secure-aggregation": "on", **network})
    sums = Consortium(small_sites(3, rows=80, policy=Policy(disclosure="open", resplit=True)), study)
    for name in sums.sites:  # one of which answered alone before
        sums.approve(name, changed_sites=True)
    summing = SummingGrid(sums)
    assert conduct(sums, summing).status == "completed"
    plain = list(zip(grid.asked, grid.replied, strict=True))
    masked = [(request, reply) for name, request, reply in summing.sent if name == "site-01"]
    return [(site, plain), (Summing(sums, "site-01"), masked)]


def templates(real: Any) -> list[Template]:
    return [one for site, sent in real for one in templates_of(site.gate, site.study.sha256(), sent)]


def targets(real: Any) -> list[GateTarget]:
    found = []
    for site, sent in real:
        kinds = frozenset(kind for kind in KINDS if asks(site.study, kind))
        found.append(GateTarget(site, kinds, [request for request, _ in sent]))
    return found


def check(found: Found, of: int) -> None:
    assert found.faults == [], found.faults[:10]
    assert found.messages >= of and found.refused > found.messages // 3


@pytest.mark.parametrize("messages", [SUITE, pytest.param(PROOF, marks=pytest.mark.proof)])
def test_the_border_refuses_what_is_unfit_and_never_fails(real: Any, messages: int):
    found = fuzz_border(templates(real), count(messages), SEED)
    check(found, count(messages))
    print(f"{found.messages} at the border, seed {SEED}: {1e6 * found.seconds / found.messages:.0f} us a message")


@pytest.mark.parametrize("messages", [SUITE, pytest.param(PROOF, marks=pytest.mark.proof)])
def test_whole_gates_answer_nothing_that_is_not_listed(real: Any, messages: int):
    found = fuzz_gates(targets(real), count(messages, 50), SEED)
    check(found, count(messages, 50))
    for site, _ in real:
        assert site.gate._ledger.problems() == []
    print(f"{found.messages} at whole gates, seed {SEED}: {found.accepted} answered")


class ChangedGrid(InProcessGrid):
    """Sites of one process whose replies are changed before they arrive."""

    def __init__(self, sites: list[Site], study: Study, change: Change) -> None:
        schema, by_name = datasets.load("small").schema, {site.name: site for site in sites}
        app = SiteClient(lambda name, _: by_name[name]).app()
        sections = {site.name: StudyMessages(study, schema, site) for site in sites}

        def answer(message: Message, context: Context) -> Message:
            reply = app(message, context)
            if not reply.has_error():
                kind = message.metadata.message_type
                change(kind, reply, sections[str(context.node_config["site"])].leaving(kind))
            return reply

        config = {"study": study.text, "repeat": 0, "run": "", "sites": ",".join(by_name)}
        super().__init__(answer, list(by_name), config)  # type: ignore[arg-type]


@pytest.mark.parametrize("messages", [SUITE, pytest.param(PROOF, marks=pytest.mark.proof)])
def test_a_coordinator_ends_each_run_of_changed_replies_in_order(small_sites: Any, small_study: str, messages: int):
    plain = Study.parse(small_study.replace("rounds = 5", "rounds = 2"))
    studies = cycle([plain, plain.replace({"secure-aggregation": "on"})])
    policy = Policy(disclosure="open", resplit=True)
    sites = [CachedSite.of(site) for site in small_sites(4, rows=80, policy=policy)]

    def conducted(change: Change) -> Outcome:
        """Conduct a run of plain updates, then one of secure sums."""
        study = next(studies)
        grid = ChangedGrid(sites, study, change)
        with RunStore.open() as store:
            recorder = Recorder(begun(store, study, "inprocess"), "roc_auc_score", study.rounds)
            return FederatedRun(grid, study, recorder).conduct()

    found = fuzz_coordinator(conducted, count(messages, 50), SEED)
    assert found.faults == [], found.faults[:10]
    assert found.accepted
    print(f"{found.messages} at a coordinator, seed {SEED}: {found.accepted} runs completed, {found.refused} stopped")


def shapes_left_out(*_: Any) -> None:
    """A border that does not look at arrays."""


def behind_the_border(record: Any) -> Any:
    """Fail at every enrolment that passes the border."""
    raise KeyError("schema")


def test_planted_faults_are_found(real: Any, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:
        patch.setattr(message_check, "_arrays_defect", shapes_left_out)
        found = fuzz_border(templates(real), SUITE, SEED)
        assert any(fault.startswith("what is unfit was accepted") for fault in found.faults)
    with monkeypatch.context() as patch:
        patch.setattr(EnrolRequest, "from_record", behind_the_border)
        # A sixth of the messages are as they were, so that of 300 enrolments some meet the fault from every seed.
        enrolments = [
            replace(target, requests=[one for one in target.requests if one.metadata.message_type == ENROL])
            for target in targets(real)
        ]
        found = fuzz_gates(enrolments, 300, SEED)
        assert sum(fault.startswith("an error of the code") for fault in found.faults) > 10
    assert fuzz_border(templates(real), SUITE, SEED).faults == []
