"""`flfed run`, `flfed audit` and `flfed predict`: results of runs, and use of their models."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from flfed.cli import completion, output
from flfed.cli.catalogue import LATEST, WHICH
from flfed.cli.progress import loading, progress, stoppable
from flfed.errors import UsageError, counted, unknown
from flfed.words import render

if TYPE_CHECKING:
    from flfed.experiments.audit import Audited
    from flfed.export.predict import Predictions
    from flfed.records.reports.audit_headlines import Audit


WORST = 4
"""Most sites of each attack that are printed."""
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
    from flfed.records.reports.report import report
    from flfed.records.store.reader import RunReader

    with RunReader.open() as reader:
        run_report = report(reader, run)
    print_report(run_report, whole=whole)


@app.command("compare", epilog="20261120-153012-a1b2 latest --json")
@output.tables
def compare(
    a: str = typer.Argument(..., help=WHICH, autocompletion=completion.runs),
    b: str = typer.Argument(..., help="The other one.", autocompletion=completion.runs),
    whole: bool = output.ALL,
) -> output.Shown:
    """Compare two runs: settings, figures, and the difference between their models."""
    from flfed.experiments.compare_runs import compare_runs

    comparison = compare_runs(a, b)
    yield comparison
    _print_comparison(comparison, whole=whole)


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
) -> output.Shown:
    """Write the report of a run as one HTML file.

    It has verdict, figures with intervals, curves, Table 1, privacy and hashes, and loads nothing. An earlier report
    at the same place is replaced; any other file is not.
    """
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


def _print_comparison(comparison: dict[str, Any], *, whole: bool) -> None:
    """Print two runs side by side, for people."""
    _print_settings(comparison)
    # Runs without a round, such as those of an analysis, have no arrays to compare.
    trained = comparison["a"]["rounds"] or comparison["b"]["rounds"]
    words = {True: "equal", False: "different", None: "unknown"}
    hashes = {name: words[both["equal"]] for name, both in comparison["hashes"].items()}
    if not trained:
        del hashes["arrays"]
    output.say(", ".join(f"{name} {agreement}" for name, agreement in hashes.items()))
    _print_compared_figures(comparison, whole=whole)
    apart = comparison["arrays-max-difference"]
    if not trained:
        typer.echo(render("commands.compare.untrained"))
    elif apart is None:
        output.say(render("commands.compare.unknown", reason=comparison["arrays-reason"]))
    else:
        typer.echo(render("commands.compare.apart", most=apart))


def _print_settings(comparison: dict[str, Any]) -> None:
    """Print the facts of two runs, and the keys in which their studies differ."""
    a = comparison["a"]
    b = comparison["b"]
    from flfed.records.statistics.verdict import format_as_written, number

    keys = ("run", "study", "status", "engine", "rounds", "repeats", "seconds")
    rows = [_cells([key, a[key], b[key]], partial(number, decimals=1)) for key in keys]
    # Settings keep their digits: rounded, a delta would read as another one.
    rows += [_cells(change.values(), format_as_written) for change in comparison["settings"]]
    output.as_table(["", "A", "B"], rows)


def _print_compared_figures(comparison: dict[str, Any], *, whole: bool) -> None:
    """Print the figures of two runs over all sites, and the primary metric of each site."""
    from flfed.records.statistics.verdict import ARM_NAMES

    primary = comparison["primary"].values()
    headers = ["metric", "A", "B", "B - A"]
    lines = []
    for arm in ("global", "sites-mean", "pooled"):
        metrics = comparison[arm] or {}
        lines += _metric_lines([ARM_NAMES[arm]], metrics, metrics if whole or arm == "global" else primary)
    if lines:
        output.as_table(["over all sites", *headers], lines)
    lines = []
    for site, arms in comparison["sites"].items():
        for arm, metrics in arms.items():
            lines += _metric_lines([site, SHORT[arm]], metrics or {}, primary)
    if lines:
        headers = ["site", "model", *headers]
        output.as_table(headers, lines, spare=("metric",), more="lines: --all", whole=whole, most=12)


def _metric_lines(of: list[str], metrics: dict[str, Any], only: Iterable[str]) -> list[list[str]]:
    """Return a line for each wanted metric of two runs, which begins with `of`."""
    from flfed.records.statistics.verdict import metric_name, number

    wanted = set(only)
    lines = []
    for metric, both in metrics.items():
        if metric not in wanted:
            continue
        difference = "–" if both["difference"] is None else number(both["difference"], signed=True)
        lines.append([*of, metric_name(metric), *_cells([both["a"], both["b"]]), difference])
    return lines


def _cells(values: Iterable[object], form: Callable[[float], str] | None = None) -> list[str]:
    """Return values of two runs as cells, numbers as `form` writes them, by default as figures."""
    from flfed.records.statistics.verdict import number

    form = form or number
    cells = []
    for value in values:
        if value is None:
            value = "–"
        cells.append(form(value) if isinstance(value, float) else str(value))
    return cells


def predict(
    model: Path = typer.Argument(..., help="Exported model folder."),
    table: Path | None = typer.Argument(None, help="CSV or Parquet with the columns of the model's schema."),
    site: str = typer.Option("", metavar="NAME", help="Site whose own table and mapping are used instead."),
    out: Path | None = typer.Option(None, "--output", help="New file for the predictions (mode 600)."),
    explain: Path | None = typer.Option(
        None,
        metavar="FILE",
        help="New CSV file for the contribution of each column to each row (boosted trees).",
    ),
    signed_by: str = typer.Option(
        "",
        metavar="FILE|FINGERPRINT",
        help="Require this coordinator's signature: its kit, or its key's SHA256:...",
    ),
    as_json: bool = output.JSON,
) -> None:
    """Predict each row of a table with a run's model; a table that breaks the schema is refused.

    Prints CSV: the number of the row, from 1, and its probability, probabilities or prediction. If the table has the
    outcome, metrics are printed as well. In any case the signer of the model is printed.
    """
    if (table is None) == (not site):
        raise UsageError("give either a table or --site NAME")
    # Imported late, so that wrong usage is refused at once.
    from flfed.deployment.model_signer import whose
    from flfed.export.model_folder import SharedModel
    from flfed.export.predict import explained, predict_site, predict_table
    from flfed.paths import write_private

    shared = SharedModel.read(model)
    signed = whose(shared.signature, signed_by)
    predictions = predict_table(shared, table) if table is not None else predict_site(shared, site)
    # The file is written before anything is printed: its errors end the command.
    reasons = None
    if explain is not None:
        reasons = explained(shared, predictions.inputs)
        write_private(explain, reasons.as_csv(), advice="choose another file with --explain")
    if out is not None:
        write_private(out, predictions.as_csv(), advice="choose another file with --output")
    if as_json:
        shown = {"model": str(model), "run": shared.run, "of": predictions.of, "rows": len(predictions.values)}
        shown |= signed.as_object()
        shown |= {
            "metrics": predictions.figures or None,
            "metric-rows": predictions.known,
            "notes": list(predictions.notes),
        }
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


def _print_figures(predictions: Predictions, *, to_stderr: bool) -> None:
    """Print notes and metrics; on standard error where standard output holds the predictions."""
    from flfed.records.statistics.verdict import interval, number

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
        with loading():
            from flfed.experiments.audit import audit as audit_run
        with progress(quiet=as_json) as show_progress:
            outcome = audit_run(run, only=sites, attacks=attacks, progress=show_progress)
    if as_json:
        output.print_json(outcome.as_object())
    else:
        _print_audit(outcome, whole=all_figures)
    # An attack beyond the guarantee is a failure, so that a script notices.
    if outcome.beyond():
        raise typer.Exit(1)


def _print_audit(outcome: Audited, *, whole: bool) -> None:
    """Print the result of each attack and its meaning, for people; all figures where `whole`."""
    from flfed.records.objects import read_all
    from flfed.records.reports.audit_headlines import AuditFigure, by_figure, headlines, not_promised, ordered
    from flfed.records.reports.privacy import epsilon_in_words, power_of_ten

    promise = outcome.promise
    run = f"{outcome.study} ({outcome.run})"
    if promise is None:
        output.say(render("commands.audit.unprotected", run=run))
    else:
        output.say(
            render(
                "commands.audit.guarantee",
                run=run,
                unit=promise.unit,
                epsilon=epsilon_in_words(promise.epsilon),
                delta=power_of_ten(promise.delta),
                mechanism=promise.mechanism,
            )
        )
    # Each repeat has its own model.
    if outcome.repeats > 1:
        output.say(render("commands.audit.repeat", repeat=outcome.repeat + 1, repeats=outcome.repeats))
    rows = read_all(AuditFigure, [row.as_object() for row in outcome.findings])
    figures = shown = ordered(rows)
    if not whole:
        shown = headlines(rows)
        # The meaning of each figure at the worst site, or why there is no figure.
        figures = [lines[0] for lines in by_figure(shown)] + [line for line in shown if line.value is None]
    if shown:
        _print_attacks(shown, whole=whole)
    for line in [*_sentences(figures, rows), *not_promised(rows)]:
        output.say(line)
    if len(shown) < len(rows):
        typer.echo(render("commands.audit.more", count=counted(len(rows) - len(shown), "more figure")))
    for site, reason in outcome.faults.items():
        typer.echo(f"Not attacked: {site}: {reason}", err=True)


def _print_attacks(shown: Audit, *, whole: bool) -> None:
    """Print a line for each figure; with many sites, those with the strongest results."""
    from flfed.records.reports.audit_headlines import by_figure, figure_name, limit_in_words, reached

    printed_rows = shown
    if not whole and len(shown) > output.SCREEN:
        printed_rows = list(chain.from_iterable(rows[:WORST] for rows in by_figure(shown)))
    lines = []
    names = {}
    for row in printed_rows:
        figure = figure_name(row.metric)
        names[f"{row.attack}: {figure}."] = row.attack
        lines.append([row.attack, str(row.site), figure, reached(row), limit_in_words(row), row.verdict])
    headers = ["attack", "site", "figure", "reached (95 %)", "promised", "verdict"]
    spare = ["promised", "figure"]
    if len(set(names.values())) == 1:
        spare.append("attack")
    if "figure" in output.as_table(headers, lines, spare=spare):
        for line in names:
            output.say(line)
    if len(printed_rows) < len(shown):
        typer.echo(render("commands.output.more", count=len(shown) - len(printed_rows), what="lines: --all"))
    output.say(render("commands.audit.verdict"))


def _sentences(figures: Audit, rows: Audit) -> list[str]:
    """Return the meaning of figures, each sentence once, with its sites unless all attacked sites have it."""
    from flfed.records.reports.faults import some

    sentences = []
    # A sentence about all attacked sites names none of them.
    for attack, says in dict.fromkeys((row.attack, row.says) for row in figures):
        tried = {row.site for row in rows if row.attack == attack}
        sites = dict.fromkeys(str(row.site) for row in rows if (row.attack, row.says) == (attack, says))
        where = "" if len(sites) == len(tried) else f", {some(list(sites))}"
        sentences.append(f"{attack}{where}: {says}")
    return sentences


SHORTER = {
    "shared model": "shared",
    "adjusted to site": "adjusted",
}
"""Shorter headers of the table of sites."""
SHORT = {"global": "shared", "local-only": "site model", "personalised": "adjusted"}
"""Shorter names of the models at a site."""
MANY, FEW = 12, 8
"""With more sites than the first number, the second number is shown: a screen of 40 lines in all."""


def object_of(run: str) -> dict[str, Any]:
    """Return the report of a run as `--json` prints it."""
    from flfed.records.reports.report import report
    from flfed.records.statistics.recorded_statistic import statistic_object
    from flfed.records.store.reader import RunReader

    with RunReader.open() as reader:
        run_report = report(reader, run)
        return run_report if reader.runs_of(run)[0].rounds_planned else statistic_object(run_report)


def print_report(report: dict[str, Any], *, whole: bool = False) -> None:
    """Print a run's comparison and findings, for people; `whole`: each site, and all that has no guarantee."""
    from flfed.records.reports.catalogue import note_in_words, notes_of
    from flfed.records.reports.faults import missing_sites, unfinished_in_words
    from flfed.records.reports.narrative import comparison_rows, doubts, joining_in_words, tally
    from flfed.records.reports.report import primary_of, purpose_of
    from flfed.records.statistics.importances import largest_gains
    from flfed.records.store.reader import RunReader

    # Events and notes are not part of the report.
    with RunReader.open() as reader:
        runs = [run.run for run in reader.runs_of(report["run"])]
        events = reader.events(runs)
        note = note_in_words(notes_of(reader, runs))
        purpose = purpose_of(reader.series(report["run"]).study_text)
    if purpose:
        end = "" if purpose[-1] in ".?!" else "."
        output.say(f"{report['study']}: {purpose}{end}")
    if note:
        output.say(f"Note: {note}")
    headers, rows, below = comparison_rows(report)
    metric = primary_of(report)
    if metric is not None:
        first = doubts(report, metric)
        below = [line for line in below if line not in first]
        _say_all([*first, joining_in_words(report, metric), tally(report, metric)])
        _print_sites(report, headers, rows, every=whole or len(report["sites"]) <= MANY)
    if "statistics" in report:
        below = _print_statistic(report, whole=whole)
    _say_all([*below, *unfinished_in_words(report)])
    if "gains" in report:
        most = None if whole else FEW
        output.say(largest_gains(report["gains"], most))
    output.privacy(report, whole=whole)
    # Sites that took no part are listed above, with the reason.
    above = () if whole else missing_sites(report)
    output.say_some(_events_in_words(events, above=above), whole=whole, most=FEW)


