"""Two gates with different columns of the same people, before a coordinator that lies."""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from flfed.deployment.gate.study_policy import study_policy_refusal
from flfed.deployment.operator.secure_sums import Agreement, agreed
from flfed.deployment.site_state import approval
from flfed.errors import UsageError
from flfed.refusals import Refusal
from flfed.rows.data import datasets
from flfed.rows.data.holdout import Holdout
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site
from flfed.rows.data.sources import Frame
from flfed.rows.study_model import study_layout
from flfed.study.study import Study
from flfed.summaries.summary import schema_encoder
from flfed.updates.messages.compare import COMPARE, CompareRequest
from flfed.updates.messages.enrol import ENROL, EnrolRequest
from flfed.updates.messages.kinds import EVALUATE, STATISTIC, SUMMARISE, TRAIN
from flfed.updates.messages.summarise import SummariseRequest
from flfed.updates.messages.vertical import (
    ALIGN,
    ANNOUNCE,
    ANSWER,
    BLIND,
    MATCH,
    PARTIAL,
    PRODUCTS,
    RESIDUALS,
    RUN,
    SCORE,
    SUMS,
    AlignReply,
    AlignRequest,
    PartialReply,
    PartialRequest,
    Party,
)
from flfed.vertical import residuals
from flfed.vertical.alignment import BYTES
from flfed.vertical.label_party import LabelParty
from tests.approval_text import details, ten_lines
from tests.deployment.summing import Consortium, Impostor, SummingGrid

RUN_NAME = "20261120-000001-aaaa"
PEOPLE = 240
COLUMNS = {"bank": ("a1", "a2"), "shop": ("b1", "b2", "b3", "b4", "b5")}
ROUND = ((SCORE, "shop"), (RESIDUALS, "bank"), (PRODUCTS, "shop"), (SUMS, "bank"))
ORDER = (
    (ALIGN, 0, BLIND, "bank"),
    (ALIGN, 0, ANSWER, "shop"),
    (ALIGN, 0, MATCH, "bank"),
    *((PARTIAL, 1, *one) for one in ROUND),
    *((PARTIAL, 2, *one) for one in ROUND),
    *((PARTIAL, 3, *one) for one in ROUND[:2]),
)
"""All exchanges of a run of two rounds after the announcements."""
SCHEMA = """
format = 1
name = "small"
task = "binary"
target = "y"
group = "person"
[columns.person]
kind = "id"
[columns.y]
kind = "target"
values = ["no", "yes"]
"""
STUDY = """
format = 1
name = "parties"
purpose = "Test"
legal-basis = "none needed"
seed = 7
[dataset]
name = "small"
sites = ["bank", "shop"]
[model]
name = "logistic"
[strategy]
name = "vertical"
rounds = 2
[compare]
resamples = 200
"""
ALIGNED = Policy(disclosure="institution", outputs=("row-aligned",), exact_sums=("shop",))
LABELS = {"privacy.name": "label-dp", "privacy.label-epsilon": 3.0}
Sealed = Mapping[str, np.ndarray]


class Gates(Consortium):
    """Parties whose approvals pin keys without sums, as those of such a study do."""

    def approve(self, name: str, **changes: Any) -> None:
        super().approve(name, **{"pins": self.pins, **changes})


