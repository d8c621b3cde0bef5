"""Limits of the figures, and the figures that miss them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.workload import WORKLOADS

CPU = {
    ("W1", "stacked"): 0.38,
    ("W2", "stacked"): 0.38,
    ("W3", "stacked"): 0.48,
    ("W4", "stacked"): 0.35,
    ("W1", "one-by-one"): 1.2,
    ("W2", "one-by-one"): 1.5,
}
"""CPU seconds over those of the bare loop, at most."""
RAY_TIMES, RAY_MEMORY = 20.0, 1 / 3
"""How many times faster than Flower's simulation stacked is on W2, at least; and its share of the memory, at most."""
SCALE_OVER_BARE, SCALE_MEMORY, SCALE_STRAIGHT, SCALE_DEARER = 0.5, 1.5, 0.98, 1.5
"""CPU seconds of a round with the most sites over a bare loop's; memory over that of holding the rows; R² of the line;
CPU seconds of one site among the most sites over those among the fewest, since R² alone lets quadratic time pass."""
SUMS_RATIO = {"sums": 2.5, "missing": 3.5}
"""A round with secure sums beyond the training, over a plain one, at most: with all sites, and with one missing."""
DEPLOYMENT_RATIO = 0.25
"""Seconds of a round at three institutions beyond the training, over those of plain Flower, at most."""
PRIVATE_OVER_PLAIN, OPACUS_OVER_PRIVATE = 1.5, 5.0
"""CPU time of a protected step over a plain one's, at most, wherever draws come from; Opacus's hooks' over ours, at
least."""
NOISED_OVER_NUMPY = 5.0
"""CPU time of counts noised with the operating system's draws, over that of numpy's own normal draws of the same run,
at most."""

TREES_OVER_XGBOOST = 4.0
"""CPU seconds of boosted trees, all sites and the server, over those of XGBoost with one thread, at most."""
PACKED_OVER_PLAIN = 1.3
"""CPU seconds of a round packed as int8 both ways, over one in float32, at most."""
SUMS_SECONDS, SUMS_OVER_BARE = {"4000": 2.5, "100000": 6.0}, 5.0
"""CPU seconds of all sites and the server for secure sums of so many parameters, keys and a round; or, on a slower
machine, how many times those of the bare key exchanges and streams in the same run."""
SUMS_BYTES = {"vector-bytes-a-parameter": 4.1, "share-bytes-a-pair": 200.0, "key-bytes-a-pair": 250.0}
"""Bytes of a masked vector; of shares and confirmations a round, and of keys a run, for a site and another one."""
FIRST_CHART_SECONDS, PAGE_SECONDS, LOOK_SECONDS, PAGE_BYTES = 3.0, 1.0, 0.2, 300_000
"""The app on a hundred sites and five hundred rounds: until the first chart of a server that has just started; a turn
to another page; CPU seconds of a look at a running study; what a page sends to the browser."""

Results = Mapping[str, Any]


def missed(results: Results) -> list[str]:
    """Return a sentence for each limit that the results miss, or that has no figure."""
    return [
        *_ratios(results),
        *_codec(results),
        *_trees(results),
        *_secure_sums(results),
        *_ray(results),
        *_scale(results),
        *_deployment(results),
        *_private(results),
        *_noised_counts(results),
        *_dashboard(results),
    ]


def _ratios(results: Results) -> Iterator[str]:
    for (workload, way), most in CPU.items():
        found = results.get(workload, {}).get(way, {}).get("cpu-ratio")
        if found is None:
            yield f"{workload} {way}: no figure"
        elif found > most:
            yield f"{workload} {way}: CPU ratio {found}, limit {most}"


def _codec(results: Results) -> Iterator[str]:
    for name in WORKLOADS:
        found = results.get("codec", {}).get(name, {}).get("ratio")
        if found is None:
            yield f"int8 both ways, {name}: no figure"
        elif found > PACKED_OVER_PLAIN:
            yield f"int8 both ways, {name}: {found} times a round in float32, limit {PACKED_OVER_PLAIN}"


def _trees(results: Results) -> Iterator[str]:
    found = results.get("trees", {})
    if "ratio" not in found:
        yield f"boosted trees: {found.get('error', 'no figure')}"
    elif found["ratio"] > TREES_OVER_XGBOOST:
        yield f"boosted trees: {found['ratio']} times XGBoost's CPU, limit {TREES_OVER_XGBOOST}"


def _secure_sums(results: Results) -> Iterator[str]:
    found = results.get("secure-sums", {})
    if "sizes" not in found:
        yield f"secure sums: {found.get('error', 'no figure')}"
        return
    for entries, most in SUMS_SECONDS.items():
        size, where = found["sizes"][entries] | found, f"secure sums, {int(entries):,} parameters"
        if size["cpu-seconds"] > most and size["ratio"] > SUMS_OVER_BARE:
            said = f"{size['cpu-seconds']} CPU s, {size['ratio']} times the bare exchanges and streams"
            yield f"{where}: {said}, limit {most} s or {SUMS_OVER_BARE:.0f} times"
        for name, limit in SUMS_BYTES.items():
            if size[name] > limit:
                yield f"{where}: {size[name]} {name.replace('-', ' ')}, limit {limit}"


