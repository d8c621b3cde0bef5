"""Search path and trust of site and dataset packages.

Commands that serve or run a consortium (`flfed coordinator …`, and `flfed site …` of a site that has joined) search
the folders of `FLFED_PATH` and flfed itself. They never search the current folder, which may be anybody's, and run no
package that another account could change. All other commands search the current folder, too.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import stat
import sys
import sysconfig
import traceback
import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType

from flfed.errors import UsageError, unknown
from flfed.paths import home, where

ROOT = 0
FRAMES = "frames"
"""Folder under `FLFED_HOME` with schemas of federated data frames."""
SITES = "_flfed_sites."
"""Beginning of the private names under which packages of sites are imported."""
CODE = {".py", ".pyc", ".so", ".toml"}
"""Suffixes of a package's files with code, or with the policy of its site."""

_strict = False
"""Whether this process serves or runs a consortium."""
_looked_at: dict[Path, str] | None = None
"""Refusal of each checked package, "" for a good one; None if each is checked when it is needed."""


def be_strict() -> None:
    """Trust only protected packages in this process, and search the current folder no longer."""
    global _strict
    _strict = True


@contextmanager
def strictly() -> Iterator[None]:
    """Apply the strict rules while the block runs, or as a decorator."""
    global _strict
    before = _strict
    _strict = True
    try:
        yield
    finally:
        _strict = before


def is_strict() -> bool:
    """Return whether this process serves or runs a consortium."""
    return _strict


def import_file(path: Path, name: str) -> ModuleType:
    """Import a file of code under a private name; its folder's modules too, where it is an `__init__.py`."""
    inside = [str(path.parent)] if path.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=inside)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path.parent}: cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    # The next import must not find a module that failed halfway.
    with ExitStack() as failed:
        failed.callback(sys.modules.pop, name, None)
        spec.loader.exec_module(module)
        failed.pop_all()
    return module


@contextmanager
def own_code(where: str) -> Iterator[None]:
    """Turn any error of a package's own code into its type, file and line: its text may quote a cell.

    Warnings are dropped: those of pandas quote cells, too.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the code may raise anything, and its text must go nowhere
        raise UsageError(f"{where}: its code failed ({type_and_line(error)})") from None


def type_and_line(error: BaseException) -> str:
    """Return an error's type, with the line of an institution's code that failed, if any."""
    ours = f"{Path(__file__).parent}{os.sep}"  # a folder beside it may begin alike
    libraries = tuple(f"{sysconfig.get_path(name)}{os.sep}" for name in ("stdlib", "purelib", "platlib"))
    frames = [one for one in traceback.extract_tb(error.__traceback__) if os.path.isabs(one.filename)]  # or compiled
    frames = [one for one in frames if not one.filename.startswith(ours)]
    # An installed package may be the institution's; else the line is the one that called the library.
    own = [one for one in frames if not one.filename.startswith(libraries)] or frames
    kind = type(error).__name__
    return f"{kind} in line {own[-1].lineno} of {Path(own[-1].filename).name}" if own else kind


def look_at_packages() -> None:
    """Check every package that may run later, without importing any.

    Call it while the owner of a package can still be determined. In a user namespace, files of all other accounts,
    root included, seem to be nobody's. Behind a filter of system calls, groups of a directory service are not
    available.
    """
    global _looked_at
    # Both packages in folders and installed ones may be imported later.
    places: list[Path] = []
    for root in roots():
        places += [path for path in (*root.glob("sites/*"), *root.glob("datasets/*")) if path.is_dir()]
    for module in {point.module for point in importlib.metadata.entry_points(group="flfed.site")}:
        places += _places(module)
    # The results are stored, because the same check after isolation would refuse every file.
    _looked_at = {place: _refusal(place) for place in dict.fromkeys(places)}


def named_folders() -> str:
    """Return the setting of `FLFED_PATH` for people."""
    folders = os.environ.get("FLFED_PATH", "")
    return f"FLFED_PATH={folders}" if folders else "FLFED_PATH is not set"


def roots() -> list[Path]:
    """Return the folders with `sites/` and `datasets/`, in order of precedence.

    They are the folders of `FLFED_PATH`, the current folder (unless strict), flfed itself, and (unless strict) the
    schemas of federated data frames.
    """
    user_folders = [Path(part) for part in os.environ.get("FLFED_PATH", "").split(os.pathsep) if part]
    here = [] if _strict else [Path.cwd()]
    # Folders that a person names have precedence over flfed itself.
    frames = [] if _strict else [where() / FRAMES]
    folders = [*user_folders, *here, own_root(), *frames]
    resolved = dict.fromkeys(path.resolve() for path in folders)
    return [path for path in resolved if path.is_dir()]


def frames_folder() -> Path:
    """Return the folder with the schemas of federated data frames."""
    return home() / FRAMES


def own_root() -> Path:
    """Return the folder of the sites, datasets and app that come with flfed."""
    package = Path(__file__).resolve().parent
    bundle = package / "_bundled"
    return bundle if bundle.is_dir() else package.parent


def unknown_name_error(kind: str, name: str, choices: list[str]) -> UsageError:
    """Return the error for an unknown site or dataset, with advice."""
    if here := passed_over(kind, name):
        return UsageError(f"{kind} {name!r} is not known: {here}")
    return unknown(kind, name, choices)


def passed_over(kind: str, name: str) -> str:
    """Return that a package in the current folder is ignored, since that is not searched; "" without one.

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
            return f"{kind}s/{folder} in the current folder is ignored; to use it: FLFED_PATH=$PWD flfed …"
    return ""


