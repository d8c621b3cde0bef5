"""Ways in which updates of sites are added: each answers what the rest of flfed asks of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class SecureAggregationMode:
    """A value of `[privacy] secure-aggregation`.

    Attributes
    ----------
    sums_updates : bool
        Whether the server may get sums of updates in place of the sites' own.
    is_encrypted : bool
        Whether models are ciphertexts at the server.
    is_optional : bool
        Whether institutions decide by their approvals; one process adds nothing up then.
    adds_statistics : bool
        Whether a statistic, or an analysis, may be computed under it.
    """

    sums_updates: ClassVar[bool] = True
    is_encrypted: ClassVar[bool] = False
    is_optional: bool = False
    adds_statistics: bool = False

    @property
    def is_required(self) -> bool:
        """Whether a run has sums of updates in any case."""
        return self.sums_updates and not self.is_optional

    @property
    def is_masked(self) -> bool:
        """Whether it is masks that hide updates, where anything does."""
        return self.sums_updates and not self.is_encrypted

    @property
    def masks_always(self) -> bool:
        """Whether every update is masked: sites may add noise before the sum, and rows may be summed under masks."""
        return self.is_masked and self.is_required


class Off(SecureAggregationMode):
    """Updates cross as they are."""

    sums_updates = False


class Masks(SecureAggregationMode):
    """Updates cross under masks that cancel in their sum."""


class Encryption(SecureAggregationMode):
    """Models cross as ciphertexts, which only sites can open."""

    is_encrypted = True


MODES: dict[str, SecureAggregationMode] = {
    "off": Off(adds_statistics=True),
    "auto": Masks(is_optional=True),
    "on": Masks(adds_statistics=True),
    "ckks": Encryption(),
}
"""Every mode by its name in a study."""
STATISTIC_MODES = tuple(name for name, mode in MODES.items() if mode.adds_statistics)
"""Names of modes under which a statistic may be computed."""
