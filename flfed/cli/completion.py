"""Completion of names in a shell: runs, studies, datasets and sites."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from glob import escape, glob
from pathlib import Path

from flfed.errors import FlfedError

RUNS = 50
"""Most runs that a shell offers."""


def _beginning(names: Callable[[], Iterable[str]], begun: str) -> list[str]:
    """Return the names with this beginning; none where they cannot be read, since a shell shows no errors."""
    with suppress(FlfedError, OSError):
        return [name for name in names() if name.startswith(begun)]
    return []


def runs(incomplete: str) -> list[str]:
    """Return the ids of the newest series, and of single runs once "-r" is typed."""
    from flfed.records.store.reader import RunReader

    def names() -> list[str]:
        with RunReader.open() as reader:
            if "-r" in incomplete:
                return ["latest", *(run.run for run in reader.runs(search=incomplete, limit=RUNS))]
            return ["latest", *dict.fromkeys(run.series for run in reader.runs(limit=RUNS))]

    return _beginning(names, incomplete)


def studies(incomplete: str) -> list[str]:
    """Return the names of shipped studies, and TOML files with this beginning."""
    import flfed

    shipped = (file.stem for file in (Path(flfed.__file__).parent / "studies").glob("*.toml"))
    return _beginning(lambda: sorted(shipped), incomplete) + sorted(glob(f"{escape(incomplete)}*.toml"))


def datasets(incomplete: str) -> list[str]:
    """Return the names of all datasets."""
    return _beginning(lambda: _folders("datasets/*/schema.toml"), incomplete)


def sites(incomplete: str) -> list[str]:
    """Return the names of all sites, without importing any."""
    from importlib.metadata import entry_points

    def names() -> list[str]:
        site_names = {point.name for point in entry_points(group="flfed.site")}
        site_names.update(name.replace("_", "-") for name in _folders("sites/*/__init__.py"))
        return sorted(site_names)

    return _beginning(names, incomplete)


def _folders(pattern: str) -> list[str]:
    from flfed.packages import roots

    folder_names = set[str]()
    for root in roots():
        folder_names.update(path.parent.name for path in root.glob(pattern))
    return sorted(folder_names)
