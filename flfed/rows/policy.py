"""What a site allows: `policy.toml` beside its `__init__.py`, which no study can loosen."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from flfed.rows.schema import Strict


class Policy(Strict):
    """What a site allows; `policy.toml` beside its `__init__.py`.

    Attributes
    ----------
    disclosure : {"institution", "open"}
        `institution`: no cell under `cell_minimum` leaves. `open`: public data, everything exact.
    cell_minimum : int
        Smallest count that leaves under `institution`.
    resplit : bool
        Whether repeats may draw another holdout; under `open` only. Sums over two splits of the
        same rows, each with its small cells left out, give one another's away.
    share_metrics : {"named", "pseudonym", "aggregate-only"}
        How the site's own figures may be shown to others.
    outputs : tuple of str
        Outputs allowed besides the usual ones: "score-histogram"; "complete-rows" lets a study
        leave out the rows with a missing feature, and say how many are left; "learning-curve" lets
        it train and judge again with few of the site's rows.
    """

    format: Literal[1] = 1
    disclosure: Literal["institution", "open"] = "institution"
    cell_minimum: int = Field(default=10, ge=3)
    resplit: bool = False
    share_metrics: Literal["named", "pseudonym", "aggregate-only"] = "named"
    outputs: tuple[Literal["score-histogram", "complete-rows", "learning-curve"], ...] = ()

    @model_validator(mode="after")
    def _available(self) -> Self:
        if self.share_metrics != "named":
            raise ValueError(f"share-metrics={self.share_metrics!r} is not available in this version")
        if self.resplit and self.disclosure != "open":
            raise ValueError("resplit = true needs disclosure = 'open': two splits give small counts away")
        return self

    def least_rows(self) -> int:
        """Return the fewest rows that any part of the table may have."""
        return 1 if self.disclosure == "open" else self.cell_minimum

    def allows(self, output: str) -> bool:
        """Tell whether an output that not every site gives may leave."""
        return self.disclosure == "open" or output in self.outputs

    def refusal(self, *, complete: bool, published: bool) -> str:
        """Return why a study may not choose rows as it asks, or an empty text.

        Parameters
        ----------
        complete : bool
            The study leaves out rows with a missing feature. Under `institution` the policy must
            name it: how many rows are left, in studies on other features, says who has a gap.
        published : bool
            The study brings a split of its own.
        """
        if published and not self.resplit:
            return "its policy keeps the site's own holdout (resplit = false), and the study asks for a published split"
        if complete and not self.allows("complete-rows"):
            return "its policy does not let a study leave out rows with a missing feature (outputs: 'complete-rows')"
        return ""
