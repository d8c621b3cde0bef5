"""The budget behind a gate: noise that nobody can draw again, a line before the update, and refusals that may leave."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from streamlit.testing.v1 import AppTest

from flfed.deployment.gate.message_check import may_leave, message_defect
from flfed.deployment.gate.message_schema import StudyMessages
from flfed.deployment.operator.budget import budget_as_json, describe_account
from flfed.deployment.operator.run_budget import describe_study_budget
from flfed.federation.client.account import SPENT as LINE
from flfed.federation.client.account import Account, Charge, shown, spent_at
from flfed.federation.client.client import SiteClient
from flfed.federation.client.protection import run_charges
from flfed.paths import SiteFolder
from flfed.records.ledger import ledger_of
from flfed.records.site_state import state_of
from flfed.rows.data import datasets
from flfed.rows.data.policy import Policy
from flfed.updates.accounting import Release, epsilon
from flfed.updates.messages.enrol import ENROL, EnrolReply, EnrolRequest
from flfed.updates.messages.fields import ndarrays
from flfed.updates.messages.in_memory import count_bytes
from flfed.updates.messages.summarise import SummariseRequest
from flfed.updates.messages.train import TRAIN
from tests.approval_text import details

PRIVATE = '[privacy]\nname = "record-dp"\nepsilon = 2.0\nsampling = 0.2\n'
A_RUN = Release(2.157, 0.2, 20)


@pytest.fixture
def protected(gated, small_study: str):
    """A function that returns an approved institution behind its gate, whose study is under differential privacy."""

    def make(more: str = "", **policy: Any) -> Any:
        return gated(small_study.replace("epochs = 1", "steps = 4") + PRIVATE + more, policy=Policy(**policy))

    return make


def spent(site: Any) -> list[Any]:
    return [line for line in site.lines() if line.kind == LINE]


def enrolled(site: Any, **changes: Any) -> Message:
    schema = datasets.load("small").schema.sha256()
    return site.answer(site.message(ENROL, EnrolRequest(dataset="small", schema_sha256=schema)), **changes)


def delta(reply: Message) -> np.ndarray:
    return np.concatenate([value.ravel() for _, value in sorted(ndarrays(reply.content, "arrays").items())])


@pytest.mark.studies
def test_noise_at_an_institution_is_not_the_studys_to_draw_again(protected):
    site = protected(epsilon=9.0)
    message = site.trained()
    first, again = (delta(site.answer(message, run=f"2026-{run}")) for run in "ab")
    sides = [SiteClient(site.gate.find_site, today=lambda: site.today).app() for _ in "cd"]
    seeded = [delta(side(message, site.context(run=f"2026-{run}"))) for side, run in zip(sides, "cd", strict=True)]
    assert not np.allclose(first, again, rtol=0.01)
    np.testing.assert_array_equal(*seeded)  # what the study's seed gives, where there is no gate
    assert not any(np.allclose(seeded[0], other, rtol=0.01) for other in (first, again))
    assert len(spent(site)) == 4


@pytest.mark.studies
def test_a_stored_reply_spends_nothing_and_its_noise_is_not_drawn_again(protected, home: Path):
    site = protected(epsilon=9.0)
    message = site.trained()
    first, again = site.answer(message), site.answer(message)
    np.testing.assert_array_equal(delta(first), delta(again))
    assert len(spent(site)) == 1
    # Without the run's own files the journal has the reply still.
    shutil.rmtree(home / "sites" / "site-01" / "runs")
    np.testing.assert_array_equal(delta(first), delta(site.answer(message)))
    assert len(spent(site)) == 1
    assert [line.kind for line in site.lines()].count(TRAIN) == 3


def test_what_is_spent_is_on_the_ledger_before_the_update_that_it_paid_for(protected):
    site = protected(epsilon=9.0)
    reply = site.answer(site.trained())
    lines = [line for line in site.lines() if line.kind in (LINE, TRAIN)]
    assert [line.kind for line in lines] == [LINE, TRAIN]
    before, left = (line.facts for line in lines)
    assert left["charged-bytes"] == count_bytes({"arrays": reply.content["arrays"]})
    assert 0 < left["charged-bytes"] < left["bytes"]
    shared = ("study", "study-sha256", "dataset", "run", "repeat")
    assert {key: before[key] for key in shared} == {key: left[key] for key in shared}
    # It is that of the whole run, of which this is one round of five.
    own = {"releases": [vars(A_RUN)], "epsilon": epsilon([A_RUN], 1e-5), "unit": "person", "delta": 1e-5}
    assert {key: before[key] for key in own} == own


def test_a_site_without_budget_left_says_so_in_a_sentence_that_leaves(protected):
    site = protected(epsilon=3.0)
    site.open(title="Clinic One")  # which whoever refuses before a table is open does not know
    message = site.trained()
    replies = [site.answer(message, run=f"2026-{number}") for number in range(5)]
    done = sum(not reply.has_error() for reply in replies)
    assert 1 <= done < 5 and epsilon([A_RUN] * done, 1e-5) <= 3.0 < epsilon([A_RUN] * (done + 1), 1e-5)
    said = replies[-1].error.reason
    assert said.startswith("privacy budget: epsilon 2.") and " of 3 is spent at delta 1e-05" in said
    assert may_leave(said, site.site) and not may_leave(f"{said} Jane Roe", site.site)
    assert [line.kind for line in site.lines()][-1] == "error" and len(spent(site)) == done
    refused = EnrolReply.from_record(enrolled(site, run="2026-new").content)
    assert not refused.accepted and refused.reason == said
    # A run that was charged before is not turned away.
    back = EnrolReply.from_record(enrolled(site, run="2026-0").content)
    assert back.accepted
    assert (back.epsilon_budget, back.epsilon_spent) == (3.0, pytest.approx(epsilon([A_RUN] * done, 1e-5)))


def test_a_whole_run_is_charged_as_the_approval_says_and_the_next_one_is_not_let_in(protected, conducted_through):
    site = protected(epsilon=2.5)
    said = " ".join(describe_study_budget(site.folder, site.site, site.study))
    promised = shown(epsilon(run_charges(site.study).values(), 1e-5))
    assert f"epsilon 0 of 2.5 at delta 1e-05. A run makes it {promised}. 1 such run still fit" in said
    outcome, _ = conducted_through(site)
    assert outcome.status == "completed" and len(spent(site)) == 1
    found = budget_as_json(site.site, spent_at(site.folder), ledger_of(site.folder))
    assert shown(found["spent"]) == promised and found["remaining"] == 2.5 - found["spent"]
    said = " ".join(describe_study_budget(site.folder, site.site, site.study))
    assert said.endswith("No run of it fits any more, so this site refuses it.")


def test_figures_of_the_budget_pass_the_gate_and_no_other_numbers_do(protected):
    site = protected()
    reply = enrolled(site)
    found = EnrolReply.from_record(reply.content)
    assert found.accepted and math.isnan(found.epsilon_budget) and found.epsilon_spent == 0.0
    messages = StudyMessages(site.study, datasets.load("small").schema, site.site)
    assert message_defect(reply.content, messages.leaving(ENROL)) is None
    for key in ("epsilon-budget", "epsilon-spent"):
        for wrong in (-1.0, math.inf, "much"):
            reply.content["config"][key] = wrong
            assert f"has a value '{key}' that does not fit" in message_defect(reply.content, messages.leaving(ENROL))
        reply.content["config"][key] = 0.5


@pytest.mark.parametrize(("policy", "said"), [
    ({"mechanisms": ("none", "site-dp")}, "its policy allows mechanisms none, site-dp, the study asks for 'reco"),
    ({"delta": 1e-6}, "its policy allows delta up to 1e-06, the study asks for 1e-05"),
])  # fmt: skip
def test_a_gate_refuses_what_its_policy_does_not_allow_and_reads_no_row(protected, policy: dict[str, Any], said: str):
    site = protected(**policy)
    assert site.refusal(site.message(SUMMARISE := "query.summarise", SummariseRequest()))[: len(said)] == said
    assert site.answer(site.message(SUMMARISE, SummariseRequest())).error.reason[: len(said)] == said
    assert len(spent(site)) == 0


def test_a_study_without_record_level_privacy_is_refused_where_there_is_a_budget(gated):
    site = gated(policy=Policy(epsilon=3.0))
    said = site.refusal(site.trained())
    assert said.startswith("its policy allows studies with record-level differential privacy only")
    assert may_leave(said, site.site)
    assert site.policy(epsilon=None).refusal(site.trained(), site.context()) is None


def test_the_person_who_approves_is_told_what_is_promised_spent_and_left(protected):
    site = protected(epsilon=3.0)
    words = "\n".join(details(site.study, site.site, ["site-02"]))
    assert "Privacy: mechanism record-dp. Each step takes a random part of the rows" in words
    assert "epsilon 2 at delta 1e-05, for 5 rounds" in words and "adds no noise" not in words


def test_the_account_says_by_run_what_was_spent_and_what_left_uncharged(protected, flfed):
    site = protected(epsilon=3.0)
    enrolled(site)
    reply = site.answer(site.trained())
    site.answer(site.trained(), run="2026-other")
    found = budget_as_json(site.site, spent_at(site.folder), ledger_of(site.folder))
    assert (found["enforced"], found["delta"], found["restarted"]) == (True, 1e-5, None)
    assert found["spent"] == epsilon([A_RUN] * 2, 1e-5) and found["remaining"] == 3.0 - found["spent"]
    assert [(run["run"], run["releases"]) for run in found["runs"]] == [
        ("20261120-abcd", [vars(A_RUN)]), ("2026-other", [vars(A_RUN)]),
    ]  # fmt: skip
    assert found["runs"][0]["epsilon"] == epsilon([A_RUN], 1e-5)
    left = {kind["kind"]: kind for kind in found["uncharged"]}
    assert left["train"]["lines"] == 2 and left["enrol"]["lines"] == 1
    charged = 2 * count_bytes({"arrays": reply.content["arrays"]})
    whole = sum(line.facts["bytes"] for line in site.lines() if line.kind == TRAIN)
    assert left["train"]["bytes"] + charged == whole
    assert describe_account(found).endswith(", by 2 runs.")


@pytest.mark.parametrize(("left", "shown"), [(0.96, "0.96"), (0.0499, "0.049"), (1.9999, "1.999"), (2.0, "2")])
def test_the_page_shows_no_more_of_the_budget_than_is_left(left: float, shown: str):
    def show(left: float) -> None:
        from flfed.deployment.site_app.pages.s30_budget import cards

        cards({"spent": 3.0 - left, "budget": 3.0, "remaining": left, "delta": 1e-5})

    opened = AppTest.from_function(show, args=(left,)).run()
    assert {part.label: part.value for part in opened.metric}["ε left"] == shown
    assert float(shown) <= left


def test_updates_that_left_without_noise_are_told_beside_what_was_spent_of_a_budget(gated, small_study: str, flfed):
    site = gated(small_study, policy=Policy())
    assert not any(site.answer(site.trained(), run=f"2026-{run}").has_error() for run in "abb")  # b once more
    found = budget_as_json(site.site, spent_at(site.folder), ledger_of(site.folder))
    assert (found["unprotected-updates"], found["spent"]) == (2, 0.0)
    assert describe_account(found) == (
        "site-01: epsilon 0 is spent at delta 1e-05. The policy sets no budget. "
        "2 updates left without noise, so no epsilon bounds what all of them reveal."
    )


def test_the_command_shows_the_account_of_a_site(flfed, tmp_path: Path, small_sites, monkeypatch: pytest.MonkeyPatch):
    small_sites(0)
    package = tmp_path / "root" / "sites" / "site_01"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        'from flfed import Csv, Site\nsite = Site(name="site-01", dataset="small", source=Csv("table.csv"))\n'
    )
    (package / "policy.toml").write_text("format = 1\nepsilon = 4.0\n")
    code, out, _ = flfed("site", "budget", "site-01")
    assert code == 0 and out == "site-01: epsilon 0 of 4 is spent at delta 1e-05.\n"
    folder = SiteFolder("site-01")
    folder.make()
    account = Account(state_of(folder), Policy())
    charge = Charge(study_sha256="ab", run="20261120-r", repeat=0, study="heart", delta=1e-5, releases=(A_RUN,))
    account.charge(charge)
    ledger_of(folder).append(kind="compare", study="heart", study_sha256="ab", bytes=900)
    code, out, _ = flfed("site", "budget", "site-01")
    assert code == 0 and "of 4 is spent at delta 1e-05, by 1 run." in out
    assert "20261120-r" in out and "compare" in out and "900" in out
    code, out, _ = flfed("site", "budget", "site-01", "--json")
    found = json.loads(out)
    assert found["runs"][0]["releases"][0]["steps"] == 20 and found["uncharged"][0]["bytes"] == 900
    code, out, _ = flfed("site", "budget", "--help")
    assert code == 0 and "Example: flfed site budget" in out
