"""Page of the privacy budget.

It shows what all studies have spent of the privacy of this site's rows, what is left, and what no budget counts.
"""

from __future__ import annotations

from typing import Any

import streamlit as st

from flfed.deployment.operator.budget import COMPOSED, PEOPLE, in_words, shown_or, times_in_words
from flfed.deployment.site_app import page_frame, reads
from flfed.deployment.site_app.page_frame import Opened, kind_of_line
from flfed.records.charts.chart import Line
from flfed.records.dashboard.panels.overview import card
from flfed.records.dashboard.sections import download, table
from flfed.records.reports.privacy import describe_encoder_condition
from flfed.records.text import escape

Facts = dict[str, Any]  # as `flfed site budget --json` has them


def parts(opened: Opened) -> None:
    """Show the account of each dataset.

    It is as the ledger has it now.
    """
    accounts = reads.budget(opened.name, opened.mark)
    with st.container():
        above(accounts)
    for one in accounts["datasets"]:
        with st.container():
            dataset(one, accounts)
    with st.container():
        st.caption(escape(NOT_ADDED))
        st.caption(escape(NOT_COVERED))
        st.caption(escape(f"An update without a mechanism: {UNPROTECTED[0].lower()}{UNPROTECTED[1:]}"))


def above(facts: Facts) -> None:
    """Show whether the budget is enforced.

    A gap in the account is shown, too.
    """
    if facts["restarted"]:
        day = facts["restarted"][:10]
        st.warning(f"The ledger began anew on {day}: what the one before lost is not counted here.")
    if facts["enforced"]:
        st.markdown("This site refuses the round that would overdraw its budget: the run then ends as stopped.")
    elif any(one["budget"] is not None for one in facts["datasets"]):
        st.markdown("The policy's disclosure is 'open': what is spent is written down, and nothing is refused for it.")
    else:
        st.info(
            "The policy sets no budget, so that nothing is refused for it. To set one, write into policy.toml: "
            '`epsilon = 8.0` and `disclosure = "institution"`'
        )


def dataset(one: Facts, facts: Facts) -> None:
    """Show the account of one dataset.

    It says what is spent, by which runs, and what left uncharged.
    """
    name = one["dataset"] or "Studies whose dataset the ledger does not name"
    st.markdown(f"### {escape(name)}")
    if one["dataset"]:
        if one["budget"] is not None:
            cards(one, facts["delta"])
        st.markdown(escape(in_words(one, facts["delta"], enforced=facts["enforced"])))
    # An ε that leaves the encoder out must say so.
    if one["excludes-encoder"]:
        units = sorted({run["unit"] for run in one["runs"] if run["excludes-encoder"]})
        st.caption(escape(describe_encoder_condition(" or ".join(units))))
    runs(one)
    uncharged(one)


def cards(one: Facts, delta: float) -> None:
    """Show the spent budget as figures and a bar."""
    spent = one["spent"]
    whole = one["budget"]
    rounds = one["rounds-remaining"]
    with st.container(horizontal=True):
        card("ε spent", shown_or("no bound", spent), f"at δ {delta:g}")
        card("Budget", f"{whole:g}", "all studies together")
        card("ε left", f"{int(one['remaining'] * 1000) / 1000:g}", "rounded down")
        if rounds is not None:
            card(f"{(one['last'] or 'round').capitalize()}s like the last", f"{rounds:,}", "about so many still fit")
    # A sum without bound fills the bar.
    share = 1.0 if spent is None else min(spent / whole, 1.0)
    st.progress(share, f"{share:.0%} of the budget is spent")


def runs(one: Facts) -> None:
    """Show what each run spent."""
    if not one["runs"]:
        if one["dataset"]:
            st.caption("No run has spent anything of it.")
        return
    st.markdown(f"**{COMPOSED}**")
    # The columns are of use only where datasets share one account, or a run was charged to one side alone.
    several = len(one["account"]) > 1
    apart = any("side" in run for run in one["runs"])
    lines: list[Line] = []
    for run in one["runs"]:
        line: Facts = {"Study": run["study"], "Run": run["run"]}
        if several:
            line["Dataset"] = run["dataset"]
        if apart:
            line["People"] = PEOPLE[run.get("side", "both")]
        line |= {
            "Protects": f"each {run['unit']}", "Since": run["first"][:10],
            "Asked for": times_in_words(run), "Steps": run["steps"], "Noise": f"{run['noise']:g}",
            "Sampling": f"{run['sampling']:g}",
            "ε": shown_or("beyond any number", run["epsilon"]),
            "ε of its run": shown_or("beyond any number", run["run-epsilon"]),
        }  # fmt: skip
        lines.append(line)
    table(lines)
    download(lines, key=f"spent-{one['dataset'] or 'unnamed'}")


def uncharged(one: Facts) -> None:
    """Show what left without noise."""
    if not one["uncharged"]:
        return
    st.markdown("**Left without noise: no budget counts it**")
    table([
        {"What": kind_of_line(left["kind"]), "Messages": f"{left['lines']:,}", "Bytes": f"{left['bytes']:,}"}
        for left in one["uncharged"]
    ])  # fmt: skip


NOT_ADDED = (
    "A run's ε is not added to the next one's: the accountant composes the whole history of the dataset, which is less "
    "than the sum and more than any run alone."
)
NOT_COVERED = (
    "The promise of most studies covers the updates, that is the arrays that training sends, and what is made of them: "
    "the models. It does not cover figures, but in an analysis and where a study says that it covers all that leaves."
)
UNPROTECTED = "It is charged to no budget, and flfed site budget says how many left: no ε bounds what these told."


if __name__ == "__main__":
    page_frame.show("Budget of privacy", parts)
