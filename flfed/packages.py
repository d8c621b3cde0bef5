"""Search path and trust of site and dataset packages.

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
from flfed.paths import home, where

ROOT = 0
FRAMES = "frames"
"""Folder under `FLFED_HOME` with the schemas of data frames that were federated on this machine."""
CODE = {".py", ".pyc", ".so", ".toml"}
"""Endings of a package's files that are run, or say what its site allows."""

_strict = False
"""Whether this process serves or runs a consortium."""
_looked_at: dict[Path, str] | None = None
"""Why each package that was there is refused, "" where it is not; None where each is looked at when it is needed."""


def be_strict() -> None:
    """Trust only protected packages in this process.

    The current folder is searched no longer, and packages that others could change are refused.
    """
    global _strict
    _strict = True


@contextmanager
def strictly() -> Iterator[None]:
    """Apply the strict rules while the block runs.

    It also works as a decorator.
    """
    global _strict
    before = _strict
    _strict = True
    try:
        yield
    finally:
        _strict = before


def look_at_packages() -> None:
    """Check every package that may run later.

    Call it where it is still known whose a package is.

    In a user namespace the files of all other accounts, root too, seem to be nobody's; behind a filter of system calls
    the groups of a directory service cannot be asked for. Imports none of them.
    """
    global _looked_at
    # Both packages in folders and installed ones may be imported later.
    places: list[Path] = []
    for root in roots():
        places += [path for path in (*root.glob("sites/*"), *root.glob("datasets/*")) if path.is_dir()]
    for module in {point.module for point in importlib.metadata.entry_points(group="flfed.site")}:
        places += _places(module)
    # The verdicts are kept, because the same look after isolation would blame every file.
    _looked_at = {place: _refusal(place) for place in dict.fromkeys(places)}


def named_folders() -> str:
    """Return the setting of `FLFED_PATH` for a person."""
    folders = os.environ.get("FLFED_PATH", "")
    if folders:
        return f"FLFED_PATH={folders}"
    return "FLFED_PATH is not set"


def roots() -> list[Path]:
    """Return the folders that may hold packages.

    They hold `sites/` and `datasets/`, and the first one goes first.

    Each folder of `FLFED_PATH`, the current folder (unless strict), what came with flfed, and (unless strict) the
    schemas of data frames that were federated here.
    """
    user_folders = [Path(part) for part in os.environ.get("FLFED_PATH", "").split(os.pathsep) if part]
    here = [] if _strict else [Path.cwd()]
    # The order is the precedence: what a person named goes before what came with flfed.
    frames = [] if _strict else [where() / FRAMES]
    folders = [*user_folders, *here, own_root(), *frames]
    resolved = dict.fromkeys(path.resolve() for path in folders)
    return [path for path in resolved if path.is_dir()]


def frames_folder() -> Path:
    """Return the folder with the schemas of data frames that were federated on this machine."""
    return home() / FRAMES


def own_root() -> Path:
    """Return the folder of the bundled packages.

    Sites, datasets and the app came with flfed.
    """
    package = Path(__file__).resolve().parent
    bundle = package / "_bundled"
    if bundle.is_dir():
        return bundle
    return package.parent


def unknown_name_error(kind: str, name: str, choices: list[str]) -> UsageError:
    """Return the error for an unknown site or dataset.

    It says what to do.
    """
    here = passed_over(kind, name)
    if here:
        return UsageError(f"{kind} {name!r} is not known: {here}")
    return UsageError(f"{kind} {name!r} is not known{nearest(name, choices)} Known: {', '.join(choices)}")


