"""A play of secure sums in symbols: sites that are honest, and all that a lying server can compute.

Masks, seeds, shares and updates are symbols; cryptography is perfect. What a site refuses, it refuses by the functions
of `flfed.updates.masking.rules`. A test may put another function in the place of one, and see what is lost.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from flfed.updates.masking import rules as written

Sites = frozenset[str]
PRIME = 2**31 - 1
OVER_ROWS = {"summarise", "cells", "statistic", "roots"}
"""Kinds whose answers do not depend on a model: they share columns, so that of two lists their difference tells."""


class Request(NamedTuple):
    """What a server asks of the rows.

    `weight` is what it makes of each row by most rows and scale; a `blank` one has a model, an encoder or a
    learning rate by which every site's update is nothing.
    """

    kind: str
    model: str = ""
    weight: int = 1
    blank: bool = False


class Exchange(NamedTuple):
    """One question of a run. Runs are numbered in the order in which they began."""

    run: int
    repeat: int
    kind: str
    round: int


class Context(NamedTuple):
    """What seeds, shares and confirmations are bound to."""

    exchange: Exchange
    cohort: Sites
    request: Request


def question(request: Request, exchange: Exchange) -> tuple[str, ...]:
    """Return what a site takes for the question: its kind, and the model where the answer depends on it."""
    if request.kind in OVER_ROWS:
        return "rows", ""
    return request.kind, f"{request.model}{request.blank}"


@dataclass(frozen=True)
class Rules:
    """The rules of a play: those that gates call, and what the protocol binds."""

    least: Callable[[Sites, Sites], int] = lambda pinned, cohort: written.threshold(len(pinned))
    cohort_refusal: Callable[..., Any] = written.cohort_refusal
    answer_refusal: Callable[..., Any] = written.answer_refusal
    have_honest_opener: Callable[[Sites, Sites], bool] = written.have_honest_opener
    list_refusal: Callable[..., Any] = written.list_refusal
    opening_refusal: Callable[..., Any] = written.opening_refusal
    choose_list: Callable[..., Any] = written.choose_list
    bound: Callable[[Context], Any] = lambda context: context
    question: Callable[[Request, Exchange], Any] = question
    newest: Callable[[Exchange, list[Exchange]], bool] = lambda exchange, asked: exchange >= max(asked)
    lifted: Callable[[str, Mapping[str, Collection[str]]], Sites] = lambda site, allowed: written.lifted_sites(allowed)
    self_masks: bool = True
    one_cohort: bool = True
    notes_first: bool = True


class Answer(NamedTuple):
    """A masked vector, and the lists that its site had opened."""

    site: str
    context: Context
    vector: Mapping[Any, int]
    lists: tuple[Sites, ...]


class Opening(NamedTuple):
    """What a site gives for a list: its shares of these sites' self-masks, and its seeds with the missing."""

    site: str
    shares: frozenset[tuple[str, Any]]
    seeds: frozenset[Any]


class Spoilt(NamedTuple):
    """What a site says that opens nothing: whose shares are none for it, spoilt by their site or on the way."""

    sites: Sites


class Confirmation(NamedTuple):
    """A list under a site's keys with its peers."""

    site: str
    bound: Any
    listed: Sites


@dataclass
class Ledger:
    """What outlives runs of one question."""

    lists: list[Sites] = field(default_factory=list)
    asked: list[Exchange] = field(default_factory=list)
    pinned: list[Sites] = field(default_factory=list)


def pair_seed(one: str, other: str, bound: Any) -> tuple[Any, ...]:
    return "seed", min(one, other), max(one, other), bound