class Between:
    """A coordinator between two gates, which sends what a test wants.

    Attributes
    ----------
    waiting : dict of site to dict of site to array
        Parcels that have not arrived, by receiver.
    """

    def __init__(self, gates: Gates, run: str = RUN_NAME) -> None:
        self.gates, self.run = gates, run
        self.contexts = {str(one.node_config["site"]): one for one in SummingGrid(gates, run=run)._contexts.values()}
        self.waiting: dict[str, dict[str, np.ndarray]] = {name: {} for name in COLUMNS}
        self.sent: dict[tuple[str, int, int], RecordDict] = {}
        self.parties: tuple[Party, ...] = ()

    def ask(self, site: str, kind: str, content: Any) -> Message:
        record = content if isinstance(content, RecordDict) else content.to_record()
        message = Message(record, dst_node_id=self.contexts[site].node_id, message_type=kind)
        return self.gates.gates[site].answer(message, self.contexts[site])

    def why(self, site: str, kind: str, content: Any) -> str:
        """Return why a gate refuses a message, which is a sentence and no failure of it."""
        reply = self.ask(site, kind, content)
        assert reply.has_error()
        assert "Error" not in reply.error.reason
        return reply.error.reason

    def announced(self) -> None:
        """Have both parties say who they are."""
        found = []
        for site in COLUMNS:
            reply = self.ask(site, ALIGN, AlignRequest(exchange=ANNOUNCE))
            assert not reply.has_error(), reply.error
            found += AlignReply.from_record(reply.content).parties
        self.parties = tuple(found)

    def request(self, place: tuple[str, int, int, str], **changes: Any) -> AlignRequest | PartialRequest:
        kind, round, exchange, site = place
        given: dict[str, Any] = {"exchange": exchange, "sealed": dict(self.waiting[site]), **changes}
        if kind == ALIGN:
            return AlignRequest(**{"parties": self.parties, **given})
        return PartialRequest(**{"round": round, **given})

    def step(self, place: tuple[str, int, int, str]) -> Sealed:
        """Bring an exchange to its party, and take what it seals."""
        kind, round, exchange, site = place
        request = self.request(place)
        self.waiting[site] = {}
        reply = self.ask(site, kind, request)
        assert not reply.has_error(), (place, reply.error)
        self.sent[kind, round, exchange] = request.to_record()
        of = AlignReply if kind == ALIGN else PartialReply
        sealed = of.from_record(reply.content).sealed
        for receiver, parcel in sealed.items():
            self.waiting[receiver][site] = parcel
        return sealed

    def until(self, kind: str, round: int, exchange: int) -> tuple[str, int, int, str]:
        """Conduct the run up to an exchange, and return the place of that one."""
        self.announced()
        for place in ORDER:
            if place[:3] == (kind, round, exchange):
                return place
            self.step(place)
        raise AssertionError((kind, round, exchange))

    def finished(self) -> None:
        self.announced()
        for place in ORDER:
            self.step(place)


@pytest.fixture
def parties(small_sites: Any, tmp_path: Any) -> Callable[..., Gates]:
    """A function that returns two gates; policies by name, and how many people of the shop the bank has."""
    names = [name for columns in COLUMNS.values() for name in columns]
    schema = SCHEMA + "".join(f'[columns.{name}]\nkind = "number"\nrange = [-10, 10]\n' for name in names)
    (tmp_path / "root/datasets/small/schema.toml").write_text(schema)
    rng = np.random.default_rng(5)
    table = pd.DataFrame(rng.normal(0, 1, (PEOPLE, 7)).clip(-9, 9), columns=names)
    table = table.assign(person=[f"p{number}" for number in range(PEOPLE)])
    table = table.assign(y=np.where(rng.random(PEOPLE) < 1 / (1 + np.exp(-table.a1 - table.b1)), "yes", "no"))

    def make(overlap: int = PEOPLE, *, changes: Mapping[str, Any] = MappingProxyType({}), **policies: Policy) -> Gates:
        sites = []
        for name, columns in COLUMNS.items():
            kept = ["person", *columns, *(["y"] if name == "bank" else [])]
            rows = table[kept].copy()
            if name == "shop":
                rows["person"] = [f"p{number + PEOPLE - overlap}" for number in range(PEOPLE)]
            absent = [column for column in (*names, "y") if column not in kept]
            sites.append(
                Site(
                    name=name, dataset="small", source=Frame(rows), mapping=dict.fromkeys(absent), partial=True,
                    holds="rows" if name == "bank" else "columns", holdout=Holdout(share=0.3, salt=name),
                    policy=policies.get(name, ALIGNED),
                )
            )  # fmt: skip
        return Gates(sites, Study.parse(STUDY).replace(changes))

    return make


