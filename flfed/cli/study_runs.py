"""`flfed study run`, `resume`, `verify` and `sweep`: runs of a study, and what they found."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from flfed.callbacks import Progress
from flfed.cli import output, runs
from flfed.cli.catalogue import LATEST
from flfed.cli.progress import loading, progress, stoppable
from flfed.cli.study import NAME, SET, app, study_of
from flfed.errors import FlfedError, UsageError, counted, people_in_words

if TYPE_CHECKING:
    from flfed.experiments.fewer_rows import Without
    from flfed.experiments.sweep import Swept
    from flfed.experiments.verify import Compared, Verified
    from flfed.federation.server.run import Result

ABSENT = "–"
GRID = typer.Option(
    [], "--grid", metavar="KEY=V1,V2", help="Values to try of a key: plan.lr=0.01,0.1. May be given for several keys."
)


@app.command("run", epilog="Example: flfed study run preterm-birth --repeats 10 --set rounds=20 --json")
@output.tables
def run_study(
    name: str = NAME,
    engine: str = typer.Option(
        "inprocess", help="inprocess; ray (an extra); deployment: the sites that this coordinator admitted."
    ),
    changes: list[str] = SET,
    repeats: int = typer.Option(1, help="How often, with other seeds and, on public data, other holdouts."),
    sites: list[str] = typer.Option(
        [], "--site", metavar="NAME", help="Ask only these sites: names, or import paths such as package.module."
    ),
    one_by_one: bool = typer.Option(
        False, "--one-by-one", help="Compute for one site after the other: the same figures, several times slower."
    ),
    without: Path | None = typer.Option(
        None,
        metavar="FILE",
        help="Run it once more without the rows of the people in FILE (as excluded.csv), and say what moves.",
    ),
    curve: str | None = typer.Option(
        None,
        metavar="SITE",
        help="Run it with growing shares of SITE's training rows, and say what joining is worth to it with each.",
    ),
    as_json: bool = output.JSON,
) -> None:
    """Run a study and print how every site did.

    Exit codes: 0 completed, 1 failed, 2 wrong use or wrong input, 3 stopped.
    """
    if without is not None:
        if engine != "inprocess" or repeats != 1 or sites or one_by_one:
            raise UsageError("--without runs a study in process, once with all rows and once without: no other option")
        _run_without(name, changes, without, as_json)
        return
    if curve is not None:
        if engine != "inprocess" or sites or one_by_one:
            raise UsageError("--curve runs a study in process, several times: no option but --repeats")
        _run_curve(name, changes, curve, repeats, as_json)
        return
    options: dict[str, Any] = {"engine": engine, "repeats": repeats, "sites": sites or None, "stacked": not one_by_one}
    with stoppable():
        # Imported in the block: it loads torch, and takes most of a short command's time.
        with loading():
            study = study_of(name, changes)
            from flfed.federation.server.run import run
        result = _ran(lambda show_progress: run(study, progress=show_progress, **options), as_json)
    _show(result, as_json)


def _run_without(name: str, changes: list[str], people: Path, as_json: bool) -> None:
    """Run a study with and without some people's rows, and say how far model and figures move."""
    with stoppable():
        with loading():
            study = study_of(name, changes)
            from flfed.experiments.fewer_rows import run_without
            from flfed.rows.snapshots.opt_outs import Excluded
        with progress(quiet=as_json) as show_progress:
            comparison = run_without(study, Excluded.read(people), progress=show_progress)
    output.show(_without(comparison, study.name), as_json)


def _without(comparison: Without, study: str) -> output.Shown:
    from flfed.records.statistics.verdict import number

    shown = comparison.as_object()
    yield shown
    output.say(
        f"Without {counted(comparison.rows, 'row')} of {people_in_words(comparison.people)}: "
        f"the model's numbers move by at most {comparison.largest:.3g} "
        f"(root mean square {comparison.root_mean_square:.3g})."
    )
    lines = [[metric, number(all_), number(left)] for metric, (all_, left) in comparison.figures.items()]
    output.as_table(["over all test rows", "all rows", "without them"], lines, study)
    output.say(
        f"Runs: {shown['run']} and {shown['run-without']}. Test rows of these people are left out, "
        "too. One person's leaving must not show to others: of open data alone is it told."
    )


def _run_curve(name: str, changes: list[str], site: str, repeats: int, as_json: bool) -> None:
    """Run a study with growing shares of a site's training rows, and say what joining is worth to it."""
    with stoppable():
        with loading():
            study = study_of(name, changes)
            from flfed.experiments.fewer_rows import run_curve
            from flfed.records.statistics.verdict import describe_verdict, number
        with progress(quiet=as_json) as show_progress:
            points = run_curve(study, site, repeats=repeats, progress=show_progress)
    if as_json:
        output.print_json({"study": study.name, "site": site, "points": [point.as_object() for point in points]})
        return
    lines = []
    for point in points:
        rows = ABSENT if point.rows is None else str(point.rows)
        figures = [number(point.gain[end], signed=True) for end in ("value", "low", "high")]
        verdict = describe_verdict(point.gain["verdict"], point.metric)
        lines.append([f"{point.share:.0%}", rows, *figures, verdict, point.run])
    headers = ["share", "training rows", "gain (+ is better)", "low", "high", "verdict", "run"]
    output.as_table(headers, lines, title=f"{study.name}: what joining is worth to {site}", spare=("share", "run"))


