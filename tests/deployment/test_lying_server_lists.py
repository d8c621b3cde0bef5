"""Lists, thresholds and masks at real gates: each attack wins where one rule is taken away, and loses here."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from flfed.deployment.gate.run_limits import SumLines
from flfed.federation.client import run_keys
from flfed.federation.client.run_keys import QuestionHistory, RunKeys
from flfed.federation.client.secure_sums import SiteSums
from flfed.updates.masking import keys, protocol, rules
from flfed.updates.masking.question import SumContext
from tests.deployment.gate_scene import MOST_ROWS, GateScene
from tests.updates.masking import attacks
from tests.updates.masking.attacks import ASKED, exchange
from tests.updates.masking.play import Exchange, Request
from tests.updates.masking.test_rules_played import smaller_ones_too

SIZES = [(4, 1), (7, 2), (10, 3)]
Make = Callable[..., GateScene]
Attack = Callable[[Any], object]
Plant = Callable[[pytest.MonkeyPatch], object]
TWO_LISTS = "this question was answered with another list of sites before"
UNCONFIRMED = "confirmed the list of the sum"
UNREADABLE = "is not one for this site and this sum"
BINDING, SECRETS = SumContext.binding, keys.pair_secrets


def nothing(*given: object, **named: object) -> None:
    """Refuse nothing."""


def no_confirmations(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(protocol, "opening_refusal", nothing)


def smaller_lists_too(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rules, "list_refusal", smaller_ones_too)


def no_lists(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SumLines, "get_history", lambda lines, question, dataset: QuestionHistory())


def least_by_cohort(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RunKeys, "least", lambda own, cohort: rules.threshold(cohort))


def any_cohort(patch: pytest.MonkeyPatch) -> None:
    least_by_cohort(patch)
    patch.setattr(rules, "cohort_refusal", nothing)


def least_of_three(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RunKeys, "least", lambda own, cohort: 3)


def unbound_request(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SumContext, "binding", lambda own, kind, request: BINDING(replace(own, most_rows=1), kind, None))


def unbound_rounds(patch: pytest.MonkeyPatch) -> None:
    """Have one link for all rounds, under a binding that knows of none."""
    unbound_request(patch)
    patch.setattr(RunKeys, "links", lambda own, step, chain=None: own.chain().at(0))
    patch.setattr(RunKeys, "move", lambda own, step, kept: own.links(step))
    patch.setattr(GateScene, "step", staticmethod(lambda kind, round: 0))


def unbound_repeats(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SumContext, "binding", lambda own, kind, request: BINDING(replace(own, repeat=0), kind, None))
    patch.setattr(SiteSums, "check_unused", nothing)


def unbound_keys(patch: pytest.MonkeyPatch) -> None:
    """Have secrets that follow from names and keys alone, whatever else was told with them."""
    unbound_request(patch)
    for module in (keys, run_keys):
        patch.setattr(module, "pair_secrets", lambda site, key, publics, context: SECRETS(site, key, publics, b""))


def no_self_masks(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(protocol, "draw_secret", lambda draw: bytes(32))
    patch.setattr(GateScene, "guess", bytes(32))


def codes_of_anybody(patch: pytest.MonkeyPatch) -> None:
    """Have confirmations that need no key, and are of names alone."""

    def made(link: bytes, binding: bytes, listed: frozenset[str], *, sender: str, receiver: str) -> bytes:
        return hashlib.sha256(repr((sorted(listed), sender, receiver)).encode()).digest()

    patch.setattr(keys, "confirmation", made)


def unbound_shares(patch: pytest.MonkeyPatch) -> None:
    """Have shares sealed under one key of a pair, whatever they are of."""

    def sealing(link: bytes, binding: bytes, sender: str, receiver: str) -> tuple[ChaCha20Poly1305, bytes, bytes]:
        pair = hashlib.sha256(repr(sorted({sender, receiver})).encode()).digest()
        return ChaCha20Poly1305(pair), bytes(12), b""

    patch.setattr(keys, "_sealing", sealing)


def said_missing(scene: GateScene) -> None:
    attacks.said_missing(scene)


def forged(scene: GateScene) -> None:
    """Show each site another list, and codes under the server's own keys in the names of the others."""
    scene.enter(1, scene.all)
    scene.train(exchange(), ASKED)
    forger = sorted(scene.impostors)[0]
    for name, listed in attacks.lists_apart(scene).items():

        def code(site: str, sender: str, listed: frozenset[str] = frozenset(listed)) -> bytes:
            link, own = scene.link(exchange(), forger, site), scene.vectors[1, 0, 1, site]
            return keys.confirmation(link or b"", own.binding, listed, sender=sender, receiver=site)

        scene.confirm(exchange(), listed, [name])
        scene.unmask(exchange(), listed, [name], codes=code)


