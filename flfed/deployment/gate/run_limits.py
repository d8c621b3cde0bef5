"""Limits of the answers that a run gets from a site.

They are read from the site's own ledger: a study has few runs, and each has one model for a question. Comparisons leave
with three digits, and of few models of a dataset.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import Context, Message

from flfed.deployment.site_state.cohorts import CohortLines
from flfed.deployment.site_state.comparisons import ComparedLines
from flfed.federation.client.released.accounts import EDGES, SPENT
from flfed.records import ledger_line
from flfed.records.ledger import Ledger, LockedLedger
from flfed.records.ledger_line import COMPARED_HASH, Line, Run, run_of
from flfed.refusals import Refusal
from flfed.study.study import Study
from flfed.summaries.summary import arrays_sha256
from flfed.updates.messages.fields import content_sha256, ndarrays
from flfed.updates.messages.kinds import ALIGN, AUDIT, COMPARE, PARTIAL, SCORES, STATISTIC, TOTAL
from flfed.updates.messages.summarise import POINT
from flfed.updates.messages.train import (
    EVALUATE,
    MOST_ATTEMPTS,
    TRAIN,
    TREES_SHA256,
    formless,
    model_sha256,
)
from flfed.updates.messages.vertical import EXCHANGES

QUESTIONS = {
    TRAIN: "train from",
    EVALUATE: "evaluate",
    SCORES: "score",
    COMPARE: "compare",
    AUDIT: "audit",
    STATISTIC: "visit",
    ALIGN: "align",
    PARTIAL: "exchange",
}
"""Kinds of messages whose answer depends on the rows and on arrays that the coordinator chose."""
NUMBERS = {
    "offset-deviation": "other-deviation",
    "odds-centre": "other-bins",
    "odds-spread": "other-bins",
    "sites": "other-sites",
}
"""Numbers that the coordinator chooses for a comparison, and why a run has one of each."""
CHOSEN = NUMBERS | {EDGES: "other-edges"}
"""The same for all its choices, with the hash of counts' bins."""
TRAINED_FROM = "trained-from-sha256"
"""Key of a line: hash of the model that a round was trained from, empty where the model crossed in another form."""
_OF_LINE = {kind.rpartition(".")[2]: kind for kind in QUESTIONS}


def request_sha256(message: Message) -> str:
    """Return the hash of the coordinator's choices.

    The text is empty for a kind of message without a choice.

    Scores and figures depend on the model and its encoder alone; an update depends on the whole request.

    Raises
    ------
    MalformedMessage
        If an array cannot be read.
    """
    kind = message.metadata.message_type
    if kind not in QUESTIONS:
        return ""
    if kind == STATISTIC:
        if POINT in message.content:
            return arrays_sha256(ndarrays(message.content, POINT))
        return content_sha256(message.content) if "round" in message.content["config"] else ""
    if kind in (ALIGN, PARTIAL):
        return content_sha256(message.content)
    # The site attacks the model that it made itself and compared.
    if kind == AUDIT and "arrays" not in message.content:
        return ""
    return content_sha256(formless(message.content)) if kind == TRAIN else model_sha256(message)


def choices_of(message: Message) -> dict[str, Any]:
    """Return the coordinator's choices in a request that fits, by the keys of `CHOSEN`.

    A comparison has an entry for each number, None where the request lacks it.
    """
    kind = message.metadata.message_type
    content = message.content
    if kind == COMPARE:
        return {name: content["config"].get(name) for name in NUMBERS}
    # A request for counts by class names its bins; the first one has none.
    if kind == SCORES and "edges" in content:
        return {EDGES: arrays_sha256(ndarrays(content, "edges"))}
    return {}


def model_of(message: Message) -> str:
    """Return the hash of the arrays that a round of training brings; "" where they are not what is trained from."""
    content = message.content
    if message.metadata.message_type != TRAIN or "arrays" not in content or TREES_SHA256 in content["config"]:
        return ""
    return arrays_sha256({name: value.astype(np.float32) for name, value in ndarrays(content, "arrays").items()})


