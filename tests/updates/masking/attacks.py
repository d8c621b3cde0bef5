"""Attacks of a lying server on sums, each of which wins where one rule is missing."""

from flfed.updates.masking import rules as written
from tests.updates.masking.play import Exchange, Request, Scene

ASKED = Request("train", "model")


def exchange(run: int = 1, number: int = 1, kind: str = "train", repeat: int = 0) -> Exchange:
    return Exchange(run, repeat, kind, number)


def whole(scene: Scene, where: Exchange, request: Request = ASKED) -> None:
    """Ask the whole cohort, and add it up."""
    if where.run not in scene.counted:
        scene.enter(where.run, scene.all)
    scene.train(where, request)
    scene.add_up(where, scene.all)


def without_first(scene: Scene, where: Exchange, request: Request = ASKED) -> None:
    """Ask the whole cohort, and say that the first site is missing."""
    if where.run not in scene.counted:
        scene.enter(where.run, scene.all)
    scene.train(where, request)
    scene.add_up(where, scene.all[1:])


def two_rounds(scene: Scene) -> None:
    whole(scene, exchange(number=1))
    without_first(scene, exchange(number=2), Request("train", "next"))


def two_repeats(scene: Scene) -> None:
    whole(scene, exchange(repeat=0))
    without_first(scene, exchange(repeat=1), Request("train", "next"))


def said_missing(scene: Scene) -> None:
    without_first(scene, exchange())


def lists_apart(scene: Scene) -> dict[str, list[str]]:
    """Return lists by which a site's seeds and its self-mask come from different sites.

    The first site gives its seeds with those who are not in its list; those of its list, its seeds with them.
    """
    least = written.threshold(len(scene.all))
    colluders = sorted(scene.server.colluders)
    inside = scene.honest[1 : least - len(colluders)]
    lists = {name: list(scene.all) for name in scene.honest}
    lists[scene.honest[0]] = [scene.honest[0], *inside, *colluders]
    return lists | dict.fromkeys(inside, scene.all[1:])


def other_lists(scene: Scene) -> None:
    scene.enter(1, scene.all)
    scene.train(exchange(), ASKED)
    for name, listed in lists_apart(scene).items():
        scene.add_up(exchange(), listed, [name])


def second_cohorts(scene: Scene) -> None:
    """Tell each site, once it has answered, that its list is the cohort."""
    scene.enter(1, scene.all)
    scene.train(exchange(), ASKED)
    for name, listed in lists_apart(scene).items():
        scene.enter(1, listed, [name])
        scene.unmask(exchange(), listed, [name])


def least_of_a_small_cohort(scene: Scene) -> None:
    """Leave out one of five sites at first, another one then."""
    cohort = [*scene.honest[:3], *scene.server.colluders]
    scene.enter(1, cohort)
    scene.train(exchange(), ASKED)
    scene.add_up(exchange(), cohort[1:])


def another_request(scene: Scene) -> None:
    """Ask the first site alone by a model, encoder or learning rate that moves anything."""
    scene.enter(1, scene.all)
    scene.train(exchange(), ASKED, scene.honest[:1])
    scene.train(exchange(), ASKED._replace(blank=True), scene.honest[1:])
    for name in scene.honest:
        scene.add_up(exchange(), scene.all, [name])


def other_most_rows(scene: Scene) -> None:
    """Weigh the first site's rows twice, and all sites' alike in the next round."""
    scene.enter(1, scene.all)
    scene.train(exchange(), ASKED._replace(weight=2), scene.honest[:1])
    scene.train(exchange(), ASKED, scene.honest[1:])
    scene.add_up(exchange(), scene.all)
    whole(scene, exchange(number=2))


def fewer_in_the_next_round(scene: Scene) -> None:
    whole(scene, exchange(number=1))
    without_first(scene, exchange(number=2))


def fewer_in_a_second_run(scene: Scene) -> None:
    whole(scene, exchange(run=1))
    without_first(scene, exchange(run=2))


def spoilt_on_the_way(scene: Scene) -> None:
    """Have the whole list opened where the first site's shares are good, and ask for one without it everywhere."""
    least = written.threshold(len(scene.all)) - len(scene.server.colluders)
    scene.enter(1, scene.all)
    scene.train(exchange(), ASKED)
    scene.unmask(exchange(), scene.all, scene.honest[:least])
    scene.unmask(exchange(), scene.all, scene.honest[least:], spoilt=scene.honest[:1])
    scene.add_up(exchange(), scene.all[1:])


def fewer_in_a_summary(scene: Scene) -> None:
    """Ask what does not depend on a model, with two models."""
    whole(scene, exchange(kind="summarise"), Request("summarise", "model"))
    without_first(scene, exchange(kind="summarise", number=2), Request("summarise", "next"))


def fewer_in_another_kind(scene: Scene) -> None:
    """Ask Table 1 of all sites, and a statistic with the same columns without the first."""
    whole(scene, exchange(1, kind="summarise"), Request("summarise"))
    without_first(scene, exchange(2, kind="statistic"), Request("statistic"))


def least_list(scene: Scene) -> None:
    """Add up one honest site and two of the server's."""
    listed = [scene.honest[0], *sorted(scene.server.colluders)[:2]]
    scene.enter(1, scene.all)
    scene.train(exchange(), ASKED)
    scene.add_up(exchange(), listed)


def draw(scene: Scene) -> None:
    """Draw five sites, of which three are the server's, and say that one of the others is missing."""
    drawn = [*scene.honest[:2], *sorted(scene.server.colluders)[:3]]
    scene.enter(1, drawn)
    scene.train(exchange(), ASKED)
    scene.add_up(exchange(), drawn[1:])
