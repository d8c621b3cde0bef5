"""Record of a run's privacy: the guarantee, the charge of each site, and releases outside the guarantee."""

from __future__ import annotations

import json
import math
import tomllib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from flfed.errors import FlfedError
from flfed.federation.client.protection import excludes_encoder
from flfed.federation.recording.recorder import Recorder
from flfed.paths import replace_whole
from flfed.records.store.tables import finite
from flfed.refusals import BUDGET, Refusal
from flfed.rows.training.private_noise import SystemNoise
from flfed.study.study import Study, staying
from flfed.updates.aggregation.rounds import RoundRecord
from flfed.updates.checkpoints import checkpoint as checkpoints
from flfed.updates.checkpoints.checkpoint import Checkpoint
from flfed.updates.mechanism import Mechanism, Normals, Promise, acting_mechanism, mechanism_of, planned
from flfed.updates.messages.enrol import EnrolReply

KEYS = ("unit", "epsilon", "delta", "noise", "sampling", "clip", "steps")
EXCLUDES_ENCODER = "excludes-encoder"
"""Whether the promise excludes a row's effect through the encoder; null where nothing is promised."""
TRUSTS = "trusts-server"
"""Whether a promise to sites assumes a trusted server; null where none is made to sites."""


def promised(study: Study, sites: int) -> dict[str, Any]:
    """Return the guarantee of a study without reading a table: `privacy` of `flfed study check --json`.

    Parameters
    ----------
    study : Study
        Checked, so that its mechanism has enough noise.
    sites : int
        Number of participants.

    Returns
    -------
    privacy : dict
        "mechanism", `KEYS`, `EXCLUDES_ENCODER` and `TRUSTS` (null where nothing is promised), "warnings",
        "uncharged" and "notes" (lists of sentences), where the budget covers everything a site releases also
        "not-released" (data that is not released), and as in a run's report "noise-from", "repeats" and "reason".

    Raises
    ------
    UsageError
        Where so few sites take part that the promise would be empty.

    Guarantee: none of its own. The promise is the mechanism's, for the whole run as planned.
    """
    return {
        **facts_of(study, sites),
        "notes": ignored(study),
        **({"not-released": [*stays]} if (stays := staying(study)) else {}),
        "noise-from": None,
        "repeats": 1,
        "reason": "",
    }


def facts_of(study: Study, sites: int) -> dict[str, Any]:
    """Return a run's privacy facts before its first round, which its record has, too.

    Parameters
    ----------
    study : Study
    sites : int
        Number of participants.

    Returns
    -------
    facts : dict
        "mechanism", `KEYS`, `EXCLUDES_ENCODER`, `TRUSTS`, "warnings" and "uncharged"; where the budget covers
        everything a site releases, also "covers" and "answers" (`charged_answers`).

    Raises
    ------
    UsageError
        Where so few sites take part that the promise would be empty.
    """
    mechanism = acting_mechanism(study)
    mechanism.check_sites(sites)
    promise = mechanism.promise(study.plan, study.rounds)
    steps = mechanism.private_steps(study.plan, study.rounds)
    facts: dict[str, Any] = dict.fromkeys((*KEYS, EXCLUDES_ENCODER, TRUSTS))
    if steps is not None:
        facts |= {key: getattr(steps, key) for key in ("unit", "noise", "sampling", "clip")}
        facts["steps"] = study.plan.steps * study.rounds
    if promise is not None:
        facts |= {key: getattr(promise, key) for key in KEYS} | {EXCLUDES_ENCODER: excludes_encoder(study)}
        facts[TRUSTS] = not study.aggregation.masks_updates if promise.unit == "site" else None
    remarks = {"warnings": [*mechanism.warnings(study, sites)], "uncharged": [*mechanism.uncharged(study)]}
    return {"mechanism": study.privacy.name, **facts, **charged_answers(study, mechanism), **remarks}


