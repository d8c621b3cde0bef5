"""Registry of strategies, models and metrics by name.

Each is one file with one public class; its name is the file name in kebab-case. Names are listed without an import. The
signature of the class is the schema of its settings.
"""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import importlib.util
import inspect
import pkgutil
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from flfed.errors import FlfedError, UsageError, unknown
from flfed.words import usage_error

FOLDERS = {
    "strategy": "flfed.updates.strategies",
    "model": "flfed.rows.models",
    "metric": "flfed.rows.metrics",
    "mechanism": "flfed.updates.privacy",
    "codec": "flfed.updates.codecs",
    "attack": "flfed.rows.attacks",
    "split": "flfed.rows.splits",
    "statistic": "flfed.rows.statistics.listed",
}
"""Kind to the package whose files are its listing."""


MADE_SMALL = ("_loss", "_error", "_deviance")
"""Endings of metrics of which less is better: scikit-learn's rule, which verdicts use."""
BROKEN = (
    ArithmeticError, AttributeError, FlfedError, ImportError, LookupError, NameError, OSError, RuntimeError,
    SyntaxError, TypeError, ValueError,
)  # fmt: skip
"""Errors that another author's code may raise."""


def kebab(name: str) -> str:
    """Return a Python name as a key: `roc_auc` becomes `roc-auc`."""
    return name.replace("_", "-")


