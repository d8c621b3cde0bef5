"""Members whose shares do not unseal: the others sum without them, unless one of them opened the larger list."""

from collections.abc import Callable, Collection

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message

from flfed.federation.client.run_keys import CHAIN
from flfed.paths import home
from flfed.records.store.reader import RunReader
from flfed.rows.data import datasets
from flfed.rows.data.site import Site
from flfed.rows.session import SiteSession
from flfed.rows.study_model import study_layout
from flfed.study.study import Study
from flfed.summaries.summary import fit_encoder, merge
from flfed.updates.checkpoints.site_state import StateFiles, open_reply_cache
from flfed.updates.masking.question import rows_question
from flfed.updates.messages.fields import ndarrays
from flfed.updates.messages.secure_sum import LIST, UNMASK
from flfed.updates.messages.summarise import SUMMARISE
from flfed.updates.messages.train import TRAIN
from tests.deployment.summing import Consortium, Coordinator, Lie, SummingGrid, conduct, summing
from tests.deployment.test_secure_sums_killed import (
    ALL,
    LAST,
    ROUNDS,
    THREE,
    arrays_without,
    consortium,
    difference,
    ended,
    in_round,
    lists_by_question,
)

__all__ = ["consortium"]
Make = Callable[..., Consortium]


def spoiling(senders: str, receivers: str = ALL, kind: str = TRAIN, numbers: Collection[int] = range(1, 99)) -> Lie:
    """Return the lie of sites whose shares for some sites are random bytes, in their nth answers of a kind."""
    answered: list[str] = []

    def go(site: str, what: str, reply: Message) -> Message:
        if site not in senders.split(",") or what != kind:
            return reply
        answered.append(site)
        if answered.count(site) not in numbers:
            return reply
        masked = {name: values.copy() for name, values in ndarrays(reply.content, "masked").items()}
        for share, receiver in zip(masked["shares"], ALL.split(","), strict=False):
            if receiver in receivers.split(","):
                share[:] = np.random.default_rng(0).integers(0, 256, share.size)
        reply.content["masked"] = ArrayRecord({name: Array(values) for name, values in masked.items()})
        return reply

    return go


def asked(coordinator: Coordinator, kind: str) -> list[str]:
    """Return the sites that answered a kind of message, in order."""
    return [site for site, message, _ in coordinator.grid.sent if message.metadata.message_type == kind]


def lists_at(consortium: Consortium, site: str) -> list[str]:
    """Return the lists in a site's ledger, but of Table 1."""
    lines = [line.facts for line in consortium.lines(site) if "listed" in line.facts]
    return [str(line["listed"]) for line in lines if line["question-sha256"] != rows_question("small")]


def events(run: str, kind: str) -> list[str]:
    with RunReader.open() as reader:
        return [f"{event.site}: {event.reason}" for event in reader.events([run]) if event.kind == kind]


@pytest.mark.parametrize("own", ["its own too", "not its own"])
def test_one_of_four_that_seals_wrong_shares_to_all_is_left_out_and_after_two_sums_for_the_run(consortium, own):
    found = consortium()
    coordinator = Coordinator(found)
    ended(run := coordinator.run(lie=spoiling(LAST, ALL if own == "its own too" else THREE)))
    assert difference(run, arrays_without(found, in_round(1, LAST, TRAIN, times=99))) < 1e-6
    # One that can open its own share has opened the larger list, alone: nobody confirmed it.
    assert set(lists_at(found, "site-01")) == {THREE}
    assert asked(coordinator, LIST) == THREE.split(",") * (ROUNDS + 1)
    # In the third round it is not asked to train: what it would spend for that, no sum would have.
    assert asked(coordinator, TRAIN).count(LAST) == 2
    told = [line for line in events(run.run, "fault") if line.startswith(LAST) and "could not be opened" in line]
    assert [line.rpartition(": ")[2] for line in told] == [
        "the sum is made without it", "the run has no further sum with it",
    ]  # fmt: skip
    assert all("at site-01, site-02, site-03" in line for line in told)


