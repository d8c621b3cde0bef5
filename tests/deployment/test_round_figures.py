"""Figures of rounds under secure sums: an institution keeps them, and the server decides by the sum of the losses."""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from flfed import run
from flfed.cli.study import sums_in_words
from flfed.deployment.operator.secure_sums import Agreement
from flfed.records.store.entries import RunEntry
from flfed.records.store.reader import RunReader
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site
from flfed.rows.evaluation.scoring import three_digits
from flfed.study.study import Study
from flfed.updates.checkpoints import checkpoint as checkpoints
from flfed.updates.messages.compare import COMPARE
from flfed.updates.messages.train import EVALUATE, TRAIN, TrainReply
from tests.approval_text import details
from tests.boosting import trees_study
from tests.deployment.summing import Consortium, Coordinator, SummingGrid
from tests.deployment.test_secure_sums_killed import in_round
from tests.deployment.test_secure_sums_lies import say_loss

SUMS = {"secure-aggregation": "on", "plan.validation": 0.3}
Make = Callable[..., Consortium]


@pytest.fixture
def consortium(small_sites: Callable[..., list[Site]], small_study: str) -> Make:
    """A function that returns institutions that approved a study with sums."""

    def make(sites: int = 3, rows: int = 90, *, text: str = "", outputs: Any = (), **changes: Any) -> Consortium:
        asked = {f"{name.replace('__', '.').replace('_', '-')}": value for name, value in changes.items()}
        study = Study.parse(text or small_study).replace({**SUMS, **asked})
        return Consortium(small_sites(sites, rows=rows, policy=Policy(outputs=outputs)), study)

    return make


def rounds_of(grid: SummingGrid) -> Iterator[TrainReply]:
    """Yield the replies to rounds, as they left."""
    for _, message, reply in grid.sent:
        if message.metadata.message_type in (TRAIN, EVALUATE):
            assert not reply.has_error(), reply.error.reason
            yield TrainReply.from_record(reply.content)


def has_figures(reply: TrainReply) -> bool:
    """Return whether a reply to a round has a figure of its site."""
    return any(one is not None for one in (reply.loss, reply.scores, reply.offset))


def of_all(entry: Any, arm: str) -> list[float]:
    """Return the recorded losses of all sites together, by round."""
    with RunReader.open() as reader:
        found = [one for number in range(entry.rounds + 1) for one in reader.metrics(entry.run, number)]
    return [float(one.value or 0) for one in found if (one.site, one.arm, one.metric) == (None, arm, "loss")]


def in_one_process(found: Consortium, asked: str = "off") -> RunEntry:
    """Return a run of the same study and sites in one process; without sums its server has exact losses of each."""
    sites = list(found.sites.values())
    if found.study.grows_trees:  # which an institution grows in sums alone
        sites = [replace(site, policy=Policy(disclosure="open")) for site in sites]
    done = run(found.study.replace({"secure-aggregation": asked}), sites=sites)
    with RunReader.open() as reader:
        return reader.runs_of(done.report["run"])[0]


KINDS = {
    "linear": {}, "network": {"model__name": "mlp", "model__hidden": [3]},
    "no validation rows": {"plan__validation": 0.0},
}  # fmt: skip


@pytest.mark.parametrize("kind", [pytest.param("network", marks=pytest.mark.proof), "linear", "no validation rows"])
def test_no_section_of_any_reply_to_a_round_has_a_figure_of_an_institution(consortium: Make, kind: str):
    coordinator = Coordinator(consortium(outputs=("score-histogram",), **KINDS[kind]))
    entry = coordinator.run()
    assert entry.status == "completed", entry.reason
    replies = list(rounds_of(coordinator.grid))
    assert len(replies) == 3 * (entry.rounds + 1)
    for reply in replies:
        assert set(reply.to_record()) == {"config", "metrics", "masked"}
        assert set(reply.to_record()["metrics"]) == {"num-examples", "steps"}
    # All that is known of rounds is of all sites together.
    arm = "training" if kind == "no validation rows" else "validation"
    assert len(of_all(entry, arm)) == entry.rounds + 1 and len(of_all(entry, "fit")) == entry.rounds


def test_the_sum_has_the_losses_of_all_sites_each_rounded_first(consortium: Make):
    found = consortium(4, rows=240)
    entry = Coordinator(found).run()
    exact = in_one_process(found)
    rounded, whole = list[float](), list[float]()
    for number in range(entry.rounds + 1):
        with RunReader.open() as reader:
            own = [one for one in reader.metrics(exact.run, number) if one.site]
        losses = [(one.n or 0, one.value or 0) for one in own if (one.arm, one.metric) == ("validation", "loss")]
        assert len(losses) == 4
        rows = sum(n for n, _ in losses)
        rounded.append(sum(n * three_digits(value) for n, value in losses) / rows)
        whole.append(sum(n * value for n, value in losses) / rows)
    assert of_all(entry, "validation") == pytest.approx(rounded, abs=1e-9)
    assert not any(np.isclose(of_all(entry, "validation"), whole, rtol=0, atol=1e-7))