def test_a_run_through_both_gates_ends_with_figures(parties):
    between = Between(parties())
    between.finished()
    reply = between.ask("bank", COMPARE, compare_request(RUN_NAME))
    assert not reply.has_error(), reply.error
    assert [line.kind for line in between.gates.lines("shop")].count("partial") == 5
    assert {line.kind for line in between.gates.lines("shop")}.isdisjoint({"refused", "error", "compare"})


def compare_request(run: str) -> CompareRequest:
    layout = study_layout(Study.parse(STUDY), datasets.load("small").schema)
    named = np.frombuffer(hashlib.sha256(run.encode()).digest(), np.uint8)
    return CompareRequest(arrays={RUN: named}, encoder=schema_encoder(layout), sites=1)


def test_a_comparison_under_another_runs_name_is_refused(parties):
    between = Between(parties())
    between.finished()
    said = between.why("bank", COMPARE, compare_request("20261120-000002-aaaa"))
    assert said == "the message does not fit the exchanges before it"
    assert between.why("shop", COMPARE, compare_request(RUN_NAME)).startswith("the site has columns without an outcome")


def test_two_runs_of_one_study_have_other_noise_and_are_charged_twice(parties, monkeypatch: pytest.MonkeyPatch):
    drawn: list[np.ndarray] = []
    draw = LabelParty._noise
    monkeypatch.setattr(LabelParty, "_noise", lambda *given: drawn.append(draw(*given)) or drawn[-1])
    gates = parties(changes=LABELS, bank=ALIGNED.model_copy(update={"epsilon": 8.0, "exact_sums": ()}))
    for number in (1, 2):
        between = Between(gates, f"20261120-00000{number}-aaaa")
        between.finished()
        # The charge of the whole run is in the ledger before the first number with noise is drawn.
        kinds = [line.kind for line in gates.lines("bank") if line.text("run") == between.run]
        assert kinds.count("spent") == 1 and kinds.index("spent") < kinds.index("partial")
    spent = [line.facts for line in gates.lines("bank") if line.kind == "spent"]
    (release,) = spent[0]["releases"]
    assert (
        release["steps"] == 2 and [(line["unit"], line["releases"]) for line in spent] == [("outcome", [release])] * 2
    )
    assert not [line for line in gates.lines("shop") if line.kind == "spent"]
    assert len(drawn) == 8 and len({one.tobytes() for one in drawn}) == 8
    assert np.concatenate(drawn).std() == pytest.approx(release["noise"] * 3.0 * np.sqrt(2), rel=0.4)


def test_a_request_again_draws_no_other_noise_and_costs_nothing(parties):
    between = Between(parties(changes=LABELS))
    place = between.until(PARTIAL, 1, SUMS)
    request = between.request(place)
    first = between.ask("bank", PARTIAL, request)
    between.gates.restart("bank")
    again = between.ask("bank", PARTIAL, request)
    sealed = {PartialReply.from_record(one.content).sealed["shop"].tobytes() for one in (first, again)}
    assert len(sealed) == 1
    assert [line.kind for line in between.gates.lines("bank")].count("spent") == 1


@pytest.mark.parametrize(("named", "changes", "is_refused"), [
    (("shop",), {}, False), ((), {}, True), (("third",), {}, True), ((), LABELS, False),
])  # fmt: skip
def test_exact_sums_for_a_partner_that_the_policy_does_not_name_are_refused_before_an_approval(
    parties, named: tuple[str, ...], changes: dict[str, Any], is_refused: bool
):
    gates = parties(changes=changes, bank=ALIGNED.model_copy(update={"exact_sums": named}))
    refused = study_policy_refusal(gates.study, gates.sites["bank"])
    assert bool(refused) == is_refused
    assert not refused or str(refused).startswith("the study adds no noise to sums over outcomes")
    assert study_policy_refusal(gates.study, gates.sites["shop"]) is None
    if is_refused:
        assert Between(gates).why("bank", ALIGN, AlignRequest(exchange=ANNOUNCE)) == refused


