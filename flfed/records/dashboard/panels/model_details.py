"""Panels of groups, coefficients and importances on the page Curves.

They show for whom the shared model ranks how well, and what it goes by.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from flfed.records.dashboard.components.tables import table
from flfed.records.dashboard.components.text import escape, heading
from flfed.records.statistics import Report
from flfed.records.statistics.importances import TITLE, importance_in_words, importance_lines
from flfed.records.statistics.verdict import ABSENT, interval, number

APART = "intervals do not meet"
LARGEST_LOG_ODDS = 20.0
"""Up to which odds ratios are told: e^20 is 485 million, and of a model that diverged no ratio means anything."""


def subgroups(payload: Mapping[str, Any], repeat: int | None = None) -> None:
    """Show the figures within groups, a table a column.

    Parameters
    ----------
    payload : dict
        The object "subgroups" of a run.
    repeat : int, optional
        The one of several that is shown.
    """
    st.markdown(heading("How well it ranks within groups", repeat))
    sites = payload["sites"]
    for column in dict.fromkeys(of["column"] for groups in sites.values() for of in groups):
        st.markdown(f"**By {escape(column)}: AUC of the shared model (95 % CI)**")
        table([_line(site, column, sites[site]) for site in sorted(sites)])
    st.caption(
        "Within a group the AUC compares its rows with one another only. Small groups have wide intervals: of many "
        "groups some differ by chance. A group that a site's policy holds back has its reason in place of the figure."
    )


def coefficients(payloads: Sequence[Mapping[str, Any]]) -> None:
    """Show what a linear model adds to the log-odds for each input.

    Parameters
    ----------
    payloads : sequence of dict
        The objects "coefficients" of the repeats, one or more.
    """
    st.markdown("## What the shared model goes by")
    names = payloads[0]["inputs"]
    by_input = {name: [payload["coefficients"][place] for payload in payloads] for place, name in enumerate(names)}
    ranked = sorted(by_input.items(), key=lambda item: -abs(sum(item[1])))
    table([_coefficient(name, values) for name, values in ranked])
    st.caption(
        "For one step of an input, all else equal: an odds ratio of 2 doubles the odds of the outcome. A step is what "
        "inputs are scaled by in training: their spread over all sites, unless the study says otherwise. Inputs that "
        "go together share what they tell, and none of this says what causes the outcome. Sites keep their own models, "
        "so there is no spread over sites."
    )


def importances(found: Report, over_all: Mapping[str, Any]) -> None:
    """Show how much worse predictions get without what a column tells.

    Parameters
    ----------
    found, over_all : dict
        The keys "importances" and "global" of a run's report.
    """
    st.markdown(f"## {TITLE}")
    table(importance_lines(found))
    for said in importance_in_words(found, over_all):
        st.caption(escape(said))


def _coefficient(name: str, values: Sequence[float]) -> dict[str, str]:
    mean = sum(values) / len(values)
    line = {
        "Input": name,
        "Coefficient (log-odds)": number(mean, 3, signed=True),
        "Odds ratio": number(math.exp(mean), 2) if abs(mean) < LARGEST_LOG_ODDS else ABSENT,
    }
    return line | ({"In the repeats": interval(min(values), max(values))} if len(values) > 1 else {})


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