def charged_answers(study: Study, mechanism: Mechanism) -> dict[str, Any]:
    """Return a run's charges beside training, {} where only updates are charged.

    Returns
    -------
    facts : dict
        "covers" ("study") and "answers" (of each reply with noise its "name" and "noise" multiplier).
    """
    answers = mechanism.answer_releases(study.plan, study.rounds)
    if not answers:
        return {}
    return {"covers": "study", "answers": [{"name": name, "noise": of.noise} for name, of in answers.items()]}


def ignored(study: Study) -> list[str]:
    """Return a sentence for each plan key that protected training ignores, [] for other training."""
    mechanism = mechanism_of(study)
    if mechanism is None or mechanism.private_steps(study.plan, study.rounds) is None:
        return []
    plan = tomllib.loads(study.text).get("plan", {})
    instead = {
        "batch": "[privacy] sampling states which rows take part in a step",
        "epochs": "[plan] steps states the number of steps of a round",
    }
    unused = [key for key in instead if key in plan]
    return [f"plan.{key}={plan[key]} is not used: {instead[key]}." for key in unused]


Facts = Mapping[str, Any]


class SiteCharges:
    """Charges of the sites for the rounds requested from them.

    Parameters
    ----------
    study : Study

    Attributes
    ----------
    mechanism : Mechanism or None
        The study's; without one nothing is counted.
    promise : Promise or None
    of_sites : bool
        Whether the promise protects whole sites.
    """

    def __init__(self, study: Study) -> None:
        self._study = study
        self.mechanism = mechanism_of(study)
        self._active_mechanism = self.mechanism or Mechanism()
        self.promise = self._active_mechanism.promise(study.plan, study.rounds)
        self.of_sites = self.promise is not None and self.promise.unit == "site"
        self._rounds = Counter[str]()
        self._ledgers: dict[str, tuple[float, float]] = {}

    def enrolled(self, replies: Mapping[str, EnrolReply]) -> None:
        """Add the sites' budgets, without replacing known ones."""
        if self.mechanism is not None:
            budgets = {site: (reply.epsilon_budget, reply.epsilon_spent) for site, reply in replies.items()}
            self._ledgers = budgets | self._ledgers

    def add(self, sites: Collection[str]) -> None:
        """Count one round of these sites."""
        self._rounds.update(list(sites))  # a Counter would add the values of a mapping

    def facts(self) -> dict[str, Any]:
        """Return the charges for a checkpoint."""
        ledgers = {site: [finite(budget), finite(spent)] for site, (budget, spent) in self._ledgers.items()}
        return {"asked": dict(self._rounds), "ledgers": ledgers}

    def restore(self, facts: Facts) -> None:
        """Restore the charges from a checkpoint's facts."""
        self._rounds = Counter(facts.get("asked", {}))
        self._ledgers = {
            site: (_number(budget), _number(spent)) for site, (budget, spent) in facts.get("ledgers", {}).items()
        }

    def spent(self) -> tuple[dict[str, Any], str]:
        """Return each site's charge, by name, and a warning where it exceeds the plan."""
        if self.mechanism is None:
            return {}, ""
        promise = self.promise
        plan = self._study.plan
        rounds = self._study.rounds
        # Of parties with different columns the one with the outcome is charged.
        sites = self._rounds.keys() if self._study.is_vertical else self._ledgers.keys() | self._rounds.keys()
        rounds_by_site = {site: self._rounds[site] for site in sites}
        spent = {count: self.mechanism.spent(plan, rounds, count) for count in set(rounds_by_site.values())}
        a_round = plan.steps
        delta = None
        if promise is not None:
            a_round = promise.steps // planned(rounds)
            delta = promise.delta
        lines = {}
        for site, count in sorted(rounds_by_site.items()):
            budget, before = self._ledgers.get(site, (math.nan, math.nan))
            lines[site] = {
                "steps": count * a_round,
                "epsilon": spent[count],
                "delta": delta,
                "budget": finite(budget),
                "spent-before": finite(before),
            }
        return lines, more_than_planned(promise, rounds_by_site, planned(rounds), spent)


