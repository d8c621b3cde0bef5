"""Figures of a study that records their sum: means and counts over all sites, and nothing of one site."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from flfed.deployment.gate.local_results import results_of
from flfed.errors import UsageError
from flfed.federation.client import masked as site_sums
from flfed.federation.recording.run_record import Outcome
from flfed.paths import home
from flfed.records.document import document
from flfed.records.reports.report import report
from flfed.records.reports.site_answer import own_figures, together
from flfed.records.store.reader import RunReader
from flfed.rows.comparison.arms import arm_scores
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site, study_refusal
from flfed.rows.evaluation.scoring import metrics_of
from flfed.rows.session import SiteSession
from flfed.rows.training.answer import run_client
from flfed.study.study import Study
from flfed.updates.checkpoints import checkpoint as checkpoints
from flfed.updates.masks.figure_sums import FIGURES
from flfed.updates.messages.compare import COMPARE
from tests.deployment.summing import Consortium, Coordinator, SummingGrid, conduct, summing

ROUNDS = 2
ASKED = {"secure-aggregation": "on", "strategy.rounds": ROUNDS, "compare.share": "sum"}


@pytest.fixture
def consortium(small_sites: Callable[..., list[Site]], small_study: str) -> Callable[..., Consortium]:
    """A function that returns so many sites of a study that records one sum."""
    return partial(summing, small_sites, Study.parse(small_study).replace(ASKED))


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


@pytest.mark.parametrize("sites", [3, 5])
def test_the_sum_has_the_figures_over_the_rows_of_all_sites(consortium, sites):
    found = consortium(sites)
    outcome = conduct(found, SummingGrid(found))
    assert (outcome.status, outcome.reason) == ("completed", "")
    told, _ = recorded()
    y, scores = pooled(found, outcome, sorted(found.sites))
    summed = told["summed-figures"]
    assert (summed["sites"], summed["holdout-rows"], summed["rows"]) == (sites, len(y), "holdout")
    metrics = metrics_of("binary")
    for name, arm in FIGURES["binary"]:
        assert summed["figures"][name][arm] == pytest.approx(metrics[name].value(y, scores[arm]), abs=1e-9)
    low, high = summed["auc-bounds"]
    assert low <= metrics["roc_auc_score"].value(y, scores["global"]) <= high
    assert told["share"] == "sum" and own_figures(told) == []
    (line,) = together(told, "roc_auc_score")
    assert line.startswith(f"{sites} sites together, on {len(y)} test rows")


def test_no_figure_of_a_site_is_in_what_the_coordinator_has_and_its_own_people_see_theirs(consortium, tmp_path):
    found = consortium(4)
    coordinator = Coordinator(found)
    assert coordinator.run().status == "completed"
    own = {site: results_of(folder)[0][0] for site, folder in found.folders.items()}
    document.write_document(tmp_path / "run.html", "latest")
    told = recorded()[0]
    pieces = [(tmp_path / "run.html").read_bytes(), json.dumps(told).encode()]
    pieces += [path.read_bytes() for path in (home() / "runs").rglob("*") if path.is_file()]
    pieces += [path.read_bytes() for path in home().glob("runs.db*")]
    for _, message, reply in coordinator.grid.sent:
        if message.metadata.message_type == COMPARE:
            assert set(reply.content) == {"config", "masked"} and reply.content["config"]["holdout-rows"] == 0
        for arrays in reply.content.array_records.values():
            pieces += [array.numpy().tobytes() for array in arrays.values()]

    def is_held(value: float) -> bool:
        number = np.float64(value)
        forms = (repr(value).encode(), number.tobytes(), number.byteswap().tobytes())
        return any(form in piece for form in forms for piece in pieces)

    assert is_held(told["summed-figures"]["figures"]["log_loss"]["global"])
    # Shares of a few rows are alike by chance.
    arms = [one for result in own.values() for one in result.arms if one.metric in ("log_loss", "brier_score_loss")]
    assert len(arms) >= 4 * 4 and [one for one in arms if is_held(one.value)] == []
    with RunReader.open() as reader:
        rounds = [row for number in range(ROUNDS + 1) for row in reader.metrics(told["run"], number)]
        assert rounds and {row.site for row in rounds} == {None}
        assert {row.site for row in reader.figures(told["run"])} == set()


def test_rows_are_counted_by_prediction_only_where_all_policies_allow_it(consortium):
    found = consortium(3, institution="site-02", rows=300)
    conduct(found, SummingGrid(found))
    summed = recorded()[0]["summed-figures"]
    assert summed["auc-bounds"] is None and "roc_auc_score" not in summed["figures"]
    assert set(summed["figures"]) == {"log_loss", "brier_score_loss", "accuracy_score"}


def test_where_a_site_is_missing_there_is_no_sum_and_it_is_said(consortium):
    found = consortium(3)
    absent = lambda site, kind: (site, kind) == ("site-02", COMPARE)  # noqa: E731 - one fault of many
    assert conduct(found, SummingGrid(found, absent)).status == "completed"
    told, notes = recorded()
    assert "summed-figures" not in told
    assert any(note.startswith("no sum of the sites' figures: ") for note in notes)


@pytest.mark.studies
def test_a_coordinator_that_was_killed_has_the_same_sum_once_the_run_goes_on(consortium):
    found, asked = consortium(4), list[str]()
    coordinator = Coordinator(found)

    def crash(site: str, one: str) -> bool | str:
        asked.append(one)
        return "crash" if one == COMPARE and asked.count(COMPARE) == 2 else False

    run = coordinator.run(absent=crash)
    kept = {site: {path.stem for path in folder.root.glob("runs/*/sums-*")} for site, folder in found.folders.items()}
    # With its figures a site's secrets of the run went.
    assert [site for site, names in kept.items() if site_sums.SECRETS not in names] == ["site-01"]
    assert run.status != "completed" and "summed-figures" not in recorded()[0]
    assert coordinator.run(run.run).status == "completed"
    own = [results_of(folder)[0][0] for folder in found.folders.values()]
    losses = [one.value for result in own for one in result.arms if (one.metric, one.arm) == ("log_loss", "global")]
    expected = np.average(losses, weights=[result.holdout_rows for result in own])
    assert recorded()[0]["summed-figures"]["figures"]["log_loss"]["global"] == pytest.approx(expected, abs=1e-9)
    assert [path.name for path in checkpoints.folder_of(run.run).iterdir()] == ["final.safetensors"]


def test_a_site_that_shares_in_sums_refuses_a_named_study(small_sites, small_study):
    named = Study.parse(small_study).replace({"secure-aggregation": "on"})
    site = replace(small_sites(1)[0], policy=Policy(share="sum"))
    assert study_refusal(named, site).code == "share-named"
    assert study_refusal(named.replace({"compare.share": "sum"}), site) is None


@pytest.mark.parametrize("mode", ["off", "auto", "ckks"])
def test_a_sum_needs_masks(small_study: str, mode: str):
    with pytest.raises(UsageError, match="share='sum' needs"):
        Study.parse(small_study).replace({"compare.share": "sum", "secure-aggregation": mode})
