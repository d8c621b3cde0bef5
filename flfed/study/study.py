"""A study, read from TOML and checked.

Everybody signs it before anything runs.
"""

from __future__ import annotations

import datetime
import hashlib
import inspect
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from flfed import registry
from flfed.errors import UsageError, nearest
from flfed.parsers import parse_toml, read_text
from flfed.study.analysis import Analysis
from flfed.study.kinds import StudyKind
from flfed.study.plan import Plan
from flfed.study.settings import check_table, read_settings, unknown_key
from flfed.study.study_text import SUMMARY
from flfed.study.tables import (
    MODES,
    MODULE_NAME,
    STATISTIC_MODES,
    TABLE_OF,
    VERTICAL,
    Compare,
    Crossing,
    Dataset,
    Encode,
    Expected,
    Incumbent,
    Named,
    Partition,
    Split,
    Sums,
    WarmStart,
    parse_sweep,
)
from flfed.study.template import StudyTemplate
from flfed.words import render, sentences, usage_error

Table = Mapping[str, Any]
"""A table of a study's TOML."""
FOLDER = Path(__file__).parents[1] / "studies"
OTHERS_CALL = sentences("names", "keys")
"""Keys by the names that scikit-learn, PyTorch or Flower have for them."""
LARGEST_SEED = 2**63 - 10**6 - 1
"""Repeats count on from the seed, and a run's record keeps it in 64 bits."""


class _FromKeywords(type):
    """Makes a study of plain keywords: `Study(dataset="preterm-birth", model="mlp", rounds=5)`."""

    def __call__(cls, *values: Any, **given: Any) -> Any:
        # The parsed tables make the dataclass itself; a dataset's name asks for a text first.
        if isinstance(given.get("dataset"), str) and not values:
            return _from_keywords(**given)
        if values or "text" not in given:
            raise usage_error("study.reading.keywords")
        return super().__call__(**given)


