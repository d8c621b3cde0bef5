"""What an approval says that a run will spend, against the ledger after it; and who is let in with what is left."""

import re
from dataclasses import replace

import pytest

from flfed import Study
from flfed.deployment.operator.budget import budget_as_json, times_in_words
from flfed.deployment.operator.run_budget import describe_study_budget
from flfed.errors import FlfedError
from flfed.federation.client.privacy_budget import PrivacyAccount, shown
from flfed.federation.client.protection import holdout_hash, run_charges
from flfed.records.ledger import ledger_of
from flfed.rows.data.policy import Policy
from flfed.rows.snapshots.snapshot import read_facts
from flfed.updates.accounting import epsilon
from flfed.updates.messages.kinds import SCORES, STATISTIC, TRAIN
from tests.deployment.summing import Consortium, Coordinator
from tests.deployment.test_covered_at_the_gate import approved
from tests.federation.test_analysis import STUDY as ANALYSIS
from tests.federation.test_compared_privately import COMPARED
from tests.federation.test_covered_study import STUDY, Small

UPDATES = STUDY.replace('covers = "study"\n', "")
REUSED = (
    " The counts for the encoder were drawn earlier, for this very text and these rows. "
    "They are sent again, at no cost."
)


def gated(small_sites: Small, text: str, budget: float, rows: int = 1500) -> Consortium:
    """Three institutions behind gates."""
    sites = [replace(site, policy=Policy(epsilon=budget)) for site in small_sites(3, rows=rows)]
    return approved(Consortium(sites, Study.parse(text)))


def foretold(consortium: Consortium, site: str = "site-01") -> str:
    """What the approval says of the budget."""
    return " ".join(describe_study_budget(consortium.folders[site], consortium.sites[site], consortium.study))


def spent(consortium: Consortium, site: str = "site-01") -> float:
    """ε by the ledger of a site's gate, as the gate itself counts."""
    policy = consortium.sites[site].policy
    return PrivacyAccount(ledger_of(consortium.folders[site]), "small", policy).spent()


def charged(consortium: Consortium, site: str = "site-01") -> int:
    return sum(line.kind == "spent" for line in consortium.lines(site))


@pytest.mark.studies
@pytest.mark.parametrize("text", [STUDY, COMPARED, ANALYSIS, UPDATES])
def test_an_approval_says_what_the_ledger_has_after_the_run(small_sites: Small, text: str):
    consortium = gated(small_sites, text, 20.0)
    said = foretold(consortium)
    assert "have spent epsilon 0 of 20" in said
    ended = Coordinator(consortium).run()
    assert ended.status == "completed", ended.reason
    after = spent(consortium)
    assert f"A run makes it {shown(after)} and leaves {20 - float(shown(after)):g}." in said
    (one,) = budget_as_json(consortium.sites["site-01"], ledger_of(consortium.folders["site-01"]))["datasets"]
    assert one["spent"] == pytest.approx(after)
    # Each kind of charge is counted by itself: three rounds of four steps, and answers.
    times = sorted({times_in_words(kind) for kind in one["runs"]})
    assert times == {ANALYSIS: ["1 answer"], UPDATES: ["3 rounds"]}.get(text, times) and "7 rounds" not in times
    assert one["last"] == ("round" if text == UPDATES else "answer")
    # By rounds alone an analysis would cost nothing, and a covered study a part.
    assert abs(after - Study.parse(text).privacy.settings["epsilon"]) < 0.05


def test_an_analysis_that_was_answered_costs_nothing_and_another_one_is_refused_as_was_said(small_sites: Small):
    consortium = gated(small_sites, ANALYSIS.replace("epsilon = 1.0", "epsilon = 3.0"), 4.6, rows=80)
    assert Coordinator(consortium).run().status == "completed"
    assert foretold(consortium) == (
        "Privacy budget: this site has already answered this very text over these rows. "
        "It sends the same numbers again, and charges nothing more."
    )
    first = consortium.study
    # Two of the three are within 4.6, all of them are not.
    for seed in (1, 2):
        consortium.study = Study.parse(first.text.replace("format = 1", f"format = 1\nseed = {seed}"))
        approved(consortium)
        said = foretold(consortium)
        if seed == 1:
            assert Coordinator(consortium).run().status == "completed"
            assert f"makes it {shown(spent(consortium))} and leaves" in said
    before = charged(consortium)
    found = re.search(r"A run makes it ([\d.]+), so this site refuses it\.", said)
    assert found is not None
    with pytest.raises(FlfedError, match=rf"privacy budget: .*a whole run would make it {found[1]}"):
        Coordinator(consortium).run()
    assert (charged(consortium), before) == (2, 2)
    # The first one is answered all the same: it is free.
    consortium.study = first
    approved(consortium)
    assert Coordinator(consortium).run().status == "completed" and charged(consortium) == 2


