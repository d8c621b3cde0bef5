"""What changed in a study since a person at this site approved it."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping
from typing import Any

from flfed.deployment.operator.proposal import Proposal, SiteFacts
from flfed.deployment.operator.study_description import shown
from flfed.deployment.site_state.approval import Approval
from flfed.words import render, sentences

LONGEST = 60
"""Characters of a value that is shown before and after."""
MOST = 12
"""Changes that are named."""
FEATURES = "dataset.features"


def describe_changes(proposal: Proposal, facts: SiteFacts) -> list[str]:
    """Return a line on what changed since the last approval of the study; nothing where there is none."""
    earlier = facts.earlier
    if earlier is None:
        return []
    who = {"by": earlier.by, "study": earlier.study, "day": earlier.at[:10]}
    changes = list_changes(proposal, facts, earlier)
    if not changes:
        return [render("approval.line.unchanged", **who)]
    if len(changes) > MOST:
        changes[MOST:] = [render("approval.line.more-changes", count=len(changes) - MOST)]
    return [render("approval.line.changed", changes="; ".join(changes), **who)]


def list_changes(proposal: Proposal, facts: SiteFacts, earlier: Approval) -> list[str]:
    """Return what differs from an earlier approval: columns and sites first, then each key of the study's text."""
    before = _flat(tomllib.loads(earlier.text))
    now = _flat(tomllib.loads(proposal.study.text))
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
            values = {"before": _value_text(before.get(key)), "now": _value_text(now.get(key))}
            changes.append(render("approval.line.from-to", name=names.get(key, key), **values))
    return changes


def _compare_names(kind: str, before: Collection[str], now: Collection[str]) -> list[str]:
    """Return which columns or sites came and went."""
    changes = []
    if added := [name for name in now if name not in before]:
        changes.append(render(f"approval.changed.{kind}-added", names=", ".join(added)))
    if removed := [name for name in before if name not in now]:
        changes.append(render(f"approval.changed.{kind}-removed", names=", ".join(removed)))
    return changes


def _flat(table: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Return a study's values by their whole keys, such as "privacy.epsilon"."""
    values: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            values |= _flat(value, f"{path}{key}.")
        else:
            values[f"{path}{key}"] = value
    return values


def _value_text(value: object) -> str:
    """Return a value as one safe line."""
    if value is None or value == "":
        return render("approval.line.none")
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    return shown(str(value), LONGEST)
