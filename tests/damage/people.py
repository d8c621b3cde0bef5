"""Dates, identifiers, and tables that come as Parquet or from a database."""

import pandas as pd

from tests.damage.cells import ALL, field
from tests.damage.files import database, zipped
from tests.damage.tables import Case, as_parquet, cells, frame, parquet, typed


def as_date(form: str):
    """Return what writes a date in another way."""
    return lambda cell: pd.Timestamp(cell).strftime(form)


def day_before(cell: str) -> str:
    """Return midnight in Zurich as UTC has it, in winter."""
    return f"{pd.Timestamp(cell) - pd.Timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"


NO_DATE = "column 'seen' is not a date such as 2026-01-31"
DATES = [
    *(
        Case(f"dates as {what}", cells("seen", change, ALL), "refused", NO_DATE)
        for what, change in {
            "in German": as_date("%d.%m.%Y"), "in America": as_date("%m/%d/%Y"), "in England": as_date("%d/%m/%Y"), "two digits of a year": as_date("%y-%m-%d"),
            "names of months": as_date("%d %b %Y"), "days of Excel": "45657", "years": "2024", "months": "2024-05", "weeks": "2024-W05-1", "seconds since 1970": "1735603200",
        }.items()
    ),
    Case("text for a date", cells("seen", "unknown"), "refused", f"{NO_DATE} in 12 rows"),
    Case("a day that is none", cells("seen", "2024-02-30"), "refused", f"{NO_DATE} in 12 rows"),
    Case("the year 9999 for not known", cells("seen", "9999-12-31"), "refused", f"{NO_DATE} in 12 rows"),
    Case("the year 1900 for not known", cells("seen", "1900-01-01"), "noted", "12 rows have one value that is far from all others", predicted=None),
    Case("dates in German, and the package says so", cells("seen", as_date("%d.%m.%Y"), ALL), "read", mapping=field("seen", 'date="%d.%m.%Y"'), predicted=None),
    Case("dates in America, and the package says so", cells("seen", as_date("%m/%d/%Y"), ALL), "read", mapping=field("seen", 'date="%m/%d/%Y"'), predicted=None),
    Case("dates in America, and the package says England", cells("seen", as_date("%m/%d/%Y"), ALL), "refused", "is not a date as its mapping says", mapping=field("seen", 'date="%d/%m/%Y"'), predicted=None),
    Case("midnights behind dates", cells("seen", lambda cell: f"{cell} 00:00:00", ALL), "read"),
    Case("midnights of a time zone", cells("seen", lambda cell: f"{cell}T00:00:00+01:00", ALL), "read"),
    Case("dates without hyphens", cells("seen", as_date("%Y%m%d"), ALL), "read"),
    Case("midnights of Zurich, written in UTC", cells("seen", day_before, ALL), "refused", "is midnight of another time zone"),
    Case("one midnight of Zurich in all rows, written in UTC", cells("seen", "2024-01-30T23:00:00Z", ALL), "refused", "is midnight of another time zone (have the source give local dates) in 60 rows"),
    Case("Parquet with midnights of Zurich", parquet(lambda found: found.assign(seen=found["seen"].dt.tz_localize("Europe/Zurich"))), "read", file="rows.parquet", source='Parquet("rows.parquet")'),
    Case("Parquet with midnights of Zurich, kept in UTC", parquet(lambda found: found.assign(seen=found["seen"].dt.tz_localize("Europe/Zurich").dt.tz_convert("UTC"))), "refused", "is midnight of another time zone", file="rows.parquet", source='Parquet("rows.parquet")'),
]  # fmt: skip

