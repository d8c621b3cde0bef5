"""`flfed run`, `flfed audit` and `flfed predict`: what was run, what it showed, and what can be done with its model."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from flfed.cli import completion, output
from flfed.cli.catalogue import LATEST
from flfed.cli.progress import loading, progress, stoppable
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
        output.print_json(object_of(run))
        return
    from flfed.records.reports.report import report
    from flfed.records.store.reader import RunReader

    with RunReader.open() as reader:
        run_report = report(reader, run)
    print_report(run_report, whole=whole)


@app.command("compare", epilog="Example: flfed run compare 20261120-153012-a1b2 latest --json")
@output.tables
def compare(
    a: str = typer.Argument(..., help="A run's or series' id, or latest.", autocompletion=completion.runs),
    b: str = typer.Argument(..., help="The other one.", autocompletion=completion.runs),
    whole: bool = output.ALL,
) -> output.Shown:
    """Show two runs side by side: settings, figures, and how far their models are apart."""
    from flfed.experiments.compare_runs import compare_runs

    comparison = compare_runs(a, b)
    yield comparison
    _print_comparison(comparison, whole=whole)


@app.command("export", epilog="Example: flfed run export latest --output my-model")
@output.with_json
def export_run(
    run: str = LATEST,
    to: Path | None = typer.Option(
        None, "--output", help="A new or empty folder; default: one with the run's id, here."
    ),
    dtype: str = typer.Option(
        "trained",
        metavar="trained|float32|int8",
        help="Weights as trained, in float32, or as int8, a quarter of float32's bytes.",
    ),
) -> output.Shown:
    """Write a run into a folder: its model for `flfed predict`, its report, its figures as CSV."""
    from flfed.export.run_folder import export

    done = export(run, to, dtype=dtype)
    yield done.as_object()
    # The files are named even where a model is not among them.
    yield f"{done.folder}: {', '.join(done.files)}"
    if done.model is None:
        yield f"No model is among them: {done.reason}"
    else:
        yield f"Use it: flfed predict {done.folder} TABLE"
    if done.signer is not None:
        yield f"Signed by {done.signer.title}, key {done.fingerprint}; who predicts with it can compare that."


@app.command("report", epilog="Example: flfed run report latest --output report.html")
@output.with_json
def report_run(
    run: str = LATEST,
    file: Path | None = typer.Option(None, "--output", help="The HTML file; default: RUN.html, here."),
    site: str = typer.Option("", metavar="NAME", help="For the people of this site: its figures alone."),
) -> output.Shown:
    """Write a run's report as one HTML file, to read, print or hand on.

    It has the verdict, figures with intervals, curves, Table 1, privacy and hashes; it loads nothing. An earlier report
    at the same place is replaced, any other file is not.
    """
    from flfed.records.document.document import write_document
    from flfed.records.store.reader import RunReader

    with RunReader.open() as reader:
        runs = reader.runs_of(run)
        entries = chain.from_iterable(reader.sites(one.run) for one in runs)
        site_names = sorted({entry.site for entry in entries})
    if site and site not in site_names:
        raise UsageError(f"run {runs[0].series} has no site {site!r}{nearest(site, site_names)}")
    # What "latest" means is settled here: for one site's people another run may be the latest.
    name = runs[0].series if run == "latest" else run
    to = file or Path(f"{name}.html")
    write_document(to, name, site=site)
    yield {"run": name, "file": str(to), "site": site or None}
    whose = f" for {site}" if site else ""
    yield f"{to}: the report of run {name}{whose}."


def _print_comparison(comparison: dict[str, Any], *, whole: bool) -> None:
    """Print two runs side by side, for people."""
    _print_settings(comparison)
    # Runs without a round, such as those of an analysis, have no arrays to hold against each other.
    trained = comparison["a"]["rounds"] or comparison["b"]["rounds"]
    words = {True: "equal", False: "different", None: "not known"}
    hashes = {name: words[both["equal"]] for name, both in comparison["hashes"].items()}
    if not trained:
        del hashes["arrays"]
    output.say(", ".join(f"{name} {agreement}" for name, agreement in hashes.items()))
    _print_compared_figures(comparison, whole=whole)
    apart = comparison["arrays-max-difference"]
    if not trained:
        typer.echo("No models are compared: neither run has one.")
    elif apart is None:
        typer.echo(f"How far the models' arrays are apart is not known: {comparison['arrays-reason']}.")
    else:
        typer.echo(f"The models' arrays differ by at most {apart:.3g}.")


def _print_settings(comparison: dict[str, Any]) -> None:
    """Print what two runs are, and the keys in which their studies differ: they share most of theirs."""
    a = comparison["a"]
    b = comparison["b"]
    keys = ("run", "study", "status", "engine", "rounds", "repeats", "seconds")
    rows = [_cells([key, a[key], b[key]]) for key in keys]
    rows += [_cells(change.values()) for change in comparison["settings"]]
    output.as_table(["", "A", "B"], rows)


def _print_compared_figures(comparison: dict[str, Any], *, whole: bool) -> None:
    """Print the figures of two runs over all sites and at each: of a site the primary metric is enough."""
    primary = comparison["primary"].values()
    headers = ["metric", "A", "B", "B - A"]
    lines = []
    for arm in ("global", "sites-mean", "pooled"):
        metrics = comparison[arm] or {}
        lines += _metric_lines([arm], metrics, metrics if whole or arm == "global" else primary)
    if lines:
        output.as_table(["over all sites", *headers], lines)
    lines = []
    for site, arms in comparison["sites"].items():
        for arm, metrics in arms.items():
            lines += _metric_lines([site, arm], metrics or {}, primary)
    if lines:
        headers = ["site", "arm", *headers]
        output.as_table(headers, lines, spare=("metric",), more="lines: --all", whole=whole, most=12)


def _metric_lines(of: list[str], metrics: dict[str, Any], only: Iterable[str]) -> list[list[str]]:
    """Return a line for each of some metrics of two runs, which begins with where its figures are of."""
    wanted = set(only)
    return [[*of, *_cells([metric, *both.values()])] for metric, both in metrics.items() if metric in wanted]


def _cells(values: Iterable[object]) -> list[str]:
    """Return values of two runs as cells."""
    from flfed.records.statistics.verdict import number

    cells = []
    for value in values:
        if value is None:
            value = "–"
        cells.append(number(value) if isinstance(value, float) else str(value))
    return cells


def predict(
    model: Path = typer.Argument(..., help="A folder that `flfed run export` made."),
    table: Path | None = typer.Argument(None, help="CSV or Parquet, in the columns of the model's schema."),
    site: str = typer.Option("", metavar="NAME", help="Instead of a table: a site's own rows, with its own mapping."),
    out: Path | None = typer.Option(None, "--output", help="Write the predictions into this new file (mode 600)."),
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
        typer.echo(
            f"{len(predictions.values)} predictions of {predictions.of} are in {out}; keep it where the table is."
        )
    if reasons is not None:
        typer.echo(
            f"What each column added to each row, in {reasons.unit}, is in {explain}; keep it where the table is.",
            err=out is None,
        )
    # Standard output has the predictions alone, so that they can be piped.
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
            reach = f"no interval: {figure['method']}"
            if figure["low"] is not None:
                reach = f"95 % CI {interval(figure['low'], figure['high'])}"
            text = f"{number(figure['value'])} ({reach})"
        typer.echo(f"  {name}: {text}", err=to_stderr)


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
        with progress(quiet=as_json) as show_progress:
            outcome = audit_run(run, only=sites, attacks=attacks, progress=show_progress)
    if as_json:
        output.print_json(outcome.as_object())
    else:
        _print_audit(outcome, whole=all_figures)
    # Beyond the promise is a failure, so that a script notices.
    if outcome.beyond():
        raise typer.Exit(1)


def _print_audit(outcome: Audited, *, whole: bool) -> None:
    """Print what each attack reached, and what it means, for people; `whole`: every figure."""
    from flfed.records.objects import read_all
    from flfed.records.reports.audit_headlines import AuditFigure, by_figure, headlines, not_promised, ordered

    promise = outcome.promise
    promise_text = "promises nothing: no [privacy] mechanism with a guarantee."
    if promise is not None:
        promise_text = (
            f"promises each {promise.unit}: epsilon {promise.epsilon:.3g} at delta {promise.delta:g}, "
            f"by {promise.mechanism}."
        )
    typer.echo(f"{outcome.study} ({outcome.run}) {promise_text}")
    # Which of the models was attacked matters, since each repeat has its own.
    if outcome.repeats > 1:
        typer.echo(
            f"It is repeat {outcome.repeat + 1} of {outcome.repeats}, each with its own model: "
            "name another to attack that."
        )
    rows = read_all(AuditFigure, [row.as_object() for row in outcome.findings])
    figures = shown = ordered(rows)
    if not whole:
        shown = headlines(rows)
        # Of each figure what it means at the worst site; where there is none, why.
        figures = [lines[0] for lines in by_figure(shown)] + [line for line in shown if line.value is None]
    if shown:
        _print_attacks(shown, whole=whole)
    for line in [*_sentences(figures, rows), *not_promised(rows)]:
        output.say(line)
    if len(shown) < len(rows):
        typer.echo(f"{len(rows) - len(shown)} more figures: --all prints them, --json has them too.")
    for site, reason in outcome.faults.items():
        typer.echo(f"Not attacked: {site}: {reason}", err=True)


def _print_attacks(shown: Audit, *, whole: bool) -> None:
    """Print a line for each figure; of many sites those at which an attack got farthest."""
    from flfed.records.reports.audit_headlines import by_figure, figure_name, reached
    from flfed.records.statistics.verdict import number

    printed_rows = shown
    if not whole and len(shown) > output.SCREEN:
        printed_rows = list(chain.from_iterable(rows[:WORST] for rows in by_figure(shown)))
    lines = []
    names = {}
    for row in printed_rows:
        bound = "nothing" if row.promise is None else number(row.promise)
        figure = figure_name(row.metric)
        names[f"{row.attack}: {figure}."] = row.attack
        lines.append([row.attack, str(row.site), figure, reached(row), bound, row.verdict])
    headers = ["attack", "site", "figure", "reached (95 %)", "promised", "verdict"]
    spare = ["promised", "figure"]
    if len(set(names.values())) == 1:
        spare.append("attack")
    if "figure" in output.as_table(headers, lines, spare=spare):
        for line in names:
            output.say(line)
    if len(printed_rows) < len(shown):
        typer.echo(f"… and {len(shown) - len(printed_rows)} more lines: --all")
    output.say("A verdict goes by the interval's lower end: a figure over the promise may be chance.")


def _sentences(figures: Audit, rows: Audit) -> list[str]:
    """Return what figures mean, each sentence once, with its sites where it is not true of all that were attacked."""
    from flfed.records.reports.faults import some

    sentences = []
    # A sentence that is true of all sites names none of them.
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
"""Headers of the table of sites as a terminal has them."""
SHOW_ALL = "flfed run show {run} --all"
EACH_SITE = f"Figures of each site: {SHOW_ALL}; those of its groups: --json."
MANY, FEW = 12, 8
"""Of more sites than the first, so many are shown: with what stands around them that is a screen of 40 lines."""


def object_of(run: str) -> dict[str, Any]:
    """Return the report of a run as `--json` prints it."""
    from flfed.records.reports.report import report
    from flfed.records.statistics.recorded_statistic import statistic_object
    from flfed.records.store.reader import RunReader

    with RunReader.open() as reader:
        run_report = report(reader, run)
        return run_report if reader.runs_of(run)[0].rounds_planned else statistic_object(run_report)


def print_report(report: dict[str, Any], *, whole: bool = False) -> None:
    """Print a run's comparison and its story, for people; `whole` with every site, and all that nobody promised."""
    from flfed.records.reports.catalogue import note_in_words, notes_of
    from flfed.records.reports.faults import missing_sites, unfinished_in_words
    from flfed.records.reports.narrative import comparison_rows, doubts, joining_in_words, tally
    from flfed.records.reports.report import primary_of, purpose_of
    from flfed.records.statistics.importances import largest_gains
    from flfed.records.store.reader import RunReader

    # Events and notes are not in the report, which is of the figures.
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
    # Who took no part stands above, with the reason.
    above = () if whole else missing_sites(report)
    output.say_some(_events_in_words(events, above=above), whole=whole, most=FEW)


