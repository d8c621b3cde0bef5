"""The contract of every extension, for ours and for another package's: `check_strategy` and its kin.

Each takes what you wrote and returns nothing, or raises a `RuleBroken` that names the rule, as
scikit-learn's `check_estimator` does. See docs/extend.md.
"""

from __future__ import annotations

from flfed.testing.at_sites import ATTACK_RULES, METRIC_RULES, SITE_RULES, check_attack, check_metric, check_site
from flfed.testing.models import MODEL_RULES, check_model
from flfed.testing.on_updates import CODEC_RULES, MECHANISM_RULES, check_codec, check_mechanism
from flfed.testing.rules import RuleBroken, Subject, keep
from flfed.testing.strategies import STRATEGY_RULES, check_strategy

__all__ = [
    "ATTACK_RULES",
    "CODEC_RULES",
    "MECHANISM_RULES",
    "METRIC_RULES",
    "MODEL_RULES",
    "SITE_RULES",
    "STRATEGY_RULES",
    "RuleBroken",
    "Subject",
    "check_attack",
    "check_codec",
    "check_mechanism",
    "check_metric",
    "check_model",
    "check_site",
    "check_strategy",
    "keep",
]
