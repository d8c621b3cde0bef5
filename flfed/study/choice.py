"""Choice of a study by six answers, each setting with its reason.

It reads no rows: answers and facts about a dataset go in, and a study or the reason why there is none comes out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args, get_type_hints

from pydantic import Field

from flfed.study.settings import Settings
from flfed.study.tables import TREES
from flfed.study.template import DELTA, MODELS, StudyTemplate
from flfed.words import render

LEAST = {"sites": 2, "rows": 1}
"""Least numbers that are answers."""
LEAST_SUMMED = 3
"""Sites from which on a sum hides each of them."""
LEAST_NOISED = 140
"""Rows of the smallest sites with which a use of noise was measured: they train on about 100."""
LEAST_PROTECTED = 500
"""Rows of which 30 % may have 75 of either class: fewer have no figures where all that a site releases has noise."""
MANY_NOISED = 5_000
"""Rows of a site with which a perceptron was measured under noise: it trains on 3,400."""
MANY_ROWS = 10_000
"""Rows of all sites from which on trees are worth a try."""
LEAST_TRIMMED = 4
"""Sites of which a quarter is one."""
MOST_PARTS = 10
"""Sites into which a public table in place of somebody's own is cut, at most."""
TRAINING_SHARE = 0.7
"""Share of the rows that a site trains on, where its holdout has the usual size."""
EVERYDAY = {
    "strategy": ("fedavg", "boosted-trees", "trimmed-mean"),
    "model": ("logistic", "linear", "mlp", "boosted-trees"),
}
"""Names by kind that a chosen study may have; all others of these kinds are research variants."""
STAND_INS = {"binary": "breast-cancer", "multi-class": "wine", "regression": "diabetes"}
"""Public tables in place of somebody's own, by outcome; each is here without a download."""

Outcome = Literal["binary", "multi-class", "regression"]


class Answers(Settings, where="[answers]", frozen=True):
    """Answers to the six questions.

    Attributes
    ----------
    sites : int, >= 2
        Institutions that take part. Example: `sites = 4`.
    rows : int, >= 1
        Rows of the smallest one. Example: `rows = 1000`.
    outcome : {"binary", "multi-class", "regression"}
    visible : {"updates", "sums"}
        What the coordinator may see: each site's updates, or sums over several sites alone.
    trusted : {"everybody", "coordinator", "partners", "nobody"}
        Who keeps to the protocol.
    noise : {"none", "updates", "everything"}
        What has noise that protects single rows.
    """

    sites: Annotated[int, Field(ge=LEAST["sites"])] = 4
    rows: Annotated[int, Field(ge=LEAST["rows"])] = 1_000
    outcome: Outcome = "binary"
    visible: Literal["updates", "sums"] = "sums"
    trusted: Literal["everybody", "coordinator", "partners", "nobody"] = "everybody"
    noise: Literal["none", "updates", "everything"] = "none"

    @property
    def trusts_coordinator(self) -> bool:
        """Whether the coordinator keeps to the protocol."""
        return self.trusted in ("everybody", "coordinator")

    @property
    def trusts_partners(self) -> bool:
        """Whether every other site keeps to the protocol."""
        return self.trusted in ("everybody", "partners")

    @property
    def hides_updates(self) -> bool:
        """Whether the coordinator may see no update of one site."""
        return self.visible != "updates"

    @property
    def sums_updates(self) -> bool:
        """Whether updates leave in secure sums alone: where they are to be hidden, and of trees."""
        return self.hides_updates or self.grows_trees

    @property
    def has_noise(self) -> bool:
        """Whether noise protects single rows."""
        return self.noise != "none"

    @property
    def protects_all(self) -> bool:
        """Whether all that a site releases has noise."""
        return self.noise == "everything"

    @property
    def has_many_rows(self) -> bool:
        """Whether trees are worth a try."""
        return self.rows * self.sites >= MANY_ROWS

    @property
    def fits_perceptron(self) -> bool:
        """Whether a perceptron is proposed under noise: it was measured for yes or no, with many rows."""
        return self.has_noise and self.outcome == "binary" and self.rows >= MANY_NOISED

    @property
    def trims(self) -> bool:
        """Whether the updates that lie farthest out are cut off, since a partner may spoil the model."""
        return not self.hides_updates and not self.trusts_partners and self.sites >= LEAST_TRIMMED

    @property
    def grows_trees(self) -> bool:
        """Whether trees are proposed: many rows, and secure sums that hide each site's own."""
        return self.has_many_rows and self.sites >= LEAST_SUMMED and not self.has_noise and not self.trims


def list_choices() -> dict[str, tuple[str, ...]]:
    """Return the answers to each question from which one is chosen; none for a number.

    Examples
    --------
    >>> list_choices()["visible"], list_choices()["sites"]
    (('updates', 'sums'), ())
    """
    hints = get_type_hints(Answers)
    return {name: get_args(hints[name]) for name in QUESTIONS}


