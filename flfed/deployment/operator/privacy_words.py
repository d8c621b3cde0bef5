"""Privacy guarantee of a study in plain words, before its approval: also what is not guaranteed."""

from __future__ import annotations

from flfed.federation.client.privacy_budget import shown as shown_epsilon
from flfed.federation.client.protection import charge_of
from flfed.records.reports.privacy import describe_encoder_condition
from flfed.records.statistics.privacy_odds import DRAWN_ONCE
from flfed.study.study import Study, compares_privately, covers_model
from flfed.updates.masking.rules import threshold
from flfed.updates.mechanism import Mechanism, mechanism_of
from flfed.words import sentences


def privacy_in_words(study: Study, guarantee: str, pinned: int) -> str:
    """Return the privacy guarantee of a study.

    Whoever reads it shall also know what is not guaranteed.

    Parameters
    ----------
    study : Study
    guarantee : str
        Key of what is said of updates without noise.
    pinned : int
        Sites whose updates are added up in secret; 0 where they are not.
    """
    words = sentences("approval", "privacy")
    alone = words[guarantee]
    name = study.privacy.name
    mechanism = mechanism_of(study)
    if mechanism is None:
        return alone
    promise = mechanism.promise(study.plan, study.rounds)
    least = threshold(pinned)
    colluding = _colluding_epsilon(mechanism, study, pinned)
    if promise is not None and colluding is not None:
        noised = words["noise-of-sites"].format(
            name=name,
            least=least,
            epsilon=shown_epsilon(promise.epsilon),
            delta=promise.delta,
            rounds=study.rounds,
            colluding=shown_epsilon(colluding),
        )
        return _with_encoder(study, noised, promise.unit)
    # A mechanism that charges nothing to the account adds no noise: its text must not sound as if it did.
    charge = charge_of(study)
    if promise is None or charge is None:
        return words["no-noise"].format(name=name, alone=alone)
    facts = {"name": name, "unit": promise.unit, "epsilon": shown_epsilon(promise.epsilon), "delta": promise.delta}
    if study.analysis is not None:
        if not pinned:
            return words["analysis"].format(**facts)
        of_counts = charge.colluding_epsilon(least, pinned)
        return words["analysis-summed"].format(colluding=shown_epsilon(of_counts), **facts)
    if not covers_model(study):
        noise = words["noise"].format(rounds=study.rounds, **facts)
        return _with_encoder(study, f"{noise} {DRAWN_ONCE}", promise.unit)
    compared = ""
    others = ""
    if compares_privately(study):
        compared = words["covered-own"].format(**facts)
        others = "other "
    return f"{words['covered'].format(compared=compared, others=others, **facts)} {DRAWN_ONCE}"


def _colluding_epsilon(mechanism: Mechanism, study: Study, pinned: int) -> float | None:
    """Return the ε against a server with which a third of the sites collude; None where sites add no noise."""
    if not pinned:
        return None
    return mechanism.colluding(study.rounds, threshold(pinned), max(1, pinned // 3))


def _with_encoder(study: Study, text: str, unit: str) -> str:
    """Return a promise with what it takes the encoder for, where the encoder is made of rows."""
    if study.encode.scaler == "schema":
        return text
    return f"{text} {describe_encoder_condition(unit)}"
