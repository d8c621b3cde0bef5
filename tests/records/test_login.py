"""Logging in at a real provider on loopback: who sees the pages, and who sees nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from flfed.errors import UsageError
from flfed.records.dashboard.access import PEOPLE, check_person
from flfed.records.store.entries import SiteRow
from flfed.records.store.writer import MetricRow, RunStore
from tests.browser import Window, free_port, opened, served
from tests.records.oidc_provider import CLIENT, SECRET, Provider, provider

LISTED = """
# The consortium's board
ana@clinic.example
chief@clinic.example  # since May
it@clinic.example unverified
"""


def claims(address: str, *, verified: object = True) -> dict[str, object]:
    return {"sub": address, "email": address, "email_verified": verified}


@pytest.mark.parametrize("address", ["ana@clinic.example", "Chief@Clinic.Example"])
def test_who_is_in_the_file_may_see_the_pages(address):
    assert check_person(claims(address), LISTED) == address


@pytest.mark.parametrize(("person", "listed", "says"), [
    (claims("eve@clinic.example"), LISTED, "eve@clinic.example may not see .*: ask the coordinator to add you"),
    (claims("ana@clinic.example", verified=False), LISTED, "verified"),
    (claims("ana@clinic.example", verified="true"), LISTED, "verified"),
    ({"sub": "x", "email": "ana@clinic.example"}, LISTED, "verified"),
    ({"sub": "x", "email_verified": True}, LISTED, "ask the coordinator"),
    (claims("ana@clinic.example"), "", "ask the coordinator"),
    (claims("ana@clinic.example"), "# ana@clinic.example", "ask the coordinator"),
    (claims("ana@clinic.example"), "ana@clinic.example, chief@clinic.example", "ask the coordinator"),
    (claims("ana@clinic.example"), "ana@clinic.example or chief@clinic.example", "ask the coordinator"),
    # To Unicode's folding of case these pairs are alike: they may be two people's.
    (claims("stra\u00dfe@clinic.example"), "strasse@clinic.example", "ask the coordinator"),
    (claims("\u017fue@clinic.example"), "sue@clinic.example", "ask the coordinator"),
    (claims("j\u00f6rg@clinic.example"), "J\u00d6RG@clinic.example", "ask the coordinator"),
])  # fmt: skip
def test_who_is_not_known_for_certain_sees_nothing(person, listed, says):
    with pytest.raises(UsageError, match=says):
        check_person(person, listed)


def test_an_address_beyond_ascii_is_found_as_it_is_written():
    assert check_person(claims("j\u00f6rg@clinic.example"), "j\u00f6rg@clinic.example") == "j\u00f6rg@clinic.example"


def test_a_provider_that_says_nothing_of_addresses_has_to_be_trusted_in_so_many_words():
    assert check_person({"sub": "x", "email": "it@clinic.example"}, LISTED) == "it@clinic.example"


@pytest.fixture(scope="module")
def with_login(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Provider, Path]]:
    """One app with a login, its provider, and its home, in which `now` links to the folder of its store.

    Its own address must be known before it starts, so a port is set aside.
    """
    port, folder = free_port(), tmp_path_factory.mktemp("login")
    secrets = folder / "secrets.toml"
    with provider() as people:
        secrets.write_text(
            f'[auth]\nredirect_uri = "http://127.0.0.1:{port}/oauth2callback"\n'
            f'cookie_secret = "{"s" * 40}"\nclient_id = "{CLIENT}"\nclient_secret = "{SECRET}"\n'
            f'server_metadata_url = "{people.address}/.well-known/openid-configuration"\n'
        )
        environment = {"FLFED_STORE": f"sqlite:///{folder}/now/runs.db", "FLFED_HOME": str(folder)}
        with served(environment, options={"--secrets.files": str(secrets)}, port=port) as found:
            yield found, people, folder


@pytest.fixture
def people(with_login: tuple[str, Provider, Path]) -> Provider:
    with_login[1].spoil_nonce = False
    return with_login[1]


@pytest.fixture
def file(with_login: tuple[str, Provider, Path]) -> Path:
    """The file of the people who may log in."""
    path = with_login[2] / PEOPLE
    path.write_text(LISTED)
    return path


@pytest.fixture
def address(with_login: tuple[str, Provider, Path], file: Path, url: str, tmp_path: Path) -> str:
    """Where the app with a login is served, showing the store of the test."""
    link = file.parent / "now"
    link.unlink(missing_ok=True)
    link.symlink_to(tmp_path)
    return with_login[0]


def log_in(window: Window, people: Provider, who: str, path: str) -> None:
    people.person = claims(who)
    window.page.goto(f"{window.address}/{path}")
    window.page.get_by_role("button", name="Log in").click()


def frames(window: Window) -> str:
    return "".join(frame if isinstance(frame, str) else frame.decode("utf-8", "replace") for frame in window.received)


@pytest.mark.browser
def test_who_is_listed_sees_all_sites_and_can_log_out(address, people, heart):
    with opened(address) as window:
        log_in(window, people, "ana@clinic.example", f"?run={heart}")
        window.page.get_by_role("heading", name="Runs").wait_for()
        window.turn_to("Sites")
        assert "ana\u2060@clinic.example" in window.page.locator("[data-testid=stSidebar]").inner_text()
        assert frames(window).count("long-beach") > 5
        assert frames(window).count("hungary") > 5
        window.page.get_by_role("button", name="Log out").click()
        window.page.get_by_role("button", name="Log in").wait_for()
        assert window.page.get_by_text("heart-disease").count() == 0


@pytest.mark.browser
def test_who_is_not_listed_or_has_no_right_token_sees_nothing(address, people, heart, file):
    for who, listed, says in (
        ("eve@clinic.example", LISTED, f"ask the coordinator to add you to {PEOPLE}"),
        ("ana@clinic.example", "", f"ask the coordinator to add you to {PEOPLE}"),
        ("ana@clinic.example", None, f"Nobody may log in: {PEOPLE} under FLFED_HOME is missing"),
    ):
        file.unlink(missing_ok=True)
        if listed is not None:
            file.write_text(listed)
        with opened(address) as window:
            log_in(window, people, who, f"?run={heart}")
            window.page.get_by_text(says).wait_for()
            assert frames(window).count("heart-disease") == 0
            assert frames(window).count("hungary") == 0
    file.write_text(LISTED)
    people.spoil_nonce = True
    with opened(address) as window:
        with window.page.expect_response("**/oauth2callback?*"):
            log_in(window, people, "chief@clinic.example", f"?run={heart}")
        window.page.get_by_role("button", name="Log in").wait_for()
        window.drawn()
        assert window.page.get_by_role("heading", name="Runs").count() == 0
        assert frames(window).count("heart-disease") == 0


@pytest.mark.proof
@pytest.mark.browser
def test_a_login_that_cannot_be_read_lets_nobody_in(url, heart, tmp_path):
    path = tmp_path / "secrets.toml"
    path.write_text("[auth\nclient_id = 1")
    found = served({"FLFED_STORE": url, "FLFED_HOME": str(tmp_path)}, options={"--secrets.files": str(path)})
    with found as address, opened(address) as window:
        window.page.goto(f"{address}/overview?run={heart}")
        window.page.get_by_text("cannot be read as TOML. Nobody can log in").wait_for()
        assert frames(window).count("heart-disease") == 0


@pytest.mark.browser
@pytest.mark.parametrize("page", [pytest.param("Runs", marks=pytest.mark.proof), "Rounds"])
def test_who_is_no_longer_listed_loses_a_page_that_is_open(address, people, store: RunStore, file: Path, page):
    series = store.begin_series(study="ward", study_sha256="", study_text="")
    run = store.begin_run(
        series, engine="inprocess", path="", seed=1, rounds_planned=9, primary="roc_auc_score", task="binary"
    )
    run.sites([SiteRow("hungary", rows=100)])
    run.round(1, metrics=[MetricRow("hungary", "training", "roc_auc_score", 0.7)])
    with opened(address) as window:
        log_in(window, people, "ana@clinic.example", f"?run={run.run}")
        window.page.get_by_role("heading", name="Runs").wait_for()
        window.turn_to(page)
        run.round(2, metrics=[MetricRow("hungary", "training", "roc_auc_score", 0.7)])
        window.page.get_by_text("2 of 9").first.wait_for()
        file.write_text("chief@clinic.example\n")
        window.page.get_by_text("ask the coordinator to add you").wait_for()
        assert window.page.get_by_text("ward").count() == 0
        window.received.clear()
        run.round(3, metrics=[])
        window.page.wait_for_timeout(1500)
        assert frames(window).count("ward") == 0
