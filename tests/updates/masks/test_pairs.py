"""Signed keys of exactly the approved sites, masks that cancel over all of them alone, and no key used twice."""

import hmac
import itertools
import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from flfed.refusals import Refusal
from flfed.signatures import canonical
from flfed.updates.masks import pairs, verify
from flfed.updates.masks.pairs import (
    RUN_KEY,
    Exchange,
    RunKey,
    SignedKey,
    check_cohort,
    exchange_key,
    key_stream,
    keys_hash,
    mask,
    new_key,
    pair_secrets,
    seal,
    unseal,
)
from tests.updates.masks.cohort import (
    EXCHANGE,
    MOST_ROWS,
    OTHERS,
    RUN,
    SITES,
    Play,
    added,
    digest,
    gate,
    pins,
    run_key,
    secrets_of,
    signed_key,
    without,
)

KEYS = [signed_key(site) for site in SITES]


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, "sha256").digest()


def code_of(outcome: object) -> str:
    return outcome.code if isinstance(outcome, Refusal) else ""


def test_a_pair_secret_is_hkdf_of_the_exchange_of_rfc_7748():
    # RFC 7748, section 6.1. HKDF (RFC 5869) with an empty salt is HMAC of it, and one block is HMAC of info and 1.
    bob = RunKey.of_private(bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"))
    alice = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
    shared = bytes.fromhex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")
    assert bob.public.hex() == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    keys = [signed_key("alice", public_key=alice), signed_key("bob", public_key=bob.public.hex())]
    info = canonical(["flfed pair secret", keys_hash(keys, 7), [["alice", alice], ["bob", bob.public.hex()]]])
    expected = hmac_sha256(hmac_sha256(bytes(32), shared), info + b"\x01")
    assert pair_secrets("bob", bob, keys, 7) == {"alice": expected}
    info = b'["flfed mask",["train",3,"%s","%s"],[1,2]]' % (digest("request").encode(), digest("model").encode())
    assert exchange_key(expected, "mask", EXCHANGE, 1, 2) == hmac_sha256(expected, info + b"\x01")


def test_both_ends_have_the_same_secret_and_nobody_else_has_it():
    sites = ("a", "b", "c", "d")
    made = secrets_of(sites)
    assert all(made[one][other] == made[other][one] for one, other in itertools.permutations(sites, 2))
    assert len({secret for of_site in made.values() for secret in of_site.values()}) == 6
    assert all(list(own) == [peer for peer in sites if peer != site] for site, own in made.items())
    fresh = RunKey.new()
    assert fresh != RunKey.new() and repr(fresh.private) not in repr(fresh)


# Points of small order on the curve and its twist, and one that is 0 modulo 2^255 - 19 (RFC 7748, section 7).
@pytest.mark.parametrize("public", [
    "00" * 32, "01" + "00" * 31, "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157", "ec" + "ff" * 30 + "7f",
    "ed" + "ff" * 30 + "7f", "ee" + "ff" * 30 + "7f",
])  # fmt: skip
def test_a_key_with_which_every_site_has_one_secret_is_refused(public: str):
    keys = [signed_key("hill"), signed_key("lake", public_key=public), signed_key("shore")]
    refusal = pair_secrets("hill", run_key("hill"), keys, MOST_ROWS)
    assert isinstance(refusal, Refusal) and (refusal.code, refusal.facts) == ("key-unfit", {"site": "lake"})


def test_a_keys_message_with_another_key_of_the_reader_is_refused():
    for keys in ([signed_key("hill", public_key="09" * 32), *KEYS[1:]], KEYS[1:]):
        assert code_of(pair_secrets("hill", run_key("hill"), keys, MOST_ROWS)) == "cohort-other"


def test_a_signed_key_is_read_as_it_was_signed():
    key = signed_key("lake", changed=True)
    assert SignedKey.read(key.pack(), **RUN) == key
    # As long as the longest name may be.
    assert isinstance(SignedKey.read(signed_key("a" * 100).pack(), **RUN), SignedKey)


@pytest.mark.parametrize("about", [{"study_sha256": "6" * 64}, {"run": "run-2"}, {"repeat": 1}])
def test_a_key_for_another_study_run_or_repeat_is_refused(about: dict[str, object]):
    assert code_of(SignedKey.read(signed_key("lake", **about).pack(), **RUN)) == "run-key-unsigned"


def test_a_key_that_its_gate_did_not_sign_is_refused():
    key = signed_key("lake")
    other = replace(signed_key("hill"), site="lake")
    for lie in (
        replace(key, site="hill"), replace(key, public_key="09" * 32), replace(key, changed=True), other,
        replace(key, signing_key=signed_key("hill").signing_key), replace(key, signature=signed_key("hill").signature),
    ):  # fmt: skip
        assert code_of(SignedKey.read(lie.pack(), **RUN)) == "run-key-unsigned"
    # The gate signed the same facts for another purpose, or for none.
    facts = replace(key, signature="").signed_facts()
    for other_facts in (facts | {"what": "another purpose"}, {name: facts[name] for name in facts.keys() - {"what"}}):
        lie = replace(key, signature=gate("lake").sign(canonical(other_facts)).hex())
        assert code_of(SignedKey.read(lie.pack(), **RUN)) == "run-key-unsigned"


def test_each_byte_of_a_signed_key_counts():
    packed = signed_key("lake").pack()
    for place in range(len(packed)):
        spoilt = bytes([*packed[:place], packed[place] ^ 1, *packed[place + 1 :]])
        assert code_of(SignedKey.read(spoilt, **RUN)) in ("run-key-unreadable", "run-key-unsigned")


def test_a_signed_key_has_one_form_only():
    packed = signed_key("lake").pack()
    values = json.loads(packed)
    site, public, signing, changed, cells, width, rows, signature = values
    lies = [
        b"", b"[]", b"{}", b"null", b"7", b"\xff", b"[" * 300, canonical([*values, 1]), canonical(values[:7]),
        canonical([site.upper(), *values[1:]]), canonical([site, public.upper(), *values[2:]]),
        canonical([*values[:7], signature.upper()]), canonical([*values[:7], f"{signature[:64]} {signature[64:]}"]),
        canonical([*values[:3], 0, *values[4:]]), canonical([*values[:4], None, *values[5:]]),
        *(canonical([*values[:5], other, rows, signature]) for other in (1, 0.0, 1.5, -0.5, True, "1.0", None)),
        *(canonical([*values[:6], other, signature]) for other in (0, -1, 1.0, True, "1", None)),
        canonical([values, *values[1:]]), canonical([7, public, signing, changed, cells, width, rows, signature]),
        json.dumps(values).encode(), packed + b" ", packed + b" " * 2000,
        canonical(dict.fromkeys("abcdef", 0)), b'"abcdef"',
    ]  # fmt: skip
    assert {code_of(SignedKey.read(lie, **RUN)) for lie in lies} == {"run-key-unreadable"}


def test_the_approved_sites_are_a_cohort_in_any_order():
    assert check_cohort("lake", KEYS[::-1], pins(), changed_allowed=False) is None
    five = ("a", "b", "c", "d", "e")
    assert check_cohort("c", [signed_key(site) for site in five], pins(five), changed_allowed=False) is None


FOUR = (*SITES, "vale")


@pytest.mark.parametrize(("keys", "pinned", "code"), [
    (KEYS, pins(FOUR), "cohort-incomplete"),  # a site is left out
    ([*KEYS, signed_key("vale")], pins(), "cohort-not-pinned"),  # one is invented
    ([*KEYS[:2], signed_key("vale")], pins(), "cohort-not-pinned"),  # one in place of another
    (KEYS, pins() | {"shore": pins(FOUR)["vale"]}, "run-key-other-gate"),  # another gate under an approved name
    ([*KEYS[:2], replace(signed_key("shore")).sign(gate("liar"))], pins(), "run-key-other-gate"),
    ([*KEYS, signed_key("shore", public_key="09" * 32)], pins(), "cohort-unfit"),  # one twice
    (KEYS[1:], pins(), "cohort-without-site"), (KEYS, pins(FOUR[1:]), "cohort-without-site"),
    (KEYS[:2], pins(SITES[:2]), "cohort-small"), ([], pins(), "cohort-without-site"),
    ([*KEYS[:2], signed_key("shore", changed=True)], pins(), "cohort-changed"),
    ([signed_key("hill", changed=True), *KEYS[1:]], pins(), "cohort-changed"),
])  # fmt: skip
def test_other_sites_than_the_approved_ones_are_refused(keys: list[SignedKey], pinned: dict[str, str], code: str):
    assert code_of(check_cohort("hill", keys, pinned, changed_allowed=False)) == code
    # An approval of changed sites allows that alone.
    allowed = check_cohort("hill", keys, pinned, changed_allowed=True)
    assert code_of(allowed) == ("" if code == "cohort-changed" else code)


def test_the_hash_of_a_keys_message_covers_all_of_it():
    key = signed_key("lake")
    messages = [
        (KEYS, MOST_ROWS), (KEYS, MOST_ROWS + 1), (KEYS[:2], MOST_ROWS), ([*KEYS, signed_key("vale")], MOST_ROWS),
        *(([KEYS[0], other, KEYS[2]], MOST_ROWS) for other in (
            signed_key("lake", changed=True), signed_key("lake", public_key="09" * 32), signed_key("lake", repeat=1),
            signed_key("lake", run="run-2"), signed_key("lake", study_sha256="6" * 64), replace(key, site="lakes"),
            replace(key, signature="0" * 128), key.sign(gate("liar")),
        )),
    ]  # fmt: skip
    assert len({keys_hash(keys, rows) for keys, rows in messages}) == len(messages)
    assert keys_hash(KEYS[::-1], MOST_ROWS) == keys_hash(KEYS, MOST_ROWS)


def numbers_of(sites: tuple[str, ...]) -> dict[str, verify.Vector]:
    rng = np.random.default_rng(len(sites))
    return {
        site: (rng.integers(0, 2**32, 40, np.uint32), rng.integers(0, 2**56, 3).astype(np.uint64)) for site in sites
    }


@pytest.mark.parametrize("count", [3, 4, 10])
def test_masks_cancel_over_the_whole_cohort_and_over_no_part_of_it(count: int):
    sites = tuple(f"site-{number}" for number in range(count))
    play = Play(numbers_of(sites))
    tagged, masked = play.tagged(), play.masked()
    updates, sums = added(list(tagged.values()))
    total = added(list(masked.values()))
    np.testing.assert_array_equal(total[0], updates)
    np.testing.assert_array_equal(total[1], sums)
    assert total[0][0] == total[1][0] == count
    for size in range(1, count):
        part = sites[:size]
        got, bare = added([masked[site] for site in part]), added([tagged[site] for site in part])
        assert not (got[0] == bare[0]).any() and not (got[1] == bare[1]).any()


def test_the_mask_is_the_stream_of_the_pair_with_sums_first():
    # McGrew and Viega 2004, test cases 13 and 14: AES-256 under the key 0 of the blocks 0 and 1.
    assert key_stream(bytes(32)).update(bytes(32)).hex() == (
        "dc95c078a2408989ad48a21492842087530f8afbc74536b9a963b4f1c4cb738b"
    )
    secret = bytes(range(32))
    stream = key_stream(exchange_key(secret, "mask", EXCHANGE, 3, 2)).update(bytes(28))
    updates, sums = mask("a", {"b": secret}, EXCHANGE, 3, 2)
    assert (updates.dtype, sums.dtype) == (np.uint32, np.uint64)
    assert sums.astype("<u8").tobytes() + updates.astype("<u4").tobytes() == stream
    subtracted, subtracted_sums = mask("b", {"a": secret}, EXCHANGE, 3, 2)
    assert not (updates + subtracted).any() and not (sums + subtracted_sums).any()
    assert [part.size for part in mask("a", {"b": secret}, EXCHANGE, 0, 0)] == [0, 0]


def test_a_masked_vector_of_zeros_looks_random():
    updates, sums = mask("hill", secrets_of()["hill"], EXCHANGE, 100_000, 50_000)
    for part in (updates, sums):
        counts = np.bincount(part.view(np.uint8), minlength=256)
        # Chi-square with 255 degrees of freedom: 400,000 bytes, beyond 380 with a probability below 1e-6.
        assert ((counts - part.nbytes / 256) ** 2 / (part.nbytes / 256)).sum() < 380
    assert np.unique(updates).size > 99_990 and np.unique(sums).size == 50_000


def total_of(answers: dict[str, Exchange], most_rows: dict[str, int] | None = None) -> np.ndarray:
    """Return the total of sites that each were sent an exchange, and a number of most rows, of their own."""
    vectors = []
    for site, exchange in answers.items():
        secrets = secrets_of(SITES, (most_rows or {}).get(site, MOST_ROWS))[site]
        vectors.append(mask(site, secrets, exchange, 50, 0))
    return added(vectors)[0]


@pytest.mark.parametrize("element", OTHERS)
def test_nothing_is_left_of_a_sum_where_one_site_was_asked_otherwise(element: str, monkeypatch: pytest.MonkeyPatch):
    asked = dict.fromkeys(SITES, EXCHANGE) | {"lake": OTHERS[element]}
    assert not total_of(dict.fromkeys(SITES, EXCHANGE)).any()
    assert total_of(asked).all()
    monkeypatch.setattr(Exchange, "to_list", without(element))
    assert not total_of(asked).any()  # planted: this mutant is found by the line above


def test_nothing_is_left_of_a_sum_where_one_site_was_told_other_most_rows(monkeypatch: pytest.MonkeyPatch):
    asked, rows = dict.fromkeys(SITES, EXCHANGE), {"lake": 1}
    assert total_of(asked, rows).all()
    monkeypatch.setattr(pairs, "keys_hash", lambda keys, most_rows: "")
    assert not total_of(asked, rows).any()  # planted


def test_nothing_is_left_of_a_sum_where_sites_answer_with_vectors_of_two_sizes():
    secrets = secrets_of()
    long, short = mask("hill", secrets["hill"], EXCHANGE, 50, 2), mask("lake", secrets["lake"], EXCHANGE, 50, 1)
    other = mask("shore", secrets["shore"], EXCHANGE, 50, 2)
    assert (long[0] + short[0] + other[0]).all()


RUN_OF_EXCHANGES = [
    # Requests for Table 1, rows by cell and a statistic are all empty; one round asks two kinds; a step comes once more
    # with other sums before it, and two gates made different models of the same.
    Exchange("summarise", 1, digest("")), Exchange("rows", 1, digest("")), Exchange("statistic", 1, digest("")),
    Exchange("summarise", 2, digest("")), Exchange("train", 3, digest("a"), digest("model")),
    Exchange("train", 4, digest("a"), digest("model")), Exchange("train", 3, digest("b"), digest("model")),
    Exchange("train", 3, digest("a"), digest("other")), Exchange("evaluate", 3, digest("a"), digest("model")),
    Exchange("train", 34, digest("a"), digest("model")),
]  # fmt: skip


def stream_keys(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return each key of a stream that sites used in the exchanges of two runs, once for the pair or for all."""
    used: list[bytes] = []

    def recorded(key: bytes) -> object:
        used.append(key)
        return key_stream(key)

    with monkeypatch.context() as patch:
        patch.setattr(pairs, "key_stream", recorded)
        patch.setattr(verify, "key_stream", recorded)
        for most_rows, exchange in itertools.product((MOST_ROWS, MOST_ROWS + 1), RUN_OF_EXCHANGES):
            secrets = secrets_of(SITES, most_rows)
            for site, updates in itertools.product(SITES, (4, 0)):
                # Of each pair the first site: the other one has the same key.
                later = {peer: secret for peer, secret in secrets[site].items() if peer > site}
                mask(site, later, exchange, updates, 5)
        for key, exchange, updates in itertools.product((bytes(32), b"k" * 32), RUN_OF_EXCHANGES, (4, 0)):
            verify.compute_tag(key, exchange, SITES, np.zeros(updates, np.uint32), np.zeros(5, np.uint64))
    return used


MUTANTS: dict[str, tuple[object, str, object]] = {
    "nothing": (Exchange, "__doc__", ""),
    **{element: (Exchange, "to_list", without(element)) for element in OTHERS},
    "keys message": (pairs, "keys_hash", lambda keys, most_rows: ""),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_no_key_of_a_stream_is_used_twice(mutant: str, monkeypatch: pytest.MonkeyPatch):
    target, name, value = MUTANTS[mutant]
    monkeypatch.setattr(target, name, value)
    used = stream_keys(monkeypatch)
    assert len(used) == 2 * 2 * len(RUN_OF_EXCHANGES) * (3 + 1)
    assert (len(set(used)) == len(used)) == (mutant == "nothing")


def test_two_answers_under_one_stream_would_give_their_difference(monkeypatch: pytest.MonkeyPatch):
    """Why the kind is needed: planted, a mutant without it gives away what each site answered."""
    first, second = Exchange("rows", 1, digest("")), Exchange("statistic", 1, digest(""))
    secrets, numbers = secrets_of()["lake"], np.arange(40, dtype=np.uint32)

    def difference() -> np.ndarray:
        one, other = (mask("lake", secrets, exchange, 40, 0)[0] for exchange in (first, second))
        return (one + numbers) - other

    assert not (difference() == numbers).any()
    monkeypatch.setattr(Exchange, "to_list", without("kind"))
    np.testing.assert_array_equal(difference(), numbers)


def test_a_sealed_key_is_opened_by_its_receiver():
    secrets, key = secrets_of(), new_key()
    assert len(key) == 32 and key != new_key()
    sealed = seal(RUN_KEY, key, secrets["hill"], sender="hill")
    assert list(sealed) == ["lake", "shore"] and {len(one) for one in sealed.values()} == {60}
    for site, one in sealed.items():
        assert unseal(RUN_KEY, one, secrets[site]["hill"], sender="hill", receiver=site) == key
        assert key not in one
    again = seal(RUN_KEY, key, secrets["hill"], sender="hill")
    assert not {one[:12] for one in sealed.values()} & {one[:12] for one in again.values()}  # no nonce twice


def test_a_key_that_was_sealed_otherwise_is_refused():
    secrets, key = secrets_of(), new_key()
    one, secret = seal(RUN_KEY, key, secrets["hill"], sender="hill")["lake"], secrets["lake"]["hill"]
    right: dict[str, str] = {"sender": "hill", "receiver": "lake"}
    lies: list[Callable[[], bytes | Refusal]] = [
        lambda: unseal("ckks key", one, secret, **right),
        lambda: unseal(RUN_KEY, one, secrets["lake"]["shore"], **right),
        lambda: unseal(RUN_KEY, one, secrets_of(most_rows=1)["lake"]["hill"], **right),
        lambda: unseal(RUN_KEY, one, secret, sender="shore", receiver="lake"),
        lambda: unseal(RUN_KEY, one, secret, sender="hill", receiver="shore"),
        # Sent back to its sender.
        lambda: unseal(RUN_KEY, one, secrets["hill"]["lake"], sender="lake", receiver="hill"),
        lambda: unseal(RUN_KEY, b"", secret, **right),
        lambda: unseal(RUN_KEY, one[:-1], secret, **right),
        lambda: unseal(RUN_KEY, one + b"x", secret, **right),
    ]  # fmt: skip
    for place in range(len(one)):
        spoilt = bytes([*one[:place], one[place] ^ 1, *one[place + 1 :]])
        lies.append(lambda spoilt=spoilt: unseal(RUN_KEY, spoilt, secret, **right))
    for lie in lies:
        refusal = lie()
        assert isinstance(refusal, Refusal) and refusal.code == "key-unsealed"


@pytest.mark.parametrize(
    "wrong", [("", 0, "a" * 64), ("train", -1, "a" * 64), ("train", 0, ""), ("train", 0, "A" * 64)]
)
def test_what_names_no_exchange_is_wrong_use(wrong: tuple[str, int, str]):
    with pytest.raises(ValueError, match="an exchange has"):
        Exchange(*wrong)
    with pytest.raises(ValueError, match="an exchange has"):
        Exchange("train", 0, "a" * 64, "short")


def test_a_gate_signs_with_its_own_key_whatever_stood_there():
    key = Ed25519PrivateKey.generate()
    signed = replace(signed_key("lake"), signing_key="0" * 64).sign(key)
    assert signed.signing_key == key.public_key().public_bytes_raw().hex()
    assert SignedKey.read(signed.pack(), **RUN) == signed
