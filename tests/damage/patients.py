"""A table of 900 rows, two of each of 450 people, and what changes its rows or values and breaks no rule."""

import gzip
import io
import tarfile
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from tests.damage.tables import SCHEMA as CLINIC
from tests.damage.tables import Case, as_csv, as_parquet, frame, lines, separated, table

ROWS, HALF = 900, 450
OTHERS = {
    '"clinic"': '"patients"', "columns.chol": "columns.hours", "[50, 1000]": "[0, 2000]", "mg/dL": "hours",
    "columns.income": "columns.amount", '"west"]': '"west", "east"]',
}  # fmt: skip
"""What differs from the schema of the clinic."""
SCHEMA = CLINIC
for before, after in OTHERS.items():
    SCHEMA = SCHEMA.replace(before, after)
BOOK = {"file": "rows.xlsx", "source": 'Excel("rows.xlsx")'}


@cache
def patients() -> str:
    """Return the sound table as CSV; people come on working days of two and a half years, in no order."""
    rng = np.random.default_rng(5)
    days = pd.bdate_range("2021-03-01", "2023-08-31")
    person = rng.permutation(np.repeat(np.arange(HALF), 2))
    sex = rng.choice(["female", "male"], HALF)
    age, hours = rng.integers(18, 93, HALF), np.ceil(rng.lognormal(3, 0.7, ROWS))
    odds = (age[person] - 55) / 12 + (hours - 25) / 20
    found = pd.DataFrame({
        "person": [f"Pät-{70123 + 37 * number}x" for number in person],
        "seen": rng.choice(days, ROWS).astype("datetime64[D]").astype(str),
        "age": age[person],
        "hours": hours.astype(int),
        "amount": [f"{value:.2f}" for value in rng.lognormal(9.5, 0.6, ROWS)],
        "visits": rng.poisson(4, ROWS), "smokes": rng.integers(0, 2, ROWS), "sex": sex[person],
        "ward": rng.choice(["north", "south", "west", "east"], ROWS, p=[0.4, 0.3, 0.2, 0.1]),
        "outcome": np.where(rng.random(ROWS) < 1 / (1 + np.exp(-odds)), "yes", "no"),
    })  # fmt: skip
    return found.to_csv(index=False)


Change = Callable[[pd.DataFrame], pd.DataFrame]


def each(column: str, change: Callable[[str], object], rows: slice = slice(None)) -> Change:
    """Return what changes cells of a column, in all rows or some."""

    def changed(found: pd.DataFrame) -> pd.DataFrame:
        cells = found[column].tolist()
        cells[rows] = [str(change(cell)) for cell in cells[rows]]
        return found.assign(**{column: cells})

    return changed


def first(column: str, text: str, rows: int = 40) -> Change:
    """Return what puts one text into the first rows of a column."""
    return each(column, lambda cell: text, slice(0, rows))


LATER = slice(HALF, None)


def book(change: Callable[[Any, pd.DataFrame], None], alter: Change = lambda found: found, cover: bool = False):
    """Return what writes the table as a workbook of numbers and texts, and changes its sheet."""

    def damage(text: str) -> bytes:
        import openpyxl

        found = alter(pd.read_csv(io.StringIO(text)))
        made = openpyxl.Workbook()
        sheet = made.active
        if cover:
            sheet.title = "Cover"
            sheet.append(["Export of the clinic"])
            sheet = made.create_sheet("Rows")
        sheet.append(list(found))
        for row in found.astype(object).itertuples(index=False):
            sheet.append(list(row))
        change(sheet, found)
        out = io.BytesIO()
        made.save(out)
        return out.getvalue()

    return damage


def by_ward(found: pd.DataFrame) -> pd.DataFrame:
    """Return the rows in the order of their ward."""
    return found.sort_values("ward", kind="stable").reset_index(drop=True)


def merge_wards(sheet: Any, found: pd.DataFrame) -> None:
    """Merge the cells of each ward into one."""
    column = list(found).index("ward") + 1
    starts = [0, *np.flatnonzero(found["ward"].to_numpy()[1:] != found["ward"].to_numpy()[:-1]) + 1, len(found)]
    for start, end in zip(starts[:-1], starts[1:], strict=True):
        sheet.merge_cells(start_row=int(start) + 2, end_row=int(end) + 1, start_column=column, end_column=column)


def formulas(*names: str, rows: int = ROWS) -> Callable[[Any, pd.DataFrame], None]:
    """Return what puts formulas that nobody computed into columns of a sheet."""

    def change(sheet: Any, found: pd.DataFrame) -> None:
        for name in names:
            for row in range(2, rows + 2):
                sheet.cell(row, list(found).index(name) + 1).value = f"=A{row}*2"

    return change


