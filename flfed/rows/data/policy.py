"""Policies of the sites.

What a site allows stands in `policy.toml` beside its `__init__.py`, and no study can loosen it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from flfed import registry
from flfed.errors import nearest
from flfed.refusals import Refusal
from flfed.rows.data.schema import Strict
from flfed.study.tables import Sharing, in_sums_only, strictest

if TYPE_CHECKING:
    from flfed.study.study import Study

Output = Literal["score-histogram", "complete-rows", "training-figures", "single-cells-in-sums"]
RoundFigures = Literal["exact", "rounded", "none"]
"""How the figures of a round leave a site."""


class Policy(Strict):
    """What a site allows; `policy.toml` beside its `__init__.py`.

    Attributes
    ----------
    format : {1}
        Version of the file's format.
    disclosure : {"institution", "open"}
        `institution`: no cell under `cell_minimum` leaves. `open`: public data, everything exact.
    cell_minimum : int
        Smallest count that leaves under `institution`. Example: `cell-minimum = 5`.
    resplit : bool
        Whether repeats may draw another holdout; under `open` only. Sums over two splits of the
        same rows, each with its small cells left out, give one another's away.
    share_metrics : {"named", "pseudonym", "aggregate-only"}
        How the site's own figures may be shown to others, at most: under its name, under a pseudonym,
        or in sums over sites only. A study may be stricter.
    outputs : tuple of str
        Outputs allowed besides the usual ones: "score-histogram"; "complete-rows" lets a study
        leave out the rows with a missing feature, and say how many are left; "training-figures" lets losses and metrics
        leave each round, with three digits, where they else stay: over rows that noise protects in the updates
        (record-level differential privacy), and over all rows where updates are added up in secret;
        "single-cells-in-sums" lets cells of few rows into secure sums, from which boosted trees grow.
        Example: `outputs = ["score-histogram"]`.
    strategies, models, codecs, mechanisms : tuple of str or None
        Names that a study may ask for; None allows what flfed itself ships. What another package
        brings must be named. Of codecs and mechanisms "none" is one: where they are named without it, a study
        must ask for one of them; of mechanisms on every engine. Examples: `strategies = ["fedavg"]`,
        `models = ["logistic"]`, `codecs = ["none"]`, `mechanisms = ["record-dp"]`.
    epsilon : float or None, > 0
        Budget of differential privacy of each dataset at this site: what all studies together, over
        all years, may spend by the site's ledger. None: no budget, the ledger only says what was spent.
        Under `institution` a study without record-level differential privacy is then refused, since
        nothing bounds what it tells; `open` records and never refuses. Example: `epsilon = 8.0`.
    delta : float in (0, 0.1)
        At which the budget is counted; under `institution` the largest that a study may have, too.
        Example: `delta = 1e-6`.
    queries : int, >= 1
        Most runs, each repeat and each study one, that have sums over one set of rows. Example: `queries = 20`.
    audits : bool
        Whether `flfed audit` may attack, with this site's rows, a model that it judged in a run: the
        figures leave, under the cell minimum as those of the comparison do, on every engine.
    minimum_cohort : int or None, >= 2
        Fewest sites of a run, this one counted. None asks for 3 under `institution`: of two, each
        can take its own update off the sum and has the other's. Under `open` it asks for 2.
        Example: `minimum-cohort = 4`.
    co_sites : tuple of str
        The only sites that this one computes with; empty leaves it to each study's approval.
        Example: `co-sites = ["hungary", "switzerland"]`.
    rounds : int
        Most rounds that a study may have. Example: `rounds = 100`.
    runs : int, >= 1
        Most runs of one study, by its very text, that get updates, or figures of a model: evaluation,
        comparison, audit. Each repeat is a run, under whatever name. By the site's ledger: a run that
        had an answer goes on. Each is evaluated and compared with one model. Example: `runs = 3`.
    compared_runs : int, >= 1
        Most models of a dataset whose figures over test rows leave under `institution`: of all coordinators, studies
        and runs together, each repeat one. The same model again counts none, and a snapshot counts anew where at least
        half of the people in its test rows are new. `flfed site approve --compared N` adds some; the site's own app has
        the figures of every run. Example: `compared-runs = 5`.
    later_figures : {"none", "noised"}
        What leaves of a model beyond `compared_runs`: nothing, or of a binary outcome AUC, log loss and Brier score of
        the shared model, with noise. These cost ε = 1 a model, on the account of the test rows, so that it needs
        `epsilon`. Example: `later-figures = "noised"`.
    daily_bytes : int
        Most bytes of replies that leave in a day (UTC), all studies together. Example: `daily-bytes = 5000000`.
    width : float in (0, 1]
        Share of a network's hidden units that the site trains in a round, for a machine that cannot train them all:
        the first of each hidden layer, rounded down. For the others it counts, with its rows, as having changed
        nothing. A model without hidden units is trained whole. Example: `width = 0.5`.
    approval : {"person", "none"}
        `none` answers a study that nobody approved, under `open` only; one that was refused or
        withdrawn stays so.

    Notes
    -----
    `disclosure` to `outputs` hold on every engine, and so do `mechanisms` that are named, `epsilon` to
    `audits`, and `width`. The other keys from `strategies` on are the gate's: they hold in a deployment, where a study
    comes from elsewhere; who runs all sites in one process has all their tables anyway.
    """

    format: Literal[1] = 1
    disclosure: Literal["institution", "open"] = "institution"
    cell_minimum: int = Field(default=10, ge=3)
    resplit: bool = False
    share_metrics: Sharing = "named"
    outputs: tuple[Output, ...] = ()
    strategies: tuple[str, ...] | None = None
    models: tuple[str, ...] | None = None
    codecs: tuple[str, ...] | None = None
    mechanisms: tuple[str, ...] | None = None
    epsilon: float | None = Field(default=None, gt=0, allow_inf_nan=False, strict=True)
    delta: float = Field(default=1e-5, gt=0, lt=0.1, strict=True)
    queries: int = Field(default=100, ge=1)
    audits: bool = True
    minimum_cohort: int | None = Field(default=None, ge=2)
    co_sites: tuple[Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")], ...] = ()
    rounds: int = Field(default=1000, ge=1)
    runs: int = Field(default=10, ge=1)
    compared_runs: int = Field(default=10, ge=1)
    later_figures: Literal["none", "noised"] = "none"
    daily_bytes: int = Field(default=20_000_000, ge=1)
    width: float = Field(default=1.0, gt=0, le=1, strict=True)
    approval: Literal["person", "none"] = "person"

    @model_validator(mode="after")
    # What only public data may do is refused when the file is read, not when a study asks.
    def _available(self) -> Self:
        if self.resplit and self.disclosure != "open":
            raise ValueError("resplit = true needs disclosure = 'open': two splits give small counts away")
        if self.approval == "none" and self.disclosure != "open":
            raise ValueError("approval = 'none' needs disclosure = 'open': a person must approve what reads patients")
        if self.later_figures == "noised" and self.epsilon is None:
            raise ValueError("later-figures = 'noised' needs epsilon: without a budget the noise could be averaged out")
        _check_names(self)
        return self

    def least_cohort(self) -> int:
        """Return the fewest sites of a run, this one counted."""
        fewest = 2 if self.disclosure == "open" else 3
        return self.minimum_cohort or fewest

    def not_allowed(self, *, strategy: str, model: str, codec: str, mechanism: str, rounds: int) -> Refusal | None:
        """Return why a study's settings are not allowed.

        It is None where they are.

        Examples
        --------
        >>> asked = {"model": "logistic", "codec": "none", "mechanism": "none", "rounds": 5}
        >>> Policy(strategies=("fedavg",)).not_allowed(strategy="fedprox", **asked)
        "its policy allows strategies fedavg, the study asks for 'fedprox'"
        """
        for kind, word, allowed, setting in (
            ("strategy", "strategies", self.strategies, strategy),
            ("model", "models", self.models, model),
            ("codec", "codecs", self.codecs, codec),
            ("mechanism", "mechanisms", self.mechanisms, mechanism),
        ):
            # Without a list of names the policy allows what flfed ships, and nothing of other packages.
            shipped = [name for name in registry.names(kind) if name not in registry.others(kind)]
            choices = _with_none(kind, shipped) if allowed is None else allowed
            if setting not in choices:
                return _not_allowed(word, choices, setting)
        if rounds > self.rounds:
            return Refusal("too-many-rounds", most=self.rounds, rounds=rounds)
        return None

    def privacy_refusal(self, *, mechanism: str, delta: float | None) -> Refusal | None:
        """Return why a study's protection is refused.

        It is None where it is not. A budget that is spent is no matter of policy.

        Parameters
        ----------
        mechanism : str
        delta : float or None
            Of the record-level differential privacy that the study has; None where it has none.

        Examples
        --------
        >>> Policy().privacy_refusal(mechanism="record-dp", delta=0.001)
        'its policy allows delta up to 1e-05, the study asks for 0.001'
        """
        if self.mechanisms is not None and mechanism not in self.mechanisms:
            return _not_allowed("mechanisms", self.mechanisms, mechanism)
        if self.disclosure == "open":
            return None
        # With a budget set, a study without a guarantee would spend without bound.
        if self.epsilon is not None and delta is None:
            return Refusal("privacy-needed", mechanism=mechanism)
        if delta is not None and delta > self.delta:
            return Refusal("delta-too-large", most=f"{self.delta:g}", delta=f"{delta:g}")
        return None

    def least_rows(self) -> int:
        """Return the fewest rows of any part of the table that may be used."""
        return 1 if self.disclosure == "open" else self.cell_minimum

    def allows(self, output: str) -> bool:
        """Tell whether an optional output may leave.

        It is one that not every site gives.
        """
        return self.disclosure == "open" or output in self.outputs

    def refusal(self, *, complete: bool, published: bool) -> Refusal | None:
        """Return why a study's choice of rows is refused.

        It is None where it is not.

        Parameters
        ----------
        complete : bool
            The study leaves out rows with a missing feature. Under `institution` the policy must
            name it: how many rows are left, in studies on other features, says who has a gap.
        published : bool
            The study brings a split of its own.
        """
        if published and not self.resplit:
            return Refusal("own-holdout")
        if complete and not self.allows("complete-rows"):
            return Refusal("complete-rows")
        return None

    def trees_refusal(self, *, summed: bool, least: int) -> Refusal | None:
        """Return why a study's trees are refused.

        Under `institution` they grow only in secure sums with a least number of rows, of which single ones may be told.

        Parameters
        ----------
        summed : bool
            The study asks for secure sums.
        least : int
            Fewest rows of a code and of a leaf.
        """
        if self.disclosure == "open" or (summed and least and self.allows("single-cells-in-sums")):
            return None
        return Refusal("trees-single-rows")

    def round_figures(self, *, summed: bool) -> RoundFigures:
        """Return how the figures of a round leave: losses and metrics over training, validation and holdout rows.

        A coordinator that chooses the models reads single rows from exact ones, whatever hides the updates: where
        these are `summed` in secret, an `institution` keeps them, unless it allows them with three digits.
        """
        if not summed or self.disclosure == "open":
            return "exact"
        return "rounded" if self.allows("training-figures") else "none"

    def sharing(self, study: Study) -> Sharing:
        """Return how the site's figures are written down, by what a study asks and by this policy."""
        return strictest(study.compare.share_metrics, self.share_metrics)

    def shares_in_sums_only(self, study: Study) -> bool:
        """Tell whether the site's figures leave in sums only, by what a study asks and by this policy."""
        return in_sums_only(self.sharing(study))

    def statistic_refusal(self, *, summed: bool) -> Refusal | None:
        """Return why a statistic's sums, which are exact, are refused; `summed` in secret they are those of all sites.

        Under `institution` they leave only in secure sums of which single ones may be told.
        """
        reserved = in_sums_only(self.share_metrics) and not summed
        if not reserved and (self.disclosure == "open" or (summed and self.allows("single-cells-in-sums"))):
            return None
        return Refusal("statistic-exact")

    def analysis_refusal(self, *, summed: bool) -> Refusal | None:
        """Return why an analysis, whose answer has noise and is the site's own unless `summed`, is refused."""
        return Refusal("analysis-own") if in_sums_only(self.share_metrics) and not summed else None


