"""The rules of secure sums, played: what a lying server gets with them, and without each of them."""

import random
from collections.abc import Callable
from dataclasses import replace
from math import comb

import pytest

from flfed.updates.masking import rules as written
from tests.updates.masking.attacks import (
    ASKED,
    another_request,
    draw,
    exchange,
    fewer_in_a_second_run,
    fewer_in_a_summary,
    fewer_in_another_kind,
    fewer_in_the_next_round,
    least_list,
    least_of_a_small_cohort,
    other_lists,
    other_most_rows,
    said_missing,
    second_cohorts,
    spoilt_on_the_way,
    two_repeats,
    two_rounds,
    whole,
    without_first,
)
from tests.updates.masking.play import Exchange, Rules, Scene, question
from tests.updates.masking.random_attacks import Departing, random_attack

RULES = Rules()
SIZES = [(4, 1), (7, 2), (10, 3)]
LIST_REFUSAL = written.list_refusal


def ledger_without(part: Callable[[Exchange], object]) -> Rules:
    """Return rules by which a question is another one where a part of the exchange is."""
    return replace(RULES, question=lambda request, where: (question(request, where), part(where)))


def unbound_round(context):
    return context.exchange.run, context.exchange.repeat, context.cohort


def unbound_repeat(context):
    return context.exchange.run, context.exchange.round, context.cohort


def no_refusal(*args: object, **facts: object) -> None:
    return None


def least_by_cohort(pinned, cohort):
    return written.threshold(len(cohort))


def smaller_ones_too(site, listed, *, opened, **facts):
    """Refuse no list that lies within one that was opened: as if what a server says of others' shares had to be so."""
    return LIST_REFUSAL(site, listed, opened=[before for before in opened if not listed < before], **facts)