class Site:
    """An honest site. A text in the place of an answer says why there is none."""

    def __init__(self, name: str, rules: Rules, pinned: Mapping[str, Sites], allowed: Collection[str] = ()) -> None:
        self.name, self.rules = name, rules
        self.pinned, self.allowed = pinned, allowed
        self.lifted: dict[int, Sites] = {}
        self.runs: dict[int, tuple[str, Sites]] = {}
        self.answers: dict[Exchange, Answer] = {}
        self.ledger: dict[Any, Ledger] = {}
        self.training: Callable[[], object] = lambda: None

    def enter(self, run: int, study: str, cohort: Sites, allowed: Mapping[str, Collection[str]]) -> str | None:
        """Make keys with a cohort, whose statements say by whom lists may differ."""
        if self.rules.one_cohort and self.runs.get(run, (study, cohort)) != (study, cohort):
            return "another cohort in this run"
        if refusal := self.rules.cohort_refusal(self.name, cohort, self.pinned[study]):
            return str(refusal)
        self.runs[run] = study, cohort
        self.lifted[run] = self.rules.lifted(self.name, allowed)
        return None

    def train(self, exchange: Exchange, request: Request) -> Answer | str:
        if before := self.answers.get(exchange):
            return before if before.context.request == request else "this round was asked something else"
        if exchange.run not in self.runs:
            return "no key in this run"
        study, cohort = self.runs[exchange.run]
        line = self._line(request, exchange)
        refusal = self.rules.answer_refusal(
            cohort=cohort, pinned=self.pinned[study], earlier_lists=line.pinned, opened=line.lists
        )
        if refusal:
            return str(refusal)
        # Lists are read after the question is noted: what comes in between is of an earlier run by then.
        early = tuple(line.lists)
        if self.rules.notes_first:
            line.asked.append(exchange)
        self.training()
        if not self.rules.notes_first:
            line.asked.append(exchange)
        if before := self.answers.get(exchange):  # the same message came twice
            return before
        line.pinned.append(self.pinned[study])
        context = Context(exchange, cohort, request)
        lists = tuple(line.lists) if self.rules.notes_first else early
        self.answers[exchange] = Answer(self.name, context, self._masked(context), lists)
        return self.answers[exchange]

    def confirm(self, exchange: Exchange, listed: Sites) -> Confirmation | str:
        if refusal := self._list_refusal(exchange, listed):
            return refusal
        self._write_down(exchange, listed)
        return Confirmation(self.name, self.rules.bound(self.answers[exchange].context), listed)

    def unmask(
        self, exchange: Exchange, listed: Sites, confirmations: Iterable[Confirmation], spoilt: Collection[str] = ()
    ) -> Opening | Spoilt | str:
        if refusal := self._list_refusal(exchange, listed):
            return refusal
        context = self.answers[exchange].context
        study, cohort = self.runs[exchange.run]
        bound = self.rules.bound(context)
        confirmed = {one.site for one in confirmations if (one.bound, one.listed) == (bound, listed)}
        least = self.rules.least(self.pinned[study], cohort)
        if refusal := self.rules.opening_refusal(self.name, listed, cohort=cohort, least=least, confirmed=confirmed):
            return str(refusal)
        if named := listed.intersection(spoilt):
            return Spoilt(named)
        self._write_down(exchange, listed)
        missing = context.cohort - listed - {self.name}
        return Opening(
            self.name, frozenset((owner, bound) for owner in listed),
            frozenset(pair_seed(self.name, other, bound) for other in missing),
        )  # fmt: skip

    def _line(self, request: Request, exchange: Exchange) -> Ledger:
        return self.ledger.setdefault(self.rules.question(request, exchange), Ledger())

    def _masked(self, context: Context) -> Mapping[Any, int]:
        request = context.request
        vector = Counter[Any]()
        if not request.blank:
            vector["update", self.name, question(request, context.exchange)] = request.weight
        if self.rules.self_masks:
            vector["mask", self.name, context] = 1
        for other in context.cohort - {self.name}:
            vector[pair_seed(self.name, other, self.rules.bound(context))] = 1 if self.name < other else -1
        return vector

    def _list_refusal(self, exchange: Exchange, listed: Sites) -> str | None:
        if exchange not in self.answers:
            return "no answer in this round"
        request = self.answers[exchange].context.request
        study, cohort = self.runs[exchange.run]
        line = self._line(request, exchange)
        seen = all(self.rules.have_honest_opener(self.pinned[study], before) for before in line.pinned)
        refusal = self.rules.list_refusal(
            self.name, listed, cohort=cohort, least=self.rules.least(self.pinned[study], cohort),
            opened=line.lists, lifted=self.lifted[exchange.run] if seen else (),
            newest=self.rules.newest(exchange, line.asked),
        )  # fmt: skip
        return str(refusal) if refusal else None

    def _write_down(self, exchange: Exchange, listed: Sites) -> None:
        line = self._line(self.answers[exchange].context.request, exchange)
        if listed not in line.lists:
            line.lists.append(listed)


