"""What the record says of a run's privacy: its promise, what each site was asked for, and what is in no promise."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import pytest

from flfed.errors import RunStopped, UsageError
from flfed.experiments.sweep import sweep
from flfed.federation.server.run import Result, resume, run
from flfed.records.store.reader import RunReader
from flfed.rows.data.site import Policy
from flfed.study.study import Study
from flfed.updates.accounting import Release, epsilon
from flfed.updates.mechanism import Mechanism
from flfed.updates.privacy.site_dp import site_epsilon

pytestmark = [pytest.mark.slow, pytest.mark.studies]

CLOSE_DELTA = "A delta close to one over the training rows"

ROUNDS, STEPS = 4, 3
RECORD_DP = {"name": "record-dp", "epsilon": 4.0, "delta": 1e-3, "sampling": 0.2}
SITE_DP = {"name": "site-dp", "epsilon": 6.0, "delta": 0.02}
Private = Callable[..., Study]


class Killed(KeyboardInterrupt):
    """Ends a run from within, as a kill would, at a stage of a round."""


@pytest.fixture
def private(small_study) -> Private:
    """A function that makes the small study ask for a mechanism."""

    def make(mechanism: dict[str, Any], **changes: Any) -> Study:
        given = {f"privacy.{key}": value for key, value in mechanism.items()}
        given |= {"plan.steps": STEPS, "strategy.rounds": ROUNDS, "privacy.secure-aggregation": "off"}
        return Study.parse(small_study).replace(given | changes)

    return make


def written(run_id: str) -> dict[str, Any]:
    with RunReader.open() as reader:
        found = reader.summary(run_id, "privacy")
    assert found is not None
    return found


def newest() -> str:
    with RunReader.open() as reader:
        return reader.runs(limit=1)[0].run


def of(result: Result) -> dict[str, Any]:
    return written(result.run)


def test_a_run_without_a_mechanism_promises_nothing_and_lists_what_left(small_sites, small_study):
    found = of(run(Study.parse(small_study), sites=small_sites(2)))
    nulls = ("unit", "epsilon", "delta", "noise", "sampling", "clip", "steps")
    assert {key: found[key] for key in nulls} == dict.fromkeys(nulls)
    assert (found["mechanism"], found["sites"], found["warnings"]) == ("none", {}, [])
    assert len(found["uncharged"]) >= 10 and "without noise" in found["uncharged"][0]
    # Where secure aggregation is left to the institutions, a single update may leave.
    study = Study.parse(small_study)
    first = {}
    for mode in ("off", "auto", "on"):
        first[mode] = Mechanism().uncharged(study.replace({"privacy.secure-aggregation": mode}))[0]
    assert first["off"].startswith("Each site's update of every round: ") and first["on"].startswith("The sum of all")
    assert first["auto"].startswith("Each site's update of every round, without noise, where one process or fewer")


def test_the_record_has_the_promise_and_every_sites_steps_of_it(small_sites, private):
    study = private(RECORD_DP)
    found = of(run(study, sites=small_sites(3)))
    release = Release(found["noise"], 0.2, ROUNDS * STEPS)
    assert found["epsilon"] == epsilon([release], 1e-3) <= 4.0 < 1.01 * found["epsilon"]
    assert (found["mechanism"], found["unit"], found["steps"], found["clip"]) == ("record-dp", "person", 12, 1.0)
    assert set(found["sites"]) == {"site-01", "site-02", "site-03"}
    for line in found["sites"].values():
        assert (line["steps"], line["epsilon"], line["delta"]) == (12, found["epsilon"], 1e-3)
        assert line["budget"] is None and "spent" not in line  # that sum is the site's own to tell
    with RunReader.open() as reader:
        told = reader.runs(limit=1)[0].versions
    assert told["dp-accounting"] == version("dp-accounting") and "opacus" not in told


@pytest.mark.parametrize(("delta", "close"), [(1e-4, 0), (3e-3, 3)])
def test_a_delta_close_to_one_over_the_rows_is_warned_of(small_sites, private, delta, close):
    result = run(private(RECORD_DP, **{"privacy.delta": delta}), sites=small_sites(3))  # 42 training rows and more
    told = [said for said in of(result)["warnings"] if said.startswith(CLOSE_DELTA)]
    assert len(told) == (close > 0)
    assert not told or f"above a tenth of one over the rows at {close} of 3 sites" in told[0]


def test_a_site_that_was_asked_less_is_charged_the_whole_run(small_sites, private):
    found = of(run(private(RECORD_DP, **{"strategy.fraction": 0.5}), sites=small_sites(4)))
    steps = [line["steps"] for line in found["sites"].values()]
    assert sum(steps) == 2 * ROUNDS * STEPS and max(steps) > min(steps)
    for line in found["sites"].values():
        assert line["epsilon"] == found["epsilon"]


def test_site_dp_promises_of_its_rounds_and_warns_of_few_sites(small_sites, private):
    found = of(run(private(SITE_DP), sites=small_sites(3)))
    assert (found["unit"], found["steps"], found["sampling"]) == ("site", ROUNDS, 1.0)
    assert found["epsilon"] == site_epsilon(found["noise"], ROUNDS, 0.02) <= 6.0
    assert [line["steps"] for line in found["sites"].values()] == [ROUNDS] * 3
    assert any("With 3 sites this is hardly a guarantee" in said for said in found["warnings"])
    assert found["uncharged"][0].startswith("Each site's update as the server sees it")


def test_a_promise_that_means_nothing_among_so_few_sites_is_refused_before_a_round(small_sites, private):
    with pytest.raises(UsageError, match="delta=0.09 is not below one over 12 sites"):
        run(private(SITE_DP, **{"privacy.delta": 0.09}), sites=small_sites(12, rows=30))


@pytest.mark.parametrize("mechanism", [RECORD_DP, SITE_DP], ids=["record-dp", "site-dp"])
def test_a_seed_gives_the_same_arrays_again_and_another_seed_others(small_sites, private, mechanism):
    sites = small_sites(2)
    hashes = [run(private(mechanism, seed=seed), sites=sites).report["arrays-sha256"] for seed in (1, 1, 2)]
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize("mechanism", [RECORD_DP, SITE_DP], ids=["record-dp", "site-dp"])
def test_a_resumed_run_has_the_noise_and_the_counts_of_one_that_went_through(small_sites, private, mechanism):
    sites, study = small_sites(2), private(mechanism)
    whole = run(study, sites=sites)

    def kill(stage: str, number: int) -> None:
        if (stage, number) == ("round", 2):
            raise Killed

    with pytest.raises(RunStopped):
        run(study, sites=sites, observer=kill)
    halfway = written(newest())
    # What was asked for is counted before it is known to be over: a round too many rather than one too few.
    a_round = STEPS if mechanism is RECORD_DP else 1
    assert {line["steps"] for line in halfway["sites"].values()} == {3 * a_round}
    assert resume(newest(), sites=sites).report["arrays-sha256"] == whole.report["arrays-sha256"]
    found, expected = written(newest()), of(whole)
    for line in (*found["sites"].values(), *expected["sites"].values()):
        assert (line["steps"], line["epsilon"]) == (ROUNDS * a_round, expected["epsilon"])
    before = {site: line["spent-before"] for site, line in halfway["sites"].items()}
    assert {site: line["spent-before"] for site, line in found["sites"].items()} == before


def test_all_sites_are_written_down(small_sites, private):
    sites = small_sites(4, policy=Policy(disclosure="open"))
    found = of(run(private(RECORD_DP), sites=sites))
    assert set(found["sites"]) == {site.name for site in sites}


def test_every_point_of_a_sweep_has_its_own_promise_in_the_record(small_sites, private):
    studies = [private(RECORD_DP, **{"plan.lr": lr, "plan.validation": 0.2}) for lr in (0.1, 0.5)]
    swept = sweep(studies[0], [({"plan.lr": s.plan.lr}, s) for s in studies], sites=small_sites(2))
    assert [point.status for point in swept.points] == ["completed"] * 2
    for point in swept.points:
        found = written(point.run)
        assert found["epsilon"] == epsilon([Release(found["noise"], 0.2, ROUNDS * STEPS)], 1e-3)
        assert [line["steps"] for line in found["sites"].values()] == [12, 12]
