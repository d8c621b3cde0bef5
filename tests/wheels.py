"""flfed and all that it needs as wheels, for machines without internet: `make wheels DIR=…`.

The folder gets the wheels of this platform and Python, `requirements.txt` with the hash of each, `install.sh`, and a
list of the components (CycloneDX). Versions and hashes are those of requirements.lock.
"""

import argparse
import hashlib
import re
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path

from tests.lock import LOCK, locked
from tests.newest import ROOT

EXTRAS = "all"
WHEEL = re.compile(r"(?P<name>[^-]+)-(?P<version>[^-]+)-.+\.whl")
SBOM = "sbom.cdx.json"
BOM_TOOL = "cyclonedx-bom>=7,<8"
INSTALL = """\
#!/bin/sh
# Installs flfed from the wheels beside this file, without a network: sh install.sh [ENVIRONMENT]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
environment=${{1:-flfed}}
python=${{PYTHON:-python3}}
"$python" -c 'import sys; sys.exit(sys.version_info[:2] != {version})' || {{
  echo "These wheels are for Python {dotted}; name one: PYTHON=/path/to/python{dotted}" >&2
  exit 1
}}
"$python" -m venv "$environment"
"$environment/bin/python" -m pip --isolated --disable-pip-version-check install --no-index \\
  --find-links "$here/wheels" --require-hashes --requirement "$here/requirements.txt"
echo "Installed: $environment/bin/flfed"
"""


def pip(*words: str, python: str = sys.executable) -> None:
    subprocess.run([python, "-m", "pip", "--disable-pip-version-check", "-qq", *words], check=True, cwd=ROOT)


def download(wheels: Path, extras: str, pip_args: Sequence[str]) -> None:
    """Build flfed's wheel, and download all that it needs with these extras, in the versions of the lock."""
    wheels.mkdir(parents=True)
    pip("wheel", "--no-deps", "--wheel-dir", str(wheels), ".")
    (own,) = wheels.glob("flfed-*.whl")
    wanted = f"flfed[{extras}] @ {own.as_uri()}" if extras else own.as_uri()
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        constraints.writelines(f"{one}\n" for one in locked(LOCK.read_text(encoding="utf-8")))
        constraints.flush()
        words = ["--only-binary", ":all:", "--constraint", constraints.name, "--dest", str(wheels)]
        pip("download", *words, *pip_args, wanted)


def pinned(wheels: Path, lock: str) -> str:
    """Return a line of requirements for each wheel, with its hash.

    Raises
    ------
    SystemExit
        If a file is no wheel: it could not be installed without tools and a network. Or if the lock lacks its hash:
        flfed's own is not in it, and torch's CPU wheel is not for each platform.
    """
    lines = []
    for path in sorted(wheels.iterdir()):
        match = WHEEL.fullmatch(path.name)
        if match is None:
            raise SystemExit(f"{path.name}: no wheel for {sysconfig.get_platform()}")
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        if f"sha256:{sha256}" not in lock and match["name"] not in ("flfed", "torch"):
            raise SystemExit(f"{path.name}: its hash is not in requirements.lock: make lock")
        lines.append(f"{match['name'].replace('_', '-')}=={match['version']} --hash=sha256:{sha256}\n")
    return "".join(lines)


def list_components(requirements: Path, target: Path) -> None:
    """Write the list of components, by a tool in an environment of its own."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        pip("install", BOM_TOOL, python=f"{folder}/bin/python")
        words = ["requirements", str(requirements), "--pyproject", str(ROOT / "pyproject.toml"), "-o", str(target)]
        # The tool warns that a list of requirements has no tree.
        subprocess.run([f"{folder}/bin/python", "-W", "ignore", "-m", "cyclonedx_py", *words], check=True)


def main() -> None:
    """Write the folder, which must be new."""
    parser = argparse.ArgumentParser(prog="python -m tests.wheels", description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="new folder")
    parser.add_argument("--extras", default=EXTRAS, help=f"extras of flfed, such as ray,postgres; default: {EXTRAS}")
    options, pip_args = parser.parse_known_args()
    folder: Path = options.folder.absolute()
    if folder.exists():
        raise SystemExit(f"{folder}: is there already; name a new folder")
    download(folder / "wheels", options.extras, pip_args)
    requirements = folder / "requirements.txt"
    requirements.write_text(pinned(folder / "wheels", LOCK.read_text(encoding="utf-8")), encoding="utf-8")
    version = sys.version_info[:2]
    script = INSTALL.format(version=tuple(version), dotted=".".join(map(str, version)))
    (folder / "install.sh").write_text(script, encoding="utf-8")
    list_components(requirements, folder / SBOM)
    count = len(list((folder / "wheels").iterdir()))
    print(f"{folder}: {count} wheels for {sysconfig.get_platform()}. There: sh install.sh")


if __name__ == "__main__":
    main()
