"""All damaged tables, by what was done to them."""

from tests.damage import cells, files, lines, patients, people
from tests.damage.tables import Case

CATALOGUE: dict[str, list[Case]] = {
    "Files that are no table": files.KINDS, "Packed files": files.PACKED, "Encodings": files.ENCODINGS,
    "Lines": lines.SHORT_AND_LONG, "Around the line of names": lines.ABOVE,
    "Separators and ends of lines": lines.SEPARATORS, "Names of columns": lines.NAMES, "Numbers": cells.NUMBERS,
    "Flags": cells.FLAGS, "Categories and outcomes": cells.CATEGORIES, "Rows": cells.ROWS_OF_ALL, "Dates": people.DATES,
    "Identifiers": people.IDENTIFIERS, "Parquet": people.PARQUET, "Databases": people.DATABASES,
    "Workbooks of 900 rows": patients.SHEETS, "What the order of 900 rows tells": patients.ORDER,
    "Values of 900 rows": patients.CODES, "Dates of 900 rows": patients.DATES, "People of 900 rows": patients.PEOPLE,
    "Lines of 900 rows": patients.WRITTEN, "Flags of 900 rows": patients.FLAGS,
    "What no site can see alone": patients.UNSEEN,
}  # fmt: skip
