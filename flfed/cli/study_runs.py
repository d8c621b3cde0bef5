"""`flfed study run`, `resume`, `verify` and `sweep`: runs of a study, and their results."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import typer

from flfed.cli import output, runs
from flfed.cli.arguments import JOBS, LATEST, SET, STUDY, parse_grid, set_options, study_of
from flfed.cli.progress import loading_line, progress, stoppable
from flfed.errors import FlfedError
from flfed.records.statistics.verdict import format_as_written, number
from flfed.tasks import ALL
from flfed.words import counted, render, usage_error

if TYPE_CHECKING:
    from flfed.experiments.sweep import Swept
    from flfed.experiments.verify import Compared, Verified
    from flfed.federation.server.run import Result

GRID = typer.Option(
    [], "--grid", metavar="KEY=V1,V2", help="Values of a key: plan.lr=0.01,0.1. Repeat it for more keys."
)


@output.tables
def run_study(
    name: str = STUDY,
    engine: str = typer.Option(
        "inprocess", help="inprocess; ray (an extra); deployment: the sites that this coordinator admitted."
    ),
    changes: list[str] = SET,
    repeats: int = typer.Option(1, help="Number of runs, each with its own seed and, on public data, its own holdout."),
    sites: list[str] = typer.Option(
        [], "--site", metavar="NAME", help="Only these sites: names, or import paths such as package.module."
    ),
    one_by_one: bool = typer.Option(
        False, "--one-by-one", help="Compute the sites in sequence: same figures, several times slower."
    ),
    leave_one_site_out: bool = typer.Option(
        False,
        "--leave-one-site-out",
        help="Run without each site in turn, and add AUC and calibration on all of its rows to the report.",
    ),
    jobs: int | None = JOBS,
    as_json: bool = output.JSON,
) -> None:
    """Run a study and print the results by site.

    Exit codes: 0 completed, 1 failed, 2 wrong use or wrong input, 3 stopped.
    """
    if leave_one_site_out:
        if engine != "inprocess" or sites or one_by_one or repeats > 1:
            raise usage_error("experiments.left-out.alone")
        _run_leave_one_site_out(name, changes, as_json)
        return
    options: dict[str, Any] = {"engine": engine, "repeats": repeats, "sites": sites or None, "stacked": not one_by_one}
    with stoppable():
        # Imported in the block: it loads torch, which takes most of a short command's time.
        with loading_line():
            study = study_of(name, changes)
            from flfed.federation.server.run import run
        result = _ran(partial(run, study, **options), jobs, as_json)
    _show(result, as_json)


def _run_leave_one_site_out(name: str, changes: list[str], as_json: bool) -> None:
    """Run a study without each site, and print the figures of its model on the rows of that site."""
    with stoppable():
        with loading_line():
            study = study_of(name, changes)
            from flfed.experiments.leave_one_out import leave_one_site_out
        with progress(quiet=as_json) as show_progress:
            run = leave_one_site_out(study, progress=show_progress)
    report = runs.object_of(run)
    if as_json:
        output.print_json(report)
        return
    from flfed.cli.run_tables import print_left_out

    print_left_out(report)
    output.say(render("experiments.left-out.recorded", run=run))


@output.tables
def resume_study(run: str = LATEST, jobs: int | None = JOBS, as_json: bool = output.JSON) -> None:
    """Resume a run that died, stopped or failed, and run its remaining repeats.

    No round is lost or counted twice. Exit codes: as for study run.
    """
    with stoppable():
        with loading_line():
            from flfed.federation.server.run import resume
        result = _ran(partial(resume, run), jobs, as_json)
    _show(result, as_json)


def _ran(go: Callable[..., Result], jobs: int | None, as_json: bool) -> Result:
    """Run, show progress, and return the result."""
    try:
        with progress(quiet=as_json) as show_progress:
            return go(progress=show_progress, jobs=jobs or ALL)
    # A failed run is in the store, and --json prints its results so far.
    except FlfedError as error:
        if as_json and error.run:
            # If the store itself is gone, the first error counts.
            with suppress(FlfedError):
                output.print_json(runs.object_of(error.run))
        raise


def _show(result: Result, as_json: bool) -> None:
    """Print the result of a run, and end with exit code 3 where it stopped."""
    if as_json:
        output.print_json(runs.object_of(result.run))
    else:
        from flfed.cli.run_tables import print_report

        print_report(result.report)
    # A stopped run is neither success nor failure, and has a code of its own.
    if result.status == "stopped":
        raise typer.Exit(3)


@output.tables
def verify_study(
    name: str = STUDY,
    engine: str = typer.Option("inprocess", help="Engine, as for study run."),
    changes: list[str] = SET,
    jobs: int | None = JOBS,
    as_json: bool = output.JSON,
) -> None:
    """Run a study with its own number of repeats, and compare it with its expected figures.

    Exit codes: 0 all figures hold, 1 one does not or the run failed, 2 wrong use or wrong input, 3 stopped.
    """
    study = study_of(name, changes)
    with stoppable():
        from flfed.experiments.verify import verify

        with progress(quiet=as_json) as show_progress:
            verification = verify(study, engine=engine, progress=show_progress, jobs=jobs or ALL)
    output.show(_verified(verification, changes), as_json)
    # All figures are printed before the error ends the command.
    if error := verification.error():
        raise error


def _verified(verification: Verified, changes: list[str]) -> output.Shown:
    yield verification.as_json() | {"changed": changes}
    rows = []
    for figure in verification.figures:
        ours = number(figure.ours, figure.decimals)
        if figure.sd is not None:
            ours += f", sd {number(figure.sd, figure.decimals)}"
        verdict = "holds" if figure.holds else "does not hold"
        difference = number(figure.difference, figure.decimals, signed=True)
        rows.append([figure.expected.path, _published(figure), ours, difference, verdict])
    facts = {"study": verification.study, "run": verification.run}
    title = render("commands.verify.title", runs=counted(verification.repeats, "run"), **facts)
    headers = ["figure", "expected", "ours (mean, sd)", "difference", "verdict"]
    output.as_table(headers, rows, title=title, spare=("difference", "expected"))
    for figure in verification.figures:
        facts = {"figure": figure.expected.path, "source": figure.expected.source}
        output.say(render("commands.verify.expected", value=_published(figure), **facts))
    # Single repeats are printed only if each has a published figure.
    for figure in verification.figures:
        lines = []
        for r in figure.by_repeat:
            difference = number(r.difference, signed=True)
            lines.append([str(r.repeat), str(r.seed), number(r.published), number(r.ours), difference])
        if lines:
            columns = ["repeat", "seed", "published", "ours", "difference"]
            output.as_table(columns, lines, title=f"{figure.expected.path} by repeat")
    if verification.holds:
        yield render("commands.verify.holds")
    if changes:
        yield render("commands.verify.changed", changes=", ".join(changes))


def _published(figure: Compared) -> str:
    expected = figure.expected
    if expected.value is None:
        return f"at least {format_as_written(figure.published)}"
    return f"{format_as_written(expected.value)} ± {format_as_written(expected.tolerance)}"


@output.tables
def sweep_study(
    name: str = STUDY,
    grid: list[str] = GRID,
    changes: list[str] = SET,
    jobs: int | None = JOBS,
    as_json: bool = output.JSON,
) -> None:
    """Run each point of a grid, and name the best on validation rows; no holdout is read.

    The grid is the study's table `sweep` with each --grid, which has precedence for the same key.
    """
    study = study_of(name, changes)
    with stoppable():
        from flfed.experiments.sweep import points_of, sweep

        # The command line has precedence over the study's own grid.
        points = points_of(study, {**study.sweep, **parse_grid(grid)})
        if not as_json:
            facts = {"points": counted(len(points), "point"), "rounds": counted(study.rounds, "round")}
            typer.echo(render("commands.sweep.begin", study=study.name, **facts))
        with progress(quiet=as_json) as show_progress:
            sweep_outcome = sweep(study, points, progress=show_progress, jobs=jobs or ALL)
    output.show(_swept(sweep_outcome), as_json)
    if error := sweep_outcome.error():
        raise error


def _swept(outcome: Swept) -> output.Shown:
    shown = outcome.as_json()
    if outcome.best is not None:
        shown["best"] = {**shown["best"], "options": set_options(outcome.best.settings)}
    yield shown
    if not outcome.points:
        return
    keys = list(outcome.points[0].settings)
    headers = ["run", *keys, "validation loss", f"validation {outcome.primary}", "rounds", ""]
    rows = []
    for point in outcome.ranked():
        row = [point.run, *(str(point.settings[key]) for key in keys), number(point.loss)]
        rows.append([*row, number(point.primary), str(point.rounds), point.reason])
    spare = ("rounds", f"validation {outcome.primary}", "run")
    title = render("commands.sweep.title", study=outcome.study, points=counted(len(rows), "point"))
    output.as_table(headers, rows, title=title, spare=spare)
    if outcome.best is not None:
        output.say(f"Best: {set_options(outcome.best.settings)}")
    output.say(render("experiments.sweep.caution"))
