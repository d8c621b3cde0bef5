"""Policies of the sites.

The permissions of a site are in `policy.toml` beside its `__init__.py`, and no study can loosen them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from flfed import registry
from flfed.errors import unknown
from flfed.refusals import Refusal
from flfed.rows.data.schema import Strict
from flfed.study.tables import LEAST_COHORT, Share
from flfed.words import render

if TYPE_CHECKING:
    from flfed.study.study import Study

SiteName = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
Output = Literal["score-histogram", "complete-rows", "training-figures", "single-cells-in-sums", "row-aligned"]
_LISTS = {"strategy": "strategies", "model": "models", "codec": "codecs", "mechanism": "mechanisms"}
"""The policy's list of allowed names, by kind."""


class Policy(Strict):
    """Permissions of a site: `policy.toml` beside its `__init__.py`.

    Attributes
    ----------
    format : {1}
        Version of the file's format.
    disclosure : {"institution", "open"}
        `institution`: no cell under `cell_minimum` is released. `open`: public data, everything exact.
    cell_minimum : int
        Smallest count that is released under `institution`. Example: `cell-minimum = 5`.
    resplit : bool
        Whether repeats may draw another holdout; under `open` only. Sums over two splits of the
        same rows reveal each other's suppressed small cells.
    share : {"named", "sum"}
        `sum`: the site takes no part in a study that records figures of single sites (`[compare] share = "named"`).
        Example: `share = "sum"`.
    outputs : tuple of str
        Outputs allowed besides the usual ones: "score-histogram"; "complete-rows" lets a study
        leave out the rows with a missing feature, and report how many are left; "training-figures" releases losses and
        metrics each round, with three digits, over rows that noise protects in the updates (record-level differential
        privacy), where they are else suppressed; "single-cells-in-sums" lets cells of few rows into secure sums: from
        these boosted trees grow, and test rows are counted by prediction;
        "row-aligned" lets rows be aligned with those of other parties, to whom the site then sends numbers by row.
        Example: `outputs = ["score-histogram"]`.
    strategies, models, codecs, mechanisms : tuple of str or None
        Names that a study may use; None allows those that flfed itself ships. Those of other packages
        must be named. Of codecs and mechanisms "none" is one: where they are named without it, a study
        must use one of them; for mechanisms this holds on every engine. Examples: `strategies = ["fedavg"]`,
        `models = ["logistic"]`, `codecs = ["none"]`, `mechanisms = ["record-dp"]`.
    epsilon : float or None, > 0
        Privacy budget of this site: the epsilon that all studies together, over all tables and all years, may spend
        of a person's privacy. None: no budget; the account only records spending.
        Under `institution` a study without record-level differential privacy is then refused, since
        nothing bounds its disclosure; `open` records and never refuses. Example: `epsilon = 8.0`.
    delta : float in (0, 0.1)
        Delta of the budget; under `institution` also the largest that a study may have.
        Example: `delta = 1e-6`.
    audits : bool
        Whether `flfed audit` may attack, with this site's rows, a model that it evaluated in a run. Its
        figures are released under the cell minimum, like those of the comparison, on every engine.
    minimum_cohort : int or None, >= 2
        Fewest sites of a run, this one counted. None requires 3 under `institution`: of two, each
        can subtract its own update from the sum and has the other's. Under `open` it requires 2.
        Example: `minimum-cohort = 4`.
    co_sites : tuple of str
        The only sites that this one computes with; empty leaves the choice to each study's approval.
        Example: `co-sites = ["hungary", "switzerland"]`.
    rounds : int
        Most rounds that a study may have. Example: `rounds = 100`.
    runs : int, >= 1
        Most runs of a dataset that have replies of its rows, over all studies and coordinators: each repeat is one,
        from its first such reply on. Runs with noise on all that they release do not count. Of each run figures over
        test rows are released for one model. `flfed site allow DATASET --runs N` adds some. Example: `runs = 3`.
    daily_bytes : int
        Most bytes of replies that are sent in a day (UTC), all studies together. Example: `daily-bytes = 5000000`.
    identifiers : int
        Most people in the table of another party that rows are aligned with. Example: `identifiers = 50_000`.
    overlap : int, >= 100
        Fewest rows in common with the other parties. Example: `overlap = 500`.
    exact_sums : tuple of str
        Sites that get sums over outcomes without noise, from which they can compute single outcomes. A study of other
        parties needs label privacy. Example: `exact-sums = ["payment-service"]`.
    width : float in (0, 1]
        Share of a network's hidden units that the site trains in a round, for a machine that cannot train them all:
        the first of each hidden layer, rounded down. With its rows, it counts as leaving the others unchanged. A model
        without hidden units is trained whole. Example: `width = 0.5`.
    approval : {"person", "none"}
        `none` replies to a study that nobody approved, under `open` only. A study that was refused or
        withdrawn remains refused.

    Notes
    -----
    `disclosure` to `outputs` hold on every engine, and so do `mechanisms` that are named, `epsilon` to
    `audits`, and `width`. The other keys from `strategies` on are the gate's: they hold in a deployment, where a study
    comes from elsewhere. A person who runs all sites in one process has all their tables anyway.

    Examples
    --------
    >>> from flfed import Policy
    >>> policy = Policy(runs=5, strategies=["fedavg"])
    >>> policy.runs, policy.cell_minimum
    (5, 10)
    """

    format: Literal[1] = 1
    disclosure: Literal["institution", "open"] = "institution"
    cell_minimum: int = Field(default=10, ge=3)
    resplit: bool = False
    share: Share = "named"
    outputs: tuple[Output, ...] = ()
    strategies: tuple[str, ...] | None = None
    models: tuple[str, ...] | None = None
    codecs: tuple[str, ...] | None = None
    mechanisms: tuple[str, ...] | None = None
    epsilon: float | None = Field(default=None, gt=0, strict=True)
    delta: float = Field(default=1e-5, gt=0, lt=0.1, strict=True)
    audits: bool = True
    minimum_cohort: int | None = Field(default=None, ge=2)
    co_sites: tuple[SiteName, ...] = ()
    rounds: int = Field(default=1000, ge=1)
    runs: int = Field(default=10, ge=1)
    daily_bytes: int = Field(default=20_000_000, ge=1)
    identifiers: int = Field(default=100_000, ge=1)
    overlap: int = Field(default=100, ge=100)
    exact_sums: tuple[SiteName, ...] = ()
    width: float = Field(default=1.0, gt=0, le=1, strict=True)
    approval: Literal["person", "none"] = "person"

    @model_validator(mode="after")
    # Permissions for public data alone are refused when the file is read, not in a study.
    def _available(self) -> Self:
        if self.resplit and not self.is_open:
            raise ValueError(render("rows.policy.resplit"))
        if self.approval == "none" and not self.is_open:
            raise ValueError(render("rows.policy.approval"))
        _check_names(self)
        return self

    @property
    def is_open(self) -> bool:
        """Whether the disclosure is "open", for public data."""
        return self.disclosure == "open"

    @property
    def enforces_budget(self) -> bool:
        """Whether a spent privacy budget refuses further releases: there is one, and the disclosure is not "open"."""
        return self.epsilon is not None and not self.is_open

    def least_cohort(self) -> int:
        """Return the fewest sites of a run, this one counted."""
        return self.minimum_cohort or LEAST_COHORT[self.disclosure]

    def not_allowed(self, *, strategy: str, model: str, codec: str, mechanism: str, rounds: int) -> Refusal | None:
        """Return the refusal of a study's settings, or None.

        Examples
        --------
        >>> asked = {"model": "logistic", "codec": "none", "mechanism": "none", "rounds": 5}
        >>> Policy(strategies=("fedavg",)).not_allowed(strategy="fedprox", **asked)
        "its policy allows strategies fedavg, the study asks for 'fedprox'"
        """
        settings = {"strategy": strategy, "model": model, "codec": codec, "mechanism": mechanism}
        for kind, word in _LISTS.items():
            allowed = getattr(self, word)
            # Without a list, the policy allows the names that flfed ships, and none of other packages.
            shipped = [name for name in registry.names(kind) if name not in registry.others(kind)]
            choices = _with_none(kind, shipped) if allowed is None else allowed
            if settings[kind] not in choices:
                return _not_allowed(word, choices, settings[kind])
        if rounds > self.rounds:
            return Refusal("too-many-rounds", most=self.rounds, rounds=rounds)
        return None

    def privacy_refusal(self, *, mechanism: str, delta: float | None) -> Refusal | None:
        """Return the refusal of a study's protection, or None.

        A spent budget is no matter of policy.

        Parameters
        ----------
        mechanism : str
        delta : float or None
            Delta of the study's record-level differential privacy; None where it has none.

        Examples
        --------
        >>> Policy().privacy_refusal(mechanism="record-dp", delta=0.001)
        'its policy allows delta up to 1e-05, the study asks for 0.001'
        """
        if self.mechanisms is not None and mechanism not in self.mechanisms:
            return _not_allowed("mechanisms", self.mechanisms, mechanism)
        if self.is_open:
            return None
        # With a budget set, a study without a guarantee would spend without bound.
        if self.epsilon is not None and delta is None:
            return Refusal("privacy-needed", mechanism=mechanism)
        if delta is not None and delta > self.delta:
            return Refusal("delta-too-large", most=f"{self.delta:g}", delta=f"{delta:g}")
        return None

    def least_rows(self) -> int:
        """Return the least number of rows in any part of the table."""
        return 1 if self.is_open else self.cell_minimum

    def allows(self, output: str) -> bool:
        """Return whether an optional output may be released."""
        return self.is_open or output in self.outputs

    def refusal(self, *, complete: bool, published: bool) -> Refusal | None:
        """Return the refusal of a study's choice of rows, or None.

        Parameters
        ----------
        complete : bool
            The study leaves out rows with a missing feature. Under `institution` the policy must
            name it: the numbers of rows left in several studies reveal who has a gap.
        published : bool
            The study brings a split of its own.
        """
        if published and not self.resplit:
            return Refusal("own-holdout")
        if complete and not self.allows("complete-rows"):
            return Refusal("complete-rows")
        return None

    def trees_refusal(self, *, summed: bool, least: int) -> Refusal | None:
        """Return the refusal of a study's trees, or None.

        Under `institution` they grow only in secure sums with a least number of rows, where the policy lets sums
        reveal single rows.

        Parameters
        ----------
        summed : bool
            The study asks for secure sums.
        least : int
            Fewest rows of a code and of a leaf.
        """
        if self.is_open or (summed and least and self.allows("single-cells-in-sums")):
            return None
        return Refusal("trees-single-rows")

    def share_refusal(self, study: Study) -> Refusal | None:
        """Return the refusal of a study that records figures of single sites, or None."""
        return Refusal("share-named") if self.share == "sum" and not study.compare.is_summed else None

    def parties_refusal(self, study: Study, others: Collection[str]) -> Refusal | None:
        """Return the refusal of a study in which this site has the outcome and others its columns, or None.

        Without noise the sums that they get must be for sites that the policy names.
        """
        if not self.allows("row-aligned"):
            return Refusal("row-aligned")
        are_named = bool(others) and {*others} <= {*self.exact_sums}
        return None if self.is_open or study.privacy.name != "none" or are_named else Refusal("exact-sums")

    def statistic_refusal(self, *, summed: bool) -> Refusal | None:
        """Return the refusal of a statistic's exact sums, or None.

        Under `institution` they are released only in secure sums (`summed`) over all sites, where the policy lets sums
        reveal single rows.
        """
        if self.is_open or (summed and self.allows("single-cells-in-sums")):
            return None
        return Refusal("statistic-exact")


def _not_allowed(kind: str, allowed: Sequence[str], setting: str) -> Refusal:
    return Refusal("not-allowed", kind=kind, allowed=", ".join(allowed) or "none at all", asked=setting)


def _check_names(policy: Policy) -> None:
    """Raise ValueError for an unknown name, since a misspelt one would silently allow nothing."""
    for kind, word in _LISTS.items():
        for name in getattr(policy, word) or ():
            choices = _with_none(kind, registry.names(kind))
            if name not in choices:
                raise ValueError(unknown(kind, name, choices))


def width_in_words(width: float) -> str:
    """Describe the part of a model that a site trains.

    Examples
    --------
    >>> width_in_words(0.5).partition(",")[0]
    'trains the first 0.5 of the units of each hidden layer (width)'
    """
    return render("rows.policy.width", width=width)


def _with_none(kind: str, names: list[str]) -> list[str]:
    """Return the names of a kind, with "none" first where a study may do without."""
    return ["none", *names] if kind in ("codec", "mechanism") else names
