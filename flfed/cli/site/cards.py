"""`flfed site cards`: people of all sites compare the list of their gates' cards, once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from flfed.cli import output
from flfed.cli.site.records import who
from flfed.cli.site.serve import NAME
from flfed.paths import SiteFolder
from flfed.words import render, usage_error

if TYPE_CHECKING:
    from flfed.deployment.cards import CardList

LATER = "later"


def compare_cards(
    name: str = NAME,
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
        output.say_all(_describe_call(cards, name))
        if not fingerprint and sys.stdin.isatty():
            fingerprint, readers = _ask(cards)
    if fingerprint:
        site_cards.note_comparison(folder, cards, fingerprint, readers, by=who())
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


def _describe(cards: CardList, site: str, file: Path) -> list[str]:
    """Return the cards and the fingerprint of their list, a line each."""
    facts = {"n": len(cards.gates), "consortium": cards.consortium}
    lines = [render("commands.cards.list", file=file, site=site, **facts)]
    lines += [f"  {name}: {cards.gates[name]}" for name in sorted(cards.gates)]
    return [*lines, render("commands.cards.fingerprint", fingerprint=cards.fingerprint())]


def _describe_call(cards: CardList, site: str) -> list[str]:
    """Return how to compare the list, and what a call leaves open."""
    others = ", ".join(sorted(cards.gates.keys() - {site}))
    return [
        render("commands.cards.call", sites=others),
        render("commands.cards.alone"),
        render("commands.cards.absent"),
    ]


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
