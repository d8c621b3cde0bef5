"""The privacy account of a site: a run is charged whole and once, before its noise, and never beyond the budget."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flfed.deployment.operator.budget import budget_as_json, describe_account
from flfed.deployment.operator.run_budget import describe_study_budget
from flfed.federation.client.account import SPENT, Account, Charge, shown, spent_at
from flfed.federation.client.protection import charge_of, run_charges
from flfed.federation.server.run import resume, run
from flfed.paths import SiteFolder
from flfed.records.ledger import ledger_of
from flfed.records.site_state import SiteState
from flfed.refusals import NO_LEDGER, NotSpent, Refusal
from flfed.rows.data.holdout import Holdout
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site
from flfed.study.study import Study
from flfed.updates.accounting import Release, epsilon

Small = Callable[..., list[Site]]
PRIVATE = '[privacy]\nname = "record-dp"\nepsilon = 2.0\nsampling = 0.2\n'
DELTA = 1e-5
RUN = Release(5.0, 0.1, 40)


def private(small_study: str, **changes: Any) -> Study:
    """Return the small study under record-level differential privacy, with other values of some keys."""
    study = Study.parse(small_study.replace("epochs = 1", "steps = 4") + PRIVATE)
    return study.replace({key.replace("_", "."): value for key, value in changes.items()}) if changes else study


def account(policy: Policy | None = None, site: str = "site-01") -> Account:
    folder = SiteFolder(site)
    folder.make()
    return Account(SiteState(folder.state, ledger_of(folder)), policy or Policy(epsilon=3.0))


def charge(run: str = "r", **changes: Any) -> Charge:
    facts = {"study_sha256": "ab", "run": run, "repeat": 0, "delta": DELTA, "releases": (RUN,)}
    return Charge(**facts | changes)


def charged(site: str = "site-01") -> list[dict[str, Any]]:
    """Return the ledger's lines of charges."""
    return [dict(line.facts) for line in ledger_of(SiteFolder(site)).lines() if line.kind == SPENT]


def test_a_run_is_charged_once_and_each_repeat_and_study_again():
    own = account(Policy(epsilon=50.0))
    for one in (charge(), charge(), charge(repeat=1), charge(study_sha256="cd", dataset="other")):
        own.charge(one)
    lines = charged()
    assert [(line["study-sha256"], line["run"], line["repeat"]) for line in lines] == [
        ("ab", "r", 0), ("ab", "r", 1), ("cd", "r", 0),
    ]  # fmt: skip
    assert lines[0]["releases"] == [{"noise": 5.0, "sampling": 0.1, "steps": 40}]
    assert lines[0]["epsilon"] == epsilon([RUN], DELTA)
    # All tables have one account, which is composed and not added up.
    together = epsilon([Release(5.0, 0.1, 120)], DELTA)
    assert account().spent().epsilon(DELTA) == together < 3 * epsilon([RUN], DELTA)


def test_a_run_that_does_not_fit_is_refused_and_leaves_no_line():
    own, runs = account(Policy(epsilon=1.0)), 0
    with pytest.raises(NotSpent) as refused:
        while True:
            own.charge(charge(str(runs)))
            runs += 1
    after = epsilon([RUN] * (runs + 1), DELTA)
    assert epsilon([RUN] * runs, DELTA) <= 1.0 < after and runs > 2 and len(charged()) == runs
    now = shown(epsilon([RUN] * runs, DELTA))
    assert str(refused.value) == (
        f"privacy budget: epsilon {now} of 1 is spent at delta 1e-05, and the run would make it {shown(after)}"
    )
    # A run that was charged goes on, whatever is left.
    own.charge(charge("0"))
    assert own.refusal(own.spent(), charge("0")) is None
    assert own.refusal(own.spent(), charge("new")) == str(refused.value)
    assert account(Policy(epsilon=1.0, disclosure="open")).refusal(own.spent(), charge("new")) is None


def test_runs_ahead_are_those_that_then_fit():
    policy = Policy(epsilon=1.5)
    own = account(policy)
    own.charge(charge())
    foretold, done = own.spent().runs_left(own.policy, [RUN]), 0
    while own.refusal(own.spent(), charge(f"{done}")) is None:
        own.charge(charge(f"{done}"))
        done += 1
    assert done > 3 and foretold == done and own.spent().runs_left(own.policy, [RUN]) == 0
    assert own.spent().runs_left(Policy(), [RUN]) is None
    assert own.spent().runs_left(Policy(epsilon=99.0), [Release(500.0, 0.1, 1)]) == 1000