def trained_from(message: Message, study: Study) -> dict[str, str]:
    """Return the model's entry for the line of a round; it is empty for other messages."""
    if message.metadata.message_type != TRAIN:
        return {}
    # A hashed model has other bytes than at its comparison, and one that the site makes has none.
    as_it_is = not study.grows_trees and TOTAL not in message.content
    return {TRAINED_FROM: model_sha256(message) if as_it_is else ""}


def other_model_refusal(evaluated: Set[str], compared: Set[str], trained_from: Set[str]) -> Refusal | None:
    """Return why a run may not have these models, or None.

    They are hashes of evaluated and of compared models. A run gets figures of validation rows by the one and of test
    rows by the other. Both are of one model, or the compared one is that of an earlier round.
    """
    earlier_models = evaluated | trained_from
    # A model that crossed in another form cannot be identified, and a site may have missed the evaluation.
    if "" in earlier_models or not evaluated or compared <= earlier_models:
        return None
    return Refusal("other-model-compared")


class RunLimits:
    """Counter of the answers that each run had.

    The ledger shows the answers that runs of all studies had, and so which question would be one too many.

    Parameters
    ----------
    most : int
        Runs of all studies with the same requests, each repeat counted, that may have an answer.

    Notes
    -----
    Every evaluation of a model is an exact figure of the rows, and every comparison many of them. A coordinator that
    may choose the models freely reads rows from such figures. So each run, of which there are few, has one model
    evaluated and one compared, and is trained from one in a round. A comparison's adjusted figures depend on the
    deviation of the sites' own intercepts as well, and its counts by prediction on the bins. Of these a run has one,
    too.
    """

    def __init__(self, most: int, alignments: int) -> None:
        self._most = most
        self._alignments = alignments
        self._seen = (0, "")
        self._forget()

    def _forget(self) -> None:
        # By the hash of the requests; lines that name none count by the study's own.
        self._runs: dict[str, set[Run]] = defaultdict(set)
        self._studies: dict[str, set[str]] = defaultdict(set)
        self._request_hashes: dict[tuple[Run, str, Exchange], set[str]] = defaultdict(set)
        self._chosen: dict[tuple[Run, str], set[object]] = defaultdict(set)
        self._cohorts = CohortLines()
        self._compared = ComparedLines()
        self._trained_from: dict[Run, set[str]] = defaultdict(set)
        self._aligned: dict[str, set[Run]] = defaultdict(set)

    def compared(self, locked_ledger: LockedLedger) -> ComparedLines:
        """Return the ledger's lines about compared models."""
        self._read(locked_ledger)
        return self._compared

    def cohorts(self, locked_ledger: LockedLedger) -> CohortLines:
        """Return the cohorts of datasets by the ledger's lines."""
        self._read(locked_ledger)
        return self._cohorts

    def runs(self, locked_ledger: LockedLedger, study: str, asks: str) -> set[Run]:
        """Return the runs that count for a study.

        They are looked up by the hashes of its text and of its requests.
        """
        self._read(locked_ledger)
        return self._runs[asks] | self._runs[study]

    def refusal(
        self, locked_ledger: LockedLedger, message: Message, run: Run, asks: str, rows: str = ""
    ) -> Refusal | None:
        """Return why a run may not have an answer, or None.

        Parameters
        ----------
        locked_ledger : LockedLedger
        message : Message
            One that fits the study.
        run : Run
            The requesting run.
        asks : str
            Hash of its study's requests.
        rows : str
            Hash of the snapshot.
        """
        study, name, _ = run
        runs = self.runs(locked_ledger, study, asks)
        # A run's name belongs to one study: else a second study would bring a second allowance.
        if self._studies[name] - {study}:
            return Refusal("ledger-other-study")
        if run not in runs and len(runs) >= self._most:
            return Refusal("too-many-runs", most=self._most, had=len(runs))
        kind = message.metadata.message_type
        if refused := self._aligned_too_often(kind, run, rows):
            return refused
        request_hash = request_sha256(message)
        # An attack needs a model that the site compared in this run: other models could be made to read rows.
        if kind == AUDIT:
            compared = self._request_hashes[run, COMPARE, ONCE]
            was_compared = request_hash in compared if request_hash else bool(compared)
            return None if was_compared else Refusal("not-compared")
        facts: dict[str, Any] = {}
        if kind in QUESTIONS:
            facts = {"round": message.content["config"].get("round"), **exchange_of(message)}
        if refused := self._other_choice(message, run):
            return refused
        place = _place(kind, facts)
        # The same question again is harmless: its answer is the same.
        if not self._request_hashes[run, kind, place] - {request_hash}:
            return self._other_model(kind, run, request_hash)
        return _refuse_other(kind, place[0])

    def _aligned_too_often(self, kind: str, run: Run, rows: str) -> Refusal | None:
        """Return why a run may not align a snapshot's rows, or None; it has the snapshot's hash."""
        runs = self._aligned[rows]
        if kind != ALIGN or run in runs or len(runs) < self._alignments:
            return None
        return Refusal("too-many-alignments", most=self._alignments, had=len(runs))

    def _other_choice(self, message: Message, run: Run) -> Refusal | None:
        """Return why a run may not have other bins or numbers, or None."""
        for name, value in choices_of(message).items():
            if self._chosen[run, name] - {value}:
                return Refusal(CHOSEN[name])
        return None

    def _other_model(self, kind: str, run: Run, request_hash: str) -> Refusal | None:
        """Return why a run may not have another model, or None.

        It is one to evaluate or to compare, beside the run's earlier ones.
        """
        if kind not in (EVALUATE, COMPARE):
            return None
        models = {one: self._request_hashes[run, one, ONCE] for one in (EVALUATE, COMPARE)} | {kind: {request_hash}}
        return other_model_refusal(models[EVALUATE], models[COMPARE], self._trained_from[run])

    def _read(self, locked_ledger: LockedLedger) -> None:
        """Read the lines added since the last time.

        Where the last line seen is gone, all lines are read.
        """
        since, continues = locked_ledger.since(*self._seen)
        if not continues:
            # The ledger is another one, or is read for the first time.
            self._forget()
        if since:
            self._seen = (since[0].n, since[0].hash)
        for line in since:
            self._add(line)

    def _add(self, line: Line) -> None:
        self._compared.add(line)
        self._cohorts.add(line)
        kind = _question_of(line)
        # The run may repeat a refused or withheld request.
        gave_nothing = line.kind in (ledger_line.REFUSED, ledger_line.ERROR, ledger_line.WITHHELD) and not kind
        if gave_nothing or not line.facts.get("run"):
            return
        run = run_of(line.facts)
        if "study-sha256" in line.facts:
            self._studies[run[1]].add(run[0])
        # A run's charge counts whether or not its answer left: else runs without an answer would spend a whole budget.
        if kind or line.kind == SPENT:
            self._runs[line.text(ledger_line.ASKS)].add(run)
        if kind:
            self._aligned[line.text("rows-sha256") if kind == ALIGN else ""].add(run)
            self._request_hashes[run, kind, _place(kind, line.facts)].add(line.text(COMPARED_HASH))
        self._add_choices(line, run, kind)

    def _add_choices(self, line: Line, run: Run, kind: str) -> None:
        """Note the coordinator's choices for a request that was answered."""
        if TRAINED_FROM in line.facts:
            self._trained_from[run].add(str(line.facts[TRAINED_FROM]))
        for name in CHOSEN:
            if name in line.facts or (kind == COMPARE and name in NUMBERS):
                self._chosen[run, name].add(line.facts.get(name))


