"""What a study's privacy guarantee covers: the updates alone, or all that leaves a site."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flfed.study.study import Study


def is_covered(study: Study) -> bool:
    """Tell whether all that leaves a site is charged: of an analysis, and where [privacy] covers the study."""
    return study.analysis is not None or covers_model(study)


def compares_privately(study: Study) -> bool:
    """Tell whether sites of such a study compare the model with their own under noise."""
    return bool(study.privacy.settings.get("comparison", "none") != "none")


def by_person(study: Study) -> bool:
    """Tell whether a study protects persons, whose rows weigh one together."""
    return bool(study.privacy.settings.get("unit", "person") == "person")


def covers_model(study: Study) -> bool:
    """Tell whether a study trains a model, and all that leaves a site for it is charged."""
    return study.analysis is None and study.privacy.settings.get("covers") == "study"


def staying(study: Study) -> tuple[str, ...]:
    """Return what does not leave a site where all that leaves is charged, as no ε is charged for it.

    Examples
    --------
    >>> from flfed import Study
    >>> staying(Study.load("breast-cancer"))
    ()
    """
    if not covers_model(study):
        return ()
    compared = compares_privately(study)
    return (
        "how many rows it has, but for a noised count",
        "losses and metrics of rounds",
        "Table 1, missing values and warnings of columns that give the answer away",
        "figures of its own model, and by how much the shared one differs from them"
        + (", but for pairs won of an own model trained under noise" if compared else ""),
        "the shared model adjusted to its rows",
        "exact counts of scores, of groups and at thresholds, importances of columns",
        "what an audit reaches",
    )
