"""What protection costs on real rows: the shipped studies under differential privacy reach what they say."""

import re
from pathlib import Path
from typing import Any

import pytest

from flfed import Study, run
from flfed.federation.engines.engine import find_sites
from flfed.study.study import names
from flfed.updates.accounting import Release, epsilon

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "privacy-utility.md").read_text(encoding="utf-8")
LOADED = [Study.load(name) for name in names()]
PROTECTED = [study.name for study in LOADED if study.privacy.name == "record-dp" and study.analysis is None]
AUC, ACCURACY = "roc_auc_score", "accuracy_score"


def overall(study: str, repeats: int, metric: str, **changes: object) -> tuple[float, dict[str, Any]]:
    """Return a study's figure over all holdouts, mean of its repeats, and the report."""
    result = run(Study.load(study).replace({"resamples": 200, **changes}), repeats=repeats)
    if result.status != "completed" or result.report["faults"]:
        pytest.fail(f"{study}: {result.status} {result.report['faults']}")
    return result.report["global"][metric]["value"], result.report


def test_presets_of_eight_three_and_one_are_shipped():
    assert [
        *(f"breast-cancer-dp-{epsilon}" for epsilon in (1, 3, 8)), "fed-heart-flamby-dp",
        *(f"taiwan-credit-dp-{epsilon}" for epsilon in (1, 3, 8)),
    ] == PROTECTED  # fmt: skip
    asked = [Study.load(name).privacy.settings["epsilon"] for name in PROTECTED]
    assert asked == [1.0, 3.0, 8.0, 1.0, 1.0, 3.0, 8.0]


@pytest.mark.parametrize("name", PROTECTED)
def test_noise_keeps_the_promise_and_is_not_more_than_it_takes(name):
    study = Study.load(name)
    promise = study.privacy.build("mechanism").promise(study.plan, study.rounds)
    asked = study.privacy.settings["epsilon"]
    assert promise.steps == study.rounds * study.plan.steps
    assert asked * 0.98 < promise.epsilon <= asked
    # A tenth less noise would break it.
    spent = epsilon([Release(promise.noise * 0.9, promise.sampling, promise.steps)], promise.delta)
    assert spent > asked


@pytest.mark.studies
@pytest.mark.usefixtures("heart", "taiwan")
@pytest.mark.parametrize("name", ["breast-cancer-dp-3", "fed-heart-flamby-dp", "taiwan-credit-dp-3"])
def test_delta_is_at_most_a_tenth_of_one_over_the_rows_of_the_largest_site(name):
    study = Study.load(name)
    rows = [len(site.read().training) for site in find_sites(study)]
    assert study.privacy.settings["delta"] <= 1 / (10 * max(rows))
    same = {Study.load(other).privacy.settings["delta"] for other in PROTECTED if other[:10] == name[:10]}
    assert same == {study.privacy.settings["delta"]}


def test_the_page_has_the_figures_that_the_studies_are_held_to():
    # | study | what | AUC | … : a mean and a spread.
    shown = dict(re.findall(r"^\| `([a-z0-9-]+)` \|.*?\| (0\.\d+) ± 0\.\d+ \|", PAGE, flags=re.MULTILINE))
    assert set(PROTECTED) | {"breast-cancer", "taiwan-credit"} == set(shown)
    for name, figure in shown.items():
        expected = {item.path: item for item in Study.load(name).expected.figures}
        path = f"global.{ACCURACY if name == 'fed-heart-flamby-dp' else AUC}"
        assert float(figure) == pytest.approx(expected[path].value, abs=5e-4), name
        assert "own measurement" in expected[path].source


@pytest.mark.studies
def test_breast_cancer_at_epsilon_three():
    # Ten repeats: 0.988, deviation 0.005; by rows' own ranges in place of typical spans 0.976.
    assert overall("breast-cancer-dp-3", 3, AUC)[0] >= 0.98


@pytest.mark.proof
@pytest.mark.studies
@pytest.mark.usefixtures("taiwan")
def test_taiwan_credit_at_epsilon_eight_is_near_the_same_plan_without_it():
    measured = {figure.path: figure.value for figure in Study.load("taiwan-credit").expected.figures}
    plain = measured[f"global.{AUC}"]  # in ten repeats
    protected, report = overall("taiwan-credit-dp-8", 1, AUC)
    assert protected >= 0.75
    assert protected >= plain - 0.02
    # By the guard's usual bound the smallest bank's updates, mostly noise, would be set aside.
    assert report["faults"] == []


@pytest.mark.proof
@pytest.mark.usefixtures("taiwan")
def test_a_tight_clip_costs_taiwan_credit_its_probabilities():
    loose, _ = overall("taiwan-credit-dp-8", 1, "log_loss")
    tight, _ = overall("taiwan-credit-dp-8", 1, "log_loss", **{"privacy.clip": 1.0, "lr": 4.0})
    assert loose < 0.47 < 0.55 < tight


@pytest.mark.studies
@pytest.mark.usefixtures("heart")
@pytest.mark.proof
def test_the_flamby_split_at_a_true_epsilon_of_one():
    # shared/TARGETS.md section 1: 0.788 ± 0.017, scaled by hospital. Ours: 0.794 ± 0.015; 0.76 is far below their mean.
    assert overall("fed-heart-flamby-dp", 10, ACCURACY)[0] >= 0.76
