"""One institution: where its rows are, how its columns map, its holdout, its policy."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import logging
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Literal, Self

import numpy as np
import pandas as pd
from pydantic import Field as PydanticField
from pydantic import model_validator

from flfed.errors import FlfedError, UsageError, nearest
from flfed.home import roots
from flfed.rows import datasets
from flfed.rows.holdout import Holdout, HoldoutByTime, canonical_rows
from flfed.rows.mapping import Field, Finding, check_codes, map_table
from flfed.rows.schema import Schema, Strict, parse_settings
from flfed.rows.sources import Source


class Policy(Strict):
    """What a site allows; `policy.toml` beside its `__init__.py`.

    Attributes
    ----------
    disclosure : {"institution", "open"}
        `institution`: no cell under `cell_minimum` leaves. `open`: public data, everything exact.
    cell_minimum : int
        Smallest count that leaves under `institution`.
    resplit : bool
        Whether repeats may draw another holdout; under `open` only. Sums over two splits of the
        same rows, each with its small cells left out, give one another's away.
    share_metrics : {"named", "pseudonym", "aggregate-only"}
        How the site's own figures may be shown to others.
    outputs : tuple of str
        Outputs allowed besides the usual ones, such as "score-histogram".
    """

    format: Literal[1] = 1
    disclosure: Literal["institution", "open"] = "institution"
    cell_minimum: int = PydanticField(default=10, ge=3)
    resplit: bool = False
    share_metrics: Literal["named", "pseudonym", "aggregate-only"] = "named"
    outputs: tuple[Literal["score-histogram"], ...] = ()

    @model_validator(mode="after")
    def _available(self) -> Self:
        if self.share_metrics != "named":
            raise ValueError(f"share-metrics={self.share_metrics!r} is not available in this version")
        if self.resplit and self.disclosure != "open":
            raise ValueError("resplit = true needs disclosure = 'open': two splits give small counts away")
        return self

    def least_rows(self) -> int:
        """Return the fewest rows that any part of the table may have."""
        return 1 if self.disclosure == "open" else self.cell_minimum

    def allows(self, output: str) -> bool:
        """Tell whether an output that not every site gives may leave."""
        return self.disclosure == "open" or output in self.outputs


@dataclass(frozen=True)
class Site:
    """One institution and its table, as `sites/<institution>/__init__.py` ends with one.

    Parameters
    ----------
    name : str
        `[a-z0-9-]`, unique; the folder's name with hyphens for underscores.
    dataset : str
        The dataset whose schema the mapping fills.
    source : Csv, Parquet, Sql or Frame
    mapping : mapping of schema column to own column, Field, or None where the site does not have it
    holdout : Holdout or HoldoutByTime
    title : str
        The institution's name for people.
    policy : Policy, optional
        Default: `policy.toml` in the site's folder, else the strictest.
    folder : Path, optional
        Set when the site is found in a folder.

    Notes
    -----
    Making one opens no connection and reads no file; `read` does.
    """

    name: str
    dataset: str
    source: Source
    mapping: Mapping[str, str | Field | None] = field(default_factory=dict)
    holdout: Holdout | HoldoutByTime = field(default_factory=Holdout)
    title: str = ""
    policy: Policy = field(default_factory=Policy)
    folder: Path | None = None

    def __post_init__(self) -> None:
        """Refuse a name that could not be a key everywhere."""
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", self.name):
            raise UsageError(f"site name {self.name!r} must be of a-z, 0-9 and single hyphens")
        if not isinstance(self.source, Source):
            raise UsageError(f"site {self.name!r}: source={self.source!r} must be a Csv, Parquet, Sql or Frame")
        if not isinstance(self.holdout, (Holdout, HoldoutByTime)):
            raise UsageError(f"site {self.name!r}: holdout={self.holdout!r} must be a Holdout or HoldoutByTime")
        wrong = [key for key, value in self.mapping.items() if not isinstance(value, (str, Field, type(None)))]
        if wrong:
            raise UsageError(f"site {self.name!r}: mapping[{wrong[0]!r}] must be a column's name, a Field or None")
        check_codes(f"site {self.name!r}", self.source.missing)

    def inspect(self) -> tuple[pd.DataFrame, list[Finding], Schema]:
        """Read and map the table; return it with every rule it breaks, in the source's row order."""
        dataset = datasets.load(self.dataset)
        folders = ((self.folder,) if self.folder else ()) + dataset.folders()
        raw = self.source.read(folders)
        table, findings = map_table(raw, dataset.schema, self.mapping, self.source.missing)
        if not len(table):
            findings.append(Finding(dataset.schema.target, "has no rows: the table is empty", np.arange(0)))
        return table, findings, dataset.schema

    def read(self, repeat: int = 0) -> SiteTable:
        """Read, map, check, sort and split the table.

        Parameters
        ----------
        repeat : int, >= 0
            From 1 on another holdout is drawn, where the policy allows `resplit`; else the
            site's own holdout is kept.

        Raises
        ------
        TableError
            For the first rule the table breaks: column, rule and count.
        UsageError
            If the source cannot be read.
        """
        table, findings, schema = self.inspect()
        if findings:
            raise findings[0].error()
        # Sorted canonically, so that CSV, Parquet and SQL give the same batches.
        texts = np.array(canonical_rows(table), dtype=object)
        order = np.argsort(texts, kind="stable")
        table = table.iloc[order].reset_index(drop=True)
        train, held = self.holdout.split(table, schema, repeat if self.policy.resplit else 0, texts[order].tolist())
        return SiteTable(
            training=table[train].reset_index(drop=True),
            schema=schema,
            _holdout=table[held].reset_index(drop=True),
        )


