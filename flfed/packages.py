"""Where the packages of sites and datasets are looked for, and which of them an institution's commands may run.

What serves or runs a consortium (`flfed coordinator …`, and `flfed site …` of a site that has joined) looks in
the folders of `FLFED_PATH` and in what came with flfed, never in the current folder, which may be anybody's; and
it runs no package that another account could change. Everything else looks in the current folder as well.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from flfed.errors import UsageError, nearest

ROOT = 0
CODE = {".py", ".pyc", ".so", ".toml"}
"""Endings of a package's files that are run, or say what its site allows."""

_strict = False
"""Whether this process serves or runs a consortium."""
_looked_at: dict[Path, str] | None = None
"""Why each package that was there is refused, "" where it is not; None where each is looked at when it is needed."""


def be_strict() -> None:
    """Look no longer in the current folder, and refuse packages that others could change, for as long as this runs."""
    global _strict
    _strict = True


@contextmanager
def strictly() -> Iterator[None]:
    """Be strict while the block, or the function that is wrapped, runs."""
    global _strict
    before, _strict = _strict, True
    try:
        yield
    finally:
        _strict = before


def look_at_packages() -> None:
    """Look now at every package that may be run later, where nobody could tell any more whose it is.

    In a user namespace the files of all other accounts, root too, seem to be nobody's; behind a filter of system calls
    the groups of a directory service cannot be asked for. Imports none of them.
    """
    global _looked_at
    folders = [path for root in roots() for kind in ("sites", "datasets") for path in root.glob(f"{kind}/*")]
    modules = {point.module for point in importlib.metadata.entry_points(group="flfed.site")}
    places = [*(path for path in folders if path.is_dir()), *(path for name in modules for path in _places(name))]
    _looked_at = {place: _refusal(place) for place in dict.fromkeys(places)}


def named_folders() -> str:
    """Return what `FLFED_PATH` says, as a person reads it."""
    given = os.environ.get("FLFED_PATH", "")
    return f"FLFED_PATH={given}" if given else "FLFED_PATH is not set"


def roots() -> list[Path]:
    """Return the folders that may hold `sites/` and `datasets/`, first one first.

    Each folder of `FLFED_PATH`, the current folder (unless strict), and what came with flfed.
    """
    given = [Path(part) for part in os.environ.get("FLFED_PATH", "").split(os.pathsep) if part]
    here = [] if _strict else [Path.cwd()]
    found = [*given, *here, own_root()]
    return [path for path in dict.fromkeys(path.resolve() for path in found) if path.is_dir()]


def own_root() -> Path:
    """Return the folder of what came with flfed: sites, datasets and the app."""
    package = Path(__file__).resolve().parent
    bundle = package / "_bundled"
    return bundle if bundle.is_dir() else package.parent


def not_known(kind: str, name: str, known: list[str]) -> UsageError:
    """Return the error that there is no such "site" or "dataset", with what to do."""
    here = passed_over(kind, name)
    if here:
        return UsageError(f"{kind} {name!r} is not known: {here}")
    return UsageError(f"{kind} {name!r} is not known{nearest(name, known)} Known: {', '.join(known)}")


def passed_over(kind: str, name: str) -> str:
    """Return a sentence where a package lies in the current folder and is not looked at, else "".

    Parameters
    ----------
    kind : str
        "site" or "dataset".
    name : str
    """
    try:
        here = Path.cwd()
    except OSError:  # removed meanwhile
        return ""
    if not _strict or here.resolve() in roots():
        return ""
    for folder in dict.fromkeys((name, name.replace("-", "_"))):
        if "/" not in folder and (here / f"{kind}s" / folder).is_dir():
            return f"{kind}s/{folder} in the current folder is not looked at; to name it: FLFED_PATH=$PWD flfed …"
    return ""


def check_module(name: str) -> None:
    """Refuse an installed module, before it is imported, that another account could change.

    Raises
    ------
    UsageError
        As `check_package` does.
    """
    for place in _places(name) if _strict else ():
        check_package(place)


