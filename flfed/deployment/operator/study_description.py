"""Description of a study in plain words.

It is for the person at a site who decides about the study.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import get_args

from flfed import registry
from flfed.deployment.gate.message_schema import StudyMessages, Way
from flfed.deployment.operator.privacy_words import NO_EXACT_COUNT, of_covered, privacy_in_words, without_noise
from flfed.deployment.operator.reveals import learnt, reveals
from flfed.deployment.operator.secure_sums import Agreement, has_sums, words_of_sums
from flfed.deployment.operator.statistic_description import of_statistic
from flfed.federation.recording.source_model import UNCOVERED
from flfed.rows.comparison.own_columns import asked_of
from flfed.rows.comparison.subgroups import groupings
from flfed.rows.data import datasets
from flfed.rows.data.policy import width_in_words
from flfed.rows.data.schema import Column, Schema
from flfed.rows.data.site import Site
from flfed.rows.data.sources import Selection
from flfed.rows.statistics.of_study import statistic_of
from flfed.study.coverage import by_person, covers_model, is_covered
from flfed.study.exchanges import exchanges_of, exchanges_of_run, grows, most_rounds, refits
from flfed.study.statistic import is_statistic
from flfed.study.study import Study
from flfed.study.tables import Own, Sharing, in_sums_only, strictest
from flfed.updates.codec import codec_of
from flfed.updates.extra import ExtraShapes, extra_shapes
from flfed.updates.masking.rules import least_of_figures, threshold
from flfed.updates.messages.audit import AUDIT, AuditReply
from flfed.updates.messages.compare import COMPARE, ColumnImportance, CompareReply, GroupFigure, PointCounts
from flfed.updates.messages.countersign import SEAL, SealReply
from flfed.updates.messages.enrol import ENROL, EnrolReply
from flfed.updates.messages.offset import Offset
from flfed.updates.messages.secure_sum import KEYS, LIST, UNMASK, KeysReply, ListReply, Masked, SharedKey, UnmaskReply
from flfed.updates.messages.summarise import (
    BINS,
    SUMMARISE,
    BinsReply,
    SummariseReply,
)
from flfed.updates.messages.train import EVALUATE, TRAIN, Scores, TrainReply
from flfed.updates.sections import most_bytes

LONGEST = 600
"""Characters of a text that came with the study: a longer one could push the rest off the screen."""
SHARED: dict[Sharing, str] = {
    "named": "Results are shown under this site's name.",
    "pseudonym": (
        "Results are shown under a pseudonym of this site. Whoever knows its size, or that "
        "all other sites are named, may still tell whose they are."
    ),
    "aggregate-only": (
        "This site's own figures go into sums over two or more such sites only: no store, no log and no page has them; "
        "of two, each can take its own off the sum. "
        "Without sums in secret, its messages still carry them to the coordinator's memory."
    ),
}
STAYING = (
    "This site shares no figures of its own: in this study no metric, loss or comparison of it leaves by itself, and "
    "the sums over rows of all sites leave in their sum only. Where at least {least} sites that share none take part, "
    "as their gates signed it, their comparison leaves in one sum over all of these sites, and of this study in no sum "
    "over others: means over test rows, and what this site's policy lets leave of exact counts and of test rows by "
    "predicted probability. A site that works with the coordinator takes its own off that sum. Losses and metrics of "
    "rounds do not leave by themselves; with fewer such sites the comparison stays. Its own people see its figures in "
    "the site's app."
)
"""Of a site in sums only, where updates are added up in secret."""
ROUNDS_STAY = (
    "Of each round, and of the last model (at most {size}): no loss, no metric, no count by prediction and no "
    "intercept of this site leaves by itself, over training, validation or test rows. {instead}"
)
LOSSES_IN_SUM = (
    "Its mean losses over training and validation rows, of three digits, are added to the sums instead. They weigh "
    "nothing there where too few sites of the run keep theirs to hide this one's. A coordinator that makes its models "
    "learns from the sum of the losses what it may learn from a sum of updates."
)
LOSSES_STAY = "Nothing stands in their place."
"""What leaves of the figures of rounds under secure sums."""
DISCLOSURE = {
    "open": "This site's policy is 'open' (public data): every figure is exact, however few rows are behind it.",
    "institution": "This site's policy is 'institution': no count of fewer than {least} rows leaves.",
}
COMPARED: dict[Own, str] = {
    "best": (
        "The shared model is compared with the best that this site finds alone: inside the gate, on this site's "
        "training rows, the better of a tuned logistic (or ridge) regression and boosted decision trees (of a number, "
        "where later rows are held out, also a forecast without a model); a model of the shared one's kind stands "
        "beside it."
    ),
    "same": "The shared model is compared with one of its kind, tuned on this site's training rows inside the gate.",
}
"""What a site's own model is."""
AGAIN = ", and in at most as many again, in which trees grow anew on all training rows"
"""Of trees that validation rows chose the number of."""


