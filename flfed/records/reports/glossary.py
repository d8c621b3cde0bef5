"""Glossary: what the words of pages, reports and commands mean.

docs/glossary.md has the same list, which a test compares.
"""

from __future__ import annotations

GLOSSARY = {
    "site": "An institution that takes part with rows of its own, such as a hospital or a bank.",
    "row": "One case in a site's table: a patient, a loan, a payment.",
    "test rows": "Rows of a site that no model was trained on. Every figure here is measured on them.",
    "shared model": "The model that all sites train together. No row leaves a site for it.",
    "site model": "What a site reaches with its own rows alone: the best model that it can tune on them.",
    "adjusted to the site": "The shared model, corrected with the site's own training rows.",
    "pooled": "A model of all rows in one place, for reference only: rows would have to leave the sites.",
    "gain": "The better of shared and adjusted model minus the site model. Above 0, joining helps.",
    "AUC": "How often the model ranks a row with the outcome above one without it: .5 is chance, 1 is always.",
    "95 % CI": "Confidence interval: the range that the test rows leave open for a figure, 95 times of 100.",
    "widened": "The interval of a gain is made wider where several sites are looked at: some gain by chance alone.",
    "joining pays": "The interval of the gain lies above what is worthwhile.",
    "no clear gain": "The interval leaves open that joining brings nothing, or less than what is worthwhile.",
    "do not use it here": "The interval lies below 0, beyond what is worthwhile: the site model is better.",
    "cannot be told": "Too few test rows, or too few with the outcome, to compare models at this site.",
    "calibration": "Whether predicted probabilities hold: of rows given .3, three in ten have the outcome.",
    "net benefit": "True alarms minus false ones, weighed by the threshold, for each row: what acting on alarms gains.",
    "round": "Every site trains on its rows, and the updates are averaged; of boosted trees, one tree grows from sums.",
    "update": "How a site's training changed the model. It leaves the site; rows do not.",
    "rejected update": "An update that was not averaged, as it was damaged, out of bounds or late.",
    "refused": "A site that did not take part, as its policy or its table did not allow it.",
    "secure aggregation": "Updates are masked and added up: the coordinator gets their sum, and no single update.",
    "pinned": "A site whose gate's fingerprint was read to another's people, who named it when they approved.",
    "list": "The sites that one secure sum adds up. A site opens one list for one question.",
    "repeat": "The same study once more with another seed and, on open data, other test rows.",
    "ε (epsilon)": "How much a run may tell about one person's row at most; less is more private.",
    "policy": "A site's rules on what may leave it, such as the smallest count that it gives.",
}
"""Meaning by term, in the order in which a reader meets them."""
OF_EXACT_COUNTS = ("adjusted to the site", "pooled", "net benefit")
"""Terms that only a study has whose models are compared on exact counts."""
OF_COMPARISON = (
    "site model", "gain", "widened", "joining pays", "no clear gain", "do not use it here", "cannot be told",
)  # fmt: skip
UNDER_NOISE = {
    "site model": "What a site reaches with its own rows alone, trained under the same ε as the shared model.",
    "gain": "The shared model minus the site model. Above 0, joining helps.",
    "cannot be told": "The noise, or too few test rows, leave open more than a difference of .1 at this site.",
}
"""What terms mean where the comparison has noise."""
WITHOUT_MODEL = ("site", "row", "refused", "repeat", "ε (epsilon)", "policy")
"""Terms that say something of a study which trains nothing."""


def of_noised_scores(*, compared: bool) -> dict[str, str]:
    """Return the glossary of a study of which all that leaves is charged; `compared` with own models, or not.

    Examples
    --------
    >>> "AUC" in of_noised_scores(compared=False), "gain" in of_noised_scores(compared=False)
    (True, False)
    >>> of_noised_scores(compared=True)["gain"]
    'The shared model minus the site model. Above 0, joining helps.'
    """
    left_out = {*OF_EXACT_COUNTS, *(() if compared else OF_COMPARISON)}
    return {term: UNDER_NOISE.get(term, meaning) for term, meaning in GLOSSARY.items() if term not in left_out}


def of_no_model() -> dict[str, str]:
    """Return the glossary of a study without a model.

    Examples
    --------
    >>> of_no_model()["row"]
    "One case in a site's table: a patient, a loan, a payment."
    """
    return {term: GLOSSARY[term] for term in WITHOUT_MODEL}
