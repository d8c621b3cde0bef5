"""A run with a site whose table is streamed: its memory and its CPU a row, `python -m benchmarks.larger_than_memory`.

Rows of 24 columns are drawn, row group by row group: 18 numbers, four categories, a flag and a class. One of the two
sites streams its files, the other has a twentieth of the rows, at most 100,000, in memory. Each size runs in a process
of its own, one thread.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.alone import in_child
from benchmarks.machine import machine

ROWS = (1_000_000, 10_000_000)
GROUP = 250_000
GROUPS_A_FILE = 8
SECONDS = 7200.0
NUMBERS = 18
CATEGORIES = 4
SOURCE = 'format = 1\nlicence = "none"\ncitation = "made up"\nsynthetic = true\n'
SITE = """from flfed import Holdout, Parquet, Policy, Site

site = Site(
    "{name}",
    "claims",
    Parquet("rows", streamed={streamed}) if {streamed} else Parquet("rows/part-0.parquet"),
    holdout=Holdout(share=0.2, salt="of a benchmark"),
    policy=Policy(disclosure="open"),
)
"""
STUDY = """
format = 1
name = "claims"
purpose = "A benchmark of tables larger than memory"
legal-basis = "none needed: rows are made up"
seed = 7
[dataset]
name = "claims"
[model]
name = "logistic"
[plan]
lr = 0.1
batch = 1024
[strategy]
name = "fedavg"
rounds = 5
deadline = 86_400.0
[compare]
site-model = "same"
"""


def schema() -> str:
    """Return the schema as TOML."""
    lines = ['format = 1\nname = "claims"\ntask = "binary"\ntarget = "died"']
    for place in range(NUMBERS):
        lines.append(f'[columns.x{place}]\nkind = "number"\nrange = [-10, 10]')
    for place in range(CATEGORIES):
        values = [f"value-{letter}" for letter in "abcdefgh"[: 3 + place]]
        lines.append(f'[columns.c{place}]\nkind = "category"\nvalues = {json.dumps(values)}')
    lines += ['[columns.flag]\nkind = "flag"', '[columns.died]\nkind = "target"\nvalues = ["no", "yes"]']
    return "\n".join(lines) + "\n"


def drawn(rows: int, seed: int, strength: float = 1.0) -> dict[str, Any]:
    """Return the columns of drawn rows; a larger strength makes the outcome surer."""
    chance = np.random.default_rng(seed)
    columns: dict[str, Any] = {}
    odds = np.full(rows, -1.5)
    for place in range(NUMBERS):
        values = np.round(chance.normal(0, 1, rows).clip(-9, 9), 1 + place % 4)
        odds += values * (0.5 - 0.05 * place)
        columns[f"x{place}"] = np.where(chance.random(rows) < 0.05, np.nan, values) if place % 4 == 1 else values
    for place in range(CATEGORIES):
        codes = chance.integers(0, 3 + place, rows)
        odds += 0.2 * (codes == place)
        columns[f"c{place}"] = np.array([f"value-{letter}" for letter in "abcdefgh"])[codes]
    columns["flag"] = chance.integers(0, 2, rows)
    died = chance.random(rows) < 1 / (1 + np.exp(-strength * odds))
    columns["died"] = np.where(died, "yes", "no")
    return columns


def write_rows(folder: Path, rows: int, seed: int, *, group: int = GROUP, strength: float = 1.0) -> None:
    """Write rows as Parquet files of a few row groups each."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True)
    starts = range(0, rows, group)
    for file, first in enumerate(range(0, len(starts), GROUPS_A_FILE)):
        writer = None
        for start in starts[first : first + GROUPS_A_FILE]:
            table = pa.table(drawn(min(group, rows - start), seed + start, strength))
            writer = writer or pq.ParquetWriter(folder / f"part-{file}.parquet", table.schema)
            writer.write_table(table, row_group_size=group)
        if writer is not None:
            writer.close()


def write_sites(root: Path, rows: int) -> None:
    """Write the dataset, the streamed site and a small one."""
    folder = root / "datasets" / "claims"
    folder.mkdir(parents=True)
    (folder / "schema.toml").write_text(schema())
    (folder / "source.toml").write_text(SOURCE)
    few = min(100_000, max(rows // 20, 1000))
    for name, count, seed in (("large", rows, 1), ("small", few, 2_000_000_000)):
        site = root / "sites" / name
        write_rows(site / "rows", count, seed)
        (site / "__init__.py").write_text(SITE.format(name=name, streamed=name == "large"))


class Log:
    """A line on standard error where a stage begins or ends, and at most one a minute between."""

    def __init__(self, began: float) -> None:
        self._began = began
        self._last = (-math.inf, "")

    def show(self, stage: str, done: int, of: int) -> None:
        """Print how far a stage is."""
        now = time.perf_counter() - self._began
        last, before = self._last
        if stage != before or done == of or now - last >= 60:
            print(f"{now:7.0f} s  {stage}: {done:,} of {of:,}", file=sys.stderr, flush=True)
            self._last = (now, stage)


def measure(rows: int, rounds: int = 5) -> dict[str, Any]:
    """Run the study in this process and return CPU seconds and the most anonymous memory, in MB."""
    import flfed
    from flfed import Study

    peak = [0.0]
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.02):
            status = Path("/proc/self/status").read_text().splitlines()
            line = next(line for line in status if line.startswith("RssAnon"))
            peak[0] = max(peak[0], int(line.split()[1]) / 1024)

    thread = threading.Thread(target=watch)
    thread.start()
    wall = time.perf_counter()
    cpu = time.process_time()
    study = Study.parse(STUDY).replace({"rounds": rounds})
    result = flfed.run(study, sites=["large", "small"], progress=Log(wall).show)
    seconds = time.process_time() - cpu
    ended.set()
    thread.join()
    figures = result.report["sites"]["large"]
    return {
        "rows": rows,
        "rounds": rounds,
        "cpu-seconds": round(seconds, 1),
        "cpu-microseconds-a-row": round(1e6 * seconds / rows, 2),
        "wall-seconds": round(time.perf_counter() - wall, 1),
        "peak-anonymous-mb": round(peak[0]),
        "figures": {arm: figures[arm]["roc_auc_score"] for arm in ("global", "local-only")},
    }


def main() -> None:
    """Measure each size, or one in this process, and print them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="*", default=list(ROWS))
    parser.add_argument("--here", type=int, help="rows of the sites under FLFED_PATH, run in this process")
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    if chosen.here:
        print(json.dumps(measure(chosen.here, chosen.rounds)))
        return
    figures: dict[str, Any] = {"machine": machine(), "runs": []}
    for rows in chosen.rows:
        with tempfile.TemporaryDirectory() as folder:
            write_sites(Path(folder), rows)
            os.environ |= {"FLFED_PATH": folder, "FLFED_HOME": str(Path(folder) / "home")}
            asked = ("--here", str(rows), "--rounds", str(chosen.rounds))
            figures["runs"].append(in_child("larger_than_memory", *asked, seconds=SECONDS))
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
