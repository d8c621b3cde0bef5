"""Rules that every site, metric and attack keeps: reading and computing where the rows are."""

from __future__ import annotations

import math
import pickle
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from flfed.rows.comparison.attack_runner import Attacked, Finding
from flfed.rows.data.holdout import Holdout, HoldoutByTime
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site, SiteTable
from flfed.rows.evaluation.scoring import example
from flfed.rows.session import SiteSession
from flfed.rows.training.answer import run_client
from flfed.testing.rules import LISTED, Rule, Subject, are_same, check, hold, hold_paragraph

TASKS = ("binary", "multi-class", "regression")
CLOSE = 1e-12
Rows = NDArray[Any]
MANY = 10**6
"""A cell minimum that no test table has."""


def check_site(site: Site) -> None:
    """Check a site against its contract; it reads the table.

    Parameters
    ----------
    site : Site
        As `flfed.rows.data.site_discovery.load(name)` gives it, or made in Python. Each dataset that it serves is
        checked.

    Raises
    ------
    RuleBroken
        For the first rule that does not hold; columns, rules and counts, never a cell.

    Examples
    --------
    >>> from flfed.rows.data import site_discovery
    >>> check_site(site_discovery.load("kentucky-clinic"))
    """
    for dataset in site.datasets:
        check(SITE_RULES, site.serving(dataset))


def its_table_fits_its_schema(site: Site) -> None:
    """Kinds, units, ranges and categories are the dataset's.

    `flfed site check` says more.
    """
    _, findings, _ = site.inspect()
    hold(not findings, "findings", findings="; ".join(str(finding.error()) for finding in findings[:3]))


def every_row_is_on_one_side(site: Site) -> None:
    """A row is trained on or held out.

    A person has one side only, unless a holdout by time says otherwise. Of columns alone, the party with the outcome
    chooses the sides.
    """
    if not site.has_outcome:
        return
    table = site.inspect()[0]
    site_table = site.read()
    test_rows = site_table.holdout("check")
    schema = site_table.schema
    hold(len(site_table.training), "no-training-rows")
    hold(len(test_rows), "no-holdout-rows")
    if isinstance(site.holdout, HoldoutByTime):
        column = site.holdout.column
        gap = pd.Timedelta(days=site.holdout.gap_days)
        early = int((test_rows[column] < site_table.training[column].max() + gap).sum())
        hold(not early, "early", rows=early, days=gap.days)
    both = set(site_table.training[schema.group]) & set(test_rows[schema.group]) if schema.group else set()
    hold(not both or getattr(site.holdout, "same_groups", False), "both-sides", groups=len(both))
    if isinstance(site.holdout, Holdout):
        with_target = int(table[schema.target].notna().sum())
        hold(len(site_table.training) + len(test_rows) == with_target, "sides")


def two_readings_are_the_same_rows(site: Site) -> None:
    """Batches, holdout and hashes follow from the table alone."""
    hold(_same(_read(site), _read(site)), "readings")


def its_target_has_two_classes_on_both_sides(site: Site) -> None:
    """Where all outcomes are alike nothing can be learned, or nothing judged."""
    if not site.has_outcome:
        return
    site_table = site.read()
    if site_table.schema.task == "regression":
        return
    for side, rows in (("training", site_table.training), ("holdout", site_table.holdout("check"))):
        hold(rows[site_table.schema.target].nunique() >= 2, "one-class", side=side)


def its_holdout_has_a_salt(site: Site) -> None:
    """Without one anybody who knows a row can compute its side."""
    if site.has_outcome:
        hold(not isinstance(site.holdout, Holdout) or site.holdout.salt, "salt")


def it_can_be_sent_to_another_process(site: Site) -> None:
    """The engine 'ray' answers for a site in another process."""
    try:
        again = pickle.loads(pickle.dumps(site))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        hold(False, "pickle", error=type(error).__name__)
    else:
        hold(_same(_read(again), _read(site)), "pickled-rows")


SITE_RULES: tuple[Rule, ...] = (
    its_table_fits_its_schema,
    every_row_is_on_one_side,
    two_readings_are_the_same_rows,
    its_target_has_two_classes_on_both_sides,
    its_holdout_has_a_salt,
    it_can_be_sent_to_another_process,
)


def _read(site: Site) -> SiteTable:
    return site.read() if site.has_outcome else site.read_columns()


def _same(one: SiteTable, two: SiteTable) -> bool:
    return one.training.equals(two.training) and one.holdout("check").equals(two.holdout("check"))


def check_metric(metric: type[Any], settings: Mapping[str, Any] | None = None) -> None:
    """Check a metric against its contract.

    Parameters
    ----------
    metric : class
        With `tasks`, `better`, `unit`, `label`, `defined`, `value` and `weighted`, as
        `flfed.rows.metrics.brier_score_loss.BrierScoreLoss` has.
    settings : mapping of parameter to value, optional
        For its constructor.

    Raises
    ------
    RuleBroken
        For the first rule that does not hold.

    Examples
    --------
    >>> from flfed.rows.metrics.brier_score_loss import BrierScoreLoss
    >>> check_metric(BrierScoreLoss)
    """
    check(METRIC_RULES, Subject(metric, settings))


