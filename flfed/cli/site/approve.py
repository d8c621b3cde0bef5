"""`flfed site approve`, `withdraw`, `pause` and `status`: what a person decides at a site, and what came of it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import typer

from flfed.cli import output
from flfed.cli.arguments import ALLOW_UNMATCHED, SITE_NAME
from flfed.cli.site.rows import opened
from flfed.errors import UsageError
from flfed.paths import SiteFolder, joined_sites
from flfed.words import render, usage_error

if TYPE_CHECKING:
    from flfed.deployment.operator.proposal import Proposal, SiteFacts
    from flfed.deployment.site_state.approval import Approval
    from flfed.rows.data.site import Site
    from flfed.study.study import Study


BY = typer.Option("", "--by", help="Who decides, as it is written down.", show_default="the user of this machine")
SITE = typer.Option("", "--site", help="The site's name.", show_default="the one that has joined here")
LONGEST_NAME = 100
DECISIONS = ("approve", "refuse", "later")


def approve_study(
    study: str = typer.Argument(..., metavar="NAME|FILE", help="A shipped study's name, or a TOML file."),
    site: str = SITE,
    co_sites: str = typer.Option(
        "",
        "--with",
        metavar="A,B,C",
        help="The other sites that may take part; else those of the study. A=FINGERPRINT,… or a list of cards pins.",
    ),
    changed_sites: bool = typer.Option(
        False,
        "--changed-sites",
        help="Allow sums over other sites than before; earlier ones with others end.",
    ),
    unknown_releases: bool = typer.Option(
        False,
        "--unknown-releases",
        help="After a restart of the ledger: serve the rows although what was released of them is unknown.",
    ),
    start: Path | None = typer.Option(
        None, "--start", metavar="FOLDER", help="The exported model that the study begins from, where it has one."
    ),
    runs: int = typer.Option(1, "--runs", metavar="N", min=1, help="Show what N runs spend of the privacy budget."),
    allow_unmatched: bool = ALLOW_UNMATCHED,
    by: str = BY,
    every: bool = typer.Option(False, "--all", help="Show every detail after the ten lines."),
    yes: bool = typer.Option(False, "--yes", help="Approve without asking."),
    refuse: bool = typer.Option(False, "--refuse", help="Refuse the study."),
    as_json: bool = output.JSON,
) -> None:
    """Show a study's use of this site's rows in ten lines, and record the decision of a person.

    An approval covers the rows of the snapshot, the text of the study and the list of sites. It holds until it is
    withdrawn or the study ends. Without a snapshot, approving takes one.

    A study with secure aggregation needs the fingerprint of each other site's gate. --with LIST takes them from the
    coordinator's list of cards, once people of all sites have compared it (flfed site cards). --with
    A=FINGERPRINT,B=FINGERPRINT names them as each site read its own out. This site's updates then leave in sums over
    all of these sites, or not at all. A dataset keeps its sites over all studies: --changed-sites allows others from
    now on, and must be said at every site. The coordinator can then compute what the sites that differ sent.

    After a restart of the ledger nobody knows any more which rows and sums of a dataset were released. Its first
    approval then needs --changed-sites and --unknown-releases: a person's word that these rows may be served.

    A study that begins from an earlier model (warm-start) needs a copy of it: --start FOLDER, as flfed run export
    wrote it. Its hash must be the study's start-sha256. The site stores it, so once is enough.

    A study with noise spends the privacy budget of the site. The text says what a run spends, each repeat one, and how
    many such runs still fit; --runs N plans N of them.
    """
    from flfed.deployment.site_state.approval import refuse as write_refusal
    from flfed.study.study import Study

    if refuse and yes:
        raise UsageError("--yes and --refuse exclude each other")
    own, folder = _opened(site)
    loaded_study = Study.load(study)
    # A refusal needs no check.
    if refuse:
        output.show(_decided(folder, write_refusal(folder, loaded_study, by=_who(by))), as_json)
        return
    _check_answering(folder)
    _check_restart(folder, loaded_study, changed_sites and unknown_releases)
    from flfed.deployment.operator.secure_sums import agreed, named_sites
    from flfed.deployment.site_state.approval import keep_start, read_start_folder

    sites = named_sites(folder, loaded_study, co_sites)
    others = _others(sites, own)
    # Nobody should approve what the gate would refuse anyway.
    check_answering(loaded_study, own, others)
    source = read_start_folder(folder, loaded_study, start)
    agreement = agreed(folder, loaded_study, sites, changed_sites=changed_sites)
    # The model is made for the description, which needs torch.
    from flfed.deployment.operator.proposal import Proposal, count_single_outcomes, read_site_facts
    from flfed.deployment.site_state.trusted_files import coordinator_of

    proposal = Proposal.of(loaded_study, own, others, coordinator_of(folder), agreement)
    _check_rows(folder, proposal)
    facts = count_single_outcomes(folder, proposal, read_site_facts(folder, proposal, runs))
    decision = _decision(_text(proposal, facts, every=every), yes, as_json)
    if decision == "approve":
        if source is not None:
            keep_start(folder, loaded_study, source)
        decided = _approved(folder, proposal, _who(by), allow_unmatched)
    elif decision == "refuse":
        decided = write_refusal(folder, loaded_study, by=_who(by))
    else:
        typer.echo(f"{loaded_study.name}: no decision, so {own.name} does not reply to it.")
        return
    output.show(_decided(folder, decided), as_json)


def _others(sites: dict[str, str], site: Site) -> tuple[str, ...]:
    """Return the other sites that are named."""
    # The site itself takes part in any case, and is none of the others.
    others = tuple(sorted(sites.keys() - {site.name}))
    if not others:
        raise UsageError("the study does not name its sites: say who else may take part with --with A,B,C")
    return others


def _text(proposal: Proposal, facts: SiteFacts, *, every: bool) -> list[str]:
    """Return the text that a person reads before deciding, a paragraph each; `every` detail, or the ten lines."""
    from flfed.deployment.operator.approval_summary import summarise
    from flfed.deployment.operator.study_description import describe_details, describe_site_facts

    lines = summarise(proposal, facts)
    if every:
        lines += describe_details(proposal) + describe_site_facts(proposal, facts)
    return lines


@output.with_json
def allow_runs(
    dataset: str = typer.Argument(..., help="The dataset's name."),
    runs: int = typer.Option(..., "--runs", metavar="N", min=1, max=1000, help="How many more runs."),
    site: str = SITE,
    by: str = BY,
) -> output.Shown:
    """Let N more runs of a dataset have replies of its rows.

    A policy limits how many runs of a dataset have replies that depend on rows (runs), over all studies and
    coordinators; each repeat is one. The ledger has who added some.
    """
    from flfed.deployment.site_state import runs as site_runs

    own, folder = _opened(site)
    if dataset not in own.datasets:
        raise UsageError(f"{own.name} has no dataset {dataset!r}, but {', '.join(own.datasets)}")
    counted = site_runs.allow_runs(folder, own.policy, dataset, runs, by=_who(by))
    yield {"site": folder.site, "dataset": dataset, "added": runs, "remaining": counted.left, "most": counted.most}
    yield counted.sentence()


@output.with_json
def withdraw_study(
    study: str = typer.Argument(..., help="The study's name, or the first characters of its SHA-256."),
    site: str = SITE,
    by: str = BY,
) -> output.Shown:
    """Withdraw the approval of a study: from the next message on the site does not answer it."""
    from flfed.deployment.site_state.approval import withdraw

    _, folder = _opened(site)
    withdrawn = withdraw(folder, study, by=_who(by))
    yield {"site": folder.site, "withdrawn": [one.facts() for one in withdrawn]}
    for one in withdrawn:
        yield f"{folder.site}: the approval of {one.study} ({one.study_sha256[:12]}) is withdrawn."
    yield f"What was sent cannot be called back; this lists it: flfed site ledger {folder.site}"


@output.with_json
def pause_site(
    name: str = SITE_NAME, end: bool = typer.Option(False, "--resume", help="Answer again."), by: str = BY
) -> output.Shown:
    """Stop answering messages of every study, from the next message on; approvals stay as they are."""
    from flfed.deployment.site_state import approval

    _, folder = _opened(name)
    before = approval.is_paused(folder)
    if end:
        approval.resume(folder)
    else:
        approval.pause(folder, by=_who(by))
    yield {"site": folder.site, "paused": not end, "changed": before == end}
    state = "answers again" if end else f"is paused; to answer again: flfed site pause {folder.site} --resume"
    same = "" if before == end else " (as before)"
    yield f"{folder.site} {state}{same}."


@output.tables
def site_status(name: str = SITE_NAME) -> output.Shown:
    """Show whether the site has joined, its approvals, its snapshots and its last messages."""
    from flfed.deployment.operator.status import status_of

    own, folder = _opened(name)
    status = status_of(folder, own)
    yield status
    paused = "yes, it replies to no study" if status["paused"] else "no"
    key = status["gate-key"] or f"none yet: flfed site key {own.name}"
    yield f"{own.name}: {status['joined'] or 'has not joined yet'}"
    if status["proxy"]:
        yield render("commands.status.proxy", proxy=status["proxy"])
    yield f"Paused: {paused}"
    if status["gate"]["undone"]:
        yield render("commands.status.gate", **status["gate"])
    yield f"Fingerprint of the gate: {key}"
    _print_frozen(status)
    rows = list(map(_row, status["studies"]))
    _table(["study (SHA-256)", "decision", "at", "with", "active"], rows, "Studies", "no decision yet")
    rows = []
    for line in status["last"]:
        subject = line["reason"] or line["study"]
        rows.append([str(line["n"]), line["at"], line["kind"], subject, line["run"], str(line["bytes"])])
    _table(["line", "at", "kind", "study or reason", "run", "bytes"], rows, "Last messages", "none yet")
    for problem in filter(None, [status["clock"], *status["problems"]]):
        typer.echo(f"Problem: {problem}", err=True)


def _row(decided: dict[str, Any]) -> list[str]:
    """Return the cells of a decision about a study."""
    others = ", ".join(decided["co-sites"]) or "nobody"
    if decided["sums"]:
        others += " (sums only)"
    holds = f"no: {decided['reason']}" if decided["reason"] else "yes"
    by = f"{decided['decision']} by {decided['by']}"
    # Two texts of one study differ by their hash alone.
    study = f"{decided['study']} ({decided['study-sha256'][:8]})"
    return [study, by, decided["at"], others, holds]


def _print_frozen(status: dict[str, Any]) -> None:
    """Print the snapshots, the number of runs that remain, and the rows withheld."""
    rows = [[one["dataset"], str(one["rows"]), one["at"], one["sha256"][:12]] for one in status["snapshots"]]
    _table(["dataset", "rows", "taken at", "SHA-256"], rows, "Snapshots", "no snapshot yet")
    for one in status["runs"]:
        typer.echo(render("budget.runs.left", dataset=one["dataset"], left=one["remaining"], most=one["most"]))
    for one in status["snapshots"]:
        if gone := one["excluded"]:
            typer.echo(render("site_app.status.excluded", dataset=one["dataset"], **gone))
        if one["changed"]:
            typer.echo(render("gate.files.table", site=status["site"], **one))
        # The number is text, since a small one is suppressed.
        if one["withheld"] != "0":
            typer.echo(render("site_app.status.resting", dataset=one["dataset"], people=one["withheld"]))


def _opened(name: str) -> tuple[Site, SiteFolder]:
    """Return the package and the folder of a site: the one named, or the only one that has joined here."""
    joined = joined_sites()
    # With one site joined its name need not be typed.
    if not name and len(joined) != 1:
        raise usage_error("commands.decision.nameless", joined=", ".join(joined) or "none")
    site, folder = opened(name or joined[0])
    output.passed_over(site.name)
    return site, folder


def _check_answering(folder: SiteFolder) -> None:
    """Raise where the site answers nothing: others may write in its folder, or its ledger is lost."""
    from flfed.deployment.site_state.ledger_restart import blocking_refusal
    from flfed.deployment.site_state.trusted_files import open_folder

    why = open_folder(folder) or blocking_refusal(folder)
    if why:
        raise UsageError(f"nothing is approved: {why}")


def _check_restart(folder: SiteFolder, study: Study, agreed: bool) -> None:
    """Raise where a restart of the ledger has forgotten what was released, and the person did not agree to that."""
    from flfed.deployment.site_state.approval import approvals
    from flfed.records.site_state import SiteState

    restarted = SiteState(folder.state).restarted()
    approved = [one for one in approvals(folder) if (one.decision, one.dataset) == ("approved", study.dataset.name)]
    if restarted is not None and not approved and not agreed:
        raise usage_error("commands.decision.restarted", dataset=study.dataset.name, day=restarted.at[:10])


def check_answering(study: Study, site: Site, others: tuple[str, ...]) -> None:
    """Refuse to approve what the gate would then refuse; raises UsageError."""
    from flfed.deployment.gate.study_policy import cohort_refusal, study_policy_refusal
    from flfed.federation.recording.source_model import required_hash
    from flfed.federation.server.preflight import check

    check(study)
    required_hash(study)
    refused = study_policy_refusal(study, site)
    refused = refused or cohort_refusal([site.name, *others], site, others, study)
    if refused:
        raise usage_error("commands.decision.unanswered", site=site.name, reason=refused)


def _check_rows(folder: SiteFolder, proposal: Proposal) -> None:
    """Refuse to approve what the site would refuse in a run by its rows. Raises UsageError."""
    from flfed.deployment.gate.study_policy import table_refusal
    from flfed.deployment.site_state.used_people import use_refusal
    from flfed.rows.snapshots import snapshot

    site = proposal.serving
    refused: str | None = None
    if snapshot.read_facts(site, folder.frozen) is not None:
        frozen_site = site = snapshot.load(site, folder.frozen)
        refused = use_refusal(folder, proposal.study, frozen_site)
    if refused := refused or table_refusal(proposal.study, site):
        raise usage_error("commands.decision.unfit", site=site.name, reason=refused, dataset=site.dataset)


def _approved(folder: SiteFolder, proposal: Proposal, by: str, allow_unmatched: bool) -> Approval:
    from flfed.deployment.site_state.approval import approve
    from flfed.deployment.site_state.freeze import freeze_first, list_changed
    from flfed.deployment.site_state.trusted_files import coordinator_of
    from flfed.rows.snapshots import snapshot

    study = proposal.study
    serving = proposal.serving
    # An approval names the hash of a snapshot.
    earlier_facts = snapshot.read_facts(serving, folder.frozen)
    facts = earlier_facts or freeze_first(folder, serving, allow_unmatched=allow_unmatched)
    if earlier_facts is None and facts.excluded is not None:
        typer.echo(render("commands.decision.excluded", **vars(facts.excluded)), err=True)
    # A person who opted out meanwhile must not be in rows that are approved.
    if list_changed(folder, facts):
        raise usage_error("commands.decision.opted-out", dataset=study.dataset.name, site=serving.name)
    schema_sha256 = proposal.schema.sha256()
    if facts.schema_sha256 != schema_sha256:
        raise usage_error("commands.decision.schema", dataset=study.dataset.name, site=serving.name)
    return approve(
        folder,
        study,
        by=by,
        co_sites=proposal.co_sites,
        rows_sha256=facts.sha256,
        schema_sha256=schema_sha256,
        coordinator=coordinator_of(folder),
        **vars(proposal.agreement),
    )


def _decision(words: list[str], yes: bool, as_json: bool) -> str:
    """Return the decision of the person at the terminal, after the text; raise where there is no terminal."""
    if not as_json:
        typer.echo("\n\n".join(words))
    if yes:
        return "approve"
    if as_json or not sys.stdin.isatty():
        raise UsageError("there is no terminal to ask at: decide with --yes or --refuse")
    choice = click.Choice(DECISIONS, case_sensitive=False)
    # Another word, such as yes, is asked about again.
    return str(typer.prompt("\nType approve, refuse or later", default="later", type=choice, show_choices=False))


def _who(person: str) -> str:
    """Return who decides, as one line."""
    # A line break in a name would forge another line of the log.
    if person.strip():
        return "".join(letter if letter.isprintable() else " " for letter in person).strip()[:LONGEST_NAME]
    user = output.who()
    # Under sudo the name has both accounts.
    other = os.environ.get("SUDO_USER", "")
    if other and other.isprintable():
        return f"{other} (as {user})"[:LONGEST_NAME]
    return user


def _decided(folder: SiteFolder, approval: Approval) -> output.Shown:
    yield {"site": folder.site, **approval.facts()}
    yield f"{folder.site}: study {approval.study} ({approval.study_sha256[:12]}) is {approval.decision}."
    if approval.decision == "approved":
        yield render("commands.decision.serves", site=folder.site, study=approval.study)


SPARE = ("SHA-256", "at", "line", "with", "run")
"""Columns that go first where a terminal is narrow."""


def _table(headers: list[str], rows: list[list[str]], title: str, nothing: str) -> None:
    if rows:
        output.as_table(headers, rows, title=title, spare=SPARE)
    else:
        typer.echo(f"{title}: {nothing}")
