"""`flfed predict`, `monitor` and `audit`: use of a run's model, its fit to new rows, and attacks on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from flfed.callbacks import loading
from flfed.cli import arguments, output
from flfed.cli.arguments import JOBS
from flfed.cli.progress import progress, stoppable
from flfed.errors import TableError, UsageError
from flfed.paths import write_private
from flfed.records.statistics.verdict import ABSENT, number
from flfed.tasks import ALL
from flfed.words import counted, render, usage_error

if TYPE_CHECKING:
    from flfed.deployment.model_signer import Whose
    from flfed.export.model_folder import SharedModel
    from flfed.export.party_model import PartyScores
    from flfed.export.predictions import Predictions

MODEL = typer.Argument(..., help="Exported model folder.")
TABLE = typer.Argument(None, help="CSV, Parquet or Excel with the columns of the model's schema.")
SITE = typer.Option("", metavar="NAME", help="Site whose own table and mapping are used instead.")
SIGNED_BY = typer.Option(
    "",
    "--signed-by",
    metavar="FILE|FINGERPRINT",
    help="Require this coordinator's signature: its kit, or its key's SHA256:...",
)


def predict(
    model: Path = MODEL,
    table: Path | None = TABLE,
    site: str = SITE,
    out: Path | None = typer.Option(None, "--output", help="New file for the predictions (mode 600)."),
    explain: Path | None = typer.Option(
        None,
        metavar="FILE",
        help="New CSV file for the contribution of each column to each row (trees, linear and logistic models).",
    ),
    partial: Path | None = typer.Option(
        None, metavar="FILE", help="New file for the scores of a party's part, by identifier (mode 600)."
    ),
    others: list[Path] = typer.Option(
        [],
        "--with",
        metavar="FILE",
        help="Scores of another party's part, for the predictions of the one with the outcome.",
    ),
    signed_by: str = SIGNED_BY,
    as_json: bool = output.JSON,
) -> None:
    """Predict each row of a table with a run's model; a table that breaks the schema is refused.

    Prints CSV: the number of the row, from 1, and its probability, probabilities or prediction. If the table has the
    outcome, metrics and calibration are printed as well. In any case the signer of the model is printed.
    """
    if partial is not None or others:
        _predict_of_parties(model, (table, site), partial, others, (out, explain), as_json=as_json)
        return
    shared, signed, predictions = _predicted(model, table, site, signed_by)
    # Imported late, so that wrong usage is refused at once.
    from flfed.export.predictions import explain_predictions

    # The file is written before anything is printed: its errors end the command.
    reasons = None
    if explain is not None:
        reasons = explain_predictions(shared, predictions)
        write_private(explain, reasons.as_csv(), advice="choose another file with --explain")
    if out is not None:
        write_private(out, predictions.as_csv(), advice="choose another file with --output")
    if as_json:
        shown = {"model": str(model), "run": shared.run, "of": predictions.of, "rows": len(predictions.values)}
        shown |= signed.as_object()
        shown |= {**predictions.measured(), "notes": list(predictions.notes)}
        if out is None:
            shown["predictions"] = predictions.rows()
        else:
            shown["out"] = str(out)
        if reasons is not None:
            shown["explanations"] = {"out": str(explain), "unit": reasons.unit, "columns": list(reasons.headers)}
        output.print_json(shown)
        return
    if out is None:
        typer.echo(predictions.as_csv(), nl=False)
    else:
        count = counted(len(predictions.values), "prediction")
        typer.echo(render("commands.predict.written", count=count, target=predictions.of, file=out))
    if reasons is not None:
        typer.echo(render("commands.predict.explained", unit=reasons.unit, file=explain), err=out is None)
    # Standard output has only the predictions, so that they can be piped.
    typer.echo(signed.sentence, err=out is None)
    for line in (*predictions.notes, *predictions.describe_figures(), *predictions.describe_calibration()):
        typer.echo(line, err=out is None)


def _predict_of_parties(
    model: Path,
    rows: tuple[Path | None, str],
    partial: Path | None,
    others: list[Path],
    files: tuple[Path | None, Path | None],
    *,
    as_json: bool,
) -> None:
    """Write the scores of a party's part, or the predictions that scores of other parties complete."""
    out, explain = files
    if explain is not None or (partial is not None and (others or out is not None)):
        raise UsageError("--partial goes with a table alone, and --with without --explain")
    _check_one_table(*rows)
    from flfed.export.model_folder import SharedModel
    from flfed.export.party_model import party_scores

    part = SharedModel.read(model)
    own = party_scores(part, *rows)
    if partial is None:
        _print_joined(part, own, others, out, as_json=as_json)
        return
    write_private(partial, own.as_csv(), advice="choose another file with --partial")
    if as_json:
        output.print_json({"run": part.run, "rows": len(own.identifiers), "out": str(partial)})
        return
    typer.echo(render("commands.predict.partial", count=counted(len(own.identifiers), "score"), file=partial))