def plain_words(
    study: Study, site: Site, co_sites: Sequence[str], coordinator: str = "", *, agreement: Agreement | None = None
) -> list[str]:
    """Return the facts to know before an approval.

    Each is a paragraph.

    Parameters
    ----------
    study : Study
    site : Site
    co_sites : sequence of str
        The other sites that may take part.
    coordinator : str
        Whom the site has joined; empty where nobody yet.
    agreement : Agreement, optional
        About secure sums; where nothing is agreed yet, what the study asks of so many sites.
    """
    taking_part = len({site.name, *co_sites})
    agreement = agreement or Agreement(has_sums(study, taking_part))
    least = max(site.policy.least_cohort(), threshold(taking_part) if agreement.sums else 0)
    schema = datasets.load(study.dataset.name).schema
    # What leaves is computed from the same sections that the gate checks, so that the text cannot promise less.
    pinned = taking_part if agreement.sums else 0
    messages = StudyMessages(study, schema, site.serving(study.dataset.name), pinned)
    sharing = strictest(study.compare.share_metrics, site.policy.share_metrics)
    shares = STAYING if agreement.sums and in_sums_only(sharing) else SHARED[sharing]
    others = ", ".join(sorted(set(co_sites) - {site.name})) or "no other site"
    leaving = _leaving(study, messages, audits=site.policy.audits)
    if is_statistic(study):
        leaving = of_statistic(study, messages)
    return [
        f"Study: {study.name} (SHA-256 {study.sha256()})",
        f"Purpose: {shown(study.purpose)}",
        f"Legal basis: {shown(study.legal_basis)}",
        f"Who takes part: {site.name} (this site) with {others}: no other site may be added, and a run asks at "
        f"least {least} sites. The coordinator ({coordinator or 'none is joined yet'}) receives what "
        "leaves, and names the sites of a run.",
        f"Columns: {'; '.join(_columns(study, schema, site))}.",
        *_start(study),
        *_selection(site.serving(study.dataset.name)),
        *leaving,
        f"Disclosure: {_disclosure(study, site)}{_outputs(site)}",
        f"Privacy: {privacy_in_words(study, without_noise(study, agreement), pinned)}",
        *words_of_sums(study, site.name, co_sites, agreement),
        f"Sharing: {shares.format(least=least_of_figures(taking_part))}",
        *_part_trained(study, site),
        f"Rounds: {_rounds(study, site, messages)}",
        *learnt(messages),
        f"Until: {_until(study)}",
    ]


def _start(study: Study) -> list[str]:
    """Return which model the run begins with, where that is one of an earlier run."""
    if not study.warm_start:
        return []
    layers = "first layer stays as it is" if study.frozen == 1 else f"first {study.frozen} layers stay as they are"
    frozen = f" Its {layers}." if study.frozen else ""
    uncovered = "" if study.privacy.name == "none" else f" {UNCOVERED}"
    return [
        f"Start: the run begins with the model {shown(study.warm_start)} (SHA-256 {study.start_sha256}), whose "
        f"weights the coordinator rewrites for this study's columns.{frozen} The models of the rounds, the first one "
        "too, are as the coordinator sends them. At the end the site compares its own model with its own copy of that "
        f"model (--start), which the coordinator neither sends nor chooses.{uncovered}"
    ]


def _part_trained(study: Study, site: Site) -> list[str]:
    """Return which part of the model the site trains, where its policy says that it is not all of it."""
    if site.policy.width == 1:
        return []
    if study.model.build("model").linear:
        return [
            "Part of the model: its policy names a width; this model has no hidden units, and is trained whole here."
        ]
    return [f"Part of the model: this site {width_in_words(site.policy.width)}. The coordinator is told this share."]


