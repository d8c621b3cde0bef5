"""What others rely on, as it was before the folders were moved: made here, and kept beside this file.

`python -m tests.golden.golden_files` writes the files anew; a change of one is a change of a contract, and is said in
the changelog. What differs from run to run (ids, times, seconds, paths, the version) stands as a mark in them.
"""

import hashlib
import io
import json
import math
import os
import re
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import threadpoolctl
import torch
from flwr.common.serde import recorddict_to_proto

import flfed
from flfed import Study, run
from flfed.cli import main
from flfed.deployment.coordinator.certificates import Settings, initialise
from flfed.deployment.coordinator.kits import invite
from flfed.paths import CoordinatorFolder
from flfed.records.ledger import Ledger
from flfed.records.store.tables import Base
from flfed.rows.data.datasets import load
from flfed.updates.checkpoints import checkpoint as checkpoints
from tests.updates import test_auditing, test_messages

HERE = Path(__file__).parent
STUDY = "breast-cancer"
COMMANDS = (
    f"study run {STUDY} --json",
    "run list --json",
    "run show latest --json",
    "run compare latest latest --json",
    "audit latest --json",
    "study list --json",
    f"study check {STUDY} --json",
    "data list --json",
    "site check south-lender --json",
)
VOLATILE = {
    "seconds", "started", "at", "code", "code-sha256", "version", "mapping", "arrays-sha256", "arrays", "encoder",
    "sums",
}  # fmt: skip
"""Keys whose values are of one run, one place, one version or one kind of processor (see `arrays`)."""
MARKS = (
    (re.compile(r"\b\d{8}-\d{6}-[0-9a-f]{4}\b"), "RUN"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|\+00:00)?"), "TIME"),
    (re.compile(r"\b\d+(\.\d+)? s\b"), "SECONDS"),
)
EMBEDDED = ("breast-cancer", "diabetes", "wine")
"""Studies of a second or two."""


def plain(value: Any, key: str = "") -> Any:
    """Return a value without what is of one run only."""
    if key in VOLATILE and value is not None:
        return "…"
    if isinstance(value, dict):
        return {plain(name): plain(of, name) for name, of in value.items()}
    if isinstance(value, list):
        return [plain(of) for of in value]
    if isinstance(value, str):
        for pattern, mark in MARKS:
            value = pattern.sub(mark, value)
        return value.replace(str(Path(os.environ["FLFED_HOME"])), "HOME").replace(flfed.__version__, "VERSION")
    return None if isinstance(value, float) and not math.isfinite(value) else value


def said_by(words: str) -> str:
    """Return what a command prints."""
    before, sys.argv, out = sys.argv, ["flfed", *words.split()], io.StringIO()
    try:
        with redirect_stdout(out), redirect_stderr(io.StringIO()):
            main()
    except SystemExit as end:
        if end.code:
            raise RuntimeError(f"{words}: {end.code}") from None
    finally:
        sys.argv = before
    return out.getvalue()


def commands() -> dict[str, Any]:
    """Return the JSON of commands, one after the other."""
    return {words: plain(json.loads(said_by(words))) for words in COMMANDS}


def messages() -> dict[str, Any]:
    """Return size and SHA-256 of the bytes of every message that a site and a coordinator exchange."""
    every = [*test_messages.EXAMPLES, test_auditing.REQUEST, test_auditing.REPLY]
    every += [*test_messages.SUMS, *test_messages.EXTRAS]
    found = {}
    for number, message in enumerate(every):
        data = recorddict_to_proto(message.to_record()).SerializeToString(deterministic=True)
        found[f"{number:02d} {type(message).__name__}"] = [len(data), hashlib.sha256(data).hexdigest()]
    return found


def checkpoint() -> dict[str, Any]:
    """Return size and SHA-256 of the files of a run's checkpoints."""
    summaries = {"a": test_messages.SUMMARY, "b": test_messages.SUMMARY}
    start = checkpoints.begin("golden", test_messages.ENCODER, summaries, {"a": 99, "b": 999})
    state, facts = {"best": test_messages.ARRAYS}, {"strategy": {"rounds": 3}, "seconds": 1.5}
    round = replace(start, round=3, arrays=test_messages.ARRAYS, state=state, facts=facts, left=("b",))
    checkpoints.write("golden", round)
    checkpoints.write("golden", replace(round, start=""), final=True)
    files = sorted(path for path in checkpoints.folder_of("golden").iterdir())
    return {path.name: [path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest()] for path in files}


def model_folder() -> dict[str, Any]:
    """Return what a run is exported as: every file's name, and its keys, columns or tensors."""
    to = Path(os.environ["FLFED_HOME"]) / "exported"
    said_by(f"run export latest --output {to}")
    return {str(path.relative_to(to)): _inside(path) for path in sorted(to.rglob("*")) if path.is_file()}


