"""Page Privacy of one run.

It shows the run's guarantee, what each site spent of its budget, what attacks reached, and what left.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import streamlit as st

from flfed.errors import counted
from flfed.records.dashboard import run_page, sections
from flfed.records.dashboard.run_page import Opened
from flfed.records.objects import read_all
from flfed.records.reports import privacy as private
from flfed.records.reports.audit_headlines import (
    Audit,
    AuditFigure,
    audit_of,
    not_promised,
    standing,
    unpromised_in_words,
)
from flfed.records.reports.privacy import Private, privacy_of
from flfed.records.reports.privacy_tables import (
    has_model,
    told_in_words,
)
from flfed.records.sections.privacy import (
    attacks_section,
    charged_section,
    left_section,
    mechanisms_section,
    spent_section,
)
from flfed.records.store.entries import CrossedEntry, Runs, SiteEntry
from flfed.records.store.reader import RunReader
from flfed.records.text import escape, with_code


def show() -> None:
    """Show the privacy of a run.

    It is the run of the address, else the newest. The page keeps up with it while it runs.
    """
    run_page.show("Privacy", parts)


def parts(opened: Opened) -> None:
    """Show all parts for the current run."""
    with RunReader.open(only=opened.only) as reader:
        found: Runs = [(run, _by_name(reader.sites(run.run))) for run in opened.runs]
        privacy = privacy_of(reader, found)
        audit = read_all(AuditFigure, audit_of(reader, found))
        crossed = reader.crossed([run.run for run in opened.runs])
        told = next(filter(None, (reader.summary(run.run, "told-outcomes") for run in opened.runs)), None)
    _parts(found, privacy, audit, crossed, opened.only)
    if told:
        _told(told)


def _by_name(sites: Iterable[SiteEntry]) -> dict[str, SiteEntry]:
    return {site.site: site for site in sites}


def _parts(found: Runs, privacy: Private, audit: Audit, crossed: list[CrossedEntry], only: str | None) -> None:
    """Show each part in a place of its own.

    So one that comes later moves no other.
    """
    run, sites = found[0]
    with st.container():
        promise(privacy, audit, attackable=has_model(run), only=only)
    charged = charged_section(privacy)
    with st.container():
        if charged is not None:
            sections.show(charged)
    with st.container():
        sections.show(left_section(crossed, len(found)))
    with st.container():
        limits_of_promise(privacy, audit, only=only)
    with st.container():
        sections.show(spent_section(privacy))
    with st.container():
        sections.show(attacks_section(privacy, audit, run, only=only))
    with st.container():
        sections.show(mechanisms_section(privacy, list(sites.values()), only=only))
    with st.container():
        _uncharged(privacy)


STANDING_COLOURS: dict[str, Literal["green", "orange", "red"]] = {
    "within the promise": "green",
    "beyond the promise": "red",
}
"""Everything else is orange: that nothing is promised, or nothing measured, is no reason to be calm."""


def promise(privacy: Private, audit: Audit, *, attackable: bool = True, only: str | None = None) -> None:
    """Show the guarantee, its first sentence unfolded.

    Only a guarantee that was measured at all sites is green.

    `only` is the one site whose people read it, and see the figures of no other.
    """
    code, sentence = standing(privacy, audit, attackable=attackable, only=only)
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown("### What is promised", width="content")
            st.badge(code, color=STANDING_COLOURS.get(code, "orange"))
        lines = private.promise_in_words(privacy)
        st.markdown(with_code(lines[0]))
        lines += [sentence] if privacy["mechanism"] not in (None, "none") or audit else []
        if more := lines[1:]:
            with st.expander("What this means"):
                st.markdown("\n".join(f"- {with_code(line)}" for line in more))
    for warning in privacy["warnings"]:
        st.warning(escape(warning))


def limits_of_promise(privacy: Private, audit: Audit, *, only: str | None = None) -> None:
    """Show what the guarantee leaves out."""
    with st.container(border=True):
        st.markdown("### What is not promised")
        # What an attack has shown to leak is red, what is merely not covered is not.
        colour = "red" if not_promised(audit) else "orange"
        said = unpromised_in_words(
            len(privacy["uncharged"]), audit, only=only, trained=privacy.get(private.TRAINED, True)
        )
        st.markdown("\n".join(f"- :{colour}[**{escape(line)}**]" for line in said))


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
        st.markdown("\n".join(f"- {escape(said)}" for said in privacy["uncharged"]))


def _told(found: Mapping[str, Any]) -> None:
    """Show how many outcomes the sums of the first trees tell."""
    st.markdown("## Outcomes that the sums tell")
    st.markdown("\n".join(f"- {escape(said)}" for said in told_in_words(found)))


if __name__ == "__main__":
    show()
