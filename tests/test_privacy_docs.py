"""docs/privacy.md and docs/what-articles-get-wrong.md: blocks run, figures are ours, links lead somewhere."""

import doctest
import math
import re
import shlex
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from flfed.deployment.gate.study_policy import study_policy_refusal
from flfed.federation.server.preflight import check
from flfed.registry import names
from flfed.rows.attacks.membership_inference import largest_auc
from flfed.rows.data.policy import Policy
from flfed.rows.data.site_discovery import load
from flfed.study.study import Study
from flfed.updates.accounting import Release, epsilon, noise_for

ROOT = Path(__file__).resolve().parent.parent
PRIVACY = (ROOT / "docs" / "privacy.md").read_text(encoding="utf-8")
WRONG = (ROOT / "docs" / "what-articles-get-wrong.md").read_text(encoding="utf-8")


def blocks(text: str, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def ran(text: str) -> doctest.TestResults:
    """What the blocks of a page come to, as one session."""
    session = doctest.DocTestParser().get_doctest("\n".join(blocks(text, "pycon")), {}, "page", None, 0)
    return doctest.DocTestRunner(verbose=False).run(session)


def test_every_block_on_what_articles_get_wrong_gives_what_stands_there():
    done = ran(WRONG)
    assert done.attempted >= 25
    assert done.failed == 0


def test_a_wrong_figure_would_be_found(capsys: pytest.CaptureFixture[str]):
    assert WRONG.count("\n6.71\n") == 1
    assert ran(WRONG.replace("\n6.71\n", "\n6.72\n")).failed == 1
    assert "6.72" in capsys.readouterr().out


@pytest.mark.parametrize(("figure", "releases"), [
    ("ε = 6.71", [Release(1.0, 0.05, 400)]),
    ("3.36 each. Two of them spend 4.89 together, three 6.14", [Release(1.5, 0.05, 1200)]),
    ("ε = 2.29", [Release(1.5, 0.1, 40)]), ("spend 11.01", [Release(1.5, 0.1, 800)]),
    ("ε = 16.54", [Release(1.5, 1.0, 20)]),
])  # fmt: skip
def test_the_figures_in_the_sentences_are_those_of_the_accountant(figure, releases):
    assert figure in WRONG
    said = float(re.findall(r"[0-9.]+[0-9]", figure)[-1])
    assert said == pytest.approx(epsilon(releases, 1e-5), abs=0.005)


def test_the_bounds_on_an_attack_in_the_page_are_those_of_the_audit():
    assert "at most 0.73 at ε = 1, 0.95 at ε = 3" in PRIVACY
    assert [round(largest_auc(value, 1e-5), 2) for value in (1.0, 3.0)] == [0.73, 0.95]
    # Odds of 1 become odds of exp(ε).
    assert "for 73 % likely, at ε = 3 for 95 %, at ε = 8 for 99.97 %" in PRIVACY
    odds = [math.exp(value) / (1 + math.exp(value)) for value in (1, 3, 8)]
    assert odds == pytest.approx([0.73, 0.95, 0.9997], abs=0.005)
    assert round(odds[2], 4) == 0.9997


def test_a_budget_of_8_holds_five_studies_of_3():
    assert "a budget of 8 holds five studies of ε = 3 (400 steps at sampling 0.1)" in PRIVACY
    noise = noise_for(3.0, 1e-5, 0.1, 400)
    assert epsilon([Release(noise, 0.1, 400)] * 5, 1e-5) <= 8 < epsilon([Release(noise, 0.1, 400)] * 6, 1e-5)


def test_the_study_and_the_policy_of_the_page_are_read_as_it_says(tmp_path: Path):
    asked, covered, analysis, _, allowed, *_ = (tomllib.loads(block) for block in blocks(PRIVACY, "toml"))
    rest = Study.load("heart-disease").text
    kept = re.sub(r"^\[(plan|privacy)\]\n(?:(?!\[).*\n)*", "", rest, flags=re.MULTILINE)
    study = Study.parse(kept + blocks(PRIVACY, "toml")[0])
    assert (study.privacy.name, study.plan.steps, study.plan.lr) == ("record-dp", 10, 1.0)
    assert study.privacy.settings["epsilon"] == asked["privacy"]["epsilon"] == 3
    whole = Study.parse(kept + blocks(PRIVACY, "toml")[0].partition("[privacy]")[0] + blocks(PRIVACY, "toml")[1])
    assert covered["privacy"]["covers"] == "study" and whole.encode.scaler == "schema"
    assert check(whole)["primary"] == "roc_auc_score"
    top = "".join(rest.partition("[dataset]")[:2]) + '\nname = "heart-disease"\n'
    table = Study.parse(top + blocks(PRIVACY, "toml")[2])
    assert table.analysis is not None and table.analysis.columns == tuple(analysis["statistic"]["columns"])
    assert check(table)["schema"]
    policy = Policy.model_validate(allowed)
    assert (policy.epsilon, policy.delta, policy.queries, policy.cell_minimum) == (8.0, 1e-5, 20, 10)
    assert policy.runs == allowed["runs"] == 5 < Policy().runs
    assert (policy.mechanisms, policy.disclosure, policy.audits) == (("record-dp",), "institution", True)
    assert "record-level differential privacy only" in Policy(epsilon=8.0).privacy_refusal(mechanism="none", delta=None)


def test_the_policy_of_four_lenders_allows_two_runs_of_their_study_and_no_other_model():
    *_, text, limits = blocks(PRIVACY, "toml")
    study = Study.parse(text)
    policy = Policy.model_validate(tomllib.loads(limits))
    site = replace(load("midwest-lender"), policy=policy)
    assert check(study)["primary"] == "roc_auc_score"
    assert study_policy_refusal(study, site) is None
    for setting in ({"mechanisms": ("none",)}, {"models": ("mlp",)}, {"delta": 1e-6}):
        narrower = replace(site, policy=policy.model_copy(update=setting))
        assert study_policy_refusal(study, narrower) is not None, setting
    # A run has the ε of a Gaussian mechanism on either account.
    run = Release(noise_for(3.0, 1e-5, 1.0, 1), 1.0, 1)
    assert epsilon([run] * policy.runs, 1e-5) <= policy.epsilon < epsilon([run] * 4, 1e-5)


def test_the_pages_say_that_figures_are_charged_to_no_budget_and_call_no_batch_safe():
    security = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "**The promise of most studies covers the updates**" in PRIVACY
    assert "In most studies differential privacy protects the updates only." in readme
    for page in (PRIVACY, security, readme):
        assert re.search(r"learns? something (of|about) rows\s", page)
        assert not re.search(r"batch\s*(≥|>=|of at least|from)\s*\d+[^.]*\bsafe", page)


def test_every_mechanism_and_attack_is_on_the_page():
    told = re.findall(r"`([a-z][a-z-]+)`", PRIVACY)
    assert set(names("mechanism")) | set(names("attack")) <= set(told)
    assert len(names("attack")) >= 3


@pytest.mark.parametrize("page", ["privacy.md", "what-articles-get-wrong.md", "security.md"])
def test_every_link_of_the_pages_leads_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / "docs" / page).read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (ROOT / "docs" / link).exists()] == []
    assert len(links) >= 1


def test_the_commands_of_the_page_run(flfed):
    commands = re.findall(r"^\$ flfed (.*)$", PRIVACY, flags=re.MULTILINE)
    assert len(commands) >= 1
    for command in commands:
        code, out, err = flfed(*shlex.split(command))
        assert (code, bool(out.strip())) == (0, True), (command, err)