def ledger() -> dict[str, Any]:
    """Return the bytes of three lines of a ledger."""
    path = Path(os.environ["FLFED_HOME"]) / "golden.jsonl"
    kept = Ledger(path, clock=lambda: datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    kept.append(kind="approved", study_sha256="ab" * 32, study="golden", by="Dr Kim")
    kept.append(kind="train", run="r", repeat=0, round=1, bytes=120, charged_bytes=0, sha256="cd" * 32)
    kept.append(kind="spent", unit="row", epsilon=0.5, delta=1e-6, mechanism="record-dp", given_encoder=True)
    return {"lines": path.read_text().splitlines()}


def kit() -> dict[str, Any]:
    """Return what is in a kit: its files, and what the one that says where the coordinator is has as keys."""
    folder = CoordinatorFolder.default()
    initialise(folder, Settings("Golden", "localhost:9999"))
    written = invite(folder, "alpha", to=Path(os.environ["FLFED_HOME"])).file
    with zipfile.ZipFile(written) as archive:
        names = sorted(archive.namelist())
        texts = {name: archive.read(name).decode() for name in names if name.endswith(".toml")}
    return {"files": names, "keys": {n: sorted(re.findall(r"(?m)^([\w-]+) =", text)) for n, text in texts.items()}}


def tables() -> dict[str, Any]:
    """Return the columns of the run store's tables."""
    return {t.name: {c.name: str(c.type) for c in t.columns} for t in Base.metadata.sorted_tables}


def schemas() -> dict[str, Any]:
    """Return the SHA-256 of every shipped study's text and of its dataset's schema."""
    names = sorted(path.stem for path in (Path(flfed.__file__).parent / "studies").glob("*.toml"))
    found = {name: Study.load(name) for name in names}
    return {name: [study.sha256(), load(study.dataset.name).schema.sha256()] for name, study in found.items()}


def arrays(names: tuple[str, ...] = EMBEDDED) -> dict[str, Any]:
    """Return the SHA-256 of the arrays that shipped studies end with, by processor and kernels of linear algebra.

    The maker of the processor counts, too: torch's kernels for AVX512 differ by it.
    """
    ended = {name: run(name).report["arrays-sha256"] for name in names}
    kernels = {of["architecture"] for of in threadpoolctl.threadpool_info() if of["internal_api"] == "openblas"}
    return {"/".join((torch.backends.cpu.get_cpu_capability(), *sorted(kernels), maker())): ended}


def maker() -> str:
    """Return the maker of the processor, as Linux has it; "" elsewhere."""
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    makers = [line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")]
    return makers[0] if makers else ""


GOLDEN: dict[str, Callable[[], dict[str, Any]]] = {
    "commands": commands,
    "model-folder": model_folder,  # of the run of `commands`
    "messages": messages,
    "checkpoint": checkpoint,
    "ledger": ledger,
    "kit": kit,
    "tables": tables,
    "schemas": schemas,
    "arrays": arrays,
}


def _inside(path: Path) -> Any:
    if path.suffix == ".json":
        return _keys(json.loads(path.read_text()))
    if path.suffix == ".csv":
        return path.read_text(encoding="utf-8").splitlines()[0].split(",")
    if path.suffix == ".safetensors":
        from safetensors.numpy import load_file

        return {name: [str(value.dtype), list(value.shape)] for name, value in sorted(load_file(path).items())}
    return "…"


def _keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {plain(name): _keys(of) for name, of in value.items()}
    if isinstance(value, list):
        return [_keys(value[0])] if value else []
    return type(value).__name__


@contextmanager
def another_home() -> Iterator[None]:
    """Let everything be made in a home of its own."""
    before, folder = os.environ.get("FLFED_HOME"), tempfile.mkdtemp(prefix="golden-")
    os.environ["FLFED_HOME"] = folder
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        del os.environ["FLFED_HOME"]
        os.environ.update({} if before is None else {"FLFED_HOME": before})


def differences(kept: Any, made: Any, where: str = "") -> list[str]:
    """Return the places at which two values differ; numbers are equal within a millionth of their size."""
    if isinstance(kept, dict) and isinstance(made, dict):
        found = [f"{where}/{name}: only in one of them" for name in kept.keys() ^ made.keys()]
        both = [(f"{where}/{name}", kept[name], made[name]) for name in sorted(kept.keys() & made.keys())]
    elif isinstance(kept, list) and isinstance(made, list):
        found = [] if len(kept) == len(made) else [f"{where}: {len(kept)} and {len(made)} of them"]
        both = [(f"{where}/{place}", *pair) for place, pair in enumerate(zip(kept, made, strict=False))]
    else:
        numbers = all(isinstance(one, (int, float)) and not isinstance(one, bool) for one in (kept, made))
        alike = bool(np.isclose(kept, made, rtol=1e-6, atol=1e-9)) if numbers else repr(kept) == repr(made)
        return [] if alike else [f"{where}: {kept!r} was kept, {made!r} is made"]
    return found + [one for place, before, now in both for one in differences(before, now, place)]


if __name__ == "__main__":
    with another_home():
        for name, make in GOLDEN.items():
            text = json.dumps(make(), indent=1, ensure_ascii=False, sort_keys=True)
            (HERE / f"{name}.json").write_text(text + "\n", encoding="utf-8")
            print(f"{name}.json: {len(text)} characters")
