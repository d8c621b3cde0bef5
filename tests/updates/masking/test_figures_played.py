"""The rules of a sum of figures, played: among the sites that share them in sums only, and no others."""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from flfed.updates.masking import rules as written
from tests.updates.masking.play import FIGURES, Exchange, Request, Rules, Scene
from tests.updates.masking.random_attacks import random_figures

RULES = Rules()
ASKED = Request(FIGURES, "model")
HONEST = 2
"""Sites that no sum of figures has fewer of, besides those that work for the server."""


def figures(scene: Scene, run: int, cohort: list[str], shy: list[str], listed: list[str] | None = None) -> None:
    """Have the figures of sites added up in a run."""
    where = Exchange(run, 0, FIGURES, 0)
    if run not in scene.counted:
        scene.enter(run, cohort, shy=shy)
    scene.train(where, ASKED)
    scene.add_up(where, shy if listed is None else listed)


def one_and_a_colluder(scene: Scene) -> None:
    """Add up the figures of one site and one of the server's."""
    figures(scene, 1, scene.all, [scene.honest[0], "x00"])


def one_and_all_colluders(scene: Scene) -> None:
    """Let the server's sites sign that they share figures in sums only, beside one that does."""
    figures(scene, 1, scene.all, [scene.honest[0], *scene.server.colluders])


def two_lists(scene: Scene) -> None:
    """Have a list of two honest sites opened by one, and without that one by the other."""
    first, second = scene.honest[:2]
    shy, where = [first, second, *sorted(scene.server.colluders)], Exchange(1, 0, FIGURES, 0)
    scene.enter(1, scene.all, shy=shy)
    scene.train(where, ASKED)
    scene.add_up(where, shy, [first])
    scene.add_up(where, shy[1:], [second])


def fewer_in_a_second_run(scene: Scene) -> None:
    """Leave one such site out of the cohort of a second run."""
    shy = [*scene.honest[:4], *scene.server.colluders]
    figures(scene, 1, scene.all, shy)
    figures(scene, 2, [name for name in scene.all if name != scene.honest[0]], shy[1:])


def over_the_cohort(scene: Scene) -> None:
    """Add up the figures of one such site with updates' list: the whole cohort, of which the others have none."""
    figures(scene, 1, scene.all, [scene.honest[0], *scene.server.colluders], scene.all)


def enough(least: int) -> Callable[..., bool]:
    return lambda pinned, among: len(among) >= least


def by_run(request: Request, where: Exchange) -> tuple[str, int]:
    return request.kind, where.run


FAULTS = {
    "two such sites": (one_and_a_colluder, replace(RULES, are_enough=enough(2)), [(4, 1), (5, 1)]),
    "three of any number": (one_and_all_colluders, replace(RULES, are_enough=enough(3)), [(7, 2), (10, 3), (20, 6)]),
    "threshold of such sites": (
        two_lists, replace(RULES, least_of_figures=lambda pinned, among: written.threshold(len(among))),
        [(10, 3), (20, 6)],
    ),
    "list by run": (fewer_in_a_second_run, replace(RULES, question=by_run), [(6, 1), (10, 3)]),
    "any list": (
        over_the_cohort, replace(RULES, are_enough=enough(1), list_refusal=lambda *given, **facts: None),
        [(4, 1), (10, 3)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_an_attack_on_figures_wins_by_one_fault_and_loses_without_it(fault: str):
    attack, faulty, sizes = FAULTS[fault]
    for pinned, colluders in sizes:
        for rules, fewest in ((faulty, 1), (RULES, None)):
            scene = Scene(pinned, colluders, rules)
            attack(scene)
            assert scene.fewest(HONEST) == fewest


@pytest.mark.parametrize(("pinned", "colluders"), [(3, 1), (4, 1), (5, 1), (6, 2), (7, 2), (10, 3), (20, 6)])
def test_the_figures_of_enough_such_sites_are_summed_and_hide_two_honest_ones(pinned: int, colluders: int):
    least = written.least_of_figures(pinned)
    scene = Scene(pinned, colluders)
    shy = [*sorted(scene.server.colluders), *scene.honest][:least]
    figures(scene, 1, scene.all, shy)
    assert scene.fewest() == least - colluders >= HONEST
    # Of one fewer nothing leaves.
    scene = Scene(pinned, colluders)
    figures(scene, 1, scene.all, shy[:-1])
    assert scene.fewest() is None


def attacked(rules: Rules, pinned: int, colluders: int, plays: int) -> tuple[int, int]:
    """Return in how many random plays the server gets a sum of figures, and in how many one of too few sites."""
    sums = lost = 0
    for seed in range(plays):
        scene = Scene(pinned, colluders, rules)
        random_figures(scene, random.Random(seed))
        sums += scene.fewest() is not None
        lost += scene.fewest(HONEST) is not None
    return sums, lost


@pytest.mark.parametrize(("pinned", "colluders"), [(3, 1), (4, 1), (5, 1), (6, 2), (7, 2), (10, 3)])
def test_no_random_attack_gets_figures_of_fewer_than_two_honest_sites(pinned: int, colluders: int):
    sums, lost = attacked(RULES, pinned, colluders, 300)
    assert sums > 20 and lost == 0


@pytest.mark.parametrize("fault", ["two such sites", "three of any number", "list by run"])
def test_random_attacks_on_figures_find_a_fault(fault: str):
    pinned, colluders = (4, 1) if fault == "two such sites" else (7, 2)
    assert attacked(FAULTS[fault][1], pinned, colluders, 200)[1] > 0


@pytest.mark.proof
@pytest.mark.parametrize(("pinned", "colluders"), [(4, 1), (7, 2), (9, 3), (10, 3), (20, 6)])
def test_no_long_search_gets_such_figures(pinned: int, colluders: int):
    assert attacked(RULES, pinned, colluders, 5_000)[1] == 0
