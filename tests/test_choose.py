"""The study that six answers choose: every combination of them, each figure of a reason, and ten that are run."""

import itertools
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import flfed
from flfed import Study
from flfed.errors import UsageError
from flfed.federation.recording.privacy_recorder import promised
from flfed.federation.server.preflight import check
from flfed.records.reports.privacy_tables import describe_rows_needed
from flfed.study import choice
from flfed.study.choice import QUESTIONS, STAND_INS, Answers, Choice, DatasetFacts, choose_study, list_choices
from flfed.words import sentences

ROOT = Path(__file__).resolve().parents[1]
NUMBERS = {"sites": (2, 3, 12), "rows": (139, 499, 1_000, 20_000)}
"""Answers that are numbers: below, at and above what changes a study."""
CITED = re.compile(r"\(?(docs/[a-z-]+\.md)(?:#([a-z0-9-]+))?\)?")
FIGURE = re.compile(r"[−+]?\d[\d,]*(?:\.\d+)?")


def combinations() -> Iterator[Answers]:
    """Yield every combination of answers."""
    possible = [list_choices()[name] or NUMBERS[name] for name in QUESTIONS]
    for values in itertools.product(*possible):
        yield Answers(**dict(zip(QUESTIONS, values, strict=True)))


def choose(answers: Answers) -> Choice:
    """Return the choice for a public table in place of somebody's own."""
    return choose_study(answers, DatasetFacts(name=STAND_INS[answers.outcome], outcome=answers.outcome))


def text_of(answers: Answers) -> str:
    """Return the text of a study, without the answers at its head."""
    text = choose(answers).text
    assert text is not None
    return text.partition("\n")[2]


def settings_of(text: str) -> dict[str, Any]:
    """Return the tables of a study that the answers change."""
    tables = tomllib.loads(text)
    return {name: tables[name] for name in ("model", "strategy", "privacy")}


@cache
def refusal(text: str) -> str:
    """Return why `flfed study check` refuses a study, or ""."""
    try:
        check(Study.parse(text))
    except UsageError as error:
        return str(error)
    return ""


def broken_wishes(answers: Answers, study: Study) -> list[str]:
    """Return the answers that a study does not keep to, by the study alone."""
    added = study.aggregation.is_required and answers.sites >= 3
    has_noise = study.privacy.name == "record-dp"
    kept = {
        "visible": answers.visible == "updates" or added,
        "coordinator": answers.trusted in ("everybody", "coordinator")
        or has_noise
        or (added and answers.trusted == "partners"),
        "noise": has_noise == (answers.noise != "none"),
        "everything": study.covers_model == (answers.noise == "everything"),
        "rows": not has_noise or answers.rows >= 140,
        "figures": not study.covers_model or answers.rows >= 500,
        "trees": not study.grows_trees or added,
    }
    return [wish for wish, is_kept in kept.items() if not is_kept]


def faults(answers: Answers) -> list[str]:
    """Return what is wrong with the choice for some answers."""
    chosen = choose(answers)
    if chosen.text is None:
        return [] if re.match(r"No study .*\(docs/.*\)", chosen.reason) else ["no reason"]
    text = text_of(answers)
    if refused := refusal(text):
        return [refused]
    return broken_wishes(answers, Study.parse(text))


def test_every_combination_has_a_study_that_check_takes_or_a_sentence_why_there_is_none():
    every = list(combinations())
    assert len(every) == 864
    assert {str(answers): wrong for answers in every if (wrong := faults(answers))} == {}
    studies = [answers for answers in every if choose(answers).text]
    assert len(studies) == 357 and len({text_of(answers) for answers in studies}) > 80