FAULTS = {
    "masks not bound to round": (two_rounds, replace(RULES, bound=unbound_round), SIZES),
    "masks not bound to repeat": (two_repeats, replace(RULES, bound=unbound_repeat), SIZES),
    "no self-mask": (said_missing, replace(RULES, self_masks=False), SIZES),
    "no confirmations": (other_lists, replace(RULES, opening_refusal=no_refusal), SIZES),
    "second cohort": (second_cohorts, replace(RULES, one_cohort=False), SIZES),
    "threshold of the cohort": (least_of_a_small_cohort, replace(RULES, least=least_by_cohort), [(5, 1)]),
    "another model": (another_request, replace(RULES, bound=lambda c: c._replace(request=None)), [*SIZES, (20, 6)]),
    "other most rows": (other_most_rows, replace(RULES, bound=lambda c: c._replace(request=None)), SIZES),
    "list by round": (fewer_in_the_next_round, ledger_without(lambda where: where.round), SIZES),
    "list by run": (fewer_in_a_second_run, ledger_without(lambda where: where.run), SIZES),
    "list by model": (
        fewer_in_a_summary, replace(RULES, question=lambda request, where: (request.kind, request.model)), SIZES,
    ),
    "list by kind": (
        fewer_in_another_kind, replace(RULES, question=lambda request, where: (request.kind, request.model)), SIZES,
    ),
    "least list of three": (least_list, replace(RULES, least=lambda pinned, cohort: 3), [(20, 2)]),
    "smaller list after the larger": (spoilt_on_the_way, replace(RULES, list_refusal=smaller_ones_too), SIZES),
    "draw": (draw, replace(RULES, least=least_by_cohort, cohort_refusal=no_refusal), [(20, 6)]),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_an_attack_wins_by_one_fault_and_loses_without_it(fault: str):
    attack, faulty, sizes = FAULTS[fault]
    for pinned, colluders in sizes:
        scene = Scene(pinned, colluders, faulty)
        attack(scene)
        most = 2 if fault == "threshold of the cohort" else 1
        assert scene.lost and scene.fewest() <= most
        scene = Scene(pinned, colluders)
        attack(scene)
        assert not scene.lost


def invented(scene: Scene) -> None:
    """Fill the cohort with sites that the server made up."""
    cohort = ["a00", "x00", "y00", "y01"]
    scene.enter(1, cohort)
    scene.train(exchange(), ASKED)
    scene.add_up(exchange(), cohort)


def not_pinned_too(site, cohort, pinned):
    refusal = written.cohort_refusal(site, cohort, pinned)
    return None if refusal is not None and refusal.code == "cohort-not-pinned" else refusal


def test_sites_that_the_server_made_up_are_not_in_a_cohort():
    pinned = {"study": ["a00", "a01", "a02", "x00"]}
    for rules, fewest in ((replace(RULES, cohort_refusal=not_pinned_too), 1), (RULES, None)):
        scene = Scene(pinned, ["x00", "y00", "y01"], rules)
        invented(scene)
        assert (scene.promised, scene.fewest()) == (2, fewest)


def test_a_draw_of_five_of_twenty_has_three_of_six_colluders_in_13_of_100():
    bad = sum(comb(6, number) * comb(14, 5 - number) for number in range(3, 6)) / comb(20, 5)
    assert written.threshold(5) == 4 and round(bad, 3) == 0.131
    assert written.cohort_refusal("a", set("abcde"), set("abcdefghijklmnopqrst")).code == "cohort-small"


def two_studies(scene: Scene) -> None:
    """Open one half's list in one study, the other half's in another that pins one site in another's place."""
    common = [name for name in scene.honest if name not in ("p", "q")]
    half = len(common) // 2
    for number, (study, own, bound) in enumerate((("one", "p", common[:half]), ("two", "q", common[half:])), 1):
        cohort = scene.pinned[study]
        scene.enter(number, cohort, study=study)
        scene.train(exchange(number), ASKED, [own, *bound])
        scene.add_up(exchange(number), cohort, [own, *bound])
    for number in (1, 2):
        scene.train(exchange(number), ASKED, common)
        scene.add_up(exchange(number), scene.pinned["one" if number == 1 else "two"])


@pytest.mark.parametrize(("common", "colluders"), [(4, 2), (6, 3)])
def test_a_question_keeps_to_the_pinned_sites_of_its_first_study(common: int, colluders: int):
    shared = [*(f"a{number}" for number in range(common)), *(f"x{number}" for number in range(colluders))]
    pinned = {"one": ["p", *shared], "two": ["q", *shared]}
    # Each site opens one list, and yet the difference of both sums has two sites only.
    scene = Scene(pinned, shared[common:], replace(RULES, answer_refusal=no_refusal))
    two_studies(scene)
    assert scene.lost and scene.fewest() == 2
    scene = Scene(pinned, shared[common:])
    two_studies(scene)
    assert not scene.lost


@pytest.mark.parametrize("consents", [False, True])
@pytest.mark.parametrize("opened", [False, True])
def test_a_study_with_one_more_site_gets_the_list_of_the_study_before_unless_the_site_consents(consents, opened):
    scene = Scene({"one": list("abcd"), "two": list("abcde")}, (), lifted="e" if consents else "")
    scene.enter(1, "abcd", study="one")
    scene.train(exchange(1), ASKED)
    assert scene.add_up(exchange(1), "abcd" if opened else "") == (4 if opened else 0)
    scene.enter(2, "abcde", study="two")
    assert scene.train(exchange(2), ASKED) == 5
    answers = scene.server.answers[exchange(2)]
    chosen = written.choose_list(
        {name: one.lists for name, one in answers.items()}, cohort="abcde", least=4,
        lifted=dict.fromkeys("abcde", scene.lifted),
    )  # fmt: skip
    joined = scene.add_up(exchange(2), "abcde")
    if opened and not consents:
        assert joined == 1  # by the new site, which knows of no list
        assert chosen == frozenset("abcd") and scene.add_up(exchange(2), chosen) == 4 and scene.fewest() == 4
    else:
        # What the server can compute of fewer than all is what the new site consented to: its own.
        assert joined == 5 and scene.server.fewest(scene.counted) == (1 if opened else 5)
        assert scene.fewest() == (4 if opened else 5)


def test_sites_in_each_others_place_are_not_pinned_with_an_honest_opener_for_certain():
    for shared in range(2, 200):
        assert written.have_honest_opener(range(shared + 1), range(shared + 2))  # one joins, or leaves
        same = range(shared)
        assert written.have_honest_opener(same, same) or shared < 3
    assert not written.have_honest_opener("abcd", "abce") and not written.have_honest_opener("abc", "ade")


def differences_alone(site, listed, *, opened, lifted, least, **facts):
    """Refuse lists that differ by a site that is not lifted, and no others."""
    if any(not before ^ listed <= set(lifted) for before in opened):
        return "list differs"
    return written.list_refusal(site, listed, opened=(), lifted=(), least=least, **facts)


def test_lists_that_differ_by_lifted_sites_lie_within_each_other():
    for rules, lost in ((replace(RULES, list_refusal=differences_alone), True), (RULES, False)):
        scene = Scene(7, 2, rules, lifted=["a00", "a01"])
        rest = [name for name in scene.all if name not in ("a00", "a01", "a02")]
        scene.enter(1, scene.all)
        scene.train(exchange(), ASKED)
        opened = [scene.add_up(exchange(), [*lifted, *rest]) for lifted in (["a00"], ["a01"], ["a00", "a01"])]
        assert (opened, scene.lost) == ([3, 3 if lost else 0, 4], lost)
    # One of them may be left out, and what that gives away is its own.
    scene = Scene(7, 2, lifted=["a00"])
    whole(scene, exchange(number=1))
    without_first(scene, exchange(number=2))
    assert not scene.lost and scene.server.fewest(scene.counted) == 1


def attacked(rules: Rules, pinned: int, colluders: int, plays: int, lifted: tuple[str, ...] = ()) -> tuple[int, int]:
    """Return in how many random plays the server gets a sum, and in how many one of too few sites.

    Half of them begin from nothing, half depart from known attacks, one after the other in the same runs.
    """
    known = [attack for attack, _, _ in FAULTS.values()]
    sums = lost = 0
    for seed in range(plays):
        rng = random.Random(seed)
        if seed % 2:
            scene = Scene(pinned, colluders, rules, lifted)
            random_attack(scene, rng)
        else:
            scene = Departing(pinned, colluders, rules, lifted, rng=rng)
            for attack in rng.sample(known, rng.choice((1, 2, 3))):
                attack(scene)
        sums += scene.fewest() is not None
        lost += scene.lost
    return sums, lost


def attacked_in_studies(rules: Rules, common: int, colluders: int, plays: int) -> tuple[int, int]:
    """Return the same for studies with one question that pin one site in another's place, or both."""
    shared = [*(f"a{number}" for number in range(common)), *(f"x{number}" for number in range(colluders))]
    sums = lost = 0
    for seed in range(plays):
        rng = random.Random(seed)
        pinned = {"one": ["p", *shared], "two": ["q", *shared], "three": ["p", "q", *shared]}
        scene = Departing(pinned, shared[common:], rules, rng.choice(((), ("p", "q"), ("p", "a0"))), rng=rng)
        if seed % 2:
            random_attack(scene, rng)
        else:
            two_studies(scene)
        sums += scene.fewest() is not None
        lost += scene.lost
    return sums, lost


@pytest.mark.parametrize(("pinned", "colluders"), [(3, 1), (4, 1), (5, 1), (6, 2), (7, 2), (10, 3), (20, 6)])
def test_no_random_attack_gets_a_sum_of_fewer_sites_than_promised(pinned: int, colluders: int):
    plays = 60 if pinned == 20 else 250
    for lifted in ((), ("a00", "a01")[: pinned - 2]):
        sums, lost = attacked(RULES, pinned, colluders, plays, lifted)
        assert sums > plays // 10 and lost == 0


@pytest.mark.parametrize(("common", "colluders"), [(4, 2), (6, 3)])
def test_no_random_attack_by_several_studies_gets_such_a_sum(common: int, colluders: int):
    sums, lost = attacked_in_studies(RULES, common, colluders, 200)
    assert sums > 20 and lost == 0
    assert attacked_in_studies(replace(RULES, answer_refusal=no_refusal), common, colluders, 50)[1] > 0


@pytest.mark.proof
@pytest.mark.parametrize(("pinned", "colluders"), [(3, 1), (4, 1), (5, 1), (6, 2), (7, 2), (9, 3), (10, 3), (20, 6)])
def test_no_long_search_gets_such_a_sum(pinned: int, colluders: int):
    for lifted in ((), ("a00", "a01")[: pinned - 2]):
        assert attacked(RULES, pinned, colluders, 1000 if pinned == 20 else 10_000, lifted)[1] == 0
    if pinned in (7, 10):
        assert attacked_in_studies(RULES, pinned - colluders - 1, colluders, 10_000)[1] == 0


@pytest.mark.parametrize("fault", [
    "masks not bound to round", "no self-mask", "no confirmations", "another model", "list by run",
    "smaller list after the larger",
])  # fmt: skip
def test_the_same_attacks_find_a_fault(fault: str):
    assert attacked(FAULTS[fault][1], 7, 2, 150)[1] > 0


def test_two_lists_have_an_honest_site_in_common_as_long_as_a_third_colludes(monkeypatch):
    def apart() -> list[int]:
        return [n for n in range(3, 1000) if 2 * written.threshold(n) - n <= n // 3]

    assert apart() == [] and all(written.threshold(n) <= n for n in range(3, 1000))
    monkeypatch.setattr(written, "PERCENT", 66)
    assert len(apart()) > 100


def shown_to_others(scene: Scene) -> None:
    """Open the whole list at the first site and at few others, and at all others one without the first site."""
    few = scene.honest[: scene.promised]
    scene.enter(1, scene.all)
    scene.train(exchange(), ASKED)
    scene.unmask(exchange(), scene.all, few)
    scene.train(exchange(number=2), ASKED)
    scene.add_up(exchange(number=2), scene.all[1:])


def own_people(site, allowed):
    return frozenset(allowed[site])


@pytest.mark.parametrize(("pinned", "colluders"), SIZES)
def test_a_site_that_does_not_consent_is_lifted_by_all_others_only(pinned: int, colluders: int):
    """Where each site goes by its own people, a part of them is enough."""
    least = written.threshold(pinned) - colluders
    people = {f"a{number:02}": ["a00"] for number in range(1, least)}
    for rules, fewest in ((replace(RULES, lifted=own_people), 1), (RULES, None)):
        scene = Scene(pinned, colluders, rules, allowed=people)
        shown_to_others(scene)
        assert scene.fewest(scene.promised) == fewest and len(people) < len(scene.honest) - 1


def test_a_question_of_others_is_answered_where_every_list_lies_within_the_run():
    # Between runs that pin these nobody honest opens two lists for certain.
    own, other = frozenset("abc"), frozenset("abce")
    for opened, answers in (([own], True), ([own, other], False), ([other], False), ([], False)):
        asked = {"pinned": "abcd", "earlier_lists": ["abce"], "opened": opened}
        assert (written.answer_refusal(cohort="abcd", **asked) is None) == answers, opened