def test_no_noise_is_drawn_twice_in_a_run():
    own = account()
    for draws in (1, 2):
        own.charge(charge(), draws=draws)
    own.charge(charge(repeat=1), draws=1)
    for again in (own, account()):
        with pytest.raises(NotSpent, match=str(Refusal("round-drawn", round=2))):
            again.charge(charge(), draws=2)
    assert len(charged()) == 2


def test_an_answer_is_drawn_for_one_request_which_gets_it_again():
    draws = iter(range(9))

    def noised() -> dict[str, np.ndarray]:
        return {"counts": np.full(3, float(next(draws)))}

    first = account().answer(charge(), "scores", "model", noised)
    np.testing.assert_array_equal(account().answer(charge(), "scores", "model", noised)["counts"], first["counts"])
    with pytest.raises(NotSpent, match=str(Refusal("answer-drawn"))):
        account().answer(charge(), "scores", "another", noised)
    other = account().answer(charge(repeat=1), "scores", "another", noised)
    assert (first["counts"][0], other["counts"][0], next(draws)) == (0.0, 1.0, 2) and len(charged()) == 2


def test_a_draw_that_is_refused_charges_nothing():
    own = account(Policy(epsilon=0.01))
    with pytest.raises(NotSpent):
        own.charge(charge(), draws=1)
    assert charged() == []
    account(Policy(epsilon=9.0)).charge(charge(), draws=1)  # and it was not drawn


def test_what_was_spent_before_a_new_ledger_counts_beside_the_charges_since(monkeypatch: pytest.MonkeyPatch):
    own = account(Policy(epsilon=3.0))
    own.charge(charge("before"))
    with SiteState(SiteFolder("site-01").state).transaction() as step:
        step.tables.execute("INSERT INTO restarts VALUES ('2999-01-01T00:00:00.000Z', 'Dr Kim', 'a disk', 2.5)")
    own.charge(charge("since"))  # by a clock that is far behind, it still counts
    assert own.spent().epsilon(DELTA) == 2.5 + epsilon([RUN], DELTA)
    with pytest.raises(NotSpent, match="and the run would make it"):
        own.charge(charge("more", releases=(RUN, RUN, RUN)))
    assert [line["run"] for line in charged()] == ["before", "since"]


def test_rows_that_were_protected_one_by_one_bound_nothing_of_persons():
    account(Policy()).charge(charge(unit="row"))
    own = account(Policy(epsilon=8.0))
    assert math.isinf(own.spent().epsilon(DELTA)) and own.spent().runs_left(own.policy, [RUN]) == 0
    with pytest.raises(NotSpent, match="an earlier study of unit 'row' protected each row by itself"):
        own.charge(charge("new"))
    account(Policy(epsilon=8.0, disclosure="open")).charge(charge("new"))
    assert len(charged()) == 2


@pytest.mark.parametrize("disclosure", ["institution", "open"])
def test_a_torn_line_is_cut_and_a_damaged_state_charges_nothing(disclosure: Any):
    folder = SiteFolder("site-01")
    own = account(Policy(epsilon=3.0, disclosure=disclosure))
    own.charge(charge())
    content = folder.ledger.read_bytes()
    folder.ledger.write_bytes(content + b'{"n":2,"kind":"spent","noi')
    own.charge(charge("torn"))  # no reply of a torn line left: it is cut off
    assert len(charged()) == 2 and folder.ledger.read_bytes().startswith(content)
    folder.state.write_bytes(b"no database at all, of more than a hundred bytes" * 3)
    for again in (lambda: account().charge(charge("damaged")), lambda: account().spent()):
        with pytest.raises(NotSpent, match=str(NO_LEDGER)):
            again()
    assert len(charged()) == 2


RACING = """
import sys
sys.path.insert(0, {tests!r})
from tests.federation.test_account import account, charge
from flfed.refusals import NotSpent
from flfed.rows.data.policy import Policy
own, done = account(Policy(epsilon=1.0)), 0
print("ready", flush=True)
sys.stdin.readline()
try:
    while True:
        own.charge(charge(f"{{sys.argv[1]}}-{{done}}"), draws=1)
        done += 1
except NotSpent:
    print(done)
"""


