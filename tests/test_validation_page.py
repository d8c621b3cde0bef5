"""Hospitals validate a model, and one is left out of a run, by the commands of docs/validation.md at real processes."""

import json
import shutil
from collections.abc import Iterator

import pytest

from flfed.rows.evaluation.scoring import three_digits
from tests.machines import ROOT, SITE, Machine, begin, commands_of, machines_of, take_in, wait_online

OTHERS, LEFT_OUT = ("hungary", "long-beach", "switzerland"), "cleveland"
PAGE = "validation.md"


def test_the_page_has_a_command_for_each_step():
    brought = ["study new", "study run", "run show", "site approve", "coordinator run"]
    assert list(commands_of(PAGE)) == [*brought, "study show", "run export", "predict model"]


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


HOSPITALS = (*OTHERS, LEFT_OUT)
COEFFICIENTS = "name,value,unit\nintercept,-4.1,\nage,0.0513,years\nsex=male,1.217,\noldpeak,0.6171,mm\n"
POLICY = 'format = 1\ndisclosure = "institution"\noutputs = ["complete-rows"]\n'


@pytest.mark.proof
@pytest.mark.servers
@pytest.mark.timeout(900)
def test_four_hospitals_validate_a_model_and_train_nothing(machines, test_data):
    coordinator = machines["coordinator"]
    exchange = coordinator.home.parent / "exchange"
    for site in HOSPITALS:
        package = exchange / "sites" / site.replace("-", "_")
        shutil.copytree(ROOT / "sites" / package.name, package)
        (package / "policy.toml").write_text(POLICY)
    begin(machines, test_data)
    models = {"first": COEFFICIENTS, "second": COEFFICIENTS.replace("0.0513", "0.0514")}
    files = {}
    for name, text in models.items():
        (exchange / f"{name}.csv").write_text(text)
        new = ["study", "new", "--dataset", "heart-disease", "--validate", f"{name}.csv", "--name", name]
        coordinator.run(new)
        files[name] = exchange / f"{name}.toml"
    for site in HOSPITALS:
        take_in(coordinator, machines[site])
        others = ",".join(other for other in HOSPITALS if other != site)
        said = machines[site].run(["site", "approve", str(files["first"]), "--site", site, "--with", others, "--yes"])
        assert "Nothing is trained" in said
        assert "Worst case: whoever made the model for the purpose learns about a person" in said
        machines[site].start(SITE["site serve"])
    wait_online(machines, len(HOSPITALS))
    run = ["coordinator", "run", str(files["first"]), "--json"]
    found = json.loads(coordinator.run(run))
    assert found["status"] == "completed"
    validated = found["validation"]["sites"]
    areas = [site["roc_auc_score"] for site in validated.values() if site["roc_auc_score"]["value"] is not None]
    assert len(areas) >= 2
    assert all(end == three_digits(end) for area in areas for end in (area["value"], area["low"], area["high"]))
    for site in HOSPITALS:
        kinds = [line["kind"] for line in machines[site].ledger_lines()]
        assert "compare" in kinds
        assert {"train", "summarise", "evaluate", "keys"}.isdisjoint(kinds)
    # Another model is another text, which nobody approved.
    refused = coordinator.run(["coordinator", "run", str(files["second"]), "--json"], code=2)
    assert "not approved" in refused or "approve" in refused
