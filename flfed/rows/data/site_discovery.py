"""Discovery of sites: folders, entry points and import paths."""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from flfed.errors import FlfedError, UsageError
from flfed.packages import SITES, check_module, check_package, import_file, roots, type_and_line, unknown_name_error
from flfed.rows.data import datasets
from flfed.rows.data.mapping import refuse_other
from flfed.rows.data.parsing.fields import Field
from flfed.rows.data.policy import Policy
from flfed.rows.data.schema import parse_settings
from flfed.rows.data.site import Site
from flfed.words import render, usage_error

_IMPORT_ERRORS = (ArithmeticError, AttributeError, LookupError, NameError, OSError, RuntimeError, TypeError, ValueError)


def names() -> list[str]:
    """List all sites, sorted, without importing any."""
    return sorted({*_folders(), *(point.name for point in _entry_points())})


def load(name: str) -> Site:
    """Return the site of a name or import path (`package.module` or `…:site`).

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
    # A folder without __init__.py gets a better answer than "not known".
    for root in roots():
        for path in root.glob("sites/*"):
            if path.is_dir() and path.name.replace("_", "-") == name:
                raise usage_error("rows.site.package", site=name, path=path)
    raise unknown_name_error("site", name, names())


def of_dataset(dataset: str) -> list[Site]:
    """Return every site that serves a dataset, with its mapping of it, in the order of names.

    Raises
    ------
    UsageError
        If one of these sites has a wrong name or policy. A package without a site is logged and left out.
    """
    sites = []
    for name in names():
        try:
            site, folder = _import_site(name)
        except FlfedError as error:
            # One broken package must not exclude all other sites from a study.
            logging.getLogger("flfed.site").warning(render("rows.site.skipped", site=name, error=error))
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
    """Return the sites of a run in the order of their names, which must differ."""
    sites = []
    for item in wanted:
        site = load(item) if isinstance(item, str) else item
        sites.append(site)
    names = [site.name for site in sites]
    if twice := [name for name in names if names.count(name) > 1]:
        raise usage_error("rows.site.twice", site=twice[0])
    return sorted(sites, key=lambda site: site.name)


def _folders() -> dict[str, Path]:
    """Return each site's folder by name, from the first root that has it."""
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
    """Turn errors of an institution's own code into one sentence; errors of flfed pass unchanged."""
    try:
        yield
    except FlfedError:
        raise
    except (SyntaxError, ImportError) as error:
        kind = type(error).__name__
        raise usage_error("rows.site.unimported", where=where, error=f"{kind}: {error}") from None
    except _IMPORT_ERRORS as error:
        # Its text is left out: code that reads a table on import may quote a cell.
        raise usage_error("rows.site.unimported", where=where, error=type_and_line(error)) from None


def _import_folder(folder: Path) -> Site:
    # By path and under a private name: another package called `sites` may be installed.
    with _importing(str(folder)):
        module = import_file(folder / "__init__.py", f"{SITES}{folder.name}")
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
            raise usage_error("rows.site.module", site=path, module=module_name) from None
    target = getattr(module, attribute or "site", module)
    return _checked(_module_site(target, path), None, _module_folder(module_name))


def _module_folder(module_name: str) -> Path | None:
    """Return the folder of a site's package, with tables and policy."""
    file = sys.modules[module_name].__file__
    return Path(file).parent if file else None


def _module_site(target: object, where: str) -> Site:
    site = getattr(target, "site", None) if isinstance(target, ModuleType) else target
    if not isinstance(site, Site):
        raise usage_error("rows.site.siteless", where=where)
    return site


def _checked(site: Site, name: str | None, folder: Path | None) -> Site:
    """Return the site with its folder and policy."""
    if name is not None and site.name != name:
        raise usage_error("rows.site.renamed", folder=name, name=site.name)
    for serving in map(site.serving, site.datasets):
        if not any(isinstance(entry, Field) and entry.other is not None for entry in serving.mapping.values()):
            continue
        try:
            schema = datasets.load(serving.dataset).schema
        except UsageError:
            continue  # refused where the dataset is used
        refuse_other(schema, serving.mapping)
    if folder is None:
        return site
    # The policy in the folder replaces one in the code.
    path = folder / "policy.toml"
    policy = parse_settings(Policy, path) if path.is_file() else site.policy
    return replace(site, folder=folder, policy=policy)