def _not_allowed(kind: str, allowed: Sequence[str], setting: str) -> Refusal:
    return Refusal("not-allowed", kind=kind, allowed=", ".join(allowed) or "none at all", asked=setting)


def _check_names(policy: Policy) -> None:
    """Raise ValueError for a name that is not known: misspelt it would allow nothing, and nobody would know why."""
    named = {
        "strategy": policy.strategies, "model": policy.models, "codec": policy.codecs,
        "mechanism": policy.mechanisms,
    }  # fmt: skip
    for kind, allowed in named.items():
        for name in allowed or ():
            choices = _with_none(kind, registry.names(kind))
            if name not in choices:
                raise ValueError(f"{kind} {name!r} is not known{nearest(name, choices)} Known: {', '.join(choices)}")


def width_in_words(width: float) -> str:
    """Describe the part of a model that a site trains.

    Examples
    --------
    >>> width_in_words(0.5).partition(",")[0]
    'trains the first 0.5 of the units of each hidden layer (width)'
    """
    return (
        f"trains the first {width:g} of the units of each hidden layer (width), and counts as having changed nothing "
        "for the others"
    )


def _with_none(kind: str, names: list[str]) -> list[str]:
    """Return the names of a kind, with "none" first.

    "none" is there only where a study may ask for nothing of the kind.
    """
    return ["none", *names] if kind in ("codec", "mechanism") else names
