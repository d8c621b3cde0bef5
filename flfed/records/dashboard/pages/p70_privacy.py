"""Page Privacy of one run.

It shows the run's guarantee, what each site spent of its budget, what attacks reached, and what left.
"""

from __future__ import annotations

import streamlit as st

from flfed.records.dashboard import run_page
from flfed.records.dashboard.components import sections
from flfed.records.dashboard.panels import attacks
from flfed.records.dashboard.panels import privacy as privacy_panels
from flfed.records.dashboard.run_page import Opened
from flfed.records.objects import read_all
from flfed.records.reports.audit_headlines import Audit, AuditFigure, Runs, audit_of
from flfed.records.reports.privacy import Private, privacy_of
from flfed.records.reports.privacy_tables import has_model
from flfed.records.sections.privacy import charged_section, left_section, mechanisms_section, spent_section
from flfed.records.store.entries import CrossedEntry
from flfed.records.store.reader import RunReader


def show() -> None:
    """Show the privacy of a run.

    It is the run of the address, else the newest. The page keeps up with it while it runs.
    """
    run_page.show("Privacy", parts)


def parts(opened: Opened) -> None:
    """Show all parts for the current run."""
    with RunReader.open(only=opened.only) as reader:
        found: Runs = [(run, {site.site: site for site in reader.sites(run.run)}) for run in opened.runs]
        privacy, audit = privacy_of(reader, found), read_all(AuditFigure, audit_of(reader, found))
        crossed = reader.crossed([run.run for run in opened.runs])
        told = next(filter(None, (reader.summary(run.run, "told-outcomes") for run in opened.runs)), None)
    _parts(found, privacy, audit, crossed, opened.only)
    if told:
        privacy_panels.told(told)


def _parts(found: Runs, privacy: Private, audit: Audit, crossed: list[CrossedEntry], only: str | None) -> None:
    """Show each part in a place of its own.

    So one that comes later moves no other.
    """
    run, sites = found[0]
    with st.container():
        privacy_panels.promise(privacy, audit, attackable=has_model(run), only=only)
    charged = charged_section(privacy)
    with st.container():
        if charged is not None:
            sections.show(charged)
    with st.container():
        sections.show(left_section(crossed, len(found)))
    with st.container():
        privacy_panels.limits_of_promise(privacy, audit, only=only)
    with st.container():
        sections.show(spent_section(privacy))
    with st.container():
        attacks.attacks(privacy, audit, run, only=only)
    with st.container():
        sections.show(mechanisms_section(privacy, list(sites.values()), only=only))
    with st.container():
        privacy_panels.uncharged(privacy)


if __name__ == "__main__":
    show()
