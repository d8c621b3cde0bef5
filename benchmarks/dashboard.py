"""The app on a store of a hundred sites and five hundred rounds, as a reader meets it: `make bench-app`.

A real study in a real browser: how long until the first chart stands in a server that has just
started, how long a turn to another page takes, what a page sends to the browser, and what a look at
the study costs the server while it runs. Needs Debian's chromium and the files of `taiwan-credit`.

    python -m benchmarks.dashboard [--data FOLDER] [--turns 3]
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

from benchmarks import table
from benchmarks.deployment import DATA, commit
from benchmarks.limits import missed
from benchmarks.machine import machine
from flfed.records.dashboard import page_files
from flfed.records.store.reader import RunReader
from tests.browser import CHARTS, Served, Window, opened, served
from tests.records.real_runs import MANY, begun, run

FIRST_CHART = f"{CHARTS} svg"
LOOKS_SECONDS = 5
"""Seconds for which the running study is viewed."""


def seconds_of(go: Callable[[], object]) -> float:
    """Return how long something takes, by the wall."""
    start = time.perf_counter()
    go()
    return time.perf_counter() - start


def cold(url: str, series: str) -> float:
    """Return the seconds from opening the page Overview to its first chart, in a server that nobody asked before."""
    with served({"FLFED_STORE": url}) as address, opened(address) as window:

        def go() -> None:
            window.page.goto(f"{address}/overview?run={series}")
            window.page.locator(FIRST_CHART).first.wait_for()

        return seconds_of(go)


def warm(window: Window, series: str) -> dict[str, dict[str, float]]:
    """Return, by page, the seconds of a turn to it and the bytes that it sends, once all were looked at."""
    names = [name.capitalize() for name in page_files()]
    window.page.goto(f"{window.address}/?run={series}")
    window.page.locator("h1").first.wait_for()
    for name in names:
        window.turn_to(name)
    found = {}
    for name in names:
        before = len(window.received)
        heading = window.page.get_by_role("heading", level=1).filter(has_text="" if name == "Overview" else name)

        def go(name: str = name, heading: Any = heading) -> None:
            window.page.get_by_test_id("stSidebar").get_by_role("link", name=name, exact=True).click()
            heading.first.wait_for()
            window.page.locator(f"{FIRST_CHART}, [data-testid=stMain] a").first.wait_for()

        took = seconds_of(go)
        window.drawn()
        found[name.lower()] = {"seconds": round(took, 3), "bytes": sum(map(len, window.received[before:]))}
    return found


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds that a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def is_end(frame: bytes | str) -> bool:
    """Return whether a message of the server ends a view of the study."""
    return isinstance(frame, bytes) and ForwardMsg.FromString(frame).WhichOneof("type") == "script_finished"


def looks(server: Served, window: Window, series: str, page: str) -> dict[str, float]:
    """Return the server's CPU seconds for a view of a running study, on one page."""
    window.page.goto(f"{server}/{page}?run={series}")
    window.page.locator("h1").first.wait_for()
    window.page.locator(FIRST_CHART).first.wait_for()
    window.page.wait_for_timeout(2000)
    start, used = len(window.received), cpu_seconds(server.pid)
    window.page.wait_for_timeout(LOOKS_SECONDS * 1000)
    spent = cpu_seconds(server.pid) - used
    count = sum(is_end(frame) for frame in window.received[start:])
    return {"looks": count, "cpu-seconds": round(spent / max(count, 1), 3)}


def measure(data: Path, turns: int) -> dict[str, Any]:
    """Return the figures.

    Parameters
    ----------
    data : Path
        The folder of the data files, as for `flfed data get taiwan-credit --from`.
    turns : int
        How often a server is started anew.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        url = f"sqlite:///{folder}/runs.db"
        run(["data", "get", "taiwan-credit", "--from", str(data)], folder, url)
        study = folder / "many.toml"
        study.write_text(MANY)
        series = run(["study", "run", str(study)], folder, url)
        print("a hundred sites and five hundred rounds are in the store", flush=True)
        first = [cold(url, series) for _ in range(turns)]
        with served({"FLFED_STORE": url}) as address, opened(address) as window:
            pages = warm(window, series)
        going = begun(["study", "run", str(study), "--set", "rounds=1000"], folder, url)
        try:
            while _rounds(url) < 500:
                time.sleep(0.5)
            with served({"FLFED_STORE": url}) as server, opened(server) as window:
                with RunReader.open(url) as reader:
                    newest = reader.runs(limit=1)[0].series
                looked = {page: looks(server, window, newest, page) for page in ("overview", "rounds")}
        finally:
            going.kill()
            going.wait(20)
    return {
        "first-chart-seconds": round(median(first), 2),
        "first-chart-worst": round(max(first), 2),
        "pages": pages,
        "looks": looked,
        "turns": turns,
    }


def _rounds(url: str) -> int:
    with RunReader.open(url) as reader:
        newest = reader.runs(limit=1)[0]
    return newest.rounds if newest.status == "running" else 0


def main() -> int:
    """Measure, write the results file and the page, print; 1 where a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--turns", type=int, default=3)
    given = parser.parse_args()
    stamp = {"date": datetime.date.today().isoformat(), "machine": machine(), "commit": commit()}
    found = measure(given.data, given.turns) | stamp
    results = json.loads(table.RESULTS.read_text()) | {"dashboard": found}
    table.RESULTS.write_text(json.dumps(results, indent=2, sort_keys=True) + "\n")
    table.write(json.loads(table.RESULTS.read_text()))
    print(table.dashboard(results))
    return 1 if any(sentence.startswith("app") for sentence in missed(results)) else 0


if __name__ == "__main__":
    sys.exit(main())
