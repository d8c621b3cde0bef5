"""The catalogue of damaged tables as a page of the docs."""

from __future__ import annotations

from pathlib import Path

from tests.damage.catalogue import CATALOGUE

PAGE = Path(__file__).resolve().parents[2] / "docs" / "damaged-tables.md"
HEAD = """# Damaged tables, and what is said of them

{many} ways in which a table comes damaged, or is written otherwise than expected, and what `flfed site check` says of each. Each line is a
test: the file is made, the command is run, and what it prints must hold these words, no trace of a program, and no cell of the table.
`flfed predict` reads the same files with the same rules where it can be given them. The first tables have 60 rows; those "of 900 rows" are two
visits each of 450 people, with amounts and dates. Notes rest on counts: of a small table some of them cannot be told.

- **refused**: exit code 2. No study can be run on the table, and nothing is predicted for it.
- **noted**: the table breaks no rule, and something in it is odd. The check passes and shows a line marked *note*.
- **read**: the rows are those of the sound table.
- **sound**: the rows are others, and nothing is odd in them; no line is marked.
- **unseen**: nobody can see it who has this table alone, and nothing is said. The run tells it, as far as it can.

What no site can see alone is told by the run: `flfed study run`, `flfed run show` and the page Overview name a site that lies apart from the
others (its column, and by how many standard deviations: "another unit?"), one whose own model is fine where the shared one is below
chance ("outcome coded the other way round?"), and one that has, in many rows, 1 minus the other sites' share of a flag or of a category of
two values ("coded the other way round?"). Two values that are about as frequent look the same both ways: that no run tells, but a model that is
worse than the site's own.

What you can say in the site's package, `Field(decimal=…, thousands=…, date=…, values=…, missing=…, multiply=…)` and
`Csv(separator=…, encoding=…, columns=…)`, stands in [Join as a site](join-as-a-site.md).

This page is written by `python -m tests.damage`.
"""


def page() -> str:
    """Return the page as Markdown."""
    parts = [HEAD.format(many=sum(map(len, CATALOGUE.values())))]
    for title, cases in CATALOGUE.items():
        parts.append(f"\n## {title}\n\n| what | outcome | what is said |\n|---|---|---|\n")
        parts += [f"| {_cell(case.about)} | {case.outcome} | {_cell(case.says)} |\n" for case in cases]
    return "".join(parts)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