def once(column: str) -> Change:
    """Return what leaves out a cell that is as the one above it."""
    return lambda found: found.assign(**{column: found[column].where(found[column] != found[column].shift(), "")})


def first_of_two(column: str) -> Change:
    """Return what sorts the rows by person, and leaves a cell out in all but the first row of each."""

    def changed(found: pd.DataFrame) -> pd.DataFrame:
        found = found.sort_values("person", kind="stable")
        return found.assign(**{column: found[column].where(found["person"] != found["person"].shift(), "")})

    return changed


def numbered(found: pd.DataFrame) -> pd.DataFrame:
    """Return the table with identifiers of seven digits, of which most begin with a zero."""
    return found.assign(person=[f"{(int(cell[4:-1]) - 70000) * 23:07d}" for cell in found["person"]])


def with_last(**cells: Any) -> Change:
    """Return what appends a row: figures of the columns of numbers, and other cells as given."""

    def changed(found: pd.DataFrame) -> pd.DataFrame:
        numbers = found[["age", "hours", "amount", "visits"]].astype(float)
        figures = {name: f"{value:.1f}" for name, value in getattr(numbers, cells["of"])().items()}
        last = found.iloc[-1].to_dict() | figures | {"person": "Pät-mean"}
        return pd.concat([found, pd.DataFrame([last])], ignore_index=True)

    return changed


def sorted_by_date(found: pd.DataFrame) -> pd.DataFrame:
    """Return the rows in the order of their dates."""
    return found.sort_values("seen", kind="stable")


def then(*changes: Change):
    """Return what does one change after the other."""

    def damage(text: str) -> bytes:
        found = frame(text)
        for change in changes:
            found = change(found)
        return as_csv(found)

    return damage


ONE_OTHER = "has the same value in every row but one"


def all_but_one(column: str, usual: str, other: str) -> Change:
    """Return what makes all cells of a column one value, but for one."""
    return lambda found: found.assign(**{column: [usual] * 500 + [other] + [usual] * (len(found) - 501)})


def halfway(text: str) -> bytes:
    """Return a file whose separator changes."""
    return b"".join([*text.encode().splitlines(True)[:451], *separated(";")(text).splitlines(True)[451:]])


