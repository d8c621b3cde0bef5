"""What every attack keeps, whatever it attacks."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from flfed.rows.comparison.attack_runner import Attacked, Finding
from flfed.rows.data.policy import Policy
from flfed.rows.session import SiteSession
from flfed.rows.training.one_by_one import run_client
from flfed.testing.rules import LISTED, Rule, Subject, check, hold

MANY = 10**6
"""A cell minimum that no test table has."""


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
        found: tuple[Finding, ...] = run_client(self.make().findings(attacked or self.attacked))
        return found


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
    check(ATTACK_RULES, AttackSubject(kind=attack, settings=settings or {}, attacked=attacked))


def the_docstring_says_what_leaves(subject: Subject) -> None:
    """An attack's figures leave the site: whoever allows it reads what they reveal."""
    hold("Reveals:" in (inspect.getdoc(subject.kind) or ""), "its docstring has no line 'Reveals: ...'")


def it_finds_what_it_names(subject: AttackSubject) -> None:
    """A reader looks a figure up by the attack's name and its metrics."""
    name = re.sub(r"(?<!^)(?=[A-Z])", "-", subject.kind.__name__).lower()
    found = subject.findings()
    hold(found, "it found nothing, not even why")
    for finding in found:
        hold(finding.attack == name, f"a finding of {finding.attack!r} instead of {name!r}")
        hold(finding.metric in subject.kind.metrics, f"a finding of {finding.metric!r}, which `metrics` does not name")
    hold(len({finding.metric for finding in found}) == len(found), "two findings of one metric")


def a_value_lies_in_its_interval(subject: AttackSubject) -> None:
    """A figure without an interval says more than is known; that of a bound ends where the bound is."""
    for finding in subject.findings():
        value = finding.value
        low = finding.low
        high = finding.high
        right = low <= value and (math.isnan(high) or value <= high)
        hold(right, f"{finding.metric}: {value:g} is not in {low:g} to {high:g}")
        hold(finding.method and finding.rows > 0, f"{finding.metric}: it has no method, or is of no row")
        hold(finding.says.endswith("."), f"{finding.metric}: it does not say in a sentence what it is")


def it_is_beyond_a_promise_where_its_interval_is(subject: AttackSubject) -> None:
    """The verdict is the lower limit against the promise, and without a promise there is none."""
    for promised in (None, (1e-6, 0.0), (50.0, 0.0)):
        for finding in subject.findings(replace(subject.attacked, promised=promised)):
            hold(finding.beyond == (finding.low > finding.promise), f"{finding.metric}: beyond={finding.beyond}")
            silent = promised is not None or math.isnan(finding.promise)
            hold(silent, f"{finding.metric}: a promise of {finding.promise:g}, where none was made")


def the_same_seed_gives_the_same_figures(subject: AttackSubject) -> None:
    """An audit can be repeated, and to ask again tells no more."""
    one = subject.findings()
    other = subject.findings()
    hold(repr(one) == repr(other), f"{one} and then {other}")


def the_model_is_left_as_it_was(subject: AttackSubject) -> None:
    """The arrays are the caller's, who attacks them again or sends them on."""
    before = {name: value.copy() for name, value in subject.attacked.arrays.items()}
    subject.findings()
    same = all((value == before[name]).all() for name, value in subject.attacked.arrays.items())
    hold(same and list(before) == list(subject.attacked.arrays), "it wrote into the arrays")


def of_few_rows_no_figure_leaves_an_institution(subject: AttackSubject) -> None:
    """A figure of fewer rows than the cell minimum tells of people; that there is none is told, and why."""
    work = subject.attacked.session
    site = replace(work.site, policy=Policy(disclosure="institution", cell_minimum=MANY))
    strict = SiteSession(site, work.study, table=work.table, protection=work.protection)
    for finding in subject.findings(replace(subject.attacked, session=strict)):
        figures = finding.value, finding.low, finding.high
        hold(all(map(math.isnan, figures)) and not finding.rows, f"{finding.metric}: {figures} of {finding.rows} rows")
        hold(finding.says.startswith("No figure: "), f"{finding.metric}: it says {finding.says!r}")


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