def _say_all(lines: Iterable[str]) -> None:
    for line in filter(None, lines):
        output.say(line)


def _print_statistic(report: dict[str, Any], *, whole: bool) -> list[str]:
    """Print the tables of a statistic, those of single sites where `whole`, and return its sentences."""
    from flfed.records.reports.faults import missing_in_words
    from flfed.records.statistics.recorded_statistic import statistic_in_words, statistic_tables

    more = render("commands.show.lines", run=report["run"])
    # Only the first table has the run's name above it.
    title = f"{report['study']} ({report['run']})"
    hidden = False
    for table in statistic_tables(report["statistics"]):
        if table.of_each_site and not whole:
            hidden = True
            continue
        rows = [list(line.values()) for line in table.lines]
        heading = ": ".join(filter(None, (title, table.title)))
        output.as_table(list(table.lines[0]), rows, heading, spare=table.spare, more=more, whole=whole)
        title = ""
    first, *others = statistic_in_words(report["statistics"], report["repeats"])
    lines = [first, *missing_in_words(report), *others]
    if hidden:
        lines.append(render("commands.show.single", run=report["run"]))
    return lines


def _events_in_words(events: Sequence[Any], *, above: Collection[str]) -> list[str]:
    """Return the events that people should know, alike ones of several sites together."""
    from flfed.records.reports.faults import fault_kind, sites_together

    words = {"refused": "Refused", "fault": "Fault", "flag": "Odd", "leak": "Possible leak", "note": "Note"}
    words["update rejected"] = "Rejected"
    rounds_by_event: dict[tuple[str, str, str], list[int | None]] = {}
    for event in events:
        kind: str = event.kind
        if kind == "fault":
            kind = fault_kind({"round": event.round, "reason": event.reason})
        stands_above = kind in ("refused", "fault") and event.round is None and event.site in above
        if kind in words and not stands_above:
            rounds_by_event[words[kind], event.site or "", event.reason] = []
    return [": ".join(filter(None, parts)) for parts in sites_together(rounds_by_event)]