def passed_over(kind: str, name: str) -> str:
    """Explain why a local package is ignored.

    It lies in the current folder, which is not searched. An empty text where there is none.

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
    # A folder that FLFED_PATH names is searched, even where it is the current one.
    if not _strict or here.resolve() in roots():
        return ""
    for folder in dict.fromkeys((name, name.replace("-", "_"))):
        if "/" not in folder and (here / f"{kind}s" / folder).is_dir():
            return f"{kind}s/{folder} in the current folder is not looked at; to name it: FLFED_PATH=$PWD flfed …"
    return ""


def check_module(name: str) -> None:
    """Refuse an installed module that others could change.

    It is called before the import.

    Raises
    ------
    UsageError
        As `check_package` does.
    """
    if _strict:
        for place in _places(name):
            check_package(place)


def _places(module: str) -> list[Path]:
    """Return the locations of a module's top package.

    Nothing where it is imported already.
    """
    top = module.partition(".")[0]
    try:
        spec = importlib.util.find_spec(top) if top not in sys.modules else None
    except (ImportError, ValueError):
        return []  # importing it says more
    named = (spec.submodule_search_locations or [spec.origin or ""]) if spec else []
    return [Path(place) for place in named if os.path.isabs(place)]


def check_package(folder: Path) -> None:
    """Refuse a package that others could change.

    Applies where the package would be run or trusted under the strict rules.

    Every folder above it counts, too: who may write there can put another package in its place. In a folder with
    the sticky bit, such as `/tmp`, nobody can do that to what is somebody else's.

    Raises
    ------
    UsageError
        Names the folder or file, and what to do.
    """
    # Only strict commands refuse, and Windows has no such modes.
    if not _strict or os.name != "posix":
        return
    unseen = f"{folder}: was not there when this process began: serve again"
    # A package that appeared after the check was never seen, so it is not trusted.
    why = _refusal(folder) if _looked_at is None else _looked_at.get(folder, unseen)
    if why:
        raise UsageError(why)


def _refusal(folder: Path) -> str:
    why = first_changeable([folder, *_inside(folder)])
    if why:
        return f"{why}; what runs of {folder} would be theirs to choose"
    return ""


def first_changeable(parts: Iterable[Path]) -> str:
    """Return the first path that others could change.

    All folders above the given files count. The reason goes with it, and the text is empty where there is none.
    """
    places: dict[Path, None] = {}
    # A link may be moved and its target may be rewritten, so both paths are checked.
    for part in parts:
        for path in (part.absolute(), part.resolve()):
            places |= dict.fromkeys((path, *path.parents))
    return next((f"{place}: {why}" for place in places if (why := changeable(place))), "")


def _inside(folder: Path) -> Iterator[Path]:
    """Yield a package's folders and executable files."""
    for above, folders, files in os.walk(folder):
        yield from (Path(above, name) for name in folders)
        yield from (Path(above, name) for name in files if Path(name).suffix in CODE)


def changeable(place: Path) -> str:
    """Return why other accounts could change a path.

    This account and root do not count. An empty text where no other could.
    """
    try:
        target = place.stat()
        link = place.lstat()
    except OSError as error:
        return f"cannot be looked at ({error.strerror})"
    # Who owns a link may let it point elsewhere.
    for owner in (link.st_uid, target.st_uid):
        if owner not in (os.geteuid(), ROOT):
            return f"belongs to {_account(owner)}: chown it to {_account(os.geteuid())} or to root"
    # In a sticky folder nobody can replace what belongs to another account.
    sticky = stat.S_ISDIR(target.st_mode) and target.st_mode & stat.S_ISVTX
    if sticky:
        return ""
    return writable(place, target)


def writable(place: Path, status: os.stat_result) -> str:
    """Return by which right of its mode other accounts may write to a path, and the command that takes it away.

    An empty text where none may. `status` is of the path, or of what it links to.
    """
    mode = status.st_mode
    shown = f"mode {stat.S_IMODE(status.st_mode):o}"
    if mode & stat.S_IWOTH:
        return f"every account may write there ({shown}): chmod go-w {place}"
    # A group of one account alone gives nobody else a way in.
    if mode & stat.S_IWGRP and not (_is_private(status.st_gid) and not _has_list(place)):
        return f"its group may write there ({shown}), which others may be in: chmod g-w {place}"
    return ""


def _account(number: int) -> str:
    import pwd

    try:
        return f"account {pwd.getpwuid(number).pw_name}"
    except KeyError:
        return f"account {number}"


def _is_private(number: int) -> bool:
    """Tell whether a group belongs to one account.

    That account is this one or root, alone in the group, and bears its name.
    """
    import grp
    import pwd

    try:
        group = grp.getgrgid(number)
        owner = pwd.getpwnam(group.gr_name)
    except KeyError:
        return False
    allowed = {os.geteuid(), ROOT}
    # Membership stands in two places: as a user's main group, and in the group's own list.
    members = {user.pw_uid for user in pwd.getpwall() if user.pw_gid == number or user.pw_name in group.gr_mem}
    return owner.pw_uid in allowed and members <= allowed


def _has_list(place: Path) -> bool:
    """Tell whether a path has an access list.

    With one, the group's bits may speak of other accounts.
    """
    if sys.platform != "linux":
        return False
    try:
        return "system.posix_acl_access" in os.listxattr(place)
    except OSError:
        return False