@app.command("resume", epilog="Example: flfed study resume latest")
@output.tables
def resume_study(run: str = LATEST, as_json: bool = output.JSON) -> None:
    """Go on with a run that died, stopped or failed, and with the repeats that are left.

    No round is lost or counted twice. Exit codes: as for study run.
    """
    with stoppable():
        with loading():
            from flfed.federation.server.run import resume
        result = _ran(lambda show_progress: resume(run, progress=show_progress), as_json)
    _show(result, as_json)


def _ran(go: Callable[[Progress], Result], as_json: bool) -> Result:
    """Run with progress shown and return the result."""
    try:
        with progress(quiet=as_json) as show_progress:
            return go(show_progress)
    # A run that failed is in the store, and --json gives what it has.
    except FlfedError as error:
        if as_json and error.run:
            # Where the store itself has gone, the first error is what counts.
            with suppress(FlfedError):
                output.print_json(runs.object_of(error.run))
        raise


def _show(result: Result, as_json: bool) -> None:
    """Print what a run found, and leave with 3 where it stopped."""
    if as_json:
        output.print_json(runs.object_of(result.run))
    else:
        runs.print_report(result.report)
    # Stopped is neither success nor failure, so that a script can tell it apart.
    if result.status == "stopped":
        raise typer.Exit(3)


@output.tables
def verify_study(
    name: str = NAME,
    engine: str = typer.Option("inprocess", help="As for study run."),
    changes: list[str] = SET,
    as_json: bool = output.JSON,
) -> None:
    """Run a study as often as it says and hold it to the figures it expects.

    Exit codes: 0 all figures hold, 1 one does not or the run failed, 2 wrong use or wrong input, 3 stopped.
    """
    study = study_of(name, changes)
    with stoppable():
        from flfed.experiments.verify import verify

        with progress(quiet=as_json) as show_progress:
            verification = verify(study, engine=engine, progress=show_progress)
    output.show(_verified(verification), as_json)
    # All figures are printed before the error ends the command.
    if error := verification.error():
        raise error


def _verified(verification: Verified) -> output.Shown:
    from flfed.records.statistics.verdict import number

    yield verification.as_json()
    rows = []
    for figure in verification.figures:
        ours = number(figure.ours, figure.decimals)
        if figure.sd is not None:
            ours += f", sd {number(figure.sd, figure.decimals)}"
        verdict = "holds" if figure.holds else "does not hold"
        difference = number(figure.difference, figure.decimals, signed=True)
        rows.append([figure.expected.path, _published(figure), ours, difference, verdict])
    over = f"{verification.repeats} repeats" if verification.repeats > 1 else "1 run"
    title = f"{verification.study}: expected and ours, {over} ({verification.run})"
    headers = ["figure", "expected", "ours (mean, sd)", "difference", "verdict"]
    output.as_table(headers, rows, title=title, spare=("difference", "expected"))
    for figure in verification.figures:
        output.say(f"{figure.expected.path}: {_published(figure)} is expected, after: {figure.expected.source}.")
    # Single repeats are shown only where each has a published figure.
    for figure in verification.figures:
        lines = []
        for r in figure.by_repeat:
            difference = number(r.difference, signed=True)
            lines.append([str(r.repeat), str(r.seed), number(r.published), number(r.ours), difference])
        if lines:
            columns = ["repeat", "seed", "published", "ours", "difference"]
            output.as_table(columns, lines, title=f"{figure.expected.path}, one by one")
    if verification.holds:
        yield "Every expected figure holds."


def _published(figure: Compared) -> str:
    expected = figure.expected
    return (
        f"at least {expected.minimum:g}" if expected.value is None else f"{expected.value:g} ± {expected.tolerance:g}"
    )


@output.tables
def sweep_study(
    name: str = NAME, grid: list[str] = GRID, changes: list[str] = SET, as_json: bool = output.JSON
) -> None:
    """Try every point of a grid, and name the best on validation rows; no holdout is read.

    The grid is the study's table `sweep` and every --grid; where both name a key, --grid counts.
    """
    study = study_of(name, changes)
    with stoppable():
        from flfed.experiments.sweep import parse_grid, points_of, sweep

        # What is given on the command line goes before the study's own grid.
        points = points_of(study, {**study.sweep, **parse_grid(grid)})
        if not as_json:
            many = "1 point" if len(points) == 1 else f"{len(points)} points"
            typer.echo(f"{study.name}: {many} to try, {study.rounds} rounds each unless the grid says otherwise.")
        with progress(quiet=as_json) as show_progress:
            sweep_outcome = sweep(study, points, progress=show_progress)
    output.show(_swept(sweep_outcome), as_json)
    if error := sweep_outcome.error():
        raise error


def _swept(outcome: Swept) -> output.Shown:
    from flfed.records.statistics.verdict import number

    yield outcome.as_json()
    if not outcome.points:
        return
    keys = list(outcome.points[0].settings)
    headers = ["run", *keys, "validation loss", f"validation {outcome.primary}", "rounds", ""]
    rows = []
    for point in outcome.ranked():
        values = [str(point.settings[key]) for key in keys]
        figures = [number(point.loss), number(point.primary), str(point.rounds), point.reason]
        rows.append([point.run, *values, *figures])
    spare = ("rounds", f"validation {outcome.primary}", "run")
    output.as_table(headers, rows, title=f"{outcome.study}: {len(rows)} points, best first", spare=spare)
    if outcome.best is not None:
        output.say(f"Best: {outcome.best.as_options()}")
    output.say(outcome.caution)
