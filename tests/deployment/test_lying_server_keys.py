"""Keys of a run at real gates: who is in the cohort, by whose signature, and which of two runs is the later one."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from flfed.deployment.gate import message_check
from flfed.deployment.gate.message_check import message_defect
from flfed.deployment.gate.message_schema import StudyMessages
from flfed.deployment.gate.run_limits import SumLines
from flfed.federation.client import run_keys
from flfed.federation.client.secure_sums import SiteSums
from flfed.paths import home
from flfed.rows.data import datasets
from flfed.study.study import Study
from flfed.updates.masking import rules
from flfed.updates.masking import statement as statements
from flfed.updates.messages.compare import COMPARE, CompareRequest
from flfed.updates.messages.secure_sum import UNMASK, UnmaskRequest
from tests.deployment.gate_scene import GateScene, Impostor
from tests.updates.masking import attacks
from tests.updates.masking.attacks import ASKED, exchange
from tests.updates.masking.play import Request

Make = Callable[..., GateScene]
Forge = Callable[[GateScene, str], bytes]


def own_key(scene: GateScene, name: str) -> bytes:
    """Sign as a gate that nobody has pinned."""
    return scene.impostors[name].statement(scene.study, scene.run(1), 0, scene.gated.pins)


def borrowed(scene: GateScene, name: str) -> bytes:
    """Put a key of the server into what the site's gate has signed, whose public key and signature stay."""
    real = scene.statements(1, 0, [name])[name]
    return bytes.fromhex(scene.impostors[name].key.public.hex()) + real[32:]


def earlier(scene: GateScene, name: str) -> bytes:
    """Show what the site's gate signed in another run."""
    return scene.statements(7, 0, [name])[name]


def of_another_version(scene: GateScene, name: str) -> bytes:
    """Say that the site has another version of flfed: its statement names that."""
    real = scene.statements(1, 0, [name])[name]
    return real.replace(b'"0.', b'"0.0.')


def of_none(scene: GateScene, name: str) -> bytes:
    """Say that the site signs nothing."""
    return b""


def of_others(scene: GateScene, name: str) -> bytes:
    """Show a site of the server's in the place of this one."""
    return scene.statements(1, 0, ["x-00"])["x-00"]


SAID = {
    own_key: "the gate of site 'site-02' has another key than the one that is pinned here",
    borrowed: "the key of site 'site-02' is not signed by its gate",
    earlier: "the key of site 'site-02' is not signed by its gate for this study, run and repeat",
    of_another_version: "the key of site 'site-02' is not signed by its gate",
    of_none: "a site's signed key for the run cannot be read",
    of_others: "the sites of the run, their keys and shares do not fit one another",
}


def impersonate(scene: GateScene, forge: Forge) -> int:
    """Begin a run with one site, in which all others have keys of the server; return whether it takes them."""
    others = scene.honest[1:]
    scene.impostors |= {name: Impostor(name) for name in others}
    shown = {name: forge(scene, name) for name in others}
    took = scene.enter(1, scene.all, scene.honest[:1], shown=shown)
    scene.train(exchange(), ASKED, scene.honest[:1])
    scene.add_up(exchange(), scene.all, scene.honest[:1])
    return took


@pytest.mark.parametrize("forge", SAID, ids=lambda forge: forge.__name__)
def test_a_site_takes_no_key_that_the_other_sites_gate_has_not_signed_for_this_run(scene: Make, forge: Forge) -> None:
    found = scene(4, 1)
    assert impersonate(found, forge) == 0
    assert SAID[forge] in found.said[0] and not found.vectors
    # The site trains for none of it.
    assert "key of this run is not here" in found.said[1]


@pytest.mark.parametrize("forge", [own_key, borrowed])
def test_keys_of_the_server_in_the_others_names_give_a_sites_update_where_signatures_are_not_looked_at(
    scene: Make, forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statements, "statement_refusal", lambda *given, **named: None)
    found = scene(4, 1)
    assert impersonate(found, forge) == 1
    assert found.fewest() == 1 and found.bare()["site-01"] < 1e-4


def made_up(scene: GateScene) -> int:
    """Fill the cohort with sites that nobody pinned."""
    scene.impostors |= {name: Impostor(name) for name in ("y-00", "y-01")}
    cohort = [scene.honest[0], *sorted(scene.impostors)]
    took = scene.enter(1, cohort)
    scene.train(exchange(), ASKED, scene.honest[:1])
    scene.add_up(exchange(), cohort)
    return took