def _print_sites(report: dict[str, Any], headers: Sequence[str], rows: Sequence[Sequence[str]], *, every: bool) -> None:
    """Print a line for each site, and for each figure over all sites."""
    from flfed.records.reports.narrative import GAIN, MARK, interval_name
    from flfed.records.reports.report import metrics_of
    from flfed.records.statistics.noised_scores import over_all_rows, released
    from flfed.records.statistics.verdict import metric_name

    metric = metrics_of(report)[0]
    many = len(report["sites"])
    title = f"{report['study']} ({report['run']})"
    more = render("commands.show.sites", run=report["run"])
    if not released(report).is_exact:
        output.as_table(headers, rows[:many], title, more=more, whole=every, most=FEW)
        output.as_table(*over_all_rows(report))
        return
    gain = headers.index(GAIN + interval_name(report))
    names = [SHORTER.get(header, header) for header in headers]
    names[gain] = f"gain ({interval_name(report)})"
    by_name = {row[0]: list(row) for row in rows[:many]}
    shown = list(by_name) if every else rank_sites(report, metric)[:FEW]
    adjusted = _put_gains(report, metric, by_name, gain)
    order = dict.fromkeys([*shown, *by_name])
    spare = ("adjusted", "test rows", "site model")
    output.as_table(names, [by_name[name] for name in order], title, spare=spare, more=more, whole=every, most=FEW)
    if adjusted & set(shown):
        output.say(render("commands.show.adjusted", mark=MARK.strip()))
    _print_references(rows[many:], names[:gain], metric_name(metric))


