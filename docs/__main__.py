"""`python -m docs [PAGE ...]`: names that flfed does not have, and an index that is not of its results."""

from __future__ import annotations

import sys
from pathlib import Path

from docs.make import case_index
from docs.make.names import pages, unknown_names


def main() -> int:
    """Print each place; return 1 where there is one."""
    chosen = [Path(name).resolve() for name in sys.argv[1:]]
    places = [place for path in chosen or pages() for place in unknown_names(path)]
    shown = (case_index.FOLDER / case_index.INDEX).read_text(encoding="utf-8")
    if not chosen and shown != case_index.index(case_index.read()):
        places.append("docs/case-studies/index.md is not what results.json gives: python -m docs.make.case_index")
    print("\n".join([*places, f"{len(places)} places"]))
    return min(len(places), 1)


if __name__ == "__main__":
    sys.exit(main())
