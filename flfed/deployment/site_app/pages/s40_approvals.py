"""Page of the decisions on studies: who decided, the signed hashes, and each study's permissions."""

from __future__ import annotations

import re
from typing import Any, Literal

import streamlit as st

from flfed.deployment.site_app import page_frame, reads
from flfed.deployment.site_app.page_frame import Opened
from flfed.deployment.site_app.reads import Decided
from flfed.deployment.site_app.waiting import list_waits, show_waits
from flfed.records.dashboard.sections import bullets
from flfed.records.text import escape, moment
from flfed.words import render

Colour = Literal["green", "orange", "gray", "red"]


def parts(opened: Opened) -> None:
    """Show the studies that wait for a decision, and then each decision, the latest first."""
    decisions = reads.decided(opened.name, opened.mark)
    facts = reads.status(opened.name, opened.mark)
    page_frame.warn(facts["problems"])
    waits = list_waits(opened.folder, facts, reads.ledger(opened.name, opened.mark), serves=True)
    show_waits(wait for wait in waits if wait.is_here and wait.study)
    if not decisions:
        st.info(render("site_app.approvals.undecided", name=opened.name))
    for one in decisions:
        decision(opened.name, one)


def decision(name: str, one: Decided) -> None:
    """Show one decision.

    First come the ten lines of `flfed site approve`, then who decided and when; details and the text are folded, and
    hashes come last.
    """
    facts = one.facts
    key = facts["study-sha256"]
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"### {escape(facts['study'])}", width="content")
            wording, colour = standing(facts)
            st.badge(wording, color=colour)
        st.markdown(bullets(map(escape, one.lines)))
        if facts["reason"]:
            st.markdown(escape(render("site_app.approvals.inactive", reason=facts["reason"])))
        elif facts["decision"] == "approved":
            st.markdown(render("site_app.approvals.active", study=facts["study"], name=name))
        who = {"decision": facts["decision"].capitalize(), "by": facts["by"], "at": moment(facts["at"])}
        st.markdown(escape(render("site_app.approvals.decided", **who)))
        for earlier in facts["earlier"]:
            st.caption(escape(f"Before that: {earlier}"))
        st.markdown(bullets(f"{name}: {wording}" for name, wording in participants(facts)))
        # Long texts are sent only once somebody unfolds them.
        allows = st.expander("Every detail", key=f"allows-{key}", on_change="rerun")
        if allows.open:
            with allows:
                st.markdown("\n\n".join(escape(word) for word in one.words))
        text = st.expander(render("site_app.approvals.verbatim"), key=f"text-{key}", on_change="rerun")
        if text.open:
            with text:
                st.code(one.text, language="toml", wrap_lines=True)
        st.markdown(bullets(f"{name}: {wording}" for name, wording in hashes(facts)))


def standing(facts: dict[str, Any]) -> tuple[str, Colour]:
    """Return the status of a decision, and its colour."""
    if facts["decision"] != "approved":
        return facts["decision"], "gray"
    if not facts["reason"]:
        return "approved, holds", "green"
    if "expired" in facts["reason"]:
        return "expired", "orange"
    return render("site_app.approvals.lapsed"), "orange"


def participants(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the dataset and the participants of a decision, as Markdown."""
    updates = ""
    if facts["sums"]:
        updates = render("site_app.approvals.summed")
    words = {
        "Dataset": facts["dataset"],
        render("site_app.approvals.sites"): ", ".join(facts["co-sites"]),
        "Coordinator": facts["coordinator"],
        "Updates": updates,
        render("site_app.approvals.gates"): ", ".join(f"{site} {text}" for site, text in facts["pins"].items()),
        render("site_app.approvals.changed"): render("site_app.approvals.allowed") if facts["changed-sites"] else "",
    }
    return [(name, escape(text)) for name, text in words.items() if text]


def hashes(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the signed hashes of a decision, as Markdown."""
    texts = {
        render("site_app.approvals.text"): facts["study-sha256"],
        render("site_app.approvals.rows"): facts["rows-sha256"],
        render("site_app.approvals.columns"): facts["schema-sha256"],
    }
    # Text in backticks cannot be escaped, so only hexadecimal digits remain.
    return [(name, f"`{re.sub('[^0-9a-f]', '', text)}`") for name, text in texts.items() if text]


if __name__ == "__main__":
    page_frame.show("Approvals", parts)