def _selection(site: Site) -> list[str]:
    """Return which rows the site's package reads, and what it computes of them, where it says so."""
    source = site.source
    if not isinstance(source, Selection) or not (source.where or source.derive):
        return []
    rows = f"only those with {shown(source.where)}" if source.where else "all of the source"
    made = "; ".join(f"{shown(name)} = {shown(rule)}" for name, rule in source.derive.items())
    return [f"Rows: {rows}." + (f" Computed columns of the source: {made}." if made else "")]


def shown(text: str) -> str:
    r"""Return a study's text as one safe line.

    It cannot pretend to be flfed's own, nor hide what follows it.

    Examples
    --------
    >>> shown("Predict\x1b[2J\nLegal basis: consent")
    'Predict [2J Legal basis: consent'
    """
    # Control characters could move the cursor; what is not printable becomes a space.
    plain = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    more = f" … ({len(plain) - LONGEST} characters more: flfed study show)" if len(plain) > LONGEST else ""
    return plain[:LONGEST] + more


AFTERWARDS = (
    "after the comparison it is with the run's model in the site's folder, from where flfed site model takes it."
)
"""Of what is a site's own of the model."""


def _extra(study: Study, shapes: ExtraShapes) -> Iterator[str]:
    """Yield what the approver reads of the arrays that the strategy has beside the model."""
    name = study.strategy.name
    if shapes.returned:
        said = shown(reveals(registry.load("strategy", name)))
        yield f"With the update, arrays {', '.join(shapes.returned)} of strategy {name}: {said}"
    if shapes.kept:
        yield f"Strategy {name} keeps arrays of its own at this site from round to round; they are in no message."
    if shapes.own_part:
        yield (
            f"Of the model this site has its own {', '.join(shapes.own_part)}, which it trains on its own rows and "
            f"predicts with. What is its own stays here and is in no message; {AFTERWARDS}"
        )
    if shapes.own_model:
        yield (
            "Beside the shared model this site trains a model of its own on the same rows. It stays here and is in no "
            f"message; of it the comparison tells figures, as of this site's other models. {AFTERWARDS.capitalize()}"
        )


def _columns(study: Study, schema: Schema, site: Site) -> Iterator[str]:
    """Yield the columns that are read, with their kinds."""
    if is_statistic(study):
        yield from (f"{name} ({_kind(schema.columns[name])})" for name in statistic_of(study).columns(schema))
        if schema.group and by_person(study):
            yield f"{schema.group} (id: rows of one person weigh one together; it does not leave)"
        return
    for name in schema.features(study.dataset.features):
        yield f"{name} ({_kind(schema.columns[name])})"
    features = schema.features(study.dataset.features)
    for one in groupings(study.compare.by, schema):
        if one.column not in features:
            kind = _kind(schema.columns[one.column])
            yield f"{one.column} (not for the model, only to look at it group by group: {kind})"
    used = "not for the shared model: used at this site only, to adjust it to this site, and leaves in no form"
    for name in asked_of(study, site):
        yield f"{name} ({used}: {_kind(site.schema_of(schema).columns[name])})"
    yield f"{schema.target} (what is predicted: {_kind(schema.columns[schema.target])})"
    if schema.group:
        yield f"{schema.group} (id: keeps rows of one person together, and does not leave)"


def _kind(column: Column) -> str:
    values = ", ".join(column.values[:8]) + (", …" if len(column.values) > 8 else "")
    kind = "" if column.kind == "target" else column.kind
    return ", ".join(filter(None, (kind or ("" if values else "number"), column.unit, values)))


