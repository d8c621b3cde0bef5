"""What is a site's own of the model: trained as its paper says, the personalised arm, and in no message."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from flfed import Study, registry, run
from flfed.records.reports.report import report
from flfed.rows.session import FIT, SiteSession
from flfed.rows.training.fit import fit
from flfed.rows.training.requests import FitRequest
from flfed.seeds import generator
from flfed.updates.checkpoints import checkpoint
from flfed.updates.extra import OWN
from flfed.updates.messages.fields import Arrays, ndarrays
from flfed.updates.messages.train import TRAIN
from flfed.updates.strategies.personal.ditto import Ditto
from tests.experiments.test_canary import bytes_of, forms, found_in
from tests.small_runs import Conducted

MLP = {"model.name": "mlp", "model.hidden": [8]}
ONE_BATCH = {"plan.batch": 0, "plan.epochs": 3, "plan.l2": 0.1}
AUC = "roc_auc_score"


def own_of(done: Conducted, round: int = 5) -> dict[str, Arrays]:
    """Return what each site of a run has of its own of the model after a round."""
    states = done.grid.site_states(round)
    return {
        site: {name.removeprefix(OWN): value for name, value in state.items() if name.startswith(OWN)}
        for site, state in states.items()
    }


def models_sent(done: Conducted) -> list[Arrays]:
    """Return the shared model of each round, as it was sent to the first site."""
    first = done.grid.sites[0]
    return [ndarrays(h.message.content, "arrays") for h in done.sent(TRAIN, "to-site") if h.site == first]


def with_strategy(text: str, name: str, **changes: Any) -> str:
    return Study.parse(text).replace({"strategy.name": name, **changes}).text


def arrays_of(done: Any) -> Arrays:
    return dict(checkpoint.final(done.run).arrays)


def distance(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> float:
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)


def trained_alone(session: SiteSession, done: Conducted, start: Arrays) -> Arrays:
    """Return a model that a site trains by the study's plan and draws, round after round, without the others."""
    study, model = done.study, dict(start)
    assert done.outcome is not None
    for round in range(1, study.rounds + 1):
        rng = generator(session.seed, site=session.site.name, purpose=FIT, number=round)
        lr = study.plan.lr * study.plan.factor(round, study.rounds)
        rows = session.training(done.outcome.encoder)
        given: dict[str, Any] = {"model": session.model, "task": session.task, "plan": study.plan, "lr": lr, "rng": rng}
        model = fit(FitRequest(arrays=model, rows=rows, **given)).arrays
    return model


@pytest.mark.parametrize("stacked", [True, False])
@pytest.mark.parametrize("model", [{}, MLP, {"plan.precision": "float32", **MLP}])
def test_the_shared_model_of_ditto_is_that_of_fedavg_to_the_bit(small_sites, small_study, stacked: bool, model: Any):
    sites = small_sites(3)
    plain, ditto = (
        run(Study.parse(with_strategy(small_study, name, **model)), sites=sites, stacked=stacked)
        for name in ("fedavg", "ditto")
    )
    for name, value in arrays_of(plain).items():
        np.testing.assert_array_equal(arrays_of(ditto)[name], value)
    arm = [[told.report["sites"][site.name]["global"][AUC]["value"] for site in sites] for told in (plain, ditto)]
    assert arm[0] == pytest.approx(arm[1], abs=1e-12)
    assert plain.report["sites"]["site-01"]["personalised"] != ditto.report["sites"]["site-01"]["personalised"]


@pytest.mark.parametrize("model", [{"plan.batch": 16}, {**MLP, "plan.optimiser": "adam", "plan.lr": 0.01}])
def test_without_a_pull_each_site_trains_alone_from_the_same_start_on_the_same_draws(
    small_sites, small_study, conduct: Callable[..., Conducted], model: Any
):
    done = conduct(small_sites(3), with_strategy(small_study, "ditto", **model, **{"strategy.lam": 0.0}))
    start, shared = models_sent(done)[0], models_sent(done)[-1]
    for session, (site, own) in zip(done.sessions(), own_of(done).items(), strict=True):
        assert session.site.name == site
        alone = trained_alone(session, done, start)
        assert distance(own, alone) < 1e-12
        assert distance(own, shared) > 1e-2


def logistic_step(x: np.ndarray, y: np.ndarray, w: np.ndarray, l2: float) -> np.ndarray:
    """Return the gradient of the mean log loss with a penalty on all but the intercept."""
    p = 1 / (1 + np.exp(-x @ w))
    return x.T @ (p - y) / len(y) + l2 * np.r_[w[:-1], 0.0]


def vector(arrays: Arrays) -> np.ndarray:
    return np.r_[arrays["weight"].ravel(), arrays["bias"]]