@pytest.mark.parametrize("ignored", choice.EXCLUSIONS)
def test_a_chooser_that_ignores_an_exclusion_is_noticed(ignored: str, monkeypatch: pytest.MonkeyPatch):
    others = {key: excludes for key, excludes in choice.EXCLUSIONS.items() if key != ignored}
    concerned = [answers for answers in combinations() if choice.EXCLUSIONS[ignored](answers)]
    monkeypatch.setattr(choice, "EXCLUSIONS", others)
    wrongly = [answers for answers in concerned if choose(answers).text]
    assert len(wrongly) >= 9
    # A few of them, in all corners: each check takes some hundredths of a second.
    assert all(faults(answers) for answers in wrongly[:: len(wrongly) // 9])


@pytest.mark.parametrize(("low", "high"), [
    ({"rows": 139, "noise": "updates"}, {"rows": 140, "noise": "updates"}),
    (
        {"rows": 499, "noise": "everything", "visible": "updates"},
        {"rows": 500, "noise": "everything", "visible": "updates"},
    ),
    ({"rows": 4_999, "noise": "updates"}, {"rows": 5_000, "noise": "updates"}),
    ({"rows": 2_499}, {"rows": 2_500}),
    ({"sites": 2}, {"sites": 3}),
    ({"sites": 3, "visible": "updates", "trusted": "coordinator"}, {"visible": "updates", "trusted": "coordinator"}),
])  # fmt: skip
def test_a_study_changes_where_the_pages_say_so(low: dict, high: dict):
    below, above = (choose(Answers(**answers)) for answers in (low, high))
    assert above.text is not None
    assert below.text is None or settings_of(below.text) != settings_of(above.text)


@pytest.mark.parametrize("noise", ["none", "updates"])
def test_a_study_of_few_sites_says_that_partners_can_compute_an_update(noise: str):
    texts = [text_of(Answers(sites=sites, visible="updates", noise=noise)) for sites in (2, 3, 4)]
    shown = [" ".join(text.replace("\n#", " ").split()) for text in texts]  # without the breaks of comments
    assert ["can compute the other's update" in text for text in shown] == [True, False, False]
    assert ["can compute the third's update" in text for text in shown] == [False, True, False]


def test_delta_is_a_tenth_of_one_over_the_rows_of_a_site_ten_times_as_large():
    for rows in (140, 1_000, 4_999, 20_000, 300_000):
        delta = tomllib.loads(text_of(Answers(rows=rows, noise="updates")))["privacy"]["delta"]
        assert delta * 10 * rows <= 0.1 and delta <= 1e-5


def test_the_least_rows_under_noise_in_everything_are_those_that_check_names():
    study = Study.parse(text_of(Answers(rows=500, noise="everything", visible="updates")))
    assert "about 75 or more of its test persons" in describe_rows_needed(promised(study, 4))


def test_each_setting_has_a_reason_and_each_choice_of_its_own_names_a_page():
    plain = {"format", "name", "purpose", "legal-basis", "seed"}
    for text in {text_of(answers) for answers in combinations() if choose(answers).text}:
        lines = text.partition("\n[dataset]")[2].splitlines()
        for before, line in itertools.pairwise(lines):
            key = line.partition(" = ")[0]
            if " = " in line and not line.startswith("#"):
                assert before.startswith("# ") or "  # " in line, line
                assert key not in plain or before.startswith("# "), line
    cited = [text for text in sentences("choose", "reasons").values() if CITED.search(text)]
    assert len(cited) >= 0.85 * len(sentences("choose", "reasons"))


@cache
def section(page: str, anchor: str) -> str:
    """Return a section of a page with the sections in it; the whole page for no anchor."""
    text = (ROOT / page).read_text(encoding="utf-8")
    if not anchor:
        return text
    parts = re.split(r"^(#+) (.*)$", text, flags=re.MULTILINE)
    found = ""
    depth = 0
    for marks, heading, body in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        slug = re.sub(r"[^\w\s-]", "", heading.lower()).replace(" ", "-")
        if slug == anchor:
            depth = len(marks)
            found = heading
        elif depth and len(marks) <= depth:
            break
        if depth:
            found += "\n" + body
    return found


def figures(text: str) -> list[str]:
    return FIGURE.findall(text)


def strayed(reason: str) -> list[str]:
    """Return the figures of a reason that its page lacks; decimals of a sentence stand in one line there."""
    wrong = []
    begin = 0
    for cited in CITED.finditer(reason):
        quoting = reason[begin : cited.start()]
        begin = cited.end()
        place = section(cited[1], cited[2] or "")
        if not place:
            wrong.append(f"{cited[0]} is no section")
        wrong += [figure for figure in figures(quoting) if figure not in figures(place)]
        for sentence in quoting.split(". "):
            decimals = {figure for figure in figures(sentence) if "." in figure}
            if not any(decimals <= set(figures(line)) for line in place.splitlines()):
                wrong.append(f"not in one line of {cited[0]}: {sorted(decimals)}")
    # A figure after the last page would rest on none.
    return wrong + figures(reason[begin:])


@pytest.mark.parametrize("table", ["reasons", "none"])
def test_each_figure_that_a_reason_names_stands_on_the_page_that_it_names(table: str):
    reasons = sentences("choose", table)
    assert {key: wrong for key, reason in reasons.items() if (wrong := strayed(reason))} == {}
    pages = {cited[1] for reason in reasons.values() for cited in CITED.finditer(reason)}
    assert "docs/threat-model.md" in pages
    assert table == "none" or {f"docs/{name}.md" for name in ("boosted-trees", "methods", "protection")} <= pages


@pytest.mark.parametrize(("before", "after"), [("0.848", "0.856"), ("#when-trees", "#where-trees"), ("0.813", "0.900")])
def test_a_figure_that_drifts_from_its_page_is_noticed(before: str, after: str):
    reason = sentences("choose", "reasons")["model-trees"]
    assert strayed(reason) == [] and strayed(reason.replace(before, after, 1)) != []


def test_the_everyday_names_are_those_of_the_chosen_studies_and_stand_in_the_page_on_methods():
    studies = [Study.parse(text_of(answers)) for answers in combinations() if choose(answers).text]
    for kind, names in choice.EVERYDAY.items():
        assert {getattr(study, kind).name for study in studies} == set(names)
    listed = section("docs/methods.md", "which-strategy-to-begin-with")
    assert set(re.findall(r"^\| `([a-z-]+)` \|", listed, re.MULTILINE)) == set(choice.EVERYDAY["strategy"])


RUN = [
    Answers(),
    Answers(rows=20_000),
    pytest.param(Answers(outcome="multi-class", rows=20_000, sites=3), marks=pytest.mark.proof),
    Answers(outcome="regression", visible="updates"),
    Answers(outcome="multi-class", visible="updates", trusted="coordinator"),
    Answers(noise="updates", trusted="nobody"),
    Answers(noise="updates", rows=20_000, visible="updates", trusted="partners"),
    Answers(noise="everything", visible="updates"),
    Answers(trusted="partners"),
    Answers(outcome="regression", noise="updates"),
]
"""One of each kind of study: trees of two kinds, trimmed means, noise of three kinds, sums."""


@pytest.mark.parametrize("answers", RUN, ids=lambda answers: choice.format_answers(answers).replace(", ", "-"))
def test_ten_chosen_studies_run(answers: Answers):
    study = Study.parse(text_of(answers))
    result = flfed.run(study.replace({"rounds": 3, "compare.resamples": 200}))
    assert result.status == "completed"
    assert result.report["rounds"] == 3
    assert len(result.report["sites"]) == answers.sites