def _leaving(study: Study, messages: StudyMessages, *, audits: bool) -> Iterator[str]:
    """Yield what leaves, by message.

    Each paragraph says how often, how much at most, and what it reveals.
    """

    def many(kind: str) -> str:
        return f"at most {_bytes(most_bytes(messages.leaving(kind)))}"

    if covers_model(study):
        yield from of_covered(study, many)
        yield f"What leaves, once before the rounds and once the run is over ({many(SEAL)}): {reveals(SealReply)}"
        return
    yield f"What leaves, once at the start ({many(ENROL)}): {reveals(EnrolReply)}"
    yield f"What leaves, once before the rounds ({many(SUMMARISE)}): {reveals(SummariseReply)}"
    if grows(study):
        yield f"What leaves, once before the rounds, for cut points ({many(BINS)}): {reveals(BinsReply)}"
    if messages.pinned:
        yield f"What leaves, once before the rounds, for sums ({many(KEYS)}): {reveals(KeysReply)}"
    if messages.pinned and study.secure_aggregation == "ckks":
        yield f"With it, from the site that makes the key: {reveals(SharedKey)}"
        yield f"What leaves, in each of {study.rounds} rounds encrypted ({many(TRAIN)}): {reveals(TrainReply)}"
    elif messages.pinned:
        rounds = _trees(study, messages) if grows(study) else f"{study.rounds} rounds"
        of_all = f" Of the sum: {_grown(study)}" if grows(study) else ""
        one = "level of a tree" if grows(study) else "round"
        yield f"What leaves, in each of {rounds} under masks ({many(TRAIN)}): {reveals(Masked)}{of_all}"
        yield f"What leaves, in each {one} to open its sum ({many(UNMASK)}): {reveals(UnmaskReply)}"
        yield f"What leaves, in a {one} in which a site is missing ({many(LIST)}): {reveals(ListReply)}"
    elif grows(study):
        yield f"What leaves, in each of {_trees(study, messages)}: {_grown(study)}"
    else:
        yield f"What leaves, in each of {study.rounds} rounds ({many(TRAIN)}): {reveals(TrainReply)}"
    if (codec := codec_of(study)) is not None:
        kept = " What is left out of it stays at this site, and is added to its next update." if codec.feedback else ""
        yield f"The update is packed by codec {study.codec.name}: {shown(reveals(type(codec)))}{kept}"
    yield from _extra(study, extra_shapes(study, messages.model))
    yield from _figures_of_rounds(messages)
    yield f"What leaves, once at the end ({many(COMPARE)}): {reveals(CompareReply)} {COMPARED[study.compare.own]}"
    if study.compare.points:
        yield f"With it, at {_points(study)}: {reveals(PointCounts)}"
    if study.compare.by:
        yield f"With it, by {'; '.join(map(shown, study.compare.by))}: {reveals(GroupFigure)}"
    if study.compare.importance:
        yield f"With it, of each column, by {study.compare.importance} permutations: {reveals(ColumnImportance)}"
    if audits:
        yield f"What leaves, for each attack if the run is audited ({many(AUDIT)}): {reveals(AuditReply)}"
    yield f"What leaves, once before the rounds and once the run is over ({many(SEAL)}): {reveals(SealReply)}"


def _figures_of_rounds(messages: StudyMessages) -> Iterator[str]:
    """Yield what leaves of losses and metrics in each round."""
    study = messages.study
    size = _bytes(most_bytes(messages.leaving(EVALUATE)))
    named = not messages.site.policy.shares_in_sums_only(study.compare.share_metrics)
    if messages.pinned and (not named or messages.round_figures == "none"):
        encrypted = study.secure_aggregation == "ckks"
        yield ROUNDS_STAY.format(size=size, instead=LOSSES_STAY if encrypted else LOSSES_IN_SUM)
        return
    digits = " All of these have three digits." if messages.round_figures == "rounded" else ""
    yield f"With it, and once after the last round (at most {size}): {reveals(Scores)}{digits}"
    if study.adjusts_intercept():
        yield f"With the last of these, once: {reveals(Offset)}{digits}"


def _trees(study: Study, messages: StudyMessages) -> str:
    most = _bytes(messages.round_bytes())
    again = AGAIN if refits(study) else ""
    return f"{study.rounds} rounds, each a tree in at most {exchanges_of(study)} exchanges (at most {most}){again}"


def _grown(study: Study) -> str:
    """Return what the sums of trees tell."""
    return reveals(registry.load("strategy", study.strategy.name))


def _points(study: Study) -> str:
    """Return the thresholds and alert budgets at which a study has rows counted."""
    asked = {
        "the predicted probabilities": study.compare.thresholds,
        "alert budgets (shares of the rows)": study.compare.alert_budgets,
        "false positive rates (of training rows)": study.compare.false_positive_rates,
    }
    return " and ".join(f"{what} {', '.join(f'{at:g}' for at in values)}" for what, values in asked.items() if values)


def _disclosure(study: Study, site: Site) -> str:
    """Return which counts leave, by the site's policy; where all that leaves has noise, by the study."""
    if is_covered(study):
        return f"This site's policy is {site.policy.disclosure!r}. {NO_EXACT_COUNT}"
    return DISCLOSURE[site.policy.disclosure].format(least=site.policy.cell_minimum)


def _outputs(site: Site) -> str:
    """Return what the policy lets leave besides."""
    named = ", ".join(site.policy.outputs)
    return f" Its policy lets leave besides: {named}." if named else ""


