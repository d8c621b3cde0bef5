"""Holding a study to published figures: the arithmetic by hand, and a real run that is told when it fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from statistics import fmean, stdev

import pytest

from flfed import Study
from flfed.errors import RunStopped, UsageError
from flfed.experiments.verify import Compared, check_expected, compared, entry_at, verify
from flfed.federation.server.run import run
from flfed.records.reports.report import report
from flfed.records.store.reader import RunReader
from flfed.study.study import names
from flfed.study.tables import Expectation

pytestmark = [pytest.mark.slow, pytest.mark.studies]  # real studies

TINY = """
format = 1
name = "tiny"
purpose = "Test"
legal-basis = "none needed"
seed = 11
[dataset]
name = "diabetes"
partition = { by = "iid", sites = 2, seed = 1 }
[model]
name = "linear"
[plan]
lr = 0.05
[strategy]
name = "fedavg"
rounds = 3
[compare]
resamples = 200
[expected]
repeats = 2
"""
LOOSE = '"global.r2_score" = { value = 0.5, tolerance = 9.0, source = "nobody", by-repeat = [0.25, 0.5] }\n'
SITE = '"sites.diabetes-2.local-only.r2_score" = { minimum = -9.0, source = "nobody" }\n'
WRONG = '"global.mean_absolute_error" = { minimum = 999, source = "nobody" }\n'


def figure(values: list[float | None], **expected: object) -> Compared:
    """Return one expected figure beside values of as many repeats, as reports hold them."""
    there = [value for value in values if value is not None]
    mean = {"value": fmean(there) if there else None, "sd": stdev(there) if len(there) > 1 else None}
    each = [{"global": {"roc_auc_score": {"value": value, "sd": None}}} for value in values]
    wanted = Expectation(path="global.roc_auc_score", source="by hand", **expected)
    return compared(wanted, {"global": {"roc_auc_score": mean}}, each, [40 + n for n in range(len(values))])


def test_mean_sd_and_difference_are_those_computed_by_hand():
    # 0.70, 0.74 and 0.84: mean 0.76; deviations -0.06, -0.02, 0.08, squares 0.0104 over 2: sd = sqrt(0.0052).
    found = figure([0.70, 0.74, 0.84], value=0.75, tolerance=0.02, by_repeat=(0.71, 0.74, 0.80))
    assert found.ours == pytest.approx(0.76)
    assert found.sd == pytest.approx(0.0052**0.5)
    assert found.difference == pytest.approx(0.01)
    assert found.holds and found.failing() == ""
    assert [(r.repeat, r.seed) for r in found.by_repeat] == [(1, 40), (2, 41), (3, 42)]
    assert [r.difference for r in found.by_repeat] == pytest.approx([-0.01, 0.0, 0.04])


@pytest.mark.parametrize(("expected", "holds"), [
    ({"value": 0.75, "tolerance": 0.05}, True),  # at its very edge, whatever the rounding
    ({"value": 0.75, "tolerance": 0.049}, False), ({"value": 0.85, "tolerance": 0.05}, True),
    ({"value": 0.851, "tolerance": 0.05}, False), ({"minimum": 0.80}, True), ({"minimum": 0.7999}, True),
    ({"minimum": 0.8001}, False),
])  # fmt: skip
def test_a_figure_holds_up_to_the_edge_of_its_tolerance_and_from_its_least_on(expected, holds):
    assert figure([0.79, 0.81], **expected).holds is holds


def test_what_does_not_hold_says_by_how_much():
    below = figure([0.79, 0.81], minimum=0.83).failing()
    assert below == "global.roc_auc_score is 0.800, 0.030 below the minimum of 0.83"
    high = figure([0.79, 0.81], value=0.7, tolerance=0.02).failing()
    assert high == "global.roc_auc_score is 0.800, 0.100 above 0.7, where 0.02 is allowed"


def test_a_figure_that_only_some_repeats_have_does_not_hold_although_their_mean_would():
    found = figure([0.8, None, 0.8], value=0.8, tolerance=0.1)
    assert (found.ours, found.without, found.holds) == (0.8, 1, False)
    assert "missing in 1 of the repeats" in found.failing()
    assert not figure([None, None], minimum=0.0).holds


def test_a_path_leads_to_a_figure_or_to_an_error_that_says_what_is_there():
    found = {"global": {"roc_auc_score": {"value": 0.5}}, "rounds": 3, "pooled": None}
    assert entry_at(found | {"statistics": {"deviance": 2.5}}, "statistics.deviance") == {"value": 2.5}
    assert entry_at(found, "global.roc_auc_score") == {"value": 0.5}
    with pytest.raises(UsageError, match="no 'roc_auc'; did you mean 'roc_auc_score'"):
        entry_at(found, "global.roc_auc")
    for path in ("global", "rounds"):
        with pytest.raises(UsageError, match="is no figure"):
            entry_at(found, path)
    with pytest.raises(UsageError, match="no 'roc_auc_score'"):
        entry_at(found, "pooled.roc_auc_score")
    assert entry_at(found, "pooled.roc_auc_score", strict=False) is None


def test_a_verified_study_shows_the_mean_and_each_repeat_of_its_own_run():
    found = verify(Study.parse(TINY + LOOSE + SITE))
    assert found.holds and found.error() is None
    again = run(Study.parse(TINY), repeats=2).report
    with RunReader.open() as reader:
        runs = reader.runs_of(again["run"])
        each = [report(reader, entry.run)["global"]["r2_score"]["value"] for entry in runs]
    whole, site = found.figures
    assert whole.ours == pytest.approx(fmean(each), abs=1e-12)
    assert whole.sd == pytest.approx(stdev(each), abs=1e-12)
    assert [r.ours for r in whole.by_repeat] == each
    assert [r.seed for r in whole.by_repeat] == [11, 12]
    assert each[0] != each[1]
    assert site.ours == again["sites"]["diabetes-2"]["local-only"]["r2_score"]["value"]


def test_a_run_that_stopped_verifies_nothing():
    # A learning rate without bounds: updates are set aside until the quorum is missed.
    study = Study.parse(TINY + LOOSE).replace({"lr": 1e300, "expected.repeats": 2})
    found = verify(study)
    assert (found.status, found.holds, found.figures[0].ours) == ("stopped", False, None)
    assert isinstance(found.error(), RunStopped)


@pytest.mark.parametrize(("figures", "why"), [
    ("", "has no table \\[expected\\] to verify"),
    ('"global.auc" = { minimum = 0.5, source = "x" }', "metric 'auc' is not known"),
    ('"global" = { minimum = 0.5, source = "x" }', "metric '' is not known"),
    (
        '"sites.diabetes-9.global.r2_score" = { minimum = 0.5, source = "x" }',
        "site 'diabetes-9' is not known; did you mean",
    ),
    ('"sites.diabetes-1.locally.r2_score" = { minimum = 0.5, source = "x" }', "arm 'locally' is not known"),
    (
        '"global.r2_score" = { value = 1, tolerance = 1, source = "x", by-repeat = [1] }',
        "by-repeat has 1 figure, and the study has 2 repeats",
    ),
])  # fmt: skip
def test_an_expectation_that_no_run_could_meet_is_refused_before_anything_runs(figures, why):
    with pytest.raises(UsageError, match=why):
        check_expected(Study.parse(TINY + figures))
    with RunReader.open() as reader:
        assert reader.runs() == []


@pytest.fixture
def verified(flfed, tmp_path) -> Callable[..., tuple[int, str, str]]:
    """A function that verifies a study of this text: exit code, standard output, standard error."""

    def call(text: str, *words: str) -> tuple[int, str, str]:
        (tmp_path / "study.toml").write_text(text)
        return flfed("study", "verify", tmp_path / "study.toml", *words)

    return call


def test_an_altered_expectation_ends_with_1_and_says_which_figure_and_by_how_much(verified):
    code, out, err = verified(TINY + LOOSE + SITE)
    assert (code, err) == (0, "")
    assert "Every expected figure holds." in out and "global.r2_score by repeat" in out
    assert "changed settings" not in out
    _, out, _ = verified(TINY + LOOSE, "--set", "rounds=1")
    assert "The study was run with changed settings (rounds=1)" in " ".join(out.split())
    assert json.loads(verified(TINY + LOOSE, "--set", "rounds=1", "--json")[1])["changed"] == ["rounds=1"]
    code, out, err = verified(TINY + LOOSE + WRONG, "--json")
    found = json.loads(out)
    assert (code, found["holds"]) == (1, False)
    good, wrong = found["figures"]
    assert (good["holds"], wrong["holds"]) == (True, False)
    assert wrong["difference"] == pytest.approx(wrong["ours"] - 999)
    assert (wrong["published"], wrong["minimum"], wrong["tolerance"]) == (None, 999, None)
    below = f"global.mean_absolute_error is {wrong['ours']:.0f}, {999 - wrong['ours']:.0f} below the minimum of 999"
    assert err == f"flfed: 1 of 2 expected figures do not hold: {below}\n"
    assert good["by-repeat"][0]["difference"] == pytest.approx(good["by-repeat"][0]["ours"] - 0.25)


def test_a_study_without_expectations_ends_with_2(verified):
    code, out, err = verified(TINY)
    assert (code, out) == (2, "")
    assert "has no table [expected] to verify" in err


@pytest.mark.usefixtures(
    "heart", "taiwan", "deliveries", "telemonitoring", "zone_power", "influenza", "drug_reviews", "engine_life",
    "sba_loans", "breast_cancer_survival", "taiwan_parties",
)  # fmt: skip
@pytest.mark.proof
def test_every_shipped_study_expects_figures_that_a_run_can_have():
    expecting = [study for study in map(Study.load, names()) if study.expected.figures]
    assert {study.name for study in expecting} >= {"preterm-birth", "loan-default", "heart-disease", "diabetes", "wine"}
    for study in expecting:
        # Prices are brought by pip, and looked at in tests/test_case_studies.py.
        if not study.dataset.name.startswith("portfolio"):
            check_expected(study)
        # A statistic is of all rows, and has one answer; parties with different columns have one run.
        assert study.expected.repeats >= (1 if study.is_statistic or study.is_vertical else 5)
        assert all(figure.source for figure in study.expected.figures)
