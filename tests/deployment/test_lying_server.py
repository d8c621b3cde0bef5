"""A server that lies to real gates: each of its requests is refused before a row is read, or gives noise."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from flfed.deployment.gate import gate, outbound
from flfed.deployment.gate.gate import Gate
from flfed.deployment.gate.message_check import message_defect
from flfed.deployment.gate.message_schema import StudyMessages
from flfed.deployment.gate.study_policy import StudyAdmission
from flfed.deployment.site_state.cohorts import SumRecord
from flfed.federation.client import masked as site_sums
from flfed.federation.client.masked import SiteSums
from flfed.federation.client.site_run import SiteRun
from flfed.paths import home
from flfed.refusals import Refusal
from flfed.rows.data import datasets
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site
from flfed.study.study import Study
from flfed.updates.aggregation.summer import Summer, Unsummed
from flfed.updates.checkpoints.made import Made
from flfed.updates.checkpoints.site_state import StateFiles
from flfed.updates.masks import pairs, verify
from flfed.updates.masks.pairs import TAG_ENTRIES, Exchange, SignedKey
from flfed.updates.messages.compare import COMPARE
from flfed.updates.messages.secure_sum import KEYS, KeysRequest, Masked
from flfed.updates.messages.summarise import SUMMARISE, SummariseRequest
from flfed.updates.messages.train import EVALUATE, TRAIN, TrainRequest
from tests.boosting import trees_study
from tests.deployment import conftest
from tests.deployment.summing import (
    Consortium,
    Coordinator,
    Impostor,
    LyingServer,
    SummingGrid,
    added,
    conduct,
    masked,
    said,
)

FOUR = ["site-01", "site-02", "site-03", "site-04"]
FIRST, LAST = FOUR[0], FOUR[3]
ABC = FOUR[:3]
ASKED = {"secure-aggregation": "on", "strategy.rounds": 3}
Patch = pytest.MonkeyPatch
Make = Callable[..., Consortium]


@pytest.fixture
def four(small_sites: Callable[..., list[Site]], small_study: str) -> Make:
    """A function that returns four sites, which approved a study with sums."""

    def make(sites: int = 4, others: Mapping[str, str] | None = None, **changes: Any) -> Consortium:
        study = Study.parse(small_study).replace({**ASKED, **changes})
        policy = Policy(disclosure="open", resplit=True, share=study.compare.share)
        return Consortium(small_sites(sites, rows=80, policy=policy), study, others)

    return make


def refused(answers: Callable[[], Message]) -> str:
    """Return why a gate did not answer, and hold it to having read no row."""
    conftest.OPENED.clear()
    conftest.WATCHING.append(True)
    try:
        reply = answers()
    finally:
        conftest.WATCHING.clear()
    assert reply.has_error()
    assert not [path for path in conftest.OPENED if path.endswith((".parquet", ".csv"))]
    return said(reply)


def total(answers: Mapping[str, Masked]) -> tuple[np.ndarray, np.ndarray]:
    """Add up what sites sent, as the server's own half does; raises Unsummed."""
    return Summer(cohort=tuple(FOUR), largest_entry=4.0).add(answers)


# What is asked of one site in another way than of the others.


def trained(server: LyingServer, **other: Any) -> dict[str, Masked]:
    """Ask all sites for a round, and the first one otherwise."""
    changes = {FIRST: other}
    return {site: masked(server.train(site, **changes.get(site, {}))) for site in FOUR}


def with_keys(found: Consortium) -> LyingServer:
    server = LyingServer(found)
    assert {said(reply) for reply in server.keys().values()} == {""}
    return server


def test_a_site_that_was_asked_something_else_leaves_no_sum(four: Make, monkeypatch: Patch):
    found = four()
    # The gates themselves let a study's requests alone in.
    monkeypatch.setattr(gate, "message_defect", lambda content, sections: None)
    answers = trained(with_keys(found), score=False)
    with pytest.raises(Unsummed, match="does not count its 4 sites"):
        total(answers)
    # Nothing is left of the vector's ring, either: its numbers are over all of it.
    sums = np.add.reduce([one.vector for one in answers.values()], dtype=np.uint32).astype(np.int32)
    assert np.abs(sums.astype(float)).max() > 2.0**27
    # Where masks are not bound to the request, there is a sum.
    without_request(monkeypatch)
    total(trained(with_keys(four_again(found)), score=False))


