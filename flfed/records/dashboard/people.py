"""Who looks at the pages: everybody on this machine, or who logged in and stands in the file of roles."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import streamlit as st

from flfed.errors import UsageError
from flfed.home import home
from flfed.records.seen import Viewer

ROLES = ("coordinator", "analyst")
"""Roles that are a word in the file; the third is a site, `{ site = "NAME" }`."""
ROLE_WORDS = {"coordinator": "coordinator: all", "analyst": "analyst: all results", "site": "reader of {site}"}


def roles_file() -> Path | None:
    """Return where roles are written down: the file `FLFED_ROLES` names, else `roles.toml` under `home()`; or None."""
    given = os.environ.get("FLFED_ROLES")
    if given:
        return Path(given)
    with suppress(UsageError):  # who only looks may have no home of their own
        return found if (found := home() / "roles.toml").exists() else None
    return None


def role_of(claims: Mapping[str, Any], roles: str) -> Viewer:
    r"""Return who somebody is that logged in.

    Parameters
    ----------
    claims : mapping
        What the provider says of the person: `email`, `email_verified`, `name`.
    roles : str
        TOML: `[people]` with a line a person, `"ana@clinic.example" = "analyst"` (or "coordinator"),
        `"it@clinic.example" = { site = "clinic" }`; `verified-only = false` takes an address that the
        provider does not call verified, for providers that say nothing of it.

    Raises
    ------
    UsageError
        If the file cannot be read, the address is not verified, or the person is not in it.

    Examples
    --------
    >>> role_of({"email": "Ana@Clinic.example", "email_verified": True}, '[people]\n"ana@clinic.example" = "analyst"')
    Viewer(role='analyst', site=None, name='Ana@Clinic.example')
    """
    try:
        found = tomllib.loads(roles)
        people = {address.casefold(): role for address, role in found.get("people", {}).items()}
        strict = found.get("verified-only", True)
    except (tomllib.TOMLDecodeError, AttributeError):
        raise UsageError("the file of roles is not TOML with a table [people]: nobody is let in") from None
    address = str(claims.get("email") or "")
    if strict is not False and claims.get("email_verified") is not True:
        raise UsageError("your login provider does not say that your e-mail address is verified")
    role = people.get(address.casefold()) if address else None
    if role in ROLES:
        return Viewer(role=role, name=address)
    if isinstance(role, dict) and set(role) == {"site"} and isinstance(role["site"], str) and role["site"]:
        return Viewer(role="site", site=role["site"], name=address)
    if role is None:
        raise UsageError(
            f"{address or 'you'} may not see these pages: ask the coordinator to add you to the file of roles"
        )
    raise UsageError(f'the role of {address} must be "coordinator", "analyst" or {{ site = "NAME" }}')


def needs_login() -> bool:
    """Tell whether people have to log in: a login is configured, or there is a file of roles."""
    return "is_logged_in" in st.user or roles_file() is not None


def admit() -> Viewer | None:
    """Return who looks, or None where a page to log in, or why somebody may not, is shown instead.

    Without a login it is a person on this machine, who may see all of the store.
    """
    if not needs_login():
        return Viewer()
    if "is_logged_in" not in st.user:
        st.title("Log in")
        st.error(
            "There is a file of roles, but no login is set up: nobody is let in. docs/app.md says how, "
            "with `[auth]` in .streamlit/secrets.toml."
        )
        return None
    if not st.user.is_logged_in:
        st.title("Log in")
        st.markdown("These pages show results of studies. Who may see which is written down by the coordinator.")
        st.button("Log in", on_click=st.login, type="primary")
        return None
    try:
        file = roles_file()
        found = role_of(st.user.to_dict(), "" if file is None else file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        _refused("there is no file of roles that can be read: nobody is let in")
        return None
    except UsageError as error:
        _refused(str(error))
        return None
    with st.sidebar:
        st.caption(f"{found.name}, {ROLE_WORDS[found.role].format(site=found.site)}")
        st.button("Log out", on_click=st.logout)
    return found


def _refused(why: str) -> None:
    """Show why somebody may not see the pages, and let them log in as somebody else."""
    st.title("Not for you")
    st.error(f"{why[0].upper()}{why[1:]}.")
    st.button("Log out", on_click=st.logout)


def viewer() -> Viewer:
    """Return who looks; a page that is run without the frame that lets people in shows nothing."""
    found = st.session_state.get("viewer")
    if isinstance(found, Viewer):
        return found
    if needs_login():
        st.stop()
    return Viewer()
