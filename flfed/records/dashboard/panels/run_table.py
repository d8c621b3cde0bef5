"""Panel of the list of runs: a table that the reader sorts, filters and compares runs from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from flfed.records.dashboard.panels.compare import MOST
from flfed.records.reports.catalogue import answer_in_words, figure_in_words
from flfed.records.reports.faults import STATUS_WORDS, absence_in_words
from flfed.records.reports.privacy import name_mechanism
from flfed.records.statistics import Report
from flfed.records.statistics.verdict import VERDICTS
from flfed.records.text import moment
from flfed.words import render, sentences

FILTERS = ("dataset", "verdict", "privacy", "tags")
NUMBERS = ("sites", "rows", "gain", "started")
STEP = 50
"""Runs shown at first; the table has all of them."""
KEY = "runs-table"
SCRIPT = Path(__file__).with_suffix(".js").read_text("utf-8")


def run_table(lines: Sequence[Report], only: str | None, *, key: str = KEY, controls: bool = True) -> None:
    """Show series of runs as a table.

    Parameters
    ----------
    lines : sequence of dict
        From `catalogue.series_list`, the newest first.
    only : str or None
        The one site whose people read.
    key : str
    controls : bool
        Whether it has its own search, filters and button to compare.
    """
    # Streamlit wants each run of a page to register it.
    component = st.components.v2.component("flfed.runs", js=SCRIPT, isolate_styles=False)
    compared = st.query_params.get("compare", "")
    data = {
        "columns": columns_of(only),
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


def columns_of(only: str | None) -> list[dict[str, Any]]:
    """Return the columns of the table: one site's people see neither the number of sites nor notes."""
    titles = {name: title for name, title in sentences("names", "run-columns").items() if name != "tags"}
    if only is not None:
        del titles["sites"], titles["note"]
        titles["gain"] = render("pages.runs.own-gain", site=only)
    return [
        {"key": key, "title": title, "number": key in NUMBERS, "link": key == "study"} for key, title in titles.items()
    ]


def row_of(line: Report) -> dict[str, Any]:
    """Return the row of a series: a text, the lines below it, and the value that it is sorted by, for each column."""
    verdict, gain = answer_in_words(line)
    sign, _, words = verdict.partition(" ")
    code = line["verdict"]
    value = line["gain"]["value"]
    size, _, span = gain.partition(" ")
    took_part = line["sites"] - list(line["missing-repeats"].values()).count(line["repeats"])
    rank = VERDICTS.index(code) if code in VERDICTS else None
    privacy = name_mechanism(line["mechanism"], line["epsilon"])
    figure = " ".join(filter(None, figure_in_words(line)[:1]))
    cells = {
        "study": _cell(line["study"], below=[line["run"]]),
        "verdict": _cell(words or render("pages.runs.uncompared"), rank, below=[figure]) | _sign(code, sign),
        "gain": _cell(size, value, below=[span.strip("()")]),
        "dataset": _cell(line["dataset"]),
        "sites": _cell(str(took_part), took_part),
        "rows": _cell("" if line["rows"] is None else f"{line['rows']:,}", line["rows"]),
        "privacy": _cell(privacy) | {"group": line["mechanism"] or privacy},
        "engine": _cell(line["engine"]),
        "status": _cell(STATUS_WORDS[line["status"]], below=_progress(line)),
        "started": _cell(moment(line["started"]), line["started"]),
        "note": _cell(line["note"]),
    }
    label = f"{line['study']}, {moment(line['started'])}"
    address = {"id": line["run"], "label": label, "href": f"overview?run={line['run']}"}
    return {**address, "cells": cells, "tags": line["tags"]}


def _cell(text: str, value: Any = ..., *, below: Sequence[str] = ()) -> dict[str, Any]:
    """Return a cell, sorted by its text unless it has a value; a cell without either comes last."""
    cell: dict[str, Any] = {"text": text}
    if value is not ...:
        cell["value"] = value
    if any(below):
        cell["below"] = [line for line in below if line]
    return cell


def _sign(code: str | None, sign: str) -> Mapping[str, str]:
    return {"sign": sign, "kind": code.replace(" ", "-")} if code else {}


def _progress(line: Report) -> list[str]:
    """Return what is unusual about a series: rounds and repeats that are not there, and sites that took no part."""
    lines = []
    if line["rounds"] != line["rounds-planned"]:
        lines.append(f"{line['rounds']} of {line['rounds-planned']} rounds")
    if line["repeats-planned"] > 1:
        lines.append(f"{line['repeats']} of {line['repeats-planned']} repeats")
    return [*lines, *absence_in_words(line["sites"], line["missing-repeats"], line["repeats"])]