@dataclass(frozen=True, eq=False)
class SiteTable:
    """A site's mapped rows, split; the holdout is opened only by name of purpose.

    Attributes
    ----------
    training : DataFrame, rows that may be trained on
    schema : Schema
    opened : list of str
        Purposes for which the holdout was opened, in order.
    """

    training: pd.DataFrame
    schema: Schema
    _holdout: pd.DataFrame
    opened: list[str] = field(default_factory=list)

    @property
    def holdout_rows(self) -> int:
        """How many rows are held out; counting opens nothing."""
        return len(self._holdout)

    def holdout(self, purpose: str) -> pd.DataFrame:
        """Return the rows never trained on, and note the purpose.

        Parameters
        ----------
        purpose : str
            "compare" or "holdout-curve".
        """
        self.opened.append(purpose)
        return self._holdout


def names() -> list[str]:
    """Return the names of all sites found, sorted; imports none of them."""
    return sorted({*_folders(), *(point.name for point in _entry_points())})


def load(name: str) -> Site:
    """Return the site of this name, or of this import path (`package.module` or `…:site`).

    Raises
    ------
    UsageError
        If there is none, or its package does not end with a `Site` of that name.
    """
    if name in names():
        site, folder = _found(name)
        return _checked(site, name, folder)
    if "." in name or ":" in name:
        return _from_import_path(name)
    known = names()
    raise UsageError(f"site {name!r} is not known{nearest(name, known)} Known: {', '.join(known)}")


def of_dataset(dataset: str) -> list[Site]:
    """Return every site found whose dataset this is, in name order.

    Raises
    ------
    UsageError
        If one of these sites has a wrong name or policy. A package that gives no site, so that
        nobody knows whose it is, is logged and left out.
    """
    sites = []
    for name in names():
        try:
            site, folder = _found(name)
        except FlfedError as error:
            logging.getLogger("flfed.site").warning("site %s is left out: %s", name, error)
            continue
        if site.dataset == dataset:
            sites.append(_checked(site, name, folder))
    return sites


def chosen(wanted: Sequence[str | Site]) -> list[Site]:
    """Return sites given by name, import path or as `Site`, in name order; names must differ."""
    found = [load(item) if isinstance(item, str) else item for item in wanted]
    by_name = {site.name: site for site in found}
    if len(by_name) < len(found):
        raise UsageError("two sites have the same name; a site's name must be unique in a run")
    return [by_name[name] for name in sorted(by_name)]


def _folders() -> dict[str, Path]:
    """Return site name to folder; the first root that has a name wins."""
    found: dict[str, Path] = {}
    for root in roots():
        for path in sorted(root.glob("sites/*/__init__.py")):
            found.setdefault(path.parent.name.replace("_", "-"), path.parent)
    return found


def _entry_points() -> list[importlib.metadata.EntryPoint]:
    return list(importlib.metadata.entry_points(group="flfed.site"))


def _found(name: str) -> tuple[Site, Path | None]:
    """Return a site of `names()` as its package gives it, and where the package stands."""
    folders = _folders()
    if name in folders:
        return _import_folder(folders[name]), folders[name]
    point = next(point for point in _entry_points() if point.name == name)
    with _importing(f"site {name!r}"):
        found = point.load()
    return _module_site(found, name), _module_folder(point.module)


@contextmanager
def _importing(where: str) -> Iterator[None]:
    """Turn what an institution's own code raises on import into one sentence; ours pass."""
    try:
        yield
    except FlfedError:
        raise
    except (SyntaxError, ImportError) as error:
        raise UsageError(f"{where}: cannot be imported ({type(error).__name__}: {error})") from None
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        NameError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        # Its text is left out: code that reads a table on import may quote a cell.
        raise UsageError(f"{where}: cannot be imported ({type(error).__name__})") from None


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
        with _importing(str(folder)):
            spec.loader.exec_module(module)
    except FlfedError:
        del sys.modules[name]
        raise
    return _module_site(module, str(folder))


def _from_import_path(path: str) -> Site:
    module_name, _, attribute = path.partition(":")
    with _importing(f"site {path!r}"):
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if not f"{module_name}.".startswith(f"{error.name}."):
                raise
            raise UsageError(f"site {path!r}: there is no module {module_name!r} to import") from None
    found = getattr(module, attribute or "site", module)
    return _checked(_module_site(found, path), None, _module_folder(module_name))


def _module_folder(module_name: str) -> Path | None:
    """Return where an imported site package stands: its tables and its policy are beside it."""
    file = sys.modules[module_name].__file__
    return Path(file).parent if file else None


def _module_site(found: object, where: str) -> Site:
    site = getattr(found, "site", None) if isinstance(found, ModuleType) else found
    if not isinstance(site, Site):
        raise UsageError(f"{where}: must end with `site = Site(...)`")
    return site


def _checked(site: Site, name: str | None, folder: Path | None) -> Site:
    """Return the site with its folder and the policy found there."""
    if name is not None and site.name != name:
        raise UsageError(f"site {name!r} names itself {site.name!r}; the folder's name decides")
    if folder is None:
        return site
    path = folder / "policy.toml"
    policy = parse_settings(Policy, path) if path.is_file() else site.policy
    return replace(site, folder=folder, policy=policy)
