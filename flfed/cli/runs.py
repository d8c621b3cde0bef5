"""`flfed run`, `flfed audit` and `flfed predict`: what was run, what it showed, and what can be done with its model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from flfed.cli import completion, output
from flfed.cli.catalogue import LATEST
from flfed.cli.progress import loading, progress, stoppable
from flfed.cli.run_text import object_of, print_report, report_of
from flfed.errors import UsageError, nearest

if TYPE_CHECKING:
    from flfed.experiments.audit import Audited
    from flfed.export.predict import Predictions
    from flfed.records.reports.audit_headlines import Audit

WORST = 4
"""Sites of each attack that are shown where there are many."""
app = typer.Typer(no_args_is_help=True, help="List, show, report, note, compare, export and delete runs.")


@app.command("show", epilog="Example: flfed run show latest")
@output.tables
def show_run(run: str = LATEST, whole: bool = output.ALL, as_json: bool = output.JSON) -> None:
    """Show what a run, or a series of repeats, found.

    Of many sites the most telling are shown; --all shows each, and lists what no promise covers.
    """
    if as_json:
        output.as_json(object_of(run))
        return
    print_report(report_of(run), whole=whole)


@app.command("compare", epilog="Example: flfed run compare 20261120-153012-a1b2 latest --json")
@output.tables
def compare(
    a: str = typer.Argument(..., help="A run's or series' id, or latest.", autocompletion=completion.runs),
    b: str = typer.Argument(..., help="The other one.", autocompletion=completion.runs),
    whole: bool = output.ALL,
    as_json: bool = output.JSON,
) -> None:
    """Show two runs side by side: settings, figures, and how far their models are apart."""
    from flfed.experiments.compare_runs import compare_runs

    found = compare_runs(a, b)
    output.either(as_json, found, lambda: _print_comparison(found, whole=whole))


@app.command("export", epilog="Example: flfed run export latest --to my-model")
def export_run(
    run: str = LATEST,
    to: Path | None = typer.Option(None, help="A new or empty folder; default: one with the run's id, here."),
    dtype: str = typer.Option(
        "trained",
        metavar="trained|float32|int8",
        help="Weights as trained, in float32, or as int8, a quarter of float32's bytes.",
    ),
    as_json: bool = output.JSON,
) -> None:
    """Write a run into a folder: its model for `flfed predict`, its report, its figures as CSV."""
    from flfed.export.run_folder import export

    done = export(run, to, dtype=dtype)
    if as_json:
        output.as_json(done.as_object())
        return
    # The files are named even where a model is not among them.
    typer.echo(f"{done.folder}: {', '.join(done.files)}")
    typer.echo(
        f"No model is among them: {done.reason}" if done.model is None else f"Use it: flfed predict {done.folder} TABLE"
    )
    if done.signer is not None:
        typer.echo(f"Signed by {done.signer.title}, key {done.fingerprint}; who predicts with it can compare that.")


@app.command("report", epilog="Example: flfed run report latest --output report.html")
def report_run(
    run: str = LATEST,
    file: Path | None = typer.Option(None, "--output", help="The HTML file; default: RUN.html, here."),
    site: str = typer.Option("", metavar="NAME", help="For the people of this site: its figures alone."),
    as_json: bool = output.JSON,
) -> None:
    """Write a run's report as one HTML file, to read, print or hand on.

    It has the verdict, figures with intervals, curves, Table 1, privacy and hashes; it loads nothing. An earlier report
    at the same place is replaced, any other file is not.
    """
    from flfed.records.document.document import write_document
    from flfed.records.store.reader import RunReader
    from flfed.records.store.visibility import Viewer

    with RunReader.open() as reader:
        runs = reader.runs_of(run)
        known = sorted({entry.site for one in runs for entry in reader.sites(one.run)})
    if site and site not in known:
        raise UsageError(f"run {runs[0].series} has no site {site!r}{nearest(site, known)}")
    # What "latest" means is settled here: for one site's people another run may be the latest.
    name = runs[0].series if run == "latest" else run
    to = file or Path(f"{name}.html")
    write_document(to, name, viewer=Viewer("site", site) if site else Viewer())
    if as_json:
        output.as_json({"run": name, "file": str(to), "site": site or None})
        return
    typer.echo(f"{to}: the report of run {name}{f' for {site}' if site else ''}.")


def _print_comparison(found: dict[str, Any], *, whole: bool) -> None:
    """Print two runs side by side, for people."""
    keys = ("run", "study", "status", "engine", "rounds", "repeats", "seconds")
    rows = [[key, _said(found["a"][key]), _said(found["b"][key])] for key in keys]
    # Only keys that differ: two studies share most of theirs.
    rows += [[change["key"], _said(change["a"]), _said(change["b"])] for change in found["settings"]]
    output.as_table(["", "A", "B"], rows)
    words = {True: "equal", False: "different", None: "not known"}
    # Runs without a round, such as those of an analysis, have no arrays to hold against each other.
    trained = found["a"]["rounds"] or found["b"]["rounds"]
    hashes = {name: both for name, both in found["hashes"].items() if trained or name != "arrays"}
    output.say(", ".join(f"{name} {words[both['equal']]}" for name, both in hashes.items()))
    sides = ("a", "b", "difference")
    over_all = [(arm, found[arm]) for arm in ("global", "sites-mean", "pooled") if found[arm]]
    lines = [
        [arm, metric, *(_said(both[key]) for key in sides)]
        for arm, metrics in over_all
        for metric, both in metrics.items()
        if whole or arm == "global" or metric in found["primary"].values()
    ]
    if lines:
        output.as_table(["over all sites", "metric", "A", "B", "B - A"], lines)
    # Of a single site the primary metric is enough.
    lines = [
        [site, arm, metric, *(_said(both[key]) for key in sides)]
        for site, arms in found["sites"].items()
        for arm, metrics in arms.items()
        for metric, both in (metrics or {}).items()  # nothing is compared of a sweep's point
        if metric in found["primary"].values()
    ]
    if lines:
        headers = ["site", "arm", "metric", "A", "B", "B - A"]
        output.as_table(headers, lines, spare=("metric",), more="lines: --all", whole=whole, most=12)
    apart = found["arrays-max-difference"]
    if not trained:
        typer.echo("No models are compared: neither run has one.")
        return
    typer.echo(
        f"The models' arrays differ by at most {apart:.3g}." if apart is not None
        else f"How far the models' arrays are apart is not known: {found['arrays-reason']}."
    )  # fmt: skip


def _said(value: object) -> str:
    return "–" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def predict(
    model: Path = typer.Argument(..., help="A folder that `flfed run export` made."),
    table: Path | None = typer.Argument(None, help="CSV or Parquet, in the columns of the model's schema."),
    site: str = typer.Option("", metavar="NAME", help="Instead of a table: a site's own rows, with its own mapping."),
    out: Path | None = typer.Option(None, help="Write the predictions into this new file (mode 600)."),
    explain: Path | None = typer.Option(
        None,
        metavar="FILE",
        help="Of boosted trees: write what each column added to each row into this new CSV.",
    ),
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
    from flfed.export.explain import explained
    from flfed.export.model_folder import SharedModel
    from flfed.export.predict import predict_site, predict_table
    from flfed.paths import write_private

    shared = SharedModel.read(model)
    signed = whose(shared.signature, signed_by)
    found = predict_table(shared, table) if table is not None else predict_site(shared, site)
    # The file is written before anything is printed: its errors end the command.
    reasons = None if explain is None else explained(shared, found.inputs)
    if reasons is not None and explain is not None:
        write_private(explain, reasons.as_csv(), advice="choose another file with --explain")
    if out is not None:
        write_private(out, found.as_csv(), advice="choose another file with --out")
    if as_json:
        head = {"model": str(model), "run": shared.run, "of": found.of, "rows": len(found.values)} | signed.as_object()
        kept: dict[str, Any] = {"predictions": found.rows()} if out is None else {"out": str(out)}
        if reasons is not None:
            kept |= {"explanations": {"out": str(explain), "unit": reasons.unit, "columns": list(reasons.headers)}}
        metrics = {"metrics": found.figures or None, "metric-rows": found.known, "notes": list(found.notes)}
        output.as_json({**head, **metrics, **kept})
        return
    if out is None:
        typer.echo(found.as_csv(), nl=False)
    else:
        typer.echo(f"{len(found.values)} predictions of {found.of} are in {out}; keep it where the table is.")
    if reasons is not None:
        typer.echo(
            f"What each column added to each row, in {reasons.unit}, is in {explain}; keep it where the table is.",
            err=out is None,
        )
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


@output.tables
def audit(
    run: str = typer.Argument(
        "latest",
        metavar="RUN",
        help="A run's or series' id, or latest; of repeats the first.",
        autocompletion=completion.runs,
    ),
    sites: list[str] = typer.Option([], "--site", metavar="NAME", help="Only at these sites, as the run names them."),
    attacks: list[str] = typer.Option([], "--attack", metavar="NAME", help="Only these attacks."),
    all_figures: bool = typer.Option(False, "--all", help="Print every figure, not only each attack's main one."),
    as_json: bool = output.JSON,
) -> None:
    """Attack the model of a run at its sites, and show how far each attack got against what the run promised.

    Each site is attacked with its own rows; figures and their intervals go into the run's record. Where
    the run was a deployment, sites are asked through the coordinator and attack themselves: no row leaves,
    and the site's ledger has a line for each attack. An attack that gets nowhere proves nothing. Of each attack
    the main figure is printed, and any that is beyond the promise; --all and --json have the others.

    Exit codes: 0 done, 1 failed or an attack got beyond what was promised, 2 wrong use or wrong input.
    """
    with stoppable("before the first attack: nothing is recorded"):
        with loading():
            from flfed.experiments.audit import audit as audit_run
        with progress(quiet=as_json) as told:
            found = audit_run(run, only=sites, attacks=attacks, progress=told)
    output.either(as_json, found.as_object(), lambda: print_audit(found, whole=all_figures))
    # Beyond the promise is a failure, so that a script notices.
    if found.beyond():
        raise typer.Exit(1)


def print_audit(found: Audited, *, whole: bool = False) -> None:
    """Print what each attack reached, and what it means, for people; `whole`: every figure."""
    from flfed.records.objects import read_all
    from flfed.records.reports.audit_headlines import (
        AuditFigure,
        by_figure,
        figure_name,
        headlines,
        not_promised,
        ordered,
        reached,
    )
    from flfed.records.statistics.verdict import number

    promise = found.promise
    typer.echo(
        f"{found.study} ({found.run}) promises nothing: no [privacy] mechanism with a guarantee."
        if promise is None
        else f"{found.study} ({found.run}) promises each {promise.unit}: epsilon {promise.epsilon:.3g} "
        f"at delta {promise.delta:g}, by {promise.mechanism}."
    )
    # Which of the models was attacked matters, since each repeat has its own.
    if found.repeats > 1:
        typer.echo(
            f"It is repeat {found.repeat + 1} of {found.repeats}, each with its own model: name another to attack that."
        )
    rows = read_all(AuditFigure, [row.as_object() for row in found.findings])
    shown = ordered(rows) if whole else headlines(rows)
    # Of many sites those at which an attack got farthest.
    told = shown if whole or len(shown) <= output.SCREEN else [row for of in by_figure(shown) for row in of[:WORST]]
    if shown:
        bounds = ["nothing" if row.promise is None else number(row.promise) for row in told]
        lines = [
            [row.attack, str(row.site), figure_name(row.metric), reached(row), bound, row.verdict]
            for row, bound in zip(told, bounds, strict=True)
        ]
        headers = ["attack", "site", "figure", "reached (95 %)", "promised", "verdict"]
        spare = ("promised", "figure", *(["attack"] if len({line[0] for line in lines}) == 1 else []))
        gone = output.as_table(headers, lines, spare=spare)
        for attack, figure in dict.fromkeys((line[0], line[2]) for line in lines) if "figure" in gone else ():
            output.say(f"{attack}: {figure}.")
        if len(told) < len(shown):
            typer.echo(f"… and {len(shown) - len(told)} more lines: --all")
        output.say("A verdict goes by the interval's lower end: a figure over the promise may be chance.")
    # Of each figure what it means at the worst site; where there is none, why.
    worst = [lines[0] for lines in by_figure(shown)]
    told = shown if whole else [*worst, *(line for line in shown if line.value is None)]
    for line in [*_sentences(told, rows), *not_promised(rows)]:
        output.say(line)
    if len(shown) < len(rows):
        typer.echo(f"{len(rows) - len(shown)} more figures: --all prints them, --json has them too.")
    for site, reason in found.faults.items():
        typer.echo(f"Not attacked: {site}: {reason}", err=True)


def _sentences(told: Audit, rows: Audit) -> list[str]:
    """Return what figures mean, each sentence once, with its sites where it is not true of all that were attacked."""
    from flfed.records.reports.faults import some

    found = []
    # A sentence that is true of all sites names none of them.
    for attack, says in dict.fromkeys((row.attack, row.says) for row in told):
        tried = dict.fromkeys(row.site for row in rows if row.attack == attack)
        sites = dict.fromkeys(row.site for row in rows if (row.attack, row.says) == (attack, says))
        found.append(
            f"{attack}{'' if len(sites) == len(tried) else ', ' + some([str(site) for site in sites])}: {says}"
        )
    return found