def _places(module: str) -> list[Path]:
    """Return where an installed module's top package stands; nothing where it is imported already."""
    top = module.partition(".")[0]
    try:
        found = importlib.util.find_spec(top) if top not in sys.modules else None
    except (ImportError, ValueError):
        return []  # importing it says more
    named = (found.submodule_search_locations or [found.origin or ""]) if found else []
    return [Path(place) for place in named if os.path.isabs(place)]


def check_package(folder: Path) -> None:
    """Refuse a package that another account could change, where it would be run or believed strictly.

    Every folder above it counts, too: who may write there can put another package in its place. In a folder with
    the sticky bit, such as `/tmp`, nobody can do that to what is somebody else's.

    Raises
    ------
    UsageError
        Names the folder or file, and what to do.
    """
    if not _strict or os.name != "posix":
        return
    unseen = f"{folder}: was not there when this process began: serve again"
    why = _refusal(folder) if _looked_at is None else _looked_at.get(folder, unseen)
    if why:
        raise UsageError(why)


def _refusal(folder: Path) -> str:
    why = first_changeable([folder, *_inside(folder)])
    return f"{why}; what runs of {folder} would be theirs to choose" if why else ""


def first_changeable(parts: Iterable[Path]) -> str:
    """Return the first of some files and all folders above them that others could change, with why; "" of none."""
    places: dict[Path, None] = {}
    for part in parts:
        for path in (part.absolute(), part.resolve()):
            places |= dict.fromkeys((path, *path.parents))
    return next((f"{place}: {why}" for place in places if (why := changeable(place))), "")


def _inside(folder: Path) -> Iterator[Path]:
    """Yield the folders in a package, and its files that are run."""
    for above, folders, files in os.walk(folder):
        yield from (Path(above, name) for name in folders)
        yield from (Path(above, name) for name in files if Path(name).suffix in CODE)


def changeable(place: Path) -> str:
    """Return why another account than this one and root could change what is at a place; "" where none could."""
    try:
        found, link = place.stat(), place.lstat()
    except OSError as error:
        return f"cannot be looked at ({error.strerror})"
    if link.st_uid not in (os.geteuid(), ROOT):  # of a link: who owns it may let it point elsewhere
        return f"belongs to {_account(link.st_uid)}: chown it to {_account(os.geteuid())} or to root"
    mode, shown = found.st_mode, f"mode {stat.S_IMODE(found.st_mode):o}"
    if found.st_uid not in (os.geteuid(), ROOT):
        return f"belongs to {_account(found.st_uid)}: chown it to {_account(os.geteuid())} or to root"
    if stat.S_ISDIR(mode) and mode & stat.S_ISVTX:
        return ""
    if mode & stat.S_IWOTH:
        return f"every account may write there ({shown}): chmod go-w {place}"
    if mode & stat.S_IWGRP and not (_is_private(found.st_gid) and not _has_list(place)):
        return f"its group may write there ({shown}), which others may be in: chmod g-w {place}"
    return ""


def _account(number: int) -> str:
    import pwd

    try:
        return f"account {pwd.getpwuid(number).pw_name}"
    except KeyError:
        return f"account {number}"


def _is_private(number: int) -> bool:
    """Tell whether a group is that of one account alone, this one or root, and bears its name."""
    import grp
    import pwd

    try:
        group = grp.getgrgid(number)
        owner = pwd.getpwnam(group.gr_name)
    except KeyError:
        return False
    allowed = {os.geteuid(), ROOT}
    members = {user.pw_uid for user in pwd.getpwall() if user.pw_gid == number or user.pw_name in group.gr_mem}
    return owner.pw_uid in allowed and members <= allowed


def _has_list(place: Path) -> bool:
    """Tell whether a place has an access list, by which the group's bits may speak of other accounts."""
    if sys.platform != "linux":
        return False
    try:
        return "system.posix_acl_access" in os.listxattr(place)
    except OSError:
        return False
