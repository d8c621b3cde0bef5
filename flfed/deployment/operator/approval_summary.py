"""The ten lines that a person reads before approving a study, and what changed since the last approval.

Each line has the facts that a decision rests on. What raises the risk stands in them and never in the details alone.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from flfed.deployment.operator.columns_read import describe_code, grouped_columns
from flfed.deployment.operator.proposal import Proposal, SiteFacts, read_site_facts
from flfed.deployment.operator.study_description import (
    describe_details,
    describe_site_facts,
    least_participants,
    size_in_bytes,
)
from flfed.deployment.site_state.approval import Approval
from flfed.errors import FlfedError
from flfed.paths import SiteFolder
from flfed.records.statistics.verdict import metric_name
from flfed.rows.data.site import Site
from flfed.rows.statistics.of_study import statistic_of
from flfed.study.study import Study
from flfed.study.study_text import study_values
from flfed.updates.masks.pairs import LEAST_SITES
from flfed.updates.messages.kinds import COMPARE, asks
from flfed.updates.parts.part import Place
from flfed.words import render, safe_line, sentences, shorten

LONGEST = 160
"""Characters of a text that came with the study; the details have all of it."""
MOST_COLUMNS = 15
"""Columns that are named; of more the number, and those that are new at this site."""
MOST_NAMES = 8
"""Sites and new columns that are named."""
LONGEST_VALUE = 60
"""Characters of a value that is shown before and after a change."""
MOST_CHANGES = 12
"""Changes that are named."""
FEATURES = "dataset.features"
BEFORE = (Place.ENROLMENT, Place.BEFORE_ROUNDS)
ROUNDS = (Place.ROUND, Place.WITH_UPDATE, Place.FIGURES)
AFTER = (Place.END, Place.AUDIT)


def summarise(proposal: Proposal, facts: SiteFacts) -> list[str]:
    """Return the ten lines, what changed since an earlier approval, and how to see every detail.

    Parameters
    ----------
    proposal : Proposal
    facts : SiteFacts
        Of `read_site_facts`.
    """
    study, site = proposal.study, proposal.site
    until = render("approval.line.no-day")
    if study.expires is not None:
        until = study.expires.isoformat()
    purpose = {"purpose": safe_line(study.purpose, LONGEST), "basis": safe_line(study.legal_basis, LONGEST)}
    return [
        _describe_request(proposal),
        render("approval.line.purpose", **purpose),
        _describe_columns(proposal, facts),
        _describe_rows(proposal, facts),
        _describe_releases(proposal),
        " ".join([proposal.guarantee.protection(), *_list_gaps(proposal)]),
        " ".join([proposal.guarantee.worst_case(), *_list_risks(proposal, facts)]),
        _describe_amount(proposal, facts),
        render("approval.line.until", day=until),
        render("approval.line.stop", study=study.name, site=site.name),
        *describe_changes(proposal, facts),
        render("approval.line.all", sha256=study.sha256()[:12]),
    ]


def _describe_request(proposal: Proposal) -> str:
    """Return who asks whom, and with whom."""
    others = render("approval.line.no-others")
    if proposal.co_sites:
        others = shorten(proposal.co_sites, MOST_NAMES)
    least = least_participants(proposal)
    facts = {"site": proposal.site.name, "study": proposal.study.name, "others": others, "least": least}
    if proposal.coordinator:
        return render("approval.line.who", coordinator=proposal.coordinator, **facts)
    return render("approval.line.unjoined", **facts)


def _describe_columns(proposal: Proposal, facts: SiteFacts) -> str:
    """Return the columns that the study reads; of many their number, and those that are new."""
    study, schema = proposal.study, proposal.schema
    if study.is_statistic:
        columns = _name_columns(proposal, facts, statistic_of(study).columns(schema))
        return render("approval.line.columns-of-statistic", columns=columns)
    columns = _name_columns(proposal, facts, proposal.features)
    if study.train:
        line = render("approval.line.columns", columns=columns, target=schema.target)
    else:
        line = render("approval.line.validated", columns=columns, target=schema.target)
    if grouped := grouped_columns(study, schema):
        line += render("approval.line.grouped", columns=", ".join(grouped))
    if study.compare.incumbent is not None:
        line += render("approval.line.incumbent", column=study.compare.incumbent.column)
    return line


def _name_columns(proposal: Proposal, facts: SiteFacts, columns: Sequence[str]) -> str:
    if len(columns) <= MOST_COLUMNS:
        return ", ".join(columns)
    approved = approved_columns(proposal, facts)
    new = [name for name in columns if name not in approved]
    if not approved or not new:
        return render("approval.line.more-columns", count=len(columns))
    names = shorten(new, MOST_NAMES)
    return render("approval.line.new-columns", count=len(columns), dataset=proposal.study.dataset.name, names=names)


def approved_columns(proposal: Proposal, facts: SiteFacts) -> set[str]:
    """Return the columns that studies on the dataset were approved for at this site."""
    columns: set[str] = set()
    for approval in facts.approved:
        try:
            study = Study.parse(approval.text)
        except FlfedError:  # a text that is unreadable now: its columns count as not approved
            continue
        if study.is_statistic:
            columns.update(statistic_of(study).columns(proposal.schema))
        else:
            columns.update(proposal.schema.features(study.dataset.features))
    return columns


def _describe_rows(proposal: Proposal, facts: SiteFacts) -> str:
    if facts.rows is None:
        function = proposal.serving.source.prepare
        made = f" {function.__qualname__} of this site's package makes them of its table." if function else ""
        return render("approval.line.no-rows") + made
    rows = render("approval.line.rows", rows=facts.rows.rows, at=facts.rows.at[:16].replace("T", " "))
    if gone := facts.rows.excluded:
        rows += " " + render("commands.decision.excluded", **vars(gone))
    return rows + describe_code(proposal.serving, facts.rows)


def _describe_releases(proposal: Proposal) -> str:
    """Return what the site releases before training, in each round and afterwards."""
    study = proposal.study
    sent = sentences("approval", "released")
    kept = sentences("approval", "retained")
    items: dict[tuple[Place, ...], list[str]] = {BEFORE: [], ROUNDS: [], AFTER: []}
    retained = []
    primary = metric_name(proposal.messages.primary)
    for release in proposal.messages.releases:
        key = release.text.key
        facts = {"primary": primary, **release.text.facts}
        if key in kept:
            retained.append(render(f"approval.retained.{key}", **facts))
        if key in sent:
            when = next(places for places in items if release.place in places)
            items[when].append(render(f"approval.released.{key}", **facts))
    lines = [render("approval.line.released")]
    if not study.train:
        lines.append(render("approval.line.only-scored", model=safe_line(study.start_sha256, LONGEST)))
    if items[BEFORE]:
        lines.append(render("approval.line.before", items="; ".join(items[BEFORE])))
    if study.is_statistic:
        lines.append(render("approval.line.once", items="; ".join(items[ROUNDS])))
    elif study.train:
        lines.append(render("approval.line.rounds", rounds=study.most_rounds, items="; ".join(items[ROUNDS])))
    if items[AFTER]:
        lines.append(render("approval.line.after", items="; ".join(items[AFTER])))
    return " ".join([*lines, *retained])


def _list_gaps(proposal: Proposal) -> Iterator[str]:
    """Yield what the protection leaves out."""
    study = proposal.study
    if proposal.guarantee.excludes_encoder:
        yield render("approval.risk.given-encoder")
    if study.warm_start and study.train and study.privacy.name != "none":
        yield render("approval.risk.start", model=safe_line(study.warm_start, LONGEST))
    if study.aggregation.is_optional and not proposal.agreement.sums:
        yield render("approval.risk.no-secure-aggregation", least=LEAST_SITES)
    if not study.is_covered:
        yield from _list_exact_outputs(proposal)


def _list_exact_outputs(proposal: Proposal) -> Iterator[str]:
    """Yield which counts the site's policy suppresses, and which outputs it allows beyond the usual ones."""
    policy = proposal.site.policy
    if policy.is_open:
        yield render("approval.risk.single-cells")
    else:
        yield render("approval.line.suppressed", least=policy.cell_minimum)
        for output in policy.outputs:
            if output in sentences("approval", "output"):
                yield render(f"approval.output.{output}")
            if output in sentences("approval", "output-of-models") and not proposal.study.is_statistic:
                yield render(f"approval.output-of-models.{output}")


