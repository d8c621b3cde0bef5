"""`flfed study`: list, show, check and run studies."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import typer

from flfed.cli import show
from flfed.cli.loading import loading
from flfed.errors import FlfedError, UsageError

if TYPE_CHECKING:
    from flfed.apps.recording import Progress
    from flfed.apps.running import Result

app = typer.Typer(no_args_is_help=True, help="List, show, check and run studies.")

NAME = typer.Argument(..., metavar="NAME|FILE", help="A shipped study's name, or a TOML file.")
SET = typer.Option([], "--set", metavar="KEY=VALUE", help="Set a key of the study: rounds=400, or plan.lr=0.1.")


@app.command("list", epilog="Example: flfed study list")
def list_studies(as_json: bool = show.JSON) -> None:
    """List the shipped studies, what a study may name (strategies, models, mechanisms), metrics and attacks."""
    from flfed import listing
    from flfed.study import Study, names

    studies = [Study.load(name) for name in names()]
    kinds = {"strategies": "strategy"} | {f"{kind}s": kind for kind in ("model", "metric", "mechanism", "attack")}
    if as_json:
        named = [{"study": s.name, "dataset": s.dataset.name, "purpose": s.purpose} for s in studies]
        show.as_json({"studies": named} | {word: listing.names(kind) for word, kind in kinds.items()})
    else:
        show.as_table(["study", "dataset", "purpose"], [[s.name, s.dataset.name, s.purpose] for s in studies])
    for word, kind in kinds.items():
        if not as_json:
            others = listing.others(kind)
            given = [f"{name} ({others[name]})" if name in others else name for name in listing.names(kind)]
            typer.echo(f"{word.capitalize()}: {', '.join(given)}")
        for clash in listing.clashes(kind):
            typer.echo(clash, err=True)


@app.command("show", epilog="Example: flfed study show preterm-birth")
def show_study(name: str = NAME) -> None:
    """Print a study's text, as it would travel to the sites."""
    from flfed.study import Study

    study = Study.load(name)
    typer.echo(study.text.rstrip())
    typer.echo(f"\n# SHA-256 {study.sha256()}")


@app.command("check", epilog="Example: flfed study check my-study.toml")
def check_study(name: str = NAME, changes: list[str] = SET, as_json: bool = show.JSON) -> None:
    """Check a study against everything it names, and say what it promises of privacy, without reading a table."""
    study = study_of(name, changes)
    from flfed.apps.checking import check, find_sites
    from flfed.apps.promised import promised

    facts = check(study)
    sites = [site.name for site in find_sites(study)]
    privacy = promised(study, len(sites))
    if as_json:
        show.as_json({"study": study.name, "sha256": study.sha256(), **facts, "sites": sites, "privacy": privacy})
        return
    typer.echo(f"{study.name}: can be run ({facts['task']}, judged by {facts['primary']}).")
    typer.echo(f"Sites: {', '.join(sites)}")
    show.promise(privacy)


@app.command("run", epilog="Example: flfed study run preterm-birth --repeats 10 --set rounds=20 --json")
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
    as_json: bool = show.JSON,
) -> None:
    """Run a study and print how every site did.

    Exit codes: 0 completed, 1 failed, 2 wrong use or wrong input, 3 stopped.
    """
    with loading():
        study = study_of(name, changes)
        from flfed.apps.running import run
    _shown(
        lambda told: run(
            study, engine=engine, repeats=repeats, sites=sites or None, stacked=not one_by_one, progress=told
        ),
        as_json,
    )


@app.command("resume", epilog="Example: flfed study resume latest")
def resume_study(
    run: str = typer.Argument("latest", metavar="RUN", help="A run's or series' id, or latest."),
    as_json: bool = show.JSON,
) -> None:
    """Go on with a run that died, stopped or failed, and with the repeats that are left.

    No round is lost or counted twice. Exit codes: as for study run.
    """
    with loading():
        from flfed.apps.running import resume
    _shown(lambda told: resume(run, progress=told), as_json)


def _shown(go: Callable[[Progress], Result], as_json: bool) -> None:
    """Run with progress shown, print what it found, and leave with 3 where it stopped."""
    try:
        with show.progress(quiet=as_json) as told:
            result = go(told)
    except FlfedError as error:
        if as_json and error.run:
            # Where the store itself has gone, the first error is what counts.
            with suppress(FlfedError):
                show.as_json(report_of(error.run))
        raise
    if as_json:
        show.as_json(result.report)
    else:
        print_report(result.report, short=True)
    if result.status == "stopped":
        raise typer.Exit(3)


def report_of(run: str) -> dict[str, Any]:
    """Return what the store has of a run."""
    from flfed.records.reading import RunReader
    from flfed.records.reports import report

    with RunReader.open() as reader:
        return report(reader, run)


def print_report(found: dict[str, Any], *, short: bool = False) -> None:
    """Print a run's comparison and its story, for people; `short` without the list of what nobody promised."""
    from flfed.records.curves import curve_rows
    from flfed.records.faults import fault_kind, sites_together
    from flfed.records.reading import RunReader
    from flfed.records.reports import purpose_of
    from flfed.records.story import comparison_rows

    with RunReader.open() as reader:
        events = reader.events([run.run for run in reader.runs_of(found["run"])])
        purpose = purpose_of(reader.series(found["run"]).study_text)
    if purpose:
        typer.echo(f"{found['study']}: {purpose}.")
    headers, rows, footer = comparison_rows(found)
    if rows:
        show.as_table(headers, rows, title=f"{found['study']} ({found['run']})")
    for line in [*footer, *_unfinished(found)]:
        typer.echo(line)
    if found["learning-curve"]:
        headers, rows, footer = curve_rows(found["learning-curve"])
        show.as_table(headers, rows, title="Learning curve: with few rows of its own, and with all")
        for line in footer:
            typer.echo(line)
    show.privacy(found, short=short)
    words = {"refused": "Refused", "fault": "Fault", "flag": "Odd", "leak": "Possible leak", "note": "Note"}
    words["update set aside"] = "Set aside"
    kinds = [fault_kind({"round": e.round, "reason": e.reason}) if e.kind == "fault" else e.kind for e in events]
    told = [(words[kind], event) for kind, event in zip(kinds, events, strict=True) if kind in words]
    for word, site, reason in sites_together({(word, event.site or "", event.reason): [] for word, event in told}):
        typer.echo(f"{word}: {site + ': ' if site else ''}{reason}")


def _unfinished(found: dict[str, Any]) -> list[str]:
    """Return what to know of a run that is not completed: what its figures are of, and how to go on with it."""
    if found["status"] == "completed":
        return []
    why = f" ({found['reason'].rstrip('.')})" if found["reason"] else ""
    lines = [f"Status: {found['status']}{why}; figures are of what was compared so far."] if found["global"] else []
    # A point of a sweep is not gone on with: the sweep is run again.
    if found["status"] != "running" and not found["study"].endswith("-sweep"):
        lines.append(f"Go on with it: flfed study resume {found['run']}")
    return lines


def study_of(name: str, changes: list[str]) -> Any:
    """Return the study with `--set` applied."""
    from flfed.study import Study

    study = Study.load(name)
    return study.replace(dict(_change(text) for text in changes)) if changes else study


def _change(text: str) -> tuple[str, Any]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise UsageError(f"--set {text}: write it as key=value, such as rounds=400")
    from flfed.study import toml_value

    return key.strip(), toml_value(value)
