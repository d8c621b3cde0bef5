"""`flfed study`: list, show, check, run, verify and sweep studies."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from flfed.callbacks import Progress
from flfed.cli import completion, output, run_text
from flfed.cli.catalogue import LATEST
from flfed.cli.data import TO
from flfed.cli.progress import loading, progress, stoppable
from flfed.cli.study_text import analysis_in_words, can_be_run, sums_in_words, trees_in_words
from flfed.errors import FlfedError, UsageError, counted, people_in_words

if TYPE_CHECKING:
    from flfed.experiments.sweep import Swept
    from flfed.experiments.verify import Compared, Verified
    from flfed.federation.server.run import Result

app = typer.Typer(no_args_is_help=True, help="List, show, check and run studies.")

NAME = typer.Argument(
    ..., metavar="NAME|FILE", help="A shipped study's name, or a TOML file.", autocompletion=completion.studies
)
SET = typer.Option([], "--set", metavar="KEY=VALUE", help="Set a key of the study: rounds=400, or plan.lr=0.1.")


@app.command("list", epilog="Example: flfed study list")
@output.tables
def list_studies(as_json: bool = output.JSON) -> None:
    """List the shipped studies, and all that a study may name, from strategies to statistics, metrics and attacks."""
    from flfed import registry
    from flfed.study.study import Study, names

    studies = [Study.load(name) for name in names()]
    regular = ("model", "metric", "mechanism", "codec", "attack")
    kinds = {"strategies": "strategy"} | {f"{kind}s": kind for kind in regular} | {"statistics": "statistic"}
    # A program gets the names alone, and people also where each comes from.
    if as_json:
        named = [{"study": s.name, "dataset": s.dataset.name, "purpose": s.purpose} for s in studies]
        output.as_json({"studies": named} | {word: registry.names(kind) for word, kind in kinds.items()})
    else:
        rows = [[s.name, s.dataset.name, s.purpose] for s in studies]
        output.as_table(["study", "dataset", "purpose"], rows, spare=("dataset",), cut="purpose")
    for word, kind in kinds.items():
        if not as_json:
            others = registry.others(kind)
            given = [f"{name} ({others[name]})" if name in others else name for name in registry.names(kind)]
            output.say(f"{word.capitalize()}: {', '.join(given)}")
        for clash in registry.clashes(kind):
            typer.echo(clash, err=True)


@app.command("show", epilog="Example: flfed study show preterm-birth")
def show_study(name: str = NAME) -> None:
    """Print a study's text, as it would travel to the sites."""
    from flfed.study.study import Study

    study = Study.load(name)
    typer.echo(study.text.rstrip())
    typer.echo(f"\n# SHA-256 {study.sha256()}")
    for line in analysis_in_words(study):
        typer.echo(f"# {line}")


@app.command("new", epilog="Example: flfed study new --dataset heart-disease --model logistic --name my-study")
def new_study(
    dataset: str = typer.Option("", help="Which dataset; asked for where it is left out."),
    model: str = typer.Option("", help="logistic, linear, mlp or boosted-trees; asked for where it is left out."),
    private: bool | None = typer.Option(
        None, "--private/--not-private", help="Protect each row by differential privacy; asked for where left out."
    ),
    covers: str = typer.Option("updates", help="What epsilon is of: updates, or study for all that leaves a site."),
    analysis: bool = typer.Option(False, "--analysis", help="Counts and means under one epsilon, in place of a model."),
    name: str = typer.Option("", help="Name of the study; default: the dataset's with -study, or -table."),
    purpose: str = typer.Option("", help="What it is for; everybody who approves it reads this."),
    to: Path = TO,
) -> None:
    """Write a new study, with a comment for each choice."""
    from flfed.federation.server.preflight import check
    from flfed.rows.data import datasets, site_discovery
    from flfed.rows.proposals.texts import write_new
    from flfed.rows.statistics.private.analysis import COUNTED
    from flfed.study.study import Study
    from flfed.study.template import COUNTS, MODELS, StudyTemplate

    dataset = dataset or _asked("--dataset", "Dataset", datasets.names(), "")
    schema = datasets.load(dataset).schema
    if not analysis:
        model = model or _asked("--model", "Model", [MODELS[schema.task], "mlp", "boosted-trees"], MODELS[schema.task])
        if private is None and covers != "study":
            private = _asked("--private or --not-private", "Privacy of rows", ["yes", "no"], "no") == "yes"
    known = [name for name, of in schema.columns.items() if of.kind in COUNTED and name not in schema.unconfirmed]
    named = name or f"{dataset}-{'table' if analysis else 'study'}"
    purpose = purpose or (COUNTS if analysis else StudyTemplate.purpose)
    # Only open sites have their validation rows back; research sites, cut from one table, are open.
    opened = all(site.policy.disclosure == "open" for site in site_discovery.of_dataset(dataset))
    template = StudyTemplate(
        name=named, dataset=dataset, purpose=purpose, model=model, task=schema.task, private=bool(private),
        covers=covers, columns=known if analysis else (), sums=True, refit=opened,
    )  # fmt: skip
    # What cannot be run is refused before it is written.
    check(Study.parse(text := template.text()))
    path = write_new(to, {f"{named}.toml": text})[0]
    typer.echo(f"Written: {path}. Look at purpose and legal-basis in it. Next: flfed study run {path}")


