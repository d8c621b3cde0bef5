"""Privacy account of a site, for people.

It says what each run consumed of the budget, what is left, and what was charged to no budget.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from flfed.federation.client.privacy_budget import epsilon_forgotten, shown
from flfed.federation.client.released.accounts import (
    BOTH,
    SIDES,
    RowAccounts,
    Side,
    Tally,
    counts_rows_of,
    may_have_several_rows,
    names_in,
    names_now,
    release_of,
    side_of,
)
from flfed.federation.client.released.accounts import SPENT as LINE
from flfed.records.ledger import Ledger
from flfed.records.ledger_line import RESTARTED, Line, Total, bytes_of
from flfed.registry import kebab, kebab_keys
from flfed.rows.data.site import Site
from flfed.updates.accounting import Release, affordable, composed, epsilon, rounds_left
from flfed.updates.messages.kinds import TRAIN
from flfed.words import counted, render

MOST_ROUNDS = 10_000
"""Rounds that are counted ahead; more are called more than these."""
PEOPLE = {"training": "trained on", "holdout": "held out", "both": "all"}
"""Of whose privacy a run spent, in words."""
COMPOSED = "Spent, line by line and composed over each run; all together is less than the sum over the runs"
"""Heading of the table of what was spent."""
AHEAD = "a run ahead"
"""In place of the name of a run that was not yet."""
TEXTS = ("study", "study_sha256", "run", "unit", "dataset")
"""Texts that each line of a run has."""
RunKey = tuple[str, str, str, bool, Side, str]


@dataclass
class RunSpent:
    """What one run spent of one dataset.

    Attributes
    ----------
    study, study_sha256, run, unit, dataset : str
    first, last : str
        When its first and its last round were written down; UTC.
    n : int
        The last line.
    named : bool
        Whether its lines say of which rows they are.
    excludes_encoder : bool
        Whether a row moved the encoder too, which no ε counts; true of lines that do not say it.
    side : {"training", "holdout", "both"}
        Whose privacy.
    rule : str
        Hash of the holdout by which people were on the side.
    releases : list of Release
    rounds : Counter of (repeat, round)
        How often each round was charged.
    """

    run: str
    unit: str
    study: str = ""
    study_sha256: str = ""
    dataset: str = ""
    first: str = ""
    last: str = ""
    n: int = 0
    named: bool = True
    excludes_encoder: bool = False
    side: Side = BOTH
    rule: str = ""
    releases: list[Release] = field(default_factory=list)
    rounds: Counter[tuple[object, object]] = field(default_factory=Counter)

    @property
    def key(self) -> RunKey:
        """What its lines have in common."""
        return self.run, self.unit, self.dataset, self.named, self.side, self.rule

    def add(self, line: Line) -> None:
        """Count one line more."""
        self.last = line.at
        self.n = line.n
        self.excludes_encoder |= line.facts.get("given-encoder") is not False
        self.releases.append(release_of(line))
        # An answer is no round, and has the number 0.
        if line.facts.get("round"):
            self.rounds[line.facts.get("repeat"), line.facts["round"]] += 1

    def tally(self, dataset: str) -> Tally:
        """Return what counts of it on the account of a dataset.

        Under another name the same rows may be on the other side, so that such a run counts on both.
        """
        rules = {self.rule} if self.side in SIDES else set[str]()
        tally = Tally(rules=rules)
        for release in self.releases:
            tally.kinds[self.side, release.noise, release.sampling] += release.steps
        return tally if self.dataset == dataset else tally.on_both()

    def kinds(self, delta: float, whole: float) -> list[dict[str, Any]]:
        """Return the run's steps by noise and sampling, for JSON.

        Each has the number of its rounds, those that were asked twice counted twice, its own ε at `delta`, and that of
        the `whole` run, whose other side may stand elsewhere.
        """
        lines = Counter((release.noise, release.sampling) for release in self.releases)
        texts = {name: getattr(self, name) for name in TEXTS}
        plain = kebab_keys({**texts, "excludes_encoder": self.excludes_encoder, "first": self.first, "last": self.last})
        if self.side != BOTH:
            plain["side"] = self.side
        return [
            {**plain, "rounds": lines[kind.noise, kind.sampling], "steps": kind.steps, "noise": kind.noise,
             "sampling": kind.sampling, "epsilon": _finite(epsilon([kind], delta)), "run-epsilon": _finite(whole)}
            for kind in composed(self.releases)
        ]  # fmt: skip


@dataclass
class Account:
    """What a ledger says of one dataset.

    Attributes
    ----------
    runs : dict of run, unit, dataset, whether its rows are named, side and its rule, to RunSpent
    datasets : tuple of str
        Those that are of the same rows, where it is the account of rows.
    uncharged : dict of kind of line to Total
        Bytes that left and were charged to no budget: figures, sums and counts have no noise.
    charged_bytes : int
        Bytes of updates that were charged.
    unprotected : set of run, round and hash
        The updates that left without noise; one that left twice is one.
    """

    runs: dict[RunKey, RunSpent] = field(default_factory=dict)
    datasets: tuple[str, ...] = ()
    uncharged: dict[str, Total] = field(default_factory=dict)
    charged_bytes: int = 0
    unprotected: set[tuple[str, ...]] = field(default_factory=set)

    def add(self, line: Line) -> None:
        """Count one line more."""
        # A line of spent privacy goes to its run; all other lines are of bytes that left.
        if line.kind == LINE:
            texts: dict[str, Any] = {name: str(line.facts.get(kebab(name), "")) for name in TEXTS}
            named = bool(names_in(line.facts))
            texts["rule"] = line.text("holdout-sha256")
            new = RunSpent(**texts, first=line.at, named=named, side=side_of(line))
            self.runs.setdefault(new.key, new).add(line)
            return
        charged = line.facts.get("charged-bytes", 0)
        charged = charged if isinstance(charged, int) else 0
        self.charged_bytes += charged
        # An update that was charged nothing left without noise; sent twice, it told nothing more.
        if line.kind == TRAIN and not charged:
            self.unprotected.add(tuple(line.text(key) for key in ("run", "round", "sha256")))
        if bytes_of(line) > charged:
            total = self.uncharged.setdefault(line.kind, Total())
            total.lines += 1
            total.bytes += bytes_of(line) - charged

    @property
    def last(self) -> Release | None:
        """The privacy loss of the last round.

        The last round is that of the ledger's order; None where no round consumed anything.
        """
        newest = max(self.runs.values(), key=lambda run: run.n, default=None)
        return None if newest is None else newest.releases[-1]

    @property
    def drawn_again(self) -> int:
        """How many rounds were charged more than once."""
        count = 0
        for run in self.runs.values():
            count += sum(charges > 1 for charges in run.rounds.values())
        return count

    @property
    def excludes_encoder(self) -> bool | None:
        """Whether some run's encoder depends on a row.

        No ε counts that. None where nothing was consumed.
        """
        return any(run.excludes_encoder for run in self.runs.values()) if self.runs else None

    def tally(self, dataset: str) -> Tally:
        """Return what was spent over all runs, as the site's account counts it before it refuses anything."""
        return Tally.of(run.tally(dataset) for run in self.runs.values())

    def kinds(self, dataset: str, delta: float) -> list[dict[str, Any]]:
        """Return the steps of all runs by noise and sampling, for JSON.

        A run's ε is of its lines as they count on the account: on both sides where people may have changed sides.
        """
        rules = self.tally(dataset).rules
        entries = []
        for part in self.runs.values():
            whole = Tally.of(other.tally(dataset) for other in self.runs.values() if other.run == part.run)
            entries += part.kinds(delta, replace(whole, rules=rules).epsilon(delta))
        return entries

    def after(self, dataset: str, unit: str, charges: Iterable[tuple[Side, Release]], rule: str = "") -> Account:
        """Return the account as it is after one more run.

        Parameters
        ----------
        dataset, unit : str
            Of the run.
        charges : iterable of (side, Release)
            What the run releases, each of whose privacy.
        rule : str
            Hash of the holdout by which people are on a side.
        """
        ahead: dict[RunKey, RunSpent] = {}
        for side, release in charges:
            new = RunSpent(run=AHEAD, unit=unit, dataset=dataset, side=side, rule=rule)
            ahead.setdefault(new.key, new).releases.append(release)
        return replace(self, runs=self.runs | ahead)

    def rounds_left(self, dataset: str, release: Release, budget: float, delta: float, most: int = MOST_ROUNDS) -> int:
        """Return how many rounds a budget still allows.

        They are like `release`, and fit on both sides.
        """
        # The side that lost more comes first: what fits there mostly fits on the other one, too.
        tally = self.tally(dataset)
        first, second = sorted((tally.releases(side) for side in SIDES), key=lambda of: -epsilon(of, delta))
        most = rounds_left(first, release, budget, delta, most)
        if not most or affordable(second, replace(release, steps=most * release.steps), budget, delta):
            return most
        return rounds_left(second, release, budget, delta, most)

    def spent(self, dataset: str, delta: float) -> float:
        """Return the ε of all releases.

        It is that of the side that lost more, and infinite where rows of persons were counted one by one.
        """
        # Accounts of single rows bound nothing for a person with several of them.
        by_rows = any(
            run.unit == "row" or (run.named and counts_rows_of(dataset, run.dataset)) for run in self.runs.values()
        )
        if by_rows and may_have_several_rows(dataset):
            return math.inf
        return self.tally(dataset).epsilon(delta)


