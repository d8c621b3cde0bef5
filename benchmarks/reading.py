"""A site's table from its file to its split rows, its check, and a study, against pandas: `make bench-tables`.

Rows of 30 columns are drawn: an identifier, 22 numbers, five categories, a flag and a class, as CSV and as Parquet.
The study is of both files as two sites, from the files to the verdict: logistic, 20 rounds of 100 steps of 1,024 rows.
Each way runs in a process of its own, one thread, after the others; CPU seconds are its own, imports apart. Figures of
`read_csv` and `read_parquet` of the same turn stand beside them, and of Polars and DuckDB (extra `bench`) where they
are installed: these read alone, with one thread, every column as a type of theirs.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.alone import in_child, peak_mb
from benchmarks.machine import machine

ROWS = 1_000_000
SECONDS = 1800.0
DECIMALS = (0, 1, 2, 2, 3)
WAYS = ("pandas", "rows", "check", "study")
OTHERS = ("polars", "duckdb")
SOURCE = 'format = 1\nlicence = "none"\ncitation = "made up"\nsynthetic = true\n'
SITE = """from flfed import Csv, Holdout, Parquet, Policy, Site

site = Site(
    "big-{ending}",
    "million",
    {kind}("t.{ending}"),
    holdout=Holdout(salt="of a benchmark"),
    policy=Policy(disclosure="open"),
)
"""
STUDY = """
format = 1
name = "million"
purpose = "A benchmark of many rows"
legal-basis = "none needed: rows are made up"
seed = 7
[dataset]
name = "million"
[model]
name = "logistic"
[plan]
lr = 0.1
batch = 1024
steps = 100
[strategy]
name = "fedavg"
rounds = 20
[compare]
site-model = "same"
"""


def drawn(rows: int) -> tuple[pd.DataFrame, str]:
    """Return the drawn rows and their schema as TOML."""
    chance = np.random.default_rng(1)
    columns: dict[str, Any] = {"person": [f"P{number:07d}" for number in chance.permutation(rows)]}
    schema = ['format = 1\nname = "million"\ntask = "binary"\ntarget = "died"', '[columns.person]\nkind = "id"']
    for place in range(22):
        # Two columns have nearly as many values as rows; each fourth has gaps.
        decimals = 6 if place % 11 == 10 else DECIMALS[place % 5]
        values = np.round(chance.normal(50 + place, 8, rows).clip(0, 200), decimals)
        columns[f"x{place}"] = np.where(chance.random(rows) < 0.05, np.nan, values) if place % 4 == 1 else values
        schema.append(f'[columns.x{place}]\nkind = "number"\nrange = [0, 200]')
    for place in range(5):
        texts = [f"value-{letter}" for letter in "abcdefghijklmnop"[: 4 + 3 * place]]
        columns[f"c{place}"] = chance.choice(texts, rows)
        schema.append(f'[columns.c{place}]\nkind = "category"\nvalues = {json.dumps(texts)}')
    columns["flag"] = chance.integers(0, 2, rows)
    columns["died"] = chance.choice(["no", "yes"], rows, p=[0.8, 0.2])
    schema += ['[columns.flag]\nkind = "flag"', '[columns.died]\nkind = "target"\nvalues = ["no", "yes"]']
    return pd.DataFrame(columns), "\n".join(schema) + "\n"


def write_sites(root: Path, rows: int) -> None:
    """Write a dataset and two sites, one with a CSV and one with a Parquet file of the same rows."""
    import pyarrow as pa
    from pyarrow import csv

    table, schema = drawn(rows)
    folder = root / "datasets" / "million"
    folder.mkdir(parents=True)
    (folder / "schema.toml").write_text(schema)
    (folder / "source.toml").write_text(SOURCE)
    for kind, ending in (("Csv", "csv"), ("Parquet", "parquet")):
        site = root / "sites" / f"big_{ending}"
        site.mkdir(parents=True)
        (site / "__init__.py").write_text(SITE.format(kind=kind, ending=ending))
    plain = csv.WriteOptions(quoting_style="none")
    csv.write_csv(pa.Table.from_pandas(table), root / "sites" / "big_csv" / "t.csv", plain)
    table.to_parquet(root / "sites" / "big_parquet" / "t.parquet", index=False)


def measure(way: str, ending: str) -> dict[str, float]:
    """Return the CPU seconds of a way and its stages, and the most memory it held."""
    import pyarrow.csv
    import pyarrow.parquet  # noqa: F401  # imports are not measured

    from flfed.rows.data import datasets, site_discovery
    from flfed.rows.data.holdout import SortedRows
    from flfed.rows.data.mapping import map_table
    from flfed.rows.data.site import split_rows
    from flfed.rows.data.table_check import check_site
    from flfed.rows.features.summarise import layout_of, summarise

    if way in OTHERS:
        importlib.import_module(way)
    site = site_discovery.load(f"big-{ending}")
    path = str(Path(str(site.folder)) / f"t.{ending}")
    seconds: dict[str, float] = {}

    def timed(stage: str, work: Callable[[], Any]) -> Any:
        start = time.process_time()
        found = work()
        seconds[stage] = round(time.process_time() - start, 2)
        return found

    if way == "pandas":
        timed("read", lambda: pd.read_csv(path) if ending == "csv" else pd.read_parquet(path))
    elif way in OTHERS:
        timed("read", lambda: read_by(way, path, ending))
    elif way == "check":
        timed("check", lambda: check_site(site))
    elif way == "study":
        import flfed
        import flfed.federation.server.run

        study = flfed.Study.parse(STUDY)
        timed("study", lambda: flfed.run(study, sites=["big-csv", "big-parquet"]))
    else:
        schema = datasets.load(site.dataset).schema
        raw = timed("read", lambda: site.source_table(compact=True))
        table = timed("map", lambda: map_table(raw, schema, site.mapping, site.source.missing)[0])
        del raw
        rows = timed("keys", lambda: SortedRows.of(table, schema))
        sides = timed("hash", lambda: rows.sides(site.holdout, 0))
        timed("split", lambda: split_rows(rows, sides))
        seconds["total"] = round(sum(seconds.values()), 2)
        peak = peak_mb()
        timed("summarise", lambda: summarise(table, layout_of(schema, schema.features())))
        return {**seconds, "peak-mb": peak}
    return {**seconds, "peak-mb": peak_mb()}


def read_by(way: str, path: str, ending: str) -> Any:
    """Return a file's table in memory, as another package reads it."""
    package: Any = importlib.import_module(way)
    if way == "polars":
        return getattr(package, f"read_{ending}")(path)
    connection = package.connect()
    connection.execute("set threads = 1")
    connection.execute(f"create table t as select * from read_{ending}(?)", [path])
    return connection


def main() -> None:
    """Measure all ways of both formats, or one in this process, and print them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("way", nargs="*", help="a way and a format, in this process: check csv")
    parser.add_argument("--rows", type=int, default=ROWS)
    chosen = parser.parse_args()
    if chosen.way:
        print(json.dumps(measure(*chosen.way)))
        return
    with tempfile.TemporaryDirectory() as folder:
        write_sites(Path(folder), chosen.rows)
        os.environ |= {"FLFED_PATH": folder, "FLFED_HOME": f"{folder}/home", "POLARS_MAX_THREADS": "1"}
        figures: dict[str, Any] = {"machine": machine(), "rows": chosen.rows}
        for ending in ("csv", "parquet"):
            ways = [*WAYS, *(way for way in OTHERS if importlib.util.find_spec(way))]
            found = {way: in_child("reading", way, ending, seconds=SECONDS) for way in ways}
            base = found["pandas"]["read"]
            times = {"rows": found["rows"]["total"] / base}
            times |= {way: found[way][way] / base for way in WAYS[2:]}
            figures[ending] = {**found, "times-pandas": {name: round(ratio, 2) for name, ratio in times.items()}}
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
