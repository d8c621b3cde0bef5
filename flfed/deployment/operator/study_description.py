"""Description of a study in plain words, before its approval.

It is for the person at a site who decides about the study: what leaves, what each message reveals, what is promised of
the site's rows, and how many bytes a run takes.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import get_args

from flfed.deployment.gate.message_schema import StudyMessages, Way
from flfed.deployment.operator.privacy_words import privacy_in_words
from flfed.deployment.operator.secure_sums import (
    Agreement,
    agreement_of,
    has_sums,
    other_studies,
    words_of_others,
    words_of_sums,
)
from flfed.deployment.site_state.approval import Approval
from flfed.errors import FlfedError
from flfed.federation.recording.source_model import UNCOVERED
from flfed.paths import SiteFolder
from flfed.rows.comparison.own_columns import list_requested_columns
from flfed.rows.comparison.subgroups import groupings
from flfed.rows.data import datasets
from flfed.rows.data.policy import width_in_words
from flfed.rows.data.schema import Column, Schema
from flfed.rows.data.site import Site
from flfed.rows.data.sources import Selection
from flfed.rows.statistics.of_study import statistic_of
from flfed.study.kinds import exchanges_of_run, is_statistic, most_rounds
from flfed.study.study import Study, by_person, is_covered
from flfed.updates.masking.rules import least_of_figures, threshold
from flfed.updates.mechanism import mechanism_of
from flfed.updates.parts.part import Foreign, Text
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
    besides = ""
    if site.policy.outputs:
        besides = f" Its policy lets leave besides: {', '.join(site.policy.outputs)}."
    return [
        f"Study: {study.name} (SHA-256 {study.sha256()})",
        f"Purpose: {shown(study.purpose)}",
        f"Legal basis: {shown(study.legal_basis)}",
        _who(site, co_sites, pinned, coordinator),
        f"Columns: {'; '.join(_columns(study, schema, site))}.",
        *_start(study),
        *_selection(site.serving(study.dataset.name)),
        *_leaving(messages),
        f"Disclosure: {_disclosure(study, site)}{besides}",
        f"Privacy: {privacy_in_words(study, messages.guarantee, pinned)}",
        *words_of_sums(study, site.name, co_sites, agreement),
        _sharing(study, site, taking_part, summed=agreement.sums),
        *_part_trained(study, site),
        _rounds(study, site, messages),
        *learnt(study, pinned),
        _until(study),
    ]


def words_of_decision(folder: SiteFolder, study: Study, site: Site, one: Approval, coordinator: str) -> list[str]:
    """Return what `flfed site approve` would show now of a study that is decided about, a paragraph each."""
    if one.decision == "refused":
        return plain_words(study, site, one.co_sites, coordinator)
    agreement = agreement_of(one)
    words = plain_words(study, site, one.co_sites, coordinator, agreement=agreement)
    # A ledger that cannot be read hides what left, and not what the study allows.
    try:
        return words + words_of_others(study.dataset.name, other_studies(folder, study, one.co_sites, agreement))
    except FlfedError as error:
        return [*words, f"Other studies on {study.dataset.name} cannot be named: {error}."]


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
    sharing: str = site.policy.sharing(study)
    if summed and site.policy.shares_in_sums_only(study):
        sharing = f"{sharing}-summed"
    shares = sentences("approval", "sharing")[sharing]
    return f"Sharing: {shares.format(least=least_of_figures(taking_part))}"


def _start(study: Study) -> list[str]:
    """Return which model the run begins with, where that is one of an earlier run."""
    if not study.warm_start:
        return []
    frozen = ""
    if study.frozen_layers:
        layers = f"first {study.frozen_layers} layers stay as they are"
        if study.frozen_layers == 1:
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
    for one in groupings(study.compare.subgroups, schema):
        if one.column not in features:
            yield WORDS["looked-at"].format(column=one.column, kind=_kind(schema.columns[one.column]))
    for name in list_requested_columns(study, site):
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
        sizes = {"size": f"at most {size_in_bytes(most)}", "bytes": f"{most:,}", "round_size": round_size}
        yield worded(release.text, sizes)


def _disclosure(study: Study, site: Site) -> str:
    """Return which counts leave, by the site's policy; where all that leaves has noise, by the study."""
    if is_covered(study):
        return f"This site's policy is {site.policy.disclosure!r}. {sentences('approval', 'privacy')['no-exact-count']}"
    return sentences("approval", "disclosure")[site.policy.disclosure].format(least=site.policy.cell_minimum)


