"""`flfed site list`, `check`, `new`, `snapshot` and `refresh`: a site's table and its snapshots."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from flfed.cli import arguments, output
from flfed.cli.arguments import ALLOW_UNMATCHED, SITE_NAME, TO
from flfed.cli.data import NAMES, PUBLIC, SHEET, SKIP, TABLE_KINDS, cd, print_reasons
from flfed.errors import UsageError, count_in_words
from flfed.paths import SiteFolder
from flfed.words import counted, render, shorten, usage_error

if TYPE_CHECKING:
    from flfed.deployment.site_state.freeze import Refresh
    from flfed.rows.data.site import Site
    from flfed.rows.data.sources import Source
    from flfed.rows.data.table_check import Checked
    from flfed.rows.proposals.matching import SiteProposal


app = typer.Typer(no_args_is_help=True, help="List, check and serve sites.")
EVERY_DAY = "Every day"
SETTING_UP = "Setting up"
"""Panels of the help of `flfed site`; commands that are used rarely have another."""


def opened(name: str) -> tuple[Site, SiteFolder]:
    """Return a site with its folder, and warn of lists of opt-outs that nothing reads."""
    from flfed.deployment.site_state.freeze import unread_lists
    from flfed.rows.data import site_discovery

    site = site_discovery.load(name)
    folder = SiteFolder(site.name)
    for path in unread_lists(folder, site):
        typer.echo(render("commands.snapshot.unread", file=path, read=folder.excluded, site=site.name), err=True)
    return site, folder


@app.command("list", rich_help_panel=EVERY_DAY)
@output.tables
def list_sites(whole: bool = output.ALL) -> output.Shown:
    """List the sites, with dataset and disclosure."""
    from flfed.rows.data import site_discovery as sites

    entries = []
    lines = []
    broken = {}
    # A broken package is listed with its error, so that the others can still be seen.
    for name in sites.names():
        try:
            s = sites.load(name)
            line = [name, s.title, ", ".join(s.datasets), s.policy.disclosure]
            served = {"dataset": s.dataset, "also": list(s.also)}
        except UsageError as error:
            broken[name] = f"broken: {error}"
            line = [name, broken[name], "", ""]
            served = {"dataset": "", "also": []}
        lines.append(line)
        entries.append({"site": name, "title": line[1], **served, "disclosure": line[3]})
    yield {"sites": entries}
    headers = ["site", "title", "dataset", "disclosure"]
    gone = output.as_table(headers, lines, spare=("title", "disclosure"), more="sites: --all", whole=whole)
    # The column of titles has the reason why a package cannot be loaded.
    if "title" in gone:
        for name, why in broken.items():
            output.say(f"{name}: {why}")


DATASET = typer.Option("", help="Another dataset of the site.")


@app.command("check", epilog="cleveland --local-rows broken.csv", rich_help_panel=EVERY_DAY)
@output.tables
def check_site(
    name: str = typer.Argument(
        ..., help="Name of a site, or an import path such as package.module.", autocompletion=arguments.complete_sites
    ),
    dataset: str = DATASET,
    local_rows: Path | None = typer.Option(
        None, help="New file (mode 600) for the rows that break a rule; it must not leave the site."
    ),
    as_json: bool = output.JSON,
) -> None:
    """Check a site's table against its dataset's schema; only counts are printed."""
    from flfed.deployment.site_state.trusted_files import open_folder

    site, folder = opened(name)
    if why := open_folder(folder):
        typer.echo(f"WARNING, {why}", err=True)
    check_table(site, dataset, local_rows=local_rows, as_json=as_json)


def check_table(
    site: Site, dataset: str = "", *, local_rows: Path | None = None, as_json: bool = False, whole: bool = True
) -> None:
    """Check a site's table and print the result: each column, or where not `whole` those with a note or a fault.

    Raises
    ------
    UsageError
        If the table does not fit the dataset's schema.
    """
    from flfed.rows.data.table_check import check_site as check
    from flfed.rows.data.table_check import write_local_rows

    dataset = dataset or site.dataset
    serving = site.serving(dataset)
    checked = check(serving)
    # The file names rows, which the printed table does not.
    if local_rows is not None:
        lines = write_local_rows(checked, local_rows)
        typer.echo(render("commands.check.rows", lines=counted(lines, "line"), file=local_rows), err=True)
    sample = f", a sample of {serving.source.sample:g}" if serving.source.sample < 1 else ""
    output.show(_checked(checked, whole, sample), as_json)
    refuse_unfit(checked, dataset)


def refuse_unfit(checked: Checked, dataset: str) -> None:
    """Raise `UsageError` with the first fault of a table that does not fit its dataset's schema."""
    if not checked.passed:
        # The printed table has all reasons why it does not fit.
        first, *others = (line for line in checked.lines if not line.passed)
        more = f" (and {len(others)} more)" if others else ""
        column = "" if first.column == "table" else f"column {first.column!r} "
        problem = f"{column}{first.detail}{more}"
        raise usage_error("commands.check.unfit", site=checked.site, dataset=dataset, problem=problem)


