"""Panel of the list of runs: a table that the reader sorts, filters and compares runs from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from flfed.records.dashboard.panels.compare import MOST
from flfed.records.objects import read, read_figure
from flfed.records.reports.catalogue import SeriesLine, answer_in_words, figure_in_words
from flfed.records.reports.faults import STATUS_WORDS, absence_in_words
from flfed.records.reports.privacy import name_mechanism
from flfed.records.statistics import Report
from flfed.records.statistics.verdict import PAYS, VERDICTS, describe_verdict, format_as_written
from flfed.records.text import describe_study, moment
from flfed.words import render, sentences

FILTERS = ("dataset", "verdict", "privacy")
NUMBERS = ("sites", "rows", "gain", "started")
STEP = 50
"""Runs shown at first; the table has all of them."""
KEY = "runs-table"
SCRIPT = Path(__file__).with_suffix(".js").read_text("utf-8")


def run_table(lines: Sequence[Report], *, key: str = KEY, controls: bool = True) -> None:
    """Show series of runs as a table.

    Parameters
    ----------
    lines : sequence of dict
        From `catalogue.series_list`, the newest first.
    key : str
    controls : bool
        Whether it has its own search, filters and button to compare.
    """
    # Streamlit wants each run of a page to register it.
    component = st.components.v2.component("flfed.runs", js=SCRIPT, isolate_styles=False)
    compared = st.query_params.get("compare", "")
    data = {
        "columns": columns(),
        "rows": [row_of(line) for line in lines],
        "filters": [{"key": name, "title": sentences("names", "run-columns")[name]} for name in FILTERS],
        "words": sentences("names", "run-table"),
        "compared": compared.split(",") if compared and controls else [],
        "controls": controls,
        "step": STEP,
        "most": MOST,
    }
    component(key=key, data=data, on_compare_change=_compare)


def _compare() -> None:
    """Put the runs that the reader picked into the address."""
    st.query_params["compare"] = ",".join(st.session_state[KEY].compare)


def columns() -> list[dict[str, Any]]:
    """Return the columns of the table."""
    titles = dict(sentences("names", "run-columns"))
    return [
        {"key": key, "title": title, "number": key in NUMBERS, "link": key == "study"} for key, title in titles.items()
    ]


def row_of(line: Report) -> dict[str, Any]:
    """Return the row of a series: a text, the lines below it, and the value that it is sorted by, for each column."""
    of = read(SeriesLine, line)
    verdict, gain = answer_in_words(line)
    sign, _, words = verdict.partition(" ")
    size, _, span = gain.partition(" ")
    below_gain = [span.strip("()")]
    drawn = read_figure(of.gain)
    if of.verdict not in (None, PAYS) and (drawn.low or 0.0) > 0:
        below_gain.append(render("pages.runs.small", least=format_as_written(of.gain["minimum-gain"])))
    took_part = of.sites - list(of.missing_repeats.values()).count(of.repeats)
    rank = None if of.verdict is None else VERDICTS.index(of.verdict)
    privacy = name_mechanism(of.mechanism, of.epsilon)
    cells = {
        "study": _cell(describe_study(of.study), below=[of.run]),
        "verdict": _cell(words or render("pages.runs.uncompared"), rank, below=figure_in_words(line)[:1]),
        "gain": _cell(size, drawn.value, below=below_gain),
        "dataset": _cell(of.dataset),
        "sites": _cell(str(took_part), took_part),
        "rows": _cell("" if of.rows is None else f"{of.rows:,}", of.rows),
        "privacy": _cell(privacy) | {"group": of.mechanism or privacy},
        "engine": _cell(of.engine),
        "status": _cell(STATUS_WORDS[of.status], below=_progress(of)),
        "started": _cell(moment(of.started), of.started),
    }
    if of.verdict is not None:
        group = describe_verdict(of.verdict, of.metric)
        cells["verdict"] |= {"sign": sign, "kind": of.verdict.replace(" ", "-"), "group": group}
    label = f"{of.study}, {moment(of.started)}"
    return {"id": of.run, "label": label, "href": f"overview?run={of.run}", "cells": cells}


def _cell(text: str, value: Any = ..., *, below: Sequence[str] = ()) -> dict[str, Any]:
    """Return a cell, sorted by its text unless it has a value; a cell without either comes last."""
    cell: dict[str, Any] = {"text": text}
    if value is not ...:
        cell["value"] = value
    if any(below):
        cell["below"] = [line for line in below if line]
    return cell


def _progress(of: SeriesLine) -> list[str]:
    """Return the exceptions of a series: rounds and repeats that are not there, and sites that took no part."""
    lines = []
    if of.rounds != of.rounds_planned:
        lines.append(f"{of.rounds} of {of.rounds_planned} rounds")
    if of.repeats_planned > 1:
        lines.append(f"{of.repeats} of {of.repeats_planned} repeats")
    return [*lines, *absence_in_words(of.sites, of.missing_repeats, of.repeats)]
