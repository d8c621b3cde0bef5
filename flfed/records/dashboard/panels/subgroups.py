"""Panel of figures by group on the page Curves.

It shows how well the shared model ranks within groups of each site's test rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from flfed.records.dashboard.components.tables import table
from flfed.records.dashboard.components.text import escape
from flfed.records.statistics.verdict import ABSENT, interval, number

APART = "intervals do not meet"


def subgroups(payload: Mapping[str, Any], repeat: int | None = None) -> None:
    """Show the figures within groups, a table a column.

    Parameters
    ----------
    payload : dict
        The object "subgroups" of a run.
    repeat : int, optional
        The one of several that is shown.
    """
    st.markdown("## How well it ranks within groups" + ("" if repeat is None else f", in repeat {repeat}"))
    sites = payload["sites"]
    for column in dict.fromkeys(of["column"] for groups in sites.values() for of in groups):
        st.markdown(f"**By {escape(column)}: AUC of the shared model (95 % CI)**")
        table([_line(site, column, sites[site]) for site in sorted(sites)])
    st.caption(
        "Within a group the AUC compares its rows with one another only. Small groups have wide intervals: of many "
        "groups some differ by chance. A group that a site's policy holds back has its reason in place of the figure."
    )


def _line(site: str, column: str, groups: Any) -> dict[str, str]:
    own = [of for of in groups if of["column"] == column]
    known = [of for of in own if of["low"] is not None]
    lowest = min((of["high"] for of in known), default=None)
    apart = [of["group"] for of in known if lowest is not None and of["low"] > lowest]
    line = {"Rows of": site} | {of["group"]: _figure(of) for of in own}
    # Said in words, since a reader compares many cells otherwise.
    return line | {"Clear difference": APART if apart else "none" if len(known) > 1 else ABSENT}


def _figure(of: Mapping[str, Any]) -> str:
    if of["value"] is None:
        return str(of["method"] or ABSENT)
    span = f" ({interval(of['low'], of['high'])})" if of["low"] is not None else ""
    return number(of["value"]) + span
