"""Site-level differential privacy: clipped updates, noise on their equal mean, and a server that is trusted."""

import math
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import ConfigRecord
from scipy.stats import chi2
from scipy.stats import norm as norm_of

from flfed.errors import UsageError
from flfed.federation.recording.privacy_recorder import system_normals
from flfed.seeds import generator
from flfed.study.plan import Plan
from flfed.study.study import Study
from flfed.updates.accounting import Release, epsilon
from flfed.updates.aggregation.rounds import Participant, RunContext
from flfed.updates.mechanism import Mechanism
from flfed.updates.privacy.site_dp import SiteDp, site_epsilon
from flfed.updates.strategies.fedavg import FedAvg, to_arrays, to_record
from flfed.updates.strategies.fedprox import FedProx

START = {"weight": np.arange(6.0).reshape(3, 2), "bias": np.array([0.5, -1.0])}
ROUNDS = 10


def norm(a, b=None) -> float:
    return math.sqrt(sum(float(np.square(a[k] - (0 if b is None else b[k])).sum()) for k in a))


def deltas_of(scales, seed: int = 3):
    rng = np.random.default_rng(seed)
    made = [{name: rng.normal(size=value.shape) for name, value in START.items()} for _ in scales]
    pairs = enumerate(zip(scales, made, strict=True))
    return {f"site-{n:02d}": {k: scale * v / norm(d) for k, v in d.items()} for n, (scale, d) in pairs}


def merged(made: SiteDp, deltas, normals=np.zeros, asked: int | None = None):
    return made.merged(deltas, plan=Plan(), rounds=ROUNDS, asked=asked or len(deltas), normals=normals)


def test_the_mean_is_of_updates_clipped_over_all_their_arrays_and_divided_by_the_sites_asked():
    deltas = deltas_of([0.5, 2.0, 40.0])
    found = merged(SiteDp(clip=2.0), deltas, asked=4)
    a, b, c = deltas.values()
    for name in START:
        # norms 0.5 and 2 stay, 40 is scaled to 2; the fourth site that was asked counts as nothing
        np.testing.assert_allclose(found[name], (a[name] + b[name] + c[name] * 2.0 / 40.0) / 4, atol=1e-14)
    still = merged(SiteDp(), {site: {k: 0 * v for k, v in d.items()} for site, d in deltas.items()})
    assert norm(still) == 0.0


def test_removing_a_site_moves_the_mean_by_its_clip_over_the_sites_and_replacing_it_by_twice_that():
    made, deltas = SiteDp(clip=1.5), deltas_of([0.2, 5.0, 1.0, 300.0, 1.5])
    whole, bound = merged(made, deltas), 1.5 / 5
    moved = [norm(whole, merged(made, {k: v for k, v in deltas.items() if k != site}, asked=5)) for site in deltas]
    np.testing.assert_allclose(moved, np.array([0.2, 1.5, 1.0, 1.5, 1.5]) / 5, atol=1e-12)
    against = deltas | {"site-01": {k: -1e6 * v for k, v in deltas["site-01"].items()}}
    assert norm(whole, merged(made, against)) == pytest.approx(2 * bound, abs=1e-12)
    # Dividing by those who answered would move it by more than the bound.
    without = {k: v for k, v in deltas.items() if k != "site-00"}
    assert norm(whole, merged(made, without, asked=4)) > 0.2 / 5 + 0.01


@pytest.mark.parametrize("clip", [0.1, 20.0])
def test_the_noise_has_the_deviation_of_the_promise_and_no_other(clip):
    made = SiteDp(noise=2.5, clip=clip)
    like = {"w": np.zeros((50, 40)), "b": np.zeros(1)}
    deltas = {f"s{n}": like for n in range(8)}
    found = merged(made, deltas, np.random.default_rng(7).standard_normal)
    drawn = np.concatenate([found["w"].reshape(-1), found["b"]])
    assert made.promise(Plan(), ROUNDS).noise == 2.5

    def accepted(deviation: float) -> bool:
        low, high = chi2.ppf([1e-4, 1 - 1e-4], len(drawn))
        return low < float(np.square(drawn).sum()) / deviation**2 < high

    assert accepted(2.5 * clip / 8)
    assert not accepted(2.5 * clip / 8 * 2 / 3) and not accepted(2.5 * clip / 8 * 3 / 2)
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 4 / math.sqrt(len(drawn))


def test_epsilon_of_the_sums_is_the_gaussians_closed_form_and_that_of_our_account():
    for noise, rounds, delta in ((1.653, 15, 0.02), (4.0, 40, 1e-3), (0.5, 1, 1e-5)):
        found = SiteDp(noise=noise, delta=delta).promise(Plan(), rounds)
        # Balle and Wang 2018, theorem 8: the sums together are one Gaussian of sensitivity mu.
        mu = math.sqrt(rounds) / noise
        e = found.epsilon
        spent = norm_of.sf(e / mu - mu / 2) - math.exp(e) * norm_of.sf(e / mu + mu / 2)
        assert spent == pytest.approx(delta, rel=1e-4) and spent <= delta
        assert (found.steps, found.sampling, found.unit) == (rounds, 1.0, "site")
        assert found.epsilon == epsilon([Release(noise, 1.0, rounds)], delta)


def test_noise_made_for_an_epsilon_keeps_it_and_no_less_would():
    for target in (1.0, 3.0, 8.0):
        promise = SiteDp(epsilon=target).promise(Plan(), ROUNDS)
        assert promise.epsilon <= target < site_epsilon(promise.noise - 0.002, ROUNDS, 0.01)
    # Asking fewer sites a round takes nothing off: who is asked follows from a seed that everybody has.
    assert SiteDp(epsilon=3.0).spent(Plan(), ROUNDS, 4) == site_epsilon(SiteDp(epsilon=3.0)._noise(ROUNDS), 4, 0.01)


