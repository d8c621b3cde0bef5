"""Text in tables, the same under pandas 2 and 3.

Text stands in columns of dtype object, and a missing one is None or NaN as it came. pandas 3 would make columns of
texts its own type, where both are NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


def with_text_cells(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose columns of text are of dtype object.

    Columns of a type that a user chose, as `string[pyarrow]`, stay as they are.
    """
    import pandas as pd

    texts = [at for at, dtype in enumerate(table.dtypes) if dtype == "str" and isinstance(dtype, pd.StringDtype)]
    if not texts:
        return table
    found = table.copy(deep=False)
    # By place, since a name may stand in the table more than once.
    for at in texts:
        cells: Any = table.iloc[:, at].astype(object)  # its types know of no Series here
        found.isetitem(at, cells)
    found.attrs = table.attrs
    return found


def table_of(columns: Mapping[Any, Any], index: Any = None) -> pd.DataFrame:
    """Return a table of columns, each in its own type: texts stay objects."""
    import pandas as pd

    return pd.DataFrame({name: _as_it_is(cells, index) for name, cells in columns.items()}, index=index)


def _as_it_is(cells: Any, index: Any) -> Any:
    import pandas as pd

    is_text = isinstance(cells, list) or (isinstance(cells, np.ndarray) and cells.dtype == object)
    return pd.Series(cells, index=index, dtype=object) if is_text else cells
