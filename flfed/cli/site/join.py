"""`flfed site join`, `key`, `cards` and `proxy`: a site's way into a consortium, and the keys that people compare."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from flfed.cli import output
from flfed.cli.arguments import JOINED_SITE
from flfed.paths import SiteFolder, joined_sites
from flfed.words import render, usage_error

if TYPE_CHECKING:
    from flfed.deployment.cards import CardList
    from flfed.deployment.operator.join import Joined, Read

LATER = "later"


@output.with_json
def join_site(
    file: Path = typer.Argument(..., metavar="KIT", help="The coordinator's file: SITE.kit.zip."),
    yes: bool = typer.Option(
        False, "--yes", help="Do not ask before a kit replaces the one that the site has, or is another site's."
    ),
    to: Path = typer.Option(Path("."), "--output", help="Target folder.", show_default="the current folder"),
) -> output.Shown:
    """Join a consortium with its coordinator's kit; the site's private keys are made here and never leave.

    A kit is trusted: take it only from somebody you know, and compare its SHA-256 by telephone. Return SITE.admission,
    and compare the fingerprint of the key, too.

    A site that has joined takes a new kit in place of the earlier one, once somebody agrees. It makes another key and
    must be admitted again; its approvals and its ledger stay. Where another site has joined here, somebody agrees, too.
    """
    from flfed.deployment.operator.join import join

    def replaces(kit: Read, coordinator: str) -> bool:
        facts = {"site": kit.kit.site, "coordinator": coordinator, "sha256": kit.sha256}
        # A false kit would lead the site, with its approvals, to somebody else's server.
        return yes or output.agreed(render("commands.join.again", **facts))

    made = join(file, to=to, agrees=lambda site: _agrees(site, yes=yes), replaces=replaces)
    yield _facts(made)
    yield from _joined_in_words(made)


def _agrees(site: str, *, yes: bool) -> bool:
    """Return whether a kit's site is one of this home, or a person agrees: another has joined here, or no package."""
    joined = joined_sites()
    if site in joined or (not joined and (has_package(site) or not sys.stdin.isatty())):
        return True
    facts = {"site": site, "joined": ", ".join(joined) or "no site"}
    return yes or output.agreed(render(f"commands.join.{'other' if has_package(site) else 'stranger'}", **facts))


def _facts(enrolment: Joined) -> dict[str, object]:
    from flfed.registry import kebab_keys

    facts = kebab_keys(vars(enrolment)) | {"admission": str(enrolment.admission)}
    facts["node-key"] = facts.pop("key")
    return facts | {"package": has_package(enrolment.site)}


def _joined_in_words(enrolment: Joined) -> output.Shown:
    from flfed.deployment.site_state.trusted_files import open_folder

    site = enrolment.site
    yield render("commands.join.joins", **vars(enrolment))
    yield render("commands.join.send", file=enrolment.admission, expires=enrolment.expires)
    yield render("commands.join.kit", sha256=enrolment.kit_sha256)
    yield describe_key(enrolment.key)
    if enrolment.gate_key:
        yield render("commands.join.gate", fingerprint=enrolment.gate_key)
    else:
        yield render("commands.join.keyless", **vars(enrolment))
    if not has_package(site):
        yield render("commands.join.package", site=site, joined=", ".join(joined_sites()))
    if why := open_folder(SiteFolder(site)):
        typer.echo(f"WARNING: {why}", err=True)


def describe_key(fingerprint: str) -> str:
    """Return the fingerprint of a site's own key, as people read it out."""
    from flfed.signatures import spoken_fingerprint

    return render("commands.join.key", spoken=spoken_fingerprint(fingerprint), fingerprint=fingerprint)


@output.with_json
def show_key(
    name: str = JOINED_SITE,
) -> output.Shown:
    """Show the fingerprint of the site's gate; its key is made where there is none.

    The gate signs with this key in studies with secure aggregation. The other sites pin its fingerprint when they
    approve such a study. With a list of all cards, people of all sites compare the list in one call: flfed site cards.
    Without one, read the fingerprint to the people of each other site, by telephone or face to face, who enter it:
    flfed site approve --with SITE=FINGERPRINT. No site may take it from the coordinator alone: a dishonest coordinator
    could give a key of its own.
    """
    from flfed.deployment.site_state.trusted_files import make_signing_key

    fingerprint, made = make_signing_key(SiteFolder(name))
    yield {"site": name, "gate-key": fingerprint, "created": made}
    age = "new" if made else "known"
    yield render(f"commands.fingerprint.{age}", site=name, fingerprint=fingerprint)
    yield render("commands.join.pin", site=name, fingerprint=fingerprint)


def has_package(site: str) -> bool:
    """Return whether a site package of this name is here; it is not imported."""
    from flfed.rows.data.site_discovery import names

    return site in names()


