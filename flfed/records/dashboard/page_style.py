"""Style of every page beside its charts: compact, still, and readable in both themes and on a phone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import streamlit as st

from flfed.records.charts import colours

COLOURS = {
    "pale": f"light-dark({colours.WORDS[0]}, {colours.WORDS[1]})",
    "page": "light-dark(#ffffff, #14191f)",
    "shade": "light-dark(#14191f40, #ffffff40)",
    "ring": f"light-dark({colours.BLUE}, {colours.DARK[colours.BLUE]})",
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


def titles_on_a_phone(line: str, titles: Sequence[str]) -> None:
    """Put the title of each column beside it on a phone, where columns stand below each other.

    Parameters
    ----------
    line : str
        Beginning of the keys of the lines' containers.
    titles : sequence of str
        Of the columns from the second on.
    """
    # The style adds the titles, so that no cell has them on a wide screen.
    rules = []
    for place, title in enumerate(titles, start=2):
        rules.append(
            f"[class*=st-key-{line}-] [data-testid=stColumn]:nth-child({place})::before {{content: '{title}'}}"
        )
    st.html(f"<style>@media (max-width: 640px) {{{' '.join(rules)}}}</style>")