@dataclass
class Accounts:
    """What a ledger says of all datasets.

    Attributes
    ----------
    datasets : dict of name to Account
        The empty name has lines of studies whose dataset the ledger does not name.
    restarted : str
        When the ledger was begun anew since the one before was lost.
    rows : RowAccounts
        Which datasets are of the same rows.
    """

    datasets: dict[str, Account] = field(default_factory=dict)
    restarted: str = ""
    rows: RowAccounts = field(default_factory=RowAccounts)

    @classmethod
    def of(cls, lines: Iterable[Line]) -> Accounts:
        """Return the sums over a ledger's lines."""
        accounts = cls()
        names = dict[str, str]()
        for line in lines:
            if line.kind == RESTARTED:
                accounts.restarted = line.at
            accounts.rows.add(line)
            # Only some lines name the dataset; the study's hash tells it for the others.
            study = line.text("study-sha256")
            named = str(line.facts.get("dataset") or "")
            name = names.setdefault(study, named) if named and study else named or names.get(study, "")
            if line.kind == LINE or bytes_of(line):
                accounts.datasets.setdefault(name, Account()).add(line)
        return accounts

    def account(self, name: str, names: frozenset[str] | None = frozenset()) -> Account:
        """Return the account of a dataset's rows.

        Unaccounted outputs are those of this dataset alone.

        Parameters
        ----------
        name : str
        names : frozenset of str
            That lines of the rows which are served now have; None where nobody knows them, so that all count.
        """
        # Datasets of the same rows share one budget, whatever they are called.
        of_all = sorted({*self.datasets, name} - {""})
        same = of_all if names is None else sorted(self.rows.datasets(name, names))
        own = self.datasets.get(name, Account())
        runs: dict[RunKey, RunSpent] = {}
        unprotected = set(own.unprotected)
        for other, account in self.datasets.items():
            # A run that does not say of which rows it was counts on every account.
            runs |= {key: run for key, run in account.runs.items() if other in same or not run.named}
            if other in same:
                unprotected |= account.unprotected
        runs = dict(sorted(runs.items(), key=lambda item: item[1].first))
        return replace(own, runs=runs, unprotected=unprotected, datasets=tuple(same))


