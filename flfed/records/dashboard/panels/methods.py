"""Panels of methods: what each gained on plain averaging, on the same random splits."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from flfed.records.dashboard.components.tables import table
from flfed.records.reports.recorded_run import TELLING, shows, with_interval
from flfed.records.statistics import Report
from flfed.records.statistics.verdict import ABSENT, metric_name, number

ALONE = (
    "No other method was run on the same random splits. Run the study again with another strategy, the same seed and "
    "as many repeats: `flfed study run STUDY --repeats 10 --set strategy.name=fedadam`."
)
READ = (
    "Each difference is the mean over the same random splits of the same rows, other method minus plain averaging, "
    "with a 95 % confidence interval that counts how many rows the splits share (Nadeau and Bengio 2003). Where it "
    "holds 0, no difference is shown: that is not the same as none. Of twenty such intervals one excludes 0 by chance."
)


def methods(found: Sequence[Report], metric: str, loss: str) -> None:
    """Show each method beside plain averaging."""
    if not found:
        st.info(ALONE)
        return
    figures = dict.fromkeys((metric, loss))
    lines = []
    for method in found:
        line = {"Method": method["method"], "Rounds": str(method["rounds"])}
        for of in figures:
            line[metric_name(of)] = number(method["value"][of])
            line[f"Difference in {metric_name(of)} (95 % CI)"] = difference(method["gain"], of)
        said = {of: shows(method["gain"], of) for of in figures}
        # The loss may tell what the ranks of rows do not: how far probabilities are off.
        more = f"; {metric_name(loss)} {said[loss]}" if loss != metric and said[loss] in TELLING else ""
        lines.append(line | {"What it shows": said[metric] + more})
    table(lines)
    st.caption(READ)


def difference(gain: Report | None, metric: str) -> str:
    """Return a difference with its interval, or why there is none."""
    if gain is None:
        return ""
    found = gain[metric]
    if found["value"] is None:
        return f"{ABSENT}: {found['reason']}"
    return with_interval(found)
