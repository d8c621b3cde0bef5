"""`flfed predict`: what an exported model says of the rows of a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from flfed.cli import output
from flfed.errors import UsageError

if TYPE_CHECKING:
    from flfed.export.predict import Predictions


def predict(
    model: Path = typer.Argument(..., help="A folder that `flfed run export` made."),
    table: Path | None = typer.Argument(None, help="CSV or Parquet, in the columns of the model's schema."),
    site: str = typer.Option("", metavar="NAME", help="Instead of a table: a site's own rows, with its own mapping."),
    out: Path | None = typer.Option(None, help="Write the predictions into this new file (mode 600)."),
    signed_by: str = typer.Option(
        "", metavar="FILE|FINGERPRINT", help="Only a model signed by this coordinator: its kit, or its key's SHA256:..."
    ),
    as_json: bool = output.JSON,
) -> None:
    """Predict each row of a table with a run's model; a table that breaks the schema is refused.

    Prints CSV: the row's number from 1, and its probability, probabilities, or prediction. Where
    the table has the outcome, metrics on it are shown as well. Says whose signature the model bears.
    """
    if (table is None) == (not site):
        raise UsageError("give a table or --site NAME: one of them, and not both")
    # Imported late, so that a wrong call is refused at once.
    from flfed.deployment.model_signer import whose
    from flfed.export.model_folder import SharedModel
    from flfed.export.predict import predict_site, predict_table
    from flfed.paths import write_private

    shared = SharedModel.read(model)
    signed = whose(shared.signature, signed_by)
    found = predict_table(shared, table) if table is not None else predict_site(shared, site)
    # The file is written before anything is printed: its errors end the command.
    if out is not None:
        write_private(out, found.as_csv(), advice="choose another file with --out")
    if as_json:
        head = {"model": str(model), "run": shared.run, "of": found.of, "rows": len(found.values)} | signed.as_object()
        kept = {"predictions": found.rows()} if out is None else {"out": str(out)}
        metrics = {"metrics": found.figures or None, "metric-rows": found.known, "notes": list(found.notes)}
        output.as_json({**head, **metrics, **kept})
        return
    if out is None:
        typer.echo(found.as_csv(), nl=False)
    else:
        typer.echo(f"{len(found.values)} predictions of {found.of} are in {out}; keep it where the table is.")
    # Standard output has the predictions alone, so that they can be piped.
    typer.echo(signed.sentence, err=out is None)
    _print_figures(found, to_stderr=out is None)


def _print_figures(found: Predictions, *, to_stderr: bool) -> None:
    """Print notes and metrics; on standard error where standard output holds the predictions."""
    for note in found.notes:
        typer.echo(note, err=to_stderr)
    for name, figure in found.figures.items():
        if figure["value"] is None:
            said = f"not defined: {figure['method']}"
        elif figure["low"] is None:
            said = f"{figure['value']:.4f} (no interval: {figure['method']})"
        else:
            said = f"{figure['value']:.4f} ({figure['low']:.4f} to {figure['high']:.4f})"
        typer.echo(f"  {name}: {said}", err=to_stderr)
