"""`flfed coordinator`: keys, admission of sites, the server, and studies at the institutions."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from flfed.cli import output
from flfed.cli.arguments import SET, STUDY
from flfed.errors import FlfedError, UsageError
from flfed.paths import CoordinatorFolder
from flfed.words import counted, render, usage_error

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flfed.deployment.coordinator.admission import Admission
    from flfed.deployment.coordinator.kits import Invited
    from flfed.deployment.coordinator.status import SiteStatus


SITE = typer.Argument(..., metavar="SITE", help="The site's name: a-z, 0-9 and single hyphens.")
TO = typer.Option(Path("."), "--output", help="Target folder.", show_default="the current folder")


VALID_DAYS = 14
"""Days that an invitation is valid by default."""


@output.with_json
def init_coordinator(
    title: str = typer.Option(..., help="Name that sites see, such as 'Heart consortium'."),
    address: str = typer.Option(..., metavar="HOST:PORT", help="Public address."),
) -> output.Shown:
    """Set up a coordinator: certificate authority, server certificate, signing key.

    None is ever replaced. If a key was stolen, set up another coordinator (with another FLFED_HOME), and invite all
    sites again: each joins with its new kit, and keeps its ledger and its approvals.
    """
    from flfed.deployment.coordinator.certificates import Settings, initialise, server_days_left

    folder = CoordinatorFolder.default()
    initialise(folder, Settings(title, address))
    days = server_days_left(folder)
    yield {"title": title, "address": address, "folder": str(folder.root), "server-days": days}
    yield render("commands.coordinator.made", title=title, folder=folder.root)
    yield render("commands.coordinator.certificate", address=address, days=counted(days, "day"))
    yield render("commands.coordinator.first")


@output.tables
def invite_site(
    site: str = typer.Argument("", metavar="[SITE]", help="The site's name: a-z, 0-9 and single hyphens."),
    every: Path | None = typer.Option(
        None, "--all", metavar="FILE", help='TOML file with several sites, such as: sites = ["basel", "lyon"]'
    ),
    days: int | None = typer.Option(None, min=1, max=90, help="Days of validity.", show_default="14"),
    to: Path = TO,
) -> output.Shown:
    """Invite a site: write its kit, SITE.kit.zip. A new invitation invalidates the earlier kit.

    Anyone with the kit can join under this name, once. Send it by a channel that both sides trust, and compare its
    SHA-256 by telephone. A revoked site can be invited again.

    --all invites every site of a file, or nobody where a name is wrong. The file has the line sites = ["basel",
    "lyon"], and may have days = 30. Sites with an admission or a valid kit are skipped, and so are revoked ones.
    """
    from flfed.deployment.coordinator.kits import invite

    if bool(site) == (every is not None):
        raise usage_error("coordinator.list.either")
    if every is not None:
        yield from _invite_all(every, days, to)
        return
    made = invite(CoordinatorFolder.default(), site, to=to, days=days or VALID_DAYS)
    yield _kit_facts(made)
    yield render("commands.kit.file", **vars(made))
    yield render("commands.kit.sha256", sha256=made.sha256)
    yield render("commands.kit.next", site=made.site)


def _invite_all(file: Path, days: int | None, to: Path) -> output.Shown:
    from flfed.deployment.coordinator.kits import invite_all, read_site_list

    folder = _initialised()
    sites, days_of_file = read_site_list(file)
    invited, skipped = invite_all(folder, sites, to=to, days=days or days_of_file or VALID_DAYS)
    left_out = [{"site": member.site, "status": member.status, "expires": member.expires} for member in skipped]
    yield {"kits": list(map(_kit_facts, invited)), "skipped": left_out}
    if invited:
        rows = [[made.site, str(made.file), made.expires, made.sha256] for made in invited]
        output.as_table(["site", "kit", "valid until", "SHA-256 of the kit"], rows, spare=("valid until", "kit"))
    for member in skipped:
        yield render(f"commands.skipped.{member.status}", **vars(member))
    if invited:
        yield render("commands.kit.all")


def _kit_facts(invited: Invited) -> dict[str, object]:
    return {"site": invited.site, "kit": str(invited.file), "expires": invited.expires, "kit-sha256": invited.sha256}


def _initialised() -> CoordinatorFolder:
    """Return the coordinator's folder, or refuse where none was initialised."""
    from flfed.deployment.coordinator.certificates import settings

    folder = CoordinatorFolder.default()
    settings(folder)
    return folder