def test_two_of_four_stop_the_run_and_each_of_the_others_names_both(consortium: Make):
    found = consortium()
    coordinator = Coordinator(found)
    ended(run := coordinator.run(lie=spoiling("site-03,site-04")), "stopped", 0)
    assert "0 sites opened the list of the sum, 3 are needed" in run.reason
    for site in ("site-01", "site-02"):
        named = f"{site}: the shares of 2 sites are not ones for this site and this sum: site-03, site-04"
        assert named in run.reason
    assert not asked(coordinator, LIST) and lists_by_question(found) == {}


def test_good_shares_to_one_site_only_stop_the_run_and_no_list_stands_beside_the_one_opened(consortium: Make):
    found = consortium()
    coordinator = Coordinator(found)
    ended(run := coordinator.run(lie=spoiling(LAST, "site-02,site-03")), "stopped", 0)
    assert "site-02: the share of site 'site-04' is not one for this site and this sum" in run.reason
    assert list(lists_by_question(found).values()) == [{ALL}]
    assert not asked(coordinator, LIST) and set(asked(coordinator, UNMASK)) == set(ALL.split(","))
    # Also where the run goes on: the list that was opened is asked for, and no other.
    ended(coordinator.run(run.run), "stopped", 0)
    assert list(lists_by_question(found).values()) == [{ALL}] and not asked(coordinator, LIST)


def keys_that_are_others(site: str, kind: str) -> bool:
    """Give the last site other links with all before it masks its first update: none opens a share of another."""
    if (site, kind) == (LAST, TRAIN):
        state = StateFiles(open_reply_cache(LAST, newest_run(LAST)))
        chain = state.read(CHAIN)
        assert chain is not None
        state.write(CHAIN, {**chain, "links": chain["links"] ^ 1})
    return False


def newest_run(site: str) -> str:
    return max(path.name for path in (home() / "sites" / site / "runs").iterdir())


def test_a_site_with_wrong_keys_names_all_others_and_is_the_one_left_out(consortium: Make):
    found = consortium()
    coordinator = Coordinator(found)
    ended(run := coordinator.run(absent=keys_that_are_others))
    assert difference(run, arrays_without(found, in_round(1, LAST, TRAIN, times=99))) < 1e-6
    refused = [
        line.facts["reason"] for line in found.lines(LAST) if line.kind == "error" and line.facts["asked"] == UNMASK
    ]
    assert refused and all(reason.endswith(": site-01, site-02, site-03") for reason in refused)


KILLED = {
    "once the first has refused": (1, "site-02", UNMASK), "before the smaller list": (1, "site-01", LIST),
    "between two confirmations": (1, "site-02", LIST), "before the smaller list is opened": (3, "site-01", UNMASK),
    "between two openings": (3, "site-02", UNMASK),
}  # fmt: skip
"""At which message of which site; each is asked twice for the list of all."""


@pytest.mark.parametrize(
    "where",
    [one if one == "between two confirmations" else pytest.param(one, marks=pytest.mark.proof) for one in KILLED],
)
def test_a_coordinator_that_is_killed_asks_for_no_third_list_and_counts_on(consortium: Make, where: str):
    found = consortium()
    coordinator = Coordinator(found)
    run = coordinator.run(lie=spoiling(LAST), absent=in_round(*KILLED[where], "crash"))
    assert run.status == "failed" and "killed" in run.reason
    trained = asked(coordinator, TRAIN).count(LAST)
    ended(run := coordinator.run(run.run, lie=spoiling(LAST)))
    assert difference(run, arrays_without(found, in_round(1, LAST, TRAIN, times=99))) < 1e-6
    assert all(lists == {THREE} for lists in lists_by_question(found).values())
    # Asked again is the first round alone, of which the site kept its answer; in the third it is not asked.
    assert trained + asked(coordinator, TRAIN).count(LAST) == 3


