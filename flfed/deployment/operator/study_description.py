"""Every detail of a study before its approval (`flfed site approve --all`).

It is for the person at a site who decides about the study: what is released, what each message reveals, what the study
promises about the site's rows, and how many bytes a run takes. The ten lines before it: approval_summary.py.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import get_args

from flfed.deployment.gate.message_schema import StudyMessages, Way
from flfed.deployment.operator.columns_read import describe_columns, describe_source
from flfed.deployment.operator.proposal import Proposal, SiteFacts
from flfed.deployment.operator.secure_sums import describe_parties, describe_sums, has_sums
from flfed.deployment.site_state.cohorts import cohort_facts
from flfed.errors import FlfedError
from flfed.federation.recording.source_model import UNCOVERED
from flfed.rows.data.policy import width_in_words
from flfed.rows.data.schema import Schema
from flfed.rows.data.site import Site
from flfed.study.study import Study
from flfed.updates.parts.part import Foreign, Text
from flfed.updates.sections import most_bytes
from flfed.words import counted, render, safe_line


def describe_details(proposal: Proposal) -> list[str]:
    """Return every fact to know before an approval, a paragraph each."""
    study = proposal.study
    return [
        render("approval.study.study", study=study.name, sha256=study.sha256()),
        render("approval.study.purpose", purpose=safe_line(study.purpose)),
        render("approval.study.legal-basis", basis=safe_line(study.legal_basis)),
        render(
            "approval.study.who",
            site=proposal.site.name,
            others=", ".join(proposal.co_sites) or "no other site",
            least=least_participants(proposal),
            coordinator=proposal.coordinator or "none is joined yet",
        ),
        render("approval.study.columns", columns="; ".join(describe_columns(proposal))),
        *_describe_start(study),
        *describe_source(proposal.serving),
        *_describe_releases(proposal.messages),
        _describe_disclosure(proposal),
        proposal.guarantee.paragraph(),
        *describe_sums(study, proposal.site.name, proposal.co_sites, proposal.agreement),
        *describe_parties(study, proposal.co_sites, proposal.agreement),
        render(f"approval.sharing.{proposal.study.compare.share}"),
        *_describe_width(proposal),
        _describe_rounds(proposal),
        *_describe_knowledge(proposal),
        _describe_end(study),
    ]


def describe_site_facts(proposal: Proposal, facts: SiteFacts) -> list[str]:
    """Return what the site's folder holds about a proposal, a paragraph each, for the site's own eyes.

    Parameters
    ----------
    proposal : Proposal
    facts : SiteFacts
    """
    if facts.rows is None:
        rows = render("approval.study.no-rows")
    else:
        own = facts.rows
        rows = render("approval.study.rows", rows=own.rows, at=own.at, sha256=own.sha256[:12])
        rows += own.of_sample
    paragraphs = [rows]
    if facts.single_outcomes is not None:
        outcomes, training_rows = facts.single_outcomes
        paragraphs.append(render("approval.study.single-outcomes", outcomes=outcomes, rows=training_rows))
    if facts.budget:
        paragraphs.append(" ".join(facts.budget))
    paragraphs.append(facts.runs.sentence())
    return paragraphs


def least_participants(proposal: Proposal) -> int:
    """Return the fewest sites of a run, by policy and secure aggregation; of parties with other columns all."""
    if proposal.study.is_vertical:
        return proposal.participants
    least = proposal.site.policy.least_cohort()
    if proposal.pinned:
        least = proposal.pinned
    return least


def _describe_start(study: Study) -> list[str]:
    """Return which model the run begins with, where that is one of an earlier run."""
    if not study.warm_start:
        return []
    if not study.train:
        return [render("approval.study.validated", model=safe_line(study.warm_start), sha256=study.start_sha256)]
    frozen = ""
    if study.frozen_layers == 1:
        frozen = render("approval.study.frozen-layer")
    elif study.frozen_layers:
        frozen = render("approval.study.frozen-layers", layers=study.frozen_layers)
    uncovered = "" if study.privacy.name == "none" else f" {UNCOVERED}"
    facts = {"model": safe_line(study.warm_start), "sha256": study.start_sha256}
    return [render("approval.study.start", frozen=frozen, uncovered=uncovered, **facts)]


def _describe_width(proposal: Proposal) -> list[str]:
    """Return which part of the model the site trains, where its policy has it train less than all of it."""
    width = proposal.site.policy.width
    if width == 1:
        return []
    if proposal.study.model.build("model").linear:
        return [render("approval.study.part-of-linear")]
    return [render("approval.study.part-of-model", width=width_in_words(width))]


def _describe_releases(messages: StudyMessages) -> Iterator[str]:
    """Yield the releases, by message: how often, how much at most, and what it reveals."""
    round_size = size_in_bytes(messages.round_bytes())
    for release in messages.releases:
        most = most_bytes(messages.leaving(release.kind)) if release.kind else 0
        sizes = {"size": f"at most {size_in_bytes(most)}", "bytes": f"{most:,}", "round_size": round_size}
        yield describe_release(release.text, sizes)


def _describe_disclosure(proposal: Proposal) -> str:
    """Return which counts are released, by the site's policy; where all releases have noise, by the study."""
    policy = proposal.site.policy
    if proposal.study.is_covered:
        text = render("approval.privacy.no-exact-count", disclosure=policy.disclosure)
    else:
        text = render(f"approval.disclosure.{policy.disclosure}", least=policy.cell_minimum)
    if policy.outputs:
        text += render("approval.study.besides", outputs=", ".join(policy.outputs))
    return text


