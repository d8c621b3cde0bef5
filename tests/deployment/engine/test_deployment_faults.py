"""What the deployment engine makes of nodes that die, lie or are not there, and of a server that dies."""

import os
import re
import signal
import threading
import time
from typing import Any

import pytest

from flfed.deployment.engine import deployed
from flfed.deployment.flower.control import Control
from flfed.deployment.flower.link import Link, database
from flfed.errors import FlfedError
from tests.deployment.engine.stand_in_messages import CONFIG, SITES, answers, enrol, run_status, train

pytestmark = [pytest.mark.slow, pytest.mark.servers, pytest.mark.proof]


def test_a_node_that_enrols_under_another_name_is_an_error_and_the_others_are_not(own_world: Any):
    for site in SITES:
        own_world.site(site, runs=False)
    own_world.serve()
    own_world.run_site("site-1")
    own_world.run_site("site-2", says="site-1")
    assert own_world.until(lambda: own_world.online() == 2, 150)
    told: list[str] = []
    began = time.monotonic()
    with deployed(own_world.folder, SITES, CONFIG, wait_seconds=3, notify=told.append) as grid:
        assert 3 <= time.monotonic() - began < 40
        found = answers(grid, [enrol(node) for node in grid.get_node_ids()], 90)
    # The third was never there: known by its name, and no time is lost on it.
    assert found == {
        "site-1": "ok",
        "site-2": "site-2: its node says it is site 'site-1', and was admitted as 'site-2'",
        "site-3": "site-3: its node is not online: it never was, or was revoked",
    }
    until = r"The coordinator waits 3 s more, until \d\d:\d\d:\d\d\."
    waiting = rf"Waiting for site-3 to come online\. Already online: site-1, site-2\. {until}"
    assert re.fullmatch(waiting, told[0])
    # On a slow machine it is said of the others too that their first answer is waited for.
    assert [line for line in told[1:] if "Answered so far:" not in line] == ["without site-3: not online"]
    with (
        pytest.raises(FlfedError, match="^not online: site-3; at least 2 sites are needed"),
        deployed(own_world.folder, ["site-2", "site-3"], CONFIG, wait_seconds=1),
    ):
        pass
    with Control(Link.of(own_world.folder)) as control:
        assert control.unfinished() == set()


def test_a_server_killed_in_the_middle_of_a_round_is_started_again_and_the_round_ends(world: Any):
    with deployed(world.folder, SITES, CONFIG) as grid:
        nodes = list(grid.get_node_ids())
        superlink = next(pid for pid in world.server_children() if b"superlink" in command_line(pid))
        later = threading.Timer(2.0, lambda: os.kill(superlink, signal.SIGKILL))
        later.start()
        found = answers(grid, [train(node, sleep=6.0) for node in nodes], 120)
        later.join()
        run = grid.run.run_id
    assert found == dict.fromkeys(SITES, "ok")
    assert run_status(world.folder, run) == ("finished", "completed")
    assert world.log("serve").count("superlink ended (SIGKILL)") == 1


def command_line(pid: int) -> bytes:
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read()


def test_a_node_killed_in_the_middle_of_a_round_is_an_error_before_the_deadline(world: Any):
    with deployed(world.folder, SITES, CONFIG) as grid:
        nodes = list(grid.get_node_ids())
        later = threading.Timer(2.0, world.nodes["site-3"].kill)
        later.start()
        began = time.monotonic()
        found = answers(grid, [train(node, sleep=6.0) for node in nodes], 90)
        took = time.monotonic() - began
        later.join()
        assert found == {"site-1": "ok", "site-2": "ok", "site-3": "site-3: its node is not online"}
        # Flower counts a node as gone after its second heart-beat that did not come.
        assert 6 <= took < 60
        began = time.monotonic()
        again = answers(grid, [train(node) for node in nodes], 60)
        assert again == found
        assert time.monotonic() - began < 50
    with open(database(world.folder), "rb") as file:
        assert b"objects" in file.read()
    assert world.online() == 2
