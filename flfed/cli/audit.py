"""`flfed audit`: attacks on a run's own model, against what the run promised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from flfed.cli import output
from flfed.cli.output import loading

if TYPE_CHECKING:
    from flfed.experiments.audit import Audited


def audit(
    run: str = typer.Argument("latest", metavar="RUN", help="A run's or series' id, or latest; of repeats the first."),
    sites: list[str] = typer.Option([], "--site", metavar="NAME", help="Only at these sites, as the run names them."),
    attacks: list[str] = typer.Option([], "--attack", metavar="NAME", help="Only these attacks."),
    all_figures: bool = typer.Option(False, "--all", help="Print every figure, not only each attack's main one."),
    as_json: bool = output.JSON,
) -> None:
    """Attack the model of a run at its sites, and show how far each attack got against what the run promised.

    Each site is attacked with its own rows; figures and their intervals go into the run's record. Where
    the run was a deployment, sites are asked through the coordinator and attack themselves: no row leaves,
    and the site's ledger has a line for each attack. An attack that gets nowhere proves nothing. Of each attack
    the main figure is printed, and any that is beyond the promise; --all and --json have the others.

    Exit codes: 0 done, 1 failed or an attack got beyond what was promised, 2 wrong use or wrong input.
    """
    with loading():
        from flfed.experiments.audit import audit as audit_run
    with output.progress(quiet=as_json) as told:
        found = audit_run(run, only=sites, attacks=attacks, progress=told)
    if as_json:
        output.as_json(found.as_object())
    else:
        print_audit(found, whole=all_figures)
    # Beyond the promise is a failure, so that a script notices.
    if found.beyond():
        raise typer.Exit(1)


def print_audit(found: Audited, *, whole: bool = False) -> None:
    """Print what each attack reached, and what it means, for people; `whole`: every figure."""
    from flfed.records.reports.audit_headlines import by_figure, figure_name, headlines, not_promised, ordered, reached
    from flfed.records.statistics.verdict import number

    promise = found.promise
    typer.echo(
        f"{found.study} ({found.run}) promises nothing: no [privacy] mechanism with a guarantee."
        if promise is None
        else f"{found.study} ({found.run}) promises each {promise.unit}: epsilon {promise.epsilon:.3g} "
        f"at delta {promise.delta:g}, by {promise.mechanism}."
    )
    # Which of the models was attacked matters, since each repeat has its own.
    if found.repeats > 1:
        typer.echo(
            f"It is repeat {found.repeat + 1} of {found.repeats}, each with its own model: name another to attack that."
        )
    rows = [row.as_object() for row in found.findings]
    shown = ordered(rows) if whole else headlines(rows)
    if shown:
        bounds = ["nothing" if row["promise"] is None else number(row["promise"]) for row in shown]
        lines = [
            [row["attack"], row["site"], figure_name(row["metric"]), reached(row), bound, row["verdict"]]
            for row, bound in zip(shown, bounds, strict=True)
        ]
        output.as_table(["attack", "site", "figure", "reached (95 %)", "promised", "verdict"], lines)
        typer.echo("A verdict goes by the interval's lower end: a figure over the promise may be chance.")
    # Of each figure what it means at the worst site; where there is none, why.
    worst = [lines[0] for lines in by_figure(shown)]
    told = shown if whole else [*worst, *(line for line in shown if line["value"] is None)]
    for line in [*_sentences(told, rows), *not_promised(rows)]:
        typer.echo(line)
    if len(shown) < len(rows):
        typer.echo(f"{len(rows) - len(shown)} more figures: --all prints them, --json has them too.")
    for site, reason in found.faults.items():
        typer.echo(f"Not attacked: {site}: {reason}", err=True)


def _sentences(told: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what figures mean, each sentence once, with its sites where it is not true of all that were attacked."""
    found = []
    # A sentence that is true of all sites names none of them.
    for attack, says in dict.fromkeys((row["attack"], row["says"]) for row in told):
        tried = dict.fromkeys(row["site"] for row in rows if row["attack"] == attack)
        sites = dict.fromkeys(row["site"] for row in rows if (row["attack"], row["says"]) == (attack, says))
        found.append(f"{attack}{'' if len(sites) == len(tried) else ', ' + ', '.join(sites)}: {says}")
    return found
