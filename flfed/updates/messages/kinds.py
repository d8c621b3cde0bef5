"""Kinds of messages, as Flower and a ledger's lines name them.

They stand apart from the messages, so that who reads a ledger needs no Flower.
"""

from __future__ import annotations

from flfed.study.study import Study

PROTOCOL = 2
"""Version of the messages, of kits and of admissions: both sides of a message, and of joining, must have one."""
ENROL = "query.enrol"
SUMMARISE = "query.summarise"
BINS = "query.bins"
STATISTIC = "query.statistic"
SCORES = "query.scores"
TRAIN = "train"
EVALUATE = "evaluate"
COMPARE = "query.compare"
AUDIT = "query.audit"
KEYS = "query.keys"
OPEN = "query.open"
ALIGN = "query.align"
PARTIAL = "query.partial"
KINDS = (
    ENROL, SUMMARISE, BINS, STATISTIC, TRAIN, EVALUATE, SCORES, KEYS, OPEN, ALIGN, PARTIAL, COMPARE, AUDIT,
)  # fmt: skip
"""Kinds of messages that a site answers."""
BRINGING = (TRAIN, EVALUATE, COMPARE)
"""Kinds of requests that bring a model and its encoder, or name the encoder by its hash."""
TOTAL = "total"
"""Section of a request with the total of the step before."""


def asks(study: Study, kind: str) -> bool:
    """Return whether a study asks its sites for messages of a kind: a gate lets in, and a site answers, no other.

    A study of a statistic requests nothing else, but for the messages of its secure sums. One whose ε covers the study
    requests noised counts, updates and noised scores. A validation of a model requests one comparison. A study over
    different columns of the same people aligns rows, exchanges partial scores and requests one comparison. Any other
    study requests neither statistics nor noised scores.

    Examples
    --------
    >>> from flfed import Study
    >>> asks(Study.load("breast-cancer"), EVALUATE), asks(Study.load("loan-table"), EVALUATE)
    (True, False)
    """
    if kind == ENROL:
        return True
    if study.covers_model:
        return kind in (STATISTIC, TRAIN, SCORES)
    if not study.train:
        return kind == COMPARE
    if study.is_vertical:
        return kind in (ALIGN, PARTIAL, COMPARE)
    if study.is_statistic:
        return kind in (KEYS, STATISTIC)
    if kind == OPEN:
        return study.aggregation.is_encrypted
    return kind not in (STATISTIC, SCORES, ALIGN, PARTIAL)
