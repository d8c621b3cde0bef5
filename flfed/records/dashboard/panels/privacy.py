"""Panels of guarantee, budget and bytes on page Privacy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import streamlit as st

from flfed.errors import counted
from flfed.records.reports import privacy as private
from flfed.records.reports.audit_headlines import Audit, not_promised, unpromised_in_words
from flfed.records.reports.privacy import Private
from flfed.records.reports.privacy_tables import (
    told_in_words,
)
from flfed.records.text import escape, with_code

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
    code, sentence = private.standing(privacy, audit, attackable=attackable, only=only)
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


def uncharged(privacy: Private) -> None:
    """List outputs and controls outside the guarantee."""
    st.markdown("## Not covered by the promise")
    if not privacy["uncharged"]:
        st.caption(
            "The record lists nothing." if privacy["mechanism"] is not None else f"Not known: {privacy['reason']}."
        )
        return
    count = counted(len(privacy["uncharged"]), "thing")
    why = "Nothing was promised, so none of it is covered" if privacy["epsilon"] is None else "Not covered"
    with st.expander(f"{why}: {count}"):
        st.markdown("\n".join(f"- {escape(said)}" for said in privacy["uncharged"]))


def told(found: Mapping[str, Any]) -> None:
    """Show how many outcomes the sums of the first trees tell."""
    st.markdown("## Outcomes that the sums tell")
    st.markdown("\n".join(f"- {escape(said)}" for said in told_in_words(found)))
