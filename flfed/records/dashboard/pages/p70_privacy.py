"""Page Privacy of one run: its protection, then budgets, attacks' results and bytes sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import streamlit as st

from flfed.records.dashboard import run_page, sections
from flfed.records.dashboard.refresh import Opened
from flfed.records.dashboard.sections import bullets, contained
from flfed.records.objects import read_all
from flfed.records.reports.audit_headlines import Audit, AuditFigure, audit_of, not_promised
from flfed.records.reports.privacy import privacy_of
from flfed.records.reports.privacy_tables import describe_outcome_disclosure
from flfed.records.section import Section
from flfed.records.sections import privacy as private
from flfed.records.store.entries import Runs
from flfed.records.store.reader import RunReader
from flfed.records.text import escape, with_code
from flfed.words import render


def parts(opened: Opened) -> None:
    """Show each part in a place of its own, so that a later one moves no other."""
    with RunReader.open() as reader:
        runs: Runs = [(run, {site.site: site for site in reader.sites(run.run)}) for run in opened.runs]
        privacy = privacy_of(reader, runs)
        audit = read_all(AuditFigure, audit_of(reader, runs))
        crossed = reader.crossed(opened.names)
        outcome_counts = next(filter(None, (reader.summary(run, "revealed-outcomes") for run in opened.names)), None)
    run, sites = runs[0]
    promise = private.promised(privacy, audit, run)
    contained(show_promise, promise, privacy["warnings"])
    sections.show(private.mechanisms_section(privacy, list(sites.values())), titled=False)
    # Without a promise its limits are all releases, which the section on mechanisms lists.
    if privacy["epsilon"] is not None or audit:
        contained(limits_of_promise, promise, audit)
    outcomes = None
    if outcome_counts:
        title = render("pages.privacy.outcomes")
        outcomes = Section(title=title, says=describe_outcome_disclosure(outcome_counts))
    sections.show_all(
        outcomes,
        private.charged_section(privacy),
        private.spent_section(privacy),
        private.attacks_section(privacy, audit, run),
        private.left_section(crossed, len(runs)),
    )


STANDING_COLOURS: dict[str, Literal["green", "orange", "red"]] = {
    "within the promise": "green",
    "beyond the promise": "red",
}
"""All else is orange: a run without a promise, or without a measurement, is not reassuring."""


def show_promise(promise: private.Promise, warnings: Sequence[str]) -> None:
    """Show the guarantee above the mechanisms, its first sentence unfolded.

    Only a guarantee that was measured at all sites is green.
    """
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"## {render('pages.privacy.protected')}", width="content")
        st.badge(promise.code, color=STANDING_COLOURS.get(promise.code, "orange"))
    first, *more = promise.lines
    st.markdown(with_code(first))
    if more:
        with st.expander("What this means"):
            st.markdown(bullets(map(with_code, more)))
    for warning in warnings:
        st.warning(escape(warning))


def limits_of_promise(promise: private.Promise, audit: Audit) -> None:
    """Show the limits of the guarantee."""
    with st.container(border=True):
        st.markdown(f"### {render('pages.privacy.limits')}")
        # Leaks that an attack has shown are red; outputs that are merely not covered are orange.
        colour = "red" if not_promised(audit) else "orange"
        st.markdown(bullets(f":{colour}[**{escape(line)}**]" for line in promise.limits))


if __name__ == "__main__":
    run_page.show("Privacy", parts)
