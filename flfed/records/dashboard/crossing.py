"""What left each site in bytes, by kind of message, on the page Privacy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import altair as alt
import streamlit as st

from flfed.records.dashboard import panels, showing
from flfed.records.dashboard.axes import PLOT_HEIGHT, ROW_PIXELS, legend_of
from flfed.records.dashboard.charts import names_y
from flfed.records.dashboard.colours import AMBER, BLUE, GREEN, GREY, ORANGE, PALE_BLUE, PINK
from flfed.records.entries import CrossedEntry

BAR_PIXELS = 18
KIND_LOOKS = {
    "train": ("updates of training", BLUE),
    "query.compare": ("comparison on the holdout", PINK),
    "query.summarise": ("sums over rows", AMBER),
    "evaluate": ("figures of a round", PALE_BLUE),
    "query.enrol": ("enrolment", GREY),
    "query.audit": ("figures of an audit", GREEN),
}
"""What people call a kind of message, and its colour."""
OTHER_COLOUR = ORANGE

_inline: Any = alt.Data  # Altair leaves its schema classes without types


def left(crossed: Sequence[CrossedEntry], repeats: int = 1) -> None:
    """Show how many bytes of which kind left each site, over so many repeats, what they are, and what came to it."""
    st.markdown("## What left each site")
    out = [entry for entry in crossed if entry.direction == "to-server"]
    if not out:
        st.info("Nothing has left a site yet.")
        return
    kinds = _kinds(out)
    totals: dict[str, int] = {}
    for entry in out:
        totals[entry.site] = totals.get(entry.site, 0) + entry.bytes
    most = sorted(totals, key=lambda site: (-totals[site], site))[: panels.SITES_SHOWN]
    if len(most) < len(totals):
        st.caption(f"The chart shows the {len(most)} sites that sent most, of {len(totals)}.")
    says = "; ".join(f"{site} {size_in_words(totals[site])}" for site in most)
    title = "Bytes that left, by kind of message"
    showing.figure(st, title, _left_chart(out, most, kinds), _left_lines(crossed, kinds), key="bytes", says=says)
    together = f" of all {repeats} repeats together" if repeats > 1 else ""
    st.caption(
        f"Bytes of the messages' content, added up over all rounds{together}. Who may see what of it stands "
        'in docs/security.md ("Who may see what"); the site\'s own ledger has every message.'
    )
    if said := why_so_many(out):
        st.caption(said)


def _kinds(out: Iterable[CrossedEntry]) -> list[str]:
    """Return the kinds of message there are, the telling ones first."""
    found = dict.fromkeys(entry.kind for entry in out)
    return [kind for kind in KIND_LOOKS if kind in found] + sorted(kind for kind in found if kind not in KIND_LOOKS)


def why_so_many(out: Sequence[CrossedEntry]) -> str:
    """Return how many of the bytes are updates, in how many messages of what size; "" where nothing was trained.

    Parameters
    ----------
    out : sequence of CrossedEntry
        What left sites.

    Examples
    --------
    >>> sent = [("train", 75_000, 15), ("evaluate", 25_000, 1)]
    >>> why_so_many([CrossedEntry("a", "to-server", *of) for of in sent]).partition(".")[0]
    'About 75 % of the bytes are updates of training, one a round: 15 from a site, of about 5'
    """
    trained = [entry for entry in out if entry.kind == "train"]
    if not trained:
        return ""
    share = sum(entry.bytes for entry in trained) / sum(entry.bytes for entry in out)
    number = _span([entry.messages for entry in trained], str)
    size = _span([round(entry.bytes / entry.messages) for entry in trained], size_in_words)
    return (
        f"About {100 * share:.0f} % of the bytes are {kind_in_words('train')}, one a round: {number} from a site, of "
        f"about {size} each. Such an update holds what training changed in the model, and figures of how the model did "
        "on the site's rows; where the site allows it, counts of predictions, too. Its size follows from the model and "
        "these figures, not from how many rows a site has: more bytes than the site's file do not mean that the file "
        "left, nor few bytes that little can be learnt from them."
    )


def _span(values: Sequence[int], said: Callable[[int], str]) -> str:
    """Return the least and the most of some figures, or the one that all are."""
    ends = dict.fromkeys((said(min(values)), said(max(values))))
    return " to ".join(ends)


def kind_in_words(kind: str) -> str:
    """Return what people call a kind of message.

    Examples
    --------
    >>> kind_in_words("train"), kind_in_words("query.new")
    ('updates of training', 'query.new')
    """
    return KIND_LOOKS[kind][0] if kind in KIND_LOOKS else kind


def size_in_words(count: int) -> str:
    """Return bytes as people read them, with three digits that count.

    Examples
    --------
    >>> size_in_words(0), size_in_words(999), size_in_words(48_000), size_in_words(1_234_567)
    ('0 B', '999 B', '48.0 kB', '1.23 MB')
    """
    size, unit = next(
        ((count / by, name) for by, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if count >= by), (0, "")
    )
    return f"{size:.{2 if size < 10 else 1 if size < 100 else 0}f} {unit}" if unit else f"{count} B"


def _left_lines(crossed: Sequence[CrossedEntry], kinds: Sequence[str]) -> list[dict[str, Any]]:
    """Return one line a site: the bytes of each kind that left it, and of all that came to it."""
    by_place: dict[tuple[str, str], int] = {}
    back: dict[str, int] = {}
    for entry in crossed:
        if entry.direction == "to-server":
            by_place[entry.site, entry.kind] = entry.bytes
        else:
            back[entry.site] = back.get(entry.site, 0) + entry.bytes
    lines = []
    for site in dict.fromkeys(entry.site for entry in crossed):
        sizes = {kind: by_place.get((site, kind), 0) for kind in kinds}
        cells: dict[str, Any] = {f"{kind_in_words(kind).capitalize()}, bytes": size for kind, size in sizes.items()}
        ends: dict[str, Any] = {"Left in all, bytes": sum(sizes.values()), "Came to the site, bytes": back.get(site, 0)}
        lines.append({"Site": site} | cells | ends)
    return lines


def _left_chart(out: Sequence[CrossedEntry], sites: Sequence[str], kinds: Sequence[str]) -> alt.Chart:
    """Return stacked bars of the bytes that left by site and kind."""
    shown = set(sites)
    rows = [
        {"site": e.site, "kind": kind_in_words(e.kind), "order": kinds.index(e.kind), "kB": e.bytes / 1e3}
        | {"shown": size_in_words(e.bytes)}
        for e in out
        if e.site in shown
    ]
    names = [kind_in_words(kind) for kind in kinds]
    colours = [KIND_LOOKS[kind][1] if kind in KIND_LOOKS else OTHER_COLOUR for kind in kinds]
    legend = alt.Legend(**legend_of(names))
    drawn: alt.Chart = (
        alt.Chart(_inline(values=rows))
        .mark_bar(size=BAR_PIXELS)
        .encode(
            x=alt.X("kB:Q", title="kB", axis=alt.Axis(tickCount=6, grid=False)),
            y=names_y("site", sites),
            color=alt.Color("kind:N", scale=alt.Scale(domain=names, range=colours), legend=legend),
            order=alt.Order("order:O"),
            tooltip=["site:N", "kind:N", "shown:N"],
        )
        .properties(height=ROW_PIXELS * len(sites), autosize=alt.AutoSizeParams(**PLOT_HEIGHT))
    )
    return drawn
