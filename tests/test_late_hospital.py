"""A hospital joins late, by the commands of docs/late-hospital.md in their order, at real processes on loopback."""

import json
import re
from collections.abc import Iterator

import pytest

from tests.machines import COORDINATOR, ROOT, SITE, Machine, begin, commands_of, machines_of, take_in, wait_online
from tests.test_readme import blocks_of

EARLY, LATE = ("cleveland", "hungary", "switzerland"), "long-beach"
PAGE = "late-hospital.md"
AUC = "roc_auc_score"


def test_the_page_has_a_command_for_each_step_and_names_who_does_it():
    assert list(commands_of(PAGE)) == [
        "run export", "site check", "predict model", "coordinator invite", "site join", "coordinator admit",
        "site serve", "study check", "site approve", "coordinator status", "coordinator run", "run show", "run report",
        "site ledger",
    ]  # fmt: skip
    text = (ROOT / "docs" / PAGE).read_text(encoding="utf-8")
    assert len(re.findall(r"^\*\*(Coordinator|Hospital|Each of the four hospitals)\*\*", text, re.MULTILINE)) == 10


@pytest.fixture
def machines() -> Iterator[dict[str, Machine]]:
    with machines_of((*EARLY, LATE)) as found:
        yield found


def first_run(machines: dict[str, Machine]) -> str:
    """Let three hospitals run a study; return the run's id."""
    coordinator = machines["coordinator"]
    study = coordinator.study("heart-disease", rounds=2)
    for name in EARLY:
        take_in(coordinator, machines[name])
        others = ",".join(other for other in EARLY if other != name)
        words = [{"heart-disease": study, "OTHERS": others}.get(word, word) for word in SITE["site approve"]]
        machines[name].run(words)
        machines[name].start(SITE["site serve"])
    wait_online({name: machines[name] for name in ("coordinator", *EARLY)}, len(EARLY))
    return str(coordinator.json([*COORDINATOR["coordinator run"][:2], study])["run"])


@pytest.mark.proof
@pytest.mark.servers
@pytest.mark.timeout(900)
def test_a_hospital_joins_late_by_the_book(machines, test_data):
    coordinator, late = machines["coordinator"], machines[LATE]
    begin(machines, test_data)
    earlier = first_run(machines)
    (model,) = blocks_of((ROOT / "docs" / PAGE).read_text(encoding="utf-8"), "toml")
    text = (coordinator.home / "heart-disease.toml").read_text().replace('name = "heart-disease"', 'name = "late"', 1)
    text = text.replace('[model]\nname = "logistic"\n', model.replace("RUN", earlier))
    study = coordinator.home.parent / "exchange" / "late.toml"
    study.write_text(text)
    said: dict[str, str] = {}
    for name, words in commands_of(PAGE).items():
        given = [word.replace("RUN", earlier).replace("SITE", LATE) for word in words]
        if name == "coordinator admit":
            read_out = said["site join"].partition("asks for by telephone: ")[2].split()[0]
            given += ["--fingerprint", f"{LATE}={read_out}"]
        at_hospital = words[0] in ("site", "predict")
        if name == "site serve":
            late.start(given)
        elif name == "site approve":
            for site in (*EARLY, LATE):
                said[site] = machines[site].run([*words, "--all"])
        elif name == "coordinator run":
            wait_online(machines, 4)
            said[name] = coordinator.run([*given, "--json"])
        else:
            said[name] = (late if at_hospital else coordinator).run(given)
        if name == "study check":
            # What the page says to write below warm-start is in what the command says.
            line = re.search(r'start-sha256 = "[0-9a-f]{64}"', said[name])
            assert line is not None, said[name]
            study.write_text(text.replace(f'warm-start = "{earlier}"\n', f'warm-start = "{earlier}"\n{line[0]}\n'))
    assert AUC in said["predict model"] or "AUC" in said["predict model"]
    for site in (*EARLY, LATE):
        assert f"begins with the model {earlier}" in " ".join(said[site].split())
    found = json.loads(said["coordinator run"])
    assert (found["status"], found["faults"], sorted(found["sites"])) == ("completed", [], sorted((*EARLY, LATE)))
    arms = found["sites"][LATE]
    for arm in ("global", "local-only", "warm-start", "warm-start-tuned"):
        assert 0.5 < arms[arm][AUC]["value"] <= 1, arm
    assert LATE in said["run show"]
    assert "The model that the run began with reaches" in study.with_name("late.html").read_text()
    assert "Every line is as it was written." in said["site ledger"]
    # Who was not there before was not in the earlier run, and its rows trained nothing of the model that it began with.
    assert LATE not in coordinator.json(["run", "show", earlier])["sites"]
