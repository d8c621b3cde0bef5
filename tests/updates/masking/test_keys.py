"""Keys of a pair: the published vectors, the same at both ends, and others for any other run, name or question."""

import hmac
from itertools import permutations

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from flfed.refusals import Refusal
from flfed.updates.masking.keys import (
    Chain,
    RunKey,
    confirmation,
    joined,
    mask_seed,
    pair_secrets,
    seal,
    stream,
    unseal,
)

BINDING, OTHER = b"b" * 32, b"c" * 32
LINK = bytes(range(32))


def key(number: int) -> RunKey:
    return RunKey.of_private(bytes([number]) * 32)


def secrets_of(sites: str, context: bytes = b"run 1") -> dict[str, dict[str, bytes]]:
    """Return each site's pair secrets; a site is a letter."""
    own = {site: key(ord(site)) for site in sites}
    publics = {site: one.public for site, one in own.items()}
    return {site: pair_secrets(site, one, publics, context) for site, one in own.items()}


def hmac_sha256(secret: bytes, message: bytes) -> bytes:
    return hmac.new(secret, message, "sha256").digest()


def test_the_key_exchange_is_that_of_rfc_7748():
    # RFC 7748, section 6.1; the pair secret is HKDF of the shared one there, whose first half is HMAC with salt 0.
    bob = RunKey.of_private(bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"))
    alice = bytes.fromhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
    shared = bytes.fromhex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")
    assert bob.public.hex() == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    info = joined(b"flfed pair", b"run", b"alice", alice, b"bob", bob.public)
    expected = hmac_sha256(hmac_sha256(bytes(32), shared), info + b"\x01")
    assert pair_secrets("bob", bob, {"alice": alice}, b"run")["alice"] == expected


def test_hkdf_is_that_of_rfc_5869():
    # RFC 5869, test case 1: the library's, whose second half makes links and keys.
    okm = HKDF(SHA256(), 42, bytes(range(13)), bytes(range(0xF0, 0xFA))).derive(b"\x0b" * 22)
    assert okm.hex() == ("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865")
    # 32 bytes are one block of the second half: HMAC(key, info ‖ 1).
    assert mask_seed(LINK, BINDING) == hmac_sha256(LINK, joined(b"flfed mask", BINDING) + b"\x01")
    chain = Chain.start({"b": LINK}).moved(1)
    assert chain.at(1)["b"] == hmac_sha256(LINK, b"flfed link\x01")


def test_sealing_is_that_of_rfc_8439():
    # RFC 8439, section 2.8.2.
    text = (
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
        b"sunscreen would be it."
    )
    nonce, about = bytes.fromhex("070000004041424344454647"), bytes.fromhex("50515253c0c1c2c3c4c5c6c7")
    sealed = ChaCha20Poly1305(bytes(range(0x80, 0xA0))).encrypt(nonce, text, about)
    assert sealed[:16].hex() == "d31a8d34648e60db7b86afbc53ef7ec2" and sealed[-16:].hex() == (
        "1ae10b594f09e26a7e902ecbd0600691"
    )


def test_the_stream_is_that_of_the_specification_of_gcm():
    # McGrew and Viega 2004, test cases 13 and 14: AES-256 under the key 0 of the blocks 0, 1 and 2.
    zero, one, two = (
        "dc95c078a2408989ad48a21492842087", "530f8afbc74536b9a963b4f1c4cb738b", "cea7403d4d606b6e074ec5d3baf39d18",
    )  # fmt: skip
    updates, sums = stream(bytes(32), 8, 2)
    assert sums.astype("<u8").tobytes().hex() == zero and updates.astype("<u4").tobytes().hex() == one + two
    assert (updates.dtype, sums.dtype) == (np.uint32, np.uint64)
    np.testing.assert_array_equal(stream(bytes(32), 12)[0][4:], updates)
    assert stream(bytes(32), 0)[0].size == stream(bytes(32), 3)[1].size == 0


def test_the_whole_seed_is_the_key_of_the_stream():
    plain = stream(LINK, 1000)[0]
    for place in range(32):
        other = bytes([*LINK[:place], LINK[place] ^ 1, *LINK[place + 1 :]])
        assert np.mean(stream(other, 1000)[0] == plain) < 0.01


def test_both_ends_have_the_same_secrets_and_nobody_else():
    found = secrets_of("abcd")
    assert all(found[one][other] == found[other][one] for one, other in permutations("abcd", 2))
    assert len({secret for of_site in found.values() for secret in of_site.values()}) == 6 + 4  # pairs, and oneself
    assert all(list(of_site) == list("abcd") for of_site in found.values())
    assert not {*found["a"].values()} & {*secrets_of("abcd", b"run 2")["a"].values()}


def test_a_key_under_another_name_gives_another_secret():
    publics = {"a": key(1).public, "b": key(2).public}
    found = pair_secrets("a", key(1), publics, b"run")
    renamed = pair_secrets("a", key(1), {"a": key(1).public, "c": key(2).public}, b"run")
    assert found["b"] != renamed["c"]
    swapped = pair_secrets("b", key(1), {"b": key(1).public, "a": key(2).public}, b"run")
    assert found["b"] != swapped["a"]
    # What a server says is the site's own key is not used: it could read the site's own share.
    lied = pair_secrets("a", key(1), publics | {"a": key(3).public}, b"run")
    assert lied == found and lied["a"] != pair_secrets("a", key(3), {}, b"run")["a"]


@pytest.mark.parametrize("public", [bytes(32), b"\x01" + bytes(31), b"short", b"x" * 33])
def test_a_key_with_which_every_site_has_one_secret_is_refused(public: bytes):
    refusal = pair_secrets("a", key(1), {"a": key(1).public, "b": public}, b"run")
    assert isinstance(refusal, Refusal) and (refusal.code, refusal.facts) == ("key-unfit", {"site": "b"})


def test_a_new_key_is_random_and_its_private_part_is_not_shown():
    one, other = RunKey.new(), RunKey.new()
    assert one != other and len(one.private) == len(one.public) == 32
    assert RunKey.of_private(one.private) == one
    chain = Chain.start({"b": LINK})
    assert repr(one.private) not in repr(one) and repr(LINK) not in repr(chain)


def test_a_chain_is_at_the_same_link_however_it_came_there():
    found = secrets_of("abc")
    a, b = Chain.start(found["a"]), Chain.start(found["b"])
    for step in range(1, 6):
        a = a.moved(step)
        assert a.step == step and len(a.links) == 2
    b = b.moved(5)
    assert a.at(5)["b"] == b.at(5)["a"] and a.at(4)["b"] == b.at(4)["a"]
    assert a.at(5)["b"] != a.at(4)["b"] and a.moved(3) == a == a.moved(5)


def test_links_before_the_last_two_are_deleted():
    chain = Chain.start({"b": LINK, "c": BINDING})
    assert chain.at(0) == {"b": LINK, "c": BINDING}
    later = chain.moved(1)
    assert later.at(0) == chain.at(0)
    latest = later.moved(2)
    assert latest.at(0) == Refusal("links-deleted") and latest.at(1) == later.at(1)
    kept = b"".join(array.tobytes() for array in latest.to_arrays().values())
    assert LINK not in kept and latest.at(2)["b"] in kept  # planted: a chain that keeps all would have it
    assert LINK in b"".join(array.tobytes() for array in later.to_arrays().values())
    with pytest.raises(ValueError, match="before 3"):
        latest.at(3)


def test_a_chain_is_read_from_its_arrays():
    for step in (0, 1, 7, 300):
        chain = Chain.start({"bern-2": LINK, "aare": BINDING}).moved(step)
        arrays = chain.to_arrays()
        assert {array.dtype for array in arrays.values()} == {np.dtype(np.uint8)}
        assert arrays["links"].shape == (min(step + 1, 2), 2, 32)
        back = Chain.from_arrays(arrays)
        assert back == chain and back.moved(step + 1) == chain.moved(step + 1)


def test_a_sealed_share_is_read_by_its_receiver_for_its_question_alone():
    share = b"s" * 32
    sealed = seal(LINK, BINDING, share, sender="a", receiver="b")
    assert len(sealed) == 48 and unseal(LINK, BINDING, sealed, sender="a", receiver="b") == share
    for link, binding, sender, receiver in (
        (OTHER, BINDING, "a", "b"), (LINK, OTHER, "a", "b"), (LINK, BINDING, "b", "a"), (LINK, BINDING, "a", "c"),
        (LINK, BINDING, "c", "b"),
    ):  # fmt: skip
        found = unseal(link, binding, sealed, sender=sender, receiver=receiver)
        assert isinstance(found, Refusal) and found.code == "share-unreadable" and found.facts == {"site": sender}
    for wrong in (b"", sealed[:-1], sealed[:-1] + bytes([sealed[-1] ^ 1])):
        assert isinstance(unseal(LINK, BINDING, wrong, sender="a", receiver="b"), Refusal)


def test_shares_sealed_both_ways_do_not_give_their_difference():
    one, other = b"s" * 32, b"t" * 32
    there = seal(LINK, BINDING, one, sender="a", receiver="b")[:32]
    back = seal(LINK, BINDING, other, sender="b", receiver="a")[:32]
    difference = bytes(x ^ y for x, y in zip(one, other, strict=True))
    assert bytes(x ^ y for x, y in zip(there, back, strict=True)) != difference
    # Planted: one nonce for both ways.
    cipher = ChaCha20Poly1305(LINK)
    same = [cipher.encrypt(bytes(12), part, b"")[:32] for part in (one, other)]
    assert bytes(x ^ y for x, y in zip(*same, strict=True)) == difference


def test_a_confirmation_is_of_one_list_binding_and_way():
    listed = frozenset("abc")
    right = confirmation(LINK, BINDING, listed, sender="a", receiver="b")
    assert len(right) == 32 and right == confirmation(LINK, BINDING, frozenset("cba"), sender="a", receiver="b")
    others = [
        confirmation(OTHER, BINDING, listed, sender="a", receiver="b"),
        confirmation(LINK, OTHER, listed, sender="a", receiver="b"),
        confirmation(LINK, BINDING, frozenset("abcd"), sender="a", receiver="b"),
        confirmation(LINK, BINDING, frozenset("ab"), sender="a", receiver="b"),
        confirmation(LINK, BINDING, listed, sender="b", receiver="a"),
        confirmation(LINK, BINDING, listed, sender="a", receiver="c"),
        confirmation(LINK, BINDING, frozenset({"ab", "c"}), sender="a", receiver="b"),
    ]
    assert right not in others and len(set(others)) == len(others)


def test_no_key_serves_two_purposes():
    made = {mask_seed(LINK, BINDING), Chain.start({"b": LINK}).moved(1).at(1)["b"], LINK,
            mask_seed(LINK, OTHER), mask_seed(OTHER, BINDING)}  # fmt: skip
    assert len(made) == 5
    with pytest.raises(ValueError, match="32 bytes"):
        mask_seed(LINK, b"short")


def test_parts_are_joined_so_that_no_others_give_the_same():
    assert joined(b"ab", b"c") != joined(b"a", b"bc") != joined(b"abc")
    assert b"".join((b"ab", b"c")) == b"".join((b"a", b"bc"))  # the planted fault
