"""`flfed site list`, `check`, `new`, `snapshot`, `refresh` and `replay`: a site's table, and the rows it serves."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from flfed.cli import completion, output
from flfed.cli.data import NAMES, PUBLIC, SHEET, TABLE_KINDS, TO, cd, print_reasons
from flfed.errors import UsageError, count_in_words
from flfed.paths import SiteFolder

if TYPE_CHECKING:
    from flfed.deployment.site_state.freeze import Refresh
    from flfed.rows.data.site import Site
    from flfed.rows.data.sources import Source
    from flfed.rows.data.table_check import Checked
    from flfed.rows.proposals.matching import SiteProposal


app = typer.Typer(no_args_is_help=True, help="List sites and check their tables.")
EVERY_DAY = "Every day"
SETTING_UP = "Setting up"
RARELY = "Rarely"
"""Panels of the help of `flfed site`."""


def opened(name: str) -> tuple[Site, SiteFolder]:
    """Return a site with its folder."""
    from flfed.rows.data import site_discovery

    site = site_discovery.load(name)
    return site, SiteFolder(site.name)


@app.command("list", epilog="Example: flfed site list", rich_help_panel=EVERY_DAY)
@output.tables
def list_sites(whole: bool = output.ALL) -> output.Shown:
    """List the sites found, with dataset and disclosure."""
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
    # A package that cannot be loaded has its reason in the column of titles.
    if "title" in gone:
        for name, why in broken.items():
            output.say(f"{name}: {why}")


DATASET = typer.Option("", help="One of the datasets that the site serves; its own unless given.")


@app.command("check", epilog="Example: flfed site check cleveland --local-rows broken.csv", rich_help_panel=EVERY_DAY)
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
    from flfed.rows.data.table_check import check_site as check
    from flfed.rows.data.table_check import write_local_rows

    site, folder = opened(name)
    if why := open_folder(folder):
        typer.echo(f"WARNING, {why}", err=True)
    dataset = dataset or site.dataset
    checked = check(site.serving(dataset))
    # The file names rows, so that it is written apart from what is printed.
    if local_rows is not None:
        lines = write_local_rows(checked, local_rows)
        amount = "1 line" if lines == 1 else f"{lines} lines"
        typer.echo(f"{amount} written to {local_rows}; it names rows, so it must not leave the site.", err=True)
    output.show(_checked(checked), as_json)
    if not checked.passed:
        raise UsageError(
            f"site {checked.site!r} does not fit dataset {dataset!r}: {_first_wrong(checked)}; "
            "correct table or mapping, --local-rows FILE lists the rows"
        )


def _checked(checked: Checked) -> output.Shown:
    from flfed.rows.data.table_check import features_in_words

    yield {
        "site": checked.site,
        "passed": checked.passed,
        "rows": checked.rows,
        "training-rows": checked.training_rows,
        "holdout-rows": checked.holdout_rows,
        "features": checked.features,
        "mapped-features": checked.mapped,
        "columns": list(map(asdict, checked.lines)),
    }
    rows = []
    for line in checked.lines:
        passed = "pass" if line.passed else "FAIL"
        if line.note:
            passed = "note"
        rows.append([line.column, passed, line.detail])
    title = f"{checked.site}: {checked.rows} rows"
    below = [row[1] != "pass" for row in rows]
    output.as_table(["column", "", "counts"], rows, title=title, cut="counts", below=below)
    fits = f"fits: {checked.training_rows} training rows, {checked.holdout_rows} holdout rows"
    verdict = fits if checked.passed else "does not fit yet"
    yield f"{checked.site} {verdict}; {features_in_words(checked.mapped, checked.features)}."


def _first_wrong(checked: Checked) -> str:
    """Return the first reason why a table does not fit; one is enough for a sentence, and the table has them all."""
    first, *others = (line for line in checked.lines if not line.passed)
    more = f" (and {len(others)} more)" if others else ""
    column = "" if first.column == "table" else f"column {first.column!r} "
    return f"{column}{first.detail}{more}"


NAME = typer.Argument(..., help="The site's name.", autocompletion=completion.sites)
EXACT = typer.Option(False, "--exact", help="Show small counts as they are: for the site's own eyes.")


@output.with_json
def snapshot_rows(name: str = NAME, dataset: str = DATASET, exact: bool = EXACT) -> output.Shown:
    """Take a snapshot of the site's rows, mapped and checked: its gate serves these.

    People on the list of those who opted out (excluded.csv) are left out first.
    """
    from flfed.deployment.site_state.freeze import freeze_first

    site, folder = opened(name)
    frozen = freeze_first(folder, site.serving(dataset or site.dataset))
    gone = _excluded(frozen, exact)
    resting = _resting(frozen.resting, exact)
    yield {
        "site": frozen.site,
        "dataset": frozen.dataset,
        "rows": frozen.rows,
        "at": frozen.at,
        "rows-sha256": frozen.sha256,
        "schema-sha256": frozen.schema_sha256,
        "excluded": gone,
        "withheld": resting,
    }
    _say_excluded(gone)
    _say_resting(resting)
    yield f"{frozen.site}: {frozen.rows} rows of {frozen.dataset!r} are frozen."
    yield f"SHA-256 of the rows: {frozen.sha256}"


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

    site, folder = opened(name)
    difference = refresh(folder, site.serving(dataset or site.dataset))
    if not as_json:
        _say_difference(difference, exact)
    # With --json nothing is asked, so that only --yes writes.
    agreed = difference.changes and (yes or (not as_json and output.agreed("Freeze the rows as they are now?")))
    frozen = difference.write() if agreed else None
    if as_json:
        output.print_json(_refreshed(difference, frozen, exact))
    elif frozen is not None:
        _say_excluded(_excluded(frozen, exact))
        typer.echo(f"{frozen.site}: frozen again. SHA-256 of the rows: {frozen.sha256}")
    elif difference.changes:
        typer.echo(f"{site.name}: nothing was written; to write it: flfed site refresh {site.name} --yes")


def _refreshed(refresh: Refresh, frozen: Any, exact: bool) -> dict[str, object]:
    """Return what was found and written, for a program; small counts are withheld, as it may be sent on."""
    site = refresh.prepared.site
    now = frozen or refresh.before
    return {
        "site": site.name,
        "dataset": site.dataset,
        **{part: _count(many, exact) for part, many in vars(refresh.difference).items()},
        "voids": list(refresh.voids),
        "withheld": _resting(refresh.prepared.resting, exact),
        "drifted": refresh.drifted,
        "written": frozen is not None,
        "rows-sha256": now and now.sha256,
        "unusable": refresh.unusable,
    }


def _say_difference(refresh: Refresh, exact: bool) -> None:
    site = refresh.prepared.site
    # A snapshot that cannot be compared may still be replaced.
    if refresh.unusable:
        typer.echo(f"The snapshot that is there cannot be compared with: {refresh.unusable}", err=True)
    if not refresh.changes:
        typer.echo(f"{site.name}: the rows of {site.dataset!r} are those that are frozen.")
        return
    lines = [[part, _count(many, exact)] for part, many in vars(refresh.difference).items()]
    output.as_table(["rows", "count"], lines, title=f"{site.name}, {site.dataset}: now against the frozen rows")
    if refresh.names_table:
        typer.echo("An earlier version froze them, and did not write down which table they are: freeze them again.")
    _say_resting(_resting(refresh.prepared.resting, exact))
    _warn_of_drift(refresh)
    for study in refresh.voids:
        typer.echo(f"The approval of study {study!r} would not hold for them: approve it again.")


def _warn_of_drift(refresh: Refresh) -> None:
    """Warn, under `institution`, where sums over the rows could not be held against those that left before."""
    site = refresh.prepared.site
    # Sums of an open site are not held against those that left before.
    if not refresh.drifted or site.policy.disclosure == "open":
        return
    group = refresh.prepared.schema.group
    which = f"nearly all identifiers in column {group!r} changed" if group else "nearly all rows changed"
    typer.echo(
        f"Warning: {which} while about as many people are there. Sums over these rows cannot be held against sums that "
        "left before: who joined or left in between may follow from both, and resting rows do not hide it. If a column "
        "is computed anew each time (an age as of today, a sum in floating point, a numbering), round it or fix its "
        "date in the mapping before you agree.",
        err=True,
    )


def _excluded(frozen: Any, exact: bool) -> dict[str, Any] | None:
    """Return how many people opted out, how many of them were found, and how many rows went."""
    counted = frozen.excluded
    return counted and {"listed": counted.listed, "matched": counted.found, "rows": _count(counted.rows, exact)}


def _say_excluded(gone: dict[str, Any] | None) -> None:
    if gone is not None:
        sentence = f"{gone['matched']} of {gone['listed']} identifiers of people who opted out were found"
        typer.echo(f"{sentence}; {gone['rows']} rows went.")


def _say_resting(resting: dict[str, str] | None) -> None:
    if resting is not None:
        typer.echo(
            f"{resting['persons']} other people's rows rest as well, so that nobody can tell from sums "
            "which left before who opted out, or who came; they come back when that cannot be told any more."
        )


def _count(many: int, exact: bool) -> str:
    return str(many) if exact else count_in_words(many)


def _resting(resting: object | None, exact: bool) -> dict[str, str] | None:
    if resting is None:
        return None
    return {part: _count(many, exact) for part, many in vars(resting).items()}


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

    own, _ = opened(site)
    replayed_round = replay(SiteFolder(site), own, run, round)
    if as_json:
        output.print_json(replayed_round.as_json())
    # The object is printed first, so that a program has it also where the replay differs.
    if error := replayed_round.error():
        raise error
    if not as_json:
        typer.echo(
            f"{site}: round {round} of run {replayed_round.run} gives bit for bit what left "
            f"(SHA-256 {replayed_round.ledger_hashes[0]})."
        )


@app.command(
    "new",
    epilog="Example: flfed site new st-mary --from patients.csv --dataset heart-disease",
    rich_help_panel=SETTING_UP,
)
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
) -> output.Shown:
    """Write a site's package: its source, a proposed mapping to a dataset's schema, a holdout and a policy.

    Columns are matched one to one by names, values, units and ranges. No cell is printed.
    """
    from flfed.rows.proposals.matching import propose_site

    source = _source(from_file, query, url_variable, names, sheet)
    made = propose_site(name, dataset, source, title=title, open_data=public)
    written = made.write(to)
    columns = []
    rows = []
    for match in made.matches:
        factor = match.field.multiply if match.field else None
        facts: dict[str, object] = {
            "column": match.column,
            "site-column": match.own,
            "sure": match.sure,
            "why": match.why,
        }
        columns.append(facts | {"unit-factor": factor})
        mark = "" if match.sure else "look"
        rows.append([match.column, match.own or "–", mark, match.why])
    yield {"site": name, "dataset": dataset, "columns": columns, "files": list(map(str, written))}
    print_reasons("read from", rows, f"{name}: a mapping to {dataset}")
    for line in _advice(made, written[0]):
        output.say(line)
    yield f"Next: {cd(to)}flfed site check {name}"


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
