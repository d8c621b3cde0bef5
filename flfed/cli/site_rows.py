"""`flfed site list`, `check`, `new`, `freeze`, `refresh` and `replay`: a site's table, and its rows that are served."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from flfed.cli import completion, output
from flfed.cli.data import NAMES, PUBLIC, SHEET, TABLE_KINDS, TO, cd, print_reasons
from flfed.errors import UsageError, count_in_words

if TYPE_CHECKING:
    from flfed.deployment.site_state.freeze import Refresh
    from flfed.rows.data.sources import Source
    from flfed.rows.data.table_check import Checked, Line
    from flfed.rows.proposals.matching import Match, SiteProposal
    from flfed.rows.snapshots.opt_outs import Resting
    from flfed.rows.snapshots.snapshot import Frozen


app = typer.Typer(no_args_is_help=True, help="List sites and check their tables.")


@app.command("list", epilog="Example: flfed site list")
@output.tables
def list_sites(whole: bool = output.ALL, as_json: bool = output.JSON) -> None:
    """List the sites found, with dataset and disclosure."""
    from flfed.rows.data import site_discovery as sites

    found = []
    lines = []
    # A broken package is listed with its error, so that the others can still be seen.
    for name in sites.names():
        try:
            s = sites.load(name)
            lines.append([name, s.title, ", ".join(s.datasets), s.policy.disclosure])
            served = {"dataset": s.dataset, "also": list(s.also)}
            found.append({"site": name, "title": s.title, **served, "disclosure": s.policy.disclosure})
        except UsageError as error:
            lines.append([name, f"broken: {error}", "", ""])
            found.append({"site": name, "title": lines[-1][1], "dataset": "", "also": [], "disclosure": ""})
    if as_json:
        output.as_json({"sites": found})
        return
    headers = ["site", "title", "dataset", "disclosure"]
    gone = output.as_table(headers, lines, spare=("title", "disclosure"), more="sites: --all", whole=whole)
    # A package that cannot be loaded has its reason in the column of titles.
    broken = [line for line in lines if "title" in gone and not line[2]]
    for line in broken:
        output.say(f"{line[0]}: {line[1]}")


def _passed(line: Line) -> str:
    if line.note:
        return "note"
    return "pass" if line.passed else "FAIL"


DATASET = typer.Option("", help="One of the datasets that the site serves; its own unless given.")


@app.command("check", epilog="Example: flfed site check cleveland --local-rows broken.csv")
@output.tables
def check_site(
    name: str = typer.Argument(
        ..., help="A site's name, or an import path such as package.module.", autocompletion=completion.sites
    ),
    dataset: str = DATASET,
    local_rows: Path | None = typer.Option(
        None, help="Write which rows break which rule into this file (mode 600): for the site's own eyes."
    ),
    as_json: bool = output.JSON,
) -> None:
    """Check a site's table against its dataset's schema: pass or fail a column, counts only."""
    from flfed.deployment.site_state.trusted_files import open_folder
    from flfed.paths import SiteFolder
    from flfed.rows.data import site_discovery as sites
    from flfed.rows.data.table_check import check_site as check
    from flfed.rows.data.table_check import write_local_rows

    site = sites.load(name)
    if why := open_folder(SiteFolder(site.name)):
        typer.echo(f"WARNING, {why}", err=True)
    dataset = dataset or site.dataset
    checked = check(site.serving(dataset))
    # The file names rows, so that it is written apart from what is printed.
    if local_rows is not None:
        lines = write_local_rows(checked, local_rows)
        said = "1 line" if lines == 1 else f"{lines} lines"
        typer.echo(f"{said} written to {local_rows}; it names rows, so it must not leave the site.", err=True)
    if as_json:
        counts = {"rows": checked.rows, "training-rows": checked.training_rows, "holdout-rows": checked.holdout_rows}
        counts |= {"features": checked.features, "mapped-features": checked.mapped}
        columns = [asdict(line) for line in checked.lines]
        output.as_json({"site": checked.site, "passed": checked.passed, **counts, "columns": columns})
    else:
        _print_checked(checked)
    if not checked.passed:
        raise UsageError(
            f"site {checked.site!r} does not fit dataset {dataset!r}: {_first_wrong(checked)}; "
            "correct table or mapping, --local-rows FILE lists the rows"
        )


def _print_checked(checked: Checked) -> None:
    from flfed.rows.data.table_check import features_in_words

    rows = [[line.column, _passed(line), line.detail] for line in checked.lines]
    title = f"{checked.site}: {checked.rows} rows"
    below = [row[1] != "pass" for row in rows]
    output.as_table(["column", "", "counts"], rows, title=title, cut="counts", below=below)
    fits = f"fits: {checked.training_rows} training rows, {checked.holdout_rows} holdout rows"
    verdict = fits if checked.passed else "does not fit yet"
    typer.echo(f"{checked.site} {verdict}; {features_in_words(checked.mapped, checked.features)}.")


def _first_wrong(checked: Checked) -> str:
    """Return the first reason why a table does not fit; one is enough for a sentence, and the table has them all."""
    wrong = [line for line in checked.lines if not line.passed]
    more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
    if wrong[0].column == "table":
        return f"{wrong[0].detail}{more}"
    return f"column {wrong[0].column!r} {wrong[0].detail}{more}"


NAME = typer.Argument(..., help="The site's name.", autocompletion=completion.sites)
EXACT = typer.Option(False, "--exact", help="Show small counts as they are: for the site's own eyes.")


def freeze_rows(name: str = NAME, dataset: str = DATASET, exact: bool = EXACT, as_json: bool = output.JSON) -> None:
    """Write down the site's rows as they are now, mapped and checked, as those that its gate serves.

    People on the list of those who opted out (excluded.csv) are left out first.
    """
    from flfed.deployment.site_state.freeze import freeze_first
    from flfed.paths import SiteFolder
    from flfed.rows.data import site_discovery as sites

    site = sites.load(name)
    folder = SiteFolder(site.name)
    frozen = freeze_first(folder, site.serving(dataset or site.dataset))
    if as_json:
        output.as_json(_shown(frozen, exact))
        return
    _say_excluded(frozen, exact)
    _say_resting(frozen.resting, exact)
    typer.echo(f"{frozen.site}: {frozen.rows} rows of {frozen.dataset!r} are frozen.")
    typer.echo(f"SHA-256 of the rows: {frozen.sha256}")


@output.tables
def refresh_rows(
    name: str = NAME,
    dataset: str = DATASET,
    yes: bool = typer.Option(False, "--yes", help="Write without asking."),
    exact: bool = EXACT,
    as_json: bool = output.JSON,
) -> None:
    """Show how the site's rows differ from its frozen ones, and freeze them again once a person agrees.

    Where nearly all of them differ though about as many people are there, it warns that nobody can then tell who
    joined or left. With --json nothing is asked: it writes with --yes only.
    """
    from flfed.deployment.site_state.freeze import refresh
    from flfed.paths import SiteFolder
    from flfed.rows.data import site_discovery as sites

    site = sites.load(name)
    found = refresh(SiteFolder(site.name), site.serving(dataset or site.dataset))
    if not as_json:
        _say_difference(found, exact)
    # With --json nothing is asked, so that only --yes writes.
    agreed = found.changes and (yes or (not as_json and output.agreed("Freeze the rows as they are now?")))
    frozen = found.write() if agreed else None
    if as_json:
        output.as_json(_refreshed(found, frozen, exact))
    elif frozen is not None:
        _say_excluded(frozen, exact)
        typer.echo(f"{frozen.site}: frozen again. SHA-256 of the rows: {frozen.sha256}")
    elif found.changes:
        typer.echo(f"{site.name}: nothing was written; to write it: flfed site refresh {site.name} --yes")


def _refreshed(found: Refresh, frozen: Frozen | None, exact: bool) -> dict[str, object]:
    """Return what was found and written, for a program; small counts are withheld, as it may be sent on."""
    site = found.prepared.site
    counts = {part: _count(many, exact) for part, many in vars(found.difference).items()}
    now = frozen or found.before
    sha256 = now.sha256 if now else None
    return {"site": site.name, "dataset": site.dataset, **counts, "voids": list(found.voids)} | {
        "resting": _resting(found.prepared.resting, exact),
        "drifted": found.drifted,
        "written": frozen is not None,
        "rows-sha256": sha256,
        "unusable": found.unusable,
    }


def _say_difference(found: Refresh, exact: bool) -> None:
    site = found.prepared.site
    # A snapshot that cannot be compared may still be replaced.
    if found.unusable:
        typer.echo(f"The snapshot that is there cannot be compared with: {found.unusable}", err=True)
    if not found.changes:
        typer.echo(f"{site.name}: the rows of {site.dataset!r} are those that are frozen.")
        return
    lines = [[part, _count(many, exact)] for part, many in vars(found.difference).items()]
    output.as_table(["rows", "count"], lines, title=f"{site.name}, {site.dataset}: now against the frozen rows")
    if found.names_table:
        typer.echo("An earlier version froze them, and did not write down which table they are: freeze them again.")
    _say_resting(found.prepared.resting, exact)
    _warn_of_drift(found)
    for study in found.voids:
        typer.echo(f"The approval of study {study!r} would not hold for them: approve it again.")


def _warn_of_drift(found: Refresh) -> None:
    """Warn, under `institution`, where sums over the rows could not be held against those that left before."""
    site = found.prepared.site
    # Sums of an open site are not held against those that left before.
    if not found.drifted or site.policy.disclosure == "open":
        return
    group = found.prepared.schema.group
    which = f"nearly all identifiers in column {group!r} changed" if group else "nearly all rows changed"
    typer.echo(
        f"Warning: {which} while about as many people are there. Sums over these rows cannot be held against sums that "
        "left before: who joined or left in between may follow from both, and resting rows do not hide it. If a column "
        "is computed anew each time (an age as of today, a sum in floating point, a numbering), round it or fix its "
        "date in the mapping before you agree.",
        err=True,
    )


def _say_excluded(frozen: Frozen, exact: bool) -> None:
    counted = frozen.excluded
    if counted is None:
        return
    rows = _count(counted.rows, exact)
    typer.echo(f"{counted.found} of {counted.listed} identifiers of people who opted out were found; {rows} rows went.")


def _say_resting(resting: Resting | None, exact: bool) -> None:
    if resting is not None:
        typer.echo(
            f"{_count(resting.persons, exact)} other people's rows rest as well, so that nobody can tell from sums "
            "which left before who opted out, or who came; they come back when that cannot be told any more."
        )


def _count(many: int, exact: bool) -> str:
    return str(many) if exact else count_in_words(many)


def _shown(frozen: Frozen, exact: bool) -> dict[str, object]:
    """Return the facts of a snapshot for a program; the file's name is the gate's own matter."""
    counted = frozen.excluded
    gone = counted and {"listed": counted.listed, "found": counted.found, "rows": _count(counted.rows, exact)}
    facts = {key: value for key, value in frozen.as_json().items() if key in ("site", "dataset", "rows", "at")}
    hashes = {"rows-sha256": frozen.sha256, "schema-sha256": frozen.schema_sha256}
    return facts | hashes | {"excluded": gone, "resting": _resting(frozen.resting, exact)}


def _resting(resting: Resting | None, exact: bool) -> dict[str, str] | None:
    return None if resting is None else {part: _count(many, exact) for part, many in vars(resting).items()}


def replay_round(
    run: str = typer.Argument(..., help="The run's id, as the site's ledger has it, or latest."),
    round: int = typer.Option(..., "--round", min=1, help="The round, from 1."),
    site: str = typer.Option(..., "--site", help="The site's name."),
    as_json: bool = output.JSON,
) -> None:
    """Compute the site's update of a round again from its frozen rows, and compare it with what left.

    Exit codes: 0 bit for bit what the ledger says, 1 not, 2 wrong use, or no longer kept.
    """
    from flfed.deployment.operator.replay import replay
    from flfed.paths import SiteFolder
    from flfed.rows.data import site_discovery as sites

    found = replay(SiteFolder(site), sites.load(site), run, round)
    if as_json:
        output.as_json(found.as_json())
    # The object is printed first, so that a program has it also where the replay differs.
    if error := found.error():
        raise error
    if not as_json:
        typer.echo(f"{site}: round {round} of run {found.run} gives bit for bit what left (SHA-256 {found.given[0]}).")


@app.command("new", epilog="Example: flfed site new st-mary --from patients.csv --dataset heart-disease")
@output.tables
def new_site(
    name: str = typer.Argument(..., help="The site's name, of a-z, 0-9 and hyphens."),
    dataset: str = typer.Option(..., help="The dataset whose schema the table is mapped to."),
    from_file: Path | None = typer.Option(None, "--from", help=f"The table: {TABLE_KINDS}."),
    query: str = typer.Option("", help="Or one SELECT on a database; its address stands in --url-variable."),
    url_variable: str = typer.Option("FLFED_SITE_URL", help="Environment variable that holds the database's URL."),
    names: str = NAMES,
    sheet: str = SHEET,
    title: str = typer.Option("", help="The institution's name for people."),
    public: bool = PUBLIC,
    to: Path = TO,
    as_json: bool = output.JSON,
) -> None:
    """Write a site's package: its source, a proposed mapping to a dataset's schema, a holdout and a policy.

    Columns are matched one to one by names, values, units and ranges. No cell is printed.
    """
    from flfed.rows.proposals.matching import propose_site

    source = _source(from_file, query, url_variable, names, sheet)
    made = propose_site(name, dataset, source, title=title, open_data=public)
    written = made.write(to)
    if as_json:
        columns = list(map(_as_object, made.matches))
        output.as_json({"site": name, "dataset": dataset, "columns": columns, "files": [str(path) for path in written]})
        return
    rows = list(map(_row, made.matches))
    print_reasons("read from", rows, f"{name}: a mapping to {dataset}")
    for line in _advice(made, written[0]):
        output.say(line)
    typer.echo(f"Next: {cd(to)}flfed site check {name}")


def _as_object(match: Match) -> dict[str, object]:
    factor = match.field.multiply if match.field else None
    return {"column": match.column, "own": match.own, "sure": match.sure, "why": match.why, "unit-factor": factor}


def _row(match: Match) -> list[str]:
    mark = "" if match.sure else "look"
    return [match.column, match.own or "–", mark, match.why]


def _source(file: Path | None, query: str, url_variable: str, names: str, sheet: str) -> Source:
    """Return the source that the options name."""
    from flfed.rows.data.sources import Sql
    from flfed.rows.proposals.own_tables import source_of

    if (file is None) == (not query):
        raise UsageError("give either --from FILE or --query SELECT")
    if file is None:
        return Sql(query, url_variable)
    return source_of(file, names=names, sheet=sheet)


def _advice(made: SiteProposal, path: Path) -> list[str]:
    """Return what a person has to do in the file."""
    from flfed.rows.proposals.matching import UNKNOWN

    absent = [m.column for m in made.matches if m.own is None and m.column != made.target.column]
    lines = [f"Written: {path} and policy.toml beside it."]
    if made.target.own is None:
        lines.append(f"Say there which column holds {made.target.column}, which is to be predicted: {made.target.why}.")
    elif not made.target.sure:
        lines.append(f"Look whether {made.target.own} is {made.target.column}, which is to be predicted.")
    if made.unnamed:
        columns = ", ".join(made.unnamed)
        lines.append(f"Say there what the codes of {columns} mean: each {UNKNOWN!r} is one of the schema's values.")
    if absent:
        lines.append(
            f"No column was found for {', '.join(absent)}: they are mapped to None, which means not recorded here."
        )
    if made.unread:
        lines.append(f"Nothing is read from {', '.join(made.unread)}.")
    return lines
