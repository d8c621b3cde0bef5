"""`python -m docs [PAGE ...]`: passages that are too long, names that flfed does not have, an old index."""

from __future__ import annotations

import sys
from pathlib import Path

from docs.make.case_index import differing
from docs.make.names import unknown_names
from docs.make.prose import median_sentence, pages, passages, too_long


def main() -> int:
    """Print each place; return 1 where there is one."""
    places = 0
    every = []
    for path in [Path(name).resolve() for name in sys.argv[1:]] or pages():
        found = passages(path)
        every += found
        for line in [*too_long(found), *unknown_names(path, found)]:
            print(line)
            places += 1
    if not sys.argv[1:]:
        for name in differing():
            print(f"docs/case-studies/{name} is not what the pages of the studies give: python -m docs.make.case_index")
            places += 1
    print(f"{places} places; the median sentence has {median_sentence(every):g} words")
    return min(places, 1)


if __name__ == "__main__":
    sys.exit(main())
