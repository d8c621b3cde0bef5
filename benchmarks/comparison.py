"""CPU seconds of the comparison after a run's last round, beside the rounds: `python -m benchmarks.comparison`.

The sites are those of the scale curve (200 rows on average, 20 test rows), with logistic regression and with the
perceptron; their rows are in no order of time, so that own models are chosen by folds, as of most tables. Five rounds
of all sites, then the comparison as `flfed study run` makes it: every site's own models, their
intervals, and the model of all rows together. Each size is run in a process of its own with one thread; with and
without comparison are one run, whose clock is stopped before and after. It writes results.json and the table of
docs/performance.md; sizes and models that are not asked for stay as they are.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from benchmarks import table
from benchmarks.alone import in_child, peak_mb
from benchmarks.deployment import commit
from benchmarks.machine import machine
from benchmarks.ours import Clock, Timed, at_work, conducting
from benchmarks.scale import workload
from flfed.federation.engines.pooled_reference import PooledReference
from flfed.federation.server.server import FederatedRun
from flfed.rows.data.holdout import Holdout
from flfed.rows.data.site import Site
from flfed.rows.training.answer import stacked_compute

SIZES = (100, 1000, 10_000)
MODELS: dict[str, tuple[int, ...]] = {"logistic": (), "mlp": (64, 32)}
"""Hidden layers of each model."""
SECONDS = 3 * 3600.0
STAGE, POOLED = "compare", "pooled"


class TimedReference(PooledReference):
    """The model of all rows together, with a clock on it."""

    stages: Clock

    def reference(self, *given: Any) -> Any:
        """Time the figures over all rows."""
        with self.stages.on(POOLED):
            return super().reference(*given)


class Compared(Timed):
    """A conductor that compares, with a clock on it."""

    def compare(self, *given: Any) -> None:
        """Time the comparison, and within it the model of all rows together."""
        key = (self.study.text, self.repeat)
        self.tables = TimedReference(self.side, key, stacked_compute())
        self.tables.stages = self.stages
        with self.stages.on(STAGE):
            FederatedRun.compare(self, *given)


def unordered(sites: Sequence[Site]) -> list[Site]:
    """Return the sites with a holdout that says nothing of time; their tables are drawn with their test rows."""
    return [replace(site, holdout=Holdout()) for site in sites]


def one(model: str, size: int) -> dict[str, Any]:
    """Return the figures of one model at one number of sites, from this process."""
    federation = replace(workload(size), hidden=MODELS[model])
    with (
        at_work(federation) as (chosen, taking_part),
        conducting(chosen, unordered(taking_part), stacked=True, conductor_class=Compared) as conductor,
    ):
        began = time.process_time()
        conductor.conduct()
        seconds = time.process_time() - began
    compared, pooled = (conductor.stages.cpu[stage] for stage in (STAGE, POOLED))
    return {
        "own": chosen.compare.site_model,
        "without-cpu-seconds": round(seconds - compared, 2),
        "with-cpu-seconds": round(seconds, 2),
        "compare-cpu-seconds": round(compared, 2),
        "sites-cpu-seconds-a-site": round((compared - pooled) / size, 4),
        "pooled-cpu-seconds": round(pooled, 2),
        "ratio": round(seconds / (seconds - compared), 2),
        "peak-mb": peak_mb(),
    }


def main() -> int:
    """Measure the chosen sizes, and write them into the results file and the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--here", action="store_true", help="one size and model in this process; nothing is written")
    given = parser.parse_args()
    if given.here:
        print(json.dumps(one(given.models[0], given.sizes[0])))
        return 0
    stamp = {"date": datetime.date.today().isoformat(), "machine": machine(), "commit": commit()}
    for size in given.sizes:
        for model in given.models:
            # The page is written after each, so that a long one that is cut short loses no other.
            found = in_child("comparison", "--here", "--sizes", str(size), "--models", model, seconds=SECONDS)
            results = json.loads(table.RESULTS.read_text())
            results["comparison"] = results.get("comparison", {}) | {f"{model}-{size}": found | stamp}
            table.RESULTS.write_text(json.dumps(results, indent=2, sort_keys=True) + "\n")
            table.write(json.loads(table.RESULTS.read_text()))
            print(f"{model}, {size:,} sites: {found}", flush=True)
    print(table.comparison(json.loads(table.RESULTS.read_text())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
