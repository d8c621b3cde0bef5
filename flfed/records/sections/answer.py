"""Sections around a run's answer: warnings, words, what the figures rest on, and what to do next."""

from __future__ import annotations

from flfed.records.objects import figure_of, site_of
from flfed.records.reports import faults, narrative
from flfed.records.reports.privacy_tables import has_model, mechanism_lines
from flfed.records.reports.shown_run import ShownRun
from flfed.records.reports.site_verdict import code_of_mean, site_verdict
from flfed.records.section import Section, Table
from flfed.records.statistics.noised_scores import (
    is_uncompared,
    released,
    trained_on,
    uncompared_in_words,
)
from flfed.records.statistics.odd_sites import odd_sites_in_words
from flfed.records.statistics.own_models import own_models_in_words
from flfed.records.statistics.training_state import training_in_words
from flfed.records.statistics.verdict import DO_NOT_USE, PAYS, sentence_case
from flfed.study.study import names
from flfed.study.study_text import parsed_study
from flfed.words import render

REPEATS = 10
"""Repeats that are proposed where a gain may be chance."""


def warnings(shown: ShownRun) -> list[str]:
    """Return the warnings about a run's figures: missing sites, odd ones, and columns that may reveal the outcome."""
    report = shown.report
    return [*faults.missing_in_words(report), *odd_sites_in_words(report), *faults.leaks_in_words(shown.leaks)]


def words(shown: ShownRun, metric: str | None = None) -> list[str]:
    """Return the run in words, without what its headline, its warnings and the table of `basis` have."""
    report = shown.report
    metric = metric or shown.metric
    elsewhere = {*warnings(shown), uncompared_in_words(report)}
    elsewhere |= {line["In this run"] for line in basis(shown).tables[0].lines}
    if metric is not None and not is_uncompared(report):
        elsewhere |= {*narrative.doubts(report, metric), *narrative.headline(report, metric)}
    lines = narrative.story(report, metric=metric, planned=shown.planned)
    return [line for line in lines if line not in elsewhere]


def set_aside(shown: ShownRun) -> Section:
    """Return rejected updates, refusals and warnings."""
    lines = faults.set_aside_lines(shown.report, shown.events)
    title = render("pages.rejected.title")
    lead = () if shown.run.faults else (shown.none_rejected,)
    tables = (Table(lines=lines),) if lines else ()
    return Section(title=title, lead=lead, tables=tables, note=faults.holdout_in_words(shown.events))


def leaks(shown: ShownRun) -> Section:
    """Return which columns may leak the target."""
    title = render("pages.leaks.title")
    note = []
    if untested := (shown.leaks or {}).get("untested", ()):
        note.append(render("pages.leaks.untested", columns=", ".join(map(str, untested))))
    lines = faults.leak_lines(shown.events, shown.leaks)
    none = render("pages.leaks.unchecked" if shown.leaks is None else "pages.leaks.none")
    return Section(title=title, lead=() if lines else (none,), says=lines, note=note)


def basis(shown: ShownRun) -> Section:
    """Return what the answer rests on: rows, rounds, privacy, and the models that the shared one is compared with."""
    facts = {}
    if rows := _rows(shown):
        facts["Rows"] = rows
    if shown.trains:
        facts["Rounds"] = narrative.course_in_words(shown.report, shown.planned)
    facts["Privacy"] = _privacy(shown)
    if shown.metric is not None and not is_uncompared(shown.report):
        facts["Compared with"] = own_models_in_words(shown.report) or render("pages.basis.same")
    lines = [{"Basis": name, "In this run": text} for name, text in facts.items()]
    return Section(title=render("pages.basis.title"), tables=(Table(lines=lines),))


def _rows(shown: ShownRun) -> str:
    """Return the rows of the sites that took part, "" without one."""
    taking_part = [entry for entry in shown.compared_sites if entry.status != "refused"]
    if not taking_part:
        return ""
    where = taking_part[0].site if len(taking_part) == 1 else f"{len(taking_part)} sites"
    if not released(shown.report).is_exact:
        about = ", ".join(f"{name} {trained_on(site)}" for name, site in shown.run.sites.items())
        return render("pages.basis.noised", about=about or where)
    rows = [entry.rows for entry in taking_part if entry.rows is not None]
    if not rows:
        return render("pages.basis.uncounted", sites=where)
    total = f"{sum(rows):,}"
    if len(rows) < len(taking_part):
        total = render("pages.basis.least", rows=total)
    return _describe_rows(shown, total, where)


