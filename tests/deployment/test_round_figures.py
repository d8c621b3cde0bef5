"""Figures of rounds under secure sums: an institution keeps them, and the server decides by the sum of the losses."""

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
from flfed.rows.session import SiteSession
from flfed.study.study import Study
from flfed.updates.aggregation.losses import LARGEST, loss_ring
from flfed.updates.checkpoints import checkpoint as checkpoints
from flfed.updates.messages.compare import COMPARE
from flfed.updates.messages.train import EVALUATE, TRAIN, TrainReply, TrainRequest
from tests.approval_text import details
from tests.boosting import trees_study
from tests.deployment.summing import Consortium, Coordinator, LyingServer, SummingGrid, said
from tests.deployment.test_secure_sums_killed import in_round
from tests.deployment.test_secure_sums_lies import lying

SUMS = {"secure-aggregation": "on", "plan.validation": 0.3}
STEEP = 2e3
"""Of the models of a lying coordinator: whose rows are beyond the threshold has a probability of 1."""
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


def infinite_loss(reply: TrainReply) -> TrainReply:
    """Return a reply whose loss of the model that came is at the bound, as one that is no number is."""
    assert reply.masked is not None
    sums = reply.masked.sums.copy()
    sums[-1:] += np.uint64(LARGEST * loss_ring(4).scale)  # of an array, which wraps without a warning
    return replace(reply, masked=replace(reply.masked, sums=sums))


SPOILT = {
    "loss": (TRAIN, 2, infinite_loss), "last loss": (EVALUATE, 1, infinite_loss),
}  # fmt: skip
"""What the last site sends of whose kind, and in which of its replies."""


@pytest.mark.parametrize("what", ["loss", "last loss"])
def test_a_model_that_one_site_spoils_is_known_by_the_sums_loss(consortium: Make, what: str):
    found = consortium(4, strategy__rounds=3)
    kind, number, change = SPOILT[what]
    entry = Coordinator(found).run(lie=lying([number], change, kind))
    assert entry.status == "stopped" and "the mean loss of the model is not finite" in entry.reason
    # The result is the model before the spoilt one.
    assert checkpoints.final(entry.run).round == {"loss": 0, "last loss": 2}[what]


class Chooser(LyingServer):
    """A coordinator that gives sites their keys, and trains them from models of its own choice."""

    def __init__(self, found: Consortium) -> None:
        super().__init__(found)
        assert not any(map(said, self.keys().values()))
        self.arrays, self.encoder = self.model().values()

    def threshold(self, site: str, number: int, direction: np.ndarray, at: float) -> TrainReply:
        """Return the reply to a round whose model calls all rows beyond a threshold."""
        chosen = dict(self.arrays)
        for name, value in chosen.items():
            steep = STEEP * direction if value.size > 1 else np.array([-STEEP * at])
            chosen[name] = steep.reshape(value.shape).astype(value.dtype)
        request = TrainRequest(arrays=chosen, encoder=self.encoder, round=number, rounds=self.study.rounds)
        reply = self.ask(site, TRAIN, request)
        assert not reply.has_error(), reply.error.reason
        return TrainReply.from_record(reply.content)


# On the code before, all outcomes were read without any output named, of exact figures.
@pytest.mark.parametrize("outputs", [(), ("training-figures",)])
def test_a_coordinator_that_chooses_thresholds_reads_no_outcome_of_rows_whose_inputs_it_knows(consortium, outputs):
    asked = {"strategy__rounds": 60, "plan__validation": 0.0, "compare__primary": "brier_score_loss"}
    found = consortium(rows=60, outputs=outputs, **asked)
    coordinator, victim = Chooser(found), "site-01"
    rows = SiteSession(found.sites[victim], found.study).round_rows(coordinator.encoder)[0]
    inputs = np.asarray(rows.x, np.float64)
    direction = np.random.default_rng(5).normal(size=inputs.shape[1])
    order = np.argsort(-(inputs @ direction))
    places = (inputs @ direction)[order]
    # Each threshold has one row more beyond it than the one before.
    thresholds = np.concatenate([[places[0] + 1], (places[:-1] + places[1:]) / 2])
    replies = [coordinator.threshold(victim, n, direction, at) for n, at in enumerate(thresholds, 1)]
    assert not any(has_figures(reply) for reply in replies)


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
    for asked, instead in (("auto", "use the mean loss of all sites"), ("ckks", "No sum of losses is opened")):
        _, rounds = sums_in_words(study.replace({"secure-aggregation": asked}))
        assert (
            "no curves by site, and no figures over test rows by round. There is no spread" in rounds
            and instead in rounds
        )
    assert "spread" not in sums_in_words(study.replace({"secure-aggregation": "on", "model.name": "mlp"}))[1]


def test_under_homomorphic_encryption_no_loss_leaves_and_nothing_is_chosen_by_one(consortium: Make):
    pytest.importorskip("tenseal")
    coordinator = Coordinator(consortium(secure_aggregation="ckks", strategy__rounds=2))
    assert coordinator.run().status == "completed"
    for reply in rounds_of(coordinator.grid):
        assert set(reply.to_record()) <= {"config", "metrics", "encrypted"} and not has_figures(reply)
