"""`flfed site model`, `models` and `compare`: what a site has of the models that it took part in."""

from __future__ import annotations

from pathlib import Path

import typer

from flfed.cli import completion, output
from flfed.errors import counted, people_in_words


def take_model(
    name: str = typer.Argument(..., help="A site's name.", autocompletion=completion.sites),
    run: str = typer.Argument(..., help="A run that the site took part in."),
    to: Path = typer.Option(..., help="A new or empty folder."),
    repeat: int = typer.Option(0, min=0, help="Of a series of repeats, which."),
    as_json: bool = output.JSON,
) -> None:
    """Write the model of a run that the coordinator lacks, or lacks a part of, into a folder, for `flfed predict`."""
    from flfed.export.run_folder import export_at_site
    from flfed.folders import SiteFolder

    done = export_at_site(SiteFolder(name).site, run, repeat, to)
    if as_json:
        output.as_json(done.as_object())
        return
    typer.echo(f"{done.folder}: {', '.join(done.files)}")
    typer.echo(f"Use it: flfed predict {done.folder} TABLE")


@output.tables
def list_models(
    name: str = typer.Argument(..., help="A site's name.", autocompletion=completion.sites),
    people: Path = typer.Option(
        ..., "--people", metavar="FILE", help="A private file as excluded.csv: a column's name, an identifier a line."
    ),
    as_json: bool = output.JSON,
) -> None:
    """List the runs that had these people's rows in them, by the keyed hashes that the site keeps.

    Nothing of it leaves the site, and no identifier is written down.
    """
    from flfed.federation.client.released.sets import lineage, unlisted
    from flfed.rows.data import site_discovery as sites
    from flfed.rows.snapshots.opt_outs import Excluded

    wanted = Excluded.read(people)
    site = sites.load(name)
    found, others = lineage(site, wanted), unlisted(site)
    if as_json:
        head = {"site": name, "people": len(wanted.identifiers), "runs": [one.as_object() for one in found]}
        output.as_json(head | {"unlisted": [{"run": run, "study": study} for run, study in others.items()]})
        return
    lines = [
        [one.run, str(one.repeat), one.study, ", ".join(f"{part}: {count}" for part, count in one.parts.items())]
        for one in found
    ]
    output.as_table(["run", "repeat", "study", "people in its rows"], lines, f"{name}: runs with these people's rows")
    typer.echo(
        f"{counted(len({one.run for one in found}), 'run')} had rows of {people_in_words(len(wanted.identifiers))} "
        "on the list. To leave people out from now on: excluded.csv, flfed site refresh, and a new approval."
    )
    if others:
        named = ", ".join(f"{run} ({study})" for run, study in others.items())
        typer.echo(
            f"No list of people is kept of {counted(len(others), 'run')} of which all that left was charged to an "
            f"epsilon, as whoever was in the table then took part: {named}."
        )


@output.tables
def compare_model(
    name: str = typer.Argument(..., help="A site's name.", autocompletion=completion.sites),
    run: str = typer.Argument(..., help="A run that the site took part in."),
    repeat: int = typer.Option(0, min=0, help="Of a series of repeats, which."),
    as_json: bool = output.JSON,
) -> None:
    """Hold a run's last model against the site's own model, without noise, on the site's test rows.

    It is for runs of which no exact figure leaves. Nothing of it leaves either, and nothing is charged.
    """
    from flfed.deployment.operator.exact_comparison import ARMS, exact_comparison
    from flfed.folders import SiteFolder
    from flfed.records.statistics.own_models import family_in_words
    from flfed.records.statistics.verdict import ARM_NAMES, interval, metric_name, number, sentence_case
    from flfed.rows.data import site_discovery as sites

    done = exact_comparison(SiteFolder(name), sites.load(name), run, repeat)
    if as_json:
        output.as_json(done.as_json())
        return
    found = done.found
    lines = [
        [metric_name(metric), *(f"{number(of[arm].value)} ({interval(of[arm].low, of[arm].high)})" for arm in ARMS)]
        for metric, of in found.arms.items()
    ]
    headers = ["with 95 % CI", *(ARM_NAMES[arm] for arm in ARMS)]
    output.as_table(headers, lines, f"{done.study.name} ({done.run}) at {name}: {found.holdout_rows} test rows")
    first = next(iter(found.arms))
    code, sentence = done.verdict(first)
    typer.echo(f"{sentence_case(code)}. {sentence}")
    family = family_in_words({found.own_family or "same": 1}, 1)
    typer.echo(
        f"The site's own model{f' ({family})' if family else ''} was trained here on {found.training_rows} rows "
        "without noise, and so is the adjusted one. These figures are exact: who is told them learns of single rows "
        "what no epsilon bounds."
    )
    typer.echo(
        f"The rows are those frozen at {done.frozen}. If that was after the run, rows may have changed sides since, "
        "and the run's model may have been trained on some of these test rows: its figures are too good then."
    )