@dataclass(frozen=True, kw_only=True)
class Study(StudyKind, Crossing, metaclass=_FromKeywords):
    """One study, checked.

    Make one with `Study.load`, `Study.parse`, or of plain keywords, each a key of the study as `keys_of` has them:
    `Study(dataset="preterm-birth", model="mlp", rounds=5)`. A dataset without sites of its own is cut into some:
    `Study(dataset="wine", partition={"by": "iid", "sites": 3})`.

    Attributes
    ----------
    name : str
        What its runs are listed under: a-z, 0-9 and single hyphens. Example: `name = "heart-disease"`.
    purpose : str
        What it is for, in a sentence that sites read before they approve. Example: `purpose = "Predict readmission"`.
    legal_basis : str
        On what basis rows may be used, as sites read it. Example: `legal-basis = "public data, CC BY 4.0"`.
    expires : date or None
        Last day on which a site answers. Example: `expires = 2027-12-31`.
    seed : int, >= 0
        Every draw of the run follows from it. Example: `seed = 42`.
    dataset, split, encode, model, plan, strategy, privacy, codec, compare, statistic, analysis
        The tables of the file; `analysis` is that of a statistic "summary", in place of `statistic`, else None.
    secure_aggregation : {"off", "auto", "on", "ckks"}
        Whether the coordinator gets sums of the sites' updates only, and no update of one site: "auto" where three
        institutions or more take part. "ckks" (extra `flfed[he]`) sums ciphertexts, which sites open in turn, but a
        single site that works with the coordinator can read all updates. It stands in the table `[privacy]`.
        Example: `secure-aggregation = "auto"`.
    warm_start : str
        Run, or exported folder, whose model this one begins with: columns go by name, rewritten for this study's
        encoder. It stands in the table `[model]`. Example: `warm-start = "20261120-abcd"`.
    start_sha256 : str
        SHA-256 of that model: arrays, encoder and columns (`flfed study check` says it). Sites approve it and have the
        model themselves; another one is refused. It stands in the table `[model]`. Example:
        `start-sha256 = "9f86d081…"`.
    frozen_layers : int, >= 0
        Layers, from the inputs on, that stay as they began. It stands in the table `[model]`.
        Example: `frozen-layers = 1`.
    train : bool
        Whether sites train. Without it a run validates the model of `warm-start`: each site scores all of its rows
        once. It stands in the table `[model]`. Example: `train = false`.
    rounds : int, >= 1
        Times that the sites train and the server aggregates; 0 where there is a statistic or an analysis.
        Example: `rounds = 40`.
    text : str
        The TOML text itself, which is sent and hashed.
    expected : Expected
        What `flfed study verify` checks.
    sweep : dict of key to tuple of values
        What `flfed study sweep` tries: each key with its values. Example: `lr = [0.05, 0.1]`.

    Other Parameters
    ----------------
    format : {1}
        Version of the file's format. Example: `format = 1`.

    Examples
    --------
    >>> from flfed import Study
    >>> study = Study(dataset="wine", model="logistic", rounds=5, partition={"by": "iid", "sites": 3})
    >>> study.rounds, study.replace({"plan.lr": 0.1}).plan.lr
    (5, 0.1)
    """

    name: str
    purpose: str
    legal_basis: str
    expires: datetime.date | None = None
    seed: int = 0
    dataset: Dataset
    encode: Encode
    privacy: Named
    warm_start: str = ""
    start_sha256: str = ""
    frozen_layers: int = 0
    compare: Compare
    text: str
    split: Split = field(default_factory=Split)
    expected: Expected = field(default_factory=Expected)
    sweep: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    @classmethod
    def load(cls, name: str | Path) -> Study:
        """Return the shipped study, or the one in a file, whose name may lack its ".toml".

        Raises
        ------
        UsageError
            If there is neither, or the file breaks a rule.
        """
        shipped = FOLDER / f"{name}.toml"
        path = next((file for file in (shipped, Path(name), Path(f"{name}.toml")) if file.is_file()), None)
        if path is None:
            if Path(name).suffix == ".toml" or Path(name).name != str(name):
                raise usage_error("study.reading.absent", name=str(name))
            choices = names()
            close = nearest(str(name), choices)
            raise usage_error("study.reading.unknown", name=str(name), close=close, shipped=", ".join(choices))
        text = read_text(path)
        if text.startswith("\ufeff"):
            # It would be part of the hash that sites approve, and no editor shows it.
            raise usage_error("study.reading.mark", path=path)
        try:
            return cls.parse(text)
        # A file's own name goes before the error; a shipped study is known by its name.
        except UsageError as error:
            if path == shipped:
                raise
            raise UsageError(f"{path}: {error}") from None

    @classmethod
    def parse(cls, text: str) -> Study:
        """Return the study that TOML `text` describes.

        Raises
        ------
        UsageError
            For text that is not TOML, an unknown key, a wrong value, or a key that a later
            version will know.
        """
        return _study(parse_toml(text, "the study"), text)

    def sha256(self) -> str:
        """Return the hash of the text, as approvals name it."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def is_covered(self) -> bool:
        """Whether ε covers all releases of a site: of an analysis, and where [privacy] covers the study."""
        return self.analysis is not None or self.covers_model

    @property
    def makes_models_at_sites(self) -> bool:
        """Whether institutions make models, or the numbers of visits, of sums over all of them: none crosses."""
        steps = self.visits > 1 if self.is_statistic else self.most_rounds > 0
        return steps and self.aggregation.sums_updates and not self.is_vertical

    @property
    def covers_model(self) -> bool:
        """Whether it trains a model, and ε covers all releases of a site for it."""
        return self.analysis is None and self.privacy.settings.get("covers") == "study"

    @property
    def by_person(self) -> bool:
        """Whether it protects persons, whose rows weigh one together."""
        return bool(self.privacy.settings.get("unit", "person") == "person")

    def adjusts_intercept(self) -> bool:
        """Return whether each site's own intercept adjusts the model: a linear one, or trees, without a mechanism."""
        model = registry.load("model", self.model.name)
        return self.privacy.name == "none" and bool(model.linear or getattr(model, "plain", False))

    def replace(self, changes: Mapping[str, Any], said: str = "--set") -> Study:
        """Return the study with some keys set, as `--set key=value` does.

        Parameters
        ----------
        changes : mapping of key to value
            A key is `table.key`, or the bare key where only one table has it. None leaves it out.
        said : str
            What stands before a key in an error.

        Raises
        ------
        UsageError
            For a key that is unknown or stands in several tables.
        """
        import tomli_w

        table = tomllib.loads(self.text)
        # What a table names decides which keys it has, so names are set first.
        for key, value in sorted(changes.items(), key=lambda change: not change[0].endswith(".name")):
            # A table that the study leaves out is made, so that any key can be set.
            *path, last = _path(key, table, said)
            place = table
            for part in path:
                place = place.setdefault(part, {})
                if not isinstance(place, dict):
                    raise usage_error("study.reading.path", option=said, key=key, part=part)
            if value is None:
                place.pop(last, None)
            else:
                place[last] = value
        return _study(table, tomli_w.dumps(table))

    def full_key(self, key: str, said: str) -> str:
        """Return a key with its table.

        The bare key "rounds" gives "strategy.rounds".

        Parameters
        ----------
        key : str
        said : str
            Where it was given, for the error: "--grid".

        Raises
        ------
        UsageError
            For a bare key that is unknown or stands in several tables.
        """
        return ".".join(_path(key, tomllib.loads(self.text), said))


