"""The contract of what other packages write, as scikit-learn's `check_estimator` has one.

Each function takes what you wrote and returns nothing, or raises a `RuleBroken`, which is an AssertionError and names
the rule. See docs/extend.md.
"""

from __future__ import annotations

from flfed.testing.metrics import check_metric
from flfed.testing.models import check_model
from flfed.testing.rules import RuleBroken
from flfed.testing.sites import check_site
from flfed.testing.strategies import check_strategy

__all__ = ["RuleBroken", "check_metric", "check_model", "check_site", "check_strategy"]