class PrivacyRecord:
    """Writer of a run's privacy summary, which counts the requests to the run's sites.

    Parameters
    ----------
    study : Study
    recorder : Recorder
        It has the names of the record.
    deployed : bool
        Whether institutions take part, whose noise comes from the operating system.

    Attributes
    ----------
    mechanism : Mechanism or None
        The study's. Without one there is nothing to count, and `count_round` and `goes_on` need not be called.
    each_round : bool
        Whether every round needs a checkpoint, as it cannot be repeated with the same noise.

    Notes
    -----
    A run is charged to the sites' accounts whole, and no site draws noise twice. A server at institutions draws other
    noise where it makes a model again, and each time counts, unless it had sent the earlier one to nobody. The sites
    asked in a round are therefore on the disk before it begins, beside the checkpoints, where a resume reads them.
    """

    def __init__(self, study: Study, recorder: Recorder, *, deployed: bool) -> None:
        self._study = study
        self._recorder = recorder
        # Research sites that a study cuts out of one table always draw by the seed.
        self.each_round = deployed or (study.is_covered and study.dataset.partition is None)
        self._charges = SiteCharges(study)
        self._draws_anew = deployed and self._charges.of_sites
        self.mechanism = self._charges.mechanism
        self.chance: Callable[[int], Normals] | None = system_normals if deployed else None
        self._sites: tuple[str, ...] = ()
        self._going_on: tuple[str, ...] = ()
        self._done = 0
        self._close = 0
        self._facts: dict[str, Any] = {}

    def enrolled(self, replies: Mapping[str, EnrolReply]) -> None:
        """Add the sites' budgets and earlier spending, without replacing known ones."""
        self._charges.enrolled(replies)

    def counted(self, rows: Mapping[str, float]) -> None:
        """Compare delta with one over the sites' training rows, which it should be far below."""
        promise = self._charges.promise
        if promise is not None and not self._charges.of_sites:
            self._close = sum(promise.delta * count > 0.1 for count in rows.values())

    def facts(self) -> dict[str, Any]:
        """Return the privacy facts of a checkpoint."""
        if self.mechanism is None:
            return {}
        facts = self._charges.facts()
        if self._close:
            facts["delta-close"] = self._close
        return facts

    def restore(self, checkpoint: Checkpoint | None) -> None:
        """Restore the facts from a checkpoint, None before the first round; enrolling again then changes nothing.

        Raises
        ------
        FlfedError
            If the record of requests cannot be read.
        """
        facts: Facts = {}
        if checkpoint is not None:
            facts = checkpoint.facts.get("privacy", {})
            self._done = checkpoint.round
        begun = self._read_begun()
        # A round that began after the checkpoint counts, as sites may have replied.
        if begun.get("round", 0) > self._done:
            facts = begun
        self._close = int(facts.get("delta-close", 0))
        self._charges.restore(facts)

    @contextmanager
    def during(self, sites: Collection[str]) -> Iterator[None]:
        """Record the guarantee, and the charge after the rounds, however they end.

        Raises
        ------
        UsageError
            Where so few sites take part that the promise would be empty.
        FlfedError
            If the requested sites cannot be recorded.
        """
        self._sites = tuple(sites)
        self._facts = facts_of(self._study, len(sites))
        self.write()
        # A repeated request for a single reply gets the same one, so no record of it is needed.
        if self.mechanism is not None and self._study.rounds:
            self._begin_after(self._done)
        try:
            yield
        except BaseException:
            self._charges.add(self._going_on)  # sites may have trained in the current round
            with suppress(FlfedError):  # the error that ended the run is raised
                self.write(final=True)
            raise
        if self.mechanism is not None:
            self.write(final=True)

    def count_round(self, record: RoundRecord, *, trained: bool) -> None:
        """Count a round before its checkpoint.

        Without a new model a round reveals nothing of a site, except under secure sums, where an untrusted server may
        have the sum. A site without budget left did not train.
        """
        if record.fit and (trained or not self._charges.of_sites or self._study.aggregation.masks_updates):
            spent_out = {site for site, reason in record.refused.items() if reason.code in BUDGET}
            self._charges.add([site for site in record.sampled_sites if site not in spent_out])
        self._going_on = ()

    def answered(self, sites: Collection[str], rounds: int = 1) -> None:
        """Count the one reply of each site to a study without rounds, or all rounds of a run that is charged whole."""
        if self.mechanism is not None:
            self._going_on = ()
            for _ in range(rounds):
                self._charges.add(sites)

    def goes_on(self, record: RoundRecord, *, trained: bool) -> None:
        """Record the sites of the next round, after a round's checkpoint and before its model is sent.

        Raises
        ------
        FlfedError
            If it cannot be written.
        """
        self._begin_after(record.round if record.fit and trained else self._study.rounds)

    def _begin_after(self, round: int) -> None:
        """Record the sites of the round after this one."""
        self._going_on = self._sites if round < self._study.rounds else ()
        if not self._draws_anew:
            return  # a repeated round has the same noise
        content = {"round": round + 1, "going-on": self._going_on, **self.facts()}
        try:
            replace_whole(self._file, json.dumps(content).encode())
        except OSError as error:
            raise FlfedError(f"{self._file}: cannot be written ({error.strerror}): free some disk space") from None

    def _read_begun(self) -> dict[str, Any]:
        """Return the record of the last round begun, {} of a run without one."""
        if not (self._draws_anew and self._file.exists()):
            return {}
        try:
            record: dict[str, Any] = json.loads(self._file.read_bytes())
        except (OSError, ValueError):
            raise FlfedError(f"{self._file}: cannot be read, so requests are not known; run the study anew") from None
        return record

    @property
    def _file(self) -> Path:
        return checkpoints.folder_of(self._recorder.writer.run) / checkpoints.REQUEST_FILE

    def write(self, *, final: bool = False) -> None:
        """Write the summary, `final` where the run ends."""
        lines, more = self._charges.spent()
        sites = dict(lines)
        warnings = list(self._facts["warnings"])
        promise = self._charges.promise
        if self._close and promise is not None:
            how = (
                f": {promise.delta:g} is above a tenth of one over the rows at {self._close} of {len(self._sites)} "
                "sites. At one over the rows, a promise may allow a whole row to be revealed: choose a smaller delta."
            )
            warnings.append(Refusal("close-delta", how=how))
        if more:
            warnings.append(more)
        payload = {**self._facts, "warnings": warnings, "sites": sites}
        self._recorder.writer.summary("privacy", payload, durable=final)


def more_than_planned(
    promise: Promise | None, rounds_by_site: Mapping[str, int], rounds: int, spent: Mapping[int, float | None]
) -> str:
    """Return a warning where repeated rounds cost more than the promise, else "".

    Parameters
    ----------
    promise : Promise or None
    rounds_by_site : mapping of site to int
        Rounds.
    rounds : int
        Planned.
    spent : mapping of rounds to ε
    """
    most = max(rounds_by_site.values(), default=0)
    epsilon = spent.get(most)
    if promise is None or epsilon is None or most <= rounds:
        return ""
    more = sum(count > rounds for count in rounds_by_site.values())
    spent_in_all, promised_in_all = (format(math.ceil(of * 100) / 100, "g") for of in (epsilon, promise.epsilon))
    how = (
        f", since rounds were done again: at {more} of {len(rounds_by_site)} sites up to {most} rounds instead of "
        f"{rounds}, which is epsilon {spent_in_all} at most; the promise was {promised_in_all}."
    )
    return Refusal("more-spent", how=how)


def system_normals(round: int) -> Normals:
    """Return the server's noise source at institutions, whose noise nobody can draw again."""
    return SystemNoise().normal


def _number(value: float | None) -> float:
    return math.nan if value is None else value