def _asked(option: str, question: str, known: list[str], default: str) -> str:
    """Ask a person at a terminal; a program is told which option is missing."""
    if not sys.stdin.isatty():
        raise UsageError(f"give {option}; known: {', '.join(known)}")
    return str(typer.prompt(f"{question} ({', '.join(known)})", default=default or None))


@app.command("check", epilog="Example: flfed study check my-study.toml")
def check_study(
    name: str = NAME, changes: list[str] = SET, whole: bool = output.ALL, as_json: bool = output.JSON
) -> None:
    """Check a study against everything it names, and say what it promises of privacy, without reading a table."""
    study = study_of(name, changes)
    from flfed.deployment.operator.run_size import bytes_in_words, bytes_of_runs
    from flfed.federation.engines.local_sites import find_sites
    from flfed.federation.recording.privacy_recorder import promised
    from flfed.federation.recording.source_model import source_in_words
    from flfed.federation.server.preflight import check
    from flfed.records.reports.privacy import without_model
    from flfed.rows.data import datasets
    from flfed.study.exchanges import exchanges_of_run, grows

    facts = check(study)
    found = find_sites(study)
    sites = [site.name for site in found]
    asked = {"statistic": study.statistic.name != "none", "analysis": study.analysis is not None}
    privacy = promised(study, len(sites)) | without_model(**asked)
    sizes = bytes_of_runs(study, datasets.load(study.dataset.name).schema, found)
    began = source_in_words(study)
    exchanges = {"exchanges": exchanges_of_run(study)} if grows(study) else {}
    if as_json:
        known = {
            "study": study.name,
            "sha256": study.sha256(),
            **facts,
            "sites": sites,
            "privacy": privacy,
            **exchanges,
        }
        output.as_json(known | {"bytes": sizes} | ({"warm-start": began[1]} if began else {}))
        return
    for line in can_be_run(study, facts):
        output.say(line)
    from flfed.records.reports.faults import some

    if began:
        output.say(began[0])
    listed = ", ".join(sites) if whole else some(sites)
    typer.echo(f"Sites: {listed}" + ("" if listed.count(",") + 1 >= len(sites) else " (--all names them)"))
    # Sites of one policy need the same, but for the length of their names.
    by_words: dict[str, list[str]] = {}
    for site, size in sizes.items():
        by_words.setdefault(bytes_in_words(size), []).append(site)
    for said, alike in by_words.items():
        whose = "Each site" if len(by_words) == 1 else ", ".join(alike) if whole else some(alike)
        output.say(f"{whose}: {said}.")
    if grows(study):
        output.say(trees_in_words(study))
    for line in sums_in_words(study):
        output.say(line)
    output.promise(privacy)


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
        result = _ran(lambda told: run(study, progress=told, **options), as_json)
    _show(result, as_json)


def _run_without(name: str, changes: list[str], people: Path, as_json: bool) -> None:
    """Run a study with and without some people's rows, and say how far model and figures move."""
    with stoppable():
        with loading():
            study = study_of(name, changes)
            from flfed.experiments.without import run_without
            from flfed.rows.snapshots.opt_outs import Excluded
        with progress(quiet=as_json) as told:
            found = run_without(study, Excluded.read(people), progress=told)
    if as_json:
        output.as_json(found.as_object())
        return
    output.say(
        f"Without {counted(found.rows, 'row')} of {people_in_words(found.people)}: the model's numbers move by at "
        f"most {found.largest:.3g} (root mean square {found.root_mean_square:.3g})."
    )
    lines = [[metric, f"{all_:.4f}", f"{left:.4f}"] for metric, (all_, left) in found.figures.items()]
    output.as_table(["over all test rows", "all rows", "without them"], lines, f"{study.name}")
    output.say(
        f"Runs: {found.whole.report['run']} and {found.left.report['run']}. Test rows of these people are left out, "
        "too. One person's leaving must not show to others: of open data alone is it told."
    )