def replayed_codes(scene: GateScene, where: Exchange) -> None:
    """Have each of the lists confirmed for another question before, and show these codes."""
    lists = attacks.lists_apart(scene)
    for number, listed in enumerate(list(lists.values())[:2], start=1):
        earlier = exchange(number=number)
        scene.train(earlier, Request("train", f"{number}"))
        assert scene.confirm(earlier, listed) == len(set(listed) & set(scene.honest))
    if where.run > 1:
        scene.enter(where.run, scene.all)
    scene.train(where, ASKED)
    for name, listed in lists.items():
        scene.confirm(where, listed, [name])
        kept = {(key[3], key[5]): code for key, code in scene.codes.items() if key[4] == frozenset(listed)}
        scene.unmask(where, listed, [name], codes=lambda site, sender, kept=kept: kept.get((sender, site)))


def replayed_shares(scene: GateScene, where: Exchange) -> None:
    """Say that a site is missing, and have its share of then opened with a later sum."""
    attacks.without_first(scene, exchange())
    first, asked = scene.honest[0], scene.honest[1:]
    if where.run > 1:
        scene.enter(where.run, scene.all)
    scene.train(where, Request("train", "next"))
    of_then = scene.vectors[1, 0, 1, first].sealed
    scene.unmask(where, scene.all, asked, sealed=lambda site, sender: of_then[site] if sender == first else None)


def two_repeats(scene: GateScene) -> None:
    """Have a repeat mask other updates in the place of the first one's."""
    attacks.whole(scene, exchange())
    again = exchange(repeat=1)
    scene.train(again, Request("train", "next"))
    scene.add_up(again, scene.all)


def asked_otherwise(scene: GateScene, asked: Request = ASKED, **changes: Any) -> None:
    """Ask the first site otherwise than the others, and all alike in the next round."""
    scene.enter(1, scene.all)
    scene.train(exchange(), asked, scene.honest[:1], **changes)
    scene.train(exchange(), ASKED, scene.honest[1:])
    for name in scene.honest:
        scene.add_up(exchange(), scene.all, [name])
    attacks.whole(scene, exchange(number=2))


def other_encoder(scene: GateScene) -> None:
    encoder = scene.encoder
    asked_otherwise(scene, encoder=replace(encoder, scale=encoder.scale * 2))