def keys_of(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return keyword arguments as keys of a study.

    A text names what a table lists, and numbers of NumPy are plain ones.

    Examples
    --------
    >>> keys_of({"lr": 0.1, "model": "mlp", "encode": {"missing_indicator": True}})
    {'lr': 0.1, 'model.name': 'mlp', 'encode.missing-indicator': True}
    """
    keys: dict[str, Any] = {}
    for argument, value in changes.items():
        key = registry.kebab(argument)
        if isinstance(value, Mapping):
            inner = {registry.kebab(name): plain_value(one) for name, one in value.items()}
            # An inner table, such as a partition, is set as a whole.
            outer = [table for table, name in _NESTED if name == key]
            if outer:
                keys[f"{outer[0]}.{key}"] = inner
            else:
                keys |= {f"{key}.{name}": one for name, one in inner.items()}
        elif key in KINDS:
            keys[f"{key}.name"] = plain_value(value)
        else:
            keys[key] = plain_value(value)
    return keys


def plain_value(value: Any) -> Any:
    """Return a number of NumPy, or an array, as Python's own.

    Anything else as it is.
    """
    return value.tolist() if hasattr(value, "tolist") else value


def _from_keywords(*, dataset: str, model: Any = "logistic", name: str = "", **changes: Any) -> Study:
    """Return a study of a dataset's name, a model's name or keys, and keys."""
    keys = {"name": model}
    if isinstance(model, Mapping):
        keys = dict(model)
    model = keys.pop("name", "")
    if not isinstance(model, str) or not model:
        example = {"name": "mlp", "hidden": [8]}
        raise usage_error("study.reading.model", model=model, example=example)
    if keys:
        changes["model"] = keys
    chosen = {
        key: plain_value(changes.pop(key)) for key in ("purpose", "legal_basis", "rounds", "seed") if key in changes
    }
    text = StudyTemplate(name=name or f"{dataset}-study", dataset=dataset, model=model, **chosen).text()
    study = Study.parse(text)
    if changes:
        study = study.replace(keys_of(changes), "keyword")
    return study


def listed_names(kind: str) -> list[str]:
    """Return the sorted names that a table of a kind may have."""
    return sorted([*registry.names(kind), SUMMARY]) if kind == STATISTIC else registry.names(kind)


def describe_name(kind: str, name: str) -> str:
    """Return the description of a name of `listed_names`, in a line; "" where another package brings it."""
    if kind == STATISTIC and name == SUMMARY:
        return (inspect.getdoc(Analysis) or "").partition("\n")[0]
    return registry.describe(kind, name)


def names() -> list[str]:
    """Return the names of the shipped studies, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


_TABLES = {"dataset": Dataset, "split": Split, "encode": Encode, "plan": Plan, "compare": Compare}
_NESTED = {("dataset", "partition"): Partition, ("compare", "pooled"): Plan, ("compare", "incumbent"): Incumbent}
KINDS = {TABLE_OF.get(kind, kind): kind for kind in ("model", "strategy", "mechanism", "codec", "statistic")}
"""Tables that name a listed thing, with its kind."""
_EXAMPLES = {
    "partition": "{ by = 'iid', sites = 4 }",
    "pooled": "{ optimiser = 'adam', epochs = 50 }",
    "incumbent": "{ column = 'sub_grade', riskier = 'high' }",
}
_LOOSE = ("expected", "sweep")
_TOP = ("format", "name", "purpose", "legal-basis", "expires", "seed")


def _path(key: str, table: Table, option: str = "--set") -> list[str]:
    """Return the path of `key` in a study.

    The bare key `rounds` gives `["strategy", "rounds"]`.
    """
    if "." in key:
        return key.split(".")
    keys_by_table = _keys_by_table(table)
    paths = [[name, key] for name, keys in keys_by_table.items() if key in keys]
    if key in _TOP:
        paths.append([key])
    # A bare key of several tables would set one of them by chance.
    if len(paths) > 1:
        tables = ", ".join(path[0] for path in paths)
        raise usage_error("study.reading.several", option=option, key=key, tables=tables)
    if not paths:
        every = sorted(set[str]().union(*keys_by_table.values()))
        close = f"; did you mean {OTHERS_CALL[key]!r}?" if key in OTHERS_CALL else nearest(key, every)
        raise usage_error("study.reading.key", option=option, key=key, close=close)
    return paths[0]


def _keys_by_table(table: Table) -> dict[str, set[str]]:
    """Return the keys of every table, and those in the signatures of what the study names."""
    keys_by_table = {name: _field_keys(kind) - {"name"} for name, kind in _TABLES.items()}
    if has_analysis(table):
        keys_by_table[STATISTIC] = _field_keys(Analysis)
    keys_by_table |= {
        "strategy": {"rounds"},
        "privacy": _field_keys(Sums),
        "model": _field_keys(WarmStart),
    }
    for place, kind in KINDS.items():
        name = table.get(place, {}).get("name", "")
        if name in registry.names(kind):
            keys = inspect.signature(registry.load(kind, name)).parameters
            keys_by_table[place] = keys_by_table.get(place, set()) | {registry.kebab(key) for key in keys}
    for name in (*_TABLES, *KINDS):
        keys_by_table[name] = keys_by_table.get(name, set()) | set(table.get(name, {})) - {"name"}
    return keys_by_table


def _field_keys(kind: type[Any]) -> set[str]:
    return {registry.kebab(one.name) for one in fields(kind)}


def _study(table: dict[str, Any], text: str) -> Study:
    """Build a study from parsed TOML.

    Every error names its place.
    """
    _check_keys(table)
    parts = {name: _table(table, name) for name in (*_TABLES, *KINDS, *_LOOSE)}
    asks_sums = without_model(parts, analysis=has_analysis(table))
    analysis = None
    if has_analysis(table):
        del parts[STATISTIC]["name"]
        analysis = Analysis.parse(parts.pop(STATISTIC))
        parts[STATISTIC] = {}
    if "partition" in parts["dataset"] and "sites" in parts["dataset"]:
        raise usage_error("study.reading.partition")
    rounds = 0 if asks_sums else _rounds(parts["strategy"])
    if protects_rows(parts["privacy"]):
        parts["encode"].setdefault("scaler", protected_scaler(parts["privacy"]))
    made = {name: _made(name, parts[name]) for name in _TABLES}
    check_scaler(made["encode"].scaler, made["plan"].class_weight, parts["privacy"], counts=analysis is not None)
    if not made["dataset"].name:
        raise usage_error("study.reading.dataset")
    sums = _split_off(parts["privacy"], Sums)
    start = _split_off(parts["model"], WarmStart)
    start.check()
    sums.check(parts)
    is_covered = parts["privacy"].get("covers") == "study"
    if made["compare"].is_summed and (is_covered or not MODES[sums.secure_aggregation].masks_updates):
        raise usage_error("study.compare.sum")
    listed: dict[str, Any] = {name: _listed(kind, parts[name]) for name, kind in KINDS.items()}
    made["compare"].check_privacy(listed["privacy"].name)
    return Study(
        name=_name(table),
        purpose=_text(table, "purpose"),
        legal_basis=_text(table, "legal-basis"),
        expires=_date(table),
        seed=_seed(table),
        rounds=rounds,
        analysis=analysis,
        **listed,
        **vars(sums),
        **vars(start),
        text=text,
        expected=Expected.parse(parts["expected"]),
        sweep=parse_sweep(parts["sweep"]),
        **made,
    )


def _check_keys(table: Table) -> None:
    """Refuse unknown keys: a mistyped table would otherwise be left out in silence."""
    choices = [*_TOP, *_TABLES, *KINDS, *_LOOSE]
    for key in table:
        if key not in choices:
            raise unknown_key("study", key, choices)
    if table.get("format") != 1:
        raise usage_error("study.reading.format")


def _rounds(strategy: dict[str, Any]) -> int:
    """Take the number of rounds out of a strategy's table."""
    rounds = strategy.pop("rounds", 1)
    if type(rounds) is not int or rounds < 1:
        raise usage_error("study.reading.rounds", rounds=rounds)
    return rounds


def _split_off(table: dict[str, Any], kind: Any) -> Any:
    """Take the keys out of a table that are not of the thing it names, and return them checked."""
    settings = {key: table.pop(key) for key in _field_keys(kind) & table.keys()}
    return kind(**read_settings(kind, settings, kind.where))


def _made(name: str, settings: dict[str, Any]) -> Any:
    """Build one table of a study, inner tables first."""
    inner = {}
    for (outer, key), kind in _NESTED.items():
        if outer == name and key in settings:
            value = settings.pop(key)
            check_table(value, f"[{name}]: {key}", _EXAMPLES[key])
            # A partition has a table of its own within.
            parse = getattr(kind, "parse", None)
            inner[key] = parse(value) if parse else kind(**read_settings(kind, value, f"[{name}] {key}"))
    return _TABLES[name](**read_settings(_TABLES[name], settings, f"[{name}]"), **inner)


def _table(table: Table, name: str) -> dict[str, Any]:
    settings = table.get(name, {})
    if not isinstance(settings, dict):
        raise usage_error("study.reading.table", name=name)
    return dict(settings)


def _listed(kind: str, settings: dict[str, Any]) -> Named:
    """Return the listed thing that a table names.

    A study has a model and a strategy in any case; of the others there may be none.

    Raises
    ------
    UsageError
        If the name is missing or not known, or settings stand without one.
    """
    needed = kind in ("model", "strategy")
    without = None if needed else "none"
    name = settings.pop("name", without)
    where = f"[{TABLE_OF.get(kind, kind)}]"
    names = listed_names(kind)
    choices = ", ".join(other for other in names if not MODULE_NAME.fullmatch(other))
    if name == "none" and not needed:
        # Settings without a name would do nothing while they seem to.
        if settings:
            raise usage_error("study.reading.settings", where=where, key=next(iter(settings)), choices=choices)
        return Named(name="none")
    if not isinstance(name, str):
        raise usage_error("study.reading.name", where=where, choices=choices)
    if MODULE_NAME.fullmatch(name) and name not in names:
        raise usage_error("study.reading.lent", where=where, choices=choices)
    if name not in names:
        close = nearest(name, names)
        raise usage_error("study.reading.listed", where=where, name=name, close=close, choices=choices)
    return Named(name=name, settings=settings)


def _text(table: Table, key: str) -> str:
    value = table.get(key)
    if not isinstance(value, str) or not value.strip():
        raise usage_error("study.reading.text", key=key)
    return value


def _name(table: Table) -> str:
    value = _text(table, "name")
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", value):
        raise usage_error("study.reading.title", name=value)
    return value


def _seed(table: Table) -> int:
    value = table.get("seed", 0)
    if type(value) is not int or value < 0:
        raise usage_error("study.reading.seed", seed=value)
    if value > LARGEST_SEED:
        raise usage_error("study.reading.large", seed=value, most=LARGEST_SEED)
    return value


def _date(table: Table) -> datetime.date | None:
    value = table.get("expires")
    if value is not None and type(value) is not datetime.date:
        raise usage_error("study.reading.expires", expires=value)
    return value


NO_USE = ("model", "plan", "strategy", "encode", "split", "compare", "codec", "sweep")
"""Tables that a study of a statistic has no use for."""
UNUSED: Table = {"model": {"name": "mlp"}, "strategy": {"name": "fedavg"}}
"""Stand in for model and strategy where a study has none: nothing is trained by them."""
STATISTIC = "statistic"
"""The table that stands in place of a model."""
WITHOUT_IMPORT = {"none": False, "label-dp": False, "record-dp": True, "site-dp": False}
"""Whether mechanisms protect rows whose modules, with numpy, are not loaded for that; all others are asked."""


def has_analysis(table: Table) -> bool:
    """Return whether a study's parsed text has an analysis: the statistic "summary"."""
    statistic = table.get(STATISTIC)
    return isinstance(statistic, dict) and statistic.get("name") == SUMMARY


def trains(table: Table) -> bool:
    """Return whether a study's parsed text trains a model: it has no statistic or analysis, and validates none."""
    return STATISTIC not in table and bool(table.get("model", {}).get("train", True))


def has_parties(table: Table) -> bool:
    """Return whether a study's parsed text is of sites with different columns of the same people."""
    return bool(table.get("strategy", {}).get("name") == VERTICAL)


def protects_rows(privacy: Table) -> bool:
    """Return whether a table `[privacy]` names a mechanism whose noise protects single rows.

    The scaler, and whether counts may have noise, follow from it.
    """
    name = privacy.get("name", "none")
    if isinstance(name, str) and name in WITHOUT_IMPORT:
        return WITHOUT_IMPORT[name]
    return name in registry.names("mechanism") and bool(registry.load("mechanism", name).protects_rows)


def protected_scaler(privacy: Table) -> str:
    """Return the scaler of a study that protects rows and names none: by any other one row moves the inputs of all."""
    return "schema"


def check_scaler(scaler: str, class_weight: str, privacy: Table, *, counts: bool) -> None:
    """Refuse inputs that are scaled by what nothing charges.

    `counts` says whether it is a study of an analysis.

    Raises
    ------
    UsageError
        For the first such thing.
    """
    if counts and "covers" in privacy:
        raise usage_error("study.encode.analysis")
    if scaler == "schema" and class_weight == "balanced":
        raise usage_error("study.encode.balanced")


def without_model(parts: dict[str, dict[str, Any]], *, analysis: bool) -> bool:
    """Return whether a study asks for a statistic or an analysis, and fill in what it lacks then.

    Raises UsageError where it has what belongs to a model.
    """
    if not parts[STATISTIC]:
        return False
    if conflicts := [other for other in NO_USE if parts[other]]:
        raise usage_error("study.statistic.conflict", table=conflicts[0])
    if analysis:
        _check_noise(parts["privacy"])
    else:
        _check_exact_sums(parts["privacy"])
    partition = parts["dataset"].get("partition")
    if isinstance(partition, dict) and "holdout" in partition:
        raise usage_error("study.statistic.holdout")
    parts |= {name: dict(table) for name, table in UNUSED.items()}
    return True


def _adds_statistics(privacy: Table) -> bool:
    """Return whether the way of secure aggregation that a table `[privacy]` names is one for statistics."""
    mode = privacy.get("secure-aggregation", "off")
    return mode in STATISTIC_MODES


def _check_exact_sums(privacy: Table) -> None:
    """Refuse a mechanism, whose noise is made for updates, and homomorphic encryption, which is made for a model."""
    if set(privacy) - {"secure-aggregation"} or not _adds_statistics(privacy):
        raise usage_error("study.statistic.privacy")


def _check_noise(privacy: Table) -> None:
    """Refuse an analysis without noise, or with settings of training."""
    if not protects_rows(privacy):
        raise usage_error("study.statistic.noise")
    for key in ("clip", "sampling"):
        if key in privacy:
            raise usage_error("study.statistic.training", key=key)
    if not _adds_statistics(privacy):
        raise usage_error("study.statistic.mode")


def staying(study: Study) -> tuple[str, ...]:
    """Return the outputs that a site does not release where ε covers the study, as no ε is charged for them.

    Examples
    --------
    >>> from flfed import Study
    >>> staying(Study.load("breast-cancer"))
    ()
    """
    if not study.covers_model:
        return ()
    keys = ("rows", "rounds", "sums", "own", "adjusted", "counts", "audit")
    return tuple(render(f"mechanisms.staying.{key}") for key in keys)