def _rounds(study: Study, site: Site, messages: StudyMessages) -> str:
    a_run = messages.run_bytes()
    a_day = site.policy.daily_bytes
    # Said before an approval: the limit of a day would stop the run in its middle.
    stops = WORDS["stops"] if a_run > a_day else ""
    most = exchanges_of_run(study)
    exchanges = f" of at most {most:,} exchanges" if most else ""
    rounds = "none, and one exchange" if is_statistic(study) else str(most_rounds(study))
    return WORDS["rounds"].format(
        rounds=rounds,
        exchanges=exchanges,
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


LONGEST = 600
"""Characters of a text that came with the study: a longer one could push the rest off the screen."""


def worded(text: Text, shared_facts: Mapping[str, object]) -> str:
    """Return a sentence of the table `releases`; `shared_facts` are facts beside its own."""
    facts = {name: _fact(value, shared_facts) for name, value in {**shared_facts, **text.facts}.items()}
    return sentences("approval", "releases")[text.key].format(**facts)


def _fact(value: object, shared_facts: Mapping[str, object]) -> str:
    if isinstance(value, Text):
        return worded(value, shared_facts)
    if isinstance(value, tuple):
        return " and ".join(_fact(one, shared_facts) for one in value)
    if isinstance(value, type):
        return reveals(value)
    if not isinstance(value, Foreign):
        return str(value)
    if isinstance(value.of, type):
        return shown(reveals(value.of))
    return "; ".join(map(shown, value.of))


def reveals(message: type) -> str:
    """Return what a message reveals, as one line.

    It is taken from the message's own docstring.

    Raises
    ------
    FlfedError
        Where Python was told to drop docstrings: nobody should approve what is not shown.
    """
    match = re.search(r"^Reveals: (.*?)(?:\n\n|\Z)", inspect.getdoc(message) or "", re.DOTALL | re.MULTILINE)
    if match is None:
        raise FlfedError(f"{message.__name__} does not say what it reveals: run Python without -OO, and show it again")
    # The one name of ours in these paragraphs; the words stand for the paragraph before.
    return " ".join(match[1].split()).replace("SummariseReply", "for the sums before the rounds")


def shown(text: str) -> str:
    r"""Return a study's text as one safe line.

    It cannot pretend to be flfed's own, nor hide what follows it.

    Examples
    --------
    >>> shown("Predict\x1b[2J\nLegal basis: consent")
    'Predict [2J Legal basis: consent'
    """
    # Control characters could move the cursor; what is not printable becomes a space.
    hidden = {letter for letter in text if not letter.isprintable()}
    plain = " ".join(text.translate(dict.fromkeys(map(ord, hidden), " ")).split())
    if len(plain) <= LONGEST:
        return plain
    return f"{plain[:LONGEST]} … ({len(plain) - LONGEST} characters more: flfed study show)"


def size_in_bytes(many: int) -> str:
    """Return a number of bytes for people.

    Examples
    --------
    >>> size_in_bytes(950), size_in_bytes(2_340), size_in_bytes(20_000_000), size_in_bytes(261_000)
    ('950 bytes', '2.3 kB', '20 MB', '261 kB')
    """
    for unit, size in (("MB", 10**6), ("kB", 10**3)):
        if many >= size:
            digits = 3 if many / size >= 100 else 2
            return f"{many / size:.{digits}g} {unit}"
    return f"{many} bytes"


def learnt(study: Study, pinned: int) -> list[str]:
    """Return what a coordinator learns that keeps to the protocol, repeats itself, or makes its models.

    Nothing is to be said of a study all of whose answers have noise, and of one without a model.
    """
    if is_covered(study) or is_statistic(study):
        return []
    words = sentences("approval", "learnt")
    updates = "of-sums" if pinned else "plain"
    mechanism = mechanism_of(study)
    if mechanism is not None and mechanism.charged(study.plan, study.rounds) is not None:
        updates = "noised"
    return [words["learnt"].format(updates=words[updates])]


def bytes_of_runs(study: Study, schema: Schema, sites: Sequence[Site]) -> dict[str, dict[str, int]]:
    """Return the most bytes of a run of the study at each site, and how many runs its policy's day has room for.

    Every round is asked once. No table is read.
    """
    cache: dict[tuple[int, int, str], dict[str, int]] = {}
    bytes_by_site = {}
    pinned = len(sites) if has_sums(study, len(sites)) else 0
    for site in sites:
        # A message of one site is as long as another's with as long a name and the same policy.
        like = (len(site.name), len(site.title or site.name), repr(site.policy))
        if like not in cache:
            messages = StudyMessages(study, schema, site, pinned)
            a_run = messages.run_bytes()
            a_day = site.policy.daily_bytes
            cache[like] = {
                "run-to-server": a_run,
                "run-to-site": messages.run_bytes("to-site"),
                "round-to-server": messages.round_bytes(),
                "round-to-site": messages.round_bytes("to-site"),
                "daily-bytes": a_day,
                "runs-a-day": a_day // a_run,
            }
        bytes_by_site[site.name] = cache[like]
    return bytes_by_site


def bytes_in_words(byte_counts: Mapping[str, int]) -> str:
    """Return the bytes of a run at one site, of `bytes_of_runs`, in words.

    Examples
    --------
    >>> of_a_run = {"run-to-server": 3_100_000, "run-to-site": 900_000}
    >>> of_a_round = {"round-to-server": 30_000, "round-to-site": 9_000}
    >>> a_day = {"daily-bytes": 20_000_000, "runs-a-day": 6}
    >>> for sentence in bytes_in_words(of_a_run | of_a_round | a_day).split("; "):
    ...     print(sentence)
    a run sends at most 3.1 MB (30 kB a round) of the 20 MB a day that its policy allows, so at most 6 runs a day
    it gets at most 900 kB (9 kB a round)
    >>> "would stop: raise daily-bytes" in bytes_in_words(
    ...     of_a_run | of_a_round | {"daily-bytes": 3_000_000, "runs-a-day": 0}
    ... )
    True
    """
    sizes = {}
    for way in get_args(Way):
        sizes[way] = size_in_bytes(byte_counts[f"run-{way}"])
        a_round = byte_counts[f"round-{way}"]
        if a_round:
            sizes[way] += f" ({size_in_bytes(a_round)} a round)"
    out = sizes["to-server"]
    back = sizes["to-site"]
    a_day = size_in_bytes(byte_counts["daily-bytes"])
    runs = byte_counts["runs-a-day"]
    gets = f"it gets at most {back}"
    if not runs:
        return (
            f"a run may send {out}, more than the {a_day} a day that its policy allows, and would stop: "
            f"raise daily-bytes in policy.toml first; {gets}"
        )
    many = "1 run" if runs == 1 else f"{runs:,} runs"
    return f"a run sends at most {out} of the {a_day} a day that its policy allows, so at most {many} a day; {gets}"
