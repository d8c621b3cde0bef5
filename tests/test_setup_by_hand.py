"""Three institutions from nothing to a finished run by `flfed site setup`, each command at a terminal, on loopback."""

import re
from pathlib import Path

import pytest

from flfed.study.study import Study
from tests.machines import Machine, free_port, machines_of, until
from tests.terminal import Dialogue

SITES = ("kentucky-clinic", "minnesota-clinic", "new-york-clinic")
SPOKEN = re.compile(r"the coordinator asks for by telephone: (\S+) or")
MOST_COMMANDS = 10


class Typed:
    """What people type: each command is counted."""

    def __init__(self) -> None:
        self.commands: list[str] = []

    def begin(self, machine: Machine, *words: str) -> Dialogue:
        self.commands.append(" ".join(words))
        return machine.dialogue(list(words))

    def end(self, machine: Machine, *words: str) -> str:
        """Type a command that asks nothing; return what it printed."""
        dialogue = self.begin(machine, *words)
        assert dialogue.ended(300) == 0, dialogue.shown()
        return dialogue.shown()


def set_up(typed: Typed, machine: Machine, site: str) -> tuple[Dialogue, str]:
    """Set a site up until it serves; return the dialogue, which goes on, and the fingerprint that its people read."""
    others = ",".join(name for name in SITES if name != site)
    words = ("--kit", f"{site}.kit.zip", "--study", "study.toml", "--with", others)
    dialogue = typed.begin(machine, "site", "setup", *words, "--output", str(machine.home))
    shown = dialogue.wait_for("Type approve, refuse or later")
    assert 'Purpose: "Predict delivery' in shown and "To stop: flfed site withdraw preterm-birth" in shown
    dialogue.type("approve")
    shown = dialogue.wait_for("Step 5 of 5")
    match = SPOKEN.search(shown)
    assert match is not None, shown
    return dialogue, match[1]


def admit(typed: Typed, coordinator: Machine, files: dict[Path, str], *more: str) -> str:
    """Admit files at a terminal by the fingerprints that are read out; return what it printed."""
    dialogue = typed.begin(coordinator, "coordinator", "admit", *map(str, files), *more)
    for file, fingerprint in files.items():
        shown = dialogue.wait_for(f"Fingerprint of the key of {file.stem}")
        # What a person must type is not shown before.
        assert fingerprint not in shown and "SHA256:" not in shown
        dialogue.type(fingerprint)
    assert dialogue.ended() == 0, dialogue.shown()
    return dialogue.shown()


@pytest.mark.proof
@pytest.mark.servers
@pytest.mark.timeout(900)
def test_three_sites_from_nothing_to_a_run_and_a_wrong_one_replaced_by_one_command():
    with machines_of((*SITES, "stranger")) as machines:
        coordinator, stranger = machines["coordinator"], machines["stranger"]
        typed = Typed()
        address = f"localhost:{free_port()}"
        typed.end(coordinator, "coordinator", "init", "--title", "Three clinics", "--address", address)
        server = typed.begin(coordinator, "coordinator", "serve", "--listen", "127.0.0.1")
        exchange = coordinator.home.parent / "exchange"
        # The shipped study has 40 rounds, which are no other than five.
        text = Study.load("preterm-birth").text.replace("rounds = 40", "rounds = 5")
        (exchange / "study.toml").write_text(text)
        (exchange / "sites.toml").write_text(f"sites = {list(SITES)}\n".replace("'", '"'))
        assert "SHA-256" in typed.end(coordinator, "coordinator", "invite", "--all", "sites.toml")
        server.wait_for("sites can connect")
        # Somebody else used the kit of one clinic first, and the coordinator believed the wrong person.
        wrong, wrong_fingerprint = set_up(Typed(), stranger, SITES[0])
        admit(Typed(), coordinator, {stranger.home / f"{SITES[0]}.admission": wrong_fingerprint})
        until("the stranger online", lambda: status(coordinator)[SITES[0]])
        admissions = {}
        for site in SITES:
            _, fingerprint = set_up(typed, machines[site], site)
            admissions[machines[site].home / f"{site}.admission"] = fingerprint
        right, *others = admissions
        before = len(typed.commands)
        shown = admit(typed, coordinator, {right: admissions[right]}, "--replace")
        assert len(typed.commands) - before == 1 and f"{SITES[0]} is admitted" in shown
        log = stranger.home / "sites" / SITES[0] / "network/node.log"
        until("the stranger cut off", lambda: "refuses this site" in log.read_text(), said=log.read_text)
        wrong.kill()
        admit(typed, coordinator, {file: admissions[file] for file in others})
        until("three sites", lambda: all(status(coordinator).values()), every=0.5)
        result = typed.end(coordinator, "coordinator", "run", "study.toml")
        assert all(site in result for site in SITES), result
        # One of them replaced the wrong site: without it there are the eight of docs/run-a-consortium.md.
        assert len(typed.commands) == 8 + 1 <= MOST_COMMANDS, typed.commands
        run = coordinator.json(["run", "show", "latest"])
        assert (run["status"], run["engine"], run["faults"]) == ("completed", "deployment", [])
        assert (run["rounds"], sorted(run["sites"])) == (5, sorted(SITES))
        # The key that was wrongly admitted is never admitted again, not even in place of the right one.
        again = coordinator.run(
            ["coordinator", "admit", str(stranger.home / f"{SITES[0]}.admission"), "--replace"], code=2
        )
        assert "belongs, or belonged, to site" in again


def status(coordinator: Machine) -> dict[str, bool]:
    """Return which sites are online."""
    sites = coordinator.json(["coordinator", "status"])["sites"]
    return {site["site"]: bool(site["online-since"]) for site in sites}