def _checked(checked: Checked, whole: bool, sample: str) -> output.Shown:
    shown = {"site": checked.site, "passed": checked.passed, "rows": checked.rows}
    shown |= {"training-rows": checked.training_rows, "holdout-rows": checked.holdout_rows}
    shown |= {"features": checked.features, "mapped-features": checked.mapped}
    yield shown | {"columns": list(map(asdict, checked.lines))}
    rows = []
    for line in checked.lines:
        passed = "pass" if line.passed else "FAIL"
        if line.note:
            passed = "note"
        if whole or passed != "pass":
            rows.append([line.column, passed, line.detail])
    title = f"{checked.site}: {checked.rows:,} rows{sample}"
    below = [row[1] != "pass" for row in rows]
    if rows:
        output.as_table(["column", "", "counts"], rows, title=title, cut="counts", below=below)
    features = render("findings.check.features", **vars(checked))
    yield _last_words(checked, features, sample)


def _last_words(checked: Checked, features: str, sample: str) -> str:
    if not checked.passed:
        return render("commands.check.fails", site=checked.site, features=features)
    if not checked.training_rows:
        rows = counted(checked.rows, "row") + sample
        return render("commands.check.columns", site=checked.site, rows=rows, features=features)
    training = counted(checked.training_rows, "training row")
    holdout = counted(checked.holdout_rows, "holdout row") + sample
    return render("commands.check.fits", site=checked.site, training=training, holdout=holdout, features=features)


@output.with_json
def snapshot_rows(
    name: str = SITE_NAME, dataset: str = DATASET, allow_unmatched: bool = ALLOW_UNMATCHED
) -> output.Shown:
    """Write a snapshot of the site's rows, mapped and checked, which its gate then serves.

    Rows of people who opted out (excluded.csv) are left out.
    """
    from flfed.deployment.site_state.freeze import excluded_facts, freeze_first

    site, folder = opened(name)
    frozen = freeze_first(folder, site.serving(dataset or site.dataset), allow_unmatched=allow_unmatched)
    gone = excluded_facts(frozen)
    resting = _resting(frozen.resting)
    shown = {"site": frozen.site, "dataset": frozen.dataset, "rows": frozen.rows, "at": frozen.at}
    shown |= {"rows-sha256": frozen.sha256, "schema-sha256": frozen.schema_sha256}
    yield shown | {"excluded": gone, "withheld": resting}
    _say_excluded(gone)
    _say_resting(resting)
    yield render("commands.snapshot.written", **vars(frozen)) + frozen.of_sample
    yield f"SHA-256 of the rows: {frozen.sha256}"


@output.tables
def refresh_rows(
    name: str = SITE_NAME,
    dataset: str = DATASET,
    allow_unmatched: bool = ALLOW_UNMATCHED,
    yes: bool = typer.Option(False, "--yes", help="Do not ask."),
    as_json: bool = output.JSON,
) -> None:
    """Show how the site's rows differ from its snapshot, and write a new one after a question.

    The rows of before are served on where fewer than the cell minimum of people came or left on a side of the holdout.
    With --json there is no question, and --yes is needed.
    """
    from flfed.deployment.site_state.freeze import excluded_facts, refresh

    site, folder = opened(name)
    difference = refresh(folder, site.serving(dataset or site.dataset), allow_unmatched=allow_unmatched)
    if not as_json:
        _say_difference(difference)
    # With --json there is no question: only --yes writes.
    agreed = difference.changes and (yes or (not as_json and output.agreed("Write a new snapshot?")))
    frozen = difference.write() if agreed else None
    if as_json:
        output.print_json(_refreshed(difference, frozen))
    elif frozen is not None:
        _say_excluded(excluded_facts(frozen))
        typer.echo(render("commands.snapshot.rewritten", **vars(frozen)) + frozen.of_sample)
    elif difference.changes:
        typer.echo(render("commands.snapshot.unwritten", site=site.name))


def _refreshed(refresh: Refresh, frozen: Any) -> dict[str, object]:
    """Return the object of `--json`; small counts are withheld, as it may be passed on."""
    site = refresh.prepared.site
    now = frozen or refresh.before
    return {
        "site": site.name,
        "dataset": site.dataset,
        **{part: count_in_words(many) for part, many in vars(refresh.difference).items()},
        "voids": list(refresh.voids),
        "withheld": _resting(refresh.prepared.resting),
        "missing": sorted(refresh.missing),
        "written": frozen is not None,
        "rows-sha256": now and now.sha256,
        "unusable": refresh.unusable,
    }


