"""Privacy guarantee of a study before its approval: protection, worst case, and what is not guaranteed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flfed.federation.client.account import shown as shown_epsilon
from flfed.federation.client.protection import colluding_epsilon, excludes_encoder, is_charged
from flfed.records.reports.privacy import DRAWN_ONCE, describe_encoder_condition
from flfed.study.study import Study
from flfed.updates.mechanism import mechanism_of
from flfed.words import render


@dataclass(frozen=True)
class Guarantee:
    """What a study promises about a site's rows.

    Attributes
    ----------
    key : str
        In the tables `privacy`, `protection` and `worst` of words/approval.toml.
    facts : mapping of str to object
        What stands in these templates.
    notes : tuple of str
        Sentences that follow the paragraph on privacy.
    updates_have_noise : bool
        Whether whoever sees an update sees it with noise.
    excludes_encoder : bool
        Whether the promise leaves out the means and deviations of the encoder.
    """

    key: str
    facts: Mapping[str, object]
    notes: tuple[str, ...] = ()
    updates_have_noise: bool = False
    excludes_encoder: bool = False

    def paragraph(self) -> str:
        """Return the whole promise."""
        return " ".join([render(f"approval.privacy.{self.key}", **self.facts), *self.notes])

    def protection(self) -> str:
        """Return how the releases are protected, in a line."""
        return render(f"approval.protection.{self.key}", **self.facts)

    def worst_case(self) -> str:
        """Return the worst that can happen, in a line."""
        return render(f"approval.worst.{self.key}", **self.facts)


def guarantee_of(study: Study, without_noise: str, pinned: int) -> Guarantee:
    """Return the privacy guarantee of a study.

    Parameters
    ----------
    study : Study
    without_noise : str
        Key of the guarantee of updates without noise.
    pinned : int
        Sites whose updates are added up under secure aggregation; 0 without it.
    """
    sums = {"name": study.privacy.name, "n": pinned}
    mechanism = mechanism_of(study)
    if mechanism is None:
        return Guarantee(without_noise, sums)
    promise = mechanism.promise(study.plan, study.rounds)
    charged = is_charged(study)
    # Against a server with which a third of the sites collude; None where sites add no noise.
    colluding = mechanism.colluding(study.rounds, pinned, max(1, pinned // 3)) if pinned else None
    if promise is not None and study.is_vertical:
        of_labels = {"epsilon": shown_epsilon(promise.epsilon), "delta": promise.delta, "norm": promise.clip}
        return Guarantee("vertical-labels", of_labels)
    # A mechanism that charges nothing to the account adds no noise: its text must not sound as if it did.
    if promise is None or not (charged or colluding is not None):
        return Guarantee("no-noise", sums, (render(f"approval.privacy.{without_noise}", **sums),))
    facts = {
        **sums,
        "unit": promise.unit,
        "epsilon": shown_epsilon(promise.epsilon),
        "delta": promise.delta,
        "rounds": study.rounds,
    }
    given = excludes_encoder(study)
    given_encoder = (describe_encoder_condition(promise.unit),) if given else ()
    if colluding is not None:
        of_sites = {**facts, "colluding": shown_epsilon(colluding)}
        return Guarantee("noise-of-sites", of_sites, given_encoder, True, given)
    if charged and study.analysis is not None:
        return _guarantee_of_analysis(facts, study, pinned)
    if not study.covers_model:
        facts["sums"] = render("approval.protection.sums", **facts) if pinned else ""
        return Guarantee("noise", facts, (DRAWN_ONCE, *given_encoder), True, given)
    return Guarantee("covered", facts, (DRAWN_ONCE,), True)


def _guarantee_of_analysis(facts: Mapping[str, object], study: Study, pinned: int) -> Guarantee:
    """Return the guarantee of one answer with noise, alone or in a sum."""
    if not pinned:
        return Guarantee("analysis", facts, updates_have_noise=True)
    colluding = shown_epsilon(colluding_epsilon(study, pinned))
    return Guarantee("analysis-summed", {**facts, "colluding": colluding}, updates_have_noise=True)


def describe_knowledge(study: Study, pinned: int) -> str:
    """Return what a coordinator learns that follows the protocol, asks again, or crafts its models."""
    if study.is_vertical:
        return render("approval.vertical.learnt")
    mechanism = mechanism_of(study)
    if mechanism is not None and mechanism.charged(study.plan, study.rounds) is not None:
        updates = render("approval.learnt.noised")
    elif pinned:
        updates = render("approval.learnt.of-sums")
    else:
        updates = render("approval.learnt.plain")
    return render("approval.learnt.learnt", updates=updates)