def without_request(patch: Patch) -> None:
    patch.setattr(site_sums, "request_sha256", lambda kind, request: "0" * 64)


def test_nobody_chooses_by_which_rows_updates_are_weighed(four: Make):
    """Of many more rows than sites have each update would weigh next to nothing, and rounding would take its place."""
    server = LyingServer(four())
    for most in (98, 990, 10**12):
        assert {said(reply) for reply in server.keys(most_rows=most).values()} == {str(Refusal("cohort-unfit"))}
    assert {said(reply) for reply in server.keys().values()} == {""}


def test_honest_requests_give_the_sum_of_all_sites_and_of_no_other_number_of_them(four: Make):
    answers = trained(with_keys(four()))
    total(answers)
    fewer = {site: answers[site] for site in ABC}
    with pytest.raises(Unsummed, match="site-04"):
        total(fewer)
    # Added up all the same, three of four are noise.
    with pytest.raises(Unsummed, match="does not count its 3 sites"):
        Summer(cohort=tuple(ABC), largest_entry=4.0).add(fewer)


# What is shown as the total of the step before.


def changed(whole: Masked, by: int = 1, at: int = 5) -> Masked:
    sums = whole.sums.copy()
    sums[at] += np.uint64(by)
    return replace(whole, sums=sums)


def moved(whole: Masked) -> Masked:
    """Change one entry of the updates' sum by one."""
    vector = whole.vector.copy()
    vector[3] += 1
    return replace(whole, vector=vector)


