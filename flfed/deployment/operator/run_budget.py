"""What a run of a study would spend of a site's budget, for the person who decides about it."""

from __future__ import annotations

import math

from flfed.federation.client.account import shown, spent_at
from flfed.federation.client.protection import charge_of
from flfed.paths import SiteFolder
from flfed.rows.data.site import Site
from flfed.study.study import Study
from flfed.words import counted, render


def describe_study_budget(folder: SiteFolder, site: Site, study: Study, runs: int = 1) -> list[str]:
    """Return what so many runs of a study would spend of a site's privacy budget, and how many fit; nothing of none."""
    charge = charge_of(study)
    if charge is None or not site.has_outcome:
        return []
    policy = site.policy
    spent = spent_at(folder)
    after = spent.epsilon(policy.delta, charge.releases, runs)
    facts = {"spent": shown(spent.epsilon(policy.delta)), "delta": policy.delta, "then": shown(after)}
    facts |= {"whole": f"{runs} runs", "makes": "make"} if runs > 1 else {"whole": "A run", "makes": "makes"}
    if charge.given_encoder and math.isfinite(after):
        facts["then"] = render("budget.run.given-encoder", epsilon=facts["then"])
    left = spent.runs_left(policy, charge.releases)
    if policy.epsilon is None or left is None:
        return [render("budget.run.without-budget", **facts)]
    fit = render("budget.run.none-fits") if not left else render("budget.run.fit", left=counted(left, "such run"))
    sentences = [render("budget.run.spent", budget=policy.epsilon, **facts), fit]
    if not policy.enforces_budget:
        sentences.append(render("budget.account.not-enforced"))
    return sentences