def _say_all(lines: Iterable[str]) -> None:
    for line in filter(None, lines):
        output.say(line)


def _print_statistic(report: dict[str, Any], *, whole: bool) -> list[str]:
    """Print the tables of a study's statistic, those of single sites where `whole`, and return its sentences."""
    from flfed.records.reports.faults import missing_in_words
    from flfed.records.statistics.recorded_statistic import statistic_in_words, statistic_tables

    more = f"lines: {SHOW_ALL}".format(**report)
    # The run's name stands above the first table alone.
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
        lines.append(EACH_SITE.format(**report))
    return lines


def _events_in_words(events: Sequence[Any], *, above: Collection[str]) -> list[str]:
    """Return the events that people should know of, alike ones of many sites together; the others stay in the store."""
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
    """Print a line a site, and a line for each figure over all of them."""
    from flfed.records.reports.narrative import GAIN, MARK, interval_name
    from flfed.records.reports.report import metrics_of
    from flfed.records.statistics.noised_scores import over_all_rows, released
    from flfed.records.statistics.verdict import metric_name

    metric = metrics_of(report)[0]
    many = len(report["sites"])
    title = f"{report['study']} ({report['run']})"
    more = f"sites: flfed run show {report['run']} --all"
    if not released(report).is_exact:
        output.as_table(headers, rows[:many], title, more=more, whole=every, most=FEW)
        output.as_table(*over_all_rows(report))
        return
    gain = headers.index(GAIN + interval_name(report))
    names = [SHORTER.get(header, header) for header in headers]
    names[gain] = f"gain ({interval_name(report)})"
    by_name = {row[0]: list(row) for row in rows[:many]}
    shown = list(by_name) if every else telling(report, metric)[:FEW]
    adjusted = _put_gains(report, metric, by_name, gain)
    order = dict.fromkeys([*shown, *by_name])
    spare = ("adjusted", "test rows", "site model")
    output.as_table(names, [by_name[name] for name in order], title, spare=spare, more=more, whole=every, most=FEW)
    if adjusted & set(shown):
        output.say(f"{MARK.strip()} of the shared model adjusted to the site, which is the better one there.")
    _print_references(rows[many:], names[:gain], metric_name(metric))


