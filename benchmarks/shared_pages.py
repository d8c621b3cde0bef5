"""Memory of four processes that share a table of a million rows: `python -m benchmarks.shared_pages [points|repeats]`.

They run four points of a sweep (or repeats of a study, whose splits differ) at two sites, one of which has nearly all
rows of `benchmarks.reading`. Pages that processes share count once. At the end the same points run on a wrong table:
each cell is an object of Python, so that a process which reads a cell counts a reference to it, and gets a copy of its
page. Ends with 1 where the limit does not tell the two apart.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.alone import ROOT, SETTINGS
from benchmarks.machine import machine
from benchmarks.processes import look, watching
from benchmarks.reading import SOURCE, drawn

PROCESSES = 4
BEYOND_MB = 250
"""Memory of a process beyond what the driver has, and its encoded rows."""
SITES = {"large": 1_000_000, "small": 20_000}
SITE = """from flfed import Holdout, Parquet, Policy, Site

site = Site("{name}", "million", Parquet("t.parquet"), holdout=Holdout(salt="s"), policy=Policy(disclosure="open"))
"""
STUDY = """
format = 1
name = "million"
purpose = "A benchmark of memory"
legal-basis = "none needed: rows are made up"
seed = 7
[dataset]
name = "million"
[model]
name = "logistic"
[plan]
batch = 1024
steps = 100
validation = 0.2
[strategy]
name = "fedavg"
rounds = 3
[compare]
site-model = "same"
"""


def write_sites(root: Path) -> None:
    """Write the dataset and its sites."""
    table, schema = drawn(sum(SITES.values()))
    folder = root / "datasets" / "million"
    folder.mkdir(parents=True)
    (folder / "schema.toml").write_text(schema)
    (folder / "source.toml").write_text(SOURCE)
    for name, rows in SITES.items():
        site = root / "sites" / name
        site.mkdir(parents=True)
        (site / "__init__.py").write_text(SITE.format(name=name))
        table[:rows].to_parquet(site / "t.parquet", index=False)
        table = table[rows:]


def run_tasks(kind: str, *wrong: str) -> None:
    """Run four tasks in processes of their own; print this one's MB with its table, and those of encoded rows."""
    from flfed import Study
    from flfed.experiments.sweep import points_of, sweep
    from flfed.federation.client.protection import read_ahead
    from flfed.federation.server.run import run
    from flfed.rows.data import site_discovery
    from flfed.rows.data.site import CachedSite, study_table
    from flfed.rows.features.encode import input_names
    from flfed.rows.study_model import study_layout

    study = Study.parse(STUDY)
    sites: Sequence[Any] = [CachedSite.of(site_discovery.load(name), splits_once=kind == "points") for name in SITES]
    for site in sites if wrong else ():
        rows = site.sorted_rows()
        site.opened[()] = replace(rows, source=rows.source.astype(object))
    read_ahead(study, sites)
    before = look(os.getpid()).mb
    tables = [study_table(study, site) for site in sites]
    rows = sum(len(table.training) for table in tables)
    if kind == "repeats":
        rows += sum(table.holdout_rows for table in tables)
    inputs = len(input_names(study_layout(study, tables[0].schema)))
    del tables
    print(json.dumps({"driver-mb": before, "encoded-mb": rows * (inputs + 2) * 8 / 2**20}), flush=True)
    if kind == "points":
        sweep(study, points_of(study, {"lr": [0.05, 0.1, 0.2, 0.4]}), sites=sites, jobs=PROCESSES)
    else:
        run(study, sites=sites, repeats=PROCESSES, jobs=PROCESSES)


def measure(folder: str, *words: str) -> dict[str, Any]:
    """Return the most memory of all processes, and the limit, in MB."""
    command = [sys.executable, "-m", "benchmarks.shared_pages", "--tasks", *words]
    environment = os.environ | SETTINGS | {"FLFED_PATH": folder, "FLFED_HOME": f"{folder}/home"}
    ran = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    with watching(ran.pid) as watched:
        out, _ = ran.communicate()
    if ran.returncode:
        raise RuntimeError(f"{words}: exit {ran.returncode}")
    figures: dict[str, Any] = json.loads(out)
    limit = figures["driver-mb"] + PROCESSES * (figures["encoded-mb"] + BEYOND_MB)
    return {name: round(mb) for name, mb in {**figures, "limit-mb": limit, "peak-mb": watched.peak_mb()}.items()}


def main() -> None:
    """Measure the right table and the wrong one, and print both as JSON."""
    words = sys.argv[1:]
    if words[:1] == ["--tasks"]:
        run_tasks(*words[1:])
        return
    kind = words[0] if words else "points"
    with tempfile.TemporaryDirectory() as folder:
        write_sites(Path(folder))
        figures = {"shared": measure(folder, kind), "objects": measure(folder, kind, "objects")}
    print(json.dumps({"machine": machine(), **figures}, indent=2))
    within = {name: found["peak-mb"] <= found["limit-mb"] for name, found in figures.items()}
    sys.exit(within != {"shared": True, "objects": False})


if __name__ == "__main__":
    main()