class PulledToItsStart(Ditto):
    """Planted: pulls own models to where their round began, and not to the shared model."""

    @classmethod
    def own_terms(cls, settings: Mapping[str, float], start: Arrays, incoming: Arrays) -> tuple[Any, ...]:
        return super().own_terms(settings, start, start)


@pytest.mark.parametrize("strategy", ["ditto", "pulled-to-its-start"])
def test_a_pull_of_one_over_the_rate_keeps_own_models_one_step_from_the_shared_one(
    small_sites, small_study, conduct: Callable[..., Conducted], strategy: str
):
    lr = 0.1
    text = small_study.replace('name = "fedavg"', f'name = "{strategy}"\nlam = {1 / lr}')
    with registry.lending("strategy", [PulledToItsStart]):
        done = conduct(small_sites(3), Study.parse(text).replace({**ONE_BATCH, "plan.lr": lr}).text)
    assert done.outcome is not None
    models, far = models_sent(done), []
    for session in done.sessions():
        rows = session.training(done.outcome.encoder)
        x = np.c_[rows.x, np.ones(len(rows))]
        v = vector(models[0])
        for model in models:
            w = vector(model)
            for _ in range(3):  # v - lr (g + (v - w) / lr) = w - lr g
                v = w - lr * logistic_step(x, rows.y, v, 0.1)
        far.append(np.abs(vector(own_of(done)[session.site.name]) - v).max())
    assert max(far) < 1e-12 if strategy == "ditto" else min(far) > 1e-3


def test_the_personalised_model_of_the_comparison_is_the_sites_own(small_sites, small_study, conduct):
    done = conduct(small_sites(3, rows=200), with_strategy(small_study, "ditto"), tables=True)
    metric = next(iter(done.sessions())).metrics[AUC]
    for session, own in zip(done.sessions(), own_of(done).values(), strict=True):
        table = session.table.holdout("test")
        x = session.encode(table, done.outcome.encoder).x
        score = 1 / (1 + np.exp(-(x @ own["weight"] + own["bias"])))
        figure = report(done.reader, done.run)["sites"][session.site.name]["personalised"][AUC]["value"]
        assert figure == pytest.approx(metric.value(session.target(table), score.ravel()), abs=1e-12)
    assert any("a model of its own beside the shared one" in event.reason for event in done.reader.events([done.run]))


def needles_of(own: Mapping[str, Arrays], known: Sequence[Arrays]) -> dict[str, bytes]:
    """Return what is looked for: each entry of own arrays that is no shared one, in every form."""
    shared = {float(value) for arrays in known for array in arrays.values() for value in array.ravel()}
    entries = {float(v) for arrays in own.values() for array in arrays.values() for v in array.ravel()} - shared - {0.0}
    assert len(entries) > 5
    return forms(sorted(entries))


def test_no_message_holds_the_own_model(small_sites, small_study, conduct):
    text = with_strategy(small_study, "ditto", **MLP)
    done = conduct(small_sites(3, rows=200), text)
    needles = {}
    for round in (4, 5):  # the two last rounds' are at the sites
        needles |= needles_of(own_of(done, round), models_sent(done)[:1])
    places = [(f"{h.kind} {h.direction} {h.site}", bytes_of(h.message)) for h in done.grid.heard]
    assert len(places) > 30 and found_in(places, needles) == []
    # What is looked for can be found: the shared arrays are there, in the form in which they crossed.
    sent = models_sent(done)[-1]
    assert len(found_in(places, forms([float(sent["weight-0"].ravel()[3])]))) >= 3


@pytest.mark.parametrize(
    "changes",
    [
        {"privacy.secure-aggregation": "on"},
        {"privacy.name": "site-dp", "privacy.clip": 0.5, "privacy.noise": 0.5, "privacy.delta": 1e-3},
        {"codec.name": "int8", "codec.download": "int8"},
        {"codec.name": "top-k", "codec.share": 0.3},
    ],
)  # fmt: skip
def test_what_is_put_on_updates_changes_the_shared_model_as_it_does_fedavgs(small_sites, small_study, changes: Any):
    sites = small_sites(4)
    plain, ditto = (
        run(Study.parse(with_strategy(small_study, name, **changes)), sites=sites, stacked=False)
        for name in ("fedavg", "ditto")
    )
    assert (plain.status, ditto.status, ditto.report["faults"]) == ("completed", "completed", [])
    assert distance(arrays_of(plain), arrays_of(ditto)) <= (1e-6 if "privacy.secure-aggregation" in changes else 0)
    assert ditto.report["sites"]["site-01"]["personalised"] != ditto.report["sites"]["site-01"]["global"]
