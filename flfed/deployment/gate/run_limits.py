"""What a run gets from a site: each step once, one cohort, one compared model, and few runs of a dataset."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Mapping
from typing import Any

import numpy as np
from flwr.app import Context, Message

from flfed.deployment.gate.message_schema import StudyMessages
from flfed.deployment.site_state.cohorts import CHANGED, COHORT_SHA256, cohort_refusal, is_over_rows, note_cohort
from flfed.deployment.site_state.runs import count_runs
from flfed.federation.client.journal import Answer, Asked, add_answer, forget_replies, models_of, place_of
from flfed.refusals import Refusal
from flfed.rows.data.policy import Policy
from flfed.study.study import Study
from flfed.summaries.summary import arrays_sha256
from flfed.updates.messages.fields import content_sha256, ndarrays
from flfed.updates.messages.kinds import AUDIT, COMPARE, EVALUATE, KEYS, TOTAL, TRAIN
from flfed.updates.messages.train import TREES_SHA256, formless, model_sha256

Facts = Mapping[str, Any]


def asked_of(message: Message, policy: Policy, facts: Facts) -> Asked | None:
    """Return the step that a request which fits its study asks for; None of one that may come at any time.

    A reply depends on the policy and the rows as well: a step that was answered under others is not answered again.
    """
    kind, content = message.metadata.message_type, message.content
    config = dict(content["config"])
    settings = dict(content["settings"]) if "settings" in content else {}
    place = place_of(kind, config, settings)
    if place is None:
        return None
    request = content_sha256(formless(content) if kind in (TRAIN, EVALUATE) else content)
    under = "\n".join((request, policy.model_dump_json(), str(facts["study_sha256"]), str(facts["rows_sha256"])))
    return Asked(
        run=str(facts["run"]),
        repeat=int(facts["repeat"] or 0),
        kind=f"{kind} {config['attack']!s}" if kind == AUDIT else kind,
        place=place,
        request=hashlib.sha256(under.encode()).hexdigest(),
        model=_identified_model(message),
    )


def _identified_model(message: Message) -> str:
    """Return the hash of a request's model; "" where it brings none, or in a form with another hash than elsewhere."""
    kind, content = message.metadata.message_type, message.content
    if kind in (EVALUATE, COMPARE) or (kind == AUDIT and "arrays" in content):
        return model_sha256(message)
    grows_trees = kind == TRAIN and TREES_SHA256 in content["config"]
    return model_sha256(message) if kind == TRAIN and not grows_trees and TOTAL not in content else ""


def run_refusal(
    tables: sqlite3.Connection, policy: Policy, study: Study, message: Message, asked: Asked | None, facts: Facts
) -> Refusal | None:
    """Return why a run gets no answer to a request, or None."""
    kind, dataset = message.metadata.message_type, str(facts["dataset"])
    cohort = str(facts.get(COHORT_SHA256, ""))
    if is_over_rows(kind, facts):
        if other := cohort_refusal(tables, dataset, cohort, changed=CHANGED in facts):
            return other
        trained = "SELECT 1 FROM trained WHERE dataset = ? AND model = ? AND cohort != ?"
        if (model := _start_of(message)) and tables.execute(trained, (dataset, model, cohort)).fetchone():
            return Refusal("start-trained-before")
    if asked is None:
        return None
    # A run's name belongs to one study: else a second study would bring a second allowance.
    of_name = "SELECT 1 FROM runs WHERE run = ? AND study != ?"
    if tables.execute(of_name, (asked.run, facts["study_sha256"])).fetchone():
        return Refusal("ledger-other-study")
    known = tables.execute("SELECT 1 FROM runs WHERE (run, repeat) = (?, ?)", (asked.run, asked.repeat)).fetchone()
    runs = count_runs(tables, policy, dataset)
    if not known and not study.is_covered and not runs.left:
        return Refusal("too-many-runs", most=runs.most, had=runs.had)
    return _model_refusal(tables, kind, asked)


def _model_refusal(tables: sqlite3.Connection, kind: str, asked: Asked) -> Refusal | None:
    """Return why a model may not be compared or attacked in a run, or None.

    Figures of test rows are of a model that the site evaluated or trained from, and attacked is one that it compared.
    """
    if kind == AUDIT:
        compared = models_of(tables, asked.run, asked.repeat, COMPARE)
        # The site attacks the model that it made itself and compared.
        fits = bool(compared) if not asked.model else asked.model in compared
        return None if fits else Refusal("not-compared")
    if kind != COMPARE:
        return None
    evaluated = models_of(tables, asked.run, asked.repeat, EVALUATE)
    known = evaluated | models_of(tables, asked.run, asked.repeat, TRAIN)
    # A model that crossed in another form cannot be identified, and a site may have missed the evaluation.
    return None if "" in known or not evaluated or asked.model in known else Refusal("other-model-compared")


def note_answer(
    tables: sqlite3.Connection,
    message: Message,
    asked: Asked | None,
    answer: Answer,
    facts: Facts,
    messages: StudyMessages,
    at: str,
) -> None:
    """Note an answer that is about to leave: its step, its run and its cohort."""
    kind = message.metadata.message_type
    if kind == KEYS:
        tables.execute("INSERT OR IGNORE INTO keyed VALUES (?)", (facts["run"],))
    if is_over_rows(kind, facts):
        first = kind == TRAIN and not messages.study.grows_trees and message.content["config"].get("round") == 1
        note_cohort(tables, facts, messages.first_sha256(int(facts["repeat"] or 0)) if first else _start_of(message))
    if asked is None:
        return
    add_answer(tables, asked, answer, at)
    run = (asked.run, asked.repeat, facts["study_sha256"], facts["dataset"], not messages.study.is_covered)
    if tables.execute("INSERT OR IGNORE INTO runs VALUES (?, ?, ?, ?, ?)", run).rowcount:
        forget_replies(tables, at)


def _start_of(message: Message) -> str:
    """Return the hash of the arrays that a round of training brings; "" where they are not what is trained from."""
    content = message.content
    if message.metadata.message_type != TRAIN or "arrays" not in content or TREES_SHA256 in content["config"]:
        return ""
    return arrays_sha256({name: value.astype(np.float32) for name, value in ndarrays(content, "arrays").items()})


def attempts_refusal(message: Message, context: Context) -> Refusal | None:
    """Return why a tree may not be begun again, or None: it may at most once for each site of the run."""
    names = str(context.run_config.get("sites", "")).split(",")
    settings: dict[str, Any] = dict(message.content.get("settings", {})) if message.has_content() else {}
    return Refusal("too-many-attempts", most=len(names)) if settings.get("attempt", 0) > len(names) else None
