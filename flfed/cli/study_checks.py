"""`flfed study verify` and `flfed study sweep`: a study beside published figures, and over a grid."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from flfed.cli import show
from flfed.cli.study import NAME, SET, study_of

if TYPE_CHECKING:
    from flfed.apps.sweep import Swept
    from flfed.apps.verify import Compared, Verified

ABSENT = "–"
GRID = typer.Option(
    [], "--grid", metavar="KEY=V1,V2", help="Values to try of a key: plan.lr=0.01,0.1. May be given for several keys."
)


def verify_study(
    name: str = NAME,
    engine: str = typer.Option("inprocess", help="As for study run."),
    changes: list[str] = SET,
    as_json: bool = show.JSON,
) -> None:
    """Run a study as often as it says and hold it to the figures it expects.

    Exit codes: 0 all figures hold, 1 one does not or the run failed, 2 wrong use or wrong input, 3 stopped.
    """
    study = study_of(name, changes)
    from flfed.apps.verify import verify

    with show.progress(quiet=as_json) as told:
        found = verify(study, engine=engine, progress=told)
    if as_json:
        show.as_json(found.as_json())
    else:
        _print_verified(found)
    error = found.error()
    if error is not None:
        raise error


def _print_verified(found: Verified) -> None:
    headers = ["figure", "expected", "ours (mean, sd)", "difference", "verdict"]
    rows = [[f.expected.path, _published(f), _ours(f), _signed(f.difference), _verdict(f)] for f in found.figures]
    over = f"{found.repeats} repeats" if found.repeats > 1 else "1 run"
    show.as_table(headers, rows, title=f"{found.study}: expected and ours, {over} ({found.run})")
    for figure in found.figures:
        typer.echo(f"{figure.expected.path} is expected after: {figure.expected.source}.")
    for figure in found.figures:
        if figure.by_repeat:
            lines = [
                [str(r.repeat), str(r.seed), _number(r.published), _number(r.ours), _signed(r.difference)]
                for r in figure.by_repeat
            ]
            columns = ["repeat", "seed", "published", "ours", "difference"]
            show.as_table(columns, lines, title=f"{figure.expected.path}, one by one")
    if found.holds:
        typer.echo("Every expected figure holds.")


def _published(figure: Compared) -> str:
    expected = figure.expected
    return f"at least {expected.least:g}" if expected.value is None else f"{expected.value:g} ± {expected.tolerance:g}"


def _ours(figure: Compared) -> str:
    spread = "" if figure.sd is None else f", sd {figure.sd:.4f}"
    return f"{_number(figure.ours)}{spread}"


def _verdict(figure: Compared) -> str:
    return "holds" if figure.holds else "does not hold"


def _number(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.4f}"


def _signed(value: float | None) -> str:
    # No "-0.0000": it reads as a difference.
    return ABSENT if value is None else f"{value:+.4f}" if f"{abs(value):.4f}" != "0.0000" else "0.0000"


def sweep_study(name: str = NAME, grid: list[str] = GRID, changes: list[str] = SET, as_json: bool = show.JSON) -> None:
    """Try every point of a grid, and name the best on validation rows; no holdout is read.

    The grid is the study's table `sweep` and every --grid; where both name a key, --grid counts.
    """
    study = study_of(name, changes)
    from flfed.apps.sweep import parse_grid, points_of, sweep

    points = points_of(study, {**study.sweep, **parse_grid(grid)})
    if not as_json:
        many = "1 point" if len(points) == 1 else f"{len(points)} points"
        typer.echo(f"{study.name}: {many} to try, {study.rounds} rounds each unless the grid says otherwise.")
    with show.progress(quiet=as_json) as told:
        found = sweep(study, points, progress=told)
    if as_json:
        show.as_json(found.as_json())
    else:
        _print_swept(found)
    error = found.error()
    if error is not None:
        raise error


def _print_swept(found: Swept) -> None:
    keys = list(found.points[0].settings)
    headers = ["run", *keys, "validation loss", f"validation {found.primary}", "rounds", ""]
    rows = [
        [p.run, *(str(p.settings[key]) for key in keys), _number(p.loss), _number(p.primary), str(p.rounds), p.reason]
        for p in found.ranked()
    ]
    show.as_table(headers, rows, title=f"{found.study}: {len(rows)} points, best first")
    if found.best is not None:
        typer.echo(f"Best: {found.best.as_options()}")
    typer.echo(found.caution)
