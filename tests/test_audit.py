"""`make audit`: known vulnerabilities of the lock, by pip-audit against a server that answers as OSV does."""

import http.server
import json
import subprocess
import sys
import threading
import venv
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from packaging.version import Version

from tests.audit import TOOL, Audit, NoAnswerError, answer, digest, lines, pins
from tests.lock import LOCK, locked_versions
from tests.newest import ROOT
from tests.wheels import pip

TEXT = LOCK.read_text(encoding="utf-8")
KNOWN = {"package": "rich", "version": "14.3.4", "id": "PYSEC-1", "aliases": ["CVE-1"], "fixed-in": ["14.3.5", "15.0"]}


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "tests.audit", *words], cwd=ROOT, capture_output=True, text=True)


def test_each_version_of_the_lock_is_audited_whatever_its_marker():
    versions = locked_versions(TEXT)
    listed = [line for one in pins(versions) for line in one]
    assert len(listed) == len(set(listed)) == sum(map(len, versions.values()))
    assert {"torch==2.13.0", "torch==2.10.0", "flwr==1.42.0"} <= set(listed) and "+" not in "".join(listed)
    assert pins({"a": {Version("1.0+cpu"), Version("1.0")}}) == [["a==1.0"]]


def test_what_pip_audit_leaves_out_is_no_answer(tmp_path: Path):
    tool = tmp_path / "pip-audit"
    skipped = '{"dependencies": [{"name": "a", "skip_reason": "not found"}, {"name": "b", "vulns": []}]}'
    tool.write_text(f"#!/bin/sh\nfor last; do :; done\necho '{skipped}' > \"$last\"\n")
    tool.chmod(0o755)
    with pytest.raises(NoAnswerError, match="left out 1 of 2 packages"):
        answer(tool, ["a==1", "b==1"], "http://127.0.0.1:1")


def test_a_stored_answer_has_its_age_and_a_line_for_each_vulnerability():
    shown = Audit("2026-11-01", digest(TEXT), "https://osv.example", 113, [KNOWN, KNOWN | {"fixed-in": []}])
    head, *known = lines(shown, TEXT, date(2026, 11, 28))
    assert head == "2026-11-01 (27 days ago): 113 packages, 2 known vulnerabilities"
    assert known == [f"rich 14.3.4: PYSEC-1 CVE-1, fixed in {fixed}" for fixed in ("14.3.5, 15.0", "no version")]
    assert "requirements.lock has changed since" in lines(shown, TEXT + "\n#", date(2026, 11, 28))[0]


def test_without_pip_audit_and_without_an_answer_nothing_is_stored(tmp_path: Path):
    done = run("--pip-audit", tmp_path / "none", "--stored", tmp_path / "answer.json")
    assert (done.returncode, done.stdout) == (2, "No answer is stored yet.\n")
    assert done.stderr.startswith("No answer from https://api.osv.dev") and not (tmp_path / "answer.json").exists()


class Osv(http.server.BaseHTTPRequestHandler):
    """Knows the vulnerabilities in `known`, by package and version."""

    known: dict[tuple[str, str], list[object]] = {}
    asked: list[tuple[str, str]] = []

    def do_POST(self) -> None:
        query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        pair = (query["package"]["name"], query["version"])
        self.asked.append(pair)
        body = json.dumps({"vulns": self.known[pair]} if pair in self.known else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def tool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pip-audit")
    venv.create(folder, with_pip=True)
    pip("install", TOOL, python=f"{folder}/bin/python")
    return folder / "bin" / "pip-audit"


@pytest.fixture
def osv() -> Iterator[http.server.ThreadingHTTPServer]:
    Osv.known, Osv.asked = {}, []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Osv) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.proof
def test_pip_audit_asks_the_service_and_its_answer_outlives_the_service(
    tool: Path, osv: http.server.ThreadingHTTPServer, tmp_path: Path
):
    stored = tmp_path / "answer.json"
    words = ["--pip-audit", tool, "--stored", stored, "--osv-url", f"http://127.0.0.1:{osv.server_port}"]
    none = run(*words)
    assert none.returncode == 0, none.stderr
    assert none.stdout.endswith(f"(0 days ago): {len(Osv.asked)} packages, 0 known vulnerabilities\n")
    assert set(Osv.asked) == {tuple(line.split("==")) for one in pins(locked_versions(TEXT)) for line in one}

    ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.13.1"}]}]
    affected = [{"package": {"name": "torch", "ecosystem": "PyPI"}, "ranges": ranges}]
    Osv.known = {("torch", "2.13.0"): [{"id": "PYSEC-2026-1", "aliases": ["CVE-2026-1"], "affected": affected}]}
    some = run(*words)
    assert some.returncode == 1, some.stderr
    (line,) = some.stdout.splitlines()[1:]
    assert line == "torch 2.13.0: PYSEC-2026-1 CVE-2026-1, fixed in 2.13.1"

    answer = json.loads(stored.read_text())
    stored.write_text(json.dumps(answer | {"date": "2026-01-31"}))
    before = stored.read_bytes()
    osv.shutdown()
    osv.server_close()
    gone = run(*words)
    assert gone.returncode == 2 and "No answer from http://127.0.0.1" in gone.stderr
    assert "\n2026-01-31 (" in gone.stdout and gone.stdout.endswith(f"{line}\n") and stored.read_bytes() == before
    stored.unlink()
    assert (run(*words).returncode, run(*words).stdout, stored.exists()) == (2, "No answer is stored yet.\n", False)
