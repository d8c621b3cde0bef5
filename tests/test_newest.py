"""`make newest` names a package beyond our bound, its versions, and the first test that fails with it."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests import test_requirements
from tests.newest import RANGES, Beyond, attribute, beyond_bounds, failing, requirements, unbounded

ROOT = Path(__file__).resolve().parent.parent


def test_upper_bounds_are_taken_off_and_what_lies_beyond_is_found():
    needed = requirements(ROOT / "pyproject.toml")
    assert {"flwr", "torch", "pytest"} <= {one.name for one in needed} and "flfed" not in {one.name for one in needed}
    assert all("<" not in unbounded(one) for one in needed)
    two = [Requirement("tomli-w>=1.0,<2"), Requirement("rich>=13.9,<15")]
    assert beyond_bounds(two, {"tomli-w": "2.1", "rich": "14.2"}) == [Beyond("tomli-w", "<2,>=1.0", "2.1")]


def test_a_failing_test_is_named_with_the_package_without_which_it_passes():
    one, other = Beyond("a", "<2", "2.0"), Beyond("b", "<5", "5.1")
    installed: dict[str, str] = {}

    def install(*words: str) -> None:
        installed.update({what[0]: what[1:] for what in words})

    def still_failing(tests: list[str]) -> list[str]:
        return [test for test in tests if test != "test_b" or installed.get("b") != "<5"]

    attribute([one, other], ["test_c", "test_b"], install, ["a==2.0", "b==5.1"], still_failing)
    assert (one.first_failing, other.first_failing) == ("", "test_b")
    assert installed == {"a": "==2.0", "b": "==5.1"}


def test_a_failing_test_is_named_once_whatever_its_parameters(tmp_path: Path):
    file = tmp_path / "test_two.py"
    file.write_text(
        "import pytest\n@pytest.mark.parametrize('n', [1, 2], ids='number {}'.format)\n"
        "def test_odd(n):\n    assert n > 2, 'a - b'\ndef test_even():\n    pass\n"
    )
    (name,) = failing(sys.executable, [str(file)])
    assert name.endswith("test_two.py::test_odd")
    assert hasattr(test_requirements, RANGES.partition("::")[2])


def wheel(folder: Path, name: str, version: str, text: str) -> None:
    """Write a package of one module."""
    about = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as made:
        made.writestr(f"{name}/__init__.py", text)
        made.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        made.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        made.writestr(f"{about}/RECORD", "")


@pytest.mark.proof
@pytest.mark.timeout(1800)
def test_a_planted_package_that_lacks_a_name_is_named_with_its_test(tmp_path: Path):
    wheel(tmp_path, "tomli_w", "99.0", "def write_nothing():\n    return None\n")
    words = ["--find-links", str(tmp_path), "--json", "--tests", "tests/cli/test_site_cards.py"]
    done = subprocess.run([sys.executable, "-m", "tests.newest", *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr[-3000:]
    found = {one["name"]: one for one in json.loads(done.stdout)["beyond"]}
    assert (found["tomli-w"]["version"], found["tomli-w"]["bound"]) == ("99.0", "<2,>=1.0")
    assert found["tomli-w"]["first_failing"].startswith("tests/cli/test_site_cards.py")
    assert not any(one["first_failing"] for name, one in found.items() if name != "tomli-w")
