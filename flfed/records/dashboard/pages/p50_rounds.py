"""Page Rounds of one run: the metric by round, participation, costs, and rejected updates."""

from __future__ import annotations

from flfed.records.dashboard import run_page
from flfed.records.dashboard.panels import overview, rounds
from flfed.records.dashboard.refresh import Opened
from flfed.records.dashboard.sections import contained


def parts(opened: Opened) -> None:
    """Show each part in a place of its own, so that a later one moves no other."""
    panels = [rounds.curves, rounds.took_part, rounds.cost]
    if overview.trains_nothing(opened):
        panels.clear()
    for part in [*panels, overview.set_aside]:
        contained(part, opened)


if __name__ == "__main__":
    run_page.show("Rounds", parts)