def check_module(name: str) -> None:
    """Refuse an installed module that others could change, before its import.

    Raises
    ------
    UsageError
        As `check_package` does.
    """
    if _strict:
        for place in _places(name):
            check_package(place)


def _places(module: str) -> list[Path]:
    """Return the locations of a module's top package; none if it is imported already."""
    top = module.partition(".")[0]
    try:
        spec = importlib.util.find_spec(top) if top not in sys.modules else None
    except (ImportError, ValueError):
        return []  # its import raises a better error
    named = (spec.submodule_search_locations or [spec.origin or ""]) if spec else []
    return [Path(place) for place in named if os.path.isabs(place)]


def check_package(folder: Path) -> None:
    """Refuse, under the strict rules, a package that others could change.

    Every folder above it counts, too: an account that may write there can replace the package. In a folder with the
    sticky bit, such as `/tmp`, no account can replace files of another one.

    Raises
    ------
    UsageError
        With the folder or file, and advice.
    """
    # Only strict commands refuse, and Windows has no such modes.
    if not _strict or os.name != "posix":
        return
    unseen = f"{folder}: is newer than this process: serve again"
    # A package that appeared after the check is not trusted.
    why = _refusal(folder) if _looked_at is None else _looked_at.get(folder, unseen)
    if why:
        raise UsageError(why)


def _refusal(folder: Path) -> str:
    why = first_changeable([folder, *_inside(folder)])
    return f"{why}; others could then choose the code of {folder}" if why else ""


def first_changeable(parts: Iterable[Path]) -> str:
    """Return the first path that others could change, with the reason, or "".

    All folders above the files count.
    """
    places: dict[Path, None] = {}
    # Both the link and its target are checked: one can be moved, the other rewritten.
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
    """Return why accounts other than this one and root could change a path, or ""."""
    try:
        target = place.stat()
        link = place.lstat()
    except OSError as error:
        return f"cannot be checked ({error.strerror})"
    # The owner of a link can let it point elsewhere.
    for owner in (link.st_uid, target.st_uid):
        if owner not in (os.geteuid(), ROOT):
            return f"belongs to {_account(owner)}: chown it to {_account(os.geteuid())} or to root"
    # In a sticky folder no account can replace files of another one.
    sticky = stat.S_ISDIR(target.st_mode) and target.st_mode & stat.S_ISVTX
    if sticky:
        return ""
    return writable(place, target)


def writable(place: Path, status: os.stat_result) -> str:
    """Return why the mode of a path lets other accounts write, and the command to change that, or "".

    `status` is that of the path, or of the target of a link.
    """
    mode = status.st_mode
    shown = f"mode {stat.S_IMODE(status.st_mode):o}"
    if mode & stat.S_IWOTH:
        return f"every account may write there ({shown}): chmod go-w {place}"
    # A group with one account gives access to nobody else.
    if mode & stat.S_IWGRP and not (_is_private(status.st_gid) and not _has_list(place)):
        return f"its group, with other accounts, may write there ({shown}): chmod g-w {place}"
    return ""


def _account(number: int) -> str:
    import pwd

    try:
        return f"account {pwd.getpwuid(number).pw_name}"
    except KeyError:
        return f"account {number}"


def _is_private(number: int) -> bool:
    """Return whether a group has one account only: this one or root, with the group's name."""
    import grp
    import pwd

    try:
        group = grp.getgrgid(number)
        owner = pwd.getpwnam(group.gr_name)
    except KeyError:
        return False
    allowed = {os.geteuid(), ROOT}
    # A member has it as its main group, or is in the group's list.
    members = {user.pw_uid for user in pwd.getpwall() if user.pw_gid == number or user.pw_name in group.gr_mem}
    return owner.pw_uid in allowed and members <= allowed


def _has_list(place: Path) -> bool:
    """Return whether a path has an access list, with which the group's bits may stand for other accounts."""
    if sys.platform != "linux":
        return False
    try:
        return "system.posix_acl_access" in os.listxattr(place)
    except OSError:
        return False
