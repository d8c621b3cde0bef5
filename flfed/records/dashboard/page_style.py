"""Style of every page beside its charts.

Pages are close together, still, and readable in both themes and on a phone.
"""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from flfed.records.charts import colours

PHONE_PIXELS = 640
"""On a narrower screen Streamlit puts columns below each other."""
PALE = f"light-dark({colours.WORDS[0]}, {colours.WORDS[1]})"
PAGE, SHADE = "light-dark(#ffffff, #14191f)", "light-dark(#14191f40, #ffffff40)"
SHADES = (
    f"linear-gradient(to right, {PAGE} 60%, transparent) 0 0 / 1.25rem 100% local no-repeat,"
    f"linear-gradient(to left, {PAGE} 60%, transparent) 100% 0 / 1.25rem 100% local no-repeat,"
    f"linear-gradient(to right, {SHADE}, transparent) 0 0 / 0.75rem 100% scroll no-repeat,"
    f"linear-gradient(to left, {SHADE}, transparent) 100% 0 / 0.75rem 100% scroll no-repeat"
)
"""Behind a table that scrolls sideways: the first two scroll with it, and cover the others at its ends."""
CLOSE = (
    "[data-testid=stMainBlockContainer] {padding: 4rem 2.5rem 4rem}"  # Streamlit leaves twice that empty
    "[data-testid=stSidebar] {width: 245px !important; min-width: 0}"
    "[data-testid=stSidebar][aria-expanded=false] {width: 0 !important}"
    # On a tablet two charts side by side leave each too little room.
    "@media (max-width: 900px) {[data-testid=stColumn]:has([data-testid=stVegaLiteChart])"
    " {min-width: calc(100% - 1.5rem)}}"
    f"@media (max-width: {PHONE_PIXELS}px) {{[data-testid=stMainBlockContainer] {{padding: 4rem 1rem}}"
    # A figure and its interval take two lines at most: a wide table goes on to the right.
    " [data-testid=stTable] :is(td, th) {min-width: 5.75rem}"
    # A phone draws no scroll bar: a shade at the edge says that a table goes on there, and is covered at its end.
    f" [data-testid=stTable] > div {{background: {SHADES}}}}}"
)
STILL = (
    # Streamlit fades what may change, which flickers.
    "[data-stale=true], [data-testid=stExpander] :is(details, summary)"
    " {opacity: 1 !important; transition: none !important}"
)
READABLE = (
    f"[data-testid=stCaptionContainer] {{color: {PALE} !important; opacity: 1 !important}}"
    "[data-tag] {color: light-dark(#ffffff, #14191f) !important}"
)
RING = f"outline: 3px solid light-dark({colours.BLUE}, {colours.DARK[colours.BLUE]}) !important; outline-offset: 2px"
FOCUS = (
    f":focus-visible {{{RING}; opacity: 1 !important; transition: none !important}}"
    "[data-testid=stElementToolbar]:focus-within {opacity: 1 !important}"  # else it shows under the mouse only
    # What is drawn for a field is not the field itself.
    f"label:has(input:focus-visible), [role=group][data-rac]:has(:focus-visible) {{{RING}}}"
    "summary:focus-visible {outline-offset: -3px}"  # its box cuts off what is outside
)


def close_up() -> None:
    """Start the page just below the navigation.

    It has the looks of every page.
    """
    st.html(f"<style>{CLOSE}{STILL}{READABLE}{FOCUS}{colours.style()}</style>")


def cards_on_a_phone(line: str, header: str, titles: Sequence[str]) -> None:
    """Make a list's lines cards on a phone.

    There its columns stand below each other, each with its title.

    Parameters
    ----------
    line : str
        How the keys of the lines' containers begin.
    header : str
        Key of the container with the list's titles, which a phone does not show.
    titles : sequence of str
        Of the columns from the second on.
    """
    card = f"[class*=st-key-{line}-]"
    rules = [
        f".st-key-{header} {{display: none}}",
        f"{card} {{border: 1px solid light-dark(#9aa5b1, #56616d); border-radius: 0.5rem; padding: 0.75rem}}",
        f"{card} [data-testid=stHorizontalBlock] {{gap: 0.4rem}}",
        f"{card} [data-testid=stColumn]:not(:first-child) {{display: flex; min-width: 100%}}",
        f"{card} [data-testid=stColumn]::before {{flex: 0 0 8.5rem; color: {PALE}}}",
    ]
    # The titles are put in by the style, so that they stand in no cell on a wide screen.
    rules += [
        f"{card} [data-testid=stColumn]:nth-child({place})::before {{content: '{title}'}}"
        for place, title in enumerate(titles, start=2)
    ]
    st.html(f"<style>@media (max-width: {PHONE_PIXELS}px) {{{' '.join(rules)}}}</style>")
