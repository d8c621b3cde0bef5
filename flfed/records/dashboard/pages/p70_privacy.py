"""Page Privacy of one run.

It shows the run's guarantee, what each site spent of its budget, what attacks reached, and what left.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import streamlit as st

from flfed.errors import counted
from flfed.records.dashboard import run_page, sections
from flfed.records.dashboard.refresh import Opened
from flfed.records.dashboard.sections import bullets
from flfed.records.objects import read_all
from flfed.records.reports.audit_headlines import Audit, AuditFigure, audit_of, not_promised
from flfed.records.reports.privacy import Private, privacy_of
from flfed.records.reports.privacy_tables import describe_outcome_disclosure
from flfed.records.sections.privacy import (
    Promise,
    attacks_section,
    charged_section,
    left_section,
    mechanisms_section,
    promised,
    spent_section,
)
from flfed.records.store.entries import Runs
from flfed.records.store.reader import RunReader
from flfed.records.text import escape, with_code


def parts(opened: Opened) -> None:
    """Show all parts for the current run, each in a place of its own: one that comes later moves no other."""
    with RunReader.open(only=opened.only) as reader:
        runs: Runs = [(run, {site.site: site for site in reader.sites(run.run)}) for run in opened.runs]
        privacy = privacy_of(reader, runs)
        audit = read_all(AuditFigure, audit_of(reader, runs))
        crossed = reader.crossed(opened.names)
        outcome_counts = next(filter(None, (reader.summary(run, "revealed-outcomes") for run in opened.names)), None)
    run, sites = runs[0]
    only = opened.only
    promise = promised(privacy, audit, run, only=only)
    with st.container():
        show_promise(promise, privacy["warnings"])
    sections.show(charged_section(privacy))
    sections.show(left_section(crossed, len(runs)))
    with st.container():
        limits_of_promise(promise, audit)
    sections.show(spent_section(privacy))
    sections.show(attacks_section(privacy, audit, run, only=only))
    sections.show(mechanisms_section(privacy, list(sites.values()), only=only))
    with st.container():
        _uncharged(privacy)
    if outcome_counts:
        st.markdown("## Outcomes that the sums tell")
        st.markdown(bullets(map(escape, describe_outcome_disclosure(outcome_counts))))


STANDING_COLOURS: dict[str, Literal["green", "orange", "red"]] = {
    "within the promise": "green",
    "beyond the promise": "red",
}
"""Everything else is orange: that nothing is promised, or nothing measured, is no reason to be calm."""


def show_promise(promise: Promise, warnings: Sequence[str]) -> None:
    """Show the guarantee, its first sentence unfolded.

    Only a guarantee that was measured at all sites is green.
    """
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown("### What is promised", width="content")
            st.badge(promise.code, color=STANDING_COLOURS.get(promise.code, "orange"))
        first, *more = promise.lines
        st.markdown(with_code(first))
        if more:
            with st.expander("What this means"):
                st.markdown(bullets(map(with_code, more)))
    for warning in warnings:
        st.warning(escape(warning))


def limits_of_promise(promise: Promise, audit: Audit) -> None:
    """Show what the guarantee leaves out."""
    with st.container(border=True):
        st.markdown("### What is not promised")
        # What an attack has shown to leak is red, what is merely not covered is not.
        colour = "red" if not_promised(audit) else "orange"
        st.markdown(bullets(f":{colour}[**{escape(line)}**]" for line in promise.limits))


def _uncharged(privacy: Private) -> None:
    """List outputs and controls outside the guarantee."""
    st.markdown("## Not covered by the promise")
    if not privacy["uncharged"]:
        why_none = f"Not known: {privacy['reason']}." if privacy["mechanism"] is None else "The record lists nothing."
        st.caption(why_none)
        return
    count = counted(len(privacy["uncharged"]), "thing")
    why = "Nothing was promised, so none of it is covered" if privacy["epsilon"] is None else "Not covered"
    with st.expander(f"{why}: {count}"):
        st.markdown(bullets(map(escape, privacy["uncharged"])))


if __name__ == "__main__":
    run_page.show("Privacy", parts)
