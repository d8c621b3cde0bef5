"""The account of privacy at a site: what is spent is on the disk first, adds up, and is never overdrawn."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.pld import PLDAccountant

from flfed.deployment.operator.budget import budget_as_json, describe_account
from flfed.deployment.operator.run_budget import describe_run_budget
from flfed.federation.client.privacy_budget import PrivacyAccount, shown
from flfed.federation.client.released.accounts import BOTH, release_of
from flfed.federation.client.released.accounts import SPENT as LINE
from flfed.federation.server.run import resume, run
from flfed.paths import SiteFolder
from flfed.records.ledger import Ledger, ledger_of
from flfed.refusals import NotSpent
from flfed.rows.data.holdout import Holdout
from flfed.rows.data.origin import Origin
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site
from flfed.study.study import Study
from flfed.updates.accounting import Release, rounds_left
from tests.federation.races import race

pytestmark = [pytest.mark.slow, pytest.mark.studies]

SPENT = "privacy budget: "

PRIVATE = '[privacy]\nname = "record-dp"\nepsilon = 2.0\nsampling = 0.2\n'
DELTA = 1e-5
ROUND = Release(5.0, 0.1, 4)


def private(small_study: str, more: str = "", **changes: Any) -> Study:
    """Return the small study under record-level differential privacy, with other values of some keys."""
    study = Study.parse(small_study.replace("epochs = 1", "steps = 4") + PRIVATE + more)
    return study.replace({key.replace("_", "."): value for key, value in changes.items()}) if changes else study


def ledger(site: str = "site-01") -> Ledger:
    return ledger_of(SiteFolder(site))


def spent_lines(site: str = "site-01") -> list[Any]:
    return [line for line in ledger(site).lines() if line.kind == LINE]


def by_others(releases: Sequence[Release], delta: float = DELTA) -> float:
    """Return ε by Google's accountant of privacy loss distributions: another method, by other people."""
    accountant = PLDAccountant()
    for one in releases:
        accountant.compose(PoissonSampledDpEvent(one.sampling, GaussianDpEvent(one.noise)), one.steps)
    return float(accountant.get_epsilon(delta))


def account(policy: Policy | None = None, dataset: str = "small") -> PrivacyAccount:
    make, origin = SiteFolder("site-01").make, Origin(f"table of {dataset}", (), "", "")
    return PrivacyAccount(ledger(), dataset, policy or Policy(epsilon=3.0), prepare=make, origin=origin)


def test_what_was_spent_given_an_encoder_of_the_rows_is_told_so(small_sites, small_study, home):
    sites = small_sites(2, rows=100, policy=Policy(epsilon=9.0))

    def told() -> tuple[list[bool], bool | None, str, str]:
        (found,) = budget_as_json(sites[0], ledger())["datasets"]
        words = describe_account(found, DELTA, enforced=True)
        approving = " ".join(describe_run_budget(sites[0], ledger(), "small", ROUND, 5))
        return [one["excludes-encoder"] for one in found["runs"]], found["excludes-encoder"], words, approving

    assert told()[:2] == ([], None)
    run(private(small_study, seed=7), sites=sites)
    kinds, whole, words, approving = told()
    assert (kinds, whole) == ([False], False) and "encoder" not in words + approving
    run(private(small_study, seed=8, encode_scaler="global"), sites=sites)
    assert [line.facts["given-encoder"] for line in spent_lines()] == [False] * 5 + [True] * 5
    kinds, whole, words, approving = told()
    assert (kinds, whole) == ([False, True], True)
    assert re.search(r"small: epsilon [\d.]+ \(given the encoder\) of 9 is spent at delta 1e-05, by 2 runs\.", words)
    assert re.search(r"have spent epsilon [\d.]+ \(given the encoder\) of 9 for 'small'", approving)


