"""`flfed site setup`: the steps of a site, from its table to serving, as one dialogue."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from flfed.cli import arguments, output
from flfed.cli.site import approve, join, rows, serve
from flfed.errors import UsageError
from flfed.paths import SiteFolder, joined_sites
from flfed.words import render, usage_error

if TYPE_CHECKING:
    from flfed.rows.data.site import Site
    from flfed.study.study import Study


NAME = typer.Argument(
    "",
    metavar="[NAME]",
    help="Site name; by default that of the kit, or of the one site that has joined here.",
    autocompletion=arguments.complete_sites,
)


def set_up_site(
    name: str = NAME,
    kit: Path | None = typer.Option(None, "--kit", metavar="FILE", help="The coordinator's kit, SITE.kit.zip."),
    study: str = typer.Option("", "--study", metavar="NAME|FILE", help="The study to approve."),
    co_sites: str = typer.Option("", "--with", metavar="A,B,C", help="As for flfed site approve --with."),
    start: Path | None = typer.Option(None, "--start", metavar="FOLDER", help="As for flfed site approve --start."),
    by: str = approve.BY,
    to: Path = typer.Option(Path("."), "--output", help="Folder of SITE.admission.", show_default="the current folder"),
    memory: str = typer.Option("", "--memory", metavar="SIZE", help="As for flfed site serve --memory."),
) -> None:
    """Set a site up in one dialogue: check its table, join, make its key, approve a study, serve.

    Each step is that of its own command. The dialogue asks for what no option names, and ends where something has to
    come from others first. Called again it skips all finished steps and goes on there. After a question a new kit
    replaces the earlier one.

    A person approves: the ten lines of the study are shown, and only the typed word approve approves it.
    """
    from flfed.deployment.site_state.trusted_files import is_served
    from flfed.study.study import Study

    # Wrong files are refused before anything is changed.
    if study:
        Study.load(study)
    if not name and kit is None:
        name, kit = _only_site()
    site = name if kit is None else _site_of(kit, name)
    own, folder = rows.opened(site)
    output.passed_over(site)
    _check(own, _status(folder, own))
    if not _join(folder, kit, to):
        return
    _say("key")
    join.show_key(site)
    if not _approve(own, folder, study, co_sites, start, by):
        return
    if is_served(folder):
        _say("serving", site=site)
        return
    _say("serve", site=site)
    serve.serve_site(site, network_only=False, gate_only=False, memory=memory)


def _say(step: str, **facts: object) -> None:
    output.say(render(f"setup.step.{step}", **facts))


def _ask(question: str, default: str = "") -> str:
    """Return what a person types at the terminal; "" without a terminal."""
    if not sys.stdin.isatty():
        return ""
    answer = typer.prompt(render(f"setup.ask.{question}"), default=default, show_default=bool(default))
    return str(answer).strip()


def _only_site() -> tuple[str, Path | None]:
    """Return the one site that has joined here; where there is none, the kit that a person names."""
    joined = joined_sites()
    if len(joined) > 1:
        raise usage_error("setup.refused.several", sites=", ".join(joined))
    if joined:
        return joined[0], None
    kit = _ask_kit()
    if kit is None:
        raise usage_error("setup.refused.nameless")
    return "", kit


def _ask_kit() -> Path | None:
    """Return the kit that a person names, asked again while the file is none; None where it is not here yet."""
    from flfed.deployment.operator.join import open_kit

    while answer := _ask("kit"):
        kit = Path(answer).expanduser()
        try:
            open_kit(kit)
        except UsageError as error:
            output.say(str(error))
        else:
            return kit
    return None


def _site_of(kit: Path, name: str) -> str:
    """Return the site of a kit; raise where it is not the one named, or has no package here."""
    from flfed.deployment.operator.join import open_kit

    site = open_kit(kit).kit.site
    if name and site != name:
        raise usage_error("setup.refused.other-kit", site=name, other=site)
    if not join.has_package(site):
        raise usage_error("setup.refused.packageless", site=site, joined=", ".join(joined_sites()) or "no site")
    return site


def _status(folder: SiteFolder, own: Site) -> dict[str, Any]:
    """Return the site's status; raise where one user has not both halves of it, or it is paused."""
    from flfed.deployment.operator.status import status_of
    from flfed.deployment.site_state.trusted_files import is_elsewhere

    if is_elsewhere(folder):
        raise usage_error("setup.refused.two-users", site=own.name)
    status = status_of(folder, own)
    if status["paused"]:
        raise usage_error("setup.refused.paused", site=own.name)
    return status