QUESTIONS = ("sites", "rows", "outcome", "visible", "trusted", "noise")
"""Names of the answers, in the order in which they are requested."""


@dataclass(frozen=True, kw_only=True)
class DatasetFacts:
    """Dataset of a study to be chosen.

    Attributes
    ----------
    name : str
    outcome : {"binary", "multi-class", "regression"}
        Its task.
    sites : int
        Its sites here; 0 for one table, which the study cuts into sites.
    is_stand_in : bool
        Whether it is a public table in place of somebody's own.
    """

    name: str
    outcome: Outcome
    sites: int = 0
    is_stand_in: bool = False


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Study for some answers, or the reason why there is none.

    Attributes
    ----------
    text : str or None
        The study's TOML text.
    reasons : mapping of str to str
        Why each setting is as it is, by table and key.
    reason : str
        Why there is no study; else "".
    """

    text: str | None = None
    reasons: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""


@dataclass
class _Settings:
    """Settings that differ from the template's, and the reasons of all."""

    values: dict[str, object] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def explain(self, **reasons: str) -> None:
        """Give the reason for settings that stay the template's; `plan_lr` is "plan.lr"."""
        for path, key in reasons.items():
            self.reasons[_path(path)] = render(f"choose.reasons.{key}")

    def set(self, path: str, value: object, key: str) -> None:
        """Set a value, and give its reason."""
        self.values[path] = value
        self.reasons[path] = render(f"choose.reasons.{key}")


def _path(name: str) -> str:
    table, _, key = name.partition("_")
    return f"{table}.{key.replace('_', '-')}"


EXCLUSIONS: Mapping[str, Callable[[Answers], bool]] = {
    "two-sites": lambda answers: answers.hides_updates and answers.sites < LEAST_SUMMED,
    "few-rows": lambda answers: answers.has_noise and answers.rows < LEAST_NOISED,
    "few-test-rows": lambda answers: answers.protects_all and answers.rows < LEAST_PROTECTED,
    "everything-summed": lambda answers: answers.protects_all and answers.hides_updates,
    "everything-outcome": lambda answers: answers.protects_all and answers.outcome != "binary",
    "coordinator-lies": lambda answers: (
        not (answers.trusts_coordinator or answers.has_noise or (answers.sums_updates and answers.trusts_partners))
    ),
}
"""Answers that no study serves, by the key of the reason; the first that holds is given."""


def choose_study(answers: Answers, dataset: DatasetFacts) -> Choice:
    """Return the study for some answers, or the reason why there is none.

    Parameters
    ----------
    answers : Answers
    dataset : DatasetFacts
        Its outcome is that of the answers.

    Examples
    --------
    >>> choose_study(Answers(sites=2), DatasetFacts(name="wine", outcome="binary")).reason[:52]
    'No study hides one of two sites from the coordinator'
    """
    for key, excludes in EXCLUSIONS.items():
        if excludes(answers):
            return Choice(reason=render(f"choose.none.{key}"))
    settings = _Settings()
    _choose_dataset(answers, dataset, settings)
    _explain_model(answers, settings)
    if answers.has_noise:
        _choose_noise(answers, settings)
    elif answers.grows_trees:
        # Validation rows choose how many trees there are, of leaves that institutions allow.
        settings.explain(plan_validation="plan-validation", strategy_name="strategy-trees")
        settings.set("strategy.rounds", 100, "strategy-rounds-trees")
        settings.set("strategy.select", "best", "strategy-select")
        settings.set("strategy.patience", 20, "strategy-patience")
        settings.set("strategy.min-rows", 10, "strategy-min-rows")
    else:
        settings.explain(
            plan_optimiser="plan-optimiser",
            plan_schedule="plan-schedule",
            plan_batch="plan-batch",
            strategy_rounds="strategy-rounds",
        )
    _choose_strategy(answers, settings)
    _choose_sums(answers, settings)
    template = StudyTemplate(
        name=f"{dataset.name}-study",
        dataset=dataset.name,
        model=_model(answers),
        task=answers.outcome,
        rows=int(TRAINING_SHARE * answers.rows),
        private=answers.has_noise,
        settings=settings.values,
        reasons=settings.reasons,
        heading=(render("choose.dialogue.answers", answers=format_answers(answers)),),
    )
    return Choice(text=template.text(), reasons=settings.reasons)


def format_answers(answers: Answers) -> str:
    """Return the answers on one line.

    Examples
    --------
    >>> format_answers(Answers())
    'sites 4, rows 1000, outcome binary, visible sums, trusted everybody, noise none'
    """
    values: dict[str, Any] = vars(answers)
    return ", ".join(f"{name} {values[name]}" for name in QUESTIONS)


