"""What a study promises of a site's rows, in words before its approval."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from flfed.deployment.operator.secure_sums import Agreement
from flfed.deployment.operator.statistic_description import ANSWERED, ANSWERED_IN_SUM, ENROLLED, EXACT, IN_SECRET
from flfed.federation.client.privacy_budget import shown as shown_epsilon
from flfed.federation.client.protection import charge_of
from flfed.federation.client.statistic import colluding_epsilon
from flfed.records.reports.privacy import given_the_encoder
from flfed.records.statistics.privacy_odds import DRAWN_ONCE
from flfed.study.coverage import compares_privately, covers_model
from flfed.study.exchanges import grows
from flfed.study.statistic import is_statistic
from flfed.study.study import Study
from flfed.updates.masking.rules import threshold
from flfed.updates.mechanism import mechanism_of
from flfed.updates.messages.kinds import ENROL, SCORES, STATISTIC, TRAIN
from flfed.updates.privacy.site_dp import SiteDp

ALONE = (
    "No noise is added to what leaves, and it is not added up in secret (secure aggregation is off): the coordinator's "
    "memory holds this site's own updates. A coordinator that chooses the models it sends, instead of averaging, can "
    "compute the rows of the columns above from enough of them: approve it for one that may see these columns. "
    "On the way everything is encrypted (TLS)."
)
GROWN = (
    "No noise is added to what leaves, and it is not added up in secret (secure aggregation is off): the coordinator's "
    "memory holds this site's own sums of each tree. They tell outcomes of single rows, also to a coordinator that "
    "keeps to the rules; one that chooses the splits freely can compute the rows of the columns above, to their codes, "
    "with their outcomes: approve it for one that may see these columns. On the way everything is encrypted (TLS)."
)
"""Of sums from which trees grow."""
GROWN_OF_SUMS = (
    "No noise is added to what leaves. Sums of each tree are added up in secret, so that the coordinator's memory "
    "never holds this site's own: see Sums. Those of all sites together still tell outcomes of single rows, not of "
    "which site; a coordinator that chooses the splits freely can compute all rows, to their codes, with outcomes. "
    "All else that leaves, as said above, is of this site alone. On the way everything is encrypted (TLS)."
)
SUMMED = (
    "No noise is added to what leaves. Updates are added up in secret, so that the coordinator's memory never holds "
    "this site's own: see Sums. All else that leaves, as said above, is of this site alone. A coordinator that chooses "
    "the models it sends, instead of averaging, can compute from enough sums what they tell of the columns above. "
    "On the way everything is encrypted (TLS)."
)
ENCRYPTED = (
    "No noise is added to what leaves. Updates leave encrypted, and the coordinator has no key: see Sums. All else "
    "that leaves, as said above, is of this site alone, and the coordinator reads it: if it chooses the models that "
    "are scored, instead of averaging, it learns figures of models of its choice. On the way everything is encrypted "
    "(TLS)."
)
NOISED = (
    "Mechanism {name}: in each round this site clips its update, and adds noise of its operating system before it is "
    "added up in secret, see Sums. Of {least} sites, the fewest in a sum, the noise is enough for epsilon = {epsilon} "
    "at delta = {delta:g} over all {rounds} rounds of a run: whoever sees the sums or the models, the coordinator too, "
    "learns almost the same whether or not this site's updates were in them. That is of this site as a whole, if no "
    "other site works together with the coordinator: each knows its own noise, and if a third of them tell it, epsilon "
    "is {colluding}. Each further run spends again, and nothing of it is charged to this site's account. All else that "
    "leaves, as said above, has no noise. On the way everything is encrypted (TLS)."
)
"""Of updates that are noised at the site and added up in secret."""

NO_EXACT_COUNT = (
    "In this study no exact count leaves. Noised ones do, of however few rows: the noise stands in the place of a "
    "smallest count."
)
CELLS = (
    "counts of training rows by cell of each column, as the noise leaves them. They are drawn once, and sent again as "
    "they were."
)
UPDATE = (
    "the update, of which each step has noise, and how many rows it stands for, as the noised counts tell it. No loss "
    "and no metric."
)
COUNTS = "counts of test rows by score, and by class and score, as the noise leaves them. They are drawn once a model."
PAIRS = (
    "by how many pairs of test rows the run's model orders better than one that this site trained under the same "
    "epsilon, and how far chance may move that, as the noise leaves both numbers."
)
"""Of messages of such a study."""
COVERED = (
    "Mechanism {name}, which covers the study: the counts that the encoder is made of, each step of training, and the "
    "counts of test rows by score have noise of this machine's own generator, and what one {unit} moves of each is "
    "bounded.{compared} So whoever sees all that leaves in a run learns almost the same whether or not any one {unit} "
    "was there: epsilon {epsilon} at delta {delta:g}, all of it together, for a {unit} that is trained on and for one "
    "that is held out. The number of rows is one of the noised counts and leaves in no other form; losses, metrics, "
    "Table 1 and {others}comparisons with this site's own models do not leave. On the way everything is encrypted "
    "(TLS)."
)
"""Of a study of which all that leaves is charged."""
OWN_UNDER_NOISE = (
    " This site trains a model of its own with such steps, too, which does not leave: by how many pairs of test rows "
    "the shared model orders better leaves with noise."
)
"""Of a study that compares the shared model with the sites' own."""
NOISE = (
    "Mechanism {name}: each step takes a random part of the rows, what one {unit} adds to it is clipped, and noise of "
    "this machine's own generator comes on top. So whoever sees all updates of a run learns almost the same whether or "
    "not any one {unit} was there: epsilon {epsilon} at delta {delta:g}, for {rounds} rounds. All else that leaves "
    "(sums, counts, losses and metrics, the comparison) has no noise and is not part of that promise. "
    "On the way everything is encrypted (TLS)."
)


