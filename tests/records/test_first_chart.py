"""A reader sees a chart soon: no page has more than 60 words before its first one."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1.element_tree import Block

from flfed.federation.server.run import run
from flfed.rows.data.site import Policy
from flfed.study.study import Study
from tests.records.one_answer import page

PAGES = ("p20_overview", "p30_sites", "p40_curves", "p50_rounds", "p60_data")
"""Pages that begin with a chart; Privacy begins with what is protected."""
MOST = 60


class ChartError(Exception):
    """The first chart of a page is reached."""


def texts(block: Any) -> Iterator[str]:
    """Yield each text that stands unfolded before the first chart, in the order of the page."""
    for _, child in sorted(block.children.items()):
        if child.type in ("vega_lite_chart", "arrow_vega_lite_chart"):
            raise ChartError
        if isinstance(child, Block):
            if child.type in ("expander", "expandable"):
                yield child.label
            else:
                yield from texts(child)
        elif child.type == "table":
            yield " ".join(map(str, child.value.to_numpy().ravel()))
        elif child.type not in ("html", "radio", "multiselect", "selectbox"):
            yield str(getattr(child, "value", ""))
        else:
            yield str(getattr(child, "label", ""))


def words_before_chart(shown: Any) -> int:
    count = 0
    with pytest.raises(ChartError):
        for text in texts(shown.main):
            count += len(text.split())
    return count


@pytest.fixture
def run_of_repeats(small_sites, small_study: str) -> str:
    """Two repeats at four sites, some of whose values are missing."""

    def change(number: int, table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(x1=table["x1"].where(np.arange(len(table)) % 9 > number))

    sites = small_sites(4, rows=300, change=change, policy=Policy(disclosure="open", resplit=True))
    return str(run(Study.parse(small_study), sites=sites, repeats=2).report["run"])


@pytest.mark.studies
def test_no_page_has_more_than_sixty_words_before_its_first_chart(run_of_repeats: str):
    counts = {name: words_before_chart(page(name, run_of_repeats)) for name in PAGES}
    assert {name: count for name, count in counts.items() if not 10 < count <= MOST} == {}