def other_most_rows(scene: GateScene) -> None:
    """Weigh the first site's rows twice, and all sites' alike in another run."""
    scene.enter(1, scene.all, scene.honest[:1], most_rows=MOST_ROWS // 2)
    scene.enter(1, scene.all, scene.honest[1:])
    scene.train(exchange(), ASKED)
    for name in scene.honest:
        scene.add_up(exchange(), scene.all, [name])
    attacks.whole(scene, exchange(run=2))


def fewer_in_a_summary_of_another_run(scene: GateScene) -> None:
    attacks.whole(scene, exchange(run=1, kind="summarise"), Request("summarise"))
    attacks.without_first(scene, exchange(run=2, kind="summarise"), Request("summarise"))


def lifted_by_the_server(scene: GateScene) -> None:
    """Have the server's own site sign that lists may differ by any of the others."""
    scene.lifting = tuple(scene.honest)
    attacks.fewer_in_the_next_round(scene)


def lifted_by_anybody(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        rules, "lifted_sites", lambda allowed: frozenset(name for theirs in allowed.values() for name in theirs)
    )


@dataclass(frozen=True)
class Play:
    """An attack, the fault by which it wins, and what gates say without the fault.

    Attributes
    ----------
    attack : callable (scene)
    plant : callable (monkeypatch)
    said : str
        Empty where no site refuses anything, and what it answers tells nothing.
    sizes : tuple of (pinned, colluders)
    asked : int
        Honest sites that are asked, all where 0.
    fewest : int
        Honest sites of the sum that the fault gives away.
    """

    attack: Attack
    plant: Plant
    said: str
    sizes: tuple[tuple[int, int], ...] = ((4, 1),)
    asked: int = 0
    fewest: int = 1


THREE_SIZES = ((4, 1), (7, 2), (10, 3))
PLAYS = {
    "no confirmations": Play(attacks.other_lists, no_confirmations, UNCONFIRMED, THREE_SIZES),
    "codes under a key of the server": Play(forged, codes_of_anybody, UNCONFIRMED),
    "codes of another round": Play(partial(replayed_codes, where=exchange(number=3)), codes_of_anybody, UNCONFIRMED),
    "codes of another run": Play(partial(replayed_codes, where=exchange(run=2)), codes_of_anybody, UNCONFIRMED),
    "threshold of the cohort": Play(
        attacks.least_of_a_small_cohort, least_by_cohort, "a sum of 3 sites is asked for, 4 are needed", ((5, 1),),
        fewest=2,
    ),
    "list of one site and two of the server's": Play(
        attacks.least_list, least_of_three, "a sum of 3 sites is asked for, 14 are needed", ((20, 2),), asked=1
    ),
    "draw of five": Play(
        attacks.draw, any_cohort, "the run has 5 of the sites that are pinned here, sums need 14", ((20, 6),), asked=2
    ),
    "another model": Play(partial(asked_otherwise, asked=Request("train", "other")), unbound_request, UNREADABLE),
    "another encoder": Play(other_encoder, unbound_request, UNREADABLE),
    "another lr-scale": Play(partial(asked_otherwise, lr_scale=0.5), unbound_request, UNREADABLE),
    "no lr-scale but for one": Play(attacks.another_request, unbound_request, UNREADABLE),
    "other most rows": Play(other_most_rows, unbound_keys, UNREADABLE),
    "fewer in the next round": Play(attacks.fewer_in_the_next_round, no_lists, TWO_LISTS),
    "shares spoilt on the way": Play(attacks.spoilt_on_the_way, smaller_lists_too, TWO_LISTS),
    "fewer in a second run": Play(attacks.fewer_in_a_second_run, no_lists, TWO_LISTS),
    "fewer by consent of the server's site": Play(lifted_by_the_server, lifted_by_anybody, TWO_LISTS),
    "fewer in sums over rows": Play(attacks.fewer_in_a_summary, no_lists, TWO_LISTS),
    "fewer in sums over rows of a second run": Play(fewer_in_a_summary_of_another_run, no_lists, TWO_LISTS),
    "shares of another round": Play(partial(replayed_shares, where=exchange(number=2)), unbound_shares, UNREADABLE),
    "shares of another run": Play(partial(replayed_shares, where=exchange(run=2)), unbound_shares, UNREADABLE),
    "shares of another repeat": Play(
        partial(replayed_shares, where=exchange(repeat=1, number=2)), unbound_shares, UNREADABLE
    ),
    "masks not bound to round and request": Play(attacks.two_rounds, unbound_rounds, ""),
    "masks not bound to repeat": Play(two_repeats, unbound_repeats, "a masked answer to round 1 left before"),
    "no self-mask": Play(said_missing, no_self_masks, ""),
}  # fmt: skip


@pytest.mark.studies
@pytest.mark.parametrize("name", PLAYS)
def test_an_attack_on_gates_wins_by_one_fault_and_loses_without_it(scene: Make, name: str) -> None:
    play = PLAYS[name]
    for pinned, colluders in play.sizes:
        found = scene(pinned, colluders, asked=play.asked)
        play.attack(found)
        assert not found.lost
        assert play.said in " / ".join(found.said) and bool(play.said) == bool(found.said)
        with pytest.MonkeyPatch.context() as patch:
            play.plant(patch)
            found = scene(pinned, colluders, asked=play.asked)
            play.attack(found)
            assert found.lost and found.fewest() == play.fewest
            # The server has the site's own numbers, to the ring's rounding.
            off = found.bare()
            assert bool(off) == (play.fewest == 1) and max(off.values(), default=0.0) < 1e-4