def budget_as_json(site: Site, ledger: Ledger, only: str = "") -> dict[str, Any]:
    """Return a site's privacy account as JSON.

    The site's own datasets are in it also where nothing was consumed.

    Parameters
    ----------
    site : Site
    ledger : Ledger
    only : str
        One dataset; all unless given.
    """
    accounts = Accounts.of(ledger.lines())
    # The rows that are served now are joined first: their names may link datasets that no line does.
    for name in site.datasets:
        accounts.rows.join(name, names_now(site, ledger, name) or ())
    # Beside the site's own datasets those that the ledger has, and last the lines that name none.
    names = [only] if only else [*site.datasets, *sorted(set(accounts.datasets) - set(site.datasets) - {""}), ""]
    policy = site.policy
    datasets = [_of_dataset(site, ledger, name, accounts) for name in names]
    return {
        "site": site.name,
        "enforced": policy.enforces_budget,
        "delta": policy.delta,
        "restarted": accounts.restarted or None,
        "datasets": [one for one in datasets if one["dataset"] or one["uncharged"]],
    }


def _of_dataset(site: Site, ledger: Ledger, name: str, accounts: Accounts) -> dict[str, Any]:
    policy = site.policy
    account = accounts.account(name, names_now(site, ledger, name))
    if not name:  # of studies whose dataset no line names: what they spent is on every account
        account = accounts.datasets.get(name, Account())
    forgotten = epsilon_forgotten(ledger)
    spent = account.spent(name, policy.delta) + forgotten
    last = account.last
    budget = policy.epsilon
    # Rounds ahead are counted by the last one's noise, and only where a budget bounds them.
    rounds = None
    left = max(0.0, budget - spent) if budget is not None else None
    if last is not None and budget is not None:
        left_for_rounds = max(0.0, budget - forgotten)
        rounds = 0 if math.isinf(spent) else account.rounds_left(name, last, left_for_rounds, policy.delta)
    last_release = None
    if last is not None:
        last_release = "answer" if last.sampling == 1 and last.steps == 1 else "round"
    return {
        "dataset": name,
        "account": list(account.datasets),
        "budget": budget,
        "spent": _finite(spent),
        "excludes-encoder": account.excludes_encoder,
        "remaining": left,
        "rounds-remaining": rounds,
        "last": last_release,
        "moved": account.tally(name).moved,
        "drawn-again": account.drawn_again,
        "runs": account.kinds(name, policy.delta),
        "charged-bytes": account.charged_bytes,
        "unprotected-updates": len(account.unprotected),
        "uncharged": [
            {"kind": kind, "lines": total.lines, "bytes": total.bytes}
            for kind, total in sorted(account.uncharged.items())
        ],
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def shown_or(beyond: str, value: float | None) -> str:
    """Return an ε for people, or other words where no number bounds it."""
    return beyond if value is None else shown(value)


def times_in_words(kind: Mapping[str, Any]) -> str:
    """Return how often a run was charged a kind of step: its rounds, or its answers.

    Examples
    --------
    >>> times_in_words({"rounds": 3, "steps": 12, "sampling": 0.1})
    '3 rounds'
    >>> times_in_words({"rounds": 1, "steps": 1, "sampling": 1.0})
    '1 answer'
    """
    many = kind["rounds"]
    what = "answer" if kind["sampling"] == 1 and kind["steps"] == many else "round"
    return f"{many:,} {what}{'s' * (many != 1)}"


def describe_account(account: dict[str, Any], delta: float, *, enforced: bool) -> str:
    """Return the sentences about a dataset's account.

    Examples
    --------
    >>> account = {"dataset": "wine", "budget": 3.0, "spent": 1.2, "rounds-remaining": 9, "runs": [{"run": "a"}]}
    >>> describe_account(account | {"unprotected-updates": 0}, 1e-5, enforced=True)
    'wine: epsilon 1.2 of 3 is spent at delta 1e-05, by 1 run. There is room for about 9 more rounds like the last one.'
    >>> nothing = {"spent": 0.0, "rounds-remaining": None, "runs": []}
    >>> print(describe_account(account | nothing | {"unprotected-updates": 2}, 1e-5, enforced=True))
    wine: epsilon 0 of 3 is spent at delta 1e-05. This counts protected updates only. 2 updates left without noise, \
so no epsilon bounds what all of them reveal.
    """
    name = account["dataset"]
    unprotected = account["unprotected-updates"]
    sentences = _describe_spent(account, delta, enforced=enforced)
    if unprotected:
        sentences.append(render("budget.account.protected-only"))
    sentences += describe_shared(name, account.get("account", ()), unprotected)
    if account["spent"] is None:
        return " ".join(sentences)
    if account.get("moved"):
        sentences.append(render("budget.account.moved"))
    else:
        sentences += _describe_sides(name, account["runs"])
    again = account.get("drawn-again", 0)
    if again:
        rounds = "1 round was" if again == 1 else f"{again:,} rounds were"
        sentences.append(render("budget.account.charged-again", rounds=rounds))
    if account["budget"] is not None and not enforced:
        sentences.append(render("budget.account.not-enforced"))
    return " ".join(sentences)


def _describe_spent(account: dict[str, Any], delta: float, *, enforced: bool) -> list[str]:
    """Return what is spent of a dataset's budget, and how many more releases fit, a sentence each."""
    runs = len({one["run"] for one in account["runs"]})
    by = render("budget.account.by-runs", runs=counted(runs, "run")) if runs else ""
    facts = {"dataset": account["dataset"], "runs": by}
    budget = account["budget"]
    if account["spent"] is None:
        reason = render("budget.account.rows-of-persons")
        if budget is None:
            return [render("budget.account.unbounded", reason=reason, **facts)]
        spent = render("budget.account.unbounded-of-budget", budget=budget, reason=reason, **facts)
        return [spent, render("budget.account.none-fits", kind="round")] if enforced else [spent]
    epsilon = shown(account["spent"])
    if account.get("excludes-encoder"):
        epsilon = render("budget.run.given-encoder", epsilon=epsilon)
    if budget is None:
        return [render("budget.account.spent-without-budget", spent=epsilon, delta=delta, **facts)]
    spent = render("budget.account.spent", spent=epsilon, budget=budget, delta=delta, **facts)
    return [spent, *_describe_fitting(account["rounds-remaining"], account.get("last") or "round")]


def _describe_fitting(left: int | None, kind: str) -> list[str]:
    """Return how many more releases like the last one fit; nothing where that is not known."""
    if left is None:
        return []
    # Beyond a large number the exact count says nothing to a person.
    if left >= MOST_ROUNDS:
        return [render("budget.account.many-fit", count=counted(MOST_ROUNDS, kind))]
    if left:
        return [render("budget.account.some-fit", count=counted(left, f"more {kind}"))]
    return [render("budget.account.none-fits", kind=kind)]


def _describe_sides(dataset: str, runs: Collection[dict[str, Any]]) -> list[str]:
    """Return a sentence on runs that were charged to one side alone; nothing where no run of the dataset was.

    Examples
    --------
    >>> _describe_sides("heart", [{"dataset": "heart", "side": "holdout"}, {"dataset": "heart"}])
    ['Some runs were charged only to people held out: the figures are those of the side that spent more.']
    """
    sides = {run.get("side") for run in runs if run.get("dataset") == dataset}
    people = [f"only to people {PEOPLE[side]}" for side in SIDES if side in sides]
    if not people:
        return []
    return [render("budget.account.sides", people=", some ".join(people))]


def describe_shared(dataset: str, account: Collection[str], unprotected: int) -> list[str]:
    """Return which datasets share an account, and how many updates no epsilon bounds, a sentence each.

    Examples
    --------
    >>> describe_shared("heart-flamby", ["heart-disease", "heart-flamby"], 0)
    ["Its rows are those of 'heart-disease', so that both have one account."]
    """
    sentences = []
    others = [repr(name) for name in account if name != dataset]
    if others:
        together = "both" if len(others) == 1 else "all"
        sentences.append(render("budget.account.one-account", others=", ".join(others), together=together))
    if unprotected:
        sentences.append(render("budget.account.unprotected", updates=counted(unprotected, "update")))
    return sentences