def _describe_rows(shown: ShownRun, total: str, where: str) -> str:
    """Return a number of rows at some sites, with the test rows where models were compared on them."""
    sites = [site_of(site) for site in shown.run.sites.values()]
    # A sum over all sites names its rows as a site does.
    summed = site_of(shown.run.summed_figures)
    tested = sum(site.holdout_rows or 0 for site in (*sites, summed))
    if not tested:
        return render("pages.basis.rows", rows=total, sites=where)
    classes = [site.holdout_classes for site in sites]
    events = ""
    if not summed.holdout_rows and None not in classes:
        events = render("pages.basis.events", events=sum(of["1"] for of in classes))
    if shown.run.is_validation:
        return render("pages.basis.scored", rows=total, sites=where, events=events)
    return render("pages.basis.tested", tested=tested, events=events, rows=total, sites=where)


def _privacy(shown: ShownRun) -> str:
    """Return which noise protects the rows, and whether updates were added up in secret."""
    parts = []
    for line in mechanism_lines(shown.run.privacy, shown.sites):
        if line["Mechanism"] in ("differential privacy", "secure aggregation", "homomorphic encryption"):
            promise = "" if line["Promises"].startswith("no") else f" ({line['Promises']})"
            parts.append(f"{line['Mechanism']}: {line['Is']}{promise}")
    return f"{sentence_case('; '.join(parts))}."


def next_steps(shown: ShownRun, metric: str | None = None) -> Section | None:
    """Return what to do next, by the verdict on `metric`, at first the primary one: commands, and pages of the app.

    None where a run is not complete: its head says how to resume it. None of a validation, whose updates say it.
    """
    if shown.run.status != "completed" or shown.run.is_validation:
        return None
    metric = metric or shown.metric
    run = shown.run.run
    steps = [render("pages.next.leaks")] if faults.leaks_in_words(shown.leaks) else []
    if metric is None:
        return Section(title=render("pages.next.title"), says=[*steps, render("pages.next.figures", run=run)])
    steps.append(_step(shown, metric))
    if len(shown.run.sites) > 1 and not is_uncompared(shown.report):
        steps.append(render("pages.next.sites"))
    can_attack = not shown.report["audit"] and not is_of_frames(shown) and not shown.run.is_of_parties
    if can_attack and released(shown.report).is_exact and has_model(shown.runs[0]):
        steps.append(render("pages.next.audit", run=run))
    return Section(title=render("pages.next.title"), says=steps)


def _step(shown: ShownRun, metric: str) -> str:
    """Return the step that the comparison asks for."""
    run = shown.run
    command = f"flfed {'coordinator' if shown.runs[0].at_institutions else 'study'} run {_study_file(shown)}"
    of_frames = is_of_frames(shown)
    if training_in_words(run.training):
        rounds = 2 * shown.planned
        if of_frames:
            return render("pages.next.frames-rounds", rounds=rounds)
        if shown.runs[0].at_institutions:
            return render("pages.next.undertrained-sites", study=_study_file(shown), rounds=rounds)
        return render("pages.next.undertrained", command=command, rounds=rounds)
    mean = figure_of(run.mean_gain, metric)
    code = code_of_mean(mean)
    if mean.value is None and len(run.sites) == 1:
        code = site_verdict(next(iter(run.sites.values())), metric)[0]
    if code == PAYS or is_uncompared(shown.report):
        return render("pages.next.export", run=run.run)
    if code == DO_NOT_USE:
        return render("pages.next.loss")
    if of_frames:
        return render("pages.next.frames-rows", repeats=REPEATS)
    # More splits do not help where sites keep their test rows, or have too few to be judged.
    if mean.value is not None and shown.runs[0].repeats == 1 and all(site.resplit for site in shown.sites):
        return render("pages.next.repeats", command=command, repeats=REPEATS)
    return render("pages.next.rows", command=command)


def is_of_frames(shown: ShownRun) -> bool:
    """Return whether `federate` ran the study on data frames: their dataset is theirs alone, and there is no file."""
    dataset = parsed_study(shown.study_text).get("dataset", {}).get("name", "")
    is_alike = dataset == shown.run.study and dataset not in names()
    return is_alike or dataset.startswith("frames-")


def _study_file(shown: ShownRun) -> str:
    """Return the name of a study that flfed ships; any other one is a file of its owner's."""
    study = shown.run.study
    return study if study in names() else f"{study}.toml"
