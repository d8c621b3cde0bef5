"""FedProx: the proximal term is the gradient of half the squared distance, and holds sites near the global model."""

import numpy as np
import pytest
import torch

from flfed.errors import UsageError
from flfed.federation.client.client import SiteClient
from flfed.federation.engines.inprocess import InProcessGrid
from flfed.rows.data.site import Site
from flfed.rows.session import SiteSession
from flfed.study.study import Study
from flfed.summaries.summary import fit_encoder, merge
from flfed.updates.aggregation.rounds import Participant, RunContext
from flfed.updates.messages.fields import MalformedMessage
from flfed.updates.strategies.fedavg import to_arrays, to_record
from flfed.updates.strategies.fedprox import FedProx, proximal_gradient


def test_proximal_term_pulls_with_mu_times_the_distance():
    # gradient of mu/2 * ||w - a||^2 at w = (3, 4), a = 0, mu = 0.5 is mu * (3, 4)
    w, anchor = torch.tensor([3.0, 4.0]), torch.zeros(2)
    expected = torch.tensor([1.5, 2.0])
    torch.testing.assert_close(proximal_gradient(w, anchor, mu=0.5), expected)
    stack = torch.stack([w, 2 * w])  # two sites at once
    torch.testing.assert_close(proximal_gradient(stack, anchor, mu=0.5), torch.stack([expected, 2 * expected]))


def test_proximal_term_is_what_automatic_differentiation_gives_for_the_penalty_of_the_paper():
    rng = np.random.default_rng(4)
    w, anchor = (torch.from_numpy(rng.normal(size=(3, 2))) for _ in range(2))
    leaf = w.clone().requires_grad_()
    (1.7 / 2 * (leaf - anchor).square().sum()).backward()
    torch.testing.assert_close(proximal_gradient(w, anchor, mu=1.7), leaf.grad, rtol=1e-14, atol=0)


class Federation:
    """Real sites on the real client app, asked over the in-process grid by the strategy that a study names."""

    def __init__(self, study: Study, sites: list[Site]) -> None:
        self.study, self.names = study, [site.name for site in sites]
        self.side = SiteClient(lambda name, _: next(site for site in sites if site.name == name))
        places = [SiteSession(site, study) for site in sites]
        self.encoder = fit_encoder(places[0].layout, merge([place.summary() for place in places]))
        self.rows = [place.training(self.encoder) for place in places]

    def start(self) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(3)
        return {"weight": rng.normal(size=(self.rows[0].x.shape[1], 1)), "bias": rng.normal(size=1)}

    def run(self, name: str = "fedprox", rounds: int = 1, **settings) -> np.ndarray:
        """The global model after some rounds, as one vector, the bias last."""
        study = self.study.replace({f"strategy.{key}": value for key, value in {"name": name, **settings}.items()})
        grid = InProcessGrid(self.side.app(), self.names, {"study": study.text, "repeat": 0})
        self.strategy = study.strategy.build("strategy")
        participants = {name: Participant(node_id=n, rows_high=9999) for n, name in enumerate(self.names, start=1)}
        given = RunContext(participants=participants, encoder=self.encoder, plan=study.plan, rounds=rounds, seed=5)
        self.strategy.assign(given)
        return vector(to_arrays(self.strategy.start(grid, to_record(self.start()), rounds).arrays))


def vector(arrays: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([arrays["weight"].ravel(), arrays["bias"]])


def closed_form(federation: Federation, mu: float, lr: float, steps: int) -> np.ndarray:
    """The global (weights, bias) after one round of full-batch steps on least squares.

    Site k's loss is ||X w - y||^2 / 2n with gradient H w - b, H = X'X/n, b = X'y/n. With the term
    a step from the anchor a is d -> d - lr (H (a + d) - b + mu d) = (I - lr A) d - lr g, where
    A = H + mu I and g = H a - b. From d = 0, `steps` of them give
    d = -lr (I + M + ... + M^(steps-1)) g with M = I - lr A, that is -(I - M^steps) A^-1 g.
    The new model is a plus the mean of the d, weighted by rows.
    """
    anchor = vector(federation.start())
    total, moved = 0, np.zeros(3)
    for rows in federation.rows:
        design, n = np.column_stack([rows.x, np.ones(len(rows))]), len(rows)
        hessian, b = design.T @ design / n, design.T @ rows.y / n
        a = hessian + mu * np.eye(3)
        m = np.eye(3) - lr * a
        d = -(np.eye(3) - np.linalg.matrix_power(m, steps)) @ np.linalg.solve(a, hessian @ anchor - b)
        total, moved = total + n, moved + n * d
    return anchor + moved / total


@pytest.mark.parametrize("steps", [1, 2, 7, 1500])
def test_full_batch_rounds_over_unequal_sites_equal_the_closed_form_at_mu_1(line_sites, small_study, steps):
    lr = 0.15
    text = small_study.replace('"small"', '"line"').replace("logistic", "linear")
    changes = {"plan.batch": 0, "plan.steps": steps, "plan.lr": lr, "plan.l2": 0.0}
    federation = Federation(Study.parse(text).replace(changes), line_sites)
    sizes = [len(rows) for rows in federation.rows]
    assert max(sizes) > 3 * min(sizes)

    found = federation.run(mu=1.0)
    np.testing.assert_allclose(found, closed_form(federation, 1.0, lr, steps), atol=1e-12)
    # From the second step on another mu, or the mean of sites as if equal, is another model.
    for other in (0.0, 0.5, 2.0) if steps > 1 else ():
        assert np.abs(found - closed_form(federation, other, lr, steps)).max() > 1e-3
    assert np.abs(found - federation.run(mu=1.0, weights="equal")).max() > 1e-3


def test_mu_of_100_shrinks_the_distance_of_every_site_more_than_tenfold(small_sites, small_study):
    # mu * lr = 0.5: after a few steps a site stands about |g| / mu from the global model.
    changes = {"plan.batch": 0, "plan.steps": 200, "plan.lr": 0.005, "plan.l2": 0.0}
    study = Study.parse(small_study).replace(changes)
    alones = [Federation(study, [site]) for site in small_sites(3, rows=80)]
    norms = {}
    for mu in (0.0, 1.0, 100.0):
        # The delta that one site alone would send is the step of a federation of it alone.
        norms[mu] = [np.linalg.norm(alone.run(mu=mu) - vector(alone.start())) for alone in alones]
    for free, held, tight in zip(*norms.values(), strict=True):
        assert free > 10 * tight > 0
        assert free > held > tight


def test_mu_of_0_is_federated_averaging_to_the_bit_and_the_default_is_not(small_sites, small_study):
    study = Study.parse(small_study).replace({"plan.epochs": 3, "plan.momentum": 0.5})
    federation = Federation(study, small_sites(3))
    plain = federation.run("fedavg", 4)
    np.testing.assert_array_equal(federation.run(mu=0.0, rounds=4), plain)
    assert 1e-6 < np.abs(federation.run(rounds=4) - plain).max() < 0.1


@pytest.mark.parametrize("mu", [-0.1, float("inf"), float("nan")])
def test_a_mu_that_would_push_away_is_refused(mu):
    with pytest.raises(UsageError, match=rf"\[strategy\]: mu={mu} must be (>= 0|a finite number)"):
        FedProx(mu=mu)


def test_a_request_without_mu_is_malformed_and_not_taken_as_0():
    with pytest.raises(MalformedMessage, match="the settings have no 'mu'"):
        FedProx.client_terms({})
    (term,) = FedProx.client_terms({"mu": 2.0})
    assert term(torch.tensor(3.0), torch.tensor(1.0)).item() == 4.0