def _list_risks(proposal: Proposal, facts: SiteFacts) -> Iterator[str]:
    """Yield what makes the worst case worse or likelier in this study, at this site."""
    study = proposal.study
    # Parties with other columns share no model, and the coordinator brings none to compare.
    if study.is_vertical:
        return
    if proposal.participants == 2 and not proposal.guarantee.updates_have_noise:
        kind = "sums" if study.is_statistic else "updates"
        yield render(f"approval.two-sites.{kind}")
    if asks(study, COMPARE) and not study.is_covered:
        yield render("approval.risk.scored")
    if facts.single_outcomes is not None and facts.single_outcomes[0]:
        outcomes, rows = facts.single_outcomes
        yield render("approval.risk.single-outcomes", outcomes=outcomes, rows=rows)
    # Two sums over other sites differ by the part of those between them.
    if proposal.agreement.changed_sites and proposal.agreement.sums:
        yield render("approval.risk.changed-sites", dataset=study.dataset.name)


def _describe_amount(proposal: Proposal, facts: SiteFacts) -> str:
    """Return how much may be released: bytes, runs, models and privacy budget."""
    a_run, a_day = proposal.messages.run_bytes(), proposal.site.policy.daily_bytes
    sizes = {"a_run": size_in_bytes(a_run), "a_day": size_in_bytes(a_day)}
    line = [render("approval.line.amount", left=facts.runs.left, most=facts.runs.most, **sizes)]
    if a_run > a_day:
        line.append(render("approval.line.amount-stops"))
    return " ".join([*line, *facts.budget])