def admit_site(
    files: list[Path] = typer.Argument(..., metavar="FILE...", help="Admission files."),
    fingerprints: list[str] = typer.Option(
        [], "--fingerprint", metavar="SITE=FINGERPRINT", help="Fingerprint that a site's people read out."
    ),
    replacing: bool = typer.Option(
        False, "--replace", help="The file replaces a wrong one of the same invitation, whose key is revoked."
    ),
    as_json: bool = output.JSON,
) -> None:
    """Admit sites: check signature, invitation, name and key of each admission file.

    Anyone with the kit could have made the file. So the command asks for the fingerprint of the site's key, which
    flfed site join shows: call the site's people, on a number that you have from elsewhere, and type what they read
    to you. Nothing of a file is admitted where it differs.

    Where somebody else used the kit and was admitted, admit the right file with --replace. The other key is cut off
    within seconds and never admitted again.

    Exit codes: 0 all are admitted, 2 some are not.
    """
    # Settings are read first, so that a missing coordinator is reported before a file is opened.
    folder = _initialised()
    if replacing and len(files) > 1:
        raise usage_error("coordinator.fingerprint.one")
    read_out = _read_fingerprints(fingerprints)
    admissions, refused = _admit_each(folder, files, read_out, replacing)
    # One file has the object, and the error, of a single admission.
    if len(files) == 1 and refused:
        file, error = refused[0]
        raise type(error)(f"{file}: {error}")
    output.show(_admitted(admissions, refused, single=len(files) == 1, replacing=replacing), as_json)
    if refused:
        raise usage_error("coordinator.fingerprint.refused", refused=len(refused), files=counted(len(files), "file"))
    if strangers := sorted(read_out.keys() - {admission.site for admission in admissions}):
        raise usage_error("coordinator.fingerprint.strangers", sites=", ".join(strangers))


def _read_fingerprints(options: Sequence[str]) -> dict[str, str]:
    """Return the fingerprints of the option, by site."""
    fingerprints = {}
    for text in options:
        site, equals, fingerprint = text.partition("=")
        if not equals or site in fingerprints:
            raise usage_error("coordinator.fingerprint.form", text=text[:80])
        fingerprints[site] = fingerprint
    return fingerprints


def _admit_each(
    folder: CoordinatorFolder, files: Sequence[Path], fingerprints: Mapping[str, str], replacing: bool
) -> tuple[list[Admission], list[tuple[Path, FlfedError]]]:
    """Return the admissions, and each file that is refused with its error."""
    from flfed.deployment.coordinator.admission import admit, check_admission

    admissions = []
    refused = []
    for file in files:
        try:
            # Checked first, so that nobody telephones about a file that is refused anyway.
            admission = check_admission(folder, file, replacing=replacing)
            typed = fingerprints.get(admission.site)
            if typed is None and not admission.already:
                typed = _ask_fingerprint(file, admission)
            # A fingerprint that is given is compared, whether or not the site was admitted before.
            if typed is not None:
                admission = admit(folder, file, typed=typed, replacing=replacing)
            admissions.append(admission)
        except FlfedError as error:
            # Sentences name the file once, whichever of them do so themselves.
            reason = str(error).removeprefix(f"{file}: ").removeprefix("admission: ")
            refused.append((file, type(error)(reason)))
    return admissions, refused


def _ask_fingerprint(file: Path, admission: Admission) -> str:
    """Return the fingerprint that a person types at the terminal, asked again where it has a wrong character."""
    while sys.stdin.isatty():
        # On standard error, so that --json prints its object alone.
        question = render("commands.admission.ask", site=admission.site)
        typed = str(typer.prompt(question, default="", show_default=False, err=True))
        if not typed.strip():
            break
        try:
            admission.matches(typed)
        except UsageError as error:
            typer.echo(str(error), err=True)
            continue
        return typed
    raise usage_error("coordinator.fingerprint.unread", file=file, site=admission.site)


def _admitted(
    admissions: Sequence[Admission], refused: Sequence[tuple[Path, FlfedError]], *, single: bool, replacing: bool
) -> output.Shown:
    from flfed.signatures import spoken_fingerprint

    facts = []
    for admission in admissions:
        key = {"site": admission.site, "node-key": admission.fingerprint, "already": admission.already}
        facts.append(key | {"gate-key": admission.gate_key})
    others = [{"file": str(file), "reason": str(error)} for file, error in refused]
    yield facts[0] if single else {"admitted": facts, "refused": others}
    for admission in admissions:
        state = "before" if admission.already else "now"
        key = {"spoken": spoken_fingerprint(admission.fingerprint), "fingerprint": admission.fingerprint}
        yield render(f"commands.admitted.{state}", site=admission.site, **key)
        if admission.gate_key:
            yield render("commands.gate.admitted", fingerprint=admission.gate_key)
        if replacing:
            yield render("commands.admitted.replaced", site=admission.site)
    for file, error in refused:
        yield render("commands.admission.refused", file=file, reason=error)