def test_two_processes_that_charge_at_once_never_exceed_the_budget():
    code = RACING.format(tests=str(Path(__file__).resolve().parents[2]))
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    started = [subprocess.Popen([sys.executable, "-c", code, name], **pipes) for name in "ab"]
    assert [process.stdout.readline() for process in started if process.stdout] == ["ready\n"] * 2
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    granted = [int(process.communicate(timeout=120)[0]) for process in started]
    runs = sum(granted)
    assert len(charged()) == runs and epsilon([RUN] * runs, DELTA) <= 1.0 < epsilon([RUN] * (runs + 1), DELTA)


def test_a_whole_run_is_charged_as_its_approval_said(small_sites: Small, small_study: str):
    sites = small_sites(2, rows=100, policy=Policy(epsilon=4.5))
    study = private(small_study)
    folder = SiteFolder("site-01")
    said = " ".join(describe_study_budget(folder, sites[0], study))
    promised = shown(epsilon(run_charges(study).values(), DELTA))
    assert f"have spent epsilon 0 of 4.5 at delta 1e-05. A run makes it {promised}." in said
    assert "4 such runs still fit, each repeat one." in said
    plan = " ".join(describe_study_budget(folder, sites[0], study, runs=5))
    five = shown(epsilon([release for release in run_charges(study).values() for _ in range(5)], DELTA))
    assert f". 5 runs make it {five}." in plan and float(five) > 4.5
    report = run(study, sites=sites, repeats=2).report
    assert report["status"] == "completed"
    found = budget_as_json(sites[0], spent_at(folder), ledger_of(folder))
    assert [(one["repeat"], shown(one["epsilon"])) for one in found["runs"]] == [(0, promised), (1, promised)]
    assert found["spent"] == epsilon([r for one in charged() for r in (Release(**one["releases"][0]),)], DELTA)
    told = f"site-01: epsilon {shown(found['spent'])} of 4.5 is spent at delta 1e-05, by 2 runs."
    assert describe_account(found) == told
    assert report["privacy"]["sites"]["site-01"]["epsilon"] == found["runs"][0]["epsilon"]
    assert "2 such runs still fit" in " ".join(describe_study_budget(folder, sites[0], study))


def test_a_run_that_breaks_off_stays_charged_whole_and_goes_on(small_sites: Small, small_study: str):
    sites = small_sites(2, rows=100, policy=Policy(epsilon=2.0))

    def fail(stage: str, round: int) -> None:
        if (stage, round) == ("round", 2):
            raise KeyboardInterrupt

    with pytest.raises(Exception, match="interrupted from the keyboard"):
        run(private(small_study), sites=sites, observer=fail)
    (line,) = charged()
    assert line["releases"][0]["steps"] == 5 * 4  # of all five rounds
    assert resume("latest", sites=sites).report["status"] == "completed" and len(charged()) == 1
    with pytest.raises(Exception, match="no site takes part, at least 2 are needed .site-01: privacy budget: epsi"):
        run(private(small_study, seed=8), sites=sites)
    assert len(charged()) == 1


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from flfed.federation.client.protection import LocalProtection
from flfed.federation.engines import inprocess
from flfed.federation.server.run import run
from flfed.rows.data.holdout import Holdout
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site
from flfed.rows.data.sources import Frame
from flfed.study.study import Study
from tests.conftest import small_table

def killing(rng, study):  # where the draws of a round come from: asked once the run is charged
    os.kill(os.getpid(), signal.SIGKILL)

