"""`flfed coordinator`: keys, who may join, the server, and a study at the institutions."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from flfed.cli import output
from flfed.cli.study import NAME, SET
from flfed.paths import CoordinatorFolder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flfed.deployment.coordinator.status import SiteStatus


SITE = typer.Argument(..., metavar="SITE", help="The site's name: a-z, 0-9 and single hyphens.")
TO = typer.Option(Path("."), "--output", help="The folder to write the file into.", show_default="the current folder")
TAKEN_UP = "A coordinator that serves takes it up by itself, within seconds."


class Key(StrEnum):
    """What `rotate` changes."""

    server = "server"
    authority = "authority"
    signing = "signing"


@output.with_json
def init_coordinator(
    title: str = typer.Option(..., help="What people read at the sites, such as 'Heart consortium'."),
    address: str = typer.Option(..., metavar="HOST:PORT", help="Where sites reach it from outside."),
) -> output.Shown:
    """Make a coordinator: a certificate authority, the server's certificate and a signing key; never over another."""
    from flfed.deployment.coordinator.certificates import Settings, initialise, server_days_left

    folder = CoordinatorFolder.default()
    initialise(folder, Settings(title, address))
    days = server_days_left(folder)
    yield {"title": title, "address": address, "folder": str(folder.root), "server-days": days}
    yield f"{title} is at {folder.root}: keep a backup of its folder `keys` where nobody else can read it."
    yield f"The server's certificate, for {address}, holds for {days} days: flfed coordinator rotate server"
    yield "Invite the first site with: flfed coordinator invite SITE"


@output.with_json
def invite_site(
    site: str = SITE,
    days: int = typer.Option(14, min=1, max=90, help="For how many days the invitation holds."),
    to: Path = TO,
) -> output.Shown:
    """Invite a site: write its kit, SITE.kit.zip. Inviting it again makes the earlier kit worthless.

    Whoever has the kit can join under this name, once: send it by a way that both sides trust, and
    compare its SHA-256 by telephone. A site that was revoked can be invited anew.
    """
    from flfed.deployment.coordinator.kits import invite

    made = invite(CoordinatorFolder.default(), site, to=to, days=days)
    yield {"site": made.site, "kit": str(made.file), "expires": made.expires, "kit-sha256": made.sha256}
    yield f"{made.file} is the kit of {made.site}; it holds until {made.expires}."
    yield f"SHA-256 of the kit, which `flfed site join` shows too: {made.sha256}"
    yield f"The site sends {made.site}.admission back; then: flfed coordinator admit {made.site}.admission"


def _initialised() -> CoordinatorFolder:
    """Return the coordinator's folder, or refuse where none was initialised."""
    from flfed.deployment.coordinator.certificates import settings

    folder = CoordinatorFolder.default()
    settings(folder)
    return folder


@output.with_json
def admit_site(
    file: Path = typer.Argument(..., metavar="FILE", help="What the site sent back, SITE.admission."),
) -> output.Shown:
    """Admit a site by its admission file: signature, invitation, name and key are checked.

    Compare the key's fingerprint with the site by telephone: whoever had the kit could have made the file.
    """
    from flfed.deployment.coordinator.admission import admit

    # Settings are read first, so that a missing coordinator is said before a file is opened.
    folder = _initialised()
    admission = admit(folder, file)
    yield {
        "site": admission.site,
        "node-key": admission.fingerprint,
        "already": admission.already,
        "gate-key": admission.gate_key,
    }
    done = "was admitted by this file already: nothing is left to do" if admission.already else "is admitted"
    yield f"{admission.site} {done}; its key, as `flfed site join` showed it: {admission.fingerprint}"
    if admission.gate_key:
        yield f"Its gate's, which other sites ask it for and not you: {admission.gate_key}"


@output.with_json
def site_key(
    site: str = SITE,
    fingerprint: str = typer.Argument(..., metavar="FINGERPRINT", help="As `flfed site key` shows it at the site."),
) -> output.Shown:
    """Take in the fingerprint of a site's gate, where its admission had none or the site made another key.

    It is for you to see which sites can take part in studies with secure sums. Each site pins the fingerprints that
    the other sites read to it, and takes none from here.
    """
    from flfed.deployment.coordinator.admission import note_gate_key

    gate_key, before = note_gate_key(_initialised(), site, fingerprint)
    yield {"site": site, "gate-key": gate_key, "before": before}
    instead = f" instead of {before}: who pins that one must approve anew" if before not in ("", gate_key) else ""
    yield f"{site}: the fingerprint of its gate is {gate_key}{instead}."