def halved(whole: Masked) -> Masked:
    """Halve each number of a total, but for the count and the tag."""
    sums = whole.sums.copy()
    sums[1:-TAG_ENTRIES] = (sums[1:-TAG_ENTRIES].view(np.int64) // 2).view(np.uint64)
    return replace(whole, sums=sums)


def of_three_sites(server: LyingServer) -> Masked:
    """Show the sum of three sites, said to be of four."""
    parts = [masked(server.ask(site, SUMMARISE, SummariseRequest())) for site in ABC]
    whole = added(parts)
    whole.sums[0] = 4
    return whole


TOTALS: dict[str, tuple[int, Callable[[LyingServer], Masked]]] = {
    "changed by one": (1, lambda server: changed(server.last_total())),
    "its tag changed by one": (1, lambda server: changed(server.last_total(), at=-2)),
    "halved": (1, lambda server: halved(server.last_total())),
    "of three sites": (1, of_three_sites),
    "an update changed by one": (2, lambda server: moved(server.last_total(1))),
    "a round's losses changed": (2, lambda server: changed(server.last_total(1), at=3)),
    "the sums over rows once more": (2, lambda server: server.last_total(0)),
    "of the round before": (3, lambda server: server.last_total(1)),
    "zeros": (2, lambda server: server.no_total(1)),
}  # fmt: skip
"""Totals that are shown in a round."""
UNVERIFIED = str(Refusal("total-unverified"))


@pytest.mark.parametrize("lie", TOTALS)
def test_a_total_that_is_not_the_sum_of_all_sites_is_refused_and_ends_the_sites_part(four: Make, lie: str):
    server = with_keys(four())
    round, show = TOTALS[lie]
    honest, shown = server.last_total(round - 1), show(server)
    assert refused(partial(server.train, FIRST, round, total=shown)) == UNVERIFIED
    # It has one try: the true total comes too late.
    assert said(server.train(FIRST, round, total=honest)) != ""
    assert said(server.train(LAST, round, total=honest)) == ""


def test_where_no_tag_is_checked_a_total_of_the_servers_choice_is_taken(four: Make, monkeypatch: Patch):
    monkeypatch.setattr(verify, "compute_tag", lambda *given: 0)
    server = with_keys(four())
    chosen = halved(server.last_total())
    chosen.sums[-TAG_ENTRIES:] = 0
    for site in FOUR:
        assert said(server.train(site, total=chosen)) == ""


def test_sites_that_were_shown_different_totals_have_no_sum(four: Make, monkeypatch: Patch):
    """It takes a site that works for the server, which has the key of the tags then."""
    monkeypatch.setattr(verify, "compute_tag", lambda *given: 0)
    monkeypatch.setattr(site_sums, "request_sha256", same_for_all_totals(site_sums.request_sha256))

    def play(server: LyingServer) -> None:
        zeros = np.zeros(TAG_ENTRIES, np.uint64)
        sums = np.concatenate([server.last_total().sums[:-TAG_ENTRIES], zeros])
        honest = replace(server.last_total(), sums=sums)
        other = changed(honest, by=2**50, at=5)
        total({site: masked(server.train(site, total=other if site == FIRST else honest)) for site in FOUR})

    found = four()
    with pytest.raises(Unsummed, match="does not count its 4 sites"):
        play(with_keys(found))
    # Bound to the request alone, the two would be added up.
    monkeypatch.setattr(SiteSums, "bound", lambda sums, exchange: exchange)
    play(with_keys(four_again(found)))


def same_for_all_totals(real: Any) -> Any:
    """Return the hash of a request whose total is left out of it."""
    nothing = Masked(vector=np.zeros(0, np.uint32), sums=np.zeros(0, np.uint64))

    def hashed(kind: str, request: Any) -> str:
        return str(real(kind, replace(request, total=nothing) if getattr(request, "total", None) else request))

    return hashed


def test_a_coordinator_chooses_neither_what_is_scored_nor_when_rounds_end(four: Make):
    server = with_keys(four())
    assert "'score' that does not fit" in said(server.train(FIRST, score=False))
    # Only the last model is scored alone, and nothing else is compared.
    early = replace(server.evaluation(), round=2, **server.crossing(1))
    assert "'round' that does not fit" in said(server.ask(FIRST, EVALUATE, early))
    assert said(server.ask(FIRST, COMPARE, server.comparison())) == str(Refusal("rounds-over"))
    unscored = replace(server.comparison(), total=server.last_total(3))
    assert said(server.ask(FIRST, COMPARE, unscored)) == str(Refusal("rounds-over"))
    for chosen in ({"offset_deviation": 1.0}, {"odds_centre": 1.0, "odds_spread": 1.0}):
        asked = replace(server.comparison(scored=True), **chosen)
        assert "not fit the study" in said(server.ask(FIRST, COMPARE, asked))
    assert said(server.ask(FIRST, COMPARE, server.comparison(scored=True))) == ""


def test_where_the_losses_end_a_run_no_site_goes_on(four: Make):
    stops = {"plan.validation": 0.3, "plan.lr": 5.0, "strategy.select": "best", "strategy.patience": 1}
    found = four(**stops, **{"strategy.rounds": 9})
    entry = Coordinator(found).run()
    assert entry.status == "completed" and 1 <= entry.rounds < 9
    server = LyingServer(found, "20261120-000009-aaaa")
    server.keys()
    for site in FOUR:
        assert said(server.train(site, entry.rounds + 1)) == str(Refusal("rounds-over"))


def test_steps_that_the_coordinator_takes_the_sites_take_too(four: Make):
    found = four(**{"strategy.rounds": 8, "plan.lr": 7.0})
    entry = Coordinator(found).run()
    assert entry.status == "completed", entry.reason


def test_rounds_follow_each_other(four: Make):
    server = with_keys(four())
    second = server.request(2)
    assert said(server.ask(FIRST, TRAIN, replace(second, round=3))) == str(Refusal("round-left-out", round=3))
    assert said(server.ask(FIRST, TRAIN, second)) == ""


def streams_of_run(found: Consortium, monkeypatch: Patch, site: str = FIRST) -> list[bytes]:
    """Return the keys of all streams that a site's masks had in a run, whose replies each left once."""
    real, mask = pairs.exchange_key, site_sums.mask
    streams, masking = list[bytes](), list[str]()

    def noted(secret: bytes, purpose: str, exchange: Exchange, *about: str | int) -> bytes:
        key = real(secret, purpose, exchange, *about)
        if masking[-1] == site:
            streams.append(key)
        return key

    def masks(name: str, *given: Any) -> Any:
        masking.append(name)
        return mask(name, *given)

    monkeypatch.setattr(pairs, "exchange_key", noted)
    monkeypatch.setattr(site_sums, "mask", masks)
    outcome = conduct(found, SummingGrid(found))
    assert outcome.status == "completed", outcome.reason
    return streams


@pytest.mark.parametrize("kind", ["averaging", "trees"])
def test_no_stream_of_a_run_is_used_twice(small_sites, small_study, kind, monkeypatch):
    asked = {**ASKED, "compare.share": "sum"}
    text = trees_study(small_study, **asked) if kind == "trees" else Study.parse(small_study).replace(asked).text
    found = Consortium(small_sites(3, rows=120), Study.parse(text))
    streams = streams_of_run(found, monkeypatch)
    # With each of two others: sums over rows (trees: by cell, too), rounds (trees: levels), last losses, figures.
    rounds = 3 * found.study.exchanges_of_round if kind == "trees" else 3
    assert len(streams) == 2 * (1 + (kind == "trees") + rounds + 1 + 1)
    assert len(set(streams)) == len(streams)


def test_masks_bound_to_the_kind_alone_would_use_streams_twice(four: Make, monkeypatch: Patch):
    without_request(monkeypatch)
    monkeypatch.setattr(Exchange, "to_list", lambda exchange: [exchange.kind])
    streams = streams_of_run(four(), monkeypatch)
    assert len(set(streams)) < len(streams)


# Who is in the cohort, and by whose signature.


def own_gate(server: LyingServer, name: str) -> bytes:
    """Sign as a gate that nobody pinned."""
    return Impostor(name).signed(server.study, server.run)


def borrowed(server: LyingServer, name: str) -> bytes:
    """Put a key of the server into what the site's gate signed."""
    about = {"study_sha256": server.study.sha256(), "run": server.run, "repeat": 0}
    real = SignedKey.read(server.signed(name), **about)
    assert isinstance(real, SignedKey)
    return replace(real, public_key=Impostor(name).key.public.hex()).pack()


def of_another_run(server: LyingServer, name: str) -> bytes:
    """Show what the site's gate signed in another run."""
    return LyingServer(server.consortium, "20261120-000007-aaaa").signed(name)


FORGED = {
    own_gate: "the gate of site 'site-02' has another key than the one that is pinned here",
    borrowed: "the key of site 'site-02' is not signed by its gate",
    of_another_run: "the key of site 'site-02' is not signed by its gate for this study, run and repeat",
    lambda server, name: b"": "a site's signed key for the run cannot be read",
}


@pytest.mark.parametrize("forge", FORGED)
def test_a_site_takes_no_key_that_the_other_sites_gate_has_not_signed_for_this_run(four: Make, forge: Any):
    server = LyingServer(four())
    keys = {name: server.signed(name) for name in FOUR} | {"site-02": forge(server, "site-02")}
    request = KeysRequest(cohort=",".join(FOUR), most_rows=99, signed=tuple(keys.values()))
    assert FORGED[forge] in refused(lambda: server.ask(FIRST, KEYS, request))
    assert "key of this run is not here" in said(server.train(FIRST))


COHORTS = {
    ("site-01", "site-02", "site-03"): "the run is without site-04, which the approval here names",
    (*FOUR, "x-00"): "its section 'signed' has lists of a wrong length",
    ("site-01", "site-02", "site-03", "x-00"): "site 'x-00' is in the run, and its key is not pinned here",
    ("site-02", "site-03", "site-04"): "the sites of the run are named without this one",
}


@pytest.mark.parametrize("cohort", COHORTS)
def test_a_cohort_is_exactly_the_sites_of_the_approval(four: Make, cohort: tuple[str, ...]):
    server = LyingServer(four())
    keys = {name: server.signed(name) for name in FOUR} | {"x-00": Impostor("x-00").signed(server.study, server.run)}
    request = KeysRequest(cohort=",".join(cohort), most_rows=99, signed=tuple(keys[name] for name in cohort))
    server.consortium.restart(FIRST)  # it has not opened its rows yet
    assert COHORTS[cohort] in refused(lambda: server.ask(FIRST, KEYS, request))


def unmasked(server: LyingServer, impostors: Mapping[str, Impostor], vector: Masked, request: TrainRequest) -> int:
    """Return the count before a site's numbers, once the masks with all keys of the server are off."""
    keys = [server.signed(FIRST), *(one.signed(server.study, server.run) for one in impostors.values())]
    about = {"study_sha256": server.study.sha256(), "run": server.run, "repeat": 0}
    read = [key for one in keys if isinstance(key := SignedKey.read(one, **about), SignedKey)]
    made = Made.read(StateFiles(FIRST, server.run))
    assert made is not None and made.exchange.request_sha256 == site_sums.request_sha256(TRAIN, request)
    exchange = made.exchange
    count = vector.vector.copy()
    for name, one in impostors.items():
        secret = pairs.pair_secrets(name, one.key, read, 99)
        assert isinstance(secret, dict)
        masks = pairs.mask(name, {FIRST: secret[FIRST]}, exchange, vector.vector.size, vector.sums.size)
        count = count + masks[0]
    return int(count[0])


def test_without_pins_a_cohort_of_the_servers_own_keys_reads_a_sites_update(four: Make, monkeypatch: Patch):
    found = four()
    server = LyingServer(found)
    impostors = {name: Impostor(name) for name in FOUR[1:]}
    shown = {name: one.signed(server.study, server.run) for name, one in impostors.items()}
    assert said(server.keys(shown=shown)[FIRST]) != ""
    monkeypatch.setattr(site_sums, "check_cohort", lambda *given, **named: None)
    assert said(server.keys(shown=shown)[FIRST]) == ""
    # Each of the server's own sites has the key of the tags.
    request = server.request(total=server.crafted(impostors[LAST]))
    assert unmasked(server, impostors, masked(server.ask(FIRST, TRAIN, request)), request) == 1


def test_a_run_has_one_cohort_with_one_key_of_each_site(four: Make):
    found = four(3, {"x-00": (own := Impostor("x-00")).fingerprint})
    server = LyingServer(found)
    server.names = [*ABC, "x-00"]

    def keys(key: Impostor = own, **given: Any) -> set[str]:
        replies = server.keys(shown={"x-00": key.signed(server.study, server.run)}, **given)
        return {said(one) for one in replies.values()}

    assert keys() == {""} == keys()
    # A second key of the server's own site, signed by its gate.
    other = {str(Refusal("cohort-other"))}
    assert keys(Impostor("x-00", own.signing)) == other
    # The site's key stays as it was signed, and its private half is gone.
    kept = {path.stem for path in (home() / "sites" / FIRST / "runs" / server.run).iterdir()}
    assert site_sums.SIGNED in kept and site_sums.KEY not in kept and server.signed(FIRST) == server.signed(FIRST)


def test_an_approval_with_other_pins_in_mid_run_ends_the_sites_part(four: Make):
    found = four(5)
    server, sites = LyingServer(found), sorted(found.sites)
    assert not any(map(said, server.keys().values()))
    assert masked(server.train("site-02")) is not None
    few = {site: found.pins[site] for site in sites[:3]}
    found.approve(FIRST, pins=few, co_sites=sorted(few))
    # Another run of Flower has the name of the first, and says that three take part.
    server.contexts[FIRST].run_config["sites"] = ",".join(few)
    assert said(server.train(FIRST)) == str(Refusal("cohort-other-before", dataset="small", sites=", ".join(sites)))


def test_a_keys_message_is_measured_before_it_is_decoded(small_study: str, small_sites: Any):
    request = KeysRequest(cohort=",".join(FOUR), most_rows=99, signed=(bytes(2000),) * 4)
    messages = StudyMessages(
        Study.parse(small_study).replace(ASKED), datasets.load("small").schema, small_sites(4)[0],
        cohort={"cohort": ",".join(FOUR)},
    )  # fmt: skip
    defect = message_defect(request.to_record(), messages.incoming(KEYS))
    assert defect is not None and "signed" in defect


# What left in another run, study or cohort before.

ALONE = {"secure-aggregation": "off"}
OTHER = {"plan.lr": 0.05}
NETWORK = {"model.name": "mlp", "model.hidden": [4]}
ANEW = {"seed": 8}
"""Settings of a model that begins with drawn numbers, and of other ones."""
SHARED_SUM = {"compare.share": "sum"}


def alone(found: Consortium, sites: list[str]) -> Consortium:
    """Return the same gates with a study whose updates cross by themselves."""
    return found.approved(found.study.replace(ALONE), sites)


def run_of(found: Consortium, run: str, sites: list[str] | None = None) -> set[str]:
    """Give sites keys where the study has sums, and ask them to train; return why they do not."""
    server = LyingServer(found, run, sorted(found.sites))
    asked = sites or sorted(found.sites)
    keyed = server.keys() if found.study.aggregation.sums_updates else {}
    return {said(keyed[site]) if site in keyed and said(keyed[site]) else said(server.train(site)) for site in asked}


def by_study(patch: Patch) -> None:
    """Keep cohorts by study in place of by dataset."""
    facts_of = StudyAdmission.facts

    def facts(own: StudyAdmission, config: Any) -> dict[str, Any]:
        facts = facts_of(own, config)
        return {**facts, "dataset": facts["study_sha256"]}

    patch.setattr(StudyAdmission, "facts", facts)


def three_alone_then_four_in_a_sum(found: Consortium) -> set[str]:
    assert run_of(alone(found, ABC), "20261120-000001-aaaa") == {""}
    return run_of(found, "20261120-000002-aaaa", ABC)


def a_sum_then_one_alone(found: Consortium) -> set[str]:
    assert run_of(found, "20261120-000001-aaaa") == {""}
    return run_of(alone(found, FOUR), "20261120-000002-aaaa")


def second_study_without_one(found: Consortium) -> set[str]:
    assert run_of(found, "20261120-000001-aaaa") == {""}
    return run_of(found.approved(found.study.replace(OTHER), ABC), "20261120-000002-aaaa")


def figures_without_one(found: Consortium) -> set[str]:
    """Compare alone in a second study, whose figures are added up over three of the four."""
    assert run_of(found, "20261120-000001-aaaa") == {""}
    second = found.approved(found.study.replace(OTHER), ABC)
    server = LyingServer(second, "20261120-000002-aaaa")
    server.keys()
    return {said(server.ask(site, COMPARE, server.comparison(scored=True))) for site in ABC}


OTHER_BEFORE = str(Refusal("cohort-other-before", dataset="small", sites=", ".join(FOUR)))
BEFORE: dict[Callable[[Consortium], set[str]], tuple[dict[str, Any], str]] = {
    three_alone_then_four_in_a_sum: ({}, str(Refusal("cohort-alone-before", dataset="small"))),
    a_sum_then_one_alone: ({}, OTHER_BEFORE),
    second_study_without_one: ({}, OTHER_BEFORE),
    figures_without_one: (SHARED_SUM, OTHER_BEFORE),
}


@pytest.mark.parametrize("play", BEFORE)
def test_a_dataset_has_one_cohort_over_all_studies(four: Make, play: Any, monkeypatch: Patch):
    changes, why = BEFORE[play]
    found = four(**changes)
    assert play(found) == {why}
    kinds = [line.kind for line in found.lines(FIRST) if line.facts.get("run") == "20261120-000002-aaaa"]
    assert set(kinds) <= {"enrol", "keys", "refused"}
    # Kept by study, both sums leave: their difference is one site's part.
    by_study(monkeypatch)
    assert play(four_again(found)) == {""}


def four_again(found: Consortium) -> Consortium:
    """Return the same sites in a home without anything of before."""
    shutil.rmtree(home() / "sites")
    return Consortium(list(found.sites.values()), found.study)


CHANGES = {
    "the others": (FOUR, {"site-05"}),
    "all": ((*FOUR, "site-05"), set[str]()),
}
"""Who approves other sites, and who takes no part in a run of five then."""


@pytest.mark.parametrize("who", ["the others", "all"])
def test_a_site_that_joins_decides_too(four: Make, who: str):
    found = four(5, **NETWORK)
    agreed, without = CHANGES[who]
    first = found.approved(found.study, FOUR)
    for site in FOUR:
        first.restart(site)
    assert run_of(first, "20261120-000001-aaaa") == {""}
    found.study = found.study.replace(ANEW)
    for site in found.sites:
        found.approve(site, changed_sites=site in agreed)
        found.restart(site)
    server = LyingServer(found, "20261120-000002-aaaa")
    refusals = {site: said(reply) for site, reply in server.keys().items()}
    assert {site for site, why in refusals.items() if why} == without
    assert all("to take part, at this site: flfed site approve STUDY --changed" in refusals[site] for site in without)
    if not without:
        assert {said(server.train(site)) for site in found.sites} == {""}
        # From then on the first cohort is another one.
        assert run_of(found.approved(found.study.replace(OTHER), FOUR), "20261120-000003-aaaa") != {""}


def test_who_had_another_cohort_before_says_so_in_later_runs_too(four: Make):
    found = four(5, **NETWORK)
    first = found.approved(found.study, FOUR)
    assert run_of(first, "20261120-000001-aaaa") == {""}
    found.study = found.study.replace(ANEW)
    for site in found.sites:
        found.approve(site, changed_sites=True)
        found.restart(site)
    assert run_of(found, "20261120-000002-aaaa") == {""}
    # Whoever approves a later study without a word of it takes no part; with it all do.
    other = found.study.replace(OTHER)
    later = found.approved(other)
    server = LyingServer(later, "20261120-000003-aaaa")
    refusals = {site: said(reply) for site, reply in server.keys().items()}
    assert all("cohort" in why or "other sites" in why for why in refusals.values()), refusals
    assert run_of(found.approved(other, changed_sites=True), "20261120-000004-aaaa") == {""}


@pytest.mark.parametrize("changes", [OTHER, ALONE])
def test_after_a_change_no_model_is_begun_with_that_was_trained_from_before(four: Make, changes: dict[str, Any]):
    found = four(5, **NETWORK)
    first = found.approved(found.study, FOUR)
    assert run_of(first, "20261120-000001-aaaa") == {""}
    sites = FOUR if changes is ALONE else sorted(found.sites)
    same = found.approved(found.study.replace(changes), sites, changed_sites=True)
    refusals = run_of(same, "20261120-000002-aaaa", FOUR)
    assert refusals == {str(Refusal("start-trained-before"))}
    other = found.approved(same.study.replace(ANEW), sites, changed_sites=True)
    assert run_of(other, "20261120-000003-aaaa", sites) == {""}


# What a run asks twice.


def test_a_round_is_masked_once_and_for_one_request(four: Make, monkeypatch: Patch):
    found = four()
    server = LyingServer(found)
    server.keys()
    first = masked(server.train(FIRST))
    np.testing.assert_array_equal(masked(server.train(FIRST)).vector, first.vector)
    found.restart(FIRST)
    np.testing.assert_array_equal(masked(server.train(FIRST)).vector, first.vector)
    monkeypatch.setattr(gate, "message_defect", lambda content, sections: None)
    request = server.request(score=False)
    answered = str(Refusal("step-answered", round=1))
    assert said(server.ask(FIRST, TRAIN, request)) == answered
    # Two walls: without the journal, what the site made of the last total.
    monkeypatch.setattr(outbound, "find_answer", lambda tables, asked: None)
    assert said(server.ask(FIRST, TRAIN, request)) == str(Refusal("round-left-out", round=1))


@pytest.mark.parametrize("end", ["compared", "state lost"])
def test_a_run_that_ended_here_is_never_answered_again(four: Make, end: str, monkeypatch: Patch):
    def play(run: str) -> list[str]:
        found = four()
        server = LyingServer(found, run)
        server.keys()
        masked(server.train(FIRST))
        if end == "compared":
            assert said(server.ask(FIRST, COMPARE, server.comparison(scored=True))) == ""
        else:
            shutil.rmtree(home() / "sites" / FIRST / "runs" / server.run)
        found.restart(FIRST)
        return [
            said(server.keys()[FIRST]),
            said(server.train(FIRST, total=server.no_total(1))),
            said(server.train(FIRST, round=2)),
        ]

    key_lost = str(Refusal("sums-key-lost"))
    # Of a run that was compared, round 2 left before: its very bytes come again.
    second = "" if end == "compared" else key_lost
    assert play("20261120-000001-aaaa") == [key_lost, str(Refusal("step-answered", round=1)), second]
    # What the site's state says of keys that were taken is what refuses a second one.
    monkeypatch.setattr(SumRecord, "has_keys", lambda own, run: False)
    shutil.rmtree(home() / "sites")
    assert play("20261120-000002-aaaa")[0] == ""


def test_sums_over_rows_are_masked_once_whatever_was_asked_since(four: Make, monkeypatch: Patch):
    def play(found: Consortium) -> Message:
        """Ask again after a change of policy, where rounds were asked in between."""
        server = LyingServer(found)
        server.keys()
        masked(server.ask(FIRST, SUMMARISE, SummariseRequest()))
        masked(server.train(FIRST))
        site = found.sites[FIRST]
        found.sites[FIRST] = replace(site, policy=site.policy.model_copy(update={"cell_minimum": 7}))
        found.restart(FIRST)
        return server.ask(FIRST, SUMMARISE, SummariseRequest())

    assert said(play(four())) == str(Refusal("step-answered", round=0))
    # Two vectors under one mask give their difference.
    monkeypatch.setattr(outbound, "find_answer", lambda tables, asked: None)
    monkeypatch.setattr(outbound, "note_answer", lambda *_: None)
    shutil.rmtree(home() / "sites")
    assert masked(play(four())) is not None


@pytest.mark.parametrize("kind", [SUMMARISE, TRAIN])
def test_what_two_processes_of_the_site_are_asked_at_once_both_answer(four: Make, kind: str):
    found = four()
    server = LyingServer(found)
    server.keys()
    request = SummariseRequest() if kind == SUMMARISE else server.request()
    context, gate = server.contexts[FIRST], found.gates[FIRST]
    message = Message(request.to_record(), dst_node_id=context.node_id, message_type=kind)
    assert gate.refusal(message, context) is None
    found.restart(FIRST)  # a second gate on the same folder, which is asked the same meanwhile
    assert said(server.ask(FIRST, kind, request)) == ""
    reply = gate._side(context).app()(message, context)
    assert said(gate.leaving(message, reply, context)) == ""


# What leaves by itself.


def sections(reply: Message) -> set[str]:
    return set() if reply.has_error() else set(reply.content)


FIGURES = {"scores", "scores-metrics", "holdout", "holdout-metrics", "offset", "summary", "figures", "arms"}


def test_a_server_that_skips_the_keys_gets_no_sum_no_update_and_no_figure_of_a_round(four: Make):
    server = LyingServer(four())
    for site in FOUR:
        assert "summary" not in sections(server.ask(site, SUMMARISE, SummariseRequest())), site
    assert "key of this run is not here" in said(server.train(FIRST))
    request = TrainRequest(round=4, rounds=3, fit=False, **server.crossing(3))
    assert not sections(server.ask(LAST, EVALUATE, request)) & FIGURES
    assert "summary" not in sections(server.ask(LAST, COMPARE, server.comparison()))


def test_a_study_that_was_approved_with_sums_gets_no_plain_update(four: Make, monkeypatch: Patch):
    found = four()
    model = LyingServer(found).model()
    monkeypatch.setattr(SiteRun, "sums", lambda own, study: None)
    monkeypatch.setattr(SiteRun, "completed", lambda own, request, session: replace(request, **model))
    # What would be a plain update all the same is held back, since it is none of the approved study.
    assert "its train reply is held back" in said(LyingServer(found).train(FIRST))
    monkeypatch.setattr(Gate, "leaving", lambda own, message, reply, *given: reply)
    update = LyingServer(found, "20261120-000002-aaaa").train(FIRST).content["arrays"]
    assert np.abs(update["weight"].numpy()).max() > 0


def other_requests(server: LyingServer) -> dict[str, TrainRequest]:
    first = server.request()
    return {
        "'round' that does not fit": replace(first, round=server.study.rounds + 1),
        "'rounds' that does not fit": replace(first, rounds=9),
        "'fit' that does not fit": replace(first, fit=False),
        "it has 2 sections too many": replace(first, total=None, **server.model()),
        "'vector' of another shape": replace(first, total=replace(server.no_total(1), vector=np.zeros(2, np.uint32))),
    }


def test_a_round_that_was_not_approved_is_not_answered(four: Make):
    server = LyingServer(four())
    server.keys()
    for text, request in other_requests(server).items():
        assert text in refused(partial(server.ask, FIRST, TRAIN, request)), text


@pytest.mark.parametrize("kind", [EVALUATE, COMPARE])
def test_a_second_model_is_neither_evaluated_nor_compared(four: Make, kind: str):
    server = with_keys(four())

    def ask(change: Callable[[Masked], Masked] = lambda whole: whole) -> str:
        asked = server.evaluation() if kind == EVALUATE else server.comparison(scored=True)
        return said(server.ask(FIRST, kind, replace(asked, total=change(asked.total))))

    assert ask() == ""
    assert ask(partial(changed, at=2)) == str(Refusal("step-answered", round=0))
    assert ask() == ""