def compare_cards(
    name: str = JOINED_SITE,
    file: Path = typer.Argument(..., metavar="LIST", help="The coordinator's list of cards."),
    fingerprint: str = typer.Option("", help="The list's fingerprint, as other sites read it out."),
    readers: str = typer.Option("", "--from", metavar="A,B,C", help="Sites that read it out."),
    as_json: bool = output.JSON,
) -> None:
    """Compare the list of all gates' cards with people of the other sites, once for all approvals.

    The command looks for this site's card in the list and shows one fingerprint of the list. In one
    call with people of all sites, each site reads this fingerprint out, and you type what you hear.
    Then flfed site approve --with LIST needs no fingerprints.

    Never compare it with the coordinator alone, which could have made another list for each site. A
    site that does not read it out stays open, and no approval by the list pins it.
    """
    from flfed.deployment import cards as site_cards

    if bool(fingerprint) != bool(readers):
        raise usage_error("operator.cards.both")
    folder = SiteFolder(name)
    cards = site_cards.read_own_cards(folder, file)
    still_open = site_cards.open_sites(folder, cards)
    if not as_json:
        output.say_all(_describe(cards, name, file))
    if still_open and not as_json:
        others = ", ".join(sorted(cards.gates.keys() - {name}))
        output.say(render("commands.cards.call", sites=others))
        output.say(render("commands.cards.alone"))
        output.say(render("commands.cards.absent"))
        if not fingerprint and sys.stdin.isatty():
            fingerprint, readers = _ask(cards)
    if fingerprint:
        site_cards.note_comparison(folder, cards, fingerprint, readers, by=output.who())
        still_open = site_cards.open_sites(folder, cards)
    compared = [site for site in sorted(cards.gates) if site not in (*still_open, name)]
    facts = {
        "site": name,
        "consortium": cards.consortium,
        "cards": cards.gates,
        "list-fingerprint": cards.fingerprint(),
        "compared": compared,
        "open": list(still_open),
    }
    output.show(_result(facts, file), as_json)


def compare_named_list(name: str, answer: str) -> None:
    """Compare the list of cards that an answer to `--with` names; sites or fingerprints name none."""
    from flfed.deployment.cards import is_list

    if is_list(answer):
        compare_cards(name, Path(answer), fingerprint="", readers="", as_json=False)


def _describe(cards: CardList, site: str, file: Path) -> list[str]:
    """Return the cards and the fingerprint of their list, a line each."""
    facts = {"n": len(cards.gates), "consortium": cards.consortium}
    lines = [render("commands.cards.list", file=file, site=site, **facts)]
    lines += [f"  {name}: {cards.gates[name]}" for name in sorted(cards.gates)]
    return [*lines, render("commands.cards.fingerprint", fingerprint=cards.fingerprint())]


def _ask(cards: CardList) -> tuple[str, str]:
    """Return the fingerprint that a person heard and the sites that read it; "" for later."""
    from flfed.deployment.cards import check_reading

    fingerprint = typer.prompt(render("commands.cards.reading"), default=LATER).strip()
    if fingerprint == LATER:
        return "", ""
    # Another list shows at once, before the next question.
    check_reading(cards, fingerprint)
    readers = typer.prompt(render("commands.cards.readers"), default=LATER).strip()
    if readers == LATER:
        return "", ""
    return fingerprint, readers


def _result(facts: dict[str, Any], file: Path) -> output.Shown:
    """Yield the command's object, then which sites read the list out and which stay open."""
    yield facts
    if facts["compared"]:
        sites = ", ".join(facts["compared"])
        yield render("commands.cards.compared", sites=sites, site=facts["site"], file=file)
    if facts["open"]:
        yield render("commands.cards.open", sites=", ".join(facts["open"]))


@output.with_json
def change_proxy(
    name: str = JOINED_SITE,
    url: str = typer.Argument(..., metavar="URL|none", help="http://HOST:PORT of the proxy, or none."),
    password_file: Path | None = typer.Option(
        None, "--password-file", metavar="FILE", help="Private file with the line USER:PASSWORD; it is copied."
    ),
) -> output.Shown:
    """Set the outbound proxy through which the site's node reaches the coordinator; none removes it.

    The proxy must permit CONNECT to the coordinator's host and port. TLS goes through it unopened: the node checks the
    coordinator's name and certificate as before. A running node is started again. Each call sets URL and password.
    """
    from flfed.deployment.operator.outbound_proxy import set_proxy

    folder = SiteFolder(name)
    proxy = set_proxy(folder, url, password_file)
    if proxy is None:
        yield {"site": name, "proxy": None, "password": False}
        yield render("commands.proxy.removed", site=name)
    else:
        yield {"site": name, "proxy": proxy.url, "password": bool(proxy.user)}
        yield render("commands.proxy.set", site=name, proxy=proxy.url, file=folder.proxy)
    yield render("commands.proxy.units", site=name)