@output.with_json
def revoke_site(site: str = SITE) -> output.Shown:
    """Take back a site's invitation or admission: its key is never admitted again, under any name.

    What it sent before stays in the run records.
    """
    from flfed.deployment.coordinator.admission import revoke

    folder = _initialised()
    already = revoke(folder, site)
    yield {"site": site, "already": already}
    done = "was revoked already" if already else "is revoked"
    yield f"{site} {done}."
    yield f"To have it back, with another key: flfed coordinator invite {site}"


@output.with_json
def site_ledger(
    site: str = SITE,
    restart: str = typer.Option("", "--restart", metavar="WHY", help="The site lost its ledger; WHY goes on record."),
) -> output.Shown:
    """Show what was signed last of a site's ledger; with --restart, take note that the site lost it.

    A ledger that does not go on from what was signed is a fault in every run: it was cut, written anew, or
    lost. Ask the site. Where it was lost (a disk, no backup), the site begins another, by `flfed site ledger
    SITE --restart WHY`, and you take note of it: both are on record for good. What left the site before is
    then proved by what was signed here, and by the run records, alone.
    """
    from flfed.cli.site_records import who
    from flfed.deployment.coordinator.admission import check_invited
    from flfed.deployment.coordinator.countersign import last_signed, note_restart

    folder = _initialised()
    # Without --restart nothing is written.
    receipt = note_restart(folder, site, by=who(), why=restart) if restart else last_signed(folder, [site])[site]
    if not receipt.n:
        check_invited(folder, site)
    yield {**receipt.facts(), "restarted": bool(restart)}
    if receipt.n:
        yield f"{receipt.n} lines of {site}'s ledger were signed, at run {receipt.run}, with the head {receipt.head}."
    else:
        yield f"No line of {site}'s ledger is signed."
    if restart:
        yield "It is on record that the site lost them: the next run signs the ledger that it has then."


@output.with_json
def rotate_key(
    key: Key = typer.Argument(..., help="Which key to change."),
    finish: bool = typer.Option(False, "--finish", help="authority only: let the prepared one take over."),
    to: Path = TO,
) -> output.Shown:
    """Change a key of the coordinator.

    server: another key and certificate for the server, by the same authority. Nothing to do at the sites.

    authority: in two steps, each of which writes a renewal, to be sent to every site, which takes it
    by `flfed site join --renew FILE`. The first prepares another authority and tells sites to trust
    both. When all have taken it, the second, with --finish, lets the new one take over and tells
    sites to trust it alone; a site that was late takes that one, and is cut off until then. If the
    authority's key was stolen, do both at once: each site trusts the thief until it took the last.

    signing: another key for receipts and renewals. The renewal it writes is the last thing the old
    key signs; send it to every site. If it was stolen, a renewal proves nothing: change it, then
    revoke and invite every site anew.

    A renewal is not secret, and signed: any way of sending it will do.
    """
    from flfed.deployment.coordinator import kits
    from flfed.errors import UsageError

    folder = _initialised()
    if finish and key is not Key.authority:
        raise UsageError(f"--finish does not go with {key.value}: only an authority is changed in two steps")
    # The folder is checked before a key is changed: the renewal must not be lost.
    kits.check_folder(to)
    file = _change(folder, key, finish, to)
    renewal = None if file is None else str(file)
    yield {"key": key.value, "finished": finish, "renewal": renewal}
    yield f"{key.value}: done. {TAKEN_UP}"
    # Only some changes concern the sites.
    if file is not None:
        yield _renewal(file)
    if key is Key.authority and not finish:
        yield "When all sites have: flfed coordinator rotate authority --finish"


def _change(folder: CoordinatorFolder, key: Key, finish: bool, to: Path) -> Path | None:
    """Change a key and return the renewal, or None where no site has to know."""
    from flfed.deployment.coordinator import certificates, kits

    if key is Key.server:
        certificates.renew_server(folder)
        return None
    if key is Key.signing:
        return kits.rotate_signing(folder, to=to)
    # Two steps, so that at each time sites trust the authority in use.
    if finish:
        certificates.finish_authority(folder)
    else:
        certificates.prepare_authority(folder)
    return kits.renewal(folder, to=to)