MANGLED = "has identifiers that a spreadsheet rounded or made dates of"
NOBODY = "has words for 'not known' such as NULL"
IDENTIFIERS = [
    Case("identifiers that Excel rounded, 1.0E+09", cells("person", "1.0E+09"), "refused", f"{MANGLED} (export them as text) in 12 rows"),
    Case("identifiers that a German Excel rounded, 4,71E+12", cells("person", "4,71E+12"), "refused", MANGLED),
    Case("identifiers of 18 digits, of which a spreadsheet kept fifteen", cells("person", lambda cell: f"1{cell[4:]:0<17}", ALL), "refused", MANGLED),
    Case("identifiers that became dates, 03-Jan", cells("person", "03-Jan"), "refused", MANGLED),
    Case("identifiers that became months, Mar-01", cells("person", "Mar-01"), "refused", MANGLED),
    Case("identifiers that became errors, #REF!", cells("person", "#REF!"), "refused", MANGLED),
    Case("identifiers too wide for their column, #####", cells("person", "#######"), "refused", MANGLED),
    Case("NULL for an identifier", cells("person", "NULL"), "refused", NOBODY),
    Case("NaN for an identifier", cells("person", "NaN"), "refused", NOBODY),
    Case("None for an identifier", cells("person", "None"), "refused", NOBODY),
    Case("NULL for an identifier, and the package says so", cells("person", "NULL"), "refused", "column 'person' has no value, but rows are grouped by it", mapping=field("person", 'missing=("NULL",)'), predicted=None),
    Case("an empty identifier", cells("person", ""), "refused", "column 'person' has no value, but rows are grouped by it", predicted=None),
    Case("one identifier in most rows", cells("person", "Röe-1", 36), "refused", "one identifier stands in more than half of the rows", predicted=None),
    Case("Parquet with identifiers as floating point numbers", parquet(lambda found: found.assign(person=1e16 + found["age"])), "refused", "has whole numbers that floating point rounded", file="rows.parquet", source='Parquet("rows.parquet")'),
    Case("Parquet with identifiers as bytes", parquet(lambda found: found.assign(person=found["person"].str.encode("utf-8"))), "read", file="rows.parquet", source='Parquet("rows.parquet")'),
]  # fmt: skip

STORED = {"file": "rows.parquet", "source": 'Parquet("rows.parquet")'}
PARQUET = [
    Case("Parquet", parquet(lambda found: found), "read", **STORED),
    Case("Parquet with text in every column", lambda text: as_parquet(frame(text)), "read", **STORED),
    Case("Parquet with categories and whole numbers", parquet(lambda found: found.astype({"sex": "category", "age": "Int64", "visits": "int8"})), "read", **STORED),
    Case("CSV under the name of Parquet", lambda text: text.encode(), "refused", "it is text: read it with Csv", **STORED),
    Case("an empty file under the name of Parquet", lambda text: b"", "refused", "it is empty", **STORED),
    Case("a workbook under the name of Parquet", zipped("xl/workbook.xml"), "refused", "workbook of Excel", **STORED),
    Case("Parquet that is cut", lambda text: as_parquet(frame(text))[:900], "refused", "its end is missing", **STORED),
    Case("Parquet that is damaged", lambda text: as_parquet(frame(text))[:-60] + bytes(56) + b"PAR1", "refused", "it is damaged", **STORED),
    Case("Parquet with text that is not UTF-8", lambda text: as_parquet(frame(text), compression=None).replace("ö".encode(), b"\xf6\xff"), "refused", "it is damaged", **STORED),
    Case("Parquet with yes or no for a number", parquet(lambda found: found.assign(age=found["age"] > 50)), "refused", "is yes or no where a number is meant in 60 rows", **STORED),
    Case("Parquet with lists for numbers", parquet(lambda found: found.assign(age=[[1, 2]] * len(found))), "refused", "column 'age' is not a number in 60 rows", **STORED),
    Case("Parquet with dates for numbers", parquet(lambda found: found.assign(age=found["seen"])), "refused", "column 'age' is not a number in 60 rows", **STORED),
    Case("Parquet with the identifier as its index", lambda text: as_parquet(typed(text).set_index("person")), "refused", "column 'person' is not in the table", file="rows.parquet", source='Parquet("rows.parquet")', predicted=None),
    Case("Parquet with a name that has a capital", parquet(lambda found: found.rename(columns={"age": "Age"})), "refused", "did you mean 'Age'?", **STORED),
]  # fmt: skip

SQL = {"file": "rows.db", "predicted": None}
DATABASES = [
    Case("a database", database, "read", source='Sql("SELECT * FROM rows")', **SQL),
    Case("a query that gives no row", database, "refused", "the table is empty", source='Sql("SELECT * FROM rows WHERE age > 500")', **SQL),
    Case("a query on a table that is not there", database, "refused", "the site's database query failed", source='Sql("SELECT * FROM patients")', **SQL),
    Case("a query that gives other columns", database, "refused", "neither is any other column", source='Sql("SELECT age + 1 AS x FROM rows")', **SQL),
    Case("a database that is none", lambda text: text.encode(), "refused", "the site's database query failed", source='Sql("SELECT * FROM rows")', **SQL),
    Case("an address that is none", database, "refused", "does not hold a database URL", source='Sql("SELECT 1")', env={"FLFED_SITE_URL": "no address"}, **SQL),
    Case("a database whose driver is not installed", database, "refused", "the driver of the database that FLFED_SITE_URL names is not installed", source='Sql("SELECT 1")', env={"FLFED_SITE_URL": "mssql+pymssql://ana@db/x"}, **SQL),
    Case("no address", database, "refused", "set FLFED_SITE_URL", source='Sql("SELECT 1")', env={"FLFED_SITE_URL": ""}, **SQL),
]  # fmt: skip