CHOOSING = {
    "best": {"strategy__select": "best", "strategy__rounds": 8, "plan__lr": 3.0},
    "patience": {"strategy__select": "best", "strategy__patience": 2, "strategy__rounds": 12, "plan__lr": 3.0},
    "plateau": {"plan__schedule": "plateau", "plan__plateau_patience": 1, "strategy__rounds": 8, "plan__lr": 3.0},
}


@pytest.mark.parametrize(
    "rule", ["best", *(pytest.param(one, marks=pytest.mark.proof) for one in ("patience", "plateau"))]
)
def test_the_sums_losses_choose_what_exact_ones_choose(consortium: Make, rule: str):
    found = consortium(rows=240, **CHOOSING[rule])
    entry = Coordinator(found).run()
    exact = in_one_process(found)
    rehearsed = in_one_process(found, "on")
    assert (entry.status, entry.rounds, entry.best_round) == ("completed", exact.rounds, exact.best_round)
    # The last model would be another one.
    assert rule == "plateau" or 0 < (entry.best_round or 0) < found.study.rounds
    assert entry.arrays_sha256 == rehearsed.arrays_sha256


def test_a_run_that_is_resumed_chooses_the_same_model(consortium: Make):
    # The last model is the best one: without its loss it is not chosen.
    found = consortium(strategy__select="best")
    undisturbed = Coordinator(found).run()
    assert undisturbed.best_round == found.study.rounds
    coordinator = Coordinator(found)
    killed = coordinator.run(absent=in_round(1, "site-02", COMPARE, "crash"))
    entry = coordinator.run(killed.run)
    assert (entry.status, entry.best_round) == ("completed", undisturbed.best_round), entry.reason
    assert entry.arrays_sha256 == undisturbed.arrays_sha256


@pytest.mark.parametrize("number", [2, 4])
def test_a_model_that_one_site_spoils_is_known_by_the_sums_loss(
    consortium: Make, number: int, monkeypatch: pytest.MonkeyPatch
):
    """The last of four answers is about the model after the last round."""
    found = consortium(4, strategy__rounds=3)
    say_loss(monkeypatch, number, math.inf)
    entry = Coordinator(found).run()
    assert entry.status == "stopped" and "the mean loss of the model is not finite" in entry.reason
    # The result is the model before the spoilt one.
    assert checkpoints.final(entry.run).round == number - 2


@pytest.mark.proof
def test_of_trees_no_figure_of_a_round_leaves_and_their_losses_are_in_the_sums(consortium: Make, small_study: str):
    asked = {"secure-aggregation": "on", "strategy.rounds": 2, "strategy.min-rows": 10, "strategy.select": "best"}
    outputs = ("single-cells-in-sums", "score-histogram")
    found = consortium(rows=150, text=trees_study(small_study, **asked), outputs=outputs)
    coordinator = Coordinator(found)
    entry = coordinator.run()
    assert entry.status == "completed", entry.reason
    for reply in rounds_of(coordinator.grid):
        assert set(reply.to_record()) <= {"config", "metrics", "masked"} and not has_figures(reply)
    exact = in_one_process(found)
    assert (entry.best_round, entry.arrays_sha256) == (exact.best_round, exact.arrays_sha256)
    losses = of_all(entry, "validation")
    assert len(losses) == 3 and losses == pytest.approx(of_all(exact, "validation"), rel=5e-3)


def test_who_approves_reads_what_leaves_of_rounds(small_sites: Callable[..., list[Site]], small_study: str):
    study = Study.parse(small_study).replace(SUMS)
    (site,) = small_sites(1, policy=Policy())
    agreement = Agreement(True, {name: f"fingerprint of {name}" for name in (site.name, "b", "c")})

    def words(**policy: Any) -> str:
        own = replace(site, policy=Policy(**policy))
        return "\n".join(details(study, own, ["b", "c"], agreement=agreement))

    stays = "this site's own loss, metrics, counts by prediction and intercept, over training, validation or test rows"
    assert re.search(rf"Not released, of any round and of the last model \(at most [^)]+\): {stays}", words())
    assert "Instead, its mean losses over training and validation rows, with three digits, are added" in words()
    assert stays in words(disclosure="open", outputs=("training-figures",))


def test_a_check_says_what_a_run_lacks_of_its_rounds(small_study: str):
    study = Study.parse(small_study)
    for asked in ("auto", "ckks"):
        _, rounds = sums_in_words(study.replace({"secure-aggregation": asked}))
        assert "no curves by site, and no figures over test rows by round. There is no spread" in rounds
        assert "use the mean loss of all sites" in rounds
    assert "spread" not in sums_in_words(study.replace({"secure-aggregation": "on", "model.name": "mlp"}))[1]


def test_under_homomorphic_encryption_losses_are_in_the_sums_and_choose_as_under_masks(consortium: Make):
    pytest.importorskip("tenseal")
    found = consortium(secure_aggregation="ckks", **CHOOSING["best"])
    coordinator = Coordinator(found)
    entry = coordinator.run()
    assert entry.status == "completed", entry.reason
    for reply in rounds_of(coordinator.grid):
        assert set(reply.to_record()) <= {"config", "metrics", "encrypted", "masked"} and not has_figures(reply)
    masked = in_one_process(found, "on")
    assert (entry.rounds, entry.best_round) == (masked.rounds, masked.best_round)
    assert of_all(entry, "validation") == pytest.approx(of_all(masked, "validation"), rel=5e-3)
