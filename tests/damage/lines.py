"""Lines that are too short, too long or cut, other separators, and lines of names that are not the ones asked for."""

from tests.damage.tables import FOUND, Case, as_csv, frame, line, lines, renamed, separated, table

COLUMNS = 'columns=("person", "seen", "age", "chol", "income", "visits", "smokes", "sex", "ward", "outcome")'
EMPTY = "," * 9
COMMAS = "".join(f'"{name}": Field("{name}", decimal=","),' for name in ("age", "chol", "income", "visits"))


def without_last(count: int):
    """Return what takes the last cells off a line."""
    return lambda text: text.rsplit(",", count)[0]


def joined(found: list[str]) -> list[str]:
    """Return lines in which a quote is opened in line 5 and closed in line 9, both in the first cell."""
    found[5], found[9] = f'"{found[5]}', found[9].replace(",", '",', 1)
    return found


SHORT_AND_LONG = [
    Case("a line with too few cells", line(20, without_last(3)), "refused", "lines have fewer cells than the first"),
    Case("a line without its last cell", line(20, without_last(1)), "refused", "lines have fewer cells than the first"),
    Case("many lines with too few cells", lines(lambda found: [found[0], *map(without_last(2), found[1:21]), *found[21:]]), "refused", "20 lines have fewer cells"),
    Case("a line with a cell too many", line(20, lambda text: text + ",x"), "refused", "lines have more cells than the first"),
    Case("a comma in a cell without quotes", line(20, lambda text: text.replace("-", ",", 1)), "refused", "lines have more cells than the first"),
    Case("decimal commas without quotes", lines(lambda found: [found[0], *(text.replace(".", ",", 1) for text in found[1:])]), "refused", "60 lines have more cells than the first"),
    Case("a name too few", line(0, without_last(1)), "refused", "60 lines have more cells than the first"),
    Case("a name too many", line(0, lambda text: text + ",more"), "refused", "60 lines have fewer cells than the first"),
    Case("cut in the middle of a line", lambda text: text[:1500].rsplit(",", 4)[0].encode(), "refused", "last line is cut"),
    Case("cut in the middle of a quoted cell", lambda text: text.encode() + b'"R\xc3\xb6e', "refused", "cut"),
    Case("cut just before the last line's end", lambda text: text.rstrip("\n").encode(), "noted", "the last line of the file has no line break"),
    Case("a quote that is never closed", line(20, lambda text: '"' + text), "refused", "never closed"),
    Case("two stray quotes that join lines", lines(joined), "refused", "joins lines"),
    Case("a sum at the end", lines(lambda found: [*found, "Total,60"]), "refused", "fewer cells than the first"),
    Case("a count at the end", lines(lambda found: [*found, "(60 rows)"]), "refused", "fewer cells than the first"),
    Case("a rule under the names", lines(lambda found: [found[0], "------", *found[1:]]), "refused", "fewer cells than the first"),
    Case("the sign that ended files of MS-DOS", lines(lambda found: [*found, "\x1a"]), "read"),
    Case("a text with a line break in quotes", table(lambda found: found.assign(note="felt well, no pain,\nsent home")), "read"),
]  # fmt: skip

ABOVE = [
    Case("a title above the names", lines(lambda found: ["Clinic 7, export", *found]), "refused", "a title stands above", predicted=FOUND),
    Case("a title of one cell", lines(lambda found: ["Export", *found]), "refused", "a title stands above", predicted=FOUND),
    Case("a comment above the names", lines(lambda found: ["# made by a program", *found]), "refused", "a title stands above", predicted=FOUND),
    Case("a line for Excel that names the separator", lines(lambda found: ["sep=,", *found]), "refused", "a title stands above", predicted=FOUND),
    Case("a title with empty cells beside it", lines(lambda found: ["Export" + EMPTY, *found]), "refused", "the names are 1 line further down"),
    Case("three lines above the names", lines(lambda found: ["Export" + EMPTY, EMPTY, "Clinic" + EMPTY, *found]), "refused", "lines further down"),
    Case("a line of units under the names", lines(lambda found: [found[0], "-,-,years,mg/dL,EUR,-,-,-,-,-", *found[1:]]), "refused", "is not a"),
    Case("the names once more in the middle", lines(lambda found: [*found[:30], found[0], *found[30:]]), "refused", "is not a"),
    Case("no line of names", lines(lambda found: found[1:]), "refused", "neither is any other column of the schema", predicted="none of the columns of dataset 'clinic'"),
    Case("no line of names, and the package gives them", lines(lambda found: found[1:]), "read", source=f'Csv("rows.csv", {COLUMNS})', predicted=None),
    Case("a line of names, and the package gives them too", lambda text: text.encode(), "refused", "its first line holds the names", source=f'Csv("rows.csv", {COLUMNS})', predicted=None),
    Case("names alone", lines(lambda found: found[:1]), "refused", "the table is empty", predicted="the table has no rows"),
    Case("another table", lambda text: b"a,b,c\n1,2,3\n4,5,6\n", "refused", "neither is any other column", predicted="none of the columns"),
    Case("rows and columns exchanged", lambda text: as_csv(frame(text).set_index("person").T.reset_index(names="person")), "refused", "is not in the table"),
]  # fmt: skip

