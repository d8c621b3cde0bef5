"""Trees in sums before a coordinator that lies: each play reads one row's outcome where a rule is taken away."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord

from flfed.deployment.gate import message_check, run_limits
from flfed.federation.server import row_sums
from flfed.rows.data.site import Site
from flfed.rows.session import SiteSession
from flfed.study.study import Study
from flfed.trees.cut_points import NO_CUT, are_possible, chosen_cuts, edges_of, widths_of
from flfed.updates.aggregation.losses import ENTRIES
from flfed.updates.aggregation.summer import Summer
from flfed.updates.strategies.boosted_trees import BoostedTrees
from flfed.updates.strategies.fedavg import to_arrays, to_record
from tests.boosting import trees_study
from tests.deployment.summing import Consortium, Coordinator
from tests.federation.test_boosted_trees_run import one_table

LAST = "site-04"
LEAST = 10
Arrays = dict[str, np.ndarray]
Change = Callable[[Arrays], Arrays]
Make = Callable[[], Consortium]


@pytest.fixture
def consortium(small_sites: Callable[..., list[Site]], small_study: str) -> Make:
    """A function that returns four sites that approved a study of two trees with sums."""
    asked = {"secure-aggregation": "on", "strategy.rounds": 2, "strategy.min-rows": LEAST, "model.depth": 1}
    return lambda: Consortium(small_sites(4, rows=70), Study.parse(trees_study(small_study, **asked)))


@dataclass
class Liar:
    """A coordinator that chooses cut points, and notes the sum of each root.

    Attributes
    ----------
    patch : MonkeyPatch
        By which the server's half is changed.
    consortium : Consortium
    roots : list of array [codes, 3]
        As they were added up, in order.
    """

    patch: pytest.MonkeyPatch
    consortium: Consortium
    roots: list[np.ndarray] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.coordinator = Coordinator(self.consortium)
        configure, add = BoostedTrees.configure_train, Summer.add
        training = list[int]()

        def configured(strategy: BoostedTrees, number: int, *given: Any) -> Any:
            training.append(number)
            return configure(strategy, number, *given)

        def noted(summer: Summer, vectors: Any) -> Any:
            updates, sums = add(summer, vectors)
            # Trees have depth 1: each sum of a round is that of a root, and behind its nodes stand losses.
            if training and (len(sums) - ENTRIES) % 3 == 0 and len(sums) > ENTRIES:
                self.roots.append(sums[:-ENTRIES].view(np.int64).reshape(-1, 3))
            return updates, sums

        self.patch.setattr(BoostedTrees, "configure_train", configured)
        self.patch.setattr(Summer, "add", noted)

    def choose_cuts(self, change: Change) -> None:
        """Begin each run with other cut points than the counts give."""
        self.patch.setattr(row_sums, "chosen_cuts", lambda *given: change(chosen_cuts(*given)))

    def choose_cuts_of_second_round(self, change: Change) -> None:
        """Grow the second tree by other cut points than the first, at sites whose processes begin anew before it."""
        configure = BoostedTrees.configure_train

        def changed(strategy: BoostedTrees, number: int, arrays: ArrayRecord, config: Any, grid: Any) -> Any:
            if number < 2:
                return configure(strategy, number, arrays, config, grid)
            for site in self.consortium.sites:
                self.consortium.restart(site)
            return configure(strategy, number, to_record(change(to_arrays(arrays))), config, grid)

        self.patch.setattr(BoostedTrees, "configure_train", changed)

    def run(self) -> None:
        """Begin a run."""
        self.entry = self.coordinator.run()

    def refusals(self) -> set[str]:
        """Return why sites did not answer in the last run."""
        return {str(reply.error.reason) for _, _, reply in self.coordinator.grid.sent if reply.has_error()}

    def one_row(self) -> float | None:
        """Return the outcome of the row that has the second code of the first column; None where it was not read."""
        found = [sums[1] for sums in self.roots if sums[1, 2] == 1]
        return float(found[0][0] < 0) if found else None


def fitted(consortium: Consortium) -> tuple[np.ndarray, np.ndarray]:
    """Return the first column of the last site's training rows, and their outcomes."""
    rows = SiteSession(consortium.sites[LAST], consortium.study).fitted_columns()
    return rows.values["x1"], rows.codes["y"]


