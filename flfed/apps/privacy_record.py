"""What a run's record says of privacy: what is promised, what each site was asked for, and what is in no promise."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from flfed.apps.recording import Recorder
from flfed.errors import FlfedError
from flfed.rows.training.private import SystemChance
from flfed.study import Study
from flfed.updates.mechanism import Mechanism, Normals, Promise, mechanism_of
from flfed.updates.messages import EnrolReply
from flfed.updates.rounds import RoundRecord

FEW_KINDS = 4
"""Different numbers of rounds asked of sites whose ε is computed tightly at the end; of more, a bound does."""


class PrivacyRecord:
    """Writes down the summary "privacy" of one run, and counts what its sites were asked for.

    Parameters
    ----------
    study : Study
    recorder : Recorder
        Through whose names sites are written down; those in sums only are not.
    deployed : bool
        Whether institutions take part: then noise comes from the operating system.
    """

    def __init__(self, study: Study, recorder: Recorder, *, deployed: bool) -> None:
        self._study, self._recorder = study, recorder
        self._asked_for = mechanism_of(study)
        self.mechanism = self._asked_for or Mechanism()
        self.chance: Callable[[int], Normals] | None = system_normals if deployed else None
        self._promise: Promise | None = None
        self._rounds = Counter[str]()
        self._ledgers: dict[str, tuple[float, float]] = {}
        self._facts: dict[str, Any] = {}

    def enrolled(self, replies: Mapping[str, EnrolReply]) -> None:
        """Take note of the sites' budgets, and of what other studies have spent; what is known from before stays."""
        if self._asked_for is not None:
            found = {site: (reply.epsilon_budget, reply.epsilon_spent) for site, reply in replies.items()}
            self._ledgers = found | self._ledgers

    def facts(self) -> dict[str, Any]:
        """Return what a checkpoint keeps for the record to go on from."""
        ledgers = {site: [_known(budget), _known(spent)] for site, (budget, spent) in self._ledgers.items()}
        return {"asked": dict(self._rounds), "ledgers": ledgers} if self._asked_for is not None else {}

    def restore(self, facts: Mapping[str, Any]) -> None:
        """Go on from what `facts` gave; enrolling again then changes nothing of it."""
        self._rounds = Counter(facts.get("asked", {}))
        self._ledgers = {
            site: (_number(budget), _number(spent)) for site, (budget, spent) in facts.get("ledgers", {}).items()
        }

    @contextmanager
    def during(self, sites: Collection[str]) -> Iterator[None]:
        """Write down what is promised, and at the end of the rounds, however they end, what was asked for.

        Raises
        ------
        UsageError
            Where so few sites take part that the promise would mean nothing.
        """
        self.mechanism.check_sites(len(sites))
        self._facts = self._begun(len(sites))
        self.write()
        try:
            yield
        except BaseException:
            self._count(sites)  # the round that was going on may have been trained
            with suppress(FlfedError):  # what ended the run is what counts
                self.write(final=True)
            raise
        if self._asked_for is not None:
            self.write(final=True)

    def asked(self, record: RoundRecord) -> None:
        """Count a round."""
        if record.fit:
            self._count(record.asked)

    def write(self, *, final: bool = False) -> None:
        """Write the summary, or write it anew; `final` where the run ends."""
        payload = {**self._facts, "sites": self._sites(final)}
        self._recorder.writer.summary("privacy", payload, durable=final)

    def checkpoint(self) -> None:
        """Write the summary anew with a checkpoint; of a run without a mechanism there is nothing new."""
        if self._asked_for is not None:
            self.write()

    def _count(self, sites: Collection[str]) -> None:
        if self._asked_for is not None:
            self._rounds.update(list(sites))  # of a mapping a Counter would add the values

    def _begun(self, sites: int) -> dict[str, Any]:
        """Return all of the payload that the rounds do not change."""
        study, found = self._study, self.mechanism
        promise = self._promise = found.promise(study.plan, study.rounds)
        steps = found.private_steps(study.plan, study.rounds)
        facts: dict[str, Any] = dict.fromkeys(
            ("unit", "epsilon", "delta", "noise", "sampling", "clip", "steps")
        )  # null where nothing is promised
        if steps is not None:
            facts |= {key: getattr(steps, key) for key in ("unit", "noise", "sampling", "clip")}
            facts["steps"] = study.plan.steps * study.rounds
        if promise is not None:
            facts |= {key: getattr(promise, key) for key in facts}
        said = {"warnings": [*found.warnings(study, sites)], "uncharged": [*found.uncharged(study)]}
        return {"mechanism": study.privacy.name, **facts, **said}

    def _sites(self, final: bool) -> dict[str, Any]:
        """Return what each site was asked for so far, under the names that may be written down."""
        if self._asked_for is None:
            return {}
        plan, rounds, promise = self._study.plan, self._study.rounds, self._promise
        asked = {site: min(self._rounds[site], rounds) for site in self._ledgers.keys() | self._rounds.keys()}
        kinds = set(asked.values())
        quick = not final or len(kinds) > FEW_KINDS
        spent: dict[int, float | None] = {}
        for count in kinds:
            bound = self.mechanism.spent(plan, rounds, count, quick=quick)
            # The quick bound of all rounds would be above what is promised of them.
            spent[count] = bound if bound is None or promise is None else min(bound, promise.epsilon)
        a_round = 1 if promise is not None and promise.unit == "site" else plan.steps
        lines = {}
        for site in sorted(asked):
            budget, before = self._ledgers.get(site, (math.nan, math.nan))
            lines[site] = {
                "steps": asked[site] * a_round,
                "epsilon": spent[asked[site]],
                "delta": None if promise is None else promise.delta,
                "budget": _known(budget),
                "spent-before": _known(before),
                "spent": None,
            }
        return dict(self._recorder.shared_as.own(lines))


def system_normals(round: int) -> Normals:
    """Return where the server's noise of a round comes from at institutions: nobody can draw it again."""
    return SystemChance().normal


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _number(value: float | None) -> float:
    return math.nan if value is None else value
