"""Page of the decisions about studies.

It shows who decided, what was signed, and what each study is allowed.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import streamlit as st

from flfed.deployment.site_app import page_frame, reads
from flfed.deployment.site_app.page_frame import Opened
from flfed.deployment.site_app.reads import Decided
from flfed.records.dashboard.sections import bullets
from flfed.records.text import escape, moment

Colour = Literal["green", "orange", "gray", "red"]


def parts(opened: Opened) -> None:
    """Show each decision, the latest first."""
    decisions = reads.decided(opened.name, opened.mark)
    page_frame.warn(reads.status(opened.name, opened.mark)["problems"])
    if not decisions:
        st.info(
            "Nothing is decided yet, so that no study is answered. To read what a study asks, and decide: "
            f"`flfed site approve STUDY --site {opened.name}`"
        )
    for one in decisions:
        decision(opened.name, one)


def decision(name: str, one: Decided) -> None:
    """Show one decision.

    First come the ten lines of `flfed site approve`, then who, when and hashes. Details and the text are folded.
    """
    facts = one.facts
    key = facts["study-sha256"]
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"### {escape(facts['study'])}", width="content")
            wording, colour = standing(facts)
            st.badge(wording, color=colour)
        if facts["reason"]:
            st.markdown(escape(f"It would not be answered now: {facts['reason']}."))
        elif facts["decision"] == "approved":
            st.markdown(
                f"It is answered while the site serves. To end it: `flfed site withdraw {facts['study']} --site {name}`"
            )
        st.markdown(bullets(map(escape, one.lines)))
        st.markdown(escape(f"{facts['decision'].capitalize()} by {facts['by']} on {moment(facts['at'])} UTC."))
        for earlier in facts["earlier"]:
            st.caption(escape(f"Before that: {earlier}"))
        st.markdown(bullets(f"{name}: {wording}" for name, wording in signed(facts)))
        # Long texts are written only once somebody opens them.
        allows = st.expander("Every detail", key=f"allows-{key}", on_change="rerun")
        if allows.open:
            with allows:
                st.markdown("\n\n".join(escape(word) for word in one.words))
        text = st.expander("The study, word for word", key=f"text-{key}", on_change="rerun")
        if text.open:
            with text:
                st.code(one.text, language="toml")


def standing(facts: dict[str, Any]) -> tuple[str, Colour]:
    """Return the status of a decision.

    It is a word or two, with a colour.
    """
    if facts["decision"] != "approved":
        return facts["decision"], "gray"
    if not facts["reason"]:
        return "approved, holds", "green"
    label = "expired" if "expired" in facts["reason"] else "approved, does not hold now"
    return label, "orange"


def signed(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the hashes of a decision.

    Who may take part goes with them, as Markdown.
    """
    updates = "added up in secret, for sums only" if facts["sums"] else ""
    words = {
        "Dataset": facts["dataset"],
        "Other sites that may take part": ", ".join(facts["co-sites"]),
        "Coordinator": facts["coordinator"],
        "Updates": updates,
        "Fingerprints of the gates": ", ".join(f"{site} {text}" for site, text in facts["pins"].items()),
        "Lists of sums may differ by": ", ".join(facts["lifted"]),
    }
    hashes = {
        "SHA-256 of the study's text": facts["study-sha256"],
        "of the frozen rows": facts["rows-sha256"],
        "of what the columns mean": facts["schema-sha256"],
        "of the installed flfed": facts["bundle-sha256"],
    }
    entries = [(name, escape(text)) for name, text in words.items() if text]
    # What stands in backticks cannot be escaped, so only hexadecimal digits stay.
    return entries + [(name, f"`{re.sub('[^0-9a-f]', '', text)}`") for name, text in hashes.items() if text]


if __name__ == "__main__":
    page_frame.show("Approvals", parts)
