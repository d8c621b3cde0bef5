"""Text of a new study, with a comment for each choice."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import starmap

import tomli_w

from flfed.study.study_text import SUMMARY
from flfed.study.tables import TREES, VERTICAL
from flfed.words import render, sentences, usage_error

LARGE = 10_000
"""Training rows of a site from which on a round takes a fixed number of steps."""
STEPS = 600
PARTY_ROUNDS = 10
EPSILON = 3.0
ONE_EPSILON = 1.0
DELTA = 1e-5
"""Of a study with a model, of the statistic "summary", and of both."""
MODELS = {"binary": "logistic", "multi-class": "logistic", "regression": "linear"}
"""The model that is proposed for each task: the one whose coefficients can be read."""
PACES = {"multi-class": (0.2, 0.001)}
"""Learning rate and penalty of a task: larger penalties and smaller steps leave many classes far from the optimum."""
PACE = (0.05, 0.01)
WIDTH = 96
"""Longest line of a reason, without its mark."""


@dataclass(frozen=True)
class Setting:
    """Value of a key in a new study, with its comments.

    Attributes
    ----------
    value : object
        A tuple and a mapping stand on one line, a list on several.
    comment : str
        Stands behind the value.
    above, below : tuple of str
        Lines of comments before and after it.
    """

    value: object
    comment: str = ""
    above: tuple[str, ...] = ()
    below: tuple[str, ...] = ()

    def lines(self, key: str) -> list[str]:
        """Return the lines of the study."""
        return [*self.above, _line(key, self.value, self.comment), *self.below]


Table = dict[str, Setting]
"""A table of a study, by its keys."""


@dataclass(frozen=True, kw_only=True)
class StudyTemplate:
    """Choices of a new study.

    All others are as a first study of a table needs them.

    Attributes
    ----------
    name, dataset : str
    purpose, legal_basis : str
        "" for a text to be replaced.
    model : str
        "linear", "logistic", "mlp" or "boosted-trees".
    task : str
        "binary", "multi-class" or "regression"; "" where it is not known.
    rounds : int
    private : bool
        Whether updates are protected by record-level differential privacy.
    sites : tuple of str
        Only these; empty for every site of the dataset.
    has_parties : bool
        Whether `sites` have different columns of the same people.
    gaps : bool
        Whether features have missing cells, so that it is an input that one is missing.
    rows : int
        Training rows of a site on average, or 0 where that is not known.
    seed : int
    sums : bool
        Whether updates of three institutions or more are under secure aggregation.
    covers : {"updates", "study"}
        Outputs that ε covers. With "study", rows are protected and there is no secure aggregation.
    columns : sequence of str
        Columns that are counted in place of training a model; empty for a study with a model.
    estimate : mapping of str to object
        Settings of a statistic of exact sums in place of a model, its name among them; empty for a study with a model.
    settings : mapping of str to object
        Values in place of the template's, or beside them, by table and key: "plan.lr". None leaves a key out.
    reasons : mapping of str to str
        Why a setting is as it is, by table and key, in place of the template's comment.
    heading : tuple of str
        Comments before the first key.
    """

    name: str
    dataset: str
    purpose: str = ""
    legal_basis: str = ""
    model: str = "logistic"
    task: str = ""
    rounds: int = 40
    private: bool = False
    sites: tuple[str, ...] = ()
    has_parties: bool = False
    gaps: bool = False
    rows: int = 0
    seed: int = 42
    sums: bool = False
    covers: str = "updates"
    columns: Sequence[str] = ()
    estimate: Mapping[str, object] = field(default_factory=dict)
    settings: Mapping[str, object] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    heading: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what ε cannot be of."""
        if self.covers not in ("updates", "study"):
            raise usage_error("study.reading.covers", covers=self.covers)

    def text(self) -> str:
        """Return the study as TOML."""
        lines = [f"# {line}" for line in self.heading]
        lines += self._head()
        for name, table in self._tables().items():
            lines += ["", f"[{name}]"]
            for key, setting in table.items():
                lines += setting.lines(key)
        return "\n".join(lines) + "\n"

    def _tables(self) -> dict[str, Table]:
        """Return the settings of each table, with those and the reasons that somebody chose."""
        tables = {"dataset": self._dataset()}
        if self.columns:
            tables |= self._analysis()
        elif self.estimate:
            tables |= self._estimate()
        elif self.has_parties:
            model = {"name": Setting(self.model)}
            parties = Setting(VERTICAL, render("study.template.parties"))
            strategy = {"name": parties, "rounds": Setting(PARTY_ROUNDS, render("study.template.exchanges"))}
            tables |= {"model": model, "strategy": strategy, "privacy": self._privacy()}
        else:
            tables |= {"encode": self._encode(), "model": self._model(), "plan": self._plan()}
            tables |= {"strategy": self._strategy(), "privacy": self._privacy(), "compare": self._compare()}
        for path, value in self.settings.items():
            name, key = path.split(".")
            tables[name].pop(key, None)
            if value is not None:
                tables[name][key] = Setting(value)
        for path, reason in self.reasons.items():
            name, key = path.split(".")
            tables[name][key] = Setting(tables[name][key].value, above=wrap_comment(reason))
        return {name: table for name, table in tables.items() if table}

    def _head(self) -> list[str]:
        """Return what every study begins with."""
        purpose = render("study.template.purpose")
        if self.columns:
            purpose = render("study.template.counts")
        elif self.estimate:
            purpose = render("study.template.estimate")
        elif self.has_parties:
            purpose = render("study.template.joined")
        basis = self.legal_basis or render("study.template.basis")
        return [
            "format = 1",
            _line("name", self.name),
            _line("purpose", self.purpose or purpose),
            _line("legal-basis", basis),
            _line("seed", self.seed, render("study.template.seed")),
        ]

    def _dataset(self) -> Table:
        """Return the dataset, and its sites where they are not all."""
        table = {"name": Setting(self.dataset)}
        if self.sites:
            table["sites"] = Setting(list(self.sites))
        return table

    def _encode(self) -> Table:
        """Return how rows become inputs, nothing where a new study needs no key for it."""
        if not self.gaps or self._protected or self.model == TREES:
            return {}
        return {"missing-indicator": Setting(True, render("study.template.gaps"))}

    def _model(self) -> Table:
        """Return the model and its size."""
        comment = render(f"study.models.{self.model}") if self.model in sentences("study", "models") else ""
        table = {"name": Setting(self.model, comment)}
        if self.model == "mlp":
            table["hidden"] = Setting((16,), render("study.template.hidden"))
        if self.model == TREES:
            table["depth"] = Setting(4, render("study.template.depth"))
        return table

    def _plan(self) -> Table:
        """Return how sites train.

        Privacy needs a number of steps that no row changes.
        """
        if self.model == TREES:
            return {"validation": Setting(0.2, render("study.template.curves"))}
        steps = render("study.template.steps")
        table = {"optimiser": Setting("sgd")}
        if self._protected:
            return {**table, "lr": Setting(0.5), "batch": Setting(64), "steps": Setting(20, steps)}
        lr, l2 = PACES.get(self.task, PACE)
        table |= {"lr": Setting(lr, "learning rate"), "schedule": Setting("cosine"), "batch": Setting(32)}
        if self.rows > LARGE:
            table["steps"] = Setting(STEPS, steps)
        else:
            table["epochs"] = Setting(2, "of a round")
        table["l2"] = Setting(l2, render("study.template.penalty"))
        table["clip"] = Setting(1.0, render("study.template.clip"))
        return table

    def _strategy(self) -> Table:
        """Return the strategy and its rounds."""
        table = {"name": Setting("fedavg"), "rounds": Setting(self.rounds)}
        if self.model == TREES:
            table["name"] = Setting(TREES)
            table["learning-rate"] = Setting(0.1, render("study.template.rate"))
        table["quorum"] = Setting(0.75, render("study.template.quorum"))
        return table

    def _privacy(self) -> Table:
        """Return what protects updates, nothing where nothing does."""
        table = {}
        if self._protected:
            table = _noise(EPSILON)
        if self._covered:
            table["covers"] = Setting("study", render("study.template.covers"))
        elif self.sums and self.model != TREES and not self.has_parties:
            comment = f"# {render('study.template.sums')}"
            table["secure-aggregation"] = Setting("auto", above=(comment,))
        return table

    @property
    def _covered(self) -> bool:
        return self.covers == "study"

    @property
    def _protected(self) -> bool:
        return self.private or self._covered

    def _compare(self) -> Table:
        """Return the rules of the comparison; under noise that covers all, sites send no calibration."""
        if self.task != "binary" or (self.private and self.covers == "study"):
            return {}
        return {"calibration": Setting(True, "slope and intercept at each site")}

    def _analysis(self) -> dict[str, Table]:
        """Return the columns that are counted in place of training a model, and their budget."""
        groups = f"# {_line('groups', 'FLAG', render('study.template.groups'))}"
        table = {
            "name": Setting(SUMMARY),
            "columns": Setting(list(self.columns), above=(f"# {render('study.template.analysis')}",)),
            "quantiles": Setting((0.25, 0.5, 0.75), below=(groups,)),
        }
        return {"statistic": table, "privacy": _noise(ONE_EPSILON)}

    def _estimate(self) -> dict[str, Table]:
        """Return the statistic of exact sums, and secure aggregation where a site needs it."""
        table = {key: Setting(value, self._comment(key, value)) for key, value in self.estimate.items()}
        if self.estimate["name"] == "glm":
            own = f"# {_line('intercept', 'site', render('study.choices.intercept'))}"
            table["of"] = replace(table["of"], below=(own,))
        privacy = {}
        if self.sums:
            privacy["secure-aggregation"] = Setting("on", above=wrap_comment(render("study.estimate.sums")))
        return {"statistic": table, "privacy": privacy}

    def _comment(self, key: str, value: object) -> str:
        """Return the comment of a statistic's setting: that of its value, of its statistic, or of its key."""
        comments = sentences("study", "choices")
        names = [name for name in (f"{key}-{value}", f"{key}-{self.estimate['name']}", key) if name in comments]
        return render(f"study.choices.{names[0]}")


def _noise(epsilon: float) -> Table:
    """Return the table of noise on each row."""
    return {"name": Setting("record-dp"), "epsilon": Setting(epsilon), "delta": Setting(DELTA)}


def wrap_comment(text: str) -> tuple[str, ...]:
    """Return a text as lines of a comment."""
    lines = textwrap.wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False)
    return tuple(f"# {line}" for line in lines)


def _line(key: str, value: object, comment: str = "") -> str:
    """Return a line of TOML, with a comment where there is one."""
    line = f"{key} = {_inline(value)}"
    if isinstance(value, (str, list)):
        line = tomli_w.dumps({key: value}).strip()
    if comment:
        return f"{line}  # {comment}"
    return line


def _inline(value: object) -> str:
    """Return a value of TOML on one line."""
    if isinstance(value, Mapping):
        return f"{{ {', '.join(starmap(_line, value.items()))} }}"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_inline, value))}]"
    return tomli_w.dumps({"value": value}).strip().removeprefix("value = ")
