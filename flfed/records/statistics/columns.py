"""Columns of a run by site, as recorded: what is missing, and how far each site lies from the others."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Held:
    """One site's rows held against those of the others, in a column (`flfed.summaries.drift`).

    Attributes
    ----------
    missing : int or None
        Rows without a value, None where it is kept back.
    rows : int
    difference : float or None
        In standard deviations.
    chance : float or None
        How large a difference chance alone explains.
    spread : float or None
        Standard deviation, as a share of that of the others.
    about : bool
        Whether it comes from groups of bins.
    reason : str
        Why there is no difference.
    compared_with : int or None
        Number of other sites; earlier versions of flfed did not keep it.
    mirrored : bool
        Whether its share of one of two values is 1 minus that of the others.
    """

    missing: int | None = None
    rows: int = 0
    difference: float | None = None
    chance: float | None = None
    spread: float | None = None
    about: bool | None = False
    reason: str | None = None
    compared_with: int | None = None
    mirrored: bool | None = False

    @property
    def size(self) -> float:
        """The difference without its sign, 0 without one."""
        return 0.0 if self.difference is None else abs(float(self.difference))

    @property
    def is_by_chance(self) -> bool:
        """Whether chance alone explains the difference; False where that is not known."""
        return self.difference is not None and self.chance is not None and self.size <= self.chance

    @property
    def gaps(self) -> int:
        """Rows without a value, 0 where that is kept back."""
        return self.missing or 0

    @property
    def share_missing(self) -> float | None:
        """Percentage of rows without a value, None where it is kept back."""
        return 100 * self.missing / self.rows if self.missing is not None and self.rows else None


@dataclass(frozen=True)
class Column:
    """A column of the object "columns" of a run.

    Attributes
    ----------
    column : str
    sites : dict of site to Held
    towards : str or None
        The value whose share is compared; "" of a number, None of a category of more than two values.
    outcome : bool
        Whether it is the outcome.
    """

    column: str
    sites: dict[str, Held]
    towards: str | None = None
    outcome: bool | None = False


@dataclass(frozen=True)
class Columns:
    """The object "columns" of a run."""

    columns: list[Column] = field(default_factory=list)
