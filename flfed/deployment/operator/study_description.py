"""Description of a study in plain words.

It is for the person at a site who decides about the study.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from flfed.deployment.gate.message_schema import StudyMessages
from flfed.deployment.operator.privacy_words import learnt, privacy_in_words
from flfed.deployment.operator.secure_sums import Agreement, has_sums, words_of_sums
from flfed.deployment.operator.wording import shown, size_in_bytes, worded
from flfed.federation.recording.source_model import UNCOVERED
from flfed.rows.comparison.own_columns import asked_of
from flfed.rows.comparison.subgroups import groupings
from flfed.rows.data import datasets
from flfed.rows.data.policy import width_in_words
from flfed.rows.data.schema import Column, Schema
from flfed.rows.data.site import Site
from flfed.rows.data.sources import Selection
from flfed.rows.statistics.of_study import statistic_of
from flfed.study.coverage import by_person, is_covered
from flfed.study.exchanges import exchanges_of_run, grows, most_rounds
from flfed.study.statistic import is_statistic
from flfed.study.study import Study
from flfed.study.tables import in_sums_only, strictest
from flfed.updates.masking.rules import least_of_figures, threshold
from flfed.updates.sections import most_bytes
from flfed.words import sentences

WORDS = sentences("approval", "study")


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
    schema = datasets.load(study.dataset.name).schema
    # What leaves is computed from the same sections that the gate checks, so that the text cannot promise less.
    pinned = taking_part if agreement.sums else 0
    messages = StudyMessages(study, schema, site.serving(study.dataset.name), pinned)
    return [
        f"Study: {study.name} (SHA-256 {study.sha256()})",
        f"Purpose: {shown(study.purpose)}",
        f"Legal basis: {shown(study.legal_basis)}",
        _who(site, co_sites, pinned, coordinator),
        f"Columns: {'; '.join(_columns(study, schema, site))}.",
        *_start(study),
        *_selection(site.serving(study.dataset.name)),
        *_leaving(messages),
        f"Disclosure: {_disclosure(study, site)}{_outputs(site)}",
        f"Privacy: {privacy_in_words(study, messages.guarantee, pinned)}",
        *words_of_sums(study, site.name, co_sites, agreement),
        _sharing(study, site, taking_part, summed=agreement.sums),
        *_part_trained(study, site),
        _rounds(study, site, messages),
        *learnt(study, pinned),
        _until(study),
    ]


def _who(site: Site, co_sites: Sequence[str], pinned: int, coordinator: str) -> str:
    least = site.policy.least_cohort()
    if pinned:
        least = max(least, threshold(pinned))
    others = ", ".join(sorted(set(co_sites) - {site.name})) or "no other site"
    return WORDS["who"].format(
        site=site.name, others=others, least=least, coordinator=coordinator or "none is joined yet"
    )


def _sharing(study: Study, site: Site, taking_part: int, *, summed: bool) -> str:
    """Return under which name figures are shown."""
    sharing: str = strictest(study.compare.share_metrics, site.policy.share_metrics)
    if summed and in_sums_only(sharing):
        sharing = f"{sharing}-summed"
    shares = sentences("approval", "sharing")[sharing]
    return f"Sharing: {shares.format(least=least_of_figures(taking_part))}"


def _start(study: Study) -> list[str]:
    """Return which model the run begins with, where that is one of an earlier run."""
    if not study.warm_start:
        return []
    frozen = ""
    if study.frozen:
        layers = f"first {study.frozen} layers stay as they are"
        if study.frozen == 1:
            layers = "first layer stays as it is"
        frozen = f" Its {layers}."
    uncovered = "" if study.privacy.name == "none" else f" {UNCOVERED}"
    model = shown(study.warm_start)
    return [WORDS["start"].format(model=model, sha256=study.start_sha256, frozen=frozen, uncovered=uncovered)]


def _part_trained(study: Study, site: Site) -> list[str]:
    """Return which part of the model the site trains, where its policy says that it is not all of it."""
    if site.policy.width == 1:
        return []
    if study.model.build("model").linear:
        return [WORDS["part-of-linear"]]
    return [WORDS["part-of-model"].format(width=width_in_words(site.policy.width))]


def _selection(site: Site) -> list[str]:
    """Return which rows the site's package reads, and what it computes of them, where it says so."""
    source = site.source
    if not isinstance(source, Selection) or not (source.where or source.derive):
        return []
    rows = f"only those with {shown(source.where)}" if source.where else "all of the source"
    made = "; ".join(f"{shown(name)} = {shown(rule)}" for name, rule in source.derive.items())
    computed = f" Computed columns of the source: {made}." if made else ""
    return [f"Rows: {rows}.{computed}"]