def test_no_gate_answers_whose_policy_aligns_no_rows(parties):
    between = Between(parties(shop=Policy(disclosure="institution")))
    said = between.why("shop", ALIGN, AlignRequest(exchange=ANNOUNCE))
    assert said == "its policy lets no rows be aligned with those of other parties (outputs: row-aligned)"


@pytest.mark.parametrize("pinned", [(), ("bank",), ("bank", "third")])
def test_an_approval_without_the_fingerprints_of_all_gives_no_points(parties, pinned: tuple[str, ...]):
    between = Between(parties())
    between.gates.approve("bank", pins={name: between.gates.pins.get(name, "SHA256:a") for name in pinned})
    between.announced()
    assert between.why("bank", ALIGN, between.request(ORDER[0]))
    assert not sealed_to(between, "bank")


def sealed_to(between: Between, site: str) -> bool:
    """Tell whether a site answered an alignment beyond its announcement."""
    return any(line.kind == "align" and line.facts["level"] > 0 for line in between.gates.lines(site))


def test_a_key_that_another_one_signed_gets_no_points(parties):
    gates = parties()
    between = Between(gates)
    between.announced()
    bank, shop = between.parties
    stranger = Impostor("shop").signed(gates.study, RUN_NAME)
    for key in (stranger, bytes(BYTES), b"", bank.key):
        between.parties = (bank, replace(shop, key=key))
        assert between.why("bank", ALIGN, between.request(ORDER[0]))
    assert not sealed_to(between, "bank")


@pytest.mark.parametrize("lie", ["no label", "two labels", "the shop has it", "another number", "alone", "a third"])
def test_parties_other_than_they_announced_get_no_points(parties, lie: str):
    between = Between(parties())
    between.announced()
    bank, shop = between.parties
    between.parties = {
        "no label": (replace(bank, label=False), shop),
        "two labels": (bank, replace(shop, label=True)),
        "the shop has it": (replace(bank, label=False), replace(shop, label=True)),
        "another number": (replace(bank, identifiers=bank.identifiers + 1), shop),
        "alone": (bank,),
        "a third": (bank, shop, replace(shop, site="third")),
    }[lie]
    assert between.why("bank", ALIGN, between.request(ORDER[0]))
    assert not sealed_to(between, "bank")


def test_what_is_claimed_of_the_other_party_makes_another_secret(parties):
    between = Between(parties())
    between.announced()
    bank, shop = between.parties
    between.parties = (bank, replace(shop, columns=1))
    between.step(ORDER[0])
    between.parties = (bank, shop)
    assert "sealed to this one cannot be read" in between.why("shop", ALIGN, between.request(ORDER[1]))


def test_a_request_again_gets_the_same_bytes_and_another_one_nothing(parties):
    between = Between(parties())
    place = between.until(PARTIAL, 1, PRODUCTS)
    request = between.request(place)
    first = between.ask("shop", PARTIAL, request)
    between.gates.restart("shop")
    again = between.ask("shop", PARTIAL, request)
    sealed = [PartialReply.from_record(one.content).sealed["bank"].tobytes() for one in (first, again)]
    assert len(sealed[0]) > 1000
    assert sealed[0] == sealed[1]
    spoilt = between.waiting["shop"]["bank"].copy()
    spoilt[-1] ^= 1
    said = between.why("shop", PARTIAL, between.request(place, sealed={"bank": spoilt}))
    assert said == str(Refusal("step-answered", round=1))
    assert between.why("shop", PARTIAL, between.request(place, sealed={})) == said