def _describe_rounds(proposal: Proposal) -> str:
    study, policy = proposal.study, proposal.site.policy
    a_run = proposal.messages.run_bytes()
    # Said before an approval: the limit of a day would stop the run in its middle.
    stops = render("approval.study.stops") if a_run > policy.daily_bytes else ""
    most = study.exchanges_of_rounds
    exchanges = render("approval.study.exchanges", most=most) if most else ""
    rounds = str(study.most_rounds)
    visits = study.visits
    if visits == 1 or not study.train:
        rounds = render("approval.study.no-rounds")
    elif visits:
        rounds = render("approval.study.visits", visits=visits)
    return render(
        "approval.study.rounds",
        rounds=rounds,
        exchanges=exchanges,
        a_run=size_in_bytes(a_run),
        runs=policy.runs,
        a_day=size_in_bytes(policy.daily_bytes),
        stops=stops,
    )


def _describe_end(study: Study) -> str:
    ends = render("approval.study.no-last-day")
    if study.expires is not None:
        ends = render("approval.study.last-day", day=study.expires.isoformat())
    return render("approval.study.until", ends=ends, study=study.name)


def _describe_knowledge(proposal: Proposal) -> list[str]:
    """Return what a coordinator learns: nothing of a study whose answers all have noise, and of one without a model."""
    study = proposal.study
    if study.is_covered or study.is_statistic or not study.train:
        return []
    return [proposal.describe_knowledge()]


def describe_release(text: Text, shared_facts: Mapping[str, object]) -> str:
    """Return a sentence of the table `releases`; `shared_facts` are facts beside its own."""
    facts = {name: _fact(value, shared_facts) for name, value in {**shared_facts, **text.facts}.items()}
    return render(f"approval.releases.{text.key}", **facts)


def _fact(value: object, shared_facts: Mapping[str, object]) -> str:
    if isinstance(value, Text):
        return describe_release(value, shared_facts)
    if isinstance(value, tuple):
        return " and ".join(_fact(one, shared_facts) for one in value)
    if isinstance(value, type):
        return reveals(value)
    if not isinstance(value, Foreign):
        return str(value)
    if isinstance(value.of, type):
        return safe_line(reveals(value.of))
    return "; ".join(map(safe_line, value.of))


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
    return " ".join(match[1].split()).replace("of SummariseReply", "for the sums before the rounds")


def size_in_bytes(many: int) -> str:
    """Return a number of bytes for people.

    Examples
    --------
    >>> size_in_bytes(950), size_in_bytes(2_340), size_in_bytes(20_000_000), size_in_bytes(261_000)
    ('950 bytes', '2.3 kB', '20 MB', '261 kB')
    """
    for unit, size in (("MB", 10**6), ("kB", 10**3)):
        if many >= size:
            digits = 3 if many / size >= 99.5 else 2
            return f"{many / size:.{digits}g} {unit}"
    return f"{many} bytes"


def bytes_of_runs(study: Study, schema: Schema, sites: Sequence[Site]) -> dict[str, dict[str, int]]:
    """Return the most bytes of a run of the study at each site, and how many runs its policy's day has room for.

    Every round is asked once. No table is read.
    """
    cache: dict[tuple[int, int, str], dict[str, int]] = {}
    bytes_by_site = {}
    names = [site.name for site in sites]
    cohort = cohort_facts(dict.fromkeys(names, ""), changed=False) if has_sums(study, len(sites)) else {}
    for site in sites:
        # A message of one site is as long as another's with as long a name and the same policy.
        like = (len(site.name), len(site.title or site.name), repr(site.policy))
        if like not in cache:
            messages = StudyMessages(study, schema, site, cohort)
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
    a_day = size_in_bytes(byte_counts["daily-bytes"])
    facts = {"out": sizes["to-server"], "back": sizes["to-site"], "a_day": a_day}
    runs = byte_counts["runs-a-day"]
    if not runs:
        return render("operator.bytes.too-many", **facts)
    return render("operator.bytes.both-ways", runs=counted(runs, "run"), **facts)