def _columns(study: Study, schema: Schema, site: Site) -> Iterator[str]:
    """Yield the columns that are read, with their kinds."""
    if is_statistic(study):
        for name in statistic_of(study).columns(schema):
            yield f"{name} ({_kind(schema.columns[name])})"
        if schema.group and by_person(study):
            yield WORDS["group-of-statistic"].format(column=schema.group)
        return
    features = schema.features(study.dataset.features)
    for name in features:
        yield f"{name} ({_kind(schema.columns[name])})"
    for one in groupings(study.compare.by, schema):
        if one.column not in features:
            yield WORDS["looked-at"].format(column=one.column, kind=_kind(schema.columns[one.column]))
    for name in asked_of(study, site):
        yield WORDS["own-column"].format(column=name, kind=_kind(site.schema_of(schema).columns[name]))
    yield WORDS["target"].format(column=schema.target, kind=_kind(schema.columns[schema.target]))
    if schema.group:
        yield WORDS["group"].format(column=schema.group)


def _kind(column: Column) -> str:
    values = ", ".join(column.values[:8])
    if len(column.values) > 8:
        values += ", …"
    kind: str = column.kind
    if kind == "target":
        kind = "" if values else "number"
    return ", ".join(filter(None, (kind, column.unit, values)))


def _leaving(messages: StudyMessages) -> Iterator[str]:
    """Yield what leaves, by message: how often, how much at most, and what it reveals."""
    round_size = size_in_bytes(messages.round_bytes())
    for release in messages.releases:
        most = most_bytes(messages.leaving(release.kind)) if release.kind else 0
        known = {"size": f"at most {size_in_bytes(most)}", "bytes": f"{most:,}", "round_size": round_size}
        yield worded(release.text, known)


def _disclosure(study: Study, site: Site) -> str:
    """Return which counts leave, by the site's policy; where all that leaves has noise, by the study."""
    if is_covered(study):
        return f"This site's policy is {site.policy.disclosure!r}. {sentences('approval', 'privacy')['no-exact-count']}"
    return sentences("approval", "disclosure")[site.policy.disclosure].format(least=site.policy.cell_minimum)


def _outputs(site: Site) -> str:
    """Return what the policy lets leave besides."""
    named = ", ".join(site.policy.outputs)
    return f" Its policy lets leave besides: {named}." if named else ""


def _rounds(study: Study, site: Site, messages: StudyMessages) -> str:
    a_run = messages.run_bytes()
    a_day = site.policy.daily_bytes
    # Said before an approval: the limit of a day would stop the run in its middle.
    stops = WORDS["stops"] if a_run > a_day else ""
    trees = f" of at most {exchanges_of_run(study):,} exchanges" if grows(study) else ""
    rounds = "none, and one exchange" if is_statistic(study) else str(most_rounds(study))
    return WORDS["rounds"].format(
        rounds=rounds,
        trees=trees,
        a_run=size_in_bytes(a_run),
        runs=site.policy.runs,
        a_day=size_in_bytes(a_day),
        stops=stops,
    )


def _until(study: Study) -> str:
    ends = "the study has no last day"
    if study.expires is not None:
        ends = f"{study.expires.isoformat()} is its last day"
    return WORDS["until"].format(ends=ends, study=study.name)
