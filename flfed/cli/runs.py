"""`flfed run`, `flfed audit` and `flfed predict`: results of runs, and use of their models."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from flfed.callbacks import loading
from flfed.cli import completion, output
from flfed.cli.catalogue import LATEST, WHICH
from flfed.cli.progress import places_of, stoppable
from flfed.cli.study import CLUSTER, JOBS
from flfed.errors import UsageError, counted, unknown
from flfed.records.statistics.verdict import interval, number
from flfed.registry import kebab_keys
from flfed.words import render, usage_error

if TYPE_CHECKING:
    from flfed.deployment.model_signer import Whose
    from flfed.export.model_folder import SharedModel
    from flfed.export.party_model import PartyScores
    from flfed.export.predict import Predictions


app = typer.Typer(no_args_is_help=True, help="Runs and their results.")


@app.command("show", epilog="latest")
@output.tables
def show_run(run: str = LATEST, whole: bool = output.ALL, as_json: bool = output.JSON) -> None:
    """Show the result of a run, or of a series of repeats.

    With many sites, those with the clearest results are shown. --all shows each site, and lists the releases that the
    privacy guarantee does not cover.
    """
    if as_json:
        output.print_json(object_of(run))
        return
    from flfed.cli.run_tables import print_report
    from flfed.records.reports.report import report
    from flfed.records.store.reader import RunReader

    with RunReader.open() as reader:
        print_report(report(reader, run), whole=whole)


@app.command("compare", epilog="20261120-153012-a1b2 latest --json")
@output.tables
def compare(
    a: str = typer.Argument(..., help=WHICH, autocompletion=completion.runs),
    b: str = typer.Argument(..., help="The other one.", autocompletion=completion.runs),
    whole: bool = output.ALL,
) -> output.Shown:
    """Compare two runs: settings, figures, and the difference between their models."""
    from flfed.cli.run_tables import print_comparison
    from flfed.experiments.compare_runs import compare_runs

    comparison = compare_runs(a, b)
    yield comparison
    print_comparison(comparison, whole=whole)


@app.command("export", epilog="latest --output my-model")
@output.with_json
def export_run(
    run: str = LATEST,
    to: Path | None = typer.Option(None, "--output", help="New or empty folder; default: RUN."),
    dtype: str = typer.Option(
        "trained",
        metavar="trained|float32|int8",
        help="Weights as trained, as float32, or as int8 (a quarter of the size of float32).",
    ),
) -> output.Shown:
    """Export a run to a folder: model for `flfed predict`, report, and figures as CSV."""
    from flfed.export.run_folder import export

    done = export(run, to, dtype=dtype)
    yield done.as_object()
    # Files are listed also without a model among them.
    yield f"{done.folder}: {', '.join(done.files)}"
    if done.model is None:
        yield f"No model: {done.reason}"
    else:
        yield render("commands.export.use", folder=done.folder)
    if done.signer is not None:
        yield render("commands.export.signed", title=done.signer.title, key=done.fingerprint)


@app.command("report", epilog="latest --output report.html")
@output.with_json
def report_run(
    run: str = LATEST,
    file: Path | None = typer.Option(None, "--output", help="HTML file; default: RUN.html."),
    site: str = typer.Option("", metavar="NAME", help="Only the figures of this site, for its own people."),
    dossier: Path | None = typer.Option(
        None, metavar="FOLDER", help="New or empty folder for report, answer sheets and RO-Crate."
    ),
    facts: Path | None = typer.Option(
        None, metavar="FILE", help="TOML file of what only people know; written if absent."
    ),
) -> output.Shown:
    """Write the report of a run as one HTML file, or a dossier for those who sign.

    It has verdict, figures with intervals, curves, Table 1, privacy and hashes, and loads nothing. An earlier report
    at the same place is replaced; any other file is not.
    """
    if any((dossier, facts)):
        yield from _dossier(run, dossier, facts, others=any((file, site)))
        return
    from flfed.records.document.document import write_document
    from flfed.records.store.reader import RunReader

    with RunReader.open() as reader:
        runs = reader.runs_of(run)
        entries = chain.from_iterable(reader.sites(one.run) for one in runs)
        site_names = sorted({entry.site for entry in entries})
    if site and site not in site_names:
        raise unknown(f"run {runs[0].series}: site", site, site_names)
    # "latest" is resolved here: for the people of one site another run may be the latest.
    name = runs[0].series if run == "latest" else run
    to = file or Path(f"{name}.html")
    write_document(to, name, site=site)
    yield {"run": name, "file": str(to), "site": site or None}
    if site:
        yield render("commands.report.site", file=to, run=name, site=site)
    else:
        yield render("commands.report.run", file=to, run=name)


def _dossier(run: str, folder: Path | None, facts: Path | None, *, others: bool) -> output.Shown:
    """Write a dossier; the coordinator's list of institutions goes into it where this machine has one."""
    if folder is None:
        raise usage_error("commands.report.needless")
    if others:
        raise usage_error("commands.report.alone")
    from flfed.deployment.coordinator.admission import readable
    from flfed.paths import CoordinatorFolder
    from flfed.records.dossier.dossier import write_dossier
    from flfed.records.dossier.record import Member

    memberships, _ = readable(CoordinatorFolder.default())
    members = [
        Member(of.site, of.status, of.invited, of.admitted, of.revoked, of.gate_key) for of in memberships.values()
    ]
    written = write_dossier(folder, run, facts_file=facts, members=members)
    yield written.as_object()
    yield render("commands.report.dossier", folder=folder, run=written.run)
    for sheet, counts in written.counts.items():
        yield render("commands.report.sheet", sheet=sheet, **counts._asdict())
    yield from written.left_out
    if written.facts is not None:
        yield render("commands.report.facts", file=written.facts)