@output.with_json
def site_key(
    site: str = SITE,
    fingerprint: str = typer.Argument(..., metavar="FINGERPRINT|none", help="Fingerprint of its gate."),
) -> output.Shown:
    """Record the fingerprint of a site's gate, where its admission had none or the site made a new key.

    It shows which sites can take part in studies with secure aggregation; none removes a wrong one. Each site pins the
    fingerprints that the other sites read to it, and takes none from the coordinator.
    """
    from flfed.deployment.coordinator.admission import note_gate_key

    gate_key, before = note_gate_key(_initialised(), site, fingerprint)
    yield {"site": site, "gate-key": gate_key, "before": before}
    yield render("commands.gate.known", site=site, fingerprint=gate_key or "none")
    if before not in ("", gate_key):
        yield render("commands.gate.changed", before=before)


@output.with_json
def write_cards(
    out: Path = typer.Option(Path("consortium.cards"), "--output", metavar="FILE", help="The list's file."),
) -> output.Shown:
    """Write the list of all admitted sites' cards: each site with the fingerprint of its gate.

    Send the same file to each site. People of all sites compare it among themselves in one call (flfed site cards),
    and approve studies with secure aggregation by it (flfed site approve --with LIST). After a new key or a new site,
    write it again; the sites compare it again.
    """
    from flfed.deployment.coordinator import kits

    cards, cardless = kits.write_cards(_initialised(), out)
    # Its fingerprint is not shown here: sites that ask the coordinator for it compare nothing.
    yield {"file": str(out), "consortium": cards.consortium, "cards": dict(cards.gates), "cardless": list(cardless)}
    yield render("commands.cards.written", file=out, n=len(cards.gates), sites=", ".join(sorted(cards.gates)))
    if cardless:
        yield render("commands.cards.missing", sites=", ".join(cardless))
    yield render("commands.cards.send", file=out)


@output.with_json
def revoke_site(
    site: str = SITE, yes: bool = typer.Option(False, "--yes", help="Do not ask at the terminal.")
) -> output.Shown:
    """Revoke a site's invitation or admission; its key is never admitted again, under any name.

    It cannot be undone. A site comes back with another key: invite it again, let it join with the new kit, and
    admit it. Its ledger and approvals remain, as do its earlier replies in the run records.

    Only a terminal asks before.
    """
    from flfed.deployment.coordinator.admission import check_invited, revoke

    folder = _initialised()
    check_invited(folder, site)
    asks = sys.stdin.isatty() and not yes
    if asks and not typer.confirm(render("commands.coordinator.revoke", site=site), err=True):
        raise usage_error("commands.coordinator.unrevoked", site=site)
    already = revoke(folder, site)
    yield {"site": site, "already": already}
    done = "was revoked already" if already else "is revoked"
    yield f"{site} {done}."
    yield render("commands.coordinator.reinvite", site=site)


@output.with_json
def acknowledge_ledger(
    site: str = SITE,
    why: str = typer.Option(..., "--why", metavar="TEXT", help="Why the ledger does not continue; it is recorded."),
) -> output.Shown:
    """Record why a site's ledger does not continue what earlier runs saw of it, so that runs go on.

    A ledger that does not continue was set back to a backup, cut, rewritten or begun anew, and a run with it ends at
    its beginning. Ask the site first. What it had answered since the backup, it may answer again, and its privacy
    budget has forgotten it, unless it restarted its ledger: flfed site ledger SITE --restart --why TEXT.
    """
    from flfed.deployment.coordinator.admission import check_invited
    from flfed.deployment.coordinator.ledger_heads import LedgerHeads

    folder = _initialised()
    check_invited(folder, site)
    known = LedgerHeads(folder).acknowledge(site, by=output.who(), why=why)
    yield {"site": site, "line": known, "why": why}
    yield f"The break after line {known:,} of the ledger of {site} is recorded. The next run takes the one that it has."