def _print_joined(part: SharedModel, own: PartyScores, others: list[Path], out: Path | None, *, as_json: bool) -> None:
    """Print the predictions for the people whom all parties have, or write them into a file."""
    from flfed.export.party_model import PartyScores, joined_predictions

    joined = joined_predictions(part, own, [PartyScores.read(path) for path in others])
    if out is not None:
        write_private(out, joined.as_csv(), advice="choose another file with --output")
    count = len(joined.identifiers)
    if as_json:
        shown: dict[str, Any] = {"run": part.run, "rows": count}
        shown |= {"only-here": joined.only_here, "only-there": joined.only_there}
        if out is None:
            shown["predictions"] = dict(zip(joined.identifiers, joined.values.tolist(), strict=True))
        output.print_json(shown)
        return
    if out is None:
        typer.echo(joined.as_csv(), nl=False)
    typer.echo(render("commands.predict.joined", rows=count, **vars(joined)), err=out is None)


def _check_one_table(table: Path | None, site: str) -> None:
    if (table is None) == (not site):
        raise UsageError("give either a table or --site NAME")


def _predicted(model: Path, table: Path | None, site: str, signed_by: str) -> tuple[SharedModel, Whose, Predictions]:
    """Return a model, its signer, and its predictions for a table or a site's rows."""
    _check_one_table(table, site)
    from flfed.deployment.model_signer import whose
    from flfed.export.model_folder import SharedModel
    from flfed.export.predict import predict_site, predict_table

    shared = SharedModel.read(model)
    signed = whose(shared.signature, signed_by)
    if table is None:
        return shared, signed, predict_site(shared, site)
    try:
        return shared, signed, predict_table(shared, table)
    except TableError as error:
        raise usage_error("commands.predict.site", error=error) from None


@output.tables
def monitor(
    model: Path = MODEL,
    table: Path | None = TABLE,
    site: str = SITE,
    signed_by: str = SIGNED_BY,
    as_json: bool = output.JSON,
) -> None:
    """Print population stability indices: how far a table has moved from the training rows. Nothing leaves here."""
    shared, signed, predictions = _predicted(model, table, site, signed_by)
    from flfed.export.monitor import monitor as monitor_rows

    found = monitor_rows(shared, predictions)
    if as_json:
        output.print_json({"model": str(model), "run": shared.run, **signed.as_object(), **found})
        return
    lines = [["the score", ABSENT if found["score"] is None else number(found["score"], 3), ""]]
    for name, of in found["columns"].items():
        index = ABSENT if of["psi"] is None else number(of["psi"], 3)
        lines.append([name, index, f"{100 * of['missing']:.3g} %"])
    output.as_table(["column", "stability index", "missing"], lines)
    output.say_all([render("export.monitor.rows", rows=found["rows"]), signed.sentence])


@output.tables
def audit(
    run: str = typer.Argument(
        "latest",
        metavar="RUN",
        help="Id of a run, or of a series (its first repeat), or latest.",
        autocompletion=arguments.complete_runs,
    ),
    sites: list[str] = typer.Option([], "--site", metavar="NAME", help="Only this site."),
    attacks: list[str] = typer.Option([], "--attack", metavar="NAME", help="Only this attack."),
    all_figures: bool = typer.Option(False, "--all", help="Print all figures."),
    jobs: int | None = JOBS,
    as_json: bool = output.JSON,
) -> None:
    """Attack the model of a run at its sites, and compare each result with the privacy guarantee.

    Each site is attacked with its own rows. Figures and intervals are added to the run's record. In a deployment, the
    coordinator asks the sites to attack themselves: no row leaves a site, and its ledger has a line for each attack.
    An attack without success proves nothing. Printed are the main figure of each attack and each figure beyond the
    guarantee; --all and --json have the others.

    Exit codes: 0 done, 1 failed or an attack exceeded the guarantee, 2 wrong use or wrong input.
    """
    with stoppable("before the first attack: nothing is recorded"):
        with loading(freeze=True):
            from flfed.experiments.audit import audit as audit_run
        with progress(quiet=as_json) as show_progress:
            outcome = audit_run(run, only=sites, attacks=attacks, progress=show_progress, jobs=jobs or ALL)
    if as_json:
        output.print_json(outcome.as_object())
    else:
        from flfed.cli.run_tables import print_audit

        print_audit(outcome, whole=all_figures)
    # An attack beyond the guarantee is a failure, so that a script notices.
    if outcome.beyond():
        raise typer.Exit(1)
