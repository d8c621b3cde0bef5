"""Readers of a site's folder for its pages, each of which is read once while nothing there changes.

Nothing is written, and a running node gets no request.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from flfed.deployment.gate.local_results import Result, results_of
from flfed.deployment.gate.study_policy import parsed
from flfed.deployment.operator.approval_summary import describe_decision
from flfed.deployment.operator.budget import budget_as_json
from flfed.deployment.operator.status import status_of
from flfed.deployment.site_app.ledger_reader import LedgerSummary, read_ledger
from flfed.deployment.site_app.page_frame import CACHE_SECONDS, Mark, State, state_of
from flfed.deployment.site_state.approval import approvals
from flfed.deployment.site_state.trusted_files import coordinator_of
from flfed.errors import FlfedError
from flfed.federation.client.account import spent_at
from flfed.paths import SiteFolder
from flfed.records.ledger import ledger_of
from flfed.rows.data import site_discovery as sites
from flfed.words import render


@dataclass(frozen=True)
class Decided:
    """Decision on a study, with its permissions.

    Attributes
    ----------
    facts : dict
        From `flfed site status --json`, with the `reason` why it gets no reply now.
    lines : list of str
        The ten lines that `flfed site approve` would show now; none where they cannot be shown.
    words : list of str
        Its details, a paragraph each; one sentence where they cannot be shown.
    text : str
        The study's text.
    """

    facts: dict[str, Any]
    lines: list[str]
    words: list[str]
    text: str


@st.cache_data(max_entries=8, ttl=CACHE_SECONDS, show_spinner=False)
def status(name: str, mark: Mark) -> dict[str, Any]:
    """Return the object of `flfed site status --json`."""
    return status_of(SiteFolder(name), sites.load(name))


@st.cache_resource(max_entries=1, ttl=CACHE_SECONDS, show_spinner=False)
def ledger(name: str, mark: Mark) -> LedgerSummary:
    """Return the content of the ledger; all readers share the result, which must not be changed."""
    with st.spinner(render("site_app.ledger.checking")):
        return read_ledger(SiteFolder(name))


def budget(name: str, mark: Mark) -> dict[str, Any]:
    """Return the object of `flfed site budget --json`, computed once for each state of the ledger and each policy."""
    with st.spinner(render("site_app.budget.adding")):
        return _budget(name, state_of(SiteFolder(name).ledger), sites.load(name).policy.model_dump_json())


@st.cache_data(max_entries=8, ttl=CACHE_SECONDS, show_spinner=False)
def _budget(name: str, ledger: State | None, policy: str) -> dict[str, Any]:
    site, folder = sites.load(name), SiteFolder(name)
    return budget_as_json(site, spent_at(folder), ledger_of(folder))


@st.cache_data(max_entries=8, ttl=CACHE_SECONDS, show_spinner=False)
def decided(name: str, mark: Mark) -> list[Decided]:
    """Return the site's decisions on studies, the latest first.

    Raises
    ------
    FlfedError
        If one of their files is damaged, or others can read or write it.
    """
    folder = SiteFolder(name)
    texts = {one.study_sha256: one for one in approvals(folder)}
    decisions = []
    for facts in status(name, mark)["studies"]:
        one = texts[facts["study-sha256"]]
        # The list has an older study that this version cannot read, too.
        try:
            study = parsed(one.text)
            coordinator = one.coordinator or coordinator_of(folder)
            lines, words = describe_decision(folder, study, sites.load(name), one, coordinator)
        except FlfedError as error:
            lines = []
            words = [render("site_app.approvals.unshown", error=error)]
        decisions.append(Decided(facts, lines, words, one.text))
    return decisions


@st.cache_data(max_entries=8, ttl=CACHE_SECONDS, show_spinner=False)
def results(name: str, mark: Mark) -> tuple[list[Result], list[str]]:
    """Return the site's own results, the latest first, and problems with files that cannot be read."""
    return results_of(SiteFolder(name))


LISTENING = "00010000"
"""The flag of a listening socket in Linux's list."""


def node_listens(folder: SiteFolder, sockets: Path = Path("/proc/net/unix")) -> bool:
    """Return whether a node listens at the gate's socket, by the system's list of sockets.

    Parameters
    ----------
    folder : SiteFolder
    sockets : Path
        The list; where there is none, as on other systems than Linux, no node is known to listen.
    """
    try:
        lines = sockets.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    # A path may contain blanks, and is the last of eight cells.
    rows = (line.split(maxsplit=7) for line in lines)
    return any(len(cells) == 8 and cells[3] == LISTENING and cells[7] == str(folder.socket) for cells in rows)
