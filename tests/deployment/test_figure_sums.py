"""Figures of sites that share them in sums only: of three such sites or more they leave in one sum over all of them."""

import gc
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import pytest

from flfed.deployment.gate.local_results import Result, results_of
from flfed.federation.recording.run_record import Outcome
from flfed.federation.server.server import FederatedRun
from flfed.paths import home
from flfed.records.reports.report import report
from flfed.records.reports.site_answer import together
from flfed.records.store.reader import RunReader
from flfed.rows.comparison.arms import arm_scores
from flfed.rows.data.site import Site
from flfed.rows.evaluation.scoring import metrics_of
from flfed.rows.session import SiteSession
from flfed.rows.training.answer import run_client
from flfed.study.study import Study
from flfed.updates.aggregation.secure_sum import SecureSums
from flfed.updates.checkpoints import checkpoint as checkpoints
from flfed.updates.messages.compare import COMPARE, CompareReply, Figure
from flfed.updates.messages.secure_sum import UNMASK
from tests.deployment.summing import Consortium, Coordinator, SummingGrid, conduct, sharing_in_sums
from tests.deployment.test_secure_sums_lies import reached

ROUNDS = 2
ASKED = {"secure-aggregation": "on", "strategy.rounds": ROUNDS}
MEANS = ("log_loss", "brier_score_loss", "accuracy_score")


@pytest.fixture
def consortium(small_sites: Callable[..., list[Site]], small_study: str) -> Callable[..., Consortium]:
    """A function that returns sites of which the first so many share figures in sums only."""
    return partial(sharing_in_sums, small_sites, Study.parse(small_study).replace(ASKED))


def recorded() -> tuple[Mapping[str, Any], list[str]]:
    """Return the newest run's report, and its notes."""
    with RunReader.open() as reader:
        found = report(reader, "latest")
        return found, [event.reason for event in reader.events([found["run"]]) if event.kind == "note"]


