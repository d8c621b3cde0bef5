"""Gain of each method over plain averaging, with its interval: `python -m benchmarks.methods`.

Three studies over ten random splits of the same rows, and a strongly skewed cut of one of them over ten partitions.
Nothing is tuned: each method has its plain settings, and those of the server's rules with two learning rates, both
shown. Beside them: what each site's own parts of the model gain, and what the others' model gives a hospital that joins
late (`benchmarks.warm_starts`). It writes the parts "methods", "own-parts" and "warm-start" of results.json and the
tables of docs/methods.md.

Needs the tables: `flfed data get heart-disease`, and `taiwan-credit`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from typing import Any

from benchmarks.machine import machine
from benchmarks.table import OWN_PARTS, RESULTS, SKEWED, STUDIES, WARM_START, write
from benchmarks.warm_starts import HOSPITALS, late_hospital
from flfed.errors import UsageError
from flfed.federation.server.run import run
from flfed.records.reports.recorded_run import Recorded, paired
from flfed.records.statistics.intervals import mean_of, resplit_interval
from flfed.records.store.reader import RunReader
from flfed.rows.data import datasets
from flfed.rows.data.partition import cut
from flfed.study.study import Study

REPEATS = 10
PLAIN = "fedavg"
METHODS: dict[str, dict[str, Any]] = {
    PLAIN: {},
    "fedprox, mu 0.1": {"strategy.name": "fedprox", "strategy.mu": 0.1},
    "fedprox, mu 0.01": {"strategy.name": "fedprox", "strategy.mu": 0.01},
    "scaffold": {"strategy.name": "scaffold"},
    "fednova": {"strategy.name": "fednova"},
    "fedavgm": {"strategy.name": "fedavgm", "strategy.server-lr": 0.1},
    "fedadam, server 0.1": {"strategy.name": "fedadam", "strategy.server-lr": 0.1},
    "fedadam, server 0.01": {"strategy.name": "fedadam", "strategy.server-lr": 0.01},
    "fedyogi, server 0.1": {"strategy.name": "fedyogi", "strategy.server-lr": 0.1},
    "fedyogi, server 0.01": {"strategy.name": "fedyogi", "strategy.server-lr": 0.01},
    "fedadagrad, server 0.1": {"strategy.name": "fedadagrad", "strategy.server-lr": 0.1},
    "fedadagrad, server 0.01": {"strategy.name": "fedadagrad", "strategy.server-lr": 0.01},
    "median": {"strategy.name": "median"},
    "trimmed-mean": {"strategy.name": "trimmed-mean"},
}
SITES_MEAN = "sites-mean"
PERSONAL: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "fine-tuned": ({}, {SITES_MEAN: "personalised-sites-mean"}),
    "ditto": ({"strategy.name": "ditto"}, {SITES_MEAN: "personalised-sites-mean"}),
    "ditto, lam 0": ({"strategy.name": "ditto", "strategy.lam": 0.0}, {SITES_MEAN: "personalised-sites-mean"}),
    "fedper": ({"strategy.name": "fedper"}, {"global": "global", SITES_MEAN: SITES_MEAN}),
}
"""Settings of sites' own parts, and the pairs of arms that are compared."""
QUICK = {"compare.site-model": "same", "compare.resamples": 200}
"""The sites' own models are not looked at here."""
FAR = {"plan.steps": 0, "plan.epochs": 5, "strategy.rounds": 10}
"""Plan of the skewed cut: ten rounds of five epochs, in which sites go far apart."""
SITES, ALPHA = 6, 0.1

Place = tuple[str | None, str, str]
JUDGED: Place = (None, "global", "roc_auc_score")
LOSS: Place = (None, "global", "log_loss")


def recorded(study: Study, repeats: int) -> Recorded:
    """Run a study in a store of its own, and return what it recorded."""
    with tempfile.TemporaryDirectory() as folder:
        store = f"sqlite:///{folder}/runs.db"
        series = run(study, repeats=repeats, store=store).report["run"]
        with RunReader.open(store) as reader:
            return Recorded.read(reader, reader.runs_of(series))


def resplit(name: str) -> dict[str, Any]:
    """Return the figures of every method over random splits of a study's rows."""
    study, found, plain = Study.load(name).replace(QUICK), {}, None
    for method, changes in METHODS.items():
        try:
            one = recorded(study.replace(changes) if changes else study, REPEATS)
        except UsageError as error:
            found[method] = {"refused": str(error)}
            continue
        plain = plain or one
        if why := _stopped(one):
            found[method] = {"stopped": len(why), "reason": why[0]}
            continue
        found[method] = {place[2]: _figure(one, place) for place in (JUDGED, LOSS)}
        if one is not plain:
            found[method] |= {f"gain-{place[2]}": paired(plain, one, place) for place in (JUDGED, LOSS)}
        print(f"{name}, {method}: {json.dumps(found[method])}", flush=True)
    return found


