"""Encrypted residuals: sums equal plain ones, and what comes back shows neither cells nor whether a guess is right."""

import secrets

import numpy as np
import pytest

from flfed.refusals import Refusal
from flfed.study.kinds import LARGEST_INPUT
from flfed.vertical import residuals
from flfed.vertical.residuals import SLOTS, ResidualKey, ciphertexts_back, multiply

pytest.importorskip("tenseal")


@pytest.fixture(scope="module")
def key() -> ResidualKey:
    return ResidualKey.new()


@pytest.fixture(scope="module")
def public(key) -> bytes:
    return key.public()


def normal(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    return np.clip(np.random.default_rng(seed).normal(size=(rows, columns)), -LARGEST_INPUT, LARGEST_INPUT)


def uniform(rows: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, rows)


@pytest.mark.parametrize(("rows", "columns"), [(400, 20), (400, 1), (400, 60), (4095, 2), (4096, 2), (8192, 1)])
def test_sums_are_those_without_encryption(key, public, rows, columns):
    x, residual = normal(rows, columns), uniform(rows)

    products = multiply(key.encrypt(residual), x, public)

    sums = key.open(products.ciphertexts, rows, np.zeros(columns)) - products.masks
    np.testing.assert_allclose(sums, residual @ x, rtol=0, atol=1e-5)


def test_before_rounding_the_gradient_is_the_plain_one(key, public):
    x, residual = normal(400, 20), uniform(400)

    products = multiply(key.encrypt(residual), x, public)

    sums = key.open(products.ciphertexts, 400, np.zeros(20)) - products.masks
    gradient = residual @ x
    assert np.abs(sums - gradient).max() <= 1e-5 * np.abs(gradient).max()


def test_columns_and_chunks_of_zeros_are_no_error(key, public):
    x = normal(SLOTS + 10, 3)
    x[:SLOTS, 0] = 1e-17
    x[:, 1] = 0
    residual = uniform(len(x))

    products = multiply(key.encrypt(residual), x, public)

    sums = key.open(products.ciphertexts, len(x), np.zeros(3)) - products.masks
    np.testing.assert_allclose(sums, residual @ x, rtol=0, atol=1e-4)


def test_noise_is_added_to_the_sum_of_its_column(key, public):
    x, residual, noise = normal(400, 3), uniform(400), np.array([0.0, 12.5, -3.25])

    products = multiply(key.encrypt(residual), x, public)

    sums = key.open(products.ciphertexts, 400, noise) - products.masks
    np.testing.assert_allclose(sums, residual @ x + noise, rtol=0, atol=1e-5)


def test_a_step_of_400_rows_and_20_columns_is_at_most_1_mb(key, public):
    out = key.encrypt(uniform(400))
    back = multiply(out, normal(400, 20), public).ciphertexts

    assert sum(map(len, out + back)) <= 1_000_000
    assert len(public) <= 500_000, "goes once"


def column_is_confirmed(key, public, guess: np.ndarray, column: np.ndarray) -> bool:
    """Return whether the label party sees that a column is the guess: a difference without a polynomial is refused."""
    sent = key.encrypt(uniform(len(column)))
    reply = multiply(sent, column[:, None], public)
    evaluator = residuals._api().Evaluator(residuals._context())
    product = residuals._product(evaluator, residuals._ciphertexts(sent, 1), guess)
    (got,) = residuals._ciphertexts(reply.ciphertexts, 1)
    try:
        evaluator.sub_inplace(product, got)
    except RuntimeError:
        return True
    return bool(product.is_transparent())


def test_a_reply_does_not_confirm_a_guessed_column(key, public):
    column = normal(400, 1)[:, 0]

    assert not column_is_confirmed(key, public, column, column)


def masked_in_the_clear(encryptor, evaluator, product, mask):
    """A mask added to one polynomial of two."""
    evaluator.add_plain_inplace(product, residuals._plain(mask, product))
    return product


def test_a_mask_in_the_clear_confirms_a_guess_alone_that_is_right(key, public, monkeypatch):
    monkeypatch.setattr(residuals, "_masked", masked_in_the_clear)
    column = normal(400, 1)[:, 0]
    one_cell_off = column + 0.5 * (np.arange(400) == 7)

    assert column_is_confirmed(key, public, column, column)
    assert not column_is_confirmed(key, public, one_cell_off, column)


def slots_read(key, public, steps: int) -> np.ndarray:
    """Return how far real and imaginary parts of the slots go with the column over steps; float64 [2]."""
    column = normal(400, 1)[:, 0]
    by_real, by_imaginary = [], []
    for step in range(steps):
        residual = uniform(400, seed=step)
        sent = key.encrypt(residual)
        noise = key.decrypt(sent, 1)[0][:400] - residual
        slots = key.decrypt(multiply(sent, column[:, None], public).ciphertexts, 1)[0][:400]
        by_real.append((slots.real * residual, residual**2))
        by_imaginary.append((slots.imag * noise.imag, noise.imag**2))
    readings = []
    for pairs in (by_real, by_imaginary):
        above, below = (np.sum(part, axis=0) for part in zip(*pairs, strict=True))
        # The first slot has the mask of the sum, where there is only that one.
        readings.append(abs(np.corrcoef((above / below)[1:], column[1:])[0, 1]))
    return np.array(readings)


def test_the_label_party_reads_no_column_from_the_slots(key, public):
    assert (slots_read(key, public, 20) < 0.2).all()


def real_masks(columns: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    drawn = np.frombuffer(secrets.token_bytes(8 * SLOTS), np.uint64)
    mask = (drawn * 2.0**-63 - 1.0) * residuals.MASK
    return mask + 0j, mask[: columns * length].reshape(columns, length).sum(axis=1)


def mask_on_the_sum(columns: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    mask = np.zeros(SLOTS, dtype=complex)
    mask[0] = 2.0**20
    return mask, np.full(columns, 2.0**20)


def test_one_mask_on_the_sum_shows_the_column(key, public, monkeypatch):
    monkeypatch.setattr(residuals, "_complex_masks", mask_on_the_sum)
    monkeypatch.setattr(residuals, "_masked", masked_in_the_clear)

    assert slots_read(key, public, 20)[0] > 0.9


@pytest.fixture
def smaller_scale(monkeypatch):
    """Primes, scale and masks at which a float64 has digits for the noise of a ciphertext beside a mask."""
    for name, value in (("PRIMES", (60, 40, 40, 60)), ("SCALE", 2.0**40), ("MASK", 2.0**20)):
        monkeypatch.setattr(residuals, name, value)
    caches = (residuals._context, residuals._encoder)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


@pytest.mark.proof
@pytest.mark.usefixtures("smaller_scale")
def test_real_masks_in_the_clear_show_the_column_in_the_imaginary_parts(monkeypatch):
    key = ResidualKey.new()
    public = key.public()
    assert (slots_read(key, public, 300) < 0.2).all()

    monkeypatch.setattr(residuals, "_complex_masks", real_masks)
    monkeypatch.setattr(residuals, "_masked", masked_in_the_clear)
    # With masks and scale as shipped, the encoding of a mask loses the digits in which the column stands.
    assert slots_read(key, public, 300)[1] > 0.9


def test_masks_are_drawn_anew_for_each_question(key, public):
    sent, x = key.encrypt(uniform(400)), normal(400, 12)

    first, second = multiply(sent, x, public), multiply(sent, x, public)

    assert not np.isin(first.masks, second.masks).any()
    assert len(first.ciphertexts) == ciphertexts_back(400, 12)


def test_what_is_no_ciphertext_of_the_scale_is_refused(key, public, monkeypatch):
    sent, x = key.encrypt(uniform(400)), normal(400, 2)
    assert isinstance(multiply(sent, x, b"none"), Refusal)
    assert isinstance(multiply([b"none"], x, public), Refusal)
    assert isinstance(multiply(sent * 2, x, public), Refusal)
    assert isinstance(multiply(multiply(sent, x, public).ciphertexts, x, public), Refusal), "another level"
    monkeypatch.setattr(residuals, "SCALE", 2.0**20)
    smaller = key.encrypt(uniform(400))
    monkeypatch.undo()
    assert isinstance(multiply(smaller, x, public), Refusal), "another scale"


def test_a_key_is_not_in_its_text(key):
    assert key.secret.hex() not in repr(key)
    assert repr(key.secret) not in repr(key)


def test_masks_have_all_digits_in_each_slot_and_in_their_sum():
    masks, sums = residuals._complex_masks(10, 400)
    for quantum in (2.0**-8, 2.0**-13, 2.0**-20):
        rests = np.concatenate([masks.real, masks.imag]) / quantum % 1.0
        assert len(np.unique(rests.round(6))) > 16
        assert len(np.unique((sums / quantum % 1.0).round(6))) > 2
