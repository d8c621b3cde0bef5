"""`flfed rehearse`: a study at its sites as real processes of this machine, before any institution joins."""

from __future__ import annotations

import os
import signal
import sys
import time
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from flfed.callbacks import Clock, ProgressLines, in_words, loading, repeating
from flfed.cli import output
from flfed.cli.arguments import SET, STUDY, study_of
from flfed.cli.dashboard import has_screen
from flfed.cli.progress import stoppable
from flfed.cli.runs import object_of
from flfed.cli.site.approve import approve_study, check_answering
from flfed.errors import FlfedError, RunStopped
from flfed.words import counted, render

if TYPE_CHECKING:
    from flfed.deployment.rehearsal.consortium import Rehearsal
    from flfed.federation.server.run import Result

SILENT_SECONDS = 4.0
"""After so long without a line, one says which step still goes on."""
LOOK_SECONDS = 1.0
WAIT_SECONDS = 0.2
MIDDLE = "in the middle of the rehearsal"


class StepLines:
    """Lines of steps on standard error, and lines in between that say which step still goes on.

    Parameters
    ----------
    clock : callable
        Seconds; tests pass their own.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._began = self._last = clock()
        self._step = ""
        self._stage = ""
        self._rounds = ProgressLines(self.say, clock, soon=0.0)

    def step(self, sentence: str) -> None:
        """Print a step, which goes on until the next one."""
        self._step = sentence.rstrip(".")
        self._stage = ""
        self._began = self._clock()
        self.say(sentence)

    def say(self, line: str) -> None:
        """Print a line."""
        self._last = self._clock()
        typer.echo(line, err=True)

    def show_stage(self, stage: str, done: int, of: int) -> None:
        """Print the progress of a run: a line for each tenth of a stage, and sentences."""
        self._stage = ""
        if done < of:
            self._stage = f": {stage}, {done} of {of}" if of > 1 else f": {stage}"
        self._rounds(stage, done, of)

    def look(self) -> None:
        """Print which step still goes on, if nothing was printed for some seconds."""
        now = self._clock()
        if self._step and now - self._last >= SILENT_SECONDS:
            going_on = self._step + self._stage
            self.say(render("rehearsal.steps.still", step=going_on, time=in_words(now - self._began)))

    def pause(self) -> None:
        """Print no step any more: all steps are over."""
        self._step = ""


@contextmanager
def ended_with_terminal() -> Iterator[None]:
    """Let the end of the terminal stop the command as SIGTERM does, unless it ignores that (nohup)."""
    before = signal.getsignal(signal.SIGHUP)
    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.getsignal(signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


@output.tables
def rehearse_study(
    name: str = STUDY,
    changes: list[str] = SET,
    apps: bool | None = typer.Option(
        None, "--apps/--no-apps", help="Open both apps and wait, as at a terminal, or end after the run."
    ),
    keep: bool = typer.Option(False, "--keep", help="Keep the folder, to look again; it has copies of all rows."),
    as_json: bool = output.JSON,
) -> None:
    """Rehearse a study on this machine: real servers, keys, approvals and a run, all removed at the end.

    The coordinator and each site are processes of their own, with TLS, a home, keys and a ledger for the rehearsal
    only. An automatic operator approves at every site. No real ledger, budget or approval is used. All tables are on
    this machine: institutions do not join this way. It needs Debian's caddy.

    Ctrl-C ends it. Exit codes: as for study run.
    """
    from flfed.deployment.coordinator.proxy import find_caddy

    lines = StepLines()
    with stoppable(MIDDLE), ended_with_terminal(), repeating(LOOK_SECONDS, lines.look):
        lines.step(render("rehearsal.steps.checking"))
        # Study and Caddy are checked first: that loads nothing heavy.
        study = study_of(name, changes)
        find_caddy()
        with loading(freeze=True):
            from flfed.deployment.rehearsal import consortium as rehearsal
        with rehearsal.naming_packages() as real:
            sites = rehearsal.find_rehearsal_sites(study)
            # A study that a site would refuse is refused before anything is made.
            for site in sites:
                check_answering(study, site, tuple(other.name for other in sites if other is not site))
            with rehearsal.rehearsal_folder(keep=keep, notify=lines.step) as folder:
                consortium = rehearsal.Rehearsal(folder, study, tuple(sites), real, lines.step)
                facts = {"study": study.name, "sites": counted(len(sites), "site"), "folder": folder}
                lines.step(render("rehearsal.steps.begin", **facts))
                lines.say(render("rehearsal.steps.caution"))
                try:
                    # Without a terminal nobody presses Ctrl-C.
                    _rehearse(consortium, lines, apps=sys.stdin.isatty() if apps is None else apps, as_json=as_json)
                finally:
                    if keep:
                        _print_again(consortium)


def _print_again(consortium: Rehearsal) -> None:
    """Print how to look at a folder that stays."""
    first = consortium.names[0]
    path = os.environ["FLFED_PATH"]
    commands = [f"FLFED_HOME={consortium.coordinator_home} flfed app"]
    commands.append(f"FLFED_PATH={path} FLFED_HOME={consortium.home(first)} flfed site app {first}")
    typer.echo(render("rehearsal.end.kept", folder=consortium.folder), err=True)
    for command in commands:
        typer.echo(render("rehearsal.end.again", command=command), err=True)


def _rehearse(consortium: Rehearsal, lines: StepLines, *, apps: bool, as_json: bool) -> None:
    """Let everybody join and approve, run the study, and show its result and both apps."""
    from flfed.cli.run_tables import print_report
    from flfed.deployment.rehearsal.consortium import at_home
    from flfed.deployment.rehearsal.serving import serving, serving_apps

    partners = consortium.partners(consortium.take_in())
    for site in consortium.names:
        file = _approve(consortium, site, partners)
        lines.step(render("rehearsal.steps.approved", site=site, file=file))
    with serving(consortium) as look, at_home(consortium.coordinator_home):
        lines.step(render("rehearsal.steps.running", study=consortium.study.name))
        result = _run(consortium, lines)
        if as_json:
            output.print_json(object_of(result.run) | {"rehearsal": consortium.homes()})
        else:
            # Nothing can be looked up later: the record ends with the rehearsal.
            print_report(result.report, whole=True)
        # A stopped run is neither success nor failure, as in study run.
        if result.status == "stopped":
            raise typer.Exit(3)
        if not apps:
            return
        lines.step(render("rehearsal.steps.apps"))
        with serving_apps(consortium) as (look_at_apps, addresses):
            lines.pause()
            _print_apps(consortium, addresses)
            # Ctrl-C is the end that a person means here, and no failure.
            with suppress(KeyboardInterrupt):
                while True:
                    look()
                    look_at_apps()
                    time.sleep(WAIT_SECONDS)


def _approve(consortium: Rehearsal, site: str, partners: str) -> Path:
    """Approve at a site by the command that a person uses; return the file of the text that a person reads first."""
    from flfed.deployment.rehearsal.consortium import OPERATOR, at_home

    file = consortium.home(site) / "approval.txt"
    with at_home(consortium.home(site)), redirect_stdout(StringIO()) as text:
        approve_study(
            str(consortium.study_file), site=site, co_sites=partners, changed_sites=False, unknown_releases=False,
            start=None, runs=1, allow_unmatched=True, by=OPERATOR, every=False, yes=True, refuse=False, as_json=False,
        )  # fmt: skip
    file.write_text(text.getvalue(), encoding="utf-8")
    return file


def _run(consortium: Rehearsal, lines: StepLines) -> Result:
    """Run the study at the sites; its record says that it was a rehearsal, whatever its end is."""
    from flfed.deployment.rehearsal.serving import note_rehearsal
    from flfed.federation.server.run import run

    try:
        return run(consortium.study, engine="deployment", progress=lines.show_stage)
    except RunStopped as error:
        # Its servers end with the rehearsal: no resumption is advised.
        if error.by:
            raise RunStopped(f"{error.by} {MIDDLE}") from None
        raise
    finally:
        # The error of the run is the one that counts.
        with suppress(FlfedError):
            note_rehearsal(consortium)


def _print_apps(consortium: Rehearsal, addresses: list[str]) -> None:
    """Print the addresses of both apps, and open them where there is a screen."""
    coordinator, site = addresses
    typer.echo(render("rehearsal.end.app", address=coordinator), err=True)
    typer.echo(render("rehearsal.end.site-app", site=consortium.names[0], address=site), err=True)
    typer.echo(render("rehearsal.end.wait"), err=True)
    if has_screen():
        for address in addresses:
            webbrowser.open(address)
