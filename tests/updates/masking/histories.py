"""Histories of honest sums: sites and servers that crash anywhere, messages that come late, runs given up."""

import random
from collections import Counter
from collections.abc import Callable, Collection, Generator, Mapping
from typing import Any

from flfed.updates.aggregation.secure_sum import list_without
from flfed.updates.masking import rules as written
from tests.updates.masking.play import (
    Answer,
    Confirmation,
    Exchange,
    Opening,
    Request,
    Rules,
    Scene,
    Sites,
    Spoilt,
    question,
)

ASKED = Request("train", "model")
Run = Generator[None, None, Sites | str]


class History:
    """One question, asked by runs that begin, wait, crash, go on or are given up.

    A site that crashes keeps what it wrote down: so it is one that got no message, or whose reply was lost. Each run
    is a generator that pauses before every message, so that runs may be mixed and left where they are. Where it
    `spoils`, shares of a site may be none for some or all others; a server that `asks_on` then asks for a smaller list
    whatever it knows of the others.
    """

    def __init__(
        self,
        size: int,
        rng: random.Random,
        rules: Rules | None = None,
        *,
        lifted: Collection[str] = (),
        keeps_list: bool = True,
        spoils: bool = False,
        asks_on: bool = False,
    ) -> None:
        self.scene = Scene(size, 0, rules, lifted)
        self.rng, self.keeps_list = rng, keeps_list
        self.spoils, self.asks_on = spoils, asks_on
        self.named: dict[str, Sites] = {}
        self.left_out = 0
        self.least = written.threshold(size)
        self.late: list[Callable[[], Any]] = []
        self.pace = rng.choice((0.01, 0.03, 0.1, 0.2))
        self.given_up = rng.choice((0.003, 0.03))
        self.runs = 0
        self.sound = False
        self.ends: list[Sites | str] = []
        for site in self.scene.sites.values():
            site.training = self._some_come_late

    def play(self, runs: int, at_once: int = 2) -> None:
        """Let runs begin until all ended or were given up."""
        going: list[Run] = []
        while runs or going:
            if runs and len(going) < at_once and (not going or self.rng.random() < 0.02):
                going.append(self.run(self._members()))
                runs -= 1
            picked = self.rng.choice(going)
            if self.rng.random() < self.given_up:
                going.remove(picked)  # given up; its messages may still come
                continue
            try:
                next(picked)
            except StopIteration as end:
                self.ends.append(end.value)
                going.remove(picked)

    def last(self, without: Collection[str] = ()) -> Sites | str:
        """Let all late messages come, and return the end of a run in which every site answers at once."""
        self.rng.shuffle(self.late)
        while self.late:
            self.late.pop()()
        self.sound = True
        run = self.run(frozenset(self.scene.sites) - set(without))
        while True:
            try:
                next(run)
            except StopIteration as end:
                return end.value

    def run(self, cohort: Sites) -> Run:
        """Play a run of one or two rounds with the question: the last sum's list, or why it was stopped."""
        self.runs += 1
        run, end = self.runs, ""
        self.scene.enter(run, cohort)
        for number in range(1, 1 + self.rng.choice((1, 1, 2))):
            end = yield from self._round(Exchange(run, 0, "train", number), cohort)
            if isinstance(end, str):
                break
        return end

    def _round(self, where: Exchange, cohort: Sites) -> Run:
        answers: dict[str, Answer] = {}
        listed, spoilt = None, self._spoilt(cohort)
        for _ in range(1 if self.sound else self.rng.choice((1, 2, 3))):  # each after the first: a server resumed
            if listed is None or not self.keeps_list:
                yield from self._ask(answers, cohort, lambda site: site.train(where, ASKED))
                chosen = self._choose(answers, cohort)
                if not isinstance(chosen, frozenset):
                    return str(chosen)
                listed = chosen
            openings = yield from self._opened(where, listed, cohort, spoilt)
            smaller = self._smaller(listed, cohort, answers, openings)
            if smaller is not None:
                self.left_out += 1
                listed = smaller
                openings = yield from self._opened(where, listed, cohort, spoilt)
            if len(openings) >= (self.least if listed == cohort else len(listed)):
                self._check_sum(listed, answers, openings)
                return listed
        return "sites could not be got"

    def _members(self) -> Sites:
        names = sorted(self.scene.sites)
        return frozenset(
            names if self.rng.random() < 0.5 else self.rng.sample(names, self.rng.randint(self.least, len(names)))
        )

    def _choose(self, answers: Mapping[str, Answer], cohort: Sites) -> Any:
        return self.scene.rules.choose_list(
            {name: answer.lists for name, answer in answers.items()}, cohort=cohort, least=self.least,
            lifted=dict.fromkeys(cohort, self.scene.lifted),
        )  # fmt: skip

    def _spoilt(self, cohort: Sites) -> dict[str, list[str]]:
        """Return by site whose shares are none for it."""
        found = {name: list[str]() for name in cohort}
        names = sorted(cohort)
        if self.sound or not self.spoils or self.rng.random() < 0.3:
            return found
        for sender in self.rng.sample(names, self.rng.choice((1, 1, 2))):
            for name in self.rng.sample(names, self.rng.choice((1, len(names), len(names)))):
                found[name].append(sender)
        return found

    def _smaller(
        self, listed: Sites, cohort: Sites, answers: Mapping[str, Answer], openings: Mapping[str, Opening]
    ) -> Sites | None:
        """Return the list that a server asks for in place of one that was not opened, None for none."""
        rest = list_without(listed, self.named)
        unopened = all(name in self.named and not answers[name].lists for name in rest)
        if len(openings) >= self.least or rest == listed or len(rest) < self.least:
            return None
        return rest if self.asks_on or (listed == cohort and unopened) else None

    def _opened(
        self, where: Exchange, listed: Sites, cohort: Sites, spoilt: Mapping[str, Collection[str]]
    ) -> Generator[None, None, dict[str, Opening]]:
        self.named = {}
        confirmed: dict[str, Confirmation] = {}
        openings: dict[str, Opening] = {}
        if listed != cohort:
            yield from self._ask(confirmed, listed, lambda site: site.confirm(where, listed))
            if len(confirmed) < self.least:
                return openings
        shown = list(confirmed.values())
        yield from self._ask(openings, listed, lambda site: site.unmask(where, listed, shown, spoilt[site.name]))
        return openings

    def _ask(
        self, replies: dict[str, Any], names: Collection[str], call: Callable[[Any], Any]
    ) -> Generator[None, None, None]:
        """Ask sites until each has answered, refused or been asked twice."""
        rate = 0 if self.sound else self.rng.choices((0, 0.1, 0.2, 0.9), (3, 3, 3, 1))[0]
        silent = {name for name in names if self.rng.random() < rate}
        for _ in range(2):
            for name in self.rng.sample(sorted(set(names) - set(replies)), len(set(names) - set(replies))):
                yield
                reply = self._deliver(lambda name=name: call(self.scene.sites[name]), name in silent)
                self.named.pop(name, None)
                if isinstance(reply, Spoilt):
                    self.named[name] = reply.sites
                elif reply is not None and not isinstance(reply, str):
                    replies[name] = reply

    def _deliver(self, call: Callable[[], Any], silent: bool) -> Any:
        """Send a message: it comes, comes late, is lost, or its reply is lost."""
        if self.sound:
            return call()
        self._some_come_late()
        chance = self.rng.random()
        if silent or chance < 0.1:
            if self.rng.random() < 0.5:
                self.late.append(call)
            return None
        reply = call()
        return None if chance < 0.2 else reply

    def _some_come_late(self) -> None:
        """Let late messages come, also while a site trains."""
        while self.late and self.rng.random() < self.pace:
            self.late.pop(self.rng.randrange(len(self.late)))()

    def _check_sum(self, listed: Sites, answers: Mapping[str, Answer], openings: Mapping[str, Opening]) -> None:
        """Hold the sum to the updates of the list's sites, each once and nothing else."""
        total = Counter[Any]()
        for name in listed:
            total.update(answers[name].vector)
            shares = sum((name, answers[name].context) in one.shares for one in openings.values())
            assert shares >= self.least
            del total["mask", name, answers[name].context]
        seeds = frozenset().union(*(one.seeds for one in openings.values()))
        left = {symbol: value for symbol, value in total.items() if value and symbol not in seeds}
        where = next(iter(answers.values())).context.exchange
        assert left == {("update", name, question(ASKED, where)): 1 for name in listed}
