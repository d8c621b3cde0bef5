"""Text of a new study, with a comment for each choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tomli_w

from flfed.errors import UsageError
from flfed.study.former_names import SUMMARY
from flfed.study.tables import TREES

LARGE = 10_000
"""Training rows of a site from which on a round takes a fixed number of steps."""
STEPS = 600
EPSILON = 3.0
ONE_EPSILON = 1.0
DELTA = 1e-5
"""Of a study with a model, of the statistic "summary", and of both."""
COUNTS = "First look: what the rows of all sites are like, without an exact count of any"
"""Purpose of a new study that counts in place of training a model."""
MODELS = {"binary": "logistic", "multi-class": "logistic", "regression": "linear"}
"""The model that is proposed for each task: the one whose coefficients can be read."""
PACES = {"multi-class": (0.2, 0.001)}
"""Learning rate and penalty of a task: larger penalties and smaller steps leave many classes far from the optimum."""
PACE = (0.05, 0.01)


@dataclass(frozen=True, kw_only=True)
class StudyTemplate:
    """Choices of a new study; all others are as a first study of a table needs them.

    Attributes
    ----------
    name, dataset : str
    purpose : str
    legal_basis : str
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
        Whether the updates of three institutions or more are added up in secret.
    covers : {"updates", "study"}
        What ε is of; of all that leaves a site, rows are protected and nothing is added up in secret.
    refit : bool
        Whether validation rows choose how many trees there are, which then grow anew on all training rows.
    columns : sequence of str
        Those that are counted in place of training a model; empty for a study with one.
    """

    name: str
    dataset: str
    purpose: str = "First look: does a shared model predict better than each site's own?"
    legal_basis: str = "to be filled in before other institutions take part"
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
            raise UsageError(f"covers={self.covers!r} must be one of 'updates', 'study'")

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
            lines += ["", "[encode]", "missing-indicator = true  # that a cell is missing may tell something"]
        lines += ["", "[model]", _line("name", self.model) + _MODEL_WORDS.get(self.model, "")]
        if self.model == "mlp":
            lines.append("hidden = [16]  # one layer of 16 units")
        if self.model == TREES:
            lines.append("depth = 4  # most splits from the root of a tree to a leaf")
        return lines

    def _strategy(self) -> list[str]:
        """Return the strategy and its rounds."""
        name = TREES if self.model == TREES else "fedavg"
        lines = ["", "[strategy]", _line("name", name), _line("rounds", self.rounds)]
        if self.model == TREES:
            lines += self._trees()
        return [*lines, "quorum = 0.75  # share of the sites that must answer in a round"]

    def _privacy(self) -> list[str]:
        """Return what protects updates, nothing where nothing does."""
        lines = []
        if self._protected:
            lines += ['name = "record-dp"', _line("epsilon", EPSILON), _line("delta", DELTA)]
        if self._covered:
            lines += ['covers = "study"  # epsilon is of all that leaves a site, not of the updates alone']
            lines += [
                'comparison = "site-model"  # of it each site tells whether the shared model is better; or "none"'
            ]
        elif self.sums and self.model != TREES:
            lines += ["# of three institutions or more the coordinator gets sums of updates, and no single one"]
            lines += ['secure-aggregation = "auto"']
        if lines:
            return ["", "[privacy]", *lines]
        return []

    @property
    def _covered(self) -> bool:
        return self.covers == "study"

    @property
    def _protected(self) -> bool:
        return self.private or self._covered

    def _analysis(self) -> list[str]:
        """Return what is counted in place of training a model, and its budget."""
        return [
            *(
                "",
                "[statistic]",
                _line("name", SUMMARY),
                "# Each column costs all others: leave out what you do not need.",
            ),
            *(_line("columns", list(self.columns)), "quantiles = [0.25, 0.5, 0.75]"),
            '# groups = "a flag or category"  # each column for each group, too, with the differences',
            *("", "[privacy]", 'name = "record-dp"', _line("epsilon", ONE_EPSILON), _line("delta", DELTA)),
        ]

    def _head(self) -> list[str]:
        """Return what every study begins with."""
        lines = ["format = 1", _line("name", self.name), _line("purpose", self.purpose)]
        lines += [_line("legal-basis", self.legal_basis), _line("seed", self.seed) + "  # every draw follows from it"]
        lines += ["", "[dataset]", _line("name", self.dataset)]
        if self.sites:
            lines.append(_line("sites", list(self.sites)))
        return lines

    def _trees(self) -> list[str]:
        """Return how trees grow, and how many; only open data has its validation rows back."""
        lines = ["learning-rate = 0.1  # what each tree's leaves are multiplied by"]
        if not self.refit:
            return lines
        lines += ['select = "best"  # the trees up to the one after which validation rows did best']
        lines += ["patience = 20  # trees without a better one that end these rounds"]
        again = "then as many trees are grown anew on all training rows; for open data"
        return [*lines, f"refit = true  # {again}"]

    def _plan(self) -> list[str]:
        """Return how sites train; privacy needs a number of steps that no row changes."""
        if self.model == TREES:
            use = "which choose how many trees there are" if self.refit else "for the curves by round"
            return [f"validation = 0.2  # share of training rows kept apart, {use}"]
        lr, l2 = PACES.get(self.task, PACE)
        lines = ['optimiser = "sgd"', f"lr = {lr}  # learning rate", 'schedule = "cosine"', "batch = 32"]
        if self._protected:
            return ['optimiser = "sgd"', "lr = 0.5", "batch = 64", "steps = 20  # of a round, at each site"]
        pace = f"steps = {STEPS}  # of a round, at each site" if self.rows > LARGE else "epochs = 2  # of a round"
        return [*lines, pace, f"l2 = {l2}  # penalty on the weights", "clip = 1.0  # largest norm of a step's gradient"]


_MODEL_WORDS = {
    "logistic": "  # coefficients that can be read; or mlp, a small neural network",
    "linear": "  # coefficients that can be read; or mlp, a small neural network",
    "mlp": "  # a small neural network; or logistic (linear for a number)",
    TREES: "  # the same trees as of one table of all rows",
}


def _line(key: str, value: object) -> str:
    return tomli_w.dumps({key: value}).strip()
