"""Panels of methods: what each gained on plain averaging, on the same random splits."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from flfed.records.dashboard.components.tables import table
from flfed.records.reports.recorded_run import TELLING, shows, with_interval
from flfed.records.statistics import Report
from flfed.records.statistics.verdict import ABSENT, metric_name, number

ALONE = (
    "No other method was run on the same random splits as this run; it takes two splits or more to tell methods apart. "
    "Run the study on several splits, `flfed study run STUDY --repeats 10`, and again with the same seed and another "
    "method: `flfed study run STUDY --repeats 10 --set strategy.name=fedadam`."
)
READ = (
    "Each difference is the mean over the same random splits of the same rows, method minus the one of the first line, "
    "with a 95 % confidence interval that counts how many rows the splits share (Nadeau and Bengio 2003). Where it "
    "holds 0, no difference is shown: that is not the same as none. Of twenty such intervals one excludes 0 by chance."
)
UNLIKE_PLAIN = (
    "No run of plain averaging (`fedavg`) is on the same random splits: the other methods are held against {method}. "
    "What a method gains on plain averaging cannot be told of these."
)


def methods(found: Sequence[Report], metric: str, loss: str) -> None:
    """Show each method beside plain averaging, or beside the first where that was not run."""
    if not found:
        st.info(ALONE)
        return
    if not found[0]["plain"]:
        st.info(UNLIKE_PLAIN.format(method=found[0]["method"]))
    # An outcome that is a number has no log loss.
    figures = [of for of in dict.fromkeys((metric, loss)) if of == metric or found[0]["value"][of] is not None]
    lines = []
    for method in found:
        line = {"Method": method["method"], "Rounds": str(method["rounds"])}
        for of in figures:
            line[metric_name(of)] = number(method["value"][of])
            line[f"Difference in {metric_name(of)} (95 % CI)"] = difference(method["gain"], of)
        lines.append(line | {"What it shows": _verdict(method, figures)})
    table(lines)
    st.caption(READ)


def _verdict(method: Report, figures: Sequence[str]) -> str:
    if method["gain"] is None:
        return "plain averaging" if method["plain"] else "the others are held against it"
    first, *others = ((of, shows(method["gain"], of)) for of in figures)
    # The loss may tell what the ranks of rows do not: how far probabilities are off.
    return "; ".join([first[1], *(f"{metric_name(of)} {said}" for of, said in others if said in TELLING)])


def difference(gain: Report | None, metric: str) -> str:
    """Return a difference with its interval, or why there is none."""
    if gain is None:
        return ""
    found = gain[metric]
    if found["value"] is None:
        return f"{ABSENT}: {found['reason']}"
    return with_interval(found)
