"""Sums of ciphertexts at a server, which has neither key nor model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flfed.refusals import Refusal
from flfed.updates.aggregation.secure_sum import SecureSums, SumQuestions, Unsummed
from flfed.updates.codec import CIPHERTEXT
from flfed.updates.masking import ckks
from flfed.updates.masking.ckks import PublicContext
from flfed.updates.masking.encrypted_model import vector_entries
from flfed.updates.messages.fields import Arrays
from flfed.updates.messages.train import TrainReply


@dataclass(kw_only=True, eq=False)
class CipherSums(SecureSums):
    """The server's half of the sums of one run under homomorphic encryption.

    There are neither lists nor masks. The sites open the sum of one part of each of them, and no other.

    Attributes
    ----------
    entries : int
        Of the model.
    context : PublicContext
        Which adds, and opens nothing.
    """

    entries: int
    context: PublicContext

    def _update_defect(self, reply: TrainReply, updates: int, sums: int) -> Refusal | None:
        if reply.encrypted is None:
            return Refusal("ciphertext-unfit")
        entries = vector_entries(self.entries)
        chunks = ckks.unpacked(reply.encrypted, entries)
        return chunks if isinstance(chunks, Refusal) else self.context.defect(chunks, entries)

    @property
    def loss_entries(self) -> int:
        """None: what is not encrypted is not added up."""
        return 0

    def mean(
        self,
        asked: SumQuestions,
        good: Mapping[str, TrainReply],
        refused: Mapping[str, Refusal],
        incoming: Arrays,
        needed: int,
    ) -> Arrays:
        """Return the next model, as the ciphertexts of a sum that the sites can open.

        Parameters and errors are those of `SecureSums.mean`; nothing further is asked.
        """
        self.check_loss(asked, good, refused, incoming)
        if missing := sorted(set(self.cohort) - good.keys()):
            raise Unsummed(Refusal("sum-incomplete", sites=", ".join(missing[:3])))
        entries = vector_entries(self.entries)
        sent = [good[site].encrypted for site in sorted(good)]
        parts = [ckks.unpacked(one, entries) for one in sent if one is not None]
        total = self.context.add([part for part in parts if not isinstance(part, Refusal)], entries)
        if isinstance(total, Refusal):
            raise Unsummed(total)
        return {CIPHERTEXT: ckks.packed(total)}
