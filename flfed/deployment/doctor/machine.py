"""Checks of a machine: modes and owners of files, room on disks, installed units, and versions."""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import flfed
from flfed.deployment.coordinator.certificates import RENEWED_DAYS
from flfed.deployment.coordinator.kits import flwr_version
from flfed.deployment.processes.units import TEMPLATES, number_of
from flfed.flower_names import FLOWER
from flfed.paths import where
from flfed.words import render, usage_error

LEAST_BYTES = 500_000_000
"""Room below which a disk is nearly full: a run of large models writes some hundred megabytes."""
UNDONE_SECONDS = 300.0
"""After which a request without an answer, or a node out of reach, is a finding: a fit may take minutes."""
UNIT_FOLDERS = ("/etc/systemd/system", "/etc/sysusers.d", "/etc/tmpfiles.d")
"""Folders where an administrator installs what `flfed site units` writes."""
ALLOWED = re.compile(r"^IPAddressAllow=localhost (\S+)$", re.MULTILINE)
"""The only address, besides this machine's, that a unit lets its process reach."""
MADE_BY = re.compile(r"Made by flfed ([0-9A-Za-z.+!-]+[0-9A-Za-z])")


@dataclass(frozen=True)
class Finding:
    """A fault with its remedy.

    Attributes
    ----------
    name : str
        Key of its sentences in `words/doctor.toml`.
    text, remedy : str
        Neither has a password or a cell.
    """

    name: str
    text: str
    remedy: str


def finding(name: str, **facts: object) -> Finding:
    """Return a finding in the sentences of its name."""
    return Finding(name, render(f"doctor.findings.{name}", **facts), render(f"doctor.remedies.{name}", **facts))


def check_home() -> list[Finding]:
    """Return the findings about FLFED_HOME; all other checks need it.

    They would make it, or mend its mode, since every command does.

    Raises
    ------
    UsageError
        If it is absent.
    """
    path = where()
    if not os.path.isdir(path):  # also where this account may not look; `Path.is_dir` raises then
        raise usage_error("doctor.command.absent", path=path)
    sticky = path.stat().st_mode & stat.S_ISVTX
    if not sticky and (wrong := list(check_private([path]))):
        return wrong
    return check_folders([path])


def check_folders(folders: Iterable[Path]) -> list[Finding]:
    """Return a finding about the first folder that this account may not enter; each comes after those it is in."""
    for folder in folders:
        if os.path.isdir(folder) and not os.access(folder, os.R_OK | os.X_OK):
            return [finding("entry", path=folder, own=os.geteuid())]
    return []


def check_private(paths: Iterable[Path], *, owner_alone: bool = False) -> Iterator[Finding]:
    """Yield a finding for each path that others may use, or that is another account's.

    A path that is absent or out of reach is left to the check of its content. With `owner_alone`, modes are not
    checked.
    """
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            continue
        mode = stat.S_IMODE(status.st_mode)
        if status.st_uid != os.geteuid():
            yield finding("owner", path=path, owner=status.st_uid, own=os.geteuid())
        elif mode & 0o077 and not owner_alone:
            yield finding("mode", path=path, mode=f"{mode:o}")


def check_disks(folders: Iterable[Path]) -> Iterator[Finding]:
    """Yield a finding for each disk of some folders that is nearly full."""
    seen = set()
    for folder in folders:
        if folder.is_dir() and (device := folder.stat().st_dev) not in seen:
            seen.add(device)
            free = shutil.disk_usage(folder).free
            if free < LEAST_BYTES:
                yield finding("disk", folder=folder, free=free // 1_000_000, least=LEAST_BYTES // 1_000_000)


def check_ending(name: str, days: int) -> Iterator[Finding]:
    """Yield a finding of some name for a certificate with less than `RENEWED_DAYS` left."""
    if days < 0:
        yield finding(name, when=render("doctor.when.ended"))
    elif days < RENEWED_DAYS:
        yield finding(name, when=render("doctor.when.ending", days=days))


def check_units(site: str) -> Iterator[Finding]:
    """Yield a finding for each installed unit of a site that another version of flfed wrote."""
    for folder in map(Path, UNIT_FOLDERS):
        # By their whole names: another site's may begin with this one's, and systemd has folders beside them.
        for path in (folder / f"flfed-{site}-{template}" for template in TEMPLATES):
            made_by = MADE_BY.search(_read_unit(path))
            if made_by and made_by[1] != flfed.__version__:
                yield finding("units", path=path, version=made_by[1], own=flfed.__version__, site=site)


def check_egress(site: str, peer: str) -> Iterator[Finding]:
    """Yield a finding where the installed unit of the node forbids its way.

    Parameters
    ----------
    site : str
    peer : str
        The coordinator's or the proxy's address. Nothing follows from a name.
    """
    path = Path(UNIT_FOLDERS[0]) / f"flfed-{site}-network.service"
    allowed = ALLOWED.search(_read_unit(path))
    number = number_of(peer)
    if allowed and number and allowed[1] != number:
        yield finding("egress", path=path, allowed=allowed[1], number=number, site=site)


def _read_unit(path: Path) -> str:
    """Return a unit's text; empty where it is absent, masked, or not for this account."""
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""


def check_flower() -> Iterator[Finding]:
    """Yield a finding where Flower is not the version that this flfed works with."""
    if flwr_version() != FLOWER:
        yield finding("flower", installed=flwr_version(), needed=FLOWER)