def test_a_run_that_the_budget_cannot_hold_is_refused_before_anything_is_spent(small_sites: Small):
    consortium = gated(small_sites, STUDY, 3.6)
    first = consortium.study
    coordinator = Coordinator(consortium)
    assert coordinator.run().status == "completed"
    before = {name: len(consortium.lines(name)) for name in consortium.sites}
    said = foretold(consortium)
    # The same text's counts for the encoder are kept and free; what is left does not hold the rest.
    found = re.search(r"A run makes it ([\d.]+), so this site refuses it\.", said)
    assert found is not None and said.endswith(REUSED)
    with pytest.raises(FlfedError, match=rf"epsilon 2\.99\S* of 3.6 .*a whole run would make it {found[1]}"):
        coordinator.run()
    assert all(charged(consortium, name) == 7 for name in consortium.sites)
    assert {name: len(consortium.lines(name)) - before[name] for name in before} == dict.fromkeys(before, 1)
    # One round of it would fit: that rule let a run begin, of which no figure came.
    site = consortium.sites["site-01"]
    account = PrivacyAccount(ledger_of(consortium.folders["site-01"]), "small", site.policy)
    (side, release), rule = (
        run_charges(first, site)[TRAIN],
        holdout_hash(site, read_facts(site, consortium.folders["site-01"].frozen)),
    )
    assert account.refusal([(side, replace(release, steps=first.plan.steps))], "new", rule=rule) is None
    assert account.refusal(list(run_charges(first, site).values()), "new", rule=rule) is not None


def test_what_a_second_run_of_the_text_costs_leaves_out_the_counts_that_are_kept(small_sites: Small):
    consortium = gated(small_sites, STUDY, 9.0)
    coordinator = Coordinator(consortium)
    assert coordinator.run().status == "completed"
    said = foretold(consortium)
    assert coordinator.run().status == "completed"
    assert f"A run makes it {shown(spent(consortium))} and leaves" in said and said.endswith(REUSED)
    assert charged(consortium) == 7 + 5


def test_a_run_that_has_begun_is_let_in_again_though_a_whole_one_would_not_fit(small_sites: Small):
    consortium = gated(small_sites, STUDY, 3.05)
    coordinator = Coordinator(consortium)
    begun = coordinator.run(absent=lambda site, kind: "crash" if (site, kind) == ("site-02", SCORES) else False)
    assert begun.status != "completed" and "so this site refuses it" in foretold(consortium)
    ended = coordinator.run(begun.run)
    assert ended.status == "completed", ended.reason
    assert [charged(consortium, name) for name in consortium.sites] == [7, 7, 7]


def test_a_budget_of_just_the_promise_holds_a_run(small_sites: Small):
    consortium = gated(small_sites, STUDY, 3.0)
    ended = Coordinator(consortium).run()
    assert ended.status == "completed", ended.reason
    assert 2.99 <= spent(consortium) <= 3.0


def test_all_that_a_run_charges_is_of_one_side_or_of_both_as_the_holdout_says(small_sites: Small):
    (site,) = small_sites(1, policy=Policy(epsilon=3.0))
    study = Study.parse(COMPARED)
    found = run_charges(study, site)
    sides = {name: side for name, (side, _) in found.items()}
    assert sides.pop(TRAIN) == "training" and sorted(sides.values()) == ["holdout"] * 3 + ["training"] * 3
    assert epsilon([release for side, release in found.values() if side == "training"], 1e-5) <= 8.0
    moved = replace(site, policy=Policy(epsilon=3.0, disclosure="open", resplit=True))
    assert {side for side, _ in run_charges(study, moved).values()} == {"both"}
    assert run_charges(Study.parse(ANALYSIS), site).keys() == {STATISTIC}
    assert run_charges(Study.parse(UPDATES), site)[TRAIN][0] == "both"
    assert run_charges(Study.load("wine"), site) == {}
