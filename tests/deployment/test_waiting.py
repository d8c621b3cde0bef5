"""What waits at a site, for whom and since when: as its own gate refused, its people decided and its node was alive."""

import os
import time
from datetime import datetime, timedelta
from typing import Any

import pytest

from flfed.deployment.operator.status import status_of
from flfed.deployment.site_app.ledger_reader import LedgerSummary, read_ledger
from flfed.deployment.site_app.waiting import Wait, describe_age, list_waits
from flfed.deployment.site_state import approval
from flfed.paths import SiteFolder, private_folder
from flfed.records.ledger import ledger_of
from flfed.records.ledger_line import REFUSED, moment_of
from flfed.study.study import Study
from tests.deployment.test_site_app import page, words

pytestmark = [pytest.mark.slow, pytest.mark.studies]
JOINED = {"joined": "joined a coordinator", "paused": False, "studies": []}
NOW = datetime.fromisoformat("2026-11-20T12:00:00+00:00")


def request(site: Any, study: Study, times: int = 1) -> None:
    """Send requests of a study to the site's gate, which writes its refusals down."""
    for _ in range(times):
        site.gate.answer(site.trained(), site.context(study=study.text))


def lines_of(site: Any) -> list[Any]:
    return [line for line in ledger_of(site.folder).lines() if line.kind == REFUSED]


def waits_of(folder: SiteFolder, facts: dict[str, Any] = JOINED, *, serves: bool = True) -> list[Wait]:
    return list_waits(folder, facts, LedgerSummary(), serves=serves, now=NOW.timestamp())


def test_a_study_waits_for_this_site_from_its_first_refusal_until_a_person_decides(ran: Any):
    site, _ = ran
    second = Study.parse(site.study.text.replace('name = "small"', 'name = "second"', 1))
    assert "Does anything wait for this site?" in words(page("status")) and "refusal" not in words(page("status"))
    request(site, second, times=3)
    refused = lines_of(site)
    asked = f"The coordinator requested a study with SHA-256 {second.sha256()[:12]}…"
    for name in ("status", "approvals"):
        shown = words(page(name)).replace("*", "")
        assert f"This site: {asked} and got 3 refusals: the study is not approved here. For under a minute" in shown
        assert "flfed site approve STUDY --site site-01" in shown
    assert "Yes: 1 matter for people here." in words(page("status"))
    outbound = read_ledger(site.folder)
    assert [seen.at for seen in outbound.undecided[second.sha256()]] == [line.at for line in refused]
    approval.refuse(site.folder, second, by="Dr Roe")
    request(site, second)
    assert asked not in words(page("status"))
    # A changed text of an approved study waits by itself, with its name in the refusal.
    request(site, Study.parse(site.study.text.replace("seed = 7", "seed = 8")))
    assert "1 refusal: study 'small' was changed since it was decided about here" in words(page("status"))
    # An approval for other columns is no decision that counts. Decisions have whole seconds.
    time.sleep(1)
    site.approve(second, schema_sha256="0" * 64)
    request(site, second)
    assert "requested study second and got 1 refusal: its schema of 'small' changed after" in words(page("status"))


def test_an_approved_study_waits_for_the_coordinator_until_its_first_message(ran: Any):
    site, _ = ran
    facts = status_of(site.folder, site.site)
    outbound = read_ledger(site.folder)
    (one,) = facts["studies"]
    unrequested = [wait for wait in list_waits(site.folder, facts, LedgerSummary(), serves=True) if wait.study]
    assert [(wait.is_here, wait.study, wait.since) for wait in unrequested] == [(False, "small", moment_of(one["at"]))]
    one["at"] = "2020-01-01T00:00:00+00:00"  # long before the run
    assert [wait for wait in list_waits(site.folder, facts, outbound, serves=True) if wait.study] == []
    one |= {"at": "2030-01-01T00:00:00+00:00", "reason": "the study expired on 2026-11-20"}
    assert [wait for wait in list_waits(site.folder, facts, outbound, serves=True) if wait.study] == []


def test_a_paused_site_and_one_without_a_node_wait_for_their_own_people(home: Any):
    folder = SiteFolder("site-01")
    approval.pause(folder, by="Dr Roe")
    (pulse := folder.gate_pulse).touch()
    os.utime(pulse, (0, (NOW - timedelta(days=3)).timestamp()))
    waits = waits_of(folder, JOINED | {"paused": True}, serves=False)
    assert [wait.is_here for wait in waits] == [True, True]
    assert waits[0].since == "2026-11-17T12:00:00.000+00:00"
    assert waits[0].describe(NOW.timestamp()).endswith("For 3 days, since 17 Nov 2026, 12:00 UTC.")
    assert [wait.remedy for wait in waits] == ["flfed site serve site-01", "flfed site pause site-01 --resume"]
    assert waits_of(folder) == []
    os.utime(pulse, (0, 0))  # of a busy gate
    assert waits_of(folder, serves=False)[0].since == ""


def test_a_site_waits_for_a_kit_an_admission_and_a_reply_of_the_coordinators_server(home: Any):
    folder = SiteFolder("site-01")
    (wait,) = waits_of(folder, JOINED | {"joined": ""}, serves=False)
    assert (wait.is_here, wait.matter) == (False, "This site has no kit of a study network yet.")
    folder.make()
    private_folder(folder.network)
    folder.admission.touch()
    os.utime(folder.admission, (0, (NOW - timedelta(hours=5)).timestamp()))
    (wait,) = waits_of(folder)
    assert "has not replied yet. For 5 hours" in wait.describe(NOW.timestamp())
    folder.node_pulse.touch()
    for seconds, count in ((80, 0), (100, 1)):  # a node counts as silent after 90 seconds
        os.utime(folder.node_pulse, (0, NOW.timestamp() - seconds))
        assert len(waits_of(folder)) == count
    assert waits_of(folder, serves=False)[0].is_here


@pytest.mark.parametrize(("seconds", "expected"), [
    (-5, "under a minute"), (59, "under a minute"), (60, "1 minute"), (3599, "59 minutes"), (86_399, "23 hours"),
    (86_400, "1 day"), (40 * 86_400, "40 days"),
])  # fmt: skip
def test_an_age_is_in_its_largest_unit(seconds: float, expected: str):
    assert describe_age(seconds) == expected
