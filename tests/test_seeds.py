"""Every draw follows from the study's seed, the site's name, the purpose and the round; from nothing else."""

import hashlib
import itertools
import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.stats import kstest

from flfed.seeds import FEW, Draws, generator, seed_of, states, words

SITES = ("", "cleveland", "hungary", "a", "b")
PURPOSES = ("fit", "cohort", "bootstrap", "folds", "first-arrays")


def test_words_are_the_sha256_in_order():
    digest = hashlib.sha256(b"cleveland/fit").digest()
    assert b"".join(word.to_bytes(4, "little") for word in words("cleveland/fit")) == digest


def test_no_two_of_seed_site_purpose_and_round_share_a_stream():
    cases = list(itertools.product((0, 1, 42, 2**32, 2**40 + 42), SITES, PURPOSES, (0, 1, 2, 40)))
    first = {tuple(generator(seed, site=s, purpose=p, number=n).integers(2**63, size=2)) for seed, s, p, n in cases}
    assert len(first) == len(cases) == 500


def test_a_draw_is_the_same_in_another_process():
    """Python's own hash of a text differs from process to process; this must not."""
    code = "from flfed.seeds import generator; print(generator(42, site='hungary', purpose='fit', number=3).random())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) == generator(42, site="hungary", purpose="fit", number=3).random()


def test_a_stream_does_not_change_from_version_to_version():
    """A run can be repeated from its record: these were drawn when the first version was made."""
    drawn = generator(42, site="cleveland", purpose="fit", number=1).integers(1000, size=4)
    assert drawn.tolist() == [837, 366, 970, 808]


def test_streams_of_neighbouring_rounds_and_sites_are_uniform_and_unrelated():
    first = np.array([generator(7, site="a", purpose="fit", number=n).random() for n in range(400)])
    other = np.array([generator(7, site="b", purpose="fit", number=n).random() for n in range(400)])
    assert kstest(first, "uniform").pvalue > 0.01
    # The correlation of 400 unrelated pairs is within 4 / sqrt(400) all but always.
    assert abs(np.corrcoef(first, other)[0, 1]) < 0.2
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 0.2


@settings(deadline=None)
@given(seed=st.integers(0, 2**64), number=st.integers(0, 10_000), site=st.text(max_size=8))
def test_any_seed_any_name_and_any_round_gives_a_stream(seed, number, site):
    a, b = (generator(seed, site=site, purpose="fit", number=number).random(3) for _ in range(2))
    np.testing.assert_array_equal(a, b)


def test_a_seed_of_one_word_or_of_several_draws_as_the_plain_list_of_numbers_does():
    for seed, number in [(0, 0), (42, 7), (2**32 - 1, 1), (2**40, 3), (5, 2**33)]:
        plain = np.random.default_rng(np.random.SeedSequence([seed, *words("site/fit"), number]))
        assert generator(seed, site="site", purpose="fit", number=number).integers(2**62) == plain.integers(2**62)


@given(arrays.arrays(np.uint32, st.tuples(st.integers(1, 5), st.integers(4, 12)), elements=st.integers(0, 2**32 - 1)))
def test_states_made_together_are_those_of_numpy(entropy):
    each = [np.random.SeedSequence(row).generate_state(4, np.uint64) for row in entropy]
    np.testing.assert_array_equal(states(entropy), each)
    assert states(entropy).dtype == np.uint64


@pytest.mark.parametrize("seed", [0, 42, 2**32 - 1, 2**32])
def test_many_sites_draw_as_each_draws_alone_in_whatever_order_they_come(seed):
    draws, sites = Draws(seed, "fit"), [f"site-{place}" for place in range(FEW + 5)]
    for number, order in enumerate((sites[:3], sites[:FEW], sites[::-1], sites[3:9], sites, sites + sites), start=1):
        for site in order:
            mine, alone = draws.of(site, number), generator(seed, site=site, purpose="fit", number=number)
            assert mine.bit_generator.state == alone.bit_generator.state
            np.testing.assert_array_equal(mine.permutation(9), alone.permutation(9))
            assert seed_of(mine) == seed
    back = draws.of("site-7", 2)
    assert back.random() == generator(seed, site="site-7", purpose="fit", number=2).random()


def test_a_generator_seeded_with_others_can_be_copied_and_answers_for_other_states():
    draws = Draws(42, "fit")
    for number in (1, 2):
        rngs = [draws.of(str(site), number) for site in range(FEW)]
    mine, alone = rngs[5], generator(42, site="5", purpose="fit", number=2)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(mine)).random(4), alone.random(4))
    for length, kind in ((4, np.uint64), (4, np.uint32), (7, np.uint64)):
        found = [rng.bit_generator.seed_seq.generate_state(length, kind) for rng in (mine, alone)]
        np.testing.assert_array_equal(*found)