def test_a_delta_that_would_give_a_site_away_is_refused_and_few_sites_are_warned_of(small_study):
    study = Study.parse(small_study)
    made = SiteDp(delta=0.02)
    made.check_sites(49)
    with pytest.raises(UsageError, match=r"delta=0.02 is not below one over 50 sites, .*: set 0.002"):
        made.check_sites(50)
    few, many = made.warnings(study, 4), made.warnings(study, 10)
    assert len(few) == len(many) + 1 == 2
    assert "With 4 sites this is hardly a guarantee" in few[1] and "0.025" in few[1]
    assert "server sees every site's update without noise" in many[0]
    assert "hardly promises anything" in SiteDp(epsilon=20).warnings(study, 10)[-1]


# In a run.


def a_round(bench, strategy, replies, *, mechanism=None, seed: int = 11, number: int = 1, chance=None):
    """One round of a strategy under a mechanism; returns the new arrays and what the guard said."""
    made = bench(strategy, len(replies))
    mechanism = SiteDp(noise=1.0) if mechanism is None else mechanism
    strategy.assign(
        RunContext(
            participants={name: Participant(node_id=made.nodes[name], rows_high=999) for name in made.names},
            encoder=strategy.run.encoder, plan=Plan(), rounds=ROUNDS, seed=seed, chance=chance, mechanism=mechanism,
        )  # fmt: skip
    )  # fmt: skip
    messages = list(strategy.configure_train(number, to_record(START), ConfigRecord({}), None))
    updated, _ = strategy.aggregate_train(number, made.answers(messages, dict(zip(made.names, replies, strict=True))))
    return to_arrays(updated), strategy.round.result


def replies_of(reply, scales, rows=(10, 500, 40, 70)):
    made = zip(deltas_of(scales).values(), rows, strict=False)
    return [replace(reply(n, like=START, rows=count), delta=delta) for n, (delta, count) in enumerate(made)]


@pytest.mark.parametrize("strategy", [FedAvg, FedProx])
def test_a_strategy_takes_the_noised_mean_as_the_one_update_whatever_rows_sites_have(bench, reply, strategy):
    replies = replies_of(reply, [1.0, 3.0, 0.2, 1.0])
    found, _ = a_round(bench, strategy(server_lr=0.5), replies, mechanism=SiteDp(noise=1.0))
    draws = generator(11, site="", purpose="server-noise ", number=1).standard_normal  # the run's own stream
    expected = merged(SiteDp(noise=1.0), {f"s{n}": r.delta for n, r in enumerate(replies)}, draws)
    for name, value in START.items():
        np.testing.assert_allclose(found[name], value + 0.5 * expected[name], atol=1e-12)
    plain, _ = a_round(bench, strategy(), replies, mechanism=Mechanism())
    assert norm(plain, found) > 0.1  # by rows, without clip and noise


def test_noise_follows_from_seed_and_round_in_simulation_and_from_nothing_in_a_deployment(bench, reply):
    replies = replies_of(reply, [1.0, 1.0, 1.0, 1.0])
    first, again = (a_round(bench, FedAvg(), replies)[0] for _ in range(2))
    assert norm(first, again) == 0.0
    others = [a_round(bench, FedAvg(), replies, **key)[0] for key in ({"seed": 12}, {"number": 2})]
    systems = [a_round(bench, FedAvg(), replies, chance=system_normals)[0] for _ in range(2)]
    # Eight numbers of deviation 1/4 each, twice: a distance of 1 on average, and next to never under 0.05.
    found = [first, *others, *systems]
    assert min(norm(a, b) for n, a in enumerate(found) for b in found[:n]) > 0.05


def test_no_site_is_set_aside_for_the_others_norms_and_broken_ones_still_are(bench, reply):
    scales = [1.0, 1.0, 1.0, 1.0, 1.0, 1e6, 1.0, 1.0, 1.0]
    replies = replies_of(reply, scales, rows=[20] * 9)
    replies[6] = replace(replies[6], delta={k: v * math.nan for k, v in replies[6].delta.items()})
    found, verdicts = a_round(bench, FedAvg(), replies, mechanism=SiteDp(noise=0.3, clip=0.01))
    assert list(verdicts.refused) == ["site-07"] and list(verdicts.flagged) == ["site-06"]
    assert norm(found, START) < 0.1 and np.isfinite(norm(found))
    _, plain = a_round(bench, FedAvg(), replies, mechanism=Mechanism())
    assert sorted(plain.refused) == ["site-06", "site-07"]


def test_the_models_precision_stays_and_the_sites_updates_are_not_written_into(bench, reply):
    deltas = {site: {k: v.astype(np.float32) for k, v in d.items()} for site, d in deltas_of([2.0, 0.1]).items()}
    before = {site: {k: v.copy() for k, v in d.items()} for site, d in deltas.items()}
    found = merged(SiteDp(noise=1.0), deltas, np.random.default_rng(0).standard_normal)
    assert all(value.dtype == np.float64 for value in found.values())
    assert max(norm(deltas[site], before[site]) for site in deltas) == 0.0


def test_the_deviation_of_the_noise_does_not_tell_who_answered():
    made = SiteDp(noise=2.5, clip=1.0)
    found = []
    for answered in (8, 2):
        deltas = {f"s{n}": {"w": np.zeros(20)} for n in range(answered)}
        normals = np.random.default_rng(7).standard_normal
        found.append(merged(made, deltas, normals, asked=8)["w"])
    np.testing.assert_array_equal(*found)