def _put_gains(report: dict[str, Any], metric: str, rows: dict[str, list[str]], place: int) -> set[str]:
    """Put the gain of each site into its row; return the sites where the adjusted model is better."""
    from flfed.records.reports.narrative import MARK
    from flfed.records.reports.site_verdict import best_arm
    from flfed.records.statistics.verdict import gain_in_brackets

    least = report["verdict-rule"]["minimum-gain"][metric]
    adjusted = set()
    for name, site in report["sites"].items():
        best = best_arm(site, metric)
        if best is None:
            continue
        rows[name][place] = gain_in_brackets(best[1], least)
        # A mark, as there is no room for words.
        if best[0] == "personalised":
            rows[name][place] += MARK
            adjusted.add(name)
    return adjusted


def _print_references(rows: Sequence[Sequence[str]], names: Sequence[str], metric: str) -> None:
    """Print a line for each figure over all sites, with the columns of models only."""
    columns = [place for place in range(1, len(names)) if any(row[place] for row in rows)]
    figures = [names[place] for place in columns]
    if len(figures) == 1:
        figures = [metric]
    lines = []
    for row in rows:
        lines.append([row[0], *(row[place] for place in columns)])
    output.as_table(["over all sites", *figures], lines)


def rank_sites(report: dict[str, Any], metric: str) -> list[str]:
    """Return the sites, those with a clear verdict first, then by size of gain or loss."""
    from flfed.records.reports.site_verdict import best_gain, site_verdict
    from flfed.records.statistics.verdict import DO_NOT_USE, INCONCLUSIVE, NO_CLEAR_GAIN, PAYS

    order = (PAYS, DO_NOT_USE, NO_CLEAR_GAIN, INCONCLUSIVE)

    def key(name: str) -> tuple[int, float]:
        site = report["sites"][name]
        best = best_gain(site, metric)
        size = 0.0 if best is None else best.value or 0.0
        return order.index(site_verdict(site, metric)[0]), -abs(size)

    return sorted(report["sites"], key=key)
