"""Folds without scikit-learn's import are scikit-learn's folds."""

from __future__ import annotations

import warnings

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import KFold, StratifiedKFold

from flfed.rows.training.tuned_linear import plain_folds, stratified_folds


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([0, 1, 5]), min_size=6, max_size=60), st.integers(2, 5), st.integers(0, 2**31 - 1))
def test_stratified_folds_are_those_of_scikit_learn(labels, count, seed):
    y = np.array([0] * count + labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class with fewer rows than folds
        expected = list(StratifiedKFold(count, shuffle=True, random_state=seed).split(y, y))
    found = stratified_folds(y, count, seed)
    assert len(found) == count
    for (train, test), (their_train, their_test) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(train, their_train)
        np.testing.assert_array_equal(test, their_test)


@settings(max_examples=30, deadline=None)
@given(st.integers(5, 60), st.integers(2, 5), st.integers(0, 2**31 - 1))
def test_plain_folds_are_those_of_scikit_learn(rows, count, seed):
    expected = KFold(count, shuffle=True, random_state=seed).split(np.zeros(rows))
    for (train, test), (their_train, their_test) in zip(plain_folds(rows, count, seed), expected, strict=True):
        np.testing.assert_array_equal(train, their_train)
        np.testing.assert_array_equal(test, their_test)
    assert sum(len(test) for _, test in plain_folds(rows, count, seed)) == rows
