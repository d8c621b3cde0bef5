"""Page of the site's status."""

from __future__ import annotations

from typing import Any

import streamlit as st

from flfed.deployment.site_app import page_files, page_frame, reads
from flfed.deployment.site_app.page_frame import Opened, kind_of_line
from flfed.deployment.site_app.reads import node_listens
from flfed.deployment.site_app.waiting import list_waits, show_waits
from flfed.records.dashboard.sections import bullets, contained, table
from flfed.records.statistics.verdict import format_as_written
from flfed.records.text import escape, moment, size_in_words
from flfed.words import counted, render

Facts = dict[str, Any]  # from `flfed site status --json`


def parts(opened: Opened) -> None:
    """Show first whether something waits for this site, then what the answer rests on."""
    facts = reads.status(opened.name, opened.mark)
    serves = node_listens(opened.folder)
    contained(answer, opened, facts, serves=serves)
    contained(page_frame.warn, facts["problems"])
    contained(in_short, facts, serves=serves)
    for part in (studies, frozen, last_sent, policy):
        contained(part, opened.name, facts)
    if facts["gate-key"]:
        st.caption(escape(render("site_app.status.gate", fingerprint=facts["gate-key"])))


def answer(opened: Opened, facts: Facts, *, serves: bool) -> None:
    """Show what waits for this site and what for the coordinator, since when, and what to do."""
    st.markdown(f"### {render('site_app.waiting.question')}")
    summary = reads.ledger(opened.name, opened.mark)
    waits = list_waits(opened.folder, facts, summary, serves=serves)
    here = sum(wait.is_here for wait in waits)
    if here:
        st.markdown(f"**{render('site_app.waiting.yes', matters=counted(here, 'matter'))}**")
    elif waits:
        st.markdown(f"**{render('site_app.waiting.no', matters=counted(len(waits), 'matter'))}**")
    else:
        st.markdown(f"**{render('site_app.waiting.nothing')}**")
    show_waits(waits)
    if not facts["joined"]:
        st.info(render("site_app.status.alone", name=opened.name))


def in_short(facts: Facts, *, serves: bool) -> None:
    """Show in sentences whether the site has joined, serves, is paused, and which studies get replies."""
    lines = []
    if facts["joined"]:
        lines.append(render("site_app.status.joined", joined=facts["joined"]))
    # The system's list of sockets shows whether a node listens; a file could be out of date.
    lines.append(render("site_app.status.serving" if serves else "site_app.status.stopped"))
    lines.append(render("site_app.status.paused" if facts["paused"] else "site_app.status.unpaused"))
    # A study without a reason against it gets replies now.
    active = [one["study"] for one in facts["studies"] if not one["reason"]]
    studies = len(facts["studies"])
    if active:
        names = ", ".join(active).rstrip(".")
        lines.append(render("site_app.status.active", active=len(active), studies=studies, names=names))
    else:
        lines.append(render("site_app.status.inactive", studies=studies))
    for one in facts["runs"]:
        lines.append(render("site_app.status.runs", dataset=one["dataset"], left=one["remaining"], most=one["most"]))
    with st.container(border=True):
        st.markdown(bullets(map(escape, lines)))


def studies(name: str, facts: Facts) -> None:
    """Show each decision in a line."""
    st.markdown("### Studies")
    if not facts["studies"]:
        st.info(render("site_app.status.undecided", name=name))
        return
    lines = []
    for one in facts["studies"]:
        now = f"no: {one['reason']}" if one["reason"] else "yes"
        decision = f"{one['decision']} by {one['by']}"
        line = {"Study": one["study"], "Decision": decision, "When (UTC)": moment(one["at"])}
        lines.append(line | {"Replies now": now})
    table(lines)
    st.page_link(page_files()["approvals"], label="Details of approvals", icon=":material/arrow_forward:")


def frozen(name: str, facts: Facts) -> None:
    """Show the snapshots of rows that studies get."""
    st.markdown(f"### {render('site_app.status.rows')}")
    if not facts["snapshots"]:
        st.info(render("site_app.status.unfrozen", name=name))
        return
    table([
        {"Dataset": one["dataset"], "Rows": one["rows"], "Snapshot (UTC)": moment(one["at"]),
         "SHA-256": one["sha256"][:12]}
        for one in facts["snapshots"]
    ])  # fmt: skip
    for one in facts["snapshots"]:
        if gone := one["excluded"]:
            st.caption(escape(render("site_app.status.excluded", dataset=one["dataset"], **gone)))
        # The number is text, as a small one is suppressed.
        if one["withheld"] != "0":
            st.caption(escape(render("site_app.status.resting", dataset=one["dataset"], people=one["withheld"])))


def last_sent(_: str, facts: Facts) -> None:
    """Show the ledger's last lines."""
    st.markdown("### Sent last")
    if not facts["last"]:
        st.info(render("site_app.status.unsent"))
        return
    outcome = render("site_app.status.outcome")
    lines = []
    for line in facts["last"]:
        cells = {"Line": line["n"], "When (UTC)": line["at"][:19].replace("T", " ")}
        cells |= {"What": kind_of_line(line["kind"]), outcome: line["reason"] or line["study"]}
        lines.append(cells | {"Run": line["run"], "Size": size_in_words(line["bytes"] or 0)})
    table(lines)
    st.page_link(page_files()["ledger"], label="All sent messages", icon=":material/arrow_forward:")


def policy(_: str, facts: Facts) -> None:
    """Show the site's policy in words."""
    st.markdown(f"### {render('site_app.policy.title')}")
    st.markdown(bullets(map(escape, policy_in_words(facts["policy"]))))
    st.caption(render("site_app.policy.file"))


def policy_in_words(facts: Facts) -> list[str]:
    """Return the policy, a sentence each.

    Parameters
    ----------
    facts : dict
        From `flfed site status --json`.
    """
    if facts["disclosure"] == "open":
        disclosure = render("site_app.policy.open")
    else:
        disclosure = render("site_app.policy.institution", least=facts["cell-minimum"])
    budget = render("site_app.policy.unbounded")
    if facts["epsilon"] is not None:
        epsilon = format_as_written(facts["epsilon"])
        budget = render("site_app.policy.budget", epsilon=epsilon, delta=format(facts["delta"], "g"))
    return [
        disclosure,
        render("site_app.policy.cohort", sites=facts["least-cohort"]),
        render(f"site_app.policy.share-{facts['share']}"),
        render("site_app.policy.unapproved" if facts["approval"] == "none" else "site_app.policy.approval"),
        render("site_app.policy.limits", runs=facts["runs"], bytes=size_in_words(facts["daily-bytes"])),
        budget,
        render("site_app.policy.audits" if facts["audits"] else "site_app.policy.unaudited"),
    ]


if __name__ == "__main__":
    page_frame.show(render("site_app.status.title"), parts)
