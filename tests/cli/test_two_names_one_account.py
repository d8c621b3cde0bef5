"""One table under two datasets' names, by the commands: one budget, and no differencing."""

import json
import os
from pathlib import Path

import pytest

from tests.conftest import small_table
from tests.machines import called

PACKAGE = """
from flfed import Csv, Holdout, Mapped, Site
site = Site(
    name="{name}", dataset="small", source=Csv("rows.csv"), holdout=Holdout(salt="{name}"),
    also={{"slim": Mapped({{"length": "x1", "outcome": "y"}})}},
)
"""
SLIM = """
format = 1
name = "slim"
task = "binary"
target = "outcome"
[columns.length]
kind = "number"
range = [0, 100]
[columns.outcome]
kind = "target"
values = ["no", "yes"]
"""
PRIVATE = '[privacy]\nname = "record-dp"\nepsilon = 2.0\nsampling = 0.2\n'
SITES = ("site-a", "site-b")


@pytest.fixture
def root(small_sites, tmp_path: Path, small_study: str) -> Path:
    """Two institutions with a budget of 2.5 that serve one table under two names, and a study of each name."""
    root = tmp_path / "root"
    (root / "datasets" / "slim").mkdir()
    (root / "datasets" / "slim" / "schema.toml").write_text(SLIM)
    source = (root / "datasets" / "small" / "source.toml").read_text()
    (root / "datasets" / "slim" / "source.toml").write_text(source)
    for number, name in enumerate(SITES):
        package = root / "sites" / name.replace("-", "_")
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(PACKAGE.format(name=name))
        (package / "policy.toml").write_text('format = 1\ndisclosure = "institution"\nepsilon = 2.5\n')
        small_table(200 + 20 * number, seed=number).to_csv(package / "rows.csv", index=False)
    for name in ("small", "slim"):
        text = small_study.replace('name = "small"', f'name = "{name}"').replace("epochs = 1", "steps = 4")
        (tmp_path / f"{name}.toml").write_text(text + PRIVATE)
    return root


def command(root: Path, *words: object) -> tuple[int, str, str]:
    environment = {"FLFED_HOME": os.environ["FLFED_HOME"], "FLFED_PATH": str(root)}
    return called([str(word) for word in words], environment, root.parent)


@pytest.mark.studies
def test_the_second_name_finds_the_budget_spent_and_with_a_row_less_nothing_at_all(root: Path):
    code, out, error = command(root, "study", "run", root.parent / "small.toml", "--json")
    assert (code, json.loads(out)["status"]) == (0, "completed"), error
    code, out, error = command(root, "study", "run", root.parent / "slim.toml", "--json")
    assert code == 3 and json.loads(out)["reason"].startswith("privacy budget: none left at site-a, site-b"), error
    found = json.loads(command(root, "site", "budget", "site-a", "--json")[1])["datasets"]
    assert [one["account"] for one in found] == [["slim", "small"]] * 2
    assert found[0]["spent"] == found[1]["spent"] and 2.0 < found[0]["spent"] <= 2.5
    for name in SITES:
        table = root / "sites" / name.replace("-", "_") / "rows.csv"
        table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))
    code, _, error = command(root, "study", "run", root.parent / "slim.toml", "--set", "seed=8")
    assert code == 2 and error.count("its rows differ by fewer than 10 people from rows whose sums left before") == 2
