"""Locked versions and hashes of all that flfed needs: `make lock` writes requirements.lock.

Versions and hashes are those of the registry, for every system. Of torch the lock has CPU wheels alone. The registry
lacks these of newer versions: they lie at PyTorch's own index, or where PIP_FIND_LINKS says. Without that, aarch64 gets
the last version whose wheel on the registry is one. A platform whose wheel could not be reached is named in the lock.
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version

from tests.newest import ROOT, requirements

LOCK = ROOT / "requirements.lock"
EXTRAS = ("all",)
PYTHONS = ("3.11", "3.12", "3.13")
MACHINES = {"x86_64": "manylinux_2_28_x86_64", "aarch64": "manylinux_2_28_aarch64"}
"""Names of machines in a marker, with the platform of their wheels."""
LAST_WITHOUT_CUDA = {"aarch64": "2.10.0"}
"""Last torch whose wheel on the registry is a CPU wheel; those for x86-64 have CUDA."""
DIGEST = "# sha256 of what follows: "


def needed() -> list[Requirement]:
    """Return flfed's dependencies and those of its extras, without torch, and those of torch's CPU build."""
    own = [one for one in requirements(ROOT / "pyproject.toml", EXTRAS) if one.name != "torch"]
    of_torch = [Requirement(text) for text in requires("torch") or ()]
    # The CUDA build's packages have a marker of their own; the CPU build needs the others.
    return own + [one for one in of_torch if one.marker is None]


def resolved(wanted: list[Requirement]) -> str:
    """Return the lines of all packages with their hashes, by uv."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "requirements.in"
        source.write_text("".join(f"{one}\n" for one in wanted), encoding="utf-8")
        words = ["--universal", "--python-version", PYTHONS[0], "--generate-hashes", "--no-header", "--no-annotate"]
        uv = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", *words, str(source)]
        return subprocess.run(uv, check=True, capture_output=True, text=True).stdout


def torch_lines() -> Iterator[str]:
    """Yield the line of torch's CPU wheel for each Python and machine, or a comment where it cannot be reached."""
    wanted = Version(version("torch")).public
    for python in PYTHONS:
        for machine, platform in MACHINES.items():
            marker = f'python_version == "{python}" and platform_machine == "{machine}"'
            found = _torch_wheel(f"{wanted}+cpu", python, platform)
            if found is None and machine in LAST_WITHOUT_CUDA:
                found = _torch_wheel(LAST_WITHOUT_CUDA[machine], python, platform)
            if found is None:
                yield f"# no CPU wheel of torch {wanted} could be reached for: {marker}\n"
            else:
                name, sha256 = found
                yield f"torch=={parse_wheel_filename(name)[1]} ; {marker} \\\n    --hash=sha256:{sha256}\n"


def _torch_wheel(wanted: str, python: str, platform: str) -> tuple[str, str] | None:
    with tempfile.TemporaryDirectory() as folder:
        words = ["--no-deps", "--only-binary", ":all:", "--python-version", python, "--platform", platform]
        pip = [sys.executable, "-m", "pip", "download", "-qq", "--dest", folder, *words, f"torch=={wanted}"]
        if subprocess.run(pip, capture_output=True, check=False).returncode != 0:
            return None
        (wheel,) = Path(folder).iterdir()
        if "torch/lib/libtorch_cuda.so" in zipfile.ZipFile(wheel).namelist():
            return None
        return wheel.name, hashlib.sha256(wheel.read_bytes()).hexdigest()


def signed(body: str) -> str:
    """Return the text of a lock: its digest, then the lines."""
    return f"{DIGEST}{hashlib.sha256(body.encode()).hexdigest()}\n{body}"


def locked(text: str) -> list[Requirement]:
    """Return the packages of a lock, each with its version and marker."""
    lines = [line for line in text.splitlines() if line and not line.startswith(("#", " "))]
    return [Requirement(line.rstrip("\\ ")) for line in lines]


def locked_versions(text: str) -> dict[str, set[Version]]:
    """Return the versions of each package in a lock: several where they depend on Python or the system."""
    found: dict[str, set[Version]] = {}
    for requirement in locked(text):
        (only,) = requirement.specifier
        found.setdefault(canonicalize_name(requirement.name), set()).add(Version(only.version))
    return found


def defects(text: str) -> list[str]:
    """Return why a lock is not the one that was made for this pyproject.toml, a sentence each."""
    first, _, body = text.partition("\n")
    found = []
    if signed(body).partition("\n")[0] != first:
        found.append("requirements.lock was changed since it was made: make lock")
    versions = locked_versions(body)
    for requirement in requirements(ROOT / "pyproject.toml", EXTRAS):
        chosen = versions.get(canonicalize_name(requirement.name), set())
        if not chosen or not all(requirement.specifier.contains(one, prereleases=True) for one in chosen):
            found.append(f"{requirement} is not in requirements.lock with such a version: make lock")
    return found


def main() -> None:
    """Write the lock."""
    today = datetime.now(UTC).date()
    note = (
        f"# Made on {today} by make lock, for Linux on x86-64 and aarch64; pip install --require-hashes -r this file\n"
    )
    LOCK.write_text(signed(note + "".join(torch_lines()) + resolved(needed())), encoding="utf-8")
    count = len(locked_versions(LOCK.read_text(encoding="utf-8")))
    print(f"{LOCK.name}: {count} packages")


if __name__ == "__main__":
    main()