def it_says_what_it_is(subject: Subject) -> None:
    """Reports and verdicts read for which tasks it is, which side is better, in which unit, and its words."""
    kind = subject.kind
    hold(kind.tasks and set(kind.tasks) <= set(TASKS), "tasks", tasks=kind.tasks, allowed=", ".join(TASKS))
    hold(kind.better in ("higher", "lower"), "better", better=kind.better)
    hold(kind.unit in ("", "target"), "unit", unit=kind.unit)
    hold(kind.label and "_" not in kind.label, "label", label=kind.label)


def a_weight_of_two_is_a_row_given_twice(subject: Subject) -> None:
    """Bootstrap draws are weights: 0, 1 and 2 leave a row out, take it once, take it twice."""
    for y, score in _examples(subject):
        times = np.arange(len(y)) % 3
        repeated = subject.make().value(np.repeat(y, times), np.repeat(score, times, axis=0))
        _equal(subject.make().weighted(y, score, times[None].astype(float)), [repeated], "weight-of-two")


def only_the_ratio_of_weights_counts(subject: Subject) -> None:
    """Seven times the weights say nothing new."""
    for y, score in _examples(subject):
        weights = np.random.default_rng(8).uniform(0.1, 1, (3, len(y)))
        expected = subject.make().weighted(y, score, weights)
        _equal(subject.make().weighted(y, score, 7 * weights), expected, "weights-scaled")


def the_order_of_rows_does_not_count(subject: Subject) -> None:
    """A table has no order."""
    for y, score in _examples(subject):
        rng = np.random.default_rng(8)
        weights = rng.uniform(0.1, 1, (3, len(y)))
        order = rng.permutation(len(y))
        expected = subject.make().weighted(y, score, weights)
        _equal(subject.make().weighted(y[order], score[order], weights[:, order]), expected, "rows-shuffled")


def its_arguments_are_left_as_they_were(subject: Subject) -> None:
    """Targets and scores are the caller's."""
    for y, score in _examples(subject):
        weights = np.ones((2, len(y)))
        arguments = {"y": y, "score": score, "weights": weights}
        before = {name: value.copy() for name, value in arguments.items()}
        subject.make().weighted(y, score, weights)
        hold(are_same(before, arguments), "wrote", argument="y, score or weights")


def without_rows_it_is_nan_with_a_reason(subject: Subject) -> None:
    """A figure that is undefined is no 0 and no error."""
    for y, score in _examples(subject):
        metric = subject.make()
        hold(metric.defined(y) == "", "defined", reason=metric.defined(y))
        hold(metric.defined(y[:0]) == "no rows", "no-rows", reason=metric.defined(y[:0]))
        hold(np.isnan(metric.value(y[:0], score[:0])), "value-no-rows")
        drawn = metric.weighted(y, score, np.stack([np.zeros(len(y)), np.ones(len(y))]))
        hold(list(np.isnan(drawn)) == [True, False], "draw-no-weight")


def a_score_that_is_nan_gives_nan(subject: Subject) -> None:
    """A broken model must not look good."""
    for y, score in _examples(subject):
        score[4] = np.nan
        value = subject.make().value(y, score)
        hold(np.isnan(value), "nan-score", value=value)


def a_better_score_moves_it_to_its_better_side(subject: Subject) -> None:
    """`better` says which side that is."""
    for y, score in _examples(subject):
        best = np.eye(3)[y] if score.ndim == 2 else y.astype(float)
        gain = subject.make().value(y, (score + best) / 2) - subject.make().value(y, score)
        right = gain > 0 if subject.kind.better == "higher" else gain < 0
        hold(right, "halfway", gain=gain, better=subject.kind.better)


METRIC_RULES: tuple[Rule, ...] = (
    *LISTED,
    it_says_what_it_is,
    a_weight_of_two_is_a_row_given_twice,
    only_the_ratio_of_weights_counts,
    the_order_of_rows_does_not_count,
    its_arguments_are_left_as_they_were,
    without_rows_it_is_nan_with_a_reason,
    a_score_that_is_nan_gives_nan,
    a_better_score_moves_it_to_its_better_side,
)


def _examples(subject: Subject) -> Iterator[tuple[Rows, Rows]]:
    yield from (example(task) for task in subject.kind.tasks)


def _equal(values: Rows, expected: Any, sentence: str) -> None:
    gap = np.abs(np.asarray(values) - np.asarray(expected))
    scale = max(1.0, float(np.abs(expected).max()))
    hold((gap <= CLOSE * scale).all(), sentence, gap=float(gap.max()))