side = inprocess.SiteClient
inprocess.SiteClient = lambda find, **ways: side(find, **ways, protect=LocalProtection(chance=killing))
sites = [
    Site(name=f"site-{{n + 1:02d}}", dataset="small", source=Frame(small_table(100 + 10 * n, seed=n)),
         holdout=Holdout(salt=f"salt-{{n}}"), policy=Policy(epsilon=2.0))
    for n in range(2)
]
run(Study.parse(sys.stdin.read()), sites=sites, stacked=False)
"""


def test_a_kill_between_charge_and_training_never_lowers_the_sum(small_sites: Small, small_study: str):
    small_sites(0)
    program = KILLED.format(tests=str(Path(__file__).resolve().parents[2]))
    done = subprocess.run(
        [sys.executable, "-c", program], input=private(small_study).text, text=True, capture_output=True, timeout=120
    )
    assert done.returncode == -9, done.stderr
    assert len(charged()) == 1 and account().spent().epsilon(DELTA) == pytest.approx(2.0, rel=0.01)


def test_open_records_and_never_refuses(small_sites: Small, small_study: str):
    sites = small_sites(2, rows=100, policy=Policy(disclosure="open", epsilon=0.1))
    report = run(private(small_study, delta=1e-4), sites=sites).report
    assert report["status"] == "completed" and report["rounds"] == 5
    assert len(charged("site-01")) == len(charged("site-02")) == 1
    assert [line["budget"] for line in report["privacy"]["sites"].values()] == [0.1, 0.1]


@pytest.mark.parametrize(("policy", "changes", "said"), [
    ({"epsilon": 3.0}, {"privacy": None}, "its policy allows studies with record-level differential privacy only"),
    ({"epsilon": 3.0}, {"delta": 1e-4}, "its policy allows delta up to 1e-05, the study asks for 0.0001"),
    ({"mechanisms": ("site-dp",)}, {}, "its policy allows mechanisms site-dp, the study asks for 'record-dp'"),
    ({"delta": 0.05}, {"delta": 0.02}, "the study's delta=0.02 is not below one over the training rows here"),
    ({"epsilon": 1.9}, {}, "privacy budget: epsilon 0 of 1.9 is spent at delta 1e-05, and the run would make it 2"),
])  # fmt: skip
def test_what_a_policy_does_not_allow_is_refused_at_enrolment(small_sites, small_study, policy, changes, said):
    sites = small_sites(2, rows=100, policy=Policy(**policy))
    study = private(small_study) if "privacy" in changes else private(small_study, **changes)
    study = Study.parse(study.text.replace(PRIVATE, "")) if "privacy" in changes else study
    with pytest.raises(Exception, match="no site takes part") as refused:
        run(study, sites=sites)
    assert str(refused.value).count(said) == 2
    assert refused.value.exit_code == 2  # type: ignore[attr-defined]
    assert not SiteFolder("site-01").ledger.exists() or charged() == []


def test_a_budget_of_persons_is_not_spent_by_rows(small_sites: Small, small_study: str):
    schema = Path(os.environ["FLFED_PATH"]) / "datasets" / "small" / "schema.toml"
    ungrouped = charge_of(private(small_study, unit="row"))
    schema.write_text(schema.read_text().replace('target = "y"', 'target = "y"\ngroup = "person"'))
    sites = small_sites(2, rows=100, policy=Policy(epsilon=3.0))
    sites = [replace(site, holdout=Holdout(salt="s")) for site in sites]
    with pytest.raises(Exception, match="its policy allows unit 'person' only, for its privacy budget is of persons"):
        run(private(small_study, unit="row"), sites=sites)
    grouped = charge_of(private(small_study, unit="row"))
    # Where each row is another person's, a row is a person.
    assert ungrouped is not None and grouped is not None and (ungrouped.unit, grouped.unit) == ("person", "row")
    assert run(private(small_study), sites=sites).report["rounds"] == 5
    assert {line["unit"] for line in charged()} == {"person"}


def test_what_research_sites_spend_is_not_on_the_disk(home: Path):
    changes = {"strategy.rounds": 2, "plan.steps": 4, "plan.epochs": None}
    study = Study.parse(f"{Study.load('wine').text}\n{PRIVATE}").replace(changes)
    report = run(study).report
    assert report["status"] == "completed"
    assert {site["steps"] for site in report["privacy"]["sites"].values()} == {8}
    assert [*home.rglob("ledger.jsonl"), *home.rglob("state.db")] == []


def test_in_one_process_noise_follows_from_the_seed(small_sites: Small, small_study: str):
    sites = small_sites(2, rows=100)
    hashes = [run(private(small_study, seed=seed), sites=sites).report["arrays-sha256"] for seed in (7, 7, 8)]
    assert hashes[0] == hashes[1] != hashes[2]
    assert len(charged()) == 3  # what is drawn again is charged again: nobody can tell that it is the same


def test_an_encoder_of_the_rows_is_told_beside_what_was_spent(small_sites: Small, small_study: str):
    sites = small_sites(2, rows=100, policy=Policy(epsilon=9.0))
    study = private(small_study, encode_scaler="global")
    folder = SiteFolder("site-01")
    assert "makes it 2 (given the encoder)." in " ".join(describe_study_budget(folder, sites[0], study))
    run(study, sites=sites)
    found = budget_as_json(sites[0], spent_at(folder), ledger_of(folder))
    assert [one["excludes-encoder"] for one in found["runs"]] == [True]


def test_an_epsilon_for_people_is_never_less_than_it_is():
    values = np.random.default_rng(3).uniform(0, 20, 200)
    assert all(values[n] - 1e-9 <= float(shown(values[n])) < values[n] + 0.0011 for n in range(200))
    assert shown(math.inf) == "beyond any number"
