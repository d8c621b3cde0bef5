"""Cells that are not what their column holds, or not all that it means."""

from tests.damage.tables import ROWS, Case, as_csv, cells, frame, table

ALL = ROWS


def grouped(mark: str, decimal: str = "."):
    """Return what writes an income with a mark between its thousands."""

    def write(cell: str) -> str:
        return f"{float(cell):,.2f}".replace(",", "_").replace(".", decimal).replace("_", mark)

    return write


def field(name: str, rest: str) -> str:
    """Return one entry of a site's mapping."""
    return f'"{name}": Field("{name}", {rest}),'


NO_NUMBER = {
    "text": "unknown", "a unit": "55 years", "a word for not known": "n/a", "NaN as text": "NaN", "an error of Excel": "#N/A",
    "a dash": "-", "a question mark": "?", "a time": "12:30", "a share": "55 %", "brackets": "(55)", "two numbers": "55/60",
    "the letter O": "5O", "digits of another script": "٥٥", "a long minus": "−5", "a date": "2024-05-05", "True": "True",
    "a range": "50-59", "a number in words": "fifty", "a number with a star": "55*", "hexadecimal": "0x37",
}  # fmt: skip

NUMBERS = [
    *(Case(f"{what} in a number", cells("age", cell), "refused", "column 'age' is not a number in 12 rows") for what, cell in NO_NUMBER.items()),
    Case("a limit in a number", cells("chol", "<60"), "refused", "has limits such as '<' or '>'"),
    Case("a number that has no end", cells("chol", "inf"), "noted", "12 rows have an infinite number, which counts as 'not known'"),
    Case("a currency", cells("income", lambda cell: f"€ {cell}"), "refused", "column 'income' is not a number"),
    Case("a decimal comma", cells("income", lambda cell: cell.replace(".", ","), ALL), "refused", "'income' is not a number in 60 rows"),
    Case("a decimal comma, and the package says so", cells("income", lambda cell: cell.replace(".", ","), ALL), "read", mapping=field("income", 'decimal=","'), predicted=None),
    Case("a point where the package says comma", lambda text: text.encode(), "refused", "has a '.' although its decimal mark is ','", mapping=field("income", 'decimal=","'), predicted=None),
    Case("thousands with a point, 35.000", cells("income", lambda cell: f"{float(cell) // 1000:.0f}.000", ALL), "refused", "three digits after every mark", predicted="write numbers without marks between thousands"),
    Case("thousands with a point and a limit among them, >35.000", cells("income", lambda cell: f"{'>' * cell.endswith('1')}{float(cell) // 1000:.0f}.000", ALL), "refused", "three digits after every mark", mapping=field("income", 'censored="limit"'), predicted=None),
    Case("thousands with a comma where the package says decimal comma, 32,812", cells("income", lambda cell: f"{float(cell):,.0f}", ALL), "refused", "three digits after every mark", mapping=field("income", 'decimal=","'), predicted=None),
    Case("thousands with a comma, 32,812", cells("income", lambda cell: f"{float(cell):,.0f}", ALL), "refused", "'income' is not a number"),
    Case("thousands with a point, and the package says so", cells("income", grouped(".", ","), ALL), "read", mapping=field("income", 'decimal=",", thousands="."'), predicted=None),
    Case("thousands with a comma, and the package says so", cells("income", grouped(","), ALL), "read", mapping=field("income", 'thousands=","'), predicted=None),
    Case("thousands with a blank, and the package says so", cells("income", grouped(" "), ALL), "read", mapping=field("income", 'thousands=" "'), predicted=None),
    Case("thousands with a narrow hard blank, and the package says blank", cells("income", grouped("\u202f"), ALL), "read", mapping=field("income", 'thousands=" "'), predicted=None),
    Case("thousands with an apostrophe, and the package says so", cells("income", grouped("'"), ALL), "read", mapping=field("income", """thousands="'" """), predicted=None),
    Case("thousands with a blank", cells("income", grouped(" "), ALL), "refused", "'income' is not a number"),
    Case("thousands with an apostrophe", cells("income", grouped("'"), ALL), "refused", "'income' is not a number"),
    Case("marks between thousands at other places", cells("income", "1.00.000"), "refused", "marks between thousands at other places", mapping=field("income", 'decimal=",", thousands="."'), predicted=None),
    Case("three decimals that can be no thousands by their range", cells("visits", lambda cell: f"{cell}.000", ALL), "read"),
    Case("another unit (mmol/L)", cells("chol", lambda cell: f"{float(cell) / 38.67:.2f}", ALL), "refused", "outside the schema's range 50 to 1000 mg/dL in 60 rows"),
    Case("below the range", cells("age", "-4"), "refused", "outside the schema's range 0 to 120 years"),
    Case("999 for not known, outside the range", cells("age", "999"), "refused", "outside the schema's range 0 to 120 years"),
    Case("99 for not known, in the range", cells("visits", "99"), "noted", "12 rows have one value that is far from all others"),
    Case("0 for not known, in the range", cells("income", "0"), "noted", "12 rows have one value that is far from all others"),
    Case("9999999 for not known, in the range", cells("income", "9999999"), "noted", "12 rows have one value that is far from all others"),
    Case("0 for an age that is not known", cells("age", "0"), "noted", "12 rows have one value that is far from all others"),
    Case("two columns exchanged", table(lambda found: found.rename(columns={"age": "chol", "chol": "age"})), "refused", "outside the schema's range"),
    Case("one value throughout", cells("age", "40", ALL), "noted", "has the same value in every row"),
    Case("an empty column", cells("age", "", ALL), "noted", "missing in every row: map it to None if the site does not have it", predicted="'age': is empty"),
    Case("whole numbers with 0.0", cells("age", lambda cell: f"{cell}.0", ALL), "read"),
    Case("powers of ten", cells("age", lambda cell: f"{float(cell):.2e}", ALL), "read"),
    Case("a plus before numbers", cells("age", lambda cell: f"+{cell}", ALL), "read"),
]  # fmt: skip

