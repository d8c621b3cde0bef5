"""What a study promises of privacy before it is run, in the words of a run's record."""

from __future__ import annotations

import tomllib
from typing import Any

from flfed.apps.protecting import given_encoder
from flfed.study import Study
from flfed.updates.mechanism import Mechanism, mechanism_of

KEYS = ("unit", "epsilon", "delta", "noise", "sampling", "clip", "steps")
GIVEN = "given-encoder"
"""Whether the promise leaves out what a row moves through the encoder; null where nothing is promised."""
INSTEAD = {
    "batch": "[privacy] sampling says which rows take part in a step",
    "epochs": "[plan] steps says how many steps a round has",
}
"""Keys of the plan that protected training has no use for, with what stands in their place."""


def promised(study: Study, sites: int) -> dict[str, Any]:
    """Return the object `privacy` of `flfed study check --json`; it reads no table.

    Parameters
    ----------
    study : Study
        Checked, so that its mechanism has noise that is enough.
    sites : int
        How many would take part.

    Returns
    -------
    privacy : dict
        "mechanism", `KEYS` and `GIVEN` (null where nothing is promised), "warnings", "uncharged" and "notes" (lists of
        sentences), and as of a run's report "noise-from", "repeats" and "reason".

    Raises
    ------
    UsageError
        Where so few sites take part that the promise would mean nothing.

    Guarantee: none of its own. The promise is the mechanism's, of the whole run as it is planned.
    """
    return {
        **facts_of(study, sites),
        "notes": ignored(study),
        "noise-from": None,
        "repeats": 1,
        "reason": "",
    }


def facts_of(study: Study, sites: int) -> dict[str, Any]:
    """Return what is known of a run's privacy before its first round, as its record says it too.

    Parameters
    ----------
    study : Study
    sites : int
        How many take part.

    Returns
    -------
    facts : dict
        "mechanism", `KEYS`, `GIVEN`, "warnings" and "uncharged".

    Raises
    ------
    UsageError
        Where so few sites take part that the promise would mean nothing.
    """
    found = mechanism_of(study) or Mechanism()
    found.check_sites(sites)
    promise = found.promise(study.plan, study.rounds)
    steps = found.private_steps(study.plan, study.rounds)
    facts: dict[str, Any] = dict.fromkeys((*KEYS, GIVEN))
    if steps is not None:
        facts |= {key: getattr(steps, key) for key in ("unit", "noise", "sampling", "clip")}
        facts["steps"] = study.plan.steps * study.rounds
    if promise is not None:
        facts |= {key: getattr(promise, key) for key in KEYS} | {GIVEN: given_encoder(study)}
    said = {"warnings": [*found.warnings(study, sites)], "uncharged": [*found.uncharged(study)]}
    return {"mechanism": study.privacy.name, **facts, **said}


def ignored(study: Study) -> list[str]:
    """Return a sentence for each key of the study's text that protected training ignores; none of other training."""
    mechanism = mechanism_of(study)
    if mechanism is None or mechanism.private_steps(study.plan, study.rounds) is None:
        return []
    plan = tomllib.loads(study.text).get("plan", {})
    return [f"plan.{key}={plan[key]} is not used: {instead}." for key, instead in INSTEAD.items() if key in plan]
