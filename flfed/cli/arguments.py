"""Arguments that several commands share, the completion of their names in a shell, and the study that they name."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from glob import escape, glob
from pathlib import Path
from typing import Any

import typer

from flfed.errors import FlfedError, UsageError
from flfed.words import usage_error

RUNS = 50
"""Most runs that a shell offers."""


def _beginning(names: Callable[[], Iterable[str]], begun: str) -> list[str]:
    """Return the names with this beginning; none where they cannot be read, since a shell shows no errors."""
    with suppress(FlfedError, OSError):
        return [name for name in names() if name.startswith(begun)]
    return []


def complete_runs(incomplete: str) -> list[str]:
    """Return the ids of the newest series, and of single runs once "-r" is typed."""
    from flfed.records.store.reader import RunReader

    def names() -> list[str]:
        with RunReader.open() as reader:
            if "-r" in incomplete:
                return ["latest", *(run.run for run in reader.runs(search=incomplete, limit=RUNS))]
            return ["latest", *dict.fromkeys(run.series for run in reader.runs(limit=RUNS))]

    return _beginning(names, incomplete)


def complete_studies(incomplete: str) -> list[str]:
    """Return the names of shipped studies, and TOML files with this beginning."""
    import flfed

    shipped = (file.stem for file in (Path(flfed.__file__).parent / "studies").glob("*.toml"))
    return _beginning(lambda: sorted(shipped), incomplete) + sorted(glob(f"{escape(incomplete)}*.toml"))


def complete_datasets(incomplete: str) -> list[str]:
    """Return the names of all datasets."""
    return _beginning(lambda: _folders("datasets/*/schema.toml"), incomplete)


def complete_sites(incomplete: str) -> list[str]:
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


WHICH = "Id of a run or a series, or latest."
RUN = typer.Argument(..., metavar="RUN", help=WHICH, autocompletion=complete_runs)
LATEST = typer.Argument("latest", metavar="RUN", help=WHICH, autocompletion=complete_runs)
STUDY = typer.Argument(
    ..., metavar="NAME|FILE", help="Name of a shipped study, or a TOML file.", autocompletion=complete_studies
)
SET = typer.Option([], "--set", metavar="KEY=VALUE", help="Change a key: rounds=400, or plan.lr=0.1.")
SITE_NAME = typer.Argument(..., help="Site name.", autocompletion=complete_sites)
JOINED_SITE = typer.Argument(metavar="NAME", help="Site name.")
"""A site whose package need not be here, so that its name is not completed."""
TO = typer.Option(Path(), "--output", help="Target folder.")
ALLOW_UNMATCHED = typer.Option(False, "--allow-unmatched", help="Go on where few of the list are in the table.")
JOBS = typer.Option(
    None,
    "--jobs",
    metavar="N",
    min=1,
    envvar="FLFED_JOBS",
    help="Processes; default: the cores allowed, as many as memory can feed. The figures are the same.",
)


def study_of(name: str, changes: list[str]) -> Any:
    """Return the study with `--set` applied."""
    from flfed.study.study import Study

    study = Study.load(name)
    return study.replace(dict(_change(text) for text in changes)) if changes else study


def _change(text: str) -> tuple[str, Any]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise UsageError(f"--set {text}: write it as KEY=VALUE, such as rounds=400")
    from flfed.study.settings import toml_value

    return key.strip(), toml_value(value)


def parse_grid(texts: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """Return the grid of `--grid KEY=V1,V2` options.

    Raises
    ------
    UsageError
        For an option without key or values.

    Examples
    --------
    >>> parse_grid(["lr=0.01,0.1", "plan.optimiser=sgd,adam"])
    {'lr': (0.01, 0.1), 'plan.optimiser': ('sgd', 'adam')}
    """
    grid = {}
    for text in texts:
        key, _, values = map(str.strip, text.partition("="))
        if not key or not values:
            raise usage_error("experiments.sweep.syntax", text=text)
        if key in grid:
            raise usage_error("experiments.sweep.repeated", text=text)
        grid[key] = _values(values, text)
    return grid


def _values(values: str, text: str) -> tuple[Any, ...]:
    """Return the comma-separated values of a text, as TOML where possible, otherwise as words."""
    from flfed.study.settings import toml_value

    # In a list of TOML values, numbers and flags keep their types.
    array = toml_value(f"[{values}]")
    if isinstance(array, list):
        return tuple(array)
    words = [word.strip() for word in values.split(",")]
    if not all(words):
        raise usage_error("experiments.sweep.syntax", text=text)
    return tuple(map(toml_value, words))


def set_options(settings: Mapping[str, Any]) -> str:
    """Return settings of a study as options of `flfed study run`, for a shell."""
    return " ".join(f"--set {shlex.quote(f'{key}={_toml(value)}')}" for key, value in settings.items())


def _toml(value: Any) -> str:
    """Return a value as `--set` reads it back."""
    from flfed.study.settings import toml_value

    if isinstance(value, str) and toml_value(value) == value:
        return value
    return json.dumps(value, ensure_ascii=False)