NO_FLAG = {"ja": "ja", "two": "2", "a cross": "x", "one letter": "Y", "true and more": "true!", "a minus": "-1"}
FLAGS = [
    *(Case(f"a flag as {what}", cells("smokes", cell), "refused", "is not a flag (0 or 1, yes or no) in 12 rows") for what, cell in NO_FLAG.items()),
    Case("a flag as TRUE and FALSE", cells("smokes", lambda cell: "TRUE" if cell == "1" else "FALSE", ALL), "read"),
    Case("a flag as 1.0 and 0.0", cells("smokes", lambda cell: f"{cell}.0", ALL), "read"),
    Case("a flag as yes and No", cells("smokes", lambda cell: "yes" if cell == "1" else "No", ALL), "read"),
]  # fmt: skip

FOREIGN = {
    "a capital": str.title, "one letter": lambda cell: cell[0], "a word for not known": "unknown", "a blank within": "ma le",
    "a sign of no width": lambda cell: cell + "\u200b", "a letter of another script": lambda cell: cell.replace("a", "а"),
    "a wrong encoding": "mÃ¤nnlich", "a number": "1", "a point behind": lambda cell: f"{cell}.",
}  # fmt: skip
CATEGORIES = [
    *(Case(f"{what} in a category", cells("sex", cell), "refused", "column 'sex' has a value that the schema does not allow") for what, cell in FOREIGN.items()),
    Case("a code that the package does not know", cells("sex", "d"), "refused", "has a code that the mapping does not know", mapping=field("sex", 'values={"female": "female", "male": "male"}'), predicted=None),
    Case("codes that the package knows", cells("sex", lambda cell: "2" if cell == "female" else "1", ALL), "read", mapping=field("sex", 'values={"1": "male", "2": "female"}'), predicted=None),
    Case("a hard blank behind", cells("sex", lambda cell: cell + "\u00a0", ALL), "read"),
    Case("an outcome that is not known", cells("outcome", ""), "refused", "column 'outcome' has no value (rows without an outcome", predicted=None),
    Case("no outcome is known", cells("outcome", "", ALL), "refused", "column 'outcome' has no value", predicted=None),
    Case("an outcome that is no class", cells("outcome", "perhaps"), "refused", "column 'outcome' has a value that the schema does not allow"),
    Case("an outcome as 1 and 0", cells("outcome", lambda cell: str(int(cell == "yes")), ALL), "refused", "column 'outcome' has a value that the schema does not allow in 60 rows"),
    Case("an outcome as 1 and 0, and the package says so", cells("outcome", lambda cell: str(int(cell == "yes")), ALL), "read", mapping=field("outcome", 'values={"1": "yes", "0": "no"}'), predicted=None),
    Case("one outcome throughout", cells("outcome", "yes", ALL), "noted", "has one class only", predicted=None),
    Case("one category throughout", cells("ward", "north", ALL), "noted", "has the same value in every row"),
]  # fmt: skip

ROWS_OF_ALL = [
    Case("rows twice", table(lambda found: found.iloc[[*range(ROWS), *range(12)]]), "noted", "12 rows are copies of another row"),
    Case("the whole table twice", lambda text: (text + text.split("\n", 1)[1]).encode(), "noted", "60 rows are copies of another row"),
    Case("a few rows only", lambda text: as_csv(frame(text).head(8)), "refused", "at least 10 are needed", predicted=None),
    Case("rows in another order", table(lambda found: found[::-1]), "read"),
]  # fmt: skip
