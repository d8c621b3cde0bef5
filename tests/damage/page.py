"""The catalogue of damaged tables as a page of the docs."""

from pathlib import Path

from tests.damage.catalogue import CATALOGUE

PAGE = Path(__file__).resolve().parents[2] / "docs" / "damaged-tables.md"
HEAD = """# Damaged tables, and what flfed reports

A table can come damaged, or be written otherwise than expected. These are {many} such ways, and what `flfed site check` reports of each.

Each line is a test. It makes the file, runs the command, and compares what the command prints. The output must have these words, no
traceback, and no cell of the table. `flfed predict` reads the same files by the same rules, where it accepts them;
it finds separator and encoding of a file itself, and its decimal mark not.

The first tables have 60 rows. Those "of 900 rows" are two visits each of 450 people, with amounts and dates. Notes rest on counts:
in a small table some of them do not appear.

- **refused**: exit code 2. No study can run on the table. Nothing is predicted for it, but for files whose separator or encoding `predict` finds.
- **noted**: the table breaks no rule, and something in it is odd. The check passes and shows a line marked *note*.
- **read**: the rows are those of the sound table.
- **sound**: the rows are others, and nothing is odd in them. No line is marked.
- **unseen**: nobody can see it in this table alone, so the check reports nothing. The run reports it as far as it can.

The run reports what no site can see alone. `flfed study run`, `flfed run show` and the page Overview name such a site:

- It lies apart from the others in a column, by a number of standard deviations: "another unit?"
- Its own model is fine, but the shared one is below chance there: "outcome coded the other way round?"
- In many rows, its share of a flag is 1 minus the other sites' share: "coded the other way round?" The same holds of a category of
  two values.

Two values that are about as frequent look the same both ways. No run reports that. The only sign is a shared model that is worse than
the site's own.

[Join as a site](join-as-a-site.md) has what you can declare in the site's package:
`Field(decimal=…, thousands=…, date=…, values=…, missing=…, multiply=…)` and `Csv(separator=…, encoding=…, columns=…)`.

This page is written by `python -m tests.damage`.
"""


def page() -> str:
    """Return the page as Markdown."""
    parts = [HEAD.format(many=sum(map(len, CATALOGUE.values())))]
    for title, cases in CATALOGUE.items():
        parts.append(f"\n## {title}\n\n| what | outcome | what flfed reports |\n|---|---|---|\n")
        parts += [f"| {_cell(case.about)} | {case.outcome} | {_cell(case.says)} |\n" for case in cases]
    return "".join(parts)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