def _model(answers: Answers) -> str:
    if answers.grows_trees:
        return TREES
    if answers.fits_perceptron:
        return "mlp"
    return MODELS[answers.outcome]


def _choose_dataset(answers: Answers, dataset: DatasetFacts, settings: _Settings) -> None:
    """Cut one table into sites; say where a dataset has other sites than the answers."""
    reason = render("choose.dataset.own")
    if dataset.is_stand_in:
        reason = render("choose.dataset.stand-in")
    elif not dataset.sites:
        reason = render("choose.dataset.uncut")
    elif dataset.sites != answers.sites:
        reason = render("choose.dataset.here", here=dataset.sites, sites=answers.sites)
    settings.reasons["dataset.name"] = reason
    if not dataset.sites:
        settings.values["dataset.partition"] = {"by": "iid", "sites": min(answers.sites, MOST_PARTS)}
        settings.reasons["dataset.partition"] = render("choose.dataset.parts", most=MOST_PARTS)


def _explain_model(answers: Answers, settings: _Settings) -> None:
    model = _model(answers)
    if model == TREES:
        settings.explain(model_name="model-trees", model_depth="model-depth")
    elif model == "mlp":
        settings.explain(model_name="model-noise-many", model_hidden="model-hidden")
    elif answers.has_noise:
        settings.explain(model_name="model-noise")
    elif answers.has_many_rows:
        settings.explain(model_name="model-not-trees")
    else:
        settings.explain(model_name="model-regression")


def _choose_noise(answers: Answers, settings: _Settings) -> None:
    """Take the settings of the runs that were measured, by the rows of a site."""
    cost = "privacy-epsilon-other"
    if answers.outcome == "binary":
        cost = "privacy-epsilon"
    settings.explain(plan_optimiser="plan-optimiser", privacy_name="privacy-record-dp", privacy_epsilon=cost)
    settings.set("privacy.delta", delta_of(answers.rows), "privacy-delta")
    # `sampling` draws the rows of a step.
    settings.values["plan.batch"] = None
    if answers.fits_perceptron:
        settings.set("plan.lr", 0.5, "plan-lr-noise")
        settings.set("plan.schedule", "cosine", "plan-schedule")
        settings.set("plan.steps", 20, "plan-steps-noise-many")
        settings.set("strategy.rounds", 40, "strategy-rounds-noise-many")
        settings.set("privacy.clip", 4.0, "privacy-clip-many")
        settings.set("privacy.sampling", 0.1, "privacy-sampling-many")
    else:
        settings.set("plan.lr", 0.3, "plan-lr-noise")
        settings.set("plan.steps", 10, "plan-steps-noise")
        settings.set("strategy.rounds", 10, "strategy-rounds-noise")
        settings.set("privacy.clip", 1.0, "privacy-clip")
        settings.set("privacy.sampling", 0.25, "privacy-sampling")
    if answers.protects_all:
        settings.explain(privacy_name="privacy-record-dp-covers")
        settings.set("privacy.covers", "study", "privacy-covers")


def delta_of(rows: int) -> float:
    """Return δ: a tenth of one over ten times `rows`, rounded down to a power of ten, and the usual one at most.

    Examples
    --------
    >>> delta_of(300), delta_of(30_000)
    (1e-05, 1e-07)
    """
    return min(DELTA, float(f"1e{math.floor(math.log10(0.01 / rows))}"))


def _choose_strategy(answers: Answers, settings: _Settings) -> None:
    if answers.trims:
        settings.set("strategy.name", "trimmed-mean", "strategy-trimmed-mean")
        settings.set("strategy.trim", 0.25, "strategy-trim")
    elif not answers.grows_trees:
        settings.explain(strategy_name="strategy-fedavg")
    if answers.has_noise and not answers.hides_updates:
        settings.set("strategy.flag-norm", 100.0, "strategy-norm")
        settings.set("strategy.refuse-norm", 100.0, "strategy-norm")


def _choose_sums(answers: Answers, settings: _Settings) -> None:
    """Choose what the coordinator reads: updates, or sums under masks."""
    if answers.grows_trees:
        settings.set("privacy.secure-aggregation", "on", "privacy-sums-trees")
    elif answers.hides_updates and answers.trusts_partners:
        settings.set("privacy.secure-aggregation", "on", "privacy-sums")
    elif answers.hides_updates:
        settings.set("privacy.secure-aggregation", "on", "privacy-sums-partners")
    elif answers.has_noise:
        settings.set("privacy.secure-aggregation", "off", "privacy-off-noise")
    else:
        settings.set("privacy.secure-aggregation", "off", "privacy-off")
    # Who has the mean and all updates but one has that one, too.
    if not answers.hides_updates and answers.sites <= LEAST_SUMMED:
        settings.reasons["privacy.secure-aggregation"] += " " + render(f"choose.reasons.partners-{answers.sites}")
