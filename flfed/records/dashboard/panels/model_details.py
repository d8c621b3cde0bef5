"""Panels of groups, coefficients, gains and importances on the page Curves.

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
from flfed.records.statistics.importances import (
    GAIN_TITLE,
    TITLE,
    gain_lines,
    gains_in_words,
    importance_in_words,
    importance_lines,
)
from flfed.records.statistics.score_tables import GROUPS_READ, grouped_columns, grouped_lines
from flfed.records.statistics.verdict import ABSENT, interval, number

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
    for column in grouped_columns(payload):
        st.markdown(f"**By {escape(column)}: AUC of the shared model (95 % CI)**")
        table(grouped_lines(payload, column))
    st.caption(GROUPS_READ)


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


def gains(found: Report, *, permuted: bool) -> None:
    """Show which columns trees split by.

    Parameters
    ----------
    found : dict
        The key "gains" of a run's report.
    permuted : bool
        Whether importances by permutation follow.
    """
    st.markdown(f"## {GAIN_TITLE}")
    table(gain_lines(found))
    st.caption(escape(gains_in_words(found, permuted=permuted)))


def _coefficient(name: str, values: Sequence[float]) -> dict[str, str]:
    mean = sum(values) / len(values)
    line = {
        "Input": name,
        "Coefficient (log-odds)": number(mean, 3, signed=True),
        "Odds ratio": number(math.exp(mean), 2) if abs(mean) < LARGEST_LOG_ODDS else ABSENT,
    }
    return line | ({"In the repeats": interval(min(values), max(values))} if len(values) > 1 else {})