def _refuse_other(kind: str, round: int) -> Refusal:
    """Return the refusal of a second question of a kind, in a round or a visit."""
    if kind == STATISTIC:
        return Refusal("other-visit", round=round + 1)
    if kind in (ALIGN, PARTIAL):
        return Refusal("exchange-other")
    if round > 0:
        return Refusal("other-model-in-round", question=QUESTIONS[kind], round=round)
    return Refusal("other-model", question=QUESTIONS[kind])


def _question_of(line: Line) -> str:
    """Return the kind of the question that a line notes; "" where it notes none."""
    # Of errors a visit's alone has its numbers: the site's refusal reveals that a row outweighs others there.
    if line.kind == ledger_line.ERROR and COMPARED_HASH in line.facts:
        return STATISTIC
    kind = _OF_LINE.get(line.kind, "")
    # A statistic of one visit asks for nothing that its study does not say.
    if kind == STATISTIC and COMPARED_HASH not in line.facts:
        return ""
    return kind


Exchange = tuple[int, int, int]
"""Round, level of a tree, and how often the tree was begun again; or round, and number of an exchange of parties."""
ONCE: Exchange = (0, 0, 0)
"""The exchange of a question that a run may ask once."""


def _place(kind: str, facts: Mapping[str, Any]) -> Exchange:
    """Return the exchange of a question.

    A run has one answer to each.
    """
    if kind in (ALIGN, PARTIAL):
        return _whole(facts.get("round")), _whole(facts.get("exchange")), 0
    if kind not in (TRAIN, STATISTIC):
        return ONCE
    round, level, attempt = (_whole(facts.get(key)) for key in ("round", "level", "attempt"))
    return round, level, attempt


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0


