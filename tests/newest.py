"""Tests under the newest versions of all dependencies: `make newest`, or `python -m tests.newest --help`.

Our upper bounds are taken off. What the registry has then, within the bounds of Flower and of the others, is installed
into an environment of its own. For each package beyond our bound, the first test that fails with it is named: one that
fails twice, and passes again when this package alone is back within its bound. What pytest prints goes to stderr.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
FAST = ("-n", "2", "--dist", "loadfile", "-m", "not slow")
SERVERS = ("-n", "2", "--dist", "loadfile", "-m", "servers and not proof")
RANGES = "tests/test_requirements.py::test_the_installed_version_is_in_the_declared_range"
"""Fails by its nature where a package is beyond our bound."""
FAILED = re.compile(r"^(?:FAILED|ERROR) ([^\s\[]+)", re.MULTILINE)
"""A failing test, without its parameters: these may have spaces, and one fault often fails all of them."""


@dataclass
class Beyond:
    """A package whose newest version is not within our bound.

    Attributes
    ----------
    name, bound, version : str
    first_failing : str
        Test that fails with it; empty where none does.
    """

    name: str
    bound: str
    version: str
    first_failing: str = ""


def requirements(pyproject: Path, extras: Sequence[str] | None = None) -> list[Requirement]:
    """Return the dependencies of a project and of some of its extras, or of all, without itself."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    wanted = list(optional if extras is None else extras)
    found = [Requirement(text) for text in project["dependencies"]]
    for extra in wanted:
        for requirement in map(Requirement, optional[extra]):
            if requirement.name == project["name"]:
                wanted += [name for name in sorted(requirement.extras) if name not in wanted]  # extras of extras
            else:
                found.append(requirement)
    return found


def unbounded(requirement: Requirement) -> str:
    """Return a requirement without its upper bounds.

    Examples
    --------
    >>> unbounded(Requirement("flwr[simulation]>=1.42,<1.43"))
    'flwr[simulation]>=1.42'
    """
    free = Requirement(str(requirement))
    free.specifier = SpecifierSet(",".join(str(one) for one in free.specifier if one.operator in (">=", ">", "!=")))
    return str(free)


def newest_versions(needed: Sequence[Requirement], python: str, pip: Sequence[str] = ()) -> dict[str, str]:
    """Return the version of each package that pip would install without our upper bounds; nothing is installed."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        words = ["install", "--dry-run", "--quiet", "--ignore-installed", "--report", str(report), *pip]
        subprocess.run([python, "-m", "pip", *words, *map(unbounded, needed)], check=True, capture_output=True)
        installs = json.loads(report.read_text(encoding="utf-8"))["install"]
    return {canonicalize_name(one["metadata"]["name"]): one["metadata"]["version"] for one in installs}


def beyond_bounds(needed: Sequence[Requirement], versions: dict[str, str]) -> list[Beyond]:
    """Return the packages whose newest version is not within our bound, by name."""
    found = {}
    for requirement in needed:
        name = canonicalize_name(requirement.name)
        version = versions.get(name)
        if version is not None and not requirement.specifier.contains(version, prereleases=True):
            found[name] = Beyond(name, str(requirement.specifier), version)
    return sorted(found.values(), key=lambda one: one.name)


def failing(python: str, selection: Sequence[str]) -> list[str]:
    """Return the failing tests of a selection, in order; a file that cannot be imported counts as one."""
    words = [python, "-m", "pytest", "-q", "-rfE", "--continue-on-collection-errors", "--deselect", RANGES, *selection]
    lines = []
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            sys.stderr.write(line)
            lines.append(line)
    if process.returncode not in (0, 1):
        raise SystemExit(f"pytest ended with {process.returncode}")
    return list(dict.fromkeys(FAILED.findall("".join(lines))))


def attribute(
    packages: Sequence[Beyond],
    failures: Sequence[str],
    install: Callable[..., None],
    newest: Sequence[str],
    still_failing: Callable[[Sequence[str]], list[str]],
) -> None:
    """Name the first failing test of each package: one that passes once this package alone is within its bound."""
    for package in packages if failures else ():
        install(f"{package.name}{package.bound}")
        left = set(still_failing(failures))
        install(*newest)
        package.first_failing = next((test for test in failures if test not in left), "")


def main() -> int:
    """Run the tests and print each package beyond our bound; exit code 1 where a test fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.newest", description=__doc__.partition("\n")[0])
    parser.add_argument("--tests", nargs="*", default=[], metavar="TEST", help="these tests in place of all")
    parser.add_argument("--find-links", metavar="DIR", help="folder with further wheels")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    pip = ["--find-links", options.find_links] if options.find_links else []
    needed = requirements(ROOT / "pyproject.toml")
    versions = newest_versions(needed, sys.executable, pip)
    packages = beyond_bounds(needed, versions)
    failures: list[str] = []
    if packages:
        with tempfile.TemporaryDirectory(prefix="flfed-newest-") as folder:
            Path(folder).chmod(0o755)  # some tests run as another user
            venv.create(folder, with_pip=True)
            python = str(Path(folder) / "bin" / "python")

            def install(*words: str) -> None:
                subprocess.run([python, "-m", "pip", "install", "-qq", *pip, *words], check=True, cwd=ROOT)

            newest = [f"{name}=={version}" for name, version in versions.items()]
            install(*newest)
            install("--no-deps", "--config-settings", "editable_mode=compat", "--editable", ".")
            selections = [options.tests] if options.tests else [FAST, SERVERS]
            failures = [test for selection in selections for test in failing(python, selection)]
            if failures:  # some fail by chance, on a busy machine
                failures = failing(python, failures)
            attribute(packages, failures, install, newest, lambda some: failing(python, some))
    print_found(packages, failures, as_json=options.json)
    return 1 if failures else 0


def print_found(packages: Sequence[Beyond], failures: Sequence[str], *, as_json: bool) -> None:
    named = {package.first_failing for package in packages}
    others = [test for test in failures if test not in named]
    if as_json:
        print(json.dumps({"beyond": [asdict(one) for one in packages], "failing": list(failures)}, indent=2))
        return
    if not packages:
        print("Every newest version is within our bounds.")
    for one in packages:
        what = one.first_failing or "no test fails with it alone"
        print(f"{one.name}: bound {one.bound}, newest {one.version}: {what}")
    if others:
        print(f"{len(others)} further failing tests, the first: {others[0]}")


if __name__ == "__main__":
    sys.exit(main())
