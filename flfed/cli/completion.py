"""Completion of names in a shell: runs, studies, datasets and sites."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from glob import escape, glob
from pathlib import Path

from flfed.errors import FlfedError

RUNS = 50
"""The newest runs that a shell offers."""


def _beginning(names: Callable[[], Iterable[str]], begun: str) -> list[str]:
    """Return the names that begin so, none where they cannot be read: a shell shows no errors."""
    with suppress(FlfedError, OSError):
        return [name for name in names() if name.startswith(begun)]
    return []


def runs(incomplete: str) -> list[str]:
    """Return the newest series' ids, of repeats each run's too once the series' is typed."""
    from flfed.records.store.reader import RunReader

    def names() -> list[str]:
        with RunReader.open() as reader:
            found = reader.runs(search=incomplete if "-r" in incomplete else "", limit=RUNS)
        return ["latest", *dict.fromkeys(run.run if "-r" in incomplete else run.series for run in found)]

    return _beginning(names, incomplete)


def studies(incomplete: str) -> list[str]:
    """Return the shipped studies' names, and the TOML files that begin so."""
    import flfed

    shipped = (file.stem for file in (Path(flfed.__file__).parent / "studies").glob("*.toml"))
    return _beginning(lambda: sorted(shipped), incomplete) + sorted(glob(f"{escape(incomplete)}*.toml"))


def datasets(incomplete: str) -> list[str]:
    """Return the names of datasets found."""
    return _beginning(lambda: _folders("datasets/*/schema.toml"), incomplete)


def sites(incomplete: str) -> list[str]:
    """Return the names of sites found, without importing any."""
    from importlib.metadata import entry_points

    installed = {point.name for point in entry_points(group="flfed.site")}
    return _beginning(
        lambda: sorted({*(name.replace("_", "-") for name in _folders("sites/*/__init__.py")), *installed}), incomplete
    )


def _folders(pattern: str) -> list[str]:
    from flfed.packages import roots

    return sorted({path.parent.name for root in roots() for path in root.glob(pattern)})
