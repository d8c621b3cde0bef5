"""What a gate still holds a coordinator to once its ledger was lost, in part or wholly, and begun anew."""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flwr.app import Message

from flfed.deployment.operator.run_budget import runs_left
from flfed.deployment.site_state import ledger_loss
from flfed.deployment.site_state.ledger_loss import restart
from flfed.records.ledger import Ledger, ledger_of
from flfed.refusals import Refusal
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site
from flfed.study.study import Study
from flfed.updates.messages.compare import COMPARE
from flfed.updates.messages.enrol import ENROL, EnrolRequest
from flfed.updates.messages.train import EVALUATE, TRAIN
from tests.deployment.summing import Consortium, LyingServer, said, summing
from tests.deployment.test_lying_server import run_of
from tests.deployment.test_receipts import KEY, trust
from tests.deployment.test_two_gates import model

OPEN = {"disclosure": "open", "resplit": True}
BEFORE_LOSS = Refusal("approved-before-loss")


def harm(folder: Any) -> None:
    """Change the first line, which tells of nothing that a run is held to."""
    first, *others = folder.ledger.read_bytes().splitlines(keepends=True)
    folder.ledger.write_bytes(first.replace(b'"kind":"', b'"kind":"x') + b"".join(others))


def lose(folder: Any) -> None:
    """Lose the ledger, where a key shows that there was one."""
    (folder.gate / "rows.key").write_bytes(bytes(32))
    (folder.gate / "rows.key").chmod(0o600)
    folder.ledger.unlink()


def set_back(folder: Any) -> None:
    """Bring back the ledger of its first line, where the coordinator's receipt shows that there were more."""
    first = folder.ledger.read_bytes().splitlines(keepends=True)[0]
    folder.ledger.write_bytes(first)
    trust(folder, KEY)
    Ledger(folder.receipts, ordered=False).append(kind="receipt", site=folder.site, run="r", line=9, head="ab" * 32)


def restarted(folder: Any) -> ledger_loss.Restarted:
    """Begin a ledger anew; no two are begun in one second."""
    earlier = len(list(folder.gate.glob("ledger-before-*"))) + (0 if folder.ledger.exists() else 10)
    return restart(folder, by="Dr Kim", why="a disk", now=datetime.now(UTC) + timedelta(seconds=earlier))


def begin_anew(site: Any, how: Callable[[Any], None] = harm) -> ledger_loss.Restarted:
    """Have a ledger harmed and begun anew; what the site keeps of its runs beside it is lost, too."""
    how(site.folder)
    found = restarted(site.folder)
    shutil.rmtree(site.folder.root / "runs", ignore_errors=True)
    site.open()
    return found


@pytest.fixture
def site(gated: Callable[..., Any], small_study: str) -> Any:
    """A site that was asked to enrol, and then about a model by each kind of message, in one of two runs."""
    made = gated(small_study.replace("rounds = 5", "rounds = 12"), policy=Policy(**OPEN, runs=2))
    enrol = EnrolRequest(dataset="small", schema_sha256="ab" * 32)
    for request in (made.message(ENROL, enrol), *asked(made)):
        assert said(made.answer(request)) == ""
    return made


def asked(site: Any, by: float = 0.0) -> list[Message]:
    """Return a question of each kind that a run may ask about one model."""
    return [
        model(site, TRAIN, 1, by), model(site, EVALUATE, 0, by),
        model(site, COMPARE, 0, by, odds_centre=-1.0, odds_spread=0.5),
    ]  # fmt: skip


def test_questions_that_were_answered_come_over(site: Any, monkeypatch: pytest.MonkeyPatch):
    before = site.lines()[1:]
    assert begin_anew(site).carried == len(before) == 3
    site.approve()
    others = [said(site.answer(message)) for message in asked(site, 0.5)]
    assert others == [
        Refusal("other-model-in-round", question="train from", round=1),
        Refusal("other-model", question="evaluate"), Refusal("other-model", question="compare"),
    ]  # fmt: skip
    assert said(site.answer(model(site, COMPARE, 0, odds_centre=-0.75, odds_spread=0.5))) == Refusal("other-bins")
    # The same again is answered as before; the run is one of the two that the study may have.
    assert [said(site.answer(message)) for message in asked(site)] == [""] * 3
    assert [said(site.answer(asked(site)[2], run=run)) for run in ("two", "three")] == [
        "", Refusal("too-many-runs", most=2, had=2)
    ]  # fmt: skip
    # Without what came over each other model is answered.
    monkeypatch.setattr(ledger_loss, "_comes_over", lambda *_: False)
    assert begin_anew(site, lose).carried == 0
    site.approve()
    assert [said(site.answer(message)) for message in asked(site, 0.5)] == [""] * 3


