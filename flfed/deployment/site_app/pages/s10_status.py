"""Page of the site's status, in plain words."""

from __future__ import annotations

from typing import Any

import streamlit as st

from flfed.deployment.site_app import page_files, page_frame, reads
from flfed.deployment.site_app.page_frame import Opened, kind_of_line
from flfed.deployment.site_app.reads import node_listens
from flfed.records.dashboard.sections import bullets, table
from flfed.records.reports.privacy_tables import size_in_words
from flfed.records.text import escape, moment
from flfed.study.tables import WRITTEN_DOWN

Facts = dict[str, Any]  # as `flfed site status --json` has them


def parts(opened: Opened) -> None:
    """Show all parts, as the site is now."""
    facts = reads.status(opened.name, opened.mark)
    with st.container():
        in_short(opened, facts)
    with st.container():
        page_frame.warn(facts["problems"])
    for part in (studies, frozen, what_left_last, policy):
        with st.container():
            part(opened.name, facts)


def in_short(opened: Opened, facts: Facts) -> None:
    """Show the state of the site in sentences.

    They say whether it has joined, serves, is paused and answers.
    """
    name = opened.name
    lines = []
    if facts["joined"]:
        lines.append(f"It has {facts['joined']}.")
    else:
        st.info(
            "This site has not joined a study network yet. Ask the coordinator for a kit, then: "
            f"`flfed site join {name}.kit.zip`"
        )
    # Whether a node listens is asked of the system: a file could be out of date.
    if node_listens(opened.folder):
        lines.append("It is serving: its node runs on this machine, and waits for messages.")
    else:
        lines.append(f"It is not serving: no node of it runs on this machine. To start: flfed site serve {name}")
    if facts["paused"]:
        lines.append(f"It is paused: nothing is answered. To answer again: flfed site pause {name} --resume")
    else:
        lines.append("It is not paused.")
    if facts["gate-key"]:
        lines.append(f"The fingerprint of its gate, for the people of other sites: {facts['gate-key']}.")
    # A decision without a reason against it is one that would be answered now.
    active_studies = [one for one in facts["studies"] if not one["reason"]]
    names = ", ".join(one["study"] for one in active_studies)
    answered = f"It would answer {len(active_studies)} of {len(facts['studies'])} studies decided about"
    if active_studies:
        answered += f": {names}".rstrip(".")
    lines.append(f"{answered}.")
    lines += [
        f"Figures over its test rows of {one['dataset']} may leave for {one['remaining']} more models, "
        f"of {one['most']}."
        for one in facts["comparisons"]
    ]
    with st.container(border=True):
        st.markdown(bullets(map(escape, lines)))


def studies(name: str, facts: Facts) -> None:
    """Show each decision in a line."""
    st.markdown("### Studies")
    if not facts["studies"]:
        st.info(
            f"Nothing is decided yet. To read what a study asks, and decide: `flfed site approve STUDY --site {name}`"
        )
        return
    lines = []
    for one in facts["studies"]:
        now = f"no: {one['reason']}" if one["reason"] else "yes"
        lines.append({
            "Study": one["study"],
            "Decision": f"{one['decision']} by {one['by']}",
            "When (UTC)": moment(one["at"]),
            "Would be answered now": now,
        })  # fmt: skip
    table(lines)
    st.page_link(page_files()["approvals"], label="What each one allows", icon=":material/arrow_forward:")


def frozen(name: str, facts: Facts) -> None:
    """Show which rows are served."""
    st.markdown("### Frozen rows: what studies are computed on")
    if not facts["snapshots"]:
        st.info(
            "No rows are frozen, so that none are served. Approving a study freezes them, and so does: "
            f"`flfed site snapshot {name}`"
        )
        return
    table([
        {"Dataset": one["dataset"], "Rows": one["rows"], "Frozen at (UTC)": moment(one["at"]),
         "SHA-256": one["sha256"][:12]}
        for one in facts["snapshots"]
    ])  # fmt: skip
    for one in facts["snapshots"]:
        # The number is text, since a small one is withheld.
        if one["withheld"] != "0":
            st.caption(
                escape(f"Of {one['dataset']} the rows of {one['withheld']} other people rest, so that nobody can tell "
                       "who opted out, or who came.")
            )  # fmt: skip


def what_left_last(_: str, facts: Facts) -> None:
    """Show the ledger's last lines."""
    st.markdown("### What left last")
    if not facts["last"]:
        st.info("Nothing has left this site yet.")
        return
    table([
        {
            "Line": line["n"],
            "When (UTC)": line["at"][:19].replace("T", " "),
            "What": kind_of_line(line["kind"]),
            "Study, or why not": line["reason"] or line["study"],
            "Run": line["run"],
            "Size": size_in_words(line["bytes"] or 0),
        }
        for line in facts["last"]
    ])  # fmt: skip
    st.page_link(page_files()["ledger"], label="All that left", icon=":material/arrow_forward:")


def policy(_: str, facts: Facts) -> None:
    """Show the site's policy in words."""
    st.markdown("### What this site's policy allows, whatever a study asks for")
    st.markdown(bullets(map(escape, policy_in_words(facts["policy"]))))
    st.caption(
        "It stands in policy.toml beside the site's mapping; a gate that runs holds the next message to what the file "
        "says then."
    )


def policy_in_words(facts: Facts) -> list[str]:
    """Return the policy, a sentence each.

    Parameters
    ----------
    facts : dict
        As `flfed site status --json` has it.
    """
    if facts["disclosure"] == "open":
        disclosure = "open: figures are exact, however few rows are behind them"
        compared = "Figures over test rows leave for any number of models."
    else:
        disclosure = f"institution: no count of fewer than {facts['cell-minimum']} rows leaves"
        later = "figures with noise, charged to the budget" if facts["later-figures"] == "noised" else "none"
        models = f"{facts['compared-runs']} models of a dataset, all studies together"
        compared = f"Figures over test rows leave for {models}; then {later}."
    approval = "A person must approve each study."
    if facts["approval"] == "none":
        approval = "A study needs no approval by a person."
    budget = "There is no budget of differential privacy."
    if facts["epsilon"] is not None:
        budget = (
            f"All studies together may spend epsilon {facts['epsilon']:g} of each dataset, at delta {facts['delta']:g}."
        )
    audits = "may" if facts["audits"] else "may not"
    return [
        f"Disclosure is {disclosure}.",
        f"A run has at least {facts['least-cohort']} sites.",
        f"The site's own figures are written down {WRITTEN_DOWN[facts['share-metrics']]}.",
        approval,
        compared,
        f"A study is run at most {facts['runs']} times; at most {size_in_words(facts['daily-bytes'])} leave in a day.",
        budget,
        f"Attacks on a model {audits} be tried here; only their figures leave.",
    ]


if __name__ == "__main__":
    page_frame.show("What is going on here", parts)
