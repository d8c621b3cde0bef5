"""A site keeps the coordinator's receipts of its own ledger, and nobody else's."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from flfed.deployment.site_state.ledger_loss import (
    RefusedReceipt,
    coordinator_key,
    keep_receipt,
    loss,
    read_receipts,
)
from flfed.errors import UsageError
from flfed.paths import SiteFolder
from flfed.records.ledger import LedgerError, Receipt, ledger_of
from flfed.signatures import sign_as_coordinator, signing_public

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))


@pytest.fixture
def folder(home: Path) -> SiteFolder:
    """A site that joined the coordinator whose key is KEY, and answered seven messages."""
    folder = SiteFolder("cleveland")
    folder.make()
    trust(folder, KEY)
    for number in range(7):
        ledger_of(folder).append(kind="train", study="heart-disease", run="r1", round=number, bytes=100)
    return folder


def trust(folder: SiteFolder, key: Ed25519PrivateKey) -> None:
    folder.terms.write_text(f'site = "{folder.site}"\nsigning-key = "{signing_public(key)}"\n')


def receipt_of(folder: SiteFolder, n: int, run: str = "r1") -> Receipt:
    return Receipt(site=folder.site, run=run, n=n, head=ledger_of(folder).hash_at(n))


def keep(folder: SiteFolder, receipt: Receipt, key: Ed25519PrivateKey = KEY) -> None:
    keep_receipt(folder, receipt, sign_as_coordinator(receipt.facts(), key))


def test_what_is_signed_is_the_canonical_json_of_site_run_lines_and_head():
    # The text by hand, and RFC 8032's key pair of bytes 00 01 … 1f: the signature is over just this.
    receipt = Receipt(site="a", run="r1", n=2, head="0f" * 32)
    text = ('{"head":"' + "0f" * 32 + '","n":2,"run":"r1","site":"a"}').encode()
    assert sign_as_coordinator(receipt.facts(), KEY) == KEY.sign(text).hex()
    assert len(sign_as_coordinator(receipt.facts(), KEY)) == 128


def test_a_receipt_is_kept_once_and_read_again(folder: SiteFolder):
    for n, run in ((0, "r0"), (3, "r1"), (3, "r1"), (7, "r2")):
        keep(folder, receipt_of(folder, n, run))
    found = read_receipts(folder)
    assert [(r.n, r.run, r.site) for r in found.signed] == [
        (0, "r0", "cleveland"), (3, "r1", "cleveland"), (7, "r2", "cleveland"),
    ]  # fmt: skip
    assert (found.earlier, found.problems) == ([], [])
    assert folder.receipts.stat().st_mode & 0o777 == 0o600
    assert ledger_of(folder).problems(found.all()) == []


def test_a_receipt_without_the_coordinators_signature_is_refused(folder: SiteFolder):
    good = receipt_of(folder, 3)
    signature = sign_as_coordinator(good.facts(), KEY)
    for receipt, signed in (
        (good, sign_as_coordinator(good.facts(), OTHER)),
        (good, "00" * 64),
        (good, "no hex"),
        (replace(good, run="r2"), signature),
        (replace(good, n=2, head=ledger_of(folder).hash_at(2)), signature),
        (replace(good, site="hungarian"), sign_as_coordinator(replace(good, site="hungarian").facts(), KEY)),
    ):
        with pytest.raises(RefusedReceipt, match="has no signature of the coordinator"):
            keep_receipt(folder, receipt, signed)
    assert not folder.receipts.exists()
    keep_receipt(folder, good, signature)
    assert len(read_receipts(folder).signed) == 1


@pytest.mark.parametrize(("n", "head"), [(8, "ab" * 32), (3, "ab" * 32), (3, "0" * 64)])
def test_a_signed_receipt_of_a_line_that_the_ledger_lacks_is_kept_as_evidence(folder: SiteFolder, n: int, head: str):
    with pytest.raises(RefusedReceipt, match=f"a receipt has line {n}, and the ledger has no such line"):
        keep(folder, Receipt(site="cleveland", run="r1", n=n, head=head))
    assert [receipt.head for receipt in read_receipts(folder).signed] == [head]
    assert loss(folder, ledger_of(folder)) == f"a receipt has line {n}, and the ledger has no such line"


def test_a_receipt_of_no_line_with_the_hash_of_one_is_not_kept(folder: SiteFolder):
    with pytest.raises(RefusedReceipt, match="another ledger"):
        keep(folder, Receipt(site="cleveland", run="r1", n=0, head="ab" * 32))
    assert len(read_receipts(folder).signed) == 0


def test_receipts_that_were_changed_removed_or_forged_are_found(folder: SiteFolder):
    for n in (2, 4, 6):
        keep(folder, receipt_of(folder, n))
    raws = folder.receipts.read_bytes().splitlines(keepends=True)
    folder.receipts.write_bytes(raws[0] + raws[2])
    found = read_receipts(folder)
    assert ([r.n for r in found.signed], found.problems) == ([2, 6], ["receipts: line 2 is missing"])
    folder.receipts.write_bytes(raws[0] + raws[1].replace(b'"line":4', b'"line":3') + raws[2])
    assert [r.n for r in read_receipts(folder).signed] == [2, 6]
    assert read_receipts(folder).problems[0].startswith("receipts: line 2 was changed")
    # Somebody who can compute hashes writes a line of the file anew: the signature does not fit.
    folder.receipts.unlink()
    from flfed.records.ledger import Ledger

    facts = json.loads(raws[1])
    forged = {key: facts[key] for key in ("run", "head", "signature", "signing-key")}
    Ledger(folder.receipts).append(kind="receipt", line=3, **forged)
    assert read_receipts(folder).problems == ["receipt 1 (run r1) has no signature that fits it"]
    assert len(read_receipts(folder).all()) == 0


def test_receipts_of_another_coordinator_still_count_and_new_ones_of_it_are_not_kept(folder: SiteFolder):
    keep(folder, receipt_of(folder, 3))
    trust(folder, OTHER)
    with pytest.raises(RefusedReceipt):
        keep(folder, receipt_of(folder, 5))
    keep(folder, receipt_of(folder, 6), OTHER)
    found = read_receipts(folder)
    assert ([r.n for r in found.earlier], [r.n for r in found.signed], found.problems) == ([3], [6], [])
    assert [r.n for r in found.all()] == [3, 6]


def test_a_crash_while_a_receipt_was_written_hinders_no_later_one(folder: SiteFolder):
    keep(folder, receipt_of(folder, 3))
    folder.receipts.write_bytes(folder.receipts.read_bytes() + b'{"at":"20')
    assert read_receipts(folder).problems == ["receipts: the file ends in the middle of a line, after line 1"]
    keep(folder, receipt_of(folder, 3))
    keep(folder, receipt_of(folder, 5))
    found = read_receipts(folder)
    assert ([r.n for r in found.signed], found.problems) == ([3, 3, 5], [])


def test_over_a_torn_ledger_no_receipt_is_kept(folder: SiteFolder):
    receipt = receipt_of(folder, 7)
    folder.ledger.write_bytes(folder.ledger.read_bytes()[:-9])
    with pytest.raises(LedgerError, match="flfed site ledger cleveland --verify"):
        keep(folder, receipt)
    assert len(read_receipts(folder).signed) == 0


@pytest.mark.parametrize(
    "terms",
    ["", 'signing-key = "ab"', "signing-key = 7", "signing-key = [", None],
)
def test_without_the_coordinators_key_a_site_says_what_to_do(folder: SiteFolder, terms: str | None):
    folder.terms.unlink()
    if terms is not None:
        folder.terms.write_text(terms)
    with pytest.raises(UsageError, match="flfed site join KIT") as caught:
        coordinator_key(folder)
    assert caught.value.exit_code == 2