def kebab_keys(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return facts with their names as keys of files."""
    return {kebab(name): value for name, value in facts.items()}


def snake(name: str) -> str:
    """Return a key as a Python name: `roc-auc` becomes `roc_auc`."""
    return name.replace("-", "_")


def names(kind: str) -> list[str]:
    """Return the sorted names of a kind, without an import.

    Parameters
    ----------
    kind : str
        A key of `FOLDERS`.

    Examples
    --------
    >>> "fedavg" in names("strategy"), "roc_auc_score" in names("metric")
    (True, True)
    """
    return sorted({*installed(kind), *(name for of, name in _LENT if of == kind)})


def installed(kind: str) -> set[str]:
    """Return the names of a kind from flfed and installed packages."""
    return {*_modules(kind), *(point.name for point in _entry_points(kind))}


_LENT: dict[tuple[str, str], type] = {}
"""Classes of the program in this process, by kind and name."""


def lend(kind: str, thing: type) -> str:
    """List a class in this process under its own name, and return the name.

    Parameters
    ----------
    kind : str
        A key of `FOLDERS`.
    thing : class
        `TrimmedMean` becomes `trimmed-mean`, and the metric `Youden` becomes `youden`.

    Raises
    ------
    UsageError
        If flfed or an installed package has the name.
    """
    name = _key(kind, re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", thing.__name__).lower())
    if name in _modules(kind) or any(point.name == name for point in _entry_points(kind)):
        raise UsageError(f"{kind} {name!r} is listed already: give the class {thing.__name__} another name")
    _check_direction(kind, name, thing, f"{kind} {name!r}")
    _LENT[kind, name] = thing
    return name


@contextmanager
def lending(kind: str, things: Iterable[type]) -> Iterator[None]:
    """List classes while the block runs; see `lend`."""
    before = dict(_LENT)
    try:
        for thing in things:
            lend(kind, thing)
        yield
    finally:
        for key in [key for key in _LENT if key[0] == kind]:
            del _LENT[key]
        _LENT.update({key: thing for key, thing in before.items() if key[0] == kind})


def lent_classes() -> dict[tuple[str, str], type]:
    """Return all classes that this process has listed, for another process."""
    return dict(_LENT)


def lend_classes(classes: Mapping[tuple[str, str], type]) -> None:
    """List the classes of another process."""
    _LENT.update(classes)


def lent(kind: str) -> tuple[type, ...]:
    """Return the classes of a kind that this process has listed."""
    return tuple(thing for (of, _), thing in _LENT.items() if of == kind)


@cache
def _modules(kind: str) -> dict[str, str]:
    """Return the module of each name from flfed itself; similar ones share a subfolder."""
    folder = Path(__file__).parent.joinpath(*FOLDERS[kind].split(".")[1:])
    modules = dict[str, str]()
    for place in pkgutil.iter_modules([str(folder)]):
        inner = pkgutil.iter_modules([str(folder / place.name)]) if place.ispkg else ()
        below = [f"{place.name}.{one.name}" for one in inner] if place.ispkg else [place.name]
        modules |= {_key(kind, module.rpartition(".")[2]): f"{FOLDERS[kind]}.{module}" for module in below}
    return modules


def _key(kind: str, file: str) -> str:
    """Return the name of a file's class; a metric has scikit-learn's underscores."""
    return file if kind == "metric" else kebab(file)


def load(kind: str, name: str) -> Any:
    """Import one file and return its public class.

    Raises
    ------
    UsageError
        If the name is not listed (with the most similar one), or its package cannot be imported or shares the name
        with another.
    """
    if name not in names(kind):
        raise unknown(kind, name, names(kind))
    if (kind, name) in _LENT:
        return _LENT[kind, name]
    # Ours have precedence, so that no installed package can replace a mechanism unnoticed.
    if name in _modules(kind):
        return public_class(importlib.import_module(_modules(kind)[name]))
    points = [point for point in _entry_points(kind) if point.name == name]
    # Precedence between two packages would depend on the order of installation, so that both are refused.
    if len(points) > 1:
        packages = " and ".join(sorted(map(_package, points)))
        raise UsageError(f"{kind} {name!r} comes from several packages ({packages}): uninstall all but one")
    return _brought(kind, points[0])


def describe(kind: str, name: str) -> str:
    """Return the first line of the docstring of a listed class, without an import of its file; "" without one.

    Examples
    --------
    >>> describe("metric", "root_mean_squared_error")
    'Root of the mean squared error.'
    """
    places = {point.name: (point.module, point.attr) for point in _entry_points(kind)}
    places |= {ours: (module, "") for ours, module in _modules(kind).items()}
    module, class_name = places.get(name, ("", ""))
    # Another package may be broken, which only its use answers.
    with suppress(*BROKEN):
        spec = importlib.util.find_spec(module)
        tree = ast.parse(Path(spec.origin).read_text("utf-8") if spec and spec.origin else "")
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and node.name == (class_name or node.name.lstrip("_")):
                return (ast.get_docstring(node) or "").partition("\n")[0]
    return ""


def others(kind: str) -> dict[str, str]:
    """Return the names from other packages, each with its package and version."""
    return {point.name: _package(point) for point in _entry_points(kind) if point.name not in _modules(kind)}


def clashes(kind: str) -> list[str]:
    """Return a sentence for each entry point that has a name of ours, and is not used."""
    ours = _modules(kind)
    return [
        f"{_package(point)}: {kind} {point.name!r} is not used, since flfed has that name; rename it"
        for point in _entry_points(kind)
        if point.name in ours
    ]


def _package(point: importlib.metadata.EntryPoint) -> str:
    """Return the package of an entry point, such as `flfed-median 1.0`."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value


def _brought(kind: str, point: importlib.metadata.EntryPoint) -> Any:
    """Import a class from another package: the named class, or that of the named file."""
    where = f"{kind} {point.name!r} of {_package(point)}"
    # Any error of the other package becomes one sentence, and never a trace.
    try:
        plugin = point.load()
    except BROKEN as error:
        raise UsageError(f"{where}: cannot be imported ({type(error).__name__}: {error})") from None
    # An entry point may name a module or the class itself.
    plugin = public_class(plugin) if inspect.ismodule(plugin) else plugin
    if not inspect.isclass(plugin):
        raise UsageError(f"{where}: {point.value} is no class")
    _check_direction(kind, point.name, plugin, where)
    return plugin


def _check_direction(kind: str, name: str, plugin: type, where: str) -> None:
    """Refuse a metric whose direction does not fit its name."""
    # Verdicts use the name only: with another direction they would call a loss a gain.
    better = getattr(plugin, "better", None)
    wrong = "higher" if name.endswith(MADE_SMALL) else "lower"
    if kind == "metric" and better == wrong:
        raise usage_error("commands.plugins.direction", where=where, better=better, endings=", ".join(MADE_SMALL))


def public_class(module: Any) -> type:
    """Return the one public class that a module itself defines."""
    classes = [
        value
        # Imported classes and private ones do not count.
        for key, value in vars(module).items()
        if inspect.isclass(value) and value.__module__ == module.__name__ and not key.startswith("_")
    ]
    if len(classes) != 1:
        raise UsageError(f"{module.__name__} must define one public class, it defines {len(classes)}")
    return classes[0]


def _entry_points(kind: str) -> tuple[importlib.metadata.EntryPoint, ...]:
    return _on_path(f"flfed.{kind}", tuple(sys.path))


@cache
def _on_path(group: str, path: tuple[str, ...]) -> tuple[importlib.metadata.EntryPoint, ...]:
    """Return the entry points of a group, from a search of all packages that is made once a path."""
    return tuple(importlib.metadata.entry_points(group=group))