def test_no_reply_is_sealed_again_after_the_policy_changed(parties):
    between = Between(parties())
    place = between.until(PARTIAL, 1, PRODUCTS)
    request = between.request(place)
    assert not between.ask("shop", PARTIAL, request).has_error()
    gates = between.gates
    gates.sites["shop"] = replace(gates.sites["shop"], policy=ALIGNED.model_copy(update={"runs": 7}))
    gates.restart("shop")
    # The first of the run's exchanges, then the one that draws masks: keys of the run seal neither twice.
    for kind, round, exchange in ((ALIGN, 0, ANSWER), (PARTIAL, 1, SCORE)):
        assert between.why("shop", kind, between.sent[kind, round, exchange])
    said = between.why("shop", PARTIAL, request)
    assert said == str(Refusal("step-answered", round=1))


@pytest.mark.parametrize("kind", [TRAIN, EVALUATE, SUMMARISE, STATISTIC, "query.audit", "query.score"])
def test_messages_of_other_studies_are_refused(parties, kind: str):
    between = Between(parties())
    between.announced()
    for site in COLUMNS:
        assert between.why(site, kind, SummariseRequest())


def test_an_alignment_is_one_of_the_runs_that_the_policy_allows(parties):
    gates = parties(shop=ALIGNED.model_copy(update={"runs": 2}))
    for number in (1, 2):
        Between(gates, f"20261120-00000{number}-aaaa").until(ALIGN, 0, MATCH)
    between = Between(gates, "20261120-000003-aaaa")
    said = between.why("shop", ALIGN, AlignRequest(exchange=ANNOUNCE))
    assert said == str(Refusal("too-many-runs", most=2, had=2))


@pytest.mark.parametrize("overlap", [0, 99])
def test_an_overlap_below_the_policys_gets_no_scores(parties, overlap: int):
    between = Between(parties(overlap))
    place = between.until(ALIGN, 0, MATCH)
    assert between.why("bank", ALIGN, between.request(place)).startswith("fewer than 100 rows are in common; do all")


def test_each_exchange_out_of_order_is_refused(parties):
    between = Between(parties())
    between.announced()
    for kind, round, exchange, site in ORDER[1:]:
        for sealed in ({}, {"bank": np.zeros(64, np.uint8)}, {"shop": np.zeros(64, np.uint8)}):
            place = (kind, round, exchange, site)
            assert between.why(site, kind, between.request(place, sealed=sealed))
    between.step(ORDER[0])
    assert between.why("bank", PARTIAL, PartialRequest(round=1, exchange=SUMS))
    for site, exchange in (("shop", BLIND), ("bank", ANSWER), ("shop", MATCH)):
        assert between.why(site, ALIGN, AlignRequest(exchange=exchange, parties=between.parties))
    for site, exchange in (("shop", RESIDUALS), ("bank", PRODUCTS), ("shop", SUMS), ("bank", SCORE)):
        assert between.why(site, PARTIAL, PartialRequest(round=1, exchange=exchange))


def test_a_parcel_of_another_round_or_exchange_or_way_is_refused(parties):
    between = Between(parties())
    between.announced()
    parcels = []
    for place in ORDER[:-1]:
        parcels += between.step(place).values()
    place = ORDER[-1]
    for parcel in parcels[:-1]:
        assert "sealed to this one cannot be read" in between.why(
            "bank", PARTIAL, between.request(place, sealed={"shop": parcel})
        )
    assert between.why("bank", PARTIAL, between.request(place, sealed={"bank": parcels[-1]}))
    assert between.why("bank", PARTIAL, between.request(place, sealed={}))
    between.step(place)


@pytest.mark.parametrize("spoil", ["section", "array", "kind", "shape", "empty", "long", "number", "stranger"])
def test_a_message_with_more_than_its_parcels_is_refused(parties, spoil: str):
    between = Between(parties())
    place = between.until(PARTIAL, 1, SCORE)
    record = between.request(place).to_record()
    parcel = between.waiting["shop"]["bank"]
    if spoil == "section":
        record["more"] = ConfigRecord({"a": 1})
    elif spoil == "number":
        record["config"]["exchange"] = 7
    else:
        arrays = {
            "array": {"bank": parcel, "more": parcel},
            "stranger": {"third": parcel},
            "kind": {"bank": parcel.astype(np.float32)},
            "shape": {"bank": parcel[None]},
            "empty": {"bank": parcel[:0]},
            "long": {"bank": np.zeros(10_000_000, np.uint8)},
        }[spoil]
        record["sealed"] = ArrayRecord({name: Array(value) for name, value in arrays.items()})
    assert between.why("shop", PARTIAL, record)
    between.step(place)