def test_what_came_over_comes_over_again_with_the_time_that_it_had(site: Any):
    first = [(line.kind, line.n, line.at) for line in site.lines()[1:]]
    begin_anew(site)
    begin_anew(site)
    lines = site.lines()[1:]
    assert [(line.kind, line.facts["carried-from"], line.first_at) for line in lines] == first


@pytest.mark.parametrize("how", [harm, lose])
def test_a_study_that_was_approved_before_a_loss_is_answered_once_it_is_approved_anew(site: Any, how: Any):
    approved = site.approve()
    begin_anew(site, how)
    for run in ("20261120-abcd", "20261125-new"):
        assert [said(site.answer(message, run=run)) for message in asked(site)] == [BEFORE_LOSS] * 3
    assert site.gate._studies.standing(approved) == BEFORE_LOSS
    words = runs_left(site.folder, site.site, site.study).paragraph()
    left = 1 if how is harm else 2
    assert words.startswith(
        f"Runs: {left} of 2 runs left. A ledger was lost: runs recorded in it count only if its lines came over."
    )
    site.approve()
    site.open()
    assert [said(site.answer(message)) for message in asked(site)] == [""] * 3
    # Another loss is another one.
    begin_anew(site, lose)
    assert said(site.answer(asked(site)[0])) == BEFORE_LOSS


def test_where_nobody_approves_a_person_says_that_runs_begin_anew(site: Any):
    shutil.rmtree(site.folder.approvals)
    site.policy(approval="none")
    assert said(site.answer(asked(site)[0])) == ""
    begin_anew(site)
    assert said(site.answer(asked(site)[0])) == BEFORE_LOSS
    site.approve()
    # The run that was under way is over: its state may be of a backup.
    assert said(site.answer(asked(site)[0])) == Refusal("run-ended")
    assert said(site.answer(asked(site)[0], run="two")) == ""


def test_a_ledger_of_which_no_line_was_lost_asks_for_no_approval(site: Any):
    late = datetime.now(UTC) + timedelta(days=400)
    ledger_of(site.folder, clock=lambda: late).append(kind="enrol", run="one", bytes=1)
    assert "later than its clock" in said(site.answer(asked(site)[0]))
    begin_anew(site, lambda folder: None)
    assert [said(site.answer(message)) for message in asked(site)] == [""] * 3
    assert said(site.answer(asked(site, 0.5)[1])) == Refusal("other-model", question="evaluate")


def test_bytes_of_another_day_are_not_counted_today(site: Any):
    used = sum(line.facts["bytes"] for line in site.lines()[1:])
    harm(site.folder)
    restart(site.folder, by="Dr Kim", why="a disk", now=datetime.now(UTC) + timedelta(minutes=1))
    site.approve()
    site.today = datetime.now(UTC).date()
    site.policy(daily_bytes=used)
    assert said(site.answer(asked(site)[0])) == Refusal("too-many-bytes", most=used, used=used)
    text = site.folder.ledger.read_text()
    assert text.count('"carried-at":"') == 3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flfed.records.ledger_line.Line.first_at", "2020-01-01T00:00:00.000Z")
        site.open()
        assert said(site.answer(asked(site)[0])) == ""


@pytest.mark.studies
@pytest.mark.parametrize("how", [harm, lose, set_back])
def test_after_a_loss_people_of_all_sites_approve_the_cohort_anew(
    small_sites: Callable[..., list[Site]], small_study: str, how: Any
):
    network = {"model.name": "mlp", "model.hidden": [4]}
    study = Study.parse(small_study).replace({"secure-aggregation": "on", "strategy.rounds": 1, **network})
    found = summing(small_sites, study, 3)
    assert run_of(found, "20261120-000001-aaaa") == {""}
    how(found.folders["site-02"])
    restarted(found.folders["site-02"])
    found.approve("site-02")
    found.restart("site-02")
    # Its key says that its dataset may have had another cohort: no site has sums with it, itself included.
    assert answering(found, "20261120-000002-aaaa") == set()
    found.approve("site-02", changed_sites=True)
    # It would take part now, and lacks what the first site shares.
    keys = LyingServer(found, "20261120-000003-aaaa").keys()
    changed = str(Refusal("cohort-changed", site="site-02"))
    assert {site: said(reply) for site, reply in keys.items()} == {
        "site-01": changed, "site-02": str(Refusal("key-unsealed", site="site-01")), "site-03": changed,
    }  # fmt: skip
    for site in found.sites:
        found.approve(site, changed_sites=True)
    assert run_of(found, "20261120-000004-aaaa") == {""}


def answering(found: Consortium, run: str) -> set[str]:
    """Return the sites that take the keys of a run and train in it."""
    server = LyingServer(found, run)
    server.keys()
    return {site for site in found.sites if said(server.train(site)) == ""}