def _run_curve(name: str, changes: list[str], site: str, repeats: int, as_json: bool) -> None:
    """Run a study with growing shares of a site's training rows, and say what joining is worth to it."""
    with stoppable():
        with loading():
            study = study_of(name, changes)
            from flfed.experiments.learning_curve import run_curve
        with progress(quiet=as_json) as told:
            points = run_curve(study, site, repeats=repeats, progress=told)
    if as_json:
        output.as_json({"study": study.name, "site": site, "points": [point.as_object() for point in points]})
        return
    lines = [
        [f"{point.share:.0%}", ABSENT if point.rows is None else str(point.rows), _signed(point.gain["value"]),
         _signed(point.gain["low"]), _signed(point.gain["high"]), point.gain["verdict"], point.run]
        for point in points
    ]  # fmt: skip
    headers = ["share", "training rows", "gain (+ is better)", "low", "high", "verdict", "run"]
    output.as_table(headers, lines, title=f"{study.name}: what joining is worth to {site}", spare=("share", "run"))


@app.command("resume", epilog="Example: flfed study resume latest")
@output.tables
def resume_study(
    run: str = LATEST,
    as_json: bool = output.JSON,
) -> None:
    """Go on with a run that died, stopped or failed, and with the repeats that are left.

    No round is lost or counted twice. Exit codes: as for study run.
    """
    with stoppable():
        with loading():
            from flfed.federation.server.run import resume
        result = _ran(lambda told: resume(run, progress=told), as_json)
    _show(result, as_json)


def _ran(go: Callable[[Progress], Result], as_json: bool) -> Result:
    """Run with progress shown and return the result."""
    try:
        with progress(quiet=as_json) as told:
            return go(told)
    # A run that failed is in the store, and --json gives what it has.
    except FlfedError as error:
        if as_json and error.run:
            # Where the store itself has gone, the first error is what counts.
            with suppress(FlfedError):
                output.as_json(run_text.object_of(error.run))
        raise


def _show(result: Result, as_json: bool) -> None:
    """Print what a run found, and leave with 3 where it stopped."""
    if as_json:
        output.as_json(run_text.object_of(result.run))
    else:
        run_text.print_report(result.report)
    # Stopped is neither success nor failure, so that a script can tell it apart.
    if result.status == "stopped":
        raise typer.Exit(3)


def study_of(name: str, changes: list[str]) -> Any:
    """Return the study with `--set` applied."""
    from flfed.study.study import Study

    study = Study.load(name)
    return study.replace(dict(_change(text) for text in changes)) if changes else study


def _change(text: str) -> tuple[str, Any]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise UsageError(f"--set {text}: write it as key=value, such as rounds=400")
    from flfed.study.settings import toml_value

    return key.strip(), toml_value(value)


ABSENT = "–"
GRID = typer.Option(
    [], "--grid", metavar="KEY=V1,V2", help="Values to try of a key: plan.lr=0.01,0.1. May be given for several keys."
)


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

        with progress(quiet=as_json) as told:
            found = verify(study, engine=engine, progress=told)
    output.either(as_json, found.as_json(), lambda: _print_verified(found))
    # All figures are printed before the error ends the command.
    if error := found.error():
        raise error


def _print_verified(found: Verified) -> None:
    headers = ["figure", "expected", "ours (mean, sd)", "difference", "verdict"]
    rows = [[f.expected.path, _published(f), _ours(f), _signed(f.difference), _verdict(f)] for f in found.figures]
    over = f"{found.repeats} repeats" if found.repeats > 1 else "1 run"
    title = f"{found.study}: expected and ours, {over} ({found.run})"
    output.as_table(headers, rows, title=title, spare=("difference", "expected"))
    for figure in found.figures:
        output.say(f"{figure.expected.path}: {_published(figure)} is expected, after: {figure.expected.source}.")
    # Single repeats are shown only where each has a published figure.
    for figure in found.figures:
        if figure.by_repeat:
            lines = [
                [str(r.repeat), str(r.seed), _number(r.published), _number(r.ours), _signed(r.difference)]
                for r in figure.by_repeat
            ]
            columns = ["repeat", "seed", "published", "ours", "difference"]
            output.as_table(columns, lines, title=f"{figure.expected.path}, one by one")
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
        with progress(quiet=as_json) as told:
            found = sweep(study, points, progress=told)
    output.either(as_json, found.as_json(), lambda: _print_swept(found))
    if error := found.error():
        raise error


def _print_swept(found: Swept) -> None:
    if not found.points:
        return
    keys = list(found.points[0].settings)
    headers = ["run", *keys, "validation loss", f"validation {found.primary}", "rounds", ""]
    rows = [
        [p.run, *(str(p.settings[key]) for key in keys), _number(p.loss), _number(p.primary), str(p.rounds), p.reason]
        for p in found.ranked()
    ]
    spare = ("rounds", f"validation {found.primary}", "run")
    output.as_table(headers, rows, title=f"{found.study}: {len(rows)} points, best first", spare=spare)
    if found.best is not None:
        output.say(f"Best: {found.best.as_options()}")
    output.say(found.caution)
