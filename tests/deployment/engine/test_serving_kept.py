"""What a serving coordinator does of itself: it renews its certificate, and goes on where a file is damaged."""

from datetime import timedelta
from typing import Any

import pytest

from flfed.callbacks import now_utc
from flfed.deployment.coordinator.certificates import Settings, initialise, renew_server, server_days_left
from flfed.deployment.coordinator.node_auth import NodeRegistration
from flfed.deployment.coordinator.serve import DAY_SECONDS, CertificateWatch
from flfed.deployment.flower.control import Control
from flfed.deployment.flower.link import Link, Node, pem_of
from flfed.errors import UsageError
from flfed.paths import CoordinatorFolder

RENEWED = "the server's certificate had fewer than 30 days left, and was renewed"


def aged(folder: CoordinatorFolder, days: int) -> None:
    """Have the server's certificate be one that holds for so many days."""
    renew_server(folder, now=now_utc() - timedelta(days=396 - days))


def test_a_certificate_is_renewed_in_its_last_month_and_not_under_a_run(tmp_path):
    folder, told = CoordinatorFolder(tmp_path / "coordinator"), list[str]()
    initialise(folder, Settings("Test", "localhost:18443"))
    watch = CertificateWatch(folder, told.append)
    aged(folder, 30)
    watch.renew(DAY_SECONDS, busy=False)
    assert (server_days_left(folder), told) == (30, [])
    aged(folder, 29)
    for hours in (0, 1, 23, 24, 30):
        watch.renew(DAY_SECONDS + 3600 * hours, busy=True)
    waiting = "the server's certificate is valid for 29 days; it will be renewed when no run is active"
    assert (server_days_left(folder), told) == (29, [waiting, waiting])
    watch.renew(DAY_SECONDS, busy=False)
    assert (server_days_left(folder), told) == (396, [waiting, waiting, RENEWED])
    trusted = (folder.keys / "ca.crt").read_bytes()
    aged(folder, -3)
    watch.renew(DAY_SECONDS, busy=False)
    assert (server_days_left(folder), (folder.keys / "ca.crt").read_bytes()) == (396, trusted)
    # The authority's key is kept elsewhere: said once a day, and the server serves on.
    aged(folder, 7)
    (folder.keys / "ca.key").rename(tmp_path / "ca.key")
    told.clear()
    for hours in (24, 25, 47, 48):
        watch.renew(DAY_SECONDS + 3600 * hours, busy=False)
    assert [said[:79] for said in told] == 2 * [
        "the server's certificate is valid for 7 days, and cannot be renewed: " + str(folder.keys / "ca.key")[:10]
    ]


class Registering:
    """Stands for the server's control routes: it never takes one of the keys."""

    def __init__(self, key: bytes) -> None:
        self._key, self.taken = key, list[str]()

    def nodes(self) -> dict[bytes, Node]:
        return {}

    def register(self, site: str, public_key: bytes) -> int:
        if public_key == self._key:
            raise UsageError(f"site {site!r}: its key was revoked before and is never valid again")
        self.taken.append(site)
        return len(self.taken)


def test_a_key_that_is_never_taken_holds_up_no_other_site_and_is_said_once(own_world: Any):
    keys = {site: own_world.key(site) for site in ("site-1", "site-2", "site-3")}
    for site, key in keys.items():
        own_world.record(site, key=key)
    told: list[str] = []
    registration = NodeRegistration(own_world.folder, told.append)
    control = Registering(pem_of(keys["site-2"]))
    for _ in range(3):
        registration.update(control)
    assert control.taken[:2] == ["site-1", "site-3"]
    assert [sentence for sentence in told if "is never valid again" in sentence] == [
        "site 'site-2': its key was revoked before and is never valid again"
    ]


@pytest.mark.servers
def test_an_expiring_certificate_is_renewed_at_the_start_and_a_damaged_file_holds_up_nobody(own_world: Any):
    folder = own_world.folder
    keys = {site: own_world.key(site) for site in ("site-1", "site-2", "site-3", "site-4")}

    def nodes() -> dict[str, Node]:
        with Control(Link.of(folder)) as control:
            found = control.nodes()
        return {site: found[pem_of(key)] for site, key in keys.items() if pem_of(key) in found}

    def registered() -> set[str]:
        return {site for site, node in nodes().items() if node.status != "unregistered"}

    for site in ("site-1", "site-2"):
        own_world.record(site, key=keys[site])
    aged(folder, 2)
    own_world.serve()
    assert (server_days_left(folder), own_world.log("serve").count(RENEWED)) == (396, 1)
    assert registered() == {"site-1", "site-2"}
    number = nodes()["site-1"].node_id

    whole = (folder.sites / "site-1.json").read_bytes()
    (folder.sites / "site-1.json").write_bytes(whole[:20])
    own_world.record("site-3", key=keys["site-3"])
    own_world.record("site-2", "revoked")
    assert own_world.until(lambda: registered() == {"site-1", "site-3"}, 60)
    own_world.record("site-4", key=keys["site-4"])
    assert own_world.until(lambda: registered() == {"site-1", "site-3", "site-4"}, 60)
    # The server says so when it has written the site's file, which it would otherwise write again once it is removed.
    assert own_world.until(lambda: "site site-4 can connect" in own_world.log("serve"), 60)
    said = own_world.log("serve")
    assert [said.count(what) for what in ("site-1.json: is damaged", "site site-3 can connect", "is cut off")] == [
        1, 1, 1,
    ]  # fmt: skip

    (folder.sites / "site-1.json").write_bytes(whole)
    (folder.sites / "site-4.json").unlink()
    # A key that no file has is cut off again, and that of the file that was brought back never was.
    assert own_world.until(lambda: registered() == {"site-1", "site-3"}, 60)
    assert nodes()["site-1"].node_id == number
