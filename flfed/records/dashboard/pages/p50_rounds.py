"""Page Rounds of one run: the metric by round, participation, and rejected updates."""

from __future__ import annotations

from flfed.records.dashboard import run_page
from flfed.records.dashboard.panels import overview, rounds
from flfed.records.dashboard.refresh import Opened
from flfed.records.dashboard.sections import contained, show_all
from flfed.records.sections.answer import set_aside


def parts(opened: Opened) -> None:
    """Show each part in a place of its own, so that a later one moves no other."""
    if not overview.trains_nothing(opened):
        for part in (rounds.curves, rounds.took_part):
            contained(part, opened)
    show_all(set_aside(opened.shown))


if __name__ == "__main__":
    run_page.show("Rounds", parts)
