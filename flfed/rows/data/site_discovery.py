"""Discovery of sites: folders, entry points and import paths."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import logging
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from flfed.errors import FlfedError, UsageError
from flfed.packages import check_module, check_package, roots, unknown_name_error
from flfed.rows.data.policy import Policy
from flfed.rows.data.schema import parse_settings
from flfed.rows.data.site import Site

_IMPORT_ERRORS = (ArithmeticError, AttributeError, LookupError, NameError, OSError, RuntimeError, TypeError, ValueError)


def names() -> list[str]:
    """List all sites, sorted, without importing any."""
    return sorted({*_folders(), *(point.name for point in _entry_points())})


def load(name: str) -> Site:
    """Return the site of a name or import path.

    An import path is `package.module` or `…:site`.

    Raises
    ------
    UsageError
        If there is none, its package does not end with a `Site` of that name, or `check_package` refuses it.
    """
    if name in names():
        site, folder = _import_site(name)
        return _checked(site, name, folder)
    if "." in name or ":" in name:
        return _from_import_path(name)
    # A folder without the file that makes it a site deserves a better answer than "not known".
    for root in roots():
        for path in root.glob("sites/*"):
            if path.is_dir() and path.name.replace("_", "-") == name:
                raise UsageError(f"site {name!r}: {path} has no file __init__.py, which is to say where its rows are")
    raise unknown_name_error("site", name, names())


def of_dataset(dataset: str) -> list[Site]:
    """Return every site found that serves a dataset.

    Each is as it serves it; they are in name order.

    Raises
    ------
    UsageError
        If one of these sites has a wrong name or policy. A package that gives no site, so that
        nobody knows whose it is, is logged and left out.
    """
    sites = []
    for name in names():
        try:
            site, folder = _import_site(name)
        except FlfedError as error:
            # One broken package must not keep all other sites from a study.
            logging.getLogger("flfed.site").warning("site %s is left out: %s", name, error)
            continue
        if dataset in site.datasets:
            sites.append(_checked(site, name, folder).serving(dataset))
    return sites


def of_folder(folder: Path) -> Site:
    """Return the site of a package's folder, wherever it stands.

    Raises
    ------
    UsageError
        As for `load`.
    """
    check_package(folder)
    return _checked(_import_folder(folder), folder.name.replace("_", "-"), folder)


def chosen(wanted: Sequence[str | Site]) -> list[Site]:
    """Return the sites of a run, in name order.

    They are given by name, import path or as `Site`; their names must differ.
    """
    sites = []
    for item in wanted:
        site = load(item) if isinstance(item, str) else item
        sites.append(site)
    names = [site.name for site in sites]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"site {twice[0]!r} is there twice; a site's name must be unique in a run, leave one out")
    return sorted(sites, key=lambda site: site.name)


def _folders() -> dict[str, Path]:
    """Return each site's folder by name, the first root winning.

    The first root that has a name wins.
    """
    folders: dict[str, Path] = {}
    for root in roots():
        for path in sorted(root.glob("sites/*/__init__.py")):
            folders.setdefault(path.parent.name.replace("_", "-"), path.parent)
    return folders


def _entry_points() -> list[importlib.metadata.EntryPoint]:
    return list(importlib.metadata.entry_points(group="flfed.site"))


def _import_site(name: str) -> tuple[Site, Path | None]:
    """Import a site of `names()`, with its package's folder."""
    if folder := _folders().get(name):
        check_package(folder)
        return _import_folder(folder), folder
    point = next(point for point in _entry_points() if point.name == name)
    check_module(point.module)
    with _importing(f"site {name!r}"):
        target = point.load()
    return _module_site(target, name), _module_folder(point.module)


@contextmanager
def _importing(where: str) -> Iterator[None]:
    """Turn import errors of sites into usage errors.

    One sentence tells what an institution's own code raised; our own errors pass.
    """
    try:
        yield
    except FlfedError:
        raise
    except (SyntaxError, ImportError) as error:
        raise UsageError(f"{where}: cannot be imported ({type(error).__name__}: {error})") from None
    except _IMPORT_ERRORS as error:
        # Its text is left out: code that reads a table on import may quote a cell.
        raise UsageError(f"{where}: cannot be imported ({type(error).__name__}{_line_of(error)})") from None


def _line_of(error: BaseException) -> str:
    """Return the line of an institution's code that failed, if any."""
    ours = (f"{Path(__file__).parents[2]}{os.sep}", "<")  # a folder beside it may begin alike
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(ours)]
    return f" in line {own[-1].lineno} of {Path(own[-1].filename).name}" if own else ""


def _import_folder(folder: Path) -> Site:
    # By path and under a name of our own: another package called `sites` may be installed.
    name = f"_flfed_sites.{folder.name}"
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None:
        raise UsageError(f"{folder}: cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        # A module that failed must not be found half made by the next import.
        with _importing(str(folder)):
            spec.loader.exec_module(module)
    except FlfedError:
        del sys.modules[name]
        raise
    return _module_site(module, str(folder))


def _from_import_path(path: str) -> Site:
    module_name, _, attribute = path.partition(":")
    check_module(module_name)
    with _importing(f"site {path!r}"):
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if not f"{module_name}.".startswith(f"{error.name}."):
                raise
            raise UsageError(f"site {path!r}: there is no module {module_name!r} to import") from None
    target = getattr(module, attribute or "site", module)
    return _checked(_module_site(target, path), None, _module_folder(module_name))


def _module_folder(module_name: str) -> Path | None:
    """Return the folder of a site package, with tables and policy.

    The package's tables and its policy stand there.
    """
    file = sys.modules[module_name].__file__
    return Path(file).parent if file else None


def _module_site(target: object, where: str) -> Site:
    site = getattr(target, "site", None) if isinstance(target, ModuleType) else target
    if not isinstance(site, Site):
        raise UsageError(f"{where}: must end with `site = Site(...)`")
    return site


def _checked(site: Site, name: str | None, folder: Path | None) -> Site:
    """Return the site with its folder and policy."""
    if name is not None and site.name != name:
        raise UsageError(f"site {name!r} names itself {site.name!r}; the folder's name decides")
    if folder is None:
        return site
    # The policy in the folder wins over one in the code.
    path = folder / "policy.toml"
    policy = parse_settings(Policy, path) if path.is_file() else site.policy
    return replace(site, folder=folder, policy=policy)