def _figure(one: Recorded, place: Place) -> float | None:
    return mean_of([row.value for row in one.figures[place]])


def _stopped(one: Recorded) -> list[str]:
    """Return why runs ended before their comparison."""
    return [run.reason for run, _ in one.runs if run.status != "completed"]


def own_parts(name: str) -> dict[str, Any]:
    """Return the gain of sites' own parts over plain averaging, over random splits of a study's rows."""
    study, found = Study.load(name).replace(QUICK), dict[str, Any]()
    plain = recorded(study, REPEATS)
    for method, (changes, arms) in PERSONAL.items():
        one = recorded(study.replace(changes), REPEATS) if changes else plain
        if why := _stopped(one):
            found[method] = {"stopped": len(why), "reason": why[0]}
            continue
        found[method] = {
            f"gain-{base}": _interval(_values(plain, base), _values(one, arm), _ratio(plain))
            for base, arm in arms.items()
        }
        print(f"{name}, {method}: {json.dumps(found[method])}", flush=True)
    return found


def _values(one: Recorded, arm: str) -> list[float | None]:
    """Return an arm's AUC in each split."""
    return [row.value for row in one.figures[None, arm, JUDGED[2]]]


@cache
def accepted() -> tuple[int, ...]:
    """Return the first seeds whose cut leaves every site with enough rows."""
    base, seeds, seed = Study.load(STUDIES[-1]), [], 0
    dataset = datasets.load(base.dataset.name)
    while len(seeds) < REPEATS:
        try:
            cut(dataset, _skewed(base, seed).dataset.partition)
            seeds.append(seed)
        except UsageError:
            pass
        seed += 1
    return tuple(seeds)


def _skewed(study: Study, seed: int) -> Study:
    where = {"by": "dirichlet", "sites": SITES, "alpha": ALPHA, "seed": seed}
    return study.replace({**QUICK, **FAR, "dataset.partition": where})


def skewed() -> dict[str, Any]:
    """Return the figures of every method over partitions by skewed labels, one run of each."""
    base, found = Study.load(STUDIES[-1]), {}
    plain: dict[str, list[float | None]] = {}
    for method, changes in METHODS.items():
        values: dict[str, list[float | None]] = {JUDGED[2]: [], LOSS[2]: []}
        ratios, stopped = [], list[str]()
        try:
            for seed in accepted():
                one = recorded(_skewed(base, seed).replace(changes) if changes else _skewed(base, seed), 1)
                if why := _stopped(one):
                    stopped += why
                    continue
                for place in (JUDGED, LOSS):
                    values[place[2]].append(_figure(one, place))
                ratios.append(_ratio(one))
        except UsageError as error:
            found[method] = {"refused": str(error)}
            continue
        if stopped:
            found[method] = {"stopped": len(stopped), "reason": stopped[0]}
            print(f"skewed, {method}: {json.dumps(found[method])}", flush=True)
            continue
        plain = plain or values
        found[method] = {metric: mean_of(each) for metric, each in values.items()}
        if values is not plain:
            found[method] |= {
                f"gain-{metric}": _interval(plain[metric], each, sum(ratios) / len(ratios))
                for metric, each in values.items()
            }
        print(f"skewed, {method}: {json.dumps(found[method])}", flush=True)
    return {"seeds": list(accepted()), "methods": found}


def _ratio(one: Recorded) -> float:
    """Return the holdout rows per training row."""
    (_, sites), *_ = one.runs
    held = sum(entry.holdout_rows or 0 for entry in sites.values())
    return held / (sum(entry.rows or 0 for entry in sites.values()) - held)


def _interval(plain: list[float | None], other: list[float | None], ratio: float) -> Mapping[str, Any]:
    gains = [b - a for a, b in zip(plain, other, strict=True) if a is not None and b is not None]
    if len(gains) < len(plain):
        return {"value": None, "reason": f"defined in {len(gains)} of {len(plain)} partitions"}
    mean, low, high, p = resplit_interval(gains, ratio)
    return {"value": mean, "low": low, "high": high, "p": p, "repeats": len(gains)}


def main() -> int:
    """Run the chosen methods, and write them into the results file and the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [*STUDIES, SKEWED, OWN_PARTS, WARM_START]
    parser.add_argument("--only", nargs="+", default=known, choices=known)
    given = parser.parse_args()
    for name in given.only:
        stamp = {"date": datetime.date.today().isoformat(), "machine": machine()}
        results = json.loads(RESULTS.read_text())
        if name == WARM_START:
            results[name] = {site: late_hospital(site) for site in HOSPITALS} | stamp
        elif name == OWN_PARTS:
            results[name] = {study: own_parts(study) for study in STUDIES} | stamp
        else:
            figures = skewed() if name == SKEWED else resplit(name)
            results["methods"] = results.get("methods", {}) | {name: figures} | stamp
        RESULTS.write_text(json.dumps(results, indent=2, sort_keys=True) + "\n")
        write(results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
