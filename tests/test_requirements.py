"""What flfed requires: ranges that have the installed version, and Starlette as Flower has it."""

import re
import tomllib
from importlib.metadata import requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DECLARED = {found.name: found.specifier for found in map(Requirement, PROJECT["dependencies"])}


@pytest.mark.parametrize("name", sorted(DECLARED))
def test_the_installed_version_is_in_the_declared_range(name: str):
    assert DECLARED[name].contains(version(name), prereleases=True)


def test_starlette_is_required_as_flower_requires_it():
    # The lock in front of the SuperLink and the app's pages are written against it; what is below or above the range
    # cannot be installed beside this Flower.
    of_flower = next(found.specifier for found in map(Requirement, requires("flwr") or ()) if found.name == "starlette")
    assert DECLARED["starlette"] == of_flower
    assert any(bound.operator == ">=" for bound in DECLARED["starlette"])


def test_the_demo_installs_no_tool_for_tests():
    extras = PROJECT["optional-dependencies"]
    names = {requirement.name for requirement in map(Requirement, [*PROJECT["dependencies"], *extras["demo"]])}
    # All that `make env` adds is of the extra `test`, and is missing from the demo.
    tools = {requirement.name for requirement in map(Requirement, extras["test"])} - {"flfed"}
    assert {"ruff", "mypy", "xgboost-cpu", "lifelines", "pytest"} <= tools
    assert names & (tools | {"ray"}) == set() and "flwr" in names
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"^demo: \.venv/demo$", makefile, flags=re.MULTILINE)
    assert re.search(r"^\.venv/made: \.venv/demo$", makefile, flags=re.MULTILINE)