def _put_gains(report: dict[str, Any], metric: str, rows: dict[str, list[str]], place: int) -> set[str]:
    """Put the gain of each site into its row; return the sites where the adjusted model is better, told by a mark."""
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
        # For want of room it is a mark.
        if best[0] == "personalised":
            rows[name][place] += MARK
            adjusted.add(name)
    return adjusted


def _print_references(rows: Sequence[Sequence[str]], names: Sequence[str], metric: str) -> None:
    """Print a line for each figure over all sites; it has figures in the columns of the models alone."""
    columns = [place for place in range(1, len(names)) if any(row[place] for row in rows)]
    figures = [names[place] for place in columns]
    if len(figures) == 1:
        figures = [metric]
    lines = []
    for row in rows:
        lines.append([row[0], *(row[place] for place in columns)])
    output.as_table(["over all sites", *figures], lines)


def telling(report: dict[str, Any], metric: str) -> list[str]:
    """Return the sites, the most telling first: those with a clear verdict, then the largest gains and losses."""
    from flfed.records.reports.site_verdict import best_gain, site_verdict
    from flfed.records.statistics.verdict import DO_NOT_USE, INCONCLUSIVE, NO_CLEAR_GAIN, PAYS

    order = (PAYS, DO_NOT_USE, NO_CLEAR_GAIN, INCONCLUSIVE)

    def key(name: str) -> tuple[int, float]:
        site = report["sites"][name]
        best = best_gain(site, metric)
        size = 0.0 if best is None else best.value or 0.0
        return order.index(site_verdict(site, metric)[0]), -abs(size)

    return sorted(report["sites"], key=key)
