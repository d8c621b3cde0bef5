"""The app shows the run store to who has its token, and to no other account; a login stands in its place."""

import os
from pathlib import Path

import pytest

from tests.browser import opened, socket_status_of, status_of
from tests.cli.test_app import app

pytestmark = [pytest.mark.slow, pytest.mark.browser, pytest.mark.timeout(180)]


def test_nothing_is_shown_without_the_token_unless_people_log_in(home: Path, url: str, heart: str, tmp_path: Path):
    secrets = home / ".streamlit" / "secrets.toml"
    secrets.parent.mkdir()
    with app("--headless", said=tmp_path / "said", FLFED_STORE=url, HOME=str(home)) as address:
        name, token = address.cookie
        for path in ("", f"?run={heart}", "overview", "_stcore/health", "media/x.csv", f"?token={token[:-1]}"):
            status, said = status_of(f"{address}/{path}")
            assert (status, "the address that `flfed app` printed" in said) == (403, True)
        for wrong in (f"{name}={token[:-1]}", f"{name}=", f"{name}0={token}"):
            assert status_of(f"{address}/", Cookie=wrong)[0] == 403
            assert socket_status_of(f"{address}/_stcore/stream", Cookie=wrong) == 403
        assert status_of(f"{address}/_stcore/health", Cookie=f"{name}={token}") == (200, "ok")
        assert socket_status_of(f"{address}/_stcore/stream", Cookie=f"{name}={token}") == 101
        assert token not in Path(f"/proc/{address.pid}/cmdline").read_text()  # which every account sees
        assert f"={token}" in Path(f"/proc/{address.pid}/environ").read_text()
        # A file that may set up a login: the pages let nobody in by themselves.
        secrets.write_text("[auth\n")
        with opened(str(address)) as window:
            window.page.goto(f"{address}/?run={heart}")
            window.page.get_by_text("Nobody can log in").wait_for()
            secrets.unlink()
            # Who came while it was there came without the token, and still has no login.
            window.page.keyboard.press("r")
            window.page.get_by_text("The login is no longer set up").wait_for()
            window.page.goto(f"{address}/?run={heart}")
            assert "nothing is shown without its token" in window.page.content()
            window.page.goto(f"{address}/?run={heart}&token={token}")
            window.page.get_by_role("heading", name="Runs").wait_for()
            assert window.page.url == f"{address}/?run={heart}"


def test_the_token_is_another_one_at_each_start_and_no_account_is_given_it(tmp_path: Path):
    tokens = []
    for number in range(2):
        said = tmp_path / str(number)
        with app("--headless", said=said, FLFED_APP_TOKEN="guessed") as address:
            tokens.append(address.cookie[1])
            assert status_of(f"{address}/?token=guessed")[0] == 403
            if os.geteuid() == 0:
                os.seteuid(65534)
                try:
                    with pytest.raises(PermissionError):
                        Path(f"/proc/{address.pid}/environ").read_text()
                finally:
                    os.seteuid(0)
    assert len({*tokens, "guessed"}) == 3