@dataclass(frozen=True, kw_only=True)
class AttackSubject(Subject):
    """An attack to check, with a site and a model for it.

    Attributes
    ----------
    attacked : Attacked
        A site that is "open", with at least twenty training and twenty holdout rows.
    """

    attacked: Attacked

    def findings(self, attacked: Attacked | None = None) -> tuple[Finding, ...]:
        """Return what a new one finds."""
        findings: tuple[Finding, ...] = run_client(self.make().findings(attacked or self.attacked))
        return findings


def check_attack(attack: type[Any], attacked: Attacked, settings: Mapping[str, Any] | None = None) -> None:
    """Check an attack against its contract.

    Parameters
    ----------
    attack : class
        With `metrics` and a generator `findings(attacked)`, as `flfed.rows.attacks.canaries.Canaries` has.
    attacked : Attacked
        What it is tried on; see `AttackSubject`.
    settings : mapping of parameter to value, optional
        For its constructor: few records or models, so that it is quick.

    Raises
    ------
    RuleBroken
        For the first rule that does not hold.
    """
    check(ATTACK_RULES, AttackSubject(kind=attack, settings=settings, attacked=attacked))


def the_docstring_says_what_leaves(subject: Subject) -> None:
    """An attack's figures leave the site: whoever allows it reads what they reveal."""
    hold_paragraph(subject, "Reveals", "line")


def it_finds_what_it_names(subject: AttackSubject) -> None:
    """A reader looks a figure up by the attack's name and its metrics."""
    name = re.sub(r"(?<!^)(?=[A-Z])", "-", subject.kind.__name__).lower()
    findings = subject.findings()
    hold(findings, "no-finding")
    for finding in findings:
        hold(finding.attack == name, "finding-attack", attack=finding.attack, name=name)
        hold(finding.metric in subject.kind.metrics, "finding-metric", metric=finding.metric)
    hold(len({finding.metric for finding in findings}) == len(findings), "finding-twice")


def a_value_lies_in_its_interval(subject: AttackSubject) -> None:
    """A figure without an interval says more than is known.

    That of a bound ends where the bound is.
    """
    for finding in subject.findings():
        right = finding.low <= finding.value and (math.isnan(finding.high) or finding.value <= finding.high)
        hold(right, "interval", metric=finding.metric, value=finding.value, low=finding.low, high=finding.high)
        hold(finding.method and finding.rows > 0, "no-method", metric=finding.metric)
        hold(finding.says.endswith("."), "no-sentence", metric=finding.metric)


def it_is_beyond_a_promise_where_its_interval_is(subject: AttackSubject) -> None:
    """The verdict is the lower limit against the promise, and without a promise there is none."""
    for promised in (None, (1e-6, 0.0), (50.0, 0.0)):
        for finding in subject.findings(replace(subject.attacked, promised=promised)):
            right = finding.beyond == (finding.low > finding.promise)
            hold(right, "beyond", metric=finding.metric, low=finding.low, promise=finding.promise)
            silent = promised is not None or math.isnan(finding.promise)
            hold(silent, "unpromised", metric=finding.metric, promise=finding.promise)


def the_same_seed_gives_the_same_figures(subject: AttackSubject) -> None:
    """An audit can be repeated, and a repetition reveals no more."""
    one = subject.findings()
    other = subject.findings()
    hold(repr(one) == repr(other), "repeated", first=one, second=other)


def the_model_is_left_as_it_was(subject: AttackSubject) -> None:
    """The arrays are the caller's, who attacks them again or sends them on."""
    before = {name: value.copy() for name, value in subject.attacked.arrays.items()}
    subject.findings()
    hold(are_same(before, subject.attacked.arrays), "wrote", argument="the arrays")


def of_few_rows_no_figure_leaves_an_institution(subject: AttackSubject) -> None:
    """A figure of fewer rows than the cell minimum reveals people.

    The finding says why there is none.
    """
    work = subject.attacked.session
    site = replace(work.site, policy=Policy(disclosure="institution", cell_minimum=MANY))
    strict = SiteSession(site, work.study, table=work.table, protection=work.protection)
    for finding in subject.findings(replace(subject.attacked, session=strict)):
        figures = finding.value, finding.low, finding.high
        nothing = all(map(math.isnan, figures)) and not finding.rows
        hold(nothing, "few-rows", metric=finding.metric, figures=figures, rows=finding.rows)
        hold(finding.says.startswith("No figure: "), "no-reason", metric=finding.metric, says=finding.says)


ATTACK_RULES: tuple[Rule, ...] = (
    *LISTED,
    the_docstring_says_what_leaves,
    it_finds_what_it_names,
    a_value_lies_in_its_interval,
    it_is_beyond_a_promise_where_its_interval_is,
    the_same_seed_gives_the_same_figures,
    the_model_is_left_as_it_was,
    of_few_rows_no_figure_leaves_an_institution,
)
