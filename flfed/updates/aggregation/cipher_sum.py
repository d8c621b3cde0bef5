"""Sums of ciphertexts at a server, which has neither key nor model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flfed.refusals import Refusal
from flfed.updates.aggregation.secure_sum import SecureSums, SumQuestions, Unsummed
from flfed.updates.codec import CIPHERTEXT, Shapes
from flfed.updates.masking import ckks
from flfed.updates.masking.ckks import PublicContext
from flfed.updates.masking.encrypted_model import HEAD
from flfed.updates.messages.fields import Arrays
from flfed.updates.messages.train import TrainReply


@dataclass(kw_only=True, eq=False)
class CipherSums(SecureSums):
    """The server's half of the sums of one run under homomorphic encryption.

    There are neither lists nor masks: nobody but the sites opens a sum, so that none tells the server of another.

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
        chunks = ckks.unpacked(reply.encrypted, HEAD + self.entries)
        return chunks if isinstance(chunks, Refusal) else self.context.defect(chunks, HEAD + self.entries)

    def mean(self, asked: SumQuestions, good: Mapping[str, TrainReply], model: Shapes, needed: int) -> Arrays:
        """Return the next model, as the ciphertexts of a sum that the sites can open.

        Parameters and errors are those of `SecureSums.mean`; nothing further is asked.
        """
        if len(good) < self.least:
            raise Unsummed(Refusal("list-small", had=len(good), least=self.least))
        entries = HEAD + self.entries
        sent = [good[site].encrypted for site in sorted(good)]
        parts = [ckks.unpacked(one, entries) for one in sent if one is not None]
        total = self.context.add([part for part in parts if not isinstance(part, Refusal)], entries)
        if isinstance(total, Refusal):
            raise Unsummed(total)
        return {CIPHERTEXT: ckks.packed(total)}