def describe_changes(proposal: Proposal, facts: SiteFacts) -> list[str]:
    """Return a line on what changed since the last approval of the study; nothing where there is none."""
    earlier = facts.earlier
    if earlier is None:
        return []
    who = {"by": earlier.by, "study": earlier.study, "day": earlier.at[:10]}
    changes = list_changes(proposal, facts, earlier)
    if not changes:
        return [render("approval.line.unchanged", **who)]
    if len(changes) > MOST_CHANGES:
        changes[MOST_CHANGES:] = [render("approval.line.more-changes", count=len(changes) - MOST_CHANGES)]
    return [render("approval.line.changed", changes="; ".join(changes), **who)]


def list_changes(proposal: Proposal, facts: SiteFacts, earlier: Approval) -> list[str]:
    """Return what differs from an earlier approval: columns and sites first, then each key of the study's text."""
    before = study_values(earlier.text)
    now = study_values(proposal.study.text)
    features = proposal.schema.features
    changes = _compare_names("columns", features(before.pop(FEATURES, None)), features(now.pop(FEATURES, None)))
    changes += _compare_names("sites", earlier.co_sites, proposal.co_sites)
    before |= {"coordinator": earlier.coordinator, "schema": earlier.schema_sha256[:12], "sums": earlier.sums}
    now |= {"coordinator": proposal.coordinator, "schema": proposal.schema.sha256()[:12]}
    now["sums"] = proposal.agreement.sums
    if facts.rows is not None:
        before["rows"] = earlier.rows_sha256[:12]
        now["rows"] = facts.rows.sha256[:12]
    # Keys with a name of their own are what people ask about first.
    names = sentences("approval", "changed-keys")
    for key in [*names, *sorted((before.keys() | now.keys()) - names.keys())]:
        if before.get(key) != now.get(key):
            old, new = _from_difference(before.get(key), now.get(key))
            values = {"before": _value_text(old), "now": _value_text(new)}
            changes.append(render("approval.line.from-to", name=names.get(key, key), **values))
    return changes


def _from_difference(before: object, now: object) -> tuple[object, object]:
    """Return two long texts from the word before their first difference, all else as it is."""
    if not isinstance(before, str) or not isinstance(now, str):
        return before, now
    same = os.path.commonprefix([before, now])
    begin = same[: max(same.rfind(" "), 0)].rfind(" ") + 1
    if min(len(before), len(now)) <= LONGEST_VALUE or begin == 0:
        return before, now
    return f"… {before[begin:]}", f"… {now[begin:]}"


def _compare_names(kind: str, before: Collection[str], now: Collection[str]) -> list[str]:
    """Return which columns or sites came and went."""
    changes = []
    if added := [name for name in now if name not in before]:
        changes.append(render(f"approval.changed.{kind}-added", names=", ".join(added)))
    if removed := [name for name in before if name not in now]:
        changes.append(render(f"approval.changed.{kind}-removed", names=", ".join(removed)))
    return changes


def _value_text(value: object) -> str:
    """Return a value as one safe line."""
    if value is None or value == "":
        return render("approval.line.none")
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    return safe_line(str(value), LONGEST_VALUE)


def describe_decision(
    folder: SiteFolder, study: Study, site: Site, approval: Approval, coordinator: str
) -> tuple[list[str], list[str]]:
    """Return the ten lines and the details of a study that is decided about, as `flfed site approve` shows them now."""
    proposal = Proposal.of_decision(study, site, approval, coordinator)
    details = describe_details(proposal)
    # A ledger that cannot be read hides past releases, and not what the study allows.
    try:
        facts = replace(read_site_facts(folder, proposal), earlier=None)
    except FlfedError as error:
        return [], [*details, render("approval.line.no-facts", dataset=study.dataset.name, error=error)]
    return summarise(proposal, facts), details + describe_site_facts(proposal, facts)