@output.with_json
def write_renewal(to: Path = TO) -> output.Shown:
    """Write a renewal for all sites: after flfed was updated, or if that of `rotate authority` was lost."""
    from flfed.deployment.coordinator.kits import renewal

    file = renewal(CoordinatorFolder.default(), to=to)
    yield {"renewal": str(file)}
    yield _renewal(file)


def _renewal(file: Path) -> str:
    return f"Send {file} to every site, which takes it by: flfed site join --renew {file.name}"


LISTEN = typer.Option(
    "",
    "--listen",
    metavar="[IP][:PORT]",
    help="Where to listen, where it is not the public address: 10.0.0.5, :8443 or 10.0.0.5:8443.",
)


NOT_APPROVED = (
    "--set {}: sites approve a study word for word, and have not approved this text; each refuses it unless its policy "
    "asks for no approval. To ask for approvals, write the changes into a study file, and send that to the sites."
)


def serve_coordinator(listen: str = LISTEN) -> None:
    """Serve the consortium until Ctrl-C or SIGTERM: nodes of admitted sites can connect, nobody else.

    Flower's SuperLink runs on loopback, Caddy before it. A site that is admitted or revoked meanwhile is taken in or
    cut off within seconds. The server's certificate is renewed in its last 30 days, where no run goes on.
    """
    from flfed.deployment.coordinator.proxy import listening
    from flfed.deployment.coordinator.serve import serve
    from flfed.deployment.processes.supervisor import stop_on_signals

    # A wrong address is refused before any process starts.
    bind, port = listening(listen)
    with stop_on_signals() as stop:
        serve(CoordinatorFolder.default(), stop, notify=lambda line: typer.echo(line, err=True), bind=bind, port=port)


@output.tables
def coordinator_status(whole: bool = output.ALL) -> output.Shown:
    """Show who is admitted and online, and what each site did in its last run."""
    from flfed.deployment.coordinator.certificates import RENEWED_DAYS
    from flfed.deployment.coordinator.status import status

    overview = status(CoordinatorFolder.default())
    yield overview.as_json()
    serving = "serving" if overview.serving else "NOT serving: flfed coordinator serve"
    yield f"{overview.title}, {overview.address}: {serving}."
    days = f"{overview.server_days} days"
    if overview.server_days < RENEWED_DAYS:
        days += "; a coordinator that serves renews it where no run goes on, or: flfed coordinator rotate server"
    yield f"The server's certificate holds for {days}."
    # A file that cannot be read hides one site, and not all of them.
    for problem in overview.problems:
        yield f"Left out: {problem}."
    if overview.sites:
        _print_sites(overview.sites, whole)
    else:
        yield "No site was invited yet: flfed coordinator invite SITE"


def _print_sites(sites: Sequence[SiteStatus], whole: bool) -> None:
    headers = ["site", "", "node", "asked", "online since", "last run", "run", "answer", "round"]
    spare = ("run", "online since", "asked", "round", "last run")
    output.as_table(headers, list(map(_row, sites)), spare=spare, more="sites: --all", whole=whole)
    reasons = []
    for site in sites:
        last = site.last_run
        if last is not None and last.reason:
            reasons.append(f"{site.site}: {last.answer}: {last.reason}")
    output.say_some(reasons, whole=whole)
    key_lines = [f"{site.site}: its gate's fingerprint is {site.gate_key}" for site in sites if site.gate_key]
    output.say_some(key_lines, whole=whole)
    without = ", ".join(site.site for site in sites if site.status == "admitted" and not site.gate_key)
    if without:
        typer.echo(f"No gate's key is known here of {without}; at the site: flfed site key SITE")


def _row(site: SiteStatus) -> list[str]:
    """Return how a site's node stands, when it asked last, since when it is online, and its last run."""
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
    name: str = NAME,
    changes: list[str] = SET,
    repeats: int = typer.Option(1, help="How often, with other seeds."),
    sites: list[str] = typer.Option([], "--site", metavar="NAME", help="Ask only these sites; all that are admitted."),
    as_json: bool = output.JSON,
) -> None:
    """Run a study at the institutions and print how every site did: study run --engine deployment.

    Exit codes: 0 completed, 1 failed, 2 wrong use or wrong input, 3 stopped.
    """
    from flfed.cli.study_runs import run_study

    # Told before the run, because each site decides about the text as it is.
    if changes:
        typer.echo(NOT_APPROVED.format(", ".join(changes)), err=True)
    run_study(
        name,
        engine="deployment",
        changes=changes,
        repeats=repeats,
        sites=sites,
        one_by_one=False,
        without=None,
        curve=None,
        as_json=as_json,
    )
