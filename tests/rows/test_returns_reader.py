"""Tables of daily returns, made of prices."""

from __future__ import annotations

from pathlib import Path

import pytest

from flfed.errors import FlfedError
from flfed.rows.data.readers.returns import Returns


def written(folder: Path, *lines: str) -> tuple[Path, ...]:
    (folder / "prices.csv").write_text("\n".join(("Date,A,B", *lines)) + "\n")
    return (folder,)


def test_a_return_is_the_price_by_that_of_the_line_before_less_one(tmp_path: Path):
    folders = written(tmp_path, "2024-01-04,10,8", "2024-01-05,11,4", "2024-01-08,5.5,5")
    table = Returns(file="prices.csv", time="Date").read(folders)
    # Over a weekend as over a night.
    assert table.to_dict("list") == {
        "Date": ["2024-01-05", "2024-01-08"], "A": [pytest.approx(0.1), -0.5], "B": [-0.5, 0.25], "number": [0, 1],
    }  # fmt: skip


@pytest.mark.parametrize(("lines", "time", "said"), [
    (("2024-01-04,10,8", "2024-01-05,0,4"), "Date", "column 'A' has a price that is not above 0 in"),
    (("2024-01-04,10,8", "2024-01-05,,4"), "Date", "column 'A' has a price that is not above 0 in"),
    (("2024-01-04,10,8", "2024-01-05,secret,4"), "Date", "column 'A' is not a number in"),
    (("2024-01-05,10,8", "2024-01-04,1,4"), "Date", "column 'Date' days are not in order in"),
    (("2024-01-05,10,8",), "Day", "has no column 'Day'"),
])  # fmt: skip
def test_what_is_no_price_or_out_of_order_is_refused_and_never_quoted(tmp_path, lines, time, said):
    with pytest.raises(FlfedError) as error:
        Returns(file="prices.csv", time=time).read(written(tmp_path, *lines))
    assert said in str(error.value)
    assert "secret" not in str(error.value)
