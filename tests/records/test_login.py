"""Logging in at a real provider on loopback: who sees what, and who sees nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from flfed.errors import UsageError
from flfed.records.dashboard.access import role_of, roles_file
from flfed.records.document.document import document
from flfed.records.store.entries import SiteRow
from flfed.records.store.visibility import Viewer
from flfed.records.store.writer import EventRow, MetricRow, RunStore
from tests.browser import Window, free_port, opened, served
from tests.records.oidc_provider import CLIENT, SECRET, Provider, provider

ROLES = """
[people]
"ana@clinic.example" = "analyst"
"chief@clinic.example" = "coordinator"
"it@hungary.example" = { site = "hungary" }
"it@long-beach.example" = { site = "long-beach" }
"""


def claims(address: str, *, verified: object = True) -> dict[str, object]:
    return {"sub": address, "email": address, "email_verified": verified}


@pytest.mark.parametrize(("address", "viewer"), [
    ("ana@clinic.example", Viewer("analyst", None, "ana@clinic.example")),
    ("Chief@Clinic.Example", Viewer("coordinator", None, "Chief@Clinic.Example")),
    ("it@hungary.example", Viewer("site", "hungary", "it@hungary.example")),
])  # fmt: skip
def test_a_person_has_the_role_that_is_written_down(address, viewer):
    assert role_of(claims(address), ROLES) == viewer


@pytest.mark.parametrize(("person", "roles", "says"), [
    (claims("eve@clinic.example"), ROLES, "ask the coordinator to add you"),
    (claims("ana@clinic.example", verified=False), ROLES, "verified"),
    (claims("ana@clinic.example", verified="true"), ROLES, "verified"),
    ({"sub": "x", "email_verified": True}, ROLES, "ask the coordinator"),
    (claims("ana@clinic.example"), "people = 3", "not TOML with a table"),
    (claims("ana@clinic.example"), "[people", "not TOML with a table"),
    (claims("ana@clinic.example"), '[people]\n"ana@clinic.example" = "owner"', "must be"),
    (claims("ana@clinic.example"), '[people]\n"ana@clinic.example" = { site = "" }', "must be"),
    (claims("ana@clinic.example"), "", "ask the coordinator"),
    # To Unicode's folding of case these pairs are alike: they may be two people's.
    (claims("stra\u00dfe@clinic.example"), '[people]\n"strasse@clinic.example" = "analyst"', "ask the coordinator"),
    (claims("\u017fue@clinic.example"), '[people]\n"sue@clinic.example" = "analyst"', "ask the coordinator"),
    (claims("j\u00f6rg@clinic.example"), '[people]\n"J\u00d6RG@clinic.example" = "analyst"', "ask the coordinator"),
    (claims("ana@clinic.example"), f'{ROLES}\n"ANA@clinic.example" = "coordinator"', "two lines for one person"),
])  # fmt: skip
def test_who_is_not_known_for_certain_sees_nothing(person, roles, says):
    with pytest.raises(UsageError, match=says):
        role_of(person, roles)


def test_an_address_beyond_ascii_is_found_as_it_is_written():
    roles = '[people]\n"j\u00f6rg@clinic.example" = "analyst"'
    assert role_of(claims("j\u00f6rg@clinic.example"), roles).role == "analyst"


def test_a_file_of_roles_counts_unless_it_is_certain_that_there_is_none(tmp_path: Path, monkeypatch):
    monkeypatch.delenv("FLFED_ROLES", raising=False)
    monkeypatch.setenv("FLFED_HOME", str(tmp_path / "not-made"))
    assert roles_file() is None
    assert list(tmp_path.iterdir()) == []  # looking makes no folder
    there = tmp_path / "roles.toml"
    monkeypatch.setenv("FLFED_HOME", str(tmp_path))
    assert roles_file() is None
    there.symlink_to(tmp_path / "moved-away")
    assert roles_file() == there
    (tmp_path / "loop").symlink_to("loop")
    monkeypatch.setenv("FLFED_HOME", str(tmp_path / "loop"))  # cannot be looked into, not even by root
    assert roles_file() == tmp_path / "loop" / "roles.toml"
    monkeypatch.setenv("FLFED_ROLES", str(tmp_path / "nowhere"))
    assert roles_file() == tmp_path / "nowhere"


def test_a_provider_that_says_nothing_of_addresses_has_to_be_trusted_in_so_many_words():
    person = {"sub": "x", "email": "ana@clinic.example"}
    assert role_of(person, f"verified-only = false\n{ROLES}").role == "analyst"


@pytest.fixture(scope="module")
def with_login(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Provider, Path]]:
    """One app with a login, its provider, and the link to the folder whose `runs.db` and `roles.toml` it reads.

    Its own address must be known before it starts, so a port is set aside.
    """
    port, folder = free_port(), tmp_path_factory.mktemp("login")
    store, roles = f"sqlite:///{folder}/now/runs.db", str(folder / "now" / "roles.toml")
    secrets = folder / "secrets.toml"
    with provider() as people:
        secrets.write_text(
            f'[auth]\nredirect_uri = "http://127.0.0.1:{port}/oauth2callback"\n'
            f'cookie_secret = "{"s" * 40}"\nclient_id = "{CLIENT}"\nclient_secret = "{SECRET}"\n'
            f'server_metadata_url = "{people.address}/.well-known/openid-configuration"\n'
        )
        environment = {"FLFED_STORE": store, "FLFED_ROLES": roles, "FLFED_HOME": str(folder)}
        with served(environment, options={"--secrets.files": str(secrets)}, port=port) as found:
            yield found, people, folder / "now"


@pytest.fixture
def people(with_login: tuple[str, Provider, Path]) -> Provider:
    with_login[1].spoil_nonce = False
    return with_login[1]


@pytest.fixture
def address(with_login: tuple[str, Provider, Path], url: str, tmp_path: Path) -> str:
    """Where the app with a login is served, showing the store of the test."""
    found, _, link = with_login
    (tmp_path / "roles.toml").write_text(ROLES)
    link.unlink(missing_ok=True)
    link.symlink_to(tmp_path)
    return found


def log_in(window: Window, people: Provider, who: str, path: str) -> None:
    people.person = claims(who)
    window.page.goto(f"{window.address}/{path}")
    window.page.get_by_role("button", name="Log in").click()


def frames(window: Window) -> str:
    return "".join(frame if isinstance(frame, str) else frame.decode("utf-8", "replace") for frame in window.received)


@pytest.mark.browser
@pytest.mark.parametrize(
    ("own", "other"), [("hungary", "long-beach"), pytest.param("long-beach", "hungary", marks=pytest.mark.proof)]
)
def test_the_people_of_a_site_see_their_own_figures_and_not_those_of_another(address, people, heart, own, other):
    with opened(address) as window:
        log_in(window, people, f"it@{own}.example", f"?run={heart}")
        window.page.get_by_role("heading", name="Runs").wait_for()
        for page in ("Overview", "Sites", "Rounds", "Data", "Privacy"):
            window.turn_to(page)
        window.turn_to("Sites")
        window.page.get_by_role("heading", name=own).first.wait_for()
        assert f"reader of {own}" in window.page.locator("[data-testid=stSidebar]").inner_text()
        window.picture(f"login-{own}", whole=True)
        said = frames(window)
        assert said.count(own) > 10
        assert said.count(other) == 0
        assert said.count(f"Hospital {other.title()}") == 0
        window.page.goto(f"{address}/sites?run={heart}&site={other}")
        window.page.get_by_role("heading", name=own).first.wait_for()
        window.drawn()
        assert f"'{other}' has no figures here" in window.page.locator("[data-testid=stMain]").inner_text()


@pytest.mark.proof
@pytest.mark.browser
def test_an_analyst_sees_all_sites_and_can_log_out(address, people, heart):
    with opened(address) as window:
        log_in(window, people, "ana@clinic.example", f"?run={heart}")
        window.page.get_by_role("heading", name="Runs").wait_for()
        window.turn_to("Sites")
        assert frames(window).count("long-beach") > 5
        assert frames(window).count("hungary") > 5
        window.page.get_by_role("button", name="Log out").click()
        window.page.get_by_role("button", name="Log in").wait_for()
        assert window.page.get_by_text("heart-disease").count() == 0


@pytest.mark.browser
def test_who_has_no_role_or_no_right_token_sees_nothing(address, people, heart):
    with opened(address) as window:
        log_in(window, people, "eve@clinic.example", f"?run={heart}")
        window.page.get_by_text("ask the coordinator to add you").wait_for()
        assert frames(window).count("heart-disease") == 0
        assert frames(window).count("hungary") == 0
    people.spoil_nonce = True
    with opened(address) as window:
        with window.page.expect_response("**/oauth2callback?*"):
            log_in(window, people, "chief@clinic.example", f"?run={heart}")
        window.page.get_by_role("button", name="Log in").wait_for()
        window.drawn()
        assert window.page.get_by_role("heading", name="Runs").count() == 0
        assert frames(window).count("heart-disease") == 0


@pytest.mark.browser
def test_a_file_of_roles_without_a_login_lets_nobody_in(url, heart, tmp_path):
    roles = tmp_path / "roles.toml"
    roles.write_text(ROLES)
    with served({"FLFED_STORE": url, "FLFED_ROLES": str(roles)}) as found, opened(found) as window:
        window.page.goto(f"{found}/overview?run={heart}")
        window.page.get_by_text("Nobody can log in").wait_for()
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
def test_another_role_reaches_a_page_that_is_open(address, people, store: RunStore, tmp_path: Path, page):
    series = store.begin_series(study="ward", study_sha256="", study_text="")
    run = store.begin_run(
        series, engine="inprocess", path="", seed=1, rounds_planned=9, primary="roc_auc_score", task="binary"
    )
    for site in ("hungary", "long-beach"):
        run.sites([SiteRow(site, rows=100)])
    run.round(1, metrics=[MetricRow(site, "training", "roc_auc_score", 0.7) for site in ("hungary", "long-beach")])
    roles = tmp_path / "roles.toml"
    with opened(address) as window:
        log_in(window, people, "ana@clinic.example", f"?run={run.run}")
        window.page.get_by_role("heading", name="Runs").wait_for()
        window.turn_to(page)
        assert frames(window).count("another site") == 0
        roles.write_text(ROLES.replace('= "analyst"', '= { site = "hungary" }'))
        window.page.get_by_text("You see only the figures of hungary").wait_for()
        window.drawn()
        window.received.clear()
        run.events([EventRow(1, "long-beach", "fault", "late")])
        run.round(2, metrics=[MetricRow("long-beach", "training", "roc_auc_score", 0.7)])
        window.page.get_by_text("2 of 9").first.wait_for()
        assert frames(window).count("long-beach") == 0
        roles.write_text("[people]\n")
        window.page.get_by_text("ask the coordinator to add you").wait_for()
        assert window.page.get_by_text("ward").count() == 0
        window.received.clear()
        run.round(3, metrics=[])
        window.page.wait_for_timeout(1500)
        assert frames(window).count("ward") == 0


@pytest.mark.browser
@pytest.mark.parametrize(("who", "viewer"), [
    ("it@hungary.example", Viewer("site", "hungary")),
    pytest.param("ana@clinic.example", Viewer("analyst"), marks=pytest.mark.proof),
])  # fmt: skip
def test_a_report_that_is_downloaded_is_that_of_who_asks(address, people, heart, url, who, viewer):
    with opened(address) as window:
        page = window.page
        page.add_init_script("delete window.showSaveFilePicker")  # a dialogue of the desktop, which is not there
        log_in(window, people, who, "")
        page.get_by_role("link", name="heart-disease").click()
        page.get_by_text("Printable report").click()
        with page.expect_download() as kept:
            page.get_by_role("button", name="Download the report").click()
        assert kept.value.suggested_filename == f"{heart}.html"
        text = kept.value.path().read_text()
        assert text == document(heart, store=url, viewer=viewer)
        assert ("long-beach" in text) == (viewer.site is None)
        assert text.count("hungary") > 3
