"""Every draw follows from the study's seed, the site's name, the purpose and the round; from nothing else."""

from __future__ import annotations

import hashlib
import itertools
import subprocess
import sys

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from flfed.seeds import generator, words

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
