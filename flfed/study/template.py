"""Text of a new study, with a comment for each choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tomli_w

from flfed.errors import UsageError
from flfed.study.former_names import SUMMARY
from flfed.study.tables import TREES
from flfed.words import render, sentences

LARGE = 10_000
"""Training rows of a site from which on a round takes a fixed number of steps."""
STEPS = 600
EPSILON = 3.0
ONE_EPSILON = 1.0
DELTA = 1e-5
"""Of a study with a model, of the statistic "summary", and of both."""
MODELS = {"binary": "logistic", "multi-class": "logistic", "regression": "linear"}
"""The model that is proposed for each task: the one whose coefficients can be read."""
PACES = {"multi-class": (0.2, 0.001)}
"""Learning rate and penalty of a task: larger penalties and smaller steps leave many classes far from the optimum."""
PACE = (0.05, 0.01)


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
    gaps : bool
        Whether features have missing cells, so that it is an input that one is missing.
    rows : int
        Training rows of a site on average, or 0 where that is not known.
    seed : int
    sums : bool
        Whether updates of three institutions or more are under secure aggregation.
    covers : {"updates", "study"}
        Outputs that ε covers. With "study", rows are protected and there is no secure aggregation.
    refit : bool
        Whether validation rows choose how many trees there are, which then grow anew on all training rows.
    columns : sequence of str
        Columns that are counted in place of training a model; empty for a study with a model.
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
    gaps: bool = False
    rows: int = 0
    seed: int = 42
    sums: bool = False
    covers: str = "updates"
    refit: bool = False
    columns: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Refuse what ε cannot be of."""
        if self.covers not in ("updates", "study"):
            raise UsageError(render("study.reading.covers", covers=self.covers))

    def text(self) -> str:
        """Return the study as TOML."""
        lines = self._head()
        if self.columns:
            lines += self._analysis()
        else:
            lines += [*self._model(), "", "[plan]", *self._plan(), *self._strategy(), *self._privacy()]
        return "\n".join(lines) + "\n"

    def _model(self) -> list[str]:
        """Return the model and how rows become its inputs."""
        lines = []
        if self.gaps and not self._protected and self.model != TREES:
            lines += ["", "[encode]", _line("missing-indicator", True, render("study.template.gaps"))]
        comment = render(f"study.models.{self.model}") if self.model in sentences("study", "models") else ""
        lines += ["", "[model]", _line("name", self.model, comment)]
        if self.model == "mlp":
            lines.append(f"hidden = [16]  # {render('study.template.hidden')}")
        if self.model == TREES:
            lines.append(_line("depth", 4, render("study.template.depth")))
        return lines

    def _strategy(self) -> list[str]:
        """Return the strategy and its rounds."""
        name = TREES if self.model == TREES else "fedavg"
        lines = ["", "[strategy]", _line("name", name), _line("rounds", self.rounds)]
        if self.model == TREES:
            lines += self._trees()
        return [*lines, _line("quorum", 0.75, render("study.template.quorum"))]

    def _privacy(self) -> list[str]:
        """Return what protects updates, nothing where nothing does."""
        lines = []
        if self._protected:
            lines += ['name = "record-dp"', _line("epsilon", EPSILON), _line("delta", DELTA)]
        if self._covered:
            lines += [_line("covers", "study", render("study.template.covers"))]
            lines += [_line("comparison", "site-model", render("study.template.comparison"))]
        elif self.sums and self.model != TREES:
            lines += [f"# {render('study.template.sums')}", _line("secure-aggregation", "auto")]
        return ["", "[privacy]", *lines] if lines else []

    @property
    def _covered(self) -> bool:
        return self.covers == "study"

    @property
    def _protected(self) -> bool:
        return self.private or self._covered

    def _analysis(self) -> list[str]:
        """Return the columns that are counted in place of training a model, and their budget."""
        return [
            *("", "[statistic]", _line("name", SUMMARY), f"# {render('study.template.analysis')}"),
            *(_line("columns", list(self.columns)), "quantiles = [0.25, 0.5, 0.75]"),
            f"# {_line('groups', 'FLAG', render('study.template.groups'))}",
            *("", "[privacy]", 'name = "record-dp"', _line("epsilon", ONE_EPSILON), _line("delta", DELTA)),
        ]

    def _head(self) -> list[str]:
        """Return what every study begins with."""
        purpose = render("study.template.counts") if self.columns else render("study.template.purpose")
        basis = self.legal_basis or render("study.template.basis")
        lines = [
            "format = 1",
            _line("name", self.name),
            _line("purpose", self.purpose or purpose),
            _line("legal-basis", basis),
        ]
        lines += [_line("seed", self.seed, render("study.template.seed"))]
        lines += ["", "[dataset]", _line("name", self.dataset)]
        if self.sites:
            lines.append(_line("sites", list(self.sites)))
        return lines

    def _trees(self) -> list[str]:
        """Return how trees grow, and how many.

        Only open data has its validation rows back.
        """
        lines = [_line("learning-rate", 0.1, render("study.template.rate"))]
        if not self.refit:
            return lines
        lines += [_line("select", "best", render("study.template.select"))]
        lines += [_line("patience", 20, render("study.template.patience"))]
        return [*lines, _line("refit", True, render("study.template.refit"))]

    def _plan(self) -> list[str]:
        """Return how sites train.

        Privacy needs a number of steps that no row changes.
        """
        if self.model == TREES:
            use = render("study.template.chosen") if self.refit else render("study.template.curves")
            return [_line("validation", 0.2, use)]
        lr, l2 = PACES.get(self.task, PACE)
        steps = render("study.template.steps")
        if self._protected:
            return ['optimiser = "sgd"', "lr = 0.5", "batch = 64", _line("steps", 20, steps)]
        pace = _line("steps", STEPS, steps) if self.rows > LARGE else "epochs = 2  # of a round"
        return [
            *('optimiser = "sgd"', f"lr = {lr}  # learning rate", 'schedule = "cosine"', "batch = 32", pace),
            _line("l2", l2, render("study.template.penalty")),
            _line("clip", 1.0, render("study.template.clip")),
        ]


def _line(key: str, value: object, comment: str = "") -> str:
    """Return a line of TOML, with a comment where there is one."""
    line = tomli_w.dumps({key: value}).strip()
    if comment:
        return f"{line}  # {comment}"
    return line
