"""Readers of a site's folder for its pages.

Each is read once while nothing there changes. Nothing is written, and a running node is not asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from flfed.deployment.gate.local_results import Result, results_of
from flfed.deployment.gate.study_policy import parsed
from flfed.deployment.operator.budget import budget_as_json
from flfed.deployment.operator.secure_sums import Agreement, agreement_of, other_studies, words_of_others
from flfed.deployment.operator.status import status_of
from flfed.deployment.operator.study_description import plain_words
from flfed.deployment.operator.wording import shown
from flfed.deployment.site_app.ledger_view import LedgerReader, Left
from flfed.deployment.site_app.page_frame import KEPT_SECONDS, Mark, State, state_of
from flfed.deployment.site_state.approval import approvals
from flfed.deployment.site_state.trusted_files import coordinator_of
from flfed.errors import FlfedError
from flfed.folders import SiteFolder
from flfed.records.ledger.ledger import ledger_of
from flfed.rows.data import site_discovery as sites
from flfed.study.study import Study


@dataclass(frozen=True)
class Decided:
    """Decision about a study, with what it allows.

    Attributes
    ----------
    facts : dict
        As `flfed site status --json` has it, with the `reason` for which it would not be answered now.
    purpose : str
    words : list of str
        What `flfed site approve` would show of it now, a paragraph each; one sentence where it cannot be shown.
    text : str
        Of the study, word for word.
    """

    facts: dict[str, Any]
    purpose: str
    words: list[str]
    text: str


@st.cache_data(max_entries=8, ttl=KEPT_SECONDS, show_spinner=False)
def status(name: str, mark: Mark) -> dict[str, Any]:
    """Return the object of `flfed site status --json`."""
    return status_of(SiteFolder(name), sites.load(name))


@st.cache_resource(max_entries=1, show_spinner=False)
def _reader(name: str, root: str) -> LedgerReader:
    return LedgerReader(SiteFolder(name))


def left(name: str, mark: Mark) -> Left:
    """Return the checked content of the ledger.

    Every line and the coordinator's receipts are checked, as `--verify` does.

    It is one for all who look, and not to be changed.
    """
    with st.spinner("Checking each line of the ledger ..."):
        return _reader(name, str(SiteFolder(name).root)).read(mark)


def budget(name: str, mark: Mark) -> dict[str, Any]:
    """Return the object of `flfed site budget --json`.

    It is added up once for each state of the ledger and each policy.
    """
    return _budget(name, state_of(SiteFolder(name).ledger), sites.load(name).policy.model_dump_json())


@st.cache_data(max_entries=8, ttl=KEPT_SECONDS, show_spinner="Adding up what was spent ...")
def _budget(name: str, ledger: State | None, policy: str) -> dict[str, Any]:
    return budget_as_json(sites.load(name), ledger_of(SiteFolder(name)))


@st.cache_data(max_entries=8, ttl=KEPT_SECONDS, show_spinner=False)
def decided(name: str, mark: Mark) -> list[Decided]:
    """Return the site's decisions, the latest first.

    Each is about a study.

    Raises
    ------
    FlfedError
        If a file of them is damaged, or others can read or write it.
    """
    folder, site = SiteFolder(name), sites.load(name)
    texts = {one.study_sha256: one for one in approvals(folder)}
    found = []
    for facts in status(name, mark)["studies"]:
        one = texts[facts["study-sha256"]]
        # An older study may be unreadable to this version, and is listed all the same.
        try:
            study = parsed(one.text)
            agreement = agreement_of(one) if one.decision != "refused" else None
            purpose = shown(study.purpose)
            words = plain_words(study, site, one.co_sites, _coordinator(folder, one), agreement=agreement)
            words += [] if agreement is None else _others(folder, study, one.co_sites, agreement)
        except FlfedError as error:
            purpose, words = "", [f"It cannot be shown with this version of flfed, or this site, any more: {error}."]
        found.append(Decided(facts, purpose, words, one.text))
    return found


def _others(folder: SiteFolder, study: Study, co_sites: tuple[str, ...], agreement: Agreement) -> list[str]:
    # A ledger that cannot be read hides what left, and not what the study allows.
    try:
        return words_of_others(study.dataset.name, other_studies(folder, study, co_sites, agreement))
    except FlfedError as error:
        return [f"Other studies on {study.dataset.name} cannot be named: {error}."]


def _coordinator(folder: SiteFolder, one: Any) -> str:
    return str(one.coordinator or coordinator_of(folder))


@st.cache_data(max_entries=8, ttl=KEPT_SECONDS, show_spinner=False)
def results(name: str, mark: Mark) -> tuple[list[Result], list[str]]:
    """Return the site's own results, the latest first.

    What cannot be read goes with them.
    """
    return results_of(SiteFolder(name))


LISTENING = "00010000"
"""The flag of a socket that waits for others, as Linux lists it."""


def node_listens(folder: SiteFolder, sockets: Path = Path("/proc/net/unix")) -> bool:
    """Tell whether a node listens at the gate's socket.

    The system's list of sockets tells, and nobody is asked.

    Parameters
    ----------
    folder : SiteFolder
    sockets : Path
        The list; where there is none, as on other systems than Linux, nobody is known to listen.
    """
    try:
        lines = sockets.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    # A path may contain blanks, and is the last of eight cells.
    found = (line.split(maxsplit=7) for line in lines)
    return any(len(cells) == 8 and cells[3] == LISTENING and cells[7] == str(folder.socket) for cells in found)