def of_covered(study: Study, many: Callable[[str], str]) -> Iterator[str]:
    """Yield what leaves of a study with a model of which all that leaves is charged; `many` says how much of a kind."""
    yield f"What leaves, once at the start ({many(ENROL)}): {ENROLLED}"
    yield f"What leaves, once before the rounds ({many(STATISTIC)}): {CELLS}"
    yield f"What leaves, in each of {study.rounds} rounds ({many(TRAIN)}): {UPDATE}"
    yield f"What leaves, twice at the end ({many(SCORES)}): {COUNTS}"
    if compares_privately(study):
        yield f"What leaves, once at the end ({many(SCORES)}): {PAIRS}"


def privacy_in_words(study: Study, alone: str, pinned: int) -> str:
    """Return the privacy guarantee of a study.

    Whoever reads it shall also know what is not guaranteed: `alone` says it of updates without noise. Of `pinned`
    sites updates are added up in secret; 0 where they are not.
    """
    mechanism = mechanism_of(study)
    promise = None if mechanism is None else mechanism.promise(study.plan, study.rounds)
    if pinned and promise is not None and isinstance(mechanism, SiteDp):
        least = threshold(pinned)
        noised = NOISED.format(
            name=study.privacy.name,
            least=least,
            epsilon=shown_epsilon(promise.epsilon),
            delta=promise.delta,
            rounds=study.rounds,
            colluding=shown_epsilon(mechanism.colluding(study.rounds, least, max(1, pinned // 3))),
        )
        return noised if study.encode.scaler == "schema" else f"{noised} {given_the_encoder(promise.unit)}"
    # A mechanism that charges nothing to the account adds no noise: its text must not sound as if it did.
    charge = charge_of(study)
    if promise is None or charge is None:
        return alone if mechanism is None else f"Mechanism {study.privacy.name} puts no noise on what leaves. {alone}"
    given = {"unit": promise.unit, "epsilon": shown_epsilon(promise.epsilon), "delta": promise.delta}
    if study.analysis is not None:
        if not pinned:
            return ANSWERED.format(name=study.privacy.name, **given)
        colluding = shown_epsilon(colluding_epsilon(charge, threshold(pinned), pinned))
        return ANSWERED_IN_SUM.format(name=study.privacy.name, colluding=colluding, **given)
    if covers_model(study):
        more = {"compared": OWN_UNDER_NOISE, "others": "other "} if compares_privately(study) else {}
        covered = COVERED.format(**{"compared": "", "others": "", **more}, name=study.privacy.name, **given)
        return f"{covered} {DRAWN_ONCE}"
    said = f"{NOISE.format(name=study.privacy.name, rounds=study.rounds, **given)} {DRAWN_ONCE}"
    return said if study.encode.scaler == "schema" else f"{said} {given_the_encoder(promise.unit)}"


def without_noise(study: Study, agreement: Agreement) -> str:
    """Return what is said of updates that no mechanism protects."""
    if is_statistic(study):
        return IN_SECRET if agreement.sums else EXACT
    if not agreement.sums:
        return GROWN if grows(study) else ALONE
    if grows(study):
        return GROWN_OF_SUMS
    return ENCRYPTED if study.secure_aggregation == "ckks" else SUMMED
