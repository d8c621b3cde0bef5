"""Information in the difference of two sums on the site that is only in one of them; a table of docs/secure-sums.md.

No site opens two lists for one question. But a model that differs by one bit makes another question, and so does each
round: such sums are given. For each site in turn, the cosine between the difference of two of them and the site's own
update; beside it that of a difference without the site. Sites have real tables, and add up in the ring of secure sums,
without masks: the sums are the same. The noise of `site-dp` is the trusted server's, on each sum.

Needs the tables: `flfed data get heart-disease`, and `taiwan-credit`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, stdev
from typing import Any

import numpy as np

from benchmarks.ours import Timed, conducting
from flfed.errors import UsageError
from flfed.federation.engines.engine import find_sites
from flfed.federation.server.run_setting import ask, nodes_of
from flfed.refusals import Refusal
from flfed.seeds import generator
from flfed.study.study import Study
from flfed.summaries.summary import Encoder, fit_encoder, merge
from flfed.updates.aggregation.rounds import Participant
from flfed.updates.arrays import flattened, shapes_of, unflattened
from flfed.updates.messages.train import TRAIN, TrainReply, TrainRequest
from flfed.updates.privacy.site_dp import SiteDp
from flfed.updates.ring import LARGEST_ENTRY, Ring

SEEDS = (42, 43, 44, 45, 46)
ROUNDS = (2, 10, 40)
SITE_DP = SiteDp(noise=1.0)
"""Its default clip is 1: noise of deviation 1 on each entry of a sum of updates that are no longer than 1."""
STUDIES: dict[str, dict[str, Any]] = {
    "heart-disease": {},
    "taiwan-credit": {"dataset.partition": {"by": "iid", "sites": 10}, "model.name": "logistic", "model.hidden": None},
}
"""Shipped studies, and their changed keys."""
Updates = Mapping[str, np.ndarray]


@dataclass(frozen=True, kw_only=True, eq=False)
class Consortium:
    """Sites that answer, and how a server adds their answers up.

    Attributes
    ----------
    conductor : Timed
    participants : dict of site to Participant
    encoder : Encoder
    mechanism : SiteDp or None
    """

    conductor: Timed
    participants: Mapping[str, Participant]
    encoder: Encoder
    mechanism: SiteDp | None

    @property
    def study(self) -> Study:
        """The study that the sites answer."""
        return self.conductor.study

    @cached_property
    def first(self) -> np.ndarray:
        """Entries of the model before the first round: float32 [entries]."""
        return flattened(self.conductor.first_arrays()).astype(np.float32)

    def updates(self, model: np.ndarray, round: int) -> dict[str, np.ndarray]:
        """Return each site's update as it is summed: weighted by rows, or clipped where the mechanism clips."""
        arrays = unflattened(model, shapes_of(self.conductor.first_arrays()))
        request = TrainRequest(arrays=arrays, encoder=self.encoder, round=round, rounds=self.study.rounds, score=False)
        nodes = nodes_of(self.participants)
        answers = ask(self.conductor.grid, TRAIN, request, nodes, TrainReply.from_record, timeout=600.0)
        if answers.faults:
            raise RuntimeError(f"differences of sums: {answers.faults}")
        found = {site: flattened(reply.delta) for site, reply in answers.replies.items()}
        if self.mechanism is not None:
            clip = self.mechanism.clip
            return {site: update * min(1.0, clip / float(np.linalg.norm(update))) for site, update in found.items()}
        return {site: self.weights[site] * update for site, update in found.items()}

    @cached_property
    def weights(self) -> dict[str, float]:
        """Weight of each site: its rows over the most rows that one declared; one each under the mechanism."""
        if self.mechanism is not None:
            return dict.fromkeys(self.participants, 1.0)
        most = max(one.rows_high for one in self.participants.values())
        return {name: len(session.training(self.encoder)) / most for (name, _, _), session in self._sessions}

    @property
    def _sessions(self) -> list[tuple[Any, Any]]:
        return sorted(self.conductor.side.sessions.items())

    def total(self, updates: Updates, listed: Collection[str], answer: str) -> np.ndarray:
        """Return the sum of a list of sites for the server; chance differs from reply to reply."""
        seed, sites = self.study.seed, len(self.participants)
        if self.mechanism is not None:
            mean = self.mechanism.merged(
                {site: {"": updates[site]} for site in listed},
                plan=self.study.plan,
                rounds=self.study.rounds,
                asked=sites,
                normals=generator(seed, site="", purpose=f"noise {answer}").standard_normal,
            )
            return (mean or {})[""] * sites
        ring = Ring.of_updates(sites, LARGEST_ENTRY)
        numbers = [
            ring.encode(updates[site], generator(seed, site=site, purpose=f"sum {answer}")) for site in sorted(listed)
        ]
        if refused := [one for one in numbers if isinstance(one, Refusal)]:
            raise RuntimeError(f"differences of sums: {refused[0]}")
        return ring.decode(ring.add(one for one in numbers if not isinstance(one, Refusal)))

    def moved(self, model: np.ndarray, total: np.ndarray, listed: Collection[str]) -> np.ndarray:
        """Return the next model, by the mean of a sum."""
        share = len(self.participants) if self.mechanism else sum(self.weights[site] for site in listed)
        return (model + total / share).astype(np.float32)