def _ray(results: Results) -> Iterator[str]:
    ray = results.get("W2", {}).get("ray", {})
    if "error" in ray or not ray:
        yield f"W2 ray: {ray.get('error', 'no figure')}"
        return
    if ray["times-slower-than-stacked"] < RAY_TIMES:
        yield f"W2: Flower's simulation takes {ray['times-slower-than-stacked']} times as long, limit {RAY_TIMES:.0f}"
    if ray["stacked-memory-share"] > RAY_MEMORY:
        yield f"W2: stacked takes {ray['stacked-memory-share']} of the simulation's memory, limit a third"


def _scale(results: Results) -> Iterator[str]:
    scale = results.get("scale", {})
    if "sizes" not in scale:
        yield f"scale: {scale.get('error', 'no figure')}"
        return
    most = scale["sizes"][-1]
    where = f"scale, {most['sites']:,} sites"
    if most["cpu-ratio"] > SCALE_OVER_BARE:
        yield f"{where}: CPU ratio {most['cpu-ratio']} of a bare loop's, limit {SCALE_OVER_BARE}"
    if most["memory-ratio"] > SCALE_MEMORY:
        yield f"{where}: {most['memory-ratio']} times the memory of holding the rows, limit {SCALE_MEMORY}"
    if scale["r-squared"] < SCALE_STRAIGHT:
        yield f"scale: R² {scale['r-squared']} of a straight line, limit {SCALE_STRAIGHT}"
    if scale["site-dearer"] > SCALE_DEARER:
        yield f"scale: a site is {scale['site-dearer']} times as dear among many as among few, limit {SCALE_DEARER}"


def _deployment(results: Results) -> Iterator[str]:
    found = results.get("deployment", {}).get("ratio")
    if found is None:
        yield "deployment: no figure"
    elif found > DEPLOYMENT_RATIO:
        yield f"deployment: a round beyond the training takes {found} of plain Flower's, limit {DEPLOYMENT_RATIO}"
    sums = results.get("deployment", {}).get("sums", {})
    for way, limit in SUMS_RATIO.items():
        ratio = sums.get(f"{way}-ratio")
        if ratio is None:
            yield f"deployment, secure sums: no figure of {way!r}"
        elif ratio > limit:
            yield f"deployment, secure sums ({way}): a round takes {ratio} times a plain one, limit {limit}"


def _private(results: Results) -> Iterator[str]:
    shapes = results.get("private-steps", {}).get("shapes")
    if not shapes:
        yield "private steps: no figure"
        return
    for name, found in shapes.items():
        for ratio, draws in (("over-plain", "a seed's"), ("system-over-plain", "the system's")):
            if found[ratio] > PRIVATE_OVER_PLAIN:
                said = f"{found[ratio]} times a plain step with {draws} draws"
                yield f"private steps, {name}: {said}, limit {PRIVATE_OVER_PLAIN}"
        if found["opacus-over-ours"] < OPACUS_OVER_PRIVATE:
            times, least = found["opacus-over-ours"], OPACUS_OVER_PRIVATE
            yield f"private steps, {name}: Opacus takes {times} times as long, limit {least:.0f}"


def _noised_counts(results: Results) -> Iterator[str]:
    found = results.get("noised-counts", {})
    if "over-numpy" not in found:
        yield f"noised counts: {found.get('error', 'no figure')}"
    elif found["over-numpy"] > NOISED_OVER_NUMPY:
        yield f"noised counts: {found['over-numpy']} times numpy's own normal draws, limit {NOISED_OVER_NUMPY:.0f}"


def _dashboard(results: Results) -> Iterator[str]:
    found = results.get("dashboard", {})
    if "pages" not in found:
        yield "app: no figure"
        return
    if found["first-chart-seconds"] > FIRST_CHART_SECONDS:
        yield f"app: the first chart stands after {found['first-chart-seconds']} s, limit {FIRST_CHART_SECONDS}"
    for name, page in found["pages"].items():
        if page["seconds"] > PAGE_SECONDS:
            yield f"app, {name}: a turn to it takes {page['seconds']} s, limit {PAGE_SECONDS}"
        if page["bytes"] > PAGE_BYTES:
            yield f"app, {name}: it sends {page['bytes']} bytes, limit {PAGE_BYTES}"
    for name, look in found["looks"].items():
        if look["cpu-seconds"] > LOOK_SECONDS:
            yield f"app, {name}: a look takes {look['cpu-seconds']} CPU s, limit {LOOK_SECONDS}"
