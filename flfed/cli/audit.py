"""`flfed audit`: attacks on a run's own model, against what the run promised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from flfed.cli import show
from flfed.cli.loading import loading

if TYPE_CHECKING:
    from flfed.apps.auditing import Audited


def audit(
    run: str = typer.Argument("latest", metavar="RUN", help="A run's id, or latest; of repeats, one of them."),
    sites: list[str] = typer.Option([], "--site", metavar="NAME", help="Only at these sites, as the run names them."),
    attacks: list[str] = typer.Option([], "--attack", metavar="NAME", help="Only these attacks."),
    as_json: bool = show.JSON,
) -> None:
    """Attack the model of a run at its sites, and show how far each attack got against what the run promised.

    Each site is attacked with its own rows; figures and their intervals go into the run's record. Where
    the run was a deployment, sites are asked through the coordinator and attack themselves: no row leaves,
    and the site's ledger has a line for each attack. An attack that gets nowhere proves nothing.

    Exit codes: 0 done, 1 failed or an attack got beyond what was promised, 2 wrong use or wrong input.
    """
    with loading():
        from flfed.apps.auditing import audit as audit_run
    with show.progress(quiet=as_json) as told:
        found = audit_run(run, only=sites, attacks=attacks, progress=told)
    if as_json:
        show.as_json(found.as_object())
    else:
        print_audit(found)
    if found.beyond():
        raise typer.Exit(1)


def print_audit(found: Audited) -> None:
    """Print what each attack reached, and what it means, for people."""
    promise = found.promise
    typer.echo(
        f"{found.study} ({found.run}) promises nothing: no [privacy] mechanism with a guarantee."
        if promise is None
        else f"{found.study} ({found.run}) promises each {promise.unit}: epsilon {promise.epsilon:.3g} "
        f"at delta {promise.delta:g}, by {promise.mechanism}."
    )
    rows = [row.as_object() for row in found.findings]
    if rows:
        lines = [
            [row["attack"], row["site"], row["metric"], _said(row), _number(row["promise"]), row["verdict"]]
            for row in rows
        ]
        show.as_table(["attack", "site", "metric", "reached (95 %)", "promised", "verdict"], lines)
    for line in _sentences(rows):
        typer.echo(line)
    for site, reason in found.faults.items():
        typer.echo(f"Not attacked: {site}: {reason}", err=True)


def _sentences(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what the figures mean, each sentence once, with its sites where it is not true of all."""
    said: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        sites = said.setdefault((row["attack"], row["says"]), [])
        sites += [row["site"]] if row["site"] not in sites else []
    all_of = {attack: {row["site"] for row in rows if row["attack"] == attack} for attack, _ in said}
    return [
        f"{attack}{'' if set(sites) == all_of[attack] else ', ' + ', '.join(sites)}: {sentence}"
        for (attack, sentence), sites in said.items()
    ]


def _said(row: Mapping[str, Any]) -> str:
    low, high = row["low"], row["high"]
    if low is None and high is None:
        return _number(row["value"])
    return f"{_number(row['value'])} ({_number(low)} to {_number(high)})"


def _number(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "–" if value is None else str(value)