def _rounds(study: Study, site: Site, messages: StudyMessages) -> str:
    a_run, a_day = _bytes(messages.run_bytes()), _bytes(site.policy.daily_bytes)
    # Said before an approval: the limit of a day would stop the run in its middle.
    more = messages.run_bytes() > site.policy.daily_bytes
    stops = " A run may need more, and would stop: raise daily-bytes in policy.toml first." if more else ""
    trees = f" of at most {exchanges_of_run(study):,} exchanges" if grows(study) else ""
    rounds = "none, and one exchange" if is_statistic(study) else str(most_rounds(study))
    return (
        f"{rounds} in a run{trees}, which takes at most {a_run} out of this site if each is asked once. "
        f"The coordinator may run the study {site.policy.runs} times with this one approval; at most {a_day} leave in "
        f"a day.{stops}"
    )


def bytes_of_runs(study: Study, schema: Schema, sites: Sequence[Site]) -> dict[str, dict[str, int]]:
    """Return the most bytes of a run of the study at each site, and how many runs its policy's day has room for.

    Every round is asked once. No table is read.
    """
    known: dict[tuple[int, int, str], dict[str, int]] = {}
    found, pinned = {}, len(sites) if has_sums(study, len(sites)) else 0
    for site in sites:
        # A message of one site is as long as another's with as long a name and the same policy.
        like = (len(site.name), len(site.title or site.name), repr(site.policy))
        if like not in known:
            known[like] = _bytes_of_runs(StudyMessages(study, schema, site, pinned))
        found[site.name] = known[like]
    return found


def _bytes_of_runs(messages: StudyMessages) -> dict[str, int]:
    a_run, a_day = messages.run_bytes(), messages.site.policy.daily_bytes
    return {
        "run-to-server": a_run,
        "run-to-site": messages.run_bytes("to-site"),
        "round-to-server": messages.round_bytes(),
        "round-to-site": messages.round_bytes("to-site"),
        "daily-bytes": a_day,
        "runs-a-day": a_day // a_run,
    }


def bytes_in_words(found: Mapping[str, int]) -> str:
    """Return the bytes of a run at one site, of `bytes_of_runs`, in words.

    Examples
    --------
    >>> of_a_run = {"run-to-server": 3_100_000, "run-to-site": 900_000}
    >>> of_a_round = {"round-to-server": 30_000, "round-to-site": 9_000}
    >>> for said in bytes_in_words(of_a_run | of_a_round | {"daily-bytes": 20_000_000, "runs-a-day": 6}).split("; "):
    ...     print(said)
    a run sends at most 3.1 MB (30 kB a round) of the 20 MB a day that its policy allows, so at most 6 runs a day
    it gets at most 900 kB (9 kB a round)
    >>> "would stop: raise daily-bytes" in bytes_in_words(
    ...     of_a_run | of_a_round | {"daily-bytes": 3_000_000, "runs-a-day": 0}
    ... )
    True
    """
    rounds = (f" ({_bytes(found[f'round-{way}'])} a round)" if found[f"round-{way}"] else "" for way in get_args(Way))
    out, back = (_bytes(found[f"run-{way}"]) + of for way, of in zip(get_args(Way), rounds, strict=True))
    a_day, runs = _bytes(found["daily-bytes"]), found["runs-a-day"]
    gets = f"it gets at most {back}"
    if not runs:
        return (
            f"a run may send {out}, more than the {a_day} a day that its policy allows, and would stop: "
            f"raise daily-bytes in policy.toml first; {gets}"
        )
    many = "1 run" if runs == 1 else f"{runs:,} runs"
    return f"a run sends at most {out} of the {a_day} a day that its policy allows, so at most {many} a day; {gets}"


def _until(study: Study) -> str:
    ends = "the study has no last day" if study.expires is None else f"{study.expires.isoformat()} is its last day"
    return f"{ends}; this site can withdraw at any moment (flfed site withdraw {study.name}), or pause."


def _bytes(many: int) -> str:
    """Return a number of bytes for people.

    Examples
    --------
    >>> _bytes(950), _bytes(2_340), _bytes(20_000_000), _bytes(261_000)
    ('950 bytes', '2.3 kB', '20 MB', '261 kB')
    """
    for unit, size in (("MB", 10**6), ("kB", 10**3)):
        if many >= size:
            return f"{many / size:.3g} {unit}" if many / size >= 100 else f"{many / size:.2g} {unit}"
    return f"{many} bytes"