def test_the_gates_answer_enrolment_and_say_nothing_of_rows(parties):
    between = Between(parties())
    request = EnrolRequest(dataset="small", schema_sha256=datasets.load("small").schema.sha256())
    for site in COLUMNS:
        assert not between.ask(site, ENROL, request).has_error()


def test_a_withdrawn_approval_ends_the_run_in_its_middle(parties):
    between = Between(parties())
    place = between.until(PARTIAL, 1, PRODUCTS)
    approval.withdraw(between.gates.folders["shop"], "parties", by="B")
    assert between.why("shop", PARTIAL, between.request(place)).startswith("the study was withdrawn here")


@pytest.mark.parametrize(
    ("changes", "protection"), [({}, "No noise is added."), (LABELS, "noise on sums over outcomes (")]
)
def test_before_an_approval_stands_what_each_party_gives_and_nothing_of_a_shared_model(
    parties, changes: dict[str, Any], protection: str
):
    gates = parties(changes=changes)
    for (name, site), other in zip(gates.sites.items(), ("shop", "bank"), strict=True):
        agreement = Agreement(pins=gates.pins)
        lines = ten_lines(gates.study, site, [other], agreement=agreement)
        every = " ".join([*lines, *details(gates.study, site, [other], agreement=agreement)])
        for fact in (
            "blinded identifiers, sealed to the other parties",
            "numbers by row, or sums that depend on outcomes, sealed to another party",
            "A run needs at least 2 sites.",
            protection,
            "Worst case: a party that does not keep to the protocol reads this site's columns, or its outcomes.",
            f"Other parties: {other} ({gates.pins[other]}).",
            "person (id: rows of the parties are matched by it; it leaves blinded, sealed to another party)",
            "The coordinator learns how many people each table has, and how many rows are in common.",
        ):
            assert fact in every, fact
        assert ("figures over test rows" in every) == (name == "bank")
        assert "shared model." not in " ".join(lines)
        assert "crafted" not in " ".join(lines)
        for sentence in re.split(
            r"(?<=[.:]) ", " ".join(line for line in lines if line[:7] not in ("Columns", "Release"))
        ):
            assert len(sentence.split()) <= 22, sentence


def test_an_agreement_without_a_fingerprint_names_whose(parties):
    gates = parties()
    for sites, why in (({}, "the study has columns of other parties"), ({"shop": ""}, "of shop the fingerprint")):
        with pytest.raises(UsageError, match=why):
            agreed(gates.folders["bank"], gates.study, sites)


def test_ciphertexts_of_another_level_or_form_are_no_failure_of_a_gate():
    api, key = residuals._api(), residuals.ResidualKey.new()
    (whole,) = key.encrypt(np.linspace(-1, 1, 50))
    evaluator = api.Evaluator(residuals._context())
    for change in (evaluator.mod_switch_to_next_inplace, evaluator.transform_from_ntt_inplace):
        ciphertext = residuals._loaded(api.Ciphertext(), whole)
        change(ciphertext)
        spoilt = residuals._saved(ciphertext)
        assert residuals.multiply([spoilt], np.ones((50, 1)), key.public()) == Refusal("ciphertext-unfit")
    assert key.open([spoilt], 50, np.zeros(1)) == Refusal("ciphertext-unfit")


def test_rows_in_common_that_differ_in_one_person_from_those_of_another_run_get_no_sums(parties):
    Between(parties()).finished()
    other = Between(parties(overlap=PEOPLE - 1), run="20261128-120000-00aa")
    with pytest.raises(
        AssertionError, match="its rows differ by fewer than 10 people from rows that a run used before"
    ):
        other.until(ALIGN, 0, MATCH)