@contextmanager
def consortium(chosen: Study, mechanism: SiteDp | None) -> Iterator[Consortium]:
    """Give the sites of a study, and the encoder of all of them."""
    with conducting(chosen, find_sites(chosen), stacked=True) as conductor:
        participants = conductor.enrol()
        summaries = conductor.summarise(participants)
        encoder = fit_encoder(conductor.layout, merge(list(summaries.values())), chosen.encode.scaler)
        yield Consortium(conductor=conductor, participants=participants, encoder=encoder, mechanism=mechanism)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Return the cosine of the angle between two vectors."""
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def one_bit(found: Consortium, model: np.ndarray, round: int) -> dict[str, float]:
    """Return the cosine at each site, of a model's sum with it and a nearly equal model's without it.

    The models differ in the last bit of one entry. Both are asked in the same round of two runs of one study, where
    each site goes through its rows in one order.
    """
    other = model.copy()
    other.view(np.uint32)[0] ^= 1
    own, own_other, sites = found.updates(model, round), found.updates(other, round), set(found.participants)
    whole = found.total(own, sites, f"one bit, {round}")
    return {
        site: cosine(whole - found.total(own_other, sites - {site}, f"one bit, {round}, without {site}"), own[site])
        for site in sorted(sites)
    }


def next_round(found: Consortium, model: np.ndarray, round: int) -> dict[str, tuple[float, float]]:
    """Return cosines at each site, of a round's sum with it less the sum without it of the round before.

    The second cosine is of the same difference where the site is in neither sum: sites that are alike move alike. The
    earlier sum, which also moved the model, is scaled by the learning rates of the two rounds.

    Parameters
    ----------
    found : Consortium
    model : float32 array [entries]
        Of the round before.
    round : int
    """
    plan, rounds, sites = found.study.plan, found.study.rounds, set(found.participants)
    scale = plan.factor(round, rounds) / plan.factor(round - 1, rounds)
    earlier, cosines = found.updates(model, round - 1), {}
    for site in sorted(sites):
        others = sites - {site}
        without = found.total(earlier, others, f"before {round}, without {site}")
        own = found.updates(found.moved(model, without, others), round)
        now = [found.total(own, listed, f"{round} after {site}") for listed in (sites, others)]
        apart = [cosine(total - scale * without, own[site]) for total in now]
        cosines[site] = (apart[0], apart[1])
    return cosines


WAYS = ("one-bit", "next-round", "in-neither")


def measured(
    chosen: Study, mechanism: SiteDp | None, at: Collection[int] = ROUNDS
) -> dict[str, dict[int, list[float]]]:
    """Return the cosines of all sites, by way and round."""
    found: dict[str, dict[int, list[float]]] = {way: {} for way in WAYS}
    with consortium(chosen, mechanism) as sites:
        model, sizes = sites.first, set(sites.participants)
        for round in range(1, max(ROUNDS) + 1):
            if round in ROUNDS:
                found["one-bit"][round] = list(one_bit(sites, model, round).values())
            if round + 1 in ROUNDS:
                apart = next_round(sites, model, round + 1).values()
                for way, cosines in zip(WAYS[1:], zip(*apart, strict=True), strict=True):
                    found[way][round + 1] = list(cosines)
            model = sites.moved(model, sites.total(sites.updates(model, round), sizes, f"{round}"), sizes)
    return found


def figures(chosen: Study, mechanism: SiteDp | None, seeds: Collection[int] = SEEDS) -> dict[str, Any]:
    """Return mean over seeds of the sites' mean cosine, its spread over seeds, and the smallest and largest."""
    by_seed = [measured(chosen.replace({"seed": seed}), mechanism) for seed in seeds]
    found: dict[str, Any] = {}
    for way in WAYS:
        found[way] = {}
        for round in ROUNDS:
            each = [one[way][round] for one in by_seed]
            means, every = [fmean(cosines) for cosines in each], [value for cosines in each for value in cosines]
            found[way][str(round)] = {
                "mean": round_to(fmean(means)),
                "sd": round_to(stdev(means)),
                "lowest": round_to(min(every)),
                "highest": round_to(max(every)),
                "by-seed": [round_to(value) for value in means],
            }
    return found


def round_to(value: float) -> float:
    """Return a cosine as the results have it."""
    return round(value, 6)


def study_of(name: str) -> Study:
    """Return a shipped study with its changed keys."""
    return Study.load(name).replace(STUDIES[name])


def measure() -> dict[str, Any]:
    """Return the figures of every study, without and with the mechanism."""
    found: dict[str, Any] = {"seeds": list(SEEDS), "noise": SITE_DP.noise, "clip": SITE_DP.clip}
    for name in STUDIES:
        chosen = study_of(name)
        try:
            sites = len(find_sites(chosen))
        except UsageError as error:
            raise RuntimeError(str(error)) from None
        found[name] = {"sites": sites, "none": figures(chosen, None), "site-dp": figures(chosen, SITE_DP)}
    return found