def tar(text: str) -> bytes:
    """Return the table in a tar archive that gzip packed."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        entry = tarfile.TarInfo("rows.csv")
        entry.size = len(text.encode())
        archive.addfile(entry, io.BytesIO(text.encode()))
    return out.getvalue()


def case(about: str, damage: Any, outcome: Any, says: str = "", **more: Any) -> Case:
    """Return a case of this table; nothing is predicted for it."""
    return Case(about, damage, outcome, says, **{"predicted": None, "base": "patients", **more})


BLOCK = "as if a value stood once a block"
SHEETS = [
    case("a workbook", book(lambda sheet, found: None), "read", **BOOK),
    case("a workbook with true dates", book(lambda sheet, found: None, lambda found: found.assign(seen=pd.to_datetime(found["seen"]))), "read", **BOOK),
    case("cells of a category merged over each block", book(merge_wards, by_ward), "refused", "column 'ward' is merged with other cells (undo the merging, and fill each cell) in 896 rows", **BOOK),
    case("cells of two rows merged", book(lambda sheet, found: sheet.merge_cells("D5:D6")), "refused", "column 'hours' is merged with other cells", **BOOK),
    case("cells merged in a column that nobody reads", book(lambda sheet, found: sheet.merge_cells("L5:L9"), lambda found: found.assign(more="x", note="")), "read", **BOOK),
    case("formulas that nobody computed", book(formulas("amount")), "refused", "column 'amount' is a formula without a stored value (open and save the workbook, or export it as CSV) in 900 rows", **BOOK),
    case("formulas that nobody computed, in a part of the rows", book(formulas("hours", rows=30)), "refused", "column 'hours' is a formula without a stored value", **BOOK),
    case("formulas for categories", book(formulas("ward", rows=60)), "refused", "column 'ward' is a formula without a stored value", **BOOK),
    case("a sheet before the table's", book(lambda sheet, found: None, cover=True), "refused", "the first sheet was read, of 'Cover', 'Rows': name the right one with sheet=", **BOOK),
    case("a sheet before the table's, and the package names the second", book(lambda sheet, found: None, cover=True), "read", file="rows.xlsx", source='Excel("rows.xlsx", sheet="Rows")'),
]  # fmt: skip

ORDER = [
    case("a category once a block", then(by_ward, once("ward")), "noted", f"896 rows are empty, {BLOCK}"),
    case("a category that is left out where it is as above", then(once("ward")), "noted", f"rows are empty, {BLOCK}"),
    case("a flag that is left out where it is as above", then(once("smokes")), "noted", BLOCK),
    case("a number that is left out where it is as above", then(once("visits")), "noted", BLOCK),
    case("a category in the first row of each person only", then(first_of_two("sex")), "noted", "450 rows are empty, all except the first of each 'person': fill each cell"),
    case("whole days for hours from row 451 on", then(each("hours", lambda cell: f"{float(cell) / 24:.0f}", LATER)), "noted", "on (450 rows), values are about"),
    case("a row of sums at the end, every cell filled", then(with_last(of="sum")), "refused", "outside the schema's range"),
    *(
        case(f"thousands for units {where}", then(each("amount", lambda cell: f"{float(cell) / 1000:.5f}", rows)), "noted", f"values are about {ratio} those before: did the unit change?")
        for where, rows, ratio in (("from row 451 on", LATER, "1/1000 of"), ("from row 101 on", slice(100, None), "1/1000 of"), ("up to row 800", slice(0, 800), "1000 times"))
    ),
    case("days for hours from row 451 on", then(each("hours", lambda cell: f"{float(cell) / 24:.3f}", LATER)), "noted", "values are about 1/24 of those before: did the unit change?"),
    case("cents for units from row 451 on", then(each("amount", lambda cell: f"{float(cell) * 100:.0f}", LATER)), "noted", "values are about 100 times those before"),
    case("rows in the order of an amount", then(lambda found: found.sort_values("amount", key=lambda cells: cells.astype(float))), "read"),
    case("rows in the order of their dates", then(sorted_by_date), "read"),
]  # fmt: skip

FAR, REPDIGITS = "rows have one value that is far from all others", "rows have values such as 77, 88 or 999"
CODES = [
    case("99 for an age", then(first("age", "99")), "noted", f"40 {REPDIGITS}"),
    case("77, 88 and 99 for an age", then(lambda found: found.assign(age=["77", "88", "99"] * 15 + found["age"].tolist()[45:])), "noted", REPDIGITS),
    case("88 for an age", then(first("age", "88")), "noted", REPDIGITS),
    case("9999 for an amount", then(first("amount", "9999")), "noted", f"40 {REPDIGITS}"),
    case("99999 for an amount", then(first("amount", "99999")), "noted", REPDIGITS),
    case("999 for hours", then(first("hours", "999")), "noted", FAR),
    case("0 for an age", then(first("age", "0")), "noted", FAR),
    case("-1 for an age", then(first("age", "-1")), "refused", "outside the schema's range"),
    *(case(f"one value of {column} in all rows but one", then(all_but_one(column, usual, other)), "noted", ONE_OTHER) for column, usual, other in (("age", "40", "41"), ("amount", "100.5", "7"), ("smokes", "0", "1"), ("ward", "north", "west"), ("seen", "2022-05-17", "2022-05-18"))),
    case("a column without a value", then(first("hours", "", ROWS)), "noted", "missing in every row: map it to None if the site does not have it"),
    case("a category without a value", then(first("ward", "", ROWS)), "noted", "missing in every row: map it to None if the site does not have it"),
    case("more than half of the features without a value", then(*(first(name, "", ROWS) for name in ("age", "hours", "amount", "visits"))), "refused", "only 3 of 7 features are mapped"),
    case("fewer than half of the features, and the package says so", then(lambda found: found.drop(columns=["age", "hours", "amount", "visits"])), "noted", "only 3 of 7 features are mapped, as its package declares", mapping='"age": None, "hours": None, "amount": None, "visits": None,', extra="partial=True,"),
    case("fewer than half of the features", then(lambda found: found.drop(columns=["age", "hours", "amount", "visits"])), "refused", "only 3 of 7 features are mapped", mapping='"age": None, "hours": None, "amount": None, "visits": None,'),
    *(case(f"{text} in a number", then(first("amount", text)), "refused", f"column 'amount' {rule} in 40 rows") for text, rule in {"35000 kr": "is not a number", "60+": "is not a number", "#DIV/0!": "is not a number", "1e400": "is not a number", "３５": "is not a number", "<NA>": "has words for 'not known' such as NULL (name them in missing)", "<500": "has limits such as '<' or '>' (set censored)"}.items()),
]  # fmt: skip

FUTURE = "rows have a date in the future"
DATES = [
    case("60 dates in 2091", then(each("seen", lambda cell: f"2091{cell[4:]}", slice(0, 60))), "noted", f"60 {FUTURE}"),
    case("nanoseconds in Parquet", lambda text: as_parquet(pd.read_csv(io.StringIO(text)).assign(seen=lambda found: found["seen"].astype("datetime64[ns]"))), "read", file="rows.parquet", source='Parquet("rows.parquet")'),
]  # fmt: skip

PEOPLE = [
    case("identifiers with leading zeros", then(numbered), "sound"),
    case("identifiers that lost leading zeros in half of the rows", then(numbered, each("person", lambda cell: cell.lstrip("0"), LATER)), "noted", "rows have identifiers without the leading zeros that others have: one person may count as two. Export identifiers as text"),
    case("identifiers that lost leading zeros in all rows", then(numbered, each("person", lambda cell: cell.lstrip("0"))), "sound"),
    case("identifiers in capitals in half of the rows", then(each("person", str.upper, LATER)), "noted", "identifiers are written in upper and in lower case, and count as two each"),
]  # fmt: skip

FEWER = "has fewer cells than the first: remove it if it is a sum or a note"
WRITTEN = [
    case("a sum behind the last row", lines(lambda found: [*found, "Total,900"]), "refused", f"line 902, behind the last row, {FEWER}"),
    case("a note behind the last row", lines(lambda found: [*found, "Source: the clinic"]), "refused", f"line 902, behind the last row, {FEWER}"),
    case("two notes behind the last row", lines(lambda found: [*found, "Total,900", "Source: the clinic"]), "refused", f"each line from line 902 on, behind the last row, {FEWER}"),
    case("a sum without a line's end", lambda text: f"{text}Total,900".encode(), "refused", "its last line is cut (line 902): fetch the file again, or remove the line if it is a sum or a note"),
    case("a comment in the middle", lines(lambda found: [*found[:400], "# checked by the ward", *found[400:]]), "refused", "line 401 is a comment or a rule, with fewer cells than the first: remove it"),
    case("two comments in the middle", lines(lambda found: [*found[:400], "# checked, twice", "# again", *found[400:]]), "refused", "line 401 (and 1 more) is a comment or a rule"),
    case("a separator that changes halfway", halfway, "refused", "from line 452 on, cells are separated by ';', before that by ',': use one of them"),
    case("a tar archive in gzip", tar, "refused", "it is a tar archive: unpack it", file="rows.tar.gz"),
    case("a tar archive", lambda text: gzip.decompress(tar(text)), "refused", "it is a tar archive: unpack it", file="rows.tar"),
    case("20 rows shifted by a cell", table(lambda found: pd.concat([found[:20].shift(1, axis=1), found[20:]])), "refused", "is not a"),
    case("the names in the middle", lines(lambda found: [*found[:400], found[0], *found[400:]]), "refused", "row 400 repeats the names of the columns: remove it"),
    case("a comment with as many commas as a row", lines(lambda found: [*found[:400], "# checked" + "," * found[0].count(","), *found[400:]]), "refused", "row 400 is a comment: remove it"),
    case("a sum of all columns at the end", lines(lambda found: [*found, "Total" + ",900" * found[0].count(",")]), "refused", "row 901, at the end, holds sums or counts: remove it"),
    case("a category in upper case", lines(lambda found: [found[0], *(text.replace("female", "FEMALE") if place % 9 == 0 else text for place, text in enumerate(found[1:]))]), "refused", "rows have one of its values in another case: write them alike"),
]  # fmt: skip

TURNED = {"no": "yes", "yes": "no", "female": "male", "male": "female", "0": "1", "1": "0"}
UNSEEN = [
    *(case(f"{what} the other way round", then(each(column, TURNED.__getitem__)), "unseen") for what, column in (("the outcome", "outcome"), ("the sex", "sex"), ("a flag", "smokes"))),
]  # fmt: skip
WORDS: Sequence[tuple[str, str, str]] = (
    ("TRUE", "FALSE", "read"), ("True", "False", "read"), ("true", "false", "read"), ("Yes", "No", "read"),
    ("YES", "NO", "read"), ("1.0", "0.0", "read"), (" 1", "0 ", "read"), ("Y", "N", "refused"), ("ja", "nein", "refused"),
    ("oui", "non", "refused"), ("T", "F", "refused"), ("x", "-", "refused"), ("2", "1", "refused"), ("on", "off", "refused"),
)  # fmt: skip
FLAGS = [
    case(f"a flag as {yes.strip()} and {no.strip()}{' with blanks' if yes != yes.strip() else ''}", then(each("smokes", lambda cell, yes=yes, no=no: yes if cell == "1" else no)), outcome, "" if outcome == "read" else "column 'smokes' is not a flag (0 or 1, yes or no)")
    for yes, no, outcome in WORDS
]  # fmt: skip
