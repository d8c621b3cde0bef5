"""Who looks at a run store, and what of it that person may see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["coordinator", "analyst", "site"]
"""`coordinator` sees how the consortium runs, too; `analyst` all results; `site` one institution's own."""


@dataclass(frozen=True)
class Viewer:
    """A person who looks at the pages.

    Attributes
    ----------
    role : {"coordinator", "analyst", "site"}
    site : str or None
        The one site whose figures of its own role "site" sees, beside those of all sites together.
    name : str
        As the login has it; "" where nobody has to log in.
    """

    role: Role = "coordinator"
    site: str | None = None
    name: str = ""
