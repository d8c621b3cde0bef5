"""The ten lines before an approval: all facts that a decision rests on, in at most 250 words."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from itertools import product
from typing import Any

import pytest

from flfed.deployment.operator.approval_summary import summarise
from flfed.deployment.operator.proposal import Proposal, read_site_facts
from flfed.deployment.operator.secure_sums import Agreement
from flfed.deployment.site_state import approval as approvals
from flfed.federation.server.preflight import check
from flfed.paths import SiteFolder
from flfed.rows.data import site_discovery as sites
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site
from flfed.study.study import Study
from tests.approval_text import details, ten_lines

MakeSites = Callable[..., list[Site]]
OTHERS = ("site-02", "site-03", "site-04")
PLAIN = Agreement()
SUMMED = Agreement(True, {name: f"{number:x}" * 64 for number, name in enumerate(("site-01", *OTHERS))})
MOST_WORDS = 250
LINES = 10


@dataclass(frozen=True)
class Case:
    """A kind of study, and what its ten lines must say."""

    changes: dict[str, Any]
    says: tuple[str, ...]
    agreement: Agreement = PLAIN
    policy: Policy = Policy(epsilon=8.0)


SUMS = "before training, number of rows, sums and counts by column"
FIGURES = "Afterwards: figures over test rows; results of test attacks (audit), on request."
SCORED = "Test figures of crafted models can reveal single outcomes."
NO_NOISE = "no noise, no secure aggregation. The coordinator can read this site's updates."
CRAFTED = "Worst case: a coordinator that sends crafted models computes this site's rows and outcomes."
DP = {"privacy.name": "record-dp", "privacy.epsilon": 3.0, "plan.steps": 10}
CASES = {
    "plain": Case(
        {},
        (SUMS, "In each of 5 rounds: a model update; its loss and AUC; its own intercept, once.", FIGURES, NO_NOISE,
         "Counts under 10 rows are suppressed.", CRAFTED, SCORED,
         "at most 26 kB a run and 20 MB a day; 10 of 10 runs left."),
    ),
    "record-dp": Case(
        DP,
        (SUMS, "a model update", "noise in each training step, epsilon 3 at delta 1e-05 for each person",
         "Counts, losses and test figures have none.",
         "whoever sees every update learns about one person at most what epsilon allows", SCORED,
         "have spent epsilon 0 of 8 at delta 1e-05. A run makes it 3."),
    ),
    "record-dp in sums": Case(
        {**DP, "secure-aggregation": "on"},
        ("a masked model update", "test figures have none. Updates leave in sums over all 4 sites, or not at all."),
        SUMMED,
    ),
    "record-dp, exact encoder": Case(
        {**DP, "encode.scaler": "global"},
        ("Means and deviations for scaling have no noise, and that epsilon leaves them out.",
         "A run makes it 3 (given the encoder)."),
    ),
    "covers": Case(
        {**DP, "privacy.covers": "study", "encode.scaler": "schema"},
        ("before training, counts of rows by class, with noise", "a model update with noise",
         "counts of test rows by score, with noise", "everything released has noise, epsilon 2.99",
         "whoever sees everything learns about one person at most what epsilon allows",
         "A run makes it 2.99"),
    ),
    "secure aggregation": Case(
        {"secure-aggregation": "on"},
        (SUMS, "a masked model update", "The coordinator sees the sum over all 4 sites, or none. No noise is added.",
         "a coordinator and a site together craft models that reveal rows of all sites; all others isolate this one's",
         SCORED),
        SUMMED,
    ),
    "ckks": Case(
        {"secure-aggregation": "ckks"},
        (SUMS, "an encrypted model update", "in its turn, the opened sum of a round",
         "The coordinator sees the sum over all 4 sites, or none. No noise is added.",
         "one colluding site reads every site's updates, since all 4 sites hold one key", SCORED),
        SUMMED,
    ),
    "trees": Case(
        {"strategy.name": "boosted-trees", "model.name": "boosted-trees",
         "plan.epochs": None, "plan.lr": None, "plan.l2": None},
        (SUMS, "counts of rows by bin of each column", "exact sums of gradients by column and bin",
         "no noise, no secure aggregation. The coordinator can read this site's sums.",
         "the sums reveal outcomes of single rows; a coordinator that chooses the splits computes all rows", SCORED),
    ),
    "own parts": Case(
        {"strategy.name": "ditto"},
        (SUMS, "a model update", "A model of this site's own stays here.", NO_NOISE, CRAFTED),
    ),
    "codec": Case({"codec.name": "int8"}, (SUMS, "a model update; packed by codec int8", NO_NOISE, CRAFTED)),
}  # fmt: skip
HEAD = """
format = 1
name = "small"
purpose = "Test"
legal-basis = "none needed"
seed = 7
[dataset]
name = "small"
"""
STATISTICS = {
    "statistic": (
        '[statistic]\nname = "odds-ratio"\nby = "flag"\n',
        Case({},
             ("Columns: flag, y.", "Released: once, odds ratio", "The coordinator can read this site's sums.",
              "This site's policy is 'open': counts are exact, also of single rows.",
              "the sums are exact, and reveal outcomes of a small group"),
             policy=Policy(disclosure="open")),
    ),
    "analysis": (
        '[statistic]\nname = "summary"\ncolumns = ["x1", "colour"]\n[privacy]\nname = "record-dp"\nepsilon = 1.0\n',
        Case({},
             ("Columns: x1, colour.", "Released: once, counts and sums of these columns, with noise.",
              "everything released has noise, epsilon 1 at delta 1e-05 for each person",
              "whoever sees everything learns about one person at most what epsilon allows",
              "A run makes it 1.")),
    ),
}  # fmt: skip


def study_and_case(name: str, small_study: str) -> tuple[Study, Case]:
    """The study of a case, checked as before a run."""
    if name in STATISTICS:
        table, case = STATISTICS[name]
        study = Study.parse(HEAD + table)
    else:
        case = CASES[name]
        study = Study.parse(small_study).replace(case.changes)
    check(study)
    return study, case


def words(text: list[str]) -> int:
    return len(" ".join(text).split())


@pytest.mark.parametrize("name", [*CASES, *STATISTICS])
def test_ten_lines_have_what_a_decision_rests_on(small_sites: MakeSites, small_study: str, name: str):
    study, case = study_and_case(name, small_study)
    (site,) = small_sites(1, policy=case.policy)
    text = ten_lines(study, site, OTHERS, agreement=case.agreement)
    whole = " ".join(text)
    assert len(text) == LINES + 1 and words(text) <= MOST_WORDS
    for fact in (
        "Heart consortium asks site-01 to join study small, with site-02, site-03, site-04.",
        "A run needs at least",
        'Purpose: "Test". Legal basis: "none needed".',
        "Rows: a snapshot of today's, without people who opted out.",
        "Until: the study sets no last day.",
        "flfed site withdraw small, or flfed site pause site-01. Nothing that was sent can be recalled.",
        f"Every detail: --all. An approval covers all of it (SHA-256 {study.sha256()[:12]}).",
        *case.says,
    ):
        assert fact in whole, fact
    # No sentence asks a reader to hold more than a breath, lists of columns and releases apart.
    for line in text:
        if not line.startswith(("Columns", "Released")):
            for sentence in re.split(r"(?<=[.:]) ", line):
                assert len(sentence.split()) <= 22, sentence


COVERED = {"covers", "analysis"}


def is_exact(name: str) -> bool:
    return name not in COVERED


def trains(name: str) -> bool:
    return name not in COVERED | {"statistic"}


IN_CLEAR = {"plain", "trees", "own parts", "codec", "statistic", "figures in sums only"}
"""Cases whose updates or sums have neither noise nor secure aggregation."""
RISKS: dict[str, tuple[str, Callable[[str], bool]]] = {
    "open": ("counts are exact, also of single rows", is_exact),
    "two sites": ("The other site can", lambda name: name in IN_CLEAR),
    "single cells": ("The policy allows counts of single rows in sums.", is_exact),
    "histogram": ("a cell can be one row", trains),
    "training figures": ("crafted models read single outcomes from them", trains),
    "scored": (SCORED, trains),
}  # fmt: skip
OUTPUTS = {
    "single cells": "single-cells-in-sums", "histogram": "score-histogram", "training figures": "training-figures",
}  # fmt: skip


NEED_THREE = {"secure aggregation", "ckks"}
"""Cases with secure aggregation, which two sites cannot have: each could subtract its own part."""


@pytest.mark.parametrize(
    ("name", "risk"),
    [pair for pair in product([*CASES, *STATISTICS], RISKS) if pair not in product(NEED_THREE, ["two sites"])],
)
def test_each_risk_stands_in_the_ten_lines_where_it_applies_and_nowhere_else(small_sites, small_study, name, risk):
    study, case = study_and_case(name, small_study)
    sentence, applies = RISKS[risk]
    policy, others = case.policy, OTHERS
    if risk == "open":
        policy = Policy(epsilon=8.0, disclosure="open")
    elif risk in OUTPUTS:
        policy = Policy(epsilon=8.0, outputs=(OUTPUTS[risk],))
    elif risk == "two sites":
        others = OTHERS[:1]
    (site,) = small_sites(1, policy=policy)
    text = ten_lines(study, site, others, agreement=case.agreement)
    assert (sentence in " ".join(text)) == applies(name)
    assert len(text) == LINES + 1 and words(text) <= MOST_WORDS
    # Without the risk the sentence is not there.
    if risk not in ("scored", "open"):
        (site,) = small_sites(1, policy=Policy(epsilon=8.0))
        assert sentence not in " ".join(ten_lines(study, site, OTHERS, agreement=case.agreement))


def test_all_risks_at_once_are_a_few_words_more(small_sites: MakeSites, small_study: str):
    study = Study.parse(small_study).replace({"secure-aggregation": "auto"})
    (site,) = small_sites(1, policy=Policy(outputs=tuple(OUTPUTS.values())))
    proposal = Proposal.of(study, site, OTHERS[:1], "Heart consortium")
    facts = read_site_facts(SiteFolder(site.name), proposal)
    facts = replace(facts, single_outcomes=(3, 42))
    text = summarise(proposal, facts)
    whole = " ".join(text)
    for said in (
        "Secure aggregation is off: it needs 3 sites.",
        "The other site can compute this site's update",
        "The first sums reveal the outcomes of 3 of 42 training rows.",
    ):
        assert said in whole
    assert words(text) <= MOST_WORDS + 30 and len(text) == LINES + 1


def test_sums_over_other_sites_than_before_are_a_risk_that_is_named(small_sites: MakeSites, small_study: str):
    study = Study.parse(small_study).replace({"secure-aggregation": "on"})
    (site,) = small_sites(1)
    risk = "the coordinator can compute the sums of sites that came or left, and 0.84 or more of an update of theirs."
    for changed in (True, False):
        text = ten_lines(study, site, OTHERS, agreement=replace(SUMMED, changed_sites=changed))
        assert (risk in " ".join(text)) is changed and words(text) <= MOST_WORDS


CHANGED = {
    "a column less": ({"dataset.features": ["x1", "x2", "flag"]}, "columns removed: colour"),
    "sharing": ({"compare.share": "sum", "secure-aggregation": "on"}, "sharing of figures none → sum"),
    "epsilon": ({**DP, "privacy.epsilon": 1.0}, "epsilon none → 1.0"),
    "last day": ({"expires": date(2027, 12, 31)}, "last day none → 2027-12-31"),
    "rounds": ({"strategy.rounds": 9}, "rounds 5 → 9"),
    "purpose": ({"purpose": "Train another"}, "purpose Test → Train another"),
    "any other key": ({"plan.lr": 0.2}, "plan.lr 0.1 → 0.2"),
}


def approved(site: Site, study: Study, co_sites: tuple[str, ...] = OTHERS) -> approvals.Approval:
    return approvals.approve(
        SiteFolder(site.name), study, by="Dr Kim", co_sites=co_sites, rows_sha256="0" * 64,
        schema_sha256=Proposal.of(study, site, co_sites).schema.sha256(),
        coordinator="Heart consortium",
    )  # fmt: skip


@pytest.mark.parametrize("change", CHANGED)
def test_what_changed_since_the_last_approval_is_named(small_sites: MakeSites, small_study: str, change: str):
    (site,) = small_sites(1)
    before = Study.parse(small_study)
    approved(site, before)
    changes, named = CHANGED[change]
    text = ten_lines(before.replace(changes), site, OTHERS)
    (line,) = [line for line in text if line.startswith("Changed since Dr Kim approved small on ")]
    assert named in line and words(text) <= MOST_WORDS
    assert "Nothing in it changed" in " ".join(ten_lines(before, site, OTHERS))


def test_of_two_long_texts_the_first_difference_is_shown(small_sites: MakeSites, small_study: str):
    (site,) = small_sites(1)
    purpose = "Predict readmission within thirty days after discharge from internal medicine for {} only"
    approved(site, Study.parse(small_study).replace({"purpose": purpose.format("adults")}))
    line = ten_lines(Study.parse(small_study).replace({"purpose": purpose.format("children")}), site, OTHERS)[LINES]
    assert "purpose … for adults only → … for children only" in line


def test_a_site_more_and_a_withdrawn_approval_are_compared_too(small_sites: MakeSites, small_study: str):
    (site,) = small_sites(1)
    study = Study.parse(small_study)
    approved(site, study, OTHERS[:2])
    approvals.withdraw(SiteFolder(site.name), "small", by="Dr Lee")
    line = ten_lines(study, site, OTHERS)[LINES]
    assert line.startswith("Changed since") and line.endswith("sites added: site-04.")
    assert "Changed" not in " ".join(details(study, site, OTHERS))


def test_of_many_columns_those_are_named_that_are_new_at_the_site():
    study = Study.load("preterm-birth")
    site, *others = sites.of_dataset(study.dataset.name)
    names = [other.name for other in others]
    columns = Proposal.of(study, site, names).schema.features(None)
    assert f"Columns: {len(columns)} columns. Predicted: " in " ".join(ten_lines(study, site, names))
    approved(site, study.replace({"dataset.features": list(columns[3:])}), tuple(names))
    text = ten_lines(study, site, names)
    new = ", ".join(columns[:3])
    assert f"Columns: {len(columns)} columns; new since this site's last approval on preterm-birth: {new}." in text[2]
    assert f"columns added: {new}" in text[LINES] and words(text) <= MOST_WORDS


def test_a_long_purpose_is_cut_and_cannot_pretend_to_be_ours(small_sites: MakeSites, small_study: str):
    (site,) = small_sites(1)
    purpose = "Predict\\u001b[8m\\nUntil: 2099. " + "word " * 400
    study = Study.parse(small_study.replace('purpose = "Test"', f'purpose = "{purpose}"'))
    text = ten_lines(study, site, OTHERS)
    assert len(text) == LINES + 1 and words(text) <= MOST_WORDS
    assert text[1].startswith('Purpose: "Predict [8m Until: 2099. word word') and "characters more" in text[1]
    assert "\x1b" not in " ".join(text) and "\n" not in " ".join(text)


def test_every_detail_has_what_the_ten_lines_have_not(small_sites: MakeSites, small_study: str):
    (site,) = small_sites(1, policy=Policy())
    whole = "\n".join(details(Study.parse(small_study), site, OTHERS, "Heart consortium"))
    for fact in ("x1 (number, mm)", "colour (category, red, green, blue)", "y (predicted: no, yes)",
                 "Released once, at enrolment (at most", "number of the ledger's lines",
                 "No other site may be added", "The coordinator (Heart consortium) receives the releases",
                 "On the way everything is encrypted (TLS)",
                 "What the coordinator learns: If it follows the protocol"):  # fmt: skip
        assert fact in whole, fact
