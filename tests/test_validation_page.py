"""A hospital is left out of a run by the commands of docs/validation.md in order, at real processes on loopback."""

import json
from collections.abc import Iterator

import pytest

from tests.machines import SITE, Machine, begin, commands_of, machines_of, take_in, wait_online

OTHERS, LEFT_OUT = ("hungary", "long-beach", "switzerland"), "cleveland"
PAGE = "validation.md"


def test_the_page_has_a_command_for_each_step():
    assert list(commands_of(PAGE)) == ["study show", "site approve", "coordinator run", "run export", "predict model"]


@pytest.fixture
def machines() -> Iterator[dict[str, Machine]]:
    with machines_of((*OTHERS, LEFT_OUT)) as found:
        yield found


@pytest.mark.proof
@pytest.mark.servers
@pytest.mark.timeout(900)
def test_a_hospital_is_left_out_by_the_book(machines, test_data):
    coordinator = machines["coordinator"]
    begin(machines, test_data)
    commands = commands_of(PAGE)
    *show, _, file = commands["study show"]
    study = coordinator.home.parent / "exchange" / file
    study.write_text(coordinator.run([*show, "--set", "rounds=2"]))
    for name in OTHERS:
        take_in(coordinator, machines[name])
        others = ",".join(other for other in OTHERS if other != name)
        words = [others if word == "OTHERS" else word for word in commands["site approve"]]
        machines[name].run([*words, "--yes"])
        machines[name].start(SITE["site serve"])
    wait_online({name: machines[name] for name in ("coordinator", *OTHERS)}, len(OTHERS))
    found = json.loads(coordinator.run([*commands["coordinator run"], "--json"]))
    assert (found["status"], sorted(found["sites"])) == ("completed", sorted(OTHERS))
    coordinator.run(commands["run export"])
    figures = machines[LEFT_OUT].json(commands["predict model"])
    assert figures["rows"] == figures["metric-rows"] == 303
    assert figures["metrics"]["roc_auc_score"]["value"] > 0.75
