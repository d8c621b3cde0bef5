"""Kinds of messages, as Flower and a ledger's lines name them.

They stand apart from the messages, so that who reads a ledger needs no Flower.
"""

from __future__ import annotations

ENROL = "query.enrol"
SUMMARISE = "query.summarise"
BINS = "query.bins"
STATISTIC = "query.statistic"
SCORES = "query.scores"
TRAIN = "train"
EVALUATE = "evaluate"
COMPARE = "query.compare"
AUDIT = "query.audit"
SEAL = "query.seal"
SEALED = "query.sealed"
KEYS = "query.keys"
LIST = "query.list"
UNMASK = "query.unmask"