def test_sites_that_the_server_made_up_are_in_no_cohort(scene: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    found = scene(4, 1)
    assert made_up(found) == 0
    assert "site 'y-00' is in the run, and its key is not pinned here" in found.said[0]
    for module, name in ((statements, "statement_refusal"), (rules, "cohort_refusal")):
        monkeypatch.setattr(module, name, lambda *given, **named: None)
    found = scene(4, 1)
    assert made_up(found) == 1 and found.fewest() == 1 and found.bare()["site-01"] < 1e-4


def test_a_run_has_one_cohort_with_one_key_of_each_site(scene: Make) -> None:
    found = scene(4, 1)
    found.enter(1, found.all)
    found.train(exchange(), ASKED)
    # A second key of the server's own site, signed by its gate; another cohort; other most rows.
    other = "the run has other sites or keys than were told at its start"
    second = Impostor("x-00", found.impostors["x-00"].signing)
    shown = {"x-00": second.statement(found.study, found.run(1), 0, found.gated.pins)}
    assert found.enter(1, found.all, shown=shown) == 0 and all(other in said for said in found.said)
    assert found.enter(1, found.all, most_rows=99) == 0 and found.enter(1, found.all[1:], found.honest[1:]) == 0
    assert {said.partition(": ")[2] for said in found.said} == {other}
    attacks.second_cohorts(found)
    assert not found.lost and found.fewest() is None
    # The site's own statement stays, and the key that it stands for is gone: none can be made anew.
    assert found.statements(1, 0, ["site-01"]) == found.statements(1, 0, ["site-01"])
    kept = {path.stem for path in (home() / "sites" / "site-01" / "runs" / found.run(1)).iterdir()}
    assert run_keys.STATEMENT in kept and run_keys.KEY not in kept


def test_a_site_makes_no_second_key_in_a_run_once_its_state_is_gone(scene, monkeypatch):
    def play() -> list[int]:
        """Return how often the first site takes keys and trains anew after the comparison, and at another gate."""
        found = scene(4, 0)
        found.enter(1, found.all)
        found.train(exchange(), ASKED)
        made, did = found.request(1, ASKED), []
        assert not found.ask(
            1, 0, "site-01", COMPARE, CompareRequest(arrays=made.arrays, encoder=made.encoder)
        ).has_error()
        for _ in range(2):
            found.forget("site-01")
            did += [found.enter(1, found.all, ["site-01"]), found.train(exchange(), ASKED, ["site-01"])]
            found.gated.restart("site-01")
        refused = [text for text in found.said if "key of this run is not here: begin the run anew" in text]
        assert len(refused) == did.count(0)
        return did

    assert play() == [0, 0, 0, 0]
    monkeypatch.setattr(SumLines, "has_keys", lambda lines, run: False)
    assert play() == [1, 1, 1, 1]


def test_sums_over_rows_are_masked_once_whatever_was_asked_since(scene: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def play() -> tuple[int, GateScene]:
        """Return how many vectors leave after a change of policy, where rounds were asked in between."""
        found, sums = scene(4, 0), Request("summarise")
        attacks.whole(found, exchange(kind="summarise", number=5), sums)
        found.train(exchange(), ASKED)
        site = found.gated.sites["site-01"]
        found.gated.sites["site-01"] = replace(site, policy=site.policy.model_copy(update={"cell_minimum": 7}))
        found.gated.restart("site-01")
        return found.train(exchange(kind="summarise", number=6), sums, ["site-01"]), found

    again, found = play()
    assert again == 0 and "a masked answer to round 0 left before, and it is not here any more" in found.said[-1]
    # Two vectors under one mask give their difference, once both self-masks are opened.
    monkeypatch.setattr(SiteSums, "check_unused", lambda sums, asked: None)
    again, found = play()
    first, second = (found.vectors[1, 0, number, "site-01"] for number in (5, 6))
    assert again == 1 and first.own != second.own
    assert (first.binding, first.links) == (second.binding, second.links)


def test_a_cohort_has_its_own_site_and_the_threshold_of_the_pinned(scene: Make) -> None:
    found = scene(5, 1)
    assert found.enter(1, found.all[:3]) == 0
    assert "the run has 3 of the sites that are pinned here, sums need 4" in found.said[-1]
    assert found.enter(1, [*found.honest[1:], "x-00"], found.honest[:1]) == 0
    assert "the sites of the run are named without this one" in found.said[-1]


def test_of_two_runs_the_later_is_the_one_that_began_later_whatever_their_names(scene, monkeypatch):
    # The clock was set back between them, or both began in one second.
    first, then = exchange(run=9), exchange(run=2)

    def play() -> GateScene:
        found = scene(4, 0)
        for where in (first, then):
            found.enter(where.run, found.all)
            assert found.train(where, ASKED) == 4
        return found

    found = play()
    # What the first one still asks is too late: the second counts on what its answers said.
    assert found.confirm(first, found.all[:3]) == 0 and "a later run has asked this question" in found.said[-1]
    assert found.add_up(then, found.all[1:]) == 3
    # It may open the list of the second.
    assert found.add_up(first, found.all[1:]) == 3
    # By names alone it is the other way round, and sites are bound to two lists, if both are asked in turn.
    monkeypatch.setattr(SumLines, "_is_later", lambda lines, other, place: other > place)
    found = play()
    assert found.confirm(first, found.all[:3], found.all[:1]) == 1 and found.confirm(then, found.all[1:]) == 0


def test_runs_that_begin_at_once_go_by_their_names_at_every_site(scene: Make) -> None:
    found = scene(4, 0)
    first, then = exchange(run=1), exchange(run=2)
    for where in (then, first):
        found.statements(where.run, 0, found.all)
    # One site has the keys of the one first, the others those of the other; and they are asked in another order.
    for runs, sites in (((1, 2), found.all[:1]), ((2, 1), found.all[1:])):
        assert [found.enter(run, found.all, sites) for run in runs] == [len(sites)] * 2
    assert found.train(then, ASKED) == found.train(first, ASKED) == 4
    for site in found.all[1:]:
        assert found.confirm(first, found.all[1:], [site]) == 0
        assert "a later run has asked this question" in found.said[-1]
    assert found.add_up(then, found.all[1:]) == 3


def test_what_opens_a_sum_is_measured_before_it_is_decoded(monkeypatch, small_study, small_sites):
    request = UnmaskRequest(
        kind="train", round=1, listed="a,b,c", shares=np.zeros((4096, 48), np.uint8), codes=np.zeros((3, 32), np.uint8)
    )
    monkeypatch.setattr(message_check, "ndarrays", lambda record, name: pytest.fail("it was decoded"))
    study = Study.parse(small_study)
    site = small_sites(4)[0]
    messages = StudyMessages(study, datasets.load("small").schema, site, pinned=4)
    said = message_defect(request.to_record(), messages.incoming(UNMASK))
    assert said is not None and "an array 'shares' that is too large (196736 bytes, where 448 are enough)" in said