def leave_out_a_cut(arrays: Arrays) -> Arrays:
    cuts, missing = arrays["cuts"].copy(), arrays["missing"].copy()
    cuts[0] = [*cuts[0, 1:], NO_CUT]
    missing[0] -= 1
    return {**arrays, "cuts": cuts, "missing": missing}


def cut_around(value: float, arrays: Arrays) -> Arrays:
    """Return arrays by which one value has a code of its own."""
    cuts, missing = arrays["cuts"].copy(), arrays["missing"].copy()
    above = np.float32(value)
    cuts[0] = NO_CUT
    cuts[0, :2] = np.nextafter(above, np.float32(0)), above
    missing[0] = 3
    return {**arrays, "cuts": cuts, "missing": missing}


def ask_by_own_cuts(liar: Liar, *, second_round: bool) -> tuple[object, object]:
    """Ask by cut points of which one row of the last site has a code of its own, in all rounds or in the second."""
    values, outcomes = fitted(liar.consortium)
    own = partial(cut_around, float(values[0]))
    if second_round:
        liar.choose_cuts_of_second_round(own)
    else:
        liar.choose_cuts(own)
    liar.run()
    return liar.one_row(), float(outcomes[0])


def ask_by_two_sets(liar: Liar) -> tuple[object, object]:
    """Ask for the second root by fewer cut points than the first; return how many roots were opened."""
    liar.choose_cuts_of_second_round(leave_out_a_cut)
    liar.run()
    return len(liar.roots), 2


UNFIT = "has cut points that are not among those that follow from the schema"
OTHER_CUTS = "it was asked to grow trees of other cut points in this run"
PLAYS: dict[str, tuple[Callable[[Liar], tuple[object, object]], str, tuple[str, ...]]] = {
    "own cuts": (partial(ask_by_own_cuts, second_round=False), UNFIT, ("any cuts",)),
    "own cuts of a round": (partial(ask_by_own_cuts, second_round=True), OTHER_CUTS, ("any cuts", "cuts of a round")),
    "cuts of a round": (ask_by_two_sets, OTHER_CUTS, ("cuts of a round",)),
}
"""What is done and read, and what is so; what ends it; and the rules without which it is read."""


def take_away(rules: tuple[str, ...], patch: pytest.MonkeyPatch) -> None:
    """Take rules away."""
    if "any cuts" in rules:
        patch.setattr(message_check, "are_possible", lambda *given: True)
    if "cuts of a round" in rules:
        patch.setattr(run_limits, "choices_of", lambda message: {})


@pytest.mark.studies
@pytest.mark.parametrize("play", PLAYS)
def test_what_a_coordinator_asks_of_roots_tells_of_no_single_row(consortium, play, monkeypatch):
    ask, why, _ = PLAYS[play]
    liar = Liar(monkeypatch, consortium())
    read, real = ask(liar)
    assert read != real
    assert why in f"{liar.entry.reason}, {liar.refusals()}"
    assert liar.entry.status == "stopped"


@pytest.mark.proof
@pytest.mark.parametrize("play", PLAYS)
def test_without_a_rule_the_play_reads_what_is_so(consortium: Make, play: str, monkeypatch: pytest.MonkeyPatch):
    ask, _, rules = PLAYS[play]
    take_away(rules, monkeypatch)
    read, real = ask(Liar(monkeypatch, consortium()))
    assert read == real


@pytest.mark.parametrize("least", [0, 10])
def test_chosen_cut_points_are_possible_and_one_of_another_bit_place_or_order_is_not(least, small_sites, small_study):
    study = Study.parse(trees_study(small_study))
    sessions = [SiteSession(site, study) for site in small_sites(3, rows=300)]
    layout = sessions[0].layout
    for most in (4, 64, 256):
        cuts = one_table(sessions, most, least)[1]["cuts"]
        assert are_possible(cuts, layout, most)
    filled = int(np.flatnonzero(widths_of({"cuts": cuts}) > 3)[0])
    first, second = cuts[filled, :2]
    for spoilt in ([np.nextafter(first, np.inf), second], [second, first], [NO_CUT, second], [first, first]):
        other = cuts.copy()
        other[filled, :2] = spoilt
        assert not are_possible(other, layout, 256)
    number = next(place for place, column in enumerate(layout.features) if len(edges_of(column)) > 64)
    cuts[number, :64] = edges_of(layout.features[number])[:64]
    assert are_possible(cuts, layout, 256) and not are_possible(cuts, layout, 64)
