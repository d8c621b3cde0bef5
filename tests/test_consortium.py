"""From nothing to a finished study at four institutions, by the commands of docs/, as they stand there.

Real processes on loopback: SuperLink, Caddy, TLS, four sites with homes and keys of their own.
"""

import json

import pytest

from tests.machines import COORDINATOR, SITE, Machine, begin, take_in, wait_online

SITES = ("cleveland", "hungary", "long-beach", "switzerland")
ROUNDS = 2
"""Of the run in the test: the study as it is shipped has 40, which takes minutes."""


def test_a_site_needs_one_command_or_three_and_a_coordinator_three_and_two_for_all_or_each():
    mapping, behind_a_proxy = ["site new", "site map"], ["site proxy", "site units"]
    assert list(SITE) == [*mapping, "site setup", "site join", "site approve", "site serve", *behind_a_proxy]
    assert list(COORDINATOR) == [
        "coordinator init", "coordinator serve", "coordinator invite", "coordinator admit",
        "coordinator status", "coordinator run",
    ]  # fmt: skip


@pytest.mark.servers
@pytest.mark.timeout(900)
def test_a_consortium_by_the_book(machines, test_data):
    coordinator = machines["coordinator"]
    begin(machines, test_data)
    for site in SITES:
        take_in(coordinator, machines[site])
        assert 'Legal basis: "public data' in machines[site].run(short(SITE["site approve"], machines[site]))
        machines[site].start(SITE["site serve"])
    wait_online(machines, 4)
    deployed = json.loads(coordinator.run([*short(COORDINATOR["coordinator run"], coordinator), "--json"]))
    assert (deployed["status"], deployed["engine"], deployed["rounds"]) == ("completed", "deployment", ROUNDS)
    here = json.loads(coordinator.run([*short(["study", "run", "heart-disease"], coordinator), "--json"]))
    compared = json.loads(coordinator.run(["run", "compare", deployed["run"], here["run"], "--json"]))
    assert compared["arrays-max-difference"] <= 1e-6
    signed_by_its_coordinator(coordinator, machines[SITES[0]], deployed["run"])
    for site, found in here["sites"].items():
        assert deployed["sites"][site]["rows"] == found["rows"]
        for arm in ("global", "personalised"):
            for metric, value in found[arm].items():
                assert deployed["sites"][site][arm][metric]["value"] == pytest.approx(value["value"], abs=1e-9)
    offsets_on_the_ledgers(machines)
    for site in SITES:
        verified = machines[site].run(["site", "ledger", "SITE", "--verify"])
        assert "Every line is as it was written" in verified
    refused_when_changed(machines, coordinator)


def signed_by_its_coordinator(coordinator: Machine, site: Machine, run: str) -> None:
    """Check that a site knows whose the exported model is; one of a run on the coordinator's machine is nobody's."""
    exported = coordinator.json(["run", "export", run, "--output", "model"])
    found = site.json(["predict", "model", "--site", "SITE"])
    assert (found["signature"], found["signed-by"]) == ("known", exported["signed-by"])
    assert found["signing-key"] == exported["signing-key"] and found["rows"] > 100
    alone = coordinator.json(["run", "export", "latest", "--output", "alone"])
    assert alone["model"] != run and alone["signed-by"] is None


def offsets_on_the_ledgers(machines: dict[str, Machine]) -> None:
    """Check that sites told their own offsets."""
    lines = {site: {line["kind"]: line for line in machines[site].ledger_lines()} for site in SITES}
    assert sum(found["evaluate"].get("offset", False) for found in lines.values()) >= 3


def refused_when_changed(machines: dict[str, Machine], coordinator: Machine) -> None:
    """A study of another text, which nobody approved, is refused by every site, and no row is read for it."""
    lines = {site: machines[site].ledger_lines() for site in SITES}
    said = coordinator.run([*COORDINATOR["coordinator run"], "--set", "rounds=3"], code=2)
    assert said.count("was changed since it was decided about here: it needs a new approval") == 4
    for site in SITES:
        new = machines[site].ledger_lines()[len(lines[site]) :]
        assert [line["kind"] for line in new][0] == "refused"
        assert {line["kind"] for line in new} == {"refused"}


def short(words: list[str], machine: Machine) -> list[str]:
    """Return a command with a file of the study's own in place of its name: the same with fewer rounds."""
    path = machine.study("heart-disease", rounds=ROUNDS)
    return [path if word == "heart-disease" else word for word in words]
