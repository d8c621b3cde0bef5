"""Readers of a site's folder for its pages.

Each is read once while nothing there changes. Nothing is written.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import streamlit as st

from flfed.deployment.gate.local_results import Result, results_of
from flfed.deployment.gate.study_policy import parsed
from flfed.deployment.operator.budget import budget_as_json
from flfed.deployment.operator.status import status_of
from flfed.deployment.operator.study_description import plain_words, shown
from flfed.deployment.site_app.ledger_view import LedgerReader, Left
from flfed.deployment.site_app.page_frame import KEPT_SECONDS, Mark, State, state_of
from flfed.deployment.site_state.approval import approvals
from flfed.deployment.site_state.coordinator_terms import coordinator_of
from flfed.errors import FlfedError
from flfed.folders import SiteFolder
from flfed.records.ledger.ledger import ledger_of
from flfed.rows.data import site_discovery as sites

LAST = 5
"""Lines that the page Status shows."""


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
    return status_of(SiteFolder(name), sites.load(name), last=LAST)


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
            purpose, words = shown(study.purpose), plain_words(study, site, one.co_sites, _coordinator(folder, one))
        except FlfedError as error:
            purpose, words = "", [f"It cannot be shown with this version of flfed, or this site, any more: {error}."]
        found.append(Decided(facts, purpose, words, one.text))
    return found


def _coordinator(folder: SiteFolder, one: Any) -> str:
    return str(one.coordinator or coordinator_of(folder))


@st.cache_data(max_entries=8, ttl=KEPT_SECONDS, show_spinner=False)
def results(name: str, mark: Mark) -> tuple[list[Result], list[str]]:
    """Return the site's own results, the latest first.

    What cannot be read goes with them.
    """
    return results_of(SiteFolder(name))
