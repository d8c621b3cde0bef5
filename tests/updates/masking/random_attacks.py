"""Servers that attack at random: from nothing, and by departing from attacks that are known."""

import random
from collections.abc import Callable, Collection, Iterable, Mapping

from tests.updates.masking.play import Exchange, Request, Rules, Scene, Site


class Departing(Scene):
    """A scene in which messages are left out, come later, or name a site more or fewer."""

    def __init__(
        self,
        pinned: int | Mapping[str, Collection[str]],
        colluders: int | Collection[str],
        rules: Rules | None = None,
        lifted: Collection[str] = (),
        *,
        rng: random.Random,
    ) -> None:
        super().__init__(pinned, colluders, rules, lifted)
        self.rng, self.departs = rng, rng.choice((0.0, 0.02, 0.1))
        self.late: list[Callable[[], object]] = []

    def train(self, exchange: Exchange, request: Request, sites: Iterable[str] | None = None) -> int:
        for site in self._asked(exchange, sites):
            self._send(lambda site=site: Scene.train(self, exchange, request, [site.name]))
        return 0

    def confirm(self, exchange: Exchange, listed: Iterable[str], sites: Iterable[str] | None = None) -> int:
        members = list(listed)
        for site in self._asked(exchange, members if sites is None else sites):
            told = self._departed(members)
            self._send(lambda site=site, told=told: Scene.confirm(self, exchange, told, [site.name]))
        return 0

    def unmask(
        self,
        exchange: Exchange,
        listed: Iterable[str],
        sites: Iterable[str] | None = None,
        *,
        spoilt: Collection[str] = (),
    ) -> int:
        members = list(listed)
        for site in self._asked(exchange, members if sites is None else sites):
            told = self._departed(members)
            self._send(lambda site=site, told=told: Scene.unmask(self, exchange, told, [site.name], spoilt=spoilt))
        return 0

    def _asked(self, exchange: Exchange, sites: Iterable[str] | None) -> list[Site]:
        asked = super()._asked(exchange, sites)
        return asked if self.departs == 0 else self.rng.sample(asked, len(asked))

    def _departed(self, members: list[str]) -> list[str]:
        if self.rng.random() >= self.departs:
            return members
        return sorted({*members} ^ {self.rng.choice(self.all)})

    def _send(self, call: Callable[[], object]) -> None:
        while self.late and self.rng.random() < 0.1:
            self.late.pop(self.rng.randrange(len(self.late)))()
        chance = self.rng.random()
        if chance >= self.departs / 2:
            call()
        if chance < self.departs:
            self.late.append(call)


def random_attack(scene: Scene, rng: random.Random) -> None:
    """Ask few questions in some runs, tell lists, and depart from what is honest as often as a draw says."""
    asked = rng.sample([Request(kind, model) for kind in ("train", "summarise") for model in "ab"], 2)
    odd = [one._replace(weight=2) for one in asked] + [one._replace(blank=True) for one in asked]
    departs = rng.choice((0.0, 0.03, 0.1, 0.3))
    places: list[Exchange] = []
    members: dict[int, list[str]] = {}
    for run in range(1, 1 + rng.choice((1, 1, 2, 3))):
        study = rng.choice(list(scene.pinned))
        members[run] = sorted(scene.pinned[study])
        if rng.random() < 0.3:
            members[run] = rng.sample(members[run], len(members[run]) - 1)
        for name in scene.honest:
            cohort = members[run] if rng.random() >= departs else scene.pinned[study]
            scene.enter(run, cohort, [name], study)
        places += [Exchange(run, repeat, "any", number) for repeat in (0, 1) for number in (1, 2)]
    places = sorted(rng.sample(places, min(len(places), rng.randint(1, 4))))
    main = {where: asked[rng.random() < 0.4] for where in places}
    shape = rng.choice(("one", "by place", "by site", "target"))
    lists: dict[object, list[str]] = {}

    def aim(where: Exchange, name: str) -> list[str]:
        """Return the list that a site is told."""
        target = name in lists.setdefault("inside", rng.sample(scene.honest, len(scene.honest) // 2))
        key = {"one": "", "by place": where, "by site": name, "target": target}[shape]
        if key not in lists:
            others = rng.sample(members[where.run], len(members[where.run]))
            lists[key] = others[rng.choice((0, 0, 1, 1, 2, len(others) // 3)) :]
        return list({*lists[key], name}) if shape != "one" else lists[key]

    steps = [(number, step, rng.random(), where, name) for number, where in enumerate(places)
             for step in range(3) for name in scene.honest]  # fmt: skip
    mixed = rng.random() < 0.3
    # Of shares that are spoilt on the way, a site may next be told a list without the site that they are of.
    spoils, victim = rng.choice((0.0, 0.0, 0.0, 0.5)), rng.choice(scene.honest)
    for _, step, _, where, name in sorted(steps, key=lambda one: (one[1] + mixed * one[2], *one[:3]) if mixed else one):
        one = rng.sample(members[where.run], rng.randint(2, len(members[where.run])))
        listed = aim(where, name) if rng.random() >= departs else one
        if step == 0:
            scene.train(where, main[where] if rng.random() >= departs else rng.choice(odd), [name])
        elif step == 1 and rng.random() >= departs:
            scene.confirm(where, listed, [name])
        elif step == 2 and rng.random() < spoils:
            scene.unmask(where, listed, [name], spoilt=[victim])
            scene.add_up(where, [other for other in listed if other != victim], scene.honest)
        elif step == 2:
            scene.unmask(where, listed, [name])