def test_three_runs_on_one_ledger_end_as_the_budget_says(small_sites, small_study, home):
    sites = small_sites(3, rows=100, policy=Policy(epsilon=2.5))
    results = [run(private(small_study, seed=seed), sites=sites).report for seed in (7, 8)]
    assert [result["status"] for result in results] == ["completed", "stopped"]
    rounds = results[1]["rounds"]
    assert results[0]["rounds"] == 5 and 1 <= rounds <= 4
    assert results[1]["reason"].startswith("privacy budget: none left at site-01, site-02, site-03; round ")
    assert f"round {rounds + 1} had 0 good updates of 3 asked" in results[1]["reason"]
    assert results[1]["arrays-sha256"] not in (None, results[0]["arrays-sha256"])  # the last good model is kept
    with pytest.raises(Exception, match="no site takes part, at least 2 are needed .site-01: privacy budget: epsi"):
        run(private(small_study, seed=9), sites=sites)
    lines = spent_lines()
    assert [line.facts["round"] for line in lines] == [*range(1, 6), *range(1, rounds + 1)]
    assert len({line.facts["run"] for line in lines}) == 2
    history = [release_of(line) for line in lines]
    assert {(one.noise, one.sampling, one.steps) for one in history} == {(2.157, 0.2, 4)}
    by_ledger = account(Policy(epsilon=2.5)).spent()
    assert by_ledger == pytest.approx(by_others(history), rel=0.02) and by_ledger >= by_others(history) - 1e-6
    assert by_ledger <= 2.5 < by_others([*history, history[-1]]) * 1.02
    # Counting each run alone would have said much less than both together spent.
    assert by_others(history[:5]) == pytest.approx(2.0, rel=0.02)


def test_the_sum_is_that_of_another_accountant_whatever_was_mixed():
    history = [Release(1.7, 0.05, 200), Release(2.2, 0.2, 30), Release(1.1, 0.01, 60), Release(1.7, 0.05, 100)]
    spending = account(Policy(epsilon=50.0))
    for one in history:
        spending.reserve(one, study="a", run="r", round=1)
    account(dataset="other").reserve(ROUND, study="a", run="r", round=1)
    assert spending.spent() == pytest.approx(by_others(history), rel=0.02)
    assert spending.spent() >= by_others(history) * (1 - 1e-6)
    assert spending.spent() > 1.15 * by_others(history[1:])  # and it is not that of less
    assert account(dataset="other").spent() == pytest.approx(by_others([ROUND]), rel=0.02)
    assert account(dataset="third").spent() == 0.0


def test_a_round_that_fits_is_written_and_one_that_does_not_leaves_no_line():
    spending, rounds = account(Policy(epsilon=1.0)), 0
    with pytest.raises(NotSpent) as refused:
        while True:
            spending.reserve(ROUND, run="r", round=rounds + 1)
            rounds += 1
    history = [ROUND] * rounds
    assert rounds >= 3 and len(spent_lines()) == rounds
    assert by_others(history) <= 1.0 < by_others([*history, ROUND]) * 1.02
    now, then = shown(spending.spent()), str(refused.value).rpartition(" ")[2]
    assert str(refused.value) == (
        f"{SPENT}epsilon {now} of 1 is spent at delta 1e-05, and one more round would make it {then}"
    )
    assert float(now) <= 1.0 < float(then) < 1.2
    assert spending.refusal([(BOTH, ROUND)], "another") == str(refused.value)
    assert spending.refusal([(BOTH, ROUND)], "r") is None  # it spent here before: no round may be left to ask for
    assert account(Policy(epsilon=1.01 * float(then))).refusal([(BOTH, ROUND)], "another") is None


