"""A statistic of several visits at real gates: what they let in, note and repeat, in the clear and in secure sums."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from flwr.app import Message

from flfed import Study, run
from flfed.errors import FlfedError, RunStopped
from flfed.federation.client.site_run import SiteRun
from flfed.records.store.reader import RunReader
from flfed.refusals import Refusal, decline
from flfed.rows.data import datasets
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site
from flfed.rows.statistics.listed.glm import Glm
from flfed.rows.statistics.of_study import statistic_of as of_study
from flfed.updates.masks.pairs import TAG_ENTRIES
from flfed.updates.messages.kinds import STATISTIC
from flfed.updates.messages.secure_sum import Masked
from flfed.updates.messages.summarise import StatisticReply, StatisticRequest
from tests.deployment.summing import Consortium, Coordinator, SummingGrid
from tests.small_runs import tables as rows_of

Small = Callable[..., list[Site]]
GLM = """
format = 1
name = "small-odds"
purpose = "Estimate the odds of the outcome"
legal-basis = "made for tests"

[dataset]
name = "small"

[statistic]
name = "glm"
family = "binomial"
of = ["x1", "x2", "flag"]
"""
SUMS = '\n[privacy]\nsecure-aggregation = "on"\n'
SECURE = f"{GLM}{SUMS}"
HEAD = GLM.partition("[statistic]")[0]
COX = f'{HEAD}[statistic]\nname = "cox"\ntime = "x1"\nof = ["x2", "flag"]\n'
SURVIVAL = f'{HEAD}[statistic]\nname = "survival"\ntime = "x1"\nevent = "y"\nby = "flag"\nstep = 5\n'
INSTITUTION = Policy(outputs=("single-cells-in-sums",))


@pytest.fixture
def clear(small_sites: Small) -> Consortium:
    return Consortium(small_sites(3), Study.parse(GLM))


def institutions(sites: list[Site], study: str = SECURE) -> Consortium:
    """Return institutions whose policies let single cells into sums."""
    return Consortium([replace(site, policy=INSTITUTION) for site in sites], Study.parse(study))


@pytest.fixture
def secure(small_sites: Small) -> Consortium:
    """Three institutions with a model of four coefficients."""
    return institutions(small_sites(3, rows=200))


def in_the_clear(consortium: Consortium, study: str) -> dict[str, Any]:
    """Return the figures of a study without secure sums over the same rows, in one process."""
    open_rows = [replace(site, policy=Policy(disclosure="open")) for site in consortium.sites.values()]
    return dict(run(Study.parse(study), sites=open_rows).report["statistics"])


def statistic_of(name: str) -> dict[str, Any]:
    with RunReader.open() as reader:
        found = reader.summary(name, "statistics")
    assert found is not None
    return dict(found)


def visits_of(consortium: Consortium, name: str) -> list[Any]:
    return [line for line in consortium.lines(name) if line.kind == STATISTIC.rpartition(".")[2]]


def ask(grid: SummingGrid, site: str, request: StatisticRequest) -> Message:
    message = Message(request.to_record(), dst_node_id=grid.nodes[site], message_type=STATISTIC)
    (reply,) = grid.send_and_receive([message])
    return reply


def total_of(consortium: Consortium) -> Masked:
    """Return zeros in the form of a total of a visit."""
    schema = datasets.load("small").schema
    entries = sum(math.prod(shape) for shape, _ in of_study(consortium.study).shapes(schema).values())
    return Masked(vector=np.zeros(0, np.uint32), sums=np.zeros(1 + entries + TAG_ENTRIES, np.uint64))


def at(*coefficients: float, round: int = 0) -> StatisticRequest:
    return StatisticRequest(round=round, point={"coefficients": np.array(coefficients, dtype=float)})


def test_gates_answer_each_visit_once_and_write_a_line(clear: Consortium):
    here = run(clear.study, sites=list(clear.sites.values())).report["statistics"]
    ended = Coordinator(clear).run()
    assert ended.status == "completed", ended.reason
    assert statistic_of(ended.run) == here
    lines = visits_of(clear, "site-01")
    assert [line.facts["round"] for line in lines] == list(range(here["visits"]))
    assert len({line.facts["asked-sha256"] for line in lines}) == here["visits"] >= 4


def test_a_visit_has_one_set_of_numbers_and_a_run_has_ten(clear: Consortium):
    grid = SummingGrid(clear, run="asked")
    first = ask(grid, "site-01", at(0, 0, 0, 0))
    assert not first.has_error()
    again = ask(grid, "site-01", at(0, 0, 0, 0))
    assert (
        StatisticReply.from_record(again.content).sums["gradient"].tobytes()
        == StatisticReply.from_record(first.content).sums["gradient"].tobytes()
    )
    refused = [
        (at(0, 0, 0, 1), str(Refusal("step-answered", round=0))),
        (at(0, 0, 0, 0, round=10), "'round'"),
        (at(0, 0, 0), "shape"),
        (at(0, 0, 0, np.nan, round=1), "finite"),
        (StatisticRequest(), "has no value 'round'"),
    ]
    for request, words in refused:
        reply = ask(grid, "site-01", request)
        assert reply.has_error() and words in reply.error.reason, reply
        assert clear.lines("site-01")[-1].kind == "refused"
    # Another process of the site knows it by the ledger.
    clear.restart("site-01")
    assert ask(grid, "site-01", at(0, 0, 0, 1)).error.reason == str(Refusal("step-answered", round=0))
    assert not ask(grid, "site-01", at(0, 0, 0, 1, round=1)).has_error()


def test_runs_of_other_numbers_are_few(clear: Consortium):
    for number in range(clear.sites["site-01"].policy.runs):
        grid = SummingGrid(clear, run=f"asked-{number}")
        assert not ask(grid, "site-01", at(number, 0, 0, 0)).has_error()
    reply = ask(SummingGrid(clear, run="asked-more"), "site-01", at(0.5, 0, 0, 0))
    assert "of a dataset have replies" in reply.error.reason


def test_institutions_give_sums_of_all_alone(secure: Consortium):
    here = in_the_clear(secure, GLM)
    coordinator = Coordinator(secure)
    ended = coordinator.run()
    assert ended.status == "completed", ended.reason
    found = statistic_of(ended.run)
    assert (found["rows"], found["sites"], found["by-site"]) == (here["rows"], 3, {})
    for name, one in here["coefficients"].items():
        assert found["coefficients"][name]["value"] == pytest.approx(one["value"], rel=1e-9)
        assert found["coefficients"][name]["standard-error"] == pytest.approx(one["standard-error"], rel=1e-9)
    replies = [reply for _, sent, reply in coordinator.grid.sent if sent.metadata.message_type == STATISTIC]
    assert len(replies) == 3 * found["visits"]
    for reply in replies:
        answer = StatisticReply.from_record(reply.content)
        # What crossed looks like chance, each number of it.
        assert not answer.sums and answer.masked is not None
        assert answer.masked.sums.max() > 2**60
    bindings = [line.facts["asked-sha256"] for line in visits_of(secure, "site-02")]
    assert len(set(bindings)) == found["visits"]


@pytest.mark.parametrize("visit", [1, 3])
def test_a_coordinator_that_is_killed_between_visits_goes_on_to_the_same_figures(secure: Consortium, visit: int):
    whole = Coordinator(secure).run()
    requests = 0

    def crash(site: str, asked: str) -> bool | str:
        nonlocal requests
        requests += (site, asked) == ("site-03", STATISTIC)
        return "crash" if (site, asked, requests) == ("site-03", STATISTIC, visit) else False

    coordinator = Coordinator(secure)
    begun = coordinator.run(absent=crash)
    assert begun.status != "completed"
    for name in secure.sites:
        secure.restart(name)
    ended = coordinator.run(begun.run)
    assert ended.status == "completed", ended.reason
    assert statistic_of(ended.run) == statistic_of(whole.run)


def test_a_site_that_is_away_after_the_first_visit_stops_the_run(secure: Consortium):
    requests = 0

    def away(site: str, asked: str) -> bool:
        nonlocal requests
        requests += (site, asked) == ("site-03", STATISTIC)
        return site == "site-03" and requests > 2

    coordinator = Coordinator(secure)
    with pytest.raises(RunStopped):
        coordinator.run(absent=away)
    with RunReader.open() as reader:
        stopped = next(iter(reader.runs()))
    assert stopped.status == "stopped"
    ended = coordinator.run(stopped.run)
    assert ended.status == "completed", ended.reason


def test_a_killed_run_that_goes_on_without_one_of_its_sites_is_stopped_until_it_is_back(secure: Consortium):
    whole = Coordinator(secure).run()
    coordinator = Coordinator(secure)
    begun = coordinator.run(absent=lambda site, asked: "crash" if (site, asked) == ("site-03", STATISTIC) else False)
    with pytest.raises(RunStopped, match="site-03 did not enrol, and the run needs all its sites"):
        coordinator.run(begun.run, absent=lambda site, asked: site == "site-03")
    with RunReader.open() as reader:
        (stopped,) = reader.runs_of(begun.run)
    assert stopped.status == "stopped"
    ended = coordinator.run(begun.run)
    assert ended.status == "completed", ended.reason
    assert statistic_of(ended.run) == statistic_of(whole.run)


def test_in_the_clear_too_a_site_that_is_away_stops_the_run(clear: Consortium):
    requests = 0

    def away(site: str, asked: str) -> bool:
        nonlocal requests
        requests += (site, asked) == ("site-03", STATISTIC)
        return site == "site-03" and requests > 1

    with pytest.raises(RunStopped, match="site-03 did not answer visit 2"):
        Coordinator(clear).run(absent=away)


def test_an_institution_sends_no_sums_in_which_one_row_outweighs_others(
    secure: Consortium, monkeypatch: pytest.MonkeyPatch
):
    ended = Coordinator(secure).run()
    assert ended.status == "completed", ended.reason
    grid = SummingGrid(secure, run=ended.run)
    # No coordinator can choose such numbers: sites make them.
    reply = ask(grid, "site-01", at(-30.0, 400.0, -300.0, 50.0, round=9))
    assert "1 section too many" in reply.error.reason
    point = at(-30.0, 400.0, -300.0, 50.0).point
    monkeypatch.setattr(SiteRun, "completed", lambda own, request, session: replace(request, point=point))
    reply = ask(grid, "site-01", StatisticRequest(round=9))
    assert reply.has_error() and "over a tenth of its weights" in reply.error.reason
    assert secure.lines("site-01")[-1].kind == "error"
    # The refusal was an answer: no other request in this visit, which would show where the rule begins.
    for _ in range(2):
        reply = ask(grid, "site-01", StatisticRequest(round=9, total=total_of(secure)))
        assert reply.error.reason == str(Refusal("step-answered", round=9))
        secure.restart("site-01")


@pytest.mark.parametrize("gated", ["clear", "secure"])
def test_where_a_site_refuses_the_numbers_of_a_visit_the_step_is_halved(
    request: pytest.FixtureRequest, gated: str, monkeypatch: pytest.MonkeyPatch
):
    consortium: Consortium = request.getfixturevalue(gated)
    whole = statistic_of(Coordinator(consortium).run().run)
    sums = Glm.sums

    def refusing(model: Glm, table: Any, schema: Any) -> Any:
        # The first step from 0 is too long for the smallest site, however often it is asked.
        if len(table) == smallest and model._coefficients.any():
            asked.append(model._coefficients)
            if np.array_equal(asked[-1], asked[0]):
                decline("sums-too-large")
        return sums(model, table, schema)

    smallest, asked = min(len(rows_of([site])) for site in consortium.sites.values()), list[np.ndarray]()
    monkeypatch.setattr(Glm, "sums", refusing)
    ended = Coordinator(consortium).run()
    assert ended.status == "completed", ended.reason
    found = statistic_of(ended.run)
    assert found["visits"] > whole["visits"]
    for name, one in whole["coefficients"].items():
        assert found["coefficients"][name]["value"] == pytest.approx(one["value"], rel=1e-8)
    halved = next(one for one in asked if not np.array_equal(one, asked[0]))
    np.testing.assert_allclose(halved, asked[0] / 2)
    with RunReader.open() as reader:
        assert not [event for event in reader.events([ended.run]) if event.kind == "fault"]


def figures_by_path(figures: Any) -> dict[str, Any]:
    """Return each figure of a nested record by the path to it."""
    if isinstance(figures, dict):
        figures = figures.items()
    elif isinstance(figures, list):
        figures = enumerate(figures)
    else:
        return {"": figures}
    return {f".{key}{path}": one for key, inner in figures for path, one in figures_by_path(inner).items()}


@pytest.mark.parametrize("study", [COX, SURVIVAL], ids=["cox", "survival"])
def test_hazard_ratios_and_survival_at_institutions_are_those_of_one_process(small_sites: Small, study: str):
    gated = institutions(small_sites(3, rows=200), study + SUMS)
    here = in_the_clear(gated, study)
    coordinator = Coordinator(gated)
    ended = coordinator.run()
    assert ended.status == "completed", ended.reason
    found = statistic_of(ended.run)
    # No figure of one site alone, where sites in the clear have theirs; and so none that averages them.
    assert found.pop("by-site") == {} and here.pop("by-site")
    assert ("averaging" in found) == ("averaging" in here) == (study == COX)
    assert found.pop("averaging", None) != here.pop("averaging", 0)
    figures, expected = figures_by_path(found), figures_by_path(here)
    assert figures.keys() == expected.keys()
    for path, value in expected.items():
        # Whole numbers and words are the same; the others are rounded to the ring of the sums.
        if isinstance(value, float):
            assert figures[path] == pytest.approx(value, rel=1e-8, abs=1e-12), path
        else:
            assert figures[path] == value, path
    # Whatever is in no sum is no number that a site sent.
    for _, sent, reply in coordinator.grid.sent:
        if sent.metadata.message_type == STATISTIC:
            answer = StatisticReply.from_record(reply.content)
            assert not answer.sums and answer.masked is not None and answer.masked.sums.max() > 2**60


def test_a_site_of_too_few_events_says_so_and_the_run_ends_with_its_reason(small_sites: Small):
    def small_first(number: int, table: pd.DataFrame) -> pd.DataFrame:
        # Of 30 rows the last one is in every risk set.
        return table if number else table.dropna().tail(30).reset_index(drop=True)

    gated = institutions(small_sites(4, rows=200, change=small_first), COX + SUMS)
    why = "one of its rows carries over a tenth of its sums from the start: it has too few rows or events"
    # Resumed it would ask for the same numbers.
    with pytest.raises(FlfedError, match=f"no sum over the rows of the sites .site-01: {why}"):
        Coordinator(gated).run()
    with RunReader.open() as reader:
        ended = next(iter(reader.runs()))
    assert ended.status == "failed" and why in ended.reason
    with RunReader.open() as reader:
        (event,) = (event for event in reader.events([ended.run]) if event.kind == "fault")
    assert event.site == "site-01" and event.reason.startswith(why)
    last = gated.lines("site-01")[-1]
    assert last.kind == "error" and str(last.facts["reason"]).startswith(why)


def test_a_fit_of_an_open_sites_own_rows_leaves_with_its_first_visit(small_sites: Small):
    found = Consortium(small_sites(3, rows=200), Study.parse(f'{GLM}intercept = "site"\n'))
    here = run(found.study, sites=list(found.sites.values())).report["statistics"]
    ended = Coordinator(found).run()
    assert ended.status == "completed", ended.reason
    assert statistic_of(ended.run) == here
    assert here["averaging"]["own-fits"] == 3 and len(here["by-site"]) == 3
    grid = SummingGrid(found, run="asked")
    replies = [ask(grid, "site-01", at(0, 0, 0)), ask(grid, "site-01", at(0.1, 0, 0, round=1))]
    fits = [StatisticReply.from_record(reply.content).fit for reply in replies]
    assert list(fits[0]) == ["coefficients", "variances"] and fits[1] == {}