def pooled(found: Consortium, outcome: Outcome, sites: list[str]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return targets and predictions of each arm over the holdout rows of some sites."""
    targets, scores = list[np.ndarray](), dict[str, list[np.ndarray]]()
    for name in sites:
        session = SiteSession(found.sites[name], found.study)
        table = session.table.holdout("compare")
        targets.append(session.target(table))
        for arm, score in run_client(arm_scores(session, table, outcome.arrays, outcome.encoder)).items():
            scores.setdefault(arm, []).append(score)
    return np.concatenate(targets), {arm: np.concatenate(parts) for arm, parts in scores.items()}


@pytest.mark.parametrize("sites", [4, 5])
def test_the_figures_of_three_such_sites_are_those_over_their_rows_together(consortium, sites):
    found = consortium(sites, 3)
    grid = SummingGrid(found)
    outcome = conduct(found, grid)
    assert (outcome.status, outcome.reason) == ("completed", "")
    told, notes = recorded()
    y, scores = pooled(found, outcome, sorted(found.sites)[:3])
    summed = told["sums-only"]
    assert (summed["sites"], summed["holdout-rows"], summed["rows"]) == (3, len(y), "holdout")
    metrics = metrics_of("binary")
    for name, arm in itertools.product(MEANS, ("global", "local-only", "personalised")):
        assert summed["figures"][name][arm] == pytest.approx(metrics[name].value(y, scores[arm]), abs=1e-9)
    low, high = summed["auc-bounds"]
    assert low <= metrics["roc_auc_score"].value(y, scores["global"]) <= high < low + 0.1
    # Four sites without one of them would have other figures.
    y, scores = pooled(found, outcome, sorted(found.sites)[1:4])
    assert abs(summed["figures"]["log_loss"]["global"] - metrics["log_loss"].value(y, scores["global"])) > 1e-4
    assert [note for note in notes if "came as one sum" in note] == [
        "the figures of 3 sites that share none of their own came as one sum over all of these sites"
    ]
    (line,) = together(told, "roc_auc_score")
    assert line.startswith(f"3 sites together, which share no figures of their own, on {summed['holdout-rows']} test")
    assert set(told["sums-only"]) == {"rows", "sites", "holdout-rows", "figures", "auc-bounds"}


def test_the_ledger_has_question_and_list_and_the_run_forgets_its_keys_when_it_is_sealed(consortium):
    found = consortium(4, 3)
    grid = SummingGrid(found)
    conduct(found, grid)
    compared, opened = found.lines("site-01")[-2:]
    assert (compared.kind, opened.kind) == ("compare", "unmask")
    assert compared.facts["question-sha256"] == opened.facts["question-sha256"]
    assert compared.facts["pinned"] == "site-01,site-02,site-03,site-04"
    assert opened.facts["listed"] == "site-01,site-02,site-03"
    assert "question-sha256" not in found.lines("site-04")[-1].facts
    replies = {(site, message.metadata.message_type): reply for site, message, reply in grid.sent}
    assert set(replies["site-01", COMPARE].content) == {"config", "masked"}
    assert {"arms", "histogram"} <= set(replies["site-04", COMPARE].content)


@pytest.mark.parametrize("reserved", [1, 2])
def test_of_fewer_such_sites_all_stays(consortium: Callable[..., Consortium], reserved: int):
    found = consortium(4, reserved)
    grid = SummingGrid(found)
    assert conduct(found, grid).status == "completed"
    told, notes = recorded()
    assert "sums-only" not in told and together(told, "roc_auc_score") == []
    assert any("leaves there: figures over sites are of the others" in note for note in notes)
    for site, message, reply in grid.sent:
        if message.metadata.message_type == COMPARE and site <= f"site-0{reserved}":
            assert set(reply.content) == {"config"}


def test_where_all_sites_are_such_sites_the_run_completes_with_their_sum_alone(consortium: Callable[..., Consortium]):
    found = consortium(4, 4)
    assert conduct(found, SummingGrid(found)).status == "completed"
    told, _ = recorded()
    assert told["sums-only"]["sites"] == 4 and together(told, "")[0].startswith("4 sites together")
    assert all(site["global"] is None or not site["global"] for site in told["sites"].values())


@pytest.mark.parametrize("kind", [COMPARE, UNMASK])
def test_where_one_of_three_is_missing_the_figures_stay_and_it_is_said(consortium, kind):
    found, compared = consortium(4, 3), list[str]()

    def absent(site: str, asked: str) -> bool:
        compared.extend([site] if asked == COMPARE else [])
        return site == "site-02" and asked == kind and bool(compared)

    assert conduct(found, SummingGrid(found, absent)).status == "completed"
    told, notes = recorded()
    assert "sums-only" not in told
    assert any(note.startswith("no sum of the figures of the sites that share none of their own") for note in notes)


def test_what_one_site_keeps_back_is_in_no_sum_of_the_others(consortium: Callable[..., Consortium]):
    found = consortium(4, 3, institution="site-02", rows=300)
    conduct(found, SummingGrid(found))
    summed = recorded()[0]["sums-only"]
    # Its policy names no counts by prediction; its losses may leave in whatever way.
    assert summed["auc-bounds"] is None and "roc_auc_score" not in summed["figures"]
    assert set(summed["figures"]) >= {"log_loss", "brier_score_loss"}


def numbers_in(value: Any) -> list[float]:
    """Return all numbers of a JSON value."""
    if isinstance(value, dict | list):
        parts = value.values() if isinstance(value, dict) else value
        return [number for part in parts for number in numbers_in(part)]
    return [float(value)] if isinstance(value, int | float) and not isinstance(value, bool) else []


def subsets(sites: list[str]) -> Iterator[tuple[str, ...]]:
    for number in range(1, len(sites) + 1):
        yield from itertools.combinations(sites, number)


def followed(numbers: list[float], own: Mapping[str, Result], hidden: list[str]) -> set[tuple[str, ...]]:
    """Return of which parts of the hidden sites a mean follows from numbers, the other sites' figures taken off."""
    named, found = sorted(set(own) - set(hidden)), set[tuple[str, ...]]()
    for metric in ("log_loss", "brier_score_loss"):  # shares of about as many rows are alike at several sites
        sums = {
            site: result.holdout_rows * one.value
            for site, result in own.items()
            for one in result.arms
            if (one.metric, one.arm) == (metric, "global")
        }
        for part, others in itertools.product(subsets(hidden), [(), *subsets(named)]):
            rows = sum(own[site].holdout_rows for site in (*part, *others))
            mean = sum(sums[site] for site in (*part, *others)) / rows
            found |= {part} if any(abs(number - mean) < 1e-9 for number in numbers) else set()
    return found


@pytest.mark.parametrize("reserved", [1, 2, 3])
def test_no_figure_of_such_a_site_nor_what_follows_by_subtraction_is_in_what_the_coordinator_has(
    consortium: Callable[..., Consortium], reserved: int, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("DEBUG")
    found, pieces, asked = consortium(4, reserved), list[bytes](), list[str]()
    coordinator = Coordinator(found)

    def look(site: str, kind: str) -> bool:
        # With the comparisons of all sites in its memory, and before the sum of figures is opened.
        asked.append(kind)
        if COMPARE in asked and asked.count(COMPARE) == 4 and site == "site-03":
            held = [one for one in gc.get_objects() if isinstance(one, CompareReply | SecureSums | FederatedRun)]
            pieces.extend(reached([*held], {id(found), id(found.gates), id(found.sites), id(coordinator.grid)}))
        return False

    assert coordinator.run(absent=look).status == "completed"
    told = recorded()[0]
    own = {site: results_of(folder)[0][0] for site, folder in found.folders.items()}
    hidden = sorted(own)[:reserved]
    numbers = numbers_in(told)
    for _, _, reply in coordinator.grid.sent:
        for part in (*reply.content.config_records.values(), *reply.content.metric_records.values()):
            numbers += numbers_in(dict(part))
        for arrays in reply.content.array_records.values():
            pieces += [array.numpy().tobytes() for array in arrays.values()]
    pieces += [path.read_bytes() for path in (home() / "runs").rglob("*") if path.is_file()]
    pieces += [path.read_bytes() for path in home().glob("runs.db*")]
    pieces += [caplog.text.encode(), json.dumps(told).encode(), np.array(numbers).tobytes()]

    def is_held(one: Figure) -> bool:
        forms = (repr(one.value).encode(), np.float64(one.value).tobytes(), np.float64(one.value).byteswap().tobytes())
        return any(form in piece for form in forms for piece in pieces)

    # The search finds the figures of the other sites, which cross.
    told_arms = [one for site in own if site not in hidden for one in own[site].arms if np.isfinite(one.value)]
    assert told_arms and all(map(is_held, told_arms))
    own_arms = [one for site in hidden for one in own[site].arms if one.metric in ("log_loss", "brier_score_loss")]
    assert len(own_arms) == 6 * reserved and [one for one in own_arms if is_held(one)] == []
    # Of all such sites together, where they are three; nothing of one, and nothing of two. A mean over one of them and
    # another site would be found.
    assert followed(numbers, own, hidden) == ({tuple(hidden)} if reserved == 3 else set())
    both = [own[site] for site in (hidden[0], "site-04")]
    rows = [result.holdout_rows for result in both]
    losses = [one.value for result in both for one in result.arms if (one.metric, one.arm) == ("log_loss", "global")]
    assert (hidden[0],) in followed([float(np.average(losses, weights=rows))], own, hidden)


KILLED = {
    "before the sum of figures is opened": lambda kind, asked: kind == UNMASK,
    "after the first site opened it": lambda kind, asked: kind == UNMASK and asked.count(UNMASK) > 1,
    "while sites compare": lambda kind, asked: kind == COMPARE and asked.count(COMPARE) > 2,
}


@pytest.mark.studies
@pytest.mark.parametrize("when", KILLED)
def test_a_coordinator_that_was_killed_has_the_same_sum_once_the_run_goes_on(consortium, when):
    found, asked = consortium(4, 3), list[str]()
    coordinator = Coordinator(found)

    def crash(site: str, kind: str) -> bool | str:
        asked.append(kind)
        after = asked[asked.index(COMPARE) :] if COMPARE in asked else []
        return "crash" if after and KILLED[when](kind, after) else False

    run = coordinator.run(absent=crash)
    assert run.status != "completed" and "sums-only" not in recorded()[0]
    assert coordinator.run(run.run).status == "completed"
    summed = recorded()[0]["sums-only"]
    own = [results_of(found.folders[site])[0][0] for site in sorted(found.sites)[:3]]
    losses = [one.value for result in own for one in result.arms if (one.metric, one.arm) == ("log_loss", "global")]
    expected = np.average(losses, weights=[result.holdout_rows for result in own])
    assert summed["figures"]["log_loss"]["global"] == pytest.approx(expected, abs=1e-9)
    # Nothing of the sum stays, and there is one list.
    assert [path.name for path in checkpoints.folder_of(run.run).iterdir()] == ["final.safetensors"]
    lists = {line.facts["listed"] for line in found.lines("site-01") if line.kind == "unmask"}
    assert lists == {"site-01,site-02,site-03", "site-01,site-02,site-03,site-04"}


@pytest.mark.parametrize("fault", ["killed", "left"])
def test_a_site_that_is_killed_while_the_sum_is_opened_is_asked_again(consortium, fault):
    found, asked = consortium(4, 3), list[tuple[str, str]]()

    def kill(site: str, kind: str) -> bool | str:
        asked.append((site, kind))
        compared = ("site-02", COMPARE) in asked
        last = asked[asked.index(("site-02", COMPARE)) :] if compared else []
        return fault if (site, kind) == ("site-02", UNMASK) and last.count((site, kind)) == 1 else False

    assert conduct(found, SummingGrid(found, kill)).status == "completed"
    assert recorded()[0]["sums-only"]["sites"] == 3