def test_rounds_ahead_are_those_that_then_fit():
    policy = Policy(epsilon=1.5)
    account(policy).reserve(ROUND, run="r", round=1)
    foretold, done = rounds_left([ROUND], ROUND, 1.5, DELTA), 0
    while account(policy).refusal([(BOTH, ROUND)], "") is None:
        account(policy).reserve(ROUND, run="r", round=done + 2)
        done += 1
    assert done > 5 and abs(foretold - done) <= max(1, done // 50)


def test_only_lines_that_came_since_are_read_again():
    spending = account(Policy(epsilon=8.0))
    for number in range(60):
        spending.reserve(ROUND, run="r", round=number)
    before = spending.spent()
    content = ledger().path.read_bytes()
    ledger().path.write_bytes(content.replace(b'"round":0', b'"round":9', 1))  # the first line, far behind
    spending.reserve(ROUND, run="r", round=60)
    assert spending.spent() > before
    with pytest.raises(NotSpent, match="its ledger cannot be written"):
        account(Policy(epsilon=8.0)).spent()
    ledger().path.write_bytes(content)
    assert account(Policy(epsilon=8.0)).spent() == before
    assert spending.spent() == before  # a ledger that is another one is read anew


def test_a_torn_line_costs_nothing_and_the_next_one_takes_its_place():
    spending = account(Policy(epsilon=3.0))
    spending.reserve(ROUND, run="r", round=1)
    with ledger().path.open("ab") as stream:
        stream.write(b'{"n":2,"kind":"spent","noi')
    spending.reserve(ROUND, run="r", round=2)
    assert [line.n for line in ledger().lines()] == [1, 2] and ledger().problems() == []
    assert spending.spent() == pytest.approx(by_others([ROUND, ROUND]), rel=0.02)


def test_a_line_that_does_not_say_how_much_was_spent_is_not_taken_for_nothing():
    spending = account()
    spending.reserve(ROUND, run="r", round=1)
    ledger().append(kind=LINE, dataset="small", noise="much", sampling=0.1, steps=1)
    with pytest.raises(NotSpent, match="its ledger cannot be written"):
        spending.reserve(ROUND, run="r", round=2)
    with pytest.raises(NotSpent, match="its ledger cannot be written"):  # it does not say of which rows, either
        account(dataset="other").spent()


def test_open_records_and_never_refuses(small_sites: Callable[..., list[Site]], small_study: str):
    sites = small_sites(2, rows=100, policy=Policy(disclosure="open", epsilon=0.1))
    report = run(private(small_study, delta=1e-4), sites=sites).report
    assert report["status"] == "completed" and report["rounds"] == 5
    assert len(spent_lines("site-01")) == len(spent_lines("site-02")) == 5
    assert account(Policy(epsilon=0.1, disclosure="open")).spent() > 1.5
    assert [line["budget"] for line in report["privacy"]["sites"].values()] == [0.1, 0.1]


@pytest.mark.parametrize(("policy", "changes", "said"), [
    ({"epsilon": 3.0}, {"privacy": None}, "its policy allows studies with record-level differential privacy only"),
    ({"epsilon": 3.0}, {"delta": 1e-4}, "its policy allows delta up to 1e-05, the study asks for 0.0001"),
    ({"mechanisms": ("site-dp",)}, {}, "its policy allows mechanisms site-dp, the study asks for 'record-dp'"),
    ({"delta": 0.05}, {"delta": 0.02}, "the study's delta=0.02 is not below one over the training rows here"),
    ({"epsilon": 0.01}, {}, "privacy budget: epsilon 0 of 0.01 is spent at delta 1e-05, and one more round"),
])  # fmt: skip
def test_what_a_policy_does_not_allow_is_refused_at_enrolment(small_sites, small_study, policy, changes, said):
    sites = small_sites(2, rows=100, policy=Policy(**policy))
    study = private(small_study) if "privacy" in changes else private(small_study, **changes)
    study = Study.parse(study.text.replace(PRIVATE, "")) if "privacy" in changes else study
    with pytest.raises(Exception, match="no site takes part") as refused:
        run(study, sites=sites)
    assert str(refused.value).count(said) == 2
    assert refused.value.exit_code == 2  # type: ignore[attr-defined]
    assert not ledger().path.exists() or len(spent_lines()) == 0


def test_a_budget_of_persons_is_not_spent_by_rows(small_sites: Callable[..., list[Site]], small_study: str):
    schema = Path(os.environ["FLFED_PATH"]) / "datasets" / "small" / "schema.toml"
    schema.write_text(schema.read_text().replace('target = "y"', 'target = "y"\ngroup = "person"'))
    sites = small_sites(2, rows=100, policy=Policy(epsilon=3.0))
    sites = [replace(site, holdout=Holdout(salt="s")) for site in sites]
    with pytest.raises(Exception, match="its policy allows unit 'person' only, for its privacy budget is of persons"):
        run(private(small_study, unit="row"), sites=sites)
    assert run(private(small_study), sites=sites).report["rounds"] == 5
    assert {line.facts["unit"] for line in spent_lines()} == {"person"}


def test_what_research_sites_spend_is_not_on_the_disk(home: Path):
    changes = {"strategy.rounds": 2, "plan.steps": 4, "plan.epochs": None}
    study = Study.parse(f"{Study.load('wine').text}\n{PRIVATE}").replace(changes)
    report = run(study).report
    assert report["status"] == "completed"
    assert {site["steps"] for site in report["privacy"]["sites"].values()} == {8}
    assert list(home.rglob("ledger.jsonl")) == []


def test_in_one_process_noise_follows_from_the_seed(small_sites: Callable[..., list[Site]], small_study: str):
    sites = small_sites(2, rows=100)
    hashes = [run(private(small_study, seed=seed), sites=sites).report["arrays-sha256"] for seed in (7, 7, 8)]
    assert hashes[0] == hashes[1] != hashes[2]
    assert len(spent_lines()) == 15  # what is drawn again is charged again: nobody can tell that it is the same


def test_a_run_that_is_resumed_is_not_refused_for_what_it_spent_itself(small_sites, small_study):
    sites = small_sites(2, rows=100, policy=Policy(epsilon=2.0))

    def fail(stage: str, round: int) -> None:
        if (stage, round) == ("round", 5):
            raise KeyboardInterrupt

    with pytest.raises(Exception, match="interrupted from the keyboard"):
        run(private(small_study), sites=sites, observer=fail)
    assert account(Policy(epsilon=2.0)).refusal([(BOTH, release_of(spent_lines()[-1]))], "another").startswith(SPENT)
    report = resume("latest", sites=sites).report
    assert report["status"] == "completed" and len(spent_lines()) == 5
    with pytest.raises(Exception, match="no site takes part"):
        run(private(small_study, seed=8), sites=sites)


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import numpy as np
from flfed.federation.client.client import SiteClient
from flfed.federation.client.protection import LocalProtection
from flfed.federation.client.privacy_budget import PrivacyAccount
from flfed.rows.data.policy import Policy
from flfed.rows.training.private_noise import SeededNoise
from conftest import small_table
from flfed.rows.data.holdout import Holdout
from flfed.rows.data.site import Site
from flfed.rows.data.sources import Frame
from flfed.study.study import Study
from flfed.federation.engines import inprocess
from flfed.federation.server.run import run

def killing(rng, study):  # where the draws of a round come from: asked once the round is reserved, before it is trained
    killing.rounds += 1
    if killing.rounds == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return SeededNoise(rng, study)

killing.rounds = 0
side = inprocess.SiteClient
inprocess.SiteClient = lambda find, **ways: side(find, **ways, protect=LocalProtection(chance=killing))
sites = [
    Site(name=f"site-{{n + 1:02d}}", dataset="small", source=Frame(small_table(100 + 10 * n, seed=n)),
         holdout=Holdout(salt=f"salt-{{n}}"), policy=Policy(epsilon=2.0))
    for n in range(2)
]
run(Study.parse(sys.stdin.read()), sites=sites, stacked=False)
"""


def test_a_kill_between_reservation_and_training_never_lowers_the_sum(small_sites, small_study):
    small_sites(0)
    program = KILLED.format(tests=str(Path(__file__).resolve().parents[1]))
    done = subprocess.run(
        [sys.executable, "-c", program], input=private(small_study).text, text=True, capture_output=True, timeout=120
    )
    assert done.returncode == -9, done.stderr
    # The fourth draw is the second site's, of the second round: both sites have both rounds on the disk.
    assert [[line.facts["round"] for line in spent_lines(f"site-0{n}")] for n in (1, 2)] == [[1, 2], [1, 2]]
    before = account(Policy(epsilon=2.0)).spent()
    assert before == pytest.approx(by_others([Release(2.157, 0.2, 8)]), rel=0.02)
    report = run(private(small_study), sites=small_sites(2, rows=100, policy=Policy(epsilon=2.0))).report
    assert report["status"] == "stopped" and report["rounds"] == 3
    assert before < account(Policy(epsilon=2.0)).spent() <= 2.0


def test_two_processes_that_reserve_at_once_cannot_overdraw_together():
    granted = race("Release(5.0, 0.1, 4), run=sys.argv[1], round=done + 1", epsilon=1.0, names=("a", "b"))
    lines = spent_lines()
    assert len(lines) == sum(granted) and ledger().problems() == []
    assert by_others([ROUND] * len(lines)) <= 1.0 < by_others([ROUND] * (len(lines) + 1)) * 1.02


def test_an_epsilon_for_people_is_never_less_than_it_is():
    rng = np.random.default_rng(3)
    values = rng.uniform(0, 20, 200)
    assert all(float(shown(value)) >= value - 1e-9 for value in values)
    assert all(float(shown(value)) - value < 0.0011 for value in values)
    assert shown(math.inf) == "beyond any number"