@pytest.mark.parametrize("opened_by", ["all", pytest.param("the first", marks=pytest.mark.proof)])
def test_a_list_that_an_earlier_run_opened_is_not_made_smaller_also_when_the_later_goes_on(consortium, opened_by):
    found = consortium()
    coordinator = Coordinator(found)
    coordinator.run(absent=in_round(1, "site-02", UNMASK, "crash") if opened_by == "the first" else killed_in_second)
    ended(run := coordinator.run(lie=spoiling(LAST)), "stopped", 0)
    assert "site-02: the share of site 'site-04'" in run.reason and not asked(coordinator, LIST)
    ended(coordinator.run(run.run, lie=spoiling(LAST)), "stopped", 0)
    assert not asked(coordinator, LIST)
    assert all(lists == {ALL} for lists in lists_by_question(found).values())
    # A run with shares that are right has the list of then.
    ended(coordinator.run())
    assert all(lists == {ALL} for lists in lists_by_question(found).values())


killed_in_second = in_round(2, "site-02", TRAIN, "crash")


@pytest.mark.parametrize(("spoilt", "listed"), [(1, THREE), (2, ALL)])
def test_a_later_round_of_the_same_model_is_the_same_question(consortium, small_study, spoilt, listed):
    # The update is so little that the model stays as it is.
    text = Study.parse(small_study).replace({"plan.lr": 1e-300}).text
    found = consortium(text=text)
    coordinator = Coordinator(found)
    run = coordinator.run(lie=spoiling(LAST, numbers=[spoilt]))
    # The list of the first round is that of all rounds: without the site, or with it, and then the run stops.
    ended(run, *(("completed", ROUNDS) if listed == THREE else ("stopped", 1)))
    assert set(lists_at(found, "site-01")) == {listed} and len(lists_by_question(found)) == 1
    # A site that is in no list has not been left out twice: it is asked each time.
    assert asked(coordinator, TRAIN).count(LAST) == (ROUNDS if listed == THREE else 2)


def test_sums_over_rows_are_made_without_such_a_site(small_sites: Callable[..., list[Site]], small_study: str):
    asked_for = {"secure-aggregation": "on", "strategy.rounds": 2}
    found = summing(small_sites, Study.parse(small_study).replace(asked_for), 4)
    grid = SummingGrid(found, lie=spoiling(LAST, kind=SUMMARISE))
    outcome = conduct(found, grid)
    assert outcome.status == "completed"
    sites = [found.sites[site] for site in THREE.split(",")]
    three = merge([SiteSession(site, found.study).summary() for site in sites])
    layout = study_layout(found.study, datasets.load("small").schema)
    expected = fit_encoder(layout, three, found.study.encode.scaler).arrays()
    arrays = outcome.encoder.arrays()
    assert max(float(np.abs(arrays[name] - expected[name]).max()) for name in expected) < 1e-9


NOISE = {
    "site-dp": 'name = "site-dp"\nnoise = 1.0\nclip = 0.2\ndelta = 0.02\n',
    "record-dp": 'name = "record-dp"\nepsilon = 2.0\nsampling = 0.2\n',
}


@pytest.mark.proof
@pytest.mark.parametrize("name", NOISE)
def test_under_noise_the_site_is_left_out_and_spends_nothing_where_it_is_not_asked(consortium, small_study, name):
    text = small_study.replace("epochs = 1", "steps = 4") + f"[privacy]\n{NOISE[name]}"
    found = consortium(text=text)
    ended(run := Coordinator(found).run(lie=spoiling(LAST)))
    assert all(lists == {THREE} for lists in lists_by_question(found).values())
    with RunReader.open() as reader:
        private = reader.summary(run.run, "privacy")
    assert private is not None
    steps = {site: line["steps"] for site, line in private["sites"].items()}
    assert steps["site-01"] == steps["site-02"] == steps["site-03"] == steps[LAST] * ROUNDS / 2