SEPARATORS = [
    Case("semicolons", separated(";"), "refused", "separated by ';'", predicted=FOUND),
    Case("tabs", separated("\t"), "refused", r"separated by '\t'", predicted=FOUND),
    Case("upright bars", separated("|"), "refused", "separated by '|'", predicted=FOUND),
    Case("semicolons and decimal commas", lambda text: separated(";")(text).replace(b".", b","), "refused", "separated by ';'", predicted="'income' is not a number"),
    Case("commas, and the package says semicolons", lambda text: text.encode(), "refused", "separated by ','", source='Csv("rows.csv", separator=";")', predicted=None),
    Case("semicolons, and the package says so", separated(";"), "read", source='Csv("rows.csv", separator=";")', predicted=None),
    Case("tabs, and the package says so", separated("\t"), "read", source=r'Csv("rows.csv", separator="\t")', predicted=None),
    Case("semicolons and decimal commas, and the package says so", lambda text: separated(";")(text).replace(b".", b","), "read", source='Csv("rows.csv", separator=";")', mapping=COMMAS, predicted=None),
    Case("lines that end as in Windows", lambda text: text.replace("\n", "\r\n").encode(), "read"),
    Case("lines that end as in an old Mac", lambda text: text.replace("\n", "\r").encode(), "read"),
    Case("lines that end in two ways", lambda text: text.replace("\n", "\r\n", 20).encode(), "read"),
    Case("an empty line in the middle", lines(lambda found: [*found[:9], "", *found[9:]]), "read"),
    Case("a line of empty cells", lines(lambda found: [*found[:9], EMPTY, *found[9:]]), "refused", "column 'person' has no value, but rows are grouped by it", predicted="rows are empty throughout"),
    Case("a separator after the last cell", lines(lambda found: [text + "," for text in found]), "read"),
    Case("a separator after the last cell, but for the names", lines(lambda found: [found[0], *(text + "," for text in found[1:])]), "read"),
    Case("blanks around cells", lines(lambda found: [found[0], *(text.replace(",", " , ") for text in found[1:])]), "read"),
    Case("every cell in quotes", lambda text: as_csv(frame(text), quoting=1), "read"),
]  # fmt: skip

NAMES = [
    Case("a name with a capital", renamed({"age": "Age"}), "refused", "did you mean 'Age'?"),
    Case("names in capitals", table(lambda found: found.rename(columns=str.upper)), "refused", "did you mean 'AGE'?", predicted="did you mean"),
    Case("a blank behind a name", renamed({"age": "age "}), "refused", "did you mean 'age '?"),
    Case("a hard blank before a name", renamed({"age": "\u00a0age"}), "refused", r"did you mean '\xa0age'?"),
    Case("a sign of no width in a name", renamed({"age": "a\u200bge"}), "refused", r"did you mean 'a\u200bge'?"),
    Case("the mark of UTF-8 twice", lambda text: "\ufeff\ufeff".encode() + text.encode(), "read"),
    Case("a hyphen in a name", renamed({"income": "in-come"}), "refused", "did you mean 'in-come'?"),
    Case("the outcome with a capital", renamed({"outcome": "Outcome"}), "refused", "did you mean 'Outcome'?", predicted=None),
    Case("another name", renamed({"age": "alter"}), "refused", "column 'age' is not in the table (map it to None", predicted="column 'age' is not in the table (add it"),
    Case("another name, and the package says so", renamed({"age": "alter"}), "read", mapping='"age": "alter",', predicted=None),
    Case("a name that the package misspells", renamed({"age": "alter"}), "refused", "column 'age' is not in the table", mapping='"age": "alder",', predicted=None),
    Case("a column that the schema does not have is mapped", lambda text: text.encode(), "refused", "is mapped but the schema has no such column", mapping='"agee": "age",', predicted=None),
    Case("a name twice", renamed({"chol": "age"}), "refused", "stands in the table more than once"),
    Case("a column twice, but for a capital", table(lambda found: found.assign(Age="1")), "noted", "the table also has 'Age'; 'age' is read"),
    Case("no outcome", table(lambda found: found.drop(columns="outcome")), "refused", "column 'outcome' is not in the table", predicted=None),
    Case("no identifier", table(lambda found: found.drop(columns="person")), "refused", "column 'person' is not in the table", predicted=None),
    Case("columns in another order", table(lambda found: found[found.columns[::-1]]), "read"),
    Case("columns that nobody asked for", table(lambda found: found.assign(more="x", other="y")), "read"),
    Case("a column of row numbers without a name", lambda text: frame(text).to_csv().encode(), "read"),
]  # fmt: skip