def _check(own: Site, status: dict[str, Any]) -> None:
    """Check the table, unless a snapshot of it was taken already."""
    if status["snapshots"]:
        for snapshot in status["snapshots"]:
            _say("checked", dataset=snapshot["dataset"], rows=snapshot["rows"], at=snapshot["at"])
        return
    _say("check")
    rows.check_table(own, whole=False)


def _join(folder: SiteFolder, kit: Path | None, to: Path) -> bool:
    """Join with the kit, or with a new one in place of the earlier; return whether the site has joined."""
    from flfed.deployment.operator.join import joined

    if kit is None and not folder.join.exists():
        kit = _ask_kit()
        if kit is None:
            output.say(render("setup.waits.kit", site=folder.site))
            return False
    if kit is not None and _use_kit(folder, kit, to):
        return True
    facts = joined(folder)
    _say("joined", coordinator=facts["coordinator"], address=facts["address"], joined=facts["joined"])
    output.say(render("setup.step.admission", file=folder.admission))
    output.say(join.describe_key(facts["node-key"]))
    return True


def _use_kit(folder: SiteFolder, kit: Path, to: Path) -> bool:
    """Join with a kit; return False where the site has joined with this kit already."""
    from flfed.deployment.operator.join import joined, open_kit

    _site_of(kit, folder.site)
    code = open_kit(kit).kit.invitation_sha256
    if folder.join.exists() and joined(folder)["invitation-sha256"] == code:
        return False
    _say("join")
    join.join_site(kit, yes=False, to=to)
    return True


def _approve(own: Site, folder: SiteFolder, study: str, co_sites: str, start: Path | None, by: str) -> bool:
    """Let a person decide about the study, unless it is approved; return whether the site replies to one."""
    from flfed.study.study import Study

    approved = _approved(folder, own)
    if not study and not approved:
        study = _ask("study")
        if not study:
            output.say(render("setup.waits.study", site=own.name))
            return False
    if study:
        loaded_study = Study.load(study)
        sha256 = loaded_study.sha256()
        approved = [one for one in approved if one["study-sha256"] == sha256]
        if not approved:
            return _decide(own, folder, study, loaded_study, co_sites=co_sites, start=start, by=by)
    for one in approved:
        sites = ", ".join(one["co-sites"])
        facts = {"study": one["study"], "sha256": one["study-sha256"][:12], "at": one["at"], "by": one["by"]}
        _say("approved", **facts, sites=sites)
    if co_sites or start:
        output.say(render("setup.step.unused", site=own.name))
    return True


def _decide(
    own: Site, folder: SiteFolder, name: str, study: Study, *, co_sites: str, start: Path | None, by: str
) -> bool:
    """Ask for a person's decision, after the ten lines; return whether the study is approved."""
    _say("approve")
    options: dict[str, Any] = {"allow_unmatched": False, "runs": 1}
    options |= dict.fromkeys(("changed_sites", "unknown_releases", "every", "yes", "refuse"), False)
    answer = co_sites or _ask("sites", default=",".join(study.dataset.sites or ()))
    decided = False
    while not decided:
        try:
            join.compare_named_list(own.name, answer)
            approve.approve_study(name, site=own.name, co_sites=answer, start=start, by=by, as_json=False, **options)
            decided = True
        except UsageError as error:
            # A fingerprint that was typed wrong is typed again; an option is corrected by another call.
            if co_sites or not sys.stdin.isatty():
                raise
            output.say(str(error))
            answer = _ask("sites")
            decided = not answer
    sha256 = study.sha256()
    if any(one["study-sha256"] == sha256 for one in _approved(folder, own)):
        return True
    output.say(render("setup.waits.decision", site=own.name, study=study.name))
    return False


def _approved(folder: SiteFolder, own: Site) -> list[dict[str, Any]]:
    """Return the approvals by which the site replies to a study now."""
    studies = _status(folder, own)["studies"]
    return [one for one in studies if one["decision"] == "approved" and not one["reason"]]
