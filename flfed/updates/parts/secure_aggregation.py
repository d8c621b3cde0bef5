"""Secure aggregation, by masks or by homomorphic encryption."""

from __future__ import annotations

from flfed.errors import UsageError, require_extra
from flfed.study.tables import TREES, in_sums_only
from flfed.updates.codec import download_of, entries_of
from flfed.updates.masking.ckks import MOST_ENTRIES, range_refusal
from flfed.updates.masking.encrypted_model import vector_entries
from flfed.updates.masking.rules import LEAST
from flfed.updates.mechanism import Mechanism
from flfed.updates.parts.part import Exclusion, Part, StudyFacts
from flfed.updates.strategies.fedavg import FedAvg

_CKKS = "[privacy] secure-aggregation='ckks'"


def _needs_updates(facts: StudyFacts) -> bool:
    kind = type(facts.strategy)
    return not (kind.sums and kind.aggregate_train is FedAvg.aggregate_train)


def _mechanism(facts: StudyFacts) -> type[Mechanism]:
    return Mechanism if facts.mechanism is None else type(facts.mechanism)


def _noise_of_sites(facts: StudyFacts) -> bool:
    """Tell whether the mechanism's noise is added by the sites under secure sums, and by the server else."""
    kind = _mechanism(facts)
    return kind.merged is not Mechanism.merged and kind.site_noise is not Mechanism.site_noise


class SecureAggregation(Part):
    """Sums of updates of which the server sees no single one."""

    title = "[privacy] secure-aggregation"
    exclusions = (
        Exclusion(
            other="a strategy that looks at single updates",
            applies=_needs_updates,
            sentence="[strategy] {strategy}: looks at the sites' own updates, of which the server has none under "
            "[privacy] secure-aggregation: leave one of them out",
        ),
        Exclusion(
            other="a mechanism that changes single updates at the server",
            applies=lambda facts: (
                _mechanism(facts).merged is not Mechanism.merged
                and _mechanism(facts).site_noise is Mechanism.site_noise
            ),
            sentence="[privacy] {mechanism}: changes the sites' own updates at the server, which has none of them "
            "under secure-aggregation: leave one of them out",
        ),
        Exclusion(
            other="noise of the sites, under 'ckks'",
            applies=lambda facts: _noise_of_sites(facts) and facts.study.secure_aggregation == "ckks",
            sentence="[privacy]: sites add the noise of {mechanism} under secure-aggregation='on' only, not under "
            "'ckks'",
        ),
        Exclusion(
            other="noise of the sites, under 'auto'",
            applies=lambda facts: _noise_of_sites(facts) and facts.study.secure_aggregation == "auto",
            sentence="[privacy]: secure-aggregation='auto' leaves open who adds the noise of {mechanism}, and with it "
            "what it promises: set 'on' (the sites, and the server need not be trusted) or 'off' (the server)",
        ),
    )

    def is_asked(self, facts: StudyFacts) -> bool:
        """Tell whether a study has sums of models; trees have sums of their own."""
        return facts.study.secure_aggregation != "off" and facts.study.strategy.name != TREES


class EncryptedModels(Part):
    """Models that stand encrypted at the server."""

    title = "[privacy] secure-aggregation = 'ckks'"
    exclusions = (
        Exclusion(
            other="a strategy that does more than average",
            applies=lambda facts: type(facts.strategy).combine is not FedAvg.combine,
            sentence="[strategy] {strategy}: makes the next model of the one before and the mean update, and under "
            f"{_CKKS} the server has neither: take one that averages",
        ),
        Exclusion(
            other="[codec]: download",
            applies=lambda facts: download_of(facts.study) is not None,
            sentence=f"[codec]: download packs a model, and under {_CKKS} it is encrypted: leave one of them out",
        ),
        Exclusion(
            other="[compare]: share-metrics = 'aggregate-only'",
            applies=lambda facts: in_sums_only(facts.study.compare.share_metrics),
            sentence=f"[compare]: share-metrics='aggregate-only' needs sums under masks, and {_CKKS} has none",
        ),
        Exclusion(
            other="more than 199,999 parameters",
            applies=lambda facts: vector_entries(entries_of(facts.shapes)) > MOST_ENTRIES,
            sentence=f"[model]: {{entries}} parameters are too many under {_CKKS}: at most 199,999 are encrypted",
        ),
    )

    def is_asked(self, facts: StudyFacts) -> bool:
        """Tell whether a study asks for it; trees have no model that could be encrypted."""
        return facts.study.secure_aggregation == "ckks" and facts.study.strategy.name != TREES

    def check(self, facts: StudyFacts) -> None:
        """Refuse what a server cannot do with encrypted models, and a range that the encryption has not.

        Raises
        ------
        UsageError
            For the first such thing, or where the package for it is not installed.
        """
        if not self.is_asked(facts):
            return
        require_extra("tenseal", "secure-aggregation = 'ckks'", "he")
        super().check(facts)
        refused = range_refusal(LEAST, facts.study.largest_entry)
        if refused:
            raise UsageError(f"[privacy]: largest-entry: {refused}")
