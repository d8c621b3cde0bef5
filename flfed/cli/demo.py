"""`flfed demo`: two studies on real data that comes with flfed."""

from __future__ import annotations

import typer

from flfed.cli.loading import loading

STUDIES = ("preterm-birth", "loan-default")


def demo() -> None:
    """Run two studies on real embedded data: four clinics, and four lenders."""
    with loading():
        from flfed.apps.running import run
    from flfed.cli import show
    from flfed.cli.study import print_report
    from flfed.study import Study

    for name in STUDIES:
        study = Study.load(name)
        typer.echo(f"\nRunning the study {study.name} ...", err=True)
        with show.progress() as told:
            result = run(study, progress=told)
        print_report(result.report)
    typer.echo("\nTo see both in the app: flfed app   (or, in a checkout: make app)")
    typer.echo("To run one yourself: flfed study run preterm-birth --repeats 10")
