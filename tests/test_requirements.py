"""What flfed requires: ranges that have the installed version, and Starlette as Flower has it."""

from __future__ import annotations

import re
import sys
import tomllib
from importlib.metadata import requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import install

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


def test_an_installation_prints_packages_and_how_long_it_has_run_and_ends_as_pip_does(
    capfd: pytest.CaptureFixture[str],
):
    steps = "print('Collecting torch', flush=True); time.sleep(0.5); print('  noise', flush=True); sys.exit(3)"
    code = install.run([sys.executable, "-c", f"import sys, time; {steps}"], every=0.05)
    out, err = capfd.readouterr()
    lines = out.splitlines()
    assert (code, lines.count("Collecting torch")) == (3, 1)
    lines.remove("Collecting torch")
    assert len(lines) >= 4 and all(re.fullmatch(r"… \d+ s", line) for line in lines)
    # The whole of what pip printed last is shown where it failed.
    assert "noise" in err
