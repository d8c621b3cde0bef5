"""Which list is asked for in place of one that was not opened, by what its sites say of shares."""

import numpy as np
import pytest

from flfed.refusals import Refusal
from flfed.updates.aggregation.secure_sum import left_out_faults, list_without, named_sites, smaller_list
from flfed.updates.checkpoints.sum_file import ListedVectors, SumStore
from flfed.updates.masking.rules import Sites
from flfed.updates.messages.secure_sum import Masked

ALL = frozenset("abcdefg")
OPENED = {"a": (ALL,)}


def names(text: str) -> dict[str, Sites]:
    """Return who named whom, as in "ab:g c:fg"."""
    pairs = [part.split(":") for part in text.split()]
    return {site: frozenset(whom) for sites, whom in pairs for site in sites}


def kept(listed: Sites = ALL, opened: dict[str, tuple[Sites, ...]] | None = None) -> ListedVectors:
    empty = {"vector": np.zeros(0, np.uint32), "sums": np.zeros(2, np.uint64), "shares": np.zeros((7, 48), np.uint8)}
    vectors = {site: Masked(**empty, opened=(opened or {}).get(site, ())) for site in sorted(listed)}
    return ListedVectors(kind="train", round=1, listed=listed, vectors=vectors)


@pytest.mark.parametrize(("said", "left"), [
    ("abcdef:g", "abcdef"),
    ("abcde:fg", "abcde"),
    # One whose keys are wrong names all others; one that cannot open its own names itself.
    ("abcdef:g g:abcdef", "abcdef"), ("abcdef:g g:g", "abcdef"), ("g:g", "abcdef"),
    # Of two that spoil by halves both go; of a pair that nobody else is in, the one that is named.
    ("abc:f de:g", "abcde"), ("a:b", "acdefg"), ("", "abcdefg"),
])  # fmt: skip
def test_the_sites_that_are_left_name_none_of_each_other_and_are_most(said: str, left: str):
    assert list_without(ALL, names(said)) == frozenset(left)


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ({}, "abcdef"), ({"named": names("abcde:g")}, ""),
        ({"named": names("abcdef:g"), "kept": kept(opened=OPENED)}, ""), ({"cohort": "abcdefgh"}, ""),
        ({"least": 7}, ""), ({"named": names("abcde:fg")}, "abcde"), ({"named": names("abcd:efg")}, ""),
    ],
    ids=[
        "all of the others", "one is silent", "one opened before", "one is missing", "quorum", "two",
        "too few are left",
    ],
)  # fmt: skip
def test_a_smaller_list_is_asked_for_where_each_of_the_others_opened_nothing(given: dict, left: str):
    asked = {"named": names("abcdef:g"), "kept": kept(), "cohort": ALL, "least": 5} | given
    assert smaller_list(asked.pop("kept"), asked.pop("named"), **asked) == (frozenset(left) or None)


def test_what_sites_say_is_read_and_counted_and_names_outside_the_list_are_nobody():
    said = {
        "a": Refusal("share-unreadable", site="g"),
        "b": Refusal("of-site", site="b", why=Refusal("shares-unreadable", many=3, sites="f, g, nobody")),
        "c": Refusal("no-reply"), "h": Refusal("share-unreadable", site="a"),
    }  # fmt: skip
    named = named_sites(ALL, said)
    assert named == names("a:g b:fg")
    store = SumStore()
    for times in (1, 2):
        smaller = store.leave_out(kept(), frozenset("g"))
        assert (smaller.listed, set(smaller.vectors), store.left_out) == (ALL - {"g"}, ALL - {"g"}, {"g": times})
        assert store.of("train", 1) is smaller
    store.leave_out(kept(), frozenset("f"))
    assert store.excluded == {"g"}
    faults = left_out_faults(frozenset("fg"), named, excluded=store.excluded)
    assert faults == {"f": Refusal("shares-spoilt", sites="b"), "g": Refusal("shares-spoilt-again", sites="a, b")}
