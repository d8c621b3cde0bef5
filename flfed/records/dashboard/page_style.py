"""Style of every page beside its charts: compact, still, and readable in both themes and on a phone."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import streamlit as st

from flfed.records.charts import colours

COLOURS = {
    "pale": f"light-dark({colours.WORDS[0]}, {colours.WORDS[1]})",
    "page": "light-dark(#ffffff, #14191f)",
    "shade": "light-dark(#14191f40, #ffffff40)",
    "ring": f"light-dark({colours.BLUE}, {colours.DARK[colours.BLUE]})",
    "pays": f"light-dark({colours.GREEN}, {colours.DARK[colours.GREEN]})",
    "worse": f"light-dark({colours.ORANGE}, {colours.DARK[colours.ORANGE]})",
    "neutral": f"light-dark({colours.NEUTRAL}, {colours.DARK[colours.NEUTRAL]})",
    "edge": "light-dark(#76818c, #7d8894)",
    "line": "light-dark(#d5dae0, #333d47)",
}
"""Colours of `style.css`."""


def close_up() -> None:
    """Give a page its style, which begins it just below the navigation."""
    st.html(f"<style>{_style()}</style>")


@cache
def _style() -> str:
    variables = "".join(f"--flfed-{name}: {colour};" for name, colour in COLOURS.items())
    rules = Path(__file__).with_name("style.css").read_text("utf-8")
    return f":root {{{variables}}} {rules} {colours.style()}"
