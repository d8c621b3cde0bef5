"""Known vulnerabilities of what requirements.lock lists: `make audit`.

pip-audit, in an environment of its own, sends each package and version of the lock to OSV. Its answer is stored in
requirements.audit.json with the date. Without an answer the stored one is shown with its age. Exit codes: 0 none known,
1 some known, 2 no answer today.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import venv
from collections.abc import Mapping, Set
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from packaging.version import Version

from tests.lock import LOCK, locked_versions
from tests.wheels import pip

STORED = LOCK.with_name("requirements.audit.json")
TOOL = "pip-audit>=2.10,<3"
SERVICE = "https://api.osv.dev/v1/query"


class NoAnswerError(Exception):
    """pip-audit has no answer for all packages."""


@dataclass(frozen=True)
class Audit:
    """An answer.

    Attributes
    ----------
    date : str
        Day of the answer, in UTC.
    lock : str
        SHA-256 of requirements.lock.
    service : str
    packages : int
        Versions of packages that the answer covers.
    vulnerabilities : list of dict
        `package`, `version`, `id`, `aliases` and `fixed-in`.
    """

    date: str
    lock: str
    service: str
    packages: int
    vulnerabilities: list[dict[str, Any]]


def pins(versions: Mapping[str, Set[Version]]) -> list[list[str]]:
    """Return lines `name==version` without local parts, which OSV lacks: lists that have each package once.

    Examples
    --------
    >>> pins({"torch": {Version("2.13.0+cpu"), Version("2.10.0")}, "numpy": {Version("2.4.6")}})
    [['torch==2.10.0', 'numpy==2.4.6'], ['torch==2.13.0']]
    """
    public = {name: sorted({Version(one.public) for one in several}) for name, several in versions.items()}
    most = max(map(len, public.values()))
    return [[f"{name}=={several[n]}" for name, several in public.items() if n < len(several)] for n in range(most)]


def answer(tool: Path, wanted: list[str], service: str) -> list[dict[str, Any]]:
    """Return pip-audit's answer for each package.

    Raises
    ------
    NoAnswerError
        If the service does not answer, or a package is left out.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "requirements.txt", Path(folder) / "answer.json"
        source.write_text("\n".join(wanted), encoding="utf-8")
        words = ["--no-deps", "--disable-pip", "--vulnerability-service", "osv", "--osv-url", service]
        words += ["--format", "json", "--aliases", "on", "--desc", "off", "--progress-spinner", "off"]
        files = ["--requirement", source, "--output", target]
        done = subprocess.run([tool, *words, *files], capture_output=True, text=True, check=False)
        if not target.exists():
            raise NoAnswerError((done.stderr.strip() or "pip-audit wrote nothing").splitlines()[-1])
        packages = json.loads(target.read_text(encoding="utf-8"))["dependencies"]
    answers = [one for one in packages if "vulns" in one]
    if len(answers) != len(wanted):
        raise NoAnswerError(f"pip-audit left out {len(wanted) - len(answers)} of {len(wanted)} packages")
    return answers


def audit(tool: Path, lock: str, service: str) -> Audit:
    """Return the answer for a lock of today."""
    packages = [one for wanted in pins(locked_versions(lock)) for one in answer(tool, wanted, service)]
    vulnerabilities = []
    for package in packages:
        for one in package["vulns"]:
            names = {"id": one["id"], "aliases": one["aliases"], "fixed-in": one["fix_versions"]}
            vulnerabilities.append({"package": package["name"], "version": package["version"], **names})
    today = datetime.now(UTC).date().isoformat()
    return Audit(today, digest(lock), service, len(packages), vulnerabilities)


def digest(lock: str) -> str:
    return hashlib.sha256(lock.encode()).hexdigest()


def lines(shown: Audit, lock: str, today: date) -> list[str]:
    """Return an answer as lines: its age, then each vulnerability."""
    days = (today - date.fromisoformat(shown.date)).days
    which = "" if shown.lock == digest(lock) else "; requirements.lock has changed since"
    count = len(shown.vulnerabilities)
    text = [f"{shown.date} ({days} days ago{which}): {shown.packages} packages, {count} known vulnerabilities"]
    for one in shown.vulnerabilities:
        fixed = ", ".join(one["fixed-in"]) or "no version"
        text.append(f"{one['package']} {one['version']}: {' '.join([one['id'], *one['aliases']])}, fixed in {fixed}")
    return text


def main() -> int:
    """Audit the lock, store the answer, and print it."""
    parser = argparse.ArgumentParser(prog="python -m tests.audit", description=__doc__.partition("\n")[0])
    parser.add_argument("--osv-url", default=SERVICE, help="another service that answers as OSV does")
    parser.add_argument("--pip-audit", type=Path, help="an installed pip-audit; default: a new environment")
    parser.add_argument("--stored", type=Path, default=STORED, help=f"file of the answer; default: {STORED.name}")
    options = parser.parse_args()
    lock = LOCK.read_text(encoding="utf-8")
    today = datetime.now(UTC).date()
    try:
        with tempfile.TemporaryDirectory() as folder:
            tool = options.pip_audit
            if tool is None:
                tool = Path(folder) / "bin" / "pip-audit"
                venv.create(folder, with_pip=True)
                pip("install", TOOL, python=f"{folder}/bin/python")
            latest = audit(tool, lock, options.osv_url)
    except (NoAnswerError, OSError, subprocess.CalledProcessError) as error:
        print(f"No answer from {options.osv_url}: {error}", file=sys.stderr)
        if not options.stored.exists():
            print("No answer is stored yet.")
            return 2
        stored = Audit(**json.loads(options.stored.read_text(encoding="utf-8")))
        print("\n".join(["The stored answer:", *lines(stored, lock, today)]))
        return 2
    options.stored.write_text(json.dumps(asdict(latest), indent=2) + "\n", encoding="utf-8")
    print("\n".join(lines(latest, lock, today)))
    return 1 if latest.vulnerabilities else 0


if __name__ == "__main__":
    sys.exit(main())