def serve_coordinator(
    listen: str = typer.Option(
        "", metavar="[IP][:PORT]", help="Local address, if it is not the public one: 10.0.0.5, :8443 or 10.0.0.5:8443."
    ),
) -> None:
    """Serve the consortium until Ctrl-C or SIGTERM; only nodes of admitted sites can connect.

    Flower's SuperLink runs on loopback, behind Caddy. An admission or a revocation takes effect within seconds. The
    server certificate is renewed in its last 30 days, while no run is in progress.
    """
    from flfed.deployment.coordinator.proxy import listening
    from flfed.deployment.coordinator.serve import serve
    from flfed.deployment.processes.supervisor import stop_on_signals

    # A wrong address is refused before any process starts.
    bind, port = listening(listen)
    with stop_on_signals() as stop:
        serve(CoordinatorFolder.default(), stop, notify=partial(typer.echo, err=True), bind=bind, port=port)


@output.tables
def coordinator_status(whole: bool = output.ALL) -> output.Shown:
    """Show which sites are admitted and online, and how each did in its last run."""
    from flfed.deployment.coordinator.certificates import RENEWED_DAYS
    from flfed.deployment.coordinator.status import status

    overview = status(CoordinatorFolder.default())
    yield overview.as_json()
    state = "up" if overview.serving else "down"
    yield render(f"commands.serving.{state}", **vars(overview))
    yield render("commands.coordinator.valid", days=counted(overview.server_days, "day"))
    if overview.server_days < RENEWED_DAYS:
        yield render("commands.coordinator.renew")
    # A file that cannot be read hides one site only.
    for problem in overview.problems:
        yield f"Left out: {problem}."
    if overview.sites:
        _print_sites(overview.sites, whole)
    else:
        yield render("commands.coordinator.empty")


def _print_sites(sites: Sequence[SiteStatus], whole: bool) -> None:
    headers = ["site", "", "node", "last request", "online since", "last run", "run", "reply", "round"]
    spare = ("run", "online since", "last request", "round", "last run")
    output.as_table(headers, list(map(_row, sites)), spare=spare, more="sites: --all", whole=whole)
    reasons = []
    fingerprints = []
    for site in sites:
        last = site.last_run
        if last is not None and last.reason:
            reasons.append(": ".join((site.site, last.answer, last.reason)))
        if site.unanswered:
            reasons.append(render("commands.coordinator.unanswered", **vars(site)))
        if site.gate_key:
            fingerprints.append(render("commands.gate.known", site=site.site, fingerprint=site.gate_key))
    output.say_some(reasons, whole=whole)
    output.say_some(fingerprints, whole=whole)
    without = ", ".join(site.site for site in sites if site.status == "admitted" and not site.gate_key)
    if without:
        output.say(render("commands.gate.missing", sites=without))


def _row(site: SiteStatus) -> list[str]:
    """Return the cells of a site: state of its node, last request, and last run."""
    last_request = ""
    if site.seconds_since_request is not None:
        last_request = f"{site.seconds_since_request:.0f} s ago"
    since = site.online_since[:16].replace("T", " ")
    node = "online" if since else site.node
    row = [site.site, site.status, node, last_request, since]
    last = site.last_run
    if last is None:
        return [*row, "", "", "", ""]
    return [*row, f"{last.study}, {last.state}", last.run, last.answer, f"{last.round} of {last.of}"]


@output.tables
def run_deployed(
    name: str = STUDY,
    changes: list[str] = SET,
    repeats: int = typer.Option(1, help="Number of runs, each with its own seed."),
    sites: list[str] = typer.Option([], "--site", metavar="NAME", help="Only these sites; default: all admitted ones."),
    as_json: bool = output.JSON,
) -> None:
    """Run a study at the institutions and print the results by site: study run --engine deployment.

    Exit codes: 0 completed, 1 failed, 2 wrong use or wrong input, 3 stopped.
    """
    # Printed at once: imports and the server's first answer take long on a busy machine.
    if sys.stderr.isatty():
        typer.echo(render("commands.coordinator.begin", study=name), err=True)
    from flfed.cli.study_runs import run_study

    # Printed before the run, because each site decides about the text as it is.
    if changes:
        typer.echo(render("commands.coordinator.unapproved", changes=", ".join(changes)), err=True)
    options = {"engine": "deployment", "one_by_one": False, "leave_one_site_out": False, "jobs": 1}
    run_study(name, changes=changes, repeats=repeats, sites=sites, as_json=as_json, **options)