def _say_difference(refresh: Refresh) -> None:
    site = refresh.prepared.site
    # A snapshot that cannot be compared may still be replaced.
    if refresh.unusable:
        typer.echo(render("commands.snapshot.unusable", reason=refresh.unusable), err=True)
    if not refresh.changes and not refresh.missing:
        typer.echo(render("commands.snapshot.unchanged", site=site.name, dataset=site.dataset))
        return
    lines = [[part, count_in_words(many)] for part, many in vars(refresh.difference).items()]
    title = render("commands.snapshot.difference", site=site.name, dataset=site.dataset)
    output.as_table(["rows", "count"], lines, title=title)
    _say_resting(_resting(refresh.prepared.resting))
    if refresh.missing:
        from flfed.deployment.site_state.freeze import missing_in_words

        typer.echo(render("commands.snapshot.close", missing=missing_in_words(refresh.missing)))
        return
    for study in refresh.voids:
        typer.echo(render("commands.snapshot.voids", study=study))


def _say_excluded(gone: dict[str, Any] | None) -> None:
    if gone is not None:
        listed = counted(gone["listed"], "identifier")
        typer.echo(render("commands.snapshot.excluded", listed=listed, found=gone["matched"], rows=gone["rows"]))


def _say_resting(resting: dict[str, str] | None) -> None:
    if resting is not None:
        typer.echo(render("commands.snapshot.withheld", people=resting["persons"]))


def _resting(resting: object | None) -> dict[str, str] | None:
    if resting is None:
        return None
    return {part: count_in_words(many) for part, many in vars(resting).items()}


@app.command("new", epilog="st-mary --from patients.csv --dataset heart-disease", rich_help_panel=SETTING_UP)
@output.tables
def new_site(
    name: str = typer.Argument(..., help="Name of the site: a-z, 0-9 and hyphens."),
    dataset: str = typer.Option(..., help="Dataset whose schema the table is mapped to."),
    from_file: Path | None = typer.Option(None, "--from", help=f"The table: {TABLE_KINDS}."),
    query: str = typer.Option("", help="Or a SELECT on the database of --url-variable."),
    url_variable: str = typer.Option("FLFED_SITE_URL", help="Environment variable with the database's URL."),
    names: str = NAMES,
    sheet: str = SHEET,
    skip: int | None = SKIP,
    title: str = typer.Option("", help="Institution name."),
    public: bool = PUBLIC,
    to: Path = TO,
) -> output.Shown:
    """Write a site package: source, proposed mapping to a dataset's schema, holdout and policy.

    Columns are matched one to one by names, values, units and ranges. No cell is printed.
    """
    from flfed.rows.proposals.matching import propose_site

    source = _source(from_file, query, url_variable, names=names, sheet=sheet, skip=skip)
    made = propose_site(name, dataset, source, title=title, open_data=public)
    written = made.write(to)
    columns = []
    rows = []
    for match in made.matches:
        factor = match.field.multiply if match.field else None
        facts = {"column": match.column, "site-column": match.own, "sure": match.sure, "why": match.why}
        columns.append({**facts, "unit-factor": factor})
        mark = "" if match.sure else "look"
        rows.append([match.column, match.own or "–", mark, match.why])
    yield {"site": name, "dataset": dataset, "columns": columns, "files": list(map(str, written))}
    print_reasons("read from", rows, f"{name}: a mapping to {dataset}")
    output.say_all(_advice(made, written[0]))
    yield f"Next: {cd(to)}flfed site check {name}"


def _source(file: Path | None, query: str, url_variable: str, **options: Any) -> Source:
    """Return the source that the options name."""
    from flfed.rows.data.sources import Sql
    from flfed.rows.proposals.own_tables import source_of

    if (file is None) == (not query):
        raise UsageError("give either --from FILE or --query SELECT")
    if file is None:
        return Sql(query, url_variable)
    return source_of(file, **options)


def _advice(made: SiteProposal, path: Path) -> list[str]:
    """Return the tasks that remain for a person."""
    from flfed.rows.proposals.fits import UNKNOWN
    from flfed.rows.proposals.own_tables import skipped_note

    absent = [m.column for m in made.matches if m.own is None and m.column != made.target.column]
    target = made.target
    lines = [render("commands.mapping.written", file=path), *skipped_note(made.site.source, made.site.name)]
    if target.own is None:
        lines.append(render("commands.mapping.target", target=target.column, reason=target.why))
    elif not target.sure:
        lines.append(render("commands.mapping.unsure", column=target.own, target=target.column))
    if made.unnamed:
        lines.append(render("commands.mapping.codes", columns=", ".join(made.unnamed), mark=repr(UNKNOWN)))
    if absent:
        lines.append(render("commands.mapping.absent", columns=", ".join(absent)))
    if made.unread:
        lines.append(render("commands.mapping.unread", columns=shorten(made.unread, 20)))
    if not all(match.sure for match in made.matches if match.own is not None):
        lines.append(render("commands.mapping.dialogue", site=made.site.name))
    return lines