MODEL = typer.Argument(..., help="Exported model folder.")
TABLE = typer.Argument(None, help="CSV or Parquet with the columns of the model's schema.")
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
    from flfed.export.explanations import explain_predictions
    from flfed.paths import write_private

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
    _print_figures(predictions, to_stderr=out is None)


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
    from flfed.paths import write_private

    write_private(partial, own.as_csv(), advice="choose another file with --partial")
    if as_json:
        output.print_json({"run": part.run, "rows": len(own.identifiers), "out": str(partial)})
        return
    typer.echo(render("commands.predict.partial", count=counted(len(own.identifiers), "score"), file=partial))


def _print_joined(part: SharedModel, own: PartyScores, others: list[Path], out: Path | None, *, as_json: bool) -> None:
    """Print the predictions for the people whom all parties have, or write them into a file."""
    from flfed.export.party_model import PartyScores, joined_predictions
    from flfed.paths import write_private

    joined = joined_predictions(part, own, [PartyScores.read(path) for path in others])
    if out is not None:
        write_private(out, joined.as_csv(), advice="choose another file with --output")
    facts: dict[str, Any] = {"rows": len(joined.identifiers), "only_here": joined.only_here}
    facts["only_there"] = joined.only_there
    if as_json:
        shown = {"run": part.run, **kebab_keys(facts)}
        if out is None:
            shown["predictions"] = dict(zip(joined.identifiers, joined.values.tolist(), strict=True))
        output.print_json(shown)
        return
    if out is None:
        typer.echo(joined.as_csv(), nl=False)
    typer.echo(render("commands.predict.joined", **facts), err=out is None)


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
    predictions = predict_table(shared, table) if table is not None else predict_site(shared, site)
    return shared, signed, predictions


@output.tables
def monitor(
    model: Path = MODEL,
    table: Path | None = TABLE,
    site: str = SITE,
    signed_by: str = SIGNED_BY,
    as_json: bool = output.JSON,
) -> None:
    """Compare a table with the training rows of a run's model, to see whether the model still fits.

    Printed are the population stability index and the missing share of each column and of the score. If the table has
    the outcome, metrics and calibration are printed as well. Nothing leaves this machine.

    Exit codes: 0 no alarm, 1 an alarm, 2 wrong use or wrong input.
    """
    shared, signed, predictions = _predicted(model, table, site, signed_by)
    from flfed.export.monitor import monitor as monitor_rows

    result = monitor_rows(shared, predictions)
    if as_json:
        output.print_json({"model": str(model), "run": shared.run, **signed.as_object(), **result.as_object()})
    else:
        output.as_table(*result.table(), spare=("largest change", "alarm above"))
        output.say_all([*result.describe(), signed.sentence])
        _print_figures(predictions, to_stderr=False)
    # A script notices an alarm.
    if result.alarms:
        raise typer.Exit(1)


def _print_figures(predictions: Predictions, *, to_stderr: bool) -> None:
    """Print notes and metrics; on standard error where standard output holds the predictions."""
    for note in predictions.notes:
        typer.echo(note, err=to_stderr)
    for name, figure in predictions.figures.items():
        text = f"not defined: {figure['method']}"
        if figure["value"] is not None:
            span = f"no interval: {figure['method']}"
            if figure["low"] is not None:
                span = f"95 % CI {interval(figure['low'], figure['high'])}"
            text = f"{number(figure['value'])} ({span})"
        typer.echo(f"  {name}: {text}", err=to_stderr)
    for sentence in predictions.describe_calibration():
        typer.echo(sentence, err=to_stderr)


@output.tables
def audit(
    run: str = typer.Argument(
        "latest",
        metavar="RUN",
        help="Id of a run, or of a series (its first repeat), or latest.",
        autocompletion=completion.runs,
    ),
    sites: list[str] = typer.Option([], "--site", metavar="NAME", help="Only this site."),
    attacks: list[str] = typer.Option([], "--attack", metavar="NAME", help="Only this attack."),
    all_figures: bool = typer.Option(False, "--all", help="Print all figures."),
    jobs: int | None = JOBS,
    cluster: str | None = CLUSTER,
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
        with places_of(jobs, cluster, as_json) as places:
            outcome = audit_run(run, only=sites, attacks=attacks, **places)
    if as_json:
        output.print_json(outcome.as_object())
    else:
        from flfed.cli.run_tables import print_audit

        print_audit(outcome, whole=all_figures)
    # An attack beyond the guarantee is a failure, so that a script notices.
    if outcome.beyond():
        raise typer.Exit(1)


def object_of(run: str) -> dict[str, Any]:
    """Return the report of a run as `--json` prints it."""
    from flfed.records.reports.report import is_of_model, report
    from flfed.records.statistics.recorded_statistic import statistic_object
    from flfed.records.store.reader import RunReader

    with RunReader.open() as reader:
        run_report = report(reader, run)
        return run_report if is_of_model(run_report, reader.runs_of(run)) else statistic_object(run_report)