@dataclass(frozen=True)
class SumLedger:
    """What a site's ledger says of its secure sums.

    Parameters
    ----------
    ledger : Ledger
    limits : RunLimits
        Reader of the ledger's lines.
    """

    ledger: Ledger
    limits: RunLimits

    def has_keys(self, run: str) -> bool:
        """Return whether the site took the keys of a run."""
        with self.ledger.lock() as locked_ledger:
            return self.limits.cohorts(locked_ledger).has_keys(run)

    def has_changed(self, dataset: str) -> bool:
        """Return whether a dataset's sums were over other sites before."""
        with self.ledger.lock() as locked_ledger:
            return self.limits.cohorts(locked_ledger).has_changed(dataset)

    def trained_elsewhere(self, dataset: str, cohort_sha256: str, model: str) -> bool:
        """Return whether a dataset was trained on from a model with another cohort than this one."""
        with self.ledger.lock() as locked_ledger:
            return self.limits.cohorts(locked_ledger).trained_elsewhere(dataset, model, cohort_sha256)


def attempts_refusal(message: Message, context: Context) -> Refusal | None:
    """Return why a tree may not be begun again, or None.

    It may at most once for each site of the run.
    """
    names = str(context.run_config.get("sites", "")).split(",")
    if exchange_of(message).get("attempt", 0) > len(names):
        return Refusal("too-many-attempts", most=len(names))
    return None


def _exchange_of_parties(config: Any) -> dict[str, Any]:
    """Return the number of an exchange between parties; nothing where it is none."""
    number = None if config is None else config.get("exchange")
    return {"exchange": number} if type(number) is int and 0 <= number < EXCHANGES else {}


def exchange_of(message: Message) -> dict[str, Any]:
    """Return level and attempt of a request of trees, or the number of an exchange between parties.

    They are a ledger's facts, and empty for other requests.
    """
    content = message.content if message.has_content() else {}
    config = content.get("config")
    if message.metadata.message_type in (ALIGN, PARTIAL):
        return _exchange_of_parties(config)
    settings = content.get("settings")
    if config is None or settings is None or "level" not in settings:
        return {}
    exchange = {}
    for name in ("level", "attempt"):
        value = settings.get(name)
        if isinstance(value, float) and 0 <= value <= MOST_ATTEMPTS:
            exchange[name] = int(value)
    return exchange