class Knowledge:
    """What a server has, with the sites that work for it."""

    def __init__(self, rules: Rules, colluders: Collection[str]) -> None:
        self.rules, self.colluders = rules, frozenset(colluders)
        self.answers: dict[Exchange, dict[str, Answer]] = {}
        self.confirmations: set[Confirmation] = set()
        self.shares: dict[tuple[str, Any], set[str]] = {}
        self.seeds: set[Any] = set()

    def keep(self, reply: Any) -> bool:
        """Keep what a site answered; false where it refused."""
        if isinstance(reply, Answer):
            self.answers.setdefault(reply.context.exchange, {})[reply.site] = reply
        elif isinstance(reply, Confirmation):
            self.confirmations.add(reply)
        elif isinstance(reply, Opening):
            self.seeds |= reply.seeds
            for share in reply.shares:
                self.shares.setdefault(share, set()).add(reply.site)
        return not isinstance(reply, str | Spoilt)

    def confirmed(self, context: Context, listed: Sites) -> set[Confirmation]:
        """Return the confirmations that the server may show, those of its own sites among them."""
        forged = {Confirmation(site, self.rules.bound(context), listed) for site in self.colluders}
        return self.confirmations | forged

    def equations(self, pinned: Mapping[int, Sites]) -> list[dict[Any, int]]:
        """Return the masked vectors without all masks that the server knows."""
        rows = []
        for answers in self.answers.values():
            for answer in answers.values():
                cohort = answer.context.cohort
                shares = (cohort & self.colluders) | self.shares.get(
                    (answer.site, self.rules.bound(answer.context)), set()
                )
                run = answer.context.exchange.run
                open_mask = len(shares) >= self.rules.least(pinned[run], cohort)
                row = {
                    symbol: value
                    for symbol, value in answer.vector.items()
                    if symbol[0] == "update"
                    or (symbol[0] == "mask" and not open_mask)
                    or (symbol[0] == "seed" and symbol not in self.seeds and not self.colluders & set(symbol[1:3]))
                }
                # A self-mask is in one vector only: what has it still tells nothing.
                if not any(symbol[0] == "mask" for symbol in row):
                    rows.append(row)
        return rows

    def sums(self, pinned: Mapping[int, Sites]) -> list[dict[Any, int]]:
        """Return a basis of the sums of updates that the server can compute."""
        rows = self.equations(pinned)
        seeds = sorted({symbol for row in rows for symbol in row if symbol[0] == "seed"}, key=repr)
        updates = sorted({symbol for row in rows for symbol in row if symbol[0] == "update"}, key=repr)
        place = {symbol: number for number, symbol in enumerate([*seeds, *updates])}
        matrix = np.zeros((len(rows), len(place)), dtype=np.int64)
        for number, row in enumerate(rows):
            for symbol, value in row.items():
                matrix[number, place[symbol]] = value
        reduced, pivots = reduce(matrix)
        basis = [reduced[number] for number, pivot in enumerate(pivots) if pivot >= len(seeds)]
        return [{symbol: int(row[place[symbol]]) for symbol in updates if row[place[symbol]]} for row in basis]

    def fewest(self, pinned: Mapping[int, Sites], lifted: Collection[str] = (), *, below: int = 10**6) -> int | None:
        """Return the fewest honest sites of a sum that the server can compute, None where no sum has less than `below`.

        A sum is any combination, over all questions; one of lifted sites alone is allowed.
        """
        return fewest_sites(self.sums(pinned), below, lifted)


