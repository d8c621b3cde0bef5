"""`python -m docs [PAGE ...]`: names that flfed does not have, and an old index."""

from __future__ import annotations

import sys
from pathlib import Path

from docs.make.case_index import differing
from docs.make.names import pages, unknown_names


def main() -> int:
    """Print each place; return 1 where there is one."""
    chosen = [Path(name).resolve() for name in sys.argv[1:]]
    places = [place for path in chosen or pages() for place in unknown_names(path)]
    for name in [] if chosen else differing():
        places.append(
            f"docs/case-studies/{name} is not what the pages of the studies give: python -m docs.make.case_index"
        )
    print("\n".join([*places, f"{len(places)} places"]))
    return min(len(places), 1)


if __name__ == "__main__":
    sys.exit(main())