def reduce(matrix: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Return the reduced row echelon form modulo a prime, and its pivots."""
    found = matrix % PRIME
    pivots: list[int] = []
    for column in range(found.shape[1]):
        top = len(pivots)
        below = np.flatnonzero(found[top:, column])
        if not below.size:
            continue
        pick = top + int(below[0])
        found[[top, pick]] = found[[pick, top]]
        found[top] = found[top] * pow(int(found[top, column]), -1, PRIME) % PRIME
        others = np.flatnonzero(found[:, column])
        others = others[others != top]
        found[others] = (found[others] - found[others, column][:, None] * found[top]) % PRIME
        pivots.append(column)
        if len(pivots) == len(found):
            break
    return found[: len(pivots)], pivots


def fewest_sites(sums: list[dict[Any, int]], below: int, lifted: Collection[str] = ()) -> int | None:
    """Return the fewest sites with which a combination of sums has to do, None where none has less than `below`.

    A combination leaves a set of sites out, and not all that are not lifted, if with these the set's columns have a
    higher rank than alone. The largest such set is sought.
    """
    updates = sorted({symbol for row in sums for symbol in row}, key=repr)
    blocks: dict[bytes, list[str]] = {}
    columns: dict[bytes, np.ndarray] = {}
    for site in sorted({symbol[1] for symbol in updates}):
        block = [[row.get(symbol, 0) for row in sums] for symbol in updates if symbol[1] == site]
        span, _ = reduce(np.array(block, dtype=np.int64))
        blocks.setdefault(span.tobytes(), []).append(site)
        columns[span.tobytes()] = span
    groups = sorted(blocks, key=lambda key: -len(blocks[key]))
    held = [columns[key] for key in groups if not set(blocks[key]) <= set(lifted)]
    if not held:
        return None

    def leaves_some(span: np.ndarray) -> bool:
        return len(span) < len(reduce(np.vstack([span, *held]))[0])

    def search(number: int, span: np.ndarray, left: int) -> int:
        """Return the fewest sites from a group on, `left` where there are not fewer."""
        if number == len(groups) or left <= 0:
            return min(left, 0)
        size = len(blocks[groups[number]])
        wider, _ = reduce(np.vstack([span, columns[groups[number]]]))
        if leaves_some(wider):
            left = search(number + 1, wider, left)
        return min(left, size + search(number + 1, span, left - size))

    found = search(0, np.zeros((0, len(sums)), dtype=np.int64), below)
    return found if found < below else None


class Scene:
    """Honest sites before a server that does as a test says; its own sites have names from "x" on."""

    def __init__(
        self,
        pinned: int | Mapping[str, Collection[str]],
        colluders: int | Collection[str],
        rules: Rules | None = None,
        lifted: Collection[str] = (),
        allowed: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        self.rules, self.lifted = rules or Rules(), frozenset(lifted)
        if isinstance(pinned, int) and isinstance(colluders, int):
            names = [f"a{number:02}" for number in range(pinned - colluders)]
            colluders = [f"x{number:02}" for number in range(colluders)]
            pinned = {"study": [*names, *colluders]}
        self.pinned = {study: frozenset(names) for study, names in pinned.items()}
        self.server = Knowledge(self.rules, colluders)
        everybody = frozenset().union(*self.pinned.values())
        self.all = sorted(everybody)
        self.honest = sorted(everybody - self.server.colluders)
        self.sites: dict[str, Site] = {}
        for name in self.honest:
            pins = {study: names for study, names in self.pinned.items() if name in names}
            self.sites[name] = Site(name, self.rules, pins, (allowed or {}).get(name, self.lifted))
        self.counted: dict[int, Sites] = {}

    @property
    def promised(self) -> int:
        """The fewest honest sites that any sum may have."""
        return min(written.threshold(len(names)) - len(names & self.server.colluders) for names in self.pinned.values())

    def enter(
        self,
        run: int,
        cohort: Iterable[str],
        sites: Iterable[str] | None = None,
        study: str = "study",
    ) -> int:
        """Begin a run, and return how many honest sites make keys."""
        members = frozenset(cohort)
        self.counted[run] = self.pinned[study]
        allowed = {name: self.sites[name].allowed if name in self.sites else self.all for name in members}
        asked = [self.sites[name] for name in (members if sites is None else sites) if name in self.sites]
        return sum(site.enter(run, study, members, allowed) is None for site in asked if study in site.pinned)

    def train(self, exchange: Exchange, request: Request, sites: Iterable[str] | None = None) -> int:
        """Ask for masked vectors, and return how many come."""
        return sum(self.server.keep(site.train(exchange, request)) for site in self._asked(exchange, sites))

    def confirm(self, exchange: Exchange, listed: Iterable[str], sites: Iterable[str] | None = None) -> int:
        """Ask sites to confirm a list, and return how many do."""
        members = frozenset(listed)
        asked = self._asked(exchange, members if sites is None else sites)
        return sum(self.server.keep(site.confirm(exchange, members)) for site in asked)

    def unmask(
        self,
        exchange: Exchange,
        listed: Iterable[str],
        sites: Iterable[str] | None = None,
        *,
        spoilt: Collection[str] = (),
    ) -> int:
        """Ask sites to open a list with all confirmations that there are, and return how many do.

        The shares of `spoilt` sites are none for them.
        """
        members, opened = frozenset(listed), 0
        for site in self._asked(exchange, members if sites is None else sites):
            answer = site.answers.get(exchange)
            shown = self.server.confirmed(answer.context, members) if answer else set()
            opened += self.server.keep(site.unmask(exchange, members, shown, spoilt))
        return opened

    def add_up(self, exchange: Exchange, listed: Iterable[str], sites: Iterable[str] | None = None) -> int:
        """Ask sites to confirm and to open a list, and return how many open it."""
        members = frozenset(listed)
        self.confirm(exchange, members, sites)
        return self.unmask(exchange, members, sites)

    def fewest(self, below: int = 10**6) -> int | None:
        """Return the fewest honest sites of a sum that the server can compute, None where none has so few."""
        return self.server.fewest(self.counted, self.lifted, below=below)

    @property
    def lost(self) -> bool:
        """Whether the server can compute a sum of fewer honest sites than promised."""
        return self.fewest(self.promised) is not None

    def _asked(self, exchange: Exchange, sites: Iterable[str] | None) -> list[Site]:
        names = sorted(self.sites if sites is None else sites)
        return [self.sites[name] for name in names if name in self.sites and exchange.run in self.sites[name].runs]
